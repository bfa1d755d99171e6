//! A connection of HTTP/2, in either role: the machine driven over a stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::net::Stream;
use crate::proto::http2::{Conn, Error, Event, Spec};
use crate::runtime::{Runtime, Timer, Transport, TxLevel};

/// Bytes pulled at once.
const PULL_BYTES: usize = 64 * 1024;

/// Unsent bytes above which the machine is not asked for more, so that it holds the peer back.
const UNSENT_BYTES: usize = 128 * 1024;

/// Why a connection is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Http2Error {
    /// What the peer did, or did not; what is said to it has been handed over.
    Protocol(Error),
    /// The connection failed, or ended while something was expected.
    Io(Arc<io::Error>),
}

impl fmt::Display for Http2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Http2Error::Protocol(error) => write!(f, "HTTP/2: {error}"),
            Http2Error::Io(error) => write!(f, "HTTP/2 connection: {error}"),
        }
    }
}

impl std::error::Error for Http2Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Http2Error::Protocol(error) => Some(error),
            Http2Error::Io(error) => Some(&**error),
        }
    }
}

impl From<Error> for Http2Error {
    fn from(error: Error) -> Self {
        Http2Error::Protocol(error)
    }
}

impl From<io::Error> for Http2Error {
    fn from(error: io::Error) -> Self {
        Http2Error::Io(Arc::new(error))
    }
}

/// A connection with all its streams; [`Http2Stream::conn`] answers, asks and releases.
///
/// One task owns it. Polling for events is what sends: what was written between two polls goes out together. An idle
/// connection is polled too, for the peer's PING and the end. Keep-alive is inside ([`Spec::keep_alive`]), no other timeout is.
///
/// Dropping it sends what was handed over and closes; the peer is told by [`Conn::drain`] or [`Conn::close`] before.
pub struct Http2Stream<R: Runtime, T: Transport = <R as Runtime>::Stream> {
    pump: Pump<R, T>,
    conn: Conn,
}

impl<R: Runtime, T: Transport> Http2Stream<R, T> {
    /// The server's side; what was received and not taken, the preface among it, is read first.
    pub fn server(runtime: &R, stream: Stream<T>, spec: Spec) -> Self {
        Http2Stream { pump: Pump::new(runtime, stream), conn: Conn::server(spec, runtime.now()) }
    }

    /// The client's side, whose peer is known to speak HTTP/2.
    pub fn client(runtime: &R, stream: Stream<T>, spec: Spec) -> Self {
        Http2Stream { pump: Pump::new(runtime, stream), conn: Conn::client(spec, runtime.now()) }
    }

    /// The machine.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// The stream below.
    pub fn stream(&mut self) -> &mut Stream<T> {
        &mut self.pump.stream
    }

    /// The next event; never [`Event::NeedInput`]. After [`Event::Closed`] drop it.
    ///
    /// # Errors
    /// In the `Poll`: what the peer or the connection did. The same error comes again if polled again.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Http2Error>> {
        self.pump.poll_event(cx, &mut self.conn)
    }

    /// [`poll_event`](Self::poll_event) as a future. Dropping it loses no event.
    ///
    /// # Errors
    /// What the peer or the connection did.
    pub async fn next_event(&mut self) -> Result<Event, Http2Error> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Waits until everything that was handed over is sent.
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.pump.stream.flush().await
    }
}

/// What carries bytes between a machine, which is somebody else's, and its stream.
pub(super) struct Pump<R: Runtime, T> {
    pub(super) runtime: R,
    pub(super) stream: Stream<T>,
    timer: Option<(R::Timer, Instant)>,
    eof: bool,
}

impl<R: Runtime, T: Transport> Pump<R, T> {
    pub(super) fn new(runtime: &R, stream: Stream<T>) -> Self {
        Pump { runtime: runtime.clone(), stream, timer: None, eof: false }
    }

    /// As [`Http2Stream::poll_event`].
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
    ) -> Poll<Result<Event, Http2Error>> {
        loop {
            let now = self.runtime.now();
            conn.handle_timeout(now);
            match conn.poll_event(now, self.stream.rx()) {
                Ok(Event::NeedInput) => {}
                Ok(Event::Closed) => {
                    self.hand_over(now, conn)?;
                    return Poll::Ready(Ok(Event::Closed));
                }
                Ok(event) => return Poll::Ready(Ok(event)),
                Err(error) => {
                    // The reason is that of the machine, whatever becomes of its last words.
                    let _ = self.hand_over(now, conn);
                    return Poll::Ready(Err(error.into()));
                }
            }
            let sent = self.poll_send(cx, now, conn)?;
            if conn.has_event() {
                continue;
            }
            // What the machine does not take waits for its output to go.
            if sent.is_ready() && !self.stream.rx().is_empty() {
                continue;
            }
            if self.stream.rx().is_empty() && !self.eof {
                match self.stream.poll_fill(cx, PULL_BYTES) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false)) => {
                        self.eof = true;
                        conn.handle_eof();
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {}
                }
            }
            if self.poll_timer(cx, conn).is_pending() {
                // What waits for the output to go may wait for as long as its peer likes.
                if self.stream.tx().is_pool_short() {
                    self.stream.rx().compact();
                }
                return Poll::Pending;
            }
        }
    }

    /// Hands over what is to be sent; ready when that is all there was.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        conn: &mut Conn,
    ) -> Result<Poll<()>, io::Error> {
        loop {
            match self.stream.poll_flush(cx, TxLevel::Below(UNSENT_BYTES)) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            conn.poll_output(now, self.stream.tx());
            if self.stream.tx().is_empty() {
                return Ok(Poll::Ready(()));
            }
            self.stream.start_send()?;
        }
    }

    /// The last words, whatever waits before them.
    fn hand_over(&mut self, now: Instant, conn: &mut Conn) -> io::Result<()> {
        conn.poll_output(now, self.stream.tx());
        self.stream.start_send()
    }

    /// Ready when the deadline of the machine has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Poll<()> {
        let Some(due) = conn.poll_timeout() else { return Poll::Pending };
        let timer = match &mut self.timer {
            Some((timer, set)) => {
                if *set != due {
                    timer.reset(due);
                    *set = due;
                }
                timer
            }
            None => &mut self.timer.insert((self.runtime.timer(due), due)).0,
        };
        timer.poll_elapsed(cx)
    }
}
