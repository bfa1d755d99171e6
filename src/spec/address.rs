//! Addresses to listen on and addresses of origins.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ringport_platform::driver::ConnectAddr;

use super::nearest::quoted;

/// The address of a socket, which needs no look-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6; port 0 lets the kernel choose.
    Inet(SocketAddr),
    /// A Unix socket in the file system; 1 to 107 bytes of UTF-8.
    Unix(PathBuf),
    /// A Unix socket by abstract name, without the leading NUL; 1 to 107 bytes of UTF-8. Linux.
    UnixAbstract(Vec<u8>),
}

impl Address {
    /// `127.0.0.1:80`, `[::1]:80`, `unix:/path` or `unix:@name`, the latter also with `unix://`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if let Some(unix) = after_unix(text) {
            return Ok(match unix_name(unix)? {
                UnixName::Path(path) => Address::Unix(path),
                UnixName::Abstract(name) => Address::UnixAbstract(name),
            });
        }
        text.parse().map(Address::Inet).map_err(|_| match text {
            "" => format!("an address is needed: {FORMS}"),
            text if text.starts_with(':') => {
                format!("{} has no host; write 0.0.0.0{text} or [::]{text}", quoted(text))
            }
            text => format!("{} is no address: {FORMS}", quoted(text)),
        })
    }

    /// Whether two sockets cannot both have it. Port 0 stands for different ports.
    pub(super) fn is_exclusive(&self) -> bool {
        !matches!(self, Address::Inet(address) if address.port() == 0)
    }
}

/// As in a spec; names that are not UTF-8, which no text can hold, are approximated.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::UnixAbstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// As the kernel takes it. unix(7).
impl From<&Address> for ConnectAddr {
    fn from(address: &Address) -> Self {
        match address {
            Address::Inet(address) => ConnectAddr::Inet(*address),
            Address::Unix(path) => ConnectAddr::Unix(path.as_os_str().as_encoded_bytes().to_vec()),
            Address::UnixAbstract(name) => ConnectAddr::Unix([b"\0", name.as_slice()].concat()),
        }
    }
}

/// What follows `unix:`, or the network of a spec's addresses.
fn after_unix(text: &str) -> Option<&str> {
    text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"))
}

/// Where an origin, or another peer, is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginAddress {
    /// By IP.
    Host {
        /// A name to resolve, in lower case, or an IP address; IPv6 without brackets.
        host: String,
        /// 1 to 65535; 0 where the network has no ports.
        port: u16,
    },
    /// A Unix socket in the file system; 1 to 107 bytes of UTF-8.
    Unix(PathBuf),
    /// A Unix socket by abstract name, without the leading NUL; 1 to 107 bytes of UTF-8. Linux.
    UnixAbstract(Vec<u8>),
}

impl OriginAddress {
    /// The address as the kernel takes it; `None` where the host is a name, which needs a look-up. unix(7).
    pub fn connect_addr(&self) -> Option<ConnectAddr> {
        match self {
            OriginAddress::Host { host, port } => {
                host.parse::<IpAddr>().ok().map(|ip| ConnectAddr::Inet(SocketAddr::new(ip, *port)))
            }
            OriginAddress::Unix(path) => Some(ConnectAddr::from(&Address::Unix(path.clone()))),
            OriginAddress::UnixAbstract(name) => {
                Some(ConnectAddr::from(&Address::UnixAbstract(name.clone())))
            }
        }
    }

    /// `name:80`, `192.0.2.1:80`, `[::1]:80`, `unix:/path` or `unix:@name`, the latter also with `unix://`.
    pub(super) fn parse(text: &str) -> Result<OriginAddress, String> {
        if let Some(unix) = after_unix(text) {
            return Ok(match unix_name(unix)? {
                UnixName::Path(path) => OriginAddress::Unix(path),
                UnixName::Abstract(name) => OriginAddress::UnixAbstract(name),
            });
        }
        let address = OriginAddress::parse_host(text)?;
        // It would be printed as a path.
        match &address {
            OriginAddress::Host { host, .. } if host == "unix" => {
                Err(format!("{} has a host that is read as unix:/path", quoted(text)))
            }
            OriginAddress::Host { .. } | OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => {
                Ok(address)
            }
        }
    }

    /// `name:80`, `192.0.2.1:80` or `[::1]:80`.
    pub(super) fn parse_host(text: &str) -> Result<OriginAddress, String> {
        if text.contains("://") {
            return Err(format!("{} is a URL; write host:port", quoted(text)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("{} is no address; write host:port or unix:/path", quoted(text)));
        };
        let number =
            if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse().unwrap_or(0) } else { 0 };
        if number == 0 {
            return Err(format!("{} has no port from 1 to 65535", quoted(text)));
        }
        Ok(OriginAddress::Host { host: origin_host(host)?, port: number })
    }
}

/// As in a spec; names that are not UTF-8, which no text can hold, are approximated.
impl fmt::Display for OriginAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginAddress::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            OriginAddress::Host { host, port } => write!(f, "{host}:{port}"),
            OriginAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            OriginAddress::UnixAbstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// A host as requests name it: lower case, IPv6 in brackets and in its shortest form.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn request_host(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| format!("{} is no IPv6 address", quoted(text)))?;
        return Ok(format!("[{address}]"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("write IPv6 in brackets: [{text}]"));
    }
    if text.contains(':') {
        return Err(format!("{} has a port; a host is written without", quoted(text)));
    }
    name(text)
}

pub(super) fn origin_host(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| format!("{} is no IPv6 address", quoted(text)))?;
        return Ok(address.to_string());
    }
    if text.contains(':') {
        return Err(format!("write IPv6 in brackets: [{text}]:port"));
    }
    name(text)
}

/// A name of letters, digits, `-` and `_` (RFC 1123 2.1, and the underscore that container names have), or IPv4.
fn name(text: &str) -> Result<String, String> {
    if !text.is_ascii() {
        return Err(format!("{} is not ASCII; write its xn-- form", quoted(text)));
    }
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label_fits) {
        return Err(format!("{} is no host name", quoted(text)));
    }
    // Resolvers read `127.1` and `010.0.0.1` as addresses, each in its own way.
    let last_is_number =
        text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if last_is_number && text.parse::<IpAddr>().is_err() {
        return Err(format!("{} is no IPv4 address", quoted(text)));
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) enum UnixName {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

pub(super) fn unix_name(text: &str) -> Result<UnixName, String> {
    let name = text.strip_prefix('@');
    let length = name.unwrap_or(text).len();
    // unix(7): sun_path has 108 bytes, one of them NUL, at the end of a path or in front of an abstract name.
    if !(1..=MAX_UNIX_BYTES).contains(&length) || text.contains('\0') {
        return Err(format!("the name of a Unix socket has 1 to {MAX_UNIX_BYTES} bytes and no NUL"));
    }
    Ok(name.map_or_else(|| UnixName::Path(text.into()), |name| UnixName::Abstract(name.into())))
}

const MAX_UNIX_BYTES: usize = 107;
const FORMS: &str = "write 127.0.0.1:8080, [::]:8080, unix:/path or unix:@name";
