//! A transport over another, with TLS between.

use std::io;
use std::task::{Context, Poll, ready};

use ringport_platform::sockopt::{ApplyError, OptSet, Stage, Target};

use super::HandshakeError;
use crate::buf::{PoolBuf, RxQueue, Seg, TxQueue};
use crate::net::Stream;
use crate::proto::tls::{RecordSizing, RustlsCodec, TlsCodec, TlsError, TlsInfo, TlsPhase};
use crate::runtime::{LocalAddr, Runtime, Splice, Transport, TxLevel};

/// A transport over another, with TLS between. One that is at hand has its handshake behind it.
///
/// Errors of TLS are [`io::Error`]s that carry the [`TlsError`]; see [`TlsStream::error_of`]. An end of the transport below
/// without the peer's close_notify is one of them, `UnexpectedEof`: what came may not be the whole.
///
/// A shutdown sends close_notify and then ends the transport below; reading goes on. Dropping it sends what was handed over and
/// no close_notify, so that the peer knows that there may have been more.
pub struct TlsStream<T> {
    inner: T,
    codec: RustlsCodec,
    /// Received, and not yet a whole record; at most a receive and a record.
    input: RxQueue,
    /// Deciphered and not yet taken; at most [`MOST`] and a record.
    plain: RxQueue,
    /// Empty between calls: the one segment of [`Transport::send_seg`].
    single: TxQueue,
    /// Empty between calls: what goes to the transport below.
    output: TxQueue,
    ended: bool,
}

/// Received at a time, and deciphered before it is taken.
const MOST: usize = 64 * 1024;

impl<T: Transport> TlsStream<T> {
    /// Before its handshake; `input` is what has come already, `queues` are empty ones of the runtime.
    pub(super) fn new(inner: T, codec: RustlsCodec, input: RxQueue, queues: (TxQueue, TxQueue)) -> Self {
        let (single, output) = queues;
        TlsStream { inner, codec, input, plain: RxQueue::new(), single, output, ended: false }
    }

    /// What the two sides agreed on.
    pub fn info(&self) -> TlsInfo<'_> {
        self.codec.info().expect("its handshake is behind it")
    }

    /// Encrypts with new keys from here on, and asks the peer to; the next send takes it along.
    ///
    /// # Errors
    /// TLS 1.2 has no such thing.
    pub fn refresh_keys(&mut self) -> Result<(), TlsError> {
        let result = self.codec.refresh_keys(&mut self.output);
        // What the transport below met shows at the next send.
        let _ = self.inner.send(&mut self.output);
        result
    }

    /// The transport below.
    pub fn inner(&mut self) -> &mut T {
        &mut self.inner
    }

    /// What TLS says in an error of this transport.
    pub fn error_of(error: &io::Error) -> Option<&TlsError> {
        error.get_ref()?.downcast_ref()
    }

    /// Until both sides have finished the handshake.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandshakeError>> {
        loop {
            let phase = self.read(MOST);
            // An alert is part of the output; what the transport met is told by a receive.
            let sent = self.inner.send(&mut self.output);
            if phase.map_err(HandshakeError::Tls)? != TlsPhase::Handshake {
                return Poll::Ready(Ok(()));
            }
            sent.map_err(HandshakeError::Io)?;
            if self.ended {
                let end = self.codec.read_end().err().unwrap_or(TlsError::EndedInHandshake);
                return Poll::Ready(Err(HandshakeError::Tls(end)));
            }
            ready!(self.poll_input(cx)).map_err(HandshakeError::Io)?;
        }
    }

    fn read(&mut self, max: usize) -> Result<TlsPhase, TlsError> {
        self.codec.read(&mut self.input, &mut self.plain, max, &mut self.output)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.inner.poll_recv(cx, &mut self.input, MOST) {
            Poll::Ready(is_there) => Poll::Ready(is_there.map(|is_there| self.ended = !is_there)),
            Poll::Pending => {
                // Its peer may never send the rest of a record. What was kept before lies in less than half of the chunks.
                if self.output.is_pool_short() {
                    self.input.compact();
                }
                Poll::Pending
            }
        }
    }

    /// Deciphers until there is something to take; whether there is, or the peer has ended.
    fn poll_plain(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<bool>> {
        loop {
            if !self.plain.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let phase = self.read(max.min(MOST));
            if !self.output.is_empty() {
                // A failure of it shows at a send, or as an end.
                let _ = self.inner.send(&mut self.output);
            }
            let phase = phase.map_err(to_io)?;
            if !self.plain.is_empty() {
                continue;
            }
            if matches!(phase, TlsPhase::PeerClosed | TlsPhase::Closed) {
                return Poll::Ready(Ok(false));
            }
            if self.ended {
                self.codec.read_end().map_err(to_io)?;
            }
            ready!(self.poll_input(cx))?;
        }
    }
}

/// With the kind that comes nearest.
fn to_io(error: TlsError) -> io::Error {
    let kind = match &error {
        TlsError::Truncated | TlsError::EndedInHandshake => io::ErrorKind::UnexpectedEof,
        TlsError::WriteClosed => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

impl<T: Transport> Transport for TlsStream<T> {
    #[inline(never)]
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>> {
        let is_there = ready!(self.poll_plain(cx, max))?;
        into.take_from(&mut self.plain, max);
        Poll::Ready(Ok(is_there))
    }

    #[inline(never)]
    fn poll_recv_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        ready!(self.poll_plain(cx, usize::MAX))?;
        Poll::Ready(Ok(self.plain.pop(usize::MAX)))
    }

    #[inline(never)]
    fn send(&mut self, from: &mut TxQueue) -> io::Result<usize> {
        let written = self.codec.write(from, &mut self.output);
        from.clear();
        let sent = self.inner.send(&mut self.output);
        written.map_err(to_io)?;
        sent
    }

    #[inline(never)]
    fn send_seg(&mut self, seg: Seg) -> io::Result<usize> {
        self.single.push(seg);
        let written = self.codec.write(&mut self.single, &mut self.output);
        self.single.clear();
        let sent = self.inner.send(&mut self.output);
        written.map_err(to_io)?;
        sent
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        self.inner.poll_sent(cx, level)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.codec.close(&mut self.output).map_err(to_io)?;
        if !self.output.is_empty() {
            self.inner.send(&mut self.output)?;
        }
        self.inner.poll_shutdown(cx)
    }

    /// Also of records that bring no data, such as tickets: what is certain is only that nothing has come at all.
    fn has_news(&self) -> bool {
        !self.plain.is_empty() || !self.input.is_empty() || self.ended || self.inner.has_news()
    }

    /// `None`: what goes past user space is not encrypted.
    fn splice_to(&self, _to: &Self) -> Option<Splice> {
        None
    }

    fn set_rx_limit(&mut self, bytes: u32) {
        self.inner.set_rx_limit(bytes);
    }

    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.inner.set_options(options, stage, target)
    }

    fn release_cork(&self) -> io::Result<()> {
        self.inner.release_cork()
    }

    fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.inner.peer_addr()
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        self.inner.local_addr()
    }

    fn reset_on_drop(&mut self) {
        self.inner.reset_on_drop();
    }
}

/// A transport, with TLS or without it, as a spec says.
pub enum Link<T> {
    /// Without.
    Plain(T),
    /// With.
    Tls(Box<TlsStream<T>>),
}

impl<T: Transport> Stream<T> {
    /// The same connection, for who takes it with TLS and without. What was received and not taken goes along.
    pub fn over_link<R: Runtime>(self, runtime: &R) -> Stream<Link<T>> {
        let (inner, input) = self.into_parts();
        let mut stream = Stream::over(Link::Plain(inner), runtime.tx_queue());
        *stream.rx() = input;
        stream
    }
}

impl<T: Transport> Link<T> {
    /// What the two sides agreed on; `None` without TLS.
    pub fn tls(&self) -> Option<TlsInfo<'_>> {
        match self {
            Link::Plain(_) => None,
            Link::Tls(stream) => Some(stream.info()),
        }
    }

    /// The transport below.
    #[inline]
    pub fn inner(&mut self) -> &mut T {
        match self {
            Link::Plain(inner) => inner,
            Link::Tls(stream) => stream.inner(),
        }
    }

    fn shared(&self) -> &T {
        match self {
            Link::Plain(inner) => inner,
            Link::Tls(stream) => &stream.inner,
        }
    }
}

impl<T: Transport> Transport for Link<T> {
    #[inline(always)]
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>> {
        match self {
            Link::Plain(inner) => inner.poll_recv(cx, into, max),
            Link::Tls(stream) => stream.poll_recv(cx, into, max),
        }
    }

    #[inline(always)]
    fn poll_recv_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        match self {
            Link::Plain(inner) => inner.poll_recv_buf(cx),
            Link::Tls(stream) => stream.poll_recv_buf(cx),
        }
    }

    #[inline(always)]
    fn send(&mut self, from: &mut TxQueue) -> io::Result<usize> {
        match self {
            Link::Plain(inner) => inner.send(from),
            Link::Tls(stream) => stream.send(from),
        }
    }

    #[inline(always)]
    fn send_seg(&mut self, seg: Seg) -> io::Result<usize> {
        match self {
            Link::Plain(inner) => inner.send_seg(seg),
            Link::Tls(stream) => stream.send_seg(seg),
        }
    }

    #[inline(always)]
    fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        self.inner().poll_sent(cx, level)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Link::Plain(inner) => inner.poll_shutdown(cx),
            Link::Tls(stream) => stream.poll_shutdown(cx),
        }
    }

    #[inline(always)]
    fn has_news(&self) -> bool {
        match self {
            Link::Plain(inner) => inner.has_news(),
            Link::Tls(stream) => stream.has_news(),
        }
    }

    fn splice_to(&self, to: &Self) -> Option<Splice> {
        match (self, to) {
            (Link::Plain(from), Link::Plain(to)) => from.splice_to(to),
            (Link::Tls(_), _) | (_, Link::Tls(_)) => None,
        }
    }

    fn set_rx_limit(&mut self, bytes: u32) {
        self.inner().set_rx_limit(bytes);
    }

    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.shared().set_options(options, stage, target)
    }

    fn release_cork(&self) -> io::Result<()> {
        self.shared().release_cork()
    }

    fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.shared().peer_addr()
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        self.shared().local_addr()
    }

    fn reset_on_drop(&mut self) {
        self.inner().reset_on_drop();
    }
}

/// A codec with the lengths of records that a spec asks for.
pub(super) fn sized(
    codec: Result<RustlsCodec, TlsError>,
    sizing: RecordSizing,
) -> Result<RustlsCodec, TlsError> {
    codec.map(|codec| codec.with_sizing(sizing))
}
