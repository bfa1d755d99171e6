//! ringport beside its peers: the harness that the programs in `src/bin` share.

pub mod cpu;
pub mod load;
pub mod meter;
pub mod metering;
pub mod peers;
pub mod serve;
pub mod symbols;
