//! The questions, each a module: what is asked of whom, in which configurations.

mod churn;
mod echo;
mod hello;
mod idle;
mod proxy;
mod relay;
mod timers;

use std::io;

use crate::bench::Pace;

/// Asks a question of [`crate::results::QUESTIONS`] and keeps the report under `results/`.
///
/// # Errors
/// What hindered all of it; a question that nobody knows.
pub fn ask(question: &str, pace: Pace) -> io::Result<()> {
    let report = match question {
        "echo" => echo::ask(pace),
        "hello" => hello::ask(pace),
        "proxy" => proxy::ask(pace),
        "relay" => relay::ask(pace),
        "churn" => churn::ask(pace),
        "idle" => idle::ask(pace),
        "timers" => timers::ask(pace),
        _ => Err(io::Error::other(format!("{question} is no question"))),
    };
    report?.keep()
}
