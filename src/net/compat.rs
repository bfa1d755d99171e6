//! Streams for code written against the ready-based traits of futures-io and tokio. Each costs one copy a direction.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::stream::Stream;
use crate::runtime::{Transport, TxLevel};

/// Unsent bytes above which writes wait.
const HIGH_WATER: usize = 64 * 1024;

/// A [`Stream`] with `AsyncRead` and `AsyncWrite` of futures-io and of tokio.
///
/// Reads copy out of the driver's buffers, writes copy into them. A write takes at most 64 KiB, waits while more than that
/// is unsent, and goes out with the turn; `poll_flush` waits until the kernel has it. Closing (`poll_close`,
/// `poll_shutdown`) ends the sending side and may come again; a write after it fails with `BrokenPipe`.
///
/// Not `Send`, as the stream inside is not. `is_write_vectored` is false: gather first.
pub struct CompatStream<T>(Stream<T>);

impl<T: Transport> CompatStream<T> {
    /// Wraps a stream.
    pub fn new(stream: Stream<T>) -> Self {
        CompatStream(stream)
    }

    /// The stream again; nothing is lost.
    pub fn into_inner(self) -> Stream<T> {
        self.0
    }

    /// Copies what has come, at most `room` bytes, with `put`. No room is no reason to wait.
    fn read_some(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        put: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let fill = room > 0 && self.0.rx().is_empty();
        if fill && !std::task::ready!(self.0.poll_fill(cx, usize::MAX))? {
            return Poll::Ready(Ok(0));
        }
        let bytes = self.0.rx().front();
        let count = bytes.len().min(room);
        put(&bytes[..count]);
        self.0.rx().consume(count);
        Poll::Ready(Ok(count))
    }

    fn write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.0.poll_flush(cx, TxLevel::Below(HIGH_WATER)))?;
        let count = bytes.len().min(HIGH_WATER);
        self.0.tx().put_slice(&bytes[..count]);
        self.0.start_send()?;
        Poll::Ready(Ok(count))
    }

    fn flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx, TxLevel::Empty)
    }

    fn shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.start_send()?;
        self.0.transport().poll_shutdown(cx)
    }
}

impl<T: Transport + Unpin> futures_io::AsyncRead for CompatStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.get_mut().read_some(cx, buf.len(), |bytes| buf[..bytes.len()].copy_from_slice(bytes))
    }
}

impl<T: Transport + Unpin> futures_io::AsyncWrite for CompatStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write_some(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shut(cx)
    }
}

impl<T: Transport + Unpin> tokio::io::AsyncRead for CompatStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().read_some(cx, buf.remaining(), |bytes| buf.put_slice(bytes)).map_ok(drop)
    }
}

impl<T: Transport + Unpin> tokio::io::AsyncWrite for CompatStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write_some(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().flush_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shut(cx)
    }
}
