//! The requests of RFC 3678 in Linux's form. ip(7).

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

use super::{Change, Group};

pub(super) fn change(fd: BorrowedFd<'_>, group: &Group, what: Change) -> io::Result<()> {
    let (any, by_source) = match what {
        Change::Join => (libc::MCAST_JOIN_GROUP, libc::MCAST_JOIN_SOURCE_GROUP),
        Change::Leave => (libc::MCAST_LEAVE_GROUP, libc::MCAST_LEAVE_SOURCE_GROUP),
    };
    let level = if group.group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let interface = match &group.interface {
        Some(name) => index_of(name)?,
        None => 0,
    };
    match group.source {
        None => {
            let request = libc::group_req { gr_interface: interface, gr_group: storage(group.group) };
            set(fd, level, any, &request)
        }
        Some(source) => {
            let request = libc::group_source_req {
                gsr_interface: interface,
                gsr_group: storage(group.group),
                gsr_source: storage(source),
            };
            set(fd, level, by_source, &request)
        }
    }
}

fn set<T>(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, during the call only.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn storage(ip: IpAddr) -> libc::sockaddr_storage {
    let addr = SockAddr::from(SocketAddr::new(ip, 0));
    // SAFETY: a `SockAddr` is stored in a `sockaddr_storage`, the rest of which it has zeroed.
    unsafe { addr.as_ptr().cast::<libc::sockaddr_storage>().read() }
}

/// The index of an interface. if_nametoindex(3).
///
/// # Errors
/// `ENODEV`: there is none of that name.
pub fn index_of(name: &str) -> io::Result<u32> {
    let none = || io::Error::from_raw_os_error(libc::ENODEV);
    let name = CString::new(name).map_err(|_| none())?;
    // SAFETY: `name` ends with NUL and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(none()),
        index => Ok(index),
    }
}
