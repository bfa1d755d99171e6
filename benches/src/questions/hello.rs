//! What does a small HTTP/1.1 answer cost, kept alive and pipelined?

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
    let about = "GET / is answered with 13 bytes and a content type. Cost of the server alone, its core pinned and busy.";
    bench::run("hello", about, &configs(pace), peers::of, pace)
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    bench::effort(&configs(pace), peers::of)
}

fn configs(pace: Pace) -> Vec<Config> {
    let all = [(64, 1), (64, 16), (1, 1)];
    let taken = if pace.first_only { 1 } else { all.len() };
    let config = |(connections, pipeline)| Config {
        name: format!("{}, {pipeline} in flight on each", bench::connections(connections)),
        kind: Kind::Hello,
        connections,
        pipeline,
        bytes: 13,
        metered: connections == 64 && (pipeline == 1 || !pace.quick),
        open_loop: (connections, pipeline) == (64, 1),
    };
    all.into_iter().take(taken).map(config).collect()
}
