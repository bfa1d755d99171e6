//! Files that change under a configuration: what they hold is taken without a restart.
//!
//! ```text
//! as taken --changed--> read --whole--> taken: new handshakes have it
//!                            --broken--> suspect: perhaps half is written. Still so at the next look --> refused, and a warning
//! ```
//!
//! A file is told from what it was by its [`FileStamp`], which costs a stat(2) a look; so another file under the same name
//! and a link that leads elsewhere count, as they do where directories are mounted. Who looks is a task of the core that has
//! the listener or dialer; it reads on a thread apart. Where several cores share a configuration, the first that comes looks for
//! all.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ringport_platform::file::FileStamp;
use ringport_platform::timer::later;

use crate::net::resolve::READERS;
use crate::runtime::{Runtime, Timer};
use crate::spec::Pem;

/// A configuration that was read from files.
pub(super) trait Watched: Clone + Send + 'static {
    /// How often to look; `None` = never, or there is no file.
    fn interval(&self) -> Option<Duration>;

    /// Reads the files again where they have changed. Blocks.
    fn look(&self, now: Instant);
}

/// Looks at files for as long as it is kept.
pub(super) struct Watch(Rc<Stop>);

#[derive(Default)]
struct Stop {
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// `None` where there is nothing to look at.
pub(super) fn watch<R: Runtime, W: Watched>(runtime: &R, watched: &W) -> Option<Watch> {
    let interval = watched.interval()?;
    let stop = Rc::new(Stop::default());
    let watch = Watch(stop.clone());
    let (core, watched) = (runtime.clone(), watched.clone());
    runtime.spawn(async move {
        while !stop.within(&core, interval).await {
            let (watched, now) = (watched.clone(), core.now());
            // Where all threads are taken, the next look will do; a panic has been printed.
            if let Ok(look) = READERS.submit(move || watched.look(now)) {
                drop(look.await);
            }
        }
    });
    Some(watch)
}

impl Stop {
    /// Waits for so long; whether it was stopped before.
    async fn within<R: Runtime>(&self, runtime: &R, interval: Duration) -> bool {
        let mut timer = runtime.timer(later(runtime.now(), interval));
        poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(true);
            }
            self.waker.replace(Some(cx.waker().clone()));
            timer.poll_elapsed(cx).map(|()| false)
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.stopped.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

/// What is known of the files of a configuration.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Before what is in use was read.
    taken: Stamps,
    /// Before what could not be used was read, and whether it was found so twice.
    broken: Option<(Stamps, bool)>,
    looked: Option<Instant>,
}

/// Of each file; `None` of one that is not there.
pub(super) type Stamps = Vec<Option<FileStamp>>;

impl Files {
    /// Those among these texts, to be read from now on.
    pub(super) fn of<'a>(pems: impl IntoIterator<Item = &'a Pem>) -> Self {
        let paths: Vec<_> = pems
            .into_iter()
            .filter_map(|pem| match pem {
                Pem::File(path) => Some(path.clone()),
                Pem::Inline(_) => None,
            })
            .collect();
        let taken = stamps(&paths);
        Files { paths, taken, broken: None, looked: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// To be asked for before the files are read: what changes meanwhile is news at the next look.
    pub(super) fn stamps(&self) -> Stamps {
        stamps(&self.paths)
    }

    /// What they are now, where that is neither in use nor known to be of no use. Once an interval, whoever asks.
    pub(super) fn news(&mut self, now: Instant, interval: Duration) -> Option<Stamps> {
        // Several cores ask, each at its own time.
        if self.looked.is_some_and(|looked| now < later(looked, interval / 2)) {
            return None;
        }
        self.looked = Some(now);
        let stamps = self.stamps();
        if stamps == self.taken {
            self.broken = None;
            return None;
        }
        let is_refused = self.broken.as_ref().is_some_and(|(broken, twice)| *twice && *broken == stamps);
        (!is_refused).then_some(stamps)
    }

    /// What they held is in use.
    pub(super) fn take(&mut self, stamps: Stamps) {
        self.taken = stamps;
        self.broken = None;
    }

    /// What they held is of no use. Whether that is to be told now: what is half written is no fault yet.
    pub(super) fn refuse(&mut self, stamps: Stamps) -> bool {
        let twice = self.broken.as_ref().is_some_and(|(broken, _)| *broken == stamps);
        self.broken = Some((stamps, twice));
        twice
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| Path::metadata(path).ok().map(|about| FileStamp::new(&about));
    paths.iter().map(stamp).collect()
}
