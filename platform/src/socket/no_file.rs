//! The file of a Unix socket, where there are none: all of it is refused.

use std::io;
use std::path::Path;

use super::InTheWay;

/// The file that a bind made: there is never one.
#[derive(Debug)]
pub enum SocketFile {}

impl SocketFile {
    /// # Errors
    /// Always.
    pub fn just_bound(_path: &Path) -> io::Result<Self> {
        Err(unsupported())
    }

    /// # Errors
    /// Never: there is none.
    pub fn assign(&self, _mode: Option<u32>, _owner: Option<u32>, _group: Option<u32>) -> io::Result<()> {
        match *self {}
    }

    /// Leaves the file where it is.
    pub fn keep(&mut self) {
        match *self {}
    }

    /// Removes the file now.
    pub fn remove(&self) {
        match *self {}
    }
}

/// Makes room for a Unix socket.
///
/// # Errors
/// Always: there are none.
pub fn make_room(_path: &Path, _replace: bool) -> Result<(), InTheWay> {
    Err(InTheWay::Unknown(unsupported()))
}

/// The number of a user.
///
/// # Errors
/// Always: Windows has no such numbers.
pub fn user_id(_name: &str) -> io::Result<Option<u32>> {
    Err(unsupported())
}

/// The number of a group.
///
/// # Errors
/// Always: Windows has no such numbers.
pub fn group_id(_name: &str) -> io::Result<Option<u32>> {
    Err(unsupported())
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "Unix sockets and their files are not to be had on Windows")
}
