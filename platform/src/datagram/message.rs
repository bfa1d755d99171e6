//! One datagram of a batch, whatever system call moves it: its limits, its addresses, what it asks for.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

use super::Transmit;
use crate::cmsg::ToSend;
use crate::driver::ConnectAddr;
use crate::socket::{self, LocalAddr};

/// Messages of one system call at most.
pub(super) const MAX_MESSAGES: usize = 64;
/// Where datagrams are received to, of all messages together. Only what the kernel writes to becomes resident.
pub(super) const SCRATCH_BYTES: usize = MAX_MESSAGES * MAX_DATAGRAM;
/// As long as UDP's get, and as UDP_GRO makes them.
pub(super) const MAX_DATAGRAM: usize = 1 << 16;
/// As long as they can be received at all: [`SCRATCH_BYTES`] in so few messages.
pub(super) const LONGEST_DATAGRAM: usize = SCRATCH_BYTES / 4;

/// A datagram that lies in the scratch memory.
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) peer: LocalAddr,
    pub(super) control: &'a [u8],
    pub(super) is_truncated: bool,
}

impl Transmit {
    pub(super) fn ask(&self, default_is_ipv4: bool) -> ToSend {
        let is_ipv4 = match &self.dest {
            Some(LocalAddr::Inet(addr)) => addr.ip().to_canonical().is_ipv4(),
            Some(LocalAddr::Unix(_)) | None => default_is_ipv4,
        };
        let source = self.source.map(|(addr, interface)| {
            // An IPv4 packet's source is asked for as IPv4, and no packet has one of the other family's.
            let addr = if is_ipv4 { addr.to_canonical() } else { addr };
            (addr, interface)
        });
        ToSend { is_ipv4, ecn: self.ecn, source, segment_size: self.segment_size }
    }
}

/// An IPv4 address goes to an IPv6 socket as one inside IPv6.
pub(super) fn kernel_addr(addr: &LocalAddr, as_ipv6: bool) -> io::Result<SockAddr> {
    match addr {
        LocalAddr::Inet(SocketAddr::V4(addr)) if as_ipv6 => {
            let mapped = IpAddr::V6(addr.ip().to_ipv6_mapped());
            Ok(SockAddr::from(SocketAddr::new(mapped, addr.port())))
        }
        LocalAddr::Inet(addr) => Ok(SockAddr::from(*addr)),
        LocalAddr::Unix(path) => socket::sock_addr(&ConnectAddr::Unix(path.clone())),
    }
}

/// IPv4 where it is IPv4 inside IPv6.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_goes_to_an_ipv6_socket_inside_ipv6() {
        let addr = LocalAddr::Inet("192.0.2.1:80".parse().expect("an address"));
        let mapped = kernel_addr(&addr, true).expect("an address").as_socket().expect("of IP");
        assert_eq!(mapped, "[::ffff:192.0.2.1]:80".parse().expect("an address"));
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().expect("an address"));
    }
}
