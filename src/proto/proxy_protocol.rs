//! The PROXY protocol: how a gateway tells an origin who its client is, in front of the first byte of a connection.
//!
//! ```text
//! v1   PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n          at most 107 bytes of text
//! v2   signature (12), version and command, family and transport, length (2), addresses
//! ```
//!
//! A [`Header`] is written with [`Header::encode`] and read with [`Header::parse`]. Source: `proxy-protocol.txt` of HAProxy, 2.1 and 2.2.

mod parse;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use parse::{Accepts, HeaderError};

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Whose connection it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The sender's own, as a health check is, or that of a client of whom it tells nothing: the addresses of the connection
    /// itself hold. `UNKNOWN` of the first version, `LOCAL` of the second.
    Local,
    /// That of a client over TCP.
    Inet {
        /// Where the client is.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
    /// That of a client over a Unix socket.
    Unix {
        /// Where the client is; mostly unnamed.
        source: UnixName,
        /// Where it connected to.
        destination: UnixName,
    },
}

/// The name of a Unix socket: a path, or with a leading NUL an abstract name, or nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UnixName([u8; UNIX_LEN]);

impl UnixName {
    /// `None` for a name that is longer than 108 bytes, which no socket has.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; UNIX_LEN];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(UnixName(bytes))
    }

    /// The name, without the zeros that fill its field.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.0[..len]
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl Header {
    /// The bytes that stand in front of the connection's own: at most 107 of the first version, 232 of the second.
    ///
    /// IPv4 inside IPv6 is written as IPv4 where both ends are; a source and a destination of different families as IPv6. The
    /// first version knows no Unix sockets and says `UNKNOWN`.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => self.encode_text(),
            Version::V2 => self.encode_binary(),
        }
    }

    fn encode_text(&self) -> Vec<u8> {
        let Header::Inet { source, destination } = self else { return b"PROXY UNKNOWN\r\n".to_vec() };
        let (from, to) = in_one_family(source.ip(), destination.ip());
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
    }

    fn encode_binary(&self) -> Vec<u8> {
        let mut addresses = Vec::with_capacity(2 * UNIX_LEN);
        let (command, family) = match self {
            Header::Local => (COMMAND_LOCAL, FAMILY_UNSPECIFIED),
            Header::Inet { source, destination } => {
                let (from, to) = in_one_family(source.ip(), destination.ip());
                for ip in [from, to] {
                    match ip {
                        IpAddr::V4(ip) => addresses.extend_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => addresses.extend_from_slice(&ip.octets()),
                    }
                }
                for port in [source.port(), destination.port()] {
                    addresses.extend_from_slice(&port.to_be_bytes());
                }
                (COMMAND_PROXY, if from.is_ipv4() { FAMILY_TCP4 } else { FAMILY_TCP6 })
            }
            Header::Unix { source, destination } => {
                addresses.extend_from_slice(&source.0);
                addresses.extend_from_slice(&destination.0);
                (COMMAND_PROXY, FAMILY_UNIX_STREAM)
            }
        };
        let length = u16::try_from(addresses.len()).expect("two addresses are 216 bytes at most");
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[command, family]);
        header.extend_from_slice(&length.to_be_bytes());
        header.append(&mut addresses);
        header
    }
}

/// Both as IPv4 where both are, inside IPv6 too; else both as IPv6: a header has one family.
fn in_one_family(source: IpAddr, destination: IpAddr) -> (IpAddr, IpAddr) {
    match (source.to_canonical(), destination.to_canonical()) {
        (source @ IpAddr::V4(_), destination @ IpAddr::V4(_)) => (source, destination),
        (source, destination) => (in_v6(source), in_v6(destination)),
    }
}

fn in_v6(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// What every binary header begins with; no other protocol does (2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// In the high half the version, in the low one the command.
const COMMAND_LOCAL: u8 = 0x20;
const COMMAND_PROXY: u8 = 0x21;
/// In the high half the family, in the low one the transport.
const FAMILY_UNSPECIFIED: u8 = 0x00;
const FAMILY_TCP4: u8 = 0x11;
const FAMILY_TCP6: u8 = 0x21;
const FAMILY_UNIX_STREAM: u8 = 0x31;
/// Of an address of a Unix socket in a binary header.
const UNIX_LEN: usize = 108;

#[cfg(test)]
mod tests {
    use super::{Header, UnixName, Version};

    fn inet(source: &str, destination: &str) -> Header {
        let addr = |text: &str| text.parse().expect("an address");
        Header::Inet { source: addr(source), destination: addr(destination) }
    }

    #[test]
    fn the_line_of_text() {
        let check = |header: Header, expected: &str| {
            let line = header.encode(Version::V1);
            assert_eq!(String::from_utf8_lossy(&line), format!("{expected}\r\n"));
            assert!(line.len() <= 107, "2.1: a reader needs no more room");
        };
        check(Header::Local, "PROXY UNKNOWN");
        check(inet("192.0.2.1:56324", "198.51.100.7:443"), "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443");
        check(inet("[2001:db8::1]:1", "[::1]:65535"), "PROXY TCP6 2001:db8::1 ::1 1 65535");
        check(inet("[::ffff:192.0.2.1]:1", "10.0.0.1:2"), "PROXY TCP4 192.0.2.1 10.0.0.1 1 2");
        check(inet("192.0.2.1:1", "[::1]:2"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2");
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        check(
            inet(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")),
            &format!("PROXY TCP6 {longest} {longest} 65535 65535"),
        );
        let name = UnixName::new(b"/run/app.sock").expect("short");
        check(Header::Unix { source: name.clone(), destination: name }, "PROXY UNKNOWN");
    }

    #[test]
    fn the_binary_form() {
        let check = |header: Header, after_signature: &[u8]| {
            let bytes = header.encode(Version::V2);
            assert_eq!(&bytes[..12], b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a");
            assert_eq!(&bytes[12..], after_signature);
        };
        check(Header::Local, &[0x20, 0x00, 0, 0]);
        check(
            inet("192.0.2.1:258", "198.51.100.7:443"),
            &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187],
        );
        let mut expected = vec![0x21, 0x21, 0, 36];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend([0, 1, 0, 2]);
        check(inet("192.0.2.1:1", "[::1]:2"), &expected);
        let mut expected = vec![0x21, 0x31, 0, 216];
        expected.resize(4 + 108, 0);
        expected.extend(b"\0name");
        expected.resize(4 + 216, 0);
        let (source, destination) = (UnixName::new(b""), UnixName::new(b"\0name"));
        let (source, destination) = (source.expect("short"), destination.expect("short"));
        assert_eq!((source.as_bytes(), destination.as_bytes()), (&b""[..], &b"\0name"[..]));
        check(Header::Unix { source, destination }, &expected);
        assert!(UnixName::new(&[b'x'; 108]).is_some() && UnixName::new(&[b'x'; 109]).is_none());
    }
}
