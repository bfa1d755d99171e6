//! What Linux is asked about sockets beyond what every system has.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{LocalAddr, SocketFile};
use crate::driver::ConnectAddr;

/// What the kernel caps a backlog at. listen(2).
pub(super) fn max_backlog() -> usize {
    static SOMAXCONN: LazyLock<usize> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        text.trim().parse().unwrap_or(usize::MAX)
    });
    *SOMAXCONN
}

/// Whether several sockets can listen at one port, to which the kernel spreads connections: with `SO_REUSEPORT`.
pub const SHARES_PORTS: bool = true;

/// Whether a listening socket can be watched by the driver of one core alone: no, by each that has a descriptor of it.
pub const LISTENS_ON_ONE_CORE: bool = false;

/// What makes a stream socket one of several paths.
pub(super) const MPTCP: Option<Protocol> = Some(Protocol::MPTCP);

/// A socket that does not block and is closed on exec.
pub(super) fn new_socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new(domain, kind.nonblocking().cloexec(), protocol)
}

/// The family of a socket that somebody else made. socket(7) `SO_DOMAIN`.
pub(super) fn domain(socket: &Socket) -> io::Result<Domain> {
    socket.domain()
}

/// socket(7) `SO_ACCEPTCONN`.
pub(super) fn is_listening(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// `SO_REUSEADDR` lets a listener have the address of connections in TIME_WAIT, and of nothing else. socket(7)
pub(super) const REUSES_ADDRESS: bool = true;

/// Nothing: another listener cannot take the address.
pub(super) fn claim_address(_fd: &OwnedFd, _is_shared: bool) -> io::Result<()> {
    Ok(())
}

/// Programs that this one starts do not get it.
pub(super) fn keep_from_children(socket: &Socket) -> io::Result<()> {
    socket.set_cloexec(true)
}

/// The kernel's form of a Unix path; `InvalidInput` where it is longer than `sun_path` (108 bytes on Linux).
pub(crate) fn unix_addr(path: &[u8]) -> io::Result<SockAddr> {
    SockAddr::unix(OsStr::from_bytes(path))
}

/// Bytes in the kernel's send queue that the peer has not acknowledged; 0 where it does not tell. tcp(7), `SIOCOUTQ`.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` is the same number; the kernel writes an `int` to `count` during the call only.
    let told = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if told == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Whether a read would bring something, an end or an error included. poll(2).
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let events = libc::POLLIN | libc::POLLRDHUP;
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, which the kernel writes during the call only.
    unsafe { libc::poll(&raw mut entry, 1, 0) == 1 }
}

pub(crate) fn readable(addr: &SockAddr) -> LocalAddr {
    if let Some(addr) = addr.as_socket() {
        return LocalAddr::Inet(addr);
    }
    if let Some(name) = addr.as_abstract_namespace() {
        let mut bytes = vec![0];
        bytes.extend_from_slice(name);
        return LocalAddr::Unix(bytes);
    }
    LocalAddr::Unix(addr.as_pathname().map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default())
}

/// On Linux the file of a Unix socket gets the mode of the socket itself, less the umask.
pub(super) fn narrow(fd: &OwnedFd, mode: u32) -> io::Result<()> {
    // SAFETY: changes the mode of an open descriptor; no memory is involved.
    let done = unsafe { libc::fchmod(fd.as_raw_fd(), mode) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The file that a bind has made, if that makes one.
pub(super) fn bound_file(addr: &ConnectAddr) -> io::Result<Option<SocketFile>> {
    match addr {
        ConnectAddr::Unix(path) if path.first().is_some_and(|first| *first != 0) => {
            SocketFile::just_bound(Path::new(OsStr::from_bytes(path))).map(Some)
        }
        ConnectAddr::Unix(_) | ConnectAddr::Inet(_) => Ok(None),
    }
}

/// Makes the coming close send RST instead of FIN. socket(7) `SO_LINGER`.
pub(crate) fn set_reset_on_close(fd: &OwnedFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `fd` is open and the kernel reads `linger` during the call only. A refusal (Unix sockets) changes nothing.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}
