//! One core over every driver: what tasks see, and that nothing is left when they are gone.
//!
//! Each case runs on a thread with a core of its own, and ends with a check that no task, socket, operation, pool chunk
//! or descriptor is left. Descriptors are the process's, so cases run one after the other. Nothing sleeps to
//! synchronise: what must happen is awaited, for at most 20 s.
#![expect(clippy::unwrap_used, reason = "a case that cannot go on panics, in its helpers too")]

#[path = "core/datagram.rs"]
mod datagram;
#[path = "driver/drivers.rs"]
mod drivers;
#[path = "core/faults.rs"]
mod faults;
#[path = "core/futures.rs"]
mod futures;
#[path = "core/launching.rs"]
mod launching;
#[path = "core/lives.rs"]
mod lives;
#[cfg(target_os = "linux")]
#[path = "core/linux.rs"]
mod os;
#[cfg(windows)]
#[path = "core/windows.rs"]
mod os;
#[path = "core/pressure.rs"]
mod pressure;
#[path = "core/rig.rs"]
mod rig;
#[path = "core/shares.rs"]
mod shares;
#[cfg(target_os = "linux")]
#[path = "core/splice.rs"]
mod splice;
#[path = "core/timers.rs"]
mod timers;
