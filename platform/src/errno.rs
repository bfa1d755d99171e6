//! The error numbers that code outside a driver speaks of, by their POSIX names.
//!
//! On Windows they are what Winsock, or where that has no such error the system, answers in the same case. Microsoft
//! Learn, "Windows Sockets Error Codes".

#[cfg(not(windows))]
pub use libc::{
    EAGAIN, EBADF, ECANCELED, ECONNABORTED, ECONNREFUSED, ECONNRESET, EDESTADDRREQ, EHOSTUNREACH, EINTR,
    EINVAL, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENODEV, ENOMEM, ENOPROTOOPT, ENOTCONN, EPIPE, ETIMEDOUT,
};

#[cfg(windows)]
pub use windows::*;

#[cfg(windows)]
mod windows {
    #![expect(missing_docs, reason = "POSIX names: errno(3)")]

    use windows_sys::Win32::Foundation::{
        ERROR_BROKEN_PIPE, ERROR_DEV_NOT_EXIST, ERROR_NOT_ENOUGH_MEMORY, ERROR_OPERATION_ABORTED,
        ERROR_TOO_MANY_OPEN_FILES,
    };
    use windows_sys::Win32::Networking::WinSock;

    pub const EAGAIN: i32 = WinSock::WSAEWOULDBLOCK;
    pub const EBADF: i32 = WinSock::WSAENOTSOCK;
    pub const ECANCELED: i32 = ERROR_OPERATION_ABORTED.cast_signed();
    pub const ECONNABORTED: i32 = WinSock::WSAECONNABORTED;
    pub const ECONNREFUSED: i32 = WinSock::WSAECONNREFUSED;
    pub const ECONNRESET: i32 = WinSock::WSAECONNRESET;
    pub const EDESTADDRREQ: i32 = WinSock::WSAEDESTADDRREQ;
    pub const EHOSTUNREACH: i32 = WinSock::WSAEHOSTUNREACH;
    pub const EINTR: i32 = WinSock::WSAEINTR;
    pub const EINVAL: i32 = WinSock::WSAEINVAL;
    pub const EMFILE: i32 = WinSock::WSAEMFILE;
    pub const EMSGSIZE: i32 = WinSock::WSAEMSGSIZE;
    pub const ENFILE: i32 = ERROR_TOO_MANY_OPEN_FILES.cast_signed();
    pub const ENOBUFS: i32 = WinSock::WSAENOBUFS;
    pub const ENODEV: i32 = ERROR_DEV_NOT_EXIST.cast_signed();
    pub const ENOMEM: i32 = ERROR_NOT_ENOUGH_MEMORY.cast_signed();
    pub const ENOPROTOOPT: i32 = WinSock::WSAENOPROTOOPT;
    pub const ENOTCONN: i32 = WinSock::WSAENOTCONN;
    pub const EPIPE: i32 = ERROR_BROKEN_PIPE.cast_signed();
    pub const ETIMEDOUT: i32 = WinSock::WSAETIMEDOUT;
}
