//! Reads a header from the first bytes of a connection. Strict: what is not a header in every byte is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    COMMAND_LOCAL, COMMAND_PROXY, FAMILY_TCP4, FAMILY_TCP6, FAMILY_UNIX_STREAM, FAMILY_UNSPECIFIED, Header,
    SIGNATURE, UNIX_LEN, UnixName, Version,
};

/// Which headers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepts {
    /// One form alone, or with `None` both.
    pub version: Option<Version>,
    /// The longest binary header, its first 16 bytes included: 16 to 65,551. What follows the addresses is passed over.
    pub max_len: usize,
}

impl Default for Accepts {
    /// Both forms, the binary one up to 4 KiB: enough for a certificate's subject and a network's ids.
    fn default() -> Self {
        Accepts { version: None, max_len: 4096 }
    }
}

impl Accepts {
    /// So many bytes are enough to tell.
    pub fn most(&self) -> usize {
        self.max_len.clamp(PREFIX_LEN, PREFIX_LEN + 0xffff).max(TEXT_MAX)
    }
}

impl Header {
    /// Reads the header that `bytes` begin with, and how long it is. `Ok(None)`: it goes on behind them.
    ///
    /// To be asked again with more bytes, from the first on; at most [`Accepts::most`] are needed. Extras of a binary header
    /// (2.2.x) are passed over when they are in order among themselves; its checksum (2.2.3), where there is one, has to be right.
    ///
    /// # Errors
    /// What is wrong, as soon as it shows. The peer is at fault, or is no proxy.
    pub fn parse(bytes: &[u8], accepts: Accepts) -> Result<Option<(Header, usize)>, HeaderError> {
        let begins = |whole: &[u8]| bytes.iter().zip(whole).all(|(found, expected)| found == expected);
        if bytes.is_empty() {
            return Ok(None);
        }
        let version = if begins(&SIGNATURE) {
            Version::V2
        } else if begins(TEXT_START) {
            Version::V1
        } else {
            return Err(HeaderError::NoHeader);
        };
        if accepts.version.is_some_and(|only| only != version) {
            return Err(HeaderError::OtherVersion);
        }
        match version {
            Version::V1 => parse_text(bytes),
            Version::V2 => parse_binary(bytes, accepts.max_len),
        }
    }
}

fn parse_text(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let within = &bytes[..bytes.len().min(TEXT_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        // 2.1: a line is complete within 107 bytes.
        return if within.len() == TEXT_MAX { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    let Some(line) = within[..end].strip_prefix(TEXT_START) else { return Err(HeaderError::NoHeader) };
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed("the line is not ASCII"))?;
    // 2.1: what follows UNKNOWN is ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((Header::Local, end + 2)));
    }
    let malformed = HeaderError::Malformed;
    let fields: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else {
        return Err(malformed("the line has other than five fields"));
    };
    let address = |text: &str| -> Result<IpAddr, HeaderError> {
        let parsed = match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => return Err(malformed("its family is none of TCP4, TCP6 and UNKNOWN")),
        };
        parsed.ok_or(malformed("an address is not one of its family"))
    };
    let (source, destination) = (address(source)?, address(destination)?);
    let source = SocketAddr::new(source, port(source_port)?);
    let destination = SocketAddr::new(destination, port(destination_port)?);
    Ok(Some((Header::Inet { source, destination }, end + 2)))
}

/// 2.1: decimal, without leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(HeaderError::Malformed("a port is no number of 0 to 65535"))
}

fn parse_binary(bytes: &[u8], max_len: usize) -> Result<Option<(Header, usize)>, HeaderError> {
    let malformed = HeaderError::Malformed;
    if let Some(command) = bytes.get(12).copied()
        && ![COMMAND_LOCAL, COMMAND_PROXY].contains(&command)
    {
        return Err(malformed("its version is not 2, or its command neither LOCAL nor PROXY"));
    }
    let Some((prefix, rest)) = bytes.split_at_checked(PREFIX_LEN) else { return Ok(None) };
    let (command, family) = (prefix[12], prefix[13]);
    let len = usize::from(u16::from_be_bytes([prefix[14], prefix[15]]));
    let address_len = match family {
        // 2.2: the receiver ignores the addresses of a LOCAL command whatever its family says.
        _ if command == COMMAND_LOCAL => 0,
        FAMILY_UNSPECIFIED => 0,
        FAMILY_TCP4 => 12,
        FAMILY_TCP6 => 36,
        FAMILY_UNIX_STREAM => 2 * UNIX_LEN,
        _ => return Err(malformed("its family is no stream's")),
    };
    if len < address_len {
        return Err(malformed("it is too short for its addresses"));
    }
    if PREFIX_LEN + len > max_len {
        return Err(HeaderError::TooLong);
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let addresses = &body[..address_len];
    let header = match family {
        _ if command == COMMAND_LOCAL => Header::Local,
        FAMILY_TCP4 => {
            let (ips, ports) = addresses.split_at(8);
            inet(Ipv4Addr::from(array(&ips[..4])).into(), Ipv4Addr::from(array(&ips[4..])).into(), ports)
        }
        FAMILY_TCP6 => {
            let (ips, ports) = addresses.split_at(32);
            inet(Ipv6Addr::from(array(&ips[..16])).into(), Ipv6Addr::from(array(&ips[16..])).into(), ports)
        }
        FAMILY_UNIX_STREAM => {
            let (source, destination) = addresses.split_at(UNIX_LEN);
            Header::Unix { source: UnixName(array(source)), destination: UnixName(array(destination)) }
        }
        _ => Header::Local,
    };
    if command == COMMAND_PROXY && family != FAMILY_UNSPECIFIED {
        check_extras(&bytes[..PREFIX_LEN + len], PREFIX_LEN + address_len)?;
    }
    Ok(Some((header, PREFIX_LEN + len)))
}

fn inet(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Header {
    let port = |bytes: &[u8]| u16::from_be_bytes(array(bytes));
    Header::Inet {
        source: SocketAddr::new(source, port(&ports[..2])),
        destination: SocketAddr::new(destination, port(&ports[2..])),
    }
}

/// 2.2.x: a type, a length of two bytes, a value; from `at` to the header's end. A checksum among them has to be right.
fn check_extras(header: &[u8], mut at: usize) -> Result<(), HeaderError> {
    while at < header.len() {
        let value = header[at..].split_at_checked(3).and_then(|(head, rest)| {
            Some((head[0], rest.get(..usize::from(u16::from_be_bytes([head[1], head[2]])))?))
        });
        let Some((kind, value)) = value else {
            return Err(HeaderError::Malformed("an extra ends behind the header's end"));
        };
        at += 3;
        if kind == TYPE_CRC32C {
            let told = value.try_into().map(u32::from_be_bytes).ok();
            // 2.2.3: of the whole header, with zeros in the place of the checksum.
            let parts = [&header[..at], &[0; 4], header.get(at + 4..).unwrap_or_default()];
            if told != Some(crc32c(parts.into_iter().flatten().copied())) {
                return Err(HeaderError::Malformed("its checksum is wrong"));
            }
        }
        at += value.len();
    }
    Ok(())
}

/// RFC 3720 appendix B.4: reflected, begun and ended with all ones.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller has cut as many")
}

/// Why the first bytes of a connection are no header that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderError {
    /// They are something else: no proxy speaks there.
    NoHeader,
    /// A header of the form that is not taken.
    OtherVersion,
    /// A header that breaks the rules.
    Malformed(&'static str),
    /// A line of more than 107 bytes, or a binary header beyond the limit.
    TooLong,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::NoHeader => f.write_str("there is no header of the PROXY protocol"),
            HeaderError::OtherVersion => {
                f.write_str("the header of the PROXY protocol is of another version")
            }
            HeaderError::Malformed(why) => write!(f, "the header of the PROXY protocol is malformed: {why}"),
            HeaderError::TooLong => f.write_str("the header of the PROXY protocol is too long"),
        }
    }
}

impl std::error::Error for HeaderError {}

const TEXT_START: &[u8] = b"PROXY ";
/// 2.1: the longest line, with its end.
const TEXT_MAX: usize = 107;
/// Of a binary header, to its length.
const PREFIX_LEN: usize = 16;
/// `PP2_TYPE_CRC32C`.
const TYPE_CRC32C: u8 = 0x03;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Accepts, HeaderError};
    use crate::proto::proxy_protocol::{Header, UnixName, Version};

    const ANY: Accepts = Accepts { version: None, max_len: 300 };

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<(Header, usize)>, HeaderError>) {
        let got = Header::parse(bytes, ANY);
        assert_eq!(got, expected, "{}", bytes.escape_ascii());
        // Whatever comes in pieces is read as what comes at once, or refused sooner.
        for cut in 0..bytes.len() {
            match Header::parse(&bytes[..cut], ANY) {
                Ok(None) => {}
                early => assert_eq!(early, got, "after {cut} bytes of {}", bytes.escape_ascii()),
            }
        }
    }

    fn inet(source: &str, destination: &str) -> Header {
        Header::Inet { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn lines() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
        let header = inet("192.0.2.1:56324", "198.51.100.7:443");
        check(line, Ok(Some((header.clone(), line.len()))));
        check(&[line.as_slice(), b"GET /"].concat(), Ok(Some((header, line.len()))));
        let longest = "PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 1111:2222:3333:4444:5555:6666:7777:8888 \
                       65535 65535\r\n";
        let peer = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
        check(longest.as_bytes(), Ok(Some((inet(peer, peer), longest.len()))));
        check(b"PROXY UNKNOWN\r\n", Ok(Some((Header::Local, 15))));
        check(b"PROXY UNKNOWN whatever it says\r\n", Ok(Some((Header::Local, 32))));
        let zero = b"PROXY TCP4 1.2.3.4 1.2.3.4 0 0\r\n";
        check(zero, Ok(Some((inet("1.2.3.4:0", "1.2.3.4:0"), zero.len()))));
    }

    #[test]
    fn lines_that_are_none() {
        check(b"GET / HTTP/1.1\r\n", Err(HeaderError::NoHeader));
        check(b"PROXY\tTCP4", Err(HeaderError::NoHeader));
        check(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat(), Ok(Some((Header::Local, 107))));
        check(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92], b"\r\n"].concat(), Err(HeaderError::TooLong));
        for line in [
            "PROXY UNKNOWNX\r\n",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 ::1 1.2.3.4 1 1\r\n",
            "PROXY TCP6 1.2.3.4 ::1 1 1\r\n",
            "PROXY TCP6 [::1] ::1 1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n",
            "PROXY \r\n",
        ] {
            let got = Header::parse(line.as_bytes(), ANY);
            assert!(matches!(got, Err(HeaderError::Malformed(_))), "{line:?}: {got:?}");
        }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &len, body].concat()
    }

    #[test]
    fn binary_headers() {
        let addresses = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        let header = inet("192.0.2.1:56324", "198.51.100.7:443");
        check(&binary(0x21, 0x11, &addresses), Ok(Some((header.clone(), 28))));
        let extras = [addresses.as_slice(), &[4, 0, 1, 0xff, 5, 0, 0]].concat();
        check(&binary(0x21, 0x11, &extras), Ok(Some((header, 35))));
        check(&binary(0x20, 0x00, &[]), Ok(Some((Header::Local, 16))));
        check(&binary(0x20, 0x99, b"whatever"), Ok(Some((Header::Local, 24))));
        check(&binary(0x21, 0x00, b"what"), Ok(Some((Header::Local, 20))));
        check(&binary(0x21, 0x00, &[0; 284]), Ok(Some((Header::Local, 300))));

        let malformed = |bytes: &[u8]| {
            let got = Header::parse(bytes, ANY);
            assert!(matches!(got, Err(HeaderError::Malformed(_))), "{}: {got:?}", bytes.escape_ascii());
        };
        malformed(&binary(0x11, 0x11, &addresses));
        malformed(&binary(0x22, 0x11, &addresses));
        malformed(&binary(0x21, 0x12, &addresses));
        malformed(&binary(0x21, 0x41, &addresses));
        malformed(&binary(0x21, 0x11, &addresses[1..]));
        malformed(&binary(0x21, 0x21, &addresses));
        malformed(&binary(0x21, 0x31, &addresses));
        malformed(&binary(0x21, 0x11, &[addresses.as_slice(), &[4, 0]].concat()));
        malformed(&binary(0x21, 0x11, &[addresses.as_slice(), &[4, 0, 2, 0]].concat()));
        let long = binary(0x21, 0x00, &[0; 285]);
        check(&long, Err(HeaderError::TooLong));
        assert_eq!(Header::parse(&long[..16], ANY), Err(HeaderError::TooLong), "before its body comes");
    }

    #[test]
    fn a_checksum_has_to_be_right() {
        // RFC 3720 B.4.
        assert_eq!(super::crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(super::crc32c(0..32), 0x46dd_794e);
        let addresses = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        for extras_behind in [&[][..], &[4, 0, 1, 0xff]] {
            let with = |checksum: [u8; 4]| {
                binary(0x21, 0x11, &[&addresses[..], &[4, 0, 0, 3, 0, 4], &checksum, extras_behind].concat())
            };
            let right = super::crc32c(with([0; 4]).into_iter()).to_be_bytes();
            let header = inet("192.0.2.1:56324", "198.51.100.7:443");
            let bytes = with(right);
            check(&bytes, Ok(Some((header.clone(), bytes.len()))));
            let wrong = Err(HeaderError::Malformed("its checksum is wrong"));
            check(&with([right[0], right[1], right[2], right[3] ^ 1]), wrong.clone());
            // Of the whole header, not of the extras alone.
            let mut elsewhere = bytes;
            elsewhere[16] ^= 1;
            check(&elsewhere, wrong);
        }
        for body in [&[3, 0, 0][..], &[3, 0, 3, 1, 2, 3], &[3, 0, 5, 0, 0, 0, 0, 0]] {
            let got = Header::parse(&binary(0x21, 0x11, &[&addresses[..], body].concat()), ANY);
            assert!(matches!(got, Err(HeaderError::Malformed(_))), "{body:?}: {got:?}");
        }
    }

    #[test]
    fn one_form_alone() {
        let only = |version| Accepts { version: Some(version), ..ANY };
        let (line, binary) = (b"PROXY UNKNOWN\r\n", binary(0x20, 0, &[]));
        assert_eq!(Header::parse(line, only(Version::V2)), Err(HeaderError::OtherVersion));
        assert_eq!(Header::parse(&binary, only(Version::V1)), Err(HeaderError::OtherVersion));
        assert!(Header::parse(line, only(Version::V1)).unwrap().is_some());
        assert!(Header::parse(&binary, only(Version::V2)).unwrap().is_some());
        assert_eq!(ANY.most(), 300);
        assert_eq!(Accepts { version: None, max_len: usize::MAX }.most(), 65_551);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn reads_what_is_written(
            source: std::net::SocketAddr,
            destination: std::net::SocketAddr,
            name in prop::collection::vec(1u8.., 0..=108),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let strip = |addr: std::net::SocketAddr| std::net::SocketAddr::new(addr.ip().to_canonical(), addr.port());
            let (source, destination) = (strip(source), strip(destination));
            let unix = UnixName::new(&name).unwrap();
            for header in [
                Header::Local,
                Header::Inet { source, destination },
                Header::Unix { source: unix.clone(), destination: unix.clone() },
            ] {
                for version in [Version::V1, Version::V2] {
                    let mut bytes = header.encode(version);
                    let len = bytes.len();
                    bytes.extend_from_slice(&rest);
                    let (read, read_len) = Header::parse(&bytes, ANY).unwrap().unwrap();
                    prop_assert_eq!(read_len, len);
                    match (&read, &header) {
                        (Header::Inet { source: a, .. }, Header::Inet { source: b, .. }) => {
                            prop_assert_eq!(strip(*a), *b);
                        }
                        (Header::Local, Header::Unix { .. }) if version == Version::V1 => {}
                        _ => prop_assert_eq!(&read, &header),
                    }
                }
            }
        }

        #[test]
        fn takes_any_bytes(start in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let start: &[u8] = [b"".as_slice(), b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21"][start];
            let bytes = [start, &bytes].concat();
            if let Ok(Some((_, len))) = Header::parse(&bytes, ANY) {
                prop_assert!(len <= bytes.len() && len <= ANY.most());
            }
        }
    }
}
