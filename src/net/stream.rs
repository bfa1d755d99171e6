//! A stream with queues of its own, whole or in two halves.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue};
use ringport_platform::timer::later;

use crate::runtime::{ConnectAddr, Listener, LocalAddr, Runtime, Timer, Transport, TxLevel};

/// Unsent bytes above which [`Stream::send`] waits.
const HIGH_WATER: usize = 256 * 1024;

/// How long, and how much, [`Stream::linger`] reads on.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// A connected byte stream.
///
/// Reads and writes are cancel-safe: a dropped [`Stream::recv`] has lost nothing, and what [`Stream::send`] was given
/// belongs to the stream from the call on, whether its future is polled or not.
///
/// Dropping a stream sends what was handed over, within the runtime's linger, and closes. What the peer sent and nobody
/// read makes the kernel reset the connection then, which may overtake the last bytes sent: shut down and read to the
/// end first where that matters.
pub struct Stream<T> {
    transport: T,
    rx: RxQueue,
    tx: TxQueue,
    /// What was unsent when the transport was handed something last; it has not become more since.
    unsent: usize,
    eof: bool,
}

impl<T: Transport> Stream<T> {
    /// Over a transport of `runtime`.
    pub fn new<R: Runtime<Stream = T>>(runtime: &R, transport: T) -> Self {
        Stream::over(transport, runtime.tx_queue())
    }

    /// Over any transport; `tx` is an empty queue of its runtime.
    pub fn over(transport: T, tx: TxQueue) -> Self {
        Stream { transport, rx: RxQueue::new(), tx, unsent: 0, eof: false }
    }

    /// The received bytes that have been pulled and not taken, for machines that parse in place.
    pub fn rx(&mut self) -> &mut RxQueue {
        &mut self.rx
    }

    /// What the next flush sends, for machines that write in place.
    pub fn tx(&mut self) -> &mut TxQueue {
        &mut self.tx
    }

    /// Both queues at once.
    pub fn queues(&mut self) -> (&mut RxQueue, &mut TxQueue) {
        (&mut self.rx, &mut self.tx)
    }

    /// The transport below. Bytes already pulled are in [`Stream::rx`].
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Whether nothing has come since the last read, not even an end: without that an idle connection is not reused.
    pub fn is_quiet(&self) -> bool {
        self.rx.is_empty() && !self.eof && !self.transport.has_news()
    }

    /// Pulls received bytes, at most `max`, into [`Stream::rx`]. `Ok(true)`: more came; `Ok(false)`: the peer has ended.
    ///
    /// Pulling is what lets the peer send more: a caller that pulls without taking has no other limit than its own.
    /// With a `max` of 0 nothing ever comes. Where the pool runs short, what waits for more is copied out of it: the rest of
    /// half a message may never come. What waited before that lies in less than half of the pool's chunks.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<bool>> {
        if self.eof {
            return Poll::Ready(Ok(false));
        }
        match self.transport.poll_recv(cx, &mut self.rx, max) {
            Poll::Ready(more) => Poll::Ready(more.inspect(|more| self.eof = !more)),
            Poll::Pending => {
                if !self.rx.is_empty() && self.tx.is_pool_short() {
                    self.rx.compact();
                }
                Poll::Pending
            }
        }
    }

    /// Pulls the received bytes that wait into [`Stream::rx`]. `Ok(true)`: more came; `Ok(false)`: the peer has ended.
    ///
    /// # Errors
    /// What the peer or the kernel did: `ECONNRESET`, `ETIMEDOUT`.
    pub async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_fill(cx, usize::MAX)).await
    }

    /// The next received bytes, as they lie in the driver's buffer; `None` at the end, and from then on.
    ///
    /// No copy. A view keeps its whole chunk of the pool from being reused: see [`PoolBuf::compact`] for one that is
    /// kept long.
    ///
    /// # Errors
    /// What the peer or the kernel did: `ECONNRESET`, `ETIMEDOUT`. What came before is given first; then the same error
    /// again.
    pub fn recv(&mut self) -> impl Future<Output = io::Result<Option<PoolBuf>>> {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// As [`Stream::recv`].
    #[inline(always)]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        if !self.rx.is_empty() {
            return Poll::Ready(Ok(self.rx.pop(usize::MAX)));
        }
        if self.eof {
            return Poll::Ready(Ok(None));
        }
        let buf = std::task::ready!(self.transport.poll_recv_buf(cx))?;
        self.eof = buf.is_none();
        Poll::Ready(Ok(buf))
    }

    /// Copies exactly `into.len()` bytes.
    ///
    /// Until all have come they wait in [`Stream::rx`]: a dropped future has consumed nothing. Much that waits is copied
    /// out of the pool, so that one long read does not hold the memory that other streams receive into.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer ended before; nothing is consumed then.
    pub async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        while self.rx.len() < into.len() {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.rx.len() > HIGH_WATER {
                self.rx.compact();
            }
        }
        copy_out(&mut self.rx, into);
        Ok(())
    }

    /// Takes a segment (`Bytes`, `Vec<u8>`, `String`, `&'static [u8]` or `str`, a received view) without copying it, starts to send it,
    /// and waits while more than 256 KiB are unsent.
    ///
    /// The segment is kept until the kernel has taken it. Sends of one turn of the core go out together.
    ///
    /// # Errors
    /// What the peer or the kernel did: `EPIPE`, `ECONNRESET`; what was unsent is dropped. An error shows at the first
    /// send or flush after the kernel has told it. `EPIPE` after [`Stream::shutdown`].
    #[inline(always)]
    pub fn send(&mut self, seg: impl Into<Seg>) -> Sending<'_, T> {
        let error = self.start_seg(seg.into()).err();
        Sending { stream: self, error }
    }

    /// Hands over one segment, behind what waits in [`Stream::tx`].
    #[inline(always)]
    fn start_seg(&mut self, seg: Seg) -> io::Result<()> {
        if self.tx.is_empty() {
            self.unsent = self.transport.send_seg(seg)?;
            return Ok(());
        }
        self.tx.push(seg);
        self.start_send()
    }

    /// Takes several segments as one send.
    ///
    /// # Errors
    /// As [`Stream::send`].
    pub async fn send_all(&mut self, segs: impl IntoIterator<Item = Seg>) -> io::Result<()> {
        for seg in segs {
            self.tx.push(seg);
        }
        self.start_send()?;
        if self.unsent <= HIGH_WATER {
            return Ok(());
        }
        poll_fn(|cx| self.transport.poll_sent(cx, TxLevel::Below(HIGH_WATER))).await
    }

    /// Hands [`Stream::tx`] to the transport; never waits.
    ///
    /// # Errors
    /// What an earlier send met.
    pub fn start_send(&mut self) -> io::Result<()> {
        self.unsent = self.transport.send(&mut self.tx)?;
        Ok(())
    }

    /// Hands [`Stream::tx`] over and waits until at most as much as `level` allows is unsent.
    ///
    /// Where that is known already the transport is not asked, and a fault that it met meanwhile shows later.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        if !self.tx.is_empty() {
            self.start_send()?;
        }
        match level {
            TxLevel::Below(mark) if self.unsent <= mark => Poll::Ready(Ok(())),
            TxLevel::Below(_) | TxLevel::Empty => self.transport.poll_sent(cx, level),
        }
    }

    /// Waits until at most `max` bytes are unsent, those in [`Stream::tx`] among them, which stay there while they are few:
    /// for who answers several requests and sends the answers together.
    ///
    /// Who waits for anything else must have handed them over before: [`Stream::start_send`].
    #[inline]
    pub fn poll_room(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<()>> {
        if self.unsent + self.tx.len() <= max {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx, TxLevel::Below(max))
    }

    /// Sends what waits, and waits until the kernel has everything. The peer may have read none of it yet.
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx, TxLevel::Empty)).await
    }

    /// Sends what waits, and what `TCP_CORK` holds back, at once instead of after 200 ms; later bytes are held back again.
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn release_cork(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.transport.release_cork()
    }

    /// Sends what waits, then tells the peer that nothing more comes; receiving goes on. It may come again.
    ///
    /// Dropped before it is done, what waits is sent, and the peer is told nothing.
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.start_send()?;
        poll_fn(|cx| self.transport.poll_shutdown(cx)).await
    }

    /// Ends a connection whose peer may still be sending: sends what waits, which may take `timeout`, ends our side, and throws
    /// away what comes for a moment, 2 s and 1 MiB at most. Closed with unread bytes, the connection would be reset, and the peer
    /// would lose what was sent last. RFC 9112 9.6. Drop the stream then.
    pub async fn linger<R: Runtime>(&mut self, runtime: &R, timeout: Duration) {
        if self.start_send().is_err() {
            return;
        }
        let mut timer = runtime.timer(later(runtime.now(), timeout));
        let ended = poll_fn(|cx| match self.transport.poll_shutdown(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.is_ok()),
            Poll::Pending => timer.poll_elapsed(cx).map(|()| false),
        });
        if !ended.await {
            return;
        }
        timer.reset(later(runtime.now(), LINGER_TIME));
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            while left > 0 {
                let waiting = self.rx.len();
                self.rx.consume(waiting);
                left = left.saturating_sub(waiting);
                match self.poll_fill(cx, LINGER_BYTES) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return timer.poll_elapsed(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// The peer's address. One system call.
    ///
    /// # Errors
    /// `ENOTCONN` when the peer is gone.
    pub fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.transport.peer_addr()
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.transport.local_addr()
    }

    /// Drops what waits and resets the connection, so that the peer cannot take what it got for the whole.
    ///
    /// Unix sockets know no reset: their peer reads an end.
    pub fn reset(mut self) {
        self.transport.reset_on_drop();
    }

    /// The transport and what was pulled from it; what waits to be sent must have been handed over.
    pub(super) fn into_parts(self) -> (T, RxQueue) {
        debug_assert!(self.tx.is_empty(), "it is handed over");
        (self.transport, self.rx)
    }

    /// Two halves that may live in two tasks of this core. The connection closes when both are gone.
    pub fn split(self) -> (ReadHalf<T>, WriteHalf<T>) {
        let Stream { transport, rx, tx, eof, .. } = self;
        let transport = Rc::new(RefCell::new(transport));
        (ReadHalf { transport: transport.clone(), rx, eof }, WriteHalf { transport, tx })
    }
}

/// What [`Stream::send`] gives: waits while too much is unsent. Dropping it takes nothing back.
#[must_use = "nobody waits for a slow peer"]
pub struct Sending<'a, T> {
    stream: &'a mut Stream<T>,
    error: Option<io::Error>,
}

impl<T: Transport> Future for Sending<'_, T> {
    type Output = io::Result<()>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(error) = this.error.take() {
            return Poll::Ready(Err(error));
        }
        if this.stream.unsent <= HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        this.stream.transport.poll_sent(cx, TxLevel::Below(HIGH_WATER))
    }
}

/// Moves the first `into.len()` bytes, which are there.
fn copy_out(rx: &mut RxQueue, into: &mut [u8]) {
    let mut filled = 0;
    while filled < into.len() {
        let count = rx.front().len().min(into.len() - filled);
        into[filled..filled + count].copy_from_slice(&rx.front()[..count]);
        rx.consume(count);
        filled += count;
    }
}

/// The receiving half of a [`Stream`]. Dropping it alone tells the peer nothing; bytes that come are held back.
pub struct ReadHalf<T> {
    transport: Rc<RefCell<T>>,
    rx: RxQueue,
    eof: bool,
}

impl<T: Transport> ReadHalf<T> {
    /// As [`Stream::recv`].
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn recv(&mut self) -> io::Result<Option<PoolBuf>> {
        loop {
            if let Some(buf) = self.rx.pop(usize::MAX) {
                return Ok(Some(buf));
            }
            if self.eof {
                return Ok(None);
            }
            let (transport, rx) = (&self.transport, &mut self.rx);
            self.eof = !poll_fn(|cx| transport.borrow_mut().poll_recv(cx, rx, usize::MAX)).await?;
        }
    }
}

/// The sending half of a [`Stream`]. Dropping it alone tells the peer nothing: see [`WriteHalf::shutdown`].
pub struct WriteHalf<T> {
    transport: Rc<RefCell<T>>,
    tx: TxQueue,
}

impl<T: Transport> WriteHalf<T> {
    /// As [`Stream::send`].
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn send(&mut self, seg: impl Into<Seg>) -> io::Result<()> {
        self.tx.push(seg);
        if self.transport.borrow_mut().send(&mut self.tx)? <= HIGH_WATER {
            return Ok(());
        }
        poll_fn(|cx| self.transport.borrow_mut().poll_sent(cx, TxLevel::Below(HIGH_WATER))).await
    }

    /// As [`Stream::flush`].
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.transport.borrow_mut().poll_sent(cx, TxLevel::Empty)).await
    }

    /// As [`Stream::shutdown`].
    ///
    /// # Errors
    /// What the peer or the kernel did.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.transport.borrow_mut().poll_shutdown(cx)).await
    }
}

/// A connection to `addr` as a [`Stream`]. Dropping the future cancels it.
///
/// # Errors
/// What the peer or the kernel did: `ECONNREFUSED`, `ENOENT`, `ETIMEDOUT`.
pub async fn connect<R: Runtime>(runtime: &R, addr: &ConnectAddr) -> io::Result<Stream<R::Stream>> {
    let transport = runtime.connect(addr).await?;
    Ok(Stream::new(runtime, transport))
}

/// The next connection of `listener` as a [`Stream`]. Dropping the future loses none.
///
/// Running out of descriptors is no error: the listener pauses and goes on when there are some.
///
/// # Errors
/// What the kernel says of the listening socket, or of a connection that the driver cannot watch; the next may work.
pub async fn accept<R: Runtime>(runtime: &R, listener: &mut R::Listener) -> io::Result<Stream<R::Stream>> {
    let transport = poll_fn(|cx| listener.poll_accept(cx)).await?;
    Ok(Stream::new(runtime, transport))
}
