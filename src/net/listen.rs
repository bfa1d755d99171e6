//! Listeners from a spec: who is let in, how many, for how long, and who they are behind a proxy.
//!
//! ```text
//! in the kernel's queue --there is room--> taken --peer kept out--> closed, counted
//!                                               --PROXY protocol--> its header is read, beside the others
//!                                               --beyond a limit--> closed (reject, or per address), or held (wait)
//!                                               --accept--> a Stream, which has a place until it is dropped
//! ```
//!
//! At its end [`Listener::poll_drain`] gives what waits in all of these places, and takes no more.
//!
//! [`Listener::from_spec`] is for one core. For several, [`ListenPart::open`] makes the sockets before any core starts, and each
//! core makes a [`Listener`] of its part; limits, counters and the socket's file are the whole listener's.

pub(super) mod bounded;
mod error;
mod header;
mod limits;
mod open;
mod packets;

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ringport_platform::socket::SocketFile;
use ringport_platform::sockopt::{ApplyError, Effective, Kind, OptFault, OptSet, Stage, Target};

pub use bounded::{Bounded, DeadlineError};
pub use error::{AcceptError, FileFault, InheritFault, ListenError};
pub use limits::ListenStats;
pub(super) use limits::Place;
pub use open::ListenPart;
pub use packets::PacketListener;

use self::bounded::Bounds;
use self::header::{HeaderRules, Headers};
use self::limits::{Full, Shared, count};
use crate::net::{PeerFilter, Stream};
use crate::proto::proxy_protocol::Header;
use crate::runtime::{Listener as _, LocalAddr, Runtime, Transport};
use crate::spec::{Address, ListenSpec, NetAddr};

/// Takes connections as a [`ListenSpec`] says, on one core.
///
/// Dropping it stops listening on this core. Connections that the kernel has taken and nobody has accepted are then reset;
/// [`Listener::poll_drain`] gives them out first.
pub struct Listener<R: Runtime> {
    runtime: R,
    /// `None` once it is closed.
    inner: Option<R::Listener>,
    index: usize,
    local: LocalAddr,
    plan: Arc<Plan>,
    rules: Arc<Rules>,
    /// Of the rules.
    version: u64,
    shared: Arc<Shared>,
    file: Option<Arc<SocketFile>>,
    headers: Rc<Headers<R>>,
    /// What was taken when another core had used the last place up.
    held: Option<Candidate<R>>,
    /// How many more connections it may take from the kernel.
    room: usize,
    draining: bool,
    registered: Option<Waker>,
}

type Candidate<R> = (Stream<Bounded<R>>, Peer);

/// What of a spec holds for as long as its sockets do.
#[derive(Debug)]
struct Plan {
    /// For a receive and for a send, where the options of the sockets name them.
    timeouts: (Option<Duration>, Option<Duration>),
    /// Options that are set again after each receive, and the sort of socket.
    rearmed: Option<(Arc<OptSet>, Target)>,
    /// Options that connections do not have from their listener, and the sort of socket.
    connected: Option<(Arc<OptSet>, Target)>,
    applied: Vec<Effective>,
    skipped: Vec<OptFault>,
    refused: Vec<ApplyError>,
}

/// What of a spec may change while its sockets listen.
#[derive(Debug)]
struct Rules {
    clients: Arc<PeerFilter>,
    header: Option<Arc<HeaderRules>>,
    bounds: Bounds,
}

impl Rules {
    #[cfg(test)]
    fn none() -> Self {
        let bounds = Bounds { deadlines: crate::spec::Deadlines::default(), rearmed: None };
        Rules { clients: Arc::new(PeerFilter::new(&[], &[])), header: None, bounds }
    }
}

impl<R: Runtime> Listener<R> {
    /// Listens as the spec says, on this core alone. Blocks while the names of a file's user and group are looked up.
    ///
    /// # Errors
    /// As [`ListenPart::open`] and [`Listener::new`]. No descriptor and no file is left.
    pub fn from_spec(spec: &ListenSpec, runtime: &R) -> Result<Self, ListenError> {
        let mut parts = ListenPart::open(spec, 1)?;
        Listener::new(parts.pop().expect("a part for each core"), runtime)
    }

    /// Listens at an address, with every default.
    ///
    /// # Errors
    /// [`ListenError::Spec`] for a network without connections, such as UDP; else as [`Listener::from_spec`].
    pub fn bind(address: NetAddr<Address>, runtime: &R) -> Result<Self, ListenError> {
        let spec = ListenSpec::builder(address).build().map_err(ListenError::Spec)?;
        Listener::from_spec(&spec, runtime)
    }

    /// Takes connections of this part on this core. Nothing is taken from the kernel before the first accept.
    ///
    /// # Errors
    /// [`ListenError::Kind`] for a part of packets, [`ListenError::Driver`] where the driver cannot watch it. The part is
    /// closed.
    pub fn new(part: ListenPart, runtime: &R) -> Result<Self, ListenError> {
        packets::is_of(&part, Kind::Stream)?;
        let ListenPart { socket, index, local, backlog, plan, shared, file } = part;
        let inner = runtime.listen_on(socket, backlog).map_err(ListenError::Driver)?;
        let mut version = 0;
        let rules = shared.newer_rules(&mut version).unwrap_or_else(|| shared.rules());
        Ok(Listener {
            runtime: runtime.clone(),
            inner: Some(inner),
            index,
            local,
            plan,
            rules,
            version,
            headers: Headers::new(shared.clone()),
            shared,
            file,
            held: None,
            room: usize::MAX,
            draining: false,
            registered: None,
        })
    }

    /// Where it listens, with the port that the kernel chose. No system call.
    pub fn local_addr(&self) -> &LocalAddr {
        &self.local
    }

    /// What became of each option of the listening socket.
    pub fn applied(&self) -> &[Effective] {
        &self.plan.applied
    }

    /// Options that were left out because such a socket lacks them, as the spec allows.
    pub fn skipped(&self) -> &[OptFault] {
        &self.plan.skipped
    }

    /// Options that were left out because this kernel does not know them, as the spec allows.
    pub fn refused(&self) -> &[ApplyError] {
        &self.plan.refused
    }

    /// A handle that closes the whole listener, changes its rules and reads its counters, from any thread.
    pub fn handle(&self) -> ListenHandle {
        ListenHandle::new(&self.shared, &self.plan, self.file.as_ref())
    }

    /// Sets how many more connections it may take from the kernel, beside those that wait here. At first there is no limit.
    ///
    /// For a limit that several listeners share. The number does not count down by itself: set it before each accept.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// Connections that were taken from the kernel and not yet given out by accept. They wait in a queue, for their PROXY
    /// header, or for a place below the limit. Each holds a descriptor.
    pub fn queued(&self) -> usize {
        let inner = self.inner.as_ref().map_or(0, |inner| inner.queued());
        inner + self.headers.pending() + usize::from(self.held.is_some())
    }

    /// Closes the whole listener, on every core. Whoever waits in accept gets [`AcceptError::Closed`].
    ///
    /// Connections that were accepted live on. The socket's file is removed with the last part.
    pub fn close(&mut self) {
        self.shared.close();
        self.stop();
    }

    fn stop(&mut self) {
        self.held = None;
        self.headers.stop();
        // Before the socket: a new one at the same path then never finds the old one's file gone from under it.
        self.file = None;
        self.inner = None;
    }

    /// The next connection that the lists let in and the limits have a place for, and who it comes from.
    ///
    /// Dropping the future loses no connection. Each costs one system call here, for the peer's address. Running out of
    /// descriptors is no error: the listener pauses, and goes on when there are some.
    ///
    /// # Errors
    /// After [`AcceptError::Closed`] nothing more comes. After any other error the next accept may work.
    pub async fn accept(&mut self) -> Result<(Stream<Bounded<R>>, Peer), AcceptError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Listener::accept`].
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Candidate<R>, AcceptError>> {
        Poll::Ready(match ready!(self.poll_one(cx))? {
            Some(connection) => Ok(connection),
            // Nothing more comes while it drains.
            None => Err(AcceptError::Closed),
        })
    }

    /// For the end of a listener: gives what still waits, and from the first call on takes only what has come already.
    ///
    /// A connection may wait in the kernel, for its PROXY header, or beyond a limit until another connection ends. `None`
    /// says that nothing is left. Drop the listener then at once: what comes in between is reset.
    ///
    /// # Errors
    /// As [`Listener::accept`]; here a shortage of descriptors or memory is an error too.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Candidate<R>>, AcceptError>> {
        self.draining = true;
        self.poll_one(cx)
    }

    /// `None` while it drains and nothing is left.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Candidate<R>>, AcceptError>> {
        self.register(cx);
        if let Some(rules) = self.shared.newer_rules(&mut self.version) {
            self.rules = rules;
        }
        loop {
            if self.shared.is_closed() {
                self.stop();
            }
            let Some(inner) = self.inner.as_mut() else { return Poll::Ready(Err(AcceptError::Closed)) };
            let waits = self.shared.waits();
            if waits && self.shared.left() == 0 {
                inner.set_room(0);
                return Poll::Pending;
            }
            let candidate = match self.held.take() {
                Some(held) => Some(held),
                None => ready!(self.poll_candidate(cx))?,
            };
            let Some((mut stream, peer)) = candidate else { return Poll::Ready(Ok(None)) };
            match self.shared.take(peer.client_ip()) {
                Ok(place) => {
                    stream.transport().place = Some(place);
                    count(&self.shared.counts.accepted);
                    return Poll::Ready(Ok(Some((stream, peer))));
                }
                Err(Full::Total) if waits => self.held = Some((stream, peer)),
                Err(Full::Total) => count(&self.shared.counts.over_limit),
                Err(Full::Address) => count(&self.shared.counts.over_limit_per_address),
            }
        }
    }

    /// A connection that is let in, for which there may be no place; `None` while it drains and nothing is left.
    fn poll_candidate(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Candidate<R>>, AcceptError>> {
        loop {
            if (self.rules.header.is_some() || self.headers.pending() > 0)
                && let Poll::Ready(candidate) = self.headers.poll_ready(cx)
            {
                return Poll::Ready(Ok(Some(candidate)));
            }
            let Some(transport) = ready!(self.poll_transport(cx))? else {
                // Those that wait for their header wake this.
                let is_done = self.headers.pending() == 0;
                return if is_done { Poll::Ready(Ok(None)) } else { Poll::Pending };
            };
            // Without a peer it has ended already.
            let Ok(peer) = transport.peer_addr() else { continue };
            let let_in = match &self.rules.header {
                Some(header) => header.trusts(&peer),
                None => lets_in(&self.rules.clients, &peer),
            };
            if !let_in {
                count(&self.shared.counts.denied);
                continue;
            }
            if let Some((options, target)) = &self.plan.connected {
                transport.set_options(options, Stage::Connected, *target).map_err(AcceptError::Option)?;
            }
            let bounded = Bounded::new(&self.runtime, transport, &self.rules.bounds);
            let stream = Stream::over(bounded, self.runtime.tx_queue());
            match &self.rules.header {
                Some(header) => {
                    self.headers.start(&self.runtime, (header, &self.rules.clients), stream, peer);
                }
                None => return Poll::Ready(Ok(Some((stream, Peer::direct(peer))))),
            }
        }
    }

    /// The next connection of the kernel's; `None` while it drains and the kernel has none.
    fn poll_transport(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R::Stream>, AcceptError>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(Err(AcceptError::Closed)) };
        if self.draining {
            return inner.poll_drain(cx).map_err(AcceptError::Io);
        }
        let mut room = self.room;
        if self.shared.waits() {
            room = room.min(self.shared.left().saturating_sub(inner.queued()));
        }
        inner.set_room(room);
        inner.poll_accept(cx).map(|accepted| accepted.map(Some)).map_err(AcceptError::Io)
    }

    fn register(&mut self, cx: &Context<'_>) {
        if !self.registered.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            self.shared.register(self.index, cx);
        }
    }
}

impl<R: Runtime> Drop for Listener<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A handle on a whole listener, for any thread. It keeps no socket open.
#[derive(Clone, Debug)]
pub struct ListenHandle {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    file: Weak<SocketFile>,
}

impl ListenHandle {
    fn new(shared: &Arc<Shared>, plan: &Arc<Plan>, file: Option<&Arc<SocketFile>>) -> Self {
        let file = file.map_or_else(Weak::new, Arc::downgrade);
        ListenHandle { shared: shared.clone(), plan: plan.clone(), file }
    }

    /// Removes the socket's file, unless the spec keeps it. For a process that ends without waiting for its cores.
    ///
    /// Does nothing where there is no file, or it is removed already.
    pub fn remove_file(&self) {
        if let Some(file) = self.file.upgrade() {
            file.remove();
        }
    }

    /// As [`Listener::close`]. A part that is not in accept closes its socket when it is dropped.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Takes over the parts of another spec that need no new socket: lists of clients, limits, deadlines, PROXY protocol.
    ///
    /// They hold for connections that are accepted from now on. A connection that waits for its header keeps the old rules.
    /// A new limit below the number of open connections closes none of them. A new limit for each address counts only
    /// connections that are accepted later.
    ///
    /// The other fields are not looked at: [`ListenSpec::socket_changes`] says which of them differ.
    pub fn update(&self, spec: &ListenSpec) {
        self.shared.update(spec.limits(), Rules::new(spec, &self.plan));
    }

    /// What it has done so far.
    pub fn stats(&self) -> ListenStats {
        self.shared.stats()
    }

    /// Connections that were accepted and have not ended.
    pub fn open_connections(&self) -> usize {
        self.shared.open()
    }
}

/// Who a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    connection: LocalAddr,
    client: LocalAddr,
    header: Option<Header>,
}

impl Peer {
    fn direct(connection: LocalAddr) -> Self {
        Peer { client: connection.clone(), connection, header: None }
    }

    fn behind(connection: LocalAddr, header: Header) -> Self {
        let client = match &header {
            Header::Local => connection.clone(),
            Header::Inet { source, .. } => LocalAddr::Inet(*source),
            Header::Unix { source, .. } => LocalAddr::Unix(source.as_bytes().to_vec()),
        };
        Peer { connection, client, header: Some(header) }
    }

    /// The client: whom a trusted proxy names, else the other end of the connection.
    pub fn client(&self) -> &LocalAddr {
        &self.client
    }

    /// The other end of the connection.
    pub fn connection(&self) -> &LocalAddr {
        &self.connection
    }

    /// What a trusted proxy said; `None` where the listener takes no PROXY protocol.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    fn client_ip(&self) -> Option<IpAddr> {
        match &self.client {
            LocalAddr::Inet(addr) => Some(addr.ip()),
            LocalAddr::Unix(_) => None,
        }
    }
}

/// Peers of Unix sockets have no address to be kept out by.
fn lets_in(filter: &PeerFilter, peer: &LocalAddr) -> bool {
    match peer {
        LocalAddr::Inet(addr) => filter.allows_all() || filter.allows(*addr),
        LocalAddr::Unix(_) => true,
    }
}
