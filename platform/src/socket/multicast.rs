//! Groups that a socket hears, and what is sent to groups.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{SockAddr, SockRef};

/// A group to join or leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its address. A socket of both families takes both.
    pub group: IpAddr,
    /// Name of the interface to hear it by; `None` = by route.
    pub interface: Option<String>,
    /// Only packets from this address, of the group's family (RFC 4607).
    pub source: Option<IpAddr>,
}

/// Hears a group from now on. ip(7) `MCAST_JOIN_GROUP`, `MCAST_JOIN_SOURCE_GROUP`; RFC 3678 5.1.
///
/// # Errors
/// `ENODEV`: no such interface, or none by route. `EADDRINUSE`: joined already. `EINVAL`: no group, or of another family.
/// `ENOBUFS`: more than `net.ipv4.igmp_max_memberships`.
pub fn join(fd: BorrowedFd<'_>, group: &Group) -> io::Result<()> {
    change(fd, group, libc::MCAST_JOIN_GROUP, libc::MCAST_JOIN_SOURCE_GROUP)
}

/// Hears a group no more. Closing a socket leaves all of its.
///
/// # Errors
/// `EADDRNOTAVAIL`: not joined.
pub fn leave(fd: BorrowedFd<'_>, group: &Group) -> io::Result<()> {
    change(fd, group, libc::MCAST_LEAVE_GROUP, libc::MCAST_LEAVE_SOURCE_GROUP)
}

/// How far goes, and whether is heard here, what is sent to groups; of a socket of both families for both.
///
/// # Errors
/// The kernel's.
pub fn set_multicast(fd: BorrowedFd<'_>, is_ipv6: bool, hops: u8, is_heard_here: bool) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if is_ipv6 {
        socket.set_multicast_hops_v6(hops.into())?;
        socket.set_multicast_loop_v6(is_heard_here)?;
        // An IPv6 socket that sends IPv4 has its options too; a raw one does not, and sends none.
        return match socket
            .set_multicast_ttl_v4(hops.into())
            .and_then(|()| socket.set_multicast_loop_v4(is_heard_here))
        {
            Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    socket.set_multicast_ttl_v4(hops.into())?;
    socket.set_multicast_loop_v4(is_heard_here)
}

fn change(fd: BorrowedFd<'_>, group: &Group, any: libc::c_int, by_source: libc::c_int) -> io::Result<()> {
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
