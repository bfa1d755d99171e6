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

/// A time as text with its unit, that [`convert`] reads back; `None` for what is no time, or means none.
pub(super) fn time(number: i64, unit: Unit) -> Option<String> {
    let suffix = time_suffix(unit)?;
    let (larger, each) = match unit {
        Unit::Milliseconds => ("s", 1_000),
        Unit::Microseconds => ("ms", 1_000),
        Unit::None | Unit::Bytes | Unit::Seconds => (suffix, 1),
    };
    match number {
        ..=0 => None,
        number if number % each == 0 => Some(format!("{}{larger}", number / each)),
        number => Some(format!("{number}{suffix}")),
    }
}

/// What is said of a time that is written without a unit, and so counts what the schema says.
pub(super) fn bare_time(value: &tree::Value, unit: Unit) -> Option<String> {
    let (tree::Value::Integer(number @ 1..), Some(suffix)) = (value, time_suffix(unit)) else { return None };
    let name = unit.as_str_name().trim_start_matches("UNIT_").to_ascii_lowercase();
    Some(format!("{number} without a unit counts {name}: write \"{number}{suffix}\" where that is meant"))
}

fn time_suffix(unit: Unit) -> Option<&'static str> {
    match unit {
        Unit::None | Unit::Bytes => None,
        Unit::Microseconds => Some("us"),
        Unit::Milliseconds => Some("ms"),
        Unit::Seconds => Some("s"),
    }
}

/// A time with its unit in nanoseconds, which may be negative; `None` where it is malformed.
pub(super) fn nanoseconds(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let end = digits.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let factor = factor(suffix, false)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let decimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !decimal(whole) || !decimal(fraction) || number.len() > MAX_DIGITS {
        return None;
    }
    let total = format!("{whole}{fraction}").parse::<i128>().ok()? * factor;
    let each = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    (total % each == 0).then_some(sign * total / each)
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
