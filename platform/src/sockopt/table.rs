//! The table: everything that is known of each option, in the order in which options are applied.

use std::fmt;

use super::os;
use super::value::{Form, OptValue, Setting, Unit};
use super::{Family, Kind, Os, Role, Stage, Target};

/// What is known of an option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which one.
    pub opt: Opt,
    /// The kernel's name.
    pub name: &'static str,
    /// The kernel's numbers; `None` where this operating system lacks it.
    pub code: Option<Code>,
    /// Whether Windows has it too.
    pub windows: bool,
    /// What it takes.
    pub form: Form,
    /// What its numbers count.
    pub unit: Unit,
    /// What switching it off does.
    pub off: Off,
    /// When it must be set at the latest.
    pub stage: Stage,
    /// Whether it must be set again after each receive ([`Stage::Rearm`]).
    pub rearm: bool,
    /// What a connection has of its listener's value.
    pub accepted: Accepted,
    /// Families of the sockets where it has an effect.
    pub families: &'static [Family],
    /// Kinds of the sockets where it has an effect.
    pub kinds: &'static [Kind],
    /// Roles of the sockets where it has an effect; an accepted socket counts as its listener.
    pub roles: &'static [Role],
    /// Whether an MPTCP socket takes it.
    pub mptcp: bool,
    /// The privilege that it needs.
    pub privilege: Privilege,
    /// What reading it gives.
    pub read_back: ReadBack,
    /// The sysctl that bounds it, below `/proc/sys`; empty for none.
    pub sysctl: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// The fields of the spec that speak of it.
    pub fields: &'static [&'static str],
    /// The same text as the variant's documentation.
    pub doc: &'static str,
}

/// An option's numbers for setsockopt(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The level; for [`Opt::IpprotoMptcp`] the protocol alone counts.
    pub level: i32,
    /// The number within its level.
    pub number: i32,
}

/// What "off" means to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// It has no such state: "off" is refused, and leaving it out keeps the system's choice.
    Never,
    /// This number is written, and read back.
    Value(i32),
    /// This number is written and gives the system's choice back; what is read then is that choice.
    System(i32),
    /// A form of its own: an empty name, no lingering, no timeout.
    Empty,
}

/// What an accepted connection has of its listener's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The same: TCP carries it over. On Unix sockets it is set anew.
    Inherits,
    /// Nothing that lasts: it is set on each connection.
    Again,
    /// It has no meaning there.
    Nothing,
}

/// A capability of the process, capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// `CAP_NET_ADMIN`.
    NetAdmin,
    /// `CAP_NET_RAW`.
    NetRaw,
    /// Either of the two.
    NetAdminOrRaw,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::NetAdminOrRaw => "CAP_NET_ADMIN or CAP_NET_RAW",
        })
    }
}

/// The privilege that an option needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// The capability; `None` where everybody may set it.
    pub capability: Option<Capability>,
    /// For which values; empty for all.
    pub when: &'static str,
}

/// What getsockopt(2) gives after a value was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// The value.
    Equal,
    /// Twice the value: the kernel counts its own overhead. Capped at twice the sysctl, raised to a minimum.
    Doubled,
    /// At most the value.
    Capped,
    /// At least the value.
    Raised,
    /// The value rounded to what the kernel counts in, up or down.
    Rounded,
    /// The value, until the kernel takes it back.
    Transient,
    /// Nothing: it can be set only.
    WriteOnly,
}

impl ReadBack {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            ReadBack::Equal => "equal",
            ReadBack::Doubled => "doubled",
            ReadBack::Capped => "capped",
            ReadBack::Raised => "raised",
            ReadBack::Rounded => "rounded",
            ReadBack::Transient => "transient",
            ReadBack::WriteOnly => "write-only",
        }
    }
}

impl Opt {
    /// Everything that is known of it.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The option of a kernel's name.
    pub fn by_name(name: &str) -> Option<Opt> {
        Opt::ALL.iter().copied().find(|opt| opt.name() == name)
    }

    /// The option that a field of the spec speaks of: `tcpOption.noDelay`, or with `sockOption.` before it.
    ///
    /// Both fields of `IP_LOCAL_PORT_RANGE` give that one option.
    pub fn by_field(path: &str) -> Option<Opt> {
        let path = path.strip_prefix("sockOption.").unwrap_or(path);
        Opt::ALL.iter().copied().find(|opt| opt.row().fields.contains(&path))
    }

    /// When it is set on such a socket; `None` where it is not set on it at all.
    ///
    /// What TCP carries over to accepted connections is set on the listener, and all that the kernel keeps through a
    /// connect before it.
    pub fn stage_on(self, target: Target) -> Option<Stage> {
        let row = self.row();
        if !self.exists_on(target) {
            return None;
        }
        match (target.role, row.accepted) {
            (Role::Accepted, Accepted::Nothing) => None,
            (Role::Accepted, Accepted::Inherits) if target.family != Family::Unix => None,
            (Role::Accepted, Accepted::Inherits | Accepted::Again) => Some(Stage::Connected),
            (Role::Listener, Accepted::Again) => None,
            (Role::Dialled, Accepted::Again) | (Role::Listener, Accepted::Nothing) => Some(row.stage),
            (Role::Listener | Role::Dialled | Role::Packet, _) => Some(row.stage.min(Stage::PreConnect)),
        }
    }

    /// Whether it is set again on such a socket after each receive.
    pub(super) fn is_rearmed_on(self, target: Target) -> bool {
        self.row().rearm && self.exists_on(target) && matches!(target.role, Role::Dialled | Role::Accepted)
    }

    /// Whether such a socket has it on this operating system.
    fn exists_on(self, target: Target) -> bool {
        let row = self.row();
        let role = if target.role == Role::Accepted { Role::Listener } else { target.role };
        row.exists_in(Os::HERE)
            && row.families.contains(&target.family)
            && row.kinds.contains(&target.kind)
            && row.roles.contains(&role)
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Row {
    /// The networks of a spec whose sockets have it: `tcp`, `udp4`, `unixgram`.
    pub fn networks(&self) -> Vec<&'static str> {
        let has = |family| self.families.contains(&family);
        let mut networks = Vec::new();
        for kind in self.kinds.iter().copied() {
            let inet = match (has(Family::V4), has(Family::V6)) {
                (true, true) => Some(Family::Dual),
                (true, false) => Some(Family::V4),
                (false, true) => Some(Family::V6),
                (false, false) => None,
            };
            let unix = has(Family::Unix).then_some(Family::Unix);
            let there = |family: &Family| match kind {
                Kind::Stream | Kind::Datagram => true,
                Kind::Seqpacket => *family == Family::Unix,
                Kind::Raw => *family != Family::Unix,
            };
            let of = |family| Target { family, kind, role: Role::Packet }.network();
            networks.extend(inet.into_iter().chain(unix).filter(there).map(of));
        }
        networks
    }

    /// One form for one meaning: where a value is what "off" writes, off.
    pub(super) fn without_two_names_for_off(&self, setting: Setting) -> Setting {
        let number = match (&setting, self.form) {
            (Setting::Value(OptValue::Int(number)), Form::Int { .. }) => Some(*number),
            (Setting::Value(OptValue::Name(name)), Form::Choice(names)) => {
                names.iter().find(|(known, _)| known == name).map(|(_, number)| i64::from(*number))
            }
            (Setting::Off | Setting::Value(_), _) => None,
        };
        match self.off {
            Off::Value(off) if number == Some(i64::from(off)) => Setting::Off,
            Off::Never | Off::Value(_) | Off::System(_) | Off::Empty => setting,
        }
    }

    /// Whether it can be "off" on an operating system. Windows has no number that gives the system's choice back.
    pub(super) const fn can_be_off_in(&self, os: Os) -> bool {
        match (self.off, os) {
            (Off::Never, _) | (Off::System(_), Os::Windows) => false,
            (Off::Value(_), Os::Windows) => !matches!(self.opt, Opt::TcpUserTimeout),
            (Off::Value(_) | Off::System(_) | Off::Empty, _) => true,
        }
    }

    /// Whether an operating system has the option.
    pub const fn exists_in(&self, os: Os) -> bool {
        match os {
            // The table is Linux's.
            Os::Linux => true,
            Os::Windows => self.windows,
        }
    }
}

/// One row each: documentation, variant, and what differs from the row's defaults. A function could give the rows, but
/// not the variants with their documentation.
macro_rules! options {
    ($($(#[doc = $doc:literal])+ $opt:ident = $row:expr;)+) => {
        /// A socket option. The order is the one in which options are applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Opt {
            $($(#[doc = $doc])+ $opt,)+
        }

        impl Opt {
            /// All of them.
            pub const ALL: &[Opt] = &[$(Opt::$opt),+];
        }

        const TABLE: &[Row] = &[$(Row { opt: Opt::$opt, doc: concat!($($doc),+), ..$row }),+];

        /// The same rows, built at run time: what is only evaluated by the compiler leaves no trace in coverage.
        #[cfg(all(test, target_os = "linux"))]
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row { opt: Opt::$opt, doc: concat!($($doc),+), ..$row }),+]
        }
    };
}

options! {
    /// Multipath TCP instead of TCP: the protocol of the socket. Never a silent fall-back of ours; a peer without it
    /// makes the connection plain TCP. RFC 8684.
    IpprotoMptcp = flag("IPPROTO_MPTCP", os::IPPROTO_MPTCP, Stage::Socket)
        .on(INET, STREAM, CONNECTIONS).accepted(Accepted::Nothing).fields(&["tcpOption.mptcp"]).since("5.6");
    /// Keeps the socket to one interface, by its name: it sends and receives through no other. Off lifts it.
    SoBindtodevice = row("SO_BINDTODEVICE", os::SO_BINDTODEVICE, Form::Name { max_len: 15 }, Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).off(Off::Empty).fields(&["soOption.bindToDevice"])
        .needs_when(Capability::NetRaw, "it is kept to an interface already");
    /// Keeps the socket to one interface, by its index. Linux takes an index that no interface has; that is refused
    /// here.
    SoBindtoifindex = row("SO_BINDTOIFINDEX", os::SO_BINDTOIFINDEX, int(1, I32), Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).off(Off::Value(0)).unit(Unit::Index).fields(&["soOption.bindToIfIndex"])
        .needs_when(Capability::NetRaw, "it is kept to an interface already").since("5.1");
    /// Writes a trace of the socket to the kernel's log, where the kernel was built for it.
    SoDebug = flag("SO_DEBUG", os::SO_DEBUG, Stage::PreBind).needs(Capability::NetAdmin).windows()
        .fields(&["soOption.debug"]);
    /// The core whose packets the socket prefers within its `SO_REUSEPORT` group. Off prefers none.
    SoIncomingCpu = row("SO_INCOMING_CPU", os::SO_INCOMING_CPU, int(0, 8191), Stage::PreBind)
        .on(INET, STREAM_DGRAM, SETUP).off(Off::Value(-1)).unit(Unit::Index).fields(&["soOption.incomingCPU"])
        .since("4.4");
    /// Marks every packet for routing and packet filters.
    SoMark = row("SO_MARK", os::SO_MARK, int(0, U32), Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).off(Off::Value(0)).needs(Capability::NetAdminOrRaw)
        .fields(&["soOption.mark"]).since("2.6.25");
    /// Binds an address that connections in TIME_WAIT still hold. On Windows it takes the address from whoever has it: a listener
    /// without it has `SO_EXCLUSIVEADDRUSE` there, which TIME_WAIT does not hinder.
    SoReuseaddr = flag("SO_REUSEADDR", os::SO_REUSEADDR, Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).accepted(Accepted::Nothing).windows().fields(&["soOption.reuseAddr"]);
    /// Lets several sockets of one user hold the same address; each of them must set it.
    SoReuseport = flag("SO_REUSEPORT", os::SO_REUSEPORT, Stage::PreBind)
        .on(INET, STREAM_DGRAM, SETUP).accepted(Accepted::Nothing).fields(&["soOption.reusePort"]).since("3.9");
    /// Bytes that may wait for the reader. The kernel keeps twice as many for its own overhead, at least 2,304 in all,
    /// at most twice `net.core.rmem_max`. Ends the automatic tuning; on a listener it decides window scaling.
    SoRcvbuf = row("SO_RCVBUF", os::SO_RCVBUF, int(1, HALF_I32), Stage::PreBind)
        .unit(Unit::Bytes).read_back(ReadBack::Doubled).sysctl("net/core/rmem_max").windows()
        .fields(&["soOption.receiveBuffer"]);
    /// `SO_RCVBUF` beyond `net.core.rmem_max`. Wins where both are set.
    SoRcvbufforce = row("SO_RCVBUFFORCE", os::SO_RCVBUFFORCE, int(1, HALF_I32), Stage::PreBind)
        .unit(Unit::Bytes).read_back(ReadBack::Doubled).needs(Capability::NetAdmin)
        .fields(&["soOption.receiveBufferForce"]).since("2.6.14");
    /// Bytes that may wait to be sent. Doubled as `SO_RCVBUF` is, at least 4,608 in all, at most twice
    /// `net.core.wmem_max`.
    SoSndbuf = row("SO_SNDBUF", os::SO_SNDBUF, int(1, HALF_I32), Stage::PreBind)
        .unit(Unit::Bytes).read_back(ReadBack::Doubled).sysctl("net/core/wmem_max").windows()
        .fields(&["soOption.sendBuffer"]);
    /// `SO_SNDBUF` beyond `net.core.wmem_max`. Wins where both are set.
    SoSndbufforce = row("SO_SNDBUFFORCE", os::SO_SNDBUFFORCE, int(1, HALF_I32), Stage::PreBind)
        .unit(Unit::Bytes).read_back(ReadBack::Doubled).needs(Capability::NetAdmin)
        .fields(&["soOption.sendBufferForce"]).since("2.6.14");
    /// Priority of the packets in queues of the device. Setting `IP_TOS` changes it, so it is set after that one has
    /// been.
    SoPriority = row("SO_PRIORITY", os::SO_PRIORITY, int(0, I32), Stage::PreConnect)
        .on(INET, IP_KINDS, SETUP).off(Off::Value(0)).needs_when(Capability::NetAdminOrRaw, "above 6")
        .fields(&["soOption.priority"]);
    /// How long a receive that would wait asks the device's queue itself.
    SoBusyPoll = row("SO_BUSY_POLL", os::SO_BUSY_POLL, Form::Time { min: 1, max: I32 }, Stage::PreConnect)
        .on(INET, STREAM_DGRAM, SETUP).off(Off::Value(0)).unit(Unit::Microseconds)
        .needs_when(Capability::NetAdmin, "an older kernel raises it").fields(&["soOption.busyPoll"]).since("3.11");
    /// Prefers such asking over interrupts.
    SoPreferBusyPoll = flag("SO_PREFER_BUSY_POLL", os::SO_PREFER_BUSY_POLL, Stage::PreConnect)
        .on(INET, STREAM_DGRAM, SETUP).needs(Capability::NetAdmin).fields(&["soOption.preferBusyPoll"]).since("5.11");
    /// Takes another path through the network when retransmissions fail.
    SoTxrehash = flag("SO_TXREHASH", os::SO_TXREHASH, Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).no_mptcp().fields(&["soOption.txRehash"]).since("5.18");
    /// How long a receive may wait. The kernel holds it without effect, since our sockets never block: whoever reads
    /// enforces it with a timer ([`super::OptSet::receive_timeout`]).
    SoRcvtimeo = row("SO_RCVTIMEO", os::SO_RCVTIMEO, Form::Time { min: 1, max: TIMEOUT_MAX }, Stage::Connected)
        .off(Off::Empty).unit(Unit::Microseconds).read_back(ReadBack::Rounded).windows().fields(&["soOption.receiveTimeout"]);
    /// How long a send may wait; enforced as `SO_RCVTIMEO` is ([`super::OptSet::send_timeout`]).
    SoSndtimeo = row("SO_SNDTIMEO", os::SO_SNDTIMEO, Form::Time { min: 1, max: TIMEOUT_MAX }, Stage::Connected)
        .off(Off::Empty).unit(Unit::Microseconds).read_back(ReadBack::Rounded).windows().fields(&["soOption.sendTimeout"]);
    /// Asks a peer that is silent whether it is there.
    SoKeepalive = flag("SO_KEEPALIVE", os::SO_KEEPALIVE, Stage::Connected)
        .on(INET, STREAM, CONNECTIONS).windows().fields(&["soOption.keepAlive"]);
    /// What close does with bytes that were not sent: they are sent for this long. 0 resets the connection at close; off
    /// sends them in the background.
    SoLinger = row("SO_LINGER", os::SO_LINGER, Form::Time { min: 0, max: I32 }, Stage::Connected)
        .on(INET, STREAM, CONNECTIONS).off(Off::Empty).unit(Unit::Seconds).windows().fields(&["soOption.linger"]);
    /// Leaves the choice of a local port to connect, which may then share it between peers.
    IpBindAddressNoPort = flag("IP_BIND_ADDRESS_NO_PORT", os::IP_BIND_ADDRESS_NO_PORT, Stage::PreBind)
        .on(INET, STREAM_DGRAM, SETUP).accepted(Accepted::Nothing).fields(&["ipOption.bindAddressNoPort"]).since("4.2");
    /// Binds an address that no interface has (yet). Of both families.
    IpFreebind = flag("IP_FREEBIND", os::IP_FREEBIND, Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).accepted(Accepted::Nothing).fields(&["ipOption.freeBind"]);
    /// The ports that the kernel picks local ones from, of both families. 0 at an end keeps the system's.
    IpLocalPortRange = row("IP_LOCAL_PORT_RANGE", os::IP_LOCAL_PORT_RANGE, Form::Ports, Stage::PreBind)
        .on(INET, STREAM_DGRAM, SETUP).off(Off::Value(0)).accepted(Accepted::Nothing)
        .fields(&["ipOption.localPortRangeUpper", "ipOption.localPortRangeLower"]).since("6.3");
    /// Binds addresses of others and takes connections to them. Of both families.
    IpTransparent = flag("IP_TRANSPARENT", os::IP_TRANSPARENT, Stage::PreBind)
        .on(INET, IP_KINDS, SETUP).needs(Capability::NetAdminOrRaw).fields(&["ipOption.transparent"]).since("2.6.24");
    /// How many routers an IPv4 packet may pass; IPv6's twin is `IPV6_UNICAST_HOPS`. Off gives the system's choice.
    IpTtl = row("IP_TTL", os::IP_TTL, int(1, 255), Stage::PreConnect)
        .on(V4, IP_KINDS, SETUP).off(Off::System(-1)).unit(Unit::Count).no_mptcp().windows()
        .fields(&["ipOption.ttl"]);
    /// The differentiated services field of IPv4 packets. On streams the two lowest bits are the kernel's. IPv6's twin
    /// is `IPV6_TCLASS`. RFC 2474.
    IpTos = row("IP_TOS", os::IP_TOS, int(0, 255), Stage::PreBind)
        .on(V4, IP_KINDS, SETUP).off(Off::Value(0)).read_back(ReadBack::Capped).fields(&["ipOption.tos"]);
    /// What IPv4 packets do about the path's MTU: `do` sets "don't fragment", `probe` sends beyond what is known.
    IpMtuDiscover = row("IP_MTU_DISCOVER", os::IP_MTU_DISCOVER, MTU_DISCOVER, Stage::PreConnect)
        .on(V4, IP_KINDS, SETUP).off(Off::Value(0)).no_mptcp().fields(&["ipOption.mtuDiscover"]);
    /// The interface that unicast IPv4 packets leave by, by its name, without keeping received ones to it.
    IpUnicastIf = row("IP_UNICAST_IF", os::IP_UNICAST_IF, Form::Name { max_len: 15 }, Stage::PreBind)
        .on(V4, PACKET_KINDS, PACKETS).off(Off::Value(0)).fields(&["ipOption.unicastIf"]).since("3.3");
    /// Tells with each IPv4 packet where it arrived.
    IpPktinfo = flag("IP_PKTINFO", os::IP_PKTINFO, Stage::PreBind).on(V4, PACKET_KINDS, PACKETS)
        .windows().fields(&["ipOption.pktInfo"]);
    /// Tells with each IPv4 packet where it was going before it was redirected.
    IpRecvorigdstaddr = flag("IP_RECVORIGDSTADDR", os::IP_RECVORIGDSTADDR, Stage::PreBind).on(V4, PACKET_KINDS, PACKETS)
        .fields(&["ipOption.recvOrigDstAddr"]).since("2.6.29");
    /// Tells each IPv4 packet's differentiated services field and congestion mark; of older Windows the mark alone.
    IpRecvtos = flag("IP_RECVTOS", os::IP_RECVTOS, Stage::PreBind).on(V4, PACKET_KINDS, PACKETS)
        .windows().fields(&["ipOption.recvTos"]);
    /// Whether an IPv6 socket leaves IPv4 alone. Unset, a socket on `[::]` takes both.
    Ipv6V6only = flag("IPV6_V6ONLY", os::IPV6_V6ONLY, Stage::PreBind)
        .on(V6, IP_KINDS, SETUP).accepted(Accepted::Nothing).fields(&["ipv6Option.v6Only"]).since("2.4.21").windows();
    /// How many routers an IPv6 packet may pass. Off gives the system's choice.
    Ipv6UnicastHops = row("IPV6_UNICAST_HOPS", os::IPV6_UNICAST_HOPS, int(1, 255), Stage::PreConnect)
        .on(V6, IP_KINDS, SETUP).off(Off::System(-1)).unit(Unit::Count).no_mptcp().windows().fields(&["ipv6Option.unicastHops"]);
    /// `IP_FREEBIND` by its IPv6 name.
    Ipv6Freebind = flag("IPV6_FREEBIND", os::IPV6_FREEBIND, Stage::PreBind)
        .on(V6, IP_KINDS, SETUP).accepted(Accepted::Nothing).fields(&["ipv6Option.freeBind"]).since("4.15");
    /// `IP_TRANSPARENT` by its IPv6 name.
    Ipv6Transparent = flag("IPV6_TRANSPARENT", os::IPV6_TRANSPARENT, Stage::PreBind)
        .on(V6, IP_KINDS, SETUP).needs(Capability::NetAdminOrRaw).fields(&["ipv6Option.transparent"]).since("2.6.37");
    /// The traffic class of IPv6 packets. On streams the two lowest bits are the kernel's. RFC 2474.
    Ipv6Tclass = row("IPV6_TCLASS", os::IPV6_TCLASS, int(0, 255), Stage::PreBind)
        .on(V6, IP_KINDS, SETUP).off(Off::Value(0)).read_back(ReadBack::Capped).no_mptcp()
        .fields(&["ipv6Option.tclass"]);
    /// What IPv6 packets do about the path's MTU.
    Ipv6MtuDiscover = row("IPV6_MTU_DISCOVER", os::IPV6_MTU_DISCOVER, MTU_DISCOVER, Stage::PreConnect)
        .on(V6, IP_KINDS, SETUP).off(Off::Value(0)).no_mptcp().fields(&["ipv6Option.mtuDiscover"]);
    /// The interface that unicast IPv6 packets leave by, by its name.
    Ipv6UnicastIf = row("IPV6_UNICAST_IF", os::IPV6_UNICAST_IF, Form::Name { max_len: 15 }, Stage::PreBind)
        .on(V6, PACKET_KINDS, PACKETS).off(Off::Value(0)).fields(&["ipv6Option.unicastIf"]).since("3.3");
    /// Tells with each IPv6 packet where it arrived.
    Ipv6Recvpktinfo = flag("IPV6_RECVPKTINFO", os::IPV6_RECVPKTINFO, Stage::PreBind).on(V6, PACKET_KINDS, PACKETS)
        .windows().fields(&["ipv6Option.recvPktInfo"]).since("2.6.14");
    /// Tells with each IPv6 packet where it was going before it was redirected.
    Ipv6Recvorigdstaddr = flag("IPV6_RECVORIGDSTADDR", os::IPV6_RECVORIGDSTADDR, Stage::PreBind)
        .on(V6, PACKET_KINDS, PACKETS).fields(&["ipv6Option.recvOrigDstAddr"]).since("2.6.37");
    /// Tells each IPv6 packet's traffic class and congestion mark; of older Windows the mark alone.
    Ipv6Recvtclass = flag("IPV6_RECVTCLASS", os::IPV6_RECVTCLASS, Stage::PreBind).on(V6, PACKET_KINDS, PACKETS)
        .windows().fields(&["ipv6Option.recvTclass"]).since("2.6.14");
    /// Steers a new connection or packet of a `SO_REUSEPORT` group by the core that received it: the first core of the
    /// list to the first socket of the group (the order in which they began to listen; of UDP, in which they were
    /// bound), and so on; a core that is not in the list by its number modulo the length. A packet filter in the
    /// kernel's classic form, built here; the last socket that attaches one decides. Of TCP it is attached after listen:
    /// before it, Linux would keep the second socket of the group out (`EADDRINUSE`).
    SoAttachReuseportCbpf = row("SO_ATTACH_REUSEPORT_CBPF", os::SO_ATTACH_REUSEPORT_CBPF, Form::Cpus { max_count: 1024 },
        Stage::Connected)
        .on(INET, STREAM_DGRAM, &[Role::Listener, Role::Packet]).off(Off::Never).unit(Unit::Index)
        .accepted(Accepted::Nothing).read_back(ReadBack::WriteOnly).fields(&["soOption.reusePortCpus"]).since("4.5");
    /// Holds small segments back until a full one is there, for 200 ms at most: whoever writes must release them
    /// ([`super::OptSet::release_cork`]). Wins over `TCP_NODELAY`.
    TcpCork = flag("TCP_CORK", os::TCP_CORK, Stage::Connected).on(INET, STREAM, CONNECTIONS)
        .fields(&["tcpOption.cork"]);
    /// How long a connection may be silent before accept returns it nevertheless. The kernel counts in retransmissions:
    /// 5 s become 7, 10 s 15. A client waits as long with its last acknowledgement.
    TcpDeferAccept = row("TCP_DEFER_ACCEPT", os::TCP_DEFER_ACCEPT, Form::Time { min: 1, max: I32 }, Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::Value(0)).unit(Unit::Seconds).accepted(Accepted::Nothing)
        .read_back(ReadBack::Rounded).fields(&["tcpOption.deferAccept"]).since("2.4");
    /// Keep-alive probes without an answer that end a connection.
    TcpKeepcnt = row("TCP_KEEPCNT", os::TCP_KEEPCNT, int(1, 127), Stage::Connected)
        .on(INET, STREAM, CONNECTIONS).unit(Unit::Count).windows().fields(&["tcpOption.keepCount"]).since("2.4");
    /// How long a connection is silent before the first keep-alive probe.
    TcpKeepidle = row("TCP_KEEPIDLE", os::TCP_KEEPIDLE, Form::Time { min: 1, max: 32_767 }, Stage::Connected)
        .on(INET, STREAM, CONNECTIONS).unit(Unit::Seconds).windows().fields(&["tcpOption.keepIdle"]).since("2.4");
    /// Time between keep-alive probes.
    TcpKeepintvl = row("TCP_KEEPINTVL", os::TCP_KEEPINTVL, Form::Time { min: 1, max: 32_767 }, Stage::Connected)
        .on(INET, STREAM, CONNECTIONS).unit(Unit::Seconds).windows().fields(&["tcpOption.keepInterval"]).since("2.4");
    /// How long a closed connection waits in FIN_WAIT2 for the peer's end; at most 120 s. Off does not wait.
    TcpLinger2 = row("TCP_LINGER2", os::TCP_LINGER2, Form::Time { min: 1, max: I32 }, Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::Value(-1)).unit(Unit::Seconds).read_back(ReadBack::Capped).no_mptcp()
        .fields(&["tcpOption.linger2"]).since("2.4");
    /// The largest segment that is sent and told to the peer. A connection's own is smaller by its options.
    TcpMaxseg = row("TCP_MAXSEG", os::TCP_MAXSEG, int(88, 32_767), Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::System(0)).unit(Unit::Bytes).read_back(ReadBack::Capped)
        .fields(&["tcpOption.maxSegment"]);
    /// Sends small segments at once.
    TcpNodelay = flag("TCP_NODELAY", os::TCP_NODELAY, Stage::Connected).on(INET, STREAM, CONNECTIONS).windows()
        .fields(&["tcpOption.noDelay"]);
    /// Acknowledges at once. The kernel takes it back by itself, so it is set again after receives.
    TcpQuickack = flag("TCP_QUICKACK", os::TCP_QUICKACK, Stage::Connected).on(INET, STREAM, CONNECTIONS)
        .accepted(Accepted::Again).rearmed().read_back(ReadBack::Transient).no_mptcp()
        .fields(&["tcpOption.quickAck"]).since("2.4.4");
    /// How often an attempt to connect is sent anew; on a listener, its answer. 1 fails after 3 s, 2 after 7 s.
    TcpSyncnt = row("TCP_SYNCNT", os::TCP_SYNCNT, int(1, 127), Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).unit(Unit::Count).no_mptcp().fields(&["tcpOption.synCount"]).since("2.4");
    /// How long sent data may stay unacknowledged before the connection is dropped; holds for connect as well. Off is
    /// the system's choice. RFC 5482. On Windows `TCP_MAXRTMS`.
    TcpUserTimeout = row("TCP_USER_TIMEOUT", os::TCP_USER_TIMEOUT, Form::Time { min: 1, max: I32 }, Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::Value(0)).unit(Unit::Milliseconds).no_mptcp()
        .windows().fields(&["tcpOption.userTimeout"]).since("2.6.37");
    /// The largest window that is offered to the peer; raised to half of the smallest buffer.
    TcpWindowClamp = row("TCP_WINDOW_CLAMP", os::TCP_WINDOW_CLAMP, int(1, I32), Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::Value(0)).unit(Unit::Bytes).read_back(ReadBack::Raised).no_mptcp()
        .fields(&["tcpOption.windowClamp"]).since("2.4");
    /// How many connections may bring data with their first segment and wait to be accepted. Without bit 2 of
    /// `net.ipv4.tcp_fastopen` Linux takes the value and does nothing; that is reported. RFC 7413. Windows
    /// has a switch without a number.
    TcpFastopen = row("TCP_FASTOPEN", os::TCP_FASTOPEN, int(1, I32), Stage::PreConnect)
        .on(INET, STREAM, &[Role::Listener]).off(Off::Value(0)).unit(Unit::Count).accepted(Accepted::Nothing)
        .read_back(ReadBack::Capped).sysctl("net/core/somaxconn").windows().fields(&["tcpOption.fastOpen"]).since("3.6");
    /// Sends the first data with the first segment where the peer is known to take it. Connect then returns at once, and
    /// its failure appears at the first write. Needs bit 1 of `net.ipv4.tcp_fastopen`. RFC 7413.
    TcpFastopenConnect = flag("TCP_FASTOPEN_CONNECT", os::TCP_FASTOPEN_CONNECT, Stage::PreConnect)
        .on(INET, STREAM, &[Role::Dialled]).accepted(Accepted::Nothing).fields(&["tcpOption.fastOpenConnect"])
        .since("4.11");
    /// The congestion control, by its name. Which ones everybody may take: `net.ipv4.tcp_allowed_congestion_control`.
    TcpCongestion = row("TCP_CONGESTION", os::TCP_CONGESTION, Form::Name { max_len: 15 }, Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).needs_when(Capability::NetAdmin, "the control is not an allowed one")
        .fields(&["tcpOption.congestion"]).since("2.6.13");
    /// Bytes not yet sent above which the socket counts as full. Off is the system's choice.
    TcpNotsentLowat = row("TCP_NOTSENT_LOWAT", os::TCP_NOTSENT_LOWAT, int(1, I32), Stage::PreConnect)
        .on(INET, STREAM, CONNECTIONS).off(Off::Value(0)).unit(Unit::Bytes).fields(&["tcpOption.notSentLowat"])
        .since("3.12");
    /// Gathers what is sent into one datagram until it is released ([`super::OptSet::release_cork`]).
    UdpCork = flag("UDP_CORK", os::UDP_CORK, Stage::PreBind).on(INET, DATAGRAM, PACKETS).fields(&["udpOption.cork"])
        .since("2.5.44");
    /// Cuts what is sent into datagrams of this many bytes, the last one shorter; at most 128 at once. On
    /// Windows `UDP_SEND_MSG_SIZE`.
    UdpSegment = row("UDP_SEGMENT", os::UDP_SEGMENT, int(1, 65_535), Stage::PreBind)
        .on(INET, DATAGRAM, PACKETS).off(Off::Value(0)).unit(Unit::Bytes).windows().fields(&["udpOption.segment"]).since("4.18");
    /// Receives datagrams of one sender joined, with their length beside them. On Windows `UDP_RECV_MAX_COALESCED_SIZE`.
    UdpGro = flag("UDP_GRO", os::UDP_GRO, Stage::PreBind).on(INET, DATAGRAM, PACKETS).windows().fields(&["udpOption.gro"])
        .since("5.0");
}

const fn row(name: &'static str, code: Option<Code>, form: Form, stage: Stage) -> Row {
    Row {
        // The macro replaces these two.
        opt: Opt::ALL[0],
        doc: "",
        name,
        code,
        windows: false,
        form,
        unit: Unit::None,
        off: Off::Never,
        stage,
        rearm: false,
        accepted: Accepted::Inherits,
        families: ANY,
        kinds: KINDS,
        roles: SETUP,
        mptcp: true,
        privilege: Privilege { capability: None, when: "" },
        read_back: ReadBack::Equal,
        sysctl: "",
        since: "2.0",
        fields: &[],
    }
}

const fn flag(name: &'static str, code: Option<Code>, stage: Stage) -> Row {
    row(name, code, Form::Flag, stage).off(Off::Value(0))
}

const fn int(min: i64, max: i64) -> Form {
    Form::Int { min, max }
}

impl Row {
    const fn on(self, families: &'static [Family], kinds: &'static [Kind], roles: &'static [Role]) -> Row {
        Row { families, kinds, roles, ..self }
    }

    const fn off(self, off: Off) -> Row {
        Row { off, ..self }
    }

    const fn unit(self, unit: Unit) -> Row {
        Row { unit, ..self }
    }

    const fn accepted(self, accepted: Accepted) -> Row {
        Row { accepted, ..self }
    }

    const fn rearmed(self) -> Row {
        Row { rearm: true, ..self }
    }

    const fn no_mptcp(self) -> Row {
        Row { mptcp: false, ..self }
    }

    const fn windows(self) -> Row {
        Row { windows: true, ..self }
    }

    const fn needs(self, capability: Capability) -> Row {
        self.needs_when(capability, "")
    }

    const fn needs_when(self, capability: Capability, when: &'static str) -> Row {
        Row { privilege: Privilege { capability: Some(capability), when }, ..self }
    }

    const fn read_back(self, read_back: ReadBack) -> Row {
        Row { read_back, ..self }
    }

    const fn sysctl(self, sysctl: &'static str) -> Row {
        Row { sysctl, ..self }
    }

    const fn since(self, since: &'static str) -> Row {
        Row { since, ..self }
    }

    const fn fields(self, fields: &'static [&'static str]) -> Row {
        Row { fields, ..self }
    }
}

const ANY: &[Family] = &[Family::V4, Family::V6, Family::Dual, Family::Unix];
const INET: &[Family] = &[Family::V4, Family::V6, Family::Dual];
const V4: &[Family] = &[Family::V4, Family::Dual];
const V6: &[Family] = &[Family::V6, Family::Dual];
const KINDS: &[Kind] = &[Kind::Stream, Kind::Datagram, Kind::Seqpacket, Kind::Raw];
const IP_KINDS: &[Kind] = &[Kind::Stream, Kind::Datagram, Kind::Raw];
const STREAM_DGRAM: &[Kind] = &[Kind::Stream, Kind::Datagram];
const PACKET_KINDS: &[Kind] = &[Kind::Datagram, Kind::Raw];
const STREAM: &[Kind] = &[Kind::Stream];
const DATAGRAM: &[Kind] = &[Kind::Datagram];
const SETUP: &[Role] = &[Role::Listener, Role::Dialled, Role::Packet];
const CONNECTIONS: &[Role] = &[Role::Listener, Role::Dialled];
const PACKETS: &[Role] = &[Role::Dialled, Role::Packet];
/// ip(7) `IP_PMTUDISC_*`; IPv6's numbers are the same.
const MTU_DISCOVER: Form =
    Form::Choice(&[("dont", 0), ("want", 1), ("do", 2), ("probe", 3), ("interface", 4), ("omit", 5)]);
const I32: i64 = i32::MAX as i64;
const U32: i64 = u32::MAX as i64;
/// The kernel doubles it in an `int`.
const HALF_I32: i64 = i32::MAX as i64 / 2;
/// In microseconds: some 24 days, what a spec can say in milliseconds.
const TIMEOUT_MAX: i64 = i32::MAX as i64 * 1000;
