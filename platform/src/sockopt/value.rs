//! What a setting says, and the form and range that each option wants.

use std::fmt;
use std::time::Duration;

/// What is wanted of an option. An option without a setting is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Switched off, in the option's own sense ([`super::Off`]). The same as `Value(OptValue::Flag(false))`.
    Off,
    /// Set to this.
    Value(OptValue),
}

impl<T: Into<OptValue>> From<T> for Setting {
    fn from(value: T) -> Self {
        match value.into() {
            OptValue::Flag(false) => Setting::Off,
            value => Setting::Value(value),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Off => f.write_str("off"),
            Setting::Value(value) => value.fmt(f),
        }
    }
}

/// A value of an option; which of them an option takes is its [`Form`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptValue {
    /// On or off.
    Flag(bool),
    /// A number in the option's unit.
    Int(i64),
    /// A span of time, in whole units of the option.
    Time(Duration),
    /// A name: of an interface, a congestion control, or one of a fixed list.
    Name(String),
    /// Ports from `low` to `high`, both inclusive; 0 at one end means the system's bound.
    Ports {
        /// The lowest port.
        low: u16,
        /// The highest port.
        high: u16,
    },
    /// Cores, by their numbers: the first is served by the first socket of a group, and so on.
    Cpus(Vec<u32>),
}

impl From<bool> for OptValue {
    fn from(flag: bool) -> Self {
        OptValue::Flag(flag)
    }
}

impl From<i64> for OptValue {
    fn from(number: i64) -> Self {
        OptValue::Int(number)
    }
}

impl From<Duration> for OptValue {
    fn from(time: Duration) -> Self {
        OptValue::Time(time)
    }
}

impl From<&str> for OptValue {
    fn from(name: &str) -> Self {
        OptValue::Name(name.to_owned())
    }
}

/// As a person writes it: `on`, `4096`, `1.5s`, `lo`, `40000-40003`, `0,1`.
impl fmt::Display for OptValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptValue::Flag(true) => f.write_str("on"),
            OptValue::Flag(false) => f.write_str("off"),
            OptValue::Int(number) => number.fmt(f),
            OptValue::Time(time) => fmt::Debug::fmt(time, f),
            OptValue::Name(name) => name.fmt(f),
            OptValue::Ports { low, high } => write!(f, "{low}-{high}"),
            OptValue::Cpus(cpus) => {
                for (at, cpu) in cpus.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{cpu}")?;
                }
                Ok(())
            }
        }
    }
}

/// What a number of an option counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Nothing: a flag, a name, a bit field.
    None,
    /// Bytes.
    Bytes,
    /// Things: probes, connections, hops.
    Count,
    /// A number that names something: a core, an interface.
    Index,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
}

impl Unit {
    /// As it follows a number; empty for what has none.
    pub const fn suffix(self) -> &'static str {
        match self {
            Unit::None | Unit::Count | Unit::Index => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
        }
    }

    /// How long one of it takes.
    pub(super) const fn time(self) -> Duration {
        match self {
            Unit::Milliseconds => Duration::from_millis(1),
            Unit::Microseconds => Duration::from_micros(1),
            Unit::None | Unit::Bytes | Unit::Count | Unit::Index | Unit::Seconds => Duration::from_secs(1),
        }
    }
}

/// What an option takes. Numbers include both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// [`OptValue::Flag`].
    Flag,
    /// [`OptValue::Int`] in a range.
    Int {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// [`OptValue::Time`] in whole units of the option.
    Time {
        /// The least, in units.
        min: i64,
        /// The greatest, in units.
        max: i64,
    },
    /// [`OptValue::Name`] of at least one byte, without NUL, white space or `/`.
    Name {
        /// The most bytes.
        max_len: usize,
    },
    /// [`OptValue::Name`] out of a list; beside each the kernel's number.
    Choice(&'static [(&'static str, i32)]),
    /// [`OptValue::Ports`].
    Ports,
    /// [`OptValue::Cpus`], each once.
    Cpus {
        /// The most cores.
        max_count: usize,
    },
}

/// `on or off`, `1 to 127`, `1 s to 32767 s`, `one of dont, want`.
impl Form {
    /// What may be written, in words, with numbers in `unit`.
    pub fn describe(&self, unit: Unit) -> String {
        let space = if unit.suffix().is_empty() { "" } else { " " };
        let suffix = unit.suffix();
        match self {
            Form::Flag => "on or off".to_owned(),
            Form::Int { min, max } => format!("{min} to {max}{space}{suffix}"),
            Form::Time { min, max } => format!("{min} to {max}{space}{suffix}, whole {suffix}"),
            Form::Name { max_len } => format!("a name of 1 to {max_len} bytes"),
            Form::Choice(names) => {
                let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                format!("one of {}", names.join(", "))
            }
            Form::Ports => "ports low-high, 0 for the system's end".to_owned(),
            Form::Cpus { max_count } => format!("1 to {max_count} different cores"),
        }
    }

    /// Whether `value` is of this form and in its range. No system call.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, unit: Unit, value: &OptValue) -> Result<(), ValueError> {
        match (self, value) {
            (Form::Flag, OptValue::Flag(_)) => Ok(()),
            (Form::Int { min, max }, OptValue::Int(number)) => in_range(*number, *min, *max),
            (Form::Time { min, max }, OptValue::Time(time)) => in_range(whole(*time, unit)?, *min, *max),
            (Form::Name { max_len }, OptValue::Name(name)) => {
                let bad = |byte: u8| byte == 0 || byte == b'/' || byte.is_ascii_whitespace();
                if name.is_empty() || name.len() > *max_len || name.bytes().any(bad) {
                    return Err(ValueError::BadName);
                }
                Ok(())
            }
            (Form::Choice(names), OptValue::Name(name)) => {
                if names.iter().any(|(known, _)| known == name) {
                    Ok(())
                } else {
                    Err(ValueError::BadName)
                }
            }
            (Form::Ports, OptValue::Ports { low, high }) => {
                // One end alone is the kernel's own form; both zero are no range.
                let ordered = low <= high || *high == 0;
                if ordered && (*low, *high) != (0, 0) { Ok(()) } else { Err(ValueError::OutOfRange) }
            }
            (Form::Cpus { max_count }, OptValue::Cpus(cpus)) => {
                let mut sorted = cpus.clone();
                sorted.sort_unstable();
                sorted.dedup();
                let fits = (1..=*max_count).contains(&cpus.len()) && sorted.len() == cpus.len();
                if fits { Ok(()) } else { Err(ValueError::OutOfRange) }
            }
            (
                Form::Flag
                | Form::Int { .. }
                | Form::Time { .. }
                | Form::Name { .. }
                | Form::Choice(_)
                | Form::Ports
                | Form::Cpus { .. },
                _,
            ) => Err(ValueError::WrongForm),
        }
    }
}

fn in_range(number: i64, min: i64, max: i64) -> Result<(), ValueError> {
    if (min..=max).contains(&number) { Ok(()) } else { Err(ValueError::OutOfRange) }
}

/// A span of time as a number of whole units.
pub(super) fn whole(time: Duration, unit: Unit) -> Result<i64, ValueError> {
    let each = unit.time().as_nanos();
    if !time.as_nanos().is_multiple_of(each) {
        return Err(ValueError::NotWhole);
    }
    i64::try_from(time.as_nanos() / each).map_err(|_| ValueError::OutOfRange)
}

/// Why a value is refused before any system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// Another form is wanted: a number where a flag is, for example.
    WrongForm,
    /// Beyond an end of the range.
    OutOfRange,
    /// A time that is not whole in the option's unit.
    NotWhole,
    /// Not a name that can be, or not one of the list.
    BadName,
    /// The option cannot be switched off; leave it out.
    CannotBeOff,
}
