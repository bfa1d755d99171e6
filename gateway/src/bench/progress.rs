//! A line on standard error that tells how far a run is, where a person looks at it.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// The line, rewritten in place a few times a second; nothing where standard error is no terminal.
pub(super) struct Progress {
    terminal: bool,
    label: String,
    began: Instant,
    shown: Instant,
    done: u64,
}

impl Progress {
    pub(super) fn new(label: &str) -> Self {
        let now = Instant::now();
        Progress {
            terminal: stderr().is_terminal(),
            label: label.to_owned(),
            began: now,
            shown: now,
            done: 0,
        }
    }

    /// Without a line, for runs that tell of themselves.
    pub(super) fn silent() -> Self {
        Progress { terminal: false, ..Progress::new("") }
    }

    pub(super) fn show(&mut self, done: u64, failed: u64) {
        let since = self.shown.elapsed();
        if !self.terminal || since < PERIOD {
            return;
        }
        let line =
            line(&self.label, self.began.elapsed(), done, done.saturating_sub(self.done), since, failed);
        // Without the terminal's wrapping (DECAWM), which would leave a line behind for each that is wider. A terminal that
        // has gone is no fault.
        let _ = write!(stderr(), "\r\x1b[K\x1b[?7l{line}\x1b[?7h");
        self.shown = Instant::now();
        self.done = done;
    }

    pub(super) fn clear(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn line(label: &str, ran: Duration, done: u64, more: u64, since: Duration, failed: u64) -> String {
    let rate = more as f64 / since.as_secs_f64().max(1e-9);
    // The label last: it may be longer than the terminal is wide.
    format!(
        "{:.0} s, {done} answered, {rate:.0}/s, {failed} failed; Ctrl-C ends it; {label}",
        ran.as_secs_f64()
    )
}

const PERIOD: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn the_line_tells_the_rate_since_the_last() {
        let line = super::line("http", Duration::from_secs(3), 900, 50, Duration::from_millis(250), 2);
        assert_eq!(line, "3 s, 900 answered, 200/s, 2 failed; Ctrl-C ends it; http");
    }
}
