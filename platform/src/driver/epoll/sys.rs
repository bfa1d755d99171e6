//! The system calls of the epoll driver, one function each.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use socket2::SockAddr;

use crate::op::Errno;

/// epoll_create1(2).
pub(super) fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map_err(io::Error::from)
}

/// eventfd(2), non-blocking.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map_err(io::Error::from)
}

/// Adds one to an eventfd: an edge for whoever waits on it.
pub(super) fn signal(eventfd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: the kernel reads eight bytes of `one` during the call only. EAGAIN would take 2^64 signals.
    unsafe { libc::write(eventfd.as_raw_fd(), std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
}

/// `EPOLL_CTL_ADD`; where a duplicate of this very number was closed without leaving epoll, `EPOLL_CTL_MOD`.
pub(super) fn add(epoll: BorrowedFd<'_>, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    match control(epoll, libc::EPOLL_CTL_ADD, fd, events, data) {
        Err(Errno(libc::EEXIST)) => control(epoll, libc::EPOLL_CTL_MOD, fd, events, data)?,
        added => added?,
    }
    Ok(())
}

fn control(epoll: BorrowedFd<'_>, what: i32, fd: RawFd, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the kernel reads `event` during the call only.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), what, fd, &mut event) })?;
    Ok(())
}

/// epoll_wait(2): at most `millis`, -1 without end.
pub(super) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    millis: i32,
) -> Result<usize, Errno> {
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `room` entries of `events`, during the call only.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, millis) };
    Ok(check(count)? as usize)
}

/// epoll_pwait2(2), by number: the C library may be older than the kernel.
pub(super) fn wait_precise(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> Result<usize, Errno> {
    /// `struct __kernel_timespec`: 64 bits each on every architecture.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanos: i64,
    }
    let timeout = Timespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanos: i64::from(timeout.subsec_nanos()),
    };
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `room` entries of `events` and reads `timeout`, during the call only; no
    // signal mask is given.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            room,
            std::ptr::from_ref(&timeout),
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    if count < 0 { Err(Errno::last()) } else { Ok(count as usize) }
}

/// accept4(2): the new descriptor is non-blocking and close-on-exec.
pub(super) fn accept(fd: RawFd) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for, so the kernel writes no memory.
    owned(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}

/// recv(2) of at most `len` bytes.
///
/// # Safety
/// `len` bytes from `into` on are valid for writes and nobody else looks at them.
pub(super) unsafe fn recv(fd: RawFd, into: NonNull<u8>, len: usize) -> Result<usize, Errno> {
    // SAFETY: by this function's contract; the kernel writes during the call only.
    let count = unsafe { libc::recv(fd, into.as_ptr().cast(), len, libc::MSG_DONTWAIT) };
    if count < 0 { Err(Errno::last()) } else { Ok(count as usize) }
}

/// sendmsg(2), or send(2) for one run of bytes; EPIPE instead of a signal.
///
/// # Safety
/// Each of `iovecs` names bytes that are valid for reads.
pub(super) unsafe fn send(fd: RawFd, iovecs: &mut [libc::iovec]) -> Result<usize, Errno> {
    if let [only] = iovecs {
        // SAFETY: it names readable bytes by this function's contract. The kernel has no list of them to copy.
        let count =
            unsafe { libc::send(fd, only.iov_base, only.iov_len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        return if count < 0 { Err(Errno::last()) } else { Ok(count as usize) };
    }
    // SAFETY: a `msghdr` of zeros is valid: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iovecs.as_mut_ptr();
    message.msg_iovlen = iovecs.len() as _;
    // SAFETY: `message` and the iovecs live through the call, and name readable bytes by this function's contract.
    let count = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if count < 0 { Err(Errno::last()) } else { Ok(count as usize) }
}

/// connect(2).
pub(super) fn connect(fd: RawFd, addr: &SockAddr) -> Result<(), Errno> {
    // SAFETY: `addr` is a valid address of its length, read during the call only.
    check(unsafe { libc::connect(fd, addr.as_ptr().cast(), addr.len()) })?;
    Ok(())
}

/// Takes the socket's pending error. socket(7) `SO_ERROR`.
pub(super) fn take_error(fd: RawFd) -> Result<(), Errno> {
    match option(fd, libc::SO_ERROR)? {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

/// Whether the descriptor is a plain TCP socket. socket(7) `SO_PROTOCOL`.
pub(super) fn is_tcp(fd: RawFd) -> bool {
    option(fd, libc::SO_PROTOCOL) == Ok(libc::IPPROTO_TCP)
}

fn option(fd: RawFd, name: i32) -> Result<i32, Errno> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    let into = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel writes at most `len` bytes to `value`, during the call only.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, into, &mut len) })?;
    Ok(value)
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

fn owned(result: i32) -> Result<OwnedFd, Errno> {
    let fd = check(result)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
