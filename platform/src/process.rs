//! What the process asks of the system at start: descriptors, cores, memory.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::io;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(windows)]
use windows as os;

use crate::errno;

#[cfg(target_os = "linux")]
pub use os::{InheritedFd, inherited_fds};
pub use os::{
    available_cores, current_rss_bytes, fd_limit, open_fd_count, pin_to_core, raise_fd_limit, release_heap,
    system_release, take_inherited, thread_cpu_time,
};

/// Limits on open descriptors, as counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdLimit {
    /// What a new descriptor must stay below.
    pub soft: u64,
    /// How far `soft` can be raised without privilege.
    pub hard: u64,
}

/// Whether an error says that this process or machine is out of descriptors or memory, whoever the peer is.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(errno::EMFILE | errno::ENFILE | errno::ENOBUFS | errno::ENOMEM))
}

/// Why the variables of socket activation were not understood; the service manager's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InheritError {
    /// `LISTEN_PID` is not a process id.
    InvalidPid,
    /// `LISTEN_FDS` is missing or not a count that descriptors can have.
    InvalidCount,
}

impl std::fmt::Display for InheritError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InheritError::InvalidPid => "LISTEN_PID is not a process id",
            InheritError::InvalidCount => "LISTEN_FDS is not a count of descriptors",
        })
    }
}

impl std::error::Error for InheritError {}

/// Why an inherited socket is not to be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum TakeError<E> {
    /// The variables are not understood.
    Variables(InheritError),
    /// There is none of that name.
    Unknown {
        /// The names that there are.
        others: Vec<String>,
    },
    /// All of that name were taken before.
    Taken,
    /// It is of no use to the caller.
    Unfit(E),
    /// The kernel's: `EBADF` where no such descriptor is open.
    System(io::Error),
}
