//! The kernel side of ringport: drivers, buffers, executor, timers. All `unsafe` and all `cfg(os)` live here.

pub mod blocking;
pub mod buf;
#[cfg(target_os = "linux")]
pub mod cmsg;
pub mod core;
#[cfg(target_os = "linux")]
pub mod datagram;
pub mod driver;
pub mod exec;
pub mod launch;
pub mod mesh;
#[cfg(target_os = "linux")]
pub mod names;
pub mod op;
pub mod park;
#[cfg(target_os = "linux")]
pub mod process;
mod remote;
#[cfg(target_os = "linux")]
pub mod signal;
pub mod socket;
pub mod sockets;
#[cfg(target_os = "linux")]
pub mod sockopt;
pub mod splice;
pub mod stats;
pub mod timer;
