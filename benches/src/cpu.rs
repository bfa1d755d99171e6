//! Which processor a thread runs on.

use std::io;
use std::sync::OnceLock;

use ringport_platform::process;

/// The processors that this process could use when it began.
///
/// # Errors
/// The kernel's.
pub fn allowed() -> io::Result<&'static [usize]> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    match ALLOWED.get() {
        Some(cpus) => Ok(cpus),
        None => {
            let cpus = process::available_cores()?;
            Ok(ALLOWED.get_or_init(|| cpus))
        }
    }
}

/// One processor for the server, another for the load.
///
/// # Errors
/// The kernel's, or that there is only one.
pub fn pair() -> io::Result<(usize, usize)> {
    match allowed()? {
        [first, .., last] => Ok((*first, *last)),
        _ => {
            Err(io::Error::other("a server and its load need a processor each, and this process may use one"))
        }
    }
}

/// Binds this thread, and what it starts from now on, to a processor.
///
/// # Errors
/// The kernel's.
pub fn pin(cpu: usize) -> io::Result<()> {
    allowed()?;
    process::pin_to_core(cpu)
}

/// Binds this thread, and what it starts from now on, to the last processor that it may use.
///
/// # Errors
/// The kernel's.
pub fn pin_to_last() -> io::Result<()> {
    match allowed()?.last() {
        Some(cpu) => pin(*cpu),
        None => Ok(()),
    }
}

/// From now on this thread, and what it starts, go before everything that has no real-time priority.
///
/// # Errors
/// When this process may not ask for that.
pub fn go_first() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives for the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
