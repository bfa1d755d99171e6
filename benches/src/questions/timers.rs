//! What does it cost to move a deadline for every request, with a million deadlines pending?

use std::io;
use std::time::Duration;

use crate::cpu;
use crate::pace::{Effort, Pace};
use crate::peers;
use crate::results::{Context, Report, Row};
use crate::stop;

const PENDING: usize = 1_000_000;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let (server_cpu, _) = cpu::pair()?;
    let context = Context::here(pace.quick, false);
    let mut rows = PEERS.map(|peer| Row {
        extra: NAMES.map(|name| (name.to_owned(), Vec::new())).to_vec(),
        ..Row::new("1,000,000 deadlines pending", peer)
    });
    for _ in 0..rounds(pace) {
        for row in rows.iter_mut().filter(|row| row.failed.is_none()) {
            if let Err(error) = measure(row, server_cpu) {
                row.failed = Some(error.to_string());
            }
        }
    }
    for row in &rows {
        crate::tell(format_args!("timers: {:<16} {} {:?}", row.peer, row.extra_text(), row.failed));
    }
    let about = "Each request reads the clock and moves its connection's deadline to 75 s from then, as a keep-alive does: \
                 all pending ones in turn. Processor time of one thread. Both note a later deadline and touch \
                 the wheel when the old one fires, which is not reached here. ringport's clock is read once a turn, \
                 tokio's at each move.";
    Ok(Report {
        question: "timers".to_owned(),
        about: about.to_owned(),
        context,
        rows: rows.to_vec(),
        notes: Vec::new(),
    })
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    Effort { fixed: Duration::from_millis(600) * (PEERS.len() * rounds(pace)) as u32, ..Effort::default() }
}

const PEERS: [&str; 2] = ["ringport", "tokio"];

fn rounds(pace: Pace) -> usize {
    if pace.quick { 3 } else { pace.rounds }
}

/// One round.
fn measure(row: &mut Row, server_cpu: usize) -> io::Result<()> {
    stop::check()?;
    let values = peers::run_timers(&row.peer, server_cpu, PENDING)?;
    if values.len() != NAMES.len() {
        return Err(io::Error::other(format!("{} gives {} values", row.peer, values.len())));
    }
    row.extra.iter_mut().zip(values).for_each(|((_, rounds), value)| rounds.push(value));
    Ok(())
}

/// In the order in which the programs print them.
const NAMES: [&str; 3] = ["ns to move one", "ns to make one and poll it", "ns to drop one"];
