//! Makes sockets with options: each is set before the call that it influences.
//!
//! In order: socket(2) with the protocol (S0), options before bind (S1), bind(2), options before listen or connect (S2),
//! then listen(2), or connect(2) for packets, and what comes after that (S3). A stream is handed out before its connect, which is an operation of the
//! driver; what has to be set after it is [`OptSet::apply`] with [`Stage::Connected`]. Whatever fails, the socket is
//! closed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::{ListenOptions, LocalAddr, os, sock_addr, unix_addr};
use crate::driver::ConnectAddr;
use crate::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sockopt::{
    ApplyError, Effective, Family, Kind, Opt, OptFault, OptSet, Os, Role, Setting, Stage, Target,
};

/// A socket that was made as asked. Non-blocking, closed on exec.
#[derive(Debug)]
pub struct Opened {
    /// The socket.
    pub fd: OwnedFd,
    /// What sort of socket it is, for the stages that follow.
    pub target: Target,
    /// Its options, in the order in which they were set, as the kernel holds them. Empty where nothing was read back.
    pub applied: Vec<Effective>,
}

/// What a dialled socket asks for.
#[derive(Clone, Copy, Debug)]
pub struct DialOptions<'a> {
    /// [`Kind::Stream`], or of Unix also [`Kind::Seqpacket`].
    pub kind: Kind,
    /// Where it is bound before it connects; the kernel chooses without. With port 0, and where the options do not say
    /// otherwise, the port is left to connect (`IP_BIND_ADDRESS_NO_PORT`), so that peers may share ports.
    pub local: Option<&'a ConnectAddr>,
    /// Its options. Unset, `TCP_NODELAY` is on.
    pub options: &'a OptSet,
    /// Whether options are read back, which costs a system call each.
    pub read_back: bool,
}

/// The ends of a packet socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketEnds {
    /// UDP. Bound to `[::]` it takes IPv4 too, unless the options say otherwise.
    Udp(Ends<SocketAddr>),
    /// A Unix socket of datagrams: paths, or with a leading NUL byte abstract names.
    Unixgram(Ends<Vec<u8>>),
    /// A Unix socket of a sequence of packets, connected: names as above. Bound alone it would have to listen, which
    /// [`open_listener`] does.
    Unixpacket(Ends<Vec<u8>>),
    /// Packets of an IP protocol; of IPv4, what is received starts with the IP header. Needs `CAP_NET_RAW`. raw(7).
    Ip {
        /// Its number, as 1 for ICMP.
        protocol: u8,
        /// The addresses.
        ends: Ends<IpAddr>,
    },
}

/// The local address of a packet socket, and its only peer where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends<A> {
    /// Bound here; takes packets from everybody.
    Bound(A),
    /// Connected: sends to and takes from `peer` alone.
    Connected {
        /// The other end.
        peer: A,
        /// This end; the kernel chooses without.
        local: Option<A>,
    },
}

impl Target {
    /// Of a socket at, or to, an address.
    ///
    /// A listener or packet socket at `[::]` is [`Family::Dual`], as is whatever has an IPv4 address inside an IPv6 one.
    pub fn at(addr: &ConnectAddr, kind: Kind, role: Role) -> Self {
        let family = match addr {
            ConnectAddr::Unix(_) => Family::Unix,
            ConnectAddr::Inet(SocketAddr::V4(_)) => Family::V4,
            ConnectAddr::Inet(SocketAddr::V6(addr)) => {
                // A raw socket has one family.
                let any = addr.ip().is_unspecified() && role != Role::Dialled && kind != Kind::Raw;
                if any || addr.ip().to_ipv4_mapped().is_some() { Family::Dual } else { Family::V6 }
            }
        };
        Target { family, kind, role }
    }

    /// Of a socket that somebody else made: one inherited, for example. Up to five system calls.
    ///
    /// A stream that does not listen is [`Role::Accepted`] when it has a peer, else [`Role::Dialled`].
    ///
    /// # Errors
    /// The kernel's, `ENOTSOCK` among them; `InvalidInput` for a family or type that is none of ours.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "a socket of another family or type");
        let kind = match socket.r#type()? {
            Type::STREAM => Kind::Stream,
            Type::DGRAM => Kind::Datagram,
            Type::SEQPACKET => Kind::Seqpacket,
            Type::RAW => Kind::Raw,
            _ => return Err(unknown()),
        };
        let family = match os::domain(&socket)? {
            Domain::IPV4 => Family::V4,
            Domain::IPV6 if socket.only_v6()? => Family::V6,
            Domain::IPV6 => Family::Dual,
            Domain::UNIX => Family::Unix,
            _ => return Err(unknown()),
        };
        let connected = || socket.peer_addr().is_ok();
        let role = match kind {
            Kind::Stream | Kind::Seqpacket if os::is_listening(&socket)? => Role::Listener,
            Kind::Stream | Kind::Seqpacket if connected() => Role::Accepted,
            Kind::Datagram | Kind::Raw if !connected() => Role::Packet,
            Kind::Stream | Kind::Seqpacket | Kind::Datagram | Kind::Raw => Role::Dialled,
        };
        Ok(Target { family, kind, role })
    }
}

/// A listening socket at `addr`: of [`Kind::Stream`], or for Unix also of [`Kind::Seqpacket`].
///
/// Unless the options say otherwise, on IP:
/// - `SO_REUSEADDR` is set, so that a restart does not wait for old connections. On Windows that option would let others take
///   the port, so `SO_EXCLUSIVEADDRUSE` is set instead.
/// - `TCP_NODELAY` is set, which connections inherit.
/// - `[::]` takes IPv4 too.
///
/// # Errors
/// Every fault of the options, or the first call that failed.
pub fn open_listener(
    addr: &ConnectAddr,
    kind: Kind,
    options: ListenOptions,
    set: &OptSet,
) -> Result<Opened, OpenError> {
    open_listener_with(addr, kind, options, set, || Ok(()))
}

/// As [`open_listener`], and calls `when_bound` once the address is taken and no connection can come yet. A Unix socket's file
/// gets its mode and owner there.
///
/// # Errors
/// As [`open_listener`]; an error of `when_bound` comes as [`OpenError::LocalAddr`].
pub fn open_listener_with(
    addr: &ConnectAddr,
    kind: Kind,
    options: ListenOptions,
    set: &OptSet,
    when_bound: impl FnOnce() -> io::Result<()>,
) -> Result<Opened, OpenError> {
    let target = Target::at(addr, kind, Role::Listener);
    if !matches!((kind, addr), (Kind::Stream, _) | (Kind::Seqpacket, ConnectAddr::Unix(_))) {
        return Err(OpenError::Unsupported(target));
    }
    let mut set = set.clone();
    let mut default = |opt, on: bool| {
        if set.find(opt).is_none() {
            set.insert(opt, on).expect("a flag can be on and off");
        }
    };
    if target.family != Family::Unix {
        if os::REUSES_ADDRESS {
            default(Opt::SoReuseaddr, true);
        }
        default(Opt::TcpNodelay, true);
    }
    if target.family == Family::Dual {
        default(Opt::Ipv6V6only, false);
    }
    if options.reuse_port && target.family != Family::Unix {
        default(Opt::SoReuseport, true);
    }
    let mut opened = make(target, None, &set, true)?;
    let claimed = os::claim_address(&opened.fd, set.is_on(Opt::SoReuseaddr));
    claimed.map_err(|error| OpenError::LocalAddr { addr: local(addr), error })?;
    bind(&opened.fd, addr)?;
    when_bound().map_err(|error| OpenError::LocalAddr { addr: local(addr), error })?;
    opened.apply(Stage::PreConnect, &set, true)?;
    let listening = SockRef::from(&opened.fd).listen(options.backlog);
    listening.map_err(|error| OpenError::Listen { addr: local(addr), error })?;
    opened.apply(Stage::Connected, &set, true)?;
    Ok(opened)
}

/// A socket that is ready to connect to `addr`, but has not begun.
///
/// # Errors
/// Every fault of the options, or the first call that failed.
pub fn open_dialled(addr: &ConnectAddr, options: DialOptions<'_>) -> Result<Opened, OpenError> {
    let DialOptions { kind, local: bound, options: set, read_back } = options;
    let target = Target::at(addr, kind, Role::Dialled);
    if !matches!((kind, addr), (Kind::Stream, _) | (Kind::Seqpacket, ConnectAddr::Unix(_))) {
        return Err(OpenError::Unsupported(target));
    }
    let mut opened = make(target, None, set, read_back)?;
    if target.family != Family::Unix && set.find(Opt::TcpNodelay).is_none() {
        opened.set_quietly(Opt::TcpNodelay)?;
    }
    if let Some(bound) = bound {
        same_family(bound, addr)?;
        opened.leave_port_to_connect(bound, set)?;
        bind(&opened.fd, bound)?;
    }
    opened.apply(Stage::PreConnect, set, read_back)?;
    Ok(opened)
}

/// A packet socket: bound, or connected to one peer.
///
/// # Errors
/// Every fault of the options, or the first call that failed.
pub fn open_packet(ends: &PacketEnds, set: &OptSet) -> Result<Opened, OpenError> {
    open_packet_with(ends, set, None)
}

/// As [`open_packet`]; the file of a Unix socket never has more permissions than `mode`.
///
/// A socket of datagrams takes them as soon as it is bound, unlike a listener, so to set the mode afterwards would be too
/// late.
///
/// # Errors
/// As [`open_packet`].
pub fn open_packet_with(ends: &PacketEnds, set: &OptSet, mode: Option<u32>) -> Result<Opened, OpenError> {
    let (kind, protocol, ends) = match ends {
        PacketEnds::Udp(ends) => (Kind::Datagram, None, ends.map(|addr| ConnectAddr::Inet(*addr))),
        PacketEnds::Unixpacket(ends) => {
            (Kind::Seqpacket, None, ends.map(|path| ConnectAddr::Unix(path.clone())))
        }
        PacketEnds::Unixgram(ends) => {
            (Kind::Datagram, None, ends.map(|path| ConnectAddr::Unix(path.clone())))
        }
        PacketEnds::Ip { protocol, ends } => {
            let addr = |addr: &IpAddr| ConnectAddr::Inet(SocketAddr::new(*addr, 0));
            (Kind::Raw, Some(Protocol::from(i32::from(*protocol))), ends.map(addr))
        }
    };
    let (bound, peer) = match &ends {
        Ends::Bound(local) => (Some(local), None),
        Ends::Connected { peer, local } => (local.as_ref(), Some(peer)),
    };
    let role = if peer.is_some() { Role::Dialled } else { Role::Packet };
    // There is one of the two.
    let addr = peer.or(bound).expect("a packet socket has an end");
    let target = Target::at(addr, kind, role);
    if kind == Kind::Seqpacket && peer.is_none() {
        return Err(OpenError::Unsupported(target));
    }
    let mut set = set.clone();
    if target.family == Family::Dual && kind == Kind::Datagram && set.find(Opt::Ipv6V6only).is_none() {
        set.insert(Opt::Ipv6V6only, false).expect("a flag can be off");
    }
    let mut opened = make(target, protocol, &set, true)?;
    // Removed with the socket if anything fails.
    let mut made = None;
    if let Some(bound) = bound {
        same_family(bound, addr)?;
        if peer.is_some() && kind == Kind::Datagram {
            opened.leave_port_to_connect(bound, &set)?;
        }
        if let Some(mode) = mode {
            os::narrow(&opened.fd, mode)
                .map_err(|error| OpenError::LocalAddr { addr: local(bound), error })?;
        }
        bind(&opened.fd, bound)?;
        made = os::bound_file(bound).map_err(|error| OpenError::LocalAddr { addr: local(bound), error })?;
    }
    opened.apply(Stage::PreConnect, &set, true)?;
    if let Some(peer) = peer {
        let refused = |error| OpenError::Peer { addr: local(peer), error };
        let kernel_addr = sock_addr(peer).map_err(refused)?;
        SockRef::from(&opened.fd).connect(&kernel_addr).map_err(refused)?;
        opened.apply(Stage::Connected, &set, true)?;
    }
    if let Some(made) = &mut made {
        made.keep();
    }
    Ok(opened)
}

impl<A> Ends<A> {
    fn map<B>(&self, each: impl Fn(&A) -> B) -> Ends<B> {
        match self {
            Ends::Bound(addr) => Ends::Bound(each(addr)),
            Ends::Connected { peer, local } => {
                Ends::Connected { peer: each(peer), local: local.as_ref().map(each) }
            }
        }
    }
}

impl Opened {
    fn apply(&mut self, stage: Stage, set: &OptSet, read_back: bool) -> Result<(), OpenError> {
        let fd = self.fd.as_fd();
        if read_back {
            self.applied.extend(set.apply(fd, stage, self.target).map_err(OpenError::Option)?);
            return Ok(());
        }
        set.apply_unread(fd, stage, self.target).map_err(OpenError::Option)
    }

    /// Switches a flag on that nobody asked for.
    fn set_quietly(&self, opt: Opt) -> Result<(), OpenError> {
        let on = Setting::from(true);
        crate::sockopt::set(self.fd.as_fd(), opt, &on)
            .map_err(|error| OpenError::Option(ApplyError::new(opt, &on, self.target, &error)))
    }

    /// A local address without a port need not take one yet: connect chooses a port that is free for its peer.
    fn leave_port_to_connect(&self, bound: &ConnectAddr, set: &OptSet) -> Result<(), OpenError> {
        let portless = matches!(bound, ConnectAddr::Inet(addr) if addr.port() == 0);
        let exists = Opt::IpBindAddressNoPort.row().exists_in(Os::HERE);
        if portless && exists && set.find(Opt::IpBindAddressNoPort).is_none() {
            self.set_quietly(Opt::IpBindAddressNoPort)?;
        }
        Ok(())
    }
}

/// The set checked, the socket made (S0), and its options before bind set (S1).
fn make(
    target: Target,
    protocol: Option<Protocol>,
    set: &OptSet,
    read_back: bool,
) -> Result<Opened, OpenError> {
    let faults = set.check(target);
    if !faults.is_empty() {
        return Err(OpenError::Faults { target, faults });
    }
    let domain = match target.family {
        Family::V4 => Domain::IPV4,
        Family::V6 | Family::Dual => Domain::IPV6,
        Family::Unix => Domain::UNIX,
    };
    let kind = match target.kind {
        Kind::Stream => Type::STREAM,
        Kind::Datagram => Type::DGRAM,
        Kind::Seqpacket => Type::SEQPACKET,
        Kind::Raw => Type::RAW,
    };
    let multipath = set.is_on(Opt::IpprotoMptcp);
    let protocol = if multipath { os::MPTCP } else { protocol };
    let socket = os::new_socket(domain, kind, protocol).map_err(|error| {
        if multipath {
            // Never plain TCP instead: who asked for several paths is told that there are none.
            return OpenError::Option(ApplyError::new(
                Opt::IpprotoMptcp,
                &Setting::from(true),
                target,
                &error,
            ));
        }
        OpenError::Socket { target, error }
    })?;
    let mut opened = Opened { fd: socket.into(), target, applied: Vec::new() };
    opened.apply(Stage::Socket, set, read_back)?;
    opened.apply(Stage::PreBind, set, read_back)?;
    Ok(opened)
}

fn bind(fd: &OwnedFd, addr: &ConnectAddr) -> Result<(), OpenError> {
    let refused = |error| OpenError::LocalAddr { addr: local(addr), error };
    let kernel_addr: SockAddr = match addr {
        ConnectAddr::Inet(addr) => SockAddr::from(*addr),
        ConnectAddr::Unix(path) => unix_addr(path).map_err(refused)?,
    };
    SockRef::from(fd).bind(&kernel_addr).map_err(refused)
}

/// IPv4 inside IPv6 counts as IPv6: that is the socket's family.
fn same_family(bound: &ConnectAddr, peer: &ConnectAddr) -> Result<(), OpenError> {
    let same = match (bound, peer) {
        (ConnectAddr::Inet(bound), ConnectAddr::Inet(peer)) => bound.is_ipv4() == peer.is_ipv4(),
        (ConnectAddr::Unix(_), ConnectAddr::Unix(_)) => true,
        (ConnectAddr::Inet(_), ConnectAddr::Unix(_)) | (ConnectAddr::Unix(_), ConnectAddr::Inet(_)) => false,
    };
    if same { Ok(()) } else { Err(OpenError::FamilyMismatch { local: local(bound), peer: local(peer) }) }
}

fn local(addr: &ConnectAddr) -> LocalAddr {
    match addr {
        ConnectAddr::Inet(addr) => LocalAddr::Inet(*addr),
        ConnectAddr::Unix(path) => LocalAddr::Unix(path.clone()),
    }
}

/// Why a socket could not be made; nothing of it is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The options are wrong for such a socket; no system call was made. The caller's fault.
    Faults {
        /// The sort of socket.
        target: Target,
        /// Every fault.
        faults: Vec<OptFault>,
    },
    /// There are no such sockets: TCP of packets, for example. The caller's fault.
    Unsupported(Target),
    /// The two ends are of different families. The caller's fault.
    FamilyMismatch {
        /// This end.
        local: LocalAddr,
        /// The other.
        peer: LocalAddr,
    },
    /// socket(2): out of descriptors, family not supported, no privilege for a raw socket.
    Socket {
        /// The sort of socket.
        target: Target,
        /// The kernel's.
        error: io::Error,
    },
    /// An option was refused.
    Option(ApplyError),
    /// bind(2): address in use, not available, permission; or a Unix path that is too long.
    LocalAddr {
        /// The address.
        addr: LocalAddr,
        /// The kernel's.
        error: io::Error,
    },
    /// listen(2): address in use.
    Listen {
        /// The address.
        addr: LocalAddr,
        /// The kernel's.
        error: io::Error,
    },
    /// connect(2) of a packet socket: no route, no such path; or a Unix path that is too long.
    Peer {
        /// The address.
        addr: LocalAddr,
        /// The kernel's.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Faults { target, faults } => {
                write!(f, "options of a {target}: ")?;
                for (at, fault) in faults.iter().enumerate() {
                    let between = if at == 0 { "" } else { "; " };
                    write!(f, "{between}{fault}")?;
                }
                Ok(())
            }
            OpenError::Unsupported(target) => write!(f, "there is no {target}"),
            OpenError::FamilyMismatch { local, peer } => {
                write!(f, "local address {local} is of another family than {peer}")
            }
            OpenError::Socket { target, error } => write!(f, "no socket for a {target}: {error}"),
            OpenError::Option(error) => error.fmt(f),
            OpenError::LocalAddr { addr, error } => write!(f, "local address {addr}: {error}"),
            OpenError::Listen { addr, error } => write!(f, "listen at {addr}: {error}"),
            OpenError::Peer { addr, error } => write!(f, "peer {addr}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Socket { error, .. }
            | OpenError::LocalAddr { error, .. }
            | OpenError::Listen { error, .. }
            | OpenError::Peer { error, .. } => Some(error),
            OpenError::Option(error) => Some(error),
            OpenError::Faults { .. } | OpenError::Unsupported(_) | OpenError::FamilyMismatch { .. } => None,
        }
    }
}

/// As the kernel gave it, where it was the kernel.
impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Socket { error, .. }
            | OpenError::LocalAddr { error, .. }
            | OpenError::Listen { error, .. }
            | OpenError::Peer { error, .. } => error,
            OpenError::Option(error) => error.into(),
            OpenError::Faults { .. } | OpenError::Unsupported(_) | OpenError::FamilyMismatch { .. } => {
                io::Error::new(io::ErrorKind::InvalidInput, error)
            }
        }
    }
}
