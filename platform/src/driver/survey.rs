//! What each driver of this system offers here, found by trying, for a person to read.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::time::Duration;

use super::DriverKind;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(windows)]
use windows as os;

/// One mechanism of the kernel, as found by trying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in logs and errors.
    pub name: &'static str,
    /// Whether it was seen working.
    pub available: bool,
    /// Whether the driver uses it.
    pub enabled: bool,
    /// What was seen instead, or what is special; often empty.
    pub note: String,
}

/// A driver of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverReport {
    /// Which one.
    pub kind: DriverKind,
    /// What it offers, or why it is not to be had.
    pub offer: Result<Offer, String>,
}

/// What a driver that works offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Submissions and completions that fit its queues, where those are of a fixed size.
    pub queues: Option<(u32, u32)>,
    /// The kernel's names of what it was set up with.
    pub flags: Vec<&'static str>,
    /// Its mechanisms, in a fixed order; none where it has nothing to be found out.
    pub features: Vec<Feature>,
    /// How long finding out took, where it is done at every start.
    pub self_test: Option<Duration>,
}

impl DriverKind {
    /// Those that this system may have, the preferred one first.
    pub fn here() -> &'static [DriverKind] {
        os::KINDS
    }
}

/// Opens every driver of this system, and closes it again. To be called from a thread that has none.
pub fn survey() -> Vec<DriverReport> {
    os::survey()
}
