//! What a person or a service manager tells the process: signals, and on Windows the events of its console.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::Signals;
#[cfg(windows)]
pub use windows::Signals;

/// A signal that is reported; the others keep their disposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP; never on Windows.
    Hangup,
    /// SIGINT; on Windows Ctrl-C.
    Interrupt,
    /// SIGTERM; on Windows Ctrl-Break, the end of the console, of the session, or of the system.
    Terminate,
    /// SIGUSR1; never on Windows.
    User1,
}

/// Which signals came; several of one kind count once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u32);

impl SignalSet {
    /// Whether this signal came.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    /// Whether none came.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that came, in the order of [`Signal`].
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        ALL.into_iter().filter(move |signal| self.contains(*signal))
    }
}

fn bit(signal: Signal) -> u32 {
    1 << signal as u32
}

const ALL: [Signal; 4] = [Signal::Hangup, Signal::Interrupt, Signal::Terminate, Signal::User1];
