//! ringport beside its peers: the harness that the programs in `src/bin` share.

pub mod bench;
pub mod bufs;
pub mod cost;
pub mod cpu;
pub mod load;
pub mod meter;
pub mod metering;
pub mod pace;
pub mod peers;
pub mod plot;
pub mod programs;
pub mod questions;
pub mod render;
pub mod results;
pub mod ring;
pub mod serve;
pub mod stop;
pub mod symbols;
