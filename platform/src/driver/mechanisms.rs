//! Kernel mechanisms that can be switched off one by one, to measure them or to live with a kernel's fault.

use std::fmt;
use std::str::FromStr;

/// One mechanism: of the io_uring driver, but for `splice`, which is of a core on any driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// The kernel enforces the receive credit (`optlen`); off: counted in user space, ended by a cancel.
    Credit,
    /// Completions run when the core asks for them (`DEFER_TASKRUN`); off: `COOP_TASKRUN`.
    Defer,
    /// Receives append to a chunk (incremental buffer ring); off: each takes a whole smaller buffer.
    Inc,
    /// One submission gives many completions; off: one each, armed again by the driver.
    Multishot,
    /// Sends that succeed at once make no completion entry; off: each makes one.
    Silent,
    /// Relays and long bodies go from socket to socket by splice(2); off: through the pool.
    Splice,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Mechanism; 6] = [
        Mechanism::Credit,
        Mechanism::Defer,
        Mechanism::Inc,
        Mechanism::Multishot,
        Mechanism::Silent,
        Mechanism::Splice,
    ];

    /// Those of the io_uring driver: the others make no difference between drivers.
    pub fn of_uring() -> impl Iterator<Item = Mechanism> {
        Self::ALL.into_iter().filter(|mechanism| *mechanism != Mechanism::Splice)
    }

    /// The word in configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Credit => "credit",
            Mechanism::Defer => "defer",
            Mechanism::Inc => "inc",
            Mechanism::Multishot => "multishot",
            Mechanism::Silent => "silent",
            Mechanism::Splice => "splice",
        }
    }
}

/// A set of mechanisms, read from a comma list such as `silent,inc`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mechanisms(u8);

impl Mechanisms {
    /// The empty set.
    pub const NONE: Mechanisms = Mechanisms(0);

    /// This set and `mechanism`.
    #[must_use]
    pub fn with(self, mechanism: Mechanism) -> Self {
        Mechanisms(self.0 | 1 << mechanism as u8)
    }

    /// Whether `mechanism` is in the set.
    pub fn contains(self, mechanism: Mechanism) -> bool {
        self.0 & 1 << mechanism as u8 != 0
    }
}

impl FromStr for Mechanisms {
    type Err = UnknownMechanism;

    /// Words in any order, blanks around them ignored; an empty list is the empty set.
    fn from_str(list: &str) -> Result<Self, UnknownMechanism> {
        let mut set = Mechanisms::NONE;
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == word) {
                Some(mechanism) => set = set.with(mechanism),
                None => return Err(UnknownMechanism(word.to_owned())),
            }
        }
        Ok(set)
    }
}

impl fmt::Display for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for mechanism in Mechanism::ALL.into_iter().filter(|mechanism| self.contains(*mechanism)) {
            write!(f, "{separator}{}", mechanism.name())?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mechanisms({self})")
    }
}

/// A word in the list that names no mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMechanism(pub String);

impl fmt::Display for UnknownMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown mechanism \"{}\" (known: ", self.0)?;
        for (at, mechanism) in Mechanism::ALL.into_iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, mechanism.name())?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for UnknownMechanism {}

#[cfg(test)]
mod tests {
    use super::{Mechanism, Mechanisms, UnknownMechanism};

    #[test]
    fn lists_are_read_and_written() {
        let check = |list: &str, expected: Result<&str, &str>| {
            let read = list.parse::<Mechanisms>().map(|set| set.to_string());
            assert_eq!(read, expected.map(str::to_owned).map_err(|word| UnknownMechanism(word.to_owned())));
        };
        check("", Ok(""));
        check("silent", Ok("silent"));
        check(" silent , inc,,silent", Ok("inc,silent"));
        check("silent,inc,multishot,credit,defer", Ok("credit,defer,inc,multishot,silent"));
        check("silent,incc", Err("incc"));
        check("Silent", Err("Silent"));
        assert!(!Mechanisms::NONE.with(Mechanism::Inc).contains(Mechanism::Silent));
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = UnknownMechanism("x".to_owned()).to_string();
        assert_eq!(error, "unknown mechanism \"x\" (known: credit, defer, inc, multishot, silent, splice)");
    }
}
