//! Why there is no listener, or no connection.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ringport_platform::process::InheritError;
use ringport_platform::socket::OpenError;
use ringport_platform::sockopt::{ApplyError, Kind, OptFault, Target};

use crate::runtime::LocalAddr;
use crate::spec::SpecErrors;

/// Why a listener could not be made. Nothing of it is left: no descriptor, no file.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// bind(2) or listen(2) refused the address: in use, not of this host, or not permitted.
    Address {
        /// The address.
        addr: LocalAddr,
        /// The kernel's.
        error: io::Error,
    },
    /// The socket's file: something is in the way, or its mode or owner cannot be set.
    File {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        fault: FileFault,
    },
    /// The socket that was to be inherited cannot be used.
    Inherited {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: InheritFault,
    },
    /// The kernel refused an option; with its errno, and the capability that is missing.
    Option(ApplyError),
    /// Options that such a socket does not take: all of them.
    Options {
        /// The sort of socket.
        target: Target,
        /// Every fault.
        faults: Vec<OptFault>,
    },
    /// socket(2) gave none: out of descriptors, or the machine lacks the family.
    Socket {
        /// The sort of socket.
        target: Target,
        /// The kernel's.
        error: io::Error,
    },
    /// The driver cannot watch it.
    Driver(io::Error),
    /// The socket is for the other type: a [`PacketListener`](crate::net::PacketListener) takes those of packets, a
    /// [`Listener`](crate::net::Listener) those of streams. The caller's fault.
    Kind(Target),
    /// The address is of a network without connections, such as UDP. The caller's fault.
    Spec(SpecErrors),
    /// The spec asks for TLS, which a [`TlsListener`](crate::net::tls::TlsListener) speaks and this listener does not. The
    /// caller's fault.
    NeedsTls,
}

/// What is wrong with a socket's file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileFault {
    /// Mode or owner cannot be set.
    Assign(io::Error),
    /// A file that is no socket is there. It stays.
    OtherFile,
    /// Somebody listens there. It stays.
    LiveSocket,
    /// A socket that nobody listens at is there, and the spec does not let it be replaced.
    StaleSocket,
    /// What is there cannot be told, or not be removed.
    Unknown(io::Error),
    /// There is no user or group of that name.
    NoSuchOwner(String),
}

/// What is wrong with an inherited socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum InheritFault {
    /// The variables of the service manager are not understood.
    Variables(InheritError),
    /// There is no socket of that name.
    Unknown {
        /// The names that there are.
        others: Vec<String>,
    },
    /// It was taken before.
    Taken,
    /// It is a socket, and does not listen for connections.
    NotListening(Target),
    /// It is no socket of ours, or not open.
    System(io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Address { addr, error } => write!(f, "cannot listen on {addr}: {error}"),
            ListenError::File { path, fault } => {
                write!(f, "cannot listen on unix:{}: {fault}", path.display())
            }
            ListenError::Inherited { name, fault } => write!(f, "inherited socket {name}: {fault}"),
            ListenError::Option(error) => error.fmt(f),
            ListenError::Options { target, faults } => {
                write!(f, "options of a {target}: ")?;
                for (at, fault) in faults.iter().enumerate() {
                    let between = if at == 0 { "" } else { "; " };
                    write!(f, "{between}{fault}")?;
                }
                Ok(())
            }
            ListenError::Socket { target, error } => write!(f, "no socket for a {target}: {error}"),
            ListenError::Driver(error) => write!(f, "the driver cannot watch the listener: {error}"),
            ListenError::Kind(target) if target.kind == Kind::Seqpacket => {
                write!(f, "a {target} has packets, which a stream would not keep whole")
            }
            ListenError::Kind(target) => write!(f, "a {target} has no packets"),
            ListenError::Spec(errors) => errors.fmt(f),
            ListenError::NeedsTls => f.write_str("the spec asks for TLS, and this listener speaks none"),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileFault::Assign(error) => write!(f, "mode or owner of its file: {error}"),
            FileFault::OtherFile => f.write_str("a file that is not a socket is in the way"),
            FileFault::LiveSocket => f.write_str("another process listens there"),
            FileFault::StaleSocket => f.write_str("a socket's file is in the way, and may not be replaced"),
            FileFault::Unknown(error) => error.fmt(f),
            FileFault::NoSuchOwner(name) => write!(f, "there is no user or group {name:?}"),
        }
    }
}

impl fmt::Display for InheritFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritFault::Variables(error) => error.fmt(f),
            InheritFault::Unknown { others } if others.is_empty() => f.write_str("none was inherited"),
            InheritFault::Unknown { others } => write!(f, "there are {} only", others.join(", ")),
            InheritFault::Taken => f.write_str("it is in use already"),
            InheritFault::NotListening(target) => write!(f, "it is a {target}, and does not listen"),
            InheritFault::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::Address { error, .. }
            | ListenError::Socket { error, .. }
            | ListenError::Driver(error) => Some(error),
            ListenError::Option(error) => Some(error),
            ListenError::File { fault, .. } => Some(fault),
            ListenError::Inherited { fault, .. } => Some(fault),
            ListenError::Spec(errors) => Some(errors),
            ListenError::Kind(_) | ListenError::NeedsTls | ListenError::Options { .. } => None,
        }
    }
}

impl std::error::Error for FileFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileFault::Assign(error) | FileFault::Unknown(error) => Some(error),
            FileFault::OtherFile
            | FileFault::LiveSocket
            | FileFault::StaleSocket
            | FileFault::NoSuchOwner(_) => None,
        }
    }
}

impl std::error::Error for InheritFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InheritFault::Variables(error) => Some(error),
            InheritFault::System(error) => Some(error),
            InheritFault::Unknown { .. } | InheritFault::Taken | InheritFault::NotListening(_) => None,
        }
    }
}

impl From<OpenError> for ListenError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Faults { target, faults } => ListenError::Options { target, faults },
            OpenError::Option(error) => ListenError::Option(error),
            OpenError::LocalAddr { addr, error }
            | OpenError::Listen { addr, error }
            | OpenError::Peer { addr, error } => ListenError::Address { addr, error },
            OpenError::Socket { target, error } => ListenError::Socket { target, error },
            other => ListenError::Driver(io::Error::new(io::ErrorKind::InvalidInput, other)),
        }
    }
}

/// Why accept gives no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was closed; there will be none.
    Closed,
    /// The kernel refused an option that connections do not have from their listener; that connection was closed.
    Option(ApplyError),
    /// What the kernel says of the listening socket, or of one connection. The next accept may work.
    Io(io::Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::Closed => f.write_str("the listener is closed"),
            AcceptError::Option(error) => error.fmt(f),
            AcceptError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AcceptError::Closed => None,
            AcceptError::Option(error) => Some(error),
            AcceptError::Io(error) => Some(error),
        }
    }
}
