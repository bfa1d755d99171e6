//! A run: cores that send by a schedule, until it is over or a signal comes.
//!
//! ```text
//! Running --time up, or a signal--> Ending: what is in flight has a moment to be answered --> tallied
//!         --all requests answered or failed-------------------------------------------------> tallied
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringport::runtime::native::{CoreContext, CoreSpec, DriverKind, Launched, Native, NativeSpec};
use ringport::runtime::{ConnectAddr, Runtime};
use ringport_platform::process;
use ringport_platform::signal::{Signal, Signals};
use ringport_platform::stats::Counter;
use ringport_platform::timer::later;

use super::connection;
use super::progress::Progress;
use super::schedule::{Pace, Schedule, Ticket, share};
use super::tally::{Failure, Tally};
use super::target::Request;
use crate::proxy::DriverSettings;

/// What a connection does over and over.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Http(Request),
    /// These bytes, which are to come back.
    Echo(Bytes),
}

/// What is to be run.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub addr: ConnectAddr,
    pub work: Work,
    pub connections: usize,
    pub cores: usize,
    /// Requests in flight on a connection.
    pub depth: usize,
    /// A connection carries one request.
    pub fresh: bool,
    pub timeout: Duration,
    pub warm_up: Duration,
    pub duration: Option<Duration>,
    pub requests: Option<u64>,
    pub rate: Option<f64>,
    /// The processor that the one core is bound to.
    pub pin: Option<usize>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub tally: Tally,
    /// From the end of the warm-up to the last answer, or to the end of the time or a signal where that is later.
    pub elapsed: Duration,
    pub interrupted: bool,
    pub driver: DriverKind,
    /// Part of the time that the busiest of our own cores ran: near 1 it may be what limits the rate.
    pub busy: f64,
}

/// What one core did.
struct End {
    tally: Tally,
    driver: DriverKind,
    busy: f64,
}

/// Runs a job to its end. A signal ends it early.
pub(super) fn run(
    job: Job,
    settings: DriverSettings,
    signals: &Signals,
    progress: &mut Progress,
) -> Result<Outcome, String> {
    let cores = job.cores;
    let shared = Arc::new(Shared {
        job,
        begin: OnceLock::new(),
        live: (0..cores).map(|_| Live::default()).collect(),
        ends: Mutex::default(),
    });
    let spec = NativeSpec {
        driver: settings.choice,
        disable: settings.disable,
        // What is unsent at the end goes to a peer that does not read.
        core: CoreSpec { linger: Duration::from_millis(100), ..CoreSpec::default() },
        ..NativeSpec::default()
    };
    let given = shared.clone();
    let launched = spec.launch(cores, move |runtime, context| run_core(runtime, context, given.clone()));
    let launched = launched.map_err(|error| format!("cannot start: {error}"))?;
    let begin = *shared.begin.get_or_init(Instant::now);
    let interrupted = watch(&launched, &shared, signals, progress)?;
    for end in launched.join() {
        end.result.map_err(|error| format!("core {} failed: {error}", end.index))?;
    }
    let ends = std::mem::take(&mut *shared.ends.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(outcome(&ends, begin + shared.job.warm_up, interrupted))
}

fn outcome(ends: &[End], start: Instant, interrupted: bool) -> Outcome {
    let mut tally = Tally::new();
    ends.iter().for_each(|end| tally.add(&end.tally));
    let elapsed = tally.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(start));
    let driver = ends.first().map_or(DriverKind::here()[0], |end| end.driver);
    let busy = ends.iter().map(|end| end.busy).fold(0.0, f64::max);
    Outcome { tally, elapsed, interrupted, driver, busy }
}

/// Waits for the cores; shows how far they are. Returns whether a signal ended them.
fn watch(
    launched: &Launched,
    shared: &Shared,
    signals: &Signals,
    progress: &mut Progress,
) -> Result<bool, String> {
    let mut interrupted = false;
    while !launched.is_finished() {
        let came = signals.wait(Some(GLANCE)).map_err(|error| format!("cannot watch signals: {error}"))?;
        if came.contains(Signal::Interrupt) || came.contains(Signal::Terminate) {
            interrupted = true;
            launched.drain(GRACE * 2);
        }
        let sum = |of: fn(&Live) -> &Counter| shared.live.iter().map(|live| of(live).load()).sum();
        progress.show(sum(|live| &live.completed), sum(|live| &live.failed));
    }
    progress.clear();
    Ok(interrupted)
}

/// What all cores see.
struct Shared {
    job: Job,
    /// Set once every core has its driver, so that none starts behind its schedule.
    begin: OnceLock<Instant>,
    live: Vec<Live>,
    ends: Mutex<Vec<End>>,
}

#[derive(Debug, Default)]
struct Live {
    completed: Counter,
    failed: Counter,
}

async fn run_core(runtime: Native, context: CoreContext, shared: Arc<Shared>) -> io::Result<()> {
    if let Some(core) = shared.job.pin {
        process::pin_to_core(core)?;
    }
    let begin = loop {
        // Waiting without turning the core would hold up its end when another core cannot start.
        match shared.begin.get() {
            Some(begin) => break *begin,
            None => runtime.sleep(Duration::from_millis(1)).await,
        }
    };
    let driver = runtime.core().driver_kind();
    let (cpu, since) = (process::thread_cpu_time()?, Instant::now());
    let worker = Rc::new(Worker::new(runtime, shared.clone(), context.index, begin));
    for _ in 0..share(shared.job.connections as u64, context.index, context.count) {
        worker.tasks.set(worker.tasks.get() + 1);
        worker.runtime.spawn(connection::run(Task(worker.clone())));
    }
    let asked = worker.until_over(&context).await;
    let cpu = process::thread_cpu_time()?.saturating_sub(cpu);
    let busy = cpu.as_secs_f64() / since.elapsed().as_secs_f64().max(1e-9);
    worker.end(asked).await;
    let tally = worker.tally.replace(Tally::new());
    shared.ends.lock().unwrap_or_else(PoisonError::into_inner).push(End { tally, driver, busy });
    Ok(())
}

/// A request on its way through the tasks of a core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub ticket: Ticket,
    /// Counted as sent: it was given back by a connection that its peer closed in order.
    pub started: bool,
    /// A connection stood ready for it before it was due.
    pub awaited: bool,
}

/// What the tasks of one core share.
pub(super) struct Worker {
    pub runtime: Native,
    shared: Arc<Shared>,
    index: usize,
    schedule: RefCell<Schedule>,
    /// Started and to be sent again; never more than were in flight.
    again: RefCell<VecDeque<Turn>>,
    tally: RefCell<Tally>,
    in_flight: Cell<u64>,
    tasks: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// A task's hold on its worker; the end of the last one ends the run.
pub(super) struct Task(pub Rc<Worker>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        self.0.wake();
    }
}

impl Worker {
    fn new(runtime: Native, shared: Arc<Shared>, index: usize, begin: Instant) -> Self {
        let job = &shared.job;
        let mut schedule = Schedule::new(begin, job.warm_up);
        schedule.end = job.duration.map(|duration| later(schedule.start, duration));
        schedule.left = job.requests.map(|total| share(total, index, job.cores));
        schedule.pace = job.rate.map(|rate| Pace { rate, index, cores: job.cores });
        Worker {
            runtime,
            index,
            schedule: RefCell::new(schedule),
            again: RefCell::default(),
            tally: RefCell::new(Tally::new()),
            in_flight: Cell::new(0),
            tasks: Cell::new(0),
            waker: RefCell::new(None),
            shared,
        }
    }

    pub(super) fn job(&self) -> &Job {
        &self.shared.job
    }

    /// The next request, perhaps due later.
    pub(super) fn take(&self) -> Option<Turn> {
        let again = self.again.borrow_mut().pop_front();
        again.or_else(|| {
            let ticket = self.schedule.borrow_mut().next(Instant::now())?;
            Some(Turn { ticket, started: false, awaited: false })
        })
    }

    pub(super) fn give_back(&self, turn: Turn) {
        self.again.borrow_mut().push_back(turn);
    }

    /// Counts a request as sent.
    pub(super) fn start(&self, turn: &mut Turn) {
        if !turn.started {
            turn.started = true;
            self.in_flight.set(self.in_flight.get() + 1);
            let mut tally = self.tally.borrow_mut();
            tally.sent += u64::from(turn.ticket.counted);
            if turn.awaited && turn.ticket.counted {
                tally.sent_late(Instant::now().saturating_duration_since(turn.ticket.due));
            }
        }
    }

    pub(super) fn connected(&self) {
        self.tally.borrow_mut().connections += 1;
    }

    pub(super) fn complete(&self, turn: Turn, status: Option<u16>, body_bytes: u64) {
        if turn.ticket.counted {
            let now = Instant::now();
            let mut tally = self.tally.borrow_mut();
            tally.complete(now.saturating_duration_since(turn.ticket.due), now);
            tally.body_bytes += body_bytes;
            if let Some(status) = status {
                tally.status(status);
            }
            self.shared.live[self.index].completed.inc();
        }
        self.settle();
    }

    pub(super) fn fail(&self, turn: Turn, failure: Failure) {
        if turn.ticket.counted {
            self.tally.borrow_mut().fail(failure);
            self.shared.live[self.index].failed.inc();
        }
        self.settle();
    }

    fn settle(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until the time is up, every task has ended, or a signal came: then true.
    async fn until_over(&self, context: &CoreContext) -> bool {
        let mut drain = pin!(context.drain.wait());
        let end = self.schedule.borrow().end;
        let mut end = end.map(|end| self.runtime.timer(end));
        poll_fn(|cx| {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            if drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            let up = end.as_mut().is_some_and(|end| end.poll_elapsed(cx).is_ready());
            if up || self.tasks.get() == 0 { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// Lets what is in flight be answered, for a moment.
    async fn end(&self, asked: bool) {
        let now = Instant::now();
        {
            let (mut tally, schedule) = (self.tally.borrow_mut(), self.schedule.borrow());
            tally.unsent = schedule.missed(now);
            let over = if asked { Some(now) } else { schedule.ended_by_time() };
            tally.last = tally.last.max(over).or(Some(now));
        }
        if asked {
            self.schedule.borrow_mut().stop();
        }
        let mut grace = self.runtime.timer(later(self.runtime.now(), GRACE));
        poll_fn(|cx| {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            // A task may hold a request that is due later; after a signal nobody waits for that.
            let done = self.tasks.get() == 0 || asked && self.in_flight.get() == 0;
            if done { Poll::Ready(()) } else { grace.poll_elapsed(cx) }
        })
        .await;
    }
}

/// How long requests in flight at the end may take.
const GRACE: Duration = Duration::from_secs(1);
/// How often signals and the progress are looked at.
const GLANCE: Duration = Duration::from_millis(20);
