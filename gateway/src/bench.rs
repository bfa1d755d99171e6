//! `ringport bench`: a load generator on our own runtime, and a comparison of its drivers.

mod connection;
mod drivers;
mod load;
mod progress;
mod report;
mod schedule;
mod tally;
mod target;

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use ringport_platform::process;
use ringport_platform::signal::Signals;

use self::load::{Job, Outcome, Work};
use self::progress::Progress;
use self::target::Request;
pub(crate) use self::target::positive_duration;
use crate::proxy::DriverSettings;
use crate::say;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Send HTTP/1.1 requests.
    Http {
        /// Where: http://HOST[:PORT][/PATH]. There is no TLS.
        url: String,
        #[command(flatten)]
        request: RequestArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Send bytes to a server that sends them back.
    Echo {
        /// Where: HOST:PORT or unix:PATH.
        address: String,
        /// Bytes that are sent at once; what comes back is compared.
        #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
        size: u32,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Run the same work on every driver that this machine offers, and say which is best here.
    ///
    /// An echo and an HTTP server run on one core in this process, the load on another. RINGPORT_DRIVER and
    /// RINGPORT_DISABLE say what the load runs on, the same beside every server.
    Drivers(drivers::DriversArgs),
}

#[derive(Args)]
pub(crate) struct RequestArgs {
    /// The method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A field, "Name: value"; may be repeated. Host replaces that of the URL.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = target::field)]
    headers: Vec<(String, Vec<u8>)>,
    /// The body: a text, or @FILE.
    #[arg(short = 'b', long, value_parser = target::body)]
    body: Option<Bytes>,
}

#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Connections, over all cores.
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Cores (threads) that send.
    #[arg(short = 't', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    cores: u32,
    /// How long, such as 500ms, 10s or 1.5m. Default 10s, or no limit with --requests.
    #[arg(short, long, value_parser = target::positive_duration)]
    duration: Option<Duration>,
    /// How many requests; with --duration whichever is over first.
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Open loop: so many requests a second over all cores, sent at fixed times whether earlier ones were answered or
    /// not. Latency counts from the intended time, which corrects for coordinated omission.
    #[arg(short, long, value_name = "PER_SECOND", value_parser = target::rate)]
    rate: Option<f64>,
    /// Requests in flight on a connection.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,
    /// A new connection for each request, closed with a reset so that ports last. Its latency includes the connect.
    #[arg(long, conflicts_with = "pipeline")]
    connection_per_request: bool,
    /// How long a connect, and an answer, may take. A request that waits longer fails, with all behind it on its
    /// connection.
    #[arg(long, default_value = "10s", value_parser = target::positive_duration)]
    timeout: Duration,
    /// Requests of this time before the run are not counted.
    #[arg(long, default_value = "0s", value_parser = target::duration)]
    warm_up: Duration,
    /// So many failed requests still are a success. An answer with an error status has not failed.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_failures: u64,
    /// As JSON instead of a text.
    #[arg(long)]
    json: bool,
}

/// Runs; returns the exit code.
pub(crate) fn run(bench: Bench, settings: DriverSettings) -> Result<u8, String> {
    match bench {
        Bench::Http { url, request, load } => {
            let (dial, request) = http(&url, request, load.connection_per_request)?;
            measure(&url, &dial, Work::Http(request), &load, settings)
        }
        Bench::Echo { address, size, load } => {
            let payload = payload(size as usize);
            measure(&address, &address, Work::Echo(payload), &load, settings)
        }
        Bench::Drivers(args) => drivers::run(&args, settings),
    }
}

fn http(url: &str, args: RequestArgs, close: bool) -> Result<(String, Request), String> {
    let url = target::url(url)?;
    let mut request = Request {
        method: args.method,
        target: url.target,
        host: url.host,
        fields: args.headers,
        body: args.body.unwrap_or_default(),
        close,
    };
    let host = request.fields.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let Some(at) = host {
        let (_, value) = request.fields.remove(at);
        request.host = String::from_utf8(value).map_err(|_| "the field Host is not UTF-8".to_owned())?;
    }
    request.check()?;
    Ok((url.dial, request))
}

/// Bytes that differ from place to place, so that a shifted echo is noticed.
fn payload(size: usize) -> Bytes {
    Bytes::from((0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>())
}

fn measure(
    what: &str,
    dial: &str,
    work: Work,
    args: &LoadArgs,
    settings: DriverSettings,
) -> Result<u8, String> {
    if args.cores > args.connections {
        return Err(format!("{} cores need at least as many connections", args.cores));
    }
    let limit = process::raise_fd_limit().map_or(1024, |limit| limit.soft);
    if u64::from(args.connections) + FD_RESERVE > limit {
        let most = limit.saturating_sub(FD_RESERVE);
        return Err(format!(
            "{} connections are too many: the limit on open files leaves {most}",
            args.connections
        ));
    }
    let unbounded = args.duration.is_none() && args.requests.is_none();
    let job = Job {
        addr: target::resolve(dial)?,
        work,
        connections: args.connections as usize,
        cores: args.cores as usize,
        depth: args.pipeline as usize,
        fresh: args.connection_per_request,
        timeout: args.timeout,
        warm_up: args.warm_up,
        duration: if unbounded { Some(DEFAULT_DURATION) } else { args.duration },
        requests: args.requests,
        rate: args.rate,
        pin: None,
    };
    let signals = Signals::install().map_err(|error| format!("cannot watch signals: {error}"))?;
    let outcome = load::run(job.clone(), settings, &signals, &mut Progress::new(what))?;
    if args.json {
        say(&format!("{:#}", report::json(what, &job, &outcome)))?;
    } else {
        say(report::text(what, &job, &outcome).trim_end())?;
    }
    Ok(exit_code(&outcome, args.max_failures))
}

/// A peer that never answered has failed too, unless the user ended the run before it could.
fn exit_code(outcome: &Outcome, max_failures: u64) -> u8 {
    let silent = outcome.tally.completed == 0 && outcome.tally.cut() > 0 && !outcome.interrupted;
    u8::from(outcome.tally.failed() > max_failures || silent)
}

const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Descriptors for the process itself.
const FD_RESERVE: u64 = 64;
