//! ringport and what it is measured beside: how each is started, in its best documented configuration for one core.

use std::env;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::Kind;

/// Something that is measured.
pub struct Peer {
    /// What the tables call it.
    pub name: &'static str,
    /// What it is asked for.
    pub kind: Kind,
    command: fn(&Place) -> io::Result<Command>,
}

/// Where a peer runs.
pub struct Place {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is behind it.
    pub origin: Option<SocketAddr>,
    /// Its own folder, for configuration and whatever it writes.
    pub folder: PathBuf,
}

/// Everyone, ringport first.
pub const PEERS: &[Peer] = &[
    Peer { name: "ringport-uring", kind: Kind::Echo, command: |place| ringport(place, "echo", "uring") },
    Peer { name: "ringport-epoll", kind: Kind::Echo, command: |place| ringport(place, "echo", "epoll") },
    Peer { name: "tokio", kind: Kind::Echo, command: |place| program(place, "serve-tokio", "echo") },
    Peer { name: "monoio", kind: Kind::Echo, command: |place| program(place, "serve-monoio", "echo") },
    Peer { name: "compio", kind: Kind::Echo, command: |place| program(place, "serve-compio", "echo") },
    Peer {
        name: "tokio-uring",
        kind: Kind::Echo,
        command: |place| program(place, "serve-tokio-uring", "echo"),
    },
    Peer { name: "glommio", kind: Kind::Echo, command: |place| program(place, "serve-glommio", "echo") },
    Peer { name: "bare-loop", kind: Kind::Echo, command: |place| program(place, "serve-bare", "echo") },
    Peer { name: "ringport-uring", kind: Kind::Hello, command: |place| ringport(place, "hello", "uring") },
    Peer { name: "ringport-epoll", kind: Kind::Hello, command: |place| ringport(place, "hello", "epoll") },
    Peer { name: "hyper-tokio", kind: Kind::Hello, command: |place| program(place, "serve-tokio", "hello") },
    Peer { name: "nginx", kind: Kind::Hello, command: |place| nginx(place, "return 200 \"Hello, world!\";") },
    Peer { name: "haproxy", kind: Kind::Hello, command: |place| haproxy(place, HAPROXY_HELLO) },
    Peer { name: "ringport-uring", kind: Kind::Proxy, command: |place| ringport_proxy(place, "uring") },
    Peer { name: "ringport-epoll", kind: Kind::Proxy, command: |place| ringport_proxy(place, "epoll") },
    Peer {
        name: "hyper-util-tokio",
        kind: Kind::Proxy,
        command: |place| proxy_program(place, "serve-tokio"),
    },
    Peer { name: "nginx", kind: Kind::Proxy, command: |place| nginx(place, NGINX_PROXY) },
    Peer { name: "haproxy", kind: Kind::Proxy, command: |place| haproxy(place, HAPROXY_PROXY) },
    Peer { name: "ringport-uring", kind: Kind::Relay, command: |place| ringport_relay(place, "uring") },
    Peer { name: "ringport-epoll", kind: Kind::Relay, command: |place| ringport_relay(place, "epoll") },
    Peer { name: "tokio", kind: Kind::Relay, command: |place| relay_program(place, "serve-tokio") },
    Peer { name: "nginx", kind: Kind::Relay, command: nginx_relay },
    Peer { name: "haproxy", kind: Kind::Relay, command: |place| haproxy(place, HAPROXY_RELAY) },
];

/// A server that runs; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Peer {
    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When it cannot be started, or does not listen within 10 s.
    pub fn start(&self, origin: Option<SocketAddr>) -> io::Result<Server> {
        start(origin, None, self.command)
    }

    /// As [`Peer::start`], bound to a processor.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn start_on(&self, cpu: usize, origin: Option<SocketAddr>) -> io::Result<Server> {
        start(origin, Some(cpu), self.command)
    }
}

/// Starts a command line, in whose words `{port}` and `{origin}` are replaced.
///
/// # Errors
/// As [`Peer::start`].
pub fn start_command(words: &[String], origin: Option<SocketAddr>) -> io::Result<Server> {
    start(origin, None, |place| {
        let origin = origin.map(|origin| origin.to_string()).unwrap_or_default();
        let port = place.address.port().to_string();
        let mut words = words.iter().map(|word| word.replace("{port}", &port).replace("{origin}", &origin));
        let mut command = Command::new(words.next().ok_or_else(|| io::Error::other("an empty command"))?);
        command.args(words);
        Ok(command)
    })
}

fn start(
    origin: Option<SocketAddr>,
    cpu: Option<usize>,
    command: impl FnOnce(&Place) -> io::Result<Command>,
) -> io::Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = env::temp_dir().join(format!("ringport-benches-{}-{}", std::process::id(), address.port()));
    fs::create_dir_all(&folder)?;
    let place = Place { address, origin, folder: folder.clone() };
    let mut command = command(&place)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    if let Some(cpu) = cpu {
        // SAFETY: between fork and exec only a system call is made; nothing is allocated unless it fails.
        unsafe { command.pre_exec(move || ringport_platform::process::pin_to_core(cpu)) };
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().map_err(|error| {
        // Without its folder, which is another on each machine.
        let name = program.rsplit('/').next().unwrap_or(&program);
        io::Error::new(error.kind(), format!("cannot start {name}: {error}"))
    })?;
    let mut server = Server { child, address, folder };
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if let Some(status) = server.child.try_wait()? {
            return Err(io::Error::other(format!("{program} ended: {status}")));
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!("{program} does not listen on {address}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

impl Server {
    /// Its process; servers may have children.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = self.child.id() as libc::pid_t;
        // SAFETY: the group was made for this child, and the child has not been waited for, so that its number is ours.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // What is left of it ends with the group.
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Builds every server in release mode: those of this crate, and the `ringport` binary.
///
/// # Errors
/// When cargo fails.
pub fn build() -> io::Result<()> {
    cargo_build("benches/Cargo.toml", &["--bins"])?;
    cargo_build("Cargo.toml", &[])
}

/// Builds ringport's own servers alone, without the crates of the peers.
///
/// # Errors
/// As [`build`].
pub fn build_ringport() -> io::Result<()> {
    cargo_build("benches/Cargo.toml", &["--no-default-features", "--bin", "serve-ringport"])?;
    cargo_build("Cargo.toml", &[])
}

fn cargo_build(manifest: &str, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--manifest-path"])
        .arg(root().join(manifest))
        .args(arguments)
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the servers could not be built")) }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the repository")
}

fn target(of: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| of.join("target"), PathBuf::from).join("release")
}

fn program(place: &Place, name: &str, work: &str) -> io::Result<Command> {
    let mut command = Command::new(target(&root().join("benches")).join(name));
    command.arg(work).arg(place.address.to_string());
    Ok(command)
}

fn proxy_program(place: &Place, name: &str) -> io::Result<Command> {
    Ok(with_origin(program(place, name, "proxy")?, place))
}

fn relay_program(place: &Place, name: &str) -> io::Result<Command> {
    Ok(with_origin(program(place, name, "relay")?, place))
}

fn ringport_relay(place: &Place, driver: &str) -> io::Result<Command> {
    Ok(with_origin(ringport(place, "relay", driver)?, place))
}

fn with_origin(mut command: Command, place: &Place) -> Command {
    command.arg("--origin").arg(place.origin.map(|origin| origin.to_string()).unwrap_or_default());
    command
}

/// Runs the timers of `ringport` or `tokio` and gives the numbers that they print.
///
/// # Errors
/// When the program cannot be run, or prints something else.
pub fn run_timers(of: &str, cpu: usize, pending: usize) -> io::Result<Vec<f64>> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let place = Place { address: nowhere, origin: None, folder: PathBuf::new() };
    let mut command = program(&place, &format!("serve-{of}"), "timers")?;
    command.arg("--pending").arg(pending.to_string()).stdin(Stdio::null());
    // SAFETY: as in `start`.
    unsafe { command.pre_exec(move || ringport_platform::process::pin_to_core(cpu)) };
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
}

fn ringport(place: &Place, work: &str, driver: &str) -> io::Result<Command> {
    let mut command = program(place, "serve-ringport", work)?;
    command.args(["--driver", driver]);
    Ok(command)
}

fn ringport_proxy(place: &Place, driver: &str) -> io::Result<Command> {
    let config = place.write("ringport.yaml", RINGPORT_PROXY)?;
    let mut command = Command::new(target(root()).join("ringport"));
    command.args(["proxy", "--config"]).arg(config);
    command.env("RINGPORT_DRIVER", driver).env("RUST_LOG", "error");
    Ok(command)
}

fn nginx(place: &Place, location: &str) -> io::Result<Command> {
    let upstream = if place.origin.is_some() { NGINX_UPSTREAM } else { "" };
    let config =
        place.write("nginx.conf", &NGINX.replace("{upstream}", upstream).replace("{location}", location))?;
    let mut command = Command::new("nginx");
    command.env("PATH", search_path()).arg("-p").arg(&place.folder).args(["-e", "stderr", "-c"]).arg(config);
    Ok(command)
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Whether nginx has the module that relays TCP.
pub fn nginx_stream_is_here() -> bool {
    Path::new(NGINX_STREAM).exists()
}

fn nginx_relay(place: &Place) -> io::Result<Command> {
    if !nginx_stream_is_here() {
        return Err(io::Error::other("its stream module is not installed"));
    }
    let config = place.write("nginx.conf", &NGINX_RELAY.replace("{module}", NGINX_STREAM))?;
    let mut command = Command::new("nginx");
    command.env("PATH", search_path()).arg("-p").arg(&place.folder).args(["-e", "stderr", "-c"]).arg(config);
    Ok(command)
}

fn haproxy(place: &Place, backend: &str) -> io::Result<Command> {
    let config = place.write("haproxy.cfg", &HAPROXY.replace("{backend}", backend))?;
    let mut command = Command::new("haproxy");
    command.env("PATH", search_path()).args(["-q", "-db", "-f"]).arg(config);
    Ok(command)
}

/// Debian keeps servers in folders that only root has in its path.
fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

impl Place {
    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        let origin = self.origin.map(|origin| origin.to_string()).unwrap_or_default();
        let text = text.replace("{address}", &self.address.to_string()).replace("{origin}", &origin);
        fs::write(&path, text)?;
        Ok(path)
    }
}

const RINGPORT_PROXY: &str = r#"
listeners: [{ name: web, address: "{address}" }]
routes: [{ pool: origin }]
pools: [{ name: origin, origins: [{ address: "{origin}" }], maxIdlePerCore: 1024 }]
runtime: { cores: 1 }
"#;

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

const NGINX_PROXY: &str =
    "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";";

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

const HAPROXY_HELLO: &str =
    "    http-request return status 200 content-type text/plain string \"Hello, world!\"";

const HAPROXY_PROXY: &str = "    default_backend origin
backend origin
    server one {origin} maxconn 19000";

/// The last `mode` of a section holds; the backend's must be the frontend's.
const HAPROXY_RELAY: &str = "    mode tcp
    option splice-auto
    default_backend origin
backend origin
    mode tcp
    option splice-auto
    server one {origin} maxconn 19000";
