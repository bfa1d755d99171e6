//! Peers run one after the other, round by round, so that what the machine does meanwhile meets all alike.

use std::io;
use std::time::Duration;

use crate::cost::{SyscallWatch, Watch};
use crate::cpu;
use crate::load::{Kind, REQUEST};
use crate::metering::{self, Plan};
use crate::peers::{PEERS, Peer, Server};
use crate::results::{Context, OpenLoop, Report, Round, Row};
use crate::ring::{Generator, LoadSpec, Origin};

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rounds of every peer; at least 7.
    pub rounds: usize,
    /// One round of one peer.
    pub slice: Duration,
    /// Whether it is a quick look: short rounds.
    pub quick: bool,
    /// Whether only the first configurations are run.
    pub first_only: bool,
}

impl Pace {
    /// The pace of a run that counts, or of a quick look, which takes every configuration only if it is `wide`.
    pub fn new(quick: bool, wide: bool) -> Pace {
        let slice = Duration::from_millis(if quick { 100 } else { 400 });
        Pace { rounds: 7, slice, quick, first_only: quick && !wide }
    }
}

/// One configuration of a question.
#[derive(Clone, Debug)]
pub struct Config {
    /// As the tables head it.
    pub name: String,
    /// What is asked for.
    pub kind: Kind,
    /// Connections.
    pub connections: usize,
    /// Requests sent at once on each.
    pub pipeline: usize,
    /// Bytes of an echo or of the origin's answer.
    pub bytes: usize,
    /// Whether instructions and allocations are metered, too.
    pub metered: bool,
    /// Whether latency is measured at a fixed rate, too.
    pub open_loop: bool,
}

/// A peer that is being measured.
struct Runner {
    row: Row,
    /// Dropped before the server, which would otherwise be seen to close.
    generator: Option<Generator>,
    watch: Option<Watch>,
    _server: Option<Server>,
}

/// Runs every configuration over every peer of its kind.
///
/// # Errors
/// When this process cannot be pinned; a peer that fails has its reason in its row.
pub fn run(question: &str, about: &str, configs: &[Config], pace: Pace) -> io::Result<Report> {
    let (server_cpu, load_cpu) = cpu::pair()?;
    ringport_platform::process::raise_fd_limit()?;
    let mut rows = Vec::new();
    let mut context = Context::here(pace.quick, false);
    for config in configs {
        println!("{question}: {}", config.name);
        cpu::pin(load_cpu)?;
        let peers = PEERS.iter().filter(|peer| peer.kind == config.kind);
        let mut runners: Vec<Runner> = peers.map(|peer| Runner::start(peer, config, server_cpu)).collect();
        if runners.iter().any(|runner| runner.watch.as_ref().is_some_and(Watch::has_hardware)) {
            context = Context { counters: Context::here(pace.quick, true).counters, ..context };
        }
        runners.iter_mut().for_each(|runner| runner.warm_up(pace.slice / 2));
        for _ in 0..pace.rounds {
            runners.iter_mut().for_each(|runner| runner.round(pace.slice));
        }
        if config.open_loop {
            let rate = common_rate(&runners);
            runners.iter_mut().for_each(|runner| runner.open_loop(pace.slice * 3, rate, config.pipeline));
        }
        let mut config_rows: Vec<Row> = runners.into_iter().map(|runner| runner.row).collect();
        if config.metered {
            meter(config, &mut config_rows);
        }
        config_rows.iter().for_each(print);
        rows.extend(config_rows);
    }
    Ok(Report { question: question.to_owned(), about: about.to_owned(), context, rows, notes: Vec::new() })
}

impl Runner {
    fn start(peer: &Peer, config: &Config, server_cpu: usize) -> Runner {
        let mut runner =
            Runner { row: Row::new(&config.name, peer.name), generator: None, watch: None, _server: None };
        if let Err(error) = runner.try_start(peer, config, server_cpu) {
            runner.fail(&error);
        }
        runner
    }

    fn try_start(&mut self, peer: &Peer, config: &Config, server_cpu: usize) -> io::Result<()> {
        let origin = match config.kind {
            Kind::Proxy | Kind::Relay => Some(Origin::bind(config.bytes)?),
            Kind::Echo | Kind::Hello => None,
        };
        let address = origin.as_ref().map(Origin::address).transpose()?;
        let server = peer.start_on(server_cpu, address)?;
        let (request, answer_len) = match config.kind {
            Kind::Echo => (vec![b'e'; config.bytes], Some(config.bytes * config.pipeline)),
            Kind::Hello | Kind::Proxy | Kind::Relay => (REQUEST.to_vec(), None),
        };
        let spec = LoadSpec {
            to: server.address,
            connections: config.connections,
            request: request.repeat(config.pipeline),
            pipeline: config.pipeline,
            answer_len,
        };
        self.generator = Some(Generator::connect(spec, origin)?);
        self.watch = Some(Watch::new(server.pid())?);
        self._server = Some(server);
        Ok(())
    }

    /// Leaves caches, pools and connections as they will be; counts system calls, which slows them.
    fn warm_up(&mut self, slice: Duration) {
        let (Some(generator), Some(server)) = (&mut self.generator, &self._server) else { return };
        let outcome = generator.closed_loop(slice).and_then(|_| {
            let watch = SyscallWatch::new(server.pid());
            let sample = generator.closed_loop(slice)?;
            Ok(watch.map(|watch| watch.count() as f64 / sample.requests as f64))
        });
        match outcome {
            Ok(syscalls) => self.row.syscalls = syscalls,
            Err(error) => self.fail(&error),
        }
    }

    fn round(&mut self, slice: Duration) {
        let (Some(generator), Some(watch)) = (&mut self.generator, &self.watch) else { return };
        let outcome = watch.look().and_then(|before| {
            let sample = generator.closed_loop(slice)?;
            let spent = watch.look()?.since(before);
            Ok(Round::of(&sample, spent))
        });
        match outcome {
            Ok(round) => self.row.rounds.push(round),
            Err(error) => self.fail(&error),
        }
    }

    fn open_loop(&mut self, slice: Duration, rate: f64, pipeline: usize) {
        let Some(generator) = &mut self.generator else { return };
        match generator.open_loop(slice, rate / pipeline as f64) {
            Ok(sample) => self.row.open_loop = Some(OpenLoop { rate, latency_us: sample.latency_us() }),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.row.failed = Some(error.to_string());
        self.generator = None;
        self.watch = None;
        self._server = None;
    }
}

/// Half of what the slowest peer answers: a rate that all can hold.
fn common_rate(runners: &[Runner]) -> f64 {
    let medians = runners.iter().filter_map(|runner| runner.row.spread(|round| round.per_second));
    medians.map(|spread| spread.median).fold(f64::INFINITY, f64::min).min(1e6) / 2.0
}

fn meter(config: &Config, rows: &mut [Row]) {
    for row in rows.iter_mut().filter(|row| row.failed.is_none()) {
        let Some(peer) = PEERS.iter().find(|peer| peer.kind == config.kind && peer.name == row.peer) else {
            continue;
        };
        let plan = Plan {
            kind: config.kind,
            connections: config.connections.min((metered_connections(config.kind) / config.pipeline).max(4)),
            rounds: 1,
            warmup: 50,
            bytes: config.bytes,
            pipeline: config.pipeline,
        };
        match metering::run(&plan, |origin| peer.start(origin)) {
            Ok(metered) => row.metered = Some((metered.instructions, metered.allocations)),
            Err(error) => println!("  {:<16} not metered: {error}", row.peer),
        }
    }
}

/// A step takes about ten microseconds; more connections change little but the time.
fn metered_connections(kind: Kind) -> usize {
    match kind {
        Kind::Echo => 64,
        Kind::Hello => 16,
        Kind::Proxy | Kind::Relay => 8,
    }
}

/// A row as it is told while the others still run.
pub(crate) fn print(row: &Row) {
    if let Some(failed) = &row.failed {
        println!("  {:<16} failed: {failed}", row.peer);
        return;
    }
    let median = |of: fn(&Round) -> f64| row.spread(of).map_or(f64::NAN, |spread| spread.median);
    println!(
        "  {:<16} {:>9.0} /s  busy {:>5.1} %{}  {:>8.0} ns cpu  {:>6.3} calls  {:>8} ins  p99 {:>8.0} us",
        row.peer,
        median(|round| round.per_second),
        100.0 * median(|round| round.busy),
        if row.counts() { " " } else { "!" },
        median(Row::cost),
        row.syscalls.unwrap_or(f64::NAN),
        row.metered.map_or_else(|| "-".to_owned(), |(instructions, _)| format!("{instructions:.0}")),
        median(|round| round.latency_us[1]),
    );
}
