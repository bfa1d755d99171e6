//! A connection that answers requests: the HTTP/1.1 machine driven over a stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use http::StatusCode;
use ringport_platform::buf::Seg;

use crate::net::Stream;
use crate::proto::http1::{BodyLen, Error, FieldWriter, Limits, SendError, ServerConn, ServerEvent};
use crate::runtime::{Runtime, Transport, TxLevel};

/// Bytes pulled at once, and pipelined bytes that may wait while a request is answered.
const PULL_BYTES: usize = 64 * 1024;

/// Why no more requests can be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The client's bytes are not HTTP that we take; the machine's `can_respond` says whether to answer.
    Protocol(Error),
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Protocol(error) => write!(f, "bad request: {error}"),
            ServeError::Io(error) => write!(f, "client connection: {error}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Protocol(error) => Some(error),
            ServeError::Io(error) => Some(error),
        }
    }
}

impl From<Error> for ServeError {
    fn from(error: Error) -> Self {
        ServeError::Protocol(error)
    }
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        ServeError::Io(error)
    }
}

/// A client's connection in the server's role.
///
/// [`next_event`](Self::next_event) gives `Head`, then `Data` and `Trailers` as they come, then `End`. A response is
/// [`respond`](Self::respond), or [`send_head`](Self::send_head), any number of [`send_data`](Self::send_data), and
/// [`finish`](Self::finish); from `Head` on, whether the request is read to its end or not. What was written goes out
/// when the next event is asked for and has not come, so that answers to requests that came together go out together, or
/// before, with [`start_send`](Self::start_send) or [`flush`](Self::flush); who sends much waits with
/// [`poll_room`](Self::poll_room) or [`poll_sent`](Self::poll_sent). When `conn().wants_close()`, send and drop it.
///
/// Nothing is read ahead but what the socket holds (64 KiB): a body or a pipelined request that nobody asks for holds
/// the client back. There is no timeout inside: race the events with a timer, as RFC 9112 9.8 leaves to the server.
pub struct ServerStream<T> {
    stream: Stream<T>,
    conn: ServerConn,
}

impl<T: Transport> ServerStream<T> {
    /// Over a fresh connection.
    pub fn new<R: Runtime<Stream = T>>(runtime: &R, transport: T, limits: Limits) -> Self {
        Self::over(Stream::new(runtime, transport), limits)
    }

    /// Over a stream; what was received and not taken is read first.
    pub fn over(stream: Stream<T>, limits: Limits) -> Self {
        ServerStream { stream, conn: ServerConn::new(limits) }
    }

    /// The next event of the client. `Paused` while a response is due; a reset is noticed then, too.
    ///
    /// What was written is handed to the transport before more input is asked for, and with an event after which none
    /// comes.
    ///
    /// # Errors
    /// In the `Poll`: what the client or the connection did. The same error comes again if polled again.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServerEvent, ServeError>> {
        loop {
            // Between two messages there is nothing to ask the machine.
            if !self.stream.rx().is_empty() || self.conn.has_event() {
                match self.conn.poll_event(self.stream.rx()) {
                    Ok(ServerEvent::NeedInput) => {}
                    Ok(ServerEvent::Closed | ServerEvent::Paused) | Err(_)
                        if !self.stream.tx().is_empty() =>
                    {
                        self.stream.start_send()?;
                        continue;
                    }
                    Ok(event) => return Poll::Ready(Ok(event)),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            if !self.stream.tx().is_empty() {
                self.stream.start_send()?;
            }
            match self.stream.poll_fill(cx, PULL_BYTES) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.conn.handle_eof(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// While a response is due: ready with an error if the client has reset the connection.
    ///
    /// Pulls what the client pipelines meanwhile, up to 64 KiB; once so much waits, a reset is noticed at the next send.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.stream.rx().len() < PULL_BYTES {
            match self.stream.poll_fill(cx, PULL_BYTES) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.conn.handle_eof();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// The machine, for questions about its state.
    pub fn conn(&mut self) -> &mut ServerConn {
        &mut self.conn
    }

    /// Bytes of the next request that have come.
    pub fn has_input(&mut self) -> bool {
        !self.stream.rx().is_empty()
    }

    /// Whether something was written and not handed over yet.
    pub fn has_output(&mut self) -> bool {
        !self.stream.tx().is_empty()
    }

    /// Moves what has come of an incomplete head out of the driver's buffers, for a connection that may wait long.
    pub fn compact(&mut self) {
        self.stream.rx().compact();
    }

    /// Writes the head of a final response (or 101).
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_head<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        len: BodyLen,
    ) -> Result<(), SendError> {
        self.conn.send_head(status, fields, len, self.stream.tx())
    }

    /// Writes the head of a final response (or 101) with fields that `write` puts.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_head_with(
        &mut self,
        status: StatusCode,
        len: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.conn.send_head_with(status, len, self.stream.tx(), write)
    }

    /// Writes an informational response, before the final one. 100 goes to a client that waits for it only, and 1xx to
    /// none of HTTP/1.0: nothing is written then. RFC 9110 15.2.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_informational<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), SendError> {
        if status == StatusCode::CONTINUE {
            return self.conn.send_continue(self.stream.tx());
        }
        self.conn.send_informational(status, fields, self.stream.tx())
    }

    /// Writes an informational response with fields that `write` puts.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_informational_with(
        &mut self,
        status: StatusCode,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if status == StatusCode::CONTINUE {
            return self.conn.send_continue(self.stream.tx());
        }
        self.conn.send_informational_with(status, self.stream.tx(), write)
    }

    /// Writes a part of the body, or of a tunnel.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_data(&mut self, seg: impl Into<Seg>) -> Result<(), SendError> {
        self.conn.send_data(seg, self.stream.tx())
    }

    /// Ends the response with trailers.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn send_trailers<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), SendError> {
        self.conn.send_trailers(fields, self.stream.tx())
    }

    /// Ends the response.
    ///
    /// # Errors
    /// The body was shorter than announced: the connection must be dropped.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.conn.finish(self.stream.tx())
    }

    /// A whole small response. To HEAD, and in a 304, the length of `body` is told and nothing of it sent.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn respond<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: impl Into<Seg>,
    ) -> Result<(), SendError> {
        self.respond_with(status, body, |out| {
            fields.into_iter().try_for_each(|(name, value)| out.put(name, value))
        })
    }

    /// [`respond`](Self::respond) with fields that `write` puts.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn respond_with(
        &mut self,
        status: StatusCode,
        body: impl Into<Seg>,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.conn.send_response_with(status, body, self.stream.tx(), write)
    }

    /// [`poll_event`](Self::poll_event) as a future. Dropping it loses no event.
    ///
    /// # Errors
    /// What the client or the connection did.
    pub async fn next_event(&mut self) -> Result<ServerEvent, ServeError> {
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

    /// Waits until at most `max` bytes are unsent; what was written stays in hand until that is passed, or until input is
    /// waited for. See [`Stream::poll_room`].
    #[inline]
    pub fn poll_room(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<()>> {
        self.stream.poll_room(cx, max)
    }

    /// The stream below, for the end of the connection.
    pub fn into_stream(self) -> Stream<T> {
        self.stream
    }

    /// The stream below.
    pub fn stream(&mut self) -> &mut Stream<T> {
        &mut self.stream
    }
}
