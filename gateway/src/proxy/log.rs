//! The access log: one line a request, written by a thread of its own so that no core waits for a disk.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use ringport::proto::http_date::civil;
use ringport::spec::AccessLog;

use super::stats::ProxyStats;

/// Lines that may wait for the writer; more are dropped and counted.
const QUEUE_LINES: usize = 65_536;

/// Where a core sends its lines. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogSender(Option<SyncSender<Entry>>);

/// What the writer is told.
enum Entry {
    Line(String),
    /// The file has been renamed: its path is opened anew.
    Reopen,
}

impl LogSender {
    /// Whether anybody reads lines: without that none is made.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a line over; false when the writer is behind and the line was dropped.
    pub(crate) fn send(&self, line: String) -> bool {
        match &self.0 {
            Some(sender) => !matches!(sender.try_send(Entry::Line(line)), Err(TrySendError::Full(_))),
            None => true,
        }
    }

    /// Lines from here on go to a file opened anew. Waits for room, so it is nothing for a core.
    pub(super) fn reopen(&self) {
        if let Some(sender) = &self.0 {
            // The writer lives as long as its senders.
            let _ = sender.send(Entry::Reopen);
        }
    }
}

/// The writer's thread; [`LogWriter::finish`] waits until every line is out.
pub(super) struct LogWriter(Option<thread::JoinHandle<()>>);

impl LogWriter {
    /// Whether every line is out, and every sender gone.
    pub(super) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Waits for the writer. All [`LogSender`]s must be gone.
    pub(super) fn finish(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the access log's writer panicked");
        }
    }
}

/// Starts the log that a spec asks for. Lines that it cannot write are counted in `stats`.
///
/// # Errors
/// When the file cannot be opened for appending.
pub(super) fn start(spec: &AccessLog, stats: Arc<ProxyStats>) -> io::Result<(LogSender, LogWriter)> {
    let (out, path): (Box<dyn Write + Send>, _) = match spec {
        AccessLog::Off => return Ok((LogSender(None), LogWriter(None))),
        AccessLog::Stdout => (Box::new(io::stdout()), None),
        AccessLog::File(path) => (Box::new(open(path)?), Some(path.clone())),
    };
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    let mut writer = Writer { out: BufWriter::new(out), path, fails: false, stats };
    let thread =
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write_all(&receiver))?;
    Ok((LogSender(Some(sender)), LogWriter(Some(thread))))
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}

/// What the thread has.
struct Writer {
    out: BufWriter<Box<dyn Write + Send>>,
    /// `None` for what has no path.
    path: Option<PathBuf>,
    fails: bool,
    stats: Arc<ProxyStats>,
}

impl Writer {
    fn write_all(&mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut batch = std::iter::once(first).chain(entries.try_iter());
            let written = batch.try_for_each(|entry| self.take(entry)).and_then(|()| self.out.flush());
            self.tell(written);
        }
    }

    fn take(&mut self, entry: Entry) -> io::Result<()> {
        match entry {
            Entry::Line(line) => {
                self.out.write_all(line.as_bytes()).inspect_err(|_| self.stats.log_dropped.inc())
            }
            Entry::Reopen => {
                self.reopen();
                Ok(())
            }
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                let flushed = self.out.flush();
                self.tell(flushed);
                self.out = BufWriter::new(Box::new(file));
            }
            Err(error) => tracing::error!("{error}; the file that is open is written on"),
        }
    }

    /// A full disk fails for each line: the beginning and the end of it are told, and the lines are counted.
    fn tell(&mut self, written: io::Result<()>) {
        match written {
            Err(error) if !self.fails => {
                self.fails = true;
                tracing::error!(%error, "cannot write the access log; lines that it loses are counted");
            }
            Ok(()) if self.fails => {
                self.fails = false;
                let dropped = self.stats.log_dropped.load();
                tracing::info!(dropped, "the access log can be written again");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// What a line tells.
pub(super) struct Record<'a> {
    pub peer: &'a str,
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub status: u16,
    pub body_bytes: u64,
    pub took: Duration,
    pub origin: &'a str,
    pub cause: &'a str,
}

/// Writes a line, if the log is on and not behind.
pub(super) fn write(log: &LogSender, stats: &ProxyStats, record: &Record<'_>) {
    if log.is_on() && !log.send(line(record)) {
        stats.log_dropped.inc();
    }
}

/// `time peer "METHOD host target" status bytes milliseconds origin cause`, with quotes and control bytes escaped.
fn line(record: &Record<'_>) -> String {
    let text = |text: &str| text.escape_default().to_string();
    let or_dash =
        |text: &str| if text.is_empty() { "-".to_owned() } else { text.escape_default().to_string() };
    format!(
        "{} {} \"{} {} {}\" {} {} {:.3} {} \"{}\"\n",
        timestamp(SystemTime::now()),
        or_dash(record.peer),
        text(record.method),
        text(record.host),
        text(record.target),
        record.status,
        record.body_bytes,
        record.took.as_secs_f64() * 1e3,
        or_dash(record.origin),
        text(record.cause),
    )
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::stats::ProxyStats;
    use super::{BufWriter, Entry, Record, Writer, line};

    /// A disk that can be full.
    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::SeqCst) {
                // Space comes as soon as the first line has been lost.
                self.full.store(bytes.len() < 8_000, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// No line is written in part, and each is either there or counted.
    #[test]
    fn lines_that_a_full_disk_loses_are_counted() {
        let (disk, stats) = (Disk::default(), Arc::<ProxyStats>::default());
        disk.full.store(true, Ordering::SeqCst);
        let (sender, receiver) = sync_channel(1_000);
        for at in 0..1_000 {
            sender.send(Entry::Line(format!("{at:>99}\n"))).expect("there is room");
        }
        drop(sender);
        let out: Box<dyn Write + Send> = Box::new(disk.clone());
        let mut writer = Writer { out: BufWriter::new(out), path: None, fails: false, stats: stats.clone() };
        writer.write_all(&receiver);
        let written = disk.written.lock().expect("no panic");
        assert_eq!(written.len() % 100, 0);
        assert_eq!((written.len() / 100, stats.log_dropped.load()), (999, 1));
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let record = Record {
            peer: "",
            method: "GET",
            host: "h",
            target: "/a\"\n200",
            status: 200,
            body_bytes: 5,
            took: Duration::from_millis(2),
            origin: "o:1",
            cause: "ok",
        };
        let line = line(&record);
        assert!(line.ends_with(" - \"GET h /a\\\"\\n200\" 200 5 2.000 o:1 \"ok\"\n"), "{line}");
    }
}
