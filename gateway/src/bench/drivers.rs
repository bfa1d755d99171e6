//! `ringport bench drivers`: the same work on every driver of this machine.
//!
//! One variant after the other and then all again, so that what the machine does meanwhile meets each of them; a figure
//! is the median of the rounds.

mod picture;
mod servers;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use ringport::runtime::ConnectAddr;
use ringport_platform::driver::{DriverChoice, DriverKind, Mechanism, Mechanisms};
use ringport_platform::process;
use ringport_platform::signal::Signals;
use serde_json::{Value, json};

use self::servers::{Meter, Served, Server};
use super::load::{self, Job, Outcome, Work};
use super::progress::Progress;
use super::report::{self, latency_json};
use super::target::{self, Request};
use crate::proxy::DriverSettings;
use crate::say;

#[derive(Args)]
pub(crate) struct DriversArgs {
    /// Also io_uring without each of its mechanisms.
    #[arg(long)]
    each: bool,
    /// How long each measurement takes.
    #[arg(short, long, default_value = "1s", value_parser = target::positive_duration)]
    duration: Duration,
    /// Measurements of each; figures are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Connections.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests in flight on a connection.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,
    /// As JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the picture to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A driver, whole or without a mechanism.
struct Variant {
    name: String,
    settings: DriverSettings,
}

/// The measurements of a variant at one kind of work.
struct Series {
    work: Served,
    variant: Variant,
    samples: Vec<Sample>,
    /// Why its server does not start.
    missing: Option<String>,
}

struct Sample {
    rate: f64,
    cpu_nanos: f64,
    syscalls: f64,
    busy: f64,
    load_busy: f64,
    failed: u64,
    latency: Histogram<u64>,
}

/// What a series has shown.
struct Measured {
    work: Served,
    name: String,
    figures: Result<Figures, String>,
}

/// Medians over the rounds; latencies and failures over all of them.
struct Figures {
    rate: f64,
    /// Of the server's thread, for each request.
    cpu_nanos: f64,
    /// The same of each round.
    costs: Vec<f64>,
    /// Likewise, those that the driver made.
    syscalls: f64,
    /// Part of the time that the server's thread ran.
    busy: f64,
    /// The same of the load's.
    load_busy: f64,
    failed: u64,
    latency: Histogram<u64>,
}

/// Measures; returns the exit code.
pub(super) fn run(args: &DriversArgs, settings: DriverSettings) -> Result<u8, String> {
    // Before any thread is bound to one of them.
    let cores = process::available_cores().map_err(|error| format!("cannot list the cores: {error}"))?;
    let limit = process::raise_fd_limit().map_or(1024, |limit| limit.soft);
    // Both ends of each connection are in this process.
    if u64::from(args.connections) * 2 + FD_RESERVE > limit {
        return Err(format!(
            "{} connections are too many: open files are limited to {limit}",
            args.connections
        ));
    }
    // Before anything is measured, which would be in vain.
    let create = |path: &PathBuf| {
        File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    let svg = args.svg.as_ref().map(create).transpose()?;
    let signals = Signals::install().map_err(|error| format!("cannot watch signals: {error}"))?;
    let rig = Rig { args, settings, cores, signals };
    let mut series: Vec<Series> = Served::ALL
        .into_iter()
        .flat_map(|work| variants(args.each).into_iter().map(move |variant| (work, variant)))
        .map(|(work, variant)| Series { work, variant, samples: Vec::new(), missing: None })
        .collect();
    let interrupted = rig.measure_all(&mut series)?;
    let measured: Vec<Measured> = series.into_iter().map(Measured::of).collect();
    if let (Some(path), Some(mut file)) = (&args.svg, svg) {
        let written = file.write_all(picture::svg(&measured).as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if args.json {
        say(&format!("{:#}", to_json(args, &rig, &measured, interrupted)))?;
    } else {
        say(picture::text(&measured, rig.cores.len(), interrupted).trim_end())?;
    }
    let whole: Vec<&Figures> = measured.iter().filter_map(|one| one.figures.as_ref().ok()).collect();
    Ok(u8::from(whole.is_empty() || whole.iter().any(|figures| figures.failed > 0)))
}

fn variants(each: bool) -> Vec<Variant> {
    let only = |name: String, kind, disable| Variant {
        name,
        settings: DriverSettings { choice: DriverChoice::Only(kind), disable },
    };
    let mut all = Vec::new();
    for kind in DriverKind::here().iter().copied() {
        all.push(only(kind.name().to_owned(), kind, Mechanisms::NONE));
        if each && kind == DriverKind::Uring {
            all.extend(Mechanism::of_uring().map(|mechanism| {
                let name = format!("uring without {}", mechanism.name());
                only(name, kind, Mechanisms::NONE.with(mechanism))
            }));
        }
    }
    all
}

/// What all measurements have in common.
struct Rig<'a> {
    args: &'a DriversArgs,
    /// Of the load: the same beside every variant.
    settings: DriverSettings,
    cores: Vec<usize>,
    signals: Signals,
}

impl Rig<'_> {
    /// Returns whether a signal ended it. Only a server that does not start speaks against its driver.
    fn measure_all(&self, series: &mut [Series]) -> Result<bool, String> {
        let (rounds, count) = (self.args.rounds as usize, series.len());
        let total = rounds * count;
        for round in 0..rounds {
            for (at, one) in series.iter_mut().enumerate() {
                if one.missing.is_some() {
                    continue;
                }
                let step = round * count + at + 1;
                let label = format!("{step} of {total}: {} on {}", one.work.name(), one.variant.name);
                let first = self.cores.first().copied();
                let server = match Server::start(one.work, one.variant.settings, first) {
                    Ok(server) => server,
                    Err(why) => {
                        one.missing = Some(why);
                        continue;
                    }
                };
                match self.measure(server, &label)? {
                    Some(sample) => one.samples.push(sample),
                    None => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// One sample; None when a signal came.
    fn measure(&self, server: Server, label: &str) -> Result<Option<Sample>, String> {
        // Connections and caches are made before anything is counted.
        let warm =
            load::run(self.job(&server, WARM_UP), self.settings, &self.signals, &mut Progress::silent())?;
        if warm.interrupted {
            return Ok(None);
        }
        let before = server.meter()?;
        let job = self.job(&server, self.args.duration);
        let outcome = load::run(job, self.settings, &self.signals, &mut Progress::new(label))?;
        let after = server.meter()?;
        server.stop()?;
        Ok((!outcome.interrupted).then(|| sample(before, after, outcome)))
    }

    fn job(&self, server: &Server, duration: Duration) -> Job {
        Job {
            addr: ConnectAddr::Inet(server.addr),
            work: work_for(server),
            connections: self.args.connections as usize,
            cores: 1,
            depth: self.args.pipeline as usize,
            fresh: false,
            timeout: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            duration: Some(duration),
            requests: None,
            rate: None,
            pin: self.cores.get(1).copied(),
        }
    }
}

fn work_for(server: &Server) -> Work {
    match server.work {
        Served::Echo => Work::Echo(Bytes::from_static(&[b'x'; ECHO_BYTES])),
        Served::Hello => Work::Http(Request {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            host: server.addr.to_string(),
            fields: Vec::new(),
            body: Bytes::new(),
            close: false,
        }),
    }
}

fn sample(before: Meter, after: Meter, outcome: Outcome) -> Sample {
    let requests = outcome.tally.completed.max(1) as f64;
    let cpu = after.cpu.saturating_sub(before.cpu);
    Sample {
        rate: report::rate(&outcome.tally, outcome.elapsed.as_secs_f64()),
        cpu_nanos: cpu.as_nanos() as f64 / requests,
        syscalls: after.syscalls.saturating_sub(before.syscalls) as f64 / requests,
        busy: cpu.as_secs_f64() / (after.at - before.at).as_secs_f64().max(1e-9),
        load_busy: outcome.busy,
        failed: outcome.tally.failed(),
        latency: outcome.tally.latency,
    }
}

impl Measured {
    fn of(series: Series) -> Self {
        let figures = match (series.missing, Figures::of(&series.samples)) {
            (Some(why), _) => Err(why),
            (None, Some(figures)) => Ok(figures),
            (None, None) => Err("not measured before the end".to_owned()),
        };
        Measured { work: series.work, name: series.variant.name, figures }
    }
}

impl Figures {
    fn of(samples: &[Sample]) -> Option<Figures> {
        let mut latency = samples.first()?.latency.clone();
        for sample in &samples[1..] {
            latency.add(&sample.latency).expect("all have the same bounds");
        }
        let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        Some(Figures {
            rate: of(|sample| sample.rate),
            cpu_nanos: of(|sample| sample.cpu_nanos),
            costs: samples.iter().map(|sample| sample.cpu_nanos).collect(),
            syscalls: of(|sample| sample.syscalls),
            busy: of(|sample| sample.busy),
            load_busy: of(|sample| sample.load_busy),
            failed: samples.iter().map(|sample| sample.failed).sum(),
            latency,
        })
    }
}

/// The middle one, or between the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Which driver costs least at this work, and what that is worth.
///
/// The processor's time for each request decides: the rate shows the load generator's limits, too. It must have been less
/// in every round, which are paired: a median alone may be luck.
fn verdict(measured: &[Measured], work: Served) -> (Option<String>, String) {
    let mut found: Vec<(&str, &Figures)> = measured
        .iter()
        .filter(|one| one.work == work)
        .filter_map(|one| Some((one.name.as_str(), one.figures.as_ref().ok()?)))
        .collect();
    found.sort_by(|a, b| a.1.cpu_nanos.total_cmp(&b.1.cpu_nanos));
    let name = work.name();
    match found.as_slice() {
        [] => (None, format!("{name}: nothing was measured")),
        [(only, _)] => (Some((*only).to_owned()), format!("{name}: {only}, the only one that was measured")),
        [(best, least), (next, more), ..] => {
            let saved = (1.0 - least.cpu_nanos / more.cpu_nanos) * 100.0;
            let always = least.costs.iter().zip(&more.costs).all(|(least, more)| least < more);
            if saved < CLEAR_PERCENT || !always {
                return (None, format!("{name}: no clear difference between {best} and {next}"));
            }
            let text = format!(
                "{name}: {best} is best here, {saved:.0} % less processor time a request than {next}"
            );
            (Some((*best).to_owned()), text)
        }
    }
}

fn to_json(args: &DriversArgs, rig: &Rig<'_>, measured: &[Measured], interrupted: bool) -> Value {
    let rows: Vec<Value> = measured
        .iter()
        .map(|one| match &one.figures {
            Err(why) => {
                json!({ "work": one.work.name(), "driver": one.name, "measured": false, "reason": why })
            }
            Ok(figures) => json!({
                "work": one.work.name(),
                "driver": one.name,
                "measured": true,
                "requestsPerSecond": figures.rate,
                "cpuNanosecondsPerRequest": figures.cpu_nanos,
                "cpuNanosecondsOfRounds": figures.costs,
                "syscallsPerRequest": figures.syscalls,
                "serverBusy": figures.busy,
                "loadBusy": figures.load_busy,
                "failed": figures.failed,
                "latencyNanoseconds": latency_json(&figures.latency),
            }),
        })
        .collect();
    let best = Served::ALL.map(|work| (work.name().to_owned(), json!(verdict(measured, work).0)));
    json!({
        "cores": rig.cores.len(),
        "connections": args.connections,
        "pipeline": args.pipeline,
        "rounds": args.rounds,
        "interrupted": interrupted,
        "results": rows,
        "best": serde_json::Map::from_iter(best),
    })
}

const ECHO_BYTES: usize = 64;
const WARM_UP: Duration = Duration::from_millis(200);
/// Differences below this are noise.
const CLEAR_PERCENT: f64 = 3.0;
const FD_RESERVE: u64 = 64;

#[cfg(test)]
mod tests;
