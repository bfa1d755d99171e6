//! Control messages of Windows. Microsoft Learn, "IPPROTO_IP Socket Options", "IPPROTO_UDP Socket Options".
//!
//! A header is as on a 64-bit Linux: a length of a word, level, type, and the data behind it, padded to a word.

use std::net::Ipv4Addr;

use windows_sys::Win32::Networking::WinSock;

use super::{Told, array};

pub(super) const AF_INET: i32 = WinSock::AF_INET as i32;
pub(super) const AF_INET6: i32 = WinSock::AF_INET6 as i32;

/// Level and type of what asks for a congestion mark, and of the others.
pub(super) const ECN4: (i32, i32) = (WinSock::IPPROTO_IP, WinSock::IP_ECN);
pub(super) const ECN6: (i32, i32) = (WinSock::IPPROTO_IPV6, WinSock::IPV6_ECN);
pub(super) const LOCAL4: (i32, i32) = (WinSock::IPPROTO_IP, WinSock::IP_PKTINFO);
pub(super) const LOCAL6: (i32, i32) = (WinSock::IPPROTO_IPV6, WinSock::IPV6_PKTINFO);
pub(super) const SEGMENT: (i32, i32) = (WinSock::IPPROTO_UDP, WinSock::UDP_SEND_MSG_SIZE);

const COALESCED: i32 = WinSock::UDP_COALESCED_INFO.cast_signed();

pub(super) fn told(level: i32, kind: i32) -> Option<Told> {
    match (level, kind) {
        (WinSock::IPPROTO_IP, WinSock::IP_TOS | WinSock::IP_ECN) => Some(Told::TypeOfService),
        (WinSock::IPPROTO_IPV6, WinSock::IPV6_TCLASS | WinSock::IPV6_ECN) => Some(Told::TrafficClass),
        (WinSock::IPPROTO_IP, WinSock::IP_PKTINFO) => Some(Told::Local4),
        (WinSock::IPPROTO_IPV6, WinSock::IPV6_PKTINFO) => Some(Told::Local6),
        (WinSock::IPPROTO_UDP, COALESCED) => Some(Told::SegmentSize),
        _ => None,
    }
}

/// `IN_PKTINFO`: the address of the header, index.
pub(super) fn local4(info: &[u8]) -> Option<(Ipv4Addr, u32)> {
    Some((Ipv4Addr::from(array::<4>(info, 0)?), u32::from_ne_bytes(array(info, 4)?)))
}

pub(super) fn from4(addr: Ipv4Addr, interface: u32) -> [u8; 8] {
    let mut info = [0; 8];
    info[..4].copy_from_slice(&addr.octets());
    info[4..].copy_from_slice(&interface.to_ne_bytes());
    info
}

/// A `DWORD`.
pub(super) fn segment(size: u16) -> [u8; 4] {
    u32::from(size).to_ne_bytes()
}
