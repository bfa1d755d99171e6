//! A YAML text as a tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::tree::{Key, Malformed, Node, Position, Value, number};

/// The tree of a YAML text of one document. Aliases are followed, within the bounds of the parser.
pub(super) fn parse_yaml(text: &str) -> Result<Node, Malformed> {
    let options = serde_saphyr::options! {
        // Reported by the reader, which sees all of them and both spellings of a name.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // In YAML 1.2 `off` and `yes` are words.
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let position = error.location().map(position);
        if let Some(message) = of_aliases(error.without_snippet()) {
            return (position, message.to_owned());
        }
        let message = error.without_snippet().to_string().replace('\n', ", ");
        // The place is said once, in front.
        let message = message.split(" at line ").next().unwrap_or_default();
        // The rest advises the programmer, not the writer of the file.
        let message = message.split("; use from_str").next().unwrap_or_default();
        (position, message.to_owned())
    })
}

/// What is wrong with aliases, in words of the one who writes them; `None` for other faults.
fn of_aliases(error: &serde_saphyr::Error) -> Option<&'static str> {
    use serde_saphyr::budget::BudgetBreach;
    let mut error = error;
    // What is wrong in a part that an alias repeats.
    while let serde_saphyr::Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let serde_saphyr::Error::Budget { breach, .. } = error else {
        let is_recursive = error.to_string().starts_with("recursive references");
        return is_recursive.then_some("the alias stands within what it refers to");
    };
    Some(match breach {
        BudgetBreach::Depth { .. } => "nested deeper than 16",
        BudgetBreach::Documents { .. } => "only one document may be in a file",
        BudgetBreach::Aliases { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => "too many aliases",
        BudgetBreach::Anchors { .. } => "too many anchors",
        BudgetBreach::MergeKeys { .. } => "too many merge keys",
        // Of events, nodes and bytes: what is repeated by aliases counts each time.
        _ => "too large, with what its aliases repeat",
    })
}

fn position(location: serde_saphyr::Location) -> Position {
    (number(location.line()), number(location.column()))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { position: position(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Spanned<String>, Node>()? {
            table.push((Key { position: position(key.referenced), name: key.value }, node));
        }
        Ok(Value::Table(table))
    }
}

/// A config is nested ten deep at most. The parser's recursion takes some 40 KiB of stack a level without optimization, and a
/// thread has 2 MiB.
const MAX_DEPTH: usize = 16;
