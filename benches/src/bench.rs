//! Peers run one after the other, round by round, so that what the machine does meanwhile meets all alike.

use std::io;
use std::time::Duration;

use crate::cost::{LoadTime, Spent, SyscallWatch, Watch};
use crate::cpu;
use crate::load::{Kind, REQUEST};
use crate::metering::{self, Plan};
use crate::pace::{Effort, Pace};
use crate::peers::{Peer, Server};
use crate::results::{AtRate, Context, Report, Round, Row};
use crate::ring::{Generator, LoadSpec, Origin, Sample};
use crate::stop;

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

/// Runs every configuration over every peer that `peers` gives for its kind.
///
/// # Errors
/// When this process cannot be pinned; a peer that fails has its reason in its row.
pub fn run(
    question: &str,
    about: &str,
    configs: &[Config],
    peers: impl Fn(Kind) -> Vec<Peer>,
    pace: Pace,
) -> io::Result<Report> {
    let (server_cpu, load_cpu) = cpu::pair()?;
    ringport_platform::process::raise_fd_limit()?;
    let mut rows = Vec::new();
    let mut context = Context::here(pace.quick, false);
    for config in configs {
        let peers = peers(config.kind);
        if stop::asked() {
            rows.extend(peers.iter().map(|peer| Row::unreached(&config.name, &peer.name)));
            continue;
        }
        crate::tell(format_args!("{question}: {}", config.name));
        cpu::pin(load_cpu)?;
        let mut runners: Vec<Runner> =
            peers.iter().map(|peer| Runner::start(peer, config, server_cpu)).collect();
        if runners.iter().any(|runner| runner.watch.as_ref().is_some_and(Watch::has_hardware)) {
            context = Context { counters: Context::here(pace.quick, true).counters, ..context };
        }
        measure(&mut runners, config, pace);
        let mut config_rows: Vec<Row> = runners.into_iter().map(Runner::into_row).collect();
        if config.metered {
            meter(config, &peers, &mut config_rows);
        }
        config_rows.iter().for_each(print);
        rows.extend(config_rows);
    }
    Ok(Report { question: question.to_owned(), about: about.to_owned(), context, rows, notes: Vec::new() })
}

/// About what [`run`] takes.
pub fn effort(configs: &[Config], peers: fn(Kind) -> Vec<Peer>) -> Effort {
    let of = |config: &Config| {
        let peers = peers(config.kind).len() as f64;
        let open = if config.open_loop { peers } else { 0.0 };
        let start = START + CONNECT * config.connections as u32;
        let stepped = if config.metered { metered_time(config) } else { Duration::ZERO };
        Effort { once: peers, each_round: peers + open, fixed: (start + stepped).mul_f64(peers) }
    };
    configs.iter().map(of).sum()
}

const START: Duration = Duration::from_millis(60);
const CONNECT: Duration = Duration::from_micros(100);

/// Every peer in turn, round by round, so that a ratio compares what ran side by side.
fn measure(runners: &mut [Runner], config: &Config, pace: Pace) {
    let mut each = |what: &mut dyn FnMut(&mut Runner)| {
        for runner in runners.iter_mut() {
            if stop::asked() {
                return;
            }
            what(runner);
        }
    };
    each(&mut |runner| runner.warm_up(pace.slice / 2));
    for _ in 0..pace.rounds {
        each(&mut |runner| runner.round(pace.slice));
    }
    if config.open_loop && !stop::asked() {
        let rate = common_rate(runners);
        for _ in 0..pace.rounds {
            for runner in runners.iter_mut().filter(|_| !stop::asked()) {
                runner.round_at(rate, pace.slice, config.pipeline);
            }
        }
    }
}

impl Runner {
    fn start(peer: &Peer, config: &Config, server_cpu: usize) -> Runner {
        let mut runner =
            Runner { row: Row::new(&config.name, &peer.name), generator: None, watch: None, _server: None };
        if let Err(error) = runner.try_start(peer, config, server_cpu) {
            runner.fail(&error);
        }
        runner
    }

    fn try_start(&mut self, peer: &Peer, config: &Config, server_cpu: usize) -> io::Result<()> {
        stop::check()?;
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
        match self.sample(|generator| generator.closed_loop(slice)) {
            Some(Ok((sample, spent, load))) => self.row.rounds.push(Round::of(&sample, spent, load)),
            Some(Err(error)) => self.fail(&error),
            None => {}
        }
    }

    fn round_at(&mut self, rate: f64, slice: Duration, pipeline: usize) {
        match self.sample(|generator| generator.open_loop(slice, rate / pipeline as f64)) {
            Some(Ok((sample, spent, load))) => self.row.at_rate.push(AtRate::of(rate, &sample, spent, load)),
            Some(Err(error)) => self.fail(&error),
            None => {}
        }
    }

    /// A run, and what the server and the load spent meanwhile; `None` of who has failed.
    fn sample(
        &mut self,
        run: impl FnOnce(&mut Generator) -> io::Result<Sample>,
    ) -> Option<io::Result<(Sample, Spent, LoadTime)>> {
        let (generator, watch) = (self.generator.as_mut()?, self.watch.as_ref()?);
        let load = LoadTime::so_far();
        Some(watch.look().and_then(|before| {
            let sample = run(generator)?;
            let spent = watch.look()?.since(before);
            Ok((sample, spent, LoadTime::since(load)))
        }))
    }

    fn fail(&mut self, error: &io::Error) {
        self.row.failed = Some(error.to_string());
        self.generator = None;
        self.watch = None;
        self._server = None;
    }

    /// A run that was ended leaves what was measured; who was not reached is told.
    fn into_row(self) -> Row {
        match self.row.rounds.is_empty() && self.row.failed.is_none() {
            true => Row::unreached(&self.row.config, &self.row.peer),
            false => self.row,
        }
    }
}

/// Half of what the slowest peer answers: a rate that all can hold.
fn common_rate(runners: &[Runner]) -> f64 {
    let medians = runners.iter().filter_map(|runner| runner.row.spread(|round| round.per_second));
    medians.map(|spread| spread.median).fold(f64::INFINITY, f64::min).min(1e6) / 2.0
}

fn meter(config: &Config, peers: &[Peer], rows: &mut [Row]) {
    for (peer, row) in peers.iter().zip(rows).filter(|(_, row)| row.failed.is_none()) {
        if stop::asked() {
            return;
        }
        match metering::run(&plan(config), |origin| peer.start(origin)) {
            Ok(metered) => row.metered = Some((metered.instructions, metered.allocations)),
            Err(error) => crate::tell(format_args!("  {:<28} not metered: {error}", row.peer)),
        }
    }
}

/// With the connections that the row has: what a turn costs is shared by the requests of the turn. Beyond 64 requests in flight
/// more of them change little but the time, of which a step takes about ten microseconds.
fn plan(config: &Config) -> Plan {
    Plan {
        kind: config.kind,
        connections: config.connections.min((64 / config.pipeline).max(4)),
        rounds: 1,
        warmup: 50,
        bytes: config.bytes,
        pipeline: config.pipeline,
        changing: false,
    }
}

/// Two rounds of stepping, one of them to warm up.
fn metered_time(config: &Config) -> Duration {
    let instructions = match config.kind {
        Kind::Echo => 2_000,
        Kind::Hello => 8_000,
        Kind::Proxy => 25_000,
        Kind::Relay => 6_000,
    };
    let plan = plan(config);
    STEP * (2 * instructions * plan.connections * plan.pipeline) as u32 + Duration::from_millis(300)
}

const STEP: Duration = Duration::from_micros(10);

/// How many, in words.
pub fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

/// A row as it is told while the others still run.
pub(crate) fn print(row: &Row) {
    if let Some(failed) = &row.failed {
        crate::tell(format_args!("  {:<28} not measured: {failed}", row.peer));
        return;
    }
    let median = |of: fn(&Round) -> f64| row.spread(of).map_or(f64::NAN, |spread| spread.median);
    crate::tell(format_args!(
        "  {:<28} {:>9.0} /s  busy {:>5.1} %{}  {:>8.0} ns cpu  {:>6.3} calls  {:>8} ins  p99 {:>8.0} us{}",
        row.peer,
        median(|round| round.per_second),
        100.0 * median(|round| round.busy),
        if row.counts() { " " } else { "!" },
        median(Row::cost),
        row.syscalls.unwrap_or(f64::NAN),
        row.metered.map_or_else(|| "-".to_owned(), |(instructions, _)| format!("{instructions:.0}")),
        median(|round| round.latency_us[1]),
        if row.disturbed() { "  (others had the cores)" } else { "" },
    ));
}
