//! Protocol machines that own no socket, clock, task, lock or thread.
//!
//! Bytes come in as a queue of received views ([`RxQueue`]), bytes go out into a queue of segments ([`TxQueue`]); the
//! time, where a machine needs it, is an argument. A turn of whoever drives a machine:
//!
//! ```text
//! receive into rx -> poll_event until NeedInput or Paused, acting on each event -> send what is in tx
//! ```
//!
//! A machine takes from `rx` what it understood and leaves the rest there: bytes that stay are back-pressure. A machine
//! never waits, never panics on what a peer sent, and holds no more memory than its limits say.
//!
//! [`RxQueue`]: ringport_platform::buf::RxQueue
//! [`TxQueue`]: ringport_platform::buf::TxQueue

pub mod dns;
pub mod happy_eyeballs;
pub mod http1;
pub mod http2;
pub mod http_conn;
pub mod http_date;
pub mod mapping;
pub mod proxy_protocol;
pub mod tls;
