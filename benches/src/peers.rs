//! ringport and what it is measured beside: how each is started, in its best documented configuration for one core.

mod packaged;

use std::env;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringport_platform::driver::{Mechanism, Mechanisms};

use crate::load::Kind;
use crate::programs;
use crate::stop;
use packaged::Packaged;

/// Something that is measured.
pub struct Peer {
    /// What the tables call it.
    pub name: String,
    /// What it is asked for.
    pub kind: Kind,
    command: Box<HowToStart>,
    /// What ends it, and its children with it, when who started it has died.
    ended_by: libc::c_int,
}

type HowToStart = dyn Fn(&Place) -> io::Result<Command>;

/// Where a peer runs.
pub struct Place {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is behind it.
    pub origin: Option<SocketAddr>,
    /// Its own folder, for configuration and whatever it writes.
    pub folder: PathBuf,
}

/// Everyone who is asked for this, ringport first. What is not here is among them: starting it says why.
pub fn of(kind: Kind) -> Vec<Peer> {
    let mut peers = ours(kind);
    peers.extend(match kind {
        Kind::Echo => vec![
            program(kind, "tokio", "serve-tokio"),
            program(kind, "monoio", "serve-monoio"),
            program(kind, "compio", "serve-compio"),
            program(kind, "tokio-uring", "serve-tokio-uring"),
            program(kind, "glommio", "serve-glommio"),
            program(kind, "bare-loop", "serve-bare"),
        ],
        Kind::Hello => {
            vec![program(kind, "hyper-tokio", "serve-tokio"), program(kind, "monoio-http", "serve-monoio")]
        }
        Kind::Proxy => vec![program(kind, "hyper-util-tokio", "serve-tokio"), pingora()],
        Kind::Relay => vec![program(kind, "tokio", "serve-tokio")],
    });
    for nginx in Packaged::all("nginx") {
        let command = match kind {
            Kind::Echo => continue,
            Kind::Hello => packaged::nginx_hello,
            Kind::Proxy => packaged::nginx_proxy,
            Kind::Relay => packaged::nginx_relay,
        };
        let mut peer = Peer::new(nginx.label(), kind, move |place| command(&nginx, place));
        // Its workers outlive a master that is killed; this makes it end them.
        peer.ended_by = libc::SIGTERM;
        peers.push(peer);
    }
    for haproxy in Packaged::all("haproxy") {
        let command = match kind {
            Kind::Echo => continue,
            Kind::Hello => packaged::haproxy_hello,
            Kind::Proxy => packaged::haproxy_proxy,
            Kind::Relay => packaged::haproxy_relay,
        };
        let splicing = haproxy.clone();
        peers.push(Peer::new(haproxy.label(), kind, move |place| command(&haproxy, place)));
        let command = match kind {
            Kind::Echo | Kind::Hello => continue,
            Kind::Proxy => packaged::haproxy_proxy_splice,
            Kind::Relay => packaged::haproxy_relay_splice,
        };
        let name = format!("{}, splicing", splicing.label());
        peers.push(Peer::new(name, kind, move |place| command(&splicing, place)));
    }
    peers
}

/// Those of them that are named; nobody when no name is given.
///
/// # Errors
/// A name that none has, with those that there are.
pub fn named(kind: Kind, names: &[String]) -> io::Result<Vec<Peer>> {
    let peers = of(kind);
    if let Some(unknown) = names.iter().find(|name| !peers.iter().any(|peer| peer.name == **name)) {
        let known: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        return Err(io::Error::other(format!("{unknown} is not asked for {kind}: {}", known.join(", "))));
    }
    Ok(peers.into_iter().filter(|peer| names.contains(&peer.name)).collect())
}

/// ringport on each driver; a relay copies, and splices in a row of its own.
pub fn ours(kind: Kind) -> Vec<Peer> {
    let peer = |name: String, driver: &'static str, disable: Mechanisms| {
        Peer::new(name, kind, move |place| ringport(place, kind, driver, disable))
    };
    let copying = match kind {
        Kind::Relay => Mechanisms::NONE.with(Mechanism::Splice),
        Kind::Echo | Kind::Hello | Kind::Proxy => Mechanisms::NONE,
    };
    let mut peers = Vec::new();
    for driver in ["uring", "epoll"] {
        peers.push(peer(format!("ringport-{driver}"), driver, copying));
        if kind == Kind::Relay {
            peers.push(peer(format!("ringport-{driver}-splice"), driver, Mechanisms::NONE));
        }
    }
    peers
}

/// ringport on io_uring with all of its mechanisms, without each of them in turn, and without any; on epoll last.
pub fn without_mechanisms(kind: Kind) -> Vec<Peer> {
    let peer = |name: String, disable: Mechanisms| {
        Peer::new(name, kind, move |place| ringport(place, kind, "uring", disable))
    };
    let none = Mechanism::of_uring().fold(Mechanisms::NONE, Mechanisms::with);
    let mut peers = vec![peer("ringport-uring".to_owned(), Mechanisms::NONE)];
    let each = Mechanism::of_uring();
    peers.extend(each.map(|one| peer(format!("without {}", one.name()), Mechanisms::NONE.with(one))));
    peers.push(peer("without any".to_owned(), none));
    peers.extend(ours(kind).into_iter().filter(|peer| peer.name == "ringport-epoll"));
    peers
}

/// The packaged servers and their versions; `None` where one is not here.
pub fn packaged_versions() -> Vec<(String, Option<String>)> {
    let all = ["nginx", "haproxy"].into_iter().flat_map(Packaged::all);
    all.map(|packaged| (packaged.label(), packaged.version().map(str::to_owned))).collect()
}

/// A server that runs; killed when dropped, and when this process has died.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Peer {
    fn new(
        name: impl Into<String>,
        kind: Kind,
        command: impl Fn(&Place) -> io::Result<Command> + 'static,
    ) -> Peer {
        Peer { name: name.into(), kind, command: Box::new(command), ended_by: libc::SIGKILL }
    }

    /// A server by its command line, split at blanks, in whose words `{port}` and `{origin}` are replaced.
    pub fn of_command(name: &str, kind: Kind, line: &str) -> Peer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Peer::new(name, kind, move |place| filled_in(&words, place))
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When it cannot be started, or does not listen within 10 s.
    pub fn start(&self, origin: Option<SocketAddr>) -> io::Result<Server> {
        start(origin, None, self.ended_by, &self.command)
    }

    /// As [`Peer::start`], bound to a processor.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn start_on(&self, cpu: usize, origin: Option<SocketAddr>) -> io::Result<Server> {
        start(origin, Some(cpu), self.ended_by, &self.command)
    }
}

/// Starts a command line, in whose words `{port}` and `{origin}` are replaced.
///
/// # Errors
/// As [`Peer::start`].
pub fn start_command(words: &[String], origin: Option<SocketAddr>) -> io::Result<Server> {
    start(origin, None, libc::SIGTERM, |place| filled_in(words, place))
}

fn filled_in(words: &[String], place: &Place) -> io::Result<Command> {
    let origin = place.origin.map(|origin| origin.to_string()).unwrap_or_default();
    let port = place.address.port().to_string();
    let mut words = words.iter().map(|word| word.replace("{port}", &port).replace("{origin}", &origin));
    let mut command = Command::new(words.next().ok_or_else(|| io::Error::other("an empty command"))?);
    command.args(words);
    Ok(command)
}

/// Removes the folders of runs that were killed.
///
/// # Errors
/// When the folder of temporary files cannot be read.
pub fn clear_leftovers() -> io::Result<()> {
    for entry in fs::read_dir(env::temp_dir())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be removing it, too.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// A server's folder goes on with the number of the process that made it.
const FOLDER: &str = "ringport-benches-";

fn start(
    origin: Option<SocketAddr>,
    cpu: Option<usize>,
    ended_by: libc::c_int,
    command: impl FnOnce(&Place) -> io::Result<Command>,
) -> io::Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = env::temp_dir().join(format!("{FOLDER}{}-{}", std::process::id(), address.port()));
    fs::create_dir_all(&folder)?;
    let place = Place { address, origin, folder: folder.clone() };
    let spawned = command(&place).and_then(|command| spawn(command, &folder, cpu, ended_by));
    let child = spawned.inspect_err(|_| drop(fs::remove_dir_all(&folder)))?;
    let mut server = Server { child, address, folder };
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if let Some(status) = server.child.try_wait()? {
            return Err(io::Error::other(format!("it ended: {status}{}", server.last_words())));
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!("it does not listen after 10 s{}", server.last_words())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

fn spawn(
    mut command: Command,
    folder: &Path,
    cpu: Option<usize>,
    ended_by: libc::c_int,
) -> io::Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join(STDERR))?)
        .process_group(0);
    bind(&mut command, cpu, ended_by);
    let name = command.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    // Without its folder, which is another on each machine.
    command.spawn().map_err(|error| io::Error::new(error.kind(), format!("cannot start {name}: {error}")))
}

/// What a server says on its standard error.
const STDERR: &str = "stderr";

/// Binds what is started to a processor, and its life to this thread's.
fn bind(command: &mut Command, cpu: Option<usize>, ended_by: libc::c_int) {
    stop::end_with_us(command, ended_by);
    if let Some(cpu) = cpu {
        // SAFETY: between fork and exec only a system call is made; nothing is allocated unless it fails.
        unsafe { command.pre_exec(move || ringport_platform::process::pin_to_core(cpu)) };
    }
}

impl Server {
    /// Its process; servers may have children.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last line of its standard error, to be told behind another fault.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.folder.join(STDERR)).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let folder = self.folder.to_string_lossy();
        if last.is_empty() {
            String::new()
        } else {
            format!("; it said: {}", last.replace(&*folder, "").trim())
        }
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

/// A server of this crate.
fn program(kind: Kind, name: &'static str, program: &'static str) -> Peer {
    Peer::new(name, kind, move |place| of_benches(place, kind, program))
}

fn of_benches(place: &Place, kind: Kind, program: &str) -> io::Result<Command> {
    let mut command = programs::of_benches(program)?;
    command.arg(kind.to_string()).arg(place.address.to_string());
    if let Some(origin) = place.origin {
        command.arg("--origin").arg(origin.to_string());
    }
    Ok(command)
}

fn pingora() -> Peer {
    Peer::new("pingora", Kind::Proxy, |place| of_benches(place, Kind::Proxy, "serve-pingora"))
}

fn ringport(place: &Place, kind: Kind, driver: &str, disable: Mechanisms) -> io::Result<Command> {
    if kind == Kind::Proxy {
        let config = place.write("ringport.yaml", RINGPORT_PROXY)?;
        let mut command = programs::of_ringport()?;
        command.args(["proxy", "--config"]).arg(config).env("RUST_LOG", "error");
        command.env("RINGPORT_DRIVER", driver).env("RINGPORT_DISABLE", disable.to_string());
        return Ok(command);
    }
    let mut command = of_benches(place, kind, "serve-ringport")?;
    command.args(["--driver", driver, "--disable", &disable.to_string()]);
    Ok(command)
}

/// Runs the timers of `ringport` or `tokio` and gives the numbers that they print.
///
/// # Errors
/// When the program cannot be run, or prints something else.
pub fn run_timers(of: &str, cpu: usize, pending: usize) -> io::Result<Vec<f64>> {
    let mut command = programs::of_benches(&format!("serve-{of}"))?;
    command.args(["timers", "127.0.0.1:0", "--pending"]).arg(pending.to_string()).stdin(Stdio::null());
    bind(&mut command, Some(cpu), libc::SIGKILL);
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// A name with a slip in it used to be measured as nobody, with success.
    #[test]
    fn an_unknown_name_is_told() {
        let names = |kind, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(kind, &names).map(|peers| peers.into_iter().map(|peer| peer.name).collect::<Vec<_>>())
        };
        assert_eq!(names(Kind::Echo, &["tokio"]).expect("there is one"), ["tokio"]);
        assert!(names(Kind::Echo, &[]).expect("nobody").is_empty());
        let error = names(Kind::Hello, &["hyper-tokio", "tokio"]).expect_err("an echo's").to_string();
        assert!(error.starts_with("tokio is not asked for hello: ringport-uring, "), "{error}");
    }

    /// Servers used to outlive a run that was killed, and to share a core with the next one.
    #[test]
    fn a_server_ends_with_the_thread_that_started_it() {
        let started = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            spawn(command, &env::temp_dir(), None, libc::SIGKILL).expect("sleep can be started")
        });
        let mut child = started.join().expect("the thread ends");
        let status = child.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
}
