//! Asks every question, one after the other, and renders the page.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use clap::Parser;
use ringport_benches::bench::Pace;
use ringport_benches::{peers, questions, render, results};

/// Measures everything and writes `RESULTS.md` and `results/`.
#[derive(Parser)]
struct Cli {
    /// A quick look: short rounds and few configurations.
    #[arg(long)]
    quick: bool,
    /// With --quick: every configuration, in short rounds.
    #[arg(long, requires = "quick")]
    wide: bool,
    /// Only this question; what is kept of the others stays.
    #[arg(long, value_name = "QUESTION", value_parser = clap::builder::PossibleValuesParser::new(results::QUESTIONS))]
    only: Option<String>,
    /// Only render what is kept under `results/`.
    #[arg(long)]
    render: bool,
    /// Servers are built already.
    #[arg(long)]
    no_build: bool,
}

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    let mut complete = true;
    if !cli.render && !cli.no_build {
        peers::build()?;
    }
    match &cli.only {
        _ if cli.render => {}
        Some(question) => questions::ask(question, Pace::new(cli.quick, cli.wide))?,
        None => {
            for question in results::QUESTIONS {
                complete &= ask_apart(question, &cli)?;
            }
        }
    }
    render::page(&results::Report::kept()?)?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A question is a process of its own: pinned, and with all its memory and descriptors gone when the next one starts.
fn ask_apart(question: &str, cli: &Cli) -> io::Result<bool> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--no-build", "--only", question]);
    if cli.quick {
        command.arg("--quick");
    }
    if cli.wide {
        command.arg("--wide");
    }
    let status = command.status()?;
    if !status.success() {
        println!("{question}: {status}");
    }
    Ok(status.success())
}
