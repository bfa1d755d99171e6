//! A datagram socket of a core: batches by recvmmsg(2) and sendmmsg(2), which the task calls when the driver says that it
//! is worth it.
//!
//! ```text
//! receive  Trying --datagrams--> Trying | --EAGAIN--> Waiting --readable--> Trying
//! send     Trying --handed over--> Trying | --EAGAIN--> Waiting --writable--> Trying
//! ```
//!
//! Nothing is in flight in the kernel but a watch, so a dropped future loses nothing, and what is received is what the
//! caller asked for: who does not ask leaves it to the kernel's queue, which alone drops. A datagram is copied once, from
//! the memory of the call to the core's pool, so that a small one keeps few bytes of it. A multishot receive of io_uring
//! with GRO into provided buffers, which has neither that copy nor a system call for each batch, is the later step, to be
//! taken when it is measured.

mod message;
#[cfg(target_os = "linux")]
mod mmsg;
#[cfg(windows)]
mod wsamsg;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::buf::{PoolBuf, Seg};
use crate::cmsg;
pub use crate::cmsg::Ecn;
use crate::core::{Core, Owned, Sleep};
use crate::errno;
use crate::fd::{BorrowedFd, OwnedFd};
use crate::op::{Errno, OpKind};
use crate::socket::{self, LocalAddr};
use crate::sockets::Role;
use crate::sockopt::{Family, Kind, Role as SocketRole, Target};

use self::message::{LONGEST_DATAGRAM, MAX_DATAGRAM, MAX_MESSAGES};
#[cfg(target_os = "linux")]
pub(crate) use self::mmsg::Scratch;
#[cfg(windows)]
pub(crate) use self::wsamsg::Scratch;

/// A datagram that was received.
#[derive(Debug)]
pub struct Received {
    /// Its bytes; of a raw IPv4 socket with the IP header in front. There may be none.
    pub bytes: PoolBuf,
    /// What is known of it.
    pub meta: RecvMeta,
}

/// What is known of a received datagram. What the socket's options do not ask for is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecvMeta {
    /// Who sent it. IPv4 is told as IPv4, on sockets of both families too; a Unix socket without a name as an empty path.
    pub peer: LocalAddr,
    /// The address that it came to, a group's among them. `IP_PKTINFO`, `IPV6_RECVPKTINFO`.
    pub local: Option<IpAddr>,
    /// The index of the interface that it came by; told with `local`.
    pub interface: Option<u32>,
    /// The differentiated services field or traffic class. `IP_RECVTOS`, `IPV6_RECVTCLASS`.
    pub traffic_class: Option<u8>,
    /// The length of each datagram in `bytes`, but for the last, which may be shorter. All of it where the kernel joined
    /// none. `UDP_GRO`.
    pub stride: usize,
    /// Where it was going before it was redirected. `IP_RECVORIGDSTADDR`, `IPV6_RECVORIGDSTADDR`.
    pub original_destination: Option<SocketAddr>,
    /// It was longer than was asked for ([`DatagramSock::set_max_len`]), and its end is lost.
    pub is_truncated: bool,
}

impl RecvMeta {
    /// The congestion mark.
    pub fn ecn(&self) -> Option<Ecn> {
        self.traffic_class.map(Ecn::from_bits)
    }
}

impl Received {
    /// The datagrams that the kernel joined to this one (`UDP_GRO`); itself where it joined none.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let empty = self.bytes.is_empty().then_some(&self.bytes[..]);
        empty.into_iter().chain(self.bytes.chunks(self.meta.stride.max(1)))
    }
}

/// A datagram to send, or several of one length to one destination.
#[derive(Debug)]
pub struct Transmit {
    /// Where it goes; `None` to the peer of a connected socket.
    pub dest: Option<LocalAddr>,
    /// Its bytes.
    pub contents: Seg,
    /// The congestion mark. With one the rest of the field is 0, whatever `IP_TOS` or `IPV6_TCLASS` says.
    pub ecn: Option<Ecn>,
    /// What the kernel cuts the bytes into: datagrams of so many, the last of the rest; at most 64 to 128, by kernel.
    /// `UDP_SEGMENT`.
    pub segment_size: Option<u16>,
    /// The address that it comes from, and the index of the interface that it leaves by, 0 for any. `IP_PKTINFO`.
    pub source: Option<(IpAddr, u32)>,
}

impl Transmit {
    /// To the peer of a connected socket, with nothing special about it.
    pub fn new(contents: impl Into<Seg>) -> Self {
        Transmit { dest: None, contents: contents.into(), ecn: None, segment_size: None, source: None }
    }

    /// As [`Transmit::new`], to somebody.
    pub fn to(dest: impl Into<LocalAddr>, contents: impl Into<Seg>) -> Self {
        Transmit { dest: Some(dest.into()), ..Transmit::new(contents) }
    }
}

/// What an error of a send means, as far as callers do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// Too long for the protocol, for the socket, or for the path where it may not be cut.
    TooLong,
    /// The interface's queue is full, or there is no memory: the kernel does not tell when that changes.
    NoBuffers,
    /// It has no destination, and the socket no peer.
    NoPeer,
    /// Something else.
    Other,
}

impl SendFault {
    /// Of an error that a send gave.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno::EMSGSIZE) => SendFault::TooLong,
            Some(errno::ENOBUFS | errno::ENOMEM) => SendFault::NoBuffers,
            // ENOTCONN: a Unix socket's.
            Some(errno::EDESTADDRREQ | errno::ENOTCONN) => SendFault::NoPeer,
            _ => SendFault::Other,
        }
    }
}

/// A socket of datagrams or packets of this core. Dropping it closes it; what was sent is the kernel's already.
///
/// One task receives and one sends, or one does both: each side wakes who asked last.
pub struct DatagramSock {
    owned: Owned,
    target: Target,
    /// How a transmit without a destination leaves.
    peer_is_ipv4: bool,
    batch: usize,
    max_len: Cell<usize>,
    recv: Cell<Side>,
    send: Cell<Side>,
    /// What a send was told of datagrams before it: an error of the receiving side.
    refused: Cell<Option<Errno>>,
    backoff: RefCell<Option<Sleep>>,
}

/// One direction.
#[derive(Clone, Copy, Default)]
struct Side {
    /// The kernel has said EAGAIN since the driver was asked last.
    waits: bool,
    turn: u64,
    /// Datagrams that were moved in that turn.
    moved: usize,
}

/// Datagrams that one direction of a socket moves in a turn, so that others have theirs: a flood is not the whole core's.
const TURN_DATAGRAMS: usize = 1024;
/// How long a send waits for an unconnected Unix peer whose queue is full: the kernel tells nobody when it no longer is.
const BACKOFF: Duration = Duration::from_millis(1);

impl DatagramSock {
    /// Takes over a non-blocking socket of datagrams or packets. A receive or send moves at most `batch` (at least 1) at a
    /// time.
    ///
    /// # Errors
    /// When the driver cannot watch it, or it is no socket; it is closed then.
    pub fn new(core: &Core, fd: OwnedFd, target: Target, batch: usize) -> io::Result<Self> {
        let owned = Owned::new(core, fd, Role::Datagram)?;
        let peer = owned.with_fd(socket::peer_addr).ok();
        let peer_is_ipv4 = match peer {
            Some(LocalAddr::Inet(addr)) => addr.ip().to_canonical().is_ipv4(),
            Some(LocalAddr::Unix(_)) | None => target.family == Family::V4,
        };
        Ok(DatagramSock {
            owned,
            target,
            peer_is_ipv4,
            batch: batch.max(1),
            max_len: Cell::new(MAX_DATAGRAM),
            recv: Cell::default(),
            send: Cell::default(),
            refused: Cell::new(None),
            backoff: RefCell::new(None),
        })
    }

    /// What sort of socket it is.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Datagrams of one receive or send at most.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What is received of a datagram at most, from 1 byte to 1 MiB; the rest is lost, and said to be
    /// ([`RecvMeta::is_truncated`]). Default 64 KiB, which is above every IP packet; Unix datagrams may be longer.
    pub fn set_max_len(&self, bytes: usize) {
        self.max_len.set(bytes.clamp(1, LONGEST_DATAGRAM));
    }

    /// Receives what waits, at most a batch, to the end of `into`; ready when some came. Returns how many: of a Unix socket of a
    /// sequence of packets 0 when the peer has ended, for good; an empty packet cannot be told from that. unix(7).
    ///
    /// One system call for up to 64; one more to learn that none wait. In a turn a socket receives 1,024, then the others
    /// are first.
    ///
    /// # Errors
    /// In the `Poll`: what became of datagrams sent before, once: `ECONNREFUSED` where nobody listens at the peer of a
    /// connected socket. The socket goes on.
    pub fn poll_recv_batch(&self, cx: &mut Context<'_>, into: &mut Vec<Received>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(errno) = self.refused.take() {
                return Poll::Ready(Err(errno.into()));
            }
            ready!(self.poll_turn(cx, &self.recv, OpKind::Readable))?;
            match self.receive(into) {
                Ok(count) => {
                    moved(&self.recv, count);
                    return Poll::Ready(Ok(count));
                }
                Err(Errno(errno::EAGAIN)) => wait(&self.recv),
                Err(Errno(errno::EINTR)) => moved(&self.recv, 1),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn receive(&self, into: &mut Vec<Received>) -> Result<usize, Errno> {
        let core = self.owned.core();
        let mut scratch = core.0.datagrams.borrow_mut();
        // A control buffer of a Unix socket is where the kernel would put descriptors of the peer's choice.
        let with_control = self.target.family != Family::Unix;
        let fd = self.owned.raw_fd();
        let count = scratch.receive(fd, self.batch, self.max_len.get(), with_control)?;
        let mut total = 0;
        for index in 0..count {
            let message = scratch.message(index);
            if self.target.kind == Kind::Seqpacket && message.bytes.is_empty() {
                // The end, which every further message repeats; what came before it is told first.
                core.stats().received_bytes.add(total);
                return Ok(index);
            }
            total += message.bytes.len() as u64;
            let told = cmsg::decode(message.control);
            into.push(Received {
                // At the pool's cap in memory of its own: what was taken from the kernel is never dropped.
                bytes: core.pool().write_small(message.bytes),
                meta: RecvMeta {
                    peer: message.peer,
                    local: told.local.map(|(addr, _)| addr),
                    interface: told.local.map(|(_, interface)| interface),
                    traffic_class: told.traffic_class,
                    // A datagram shorter than what the kernel would join is told with that length, too.
                    stride: told
                        .segment_size
                        .map_or(message.bytes.len(), |size| message.bytes.len().min(size.into())),
                    original_destination: told.original_destination,
                    is_truncated: message.is_truncated,
                },
            });
        }
        core.stats().received_bytes.add(total);
        Ok(count)
    }

    /// Hands the front of `batch` to the kernel, at most a batch of it; ready when it has taken some. Returns how many,
    /// which the caller removes from the front.
    ///
    /// # Errors
    /// In the `Poll`: why the first was not taken; nothing was sent. `EMSGSIZE`: too long, for UDP or for the path.
    /// `ENOBUFS`: the interface's queue is full, so send less, later. `EINVAL`: more segments than the kernel cuts.
    /// `ENETUNREACH`, `EACCES` (a broadcast address), `EPERM` (a firewall); `ENOENT` and `ECONNREFUSED` of Unix paths.
    /// What a connected IP socket is told of datagrams before is not among them: that is told to who receives.
    pub fn poll_send_batch(&self, cx: &mut Context<'_>, batch: &[Transmit]) -> Poll<io::Result<usize>> {
        if batch.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let batch = &batch[..batch.len().min(self.batch)];
        loop {
            ready!(self.poll_backoff(cx));
            ready!(self.poll_turn(cx, &self.send, OpKind::Writable))?;
            let error = match self.hand_over(batch) {
                Ok(count) => {
                    moved(&self.send, count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(errno::EAGAIN) if self.is_deaf_to_its_peer() => {
                    *self.backoff.borrow_mut() = Some(self.owned.core().sleep(BACKOFF));
                }
                Some(errno::EAGAIN) => wait(&self.send),
                Some(errno::EINTR) => moved(&self.send, 1),
                Some(errno @ errno::ECONNREFUSED) if self.is_connected_inet() => {
                    // An ICMP message about an earlier datagram: asking has cleared it, and this one was not looked at.
                    self.refuse(Errno(errno));
                    moved(&self.send, 1);
                }
                _ => return Poll::Ready(Err(error)),
            }
        }
    }

    fn hand_over(&self, batch: &[Transmit]) -> io::Result<usize> {
        let core = self.owned.core();
        let as_ipv6 = matches!(self.target.family, Family::V6 | Family::Dual);
        let mut scratch = core.0.datagrams.borrow_mut();
        let count = scratch.send(self.owned.raw_fd(), batch, as_ipv6, self.peer_is_ipv4)?;
        let total: usize = batch[..count].iter().map(|transmit| transmit.contents.len()).sum();
        core.stats().sent_bytes.add(total as u64);
        Ok(count)
    }

    /// Ready when it is this socket's turn, and the kernel may have changed its mind.
    fn poll_turn(&self, cx: &mut Context<'_>, side: &Cell<Side>, kind: OpKind) -> Poll<io::Result<()>> {
        let core = self.owned.core();
        let mut now = side.get();
        if now.waits {
            let told = ready!(core.0.sockets.borrow_mut().poll_ready(self.owned.id(), kind, cx));
            now.waits = false;
            side.set(now);
            told?;
        }
        let turn = core.turn_number();
        if now.turn != turn {
            side.set(Side { turn, moved: 0, ..now });
        } else if now.moved >= TURN_DATAGRAMS {
            core.wake_next_turn(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_backoff(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut backoff = self.backoff.borrow_mut();
        if let Some(sleep) = backoff.as_mut() {
            ready!(Pin::new(sleep).poll_elapsed(cx));
            *backoff = None;
        }
        Poll::Ready(())
    }

    /// Whoever receives is told, and woken: the kernel has forgotten it.
    fn refuse(&self, errno: Errno) {
        self.refused.set(Some(errno));
        let core = self.owned.core();
        core.0.sockets.borrow_mut().tell_ready(self.owned.id(), OpKind::Readable);
    }

    /// Whether it learns of its own queue only, not of the peer's. Of connected Unix sockets the kernel tells both.
    fn is_deaf_to_its_peer(&self) -> bool {
        self.target.family == Family::Unix
            && self.target.kind == Kind::Datagram
            && self.target.role != SocketRole::Dialled
    }

    fn is_connected_inet(&self) -> bool {
        self.target.family != Family::Unix && self.target.role == SocketRole::Dialled
    }

    /// Runs `call` with the descriptor, for options and groups.
    pub fn with_fd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        self.owned.with_fd(call)
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.owned.with_fd(socket::local_addr)
    }

    /// The only peer's address. One system call.
    ///
    /// # Errors
    /// `ENOTCONN` where there is no such.
    pub fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.owned.with_fd(socket::peer_addr)
    }
}

fn moved(side: &Cell<Side>, count: usize) {
    let now = side.get();
    side.set(Side { moved: now.moved + count, ..now });
}

fn wait(side: &Cell<Side>) {
    side.set(Side { waits: true, ..side.get() });
}

const _: () = assert!(MAX_MESSAGES <= TURN_DATAGRAMS, "a batch fits in a turn");
