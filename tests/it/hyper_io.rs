//! hyper over our streams: the tokio wrapper under hyper's own traits, and a body of given parts.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::ReadBufCursor;
use ringport::net::CompatStream;
use ringport::runtime::native::NativeStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::rig::TcpStream;

pub(crate) struct Io(CompatStream<NativeStream>);

impl Io {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Io(CompatStream::new(stream))
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut room = [0; 8192];
        let len = buf.remaining().min(room.len());
        let mut read = ReadBuf::new(&mut room[..len]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut read))?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A body of these parts, and perhaps trailers. Its length is told only if it is one part.
#[derive(Default)]
pub(crate) struct Parts {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    len: Option<u64>,
}

impl Parts {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Parts { len: Some(bytes.len() as u64), data: VecDeque::from([bytes]), trailers: None }
    }

    pub(crate) fn chunked(data: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> Self {
        Parts { data: data.into_iter().collect(), trailers, len: None }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.len.map_or_else(hyper::body::SizeHint::default, hyper::body::SizeHint::with_exact)
    }
}

/// Reads a body of hyper's to its end.
pub(crate) async fn collect(mut body: Incoming) -> hyper::Result<(Vec<u8>, Option<HeaderMap>)> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}
