//! One request of a connection, and its response.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::shared::Shared;
use crate::http::http2::Http2Error;
use crate::proto::http1::BodyLen;
use crate::proto::http2::{Code, SendError, StreamId};

/// One request, and the response to it.
///
/// The request goes on with [`send_data`](Self::send_data) as there is [room](Self::poll_room), then once
/// [`finish`](Self::finish) or [`send_trailers`](Self::send_trailers); the response is [`next_event`](Self::next_event) up
/// to [`CallEvent::End`]. Both may overlap, and a response may come before its request is whole.
///
/// Dropped before both are whole it resets the stream with `CANCEL`.
pub struct Http2Call {
    shared: Rc<Shared>,
    id: StreamId,
    at: usize,
}

/// What comes of a response.
#[derive(Debug)]
pub enum CallEvent {
    /// A head before the final one; never 101.
    Informational(Response<()>),
    /// The final head, and how much follows: nothing to HEAD and in a 304, whatever length is told.
    Head(Response<()>, BodyLen),
    /// A part of the body, never empty.
    Data(Bytes),
    /// The fields behind the body.
    Trailers(HeaderMap),
    /// The response is whole. Asked again, the same again.
    End,
}

/// Why a call goes no further.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// Its stream was reset, by the origin or for what the origin did.
    Reset {
        /// Why.
        code: Code,
        /// Whether the origin has surely not acted on it.
        unprocessed: bool,
    },
    /// The connection is over.
    Connection {
        /// Why.
        error: Http2Error,
        /// Whether the origin has surely not acted on it.
        unprocessed: bool,
    },
}

impl CallError {
    /// Whether the origin has surely not acted on the request, so that it may be sent again elsewhere, whatever its method.
    /// RFC 9113 8.7.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            CallError::Reset { unprocessed, .. } | CallError::Connection { unprocessed, .. } => *unprocessed,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Reset { code, .. } => write!(f, "stream was reset: {code}"),
            CallError::Connection { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Reset { .. } => None,
            CallError::Connection { error, .. } => Some(error),
        }
    }
}

impl Http2Call {
    pub(super) fn open(shared: &Rc<Shared>, head: Request<()>, body: BodyLen) -> Result<Self, SendError> {
        let mut state = shared.state();
        let id = state.conn.open(head, body)?;
        let at = state.take_slot(id);
        state.notify();
        drop(state);
        Ok(Http2Call { shared: shared.clone(), id, at })
    }

    /// What comes next of the response. Bytes of a body have their credit back with it: take them when they can be passed on.
    ///
    /// # Errors
    /// In the `Poll`: why nothing more comes, behind all that had; the same again on every later call.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CallEvent, CallError>> {
        let mut state = self.shared.state();
        let slot = state.slot(self.at);
        match (slot.next(), &slot.over) {
            (Some(CallEvent::Data(data)), _) => {
                state.conn.release(self.id, data.len());
                state.notify_of_work();
                Poll::Ready(Ok(CallEvent::Data(data)))
            }
            (Some(event), _) => Poll::Ready(Ok(event)),
            (None, Some(error)) => Poll::Ready(Err(error.clone())),
            (None, None) => {
                slot.wait_to_receive(cx);
                Poll::Pending
            }
        }
    }

    /// [`poll_event`](Self::poll_event) as a future. Dropping it loses nothing.
    ///
    /// # Errors
    /// Why nothing more comes.
    pub async fn next_event(&mut self) -> Result<CallEvent, CallError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Takes [`CallEvent::End`] if it is there and comes next; true once.
    pub fn take_end(&mut self) -> bool {
        let mut state = self.shared.state();
        let slot = state.slot(self.at);
        let is_next = slot.is_at_end() && !slot.is_read;
        slot.is_read |= is_next;
        is_next
    }

    /// Sends a part of the request's body, or bytes of a tunnel.
    ///
    /// # Errors
    /// Nothing was sent: [`SendError::Full`] where there is no [room](Self::poll_room), [`SendError::Gone`] for what
    /// [`poll_event`](Self::poll_event) tells, or a caller's fault.
    pub fn send_data(&mut self, data: Bytes) -> Result<(), SendError> {
        let mut state = self.shared.state();
        state.conn.send_data(self.id, data)?;
        state.notify();
        Ok(())
    }

    /// Ready when [`send_data`](Self::send_data) takes a segment, or there is none to send.
    ///
    /// # Errors
    /// In the `Poll`: why the origin takes no more. Its response may be whole all the same.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let mut state = self.shared.state();
        let is_full = state.conn.is_full(self.id);
        let slot = state.slot(self.at);
        match &slot.over {
            _ if slot.is_finished => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Err(error.clone())),
            None if is_full => {
                slot.wait_to_send(cx);
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ends the request with trailers, which needs a body whose length was not announced.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), SendError> {
        let mut state = self.shared.state();
        state.conn.send_trailers(self.id, trailers)?;
        state.slot(self.at).is_finished = true;
        state.notify();
        Ok(())
    }

    /// Ends the request.
    ///
    /// # Errors
    /// [`SendError::BodyTooShort`]: the stream has been reset. Others: nothing was sent.
    pub fn finish(&mut self) -> Result<(), SendError> {
        let mut state = self.shared.state();
        let finished = state.conn.finish(self.id);
        match finished {
            Ok(()) => state.slot(self.at).is_finished = true,
            Err(SendError::BodyTooShort { .. }) => {
                let error = CallError::Reset { code: Code::INTERNAL_ERROR, unprocessed: false };
                state.slot(self.at).over.get_or_insert(error);
            }
            Err(_) => {}
        }
        state.notify();
        finished
    }

    /// Ends the call both ways, at once.
    pub fn reset(self, code: Code) {
        self.shared.state().conn.reset(self.id, code);
    }
}

impl fmt::Debug for Http2Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Call").field("stream", &self.id.number()).finish_non_exhaustive()
    }
}

impl Drop for Http2Call {
    fn drop(&mut self) {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let slot = state.slot(self.at);
        let (is_whole, waiting) = (slot.is_whole, slot.waiting_len());
        if is_whole && !state.conn.is_sending(self.id) {
            // Of a request without a body, or whose body has come to its announced length, the end is sent.
            let _ = state.conn.finish(self.id);
            state.conn.release(self.id, waiting);
        } else {
            state.conn.reset(self.id, Code::CANCEL);
        }
        state.free_slot(self.at, now);
        state.notify();
        drop(state);
        self.shared.leave();
    }
}
