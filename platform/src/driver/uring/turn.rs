//! A turn: what is staged goes in, what completed comes out.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::cqueue;

use super::slots::{Cancel, Gathered, RecvOp, SendOp, gather};
use super::sqe::{self, SendStyle};
use super::{Silent, UringDriver};
use crate::buf::{PoolBuf, TxQueue};
use crate::driver::{Reports, Sink, Wait, concerns_one_connection};
use crate::op::{Burst, Completion, Errno, OpKind, Outcome, Token};

/// Bytes that one step of a receive takes at most, so that a fast peer does not hold up the others.
const MAX_RECV_STEP: u32 = 64 * 1024;
/// Credit below which a receive is armed for one step at a time.
const SHORT_STRETCH: u32 = 4096;

impl UringDriver {
    pub(super) fn run_turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()> {
        let out = &mut Reports::new(sink);
        for (token, errno) in std::mem::take(&mut self.refused) {
            self.finish(token, Outcome::Failed(errno), out);
        }
        if !self.recvs.is_empty() {
            self.kernel.bufs.top_up();
        }
        self.stage_receives(out);
        self.stage_cancels();
        self.stage_wake();
        self.kernel.bufs.show();
        let sends_end_now = self.silent_left || (!self.silent.is_empty() && !self.lazy_sends);
        let wait = if out.count > 0 || sends_end_now { Wait::Poll } else { wait };
        self.kernel.queue.submit(wait, &self.stats)?;
        // A silent send that the kernel took before this point has its failure among the completions, visible or
        // held back by an overflow: it never waits, so it ended inside the enter. One that is staged again while
        // reaping has not.
        let settled = self.kernel.queue.consumed();
        self.reap(out);
        while self.kernel.queue.overflowed() {
            self.stats.cq_overflow.inc();
            self.kernel.queue.fetch_overflow(&self.stats)?;
            self.reap(out);
        }
        self.settle_sends(settled, out);
        self.silent_left = !self.silent.is_empty();
        self.forget_closed(settled);
        self.kernel.bufs.adapt();
        self.stage_receives(out);
        self.stats.ops_in_flight.set(self.in_flight as u64);
        Ok(())
    }

    /// Arms the receives that waited for a buffer, or reports that there is none.
    pub(super) fn stage_receives(&mut self, out: &mut Reports<'_>) {
        if self.staged.is_empty() {
            return;
        }
        self.kernel.bufs.top_up();
        let mut staged = std::mem::take(&mut self.staged);
        for token in staged.drain(..) {
            let Some(op) = self.recvs.get_mut(token) else { continue };
            debug_assert!(!op.armed, "staged means that the kernel does not have it");
            if op.cancel == Cancel::ByCaller {
                self.end_recv(token, Outcome::Canceled, out);
            } else if self.kernel.bufs.has_buffers() {
                self.arm_recv(token);
            } else {
                self.stats.pool_starved.inc();
                self.end_recv(token, Outcome::Starved, out);
            }
        }
        self.staged = staged;
    }

    /// Gives a receive to the kernel in a way that cannot exceed what is left of its credit.
    ///
    /// The kernel compares with `optlen` after each step and so overshoots by up to `len - 1`. Asking for `len - 1`
    /// less keeps the cap exact. What is unused then, less than half, ends with the receive: whoever reads as fast as
    /// bytes come gives new credit, and a last stretch would cut messages into pieces.
    pub(super) fn arm_recv(&mut self, token: Token) {
        let step = MAX_RECV_STEP.min(self.kernel.bufs.buffer_bytes());
        let Some(op) = self.recvs.get_mut(token) else { return };
        debug_assert!(op.left > 0 && !op.armed);
        op.armed = true;
        let entry = if !self.mode.multishot || (self.mode.credit && op.left <= SHORT_STRETCH) {
            op.ends_at = u32::MAX;
            sqe::recv_once(op.fd, step.min(op.left))
        } else if self.mode.credit {
            let len = step.min(op.left / 2);
            op.ends_at = len - 1;
            sqe::recv_multishot(op.fd, len, Some(op.left - op.ends_at))
        } else {
            op.ends_at = 0;
            sqe::recv_multishot(op.fd, step.min(op.left), None)
        };
        // SAFETY: the entry names no memory; the buffers of the ring are held by `BufRing` until the completion that
        // uses them up, cancelled or not, and `Drop` leaks them unless every receive has ended.
        unsafe { self.kernel.queue.push(entry.user_data(token.to_bits()), &self.stats) };
    }

    /// Cancels go behind everything staged, so each finds its target; those that ended meanwhile are skipped.
    fn stage_cancels(&mut self) {
        for token in std::mem::take(&mut self.cancels) {
            if self.cancel_of(token).is_some_and(|cancel| *cancel != Cancel::No) {
                // SAFETY: a cancel names no memory.
                unsafe { self.kernel.queue.push(sqe::cancel(token.to_bits()), &self.stats) };
            }
        }
    }

    fn stage_wake(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            // SAFETY: a poll names no memory; the eventfd stays open as long as the driver.
            unsafe { self.kernel.queue.push(sqe::wake(self.wake.as_raw_fd()), &self.stats) };
        }
    }

    pub(super) fn reap(&mut self, out: &mut Reports<'_>) {
        let mut room = [const { MaybeUninit::uninit() }; _];
        loop {
            let taken = self.kernel.queue.take(&mut room);
            self.stats.completions.add(taken.len() as u64);
            for entry in taken {
                self.complete(entry, out);
            }
            // What the kernel adds meanwhile is for the next turn: only a full list says that there was more.
            if taken.len() < room.len() {
                return;
            }
        }
    }

    #[inline]
    fn complete(&mut self, entry: &cqueue::Entry, out: &mut Reports<'_>) {
        let token = Token::from_bits(entry.user_data());
        if token.kind() == Some(OpKind::Recv) {
            self.complete_recv(token, entry, out);
        } else {
            self.complete_other(token, entry, out);
        }
    }

    fn complete_other(&mut self, token: Token, entry: &cqueue::Entry, out: &mut Reports<'_>) {
        let more = cqueue::more(entry.flags());
        match token.kind() {
            Some(OpKind::Accept) => self.complete_accept(token, entry.result(), more, out),
            Some(OpKind::Recv) => self.complete_recv(token, entry, out),
            Some(OpKind::Send) => self.complete_send(token, entry.result(), out),
            Some(OpKind::Connect) => self.complete_connect(token, entry.result(), out),
            Some(OpKind::Readable | OpKind::Writable) => self.complete_watch(token, entry.result(), out),
            None if entry.user_data() == sqe::WAKE => self.wake_armed = more,
            // A cancel that came too late, or a failed close: the descriptor is gone either way.
            None => debug_assert!(matches!(entry.user_data(), sqe::CANCEL | sqe::CLOSE)),
        }
    }

    pub(super) fn submit_accept(&mut self, token: Token, fd: RawFd, burst: Burst) {
        let multishot = self.mode.multishot && burst == Burst::Many;
        let entry = sqe::accept(fd, multishot).user_data(token.to_bits());
        // SAFETY: an accept without an address names no memory.
        unsafe { self.kernel.queue.push(entry, &self.stats) };
    }

    fn complete_accept(&mut self, token: Token, result: i32, more: bool, out: &mut Reports<'_>) {
        // SAFETY: a successful accept gives a new descriptor, which nobody else owns.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let Some(op) = self.accepts.get_mut(token) else {
            self.stats.stale_completions.inc();
            return;
        };
        let (fd, burst, canceled) = (op.fd, op.burst, op.cancel != Cancel::No);
        match (accepted, burst) {
            (Some(accepted), Burst::One) => {
                debug_assert!(!more, "one accept takes one connection");
                return self.end_accept(token, Outcome::Accepted(accepted), out);
            }
            (Some(accepted), Burst::Many) => out.push(Completion::more(token, Outcome::Accepted(accepted))),
            (None, _) => {}
        }
        if more {
            return;
        }
        match -result {
            libc::ECANCELED => self.end_accept(token, Outcome::Canceled, out),
            errno if errno > 0 && !concerns_one_connection(Errno(errno)) => {
                if matches!(errno, libc::EMFILE | libc::ENFILE) {
                    self.stats.accept_out_of_fds.inc();
                }
                self.end_accept(token, Outcome::Failed(Errno(errno)), out);
            }
            _ if canceled => self.end_accept(token, Outcome::Canceled, out),
            _ => {
                self.stats.multishot_ended.add(u64::from(self.mode.multishot && burst == Burst::Many));
                self.submit_accept(token, fd, burst);
            }
        }
    }

    fn end_accept(&mut self, token: Token, outcome: Outcome, out: &mut Reports<'_>) {
        self.accepts.remove(token);
        self.finish(token, outcome, out);
    }

    #[inline(always)]
    fn complete_recv(&mut self, token: Token, entry: &cqueue::Entry, out: &mut Reports<'_>) {
        let (result, flags) = (entry.result(), entry.flags());
        let buffer = cqueue::buffer_select(flags);
        if let (Some(bid), true, true) = (buffer, cqueue::more(flags), result > 0)
            && let Some(op) = self.recvs.get_mut(token)
            && op.left > result as u32
            && op.held.is_none()
        {
            // The usual case: the kernel goes on.
            op.left -= result as u32;
            let received = self.kernel.bufs.take(bid, result as u32, cqueue::buffer_more(flags));
            return out.received(token, received, true);
        }
        self.complete_last_recv(token, result, flags, out);
    }

    /// A receive that the kernel has ended, or that is to end.
    #[cold]
    fn complete_last_recv(&mut self, token: Token, result: i32, flags: u32, out: &mut Reports<'_>) {
        let len = result.max(0) as u32;
        let received = cqueue::buffer_select(flags)
            .map(|bid| self.kernel.bufs.take(bid, len, cqueue::buffer_more(flags)))
            .filter(|received| !received.is_empty());
        debug_assert_eq!(received.is_some(), result > 0, "bytes come in a buffer, and only bytes");
        let Some(op) = self.recvs.get_mut(token) else {
            self.stats.stale_completions.inc();
            return;
        };
        op.armed = cqueue::more(flags);
        let armed = op.armed;
        if let Some(received) = received {
            op.left = op.left.saturating_sub(received.len() as u32);
            return self.deliver(token, received, out);
        }
        if armed {
            return;
        }
        let (canceled, held) = (op.cancel == Cancel::ByCaller, op.held.is_some());
        match -result {
            0 => self.end_recv(token, Outcome::Eof, out),
            libc::ECANCELED | libc::ENOBUFS | libc::EINTR | libc::EAGAIN if held => self.end_held(token, out),
            libc::ECANCELED => self.end_recv(token, Outcome::Canceled, out),
            libc::ENOBUFS | libc::EINTR | libc::EAGAIN if canceled => {
                self.end_recv(token, Outcome::Canceled, out)
            }
            // The ring was empty for a moment: armed again once it is filled, `Starved` if it cannot be.
            libc::ENOBUFS => {
                self.stats.multishot_ended.add(u64::from(op.ends_at != u32::MAX));
                self.kernel.bufs.grow();
                self.staged.push(token);
            }
            libc::EINTR | libc::EAGAIN => self.staged.push(token),
            errno => self.end_recv(token, Outcome::Failed(Errno(errno)), out),
        }
    }

    /// Reports received bytes, and decides how the receive goes on.
    fn deliver(&mut self, token: Token, received: PoolBuf, out: &mut Reports<'_>) {
        let Some(op) = self.recvs.get_mut(token) else { return };
        // What was held back is not the last after all.
        if let Some(earlier) = op.held.take() {
            out.received(token, earlier, true);
        }
        match (op.left, op.armed) {
            (0, false) => self.end_recv(token, Outcome::Received(received), out),
            // The kernel does not count: end the receive, and report this when it has ended.
            (0, true) => {
                op.held = Some(received);
                if op.cancel == Cancel::No {
                    op.cancel = Cancel::ByDriver;
                    self.cancels.push(token);
                }
            }
            (_, true) => out.received(token, received, true),
            (left, false) if left <= op.ends_at && op.ends_at != u32::MAX => {
                self.end_recv(token, Outcome::Received(received), out);
            }
            (left, false) => {
                if left > op.ends_at {
                    self.stats.multishot_ended.inc();
                }
                out.received(token, received, true);
                self.staged.push(token);
            }
        }
    }

    fn end_held(&mut self, token: Token, out: &mut Reports<'_>) {
        if let Some(held) = self.recvs.get_mut(token).and_then(|op| op.held.take()) {
            self.end_recv(token, Outcome::Received(held), out);
        }
    }

    fn end_recv(&mut self, token: Token, outcome: Outcome, out: &mut Reports<'_>) {
        if let Some(RecvOp { held: Some(held), .. }) = self.recvs.remove(token) {
            out.received(token, held, true);
        }
        self.finish(token, outcome, out);
    }

    fn complete_send(&mut self, token: Token, result: i32, out: &mut Reports<'_>) {
        let Some(op) = self.sends.remove(token) else {
            return self.complete_silent(token, result, out);
        };
        let canceled = op.cancel != Cancel::No;
        if result == -libc::EINTR && !canceled {
            self.stage_send(token, &op);
            return self.sends.insert(token, op);
        }
        if let Gathered::Message(at) = op.what {
            self.kernel.messages.put_back(at);
        }
        self.finish_send(token, result, op.taken as usize, false, out);
    }

    /// A silent send that has a completion: it failed, or the socket was full.
    fn complete_silent(&mut self, token: Token, result: i32, out: &mut Reports<'_>) {
        let at = self.lanes.get(token.index() as usize).map_or(0, |lane| lane.silent_at);
        let at = at.wrapping_sub(self.silent_settled) as usize;
        let Some(silent) = self.silent.get_mut(at).filter(|silent| silent.token == token && !silent.ended)
        else {
            return self.stats.stale_completions.inc();
        };
        silent.ended = true;
        if let Some(message) = silent.message {
            self.kernel.messages.put_back(message);
        }
        let taken = silent.taken as usize;
        self.finish_send(token, result, taken, true, out);
    }

    fn finish_send(&mut self, token: Token, result: i32, taken: usize, silent: bool, out: &mut Reports<'_>) {
        let outcome = match -result {
            errno if errno <= 0 => match result as usize {
                sent if sent < taken => Outcome::Stalled(sent),
                sent => Outcome::Sent(sent),
            },
            libc::EAGAIN => Outcome::Stalled(0),
            // A signal: nothing was sent.
            libc::EINTR if silent => Outcome::Stalled(0),
            libc::EINTR | libc::ECANCELED => Outcome::Canceled,
            errno => Outcome::Failed(Errno(errno)),
        };
        if matches!(outcome, Outcome::Stalled(_)) {
            self.stats.stalled_sends.inc();
        }
        self.finish(token, outcome, out);
    }

    /// Stages a send for the first time, or again after a signal.
    pub(super) fn stage_send(&mut self, token: Token, op: &SendOp) {
        let entry = match op.what {
            Gathered::One(base, len) => sqe::send(op.fd, base, len, op.style),
            Gathered::Message(at) => {
                sqe::send_msg(op.fd, self.kernel.messages.at(at).cast::<libc::msghdr>(), op.style)
            }
        };
        // SAFETY: the caller of `send` keeps the segments until the terminal completion. The message belongs to the
        // operation until then, in a page that does not move; a cancel changes neither, and `Drop` leaks the pages
        // unless every send has ended.
        unsafe { self.kernel.queue.push(entry.user_data(token.to_bits()), &self.stats) };
    }

    /// Stages the front of `queue` as a send that makes no completion if it succeeds; returns the bytes taken.
    pub(super) fn send_silently(&mut self, fd: RawFd, token: Token, queue: &TxQueue) -> usize {
        let (what, taken) = gather(queue, &mut self.kernel.messages);
        let (entry, message) = match what {
            Gathered::One(base, len) => (sqe::send(fd, base, len, SendStyle::Silent), None),
            Gathered::Message(at) => {
                let header = self.kernel.messages.at(at).cast::<libc::msghdr>();
                (sqe::send_msg(fd, header, SendStyle::Silent), Some(at))
            }
        };
        // SAFETY: as in `stage_send`, with the end of a silent send in the place of its completion.
        let seq = unsafe { self.kernel.queue.push(entry.user_data(token.to_bits()), &self.stats) };
        self.silent.push(Silent { seq, token, taken: taken as u32, message, ended: false });
        taken
    }

    /// Ends the silent sends up to place `settled` that made no completion: they succeeded.
    fn settle_sends(&mut self, settled: u64, out: &mut Reports<'_>) {
        let mut loud = 0;
        let count = self.silent.partition_point(|silent| silent.seq <= settled);
        for silent in &self.silent[..count] {
            if silent.ended {
                loud += 1;
                continue;
            }
            if let Some(message) = silent.message {
                self.kernel.messages.put_back(message);
            }
            out.sent(silent.token, silent.taken as usize);
        }
        let succeeded = count - loud;
        self.silent.drain(..count);
        self.silent_settled = self.silent_settled.wrapping_add(count as u32);
        self.in_flight -= succeeded;
        self.stats.silent_sends.add(succeeded as u64);
    }

    fn complete_connect(&mut self, token: Token, result: i32, out: &mut Reports<'_>) {
        let Some(op) = self.connects.remove(token) else {
            self.stats.stale_completions.inc();
            return;
        };
        self.kernel.addresses.put_back(op.addr);
        let outcome = match -result {
            0 => Outcome::Connected,
            libc::ECANCELED => Outcome::Canceled,
            // A signal reached the waiting worker because of a cancel.
            libc::EINTR if op.cancel != Cancel::No => Outcome::Canceled,
            errno => Outcome::Failed(Errno(errno)),
        };
        self.finish(token, outcome, out);
    }

    fn complete_watch(&mut self, token: Token, result: i32, out: &mut Reports<'_>) {
        let table = match token.kind() {
            Some(OpKind::Writable) => &mut self.writables,
            _ => &mut self.readables,
        };
        let Some(op) = table.remove(token) else {
            self.stats.stale_completions.inc();
            return;
        };
        let outcome = match -result {
            // Which events is not to be relied on: a wake-up tells those that it may be about (sock_def_readable).
            events if events <= 0 => Outcome::Ready,
            libc::ECANCELED => Outcome::Canceled,
            libc::EINTR | libc::EAGAIN if op.cancel != Cancel::No => Outcome::Canceled,
            errno => Outcome::Failed(Errno(errno)),
        };
        self.finish(token, outcome, out);
    }

    fn finish(&mut self, token: Token, outcome: Outcome, out: &mut Reports<'_>) {
        self.in_flight -= 1;
        out.push(Completion::last(token, outcome));
    }

    fn forget_closed(&mut self, consumed: u64) {
        while self.closing.pop_front_if(|(seq, _)| *seq <= consumed).is_some() {}
    }

    pub(super) fn cancel_of(&mut self, token: Token) -> Option<&mut Cancel> {
        match token.kind()? {
            OpKind::Accept => self.accepts.get_mut(token).map(|op| &mut op.cancel),
            OpKind::Recv => self.recvs.get_mut(token).map(|op| &mut op.cancel),
            OpKind::Send => self.sends.get_mut(token).map(|op| &mut op.cancel),
            OpKind::Connect => self.connects.get_mut(token).map(|op| &mut op.cancel),
            OpKind::Readable => self.readables.get_mut(token).map(|op| &mut op.cancel),
            OpKind::Writable => self.writables.get_mut(token).map(|op| &mut op.cancel),
        }
    }
}
