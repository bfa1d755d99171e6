//! `ringport proxy`: listeners, a core each, origins behind them, and an orderly end.
//!
//! The main thread owns the signals and the end; each core owns everything that its connections touch. Names are looked
//! up on the blocking pool, started from core 0, and handed to every core.

mod admin;
mod date;
mod exchange;
mod fields;
mod listeners;
mod log;
mod pool;
mod room;
mod routes;
mod session;
mod stats;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ringport::net::{AcceptError, Bounded, Listener};
use ringport::proto::http1::{self, Authority, FieldWriter};
use ringport::runtime::native::Native;
use ringport::spec::ProxySpec;
use ringport_platform::buf::PoolSpec;
use ringport_platform::core::{Core, CoreRemote, CoreSpec};
use ringport_platform::driver::{DriverChoice, Mechanism, Mechanisms, OpenError, open};
use ringport_platform::launch::{CoreContext, DrainSignal, LaunchSpec, Launched, launch};
use ringport_platform::process;
use ringport_platform::signal::{Signal, Signals};

use date::{Clock, HttpDate};
use fields::Via;
use listeners::{Bound, CoreListener};
use log::LogSender;
use pool::{Origin, OriginPool, REAP_INTERVAL};
use room::{Candidate, Connections, Counted, Gate};
use routes::Routes;
use session::{Session, Sessions};
use stats::{ProxyStats, Sources};

/// A connection of a client, with the deadlines of its listener.
pub(crate) type ClientConn = Bounded<Native>;

/// What sessions of one core share.
pub(crate) struct Shared {
    pub core: Core,
    pub runtime: Native,
    pub spec: Arc<ProxySpec>,
    pub limits: http1::Limits,
    pub origin_limits: http1::Limits,
    pub routes: Routes,
    pub pools: Vec<Rc<OriginPool>>,
    pub stats: Arc<ProxyStats>,
    pub sessions: RefCell<Sessions>,
    pub via: Via,
    /// What an origin behind a socket's path is told where a client names no host.
    pub localhost: Authority,
    clock: RefCell<Clock>,
    pub log: LogSender,
    drain: DrainSignal,
    connections: Arc<Connections>,
    /// When kept connections were given up last, and how many sockets are open when all of those are closed.
    gave_up: Cell<Option<(Instant, usize)>>,
}

impl Shared {
    /// Whether the process is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Puts `Date`.
    pub(crate) fn put_date(&self, out: &mut FieldWriter<'_>) {
        out.put_block(self.clock.borrow_mut().field(self.core.now()));
    }

    /// Closes the kept connections to origins, all of this core: descriptors are short, and these are in no use. False if
    /// there were none; otherwise returns when they are gone, which takes a few turns.
    pub(crate) async fn give_up_idle(&self) -> bool {
        self.core.close_idle_pipes();
        let (now, open) = (self.core.now(), self.core.socket_count());
        let kept = usize::try_from(self.stats.origin_idle.load()).unwrap_or(0);
        if kept > 0 {
            self.gave_up.set(Some((now, open.saturating_sub(kept))));
            self.pools.iter().for_each(|pool| pool.close_idle());
        }
        // Who comes a moment later waits for what the first has given up.
        let recent = |&(since, _): &(Instant, usize)| now.duration_since(since) < GIVE_UP_TIME;
        let Some((since, left)) = self.gave_up.get().filter(recent) else { return false };
        while self.core.socket_count() > left && self.core.now().duration_since(since) < GIVE_UP_TIME {
            self.core.sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// What `Date` says.
    pub(crate) fn date(&self) -> HttpDate {
        self.clock.borrow_mut().date(self.core.now())
    }
}

thread_local! {
    /// This core's proxy, for calls from other threads.
    static SHARED: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

/// How the driver is chosen: the environment wins over the spec.
#[derive(Clone, Copy)]
pub(crate) struct DriverSettings {
    pub choice: DriverChoice,
    pub disable: Mechanisms,
}

/// A proxy that runs.
pub(crate) struct Running {
    launched: Launched,
    signals: Signals,
    spec: Arc<ProxySpec>,
    stats: Vec<Arc<ProxyStats>>,
    bound: Vec<Bound>,
    writer: log::LogWriter,
    sender: LogSender,
    /// Which driver was chosen, and why.
    pub driver: String,
}

/// What every core is given.
struct Plan {
    spec: Arc<ProxySpec>,
    stats: Vec<Arc<ProxyStats>>,
    listeners: Vec<Mutex<Vec<CoreListener>>>,
    admin: Mutex<Option<CoreListener>>,
    log: LogSender,
    connections: Arc<Connections>,
    sources: Arc<OnceLock<(Sources, Vec<CoreRemote>)>>,
}

/// Descriptors kept for cores, listeners, `/metrics`, files, pipes and connections to origins that are kept idle when the
/// connection limit is derived; of few descriptors a quarter.
const FD_RESERVE: usize = 512;

/// A pipe, which is two descriptors, for so many: a thirty-second part of them at most. A body without one is copied.
const FDS_PER_PIPE: usize = 64;

/// How soon an ending listener without room looks again. The end of the process has a deadline.
const DRAIN_RETRY: Duration = Duration::from_millis(20);

/// How long kept connections that are given up may take to close. Others may open meanwhile.
const GIVE_UP_TIME: Duration = Duration::from_millis(10);

/// Sockets that must have closed before the heap is asked for what they held, some KiB each.
const WORTH_A_RELEASE: usize = 256;

/// Binds, opens the drivers and starts the cores.
///
/// # Errors
/// One sentence that names what could not be had: an address, a driver, the access log.
pub(crate) fn start(spec: ProxySpec, settings: DriverSettings) -> Result<Running, String> {
    let spec = Arc::new(spec);
    let fd_limit =
        process::raise_fd_limit().map_or(1024, |limit| usize::try_from(limit.soft).unwrap_or(usize::MAX));
    let cores = match spec.runtime().cores {
        Some(count) => count,
        None => process::available_cores().map_or(1, |cores| cores.len().max(1)),
    };
    // Installed before any thread, so that all of them inherit it.
    let signals = Signals::install().map_err(|error| format!("cannot watch signals: {error}"))?;
    // The log's writer is a thread of its own and needs counters of its own, too.
    let log_stats = Arc::<ProxyStats>::default();
    let (sender, writer) =
        log::start(spec.access_log(), log_stats.clone()).map_err(|error| error.to_string())?;
    let (mut bound, per_core) = listeners::open_all(&spec, cores)?;
    let (bound_admin, admin) = listeners::open_admin(&spec)?.unzip();
    bound.extend(bound_admin);
    let (max, derived) = max_connections(&spec, fd_limit);
    let stats: Vec<Arc<ProxyStats>> = (0..cores).map(|_| Arc::default()).collect();
    let sources = Arc::new(OnceLock::new());
    let plan = Plan {
        spec: spec.clone(),
        stats: stats.clone(),
        listeners: per_core.into_iter().map(Mutex::new).collect(),
        admin: Mutex::new(admin),
        log: sender.clone(),
        connections: Arc::new(Connections::new(max, derived)),
        sources: sources.clone(),
    };
    let (launch_spec, why) = launch_spec(&spec, cores, fd_limit, settings);
    let launched =
        launch(launch_spec, move |context| core_main(context, &plan)).map_err(|error| error.to_string())?;
    let driver = why.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let proxies = stats.iter().cloned().chain([log_stats]).collect();
    let all = Sources { cores: launched.stats(), proxies };
    // Set once, here.
    let _ = sources.set((all, launched.remotes()));
    Ok(Running { launched, signals, spec, stats, bound, writer, sender, driver })
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
        self.bound.iter().map(ToString::to_string).collect()
    }

    /// Serves until SIGTERM or SIGINT, drains, and returns the exit code: 1 when requests were cut.
    pub(crate) fn wait(self) -> u8 {
        let Running { launched, signals, spec, stats, bound, writer, sender, .. } = self;
        let drain = spec.timeouts().drain;
        let mut draining = false;
        while !launched.is_finished() {
            // Once draining, only the cores' end is waited for: a short wait looks at it again.
            let timeout = draining.then_some(Duration::from_millis(20)).or(Some(Duration::from_millis(250)));
            let Ok(seen) = signals.wait(timeout) else { break };
            if seen.contains(Signal::Hangup) {
                sender.reopen();
            }
            let stop = seen.contains(Signal::Terminate) || seen.contains(Signal::Interrupt);
            if stop && draining {
                tracing::warn!("asked to stop again: ending at once");
                bound.iter().for_each(|bound| bound.handle.remove_file());
                return 1;
            }
            if stop {
                tracing::info!(
                    seconds = drain.as_secs_f32(),
                    "draining: no new connections, requests in flight end"
                );
                launched.drain(drain);
                draining = true;
            }
        }
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
        writer.finish();
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

fn core_main(context: CoreContext, plan: &Plan) -> impl Future<Output = io::Result<()>> + use<> {
    let shared = Rc::new(shared(&context, plan));
    SHARED.set(Rc::downgrade(&shared));
    let listeners = std::mem::take(&mut *lock(&plan.listeners[context.index]));
    let admin = if context.index == 0 { lock(&plan.admin).take() } else { None };
    let sources = plan.sources.clone();
    async move {
        let core = context.core.clone();
        let mut accepting = Vec::new();
        for CoreListener { part, burst_len } in listeners {
            let listener = Listener::new(part, &shared.runtime).map_err(io::Error::other)?;
            accepting.push(core.spawn(accept_all(shared.clone(), listener, burst_len)));
        }
        if let Some(admin) = admin {
            let listener = Listener::new(admin.part, &shared.runtime).map_err(io::Error::other)?;
            core.spawn(admin::serve(shared.clone(), listener, sources.clone()));
        }
        core.spawn(reap(shared.clone()));
        if context.index == 0 {
            core.spawn(keep_names(shared.clone(), sources));
        }
        context.drain.wait().await;
        shared.sessions.borrow().wake_all();
        for task in accepting {
            // A panic has been logged where it happened.
            let _ = task.await;
        }
        shared.sessions.borrow().wake_all();
        poll_fn(|cx| shared.sessions.borrow_mut().poll_empty(cx)).await;
        shared.pools.iter().for_each(|pool| pool.close_idle());
        Ok(())
    }
}

fn shared(context: &CoreContext, plan: &Plan) -> Shared {
    let stats = plan.stats[context.index].clone();
    let runtime = Native::new(context.core.clone());
    let pools = plan.spec.pools().iter().map(|pool| OriginPool::new(pool, &runtime, stats.clone()));
    let pools: Vec<_> = pools.collect();
    let limits = plan.spec.limits();
    let from_spec = http1::Limits {
        request_line_bytes: limits.request_line_bytes,
        head_bytes: limits.header_bytes,
        header_count: limits.header_count,
        body_bytes: limits.body_bytes,
        ..http1::Limits::default()
    };
    Shared {
        core: context.core.clone(),
        runtime,
        spec: plan.spec.clone(),
        limits: from_spec,
        origin_limits: http1::Limits::default(),
        routes: Routes::new(&plan.spec, &pools),
        pools,
        stats,
        sessions: RefCell::default(),
        via: Via::new(),
        localhost: Authority::new("localhost").expect("a host"),
        clock: RefCell::new(Clock::new()),
        log: plan.log.clone(),
        drain: context.drain.clone(),
        connections: plan.connections.clone(),
        gave_up: Cell::new(None),
    }
}

/// Takes connections until the core drains, then what the kernel still holds, so that nothing waiting is reset.
async fn accept_all(shared: Rc<Shared>, mut listener: Listener<Native>, burst_len: usize) {
    let mut gate = Gate::new(shared.connections.clone(), shared.stats.clone(), burst_len);
    let mut drain = Box::pin(shared.drain.wait());
    loop {
        let accepted = poll_fn(|cx| {
            if drain.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(None);
            }
            gate.poll_next(&mut listener, cx).map(Some)
        });
        match accepted.await {
            Some(Ok((candidate, counted))) => begin(&shared, candidate, counted),
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be taken");
                race(shared.core.sleep(Duration::from_millis(20)), &mut drain).await;
            }
            None => break,
        }
    }
    if let Some(held) = gate.into_held() {
        begin(&shared, held, shared.connections.begin_last());
    }
    drain_listener(&shared, &mut listener).await;
}

/// Takes what the kernel still holds for a listener, as descriptors become free.
async fn drain_listener(shared: &Rc<Shared>, listener: &mut Listener<Native>) {
    loop {
        if !shared.connections.has_room_at_end() {
            shared.core.sleep(DRAIN_RETRY).await;
            continue;
        }
        match poll_fn(|cx| listener.poll_drain(cx)).await {
            Ok(Some(candidate)) => begin(shared, candidate, shared.connections.begin_last()),
            Ok(None) => return,
            Err(AcceptError::Io(error)) if process::is_shortage(&error) => {
                shared.core.sleep(DRAIN_RETRY).await;
            }
            // Of one connection.
            Err(error @ AcceptError::Option(_)) => tracing::warn!(%error, "a connection could not be taken"),
            Err(error) => return tracing::warn!(%error, "the accept queue could not be drained"),
        }
    }
}

async fn race(first: impl Future<Output = ()>, drain: &mut std::pin::Pin<Box<impl Future<Output = ()>>>) {
    let mut first = std::pin::pin!(first);
    poll_fn(|cx| match drain.as_mut().poll(cx) {
        std::task::Poll::Ready(()) => std::task::Poll::Ready(()),
        std::task::Poll::Pending => first.as_mut().poll(cx),
    })
    .await;
}

fn begin(shared: &Rc<Shared>, (stream, peer): Candidate, counted: Counted) {
    drop(shared.core.spawn(Session::serve(shared.clone(), stream, &peer, counted)));
}

/// Looks over the kept connections, and gives idle memory back.
async fn reap(shared: Rc<Shared>) {
    let mut ticks = shared.core.interval(REAP_INTERVAL);
    // Sockets at most since the heap was released.
    let mut most = 0;
    loop {
        ticks.tick().await;
        let now = shared.core.now();
        shared.pools.iter().for_each(|pool| pool.reap(now));
        shared.core.pool().release_idle();
        // Clients and kept connections to origins alike.
        let open = shared.core.socket_count();
        most = most.max(open);
        if most - open >= WORTH_A_RELEASE && most / 2 >= open {
            process::release_heap();
            most = open;
        }
        shared.core.stats().pool_live_bytes.set(shared.core.pool().usage().live_bytes);
    }
}

type Everywhere = Arc<OnceLock<(Sources, Vec<CoreRemote>)>>;

/// Looks every origin's name up, at once and then as often as its pool says, and tells all cores.
async fn keep_names(shared: Rc<Shared>, sources: Everywhere) {
    for (pool_at, pool) in shared.pools.iter().enumerate() {
        for (origin_at, origin) in pool.origins().iter().enumerate() {
            if origin.has_name() {
                let place = (pool_at, origin_at);
                shared.core.spawn_detached(keep_name(shared.clone(), sources.clone(), place));
            }
        }
    }
}

async fn keep_name(shared: Rc<Shared>, sources: Everywhere, (pool_at, origin_at): (usize, usize)) {
    let pool = shared.pools[pool_at].clone();
    let (origin, every) = (pool.origins()[origin_at].clone(), pool.spec().resolve_interval);
    loop {
        match origin.resolve().await {
            Ok(addrs) => {
                let set = move |origin: &Origin| origin.set_addrs(addrs.clone());
                tell_cores(&sources, &shared, (pool_at, origin_at), set);
            }
            Err(error) => {
                tracing::warn!(origin = origin.name, "the name could not be looked up: {error}");
                tell_cores(&sources, &shared, (pool_at, origin_at), Origin::has_no_addr);
            }
        }
        match every {
            Some(every) => shared.core.sleep(every).await,
            None => return,
        }
    }
}

fn tell_cores(
    sources: &Everywhere,
    shared: &Rc<Shared>,
    (pool_at, origin_at): (usize, usize),
    tell: impl Fn(&Origin) + Clone + Send + 'static,
) {
    tell(&shared.pools[pool_at].origins()[origin_at]);
    let Some((_, remotes)) = sources.get() else { return };
    for remote in remotes {
        let tell = tell.clone();
        remote.call(move |_| {
            SHARED.with_borrow(|shared| {
                if let Some(shared) = shared.upgrade() {
                    tell(&shared.pools[pool_at].origins()[origin_at]);
                }
            });
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
