//! Ranges of addresses and ports, as lists of peers name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::nearest::quoted;

/// Addresses that begin alike (RFC 4632, RFC 4291 2.3): the bits after the prefix are zero.
///
/// What lies in `::ffff:0:0/96` is kept as IPv4, so that a client is the same whichever socket it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The addresses that share the first `prefix_len` bits of `address`; bits after them are cleared.
    ///
    /// # Errors
    /// `prefix_len` is more than 32 for IPv4, 128 for IPv6.
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Cidr, CidrError> {
        let (address, prefix_len) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if (96..=128).contains(&prefix_len) => {
                (mapped.into(), prefix_len - 96)
            }
            _ => (address, prefix_len),
        };
        let address = match address {
            IpAddr::V4(address) if prefix_len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) if prefix_len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V4(_) => return Err(CidrError("the prefix of an IPv4 address has 0 to 32 bits".into())),
            IpAddr::V6(_) => return Err(CidrError("the prefix of an IPv6 address has 0 to 128 bits".into())),
        };
        Ok(Cidr { address, prefix_len })
    }

    /// The lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits are given.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether the address is in it; an IPv4-mapped one as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4()
            && Cidr::new(address, self.prefix_len).is_ok_and(|cidr| cidr == *self)
    }
}

/// `10.0.0.0/8`, `fc00::/7`, or an address alone, which is a range of one.
impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix_len) = text.split_once('/').map_or((text, None), |(a, len)| (a, Some(len)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| CidrError(format!("{} is no range of addresses: {FORMS}", quoted(text))))?;
        let prefix_len = match prefix_len {
            None if address.is_ipv4() => 32,
            None => 128,
            Some(digits) => decimal(digits)
                .and_then(|len| u8::try_from(len).ok())
                .ok_or_else(|| CidrError(format!("{} is no length of a prefix", quoted(digits))))?,
        };
        Cidr::new(address, prefix_len)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// Peers by address and source port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerRange {
    cidr: Cidr,
    ports: RangeInclusive<u16>,
}

impl PeerRange {
    /// These addresses, from any port.
    pub fn new(cidr: Cidr) -> PeerRange {
        PeerRange { cidr, ports: ANY_PORT }
    }

    /// These addresses, from these ports.
    ///
    /// # Errors
    /// The range of ports is reversed, and so empty.
    pub fn with_ports(cidr: Cidr, ports: RangeInclusive<u16>) -> Result<PeerRange, CidrError> {
        if ports.is_empty() {
            let message = format!("ports {} to {} are reversed", ports.start(), ports.end());
            return Err(CidrError(message));
        }
        Ok(PeerRange { cidr, ports })
    }

    /// The addresses.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The source ports; all unless some were given.
    pub fn ports(&self) -> &RangeInclusive<u16> {
        &self.ports
    }

    /// Whether every peer of the other is in it.
    pub fn covers(&self, other: &PeerRange) -> bool {
        self.cidr.prefix_len <= other.cidr.prefix_len
            && self.cidr.contains(other.cidr.address)
            && self.ports.contains(other.ports.start())
            && self.ports.contains(other.ports.end())
    }
}

/// `10.0.0.0/8`, `192.0.2.1:80`, `10.0.0.0/8:1024-2047`, `fc00::/7` or `[fc00::/7]:80`.
impl FromStr for PeerRange {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<PeerRange, CidrError> {
        let (cidr, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, after) = rest
                    .split_once(']')
                    .ok_or_else(|| CidrError(format!("{} lacks the closing bracket", quoted(text))))?;
                match after.strip_prefix(':') {
                    _ if after.is_empty() => (inner, None),
                    Some(ports) => (inner, Some(ports)),
                    None => return Err(CidrError(format!("{} is no port", quoted(after)))),
                }
            }
            // One colon is that of a port; IPv6 has more.
            None => match text.split_once(':') {
                Some((cidr, ports)) if !ports.contains(':') => (cidr, Some(ports)),
                _ => (text, None),
            },
        };
        if cidr.is_empty() {
            return Err(CidrError(format!("{} has no address: {FORMS}", quoted(text))));
        }
        if let Some((_, after)) = cidr.split_once('/')
            && after.contains(':')
        {
            return Err(CidrError(format!(
                "{}: write IPv6 with ports in brackets, [fc00::/7]:80",
                quoted(text)
            )));
        }
        let cidr = cidr.parse()?;
        ports
            .map_or_else(|| Ok(PeerRange::new(cidr)), |ports| PeerRange::with_ports(cidr, port_range(ports)?))
    }
}

/// In the form that is read back to the same.
impl fmt::Display for PeerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ports == ANY_PORT {
            return self.cidr.fmt(f);
        }
        match self.cidr.address {
            IpAddr::V4(_) => write!(f, "{}:", self.cidr)?,
            IpAddr::V6(_) => write!(f, "[{}]:", self.cidr)?,
        }
        match (self.ports.start(), self.ports.end()) {
            (start, end) if start == end => write!(f, "{start}"),
            (start, end) => write!(f, "{start}-{end}"),
        }
    }
}

/// Why a text is no range, in words; who wrote it is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CidrError {}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, CidrError> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let port = |digits: &str| {
        let port = decimal(digits).and_then(|port| u16::try_from(port).ok());
        port.ok_or_else(|| CidrError(format!("{} is no port from 0 to 65535", quoted(digits))))
    };
    Ok(port(from)?..=port(to)?)
}

/// Digits only, at most six: Rust's parser would take a plus sign.
fn decimal(digits: &str) -> Option<u32> {
    let fits = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;
const FORMS: &str = "write 10.0.0.0/8, 192.0.2.1, fc00::/7, 10.0.0.0/8:1024-2047 or [fc00::/7]:80";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Cidr, PeerRange};

    #[test]
    fn forms_and_what_they_become() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("[::1]", "::1/128"),
            ("127.0.0.1/32:1234", "127.0.0.1/32:1234"),
            ("127.0.0.1:0-60900", "127.0.0.1/32:0-60900"),
            ("127.0.0.1:0-65535", "127.0.0.1/32"),
            ("[fc00::1/7]:8080-9090", "[fc00::/7]:8080-9090"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("[::ffff:10.0.0.1]:7", "10.0.0.1/32:7"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.1/95", "::fffe:0:0/95"),
        ] {
            let parsed: PeerRange = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (text, part) in [
            ("", "has no address"),
            (":80", "has no address"),
            ("localhost", "is no range of addresses"),
            ("10.0.0.0/33", "0 to 32 bits"),
            ("::/129", "0 to 128 bits"),
            ("10.0.0.0/+8", "is no length"),
            ("10.0.0.0/", "is no length"),
            ("10.0.0.0/8:", "is no port"),
            ("10.0.0.0/8:70000", "is no port"),
            ("10.0.0.0/8:90-80", "ports 90 to 80 are reversed"),
            ("10.0.0.0/8:-", "is no port"),
            ("fc00::/7:80", "in brackets"),
            ("[fc00::/7", "closing bracket"),
            ("[fc00::/7]80", "is no port"),
            ("fe80::1%eth0", "is no range of addresses"),
            ("10.0.0/8", "is no range of addresses"),
        ] {
            let error = text.parse::<PeerRange>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn covering() {
        let range = |text: &str| text.parse::<PeerRange>().expect("a range");
        for (outer, inner, expected) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8:80", true),
            ("10.0.0.0/8:1-100", "10.0.0.0/8:50-101", false),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::/0", false),
        ] {
            assert_eq!(range(outer).covers(&range(inner)), expected, "{outer} {inner}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "[0-9a-f:./\\[\\]%-]{0,40}|\\PC{0,20}") {
            if let Ok(range) = text.parse::<PeerRange>() {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }

        #[test]
        fn contains_is_equality_of_the_first_bits(a in any::<[u8; 16]>(), flip in 0u8..128, len in 0u8..=128) {
            let a = u128::from_be_bytes(a) | 1 << 127;
            let b = a ^ (1 << (127 - u32::from(flip)));
            let cidr = Cidr::new(std::net::Ipv6Addr::from_bits(a).into(), len).expect("in range");
            let b = std::net::Ipv6Addr::from_bits(b);
            prop_assert_eq!(cidr.contains(b.into()), flip >= len);
        }
    }
}
