//! Client connections of the process against their limit, and the share of it that each listener may take.
//!
//! ```text
//! in the kernel's queue --a listener has room--> taken --fewer are served than the limit--> begun --> gone
//! ```
//! What a listener has taken is a descriptor, begun or not, and counts. A listener that may take many at a time must be
//! told when other cores have used the room up, so it is woken; one that has no room is woken when a connection goes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use ringport::runtime::Listener as _;
use ringport::runtime::native::{NativeListener, NativeStream};

use super::stats::ProxyStats;

/// Client connections of the whole process against their limit.
pub(crate) struct Connections {
    max: usize,
    /// As many as there are descriptors for, with an origin each.
    max_at_end: usize,
    /// Those that listeners have taken from the kernel, with those that are begun.
    taken: AtomicUsize,
    begun: AtomicUsize,
    /// Listeners among which what is left is divided.
    sharers: usize,
    /// With more taken than this, a share is less than what one turn of a listener may take.
    crowded: Option<usize>,
    /// Listeners that wait for room.
    waiting: AtomicUsize,
    /// The tasks of all listeners. Locked as they start, and where the room ends or comes back.
    acceptors: Mutex<Vec<Waker>>,
}

impl Connections {
    /// Room for `max`, divided among `sharers` listeners that may take `burst_len` in one turn; `derived` is what the
    /// descriptors are enough for.
    pub(super) fn new(max: usize, derived: usize, sharers: usize, burst_len: usize) -> Self {
        Connections {
            max,
            max_at_end: max.max(derived),
            taken: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            sharers: sharers.max(1),
            crowded: burst_len
                .checked_add(1)
                .and_then(|len| max.checked_sub(sharers.max(1).checked_mul(len)?)),
            waiting: AtomicUsize::new(0),
            acceptors: Mutex::default(),
        }
    }

    /// Connections that one listener may take by itself. While any may be taken at all it is one, so that no listener is
    /// shut out: several may then go beyond the limit together, by one each, and keep those for later.
    fn share(&self) -> usize {
        let left = self.max.saturating_sub(self.taken.load(Ordering::SeqCst));
        (left / self.sharers).max(left.min(1))
    }

    /// Begins one that was taken, unless as many as may are.
    fn begin(self: &Arc<Self>) -> Option<Counted> {
        let below = |begun| (begun < self.max).then_some(begun + 1);
        self.begun.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).ok()?;
        Some(Counted(self.clone()))
    }

    /// Whether one may be begun at the end of the process, when what waits is answered though it be beyond the limit.
    pub(super) fn has_room_at_end(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.max_at_end
    }

    /// Begins one whatever the limit.
    pub(super) fn begin_last(self: &Arc<Self>) -> Counted {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Counted(self.clone())
    }

    fn take(&self, count: usize) {
        let before = self.taken.fetch_add(count, Ordering::SeqCst);
        if self.crowded.is_some_and(|mark| before <= mark && before + count > mark) {
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
    /// What waits in the listener's queue, as far as it is counted.
    queued: usize,
    waits: bool,
    /// Whether its task is among the acceptors.
    known: bool,
}

impl Gate {
    pub(super) fn new(connections: Arc<Connections>, stats: Arc<ProxyStats>) -> Self {
        Gate { connections, stats, queued: 0, waits: false, known: false }
    }

    /// The next connection for which there is room. An error is of the listener, or of one connection.
    pub(super) fn poll_next(
        &mut self,
        listener: &mut NativeListener,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(NativeStream, Counted)>> {
        if !std::mem::replace(&mut self.known, true) {
            self.connections.lock_acceptors().push(cx.waker().clone());
        }
        self.count(listener.queued());
        let share = self.connections.share();
        listener.set_room(share);
        if self.queued == 0 {
            self.note(share == 0, cx, |all| all.share() > 0);
            // It has none: this asks for more, or says what failed.
            let accepted = ready!(listener.poll_accept(cx));
            return Poll::Ready(accepted.map(|stream| (stream, self.connections.begin_last())));
        }
        let Some(counted) = self.connections.begin() else {
            self.note(true, cx, |all| all.begun.load(Ordering::SeqCst) < all.max);
            return Poll::Pending;
        };
        self.note(false, cx, |_| false);
        // From here on `counted` stands for it.
        self.queued -= 1;
        Poll::Ready(ready!(listener.poll_accept(cx)).map(|stream| (stream, counted)))
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
        self.connections.give_back(self.queued);
    }
}
