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
mod cidr;
mod dial;
mod error;
mod file;
mod http_server;
mod json;
mod keep_alive;
mod listen;
mod nearest;
mod net_addr;
mod packet;
mod protobuf;
mod proxy;
#[allow(
    missing_docs,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated; the comments are those of the schema"
)]
pub mod raw;
mod read;
mod scalar;
mod sockopt;
mod text;
mod tls;
mod tree;
mod unavailable;
mod units;
mod unix_file;
mod yaml;

pub use address::{Address, OriginAddress};
pub use cidr::{Cidr, CidrError, PeerRange};
pub use dial::{DialSpec, DialSpecBuilder, ProxyProtocolOut, Replacement, ResolverSpec};
pub use error::{Fault, SpecErrors};
pub use file::{Spec, SpecKind};
pub use http_server::{HttpLimits, HttpProtocol, HttpServerSpec, HttpServerSpecBuilder, HttpTimeouts};
pub use keep_alive::KeepAlive;
pub use listen::{
    ConnectionLimits, Deadlines, LimitPolicy, ListenSockets, ListenSource, ListenSpec, ListenSpecBuilder,
    PeerRules, ProxyProtocol, ProxyProtocolVersion,
};
pub use net_addr::{Carries, IpProtocol, NetAddr, Network};
pub use packet::{Multicast, MulticastGroup, PacketSpec, PacketSpecBuilder};
pub use protobuf::read_protobuf;
pub use proxy::{
    AccessLog, Balance, DriverChoice, Forwarded, HealthSpec, HostPattern, Limits, ListenerSpec,
    OriginPoolSpec, OriginSpec, ProxySpec, ProxySpecBuilder, RouteSpec, RuntimeSpec, Timeouts,
};
pub use read::{Format, Positions, read, read_with_positions};
pub use sockopt::{OnUnsupported, SockOptions};
pub use tls::{
    ClientAuth, Curve, Identity, Issuers, Pem, Resumption, TlsCipher, TlsClientSpec, TlsClientSpecBuilder,
    TlsCommon, TlsServerSpec, TlsServerSpecBuilder, TlsVersion,
};
pub use unix_file::{Owner, UnixFile};

#[cfg(test)]
mod tests;
