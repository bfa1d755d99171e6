//! TLS of dialers and listeners.
//!
//! A spec ([`TlsClientSpec`](crate::spec::TlsClientSpec), [`TlsServerSpec`](crate::spec::TlsServerSpec)) names files;
//! [`ClientTls::load`] and [`ServerTls::load`] read them, once, and tell every fault by file. [`ClientTls::reload`] and
//! [`ServerTls::reload`] read them again: what loads is what new handshakes get, all of it at once; what does not leaves
//! everything as it was. Dialers and listeners do that by themselves where a file has changed (`reload_interval`).
//!
//! [`TlsDialer`] and [`TlsListener`] stand on a [`Dialer`](super::Dialer) and a [`Listener`](super::Listener), have all that
//! those have, and speak TLS where the spec has `tls_config`. Those alone refuse such a spec.

mod accept;
mod config;
mod dial;
mod handshake;
mod listen;
mod load;
mod pending;
mod resolver;
mod stream;
mod watch;

#[cfg(test)]
mod tests;

pub use accept::{TlsAcceptor, TlsListenStats};
pub use config::{ClientTls, ServerTls};
pub use dial::{TlsDialError, TlsDialer};
pub use handshake::HandshakeError;
pub use listen::{TlsListenError, TlsListenPart, TlsListener};
pub use load::{LoadErrors, LoadFault, LoadFaultKind, LoadWarning};
pub use stream::{Link, TlsStream};
