//! User-space instructions, system calls and heap allocations per request, counted exactly by single-stepping a server.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;
use ringport_benches::load::Kind;
use ringport_benches::metering::{self, Metered, Plan};
use ringport_benches::symbols::By;
use ringport_benches::{ToldError, exit_code, peers, programs, say};

/// Counts user-space instructions, system calls and heap allocations per request by single-stepping a server.
///
/// Without --peer and without a command every peer of the load is metered, one row each.
#[derive(Parser)]
struct Cli {
    /// What is asked for.
    #[arg(value_enum)]
    load: Kind,
    /// Connections, each with one request (or --pipeline many) in flight.
    #[arg(short, long, default_value = "64")]
    connections: NonZeroUsize,
    /// Rounds that are stepped and counted.
    #[arg(short, long, default_value = "2")]
    rounds: NonZeroUsize,
    /// Rounds before, not stepped.
    #[arg(short, long, default_value_t = 200)]
    warmup: usize,
    /// Bytes of an echo, or of the origin's answer.
    #[arg(short, long)]
    bytes: Option<NonZeroUsize>,
    /// Requests sent at once on each connection.
    #[arg(short, long, default_value = "1")]
    pipeline: NonZeroUsize,
    /// A field of each request, and of each answer of the origin, differs from all before.
    #[arg(long)]
    changing: bool,
    /// Only this peer; may be given several times.
    #[arg(long)]
    peer: Vec<String>,
    /// How many functions are shown; 0 for the table alone.
    #[arg(short, long, default_value_t = 25)]
    top: usize,
    /// What instructions are gathered by.
    #[arg(long, value_enum, default_value_t = By::Function)]
    by: By,
    /// Only what lies in compiled functions whose name contains this.
    #[arg(long, default_value = "")]
    within: String,
    /// Servers are built already.
    #[arg(long)]
    no_build: bool,
    /// A server's command line instead of a peer; {port} and {origin} are replaced.
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    exit_code("meter", run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), ToldError> {
    let plan = Plan {
        kind: cli.load,
        connections: cli.connections.get(),
        rounds: cli.rounds.get(),
        warmup: cli.warmup,
        bytes: cli.bytes.map_or(if cli.load == Kind::Echo { 64 } else { 13 }, NonZeroUsize::get),
        pipeline: cli.pipeline.get(),
        changing: cli.changing,
    };
    let asked = match cli.peer.is_empty() {
        true => peers::of(cli.load),
        false => peers::named(cli.load, &cli.peer)?,
    };
    say(format_args!("{plan}"))?;
    if !cli.command.is_empty() {
        let metered = metering::run(&plan, |origin| peers::start_command(&cli.command, origin))?;
        return print(cli, "command", &metered);
    }
    if !cli.no_build {
        programs::build()?;
    }
    for peer in asked {
        match metering::run(&plan, |origin| peer.start(origin)) {
            Ok(metered) => print(cli, &peer.name, &metered)?,
            Err(error) => say(format_args!("{:<18} not measured: {error}", peer.name))?,
        }
    }
    Ok(())
}

fn print(cli: &Cli, name: &str, metered: &Metered) -> Result<(), ToldError> {
    say(format_args!(
        "{name:<18} {:>10.1} instructions  {:>7.3} syscalls  {:>6.2} allocations  per request ({} requests; other threads {:.1})",
        metered.instructions, metered.syscalls, metered.allocations, metered.requests, metered.others
    ))?;
    if cli.top == 0 {
        return Ok(());
    }
    for (call, count) in &metered.syscalls_by_name {
        say(format_args!("    {:>10.3}  {call}", count))?;
    }
    for (name, count) in metered.gathered(cli.by, &cli.within).into_iter().take(cli.top) {
        say(format_args!("    {:>10.1}  {:>5.1} %  {name}", count, 100.0 * count / metered.instructions))?;
    }
    Ok(())
}
