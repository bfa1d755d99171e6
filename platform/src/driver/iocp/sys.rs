//! The system calls of the driver, one function each.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, HANDLE, INVALID_HANDLE_VALUE, WAIT_TIMEOUT};
use windows_sys::Win32::Networking::WinSock::{
    self, MSG_PEEK, SIO_UDP_CONNRESET, SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR_STORAGE,
    SOL_SOCKET, WSA_IO_PENDING, WSABUF, WSAEnumProtocolsW, WSAGetOverlappedResult, WSAIoctl,
    WSAPROTOCOL_INFOW, WSARecv, WSASend, XP1_IFS_HANDLES,
};
use windows_sys::Win32::Storage::FileSystem::SetFileCompletionNotificationModes;
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::WindowsProgramming::{
    FILE_SKIP_COMPLETION_PORT_ON_SUCCESS, FILE_SKIP_SET_EVENT_ON_HANDLE,
};

use crate::fd::{OwnedFd, RawFd};
use crate::op::Errno;
use crate::socket::extension;

/// Bytes that AcceptEx writes of each address: 16 more than the longest. Microsoft Learn, `AcceptEx`.
pub(super) const ACCEPT_ADDR_BYTES: usize = size_of::<SOCKADDR_STORAGE>() + 16;

/// The key of a packet that only wakes; sockets have [`SOCKET_KEY`].
const WAKE_KEY: usize = 0;
const SOCKET_KEY: usize = 1;

/// A completion port, and whether a packet that wakes its core is on its way.
pub(super) struct Port {
    handle: OwnedHandle,
    waking: AtomicBool,
}

impl Port {
    /// CreateIoCompletionPort, for one thread.
    pub(super) fn create() -> io::Result<Self> {
        // SAFETY: makes a port; no memory is involved.
        let handle = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made, and nobody else has it.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        Ok(Port { handle, waking: AtomicBool::new(false) })
    }

    /// Ties a socket to the port: for ever, and to no other.
    pub(super) fn associate(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: no memory is involved.
        let tied = unsafe { CreateIoCompletionPort(handle(fd), self.handle.as_raw_handle(), SOCKET_KEY, 0) };
        if tied.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the current or the next [`Port::take`] return. One packet at a time, so that wakes do not pile up.
    pub(super) fn wake(&self) {
        if !self.waking.swap(true, Ordering::SeqCst) {
            // SAFETY: the packet has no OVERLAPPED. It can fail for want of memory only.
            let posted =
                unsafe { PostQueuedCompletionStatus(self.handle.as_raw_handle(), 0, WAKE_KEY, ptr::null()) };
            if posted == 0 {
                self.waking.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Takes packets, after at most `millis`; `INFINITE` waits for one. None is no error.
    pub(super) fn take(&self, entries: &mut [OVERLAPPED_ENTRY], millis: u32) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: the call writes at most `entries.len()` entries and `count`.
        let taken = unsafe {
            GetQueuedCompletionStatusEx(
                self.handle.as_raw_handle(),
                entries.as_mut_ptr(),
                entries.len() as u32,
                &raw mut count,
                millis,
                0,
            )
        };
        if taken != 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(WAIT_TIMEOUT.cast_signed()) { Ok(0) } else { Err(error) }
    }

    /// The OVERLAPPED of a packet; `None` for one that only wakes. Whoever looks at a packet has been woken.
    pub(super) fn operation(&self, entry: &OVERLAPPED_ENTRY) -> Option<NonNull<OVERLAPPED>> {
        if entry.lpCompletionKey == WAKE_KEY {
            self.waking.store(false, Ordering::SeqCst);
        }
        NonNull::new(entry.lpOverlapped)
    }
}

/// What became of an overlapped call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// A packet comes.
    Pending,
    /// It has ended, with so many bytes; where the socket does not skip them, a packet comes nevertheless.
    Done(usize),
}

fn started(failed: bool, count: u32) -> Result<Started, Errno> {
    if !failed {
        return Ok(Started::Done(count as usize));
    }
    match Errno::last() {
        Errno(WSA_IO_PENDING) => Ok(Started::Pending),
        errno => Err(errno),
    }
}

/// WSARecv of at most `len` bytes that does not wait.
///
/// # Safety
/// `len` bytes from `into` on are valid for writes and nobody else looks at them.
pub(super) unsafe fn recv(fd: RawFd, into: NonNull<u8>, len: usize) -> Result<usize, Errno> {
    let buf = WSABUF { len: len as u32, buf: into.as_ptr() };
    let (mut count, mut flags) = (0, 0);
    // SAFETY: by this function's contract; without an OVERLAPPED the call has ended when it returns.
    let result = unsafe {
        WSARecv(fd as usize, &raw const buf, 1, &raw mut count, &raw mut flags, ptr::null_mut(), None)
    };
    if result == 0 { Ok(count as usize) } else { Err(Errno::last()) }
}

/// A receive that ends when there is something to receive: of no bytes, or, of a datagram, a look at it.
///
/// # Safety
/// `overlapped`, and `peek` where it is given, stay valid for writes until the packet; nobody reads `peek`.
pub(super) unsafe fn wait_readable(
    fd: RawFd,
    peek: Option<(NonNull<u8>, usize)>,
    overlapped: *mut OVERLAPPED,
) -> Result<Started, Errno> {
    let (buf, mut flags) = match peek {
        None => (WSABUF { len: 0, buf: ptr::null_mut() }, 0),
        Some((into, len)) => (WSABUF { len: len as u32, buf: into.as_ptr() }, MSG_PEEK as u32),
    };
    let mut count = 0;
    // SAFETY: by this function's contract. The list of buffers is captured before the call returns.
    let result =
        unsafe { WSARecv(fd as usize, &raw const buf, 1, &raw mut count, &raw mut flags, overlapped, None) };
    started(result != 0, count)
}

/// WSASend that does not wait; with an OVERLAPPED, one that ends when all of it was taken.
///
/// # Safety
/// Each of `bufs` names bytes that are valid for reads; with an OVERLAPPED until its packet, as is the OVERLAPPED for
/// writes.
pub(super) unsafe fn send(fd: RawFd, bufs: &[WSABUF], overlapped: *mut OVERLAPPED) -> Result<Started, Errno> {
    let mut count = 0;
    // SAFETY: by this function's contract. The list itself is captured before the call returns.
    let result = unsafe {
        WSASend(fd as usize, bufs.as_ptr(), bufs.len() as u32, &raw mut count, 0, overlapped, None)
    };
    started(result != 0, count)
}

/// AcceptEx without a receive.
///
/// # Safety
/// `overlapped`, and twice [`ACCEPT_ADDR_BYTES`] at `addrs`, stay valid for writes until the packet; nobody reads `addrs`.
pub(super) unsafe fn accept(
    listener: RawFd,
    socket: RawFd,
    addrs: NonNull<u8>,
    overlapped: *mut OVERLAPPED,
) -> Result<Started, Errno> {
    let call = extension::accept_ex(listener)?;
    let len = ACCEPT_ADDR_BYTES as u32;
    let mut count = 0;
    // SAFETY: by this function's contract.
    let done = unsafe {
        call(
            listener as usize,
            socket as usize,
            addrs.as_ptr().cast(),
            0,
            len,
            len,
            &raw mut count,
            overlapped,
        )
    };
    started(done == 0, count)
}

/// A fresh socket for AcceptEx: of the listener's sort, for overlapped calls, otherwise non-blocking, not inherited.
pub(super) fn socket_like(info: &WSAPROTOCOL_INFOW) -> Result<OwnedFd, Errno> {
    let make = || {
        let (domain, kind) = (Domain::from(info.iAddressFamily), Type::from(info.iSocketType));
        let socket = Socket::new(domain, kind, Some(Protocol::from(info.iProtocol)))?;
        socket.set_nonblocking(true)?;
        Ok(OwnedFd::from(socket))
    };
    make().map_err(|error: io::Error| Errno(error.raw_os_error().unwrap_or(WinSock::WSAEMFILE)))
}

/// `SO_UPDATE_ACCEPT_CONTEXT`: only then does the socket know its addresses, and can be shut down.
pub(super) fn update_accepted(socket: RawFd, listener: RawFd) -> Result<(), Errno> {
    set(socket, SO_UPDATE_ACCEPT_CONTEXT, &(listener as usize))
}

/// `SO_UPDATE_CONNECT_CONTEXT`, the same for a connected one.
pub(super) fn update_connected(socket: RawFd) -> Result<(), Errno> {
    set(socket, SO_UPDATE_CONNECT_CONTEXT, &())
}

fn set<T>(socket: RawFd, name: i32, value: &T) -> Result<(), Errno> {
    let (value, len) = match size_of::<T>() {
        0 => (ptr::null(), 0),
        len => (ptr::from_ref(value).cast(), len as i32),
    };
    // SAFETY: the call reads `len` bytes of `value`.
    let result = unsafe { WinSock::setsockopt(socket as usize, SOL_SOCKET, name, value, len) };
    if result == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Binds a socket that is not bound yet to any address of the family of `peer`: ConnectEx wants that.
pub(super) fn bind_for(socket: &SockRef<'_>, peer: &SockAddr) -> io::Result<()> {
    if socket.local_addr().is_ok() {
        return Ok(());
    }
    let any: std::net::SocketAddr = match peer.is_ipv4() {
        true => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    socket.bind(&SockAddr::from(any))
}

/// ConnectEx without a send.
///
/// # Safety
/// `overlapped` stays valid for writes until the packet.
pub(super) unsafe fn connect(
    fd: RawFd,
    addr: &SockAddr,
    overlapped: *mut OVERLAPPED,
) -> Result<Started, Errno> {
    let call = extension::connect_ex(fd)?;
    let mut count = 0;
    // SAFETY: by this function's contract; `addr` is an address of its length, captured before the call returns.
    let done = unsafe {
        call(fd as usize, addr.as_ptr().cast(), addr.len(), ptr::null(), 0, &raw mut count, overlapped)
    };
    started(done == 0, count)
}

/// What an ended operation came to, in Winsock's numbers.
///
/// # Safety
/// `overlapped` is of an operation on `fd` whose packet was taken, or which has ended at once.
pub(super) unsafe fn result(fd: RawFd, overlapped: *mut OVERLAPPED) -> (usize, Result<(), Errno>) {
    let (mut count, mut flags) = (0, 0);
    // SAFETY: the operation has ended, so the call only reads `overlapped`.
    let done = unsafe { WSAGetOverlappedResult(fd as usize, overlapped, &raw mut count, 0, &raw mut flags) };
    if done != 0 {
        return (count as usize, Ok(()));
    }
    let errno = Errno::last();
    // SAFETY: as above. Also an operation that was cancelled may have moved bytes.
    (unsafe { (*overlapped).InternalHigh }, Err(errno))
}

/// CancelIoEx of one operation: its packet comes in any case.
pub(super) fn cancel(fd: RawFd, overlapped: *mut OVERLAPPED) {
    // SAFETY: the pointer is a name here. ERROR_NOT_FOUND says that the operation has ended, which its packet tells.
    unsafe { CancelIoEx(handle(fd), overlapped) };
}

/// No packet where a call ends at once. False where the provider does not know how.
pub(super) fn skip_packets(fd: RawFd) -> bool {
    let modes = (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE) as u8;
    // SAFETY: no memory is involved.
    unsafe { SetFileCompletionNotificationModes(handle(fd), modes) != 0 }
}

/// Whether the sockets of every provider are handles of the system: with others, packets must not be skipped. Microsoft
/// Learn, `SetFileCompletionNotificationModes`.
pub(in crate::driver) fn all_are_ifs() -> bool {
    let mut len = 0;
    // SAFETY: with no room the call only tells in `len` how many bytes it wants.
    unsafe { WSAEnumProtocolsW(ptr::null(), ptr::null_mut(), &raw mut len) };
    let room = (len as usize).div_ceil(size_of::<WSAPROTOCOL_INFOW>());
    // SAFETY: integers, of which all zeroes are values.
    let mut infos: Vec<WSAPROTOCOL_INFOW> = vec![unsafe { std::mem::zeroed() }; room];
    // SAFETY: the call writes at most `len` bytes, for which there is room.
    let count = unsafe { WSAEnumProtocolsW(ptr::null(), infos.as_mut_ptr(), &raw mut len) };
    let Ok(count) = usize::try_from(count) else { return false };
    infos.iter().take(count).all(|info| info.dwServiceFlags1 & XP1_IFS_HANDLES != 0)
}

/// An unreachable peer does not end the receives of a socket that has many. `SIO_UDP_CONNRESET`.
pub(super) fn ignore_unreachable_peers(fd: RawFd) {
    let (off, mut count) = (0i32, 0);
    // SAFETY: the call reads `off` and writes `count`. Where it is refused, receives tell of such peers.
    unsafe {
        WSAIoctl(
            fd as usize,
            SIO_UDP_CONNRESET,
            (&raw const off).cast(),
            size_of::<i32>() as u32,
            ptr::null_mut(),
            0,
            &raw mut count,
            ptr::null_mut(),
            None,
        )
    };
}

fn handle(fd: RawFd) -> HANDLE {
    fd as usize as HANDLE
}

const _: () = assert!(WSA_IO_PENDING == ERROR_IO_PENDING.cast_signed());
