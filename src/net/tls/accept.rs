//! The handshakes of one core's clients, so many at a time.
//!
//! ```text
//! accepted --> under way --done--> a Stream over TLS
//!                  --failed, late, crowded out, stopped--> its alert is sent, closed, counted
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use ringport_platform::timer::later;

use super::config::ServerTls;
use super::handshake::{Accepting, HandshakeError};
use super::pending::Pending;
use super::stream::Link;
use super::watch::{Watch, watch};
use crate::net::{Bounded, Peer, Stream};
use crate::proto::tls::ClientHello;
use crate::runtime::{Runtime, Timer};

/// What became of handshakes so far, over all cores of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsListenStats {
    /// Finished.
    pub done: u64,
    /// Failed: the client's fault, or nothing in common with it.
    pub failed: u64,
    /// Not finished in time.
    pub late: u64,
    /// Given up because too many others were under way behind them.
    pub crowded_out: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    crowded_out: AtomicU64,
}

/// Speaks TLS with clients whose connections were taken by a [`Listener`](crate::net::Listener).
///
/// The files of its TLS are read again when they change, for as long as it is kept.
pub struct TlsAcceptor<R: Runtime> {
    runtime: R,
    tls: ServerTls,
    counts: Arc<Counts>,
    choose: RefCell<Option<Rc<Choose>>>,
    /// At most what the spec allows.
    pending: RefCell<Pending>,
    watch: RefCell<Option<Watch>>,
}

type Choose = dyn Fn(&ClientHello, &Peer) -> Option<ServerTls>;

/// A handshake that is under way, until it is dropped.
struct Underway<'a> {
    pending: &'a RefCell<Pending>,
    at: usize,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.pending.borrow_mut().leave(self.at);
    }
}

impl<R: Runtime> TlsAcceptor<R> {
    /// For one core.
    pub fn new(tls: ServerTls, runtime: &R) -> Self {
        TlsAcceptor::counting(tls, runtime, Arc::default())
    }

    pub(super) fn counting(tls: ServerTls, runtime: &R, counts: Arc<Counts>) -> Self {
        TlsAcceptor {
            runtime: runtime.clone(),
            watch: RefCell::new(watch(runtime, &tls)),
            tls,
            counts,
            choose: RefCell::default(),
            pending: RefCell::default(),
        }
    }

    /// As [`TlsListener::choose_by`](super::TlsListener::choose_by).
    pub fn choose_by(&self, choose: impl Fn(&ClientHello, &Peer) -> Option<ServerTls> + 'static) {
        self.choose.replace(Some(Rc::new(choose)));
    }

    /// Its TLS, to be loaded again.
    pub fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// What became of handshakes.
    pub fn stats(&self) -> TlsListenStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { done, failed, late, crowded_out } = &*self.counts;
        TlsListenStats {
            done: read(done),
            failed: read(failed),
            late: read(late),
            crowded_out: read(crowded_out),
        }
    }

    /// Handshakes under way.
    pub fn pending(&self) -> usize {
        self.pending.borrow().len()
    }

    /// Does one handshake. At the limit the oldest that is under way makes room: an honest client takes a few round trips.
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// Why there is none; the client has been told with an alert, where there is one for it, and the connection is closed.
    pub async fn accept(
        &self,
        stream: Stream<Bounded<R>>,
        peer: &Peer,
    ) -> Result<Stream<Link<Bounded<R>>>, HandshakeError> {
        let (at, crowded_out) = {
            let mut pending = self.pending.borrow_mut();
            let is_full = pending.len() >= self.tls.spec().max_pending();
            let crowded_out = if is_full { pending.stop_oldest() } else { None };
            (pending.join(), crowded_out)
        };
        let underway = Underway { pending: &self.pending, at };
        if let Some(waker) = crowded_out {
            waker.wake();
        }
        let shaken = self.shake(stream, peer, &underway).await;
        let counter = match &shaken {
            Ok(_) => &self.counts.done,
            Err(error) => {
                tracing::debug!(client = %peer.client(), "TLS: {error}");
                match error {
                    HandshakeError::TimedOut => &self.counts.late,
                    HandshakeError::CrowdedOut => &self.counts.crowded_out,
                    HandshakeError::Tls(_) | HandshakeError::NoConfig(_) | HandshakeError::Io(_) => {
                        &self.counts.failed
                    }
                }
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        shaken
    }

    async fn shake(
        &self,
        stream: Stream<Bounded<R>>,
        peer: &Peer,
        underway: &Underway<'_>,
    ) -> Result<Stream<Link<Bounded<R>>>, HandshakeError> {
        let runtime = &self.runtime;
        let queues = (runtime.tx_queue(), runtime.tx_queue());
        let choose = self.choose.borrow().clone();
        let mut accepting = match choose {
            None => Accepting::with(stream, &self.tls, queues)?,
            Some(_) => Accepting::chosen(stream, queues),
        };
        let chosen = |hello: &ClientHello| choose.as_ref().and_then(|choose| choose(hello, peer));
        let timeout = self.tls.handshake_timeout();
        let mut timer = timeout.map(|timeout| runtime.timer(later(runtime.now(), timeout)));
        let stream = poll_fn(|cx| {
            if !self.pending.borrow_mut().wait(underway.at, cx.waker()) {
                return Poll::Ready(Err(HandshakeError::CrowdedOut));
            }
            if let Poll::Ready(result) = accepting.poll(cx, &chosen) {
                return Poll::Ready(result);
            }
            let Some(timer) = &mut timer else { return Poll::Pending };
            timer.poll_elapsed(cx).map(|()| Err(HandshakeError::TimedOut))
        })
        .await?;
        Ok(Stream::over(Link::Tls(Box::new(stream)), runtime.tx_queue()))
    }

    /// Gives up all handshakes that are under way, and looks at no file any more.
    pub fn stop(&self) {
        self.watch.replace(None);
        let wakers = self.pending.borrow_mut().stop_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}
