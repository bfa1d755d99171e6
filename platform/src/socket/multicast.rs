//! Groups that a socket hears, and what is sent to groups.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::io;
use std::net::IpAddr;

use socket2::SockRef;

use crate::fd::BorrowedFd;

#[cfg(target_os = "linux")]
use linux::change;
#[cfg(target_os = "linux")]
pub use linux::index_of;
#[cfg(windows)]
use windows::change;
#[cfg(windows)]
pub use windows::index_of;

use crate::errno;

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
    change(fd, group, Change::Join)
}

/// Hears a group no more. Closing a socket leaves all of its.
///
/// # Errors
/// `EADDRNOTAVAIL`: not joined.
pub fn leave(fd: BorrowedFd<'_>, group: &Group) -> io::Result<()> {
    change(fd, group, Change::Leave)
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
            Err(error) if error.raw_os_error() != Some(errno::ENOPROTOOPT) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    socket.set_multicast_ttl_v4(hops.into())?;
    socket.set_multicast_loop_v4(is_heard_here)
}

/// What is done with a group.
#[derive(Clone, Copy)]
enum Change {
    Join,
    Leave,
}
