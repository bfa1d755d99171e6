//! The relay between a client and an origin: both ways at once, each no faster than the slower side.
//!
//! ```text
//! request   reading --data--> origin --no room--> full --taken--> reading        --end--> ended: watch the client
//! response  reading --data--> client --64 KiB--> does it read? --no--> full --taken--> reading     --end--> ended
//! timeout   a side is full: write_idle    a body flows: body_idle    else: response_timeout; any progress begins anew
//! ```

use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use ringport::net::DeadlineError;
use ringport::proto::http_conn::SendError;
use ringport::proto::http1::{BodyLen, FieldWriter, RemainingBody};
use ringport::proto::http2;
use ringport::runtime::TxLevel;
use ringport_platform::core::CoreTime;

use super::long::Long;
use super::trouble::Trouble;
use super::{Exchange, Leg};
use crate::proxy::downstream::RequestEvent;
use crate::proxy::fields::put_response_fields;
use crate::proxy::session::{DRAIN_BYTES, HIGH_WATER};
use crate::proxy::upstream::{OriginError, ResponseEvent};

/// How far the relay is.
pub(super) struct Relay {
    pub(super) request_ended: bool,
    /// Trailers were sent: the end that follows them says nothing new.
    request_trailed: bool,
    response_trailed: bool,
    /// The response's length was announced: there is no place for trailers behind it.
    response_measured: bool,
    /// The client's body has begun to flow: the request cannot be sent again.
    pub(super) body_taken: bool,
    pub(super) response_began: bool,
    response_ended: bool,
    pub(super) tunnel: bool,
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    last_progress: CoreTime,
    /// Waits for the client to read, or for the origin to take.
    pub(super) client_full: bool,
    pub(super) origin_full: bool,
    /// Bytes passed to the client since it was last asked whether it reads.
    unchecked: usize,
    /// What waited for the slow side when the time was over last, if nothing has been passed since: what is passed fills up what
    /// was taken, to the same number again.
    unsent: Option<usize>,
    /// The origin has asked for the body.
    continued: bool,
    pub(super) up: Long,
    pub(super) down: Long,
    /// The response went from socket to socket: what lies behind it in the origin's has not been seen.
    pub(super) moved: bool,
}

impl Relay {
    pub(super) fn new(now: CoreTime) -> Self {
        Relay {
            request_ended: false,
            request_trailed: false,
            response_trailed: false,
            response_measured: false,
            body_taken: false,
            response_began: false,
            response_ended: false,
            tunnel: false,
            status: 0,
            body_bytes: 0,
            last_progress: now,
            client_full: false,
            unchecked: 0,
            origin_full: false,
            unsent: None,
            continued: false,
            up: Long::Copying,
            down: Long::Copying,
            moved: false,
        }
    }

    /// Something was passed on.
    #[inline]
    pub(super) fn progressed(&mut self, now: CoreTime) {
        self.last_progress = now;
        self.unsent = None;
    }
}

impl Exchange<'_> {
    /// Passes on what has come, both ways. Ready when the response has ended, or something went wrong.
    pub(super) fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
        response_timeout: Duration,
    ) -> Poll<Result<(), Trouble>> {
        // Each direction's output goes out before its own back-pressure is asked about.
        if !relay.request_ended
            && let Poll::Ready(Err(trouble)) = self.poll_request(cx, leg, relay)
        {
            return Poll::Ready(Err(trouble));
        }
        if let Poll::Ready(end) = self.poll_response(cx, leg, relay) {
            return Poll::Ready(end);
        }
        // Last, because only who waits must know that nobody waits for it any more.
        if relay.request_ended {
            while let Poll::Ready(error) = self.client.poll_gone(cx) {
                // Nothing is asked of the client now, so it is late with nothing.
                if !matches!(DeadlineError::of(&error), Some(DeadlineError::Read(_))) {
                    return Poll::Ready(Err(Trouble::of_client(&error)));
                }
            }
        }
        let timeouts = self.visit.config.spec.timeouts();
        let limit = if relay.client_full || relay.origin_full {
            timeouts.write_idle
        } else if relay.response_began || !(relay.request_ended || self.awaits_continue(relay)) {
            timeouts.body_idle
        } else {
            response_timeout
        };
        loop {
            self.visit.timer.reset_to(relay.last_progress + limit);
            ready!(self.visit.timer.poll_elapsed(cx));
            // Bytes that the slow side has taken meanwhile make no event.
            let unsent = if relay.client_full { self.client.unsent() } else { leg.stream.unsent() };
            if !(relay.client_full || relay.origin_full) || relay.unsent == Some(unsent) {
                return Poll::Ready(Err(self.too_slow(relay)));
            }
            relay.progressed(self.visit.shared.core.time());
            relay.unsent = Some(unsent);
        }
    }

    /// Whether the client holds its body back until the origin asks for it.
    fn awaits_continue(&self, relay: &Relay) -> bool {
        self.head.expects_continue() && !relay.body_taken && !relay.continued
    }

    fn too_slow(&self, relay: &Relay) -> Trouble {
        if relay.client_full {
            return Trouble::ClientStalled;
        }
        if !relay.request_ended && !relay.origin_full && !self.awaits_continue(relay) {
            return Trouble::RequestTimeout;
        }
        if relay.response_began {
            return Trouble::Cut("idle for too long".to_owned());
        }
        self.visit.shared.stats.origin_timeouts.inc();
        Trouble::ResponseTimeout
    }

    /// Passes the request's body on. Ready only with an error; pending also when it is done.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        while !relay.request_ended {
            if relay.up.is_lost() {
                return Poll::Pending;
            }
            if relay.up.is_moving() {
                ready!(self.poll_long_request(cx, leg, relay))?;
            }
            if relay.origin_full || relay.body_taken {
                match leg.stream.poll_sent(cx, TxLevel::Below(HIGH_WATER)) {
                    Poll::Ready(Ok(())) => relay.origin_full = false,
                    // What the origin has answered before it closed is worth more than the error.
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => {
                        relay.origin_full = true;
                        self.relieve_pool(leg);
                        return Poll::Pending;
                    }
                }
            }
            let event = match self.client.poll_event(cx) {
                Poll::Pending => {
                    ready!(self.poll_begin_request(cx, leg, relay));
                    continue;
                }
                Poll::Ready(event) => event?,
            };
            relay.progressed(self.visit.shared.core.time());
            let mut sent = match event {
                RequestEvent::Data(data) => {
                    relay.body_taken = true;
                    leg.stream.send_data(data)
                }
                // As with those of a response.
                RequestEvent::Trailers(_) if matches!(self.len, BodyLen::Length(_)) => Ok(()),
                RequestEvent::Trailers(trailers) => {
                    relay.body_taken = true;
                    relay.request_trailed = true;
                    leg.stream.send_trailers(trailers)
                }
                RequestEvent::End => {
                    relay.request_ended = true;
                    if relay.request_trailed { Ok(()) } else { leg.stream.finish() }
                }
                RequestEvent::Nothing => return Poll::Pending,
            };
            if sent.is_ok() && !relay.request_ended && self.client.take_end() {
                relay.request_ended = true;
                sent = if relay.request_trailed { Ok(()) } else { leg.stream.finish() };
            }
            if let Err(error) = sent {
                return Poll::Ready(Err(Trouble::Unsendable(error)));
            }
            // An error here comes back with the response, or instead of it.
            let _ = leg.stream.start_send();
        }
        Poll::Pending
    }

    /// The exchange is going to wait, perhaps for a peer that never goes on: what it keeps of received bytes, its head among
    /// them, then lies in memory of its own, so that all of the pool's chunks come back. Only where the pool runs short;
    /// what was kept before lies in less than half of its chunks.
    fn relieve_pool(&mut self, leg: &mut Leg) {
        if self.visit.shared.core.pool().under_pressure() {
            self.head.compact();
            self.client.compact();
            leg.stream.compact();
        }
    }

    /// Passes the response on. Ready when it has ended.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        loop {
            if relay.down.is_moving() {
                ready!(self.poll_long_response(cx, leg, relay))?;
            }
            let done = relay.response_ended || relay.tunnel;
            if done || relay.client_full || relay.unchecked >= self.client.unchecked_bytes() {
                match self.client.poll_sent(cx, TxLevel::Below(HIGH_WATER)) {
                    Poll::Ready(Ok(())) => (relay.client_full, relay.unchecked) = (false, 0),
                    Poll::Ready(Err(trouble)) => return Poll::Ready(Err(trouble)),
                    Poll::Pending => {
                        relay.client_full = true;
                        self.relieve_pool(leg);
                        return Poll::Pending;
                    }
                }
            }
            if done {
                return Poll::Ready(Ok(()));
            }
            let event = match leg.stream.poll_event(cx) {
                Poll::Pending => {
                    // All that came in one turn goes out together.
                    if let Err(error) = self.client.start_send() {
                        return Poll::Ready(Err(Trouble::of_client(&error)));
                    }
                    self.relieve_pool(leg);
                    ready!(self.poll_begin_response(cx, leg, relay))?;
                    continue;
                }
                Poll::Ready(Ok(event)) => event,
                Poll::Ready(Err(error)) if relay.response_began => {
                    return Poll::Ready(Err(Trouble::Cut(error.to_string())));
                }
                Poll::Ready(Err(error)) if error.is_late() => {
                    self.visit.shared.stats.origin_timeouts.inc();
                    return Poll::Ready(Err(Trouble::ResponseTimeout));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Trouble::Broken(error))),
            };
            // An informational head is no answer: only the first 100 moves something, as the body may come now.
            let moves = match &event {
                ResponseEvent::Informational(head) => {
                    head.status() == StatusCode::CONTINUE && !relay.continued
                }
                _ => true,
            };
            if moves {
                relay.progressed(self.visit.shared.core.time());
            }
            let mut passed = self.pass_on(event, leg, relay);
            if passed.is_ok() && !relay.response_ended && leg.stream.take_end() {
                passed = self.pass_end(relay);
            }
            if let Err(error) = passed {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn pass_on(&mut self, event: ResponseEvent, leg: &mut Leg, relay: &mut Relay) -> Result<(), Trouble> {
        let client = &mut self.client;
        let sent = match event {
            ResponseEvent::Informational(head) => {
                relay.continued |= head.status() == StatusCode::CONTINUE;
                let shared = &self.visit.shared;
                client.send_informational_with(head.status(), |out| put_response_fields(out, &head, shared))
            }
            ResponseEvent::Head(head, len) => {
                let status = head.status();
                let len = match len {
                    // RFC 9110 8.6: a 204 has none, whatever the origin says.
                    BodyLen::None if status == StatusCode::NO_CONTENT => BodyLen::None,
                    BodyLen::None => head.content_length().map_or(BodyLen::None, BodyLen::Length),
                    BodyLen::UntilClose => BodyLen::Chunked,
                    len => len,
                };
                relay.tunnel = len == BodyLen::Tunnel;
                relay.response_measured = matches!(len, BodyLen::Length(_));
                if !relay.tunnel
                    && (self.visit.door.is_draining()
                        || matches!(client.remaining_body(), RemainingBody::Known(left) if left > DRAIN_BYTES))
                {
                    client.close_after_response();
                }
                let shared = &self.visit.shared;
                let fields = |out: &mut FieldWriter<'_>| put_response_fields(out, &head, shared);
                let sent = match leg.stream.take_body() {
                    Some(body) => {
                        relay.body_bytes = body.len() as u64;
                        relay.response_ended = true;
                        client.respond_with(status, body, fields)
                    }
                    None => client.send_head_with(status, len, fields),
                };
                relay.status = if sent.is_ok() { status.as_u16() } else { 0 };
                sent
            }
            ResponseEvent::Data(data) => {
                relay.body_bytes += data.len() as u64;
                relay.unchecked += data.len();
                client.send_data(data)
            }
            // HTTP/2 may say them behind a length, HTTP/1.1 may not: dropping them is all that both can do.
            ResponseEvent::Trailers(_) if relay.response_measured => return Ok(()),
            ResponseEvent::Trailers(trailers) => {
                relay.response_trailed = true;
                client.send_trailers(trailers)
            }
            ResponseEvent::End => return self.pass_end(relay),
            ResponseEvent::Gone => {
                let gone = OriginError::incomplete();
                return Err(if relay.response_began {
                    Trouble::Cut(gone.to_string())
                } else {
                    Trouble::Broken(gone)
                });
            }
        };
        sent.map_err(|error| unpassable(error, relay))?;
        relay.response_began |= relay.status != 0;
        Ok(())
    }

    fn pass_end(&mut self, relay: &mut Relay) -> Result<(), Trouble> {
        relay.response_ended = true;
        let sent = if relay.response_trailed { Ok(()) } else { self.client.finish() };
        sent.map_err(|error| unpassable(error, relay))
    }
}

pub(super) fn unpassable(error: SendError, relay: &Relay) -> Trouble {
    if error == SendError::Http2(http2::SendError::Gone) {
        return Trouble::ClientGone;
    }
    if relay.response_began { Trouble::Cut(error.to_string()) } else { Trouble::Unpassable(error) }
}
