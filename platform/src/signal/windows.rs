//! The events of the console. Windows tells them on a thread of its own, so a lock and a condition are enough.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT,
    SetConsoleCtrlHandler,
};

use super::{Signal, SignalSet, bit};

/// Catches the events of the console while it lives. One at a time in a process.
pub struct Signals(());

impl Signals {
    /// Starts to catch.
    ///
    /// # Errors
    /// `AlreadyExists` when another one lives; else as `SetConsoleCtrlHandler` gave it.
    pub fn install() -> io::Result<Signals> {
        let mut state = state();
        if state.is_installed {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "signals are caught already"));
        }
        // SAFETY: `handle` is a function of the process, which takes no memory of the caller.
        check(unsafe { SetConsoleCtrlHandler(Some(handle), 1) })?;
        *state = State { is_installed: true, pending: 0 };
        Ok(Signals(()))
    }

    /// Takes what came since the last call; never waits.
    pub fn drain(&self) -> SignalSet {
        SignalSet(std::mem::take(&mut state().pending))
    }

    /// Waits for an event on this thread and takes what came; empty when `timeout` passed first. `None` waits for ever.
    ///
    /// # Errors
    /// None on Windows.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<SignalSet> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = state();
        while state.pending == 0 {
            let Some(deadline) = deadline else {
                state = CAME.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = CAME.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(SignalSet(std::mem::take(&mut state.pending)))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: as in `install`.
        let removed = unsafe { SetConsoleCtrlHandler(Some(handle), 0) };
        debug_assert!(removed != 0, "what was added can be removed");
        state().is_installed = false;
    }
}

/// Runs on a thread that Windows makes for each event.
unsafe extern "system" fn handle(event: u32) -> i32 {
    let signal = match event {
        CTRL_C_EVENT => Signal::Interrupt,
        CTRL_BREAK_EVENT | CTRL_CLOSE_EVENT | CTRL_LOGOFF_EVENT | CTRL_SHUTDOWN_EVENT => Signal::Terminate,
        _ => return 0,
    };
    state().pending |= bit(signal);
    CAME.notify_all();
    if !matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        // The process ends when this returns; until then it has some seconds to drain, and ends by itself.
        loop {
            std::thread::park();
        }
    }
    1
}

struct State {
    is_installed: bool,
    pending: u32,
}

static STATE: Mutex<State> = Mutex::new(State { is_installed: false, pending: 0 });
static CAME: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
