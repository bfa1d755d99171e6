//! Listening sockets, opened before any core starts, so that a fault is one sentence and nothing has begun.

use std::fmt;

use ringport::net::{ListenHandle, ListenPart};
use ringport::runtime::LocalAddr;
use ringport::spec::{Address, ListenSpec, NetAddr, ProxySpec};
use ringport_platform::socket;

/// One core's share of a listener.
pub(super) struct CoreListener {
    pub part: ListenPart,
    /// What one turn of it may take.
    pub burst_len: usize,
}

/// A listener that is open, seen by the main thread.
pub(super) struct Bound {
    pub name: String,
    addr: LocalAddr,
    pub handle: ListenHandle,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.addr {
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

/// Opens the admin listener, if the spec has one.
///
/// # Errors
/// As [`open_all`].
pub(super) fn open_admin(spec: &ProxySpec) -> Result<Option<(Bound, CoreListener)>, String> {
    let Some(address) = spec.admin() else { return Ok(None) };
    let listen = admin_spec(address)?;
    let (bound, parts) = open("admin", &listen, 1)?;
    Ok(parts.into_iter().next().map(|part| (bound, part)))
}

fn admin_spec(address: &Address) -> Result<ListenSpec, String> {
    let builder = ListenSpec::builder(NetAddr::of_stream(address.clone()));
    builder.build().map_err(|errors| format!("admin: {errors}"))
}

fn open(name: &str, spec: &ListenSpec, cores: usize) -> Result<(Bound, Vec<CoreListener>), String> {
    let parts = ListenPart::open(spec, cores).map_err(|error| format!("listener {name}: {error}"))?;
    let burst_len = socket::burst_len(i32::try_from(spec.backlog()).unwrap_or(i32::MAX));
    let first = parts.first().expect("a part for each core");
    let bound = Bound { name: name.to_owned(), addr: first.local_addr().clone(), handle: first.handle() };
    Ok((bound, parts.into_iter().map(|part| CoreListener { part, burst_len }).collect()))
}
