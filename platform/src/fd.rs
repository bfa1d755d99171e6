//! A socket as the system names it: a descriptor, or on Windows a handle. One set of names for both.
//!
//! Windows' own types are the sockets of `std::os::windows::io`; its traits are implemented for everything that has those
//! of the standard library, so code says `as_fd` on either system.

#[cfg(not(windows))]
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// No socket: what a call refuses.
pub const NO_FD: RawFd = !0;

#[cfg(windows)]
pub use windows::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

#[cfg(windows)]
mod windows {
    use std::os::windows::io::{
        AsRawSocket, AsSocket, BorrowedSocket, FromRawSocket, OwnedSocket, RawSocket,
    };

    /// A socket, closed on drop.
    pub type OwnedFd = OwnedSocket;
    /// A socket that somebody else keeps open.
    pub type BorrowedFd<'fd> = BorrowedSocket<'fd>;
    /// A socket's handle.
    pub type RawFd = RawSocket;

    /// What has a socket.
    pub trait AsFd {
        /// It.
        fn as_fd(&self) -> BorrowedFd<'_>;
    }

    impl<T: AsSocket> AsFd for T {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.as_socket()
        }
    }

    /// What has a socket's handle.
    pub trait AsRawFd {
        /// It.
        fn as_raw_fd(&self) -> RawFd;
    }

    impl<T: AsRawSocket> AsRawFd for T {
        fn as_raw_fd(&self) -> RawFd {
            self.as_raw_socket()
        }
    }

    /// What a socket's handle can become.
    pub trait FromRawFd {
        /// # Safety
        /// It is open, and owned by nobody else.
        unsafe fn from_raw_fd(fd: RawFd) -> Self;
    }

    impl<T: FromRawSocket> FromRawFd for T {
        unsafe fn from_raw_fd(fd: RawFd) -> Self {
            // SAFETY: by this function's contract.
            unsafe { T::from_raw_socket(fd) }
        }
    }
}
