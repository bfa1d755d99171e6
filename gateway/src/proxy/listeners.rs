//! Listening sockets, opened before any core has them, so that a fault is one sentence and nothing has begun.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ringport::net::ListenHandle;
use ringport::net::tls::{ServerTls, TlsListenPart};
use ringport::runtime::LocalAddr;
use ringport::spec::{Address, ListenSpec, NetAddr, ProxySpec};
use ringport_platform::socket;

/// Names a listener to the cores as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerId(u64);

/// One core's share of a listener.
pub(super) struct CoreListener {
    pub id: ListenerId,
    pub part: TlsListenPart,
    /// What one turn of it may take.
    pub burst_len: usize,
}

/// A listener that is open, seen by the main thread.
pub(super) struct Bound {
    pub id: ListenerId,
    pub name: String,
    pub spec: ListenSpec,
    addr: LocalAddr,
    pub handle: ListenHandle,
    /// To be loaded again; `None` without TLS.
    pub tls: Option<ServerTls>,
}

impl Bound {
    /// Where it listens.
    pub(super) fn address(&self) -> &LocalAddr {
        &self.addr
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.addr {
            LocalAddr::Inet(addr) if self.tls.is_some() => write!(f, "{} https://{addr}", self.name),
            LocalAddr::Inet(addr) => write!(f, "{} http://{addr}", self.name),
            LocalAddr::Unix(_) => write!(f, "{} {}", self.name, self.addr),
        }
    }
}

/// Opens every listener of a spec for so many cores. The outer list of the second value is by core.
///
/// # Errors
/// One sentence that names the listener; what was opened before is closed again.
pub(super) fn open_all(
    spec: &ProxySpec,
    cores: usize,
) -> Result<(Vec<Bound>, Vec<Vec<CoreListener>>), String> {
    let mut bound = Vec::new();
    let mut per_core: Vec<Vec<CoreListener>> = (0..cores).map(|_| Vec::new()).collect();
    for listener in spec.listeners() {
        let (opened, parts) = open(&listener.name, &listener.listen, cores)?;
        bound.push(opened);
        for (core, part) in per_core.iter_mut().zip(parts) {
            core.push(part);
        }
    }
    Ok((bound, per_core))
}

/// Opens the admin listener, for one core.
///
/// # Errors
/// One sentence; nothing is left of it then.
pub(super) fn open_admin(address: &Address) -> Result<(Bound, CoreListener), String> {
    let spec = ListenSpec::builder(NetAddr::of_stream(address.clone())).build();
    let spec = spec.map_err(|errors| format!("admin: {errors}"))?;
    let (bound, mut parts) = open("admin", &spec, 1)?;
    Ok((bound, parts.pop().expect("a part for each core")))
}

/// Opens one listener, with a part for each core.
///
/// # Errors
/// One sentence that names it; nothing is left of it then.
pub(super) fn open(
    name: &str,
    spec: &ListenSpec,
    cores: usize,
) -> Result<(Bound, Vec<CoreListener>), String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let parts = TlsListenPart::open(spec, cores);
    let parts = parts.map_err(|error| format!("listener {name}: {error}").replace('\n', "; "))?;
    let burst_len = socket::burst_len(i32::try_from(spec.backlog()).unwrap_or(i32::MAX));
    let first = parts.first().expect("a part for each core");
    let id = ListenerId(NEXT.fetch_add(1, Ordering::Relaxed));
    let bound = Bound {
        id,
        name: name.to_owned(),
        spec: spec.clone(),
        addr: first.local_addr().clone(),
        handle: first.handle(),
        tls: first.tls().cloned(),
    };
    Ok((bound, parts.into_iter().map(|part| CoreListener { id, part, burst_len }).collect()))
}
