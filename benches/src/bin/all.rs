//! Asks every question, one after the other, and renders the page.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use clap::Parser;
use ringport_benches::{peers, render, results};

/// Measures everything and writes `RESULTS.md` and `results/`.
#[derive(Parser)]
struct Cli {
    /// A quick look: short rounds and few configurations.
    #[arg(long)]
    quick: bool,
    /// Only render what is kept under `results/`.
    #[arg(long)]
    render: bool,
}

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    let mut complete = true;
    if !cli.render {
        peers::build()?;
        for question in results::QUESTIONS {
            complete &= ask(question, cli.quick)?;
        }
    }
    render::page(&results::Report::kept()?)?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A question is a program of its own: pinned, and with all its memory and descriptors gone when the next one starts.
fn ask(question: &str, quick: bool) -> io::Result<bool> {
    let program = env::current_exe()?.with_file_name(question);
    let mut command = Command::new(program);
    command.arg("--no-build");
    if quick {
        command.arg("--quick");
    }
    let status = command.status()?;
    if !status.success() {
        println!("{question}: {status}");
    }
    Ok(status.success())
}
