//! What does a reverse proxy add to a request?

use std::io;

use crate::bench::{self, Config};
use crate::load::Kind;
use crate::pace::{Effort, Pace};
use crate::peers;
use crate::results::Report;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let about = "GET / goes through the proxy to a plain origin on the load's core, both sides kept alive. Cost of the \
                 proxy alone, its core pinned.";
    bench::run("proxy", about, &configs(pace), peers::of, pace)
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    bench::effort(&configs(pace), peers::of)
}

fn configs(pace: Pace) -> Vec<Config> {
    let all = [("13 B", 13), ("4 KiB", 4096), ("1 MiB", 1 << 20)];
    let taken = if pace.first_only { 1 } else { all.len() };
    let config = |(size, bytes)| Config {
        name: format!("{size} answers, 64 connections"),
        kind: Kind::Proxy,
        connections: 64,
        pipeline: 1,
        bytes,
        metered: bytes == 13,
        open_loop: bytes == 13,
    };
    all.into_iter().take(taken).map(config).collect()
}
