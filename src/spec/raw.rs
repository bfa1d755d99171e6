//! What a user writes: the messages of `schema/`, as generated, before anything is checked.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

include!(concat!(env!("OUT_DIR"), "/ringport.v1.rs"));

/// The descriptors of every message that can be read, with the well-known types that they use.
pub(super) fn descriptors() -> &'static DescriptorPool {
    static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(SCHEMA).expect("build.rs wrote the descriptors that it compiled")
    });
    &DESCRIPTORS
}

const SCHEMA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));
