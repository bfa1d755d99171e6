//! A descriptor like every other.

use std::io;
use std::os::fd::AsFd;

use crate::socket;

/// Whether a read of standard input would wait now. poll(2).
pub fn input_would_wait() -> bool {
    !socket::is_readable(io::stdin().as_fd())
}

/// Whether a read of standard input that is under way, and found nothing, waits still.
pub fn input_still_waits() -> bool {
    input_would_wait()
}

/// Whether a write failed because nobody reads any more. write(2) `EPIPE`.
pub fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
