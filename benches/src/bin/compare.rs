//! Some peers, and any servers by their command lines, in paired rounds of one load: a change beside what was before it.

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringport_benches::bench::{self, Config};
use ringport_benches::load::Kind;
use ringport_benches::pace::Pace;
use ringport_benches::peers::{self, Peer};
use ringport_benches::{ToldError, cpu, exit_code, say, stop};

/// Compares servers in rounds that run one after the other: what each spends, and that divided by what the first spends.
///
/// Nothing is built, and nothing is kept.
#[derive(Parser)]
struct Cli {
    /// What is asked for.
    #[arg(value_enum)]
    load: Kind,
    /// Connections, each with one request (or --pipeline many) in flight.
    #[arg(short, long, default_value = "64")]
    connections: NonZeroUsize,
    /// Bytes of an echo, or of the origin's answer.
    #[arg(short, long)]
    bytes: Option<NonZeroUsize>,
    /// Requests sent at once on each connection.
    #[arg(short, long, default_value = "1")]
    pipeline: NonZeroUsize,
    /// How often each has its turn.
    #[arg(short, long, default_value = "9")]
    rounds: NonZeroUsize,
    /// How long a turn is.
    #[arg(short, long, default_value = "300")]
    millis: NonZeroU64,
    /// Measures latency at a fixed rate, too.
    #[arg(long)]
    at_rate: bool,
    /// A peer; may be given several times.
    #[arg(long)]
    peer: Vec<String>,
    /// Servers and load go before all else on the machine (SCHED_FIFO, which root may ask for).
    #[arg(long)]
    real_time: bool,
    /// NAME=COMMAND LINE of each other server; {port} and {origin} are replaced.
    #[arg(last = true)]
    commands: Vec<String>,
}

fn main() -> ExitCode {
    exit_code("compare", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), ToldError> {
    stop::listen();
    if cli.real_time {
        cpu::go_first()?;
    }
    let config = Config {
        name: format!("{}, {}", cli.load, bench::connections(cli.connections.get())),
        kind: cli.load,
        connections: cli.connections.get(),
        pipeline: cli.pipeline.get(),
        bytes: cli.bytes.map_or(if cli.load == Kind::Echo { 64 } else { 13 }, NonZeroUsize::get),
        metered: false,
        open_loop: cli.at_rate,
    };
    let pace = Pace {
        rounds: cli.rounds.get(),
        slice: Duration::from_millis(cli.millis.get()),
        quick: true,
        first_only: false,
    };
    // Before anything is started.
    if chosen(cli, cli.load)?.is_empty() {
        return Err(io::Error::other("nobody to compare: name a --peer, or a command line behind --").into());
    }
    let report = bench::run("compare", "", &[config], |kind| chosen(cli, kind).unwrap_or_default(), pace)?;
    if report.rows.iter().all(|row| row.failed.is_some()) {
        return Err(io::Error::other("nothing was measured").into());
    }
    for row in report.rows.iter().filter(|row| row.failed.is_none()) {
        if let Some(ratio) = row.ratio_to(&report.rows[0]) {
            say(format_args!(
                "{:<28} {:.3} of the first ({:.3} to {:.3})",
                row.peer, ratio.median, ratio.min, ratio.max
            ))?;
        }
        let at_rate =
            |at: usize| row.spread_at_rate(|round| round.latency_us[at]).map(|spread| spread.median);
        if let (Some(p50), Some(p99), Some(p999)) = (at_rate(0), at_rate(1), at_rate(2)) {
            say(format_args!("{:<28} at a fixed rate: {p50:.1} / {p99:.0} / {p999:.0} us", ""))?;
        }
    }
    Ok(())
}

fn chosen(cli: &Cli, kind: Kind) -> io::Result<Vec<Peer>> {
    let named = peers::named(kind, &cli.peer)?;
    let commands = cli.commands.iter().enumerate().map(|(at, line)| match line.split_once('=') {
        Some((name, line)) if !name.contains('/') => Peer::of_command(name, kind, line),
        Some(_) | None => Peer::of_command(&format!("command {}", at + 1), kind, line),
    });
    Ok(commands.chain(named).collect())
}
