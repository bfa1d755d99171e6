//! HTTP over streams: a server from a spec, and connections in the server's and in the client's role.

mod client;
mod http2;
mod multiplex;
mod serve;
mod server;

pub use client::{ClientError, ClientStream};
pub use http2::{Http2Error, Http2Stream};
pub use multiplex::{CallError, CallEvent, Http2Call, Http2Client};
pub use serve::{
    ConnectionHandle, ConnectionSpec, Connections, Exchange, ExchangeError, Handler, HandlerError, Server,
    ServerHandle, ServerPart,
};
#[cfg(feature = "tower")]
pub use serve::{RequestBody, ServiceHandler};
pub use server::{ServeError, ServerStream};
