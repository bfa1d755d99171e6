//! Which driver a core gets: io_uring where it works, else epoll, on Windows a completion port; never a silent change of a
//! forced one.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::fmt;
use std::io;
use std::str::FromStr;

use super::{Driver, DriverKind};
#[cfg(target_os = "linux")]
use super::{UringError, UringReport};

#[cfg(target_os = "linux")]
pub use linux::open;
#[cfg(windows)]
pub use windows::open;

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DriverChoice {
    /// io_uring where it works, else epoll; on Windows a completion port.
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
            "iocp" => Ok(DriverChoice::Only(DriverKind::Iocp)),
            other => Err(format!("{other:?} is no driver; there are auto, uring, epoll and iocp")),
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
    #[cfg(target_os = "linux")]
    pub uring: Option<UringReport>,
}

/// Why no driver could be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The driver that was forced is another system's.
    Elsewhere(DriverKind),
    /// Windows refused a completion port.
    Iocp(io::Error),
    /// io_uring was forced and is not to be had.
    #[cfg(target_os = "linux")]
    Uring(UringError),
    /// The kernel refused epoll.
    Epoll(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Elsewhere(kind) => {
                write!(f, "the driver {} was asked for and is not to be had on this system", kind.name())
            }
            OpenError::Iocp(error) => write!(f, "the driver iocp is not to be had: {error}"),
            #[cfg(target_os = "linux")]
            OpenError::Uring(error) => {
                write!(f, "the driver uring was asked for and is not to be had: {error}")
            }
            OpenError::Epoll(error) => write!(f, "the driver epoll is not to be had: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}
