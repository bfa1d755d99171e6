//! How long everything takes: rounds and their length, and how both follow from the time that there is.

use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

/// How much is measured, and how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Rounds of every peer; at least [`Pace::LEAST_ROUNDS`].
    pub rounds: usize,
    /// One round of one peer.
    pub slice: Duration,
    /// Whether it is a quick look: short rounds.
    pub quick: bool,
    /// Whether only the first configurations are run.
    pub first_only: bool,
}

impl Pace {
    /// Fewer say little about how far values spread.
    pub const LEAST_ROUNDS: usize = 7;
    /// A shorter slice does not outlast what a server does now and then.
    pub const SHORTEST: Duration = Duration::from_millis(50);
    const USUAL: Duration = Duration::from_millis(400);

    /// The pace of a run that counts, or of a quick look, which takes every configuration only if it is `wide`.
    pub fn new(quick: bool, wide: bool) -> Pace {
        let slice = if quick { Duration::from_millis(100) } else { Pace::USUAL };
        Pace { rounds: Pace::LEAST_ROUNDS, slice, quick, first_only: quick && !wide }
    }

    /// The same configurations within a budget: more rounds where there is time, shorter ones where there is little.
    /// `None` when not even the shortest fit.
    #[must_use]
    pub fn within(self, budget: Duration, effort: Effort) -> Option<Pace> {
        let left = budget.checked_sub(effort.fixed)?;
        let least = Pace { rounds: Pace::LEAST_ROUNDS, ..self };
        let slice = left.div_f64(effort.slices(least));
        if slice < Pace::SHORTEST {
            return None;
        }
        if slice < Pace::USUAL {
            return Some(Pace { slice, ..least });
        }
        let slices = left.as_secs_f64() / Pace::USUAL.as_secs_f64();
        let rounds = (slices - effort.once) / effort.each_round.max(1.0);
        Some(Pace { rounds: rounds as usize, slice: Pace::USUAL, ..self })
    }
}

/// What a question takes, in rounds of one peer beside what takes its own time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Slices that are run once.
    pub once: f64,
    /// Slices that are run in every round.
    pub each_round: f64,
    /// Starting servers, opening connections, stepping.
    pub fixed: Duration,
}

impl Effort {
    fn slices(&self, pace: Pace) -> f64 {
        self.once + self.each_round * pace.rounds as f64
    }

    /// About how long it takes.
    pub fn takes(&self, pace: Pace) -> Duration {
        self.fixed + pace.slice.mul_f64(self.slices(pace))
    }
}

impl Add for Effort {
    type Output = Effort;

    fn add(self, other: Effort) -> Effort {
        Effort {
            once: self.once + other.once,
            each_round: self.each_round + other.each_round,
            fixed: self.fixed + other.fixed,
        }
    }
}

impl Sum for Effort {
    fn sum<I: Iterator<Item = Effort>>(efforts: I) -> Effort {
        efforts.fold(Effort::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_used() {
        let effort = Effort { once: 10.0, each_round: 20.0, fixed: Duration::from_secs(10) };
        let pace = Pace::new(false, false);
        // 10 s and 150 slices.
        for (seconds, expected) in [
            (10, None),
            (15, None),
            (25, Some((7, Duration::from_millis(100)))),
            (70, Some((7, Duration::from_millis(400)))),
            (86, Some((9, Duration::from_millis(400)))),
        ] {
            let budget = Duration::from_secs(seconds);
            let found = pace.within(budget, effort);
            assert_eq!(found.map(|pace| (pace.rounds, pace.slice)), expected, "{seconds} s");
            assert!(found.is_none_or(|pace| effort.takes(pace) <= budget), "{seconds} s");
        }
    }
}
