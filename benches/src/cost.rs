//! What a server spends: processor time always, hardware counters and system calls where the kernel lets us count.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::meter::{descendants, threads_of};

/// What was spent between two looks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spent {
    /// User and system time, exact.
    pub cpu_ns: u64,
    /// User time, in the clock ticks of /proc.
    pub user_ns: u64,
    /// System time, likewise.
    pub system_ns: u64,
    /// Time in which a thread could have run and had no processor.
    pub waited_ns: u64,
    /// Hardware counters, where there are any.
    pub hardware: Option<Hardware>,
}

/// Instructions and cycles by where they were spent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Hardware {
    /// In user space.
    pub user_instructions: u64,
    /// In the kernel.
    pub kernel_instructions: u64,
    /// In user space.
    pub user_cycles: u64,
    /// In the kernel.
    pub kernel_cycles: u64,
}

/// Watches a server and its children.
pub struct Watch {
    pids: Vec<libc::pid_t>,
    tids: Vec<libc::pid_t>,
    hardware: Option<[Vec<Counter>; 4]>,
}

impl Watch {
    /// Of the threads that run now.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn new(pid: u32) -> io::Result<Self> {
        let pids = descendants(pid as libc::pid_t)?;
        let mut tids = Vec::new();
        for pid in &pids {
            tids.extend(threads_of(*pid)?);
        }
        let hardware = open_hardware(&tids);
        Ok(Watch { pids, tids, hardware })
    }

    /// Whether hardware counters are read.
    pub fn has_hardware(&self) -> bool {
        self.hardware.is_some()
    }

    /// What has been spent so far; take the difference of two.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn look(&self) -> io::Result<Spent> {
        let mut spent = Spent::default();
        for pid in &self.pids {
            spent.cpu_ns += cpu_ns(*pid)?;
            let (user, system) = ticks(*pid)?;
            spent.user_ns += user * 1_000_000_000 / ticks_per_second();
            spent.system_ns += system * 1_000_000_000 / ticks_per_second();
        }
        spent.waited_ns = self.tids.iter().map(|tid| waited_ns(&format!("/proc/{tid}"))).sum();
        spent.hardware = self.hardware.as_ref().map(|[ui, ki, uc, kc]| Hardware {
            user_instructions: sum(ui),
            kernel_instructions: sum(ki),
            user_cycles: sum(uc),
            kernel_cycles: sum(kc),
        });
        Ok(spent)
    }
}

impl Spent {
    /// From an earlier look to this one.
    pub fn since(self, earlier: Spent) -> Spent {
        Spent {
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            user_ns: self.user_ns - earlier.user_ns,
            system_ns: self.system_ns - earlier.system_ns,
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
            hardware: self.hardware.zip(earlier.hardware).map(|(now, then)| Hardware {
                user_instructions: now.user_instructions - then.user_instructions,
                kernel_instructions: now.kernel_instructions - then.kernel_instructions,
                user_cycles: now.user_cycles - then.user_cycles,
                kernel_cycles: now.kernel_cycles - then.kernel_cycles,
            }),
        }
    }

    /// The part of the time in which a core was busy.
    pub fn busy(&self, elapsed: Duration) -> f64 {
        self.cpu_ns as f64 / elapsed.as_nanos() as f64
    }
}

/// Counts the system calls of a server by the tracepoint `raw_syscalls:sys_enter`, while it lives. It slows each call
/// down a little: not to be alive while time is measured.
pub struct SyscallWatch(Vec<Counter>);

impl SyscallWatch {
    /// `None` where the kernel does not let us.
    pub fn new(pid: u32) -> Option<Self> {
        let id = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
            .iter()
            .find_map(|root| fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id")).ok())?;
        let id = id.trim().parse().ok()?;
        let mut counters = Vec::new();
        for pid in descendants(pid as libc::pid_t).ok()? {
            for tid in threads_of(pid).ok()? {
                counters.push(Counter::open(PERF_TYPE_TRACEPOINT, id, false, false, tid).ok()?);
            }
        }
        Some(SyscallWatch(counters))
    }

    /// System calls since it was made.
    pub fn count(&self) -> u64 {
        sum(&self.0)
    }
}

fn cpu_ns(pid: libc::pid_t) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the clock's number is written during the call.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written during the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The processor time of the calling thread.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written during the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long a thread waited for a processor since it began: the second number of `schedstat`.
fn waited_ns(folder: &str) -> u64 {
    let text = fs::read_to_string(format!("{folder}/schedstat")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|waited| waited.parse().ok()).unwrap_or(0)
}

/// What the calling thread, which is the load, had of its processor.
#[derive(Clone, Copy, Debug)]
pub struct LoadTime {
    /// It ran.
    pub ran: Duration,
    /// It could have run, and somebody else did.
    pub waited: Duration,
}

impl LoadTime {
    /// Since the thread began.
    pub fn so_far() -> LoadTime {
        LoadTime { ran: thread_time(), waited: Duration::from_nanos(waited_ns("/proc/thread-self")) }
    }

    /// Since then.
    #[must_use]
    pub fn since(earlier: LoadTime) -> LoadTime {
        let now = LoadTime::so_far();
        LoadTime {
            ran: now.ran.saturating_sub(earlier.ran),
            waited: now.waited.saturating_sub(earlier.waited),
        }
    }
}

fn ticks(pid: libc::pid_t) -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name was the second.
    let mut fields = after_name.split_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
    Ok((fields.next().unwrap_or(0), fields.next().unwrap_or(0)))
}

fn ticks_per_second() -> u64 {
    // SAFETY: asks for a constant.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}

/// A perf event of one thread.
struct Counter(std::os::fd::OwnedFd);

const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_COUNT_HW_CPU_CYCLES: u64 = 0;
const PERF_COUNT_HW_INSTRUCTIONS: u64 = 1;
const EXCLUDE_USER: u64 = 1 << 4;
const EXCLUDE_KERNEL: u64 = 1 << 5;

/// The first published form of `struct perf_event_attr`, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

impl Counter {
    fn open(kind: u32, config: u64, no_user: bool, no_kernel: bool, tid: libc::pid_t) -> io::Result<Self> {
        let flags = if no_user { EXCLUDE_USER } else { 0 } | if no_kernel { EXCLUDE_KERNEL } else { 0 };
        let size = size_of::<PerfEventAttr>() as u32;
        let attr = PerfEventAttr { kind, size, config, flags, ..PerfEventAttr::default() };
        // SAFETY: the attribute lives for the call and states its size.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, tid, -1, -1, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Counter(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) }))
    }

    fn read(&self) -> u64 {
        let mut value = 0u64;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        // SAFETY: eight bytes are written at most, into eight.
        unsafe { libc::read(fd, (&raw mut value).cast(), size_of::<u64>()) };
        value
    }
}

fn sum(counters: &[Counter]) -> u64 {
    counters.iter().map(Counter::read).sum()
}

fn open_hardware(tids: &[libc::pid_t]) -> Option<[Vec<Counter>; 4]> {
    let open = |config, no_user, no_kernel| -> Option<Vec<Counter>> {
        tids.iter()
            .map(|tid| Counter::open(PERF_TYPE_HARDWARE, config, no_user, no_kernel, *tid).ok())
            .collect()
    };
    Some([
        open(PERF_COUNT_HW_INSTRUCTIONS, false, true)?,
        open(PERF_COUNT_HW_INSTRUCTIONS, true, false)?,
        open(PERF_COUNT_HW_CPU_CYCLES, false, true)?,
        open(PERF_COUNT_HW_CPU_CYCLES, true, false)?,
    ])
}
