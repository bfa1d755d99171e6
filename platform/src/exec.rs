//! The executor of one core: a run queue of its own, panics caught task by task.
//!
//! Tasks never leave their core. A wake from the core's own thread pushes to the run queue; a wake from elsewhere goes
//! through the core's inbox. A task that panics is dropped at once (which closes its sockets) and its [`JoinHandle`]
//! says so; the core lives on. When the core ends, every task is dropped on its own thread; a wake that comes later does
//! nothing.

mod task;

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::remote::Remote;
use crate::stats::CoreStats;

use task::{Ran, TaskPtr};

pub(crate) use task::TaskRef;

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
    /// In the order in which they were woken.
    ///
    /// INVARIANT of both: looked into by this type's methods only, none of which calls anything that could come back.
    ready: UnsafeCell<Vec<TaskPtr>>,
    /// Those that were woken before, the next one last.
    next: UnsafeCell<Vec<TaskPtr>>,
}

impl Local {
    #[inline]
    fn with(call: impl FnOnce(Option<&Local>)) {
        // SAFETY: null, or a queue that lives (`LOCAL`), which no other thread sees.
        call(unsafe { LOCAL.get().as_ref() });
    }

    #[inline]
    fn push(&self, task: TaskPtr) {
        // SAFETY: one thread, and nobody else looks into the list during the call.
        unsafe { &mut *self.ready.get() }.push(task);
    }

    #[inline]
    fn pop(&self) -> Option<TaskPtr> {
        // SAFETY: as in `push`.
        let next = unsafe { &mut *self.next.get() }.pop();
        if next.is_some() { next } else { self.refill() }
    }

    fn refill(&self) -> Option<TaskPtr> {
        // SAFETY: as in `push`; they are two lists.
        let (next, ready) = unsafe { (&mut *self.next.get(), &mut *self.ready.get()) };
        std::mem::swap(next, ready);
        next.reverse();
        next.pop()
    }

    fn is_empty(&self) -> bool {
        // SAFETY: as in `push`.
        unsafe { (*self.ready.get()).is_empty() && (*self.next.get()).is_empty() }
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

/// Waits for a task of this core. Dropping it lets the task run on.
pub struct JoinHandle<T> {
    joined: Rc<Joined<T>>,
    /// None where the core took no more tasks.
    task: Option<(TaskRef, Rc<Local>)>,
}

/// What a task leaves for who waits for it.
struct Joined<T> {
    ended: Cell<bool>,
    output: Cell<Option<Result<T, JoinError>>>,
    waker: Cell<Option<Waker>>,
}

impl<T> Joined<T> {
    fn end(&self, output: Result<T, JoinError>) {
        if !self.ended.replace(true) {
            self.output.set(Some(output));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<T> JoinHandle<T> {
    /// Drops the task's future on its core, soon; its sockets close.
    pub fn abort(self) {
        if let Some((task, local)) = &self.task {
            task.abort(local);
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.joined.ended.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.joined.ended.get() {
            // Polled again after it was ready, there is nothing to give.
            return Poll::Ready(self.joined.output.take().unwrap_or(Err(JoinError::Aborted)));
        }
        self.joined.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// The tasks of one core.
pub(crate) struct Exec {
    remote: Arc<Remote>,
    local: Rc<Local>,
    living: RefCell<Living>,
    closed: Cell<bool>,
    stats: Arc<CoreStats>,
}

/// The tasks that are not done.
#[derive(Default)]
struct Living {
    tasks: Vec<Option<TaskRef>>,
    free: Vec<usize>,
    count: usize,
}

impl Exec {
    /// # Panics
    /// If this thread already runs a core.
    pub(crate) fn new(remote: Arc<Remote>, stats: Arc<CoreStats>) -> Self {
        assert!(LOCAL.get().is_null(), "one core a thread");
        let local =
            Rc::new(Local { id: remote.id(), ready: UnsafeCell::default(), next: UnsafeCell::default() });
        LOCAL.set(Rc::as_ptr(&local));
        Exec { remote, local, living: RefCell::default(), closed: Cell::new(false), stats }
    }

    pub(crate) fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        let joined = Rc::new(Joined {
            ended: Cell::new(self.closed.get()),
            output: Cell::new(None),
            waker: Cell::new(None),
        });
        if self.closed.get() {
            return JoinHandle { joined, task: None };
        }
        let future = Caught::new(future, Some(joined.clone()), &self.stats);
        let task = self.start(TaskRef::new(future, self.remote.clone()));
        JoinHandle { joined, task: Some((task, self.local.clone())) }
    }

    /// As [`Exec::spawn`], for a task that nobody waits for.
    pub(crate) fn spawn_detached(&self, future: impl Future<Output = ()> + 'static) {
        if !self.closed.get() {
            let future = Caught::new(future, None, &self.stats);
            self.start(TaskRef::new(future, self.remote.clone()));
        }
    }

    fn start(&self, task: TaskRef) -> TaskRef {
        let mut living = self.living.borrow_mut();
        let place = living.free.pop().unwrap_or(living.tasks.len());
        if place == living.tasks.len() {
            living.tasks.push(None);
        }
        task.header().place.set(place);
        living.count += 1;
        self.stats.tasks.set(living.count as u64);
        living.tasks[place] = Some(task.clone());
        task.schedule(&self.local);
        task
    }

    pub(crate) fn task_count(&self) -> usize {
        self.living.borrow().count
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.local.is_empty()
    }

    /// Polls at most `limit` ready tasks.
    pub(crate) fn run_ready(&self, limit: usize) {
        for _ in 0..limit {
            let Some(task) = self.local.pop() else { return };
            self.run(task);
        }
    }

    #[inline]
    fn run(&self, task: TaskPtr) {
        // SAFETY: just taken off this thread's run queue.
        if unsafe { task.run(&self.local) } == Ran::Ended {
            self.bury(task);
        }
    }

    #[cold]
    fn bury(&self, task: TaskPtr) {
        let place = task.place();
        let mut living = self.living.borrow_mut();
        let alive = living.tasks[place].take();
        living.free.push(place);
        living.count -= 1;
        self.stats.tasks.set(living.count as u64);
        drop(living);
        // The reference goes with `bury`.
        std::mem::forget(alive);
        // SAFETY: done, and off the list.
        unsafe { task.bury() };
    }

    /// A task that the inbox has brought.
    pub(crate) fn arrive(&self, task: TaskRef) {
        task.arrive(&self.local);
    }

    /// Drops every task on this thread. No task can be spawned after it.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let living: Vec<TaskRef> = self.living.borrow().tasks.iter().flatten().cloned().collect();
        living.iter().for_each(|task| task.abort(&self.local));
        while let Some(task) = self.local.pop() {
            self.run(task);
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

/// A task whose panics end it alone, those of its drop too, and which tells how it ended.
struct Caught<F: Future> {
    /// Dropped in place by `Caught::drop` and nowhere else.
    future: ManuallyDrop<F>,
    joined: Option<Rc<Joined<F::Output>>>,
    stats: Arc<CoreStats>,
}

impl<F: Future> Caught<F> {
    fn new(future: F, joined: Option<Rc<Joined<F::Output>>>, stats: &Arc<CoreStats>) -> Self {
        Caught { future: ManuallyDrop::new(future), joined, stats: stats.clone() }
    }

    /// Counts and logs a panic; returns its message.
    #[cold]
    fn count_panic(&self, payload: Box<dyn Any + Send>) -> String {
        self.stats.task_panics.inc();
        let message = panic_message(payload);
        tracing::error!(message, "a task panicked");
        message
    }

    fn end(&self, output: Result<F::Output, JoinError>) {
        // What runs here is the drop of a value that nobody waits for, and a waker: either may panic.
        let told = catch_unwind(AssertUnwindSafe(|| match &self.joined {
            Some(joined) => joined.end(output),
            None => drop(output),
        }));
        if let Err(payload) = told {
            self.count_panic(payload);
        }
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is never moved out of the pinned task; nothing else in it is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: the same.
        let future = unsafe { Pin::new_unchecked(&mut *this.future) };
        // A future that panicked is not polled again: it is dropped when `Ready` is returned.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => this.end(Ok(output)),
            Err(payload) => this.end(Err(JoinError::Panicked(this.count_panic(payload)))),
        }
        Poll::Ready(())
    }
}

impl<F: Future> Drop for Caught<F> {
    fn drop(&mut self) {
        // SAFETY: this is the only drop of `future`, which stays where it was pinned until it is over.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut self.future) }));
        if let Err(payload) = dropped {
            self.count_panic(payload);
        }
        if self.joined.as_ref().is_some_and(|joined| !joined.ended.get()) {
            self.end(Err(JoinError::Aborted));
        }
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

#[cfg(test)]
mod tests;
