//! Winsock's functions that are asked for by number: each is the provider's own.

use std::ptr;
use std::sync::OnceLock;

use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, LPFN_WSARECVMSG, SIO_GET_EXTENSION_FUNCTION_POINTER, SOCKET_ERROR,
    WSAID_ACCEPTEX, WSAID_CONNECTEX, WSAID_WSARECVMSG, WSAIoctl,
};
use windows_sys::core::GUID;

use crate::errno;
use crate::fd::RawFd;
use crate::op::Errno;

/// What [`accept_ex`] gives.
pub(crate) type AcceptEx = Function<LPFN_ACCEPTEX>;
/// What [`connect_ex`] gives.
pub(crate) type ConnectEx = Function<LPFN_CONNECTEX>;
type Function<F> = <F as IntoIterator>::Item;

/// AcceptEx, of the provider of `fd`; asked once in a process, as all TCP sockets have one provider.
pub(crate) fn accept_ex(fd: RawFd) -> Result<AcceptEx, Errno> {
    static FOUND: OnceLock<AcceptEx> = OnceLock::new();
    once(&FOUND, fd, WSAID_ACCEPTEX)
}

/// ConnectEx.
pub(crate) fn connect_ex(fd: RawFd) -> Result<ConnectEx, Errno> {
    static FOUND: OnceLock<ConnectEx> = OnceLock::new();
    once(&FOUND, fd, WSAID_CONNECTEX)
}

/// WSARecvMsg, of the provider of datagrams.
pub(crate) fn recv_msg(fd: RawFd) -> Result<Function<LPFN_WSARECVMSG>, Errno> {
    static FOUND: OnceLock<Function<LPFN_WSARECVMSG>> = OnceLock::new();
    once(&FOUND, fd, WSAID_WSARECVMSG)
}

/// `F` is the type of function that `id` names.
fn once<F: Copy>(found: &OnceLock<F>, fd: RawFd, id: GUID) -> Result<F, Errno> {
    if let Some(function) = found.get() {
        return Ok(*function);
    }
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    let mut function: Option<F> = None;
    const { assert!(size_of::<Option<F>>() == size_of::<usize>()) };
    let mut count = 0;
    // SAFETY: the call reads `id` and writes a pointer to `function`, or null, which is `None`; both outlive it.
    let result = unsafe {
        WSAIoctl(
            fd as usize,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw const id).cast(),
            size_of::<GUID>() as u32,
            (&raw mut function).cast(),
            size_of::<usize>() as u32,
            &raw mut count,
            ptr::null_mut(),
            None,
        )
    };
    if result == SOCKET_ERROR {
        return Err(Errno::last());
    }
    let function = function.ok_or(Errno(errno::EINVAL))?;
    Ok(*found.get_or_init(|| function))
}
