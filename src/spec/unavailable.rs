//! What the schema has and nothing executes yet. It is refused by these lists, field by field; a line goes when its feature
//! lands.

use prost::{Message, Name};

use super::check::{Check, join};
use super::net_addr::Network;
use super::raw;

/// A field of a message, and what is said of it.
pub(super) type Unavailable = (&'static str, &'static str, &'static str);

/// Nowhere, in no spec.
pub(super) const NOT_YET: &[Unavailable] = &[
    ("DialConfig", "tls_config", "TLS is not available yet"),
    ("ListenConfig", "tls_config", "TLS is not available yet"),
];

/// Not in a proxy, whose listeners and origins take addresses only so far.
pub(super) const NOT_YET_IN_PROXY: &[Unavailable] = &[
    ("ListenConfig", "connection_limit", PROXY),
    ("ListenConfig", "networks", PROXY),
    ("ListenConfig", "blacklist", PROXY),
    ("ListenConfig", "read_deadline", PROXY),
    ("ListenConfig", "write_deadline", PROXY),
    ("ListenConfig", "keep_alive_config", PROXY),
    ("ListenConfig", "sock_option", PROXY),
    ("ListenConfig", "deny_networks", PROXY),
    ("ListenConfig", "connection_limit_policy", PROXY),
    ("ListenConfig", "connection_limit_per_address", PROXY),
    ("ListenConfig", "connection_deadline", PROXY),
    ("ListenConfig", "backlog", PROXY),
    ("ListenConfig", "sockets", PROXY),
    ("ListenConfig", "unix", PROXY),
    ("ListenConfig", "proxy_protocol", PROXY),
    ("ListenConfig", "inherited", PROXY),
    ("DialConfig", "local_address", PROXY),
    ("DialConfig", "local_network", PROXY),
    ("DialConfig", "replace_targets", PROXY),
    ("DialConfig", "timeout", "not available in a proxy yet; see connect_timeout of the pool"),
    ("DialConfig", "fallback_delay", PROXY),
    ("DialConfig", "sock_option", PROXY),
    ("DialConfig", "keep_alive_config", PROXY),
    ("DialConfig", "resolver", "not available in a proxy yet; see resolve_interval of the pool"),
    ("DialConfig", "proxy_protocol", PROXY),
];

/// Networks that listeners of a proxy cannot have: they are bound as streams of both families.
pub(super) const NETWORKS_NOT_YET_IN_PROXY: &[Network] = &[Network::Tcp6, Network::UnixPacket];

const PROXY: &str = "not available in a proxy yet";

/// Takes every field of a list out of a message: what says the default of something that cannot be said yet.
pub(super) fn clear_unavailable<M: Message + Name + Default>(raw: &mut M, list: &[Unavailable]) {
    let mut message = raw::dynamic(raw);
    for (name, field, _) in list {
        if *name == M::NAME {
            message.clear_field_by_name(field);
        }
    }
    *raw = raw::generated(&message);
}

impl Check {
    /// Notes every field of a list that is written in a message.
    pub(super) fn unavailable<M: Message + Name>(&mut self, raw: &M, path: &str, list: &[Unavailable]) {
        for (field, _) in raw::dynamic(raw).fields() {
            let found = list.iter().find(|(name, of, _)| *name == M::NAME && *of == field.name());
            if let Some((_, _, sentence)) = found {
                self.fault(join(path, field.name()), *sentence);
            }
        }
    }
}
