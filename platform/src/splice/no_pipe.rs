//! Where there is no splice(2): no pipe is ever to be had, so every relay copies.

use crate::fd::RawFd;
use crate::op::Errno;

/// A pipe: there is never one.
pub(super) enum Pipe {}

impl Pipe {
    pub(super) fn held(&self) -> usize {
        match *self {}
    }
}

/// The pipes of one core: none.
pub(crate) struct Pipes;

impl Pipes {
    pub(crate) fn new(_max: usize) -> Self {
        Pipes
    }

    pub(crate) fn is_off(&self) -> bool {
        true
    }

    pub(crate) fn open_count(&self) -> usize {
        0
    }

    pub(super) fn put_back(&mut self, pipe: Pipe) {
        match pipe {}
    }

    pub(crate) fn close_idle(&mut self) {}
}

/// What ended a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "the caller spells what Linux gives")]
pub(super) enum Stop {
    Source,
    Sink,
    Limit,
    End,
    Budget,
    Copy,
    SourceFailed(Errno),
    SinkFailed(Errno),
}

/// Nothing is moved.
pub(super) fn advance(
    _pipes: &mut Pipes,
    _pipe: &mut Option<Pipe>,
    _sockets: (RawFd, RawFd),
    _most: u64,
    _budget: &mut Budget,
) -> (u64, Stop) {
    (0, Stop::Copy)
}

/// What one relay may do in one turn of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    pub(super) fills: u32,
}

impl Budget {
    pub(super) const TURN: Budget = Budget { bytes: 0, fills: 0 };

    pub(super) fn is_spent(self) -> bool {
        self.bytes == 0 || self.fills == 0
    }
}

/// Nothing is spliced, so no mark stops it.
pub(super) fn has_urgent_mark(_socket: RawFd) -> bool {
    false
}
