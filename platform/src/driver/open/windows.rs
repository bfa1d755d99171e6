//! A completion port, or nothing.

use std::sync::Arc;

use super::{DriverChoice, OpenError, Opened};
use crate::buf::Pool;
use crate::driver::{DriverKind, IocpDriver, Mechanisms};
use crate::stats::CoreStats;

/// Opens a driver on this thread. Mechanisms that can be switched off are those of io_uring: here none makes a difference.
///
/// # Errors
/// When the forced driver is another system's, or Windows has no port for this process.
pub fn open(
    choice: DriverChoice,
    _disable: Mechanisms,
    pool: &Pool,
    stats: &Arc<CoreStats>,
) -> Result<Opened, OpenError> {
    let why = match choice {
        DriverChoice::Only(kind @ (DriverKind::Epoll | DriverKind::Uring)) => {
            return Err(OpenError::Elsewhere(kind));
        }
        DriverChoice::Only(DriverKind::Iocp) => "iocp, as asked for",
        DriverChoice::Auto => "iocp, the one that Windows has",
    };
    let driver = IocpDriver::open(pool.clone(), stats.clone()).map_err(OpenError::Iocp)?;
    Ok(Opened { driver: Box::new(driver), why: why.to_owned() })
}
