//! Completion-based networking for thread-per-core gateways.
//!
//! A program runs on one core or several; each is a thread with a driver (io_uring, or epoll where that is not to be had),
//! sockets, tasks and timers of its own. Nothing is shared between cores on the data path and no task moves, so futures
//! need not be `Send`. Received bytes are handed out where the kernel wrote them, and sent from where they lie:
//! an echo, or a proxy, copies nothing.
//!
//! ```
//! use ringport::net;
//! use ringport::runtime::{ListenOptions, Listener, Runtime, native};
//!
//! fn main() -> std::io::Result<()> {
//!     native::block_on(|runtime| async move {
//!         let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
//!         let mut listener = runtime.listen(&any, ListenOptions::default())?;
//!         let addr = listener.local_addr()?.into();
//!
//!         let server = runtime.clone();
//!         runtime.spawn(async move {
//!             let mut stream = net::accept(&server, &mut listener).await.expect("a client comes");
//!             while let Ok(Some(bytes)) = stream.recv().await {
//!                 stream.send(bytes).await.expect("the client reads");
//!             }
//!         });
//!
//!         let mut stream = net::connect(&runtime, &addr).await?;
//!         stream.send(b"hello").await?;
//!         let mut answer = [0; 5];
//!         stream.read_exact(&mut answer).await?;
//!         assert_eq!(&answer, b"hello");
//!         Ok(())
//!     })?
//! }
//! ```
//!
//! In reading order:
//!
//! * [`runtime`]: what everything above asks of where it runs, and [`runtime::native`], which runs it on our drivers.
//! * [`buf`]: who owns received bytes and bytes to send.
//! * [`net`]: streams with plain async methods, whole or in two halves, datagrams, and the streams' wrappers for `AsyncRead` and
//!   `AsyncWrite` of tokio and futures-io.
//! * [`proto`]: protocols as machines without socket, clock or thread; HTTP/1.1 and HTTP/2 in both roles.
//! * [`http`]: those machines driven over streams, and a server from a spec.
//! * [`spec`]: what a gateway's config may say, read, checked and filled with defaults.
//!
//! `examples/` holds echo servers of streams and of datagrams, a ping, servers of HTTP and an HTTP client to start from.
#![forbid(unsafe_code)]

pub mod http;
pub mod net;
pub mod proto;
pub mod runtime;
pub mod spec;

#[cfg(test)]
#[path = "../tests/it/pki.rs"]
mod pki;

/// Who owns bytes that were received or are to be sent: the module of `ringport_platform`.
pub use ringport_platform::buf;
