//! The reverse proxy as checked: what the gateway runs on, and every default.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Address, OriginAddress};
use super::check::Check;
use super::dial::DialSpec;
use super::error::SpecErrors;
use super::listen::ListenSpec;
use super::net_addr::NetAddr;
use super::raw;
use super::read::{Format, parse, read_and_check};
use super::text::to_yaml;

mod check;
mod effective;

use effective::{lost, to_raw, unwritable};

/// What clients may agree on over TLS, the preferred first; what is offered to origins, unless their spec says more.
const CLIENT_PROTOCOLS: &[&str] = &["h2", "http/1.1"];
const ORIGIN_PROTOCOLS: &[&str] = &["http/1.1"];

/// A reverse proxy, as checked: every name refers to something, every value is in its range, and every default is filled in.
///
/// Made by [`ProxySpec::from_text`], [`ProxySpec::check`] or [`ProxySpec::builder`], which obey the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySpec {
    pub(super) listeners: Vec<ListenerSpec>,
    pub(super) routes: Vec<RouteSpec>,
    pub(super) pools: Vec<OriginPoolSpec>,
    pub(super) admin: Option<Address>,
    pub(super) access_log: AccessLog,
    pub(super) runtime: RuntimeSpec,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
}

impl ProxySpec {
    /// Reads and checks a text; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line and column of what is written. Where a part cannot be read, the other parts are
    /// checked all the same. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<ProxySpec, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, ProxySpec::check)
    }

    /// Checks a message, however it was made, and fills in the defaults.
    ///
    /// # Errors
    /// Every fault, by path; [`SpecErrors::locate`] adds lines where there is a text.
    pub fn check(raw: &raw::ProxyConfig) -> Result<ProxySpec, SpecErrors> {
        let mut check = Check::default();
        let spec = check.proxy_config(raw);
        check.or(spec)
    }

    /// Begins a spec in code: no listener, route or pool, all else by default.
    pub fn builder() -> ProxySpecBuilder {
        ProxySpecBuilder {
            spec: ProxySpec {
                listeners: Vec::new(),
                routes: Vec::new(),
                pools: Vec::new(),
                admin: None,
                access_log: AccessLog::default(),
                runtime: RuntimeSpec::default(),
                limits: Limits::default(),
                timeouts: Timeouts::default(),
            },
        }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> ProxySpecBuilder {
        ProxySpecBuilder { spec: self }
    }

    /// Where clients connect; at least one.
    pub fn listeners(&self) -> &[ListenerSpec] {
        &self.listeners
    }

    /// Which requests go where; at least one. Their order has no meaning: the most specific route wins.
    pub fn routes(&self) -> &[RouteSpec] {
        &self.routes
    }

    /// The pools of origins; at least one.
    pub fn pools(&self) -> &[OriginPoolSpec] {
        &self.pools
    }

    /// The pool of this name. Costs a walk over the pools: for start-up.
    pub fn pool(&self, name: &str) -> Option<&OriginPoolSpec> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The administrative endpoint.
    pub fn admin(&self) -> Option<&Address> {
        self.admin.as_ref()
    }

    /// Where a line per request goes.
    pub fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    /// Cores, memory and the kernel interface.
    pub fn runtime(&self) -> &RuntimeSpec {
        &self.runtime
    }

    /// What a client may make the gateway hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How long the gateway waits.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::ProxyConfig {
        to_raw(self)
    }

    /// The spec with the defaults written out, as YAML that [`ProxySpec::from_text`] reads back to an equal one.
    pub fn effective(&self) -> String {
        to_yaml(&self.to_raw())
    }
}

/// A [`ProxySpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct ProxySpecBuilder {
    spec: ProxySpec,
}

impl ProxySpecBuilder {
    /// Adds a listener of streams at an address, all else by default.
    pub fn listener(self, name: impl Into<String>, address: Address) -> Self {
        let builder = ListenSpec::builder(NetAddr::of_stream(address));
        // What is wrong with the address is told with all else, at the end.
        let listen = builder.clone().build().unwrap_or_else(|_| builder.into_unchecked());
        self.listener_spec(name, listen)
    }

    /// Adds a listener.
    pub fn listener_spec(mut self, name: impl Into<String>, listen: ListenSpec) -> Self {
        let listen = listen.with_default_alpn(CLIENT_PROTOCOLS);
        self.spec.listeners.push(ListenerSpec { name: name.into(), listen });
        self
    }

    /// Adds a route.
    pub fn route(mut self, route: RouteSpec) -> Self {
        self.spec.routes.push(route);
        self
    }

    /// Adds a pool.
    pub fn pool(mut self, mut pool: OriginPoolSpec) -> Self {
        for origin in &mut pool.origins {
            origin.dial = origin.dial.clone().with_default_alpn(ORIGIN_PROTOCOLS);
        }
        self.spec.pools.push(pool);
        self
    }

    /// Sets the administrative endpoint.
    pub fn admin(mut self, address: Address) -> Self {
        self.spec.admin = Some(address);
        self
    }

    /// Sets where a line per request goes.
    pub fn access_log(mut self, access_log: AccessLog) -> Self {
        self.spec.access_log = access_log;
        self
    }

    /// Sets cores, memory and the kernel interface.
    pub fn runtime(mut self, runtime: RuntimeSpec) -> Self {
        self.spec.runtime = runtime;
        self
    }

    /// Sets what a client may make the gateway hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Sets how long the gateway waits.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.spec.timeouts = timeouts;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<ProxySpec, SpecErrors> {
        SpecErrors::or(unwritable(&self.spec), ())?;
        let spec = ProxySpec::check(&self.spec.to_raw())?;
        SpecErrors::or(lost(&self.spec, &spec), spec)
    }
}

/// One address on which clients are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Unique among listeners.
    pub name: String,
    /// How; its address is unique among listeners and the administrative endpoint, but for TCP port 0.
    pub listen: ListenSpec,
}

/// Sends the requests that match to a pool; the most specific route wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The hosts that it takes; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// Begins with `/`; compared at segment borders.
    pub path_prefix: String,
    /// Name of a pool of this spec.
    pub pool: String,
    /// What happens to forwarding fields.
    pub forwarded: Forwarded,
    /// Whether the origin sees the client's `Host`.
    pub preserve_host: bool,
    /// Whether CONNECT is passed on, which makes a tunnel past routes and limits; otherwise it is answered with 403.
    pub connect: bool,
    /// Whether the origin is told of the certificate by which the client has proved itself, in `X-Forwarded-Client-Cert`.
    pub client_cert: bool,
}

impl RouteSpec {
    /// Every request to the pool: any host, prefix `/`, forwarding fields appended, `Host` of the origin, no CONNECT.
    pub fn new(pool: impl Into<String>) -> Self {
        RouteSpec {
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            pool: pool.into(),
            forwarded: Forwarded::Append,
            preserve_host: false,
            connect: false,
            client_cert: false,
        }
    }
}

/// Which hosts a route takes. In lower case, IPv6 in brackets, no port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// One or more labels before this name, which is kept without `*.`.
    Suffix(String),
}

/// What happens to `Forwarded` and `X-Forwarded-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarded {
    /// Adds this hop to what the client sent.
    Append,
    /// Drops what the client sent and states this hop only.
    Replace,
    /// Passes what the client sent and adds nothing.
    Off,
}

/// Origins that answer alike, and how connections to them are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPoolSpec {
    /// Unique among pools.
    pub name: String,
    /// At least one, no address twice.
    pub origins: Vec<OriginSpec>,
    /// How a request chooses its origin.
    pub balance: Balance,
    /// Idle connections kept to each origin by each core, at most 65,536; 0 keeps none. Default 64.
    pub max_idle_per_core: usize,
    /// How long an idle connection is kept. Default 55 s, less than the 60 s or more of most origins.
    pub idle_timeout: Duration,
    /// For one attempt to connect. Default 5 s.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the final response. Default 60 s.
    pub response_timeout: Duration,
    /// How often host names are resolved again. Default 30 s; `None`: only at start.
    pub resolve_interval: Option<Duration>,
    /// Attempts after the first, at most 10. Default 1.
    pub retries: u32,
    /// When an origin is left out after failures.
    pub health: HealthSpec,
}

impl OriginPoolSpec {
    /// A pool of these origins, with every other field at its default.
    pub fn new(name: impl Into<String>, origins: impl IntoIterator<Item = OriginAddress>) -> Self {
        OriginPoolSpec {
            name: name.into(),
            origins: origins.into_iter().map(OriginSpec::new).collect(),
            balance: Balance::RoundRobin,
            max_idle_per_core: 64,
            idle_timeout: Duration::from_secs(55),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            resolve_interval: Some(Duration::from_secs(30)),
            retries: 1,
            health: HealthSpec::default(),
        }
    }
}

/// One server behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginSpec {
    /// Where it is.
    pub address: OriginAddress,
    /// How it is dialled.
    pub dial: DialSpec,
    /// Whether it is spoken to by HTTP/2 in the clear, as is known beforehand. Over TLS ALPN decides. Default no.
    pub h2c: bool,
}

impl OriginSpec {
    /// A server that is dialled as any is by default.
    pub fn new(address: OriginAddress) -> Self {
        OriginSpec { address, dial: DialSpec::default(), h2c: false }
    }
}

/// How a request chooses among the origins of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Each in turn, per core.
    RoundRobin,
    /// The origin with the fewest requests of this core in flight.
    LeastConnections,
}

/// When an origin is left out: after `max_fails` failures within `fail_window`, for `ejection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSpec {
    /// At most 1,000; 0 = an origin is never left out.
    pub max_fails: u32,
    /// The time over which failures are counted.
    pub fail_window: Duration,
    /// How long the origin is left out.
    pub ejection: Duration,
}

impl Default for HealthSpec {
    /// 3 failures in 10 s, for 30 s.
    fn default() -> Self {
        HealthSpec { max_fails: 3, fail_window: Duration::from_secs(10), ejection: Duration::from_secs(30) }
    }
}

/// Where a line per request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Cores, memory and the kernel interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSpec {
    /// 1 to 1,024; `None` = all that the process may use.
    pub cores: Option<usize>,
    /// Which kernel interface is used.
    pub driver: DriverChoice,
    /// Receive memory that each core keeps when idle, at most `pool_max_bytes`.
    pub pool_min_bytes: usize,
    /// Receive memory of each core at most, 1 MiB to 4 GiB.
    pub pool_max_bytes: usize,
    /// Whether each thread is pinned to its core.
    pub affinity: bool,
    /// Bytes still to come from which on a body of known length goes from socket to socket; at least 4 KiB.
    ///
    /// Default 64 KiB, which is also what at most comes with a head and is copied. Measured as the proxy's processor time for a
    /// response over loopback, spliced to copied. Over both drivers, with 1 and 8 connections: 96 KiB 0.80 to 1.02, 128 KiB
    /// 0.71 to 0.89, 256 KiB 0.51 to 0.74, 1 MiB 0.25 to 0.53.
    pub splice_min_bytes: u64,
}

impl Default for RuntimeSpec {
    /// All cores, the best driver, 1 to 32 MiB a core, not pinned: a neighbour on the same core must not stop us.
    fn default() -> Self {
        RuntimeSpec {
            cores: None,
            driver: DriverChoice::Auto,
            pool_min_bytes: 1 << 20,
            pool_max_bytes: 32 << 20,
            affinity: false,
            splice_min_bytes: 64 << 10,
        }
    }
}

/// Which kernel interface is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriverChoice {
    /// io_uring where it works, else epoll; on Windows a completion port.
    Auto,
    /// io_uring, or the process does not start.
    Uring,
    /// epoll.
    Epoll,
    /// A completion port of Windows, or the process does not start.
    Iocp,
}

/// What a client may make the gateway hold or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Method, target and version of a request, with the end of the line: 256 to 65,535 bytes. Default 8 KiB.
    pub request_line_bytes: usize,
    /// The whole head of a request, from its first line to the empty line: 256 to 65,535 bytes. Default 32 KiB.
    pub header_bytes: usize,
    /// Field lines of a request: 1 to 256. Default 100.
    pub header_count: usize,
    /// Bytes of the body of one request, at least 1. Default `None`: no limit.
    pub body_bytes: Option<u64>,
    /// Requests on one connection, at least 1. Default `None`: no limit.
    pub requests_per_connection: Option<u64>,
    /// Requests at a time on one connection of HTTP/2: 1 to 65,536. Default 100.
    pub max_streams: u32,
    /// Bytes of a request's body of HTTP/2 that nobody has taken: 1 to 2^31-1. Default 256 KiB.
    pub stream_window_bytes: u32,
    /// Those of all bodies of a connection: 65,535 to 2^31-1. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// Client connections of the process, at least 1. Default `None`: half of the descriptors that it may open, less a
    /// reserve.
    pub max_connections: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line_bytes: 8 << 10,
            header_bytes: 32 << 10,
            header_count: 100,
            body_bytes: None,
            requests_per_connection: None,
            max_streams: 100,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 20,
            max_connections: None,
        }
    }
}

/// How long the gateway waits; 1 ms to 30 days each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head. Default 30 s.
    pub header: Duration,
    /// Between two pieces of a body that is received. Default 60 s.
    pub body_idle: Duration,
    /// While a peer takes nothing of what is sent. Default 60 s.
    pub write_idle: Duration,
    /// Between two requests on one connection. Default 75 s.
    pub keep_alive_idle: Duration,
    /// Without a byte in either direction of an upgraded connection. Default 1 hour; `None`: no limit.
    pub tunnel_idle: Option<Duration>,
    /// For requests in flight when the process is asked to stop; zero cuts them at once. Default 30 s.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            header: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            write_idle: Duration::from_secs(60),
            keep_alive_idle: Duration::from_secs(75),
            tunnel_idle: Some(Duration::from_secs(3600)),
            drain: Duration::from_secs(30),
        }
    }
}
