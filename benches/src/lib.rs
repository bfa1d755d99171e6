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
mod targets;

/// Prints a line about a run. Its results are files: a reader that has gone, or a full disk behind the standard output, is no
/// reason to lose what takes twenty minutes.
pub fn tell(line: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
}
