//! What does an echo cost, beside tokio and the other io_uring runtimes, and beside a bare loop?

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
    let about = "A message comes back. Cost of the server alone, its core pinned and busy.";
    bench::run("echo", about, &configs(pace), peers::of, pace)
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    bench::effort(&configs(pace), peers::of)
}

fn configs(pace: Pace) -> Vec<Config> {
    let mut configs = Vec::new();
    for (bytes, size) in [(64, "64 B"), (1024, "1 KiB"), (16 * 1024, "16 KiB")] {
        for connections in [1, 64, 512] {
            if pace.first_only && (bytes, connections) != (64, 64) {
                continue;
            }
            configs.push(Config {
                name: format!("{size}, {}", bench::connections(connections)),
                kind: Kind::Echo,
                connections,
                pipeline: 1,
                bytes,
                metered: bytes == 64 && connections == 64,
                open_loop: bytes == 64 && connections == 64,
            });
        }
    }
    configs
}
