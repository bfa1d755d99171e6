//! Sockets of datagrams and packets: UDP, Unix (also sequences of packets, which have ends), and protocols over IP.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::task::{Context, Poll, ready};

use ringport_platform::buf::{PoolBuf, Seg};
use ringport_platform::datagram::SendFault;
use ringport_platform::socket::{InTheWay, SocketFile, group_id, make_room, user_id};
use ringport_platform::sockopt::{Effective, Family, Kind, Opt, OptFault, OptSet, Role, Target};

use super::listen::Place;
use super::resolve::{ResolveError, Resolver, suitable};
use crate::runtime::{
    ConnectAddr, Datagram, Ends, Group, LocalAddr, OpenError, PacketEnds, Received, Runtime, Transmit,
};
use crate::spec::{
    Address, IpProtocol, MulticastGroup, Network, OriginAddress, Owner, PacketSpec, ResolverSpec, SpecErrors,
    UnixFile,
};

/// A socket of datagrams or packets, with plain async methods.
///
/// All methods take `&self`: one task may receive while another sends. A dropped future loses no datagram that was received
/// and leaves none half sent. Dropping the socket closes it, and removes its file where the spec says so and the file is
/// still its own.
///
/// Options, a peer and multicast groups come from a [`PacketSpec`].
pub struct PacketSocket<D> {
    datagram: D,
    /// Received with others, and not taken yet; never more than a batch.
    waiting: RefCell<Waiting>,
    options: OptSet,
    effective: Vec<Effective>,
    // After the socket: who finds the file meets a live socket.
    file: Option<SocketFile>,
    /// Of a listener's connection, among those that that one may have.
    _place: Option<Place>,
}

#[derive(Default)]
struct Waiting {
    received: VecDeque<Received>,
    fresh: Vec<Received>,
}

impl<D: Datagram> PacketSocket<D> {
    /// Makes the socket that a spec asks for: options, bind or connect, groups.
    ///
    /// A peer's name is looked up by the system's resolver, and the first address that fits is taken. Options that the spec
    /// lets be skipped are logged as warnings; so are those whose value the kernel changed.
    ///
    /// Dropping the future leaves no socket. Blocks while the names of a file's user and group are looked up.
    ///
    /// # Errors
    /// Which step failed, and why. No descriptor and no file is left.
    pub async fn open<R: Runtime<Datagram = D>>(runtime: &R, spec: &PacketSpec) -> Result<Self, PacketError> {
        Self::open_with(runtime, spec, &Resolver::new(&ResolverSpec::default(), runtime)).await
    }

    /// As [`PacketSocket::open`], with a resolver of the caller's.
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub async fn open_with<R: Runtime<Datagram = D>>(
        runtime: &R,
        spec: &PacketSpec,
        resolver: &Resolver<R>,
    ) -> Result<Self, PacketError> {
        let ends = ends(spec, peer_ip(spec, resolver).await?)?;
        let target = target(&ends);
        let (mut options, skipped) = spec.sock_options().for_target(target).map_err(PacketError::Options)?;
        for fault in skipped {
            tracing::warn!(%fault, "an option of a packet socket is skipped");
        }
        for (opt, field) in [(Opt::SoRcvtimeo, "receive_timeout"), (Opt::SoSndtimeo, "send_timeout")] {
            if options.is_on(opt) {
                return Err(PacketError::Untimed { field });
            }
        }
        if spec.receives_ecn() {
            receive_ecn(&mut options, target.family);
        }
        let file = match (spec.local().map(|local| local.address()), spec.unix_file()) {
            (Some(Address::Unix(path)), Some(file)) => Some((path.as_path(), file)),
            _ => None,
        };
        // Names are looked up before anything is made.
        let owners = file.map(|(path, file)| owners(path, file)).transpose()?;
        if let Some((path, file)) = file {
            make_room(path, file.replace_stale)
                .map_err(|found| PacketError::InTheWay { path: path.into(), found })?;
        }
        let mode = file.and_then(|(_, file)| file.mode);
        let (datagram, effective) =
            runtime.open_datagram(&ends, &options, mode, spec.batch() as usize).map_err(PacketError::Open)?;
        let mut socket = PacketSocket::over(datagram, options, effective);
        if let (Some((path, file)), Some((user, group))) = (file, owners) {
            let refused = |error| PacketError::File { path: path.into(), error };
            let bound = SocketFile::just_bound(path).map_err(refused)?;
            let made = socket.file.insert(bound);
            made.assign(file.mode, user, group).map_err(refused)?;
            if !file.remove {
                made.keep();
            }
        }
        socket.join_all(spec)?;
        for option in socket.effective.iter().filter(|option| option.is_surprising()) {
            tracing::warn!("a packet socket has {option}");
        }
        Ok(socket)
    }

    /// A UDP socket at an address, with every default. At `[::]` it takes IPv4 too.
    ///
    /// # Errors
    /// [`PacketError::Open`]: the address is in use, not of this host, or not permitted.
    pub fn bind<R: Runtime<Datagram = D>>(runtime: &R, local: SocketAddr) -> Result<Self, PacketError> {
        Self::with_ends(runtime, &PacketEnds::Udp(Ends::Bound(local)))
    }

    /// A UDP socket that talks to one peer alone, with every default.
    ///
    /// # Errors
    /// [`PacketError::Open`]: no route, or not permitted. Whether anybody listens there shows only once something is sent.
    pub fn connect<R: Runtime<Datagram = D>>(runtime: &R, peer: SocketAddr) -> Result<Self, PacketError> {
        Self::with_ends(runtime, &PacketEnds::Udp(Ends::Connected { peer, local: None }))
    }

    /// A connection of a listener.
    pub(super) fn accepted(datagram: D, place: Place) -> Self {
        PacketSocket { _place: Some(place), ..PacketSocket::over(datagram, OptSet::new(), Vec::new()) }
    }

    fn over(datagram: D, options: OptSet, effective: Vec<Effective>) -> Self {
        PacketSocket { datagram, waiting: RefCell::default(), options, effective, file: None, _place: None }
    }

    fn with_ends<R: Runtime<Datagram = D>>(runtime: &R, ends: &PacketEnds) -> Result<Self, PacketError> {
        let options = OptSet::new();
        let opened = runtime.open_datagram(ends, &options, None, DEFAULT_BATCH);
        let (datagram, effective) = opened.map_err(PacketError::Open)?;
        Ok(PacketSocket::over(datagram, options, effective))
    }

    fn join_all(&self, spec: &PacketSpec) -> Result<(), PacketError> {
        if spec.network().is_unix() {
            return Ok(());
        }
        let multicast = spec.multicast();
        self.datagram
            .set_multicast(multicast.hops, multicast.is_heard_here)
            .map_err(PacketError::Multicast)?;
        multicast.groups.iter().try_for_each(|group| self.join(group))
    }

    /// Joins a multicast group, from one source alone where that is named. ip(7), ipv6(7), RFC 4607.
    ///
    /// # Errors
    /// [`PacketError::Group`]: there is no such interface, the group is joined already, or there are too many.
    pub fn join(&self, group: &MulticastGroup) -> Result<(), PacketError> {
        self.datagram.join(&platform(group)).map_err(|error| PacketError::Group { group: group.group, error })
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// [`PacketError::Group`]: the group was not joined.
    pub fn leave(&self, group: &MulticastGroup) -> Result<(), PacketError> {
        self.datagram
            .leave(&platform(group))
            .map_err(|error| PacketError::Group { group: group.group, error })
    }

    /// The next datagram, with what the kernel told of it. Datagrams that the kernel joined (`UDP_GRO`) come one by one.
    ///
    /// # Errors
    /// [`PacketError::Refused`] on a socket with a peer: an earlier datagram came back, since nobody listens there. It is told
    /// once, and the next call goes on. [`PacketError::Ended`] once the peer of a sequence of packets has ended, and from
    /// then on. [`PacketError::Receive`] for what else the kernel says.
    pub async fn recv(&self) -> Result<Received, PacketError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`PacketSocket::recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Received, PacketError>> {
        let mut waiting = self.waiting.borrow_mut();
        let Waiting { received, fresh } = &mut *waiting;
        if received.is_empty() {
            if ready!(self.datagram.poll_recv_batch(cx, fresh)).map_err(received_error)? == 0 {
                return Poll::Ready(Err(PacketError::Ended));
            }
            received.extend(fresh.drain(..));
        }
        let next = take_segment(received).expect("a receive that is ready has brought some");
        Poll::Ready(Ok(next))
    }

    /// The next datagram's bytes, and who sent it.
    ///
    /// # Errors
    /// As [`PacketSocket::recv`].
    pub async fn recv_from(&self) -> Result<(PoolBuf, LocalAddr), PacketError> {
        self.recv().await.map(|received| (received.bytes, received.meta.peer))
    }

    /// Appends what waits to `into`, at most a batch, and returns how many entries came.
    ///
    /// Datagrams that the kernel joined (`UDP_GRO`) are one entry; [`Received::segments`] gives them one by one.
    ///
    /// # Errors
    /// As [`PacketSocket::recv`].
    pub async fn recv_batch(&self, into: &mut Vec<Received>) -> Result<usize, PacketError> {
        let waiting = std::mem::take(&mut self.waiting.borrow_mut().received);
        if !waiting.is_empty() {
            let count = waiting.len();
            into.extend(waiting);
            return Ok(count);
        }
        match poll_fn(|cx| self.datagram.poll_recv_batch(cx, into)).await.map_err(received_error)? {
            0 => Err(PacketError::Ended),
            count => Ok(count),
        }
    }

    /// Sends a datagram to the peer, and waits until the kernel has taken it. Nothing says whether it arrives.
    ///
    /// # Errors
    /// [`PacketError::NoPeer`] where the socket has none; else as [`PacketSocket::send_batch`].
    pub async fn send(&self, contents: impl Into<Seg>) -> Result<(), PacketError> {
        self.send_one(Transmit::new(contents)).await
    }

    /// As [`PacketSocket::send`], to the address `dest`. On a socket of both families an IPv4 address needs no mapping.
    ///
    /// # Errors
    /// As [`PacketSocket::send_batch`].
    pub async fn send_to(
        &self,
        contents: impl Into<Seg>,
        dest: impl Into<LocalAddr>,
    ) -> Result<(), PacketError> {
        self.send_one(Transmit::to(dest, contents)).await
    }

    /// As [`PacketSocket::send_to`], to a host by its name: to the first of its addresses that is of the socket's family.
    ///
    /// A name that the resolver remembers costs no look-up.
    ///
    /// # Errors
    /// [`PacketError::Resolve`]; else as [`PacketSocket::send_batch`].
    pub async fn send_to_host<R: Runtime<Datagram = D>>(
        &self,
        contents: impl Into<Seg>,
        host: &str,
        port: u16,
        resolver: &Resolver<R>,
    ) -> Result<(), PacketError> {
        let LocalAddr::Inet(local) = self.local_addr().map_err(PacketError::Send)? else {
            return Err(PacketError::Resolve(ResolveError::NoSuitableAddress));
        };
        let found = resolver.addresses(host, port).await.map_err(PacketError::Resolve)?;
        // A socket at `[::]` takes IPv4 too, unless it is of IPv6 alone, which the send tells.
        let has_v4 = local.is_ipv4() || local.ip().is_unspecified() || local.ip().to_canonical().is_ipv4();
        let fits = |addr: &&SocketAddr| if addr.is_ipv4() { has_v4 } else { local.is_ipv6() };
        let dest = found.iter().find(fits).ok_or(PacketError::Resolve(ResolveError::NoSuitableAddress))?;
        self.send_to(contents, LocalAddr::Inet(*dest)).await
    }

    async fn send_one(&self, transmit: Transmit) -> Result<(), PacketError> {
        let one = [transmit];
        let sent = poll_fn(|cx| self.datagram.poll_send_batch(cx, &one)).await;
        sent.map(|_| ()).map_err(|error| sent_error(error, &one[0]))
    }

    /// Sends a batch from its front, and removes each datagram that the kernel has taken.
    ///
    /// Dropping the future leaves in the batch what was not sent.
    ///
    /// # Errors
    /// Why the datagram that is now in front was not taken; those before it are sent. [`PacketError::TooLong`],
    /// [`PacketError::NoBuffers`], [`PacketError::NoPeer`], or [`PacketError::Send`] for what else the kernel says.
    pub async fn send_batch(&self, batch: &mut Vec<Transmit>) -> Result<(), PacketError> {
        while !batch.is_empty() {
            let sent = poll_fn(|cx| self.datagram.poll_send_batch(cx, batch)).await;
            let count = sent.map_err(|error| sent_error(error, &batch[0]))?;
            batch.drain(..count);
        }
        Ok(())
    }

    /// Tells the peer of a sequence of packets that nothing more comes; receiving goes on.
    ///
    /// # Errors
    /// [`PacketError::Send`]: the peer is gone, or the socket is of another network.
    pub fn shutdown(&self) -> Result<(), PacketError> {
        self.datagram.shutdown().map_err(PacketError::Send)
    }

    /// Sends what `UDP_CORK` holds back, as one datagram; later sends are held back again. Does nothing where the spec does not
    /// ask for the option. Linux.
    ///
    /// # Errors
    /// [`PacketError::Send`]; what was held back is lost then.
    pub fn release_cork(&self) -> Result<(), PacketError> {
        self.datagram.release_cork(&self.options).map_err(PacketError::Send)
    }

    /// Sets how many bytes of a datagram are received, at most 1 MiB. The rest is lost, and its `is_truncated` says so.
    ///
    /// Default 64 KiB: no IP packet is longer, but a Unix datagram may be.
    pub fn set_max_len(&self, bytes: usize) {
        self.datagram.set_max_len(bytes);
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.datagram.local_addr()
    }

    /// The address of the only peer. One system call.
    ///
    /// # Errors
    /// `ENOTCONN` where the socket has no peer.
    pub fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.datagram.peer_addr()
    }

    /// The socket's options, as the kernel holds them.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// The socket below.
    pub fn datagram(&self) -> &D {
        &self.datagram
    }
}

/// Takes one datagram off the front, which may be several that the kernel joined.
fn take_segment(received: &mut VecDeque<Received>) -> Option<Received> {
    let front = received.front_mut()?;
    let stride = front.meta.stride.max(1);
    if front.bytes.len() <= stride {
        front.meta.stride = front.bytes.len();
        return received.pop_front();
    }
    let bytes = front.bytes.split_to(stride);
    // The end is what is lost, and that is the last one's.
    let meta = crate::runtime::RecvMeta { stride: bytes.len(), is_truncated: false, ..front.meta.clone() };
    Some(Received { bytes, meta })
}

/// Where the socket is, from its spec.
fn ends(spec: &PacketSpec, peer_ip: Option<IpAddr>) -> Result<PacketEnds, PacketError> {
    let local = spec.local().map(|local| local.address());
    let peer = spec.peer().map(|peer| peer.address());
    Ok(match spec.network() {
        Network::UnixGram => {
            let local = local.and_then(unix_name);
            match peer.map(unix_peer) {
                Some(peer) => PacketEnds::Unixgram(Ends::Connected { peer, local }),
                // An empty name has the kernel choose one, so that peers can answer. unix(7), "Autobind".
                None => PacketEnds::Unixgram(Ends::Bound(local.unwrap_or_default())),
            }
        }
        Network::Ip(IpProtocol(protocol))
        | Network::Ip4(IpProtocol(protocol))
        | Network::Ip6(IpProtocol(protocol)) => {
            let ip = |addr: SocketAddr| addr.ip();
            PacketEnds::Ip { protocol, ends: map_ends(inet_ends(spec, local, peer.zip(peer_ip))?, ip) }
        }
        Network::Udp | Network::Udp4 | Network::Udp6 => {
            PacketEnds::Udp(inet_ends(spec, local, peer.zip(peer_ip))?)
        }
        Network::UnixPacket => {
            let peer = peer.map(unix_peer).ok_or(PacketError::Network(Network::UnixPacket))?;
            PacketEnds::Unixpacket(Ends::Connected { peer, local: local.and_then(unix_name) })
        }
        // A checked spec has none of these.
        network @ (Network::Tcp | Network::Tcp4 | Network::Tcp6 | Network::Unix) => {
            return Err(PacketError::Network(network));
        }
    })
}

/// Where the peer is, if there is one that has an address of IP.
async fn peer_ip<R: Runtime>(
    spec: &PacketSpec,
    resolver: &Resolver<R>,
) -> Result<Option<IpAddr>, PacketError> {
    let Some(OriginAddress::Host { host, .. }) = spec.peer().map(|peer| peer.address()) else {
        return Ok(None);
    };
    if let Ok(ip) = host.parse() {
        return Ok(Some(ip));
    }
    let local = match spec.local().map(|local| local.address()) {
        // One that is of every address has the peer's family.
        Some(Address::Inet(addr)) if !addr.ip().is_unspecified() => Some(*addr),
        _ => None,
    };
    let found = resolver.resolve(host).await;
    let found = found.and_then(|found| suitable(&found, spec.network(), local));
    found.map(|found| Some(found[0].ip())).map_err(PacketError::Resolve)
}

fn inet_ends(
    spec: &PacketSpec,
    local: Option<&Address>,
    peer: Option<(&OriginAddress, IpAddr)>,
) -> Result<Ends<SocketAddr>, PacketError> {
    let local = match local {
        Some(Address::Inet(addr)) => Some(*addr),
        Some(Address::Unix(_) | Address::UnixAbstract(_)) | None => None,
    };
    let Some((OriginAddress::Host { port, .. }, ip)) = peer else {
        return local.map(Ends::Bound).ok_or(PacketError::Network(spec.network()));
    };
    let local = local.and_then(|local| match (local.ip().is_unspecified(), local.port()) {
        // Every address, any port: what connect chooses anyway.
        (true, 0) => None,
        (true, port) if local.is_ipv4() != ip.is_ipv4() => {
            let any: IpAddr =
                if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            Some(SocketAddr::new(any, port))
        }
        _ => Some(local),
    });
    Ok(Ends::Connected { peer: SocketAddr::new(ip, *port), local })
}

fn map_ends<A, B>(ends: Ends<A>, each: impl Fn(A) -> B) -> Ends<B> {
    match ends {
        Ends::Bound(addr) => Ends::Bound(each(addr)),
        Ends::Connected { peer, local } => Ends::Connected { peer: each(peer), local: local.map(each) },
    }
}

fn unix_name(address: &Address) -> Option<Vec<u8>> {
    match ConnectAddr::from(address) {
        ConnectAddr::Unix(name) => Some(name),
        ConnectAddr::Inet(_) => None,
    }
}

fn unix_peer(address: &OriginAddress) -> Vec<u8> {
    match address.connect_addr() {
        Some(ConnectAddr::Unix(name)) => name,
        Some(ConnectAddr::Inet(_)) | None => Vec::new(),
    }
}

/// The sort of socket that these ends make.
fn target(ends: &PacketEnds) -> Target {
    let of =
        |peer: bool, kind, addr| Target::at(&addr, kind, if peer { Role::Dialled } else { Role::Packet });
    let inet = |addr: &SocketAddr| ConnectAddr::Inet(*addr);
    let raw = |addr: &IpAddr| inet(&SocketAddr::new(*addr, 0));
    let unix = |path: &Vec<u8>| ConnectAddr::Unix(path.clone());
    match ends {
        PacketEnds::Udp(Ends::Bound(addr)) => of(false, Kind::Datagram, inet(addr)),
        PacketEnds::Udp(Ends::Connected { peer, .. }) => of(true, Kind::Datagram, inet(peer)),
        PacketEnds::Unixgram(Ends::Bound(path)) => of(false, Kind::Datagram, unix(path)),
        PacketEnds::Unixgram(Ends::Connected { peer, .. }) => of(true, Kind::Datagram, unix(peer)),
        PacketEnds::Unixpacket(Ends::Bound(path) | Ends::Connected { peer: path, .. }) => {
            of(true, Kind::Seqpacket, unix(path))
        }
        PacketEnds::Ip { ends: Ends::Bound(addr), .. } => of(false, Kind::Raw, raw(addr)),
        PacketEnds::Ip { ends: Ends::Connected { peer, .. }, .. } => of(true, Kind::Raw, raw(peer)),
    }
}

/// Has the congestion marks told, in each family that the socket has.
fn receive_ecn(options: &mut OptSet, family: Family) {
    let wanted: &[Opt] = match family {
        Family::V4 => &[Opt::IpRecvtos],
        Family::V6 => &[Opt::Ipv6Recvtclass],
        Family::Dual => &[Opt::IpRecvtos, Opt::Ipv6Recvtclass],
        Family::Unix => &[],
    };
    for opt in wanted {
        options.insert(*opt, true).expect("a flag can be on");
    }
}

/// The numbers of a file's user and group.
fn owners(path: &Path, file: &UnixFile) -> Result<(Option<u32>, Option<u32>), PacketError> {
    let number = |owner: &Option<Owner>, look_up: fn(&str) -> io::Result<Option<u32>>| match owner {
        None => Ok(None),
        Some(Owner::Id(id)) => Ok(Some(*id)),
        Some(Owner::Name(name)) => match look_up(name) {
            Ok(Some(id)) => Ok(Some(id)),
            Ok(None) => Err(PacketError::Owner { name: name.clone() }),
            Err(error) => Err(PacketError::File { path: path.into(), error }),
        },
    };
    Ok((number(&file.owner, user_id)?, number(&file.group, group_id)?))
}

fn platform(group: &MulticastGroup) -> Group {
    Group { group: group.group, interface: group.interface.clone(), source: group.source }
}

fn received_error(error: io::Error) -> PacketError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => PacketError::Refused,
        _ => PacketError::Receive(error),
    }
}

fn sent_error(error: io::Error, transmit: &Transmit) -> PacketError {
    match SendFault::of(&error) {
        SendFault::TooLong => PacketError::TooLong { len: transmit.contents.len() },
        SendFault::NoBuffers => PacketError::NoBuffers,
        SendFault::NoPeer if transmit.dest.is_none() => PacketError::NoPeer,
        SendFault::NoPeer | SendFault::Other => PacketError::Send(error),
    }
}

/// Why a packet socket could not be made, or could not send or receive.
#[derive(Debug)]
#[non_exhaustive]
pub enum PacketError {
    /// The network has no packets, or not without a peer. The caller's fault.
    Network(Network),
    /// What was asked for makes no socket of packets: every fault. The caller's fault.
    Spec(SpecErrors),
    /// The peer is a name that gave no address.
    Resolve(ResolveError),
    /// Options that such a socket does not have, or that contradict each other. The spec's fault.
    Options(Vec<OptFault>),
    /// A time limit for receives or sends, which the kernel ignores on sockets that do not block, and packet sockets do not
    /// keep. Race the call with a timer instead. The spec's fault.
    Untimed {
        /// The field of `sock_option.so_option`.
        field: &'static str,
    },
    /// The socket could not be made: which step, and why.
    Open(OpenError),
    /// No user or group has this name. The spec's fault.
    Owner {
        /// The name.
        name: String,
    },
    /// There is something at the path that is not replaced.
    InTheWay {
        /// The path.
        path: Box<Path>,
        /// What.
        found: InTheWay,
    },
    /// The socket's file could not be given its mode or owner.
    File {
        /// Its path.
        path: Box<Path>,
        /// The kernel's.
        error: io::Error,
    },
    /// Hops or loop of what is sent to groups could not be set.
    Multicast(io::Error),
    /// A group could not be joined or left.
    Group {
        /// The group.
        group: IpAddr,
        /// The kernel's: `ENODEV` for an interface that is not there, `EADDRINUSE` for a group that is joined already.
        error: io::Error,
    },
    /// An earlier datagram came back, since nobody listens at the peer.
    Refused,
    /// The peer of a sequence of packets has ended.
    Ended,
    /// What else the kernel says to a receive.
    Receive(io::Error),
    /// The datagram is longer than the protocol allows, or than the path where it may not be cut. It was not sent. The
    /// caller's fault.
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// The interface's queue is full, or the system is out of memory for sending: send less, later.
    NoBuffers,
    /// The datagram names no destination, and the socket has no peer. The caller's fault.
    NoPeer,
    /// What else the kernel says to a send.
    Send(io::Error),
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketError::Network(network) => write!(f, "{network} has no packets without a peer"),
            PacketError::Spec(errors) => errors.fmt(f),
            PacketError::Resolve(error) => write!(f, "the peer's name: {error}"),
            PacketError::Ended => f.write_str("the peer has ended"),
            PacketError::Options(faults) => {
                f.write_str("options of a packet socket: ")?;
                for (at, fault) in faults.iter().enumerate() {
                    let between = if at == 0 { "" } else { "; " };
                    write!(f, "{between}{fault}")?;
                }
                Ok(())
            }
            PacketError::Untimed { field } => {
                write!(f, "sock_option.so_option.{field}: not available for packet sockets yet")
            }
            PacketError::Open(error) => error.fmt(f),
            PacketError::Owner { name } => write!(f, "there is no user or group {name}"),
            PacketError::InTheWay { path, found } => {
                let path = path.display();
                match found {
                    InTheWay::OtherFile => write!(f, "{path}: a file that is no socket is in the way"),
                    InTheWay::LiveSocket => write!(f, "{path}: another socket has it"),
                    InTheWay::StaleSocket => {
                        write!(f, "{path}: a stale socket is in the way, and unix.replace_stale is off")
                    }
                    InTheWay::Unknown(error) => write!(f, "{path}: {error}"),
                    _ => write!(f, "{path}: something is in the way"),
                }
            }
            PacketError::File { path, error } => write!(f, "{}: {error}", path.display()),
            PacketError::Multicast(error) => write!(f, "multicast: {error}"),
            PacketError::Group { group, error } => write!(f, "group {group}: {error}"),
            PacketError::Refused => f.write_str("nobody listens at the peer"),
            PacketError::Receive(error) => write!(f, "receive: {error}"),
            PacketError::TooLong { len } => write!(f, "a datagram of {len} bytes is too long"),
            PacketError::NoBuffers => f.write_str("no room to send: the interface's queue is full"),
            PacketError::NoPeer => f.write_str("the socket has no peer: say where it is to go"),
            PacketError::Send(error) => write!(f, "send: {error}"),
        }
    }
}

impl std::error::Error for PacketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PacketError::Open(error) => Some(error),
            PacketError::Resolve(error) => Some(error),
            PacketError::Spec(errors) => Some(errors),
            PacketError::File { error, .. }
            | PacketError::InTheWay { found: InTheWay::Unknown(error), .. }
            | PacketError::Multicast(error)
            | PacketError::Group { error, .. }
            | PacketError::Receive(error)
            | PacketError::Send(error) => Some(error),
            _ => None,
        }
    }
}

const DEFAULT_BATCH: usize = 64;
