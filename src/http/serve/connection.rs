//! A client's connection, driven by one task.

mod deadlines;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::StatusCode;
use ringport_platform::timer::later;

use self::deadlines::Sending;
use super::date::dated;
use super::exchange::Exchange;
use super::shared::{Over, Shared, Slot, State};
use super::{Core, Handler, Seat, failed};
use crate::net::tls::Link;
use crate::net::{Bounded, Peer, Stream};
use crate::proto::http_conn::{Error, Event, Head, HttpConn};
use crate::proto::http1::{self, Limits};
use crate::proto::http2::{self, Code, Preface, StreamId, detect_preface};
use crate::runtime::{Runtime, Timer, TxLevel};
use crate::spec::HttpProtocol;

pub(super) struct Connection<R: Runtime> {
    runtime: R,
    core: Rc<Core>,
    stream: Stream<Link<Bounded<R>>>,
    shared: Rc<Shared>,
    /// The first bytes say the version.
    undecided: bool,
    failed: bool,
    eof: bool,
    /// Bytes of early data that have not come up yet, and whether what has come up last may be of it.
    early_bytes: u64,
    is_early: bool,
    served: u64,
    /// When a head, or the next request, was waited for first; none while one is answered.
    waiting_since: Option<Instant>,
    /// When the first byte of a head came.
    head_since: Option<Instant>,
    /// When it was told to drain.
    draining_since: Option<Instant>,
    sending: Sending,
    timer: R::Timer,
    due: Instant,
}

/// How a connection ends.
enum Ending {
    /// What was said is sent, our side ends, and what still comes is read for a moment.
    Orderly,
    /// The client must not take what it has for the whole.
    Abort,
    /// It takes nothing.
    Stalled,
    /// There is nobody.
    Gone,
}

impl<R: Runtime> Connection<R> {
    pub(super) fn new(
        runtime: &R,
        core: Rc<Core>,
        stream: Stream<Link<Bounded<R>>>,
        peer: Peer,
        seat: &Seat,
    ) -> Self {
        let mut stream = stream;
        let now = runtime.now();
        let tls = stream.transport().tls();
        let early_bytes = tls.as_ref().map_or(0, |tls| tls.early_bytes);
        let alpn = tls.map(|tls| tls.alpn.map(<[u8]>::to_vec));
        let spec = &core.spec;
        let is_http2 = match &alpn {
            Some(Some(name)) => name == HttpProtocol::Http2.name().as_bytes(),
            Some(None) | None => !spec.speaks(HttpProtocol::Http1),
        };
        let undecided =
            alpn.is_none() && spec.speaks(HttpProtocol::Http2) && spec.speaks(HttpProtocol::Http1);
        let conn = if is_http2 { core.http2(now) } else { core.http1() };
        let state = State {
            conn,
            tx: runtime.tx_queue(),
            slots: Vec::new(),
            is_full: false,
            send_buffer_bytes: spec.limits().send_buffer_bytes,
            driver: None,
            in_driver: false,
            again: false,
            draining: false,
            ends: false,
            cut: false,
        };
        let shared =
            Rc::new(Shared { state: state.into(), core: core.clone(), peer, is_tls: alpn.is_some() });
        seat.hold(&shared);
        let due = later(now, core.tick);
        Connection {
            runtime: runtime.clone(),
            timer: runtime.timer(due),
            core,
            stream,
            shared,
            undecided,
            failed: false,
            eof: false,
            early_bytes,
            is_early: early_bytes > 0,
            served: 0,
            waiting_since: Some(now),
            head_since: None,
            draining_since: None,
            sending: Sending::default(),
            due,
        }
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Answers requests to the end of the connection.
    pub(super) async fn run(mut self, handler: Rc<impl Handler>) {
        let make = |exchange| {
            let handler = handler.clone();
            async move { handler.handle(exchange).await }
        };
        let ending = {
            let mut running = pin!(None);
            poll_fn(|cx| self.poll(cx, running.as_mut(), &make)).await
        };
        self.shared.state().end_all(Over::Gone);
        match ending {
            Ending::Orderly => {
                let write_idle = self.core.spec.timeouts().write_idle;
                self.stream.linger(&self.runtime, write_idle).await;
            }
            Ending::Abort => self.abort().await,
            Ending::Stalled => self.stream.reset(),
            Ending::Gone => {}
        }
    }

    fn poll<F>(
        &mut self,
        cx: &mut Context<'_>,
        mut running: Pin<&mut Option<F>>,
        make: &impl Fn(Exchange) -> F,
    ) -> Poll<Ending>
    where
        F: Future<Output = Result<(), super::HandlerError>> + 'static,
    {
        {
            let mut state = self.shared.state();
            if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
                state.driver = Some(cx.waker().clone());
            }
            state.in_driver = true;
        }
        let ending = loop {
            self.shared.state().again = false;
            self.poll_handler(cx, running.as_mut());
            self.poll_events(running.as_mut(), make);
            if let Some(ending) = self.poll_io(cx) {
                break Poll::Ready(ending);
            }
            if self.shared.state().again {
                continue;
            }
            if self.poll_timer(cx).is_pending() {
                break Poll::Pending;
            }
        };
        let mut state = self.shared.state();
        state.in_driver = false;
        if ending.is_ready() {
            drop(state);
            running.set(None);
        }
        ending
    }

    /// Of HTTP/1.1: the one request's.
    fn poll_handler<F>(&self, cx: &mut Context<'_>, mut running: Pin<&mut Option<F>>)
    where
        F: Future<Output = Result<(), super::HandlerError>>,
    {
        let Some(future) = running.as_mut().as_pin_mut() else { return };
        let over = self.shared.state().slots.first().and_then(|slot| slot.over);
        if over.is_some_and(Over::cancels) || guarded(future, cx, &self.shared.peer).is_ready() {
            running.set(None);
            self.shared.state().again = true;
        }
    }

    /// Takes what the client said, and begins what it asks for.
    fn poll_events<F>(&mut self, mut running: Pin<&mut Option<F>>, make: &impl Fn(Exchange) -> F)
    where
        F: Future<Output = Result<(), super::HandlerError>> + 'static,
    {
        if self.undecided && !self.decide() {
            return;
        }
        let shared = self.shared.clone();
        while !self.failed {
            let mut state = shared.state();
            if state.ends || (running.is_some() && holds_back(&state)) {
                return;
            }
            let now = self.runtime.now();
            let event = state.conn.poll_event(now, self.stream.rx());
            let (id, head, body) = match event {
                Ok(Event::Request { id, head, body }) => (id, head, body),
                Ok(Event::NeedInput) => return,
                Ok(Event::Closed) => {
                    self.failed = true;
                    return;
                }
                Ok(event) => {
                    self.take(&mut state, event, now);
                    continue;
                }
                Err(error) => return self.fail(&mut state, error),
            };
            state.take_slot(id, now);
            let refusal = self.begin(&mut state, &head);
            drop(state);
            let mut exchange = Exchange::new(shared.clone(), id, head, body, self.is_early);
            if let Some(status) = refusal {
                let reason = status.canonical_reason().unwrap_or_default();
                // Where that cannot be sent there is nobody.
                let _ = exchange.respond(status, [("content-type", &b"text/plain"[..])], reason);
                continue;
            }
            // A handler that panics before its first await has dropped the exchange.
            let Ok(future) = catch_unwind(AssertUnwindSafe(|| make(exchange))) else { continue };
            if shared.state().conn.is_http2() {
                self.runtime.spawn(supervised(shared.clone(), id, future));
            } else {
                running.set(Some(future));
                shared.state().again = true;
            }
        }
    }

    /// Counts a request; with what it is refused, if it is, before a handler sees it.
    fn begin(&mut self, state: &mut State, head: &Head) -> Option<StatusCode> {
        let limits = self.core.spec.limits();
        self.served += 1;
        (self.waiting_since, self.head_since) = (None, None);
        if limits.requests_per_connection.is_some_and(|max| self.served >= max) {
            state.conn.drain();
        }
        // The machine of HTTP/1.1 has counted them.
        if let Head::Http2(request) = head
            && request.headers().len() > limits.header_count
        {
            return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        // RFC 8470 5.2: what came as early data, to us or to a gateway before, may be a copy.
        let is_early = self.is_early || head.get("early-data").is_some();
        (is_early && !head.method().is_safe()).then_some(StatusCode::TOO_EARLY)
    }

    /// Whether the version is known.
    fn decide(&mut self) -> bool {
        let rx = self.stream.rx();
        let len = rx.len().min(PREFACE_LEN);
        let preface = detect_preface(rx.gather(len));
        if preface == Preface::Incomplete && !self.eof {
            return false;
        }
        self.undecided = false;
        if preface == Preface::Http2 {
            let mut state = self.shared.state();
            state.conn = self.core.http2(self.runtime.now());
            if state.draining {
                state.conn.drain();
            }
        }
        true
    }

    fn take(&self, state: &mut State, event: Event, now: Instant) {
        state.again = true;
        match event {
            Event::Data { id, data } => {
                let limit = self.core.spec.limits().body_bytes;
                let len = data.len();
                let Some(slot) = state.slot(id) else { return state.conn.release(id, len) };
                if slot.discards {
                    return state.discard(id, len, now);
                }
                slot.received += len as u64;
                if limit.is_some_and(|limit| slot.received > limit) {
                    slot.end(Over::Refused(StatusCode::PAYLOAD_TOO_LARGE));
                    return state.conn.release(id, len);
                }
                slot.receiving_since = None;
                slot.queue.push_back(data);
                slot.wake();
            }
            Event::Trailers { id, trailers } => {
                if let Some(slot) = state.slot(id) {
                    slot.trailers = Some(trailers);
                }
            }
            Event::End { id } => {
                if let Some(slot) = state.slot(id) {
                    slot.ended = true;
                    slot.receiving_since = None;
                    if slot.discards {
                        slot.id = None;
                    }
                    slot.wake();
                }
            }
            Event::Writable { id } => {
                if let Some(slot) = state.slot(id) {
                    slot.sending_since = None;
                    slot.wake();
                }
            }
            Event::Reset { id } => {
                if let Some(slot) = state.slot(id) {
                    slot.end(Over::Gone);
                    if slot.discards {
                        slot.id = None;
                    }
                }
            }
            Event::NeedInput | Event::Request { .. } | Event::Closed => {}
        }
    }

    /// The client broke the rules: who waits for it is told, and it is, where it can be.
    fn fail(&mut self, state: &mut State, error: Error) {
        tracing::debug!(client = %self.shared.peer.client(), "HTTP: {error}");
        self.failed = true;
        let Error::Http1(error) = error else { return state.end_all(Over::Gone) };
        let over = match error {
            http1::Error::Incomplete => Over::Gone,
            error => Over::Refused(error.status()),
        };
        let is_answering = state.slots.first().is_some_and(|slot| slot.id.is_some() && !slot.discards);
        if is_answering {
            state.end_all(over);
            state.again = true;
        } else if state.conn.can_refuse() {
            self.refuse(state, error.status(), error.reason());
        } else {
            state.ends = true;
        }
    }

    /// Whether what came now may be early data: a pull may bring some of both kinds, and what it brings is taken for early then.
    fn count_early(&mut self, before: usize) {
        if !self.is_early {
            return;
        }
        if self.early_bytes == 0 && before == 0 {
            self.is_early = false;
        }
        let brought = self.stream.rx().len() - before;
        self.early_bytes = self.early_bytes.saturating_sub(brought as u64);
    }

    /// Answers what is no request, and reads nothing more.
    fn refuse(&self, state: &mut State, status: StatusCode, reason: &'static str) {
        let date = self.core.date();
        let State { conn, tx, .. } = state;
        conn.refuse(status, dated([], date.as_ref()), reason, tx);
    }

    /// Sends and receives; how the connection ends, if it does.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Option<Ending> {
        let shared = self.shared.clone();
        let mut state = shared.state();
        let state = &mut *state;
        if state.cut {
            state.conn.close(Code::NO_ERROR);
            let is_answering = state.slots.iter().any(|slot| slot.id.is_some());
            if !state.conn.is_http2() {
                return Some(if is_answering { Ending::Abort } else { Ending::Orderly });
            }
        }
        if state.draining && self.draining_since.is_none() {
            self.draining_since = Some(self.runtime.now());
            self.schedule(self.runtime.now());
        }
        let sent = match self.poll_send(cx, state) {
            Ok(sent) => sent,
            Err(_) => return Some(Ending::Gone),
        };
        if self.sending.is_given_up {
            return Some(Ending::Stalled);
        }
        if state.conn.is_aborted() {
            return Some(Ending::Abort);
        }
        if self.is_over(state) {
            return Some(Ending::Orderly);
        }
        if state.again || (state.conn.is_http2() && state.conn.has_event() && !self.failed) {
            state.again = true;
            return None;
        }
        // What the machine of HTTP/2 does not take waits for its output to go.
        if state.conn.is_http2() && sent && !self.stream.rx().is_empty() && !self.failed {
            state.again = true;
            return None;
        }
        self.poll_input(cx, state)
    }

    fn is_over(&self, state: &State) -> bool {
        let is_answering = state.slots.iter().any(|slot| slot.id.is_some() && !slot.discards);
        if state.ends {
            return !is_answering;
        }
        if state.conn.is_http2() {
            return state.conn.wants_close() || (self.failed && !state.conn.has_event());
        }
        // One that drains waits a moment for a request that is on its way.
        let is_expecting =
            self.draining_since.is_some() && self.waiting_since.is_some() && !self.eof && !self.failed;
        (state.conn.wants_close() && !is_expecting && !is_answering) || (self.failed && !is_answering)
    }

    /// Hands over what is to be sent; whether that was all there was room for.
    fn poll_send(&mut self, cx: &mut Context<'_>, state: &mut State) -> std::io::Result<bool> {
        let mark = if state.conn.is_http2() { HTTP2_UNSENT_BYTES } else { state.send_buffer_bytes };
        loop {
            if !state.tx.is_empty() {
                self.sending.handed += state.tx.len() as u64;
                self.stream.tx().append(&mut state.tx);
                self.stream.start_send()?;
            }
            let full = self.stream.poll_flush(cx, TxLevel::Below(mark))?.is_pending();
            if !full && !state.conn.is_http2() && state.slots.iter().any(|slot| slot.sending_since.is_some())
            {
                state.again = true;
                state.slots.iter_mut().for_each(Slot::wake);
            }
            state.is_full = full;
            if full {
                return Ok(false);
            }
            state.conn.poll_output(self.runtime.now(), &mut state.tx);
            if state.tx.is_empty() {
                return Ok(true);
            }
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, state: &mut State) -> Option<Ending> {
        if self.eof || self.stream.rx().len() >= PULL_BYTES {
            return None;
        }
        let before = self.stream.rx().len();
        match self.stream.poll_fill(cx, PULL_BYTES) {
            Poll::Ready(Ok(true)) => {
                state.again = true;
                self.count_early(before);
                let now = self.runtime.now();
                if self.waiting_since.is_some() {
                    self.head_since.get_or_insert(now);
                }
            }
            Poll::Ready(Ok(false)) => {
                self.eof = true;
                state.again = true;
                state.conn.handle_eof();
            }
            Poll::Ready(Err(_)) => return Some(Ending::Gone),
            Poll::Pending => {
                // Between two requests of HTTP/1.1, and while HTTP/2 has none.
                if self.waiting_since.is_none() && state.open_count() == 0 {
                    let now = self.runtime.now();
                    self.waiting_since = Some(now);
                    self.head_since = (!self.stream.rx().is_empty()).then_some(now);
                }
                if self.stream.tx().is_pool_short() {
                    self.stream.rx().compact();
                }
            }
        }
        None
    }

    /// Sends what waits, earlier responses among it, and resets.
    async fn abort(mut self) {
        self.timer.reset(later(self.runtime.now(), self.core.spec.timeouts().write_idle));
        let (stream, timer) = (&mut self.stream, &mut self.timer);
        poll_fn(|cx| match stream.poll_flush(cx, TxLevel::Empty) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => timer.poll_elapsed(cx),
        })
        .await;
        self.stream.reset();
    }
}

/// Of HTTP/1.1: a piece waits that the handler has not taken.
fn holds_back(state: &State) -> bool {
    !state.conn.is_http2() && state.slots.first().is_some_and(|slot| !slot.discards && !slot.queue.is_empty())
}

/// A handler in a task of its own, until its request is over.
async fn supervised<F>(shared: Rc<Shared>, id: StreamId, future: F)
where
    F: Future<Output = Result<(), super::HandlerError>>,
{
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Some(slot) = shared.state().slot(id) {
            if slot.over.is_some_and(Over::cancels) {
                return Poll::Ready(());
            }
            if !slot.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                slot.task = Some(cx.waker().clone());
            }
        }
        guarded(future.as_mut(), cx, &shared.peer)
    })
    .await;
}

/// Polls a handler; ready when it is done, has failed or has panicked, which is its own affair.
fn guarded<F>(future: Pin<&mut F>, cx: &mut Context<'_>, peer: &Peer) -> Poll<()>
where
    F: Future<Output = Result<(), super::HandlerError>>,
{
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => Poll::Ready(()),
        Ok(Poll::Ready(Err(error))) => {
            failed(peer, &*error);
            Poll::Ready(())
        }
        Err(_) => {
            tracing::error!(client = %peer.client(), "a handler panicked");
            Poll::Ready(())
        }
    }
}

impl Core {
    fn http1(&self) -> HttpConn {
        let limits = self.spec.limits();
        HttpConn::http1(Limits {
            request_line_bytes: limits.request_line_bytes,
            head_bytes: limits.header_bytes,
            header_count: limits.header_count,
            body_bytes: limits.body_bytes,
            ..Limits::default()
        })
    }

    fn http2(&self, now: Instant) -> HttpConn {
        let limits = self.spec.limits();
        let spec = http2::Spec {
            max_streams: limits.max_streams,
            header_list_bytes: u32::try_from(limits.header_bytes).unwrap_or(u32::MAX),
            stream_window_bytes: limits.stream_window_bytes,
            connection_window_bytes: limits.connection_window_bytes,
            send_buffer_bytes: u32::try_from(limits.send_buffer_bytes).unwrap_or(u32::MAX),
            ..http2::Spec::default()
        };
        HttpConn::http2(spec, now)
    }
}

const PREFACE_LEN: usize = 24;
/// Pulled at once, and pipelined bytes that wait while a request is answered.
const PULL_BYTES: usize = 64 * 1024;
/// Unsent bytes above which the machine of HTTP/2 holds the client back.
const HTTP2_UNSENT_BYTES: usize = 128 * 1024;
