//! The kernel side of ringport: drivers, buffers, executor, timers. All `unsafe` and all `cfg(os)` live here.

pub mod buf;
pub mod driver;
pub mod op;
pub mod stats;
