//! The questions, each a module: what is asked of whom, in which configurations.

mod churn;
mod echo;
mod hello;
mod idle;
mod mechanisms;
mod proxy;
mod relay;
mod timers;

use std::io;

use crate::pace::{Effort, Pace};
use crate::results::Report;

struct Question {
    name: &'static str,
    ask: fn(Pace) -> io::Result<Report>,
    effort: fn(Pace) -> Effort,
}

/// In the order of [`crate::results::QUESTIONS`].
const ALL: &[Question] = &[
    Question { name: "echo", ask: echo::ask, effort: echo::effort },
    Question { name: "hello", ask: hello::ask, effort: hello::effort },
    Question { name: "proxy", ask: proxy::ask, effort: proxy::effort },
    Question { name: "relay", ask: relay::ask, effort: relay::effort },
    Question { name: "churn", ask: churn::ask, effort: churn::effort },
    Question { name: "idle", ask: idle::ask, effort: idle::effort },
    Question { name: "timers", ask: timers::ask, effort: timers::effort },
    Question { name: "mechanisms", ask: mechanisms::ask, effort: mechanisms::effort },
];

/// Asks a question and keeps the report under `results/`; nothing is kept of one that was ended before it had measured.
///
/// # Errors
/// What hindered all of it; a question that nobody knows.
pub fn ask(question: &str, pace: Pace) -> io::Result<()> {
    let report = (find(question)?.ask)(pace)?;
    if report.rows.iter().all(|row| row.failed.is_some()) {
        crate::tell(format_args!("{question}: nothing was measured; what is kept of it stays"));
        return Ok(());
    }
    report.keep()
}

/// What a question takes.
///
/// # Errors
/// That nobody knows it.
pub fn effort(question: &str, pace: Pace) -> io::Result<Effort> {
    Ok((find(question)?.effort)(pace))
}

fn find(name: &str) -> io::Result<&'static Question> {
    let found = ALL.iter().find(|question| question.name == name);
    found.ok_or_else(|| io::Error::other(format!("{name} is no question")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::QUESTIONS;

    #[test]
    fn every_question_can_be_asked() {
        let names: Vec<&str> = ALL.iter().map(|question| question.name).collect();
        assert_eq!(names, QUESTIONS);
    }
}
