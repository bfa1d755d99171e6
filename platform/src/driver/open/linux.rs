//! io_uring where it works, else epoll.

use std::sync::Arc;

use super::{DriverChoice, OpenError, Opened};
use crate::buf::Pool;
use crate::driver::{DriverKind, EpollDriver, Mechanisms, UringDriver, UringReport, UringSpec};
use crate::stats::CoreStats;

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
        DriverChoice::Only(kind @ DriverKind::Iocp) => return Err(OpenError::Elsewhere(kind)),
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
