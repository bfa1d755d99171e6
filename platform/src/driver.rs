//! `trait Driver`: gives operations to a kernel, and takes completions from it.
//!
//! The contract, which one suite (`tests/driver.rs`) holds every driver to:
//!
//! 1. An operation is accepted without failing: a full submission queue is flushed inside. What the kernel refuses
//!    comes back as a completion.
//! 2. Each accepted operation ends with exactly one terminal completion (see `op`), cancelled or not. Memory that it
//!    names may be touched until then and not after.
//! 3. Nothing completes outside [`Driver::turn`], which hands everything to a [`Sink`], in the order in which it ended.
//! 4. Operations are submitted in the order given, at the latest by the next turn, with one system call a turn where the
//!    kernel allows.
//! 5. A received range is reported in stream order and never lost: bytes that the kernel gave before a cancel took
//!    effect are reported first.
//! 6. [`Driver::close`] is called only for a descriptor without operations in flight: closing does not cancel. It is
//!    submitted as an operation is, in order, and makes no completion.
//! 7. Dropping a driver cancels everything and reaps to zero; what does not end in time is leaked on purpose and counted.

#[cfg(target_os = "linux")]
mod epoll;
#[cfg(feature = "faulty")]
pub mod faulty;
#[cfg(windows)]
mod iocp;
mod mechanisms;
mod open;
mod survey;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(target_os = "linux")]
pub use epoll::EpollDriver;
#[cfg(windows)]
pub use iocp::IocpDriver;
pub use open::{DriverChoice, OpenError, Opened, open};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::{PoolBuf, TxQueue};
use crate::fd::{OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use crate::op::Errno;
use crate::op::{Burst, Completion, Outcome, SendMode, Token};

pub use self::mechanisms::{Mechanism, Mechanisms, UnknownMechanism};
pub use self::survey::{DriverReport, Feature, Offer, survey};
#[cfg(target_os = "linux")]
pub use self::uring::{Denial, UringDriver, UringError, UringReport, UringSpec};

/// Segments that one send takes at most.
pub const MAX_SEND_SEGMENTS: usize = 64;
/// Bytes that one send takes at most, but always the whole first segment.
pub const MAX_SEND_BYTES: usize = 1 << 20;

/// Where a connect goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConnectAddr {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix socket's path; a leading NUL byte means the abstract namespace (Linux).
    Unix(Vec<u8>),
}

impl From<SocketAddr> for ConnectAddr {
    fn from(addr: SocketAddr) -> Self {
        ConnectAddr::Inet(addr)
    }
}

/// How long a turn may wait for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// At most so long.
    AtMost(Duration),
    /// Until a completion or an unpark.
    Forever,
}

/// Which kernel interface a driver sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverKind {
    /// Linux io_uring.
    Uring,
    /// Linux epoll, edge-triggered, try first.
    Epoll,
    /// Windows completion ports.
    Iocp,
}

impl DriverKind {
    /// The name in configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            DriverKind::Uring => "uring",
            DriverKind::Epoll => "epoll",
            DriverKind::Iocp => "iocp",
        }
    }
}

/// Wakes a core that waits in [`Driver::turn`], from any thread. Cheap to clone; harmless after the driver is gone.
#[derive(Clone)]
pub struct Unpark(Arc<dyn Fn() + Send + Sync>);

impl Unpark {
    /// From the driver's way to wake itself.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Unpark(Arc::new(wake))
    }

    /// Makes the current or the next waiting turn return. Costs a system call.
    pub fn unpark(&self) {
        (self.0)();
    }
}

/// Takes what completed in a turn, and runs nothing: it notes, and wakes tasks that run later.
pub trait Sink {
    /// One report of the driver.
    fn complete(&mut self, completion: Completion);

    /// As [`Outcome::Received`], the report that is made most often.
    fn received(&mut self, token: Token, buf: PoolBuf, more: bool) {
        self.complete(Completion { token, outcome: Outcome::Received(buf), more });
    }

    /// As [`Outcome::Sent`], the other one.
    fn sent(&mut self, token: Token, count: usize) {
        self.complete(Completion::last(token, Outcome::Sent(count)));
    }
}

/// A list to be looked at later.
impl Sink for Vec<Completion> {
    fn complete(&mut self, completion: Completion) {
        self.push(completion);
    }
}

/// A sink, and how much it was told in this turn.
struct Reports<'a> {
    sink: &'a mut dyn Sink,
    count: usize,
}

impl<'a> Reports<'a> {
    fn new(sink: &'a mut dyn Sink) -> Self {
        Reports { sink, count: 0 }
    }

    fn push(&mut self, completion: Completion) {
        self.count += 1;
        self.sink.complete(completion);
    }

    fn received(&mut self, token: Token, buf: PoolBuf, more: bool) {
        self.count += 1;
        self.sink.received(token, buf, more);
    }

    fn sent(&mut self, token: Token, count: usize) {
        self.count += 1;
        self.sink.sent(token, count);
    }
}

/// One core's way to its kernel. See the module for the contract.
pub trait Driver {
    /// Which kernel interface this is.
    fn kind(&self) -> DriverKind;

    /// Introduces a descriptor before its first operation; `index` is the slot of its tokens.
    ///
    /// # Errors
    /// What the kernel says (epoll: out of memory or watches). The descriptor stays the caller's.
    fn attach(&mut self, fd: RawFd, index: u32) -> io::Result<()>;

    /// Takes connections from a listening socket: one, or all that come until cancelled or failed.
    ///
    /// Between two turns [`Burst::Many`] may take as many as the socket's backlog holds, and a cancel does not undo
    /// that. Each is a descriptor of the process, so an owner with less room than that takes them one by one.
    fn accept(&mut self, fd: RawFd, token: Token, burst: Burst);

    /// Receives at most `credit` bytes (not 0) into the pool, as they come. It may end when more than half of them have.
    ///
    /// Where io_uring does not count ([`Mechanism::Credit`] off or missing), what comes until the driver's own cancel
    /// takes effect is reported too: more than `credit`, never lost.
    fn recv(&mut self, fd: RawFd, token: Token, credit: u32);

    /// Sends the front of `queue`, at most [`MAX_SEND_SEGMENTS`] and [`MAX_SEND_BYTES`]; returns the bytes taken.
    ///
    /// # Safety
    /// The segments that hold those bytes stay where they are, unchanged and alive, until the terminal completion; for
    /// ever where the driver was dropped first and had to count something in `CoreStats::leaked`.
    unsafe fn send(&mut self, fd: RawFd, token: Token, queue: &TxQueue, mode: SendMode) -> usize;

    /// Connects a fresh non-blocking socket.
    fn connect(&mut self, fd: RawFd, token: Token, addr: &ConnectAddr);

    /// Reports once when a socket is ready, as the kind of `token` says (`Readable` or `Writable`), and also
    /// at an end or an error, which the next call on the socket tells.
    ///
    /// For whoever makes the system calls himself: arm it after one has said EAGAIN, in the same turn. A socket that was
    /// ready all the while need not be reported.
    fn watch(&mut self, fd: RawFd, token: Token);

    /// Asks for the end of an operation that has not ended. Never lost; the terminal completion follows.
    fn cancel(&mut self, fd: RawFd, token: Token);

    /// Closes a descriptor that has no operation in flight.
    fn close(&mut self, fd: OwnedFd, index: u32);

    /// Submits what is staged, waits as told, and hands what completed to `sink`.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    fn turn(&mut self, wait: Wait, sink: &mut dyn Sink) -> io::Result<()>;

    /// Whether a waiting turn may sleep although sends have ended that make no completion of their own; they are then
    /// reported when it returns. Off at first: a turn that submits such a send does not wait.
    ///
    /// A loop in which no task waits for the end of a send switches it on before it waits, which saves one system call
    /// per request on a quiet core. Drivers without such sends ignore it.
    fn set_lazy_sends(&mut self, _lazy: bool) {}

    /// A handle that ends a waiting turn from any thread.
    fn unpark(&self) -> Unpark;

    /// Operations that have not reached their terminal completion.
    fn in_flight(&self) -> usize;
}

/// Whether an accept failed for one connection, which died while it waited, so that the next may be fine. accept(2),
/// "Error handling".
///
/// `EPERM` is not among them: a security module that forbids accepting leaves the connection where it is, and asking
/// again would never end.
#[cfg(target_os = "linux")]
fn concerns_one_connection(errno: Errno) -> bool {
    matches!(
        errno.0,
        libc::EINTR
            | libc::EAGAIN
            | libc::ENONET
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::ECONNABORTED
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{Errno, concerns_one_connection};

    /// io_uring asked again and again after an EPERM, which epoll reported.
    #[test]
    fn an_accept_that_is_forbidden_is_not_tried_again() {
        for (errno, expected) in [
            (libc::ECONNABORTED, true),
            (libc::EPROTO, true),
            (libc::EPERM, false),
            (libc::EACCES, false),
            (libc::EMFILE, false),
            (libc::EINVAL, false),
        ] {
            assert_eq!(concerns_one_connection(Errno(errno)), expected, "{:?}", Errno(errno));
        }
    }
}
