//! Pipes, and moving bytes through one: splice(2) takes no more than a reference to each page.
//!
//! ```text
//! empty --fill: the source has bytes--> holding --drain: the sink takes all--> empty
//! ```
//!
//! Only an empty pipe is filled, so EAGAIN says which side is not ready, and a sink that takes nothing stops its source.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::op::Errno;

/// A pipe, and how much is in it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// # Errors
    /// Out of descriptors, or this user has so many pipe pages that the kernel gives no more than a few (pipe(7)).
    fn open(sizes: &[usize]) -> io::Result<Self> {
        let mut ends = [-1; 2];
        // SAFETY: the kernel writes two descriptors to `ends`.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        // SAFETY: both are new, and nobody else owns them.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        for size in sizes.iter().filter_map(|size| libc::c_int::try_from(*size).ok()) {
            // A user without CAP_SYS_RESOURCE has limits on the size of one pipe and of all (EPERM).
            // SAFETY: takes no memory.
            let given = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
            if given >= size {
                return Ok(Pipe { read, write, held: 0 });
            }
        }
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// Bytes that were taken from a source and that no sink has yet.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `most` bytes out of the socket `from`; 0 is its end. Only for an empty pipe.
    pub(super) fn fill(&mut self, from: RawFd, most: usize) -> Result<usize, Errno> {
        debug_assert!(self.held == 0 && most > 0, "a pipe that holds bytes says EAGAIN when it is full, too");
        self.held = splice(from, self.write.as_raw_fd(), most)?;
        Ok(self.held)
    }

    /// Gives what the socket `to` takes. Only for a pipe that holds bytes.
    pub(super) fn drain(&mut self, to: RawFd) -> Result<usize, Errno> {
        debug_assert!(self.held > 0, "an empty pipe says EAGAIN, too");
        let count = splice(self.read.as_raw_fd(), to, self.held)?;
        self.held -= count;
        Ok(count)
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    loop {
        // SAFETY: takes no memory: neither side has an offset.
        let count = unsafe { libc::splice(from, none, to, none, most, libc::SPLICE_F_NONBLOCK) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

/// The pipes of one core. A relay has one only while bytes are in it, so there are hardly more than sinks that do not
/// read; those above the bound copy.
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    open: usize,
    max: usize,
}

impl Pipes {
    /// At most `max` pipes, two descriptors each; none where this process would be killed by the signal that splice(2)
    /// sends with EPIPE (send(2) has a flag against it).
    pub(crate) fn new(max: usize) -> Self {
        Pipes { idle: Vec::new(), open: 0, max: if dies_of_sigpipe() { 0 } else { max } }
    }

    /// Whether there is any use in asking.
    pub(crate) fn is_off(&self) -> bool {
        self.max == 0
    }

    /// Pipes that exist.
    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    /// An empty one, the one used last first: its kernel memory is in the caches still.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.open >= self.max {
            return None;
        }
        let pipe = Pipe::open(&SIZES).ok()?;
        self.open += 1;
        Some(pipe)
    }

    /// One that still holds bytes is closed, and they are gone.
    pub(super) fn put_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.idle.len() < MAX_IDLE {
            self.idle.push(pipe);
        } else {
            self.open -= 1;
        }
    }

    /// Closes what nobody uses: descriptors are short.
    pub(crate) fn close_idle(&mut self) {
        self.open -= self.idle.len();
        self.idle.clear();
    }
}

/// Bytes that a pipe should take, best first; nothing smaller is worth its system calls. What counts is how many fragments
/// fit, one for each 4 KiB: a network card delivers about 1.4 KiB in each. Over loopback a MiB took 381 us and 34 system
/// calls through 64 KiB, 288 and 9 through 256 KiB, 224 and 5 through 512 KiB, and no less through more.
///
/// An empty one costs the kernel 40 bytes for each fragment, but counts in full against the limit of a user without
/// privileges (`pipe-user-pages-soft`, 64 MiB).
const SIZES: [usize; 3] = [512 << 10, 256 << 10, 64 << 10];

/// Pipes that wait for use; one after another serves all relays whose sinks read.
const MAX_IDLE: usize = 8;

/// What ended a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing to read.
    Source,
    /// Nothing can be written.
    Sink,
    /// All that was asked for has been moved.
    Limit,
    /// The source has ended, and the sink has everything.
    End,
    /// Others have their turn.
    Budget,
    /// No pipe is to be had, or the source cannot be spliced. No byte is under way.
    Copy,
    SourceFailed(Errno),
    SinkFailed(Errno),
}

/// Moves bytes from `from` to `to` until one of them is not ready; returns how many `to` has taken.
///
/// `most` bounds what may be taken from `from`, what is in the pipe already included; `budget` is what may be done before
/// others have their turn, and falls. `pipe` is `Some` exactly while bytes are in it, before and after.
pub(super) fn advance(
    pipes: &mut Pipes,
    pipe: &mut Option<Pipe>,
    (from, to): (RawFd, RawFd),
    most: u64,
    budget: &mut Budget,
) -> (u64, Stop) {
    let Some(mut through) = pipe.take().or_else(|| pipes.take()) else { return (0, Stop::Copy) };
    let mut moved = 0;
    let stop = loop {
        if through.held > 0 {
            match through.drain(to) {
                // Never seen; it must not become a loop.
                Ok(0) => break Stop::SinkFailed(Errno(libc::EPIPE)),
                Ok(count) => moved += count as u64,
                Err(Errno(libc::EAGAIN)) => break Stop::Sink,
                Err(errno) => break Stop::SinkFailed(errno),
            }
            continue;
        }
        let left = most.saturating_sub(moved);
        if left == 0 {
            break Stop::Limit;
        }
        if budget.is_spent() {
            break Stop::Budget;
        }
        match through.fill(from, usize::try_from(left).unwrap_or(usize::MAX).min(budget.bytes)) {
            Ok(0) => break Stop::End,
            Ok(count) => budget.spend(count),
            Err(Errno(libc::EAGAIN)) => break Stop::Source,
            // Not a socket that knows how.
            Err(Errno(libc::EINVAL | libc::EOPNOTSUPP)) => break Stop::Copy,
            Err(errno) => break Stop::SourceFailed(errno),
        }
    };
    if through.held > 0 {
        *pipe = Some(through);
    } else {
        pipes.put_back(through);
    }
    (moved, stop)
}

/// What one relay may do in one turn of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    pub(super) fills: u32,
}

impl Budget {
    /// Half a MiB in 16 steps: what 16 sockets then move in a turn takes about a millisecond.
    pub(super) const TURN: Budget = Budget { bytes: 512 << 10, fills: 16 };

    pub(super) fn is_spent(self) -> bool {
        self.bytes == 0 || self.fills == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.fills -= 1;
    }
}

/// Whether an urgent mark is what stops splice(2) although there is more. tcp(7) and poll(2), `POLLPRI`.
pub(super) fn has_urgent_mark(socket: RawFd) -> bool {
    let mut entry = libc::pollfd { fd: socket, events: libc::POLLPRI, revents: 0 };
    // SAFETY: one entry, which the kernel writes during the call only.
    let ready = unsafe { libc::poll(&mut entry, 1, 0) };
    ready == 1 && entry.revents & libc::POLLPRI != 0
}

/// Whether SIGPIPE ends the process: the default, unless the program's start (Rust's does) or somebody else changed it.
fn dies_of_sigpipe() -> bool {
    // SAFETY: all zeroes is an action; the kernel writes one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the old action is written to `action`.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action) };
    asked != 0 || action.sa_sigaction == libc::SIG_DFL
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests;
