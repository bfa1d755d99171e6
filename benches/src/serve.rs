//! What the server programs have in common.

use clap::ValueEnum;

/// What a server program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Sends back what it receives.
    Echo,
    /// Answers every HTTP/1.1 request with [`HELLO`].
    Hello,
}

/// The body of the hello answer: 13 bytes.
pub const HELLO: &[u8] = b"Hello, world!";
