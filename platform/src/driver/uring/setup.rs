//! Making a ring: the ladder of flags and sizes, and why there may be none.

use std::fmt;
use std::io;

use io_uring::IoUring;

use super::UringSpec;
use crate::driver::{Mechanism, Mechanisms};
use crate::op::Errno;

/// What keeps this process from using io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The kernel has no io_uring, or a filter pretends so.
    Missing,
    /// A seccomp filter, as container engines install.
    Seccomp,
    /// The sysctl `kernel.io_uring_disabled` has this value.
    Sysctl(u8),
}

/// Why there is no io_uring driver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UringError {
    /// io_uring is not allowed here.
    Denied {
        /// `EPERM` or `ENOSYS`.
        errno: Errno,
        /// By what.
        which: Denial,
    },
    /// Not enough lockable memory for the smallest ring.
    Memlock {
        /// `RLIMIT_MEMLOCK` in bytes.
        limit: u64,
    },
    /// The kernel lacks something that the driver cannot do without.
    TooOld {
        /// Its name, as in [`super::UringReport`].
        feature: &'static str,
    },
    /// Anything else.
    Other {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl UringError {
    pub(super) fn other(step: &'static str) -> impl Fn(io::Error) -> UringError {
        move |error| UringError::Other { step, errno: errno_of(&error) }
    }
}

impl fmt::Display for UringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UringError::Denied { errno, which: Denial::Missing } => {
                write!(
                    f,
                    "this kernel has no io_uring ({errno}); Linux 6.0 or later built with CONFIG_IO_URING has it"
                )
            }
            UringError::Denied { errno, which: Denial::Seccomp } => write!(
                f,
                "a seccomp filter forbids io_uring ({errno}); allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile"
            ),
            UringError::Denied { errno, which: Denial::Sysctl(1) } => write!(
                f,
                "sysctl kernel.io_uring_disabled is 1 ({errno}); set it to 0, or put the process in the group \
                 kernel.io_uring_group"
            ),
            UringError::Denied { errno, which: Denial::Sysctl(value) } => {
                write!(f, "sysctl kernel.io_uring_disabled is {value} ({errno}); set it to 0")
            }
            UringError::Memlock { limit } => write!(
                f,
                "too little lockable memory for a ring: RLIMIT_MEMLOCK is {limit} bytes; raise it \
                 (LimitMEMLOCK=, ulimit -l)"
            ),
            UringError::TooOld { feature } => {
                write!(f, "the kernel's io_uring lacks \"{feature}\"; Linux 6.0 or later has it")
            }
            UringError::Other { step, errno } => {
                write!(f, "{step} failed ({errno}); another driver can be chosen with RINGPORT_DRIVER")
            }
        }
    }
}

impl std::error::Error for UringError {}

/// Set-up flags of one step of the ladder. All later than those that every kernel with multishot receives (6.0) has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    Defer,
    CoopSingle,
    Coop,
    Bare,
}

impl Rung {
    const ALL: [Rung; 4] = [Rung::Defer, Rung::CoopSingle, Rung::Coop, Rung::Bare];

    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Rung::Defer => &["SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE"],
            Rung::CoopSingle => &["SINGLE_ISSUER", "COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE"],
            Rung::Coop => &["COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE"],
            Rung::Bare => &["CQSIZE"],
        }
    }

    pub(super) fn build(self, sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(cq_entries);
        match self {
            Rung::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Rung::CoopSingle => {
                builder.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Rung::Coop => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Rung::Bare => {}
        }
        builder.build(sq_entries)
    }
}

/// Sizes to try when memory is short, as shifts of what the spec asks for: 512, 256, 64 by default.
const SHRINK: [u32; 3] = [0, 1, 3];

/// The first ring of the ladder that the kernel makes.
pub(super) fn make_ring(spec: &UringSpec) -> Result<(IoUring, Rung), UringError> {
    let mut shrink = 0;
    let mut rungs = Rung::ALL.into_iter().skip(first_rung(spec.disable)).peekable();
    while let Some(rung) = rungs.peek().copied() {
        let shift = SHRINK[shrink];
        let (sq_entries, cq_entries) =
            ((spec.sq_entries >> shift).max(8), (spec.cq_entries >> shift).max(64));
        let error = match rung.build(sq_entries, cq_entries.max(sq_entries * 2)) {
            Ok(ring) => return Ok((ring, rung)),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOMEM) if shrink + 1 < SHRINK.len() => {
                shrink += 1;
                tracing::warn!(
                    sq_entries,
                    limit = memlock_limit(),
                    "io_uring: memory is short, trying a smaller ring"
                );
            }
            Some(libc::ENOMEM) => return Err(UringError::Memlock { limit: memlock_limit() }),
            Some(libc::EINVAL) => {
                rungs.next();
                tracing::info!(flags = ?rung.flags(), "io_uring: the kernel does not know these flags, trying fewer");
            }
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => return Err(denied(errno_of(&error))),
            _ => return Err(UringError::other("io_uring_setup")(error)),
        }
    }
    Err(UringError::TooOld { feature: "a completion queue of its own size" })
}

fn first_rung(disable: Mechanisms) -> usize {
    usize::from(disable.contains(Mechanism::Defer))
}

fn denied(errno: Errno) -> UringError {
    let sysctl = read_number("/proc/sys/kernel/io_uring_disabled");
    let which = match (sysctl, errno.0) {
        (Some(value @ 1..), libc::EPERM) => Denial::Sysctl(value),
        // The sysctl exists only where io_uring does.
        (None, libc::ENOSYS) => Denial::Missing,
        _ => Denial::Seccomp,
    };
    UringError::Denied { errno, which }
}

fn read_number(path: &str) -> Option<u8> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn memlock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}

pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Denial, Errno, UringError};

    #[test]
    fn errors_name_the_reason_and_the_remedy() {
        let check = |error: UringError, words: [&str; 2]| {
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let denied = |errno, which| UringError::Denied { errno: Errno(errno), which };
        check(denied(libc::EPERM, Denial::Sysctl(2)), ["kernel.io_uring_disabled is 2", "set it to 0"]);
        check(denied(libc::EPERM, Denial::Sysctl(1)), ["kernel.io_uring_disabled is 1", "io_uring_group"]);
        check(denied(libc::EPERM, Denial::Seccomp), ["seccomp", "profile"]);
        check(denied(libc::ENOSYS, Denial::Missing), ["no io_uring", "CONFIG_IO_URING"]);
        check(UringError::Memlock { limit: 65536 }, ["65536", "ulimit -l"]);
        check(UringError::TooOld { feature: "recv-multishot" }, ["recv-multishot", "6.0"]);
        check(
            UringError::Other { step: "eventfd", errno: Errno(libc::EMFILE) },
            ["eventfd", "RINGPORT_DRIVER"],
        );
    }
}
