//! A connection that makes requests: the HTTP/1.1 machine driven over a stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use ringport_platform::buf::{PoolBuf, RxQueue, Seg};

use crate::net::Stream;
use crate::proto::http1::{
    BodyLen, ClientConn, ClientEvent, Error, FieldWriter, ForwardedHost, Limits, RequestHead, RequestLine,
    SendError,
};
use crate::runtime::{Runtime, Transport, TxLevel};

/// Bytes pulled at once.
const PULL_BYTES: usize = 256 * 1024;

/// Why no response can be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The origin's bytes are not HTTP that we take, or ended too early.
    Protocol(Error),
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Protocol(error) => write!(f, "bad response: {error}"),
            ClientError::Io(error) => write!(f, "origin connection: {error}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Protocol(error) => Some(error),
            ClientError::Io(error) => Some(error),
        }
    }
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        ClientError::Protocol(error)
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(error)
    }
}

/// A connection to an origin in the client's role.
///
/// A request is [`send_head`](Self::send_head), any number of [`send_data`](Self::send_data), and
/// [`finish`](Self::finish) or [`send_trailers`](Self::send_trailers), also where there is no body. What was written
/// goes out with [`start_send`](Self::start_send) or [`flush`](Self::flush); who sends much waits with
/// [`poll_sent`](Self::poll_sent) and polls for events meanwhile, since a response may come early.
/// [`next_event`](Self::next_event) gives `Informational` any number of times, `Head`, `Data`, `Trailers`, `End`.
/// After `End`, [`is_reusable`](Self::is_reusable) says whether another request may follow; one at a time, no pipelining.
///
/// An idle connection that is kept is polled for events, so that its end is noticed. There is no timeout inside.
pub struct ClientStream<T> {
    stream: Stream<T>,
    conn: ClientConn,
    /// Stays empty: the machine is asked about reuse only when nothing waits in the stream.
    none: RxQueue,
}

impl<T: Transport> ClientStream<T> {
    /// Over a fresh connection.
    pub fn new<R: Runtime<Stream = T>>(runtime: &R, transport: T, limits: Limits) -> Self {
        Self::over(Stream::new(runtime, transport), limits)
    }

    /// Over a stream; what was received and not taken is read first.
    pub fn over(stream: Stream<T>, limits: Limits) -> Self {
        ClientStream { stream, conn: ClientConn::new(limits), none: RxQueue::new() }
    }

    /// The next event of the origin.
    ///
    /// # Errors
    /// In the `Poll`: what the origin or the connection did.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ClientEvent, ClientError>> {
        loop {
            // Between two messages there is nothing to ask the machine.
            if !self.stream.rx().is_empty() || self.conn.has_event() {
                match self.conn.poll_event(self.stream.rx()) {
                    Ok(ClientEvent::NeedInput) => {}
                    Ok(event) => return Poll::Ready(Ok(event)),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            match self.stream.poll_fill(cx, PULL_BYTES) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.conn.handle_eof(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes the whole body of a small response that has come with its head: see [`ClientConn::take_body`].
    pub fn take_body(&mut self) -> Option<PoolBuf> {
        self.conn.take_body(self.stream.rx())
    }

    /// Whether another request may be sent: the last exchange ended cleanly and nothing came since.
    pub fn is_reusable(&self) -> bool {
        self.stream.is_quiet() && self.conn.reusable(&self.none)
    }

    /// The machine, for questions about its state.
    pub fn conn(&mut self) -> &mut ClientConn {
        &mut self.conn
    }

    /// Writes the head of a request.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_head<'a>(
        &mut self,
        line: RequestLine<'_>,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        len: BodyLen,
    ) -> Result<(), SendError> {
        self.conn.send_request_head(line, fields, len, self.stream.tx())
    }

    /// Writes the head of a request with fields that `write` puts.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_head_with(
        &mut self,
        line: RequestLine<'_>,
        len: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.conn.send_request_head_with(line, len, self.stream.tx(), write)
    }

    /// Writes the head of a request that a gateway passes on: see [`ClientConn::forward_request_head_with`].
    ///
    /// # Errors
    /// Nothing was written.
    pub fn forward_head_with(
        &mut self,
        head: &RequestHead,
        host: ForwardedHost<'_>,
        len: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.conn.forward_request_head_with(head, host, len, self.stream.tx(), write)
    }

    /// Writes a part of the body, or of a tunnel.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_data(&mut self, seg: impl Into<Seg>) -> Result<(), SendError> {
        self.conn.send_data(seg, self.stream.tx())
    }

    /// Ends the request with trailers.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_trailers<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), SendError> {
        self.conn.send_trailers(fields, self.stream.tx())
    }

    /// Ends the request.
    ///
    /// # Errors
    /// The body was shorter than announced: the connection must be dropped.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.conn.finish(self.stream.tx())
    }

    /// [`poll_event`](Self::poll_event) as a future. Dropping it loses no event.
    ///
    /// # Errors
    /// What the origin or the connection did.
    pub async fn next_event(&mut self) -> Result<ClientEvent, ClientError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Waits until everything that was written is sent.
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_sent(cx, TxLevel::Empty)).await
    }

    /// Hands what was written to the transport; never waits.
    ///
    /// # Errors
    /// What an earlier send met.
    pub fn start_send(&mut self) -> io::Result<()> {
        self.stream.start_send()
    }

    /// Waits until at most as much as `level` allows is unsent.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx, level)
    }

    /// The stream below.
    pub fn stream(&mut self) -> &mut Stream<T> {
        &mut self.stream
    }
}
