//! Connections whose PROXY header is still to come: each is read by a task of its own, so that none waits for another.
//!
//! ```text
//! taken --its peer may not send one--> denied
//!       --reading--> header, client let in --> ready --> accept
//!                    header, client kept out --> denied
//!                    malformed, ended, late, crowded out --> closed
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::limits::{Shared, count};
use super::{Bounded, Peer, lets_in};
use crate::net::{PeerFilter, Stream};
use crate::proto::proxy_protocol::{Accepts, Header, Version};
use crate::runtime::{LocalAddr, Runtime, Timer};
use crate::spec::{ProxyProtocol, ProxyProtocolVersion};

/// What is asked of a header.
#[derive(Debug)]
pub(super) struct HeaderRules {
    accepts: Accepts,
    timeout: Duration,
    /// Connections of one part that may wait for their header, or behind it for accept.
    max_pending: usize,
    /// Who may send one.
    trusted: PeerFilter,
}

impl HeaderRules {
    pub(super) fn new(spec: &ProxyProtocol) -> Self {
        let version = match spec.version {
            ProxyProtocolVersion::Any => None,
            ProxyProtocolVersion::V1 => Some(Version::V1),
            ProxyProtocolVersion::V2 => Some(Version::V2),
        };
        HeaderRules {
            accepts: Accepts { version, max_len: spec.max_header_bytes as usize },
            timeout: spec.timeout,
            max_pending: spec.max_pending as usize,
            trusted: PeerFilter::new(&spec.trusted, &[]),
        }
    }

    pub(super) fn trusts(&self, peer: &LocalAddr) -> bool {
        lets_in(&self.trusted, peer)
    }
}

/// The connections of one part that have not come to accept.
pub(super) struct Headers<R: Runtime> {
    shared: Arc<Shared>,
    ready: RefCell<VecDeque<(Stream<Bounded<R>>, Peer)>>,
    /// The oldest first.
    reading: RefCell<VecDeque<Rc<Reading>>>,
    acceptor: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Reading {
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl<R: Runtime> Headers<R> {
    pub(super) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Headers {
            shared,
            ready: RefCell::default(),
            reading: RefCell::default(),
            acceptor: RefCell::default(),
        })
    }

    /// Connections that have not come to accept.
    pub(super) fn pending(&self) -> usize {
        self.reading.borrow().len() + self.ready.borrow().len()
    }

    /// A connection whose header has come.
    pub(super) fn poll_ready(&self, cx: &Context<'_>) -> Poll<(Stream<Bounded<R>>, Peer)> {
        if let Some(next) = self.ready.borrow_mut().pop_front() {
            return Poll::Ready(next);
        }
        self.acceptor.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Starts to read a connection's header, as these rules ask for one.
    pub(super) fn start(
        self: &Rc<Self>,
        runtime: &R,
        rules: (&Arc<HeaderRules>, &Arc<PeerFilter>),
        mut stream: Stream<Bounded<R>>,
        connection: LocalAddr,
    ) {
        if self.pending() >= rules.0.max_pending
            && let Some(oldest) = self.reading.borrow_mut().pop_front()
        {
            count(&self.shared.counts.crowded_out);
            oldest.stop();
        }
        let reading = Rc::new(Reading::default());
        self.reading.borrow_mut().push_back(reading.clone());
        let (all, runtime_of_task) = (self.clone(), runtime.clone());
        let (rules, clients) = (rules.0.clone(), rules.1.clone());
        runtime.spawn(async move {
            let read = all.read(&runtime_of_task, &rules, &mut stream, &reading).await;
            all.reading.borrow_mut().retain(|other| !Rc::ptr_eq(other, &reading));
            match read {
                Ok(header) => all.complete(&clients, stream, Peer::behind(connection, header)),
                Err(Some(counter)) => count(counter(&all.shared)),
                // Counted by whoever stopped it.
                Err(None) => {}
            }
            // Also where there is no connection: what waited for its place, or for the last of them, goes on.
            if let Some(acceptor) = all.acceptor.take() {
                acceptor.wake();
            }
        });
    }

    fn complete(&self, clients: &PeerFilter, stream: Stream<Bounded<R>>, peer: Peer) {
        // A client without an address is in no range, whatever the connection came over.
        let let_in = match peer.client() {
            LocalAddr::Inet(_) => lets_in(clients, peer.client()),
            LocalAddr::Unix(_) => clients.allows_others(),
        };
        if !let_in {
            count(&self.shared.counts.denied);
            return;
        }
        self.ready.borrow_mut().push_back((stream, peer));
    }

    /// The header, or which counter tells why there is none.
    async fn read(
        &self,
        runtime: &R,
        rules: &HeaderRules,
        stream: &mut Stream<Bounded<R>>,
        reading: &Reading,
    ) -> Result<Header, Option<fn(&Shared) -> &AtomicU64>> {
        let mut timer = runtime.timer(runtime.now() + rules.timeout);
        let accepts = rules.accepts;
        let bad: fn(&Shared) -> &AtomicU64 = |shared| &shared.counts.bad_header;
        poll_fn(|cx| {
            if reading.stopped.get() {
                return Poll::Ready(Err(None));
            }
            reading.waker.replace(Some(cx.waker().clone()));
            loop {
                let len = stream.rx().len().min(accepts.most());
                match Header::parse(stream.rx().gather(len), accepts) {
                    Ok(Some((header, len))) => {
                        stream.rx().consume(len);
                        return Poll::Ready(Ok(header));
                    }
                    Ok(None) if len < accepts.most() => {}
                    Ok(None) | Err(_) => return Poll::Ready(Err(Some(bad))),
                }
                if timer.poll_elapsed(cx).is_ready() {
                    return Poll::Ready(Err(Some(|shared| &shared.counts.late_header)));
                }
                match ready!(stream.poll_fill(cx, accepts.most() - len)) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Poll::Ready(Err(Some(bad))),
                }
            }
        })
        .await
    }

    /// Closes all of them.
    pub(super) fn stop(&self) {
        self.reading.borrow_mut().drain(..).for_each(|reading| reading.stop());
        // Dropped outside of the borrow.
        let ready = self.ready.take();
        drop(ready);
    }
}

impl Reading {
    fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
