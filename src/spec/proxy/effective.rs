//! A checked proxy as a message.

use std::path::Path;
use std::time::Duration;

use super::super::address::{Address, OriginAddress};
use super::super::error::{Fault, SpecErrors};
use super::super::listen::ListenSource;
use super::super::raw;
use super::super::unavailable::{NOT_IN_PROXY, clear_unavailable};
use super::{
    AccessLog, Balance, DriverChoice, Forwarded, HostPattern, Limits, ListenerSpec, OriginPoolSpec,
    OriginSpec, ProxySpec, RouteSpec, RuntimeSpec, Timeouts,
};

pub(super) fn to_raw(spec: &ProxySpec) -> raw::ProxyConfig {
    let listeners = spec.listeners.iter();
    raw::ProxyConfig {
        listeners: listeners.map(listener).collect(),
        routes: spec.routes.iter().map(route).collect(),
        pools: spec.pools.iter().map(pool).collect(),
        admin: spec.admin.as_ref().map(|address| raw::Admin { address: address.to_string() }),
        access_log: Some(raw::AccessLog { path: access_log(&spec.access_log) }),
        runtime: Some(runtime(&spec.runtime)),
        limits: Some(limits(&spec.limits)),
        timeouts: Some(timeouts(&spec.timeouts)),
    }
}

/// Parts that were made in code and that no text can hold, so that they would change on the way.
pub(super) fn unwritable(spec: &ProxySpec) -> Vec<Fault> {
    let listeners =
        spec.listeners.iter().enumerate().filter_map(|(i, listener)| match listener.listen.source() {
            ListenSource::Address(address) => {
                Some((format!("listeners[{i}].address"), is_writable(address.address())))
            }
            ListenSource::Inherited(_) => None,
        });
    let admin = spec.admin.iter().map(|address| ("admin.address".to_owned(), is_writable(address)));
    let origins = spec.pools.iter().enumerate().flat_map(|(i, pool)| {
        let origins = pool.origins.iter().enumerate();
        origins.map(move |(j, origin)| {
            (format!("pools[{i}].origins[{j}].address"), is_origin_writable(&origin.address))
        })
    });
    let log = match &spec.access_log {
        AccessLog::File(path) => path.to_str().is_some(),
        AccessLog::Off | AccessLog::Stdout => true,
    };
    let log = std::iter::once(("access_log.path".to_owned(), log));
    let faults = listeners.chain(admin).chain(origins).chain(log).filter(|(_, writable)| !writable);
    let message = "no text can hold this name: it is not UTF-8, is empty, too long or begins with '@'";
    faults.map(|(path, _)| SpecErrors::fault(path, message)).collect()
}

/// Parts that were made in code and that a proxy does not do, so that they would be lost on the way.
pub(super) fn lost(asked: &ProxySpec, checked: &ProxySpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (i, (asked, checked)) in asked.pools.iter().zip(&checked.pools).enumerate() {
        for (j, (asked, checked)) in asked.origins.iter().zip(&checked.origins).enumerate() {
            if asked.dial != checked.dial {
                let path = format!("pools[{i}].origins[{j}].dial_config.resolver");
                let message = "a proxy keeps names as resolve_interval of the pool says";
                faults.push(SpecErrors::fault(path, message));
            }
        }
    }
    faults
}

fn is_writable(address: &Address) -> bool {
    matches!(address, Address::Inet(_)) || Address::parse(&address.to_string()).as_ref() == Ok(address)
}

fn is_origin_writable(address: &OriginAddress) -> bool {
    match address {
        // Names may change their case on the way.
        OriginAddress::Host { host, .. } => !host.eq_ignore_ascii_case("unix"),
        OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_) => {
            OriginAddress::parse(&address.to_string()).as_ref() == Ok(address)
        }
    }
}

fn listener(listener: &ListenerSpec) -> raw::Listener {
    let (name, address) = (listener.name.clone(), String::new());
    raw::Listener { name, address, listen_config: Some(listener.listen.to_raw()) }
}

fn origin(origin: &OriginSpec) -> raw::Origin {
    let mut config = origin.dial.to_raw();
    if let Some(resolver) = &mut config.resolver {
        clear_unavailable(resolver, NOT_IN_PROXY);
    }
    raw::Origin { address: origin.address.to_string(), dial_config: Some(config), h2c: Some(origin.h2c) }
}

fn route(route: &RouteSpec) -> raw::Route {
    let forwarded = match route.forwarded {
        Forwarded::Append => raw::Forwarded::Append,
        Forwarded::Replace => raw::Forwarded::Replace,
        Forwarded::Off => raw::Forwarded::Off,
    };
    let host = |host: &HostPattern| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*.{suffix}"),
    };
    raw::Route {
        hosts: route.hosts.iter().map(host).collect(),
        path_prefix: Some(route.path_prefix.clone()),
        pool: route.pool.clone(),
        forwarded: Some(forwarded.into()),
        preserve_host: Some(route.preserve_host),
        connect: Some(route.connect),
        client_cert: Some(route.client_cert),
    }
}

fn pool(pool: &OriginPoolSpec) -> raw::Pool {
    let balance = match pool.balance {
        Balance::RoundRobin => raw::Balance::RoundRobin,
        Balance::LeastConnections => raw::Balance::LeastConnections,
    };
    raw::Pool {
        name: pool.name.clone(),
        origins: pool.origins.iter().map(origin).collect(),
        balance: Some(balance.into()),
        max_idle_per_core: Some(u32::try_from(pool.max_idle_per_core).unwrap_or(u32::MAX)),
        idle_timeout: Some(duration(pool.idle_timeout)),
        connect_timeout: Some(duration(pool.connect_timeout)),
        response_timeout: Some(duration(pool.response_timeout)),
        resolve_interval: Some(duration(pool.resolve_interval.unwrap_or_default())),
        retries: Some(pool.retries),
        health: Some(raw::Health {
            max_fails: Some(pool.health.max_fails),
            fail_window: Some(duration(pool.health.fail_window)),
            ejection: Some(duration(pool.health.ejection)),
        }),
    }
}

fn access_log(log: &AccessLog) -> String {
    match log {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stdout => "stdout".to_owned(),
        AccessLog::File(path) if path == Path::new("off") || path == Path::new("stdout") => {
            format!("./{}", path.display())
        }
        AccessLog::File(path) => path.display().to_string(),
    }
}

fn runtime(runtime: &RuntimeSpec) -> raw::Runtime {
    let driver = match runtime.driver {
        DriverChoice::Auto => raw::Driver::Auto,
        DriverChoice::Uring => raw::Driver::Uring,
        DriverChoice::Epoll => raw::Driver::Epoll,
        DriverChoice::Iocp => raw::Driver::Iocp,
    };
    raw::Runtime {
        cores: Some(u32::try_from(runtime.cores.unwrap_or(0)).unwrap_or(u32::MAX)),
        driver: Some(driver.into()),
        pool_min_bytes: Some(runtime.pool_min_bytes as u64),
        pool_max_bytes: Some(runtime.pool_max_bytes as u64),
        affinity: Some(runtime.affinity),
        splice_min_bytes: Some(runtime.splice_min_bytes),
    }
}

fn limits(limits: &Limits) -> raw::Limits {
    raw::Limits {
        request_line_bytes: Some(limits.request_line_bytes as u64),
        header_bytes: Some(limits.header_bytes as u64),
        header_count: Some(u32::try_from(limits.header_count).unwrap_or(u32::MAX)),
        body_bytes: limits.body_bytes,
        requests_per_connection: limits.requests_per_connection,
        max_streams: Some(limits.max_streams),
        stream_window_bytes: Some(limits.stream_window_bytes.into()),
        connection_window_bytes: Some(limits.connection_window_bytes.into()),
        max_connections: limits.max_connections.map(|count| count as u64),
    }
}

fn timeouts(timeouts: &Timeouts) -> raw::Timeouts {
    raw::Timeouts {
        header: Some(duration(timeouts.header)),
        body_idle: Some(duration(timeouts.body_idle)),
        write_idle: Some(duration(timeouts.write_idle)),
        keep_alive_idle: Some(duration(timeouts.keep_alive_idle)),
        tunnel_idle: Some(duration(timeouts.tunnel_idle.unwrap_or_default())),
        drain: Some(duration(timeouts.drain)),
    }
}

/// Beyond the range of the message the longest one, which the check refuses.
fn duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    // Below 10^9, which fits.
    prost_types::Duration { seconds, nanos: duration.subsec_nanos() as i32 }
}
