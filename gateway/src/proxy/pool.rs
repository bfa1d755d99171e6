//! The origins of a pool as one core sees them: which to try, which to leave out, which connections are kept.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::uri;
use ringport::http::{ClientStream, Http2Client};
use ringport::net::tls::{ClientTls, Link, LoadErrors, LoadWarning, TlsDialError, TlsDialer};
use ringport::net::{Bounded, DialError, Stream};
use ringport::proto::http1::Authority;
use ringport::proto::proxy_protocol::Header;
use ringport::runtime::native::Native;
use ringport::runtime::{ConnectAddr, Transport};
use ringport::spec::{Balance, DialSpec, NetAddr, OriginAddress, OriginPoolSpec, OriginSpec, ProxySpec};
use ringport_platform::core::CoreTime;

use super::Shared;
use super::multiplexed::{Join, Multiplexed};
use super::stats::ProxyStats;
use super::upstream::{Http2Leg, Upstream};

/// A connection to an origin. Behind a pointer, since it moves between the pool and requests.
pub(crate) type OriginStream = Box<ClientStream<OriginConn>>;

/// What it runs over.
pub(crate) type OriginConn = Link<Bounded<Native>>;

/// The client that a connection began by naming; `None` where its origin is named of none.
pub(crate) type Named = Option<Rc<Header>>;

/// TLS to origins, as loaded: one for all that ask for the same.
#[derive(Clone, Default)]
pub(crate) struct OriginTls(Vec<ClientTls>);

impl OriginTls {
    /// Reads the files of every origin's TLS; what is in `before` stays as it is, if its files are in order.
    ///
    /// # Errors
    /// Everything that is wrong, with the pool and the origin.
    pub(crate) fn load(spec: &ProxySpec, before: &OriginTls) -> Result<Self, Vec<String>> {
        let (mut all, mut faults) = (OriginTls::default(), Vec::new());
        for pool in spec.pools() {
            for origin in &pool.origins {
                let Some(tls) = origin.dial.tls() else { continue };
                if all.of(&origin.dial).is_some() {
                    continue;
                }
                let loaded = ClientTls::load(tls).map(|(tls, _)| before.of(&origin.dial).unwrap_or(tls));
                match loaded {
                    Ok(tls) => all.0.push(tls),
                    Err(errors) => faults.extend(
                        errors
                            .faults()
                            .iter()
                            .map(|fault| format!("pool {}: {}: {fault}", pool.name, origin.address)),
                    ),
                }
            }
        }
        if faults.is_empty() { Ok(all) } else { Err(faults) }
    }

    /// Reads all files again.
    pub(crate) fn reload(&self) -> impl Iterator<Item = Result<Vec<LoadWarning>, LoadErrors>> + '_ {
        self.0.iter().map(ClientTls::reload)
    }

    fn of(&self, dial: &DialSpec) -> Option<ClientTls> {
        self.0.iter().find(|tls| Some(tls.spec()) == dial.tls()).cloned()
    }
}

/// A pool on one core.
pub(crate) struct OriginPool {
    spec: OriginPoolSpec,
    origins: Vec<Rc<Origin>>,
    next: Cell<usize>,
    stats: Arc<ProxyStats>,
}

/// One origin on one core.
pub(crate) struct Origin {
    /// As in the spec, for logs.
    pub name: String,
    /// The same for the `Host` field, where a request's own is not kept. A socket's path is no host.
    pub host: Option<Authority>,
    /// What is dialled, before any replacement.
    target: NetAddr<OriginAddress>,
    dialer: TlsDialer<Native>,
    tells_client: bool,
    addrs: RefCell<Addrs>,
    next_addr: Cell<usize>,
    active: Cell<u32>,
    failures: RefCell<VecDeque<CoreTime>>,
    ejected_until: Cell<Option<CoreTime>>,
    idle: RefCell<VecDeque<Idle>>,
    /// Connections of HTTP/2; `None` where it speaks HTTP/1.1 only.
    http2: Option<Multiplexed>,
    /// Whether it speaks HTTP/2 in the clear.
    is_h2c: bool,
    /// No config has it any more: it keeps nothing.
    is_gone: Cell<bool>,
}

/// Where an origin is.
enum Addrs {
    /// Its name has not been looked up: the first dial does that.
    Unknown,
    /// None where the look-up failed.
    Known(Vec<ConnectAddr>),
}

/// A connection that is kept.
struct Idle {
    /// Until then it may be used.
    until: CoreTime,
    stream: Kept,
    named: Named,
}

/// Says over TLS that it ends, unless it is taken.
struct Kept(Option<OriginStream>);

impl Kept {
    fn is_reusable(&self) -> bool {
        self.0.as_ref().is_some_and(|stream| stream.is_reusable())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(stream) = self.0.as_mut().map(|stream| stream.stream())
            && stream.transport().tls().is_some()
        {
            // It goes out as the connection closes: nobody waits for it.
            let _ = stream.transport().poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl OriginPool {
    /// Origins that the pool of this name among `before` has, and dials alike, stay.
    pub(crate) fn new(
        spec: &OriginPoolSpec,
        before: &[Rc<OriginPool>],
        (runtime, tls): (&Native, &OriginTls),
        stats: Arc<ProxyStats>,
    ) -> Rc<Self> {
        let before = before.iter().find(|pool| pool.name() == spec.name);
        let same = |origin: &OriginSpec| {
            let before = before.filter(|pool| pool.spec.connect_timeout == spec.connect_timeout)?;
            let at = before.spec.origins.iter().position(|other| other == origin)?;
            Some(before.origins[at].clone())
        };
        let origins = spec.origins.iter();
        let origins = origins
            .map(|origin| same(origin).unwrap_or_else(|| Rc::new(Origin::new(origin, spec, runtime, tls))));
        let pool = OriginPool { spec: spec.clone(), origins: origins.collect(), next: Cell::new(0), stats };
        pool.origins.iter().for_each(|origin| pool.trim(origin));
        Rc::new(pool)
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn spec(&self) -> &OriginPoolSpec {
        &self.spec
    }

    pub(crate) fn origins(&self) -> &[Rc<Origin>] {
        &self.origins
    }

    /// The origin for the next attempt: in, with an address, and not yet tried for this request.
    pub(crate) fn pick(&self, now: CoreTime, tried: &[Rc<Origin>]) -> Option<Rc<Origin>> {
        let is_usable = |origin: &Rc<Origin>| {
            origin.may_have_addr()
                && origin.is_in(now)
                && !tried.iter().any(|other| Rc::ptr_eq(other, origin))
        };
        if let [only] = &self.origins[..] {
            return is_usable(only).then(|| only.clone());
        }
        let count = self.origins.len();
        let start = self.next.get();
        let usable = (0..count).map(|step| (start + step) % count).filter(|at| is_usable(&self.origins[*at]));
        let at = match self.spec.balance {
            Balance::RoundRobin => usable.min_by_key(|_| 0),
            // The first of equals in turn, so that idle origins share the load.
            Balance::LeastConnections => usable.min_by_key(|at| self.origins[*at].active.get()),
        }?;
        self.next.set((at + 1) % count);
        Some(self.origins[at].clone())
    }

    /// A kept connection to `origin` that is alive as far as this core knows, and began by naming this client.
    pub(crate) fn take_idle(&self, origin: &Origin, named: &Named, now: CoreTime) -> Option<OriginStream> {
        loop {
            let mut idle = origin.idle.borrow_mut();
            let found = match named {
                None => idle.pop_back(),
                Some(_) => {
                    let at = idle.iter().rposition(|kept| kept.named == *named);
                    at.and_then(|at| idle.remove(at))
                }
            };
            drop(idle);
            let Idle { until, mut stream, .. } = found?;
            self.stats.origin_idle.dec();
            if now < until && stream.is_reusable() {
                return stream.0.take();
            }
        }
    }

    /// A connection for a request: a stream of one that others share, or else one of its own.
    ///
    /// # Errors
    /// Why not; shared by those who waited for the same dial.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        named: &Named,
        shared: &Shared,
    ) -> Result<Upstream, Rc<TlsDialError>> {
        let Some(http2) = &origin.http2 else {
            let stream = origin.dial(named).await.map_err(Rc::new)?;
            shared.stats.origin_connects.inc();
            return Ok(Upstream::Http1(Box::new(ClientStream::over(stream, shared.origin_limits))));
        };
        loop {
            if let Some(stream) = self.take_shared(origin) {
                return Ok(stream);
            }
            let dialling = match http2.join().await {
                Join::Dial(dialling) => dialling,
                Join::Again => continue,
                Join::Failed(error) => return Err(error),
            };
            let mut stream = match origin.dial(named).await.map_err(Rc::new) {
                Ok(stream) => stream,
                Err(error) => {
                    dialling.failed(&error);
                    return Err(error);
                }
            };
            shared.stats.origin_connects.inc();
            let agreed = stream.transport().tls().and_then(|tls| tls.alpn.map(|name| name == b"h2"));
            if !agreed.unwrap_or(origin.is_h2c) {
                dialling.alone();
                return Ok(Upstream::Http1(Box::new(ClientStream::over(stream, shared.origin_limits))));
            }
            let (client, drive) = Http2Client::start(&shared.runtime, stream, shared.origin_http2.clone());
            let open = OpenShared::new(&shared.stats);
            shared.core.spawn_detached(async move {
                drive.await;
                drop(open);
            });
            dialling.shared(client);
        }
    }

    /// A stream of a connection that others share.
    pub(super) fn take_shared(&self, origin: &Origin) -> Option<Upstream> {
        let client = origin.http2.as_ref()?.take()?;
        let scheme = if origin.is_h2c { uri::Scheme::HTTP } else { uri::Scheme::HTTPS };
        Some(Upstream::Http2(Box::new(Http2Leg::new(client, scheme))))
    }

    /// Keeps a connection for the next request, of the same client where it began by naming one.
    pub(crate) fn put_idle(&self, origin: &Origin, stream: OriginStream, named: Named, now: CoreTime) {
        let mut idle = origin.idle.borrow_mut();
        if self.spec.max_idle_per_core == 0 || origin.is_gone.get() || !stream.is_reusable() {
            return;
        }
        if idle.len() >= self.spec.max_idle_per_core {
            // One that names a client is of no use to others: the oldest of them may wait for one that has gone.
            if named.is_none() || idle.pop_front().is_none() {
                return;
            }
            self.stats.origin_idle.dec();
        }
        let stream = Kept(Some(stream));
        idle.push_back(Idle { until: now + self.spec.idle_timeout, stream, named });
        self.stats.origin_idle.inc();
    }

    /// Closes kept connections that are too old or that the origin has ended.
    pub(crate) fn reap(&self, now: CoreTime, instant: Instant) {
        for origin in &self.origins {
            if let Some(http2) = &origin.http2 {
                http2.reap(instant, self.spec.idle_timeout);
            }
            let mut idle = origin.idle.borrow_mut();
            let before = idle.len();
            idle.retain(|kept| now < kept.until && kept.stream.is_reusable());
            (idle.len()..before).for_each(|_| self.stats.origin_idle.dec());
        }
    }

    /// Closes every kept connection.
    pub(crate) fn close_idle(&self) {
        self.origins.iter().for_each(|origin| self.close_idle_of(origin));
    }

    fn close_idle_of(&self, origin: &Origin) {
        if let Some(http2) = &origin.http2 {
            http2.drain();
        }
        let closed = std::mem::take(&mut *origin.idle.borrow_mut());
        closed.iter().for_each(|_| self.stats.origin_idle.dec());
    }

    /// Closes the oldest of those that are more than may be kept.
    fn trim(&self, origin: &Origin) {
        let mut idle = origin.idle.borrow_mut();
        let surplus = idle.len().saturating_sub(self.spec.max_idle_per_core);
        idle.drain(..surplus).for_each(|_| self.stats.origin_idle.dec());
    }

    /// The origin has left the config: what it keeps is closed, and so is what requests in flight bring back.
    pub(crate) fn give_up(&self, origin: &Origin) {
        origin.is_gone.set(true);
        self.close_idle_of(origin);
    }

    /// Notes that an origin could not be reached, was too slow or broke off. Too many leave it out for a while.
    pub(crate) fn failed(&self, origin: &Origin, now: CoreTime) {
        let health = &self.spec.health;
        // Requests that were in flight as it was left out tell nothing new when they fail, too.
        if health.max_fails == 0 || !origin.is_in(now) {
            return;
        }
        // Leaving out the only one would turn each of its failures into an outage.
        if self.origins.len() == 1 {
            return;
        }
        let mut failures = origin.failures.borrow_mut();
        failures.push_back(now);
        while failures.front().is_some_and(|at| now.duration_since(*at) > health.fail_window) {
            failures.pop_front();
        }
        if failures.len() >= health.max_fails as usize {
            failures.clear();
            origin.ejected_until.set(Some(now + health.ejection));
            self.stats.origin_ejections.inc();
            tracing::warn!(
                pool = self.name(),
                origin = origin.name,
                seconds = health.ejection.as_secs_f32(),
                "origin left out after {} failures",
                health.max_fails
            );
        }
    }

    /// Notes that an origin answered.
    pub(crate) fn succeeded(&self, origin: &Origin) {
        if !origin.failures.borrow().is_empty() {
            origin.failures.borrow_mut().clear();
        }
    }
}

impl Origin {
    fn new(spec: &OriginSpec, pool: &OriginPoolSpec, runtime: &Native, tls: &OriginTls) -> Self {
        let name = spec.address.to_string();
        let host = match spec.address {
            OriginAddress::Host { .. } => Authority::new(&name).ok(),
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => None,
        };
        let target = NetAddr::of_origin(spec.address.clone());
        // Names are kept here, and looked up again as often as the pool says.
        let dial = spec.dial.clone().within(pool.connect_timeout).without_cache();
        let addrs = dial.replaced(&target).address().connect_addr();
        let offers = dial.tls().is_some_and(|tls| tls.common().alpn.iter().any(|name| name == "h2"));
        Origin {
            name,
            host,
            target,
            dialer: TlsDialer::with(&dial, tls.of(&dial), runtime),
            tells_client: dial.proxy_protocol().is_some(),
            addrs: RefCell::new(addrs.map_or(Addrs::Unknown, |addr| Addrs::Known(vec![addr]))),
            next_addr: Cell::new(0),
            active: Cell::new(0),
            failures: RefCell::new(VecDeque::new()),
            ejected_until: Cell::new(None),
            idle: RefCell::new(VecDeque::new()),
            http2: (spec.h2c || offers).then(Multiplexed::default),
            is_h2c: spec.h2c,
            is_gone: Cell::new(false),
        }
    }

    fn is_in(&self, now: CoreTime) -> bool {
        match self.ejected_until.get() {
            Some(until) if now < until => false,
            Some(_) => {
                self.ejected_until.set(None);
                true
            }
            None => true,
        }
    }

    /// Whether it is found by a name, which is looked up from time to time.
    pub(crate) fn has_name(&self) -> bool {
        self.dialer.spec().replaced(&self.target).address().connect_addr().is_none()
    }

    /// Replaces the addresses after a look-up.
    pub(crate) fn set_addrs(&self, addrs: Vec<ConnectAddr>) {
        *self.addrs.borrow_mut() = Addrs::Known(addrs);
    }

    /// Notes that its name has no address, unless one is known: the last good answer stays.
    pub(crate) fn has_no_addr(&self) {
        let mut addrs = self.addrs.borrow_mut();
        if matches!(*addrs, Addrs::Unknown) {
            *addrs = Addrs::Known(Vec::new());
        }
    }

    /// Whether it is worth a dial.
    fn may_have_addr(&self) -> bool {
        !matches!(&*self.addrs.borrow(), Addrs::Known(addrs) if addrs.is_empty())
    }

    /// Looks its name up, as its spec says.
    pub(crate) async fn resolve(&self) -> Result<Vec<ConnectAddr>, DialError> {
        self.dialer.resolve(&self.target).await
    }

    /// Whether a connection begins by naming the client for which it is made.
    #[inline]
    pub(crate) fn tells_client(&self) -> bool {
        self.tells_client
    }

    /// Connects, to the next of its addresses first, for a client that it is named of where it is named of any.
    pub(crate) async fn dial(&self, client: &Named) -> Result<Stream<OriginConn>, TlsDialError> {
        let addrs = match &*self.addrs.borrow() {
            Addrs::Unknown => None,
            Addrs::Known(addrs) => Some(self.in_turn(addrs)),
        };
        let client = client.as_deref().unwrap_or(&Header::Local);
        match addrs {
            Some(addrs) => self.dialer.dial_known(&self.target, &addrs, client).await,
            None => self.dialer.dial_for(&self.target, client).await,
        }
    }

    /// The addresses with another first each time, so that all get their share.
    fn in_turn(&self, addrs: &[ConnectAddr]) -> Vec<ConnectAddr> {
        let first = self.next_addr.get();
        self.next_addr.set(first.wrapping_add(1));
        let (before, after) = addrs.split_at(first.checked_rem(addrs.len()).unwrap_or(0));
        [after, before].concat()
    }

    /// Counts a request in flight until the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.active.set(self.active.get() + 1);
        ActiveRequest(self.clone())
    }
}

/// A shared connection in the statistics, however it ends.
struct OpenShared(Arc<ProxyStats>);

impl OpenShared {
    fn new(stats: &Arc<ProxyStats>) -> Self {
        stats.origin_shared.inc();
        OpenShared(stats.clone())
    }
}

impl Drop for OpenShared {
    fn drop(&mut self) {
        self.0.origin_shared.dec();
    }
}

/// A request in flight at an origin.
pub(crate) struct ActiveRequest(Rc<Origin>);

impl ActiveRequest {
    /// Where it is.
    pub(crate) fn origin(&self) -> &Rc<Origin> {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// How often kept connections are looked over.
pub(super) const REAP_INTERVAL: Duration = Duration::from_secs(1);
