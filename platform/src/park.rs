//! Sleep and wake across threads without a lost wake, and without a syscall while the target runs.
//!
//! ```text
//!            prepare_park                      unpark: runs `wake`
//! RUNNING ------------------> PARKED ------------------------------> NOTIFIED
//!    ^  ^                        | work was found, or finish_park       |
//!    |  +------------------------+                                      |
//!    +------------------------------------------------------------------+ prepare_park (false), finish_park
//! ```
//!
//! The owner: look at all work; `prepare_park`; when true, sleep until `wake` has run; `finish_park`; look at all work.
//! A waker: publish the work, then `unpark`. Both change the state by a swap, so one of them comes second and sees the
//! other: the waker sees PARKED and wakes, or the owner sees NOTIFIED (and with it the work) and stays awake.
//! `wake` must latch, as a write to an eventfd does: it may run before the owner sleeps.

#[cfg(loom)]
use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// The sleeping side; one per core, used by its thread only.
pub struct Parker<W> {
    shared: Arc<Shared<W>>,
}

/// The waking side; any number of threads hold one.
pub struct Unparker<W> {
    shared: Arc<Shared<W>>,
}

struct Shared<W> {
    state: AtomicU32,
    wake: W,
}

impl<W: Fn()> Parker<W> {
    /// A parker that runs, and is woken by `wake`; one allocation.
    ///
    /// `wake` runs on the thread of the waker, at most once per sleep announced; it must latch and must not block.
    pub fn new(wake: W) -> Self {
        Parker { shared: Arc::new(Shared { state: AtomicU32::new(RUNNING), wake }) }
    }

    /// A handle for another thread.
    pub fn unparker(&self) -> Unparker<W> {
        Unparker { shared: Arc::clone(&self.shared) }
    }

    /// Announces sleep, then asks `has_work` once more; false when the caller must look for work instead of sleeping.
    ///
    /// True obliges the caller to [`Parker::finish_park`] after it slept. Costs one atomic swap, two when false.
    pub fn prepare_park(&self, has_work: impl FnOnce() -> bool) -> bool {
        let before = self.shared.state.swap(PARKED, Ordering::SeqCst);
        debug_assert_ne!(before, PARKED, "prepare_park twice without finish_park");
        if before == NOTIFIED || has_work() {
            self.finish_park();
            return false;
        }
        true
    }

    /// Ends the sleep; true when an [`Unparker`] asked for it. All work must be looked at afterwards.
    pub fn finish_park(&self) -> bool {
        // A swap, not a store: it may overwrite NOTIFIED, and must then acquire what that waker has published.
        self.shared.state.swap(RUNNING, Ordering::SeqCst) == NOTIFIED
    }
}

impl<W: Fn()> Unparker<W> {
    /// Makes the owner look for work soon; true when it slept and `wake` has run. Publish the work before.
    ///
    /// Costs one atomic swap; several calls for one sleep run `wake` once.
    pub fn unpark(&self) -> bool {
        let parked = self.shared.state.swap(NOTIFIED, Ordering::SeqCst) == PARKED;
        if parked {
            (self.shared.wake)();
        }
        parked
    }
}

impl<W> Clone for Unparker<W> {
    fn clone(&self) -> Self {
        Unparker { shared: Arc::clone(&self.shared) }
    }
}

/// Why an [`Inbox`] refused a message, which is given back.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The owner has ended.
    Closed(T),
    /// As many messages wait as the inbox may hold.
    Full(T),
}

/// Messages of many threads for one. Sending does not wake: call [`Unparker::unpark`] after it.
///
/// Order is kept per sender. Dropping it drops what waits.
pub struct Inbox<T> {
    /// True while `queue.messages` is not empty; written under the lock only, so the two never disagree outside of it.
    waiting: AtomicBool,
    queue: Mutex<Queue<T>>,
    max_len: usize,
}

struct Queue<T> {
    messages: Vec<T>,
    closed: bool,
}

impl<T> Inbox<T> {
    /// An inbox for at most `max_len` messages; `usize::MAX` bounds it by memory alone. No allocation before the first.
    pub fn new(max_len: usize) -> Self {
        let queue = Queue { messages: Vec::new(), closed: false };
        Inbox { waiting: AtomicBool::new(false), queue: Mutex::new(queue), max_len }
    }

    /// Adds a message; one short lock.
    ///
    /// # Errors
    /// [`SendError::Full`] at `max_len`, [`SendError::Closed`] after [`Inbox::close`].
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(SendError::Closed(message));
        }
        if queue.messages.len() >= self.max_len {
            return Err(SendError::Full(message));
        }
        queue.messages.push(message);
        self.waiting.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether messages wait; one load. For [`Parker::prepare_park`] and each turn.
    pub fn has_messages(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Moves all that waits to the end of `into`; one load when nothing does.
    pub fn take(&self, into: &mut Vec<T>) {
        if self.has_messages() {
            let mut queue = self.lock();
            self.waiting.store(false, Ordering::SeqCst);
            into.append(&mut queue.messages);
        }
    }

    /// Refuses messages from now on and returns those that waited.
    pub fn close(&self) -> Vec<T> {
        let mut queue = self.lock();
        queue.closed = true;
        self.waiting.store(false, Ordering::SeqCst);
        std::mem::take(&mut queue.messages)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // Nothing that can panic half-way runs under the lock, so a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RUNNING: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Inbox, Parker, SendError};
    use std::cell::Cell;

    #[test]
    fn wakes_only_a_sleeper_and_once() {
        let wakes = Cell::new(0);
        let parker = Parker::new(|| wakes.set(wakes.get() + 1));
        let unparker = parker.unparker();
        assert!(!unparker.unpark(), "it runs");
        assert!(!parker.prepare_park(|| false), "notified while it ran");
        assert!(parker.prepare_park(|| false));
        assert!(unparker.unpark());
        assert!(!unparker.clone().unpark(), "woken already");
        assert!(parker.finish_park());
        assert_eq!(wakes.get(), 1);
    }

    #[test]
    fn work_found_late_keeps_it_awake() {
        let parker = Parker::new(|| panic!("nobody sleeps"));
        assert!(!parker.prepare_park(|| true));
        assert!(!parker.unparker().unpark());
    }

    #[test]
    fn an_inbox_is_bounded_ordered_and_closes() {
        let inbox = Inbox::new(2);
        assert!(!inbox.has_messages());
        assert_eq!(inbox.send(1), Ok(()));
        assert_eq!(inbox.send(2), Ok(()));
        assert_eq!(inbox.send(3), Err(SendError::Full(3)));
        let mut taken = vec![0];
        inbox.take(&mut taken);
        assert_eq!(taken, [0, 1, 2]);
        assert!(!inbox.has_messages());
        assert_eq!(inbox.send(4), Ok(()));
        assert_eq!(inbox.close(), [4]);
        assert!(!inbox.has_messages());
        assert_eq!(inbox.send(5), Err(SendError::Closed(5)));
    }
}
