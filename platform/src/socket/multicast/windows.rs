//! The requests of RFC 3678 in the form of Windows. Microsoft Learn, "IPPROTO_IP Socket Options".

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;
use windows_sys::Win32::NetworkManagement::IpHelper::if_nametoindex;
use windows_sys::Win32::Networking::WinSock;

use super::{Change, Group};
use crate::errno;
use crate::fd::{AsRawFd, BorrowedFd};

pub(super) fn change(fd: BorrowedFd<'_>, group: &Group, what: Change) -> io::Result<()> {
    let (any, by_source) = match what {
        Change::Join => (WinSock::MCAST_JOIN_GROUP, WinSock::MCAST_JOIN_SOURCE_GROUP),
        Change::Leave => (WinSock::MCAST_LEAVE_GROUP, WinSock::MCAST_LEAVE_SOURCE_GROUP),
    };
    let level = if group.group.is_ipv4() { WinSock::IPPROTO_IP } else { WinSock::IPPROTO_IPV6 };
    let interface = match &group.interface {
        Some(name) => index_of(name)?,
        None => 0,
    };
    match group.source {
        None => {
            let request = WinSock::GROUP_REQ { gr_interface: interface, gr_group: storage(group.group) };
            set(fd, level, any.cast_signed(), &request)
        }
        Some(source) => {
            let request = WinSock::GROUP_SOURCE_REQ {
                gsr_interface: interface,
                gsr_group: storage(group.group),
                gsr_source: storage(source),
            };
            set(fd, level, by_source.cast_signed(), &request)
        }
    }
}

fn set<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as i32;
    // SAFETY: the kernel reads `len` bytes of `value`, during the call only.
    let done =
        unsafe { WinSock::setsockopt(fd.as_raw_fd() as usize, level, name, (&raw const *value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn storage(ip: IpAddr) -> WinSock::SOCKADDR_STORAGE {
    let addr = SockAddr::from(SocketAddr::new(ip, 0));
    // SAFETY: a `SockAddr` is stored in a `sockaddr_storage`, the rest of which it has zeroed.
    unsafe { addr.as_ptr().cast::<WinSock::SOCKADDR_STORAGE>().read() }
}

/// The index of an interface. if_nametoindex(3).
///
/// # Errors
/// `ENODEV`: there is none of that name.
pub fn index_of(name: &str) -> io::Result<u32> {
    let none = || io::Error::from_raw_os_error(errno::ENODEV);
    let name = CString::new(name).map_err(|_| none())?;
    // SAFETY: `name` ends with NUL and lives through the call.
    match unsafe { if_nametoindex(name.as_ptr().cast()) } {
        0 => Err(none()),
        index => Ok(index),
    }
}
