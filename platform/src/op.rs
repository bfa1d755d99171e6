//! The closed list of what a driver does and how each ends.
//!
//! ```text
//! Accept   armed -> Accepted* -> Failed | Canceled, one alone: Accepted(last)   (owned by a listener)
//! Recv     armed -> Received* -> Received(last) | Eof | Starved | Failed | Canceled   (owned by a socket)
//! Send     issued -> Sent | Stalled | Failed | Canceled                    (owned by a socket)
//! Connect  issued -> Connected | Failed | Canceled                         (owned by a dialling slot)
//! Readable, Writable   armed -> Ready | Failed | Canceled                  (owned by a socket)
//! ```
//!
//! Every operation ends with exactly one completion whose [`Completion::more`] is false: the terminal one. Until then
//! the kernel may touch what the operation names, and its token must not be used for another operation. A cancel is
//! only a request: the terminal completion, whatever it says, is the truth.

use std::fmt;

use crate::buf::PoolBuf;
use crate::fd::OwnedFd;

/// What an operation is for; part of its [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// Take connections from a listener until told to stop.
    Accept = 1,
    /// Receive from a stream socket until the credit is used up.
    Recv = 2,
    /// Send the front of a queue.
    Send = 3,
    /// Connect a stream socket.
    Connect = 4,
    /// Wait until a socket has something to read.
    Readable = 5,
    /// Wait until a socket takes something.
    Writable = 6,
}

impl OpKind {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(OpKind::Accept),
            2 => Some(OpKind::Recv),
            3 => Some(OpKind::Send),
            4 => Some(OpKind::Connect),
            5 => Some(OpKind::Readable),
            6 => Some(OpKind::Writable),
            _ => None,
        }
    }
}

/// Names one operation in flight: its kind, the slot that owns it and the slot's generation.
///
/// Laid out as `kind:8 | generation:24 | index:32`, so that it travels as the kernel's `user_data`. At most one
/// operation of a kind is in flight for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Generations wrap at this many.
    pub const GENERATIONS: u32 = 1 << 24;

    /// The token of `kind` for slot `index`; `generation` is taken modulo [`Token::GENERATIONS`].
    pub fn new(kind: OpKind, index: u32, generation: u32) -> Self {
        let generation = u64::from(generation % Self::GENERATIONS);
        Token((kind as u64) << 56 | generation << 32 | u64::from(index))
    }

    /// The slot.
    pub fn index(self) -> u32 {
        self.0 as u32
    }

    /// The slot's generation.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32 % Self::GENERATIONS
    }

    /// What the operation is for; `None` for a number that no [`Token::new`] made.
    pub fn kind(self) -> Option<OpKind> {
        OpKind::from_bits((self.0 >> 56) as u8)
    }

    /// The number as the kernel carries it.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From the number that the kernel carried.
    pub fn from_bits(bits: u64) -> Self {
        Token(bits)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}.{}", self.kind(), self.index(), self.generation())
    }
}

/// How many connections one accept may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// At most one, whose completion is then terminal: for a listener whose owner has little room.
    One,
    /// All that come, until cancelled or failed. What the kernel's queue holds may be taken in one turn.
    Many,
}

/// How far a send may go before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// Send what the socket takes now: [`Outcome::Sent`] if that is all, else [`Outcome::Stalled`].
    Try,
    /// Wait until the peer has made room for all of it.
    Wait,
}

/// What happened to an operation.
#[derive(Debug)]
pub enum Outcome {
    /// A connection, non-blocking and close-on-exec. Terminal for [`Burst::One`].
    Accepted(OwnedFd),
    /// Bytes, never none. With `more` false the credit is used up (or the driver ended the receive): arm it again.
    Received(PoolBuf),
    /// The peer will send nothing more. Terminal.
    Eof,
    /// The pool is at its cap and had no room: arm again when a chunk has returned. Terminal.
    Starved,
    /// All bytes that the driver took were handed to the kernel. Terminal.
    Sent(usize),
    /// So many bytes (less than taken, perhaps none) were handed over, then the socket was full. Terminal.
    Stalled(usize),
    /// The connection stands. Terminal.
    Connected,
    /// Reading, or writing, is worth another try. Terminal.
    Ready,
    /// Ended by a cancel; nothing was lost. Terminal.
    Canceled,
    /// The kernel refused. Terminal.
    Failed(Errno),
}

/// One report of a driver.
#[derive(Debug)]
pub struct Completion {
    /// Whose operation.
    pub token: Token,
    /// What happened.
    pub outcome: Outcome,
    /// Whether the operation goes on. False exactly once: at the end.
    pub more: bool,
}

impl Completion {
    /// A terminal report.
    pub fn last(token: Token, outcome: Outcome) -> Self {
        Completion { token, outcome, more: false }
    }

    /// A report of an operation that goes on.
    pub fn more(token: Token, outcome: Outcome) -> Self {
        Completion { token, outcome, more: true }
    }
}

/// An error number of the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// From the last failed libc call of this thread.
    pub fn last() -> Self {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from(*self))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from(*self))
    }
}
