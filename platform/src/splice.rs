//! Bytes from one socket to another past user space: splice(2) through a pipe, driven by readiness.
//!
//! ```text
//! Stopping --the receive has ended--> (what came before is taken and sent by the caller) --> Moving
//! Moving --nothing to read | no room--> waits for that side, without a system call
//! Moving --the caller's limit--> dropped: receiving goes on     --end | failure | no pipe--> says so
//! ```
//!
//! The system call is made by the task, not by the ring: `IORING_OP_SPLICE` always goes to a worker thread.

#[cfg(target_os = "linux")]
mod pipe;
#[cfg(windows)]
#[path = "splice/no_pipe.rs"]
mod pipe;

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use crate::core::Core;
use crate::op::OpKind;
use crate::sockets::SockId;

pub(crate) use self::pipe::Pipes;
use self::pipe::{Budget, Pipe, Stop, advance, has_urgent_mark};

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes were handed to the sink's kernel side; never 0.
    Bytes(u64),
    /// The source has ended, and the sink has all that it sent.
    End,
    /// It does not go on this way: there is no pipe to be had, the kernel cannot splice these sockets, or the peer sent an
    /// urgent mark, which splice(2) stops at. Nothing is under way: drop the splice, and copy.
    Copy,
}

/// Which side failed.
#[derive(Debug)]
pub enum SpliceError {
    /// The source: its connection was reset, or timed out.
    Source(io::Error),
    /// The sink: its peer is gone.
    Sink(io::Error),
}

impl fmt::Display for SpliceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpliceError::Source(error) => write!(f, "the receiving connection: {error}"),
            SpliceError::Sink(error) => write!(f, "the sending connection: {error}"),
        }
    }
}

impl std::error::Error for SpliceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SpliceError::Source(error) | SpliceError::Sink(error) => Some(error),
        }
    }
}

/// One way between two sockets of a core, from [`StreamSock::splice_to`](crate::core::StreamSock::splice_to).
///
/// As long as it lives the source receives nothing by itself, and nobody may send to the sink. First [`poll_stopped`],
/// then what the source had received is taken and sent as ever, and the sink's queue waited empty; from then on
/// [`poll_move`]. Dropping it lets the source receive again. Dropped with bytes under way, which are lost then, it makes
/// the sink's close a reset, so that its peer cannot take what it got for the whole.
///
/// Costs two system calls for what waits in the source, up to a pipe's size, and one more to learn that no more does.
/// Holds a pipe (two descriptors) only while bytes are under way, which is while the sink does not take them.
///
/// [`poll_stopped`]: Splice::poll_stopped
/// [`poll_move`]: Splice::poll_move
pub struct Splice {
    core: Core,
    source: SockId,
    sink: SockId,
    /// `Some` exactly while bytes are under way.
    pipe: Option<Pipe>,
    waits: Option<OpKind>,
    /// The source was said to be readable, and nothing has been read since.
    told: bool,
    /// What to say once the bytes that came before it have been told.
    next: Option<Stop>,
    /// What is left of this turn's share.
    budget: Budget,
    turn: u64,
}

impl Splice {
    pub(crate) fn new(core: Core, source: SockId, sink: SockId) -> Option<Self> {
        if core.0.pipes.borrow().is_off() || !core.0.sockets.borrow_mut().hold_recv(source) {
            return None;
        }
        let turn = core.turn_number();
        Some(Splice {
            core,
            source,
            sink,
            pipe: None,
            waits: None,
            told: false,
            next: None,
            budget: Budget::TURN,
            turn,
        })
    }

    /// Waits until no receive of the source is in flight. What it had brought lies in the source's queue; no more comes
    /// there.
    pub fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.core.0.sockets.borrow_mut().poll_held(self.source, cx)
    }

    /// Moves bytes; ready when the sink has taken some. The source gives at most `most` more bytes, those under way
    /// included, so a body's end is met exactly: call it with what is left.
    ///
    /// # Errors
    /// In the `Poll`: which side failed. What it had taken before is told first.
    pub fn poll_move(&mut self, cx: &mut Context<'_>, most: u64) -> Poll<Result<Moved, SpliceError>> {
        assert!(most > 0 && most >= self.under_way(), "more was taken than there may be");
        loop {
            if let Some(kind) = self.waits {
                ready!(self.poll_ready(cx, kind))?;
            }
            if let Some(stop) = self.next.take() {
                return Poll::Ready(said(stop));
            }
            if !self.has_budget() {
                self.core.wake_next_turn(cx.waker());
                return Poll::Pending;
            }
            let moved = self.step(most);
            if moved > 0 {
                return Poll::Ready(Ok(Moved::Bytes(moved)));
            }
        }
    }

    /// Bytes that the source gave and the sink has not taken.
    pub fn under_way(&self) -> u64 {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held() as u64)
    }

    /// Whether the sink is what is waited for.
    pub fn is_sink_full(&self) -> bool {
        self.pipe.is_some()
    }

    fn step(&mut self, most: u64) -> u64 {
        let fds = {
            let mut sockets = self.core.0.sockets.borrow_mut();
            (sockets.raw_fd(self.source), sockets.raw_fd(self.sink))
        };
        let mut pipes = self.core.0.pipes.borrow_mut();
        let held = self.under_way();
        let (moved, stop) = advance(&mut pipes, &mut self.pipe, fds, most, &mut self.budget);
        let stats = &self.core.0.stats;
        stats.pipes.set(pipes.open_count() as u64);
        stats.received_bytes.add(moved + self.under_way() - held);
        stats.sent_bytes.add(moved);
        stats.spliced_bytes.add(moved);
        let told = std::mem::take(&mut self.told);
        match stop {
            Stop::Source if told && moved == 0 && has_urgent_mark(fds.0) => self.next = Some(Stop::Copy),
            Stop::Source => self.waits = Some(OpKind::Readable),
            Stop::Sink => self.waits = Some(OpKind::Writable),
            Stop::Limit | Stop::Budget => {}
            Stop::End | Stop::Copy | Stop::SourceFailed(_) | Stop::SinkFailed(_) => self.next = Some(stop),
        }
        moved
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, kind: OpKind) -> Poll<Result<(), SpliceError>> {
        let id = if kind == OpKind::Readable { self.source } else { self.sink };
        let ready = ready!(self.core.0.sockets.borrow_mut().poll_ready(id, kind, cx));
        self.waits = None;
        match ready {
            Ok(()) => {
                self.told = kind == OpKind::Readable;
                Poll::Ready(Ok(()))
            }
            Err(errno) if kind == OpKind::Readable => Poll::Ready(Err(SpliceError::Source(errno.into()))),
            Err(errno) => Poll::Ready(Err(SpliceError::Sink(errno.into()))),
        }
    }

    fn has_budget(&mut self) -> bool {
        let turn = self.core.turn_number();
        if self.turn != turn {
            (self.turn, self.budget) = (turn, Budget::TURN);
        }
        !self.budget.is_spent()
    }
}

/// What ends a splice, as its caller is told.
fn said(stop: Stop) -> Result<Moved, SpliceError> {
    match stop {
        Stop::End => Ok(Moved::End),
        Stop::SourceFailed(errno) => Err(SpliceError::Source(errno.into())),
        Stop::SinkFailed(errno) => Err(SpliceError::Sink(errno.into())),
        Stop::Source | Stop::Sink | Stop::Limit | Stop::Budget | Stop::Copy => Ok(Moved::Copy),
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        let mut sockets = self.core.0.sockets.borrow_mut();
        sockets.release_recv(self.source);
        if let Some(pipe) = self.pipe.take() {
            sockets.truncate(self.sink);
            let mut pipes = self.core.0.pipes.borrow_mut();
            pipes.put_back(pipe);
            self.core.0.stats.pipes.set(pipes.open_count() as u64);
        }
    }
}
