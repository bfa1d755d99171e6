//! Text to message: every key and value is compared with the schema.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::error::{Fault, SpecErrors};
use super::json::parse_json;
use super::nearest::{did_you_mean, quoted};
use super::raw;
use super::scalar;
use super::tree::{self, Key, Node, Position, parse_toml};
use super::units;
use super::yaml::parse_yaml;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// TOML 1.0.
    Toml,
    /// YAML 1.2.
    Yaml,
}

impl Format {
    /// The format that the ending of a file name states: `.yaml`, `.yml`, `.json` or `.toml`, in any case.
    ///
    /// # Errors
    /// The ending is missing or another one; the fault names those that are known.
    pub fn from_path(path: &Path) -> Result<Format, SpecErrors> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("json") => Ok(Format::Json),
            Some("toml") => Ok(Format::Toml),
            Some("yaml" | "yml") => Ok(Format::Yaml),
            _ => {
                let message =
                    "the file name must end in .yaml, .yml, .json or .toml, or for protobuf in .binpb or .pb";
                Err(SpecErrors::one(&path.to_string_lossy(), None, message))
            }
        }
    }
}

/// Where each part of a text is written, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(HashMap<String, Position>);

impl Positions {
    /// Whether this very part is written.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Line and column, from 1, of the part; where it is not written, of the nearest part that holds it.
    pub fn nearest(&self, path: &str) -> Option<(u32, u32)> {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return Some(*position);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Reads a message of `schema/` from a text; `file_name` is only quoted in faults.
///
/// Names of fields are accepted in snake_case and camelCase, durations with their unit (`"75s"`), enums by name with or
/// without prefix or by number, integers also as strings, bytes as base64; a null is a field left out.
///
/// # Errors
/// Every unknown or repeated key, wrong type, number out of range, unknown enum value and malformed duration, with
/// line, column and path. A text that is no YAML, JSON or TOML is one fault with line and column.
pub fn read<T: Message + Name + Default>(
    text: &str,
    format: Format,
    file_name: &str,
) -> Result<T, SpecErrors> {
    read_with_positions(text, format, file_name).map(|(message, _)| message)
}

/// As [`read()`], and says where each field is written, for [`SpecErrors::locate`].
///
/// # Errors
/// As [`read()`].
pub fn read_with_positions<T: Message + Name + Default>(
    text: &str,
    format: Format,
    file_name: &str,
) -> Result<(T, Positions), SpecErrors> {
    let (message, reading) = read_what_can_be(&parse(text, format, file_name)?, file_name)?;
    SpecErrors::or(reading.faults, (message, reading.positions))
}

/// Reads a message and checks it. Also says what is wrong with those parts that could be read beside others that could not.
pub(super) fn read_and_check<T: Message + Name + Default, S>(
    root: &Node,
    file_name: &str,
    check: impl FnOnce(&T) -> Result<S, SpecErrors>,
) -> Result<S, SpecErrors> {
    let (raw, Reading { positions, faults: unread, holes, .. }) = read_what_can_be(root, file_name)?;
    let checked = check(&raw).map_err(|errors| errors.locate(file_name, &positions));
    match checked {
        checked if unread.is_empty() => checked,
        Ok(_) => Err(SpecErrors::of(unread)),
        Err(errors) => Err(errors.beside(unread, &holes, &positions)),
    }
}

/// What of a text can be read in two ways, and is read in the one that the schema says.
pub(super) fn notices<T: Message + Name + Default>(root: &Node, file_name: &str) -> Vec<Fault> {
    raw::descriptor_of::<T>(file_name)
        .map_or_else(|_| Vec::new(), |descriptor| message_of(root, file_name, &descriptor).1.notices)
}

/// As [`read_with_positions`], but gives what could be made of a text beside the faults of its parts, which it lacks.
fn read_what_can_be<T: Message + Name + Default>(
    root: &Node,
    file_name: &str,
) -> Result<(T, Reading), SpecErrors> {
    let descriptor = raw::descriptor_of::<T>(file_name)?;
    let (dynamic, reading) = message_of(root, file_name, &descriptor);
    let message = dynamic
        .transcode_to()
        .map_err(|error| SpecErrors::one(file_name, None, format!("not a {}: {error}", T::NAME)))?;
    Ok((message, reading))
}

#[cfg(test)]
pub(super) fn read_dynamic(
    text: &str,
    format: Format,
    file_name: &str,
    descriptor: &MessageDescriptor,
) -> Result<(DynamicMessage, Positions), SpecErrors> {
    let (message, reading) = message_of(&parse(text, format, file_name)?, file_name, descriptor);
    SpecErrors::or(reading.faults, (message, reading.positions))
}

/// The tree of a text.
pub(super) fn parse(text: &str, format: Format, file_name: &str) -> Result<Node, SpecErrors> {
    if text.len() > MAX_BYTES {
        let message = format!("the text is longer than {MAX_BYTES} bytes");
        return Err(SpecErrors::one(file_name, None, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = match format {
        Format::Json => parse_json(text),
        Format::Toml => parse_toml(text),
        Format::Yaml => parse_yaml(text),
    };
    parsed.map_err(|(position, message)| SpecErrors::one(file_name, position, message))
}

fn message_of(root: &Node, file_name: &str, descriptor: &MessageDescriptor) -> (DynamicMessage, Reading) {
    let mut reader = Reader { file: file_name, reading: Reading::default() };
    let message = match root.value {
        // A file of comments only asks for nothing.
        tree::Value::Null => DynamicMessage::new(descriptor.clone()),
        _ => reader.message(root, descriptor, "").unwrap_or_else(|| DynamicMessage::new(descriptor.clone())),
    };
    (message, reader.reading)
}

/// What is known of a text beside its message.
#[derive(Default)]
struct Reading {
    positions: Positions,
    faults: Vec<Fault>,
    /// Fields that could not be read, and lists that lack an item.
    holes: Vec<String>,
    /// Times that are written without a unit.
    notices: Vec<Fault>,
}

struct Reader<'a> {
    file: &'a str,
    reading: Reading,
}

impl Reader<'_> {
    fn message(&mut self, node: &Node, descriptor: &MessageDescriptor, path: &str) -> Option<DynamicMessage> {
        if let Some(well_known) = scalar::well_known(&node.value, descriptor) {
            return well_known.map_err(|message| self.fault(node.position, path, message)).ok();
        }
        let tree::Value::Table(entries) = &node.value else {
            self.fault(node.position, path, format!("expected a table, found {}", node.value.kind()));
            return None;
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen: HashMap<u32, Position> = HashMap::new();
        for (key, child) in entries {
            let Some(field) = self.field(key, descriptor, path) else { continue };
            let child_path =
                if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
            if let Some((line, _)) = seen.insert(field.number(), key.position) {
                self.fault(key.position, &child_path, format!("written twice, first in line {line}"));
                continue;
            }
            self.reading.positions.0.insert(child_path.clone(), child.position);
            if matches!(child.value, tree::Value::Null) {
                continue;
            }
            let beside = field
                .containing_oneof()
                .and_then(|oneof| oneof.fields().find(|other| *other != field && message.has_field(other)));
            if let Some(other) = beside {
                let sentence = format!("cannot be beside {}, which is written already", other.json_name());
                self.fault(key.position, &child_path, sentence);
                continue;
            }
            match self.value(child, &field, &child_path) {
                Some(value) => message.set_field(&field, value),
                None => self.reading.holes.push(child_path),
            }
        }
        Some(message)
    }

    fn field(&mut self, key: &Key, descriptor: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
        let name = key.name.as_str();
        let found = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        if found.is_none() {
            let names: Vec<_> = descriptor.fields().collect();
            let known = names.iter().flat_map(|field| [field.name(), field.json_name()]);
            let hint = did_you_mean(name, known);
            self.fault(key.position, path, format!("unknown key {}{hint}", quoted(name)));
        }
        found
    }

    fn value(&mut self, node: &Node, field: &FieldDescriptor, path: &str) -> Option<Value> {
        match (&node.value, field.kind()) {
            (_, Kind::Message(entry)) if field.is_map() => self.map(node, &entry, path),
            (tree::Value::List(items), kind) if field.is_list() => {
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.reading.positions.0.insert(path.clone(), item.position);
                    values.extend(self.single(item, &kind, &path));
                }
                if values.len() < items.len() {
                    self.reading.holes.push(path.to_owned());
                }
                Some(Value::List(values))
            }
            (other, _) if field.is_list() => {
                self.fault(node.position, path, format!("expected a list, found {}", other.kind()));
                None
            }
            (_, kind) => {
                if let Some(message) = units::bare_time(&node.value, units::unit(field)) {
                    let notice = self.told(node.position, path, message);
                    self.reading.notices.push(notice);
                }
                self.in_unit(node, field, path).unwrap_or_else(|| self.single(node, &kind, path))
            }
        }
    }

    /// The value of a field whose integer has a unit, where it is written with one; `None` where it is not.
    fn in_unit(&mut self, node: &Node, field: &FieldDescriptor, path: &str) -> Option<Option<Value>> {
        let converted = units::convert(&node.value, units::unit(field))?;
        let scalar =
            converted.and_then(|number| scalar::scalar(&tree::Value::Integer(number), &field.kind()));
        Some(scalar.map_err(|message| self.fault(node.position, path, message)).ok())
    }

    fn map(&mut self, node: &Node, entry: &MessageDescriptor, path: &str) -> Option<Value> {
        let tree::Value::Table(entries) = &node.value else {
            self.fault(node.position, path, format!("expected a table, found {}", node.value.kind()));
            return None;
        };
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut values: HashMap<MapKey, Value> = HashMap::with_capacity(entries.len());
        for (key, child) in entries {
            let child_path = format!("{path}[{}]", quoted(&key.name));
            self.reading.positions.0.insert(child_path.clone(), child.position);
            let parsed = match scalar::map_key(&key.name, &key_kind) {
                Ok(parsed) => parsed,
                Err(message) => {
                    self.fault(key.position, &child_path, message);
                    continue;
                }
            };
            let Entry::Vacant(vacant) = values.entry(parsed) else {
                self.fault(key.position, &child_path, "written twice".to_owned());
                continue;
            };
            if let Some(value) = self.single(child, &value_kind, &child_path) {
                vacant.insert(value);
            }
        }
        Some(Value::Map(values))
    }

    fn single(&mut self, node: &Node, kind: &Kind, path: &str) -> Option<Value> {
        if let Kind::Message(descriptor) = kind {
            return self.message(node, descriptor, path).map(Value::Message);
        }
        scalar::scalar(&node.value, kind).map_err(|message| self.fault(node.position, path, message)).ok()
    }

    fn fault(&mut self, position: Position, path: &str, message: String) {
        let fault = self.told(position, path, message);
        self.reading.faults.push(fault);
    }

    fn told(&self, (line, column): Position, path: &str, message: String) -> Fault {
        let (file, path) = (self.file.to_owned(), path.to_owned());
        Fault { file, line: Some(line), column: Some(column), path, message }
    }
}

/// Bounds the memory of a tree; the largest spec that the limits allow is well below.
pub(super) const MAX_BYTES: usize = 16 << 20;
