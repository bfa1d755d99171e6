//! Completion-based networking for thread-per-core gateways.
#![forbid(unsafe_code)]

pub mod proto;
