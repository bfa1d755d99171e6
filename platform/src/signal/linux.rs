//! Signals of the process as a readable descriptor.
//!
//! The handler sets a bit and writes to an eventfd, both async-signal-safe (signal-safety(7)); all else happens where
//! [`Signals::drain`] is called. Bits are set before the write and taken after the read, so none is left behind unseen.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Signal, SignalSet, bit};

/// Catches SIGHUP, SIGINT, SIGTERM and SIGUSR1 while it lives; dropping it restores what they did before.
///
/// The descriptor becomes readable with a signal and stays so until [`Signals::drain`]. One at a time in a process.
pub struct Signals {
    event: &'static OwnedFd,
    before: Vec<(libc::c_int, libc::sigaction)>,
}

impl Signals {
    /// Starts to catch, and ignores SIGPIPE from now on: writing to a closed peer gives `EPIPE`.
    ///
    /// SIGPIPE stays ignored after the drop. Interrupted syscalls restart where they can (`SA_RESTART`).
    ///
    /// # Errors
    /// `AlreadyExists` when another one lives; else as eventfd(2) or sigaction(2) gave it, with nothing caught.
    pub fn install() -> io::Result<Signals> {
        let event = event()?;
        if INSTNUMBERSED.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "signals are caught already"));
        }
        // From here on a failure drops `signals`, which restores what was changed.
        let mut signals = Signals { event, before: Vec::new() };
        signals.drain();
        set_action(libc::SIGPIPE, &action(libc::SIG_IGN))?;
        let handler = handle as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for (_, number) in NUMBERS {
            let before = set_action(number, &action(handler))?;
            signals.before.push((number, before));
        }
        Ok(signals)
    }

    /// Takes what came since the last call; never waits. One read(2).
    pub fn drain(&self) -> SignalSet {
        let mut count = 0u64;
        // SAFETY: `count` is the eight bytes that an eventfd writes, during the call only. Its one failure is EAGAIN: the
        // descriptor is ours and never closed.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        SignalSet(PENDING.swap(0, Ordering::SeqCst))
    }

    /// Waits for a signal on this thread and takes what came; empty when `timeout` passed first. `None` waits for ever.
    ///
    /// # Errors
    /// As poll(2) gave it, `EINTR` excepted.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<SignalSet> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let mut poll = libc::pollfd { fd: self.event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the kernel reads and writes the one `poll` during the call only.
            let ready = unsafe { libc::poll(&mut poll, 1, poll_millis(deadline)) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            let came = self.drain();
            if !came.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(came);
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (number, before) in &self.before {
            let restored = set_action(*number, before);
            debug_assert!(restored.is_ok(), "what sigaction gave it takes");
        }
        INSTNUMBERSED.store(false, Ordering::SeqCst);
    }
}

/// Whole milliseconds until `deadline`, rounded up so that poll does not return early; -1 for none.
fn poll_millis(deadline: Option<Instant>) -> libc::c_int {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    libc::c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

/// The eventfd, made once and never closed: a handler that still runs may write to it at any time.
fn event() -> io::Result<&'static OwnedFd> {
    static EVENT: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(event) = EVENT.get() {
        return Ok(event);
    }
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: eventfd just gave `fd`, which nobody else owns.
    let made = unsafe { OwnedFd::from_raw_fd(fd) };
    let event = EVENT.get_or_init(|| made);
    EVENT_FD.store(event.as_raw_fd(), Ordering::SeqCst);
    Ok(event)
}

/// Runs at any point of any thread: atomics and write(2) only, and errno as it was.
extern "C" fn handle(number: libc::c_int) {
    let Some((signal, _)) = NUMBERS.into_iter().find(|(_, known)| *known == number) else { return };
    PENDING.fetch_or(bit(signal), Ordering::SeqCst);
    let one = 1u64;
    // SAFETY: errno's place is valid for the thread's life; `one` is read during the call only; the descriptor is
    // EVENT_FD, set before any handler was installed and never closed. A full eventfd is readable anyway.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(EVENT_FD.load(Ordering::SeqCst), (&raw const one).cast(), size_of::<u64>());
        *errno = before;
    }
}

fn action(handler: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: sigaction is plain data for which zeroes mean: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    action
}

fn set_action(number: libc::c_int, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    // SAFETY: as in `action`.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both are read and written during the call only; the handler is SIG_IGN, `handle`, or what the system gave.
    if unsafe { libc::sigaction(number, action, &mut before) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(before)
}

static INSTNUMBERSED: AtomicBool = AtomicBool::new(false);
static PENDING: AtomicU32 = AtomicU32::new(0);
static EVENT_FD: AtomicI32 = AtomicI32::new(-1);

const NUMBERS: [(Signal, libc::c_int); 4] = [
    (Signal::Hangup, libc::SIGHUP),
    (Signal::Interrupt, libc::SIGINT),
    (Signal::Terminate, libc::SIGTERM),
    (Signal::User1, libc::SIGUSR1),
];
