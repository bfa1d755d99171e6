//! nginx and HAProxy: which of them are here, in which versions, and how each is configured for one core.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;
use crate::programs;

/// A server that a distribution packages.
#[derive(Clone, Debug)]
pub(crate) struct Packaged {
    name: &'static str,
    from: From,
    /// `None`: it is not here.
    version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// What is installed.
    Machine,
    /// What `fetch-peers` has unpacked, with the C library that it was built for.
    Debian13,
}

impl Packaged {
    /// What is installed, and Debian 13's.
    pub(crate) fn all(name: &'static str) -> Vec<Packaged> {
        [From::Machine, From::Debian13]
            .map(|from| {
                let mut packaged = Packaged { name, from, version: None };
                packaged.version = packaged.ask_version();
                packaged
            })
            .to_vec()
    }

    /// As tables call it.
    pub(crate) fn label(&self) -> String {
        match (&self.version, self.from) {
            (Some(version), _) => format!("{} {version}", self.name),
            (None, From::Machine) => self.name.to_owned(),
            (None, From::Debian13) => format!("{} (Debian 13's)", self.name),
        }
    }

    /// Its version, with where it is from when that is not the machine.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn ask_version(&self) -> Option<String> {
        let output = self.command().ok()?.arg("-v").output().ok()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        version_in(&String::from_utf8_lossy(&text))
    }

    fn command(&self) -> io::Result<Command> {
        match self.from {
            From::Machine => {
                let path = search_path();
                let here =
                    env::split_paths(&path).map(|folder| folder.join(self.name)).find(|path| path.exists());
                let missing =
                    || io::Error::new(io::ErrorKind::NotFound, format!("{} is not installed", self.name));
                here.map(Command::new).ok_or_else(missing)
            }
            From::Debian13 => {
                let root = programs::benches_target().join("debian13/usr");
                let program = root.join("sbin").join(self.name);
                if !program.exists() {
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        "benches/fetch-peers has not fetched it",
                    ));
                }
                // Its own loader: this machine's C library may be older than the one that it was built for.
                let libraries = root.join("lib/x86_64-linux-gnu");
                let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
                command.arg("--library-path").arg(libraries).arg(program);
                Ok(command)
            }
        }
    }

    /// nginx's module that relays TCP.
    fn stream_module(&self) -> io::Result<PathBuf> {
        let target = programs::benches_target();
        let places = match self.from {
            From::Machine => {
                vec![PathBuf::from("/usr/lib/nginx/modules"), target.join("nginx-stream")]
            }
            From::Debian13 => vec![target.join("debian13/usr/lib/nginx/modules")],
        };
        places
            .into_iter()
            .map(|folder| folder.join("ngx_stream_module.so"))
            .find(|path| path.exists())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "its stream module is not here: benches/fetch-peers fetches it",
                )
            })
    }
}

/// The version in what `-v` prints, without the package's revision, which HAProxy says, too.
fn version_in(text: &str) -> Option<String> {
    let (_, after) = text.lines().next()?.split_once("version")?;
    let version = after.trim_start_matches([':', ' ']).trim_start_matches("nginx/");
    let version = version.split([' ', '-']).next()?;
    (!version.is_empty()).then(|| version.to_owned())
}

/// Debian keeps servers in folders that only root has in its path.
fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

/// nginx that answers by itself.
pub(crate) fn nginx_hello(of: &Packaged, place: &Place) -> io::Result<Command> {
    nginx(of, place, &NGINX.replace("{upstream}", "").replace("{location}", "return 200 \"Hello, world!\";"))
}

/// nginx before an origin.
pub(crate) fn nginx_proxy(of: &Packaged, place: &Place) -> io::Result<Command> {
    nginx(of, place, &NGINX.replace("{upstream}", NGINX_UPSTREAM).replace("{location}", NGINX_PROXY))
}

/// nginx that passes on bytes.
pub(crate) fn nginx_relay(of: &Packaged, place: &Place) -> io::Result<Command> {
    let module = of.stream_module()?;
    nginx(of, place, &NGINX_RELAY.replace("{module}", &module.to_string_lossy()))
}

fn nginx(of: &Packaged, place: &Place, config: &str) -> io::Result<Command> {
    let mut command = of.command()?;
    let config = place.write("nginx.conf", config)?;
    command.arg("-p").arg(Path::new(&place.folder)).args(["-e", "stderr", "-c"]).arg(config);
    Ok(command)
}

/// HAProxy that answers by itself.
pub(crate) fn haproxy_hello(of: &Packaged, place: &Place) -> io::Result<Command> {
    haproxy(of, place, HAPROXY_HELLO)
}

/// HAProxy before an origin.
pub(crate) fn haproxy_proxy(of: &Packaged, place: &Place) -> io::Result<Command> {
    haproxy(of, place, &HAPROXY_PROXY.replace("{splice}", ""))
}

/// HAProxy before an origin, whose bodies the kernel may move, both ways.
pub(crate) fn haproxy_proxy_splice(of: &Packaged, place: &Place) -> io::Result<Command> {
    haproxy(of, place, &HAPROXY_PROXY.replace("{splice}", HAPROXY_SPLICE))
}

/// HAProxy that passes on bytes, by copying them.
pub(crate) fn haproxy_relay(of: &Packaged, place: &Place) -> io::Result<Command> {
    haproxy(of, place, &HAPROXY_RELAY.replace("{splice}", ""))
}

/// HAProxy that passes on bytes by letting the kernel move them, always: of `splice-auto` 2.6 makes no use on some streams.
pub(crate) fn haproxy_relay_splice(of: &Packaged, place: &Place) -> io::Result<Command> {
    haproxy(of, place, &HAPROXY_RELAY.replace("{splice}", HAPROXY_SPLICE))
}

fn haproxy(of: &Packaged, place: &Place, backend: &str) -> io::Result<Command> {
    let mut command = of.command()?;
    let config = place.write("haproxy.cfg", &HAPROXY.replace("{backend}", backend))?;
    command.args(["-q", "-db", "-f"]).arg(config);
    Ok(command)
}

const NGINX: &str = "
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid nginx.pid;
events { worker_connections 19900; multi_accept on; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    tcp_nodelay on;
    sendfile on;
    default_type text/plain;
    {upstream}
    server {
        listen {address} backlog=4096;
        location / { {location} }
    }
}
";

const NGINX_UPSTREAM: &str =
    "upstream origin { server {origin}; keepalive 1024; keepalive_requests 1000000000; }";

/// Buffers above the usual ones, and no files: long answers are neither chopped nor written to a disk.
const NGINX_PROXY: &str =
    "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";
    proxy_buffer_size 16k; proxy_buffers 16 32k; proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;";

const NGINX_RELAY: &str = "
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid nginx.pid;
events { worker_connections 19900; multi_accept on; }
stream { server { listen {address} backlog=4096; tcp_nodelay on; proxy_pass {origin}; } }
";

/// The watchdog is left on: it is what everybody runs.
const HAPROXY: &str = "
global
    nbthread 1
    maxconn 19000
    no strict-limits
defaults
    mode http
    timeout client 300s
    timeout server 300s
    timeout connect 5s
    timeout http-keep-alive 300s
    option http-keep-alive
    http-reuse always
frontend web
    bind {address} backlog 4096
{backend}
";

const HAPROXY_HELLO: &str =
    "    http-request return status 200 content-type text/plain string \"Hello, world!\"";

const HAPROXY_PROXY: &str = "    {splice}
    default_backend origin
backend origin
    {splice}
    server one {origin} maxconn 19000";

const HAPROXY_SPLICE: &str = "option splice-request
    option splice-response";

/// The last `mode` of a section holds; the backend's must be the frontend's.
const HAPROXY_RELAY: &str = "    mode tcp
    {splice}
    default_backend origin
backend origin
    mode tcp
    {splice}
    server one {origin} maxconn 19000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("nginx version: nginx/1.22.1\n", Some("1.22.1")),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/01 - https://haproxy.org/\nStatus: ..",
                Some("2.6.12"),
            ),
            ("HAProxy version 3.0.11\n", Some("3.0.11")),
            ("error while loading shared libraries", None),
            ("", None),
        ] {
            assert_eq!(version_in(text).as_deref(), expected, "{text}");
        }
    }
}
