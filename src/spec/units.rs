//! Integers with a unit: the schema names it, a text may write another.

use std::sync::LazyLock;

use prost_reflect::{ExtensionDescriptor, FieldDescriptor};

use super::nearest::quoted;
use super::raw::{self, Unit};
use super::tree;

/// What the field's integer counts.
pub(super) fn unit(field: &FieldDescriptor) -> Unit {
    static EXTENSION: LazyLock<Option<ExtensionDescriptor>> =
        LazyLock::new(|| raw::descriptors().get_extension_by_name("ringport.v1.unit"));
    let Some(extension) = EXTENSION.as_ref() else { return Unit::None };
    let number = field.options().get_extension(extension).as_enum_number();
    number.and_then(|number| Unit::try_from(number).ok()).unwrap_or(Unit::None)
}

/// The text with a unit as a number of the field's unit; `None` for values that are none, which are integers or faults.
pub(super) fn convert(value: &tree::Value, unit: Unit) -> Option<Result<i128, String>> {
    let (kind, forms) = match unit {
        Unit::None => return None,
        Unit::Bytes => ("size", "write a number of bytes, \"64KiB\" or \"8MiB\""),
        Unit::Microseconds => ("time", "write a number of microseconds, \"50us\" or \"1ms\""),
        Unit::Milliseconds => ("time", "write a number of milliseconds, \"1500ms\", \"1.5s\" or \"2m\""),
        Unit::Seconds => ("time", "write a number of seconds, \"75s\" or \"2m\""),
    };
    let text = match value {
        // Below 2^53 a whole one is exact, and is read as an integer.
        tree::Value::Float(number) if number.fract() != 0.0 => {
            return Some(Err(format!("{number} is not whole; {forms}")));
        }
        tree::Value::Text(text) if text.bytes().any(|byte| byte.is_ascii_alphabetic()) => text,
        _ => return None,
    };
    let malformed = || Err(format!("{} is no {kind}; {forms}", quoted(text)));
    let digits_end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let Some(factor) = factor(suffix, unit == Unit::Bytes) else { return Some(malformed()) };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let decimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !decimal(whole) || !decimal(fraction) || number.len() > MAX_DIGITS {
        return Some(malformed());
    }
    let (Ok(digits), Ok(places)) =
        (format!("{whole}{fraction}").parse::<i128>(), u32::try_from(fraction.len()))
    else {
        return Some(malformed());
    };
    let (total, each) = (digits * factor, 10_i128.pow(places) * own_factor(unit));
    if total % each != 0 {
        return Some(Err(format!("{} is not whole; {forms}", quoted(text))));
    }
    Some(Ok(total / each))
}

/// Nanoseconds or bytes.
fn factor(suffix: &str, is_size: bool) -> Option<i128> {
    Some(match (suffix, is_size) {
        ("us", false) => 1_000,
        ("ms", false) => 1_000_000,
        ("s", false) => 1_000_000_000,
        ("m", false) => 60 * 1_000_000_000,
        ("h", false) => 3_600 * 1_000_000_000,
        ("B", true) => 1,
        ("KiB", true) => 1 << 10,
        ("MiB", true) => 1 << 20,
        ("GiB", true) => 1 << 30,
        _ => return None,
    })
}

fn own_factor(unit: Unit) -> i128 {
    match unit {
        Unit::None | Unit::Bytes => 1,
        Unit::Microseconds => 1_000,
        Unit::Milliseconds => 1_000_000,
        Unit::Seconds => 1_000_000_000,
    }
}

/// Keeps the product within 128 bits.
const MAX_DIGITS: usize = 20;
