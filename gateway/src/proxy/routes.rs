//! Which pool a request goes to: the most specific host, then the longest path prefix.

use std::rc::Rc;

use ringport::proto::http1::RequestHead;
use ringport::spec::{Forwarded, HostPattern, ProxySpec};

use super::pool::OriginPool;

/// A route with its pool on this core.
pub(crate) struct Route {
    pub path_prefix: String,
    pub pool: Rc<OriginPool>,
    pub forwarded: Forwarded,
    pub preserve_host: bool,
    pub connect: bool,
    pub client_cert: bool,
}

/// The routes of one core. Hosts are tried exact first, then by the longest suffix, then the routes for every host.
pub(crate) struct Routes {
    hosts: Vec<(HostPattern, Vec<Rc<Route>>)>,
    any: Vec<Rc<Route>>,
    /// Whether any of them tells of certificates.
    tell_certs: bool,
}

impl Routes {
    pub(crate) fn new(spec: &ProxySpec, pools: &[Rc<OriginPool>]) -> Self {
        let tell_certs = spec.routes().iter().any(|route| route.client_cert);
        let mut routes = Routes { hosts: Vec::new(), any: Vec::new(), tell_certs };
        for route in spec.routes() {
            let Some(pool) = pools.iter().find(|pool| pool.name() == route.pool) else { continue };
            let entry = Rc::new(Route {
                path_prefix: route.path_prefix.clone(),
                pool: pool.clone(),
                forwarded: route.forwarded,
                preserve_host: route.preserve_host,
                connect: route.connect,
                client_cert: route.client_cert,
            });
            if route.hosts.is_empty() {
                routes.any.push(entry);
                continue;
            }
            for host in &route.hosts {
                match routes.hosts.iter_mut().find(|(pattern, _)| pattern == host) {
                    Some((_, entries)) => entries.push(entry.clone()),
                    None => routes.hosts.push((host.clone(), vec![entry.clone()])),
                }
            }
        }
        routes.any.sort_by_key(|route| std::cmp::Reverse(route.path_prefix.len()));
        for (_, entries) in &mut routes.hosts {
            entries.sort_by_key(|route| std::cmp::Reverse(route.path_prefix.len()));
        }
        // Exact hosts first, then suffixes from long to short: the first that matches is the most specific.
        routes.hosts.sort_by_key(|(pattern, _)| match pattern {
            HostPattern::Exact(_) => (0, 0),
            HostPattern::Suffix(suffix) => (1, usize::MAX - suffix.len()),
        });
        routes
    }

    /// Whether origins are told of certificates of clients.
    pub(crate) fn tell_certs(&self) -> bool {
        self.tell_certs
    }

    /// The route for a request, or `None` (answered 404).
    pub(crate) fn find(&self, head: &RequestHead) -> Option<&Rc<Route>> {
        let under_prefix =
            |route: &&Rc<Route>| route.path_prefix == "/" || under(head.path(), &route.path_prefix);
        if !self.hosts.is_empty() {
            let host = head.authority().map_or("", host_of);
            let by_host = self.hosts.iter().filter(|(pattern, _)| matches(pattern, host));
            if let Some(route) = by_host.flat_map(|(_, routes)| routes).find(under_prefix) {
                return Some(route);
            }
        }
        self.any.iter().find(under_prefix)
    }
}

/// The host of `host:port`; IPv6 keeps its brackets. A trailing dot names the same host.
fn host_of(authority: &str) -> &str {
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.strip_suffix('.').unwrap_or(host)
}

fn matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
        HostPattern::Suffix(suffix) => {
            let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
            host.len() > suffix.len() + 1
                && host[host.len() - suffix.len() - 1] == b'.'
                && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
    }
}

/// Whether `path` lies at or below `prefix`, segment by segment. `*` and CONNECT's empty path lie below `/` only.
fn under(path: &str, prefix: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::{HostPattern, host_of, matches, under};

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (path, prefix, expected) in [
            ("/", "/", true),
            ("*", "/", true),
            ("/api", "/api", true),
            ("/api/x", "/api", true),
            ("/api/x", "/api/", true),
            ("/api", "/api/", true),
            ("/apix", "/api", false),
            ("/ap", "/api", false),
            ("*", "/api", false),
        ] {
            assert_eq!(under(path, prefix), expected, "{path} under {prefix}");
        }
    }

    #[test]
    fn hosts_match_without_case_port_and_final_dot() {
        let exact = HostPattern::Exact("example.org".to_owned());
        let suffix = HostPattern::Suffix("example.org".to_owned());
        for (authority, by_exact, by_suffix) in [
            ("example.org", true, false),
            ("EXAMPLE.org:8080", true, false),
            ("example.org.", true, false),
            ("a.example.org", false, true),
            ("a.b.Example.ORG:1", false, true),
            ("aexample.org", false, false),
            (".example.org", false, false),
            ("", false, false),
        ] {
            let host = host_of(authority);
            assert_eq!((matches(&exact, host), matches(&suffix, host)), (by_exact, by_suffix), "{authority}");
        }
        assert_eq!(host_of("[::1]:80"), "[::1]");
    }
}
