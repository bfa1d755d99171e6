//! The frame of a program that answers one question.

use std::io;

use clap::Parser;

use crate::bench::Pace;
use crate::peers;
use crate::results::Report;

#[derive(Parser)]
struct Cli {
    /// A quick look: short rounds and few configurations.
    #[arg(long)]
    quick: bool,
    /// Servers are built already.
    #[arg(long)]
    no_build: bool,
}

/// Builds the servers, asks, and keeps the report under `results/`.
///
/// # Errors
/// What hindered all of it.
pub fn main(ask: impl FnOnce(Pace) -> io::Result<Report>) -> io::Result<()> {
    let cli = Cli::parse();
    if !cli.no_build {
        peers::build()?;
    }
    let report = ask(Pace::new(cli.quick))?;
    report.keep()
}
