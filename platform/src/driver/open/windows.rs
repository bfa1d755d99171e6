//! A completion port, or nothing.

use std::io;
use std::sync::Arc;

use super::{DriverChoice, OpenError, Opened};
use crate::buf::Pool;
use crate::driver::{DriverKind, Mechanisms};
use crate::stats::CoreStats;

/// Opens a driver on this thread.
///
/// # Errors
/// When the forced driver is another system's; for the moment also for completion ports, which are not there yet.
pub fn open(
    choice: DriverChoice,
    _disable: Mechanisms,
    _pool: &Pool,
    _stats: &Arc<CoreStats>,
) -> Result<Opened, OpenError> {
    match choice {
        DriverChoice::Only(kind @ (DriverKind::Epoll | DriverKind::Uring)) => Err(OpenError::Elsewhere(kind)),
        DriverChoice::Auto | DriverChoice::Only(DriverKind::Iocp) => {
            let why = "there is no driver for completion ports yet";
            Err(OpenError::Iocp(io::Error::new(io::ErrorKind::Unsupported, why)))
        }
    }
}
