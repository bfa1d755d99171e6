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

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints a line about a run. Its results are files: a reader that has gone, or a full disk behind the standard output, is no
/// reason to lose what takes twenty minutes.
pub fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line of what was asked for.
///
/// # Errors
/// [`ToldError::ReaderGone`] once nobody reads any more: what is not printed yet need not be measured.
pub fn say(line: fmt::Arguments<'_>) -> Result<(), ToldError> {
    writeln!(io::stdout(), "{line}").map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ToldError::ReaderGone,
        _ => ToldError::Failed(error),
    })
}

/// Why a program that tells what it measures ended before its end.
#[derive(Debug)]
pub enum ToldError {
    /// Nobody reads the standard output any more, which is no fault.
    ReaderGone,
    /// Anything else.
    Failed(io::Error),
}

impl From<io::Error> for ToldError {
    fn from(error: io::Error) -> Self {
        ToldError::Failed(error)
    }
}

/// The exit status of such a program; what failed is told on the standard error.
pub fn exit_code(program: &str, end: Result<(), ToldError>) -> ExitCode {
    match end {
        Ok(()) | Err(ToldError::ReaderGone) => ExitCode::SUCCESS,
        Err(ToldError::Failed(error)) => {
            complain(format_args!("{program}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line on the standard error; nobody need be there to read it.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
