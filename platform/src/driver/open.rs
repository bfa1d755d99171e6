//! Which driver a core gets: io_uring where it works, else epoll, never a silent change of a forced one.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use super::{Driver, DriverKind, EpollDriver, Mechanisms, UringDriver, UringError, UringReport, UringSpec};
use crate::buf::Pool;
use crate::stats::CoreStats;

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DriverChoice {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// This one, or an error.
    Only(DriverKind),
}

impl FromStr for DriverChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DriverChoice::Auto),
            "uring" => Ok(DriverChoice::Only(DriverKind::Uring)),
            "epoll" => Ok(DriverChoice::Only(DriverKind::Epoll)),
            other => Err(format!("{other:?} is no driver; there are auto, uring and epoll")),
        }
    }
}

/// A driver that was opened, and why this one.
pub struct Opened {
    /// The driver.
    pub driver: Box<dyn Driver>,
    /// One sentence for the log: which driver, why, and for a fall-back what would lift it.
    pub why: String,
    /// What io_uring offers, where it was taken.
    pub uring: Option<UringReport>,
}

/// Why no driver could be opened.
#[derive(Debug)]
pub enum OpenError {
    /// io_uring was forced and is not to be had.
    Uring(UringError),
    /// The kernel refused epoll.
    Epoll(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Uring(error) => {
                write!(f, "the driver uring was asked for and is not to be had: {error}")
            }
            OpenError::Epoll(error) => write!(f, "the driver epoll is not to be had: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens a driver on this thread. `Auto` falls back to epoll and says why; a forced driver never falls back.
///
/// # Errors
/// When the forced driver, or every driver, is not to be had.
pub fn open(
    choice: DriverChoice,
    disable: Mechanisms,
    pool: &Pool,
    stats: &Arc<CoreStats>,
) -> Result<Opened, OpenError> {
    let why_not = match choice {
        DriverChoice::Only(DriverKind::Epoll) => None,
        DriverChoice::Auto | DriverChoice::Only(DriverKind::Uring) => {
            let spec = UringSpec { disable, ..UringSpec::default() };
            match UringDriver::open(&spec, pool.clone(), stats.clone()) {
                Ok((driver, report)) => return Ok(with_uring(choice, driver, report)),
                Err(error) if choice == DriverChoice::Auto => Some(error),
                Err(error) => return Err(OpenError::Uring(error)),
            }
        }
    };
    let driver = EpollDriver::open(pool.clone(), stats.clone()).map_err(OpenError::Epoll)?;
    let why = match why_not {
        Some(error) => format!("epoll, because io_uring is not to be had: {error}"),
        None => "epoll, as asked for".to_owned(),
    };
    Ok(Opened { driver: Box::new(driver), why, uring: None })
}

fn with_uring(choice: DriverChoice, driver: UringDriver, report: UringReport) -> Opened {
    let reason =
        if choice == DriverChoice::Auto { "all it needs passed its self-test" } else { "as asked for" };
    let off: Vec<&str> =
        report.features.iter().filter(|feature| !feature.enabled).map(|feature| feature.name).collect();
    let without = if off.is_empty() { String::new() } else { format!("; without {}", off.join(", ")) };
    let why = format!("uring, {reason}{without}");
    Opened { driver: Box::new(driver), why, uring: Some(report) }
}
