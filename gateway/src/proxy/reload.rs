//! Another config for a proxy that runs: all of it, or nothing.
//!
//! ```text
//! file --read and checked--> spec --what cannot change while it runs--> refused
//!      --new listeners and the log opened--> every core swaps, between two turns --> rules of listeners that stay, limits
//!      --any fault--> told, counted; what was opened is closed, and the old config stays whole
//! ```
//! A listener stays where its address does: its socket is not touched, and nobody in its accept queue is lost. What needs a
//! new socket at an address that is in use is refused, since the handshakes that are under way would be lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ringport::net::tls::ServerTls;
use ringport::spec::{Address, ListenSource, ListenSpec, ProxySpec};

use super::config::Snapshot;
use super::listeners::{self, Bound, CoreListener, ListenerId};
use super::pool::OriginTls;
use super::serving::{self, Update};
use super::{Running, log, max_connections};
use crate::{Failure, check};

/// A core turns many times in a second; one that does not in so long will not.
const CORE_PATIENCE: Duration = Duration::from_secs(10);

/// A listener that stays: its place, and the name and spec that it has from now on.
type Kept = (usize, String, ListenSpec);

/// What a new config asks of the main thread.
#[derive(Default)]
struct Change {
    opened: Vec<(Bound, Vec<CoreListener>)>,
    kept: Vec<Kept>,
    admin: AdminChange,
    faults: Vec<String>,
}

#[derive(Default)]
enum AdminChange {
    #[default]
    Stays,
    Closes,
    Opens(Box<(Bound, CoreListener)>),
}

impl Running {
    /// Reads the file anew and takes what it says, or tells why it stays with what it has.
    pub(super) fn reload(&mut self, path: &Path) {
        let outcome = match check::read_proxy_at_once(path) {
            Ok(spec) => self.replace(spec),
            Err(Failure::Sentence(sentence)) => Err(vec![sentence]),
            Err(Failure::Faults(faults)) => Err(faults.iter().map(ToString::to_string).collect()),
        };
        match outcome {
            Ok(summary) => {
                self.control.config_reloads.inc();
                tracing::info!("config reloaded from {}: {summary}", path.display());
            }
            Err(faults) => {
                self.control.config_reload_failures.inc();
                faults.iter().for_each(|fault| tracing::error!("{fault}"));
                tracing::error!(
                    faults = faults.len(),
                    "config not reloaded from {}: the one before stays in effect",
                    path.display()
                );
            }
        }
    }

    /// Puts a config in the place of the one in effect.
    fn replace(&mut self, spec: ProxySpec) -> Result<String, Vec<String>> {
        let spec = Arc::new(spec);
        let mut change = Change { faults: self.fixed(&spec), ..Change::default() };
        self.match_listeners(&spec, &mut change);
        let origin_tls = self.load_tls(&spec, &mut change);
        let log = self.changed_log(&spec, &mut change);
        if !change.faults.is_empty() {
            // What was opened closes with the change.
            return Err(change.faults);
        }
        let Change { opened, kept, admin, .. } = change;
        let (sender, writer) = log.map_or_else(|| (self.sender.clone(), None), |(s, w)| (s, Some(w)));
        self.generation += 1;
        let snapshot = Arc::new(Snapshot {
            generation: self.generation,
            spec: spec.clone(),
            log: sender.clone(),
            origin_tls: origin_tls.clone(),
        });
        let (opened, mut parts): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let closed: Vec<_> = (0..self.bound.len())
            .filter(|at| !kept.iter().any(|(kept, ..)| kept == at))
            .map(|at| self.bound[at].id)
            .collect();
        let summary =
            format!("{} listeners opened, {} closed, {} stay", opened.len(), closed.len(), kept.len());
        let (admin, mut admin_part) = match admin {
            AdminChange::Stays => (None, None),
            AdminChange::Closes => (Some(None), None),
            AdminChange::Opens(opened) => (Some(Some(opened.0)), Some(opened.1)),
        };
        let updates = (0..self.cores).map(|core| Update {
            snapshot: snapshot.clone(),
            opened: parts.iter_mut().filter_map(Vec::pop).collect(),
            closed: closed.clone(),
            admin: if core == 0 { admin_part.take() } else { None },
        });
        self.publish(updates.collect());
        self.settle(spec, (opened, closed, kept), admin);
        self.origin_tls = origin_tls;
        self.renew_tls();
        if let Some(writer) = writer {
            self.sender = sender;
            self.writers.retain(|writer| !writer.is_finished());
            self.writers.push(writer);
        }
        Ok(summary)
    }

    /// What of the new config cannot be had without a restart.
    fn fixed(&self, spec: &ProxySpec) -> Vec<String> {
        let (before, after) = (self.spec.runtime(), spec.runtime());
        let cores = |cores: Option<usize>| cores.unwrap_or(self.cores);
        let changes = [
            ("cores", cores(before.cores) != cores(after.cores)),
            ("driver", before.driver != after.driver),
            ("pool_min_bytes", before.pool_min_bytes != after.pool_min_bytes),
            ("pool_max_bytes", before.pool_max_bytes != after.pool_max_bytes),
            ("affinity", before.affinity != after.affinity),
        ];
        let changed = changes.into_iter().filter(|(_, differs)| *differs);
        changed.map(|(field, _)| format!("runtime.{field}: only a restart can change it")).collect()
    }

    /// Finds the listeners that stay, and opens those that are new.
    fn match_listeners(&self, spec: &ProxySpec, change: &mut Change) {
        for (index, listener) in spec.listeners().iter().enumerate() {
            let found = self.bound.iter().position(|bound| is_same(bound, &listener.name, &listener.listen));
            let Some(at) = found else {
                match listeners::open(&listener.name, &listener.listen, self.cores) {
                    Ok(opened) => change.opened.push(opened),
                    Err(error) => change.faults.push(error),
                }
                continue;
            };
            for field in self.bound[at].spec.socket_changes(&listener.listen) {
                change.faults.push(format!(
                    "listeners[{index}].listen_config.{field}: it cannot change while {} is listened at; give it another \
                     address, or restart",
                    self.bound[at].address()
                ));
            }
            change.kept.push((at, listener.name.clone(), listener.listen.clone()));
        }
        change.admin = match spec.admin() {
            after if after == self.spec.admin() => AdminChange::Stays,
            None => AdminChange::Closes,
            Some(address) => match listeners::open_admin(address) {
                Ok(opened) => AdminChange::Opens(Box::new(opened)),
                Err(error) => {
                    change.faults.push(error);
                    AdminChange::Stays
                }
            },
        };
    }

    /// Reads the files of TLS, of listeners that stay and of origins. Those in use stay so: another part may have a fault.
    fn load_tls(&self, spec: &ProxySpec, change: &mut Change) -> OriginTls {
        for (at, name, _) in &change.kept {
            if let Some(Err(errors)) = self.bound[*at].tls.as_ref().map(|tls| ServerTls::load(tls.spec())) {
                let faults = errors.faults().iter().map(|fault| format!("listener {name}: {fault}"));
                change.faults.extend(faults);
            }
        }
        OriginTls::load(spec, &self.origin_tls).unwrap_or_else(|faults| {
            change.faults.extend(faults);
            OriginTls::default()
        })
    }

    /// Puts what the files of TLS hold into use. They were in order a moment ago.
    fn renew_tls(&self) {
        let listeners = self.bound.iter().filter_map(|bound| bound.tls.as_ref()).map(ServerTls::reload);
        for errors in listeners.chain(self.origin_tls.reload()).filter_map(Result::err) {
            tracing::error!("TLS is not renewed, and the one before stays in use: {errors}");
        }
    }

    /// The access log, where it is another now.
    fn changed_log(&self, spec: &ProxySpec, change: &mut Change) -> Option<(log::LogSender, log::LogWriter)> {
        if spec.access_log() == self.spec.access_log() || !change.faults.is_empty() {
            return None;
        }
        let started = log::start(spec.access_log(), self.log_stats.clone());
        started.map_err(|error| change.faults.push(error.to_string())).ok()
    }

    /// Every core takes its part between two of its turns; returns when all have.
    fn publish(&self, updates: Vec<Update>) {
        let (tell, told) = channel();
        for (remote, update) in self.launched.remotes().into_iter().zip(updates) {
            let tell = tell.clone();
            remote.call(move |_| {
                // Nobody listens any more where it took too long.
                let _ = tell.send(serving::apply(update));
            });
        }
        drop(tell);
        loop {
            match told.recv_timeout(CORE_PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("a new listener is not served by a core: {error}"),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    return tracing::error!("a core does not turn, and has the config before");
                }
            }
        }
    }

    /// Brings what the main thread has up to date.
    fn settle(
        &mut self,
        spec: Arc<ProxySpec>,
        (opened, closed, kept): (Vec<Bound>, Vec<ListenerId>, Vec<Kept>),
        admin: Option<Option<Bound>>,
    ) {
        for (at, name, listen) in kept {
            let bound = &mut self.bound[at];
            if bound.spec != listen {
                bound.handle.update(&listen);
            }
            (bound.name, bound.spec) = (name, listen);
        }
        self.bound.retain(|bound| !closed.contains(&bound.id));
        opened.iter().for_each(|bound| tracing::info!("listening: {bound}"));
        self.bound.extend(opened);
        if let Some(admin) = admin {
            if let Some(before) = std::mem::replace(&mut self.admin, admin) {
                before.handle.close();
            }
            self.admin.iter().for_each(|bound| tracing::info!("listening: {bound}"));
        }
        self.connections.set_max(max_connections(&spec, self.fd_limit).0);
        self.spec = spec;
        self.show_listeners();
    }
}

/// Whether an open listener is the one that a new config means: the same address, and of those for which the kernel chooses
/// a port the one of that name.
fn is_same(bound: &Bound, name: &str, listen: &ListenSpec) -> bool {
    let chosen = match listen.source() {
        ListenSource::Address(address) => has_any_port(address.address()),
        ListenSource::Inherited(_) => false,
    };
    bound.spec.source() == listen.source() && (!chosen || bound.name == name)
}

fn has_any_port(address: &Address) -> bool {
    matches!(address, Address::Inet(addr) if addr.port() == 0)
}
