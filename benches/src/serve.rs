//! What the server programs have in common.

use std::net::SocketAddr;

use clap::ValueEnum;

/// What a server program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Sends back what it receives.
    Echo,
    /// Answers every HTTP/1.1 request with [`HELLO`].
    Hello,
    /// Passes HTTP/1.1 requests to an origin.
    Proxy,
    /// Passes bytes to an origin and back.
    Relay,
    /// Serves nobody: moves deadlines and prints what that costs.
    Timers,
}

/// The body of the hello answer: 13 bytes.
pub const HELLO: &[u8] = b"Hello, world!";

/// What an echo reads at most at once.
pub const ECHO_BUF: usize = 16 * 1024;

/// The address in a peer's only arguments: what it serves, and where.
///
/// # Panics
/// When the last argument is no address.
pub fn address() -> SocketAddr {
    let argument = std::env::args().next_back().unwrap_or_default();
    argument.parse().unwrap_or_else(|_| panic!("{argument:?} is no address"))
}
