//! The kernel side of ringport: drivers, buffers, executor, timers. All `unsafe` and all `cfg(os)` live here.

pub mod blocking;
pub mod buf;
pub mod cmsg;
pub mod core;
pub mod datagram;
pub mod driver;
pub mod errno;
pub mod exec;
pub mod fd;
pub mod file;
pub mod launch;
#[cfg(feature = "measure")]
pub mod measure;
pub mod mesh;
pub mod names;
pub mod op;
pub mod park;
pub mod process;
mod remote;
pub mod signal;
pub mod socket;
pub mod sockets;
pub mod sockopt;
pub mod splice;
pub mod stats;
pub mod stdio;
pub mod timer;
