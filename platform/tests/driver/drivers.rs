//! The drivers that suites run over.

#[cfg(target_os = "linux")]
#[path = "drivers/linux.rs"]
pub(crate) mod linux;
#[cfg(windows)]
#[path = "drivers/windows.rs"]
mod windows;

use std::io::Write;
use std::sync::Arc;

use ringport_platform::buf::Pool;
use ringport_platform::driver::Driver;
use ringport_platform::stats::CoreStats;

#[cfg(target_os = "linux")]
pub(crate) use linux::drivers;
#[cfg(windows)]
pub(crate) use windows::drivers;

pub(crate) type Open = Box<dyn Fn(Pool, Arc<CoreStats>) -> Box<dyn Driver> + Send + Sync>;

/// A driver to run the cases over.
pub(crate) struct Candidate {
    /// What failures are reported under.
    pub(crate) name: String,
    pub(crate) open: Open,
    /// Whether the credit is a cap to the byte: not where io_uring counts it in user space.
    pub(crate) exact_credit: bool,
}

/// Says on standard error itself that a case, or a part of it, does not run here: the harness would keep it to itself.
pub(crate) fn skipped(why: impl std::fmt::Display) {
    let case = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped {}: {why}", case.name().unwrap_or("a case"));
}
