//! One thread and one core each: started together, told together to drain, joined with a report.
//!
//! ```text
//! Running --drain()--> Draining: the core's main future sees the signal, stops accepting, waits for its tasks
//!         --main ends, or the deadline passes--> Ending: what is left is aborted and counted --> joined
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::buf::{Pool, PoolSpec};
use crate::core::{Core, CoreRemote, CoreSpec, ShutdownReport};
use crate::driver::Driver;
use crate::exec::panic_message;
use crate::process;
use crate::stats::CoreStats;
use crate::timer::later;

/// Opens the driver of a core, on the core's own thread.
pub type OpenDriver = dyn Fn(Pool, Arc<CoreStats>) -> io::Result<Box<dyn Driver>> + Send + Sync;

/// What to start.
pub struct LaunchSpec {
    /// How many cores (threads); at least 1.
    pub cores: usize,
    /// Bind thread `n` to the `n`th processor that this process may use; one that cannot be bound is logged and runs free.
    pub pin: bool,
    /// Each core's receive memory.
    pub pool: PoolSpec,
    /// Each core's habits.
    pub core: CoreSpec,
    /// How to get a driver.
    pub open: Arc<OpenDriver>,
}

/// A core's main future is given this.
#[derive(Clone)]
pub struct CoreContext {
    /// The core it runs on.
    pub core: Core,
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// Resolves when the cores are told to drain.
    pub drain: DrainSignal,
}

/// Tells the tasks of a core that it drains.
#[derive(Clone, Default)]
pub struct DrainSignal(Rc<RefCell<DrainState>>);

#[derive(Default)]
struct DrainState {
    draining: bool,
    /// One place for each future that waits; those in `free` are empty.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl DrainSignal {
    /// Whether the core drains.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until it does.
    pub fn wait(&self) -> Drained {
        Drained { signal: self.clone(), place: None }
    }

    /// Futures that wait now.
    pub fn waiting(&self) -> usize {
        let state = self.0.borrow();
        state.wakers.len() - state.free.len()
    }

    /// Raises the signal.
    pub fn raise(&self) {
        let wakers = {
            let mut state = self.0.borrow_mut();
            state.draining = true;
            state.free.clear();
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// A wait for the drain of a core. Dropping it leaves nothing behind.
pub struct Drained {
    signal: DrainSignal,
    place: Option<usize>,
}

impl Future for Drained {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let signal = self.signal.clone();
        let mut state = signal.0.borrow_mut();
        if state.draining {
            self.place = None;
            return Poll::Ready(());
        }
        let place = *self.place.get_or_insert_with(|| {
            state.free.pop().unwrap_or_else(|| {
                state.wakers.push(None);
                state.wakers.len() - 1
            })
        });
        if !state.wakers[place].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.wakers[place] = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let mut state = self.signal.0.borrow_mut();
        // Once the signal was raised all places are gone.
        if let (Some(place), false) = (self.place, state.draining) {
            let waker = state.wakers[place].take();
            state.free.push(place);
            drop(state);
            drop(waker);
        }
    }
}

/// How one core ended.
#[derive(Debug)]
pub struct CoreEnd {
    /// Its number.
    pub index: usize,
    /// What was cut off, or why the core failed.
    pub result: io::Result<ShutdownReport>,
}

/// Cores that run. Dropping it without [`Launched::join`] leaves them running.
pub struct Launched {
    cores: Vec<Running>,
}

struct Running {
    index: usize,
    stats: Arc<CoreStats>,
    remote: CoreRemote,
    drain_until: Arc<std::sync::Mutex<Option<Instant>>>,
    raised: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<ShutdownReport>>,
}

struct Started {
    remote: CoreRemote,
    stats: Arc<CoreStats>,
}

/// Starts `spec.cores` threads; each runs the future that `main` makes on it. Returns when all have started.
///
/// # Errors
/// When a thread cannot be made, or a driver cannot be opened; the cores that had started are ended then.
pub fn launch<M, F>(spec: LaunchSpec, main: M) -> io::Result<Launched>
where
    M: Fn(CoreContext) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    assert!(spec.cores >= 1, "a launch needs a core");
    let (main, spec) = (Arc::new(main), Arc::new(spec));
    let mut launched = Launched { cores: Vec::new() };
    for index in 0..spec.cores {
        match start(index, spec.clone(), main.clone()) {
            Ok(running) => launched.cores.push(running),
            Err(error) => {
                launched.drain(Duration::ZERO);
                launched.join();
                return Err(error);
            }
        }
    }
    Ok(launched)
}

fn start<M, F>(index: usize, spec: Arc<LaunchSpec>, main: Arc<M>) -> io::Result<Running>
where
    M: Fn(CoreContext) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    let (tell, told) = std::sync::mpsc::channel();
    let drain_until = Arc::new(std::sync::Mutex::new(None));
    let raised = Arc::new(AtomicBool::new(false));
    let thread = {
        let drain_until = drain_until.clone();
        let name = format!("core-{index}");
        thread::Builder::new()
            .name(name)
            .spawn(move || core_main(index, &spec, &*main, &tell, &drain_until))?
    };
    match told.recv() {
        Ok(Ok(Started { remote, stats })) => {
            Ok(Running { index, stats, remote, drain_until, raised, thread })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("a core's thread ended while it started")),
    }
}

thread_local! {
    static DRAIN: DrainSignal = DrainSignal::default();
}

fn core_main<M, F>(
    index: usize,
    spec: &LaunchSpec,
    main: &M,
    tell: &std::sync::mpsc::Sender<io::Result<Started>>,
    drain_until: &std::sync::Mutex<Option<Instant>>,
) -> io::Result<ShutdownReport>
where
    M: Fn(CoreContext) -> F,
    F: Future<Output = io::Result<()>> + 'static,
{
    if spec.pin {
        pin_thread(index);
    }
    let pool = Pool::new(spec.pool);
    let stats = Arc::new(CoreStats::default());
    let driver = match (spec.open)(pool.clone(), stats.clone()) {
        Ok(driver) => driver,
        Err(error) => {
            // The starter waits for this; if it has gone nobody needs it.
            let _ = tell.send(Err(error));
            return Ok(ShutdownReport::default());
        }
    };
    let core = Core::new(driver, pool, stats.clone(), spec.core);
    let drain = DRAIN.with(DrainSignal::clone);
    // As above.
    let _ = tell.send(Ok(Started { remote: core.remote(), stats }));
    let context = CoreContext { core: core.clone(), index, count: spec.cores, drain: drain.clone() };
    let outcome = core.block_on(until_deadline(core.clone(), drain, drain_until, main(context)))?;
    let left = drain_until
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .map_or(spec.core.linger, |until| until.saturating_duration_since(Instant::now()));
    let report = core.shutdown(left)?;
    outcome.map(|()| report)
}

/// Runs `main`, but not past the deadline that comes with the drain signal.
async fn until_deadline(
    core: Core,
    drain: DrainSignal,
    drain_until: &std::sync::Mutex<Option<Instant>>,
    main: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut main = std::pin::pin!(main);
    let mut signal = std::pin::pin!(drain.wait());
    let mut deadline = None;
    std::future::poll_fn(|cx| {
        // After a panic the core still closes what its tasks hold; `main` is not polled again.
        match catch_unwind(AssertUnwindSafe(|| main.as_mut().poll(cx))) {
            Ok(Poll::Ready(end)) => return Poll::Ready(end),
            Ok(Poll::Pending) => {}
            Err(payload) => {
                let message = panic_message(payload);
                return Poll::Ready(Err(io::Error::other(format!(
                    "the core's main future panicked: {message}"
                ))));
            }
        }
        if deadline.is_none() && signal.as_mut().poll(cx).is_ready() {
            let until = *drain_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            deadline = Some(core.sleep_until(until.unwrap_or_else(|| core.now())));
        }
        match deadline.as_mut() {
            Some(sleep) => sleep.poll_elapsed(cx).map(Ok),
            None => Poll::Pending,
        }
    })
    .await
}

impl Launched {
    /// How many cores run.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// What each core counts.
    pub fn stats(&self) -> Vec<Arc<CoreStats>> {
        self.cores.iter().map(|core| core.stats.clone()).collect()
    }

    /// A handle to each core.
    pub fn remotes(&self) -> Vec<CoreRemote> {
        self.cores.iter().map(|core| core.remote.clone()).collect()
    }

    /// Tells every core to drain; main futures that have not ended after `timeout` are dropped. Only the first call counts.
    pub fn drain(&self, timeout: Duration) {
        let until = later(Instant::now(), timeout);
        for core in &self.cores {
            if core.raised.swap(true, Ordering::Relaxed) {
                continue;
            }
            *core.drain_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(until);
            core.remote.call(|_| DRAIN.with(DrainSignal::raise));
        }
    }

    /// Whether every core's thread has ended.
    pub fn is_finished(&self) -> bool {
        self.cores.iter().all(|core| core.thread.is_finished())
    }

    /// Waits for every core's end.
    pub fn join(self) -> Vec<CoreEnd> {
        self.cores
            .into_iter()
            .map(|core| {
                let result =
                    core.thread.join().unwrap_or_else(|_| Err(io::Error::other("the core panicked")));
                CoreEnd { index: core.index, result }
            })
            .collect()
    }
}

/// Binds this thread to the `index`th processor that it may run on, and begins again where there are fewer.
///
/// A core that cannot be bound serves all the same: it is slower at most.
fn pin_thread(index: usize) {
    let bound = process::available_cores().and_then(|cores| match cores.get(index % cores.len().max(1)) {
        Some(core) => process::pin_to_core(*core),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    });
    if let Err(error) = bound {
        tracing::warn!(index, %error, "a core could not be bound to a processor");
    }
}
