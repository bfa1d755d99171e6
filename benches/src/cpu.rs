//! Which processor a thread runs on.

use std::io;

/// The processors that this process may use.
///
/// # Errors
/// The kernel's.
pub fn allowed() -> io::Result<Vec<usize>> {
    ringport_platform::process::available_cores()
}

/// Binds this thread, and what it starts from now on, to the last processor that it may use.
///
/// # Errors
/// The kernel's.
pub fn pin_to_last() -> io::Result<()> {
    match allowed()?.last() {
        Some(cpu) => ringport_platform::process::pin_to_core(*cpu),
        None => Ok(()),
    }
}
