//! Single values by the protobuf JSON mapping.

use prost_reflect::bytes::Bytes;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use super::nearest::{did_you_mean, quoted};
use super::{tree, units};

/// The value as a field of this kind, which is no message.
pub(super) fn scalar(value: &tree::Value, kind: &Kind) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Bool, tree::Value::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::String, tree::Value::Text(text)) => Ok(Value::String(text.clone())),
        (Kind::String, other @ (tree::Value::Bool(_) | tree::Value::Integer(_) | tree::Value::Float(_))) => {
            Err(format!("expected a string, found {}; put it in quotes", other.kind()))
        }
        (Kind::Bytes, tree::Value::Text(text)) => base64(text).map(Value::Bytes),
        (Kind::Double, value) => number(value).map(Value::F64),
        // Rounded to the nearest, as protobuf does.
        (Kind::Float, value) => match number(value)? as f32 {
            narrow if narrow.is_finite() => Ok(Value::F32(narrow)),
            _ => Err("out of range".to_owned()),
        },
        (Kind::Enum(descriptor), value) => enumeration(value, descriptor).map(Value::EnumNumber),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, value) => integer(value).map(Value::I32),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, value) => integer(value).map(Value::I64),
        (Kind::Uint32 | Kind::Fixed32, value) => integer(value).map(Value::U32),
        (Kind::Uint64 | Kind::Fixed64, value) => integer(value).map(Value::U64),
        (Kind::Bool, other) => Err(format!("expected true or false, found {}", other.kind())),
        (Kind::String | Kind::Bytes, other) => Err(format!("expected a string, found {}", other.kind())),
        (Kind::Message(_), other) => Err(format!("expected a message, found {}", other.kind())),
    }
}

/// The key of a map entry, which every format writes as text.
pub(super) fn map_key(name: &str, kind: &Kind) -> Result<MapKey, String> {
    let value = match (kind, name) {
        (Kind::Bool, "true") => tree::Value::Bool(true),
        (Kind::Bool, "false") => tree::Value::Bool(false),
        _ => tree::Value::Text(name.to_owned()),
    };
    match scalar(&value, kind)? {
        Value::Bool(key) => Ok(MapKey::Bool(key)),
        Value::I32(key) => Ok(MapKey::I32(key)),
        Value::I64(key) => Ok(MapKey::I64(key)),
        Value::U32(key) => Ok(MapKey::U32(key)),
        Value::U64(key) => Ok(MapKey::U64(key)),
        Value::String(key) => Ok(MapKey::String(key)),
        _ => Err("not a key".to_owned()),
    }
}

/// The value as a message of `google.protobuf`, each of which has a form of its own; `None` for other messages.
pub(super) fn well_known(
    value: &tree::Value,
    descriptor: &MessageDescriptor,
) -> Option<Result<DynamicMessage, String>> {
    match descriptor.full_name() {
        "google.protobuf.Duration" => Some(duration(value).map(|(seconds, nanos)| {
            let mut message = DynamicMessage::new(descriptor.clone());
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            message
        })),
        name if name.starts_with("google.protobuf.") => {
            let options = DeserializeOptions::new().deny_unknown_fields(true);
            let message =
                DynamicMessage::deserialize_with_options(descriptor.clone(), to_json(value), &options);
            Some(message.map_err(|error| error.to_string()))
        }
        _ => None,
    }
}

fn number(value: &tree::Value) -> Result<f64, String> {
    match value {
        tree::Value::Float(value) => Ok(*value),
        tree::Value::Integer(value) => Ok(*value as f64),
        tree::Value::Text(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("expected a number, found {}", quoted(text))),
        },
        other => Err(format!("expected a number, found {}", other.kind())),
    }
}

fn integer<T: TryFrom<i128>>(value: &tree::Value) -> Result<T, String> {
    let integer = match value {
        tree::Value::Integer(value) => *value,
        tree::Value::Text(text) => {
            text.parse().map_err(|_| format!("expected an integer, found {}", quoted(text)))?
        }
        // Some writers know only one kind of number. Below 2^53 a float is exact.
        tree::Value::Float(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => {
            *value as i128
        }
        other => return Err(format!("expected an integer, found {}", other.kind())),
    };
    let bits = 8 * size_of::<T>();
    let sign = if T::try_from(-1).is_ok() { "signed" } else { "unsigned" };
    T::try_from(integer).map_err(|_| format!("{integer} does not fit {bits} bits, {sign}"))
}

fn enumeration(value: &tree::Value, descriptor: &EnumDescriptor) -> Result<i32, String> {
    let names: Vec<_> = descriptor.values().collect();
    match value {
        tree::Value::Text(text) => {
            let upper = text.to_ascii_uppercase();
            let prefix = prefix(names.iter().map(|value| value.name()));
            let found = descriptor.get_value_by_name(text);
            let found = found.or_else(|| descriptor.get_value_by_name(&upper));
            let found = found.or_else(|| descriptor.get_value_by_name(&format!("{prefix}{upper}")));
            found.map(|value| value.number()).ok_or_else(|| {
                let known = names.iter().flat_map(|value| [value.name(), &value.name()[prefix.len()..]]);
                let hint = did_you_mean(text, known);
                let all: Vec<_> = names.iter().map(|value| value.name()).collect();
                format!("unknown value {}; known are {}{hint}", quoted(text), all.join(", "))
            })
        }
        other => {
            let number = integer(other).map_err(|_| format!("expected a name, found {}", other.kind()))?;
            let known = descriptor.get_value(number).map(|value| value.number());
            known.ok_or_else(|| format!("unknown value {number} of {}", descriptor.name()))
        }
    }
}

/// What all names begin with, up to and with an underscore.
fn prefix<'a>(mut names: impl Iterator<Item = &'a str>) -> &'a str {
    let first = names.next().unwrap_or_default();
    let shared = names.fold(first.len(), |shared, name| {
        first.bytes().zip(name.bytes()).take(shared).take_while(|(a, b)| a == b).count()
    });
    // A list of one name has no prefix that tells it from others.
    if shared == first.len() { "" } else { first[..shared].rfind('_').map_or("", |end| &first[..=end]) }
}

/// Seconds and nanoseconds of `"75s"`, `"0.25s"`, `"250ms"`, `"5m"` or `"-1.5s"`.
fn duration(value: &tree::Value) -> Result<(i64, i32), String> {
    const FORMS: &str = "write it with its unit, such as \"75s\", \"250ms\" or \"5m\"";
    let text = match value {
        tree::Value::Text(text) => text,
        tree::Value::Integer(number) => {
            return Err(format!("{number} has no unit; {FORMS}"));
        }
        other => {
            return Err(format!("expected a duration such as \"75s\" or \"250ms\", found {}", other.kind()));
        }
    };
    let malformed = || format!("{} is no duration; {FORMS}", quoted(text));
    let nanos = units::nanoseconds(text).ok_or_else(malformed)?;
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let seconds = i64::try_from(seconds).ok().filter(|seconds| seconds.abs() <= MAX_DURATION_SECONDS);
    // Below 10^9, which fits.
    Ok((seconds.ok_or_else(malformed)?, nanos as i32))
}

fn base64(text: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    let digits = text.trim_end_matches('=');
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err("expected base64".to_owned()),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 || bits != 0 {
        return Err("expected base64".to_owned());
    }
    Ok(bytes.into())
}

fn to_json(value: &tree::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        tree::Value::Null => Json::Null,
        tree::Value::Bool(value) => Json::Bool(*value),
        tree::Value::Integer(value) => {
            i64::try_from(*value).map_or_else(|_| (*value as f64).into(), Json::from)
        }
        tree::Value::Float(value) => (*value).into(),
        tree::Value::Text(text) => Json::String(text.clone()),
        tree::Value::List(items) => items.iter().map(|item| to_json(&item.value)).collect(),
        tree::Value::Table(entries) => {
            entries.iter().map(|(key, node)| (key.name.clone(), to_json(&node.value))).collect()
        }
    }
}

/// The range of `google.protobuf.Duration`: 10,000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
