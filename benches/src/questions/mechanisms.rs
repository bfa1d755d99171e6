//! What does each mechanism of the io_uring driver bring?

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
    let about = "ringport's echo and hello on io_uring with each mechanism switched off in turn, as `RINGPORT_DISABLE` does; \
                 the ratio is the full set's cost to that without it, so that below 1 it pays. epoll beside them.";
    bench::run("mechanisms", about, &configs(), peers::without_mechanisms, pace)
}

/// What that takes.
pub(crate) fn effort(_: Pace) -> Effort {
    bench::effort(&configs(), peers::without_mechanisms)
}

fn configs() -> Vec<Config> {
    let config = |(name, kind, bytes): (&str, Kind, usize)| Config {
        name: format!("{name}, 64 connections"),
        kind,
        connections: 64,
        pipeline: 1,
        bytes,
        metered: bytes < 1024,
        open_loop: false,
    };
    let all =
        [("echo, 64 B", Kind::Echo, 64), ("echo, 16 KiB", Kind::Echo, 16 << 10), ("hello", Kind::Hello, 13)];
    all.into_iter().map(config).collect()
}
