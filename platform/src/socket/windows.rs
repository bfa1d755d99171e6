//! What Windows is asked about sockets beyond what every system has.

use std::io;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{
    POLLRDNORM, SO_ACCEPTCONN, SO_EXCLUSIVEADDRUSE, SO_PROTOCOL_INFOW, SOCKET_ERROR, SOL_SOCKET, WSAPOLLFD,
    WSAPROTOCOL_INFOW, WSAPoll, getsockopt, setsockopt,
};

use super::{LocalAddr, SocketFile};
use crate::driver::ConnectAddr;
use crate::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// What Windows caps a backlog at. Microsoft Learn, `listen`: `SOMAXCONN_HINT` goes to 65,535.
pub(super) fn max_backlog() -> usize {
    65_535
}

/// Whether several sockets can listen at one port, to which the kernel spreads connections: no. Windows takes a second one
/// with `SO_REUSEADDR`, and says of it that which of the two is given a connection is not defined.
pub const SHARES_PORTS: bool = false;

/// Whether a listening socket can be watched by the driver of one core alone: a handle is tied to one completion port, and so
/// are its duplicates. Microsoft Learn, `CreateIoCompletionPort`.
pub const LISTENS_ON_ONE_CORE: bool = true;

/// There is no TCP of several paths: the table refuses the option before.
pub(super) const MPTCP: Option<Protocol> = None;

/// A socket for overlapped operations that does not block otherwise, and is not inherited.
pub(super) fn new_socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    if domain == Domain::UNIX {
        return Err(no_unix());
    }
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The family of a socket that somebody else made. `SO_PROTOCOL_INFOW`.
pub(super) fn domain(socket: &Socket) -> io::Result<Domain> {
    let info = protocol_info(socket.as_raw_fd())?;
    Ok(Domain::from(info.iAddressFamily))
}

/// What the provider of a socket says of itself. Microsoft Learn, `WSAPROTOCOL_INFOW`.
pub(crate) fn protocol_info(fd: RawFd) -> io::Result<WSAPROTOCOL_INFOW> {
    // SAFETY: integers, of which all zeroes are values.
    let mut info: WSAPROTOCOL_INFOW = unsafe { std::mem::zeroed() };
    option(fd, SO_PROTOCOL_INFOW, &mut info)?;
    Ok(info)
}

/// `SO_ACCEPTCONN`.
pub(super) fn is_listening(socket: &Socket) -> io::Result<bool> {
    let mut listens = 0i32;
    option(socket.as_raw_fd(), SO_ACCEPTCONN, &mut listens)?;
    Ok(listens != 0)
}

/// `T` is made of integers, so whatever is written to it is a value.
fn option<T: Copy>(fd: RawFd, name: i32, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as i32;
    // SAFETY: the call writes at most `len` bytes to `value`.
    let result = unsafe { getsockopt(fd as usize, SOL_SOCKET, name, (&raw mut *value).cast(), &raw mut len) };
    if result == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `SO_REUSEADDR` lets anybody take the port of a listener, and connections in TIME_WAIT are in nobody's way. Microsoft Learn,
/// "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE".
pub(super) const REUSES_ADDRESS: bool = false;

/// `SO_EXCLUSIVEADDRUSE`, unless the address is to be shared.
pub(super) fn claim_address(fd: &OwnedFd, is_shared: bool) -> io::Result<()> {
    if is_shared {
        return Ok(());
    }
    let on = 1i32;
    let len = size_of::<i32>() as i32;
    // SAFETY: the call reads `on`.
    let result = unsafe {
        setsockopt(fd.as_raw_fd() as usize, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (&raw const on).cast(), len)
    };
    if result == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sockets are not inherited: the standard library and socket2 make them so.
pub(super) fn keep_from_children(socket: &Socket) -> io::Result<()> {
    socket.set_no_inherit(true)
}

/// Refused: neither AcceptEx nor ConnectEx is documented for `AF_UNIX`.
pub(crate) fn unix_addr(_path: &[u8]) -> io::Result<SockAddr> {
    Err(no_unix())
}

fn no_unix() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "Unix sockets are not to be had on Windows")
}

/// 0: Windows does not tell how much of what was sent is not acknowledged.
pub fn unacknowledged(_fd: BorrowedFd<'_>) -> usize {
    0
}

/// Whether a read would bring something, an end or an error included. `WSAPoll`.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = WSAPOLLFD { fd: fd.as_raw_fd() as usize, events: POLLRDNORM, revents: 0 };
    // SAFETY: one entry, which the call reads and writes.
    unsafe { WSAPoll(&raw mut entry, 1, 0) == 1 }
}

pub(crate) fn readable(addr: &SockAddr) -> LocalAddr {
    addr.as_socket().map_or(LocalAddr::Unix(Vec::new()), LocalAddr::Inet)
}

/// Only a Unix socket has a file with a mode.
pub(super) fn narrow(_fd: &OwnedFd, _mode: u32) -> io::Result<()> {
    unix_addr(&[]).map(drop)
}

/// None: there are no Unix sockets.
pub(super) fn bound_file(_addr: &ConnectAddr) -> io::Result<Option<SocketFile>> {
    Ok(None)
}

/// Makes the coming close send RST instead of FIN. `SO_LINGER` of 0.
pub(crate) fn set_reset_on_close(fd: &OwnedFd) {
    // A refusal changes nothing.
    let _ = SockRef::from(fd).set_linger(Some(std::time::Duration::ZERO));
}
