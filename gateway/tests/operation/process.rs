//! Programs that a case starts: the binary in any way of calling it, and its peers.

use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::message::PATIENCE;
use super::rig::{BINARY, breathe, program, told};

/// What a program printed until its end, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Faults of a config on standard error, the first with all of `parts`, nothing on standard output, exit code 2.
    pub(crate) fn assert_fault(&self, parts: &[&str]) {
        assert_eq!((self.code(), self.out.as_str()), (Some(2), ""), "{self:?}");
        let first = self.err.lines().next().unwrap_or_default();
        for part in parts {
            assert!(first.contains(part), "{part:?} is missing: {self:?}");
        }
        assert!(!self.err.contains("panicked") && !self.err.contains("ringport: "), "{self:?}");
    }

    /// One sentence on standard error with all of `parts`, nothing on standard output, exit code 2.
    pub(crate) fn assert_refused(&self, parts: &[&str]) {
        assert_eq!(self.code(), Some(2), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        let own: Vec<&str> = self.err.lines().filter(|line| line.starts_with("ringport: ")).collect();
        let others = self.err.lines().filter(|line| !line.starts_with("ringport: "));
        // Log lines may stand before the sentence: the steps of the ladder. They carry a level.
        let strange: Vec<&str> =
            others.filter(|line| !line.contains(" INFO ") && !line.contains(" WARN ")).collect();
        assert!(own.len() == 1 && strange.is_empty(), "not one sentence: {self:?}");
        for part in parts {
            assert!(own[0].contains(part), "{part:?} is missing: {:?}", own[0]);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains("backtrace"), "{self:?}");
    }
}

/// `ringport` with these arguments.
pub(crate) fn ringport(arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).env_remove("RINGPORT_DRIVER").env_remove("RINGPORT_DISABLE");
    command.env_remove("RUST_LOG");
    command
}

/// The same, executed by a program with arguments of its own.
pub(crate) fn ringport_under(wrapper: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(BINARY).args(arguments);
    command.env_remove("RINGPORT_DRIVER").env_remove("RINGPORT_DISABLE").env_remove("RUST_LOG");
    command
}

/// Runs a program to its end. One that does not end in time is killed, and the case fails.
pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = collect(child.stdout.take().expect("a pipe"));
    let err = collect(child.stderr.take().expect("a pipe"));
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        breathe();
    };
    let (out, err) = (out.join().expect("no panic"), err.join().expect("no panic"));
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end:\n{out}\n{err}"));
    Ended { status, out, err }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program that runs beside the case; dropped, it is killed by its process id.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Lines>,
}

#[derive(Default)]
struct Lines {
    state: Mutex<(Vec<String>, usize)>,
    news: Condvar,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Process {
        Process::start_with(command, Stdio::piped())
    }

    /// With this standard input.
    pub(crate) fn start_with(command: &mut Command, stdin: Stdio) -> Process {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Lines::default());
        follow(&lines, child.stdout.take().expect("a pipe"));
        follow(&lines, child.stderr.take().expect("a pipe"));
        let stdin = child.stdin.take();
        Process { child, stdin, lines }
    }

    /// A Python program that prints its port first.
    pub(crate) fn python(source: &str, arguments: &[&str]) -> (Process, SocketAddr) {
        let process = Process::start(Command::new("python3").args(["-u", "-c", source]).args(arguments));
        let port = process.wait_for(|line| line.strip_prefix("port ")?.trim().parse::<u16>().ok());
        (process, ([127, 0, 0, 1], port).into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        // A wait that failed did so with the lock held, and its log is wanted all the more.
        self.lines.state.lock().unwrap_or_else(PoisonError::into_inner).0.join("\n")
    }

    /// Waits for a line that `pick` makes something of.
    pub(crate) fn wait_for<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut state = self.lines.state.lock().expect("no panic");
        loop {
            if let Some(found) = state.0.iter().find_map(|line| pick(line)) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(state.1 < 2 && !left.is_zero(), "never printed:\n{}", state.0.join("\n"));
            state = self.lines.news.wait_timeout(state, left).expect("no panic").0;
        }
    }

    /// The address of a listener of a proxy that was started so.
    pub(crate) fn listening(&self, name: &str) -> SocketAddr {
        let start = format!("listening: {name} http://");
        self.wait_for(|line| line.split_once(start.as_str())?.1.parse().ok())
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        use rustix::process::{Pid, kill_process};
        kill_process(Pid::from_child(&self.child), told(signal)).expect("it runs");
    }

    /// Waits for the end.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.log());
            breathe();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- printed by {}\n{}", self.child.id(), self.log());
        }
    }
}

fn follow(lines: &Arc<Lines>, pipe: impl Read + Send + 'static) {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.state.lock().expect("no panic").0.push(line);
            lines.news.notify_all();
        }
        lines.state.lock().expect("no panic").1 += 1;
        lines.news.notify_all();
    });
}

/// Whether all of these programs are there; if not, says that `case` is skipped.
pub(crate) fn have(case: &str, programs: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let missing = programs.iter().find(|name| !path.split(':').any(|dir| exists(dir, name)));
    if let Some(name) = missing {
        skipped(case, &format!("{name} is not installed"));
    }
    missing.is_none()
}

fn exists(dir: &str, name: &str) -> bool {
    std::path::Path::new(dir).join(name).is_file()
}

pub(crate) fn skipped(case: &str, why: &str) {
    // Past the harness, which would keep it to itself when the test passes.
    let _ = writeln!(stderr(), "skipped {case}: {why}");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
