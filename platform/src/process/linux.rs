//! What Linux knows of a process.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{FdLimit, InheritError, TakeError};

/// The kernel's release, as `6.1.0-38-amd64`; empty where `/proc` is not mounted. uname(2).
pub fn system_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Raises the soft limit on open descriptors to the hard one and returns both as they are now.
///
/// For the whole process and its later children; up to three syscalls. A program that uses select(2) must not run in it.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2) gave it; the limit is then unchanged.
pub fn raise_fd_limit() -> io::Result<FdLimit> {
    let mut limit = fd_limit()?;
    if limit.soft < limit.hard {
        let raised = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
        // SAFETY: the kernel reads `raised` during the call only.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) })?;
        limit = fd_limit()?;
    }
    Ok(limit)
}

/// The limits on open descriptors; one syscall.
///
/// # Errors
/// As getrlimit(2) gave it.
pub fn fd_limit() -> io::Result<FdLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes `limit` during the call only.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(FdLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Gives heap memory that is free, but lies between what is in use, back to the system.
///
/// glibc returns by itself only the end of a heap. Takes a lock that every allocation takes, for about a millisecond per
/// 10 MiB of free memory: to be called when much has become free. No effect with other C libraries. malloc_trim(3).
#[cfg(target_env = "gnu")]
pub fn release_heap() {
    // SAFETY: it touches free chunks only, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// No effect: this C library has no such call.
#[cfg(not(target_env = "gnu"))]
pub fn release_heap() {}

/// The numbers of the cores that the calling thread may run on, ascending; not always 0 upwards.
///
/// Respects taskset(1) and cpusets, not CPU quotas of a cgroup. One syscall. Call it before any [`pin_to_core`].
///
/// # Errors
/// As sched_getaffinity(2) gave it; `EINVAL` on a machine with more than 8,192 cores.
pub fn available_cores() -> io::Result<Vec<usize>> {
    let mut mask: CoreMask = [0; MASK_WORDS];
    // SAFETY: the kernel writes at most `size_of_val(&mask)` bytes of `mask`, during the call only; a set is an array of
    // words of `unsigned long`, so size and alignment suit.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) })?;
    Ok((0..MASK_WORDS * WORD_BITS)
        .filter(|core| mask[core / WORD_BITS] >> (core % WORD_BITS) & 1 == 1)
        .collect())
}

/// Binds the calling thread to one core, a number out of [`available_cores`]; threads that it starts inherit this.
///
/// # Errors
/// `EINVAL` when there is no such core, or a cpuset excludes it. sched_setaffinity(2).
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let mut mask: CoreMask = [0; MASK_WORDS];
    let word = mask.get_mut(core / WORD_BITS).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    *word = 1 << (core % WORD_BITS);
    // SAFETY: the kernel reads at most `size_of_val(&mask)` bytes of `mask`, during the call only.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) })
}

/// How long the calling thread has run on a processor, in user space and in the kernel. One syscall, which the vDSO cannot
/// spare. clock_gettime(2) `CLOCK_THREAD_CPUTIME_ID`.
///
/// # Errors
/// As clock_gettime(2) gave it.
pub fn thread_cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes `time` during the call only.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })?;
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let seconds = u64::try_from(time.tv_sec).map_err(invalid)?;
    Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).map_err(invalid)?))
}

/// Bytes of memory resident now: the process's own and its share of mapped files. Reads `/proc/self/statm`.
///
/// # Errors
/// When `/proc` is not mounted or not understood.
pub fn current_rss_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages =
        pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "statm without a resident size"))?;
    // SAFETY: sysconf only reads a constant of the system.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_bytes = u64::try_from(page_bytes).map_err(|_| io::Error::last_os_error())?;
    Ok(pages * page_bytes)
}

/// How many descriptors are open. Lists `/proc/self/fd`, so it costs time in proportion: for metrics, not for each accept.
///
/// # Errors
/// When `/proc` is not mounted, or no descriptor is left to list it with.
pub fn open_fd_count() -> io::Result<usize> {
    let mut count = 0usize;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        entry?;
        count += 1;
    }
    // The listing's own.
    Ok(count.saturating_sub(1))
}

/// A descriptor that the service manager opened for this process. sd_listen_fds(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedFd {
    /// Its number, 3 or above. Nothing has checked that it is open; its close-on-exec flag is not set.
    pub fd: RawFd,
    /// `FileDescriptorName=` of the socket unit; `unknown` when the manager gave none.
    pub name: String,
}

/// Reads the values of `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` for process `pid`; touches no descriptor.
///
/// Empty when there is no `LISTEN_PID`, or it names another process: the variables were then inherited by accident.
/// Names beyond the count are ignored.
///
/// # Errors
/// [`InheritError`] when a value cannot be read.
pub fn inherited_fds(
    pid: u32,
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
    listen_fdnames: Option<&str>,
) -> Result<Vec<InheritedFd>, InheritError> {
    let Some(listen_pid) = listen_pid else { return Ok(Vec::new()) };
    if listen_pid.parse::<u32>().map_err(|_| InheritError::InvalidPid)? != pid {
        return Ok(Vec::new());
    }
    let count: u16 = listen_fds.and_then(|count| count.parse().ok()).ok_or(InheritError::InvalidCount)?;
    let mut names = listen_fdnames.unwrap_or_default().split(':');
    let mut inherit = |fd| {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        InheritedFd { fd, name: name.to_owned() }
    };
    Ok((0..RawFd::from(count)).map(|offset| inherit(FIRST_INHERITED + offset)).collect())
}

/// Takes the socket that the service manager opened for this process under `name` (`LISTEN_PID`, `LISTEN_FDS`,
/// `LISTEN_FDNAMES`), if `fits` says that it is of use. It becomes non-blocking and closed on exec.
///
/// Each is given once; of several of a name, one after the other.
///
/// # Errors
/// Why not; a socket that does not fit stays open, and may be asked for again.
pub fn take_inherited<E>(
    name: &str,
    fits: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
) -> Result<OwnedFd, TakeError<E>> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let variable = |name| std::env::var(name).ok();
    let inherited = inherited_fds(
        std::process::id(),
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
    )
    .map_err(TakeError::Variables)?;
    let mut named = inherited.iter().filter(|inherited| inherited.name == name).peekable();
    if named.peek().is_none() {
        let others: std::collections::BTreeSet<_> =
            inherited.iter().map(|other| other.name.clone()).collect();
        return Err(TakeError::Unknown { others: others.into_iter().collect() });
    }
    let fd = named.map(|inherited| inherited.fd).find(|fd| !taken.contains(fd)).ok_or(TakeError::Taken)?;
    // SAFETY: a flag is asked of a number; no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).map_err(TakeError::System)?;
    // SAFETY: it is open. The variables say that it was opened for us, and nobody of this process closes what has not been
    // taken here.
    fits(unsafe { BorrowedFd::borrow_raw(fd) }).map_err(TakeError::Unfit)?;
    taken.push(fd);
    // SAFETY: as above, and `taken` holds that it is given away once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = socket2::SockRef::from(&fd);
    socket.set_nonblocking(true).and_then(|()| socket.set_cloexec(true)).map_err(TakeError::System)?;
    Ok(fd)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `SD_LISTEN_FDS_START`
const FIRST_INHERITED: RawFd = 3;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// Room for 8,192 cores, the most that Linux can be built for.
const MASK_WORDS: usize = 8_192 / WORD_BITS;
type CoreMask = [libc::c_ulong; MASK_WORDS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fd_limit_rises_to_the_hard_one() {
        let before = fd_limit().unwrap();
        let lower = libc::rlimit { rlim_cur: before.soft.min(before.hard - 1), rlim_max: before.hard };
        // SAFETY: the kernel reads `lower` during the call only.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lower) }).unwrap();
        assert_ne!(fd_limit().unwrap().soft, before.hard);
        assert_eq!(raise_fd_limit().unwrap(), FdLimit { soft: before.hard, hard: before.hard });
        assert_eq!(fd_limit().unwrap().soft, before.hard);
    }

    #[test]
    fn a_pinned_thread_has_one_core() {
        let core = *available_cores().unwrap().last().unwrap();
        let pinned = std::thread::spawn(move || pin_to_core(core).and_then(|()| available_cores()));
        assert_eq!(pinned.join().unwrap().unwrap(), [core]);
        for absent in [8_191, 8_192, usize::MAX] {
            assert_eq!(pin_to_core(absent).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn a_thread_counts_its_own_work() {
        let (tell, told) = std::sync::mpsc::channel();
        let (wake, woken) = std::sync::mpsc::channel();
        let idle = std::thread::spawn(move || {
            let before = thread_cpu_time().unwrap();
            tell.send(()).unwrap();
            let () = woken.recv().unwrap();
            thread_cpu_time().unwrap() - before
        });
        // Its span holds ours: a clock that both share shows it no less than us.
        told.recv().unwrap();
        let before = thread_cpu_time().unwrap();
        let mut worked = Duration::ZERO;
        while worked < Duration::from_millis(20) {
            worked = thread_cpu_time().unwrap() - before;
        }
        wake.send(()).unwrap();
        let waited = idle.join().unwrap();
        assert!(waited < worked, "{waited:?} by the one that waited, {worked:?} by the one that worked");
    }

    #[test]
    fn memory_in_use_is_counted() {
        // Several times what other tests of this binary free meanwhile.
        const ADDED: usize = 256 << 20;
        let before = current_rss_bytes().unwrap();
        let mut added = vec![1u8; ADDED];
        std::hint::black_box(&mut added);
        let after = current_rss_bytes().unwrap();
        assert!(after >= before + ADDED as u64 / 2, "{before} then {after}");
    }

    #[test]
    fn open_descriptors_are_counted() {
        // Far more than other tests of this binary open or close meanwhile.
        let before = open_fd_count().unwrap();
        let files: Vec<_> = (0..400).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let during = open_fd_count().unwrap();
        assert!(during.abs_diff(before + files.len()) < 200, "{before} then {during}");
    }

    #[test]
    fn inherited_fds_are_read_as_systemd_writes_them() {
        let check = |pid, fds, names, expected: Result<&[(RawFd, &str)], InheritError>| {
            let got = inherited_fds(7, pid, fds, names);
            let expected = expected.map(|list| {
                list.iter().map(|(fd, name)| InheritedFd { fd: *fd, name: (*name).to_owned() }).collect()
            });
            assert_eq!(got, expected, "{pid:?} {fds:?} {names:?}");
        };
        check(None, None, None, Ok(&[]));
        check(None, Some("2"), None, Ok(&[]));
        check(Some("8"), Some("2"), None, Ok(&[]));
        check(Some("7"), Some("0"), None, Ok(&[]));
        check(Some("7"), Some("2"), None, Ok(&[(3, "unknown"), (4, "unknown")]));
        check(Some("7"), Some("2"), Some("http:quic"), Ok(&[(3, "http"), (4, "quic")]));
        check(Some("7"), Some("3"), Some("a::"), Ok(&[(3, "a"), (4, "unknown"), (5, "unknown")]));
        check(Some("7"), Some("1"), Some("a:b"), Ok(&[(3, "a")]));
        check(Some(""), Some("1"), None, Err(InheritError::InvalidPid));
        check(Some("x"), Some("1"), None, Err(InheritError::InvalidPid));
        check(Some("7"), None, None, Err(InheritError::InvalidCount));
        check(Some("7"), Some("-1"), None, Err(InheritError::InvalidCount));
        check(Some("7"), Some("65536"), None, Err(InheritError::InvalidCount));
    }
}
