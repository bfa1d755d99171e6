//! Names to addresses by getaddrinfo(3): hosts file, search domains, servers, all as the system is configured.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::fmt;

#[cfg(target_os = "linux")]
pub use linux::lookup;
#[cfg(windows)]
pub use windows::lookup;

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// There is no such name, or it has no address.
    NotFound,
    /// No server answered, or none could say now; it may later.
    TryAgain,
    /// Something else, as the system says it.
    Other(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NotFound => f.write_str("there is no such name, or it has no address"),
            LookupError::TryAgain => f.write_str("no name server could answer"),
            LookupError::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LookupError {}

#[cfg(test)]
mod tests {
    use super::{LookupError, lookup};

    #[test]
    fn addresses_and_names_of_the_hosts_file() {
        let one = |text: &str| vec![text.parse::<std::net::SocketAddr>().expect("an address")];
        assert_eq!(lookup("192.0.2.1", 8), Ok(one("192.0.2.1:0")));
        assert_eq!(lookup("::1", 8), Ok(one("[::1]:0")));
        let local = lookup("localhost", 8).expect("every system knows it");
        assert!(!local.is_empty() && local.iter().all(|addr| addr.ip().is_loopback()), "{local:?}");
        assert_eq!(lookup("localhost", 1).expect("as before").len(), 1);
    }

    #[test]
    fn what_is_no_name() {
        for name in ["a\0b", "", "a..b"] {
            let error = lookup(name, 8).expect_err("no name");
            assert!(matches!(error, LookupError::NotFound | LookupError::Other(_)), "{name:?}: {error}");
        }
    }
}
