//! One client connection: requests one after another, each with its exchange at an origin.
//!
//! ```text
//! Waiting --head--> Exchange --response ended--> Waiting | Draining body --> Waiting | Lingering --> closed
//! Waiting --silence--> closed          Waiting --half a head for too long--> 408, Lingering
//! any     --malformed--> 4xx, Lingering    Exchange --response cut--> Lingering | reset    Exchange --the client gone--> reset
//! ```

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::StatusCode;
use ringport::http::{ServeError, ServerStream};
use ringport::net::{DeadlineError, Peer, Stream};
use ringport::proto::http1::{BodyLen, RemainingBody, RequestHead, ServerEvent};
use ringport::proto::http2::{Preface, detect_preface};
use ringport::runtime::{Transport, TxLevel};
use ringport_platform::core::CoreTime;

use super::downstream::Downstream;
use super::exchange::Exchange;
use super::visit::{Flow, Visit};
use super::{ClientConn, Counted, Shared, http2};

/// Unsent bytes of a client above which nothing more is read for it.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// Body of an answered request that is read and dropped to keep the connection.
pub(super) const DRAIN_BYTES: u64 = 64 * 1024;
/// What is read and dropped before a connection closes, so that the client can read the last response.
const LINGER_BYTES: usize = 1 << 20;
/// Of the preface of HTTP/2. RFC 9113 3.4.
const PREFACE_BYTES: usize = 24;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How long a connection without a request yet may hold up the end of the process.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// A client connection of HTTP/1.1.
pub(super) struct Session {
    visit: Visit,
    client: ServerStream<ClientConn>,
    /// Of a connection whose first bytes may begin HTTP/2, until they have come.
    fresh: Option<Box<Peer>>,
    served: u64,
    seat: Seat,
    counted: Counted,
}

/// Why waiting for a head ended.
enum Next {
    Request(RequestHead, BodyLen),
    Malformed(ringport::proto::http1::Error),
    HeadTimeout,
    /// The preface of HTTP/2.
    Http2,
    Over,
}

impl Session {
    /// Serves a connection to its end. `fresh` is its peer where HTTP/2 may begin without being agreed on.
    pub(super) fn serve(
        visit: Visit,
        stream: Stream<ClientConn>,
        fresh: Option<Box<Peer>>,
        held: (Counted, Seat),
    ) -> impl Future<Output = ()> + use<> {
        let mut session = Session::over(visit, stream, fresh, held);
        async move {
            match session.run().await {
                Flow::Http2 => {
                    let Session { visit, client, fresh, seat, counted, .. } = session;
                    if let Some(peer) = fresh {
                        // Few clients do so, and all pay for what lies in this future.
                        Box::pin(http2::serve(visit, client.into_stream(), *peer)).await;
                    }
                    drop((seat, counted));
                }
                Flow::Abort => session.client.stream().transport().reset_on_drop(),
                Flow::Over => session.say_end(),
                Flow::Continue | Flow::Close => session.linger().await,
            }
        }
    }

    fn over(
        visit: Visit,
        stream: Stream<ClientConn>,
        fresh: Option<Box<Peer>>,
        (counted, seat): (Counted, Seat),
    ) -> Self {
        let client = ServerStream::over(stream, visit.config.limits);
        Session { visit, client, fresh, served: 0, seat, counted }
    }

    /// Says over TLS that nothing more comes, which is an end and no cut then. It goes out as the connection closes.
    fn say_end(&mut self) {
        let stream = self.client.stream();
        if stream.transport().tls().is_some() {
            // Nobody waits for it.
            let _ = stream.transport().poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Takes the core's config, where that is another by now.
    fn follow_config(&mut self) -> bool {
        let visit = &mut self.visit;
        let is_old = visit.config.generation != visit.shared.generation.get();
        if is_old {
            visit.config = visit.shared.config();
            self.client.conn().set_limits(visit.config.limits);
        }
        is_old
    }

    async fn run(&mut self) -> Flow {
        loop {
            let (head, len) = match self.next_head().await {
                Next::Request(head, len) => (head, len),
                Next::Over => return Flow::Over,
                Next::Http2 => return Flow::Http2,
                Next::HeadTimeout => {
                    let text = "the request was too slow";
                    return self.refuse(StatusCode::REQUEST_TIMEOUT, text, "header-timeout");
                }
                Next::Malformed(error) => {
                    let cause = format!("bad-request ({error})");
                    return self.refuse(error.status(), error.reason(), &cause);
                }
            };
            self.served += 1;
            let last = self
                .visit
                .config
                .spec
                .limits()
                .requests_per_connection
                .is_some_and(|most| self.served >= most);
            if last || self.visit.is_draining() {
                self.client.conn().close_after_response();
            }
            let client = Downstream::Http1(&mut self.client);
            let mut exchange = Exchange::new(&mut self.visit, client, head, len);
            let flow = exchange.run().await;
            drop(exchange);
            if flow != Flow::Continue {
                return flow;
            }
            // The end is told before what is left of a body is read: the client may wait for it.
            if self.client.conn().wants_close()
                || (self.client.conn().remaining_body() != RemainingBody::None
                    && (!self.drain_body().await || self.client.conn().wants_close()))
            {
                return Flow::Close;
            }
        }
    }

    /// Waits for the next request, as long as the connection may be idle and then as long as a head may take.
    async fn next_head(&mut self) -> Next {
        self.follow_config();
        let now = self.visit.shared.core.time();
        let mut head_began: Option<CoreTime> = self.client.has_input().then_some(now);
        let mut idle_until = now + self.idle_time();
        let mut drain_seen = false;
        poll_fn(|cx| {
            self.visit.shared.sessions.borrow_mut().watch(self.seat.at, cx.waker());
            if self.follow_config() {
                idle_until = self.visit.shared.core.time() + self.idle_time();
            }
            if let Some(next) = self.poll_head(cx) {
                return Poll::Ready(next);
            }
            let now = self.visit.shared.core.time();
            if !self.client.has_input() {
                head_began = None;
                // A fresh connection may still say what it came for, soon; one that has been served is done.
                if self.visit.is_draining() && self.served > 0 {
                    return Poll::Ready(Next::Over);
                }
                if self.visit.is_draining() && !drain_seen {
                    drain_seen = true;
                    idle_until = idle_until.min(now + DRAIN_GRACE);
                }
                self.visit.timer.reset_to(idle_until);
            } else {
                let began = *head_began.get_or_insert(now);
                // Half a head must not keep a chunk of the pool for as long as its client likes.
                self.client.compact();
                self.visit.timer.reset_to(began + self.visit.config.spec.timeouts().header);
            }
            if self.visit.timer.poll_elapsed(cx).is_ready() {
                return Poll::Ready(if head_began.is_some() { Next::HeadTimeout } else { Next::Over });
            }
            Poll::Pending
        })
        .await
    }

    /// How long the next request may take to begin.
    fn idle_time(&self) -> Duration {
        let timeouts = self.visit.config.spec.timeouts();
        if self.served == 0 { timeouts.header } else { timeouts.keep_alive_idle }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Option<Next> {
        if self.fresh.is_some() {
            match self.poll_preface(cx) {
                Poll::Ready(false) => self.fresh = None,
                Poll::Ready(true) => return Some(Next::Http2),
                Poll::Pending => return None,
            }
        }
        // A client that reads none of its responses is not read from either.
        match self.client.poll_sent(cx, TxLevel::Below(HIGH_WATER)) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Some(Next::Over),
            Poll::Pending => return None,
        }
        loop {
            return match self.client.poll_event(cx) {
                Poll::Pending => None,
                Poll::Ready(Ok(ServerEvent::Head(head, len))) => Some(Next::Request(head, len)),
                // Of a request whose response was faster than its end.
                Poll::Ready(Ok(ServerEvent::End)) => continue,
                Poll::Ready(Err(ServeError::Protocol(error))) if self.client.conn().can_respond() => {
                    Some(Next::Malformed(error))
                }
                // A listener's deadline for a receive.
                Poll::Ready(Err(ServeError::Io(error)))
                    if matches!(DeadlineError::of(&error), Some(DeadlineError::Read(_)))
                        && self.client.has_input() =>
                {
                    Some(Next::HeadTimeout)
                }
                Poll::Ready(_) => Some(Next::Over),
            };
        }
    }

    /// Whether the first bytes are the preface of HTTP/2.
    fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let stream = self.client.stream();
        loop {
            let len = stream.rx().len().min(PREFACE_BYTES);
            match detect_preface(stream.rx().gather(len)) {
                Preface::Http2 => return Poll::Ready(true),
                Preface::Incomplete => match ready!(stream.poll_fill(cx, PREFACE_BYTES)) {
                    Ok(true) => {}
                    // The machine of HTTP/1.1 says what is wrong.
                    Ok(false) | Err(_) => return Poll::Ready(false),
                },
                _ => return Poll::Ready(false),
            }
        }
    }

    /// Answers what is no request, or not a whole one, and closes.
    fn refuse(&mut self, status: StatusCode, text: &str, cause: &str) -> Flow {
        self.client.conn().stop_reading();
        let flow = self.visit.refuse(&mut Downstream::Http1(&mut self.client), (status, text), cause);
        if flow == Flow::Continue { Flow::Close } else { flow }
    }

    /// Reads what is left of an answered request's body; false when that is too much.
    async fn drain_body(&mut self) -> bool {
        let mut left = match self.client.conn().remaining_body() {
            RemainingBody::None => return true,
            RemainingBody::Known(bytes) if bytes > DRAIN_BYTES => return false,
            RemainingBody::Known(_) | RemainingBody::Unknown => DRAIN_BYTES,
        };
        self.visit.timer.reset_to(self.visit.shared.core.time() + LINGER_TIME);
        poll_fn(|cx| {
            while self.client.conn().remaining_body() != RemainingBody::None {
                match self.client.poll_event(cx) {
                    Poll::Ready(Ok(ServerEvent::Data(data))) if data.len() as u64 <= left => {
                        left -= data.len() as u64
                    }
                    Poll::Ready(Ok(ServerEvent::Trailers(_) | ServerEvent::End)) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.visit.timer.poll_elapsed(cx).map(|()| false),
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Sends what waits, ends our side, and reads on for a moment: closing with unread bytes would reset the
    /// connection, and the client would lose the response. RFC 9112 9.6.
    async fn linger(&mut self) {
        let write_idle = self.visit.config.spec.timeouts().write_idle;
        self.visit.timer.reset_to(self.visit.shared.core.time() + write_idle);
        let stream = self.client.stream();
        if stream.start_send().is_err() {
            return;
        }
        let timer = &mut self.visit.timer;
        let sent = poll_fn(|cx| match stream.transport().poll_shutdown(cx) {
            Poll::Ready(end) => Poll::Ready(end.is_ok()),
            Poll::Pending => timer.poll_elapsed(cx).map(|()| false),
        });
        if !sent.await {
            return;
        }
        timer.reset_to(self.visit.shared.core.time() + LINGER_TIME);
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            while left > 0 {
                let waiting = stream.rx().len();
                stream.rx().consume(waiting);
                left = left.saturating_sub(waiting);
                match stream.poll_fill(cx, LINGER_BYTES) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return timer.poll_elapsed(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// A connection's place among those of its core, from its first byte to its end.
pub(super) struct Seat {
    shared: Rc<Shared>,
    at: usize,
}

impl Seat {
    pub(super) fn take(shared: &Rc<Shared>) -> Self {
        shared.stats.connections.inc();
        shared.stats.connections_active.inc();
        let at = shared.sessions.borrow_mut().sit();
        Seat { shared: shared.clone(), at }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.sessions.borrow_mut().leave(self.at);
        self.shared.stats.connections_active.dec();
    }
}

/// The sessions of a core: how many, and how to wake them all.
#[derive(Default)]
pub(crate) struct Sessions {
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
    count: usize,
    empty: Option<Waker>,
}

impl Sessions {
    fn sit(&mut self) -> usize {
        self.count += 1;
        self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        })
    }

    fn watch(&mut self, seat: usize, waker: &Waker) {
        if !self.seats[seat].as_ref().is_some_and(|seated| seated.will_wake(waker)) {
            self.seats[seat] = Some(waker.clone());
        }
    }

    fn leave(&mut self, seat: usize) {
        self.seats[seat] = None;
        self.free.push(seat);
        self.count -= 1;
        if self.count == 0
            && let Some(waker) = self.empty.take()
        {
            waker.wake();
        }
    }

    pub(crate) fn wake_all(&self) {
        self.seats.iter().flatten().for_each(Waker::wake_by_ref);
    }

    pub(crate) fn poll_empty(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.count == 0 {
            return Poll::Ready(());
        }
        self.empty = Some(cx.waker().clone());
        Poll::Pending
    }
}
