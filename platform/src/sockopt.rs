//! Socket options: which there are, what each takes, on which sockets and when, and what the kernel made of it.
//!
//! One table ([`Opt`], its [`Row`]s) is the source of the setter, the getter, the check, the documentation and the
//! probe. In order of use:
//!
//! 1. [`OptSet::insert`] takes settings one by one and refuses a value of the wrong form or out of range.
//! 2. [`OptSet::check`] says what is wrong with the whole set on one kind of socket; [`OptSet::fitting`] leaves out what
//!    that kind of socket lacks, for a set that serves several kinds.
//! 3. [`OptSet::apply`] sets what belongs to a [`Stage`] and reads it back. [`crate::socket`] makes sockets with it, each
//!    option before the call that it influences.
//!
//! Nothing here logs: what the kernel changed is in the report ([`Effective`]).

mod applied;
#[cfg(target_os = "linux")]
mod linux;
mod probe;
mod set;
mod table;
mod value;
#[cfg(windows)]
mod windows;

use std::fmt;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(windows)]
use windows as os;

pub use applied::{ApplyError, Effective, Outcome, Reason};
pub use os::{get, set};
pub use probe::{OptProbe, OptState, probe};
pub use set::{OptFault, OptSet};
pub use table::{Accepted, Capability, Code, Off, Opt, Privilege, ReadBack, Row};
pub use value::{Form, OptValue, Setting, Unit, ValueError};

/// When an option must be set to have its effect.
///
/// What the kernel carries through connect and accept is set earlier than its stage, on the socket that listens or
/// dials: it then holds from the first packet, and an accepted connection costs no system call. See [`Opt::stage_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// S0: an argument of socket(2).
    Socket,
    /// S1: before bind(2).
    PreBind,
    /// S2: after bind(2), before listen(2) or connect(2).
    PreConnect,
    /// S3: after listen(2) or connect(2), or on the accepted socket.
    Connected,
    /// S4: after each operation, since the kernel takes it back.
    Rearm,
}

impl Stage {
    /// `S0` to `S4`.
    pub fn code(self) -> &'static str {
        match self {
            Stage::Socket => "S0",
            Stage::PreBind => "S1",
            Stage::PreConnect => "S2",
            Stage::Connected => "S3",
            Stage::Rearm => "S4",
        }
    }
}

/// Which addresses a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4: `AF_INET`.
    V4,
    /// IPv6 alone: `AF_INET6` to an IPv6 address, or with `IPV6_V6ONLY`.
    V6,
    /// IPv6 and IPv4 on one `AF_INET6` socket. Options of both families have their effect.
    Dual,
    /// `AF_UNIX`: paths and abstract names.
    Unix,
}

/// What a socket carries; with the [`Family`] this gives the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SOCK_STREAM`: TCP, MPTCP or a Unix stream.
    Stream,
    /// `SOCK_DGRAM`: UDP, or a Unix socket of datagrams (`unixgram`).
    Datagram,
    /// `SOCK_SEQPACKET`, of Unix only (`unixpacket`).
    Seqpacket,
    /// `SOCK_RAW`: packets of an IP protocol (`ip`).
    Raw,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Waits for connections.
    Listener,
    /// Connects to an address.
    Dialled,
    /// Came out of a listener. Its options are the listener's.
    Accepted,
    /// Sends to and receives from many addresses, without a connection.
    Packet,
}

/// A sort of socket, as far as options differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Which addresses it takes.
    pub family: Family,
    /// What it carries.
    pub kind: Kind,
    /// What it is for.
    pub role: Role,
}

impl Target {
    /// Of a TCP listener.
    pub const fn tcp_listener(family: Family) -> Self {
        Target { family, kind: Kind::Stream, role: Role::Listener }
    }

    /// Of a dialled TCP connection.
    pub const fn tcp_dialled(family: Family) -> Self {
        Target { family, kind: Kind::Stream, role: Role::Dialled }
    }

    /// Of a UDP socket without a connection.
    pub const fn udp(family: Family) -> Self {
        Target { family, kind: Kind::Datagram, role: Role::Packet }
    }

    /// The same sort of socket in another role: what a listener accepts, for example.
    pub const fn as_role(self, role: Role) -> Self {
        Target { role, ..self }
    }

    /// The network's name in a spec: `tcp4`, `udp`, `unixgram`, `ip6`; without a number where both families are taken.
    pub const fn network(self) -> &'static str {
        match (self.kind, self.family) {
            (Kind::Stream, Family::V4) => "tcp4",
            (Kind::Stream, Family::V6) => "tcp6",
            (Kind::Stream, Family::Dual) => "tcp",
            (Kind::Stream, Family::Unix) => "unix",
            (Kind::Datagram, Family::V4) => "udp4",
            (Kind::Datagram, Family::V6) => "udp6",
            (Kind::Datagram, Family::Dual) => "udp",
            (Kind::Datagram, Family::Unix) => "unixgram",
            (Kind::Seqpacket, _) => "unixpacket",
            (Kind::Raw, Family::V4) => "ip4",
            (Kind::Raw, Family::V6) => "ip6",
            (Kind::Raw, Family::Dual | Family::Unix) => "ip",
        }
    }
}

/// `tcp4 listener`, `unixgram packet socket`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Listener => "listener",
            Role::Dialled => "dialled socket",
            Role::Accepted => "accepted socket",
            Role::Packet => "packet socket",
        };
        write!(f, "{} {role}", self.network())
    }
}

/// An operating system, as far as options differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Os {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
}

impl Os {
    /// The one that this program was built for.
    pub const HERE: Os = os::HERE;

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Os::Linux => "Linux",
            Os::Windows => "Windows",
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
