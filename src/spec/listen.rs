//! How connections are accepted, as checked.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use ringport_platform::sockopt::{Family, Kind, Opt, OptFault, OptSet, Role, Setting, Target};

use super::address::Address;
use super::check::{Check, Unlimited, join, values};
use super::cidr::{Cidr, PeerRange};
use super::error::SpecErrors;
use super::keep_alive::KeepAlive;
use super::nearest::quoted;
use super::net_addr::{AnyHost, Carries, NetAddr, Network};
use super::raw;
use super::read::{Format, parse, read_and_check};
use super::sockopt::{OnUnsupported, SockOptions};
use super::tls::TlsServerSpec;
use super::unix_file::UnixFile;

/// A listener, as checked: every value is in its range, nothing contradicts itself, and every default is filled in.
///
/// Made by [`ListenSpec::from_text`], `TryFrom<&raw::ListenConfig>` or [`ListenSpec::builder`], which obey the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    source: ListenSource,
    peers: PeerRules,
    limits: ConnectionLimits,
    deadlines: Deadlines,
    keep_alive: Option<KeepAlive>,
    sock_options: SockOptions,
    backlog: u32,
    sockets: ListenSockets,
    unix: Option<UnixFile>,
    proxy_protocol: Option<ProxyProtocol>,
    tls: Option<TlsServerSpec>,
}

impl ListenSpec {
    /// Reads and checks a text that is a `ListenConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<ListenSpec, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| ListenSpec::try_from(raw))
    }

    /// Begins a spec in code: this address, with every other field at its default.
    pub fn builder(address: NetAddr<Address>) -> ListenSpecBuilder {
        ListenSpecBuilder { spec: ListenSpec::of(ListenSource::Address(address)) }
    }

    /// Begins a spec in code: the inherited socket of this name in `LISTEN_FDNAMES`, with every other field at its default.
    /// Not on Windows. sd_listen_fds(3).
    pub fn inherited(name: impl Into<String>) -> ListenSpecBuilder {
        ListenSpecBuilder { spec: ListenSpec::of(ListenSource::Inherited(name.into())) }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> ListenSpecBuilder {
        ListenSpecBuilder { spec: self }
    }

    fn of(source: ListenSource) -> ListenSpec {
        let is_unix = source.network().is_some_and(Network::is_unix);
        ListenSpec {
            source,
            peers: PeerRules::default(),
            limits: ConnectionLimits::default(),
            deadlines: Deadlines::default(),
            keep_alive: None,
            sock_options: SockOptions::default(),
            backlog: DEFAULT_BACKLOG,
            sockets: if is_unix { ListenSockets::Shared } else { ListenSockets::PerCore },
            unix: None,
            proxy_protocol: None,
            tls: None,
        }
    }

    /// Where the socket comes from.
    pub fn source(&self) -> &ListenSource {
        &self.source
    }

    /// Which clients are let in.
    pub fn peers(&self) -> &PeerRules {
        &self.peers
    }

    /// How many connections there may be at a time.
    pub fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// How long a connection may take.
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Keep-alive of TCP connections. Default: on, see [`KeepAlive::default`]. `None` for other networks; also for an
    /// inherited socket where the spec says nothing, and then the default holds if it turns out to be TCP.
    pub fn keep_alive(&self) -> Option<KeepAlive> {
        self.keep_alive
    }

    /// Options of the sockets, without those that [`ListenSpec::keep_alive`] stands for. Default: none.
    pub fn sock_options(&self) -> &SockOptions {
        &self.sock_options
    }

    /// Connections that may wait in the kernel for accept: 1 to 65,535. Default 4,096. Linux caps it at
    /// `net.core.somaxconn`. listen(2).
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// How cores share the address. Default: a socket for each core; Unix addresses always have one.
    pub fn sockets(&self) -> ListenSockets {
        self.sockets
    }

    /// The socket's file; `None` where the address has none.
    pub fn unix_file(&self) -> Option<&UnixFile> {
        self.unix.as_ref()
    }

    /// The PROXY protocol that connections begin with. Default `None`: they begin without.
    pub fn proxy_protocol(&self) -> Option<&ProxyProtocol> {
        self.proxy_protocol.as_ref()
    }

    /// TLS with the clients; default `None`: connections are plain. A [`crate::net::tls::TlsListener`] speaks it; a
    /// [`crate::net::Listener`] refuses to listen where it is asked for.
    pub fn tls(&self) -> Option<&TlsServerSpec> {
        self.tls.as_ref()
    }

    /// Protocols to agree on where the spec names none.
    #[must_use]
    pub(super) fn with_default_alpn(mut self, names: &[&str]) -> ListenSpec {
        self.tls = self.tls.map(|tls| tls.with_default_alpn(names));
        self
    }

    /// This spec without its TLS.
    #[must_use]
    pub fn without_tls(&self) -> ListenSpec {
        ListenSpec { tls: None, ..self.clone() }
    }

    /// The sort of socket; `None` where it is inherited.
    pub fn target(&self) -> Option<Target> {
        self.source.target()
    }

    /// Every option of the listening socket, keep-alive and defaults included; and the options that are skipped because such
    /// a socket lacks them. `target` is [`ListenSpec::target`], or what an inherited socket turns out to be.
    ///
    /// # Errors
    /// The options that such a socket lacks and the spec does not let be skipped; never for the spec's own target.
    pub fn socket_options(&self, target: Target) -> Result<(OptSet, Vec<OptFault>), Vec<OptFault>> {
        let mut options = self.sock_options.clone();
        let is_tcp = is_tcp(target);
        if is_tcp {
            defaults_of_tcp(&mut options, target, None);
        }
        if let Some(keep_alive) = self.keep_alive.or(is_tcp.then(KeepAlive::default)) {
            keep_alive.add_to(&mut options);
        }
        options.for_target(target)
    }

    /// The fields in which `other` differs and that need another socket, by their names in the schema.
    ///
    /// A listener cannot take these over while it listens. [`ListenHandle::update`](crate::net::ListenHandle::update) takes
    /// over all others.
    pub fn socket_changes(&self, other: &ListenSpec) -> Vec<&'static str> {
        let changes = [
            ("addr", self.source != other.source),
            ("keep_alive_config", self.keep_alive != other.keep_alive),
            ("sock_option", self.sock_options != other.sock_options),
            ("backlog", self.backlog != other.backlog),
            ("sockets", self.sockets != other.sockets),
            ("unix", self.unix != other.unix),
            ("tls_config", self.tls != other.tls),
        ];
        changes.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::ListenConfig {
        let (addr, inherited) = match &self.source {
            ListenSource::Address(address) => (Some(address.to_string()), None),
            ListenSource::Inherited(name) => (None, Some(name.clone())),
        };
        let texts = |ranges: &[PeerRange]| ranges.iter().map(ToString::to_string).collect();
        let policy = match self.limits.policy {
            LimitPolicy::Wait => raw::LimitPolicy::Wait,
            LimitPolicy::Reject => raw::LimitPolicy::Reject,
        };
        let sockets = match self.sockets {
            ListenSockets::PerCore => raw::ListenSockets::PerCore,
            ListenSockets::Shared => raw::ListenSockets::Shared,
        };
        raw::ListenConfig {
            tls_config: self.tls.as_ref().map(TlsServerSpec::to_raw),
            network: None,
            addr,
            connection_limit: Some(count(self.limits.total)),
            networks: texts(&self.peers.allowed),
            blacklist: Some(false),
            read_deadline: Some(milliseconds(self.deadlines.read)),
            write_deadline: Some(milliseconds(self.deadlines.write)),
            keep_alive_config: self.keep_alive.map(KeepAlive::to_raw),
            sock_option: Some(self.sock_options.to_raw()),
            deny_networks: texts(&self.peers.denied),
            connection_limit_policy: Some(policy.into()),
            connection_limit_per_address: Some(count(self.limits.per_address)),
            connection_deadline: Some(milliseconds(self.deadlines.connection)),
            backlog: Some(i32::try_from(self.backlog).unwrap_or(i32::MAX)),
            sockets: Some(sockets.into()),
            unix: self.unix.as_ref().map(UnixFile::to_raw),
            proxy_protocol: self.proxy_protocol.as_ref().map(ProxyProtocol::to_raw),
            inherited,
        }
    }
}

impl TryFrom<&raw::ListenConfig> for ListenSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::ListenConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.listen_config(raw, "", None);
        check.complete(spec)
    }
}

/// Where a listening socket comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenSource {
    /// It is made, at this address of a network of connections.
    Address(NetAddr<Address>),
    /// Who started the process opened it, under this name (`LISTEN_FDNAMES`); 1 to 255 bytes.
    Inherited(String),
}

impl ListenSource {
    fn target(&self) -> Option<Target> {
        let ListenSource::Address(address) = self else { return None };
        let ip = match address.address() {
            Address::Inet(inet) => Some(inet.ip()),
            Address::Unix(_) | Address::UnixAbstract(_) => None,
        };
        Some(address.network().target(Role::Listener, ip))
    }

    fn network(&self) -> Option<Network> {
        match self {
            ListenSource::Address(address) => Some(address.network()),
            ListenSource::Inherited(_) => None,
        }
    }
}

/// Which clients are let in: see [`crate::net::PeerFilter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRules {
    /// At most 10,000, none twice; none = all.
    pub allowed: Vec<PeerRange>,
    /// At most 10,000, none twice.
    pub denied: Vec<PeerRange>,
}

/// How many connections of a listener there may be at a time. By default there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionLimits {
    /// Of all peers together: 1 to 16,777,216; `None`: no limit.
    pub total: Option<u32>,
    /// From one address: 1 to 16,777,216; `None`: no limit. What is beyond is closed at once, whatever the policy.
    pub per_address: Option<u32>,
    /// What happens to connections beyond `total`.
    pub policy: LimitPolicy,
}

/// What happens to a connection beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitPolicy {
    /// It waits in the kernel until another ends.
    #[default]
    Wait,
    /// It is closed at once.
    Reject,
}

/// How long a connection may take: 1 ms to 24 days each. Default `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deadlines {
    /// For one receive; begins anew with each.
    pub read: Option<Duration>,
    /// For one send; begins anew with each.
    pub write: Option<Duration>,
    /// From accept to the end, whatever happens.
    pub connection: Option<Duration>,
}

/// How cores share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenSockets {
    /// A socket each; the kernel spreads connections over them. On Windows it is as `Shared`.
    PerCore,
    /// One that all take from. On Windows one core accepts, and deals connections out to all.
    Shared,
}

/// The PROXY protocol before a connection's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Which forms are taken. Default: both.
    pub version: ProxyProtocolVersion,
    /// From accept to the end of the header: 1 ms to 24 days. Default 5 s.
    pub timeout: Duration,
    /// Peers whose header is taken, at most 1,000; connections of others are closed. Empty for Unix sockets, whose peers have
    /// no address.
    pub trusted: Vec<PeerRange>,
    /// The longest binary header in bytes, with its extras: 232 to 65,551. Default 4,096.
    pub max_header_bytes: u32,
    /// Connections of a core that may wait for their header, or behind it for accept: 1 to 1,048,576. Default 1,024.
    ///
    /// At the limit the connection that has waited longest for its header is closed: a proxy sends it with the first packet.
    pub max_pending: u32,
}

/// Forms of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    /// Both.
    #[default]
    Any,
    /// The line of text.
    V1,
    /// The binary form.
    V2,
}

impl ProxyProtocol {
    /// The PROXY protocol from these peers, with every other field at its default.
    pub fn new(trusted: impl IntoIterator<Item = PeerRange>) -> Self {
        ProxyProtocol {
            version: ProxyProtocolVersion::Any,
            timeout: Duration::from_secs(5),
            trusted: trusted.into_iter().collect(),
            max_header_bytes: 4_096,
            max_pending: 1_024,
        }
    }

    fn to_raw(&self) -> raw::ProxyProtocolConfig {
        let version = match self.version {
            ProxyProtocolVersion::Any => raw::ProxyProtocolVersion::Any,
            ProxyProtocolVersion::V1 => raw::ProxyProtocolVersion::V1,
            ProxyProtocolVersion::V2 => raw::ProxyProtocolVersion::V2,
        };
        raw::ProxyProtocolConfig {
            version: Some(version.into()),
            timeout: Some(milliseconds(Some(self.timeout))),
            trusted: self.trusted.iter().map(ToString::to_string).collect(),
            max_header_bytes: Some(i32::try_from(self.max_header_bytes).unwrap_or(i32::MAX)),
            max_pending: Some(i32::try_from(self.max_pending).unwrap_or(i32::MAX)),
        }
    }
}

/// A [`ListenSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct ListenSpecBuilder {
    spec: ListenSpec,
}

impl ListenSpecBuilder {
    /// Sets which clients are let in.
    pub fn peers(mut self, peers: PeerRules) -> Self {
        self.spec.peers = peers;
        self
    }

    /// Sets how many connections there may be at a time.
    pub fn limits(mut self, limits: ConnectionLimits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Sets how long a connection may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.spec.deadlines = deadlines;
        self
    }

    /// Sets keep-alive of TCP connections.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.spec.keep_alive = Some(keep_alive);
        self
    }

    /// Sets options of the sockets.
    pub fn sock_options(mut self, options: SockOptions) -> Self {
        self.spec.sock_options = options;
        self
    }

    /// Sets how many connections wait in the kernel.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.spec.backlog = backlog;
        self
    }

    /// Sets how cores share the address.
    pub fn sockets(mut self, sockets: ListenSockets) -> Self {
        self.spec.sockets = sockets;
        self
    }

    /// Sets what is done with the socket's file.
    pub fn unix_file(mut self, file: UnixFile) -> Self {
        self.spec.unix = Some(file);
        self
    }

    /// Sets that connections begin with the PROXY protocol.
    pub fn proxy_protocol(mut self, proxy_protocol: ProxyProtocol) -> Self {
        self.spec.proxy_protocol = Some(proxy_protocol);
        self
    }

    /// Sets TLS with the clients.
    pub fn tls(mut self, tls: TlsServerSpec) -> Self {
        self.spec.tls = Some(tls);
        self
    }

    /// For a whole that is checked later.
    pub(super) fn into_unchecked(self) -> ListenSpec {
        self.spec
    }

    /// Checks the whole and fills the defaults in.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<ListenSpec, SpecErrors> {
        let ListenSpec {
            source, limits, deadlines, keep_alive, sock_options, unix, proxy_protocol, tls, ..
        } = self.spec.clone();
        let spec = ListenSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("addr", spec.source == source);
        check.kept("connection_limit", spec.limits == limits);
        check.kept("read_deadline", spec.deadlines == deadlines);
        check.kept("keep_alive_config", keep_alive.is_none() || spec.keep_alive == keep_alive);
        check.kept("sock_option", sock_options.is_in(&spec.sock_options));
        check.kept("unix", unix.is_none() || spec.unix == unix);
        check.kept("proxy_protocol", spec.proxy_protocol == proxy_protocol);
        check.kept("tls_config", spec.tls == tls);
        check.or(spec)
    }
}

impl Check {
    /// A listener; `address` is one that is written beside the message.
    pub(super) fn listen_config(
        &mut self,
        raw: &raw::ListenConfig,
        path: &str,
        address: Option<NetAddr<Address>>,
    ) -> Option<ListenSpec> {
        let at = |field: &str| join(path, field);
        let source = self.listen_source(raw, path, address);
        let target = source.as_ref().and_then(ListenSource::target);
        let network = source.as_ref().and_then(ListenSource::network);
        let is_unix = network.is_some_and(Network::is_unix);
        let mut sock_options = self.sock_option(raw.sock_option.as_ref(), &at("sock_option"), target);
        let keep_alive = self.listener_keep_alive(raw, path, network, &sock_options);
        if network == Some(Network::Tcp6) && sock_options.set().find(Opt::Ipv6V6only) == Some(&Setting::Off) {
            self.fault(at("sock_option.ipv6_option.v6_only"), "tcp6 takes no IPv4; write tcp for both");
        }
        if let Some(target) = target.filter(|target| is_tcp(*target)) {
            defaults_of_tcp(&mut sock_options, target, network);
        }
        let proxy_protocol =
            raw.proxy_protocol.as_ref().map(|raw| self.proxy_protocol(raw, &at("proxy_protocol"), is_unix));
        if network == Some(Network::UnixPacket) {
            self.no_bounds_of_packets(raw, path, sock_options.set());
        }
        // Without it a Unix socket knows no address of a client.
        let has_addresses = !is_unix || proxy_protocol.is_some();
        let has_file = matches!(&source, Some(ListenSource::Address(address)) if matches!(address.address(), Address::Unix(_)));
        let unix = self.unix_file(raw.unix.as_ref(), &at("unix"), has_file || source.is_none());
        let is_alone = sock_options.set().find(Opt::SoReuseport) == Some(&Setting::Off);
        let sockets = self.listen_sockets(raw, &at("sockets"), is_unix, is_alone);
        let tls = raw.tls_config.as_ref().map(|raw| self.tls_server(raw, &at("tls_config")));
        if tls.is_some() && network.is_some_and(|network| network.carries() == Carries::Sequence) {
            self.fault(at("tls_config"), "unixpacket carries packets, and TLS needs a stream; write unix");
        }
        let spec = ListenSpec {
            peers: self.peer_rules(raw, path, has_addresses),
            limits: self.connection_limits(raw, path, has_addresses),
            deadlines: self.deadlines(raw, path),
            keep_alive,
            sock_options,
            backlog: self.range(at("backlog"), raw.backlog, BACKLOG).unwrap_or(DEFAULT_BACKLOG),
            sockets,
            unix,
            proxy_protocol,
            tls,
            source: source?,
        };
        self.timeouts_agree(raw, path);
        Some(spec)
    }

    /// Connections of `unixpacket` are packet sockets, which keep no deadlines and read no PROXY header.
    fn no_bounds_of_packets(&mut self, raw: &raw::ListenConfig, path: &str, options: &OptSet) {
        let is_limit = |limit: Option<i32>| limit.is_some_and(|limit| limit > 0);
        for (field, is_written) in [
            ("read_deadline", is_limit(raw.read_deadline)),
            ("write_deadline", is_limit(raw.write_deadline)),
            ("connection_deadline", is_limit(raw.connection_deadline)),
            ("proxy_protocol", raw.proxy_protocol.is_some()),
            ("sock_option.so_option.receive_timeout", options.is_on(Opt::SoRcvtimeo)),
            ("sock_option.so_option.send_timeout", options.is_on(Opt::SoSndtimeo)),
        ] {
            if is_written {
                self.fault(join(path, field), "not available for unixpacket");
            }
        }
    }

    fn listen_source(
        &mut self,
        raw: &raw::ListenConfig,
        path: &str,
        address: Option<NetAddr<Address>>,
    ) -> Option<ListenSource> {
        let at = |field: &str| join(path, field);
        let network = match raw.network.as_deref() {
            None | Some("") => None,
            Some(name) => Some(self.parsed(&at("network"), name.parse::<Network>())?),
        };
        let addr = raw.addr.as_deref().filter(|addr| !addr.is_empty());
        let source = match (addr, address, raw.inherited.as_deref()) {
            (Some(_), Some(_), _) => {
                self.fault(at("addr"), "the listener has an address already");
                None
            }
            (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
                self.fault(
                    at("inherited"),
                    "an inherited socket has its address already; leave the other out",
                );
                None
            }
            (None, Some(address), None) => Some(ListenSource::Address(address)),
            (None, None, Some(name)) => {
                let fits = |c: char| c.is_ascii_graphic() && c != ':';
                if !(1..=255).contains(&name.len()) || !name.chars().all(fits) {
                    self.fault(at("inherited"), format!("{} is no name of a socket", quoted(name)));
                }
                if network.is_some() {
                    self.fault(at("network"), "an inherited socket has its network already");
                }
                Some(ListenSource::Inherited(name.to_owned()))
            }
            (None, None, None) => {
                self.fault(at("addr"), "an address is needed: write 127.0.0.1:8080, :8080 or unix:///path");
                None
            }
            (Some(text), None, None) => {
                if let Some(network) = network
                    && text.contains("://")
                {
                    self.fault(at("network"), format!("addr has a network already; leave out {network}"));
                }
                let default = network.unwrap_or(Network::Tcp);
                let parsed = NetAddr::<Address>::parse(text, Some(default), AnyHost::Allowed);
                self.parsed(&at("addr"), parsed).map(ListenSource::Address)
            }
        };
        if let Some(network) = source.as_ref().and_then(ListenSource::network)
            && !matches!(network.carries(), Carries::Stream | Carries::Sequence)
        {
            let field = if raw.network.is_some() { "network" } else { "addr" };
            self.fault(at(field), format!("{network} has no connections; write tcp, unix or unixpacket"));
            return None;
        }
        source
    }

    fn listener_keep_alive(
        &mut self,
        raw: &raw::ListenConfig,
        path: &str,
        network: Option<Network>,
        options: &SockOptions,
    ) -> Option<KeepAlive> {
        let path = join(path, "keep_alive_config");
        let is_tcp = network.is_some_and(Network::is_tcp);
        if network.is_some() && !is_tcp && raw.keep_alive_config.is_some() {
            if options.on_unsupported() == OnUnsupported::Refuse {
                self.fault(path, "only TCP has keep-alive");
                return None;
            }
        } else if !is_tcp && raw.keep_alive_config.is_none() {
            return None;
        }
        Some(self.keep_alive(raw.keep_alive_config.as_ref(), &path, options.set()))
    }

    fn peer_rules(&mut self, raw: &raw::ListenConfig, path: &str, has_addresses: bool) -> PeerRules {
        let networks = self.peer_ranges(&join(path, "networks"), &raw.networks, has_addresses);
        let denied = self.peer_ranges(&join(path, "deny_networks"), &raw.deny_networks, has_addresses);
        if raw.blacklist == Some(true) {
            if !raw.deny_networks.is_empty() {
                self.fault(
                    join(path, "blacklist"),
                    "networks and deny_networks would both be those kept out",
                );
            }
            return PeerRules { allowed: Vec::new(), denied: values(networks) };
        }
        let mut by_prefix: HashMap<Cidr, Vec<&(usize, PeerRange)>> = HashMap::new();
        for entry in &denied {
            by_prefix.entry(entry.1.cidr()).or_default().push(entry);
        }
        for (index, range) in &networks {
            let same = by_prefix.get(&range.cidr()).map(Vec::as_slice).unwrap_or_default();
            if let Some((denial, _)) = same.iter().find(|(_, denial)| denial.covers(range)) {
                let message = format!("never let in: deny_networks[{denial}] keeps out the same");
                self.fault(join(path, &format!("networks[{index}]")), message);
            }
        }
        PeerRules { allowed: values(networks), denied: values(denied) }
    }

    /// Ranges of clients, none twice.
    fn peer_ranges(&mut self, path: &str, texts: &[String], has_addresses: bool) -> Vec<(usize, PeerRange)> {
        if !has_addresses && !texts.is_empty() {
            self.fault(path, "clients of a Unix socket have no address");
            return Vec::new();
        }
        let parse = |text: &str| text.parse::<PeerRange>().map_err(|error| error.to_string());
        let ranges = self.list(path, texts, MAX_RANGES, parse);
        let mut first: HashMap<&PeerRange, usize> = HashMap::new();
        for (index, range) in &ranges {
            if let Some(other) = first.insert(range, *index) {
                self.fault(format!("{path}[{index}]"), format!("written twice, first as {path}[{other}]"));
            }
        }
        ranges
    }

    fn connection_limits(
        &mut self,
        raw: &raw::ListenConfig,
        path: &str,
        has_addresses: bool,
    ) -> ConnectionLimits {
        let mut limit = |field: &str, value: Option<i32>| {
            self.range(join(path, field), value, 0..=MAX_CONNECTIONS).filter(|limit: &u32| *limit > 0)
        };
        let total = limit("connection_limit", raw.connection_limit);
        let per_address = limit("connection_limit_per_address", raw.connection_limit_per_address);
        if per_address.is_some() && !has_addresses {
            self.fault(
                join(path, "connection_limit_per_address"),
                "clients of a Unix socket have no address",
            );
        }
        if let (Some(total), Some(per_address)) = (total, per_address)
            && per_address > total
        {
            let message = format!("{per_address} is more than connection_limit, {total}");
            self.fault(join(path, "connection_limit_per_address"), message);
        }
        let policy = join(path, "connection_limit_policy");
        let policy =
            self.choice(policy, raw.connection_limit_policy, LimitPolicy::default(), |raw| match raw {
                raw::LimitPolicy::Wait => LimitPolicy::Wait,
                raw::LimitPolicy::Reject => LimitPolicy::Reject,
            });
        ConnectionLimits { total, per_address, policy }
    }

    fn deadlines(&mut self, raw: &raw::ListenConfig, path: &str) -> Deadlines {
        let mut span =
            |field: &str, value, unlimited| self.milliseconds(join(path, field), value, unlimited).flatten();
        Deadlines {
            read: span("read_deadline", raw.read_deadline, Unlimited::ZeroOrMinusOne),
            write: span("write_deadline", raw.write_deadline, Unlimited::ZeroOrMinusOne),
            connection: span("connection_deadline", raw.connection_deadline, Unlimited::Zero),
        }
    }

    /// The limit of one operation can be written in two places.
    fn timeouts_agree(&mut self, raw: &raw::ListenConfig, path: &str) {
        let Some(options) = raw.sock_option.as_ref().and_then(|options| options.so_option.as_ref()) else {
            return;
        };
        for (field, deadline, option, timeout) in [
            ("read_deadline", raw.read_deadline, "receive_timeout", options.receive_timeout),
            ("write_deadline", raw.write_deadline, "send_timeout", options.send_timeout),
        ] {
            if let (Some(deadline), Some(timeout)) = (deadline, timeout)
                && deadline != timeout
            {
                let message = format!("sock_option.so_option.{option} says otherwise: {timeout} ms");
                self.fault(join(path, field), message);
            }
        }
    }

    fn listen_sockets(
        &mut self,
        raw: &raw::ListenConfig,
        path: &str,
        is_unix: bool,
        is_alone: bool,
    ) -> ListenSockets {
        let default = if is_unix || is_alone { ListenSockets::Shared } else { ListenSockets::PerCore };
        let sockets = self.choice(path.to_owned(), raw.sockets, default, |raw| match raw {
            raw::ListenSockets::PerCore => ListenSockets::PerCore,
            raw::ListenSockets::Shared => ListenSockets::Shared,
        });
        if is_unix && sockets == ListenSockets::PerCore {
            self.fault(path, "a Unix address has one socket");
        } else if is_alone && sockets == ListenSockets::PerCore {
            self.fault(path, "sock_option.so_option.reuse_port is off, so no socket shares its port");
        }
        sockets
    }

    fn proxy_protocol(&mut self, raw: &raw::ProxyProtocolConfig, path: &str, is_unix: bool) -> ProxyProtocol {
        let mut spec = ProxyProtocol::new([]);
        spec.version = self.choice(join(path, "version"), raw.version, spec.version, |raw| match raw {
            raw::ProxyProtocolVersion::Any => ProxyProtocolVersion::Any,
            raw::ProxyProtocolVersion::V1 => ProxyProtocolVersion::V1,
            raw::ProxyProtocolVersion::V2 => ProxyProtocolVersion::V2,
        });
        let timeout = self.milliseconds(join(path, "timeout"), raw.timeout, Unlimited::Never).flatten();
        spec.timeout = timeout.unwrap_or(spec.timeout);
        let len = self.range(join(path, "max_header_bytes"), raw.max_header_bytes, MAX_HEADER_BYTES);
        spec.max_header_bytes = len.unwrap_or(spec.max_header_bytes);
        let pending = self.range(join(path, "max_pending"), raw.max_pending, 1..=1 << 20);
        spec.max_pending = pending.unwrap_or(spec.max_pending);
        let trusted = join(path, "trusted");
        if !is_unix && raw.trusted.is_empty() {
            self.fault(&trusted, "at least one is needed: who is not trusted could claim any address");
        }
        self.at_most(&trusted, raw.trusted.len(), MAX_TRUSTED);
        spec.trusted = values(self.peer_ranges(&trusted, &raw.trusted, !is_unix));
        spec
    }
}

fn is_tcp(target: Target) -> bool {
    target.kind == Kind::Stream && target.family != Family::Unix
}

/// What a TCP listener has unless the spec says otherwise.
fn defaults_of_tcp(options: &mut SockOptions, target: Target, network: Option<Network>) {
    // A restart does not wait for old connections.
    options.default_to(Opt::SoReuseaddr, true);
    options.default_to(Opt::TcpNodelay, true);
    match (target.family, network) {
        (Family::V6, Some(Network::Tcp6)) => options.default_to(Opt::Ipv6V6only, true),
        (Family::Dual, Some(_)) => options.default_to(Opt::Ipv6V6only, false),
        (Family::V4 | Family::V6 | Family::Dual | Family::Unix, _) => {}
    }
}

/// Zero for no limit.
fn count(limit: Option<u32>) -> i32 {
    limit.map_or(0, |limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

/// Zero for no limit; beyond the range of the message the longest, which the check refuses.
pub(super) fn milliseconds(span: Option<Duration>) -> i32 {
    span.map_or(0, |span| i32::try_from(span.as_millis()).unwrap_or(i32::MAX))
}

const MAX_RANGES: usize = 10_000;
/// From two names of Unix sockets to what the length of a header can say.
const MAX_HEADER_BYTES: RangeInclusive<u64> = 232..=65_551;
const MAX_TRUSTED: usize = 1_000;
const MAX_CONNECTIONS: u64 = 1 << 24;
const BACKLOG: RangeInclusive<u64> = 1..=65_535;
const DEFAULT_BACKLOG: u32 = 4_096;
