//! What does a TCP relay add, which copies in both directions and understands nothing?

use std::io;

use crate::bench::{self, Config, Pace};
use crate::load::Kind;
use crate::results::Report;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let about = "The proxy's load through relays of plain TCP, one connection to the origin for each client. ringport's \
                 is a task for each direction that sends on the views which it received; nobody here splices but HAProxy, \
                 where it finds that worth while.";
    let mut report = bench::run("relay", about, &configs(pace), pace)?;
    if !crate::peers::nginx_stream_is_here() {
        report.notes.push("nginx is not measured as a relay: its stream module is not installed.".to_owned());
    }
    Ok(report)
}

fn configs(pace: Pace) -> Vec<Config> {
    let all = [("13 B", 13), ("4 KiB", 4096), ("1 MiB", 1 << 20)];
    let taken = if pace.first_only { 1 } else { all.len() };
    let config = |(size, bytes)| Config {
        name: format!("{size} answers, 64 connections"),
        kind: Kind::Relay,
        connections: 64,
        pipeline: 1,
        bytes,
        metered: bytes == 13,
        open_loop: bytes == 13,
    };
    all.into_iter().take(taken).map(config).collect()
}
