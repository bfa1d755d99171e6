//! The rules of a reverse proxy: message in, checked spec or every fault out.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ringport_platform::sockopt::Role;

use super::super::address::{Address, OriginAddress, request_host};
use super::super::check::{Check, Zero};
use super::super::dial::DialSpec;
use super::super::error::NEVER_REACHED;
use super::super::http_server::MAX_WINDOW;
use super::super::listen::{ListenSource, ListenSpec};
use super::super::nearest::{did_you_mean, quoted};
use super::super::net_addr::{NetAddr, Network};
use super::super::raw;
use super::super::unavailable::{NETWORKS_NOT_IN_PROXY, NOT_IN_PROXY};
use super::{
    AccessLog, Balance, CLIENT_PROTOCOLS, DriverChoice, Forwarded, HealthSpec, HostPattern, Limits,
    ListenerSpec, ORIGIN_PROTOCOLS, OriginPoolSpec, OriginSpec, ProxySpec, RouteSpec, RuntimeSpec, Timeouts,
};

impl Check {
    pub(in super::super) fn proxy_config(&mut self, raw: &raw::ProxyConfig) -> ProxySpec {
        let mut addresses = HashMap::new();
        ProxySpec {
            listeners: self.listeners(&raw.listeners, &mut addresses),
            routes: self.routes(&raw.routes, &raw.pools),
            pools: self.pools(&raw.pools),
            admin: self.admin(raw.admin.as_ref(), &mut addresses),
            access_log: self.access_log(raw.access_log.as_ref()),
            runtime: self.runtime(&raw.runtime.unwrap_or_default()),
            limits: self.limits(&raw.limits.unwrap_or_default()),
            timeouts: self.timeouts(&raw.timeouts.unwrap_or_default()),
        }
    }

    fn listeners(
        &mut self,
        raw: &[raw::Listener],
        addresses: &mut HashMap<Address, String>,
    ) -> Vec<ListenerSpec> {
        self.count("listeners", raw.len(), MAX_LISTENERS);
        self.names("listeners", raw.iter().map(|listener| listener.name.as_str()));
        let mut listeners = Vec::with_capacity(raw.len());
        for (index, listener) in raw.iter().enumerate() {
            let path = format!("listeners[{index}]");
            if let Some(listen) = self.listener(listener, &path, addresses) {
                listeners.push(ListenerSpec { name: listener.name.clone(), listen });
            }
        }
        listeners
    }

    /// The address is written beside the message that says all else, or in it.
    fn listener(
        &mut self,
        raw: &raw::Listener,
        path: &str,
        addresses: &mut HashMap<Address, String>,
    ) -> Option<ListenSpec> {
        let (address_path, config_path) = (format!("{path}.address"), format!("{path}.listen_config"));
        let Some(config) = &raw.listen_config else {
            let address = self.address(address_path, &raw.address, addresses)?;
            return self.listen_config(
                &raw::ListenConfig::default(),
                &config_path,
                Some(NetAddr::of_stream(address)),
            );
        };
        let beside = (!raw.address.is_empty()).then_some(raw.address.as_str());
        let beside = match beside {
            Some(text) => Some(NetAddr::of_stream(self.parsed(&address_path, Address::parse(text))?)),
            None => None,
        };
        self.unavailable(config, &config_path, NOT_IN_PROXY);
        self.proxy_tls(config.tls_config.as_ref(), &config_path);
        let owner = if beside.is_some() { address_path } else { format!("{config_path}.addr") };
        let listen = self.listen_config(config, &config_path, beside)?;
        if let ListenSource::Address(address) = listen.source() {
            if NETWORKS_NOT_IN_PROXY.contains(&address.network()) {
                let message = format!("{} carries packets, and HTTP is a stream", address.network());
                self.fault(&owner, message);
            }
            self.taken(owner, address.address(), addresses);
        }
        Some(listen.with_default_alpn(CLIENT_PROTOCOLS))
    }

    /// What of TLS a proxy does not do.
    fn proxy_tls(&mut self, tls: Option<&raw::TlsConfig>, path: &str) {
        let Some(tls) = tls else { return };
        if tls.max_early_data.is_some_and(|bytes| bytes > 0) {
            let path = format!("{path}.tls_config.max_early_data");
            self.fault(
                path,
                "not available in a proxy yet: what may be replayed needs care of its own (RFC 8470)",
            );
        }
        for (index, name) in tls.next_protos.iter().enumerate() {
            if !CLIENT_PROTOCOLS.contains(&name.as_str()) {
                let path = format!("{path}.tls_config.next_protos[{index}]");
                let known = CLIENT_PROTOCOLS.join(", ");
                self.fault(path, format!("a proxy does not speak {}, only {known}", quoted(name)));
            }
        }
    }

    fn admin(
        &mut self,
        raw: Option<&raw::Admin>,
        addresses: &mut HashMap<Address, String>,
    ) -> Option<Address> {
        let text = raw.map(|admin| admin.address.as_str()).filter(|text| !text.is_empty())?;
        self.address("admin.address".to_owned(), text, addresses)
    }

    /// The address, which must be free; `addresses` tells who has which.
    fn address(
        &mut self,
        path: String,
        text: &str,
        addresses: &mut HashMap<Address, String>,
    ) -> Option<Address> {
        let address = self.parsed(&path, Address::parse(text))?;
        self.taken(path, &address, addresses);
        Some(address)
    }

    fn taken(&mut self, path: String, address: &Address, addresses: &mut HashMap<Address, String>) {
        match addresses.get(address) {
            Some(owner) if address.is_exclusive() => {
                self.fault(path, format!("{address} is already that of {owner}"));
            }
            _ => drop(addresses.insert(address.clone(), path)),
        }
    }

    fn routes(&mut self, raw: &[raw::Route], pools: &[raw::Pool]) -> Vec<RouteSpec> {
        self.count("routes", raw.len(), MAX_ROUTES);
        let known: HashSet<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        let mut taken = HashMap::new();
        let mut suggestions = MAX_SUGGESTIONS;
        let mut routes = Vec::with_capacity(raw.len());
        for (index, route) in raw.iter().enumerate() {
            let path = format!("routes[{index}]");
            if route.pool.is_empty() {
                self.fault(format!("{path}.pool"), "a pool is needed");
            } else if !known.contains(route.pool.as_str()) {
                let hint = if suggestions > 0 {
                    did_you_mean(&route.pool, known.iter().copied())
                } else {
                    String::new()
                };
                suggestions = suggestions.saturating_sub(1);
                self.fault(format!("{path}.pool"), format!("there is no pool {}{hint}", quoted(&route.pool)));
            }
            routes.push(self.route(route, &path, &mut taken));
        }
        routes
    }

    /// `taken` tells which route has which host and prefix.
    fn route(
        &mut self,
        raw: &raw::Route,
        path: &str,
        taken: &mut HashMap<(Option<HostPattern>, String), String>,
    ) -> RouteSpec {
        let defaults = RouteSpec::new(&raw.pool);
        let path_prefix = raw.path_prefix.clone().unwrap_or(defaults.path_prefix);
        if let Err(message) = check_prefix(&path_prefix) {
            self.fault(format!("{path}.path_prefix"), message);
        }
        if raw.hosts.len() > MAX_HOSTS {
            self.fault(
                format!("{path}.hosts"),
                format!("{} are too many: at most {MAX_HOSTS}", raw.hosts.len()),
            );
        }
        let mut hosts = Vec::with_capacity(raw.hosts.len());
        for (index, host) in raw.hosts.iter().enumerate() {
            let host_path = format!("{path}.hosts[{index}]");
            if let Some(host) = self.parsed(&host_path, host_pattern(host)) {
                self.reachable(host_path, (Some(host.clone()), &path_prefix), path, taken);
                hosts.push(host);
            }
        }
        if raw.hosts.is_empty() {
            self.reachable(path.to_owned(), (None, &path_prefix), path, taken);
        }
        let forwarded =
            self.choice(format!("{path}.forwarded"), raw.forwarded, defaults.forwarded, |raw| match raw {
                raw::Forwarded::Append => Forwarded::Append,
                raw::Forwarded::Replace => Forwarded::Replace,
                raw::Forwarded::Off => Forwarded::Off,
            });
        let preserve_host = raw.preserve_host.unwrap_or(defaults.preserve_host);
        let connect = raw.connect.unwrap_or(defaults.connect);
        let client_cert = raw.client_cert.unwrap_or(defaults.client_cert);
        RouteSpec {
            hosts,
            path_prefix,
            pool: raw.pool.clone(),
            forwarded,
            preserve_host,
            connect,
            client_cert,
        }
    }

    fn reachable(
        &mut self,
        fault_path: String,
        (host, path_prefix): (Option<HostPattern>, &str),
        route: &str,
        taken: &mut HashMap<(Option<HostPattern>, String), String>,
    ) {
        // "/api" and "/api/" take the same paths.
        let key = (host, path_prefix.strip_suffix('/').unwrap_or(path_prefix).to_owned());
        match taken.get(&key) {
            Some(owner) if owner == route => self.fault(fault_path, "the host is written twice"),
            Some(owner) => {
                self.fault(fault_path, format!("{NEVER_REACHED}: {owner} has the same host and path_prefix"));
            }
            None => drop(taken.insert(key, route.to_owned())),
        }
    }

    fn pools(&mut self, raw: &[raw::Pool]) -> Vec<OriginPoolSpec> {
        self.count("pools", raw.len(), MAX_POOLS);
        self.names("pools", raw.iter().map(|pool| pool.name.as_str()));
        raw.iter().enumerate().map(|(index, pool)| self.pool(pool, &format!("pools[{index}]"))).collect()
    }

    fn pool(&mut self, raw: &raw::Pool, path: &str) -> OriginPoolSpec {
        let defaults = OriginPoolSpec::new(&raw.name, []);
        let origins = self.origins(&raw.origins, path);
        let health = raw.health.unwrap_or_default();
        let at = |field: &str| format!("{path}.{field}");
        let resolve_interval = self.span(at("resolve_interval"), raw.resolve_interval, Zero::Allowed);
        OriginPoolSpec {
            origins,
            balance: self.choice(at("balance"), raw.balance, defaults.balance, |raw| match raw {
                raw::Balance::RoundRobin => Balance::RoundRobin,
                raw::Balance::LeastConnections => Balance::LeastConnections,
            }),
            max_idle_per_core: self
                .range(at("max_idle_per_core"), raw.max_idle_per_core, 0..=65_536)
                .unwrap_or(defaults.max_idle_per_core),
            idle_timeout: self
                .span(at("idle_timeout"), raw.idle_timeout, Zero::Refused)
                .unwrap_or(defaults.idle_timeout),
            connect_timeout: self
                .span(at("connect_timeout"), raw.connect_timeout, Zero::Refused)
                .unwrap_or(defaults.connect_timeout),
            response_timeout: self
                .span(at("response_timeout"), raw.response_timeout, Zero::Refused)
                .unwrap_or(defaults.response_timeout),
            resolve_interval: resolve_interval.map_or(defaults.resolve_interval, non_zero),
            retries: self.range(at("retries"), raw.retries, 0..=10).unwrap_or(defaults.retries),
            health: self.health(&health, &at("health")),
            ..defaults
        }
    }

    fn origins(&mut self, raw: &[raw::Origin], path: &str) -> Vec<OriginSpec> {
        self.count(&format!("{path}.origins"), raw.len(), MAX_ORIGINS);
        let mut seen = HashSet::new();
        let mut origins = Vec::with_capacity(raw.len());
        for (index, origin) in raw.iter().enumerate() {
            let path = format!("{path}.origins[{index}]");
            let address = self.parsed(&format!("{path}.address"), OriginAddress::parse(&origin.address));
            let dial = self.origin_dial(
                origin.dial_config.as_ref(),
                &format!("{path}.dial_config"),
                address.as_ref(),
            );
            let Some(address) = address else { continue };
            if !seen.insert(address.clone()) {
                self.fault(format!("{path}.address"), format!("{address} is already in this pool"));
            }
            let h2c = origin.h2c.unwrap_or(false);
            self.shared_connections(h2c, &dial, &path);
            origins.push(OriginSpec { address, dial, h2c });
        }
        origins
    }

    fn origin_dial(
        &mut self,
        raw: Option<&raw::DialConfig>,
        path: &str,
        address: Option<&OriginAddress>,
    ) -> DialSpec {
        let Some(raw) = raw else { return DialSpec::default() };
        self.unavailable(raw, path, NOT_IN_PROXY);
        self.proxy_tls(raw.tls_config.as_ref(), path);
        if let Some(resolver) = &raw.resolver {
            self.unavailable(resolver, &format!("{path}.resolver"), NOT_IN_PROXY);
        }
        let target = address.map(|address| match address {
            OriginAddress::Host { host, .. } => Network::Tcp.target(Role::Dialled, host.parse().ok()),
            OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => {
                Network::Unix.target(Role::Dialled, None)
            }
        });
        let dial = self.dial_config(raw, path, target).with_default_alpn(ORIGIN_PROTOCOLS);
        let is_path = matches!(address, Some(OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_)));
        if is_path && dial.tls().is_some_and(|tls| tls.server_name().is_none()) {
            let path = format!("{path}.tls_config.server_name");
            self.fault(path, "it is needed: a socket has no name that a certificate could be for");
        }
        if let (Some(address), Some(local)) = (address, dial.local()) {
            self.local_fits(address, local, &dial, &format!("{path}.local_address"));
        }
        dial
    }

    /// What does not go with connections that requests of several clients share, as those of HTTP/2 are.
    fn shared_connections(&mut self, h2c: bool, dial: &DialSpec, path: &str) {
        if h2c && dial.tls().is_some() {
            let message = "it is HTTP/2 in the clear; over TLS, dial_config.tls_config.next_protos says so";
            self.fault(format!("{path}.h2c"), message);
        }
        let is_http2 = h2c || dial.tls().is_some_and(|tls| tls.common().alpn.iter().any(|name| name == "h2"));
        if is_http2 && dial.proxy_protocol().is_some() {
            let message =
                "it names one client for a connection, and those of HTTP/2 carry requests of several";
            self.fault(format!("{path}.dial_config.proxy_protocol"), message);
        }
    }

    /// A local address of another family than the only target would fail every dial.
    fn local_fits(&mut self, address: &OriginAddress, local: &NetAddr<Address>, dial: &DialSpec, path: &str) {
        let target = NetAddr::of_origin(address.clone());
        let to = dial.replaced(&target);
        let is_same_family = match (to.address(), local.address()) {
            (OriginAddress::Host { host, .. }, Address::Inet(local)) => {
                // A name may have addresses of either family.
                host.parse::<IpAddr>().map_or(true, |ip| ip.is_ipv4() == local.is_ipv4())
            }
            (OriginAddress::Host { .. }, _) | (_, Address::Inet(_)) => false,
            (OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_), _) => true,
        };
        if !is_same_family || local.network().carries() != to.network().carries() {
            self.fault(path, format!("no connection to {to} can come from {local}"));
        }
    }

    fn health(&mut self, raw: &raw::Health, path: &str) -> HealthSpec {
        let defaults = HealthSpec::default();
        let window = self.span(format!("{path}.fail_window"), raw.fail_window, Zero::Refused);
        let ejection = self.span(format!("{path}.ejection"), raw.ejection, Zero::Refused);
        HealthSpec {
            max_fails: self
                .range(format!("{path}.max_fails"), raw.max_fails, 0..=1_000)
                .unwrap_or(defaults.max_fails),
            fail_window: window.unwrap_or(defaults.fail_window),
            ejection: ejection.unwrap_or(defaults.ejection),
        }
    }

    fn access_log(&mut self, raw: Option<&raw::AccessLog>) -> AccessLog {
        match raw.map(|log| log.path.as_str()) {
            None | Some("") => AccessLog::default(),
            Some("off") => AccessLog::Off,
            Some("stdout") => AccessLog::Stdout,
            Some(path) => {
                if path.contains('\0') || path.ends_with('/') {
                    self.fault("access_log.path", format!("{} is no path of a file", quoted(path)));
                }
                AccessLog::File(path.into())
            }
        }
    }

    fn runtime(&mut self, raw: &raw::Runtime) -> RuntimeSpec {
        let defaults = RuntimeSpec::default();
        let cores = self.range("runtime.cores", raw.cores, 0..=1_024).unwrap_or(0);
        let max = self.range("runtime.pool_max_bytes", raw.pool_max_bytes, POOL_BYTES);
        let min = self.range("runtime.pool_min_bytes", raw.pool_min_bytes, 0..=*POOL_BYTES.end());
        let splice_min_bytes = self.range("runtime.splice_min_bytes", raw.splice_min_bytes, 4_096..=u64::MAX);
        // Who sets one of the two means it; the default of the other gives way.
        let pool_max_bytes = max.unwrap_or(defaults.pool_max_bytes.max(min.unwrap_or(0)));
        let pool_min_bytes = min.unwrap_or(defaults.pool_min_bytes.min(pool_max_bytes));
        if pool_min_bytes > pool_max_bytes {
            let message = format!("{pool_min_bytes} is more than pool_max_bytes, {pool_max_bytes}");
            self.fault("runtime.pool_min_bytes", message);
        }
        RuntimeSpec {
            cores: (cores > 0).then_some(cores),
            driver: self.choice("runtime.driver".to_owned(), raw.driver, defaults.driver, |raw| match raw {
                raw::Driver::Auto => DriverChoice::Auto,
                raw::Driver::Uring => DriverChoice::Uring,
                raw::Driver::Epoll => DriverChoice::Epoll,
                raw::Driver::Iocp => DriverChoice::Iocp,
            }),
            pool_min_bytes,
            pool_max_bytes,
            affinity: raw.affinity.unwrap_or(defaults.affinity),
            splice_min_bytes: splice_min_bytes.unwrap_or(defaults.splice_min_bytes),
        }
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let defaults = Limits::default();
        let line = self.range("limits.request_line_bytes", raw.request_line_bytes, HEAD_BYTES);
        let header = self.range("limits.header_bytes", raw.header_bytes, HEAD_BYTES);
        let count = self.range("limits.header_count", raw.header_count, HEADER_COUNT);
        let requests = raw.requests_per_connection;
        let streams = self.range("limits.max_streams", raw.max_streams, 1..=65_536);
        let stream = self.range("limits.stream_window_bytes", raw.stream_window_bytes, 1..=MAX_WINDOW);
        let window = 65_535..=MAX_WINDOW;
        let connection = self.range("limits.connection_window_bytes", raw.connection_window_bytes, window);
        Limits {
            max_streams: streams.unwrap_or(defaults.max_streams),
            stream_window_bytes: stream.unwrap_or(defaults.stream_window_bytes),
            connection_window_bytes: connection.unwrap_or(defaults.connection_window_bytes),
            request_line_bytes: line.unwrap_or(defaults.request_line_bytes),
            header_bytes: header.unwrap_or(defaults.header_bytes),
            header_count: count.unwrap_or(defaults.header_count),
            body_bytes: self.range("limits.body_bytes", raw.body_bytes, 1..=u64::MAX),
            requests_per_connection: self.range("limits.requests_per_connection", requests, 1..=u64::MAX),
            max_connections: self.range("limits.max_connections", raw.max_connections, 1..=usize::MAX as u64),
        }
    }

    fn timeouts(&mut self, raw: &raw::Timeouts) -> Timeouts {
        let defaults = Timeouts::default();
        let mut span = |field: &str, value, zero| self.span(format!("timeouts.{field}"), value, zero);
        Timeouts {
            header: span("header", raw.header, Zero::Refused).unwrap_or(defaults.header),
            body_idle: span("body_idle", raw.body_idle, Zero::Refused).unwrap_or(defaults.body_idle),
            write_idle: span("write_idle", raw.write_idle, Zero::Refused).unwrap_or(defaults.write_idle),
            keep_alive_idle: span("keep_alive_idle", raw.keep_alive_idle, Zero::Refused)
                .unwrap_or(defaults.keep_alive_idle),
            tunnel_idle: span("tunnel_idle", raw.tunnel_idle, Zero::Allowed)
                .map_or(defaults.tunnel_idle, non_zero),
            drain: span("drain", raw.drain, Zero::Allowed).unwrap_or(defaults.drain),
        }
    }
}

fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn host_pattern(text: &str) -> Result<HostPattern, String> {
    match text.strip_prefix("*.") {
        _ if text.is_empty() || text == "*" => Err("for every host, leave hosts out".to_owned()),
        Some(suffix) if suffix.parse::<std::net::Ipv4Addr>().is_ok() || suffix.starts_with('[') => {
            Err(format!("{} is an address, which has no suffix", quoted(text)))
        }
        Some(suffix) => request_host(suffix).map(HostPattern::Suffix),
        None => request_host(text).map(HostPattern::Exact),
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if !prefix.starts_with('/') {
        return Err(format!("{} does not begin with '/'", quoted(prefix)));
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(format!("longer than {MAX_PREFIX_BYTES} bytes"));
    }
    if let Some(stray) = prefix.chars().find(|c| !c.is_ascii_graphic() || "?#\\".contains(*c)) {
        return Err(format!("{stray:?} cannot be in a path; write it percent-encoded"));
    }
    if prefix.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("a \".\" or \"..\" segment never matches".to_owned());
    }
    Ok(())
}

const MAX_LISTENERS: usize = 256;
const MAX_ROUTES: usize = 10_000;
const MAX_HOSTS: usize = 1_000;
const MAX_POOLS: usize = 1_000;
const MAX_ORIGINS: usize = 1_000;
const MAX_PREFIX_BYTES: usize = 4_096;
/// Each compares a name with all pools.
const MAX_SUGGESTIONS: usize = 20;
/// What the table of a head can hold: `proto::http1::Limits`.
const HEAD_BYTES: RangeInclusive<u64> = 256..=65_535;
const HEADER_COUNT: RangeInclusive<u64> = 1..=256;
/// From two chunks of the receive pool to all that it can number.
/// At least 8 chunks: of 2, one lies in what a stuck client leaves unread and one gathers small writes, and nobody
/// receives any more.
const POOL_BYTES: RangeInclusive<u64> = 1 << 20..=4 << 30;
