//! One request and its response, as a handler has them.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};

use super::date::dated;
use super::shared::{Over, Shared};
use crate::buf::Seg;
use crate::net::Peer;
use crate::proto::http_conn::{Data, Head, SendError};
use crate::proto::http_date::HttpDate;
use crate::proto::http1::BodyLen;
use crate::proto::http2::{Code, StreamId};

/// A request, and the response that is due to it.
///
/// The body is read with [`recv`](Self::recv), to `None`, then [`trailers`](Self::trailers). The response is
/// [`respond`](Self::respond), or [`send_head`](Self::send_head), any number of [`send`](Self::send), and
/// [`finish`](Self::finish) or [`send_trailers`](Self::send_trailers). Both may overlap, and a response may come before its
/// request is read. What nobody reads holds the client back; what the client does not take makes `send` wait.
///
/// Dropped with no response it answers 500 (or 408, 413, 503, where a timeout or a limit was the reason); dropped with a half one
/// it resets the stream, of HTTP/1.1 the connection, so that the client does not take a part for the whole. What is left of
/// the request is read and thrown away, 256 KiB at most.
pub struct Exchange {
    shared: Rc<Shared>,
    id: StreamId,
    head: Head,
    body: BodyLen,
    is_early: bool,
}

/// Why an exchange goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The client is gone, or has reset the request.
    Gone,
    /// The client's body breaks the rules or a limit; it is answered with this, where there is no response yet.
    BadBody(StatusCode),
    /// The client did not send, or take, anything for too long.
    TimedOut,
    /// The call does not fit: a caller's fault.
    Send(SendError),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Gone => f.write_str("the client is gone"),
            ExchangeError::BadBody(status) => write!(f, "bad request body: {status}"),
            ExchangeError::TimedOut => f.write_str("the client did nothing for too long"),
            ExchangeError::Send(error) => write!(f, "response: {error}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Http2(crate::proto::http2::SendError::Gone) => ExchangeError::Gone,
            error => ExchangeError::Send(error),
        }
    }
}

impl From<Over> for ExchangeError {
    fn from(over: Over) -> Self {
        match over {
            Over::Gone => ExchangeError::Gone,
            Over::Refused(status) => ExchangeError::BadBody(status),
            Over::BodyTimeout | Over::Stalled | Over::Deadline => ExchangeError::TimedOut,
        }
    }
}

impl Exchange {
    /// Head and body for somebody else, the response still here.
    #[cfg(feature = "tower")]
    pub(super) fn take_request(&mut self) -> http::Result<(http::Request<()>, Rc<Shared>, StreamId)> {
        let request = match &mut self.head {
            Head::Http1(head) => head.to_request()?,
            Head::Http2(head) => std::mem::take(&mut **head),
        };
        Ok((request, self.shared.clone(), self.id))
    }

    pub(super) fn new(shared: Rc<Shared>, id: StreamId, head: Head, body: BodyLen, is_early: bool) -> Self {
        Exchange { shared, id, head, body, is_early }
    }

    /// The head of the request.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How the request's body is delimited.
    pub fn body_len(&self) -> BodyLen {
        self.body
    }

    /// Who asks.
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// Whether nobody between could read it.
    pub fn is_tls(&self) -> bool {
        self.shared.is_tls
    }

    /// Whether it may have come as early data, to this server or, by its `Early-Data`, to a gateway before it. Only safe methods
    /// do: others are answered with 425 (RFC 8470 5.2). The TLS handshake is complete even then.
    pub fn is_early(&self) -> bool {
        self.is_early || self.head.get("early-data").is_some()
    }

    /// The next piece of the body, or of a tunnel; `None` at its end. A client that waits for 100 is told to go on. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// What the client did.
    pub async fn recv(&mut self) -> Result<Option<Data>, ExchangeError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Exchange::recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Data>, ExchangeError>> {
        self.shared.poll_recv(self.id, cx)
    }

    /// Whether the request is read to its end, and nothing of it waits.
    pub fn is_ended(&self) -> bool {
        let mut state = self.shared.state();
        let slot = state.slot(self.id);
        slot.is_some_and(|slot| slot.ended && slot.queue.is_empty() && slot.trailers.is_none())
    }

    /// Whether the client has reset the request or is gone, or takes nothing for too long: the handler is about to be dropped.
    pub fn is_over(&self) -> bool {
        let mut state = self.shared.state();
        state.slot(self.id).is_none_or(|slot| slot.over.is_some_and(Over::cancels))
    }

    /// The fields behind the body, once it has been read to its end; `None` if there were none.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.shared.state().slot(self.id)?.trailers.take()
    }

    /// Sends an informational response before the final one: 103.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_informational<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), ExchangeError> {
        let mut state = self.shared.state();
        let state = &mut *state;
        state.conn.send_informational(self.id, status, fields, &mut state.tx)?;
        state.notify();
        Ok(())
    }

    /// Sends a whole response, with `Date` unless it is among `fields` or the spec wants none. To HEAD, and in a 304, the length of `body` is told and nothing of it sent.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn respond<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: impl Into<Seg>,
    ) -> Result<(), ExchangeError> {
        let date = self.shared.core.date();
        let mut state = self.shared.state();
        let state = &mut *state;
        let fields = dated(fields, date.as_ref());
        state.conn.respond(self.id, status, fields, body.into(), &mut state.tx)?;
        if let Some(slot) = state.slot(self.id) {
            (slot.head_sent, slot.finished) = (true, true);
        }
        state.notify();
        Ok(())
    }

    /// Sends the head of a response, with `Date` as in [`respond`](Self::respond). [`finish`](Self::finish) is due also where no body may follow.
    ///
    /// With [`BodyLen::Chunked`] the length is not announced, whatever the version; [`BodyLen::Tunnel`] goes with 101 and with
    /// a 2xx to CONNECT.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_head<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: BodyLen,
    ) -> Result<(), ExchangeError> {
        let date = self.shared.core.date();
        let mut state = self.shared.state();
        let state = &mut *state;
        let fields = dated(fields, date.as_ref());
        state.conn.send_head(self.id, status, fields, body, &mut state.tx)?;
        if let Some(slot) = state.slot(self.id) {
            slot.head_sent = true;
        }
        state.notify();
        Ok(())
    }

    /// Sends a part of the body, once there is room: `send_buffer_bytes` at most wait, and one segment. Dropping the future
    /// before it is ready sends nothing of it.
    ///
    /// # Errors
    /// Nothing was sent: the client is gone or takes nothing, or the call does not fit.
    pub async fn send(&mut self, data: impl Into<Seg>) -> Result<(), ExchangeError> {
        let data = data.into();
        if data.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await?;
        self.try_send(data)
    }

    /// Sends a part of the body that may not wait: [`Exchange::poll_room`] has said that there is room.
    ///
    /// # Errors
    /// Nothing was sent: as [`Exchange::send`], or there was no room in HTTP/2.
    pub fn try_send(&mut self, data: impl Into<Seg>) -> Result<(), ExchangeError> {
        let mut state = self.shared.state();
        let state = &mut *state;
        state.conn.send_data(self.id, data.into(), &mut state.tx)?;
        state.notify();
        Ok(())
    }

    /// Ready when [`Exchange::send`] does not wait.
    ///
    /// # Errors
    /// In the `Poll`: as there.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let now = self.shared.core.now();
        let mut state = self.shared.state();
        let state = &mut *state;
        let has_room = if state.conn.is_http2() {
            state.conn.can_send(self.id)
        } else {
            !state.is_full && state.tx.len() < state.send_buffer_bytes
        };
        let Some(slot) = state.slot(self.id) else { return Poll::Ready(Err(ExchangeError::Gone)) };
        if let Some(over) = slot.over.filter(|over| over.cancels()) {
            return Poll::Ready(Err(over.into()));
        }
        if has_room || !slot.head_sent || slot.finished {
            slot.sending_since = None;
            return Poll::Ready(Ok(()));
        }
        slot.sending_since.get_or_insert(now);
        slot.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the response with trailers, which needs a body whose length was not announced.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), ExchangeError> {
        let mut state = self.shared.state();
        let state = &mut *state;
        state.conn.send_trailers(self.id, trailers, &mut state.tx)?;
        if let Some(slot) = state.slot(self.id) {
            slot.finished = true;
        }
        state.notify();
        Ok(())
    }

    /// Ends the response.
    ///
    /// # Errors
    /// The body was shorter than announced: the stream has been reset.
    pub fn finish(&mut self) -> Result<(), ExchangeError> {
        let mut state = self.shared.state();
        let state = &mut *state;
        let finished = state.conn.finish(self.id, &mut state.tx);
        if let Some(slot) = state.slot(self.id) {
            slot.finished = true;
        }
        state.notify();
        Ok(finished?)
    }

    /// Ends the exchange both ways, at once: the client sees a reset.
    pub fn reset(self) {
        let mut state = self.shared.state();
        state.conn.reset(self.id, Code::CANCEL);
        if let Some(slot) = state.slot(self.id) {
            slot.end(Over::Gone);
        }
        drop(state);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = self.shared.core.now();
        let mut state = self.shared.state();
        let state = &mut *state;
        let Some(slot) = state.slot(self.id) else { return };
        let (head_sent, finished, ended, over) = (slot.head_sent, slot.finished, slot.ended, slot.over);
        let waiting = slot.clear();
        (slot.discards, slot.discarded) = (true, waiting);
        (slot.receiving_since, slot.sending_since) = (Some(now), None);
        (slot.task, slot.receiver, slot.sender) = (None, None, None);
        if ended || over.is_some() {
            slot.id = None;
        }
        state.conn.release(self.id, waiting);
        if !finished {
            let date = self.shared.core.date();
            state.leave(self.id, head_sent, over, date.as_ref());
        }
        state.notify();
    }
}

impl super::shared::State {
    /// What the client of an unfinished response is told.
    fn leave(&mut self, id: StreamId, head_sent: bool, over: Option<Over>, date: Option<&HttpDate>) {
        let status = match over {
            Some(Over::Gone | Over::Stalled) => None,
            Some(Over::Refused(status)) => Some(status),
            Some(Over::BodyTimeout) => Some(StatusCode::REQUEST_TIMEOUT),
            Some(Over::Deadline) => Some(StatusCode::SERVICE_UNAVAILABLE),
            None => Some(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let answered = status.filter(|_| !head_sent).is_some_and(|status| {
            if over.is_some() && !self.conn.is_http2() {
                // The rest of the request is in the way of the next one.
                self.conn.drain();
            }
            let reason = status.canonical_reason().unwrap_or_default();
            let fields = dated([("content-type", &b"text/plain"[..])], date);
            self.conn.respond(id, status, fields, reason.into(), &mut self.tx).is_ok()
        });
        if !answered {
            self.conn.reset(id, if over.is_some() { Code::CANCEL } else { Code::INTERNAL_ERROR });
            if let Some(slot) = self.slot(id) {
                slot.id = None;
            }
        }
    }
}
