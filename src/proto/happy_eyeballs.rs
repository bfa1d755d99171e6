//! Which address to try when, for a target that has several (RFC 8305, Happy Eyeballs).
//!
//! ```text
//!           +-- fall-back delay over, or an attempt failed --+
//!           v                                                |
//! new --> Start(address) --> under way ----------------------+
//!                              |   |  its share is used up --> Abandon --> as if it had failed
//!                              |   `- connected: whoever drives it drops the rest
//!                              `----- none left, none under way --> Exhausted;  deadline --> TimedOut
//! ```
//!
//! The machine has no socket and no clock. In a loop: do what [`Attempts::poll`] says; at [`Action::Wait`] sleep until
//! [`Attempts::poll_timeout`], or until an attempt ends and [`Attempts::handle_failed`] is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How the addresses of a target are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptsSpec {
    /// After how long without an answer the next address is tried beside those under way; `None` = when the one before has
    /// failed.
    pub fallback_delay: Option<Duration>,
    /// When all of them are given up.
    pub deadline: Option<Instant>,
    /// How many are under way at most; at least one is.
    pub max_under_way: usize,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin an attempt.
    Start {
        /// Its number, from 0 on: the place of its address.
        attempt: usize,
    },
    /// End this attempt: its share of the time is used up. It counts as failed.
    Abandon {
        /// Its number.
        attempt: usize,
    },
    /// Nothing before [`Attempts::poll_timeout`], or before an attempt ends.
    Wait,
    /// Every address has failed.
    Exhausted,
    /// The deadline has passed; what is under way is to be ended.
    TimedOut,
}

/// The attempts at a target's addresses, which the machine knows by their places only.
#[derive(Debug)]
pub struct Attempts {
    spec: AttemptsSpec,
    addr_count: usize,
    /// How many of the addresses were begun.
    started: usize,
    under_way: Vec<UnderWay>,
    /// When the next address is due, though nothing has failed.
    next_start: Option<Instant>,
}

#[derive(Debug)]
struct UnderWay {
    attempt: usize,
    deadline: Option<Instant>,
}

impl Attempts {
    /// At so many addresses, which are in the order in which they are to be tried: see [`interleaved`].
    pub fn new(addr_count: usize, spec: AttemptsSpec) -> Self {
        Attempts { spec, addr_count, started: 0, under_way: Vec::new(), next_start: None }
    }

    /// The next thing to do. Each is told once, but [`Action::Wait`] and the ends.
    pub fn poll(&mut self, now: Instant) -> Action {
        if self.spec.deadline.is_some_and(|deadline| deadline <= now) {
            return Action::TimedOut;
        }
        let overdue = |attempt: &UnderWay| attempt.deadline.is_some_and(|deadline| deadline <= now);
        if let Some(at) = self.under_way.iter().position(overdue) {
            let attempt = self.under_way.remove(at).attempt;
            self.next_start = Some(now);
            return Action::Abandon { attempt };
        }
        if self.started == self.addr_count {
            return if self.under_way.is_empty() { Action::Exhausted } else { Action::Wait };
        }
        if !self.may_start(now) {
            return Action::Wait;
        }
        let attempt = self.started;
        let deadline = self.share(now);
        self.under_way.push(UnderWay { attempt, deadline });
        self.started += 1;
        self.next_start = self.spec.fallback_delay.and_then(|delay| now.checked_add(delay));
        Action::Start { attempt }
    }

    /// When to poll again if no attempt ends before; `None` = only then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let shares = self.under_way.iter().filter_map(|attempt| attempt.deadline);
        let has_next = self.started < self.addr_count && self.has_room();
        let next = self.next_start.filter(|_| has_next);
        shares.chain(next).chain(self.spec.deadline).min()
    }

    /// An attempt has failed: the next address is due at once (RFC 8305 5). One that was abandoned is not spoken of again.
    pub fn handle_failed(&mut self, attempt: usize, now: Instant) {
        if let Some(at) = self.under_way.iter().position(|other| other.attempt == attempt) {
            self.under_way.remove(at);
            self.next_start = Some(now);
        }
    }

    /// How many addresses were begun.
    pub fn started(&self) -> usize {
        self.started
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < self.spec.max_under_way.max(1)
    }

    fn may_start(&self, now: Instant) -> bool {
        self.under_way.is_empty()
            || self.has_room() && self.next_start.is_some_and(|next_start| next_start <= now)
    }

    /// The end of an attempt that begins now: an equal part of what is left for those that have not begun, though a short part
    /// is no use, so never less than [`MIN_SHARE`] while there is as much.
    fn share(&self, now: Instant) -> Option<Instant> {
        let deadline = self.spec.deadline?;
        let left = deadline.saturating_duration_since(now);
        let parts = u32::try_from(self.addr_count - self.started).unwrap_or(u32::MAX);
        Some(now + (left / parts.max(1)).max(MIN_SHARE).min(left))
    }
}

/// The families take turns, that of the first address first (RFC 8305 4); within a family the order stays.
pub fn interleaved(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addrs.first().map(SocketAddr::is_ipv4) else { return addrs };
    let (preferred, others): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv4() == first);
    let mut result = Vec::with_capacity(preferred.len() + others.len());
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    loop {
        let (one, other) = (preferred.next(), others.next());
        if one.is_none() && other.is_none() {
            return result;
        }
        result.extend(one.into_iter().chain(other));
    }
}

/// Room for one SYN that was lost and sent again after a second (RFC 6298 2.1), and its answer.
pub const MIN_SHARE: Duration = Duration::from_secs(2);

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the machine is given its time; a test needs an instant to count from"
)]
mod tests;
