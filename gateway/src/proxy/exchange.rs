//! One request: choose an origin, send, relay both ways, answer for the origin where it cannot.
//!
//! ```text
//! Choose --connected--> Sending --head of final response--> Answering --both sides ended--> done
//!    ^  \--no origin--> 503          |  \--no answer in time--> 504
//!    |   \--refused--> next origin, else 502 (504 where the connect was too slow)
//!    \---- origin gone before it answered, request idempotent and without body, or never sent ----/
//! ```
//! Until the head of the final response has been passed on, a fault of the origin is answered; after that the client's
//! connection is cut, because nothing else tells it that the response is not complete.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use ringport::http::{ClientError, ClientStream, ServeError};
use ringport::proto::http1::{BodyLen, ClientEvent, RequestHead, RequestLine, ServerEvent};
use ringport::runtime::native::NativeStream;
use ringport::runtime::{Runtime, TxLevel};
use ringport_platform::process;

use super::fields::{ForwardedFields, request_fields, response_fields};
use super::log;
use super::pool::{ActiveRequest, Origin};
use super::routes::Route;
use super::session::{Flow, HIGH_WATER, Session};

/// What went wrong with an attempt, and what the log calls it.
#[derive(Debug)]
enum Trouble {
    NoOrigin,
    Refused(std::io::Error),
    ConnectTimeout,
    /// This process has no descriptor or memory for a connection: no fault of the origin.
    Shortage(std::io::Error),
    /// The connection broke or spoke nonsense before the head of a final response.
    Broken(ClientError),
    ResponseTimeout,
    /// The client was too slow with its body.
    RequestTimeout,
    /// The client's body broke the rules.
    BadRequest(ringport::proto::http1::Error),
    /// The client went away.
    ClientGone,
    /// The head of a final response was passed on; the rest cannot be.
    Cut(String),
    /// The request cannot be said to an origin.
    Unsendable(ringport::proto::http1::SendError),
}

impl Trouble {
    fn cause(&self) -> String {
        match self {
            Trouble::NoOrigin => "no-origin".to_owned(),
            Trouble::Refused(error) => format!("refused ({error})"),
            Trouble::ConnectTimeout => "connect-timeout".to_owned(),
            Trouble::Shortage(error) => format!("shortage ({error})"),
            Trouble::Broken(error) => format!("broken ({error})"),
            Trouble::ResponseTimeout => "response-timeout".to_owned(),
            Trouble::RequestTimeout => "request-timeout".to_owned(),
            Trouble::BadRequest(error) => format!("bad-request ({error})"),
            Trouble::ClientGone => "client-gone".to_owned(),
            Trouble::Cut(why) => format!("cut ({why})"),
            Trouble::Unsendable(error) => format!("unsendable ({error})"),
        }
    }
}

/// A connection to an origin with the attempt that uses it.
struct Leg {
    origin: Rc<Origin>,
    stream: ClientStream<NativeStream>,
    reused: bool,
    _active: ActiveRequest,
}

/// How far the relay is.
struct Relay {
    request_ended: bool,
    /// Trailers were sent: the end that follows them says nothing new.
    request_trailed: bool,
    response_trailed: bool,
    /// The client's body has begun to flow: the request cannot be sent again.
    body_taken: bool,
    response_began: bool,
    response_ended: bool,
    tunnel: bool,
    status: u16,
    body_bytes: u64,
    last_progress: Instant,
    /// Waits for the client to read, or for the origin to take.
    client_full: bool,
    origin_full: bool,
}

/// A request being answered.
pub(super) struct Exchange<'a> {
    session: &'a mut Session,
    head: RequestHead,
    len: BodyLen,
    started: Instant,
    origin_name: String,
    /// The end was reached: dropping it before is a cut.
    settled: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(session: &'a mut Session, head: RequestHead, len: BodyLen) -> Self {
        let started = session.shared.core.now();
        session.shared.stats.requests.inc();
        session.shared.stats.requests_active.inc();
        Exchange { session, head, len, started, origin_name: String::new(), settled: false }
    }

    /// Answers the request.
    pub(super) async fn run(mut self) -> Flow {
        let flow = self.answer_or_relay().await;
        self.settled = true;
        flow
    }

    async fn answer_or_relay(&mut self) -> Flow {
        let route = self.session.shared.routes.find(self.head.authority(), self.head.path()).cloned();
        let Some(route) = route else {
            let flow = self.answer(StatusCode::NOT_FOUND, "no route for this host and path");
            self.log(404, 0, "no-route");
            return flow;
        };
        let mut relay = Relay::new(self.session.shared.core.now());
        match self.attempts(&route, &mut relay).await {
            Ok(flow) => {
                self.log(relay.status, relay.body_bytes, "ok");
                flow
            }
            Err(trouble) => self.settle(&trouble, &relay),
        }
    }

    /// Tries origins until one answers. `Err` when none did, or the response was cut.
    async fn attempts(&mut self, route: &Route, relay: &mut Relay) -> Result<Flow, Trouble> {
        let retries = route.pool.spec().retries;
        let mut tried: Vec<Rc<Origin>> = Vec::new();
        let mut stale_left = 2;
        let mut attempt = 0;
        let mut last = Trouble::NoOrigin;
        while attempt <= retries {
            let now = self.session.shared.core.now();
            // All origins tried: the same ones may be asked again.
            let Some(origin) = route.pool.pick(now, &tried).or_else(|| route.pool.pick(now, &[])) else {
                return Err(last);
            };
            self.origin_name.clone_from(&origin.name);
            let result = match self.connect(route, &origin).await {
                Ok(leg) => {
                    let reused = leg.reused;
                    let result = self.relay(route, leg, relay).await;
                    if let Err(Trouble::Broken(_)) = &result
                        && reused
                        && stale_left > 0
                        && self.may_repeat(relay)
                    {
                        // The origin closed a kept connection just as it was used: no fault of either side.
                        stale_left -= 1;
                        self.session.shared.stats.retries.inc();
                        continue;
                    }
                    result
                }
                Err(trouble) => Err(trouble),
            };
            let trouble = match result {
                Ok(flow) => {
                    route.pool.succeeded(&origin);
                    return Ok(flow);
                }
                Err(trouble) => trouble,
            };
            let unsent = matches!(trouble, Trouble::Refused(_) | Trouble::ConnectTimeout);
            let at_fault =
                unsent || matches!(trouble, Trouble::Broken(_) | Trouble::ResponseTimeout | Trouble::Cut(_));
            if at_fault {
                route.pool.failed(&origin, self.session.shared.core.now());
            }
            let again = unsent || (matches!(trouble, Trouble::Broken(_)) && self.may_repeat(relay));
            if !again {
                return Err(trouble);
            }
            if attempt < retries {
                self.session.shared.stats.retries.inc();
            }
            tried.push(origin);
            attempt += 1;
            last = trouble;
        }
        Err(last)
    }

    /// Whether sending the request again cannot do harm: nothing of a response was passed on, the method is idempotent
    /// and no body has been taken from the client. RFC 9110 9.2.2.
    fn may_repeat(&self, relay: &Relay) -> bool {
        let idempotent = matches!(
            *self.head.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        );
        idempotent && !relay.response_began && !relay.body_taken
    }

    async fn connect(&mut self, route: &Route, origin: &Rc<Origin>) -> Result<Leg, Trouble> {
        let shared = self.session.shared.clone();
        let active = origin.begin();
        if let Some(stream) = route.pool.take_idle(origin, shared.core.now()) {
            shared.stats.origin_reused.inc();
            return Ok(Leg { origin: origin.clone(), stream, reused: true, _active: active });
        }
        let Some(addr) = origin.next_addr() else {
            return Err(Trouble::Refused(std::io::Error::other("the origin's name has no address")));
        };
        let connecting = shared.runtime.connect(&addr);
        match shared.core.timeout(route.pool.spec().connect_timeout, connecting).await {
            Ok(Ok(transport)) => {
                shared.stats.origin_connects.inc();
                let stream = ClientStream::new(&shared.runtime, transport, shared.origin_limits);
                Ok(Leg { origin: origin.clone(), stream, reused: false, _active: active })
            }
            Ok(Err(error)) if process::is_shortage(&error) => Err(Trouble::Shortage(error)),
            Ok(Err(error)) => {
                shared.stats.origin_refused.inc();
                Err(Trouble::Refused(error))
            }
            Err(_) => {
                shared.stats.origin_timeouts.inc();
                Err(Trouble::ConnectTimeout)
            }
        }
    }

    /// Sends the request over `leg` and passes bytes both ways until the response has ended.
    async fn relay(&mut self, route: &Route, mut leg: Leg, relay: &mut Relay) -> Result<Flow, Trouble> {
        self.send_request(route, &mut leg).map_err(Trouble::Unsendable)?;
        leg.stream.start_send().map_err(|error| Trouble::Broken(error.into()))?;
        relay.last_progress = self.session.shared.core.now();
        let response_timeout = route.pool.spec().response_timeout;
        let end = poll_fn(|cx| self.poll_relay(cx, &mut leg, relay, response_timeout)).await;
        if relay.tunnel {
            self.session.shared.stats.tunnels_active.dec();
        }
        end?;
        if relay.tunnel {
            return Ok(Flow::Close);
        }
        let shared = &self.session.shared;
        shared.stats.responded(relay.status, shared.core.now().duration_since(self.started));
        if relay.request_ended && !shared.is_draining() {
            route.pool.put_idle(&leg.origin, leg.stream, shared.core.now());
        }
        Ok(Flow::Continue)
    }

    fn send_request(
        &mut self,
        route: &Route,
        leg: &mut Leg,
    ) -> Result<(), ringport::proto::http1::SendError> {
        let forwarded: &mut ForwardedFields = &mut self.session.shared.scratch.borrow_mut();
        forwarded.prepare(&self.head, route.forwarded, &self.session.peer);
        let client_host = self.head.authority().unwrap_or_default();
        let host = match &leg.origin.address {
            ringport::spec::OriginAddress::Host { .. } if !route.preserve_host => leg.origin.name.as_str(),
            _ if client_host.is_empty() => "localhost",
            _ => client_host,
        };
        let connect = *self.head.method() == Method::CONNECT;
        let target = self.head.origin_target();
        let line = RequestLine { method: self.head.method().as_str(), target: &target, host };
        let fields = request_fields(&self.head, route.forwarded, forwarded);
        let len = if connect { BodyLen::None } else { self.len };
        leg.stream.send_head(line, fields, len)
    }

    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
        response_timeout: Duration,
    ) -> Poll<Result<(), Trouble>> {
        // Each direction's output goes out before its own back-pressure is asked about.
        if let Poll::Ready(Err(trouble)) = self.poll_request(cx, leg, relay) {
            return Poll::Ready(Err(trouble));
        }
        match self.poll_response(cx, leg, relay) {
            Poll::Ready(end) => return Poll::Ready(end),
            Poll::Pending => {}
        }
        let timeouts = self.session.shared.spec.timeouts();
        let limit = if relay.tunnel {
            match timeouts.tunnel_idle {
                Some(limit) => limit,
                None => return Poll::Pending,
            }
        } else if relay.client_full || relay.origin_full {
            timeouts.write_idle
        } else if !relay.request_ended || relay.response_began {
            timeouts.body_idle
        } else {
            response_timeout
        };
        self.session.timer.reset(relay.last_progress + limit);
        ready!(self.session.timer.poll_elapsed(cx));
        Poll::Ready(Err(self.too_slow(relay)))
    }

    fn too_slow(&self, relay: &Relay) -> Trouble {
        if relay.response_began {
            return Trouble::Cut(
                if relay.client_full { "the client does not read" } else { "idle for too long" }.to_owned(),
            );
        }
        if !relay.request_ended && !relay.origin_full {
            return Trouble::RequestTimeout;
        }
        self.session.shared.stats.origin_timeouts.inc();
        Trouble::ResponseTimeout
    }

    /// Passes the request's body on. Ready only with an error; pending also when it is done.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        loop {
            if relay.request_ended && !relay.tunnel {
                return match self.session.client.poll_gone(cx) {
                    Poll::Ready(_) => Poll::Ready(Err(Trouble::ClientGone)),
                    Poll::Pending => Poll::Pending,
                };
            }
            match leg.stream.poll_sent(cx, TxLevel::Below(HIGH_WATER)) {
                Poll::Ready(Ok(())) => relay.origin_full = false,
                // What the origin has answered before it closed is worth more than the error.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => {
                    relay.origin_full = true;
                    return Poll::Pending;
                }
            }
            let event = match ready!(self.session.client.poll_event(cx)) {
                Ok(event) => event,
                Err(ServeError::Protocol(error)) => return Poll::Ready(Err(Trouble::BadRequest(error))),
                Err(ServeError::Io(_)) => return Poll::Ready(Err(Trouble::ClientGone)),
            };
            relay.last_progress = self.session.shared.core.now();
            let sent = match event {
                ServerEvent::Data(data) => {
                    relay.body_taken = true;
                    leg.stream.send_data(data)
                }
                ServerEvent::Tunnel(data) => leg.stream.send_data(data),
                ServerEvent::Trailers(trailers) => {
                    relay.request_trailed = true;
                    leg.stream.send_trailers(trailers.iter())
                }
                ServerEvent::End | ServerEvent::Paused if !relay.request_ended => {
                    relay.request_ended = true;
                    if relay.request_trailed { Ok(()) } else { leg.stream.finish() }
                }
                ServerEvent::Closed if relay.tunnel => {
                    if let Err(error) = leg.stream.finish() {
                        return Poll::Ready(Err(Trouble::Unsendable(error)));
                    }
                    relay.tunnel_client_ended(cx, leg);
                    return Poll::Pending;
                }
                _ => return Poll::Pending,
            };
            if let Err(error) = sent {
                return Poll::Ready(Err(Trouble::Unsendable(error)));
            }
            // An error here comes back with the response, or instead of it.
            let _ = leg.stream.start_send();
        }
    }

    /// Passes the response on. Ready when it has ended.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        leg: &mut Leg,
        relay: &mut Relay,
    ) -> Poll<Result<(), Trouble>> {
        loop {
            match self.session.client.poll_sent(cx, TxLevel::Below(HIGH_WATER)) {
                Poll::Ready(Ok(())) => relay.client_full = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Trouble::ClientGone)),
                Poll::Pending => {
                    relay.client_full = true;
                    return Poll::Pending;
                }
            }
            if relay.response_ended {
                return Poll::Ready(Ok(()));
            }
            let event = match ready!(leg.stream.poll_event(cx)) {
                Ok(event) => event,
                Err(error) if relay.response_began => {
                    return Poll::Ready(Err(Trouble::Cut(error.to_string())));
                }
                Err(error) => return Poll::Ready(Err(Trouble::Broken(error))),
            };
            relay.last_progress = self.session.shared.core.now();
            if let Err(error) = self.pass_on(event, relay) {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn pass_on(&mut self, event: ClientEvent, relay: &mut Relay) -> Result<(), Trouble> {
        let client = &mut self.session.client;
        let sent = match event {
            ClientEvent::Informational(head) => {
                client.send_informational(head.status(), response_fields(&head))
            }
            ClientEvent::Head(head, len) => {
                relay.status = head.status().as_u16();
                relay.response_began = true;
                let len = match len {
                    BodyLen::None => head.content_length().map_or(BodyLen::None, BodyLen::Length),
                    BodyLen::UntilClose => BodyLen::Chunked,
                    len => len,
                };
                if len == BodyLen::Tunnel {
                    relay.tunnel = true;
                    self.session.shared.stats.tunnels_active.inc();
                    let took = self.session.shared.core.now().duration_since(self.started);
                    self.session.shared.stats.responded(relay.status, took);
                }
                if self.session.shared.is_draining() && !relay.tunnel {
                    client.conn().close_after_response();
                }
                client.send_head(head.status(), response_fields(&head), len)
            }
            ClientEvent::Data(data) => {
                relay.body_bytes += data.len() as u64;
                client.send_data(data)
            }
            ClientEvent::Tunnel(data) => {
                relay.body_bytes += data.len() as u64;
                client.send_data(data)
            }
            ClientEvent::Trailers(trailers) => {
                relay.response_trailed = true;
                client.send_trailers(trailers.iter())
            }
            ClientEvent::End => {
                relay.response_ended = true;
                if relay.response_trailed { Ok(()) } else { client.finish() }
            }
            ClientEvent::Closed if relay.tunnel => {
                relay.response_ended = true;
                client.finish()
            }
            ClientEvent::Closed | ClientEvent::NeedInput => {
                let gone = ClientError::Protocol(ringport::proto::http1::Error::Incomplete);
                return Err(if relay.response_began {
                    Trouble::Cut(gone.to_string())
                } else {
                    Trouble::Broken(gone)
                });
            }
        };
        sent.map_err(|error| {
            if relay.response_began { Trouble::Cut(error.to_string()) } else { Trouble::Unsendable(error) }
        })?;
        client.start_send().map_err(|_| Trouble::ClientGone)
    }

    /// Turns what went wrong into what the client gets.
    fn settle(&mut self, trouble: &Trouble, relay: &Relay) -> Flow {
        let stats = &self.session.shared.stats;
        let (status, text) = match trouble {
            Trouble::NoOrigin => {
                stats.no_origin.inc();
                (StatusCode::SERVICE_UNAVAILABLE, "no origin is available")
            }
            Trouble::Refused(_) => (StatusCode::BAD_GATEWAY, "the origin refused the connection"),
            Trouble::Shortage(_) => {
                stats.shortages.inc();
                (StatusCode::SERVICE_UNAVAILABLE, "the gateway is out of descriptors or memory")
            }
            Trouble::Broken(_) | Trouble::Unsendable(_) => {
                stats.origin_bad_responses.inc();
                (StatusCode::BAD_GATEWAY, "the origin did not answer properly")
            }
            Trouble::ConnectTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "the origin could not be reached in time")
            }
            Trouble::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "the origin did not answer in time"),
            Trouble::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "the request was too slow"),
            Trouble::BadRequest(error) => (error.status(), error.reason()),
            Trouble::ClientGone => {
                stats.requests_aborted.inc();
                self.log(499, relay.body_bytes, &trouble.cause());
                return Flow::Abort;
            }
            Trouble::Cut(_) => {
                stats.requests_aborted.inc();
                stats.origin_bad_responses.inc();
                self.log(relay.status, relay.body_bytes, &trouble.cause());
                return Flow::Abort;
            }
        };
        if relay.response_began {
            stats.requests_aborted.inc();
            self.log(relay.status, relay.body_bytes, &trouble.cause());
            return Flow::Abort;
        }
        if matches!(trouble, Trouble::BadRequest(_) | Trouble::RequestTimeout) {
            self.session.client.conn().close_after_response();
        }
        let flow = self.answer(status, text);
        self.log(status.as_u16(), 0, &trouble.cause());
        flow
    }

    fn answer(&mut self, status: StatusCode, text: &str) -> Flow {
        let took = self.session.shared.core.now().duration_since(self.started);
        self.session.answer(status, text, took)
    }

    fn log(&self, status: u16, body_bytes: u64, cause: &str) {
        let shared = &self.session.shared;
        if !shared.log.is_on() {
            return;
        }
        let took = shared.core.now().duration_since(self.started);
        let line = log::line(&log::Record {
            peer: &self.session.peer,
            method: self.head.method().as_str(),
            host: self.head.authority().unwrap_or("-"),
            target: self.head.target(),
            status,
            body_bytes,
            took,
            origin: &self.origin_name,
            cause,
        });
        if !shared.log.send(line) {
            shared.stats.log_dropped.inc();
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let stats = &self.session.shared.stats;
        stats.requests_active.dec();
        if !self.settled {
            stats.requests_cut.inc();
            self.log(0, 0, "cut (the process ended)");
            let seconds = self.session.shared.core.now().duration_since(self.started).as_secs_f32();
            let (method, target) = (self.head.method().as_str(), self.head.target());
            tracing::warn!(
                method,
                target,
                peer = self.session.peer,
                origin = self.origin_name,
                seconds,
                "request cut"
            );
        }
    }
}

impl Relay {
    fn new(now: Instant) -> Self {
        Relay {
            request_ended: false,
            request_trailed: false,
            response_trailed: false,
            body_taken: false,
            response_began: false,
            response_ended: false,
            tunnel: false,
            status: 0,
            body_bytes: 0,
            last_progress: now,
            client_full: false,
            origin_full: false,
        }
    }

    /// The client has ended its side of the tunnel: the origin learns it, and may go on sending.
    fn tunnel_client_ended(&mut self, cx: &mut Context<'_>, leg: &mut Leg) {
        let stream = leg.stream.stream();
        if stream.start_send().is_ok() {
            // Pending here means that bytes still wait; the wake of their end polls this again.
            let _ = ringport::runtime::Transport::poll_shutdown(stream.transport(), cx);
        }
    }
}
