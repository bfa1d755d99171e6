//! The process's standard input and output, as far as the standard library does not know it.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::{input_still_waits, input_would_wait, is_reader_gone};
#[cfg(windows)]
pub use windows::{input_still_waits, input_would_wait, is_reader_gone};
