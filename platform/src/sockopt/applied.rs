//! What the kernel made of a setting: the value that is in effect, or why it was refused.

use std::fmt;
use std::io;

use super::table::{Capability, Off, ReadBack};
use super::value::{OptValue, Setting};
use super::{Opt, Target, os};
use crate::fd::BorrowedFd;

/// A setting that the kernel took, and what it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The option.
    pub opt: Opt,
    /// What was wanted.
    pub asked: Setting,
    /// What is in effect; `None` where it cannot be read.
    pub held: Option<Setting>,
    /// How the two compare.
    pub outcome: Outcome,
}

/// How what is in effect compares with what was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As wanted.
    AsAsked,
    /// Twice as much, as always with this option.
    Doubled,
    /// Less.
    Lowered,
    /// More.
    Raised,
    /// Something else, or a switch that forbids it: the setting has no effect.
    Ignored,
    /// The option cannot be read.
    Unread,
}

impl Effective {
    /// Whether a person should hear of it: less, more or nothing of what was wanted.
    pub fn is_surprising(&self) -> bool {
        matches!(self.outcome, Outcome::Lowered | Outcome::Raised | Outcome::Ignored)
    }
}

/// `SO_RCVBUF: 67108864 bytes asked, 8388608 bytes in effect (lowered; net.core.rmem_max bounds it)`.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.opt.row();
        let unit = |setting: &Setting| match setting {
            Setting::Value(OptValue::Int(_)) if !row.unit.suffix().is_empty() => {
                format!(" {}", row.unit.suffix())
            }
            Setting::Off | Setting::Value(_) => String::new(),
        };
        write!(f, "{}: {}{} asked", self.opt, self.asked, unit(&self.asked))?;
        if let Some(held) = &self.held {
            write!(f, ", {held}{} in effect", unit(held))?;
        }
        match self.outcome {
            Outcome::AsAsked => Ok(()),
            Outcome::Doubled => f.write_str(" (doubled: the kernel counts its own overhead)"),
            Outcome::Lowered if !row.sysctl.is_empty() => {
                write!(f, " (lowered; {} bounds it)", row.sysctl.replace('/', "."))
            }
            Outcome::Lowered => f.write_str(" (lowered)"),
            Outcome::Raised => f.write_str(" (raised)"),
            Outcome::Ignored if self.opt == Opt::TcpFastopen => {
                f.write_str(" (ignored; bit 2 of net.ipv4.tcp_fastopen is not set)")
            }
            Outcome::Ignored => f.write_str(" (ignored)"),
            Outcome::Unread => f.write_str(" (cannot be read back)"),
        }
    }
}

/// Reads an option that was just set, and compares.
pub(super) fn effective(fd: BorrowedFd<'_>, opt: Opt, asked: &Setting) -> io::Result<Effective> {
    let row = opt.row();
    let report = |held, outcome| Ok(Effective { opt, asked: asked.clone(), held, outcome });
    let rule = os::read_back(opt);
    if rule == ReadBack::WriteOnly {
        return report(None, Outcome::Unread);
    }
    let held = os::get(fd, opt)?;
    let outcome = if *asked == Setting::Off && matches!(row.off, Off::System(_)) {
        Outcome::AsAsked
    } else {
        compare(rule, asked, &held)
    };
    let switched_off = opt == Opt::TcpFastopen && outcome != Outcome::Ignored && *asked != Setting::Off;
    let outcome = if switched_off && !os::fastopen_allowed() { Outcome::Ignored } else { outcome };
    report(Some(held), outcome)
}

fn compare(rule: ReadBack, asked: &Setting, held: &Setting) -> Outcome {
    let (asked_number, held_number) = match (number(asked), number(held)) {
        (Some(asked), Some(held)) => (asked, held),
        _ if asked == held => return Outcome::AsAsked,
        _ => return Outcome::Ignored,
    };
    let expected = if rule == ReadBack::Doubled { asked_number.saturating_mul(2) } else { asked_number };
    match held_number.cmp(&expected) {
        std::cmp::Ordering::Less => Outcome::Lowered,
        std::cmp::Ordering::Greater => Outcome::Raised,
        std::cmp::Ordering::Equal if rule == ReadBack::Doubled => Outcome::Doubled,
        std::cmp::Ordering::Equal => Outcome::AsAsked,
    }
}

fn number(setting: &Setting) -> Option<i128> {
    match setting {
        Setting::Value(OptValue::Int(number)) => Some(i128::from(*number)),
        Setting::Value(OptValue::Time(time)) => i128::try_from(time.as_nanos()).ok(),
        Setting::Off
        | Setting::Value(
            OptValue::Flag(_) | OptValue::Name(_) | OptValue::Ports { .. } | OptValue::Cpus(_),
        ) => None,
    }
}

/// An option that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    /// The option.
    pub opt: Opt,
    /// What was wanted.
    pub asked: Setting,
    /// On what sort of socket.
    pub target: Target,
    /// The kernel's errno, setsockopt(2).
    pub errno: i32,
    /// What that means for this option.
    pub reason: Reason,
}

/// Why the kernel refused an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The process lacks this capability.
    Privilege(Capability),
    /// No interface has that name or index: it was never there, or has vanished.
    NoInterface,
    /// This kernel does not know the option, or the name that it was given.
    Unknown,
    /// A switch of the system forbids it.
    SwitchedOff(&'static str),
    /// Something else, as the errno says.
    Other,
}

impl ApplyError {
    pub(crate) fn new(opt: Opt, asked: &Setting, target: Target, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = os::reason(opt, errno);
        ApplyError { opt, asked: asked.clone(), target, errno, reason }
    }

    /// Whether this kernel lacks the option. Where a spec asks to be warned about that instead of refused, take it out of the
    /// set ([`super::OptSet::remove`]) and make the socket anew.
    pub fn is_unsupported(&self) -> bool {
        self.reason == Reason::Unknown
    }
}

/// `SO_MARK = 42 on a tcp4 listener: EPERM: Operation not permitted; it needs CAP_NET_ADMIN or CAP_NET_RAW`.
impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        let name = os::errno_name(self.errno);
        write!(f, "{} = {} on a {}: {name}: {error}", self.opt, self.asked, self.target)?;
        match self.reason {
            Reason::Privilege(capability) => {
                write!(f, "; it needs {capability}")?;
                let when = self.opt.row().privilege.when;
                if when.is_empty() { Ok(()) } else { write!(f, " where {when}") }
            }
            Reason::NoInterface => f.write_str("; there is no such interface"),
            Reason::Unknown => f.write_str("; this kernel does not know it"),
            Reason::SwitchedOff(switch) => write!(f, "; {switch} forbids it"),
            Reason::Other => Ok(()),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<ApplyError> for io::Error {
    fn from(error: ApplyError) -> Self {
        io::Error::new(io::Error::from_raw_os_error(error.errno).kind(), error)
    }
}
