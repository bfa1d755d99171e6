//! `ringport proxy`: listeners, a core each, origins behind them, and an orderly end.
//!
//! The main thread owns the signals, the config and the end; each core owns everything that its connections touch. Names are
//! looked up from core 0, and every core is told.

mod admin;
mod config;
mod date;
mod downstream;
mod exchange;
mod fields;
mod http2;
mod listeners;
mod log;
mod multiplexed;
mod pool;
mod reload;
mod room;
mod routes;
mod serving;
mod session;
mod stats;
mod tunnel;
mod upstream;
mod visit;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Version;
use ringport::net::Bounded;
use ringport::net::tls::Link;
use ringport::proto::http_date::HttpDate;
use ringport::proto::http1::{self, Authority, FieldWriter};
use ringport::runtime::native::Native;
use ringport::spec::ProxySpec;
use ringport_platform::buf::PoolSpec;
use ringport_platform::core::{Core, CoreRemote, CoreSpec, CoreTime};
use ringport_platform::driver::{DriverChoice, Mechanism, Mechanisms, OpenError, open};
use ringport_platform::launch::{CoreContext, DrainSignal, LaunchSpec, Launched, launch};
use ringport_platform::process;
use ringport_platform::signal::{Signal, Signals};

use config::{Config, Snapshot};
use date::Clock;
use fields::Via;
use listeners::{Bound, CoreListener};
use log::LogSender;
use pool::OriginTls;
use room::{Connections, Counted};
use serving::Doors;
use session::Sessions;
use stats::{ListenerStats, ProxyStats, Sources};

/// A connection of a client, with the deadlines of its listener, and with its TLS.
pub(crate) type ClientConn = Link<Bounded<Native>>;

/// What sessions of one core share.
pub(crate) struct Shared {
    pub core: Core,
    index: usize,
    pub runtime: Native,
    config: RefCell<Rc<Config>>,
    /// Of the config.
    pub generation: Cell<u64>,
    pub origin_limits: http1::Limits,
    pub origin_http2: ringport::proto::http2::Spec,
    pub stats: Arc<ProxyStats>,
    pub sessions: RefCell<Sessions>,
    pub via: Via,
    /// What an origin behind a socket's path is told where a client names no host.
    pub localhost: Authority,
    clock: RefCell<Clock>,
    drain: DrainSignal,
    doors: Doors,
    connections: Arc<Connections>,
    everywhere: Everywhere,
    /// When kept connections were given up last, and how many sockets are open when all of those are closed.
    gave_up: Cell<Option<(CoreTime, usize)>>,
}

impl Shared {
    fn new(context: &CoreContext, plan: &Plan) -> Self {
        let stats = plan.stats[context.index].clone();
        let runtime = Native::new(context.core.clone());
        let config = Config::new(&plan.snapshot, &[], &runtime, &stats);
        let via = Via::new();
        let clock = Clock::new(via.of(Version::HTTP_11).clone());
        Shared {
            core: context.core.clone(),
            index: context.index,
            runtime,
            generation: Cell::new(config.generation),
            config: RefCell::new(Rc::new(config)),
            origin_limits: http1::Limits::default(),
            origin_http2: ringport::proto::http2::Spec::default(),
            stats,
            sessions: RefCell::default(),
            via,
            localhost: Authority::new("localhost").expect("a host"),
            clock: RefCell::new(clock),
            drain: context.drain.clone(),
            doors: Doors::default(),
            connections: plan.connections.clone(),
            everywhere: plan.everywhere.clone(),
            gave_up: Cell::new(None),
        }
    }

    /// The config in effect.
    pub(crate) fn config(&self) -> Rc<Config> {
        self.config.borrow().clone()
    }

    /// Whether the process is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Puts `Date`, and `Via` for a message of `version`.
    pub(crate) fn put_date_and_via(&self, out: &mut FieldWriter<'_>, version: Version) {
        let (mut clock, now) = (self.clock.borrow_mut(), self.core.time());
        if version == Version::HTTP_11 {
            return out.put_block(clock.fields(now));
        }
        out.put("date", &clock.date(now)).expect("a date is visible ASCII");
        out.put_block(self.via.of(version));
    }

    /// Closes the kept connections to origins, all of this core: descriptors are short, and these are in no use. False if
    /// there were none; otherwise returns when they are gone, which takes a few turns.
    pub(crate) async fn give_up_idle(&self) -> bool {
        self.core.close_idle_pipes();
        let (now, open) = (self.core.time(), self.core.socket_count());
        let kept = usize::try_from(self.stats.origin_idle.load()).unwrap_or(0);
        if kept > 0 {
            self.gave_up.set(Some((now, open.saturating_sub(kept))));
            self.config().pools.iter().for_each(|pool| pool.close_idle());
        }
        // Who comes a moment later waits for what the first has given up.
        let recent = |&(since, _): &(CoreTime, usize)| now.duration_since(since) < GIVE_UP_TIME;
        let Some((since, left)) = self.gave_up.get().filter(recent) else { return false };
        while self.core.socket_count() > left && self.core.time().duration_since(since) < GIVE_UP_TIME {
            self.core.sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// What `Date` says.
    pub(crate) fn date(&self) -> HttpDate {
        self.clock.borrow_mut().date(self.core.time())
    }
}

/// What reaches every core, and what all of them count.
pub(crate) struct Cores {
    sources: Sources,
    remotes: Vec<CoreRemote>,
}

/// Filled once all cores have started.
pub(crate) type Everywhere = Arc<OnceLock<Cores>>;

/// How the driver is chosen: the environment wins over the spec.
#[derive(Clone, Copy)]
pub(crate) struct DriverSettings {
    pub choice: DriverChoice,
    pub disable: Mechanisms,
}

/// A proxy that runs.
pub(crate) struct Running {
    launched: Launched,
    /// Caught until the process has ended: one that comes as it ends would end it in another way, with a code of its own.
    signals: ManuallyDrop<Signals>,
    /// The config in effect, and how many there were before it.
    spec: Arc<ProxySpec>,
    generation: u64,
    bound: Vec<Bound>,
    admin: Option<Bound>,
    origin_tls: OriginTls,
    listener_stats: ListenerStats,
    cores: usize,
    fd_limit: usize,
    connections: Arc<Connections>,
    stats: Vec<Arc<ProxyStats>>,
    /// What the main thread counts.
    control: Arc<ProxyStats>,
    sender: LogSender,
    /// Of this log and those of configs before.
    writers: Vec<log::LogWriter>,
    log_stats: Arc<ProxyStats>,
    /// Which driver was chosen, and why.
    pub driver: String,
}

/// What every core is given.
struct Plan {
    snapshot: Snapshot,
    stats: Vec<Arc<ProxyStats>>,
    /// By core.
    first: Vec<Mutex<Option<First>>>,
    connections: Arc<Connections>,
    everywhere: Everywhere,
}

/// The listeners that a core begins with.
struct First {
    opened: Vec<CoreListener>,
    admin: Option<CoreListener>,
}

/// Descriptors kept for cores, listeners, `/metrics`, files, pipes and connections to origins that are kept idle when the
/// connection limit is derived; of few descriptors a quarter.
const FD_RESERVE: usize = 512;

/// A pipe, which is two descriptors, for so many: a thirty-second part of them at most. A body without one is copied.
const FDS_PER_PIPE: usize = 64;

/// How long kept connections that are given up may take to close. Others may open meanwhile.
const GIVE_UP_TIME: Duration = Duration::from_millis(10);

/// Binds, opens the drivers and starts the cores.
///
/// # Errors
/// One sentence that names what could not be had: an address, a driver, the access log.
pub(crate) fn start(spec: ProxySpec, settings: DriverSettings) -> Result<Running, String> {
    let spec = Arc::new(spec);
    let fd_limit =
        process::raise_fd_limit().map_or(1024, |limit| usize::try_from(limit.soft).unwrap_or(usize::MAX));
    let cores = core_count(&spec);
    // Installed before any thread, so that all of them inherit it.
    let signals = Signals::install().map_err(|error| format!("cannot watch signals: {error}"))?;
    // Threads of their own need counters of their own: each has one writer. The access log's, and the main one.
    let (log_stats, control) = (Arc::<ProxyStats>::default(), Arc::<ProxyStats>::default());
    let (sender, writer) =
        log::start(spec.access_log(), log_stats.clone()).map_err(|error| error.to_string())?;
    let origin_tls = OriginTls::load(&spec, &OriginTls::default()).map_err(|faults| faults.join("\n"))?;
    let (bound, per_core) = listeners::open_all(&spec, cores)?;
    let (admin, mut admin_part) = spec.admin().map(listeners::open_admin).transpose()?.unzip();
    let (max, derived) = max_connections(&spec, fd_limit);
    let connections = Arc::new(Connections::new(max, derived));
    let stats: Vec<Arc<ProxyStats>> = (0..cores).map(|_| Arc::default()).collect();
    let everywhere = Everywhere::default();
    let first = per_core.into_iter().map(|opened| First { opened, admin: admin_part.take() });
    let plan = Plan {
        snapshot: Snapshot {
            generation: 0,
            spec: spec.clone(),
            log: sender.clone(),
            origin_tls: origin_tls.clone(),
        },
        stats: stats.clone(),
        first: first.map(|first| Mutex::new(Some(first))).collect(),
        connections: connections.clone(),
        everywhere: everywhere.clone(),
    };
    let (launch_spec, why) = launch_spec(&spec, cores, fd_limit, settings);
    let launched = launch(launch_spec, move |context| serving::core_main(context, &plan))
        .map_err(|error| error.to_string())?;
    let driver = why.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let proxies = stats.iter().cloned().chain([log_stats.clone(), control.clone()]).collect();
    let listener_stats = ListenerStats::default();
    let sources = Sources { cores: launched.stats(), proxies, listeners: listener_stats.clone() };
    // Set once, here.
    let _ = everywhere.set(Cores { sources, remotes: launched.remotes() });
    let writers = vec![writer];
    let running = Running {
        launched,
        signals: ManuallyDrop::new(signals),
        spec,
        generation: 0,
        bound,
        admin,
        origin_tls,
        listener_stats,
        cores,
        fd_limit,
        connections,
        stats,
        control,
        sender,
        writers,
        log_stats,
        driver,
    };
    running.show_listeners();
    Ok(running)
}

/// As many as the spec says, else all that the process may use.
fn core_count(spec: &ProxySpec) -> usize {
    let all = || process::available_cores().map_or(1, |cores| cores.len().max(1));
    spec.runtime().cores.unwrap_or_else(all)
}

/// Clients that may be served, and what the descriptors are enough for, which is the default: half of them beyond the
/// reserve, because each client may need a connection to an origin.
fn max_connections(spec: &ProxySpec, fd_limit: usize) -> (usize, usize) {
    let derived = ((fd_limit - FD_RESERVE.min(fd_limit / 4)) / 2).max(1);
    let max = spec.limits().max_connections.unwrap_or(derived);
    if max > derived {
        tracing::warn!(
            "limits.max_connections is {max}: with {fd_limit} descriptors, {derived} clients are sure of a connection to an \
             origin each"
        );
    }
    (max, derived)
}

fn launch_spec(
    spec: &ProxySpec,
    cores: usize,
    fd_limit: usize,
    settings: DriverSettings,
) -> (LaunchSpec, Arc<Mutex<String>>) {
    let runtime = spec.runtime();
    let chunk_bytes = PoolSpec::default().chunk_bytes;
    let chunks = |bytes: usize| u16::try_from(bytes / chunk_bytes as usize).unwrap_or(1 << 15).min(1 << 15);
    let max_chunks = chunks(runtime.pool_max_bytes).max(2);
    let pool =
        PoolSpec { chunk_bytes, min_chunks: chunks(runtime.pool_min_bytes).min(max_chunks), max_chunks };
    let why = Arc::new(Mutex::new(String::new()));
    let told = why.clone();
    let open = move |pool: ringport_platform::buf::Pool, stats| {
        let opened = open(settings.choice, settings.disable, &pool, &stats)
            .map_err(|error: OpenError| io::Error::other(error.to_string()))?;
        let mut why = told.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_empty() {
            tracing::info!("driver: {}", opened.why);
            *why = opened.why;
        }
        Ok(opened.driver)
    };
    let defaults = CoreSpec::default();
    let off = settings.disable.contains(Mechanism::Splice);
    let max_pipes = if off { 0 } else { defaults.max_pipes.min((fd_limit / FDS_PER_PIPE / cores).max(1)) };
    let core = CoreSpec { linger: spec.timeouts().write_idle, max_pipes, ..defaults };
    (LaunchSpec { cores, pin: runtime.affinity, pool, core, open: Arc::new(open) }, why)
}

impl Running {
    /// The addresses that are listened on, with the ports that the kernel chose.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.bound.iter().chain(&self.admin).map(ToString::to_string).collect()
    }

    /// Tells the metrics which listeners there are.
    fn show_listeners(&self) {
        let listeners = self.bound.iter().map(|bound| (bound.name.clone(), bound.handle.clone()));
        self.listener_stats.set(listeners.collect());
    }

    /// Serves until SIGTERM or SIGINT, drains, and returns the exit code: 1 when requests were cut. SIGHUP loads `config`
    /// anew, where there is one, and opens the access log anew, as SIGUSR1 does alone.
    pub(crate) fn wait(mut self, config: Option<&Path>) -> u8 {
        let mut draining = false;
        while !self.launched.is_finished() {
            // Once draining, only the cores' end is waited for: a short wait looks at it again.
            let timeout = draining.then_some(Duration::from_millis(20)).or(Some(Duration::from_millis(250)));
            let Ok(seen) = self.signals.wait(timeout) else { break };
            if seen.contains(Signal::Hangup) || seen.contains(Signal::User1) {
                self.sender.reopen();
            }
            let stop = seen.contains(Signal::Terminate) || seen.contains(Signal::Interrupt);
            if seen.contains(Signal::Hangup)
                && !stop
                && !draining
                && let Some(config) = config
            {
                self.reload(config);
            }
            if stop && draining {
                tracing::warn!("asked to stop again: ending at once");
                self.bound.iter().chain(&self.admin).for_each(|bound| bound.handle.remove_file());
                return 1;
            }
            if stop {
                let drain = self.spec.timeouts().drain;
                tracing::info!(
                    seconds = drain.as_secs_f32(),
                    "draining: no new connections, requests in flight end"
                );
                self.launched.drain(drain);
                draining = true;
            }
        }
        self.end()
    }

    /// Waits for the cores and the log; returns the exit code.
    fn end(self) -> u8 {
        let Running { launched, stats, sender, writers, .. } = self;
        let (mut failures, mut unsent) = (0, 0);
        for end in launched.join() {
            match end.result {
                Ok(report) => unsent += report.sockets_reset,
                Err(error) => {
                    tracing::error!(core = end.index, %error, "a core failed");
                    failures += 1;
                }
            }
        }
        let cut: u64 = stats.iter().map(|stats| stats.requests_cut.load()).sum();
        drop(sender);
        writers.into_iter().for_each(log::LogWriter::finish);
        if cut > 0 || unsent > 0 {
            tracing::warn!(
                cut,
                unsent,
                "ended; at the deadline requests were cut, or connections with bytes unsent"
            );
        } else {
            tracing::info!("ended");
        }
        u8::from(cut > 0 || unsent > 0 || failures > 0)
    }
}
