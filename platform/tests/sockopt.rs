//! Every socket option on real sockets: what is refused before a system call, what the kernel makes of the rest, and
//! that each is set before the call that it influences. What needs a privilege that is missing says so.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "sockopt/behaviour.rs"]
mod behaviour;
#[path = "sockopt/defects.rs"]
mod defects;
#[path = "sockopt/faults.rs"]
mod faults;
#[path = "sockopt/open.rs"]
mod open;
#[path = "sockopt/order.rs"]
mod order;
#[path = "sockopt/privilege.rs"]
mod privilege;
#[path = "sockopt/rig.rs"]
mod rig;
#[path = "sockopt/values.rs"]
mod values;
