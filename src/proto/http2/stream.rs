//! One stream: what h2 gave for it, and how far its two messages are.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use super::error::{Code, SendError};
use super::{Event, StreamId};
use crate::proto::http1::BodyLen;
use crate::proto::mapping::{check_response, check_trailers, response_body};

pub(super) struct Stream {
    pub(super) id: StreamId,
    /// What was asked: the response to HEAD and to CONNECT is framed in its own way.
    pub(super) method: Method,
    pub(super) rx: Rx,
    pub(super) tx: Tx,
    pub(super) body: Option<RecvStream>,
    pub(super) respond: Option<SendResponse<Bytes>>,
    pub(super) send: Option<SendStream<Bytes>>,
    /// Bytes handed up and not given back.
    pub(super) unreleased: usize,
    /// Whether [`Event::Writable`] is due once there is room.
    pub(super) wants_room: bool,
    pub(super) informational_count: u16,
}

/// How far what is received is.
pub(super) enum Rx {
    Request(Box<Request<()>>, BodyLen),
    Response(ResponseFuture),
    Body,
    Trailers,
    End,
    Done,
}

/// How far what is sent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tx {
    Head,
    /// With how many bytes are left, where that was announced.
    Body(Option<u64>),
    /// The last byte is handed over; the caller has not finished.
    Ended,
    Done,
}

impl Stream {
    /// What comes next of this stream, if anything. `None` leaves a waker with h2 for all that may come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, max_informational: u16) -> Option<Event> {
        let received = self.poll_received(cx, max_informational);
        received.or_else(|| self.poll_room(cx)).or_else(|| self.poll_reset(cx))
    }

    fn poll_received(&mut self, cx: &mut Context<'_>, max_informational: u16) -> Option<Event> {
        let id = self.id;
        match std::mem::replace(&mut self.rx, Rx::Done) {
            Rx::Request(head, body) => {
                let ended = self.body.as_ref().is_some_and(RecvStream::is_end_stream);
                self.rx = if ended { Rx::End } else { Rx::Body };
                Some(Event::Request { id, head: *head, body })
            }
            Rx::Response(response) => self.poll_response(response, cx, max_informational),
            Rx::Body => self.poll_body(cx),
            Rx::Trailers => self.poll_trailers(cx),
            Rx::End => Some(Event::End { id }),
            Rx::Done => None,
        }
    }

    fn poll_response(
        &mut self,
        mut response: ResponseFuture,
        cx: &mut Context<'_>,
        max_informational: u16,
    ) -> Option<Event> {
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(head))) => {
                self.informational_count += 1;
                if self.informational_count > max_informational {
                    return Some(self.refuse(Code::ENHANCE_YOUR_CALM));
                }
                if check_response(&head).is_err() {
                    return Some(self.refuse(Code::PROTOCOL_ERROR));
                }
                self.rx = Rx::Response(response);
                return Some(Event::Informational { id: self.id, head });
            }
            Poll::Ready(Some(Err(error))) => return Some(self.lost(&error)),
            Poll::Ready(None) => {}
            Poll::Pending => {
                self.rx = Rx::Response(response);
                return None;
            }
        }
        match Pin::new(&mut response).poll(cx) {
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let ended = body.is_end_stream();
                self.body = Some(body);
                Some(self.accept_response(Response::from_parts(parts, ()), ended))
            }
            Poll::Ready(Err(error)) => Some(self.lost(&error)),
            Poll::Pending => {
                self.rx = Rx::Response(response);
                None
            }
        }
    }

    fn accept_response(&mut self, head: Response<()>, ended: bool) -> Event {
        let checked = check_response(&head).and_then(|()| response_body(&head, ended, &self.method));
        let Ok(body) = checked else { return self.refuse(Code::PROTOCOL_ERROR) };
        self.rx = if ended { Rx::End } else { Rx::Body };
        Event::Response { id: self.id, head, body }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let body = self.body.as_mut()?;
        loop {
            match body.poll_data(cx) {
                // What ends a body may be empty, and then says nothing.
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    self.unreleased += data.len();
                    self.rx = Rx::Body;
                    return Some(Event::Data { id: self.id, data });
                }
                Poll::Ready(Some(Err(error))) => return Some(self.lost(&error)),
                Poll::Ready(None) => return self.poll_trailers(cx),
                Poll::Pending => {
                    self.rx = Rx::Body;
                    return None;
                }
            }
        }
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let body = self.body.as_mut()?;
        match body.poll_trailers(cx) {
            Poll::Ready(Ok(Some(trailers))) => {
                if check_trailers(&trailers).is_err() {
                    return Some(self.refuse(Code::PROTOCOL_ERROR));
                }
                self.rx = Rx::End;
                Some(Event::Trailers { id: self.id, trailers })
            }
            Poll::Ready(Ok(None)) => Some(Event::End { id: self.id }),
            Poll::Ready(Err(error)) => Some(self.lost(&error)),
            Poll::Pending => {
                self.rx = Rx::Trailers;
                None
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        if !self.wants_room {
            return None;
        }
        let send = self.send.as_mut()?;
        loop {
            match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(_))) => {
                    self.wants_room = false;
                    return Some(Event::Writable { id: self.id });
                }
                Poll::Ready(Some(Err(error))) => return Some(self.lost(&error)),
                // The stream is closed; a reset is told by whatever polls for it.
                Poll::Ready(None) => {
                    self.wants_room = false;
                    return None;
                }
                Poll::Pending => return None,
            }
        }
    }

    /// Once the peer's message is read, a reset is seen by nobody else.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        if !matches!(self.rx, Rx::Done) || matches!(self.tx, Tx::Ended | Tx::Done) {
            return None;
        }
        let reset = match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.poll_reset(cx),
            (None, Some(respond)) => respond.poll_reset(cx),
            (None, None) => return None,
        };
        match reset {
            Poll::Ready(Ok(reason)) => {
                Some(Event::Reset { id: self.id, code: Code(reason.into()), unprocessed: false })
            }
            Poll::Ready(Err(error)) => Some(self.lost(&error)),
            Poll::Pending => None,
        }
    }

    /// Resets the stream for what the peer did.
    fn refuse(&mut self, code: Code) -> Event {
        self.send_reset(code);
        Event::Reset { id: self.id, code, unprocessed: false }
    }

    fn lost(&self, error: &h2::Error) -> Event {
        let code = error.reason().map_or(Code::INTERNAL_ERROR, |reason| Code(reason.into()));
        // RFC 9113 8.7: refused, or above the last stream of a GOAWAY.
        let unprocessed = error.is_remote() && (error.is_go_away() || code == Code::REFUSED_STREAM);
        Event::Reset { id: self.id, code, unprocessed }
    }

    pub(super) fn send_reset(&mut self, code: Code) {
        match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.send_reset(code.0.into()),
            (None, Some(respond)) => respond.send_reset(code.0.into()),
            (None, None) => {}
        }
    }

    /// Whether nobody has a use for it any more.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.rx, Rx::Done) && self.tx == Tx::Done && self.unreleased == 0
    }

    /// Whether it counts against the streams that may be open.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.rx, Rx::Done) || !matches!(self.tx, Tx::Ended | Tx::Done)
    }

    pub(super) fn send_data(&mut self, mut data: Bytes) -> Result<(), SendError> {
        let Tx::Body(left) = self.tx else { return Err(SendError::State) };
        if self.wants_room {
            return Err(SendError::Full);
        }
        let len = data.len() as u64;
        if let Some(allowed) = left.filter(|&left| left < len) {
            return Err(SendError::BodyTooLong { allowed });
        }
        if data.is_empty() {
            return Ok(());
        }
        let left = left.map(|left| left - len);
        let send = self.send.as_mut().ok_or(SendError::Gone)?;
        while data.len() > MAX_SEGMENT {
            send.send_data(data.split_to(MAX_SEGMENT), false).map_err(|_| SendError::Gone)?;
        }
        send.send_data(data, left == Some(0)).map_err(|_| SendError::Gone)?;
        self.tx = if left == Some(0) { Tx::Ended } else { Tx::Body(left) };
        // One byte more than waits: h2 tells when it has room for that.
        if self.tx != Tx::Ended && send.capacity() == 0 {
            send.reserve_capacity(1);
            self.wants_room = send.capacity() == 0;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), SendError> {
        match self.tx {
            Tx::Head | Tx::Done => return Err(SendError::State),
            Tx::Ended => {}
            Tx::Body(Some(missing)) => {
                self.send_reset(Code::INTERNAL_ERROR);
                return Err(SendError::BodyTooShort { missing });
            }
            Tx::Body(None) => {
                let send = self.send.as_mut().ok_or(SendError::Gone)?;
                send.send_data(Bytes::new(), true).map_err(|_| SendError::Gone)?;
            }
        }
        self.tx = Tx::Done;
        self.wants_room = false;
        Ok(())
    }

    pub(super) fn send_trailers(&mut self, trailers: http::HeaderMap) -> Result<(), SendError> {
        match self.tx {
            Tx::Body(None) => {}
            Tx::Body(Some(_)) | Tx::Ended => return Err(SendError::TrailersNotAllowed),
            Tx::Head | Tx::Done => return Err(SendError::State),
        }
        check_trailers(&trailers)?;
        let send = self.send.as_mut().ok_or(SendError::Gone)?;
        send.send_trailers(trailers).map_err(|_| SendError::Gone)?;
        self.tx = Tx::Done;
        self.wants_room = false;
        Ok(())
    }

    pub(super) fn send_informational(&mut self, head: Response<()>) -> Result<(), SendError> {
        if self.tx != Tx::Head {
            return Err(SendError::State);
        }
        if !head.status().is_informational() {
            return Err(SendError::Status);
        }
        check_response(&head)?;
        let respond = self.respond.as_mut().ok_or(SendError::State)?;
        respond.send_informational(head).map_err(|_| SendError::Gone)
    }

    pub(super) fn send_response(&mut self, mut head: Response<()>, body: BodyLen) -> Result<(), SendError> {
        if self.tx != Tx::Head {
            return Err(SendError::State);
        }
        let tx = self.plan(&mut head, body)?;
        let respond = self.respond.as_mut().ok_or(SendError::State)?;
        let send = respond.send_response(head, tx == Tx::Ended).map_err(|_| SendError::Gone)?;
        self.send = Some(send);
        self.tx = tx;
        Ok(())
    }

    /// What follows a final response, whose length is said by us alone.
    fn plan(&self, head: &mut Response<()>, body: BodyLen) -> Result<Tx, SendError> {
        let status = head.status();
        if status.is_informational() {
            return Err(SendError::Status);
        }
        head.headers_mut().remove(http::header::CONTENT_LENGTH);
        check_response(head)?;
        let tunnel = self.method == Method::CONNECT && status.is_success();
        if tunnel || body == BodyLen::Tunnel {
            return if tunnel && body == BodyLen::Tunnel {
                Ok(Tx::Body(None))
            } else {
                Err(SendError::BodyLen)
            };
        }
        let no_content = status == http::StatusCode::NO_CONTENT;
        let bodyless = no_content || self.method == Method::HEAD || status == http::StatusCode::NOT_MODIFIED;
        let tx = announce(head.headers_mut(), body, no_content)?;
        Ok(if bodyless { Tx::Ended } else { tx })
    }
}

/// Says the length of a body in its head; what follows.
pub(super) fn announce(fields: &mut http::HeaderMap, body: BodyLen, none: bool) -> Result<Tx, SendError> {
    match body {
        BodyLen::Length(len) if none && len > 0 => Err(SendError::BodyLen),
        BodyLen::None => Ok(Tx::Ended),
        BodyLen::Length(_) if none => Ok(Tx::Ended),
        BodyLen::Length(len) => {
            fields.insert(http::header::CONTENT_LENGTH, len.into());
            Ok(if len == 0 { Tx::Ended } else { Tx::Body(Some(len)) })
        }
        BodyLen::Chunked | BodyLen::UntilClose if none => Err(SendError::BodyLen),
        BodyLen::Chunked | BodyLen::UntilClose | BodyLen::Tunnel => Ok(Tx::Body(None)),
    }
}

/// What is handed to h2 at once, so that streams take turns.
const MAX_SEGMENT: usize = 64 * 1024;
