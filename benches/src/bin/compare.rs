//! Some peers, and any servers by their command lines, in paired rounds of one load: a change beside what was before it.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringport_benches::bench::{self, Config};
use ringport_benches::load::Kind;
use ringport_benches::pace::Pace;
use ringport_benches::peers::{self, Peer};
use ringport_benches::{cpu, stop};

/// Compares servers in rounds that run one after the other: what each spends, and that divided by what the first spends.
///
/// Nothing is built, and nothing is kept.
#[derive(Parser)]
struct Cli {
    /// What is asked for.
    #[arg(value_enum)]
    load: Kind,
    /// Connections, each with one request (or --pipeline many) in flight.
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// Bytes of an echo, or of the origin's answer.
    #[arg(short, long)]
    bytes: Option<usize>,
    /// Requests sent at once on each connection.
    #[arg(short, long, default_value_t = 1)]
    pipeline: usize,
    /// How often each has its turn.
    #[arg(short, long, default_value_t = 9)]
    rounds: usize,
    /// How long a turn is.
    #[arg(short, long, default_value_t = 300)]
    millis: u64,
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
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    stop::listen();
    if cli.real_time {
        cpu::go_first()?;
    }
    let config = Config {
        name: format!("{}, {}", cli.load, bench::connections(cli.connections)),
        kind: cli.load,
        connections: cli.connections,
        pipeline: cli.pipeline,
        bytes: cli.bytes.unwrap_or(if cli.load == Kind::Echo { 64 } else { 13 }),
        metered: false,
        open_loop: cli.at_rate,
    };
    let pace =
        Pace { rounds: cli.rounds, slice: Duration::from_millis(cli.millis), quick: true, first_only: false };
    let report = bench::run("compare", "", &[config], |kind| chosen(cli, kind), pace)?;
    for row in report.rows.iter().filter(|row| row.failed.is_none()) {
        if let Some(ratio) = row.ratio_to(&report.rows[0]) {
            println!(
                "{:<28} {:.3} of the first ({:.3} to {:.3})",
                row.peer, ratio.median, ratio.min, ratio.max
            );
        }
        let at_rate =
            |at: usize| row.spread_at_rate(|round| round.latency_us[at]).map(|spread| spread.median);
        if let (Some(p50), Some(p99), Some(p999)) = (at_rate(0), at_rate(1), at_rate(2)) {
            println!("{:<28} at a fixed rate: {p50:.1} / {p99:.0} / {p999:.0} us", "");
        }
    }
    Ok(())
}

fn chosen(cli: &Cli, kind: Kind) -> Vec<Peer> {
    let named = peers::of(kind).into_iter().filter(|peer| cli.peer.contains(&peer.name));
    let commands = cli.commands.iter().enumerate().map(|(at, line)| match line.split_once('=') {
        Some((name, line)) if !name.contains('/') => Peer::of_command(name, kind, line),
        Some(_) | None => Peer::of_command(&format!("command {}", at + 1), kind, line),
    });
    commands.chain(named).collect()
}
