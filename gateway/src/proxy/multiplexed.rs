//! Connections of HTTP/2 to one origin, shared by the requests of a core.
//!
//! ```text
//! a request: a connection with room --> a stream of it
//!            none: somebody dials   --> waits for what comes of that, and looks again; its failure is theirs, too
//!                  nobody does      --> dials: HTTP/2 --> shared from now on     HTTP/1.1 --> its own, and nobody waits any more
//! ```
//! Each connection is driven by a task of its own and closed, by GOAWAY, when it was idle for too long, when the origin leaves the
//! config, or when it has answered a request with silence. A dial that is dropped, since its request was, leaves it to the next.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ringport::http::Http2Client;
use ringport::net::tls::TlsDialError;

/// Those of an origin.
#[derive(Default)]
pub(super) struct Multiplexed {
    conns: RefCell<Vec<Http2Client>>,
    dial: RefCell<Option<Rc<Dial>>>,
    /// The origin has chosen HTTP/1.1 last: nothing is shared.
    is_http1: Cell<bool>,
}

/// A dial that others wait for.
#[derive(Default)]
struct Dial {
    end: RefCell<Option<Result<(), Rc<TlsDialError>>>>,
    waiters: RefCell<Vec<Waker>>,
}

/// How a request gets a connection.
pub(super) enum Join<'a> {
    /// It dials, and says what came of it.
    Dial(Dialling<'a>),
    /// What another's dial came to: look again.
    Again,
    Failed(Rc<TlsDialError>),
}

/// The dial that others wait for, until it is dropped.
pub(super) struct Dialling<'a> {
    all: &'a Multiplexed,
    dial: Option<Rc<Dial>>,
}

impl Multiplexed {
    /// The connection with room that has the fewest streams.
    pub(super) fn take(&self) -> Option<Http2Client> {
        let mut conns = self.conns.borrow_mut();
        conns.retain(Http2Client::is_open);
        conns.iter().filter(|conn| conn.room() > 0).min_by_key(|conn| conn.open_count()).cloned()
    }

    /// Waits for the dial that somebody makes, or else is the one to make it.
    pub(super) async fn join(&self) -> Join<'_> {
        if self.is_http1.get() {
            return Join::Dial(Dialling { all: self, dial: None });
        }
        let found = self.dial.borrow().clone();
        let Some(dial) = found else {
            let dial = Rc::new(Dial::default());
            self.dial.replace(Some(dial.clone()));
            return Join::Dial(Dialling { all: self, dial: Some(dial) });
        };
        let end = poll_fn(|cx| match &*dial.end.borrow() {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                dial.waiters.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        });
        end.await.map_or_else(Join::Failed, |()| Join::Again)
    }

    /// Ends those that have been idle for so long.
    pub(super) fn reap(&self, now: Instant, idle_timeout: Duration) {
        self.conns.borrow_mut().retain(|conn| {
            let idle = conn.idle_since().map(|since| now.saturating_duration_since(since));
            let stays = conn.is_open() && idle.is_none_or(|idle| idle < idle_timeout);
            if !stays {
                conn.drain();
            }
            stays
        });
    }

    /// Ends all, each with its last stream.
    pub(super) fn drain(&self) {
        self.conns.take().iter().for_each(Http2Client::drain);
    }
}

impl Dialling<'_> {
    /// The origin speaks HTTP/2: all that wait share this connection.
    pub(super) fn shared(self, conn: Http2Client) {
        self.all.is_http1.set(false);
        self.all.conns.borrow_mut().push(conn);
    }

    /// The origin speaks HTTP/1.1: whoever waits dials for himself.
    pub(super) fn alone(self) {
        self.all.is_http1.set(true);
    }

    /// Nobody who waits has to try the same.
    pub(super) fn failed(self, error: &Rc<TlsDialError>) {
        if let Some(dial) = &self.dial {
            dial.end.replace(Some(Err(error.clone())));
        }
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let Some(dial) = self.dial.take() else { return };
        self.all.dial.replace(None);
        dial.end.borrow_mut().get_or_insert(Ok(()));
        dial.waiters.take().into_iter().for_each(Waker::wake);
    }
}
