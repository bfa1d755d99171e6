//! Client connections of the process against their limit, and the share of it that each listener may take.
//!
//! ```text
//! in the kernel's queue --a listener has room--> taken --fewer are served than the limit--> begun --> gone
//! ```
//! What a listener has taken is a descriptor, begun or not, and counts. A listener that may take many at a time must be
//! told when other cores have used the room up, so it is woken; one that has no room is woken when a connection goes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringport::net::{AcceptError, Bounded, Listener, Peer, Stream};
use ringport::runtime::native::Native;

use super::stats::ProxyStats;

/// Client connections of the whole process against their limit.
pub(crate) struct Connections {
    max: AtomicUsize,
    /// As many as there are descriptors for, with an origin each.
    derived: usize,
    /// Those that listeners have taken from the kernel, with those that are begun.
    taken: AtomicUsize,
    begun: AtomicUsize,
    /// Listeners among which what is left is divided, one for each core.
    sharers: AtomicUsize,
    /// What one turn of a listener may take at most.
    burst_len: AtomicUsize,
    /// Listeners that wait for room.
    waiting: AtomicUsize,
    /// The tasks of all listeners. Locked as they start, and where the room ends or comes back.
    acceptors: Mutex<Vec<Waker>>,
}

impl Connections {
    /// Room for `max`; `derived` is what the descriptors are enough for.
    pub(super) fn new(max: usize, derived: usize) -> Self {
        Connections {
            max: AtomicUsize::new(max),
            derived,
            taken: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            burst_len: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            acceptors: Mutex::default(),
        }
    }

    /// Another limit; what is beyond it stays.
    pub(super) fn set_max(&self, max: usize) {
        if self.max.swap(max, Ordering::SeqCst) != max {
            self.wake_acceptors();
        }
    }

    fn max(&self) -> usize {
        self.max.load(Ordering::SeqCst)
    }

    /// Connections that one listener may take by itself. While any may be taken at all it is one, so that no listener is
    /// shut out: several may then go beyond the limit together, by one each, and keep those for later.
    fn share(&self) -> usize {
        let left = self.max().saturating_sub(self.taken.load(Ordering::SeqCst));
        (left / self.sharers.load(Ordering::SeqCst).max(1)).max(left.min(1))
    }

    /// With more taken than this, a share is less than what one turn of a listener may take.
    fn crowded(&self) -> Option<usize> {
        let burst_len = self.burst_len.load(Ordering::SeqCst).checked_add(1)?;
        self.max().checked_sub(self.sharers.load(Ordering::SeqCst).checked_mul(burst_len)?)
    }

    /// Begins one that was taken, unless as many as may are.
    fn begin(self: &Arc<Self>) -> Option<Counted> {
        let max = self.max();
        let below = |begun| (begun < max).then_some(begun + 1);
        self.begun.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).ok()?;
        Some(Counted(self.clone()))
    }

    /// Whether one may be begun at the end of the process, when what waits is answered though it be beyond the limit.
    pub(super) fn has_room_at_end(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.max().max(self.derived)
    }

    /// Begins one whatever the limit.
    pub(super) fn begin_last(self: &Arc<Self>) -> Counted {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Counted(self.clone())
    }

    fn take(&self, count: usize) {
        let before = self.taken.fetch_add(count, Ordering::SeqCst);
        if self.crowded().is_some_and(|mark| before <= mark && before + count > mark) {
            self.wake_acceptors();
        }
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::SeqCst);
        if count > 0 && self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_acceptors();
        }
    }

    fn wake_acceptors(&self) {
        self.lock_acceptors().iter().for_each(Waker::wake_by_ref);
    }

    fn lock_acceptors(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.acceptors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's part of the limit.
pub(crate) struct Counted(Arc<Connections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::SeqCst);
        self.0.give_back(1);
    }
}

/// One listener before the limit. It belongs to one task.
pub(super) struct Gate {
    connections: Arc<Connections>,
    stats: Arc<ProxyStats>,
    /// What waits in the listener and here, as far as it is counted.
    queued: usize,
    /// What was accepted when there was no room any more.
    held: Option<Candidate>,
    waits: bool,
    /// Its task's, which is among the acceptors.
    waker: Option<Waker>,
}

/// A connection that was accepted, and who it is.
pub(super) type Candidate = (Stream<Bounded<Native>>, Peer);

impl Gate {
    /// Of a listener that may take `burst_len` in one turn.
    pub(super) fn new(connections: Arc<Connections>, stats: Arc<ProxyStats>, burst_len: usize) -> Self {
        connections.sharers.fetch_add(1, Ordering::SeqCst);
        connections.burst_len.fetch_max(burst_len, Ordering::SeqCst);
        Gate { connections, stats, queued: 0, held: None, waits: false, waker: None }
    }

    /// The next connection for which there is room. An error is of the listener, or of one connection.
    pub(super) fn poll_next(
        &mut self,
        listener: &mut Listener<Native>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Candidate, Counted), AcceptError>> {
        if self.waker.is_none() {
            self.connections.lock_acceptors().push(cx.waker().clone());
            self.waker = Some(cx.waker().clone());
        }
        loop {
            self.count(listener.queued() + usize::from(self.held.is_some()));
            if let Some(candidate) = self.held.take() {
                let Some(counted) = self.connections.begin() else {
                    self.held = Some(candidate);
                    listener.set_room(self.connections.share());
                    self.note(true, cx, |all| all.begun.load(Ordering::SeqCst) < all.max());
                    return Poll::Pending;
                };
                self.note(false, cx, |_| false);
                // From here on `counted` stands for it.
                self.queued -= 1;
                return Poll::Ready(Ok((candidate, counted)));
            }
            let share = self.connections.share();
            listener.set_room(share);
            match listener.poll_accept(cx) {
                Poll::Ready(Ok(candidate)) => self.held = Some(candidate),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if listener.queued() == self.queued => {
                    self.note(share == 0, cx, |all| all.share() > 0);
                    return Poll::Pending;
                }
                // Some were kept out: there is more room.
                Poll::Pending => {}
            }
        }
    }

    /// What was accepted and not given out, for the end of the listener.
    pub(super) fn into_held(mut self) -> Option<Candidate> {
        self.held.take()
    }

    /// Counts what the listener has taken.
    fn count(&mut self, queued: usize) {
        let before = std::mem::replace(&mut self.queued, queued);
        if queued > before {
            self.connections.take(queued - before);
        } else if queued < before {
            self.connections.give_back(before - queued);
        }
    }

    /// Notes whether this listener waits. What came back before it was known to wait has woken nobody, so `may_go_on` is
    /// looked at after that.
    fn note(&mut self, waits: bool, cx: &Context<'_>, may_go_on: fn(&Connections) -> bool) {
        match (std::mem::replace(&mut self.waits, waits), waits) {
            (false, true) => {
                self.stats.connections_paused.inc();
                self.connections.waiting.fetch_add(1, Ordering::SeqCst);
                if may_go_on(&self.connections) {
                    cx.waker().wake_by_ref();
                }
            }
            (true, false) => {
                self.connections.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            (true, true) | (false, false) => {}
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.connections.waiting.fetch_sub(usize::from(self.waits), Ordering::SeqCst);
        self.connections.sharers.fetch_sub(1, Ordering::SeqCst);
        if let Some(waker) = &self.waker {
            self.connections.lock_acceptors().retain(|other| !other.will_wake(waker));
        }
        self.connections.give_back(self.queued);
    }
}
