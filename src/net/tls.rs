//! TLS of dialers and listeners.
//!
//! A spec ([`TlsClientSpec`](crate::spec::TlsClientSpec), [`TlsServerSpec`](crate::spec::TlsServerSpec)) names files;
//! [`ClientTls::load`] and [`ServerTls::load`] read them, once, and tell every fault by file. [`ClientTls::reload`] and
//! [`ServerTls::reload`] read them again: what loads is what new handshakes get, all of it at once; what does not leaves
//! everything as it was.

mod config;
mod load;
mod resolver;

#[cfg(test)]
mod tests;

pub use config::{ClientTls, ServerTls};
pub use load::{LoadErrors, LoadFault, LoadFaultKind, LoadWarning};
