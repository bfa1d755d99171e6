//! The origins of a pool as one core sees them: which to try, which to leave out, which connections are kept.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringport::http::ClientStream;
use ringport::proto::http1::Authority;
use ringport::runtime::ConnectAddr;
use ringport::runtime::native::NativeStream;
use ringport::spec::{Balance, OriginAddress, OriginPoolSpec};
use ringport_platform::timer::later;

use super::stats::ProxyStats;

/// A connection to an origin. Behind a pointer, since it moves between the pool and requests.
pub(crate) type OriginStream = Box<ClientStream<NativeStream>>;

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
    pub address: OriginAddress,
    addrs: RefCell<Vec<ConnectAddr>>,
    next_addr: Cell<usize>,
    active: Cell<u32>,
    failures: RefCell<VecDeque<Instant>>,
    ejected_until: Cell<Option<Instant>>,
    /// With the time until which each may be used.
    idle: RefCell<VecDeque<(Instant, OriginStream)>>,
}

impl OriginPool {
    pub(crate) fn new(spec: &OriginPoolSpec, stats: Arc<ProxyStats>) -> Rc<Self> {
        let origins = spec.origins.iter().map(|origin| Rc::new(Origin::new(&origin.address))).collect();
        Rc::new(OriginPool { spec: spec.clone(), origins, next: Cell::new(0), stats })
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
    pub(crate) fn pick(&self, now: Instant, tried: &[Rc<Origin>]) -> Option<Rc<Origin>> {
        let is_usable = |origin: &Rc<Origin>| {
            origin.addr_count() > 0
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

    /// A kept connection to `origin` that is alive as far as this core knows.
    pub(crate) fn take_idle(&self, origin: &Origin, now: Instant) -> Option<OriginStream> {
        loop {
            let (until, stream) = origin.idle.borrow_mut().pop_back()?;
            self.stats.origin_idle.dec();
            if now < until && stream.is_reusable() {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put_idle(&self, origin: &Origin, stream: OriginStream, now: Instant) {
        let mut idle = origin.idle.borrow_mut();
        if idle.len() < self.spec.max_idle_per_core && stream.is_reusable() {
            idle.push_back((later(now, self.spec.idle_timeout), stream));
            self.stats.origin_idle.inc();
        }
    }

    /// Closes kept connections that are too old or that the origin has ended.
    pub(crate) fn reap(&self, now: Instant) {
        for origin in &self.origins {
            let mut idle = origin.idle.borrow_mut();
            let before = idle.len();
            idle.retain(|(until, stream)| now < *until && stream.is_reusable());
            (idle.len()..before).for_each(|_| self.stats.origin_idle.dec());
        }
    }

    /// Closes every kept connection.
    pub(crate) fn close_idle(&self) {
        for origin in &self.origins {
            let closed = std::mem::take(&mut *origin.idle.borrow_mut());
            closed.iter().for_each(|_| self.stats.origin_idle.dec());
        }
    }

    /// Notes that an origin could not be reached, was too slow or broke off. Too many leave it out for a while.
    pub(crate) fn failed(&self, origin: &Origin, now: Instant) {
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
    fn new(address: &OriginAddress) -> Self {
        let addrs = match address {
            OriginAddress::Host { host, port } => host
                .parse::<IpAddr>()
                .map(|ip| vec![ConnectAddr::Inet((ip, *port).into())])
                .unwrap_or_default(),
            OriginAddress::Unix(path) => {
                vec![ConnectAddr::Unix(path.to_string_lossy().into_owned().into_bytes())]
            }
            OriginAddress::UnixAbstract(name) => vec![ConnectAddr::Unix([b"\0", name.as_slice()].concat())],
        };
        let name = address.to_string();
        let host = match address {
            OriginAddress::Host { .. } => Authority::new(&name).ok(),
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => None,
        };
        Origin {
            name,
            host,
            address: address.clone(),
            addrs: RefCell::new(addrs),
            next_addr: Cell::new(0),
            active: Cell::new(0),
            failures: RefCell::new(VecDeque::new()),
            ejected_until: Cell::new(None),
            idle: RefCell::new(VecDeque::new()),
        }
    }

    fn is_in(&self, now: Instant) -> bool {
        match self.ejected_until.get() {
            Some(until) if now < until => false,
            Some(_) => {
                self.ejected_until.set(None);
                true
            }
            None => true,
        }
    }

    /// Replaces the addresses after a look-up.
    pub(crate) fn set_addrs(&self, addrs: Vec<ConnectAddr>) {
        *self.addrs.borrow_mut() = addrs;
    }

    /// How many addresses are known: none until the name has resolved.
    pub(crate) fn addr_count(&self) -> usize {
        self.addrs.borrow().len()
    }

    /// The next address in turn; `None` until the name has resolved.
    pub(crate) fn next_addr(&self) -> Option<ConnectAddr> {
        let addrs = self.addrs.borrow();
        let at = self.next_addr.get();
        self.next_addr.set(at.wrapping_add(1));
        addrs.get(at.checked_rem(addrs.len())?).cloned()
    }

    /// Counts a request in flight until the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.active.set(self.active.get() + 1);
        ActiveRequest(self.clone())
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
