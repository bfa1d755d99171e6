//! What the epoll driver knows of one descriptor: what its edges said, and the operations that wait on them.

use std::os::fd::RawFd;

use crate::op::{Burst, Errno, OpKind, Outcome, Token};

/// One index of the upper layer.
pub(super) struct Slot {
    /// The descriptor, or -1 when the slot is free.
    pub(super) fd: RawFd,
    /// Counts attaches and closes; edges carry it, so those of an earlier descriptor are known.
    pub(super) attached: u32,
    pub(super) queued: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether a short read means that the kernel has no more: true for TCP, where only an urgent mark ends a read
    /// early. A Unix read also ends at passed descriptors, an MPTCP read at a subflow's end.
    pub(super) trust_short_reads: bool,
    /// An end, an error or an urgent mark was seen: no edge will come for what lies behind, so read until EAGAIN.
    hangup: bool,
    /// An urgent mark was seen since a watch began: what is behind it may have come before.
    urgent: bool,
    pub(super) recv: Option<Recv>,
    pub(super) send: Option<Send>,
    pub(super) accept: Option<Accept>,
    pub(super) connect: Option<Connect>,
    pub(super) watch_read: Option<Watch>,
    pub(super) watch_write: Option<Watch>,
}

/// Somebody else reads from the descriptor, or writes to it, and waits.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) canceled: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Recv {
    pub(super) token: Token,
    /// Bytes that may still be received. INVARIANT: not 0.
    pub(super) credit: u32,
    pub(super) canceled: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Accept {
    pub(super) token: Token,
    pub(super) burst: Burst,
    pub(super) canceled: bool,
}

pub(super) struct Connect {
    pub(super) token: Token,
    /// Known at once, or `None` while the kernel is at it.
    pub(super) result: Option<Result<(), Errno>>,
    pub(super) canceled: bool,
}

pub(super) enum Send {
    /// Done; the next turn says so.
    Ended { token: Token, outcome: Outcome },
    /// The socket was full.
    Waiting(Waiting),
}

/// A send that waits for the peer.
pub(super) struct Waiting {
    pub(super) token: Token,
    /// INVARIANT: from `at` on they point at the bytes not yet sent, in segments that the caller of `send` keeps
    /// until the terminal completion.
    pub(super) iovecs: Vec<libc::iovec>,
    pub(super) at: usize,
    pub(super) done: usize,
    pub(super) taken: usize,
    pub(super) canceled: bool,
}

impl Waiting {
    pub(super) fn advance(&mut self, mut count: usize) {
        self.done += count;
        assert!(self.done <= self.taken, "the kernel sent more than it was given");
        while count > 0 {
            let iovec = &mut self.iovecs[self.at];
            if count < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(count).cast();
                iovec.iov_len -= count;
                return;
            }
            count -= iovec.iov_len;
            self.at += 1;
        }
    }

    /// What a cancel leaves: bytes that went out must be told.
    pub(super) fn canceled_outcome(&self) -> Outcome {
        if self.done == 0 { Outcome::Canceled } else { Outcome::Stalled(self.done) }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            fd: -1,
            attached: 0,
            queued: false,
            readable: false,
            writable: false,
            trust_short_reads: false,
            hangup: false,
            urgent: false,
            recv: None,
            send: None,
            accept: None,
            connect: None,
            watch_read: None,
            watch_write: None,
        }
    }
}

impl Slot {
    /// A clean slot for `fd`. It may still stand in the ready list, so `queued` stays.
    pub(super) fn reset(&mut self, fd: RawFd) {
        let attached = self.attached.wrapping_add(1);
        // Try first: only EAGAIN says that a fresh socket is full. What it has to read, the first edge tells.
        *self = Slot { fd, attached, queued: self.queued, writable: true, ..Slot::default() };
    }

    pub(super) fn forget_edges(&mut self) {
        self.readable = false;
        self.writable = false;
        self.hangup = false;
    }

    pub(super) fn busy(&self) -> bool {
        let watched = self.watch_read.is_some() || self.watch_write.is_some();
        self.recv.is_some()
            || self.send.is_some()
            || self.accept.is_some()
            || self.connect.is_some()
            || watched
    }

    pub(super) fn take_edge(&mut self, events: u32) {
        let has = |mask: i32| events & mask as u32 != 0;
        let over = libc::EPOLLHUP | libc::EPOLLERR;
        self.readable |= has(libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP | over);
        self.writable |= has(libc::EPOLLOUT | over);
        self.hangup |= has(libc::EPOLLPRI | libc::EPOLLRDHUP | over);
        self.urgent |= has(libc::EPOLLPRI);
    }

    /// Whoever begins to wait has just been told EAGAIN, so what was seen before is stale. At a mark splice(2) says EAGAIN
    /// although there is more, for which no edge comes: worth one look.
    pub(super) fn watch(&mut self, token: Token) {
        let watch = Some(Watch { token, canceled: false });
        if token.kind() == Some(OpKind::Writable) {
            debug_assert!(self.watch_write.is_none());
            (self.watch_write, self.writable) = (watch, false);
        } else {
            debug_assert!(self.watch_read.is_none());
            (self.watch_read, self.readable) = (watch, std::mem::take(&mut self.urgent));
        }
    }

    /// A watch that has come to its end.
    pub(super) fn take_watch(&mut self) -> Option<(Token, Outcome)> {
        let read = self.watch_read.take_if(|watch| watch.canceled || self.readable);
        let ended = match read {
            Some(watch) => Some((watch, self.readable)),
            None => {
                let write = self.watch_write.take_if(|watch| watch.canceled || self.writable);
                write.map(|watch| (watch, self.writable))
            }
        };
        let (watch, is_ready) = ended?;
        Some((watch.token, if is_ready { Outcome::Ready } else { Outcome::Canceled }))
    }

    pub(super) fn can_go_on(&self) -> bool {
        let read = self.recv.is_some() || self.accept.is_some() || self.watch_read.is_some();
        let write = self.send.is_some() || self.connect.is_some() || self.watch_write.is_some();
        self.readable && read || self.writable && write
    }

    /// After a read that was `short` of what it asked for.
    pub(super) fn after_read(&mut self, short: bool) {
        if short && self.trust_short_reads && !self.hangup {
            self.readable = false;
        }
    }

    /// Marks an operation that has not ended; false when there is none of this name.
    pub(super) fn cancel(&mut self, token: Token) -> bool {
        let canceled = match token.kind() {
            Some(OpKind::Accept) => self.accept.as_mut().map(|op| (op.token, &mut op.canceled)),
            Some(OpKind::Recv) => self.recv.as_mut().map(|op| (op.token, &mut op.canceled)),
            Some(OpKind::Send) => match &mut self.send {
                Some(Send::Waiting(op)) => Some((op.token, &mut op.canceled)),
                // It has its outcome, which is the truth.
                Some(Send::Ended { .. }) | None => None,
            },
            Some(OpKind::Connect) => self.connect.as_mut().map(|op| (op.token, &mut op.canceled)),
            Some(OpKind::Readable) => self.watch_read.as_mut().map(|op| (op.token, &mut op.canceled)),
            Some(OpKind::Writable) => self.watch_write.as_mut().map(|op| (op.token, &mut op.canceled)),
            None => None,
        };
        match canceled {
            Some((pending, canceled)) if pending == token => {
                *canceled = true;
                true
            }
            _ => false,
        }
    }
}
