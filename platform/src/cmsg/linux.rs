//! Control messages of Linux. ip(7), ipv6(7), udp(7).

use std::net::Ipv4Addr;

use super::{Told, array, int};

pub(super) const AF_INET: i32 = libc::AF_INET;
pub(super) const AF_INET6: i32 = libc::AF_INET6;

/// Level and type of what asks for a congestion mark, and of the others.
pub(super) const ECN4: (i32, i32) = (libc::IPPROTO_IP, libc::IP_TOS);
pub(super) const ECN6: (i32, i32) = (libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
pub(super) const LOCAL4: (i32, i32) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
pub(super) const LOCAL6: (i32, i32) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
pub(super) const SEGMENT: (i32, i32) = (libc::IPPROTO_UDP, libc::UDP_SEGMENT);

pub(super) fn told(level: i32, kind: i32) -> Option<Told> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_TOS) => Some(Told::TypeOfService),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => Some(Told::TrafficClass),
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => Some(Told::Local4),
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => Some(Told::Local6),
        (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) | (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
            Some(Told::OriginalDestination)
        }
        (libc::IPPROTO_UDP, libc::UDP_GRO) => Some(Told::SegmentSize),
        _ => None,
    }
}

/// `in_pktinfo`: index, the address to answer from, the address of the header.
pub(super) fn local4(info: &[u8]) -> Option<(Ipv4Addr, u32)> {
    let (index, addr) = (int(info)?, array::<4>(info, 8)?);
    Some((Ipv4Addr::from(addr), index.cast_unsigned()))
}

pub(super) fn from4(addr: Ipv4Addr, interface: u32) -> [u8; 12] {
    let mut info = [0; 12];
    info[..4].copy_from_slice(&interface.to_ne_bytes());
    info[4..8].copy_from_slice(&addr.octets());
    info
}

/// A `uint16_t`.
pub(super) fn segment(size: u16) -> [u8; 2] {
    size.to_ne_bytes()
}
