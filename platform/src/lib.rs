//! The kernel side of ringport: drivers, buffers, executor, timers. All `unsafe` and all `cfg(os)` live here.

pub mod buf;
pub mod core;
pub mod driver;
pub mod exec;
pub mod launch;
pub mod op;
mod remote;
pub mod socket;
pub mod sockets;
pub mod stats;
pub mod timer;
