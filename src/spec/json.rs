//! A JSON text as a tree: serde_json judges the text, a walk over the valid text finds the places.

use serde::de::IgnoredAny;

use super::tree::{Key, Lines, Malformed, Node, Value, number};

/// The tree of a JSON text (RFC 8259).
pub(super) fn parse_json(text: &str) -> Result<Node, Malformed> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        return Err((Some((number(error.line()), number(error.column().max(1)))), message.to_owned()));
    }
    let mut walk = Walk { text, at: 0, lines: Lines::new(text) };
    walk.node(0)
}

/// A cursor over a text that is known to be JSON; it refuses, and never panics, should that be wrong.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    lines: Lines<'a>,
}

impl Walk<'_> {
    fn node(&mut self, depth: usize) -> Result<Node, Malformed> {
        let first = self.peek();
        let position = self.lines.position(self.at);
        if depth > MAX_DEPTH {
            return Err((Some(position), format!("nested deeper than {MAX_DEPTH}")));
        }
        let value = match first {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            _ => self.word()?,
        };
        Ok(Node { position, value })
    }

    fn table(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut entries = Vec::new();
        self.at += 1;
        while self.peek() != Some(b'}') {
            let position = self.lines.position(self.at);
            let name = self.string()?;
            self.skip(b':')?;
            entries.push((Key { position, name }, self.node(depth + 1)?));
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::Table(entries))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != Some(b']') {
            items.push(self.node(depth + 1)?);
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        let literal = end.and_then(|(end, _)| rest.get(..=end)).ok_or_else(|| self.malformed("no string"))?;
        let string = serde_json::from_str(literal).map_err(|_| self.malformed("not a string of Unicode"))?;
        self.at += literal.len();
        Ok(string)
    }

    fn word(&mut self) -> Result<Value, Malformed> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match (number.parse::<i128>(), number.parse::<f64>()) {
                (Ok(integer), _) => Value::Integer(integer),
                (_, Ok(float)) if float.is_finite() => Value::Float(float),
                _ => return Err(self.malformed("the number is out of range")),
            },
        };
        self.at += end;
        Ok(value)
    }

    fn skip(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.peek() != Some(expected) {
            return Err(self.malformed("not JSON"));
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.at += blank;
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn malformed(&self, message: &str) -> Malformed {
        (Some(self.lines.position(self.at)), message.to_owned())
    }
}

const MAX_DEPTH: usize = 64;
