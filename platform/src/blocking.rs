//! A bounded pool of threads for calls that block: names and files.
//!
//! A job: queued -> running -> done. Dropping its future while queued removes the job; while running, its result is
//! dropped on the pool's thread. Threads start when a job finds none idle and end after ten idle seconds.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::exec::panic_message;

/// The pool. Dropping it drops what is queued and does not wait for what runs; see [`BlockingPool::shutdown`].
pub struct BlockingPool {
    shared: Arc<Shared>,
}

/// The result of a job to come; may be polled on any executor.
#[must_use = "dropping it cancels a job that has not begun"]
pub struct BlockingJob<R> {
    cell: Arc<Mutex<Cell<R>>>,
}

/// No thread and no place in the queue is free, the pool has shut down, or the system gave no first thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFull;

/// The job has no result: it panicked, or the pool ended before it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    message: String,
}

impl Panicked {
    /// What the panic said, when that was text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for PoolFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the blocking pool takes no more jobs")
    }
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a blocking job gave no result: {}", self.message)
    }
}

impl std::error::Error for PoolFull {}
impl std::error::Error for Panicked {}

impl BlockingPool {
    /// A pool of at most `max_threads` (at least 1 is used), with `max_queue` jobs waiting beyond those that run.
    ///
    /// Starts no thread.
    pub fn new(max_threads: usize, max_queue: usize) -> Self {
        Self::with_idle(max_threads, max_queue, IDLE)
    }

    fn with_idle(max_threads: usize, max_queue: usize, idle: Duration) -> Self {
        let max_threads = max_threads.max(1);
        let max_jobs = max_threads.saturating_add(max_queue);
        let state =
            Mutex::new(State { queue: VecDeque::new(), threads: 0, idle: 0, running: 0, closed: false });
        let shared =
            Shared { state, work: Condvar::new(), ended: Condvar::new(), max_threads, max_jobs, idle };
        BlockingPool { shared: Arc::new(shared) }
    }

    /// Queues a job. Two allocations, one short lock, and the start of a thread when none is idle.
    ///
    /// Dropping the future skips the job if it has not begun; one that runs is not stopped.
    ///
    /// # Errors
    /// [`PoolFull`]; the job is then dropped, on this thread.
    pub fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Result<BlockingJob<R>, PoolFull> {
        let cell = Arc::new(Mutex::new(Cell::Waiting(None)));
        let queued = Queued { job, finish: Finish { cell: Arc::clone(&cell), done: false } };
        // Made before the lock and dropped after it: a refused or abandoned job's drop is the caller's code.
        let future = BlockingJob { cell };
        let refused = self.shared.enqueue(Box::new(queued));
        if refused.is_some() { Err(PoolFull) } else { Ok(future) }
    }

    /// Refuses jobs from now on, finishes those it has, and waits until its threads have ended; true when they have.
    ///
    /// At `deadline` what is still queued is dropped (its futures give [`Panicked`]); what runs is left behind. Blocks.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.work.notify_all();
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_timeout(&self.shared.ended, state, left);
        }
        let ended = state.threads == 0;
        let dropped = std::mem::take(&mut state.queue);
        drop(state);
        drop_jobs(dropped);
        ended
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.queue);
        self.shared.work.notify_all();
        drop(state);
        drop_jobs(dropped);
    }
}

/// Looks `host` up with getaddrinfo(3) in the pool; `host` may be an address. The system's order, duplicates kept.
///
/// # Errors
/// [`PoolFull`] at once; the lookup's own error comes with the job. A lookup has no timeout but the resolver's: once it
/// runs, dropping the job leaves its thread taken until then.
pub fn resolve(
    pool: &BlockingPool,
    host: &str,
    port: u16,
) -> Result<BlockingJob<io::Result<Vec<SocketAddr>>>, PoolFull> {
    let host = host.to_owned();
    pool.submit(move || {
        if host.is_empty() {
            // Windows takes it for a name of this machine.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty name"));
        }
        Ok((host.as_str(), port).to_socket_addrs()?.collect())
    })
}

struct Shared {
    state: Mutex<State>,
    /// A job came, or the pool closed.
    work: Condvar,
    /// A thread ended.
    ended: Condvar,
    max_threads: usize,
    max_jobs: usize,
    idle: Duration,
}

struct State {
    queue: VecDeque<Box<dyn Job>>,
    threads: usize,
    /// Threads that wait for work; one that was notified counts until it runs, and so does the job meant for it.
    idle: usize,
    running: usize,
    closed: bool,
}

impl Shared {
    /// Gives back what must be dropped outside of the lock: the job itself when it is refused.
    fn enqueue(self: &Arc<Self>, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let mut abandoned = VecDeque::new();
        let mut state = self.lock();
        if state.queue.len() + state.running >= self.max_jobs {
            let (gone, kept) =
                std::mem::take(&mut state.queue).into_iter().partition(|job| job.is_abandoned());
            state.queue = kept;
            abandoned = gone;
        }
        let mut refused = None;
        if state.closed || state.queue.len() + state.running >= self.max_jobs {
            refused = Some(job);
        } else {
            state.queue.push_back(job);
            if state.queue.len() > state.idle && state.threads < self.max_threads && self.spawn() {
                state.threads += 1;
            }
            if state.threads == 0 {
                refused = state.queue.pop_back();
            }
            self.work.notify_one();
        }
        drop(state);
        drop_jobs(abandoned);
        refused
    }

    fn spawn(self: &Arc<Self>) -> bool {
        let shared = Arc::clone(self);
        thread::Builder::new().name("ringport-blocking".into()).spawn(move || shared.serve()).is_ok()
    }

    /// A thread's life. Jobs catch their own panics.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                job.run();
                state = self.lock();
                state.running -= 1;
                continue;
            }
            if state.closed {
                break;
            }
            let idle_since = Instant::now();
            state.idle += 1;
            while state.queue.is_empty() && !state.closed && idle_since.elapsed() < self.idle {
                let left = self.idle.saturating_sub(idle_since.elapsed());
                state = wait_timeout(&self.work, state, left);
            }
            state.idle -= 1;
            if state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No job's code runs under the lock, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait Job: Send {
    fn is_abandoned(&self) -> bool;
    fn run(self: Box<Self>);
}

struct Queued<F, R> {
    job: F,
    finish: Finish<R>,
}

impl<R: Send, F: FnOnce() -> R + Send> Job for Queued<F, R> {
    fn is_abandoned(&self) -> bool {
        matches!(*lock(&self.finish.cell), Cell::Abandoned)
    }

    fn run(self: Box<Self>) {
        let abandoned = self.is_abandoned();
        let Queued { job, mut finish } = *self;
        if abandoned {
            // What it captured may panic in its drop; the thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(job)));
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(job));
        let result = result.map_err(|payload| Panicked { message: panic_message(payload) });
        let _ = catch_unwind(AssertUnwindSafe(|| finish.set(result)));
    }
}

enum Cell<R> {
    Waiting(Option<Waker>),
    Done(Result<R, Panicked>),
    /// The result was taken, or the future dropped: nobody looks any more.
    Abandoned,
}

/// Completes the future: with a result, or on drop without one.
struct Finish<R> {
    cell: Arc<Mutex<Cell<R>>>,
    done: bool,
}

impl<R> Finish<R> {
    fn set(&mut self, result: Result<R, Panicked>) {
        self.done = true;
        let mut cell = lock(&self.cell);
        if let Cell::Waiting(waker) = &mut *cell {
            let waker = waker.take();
            *cell = Cell::Done(result);
            drop(cell);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else {
            // Before `result` is dropped, which is the caller's code.
            drop(cell);
        }
    }
}

impl<R> Drop for Finish<R> {
    fn drop(&mut self) {
        if !self.done {
            self.set(Err(Panicked { message: "the pool ended before it ran".into() }));
        }
    }
}

impl<R> Future for BlockingJob<R> {
    type Output = Result<R, Panicked>;

    /// # Panics
    /// When polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut cell = lock(&self.cell);
        if let Cell::Waiting(waker) = &mut *cell {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let taken = std::mem::replace(&mut *cell, Cell::Abandoned);
        drop(cell);
        match taken {
            Cell::Done(result) => Poll::Ready(result),
            Cell::Waiting(_) | Cell::Abandoned => panic!("polled after it was ready"),
        }
    }
}

impl<R> Drop for BlockingJob<R> {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *lock(&self.cell), Cell::Abandoned);
        // Outside of the lock: a result or a waker is the caller's code.
        drop(left);
    }
}

fn drop_jobs(jobs: VecDeque<Box<dyn Job>>) {
    for job in jobs {
        // One whose captured values panic in their drop must not keep the rest from completing.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(job)));
    }
}

fn lock<R>(cell: &Mutex<Cell<R>>) -> MutexGuard<'_, Cell<R>> {
    // Every change of a cell is one assignment, so a poisoned one is whole.
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_timeout<'a>(
    condvar: &Condvar,
    state: MutexGuard<'a, State>,
    timeout: Duration,
) -> MutexGuard<'a, State> {
    condvar.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
}

const IDLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
