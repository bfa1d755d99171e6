//! The drivers of Linux.

use std::sync::{Arc, Once};

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::driver::{
    EpollDriver, Mechanism, Mechanisms, UringDriver, UringError, UringReport, UringSpec,
};
use ringport_platform::stats::CoreStats;

use super::{Candidate, Open, skipped};

/// Every driver. A new one is one more entry here.
///
/// io_uring stands here as it is, without each of its mechanisms, and without them all; where it is not to be had the
/// reason is printed.
pub(crate) fn drivers() -> Vec<Candidate> {
    static TOLD: Once = Once::new();
    let open: Open = Box::new(|pool, stats| {
        Box::new(EpollDriver::open(pool, stats).expect("epoll exists on every Linux"))
    });
    let mut drivers = vec![Candidate { name: "epoll".to_owned(), open, exact_credit: true }];
    let report = match probe_uring() {
        Ok(report) => report,
        Err(reason) => {
            TOLD.call_once(|| skipped(format!("the uring driver, in every case: {reason}")));
            return drivers;
        }
    };
    let counted = report.features.iter().any(|feature| feature.name == "credit" && feature.available);
    let single = Mechanism::of_uring().map(|mechanism| Mechanisms::NONE.with(mechanism));
    let all = Mechanism::of_uring().fold(Mechanisms::NONE, Mechanisms::with);
    for disable in [Mechanisms::NONE].into_iter().chain(single).chain([all]) {
        let spec = UringSpec { disable, ..UringSpec::default() };
        let without = if disable == Mechanisms::NONE { "" } else { " without " };
        drivers.push(Candidate {
            name: format!("uring{without}{disable}"),
            open: open_uring(spec),
            exact_credit: disable.contains(Mechanism::Multishot)
                || (counted && !disable.contains(Mechanism::Credit)),
        });
    }
    drivers
}

pub(crate) fn open_uring(spec: UringSpec) -> Open {
    Box::new(move |pool, stats| {
        let (driver, _) = UringDriver::open(&spec, pool, stats).expect("it could be opened before");
        Box::new(driver)
    })
}

/// What io_uring offers this process, or why it cannot have it. On a thread of its own, because the end of a ring
/// interrupts system calls of the thread that made it.
pub(crate) fn probe_uring() -> Result<UringReport, UringError> {
    let probe = || {
        let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
        UringDriver::open(&UringSpec::default(), pool, stats).map(|(_, report)| report)
    };
    std::thread::spawn(probe).join().expect("no panic")
}
