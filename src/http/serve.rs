//! A server of HTTP: connections accepted, their versions told apart, requests given to a handler.
//!
//! ```text
//! Listener --accepted--> [TLS handshake] --ALPN, or the first bytes--> Connection (a task)
//!                                                                          |  Request
//!    HTTP/1.1: the handler's future is polled by the connection's task     v
//!    HTTP/2:   it is a task of its own                                  Exchange --> handler
//!
//! Connection:  Waiting --head--> Answering --done--> Waiting --idle, Connection: close, drained--> Lingering --> closed
//!                 |                  |--response cut short, the client takes nothing--> reset
//!                 `--fault, head timeout--> 4xx or GOAWAY --> Lingering
//!
//! Server:      Accepting --drain--> what waits in the accept queue is accepted still --> Draining --> all connections ended
//!                                                                                           `--deadline--> cut
//! ```
//!
//! Who owns which bytes: what is received stays in the stream's queue (64 KiB at most) until the machine is asked; a piece of a
//! body then waits in the request's slot, of HTTP/1.1 one piece, of HTTP/2 as much as its windows allow, until the handler takes
//! it, which is what gives credit back. What a handler sends belongs to the connection from the call on; it waits once
//! `send_buffer_bytes` are unsent. A request of HTTP/2 costs what h2 allocates, a head, and a task.
//!
//! What cancel and drop do: a handler's future is dropped when its client resets the stream or the connection ends, when a
//! deadline passes, and when the server is cut; the [`Exchange`] in it then says what is left to say (see there). An error or a panic of
//! a handler ends its own request: 500 where no response had begun, else a reset of the stream, which in HTTP/1.1 is the
//! connection. Dropping the future of [`Server::serve`] stops accepting and leaves connections to themselves.
//!
//! What bad input gets is said by the machines ([`proto::http1`](crate::proto::http1), [`proto::http2`](crate::proto::http2)); in
//! HTTP/1.1 with a response that says why, and `Connection: close`. A head that is too slow gets 408, a body 408 where the handler had
//! not answered, too long a body 413, a request that takes too long as a whole 503, one that is not safe and came as early data
//! 425 (RFC 8470). A client that takes nothing is reset. Deadlines are looked at once in a while, not set for each request:
//! each may come late by as much as the shortest of them.

mod connection;
mod date;
mod exchange;
#[cfg(feature = "tower")]
mod service;
mod shared;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use ringport_platform::process;

use self::connection::Connection;
use self::date::DateClock;
pub use self::exchange::{Exchange, ExchangeError};
#[cfg(feature = "tower")]
pub use self::service::{RequestBody, ServiceHandler};
use self::shared::Shared;
use crate::net::tls::{Link, TlsAcceptor, TlsListenError, TlsListenPart};
use crate::net::{AcceptError, Bounded, ListenError, ListenHandle, Listener, Peer, Stream};
use crate::proto::http_date::HttpDate;
use crate::runtime::{LocalAddr, Runtime};
use crate::spec::{HttpLimits, HttpProtocol, HttpServerSpec, HttpTimeouts};

/// What a handler may end with.
pub type HandlerError = Box<dyn std::error::Error>;

/// Answers requests. An async function of an [`Exchange`] is one: `async |exchange| { .. }`.
pub trait Handler: 'static {
    /// Answers one. The future is polled on the core that accepted the connection.
    fn handle(&self, exchange: Exchange) -> impl Future<Output = Result<(), HandlerError>>;
}

impl<F, E> Handler for F
where
    F: AsyncFn(Exchange) -> Result<(), E> + 'static,
    E: Into<HandlerError>,
{
    async fn handle(&self, exchange: Exchange) -> Result<(), HandlerError> {
        self(exchange).await.map_err(Into::into)
    }
}

/// One core's share of a server that listens: see [`Server::open`].
#[derive(Debug)]
pub struct ServerPart {
    spec: Arc<HttpServerSpec>,
    part: TlsListenPart,
}

impl ServerPart {
    /// Where it listens; with the port that the kernel chose.
    pub fn local_addr(&self) -> &LocalAddr {
        self.part.local_addr()
    }

    /// To look at the listener's counters, from anywhere.
    pub fn handle(&self) -> ListenHandle {
        self.part.handle()
    }
}

/// A server on one core.
pub struct Server<R: Runtime> {
    runtime: R,
    core: Rc<Core>,
    listener: Listener<R>,
    acceptor: Option<Rc<TlsAcceptor<R>>>,
}

/// Makes a [`Server`] drain, from any task of its core.
#[derive(Clone)]
pub struct ServerHandle(Rc<Core>);

/// How connections are answered: what of a server's spec is not its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSpec {
    /// What is spoken, the preferred first; at least one.
    pub protocols: Vec<HttpProtocol>,
    /// What a client may make it hold.
    pub limits: HttpLimits,
    /// How long it waits; `drain` is of a server as a whole.
    pub timeouts: HttpTimeouts,
    /// Whether responses get a `Date` that have none.
    pub sends_date: bool,
}

impl ConnectionSpec {
    fn speaks(&self, protocol: HttpProtocol) -> bool {
        self.protocols.contains(&protocol)
    }

    fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    fn timeouts(&self) -> &HttpTimeouts {
        &self.timeouts
    }
}

/// Connections of one core that are answered alike, wherever they were accepted: a [`Server`] without its listener.
pub struct Connections<R: Runtime> {
    runtime: R,
    core: Rc<Core>,
}

/// One of them, to be told of an end.
pub struct ConnectionHandle(Rc<Shared>);

impl<R: Runtime> Connections<R> {
    /// None yet.
    pub fn new(runtime: &R, spec: ConnectionSpec) -> Self {
        Connections { runtime: runtime.clone(), core: Core::new(runtime, spec) }
    }

    /// Answers requests of a connection to its end; the version is what ALPN or the first bytes say. Dropping the future closes
    /// the connection.
    pub fn serve<H: Handler>(
        &self,
        stream: Stream<Link<Bounded<R>>>,
        peer: Peer,
        handler: H,
    ) -> (ConnectionHandle, impl Future<Output = ()> + use<R, H>) {
        let seat = Seat::take(&self.core);
        let connection = Connection::new(&self.runtime, self.core.clone(), stream, peer, &seat);
        let handle = ConnectionHandle(connection.shared().clone());
        let served = async move {
            connection.run(Rc::new(handler)).await;
            drop(seat);
        };
        (handle, served)
    }
}

impl ConnectionHandle {
    /// Lets it end with what it answers: as [`ServerHandle::drain`] does all. Idempotent.
    pub fn drain(&self) {
        drain(&self.0);
    }
}

/// What the connections of a core have in common.
struct Core {
    spec: ConnectionSpec,
    clock: Box<dyn Clock>,
    date: RefCell<DateClock>,
    /// How often deadlines are looked at.
    tick: Duration,
    draining: Cell<bool>,
    cut: Cell<bool>,
    /// By seat; those that have begun.
    seats: RefCell<Vec<Option<Weak<Shared>>>>,
    free: RefCell<Vec<usize>>,
    taken: Cell<usize>,
    waiter: RefCell<Option<Waker>>,
}

impl<R: Runtime> Server<R> {
    /// Listens as the spec says, on this core alone.
    ///
    /// # Errors
    /// What is wrong; nothing is left then.
    pub fn from_spec(spec: &HttpServerSpec, runtime: &R) -> Result<Self, TlsListenError> {
        let mut parts = Server::<R>::open(spec, 1)?;
        Server::new(parts.pop().expect("a part for each core"), runtime).map_err(TlsListenError::Listen)
    }

    /// Opens the listener for so many cores; certificates are loaded once for all. Each core makes a server of its part.
    ///
    /// # Errors
    /// What is wrong; nothing is left then.
    pub fn open(spec: &HttpServerSpec, cores: usize) -> Result<Vec<ServerPart>, TlsListenError> {
        let parts = TlsListenPart::open(spec.listen(), cores)?;
        let spec = Arc::new(spec.clone());
        Ok(parts.into_iter().map(|part| ServerPart { spec: spec.clone(), part }).collect())
    }

    /// Takes connections of this part on this core.
    ///
    /// # Errors
    /// The driver cannot watch it; the part is closed then.
    pub fn new(part: ServerPart, runtime: &R) -> Result<Self, ListenError> {
        let ServerPart { spec, part } = part;
        let (listener, acceptor) = part.open_on(runtime)?;
        let core = Core::new(
            runtime,
            ConnectionSpec {
                protocols: spec.protocols().to_vec(),
                limits: *spec.limits(),
                timeouts: *spec.timeouts(),
                sends_date: spec.sends_date(),
            },
        );
        Ok(Server { runtime: runtime.clone(), core, listener, acceptor: acceptor.map(Rc::new) })
    }

    /// Where it listens; with the port that the kernel chose.
    pub fn local_addr(&self) -> &LocalAddr {
        self.listener.local_addr()
    }

    /// To drain it, and to look at it.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.core.clone())
    }

    /// Answers requests until [`ServerHandle::drain`], and then until the last connection has ended, or the `drain` timeout has
    /// passed and all were cut.
    ///
    /// # Errors
    /// The listener was closed by somebody else. Trouble with one connection is logged and is none.
    pub async fn serve(mut self, handler: impl Handler) -> Result<(), AcceptError> {
        let handler = Rc::new(handler);
        self.accept_all(&handler).await?;
        let core = self.core.clone();
        self.drain_queue(&handler).await;
        drop(self.listener);
        core.drain_all();
        let mut deadline = pin!(self.runtime.sleep(core.spec.timeouts().drain));
        poll_fn(|cx| core.poll_ended(cx, deadline.as_mut())).await;
        Ok(())
    }

    async fn accept_all(&mut self, handler: &Rc<impl Handler>) -> Result<(), AcceptError> {
        loop {
            let accepted = poll_fn(|cx| {
                if self.core.draining.get() {
                    return Poll::Ready(None);
                }
                self.core.wait(cx);
                self.listener.poll_accept(cx).map(Some)
            });
            match accepted.await {
                None => return Ok(()),
                Some(Ok(candidate)) => self.begin(candidate, handler),
                Some(Err(AcceptError::Closed)) => return Err(AcceptError::Closed),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    self.runtime.sleep(RETRY).await;
                }
            }
        }
    }

    /// Takes what the kernel still holds, so that nothing waiting is reset.
    async fn drain_queue(&mut self, handler: &Rc<impl Handler>) {
        loop {
            match poll_fn(|cx| self.listener.poll_drain(cx)).await {
                Ok(Some(candidate)) => self.begin(candidate, handler),
                Ok(None) => return,
                Err(AcceptError::Io(error)) if process::is_shortage(&error) => {
                    self.runtime.sleep(RETRY).await
                }
                Err(error @ AcceptError::Option(_)) => {
                    tracing::warn!(%error, "a connection could not be taken");
                }
                Err(error) => return tracing::warn!(%error, "the accept queue could not be drained"),
            }
        }
    }

    fn begin(&self, (stream, peer): (Stream<Bounded<R>>, Peer), handler: &Rc<impl Handler>) {
        let (runtime, core, handler) = (self.runtime.clone(), self.core.clone(), handler.clone());
        let seat = Seat::take(&core);
        let acceptor = self.acceptor.clone();
        self.runtime.spawn(async move {
            let stream: Stream<Link<Bounded<R>>> = match acceptor {
                None => stream.over_link(&runtime),
                // Why not is told, and counted, by the acceptor.
                Some(acceptor) => match acceptor.accept(stream, &peer).await {
                    Ok(stream) => stream,
                    Err(_) => return,
                },
            };
            Connection::new(&runtime, core, stream, peer, &seat).run(handler).await;
            drop(seat);
        });
    }
}

impl ServerHandle {
    /// Takes no more connections, tells those that are open, and lets [`Server::serve`] end when they have. Idempotent.
    ///
    /// HTTP/2 gets GOAWAY twice, HTTP/1.1 `Connection: close` with the next response; one that is idle is closed after half a
    /// second, in which a request that was on its way is answered.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.0.wake();
    }

    /// Whether it drains.
    pub fn is_draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Connections that are open, with those in a handshake.
    pub fn connections(&self) -> usize {
        self.0.taken.get()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerHandle({} connections)", self.connections())
    }
}

/// What is asked of a runtime whose type is of no interest.
trait Clock {
    fn now(&self) -> Instant;
    fn time_of_day(&self) -> SystemTime;
}

impl<R: Runtime> Clock for R {
    fn now(&self) -> Instant {
        Runtime::now(self)
    }

    fn time_of_day(&self) -> SystemTime {
        Runtime::time_of_day(self)
    }
}

impl Core {
    fn new(runtime: &impl Runtime, spec: ConnectionSpec) -> Rc<Self> {
        let timeouts = spec.timeouts();
        let spans = [timeouts.header, timeouts.body_idle, timeouts.write_idle, timeouts.keep_alive_idle];
        let tick = spans.into_iter().chain(timeouts.request).min().unwrap_or(timeouts.header);
        Rc::new(Core {
            tick,
            spec,
            clock: Box::new(runtime.clone()),
            date: RefCell::default(),
            draining: Cell::new(false),
            cut: Cell::new(false),
            seats: RefCell::default(),
            free: RefCell::default(),
            taken: Cell::new(0),
            waiter: RefCell::default(),
        })
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What responses say; `None` where the spec wants none.
    fn date(&self) -> Option<HttpDate> {
        let date = || self.date.borrow_mut().at(self.clock.now(), || self.clock.time_of_day());
        self.spec.sends_date.then(date)
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiter = self.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
            *waiter = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waiter) = &*self.waiter.borrow() {
            waiter.wake_by_ref();
        }
    }

    fn each(&self, tell: impl Fn(&Shared)) {
        let begun: Vec<_> = self.seats.borrow().iter().flatten().filter_map(Weak::upgrade).collect();
        begun.iter().for_each(|shared| tell(shared));
    }

    fn drain_all(&self) {
        self.each(drain);
    }

    fn poll_ended(&self, cx: &mut Context<'_>, deadline: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        self.wait(cx);
        if self.taken.get() == 0 {
            return Poll::Ready(());
        }
        if !self.cut.get() && deadline.poll(cx).is_ready() {
            tracing::warn!(connections = self.taken.get(), "what is open is cut: the drain takes too long");
            self.cut.set(true);
            self.each(cut);
        }
        Poll::Pending
    }
}

fn drain(shared: &Shared) {
    let mut state = shared.state();
    if !std::mem::replace(&mut state.draining, true) {
        state.conn.drain();
        state.notify();
    }
}

fn cut(shared: &Shared) {
    let mut state = shared.state();
    state.cut = true;
    state.notify();
}

/// A connection's place, from accept to its end.
struct Seat {
    core: Rc<Core>,
    at: usize,
}

impl Seat {
    fn take(core: &Rc<Core>) -> Self {
        core.taken.set(core.taken.get() + 1);
        let at = core.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut seats = core.seats.borrow_mut();
            seats.push(None);
            seats.len() - 1
        });
        Seat { core: core.clone(), at }
    }

    /// The connection has begun; it hears of what became of the server meanwhile.
    fn hold(&self, shared: &Rc<Shared>) {
        self.core.seats.borrow_mut()[self.at] = Some(Rc::downgrade(shared));
        if self.core.draining.get() {
            drain(shared);
        }
        if self.core.cut.get() {
            cut(shared);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.core.seats.borrow_mut()[self.at] = None;
        self.core.free.borrow_mut().push(self.at);
        self.core.taken.set(self.core.taken.get() - 1);
        if self.core.draining.get() {
            self.core.wake();
        }
    }
}

/// What a handler failed with.
fn failed(peer: &Peer, error: &(dyn std::error::Error + 'static)) {
    let gone = error.downcast_ref::<ExchangeError>();
    if gone.is_some_and(|error| {
        matches!(error, ExchangeError::Gone | ExchangeError::BadBody(_) | ExchangeError::TimedOut)
    }) {
        tracing::debug!(client = %peer.client(), "a request: {error}");
    } else {
        tracing::warn!(client = %peer.client(), "a handler failed: {error}");
    }
}

const RETRY: Duration = Duration::from_millis(20);
