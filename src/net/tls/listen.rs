//! Listeners over TLS, where a spec asks for it.
//!
//! ```text
//! accepted by the listener below (who is let in, limits, PROXY header) --TLS--> handshake, beside the others
//!     handshake --done--> ready --accept--> a Stream
//!               --failed, late, crowded out--> its alert is sent, closed, counted
//! ```
//!
//! A connection in its handshake counts as one of those that its listener may have.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use ringport_platform::timer::later;

use super::config::ServerTls;
use super::handshake::{Accepting, HandshakeError};
use super::load::LoadErrors;
use super::stream::Link;
use super::watch::{Watch, watch};
use crate::net::{AcceptError, Bounded, ListenError, ListenHandle, ListenPart, Listener, Peer, Stream};
use crate::proto::tls::ClientHello;
use crate::runtime::{LocalAddr, Runtime, Timer};
use crate::spec::ListenSpec;

/// Why there is no listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsListenError {
    /// The files of its TLS.
    Load(LoadErrors),
    /// Its socket.
    Listen(ListenError),
}

impl fmt::Display for TlsListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsListenError::Load(errors) => errors.fmt(f),
            TlsListenError::Listen(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TlsListenError {}

/// What a listener has done with handshakes so far, over all its cores.
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
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    crowded_out: AtomicU64,
}

/// One core's share of a listener: see [`ListenPart`]. TLS is loaded once for all of them.
#[derive(Debug)]
pub struct TlsListenPart {
    part: ListenPart,
    tls: Option<ServerTls>,
    counts: Arc<Counts>,
}

impl TlsListenPart {
    /// As [`ListenPart::open`]; the files of its TLS are read first.
    ///
    /// # Errors
    /// What is wrong; nothing is left then.
    pub fn open(spec: &ListenSpec, cores: usize) -> Result<Vec<TlsListenPart>, TlsListenError> {
        let tls = spec.tls().map(ServerTls::load).transpose().map_err(TlsListenError::Load)?;
        let tls = tls.map(|(tls, _)| tls);
        let parts = ListenPart::open(&spec.without_tls(), cores).map_err(TlsListenError::Listen)?;
        let counts = Arc::new(Counts::default());
        let part = |part| TlsListenPart { part, tls: tls.clone(), counts: counts.clone() };
        Ok(parts.into_iter().map(part).collect())
    }

    /// Where it listens; with the port that the kernel chose.
    pub fn local_addr(&self) -> &LocalAddr {
        self.part.local_addr()
    }

    /// To close the whole listener, and to look at its counters, from anywhere.
    pub fn handle(&self) -> ListenHandle {
        self.part.handle()
    }

    /// Its TLS, to be loaded again; `None` without.
    pub fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// The same for a listener without TLS, such as one of packets.
    ///
    /// # Panics
    /// If the spec asks for TLS.
    pub fn into_plain(self) -> ListenPart {
        assert!(self.tls.is_none(), "nobody may take plain connections for safe ones");
        self.part
    }
}

/// A [`Listener`] that speaks TLS with its clients where its spec has `tls_config`, and plainly where it has none.
pub struct TlsListener<R: Runtime> {
    listener: Listener<R>,
    runtime: R,
    handshakes: Option<Rc<Handshakes<R>>>,
    watch: Option<Watch>,
}

type Accepted<R> = (Stream<Link<Bounded<R>>>, Peer);
type Choose = dyn Fn(&ClientHello, &Peer) -> Option<ServerTls>;

impl<R: Runtime> TlsListener<R> {
    /// Listens as the spec says, on this core alone.
    ///
    /// # Errors
    /// What is wrong; nothing is left then.
    pub fn from_spec(spec: &ListenSpec, runtime: &R) -> Result<Self, TlsListenError> {
        let mut parts = TlsListenPart::open(spec, 1)?;
        let part = parts.pop().expect("a part for each core");
        TlsListener::new(part, runtime).map_err(TlsListenError::Listen)
    }

    /// Takes connections of this part on this core. The files of its TLS are read again when they change, until it is closed.
    ///
    /// # Errors
    /// The driver cannot watch it; the part is closed then.
    pub fn new(part: TlsListenPart, runtime: &R) -> Result<Self, ListenError> {
        let TlsListenPart { part, tls, counts } = part;
        let listener = Listener::new(part, runtime)?;
        let watch = tls.as_ref().and_then(|tls| watch(runtime, tls));
        let handshakes = tls.map(|tls| {
            Rc::new(Handshakes {
                tls,
                counts,
                choose: RefCell::default(),
                ready: RefCell::default(),
                pending: RefCell::default(),
                acceptor: RefCell::default(),
            })
        });
        Ok(TlsListener { listener, runtime: runtime.clone(), handshakes, watch })
    }

    /// From now on a client's hello, and who it is, say which configuration answers it; `None` refuses it with an alert. Without
    /// TLS it is never asked.
    pub fn choose_by(&mut self, choose: impl Fn(&ClientHello, &Peer) -> Option<ServerTls> + 'static) {
        if let Some(handshakes) = &self.handshakes {
            handshakes.choose.replace(Some(Rc::new(choose)));
        }
    }

    /// The listener below.
    pub fn listener(&self) -> &Listener<R> {
        &self.listener
    }

    /// Its TLS, to be loaded again; `None` without.
    pub fn tls(&self) -> Option<&ServerTls> {
        self.handshakes.as_ref().map(|handshakes| &handshakes.tls)
    }

    /// What became of handshakes.
    pub fn tls_stats(&self) -> TlsListenStats {
        let Some(handshakes) = &self.handshakes else { return TlsListenStats::default() };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { done, failed, late, crowded_out } = &*handshakes.counts;
        TlsListenStats {
            done: read(done),
            failed: read(failed),
            late: read(late),
            crowded_out: read(crowded_out),
        }
    }

    /// Handshakes under way on this core.
    pub fn pending_handshakes(&self) -> usize {
        self.handshakes.as_ref().map_or(0, |handshakes| handshakes.pending.borrow().len())
    }

    /// As [`Listener::close`]. Handshakes under way are given up.
    pub fn close(&mut self) {
        self.listener.close();
        self.watch = None;
        self.stop();
    }

    /// The next connection whose handshake, if it has one, is done. Dropping the future loses none.
    ///
    /// # Errors
    /// [`AcceptError::Closed`] for good; after all others the next may work. A handshake that fails is none: see
    /// [`TlsListener::tls_stats`].
    pub async fn accept(&mut self) -> Result<Accepted<R>, AcceptError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`TlsListener::accept`].
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Accepted<R>, AcceptError>> {
        loop {
            if let Some(handshakes) = &self.handshakes
                && let Poll::Ready(accepted) = handshakes.poll_ready(cx)
            {
                return Poll::Ready(Ok(accepted));
            }
            let (stream, peer) = match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(accepted)) => accepted,
                Poll::Ready(Err(error)) => {
                    if matches!(error, AcceptError::Closed) {
                        self.watch = None;
                        self.stop();
                    }
                    return Poll::Ready(Err(error));
                }
            };
            match &self.handshakes {
                Some(handshakes) => handshakes.start(&self.runtime, stream, peer),
                None => {
                    // What came behind a PROXY header goes along.
                    let (inner, input) = stream.into_parts();
                    let mut stream = Stream::over(Link::Plain(inner), self.runtime.tx_queue());
                    *stream.rx() = input;
                    return Poll::Ready(Ok((stream, peer)));
                }
            }
        }
    }

    fn stop(&self) {
        if let Some(handshakes) = &self.handshakes {
            handshakes.stop();
        }
    }
}

impl<R: Runtime> Drop for TlsListener<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The connections of one part that have not come to accept.
struct Handshakes<R: Runtime> {
    tls: ServerTls,
    counts: Arc<Counts>,
    choose: RefCell<Option<Rc<Choose>>>,
    ready: RefCell<VecDeque<Accepted<R>>>,
    /// The oldest first; at most what the spec allows.
    pending: RefCell<VecDeque<Rc<Pending>>>,
    acceptor: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Pending {
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pending {
    fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<R: Runtime> Handshakes<R> {
    fn poll_ready(&self, cx: &Context<'_>) -> Poll<Accepted<R>> {
        if let Some(next) = self.ready.borrow_mut().pop_front() {
            return Poll::Ready(next);
        }
        self.acceptor.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Starts a handshake in a task of its own. At the limit the oldest that is under way makes room: an honest client takes a
    /// few round trips.
    fn start(self: &Rc<Self>, runtime: &R, stream: Stream<Bounded<R>>, peer: Peer) {
        if self.pending.borrow().len() >= self.tls.spec().max_pending()
            && let Some(oldest) = self.pending.borrow_mut().pop_front()
        {
            oldest.stop();
        }
        let pending = Rc::new(Pending::default());
        self.pending.borrow_mut().push_back(pending.clone());
        let (all, runtime) = (self.clone(), runtime.clone());
        runtime.clone().spawn(async move {
            let shaken = all.shake(&runtime, stream, &peer, &pending).await;
            all.pending.borrow_mut().retain(|other| !Rc::ptr_eq(other, &pending));
            let counter = match shaken {
                Ok(stream) => {
                    all.ready.borrow_mut().push_back((stream, peer));
                    if let Some(acceptor) = all.acceptor.take() {
                        acceptor.wake();
                    }
                    &all.counts.done
                }
                Err(error) => {
                    tracing::debug!(client = %peer.client(), "TLS: {error}");
                    match error {
                        HandshakeError::TimedOut => &all.counts.late,
                        HandshakeError::CrowdedOut => &all.counts.crowded_out,
                        HandshakeError::Tls(_) | HandshakeError::NoConfig(_) | HandshakeError::Io(_) => {
                            &all.counts.failed
                        }
                    }
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }

    async fn shake(
        &self,
        runtime: &R,
        stream: Stream<Bounded<R>>,
        peer: &Peer,
        pending: &Pending,
    ) -> Result<Stream<Link<Bounded<R>>>, HandshakeError> {
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
            if pending.stopped.get() {
                return Poll::Ready(Err(HandshakeError::CrowdedOut));
            }
            pending.waker.replace(Some(cx.waker().clone()));
            if let Poll::Ready(result) = accepting.poll(cx, &chosen) {
                return Poll::Ready(result);
            }
            let Some(timer) = &mut timer else { return Poll::Pending };
            timer.poll_elapsed(cx).map(|()| Err(HandshakeError::TimedOut))
        })
        .await?;
        Ok(Stream::over(Link::Tls(Box::new(stream)), runtime.tx_queue()))
    }

    /// Closes all of them.
    fn stop(&self) {
        self.pending.borrow_mut().drain(..).for_each(|pending| pending.stop());
        // Dropped outside of the borrow.
        let ready = self.ready.take();
        drop(ready);
    }
}
