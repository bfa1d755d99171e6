//! One measurement by the meter: a server, its load, and what it cost.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::load::{CHANGING_REQUEST, Clients, Kind, Origin, REQUEST};
use crate::meter::{Counted, Tracer, descendants};
use crate::peers::Server;
use crate::symbols::{ALLOCATORS, By, Symbols};

/// What is asked, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What is asked for.
    pub kind: Kind,
    /// Connections, each with `pipeline` requests in flight.
    pub connections: usize,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds before, at full speed.
    pub warmup: usize,
    /// Bytes of an echo or of the origin's answer.
    pub bytes: usize,
    /// Requests sent at once on a connection.
    pub pipeline: usize,
    /// Whether the heads of HTTP differ each time.
    pub changing: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { kind, connections, rounds, bytes, pipeline, changing, .. } = self;
        write!(
            f,
            "{kind}, {bytes} B, {connections} connections, {pipeline} in flight on each, {rounds} rounds{}",
            if *changing { ", changing heads" } else { "" }
        )
    }
}

/// What a request cost the thread that serves. Counts are exact; they repeat but for what depends on time.
pub struct Metered {
    /// User-space instructions per request.
    pub instructions: f64,
    /// Those of all other threads: what they do on a clock weighs more, since a stepped server is slow.
    pub others: f64,
    /// System calls per request.
    pub syscalls: f64,
    /// Heap allocations per request: entries into malloc, calloc, realloc and their like.
    pub allocations: f64,
    /// System calls per request by name, the most frequent first.
    pub syscalls_by_name: Vec<(String, f64)>,
    /// How many requests were counted.
    pub requests: usize,
    counted: Counted,
    symbols: Symbols,
}

impl Metered {
    /// Instructions per request by function or line, the largest first; see [`Symbols::gather`].
    pub fn gathered(&self, by: By, within: &str) -> Vec<(String, f64)> {
        let per_request = |(name, count): (String, u64)| (name, count as f64 / self.requests as f64);
        self.symbols.gather(&self.counted.at, by, within).into_iter().map(per_request).collect()
    }
}

/// Starts a server, warms it up, and steps it through the rounds of `plan`.
///
/// # Errors
/// When the server cannot be started or traced, or answers wrongly.
pub fn run(plan: &Plan, start: impl FnOnce(Option<SocketAddr>) -> io::Result<Server>) -> io::Result<Metered> {
    // One processor for the server and for us: it can then be held back while a round is sent.
    cpu::pin_to_last()?;
    let mut origin = match plan.kind {
        Kind::Proxy | Kind::Relay => Some(Origin::start(plan.bytes, plan.changing)?),
        Kind::Echo | Kind::Hello => None,
    };
    let address = origin.as_ref().map(Origin::address).transpose()?;
    let server = start(address)?;
    let request = match plan.kind {
        Kind::Echo => vec![b'e'; plan.bytes],
        Kind::Hello | Kind::Proxy | Kind::Relay if plan.changing => CHANGING_REQUEST.to_vec(),
        Kind::Hello | Kind::Proxy | Kind::Relay => REQUEST.to_vec(),
    };
    let mut aside = || origin.as_mut().map_or(Ok(false), Origin::serve);
    let mut clients = Clients::connect(server.address, plan.connections, &request, plan.pipeline)?;
    if plan.kind != Kind::Echo {
        clients.learn(&mut aside)?;
    }
    for _ in 0..plan.warmup {
        clients.round(&mut aside)?;
    }
    let mut tracer = Tracer::attach(server.pid())?;
    for _ in 0..STEPPED_WARMUP {
        stepped_round(&mut tracer, &mut clients, &mut aside)?;
    }
    tracer.reset();
    for _ in 0..plan.rounds {
        stepped_round(&mut tracer, &mut clients, &mut aside)?;
    }
    let symbols = Symbols::read(&descendants(server.pid() as libc::pid_t)?)?;
    let mut threads = tracer.counted().into_iter();
    let serving = threads.next().cloned().unwrap_or_default();
    let others = threads.map(Counted::instructions).sum();
    Ok(metered(plan, serving, others, symbols))
}

/// Rounds that bring the stepped server to its steady state: attaching interrupts its system calls.
const STEPPED_WARMUP: usize = 1;

/// Everything is sent before the server runs, as under full load; then it is stepped until it waits for us.
fn stepped_round(
    tracer: &mut Tracer,
    clients: &mut Clients,
    aside: &mut dyn FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    tracer.settle(SETTLE)?;
    tracer.hold_back(true);
    clients.send()?;
    let until = Instant::now() + SETTLE;
    loop {
        tracer.hold_back(false);
        tracer.settle(SETTLE)?;
        if clients.read()? {
            return Ok(());
        }
        tracer.hold_back(true);
        aside()?;
        if Instant::now() > until {
            return Err(io::Error::other("the stepped server waits, and has not answered"));
        }
    }
}

/// How long a round may take; a stepped server is a thousand times slower.
const SETTLE: Duration = Duration::from_secs(60);

fn metered(plan: &Plan, counted: Counted, others: u64, symbols: Symbols) -> Metered {
    let requests = plan.rounds * plan.connections * plan.pipeline;
    let per_request = |count: u64| count as f64 / requests as f64;
    let mut by_number: Vec<(u64, u64)> =
        counted.syscalls.iter().map(|(number, count)| (*number, *count)).collect();
    by_number.sort_by_key(|(number, count)| (std::cmp::Reverse(*count), *number));
    Metered {
        instructions: per_request(counted.instructions()),
        others: per_request(others),
        syscalls: per_request(counted.syscall_count()),
        allocations: per_request(symbols.entries(&counted.at, ALLOCATORS)),
        syscalls_by_name: by_number
            .into_iter()
            .map(|(number, count)| (syscall_name(number), per_request(count)))
            .collect(),
        requests,
        counted,
        symbols,
    }
}

fn syscall_name(number: u64) -> String {
    let known = SYSCALLS.iter().find(|(known, _)| *known as u64 == number);
    known.map_or_else(|| format!("system call {number}"), |(_, name)| (*name).to_owned())
}

/// Those that servers make in their steady state.
const SYSCALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_clock_gettime, "clock_gettime"),
    (libc::SYS_close, "close"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_pwait2, "epoll_pwait2"),
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_getpeername, "getpeername"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_read, "read"),
    (libc::SYS_readv, "readv"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_restart_syscall, "restart_syscall"),
    (libc::SYS_sendfile, "sendfile"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_splice, "splice"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
];
