//! A text in any format as one tree that knows where each part is written.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Line and column from 1, the column in characters.
pub(super) type Position = (u32, u32);

/// What keeps a text from being a tree: a message, and where.
pub(super) type Malformed = (Option<Position>, String);

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order written, keys that are repeated included.
    Table(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) position: Position,
    pub(super) name: String,
}

impl Value {
    /// For faults: what kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// The tree of a TOML text.
pub(super) fn parse_toml(text: &str) -> Result<Node, Malformed> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        (error.span().map(|span| lines.position(span.start)), error.message().replace('\n', ", "))
    })?;
    toml_table(table.get_ref(), table.span().start, &lines)
}

fn toml_table(table: &DeTable<'_>, start: usize, lines: &Lines<'_>) -> Result<Node, Malformed> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let key_position = lines.position(key.span().start);
        let mut node = toml_node(value, lines)?;
        if matches!(node.value, Value::Table(_)) {
            // A table made by a header or a dotted key is found where its key is written.
            node.position = key_position;
        }
        entries.push((Key { position: key_position, name: key.get_ref().to_string() }, node));
    }
    // The parser sorts by name; faults come in the order of the text.
    entries.sort_by_key(|(key, _)| key.position);
    Ok(Node { position: lines.position(start), value: Value::Table(entries) })
}

fn toml_node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Result<Node, Malformed> {
    let position = lines.position(value.span().start);
    let value = match value.get_ref() {
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(digits) => match i128::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => return Err((Some(position), "the integer is too large".to_owned())),
        },
        DeValue::Float(digits) => match digits.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => return Err((Some(position), "not a number".to_owned())),
        },
        // No message has a field of this kind; a timestamp is a string in every format.
        DeValue::Datetime(datetime) => Value::Text(datetime.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| toml_node(item, lines)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return toml_table(table, value.span().start, lines),
    };
    Ok(Node { position, value })
}

/// Finds the line and column of a byte.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines { text, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// Where the byte is, or the end of the text where it is beyond.
    ///
    /// Costs a walk over the line, up to a bound after which columns count bytes: a text in one line stays cheap.
    pub(super) fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts[line - 1];
        let column = match self.text.get(start..byte) {
            Some(before) if before.len() <= MAX_COUNTED_BYTES => before.chars().count(),
            _ => byte - start,
        };
        (number(line), number(column + 1))
    }
}

/// A line or column; beyond `u32` it no longer matters.
pub(super) fn number(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

const MAX_COUNTED_BYTES: usize = 1 << 12;
