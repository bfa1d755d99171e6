//! The driver on epoll: edge-triggered, try first.
//!
//! ```text
//! attach    one EPOLL_CTL_ADD, never modified; an edge sets bits of the slot: readable, writable, hangup
//! send      Try: sendmsg at once, its result waits for the turn    Wait: again at each edge until all is sent
//! receive   armed --readable--> recv until EAGAIN | credit used | 16 rounds (then behind the others, next turn)
//! accept    armed --readable--> accept4 until EAGAIN | 64 connections (then behind the others, next turn)
//! connect   at once; EINPROGRESS --edge--> SO_ERROR
//! watch     armed --the bit of its side--> ready
//! ```
//!
//! A bit stays set until the kernel says EAGAIN, so a receive that paused for credit goes on without a new edge. Nothing
//! in the kernel holds memory of an operation between two calls: a cancel only takes the operation out of its slot, and
//! dropping the driver only forgets them.

mod slot;
mod sys;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::{
    ConnectAddr, Driver, DriverKind, MAX_SEND_BYTES, MAX_SEND_SEGMENTS, Reports, Sink, Unpark, Wait,
    concerns_one_connection,
};
use crate::buf::{ChunkRef, Pool, TxQueue};
use crate::op::{Burst, Completion, Errno, OpKind, Outcome, SendMode, Token};
use crate::socket::sock_addr;
use crate::stats::CoreStats;

use slot::{Accept, Connect, Recv, Send, Slot, Waiting};

/// Bytes that one recv(2) asks for at most.
const MAX_READ: usize = 64 * 1024;
/// Room below which a chunk is given up for a fresh one.
const MIN_ROOM: usize = 4 * 1024;
/// Reads, or writes, of one socket before the others get their turn.
const MAX_ROUNDS: usize = 16;
/// Connections taken from one listener before the others get their turn.
const MAX_ACCEPTS: usize = 64;
/// Edges fetched by one epoll_wait(2).
const MAX_EVENTS: usize = 256;
/// Emptied lists of iovecs that are kept for the next send that waits.
const MAX_SPARE: usize = 64;
/// The epoll data of the wake-up; no slot has this index, descriptors run out before.
const WAKE: u64 = u64::MAX;

/// A driver over epoll(7). Costs two descriptors and, until the first receive, no pool memory.
pub struct EpollDriver {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    pool: Pool,
    stats: Arc<CoreStats>,
    slots: Vec<Slot>,
    /// Slots that can make progress without a new edge; each at most once (`Slot::queued`).
    ready: VecDeque<u32>,
    /// Where received bytes go: views of it are out, the rest is free.
    chunk: Option<ChunkRef>,
    events: Vec<libc::epoll_event>,
    spare: Vec<Vec<libc::iovec>>,
    in_flight: usize,
    /// Whether epoll_pwait2(2) (Linux 5.11, nanoseconds) works here.
    precise: bool,
    /// Whether the last turn returned what it had without looking for edges.
    skipped: bool,
}

impl EpollDriver {
    /// Makes the epoll instance and the eventfd that wakes it.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn open(pool: Pool, stats: Arc<CoreStats>) -> io::Result<Self> {
        let epoll = sys::create()?;
        let wake = Arc::new(sys::eventfd()?);
        sys::add(epoll.as_fd(), wake.as_raw_fd(), libc::EPOLLIN as u32 | libc::EPOLLET as u32, WAKE)?;
        Ok(EpollDriver {
            epoll,
            wake,
            pool,
            stats,
            slots: Vec::new(),
            ready: VecDeque::new(),
            chunk: None,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS],
            spare: Vec::new(),
            in_flight: 0,
            precise: true,
            skipped: false,
        })
    }

    /// The slot for a new operation, which is counted and looked at in the next turn.
    fn begin(&mut self, fd: RawFd, token: Token, kind: OpKind) -> &mut Slot {
        debug_assert_eq!(token.kind(), Some(kind), "a token of another kind");
        let index = token.index();
        self.in_flight += 1;
        self.push_ready(index);
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.fd, fd, "an operation on a descriptor that was not attached");
        slot
    }

    fn push_ready(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.queued {
            slot.queued = true;
            self.ready.push_back(index);
        }
    }

    fn end(&mut self, token: Token, outcome: Outcome, out: &mut Reports<'_>) {
        debug_assert!(self.in_flight > 0);
        self.in_flight -= 1;
        out.push(Completion::last(token, outcome));
    }

    /// Gives every slot that is ready now its turn; those that are not done go behind.
    fn run_ready(&mut self, out: &mut Reports<'_>) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            self.slots[index as usize].queued = false;
            self.run_connect(index, out);
            self.run_accept(index, out);
            self.run_send(index, out);
            self.run_recv(index, out);
            while let Some((token, outcome)) = self.slots[index as usize].take_watch() {
                self.end(token, outcome, out);
            }
        }
    }

    fn run_connect(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        let Some(connect) = &mut slot.connect else { return };
        let token = connect.token;
        let outcome = match connect.result.take() {
            Some(Ok(())) => Outcome::Connected,
            Some(Err(errno)) => Outcome::Failed(errno),
            None if connect.canceled => Outcome::Canceled,
            None if !slot.writable => return,
            None => {
                self.stats.syscalls.inc();
                match sys::take_error(slot.fd) {
                    Ok(()) => Outcome::Connected,
                    Err(errno) => Outcome::Failed(errno),
                }
            }
        };
        slot.connect = None;
        self.end(token, outcome, out);
    }

    fn run_accept(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        let Some(Accept { token, burst, canceled }) = slot.accept else { return };
        if canceled {
            slot.accept = None;
            return self.end(token, Outcome::Canceled, out);
        }
        for _ in 0..MAX_ACCEPTS {
            if !slot.readable {
                return;
            }
            self.stats.syscalls.inc();
            match sys::accept(slot.fd) {
                Ok(fd) if burst == Burst::One => {
                    slot.accept = None;
                    return self.end(token, Outcome::Accepted(fd), out);
                }
                Ok(fd) => out.push(Completion::more(token, Outcome::Accepted(fd))),
                Err(Errno(libc::EAGAIN)) => slot.readable = false,
                Err(errno) if concerns_one_connection(errno) => {}
                Err(errno) => {
                    if matches!(errno, Errno(libc::EMFILE | libc::ENFILE)) {
                        self.stats.accept_out_of_fds.inc();
                    }
                    slot.accept = None;
                    return self.end(token, Outcome::Failed(errno), out);
                }
            }
        }
        self.push_ready(index);
    }

    fn run_send(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        let (token, outcome) = match slot.send.take() {
            None => return,
            Some(Send::Ended { token, outcome }) => (token, outcome),
            Some(Send::Waiting(mut waiting)) => {
                let outcome = if waiting.canceled {
                    Some(waiting.canceled_outcome())
                } else {
                    continue_send(slot, &mut waiting, &self.stats)
                };
                let Some(outcome) = outcome else {
                    let again = slot.writable;
                    slot.send = Some(Send::Waiting(waiting));
                    if again {
                        self.push_ready(index);
                    }
                    return;
                };
                let token = waiting.token;
                if self.spare.len() < MAX_SPARE {
                    waiting.iovecs.clear();
                    self.spare.push(waiting.iovecs);
                }
                (token, outcome)
            }
        };
        self.end(token, outcome, out);
    }

    fn run_recv(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        let Some(Recv { token, mut credit, canceled }) = slot.recv else { return };
        if canceled {
            slot.recv = None;
            return self.end(token, Outcome::Canceled, out);
        }
        for _ in 0..MAX_ROUNDS {
            if !slot.readable {
                slot.recv = Some(Recv { token, credit, canceled });
                return;
            }
            let Some(chunk) = roomy(&mut self.chunk, &self.pool, credit) else {
                self.stats.pool_starved.inc();
                slot.recv = None;
                return self.end(token, Outcome::Starved, out);
            };
            let asked = chunk.room().min(MAX_READ).min(credit as usize);
            self.stats.syscalls.inc();
            // SAFETY: `asked` bytes from there on are inside the chunk and in no view; this driver holds the only
            // reference that writes there, and the kernel writes during the call only.
            match chunk.receive(asked, |at| unsafe { sys::recv(slot.fd, at, asked) }) {
                Ok(0) => {
                    slot.recv = None;
                    return self.end(token, Outcome::Eof, out);
                }
                Ok(count) => {
                    // SAFETY: the kernel has written `count` bytes at `write_ptr` and is done with them.
                    let view = unsafe { chunk.view(count as u32) };
                    slot.after_read(count < asked);
                    credit -= count as u32;
                    if credit == 0 {
                        slot.recv = None;
                        return self.end(token, Outcome::Received(view), out);
                    }
                    out.received(token, view, true);
                }
                Err(Errno(libc::EAGAIN)) => slot.readable = false,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    slot.recv = None;
                    return self.end(token, Outcome::Failed(errno), out);
                }
            }
        }
        slot.recv = Some(Recv { token, credit, canceled });
        if slot.readable {
            self.push_ready(index);
        }
    }

    fn wait_for_edges(&mut self, wait: Wait) -> io::Result<usize> {
        self.stats.syscalls.inc();
        let epoll = self.epoll.as_fd();
        let fetched = match wait {
            Wait::AtMost(timeout) if self.precise && !timeout.is_zero() => {
                match sys::wait_precise(epoll, &mut self.events, timeout) {
                    // Older than 5.11, or a seccomp filter that does not know it.
                    Err(Errno(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {
                        self.precise = false;
                        return self.wait_for_edges(wait);
                    }
                    fetched => fetched,
                }
            }
            _ => sys::wait(epoll, &mut self.events, millis(wait)),
        };
        match fetched {
            Ok(count) => Ok(count),
            Err(Errno(libc::EINTR)) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_edges(&mut self, count: usize) {
        for at in 0..count {
            let libc::epoll_event { events, u64: data } = self.events[at];
            let (index, attached) = (data as u32, (data >> 32) as u32);
            // The eventfd is not drained: each write to it is an edge.
            if data == WAKE {
                continue;
            }
            // A duplicate of a closed descriptor keeps its registration: its edges carry the old number.
            let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.attached == attached)
            else {
                continue;
            };
            slot.take_edge(events);
            if slot.can_go_on() {
                self.push_ready(index);
            }
        }
    }
}

impl Driver for EpollDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn attach(&mut self, fd: RawFd, index: u32) -> io::Result<()> {
        let at = index as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, Slot::default);
        }
        let slot = &mut self.slots[at];
        debug_assert!(!slot.busy(), "attach to a slot with an operation in flight");
        slot.reset(fd);
        slot.trust_short_reads = sys::is_tcp(fd);
        let edges = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;
        let data = u64::from(slot.attached) << 32 | u64::from(index);
        self.stats.syscalls.add(2);
        sys::add(self.epoll.as_fd(), fd, edges as u32, data)
    }

    fn accept(&mut self, fd: RawFd, token: Token, burst: Burst) {
        let slot = self.begin(fd, token, OpKind::Accept);
        debug_assert!(slot.accept.is_none());
        slot.accept = Some(Accept { token, burst, canceled: false });
    }

    fn recv(&mut self, fd: RawFd, token: Token, credit: u32) {
        debug_assert!(credit > 0, "a receive without credit");
        let slot = self.begin(fd, token, OpKind::Recv);
        debug_assert!(slot.recv.is_none());
        slot.recv = Some(Recv { token, credit: credit.max(1), canceled: false });
    }

    unsafe fn send(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        debug_assert!(!queue.is_empty(), "a send of nothing");
        let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SEND_SEGMENTS];
        let (count, taken) = gather(queue, &mut iovecs);
        let mut spare =
            if mode == SendMode::Wait { self.spare.pop().unwrap_or_default() } else { Vec::new() };
        let stats = self.stats.clone();
        let slot = self.begin(fd, token, OpKind::Send);
        debug_assert!(slot.send.is_none());
        slot.send = Some(match mode {
            SendMode::Try => {
                let outcome = try_send(slot, &mut iovecs[..count], taken, &stats);
                Send::Ended { token, outcome }
            }
            SendMode::Wait => {
                spare.extend_from_slice(&iovecs[..count]);
                Send::Waiting(Waiting { token, iovecs: spare, at: 0, done: 0, taken, canceled: false })
            }
        });
        taken
    }

    fn connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr) {
        let result = match sock_addr(addr) {
            Ok(addr) => sys::connect(fd, &addr),
            // A path that does not fit: the errno that Linux has for a bad address length.
            Err(_) => Err(Errno(libc::EINVAL)),
        };
        self.stats.syscalls.inc();
        let slot = self.begin(fd, token, OpKind::Connect);
        debug_assert!(slot.connect.is_none());
        let result = match result {
            // EINTR: connect(2) goes on in the background.
            Err(Errno(libc::EINPROGRESS | libc::EINTR)) => {
                // An unconnected TCP socket looks hung up: what was seen before says nothing about this connection.
                slot.forget_edges();
                None
            }
            result => Some(result),
        };
        slot.connect = Some(Connect { token, result, canceled: false });
    }

    fn watch(&mut self, fd: RawFd, token: Token) {
        debug_assert!(matches!(token.kind(), Some(OpKind::Readable | OpKind::Writable)));
        self.in_flight += 1;
        let index = token.index();
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.fd, fd, "a watch on a descriptor that was not attached");
        slot.watch(token);
        if slot.can_go_on() {
            self.push_ready(index);
        }
    }

    fn cancel(&mut self, _fd: RawFd, token: Token) {
        let Some(slot) = self.slots.get_mut(token.index() as usize) else { return };
        if slot.cancel(token) {
            self.push_ready(token.index());
        }
    }

    fn close(&mut self, fd: OwnedFd, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            debug_assert!(!slot.busy(), "close with an operation in flight");
            debug_assert_eq!(slot.fd, fd.as_raw_fd());
            slot.reset(-1);
        }
        self.stats.syscalls.inc();
        drop(fd);
    }

    fn turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()> {
        let out = &mut Reports::new(sink);
        self.run_ready(out);
        // What is there goes up at once: looking for edges first would double the calls of a socket that sends and
        // receives in turns. Every second turn looks, so a busy socket starves nobody.
        self.skipped = out.count > 0 && !self.skipped;
        if !self.skipped {
            let wait = if out.count > 0 || !self.ready.is_empty() { Wait::Poll } else { wait };
            let count = self.wait_for_edges(wait)?;
            self.take_edges(count);
            self.run_ready(out);
        }
        self.stats.completions.add(out.count as u64);
        self.stats.ops_in_flight.set(self.in_flight as u64);
        Ok(())
    }

    fn unpark(&self) -> Unpark {
        let wake = self.wake.clone();
        Unpark::new(move || sys::signal(&wake))
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// A chunk with room for a sensible read, or `None` when the pool is at its cap.
fn roomy<'a>(current: &'a mut Option<ChunkRef>, pool: &Pool, credit: u32) -> Option<&'a ChunkRef> {
    let enough = MIN_ROOM.min(credit as usize);
    if current.as_ref().is_none_or(|chunk| chunk.room() < enough) {
        // Let go first: if all its views are gone, this very chunk comes back empty.
        *current = None;
        *current = pool.take();
    }
    current.as_ref()
}

/// Points `iovecs` at the front of `queue`; returns how many and how many bytes.
fn gather(queue: &TxQueue, iovecs: &mut [libc::iovec; MAX_SEND_SEGMENTS]) -> (usize, usize) {
    let (mut count, mut taken) = (0, 0);
    for (iovec, bytes) in iovecs.iter_mut().zip(queue.slices()) {
        if count > 0 && taken + bytes.len() > MAX_SEND_BYTES {
            break;
        }
        *iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        taken += bytes.len();
        count += 1;
    }
    (count, taken)
}

fn try_send(slot: &mut Slot, iovecs: &mut [libc::iovec], taken: usize, stats: &CoreStats) -> Outcome {
    while slot.writable {
        stats.syscalls.inc();
        // SAFETY: the iovecs point at segments that the caller of `send` keeps until the terminal completion; the
        // kernel only reads them, and only during the call.
        match unsafe { sys::send(slot.fd, iovecs) } {
            Ok(count) if count == taken => return Outcome::Sent(count),
            Ok(count) => {
                stats.stalled_sends.inc();
                return Outcome::Stalled(count);
            }
            Err(Errno(libc::EAGAIN)) => slot.writable = false,
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Outcome::Failed(errno),
        }
    }
    stats.stalled_sends.inc();
    Outcome::Stalled(0)
}

/// Sends on until the socket is full, all is sent, or the others are due (`None` but still writable).
fn continue_send(slot: &mut Slot, waiting: &mut Waiting, stats: &CoreStats) -> Option<Outcome> {
    for _ in 0..MAX_ROUNDS {
        if !slot.writable {
            return None;
        }
        stats.syscalls.inc();
        // SAFETY: as in `try_send`: this operation has not ended, so its segments are alive and unchanged.
        match unsafe { sys::send(slot.fd, &mut waiting.iovecs[waiting.at..]) } {
            Ok(count) => {
                waiting.advance(count);
                if waiting.done == waiting.taken {
                    return Some(Outcome::Sent(waiting.taken));
                }
            }
            Err(Errno(libc::EAGAIN)) => slot.writable = false,
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Some(Outcome::Failed(errno)),
        }
    }
    None
}

/// Milliseconds, rounded up: a turn never returns before its timer is due.
fn millis(wait: Wait) -> i32 {
    match wait {
        Wait::Poll => 0,
        Wait::AtMost(timeout) => i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
        Wait::Forever => -1,
    }
}
