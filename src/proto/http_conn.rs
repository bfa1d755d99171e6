//! HTTP/1.1 and HTTP/2 in one form, in the server's role: whoever answers requests need not know which it is.
//!
//! ```text
//! rx --> HttpConn --poll_event--> Request, Data*, Trailers?, End      each stream may become Reset
//! tx <-- HttpConn <-- send_head, send_data*, finish or send_trailers
//!
//! HTTP/1.1  one stream at a time, with a number of its own for each request; what is sent goes straight to `tx`
//! HTTP/2    as many as the client may open; what is sent comes to `tx` with `poll_output`
//! ```
//!
//! A turn is that of [`http2`]: receive, `poll_event` until `NeedInput` or `Closed`, `poll_output`, send, sleep.
//!
//! What differs below, and is the same here. `release` gives credit back in HTTP/2, and is nothing in HTTP/1.1, where not
//! polling holds the client back. `reset` ends a stream, which in HTTP/1.1 is the connection: [`HttpConn::is_aborted`] says so,
//! and the transport is to be reset. `drain` is GOAWAY, twice, or `Connection: close` with the response that comes next.
//! `can_send` says whether the machine takes a segment; HTTP/1.1 takes all, so its caller looks at the length of `tx`.
//!
//! Bad input gets what the version has for it: see [`http1`] and [`http2`]. Dropping a connection frees
//! everything and tells nobody.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue};

use super::http1::{self, BodyLen, RequestHead, ServerConn, ServerEvent};
use super::http2::{self, Code, StreamId};

/// The head of a request, of either version. One of HTTP/1.1 is a view of what was received.
pub enum Head {
    /// As received.
    Http1(RequestHead),
    /// As decompressed.
    Http2(Box<Request<()>>),
}

impl Head {
    /// The method.
    pub fn method(&self) -> &Method {
        match self {
            Head::Http1(head) => head.method(),
            Head::Http2(head) => head.method(),
        }
    }

    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub fn version(&self) -> Version {
        match self {
            Head::Http1(head) => head.version(),
            Head::Http2(_) => Version::HTTP_2,
        }
    }

    /// The path without query, as received; `*` for `OPTIONS *`, empty for CONNECT.
    pub fn path(&self) -> &str {
        match self {
            Head::Http1(head) => head.path(),
            Head::Http2(head) if *head.method() == Method::CONNECT && head.uri().path() == "/" => "",
            Head::Http2(head) => head.uri().path(),
        }
    }

    /// What follows `?`, without it.
    pub fn query(&self) -> Option<&str> {
        match self {
            Head::Http1(head) => head.query(),
            Head::Http2(head) => head.uri().query(),
        }
    }

    /// Host and port that the request is for. `None` only in HTTP/1.0.
    pub fn authority(&self) -> Option<&str> {
        match self {
            Head::Http1(head) => head.authority(),
            Head::Http2(head) => match head.uri().authority() {
                Some(authority) => Some(authority.as_str()),
                None => head.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()),
            },
        }
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match self {
            Head::Http1(head) => head.get(name),
            Head::Http2(head) => head.headers().get(name).map(HeaderValue::as_bytes),
        }
    }

    /// All fields, as received, those of one name in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (first, second) = match self {
            Head::Http1(head) => (Some(head.iter()), None),
            Head::Http2(head) => (None, Some(head.headers().iter())),
        };
        let second = second.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_bytes()));
        first.into_iter().flatten().chain(second)
    }

    /// The same as the type of the `http` crate; one of HTTP/1.1 allocates.
    ///
    /// # Errors
    /// If that crate's rules are narrower than ours for this head.
    pub fn into_request(self) -> http::Result<Request<()>> {
        match self {
            Head::Http1(head) => head.to_request(),
            Head::Http2(head) => Ok(*head),
        }
    }
}

/// Received bytes of a body: of HTTP/1.1 as they lie in the driver's buffer, deciphered where there is TLS.
#[derive(Debug)]
pub enum Data {
    /// A view of a pool's chunk, which it keeps from being used again.
    Pool(PoolBuf),
    /// Memory of its own.
    Bytes(Bytes),
}

impl Data {
    /// The bytes in memory of their own; those of a pool are copied.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Data::Pool(buf) => Bytes::copy_from_slice(&buf),
            Data::Bytes(bytes) => bytes,
        }
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::Pool(buf) => buf,
            Data::Bytes(bytes) => bytes,
        }
    }
}

impl From<Data> for Seg {
    fn from(data: Data) -> Self {
        match data {
            Data::Pool(buf) => Seg::Pool(buf),
            Data::Bytes(bytes) => Seg::Bytes(bytes),
        }
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self
    }

    fn advance(&mut self, count: usize) {
        match self {
            Data::Pool(buf) => buf.advance(count),
            Data::Bytes(bytes) => bytes.advance(count),
        }
    }
}

/// What a client sent, or what became possible.
pub enum Event {
    /// Nothing to say before more bytes arrive, or a response is finished.
    NeedInput,
    /// A request. Of CONNECT no end comes: what follows a 2xx is a tunnel.
    Request {
        /// Its stream.
        id: StreamId,
        /// Its head.
        head: Head,
        /// How its body is delimited.
        body: BodyLen,
    },
    /// A part of a body, or of a tunnel; never empty.
    Data {
        /// Its stream.
        id: StreamId,
        /// To be given back by [`HttpConn::release`].
        data: Data,
    },
    /// The fields behind a body; [`Event::End`] follows.
    Trailers {
        /// Their stream.
        id: StreamId,
        /// As received.
        trailers: HeaderMap,
    },
    /// The request is read to its end.
    End {
        /// Its stream.
        id: StreamId,
    },
    /// The machine takes a segment again.
    Writable {
        /// Of this stream.
        id: StreamId,
    },
    /// The stream is no more.
    Reset {
        /// The stream.
        id: StreamId,
    },
    /// Nothing more will be read. What is being answered in HTTP/1.1 can be answered still.
    Closed,
}

/// What a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// [`HttpConn::can_refuse`] says whether there is an answer to it.
    Http1(http1::Error),
    /// It has been told; what [`HttpConn::poll_output`] has is to be sent.
    Http2(http2::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http1(error) => error.fmt(f),
            Error::Http2(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Why a call that sends did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Of HTTP/1.1.
    Http1(http1::SendError),
    /// Of HTTP/2.
    Http2(http2::SendError),
}

impl From<http1::SendError> for SendError {
    fn from(error: http1::SendError) -> Self {
        SendError::Http1(error)
    }
}

impl From<http2::SendError> for SendError {
    fn from(error: http2::SendError) -> Self {
        SendError::Http2(error)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Http1(error) => error.fmt(f),
            SendError::Http2(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// A connection in the server's role; see the [module](self).
#[expect(clippy::large_enum_variant, reason = "the smaller one is behind a pointer, the usual one is not")]
pub enum HttpConn {
    /// HTTP/1.1, and HTTP/1.0.
    Http1(Http1),
    /// HTTP/2.
    Http2(Box<http2::Conn>),
}

/// A connection of one stream at a time.
pub struct Http1 {
    conn: ServerConn,
    /// Of the request that was read last.
    number: u32,
    is_aborted: bool,
    tunnel_ended: bool,
}

impl Http1 {
    fn id(&self) -> StreamId {
        StreamId::new(0, self.number)
    }

    /// The machine, if it still has that stream.
    fn of(&mut self, id: StreamId) -> Result<&mut ServerConn, SendError> {
        if self.id() == id && !self.is_aborted {
            Ok(&mut self.conn)
        } else {
            Err(http2::SendError::Gone.into())
        }
    }

    fn poll_event(&mut self, rx: &mut RxQueue) -> Result<Event, Error> {
        if self.is_aborted {
            return Ok(Event::Closed);
        }
        if rx.is_empty() && !self.conn.has_event() && !self.conn.is_tunnel() {
            return Ok(Event::NeedInput);
        }
        let event = self.conn.poll_event(rx).map_err(Error::Http1)?;
        let id = self.id();
        Ok(match event {
            ServerEvent::NeedInput | ServerEvent::Paused => Event::NeedInput,
            ServerEvent::Head(head, body) => {
                self.number = self.number.wrapping_add(1);
                Event::Request { id: self.id(), head: Head::Http1(head), body }
            }
            ServerEvent::Data(data) | ServerEvent::Tunnel(data) => Event::Data { id, data: Data::Pool(data) },
            ServerEvent::Trailers(trailers) => {
                let trailers = trailers.to_map().map_err(|_| Error::Http1(http1::Error::Trailer))?;
                Event::Trailers { id, trailers }
            }
            ServerEvent::End => Event::End { id },
            ServerEvent::Closed if self.conn.is_tunnel() && !self.tunnel_ended => {
                self.tunnel_ended = true;
                Event::End { id }
            }
            ServerEvent::Closed => Event::Closed,
        })
    }
}

impl HttpConn {
    /// A connection of HTTP/1.1 that waits for its first request.
    pub fn http1(limits: http1::Limits) -> Self {
        let conn = ServerConn::new(limits);
        HttpConn::Http1(Http1 { conn, number: 0, is_aborted: false, tunnel_ended: false })
    }

    /// A connection of HTTP/2 that waits for the preface.
    pub fn http2(spec: http2::Spec, now: Instant) -> Self {
        HttpConn::Http2(Box::new(http2::Conn::server(spec, now)))
    }

    /// Whether many streams may be open at once.
    pub fn is_http2(&self) -> bool {
        matches!(self, HttpConn::Http2(_))
    }

    /// Takes what it can of `rx` and says what comes next.
    ///
    /// # Errors
    /// What the client did wrong; the same again on every later call.
    pub fn poll_event(&mut self, now: Instant, rx: &mut RxQueue) -> Result<Event, Error> {
        let conn = match self {
            HttpConn::Http1(http1) => return http1.poll_event(rx),
            HttpConn::Http2(conn) => conn,
        };
        loop {
            return Ok(match conn.poll_event(now, rx).map_err(Error::Http2)? {
                http2::Event::NeedInput => Event::NeedInput,
                http2::Event::Request { id, head, body } => {
                    Event::Request { id, head: Head::Http2(Box::new(head)), body }
                }
                http2::Event::Data { id, data } => Event::Data { id, data: Data::Bytes(data) },
                http2::Event::Trailers { id, trailers } => Event::Trailers { id, trailers },
                http2::Event::End { id } => Event::End { id },
                http2::Event::Writable { id } => Event::Writable { id },
                http2::Event::Reset { id, .. } => Event::Reset { id },
                // A client opens the streams; of what it says of responses there is none.
                http2::Event::GoAway | http2::Event::Informational { .. } | http2::Event::Response { .. } => {
                    continue;
                }
                http2::Event::Closed => Event::Closed,
            });
        }
    }

    /// Notes that the client will send nothing more. What is in the queue is read still; then poll.
    pub fn handle_eof(&mut self) {
        match self {
            HttpConn::Http1(http1) => http1.conn.handle_eof(),
            HttpConn::Http2(conn) => conn.handle_eof(),
        }
    }

    /// Moves what is to be sent to `tx`.
    pub fn poll_output(&mut self, now: Instant, tx: &mut TxQueue) {
        if let HttpConn::Http2(conn) = self {
            conn.poll_output(now, tx);
        }
    }

    /// Whether there may be an event although nothing was received since.
    pub fn has_event(&self) -> bool {
        match self {
            HttpConn::Http1(http1) => http1.conn.has_event(),
            HttpConn::Http2(conn) => conn.has_event(),
        }
    }

    /// When [`HttpConn::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            HttpConn::Http1(_) => None,
            HttpConn::Http2(conn) => conn.poll_timeout(),
        }
    }

    /// Asks a silent client for a sign of life, or gives it up. Nothing before it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let HttpConn::Http2(conn) = self {
            conn.handle_timeout(now);
        }
    }

    /// Whether the first bytes of a head, or of the preface, have come and not its end.
    pub fn is_reading_head(&self) -> bool {
        match self {
            HttpConn::Http1(http1) => http1.conn.is_reading_head(),
            HttpConn::Http2(conn) => conn.is_handshaking(),
        }
    }

    /// Takes no more requests, and ends once those that are open have been answered.
    pub fn drain(&mut self) {
        match self {
            HttpConn::Http1(http1) => http1.conn.close_after_response(),
            HttpConn::Http2(conn) => conn.drain(),
        }
    }

    /// Ends at once, with GOAWAY where there is one.
    pub fn close(&mut self, code: Code) {
        match self {
            HttpConn::Http1(http1) => http1.conn.stop_reading(),
            HttpConn::Http2(conn) => conn.close(code),
        }
    }

    /// Whether everything was said and nothing will be read: close once `tx` is sent.
    pub fn wants_close(&self) -> bool {
        match self {
            HttpConn::Http1(http1) => http1.is_aborted || http1.conn.wants_close(),
            HttpConn::Http2(conn) => conn.wants_close(),
        }
    }

    /// Whether a stream was reset that is the whole connection: the client must not take what it has for the whole.
    pub fn is_aborted(&self) -> bool {
        matches!(self, HttpConn::Http1(http1) if http1.is_aborted)
    }

    /// Whether what could not be read can be answered all the same.
    pub fn can_refuse(&self) -> bool {
        matches!(self, HttpConn::Http1(http1) if http1.conn.can_respond())
    }

    /// Answers what could not be read, with `reason` as text, and reads nothing more.
    pub fn refuse<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        reason: &'static str,
        tx: &mut TxQueue,
    ) {
        if let HttpConn::Http1(http1) = self {
            http1.conn.stop_reading();
            // Without a request that waits for it nothing is written.
            let _ = http1.conn.send_response_with(status, reason, tx, |out| {
                out.put("content-type", b"text/plain")?;
                fields.into_iter().try_for_each(|(name, value)| out.put(name, value))
            });
        }
    }

    /// Says 100 to a client that waits for it in HTTP/1.1. One of HTTP/2 seldom waits, and is told nothing.
    ///
    /// # Errors
    /// The final response has begun.
    pub fn send_continue(&mut self, id: StreamId, tx: &mut TxQueue) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => Ok(http1.of(id)?.send_continue(tx)?),
            HttpConn::Http2(_) => Ok(()),
        }
    }

    /// Sends an informational response before the final one: 103.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_informational<'a>(
        &mut self,
        id: StreamId,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => Ok(http1.of(id)?.send_informational(status, fields, tx)?),
            HttpConn::Http2(conn) => Ok(conn.send_informational(id, response(status, fields)?)?),
        }
    }

    /// Sends the head of the final response. Fields of framing are skipped: the machine writes them.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_head<'a>(
        &mut self,
        id: StreamId,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: BodyLen,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => Ok(http1.of(id)?.send_head(status, fields, body, tx)?),
            HttpConn::Http2(conn) => Ok(conn.send_head(id, response(status, fields)?, body)?),
        }
    }

    /// Sends a whole response. To HEAD, and in a 304, the length of `body` is told and nothing of it sent.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn respond<'a>(
        &mut self,
        id: StreamId,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: Seg,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        let conn = match self {
            HttpConn::Http1(http1) => {
                return Ok(http1.of(id)?.send_response_with(status, body, tx, |out| {
                    fields.into_iter().try_for_each(|(name, value)| out.put(name, value))
                })?);
            }
            HttpConn::Http2(conn) => conn,
        };
        conn.send_head(id, response(status, fields)?, BodyLen::Length(body.len() as u64))?;
        if conn.can_send(id) {
            conn.send_data(id, into_bytes(body))?;
        }
        Ok(conn.finish(id)?)
    }

    /// Sends a part of a body, or of a tunnel.
    ///
    /// # Errors
    /// Nothing was taken.
    pub fn send_data(&mut self, id: StreamId, data: Seg, tx: &mut TxQueue) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => Ok(http1.of(id)?.send_data(data, tx)?),
            HttpConn::Http2(conn) => Ok(conn.send_data(id, into_bytes(data))?),
        }
    }

    /// Whether [`HttpConn::send_data`] takes a segment now; [`Event::Writable`] follows a no of a stream whose body is being sent.
    pub fn can_send(&self, id: StreamId) -> bool {
        match self {
            HttpConn::Http1(_) => true,
            HttpConn::Http2(conn) => conn.can_send(id),
        }
    }

    /// Ends a response whose length was not announced with trailers.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_trailers(
        &mut self,
        id: StreamId,
        trailers: HeaderMap,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => {
                let fields = trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                Ok(http1.of(id)?.send_trailers(fields, tx)?)
            }
            HttpConn::Http2(conn) => Ok(conn.send_trailers(id, trailers)?),
        }
    }

    /// Ends a response.
    ///
    /// # Errors
    /// The body was shorter than announced: the stream has been reset.
    pub fn finish(&mut self, id: StreamId, tx: &mut TxQueue) -> Result<(), SendError> {
        match self {
            HttpConn::Http1(http1) => {
                let finished = http1.of(id)?.finish(tx);
                http1.is_aborted |= matches!(finished, Err(http1::SendError::BodyTooShort { .. }));
                Ok(finished?)
            }
            HttpConn::Http2(conn) => Ok(conn.finish(id)?),
        }
    }

    /// Says that so many bytes of [`Event::Data`] have been taken.
    pub fn release(&mut self, id: StreamId, bytes: usize) {
        if let HttpConn::Http2(conn) = self {
            conn.release(id, bytes);
        }
    }

    /// Ends a stream both ways.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        match self {
            HttpConn::Http1(http1) => http1.is_aborted |= http1.id() == id,
            HttpConn::Http2(conn) => conn.reset(id, code),
        }
    }

    /// Gives back the memory that is of no use while the connection is idle.
    pub fn release_idle(&mut self) {
        match self {
            HttpConn::Http1(http1) => http1.conn.release_idle(),
            HttpConn::Http2(conn) => conn.release_idle(),
        }
    }
}

/// In the form of the `http` crate, without the fields of a connection.
fn response<'a>(
    status: StatusCode,
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Response<()>, SendError> {
    let mut head = Response::new(());
    *head.status_mut() = status;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| http1::SendError::Name)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| http1::SendError::Value)?;
        if !super::mapping::is_connection_field(&name) {
            head.headers_mut().try_append(name, value).map_err(|_| http1::SendError::Value)?;
        }
    }
    Ok(head)
}

fn into_bytes(seg: Seg) -> Bytes {
    match seg {
        Seg::Bytes(bytes) => bytes,
        Seg::Static(bytes) => Bytes::from_static(bytes),
        Seg::Vec(bytes) => bytes.into(),
        Seg::Pool(buf) => Bytes::copy_from_slice(&buf),
        Seg::Shared(buf) => Bytes::copy_from_slice(&buf),
    }
}
