//! The sockets of one core: each owns its receive, its send, its accept and its queues; futures are views on them.
//!
//! ```text
//! receive   Idle --arm--> Armed --bytes*--> Armed | Idle (credit used) | Parked (pool empty) | Ended (eof, error)
//! send      Idle --flush--> Busy --Sent--> Idle | Busy (more waits)      --Stalled--> Busy (waits for the peer)
//! accept    see `accept`
//! readiness see `watch`
//! close     Open --close--> Closing: flush what waits (or drop it), cancel what is armed, reap to zero --> fd closed
//! ```
//!
//! Who owns which bytes: a received range belongs to the socket's [`RxQueue`] until a reader takes it, bytes to send to
//! its [`TxQueue`] until the terminal completion of the send that carried them. Dropping a future changes nothing here,
//! so it loses no byte and leaks no descriptor. A slot is reused only when no operation is in flight, with a new
//! generation.
//!
//! Credit: a receive is armed for at most `limit - queued` bytes, and only once half of `limit` is free again, so a slow
//! reader stops its own socket and never the pool. A reader that has taken everything whenever the credit was used up gets
//! more of it (`window`).

mod accept;
mod watch;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::buf::{Pool, PoolBuf, RxQueue, Seg, TxQueue};
use crate::driver::{ConnectAddr, Driver, Sink};
use crate::errno;
use crate::fd::{AsRawFd, NO_FD, OwnedFd, RawFd};
use crate::op::{Completion, Errno, OpKind, Outcome, SendMode, Token};
use crate::socket;
use crate::stats::CoreStats;

pub use accept::ACCEPT_QUEUE_LIMIT;
use accept::Listen;
use watch::Watches;
pub use window::DEFAULT_RX_LIMIT;
use window::{Window, Windows};

/// Sockets that are armed again in one turn after they waited for a chunk of the pool.
const UNPARK_BATCH: usize = 64;

/// Names a slot and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SockId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `burst_len` is what one turn may take.
    Listener {
        burst_len: usize,
    },
    Stream,
    /// Received from and sent to by its owner, which the driver tells of its readiness alone.
    Datagram,
}

/// How a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// Send what waits, then close; the core's linger deadline bounds it.
    Graceful,
    /// Drop what waits and reset the connection.
    Reset,
}

/// Why a receive side is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RxEnd {
    Eof,
    Failed(Errno),
}

/// How far a wait for sends goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxLevel {
    /// Until at most so many bytes wait.
    Below(usize),
    /// Until the kernel has everything.
    Empty,
}

#[derive(Default)]
struct InFlight {
    recv: bool,
    send: bool,
    accept: bool,
    connect: bool,
    readable: bool,
    writable: bool,
}

impl InFlight {
    fn any(&self) -> bool {
        self.recv || self.send || self.accept || self.connect || self.readable || self.writable
    }

    fn slot(&mut self, kind: OpKind) -> &mut bool {
        match kind {
            OpKind::Accept => &mut self.accept,
            OpKind::Recv => &mut self.recv,
            OpKind::Send => &mut self.send,
            OpKind::Connect => &mut self.connect,
            OpKind::Readable => &mut self.readable,
            OpKind::Writable => &mut self.writable,
        }
    }

    fn kinds(&self) -> impl Iterator<Item = OpKind> + use<> {
        [
            self.recv.then_some(OpKind::Recv),
            self.send.then_some(OpKind::Send),
            self.accept.then_some(OpKind::Accept),
            self.connect.then_some(OpKind::Connect),
            self.readable.then_some(OpKind::Readable),
            self.writable.then_some(OpKind::Writable),
        ]
        .into_iter()
        .flatten()
    }
}

/// What a slot wants of the next flush; bits.
mod work {
    pub(super) const SEND: u8 = 1;
    pub(super) const RECV: u8 = 2;
    /// A connect, an accept, a close: everything is looked at.
    pub(super) const ANY: u8 = 4;
}

struct Slot {
    generation: u32,
    fd: Option<OwnedFd>,
    in_flight: InFlight,
    canceled: bool,
    /// Bits of [`work`]; the slot stands in `Sockets::dirty` while there are any.
    work: u8,
    closing: Option<CloseMode>,
    // Receive side.
    rx: RxQueue,
    rx_window: Window,
    rx_wanted: bool,
    rx_parked: bool,
    /// Stands in `Sockets::holding`.
    rx_holding: bool,
    rx_end: Option<RxEnd>,
    rx_waker: Option<Waker>,
    // Send side.
    tx: TxQueue,
    tx_stalled: bool,
    tx_failed: Option<Errno>,
    tx_waker: Option<Waker>,
    // Connect or accept.
    connect: Option<Result<(), Errno>>,
    connect_to: Option<Box<ConnectAddr>>,
    listen: Option<Box<Listen>>,
    /// Of a socket that somebody else reads from or writes to, or did.
    watches: Option<Box<Watches>>,
}

impl Slot {
    fn fd(&self) -> RawFd {
        self.fd.as_ref().map_or(NO_FD, AsRawFd::as_raw_fd)
    }

    fn token(&self, kind: OpKind, index: u32) -> Token {
        Token::new(kind, index, self.generation)
    }
}

/// The slab of one core's sockets, with the list of those that have work for the driver.
pub(crate) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose wishes differ from what the driver does; each at most once (`Slot::work`).
    dirty: Vec<u32>,
    /// Sockets that wait for a pool chunk, the longest waiting first; some may have gone meanwhile.
    parked: VecDeque<SockId>,
    /// Those of `parked` that still wait.
    parked_count: usize,
    /// Whether the pool has had room since the parked were last told that it has none.
    unparking: bool,
    /// Slots that have received since the pool was last relieved; each at most once (`Slot::rx_holding`).
    holding: Vec<u32>,
    windows: Windows,
    out_of_fds: Vec<u32>,
    pool: Pool,
    returned_seen: u64,
    stats: Arc<CoreStats>,
    open: usize,
    urgent: bool,
}

impl Sockets {
    pub(crate) fn new(pool: Pool, stats: Arc<CoreStats>) -> Self {
        Sockets {
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            parked: VecDeque::new(),
            parked_count: 0,
            unparking: false,
            holding: Vec::new(),
            windows: Windows::of(&pool),
            out_of_fds: Vec::new(),
            pool,
            returned_seen: 0,
            stats,
            open: 0,
            urgent: false,
        }
    }

    /// Slots in use, those that are closing included.
    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || self.unparking
    }

    /// Takes over a non-blocking descriptor. The caller introduces it to the driver under the index that it is given.
    pub(crate) fn insert(&mut self, fd: OwnedFd, role: Role) -> SockId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index =
                    u32::try_from(self.slots.len()).expect("descriptors run out long before 2^32 slots");
                self.slots.push(self.new_slot());
                index
            }
        };
        self.open += 1;
        self.stats.open_sockets.set(self.open as u64);
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.fd.is_none() && !slot.in_flight.any());
        slot.fd = Some(fd);
        if let Role::Listener { burst_len } = role {
            slot.listen = Some(Box::new(Listen::new(burst_len)));
        }
        SockId { index, generation: slot.generation }
    }

    /// Undoes `insert` for a descriptor that no operation has seen.
    pub(crate) fn remove_unused(&mut self, id: SockId) {
        if let Some(slot) = self.slot(id) {
            slot.fd = None;
            self.recycle(id.index);
        }
    }

    fn new_slot(&self) -> Slot {
        Slot {
            generation: 0,
            fd: None,
            in_flight: InFlight::default(),
            canceled: false,
            work: 0,
            closing: None,
            rx: RxQueue::new(),
            rx_window: Window::default(),
            rx_wanted: false,
            rx_parked: false,
            rx_holding: false,
            rx_end: None,
            rx_waker: None,
            tx: TxQueue::new(self.pool.clone()),
            tx_stalled: false,
            tx_failed: None,
            tx_waker: None,
            connect: None,
            connect_to: None,
            listen: None,
            watches: None,
        }
    }

    #[inline]
    fn slot(&mut self, id: SockId) -> Option<&mut Slot> {
        find(&mut self.slots, id)
    }

    #[inline(always)]
    fn mark(&mut self, index: u32, work: u8) {
        mark(&mut self.dirty, &mut self.slots[index as usize], index, work);
    }

    pub(crate) fn raw_fd(&mut self, id: SockId) -> RawFd {
        self.slot(id).map_or(NO_FD, |slot| slot.fd())
    }

    pub(crate) fn set_rx_limit(&mut self, id: SockId, limit: u32) {
        if let Some(slot) = find(&mut self.slots, id) {
            self.windows.fix(&mut slot.rx_window, limit);
            self.mark(id.index, work::RECV);
        }
    }

    /// Moves received bytes to `into`; `Ready(Ok(true))` when some came, `Ready(Ok(false))` at the end.
    #[inline(always)]
    pub(crate) fn poll_recv(
        &mut self,
        id: SockId,
        cx: &mut Context<'_>,
        into: &mut RxQueue,
        max: usize,
    ) -> Poll<Result<bool, Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        if !slot.in_flight.recv {
            return self.poll_unarmed(id, cx, into, max);
        }
        if !slot.rx.is_empty() && into.take_from(&mut slot.rx, max) {
            return Poll::Ready(Ok(true));
        }
        register(&mut slot.rx_waker, cx);
        Poll::Pending
    }

    /// As `poll_recv`, for the next contiguous bytes alone; `Ready(Ok(None))` at the end.
    #[inline(always)]
    pub(crate) fn poll_recv_buf(
        &mut self,
        id: SockId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<PoolBuf>, Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        if !slot.in_flight.recv {
            return self.poll_unarmed_buf(id, cx);
        }
        if let Some(buf) = slot.rx.pop(usize::MAX) {
            return Poll::Ready(Ok(Some(buf)));
        }
        register(&mut slot.rx_waker, cx);
        Poll::Pending
    }

    #[cold]
    fn poll_unarmed_buf(&mut self, id: SockId, cx: &mut Context<'_>) -> Poll<Result<Option<PoolBuf>, Errno>> {
        let max = self.slots[id.index as usize].rx.front().len().max(1);
        let mut taken = RxQueue::new();
        let more = std::task::ready!(self.poll_unarmed(id, cx, &mut taken, max))?;
        debug_assert_eq!(more, !taken.is_empty());
        Poll::Ready(Ok(taken.pop(usize::MAX)))
    }

    /// A socket that the driver does not receive on: at its start, when its credit is used up, and at its end.
    #[cold]
    fn poll_unarmed(
        &mut self,
        id: SockId,
        cx: &mut Context<'_>,
        into: &mut RxQueue,
        max: usize,
    ) -> Poll<Result<bool, Errno>> {
        let slot = &mut self.slots[id.index as usize];
        let moved = into.take_from(&mut slot.rx, max);
        slot.rx_wanted = true;
        if !slot.rx_parked && slot.rx_end.is_none() {
            self.mark(id.index, work::RECV);
        }
        if moved {
            return Poll::Ready(Ok(true));
        }
        let slot = &mut self.slots[id.index as usize];
        match slot.rx_end {
            Some(RxEnd::Eof) => Poll::Ready(Ok(false)),
            Some(RxEnd::Failed(errno)) => Poll::Ready(Err(errno)),
            None => {
                register(&mut slot.rx_waker, cx);
                Poll::Pending
            }
        }
    }

    /// Whether the peer has said anything, or ended, since the last read: an idle connection for which this is true
    /// must not be reused.
    pub(crate) fn has_news(&mut self, id: SockId) -> bool {
        self.slot(id)
            .is_none_or(|slot| !slot.rx.is_empty() || slot.rx_end.is_some() || slot.tx_failed.is_some())
    }

    /// Appends everything in `from` to what waits to be sent; returns how many bytes that are now.
    #[inline(always)]
    pub(crate) fn send(&mut self, id: SockId, from: &mut TxQueue) -> Result<usize, Errno> {
        let Some(slot) = find(&mut self.slots, id) else { return Err(Errno(errno::EBADF)) };
        if slot.tx_stalled || slot.tx_failed.is_some() {
            return self.send_late(id, from);
        }
        slot.tx.append(from);
        let waiting = slot.tx.len();
        if waiting > 0 && !slot.in_flight.send {
            mark(&mut self.dirty, slot, id.index, work::SEND);
        }
        Ok(waiting)
    }

    /// As `send`, for one segment.
    #[inline(always)]
    pub(crate) fn send_seg(&mut self, id: SockId, seg: Seg) -> Result<usize, Errno> {
        let Some(slot) = find(&mut self.slots, id) else { return Err(Errno(errno::EBADF)) };
        if slot.tx_stalled || slot.tx_failed.is_some() {
            let mut from = TxQueue::new(self.pool.clone());
            from.push(seg);
            return self.send_late(id, &mut from);
        }
        slot.tx.push(seg);
        let waiting = slot.tx.len();
        if waiting > 0 && !slot.in_flight.send {
            mark(&mut self.dirty, slot, id.index, work::SEND);
        }
        Ok(waiting)
    }

    /// A send on a connection that is over, or that the kernel could not fill at once.
    #[cold]
    fn send_late(&mut self, id: SockId, from: &mut TxQueue) -> Result<usize, Errno> {
        let slot = &mut self.slots[id.index as usize];
        if let Some(errno) = slot.tx_failed {
            from.clear();
            return Err(errno);
        }
        // It waits for a peer that does not read, and must not keep the pool from the others meanwhile.
        if self.pool.under_pressure() {
            from.compact();
        }
        slot.tx.append(from);
        let waiting = slot.tx.len();
        if waiting > 0 && !slot.in_flight.send {
            self.mark(id.index, work::SEND);
        }
        Ok(waiting)
    }

    pub(crate) fn poll_sent(
        &mut self,
        id: SockId,
        cx: &mut Context<'_>,
        level: TxLevel,
    ) -> Poll<Result<(), Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        if let Some(errno) = slot.tx_failed {
            return Poll::Ready(Err(errno));
        }
        let mark = match level {
            TxLevel::Below(mark) => mark,
            TxLevel::Empty => 0,
        };
        if slot.tx.len() <= mark {
            return Poll::Ready(Ok(()));
        }
        register(&mut slot.tx_waker, cx);
        Poll::Pending
    }

    /// Bytes that wait to be sent.
    pub(crate) fn unsent(&mut self, id: SockId) -> usize {
        self.slot(id).map_or(0, |slot| slot.tx.len())
    }

    pub(crate) fn start_connect(&mut self, id: SockId, addr: ConnectAddr) {
        if let Some(slot) = self.slot(id) {
            slot.connect_to = Some(Box::new(addr));
            self.mark(id.index, work::ANY);
        }
    }

    pub(crate) fn poll_connect(&mut self, id: SockId, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        let Some(slot) = self.slot(id) else { return Poll::Ready(Err(Errno(errno::EBADF))) };
        match slot.connect {
            Some(result) => Poll::Ready(result),
            None => {
                register(&mut slot.tx_waker, cx);
                Poll::Pending
            }
        }
    }

    /// Starts the end of a socket; the slot is reused once nothing is in flight. Returns whether bytes still wait.
    pub(crate) fn close(&mut self, id: SockId, mode: CloseMode) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let truncated = slot.watches.take().is_some_and(|watches| watches.truncated);
        let mode = if truncated { CloseMode::Reset } else { mode };
        slot.rx_waker = None;
        slot.tx_waker = None;
        slot.rx = RxQueue::new();
        slot.rx_wanted = false;
        slot.listen = slot.listen.take().map(|mut listen| {
            listen.wanted = false;
            listen.queue.clear();
            listen
        });
        slot.closing = match (slot.closing, mode) {
            (Some(CloseMode::Reset), _) => Some(CloseMode::Reset),
            (_, mode) => Some(mode),
        };
        let lingers = mode == CloseMode::Graceful && !slot.tx.is_empty() && slot.tx_failed.is_none();
        self.mark(id.index, work::ANY);
        lingers
    }

    /// Turns every open socket's end into a reset, for the end of a core. Returns how many still had bytes to send.
    pub(crate) fn reset_all(&mut self) -> usize {
        let mut count = 0;
        for index in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[index as usize];
            if slot.fd.is_some() {
                count += usize::from(!slot.tx.is_empty() && slot.tx_failed.is_none());
                let id = SockId { index, generation: slot.generation };
                slot.canceled = false;
                self.close(id, CloseMode::Reset);
            }
        }
        count
    }

    /// Tells the driver what changed since the last flush.
    ///
    /// True when somebody waits for a send of this flush to end: the turn must not sleep then, because a send that
    /// succeeds silently wakes nobody.
    pub(crate) fn flush(&mut self, driver: &mut (impl Driver + ?Sized)) -> bool {
        self.urgent = false;
        self.unpark();
        let mut at = 0;
        // A flush may add to the list: a socket that closes lets listeners try again.
        while let Some(&index) = self.dirty.get(at) {
            at += 1;
            let slot = &mut self.slots[index as usize];
            match std::mem::take(&mut slot.work) {
                // A close, or a connect, is never the only news of a slot that may not send.
                work::SEND => self.urgent |= start_send(slot, index, driver),
                _ => self.flush_slot(index, driver),
            }
        }
        self.dirty.clear();
        self.urgent
    }

    /// Lets sockets that wait for the pool try again: a batch a turn, until the driver says that it is empty again.
    ///
    /// All at once would make each chunk that returns cost a visit to every socket that waits.
    fn unpark(&mut self) {
        if self.parked_count == 0 {
            self.unparking = false;
            return;
        }
        let returned = self.pool.returned_count();
        self.unparking |= returned != self.returned_seen || self.pool.has_room();
        self.returned_seen = returned;
        if !self.unparking {
            return;
        }
        for _ in 0..UNPARK_BATCH {
            let Some(id) = self.parked.pop_front() else { break };
            let Some(slot) = self.slot(id) else { continue };
            if std::mem::take(&mut slot.rx_parked) {
                self.parked_count -= 1;
                self.mark(id.index, work::RECV);
            }
        }
        self.unparking = self.parked_count > 0;
        self.stats.pool_parked.set(self.parked_count as u64);
    }

    fn park(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.rx_parked = true;
        let id = SockId { index, generation: slot.generation };
        self.parked.push_back(id);
        self.parked_count += 1;
        self.unparking = false;
        if self.parked.len() > 2 * self.parked_count + UNPARK_BATCH {
            let slots = &self.slots;
            self.parked.retain(|id| slots[id.index as usize].generation == id.generation);
        }
        self.stats.pool_parked.set(self.parked_count as u64);
    }

    fn flush_slot(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        if slot.fd.is_none() {
            return;
        }
        if let Some(addr) = slot.connect_to.take()
            && slot.closing.is_none()
        {
            slot.in_flight.connect = true;
            let token = slot.token(OpKind::Connect, index);
            driver.connect(slot.fd(), token, &addr);
        }
        self.flush_accept(index, driver);
        self.flush_send(index, driver);
        self.flush_recv(index, driver);
        if self.slots[index as usize].watches.is_some() {
            self.flush_watches(index, driver);
        }
        if self.slots[index as usize].closing.is_some() {
            self.flush_close(index, driver);
        }
    }

    fn flush_send(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        if slot.in_flight.send || slot.in_flight.connect || slot.connect_to.is_some() {
            return;
        }
        if slot.closing == Some(CloseMode::Reset) {
            slot.tx.clear();
        }
        self.urgent |= start_send(slot, index, driver);
    }

    fn flush_recv(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        let idle = !slot.in_flight.recv && !slot.rx_parked && !slot.in_flight.connect;
        if !slot.rx_wanted || !idle || slot.rx_end.is_some() || slot.closing.is_some() {
            return;
        }
        if slot.watches.as_ref().is_some_and(|watches| watches.held) {
            return;
        }
        let queued = slot.rx.len();
        let limit = self.windows.limit(&mut slot.rx_window, queued, &self.pool) as usize;
        if queued * 2 > limit {
            return;
        }
        slot.in_flight.recv = true;
        let token = slot.token(OpKind::Recv, index);
        driver.recv(slot.fd(), token, (limit - queued) as u32);
    }

    fn flush_close(&mut self, index: u32, driver: &mut (impl Driver + ?Sized)) {
        let slot = &mut self.slots[index as usize];
        let reset = slot.closing == Some(CloseMode::Reset);
        if slot.in_flight.any() {
            let lingers = !reset && (slot.in_flight.send || !slot.tx.is_empty());
            if !lingers && !slot.canceled {
                slot.canceled = true;
                let fd = slot.fd();
                for kind in slot.in_flight.kinds() {
                    self.stats.cancels.inc();
                    driver.cancel(fd, Token::new(kind, index, slot.generation));
                }
            }
            return;
        }
        debug_assert!(slot.tx.is_empty());
        let Some(fd) = slot.fd.take() else { return };
        if reset {
            socket::set_reset_on_close(&fd);
        }
        driver.close(fd, index);
        self.recycle(index);
        self.retry_accept();
    }

    fn recycle(&mut self, index: u32) {
        let fresh = self.new_slot();
        let slot = &mut self.slots[index as usize];
        if slot.rx_parked {
            self.parked_count -= 1;
            self.stats.pool_parked.set(self.parked_count as u64);
        }
        self.windows.close(&mut slot.rx_window);
        let generation = slot.generation.wrapping_add(1) % Token::GENERATIONS;
        let (work, rx_holding) = (slot.work, slot.rx_holding);
        *slot = Slot { generation, work, rx_holding, ..fresh };
        self.free.push(index);
        self.open -= 1;
        self.stats.open_sockets.set(self.open as u64);
    }

    /// The first bytes of a socket, or since the pool was relieved, the last of a receive, and those that nobody wants.
    #[cold]
    fn received_specially(&mut self, token: Token, buf: PoolBuf, more: bool) {
        let index = token.index();
        let current = self.slots.get_mut(index as usize);
        let Some(slot) = current.filter(|slot| slot.generation == token.generation()) else {
            // Dropping them returns them to the pool.
            return self.stats.stale_completions.inc();
        };
        debug_assert!(slot.in_flight.recv, "bytes that nobody asked for");
        slot.in_flight.recv = more;
        self.stats.received_bytes.add(buf.len() as u64);
        if slot.closing.is_some() {
            return self.mark(index, work::ANY);
        }
        slot.rx.push(buf);
        if !std::mem::replace(&mut slot.rx_holding, true) {
            self.holding.push(index);
        }
        if let Some(waker) = &slot.rx_waker {
            waker.wake_by_ref();
        }
        if !more {
            slot.rx_window.used_up();
            self.mark(index, work::RECV);
        }
    }

    fn complete_recv(&mut self, index: u32, outcome: Outcome) {
        let slot = &mut self.slots[index as usize];
        match outcome {
            Outcome::Eof => slot.rx_end = Some(RxEnd::Eof),
            Outcome::Failed(errno) => slot.rx_end = Some(RxEnd::Failed(errno)),
            // It is not armed before somebody releases it: no chunk to wait for.
            Outcome::Starved if slot.watches.as_ref().is_some_and(|watches| watches.held) => {}
            Outcome::Starved => {
                self.park(index);
                self.relieve_pool();
                return;
            }
            // Canceled: by a close, which has taken the waker away, or because somebody else reads now, or just did.
            _ => self.mark(index, work::RECV),
        }
        let slot = &mut self.slots[index as usize];
        if let Some(waker) = &slot.rx_waker {
            waker.wake_by_ref();
        }
    }

    /// The pool is at its cap: what waits for slow readers is copied out of its chunks.
    ///
    /// Only slots that have received since the last time are looked at, so this costs no more than those receives did.
    fn relieve_pool(&mut self) {
        for index in self.holding.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.rx_holding = false;
            slot.rx.compact();
        }
    }

    fn complete_send(&mut self, index: u32, outcome: Outcome) {
        let slot = &mut self.slots[index as usize];
        match outcome {
            Outcome::Stalled(count) => return self.complete_sent(index, count, true),
            Outcome::Failed(errno) => {
                slot.tx_failed = Some(errno);
                slot.tx.clear();
            }
            // Canceled: by a reset, which drops what waits. A send has no other end.
            _ => slot.tx.clear(),
        }
        if let Some(waker) = slot.tx_waker.take() {
            waker.wake();
        }
    }

    fn complete_sent(&mut self, index: u32, count: usize, stalled: bool) {
        let slot = &mut self.slots[index as usize];
        self.stats.sent_bytes.add(count as u64);
        slot.tx.advance(count);
        slot.tx_stalled = stalled;
        if stalled && self.pool.under_pressure() {
            slot.tx.compact();
        }
        if let Some(waker) = slot.tx_waker.take() {
            waker.wake();
        }
        let more = if slot.tx.is_empty() { 0 } else { work::SEND };
        let closing = if slot.closing.is_some() { work::ANY } else { 0 };
        if more | closing != 0 {
            self.mark(index, more | closing);
        }
    }
}

/// Wakes tasks, runs none.
impl Sink for Sockets {
    fn received(&mut self, token: Token, buf: PoolBuf, more: bool) {
        match self.slots.get_mut(token.index() as usize) {
            Some(slot)
                if slot.generation == token.generation()
                    && slot.closing.is_none()
                    && slot.rx_holding
                    && more =>
            {
                debug_assert!(slot.in_flight.recv, "bytes that nobody asked for");
                self.stats.received_bytes.add(buf.len() as u64);
                slot.rx.push(buf);
                if let Some(waker) = &slot.rx_waker {
                    waker.wake_by_ref();
                }
            }
            Some(_) | None => self.received_specially(token, buf, more),
        }
    }

    fn sent(&mut self, token: Token, count: usize) {
        let index = token.index();
        let slot = match self.slots.get_mut(index as usize) {
            Some(slot) if slot.generation == token.generation() && slot.in_flight.send => slot,
            // A slot is not reused while a send is in flight.
            Some(_) | None => {
                debug_assert!(false, "a send that nobody made: {token:?}");
                return self.stats.stale_completions.inc();
            }
        };
        slot.in_flight.send = false;
        if count == slot.tx.len() && slot.tx_waker.is_none() && slot.closing.is_none() {
            // The usual case: it was all, and nobody waits for that.
            slot.tx_stalled = false;
            slot.tx.clear();
            self.stats.sent_bytes.add(count as u64);
        } else {
            self.complete_sent(index, count, false);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, outcome, more } = completion;
        let outcome = match outcome {
            Outcome::Received(buf) => return self.received(token, buf, more),
            Outcome::Sent(count) => return self.sent(token, count),
            other => other,
        };
        let index = token.index();
        let current =
            self.slots.get(index as usize).is_some_and(|slot| slot.generation == token.generation());
        let (Some(kind), true) = (token.kind(), current) else {
            // Dropping the outcome closes its descriptor or returns its bytes to the pool.
            self.stats.stale_completions.inc();
            return;
        };
        let slot = &mut self.slots[index as usize];
        debug_assert!(*slot.in_flight.slot(kind), "a completion for an operation that is not in flight");
        if !more {
            *slot.in_flight.slot(kind) = false;
        }
        match kind {
            OpKind::Recv => self.complete_recv(index, outcome),
            OpKind::Send => self.complete_send(index, outcome),
            OpKind::Accept => self.complete_accept(index, outcome, more),
            OpKind::Connect => {
                if slot.closing.is_some() && matches!(outcome, Outcome::Connected) {
                    self.stats.orphans_released.inc();
                }
                slot.connect = Some(match outcome {
                    Outcome::Connected => Ok(()),
                    Outcome::Failed(errno) => Err(errno),
                    // Canceled: by the drop of its future, so nobody reads this. A connect has no other end.
                    _ => Err(Errno(errno::ECANCELED)),
                });
                if let Some(waker) = slot.tx_waker.take() {
                    waker.wake();
                }
                self.mark(index, work::ANY);
            }
            OpKind::Readable | OpKind::Writable => self.complete_watch(index, kind, &outcome),
        }
        if self.slots[index as usize].closing.is_some() {
            self.mark(index, work::ANY);
        }
    }
}

impl Drop for Sockets {
    /// The driver has gone before. Sends that it could not end, the kernel may still read: their bytes stay for ever.
    fn drop(&mut self) {
        if self.stats.leaked.load() == 0 {
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.in_flight.send) {
            std::mem::forget(std::mem::replace(&mut slot.tx, TxQueue::new(self.pool.clone())));
        }
    }
}

/// Sends what waits. Only for a slot that has no send in flight, and may send. True when somebody waits for its end.
#[inline(always)]
fn start_send(slot: &mut Slot, index: u32, driver: &mut (impl Driver + ?Sized)) -> bool {
    // It may have failed since it was marked, and what waited has gone with that.
    if slot.tx.is_empty() {
        return false;
    }
    debug_assert!(slot.fd.is_some() && slot.tx_failed.is_none());
    debug_assert!(!slot.in_flight.send && !slot.in_flight.connect);
    let mode = if slot.tx_stalled { SendMode::Wait } else { SendMode::Try };
    slot.in_flight.send = true;
    let token = slot.token(OpKind::Send, index);
    // SAFETY: the segments belong to `slot.tx`, which no handle reaches: it is only appended to while
    // `in_flight.send` is set, and advanced, compacted or cleared when the terminal completion has cleared it.
    // A cancel or a close leaves it alone until then; `Core` drops the driver, which reaps, before the slots, and
    // `Sockets::drop` leaks the queue where that driver had to leak the send.
    let taken = unsafe { driver.send(slot.fd(), token, &slot.tx, mode) };
    slot.tx_waker.is_some() || slot.closing.is_some() || taken < slot.tx.len()
}

/// The slot of `id`, unless that has gone.
#[inline(always)]
fn find(slots: &mut [Slot], id: SockId) -> Option<&mut Slot> {
    match slots.get_mut(id.index as usize) {
        Some(slot) if slot.generation == id.generation => Some(slot),
        Some(_) | None => None,
    }
}

#[inline(always)]
fn mark(dirty: &mut Vec<u32>, slot: &mut Slot, index: u32, work: u8) {
    if slot.work == 0 {
        dirty.push(index);
    }
    slot.work |= work;
}

#[inline]
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => register_anew(slot, cx),
    }
}

#[cold]
fn register_anew(slot: &mut Option<Waker>, cx: &Context<'_>) {
    *slot = Some(cx.waker().clone());
}
