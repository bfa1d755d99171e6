//! The client's side of a connection to an origin.
//!
//! ```text
//! in:   Idle --send_request_head--> Head --final head--> Body --last byte--> End --event--> Idle
//!                                   |  ^`-1xx-'           `--101, 2xx to CONNECT--> Tunnel    |
//!       Closed <--fault, end of input, or bytes nobody asked for------------------------------'
//!
//! out:  Idle --send_request_head--> Body --finish or send_trailers--> Done --response read--> Idle
//! ```

use http::StatusCode;
use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue, TxWriter};

use super::body::{Decoded, Decoder};
use super::error::{Error, SendError};
use super::head::{RequestHead, ResponseHead, Spare, Trailers};
use super::parse::{parse_response, repeated_response};
use super::scan::{HeadScan, ScanLimits};
use super::server::RemainingBody;
use super::write::{
    Encoder, FieldWriter, ForwardedHost, Framing, HeadEnd, RequestLine, announce, each, put_fields,
    put_forwarded_line, put_head_end, put_request_line,
};
use super::{BodyLen, Limits};

/// What an origin sent.
#[derive(Debug)]
pub enum ClientEvent {
    /// Nothing to say before more bytes arrive.
    NeedInput,
    /// A response before the final one: 100, 103 and others, never 101.
    Informational(ResponseHead),
    /// The final response. With [`BodyLen::Tunnel`] both ways are a tunnel from here on.
    ///
    /// [`BodyLen::None`] for HEAD and 304, whatever length the head tells.
    Head(ResponseHead, BodyLen),
    /// A part of the body, never empty: a view of what was received.
    Data(PoolBuf),
    /// The fields behind a chunked body; [`ClientEvent::End`] follows.
    Trailers(Trailers),
    /// The response is read to its end. [`ClientConn::take_end`] takes it where it is known before.
    End,
    /// Bytes of the protocol that took over.
    Tunnel(PoolBuf),
    /// Nothing more will be read: the origin closed between responses, or the connection does not persist.
    Closed,
}

/// The client's side of an HTTP/1 connection.
///
/// A request is sent with [`ClientConn::send_request_head`], any number of [`ClientConn::send_data`], then once either
/// [`ClientConn::finish`] or [`ClientConn::send_trailers`], also where there is no body. Events may be polled all the
/// while: a response may come before its request is sent to the end, and then the connection is not reused. CONNECT and
/// a request to upgrade are finished too; after [`BodyLen::Tunnel`], `finish` ends our side of the tunnel.
///
/// A connection kept for reuse is polled when bytes or the end arrive, and asked [`ClientConn::reusable`] when taken.
pub struct ClientConn {
    limits: Limits,
    rx: Rx,
    tx: Tx,
    scan: HeadScan,
    spare: Spare,
    eof: bool,
    /// Whether the connection may carry another request.
    persists: bool,
    failed: Option<Error>,
    informational_count: u16,
    request: Request,
}

#[derive(Debug)]
enum Rx {
    Idle,
    Head,
    Body(Decoder),
    End,
    Tunnel,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tx {
    Idle,
    Body(Encoder),
    Done,
}

/// What the response's framing depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    head: bool,
    connect: bool,
    upgrade: bool,
}

/// How a request is framed, and what its response depends on.
struct Plan {
    framing: Framing,
    encoder: Encoder,
    connect: bool,
    head: bool,
}

impl ClientConn {
    /// A connection on which nothing has been sent.
    pub fn new(limits: Limits) -> Self {
        ClientConn {
            limits: limits.clamped(),
            rx: Rx::Idle,
            tx: Tx::Idle,
            scan: HeadScan::default(),
            spare: Spare::default(),
            eof: false,
            persists: true,
            failed: None,
            informational_count: 0,
            request: Request::default(),
        }
    }

    /// Sends the head of a request. Host, framing fields and `Connection` are written by the machine and skipped among
    /// `fields`; `upgrade` and `te` are kept, and `Connection` names them.
    ///
    /// # Errors
    /// If the connection is not [`ClientConn::reusable`] (bytes in its queue aside), or the line, a field or the body
    /// length is not valid. Nothing is sent then.
    pub fn send_request_head<'a>(
        &mut self,
        line: RequestLine<'_>,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: BodyLen,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        self.send_request_head_with(line, body, tx, each(fields))
    }

    /// As [`ClientConn::send_request_head`], with fields that `write` puts: a gateway copies those of the client's head.
    ///
    /// # Errors
    /// As [`ClientConn::send_request_head`].
    pub fn send_request_head_with(
        &mut self,
        line: RequestLine<'_>,
        body: BodyLen,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let plan = self.plan(line.method.as_bytes(), body)?;
        self.send_planned(plan, tx, |out| put_request_line(out, line), write)
    }

    /// Sends the head of a request that a gateway passes on: with the method of `head` and its target for an origin, which
    /// were checked when they were read. `body` and the fields that `write` puts are as in
    /// [`ClientConn::send_request_head_with`].
    ///
    /// # Errors
    /// As [`ClientConn::send_request_head`]; [`SendError::Name`] if there is no host.
    pub fn forward_request_head_with(
        &mut self,
        head: &RequestHead,
        host: ForwardedHost<'_>,
        body: BodyLen,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let plan = self.plan(head.method().as_str().as_bytes(), body)?;
        self.send_planned(plan, tx, |out| put_forwarded_line(out, head, host), write)
    }

    fn plan(&self, method: &[u8], body: BodyLen) -> Result<Plan, SendError> {
        if self.tx != Tx::Idle || !matches!(self.rx, Rx::Idle) || self.eof {
            return Err(SendError::State);
        }
        let connect = method == b"CONNECT";
        let (framing, encoder) = match body {
            BodyLen::None if matches!(method, b"POST" | b"PUT" | b"PATCH") => announce(BodyLen::Length(0)),
            BodyLen::None => announce(body),
            BodyLen::Tunnel if connect => announce(BodyLen::None),
            BodyLen::Length(_) | BodyLen::Chunked if !connect => announce(body),
            // A request does not end with the connection, and a CONNECT has no body.
            _ => return Err(SendError::BodyLen),
        };
        Ok(Plan { framing, encoder, connect, head: method == b"HEAD" })
    }

    /// Sends a head with a first line and fields.
    fn send_planned(
        &mut self,
        plan: Plan,
        tx: &mut TxQueue,
        put_line: impl FnOnce(&mut TxWriter) -> Result<(), SendError>,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let Plan { framing, encoder, connect, head } = plan;
        let close = !self.persists;
        let options = tx.put_with(|out| {
            put_line(out)?;
            let options = put_fields(out, write)?;
            if options.upgrade && framing != Framing::Unsaid && encoder != Encoder::Length(0) {
                // A body may be taken for the other protocol by one of two readers.
                return Err(SendError::BodyLen);
            }
            put_head_end(out, HeadEnd { framing, close, keep_alive: false }, options);
            Ok(options)
        })?;
        self.request = Request { head, connect, upgrade: options.upgrade };
        self.informational_count = 0;
        self.tx = Tx::Body(encoder);
        self.rx = Rx::Head;
        Ok(())
    }

    /// Sends a part of the body, or bytes of the tunnel. The payload is not copied, unless it
    /// has at most 256 bytes.
    ///
    /// # Errors
    /// If no body is being sent, or it is longer than announced; then nothing of the segment is sent.
    pub fn send_data(&mut self, seg: impl Into<Seg>, tx: &mut TxQueue) -> Result<(), SendError> {
        match &mut self.tx {
            Tx::Body(encoder) => encoder.send_data(seg.into(), tx),
            Tx::Idle | Tx::Done => Err(SendError::State),
        }
    }

    /// Notes that `count` bytes of the body, whose length is known, were taken off the connection and do not come through
    /// its queue: a gateway passes a long body from socket to socket.
    ///
    /// # Panics
    /// If there is no such body, or [`ClientConn::remaining_body`] says that less of it is left.
    pub fn body_taken_past(&mut self, count: u64) {
        let Rx::Body(decoder) = &mut self.rx else { panic!("no body is being read") };
        decoder.take_past(count);
        if decoder.is_done() {
            self.rx = Rx::End;
        }
    }

    /// Notes that `count` bytes of the body, whose length was announced, were sent without [`ClientConn::send_data`].
    ///
    /// # Errors
    /// If no such body is being sent, or it is shorter: what was sent cannot be taken back, so the connection must be
    /// dropped.
    pub fn body_sent_past(&mut self, count: u64) -> Result<(), SendError> {
        match &mut self.tx {
            Tx::Body(encoder) => encoder.send_past(count),
            Tx::Idle | Tx::Done => Err(SendError::State),
        }
    }

    /// What of the current response's body has not been read.
    pub fn remaining_body(&self) -> RemainingBody {
        match &self.rx {
            Rx::Body(decoder) => decoder.remaining().map_or(RemainingBody::Unknown, RemainingBody::Known),
            Rx::Idle | Rx::Head | Rx::End | Rx::Tunnel | Rx::Closed => RemainingBody::None,
        }
    }

    /// Ends a chunked body with trailers.
    ///
    /// # Errors
    /// If the body is not chunked, or a field is not valid or not allowed behind a body.
    pub fn send_trailers<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        let Tx::Body(encoder) = &mut self.tx else { return Err(SendError::State) };
        encoder.send_trailers(fields, tx)?;
        self.end_request();
        Ok(())
    }

    /// Ends the request, or our side of the tunnel.
    ///
    /// # Errors
    /// If no request is being sent, or its body is shorter than announced: then only closing is left.
    pub fn finish(&mut self, tx: &mut TxQueue) -> Result<(), SendError> {
        let Tx::Body(encoder) = &mut self.tx else { return Err(SendError::State) };
        encoder.finish(tx).inspect_err(|_| self.persists = false)?;
        self.end_request();
        Ok(())
    }

    fn end_request(&mut self) {
        self.tx = if matches!(self.rx, Rx::Idle | Rx::Closed) { Tx::Idle } else { Tx::Done };
    }

    /// Takes the next event out of `rx`. Call it until it says [`ClientEvent::NeedInput`] or [`ClientEvent::Closed`].
    ///
    /// # Errors
    /// What the origin did wrong, a gateway's 502; the same again on every later call.
    pub fn poll_event(&mut self, rx: &mut RxQueue) -> Result<ClientEvent, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let event = self.try_poll(rx);
        if let Err(error) = event {
            self.failed = Some(error);
            self.persists = false;
            self.rx = Rx::Closed;
        }
        event
    }

    /// Whether an event can come of an empty queue: without that polling before bytes have come is in vain.
    pub fn has_event(&self) -> bool {
        self.eof || self.failed.is_some() || matches!(self.rx, Rx::End | Rx::Closed)
    }

    /// Takes the whole body if its length is known, it lies in the first view of `rx` and nothing of it was taken: the
    /// response has ended then. Asked behind the head, it saves two events where a small response came at once.
    pub fn take_body(&mut self, rx: &mut RxQueue) -> Option<PoolBuf> {
        let Rx::Body(decoder) = &mut self.rx else { return None };
        let body = decoder.take_whole(rx)?;
        self.end_response();
        Some(body)
    }

    /// Takes [`ClientEvent::End`] if it is what comes next, which is known with the head of a response without body and
    /// with the last part of a body of known length: who asks behind each event need not poll for the end.
    pub fn take_end(&mut self) -> bool {
        let ended = matches!(self.rx, Rx::End);
        if ended {
            self.end_response();
        }
        ended
    }

    fn try_poll(&mut self, rx: &mut RxQueue) -> Result<ClientEvent, Error> {
        match &mut self.rx {
            Rx::Idle if !rx.is_empty() => Err(Error::UnexpectedBytes),
            Rx::Idle if self.eof => {
                self.rx = Rx::Closed;
                Ok(ClientEvent::Closed)
            }
            Rx::Idle => Ok(ClientEvent::NeedInput),
            Rx::Head => self.poll_head(rx),
            Rx::Body(decoder) => {
                let decoded = decoder.poll(rx, self.eof, &self.limits)?;
                if decoder.is_done() {
                    self.rx = Rx::End;
                }
                match decoded {
                    Decoded::NeedInput if self.eof => Err(Error::Incomplete),
                    Decoded::NeedInput => Ok(ClientEvent::NeedInput),
                    Decoded::Data(data) => Ok(ClientEvent::Data(data)),
                    Decoded::Trailers(trailers) => Ok(ClientEvent::Trailers(trailers)),
                    Decoded::End => Ok(self.end_response()),
                }
            }
            Rx::End => Ok(self.end_response()),
            Rx::Tunnel => Ok(match rx.pop(usize::MAX) {
                Some(data) => ClientEvent::Tunnel(data),
                None if self.eof => ClientEvent::Closed,
                None => ClientEvent::NeedInput,
            }),
            Rx::Closed => Ok(ClientEvent::Closed),
        }
    }

    fn poll_head(&mut self, rx: &mut RxQueue) -> Result<ClientEvent, Error> {
        let repeated = if self.scan.is_untouched() {
            repeated_response(rx, self.limits.head_bytes, &self.limits, &mut self.spare)
        } else {
            None
        };
        let head = match repeated {
            Some(head) => head,
            None => match self.poll_new_head(rx)? {
                Some(head) => head,
                None => return Ok(ClientEvent::NeedInput),
            },
        };
        let status = head.status();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            self.note_informational(&head)?;
            return Ok(ClientEvent::Informational(head));
        }
        let body = self.response_body(&head)?;
        self.persists &= self.persists_after(&head, body);
        self.rx = match body {
            BodyLen::None => Rx::End,
            BodyLen::Tunnel => {
                self.tx = Tx::Body(Encoder::Bare);
                Rx::Tunnel
            }
            BodyLen::Length(_) | BodyLen::Chunked | BodyLen::UntilClose => {
                Rx::Body(Decoder::new(body, &self.limits)?)
            }
        };
        Ok(ClientEvent::Head(head, body))
    }

    /// A head that is not the one before, once it is there.
    #[inline(never)]
    fn poll_new_head(&mut self, rx: &mut RxQueue) -> Result<Option<ResponseHead>, Error> {
        if rx.is_empty() && !self.eof {
            return Ok(None);
        }
        // As in the server: what came whole is parsed at once, the scan says what is wrong with the rest.
        if self.scan.is_untouched()
            && !rx.is_empty()
            && let Ok(head) = parse_response(rx, self.limits.head_bytes, &self.limits, &mut self.spare)
        {
            return Ok(Some(head));
        }
        if !starts_like(rx, b"HTTP/") {
            // Another protocol may never end what looks like a head.
            return Err(Error::StatusLine);
        }
        let bounds = ScanLimits {
            first_line: self.limits.head_bytes,
            first_line_error: Error::HeadTooLarge,
            total: self.limits.head_bytes,
            total_error: Error::HeadTooLarge,
        };
        let len = match self.scan.poll(rx, bounds)? {
            Some(len) if len == b"\r\n".len() => return Err(Error::StatusLine),
            Some(len) => len,
            None if self.eof => return Err(Error::Incomplete),
            None => return Ok(None),
        };
        self.scan = HeadScan::default();
        rx.gather(len);
        parse_response(rx, len, &self.limits, &mut self.spare).map(Some)
    }

    fn note_informational(&mut self, head: &ResponseHead) -> Result<(), Error> {
        // RFC 9112 6.1 and RFC 9110 8.6: neither field is sent in a 1xx.
        if head.is_chunked() || head.content_length().is_some() {
            return Err(Error::BodyNotAllowed);
        }
        self.informational_count += 1;
        if self.informational_count > self.limits.informational_count {
            return Err(Error::TooManyInformational);
        }
        Ok(())
    }

    /// RFC 9112 6.3, for responses.
    fn response_body(&self, head: &ResponseHead) -> Result<BodyLen, Error> {
        let status = head.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let sent = match self.tx {
                Tx::Body(encoder) => encoder.is_complete(),
                Tx::Idle | Tx::Done => true,
            };
            let framed = head.is_chunked() || head.content_length().is_some();
            let asked = self.request.upgrade && sent && head.upgrade().is_some();
            return if asked && !framed { Ok(BodyLen::Tunnel) } else { Err(Error::UnexpectedUpgrade) };
        }
        if self.request.connect && status.is_success() {
            return Ok(BodyLen::Tunnel);
        }
        let bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match head.content_length() {
            _ if self.request.head || bodyless => BodyLen::None,
            _ if head.is_chunked() => BodyLen::Chunked,
            Some(0) => BodyLen::None,
            Some(len) => BodyLen::Length(len),
            None => BodyLen::UntilClose,
        })
    }

    fn persists_after(&self, head: &ResponseHead, body: BodyLen) -> bool {
        // An origin that frames a 204 may send the body too.
        let dubious = head.status() == StatusCode::NO_CONTENT
            && (head.is_chunked() || head.content_length().is_some_and(|len| len > 0));
        let framed = !matches!(body, BodyLen::UntilClose | BodyLen::Tunnel);
        head.record().facts.persists() && framed && !dubious && !self.request.connect
    }

    fn end_response(&mut self) -> ClientEvent {
        // A request that is not sent to its end leaves the origin in doubt about what follows.
        match self.tx {
            Tx::Done => self.tx = Tx::Idle,
            Tx::Idle | Tx::Body(_) => self.persists = false,
        }
        self.rx = if self.persists { Rx::Idle } else { Rx::Closed };
        ClientEvent::End
    }

    /// Notes that the origin will send nothing more. What is in the queue is read still; then poll to learn whether
    /// the response was whole.
    pub fn handle_eof(&mut self) {
        self.eof = true;
    }

    /// Gives back the memory that one request leaves for the next, a few hundred bytes, while the connection is kept.
    pub fn release_idle(&mut self) {
        self.spare.release();
    }

    /// Makes the request that is sent next the last: it says `Connection: close`.
    pub fn close_after_response(&mut self) {
        self.persists = false;
    }

    /// Whether another request may be sent: the last exchange is over, both sides keep the connection, and nothing
    /// arrived that nobody asked for.
    pub fn reusable(&self, rx: &RxQueue) -> bool {
        self.persists && !self.eof && rx.is_empty() && matches!(self.rx, Rx::Idle) && self.tx == Tx::Idle
    }

    /// Whether no exchange is running and none can follow: close.
    pub fn wants_close(&self) -> bool {
        match self.rx {
            Rx::Idle => self.eof || !self.persists,
            Rx::Tunnel => self.eof && self.tx == Tx::Done,
            Rx::Closed => true,
            Rx::Head | Rx::Body(_) | Rx::End => false,
        }
    }

    /// Whether both ways belong to another protocol now.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.rx, Rx::Tunnel)
    }
}

/// Whether one of the two begins with the other, in however many parts the bytes came.
fn starts_like(rx: &RxQueue, expected: &[u8]) -> bool {
    rx.parts().flatten().zip(expected).all(|(byte, expected)| byte == expected)
}
