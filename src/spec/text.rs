//! A message as text.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, SerializeOptions, Value};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{raw, units};

/// YAML with the names of the schema in camelCase, in its order, that is read back to the same message. Times say their unit.
pub(super) fn to_yaml<M: Message + Name>(raw: &M) -> String {
    // Strings in quotes all, so that none is taken for a number or a word by another reader.
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&AsText(&raw::dynamic(raw)), options)
        .expect("checked durations are in the range of the format")
}

struct AsText<'a>(&'a DynamicMessage);

impl Serialize for AsText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Messages of protobuf itself have forms of their own.
        if self.0.descriptor().full_name().starts_with("google.protobuf.") {
            let options = SerializeOptions::new().stringify_64_bit_integers(false);
            return self.0.serialize_with_options(serializer, &options);
        }
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in self.0.fields() {
            map.serialize_entry(field.json_name(), &Field { field: &field, value })?;
        }
        map.end()
    }
}

/// A value of a field, whole or one of a list.
struct Field<'a> {
    field: &'a FieldDescriptor,
    value: &'a Value,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Message(message) => AsText(message).serialize(serializer),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|value| list.serialize_element(&Field { value, ..*self }))?;
                list.end()
            }
            Value::EnumNumber(number) => {
                let kind = self.field.kind();
                let value = kind.as_enum().and_then(|names| names.get_value(*number));
                // A number without a name comes of no checked spec.
                value
                    .map_or_else(|| number.to_string(), |value| value.name().to_owned())
                    .serialize(serializer)
            }
            Value::I32(number) => match units::time(i64::from(*number), units::unit(self.field)) {
                Some(time) => serializer.serialize_str(&time),
                None => serializer.serialize_i32(*number),
            },
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::U32(number) => serializer.serialize_u32(*number),
            Value::U64(number) => serializer.serialize_u64(*number),
            Value::String(text) => serializer.serialize_str(text),
            // The schema has none of them; a field that brings one shows here first.
            Value::I64(_) | Value::F32(_) | Value::F64(_) | Value::Bytes(_) | Value::Map(_) => {
                Err(serde::ser::Error::custom(format!("{} has no form in a text", self.field.full_name())))
            }
        }
    }
}
