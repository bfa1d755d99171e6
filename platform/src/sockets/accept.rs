//! Listeners: connections that were taken from the kernel, and when it may give more.
//!
//! ```text
//! Idle  --wanted, and room--> Armed (one, or many) --connection*--> Armed | Idle (one alone ends it)
//! Armed --no longer wanted, no room left, enough wait--> canceled --> Idle
//! Armed --out of descriptors--> paused --a socket closed, or the core's timer--> Idle
//! Armed --failed--> Idle until it is polled again
//! ```
//!
//! What was taken waits in the listener's queue until an acceptor comes; dropping the acceptor's future loses none.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::{SockId, Sockets, register, work};
use crate::driver::Driver;
use crate::errno;
use crate::fd::OwnedFd;
use crate::op::{Burst, Errno, OpKind, Outcome};

/// Connections that may wait in a listener for an acceptor before it pauses.
pub const ACCEPT_QUEUE_LIMIT: usize = 256;

/// Why a listener takes no connections although they are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptPause {
    /// Enough connections wait.
    Held,
    /// Out of descriptors: armed again when one is closed or the core's retry timer fires.
    OutOfFds,
}

/// The accept side of a socket.
pub(super) struct Listen {
    pub(super) queue: VecDeque<OwnedFd>,
    paused: Option<AcceptPause>,
    pub(super) wanted: bool,
    failed: Option<Errno>,
    /// Connections that may still be taken from the kernel.
    room: usize,
    /// Whether the owner has said that there is no room.
    full: bool,
    /// What one turn may take when nothing holds it back.
    burst_len: usize,
    /// How the accept in flight takes them.
    armed: Burst,
}

impl Listen {
    pub(super) fn new(burst_len: usize) -> Self {
        Listen {
            queue: VecDeque::new(),
            paused: None,
            wanted: false,
            failed: None,
            room: usize::MAX,
            full: false,
            burst_len,
            armed: Burst::Many,
        }
    }

    /// How to take connections now; `None`: not at all.
    fn wish(&self) -> Option<Burst> {
        match self.room {
            _ if !self.wanted || self.paused.is_some() => None,
            0 => None,
            room if room > self.burst_len => Some(Burst::Many),
            _ => Some(Burst::One),
        }
    }

    /// Whether an accept in flight may take more than is wished for. One that takes a single connection ends by itself.
    fn overreaches(&self) -> bool {
        match self.wish() {
            None => true,
            Some(Burst::One) => self.armed == Burst::Many,
            Some(Burst::Many) => false,
        }
    }
}

impl Sockets {
    /// The next connection, or why there is none; from now on connections are wanted.
    pub(crate) fn poll_accept(&mut self, id: SockId, cx: &mut Context<'_>) -> Poll<Result<OwnedFd, Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        let Some(listen) = slot.listen.as_mut() else { return Poll::Ready(Err(Errno(errno::EINVAL))) };
        let taken = listen.queue.pop_front();
        if listen.paused == Some(AcceptPause::Held) && listen.queue.len() < ACCEPT_QUEUE_LIMIT / 2 {
            listen.paused = None;
        }
        let failed = listen.failed.take();
        listen.wanted = true;
        let arm = listen.wish().is_some() && !slot.in_flight.accept;
        if taken.is_none() && failed.is_none() {
            register(&mut slot.rx_waker, cx);
        }
        if arm {
            self.mark(id.index, work::ANY);
        }
        match (taken, failed) {
            (Some(fd), _) => Poll::Ready(Ok(fd)),
            (None, Some(errno)) => Poll::Ready(Err(errno)),
            (None, None) => Poll::Pending,
        }
    }

    /// Stops taking connections from the kernel until the next `poll_accept`; what was taken stays in the queue.
    pub(crate) fn pause_accept(&mut self, id: SockId) {
        if let Some(slot) = self.slot(id)
            && let Some(listen) = slot.listen.as_mut()
        {
            listen.wanted = false;
            self.stats.accept_paused.inc();
            self.mark(id.index, work::ANY);
        }
    }

    /// How many connections may still be taken from the kernel. Each that is taken uses one up; what was taken before
    /// stays in the queue.
    pub(crate) fn set_accept_room(&mut self, id: SockId, room: usize) {
        let Some(slot) = self.slot(id) else { return };
        let accepting = slot.in_flight.accept;
        let Some(listen) = slot.listen.as_mut() else { return };
        listen.room = room;
        let was_full = std::mem::replace(&mut listen.full, room == 0);
        let changed = if accepting { listen.overreaches() } else { listen.wish().is_some() };
        if room == 0 && !was_full {
            self.stats.accept_paused.inc();
        }
        if changed {
            self.mark(id.index, work::ANY);
        }
    }

    /// Connections that were taken from the kernel and wait for an acceptor.
    pub(crate) fn accept_queued(&mut self, id: SockId) -> usize {
        self.slot(id).and_then(|slot| slot.listen.as_ref()).map_or(0, |listen| listen.queue.len())
    }

    /// A connection that was taken, or `None` when none is left and the kernel gives no more by itself.
    pub(crate) fn poll_drained(&mut self, id: SockId, cx: &mut Context<'_>) -> Poll<Option<OwnedFd>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(None) };
        let Some(listen) = slot.listen.as_mut() else { return Poll::Ready(None) };
        listen.wanted = false;
        if let Some(fd) = listen.queue.pop_front() {
            return Poll::Ready(Some(fd));
        }
        if slot.in_flight.accept {
            register(&mut slot.rx_waker, cx);
            self.mark(id.index, work::ANY);
            return Poll::Pending;
        }
        Poll::Ready(None)
    }

    /// Whether a listener waits for descriptors.
    pub(crate) fn has_accept_retry(&self) -> bool {
        !self.out_of_fds.is_empty()
    }

    /// Lets listeners that ran out of descriptors try again.
    pub(crate) fn retry_accept(&mut self) {
        for index in std::mem::take(&mut self.out_of_fds) {
            if let Some(listen) = self.slots[index as usize].listen.as_mut()
                && listen.paused == Some(AcceptPause::OutOfFds)
            {
                listen.paused = None;
                self.mark(index, work::ANY);
            }
        }
    }

    pub(super) fn flush_accept(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        let token = slot.token(OpKind::Accept, index);
        let fd = slot.fd();
        let Some(listen) = slot.listen.as_mut() else { return };
        let closing = slot.closing.is_some();
        if !slot.in_flight.accept {
            let Some(burst) = listen.wish().filter(|_| !closing) else { return };
            slot.in_flight.accept = true;
            slot.canceled = false;
            listen.armed = burst;
            driver.accept(fd, token, burst);
        } else if (closing || listen.overreaches()) && !slot.canceled {
            slot.canceled = true;
            self.stats.cancels.inc();
            driver.cancel(fd, token);
        }
    }

    pub(super) fn complete_accept(&mut self, index: u32, outcome: Outcome, more: bool) {
        let slot = &mut self.slots[index as usize];
        let closing = slot.closing.is_some();
        let Some(listen) = slot.listen.as_mut() else { return };
        match outcome {
            // Its drop closes it.
            Outcome::Accepted(_) if closing => self.stats.orphans_released.inc(),
            Outcome::Accepted(fd) => {
                self.stats.accepted.inc();
                listen.queue.push_back(fd);
                if listen.room != usize::MAX {
                    // A burst that was armed while there was room may take more than is left.
                    listen.room = listen.room.saturating_sub(1);
                }
                if listen.queue.len() >= ACCEPT_QUEUE_LIMIT && listen.paused.is_none() {
                    listen.paused = Some(AcceptPause::Held);
                    self.stats.accept_paused.inc();
                }
                if listen.overreaches() {
                    self.mark(index, work::ANY);
                }
            }
            Outcome::Failed(Errno(errno::EMFILE | errno::ENFILE | errno::ENOBUFS | errno::ENOMEM)) => {
                listen.paused = Some(AcceptPause::OutOfFds);
                self.out_of_fds.push(index);
                self.stats.accept_paused.inc();
            }
            // Armed again by the next `poll_accept`: at once it would fail again, and so on without end.
            Outcome::Failed(errno) => {
                listen.failed = Some(errno);
                listen.wanted = false;
            }
            // Canceled: because of no more than that it was not wanted any more. An accept has no other end.
            _ => {}
        }
        if !more {
            self.slots[index as usize].canceled = false;
            self.mark(index, work::ANY);
        }
        if let Some(waker) = &self.slots[index as usize].rx_waker {
            waker.wake_by_ref();
        }
    }
}
