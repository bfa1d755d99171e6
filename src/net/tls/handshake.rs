//! Handshakes over transports, with a limit of time.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Instant;

use rustls::pki_types::ServerName;

use super::config::{ClientTls, ServerTls};
use super::stream::{Link, TlsStream, sized};
use crate::buf::{RxQueue, TxQueue};
use crate::net::Stream;
use crate::proto::tls::{ClientHello, HelloReader, RustlsCodec, TlsError, TlsLimits};
use crate::runtime::{Runtime, Timer, Transport};

/// Why there is no TLS over a connection that was made.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer, or what the two have in common; see its variants: an alert, a certificate that expired, is for other names or
    /// of nobody who is trusted, no application protocol in common, no TLS at all.
    Tls(TlsError),
    /// The time for it was over.
    TimedOut,
    /// The client asks for what nobody here has a configuration for.
    NoConfig(ClientHello),
    /// It was given up for others: see `max_pending_handshakes`.
    CrowdedOut,
    /// The connection broke.
    Io(io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Tls(error) => error.fmt(f),
            HandshakeError::TimedOut => f.write_str("the handshake took too long"),
            HandshakeError::NoConfig(hello) => {
                write!(f, "nobody answers to {:?}", hello.server_name.as_deref().unwrap_or_default())
            }
            HandshakeError::CrowdedOut => f.write_str("given up for other handshakes"),
            HandshakeError::Io(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HandshakeError::Tls(error) => Some(error),
            HandshakeError::Io(error) => Some(error),
            HandshakeError::TimedOut | HandshakeError::NoConfig(_) | HandshakeError::CrowdedOut => None,
        }
    }
}

/// Speaks TLS over a connection, as a client of `name`. Dropping the future drops the connection.
///
/// # Errors
/// Why not; the connection is gone then, after an alert where there is one.
pub(super) async fn connect<R: Runtime, T: Transport>(
    runtime: &R,
    stream: Stream<T>,
    (tls, name): (&ClientTls, ServerName<'static>),
    deadline: Option<Instant>,
) -> Result<Stream<Link<T>>, HandshakeError> {
    let (inner, input) = stream.into_parts();
    let codec = RustlsCodec::client(tls.current(), name, TlsLimits::default());
    let codec = sized(codec, tls.sizing()).map_err(HandshakeError::Tls)?;
    let queues = (runtime.tx_queue(), runtime.tx_queue());
    let mut stream = TlsStream::new(inner, codec, input, queues);
    let mut timer = deadline.map(|deadline| runtime.timer(deadline));
    poll_fn(|cx| {
        if let Poll::Ready(result) = stream.poll_handshake(cx) {
            return Poll::Ready(result);
        }
        let Some(timer) = &mut timer else { return Poll::Pending };
        timer.poll_elapsed(cx).map(|()| Err(HandshakeError::TimedOut))
    })
    .await?;
    Ok(Stream::over(Link::Tls(Box::new(stream)), runtime.tx_queue()))
}

/// A server's side of a handshake, to be polled.
pub(super) struct Accepting<T: Transport> {
    state: State<T>,
}

enum State<T: Transport> {
    /// Until it is known who answers.
    Hello {
        inner: T,
        input: RxQueue,
        reader: HelloReader,
        queues: (TxQueue, TxQueue),
    },
    Handshake(TlsStream<T>),
    Done,
}

impl<T: Transport> Accepting<T> {
    /// With this configuration, whatever the client asks for.
    pub(super) fn with(
        stream: Stream<T>,
        tls: &ServerTls,
        queues: (TxQueue, TxQueue),
    ) -> Result<Self, HandshakeError> {
        let (inner, input) = stream.into_parts();
        let codec = RustlsCodec::server(tls.current(), TlsLimits::default());
        let codec = sized(codec, tls.sizing()).map_err(HandshakeError::Tls)?;
        Ok(Accepting { state: State::Handshake(TlsStream::new(inner, codec, input, queues)) })
    }

    /// With the configuration that is chosen by the hello.
    pub(super) fn chosen(stream: Stream<T>, queues: (TxQueue, TxQueue)) -> Self {
        let (inner, input) = stream.into_parts();
        let reader = HelloReader::new(TlsLimits::default());
        Accepting { state: State::Hello { inner, input, reader, queues } }
    }

    /// The connection with TLS, once.
    pub(super) fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        choose: &dyn Fn(&ClientHello) -> Option<ServerTls>,
    ) -> Poll<Result<TlsStream<T>, HandshakeError>> {
        if let State::Hello { inner, input, reader, queues } = &mut self.state {
            let hello = loop {
                let read = reader.read(input, &mut queues.1);
                if read.is_err() && !queues.1.is_empty() {
                    let _ = inner.send(&mut queues.1);
                }
                if let Some(hello) = read.map_err(HandshakeError::Tls)? {
                    break hello;
                }
                match inner.poll_recv(cx, input, HELLO) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => {
                        return Poll::Ready(Err(HandshakeError::Tls(TlsError::EndedInHandshake)));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(HandshakeError::Io(error))),
                    Poll::Pending => {
                        // It holds no chunk of the pool while it waits, and lies in few pieces however many it came in,
                        // which the reader goes through.
                        input.compact();
                        return Poll::Pending;
                    }
                }
            };
            let Some(tls) = choose(&hello) else {
                ClientHello::refuse(&mut queues.1);
                let _ = inner.send(&mut queues.1);
                return Poll::Ready(Err(HandshakeError::NoConfig(hello)));
            };
            let codec = RustlsCodec::server_for(hello, tls.current(), TlsLimits::default());
            let codec = sized(codec, tls.sizing()).map_err(HandshakeError::Tls)?;
            let State::Hello { inner, input, queues, .. } = std::mem::replace(&mut self.state, State::Done)
            else {
                unreachable!("it was a hello")
            };
            self.state = State::Handshake(TlsStream::new(inner, codec, input, queues));
        }
        let State::Handshake(stream) = &mut self.state else { panic!("polled after its end") };
        ready!(stream.poll_handshake(cx))?;
        let State::Handshake(stream) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("it was a handshake")
        };
        Poll::Ready(Ok(stream))
    }
}

/// Received at a time while the hello is awaited.
const HELLO: usize = 16 * 1024;
