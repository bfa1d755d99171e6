//! What does it cost to move a deadline for every request, with a million deadlines pending?

use std::io;
use std::time::Duration;

use crate::cpu;
use crate::pace::{Effort, Pace};
use crate::peers;
use crate::results::{Context, Report, Row, Spread};
use crate::stop;

const PENDING: usize = 1_000_000;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let (server_cpu, _) = cpu::pair()?;
    let context = Context::here(pace.quick, false);
    let mut rows = Vec::new();
    for peer in PEERS {
        let mut row = Row::new("1,000,000 deadlines pending", peer);
        match measure(peer, server_cpu, pace) {
            Ok(extra) => row.extra = extra,
            Err(error) => row.failed = Some(error.to_string()),
        }
        println!("timers: {:<16} {:?} {:?}", row.peer, row.extra, row.failed);
        rows.push(row);
    }
    let about = "Each request reads the clock and moves its connection's deadline to 75 s from then, as a keep-alive does: \
                 all pending ones in turn. Processor time of one thread, medians. Both note a later deadline and touch \
                 the wheel when the old one fires, which is not reached here. ringport's clock is read once a turn, \
                 tokio's at each move.";
    Ok(Report { question: "timers".to_owned(), about: about.to_owned(), context, rows, notes: Vec::new() })
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    Effort { fixed: Duration::from_millis(600) * (PEERS.len() * rounds(pace)) as u32, ..Effort::default() }
}

const PEERS: [&str; 2] = ["ringport", "tokio"];

fn rounds(pace: Pace) -> usize {
    if pace.quick { 3 } else { pace.rounds }
}

fn measure(peer: &str, server_cpu: usize, pace: Pace) -> io::Result<Vec<(String, f64)>> {
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); NAMES.len()];
    for _ in 0..rounds(pace) {
        stop::check()?;
        let values = peers::run_timers(peer, server_cpu, PENDING)?;
        if values.len() != NAMES.len() {
            return Err(io::Error::other(format!("{peer} gives {} values", values.len())));
        }
        all.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
    }
    let median = |values: Vec<f64>| Spread::of(values).map_or(f64::NAN, |spread| spread.median);
    Ok(NAMES.iter().zip(all).map(|(name, values)| ((*name).to_owned(), median(values))).collect())
}

/// In the order in which the programs print them.
const NAMES: [&str; 3] = ["ns to move one", "ns to make one and poll it", "ns to drop one"];
