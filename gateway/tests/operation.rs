//! The operation of the real binary: starting, being refused, serving known programs, running short, ending.
//!
//! What is particular to a driver runs once on each. A case that needs a program or a privilege which this machine lacks
//! prints that it was skipped.

#[path = "operation/cores.rs"]
mod cores;
#[path = "operation/crowd.rs"]
mod crowd;
#[path = "operation/demo.rs"]
mod demo;
#[path = "operation/denied.rs"]
mod denied;
#[path = "operation/drain.rs"]
mod drain;
#[path = "operation/failover.rs"]
mod failover;
#[path = "operation/faults.rs"]
mod faults;
#[path = "operation/listeners.rs"]
mod listeners;
#[path = "operation/load.rs"]
mod load;
#[path = "proxy/message.rs"]
#[expect(dead_code, reason = "shared with the other test program; each uses a part")]
mod message;
#[path = "proxy/origin.rs"]
#[expect(dead_code, reason = "shared with the other test program; each uses a part")]
mod origin;
#[path = "operation/peers.rs"]
mod peers;
#[path = "operation/process.rs"]
mod process;
#[path = "operation/reload.rs"]
mod reload;
#[path = "proxy/rig.rs"]
#[expect(dead_code, reason = "shared with the other test program; each uses a part")]
mod rig;
