//! What a user writes: the messages of `schema/`, as generated, before anything is checked.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::error::SpecErrors;

include!(concat!(env!("OUT_DIR"), "/ringport.v1.rs"));

/// The descriptors of every message that can be read, with the well-known types that they use.
pub(super) fn descriptors() -> &'static DescriptorPool {
    static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(SCHEMA).expect("build.rs wrote the descriptors that it compiled")
    });
    &DESCRIPTORS
}

/// The descriptor of a message that was generated from the schema.
pub(super) fn descriptor<M: Name>() -> MessageDescriptor {
    descriptors().get_message_by_name(&M::full_name()).expect("the schema has what was generated from it")
}

/// The descriptor of a message that may be somebody else's.
pub(super) fn descriptor_of<M: Name>(file_name: &str) -> Result<MessageDescriptor, SpecErrors> {
    let name = M::full_name();
    let found = descriptors().get_message_by_name(&name);
    found.ok_or_else(|| SpecErrors::one(file_name, None, format!("the schema has no message {name}")))
}

/// A message whose fields can be asked for by their descriptors.
pub(super) fn dynamic<M: Message + Name>(raw: &M) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor::<M>());
    message.transcode_from(raw).expect("the message has the fields of its schema");
    message
}

/// The message that a dynamic one is.
pub(super) fn generated<M: Message + Name + Default>(message: &DynamicMessage) -> M {
    message.transcode_to().expect("the message has the fields of its schema")
}

const SCHEMA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));
