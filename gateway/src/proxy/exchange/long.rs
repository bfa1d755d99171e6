//! Long bodies of known length: when what came first has been passed on, the rest goes from socket to socket.
//!
//! ```text
//! Copying --all that came was passed on, and much is left--> Stopping --the receive has ended, all is sent--> Moving
//! Moving --the last byte, the source's end, no pipe--> Over: what is left is copied, and tells what is wrong
//! Moving --the sink takes no more--> Lost: the other way tells why
//! ```
//!
//! The machines of both sides count what passes them by. What the client gave is counted even where the origin never got
//! it: its next request lies behind.

use std::task::{Context, Poll, ready};

use ringport::http::ClientError;
use ringport::proto::http1::RemainingBody;
use ringport::runtime::{Moved, Splice, SpliceError, Transport, TxLevel};

use super::relay::{Relay, unpassable};
use super::trouble::Trouble;
use super::{Exchange, Leg};

/// How a body goes on.
#[derive(Default)]
pub(super) enum Long {
    #[default]
    Copying,
    Stopping(Box<Splice>),
    Moving(Box<Splice>),
    /// By copying, to the end.
    Over,
    /// The sink takes no more, and what was under way to it is lost: there is nothing to go on with.
    Lost,
}

impl Long {
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Long::Lost)
    }

    pub(super) fn is_moving(&self) -> bool {
        matches!(self, Long::Moving(_))
    }

    /// Whether the rest of a body may move: once so much is left and the source has stopped receiving.
    ///
    /// Only for a side whose machine has taken all that came: what is behind the body's end must not be stopped for it.
    fn poll_stopped(
        &mut self,
        cx: &mut Context<'_>,
        left: RemainingBody,
        min: u64,
        splice: impl FnOnce() -> Option<Splice>,
    ) -> Poll<()> {
        if let (Long::Copying, RemainingBody::Known(left)) = (&*self, left)
            && left >= min
        {
            *self = splice().map_or(Long::Over, |splice| Long::Stopping(Box::new(splice)));
        }
        match self {
            Long::Stopping(splice) => splice.poll_stopped(cx),
            Long::Copying | Long::Moving(_) | Long::Over | Long::Lost => Poll::Pending,
        }
    }

    fn start_moving(&mut self) {
        *self = match std::mem::take(self) {
            Long::Stopping(splice) => Long::Moving(splice),
            other => other,
        };
    }
}

/// What the rest of a body came to in one step.
enum Step {
    Passed(u64),
    Over,
}

/// Moves what is there of the `left` bytes of a body. `full` says whether the sink is what is waited for.
fn poll_step(
    long: &mut Long,
    cx: &mut Context<'_>,
    left: RemainingBody,
    full: &mut bool,
) -> Poll<Result<Step, SpliceError>> {
    let (Long::Moving(splice), RemainingBody::Known(left @ 1..)) = (long, left) else {
        return Poll::Ready(Ok(Step::Over));
    };
    let moved = splice.poll_move(cx, left);
    *full = moved.is_pending() && splice.is_sink_full();
    Poll::Ready(ready!(moved).map(|moved| match moved {
        Moved::Bytes(count) => Step::Passed(count),
        Moved::End | Moved::Copy => Step::Over,
    }))
}

impl Exchange<'_> {
    /// Asked when all that has come of the response was passed on; ready when the rest moves.
    pub(super) fn poll_begin_response(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        let min = self.visit.config.spec.runtime().splice_min_bytes;
        let (Some(origin), Some(client)) = (leg.stream.http1(), self.client.http1()) else {
            return Poll::Pending;
        };
        let left = origin.conn().remaining_body();
        let splice = || origin.stream().transport().splice_to(client.stream().transport());
        ready!(relay.down.poll_stopped(cx, left, min, splice));
        let sent = client.poll_sent(cx, TxLevel::Empty);
        relay.client_full = sent.is_pending();
        ready!(sent).map_err(|error| Trouble::of_client(&error))?;
        relay.down.start_moving();
        relay.moved = true;
        Poll::Ready(Ok(()))
    }

    /// Moves the rest of the response; ready when the last byte of it has gone, or the rest is to be copied.
    pub(super) fn poll_long_response(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        let (Some(origin), Some(client)) = (leg.stream.http1(), self.client.http1()) else {
            return Poll::Pending;
        };
        loop {
            let left = origin.conn().remaining_body();
            match ready!(poll_step(&mut relay.down, cx, left, &mut relay.client_full)) {
                Ok(Step::Passed(count)) => {
                    origin.conn().body_taken_past(count);
                    relay.body_bytes += count;
                    relay.progressed(self.visit.shared.core.time());
                    let counted = client.conn().body_sent_past(count);
                    counted.map_err(|error| unpassable(error.into(), relay))?;
                }
                Ok(Step::Over) => {
                    relay.down = Long::Over;
                    return Poll::Ready(Ok(()));
                }
                Err(SpliceError::Source(error)) => {
                    return Poll::Ready(Err(Trouble::Cut(ClientError::Io(error).to_string())));
                }
                Err(SpliceError::Sink(_)) => return Poll::Ready(Err(Trouble::ClientGone)),
            }
        }
    }

    /// Asked when all that has come of the request's body was passed on; ready when the rest moves.
    pub(super) fn poll_begin_request(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<()> {
        if !relay.body_taken {
            return Poll::Pending;
        }
        let min = self.visit.config.spec.runtime().splice_min_bytes;
        let (Some(origin), Some(client)) = (leg.stream.http1(), self.client.http1()) else {
            return Poll::Pending;
        };
        let left = client.conn().remaining_body();
        let splice = || client.stream().transport().splice_to(origin.stream().transport());
        ready!(relay.up.poll_stopped(cx, left, min, splice));
        let sent = origin.poll_sent(cx, TxLevel::Empty);
        relay.origin_full = sent.is_pending();
        match ready!(sent) {
            Ok(()) => relay.up.start_moving(),
            // What the origin has answered before it closed is worth more than the error.
            Err(_) => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Moves the rest of the request's body; ready when the last byte of it has gone, or the rest is to be copied.
    pub(super) fn poll_long_request(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        loop {
            let (Some(origin), Some(client)) = (leg.stream.http1(), self.client.http1()) else {
                return Poll::Pending;
            };
            let left = client.conn().remaining_body();
            match ready!(poll_step(&mut relay.up, cx, left, &mut relay.origin_full)) {
                Ok(Step::Passed(count)) => {
                    client.conn().body_taken_past(count);
                    relay.progressed(self.visit.shared.core.time());
                    let counted = origin.conn().body_sent_past(count);
                    counted.map_err(|error| Trouble::Unsendable(error.into()))?;
                }
                Ok(Step::Over) => {
                    self.end_long_request(relay);
                    relay.up = Long::Over;
                    return Poll::Ready(Ok(()));
                }
                // An origin that takes no more shows in its response, or instead of it.
                Err(SpliceError::Sink(_)) => {
                    self.end_long_request(relay);
                    relay.up = Long::Lost;
                    return Poll::Pending;
                }
                Err(SpliceError::Source(_)) => return Poll::Ready(Err(Trouble::ClientGone)),
            }
        }
    }

    /// Ends what moves of the request's body; what the client gave and the origin did not take has been read.
    pub(super) fn end_long_request(&mut self, relay: &mut Relay) {
        if let Long::Moving(splice) = std::mem::take(&mut relay.up)
            && splice.under_way() > 0
            && let Some(client) = self.client.http1()
        {
            client.conn().body_taken_past(splice.under_way());
        }
    }
}
