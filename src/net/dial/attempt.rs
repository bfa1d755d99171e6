//! One attempt: a socket with its options and its local address, connected.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use ringport_platform::sockopt::{Kind, OptSet, Role, Stage, Target};

use super::error::AttemptError;
use super::{Attempt, Inner};
use crate::net::listen::bounded::{Bounded, Bounds};
use crate::runtime::{ConnectAddr, DialOptions, OpenError, Opened, Runtime, Transport, open_dialled};
use crate::spec::{Address, Deadlines, DialSpec, NetAddr, OnUnsupported, OriginAddress};

/// The options of each sort of socket that was dialled, made from the spec once.
#[derive(Default)]
pub(super) struct OptionSets(RefCell<Vec<(Key, OptionSet)>>);

/// The sort of socket of the target's network, and that of an address of it.
type Key = (Target, Target);

#[derive(Clone)]
struct OptionSet {
    set: Arc<OptSet>,
    /// Whether what the kernel made of it was looked at, and told where it surprises.
    is_read_back: bool,
}

/// Makes a socket and starts to connect it. Nothing of it is left when this, or what it gives, fails or is dropped.
pub(super) fn begin<R: Runtime>(
    dialer: &Inner<R>,
    to: &NetAddr<OriginAddress>,
    addr: &ConnectAddr,
) -> Result<Attempt<Bounded<R>>, AttemptError> {
    if let Some(local) = dialer.spec.local()
        && local.network().carries() != to.network().carries()
    {
        return Err(AttemptError::LocalNetwork { local: local.network(), network: to.network() });
    }
    let target = Target::at(addr, Kind::Stream, Role::Dialled);
    let (opened, set, file) = open(dialer, to, target, addr)?;
    let connecting = dialer.runtime.connect_opened(opened, addr);
    let runtime = dialer.runtime.clone();
    Ok(Box::pin(async move {
        let stream = connecting.await.map_err(AttemptError::Connect)?;
        // The peer has seen the name, and a connected socket needs it no longer.
        drop(file);
        if set.has_stage(Stage::Connected, target) {
            stream.set_options(&set, Stage::Connected, target).map_err(AttemptError::Connected)?;
        }
        // The kernel does not enforce time limits on sockets that do not block.
        let (read, write) = (set.receive_timeout(), set.send_timeout());
        let rearmed = set.has_stage(Stage::Rearm, target).then_some((set, target));
        let deadlines = Deadlines { read, write, connection: None };
        Ok(Bounded::new(&runtime, stream, &Bounds { deadlines, rearmed }))
    }))
}

fn open<R: Runtime>(
    dialer: &Inner<R>,
    to: &NetAddr<OriginAddress>,
    target: Target,
    addr: &ConnectAddr,
) -> Result<(Opened, Arc<OptSet>, Option<BoundFile>), AttemptError> {
    let bound = dialer.spec.local().map(|local| ConnectAddr::from(local.address()));
    let file = dialer.spec.local().and_then(BoundFile::to_come);
    let (key, mut options) = dialer.options.of(&dialer.spec, to, target)?;
    loop {
        let read_back = !options.is_read_back;
        let asked =
            DialOptions { kind: target.kind, local: bound.as_ref(), options: &options.set, read_back };
        match open_dialled(addr, asked) {
            Ok(opened) => {
                for effective in opened.applied.iter().filter(|effective| effective.is_surprising()) {
                    tracing::warn!(%target, "{effective}");
                }
                options.is_read_back = true;
                dialer.options.keep(key, &options);
                return Ok((opened, options.set, file));
            }
            Err(OpenError::Option(error))
                if error.is_unsupported()
                    && dialer.spec.sock_options().on_unsupported() == OnUnsupported::Warn =>
            {
                tracing::warn!(%target, "skipped: {error}");
                let mut set = (*options.set).clone();
                if set.remove(error.opt).is_none() {
                    return Err(AttemptError::Open(OpenError::Option(error)));
                }
                options.set = Arc::new(set);
            }
            Err(error) => {
                // Whoever has the name has it still.
                if let (OpenError::LocalAddr { .. }, Some(file)) = (&error, file) {
                    file.leave();
                }
                return Err(AttemptError::Open(error));
            }
        }
    }
}

impl OptionSets {
    /// What of the spec such a socket has. An option that the target's network has is left out on addresses of the family
    /// that lacks it; one that the network lacks is refused, or skipped with a warning, as the spec says.
    fn of(
        &self,
        spec: &DialSpec,
        to: &NetAddr<OriginAddress>,
        target: Target,
    ) -> Result<(Key, OptionSet), AttemptError> {
        let ip = match to.address() {
            OriginAddress::Host { host, .. } => host.parse().ok(),
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => None,
        };
        let network = to.network().target(Role::Dialled, ip);
        if let Some((_, known)) = self.0.borrow().iter().find(|(key, _)| *key == (network, target)) {
            return Ok(((network, target), known.clone()));
        }
        let refused = |faults| AttemptError::Options { target: network, faults };
        let (set, skipped) = spec.socket_options(network).map_err(refused)?;
        for fault in skipped {
            tracing::warn!(target = %network, "skipped: {fault}");
        }
        Ok(((network, target), OptionSet { set: Arc::new(set.fitting(target).0), is_read_back: false }))
    }

    /// There are as many as sorts of sockets, about a dozen.
    fn keep(&self, key: Key, options: &OptionSet) {
        let mut known = self.0.borrow_mut();
        match known.iter_mut().find(|(other, _)| *other == key) {
            Some((_, kept)) => *kept = options.clone(),
            None => known.push((key, options.clone())),
        }
    }
}

/// The file that a bind to a path makes; removed on drop.
struct BoundFile(Option<PathBuf>);

impl BoundFile {
    /// Of a bind that has not happened; `None` where there is no path, or something has it, which stays.
    fn to_come(local: &NetAddr<Address>) -> Option<Self> {
        match local.address() {
            Address::Unix(path) if path.symlink_metadata().is_err() => Some(BoundFile(Some(path.clone()))),
            Address::Unix(_) | Address::UnixAbstract(_) | Address::Inet(_) => None,
        }
    }

    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}
