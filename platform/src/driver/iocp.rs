//! The driver on a completion port.
//!
//! ```text
//! attach    the socket is tied to the core's port, for ever
//! send      Try: WSASend that does not wait    Wait: an overlapped one of all that was taken --packet--> ended
//! receive   armed --readable--> WSARecv until nothing is left | credit used | 16 rounds (then behind the others, next turn)
//!           nothing there: an overlapped WSARecv of no bytes --packet--> readable
//! accept    armed: up to 16 AcceptEx, each with a socket of its own --packet--> reported, and posted anew
//! connect   ConnectEx --packet--> connected
//! watch     readable: as receive    writable: looked at again after a millisecond
//! ```
//!
//! A call that may pend names a block ([`block`]), which the kernel owns until the packet of the call, cancelled or not. A
//! slot knows its calls before they are made. An idle socket has a receive of no bytes pending and no memory of the pool; that
//! call is nobody's operation, so a cancelled receive ends at once and loses nothing. Dropping the driver cancels all calls
//! and takes their packets; blocks whose packets do not come in time stay for ever, with what they name.

mod accept;
mod block;
mod slot;
mod sys;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, Type};
use windows_sys::Win32::Networking::WinSock::WSABUF;
use windows_sys::Win32::System::IO::OVERLAPPED_ENTRY;
use windows_sys::Win32::System::Threading::INFINITE;

use super::{
    ConnectAddr, Driver, DriverKind, MAX_SEND_BYTES, MAX_SEND_SEGMENTS, Reports, Sink, Unpark, Wait,
};
use crate::buf::{ChunkRef, Pool, TxQueue};
use crate::errno;
use crate::fd::{AsRawFd, BorrowedFd, NO_FD, OwnedFd, RawFd};
use crate::op::{Burst, Completion, Errno, OpKind, Outcome, SendMode, Token};
use crate::socket::sock_addr;
use crate::stats::CoreStats;

use block::{Blocks, Owner};
use slot::{Call, Connect, Recv, Send, Slot, Watch, sent};
use sys::{Port, Started};

pub(super) use sys::all_are_ifs as may_skip_packets;

/// Bytes that one receive asks for at most.
const MAX_READ: usize = 64 * 1024;
/// Room below which a chunk is given up for a fresh one.
const MIN_ROOM: usize = 4 * 1024;
/// Reads of one socket before the others get their turn.
const MAX_ROUNDS: usize = 16;
/// Packets fetched by one call.
const MAX_PACKETS: usize = 256;
/// What the kernel writes and nobody reads: addresses of accepts, and datagrams that are only waited for.
const SCRATCH_BYTES: usize = 64 * 1024;
/// How long a watch for room waits before the next look.
const GLANCE: Duration = Duration::from_millis(1);
/// How long a drop waits for the packets of what it cancelled.
const PATIENCE: Duration = Duration::from_secs(2);

/// A driver over a completion port. Costs a handle and, until the first receive, no pool memory.
pub struct IocpDriver {
    port: Arc<Port>,
    pool: Pool,
    stats: Arc<CoreStats>,
    slots: Vec<Slot>,
    blocks: Blocks,
    /// Slots that can make progress without a packet; each at most once (`Slot::queued`).
    ready: VecDeque<u32>,
    /// Where received bytes go: views of it are out, the rest is free.
    chunk: Option<ChunkRef>,
    packets: Box<[OVERLAPPED_ENTRY; MAX_PACKETS]>,
    /// INVARIANT: from `Box::leak`, freed in `drop` unless something pends.
    scratch: NonNull<[u8; SCRATCH_BYTES]>,
    in_flight: usize,
    /// Slots with a watch for room.
    writers: Vec<u32>,
    /// Whether calls that end at once may do without a packet.
    may_skip: bool,
    /// Whether the last turn returned what it had without looking for packets.
    skipped: bool,
}

impl IocpDriver {
    /// Makes the port.
    ///
    /// # Errors
    /// Out of handles or memory.
    pub fn open(pool: Pool, stats: Arc<CoreStats>) -> io::Result<Self> {
        let mut driver = Self::open_with_packets(pool, stats)?;
        driver.may_skip = sys::all_are_ifs();
        Ok(driver)
    }

    /// As [`IocpDriver::open`], with a packet for every call: as it has to be beside a provider of sockets that are no handles
    /// of the system.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_packets(pool: Pool, stats: Arc<CoreStats>) -> io::Result<Self> {
        let empty = OVERLAPPED_ENTRY {
            lpCompletionKey: 0,
            lpOverlapped: std::ptr::null_mut(),
            Internal: 0,
            dwNumberOfBytesTransferred: 0,
        };
        Ok(IocpDriver {
            port: Arc::new(Port::create()?),
            pool,
            stats,
            slots: Vec::new(),
            blocks: Blocks::default(),
            ready: VecDeque::new(),
            chunk: None,
            packets: Box::new([empty; MAX_PACKETS]),
            scratch: NonNull::from(Box::leak(Box::new([0; SCRATCH_BYTES]))),
            in_flight: 0,
            writers: Vec::new(),
            may_skip: false,
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
        debug_assert_eq!(slot.fd, fd, "an operation on a socket that was not attached");
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
            self.run_watches(index, out);
        }
    }

    fn run_connect(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        match slot.connect.take() {
            Some(Connect { token, state: Call::Ended(outcome), .. }) => self.end(token, outcome, out),
            pending => slot.connect = pending,
        }
    }

    fn run_send(&mut self, index: u32, out: &mut Reports<'_>) {
        let slot = &mut self.slots[index as usize];
        match slot.send.take() {
            Some(Send { token, state: Call::Ended(Outcome::Sent(count)), .. }) => {
                self.in_flight -= 1;
                out.sent(token, count);
            }
            Some(Send { token, state: Call::Ended(outcome), .. }) => self.end(token, outcome, out),
            pending => slot.send = pending,
        }
    }

    fn run_recv(&mut self, index: u32, out: &mut Reports<'_>) {
        let Some(Recv { token, mut credit, canceled }) = self.slots[index as usize].recv else { return };
        let outcome = if canceled { Some(Outcome::Canceled) } else { self.receive(index, &mut credit, out) };
        let slot = &mut self.slots[index as usize];
        match outcome {
            Some(outcome) => {
                slot.recv = None;
                self.end(token, outcome, out);
            }
            None => slot.recv = Some(Recv { token, credit, canceled }),
        }
    }

    /// Reads while there is something, credit, and patience of the others; what that ended with, if it ended.
    fn receive(&mut self, index: u32, credit: &mut u32, out: &mut Reports<'_>) -> Option<Outcome> {
        for _ in 0..MAX_ROUNDS {
            let slot = &mut self.slots[index as usize];
            if !slot.readable {
                match self.wait_readable(index) {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(errno) => return Some(Outcome::Failed(errno)),
                }
            }
            let Some(chunk) = roomy(&mut self.chunk, &self.pool, *credit) else {
                self.stats.pool_starved.inc();
                return Some(Outcome::Starved);
            };
            let asked = chunk.room().min(MAX_READ).min(*credit as usize);
            self.stats.syscalls.inc();
            let fd = slot.fd;
            // SAFETY: `asked` bytes from there on are inside the chunk and in no view; this driver holds the only
            // reference that writes there, and the kernel writes during the call only.
            match chunk.receive(asked, |at| unsafe { sys::recv(fd, at, asked) }) {
                Ok(0) => return Some(Outcome::Eof),
                Ok(count) => {
                    // SAFETY: the kernel has written `count` bytes at `write_ptr` and is done with them.
                    let view = unsafe { chunk.view(count as u32) };
                    // What is left after a short read, an end among it, the wait for more finds at once.
                    slot.readable = count == asked;
                    *credit -= count as u32;
                    if *credit == 0 {
                        return Some(Outcome::Received(view));
                    }
                    let token = slot.recv.as_ref()?.token;
                    out.received(token, view, true);
                }
                Err(Errno(errno::EAGAIN)) => slot.readable = false,
                Err(errno) => return Some(Outcome::Failed(errno)),
            }
        }
        self.push_ready(index);
        None
    }

    /// Waits for something to read, unless that is done already; true when there is something now.
    fn wait_readable(&mut self, index: u32) -> Result<bool, Errno> {
        let slot = &mut self.slots[index as usize];
        if slot.waiting.is_some() {
            return Ok(false);
        }
        let (fd, skips) = (slot.fd, slot.skips);
        // A look at a datagram without room for it would fail, with or without a packet.
        let peek = slot.is_datagram.then(|| (self.scratch.cast::<u8>(), SCRATCH_BYTES));
        let block = self.blocks.take(Owner::Slot(index, OpKind::Recv));
        slot.waiting = Some(block);
        self.stats.syscalls.inc();
        // SAFETY: the block and the scratch live until the packet or for ever; nobody reads the scratch.
        let started = unsafe { sys::wait_readable(fd, peek, self.blocks.overlapped(block)) };
        match started {
            Ok(Started::Pending) => Ok(false),
            Ok(Started::Done(_)) if !skips => Ok(false),
            Ok(Started::Done(_)) => {
                slot.waiting = None;
                slot.readable = true;
                self.blocks.put_back(block);
                Ok(true)
            }
            Err(errno) => {
                slot.waiting = None;
                self.blocks.put_back(block);
                Err(errno)
            }
        }
    }

    fn run_watches(&mut self, index: u32, out: &mut Reports<'_>) {
        if let Some(Watch { token, canceled }) = self.slots[index as usize].watch_read {
            let outcome = match canceled {
                true => Some(Outcome::Canceled),
                false if self.slots[index as usize].readable => Some(Outcome::Ready),
                // The error is told by the next call on the socket.
                false => match self.wait_readable(index) {
                    Ok(true) | Err(_) => Some(Outcome::Ready),
                    Ok(false) => None,
                },
            };
            if let Some(outcome) = outcome {
                self.slots[index as usize].watch_read = None;
                self.end(token, outcome, out);
            }
        }
        if let Some(watch) = self.slots[index as usize].watch_write.take_if(|watch| watch.canceled) {
            self.writers.retain(|writer| *writer != index);
            self.end(watch.token, Outcome::Canceled, out);
        }
    }

    /// Those that wait for room look again.
    fn run_writers(&mut self, out: &mut Reports<'_>) {
        for index in std::mem::take(&mut self.writers) {
            if let Some(watch) = self.slots[index as usize].watch_write.take() {
                self.end(watch.token, Outcome::Ready, out);
            }
        }
    }

    fn take_packets(&mut self, wait: Wait) -> io::Result<usize> {
        self.stats.syscalls.inc();
        let wait = match wait {
            Wait::AtMost(timeout) if !self.writers.is_empty() => Wait::AtMost(timeout.min(GLANCE)),
            Wait::Forever if !self.writers.is_empty() => Wait::AtMost(GLANCE),
            wait => wait,
        };
        self.port.take(&mut self.packets[..], millis(wait))
    }

    fn take_packet(&mut self, at: usize) {
        let packet = self.packets[at];
        let Some(overlapped) = self.port.operation(&packet) else { return };
        // SAFETY: only calls of this driver post packets with an OVERLAPPED to its port.
        let block = unsafe { self.blocks.named(overlapped) };
        let Owner::Slot(index, kind) = self.blocks.owner(block) else {
            return self.blocks.put_back(block);
        };
        let fd = self.slots[index as usize].fd;
        match kind {
            OpKind::Accept => self.accept_ended(index, block),
            OpKind::Connect => self.connect_ended(index, fd, block),
            OpKind::Send => self.send_ended(index, fd, block),
            // What it says, the next read says too.
            OpKind::Recv | OpKind::Readable | OpKind::Writable => {
                let slot = &mut self.slots[index as usize];
                debug_assert_eq!(slot.waiting, Some(block));
                (slot.waiting, slot.readable) = (None, true);
            }
        }
        self.blocks.put_back(block);
        self.push_ready(index);
    }

    /// After the packet, or at once where there is none. The block is still taken.
    fn connect_ended(&mut self, index: u32, fd: RawFd, block: u32) {
        // SAFETY: the call has ended.
        let (_, result) = unsafe { sys::result(fd, self.blocks.overlapped(block)) };
        let Some(connect) = self.slots[index as usize].connect.as_mut() else { return };
        connect.state = Call::Ended(match result.and_then(|()| sys::update_connected(fd)) {
            Ok(()) => Outcome::Connected,
            Err(_) if connect.canceled => Outcome::Canceled,
            Err(errno) => Outcome::Failed(errno),
        });
    }

    /// As [`IocpDriver::connect_ended`].
    fn send_ended(&mut self, index: u32, fd: RawFd, block: u32) {
        // SAFETY: the call has ended.
        let (count, result) = unsafe { sys::result(fd, self.blocks.overlapped(block)) };
        let Some(send) = self.slots[index as usize].send.as_mut() else { return };
        send.state = Call::Ended(sent(count, send.taken, send.canceled, result));
    }

    /// An overlapped send of the whole; what pends is in the slot before the call.
    ///
    /// # Safety
    /// As [`Driver::send`].
    unsafe fn send_waiting(&mut self, fd: RawFd, token: Token, bufs: &[WSABUF], taken: usize) {
        let index = token.index();
        let block = self.blocks.take(Owner::Slot(index, OpKind::Send));
        let slot = &mut self.slots[index as usize];
        slot.send = Some(Send { token, taken, canceled: false, state: Call::Pending(block) });
        self.stats.syscalls.inc();
        // SAFETY: the block lives until the packet or for ever; the bytes do by this function's contract.
        let outcome = match unsafe { sys::send(fd, bufs, self.blocks.overlapped(block)) } {
            Ok(Started::Done(count)) if slot.skips => sent(count, taken, false, Ok(())),
            Ok(Started::Pending | Started::Done(_)) => return,
            Err(errno) => Outcome::Failed(errno),
        };
        slot.send = Some(Send { token, taken, canceled: false, state: Call::Ended(outcome) });
        self.blocks.put_back(block);
    }

    fn start_connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr) -> Result<(), Errno> {
        let errno = |error: io::Error| Errno(error.raw_os_error().unwrap_or(errno::EINVAL));
        let addr = sock_addr(addr).map_err(errno)?;
        // SAFETY: the caller of `connect` keeps the socket open until the terminal completion.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        sys::bind_for(&SockRef::from(&socket), &addr).map_err(errno)?;
        let index = token.index();
        let block = self.blocks.take(Owner::Slot(index, OpKind::Connect));
        let slot = &mut self.slots[index as usize];
        slot.connect = Some(Connect { token, canceled: false, state: Call::Pending(block) });
        let skips = slot.skips;
        self.stats.syscalls.inc();
        // SAFETY: the block lives until the packet or for ever.
        match unsafe { sys::connect(fd, &addr, self.blocks.overlapped(block)) } {
            Ok(Started::Done(_)) if skips => {
                self.connect_ended(index, fd, block);
                self.blocks.put_back(block);
                Ok(())
            }
            Ok(Started::Pending | Started::Done(_)) => Ok(()),
            Err(errno) => {
                self.blocks.put_back(block);
                Err(errno)
            }
        }
    }

    /// Cancels every call, and takes packets until none pends or patience ends.
    fn reap(&mut self) {
        for slot in &self.slots {
            let posted =
                slot.accept.iter().flat_map(|accept| accept.posted.iter().map(|posted| posted.block));
            let pending = |state: &Call| if let Call::Pending(block) = state { Some(*block) } else { None };
            let sending = slot.send.as_ref().and_then(|send| pending(&send.state));
            let connecting = slot.connect.as_ref().and_then(|connect| pending(&connect.state));
            for block in posted.chain(sending).chain(connecting).chain(slot.waiting) {
                sys::cancel(slot.fd, self.blocks.overlapped(block));
            }
        }
        let end = Instant::now() + PATIENCE;
        while self.blocks.pending() > 0 {
            let left = end.saturating_duration_since(Instant::now());
            match self.port.take(&mut self.packets[..], millis(Wait::AtMost(left))) {
                Ok(count) => (0..count).for_each(|at| self.take_packet(at)),
                Err(_) => return,
            }
            if left.is_zero() {
                return;
            }
        }
    }
}

impl Driver for IocpDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Iocp
    }

    fn attach(&mut self, fd: RawFd, index: u32) -> io::Result<()> {
        let at = index as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, Slot::default);
        }
        self.stats.syscalls.add(3);
        // SAFETY: the caller keeps the socket open during the call.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let is_datagram = SockRef::from(&socket).r#type()? != Type::STREAM;
        self.port.associate(fd)?;
        if is_datagram {
            sys::ignore_unreachable_peers(fd);
        }
        let skips = self.may_skip && !is_datagram && sys::skip_packets(fd);
        let slot = &mut self.slots[at];
        debug_assert!(!slot.busy(), "attach to a slot with an operation in flight");
        *slot = Slot { fd, skips, is_datagram, queued: slot.queued, ..Slot::default() };
        Ok(())
    }

    fn accept(&mut self, fd: RawFd, token: Token, burst: Burst) {
        self.begin(fd, token, OpKind::Accept);
        self.start_accept(token, burst);
    }

    fn recv(&mut self, fd: RawFd, token: Token, credit: u32) {
        debug_assert!(credit > 0, "a receive without credit");
        let slot = self.begin(fd, token, OpKind::Recv);
        debug_assert!(slot.recv.is_none());
        slot.recv = Some(Recv { token, credit: credit.max(1), canceled: false });
    }

    unsafe fn send(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        debug_assert!(!queue.is_empty(), "a send of nothing");
        let mut bufs = [WSABUF { len: 0, buf: std::ptr::null_mut() }; MAX_SEND_SEGMENTS];
        let (count, taken) = gather(queue, &mut bufs);
        let slot = self.begin(fd, token, OpKind::Send);
        debug_assert!(slot.send.is_none());
        if mode == SendMode::Wait {
            // SAFETY: by this function's contract.
            unsafe { self.send_waiting(fd, token, &bufs[..count], taken) };
            return taken;
        }
        // SAFETY: the segments are alive by this function's contract; the kernel reads them during the call only.
        let outcome = match unsafe { sys::send(fd, &bufs[..count], std::ptr::null_mut()) } {
            Ok(Started::Done(count)) => sent(count, taken, false, Ok(())),
            // Not without an OVERLAPPED.
            Ok(Started::Pending) | Err(Errno(errno::EAGAIN)) => Outcome::Stalled(0),
            Err(errno) => Outcome::Failed(errno),
        };
        slot.send = Some(Send { token, taken, canceled: false, state: Call::Ended(outcome) });
        if matches!(slot.send, Some(Send { state: Call::Ended(Outcome::Stalled(_)), .. })) {
            self.stats.stalled_sends.inc();
        }
        self.stats.syscalls.inc();
        taken
    }

    fn connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr) {
        let slot = self.begin(fd, token, OpKind::Connect);
        debug_assert!(slot.connect.is_none());
        if let Err(errno) = self.start_connect(fd, token, addr) {
            let state = Call::Ended(Outcome::Failed(errno));
            self.slots[token.index() as usize].connect = Some(Connect { token, canceled: false, state });
        }
    }

    fn watch(&mut self, fd: RawFd, token: Token) {
        let kind = token.kind();
        debug_assert!(matches!(kind, Some(OpKind::Readable | OpKind::Writable)));
        self.in_flight += 1;
        let index = token.index();
        self.push_ready(index);
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.fd, fd, "a watch on a socket that was not attached");
        let watch = Some(Watch { token, canceled: false });
        if kind == Some(OpKind::Writable) {
            debug_assert!(slot.watch_write.is_none());
            slot.watch_write = watch;
            self.writers.push(index);
        } else {
            debug_assert!(slot.watch_read.is_none());
            // Whoever begins to wait has just been told that there is nothing.
            (slot.watch_read, slot.readable) = (watch, false);
        }
    }

    fn cancel(&mut self, _fd: RawFd, token: Token) {
        let Some(slot) = self.slots.get_mut(token.index() as usize) else { return };
        let (fd, blocks, stats) = (slot.fd, &self.blocks, &self.stats);
        let canceled = slot.cancel(token, |block| {
            stats.syscalls.inc();
            sys::cancel(fd, blocks.overlapped(block));
        });
        if canceled {
            self.push_ready(token.index());
        }
    }

    fn close(&mut self, fd: OwnedFd, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            debug_assert!(!slot.busy(), "close with an operation in flight");
            debug_assert_eq!(slot.fd, fd.as_raw_fd());
            if let Some(block) = slot.waiting.take() {
                // A duplicate would keep it pending.
                sys::cancel(slot.fd, self.blocks.overlapped(block));
                self.blocks.disown(block);
            }
            slot.fd = NO_FD;
        }
        self.stats.syscalls.inc();
        drop(fd);
    }

    fn turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()> {
        let out = &mut Reports::new(sink);
        self.run_ready(out);
        // What is there goes up at once; every second turn looks for packets, so a busy socket starves nobody.
        self.skipped = out.count > 0 && !self.skipped;
        if !self.skipped {
            let wait = if out.count > 0 || !self.ready.is_empty() { Wait::Poll } else { wait };
            let count = self.take_packets(wait)?;
            (0..count).for_each(|at| self.take_packet(at));
            self.run_writers(out);
            self.run_ready(out);
        }
        self.stats.completions.add(out.count as u64);
        self.stats.ops_in_flight.set(self.in_flight as u64);
        Ok(())
    }

    fn unpark(&self) -> Unpark {
        let port = self.port.clone();
        Unpark::new(move || port.wake())
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for IocpDriver {
    fn drop(&mut self) {
        self.reap();
        let pending = self.blocks.pending();
        if pending == 0 {
            // SAFETY: from `Box::leak`; no call pends that could write there, and the driver ends.
            drop(unsafe { Box::from_raw(self.scratch.as_ptr()) });
            return;
        }
        // The kernel may still write: blocks and scratch stay, and the sockets that accepts would give.
        for accept in self.slots.iter_mut().filter_map(|slot| slot.accept.as_mut()) {
            for posted in accept.posted.drain(..) {
                let _ = ManuallyDrop::new(posted.socket);
            }
        }
        self.stats.leaked.add(pending as u64);
        tracing::warn!(pending, "iocp: leaked the memory of calls that did not end in time");
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

/// Points `bufs` at the front of `queue`; returns how many and how many bytes.
fn gather(queue: &TxQueue, bufs: &mut [WSABUF; MAX_SEND_SEGMENTS]) -> (usize, usize) {
    let (mut count, mut taken) = (0, 0);
    for (buf, bytes) in bufs.iter_mut().zip(queue.slices()) {
        if count > 0 && taken + bytes.len() > MAX_SEND_BYTES {
            break;
        }
        // A segment beyond 4 GiB is sent in parts.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        *buf = WSABUF { len, buf: bytes.as_ptr().cast_mut() };
        taken += len as usize;
        count += 1;
        if (len as usize) < bytes.len() {
            break;
        }
    }
    (count, taken)
}

/// Milliseconds, rounded up: a turn never returns before its timer is due.
fn millis(wait: Wait) -> u32 {
    match wait {
        Wait::Poll => 0,
        Wait::AtMost(timeout) => {
            u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE).min(INFINITE - 1)
        }
        Wait::Forever => INFINITE,
    }
}
