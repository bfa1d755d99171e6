//! Networks, and addresses with the network that they belong to: `tcp4://192.0.2.1:80`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ringport_platform::sockopt::{Family, Kind, Role, Target};

use super::address::{Address, OriginAddress, UnixName, origin_host, unix_name};
use super::nearest::{did_you_mean, quoted};
use super::raw;

/// What a connection or a socket carries, and over which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// Packets of a protocol over IPv4 or IPv6.
    Ip(IpProtocol),
    /// Packets of a protocol over IPv4.
    Ip4(IpProtocol),
    /// Packets of a protocol over IPv6.
    Ip6(IpProtocol),
    /// A stream between processes.
    Unix,
    /// Datagrams between processes.
    UnixGram,
    /// A sequence of packets between processes.
    UnixPacket,
}

/// What a network carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// A stream of bytes.
    Stream,
    /// Datagrams.
    Datagrams,
    /// Packets, in the order sent, over a connection.
    Sequence,
    /// Packets of an IP protocol.
    Packets,
}

/// A protocol over IP, by its number of IANA's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(pub u8);

impl Network {
    /// What it carries.
    pub fn carries(self) -> Carries {
        match self {
            Network::Tcp | Network::Tcp4 | Network::Tcp6 | Network::Unix => Carries::Stream,
            Network::Udp | Network::Udp4 | Network::Udp6 | Network::UnixGram => Carries::Datagrams,
            Network::Ip(_) | Network::Ip4(_) | Network::Ip6(_) => Carries::Packets,
            Network::UnixPacket => Carries::Sequence,
        }
    }

    /// Whether its addresses are Unix sockets.
    pub fn is_unix(self) -> bool {
        matches!(self, Network::Unix | Network::UnixGram | Network::UnixPacket)
    }

    /// Whether it is TCP.
    pub fn is_tcp(self) -> bool {
        !self.is_unix() && self.carries() == Carries::Stream
    }

    /// Whether its addresses have ports.
    pub fn has_ports(self) -> bool {
        !self.is_unix() && self.carries() != Carries::Packets
    }

    /// Whether an address of this family belongs to it.
    pub fn takes(self, address: IpAddr) -> bool {
        match self {
            Network::Tcp | Network::Udp | Network::Ip(_) => true,
            Network::Tcp4 | Network::Udp4 | Network::Ip4(_) => address.is_ipv4(),
            Network::Tcp6 | Network::Udp6 | Network::Ip6(_) => address.is_ipv6(),
            Network::Unix | Network::UnixGram | Network::UnixPacket => false,
        }
    }

    /// Every address: of both families where one socket can have both. A raw socket cannot, and `ip` is IPv4 then.
    fn unspecified(self) -> IpAddr {
        match self {
            Network::Tcp4 | Network::Udp4 | Network::Ip(_) | Network::Ip4(_) => Ipv4Addr::UNSPECIFIED.into(),
            // Unix networks have none, and are not asked.
            Network::Tcp | Network::Tcp6 | Network::Udp | Network::Udp6 | Network::Ip6(_) => {
                Ipv6Addr::UNSPECIFIED.into()
            }
            Network::Unix | Network::UnixGram | Network::UnixPacket => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The sort of socket, as far as options differ by it, at an address or, without one, at any of the network's.
    pub fn target(self, role: Role, address: Option<IpAddr>) -> Target {
        let kind = match self.carries() {
            Carries::Stream => Kind::Stream,
            Carries::Datagrams => Kind::Datagram,
            Carries::Sequence => Kind::Seqpacket,
            Carries::Packets => Kind::Raw,
        };
        let both = matches!(self, Network::Tcp | Network::Udp | Network::Ip(_));
        let family = match address {
            _ if self.is_unix() => Family::Unix,
            Some(address) if address.is_ipv4() => Family::V4,
            None if both => Family::Dual,
            Some(address) if both && address.is_unspecified() => Family::Dual,
            None if self.takes(Ipv4Addr::UNSPECIFIED.into()) => Family::V4,
            Some(_) | None => Family::V6,
        };
        Target { family, kind, role }
    }

    /// The network in front of an address, and the address.
    fn split(text: &str, default: Option<Network>) -> Result<(Network, &str), String> {
        if let Some((network, address)) = text.split_once("://") {
            return Ok((network.parse()?, address));
        }
        // As in the addresses of a gateway.
        if let Some(name) = text.strip_prefix("unix:") {
            return Ok((Network::Unix, name));
        }
        default
            .map(|network| (network, text))
            .ok_or_else(|| format!("{} has no network; write tcp://.. or unix://..", quoted(text)))
    }
}

/// `tcp`, `udp6`, `unixpacket`, `ip4:icmp` or `ip:132`.
impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (name, protocol) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let ip = |network: fn(IpProtocol) -> Network| match protocol {
            Some(protocol) => protocol.parse().map(network),
            None => Err(format!("{name} needs a protocol, such as {name}:icmp or {name}:1")),
        };
        let network = match name {
            "ip" => return ip(Network::Ip),
            "ip4" => return ip(Network::Ip4),
            "ip6" => return ip(Network::Ip6),
            "tcp" => Network::Tcp,
            "tcp4" => Network::Tcp4,
            "tcp6" => Network::Tcp6,
            "udp" => Network::Udp,
            "udp4" => Network::Udp4,
            "udp6" => Network::Udp6,
            "unix" => Network::Unix,
            "unixgram" => Network::UnixGram,
            "unixpacket" => Network::UnixPacket,
            _ => {
                let hint = did_you_mean(name, NAMES.iter().copied());
                return Err(format!("{} is no network; known are {}{hint}", quoted(text), NAMES.join(", ")));
            }
        };
        match protocol {
            Some(_) => Err(format!("{name} has no protocol of its own: {}", quoted(text))),
            None => Ok(network),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Tcp => f.write_str("tcp"),
            Network::Tcp4 => f.write_str("tcp4"),
            Network::Tcp6 => f.write_str("tcp6"),
            Network::Udp => f.write_str("udp"),
            Network::Udp4 => f.write_str("udp4"),
            Network::Udp6 => f.write_str("udp6"),
            Network::Ip(protocol) => write!(f, "ip:{protocol}"),
            Network::Ip4(protocol) => write!(f, "ip4:{protocol}"),
            Network::Ip6(protocol) => write!(f, "ip6:{protocol}"),
            Network::Unix => f.write_str("unix"),
            Network::UnixGram => f.write_str("unixgram"),
            Network::UnixPacket => f.write_str("unixpacket"),
        }
    }
}

/// By number, as a message may name it; a network of IP packets cannot be, because it needs a protocol.
impl TryFrom<raw::NetworkType> for Network {
    type Error = String;

    fn try_from(raw: raw::NetworkType) -> Result<Network, String> {
        match raw {
            raw::NetworkType::Http | raw::NetworkType::Tcp => Ok(Network::Tcp),
            raw::NetworkType::Tcp4 => Ok(Network::Tcp4),
            raw::NetworkType::Tcp6 => Ok(Network::Tcp6),
            raw::NetworkType::Udp => Ok(Network::Udp),
            raw::NetworkType::Udp4 => Ok(Network::Udp4),
            raw::NetworkType::Udp6 => Ok(Network::Udp6),
            raw::NetworkType::Ip => "ip".parse(),
            raw::NetworkType::Ip4 => "ip4".parse(),
            raw::NetworkType::Ip6 => "ip6".parse(),
            raw::NetworkType::Unix => Ok(Network::Unix),
            raw::NetworkType::Unixgram => Ok(Network::UnixGram),
            raw::NetworkType::Unixpacket => Ok(Network::UnixPacket),
        }
    }
}

/// A number from 0 to 255, or a name of those below.
impl FromStr for IpProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<IpProtocol, String> {
        let lower = text.to_ascii_lowercase();
        let named = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
        let number = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        named.or_else(number).map(IpProtocol).ok_or_else(|| {
            let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            format!("{} is no IP protocol; write 0 to 255, or {}", quoted(text), names.join(", "))
        })
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// An address in its network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetAddr<A> {
    network: Network,
    address: A,
}

impl<A> NetAddr<A> {
    /// Its network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The address, of the network's kind and family.
    pub fn address(&self) -> &A {
        &self.address
    }
}

impl NetAddr<OriginAddress> {
    /// Of the network of streams that has such addresses.
    pub fn of_origin(address: OriginAddress) -> Self {
        let network = match address {
            OriginAddress::Host { .. } => Network::Tcp,
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => Network::Unix,
        };
        NetAddr { network, address }
    }
}

impl NetAddr<Address> {
    /// Of the network of streams that has such addresses.
    pub fn of_stream(address: Address) -> Self {
        let network = match address {
            Address::Inet(_) => Network::Tcp,
            Address::Unix(_) | Address::UnixAbstract(_) => Network::Unix,
        };
        NetAddr { network, address }
    }

    /// An address of a socket of ours.
    ///
    /// # Errors
    /// The address is not of the network's kind or family, in words; the caller is at fault.
    pub fn new(network: Network, address: Address) -> Result<Self, String> {
        match &address {
            Address::Inet(inet) if !network.takes(inet.ip()) => {
                Err(mismatch(network, &inet.ip().to_string()))
            }
            Address::Inet(inet) if !network.has_ports() && inet.port() != 0 => {
                Err(format!("{network} has no ports"))
            }
            Address::Unix(_) | Address::UnixAbstract(_) if !network.is_unix() => {
                Err(mismatch(network, &address.to_string()))
            }
            Address::Inet(_) | Address::Unix(_) | Address::UnixAbstract(_) => {
                Ok(NetAddr { network, address })
            }
        }
    }

    /// `127.0.0.1:80` in the network by default, `tcp6://[::1]:80`, `ip4:icmp://192.0.2.1`, `unix:///path`. With
    /// `any_host` also `:80`, every address of the network's families.
    pub(super) fn parse(text: &str, default: Option<Network>, any_host: AnyHost) -> Result<Self, String> {
        let (network, address) = Network::split(text, default)?;
        if network.is_unix() {
            let address = match unix_name(address)? {
                UnixName::Path(path) => Address::Unix(path),
                UnixName::Abstract(name) => Address::UnixAbstract(name),
            };
            return Self::new(network, address);
        }
        let inet = if network.has_ports() {
            match address.strip_prefix(':') {
                Some(port) if any_host == AnyHost::Allowed => {
                    let port = port_number(port).ok_or_else(|| format!("{} is no port", quoted(port)))?;
                    SocketAddr::new(network.unspecified(), port)
                }
                _ => match Address::parse(address)? {
                    Address::Inet(inet) => inet,
                    Address::Unix(_) | Address::UnixAbstract(_) => return Err(mismatch(network, address)),
                },
            }
        } else {
            let ip = if address.is_empty() && any_host == AnyHost::Allowed {
                Ok(network.unspecified())
            } else {
                bare_ip(address)
            };
            SocketAddr::new(ip.map_err(|_| format!("{} is no IP address", quoted(address)))?, 0)
        };
        Self::new(network, Address::Inet(inet))
    }
}

/// As in a spec, with the network in front.
impl fmt::Display for NetAddr<Address> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Inet(inet) if self.network.has_ports() => write!(f, "{}://{inet}", self.network),
            Address::Inet(inet) => write!(f, "{}://{}", self.network, inet.ip()),
            Address::Unix(path) => write!(f, "{}://{}", self.network, path.display()),
            Address::UnixAbstract(name) => write!(f, "{}://@{}", self.network, String::from_utf8_lossy(name)),
        }
    }
}

impl NetAddr<OriginAddress> {
    /// Where a dial goes.
    ///
    /// # Errors
    /// The address is not of the network's kind or family, or has a port too few or too many, in words; the caller is at
    /// fault.
    pub fn new(network: Network, address: OriginAddress) -> Result<Self, String> {
        match &address {
            OriginAddress::Host { host, port } => {
                if network.is_unix() {
                    return Err(mismatch(network, host));
                }
                if host.parse().is_ok_and(|ip| !network.takes(ip)) {
                    return Err(mismatch(network, host));
                }
                match *port {
                    0 if network.has_ports() => Err(format!("{} has no port from 1 to 65535", quoted(host))),
                    1.. if !network.has_ports() => Err(format!("{network} has no ports")),
                    _ => Ok(NetAddr { network, address }),
                }
            }
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) if !network.is_unix() => {
                Err(mismatch(network, &address.to_string()))
            }
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => Ok(NetAddr { network, address }),
        }
    }

    /// `host:80` in the network by default, `tcp4://host:80`, `ip4:icmp://host`, `unix:///path`, `unix://@name`.
    pub(super) fn parse(text: &str, default: Option<Network>) -> Result<Self, String> {
        let (network, address) = Network::split(text, default)?;
        Self::parse_in(network, address)
    }

    /// An address in a network that is known.
    pub(super) fn parse_in(network: Network, text: &str) -> Result<Self, String> {
        let address = if network.is_unix() {
            match unix_name(text)? {
                UnixName::Path(path) => OriginAddress::Unix(path),
                UnixName::Abstract(name) => OriginAddress::UnixAbstract(name),
            }
        } else if network.has_ports() {
            OriginAddress::parse_host(text)?
        } else {
            let host = match bare_ip(text) {
                Ok(ip) => ip.to_string(),
                Err(_) => origin_host(text)?,
            };
            OriginAddress::Host { host, port: 0 }
        };
        Self::new(network, address)
    }
}

/// As in a spec, with the network in front.
impl fmt::Display for NetAddr<OriginAddress> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.network)?;
        match &self.address {
            OriginAddress::Host { host, .. } if !self.network.has_ports() => f.write_str(host),
            OriginAddress::Host { .. } => self.address.fmt(f),
            OriginAddress::Unix(path) => write!(f, "{}", path.display()),
            OriginAddress::UnixAbstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

impl FromStr for NetAddr<OriginAddress> {
    type Err = String;

    /// With the network in front.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, None)
    }
}

impl FromStr for NetAddr<Address> {
    type Err = String;

    /// With the network in front, and a host.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, None, AnyHost::Refused)
    }
}

/// Whether a host may be left out, for every address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AnyHost {
    Allowed,
    Refused,
}

fn mismatch(network: Network, address: &str) -> String {
    format!("{} is no address of {network}", quoted(address))
}

fn port_number(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// With or without brackets where it is IPv6.
fn bare_ip(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => text.parse(),
    }
}

const NAMES: [&str; 12] = [
    "tcp",
    "tcp4",
    "tcp6",
    "udp",
    "udp4",
    "udp6",
    "ip:PROTOCOL",
    "ip4:PROTOCOL",
    "ip6:PROTOCOL",
    "unix",
    "unixgram",
    "unixpacket",
];

/// Those that a raw socket is opened for.
const PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("ospf", 89),
    ("sctp", 132),
];
