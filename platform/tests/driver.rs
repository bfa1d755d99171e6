//! One suite of cases, run over every driver that this machine has, and over io_uring with each mechanism off once.
//!
//! A case gets a [`Rig`]: a driver with its sockets, which checks the contract at every turn (one terminal completion
//! for each operation, credit never exceeded, the count of operations in flight). Peers are blocking sockets of the
//! standard library. Nothing sleeps to synchronise: turns are driven until what must happen has happened, for 10 s.
#![cfg(target_os = "linux")]

#[path = "driver/connections.rs"]
mod connections;
#[path = "driver/faults.rs"]
mod faults;
#[path = "driver/rig.rs"]
mod rig;
#[path = "driver/streams.rs"]
mod streams;
#[path = "driver/turns.rs"]
mod turns;
#[path = "driver/uring.rs"]
mod uring;

use std::sync::Arc;

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::driver::{
    Driver, EpollDriver, Mechanism, Mechanisms, UringDriver, UringError, UringReport, UringSpec,
};
use ringport_platform::stats::CoreStats;

use rig::Rig;

type Open = Box<dyn Fn(Pool, Arc<CoreStats>) -> Box<dyn Driver>>;

/// A driver to run the cases over.
struct Candidate {
    /// What failures are reported under.
    name: String,
    open: Open,
    /// Whether the credit is a cap to the byte: not where io_uring counts it in user space.
    exact_credit: bool,
}

/// Every driver. A new one is one more entry here.
///
/// io_uring stands here as it is, without each of its mechanisms, and without them all; where it is not to be had the
/// reason is printed.
fn drivers() -> Vec<Candidate> {
    let open: Open = Box::new(|pool, stats| {
        Box::new(EpollDriver::open(pool, stats).expect("epoll exists on every Linux"))
    });
    let mut drivers = vec![Candidate { name: "epoll".to_owned(), open, exact_credit: true }];
    let report = match probe_uring() {
        Ok(report) => report,
        Err(reason) => {
            println!("skipped: the uring driver: {reason}");
            return drivers;
        }
    };
    let counted = report.features.iter().any(|feature| feature.name == "credit" && feature.available);
    let single = Mechanism::ALL.map(|mechanism| Mechanisms::NONE.with(mechanism));
    let all = Mechanism::ALL.into_iter().fold(Mechanisms::NONE, Mechanisms::with);
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

fn open_uring(spec: UringSpec) -> Open {
    Box::new(move |pool, stats| {
        let (driver, _) = UringDriver::open(&spec, pool, stats).expect("it could be opened before");
        Box::new(driver)
    })
}

/// What io_uring offers this process, or why it cannot have it. On a thread of its own, because the end of a ring
/// interrupts system calls of the thread that made it.
fn probe_uring() -> Result<UringReport, UringError> {
    let probe = || {
        let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
        UringDriver::open(&UringSpec::default(), pool, stats).map(|(_, report)| report)
    };
    std::thread::spawn(probe).join().expect("no panic")
}

/// Runs `case` once for each driver, with a pool of the default shape.
fn each(case: impl Fn(&mut Rig)) {
    each_with(PoolSpec::default(), case);
}

/// Runs `case` once for each driver.
fn each_with(spec: PoolSpec, case: impl Fn(&mut Rig)) {
    each_wrapped(spec, |driver| driver, case);
}

/// Runs `case` once for each driver, inside what `wrap` makes of it.
fn each_wrapped(spec: PoolSpec, wrap: impl Fn(Box<dyn Driver>) -> Box<dyn Driver>, case: impl Fn(&mut Rig)) {
    for Candidate { name, open, exact_credit } in drivers() {
        println!("driver: {name}");
        let (pool, stats) = (Pool::new(spec), Arc::new(CoreStats::default()));
        let mut rig = Rig::new(wrap(open(pool.clone(), stats.clone())), pool, stats);
        rig.exact_credit = exact_credit;
        case(&mut rig);
    }
}
