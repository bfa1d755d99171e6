//! Ancillary data of datagrams: what the kernel tells with a received one, and what is asked of it with one to send.
//!
//! A control buffer is a row of messages, each a header (length, level, type) and data, padded to a word. cmsg(3). Both ways
//! are written out byte by byte, so nothing here relies on alignment, and a length that lies ends the reading.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(windows)]
use windows as os;

/// The congestion mark of an IP packet, RFC 3168 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender does not take part.
    NotEct,
    /// Takes part; RFC 9331 gives it a meaning of its own.
    Ect1,
    /// Takes part.
    Ect0,
    /// A router was congested.
    Ce,
}

impl Ecn {
    /// From the two low bits of a differentiated services field or traffic class.
    pub fn from_bits(bits: u8) -> Ecn {
        match bits & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The two bits.
    pub fn to_bits(self) -> u8 {
        match self {
            Ecn::NotEct => 0,
            Ecn::Ect1 => 1,
            Ecn::Ect0 => 2,
            Ecn::Ce => 3,
        }
    }
}

/// What the kernel told with a datagram. Each is told only where the socket's options ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The differentiated services field or traffic class, congestion mark included. `IP_RECVTOS`, `IPV6_RECVTCLASS`.
    pub traffic_class: Option<u8>,
    /// The address that it came to, and the index of the interface. `IP_PKTINFO`, `IPV6_RECVPKTINFO`.
    pub local: Option<(IpAddr, u32)>,
    /// Where it was going before it was redirected. `IP_RECVORIGDSTADDR`, `IPV6_RECVORIGDSTADDR`.
    pub original_destination: Option<SocketAddr>,
    /// The length of each datagram of which the kernel made this one, but for the last. `UDP_GRO`.
    pub segment_size: Option<u16>,
}

/// Reads what the kernel wrote. Unknown messages are passed over; one that is shorter than its kind, or than its header
/// says, tells nothing, and the latter ends the reading.
pub fn decode(control: &[u8]) -> Received {
    let mut received = Received::default();
    for (level, kind, data) in (Messages { rest: control }) {
        match os::told(level, kind) {
            Some(Told::TypeOfService) => {
                received.traffic_class = data.first().copied().or(received.traffic_class);
            }
            Some(Told::TrafficClass) => {
                received.traffic_class = int(data).map(|class| class as u8).or(received.traffic_class);
            }
            Some(Told::Local4) => {
                if let Some((addr, interface)) = os::local4(data) {
                    received.local = Some((addr.into(), interface));
                }
            }
            Some(Told::Local6) => {
                if let (Some(addr), Some(index)) = (array::<16>(data, 0), array::<4>(data, 16)) {
                    let addr = IpAddr::V6(Ipv6Addr::from(addr)).to_canonical();
                    // An IPv4 packet on such a socket is told of in both forms.
                    received.local = Some((addr, u32::from_ne_bytes(index)));
                }
            }
            Some(Told::OriginalDestination) => {
                received.original_destination = socket_addr(data).or(received.original_destination);
            }
            Some(Told::SegmentSize) => {
                let size = int(data).and_then(|size| u16::try_from(size).ok()).filter(|size| *size > 0);
                received.segment_size = size.or(received.segment_size);
            }
            None => {}
        }
    }
    received
}

/// What a control message tells.
enum Told {
    /// The differentiated services field of IPv4, or its two low bits.
    TypeOfService,
    /// The traffic class of IPv6, or its two low bits; an `int`.
    TrafficClass,
    /// `in_pktinfo`, whose form is the system's own.
    Local4,
    /// `in6_pktinfo`.
    Local6,
    /// A `sockaddr`.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows does not redirect that way"))]
    OriginalDestination,
    /// An `int`.
    SegmentSize,
}

/// What is asked of the kernel with a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToSend {
    /// Whether it goes out as IPv4, be it from an IPv6 socket.
    pub is_ipv4: bool,
    /// The congestion mark. The rest of the field is 0 then, whatever the socket's option says.
    pub ecn: Option<Ecn>,
    /// The address that it comes from, and the interface that it leaves by; 0 for any.
    pub source: Option<(IpAddr, u32)>,
    /// What it is cut into: datagrams of so many bytes, the last of the rest. `UDP_SEGMENT`.
    pub segment_size: Option<u16>,
}

/// Bytes that one [`encode`] writes at most.
pub const MAX_SEND: usize = 3 * space(20);

/// Bytes that the kernel writes at most for one datagram with everything on, that of both families on one socket included.
pub const MAX_RECEIVE: usize = 256;

/// Writes what is asked for to the front of `control`; returns how many bytes that are.
pub fn encode(ask: &ToSend, control: &mut [u8; MAX_SEND]) -> usize {
    let mut at = 0;
    if let Some(ecn) = ask.ecn {
        let (level, kind) = if ask.is_ipv4 { os::ECN4 } else { os::ECN6 };
        put(control, &mut at, level, kind, &i32::from(ecn.to_bits()).to_ne_bytes());
    }
    match ask.source {
        Some((IpAddr::V4(addr), interface)) => {
            put(control, &mut at, os::LOCAL4.0, os::LOCAL4.1, &os::from4(addr, interface));
        }
        Some((IpAddr::V6(addr), interface)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&addr.octets());
            info[16..].copy_from_slice(&interface.to_ne_bytes());
            put(control, &mut at, os::LOCAL6.0, os::LOCAL6.1, &info);
        }
        None => {}
    }
    if let Some(size) = ask.segment_size {
        put(control, &mut at, os::SEGMENT.0, os::SEGMENT.1, &os::segment(size));
    }
    at
}

/// Bytes of a word: the header's length field has as many, and every part is padded to them.
const WORD: usize = size_of::<usize>();
const HEADER: usize = aligned(WORD + 8);

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(WORD)
}

const fn space(len: usize) -> usize {
    HEADER + aligned(len)
}

fn put(control: &mut [u8; MAX_SEND], at: &mut usize, level: i32, kind: i32, data: &[u8]) {
    let message = &mut control[*at..*at + space(data.len())];
    message.fill(0);
    message[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
    message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    message[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
    message[HEADER..HEADER + data.len()].copy_from_slice(data);
    *at += space(data.len());
}

/// The messages of a control buffer: level, type, data.
struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from_ne_bytes(array(self.rest, 0)?);
        let (level, kind) = (array(self.rest, WORD)?, array(self.rest, WORD + 4)?);
        // A length below the header's would never end.
        let data = self.rest.get(HEADER..len)?;
        self.rest = self.rest.get(aligned(len)..).unwrap_or_default();
        Some((i32::from_ne_bytes(level), i32::from_ne_bytes(kind), data))
    }
}

fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn int(data: &[u8]) -> Option<i32> {
    array(data, 0).map(i32::from_ne_bytes)
}

/// sockaddr_in, sockaddr_in6: the family is in the machine's order, port and address in the network's.
fn socket_addr(data: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(data, 0)?));
    let port = u16::from_be_bytes(array(data, 2)?);
    match family {
        os::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(data, 4)?), port).into()),
        os::AF_INET6 => {
            let flow = u32::from_be_bytes(array(data, 4)?);
            let addr = Ipv6Addr::from(array::<16>(data, 8)?);
            let scope = u32::from_ne_bytes(array(data, 24)?);
            Some(SocketAddrV6::new(addr, port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel writes it.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((HEADER + data.len()).to_ne_bytes());
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(space(data.len()), 0);
        bytes
    }

    fn everything() -> Vec<u8> {
        let mut all = Vec::new();
        // What nobody knows: SCM_TIMESTAMP.
        all.extend(message(libc::SOL_SOCKET, 29, &[7; 16]));
        all.extend(message(libc::IPPROTO_IP, libc::IP_TOS, &[0b1011]));
        let mut info = 3u32.to_ne_bytes().to_vec();
        info.extend([127, 0, 0, 9]);
        info.extend([127, 0, 0, 1]);
        all.extend(message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info));
        let mut addr = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        addr.extend(80u16.to_be_bytes());
        addr.extend([192, 0, 2, 1]);
        addr.extend([0; 8]);
        all.extend(message(libc::IPPROTO_IP, libc::IP_ORIGDSTADDR, &addr));
        all.extend(message(libc::IPPROTO_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes()));
        all
    }

    #[test]
    fn all_of_ipv4_is_read() {
        let expected = Received {
            traffic_class: Some(0b1011),
            local: Some((Ipv4Addr::LOCALHOST.into(), 3)),
            original_destination: Some("192.0.2.1:80".parse().expect("an address")),
            segment_size: Some(1200),
        };
        assert_eq!(decode(&everything()), expected);
        assert_eq!(Ecn::from_bits(0b1011), Ecn::Ce);
    }

    #[test]
    fn all_of_ipv6_is_read() {
        let mut all = message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0xb9i32.to_ne_bytes());
        let group: Ipv6Addr = "ff02::1".parse().expect("an address");
        let mut info = group.octets().to_vec();
        info.extend(5u32.to_ne_bytes());
        all.extend(message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info));
        let mut addr = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        addr.extend(443u16.to_be_bytes());
        addr.extend([0; 4]);
        addr.extend("fe80::2".parse::<Ipv6Addr>().expect("an address").octets());
        addr.extend(5u32.to_ne_bytes());
        all.extend(message(libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR, &addr));
        let expected = Received {
            traffic_class: Some(0xb9),
            local: Some((group.into(), 5)),
            original_destination: Some("[fe80::2%5]:443".parse().expect("an address")),
            segment_size: None,
        };
        assert_eq!(decode(&all), expected);
    }

    /// The socket of both families tells where an IPv4 packet came to as IPv6.
    #[test]
    fn ipv4_inside_ipv6_is_ipv4() {
        let mut info = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets().to_vec();
        info.extend(1u32.to_ne_bytes());
        let control = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        assert_eq!(decode(&control).local, Some((Ipv4Addr::LOCALHOST.into(), 1)));
    }

    /// Wherever it is cut, what is whole before the cut is told and nothing else.
    #[test]
    fn a_truncated_buffer_tells_what_is_whole() {
        let all = everything();
        let whole = decode(&all);
        for end in 0..all.len() {
            let part = decode(&all[..end]);
            assert!(part.traffic_class.is_none_or(|class| Some(class) == whole.traffic_class));
            assert!(part.local.is_none_or(|local| Some(local) == whole.local));
            assert!(part.original_destination.is_none_or(|to| Some(to) == whole.original_destination));
            assert!(part.segment_size.is_none_or(|size| Some(size) == whole.segment_size));
        }
        assert_eq!(decode(&all[..space(16)]), Received::default());
    }

    #[test]
    fn a_length_that_lies_ends_the_reading() {
        let tos = message(libc::IPPROTO_IP, libc::IP_TOS, &[1]);
        for len in [0, 1, WORD, HEADER - 1, 1 << 20, usize::MAX, usize::MAX - WORD] {
            let mut control = message(libc::SOL_SOCKET, 29, &[0; 8]);
            control[..WORD].copy_from_slice(&len.to_ne_bytes());
            control.extend(&tos);
            assert_eq!(decode(&control), Received::default(), "{len}");
        }
    }

    #[test]
    fn a_message_that_is_too_short_tells_nothing() {
        for (level, kind, len) in [
            (libc::IPPROTO_IP, libc::IP_TOS, 0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 3),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, 11),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 19),
            (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR, 7),
            (libc::IPPROTO_UDP, libc::UDP_GRO, 3),
        ] {
            assert_eq!(decode(&message(level, kind, &vec![2; len])), Received::default(), "{level} {kind}");
        }
        // Of a family that has no such addresses, and sizes that no datagram has.
        assert_eq!(decode(&message(libc::IPPROTO_IP, libc::IP_ORIGDSTADDR, &[9; 28])), Received::default());
        for size in [0, -1, 65_536] {
            let control = message(libc::IPPROTO_UDP, libc::UDP_GRO, &i32::to_ne_bytes(size));
            assert_eq!(decode(&control), Received::default());
        }
    }

    #[test]
    fn what_is_asked_for_is_written_in_the_kernels_form() {
        let mut control = [0xff; MAX_SEND];
        let ask = ToSend {
            is_ipv4: true,
            ecn: Some(Ecn::Ect0),
            source: Some((Ipv4Addr::LOCALHOST.into(), 2)),
            segment_size: Some(1000),
        };
        let len = encode(&ask, &mut control);
        let mut info = 2u32.to_ne_bytes().to_vec();
        info.extend([127, 0, 0, 1, 0, 0, 0, 0]);
        let mut expected = message(libc::IPPROTO_IP, libc::IP_TOS, &2i32.to_ne_bytes());
        expected.extend(message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info));
        expected.extend(message(libc::IPPROTO_UDP, libc::UDP_SEGMENT, &1000u16.to_ne_bytes()));
        assert_eq!(&control[..len], &expected[..]);
        assert_eq!(encode(&ToSend::default(), &mut control), 0);
    }

    #[test]
    fn the_longest_fits() {
        let ask = ToSend {
            is_ipv4: false,
            ecn: Some(Ecn::Ce),
            source: Some((Ipv6Addr::LOCALHOST.into(), 1)),
            segment_size: Some(u16::MAX),
        };
        let mut control = [0; MAX_SEND];
        let len = encode(&ask, &mut control);
        let read = decode(&control[..len]);
        assert_eq!((read.traffic_class, read.local), (Some(3), Some((Ipv6Addr::LOCALHOST.into(), 1))));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(control in proptest::collection::vec(any::<u8>(), 0..300)) {
            decode(&control);
        }
    }
}
