//! The connection: when h2 is polled, and what becomes of what it says.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream, client, server};
use http::{HeaderMap, Method, Request, Response};
use ringport_platform::buf::{RxQueue, TxQueue};

use super::error::{Code, Error, SendError};
use super::meter::Meter;
use super::pipe::{Io, Pipe};
use super::ready::{Ready, conn_waker, place_waker};
use super::spec::{KeepAlive, Spec};
use super::stream::{Rx, Stream, Tx, announce};
use super::{Event, StreamId};
use crate::proto::http1::BodyLen;
use crate::proto::mapping::{Protocol, check_request, request_body};

/// A connection in either role; see the [module](super) for its states and the order of calls.
///
/// A server is told of requests and answers each by [`Conn::send_head`], any number of [`Conn::send_data`], then once either
/// [`Conn::finish`] or [`Conn::send_trailers`], also where there is no body. A client makes them by [`Conn::open`], and goes
/// on in the same way. In either role [`Event::End`], or a reset, ends what is received of a stream.
pub struct Conn {
    inner: Inner,
    pipe: Rc<RefCell<Pipe>>,
    ready: Arc<Ready>,
    waker: Waker,
    /// INVARIANT: a place that is taken is not in `free`.
    places: Vec<Option<Stream>>,
    /// Of each place that was ever taken.
    wakers: Vec<Waker>,
    free: Vec<usize>,
    /// The place that was looked at last, so that streams take turns.
    last_place: usize,
    /// The highest stream that was handed up: those above it may be tried again elsewhere.
    last_request: u32,
    spec: Spec,
    failed: Option<Error>,
    eof: bool,
    draining: bool,
    /// The place of the stream that was opened last, while it waits in h2, which opens no other before.
    opening: Option<usize>,
    /// No stream of a client has a higher number.
    pub(super) last_stream: u32,
    told: Told,
    keep_alive: Option<Liveness>,
    ping: Option<PingPong>,
}

enum Inner {
    Handshake(Box<server::Handshake<Io, Bytes>>),
    Server(Box<server::Connection<Io, Bytes>>),
    Client { conn: Box<client::Connection<Io, Bytes>>, requests: Option<client::SendRequest<Bytes>> },
    Closed,
}

/// What the caller has been told, and is not told twice.
#[derive(Default)]
struct Told {
    going_away: bool,
    end: bool,
}

/// When a silent peer is asked, and given up.
struct Liveness {
    spec: KeepAlive,
    due: Instant,
    /// A PING is on its way.
    asked: bool,
}

impl Conn {
    /// The server's side of a fresh connection, whose client begins with the preface.
    pub fn server(spec: Spec, now: Instant) -> Self {
        let spec = spec.clamped();
        let (io, pipe) = pipe(Meter::server(spec.budgets, now), &spec, now);
        let handshake = spec.server_builder().handshake(io);
        Conn::new(Inner::Handshake(Box::new(handshake)), pipe, spec, now)
    }

    /// The client's side of a fresh connection. Requests may be opened at once.
    pub fn client(spec: Spec, now: Instant) -> Self {
        let spec = spec.clamped();
        let (io, pipe) = pipe(Meter::client(spec.budgets, now), &spec, now);
        let mut handshake = std::pin::pin!(spec.client_builder().handshake(io));
        let Poll::Ready(Ok((requests, conn))) =
            handshake.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            unreachable!("an empty pipe has room for the preface");
        };
        let inner = Inner::Client { conn: Box::new(conn), requests: Some(requests) };
        let mut conn = Conn::new(inner, pipe, spec, now);
        conn.take_ping();
        conn
    }

    fn new(inner: Inner, pipe: Rc<RefCell<Pipe>>, spec: Spec, now: Instant) -> Self {
        let ready = Ready::new(spec.max_places());
        let keep_alive =
            spec.keep_alive.map(|spec| Liveness { spec, due: now + spec.interval, asked: false });
        Conn {
            inner,
            pipe,
            waker: conn_waker(&ready),
            ready,
            places: Vec::new(),
            wakers: Vec::new(),
            free: Vec::new(),
            last_place: 0,
            last_request: 0,
            spec,
            failed: None,
            eof: false,
            draining: false,
            opening: None,
            last_stream: LAST_STREAM,
            told: Told::default(),
            keep_alive,
            ping: None,
        }
    }

    /// Takes what it can of `rx` and says what comes next. Call it until it says [`Event::NeedInput`] or [`Event::Closed`].
    ///
    /// # Errors
    /// Why the connection is over, with all its streams; the same again on every later call.
    pub fn poll_event(&mut self, now: Instant, rx: &mut RxQueue) -> Result<Event, Error> {
        self.pipe.borrow_mut().now = now;
        loop {
            if let Some(event) = self.poll_streams() {
                return Ok(event);
            }
            if let Some(error) = self.failed {
                self.told.end = true;
                rx.consume(rx.len());
                return Err(error);
            }
            if !self.told.going_away && self.pipe.borrow().meter.is_going_away() {
                self.told.going_away = true;
                return Ok(Event::GoAway);
            }
            if matches!(self.inner, Inner::Closed) {
                self.told.end = true;
                rx.consume(rx.len());
                return Ok(Event::Closed);
            }
            self.take_input(now, rx);
            if !self.ready.has_conn() {
                return Ok(Event::NeedInput);
            }
            self.drive();
        }
    }

    fn take_input(&mut self, now: Instant, rx: &mut RxQueue) {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.fill(rx) {
            self.ready.set_conn();
            if let Some(liveness) = &mut self.keep_alive {
                liveness.asked = false;
                liveness.due = now + liveness.spec.interval;
            }
        }
        if self.eof && rx.is_empty() && pipe.end() {
            self.ready.set_conn();
        }
    }

    /// Notes that the peer will send nothing more. What is in the queue is read still; then poll.
    pub fn handle_eof(&mut self) {
        self.eof = true;
    }

    /// Moves to `tx` what is to be sent, up to [`Spec::output_bytes`] waiting there.
    pub fn poll_output(&mut self, now: Instant, tx: &mut TxQueue) {
        self.pipe.borrow_mut().now = now;
        while tx.len() < self.spec.output_bytes {
            self.drive();
            let mut pipe = self.pipe.borrow_mut();
            if !pipe.has_output() {
                break;
            }
            if pipe.drain(tx) {
                self.ready.set_conn();
            }
        }
    }

    /// Whether there may be an event although nothing was received since: poll again then.
    pub fn has_event(&self) -> bool {
        let over = self.failed.is_some() || matches!(self.inner, Inner::Closed);
        self.ready.has_any() || (over && !self.told.end)
    }

    /// Whether a turn would do anything although nothing was received since: an event, or something to send.
    pub fn has_work(&self) -> bool {
        self.has_event() || self.ready.has_conn() || self.pipe.borrow().has_output()
    }

    /// When [`Conn::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let open = self.failed.is_none() && !matches!(self.inner, Inner::Closed);
        self.keep_alive.as_ref().filter(|_| open).map(|liveness| liveness.due)
    }

    /// Asks a silent peer for a sign of life, or gives it up. Nothing before it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        self.pipe.borrow_mut().now = now;
        let Some(liveness) = &mut self.keep_alive else { return };
        if std::mem::replace(&mut liveness.asked, true) {
            return self.end(Error::KeepAlive, Code::NO_ERROR, "keep-alive timeout");
        }
        liveness.due = now + liveness.spec.timeout;
        if let Some(ping) = &mut self.ping {
            // The answer to the one before; one that is still on its way does as well.
            let _ = ping.poll_pong(&mut Context::from_waker(&self.waker));
            let _ = ping.send_ping(Ping::opaque());
            self.ready.set_conn();
        }
    }

    /// Takes no more streams and ends once those that are open have: GOAWAY, as RFC 9113 6.8 has it twice, in the server's role.
    pub fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        match &mut self.inner {
            Inner::Server(conn) => conn.graceful_shutdown(),
            Inner::Client { requests, .. } => *requests = None,
            Inner::Handshake(_) | Inner::Closed => {}
        }
        self.ready.set_conn();
    }

    /// Ends the connection and all its streams now, with GOAWAY of that code.
    pub fn close(&mut self, code: Code) {
        if self.failed.is_none() && !matches!(self.inner, Inner::Closed) {
            self.end(Error::Closed(code), code, "");
        }
    }

    /// Whether nothing will be read or written any more: close once the driver's queue is empty.
    pub fn wants_close(&self) -> bool {
        let over = self.failed.is_some() || matches!(self.inner, Inner::Closed);
        over && !self.pipe.borrow().has_output()
    }

    /// Whether no more than the preface has come, or not even that.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.inner, Inner::Handshake(_))
    }

    /// Streams that are open.
    pub fn open_count(&self) -> usize {
        self.places.iter().flatten().filter(|stream| stream.is_open()).count()
    }

    /// Streams that a client may open now.
    pub fn room(&self) -> usize {
        let Inner::Client { conn, requests: Some(_) } = &self.inner else { return 0 };
        if self.opening.is_some() || !self.takes_streams() {
            return 0;
        }
        let max = conn.max_concurrent_send_streams().min(self.spec.max_streams as usize);
        let places = self.spec.max_places() - self.places.len() + self.free.len();
        max.saturating_sub(self.open_count()).min(places)
    }

    /// Whether a client may open streams, now or when others have ended: there is no end, no GOAWAY and no drain.
    pub fn takes_streams(&self) -> bool {
        let open = matches!(self.inner, Inner::Client { requests: Some(_), .. }) && self.failed.is_none();
        open && !self.eof && !self.pipe.borrow().meter.is_going_away()
    }

    /// Whether the connection is over, with all its streams.
    pub fn is_over(&self) -> bool {
        self.failed.is_some() || matches!(self.inner, Inner::Closed)
    }

    /// Why the connection is over; `None` also where it ended in order.
    pub fn failure(&self) -> Option<Error> {
        self.failed
    }

    /// Whether anything of a stream that a client opened was written: else the peer knows nothing of it.
    pub fn was_sent(&self, id: StreamId) -> bool {
        !self.pipe.borrow().meter.is_unsent(id.number)
    }

    /// Gives back the memory that is of no use while the connection is idle, a few KiB.
    pub fn release_idle(&mut self) {
        self.pipe.borrow_mut().release_idle();
        if self.free.len() == self.places.len() {
            self.places = Vec::new();
            self.free = Vec::new();
            self.wakers = Vec::new();
        }
    }

    /// Opens a stream with a request, in the client's role. The length of the body is said by the machine.
    ///
    /// The target has scheme and authority, for CONNECT the authority alone.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn open(&mut self, mut head: Request<()>, body: BodyLen) -> Result<StreamId, SendError> {
        let room = self.room();
        let Inner::Client { requests: Some(requests), .. } = &mut self.inner else {
            let client = matches!(self.inner, Inner::Client { .. } | Inner::Closed);
            return Err(if client { SendError::Closing } else { SendError::State });
        };
        if self.failed.is_some() || self.eof || self.pipe.borrow().meter.is_going_away() {
            return Err(SendError::Closing);
        }
        head.headers_mut().remove(http::header::CONTENT_LENGTH);
        check_request(&head)?;
        let protocol = head.extensions_mut().remove::<Protocol>();
        let tx = plan_request(&mut head, body, protocol.is_some())?;
        if let Some(Protocol(name)) = protocol {
            if !requests.is_extended_connect_protocol_enabled() {
                return Err(SendError::ExtendedConnect);
            }
            head.extensions_mut().insert(h2::ext::Protocol::from(name.as_str()));
        }
        if room == 0 {
            return Err(SendError::TooManyStreams);
        }
        let cx = &mut Context::from_waker(&self.waker);
        match requests.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(SendError::Closing),
            Poll::Pending => unreachable!("there is room only while none waits"),
        }
        let method = head.method().clone();
        let sent = requests.send_request(head, tx == Tx::Ended);
        let (response, send) = sent.map_err(|error| {
            // What is left is what h2 says of the head.
            let is_over = error.reason().is_some() || error.is_io();
            if is_over { SendError::Closing } else { SendError::State }
        })?;
        let is_opening = requests.poll_ready(cx).is_pending();
        let number = send.stream_id().as_u32();
        if number >= self.last_stream {
            self.drain();
        }
        let id = self.add(number, method, Rx::Response(response), tx);
        self.opening = is_opening.then_some(id.place as usize);
        if let Some(stream) = &mut self.places[id.place as usize] {
            stream.send = Some(send);
        }
        Ok(id)
    }

    /// Sends an informational response, 100 or 103, before the final one, in the server's role. RFC 9110 15.2.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_informational(&mut self, id: StreamId, head: Response<()>) -> Result<(), SendError> {
        self.stream(id)?.send_informational(head)
    }

    /// Sends the head of the final response, in the server's role.
    ///
    /// `body` is the length that the response has, or would have if the request were not HEAD; the machine says it. To CONNECT
    /// a 2xx takes [`BodyLen::Tunnel`]. [`Conn::finish`] is due also where no body may follow.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_head(&mut self, id: StreamId, head: Response<()>, body: BodyLen) -> Result<(), SendError> {
        self.stream(id)?.send_response(head, body)
    }

    /// Sends a part of the body, or bytes of the tunnel. What is taken is sent as the windows allow.
    ///
    /// # Errors
    /// [`SendError::Full`] while as much waits as may, and whatever else does not fit; nothing was taken.
    pub fn send_data(&mut self, id: StreamId, data: Bytes) -> Result<(), SendError> {
        let stream = self.stream(id)?;
        stream.send_data(data)?;
        if stream.wants_room {
            // So that h2 is asked, and knows whom to wake.
            self.ready.set(id.place as usize);
        }
        Ok(())
    }

    /// Whether [`Conn::send_data`] takes a segment. [`Event::Writable`] follows a no, unless the stream is done.
    pub fn can_send(&self, id: StreamId) -> bool {
        let stream = self.places.get(id.place as usize).and_then(Option::as_ref);
        stream.is_some_and(|stream| stream.id == id && matches!(stream.tx, Tx::Body(_)) && !stream.wants_room)
    }

    /// Whether [`Event::Writable`] is due.
    pub fn is_full(&self, id: StreamId) -> bool {
        let stream = self.places.get(id.place as usize).and_then(Option::as_ref);
        stream.is_some_and(|stream| stream.id == id && stream.wants_room)
    }

    /// Whether more of a message is to be handed over than that it is finished.
    pub fn is_sending(&self, id: StreamId) -> bool {
        let stream = self.places.get(id.place as usize).and_then(Option::as_ref);
        stream.is_some_and(|stream| stream.id == id && matches!(stream.tx, Tx::Head | Tx::Body(_)))
    }

    /// Ends a message whose length was not announced with trailers.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_trailers(&mut self, id: StreamId, trailers: HeaderMap) -> Result<(), SendError> {
        self.stream(id)?.send_trailers(trailers)?;
        self.forget_done(id);
        Ok(())
    }

    /// Ends a message.
    ///
    /// # Errors
    /// [`SendError::BodyTooShort`]: the stream was reset, so that the peer does not take a part for the whole.
    pub fn finish(&mut self, id: StreamId) -> Result<(), SendError> {
        let finished = self.stream(id)?.finish();
        if matches!(finished, Err(SendError::BodyTooShort { .. })) {
            self.forget(id);
        }
        finished?;
        self.forget_done(id);
        Ok(())
    }

    /// Says that the far side has taken bytes of [`Event::Data`], so that the peer may send as many. What is said beyond what
    /// was handed up, or of a stream that is no more, is ignored.
    pub fn release(&mut self, id: StreamId, bytes: usize) {
        let Ok(stream) = self.stream(id) else { return };
        let bytes = bytes.min(stream.unreleased);
        stream.unreleased -= bytes;
        if let Some(body) = &mut stream.body {
            // It fails only for more than h2 has handed out.
            let released = body.flow_control().release_capacity(bytes);
            debug_assert!(released.is_ok());
        }
        self.forget_done(id);
    }

    /// Ends a stream, both ways; no event of it follows. A server that has answered and needs no more of a request says
    /// [`Code::NO_ERROR`] (RFC 9113 8.1).
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if let Ok(stream) = self.stream(id) {
            stream.send_reset(code);
            self.forget(id);
        }
    }

    /// Polls h2 as long as it asks for it.
    fn drive(&mut self) {
        while self.failed.is_none() && self.ready.take_conn() {
            let flood = self.pipe.borrow().flood();
            if let Some(flood) = flood {
                return self.end(Error::Flood(flood), Code::ENHANCE_YOUR_CALM, flood.reason());
            }
            let waker = self.waker.clone();
            let cx = &mut Context::from_waker(&waker);
            match &mut self.inner {
                Inner::Handshake(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(conn)) => self.opened(conn),
                    Poll::Ready(Err(error)) => self.fail(&error),
                    Poll::Pending => {}
                },
                Inner::Server(conn) => match conn.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.accept(request, respond);
                        self.ready.set_conn();
                    }
                    Poll::Ready(Some(Err(error))) => self.fail(&error),
                    Poll::Ready(None) => self.inner = Inner::Closed,
                    Poll::Pending => {}
                },
                Inner::Client { conn, requests } => match Pin::new(conn).poll(cx) {
                    Poll::Ready(Ok(())) => self.inner = Inner::Closed,
                    Poll::Ready(Err(error)) => self.fail(&error),
                    Poll::Pending => {
                        if let (Some(place), Some(requests)) = (self.opening, requests) {
                            // It takes the waker of that stream away.
                            self.ready.set(place);
                            self.opening = requests.poll_ready(cx).is_pending().then_some(place);
                        }
                    }
                },
                Inner::Closed => {}
            }
            // Of what was sent, the meter counts too.
            if self.pipe.borrow().flood().is_some() {
                self.ready.set_conn();
            }
        }
    }

    fn opened(&mut self, mut conn: server::Connection<Io, Bytes>) {
        if self.draining {
            conn.graceful_shutdown();
        }
        self.inner = Inner::Server(Box::new(conn));
        self.take_ping();
        self.ready.set_conn();
    }

    fn take_ping(&mut self) {
        if self.keep_alive.is_some() {
            self.ping = match &mut self.inner {
                Inner::Server(conn) => conn.ping_pong(),
                Inner::Client { conn, .. } => conn.ping_pong(),
                Inner::Handshake(_) | Inner::Closed => None,
            };
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let mut head = Request::from_parts(parts, ());
        if let Some(protocol) = head.extensions_mut().remove::<h2::ext::Protocol>() {
            head.extensions_mut().insert(Protocol(protocol.as_str().to_owned()));
        }
        let checked = check_request(&head).and_then(|()| request_body(&head, body.is_end_stream()));
        let Ok(body_len) = checked else { return respond.send_reset(Code::PROTOCOL_ERROR.0.into()) };
        if self.free.is_empty() && self.places.len() >= self.spec.max_places() {
            // Bytes of as many streams are handed up and not released.
            return respond.send_reset(Code::REFUSED_STREAM.0.into());
        }
        let number = respond.stream_id().as_u32();
        let method = head.method().clone();
        let id = self.add(number, method, Rx::Request(Box::new(head), body_len), Tx::Head);
        if let Some(stream) = &mut self.places[id.place as usize] {
            stream.body = Some(body);
            stream.respond = Some(respond);
        }
    }

    fn add(&mut self, number: u32, method: Method, rx: Rx, tx: Tx) -> StreamId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            let place = self.places.len() - 1;
            self.wakers.push(place_waker(&self.ready, place));
            place
        });
        let id = StreamId { place: place as u32, number };
        self.places[place] = Some(Stream {
            id,
            method,
            rx,
            tx,
            body: None,
            respond: None,
            send: None,
            unreleased: 0,
            wants_room: false,
            informational_count: 0,
        });
        self.ready.set(place);
        id
    }

    /// The next event of the streams, each in its turn.
    fn poll_streams(&mut self) -> Option<Event> {
        while let Some(place) = self.ready.take_behind(self.last_place) {
            self.last_place = place;
            let Some(stream) = self.places.get_mut(place).and_then(Option::as_mut) else { continue };
            let cx = &mut Context::from_waker(&self.wakers[place]);
            let Some(mut event) = stream.poll(cx, self.spec.informational_count) else { continue };
            let id = stream.id;
            match &mut event {
                Event::Reset { unprocessed, .. } => {
                    *unprocessed |= !self.was_sent(id);
                    self.forget(id);
                }
                Event::End { .. } => {
                    self.ready.set(place);
                    self.forget_done(id);
                }
                Event::Request { .. } => {
                    self.last_request = self.last_request.max(id.number);
                    self.ready.set(place);
                }
                _ => self.ready.set(place),
            }
            return Some(event);
        }
        None
    }

    fn stream(&mut self, id: StreamId) -> Result<&mut Stream, SendError> {
        let stream = self.places.get_mut(id.place as usize).and_then(Option::as_mut);
        stream.filter(|stream| stream.id == id).ok_or(SendError::Gone)
    }

    fn forget_done(&mut self, id: StreamId) {
        if self.stream(id).is_ok_and(|stream| stream.is_done()) {
            self.forget(id);
        }
    }

    /// Drops what h2 gave for the stream; what it was handed over is sent still.
    fn forget(&mut self, id: StreamId) {
        if self.stream(id).is_ok() {
            self.places[id.place as usize] = None;
            self.free.push(id.place as usize);
        }
    }

    /// h2 has ended the connection, and said so to the peer.
    fn fail(&mut self, error: &h2::Error) {
        self.failed = Some(Error::of_connection(error));
        self.inner = Inner::Closed;
        // What it has not read pins memory of the driver's pool.
        self.pipe.borrow_mut().end_frame();
    }

    /// Ends the connection from here: behind the frame that h2 has begun, GOAWAY.
    fn end(&mut self, error: Error, code: Code, debug: &str) {
        let unfinished = self.pipe.borrow_mut().end_frame();
        if unfinished {
            // Whatever it says, no more than the rest of that frame is taken from it.
            let cx = &mut Context::from_waker(&self.waker);
            match &mut self.inner {
                Inner::Handshake(handshake) => drop(Pin::new(handshake).poll(cx)),
                Inner::Server(conn) => drop(conn.poll_closed(cx)),
                Inner::Client { conn, .. } => drop(Pin::new(conn).poll(cx)),
                Inner::Closed => {}
            }
        }
        self.inner = Inner::Closed;
        self.places.clear();
        self.free.clear();
        self.wakers.clear();
        self.failed = Some(error);
        let mut pipe = self.pipe.borrow_mut();
        if !pipe.end_frame() {
            pipe.put_go_away(self.last_request, code.0, debug);
        }
    }
}

/// There is none above it. RFC 9113 5.1.1.
const LAST_STREAM: u32 = (1 << 31) - 1;

/// How the body of a request is sent, which its head says.
fn plan_request(head: &mut Request<()>, body: BodyLen, extended: bool) -> Result<Tx, SendError> {
    let tunnel = *head.method() == Method::CONNECT;
    if tunnel != (body == BodyLen::Tunnel) || body == BodyLen::UntilClose {
        return Err(SendError::BodyLen);
    }
    if !tunnel || extended {
        let uri = head.uri();
        if uri.scheme().is_none() || uri.authority().is_none() {
            return Err(SendError::Malformed(crate::proto::mapping::Malformed::NoAuthority));
        }
    }
    *head.version_mut() = http::Version::HTTP_2;
    announce(head.headers_mut(), body, false)
}

fn pipe(meter: Meter, spec: &Spec, now: Instant) -> (Io, Rc<RefCell<Pipe>>) {
    let pipe = Rc::new(RefCell::new(Pipe::new(meter, now, spec.output_bytes)));
    (Io(pipe.clone()), pipe)
}
