//! One suite of cases, run over every driver that this machine has, and over io_uring with each mechanism off once.
//!
//! A case gets a [`Rig`]: a driver with its sockets, which checks the contract at every turn (one terminal completion
//! for each operation, credit never exceeded, the count of operations in flight). Peers are blocking sockets of the
//! standard library. Nothing sleeps to synchronise: turns are driven until what must happen has happened, for 10 s.

#[path = "driver/connections.rs"]
mod connections;
#[path = "driver/drivers.rs"]
mod drivers;
#[path = "driver/faults.rs"]
mod faults;
#[cfg(target_os = "linux")]
#[path = "driver/linux.rs"]
mod os;
#[cfg(windows)]
#[path = "driver/windows.rs"]
mod os;
#[path = "driver/random.rs"]
mod random;
#[path = "driver/rig.rs"]
mod rig;
#[path = "driver/streams.rs"]
mod streams;
#[path = "driver/turns.rs"]
mod turns;
#[cfg(target_os = "linux")]
#[path = "driver/uring.rs"]
mod uring;
#[path = "driver/watches.rs"]
mod watches;

use std::sync::Arc;

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::driver::Driver;
use ringport_platform::stats::CoreStats;

use drivers::{Candidate, drivers};
use rig::Rig;

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
