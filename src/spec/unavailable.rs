//! What the schema has and nothing executes yet. It is refused by these lists, field by field; a line goes when its feature
//! lands.

use prost::{Message, Name};

use super::check::{Check, join};
use super::net_addr::Network;
use super::raw;

/// A field of a message, and what is said of it.
pub(super) type Unavailable = (&'static str, &'static str, &'static str);

/// Not in a proxy.
pub(super) const NOT_IN_PROXY: &[Unavailable] =
    &[("ResolverConfig", "cache_entries", KEPT), ("ResolverConfig", "cache_max_ttl", KEPT)];

/// Networks that listeners of a proxy cannot have: HTTP goes over a stream of bytes.
pub(super) const NETWORKS_NOT_IN_PROXY: &[Network] = &[Network::UnixPacket];

const KEPT: &str = "a proxy keeps the names of its origins as long as resolve_interval of the pool says";

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
