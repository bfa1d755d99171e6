//! HTTP over streams: connections in the server's and in the client's role.

mod client;
mod server;

pub use client::{ClientError, ClientStream};
pub use server::{ServeError, ServerStream};
