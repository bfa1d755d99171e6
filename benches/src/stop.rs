//! Ctrl-C and SIGTERM: what has been measured is kept, and what has been started ends. A second one ends at once.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on such a signal is noted instead of ending this process.
pub fn listen() {
    extern "C" fn note(_: libc::c_int) {
        if ASKED.swap(true, Ordering::Relaxed) {
            // SAFETY: may be called by a handler. Servers die with this process.
            unsafe { libc::_exit(130) };
        }
    }
    // SAFETY: the structure is plain data and lives for the calls; the handler only does what a handler may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Whether the run is to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What a command starts is asked to end, too, when this process has died.
pub fn with_us(command: &mut Command) {
    end_with_us(command, libc::SIGTERM);
}

/// What a command starts gets `signal` when the thread that started it has ended, and so when this process has died.
pub(crate) fn end_with_us(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id();
    let before_exec = move || {
        // SAFETY: takes a number and keeps it for this process.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: asks for a number. Who died before the call above sends no signal any more.
        if unsafe { libc::getppid() } as u32 != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated.
    unsafe { command.pre_exec(before_exec) };
}

/// [`io::ErrorKind::Interrupted`] when the run is to end.
///
/// # Errors
/// That one.
pub fn check() -> io::Result<()> {
    if asked() { Err(io::Error::new(io::ErrorKind::Interrupted, "the run was ended before")) } else { Ok(()) }
}
