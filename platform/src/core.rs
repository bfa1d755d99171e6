//! One core: a driver, its sockets, its tasks and its timers, turned together on one thread.
//!
//! A turn: run ready tasks (bounded), take the inbox, fire timers, tell the driver what changed (one system call), take
//! in what completed. The clock is read once a turn, after the driver returned.
//!
//! Ending: [`Core::shutdown`] drops every task (their sockets close gracefully), waits for what lingers until the
//! deadline, resets the rest, and reports how many. The driver is dropped before the sockets, so no memory that the
//! kernel may touch is freed early; where the kernel keeps a send, the bytes of that send are leaked with the driver's.

mod handles;
mod share;
mod sleep;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

pub(crate) use handles::Owned;
pub use handles::{Accepted, Connecting, ListenSock, StreamSock};
pub use share::{ListenShare, ListenSocket, ShareSock};
pub use sleep::{Elapsed, Interval, Sleep};

use crate::buf::Pool;
use crate::datagram::Scratch;
use crate::driver::{Driver, DriverKind, Wait};
use crate::exec::{Exec, JoinHandle, panic_message};
use crate::park::Parker;
use crate::remote::{self, Message, Remote};
use crate::sockets::{CloseMode, SockId, Sockets};
use crate::splice::Pipes;
use crate::stats::CoreStats;
pub use crate::timer::CoreTime;
use crate::timer::{Tick, later};

use sleep::{Due, Timers};

/// How a core behaves beyond its driver.
#[derive(Clone, Copy, Debug)]
pub struct CoreSpec {
    /// How long a dropped socket may go on sending what waits. Default 10 s.
    pub linger: Duration,
    /// Polls of ready tasks in one turn. Default 256.
    pub polls_per_turn: usize,
    /// Pipes for [`splice`](crate::splice), two descriptors each; a relay beyond them copies. Default 64; 0 always copies.
    pub max_pipes: usize,
}

impl Default for CoreSpec {
    fn default() -> Self {
        CoreSpec { linger: Duration::from_secs(10), polls_per_turn: 256, max_pipes: 64 }
    }
}

/// A handle to this thread's core. Cheap to clone; never leaves its thread.
#[derive(Clone)]
pub struct Core(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    // The order of the fields is the order of the drops: tasks, then the driver (which reaps), then the sockets.
    exec: Exec,
    driver: RefCell<Box<dyn Driver>>,
    pub(crate) sockets: RefCell<Sockets>,
    timers: RefCell<Timers>,
    pub(crate) pipes: RefCell<Pipes>,
    /// Empty until the first datagram.
    pub(crate) datagrams: RefCell<Scratch>,
    /// Tasks that have used up their share of this turn.
    next_turn: RefCell<Vec<Waker>>,
    pool: Pool,
    remote: Arc<Remote>,
    parker: Parker<remote::Wake>,
    pub(crate) stats: Arc<CoreStats>,
    spec: CoreSpec,
    linger: Cell<Duration>,
    started: Instant,
    now: Cell<Instant>,
    /// The same as `now`.
    time: Cell<CoreTime>,
    messages: RefCell<Vec<Message>>,
    retry_armed: Cell<bool>,
}

/// What the end of a core cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Tasks that were dropped before they ended by themselves.
    pub tasks_aborted: usize,
    /// Sockets reset because they still had bytes to send at the deadline.
    pub sockets_reset: usize,
    /// Operations that the kernel did not give back; their memory is leaked on purpose.
    pub operations_leaked: usize,
}

/// How long to wait before a listener that ran out of descriptors tries again, if none is closed before.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long cancelled operations may take to come back when a core ends.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

impl Core {
    /// A core on this thread. `pool` and `stats` must be those that `driver` was opened with.
    ///
    /// # Panics
    /// If this thread already has a core.
    pub fn new(mut driver: Box<dyn Driver>, pool: Pool, stats: Arc<CoreStats>, spec: CoreSpec) -> Self {
        // A flush says when somebody waits for a send; only then must a turn not sleep.
        driver.set_lazy_sends(true);
        let (remote, parker) = Remote::new(driver.unpark());
        let now = Instant::now();
        Core(Rc::new(Inner {
            exec: Exec::new(remote.clone(), stats.clone()),
            driver: RefCell::new(driver),
            sockets: RefCell::new(Sockets::new(pool.clone(), stats.clone())),
            timers: RefCell::new(Timers::new()),
            pipes: RefCell::new(Pipes::new(spec.max_pipes)),
            datagrams: RefCell::default(),
            next_turn: RefCell::default(),
            pool,
            remote,
            parker,
            stats,
            linger: Cell::new(spec.linger),
            spec,
            started: now,
            now: Cell::new(now),
            time: Cell::default(),
            messages: RefCell::new(Vec::new()),
            retry_armed: Cell::new(false),
        }))
    }

    /// Which driver this core turns.
    pub fn driver_kind(&self) -> DriverKind {
        self.0.driver.borrow().kind()
    }

    /// The pool that received bytes come from.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// What this core counts.
    pub fn stats(&self) -> &Arc<CoreStats> {
        &self.0.stats
    }

    /// The time of this turn; at most one turn old. Costs a load.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// The same in the core's own time, which is cheaper to reckon with.
    #[inline]
    pub fn time(&self) -> CoreTime {
        self.0.time.get()
    }

    /// A point in time in the core's own.
    pub fn time_of(&self, at: Instant) -> CoreTime {
        CoreTime::between(self.0.started, at)
    }

    /// Starts a task on this core. It runs at the earliest when the current one yields.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.0.exec.spawn(future)
    }

    /// As [`Core::spawn`], for a task that nobody waits for: one allocation.
    pub fn spawn_detached(&self, future: impl Future<Output = ()> + 'static) {
        self.0.exec.spawn_detached(future);
    }

    /// Tasks alive.
    pub fn task_count(&self) -> usize {
        self.0.exec.task_count()
    }

    /// How long sockets that are dropped from now on may go on sending: see [`CoreSpec::linger`].
    pub fn set_linger(&self, linger: Duration) {
        self.0.linger.set(linger);
    }

    /// Sockets open, those that are closing included.
    pub fn socket_count(&self) -> usize {
        self.0.sockets.borrow().open_count()
    }

    /// A handle for other threads.
    pub fn remote(&self) -> CoreRemote {
        CoreRemote(self.0.remote.clone())
    }

    /// Turns until `future` is done.
    ///
    /// # Errors
    /// When the driver has become unusable.
    pub fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        let mut future = pin!(future);
        let root = Arc::new(Root { woken: AtomicBool::new(true), remote: self.0.remote.clone() });
        let waker = Waker::from(root.clone());
        loop {
            if root.woken.swap(false, Ordering::Relaxed)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return Ok(value);
            }
            self.turn(&root.woken)?;
        }
    }

    /// Ends the core: drops every task, lets sockets send what waits until `deadline` from now, resets the rest.
    ///
    /// # Errors
    /// When the driver has become unusable.
    pub fn shutdown(&self, deadline: Duration) -> io::Result<ShutdownReport> {
        let inner = &self.0;
        let mut report =
            ShutdownReport { tasks_aborted: inner.exec.task_count(), ..ShutdownReport::default() };
        inner.exec.close();
        self.turn_until_closed(deadline)?;
        if self.socket_count() > 0 {
            report.sockets_reset = inner.sockets.borrow_mut().reset_all();
            self.turn_until_closed(REAP_TIMEOUT)?;
        }
        report.operations_leaked = self.0.driver.borrow().in_flight();
        Ok(report)
    }

    fn turn_until_closed(&self, timeout: Duration) -> io::Result<()> {
        let end = later(Instant::now(), timeout);
        let idle = AtomicBool::new(false);
        while self.socket_count() > 0 && Instant::now() < end {
            // The wheel bounds the wait: without it a socket that never drains would hold the loop.
            let wake = self.0.timers.borrow_mut().guard(self.time_of(end).tick_ceil());
            self.turn(&idle)?;
            self.0.timers.borrow_mut().release(wake);
        }
        Ok(())
    }

    fn turn(&self, root_woken: &AtomicBool) -> io::Result<()> {
        let inner = &*self.0;
        inner.stats.turns.inc();
        inner.exec.run_ready(inner.spec.polls_per_turn);
        self.take_inbox();
        let urgent = {
            let mut sockets = inner.sockets.borrow_mut();
            let mut driver = inner.driver.borrow_mut();
            sockets.flush(&mut **driver)
        };
        self.arm_accept_retry();
        let busy = urgent
            || root_woken.load(Ordering::Relaxed)
            || inner.exec.has_ready()
            || inner.sockets.borrow().has_work()
            || !inner.next_turn.borrow().is_empty()
            // An ending core waits for its sockets: the last one may have gone with this flush.
            || (inner.exec.is_closed() && self.socket_count() == 0);
        let has_work = || inner.remote.has_messages() || root_woken.load(Ordering::Relaxed);
        let parked = !busy && inner.parker.prepare_park(has_work);
        let wait = if parked { self.until_next_timer() } else { Wait::Poll };
        let turned = inner.driver.borrow_mut().turn(wait, &mut *inner.sockets.borrow_mut());
        if parked {
            inner.parker.finish_park();
        }
        let now = Instant::now();
        inner.now.set(now);
        inner.time.set(self.time_of(now));
        inner.next_turn.borrow_mut().drain(..).for_each(Waker::wake);
        self.fire_timers();
        turned
    }

    /// Which turn this is, for who bounds what it does in one.
    pub(crate) fn turn_number(&self) -> u64 {
        self.0.stats.turns.load()
    }

    /// Wakes a task once the driver has been turned: the others, and what has come meanwhile, are first.
    pub(crate) fn wake_next_turn(&self, waker: &Waker) {
        self.0.next_turn.borrow_mut().push(waker.clone());
    }

    /// Closes pipes that nobody uses, for who is short of descriptors.
    pub fn close_idle_pipes(&self) {
        let mut pipes = self.0.pipes.borrow_mut();
        pipes.close_idle();
        self.0.stats.pipes.set(pipes.open_count() as u64);
    }

    fn take_inbox(&self) {
        let mut messages = std::mem::take(&mut *self.0.messages.borrow_mut());
        self.0.remote.take(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Run(task) => self.0.exec.arrive(task),
                Message::Call(call) => self.run_call(call),
            }
        }
        *self.0.messages.borrow_mut() = messages;
    }

    /// A call that panics ends alone, as a task does; what it held is dropped.
    fn run_call(&self, call: Box<dyn FnOnce(&Core) + Send>) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(self))) {
            self.0.stats.task_panics.inc();
            let message = panic_message(payload);
            tracing::error!(message, "a call to a core panicked");
        }
    }

    fn until_next_timer(&self) -> Wait {
        match self.0.timers.borrow().next() {
            Some(tick) => Wait::AtMost(self.instant_of(tick).saturating_duration_since(Instant::now())),
            None => Wait::Forever,
        }
    }

    fn fire_timers(&self) {
        let now = self.time().tick_floor();
        if self.0.timers.borrow().next().is_none_or(|next| next > now) {
            return;
        }
        let due = self.0.timers.borrow_mut().advance(now);
        for due in due {
            match due {
                Due::Wake(waker) => waker.wake(),
                Due::Linger(id) => {
                    self.0.sockets.borrow_mut().close(id, CloseMode::Reset);
                }
                Due::AcceptRetry => {
                    self.0.retry_armed.set(false);
                    self.0.sockets.borrow_mut().retry_accept();
                }
            }
        }
    }

    fn arm_accept_retry(&self) {
        if !self.0.retry_armed.get() && self.0.sockets.borrow().has_accept_retry() {
            self.0.retry_armed.set(true);
            self.close_idle_pipes();
            let at = (self.time() + ACCEPT_RETRY).tick_ceil();
            self.0.timers.borrow_mut().accept_retry(at);
        }
    }

    fn close_socket(&self, id: SockId, mode: CloseMode) {
        let lingers = self.0.sockets.borrow_mut().close(id, mode);
        if lingers {
            let at = (self.time() + self.0.linger.get()).tick_ceil();
            self.0.timers.borrow_mut().linger(at, id);
        }
    }

    fn instant_of(&self, tick: Tick) -> Instant {
        self.0.started + Duration::from_nanos(tick.to_nanos())
    }
}

/// A core as other threads reach it.
#[derive(Clone)]
pub struct CoreRemote(Arc<Remote>);

impl CoreRemote {
    /// Runs `call` on the core, soon. False when the core has ended; `call` is dropped then. A panic in it is counted
    /// and logged, and the core goes on.
    pub fn call(&self, call: impl FnOnce(&Core) + Send + 'static) -> bool {
        self.0.send(Message::Call(Box::new(call)))
    }
}

struct Root {
    woken: AtomicBool,
    remote: Arc<Remote>,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.remote.notify();
        }
    }
}
