//! What is counted while requests run.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// An answer that breaks the protocol, or differs from what was to come back.
    BadResponse,
    /// The peer ended the connection before the answer was whole.
    Closed,
    /// No local port or address was left.
    NoPort,
    /// Any other error of the system.
    Other,
    Refused,
    Reset,
    Timeout,
}

impl Failure {
    pub(super) const ALL: [Failure; 7] = [
        Failure::BadResponse,
        Failure::Closed,
        Failure::NoPort,
        Failure::Other,
        Failure::Refused,
        Failure::Reset,
        Failure::Timeout,
    ];

    /// The key in JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Failure::BadResponse => "badResponse",
            Failure::Closed => "closed",
            Failure::NoPort => "noPort",
            Failure::Other => "other",
            Failure::Refused => "refused",
            Failure::Reset => "reset",
            Failure::Timeout => "timeout",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Failure::BadResponse => "bad response",
            Failure::Closed => "closed early",
            Failure::NoPort => "no local port",
            Failure::Other => "other",
            Failure::Refused => "refused",
            Failure::Reset => "reset",
            Failure::Timeout => "timeout",
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Failure::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Failure::Reset
            }
            ErrorKind::TimedOut => Failure::Timeout,
            ErrorKind::AddrNotAvailable => Failure::NoPort,
            ErrorKind::UnexpectedEof => Failure::Closed,
            // The list of kinds is the standard library's and open.
            _ => Failure::Other,
        }
    }
}

/// The counts of one core, or of all.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub sent: u64,
    pub completed: u64,
    /// By [`Failure`].
    pub failures: [u64; Failure::ALL.len()],
    /// Open loop: due in time, and never sent since no connection had room.
    pub unsent: u64,
    pub connections: u64,
    /// Bytes of bodies that came, or of echoes.
    pub body_bytes: u64,
    /// 1xx to 5xx, by the first digit less one, and the rest.
    pub statuses: [u64; 6],
    /// In nanoseconds.
    pub latency: Histogram<u64>,
    /// Open loop: nanoseconds from when requests were due to when they were sent, where a connection stood ready. The load
    /// itself caused them, and they are in `latency`.
    pub late: Histogram<u64>,
    /// When the last counted answer was whole; at the end of a run, when that was over.
    pub last: Option<Instant>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS).expect("the bounds are in order");
        Tally {
            sent: 0,
            completed: 0,
            failures: [0; Failure::ALL.len()],
            unsent: 0,
            connections: 0,
            body_bytes: 0,
            statuses: [0; 6],
            late: latency.clone(),
            latency,
            last: None,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }

    pub(super) fn complete(&mut self, latency: Duration, now: Instant) {
        self.completed += 1;
        self.last = Some(now);
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// A request was sent so long after it was due, although a connection stood ready for it.
    pub(super) fn sent_late(&mut self, delay: Duration) {
        self.late.saturating_record(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn status(&mut self, code: u16) {
        let class = usize::from(code / 100).wrapping_sub(1).min(5);
        self.statuses[class] += 1;
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Sent, and neither answered nor failed when the run ended.
    pub(super) fn cut(&self) -> u64 {
        self.sent - self.completed - self.failed()
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.completed += other.completed;
        self.unsent += other.unsent;
        self.connections += other.connections;
        self.body_bytes += other.body_bytes;
        self.failures.iter_mut().zip(other.failures).for_each(|(sum, more)| *sum += more);
        self.statuses.iter_mut().zip(other.statuses).for_each(|(sum, more)| *sum += more);
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.late.add(&other.late).expect("both have the same bounds");
        self.last = self.last.max(other.last);
    }
}

/// Row `n` of a picture of the latencies counts those up to its bound, in nanoseconds, and above the row before.
///
/// The bounds lie evenly on a logarithmic scale from the least to the greatest: latencies spread over decades.
pub(super) fn rows(latency: &Histogram<u64>, count: u32) -> Vec<(u64, u64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    let (low, high) = (latency.min().max(1), latency.max());
    let factor = (high as f64 / low as f64).powf(1.0 / f64::from(count));
    let mut rows: Vec<(u64, u64)> = Vec::new();
    let mut from = 0;
    for row in 1..=count {
        let bound = if row == count { high } else { (low as f64 * factor.powf(f64::from(row))) as u64 };
        // A bound stands for all values that the histogram cannot tell from it.
        let bound = latency.highest_equivalent(bound);
        if bound >= from {
            rows.push((bound, latency.count_between(from, bound)));
            from = bound + 1;
        }
    }
    rows
}

const LONGEST_NANOS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::{Failure, Tally, rows};
    use std::io;
    use std::time::{Duration, Instant};

    #[test]
    fn every_latency_is_in_one_row() {
        for values in [vec![5], vec![1, 1, 2], vec![100, 200, 400_000, 7_000_000_000], (1..5000).collect()] {
            let mut tally = Tally::new();
            for value in &values {
                tally.complete(Duration::from_nanos(*value), Instant::now());
            }
            let rows = rows(&tally.latency, 10);
            assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), values.len() as u64, "{rows:?}");
            assert!(rows.is_sorted_by(|a, b| a.0 < b.0) && rows.len() <= 10, "{rows:?}");
            assert!(rows.last().expect("a row").0 >= *values.last().expect("a value"));
        }
        assert_eq!(rows(&Tally::new().latency, 10), []);
    }

    #[test]
    fn an_hour_and_more_is_counted_as_an_hour() {
        let mut tally = Tally::new();
        tally.complete(Duration::from_secs(100_000), Instant::now());
        tally.complete(Duration::ZERO, Instant::now());
        assert_eq!(tally.latency.len(), 2);
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new();
        one.sent = 4;
        one.fail(Failure::Reset);
        one.complete(Duration::from_millis(1), Instant::now());
        for code in [100, 200, 204, 599, 600, 99] {
            one.status(code);
        }
        assert_eq!(one.statuses, [1, 2, 0, 0, 1, 2]);
        assert_eq!(one.cut(), 2);
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.sent, both.completed, both.failed(), both.cut()), (8, 2, 2, 4));
        assert_eq!(both.latency.len(), 2);
    }

    #[test]
    fn failures_have_their_kind() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, Failure::Refused),
            (io::ErrorKind::BrokenPipe, Failure::Reset),
            (io::ErrorKind::AddrNotAvailable, Failure::NoPort),
            (io::ErrorKind::PermissionDenied, Failure::Other),
        ] {
            assert_eq!(Failure::from(io::Error::from(kind)), expected);
        }
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at, "{}", failure.words());
        }
    }
}
