//! Asks every question, one after the other, and renders the page.

use std::io;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use ringport_benches::pace::{Effort, Pace};
use ringport_benches::{cpu, peers, programs, questions, render, results, stop};

/// Measures everything and writes `RESULTS.md` and `results/`.
///
/// Ctrl-C ends the run: what has been measured is kept and rendered.
#[derive(Parser)]
struct Cli {
    /// A quick look: short rounds and few configurations.
    #[arg(long)]
    quick: bool,
    /// With --quick: every configuration, in short rounds.
    #[arg(long, requires = "quick")]
    wide: bool,
    /// Only this question; what is kept of the others stays. May be given several times.
    #[arg(long, value_name = "QUESTION", value_parser = clap::builder::PossibleValuesParser::new(results::QUESTIONS))]
    only: Vec<String>,
    /// What the run may take: more rounds, or shorter ones, but never fewer than seven.
    #[arg(long, value_name = "N", value_parser = minutes)]
    minutes: Option<f64>,
    /// Servers and load go before everything else that runs on the machine (SCHED_FIFO, which root may ask for). The kernel
    /// still leaves a part of each second to others.
    #[arg(long)]
    real_time: bool,
    /// Say how long the run would take, and end.
    #[arg(long)]
    estimate: bool,
    /// Only render what is kept under `results/`.
    #[arg(long)]
    render: bool,
    /// Servers are built already.
    #[arg(long)]
    no_build: bool,
    /// Ask one question in this process, in so many rounds of so many milliseconds.
    #[arg(long, hide = true, num_args = 2, value_names = ["ROUNDS", "MILLISECONDS"])]
    pace: Option<Vec<u64>>,
}

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    if cli.render {
        render::page(&results::Report::kept()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    stop::listen();
    let asked: Vec<&str> = match cli.only.is_empty() {
        true => results::QUESTIONS.to_vec(),
        false => cli.only.iter().map(String::as_str).collect(),
    };
    let usual = Pace::new(cli.quick, cli.wide);
    if let (Some([rounds, millis]), [question]) = (cli.pace.as_deref(), asked.as_slice()) {
        let pace = Pace { rounds: *rounds as usize, slice: Duration::from_millis(*millis), ..usual };
        questions::ask(question, pace)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !cli.no_build && !cli.estimate {
        ringport_benches::tell(format_args!("building the servers"));
        programs::build()?;
    }
    let Some(pace) = announce(&asked, usual, cli.minutes)? else { return Ok(ExitCode::FAILURE) };
    if cli.estimate {
        return Ok(ExitCode::SUCCESS);
    }
    peers::clear_leftovers()?;
    if cli.real_time {
        cpu::go_first()?;
    }
    let complete = ask_all(&asked, pace, &cli)?;
    render::page(&results::Report::kept()?)?;
    Ok(if complete && !stop::asked() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what the run takes; `None` when that is more than there is.
fn announce(asked: &[&str], usual: Pace, minutes: Option<f64>) -> io::Result<Option<Pace>> {
    let efforts: Vec<Effort> =
        asked.iter().map(|question| questions::effort(question, usual)).collect::<io::Result<_>>()?;
    let all: Effort = efforts.iter().copied().sum();
    let pace = match minutes {
        None => usual,
        Some(minutes) => match usual.within(Duration::from_secs_f64(minutes * 60.0), all) {
            Some(pace) => pace,
            None => {
                let shortest = Pace { rounds: Pace::LEAST_ROUNDS, slice: Pace::SHORTEST, ..usual };
                ringport_benches::tell(format_args!(
                    "{minutes} minutes are too few: it takes at least {}",
                    minutes_of(all.takes(shortest))
                ));
                return Ok(None);
            }
        },
    };
    for (question, effort) in asked.iter().zip(&efforts) {
        ringport_benches::tell(format_args!("{question:<12} about {}", minutes_of(effort.takes(pace))));
    }
    ringport_benches::tell(format_args!(
        "{} rounds of {} ms of every peer: about {} in all",
        pace.rounds,
        pace.slice.as_millis(),
        minutes_of(all.takes(pace))
    ));
    Ok(Some(pace))
}

/// Reads minutes; a week and more is a slip of the pen.
fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.0..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err(format!("{text:?} is no number of minutes, 0 to 10000")),
    }
}

fn minutes_of(time: Duration) -> String {
    format!("{:.1} minutes", time.as_secs_f64() / 60.0)
}

/// `false` when a question failed.
fn ask_all(asked: &[&str], pace: Pace, cli: &Cli) -> io::Result<bool> {
    let started = Instant::now();
    let mut complete = true;
    for question in asked {
        if stop::asked() {
            ringport_benches::tell(format_args!("{question}: not asked, since the run was ended"));
            continue;
        }
        complete &= ask_apart(question, pace, cli)?;
        ringport_benches::tell(format_args!(
            "== {question}: done, {} since the start",
            minutes_of(started.elapsed())
        ));
    }
    Ok(complete)
}

/// A question is a process of its own: pinned, and with all its memory and descriptors gone when the next one starts. It
/// hears a Ctrl-C itself.
fn ask_apart(question: &str, pace: Pace, cli: &Cli) -> io::Result<bool> {
    // Not by its path: it may be built anew meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(["--only", question, "--pace"]);
    command.args([pace.rounds.to_string(), pace.slice.as_millis().to_string()]);
    if cli.quick {
        command.arg("--quick");
    }
    if cli.wide {
        command.arg("--wide");
    }
    stop::with_us(&mut command);
    let mut child = command.spawn()?;
    // `wait` goes on after a signal: the question ends by itself then, and keeps what it has.
    let status = child.wait()?;
    if !status.success() {
        ringport_benches::tell(format_args!("{question}: {status}"));
    }
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::minutes;

    /// What is no time used to end in a panic.
    #[test]
    fn minutes_are_read() {
        assert_eq!((minutes("30"), minutes("0.5")), (Ok(30.0), Ok(0.5)));
        for text in ["nan", "inf", "1e30", "-1", "x"] {
            assert!(minutes(text).is_err(), "{text}");
        }
    }
}
