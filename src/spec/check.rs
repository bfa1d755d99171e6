//! Rules that several specs share: each looks at a part of a message, notes what is wrong, and gives what it could make.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{Fault, SpecErrors};
use super::nearest::quoted;

/// Collects faults. Each method returns what it could make of its part; the whole is used only without faults.
#[derive(Default)]
pub(super) struct Check {
    faults: Vec<Fault>,
    /// Where the message is that is checked, before every path.
    root: &'static str,
}

impl Check {
    /// For a message in this field.
    pub(super) fn under(root: &'static str) -> Self {
        Check { faults: Vec::new(), root }
    }

    /// The whole, where nothing is wrong with it.
    pub(super) fn or<T>(self, whole: T) -> Result<T, SpecErrors> {
        SpecErrors::or(self.faults, whole)
    }

    /// As [`Check::or`]; what could not be made has its fault.
    pub(super) fn complete<T>(self, whole: Option<T>) -> Result<T, SpecErrors> {
        match whole {
            Some(whole) => self.or(whole),
            None => Err(SpecErrors::of(self.faults)),
        }
    }

    /// Notes a part that was made in code and came back changed from the message.
    pub(super) fn kept(&mut self, path: &str, is_kept: bool) {
        if !is_kept {
            self.fault(
                path,
                "no text can hold this: a name that is not UTF-8 or begins with '@', or a time too fine",
            );
        }
    }

    pub(super) fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.faults.push(SpecErrors::fault(join(self.root, &path.into()), message));
    }

    pub(super) fn parsed<T>(&mut self, path: &str, parsed: Result<T, impl Into<String>>) -> Option<T> {
        parsed.map_err(|message| self.fault(path, message)).ok()
    }

    /// Each of a list that is one, with its place; a list that is too long is one fault.
    pub(super) fn list<T>(
        &mut self,
        path: &str,
        texts: &[String],
        max: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(usize, T)> {
        if !self.at_most(path, texts.len(), max) {
            return Vec::new();
        }
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            values.extend(self.parsed(&format!("{path}[{index}]"), parse(text)).map(|value| (index, value)));
        }
        values
    }

    pub(super) fn at_most(&mut self, path: &str, count: usize, max: usize) -> bool {
        if count > max {
            self.fault(path, format!("{count} are too many: at most {max}"));
        }
        count <= max
    }

    pub(super) fn count(&mut self, path: &str, count: usize, max: usize) {
        if count == 0 {
            self.fault(path, "at least one is needed");
        }
        self.at_most(path, count, max);
    }

    /// Names of the entries of a list: well-formed, none twice.
    pub(super) fn names<'a>(&mut self, list: &str, names: impl Iterator<Item = &'a str>) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (index, name) in names.enumerate() {
            let path = format!("{list}[{index}].name");
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() {
                self.fault(path, "a name is needed");
            } else if name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
                let rule = format!("1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.'");
                self.fault(path, format!("{} is no name: {rule}", quoted(name)));
            } else if let Some(other) = first.get(name) {
                self.fault(path, format!("{} is already the name of {list}[{other}]", quoted(name)));
            } else {
                first.insert(name, index);
            }
        }
    }

    /// A number that is written and in its range; the range must fit `T`.
    pub(super) fn range<R: Into<i128>, T: TryFrom<i128>>(
        &mut self,
        path: impl Into<String>,
        value: Option<R>,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let value = value?.into();
        if (i128::from(*range.start())..=i128::from(*range.end())).contains(&value)
            && let Ok(value) = T::try_from(value)
        {
            return Some(value);
        }
        let (start, end) = range.into_inner();
        let range =
            if end >= usize::MAX as u64 { format!("at least {start}") } else { format!("{start} to {end}") };
        self.fault(path, format!("{value} is out of range: {range}"));
        None
    }

    /// A duration that is written and in its range.
    pub(super) fn span(
        &mut self,
        path: String,
        value: Option<prost_types::Duration>,
        zero: Zero,
    ) -> Option<Duration> {
        let value = value?;
        let nanos = i128::from(value.seconds) * 1_000_000_000 + i128::from(value.nanos);
        let message = match u64::try_from(nanos).map(Duration::from_nanos) {
            Ok(Duration::ZERO) if zero == Zero::Allowed => return Some(Duration::ZERO),
            Ok(duration) if SPAN.contains(&duration) => return Some(duration),
            Ok(Duration::ZERO) => "zero is not allowed: 1 ms (\"0.001s\") to 30 days (\"2592000s\")",
            Err(_) if nanos < 0 => "a duration cannot be negative",
            Ok(_) | Err(_) => "out of range: 1 ms (\"0.001s\") to 30 days (\"2592000s\")",
        };
        self.fault(path, message);
        None
    }

    /// Milliseconds that are written: `None` where they are not, `Some(None)` where they say that there is no limit.
    pub(super) fn milliseconds(
        &mut self,
        path: String,
        value: Option<i32>,
        unlimited: Unlimited,
    ) -> Option<Option<Duration>> {
        let value = value?;
        let span = u64::try_from(value).map(Duration::from_millis);
        match span {
            Ok(Duration::ZERO) if unlimited != Unlimited::Never => return Some(None),
            Err(_) if unlimited == Unlimited::ZeroOrMinusOne && value == -1 => return Some(None),
            Ok(span) if (*SPAN.start()..=MAX_MILLISECONDS).contains(&span) => return Some(Some(span)),
            Ok(_) | Err(_) => {}
        }
        let hint = match unlimited {
            Unlimited::Never => "",
            Unlimited::Zero => ", or 0 for no limit",
            Unlimited::ZeroIsNever => ", or 0 for never",
            Unlimited::ZeroOrMinusOne => ", or 0 or -1 for no limit",
        };
        self.fault(path, format!("{value} is out of range: 1 ms to 2073600000 ms (24 days){hint}"));
        None
    }

    /// A value of an enum, which in a message may be any number.
    pub(super) fn choice<R: TryFrom<i32>, T>(
        &mut self,
        path: String,
        value: Option<i32>,
        default: T,
        checked: impl FnOnce(R) -> T,
    ) -> T {
        let Some(number) = value else { return default };
        match R::try_from(number) {
            Ok(raw) => checked(raw),
            Err(_) => {
                self.fault(path, format!("unknown value {number}"));
                default
            }
        }
    }
}

/// The path of a field in a message, which at the root has none.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A list of [`Check::list`] without the places.
pub(super) fn values<T>(list: Vec<(usize, T)>) -> Vec<T> {
    list.into_iter().map(|(_, value)| value).collect()
}

/// Whether `0s` has a meaning of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

/// Which milliseconds mean no limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlimited {
    Never,
    Zero,
    /// Of an interval.
    ZeroIsNever,
    ZeroOrMinusOne,
}

const MAX_NAME_BYTES: usize = 64;
/// Timers count milliseconds.
const SPAN: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
/// What a field of 32 bits can say.
const MAX_MILLISECONDS: Duration = Duration::from_secs(24 * 24 * 3600);
