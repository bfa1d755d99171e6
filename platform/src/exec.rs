//! The executor of one core: a run queue of its own, panics caught task by task.
//!
//! Tasks never leave their core. A wake from the core's own thread pushes to the run queue; a wake from elsewhere goes
//! through the core's inbox. A task that panics is dropped at once (which closes its sockets) and its [`JoinHandle`]
//! says so; the core lives on. When the core ends, every task is dropped on its own thread; a wake that comes later is
//! leaked on purpose, because only that thread may drop the task.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_task::{FallibleTask, Runnable};

use crate::remote::{Message, Remote};
use crate::stats::CoreStats;

thread_local! {
    /// The run queue of this thread's core; null while it has none.
    ///
    /// INVARIANT: the queue lives until the executor that set the pointer sets it back, on this thread.
    static LOCAL: Cell<*const Local> = const { Cell::new(std::ptr::null()) };
}

/// The run queue of a core, touched by its thread only.
struct Local {
    /// The core's [`Remote::id`].
    id: u64,
    ready: RefCell<VecDeque<Runnable>>,
}

impl Local {
    fn push(&self, runnable: Runnable) {
        self.ready.borrow_mut().push_back(runnable);
    }

    fn pop(&self) -> Option<Runnable> {
        self.ready.borrow_mut().pop_front()
    }
}

/// Why a task gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It panicked, with this message.
    Panicked(String),
    /// It was aborted, or its core ended first.
    Aborted,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(message) => write!(f, "the task panicked: {message}"),
            JoinError::Aborted => write!(f, "the task was aborted"),
        }
    }
}

impl std::error::Error for JoinError {}

/// Waits for a task. Dropping it lets the task run on.
pub struct JoinHandle<T>(Option<FallibleTask<Result<T, JoinError>>>);

impl<T> JoinHandle<T> {
    /// Drops the task's future on its core, soon; its sockets close.
    pub fn abort(mut self) {
        drop(self.0.take());
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(FallibleTask::is_finished)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.as_mut() {
            Some(task) => Pin::new(task).poll(cx).map(|end| end.unwrap_or(Err(JoinError::Aborted))),
            None => Poll::Ready(Err(JoinError::Aborted)),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

/// The tasks of one core.
pub(crate) struct Exec {
    remote: Arc<Remote>,
    local: Rc<Local>,
    alive: Rc<RefCell<Alive>>,
    closed: Cell<bool>,
    stats: Arc<CoreStats>,
}

/// One waker per live task, so that the end of the core can reach them all.
#[derive(Default)]
struct Alive {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    count: usize,
}

impl Exec {
    /// # Panics
    /// If this thread already runs a core.
    pub(crate) fn new(remote: Arc<Remote>, stats: Arc<CoreStats>) -> Self {
        assert!(LOCAL.get().is_null(), "one core a thread");
        let local = Rc::new(Local { id: remote.id(), ready: RefCell::default() });
        LOCAL.set(Rc::as_ptr(&local));
        Exec { remote, local, alive: Rc::default(), closed: Cell::new(false), stats }
    }

    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        if self.closed.get() {
            return JoinHandle(None);
        }
        let place = {
            let mut alive = self.alive.borrow_mut();
            alive.count += 1;
            self.stats.tasks.set(alive.count as u64);
            alive.free.pop().unwrap_or_else(|| {
                alive.wakers.push(None);
                alive.wakers.len() - 1
            })
        };
        let seat = Seat { place, alive: self.alive.clone(), stats: self.stats.clone() };
        let task = Caught { future: ManuallyDrop::new(future), seat };
        let remote = self.remote.clone();
        let schedule = move |runnable: Runnable| {
            // SAFETY: null, or a queue that lives (`LOCAL`), which no other thread sees.
            match unsafe { LOCAL.get().as_ref() } {
                Some(local) if local.id == remote.id() => local.push(runnable),
                _ => {
                    remote.send(Message::Run(runnable));
                }
            }
        };
        // SAFETY: the future is not `Send`. Its `Runnable` is run and dropped on this thread only: `schedule` puts it on
        // this thread's queue or into the core's inbox, which this thread drains, and which after the core's end
        // leaks what arrives. The schedule function is `Send + Sync`, and both are `'static`.
        let (runnable, task) = unsafe { async_task::spawn_unchecked(task, schedule) };
        self.alive.borrow_mut().wakers[place] = Some(runnable.waker());
        runnable.schedule();
        JoinHandle(Some(task.fallible()))
    }

    pub(crate) fn task_count(&self) -> usize {
        self.alive.borrow().count
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.local.ready.borrow().is_empty()
    }

    /// Polls at most `limit` ready tasks.
    pub(crate) fn run_ready(&self, limit: usize) {
        for _ in 0..limit {
            let Some(runnable) = self.local.pop() else { return };
            runnable.run();
        }
    }

    pub(crate) fn push_ready(&self, runnable: Runnable) {
        self.local.push(runnable);
    }

    /// Drops every task on this thread. No task can be spawned after it.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        loop {
            let wakers: Vec<Waker> = self.alive.borrow().wakers.iter().flatten().cloned().collect();
            for waker in wakers {
                waker.wake();
            }
            let mut dropped = false;
            while let Some(runnable) = self.local.pop() {
                drop(runnable);
                dropped = true;
            }
            if !dropped {
                return;
            }
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.close();
        self.remote.close();
        LOCAL.set(std::ptr::null());
    }
}

/// A task's place among the living; leaving it is the end of the task.
struct Seat {
    place: usize,
    alive: Rc<RefCell<Alive>>,
    stats: Arc<CoreStats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut alive = self.alive.borrow_mut();
        let waker = alive.wakers[self.place].take();
        alive.free.push(self.place);
        alive.count -= 1;
        self.stats.tasks.set(alive.count as u64);
        drop(alive);
        drop(waker);
    }
}

/// A task whose panics end it alone, those of its drop too: async-task would abort the process.
struct Caught<F> {
    /// Dropped in place by `Caught::drop` and nowhere else.
    future: ManuallyDrop<F>,
    seat: Seat,
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is never moved out of the pinned task; `seat` is not pinned and is only read.
        let (future, seat) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut *this.future), &this.seat)
        };
        // A future that panicked is not polled again: the executor drops it when `Ready` is returned.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(JoinError::Panicked(seat.count_panic(payload)))),
        }
    }
}

impl<F> Drop for Caught<F> {
    fn drop(&mut self) {
        // SAFETY: this is the only drop of `future`, which stays where it was pinned until it is over.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut self.future) }));
        if let Err(payload) = dropped {
            self.seat.count_panic(payload);
        }
    }
}

impl Seat {
    /// Counts and logs a panic; returns its message.
    fn count_panic(&self, payload: Box<dyn Any + Send>) -> String {
        self.stats.task_panics.inc();
        let message = panic_message(payload);
        tracing::error!(message, "a task panicked");
        message
    }
}

/// What a panic said.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    // A payload's own drop may panic; it is no more than memory then.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    text.unwrap_or_else(|| "a value that is not text".to_owned())
}
