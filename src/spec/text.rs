//! A message as text.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};

use super::raw;

/// YAML with the names of the schema, in its order, that is read back to the same message.
pub(super) fn to_yaml<M: Message + Name>(raw: &M) -> String {
    // Strings in quotes all, so that none is taken for a number or a word by another reader.
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&AsText(raw::dynamic(raw)), options)
        .expect("checked durations are in the range of the format")
}

struct AsText(DynamicMessage);

impl Serialize for AsText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        self.0.serialize_with_options(serializer, &options)
    }
}
