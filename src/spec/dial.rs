//! How connections are made, as checked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ringport_platform::sockopt::{Family, Kind, Opt, OptFault, OptSet, Role, Setting, Target};

use super::address::{Address, OriginAddress, request_host};
use super::check::{Check, Unlimited, join, values};
use super::error::SpecErrors;
use super::keep_alive::KeepAlive;
use super::listen::milliseconds;
use super::nearest::quoted;
use super::net_addr::{AnyHost, NetAddr, Network};
use super::raw;
use super::read::{Format, parse, read_and_check};
use super::sockopt::SockOptions;
use super::tls::TlsClientSpec;

/// How to dial, as checked: every value is in its range, nothing contradicts itself, and every default is filled in.
///
/// It does not say where to: one spec serves many targets.
///
/// Made by [`DialSpec::from_text`], `TryFrom<&raw::DialConfig>` or [`DialSpec::builder`], which obey the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialSpec {
    local: Option<NetAddr<Address>>,
    replacements: Vec<Replacement>,
    timeout: Option<Duration>,
    fallback_delay: Option<Duration>,
    keep_alive: KeepAlive,
    sock_options: SockOptions,
    resolver: ResolverSpec,
    proxy_protocol: Option<ProxyProtocolOut>,
    tls: Option<TlsClientSpec>,
}

impl Default for DialSpec {
    /// The kernel chooses the local address, no time limit, the next address is tried after 300 ms, keep-alive is on, the
    /// system's resolver is asked, no TLS.
    fn default() -> Self {
        DialSpec {
            local: None,
            replacements: Vec::new(),
            timeout: None,
            fallback_delay: Some(DEFAULT_FALLBACK_DELAY),
            keep_alive: KeepAlive::default(),
            sock_options: SockOptions::default(),
            resolver: ResolverSpec::default(),
            proxy_protocol: None,
            tls: None,
        }
    }
}

impl DialSpec {
    /// Reads and checks a text that is a `DialConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<DialSpec, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| DialSpec::try_from(raw))
    }

    /// Begins a spec in code: all by default.
    pub fn builder() -> DialSpecBuilder {
        DialSpecBuilder { spec: DialSpec::default() }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> DialSpecBuilder {
        DialSpecBuilder { spec: self }
    }

    /// This spec with a time limit of a whole dial that is `limit`, or its own where that is shorter.
    pub fn within(mut self, limit: Duration) -> DialSpec {
        self.timeout = Some(self.timeout.map_or(limit, |timeout| timeout.min(limit)));
        self
    }

    /// This spec without a cache of names, for callers that keep the addresses themselves.
    pub fn without_cache(mut self) -> DialSpec {
        self.resolver.cache_entries = 0;
        self
    }

    /// The address that connections come from; `None` = the kernel chooses.
    pub fn local(&self) -> Option<&NetAddr<Address>> {
        self.local.as_ref()
    }

    /// Targets that are replaced; at most 1,000, no source twice.
    pub fn replacements(&self) -> &[Replacement] {
        &self.replacements
    }

    /// Where a dial to `target` goes: once replaced, or as it is. No name is looked up. Costs a walk over the
    /// replacements.
    pub fn replaced<'a>(&'a self, target: &'a NetAddr<OriginAddress>) -> &'a NetAddr<OriginAddress> {
        self.replacements.iter().find(|rule| rule.from == *target).map_or(target, |rule| &rule.to)
    }

    /// For a whole dial, look-up and all attempts: 1 ms to 24 days. Default `None`: no limit.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// After how long an attempt is joined by one to the next address: 10 ms to 24 days. Default 300 ms; `None`: each waits
    /// for the end of the one before. RFC 8305 5.
    pub fn fallback_delay(&self) -> Option<Duration> {
        self.fallback_delay
    }

    /// Keep-alive of TCP connections. Default: on, see [`KeepAlive::default`].
    pub fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }

    /// Options of every socket, without those that [`DialSpec::keep_alive`] stands for. Default: none.
    pub fn sock_options(&self) -> &SockOptions {
        &self.sock_options
    }

    /// How names are looked up.
    pub fn resolver(&self) -> &ResolverSpec {
        &self.resolver
    }

    /// The form of the PROXY protocol that connections begin with. Default `None`: they begin without.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocolOut> {
        self.proxy_protocol
    }

    /// TLS over the connections; default `None`: they are plain. A [`crate::net::tls::TlsDialer`] speaks it; a
    /// [`crate::net::Dialer`] refuses to dial where it is asked for.
    pub fn tls(&self) -> Option<&TlsClientSpec> {
        self.tls.as_ref()
    }

    /// Protocols to agree on where the spec names none.
    #[must_use]
    pub(super) fn with_default_alpn(mut self, names: &[&str]) -> DialSpec {
        self.tls = self.tls.map(|tls| tls.with_default_alpn(names));
        self
    }

    /// This spec without its TLS.
    #[must_use]
    pub fn without_tls(&self) -> DialSpec {
        DialSpec { tls: None, ..self.clone() }
    }

    /// Whether packets can be dialled with it.
    pub(crate) fn without_stream(&self) -> Result<(), SpecErrors> {
        let mut check = Check::default();
        if self.tls.is_some() {
            check.fault("tls_config", "TLS needs a stream, and the network carries packets");
        }
        check.or(())
    }

    /// Every option of a socket of this sort, keep-alive and defaults included; and the options that are skipped because such
    /// a socket lacks them.
    ///
    /// # Errors
    /// The options that such a socket lacks and the spec does not let be skipped. The writer of the spec is at fault.
    pub fn socket_options(&self, target: Target) -> Result<(OptSet, Vec<OptFault>), Vec<OptFault>> {
        let mut options = self.sock_options.clone();
        if target.kind == Kind::Stream && target.family != Family::Unix {
            options.default_to(Opt::TcpNodelay, true);
            self.keep_alive.add_to(&mut options);
        }
        options.for_target(target)
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::DialConfig {
        let proxy_protocol = match self.proxy_protocol {
            None => raw::ProxyProtocolOut::Off,
            Some(ProxyProtocolOut::V1) => raw::ProxyProtocolOut::V1,
            Some(ProxyProtocolOut::V2) => raw::ProxyProtocolOut::V2,
        };
        raw::DialConfig {
            tls_config: self.tls.as_ref().map(TlsClientSpec::to_raw),
            local_address: self.local.as_ref().map(ToString::to_string),
            replace_targets: self.replacements.iter().map(ToString::to_string).collect(),
            timeout: Some(milliseconds(self.timeout)),
            fallback_delay: Some(self.fallback_delay.map_or(-1, |delay| milliseconds(Some(delay)))),
            sock_option: Some(self.sock_options.to_raw()),
            local_network: None,
            keep_alive_config: Some(self.keep_alive.to_raw()),
            resolver: Some(self.resolver.to_raw()),
            proxy_protocol: Some(proxy_protocol.into()),
        }
    }
}

impl TryFrom<&raw::DialConfig> for DialSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::DialConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.dial_config(raw, "", None);
        check.or(spec)
    }
}

/// A target that is dialled instead of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replacement {
    from: NetAddr<OriginAddress>,
    to: NetAddr<OriginAddress>,
}

impl Replacement {
    /// `to` is dialled instead of `from`.
    ///
    /// # Errors
    /// In words: the two networks carry different things, or the targets are the same. The caller is at fault.
    pub fn new(from: NetAddr<OriginAddress>, to: NetAddr<OriginAddress>) -> Result<Replacement, String> {
        if from == to {
            return Err("the target is replaced by itself".to_owned());
        }
        if from.network().carries() != to.network().carries() {
            return Err(format!("{} cannot stand in for {}", to.network(), from.network()));
        }
        Ok(Replacement { from, to })
    }

    /// What is asked for.
    pub fn from(&self) -> &NetAddr<OriginAddress> {
        &self.from
    }

    /// What is dialled.
    pub fn to(&self) -> &NetAddr<OriginAddress> {
        &self.to
    }

    /// `(tcp|host:80) > (unix|/path)`. A path may hold blanks.
    pub(super) fn parse(text: &str) -> Result<Replacement, String> {
        let malformed = || {
            format!("{} is no replacement; write (tcp|app.internal:80) > (unix|/run/app.sock)", quoted(text))
        };
        let (from, rest) = text.strip_prefix('(').and_then(split_target).ok_or_else(malformed)?;
        let to = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(malformed)?;
        let target = |text: &str| {
            let (network, address) = text.split_once('|').ok_or_else(malformed)?;
            NetAddr::<OriginAddress>::parse_in(network.parse()?, address)
        };
        Replacement::new(target(from)?, target(to)?)
    }
}

/// As in a spec.
impl std::fmt::Display for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |target: &NetAddr<OriginAddress>| {
            let text = target.to_string();
            text.strip_prefix(&format!("{}://", target.network())).unwrap_or_default().to_owned()
        };
        let (from, to) = (&self.from, &self.to);
        write!(f, "({}|{}) > ({}|{})", from.network(), part(from), to.network(), part(to))
    }
}

/// Cuts a text at the first `) > (`, with any blanks and arrows between the brackets: what is before it, and the rest from
/// the opening bracket on.
fn split_target(text: &str) -> Option<(&str, &str)> {
    text.match_indices(')').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let after = rest.trim_start_matches([' ', '\t', '>']);
        (after.len() < rest.len() && after.starts_with('(')).then(|| (&text[..at], after))
    })
}

/// How names are looked up.
///
/// By default the system's resolver is asked (getaddrinfo(3)), as the system is configured. A whole look-up has `timeout`
/// times `attempts`. It tells no time to live, so its answers are kept for 30 s at most.
///
/// Where any of `servers`, `search`, `ndots` and `hosts_file` differs from the default, names are looked up by ourselves: in
/// the hosts file, then at the servers by UDP, and by TCP where the answer does not fit into a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSpec {
    /// For one question to one server: 1 ms to 24 days. Default 5 s.
    pub timeout: Duration,
    /// Rounds over the servers: 1 to 10. Default 2.
    pub attempts: u32,
    /// Name servers, at most 8. They are asked in this order, but the one that answered last comes first. Empty, the
    /// default: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Domains that short names are tried in, at most 8, in lower case. Empty, the default: those of `/etc/resolv.conf`.
    pub search: Vec<String>,
    /// Names with fewer dots than this are tried in the search domains first, others as they are. At most 15. Default
    /// `None`: what `/etc/resolv.conf` says, else 1.
    pub ndots: Option<u32>,
    /// A file of names that is asked before any server; `None`: no file. Default `/etc/hosts`.
    ///
    /// Each look-up looks whether the file has changed, and reads it again if so. A look-up fails where the file is missing,
    /// unless it is in `/etc`.
    pub hosts_file: Option<PathBuf>,
    /// How many names are kept, each for as long as its answer says: at most 65,536; 0 keeps none. Default 1,024.
    pub cache_entries: u32,
    /// The longest time that an answer is kept: 1 s to 30 days, in whole seconds. Default 1 hour.
    pub cache_max_ttl: Duration,
}

impl Default for ResolverSpec {
    /// The system's resolver, 10 s for a look-up, and 1,024 names kept for an hour at most.
    fn default() -> Self {
        ResolverSpec {
            timeout: Duration::from_secs(5),
            attempts: 2,
            servers: Vec::new(),
            search: Vec::new(),
            ndots: None,
            hosts_file: Some("/etc/hosts".into()),
            cache_entries: 1_024,
            cache_max_ttl: Duration::from_secs(3_600),
        }
    }
}

impl ResolverSpec {
    fn to_raw(&self) -> raw::ResolverConfig {
        let int = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
        raw::ResolverConfig {
            timeout: Some(milliseconds(Some(self.timeout))),
            attempts: int(self.attempts),
            servers: self.servers.iter().map(ToString::to_string).collect(),
            search: self.search.clone(),
            ndots: self.ndots.and_then(int),
            hosts_file: Some(
                self.hosts_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            ),
            cache_entries: int(self.cache_entries),
            cache_max_ttl: Some(i32::try_from(self.cache_max_ttl.as_secs()).unwrap_or(i32::MAX)),
        }
    }
}

/// The form of the PROXY protocol that a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocolOut {
    /// The line of text.
    V1,
    /// The binary form.
    V2,
}

/// A [`DialSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct DialSpecBuilder {
    spec: DialSpec,
}

impl DialSpecBuilder {
    /// Sets the address that connections come from.
    pub fn local(mut self, local: NetAddr<Address>) -> Self {
        self.spec.local = Some(local);
        self
    }

    /// Adds a target that is replaced.
    pub fn replace(mut self, replacement: Replacement) -> Self {
        self.spec.replacements.push(replacement);
        self
    }

    /// Sets the limit of a whole dial; `None` = no limit.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.spec.timeout = timeout;
        self
    }

    /// Sets when an attempt is joined by another; `None` = one after the other.
    pub fn fallback_delay(mut self, delay: Option<Duration>) -> Self {
        self.spec.fallback_delay = delay;
        self
    }

    /// Sets keep-alive of TCP connections.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.spec.keep_alive = keep_alive;
        self
    }

    /// Sets options of every socket.
    pub fn sock_options(mut self, options: SockOptions) -> Self {
        self.spec.sock_options = options;
        self
    }

    /// Sets how names are looked up.
    pub fn resolver(mut self, resolver: ResolverSpec) -> Self {
        self.spec.resolver = resolver;
        self
    }

    /// Sets that connections begin with the PROXY protocol.
    pub fn proxy_protocol(mut self, version: ProxyProtocolOut) -> Self {
        self.spec.proxy_protocol = Some(version);
        self
    }

    /// Sets TLS over the connections.
    pub fn tls(mut self, tls: TlsClientSpec) -> Self {
        self.spec.tls = Some(tls);
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<DialSpec, SpecErrors> {
        let spec = DialSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("local_address", spec.local == self.spec.local);
        check.kept("replace_targets", spec.replacements == self.spec.replacements);
        check.kept("timeout", spec.timeout == self.spec.timeout);
        check.kept("fallback_delay", spec.fallback_delay == self.spec.fallback_delay);
        check.kept("keep_alive_config", spec.keep_alive == self.spec.keep_alive);
        check.kept("sock_option", self.spec.sock_options.is_in(&spec.sock_options));
        check.kept("resolver", spec.resolver == self.spec.resolver);
        check.kept("tls_config", spec.tls == self.spec.tls);
        check.or(spec)
    }
}

impl Check {
    /// How to dial; `target` is the sort of socket that it is for, where that is known.
    pub(super) fn dial_config(
        &mut self,
        raw: &raw::DialConfig,
        path: &str,
        target: Option<Target>,
    ) -> DialSpec {
        let at = |field: &str| join(path, field);
        let defaults = DialSpec::default();
        let local = self.local_address(raw, path);
        let local_target = local.as_ref().map(|local| {
            let ip = match local.address() {
                Address::Inet(inet) => Some(inet.ip()),
                Address::Unix(_) | Address::UnixAbstract(_) => None,
            };
            local.network().target(Role::Dialled, ip)
        });
        let sock_options =
            self.sock_option(raw.sock_option.as_ref(), &at("sock_option"), target.or(local_target));
        self.local_ports(local.as_ref(), &sock_options, &at("sock_option"));
        let keep_alive =
            self.keep_alive(raw.keep_alive_config.as_ref(), &at("keep_alive_config"), sock_options.set());
        let replacements = self.replacements(raw, &at("replace_targets"));
        let timeout = self.milliseconds(at("timeout"), raw.timeout, Unlimited::Zero).flatten();
        let resolver = raw.resolver.as_ref().map(|raw| self.resolver(raw, &at("resolver")));
        let proxy_protocol = self.choice(at("proxy_protocol"), raw.proxy_protocol, None, |raw| match raw {
            raw::ProxyProtocolOut::Off => None,
            raw::ProxyProtocolOut::V1 => Some(ProxyProtocolOut::V1),
            raw::ProxyProtocolOut::V2 => Some(ProxyProtocolOut::V2),
        });
        DialSpec {
            local,
            replacements,
            timeout,
            fallback_delay: self.fallback_delay(raw, at("fallback_delay")).unwrap_or(defaults.fallback_delay),
            keep_alive,
            sock_options,
            resolver: resolver.unwrap_or(defaults.resolver),
            proxy_protocol,
            tls: raw.tls_config.as_ref().map(|raw| self.tls_client(raw, &at("tls_config"))),
        }
    }

    fn local_address(&mut self, raw: &raw::DialConfig, path: &str) -> Option<NetAddr<Address>> {
        let network_path = join(path, "local_network");
        let text = raw.local_address.as_deref().filter(|text| !text.is_empty());
        let network = raw.local_network.as_deref().filter(|network| !network.is_empty());
        let network = network.and_then(|name| self.parsed(&network_path, name.parse::<Network>()));
        let Some(text) = text else {
            if network.is_some() {
                self.fault(network_path, "there is no local_address that it could be the network of");
            }
            return None;
        };
        if let Some(network) = network
            && text.contains("://")
        {
            self.fault(network_path, format!("local_address has a network already; leave out {network}"));
        }
        let default = network.unwrap_or(Network::Tcp);
        let parsed = NetAddr::<Address>::parse(text, Some(default), AnyHost::Refused);
        self.parsed(&join(path, "local_address"), parsed)
    }

    /// Refuses the options that choose a port where the local address has one already.
    fn local_ports(&mut self, local: Option<&NetAddr<Address>>, options: &SockOptions, path: &str) {
        let Some(Address::Inet(inet)) = local.map(NetAddr::address) else { return };
        if inet.port() == 0 {
            return;
        }
        for (opt, field) in [
            (Opt::IpLocalPortRange, "ip_option.local_port_range_lower"),
            (Opt::IpBindAddressNoPort, "ip_option.bind_address_no_port"),
        ] {
            if matches!(options.set().find(opt), Some(Setting::Value(_))) {
                let message =
                    format!("local_address has port {} already, so {opt} has no effect", inet.port());
                self.fault(join(path, field), message);
            }
        }
    }

    fn replacements(&mut self, raw: &raw::DialConfig, path: &str) -> Vec<Replacement> {
        let rules = self.list(path, &raw.replace_targets, MAX_REPLACEMENTS, Replacement::parse);
        let mut first: HashMap<&NetAddr<OriginAddress>, usize> = HashMap::new();
        for (index, rule) in &rules {
            if let Some(other) = first.insert(&rule.from, *index) {
                let message = format!("{} is replaced twice, first by {path}[{other}]", rule.from);
                self.fault(format!("{path}[{index}]"), message);
            }
        }
        values(rules)
    }

    fn fallback_delay(&mut self, raw: &raw::DialConfig, path: String) -> Option<Option<Duration>> {
        match raw.fallback_delay? {
            -1 => Some(None),
            // RFC 8305 5: never below 10 ms.
            delay @ 10.. => self.milliseconds(path, Some(delay), Unlimited::Never),
            delay => {
                let message =
                    format!("{delay} is out of range: 10 ms to 24 days, or -1 for one after the other");
                self.fault(path, message);
                None
            }
        }
    }

    fn resolver(&mut self, raw: &raw::ResolverConfig, path: &str) -> ResolverSpec {
        let at = |field: &str| join(path, field);
        let defaults = ResolverSpec::default();
        let timeout = self.milliseconds(at("timeout"), raw.timeout, Unlimited::Never).flatten();
        let ttl = self.range(at("cache_max_ttl"), raw.cache_max_ttl, 1..=MAX_TTL_SECONDS);
        let hosts_file = match raw.hosts_file.as_deref() {
            None => defaults.hosts_file,
            Some("") => None,
            Some(path) => {
                if path.contains('\0') || path.ends_with('/') {
                    self.fault(at("hosts_file"), format!("{} is no path of a file", quoted(path)));
                }
                Some(path.into())
            }
        };
        ResolverSpec {
            timeout: timeout.unwrap_or(defaults.timeout),
            attempts: self.range(at("attempts"), raw.attempts, 1..=10).unwrap_or(defaults.attempts),
            servers: values(self.list(&at("servers"), &raw.servers, MAX_SERVERS, server)),
            search: values(self.list(&at("search"), &raw.search, MAX_SERVERS, search_domain)),
            ndots: self.range(at("ndots"), raw.ndots, 0..=15),
            hosts_file,
            cache_entries: self
                .range(at("cache_entries"), raw.cache_entries, 0..=65_536)
                .unwrap_or(defaults.cache_entries),
            cache_max_ttl: ttl.map_or(defaults.cache_max_ttl, Duration::from_secs),
        }
    }
}

/// An address with or without a port.
fn server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    let found = alone.or_else(|_| text.parse()).ok().filter(|server| server.port() != 0);
    found.ok_or_else(|| {
        format!("{} is no address of a server; write 192.0.2.53 or [2001:db8::53]:53", quoted(text))
    })
}

fn search_domain(text: &str) -> Result<String, String> {
    let name = request_host(text.strip_suffix('.').unwrap_or(text))?;
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return Err(format!("{} is an address, not a domain", quoted(text)));
    }
    Ok(name)
}

const DEFAULT_FALLBACK_DELAY: Duration = Duration::from_millis(300);
const MAX_REPLACEMENTS: usize = 1_000;
const MAX_SERVERS: usize = 8;
const MAX_TTL_SECONDS: u64 = 30 * 24 * 3_600;
const DNS_PORT: u16 = 53;
