//! What does a TCP relay add, which copies in both directions and understands nothing?

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
    let about = "The proxy's load through relays of plain TCP, one connection to the origin for each client. A stream is a \
                 connection on which answers of 1 MiB follow each other without a pause: its cost is that of 1 MiB. \
                 ringport's is `net::relay`, once with the copies that RINGPORT_DISABLE=splice makes of it and once as it \
                 comes, splicing bulk; HAProxy splices nothing or, where its row says so, everything.";
    bench::run("relay", about, &configs(pace), peers::of, pace)
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    bench::effort(&configs(pace), peers::of)
}

fn configs(pace: Pace) -> Vec<Config> {
    // As the tables head it, bytes of an answer, connections, how many are asked for at once.
    let all = [
        ("13 B answers, 64 connections", 13, 64, 1),
        ("4 KiB answers, 64 connections", 4 << 10, 64, 1),
        ("1 MiB, 1 stream", 1 << 20, 1, 4),
        ("1 MiB, 64 streams", 1 << 20, 64, 2),
    ];
    let taken = if pace.first_only { 1 } else { all.len() };
    let config = |(name, bytes, connections, pipeline): (&str, usize, usize, usize)| Config {
        name: name.to_owned(),
        kind: Kind::Relay,
        connections,
        pipeline,
        bytes,
        metered: bytes == 13,
        open_loop: bytes == 13,
    };
    all.into_iter().take(taken).map(config).collect()
}
