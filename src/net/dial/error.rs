//! Why a dial failed.

use std::fmt;
use std::io;
use std::time::Duration;

use ringport_platform::process::is_shortage;
use ringport_platform::sockopt::{ApplyError, OptFault, Target};

use crate::net::resolve::ResolveError;
use crate::runtime::{LocalAddr, OpenError};
use crate::spec::{NetAddr, Network, OriginAddress};

/// Why a dial failed: the target, the sort of failure, and what each address met that was tried.
#[derive(Debug)]
pub struct DialError {
    pub(super) target: NetAddr<OriginAddress>,
    pub(super) kind: DialErrorKind,
    pub(super) failures: Vec<AttemptFailure>,
    pub(super) untried: usize,
}

/// The sort of failure, for a caller to act on.
///
/// Of several failed attempts the one that tells most decides: first a refused option, then the local address, a refused
/// connection, a time limit, no route, and last anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialErrorKind {
    /// The network carries packets, not a stream. The caller's fault.
    NotAStream,
    /// The spec asks for TLS, which a [`TlsDialer`](crate::net::tls::TlsDialer) speaks and this dialer does not. The caller's fault.
    NeedsTls,
    /// The name gave no address.
    Resolve(ResolveError),
    /// A socket option was refused, or does not fit. The spec's fault, or the process lacks a privilege.
    Option,
    /// The local address cannot be used: it is taken, not of this host, or of another family; or no port of its range is free.
    /// The spec's fault, or the machine is short of ports.
    LocalAddr,
    /// Nobody listens there, or the queue of a Unix listener is full.
    Refused,
    /// The time limit of the spec, or the kernel's for a connection, passed in this phase.
    TimedOut(Phase),
    /// There is no way there: no route to the host, a network that is down, or no such Unix socket.
    Unreachable,
    /// This machine forbids it: a route or a rule of its firewall, a table of connections that is full, or the permissions of a Unix
    /// socket.
    Forbidden,
    /// Something else, such as no descriptors left: see [`DialError::failures`] and [`DialError::is_shortage`].
    Other,
}

/// What a dial was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looking the name up.
    Resolve,
    /// Connecting.
    Connect,
}

/// An attempt at one address that failed.
#[derive(Debug)]
pub struct AttemptFailure {
    /// Where it went.
    pub addr: LocalAddr,
    /// When it ended, counted from the start of the dial.
    pub after: Duration,
    /// What it met.
    pub error: AttemptError,
}

/// What an attempt met.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttemptError {
    /// The options do not fit such a socket; nothing was done.
    Options {
        /// The sort of socket.
        target: Target,
        /// Every fault.
        faults: Vec<OptFault>,
    },
    /// The local address is of a network that carries other things.
    LocalNetwork {
        /// Its network.
        local: Network,
        /// The target's.
        network: Network,
    },
    /// The socket could not be made as asked.
    Open(OpenError),
    /// The connect failed.
    Connect(io::Error),
    /// An option was refused on the connected socket.
    Connected(ApplyError),
    /// Its share of the time was over.
    TimedOut,
}

impl DialError {
    /// What was to be dialled, before any replacement.
    pub fn target(&self) -> &NetAddr<OriginAddress> {
        &self.target
    }

    /// The sort of failure.
    pub fn kind(&self) -> &DialErrorKind {
        &self.kind
    }

    /// Every attempt that failed, in the order in which they ended.
    pub fn failures(&self) -> &[AttemptFailure] {
        &self.failures
    }

    /// Addresses that were not tried, because the time was over.
    pub fn untried(&self) -> usize {
        self.untried
    }

    /// Whether this process or machine was out of descriptors or memory, whatever the target is.
    pub fn is_shortage(&self) -> bool {
        self.failures.iter().any(|failure| match &failure.error {
            AttemptError::Open(OpenError::Socket { error, .. }) | AttemptError::Connect(error) => {
                is_shortage(error)
            }
            _ => false,
        })
    }

    /// Of attempts that all failed.
    pub(super) fn of_attempts(target: NetAddr<OriginAddress>, failures: Vec<AttemptFailure>) -> Self {
        let kinds = failures.iter().map(|failure| failure.error.kind());
        let kind = kinds.min_by_key(rank).unwrap_or(DialErrorKind::Other);
        DialError { target, kind, failures, untried: 0 }
    }
}

/// What tells most is first.
fn rank(kind: &DialErrorKind) -> u8 {
    match kind {
        DialErrorKind::Option => 0,
        DialErrorKind::LocalAddr => 1,
        DialErrorKind::Refused => 2,
        DialErrorKind::TimedOut(_) => 3,
        DialErrorKind::Unreachable => 4,
        DialErrorKind::Forbidden => 5,
        DialErrorKind::NotAStream
        | DialErrorKind::NeedsTls
        | DialErrorKind::Resolve(_)
        | DialErrorKind::Other => 6,
    }
}

impl AttemptError {
    fn kind(&self) -> DialErrorKind {
        match self {
            AttemptError::Options { .. } | AttemptError::Connected(_) => DialErrorKind::Option,
            AttemptError::Open(OpenError::Faults { .. } | OpenError::Option(_)) => DialErrorKind::Option,
            AttemptError::LocalNetwork { .. }
            | AttemptError::Open(OpenError::LocalAddr { .. } | OpenError::FamilyMismatch { .. }) => {
                DialErrorKind::LocalAddr
            }
            AttemptError::Open(_) => DialErrorKind::Other,
            AttemptError::Connect(error) => of_connect(error.kind()),
            AttemptError::TimedOut => DialErrorKind::TimedOut(Phase::Connect),
        }
    }
}

/// connect(2).
fn of_connect(kind: io::ErrorKind) -> DialErrorKind {
    match kind {
        // EAGAIN of a Unix socket: its listener's queue is full.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => DialErrorKind::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory => DialErrorKind::Unreachable,
        // EACCES of a route that prohibits and of a Unix socket; EPERM of a firewall, and of conntrack where it has no room.
        io::ErrorKind::PermissionDenied => DialErrorKind::Forbidden,
        io::ErrorKind::TimedOut => DialErrorKind::TimedOut(Phase::Connect),
        // Every port is taken, or the bound address is not of this host.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => DialErrorKind::LocalAddr,
        _ => DialErrorKind::Other,
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot dial {}: {}", self.target, self.kind)?;
        for (at, failure) in self.failures.iter().enumerate() {
            write!(f, "{} {failure}", if at == 0 { ":" } else { ";" })?;
        }
        match self.untried {
            0 => Ok(()),
            untried => write!(f, " ({untried} more were not tried)"),
        }
    }
}

impl fmt::Display for DialErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialErrorKind::NotAStream => {
                f.write_str("the network carries packets, and a dial gives a stream")
            }
            DialErrorKind::NeedsTls => f.write_str("the spec asks for TLS, and this dialer speaks none"),
            DialErrorKind::Resolve(error) => error.fmt(f),
            DialErrorKind::Option => f.write_str("a socket option was refused"),
            DialErrorKind::LocalAddr => f.write_str("the local address is not to be had"),
            DialErrorKind::Refused => f.write_str("refused"),
            DialErrorKind::TimedOut(Phase::Resolve) => f.write_str("timed out while the name was looked up"),
            DialErrorKind::TimedOut(Phase::Connect) => f.write_str("timed out"),
            DialErrorKind::Unreachable => f.write_str("unreachable"),
            DialErrorKind::Forbidden => f.write_str("this machine forbids it"),
            DialErrorKind::Other => f.write_str("failed"),
        }
    }
}

/// `192.0.2.1:80 after 3 ms: Connection refused (os error 111)`.
impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} ms: {}", self.addr, self.after.as_millis(), self.error)
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptError::Options { target, faults } => {
                write!(f, "options of a {target}: ")?;
                for (at, fault) in faults.iter().enumerate() {
                    write!(f, "{}{fault}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            AttemptError::LocalNetwork { local, network } => {
                write!(f, "a local address of {local} is none for {network}")
            }
            AttemptError::Open(error) => error.fmt(f),
            AttemptError::Connect(error) => error.fmt(f),
            AttemptError::Connected(error) => error.fmt(f),
            AttemptError::TimedOut => f.write_str("no answer in its share of the time"),
        }
    }
}

impl std::error::Error for DialError {
    /// Why the name gave no address, else what the attempt met that the kind tells of.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let DialErrorKind::Resolve(error) = &self.kind {
            return Some(error);
        }
        let told = self.failures.iter().find(|failure| failure.error.kind() == self.kind);
        told.map(|failure| &failure.error as _)
    }
}

impl std::error::Error for AttemptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AttemptError::Open(error) => Some(error),
            AttemptError::Connect(error) => Some(error),
            AttemptError::Connected(error) => Some(error),
            AttemptError::Options { .. } | AttemptError::LocalNetwork { .. } | AttemptError::TimedOut => None,
        }
    }
}

/// Of the kind that comes nearest.
impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match error.kind {
            DialErrorKind::NotAStream | DialErrorKind::NeedsTls | DialErrorKind::Option => {
                io::ErrorKind::InvalidInput
            }
            DialErrorKind::Resolve(ResolveError::TimedOut) | DialErrorKind::TimedOut(_) => {
                io::ErrorKind::TimedOut
            }
            DialErrorKind::Resolve(_) => io::ErrorKind::NotFound,
            DialErrorKind::LocalAddr => io::ErrorKind::AddrNotAvailable,
            DialErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            DialErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            DialErrorKind::Forbidden => io::ErrorKind::PermissionDenied,
            DialErrorKind::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::{AttemptError, AttemptFailure, DialError, DialErrorKind, Phase};
    use crate::net::resolve::ResolveError;
    use crate::runtime::LocalAddr;
    use crate::spec::Network;

    fn of(kind: DialErrorKind) -> DialError {
        let target = "tcp://app.test:80".parse().expect("a target");
        DialError { target, kind, failures: Vec::new(), untried: 0 }
    }

    /// Whoever knows errors of the system alone is told the kind that comes nearest, and the whole in words.
    #[test]
    fn every_kind_is_an_error_of_the_system() {
        let kinds = [
            (DialErrorKind::NotAStream, ErrorKind::InvalidInput, "carries packets"),
            (DialErrorKind::NeedsTls, ErrorKind::InvalidInput, "speaks none"),
            (DialErrorKind::Resolve(ResolveError::TimedOut), ErrorKind::TimedOut, "look"),
            (DialErrorKind::Resolve(ResolveError::NoServer), ErrorKind::NotFound, "server"),
            (DialErrorKind::Option, ErrorKind::InvalidInput, "option was refused"),
            (DialErrorKind::LocalAddr, ErrorKind::AddrNotAvailable, "local address"),
            (DialErrorKind::Refused, ErrorKind::ConnectionRefused, "refused"),
            (DialErrorKind::TimedOut(Phase::Resolve), ErrorKind::TimedOut, "looked up"),
            (DialErrorKind::TimedOut(Phase::Connect), ErrorKind::TimedOut, "timed out"),
            (DialErrorKind::Unreachable, ErrorKind::HostUnreachable, "unreachable"),
            (DialErrorKind::Forbidden, ErrorKind::PermissionDenied, "forbids"),
            (DialErrorKind::Other, ErrorKind::Other, "failed"),
        ];
        for (kind, expected, part) in kinds {
            let error = of(kind.clone());
            let text = error.to_string();
            assert!(text.starts_with("cannot dial tcp://app.test:80: ") && text.contains(part), "{text}");
            assert_eq!(error.source().is_some(), matches!(kind, DialErrorKind::Resolve(_)), "{text}");
            let error = std::io::Error::from(error);
            assert_eq!((error.kind(), error.to_string()), (expected, text));
        }
    }

    #[test]
    fn every_attempt_is_told() {
        let attempt = |error| {
            let addr = LocalAddr::Inet(([192, 0, 2, 1], 80).into());
            AttemptFailure { addr, after: Duration::from_millis(3), error }
        };
        let failures = vec![
            attempt(AttemptError::LocalNetwork { local: Network::Unix, network: Network::Tcp }),
            attempt(AttemptError::Connect(ErrorKind::PermissionDenied.into())),
            attempt(AttemptError::TimedOut),
        ];
        let target = "tcp://app.test:80".parse().expect("a target");
        let error = DialError { untried: 2, ..DialError::of_attempts(target, failures) };
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "what tells most");
        assert_eq!(
            error.to_string(),
            "cannot dial tcp://app.test:80: the local address is not to be had: 192.0.2.1:80 after 3 ms: a local address of unix is \
             none for tcp; 192.0.2.1:80 after 3 ms: permission denied; 192.0.2.1:80 after 3 ms: no answer in its share of the time \
             (2 more were not tried)"
        );
        assert!(error.source().expect("an attempt").to_string().contains("none for tcp"));
        assert!(!error.is_shortage());
    }
}
