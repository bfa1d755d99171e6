//! The deadlines of a connection: all are looked at once in a while, by one timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::StatusCode;
use ringport_platform::timer::later;

use super::super::shared::{Over, State};
use super::Connection;
use crate::proto::http2::Code;
use crate::runtime::{Runtime, Timer, Transport};
use crate::spec::HttpTimeouts;

/// Whether the client takes what is sent.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) handed: u64,
    /// As it was looked at last.
    unsent: u64,
    handed_then: u64,
    stalled_since: Option<Instant>,
    pub(super) is_given_up: bool,
}

impl<R: Runtime> Connection<R> {
    /// Looks at all deadlines once in a while: no timer is moved for a request.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.runtime.now();
        let machine = self.shared.state().conn.poll_timeout();
        if machine.is_some_and(|machine| machine < self.due) {
            self.due = machine.unwrap_or(self.due);
            self.timer.reset(self.due);
        }
        if self.timer.poll_elapsed(cx).is_pending() {
            return Poll::Pending;
        }
        let shared = self.shared.clone();
        let mut state = shared.state();
        state.conn.handle_timeout(now);
        self.expire(&mut state, now);
        drop(state);
        self.schedule(now);
        Poll::Ready(())
    }

    /// The next look: before the first deadline that may come up meanwhile, and at those that are known.
    pub(super) fn schedule(&mut self, now: Instant) {
        let mut tick = self.core.tick;
        if self.draining_since.is_some() {
            tick = tick.min(DRAIN_GRACE / 4);
        }
        self.due = later(now, tick);
        self.timer.reset(self.due);
    }

    fn expire(&mut self, state: &mut State, now: Instant) {
        let timeouts = *self.core.spec.timeouts();
        expire_requests(state, &timeouts, now);
        self.look_at_sending(now);
        if passed(now, self.sending.stalled_since, timeouts.write_idle) {
            // It takes nothing, so it is told nothing.
            state.end_all(Over::Stalled);
            self.sending.is_given_up = true;
        } else if self.waiting_since.is_some() {
            self.expire_waiting(state, &timeouts, now);
        }
    }

    /// No request is under way: one is waited for, or the rest of its head.
    fn expire_waiting(&mut self, state: &mut State, timeouts: &HttpTimeouts, now: Instant) {
        let head_since = self.head_since.or(self.waiting_since.filter(|_| self.served == 0));
        let is_http2 = state.conn.is_http2() && !state.conn.is_reading_head();
        if passed(now, head_since, timeouts.header) && !is_http2 {
            if self.head_since.is_some() {
                self.refuse(state, StatusCode::REQUEST_TIMEOUT, "request head timeout");
            }
            return self.end(state);
        }
        let is_drained = !is_http2
            && passed(now, self.draining_since, DRAIN_GRACE)
            && passed(now, self.waiting_since, DRAIN_GRACE);
        if is_drained || passed(now, self.waiting_since, timeouts.keep_alive_idle) {
            self.end(state);
        }
    }

    fn end(&mut self, state: &mut State) {
        state.conn.close(Code::NO_ERROR);
        (state.ends, state.again) = (true, true);
    }

    /// Whether the client has taken anything since the last look.
    fn look_at_sending(&mut self, now: Instant) {
        // Handing over nothing says how much is unsent.
        let unsent = self.stream.transport().send(&mut self.runtime.tx_queue()).unwrap_or(0) as u64;
        let Sending { handed, unsent: before, handed_then, .. } = self.sending;
        let took = unsent < before + (handed - handed_then);
        (self.sending.unsent, self.sending.handed_then) = (unsent, handed);
        if unsent == 0 || took {
            self.sending.stalled_since = None;
        } else {
            self.sending.stalled_since.get_or_insert(now);
        }
    }
}

/// Ends requests whose time is over; who handles them is told.
fn expire_requests(state: &mut State, timeouts: &HttpTimeouts, now: Instant) {
    for at in 0..state.slots.len() {
        let slot = &mut state.slots[at];
        let Some(id) = slot.id else { continue };
        if passed(now, slot.receiving_since, timeouts.body_idle) {
            if slot.discards {
                state.stop_discarding(id);
                continue;
            }
            slot.end(Over::BodyTimeout);
        }
        if passed(now, slot.sending_since, timeouts.write_idle) {
            slot.end(Over::Stalled);
        }
        if timeouts.request.is_some_and(|request| passed(now, slot.begun, request)) {
            slot.end(Over::Deadline);
        }
        state.again = true;
    }
}

fn passed(now: Instant, since: Option<Instant>, timeout: Duration) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
}

/// For a request that was on its way when a connection was told to drain.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
