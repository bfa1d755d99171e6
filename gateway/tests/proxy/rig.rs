//! The real binary under a config, on ports of the kernel's choice, with a driver forced.

use std::io::{BufRead, BufReader, Write, stderr};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Client, PATIENCE};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ringport");

/// How the Windows program is run, a word after the other: then it is the one that is tested. `./test --windows` sets it.
const WINDOWS: &str = "RINGPORT_WINDOWS_PROGRAM";

/// Whether the Windows program is tested, under Wine, by clients and origins of Linux.
pub(crate) fn is_windows() -> bool {
    std::env::var_os(WINDOWS).is_some()
}

/// The signal that says the same to it: Wine makes Ctrl-C of SIGINT, and SIGTERM ends a program of Windows at once.
pub(crate) fn told(signal: rustix::process::Signal) -> rustix::process::Signal {
    use rustix::process::Signal;
    if is_windows() && signal == Signal::TERM { Signal::INT } else { signal }
}

/// The program that is tested.
pub(crate) fn program() -> Command {
    let Some(words) = std::env::var_os(WINDOWS) else { return Command::new(BINARY) };
    let words = words.into_string().expect("UTF-8");
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// Runs a case on a driver, or says why it cannot.
pub(crate) fn on(driver: &'static str, case: fn(&'static str)) {
    if driver == "iocp" {
        assert!(is_windows(), "{WINDOWS} is not set");
        return match not_for_windows() {
            Some(why) => skipped(driver, why),
            None => case(driver),
        };
    }
    static WHY_NO_URING: OnceLock<Option<String>> = OnceLock::new();
    let missing = WHY_NO_URING.get_or_init(|| {
        let output = Command::new(BINARY).args(["probe", "--json"]).output().expect("the binary runs");
        why_no_uring(&String::from_utf8_lossy(&output.stdout))
    });
    match missing {
        Some(why) if driver == "uring" => skipped(driver, why),
        _ => case(driver),
    }
}

/// Says past the harness, which would keep it to itself when the test passes, that this case does not run here.
pub(crate) fn skipped(driver: &str, why: &str) {
    let case = thread::current();
    let _ = writeln!(stderr(), "skipped {} on {driver}: {why}", case.name().unwrap_or("a case"));
}

fn why_no_uring(json: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(json).expect("the probe prints JSON");
    (json["uring"]["available"] != true).then(|| json["uring"]["reason"].to_string())
}

/// Names each case once for each driver.
macro_rules! cases {
    ($($name:ident,)+) => {
        mod uring {
            $(#[test]
            fn $name() {
                crate::rig::on("uring", super::$name);
            })+
        }
        mod epoll {
            $(#[test]
            fn $name() {
                crate::rig::on("epoll", super::$name);
            })+
        }
        mod iocp {
            $(#[test]
            #[ignore = "of the Windows program: ./test --windows"]
            fn $name() {
                crate::rig::on("iocp", super::$name);
            })+
        }
    };
}
pub(crate) use cases;

/// A folder that is removed with its last use.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ringport-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a process writes to standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

impl Log {
    fn text(&self) -> String {
        self.lines.lock().expect("no panic").0.join("\n")
    }

    /// Waits for a line that `pick` makes something of.
    fn wait<T>(&self, mut pick: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("no panic");
        loop {
            if let Some(found) = pick(&lines.0) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return None;
            }
            lines = self.news.wait_timeout(lines, left).expect("no panic").0;
        }
    }
}

/// A proxy that runs; dropped, it is killed by its process id.
pub(crate) struct Proxy {
    child: Child,
    log: Arc<Log>,
    pub folder: Folder,
    addrs: Vec<(String, String)>,
    admin: Mutex<Option<Client>>,
    idle: Vec<(String, i64)>,
}

/// How a proxy is started.
pub(crate) struct Setup {
    driver: &'static str,
    config: String,
    wrapper: Vec<String>,
}

impl Setup {
    /// `config` without listeners and admin, which are added.
    pub(crate) fn new(driver: &'static str, config: &str) -> Setup {
        let mut text = String::new();
        if !config.contains("listeners:") {
            text += "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\n";
        }
        text += "admin: { address: \"127.0.0.1:0\" }\n";
        if !config.contains("runtime:") {
            text += "runtime: { cores: 1 }\n";
        }
        text += config;
        Setup { driver, config: text, wrapper: Vec::new() }
    }

    /// One pool at one origin.
    pub(crate) fn to(driver: &'static str, origin: SocketAddr, more: &str) -> Setup {
        let pool = format!(
            "routes: [{{ pool: o, connect: true }}]\npools: [{{ name: o, origins: [{{ address: \"{origin}\" }}] }}]\n"
        );
        Setup::new(driver, &(pool + more))
    }

    /// One pool with settings of its own: `origins` and more, in braces.
    pub(crate) fn pool(driver: &'static str, pool: &str, more: &str) -> Setup {
        Setup::new(
            driver,
            &format!("routes: [{{ pool: o, connect: true }}]\npools: [{{ name: o, {pool} }}]\n{more}"),
        )
    }

    /// A program with arguments that executes the proxy.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Setup {
        self.wrapper = wrapper.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    pub(crate) fn start(self) -> Proxy {
        let folder = Folder::new();
        let text = self.config.replace("FOLDER", &folder.path().display().to_string());
        let config = folder.file("config.yaml", &text);
        let mut command = match self.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(BINARY);
                command
            }
            None => program(),
        };
        command.args(["proxy", "--config"]).arg(config);
        match self.driver {
            "auto" => command.env_remove("RINGPORT_DRIVER"),
            driver => command.env("RINGPORT_DRIVER", driver),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env("RUST_LOG", "debug");
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("a pipe");
        let sink = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lines.lock().expect("no panic").0.push(line);
                sink.news.notify_all();
            }
            sink.lines.lock().expect("no panic").1 = true;
            sink.news.notify_all();
        });
        let mut proxy =
            Proxy { child, log, folder, addrs: Vec::new(), admin: Mutex::new(None), idle: Vec::new() };
        let addrs = proxy.log.wait(|lines| {
            let addrs: Vec<_> = lines.iter().filter_map(|line| listening(line)).collect();
            addrs.iter().any(|(name, _)| name == "admin").then_some(addrs)
        });
        proxy.addrs = addrs.unwrap_or_else(|| panic!("the proxy did not start:\n{}", proxy.log.text()));
        proxy.idle = proxy.settled();
        proxy
    }
}

fn listening(line: &str) -> Option<(String, String)> {
    let (_, found) = line.split_once("listening: ")?;
    let (name, addr) = found.split_once(' ')?;
    let addr = addr.split_once("://").map_or(addr, |(_, addr)| addr);
    Some((name.to_owned(), addr.to_owned()))
}

/// Gauges that must be as before when nothing is going on. Kept origin connections are counted apart.
const GAUGES: [&str; 5] =
    ["connections_active", "requests_active", "tunnels_active", "core_tasks", "core_open_sockets"];

impl Proxy {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.named("web")
    }

    pub(crate) fn named(&self, name: &str) -> SocketAddr {
        let found = self.addrs.iter().find(|(found, _)| found == name).expect("a listener of that name");
        found.1.parse().expect("an address")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The text of `/metrics`, over one connection that stays.
    pub(crate) fn metrics_text(&self) -> String {
        let mut admin = self.admin.lock().expect("no panic");
        for _ in 0..2 {
            let client = admin.get_or_insert_with(|| Client::connect(self.named("admin")));
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
            if let Ok(message) = client.try_response("GET") {
                return message.text();
            }
            *admin = None;
        }
        panic!("no metrics:\n{}", self.log.text());
    }

    /// A metric, summed over cores.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        sum(&self.metrics_text(), name)
    }

    /// A metric that every core has, in the order of cores.
    pub(crate) fn metric_of_cores(&self, name: &str) -> Vec<i64> {
        let text = self.metrics_text();
        let of_core = |core: usize| {
            let begin = format!("ringport_{name}{{core=\"{core}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok())
        };
        (0..).map_while(of_core).collect()
    }

    /// Waits until a metric is as `wanted` says.
    pub(crate) fn await_metric(&self, name: &str, wanted: impl Fn(i64) -> bool) -> i64 {
        let mut last = 0;
        eventually(&format!("metric {name}"), || {
            last = self.metric(name);
            wanted(last)
        });
        last
    }

    fn gauges(&self) -> Vec<(String, i64)> {
        let text = self.metrics_text();
        let (kept, shared) = (sum(&text, "origin_idle"), sum(&text, "origin_shared"));
        let value = |name: &str| match name {
            "core_open_sockets" => sum(&text, name) - kept - shared,
            // Each is driven by a task.
            "core_tasks" => sum(&text, name) - shared,
            name => sum(&text, name),
        };
        GAUGES.iter().map(|name| ((*name).to_owned(), value(name))).collect()
    }

    /// The gauges once they have stopped moving.
    fn settled(&self) -> Vec<(String, i64)> {
        // A core that has not turned yet has none of its listeners.
        eventually("every core turns", || {
            let text = self.metrics_text();
            !text.lines().any(|line| line.starts_with("ringport_core_turns{") && line.ends_with(" 0"))
        });
        let mut last = self.gauges();
        eventually("the gauges settle", || {
            let now = self.gauges();
            std::mem::replace(&mut last, now.clone()) == now
        });
        last
    }

    /// Nothing is left behind: sockets, tasks, connections and requests are at the level of the start.
    pub(crate) fn assert_idle(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.gauges();
            // A look-up that was under way at the start was a task more.
            let is_back = |(now, then): (&(String, i64), &(String, i64))| {
                now.1 == then.1 || now.0 == "core_tasks" && now.1 < then.1
            };
            if now.iter().zip(&self.idle).all(is_back) {
                return;
            }
            assert!(
                Instant::now() < until,
                "left behind: {now:?}, at the start {:?}\n{}",
                self.idle,
                self.log()
            );
            breathe();
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn await_log(&self, part: &str) -> String {
        let found = self.log.wait(|lines| lines.iter().find(|line| line.contains(part)).cloned());
        found.unwrap_or_else(|| panic!("never logged {part:?}:\n{}", self.log()))
    }

    /// Waits until `part` was logged so many times; what the proxy says comes over a pipe, a moment later.
    pub(crate) fn await_logs(&self, part: &str, count: usize) {
        let found = self
            .log
            .wait(|lines| (lines.iter().filter(|line| line.contains(part)).count() >= count).then_some(()));
        found.unwrap_or_else(|| panic!("not {count} times {part:?}:\n{}", self.log()));
    }

    /// `FOLDER` in the config.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The access log (`FOLDER/access.log` in the config) once it has so many lines.
    pub(crate) fn access_log(&self, lines: usize) -> Vec<String> {
        let mut found = Vec::new();
        eventually("lines of the access log", || {
            let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
            found = text.lines().map(str::to_owned).collect();
            found.len() >= lines
        });
        found
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        use rustix::process::{Pid, kill_process};
        kill_process(Pid::from_child(&self.child), told(signal)).expect("the proxy runs");
    }

    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the proxy runs").count()
    }

    pub(crate) fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Waits for the end; everything that was logged comes with it.
    pub(crate) fn exit(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        self.log.wait(|_| None::<()>);
        (status.expect("it ended"), self.log())
    }

    /// The usual end of a case: nothing is left behind, and SIGTERM ends it in order.
    pub(crate) fn finish(self) {
        self.assert_idle();
        self.end();
    }

    /// SIGTERM ends it in order.
    pub(crate) fn end(mut self) {
        *self.admin.lock().expect("no panic") = None;
        self.terminate();
        let (status, log) = self.exit();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the proxy's log\n{}", self.log());
        }
    }
}

fn sum(text: &str, name: &str) -> i64 {
    let full = format!("ringport_{name}");
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(full.as_str())?;
        (rest.starts_with([' ', '{'])).then(|| rest.rsplit(' ').next()?.parse::<i64>().ok()).flatten()
    });
    let values: Vec<i64> = values.collect();
    assert!(!values.is_empty(), "no metric {name}");
    values.into_iter().sum()
}

/// Asks until it holds, and fails after [`PATIENCE`].
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        breathe();
    }
}

/// Lets the other side run between two looks at a state that gives no event.
pub(crate) fn breathe() {
    thread::sleep(Duration::from_millis(5)); // tidy: between two looks at another process, under a deadline
}

/// Why the case that runs on this thread is not for Windows, if so.
fn not_for_windows() -> Option<&'static str> {
    let name = thread::current().name()?.replace("iocp::", "");
    NOT_FOR_WINDOWS
        .iter()
        .find(|(_, cases)| cases.iter().any(|case| name.starts_with(case)))
        .map(|(why, _)| *why)
}

/// What Windows does not have, what it does otherwise, and what Wine cannot show; and the cases, or the beginnings of their
/// names, that are about it.
const NOT_FOR_WINDOWS: &[(&str, &[&str])] = &[
    (
        "there are no Unix sockets",
        &[
            "a_client_without_an_address_is_in_no_list",
            "a_signal_ends_it_and_its_file_goes",
            "a_unix_socket_by_a_replaced_target",
            "drain::a_response_that_is_not_read_is_cut_at_the_deadline",
            "failures_have_codes",
            "fields::a_client_on_a_unix_socket_is_unknown",
            "listeners::a_stale_socket_file_is_replaced_and_removed_at_the_end",
            "listeners::the_admin_listener_may_be_a_unix_socket",
            "listeners::unix_sockets_serve_clients_and_reach_origins",
            "packets_go_both_ways",
            "routing::an_origin_on_a_unix_socket",
            "specs::a_replaced_origin_is_reached_by_its_path",
            "specs::the_file_of_a_listener_has_its_mode",
        ],
    ),
    ("sockets are not inherited", &["case_68_", "specs::an_inherited_socket_is_served"]),
    (
        "nothing stands for SIGHUP and SIGUSR1",
        &["records::a_renamed_log_is_opened_anew_on_hangup", "reload::", "tls::broken_files_are_refused"],
    ),
    (
        "there is no limit on handles to run into",
        &[
            "case_67_d21_it_survives_without_descriptors",
            "crowd::a_burst_takes_no_more_than_there_is_room_for",
            "crowd::a_crowd_that_waits_at_the_end_is_answered",
            "crowd::a_core_that_sleeps_hears_that_the_room_is_used_up",
            "crowd::accepting_waits_while_descriptors_are_short",
            "crowd::an_origin_is_not_blamed_for_our_descriptors",
            "crowd::kept_connections_are_given_up_for_new_ones",
            "crowd::the_derived_limit_leaves_descriptors_for_origins",
        ],
    ),
    (
        "Windows drops what it received when the reset comes",
        &["origins::an_early_answer_survives_the_reset_behind_it"],
    ),
    (
        "it is started in a network namespace, where Wine's own processes are not",
        &["demo::without_arguments_it_serves_a_demo"],
    ),
];
