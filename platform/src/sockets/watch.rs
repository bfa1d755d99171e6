//! Sockets that somebody else reads from or writes to: their receives are held, their readiness is told.
//!
//! ```text
//! receive    Armed --hold--> Held, cancel asked --terminal completion--> Held, quiet --release--> Idle
//! readiness  Idle --asked, not known--> Armed --Ready--> known --asked--> Idle
//! ```

use std::task::{Context, Poll, Waker};

use super::{SockId, Sockets, register, work};
use crate::driver::Driver;
use crate::errno;
use crate::op::{Errno, OpKind, Outcome, Token};

/// What is wanted to be known of a socket's readiness. Made for the few sockets where it is asked.
#[derive(Default)]
pub(super) struct Watches {
    /// Somebody else reads from the descriptor: no receive is armed, and one that is gets cancelled.
    pub(super) held: bool,
    /// The receive in flight has been told to end, for that reason.
    recv_canceled: bool,
    /// Bytes that belong between those sent and those to be sent are lost: the peer must see a reset.
    pub(super) truncated: bool,
    readable: Watch,
    writable: Watch,
}

#[derive(Default)]
struct Watch {
    wanted: bool,
    told: Option<Result<(), Errno>>,
    waker: Option<Waker>,
}

impl Watches {
    fn side(&mut self, kind: OpKind) -> &mut Watch {
        debug_assert!(matches!(kind, OpKind::Readable | OpKind::Writable));
        if kind == OpKind::Writable { &mut self.writable } else { &mut self.readable }
    }
}

impl Sockets {
    /// Stops receiving: what comes from now on stays in the kernel. False if somebody else has it stopped already.
    pub(crate) fn hold_recv(&mut self, id: SockId) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let watches = slot.watches.get_or_insert_default();
        if watches.held {
            return false;
        }
        (watches.held, watches.recv_canceled) = (true, false);
        self.mark(id.index, work::RECV);
        true
    }

    /// Ready when the receive that was armed has ended; what it brought waits to be taken.
    pub(crate) fn poll_held(&mut self, id: SockId, cx: &Context<'_>) -> Poll<()> {
        match self.slot(id) {
            Some(slot) if slot.in_flight.recv => {
                register(&mut slot.rx_waker, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Receives again. A receive that a cancel is after ends first.
    pub(crate) fn release_recv(&mut self, id: SockId) {
        if let Some(slot) = self.slot(id)
            && let Some(watches) = &mut slot.watches
        {
            watches.held = false;
            self.mark(id.index, work::RECV);
        }
    }

    /// Bytes were lost on their way to this socket: it sends nothing more, and its close is a reset.
    pub(crate) fn truncate(&mut self, id: SockId) {
        if let Some(slot) = self.slot(id) {
            slot.watches.get_or_insert_default().truncated = true;
            slot.tx_failed.get_or_insert(Errno(errno::EPIPE));
            self.mark(id.index, work::RECV);
        }
    }

    /// Whether another try at the socket is worth it. Ask after it has said EAGAIN.
    pub(crate) fn poll_ready(
        &mut self,
        id: SockId,
        kind: OpKind,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        let armed = *slot.in_flight.slot(kind);
        let watch = slot.watches.get_or_insert_default().side(kind);
        if let Some(told) = watch.told.take() {
            return Poll::Ready(told);
        }
        register(&mut watch.waker, cx);
        if !armed && !watch.wanted {
            watch.wanted = true;
            self.mark(id.index, work::RECV);
        }
        Poll::Pending
    }

    /// Wakes who waits for that side: there is news that the kernel has not.
    pub(crate) fn tell_ready(&mut self, id: SockId, kind: OpKind) {
        let Some(slot) = self.slot(id) else { return };
        let watch = slot.watches.get_or_insert_default().side(kind);
        watch.told = Some(Ok(()));
        if let Some(waker) = watch.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn flush_watches(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        let (fd, recv) = (slot.fd(), slot.token(OpKind::Recv, index));
        let Some(watches) = &mut slot.watches else { return };
        if watches.held && slot.in_flight.recv && !watches.recv_canceled {
            watches.recv_canceled = true;
            self.stats.cancels.inc();
            driver.cancel(fd, recv);
        }
        for kind in [OpKind::Readable, OpKind::Writable] {
            if std::mem::take(&mut watches.side(kind).wanted) {
                *slot.in_flight.slot(kind) = true;
                driver.watch(fd, Token::new(kind, index, slot.generation));
            }
        }
    }

    /// A watch outlives whoever asked: then nobody is woken, and who asks next may be told what has changed since, which
    /// costs a try.
    pub(super) fn complete_watch(&mut self, index: u32, kind: OpKind, outcome: &Outcome) {
        let Some(watches) = &mut self.slots[index as usize].watches else { return };
        let watch = watches.side(kind);
        watch.told = match outcome {
            Outcome::Ready => Some(Ok(())),
            Outcome::Failed(errno) => Some(Err(*errno)),
            // Canceled: by a close. A watch has no other end.
            _ => None,
        };
        if let Some(waker) = watch.waker.take() {
            waker.wake();
        }
    }
}
