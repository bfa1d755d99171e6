//! A server of HTTP, as checked.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, Zero, join};
use super::error::SpecErrors;
use super::listen::{ListenSource, ListenSpec};
use super::nearest::quoted;
use super::net_addr::Network;
use super::raw;
use super::read::{Format, parse, read_and_check};

/// A server of HTTP in which ranges hold, nothing contradicts itself and every default is filled in.
///
/// Made by [`HttpServerSpec::from_text`], `TryFrom<&raw::HttpServerConfig>` or [`HttpServerSpec::builder`], which obey the same
/// rules. [`crate::http::Server`] executes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpServerSpec {
    listen: ListenSpec,
    protocols: Vec<HttpProtocol>,
    limits: HttpLimits,
    timeouts: HttpTimeouts,
    sends_date: bool,
}

/// A version of HTTP, as ALPN names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// `h2`.
    Http2,
    /// `http/1.1`, and HTTP/1.0.
    Http1,
}

impl HttpProtocol {
    /// Both, the preferred first.
    pub const ALL: [HttpProtocol; 2] = [HttpProtocol::Http2, HttpProtocol::Http1];

    /// As ALPN names it.
    pub fn name(self) -> &'static str {
        match self {
            HttpProtocol::Http2 => "h2",
            HttpProtocol::Http1 => "http/1.1",
        }
    }
}

/// What a client may make a server hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request line of HTTP/1.1; 256 to 65,535.
    pub request_line_bytes: usize,
    /// Bytes of a head; 256 to 65,535.
    pub header_bytes: usize,
    /// Fields of a head; 1 to 256.
    pub header_count: usize,
    /// Bytes of a request's body, at least 1; `None` = no limit.
    pub body_bytes: Option<u64>,
    /// Requests on one connection, at least 1; `None` = no limit.
    pub requests_per_connection: Option<u64>,
    /// Requests at a time on one connection of HTTP/2; 1 to 65,536.
    pub max_streams: u32,
    /// Bytes of a body of HTTP/2 that nobody has taken; 1 to 2^31-1.
    pub stream_window_bytes: u32,
    /// Those of all bodies of a connection; 65,535 to 2^31-1.
    pub connection_window_bytes: u32,
    /// Bytes of responses that wait before handlers do; 1 to 2^30.
    pub send_buffer_bytes: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            request_line_bytes: 8 * 1024,
            header_bytes: 32 * 1024,
            header_count: 100,
            body_bytes: None,
            requests_per_connection: None,
            max_streams: 100,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1 << 20,
            send_buffer_bytes: 256 * 1024,
        }
    }
}

/// How long a server waits: 1 ms to 30 days each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// For the whole of a head.
    pub header: Duration,
    /// For the next piece of a body that a handler waits for.
    pub body_idle: Duration,
    /// While a client takes nothing.
    pub write_idle: Duration,
    /// Between two requests.
    pub keep_alive_idle: Duration,
    /// For a request from its head to the end of its response; `None` = no limit.
    pub request: Option<Duration>,
    /// For requests in flight at the end; zero = they are cut.
    pub drain: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        HttpTimeouts {
            header: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            write_idle: Duration::from_secs(60),
            keep_alive_idle: Duration::from_secs(75),
            request: None,
            drain: Duration::from_secs(30),
        }
    }
}

impl HttpServerSpec {
    /// Reads and checks a text that is an `HTTPServerConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<Self, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| HttpServerSpec::try_from(raw))
    }

    /// Begins a spec in code: where it listens, with TLS or without, all else by default.
    pub fn builder(listen: ListenSpec) -> HttpServerSpecBuilder {
        let (limits, timeouts) = (HttpLimits::default(), HttpTimeouts::default());
        let protocols = HttpProtocol::ALL.to_vec();
        let spec = HttpServerSpec { listen, protocols, limits, timeouts, sends_date: true };
        HttpServerSpecBuilder { spec }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> HttpServerSpecBuilder {
        HttpServerSpecBuilder { spec: self }
    }

    /// Where it listens; with TLS, ALPN is what [`HttpServerSpec::protocols`] says.
    pub fn listen(&self) -> &ListenSpec {
        &self.listen
    }

    /// What it speaks, the preferred first; at least one.
    pub fn protocols(&self) -> &[HttpProtocol] {
        &self.protocols
    }

    /// Whether it speaks that.
    pub fn speaks(&self, protocol: HttpProtocol) -> bool {
        self.protocols.contains(&protocol)
    }

    /// What a client may make it hold.
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    /// How long it waits.
    pub fn timeouts(&self) -> &HttpTimeouts {
        &self.timeouts
    }

    /// Whether responses have `Date`.
    pub fn sends_date(&self) -> bool {
        self.sends_date
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::HttpServerConfig {
        let HttpLimits {
            request_line_bytes,
            header_bytes,
            header_count,
            body_bytes,
            requests_per_connection,
            max_streams,
            stream_window_bytes,
            connection_window_bytes,
            send_buffer_bytes,
        } = self.limits;
        let timeouts = &self.timeouts;
        raw::HttpServerConfig {
            listen_config: Some(self.listen.to_raw()),
            protocols: self.protocols.iter().map(|protocol| protocol.name().to_owned()).collect(),
            limits: Some(raw::HttpServerLimits {
                request_line_bytes: Some(request_line_bytes as u64),
                header_bytes: Some(header_bytes as u64),
                header_count: Some(u32::try_from(header_count).unwrap_or(u32::MAX)),
                body_bytes,
                requests_per_connection,
                max_streams: Some(max_streams),
                stream_window_bytes: Some(stream_window_bytes.into()),
                connection_window_bytes: Some(connection_window_bytes.into()),
                send_buffer_bytes: Some(send_buffer_bytes as u64),
            }),
            timeouts: Some(raw::HttpServerTimeouts {
                header: duration(timeouts.header),
                body_idle: duration(timeouts.body_idle),
                write_idle: duration(timeouts.write_idle),
                keep_alive_idle: duration(timeouts.keep_alive_idle),
                request: duration(timeouts.request.unwrap_or(Duration::ZERO)),
                drain: duration(timeouts.drain),
            }),
            omit_date: !self.sends_date,
        }
    }
}

impl TryFrom<&raw::HttpServerConfig> for HttpServerSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::HttpServerConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.http_server(raw, "");
        check.complete(spec)
    }
}

/// An [`HttpServerSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct HttpServerSpecBuilder {
    spec: HttpServerSpec,
}

impl HttpServerSpecBuilder {
    /// Sets what it speaks, the preferred first.
    pub fn protocols(mut self, protocols: impl Into<Vec<HttpProtocol>>) -> Self {
        self.spec.protocols = protocols.into();
        self
    }

    /// Sets what a client may make it hold.
    pub fn limits(mut self, limits: HttpLimits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Sets how long it waits.
    pub fn timeouts(mut self, timeouts: HttpTimeouts) -> Self {
        self.spec.timeouts = timeouts;
        self
    }

    /// Leaves `Date` out of responses: the machine's clock is not set.
    pub fn omit_date(mut self) -> Self {
        self.spec.sends_date = false;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<HttpServerSpec, SpecErrors> {
        let spec = HttpServerSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("protocols", spec.protocols == self.spec.protocols);
        check.kept("limits", spec.limits == self.spec.limits);
        check.kept("timeouts", spec.timeouts == self.spec.timeouts);
        let (listen, written) = (&spec.listen, &self.spec.listen);
        check.kept("listen_config.addr", listen.source() == written.source());
        check.kept("listen_config.connection_limit", listen.limits() == written.limits());
        check.kept("listen_config.read_deadline", listen.deadlines() == written.deadlines());
        check.or(spec)
    }
}

impl Check {
    pub(super) fn http_server(&mut self, raw: &raw::HttpServerConfig, path: &str) -> Option<HttpServerSpec> {
        let protocols = self.http_protocols(&raw.protocols, &join(path, "protocols"));
        let limits = self.http_limits(&raw.limits.unwrap_or_default(), &join(path, "limits"));
        let timeouts = self.http_timeouts(&raw.timeouts.unwrap_or_default(), &join(path, "timeouts"));
        let at = join(path, "listen_config");
        let Some(listen) = &raw.listen_config else {
            self.fault(at, "a server needs to know where it listens");
            return None;
        };
        let listen = self.listen_config(listen, &at, None)?;
        if let ListenSource::Address(address) = listen.source()
            && address.network() == Network::UnixPacket
        {
            self.fault(join(&at, "addr"), "HTTP/1.1 and HTTP/2 are streams of bytes: unixpacket has none");
        }
        let names: Vec<&str> = protocols.iter().map(|protocol| protocol.name()).collect();
        let listen = listen.with_default_alpn(&names);
        if listen.tls().is_some_and(|tls| tls.common().alpn != names) {
            let message = format!("it has to be what protocols says: {}", names.join(", "));
            self.fault(join(&at, "tls_config.next_protos"), message);
        }
        Some(HttpServerSpec { listen, protocols, limits, timeouts, sends_date: !raw.omit_date })
    }

    fn http_protocols(&mut self, names: &[String], path: &str) -> Vec<HttpProtocol> {
        let mut protocols = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match HttpProtocol::ALL.into_iter().find(|protocol| protocol.name() == name) {
                Some(known) if protocols.contains(&known) => {
                    self.fault(format!("{path}[{index}]"), format!("{} is there already", quoted(name)));
                }
                Some(known) => protocols.push(known),
                None => {
                    let message = format!("{} is not spoken here: h2, http/1.1", quoted(name));
                    self.fault(format!("{path}[{index}]"), message);
                }
            }
        }
        if names.is_empty() { HttpProtocol::ALL.to_vec() } else { protocols }
    }

    fn http_limits(&mut self, raw: &raw::HttpServerLimits, path: &str) -> HttpLimits {
        let defaults = HttpLimits::default();
        let at = |field: &str| join(path, field);
        let requests = raw.requests_per_connection;
        let line = self.range(at("request_line_bytes"), raw.request_line_bytes, HEAD_BYTES);
        let header = self.range(at("header_bytes"), raw.header_bytes, HEAD_BYTES);
        let count = self.range(at("header_count"), raw.header_count, 1..=256);
        let streams = self.range(at("max_streams"), raw.max_streams, 1..=65_536);
        let stream = self.range(at("stream_window_bytes"), raw.stream_window_bytes, 1..=MAX_WINDOW);
        let window = 65_535..=MAX_WINDOW;
        let connection = self.range(at("connection_window_bytes"), raw.connection_window_bytes, window);
        let send = self.range(at("send_buffer_bytes"), raw.send_buffer_bytes, 1..=1 << 30);
        HttpLimits {
            request_line_bytes: line.unwrap_or(defaults.request_line_bytes),
            header_bytes: header.unwrap_or(defaults.header_bytes),
            header_count: count.unwrap_or(defaults.header_count),
            body_bytes: self.range(at("body_bytes"), raw.body_bytes, 1..=u64::MAX),
            requests_per_connection: self.range(at("requests_per_connection"), requests, 1..=u64::MAX),
            max_streams: streams.unwrap_or(defaults.max_streams),
            stream_window_bytes: stream.unwrap_or(defaults.stream_window_bytes),
            connection_window_bytes: connection.unwrap_or(defaults.connection_window_bytes),
            send_buffer_bytes: send.unwrap_or(defaults.send_buffer_bytes),
        }
    }

    fn http_timeouts(&mut self, raw: &raw::HttpServerTimeouts, path: &str) -> HttpTimeouts {
        let defaults = HttpTimeouts::default();
        let mut span = |field: &str, value, zero| self.span(join(path, field), value, zero);
        HttpTimeouts {
            header: span("header", raw.header, Zero::Refused).unwrap_or(defaults.header),
            body_idle: span("body_idle", raw.body_idle, Zero::Refused).unwrap_or(defaults.body_idle),
            write_idle: span("write_idle", raw.write_idle, Zero::Refused).unwrap_or(defaults.write_idle),
            keep_alive_idle: span("keep_alive_idle", raw.keep_alive_idle, Zero::Refused)
                .unwrap_or(defaults.keep_alive_idle),
            request: span("request", raw.request, Zero::Allowed).filter(|span| !span.is_zero()),
            drain: span("drain", raw.drain, Zero::Allowed).unwrap_or(defaults.drain),
        }
    }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Some(prost_types::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() })
}

/// What the head table can hold.
const HEAD_BYTES: RangeInclusive<u64> = 256..=65_535;
/// RFC 9113 6.9.1.
pub(super) const MAX_WINDOW: u64 = (1 << 31) - 1;
