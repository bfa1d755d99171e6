//! The access log: one line a request, written by a thread of its own so that no core waits for a disk.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use ringport::spec::AccessLog;

/// Lines that may wait for the writer; more are dropped and counted.
const QUEUE_LINES: usize = 65_536;

/// Where a core sends its lines. Cheap to clone.
#[derive(Clone)]
pub struct LogSender(Option<SyncSender<String>>);

impl LogSender {
    /// Whether anybody reads lines: without that none is made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a line over; false when the writer is behind and the line was dropped.
    pub fn send(&self, line: String) -> bool {
        match &self.0 {
            Some(sender) => !matches!(sender.try_send(line), Err(TrySendError::Full(_))),
            None => true,
        }
    }
}

/// The writer's thread; [`LogWriter::finish`] waits until every line is out.
pub struct LogWriter(Option<thread::JoinHandle<()>>);

impl LogWriter {
    /// Waits for the writer. All [`LogSender`]s must be gone.
    pub fn finish(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the access log's writer panicked");
        }
    }
}

/// Starts the log that a spec asks for.
///
/// # Errors
/// When the file cannot be opened for appending.
pub fn start(spec: &AccessLog) -> io::Result<(LogSender, LogWriter)> {
    let out: Box<dyn Write + Send> = match spec {
        AccessLog::Off => return Ok((LogSender(None), LogWriter(None))),
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(open(path)?),
    };
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&receiver, out))?;
    Ok((LogSender(Some(sender)), LogWriter(Some(thread))))
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}

fn write_all(lines: &Receiver<String>, out: Box<dyn Write + Send>) {
    let mut out = BufWriter::new(out);
    while let Ok(first) = lines.recv() {
        let batch = std::iter::once(first).chain(lines.try_iter());
        let written = batch.map(|line| out.write_all(line.as_bytes())).collect::<io::Result<()>>();
        if let Err(error) = written.and_then(|()| out.flush()) {
            tracing::error!(%error, "cannot write the access log");
        }
    }
}
