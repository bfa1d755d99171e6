//! Makes sockets: what has to happen before the first operation.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use socket2::{SockAddr, SockRef};

use crate::driver::ConnectAddr;
use crate::fd::{BorrowedFd, OwnedFd};
use crate::sockets::ACCEPT_QUEUE_LIMIT;
use crate::sockopt::{Kind, OptSet};

#[cfg(windows)]
pub(crate) mod extension;
#[cfg(target_os = "linux")]
mod file;
#[cfg(windows)]
#[path = "socket/no_file.rs"]
mod file;
#[cfg(target_os = "linux")]
mod linux;
pub mod multicast;
mod open;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(windows)]
use windows as os;

pub use file::{SocketFile, group_id, make_room, user_id};
pub use open::{
    DialOptions, Ends, OpenError, Opened, PacketEnds, open_dialled, open_listener, open_listener_with,
    open_packet, open_packet_with,
};
#[cfg(windows)]
pub(crate) use os::protocol_info;
pub use os::{LISTENS_ON_ONE_CORE, SHARES_PORTS, is_readable, unacknowledged};
pub(crate) use os::{readable, set_reset_on_close, unix_addr};

/// Where a local socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LocalAddr {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix socket's path, or with a leading NUL byte an abstract name; empty for an unnamed one.
    Unix(Vec<u8>),
}

/// `127.0.0.1:80`, `[::1]:80`, `unix:/path`, or `unix:@name` in the abstract namespace.
impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddr::Inet(addr) => addr.fmt(f),
            LocalAddr::Unix(path) => match path.strip_prefix(&[0]) {
                Some(name) => write!(f, "unix:@{}", name.escape_ascii()),
                None => write!(f, "unix:{}", String::from_utf8_lossy(path)),
            },
        }
    }
}

impl From<SocketAddr> for LocalAddr {
    fn from(addr: SocketAddr) -> Self {
        LocalAddr::Inet(addr)
    }
}

/// To where one end is, for the other to connect.
impl From<LocalAddr> for ConnectAddr {
    fn from(addr: LocalAddr) -> Self {
        match addr {
            LocalAddr::Inet(addr) => ConnectAddr::Inet(addr),
            LocalAddr::Unix(path) => ConnectAddr::Unix(path),
        }
    }
}

/// What a listener asks for.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that the kernel keeps for accept; it caps this at `net.core.somaxconn`.
    pub backlog: i32,
    /// Whether several sockets may listen at one address (`SO_REUSEPORT`): one for each core.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { backlog: 4096, reuse_port: false }
    }
}

/// A non-blocking, close-on-exec listening socket without options of the caller: see [`open_listener`].
///
/// # Errors
/// The kernel's: address in use, not available, permission.
pub fn listen(addr: &ConnectAddr, options: ListenOptions) -> io::Result<OwnedFd> {
    Ok(open_listener(addr, Kind::Stream, options, &OptSet::new())?.fd)
}

/// Connections that a listener with such a backlog may hold at a time: taken by its core, or waiting for it in the kernel.
///
/// A turn may take all of them. listen(2): the kernel caps a backlog at `net.core.somaxconn`, and lets one more wait.
pub fn burst_len(backlog: i32) -> usize {
    usize::try_from(backlog)
        .unwrap_or(usize::MAX)
        .min(os::max_backlog())
        .saturating_add(1 + ACCEPT_QUEUE_LIMIT)
}

/// A fresh non-blocking, close-on-exec stream socket for a connect to `addr`, without options of the caller: see
/// [`open_dialled`].
///
/// # Errors
/// The kernel's: out of descriptors, family not supported.
pub fn stream_for(addr: &ConnectAddr) -> io::Result<OwnedFd> {
    let options = OptSet::new();
    let options = DialOptions { kind: Kind::Stream, local: None, options: &options, read_back: false };
    Ok(open_dialled(addr, options)?.fd)
}

/// The kernel's form of where a connect goes.
///
/// # Errors
/// `InvalidInput` for a Unix path that is too long.
pub fn sock_addr(addr: &ConnectAddr) -> io::Result<SockAddr> {
    match addr {
        ConnectAddr::Inet(addr) => Ok(SockAddr::from(*addr)),
        ConnectAddr::Unix(path) => unix_addr(path),
    }
}

/// What is in the way of a new Unix socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum InTheWay {
    /// A file that is no socket.
    OtherFile,
    /// A socket that somebody has.
    LiveSocket,
    /// A socket's file that nobody has, and that may not be replaced.
    StaleSocket,
    /// The kernel does not tell, or does not let it be removed.
    Unknown(io::Error),
}

/// A connection that waits in a non-blocking listener, without waiting. One system call.
///
/// # Errors
/// The kernel's: out of descriptors.
pub fn accept_now(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match SockRef::from(&fd).accept_raw() {
        Ok((accepted, _)) => {
            accepted.set_nonblocking(true)?;
            os::keep_from_children(&accepted)?;
            Ok(Some(accepted.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends the sending side: the peer reads an end. shutdown(2).
///
/// # Errors
/// `ENOTCONN` when the peer is gone.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(std::net::Shutdown::Write)
}

/// The peer's address. One system call.
///
/// # Errors
/// `ENOTCONN` when the peer is gone.
pub fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<LocalAddr> {
    SockRef::from(&fd).peer_addr().map(|addr| readable(&addr))
}

/// Our address. One system call.
///
/// # Errors
/// The kernel's.
pub fn local_addr(fd: BorrowedFd<'_>) -> io::Result<LocalAddr> {
    SockRef::from(&fd).local_addr().map(|addr| readable(&addr))
}
