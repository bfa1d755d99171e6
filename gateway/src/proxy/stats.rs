//! What one core's proxy counts, and the Prometheus text of all of them.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringport::net::{ListenHandle, ListenStats};
use ringport_platform::process;
use ringport_platform::stats::{CoreStats, Counter};

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];

/// The counters of one core's proxy. One writer, the core; any number of readers.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct ProxyStats {
    pub connections: Counter,
    pub connections_active: Counter,
    pub connections_paused: Counter,
    pub tls_handshakes: Counter,
    pub tls_failures: Counter,
    pub requests: Counter,
    pub requests_active: Counter,
    /// Final responses by class: 1xx (switches), 2xx, 3xx, 4xx, 5xx.
    pub responses: [Counter; 5],
    pub requests_aborted: Counter,
    pub requests_cut: Counter,
    pub tunnels_active: Counter,
    pub retries: Counter,
    pub origin_connects: Counter,
    pub origin_reused: Counter,
    pub origin_idle: Counter,
    pub origin_shared: Counter,
    pub origin_refused: Counter,
    pub origin_timeouts: Counter,
    pub origin_bad_responses: Counter,
    pub origin_ejections: Counter,
    pub no_origin: Counter,
    pub shortages: Counter,
    pub log_dropped: Counter,
    pub config_reloads: Counter,
    pub config_reload_failures: Counter,
    latency_us_sum: Counter,
    latency_buckets: [Counter; BUCKETS_US.len() + 1],
}

impl ProxyStats {
    /// Counts a final response.
    pub(crate) fn responded(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.responses[class].inc();
        let micros = took.as_secs().saturating_mul(1_000_000).saturating_add(took.subsec_micros().into());
        self.latency_us_sum.add(micros);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        self.latency_buckets[bucket].inc();
    }
}

/// The counters of a whole gateway: one pair a core, those of the access log's writer and of the main thread, and those of
/// listeners.
#[derive(Clone)]
pub(super) struct Sources {
    pub cores: Vec<Arc<CoreStats>>,
    pub proxies: Vec<Arc<ProxyStats>>,
    pub listeners: ListenerStats,
}

/// The listeners that there are, by name. Locked as they change and as they are looked at.
#[derive(Clone, Default)]
pub(super) struct ListenerStats(Arc<Mutex<Vec<(String, ListenHandle)>>>);

impl ListenerStats {
    /// These and no others.
    pub(super) fn set(&self, listeners: Vec<(String, ListenHandle)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    fn render(&self, out: &mut String) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, help, pick) in LISTENER_SERIES {
            header(out, name, "counter", help);
            for (listener, handle) in &listeners {
                let value = pick(&handle.stats());
                line(out, format_args!("ringport_{name}{{listener=\"{listener}\"}} {value}"));
            }
        }
    }
}

impl Sources {
    /// Everything in Prometheus text format 0.0.4.
    pub(super) fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        for (name, kind, help, pick) in SERIES {
            self.series(&mut out, name, kind, help, pick);
        }
        self.responses(&mut out);
        self.latency(&mut out);
        self.listeners.render(&mut out);
        self.core_counters(&mut out);
        self.process(&mut out);
        out
    }

    fn series(
        &self,
        out: &mut String,
        name: &str,
        kind: &str,
        help: &str,
        pick: &fn(&ProxyStats) -> &Counter,
    ) {
        let total: u64 = self.proxies.iter().map(|proxy| pick(proxy).load()).sum();
        header(out, name, kind, help);
        line(out, format_args!("ringport_{name} {total}"));
    }

    fn responses(&self, out: &mut String) {
        header(out, "responses_total", "counter", "Final responses to clients by class of status.");
        for class in 0..5 {
            let total: u64 = self.proxies.iter().map(|proxy| proxy.responses[class].load()).sum();
            line(out, format_args!("ringport_responses_total{{class=\"{}xx\"}} {total}", class + 1));
        }
    }

    fn latency(&self, out: &mut String) {
        header(out, "request_seconds", "histogram", "From a request's head to the end of its response.");
        let mut running = 0;
        for bucket in 0..=BUCKETS_US.len() {
            running += self.proxies.iter().map(|proxy| proxy.latency_buckets[bucket].load()).sum::<u64>();
            let bound =
                BUCKETS_US.get(bucket).map_or("+Inf".to_owned(), |us| format!("{}", *us as f64 / 1e6));
            line(out, format_args!("ringport_request_seconds_bucket{{le=\"{bound}\"}} {running}"));
        }
        let sum: u64 = self.proxies.iter().map(|proxy| proxy.latency_us_sum.load()).sum();
        line(out, format_args!("ringport_request_seconds_sum {}", sum as f64 / 1e6));
        line(out, format_args!("ringport_request_seconds_count {running}"));
    }

    fn core_counters(&self, out: &mut String) {
        let per_core: Vec<_> = self.cores.iter().map(|core| core.entries()).collect();
        let Some(first) = per_core.first() else { return };
        for (at, (name, help, _)) in first.iter().enumerate() {
            let kind = if help.ends_with("(gauge).") { "gauge" } else { "counter" };
            header(out, &format!("core_{name}"), kind, help);
            for (core, entries) in per_core.iter().enumerate() {
                line(out, format_args!("ringport_core_{name}{{core=\"{core}\"}} {}", entries[at].2));
            }
        }
    }

    fn process(&self, out: &mut String) {
        header(out, "cores", "gauge", "Cores that serve.");
        line(out, format_args!("ringport_cores {}", self.cores.len()));
        // What the system does not tell is left out.
        if let Ok(count) = process::open_fd_count() {
            header(out, "process_open_fds", "gauge", "Descriptors that are open; on Windows handles.");
            line(out, format_args!("ringport_process_open_fds {count}"));
        }
        if let Ok(bytes) = process::current_rss_bytes() {
            header(out, "process_resident_bytes", "gauge", "Memory that is resident.");
            line(out, format_args!("ringport_process_resident_bytes {bytes}"));
        }
    }
}

type Series = (&'static str, &'static str, &'static str, fn(&ProxyStats) -> &Counter);

const SERIES: &[Series] = &[
    ("connections_total", "counter", "Client connections accepted.", |s| &s.connections),
    ("connections_active", "gauge", "Client connections open.", |s| &s.connections_active),
    ("connections_paused_total", "counter", "Times accepting waited because of the connection limit.", |s| {
        &s.connections_paused
    }),
    ("tls_handshakes_total", "counter", "TLS handshakes with clients that ended.", |s| &s.tls_handshakes),
    ("tls_failures_total", "counter", "TLS handshakes with clients that failed, or took too long.", |s| {
        &s.tls_failures
    }),
    ("requests_total", "counter", "Requests whose head was complete.", |s| &s.requests),
    ("requests_active", "gauge", "Requests being answered.", |s| &s.requests_active),
    ("requests_aborted_total", "counter", "Requests cut off before their response was complete.", |s| {
        &s.requests_aborted
    }),
    ("requests_cut_total", "counter", "Requests cut by the end of the process.", |s| &s.requests_cut),
    ("tunnels_active", "gauge", "Upgraded and CONNECT tunnels open.", |s| &s.tunnels_active),
    ("retries_total", "counter", "Requests sent again to an origin.", |s| &s.retries),
    ("origin_connects_total", "counter", "Connections made to origins.", |s| &s.origin_connects),
    ("origin_reused_total", "counter", "Requests on a connection that was kept.", |s| &s.origin_reused),
    ("origin_idle", "gauge", "Kept connections to origins that wait.", |s| &s.origin_idle),
    ("origin_shared", "gauge", "Connections of HTTP/2 to origins, shared by requests.", |s| &s.origin_shared),
    ("origin_refused_total", "counter", "Failed connects to origins.", |s| &s.origin_refused),
    ("origin_timeouts_total", "counter", "Origins that were too slow to connect or answer.", |s| {
        &s.origin_timeouts
    }),
    ("origin_bad_responses_total", "counter", "Origins that broke off or answered nonsense.", |s| {
        &s.origin_bad_responses
    }),
    ("origin_ejections_total", "counter", "Times an origin was left out after failures.", |s| {
        &s.origin_ejections
    }),
    ("no_origin_total", "counter", "Requests for which no origin was in.", |s| &s.no_origin),
    (
        "shortages_total",
        "counter",
        "Requests that got no connection for want of descriptors or memory.",
        |s| &s.shortages,
    ),
    (
        "log_dropped_total",
        "counter",
        "Access log lines lost: the log was slow, or could not be written.",
        |s| &s.log_dropped,
    ),
    ("config_reloads_total", "counter", "Configs that SIGHUP has put into effect.", |s| &s.config_reloads),
    (
        "config_reload_failures_total",
        "counter",
        "Configs that SIGHUP found faults in; the one before stayed.",
        |s| &s.config_reload_failures,
    ),
];

type ListenerSeries = (&'static str, &'static str, fn(&ListenStats) -> u64);

const LISTENER_SERIES: &[ListenerSeries] = &[
    ("listener_accepted_total", "Connections that a listener let in.", |s| s.accepted),
    (
        "listener_denied_total",
        "Closed: the lists of clients keep them out, or nobody trusts their header.",
        |s| s.denied,
    ),
    ("listener_over_limit_total", "Closed: the listener had as many as it may.", |s| s.over_limit),
    (
        "listener_over_limit_per_address_total",
        "Closed: there were as many from their address as may be.",
        |s| s.over_limit_per_address,
    ),
    ("listener_bad_header_total", "Closed: their PROXY header was malformed or ended too soon.", |s| {
        s.bad_header
    }),
    ("listener_late_header_total", "Closed: their PROXY header did not come in time.", |s| s.late_header),
    ("listener_crowded_out_total", "Closed: too many waited for a PROXY header.", |s| s.crowded_out),
];

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP ringport_{name} {help}"));
    line(out, format_args!("# TYPE ringport_{name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
