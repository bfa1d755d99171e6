//! Two streams joined: bytes both ways until both have ended.
//!
//! ```text
//! each way:  Copying --much comes at once--> Stopping --all of it passed on--> Splicing
//!            Copying <--little comes at once, or no pipe is to be had-----------'
//!            any --its source ended--> Ending --everything sent, end passed on--> Ended
//! ```
//!
//! Copying is cheaper for what is small and seldom: many streams share a system call. Splicing makes three for each stream
//! that has something, and none of them copies.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use crate::net::Stream;
use crate::runtime::{Moved, Splice, SpliceError, Transport, TxLevel};

/// Unsent bytes above which no more is taken from the other side.
const HIGH_WATER: usize = 256 * 1024;
/// A way changes to splicing once it has brought `MUCH` at once `OFTEN` times more than less.
const MUCH: usize = 16 * 1024;
const OFTEN: u8 = 4;
/// It changes back to copying once it has brought no more than `LITTLE` at once, `SELDOM` times in a row.
const LITTLE: u64 = 4 * 1024;
const SELDOM: u8 = 16;

/// Bytes that a relay has passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the first stream to the second.
    pub to_second: u64,
    /// From the second stream to the first.
    pub to_first: u64,
}

/// Which of two streams failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelayError {
    /// The first: reset, timed out, or not to be sent to any more.
    First(io::Error),
    /// The second.
    Second(io::Error),
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelayError::First(error) => write!(f, "the first stream: {error}"),
            RelayError::Second(error) => write!(f, "the second stream: {error}"),
        }
    }
}

impl std::error::Error for RelayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RelayError::First(error) | RelayError::Second(error) => Some(error),
        }
    }
}

/// Passes bytes both ways until both streams have ended. What either has received already goes first; the end of one is
/// passed on to the other.
///
/// Bulk goes from socket to socket past user space, where the runtime can do that (splice(2) on Linux). Dropping the future
/// may lose bytes that are under way; the stream that they were meant for is then reset when it closes. There is no timeout:
/// race it with one, or use [`Relay`].
///
/// # Errors
/// Which stream failed. What the other was given before is still sent.
pub async fn relay<T: Transport>(
    first: &mut Stream<T>,
    second: &mut Stream<T>,
) -> Result<Relayed, RelayError> {
    let mut relay = Relay::new();
    std::future::poll_fn(|cx| relay.poll(cx, first, second)).await?;
    Ok(relay.relayed())
}

/// [`relay`] as a state to be polled, for callers that race it with a timer or want to know how far it is.
#[derive(Default)]
pub struct Relay {
    up: Way,
    down: Way,
}

impl Relay {
    /// Nothing has been passed on yet.
    pub fn new() -> Self {
        Relay::default()
    }

    /// Passes on what there is. Call it with the same two streams each time; nothing else may send to them or receive from
    /// them meanwhile.
    ///
    /// # Errors
    /// In the `Poll`: which stream failed.
    pub fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut Stream<T>,
        second: &mut Stream<T>,
    ) -> Poll<Result<(), RelayError>> {
        let up = self.up.poll(cx, first, second).map_err(|failed| match failed {
            Failed::Source(error) => RelayError::First(error),
            Failed::Sink(error) => RelayError::Second(error),
        })?;
        let down = self.down.poll(cx, second, first).map_err(|failed| match failed {
            Failed::Source(error) => RelayError::Second(error),
            Failed::Sink(error) => RelayError::First(error),
        })?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// How many bytes were passed on so far. They were handed to the kernel; the peer may have read none of them.
    pub fn relayed(&self) -> Relayed {
        Relayed { to_second: self.up.passed, to_first: self.down.passed }
    }
}

#[derive(Default)]
struct Way {
    state: State,
    passed: u64,
    /// How much more often it came in bulk than not; while splicing, how often in a row in crumbs.
    streak: u8,
    /// Splicing was tried and is not to be had.
    only_copies: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Copying,
    Stopping(Splice),
    Splicing(Splice),
    Ending,
    Ended,
}

enum Failed {
    Source(io::Error),
    Sink(io::Error),
}

impl Way {
    fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream<T>,
        to: &mut Stream<T>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            match &mut self.state {
                State::Copying => ready!(self.poll_copy(cx, from, to))?,
                State::Stopping(splice) => {
                    ready!(splice.poll_stopped(cx));
                    ready!(self.poll_rest(cx, from, to))?;
                }
                State::Splicing(_) => ready!(self.poll_splice(cx))?,
                State::Ending => {
                    to.start_send().map_err(Failed::Sink)?;
                    ready!(to.transport().poll_shutdown(cx)).map_err(Failed::Sink)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Ready when the state has changed.
    fn poll_copy<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream<T>,
        to: &mut Stream<T>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            ready!(to.poll_flush(cx, TxLevel::Below(HIGH_WATER))).map_err(Failed::Sink)?;
            if from.rx().is_empty() && !ready!(from.poll_fill(cx, HIGH_WATER)).map_err(Failed::Source)? {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            let count = self.pass_on(from, to);
            to.start_send().map_err(Failed::Sink)?;
            // A crumb takes back one, not all: io_uring cuts what comes where a chunk of the pool is full.
            self.streak = if count < MUCH { self.streak.saturating_sub(1) } else { self.streak + 1 };
            if self.streak < OFTEN || self.only_copies {
                self.streak = self.streak.min(OFTEN);
                continue;
            }
            self.streak = 0;
            match from.transport().splice_to(to.transport()) {
                Some(splice) => {
                    self.state = State::Stopping(splice);
                    return Poll::Ready(Ok(()));
                }
                None => self.only_copies = true,
            }
        }
    }

    /// Passes on what was received before the receiving stopped, and waits until it is sent.
    fn poll_rest<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream<T>,
        to: &mut Stream<T>,
    ) -> Poll<Result<(), Failed>> {
        while let Poll::Ready(more) = from.poll_fill(cx, HIGH_WATER) {
            if !more.map_err(Failed::Source)? {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            self.pass_on(from, to);
        }
        ready!(to.poll_flush(cx, TxLevel::Empty)).map_err(Failed::Sink)?;
        self.state = match std::mem::take(&mut self.state) {
            State::Stopping(splice) => State::Splicing(splice),
            other => other,
        };
        Poll::Ready(Ok(()))
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let State::Splicing(splice) = &mut self.state else { return Poll::Ready(Ok(())) };
        let moved = ready!(splice.poll_move(cx, u64::MAX)).map_err(|error| match error {
            SpliceError::Source(error) => Failed::Source(error),
            SpliceError::Sink(error) => Failed::Sink(error),
        })?;
        match moved {
            Moved::Bytes(count) => {
                self.passed += count;
                self.streak = crumbs_in_a_row(self.streak, count);
                if self.streak >= SELDOM && splice.under_way() == 0 {
                    (self.state, self.streak) = (State::Copying, 0);
                }
            }
            Moved::End => self.state = State::Ending,
            Moved::Copy => (self.state, self.streak, self.only_copies) = (State::Copying, 0, true),
        }
        Poll::Ready(Ok(()))
    }

    /// Moves everything that was received to what is to be sent.
    fn pass_on<T: Transport>(&mut self, from: &mut Stream<T>, to: &mut Stream<T>) -> usize {
        let mut count = 0;
        while let Some(buf) = from.rx().pop(usize::MAX) {
            count += buf.len();
            to.tx().push(buf);
        }
        self.passed += count as u64;
        count
    }
}

/// How often in a row it came in crumbs, after this much. It goes on beyond `SELDOM` while a slow sink keeps bytes under way.
fn crumbs_in_a_row(before: u8, count: u64) -> u8 {
    if count > LITTLE { 0 } else { before.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::{LITTLE, SELDOM, crumbs_in_a_row};

    /// A sink that takes crumbs for long is no fault: the count overflowed once.
    #[test]
    fn crumbs_are_counted_as_far_as_it_matters() {
        let mut streak = 0;
        for _ in 0..1_000 {
            let next = crumbs_in_a_row(streak, LITTLE);
            assert!(next > streak || next == u8::MAX, "{next} after {streak}");
            streak = next;
        }
        assert!(streak >= SELDOM);
        assert_eq!(crumbs_in_a_row(streak, LITTLE + 1), 0);
    }
}
