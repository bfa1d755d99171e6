//! hyper reads the same bytes: every request that we take, it takes too, with the same method, target and body.
//!
//! The other way round does not hold: hyper is more lenient, and goes on where we refuse.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use hyper::body::{Body, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::requests::serve;
use super::roundtrip::noise;

/// Method, target, body.
type Requests = Vec<(String, String, String)>;

/// Input that never ends, and output that nobody reads.
struct MemoryIo(Vec<u8>);

impl hyper::rt::Read for MemoryIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let len = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..len]);
        self.0.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for MemoryIo {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The requests that hyper reads to their end.
fn hyper_reads(bytes: &[u8]) -> Requests {
    let log = Rc::new(RefCell::new(Requests::new()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let log = log.clone();
        async move {
            let (parts, body) = request.into_parts();
            let mut body = pin!(body);
            let mut text = String::new();
            while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                let Ok(frame) = frame else { return Ok::<_, Infallible>(http::Response::new(String::new())) };
                if let Some(data) = frame.data_ref() {
                    text += &String::from_utf8_lossy(data);
                }
            }
            log.borrow_mut().push((parts.method.to_string(), parts.uri.to_string(), text));
            Ok(http::Response::new(String::new()))
        }
    });
    let mut conn =
        pin!(Builder::new().header_read_timeout(None).serve_connection(MemoryIo(bytes.to_vec()), service));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    while woken.0.swap(false, Ordering::Relaxed) {
        if conn.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            break;
        }
    }
    log.take()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hyper_agrees_on_what_we_take(noise in noise()) {
        // What follows CONNECT is not HTTP.
        let len = noise.windows(7).position(|part| part == b"CONNECT").unwrap_or(noise.len());
        let noise = &noise[..len];
        let ours = serve(noise, usize::MAX);
        let ours = &ours.requests[..ours.whole_count];
        let theirs = hyper_reads(noise);
        prop_assert!(theirs.len() >= ours.len(), "we {ours:?}, hyper {theirs:?}");
        prop_assert_eq!(ours, &theirs[..ours.len()]);
    }
}
