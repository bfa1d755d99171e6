//! The io_uring driver.
//!
//! ```text
//! staged --turn: one enter--> in the kernel --completion--> reported
//!   send, silent:  in the kernel --no completion, no overflow--> reported as sent
//!   receive:       in the kernel --lost its multishot or its buffers--> staged
//!   receive:       staged --no chunk in the pool--> reported as starved
//! ```
//!
//! Submissions keep their order; cancels go last, so each finds its target. Everything that the kernel may touch lives
//! in [`Kernel`], which is freed only when no operation is in flight, and leaked otherwise: closing a ring is not a
//! barrier.

mod bufring;
mod probe;
mod queue;
mod setup;
mod slots;
mod sqe;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Timespec};

use self::bufring::{BufRing, GROUP};
use self::queue::Queue;
use self::slots::{
    AcceptOp, Address, Cancel, ConnectOp, MAX_SEGMENT_BYTES, Message, RecvOp, SendOp, Slab, Table, WatchOp,
    gather,
};
use self::sqe::SendStyle;
use super::{ConnectAddr, Driver, DriverKind, Mechanisms, Sink, Unpark, Wait};
use crate::buf::{Pool, TxQueue};
use crate::op::{Burst, Completion, Errno, OpKind, SendMode, Token};
use crate::stats::CoreStats;

pub use self::probe::UringReport;
pub use self::setup::{Denial, UringError};

/// What to ask the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringSpec {
    /// Submissions that fit before an early flush; the kernel rounds up to a power of two.
    pub sq_entries: u32,
    /// Completions that fit before the kernel holds them back.
    pub cq_entries: u32,
    /// Mechanisms to do without.
    pub disable: Mechanisms,
}

impl Default for UringSpec {
    /// 512 and 4,096 entries, everything on.
    fn default() -> Self {
        UringSpec { sq_entries: 512, cq_entries: 4096, disable: Mechanisms::NONE }
    }
}

/// The io_uring driver of one core. It stays on the thread that opened it.
pub struct UringDriver {
    kernel: ManuallyDrop<Kernel>,
    mode: Mode,
    stats: Arc<CoreStats>,
    accepts: Table<AcceptOp>,
    recvs: Table<RecvOp>,
    sends: Table<SendOp>,
    connects: Table<ConnectOp>,
    readables: Table<WatchOp>,
    writables: Table<WatchOp>,
    /// Receives that the kernel does not have: they wait for a buffer until the next turn.
    staged: Vec<Token>,
    /// Cancels to stage behind everything else.
    cancels: Vec<Token>,
    /// Operations that could not be submitted at all.
    refused: Vec<(Token, Errno)>,
    /// Silent sends in submission order.
    silent: Vec<Silent>,
    /// How many silent sends were settled before the first in the list; it wraps.
    silent_settled: u32,
    /// Whether the last turn could not settle all of them. Somebody may wait for one, so the next turn does not sleep
    /// even where silent sends may linger.
    silent_left: bool,
    /// Closes that the kernel may not have taken yet, in submission order.
    closing: VecDeque<(u64, RawFd)>,
    /// By slot.
    lanes: Vec<Lane>,
    in_flight: usize,
    wake: Arc<OwnedFd>,
    wake_armed: bool,
    lazy_sends: bool,
}

/// What the kernel may touch while operations are in flight.
struct Kernel {
    queue: Queue,
    bufs: BufRing,
    messages: Slab<Message>,
    addresses: Slab<Address>,
}

/// A send that makes no completion when it succeeds.
struct Silent {
    seq: u64,
    token: Token,
    /// A first segment of 1 GiB is the most.
    taken: u32,
    /// In the slab of messages; `None` where it was one segment.
    message: Option<u32>,
    /// A completion came: it failed, or went through in part.
    ended: bool,
}

/// What the driver knows of a slot's way to send.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// Whether its sends may be silent.
    quiet: bool,
    /// The place of its silent send among all that were ever staged.
    silent_at: u32,
}

/// The mechanisms in use: found working, and not switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    credit: bool,
    inc: bool,
    multishot: bool,
    silent_tcp: bool,
    silent_unix: bool,
}

/// How long a dropped driver waits for the kernel to let go.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

impl UringDriver {
    /// Makes a ring, tests what works on it (a few ms), and takes its receive memory from `pool`.
    ///
    /// # Errors
    /// Why this process, or this kernel, cannot have the driver; epoll can do the same work.
    pub fn open(
        spec: &UringSpec,
        pool: Pool,
        stats: Arc<CoreStats>,
    ) -> Result<(UringDriver, UringReport), UringError> {
        let (ring, rung) = setup::make_ring(spec)?;
        let (mode, report) = probe::self_test(&ring, rung, spec.disable)?;
        // SAFETY: no memory is involved.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if wake < 0 {
            return Err(UringError::other("eventfd")(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let wake = Arc::new(unsafe { OwnedFd::from_raw_fd(wake) });
        let bufs = BufRing::new(pool, mode.inc);
        // SAFETY: `Kernel` holds the memory; `Drop` unregisters it before freeing it, or leaks both.
        unsafe { bufs.register(&ring.submitter()) }
            .map_err(UringError::other("registering the buffer ring"))?;
        let kernel = Kernel { queue: Queue::new(ring), bufs, messages: Slab::new(), addresses: Slab::new() };
        let driver = UringDriver {
            kernel: ManuallyDrop::new(kernel),
            mode,
            stats,
            accepts: Table::new(),
            recvs: Table::new(),
            sends: Table::new(),
            connects: Table::new(),
            readables: Table::new(),
            writables: Table::new(),
            staged: Vec::new(),
            cancels: Vec::new(),
            refused: Vec::new(),
            silent: Vec::new(),
            silent_settled: 0,
            silent_left: false,
            closing: VecDeque::new(),
            lanes: Vec::new(),
            in_flight: 0,
            wake,
            wake_armed: false,
            lazy_sends: false,
        };
        Ok((driver, report))
    }

    /// Whether the self-test of the descriptor's family stands for it: not for MPTCP, raw and other sockets.
    fn may_be_quiet(&self, fd: RawFd) -> bool {
        if !self.mode.silent_tcp && !self.mode.silent_unix {
            return false;
        }
        match (socket_option(fd, libc::SO_PROTOCOL), socket_option(fd, libc::SO_TYPE)) {
            (Some(libc::IPPROTO_TCP), _) => self.mode.silent_tcp,
            (Some(0), Some(libc::SOCK_STREAM)) => {
                self.mode.silent_unix && socket_option(fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)
            }
            _ => false,
        }
    }

    /// A send of several segments, of a socket that is not quiet, or one that finds a list full.
    #[inline(never)]
    fn send_otherwise(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        let lane = self.lanes.get_mut(token.index() as usize);
        if let (SendMode::Try, Some(lane @ Lane { quiet: true, .. })) = (mode, lane) {
            lane.silent_at = self.silent_settled.wrapping_add(self.silent.len() as u32);
            return self.send_silently(fd, token, queue);
        }
        self.send_aloud(fd, token, queue, mode)
    }

    /// A send that makes a completion.
    fn send_aloud(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        let (what, taken) = gather(queue, &mut self.kernel.messages);
        let style = if mode == SendMode::Wait { SendStyle::Wait } else { SendStyle::Try };
        let op = SendOp { fd, cancel: Cancel::No, style, taken: taken as u32, what };
        self.stage_send(token, &op);
        self.sends.insert(token, op);
        taken
    }

    /// Cancels everything and reaps until nothing is in flight, for at most [`DROP_DEADLINE`].
    fn drain(&mut self) {
        let deadline = Instant::now() + DROP_DEADLINE;
        let (mut ended, mut asked) = (Vec::<Completion>::new(), 0);
        self.cancel_all();
        while self.in_flight > 0 && Instant::now() < deadline {
            // Once more only when the kernel has taken the last: while it takes nothing they would pile up.
            if asked <= self.kernel.queue.consumed() {
                // SAFETY: a cancel names no memory.
                asked = unsafe { self.kernel.queue.push(sqe::cancel_everything(), &self.stats) };
            }
            let sync = CancelBuilder::any().all();
            let at_once = Some(Timespec::new());
            // Staged entries first, so that the cancels find them; errors show as operations that do not end.
            let submitted = self.run_turn(Wait::Poll, &mut ended);
            let _ = self.kernel.queue.ring.submitter().register_sync_cancel(at_once, sync);
            let reaped = self.run_turn(Wait::AtMost(Duration::from_millis(5)), &mut ended);
            // Dropping what was received, and closing what was accepted, is all there is to do with it.
            ended.clear();
            if submitted.is_err() && reaped.is_err() {
                return;
            }
        }
        // Closes that were staged and never taken.
        let _ = self.run_turn(Wait::Poll, &mut ended);
    }

    fn cancel_all(&mut self) {
        self.accepts.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
        self.recvs.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
        self.sends.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
        self.connects.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
        self.readables.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
        self.writables.iter_mut().for_each(|(_, op)| op.cancel = Cancel::ByCaller);
    }
}

impl Driver for UringDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }

    fn attach(&mut self, fd: RawFd, index: u32) -> io::Result<()> {
        let at = index as usize;
        if at >= self.lanes.len() {
            self.lanes.resize(at + 1, Lane::default());
            self.recvs.grow(at + 1);
        }
        self.lanes[at].quiet = self.may_be_quiet(fd);
        Ok(())
    }

    fn accept(&mut self, fd: RawFd, token: Token, burst: Burst) {
        self.in_flight += 1;
        self.accepts.insert(token, AcceptOp { fd, burst, cancel: Cancel::No });
        self.submit_accept(token, fd, burst);
    }

    fn recv(&mut self, fd: RawFd, token: Token, credit: u32) {
        assert!(credit > 0, "a receive needs credit");
        self.in_flight += 1;
        self.recvs.insert(
            token,
            RecvOp { fd, cancel: Cancel::No, left: credit, ends_at: 0, armed: false, held: None },
        );
        if self.kernel.bufs.has_buffers() {
            self.arm_recv(token);
        } else {
            self.staged.push(token);
        }
    }

    unsafe fn send(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        // The usual case calls nothing, so that it saves no registers: whatever else there is lies in `send_otherwise`.
        self.in_flight += 1;
        let lane = self.lanes.get_mut(token.index() as usize);
        let (SendMode::Try, Some(lane @ Lane { quiet: true, .. }), Some(only)) =
            (mode, lane, queue.only_slice())
        else {
            return self.send_otherwise(fd, token, queue, mode);
        };
        if only.len() > MAX_SEGMENT_BYTES || self.silent.len() == self.silent.capacity() {
            return self.send_otherwise(fd, token, queue, mode);
        }
        lane.silent_at = self.silent_settled.wrapping_add(self.silent.len() as u32);
        let (seq, taken) = (self.kernel.queue.next_place(), only.len() as u32);
        self.silent.push(Silent { seq, token, taken, message: None, ended: false });
        let entry = sqe::send(fd, only.as_ptr(), taken, SendStyle::Silent).user_data(token.to_bits());
        // SAFETY: the caller keeps the segment until the send is settled.
        if !unsafe { self.kernel.queue.try_push(&entry) } {
            self.silent.pop();
            return self.send_otherwise(fd, token, queue, mode);
        }
        only.len()
    }

    fn connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr) {
        self.in_flight += 1;
        let Some(address) = Address::new(addr) else {
            // The errno that Linux has for a bad address length.
            self.refused.push((token, Errno(libc::EINVAL)));
            return;
        };
        let len = address.len;
        let at = self.kernel.addresses.take();
        let slot = self.kernel.addresses.at(at);
        // SAFETY: `at` was just taken, so nobody uses the slot; its page does not move.
        let storage = unsafe {
            slot.write(address);
            (&raw const (*slot).storage).cast::<libc::sockaddr>()
        };
        self.connects.insert(token, ConnectOp { cancel: Cancel::No, addr: at });
        let entry = sqe::connect(fd, storage, len).user_data(token.to_bits());
        // SAFETY: the operation owns the slot until its terminal completion, cancelled or not; `Drop` leaks the pages
        // unless every connect has ended.
        unsafe { self.kernel.queue.push(entry, &self.stats) };
    }

    fn watch(&mut self, fd: RawFd, token: Token) {
        self.in_flight += 1;
        let (table, events) = match token.kind() {
            Some(OpKind::Writable) => (&mut self.writables, libc::POLLOUT),
            _ => (&mut self.readables, libc::POLLIN | libc::POLLRDHUP),
        };
        table.insert(token, WatchOp { cancel: Cancel::No });
        // SAFETY: a poll names no memory.
        unsafe { self.kernel.queue.push(sqe::poll(fd, events).user_data(token.to_bits()), &self.stats) };
    }

    fn cancel(&mut self, _fd: RawFd, token: Token) {
        if let Some(cancel) = self.cancel_of(token) {
            *cancel = Cancel::ByCaller;
            self.cancels.push(token);
        }
    }

    fn close(&mut self, fd: OwnedFd, index: u32) {
        if let Some(lane) = self.lanes.get_mut(index as usize) {
            lane.quiet = false;
        }
        // SAFETY: a close names no memory.
        let seq = unsafe { self.kernel.queue.push(sqe::close(fd.as_raw_fd()), &self.stats) };
        // The descriptor now belongs to the staged close; `Drop` closes what the kernel never took.
        self.closing.push_back((seq, fd.into_raw_fd()));
    }

    fn turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()> {
        self.run_turn(wait, sink)
    }

    fn set_lazy_sends(&mut self, lazy: bool) {
        self.lazy_sends = lazy;
    }

    fn unpark(&self) -> Unpark {
        let wake = Arc::clone(&self.wake);
        Unpark::new(move || {
            let one = 1_u64.to_ne_bytes();
            // The counter is never read; it would overflow after 2^64 - 2 wakes.
            // SAFETY: the descriptor is open while `wake` lives, and eight bytes are read.
            unsafe { libc::write(wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        })
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        self.drain();
        let consumed = self.kernel.queue.consumed();
        for (seq, fd) in self.closing.drain(..) {
            if seq > consumed {
                // SAFETY: the staged close never reached the kernel, so the descriptor is still ours.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        let unregistered = self.kernel.queue.ring.submitter().unregister_buf_ring(GROUP);
        if self.in_flight == 0 && unregistered.is_ok() {
            // SAFETY: the kernel has no operation left and does not know the buffer ring any more. `kernel` is not
            // used again.
            unsafe { ManuallyDrop::drop(&mut self.kernel) };
            return;
        }
        // The kernel may still write: ring, buffers, messages and addresses stay where they are for ever.
        self.stats.leaked.add(self.in_flight.max(1) as u64);
        tracing::warn!(
            in_flight = self.in_flight,
            "io_uring: leaked a ring whose operations did not end in time"
        );
    }
}

fn socket_option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut len) };
    (result == 0).then_some(value)
}
