//! A driver for tests that forces, at a chosen completion, an outcome that the kernel gives seldom.
//!
//! It wraps any driver and keeps it consistent: a fault that ends an operation early ends the one inside too (cancelled
//! and reaped within the same turn), and what arrives meanwhile is kept. It is delivered, before anything new, when the
//! upper layer arms the same token again: no byte and no connection is lost, and the order stays.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::{ConnectAddr, Driver, DriverKind, MAX_SEND_BYTES, Sink, Unpark, Wait};
use crate::buf::{Pool, PoolSpec, Seg, TxQueue};
use crate::errno;
use crate::fd::{OwnedFd, RawFd};
use crate::op::{Burst, Completion, Errno, OpKind, Outcome, SendMode, Token};

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The completion becomes `Failed`; what a receive or accept carried is kept.
    Errno(i32),
    /// The nth *issued* `Try` send hands only so many bytes down, then reports them as `Stalled`. Sends that wait are
    /// neither counted nor cut: they may not stall.
    ShortSend(usize),
    /// A receive reports `Starved`; its bytes are kept.
    Starve,
    /// A multishot completion is reported as the last one.
    LoseMore,
    /// The completion, and those behind it of the same operation, are held back for so many turns.
    Late {
        /// How many.
        turns: u32,
    },
    /// The nth *cancel* of the kind is passed down one turn late, so an outcome that is ready overtakes it.
    CancelRace,
    /// An accept reports `EMFILE`; its connection is kept.
    OutOfFds,
}

/// One fault: at the `nth` completion of `kind`, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Of which operations.
    pub kind: OpKind,
    /// At which completion that the driver inside gives (see [`Fault`] for those that count something else).
    pub nth: u64,
    /// What happens.
    pub fault: Fault,
}

/// All faults of a run.
pub type Plan = Vec<Step>;

/// How long the driver inside may take to end what a fault has cancelled.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);

struct Held {
    turns: u32,
    completion: Completion,
}

/// A driver that lies as planned.
pub struct Faulty<D: Driver + ?Sized> {
    /// Dropped first: it may still read the segments in `cut`.
    inner: Box<D>,
    /// Sends that were cut, with the shorter queue that the driver inside reads. INVARIANT: an entry outlives its
    /// operation inside.
    cut: HashMap<Token, TxQueue>,
    plan: Plan,
    completions: HashMap<OpKind, u64>,
    try_sends: u64,
    cancels: HashMap<OpKind, u64>,
    /// Operations the upper layer has in flight, with their descriptors; true while the driver inside has them too.
    live: HashMap<Token, (RawFd, bool)>,
    /// Hidden from the upper layer, being cancelled inside.
    hidden: HashMap<Token, RawFd>,
    /// What hidden operations brought, for the next time the token is armed.
    kept: HashMap<Token, VecDeque<Outcome>>,
    held: VecDeque<Held>,
    late_cancels: Vec<(RawFd, Token)>,
    pool: Pool,
}

impl<D: Driver + ?Sized> Faulty<D> {
    /// Wraps `inner`.
    pub fn new(inner: Box<D>, plan: Plan) -> Self {
        Faulty {
            plan,
            completions: HashMap::new(),
            try_sends: 0,
            cancels: HashMap::new(),
            live: HashMap::new(),
            hidden: HashMap::new(),
            kept: HashMap::new(),
            held: VecDeque::new(),
            late_cancels: Vec::new(),
            cut: HashMap::new(),
            pool: Pool::new(PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 2 }),
            inner,
        }
    }

    /// Faults that have not struck.
    pub fn pending(&self) -> &[Step] {
        &self.plan
    }

    /// Takes the first fault for the `nth` event of `kind` that `applies`.
    fn strike(&mut self, kind: OpKind, nth: u64, applies: fn(Fault) -> bool) -> Option<Fault> {
        let at =
            self.plan.iter().position(|step| step.kind == kind && step.nth == nth && applies(step.fault))?;
        Some(self.plan.remove(at).fault)
    }

    /// Delivers what was kept for `token`: bytes up to `credit`, connections as `burst` says. Returns the credit left, or
    /// `None` if that ended it.
    fn deliver_kept(&mut self, token: Token, mut credit: usize, burst: Burst) -> Option<usize> {
        let mut kept = self.kept.remove(&token).unwrap_or_default();
        while let Some(outcome) = kept.pop_front() {
            let completion = match outcome {
                Outcome::Received(mut buf) => {
                    if buf.len() > credit {
                        let rest = buf.split_to(credit);
                        kept.push_front(Outcome::Received(std::mem::replace(&mut buf, rest)));
                    }
                    credit -= buf.len();
                    Completion { token, outcome: Outcome::Received(buf), more: credit > 0 }
                }
                Outcome::Accepted(fd) => {
                    Completion { token, outcome: Outcome::Accepted(fd), more: burst == Burst::Many }
                }
                end => Completion::last(token, end),
            };
            let ended = !completion.more;
            self.held.push_back(Held { turns: 0, completion });
            if ended {
                if !kept.is_empty() {
                    self.kept.insert(token, kept);
                }
                return None;
            }
        }
        Some(credit)
    }

    /// Passes one completion of the driver inside on, changed as planned.
    fn filter(&mut self, completion: Completion) {
        let token = completion.token;
        if self.hidden.contains_key(&token) {
            if !completion.more {
                self.hidden.remove(&token);
            }
            if !matches!(completion.outcome, Outcome::Canceled | Outcome::Starved) {
                self.kept.entry(token).or_default().push_back(completion.outcome);
            }
            return;
        }
        if !completion.more {
            // The cancel lost the race: the outcome is the truth.
            self.late_cancels.retain(|(_, late)| *late != token);
            if let Some((_, inside)) = self.live.get_mut(&token) {
                *inside = false;
            }
        }
        let completion = self.uncut(completion);
        let Some(kind) = token.kind() else { return };
        let count = self.completions.entry(kind).or_default();
        *count += 1;
        let nth = *count;
        let applies = |fault| !matches!(fault, Fault::ShortSend(_) | Fault::CancelRace);
        match self.strike(kind, nth, applies) {
            None => self.held.push_back(Held { turns: 0, completion }),
            Some(Fault::Late { turns }) => self.held.push_back(Held { turns, completion }),
            Some(Fault::LoseMore) => {
                self.hide(token, completion.more);
                self.held.push_back(Held { turns: 0, completion: Completion { more: false, ..completion } });
            }
            Some(Fault::Errno(errno)) => self.replace(completion, Outcome::Failed(Errno(errno))),
            Some(Fault::OutOfFds) => self.replace(completion, Outcome::Failed(Errno(errno::EMFILE))),
            Some(Fault::Starve) => self.replace(completion, Outcome::Starved),
            Some(Fault::ShortSend(_) | Fault::CancelRace) => {
                unreachable!("these do not apply to completions")
            }
        }
    }

    fn replace(&mut self, completion: Completion, outcome: Outcome) {
        let Completion { token, outcome: real, more } = completion;
        self.hide(token, more);
        if matches!(real, Outcome::Received(_) | Outcome::Accepted(_)) {
            self.kept.entry(token).or_default().push_back(real);
        }
        self.held.push_back(Held { turns: 0, completion: Completion::last(token, outcome) });
    }

    /// Ends the operation inside if it goes on.
    fn hide(&mut self, token: Token, more: bool) {
        if let (true, Some((fd, inside))) = (more, self.live.get_mut(&token)) {
            *inside = false;
            self.hidden.insert(token, *fd);
            self.late_cancels.retain(|(_, late)| *late != token);
            self.inner.cancel(*fd, token);
        }
    }

    /// A send that was cut and went through has, to the upper layer, stalled.
    fn uncut(&mut self, completion: Completion) -> Completion {
        match (self.cut.remove(&completion.token), completion.outcome) {
            (Some(_), Outcome::Sent(count)) => Completion::last(completion.token, Outcome::Stalled(count)),
            (_, outcome) => Completion { outcome, ..completion },
        }
    }

    fn reap_hidden(&mut self, arrived: &mut Vec<Completion>) -> io::Result<()> {
        let end = Instant::now() + REAP_TIMEOUT;
        while !self.hidden.is_empty() {
            assert!(Instant::now() < end, "the driver inside did not end a cancelled operation");
            self.inner.turn(Wait::AtMost(Duration::from_millis(1)), arrived)?;
            for completion in arrived.drain(..) {
                self.filter(completion);
            }
        }
        Ok(())
    }

    /// Appends what is due; a completion never overtakes another of its operation.
    fn release(&mut self, sink: &mut dyn Sink) {
        let mut blocked = Vec::new();
        for mut held in std::mem::take(&mut self.held) {
            let token = held.completion.token;
            if held.turns > 0 || blocked.contains(&token) {
                held.turns = held.turns.saturating_sub(1);
                blocked.push(token);
                self.held.push_back(held);
                continue;
            }
            if !held.completion.more {
                self.live.remove(&token);
            }
            sink.complete(held.completion);
        }
    }
}

impl<D: Driver + ?Sized> Driver for Faulty<D> {
    fn kind(&self) -> DriverKind {
        self.inner.kind()
    }

    fn attach(&mut self, fd: RawFd, index: u32) -> io::Result<()> {
        self.inner.attach(fd, index)
    }

    fn accept(&mut self, fd: RawFd, token: Token, burst: Burst) {
        let goes_on = self.deliver_kept(token, usize::MAX, burst).is_some();
        self.live.insert(token, (fd, goes_on));
        if goes_on {
            self.inner.accept(fd, token, burst);
        }
    }

    fn recv(&mut self, fd: RawFd, token: Token, credit: u32) {
        let left = self.deliver_kept(token, credit as usize, Burst::Many);
        self.live.insert(token, (fd, left.is_some()));
        if let Some(left) = left {
            self.inner.recv(fd, token, left as u32);
        }
    }

    unsafe fn send(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize {
        let mut short = None;
        if mode == SendMode::Try {
            self.try_sends += 1;
            short = self.strike(OpKind::Send, self.try_sends, |fault| matches!(fault, Fault::ShortSend(_)));
        }
        let Some(Fault::ShortSend(len)) = short else {
            self.live.insert(token, (fd, true));
            // SAFETY: the caller's promise, passed on.
            return unsafe { self.inner.send(fd, token, queue, mode) };
        };
        let len = len.min(queue.len().saturating_sub(1));
        self.live.insert(token, (fd, len > 0));
        if len == 0 {
            let completion = Completion::last(token, Outcome::Stalled(0));
            self.held.push_back(Held { turns: 0, completion });
            return queue.len().min(MAX_SEND_BYTES);
        }
        // SAFETY: the caller keeps these bytes until the terminal completion, and `cut` goes before that is reported.
        let cut = self.cut.entry(token).or_insert(unsafe { front(queue, len, &self.pool) });
        // SAFETY: the bytes are the caller's, as above; the queue that names them stays in `cut`.
        unsafe { self.inner.send(fd, token, cut, mode) };
        queue.len().min(MAX_SEND_BYTES)
    }

    fn connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr) {
        self.live.insert(token, (fd, true));
        self.inner.connect(fd, token, addr);
    }

    fn watch(&mut self, fd: RawFd, token: Token) {
        self.live.insert(token, (fd, true));
        self.inner.watch(fd, token);
    }

    fn cancel(&mut self, fd: RawFd, token: Token) {
        let (Some((_, true)), Some(kind)) = (self.live.get(&token), token.kind()) else { return };
        let count = self.cancels.entry(kind).or_default();
        *count += 1;
        let nth = *count;
        match self.strike(kind, nth, |fault| fault == Fault::CancelRace) {
            Some(_) => self.late_cancels.push((fd, token)),
            None => self.inner.cancel(fd, token),
        }
    }

    fn close(&mut self, fd: OwnedFd, index: u32) {
        self.kept.retain(|token, _| token.index() != index);
        self.inner.close(fd, index);
    }

    fn turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()> {
        let idle = self.held.is_empty() && self.late_cancels.is_empty();
        let mut arrived = Vec::new();
        self.inner.turn(if idle { wait } else { Wait::Poll }, &mut arrived)?;
        for completion in arrived.drain(..) {
            self.filter(completion);
        }
        for (fd, token) in std::mem::take(&mut self.late_cancels) {
            self.inner.cancel(fd, token);
        }
        self.reap_hidden(&mut arrived)?;
        self.release(sink);
        Ok(())
    }

    fn unpark(&self) -> Unpark {
        self.inner.unpark()
    }

    fn in_flight(&self) -> usize {
        self.live.len()
    }
}

/// The first `len` bytes of `queue` as a queue of its own, without a copy.
///
/// # Safety
/// The bytes outlive the queue that is returned.
unsafe fn front(queue: &TxQueue, mut len: usize, pool: &Pool) -> TxQueue {
    let mut cut = TxQueue::new(pool.clone());
    for bytes in queue.slices() {
        let bytes = &bytes[..bytes.len().min(len)];
        len -= bytes.len();
        // SAFETY: by this function's contract nobody looks at the bytes after they are gone.
        cut.push(Seg::Static(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }));
    }
    cut
}
