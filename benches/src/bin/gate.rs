//! Refuses a change that makes a request dearer: user-space instructions, system calls and heap allocations per request
//! against the limits in `gate.toml`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ringport_benches::load::Kind;
use ringport_benches::metering::{self, Metered, Plan};
use ringport_benches::peers::{self, Peer};
use ringport_benches::{complain, programs, tell};
use serde::Deserialize;

/// Compares what a request costs ringport with the limits in `gate.toml`; exit status 1 when one is passed.
#[derive(Parser)]
struct Cli {
    /// Write what is measured into `gate.toml` instead.
    #[arg(long)]
    write: bool,
    /// Servers are built already.
    #[arg(long)]
    no_build: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    /// What may be above a limit, as a part of it.
    slack: f64,
    limit: Vec<Limit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    load: Kind,
    server: String,
    instructions: f64,
    syscalls: f64,
    allocations: f64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            tell(format_args!("gate: skipped: the servers cannot be stepped by ptrace here: {error}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(format_args!("gate: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml");
    if !cli.no_build {
        programs::build_ringport()?;
    }
    let mut measured = Vec::new();
    for peer in [Kind::Echo, Kind::Hello, Kind::Proxy, Kind::Relay].into_iter().flat_map(peers::ours) {
        let metered = metering::run(&plan(peer.kind), |origin| peer.start(origin))?;
        measured.push((peer, metered));
    }
    if cli.write {
        return write(&path, &measured).map(|()| true);
    }
    let faulty = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| faulty(&error))?;
    let limits: Limits = toml::from_str(&text).map_err(|error| faulty(&error))?;
    let mut passed = true;
    for (peer, metered) in &measured {
        let limit = limits.limit.iter().find(|limit| limit.load == peer.kind && limit.server == peer.name);
        let Some(limit) = limit else {
            return Err(io::Error::other(format!("gate.toml has no limit for {} {}", peer.kind, peer.name)));
        };
        passed &= compare(peer, metered, limit, limits.slack);
    }
    Ok(passed)
}

/// Few connections, so that all of it takes seconds; a turn's own cost is then well visible, too.
fn plan(kind: Kind) -> Plan {
    let (connections, bytes) = match kind {
        Kind::Echo => (16, 64),
        Kind::Hello | Kind::Proxy => (16, 13),
        Kind::Relay => (8, 13),
    };
    Plan { kind, connections, rounds: 2, warmup: 100, bytes, pipeline: 1, changing: false }
}

fn compare(peer: &Peer, metered: &Metered, limit: &Limit, slack: f64) -> bool {
    // One turn more in a round is a matter of time and no fault.
    let one_turn = 1.0 / plan(peer.kind).connections as f64;
    let rows = [
        ("instructions", metered.instructions, limit.instructions, one_turn),
        ("system calls", metered.syscalls, limit.syscalls, one_turn),
        ("allocations", metered.allocations, limit.allocations, timed_allocations(peer.kind)),
    ];
    let mut passed = true;
    for (what, measured, limit, more) in rows {
        let most = limit * (1.0 + slack) + more;
        let above = measured > most;
        passed &= !above;
        let verdict = if above { "ABOVE" } else { "ok" };
        // Who reads only the first lines asks for the exit status all the same.
        tell(format_args!(
            "{:<6} {:<22} {what:<13} {measured:>10.2}  limit {limit:>10.2}, up to {most:>10.2}  {verdict}",
            peer.kind, peer.name
        ));
    }
    passed
}

/// What is allocated once a second, above all by a proxy, falls on few requests here, because a stepped server is slow.
fn timed_allocations(kind: Kind) -> f64 {
    match kind {
        Kind::Proxy => 0.5,
        _ => 0.1,
    }
}

fn write(path: &PathBuf, measured: &[(Peer, Metered)]) -> io::Result<()> {
    let mut text = String::from(HEADER);
    for (peer, metered) in measured {
        let Metered { instructions, syscalls, allocations, .. } = metered;
        write!(
            text,
            "\n[[limit]]\nload = \"{}\"\nserver = \"{}\"\ninstructions = {instructions:.1}\nsyscalls = {syscalls:.3}\n\
             allocations = {allocations:.2}\n",
            peer.kind, peer.name
        )
        .map_err(io::Error::other)?;
    }
    fs::write(path, text)?;
    tell(format_args!("gate: wrote {}", path.display()));
    Ok(())
}

const HEADER: &str = "\
# What a request costs at 16 connections (relay: 8), as `gate --write` measured it. A change that lowers a number writes it here; one
# that must raise a number says why.
# Processors differ: the parser and memcpy choose their instructions by what the processor has.
slack = 0.10
";
