//! How many connections there are, against the limits; what is counted; who is woken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use super::Rules;
use crate::spec::{ConnectionLimits, LimitPolicy};

/// What a listener has done with connections so far, over all its cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenStats {
    /// Given out by accept.
    pub accepted: u64,
    /// Closed because the lists of clients keep them out, or because a peer may not send a header.
    pub denied: u64,
    /// Closed because there were as many as may be.
    pub over_limit: u64,
    /// Closed because there were as many from their address as may be.
    pub over_limit_per_address: u64,
    /// Closed because their header was malformed, or ended too soon.
    pub bad_header: u64,
    /// Closed because their header did not come in time.
    pub late_header: u64,
    /// Closed because too many others waited for a header behind them.
    pub crowded_out: u64,
}

/// What the parts of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    limits: Limits,
    open: AtomicUsize,
    /// Of live connections, so there are no more entries than descriptors.
    by_address: Mutex<HashMap<IpAddr, u32>>,
    closed: AtomicBool,
    /// By part.
    acceptors: Mutex<Vec<Option<Waker>>>,
    /// How often the rules were replaced.
    version: AtomicU64,
    rules: Mutex<Arc<Rules>>,
    pub(super) counts: Counts,
}

/// The limits, which may change while connections are open.
#[derive(Debug)]
struct Limits {
    /// `usize::MAX`: none.
    total: AtomicUsize,
    /// 0: none.
    per_address: AtomicU32,
    waits: AtomicBool,
}

impl Limits {
    fn set(&self, limits: ConnectionLimits) {
        let total = limits.total.map_or(usize::MAX, |total| total as usize);
        self.total.store(total, Ordering::SeqCst);
        self.per_address.store(limits.per_address.unwrap_or(0), Ordering::SeqCst);
        self.waits.store(limits.policy == LimitPolicy::Wait, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) over_limit_per_address: AtomicU64,
    pub(super) bad_header: AtomicU64,
    pub(super) late_header: AtomicU64,
    pub(super) crowded_out: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many as may be.
    Total,
    /// There are as many from its address.
    Address,
}

impl Shared {
    pub(super) fn new(limits: ConnectionLimits, rules: Rules, parts: usize) -> Arc<Self> {
        let shared = Shared {
            limits: Limits {
                total: AtomicUsize::default(),
                per_address: AtomicU32::default(),
                waits: AtomicBool::default(),
            },
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            closed: AtomicBool::new(false),
            acceptors: Mutex::new(vec![None; parts]),
            version: AtomicU64::new(0),
            rules: Mutex::new(Arc::new(rules)),
            counts: Counts::default(),
        };
        shared.limits.set(limits);
        Arc::new(shared)
    }

    /// Replaces limits and rules; every part sees them before it accepts again.
    pub(super) fn update(&self, limits: ConnectionLimits, rules: Rules) {
        self.limits.set(limits);
        *lock(&self.rules) = Arc::new(rules);
        self.version.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// The rules, when they are others than those of `version`, which is brought up to date.
    pub(super) fn newer_rules(&self, version: &mut u64) -> Option<Arc<Rules>> {
        let current = self.version.load(Ordering::SeqCst);
        (std::mem::replace(version, current) != current).then(|| lock(&self.rules).clone())
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        lock(&self.rules).clone()
    }

    pub(super) fn stats(&self) -> ListenStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ListenStats {
            accepted: read(&self.counts.accepted),
            denied: read(&self.counts.denied),
            over_limit: read(&self.counts.over_limit),
            over_limit_per_address: read(&self.counts.over_limit_per_address),
            bad_header: read(&self.counts.bad_header),
            late_header: read(&self.counts.late_header),
            crowded_out: read(&self.counts.crowded_out),
        }
    }

    /// Connections that were given out and have not ended.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether connections beyond the limit wait instead of being closed.
    pub(super) fn waits(&self) -> bool {
        self.limits.waits.load(Ordering::SeqCst)
    }

    /// How many more there may be.
    pub(super) fn left(&self) -> usize {
        self.max().saturating_sub(self.open())
    }

    fn max(&self) -> usize {
        self.limits.total.load(Ordering::SeqCst)
    }

    /// Counts a connection.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Full> {
        let max = self.max();
        let below = |open| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).map_err(|_| Full::Total)?;
        // From here on its drop gives it back.
        let mut place = Place { shared: self.clone(), address: None };
        let limit = self.limits.per_address.load(Ordering::SeqCst);
        if let (1.., Some(address)) = (limit, address) {
            let mut by_address = lock(&self.by_address);
            let open = by_address.entry(address.to_canonical()).or_default();
            if *open >= limit {
                return Err(Full::Address);
            }
            *open += 1;
            place.address = Some(address.to_canonical());
        }
        Ok(place)
    }

    /// Wakes this part's task when it is closed, or a connection ends that filled the limit.
    pub(super) fn register(&self, part: usize, cx: &Context<'_>) {
        lock(&self.acceptors)[part] = Some(cx.waker().clone());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        lock(&self.acceptors).iter().flatten().for_each(Waker::wake_by_ref);
    }
}

/// A connection's place among those that may be. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::net) struct Place {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut by_address = lock(&self.shared.by_address);
            if let Some(open) = by_address.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    by_address.remove(&address);
                }
            }
        }
        // Whoever waits has seen the limit reached, after it was registered.
        if self.shared.open.fetch_sub(1, Ordering::SeqCst) >= self.shared.max() {
            self.shared.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::super::Rules;
    use super::{Full, Shared};
    use crate::spec::{ConnectionLimits, LimitPolicy};

    fn shared(total: Option<u32>, per_address: Option<u32>) -> Arc<Shared> {
        Shared::new(ConnectionLimits { total, per_address, policy: LimitPolicy::Wait }, Rules::none(), 1)
    }

    #[test]
    fn a_limit_holds_and_its_end_wakes() {
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let shared = shared(Some(2), None);
        shared.register(0, &Context::from_waker(&waker));
        let first = shared.take(None).unwrap();
        drop(shared.take(None).unwrap());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "it was full");
        let second = shared.take(None).unwrap();
        assert_eq!(shared.take(None).unwrap_err(), Full::Total);
        assert_eq!((shared.left(), shared.open()), (0, 2));
        drop(first);
        drop(second);
        assert_eq!(woken.0.load(Ordering::SeqCst), 2, "it was full once more, and not when the second ended");
        shared.close();
        assert_eq!(woken.0.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn addresses_are_forgotten_with_their_connections() {
        let shared = shared(Some(10), Some(1));
        let at = |last| Some(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let mapped = Some(IpAddr::from(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()));
        let one = shared.take(at(1)).unwrap();
        assert_eq!(shared.take(mapped).unwrap_err(), Full::Address);
        let two = shared.take(at(2)).unwrap();
        assert_eq!(shared.open(), 2, "who was refused has given its place back");
        drop(one);
        drop(two);
        assert!(shared.by_address.lock().unwrap().is_empty());
        assert!(shared.take(mapped).is_ok());
    }
}
