//! The server's side of a connection.
//!
//! ```text
//! in:   Head --head--> Body --last byte--> End --event--> AwaitResponse --response done--> Head
//!         |                                                     |  `--101 or 2xx to CONNECT--> Tunnel
//!         `--end of input--> Closed <--fault (anywhere), or the connection does not persist----'
//!
//! out:  Idle --request head read--> Head --send_head--> Body --finish or send_trailers--> Done --(as above)--> Idle
//! ```

use http::{Method, StatusCode, Version};
use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue, TxWriter};

use super::body::{Decoded, Decoder};
use super::error::{Error, SendError};
use super::head::{RequestHead, Spare, Trailers};
use super::parse::{is_token_byte, parse_request, repeated_request};
use super::scan::{HeadScan, ScanLimits};
use super::write::{
    Encoder, FieldWriter, Framing, HeadEnd, announce, each, is_small, put_fields, put_head_end,
    put_status_line,
};
use super::{BodyLen, Limits};

/// What a client sent.
#[derive(Debug)]
pub enum ServerEvent {
    /// Nothing to say before more bytes arrive.
    NeedInput,
    /// A request. [`BodyLen::Tunnel`] for CONNECT, which has no body and no [`ServerEvent::End`].
    Head(RequestHead, BodyLen),
    /// A part of the request's body, never empty: a view of what was received.
    Data(PoolBuf),
    /// The fields behind a chunked body; [`ServerEvent::End`] follows.
    Trailers(Trailers),
    /// The request is read to its end. [`ServerConn::take_end`] takes it where it is known before.
    End,
    /// Nothing is read before the response is finished: pipelined bytes stay in the queue.
    Paused,
    /// Bytes of the protocol that took over.
    Tunnel(PoolBuf),
    /// Nothing more will be read: the client closed, or the connection does not persist.
    Closed,
}

/// What is still to be read of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemainingBody {
    /// Nothing.
    None,
    /// That many bytes.
    Known(u64),
    /// A chunked body; its end has not been seen.
    Unknown,
}

/// The server's side of an HTTP/1 connection.
///
/// A request is read with [`ServerConn::poll_event`]; its response is sent with [`ServerConn::send_head`], then any
/// number of [`ServerConn::send_data`], then once either [`ServerConn::finish`] or [`ServerConn::send_trailers`], also
/// where there is no body. Both may overlap. A response that is finished before its request is read leaves
/// [`ServerConn::remaining_body`]: the driver polls on and drops the data up to a bound of its own, or closes.
///
/// After an [`Error`] the driver sends an error response if [`ServerConn::can_respond`], and closes. A close with
/// unread bytes makes the kernel send a reset, which may overtake the response: shut down writing and drain first.
pub struct ServerConn {
    limits: Limits,
    rx: Rx,
    tx: Tx,
    scan: HeadScan,
    spare: Spare,
    /// Whether an empty line was skipped in front of the current head. RFC 9112 2.2 asks for one at least.
    skipped_line: bool,
    eof: bool,
    /// Whether the connection may serve another request.
    persists: bool,
    failed: Option<Error>,
    request: Request,
}

#[derive(Debug)]
enum Rx {
    Head,
    Body(Decoder),
    End,
    AwaitResponse,
    Tunnel,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tx {
    Idle,
    Head,
    Body(Encoder),
    Done,
}

/// What the response depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    head: bool,
    connect: bool,
    upgrade: bool,
    http10: bool,
    /// Whether the client waits for 100 still.
    awaits_continue: bool,
}

impl ServerConn {
    /// A connection that waits for its first request.
    pub fn new(limits: Limits) -> Self {
        ServerConn {
            limits: limits.clamped(),
            rx: Rx::Head,
            tx: Tx::Idle,
            scan: HeadScan::default(),
            spare: Spare::default(),
            skipped_line: false,
            eof: false,
            persists: true,
            failed: None,
            request: Request::default(),
        }
    }

    /// Other limits from now on; for the time between two requests.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.clamped();
    }

    /// Takes the next event out of `rx`. Call it until it says [`ServerEvent::NeedInput`], [`ServerEvent::Paused`] or
    /// [`ServerEvent::Closed`].
    ///
    /// # Errors
    /// What the client did wrong; the same again on every later call.
    pub fn poll_event(&mut self, rx: &mut RxQueue) -> Result<ServerEvent, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let event = self.try_poll(rx);
        if let Err(error) = event {
            self.fail(error);
        }
        event
    }

    /// Whether an event can come of an empty queue: without that polling before bytes have come is in vain.
    pub fn has_event(&self) -> bool {
        self.eof || self.failed.is_some() || matches!(self.rx, Rx::End | Rx::AwaitResponse | Rx::Closed)
    }

    /// Takes [`ServerEvent::End`] if it is what comes next, which is known with the head of a request without body and
    /// with the last part of a body of known length: who asks behind each event need not poll for the end.
    pub fn take_end(&mut self) -> bool {
        let ended = matches!(self.rx, Rx::End);
        if ended {
            self.end_request();
        }
        ended
    }

    fn try_poll(&mut self, rx: &mut RxQueue) -> Result<ServerEvent, Error> {
        match &mut self.rx {
            Rx::Head => self.poll_head(rx),
            Rx::Body(decoder) => {
                let decoded = decoder.poll(rx, self.eof, &self.limits)?;
                if decoder.is_done() {
                    self.rx = Rx::End;
                }
                match decoded {
                    Decoded::NeedInput if self.eof => Err(Error::Incomplete),
                    Decoded::NeedInput => Ok(ServerEvent::NeedInput),
                    Decoded::Data(data) => {
                        // RFC 9110 10.1.1: the client did not wait.
                        self.request.awaits_continue = false;
                        Ok(ServerEvent::Data(data))
                    }
                    Decoded::Trailers(trailers) => Ok(ServerEvent::Trailers(trailers)),
                    Decoded::End => Ok(self.end_request()),
                }
            }
            Rx::End => Ok(self.end_request()),
            Rx::AwaitResponse => Ok(ServerEvent::Paused),
            Rx::Tunnel => Ok(match rx.pop(usize::MAX) {
                Some(data) => ServerEvent::Tunnel(data),
                None if self.eof => ServerEvent::Closed,
                None => ServerEvent::NeedInput,
            }),
            Rx::Closed => Ok(ServerEvent::Closed),
        }
    }

    #[inline(always)]
    fn poll_head(&mut self, rx: &mut RxQueue) -> Result<ServerEvent, Error> {
        if self.scan.is_untouched()
            && let Some((head, body)) =
                repeated_request(rx, self.limits.head_bytes, &self.limits, &mut self.spare)
        {
            return self.begin_request(head, body);
        }
        self.poll_new_head(rx)
    }

    /// A head that is not the one before, or what to say instead.
    #[inline(never)]
    fn poll_new_head(&mut self, rx: &mut RxQueue) -> Result<ServerEvent, Error> {
        if rx.is_empty() && !self.eof {
            return Ok(ServerEvent::NeedInput);
        }
        // A head that came whole in one view is parsed at once. Whatever else it is, the scan says it better.
        if self.scan.is_untouched()
            && !rx.is_empty()
            && let Ok((head, body)) = parse_request(rx, self.limits.head_bytes, &self.limits, &mut self.spare)
        {
            return self.begin_request(head, body);
        }
        let bounds = ScanLimits {
            first_line: self.limits.request_line_bytes,
            first_line_error: Error::RequestLineTooLong,
            total: self.limits.head_bytes,
            total_error: Error::HeadTooLarge,
        };
        let len = match self.scan_head(rx, bounds)? {
            Ok(len) => len,
            Err(event) => return Ok(event),
        };
        self.scan = HeadScan::default();
        rx.gather(len);
        let (head, body) = parse_request(rx, len, &self.limits, &mut self.spare)?;
        self.begin_request(head, body)
    }

    #[inline(always)]
    fn begin_request(&mut self, head: RequestHead, body: BodyLen) -> Result<ServerEvent, Error> {
        self.skipped_line = false;
        if body == BodyLen::None {
            self.rx = Rx::End;
        } else {
            self.begin_body(body)?;
        }
        self.persists &= head.record().facts.persists();
        self.request = Request {
            head: head.method() == Method::HEAD,
            connect: body == BodyLen::Tunnel,
            upgrade: head.record().facts.upgrade,
            http10: head.version() == Version::HTTP_10,
            awaits_continue: head.expects_continue(),
        };
        self.tx = Tx::Head;
        Ok(ServerEvent::Head(head, body))
    }

    #[inline(never)]
    fn begin_body(&mut self, body: BodyLen) -> Result<(), Error> {
        self.rx = match body {
            BodyLen::None => Rx::End,
            BodyLen::Tunnel => Rx::AwaitResponse,
            BodyLen::Length(_) | BodyLen::Chunked | BodyLen::UntilClose => {
                Rx::Body(Decoder::new(body, &self.limits)?)
            }
        };
        Ok(())
    }

    /// The length of the next head, or what to say instead.
    #[cold]
    fn scan_head(
        &mut self,
        rx: &mut RxQueue,
        bounds: ScanLimits,
    ) -> Result<Result<usize, ServerEvent>, Error> {
        loop {
            // Another protocol, TLS above all, may never end what looks like a head.
            if rx.front().first().is_some_and(|&byte| byte != b'\r' && byte != b'\n' && !is_token_byte(byte))
            {
                return Err(Error::RequestLine);
            }
            match self.scan.poll(rx, bounds)? {
                None if !self.eof => return Ok(Err(ServerEvent::NeedInput)),
                None if rx.is_empty() => {
                    self.rx = Rx::Closed;
                    return Ok(Err(ServerEvent::Closed));
                }
                None => return Err(Error::Incomplete),
                Some(len) if len == b"\r\n".len() => {
                    if std::mem::replace(&mut self.skipped_line, true) {
                        return Err(Error::RequestLine);
                    }
                    rx.consume(len);
                    self.scan = HeadScan::default();
                }
                Some(len) => return Ok(Ok(len)),
            }
        }
    }

    fn end_request(&mut self) -> ServerEvent {
        self.rx = Rx::AwaitResponse;
        self.next_request();
        ServerEvent::End
    }

    /// Turns to the next request once this one is read and answered.
    fn next_request(&mut self) {
        if matches!(self.rx, Rx::AwaitResponse) && self.tx == Tx::Done {
            if self.persists {
                self.rx = Rx::Head;
                self.tx = Tx::Idle;
            } else {
                self.rx = Rx::Closed;
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failed = Some(error);
        let silent = self.tx == Tx::Idle && error == Error::Incomplete;
        self.stop_reading();
        if silent {
            self.tx = Tx::Idle;
        }
    }

    /// Reads nothing more, and makes the response that is being prepared the last. A client whose head has not come to
    /// its end can be answered nevertheless: for 408 at a deadline, or 503 when there is no room.
    pub fn stop_reading(&mut self) {
        self.persists = false;
        self.rx = Rx::Closed;
        self.request.awaits_continue = false;
        if self.tx == Tx::Idle {
            self.request = Request::default();
            self.tx = Tx::Head;
        }
    }

    /// Gives back the memory that one request leaves for the next, a few hundred bytes, while none is expected soon.
    pub fn release_idle(&mut self) {
        self.spare.release();
    }

    /// Notes that the client will send nothing more. What is in the queue is read still; then poll to learn whether it
    /// ended between requests or inside one. A response may be sent: the client may have closed its sending side only.
    pub fn handle_eof(&mut self) {
        self.eof = true;
    }

    /// Says 100, if the client waits for it and has not sent body yet; nothing otherwise.
    ///
    /// # Errors
    /// If there is no request to answer, or its final response has begun.
    pub fn send_continue(&mut self, tx: &mut TxQueue) -> Result<(), SendError> {
        if self.tx != Tx::Head {
            return Err(SendError::State);
        }
        if std::mem::take(&mut self.request.awaits_continue) {
            tx.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        Ok(())
    }

    /// Sends an informational response, 103 for example, before the final one. Nothing is sent to HTTP/1.0, which
    /// knows none (RFC 9110 15.2).
    ///
    /// # Errors
    /// If there is no request to answer, its final response has begun, the status is not 1xx or is 101, or a field
    /// is not valid.
    pub fn send_informational<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        self.send_informational_with(status, tx, each(fields))
    }

    /// As [`ServerConn::send_informational`], with fields that `write` puts.
    ///
    /// # Errors
    /// As [`ServerConn::send_informational`]. Nothing is sent then.
    pub fn send_informational_with(
        &mut self,
        status: StatusCode,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if self.tx != Tx::Head {
            return Err(SendError::State);
        }
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Status);
        }
        let put = |out: &mut TxWriter| {
            put_status_line(out, status);
            put_fields(out, write)?;
            out.put(b"\r\n");
            Ok(())
        };
        // What HTTP/1.0 is not told is checked all the same.
        if self.request.http10 {
            put(&mut TxWriter::new())?
        } else {
            tx.put_with(put)?
        }
        if status == StatusCode::CONTINUE {
            self.request.awaits_continue = false;
        }
        Ok(())
    }

    /// Sends the head of the final response.
    ///
    /// `body` is the length that the response has, or would have if the request were not HEAD: then, and for 304, no
    /// data may follow. Fields of framing and of the hop are skipped; `upgrade` is kept, and `Connection` names it.
    /// [`BodyLen::Tunnel`] goes with 101, and with a 2xx to CONNECT; from then on both ways are a tunnel.
    ///
    /// # Errors
    /// If there is no request to answer, or status, body and fields do not fit. Nothing is sent then.
    pub fn send_head<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: BodyLen,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        self.send_head_with(status, body, tx, each(fields))
    }

    /// As [`ServerConn::send_head`], with fields that `write` puts: a gateway copies those of the origin's head.
    ///
    /// # Errors
    /// As [`ServerConn::send_head`].
    pub fn send_head_with(
        &mut self,
        status: StatusCode,
        body: BodyLen,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let encoder = tx.put_with(|out| self.put_head(out, status, body, write))?;
        self.tx = Tx::Body(encoder);
        if body == BodyLen::Tunnel {
            self.rx = Rx::Tunnel;
        }
        Ok(())
    }

    /// Puts the head of the final response; how the body is sent.
    fn put_head(
        &mut self,
        out: &mut TxWriter,
        status: StatusCode,
        body: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<Encoder, SendError> {
        if self.tx != Tx::Head {
            return Err(SendError::State);
        }
        let (framing, encoder) = self.plan(status, body)?;
        // A client that was never told to continue may send its body or leave it out; RFC 9110 10.1.1. What follows a
        // CONNECT that was refused may have been meant for the tunnel.
        let persists = self.persists
            && !self.request.awaits_continue
            && (!self.request.connect || body == BodyLen::Tunnel)
            && encoder != Encoder::Bare;
        put_status_line(out, status);
        let options = put_fields(out, write)?;
        let http = body != BodyLen::Tunnel;
        let end = HeadEnd {
            framing,
            close: http && !persists,
            keep_alive: http && persists && self.request.http10,
        };
        put_head_end(out, end, options);
        self.persists = persists;
        self.request.awaits_continue = false;
        Ok(encoder)
    }

    fn plan(&self, status: StatusCode, body: BodyLen) -> Result<(Framing, Encoder), SendError> {
        let switching = status == StatusCode::SWITCHING_PROTOCOLS;
        if status.is_informational() && !switching {
            return Err(SendError::Status);
        }
        let tunnel = switching || (self.request.connect && status.is_success());
        if tunnel {
            let read = matches!(self.rx, Rx::End | Rx::AwaitResponse);
            return match body {
                BodyLen::Tunnel if read && (self.request.connect || self.request.upgrade) => {
                    Ok(announce(body))
                }
                BodyLen::Tunnel => Err(SendError::NotUpgradable),
                _ => Err(SendError::BodyLen),
            };
        }
        let bodyless = self.request.head || status == StatusCode::NOT_MODIFIED;
        match body {
            BodyLen::Tunnel => Err(SendError::NotUpgradable),
            BodyLen::None | BodyLen::Length(0) if status == StatusCode::NO_CONTENT => {
                Ok(announce(BodyLen::None))
            }
            _ if status == StatusCode::NO_CONTENT => Err(SendError::BodyLen),
            BodyLen::Chunked | BodyLen::UntilClose if bodyless && self.request.http10 => {
                Ok(announce(BodyLen::None))
            }
            BodyLen::UntilClose if bodyless => Ok(announce(BodyLen::None)),
            _ if bodyless => Ok((announce(body).0, Encoder::Length(0))),
            BodyLen::None => Ok(announce(BodyLen::Length(0))),
            BodyLen::Chunked if self.request.http10 => Ok(announce(BodyLen::UntilClose)),
            BodyLen::Length(_) | BodyLen::Chunked | BodyLen::UntilClose => Ok(announce(body)),
        }
    }

    /// Sends a whole response whose body is at hand. To HEAD, and in a 304, its length is told and nothing of it sent.
    ///
    /// # Errors
    /// As [`ServerConn::send_head`]. Nothing is sent then.
    pub fn send_response_with(
        &mut self,
        status: StatusCode,
        body: impl Into<Seg>,
        tx: &mut TxQueue,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let body = body.into();
        let is_apart = tx.put_with(|out| {
            let encoder = self.put_head(out, status, BodyLen::Length(body.len() as u64), write)?;
            if encoder == Encoder::Length(0) {
                return Ok(false);
            }
            if is_small(&body) {
                out.put(&body);
            }
            Ok(!is_small(&body))
        })?;
        if is_apart {
            tx.push(body);
        }
        self.end_response();
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
            Tx::Idle | Tx::Head | Tx::Done => Err(SendError::State),
        }
    }

    /// Notes that `count` bytes of the body, whose length is known, were taken off the connection and do not come through
    /// its queue: a gateway passes a long body from socket to socket.
    ///
    /// # Panics
    /// If there is no such body, or [`ServerConn::remaining_body`] says that less of it is left.
    pub fn body_taken_past(&mut self, count: u64) {
        let Rx::Body(decoder) = &mut self.rx else { panic!("no body is being read") };
        decoder.take_past(count);
        if decoder.is_done() {
            self.rx = Rx::End;
        }
    }

    /// Notes that `count` bytes of the body, whose length was announced, were sent without [`ServerConn::send_data`].
    ///
    /// # Errors
    /// If no such body is being sent, or it is shorter: what was sent cannot be taken back, so the connection must be
    /// dropped.
    pub fn body_sent_past(&mut self, count: u64) -> Result<(), SendError> {
        match &mut self.tx {
            Tx::Body(encoder) => encoder.send_past(count),
            Tx::Idle | Tx::Head | Tx::Done => Err(SendError::State),
        }
    }

    /// Ends a chunked body with trailers. To HTTP/1.0 they are dropped.
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
        self.end_response();
        Ok(())
    }

    /// Ends the response, or our side of the tunnel.
    ///
    /// # Errors
    /// If no response is being sent, or its body is shorter than announced: then only closing is left.
    pub fn finish(&mut self, tx: &mut TxQueue) -> Result<(), SendError> {
        let Tx::Body(encoder) = &mut self.tx else { return Err(SendError::State) };
        encoder.finish(tx).inspect_err(|_| self.persists = false)?;
        self.end_response();
        Ok(())
    }

    fn end_response(&mut self) {
        self.tx = Tx::Done;
        self.next_request();
    }

    /// Makes the response that is being prepared, or else the next one, the last: it says `Connection: close`.
    ///
    /// For a drain, or where the rest of a body is not worth reading.
    pub fn close_after_response(&mut self) {
        self.persists = false;
    }

    /// Whether the final response to a request, or to a fault, can still be sent.
    pub fn can_respond(&self) -> bool {
        self.tx == Tx::Head
    }

    /// Whether an orderly end of the connection now would tell the client that its response is not whole: its length or its
    /// chunks do. RFC 9112 8. Where the end of the connection is the end of the body, only a reset tells.
    pub fn end_shows_cut(&self) -> bool {
        matches!(self.tx, Tx::Body(Encoder::Length(1..) | Encoder::Chunked))
    }

    /// Whether what is answered is HEAD: its response has no body. A refusal of what could not be read has one.
    pub fn answers_head(&self) -> bool {
        self.request.head
    }

    /// Whether everything was said and no request will follow: close once the send queue is empty.
    ///
    /// After a response that left body unread, or between requests while draining, true as well.
    pub fn wants_close(&self) -> bool {
        match self.tx {
            Tx::Idle => !self.persists || matches!(self.rx, Rx::Closed),
            Tx::Done if matches!(self.rx, Rx::Tunnel) => self.eof,
            Tx::Done => !self.persists,
            Tx::Head | Tx::Body(_) => false,
        }
    }

    /// Whether the connection waits for the head of a request.
    pub fn can_read_next(&self) -> bool {
        matches!(self.rx, Rx::Head)
    }

    /// Whether the first bytes of a head have been seen and not its end; a deadline for heads runs then, and the
    /// keep-alive timeout otherwise.
    pub fn is_reading_head(&self) -> bool {
        matches!(self.rx, Rx::Head) && !self.scan.is_untouched()
    }

    /// What of the current request's body has not been read.
    pub fn remaining_body(&self) -> RemainingBody {
        match &self.rx {
            Rx::Body(decoder) => decoder.remaining().map_or(RemainingBody::Unknown, RemainingBody::Known),
            Rx::Head | Rx::End | Rx::AwaitResponse | Rx::Tunnel | Rx::Closed => RemainingBody::None,
        }
    }

    /// Whether both ways belong to another protocol now.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.rx, Rx::Tunnel)
    }
}
