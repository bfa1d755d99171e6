//! What does an echo cost, beside tokio and the other io_uring runtimes, and beside a bare loop?

use std::io;

use ringport_benches::bench::{self, Config, Pace};
use ringport_benches::load::Kind;
use ringport_benches::question;

fn main() -> io::Result<()> {
    question::main(|pace| {
        bench::run(
            "echo",
            "A message comes back. Cost of the server alone, its core pinned and busy.",
            &configs(pace),
            pace,
        )
    })
}

fn configs(pace: Pace) -> Vec<Config> {
    let mut configs = Vec::new();
    for (bytes, size) in [(64, "64 B"), (1024, "1 KiB"), (16 * 1024, "16 KiB")] {
        for connections in [1, 64, 512] {
            if pace.quick && (bytes, connections) != (64, 64) {
                continue;
            }
            configs.push(Config {
                name: format!("{size}, {connections} connections"),
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
