//! Completion-based networking for thread-per-core gateways.
#![forbid(unsafe_code)]

pub mod http;
pub mod net;
pub mod proto;
pub mod runtime;
pub mod spec;
