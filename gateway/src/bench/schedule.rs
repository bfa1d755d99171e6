//! When requests are to be sent: one core's part of the plan, without a clock.
//!
//! ```text
//! begin --warm-up, not counted--> start --counted--> end, or the last of the requests asked for
//! ```
//! Closed loop: the next request is due when a connection has room for it. Open loop: request `k` of core `i` of `n` is
//! due at `(k * n + i) / rate` after its phase began, whether earlier ones were answered or not. Its latency counts from
//! then, so that a server that stalls is charged for what waited meanwhile.

use std::time::{Duration, Instant};

/// One request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub due: Instant,
    /// Not in the warm-up.
    pub counted: bool,
}

/// Requests at fixed instants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// A second, over all cores; above 0.
    pub rate: f64,
    pub index: usize,
    pub cores: usize,
}

/// What one core still has to send.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub begin: Instant,
    pub start: Instant,
    pub end: Option<Instant>,
    pub pace: Option<Pace>,
    /// Counted requests that may still be sent.
    pub left: Option<u64>,
    /// Places of the grid that were given out in this phase.
    given: u64,
    warm: bool,
}

impl Schedule {
    pub(super) fn new(begin: Instant, warm_up: Duration) -> Self {
        let start = begin + warm_up;
        Schedule { begin, start, end: None, pace: None, left: None, given: 0, warm: !warm_up.is_zero() }
    }

    /// The next request; `None` when nothing more is to be sent.
    pub(super) fn next(&mut self, now: Instant) -> Option<Ticket> {
        if self.warm {
            let due = self.pace.map_or(now, |pace| self.begin + pace.offset(self.given));
            if due < self.start && now < self.start {
                self.given += 1;
                return Some(Ticket { due, counted: false });
            }
            self.warm = false;
            self.given = 0;
        }
        let due = self.pace.map_or(now, |pace| self.start + pace.offset(self.given));
        if self.left == Some(0) || self.end.is_some_and(|end| due >= end || now >= end) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        self.given += 1;
        Some(Ticket { due, counted: true })
    }

    /// Gives out nothing more.
    pub(super) fn stop(&mut self) {
        self.left = Some(0);
        self.warm = false;
    }

    /// The end, unless all the requests that were asked for are given out.
    pub(super) fn ended_by_time(&self) -> Option<Instant> {
        self.end.filter(|_| self.left != Some(0))
    }

    /// How many counted requests were due before `stop` and have not been given out; 0 in a closed loop.
    pub(super) fn missed(&self, stop: Instant) -> u64 {
        let Some(pace) = self.pace else { return 0 };
        let stop = self.end.map_or(stop, |end| end.min(stop));
        let given = if self.warm { 0 } else { self.given };
        let due = pace.due_within(stop.saturating_duration_since(self.start));
        let missed = due.saturating_sub(given);
        self.left.map_or(missed, |left| missed.min(left))
    }
}

impl Pace {
    fn offset(&self, given: u64) -> Duration {
        let place = given as f64 * self.cores as f64 + self.index as f64;
        Duration::try_from_secs_f64(place / self.rate).unwrap_or(MAX_OFFSET).min(MAX_OFFSET)
    }

    /// Places of this core's grid that lie before `span`.
    fn due_within(&self, span: Duration) -> u64 {
        let places = (span.as_secs_f64() * self.rate - self.index as f64) / self.cores as f64;
        let guess = places.max(0.0) as u64;
        // Floating point may be off by one place; the grid itself decides.
        let first = guess.saturating_sub(1);
        first + (first..guess + 2).filter(|place| self.offset(*place) < span).count() as u64
    }
}

/// Longer than any run, short enough to be added to an instant.
const MAX_OFFSET: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The part of `total` that share `index` of `count` gets; the parts add up to it.
pub(super) fn share(total: u64, index: usize, count: usize) -> u64 {
    let (index, count) = (index as u64, count as u64);
    total / count + u64::from(index < total % count)
}

#[cfg(test)]
mod tests {
    use super::{Pace, Schedule, share};
    use std::time::{Duration, Instant};

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn shares_add_up() {
        for (total, count) in [(0, 3), (1, 3), (10, 3), (12, 3), (u64::MAX, 7)] {
            let sum: u64 = (0..count).map(|index| share(total, index, count)).sum();
            assert_eq!(sum, total, "{total} over {count}");
        }
        assert_eq!([share(10, 0, 4), share(10, 1, 4), share(10, 2, 4), share(10, 3, 4)], [3, 3, 2, 2]);
    }

    #[test]
    fn a_closed_loop_counts_after_the_warm_up_and_ends() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, millis(10));
        schedule.left = Some(2);
        schedule.end = Some(begin + millis(20));
        let counted = |schedule: &mut Schedule, at| schedule.next(begin + millis(at)).map(|t| t.counted);
        assert_eq!(counted(&mut schedule, 0), Some(false));
        assert_eq!(counted(&mut schedule, 9), Some(false));
        assert_eq!(counted(&mut schedule, 10), Some(true));
        assert_eq!(counted(&mut schedule.clone(), 20), None, "the time is over");
        assert_eq!(counted(&mut schedule, 12), Some(true));
        assert_eq!(counted(&mut schedule, 12), None, "the requests are sent");
        assert_eq!(schedule.missed(begin + millis(20)), 0);
    }

    #[test]
    fn an_open_loop_is_a_grid_that_cores_share() {
        let begin = Instant::now();
        let mut all = Vec::new();
        for index in 0..3 {
            let mut schedule = Schedule::new(begin, millis(100));
            schedule.end = Some(begin + millis(1100));
            schedule.pace = Some(Pace { rate: 100.0, index, cores: 3 });
            // The clock stands still: what is due does not depend on when it is asked for.
            all.extend(std::iter::from_fn(|| schedule.next(begin)));
            assert_eq!(schedule.missed(begin + millis(5000)), 0);
        }
        let mut counted: Vec<_> = all.iter().filter(|t| t.counted).map(|t| t.due - begin).collect();
        counted.sort();
        assert_eq!(counted.len(), 100);
        assert_eq!((counted[0], counted[1], counted[99]), (millis(100), millis(110), millis(1090)));
        assert_eq!(all.len(), 110);
    }

    #[test]
    fn what_was_due_and_not_sent_is_known() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, Duration::ZERO);
        schedule.pace = Some(Pace { rate: 1000.0, index: 0, cores: 1 });
        assert_eq!(schedule.missed(begin), 0);
        assert_eq!(schedule.missed(begin + millis(7)), 7);
        schedule.next(begin);
        schedule.next(begin);
        assert_eq!(schedule.missed(begin + millis(7)), 5);
        schedule.left = Some(3);
        assert_eq!(schedule.missed(begin + millis(7)), 3);
        schedule.left = None;
        schedule.end = Some(begin + millis(9));
        assert_eq!(schedule.next(begin + millis(9)), None, "what is late at the end is not sent any more");
        assert_eq!(schedule.missed(begin + millis(20)), 7);
        assert_eq!(schedule.ended_by_time(), schedule.end);
        schedule.stop();
        assert_eq!(schedule.next(begin + millis(8)), None);
        assert_eq!(schedule.ended_by_time(), None);
    }
}
