//! `AsyncRead` and `AsyncWrite`, of tokio and of futures-io, over a stream.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::Poll;

use ringport::net::CompatStream;
use ringport::runtime::native::NativeStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};

use super::rig::{Pattern, each, families, join, pair, pair_at, read_all};

type Compat = CompatStream<NativeStream>;

#[test]
fn tokio_code_reads_and_writes() {
    each(async |runtime| {
        for addr in families() {
            let (near, far) = pair_at(&runtime, &addr).await;
            let (mut near, mut far) = (CompatStream::new(near), CompatStream::new(far));
            near.write_all(b"one two three").await.expect("open");
            near.flush().await.expect("open");
            let mut three = [0; 3];
            far.read_exact(&mut three).await.expect("it comes");
            assert_eq!(&three, b"one");
            // A part of what waits, then the rest.
            let mut rest = [0; 100];
            assert_eq!(far.read(&mut rest[..5]).await.expect("open"), 5);
            assert_eq!(far.read(&mut rest[5..]).await.expect("open"), 5);
            assert_eq!(&rest[..10], b" two three");
            assert_eq!(near.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"x")]).await.expect("open"), 1);
            near.shutdown().await.expect("open");
            near.shutdown().await.expect("again");
            near.flush().await.expect("nothing waits");
            assert_eq!(near.write(b"y").await.expect_err("shut").kind(), io::ErrorKind::BrokenPipe);
            let mut end = Vec::new();
            far.read_to_end(&mut end).await.expect("in order");
            assert_eq!(end, b"x");
            assert_eq!(far.read(&mut rest).await.expect("the end stays"), 0);
        }
    });
}

/// Client, proxy of tokio's, origin: everything arrives both ways, and each end is passed on by itself.
#[test]
fn tokio_copies_between_streams() {
    each(async |runtime| {
        let ((mut client, front), (back, mut origin)) = (pair(&runtime).await, pair(&runtime).await);
        let proxy = runtime.core().spawn(async move {
            let (mut front, mut back) = (CompatStream::new(front), CompatStream::new(back));
            copy_bidirectional(&mut front, &mut back).await.expect("in order")
        });
        let asks = async {
            for part in Pattern::new(11).take(3 << 20).chunks(70_001) {
                client.send(part.to_vec()).await.expect("open");
            }
            client.shutdown().await.expect("open");
            let answer = read_all(&mut client).await;
            assert_eq!(answer.len(), 2 << 20);
            Pattern::new(12).check(&answer);
        };
        let answers = async {
            let asked = read_all(&mut origin).await;
            assert_eq!(asked.len(), 3 << 20);
            Pattern::new(11).check(&asked);
            for part in Pattern::new(12).take(2 << 20).chunks(1000) {
                origin.send(part.to_vec()).await.expect("open");
            }
            origin.shutdown().await.expect("open");
        };
        join(asks, answers).await;
        assert_eq!(proxy.await.expect("it ends"), (3 << 20, 2 << 20));
    });
}

#[test]
fn a_writer_waits_for_a_peer_that_does_not_read() {
    each(async |runtime| {
        let (near, mut far) = pair(&runtime).await;
        let mut near = CompatStream::new(near);
        let source = Pattern::new(13).take(16 << 20);
        let mut written = 0;
        // As much as the kernel and the stream take while nobody reads.
        let full = poll_fn(|cx| {
            while written < source.len() {
                let write = tokio::io::AsyncWrite::poll_write(Pin::new(&mut near), cx, &source[written..]);
                match write {
                    Poll::Ready(count) => written += count.expect("open"),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(written)
        });
        assert!(full.await <= 128 * 1024, "{written} bytes were taken before a turn");
        let write = async {
            near.write_all(&source[written..]).await.expect("open");
            near.shutdown().await.expect("open");
        };
        let (_, read) = join(write, read_all(&mut far)).await;
        assert!(read == source);
    });
}

#[test]
fn futures_io_code_reads_and_writes() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let (mut near, mut far) = (CompatStream::new(near), CompatStream::new(far));
        let source = Pattern::new(14).take(1_000_000);
        let write = async {
            let mut left = &source[..];
            while !left.is_empty() {
                left = &left[fut::write(&mut near, left).await.expect("open")..];
            }
            fut::flush(&mut near).await.expect("open");
            fut::close(&mut near).await.expect("open");
            fut::close(&mut near).await.expect("again");
        };
        let read = async {
            let (mut pattern, mut count, mut buf) = (Pattern::new(14), 0, [0; 777]);
            loop {
                match fut::read(&mut far, &mut buf).await.expect("in order") {
                    0 => return count,
                    read => {
                        pattern.check(&buf[..read]);
                        count += read;
                    }
                }
            }
        };
        let (_, count) = join(write, read).await;
        assert_eq!(count, 1_000_000);
    });
}

/// The traits of futures-io have the names of tokio's.
mod fut {
    use super::{Compat, Pin, io, poll_fn};
    use futures_io::{AsyncRead, AsyncWrite};

    pub(super) async fn read(stream: &mut Compat, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| AsyncRead::poll_read(Pin::new(&mut *stream), cx, buf)).await
    }

    pub(super) async fn write(stream: &mut Compat, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| AsyncWrite::poll_write(Pin::new(&mut *stream), cx, bytes)).await
    }

    pub(super) async fn flush(stream: &mut Compat) -> io::Result<()> {
        poll_fn(|cx| AsyncWrite::poll_flush(Pin::new(&mut *stream), cx)).await
    }

    pub(super) async fn close(stream: &mut Compat) -> io::Result<()> {
        poll_fn(|cx| AsyncWrite::poll_close(Pin::new(&mut *stream), cx)).await
    }
}

/// A read into no room is done at once, although nothing has come.
#[test]
fn a_read_of_nothing_does_not_wait() {
    each(async |runtime| {
        let (near, _far) = pair(&runtime).await;
        let mut near = CompatStream::new(near);
        assert_eq!(near.read(&mut []).await.expect("open"), 0);
        assert_eq!(fut::read(&mut near, &mut []).await.expect("open"), 0);
    });
}

#[test]
fn the_stream_inside_goes_on_where_the_wrapper_stopped() {
    each(async |runtime| {
        let (near, mut far) = pair(&runtime).await;
        far.send(&b"head and body"[..]).await.expect("open");
        let mut near = CompatStream::new(near);
        let mut head = [0; 4];
        near.read_exact(&mut head).await.expect("it comes");
        near.write_all(b"wrapped, ").await.expect("open");
        let mut near = near.into_inner();
        assert_eq!(&*near.recv().await.expect("open").expect("bytes"), b" and body");
        near.send(&b"then plain"[..]).await.expect("open");
        let mut nineteen = [0; 19];
        far.read_exact(&mut nineteen).await.expect("all of it comes");
        assert_eq!(&nineteen, b"wrapped, then plain");

        let mut near = CompatStream::new(near);
        drop(far);
        assert_eq!(copy(&mut near, &mut tokio::io::sink()).await.expect("in order"), 0);
    });
}
