//! Counts the user-space instructions of a server exactly, by single-stepping every one of its threads.
//!
//! ```text
//! Tracer::attach --> settle --> { requests are sent while the threads are held back --> settle --> answers are read }*
//! ```
//!
//! A thread is stepped until all threads wait in the kernel ([`Tracer::settle`]). Needs no performance counters, only
//! ptrace; the kernel's own instructions are not seen.

use std::collections::HashMap;
use std::ffi::{c_int, c_long};
use std::fs;
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use crate::stop;
use crate::symbols::Addresses;

type Tid = libc::pid_t;

/// What one thread was counted to do since [`Tracer::reset`].
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// How often each instruction was executed, by its address.
    pub at: Addresses,
    /// How often each system call was made, by its number.
    pub syscalls: HashMap<u64, u64>,
}

impl Counted {
    /// All instructions.
    pub fn instructions(&self) -> u64 {
        self.at.values().sum()
    }

    /// All system calls.
    pub fn syscall_count(&self) -> u64 {
        self.syscalls.values().sum()
    }
}

/// Holds the threads of a server. Dropping it kills them: a thread inside a system call cannot be let go.
pub struct Tracer {
    server: Tid,
    threads: HashMap<Tid, Thread>,
    kinds: HashMap<u64, Kind, crate::symbols::Hasher>,
}

#[derive(Debug)]
struct Thread {
    state: State,
    /// The last instruction that was counted.
    last: u64,
    counted: Counted,
}

impl Thread {
    fn new() -> Self {
        Thread { state: State::InSyscall, last: 0, counted: Counted::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for us; `signal` is to be delivered when it goes on. Stopped out of turn, it may have been in a system call,
    /// which the kernel then starts again before it executes anything.
    Stopped { signal: c_int, out_of_turn: bool },
    /// Executes one instruction that cannot block.
    Stepping,
    /// Executes a system call, perhaps for long.
    InSyscall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Traps once an iteration, at the same address.
    Repeated,
    Syscall,
}

impl Tracer {
    /// Takes hold of every thread of `pid` and of its descendants.
    ///
    /// # Errors
    /// `PermissionDenied` where tracing is denied, `Unsupported` on another architecture than x86_64.
    pub fn attach(pid: u32) -> io::Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            let why = "the instruction meter knows the instructions of x86_64 only";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        block_sigchld();
        let mut tracer = Tracer { server: pid as Tid, threads: HashMap::new(), kinds: HashMap::default() };
        for process in descendants(pid as Tid)? {
            for tid in threads_of(process)? {
                let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
                request(libc::PTRACE_SEIZE, tid, 0, options as usize)?;
                request(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
                tracer.threads.insert(tid, Thread::new());
            }
        }
        Ok(tracer)
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        for thread in self.threads.values_mut() {
            thread.counted = Counted::default();
        }
    }

    /// What each thread did, the busiest first.
    pub fn counted(&self) -> Vec<&Counted> {
        let mut threads: Vec<&Counted> = self.threads.values().map(|thread| &thread.counted).collect();
        threads.sort_by_key(|counted| std::cmp::Reverse(counted.instructions()));
        threads
    }

    /// While `hold`, woken threads do not run as long as this thread does. They must share one processor with it.
    pub fn hold_back(&self, hold: bool) {
        let mut param = libc::sched_param { sched_priority: 0 };
        let mut policy = libc::SCHED_IDLE;
        if !hold {
            // Ours: a server that came after everybody else would take long to be stepped beside a tracer that goes first.
            // SAFETY: asks for a number, and fills in the parameter, which lives for the call.
            unsafe {
                policy = libc::sched_getscheduler(0);
                libc::sched_getparam(0, &raw mut param);
            }
        }
        for tid in self.threads.keys() {
            // SAFETY: `param` lives for the call. A thread that has ended gives ESRCH, which is no matter.
            unsafe { libc::sched_setscheduler(*tid, policy, &raw const param) };
        }
    }

    /// Steps every thread until all wait in the kernel.
    ///
    /// # Errors
    /// `TimedOut` when they do not come to rest; `UnexpectedEof` when the server has ended.
    pub fn settle(&mut self, timeout: Duration) -> io::Result<()> {
        let until = Instant::now() + timeout;
        let mut stopped: Vec<Tid> = Vec::new();
        loop {
            stop::check()?;
            stopped.clear();
            stopped.extend(self.in_state(|state| matches!(state, State::Stopped { .. })));
            for tid in &stopped {
                self.step(*tid)?;
            }
            if self.in_state(|state| state == State::Stepping).next().is_some() {
                self.wait_for_any(0)?;
                continue;
            }
            while self.wait_for_any(libc::WNOHANG)? {}
            if self.in_state(|state| state != State::InSyscall).next().is_some() {
                continue;
            }
            if !sleep_until_sigchld(REST) && self.threads.keys().all(|tid| is_asleep(*tid)) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn in_state(&self, wanted: impl Fn(State) -> bool) -> impl Iterator<Item = Tid> {
        self.threads.iter().filter(move |(_, thread)| wanted(thread.state)).map(|(tid, _)| *tid)
    }

    /// Counts the next instruction of a stopped thread and lets it run.
    fn step(&mut self, tid: Tid) -> io::Result<()> {
        let at = peek_user(tid, RIP)?;
        let kind = match self.kinds.get(&at) {
            Some(kind) => *kind,
            None => *self.kinds.entry(at).or_insert(kind_at(tid, at)?),
        };
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let State::Stopped { signal, out_of_turn } = thread.state else { return Ok(()) };
        if kind != Kind::Repeated || thread.last != at {
            *thread.counted.at.entry(at).or_default() += 1;
        }
        thread.last = at;
        thread.state = if out_of_turn { State::InSyscall } else { State::Stepping };
        if kind == Kind::Syscall {
            thread.state = State::InSyscall;
            *thread.counted.syscalls.entry(peek_user(tid, RAX)?).or_default() += 1;
        }
        request(libc::PTRACE_SINGLESTEP, tid, 0, signal as usize)
    }

    /// Takes in one event; `false` when there is none now.
    fn wait_for_any(&mut self, flags: c_int) -> io::Result<bool> {
        let mut status = 0;
        // SAFETY: the status is written during the call.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | flags) };
        match tid {
            0 => return Ok(false),
            -1 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        if !libc::WIFSTOPPED(status) {
            self.threads.remove(&tid);
            return match self.threads.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(true),
            };
        }
        // An event stop and the trap after a step are ours; any other signal is the server's own.
        let stepped = libc::WSTOPSIG(status) == libc::SIGTRAP && status >> 16 == 0;
        let signal = if stepped || status >> 16 != 0 { 0 } else { libc::WSTOPSIG(status) };
        let thread = self.threads.entry(tid).or_insert_with(Thread::new);
        thread.state = State::Stopped { signal, out_of_turn: !stepped };
        Ok(true)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for tid in self.threads.keys() {
            // SAFETY: our tracee keeps its number until we have waited for it.
            unsafe { libc::kill(*tid, libc::SIGKILL) };
        }
        // A tracee's end is reported to its tracer first; the server itself is waited for by who started it.
        for tid in self.threads.keys().filter(|tid| **tid != self.server) {
            // SAFETY: the status is not asked for.
            unsafe { libc::waitpid(*tid, ptr::null_mut(), libc::__WALL) };
        }
    }
}

/// How long nothing may happen before the threads are asked whether they sleep.
const REST: Duration = Duration::from_micros(200);

/// What the instruction at an address is, as far as stepping cares.
fn kind_at(tid: Tid, at: u64) -> io::Result<Kind> {
    let word = request_peek(libc::PTRACE_PEEKTEXT, tid, at as usize)?;
    Ok(kind_of(&word.to_le_bytes()))
}

fn kind_of(bytes: &[u8]) -> Kind {
    if bytes.starts_with(&[0x0f, 0x05]) {
        return Kind::Syscall;
    }
    let mut repeated = false;
    for byte in bytes {
        match byte {
            0xf2 | 0xf3 => repeated = true,
            // Operand and address size, segments, REX.
            0x66 | 0x67 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x40..=0x4f => {}
            // ins, outs, movs, cmps, stos, lods, scas.
            0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf if repeated => return Kind::Repeated,
            _ => return Kind::Plain,
        }
    }
    Kind::Plain
}

fn request(request_: libc::c_uint, tid: Tid, addr: usize, data: usize) -> io::Result<()> {
    // SAFETY: these requests read and write no memory of ours; the kernel checks that the thread is our tracee.
    let result = unsafe { libc::ptrace(request_, tid, addr, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn request_peek(request_: libc::c_uint, tid: Tid, addr: usize) -> io::Result<c_long> {
    // SAFETY: `errno` belongs to this thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; -1 is a value like any other, so that only `errno` tells a failure.
    unsafe { *errno = 0 };
    // SAFETY: a peek reads the tracee's memory and returns it.
    let word = unsafe { libc::ptrace(request_, tid, addr, 0) };
    // SAFETY: as above.
    match unsafe { *errno } {
        0 => Ok(word),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Places in `struct user_regs_struct` of x86_64, in words.
const RAX: usize = 10;
const RIP: usize = 16;

fn peek_user(tid: Tid, register: usize) -> io::Result<u64> {
    request_peek(libc::PTRACE_PEEKUSER, tid, register * size_of::<u64>()).map(|word| word as u64)
}

/// A process and all its descendants.
///
/// # Errors
/// When the process is gone.
pub fn descendants(pid: Tid) -> io::Result<Vec<Tid>> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        for tid in threads_of(pid)? {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<Tid>().ok()));
        }
        at += 1;
    }
    Ok(found)
}

/// The threads of a process.
///
/// # Errors
/// When the process is gone.
pub fn threads_of(pid: Tid) -> io::Result<Vec<Tid>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn is_asleep(tid: Tid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    // The name may hold blanks and brackets; the state follows the last bracket.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

/// `SIGCHLD` is taken only in [`sleep_until_sigchld`], so that none is missed between a look and a sleep.
fn block_sigchld() {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the structures are plain data and live for the calls; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
    }
}

/// `false` when the time passed without a signal.
fn sleep_until_sigchld(timeout: Duration) -> bool {
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos() as c_long };
    // SAFETY: no descriptors; the time and the (empty) mask live for the call.
    unsafe {
        let unblocked: libc::sigset_t = std::mem::zeroed();
        libc::ppoll(ptr::null_mut(), 0, &raw const timeout, &raw const unblocked) == -1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        for (bytes, expected) in [
            (&[0x0f, 0x05, 0, 0][..], Kind::Syscall),
            (&[0xf3, 0xa4], Kind::Repeated),
            (&[0xf3, 0x48, 0xa5], Kind::Repeated),
            (&[0xf2, 0xae], Kind::Repeated),
            (&[0xf3, 0x0f, 0x1e, 0xfa], Kind::Plain),
            (&[0xa4], Kind::Plain),
            (&[0x0f, 0x0b], Kind::Plain),
        ] {
            assert_eq!(kind_of(bytes), expected, "{bytes:x?}");
        }
    }
}
