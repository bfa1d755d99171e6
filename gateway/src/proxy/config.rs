//! What of a config one core works with, replaced as a whole.
//!
//! ```text
//! read and checked --listeners opened--> Snapshot, of all cores --between two turns, by each core--> Config
//! Config --another came--> held by the requests that began with it --the last of them ends--> dropped
//! ```
//! An origin that stays keeps its connections, its health and its addresses; those of one that goes are closed.

use std::rc::Rc;
use std::sync::Arc;

use ringport::http::Connections;
use ringport::proto::http1;
use ringport::runtime::native::Native;
use ringport::spec::ProxySpec;
use ringport_platform::launch::DrainSignal;

use super::http2::connection_spec;
use super::log::LogSender;
use super::pool::{OriginPool, OriginTls};
use super::routes::Routes;
use super::stats::ProxyStats;

/// A config as every core is told of it. It never changes.
pub(super) struct Snapshot {
    /// Counts from 0, the config of the start.
    pub generation: u64,
    pub spec: Arc<ProxySpec>,
    pub log: LogSender,
    pub origin_tls: OriginTls,
}

/// A config on one core.
pub(crate) struct Config {
    pub generation: u64,
    pub spec: Arc<ProxySpec>,
    /// Of clients' heads and bodies.
    pub limits: http1::Limits,
    /// Clients of HTTP/2 that came while it was in effect.
    pub http2: Connections<Native>,
    pub routes: Routes,
    pub pools: Vec<Rc<OriginPool>>,
    pub log: LogSender,
    /// Raised when another takes its place.
    pub replaced: DrainSignal,
}

impl Config {
    /// Takes over from `before` the origins that stay.
    pub(super) fn new(
        snapshot: &Snapshot,
        before: &[Rc<OriginPool>],
        runtime: &Native,
        stats: &Arc<ProxyStats>,
    ) -> Self {
        let spec = snapshot.spec.clone();
        let pool = |spec| {
            let same = before.iter().find(|pool| pool.spec() == spec);
            same.cloned().unwrap_or_else(|| {
                OriginPool::new(spec, before, (runtime, &snapshot.origin_tls), stats.clone())
            })
        };
        let pools: Vec<_> = spec.pools().iter().map(pool).collect();
        let limits = spec.limits();
        Config {
            generation: snapshot.generation,
            limits: http1::Limits {
                request_line_bytes: limits.request_line_bytes,
                head_bytes: limits.header_bytes,
                header_count: limits.header_count,
                body_bytes: limits.body_bytes,
                ..http1::Limits::default()
            },
            http2: Connections::new(runtime, connection_spec(&spec)),
            routes: Routes::new(&spec, &pools),
            pools,
            log: snapshot.log.clone(),
            replaced: DrainSignal::default(),
            spec,
        }
    }

    /// Another has taken its place: what only this one has is given up. Requests that began with it go on.
    pub(super) fn retire(&self, successor: &Config) {
        self.replaced.raise();
        let kept: Vec<_> = successor.pools.iter().flat_map(|pool| pool.origins()).collect();
        for pool in &self.pools {
            for origin in pool.origins() {
                if !kept.iter().any(|other| Rc::ptr_eq(other, origin)) {
                    pool.give_up(origin);
                }
            }
        }
    }
}
