//! A connection with deadlines; an accepted one also counts against the limits of its listener.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringport_platform::sockopt::{ApplyError, OptSet, Stage, Target};
use ringport_platform::timer::later;

use super::limits::Place;
use crate::buf::{PoolBuf, RxQueue, Seg, TxQueue};
use crate::runtime::{LocalAddr, Runtime, Splice, Timer, Transport, TxLevel};
use crate::spec::Deadlines;

/// A deadline has passed. Errors of a [`Bounded`] transport that are [`io::ErrorKind::TimedOut`] carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadlineError {
    /// A receive waited for so long and nothing came. The next receive has as long again.
    Read(Duration),
    /// A send waited for so long and the peer took too little. The next send has as long again.
    Write(Duration),
    /// The connection is as old as it may become. Nothing works any more.
    Connection(Duration),
}

impl DeadlineError {
    /// The deadline that an error tells of, if it does.
    pub fn of(error: &io::Error) -> Option<DeadlineError> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for DeadlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeadlineError::Read(time) => write!(f, "read deadline: nothing came for {time:?}"),
            DeadlineError::Write(time) => write!(f, "write deadline: the peer took nothing for {time:?}"),
            DeadlineError::Connection(time) => {
                write!(f, "connection deadline: it has been open for {time:?}")
            }
        }
    }
}

impl std::error::Error for DeadlineError {}

impl From<DeadlineError> for io::Error {
    fn from(error: DeadlineError) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}

/// What connections are given.
#[derive(Clone, Debug)]
pub(in crate::net) struct Bounds {
    pub(in crate::net) deadlines: Deadlines,
    /// Options that are set again after each receive, and the sort of socket; `None` where there are none.
    pub(in crate::net) rearmed: Option<(Arc<OptSet>, Target)>,
}

/// A transport with the deadlines of a spec. An accepted connection counts against the limits of its listener until this is
/// dropped.
///
/// Deadlines are watched only while a receive or a send waits: an idle connection that nobody waits on is not cut. A wait
/// that was dropped, and is taken up again long after its deadline, begins anew.
pub struct Bounded<R: Runtime> {
    inner: R::Stream,
    /// `None` without deadlines and options to set again, which is usual: each call then costs one comparison more.
    watched: Option<Box<Watched<R>>>,
    /// `None` while it waits for its header, and of one that was dialled.
    pub(super) place: Option<Place>,
}

/// What is looked at beside a transport.
struct Watched<R: Runtime> {
    runtime: R,
    read: Option<Wait<R>>,
    write: Option<Wait<R>>,
    /// Of the whole connection.
    end: Option<End<R>>,
    rearmed: Option<(Arc<OptSet>, Target)>,
}

impl<R: Runtime> Bounded<R> {
    pub(in crate::net) fn new(runtime: &R, inner: R::Stream, bounds: &Bounds) -> Self {
        let Deadlines { read, write, connection } = bounds.deadlines;
        let is_unwatched = (read, write, connection) == (None, None, None) && bounds.rearmed.is_none();
        let watched = (!is_unwatched).then(|| {
            let deadline = |timeout| later(runtime.now(), timeout);
            Box::new(Watched {
                read: read.map(Wait::new),
                write: write.map(Wait::new),
                end: connection.map(|timeout| End {
                    timeout,
                    deadline: deadline(timeout),
                    timer: runtime.timer(deadline(timeout)),
                }),
                rearmed: bounds.rearmed.clone(),
                runtime: runtime.clone(),
            })
        });
        Bounded { inner, watched, place: None }
    }

    /// The transport below, without deadlines.
    pub fn inner(&mut self) -> &mut R::Stream {
        &mut self.inner
    }

    /// Does what `call` does, where there is something to look at before and after.
    #[cold]
    #[inline(never)]
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        call: impl FnOnce(&mut R::Stream, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let watched = self.watched.as_mut().expect("asked before");
        watched.alive()?;
        match call(&mut self.inner, cx) {
            Poll::Ready(got) => {
                watched.done(side, &self.inner);
                Poll::Ready(got)
            }
            Poll::Pending => {
                let passed = std::task::ready!(watched.wait(cx, side));
                if matches!(passed, DeadlineError::Write(_)) {
                    // Who takes nothing gets no time to linger for the rest either.
                    self.inner.reset_on_drop();
                }
                Poll::Ready(Err(passed.into()))
            }
        }
    }

    /// Whether the connection may still be used.
    #[cold]
    #[inline(never)]
    fn alive(&self) -> io::Result<()> {
        self.watched.as_ref().map_or(Ok(()), |watched| watched.alive())
    }
}

impl<R: Runtime> Watched<R> {
    fn alive(&self) -> io::Result<()> {
        match &self.end {
            Some(end) if self.runtime.now() >= end.deadline => {
                Err(DeadlineError::Connection(end.timeout).into())
            }
            _ => Ok(()),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<DeadlineError> {
        if let Some(end) = &mut self.end
            && end.timer.poll_elapsed(cx).is_ready()
        {
            return Poll::Ready(DeadlineError::Connection(end.timeout));
        }
        let (wait, passed): (_, fn(Duration) -> DeadlineError) = match side {
            Side::Read => (&mut self.read, DeadlineError::Read),
            Side::Write => (&mut self.write, DeadlineError::Write),
        };
        let Some(wait) = wait else { return Poll::Pending };
        std::task::ready!(wait.poll(&self.runtime, cx));
        Poll::Ready(passed(wait.timeout))
    }

    /// An operation came to its end.
    fn done(&mut self, side: Side, inner: &R::Stream) {
        let wait = match side {
            Side::Read => &mut self.read,
            Side::Write => &mut self.write,
        };
        if let Some(wait) = wait {
            wait.since = None;
        }
        if let (Side::Read, Some((options, target))) = (side, &self.rearmed) {
            // It was taken before: what fails now is a connection that has ended, and the next receive tells.
            let _ = inner.set_options(options, Stage::Rearm, *target);
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

/// The deadline of one operation after the other.
struct Wait<R: Runtime> {
    timeout: Duration,
    /// When the operation under way began to wait.
    since: Option<Instant>,
    timer: Option<R::Timer>,
}

/// So long after its deadline a wait that is polled was not waited for in between: a timer would have woken it.
const GIVEN_UP: Duration = Duration::from_secs(1);

impl<R: Runtime> Wait<R> {
    fn new(timeout: Duration) -> Self {
        Wait { timeout, since: None, timer: None }
    }

    fn poll(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<()> {
        let now = runtime.now();
        let since =
            self.since.filter(|since| now.saturating_duration_since(*since) < self.timeout + GIVEN_UP);
        let deadline = since.unwrap_or(now) + self.timeout;
        let timer = self.timer.get_or_insert_with(|| runtime.timer(deadline));
        if since.is_none() {
            self.since = Some(now);
            timer.reset(deadline);
        }
        std::task::ready!(timer.poll_elapsed(cx));
        self.since = None;
        Poll::Ready(())
    }
}

struct End<R: Runtime> {
    timeout: Duration,
    deadline: Instant,
    timer: R::Timer,
}

impl<R: Runtime> Transport for Bounded<R> {
    #[inline(always)]
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>> {
        if self.watched.is_none() {
            return self.inner.poll_recv(cx, into, max);
        }
        self.watched(cx, Side::Read, move |inner, cx| inner.poll_recv(cx, into, max))
    }

    #[inline(always)]
    fn poll_recv_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        if self.watched.is_none() {
            return self.inner.poll_recv_buf(cx);
        }
        self.watched(cx, Side::Read, move |inner, cx| inner.poll_recv_buf(cx))
    }

    #[inline(always)]
    fn send(&mut self, from: &mut TxQueue) -> io::Result<usize> {
        if self.watched.is_some()
            && let Err(error) = self.alive()
        {
            from.clear();
            return Err(error);
        }
        self.inner.send(from)
    }

    #[inline(always)]
    fn send_seg(&mut self, seg: Seg) -> io::Result<usize> {
        if self.watched.is_some() {
            self.alive()?;
        }
        self.inner.send_seg(seg)
    }

    #[inline(always)]
    fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        if self.watched.is_none() {
            return self.inner.poll_sent(cx, level);
        }
        self.watched(cx, Side::Write, move |inner, cx| inner.poll_sent(cx, level))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watched.is_none() {
            return self.inner.poll_shutdown(cx);
        }
        self.watched(cx, Side::Write, move |inner, cx| inner.poll_shutdown(cx))
    }

    #[inline(always)]
    fn has_news(&self) -> bool {
        self.inner.has_news()
    }

    /// `None` with deadlines: what goes past user space goes past them too.
    fn splice_to(&self, to: &Self) -> Option<Splice> {
        if self.watched.is_some() || to.watched.is_some() { None } else { self.inner.splice_to(&to.inner) }
    }

    fn set_rx_limit(&mut self, bytes: u32) {
        self.inner.set_rx_limit(bytes);
    }

    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.inner.set_options(options, stage, target)
    }

    fn release_cork(&self) -> io::Result<()> {
        self.inner.release_cork()
    }

    fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.inner.peer_addr()
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        self.inner.local_addr()
    }

    fn reset_on_drop(&mut self) {
        self.inner.reset_on_drop();
    }
}
