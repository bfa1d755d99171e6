//! What the caller asks for: raw as written, then checked as used.
//!
//! [`read()`] turns YAML, JSON or TOML into a message of `schema/`; `check` turns the message into a type in which
//! every default is filled in and every limit holds. Both report all faults of a file, not the first. Nothing in a
//! file is replaced from the environment.
//!
//! Where faults say line and column: all that [`read()`] finds, and those of `from_text` that concern something
//! written in the text; a fault of `check` alone, or about a key that is missing, carries what is nearest, else none.

mod address;
mod check;
mod effective;
mod error;
mod json;
mod nearest;
mod proxy;
#[allow(missing_docs, clippy::allow_attributes, reason = "generated; the comments are those of the schema")]
pub mod raw;
mod read;
mod scalar;
mod tree;
mod yaml;

pub use address::{Address, OriginAddress};
pub use error::{Fault, SpecErrors};
pub use proxy::{
    AccessLog, Balance, DriverChoice, Forwarded, HealthSpec, HostPattern, Limits, ListenerSpec,
    OriginPoolSpec, ProxySpec, ProxySpecBuilder, RouteSpec, RuntimeSpec, Timeouts,
};
pub use read::{Format, Positions, read, read_with_positions};

#[cfg(test)]
mod tests;
