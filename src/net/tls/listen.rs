//! Listeners over TLS, where a spec asks for it.
//!
//! ```text
//! accepted by the listener below (who is let in, limits, PROXY header) --TLS--> handshake, beside the others
//!     handshake --done--> ready --accept--> a Stream
//!               --failed, late, crowded out--> its alert is sent, closed, counted
//! ```
//!
//! A connection in its handshake counts as one of those that its listener may have.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::accept::{Counts, TlsAcceptor, TlsListenStats};
use super::config::ServerTls;
use super::load::LoadErrors;
use super::stream::Link;
use crate::net::{AcceptError, Bounded, ListenError, ListenHandle, ListenPart, Listener, Peer, Stream};
use crate::proto::tls::ClientHello;
use crate::runtime::{LocalAddr, Runtime};
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

impl std::error::Error for TlsListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsListenError::Load(errors) => Some(errors),
            TlsListenError::Listen(error) => Some(error),
        }
    }
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

    /// Takes connections of this part on this core, and their handshakes, which are the caller's to start. `None` without TLS.
    ///
    /// # Errors
    /// The driver cannot watch it; the part is closed then.
    pub fn open_on<R: Runtime>(
        self,
        runtime: &R,
    ) -> Result<(Listener<R>, Option<TlsAcceptor<R>>), ListenError> {
        let TlsListenPart { part, tls, counts } = self;
        let listener = Listener::new(part, runtime)?;
        Ok((listener, tls.map(|tls| TlsAcceptor::counting(tls, runtime, counts))))
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
    ready: Option<Rc<Ready<R>>>,
}

type Accepted<R> = (Stream<Link<Bounded<R>>>, Peer);

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
        let (listener, acceptor) = part.open_on(runtime)?;
        let ready = acceptor.map(|acceptor| {
            Rc::new(Ready { acceptor, connections: RefCell::default(), waiter: RefCell::default() })
        });
        Ok(TlsListener { listener, runtime: runtime.clone(), ready })
    }

    /// From now on a client's hello, and who it is, say which configuration answers it; `None` refuses it with an alert. Without
    /// TLS it is never asked.
    pub fn choose_by(&mut self, choose: impl Fn(&ClientHello, &Peer) -> Option<ServerTls> + 'static) {
        if let Some(ready) = &self.ready {
            ready.acceptor.choose_by(choose);
        }
    }

    /// The listener below.
    pub fn listener(&self) -> &Listener<R> {
        &self.listener
    }

    /// Its TLS, to be loaded again; `None` without.
    pub fn tls(&self) -> Option<&ServerTls> {
        self.ready.as_ref().map(|ready| ready.acceptor.tls())
    }

    /// What became of handshakes.
    pub fn tls_stats(&self) -> TlsListenStats {
        self.ready.as_ref().map_or_else(TlsListenStats::default, |ready| ready.acceptor.stats())
    }

    /// Handshakes under way on this core.
    pub fn pending_handshakes(&self) -> usize {
        self.ready.as_ref().map_or(0, |ready| ready.acceptor.pending())
    }

    /// As [`Listener::close`]. Handshakes under way are given up.
    pub fn close(&mut self) {
        self.listener.close();
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
            if let Some(ready) = &self.ready
                && let Poll::Ready(accepted) = ready.poll_next(cx)
            {
                return Poll::Ready(Ok(accepted));
            }
            let (stream, peer) = match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(accepted)) => accepted,
                Poll::Ready(Err(error)) => {
                    if matches!(error, AcceptError::Closed) {
                        self.stop();
                    }
                    return Poll::Ready(Err(error));
                }
            };
            match &self.ready {
                Some(ready) => ready.start(&self.runtime, stream, peer),
                None => return Poll::Ready(Ok((stream.over_link(&self.runtime), peer))),
            }
        }
    }

    fn stop(&self) {
        if let Some(ready) = &self.ready {
            ready.stop();
        }
    }
}

impl<R: Runtime> Drop for TlsListener<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Connections whose handshake is done, and who waits for them.
struct Ready<R: Runtime> {
    acceptor: TlsAcceptor<R>,
    connections: RefCell<VecDeque<Accepted<R>>>,
    waiter: RefCell<Option<Waker>>,
}

impl<R: Runtime> Ready<R> {
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Accepted<R>> {
        if let Some(next) = self.connections.borrow_mut().pop_front() {
            return Poll::Ready(next);
        }
        self.waiter.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Starts a handshake in a task of its own.
    fn start(self: &Rc<Self>, runtime: &R, stream: Stream<Bounded<R>>, peer: Peer) {
        let all = self.clone();
        runtime.spawn(async move {
            // Why not is told, and counted, by the acceptor.
            let Ok(stream) = all.acceptor.accept(stream, &peer).await else { return };
            all.connections.borrow_mut().push_back((stream, peer));
            if let Some(waiter) = all.waiter.take() {
                waiter.wake();
            }
        });
    }

    /// Closes all of them.
    fn stop(&self) {
        self.acceptor.stop();
        // Dropped outside of the borrow.
        let connections = self.connections.take();
        drop(connections);
    }
}
