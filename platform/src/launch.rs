//! One thread and one core each: started together, told together to drain, joined with a report.
//!
//! ```text
//! Running --drain()--> Draining: the core's main future sees the signal, stops accepting, waits for its tasks
//!         --main ends, or the deadline passes--> Ending: what is left is aborted and counted --> joined
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
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
use crate::stats::CoreStats;
use crate::timer::deadline_after;

/// Opens the driver of a core, on the core's own thread.
pub type OpenDriver = dyn Fn(Pool, Arc<CoreStats>) -> io::Result<Box<dyn Driver>> + Send + Sync;

/// What to start.
pub struct LaunchSpec {
    /// How many cores (threads); at least 1.
    pub cores: usize,
    /// Bind thread `n` to the `n`th processor that this process may use.
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
    /// Who waits, by the number of the wait.
    wakers: HashMap<u64, Waker>,
    next: u64,
}

impl DrainSignal {
    /// Whether the core drains.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until it does. Dropping the future forgets the wait, so that a task a connection may hold one.
    pub fn wait(&self) -> impl Future<Output = ()> + 'static {
        DrainWait { signal: self.clone(), number: None }
    }

    /// Raises the signal.
    pub fn raise(&self) {
        let wakers = {
            let mut state = self.0.borrow_mut();
            state.draining = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

struct DrainWait {
    signal: DrainSignal,
    number: Option<u64>,
}

impl Future for DrainWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let signal = self.signal.clone();
        let mut state = signal.0.borrow_mut();
        if state.draining {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        let earlier = state.wakers.insert(number, cx.waker().clone());
        drop(state);
        drop(earlier);
        Poll::Pending
    }
}

impl Drop for DrainWait {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.signal.0.borrow_mut().wakers.remove(&number);
            // The last waker of a task frees it, which may drop another wait: never inside a borrow.
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
        if let Poll::Ready(end) = main.as_mut().poll(cx) {
            return Poll::Ready(end);
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
        let until = deadline_after(Instant::now(), timeout);
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

/// Binds this thread to the `index`th processor that it may run on; leaves it where that fails.
fn pin_thread(index: usize) {
    // SAFETY: `cpu_set_t` is plain data; the kernel fills it during the call.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives for the call and has the size that is told.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) } != 0 {
        return;
    }
    // SAFETY: `CPU_ISSET` reads inside the set for numbers below `CPU_SETSIZE`.
    let cpus = (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) });
    let cpus: Vec<usize> = cpus.collect();
    let Some(cpu) = cpus.get(index % cpus.len().max(1)) else { return };
    // SAFETY: as above; the set is written inside its size and read during the call.
    unsafe {
        let mut only: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(*cpu, &mut only);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const only);
    }
}
