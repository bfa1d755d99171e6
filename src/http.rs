//! HTTP over streams: connections in the server's and in the client's role.

mod client;
mod http2;
mod server;

pub use client::{ClientError, ClientStream};
pub use http2::{Http2Error, Http2Stream};
pub use server::{ServeError, ServerStream};
