//! io_uring and epoll.

use std::sync::Arc;

use super::{DriverReport, Offer};
use crate::buf::{Pool, PoolSpec};
use crate::driver::{DriverKind, EpollDriver, UringDriver, UringReport, UringSpec};
use crate::stats::CoreStats;

pub(super) const KINDS: &[DriverKind] = &[DriverKind::Uring, DriverKind::Epoll];

pub(super) fn survey() -> Vec<DriverReport> {
    let (pool, stats) = (|| Pool::new(PoolSpec::default()), || Arc::new(CoreStats::default()));
    let uring = UringDriver::open(&UringSpec::default(), pool(), stats());
    let epoll = EpollDriver::open(pool(), stats());
    let uring = uring.map(|(_, report)| offer(report)).map_err(|error| error.to_string());
    let epoll = epoll.map(|_| Offer::default()).map_err(|error| error.to_string());
    vec![
        DriverReport { kind: DriverKind::Uring, offer: uring },
        DriverReport { kind: DriverKind::Epoll, offer: epoll },
    ]
}

fn offer(report: UringReport) -> Offer {
    Offer {
        queues: Some((report.entries, report.cq_entries)),
        flags: report.flags,
        features: report.features,
        self_test: Some(report.self_test),
    }
}
