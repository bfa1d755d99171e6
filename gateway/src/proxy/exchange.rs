//! One request: choose an origin, send, relay both ways, answer for the origin where it cannot.
//!
//! ```text
//! Choose --connected--> Sending --head of final response--> Answering --both sides ended--> done
//!    ^  \--no origin--> 503          |  \--no answer in time--> 504
//!    |   \--refused--> next origin, else 502 (504 where the connect was too slow)
//!    \---- origin gone before it answered, request idempotent and without body, or never sent ----/
//! ```
//! Until the head of the final response has been passed on, a fault of the origin is answered; after that the client's
//! connection ends behind what came, which tells it that the response is not complete: by its length or its chunks, else, where
//! the end of the connection is that of the body, by a reset.

mod long;
mod relay;
mod trouble;

pub(super) use trouble::Trouble;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};
use ringport::proto::http_conn::SendError;
use ringport::proto::http1::{BodyLen, ForwardedHost, RequestHead};
use ringport_platform::core::CoreTime;

use super::downstream::Downstream;
use super::fields::{Client, max_forwards, put_request_fields};
use super::log;
use super::pool::{ActiveRequest, Named, Origin};
use super::routes::Route;
use super::stats::ProxyStats;
use super::tunnel::{Tunnel, TunnelEnd};
use super::upstream::{OriginError, Upstream};
use super::visit::{Flow, Visit};
use long::Long;
use relay::Relay;

/// How often a request is sent anew because an origin did nothing about it.
const MAX_UNPROCESSED: usize = 3;

/// A connection to an origin with the attempt that uses it.
struct Leg {
    stream: Upstream,
    active: ActiveRequest,
    named: Named,
}

/// What an exchange has tried.
#[derive(Default)]
struct Attempts {
    tried: Vec<Rc<Origin>>,
    /// Whether no kept connection is used any more.
    shuns_kept: bool,
    /// How often an origin has said that it did nothing about the request.
    unprocessed: usize,
    /// Behind a pointer: few requests have one, and each would look whether it holds something.
    last: Option<Box<Trouble>>,
}

/// The origins that were asked, in order.
#[derive(Default)]
struct Asked {
    /// Most requests ask one: it costs no memory of its own.
    first: Option<Rc<Origin>>,
    others: Vec<Rc<Origin>>,
}

impl Asked {
    fn push(&mut self, origin: &Rc<Origin>) {
        match self.first {
            None => self.first = Some(origin.clone()),
            Some(_) => self.others.push(origin.clone()),
        }
    }

    /// For the log, with commas.
    fn names(&self) -> String {
        let names: Vec<&str> =
            self.first.iter().chain(&self.others).map(|origin| origin.name.as_str()).collect();
        names.join(",")
    }
}

/// A request being answered.
pub(super) struct Exchange<'a> {
    visit: &'a mut Visit,
    client: Downstream<'a>,
    head: RequestHead,
    len: BodyLen,
    started: CoreTime,
    asked: Asked,
    /// The end was reached: dropping it before is a cut.
    settled: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(visit: &'a mut Visit, client: Downstream<'a>, head: RequestHead, len: BodyLen) -> Self {
        let started = visit.shared.core.time();
        visit.shared.stats.requests.inc();
        visit.shared.stats.requests_active.inc();
        Exchange { visit, client, head, len, started, asked: Asked::default(), settled: false }
    }

    /// Answers the request.
    pub(super) async fn run(&mut self) -> Flow {
        let flow = match self.route() {
            Ok(route) => {
                let mut relay = Relay::new(self.visit.shared.core.time());
                match self.attempts(&route, &mut relay).await {
                    Ok(flow) => {
                        self.log(relay.status, relay.body_bytes, "ok");
                        flow
                    }
                    Err(trouble) => self.settle(&trouble, &relay),
                }
            }
            Err(flow) => flow,
        };
        self.settled = true;
        flow
    }

    /// Where the request goes; `Err` if it goes nowhere and has been answered.
    fn route(&mut self) -> Result<Rc<Route>, Flow> {
        let Some(route) = self.visit.config.routes.find(&self.head).cloned() else {
            let flow = self.answer(StatusCode::NOT_FOUND, "no route for this host and path");
            self.log(404, 0, "no-route");
            return Err(flow);
        };
        if *self.head.method() == Method::CONNECT && matches!(self.client, Downstream::Http2(_)) {
            let flow = self.answer(StatusCode::NOT_IMPLEMENTED, "CONNECT is passed on over HTTP/1.1 only");
            self.log(501, 0, "no-connect");
            return Err(flow);
        }
        if *self.head.method() == Method::CONNECT && !route.connect {
            let flow = self.answer(StatusCode::FORBIDDEN, "CONNECT is not passed on here");
            self.log(403, 0, "no-connect");
            return Err(flow);
        }
        if max_forwards(&self.head) == Some(0) {
            return Err(self.answer_as_last());
        }
        Ok(route)
    }

    /// Answers what may not be passed on any further.
    fn answer_as_last(&mut self) -> Flow {
        let status =
            if *self.head.method() == Method::TRACE { StatusCode::NOT_IMPLEMENTED } else { StatusCode::OK };
        let flow = self.answer(status, "this gateway is the last recipient");
        self.log(status.as_u16(), 0, "max-forwards");
        flow
    }

    /// Tries origins until one answers. `Err` when none did, or the response was cut.
    ///
    /// A client's connection carries the memory of what is awaited here also between two requests: what waits for a
    /// connection to an origin, or goes on for long, is put aside.
    async fn attempts(&mut self, route: &Route, relay: &mut Relay) -> Result<Flow, Trouble> {
        let mut attempts = Attempts::default();
        loop {
            let Some(origin) = self.pick(route, &attempts) else {
                return Err(attempts.last.map_or(Trouble::NoOrigin, |last| *last));
            };
            let kept = if attempts.shuns_kept { None } else { self.take_kept(route, &origin) };
            let reused = kept.is_some();
            let leg = match kept {
                Some(leg) => Ok(leg),
                None => Box::pin(self.connect(route, &origin)).await,
            };
            let end = match leg.and_then(|mut leg| self.ask(route, &mut leg, relay).map(|()| leg)) {
                Ok(mut leg) => {
                    let response_timeout = route.pool.spec().response_timeout;
                    let end = poll_fn(|cx| self.poll_relay(cx, &mut leg, relay, response_timeout)).await;
                    match self.part(route, leg, relay, end) {
                        Ok(None) => Ok(Flow::Continue),
                        Ok(Some(leg)) => Box::pin(self.tunnel(leg, relay)).await,
                        Err(trouble) => Err(trouble),
                    }
                }
                Err(trouble) => Err(trouble),
            };
            match end {
                Ok(flow) => {
                    route.pool.succeeded(&origin);
                    return Ok(flow);
                }
                Err(trouble) => self.go_on(route, &mut attempts, origin, reused, relay, trouble)?,
            }
        }
    }

    /// The origin to ask next. When all were tried the same ones may be asked again.
    fn pick(&mut self, route: &Route, attempts: &Attempts) -> Option<Rc<Origin>> {
        let now = self.visit.shared.core.time();
        let origin = route.pool.pick(now, &attempts.tried).or_else(|| route.pool.pick(now, &[]))?;
        self.asked.push(&origin);
        Some(origin)
    }

    /// Decides what follows an attempt that failed: another one, or the end with that trouble.
    fn go_on(
        &mut self,
        route: &Route,
        attempts: &mut Attempts,
        origin: Rc<Origin>,
        reused: bool,
        relay: &Relay,
        trouble: Trouble,
    ) -> Result<(), Trouble> {
        let retries = route.pool.spec().retries as usize;
        let stats = &self.visit.shared.stats;
        if reused && trouble.is_silent_end() && self.may_repeat(relay) {
            // The origin closed a kept connection just as it was used: no fault of either side, and its others may be as
            // old.
            attempts.shuns_kept = true;
            stats.retries.inc();
            return Ok(());
        }
        if trouble.is_unprocessed()
            && !relay.body_taken
            && !relay.response_began
            && attempts.unprocessed < MAX_UNPROCESSED
        {
            // It ends the connection, or has as many streams as it wants.
            attempts.unprocessed += 1;
            stats.retries.inc();
            return Ok(());
        }
        if matches!(trouble, Trouble::NoOrigin) {
            // Its name has no address, so it is not picked again: that was no attempt.
            return Ok(());
        }
        if trouble.blames_origin() {
            route.pool.failed(&origin, self.visit.shared.core.time());
        }
        let broken = matches!(trouble, Trouble::Broken(_) | Trouble::Unpassable(_));
        attempts.tried.push(origin);
        if !(trouble.is_unsent() || broken && self.may_repeat(relay)) || attempts.tried.len() > retries {
            return Err(trouble);
        }
        stats.retries.inc();
        attempts.last = Some(Box::new(trouble));
        Ok(())
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

    fn take_kept(&mut self, route: &Route, origin: &Rc<Origin>) -> Option<Leg> {
        let named = self.named_to(origin);
        let shared = &self.visit.shared;
        let kept = route.pool.take_idle(origin, &named, shared.core.time()).map(Upstream::Http1);
        let stream = kept.or_else(|| route.pool.take_shared(origin))?;
        shared.stats.origin_reused.inc();
        Some(Leg { stream, active: origin.begin(), named })
    }

    /// The client, where a connection to this origin begins by naming it.
    fn named_to(&mut self, origin: &Origin) -> Named {
        if origin.tells_client() { Some(self.visit.header(&mut self.client)) } else { None }
    }

    async fn connect(&mut self, route: &Route, origin: &Rc<Origin>) -> Result<Leg, Trouble> {
        let shared = self.visit.shared.clone();
        let active = origin.begin();
        let named = self.named_to(origin);
        let connected = match route.pool.connect(origin, &named, &shared).await {
            Err(error) if error.is_shortage() && shared.give_up_idle().await => {
                route.pool.connect(origin, &named, &shared).await
            }
            connected => connected,
        };
        let error = match connected {
            Ok(stream) => return Ok(Leg { stream, active, named }),
            Err(error) => error,
        };
        let trouble = Trouble::of_dial(error);
        match trouble {
            Trouble::ConnectTimeout => shared.stats.origin_timeouts.inc(),
            Trouble::NoOrigin => origin.has_no_addr(),
            Trouble::Refused(_) => shared.stats.origin_refused.inc(),
            _ => {}
        }
        Err(trouble)
    }

    /// Sends the request over `leg`, as far as it is there.
    fn ask(&mut self, route: &Route, leg: &mut Leg, relay: &mut Relay) -> Result<(), Trouble> {
        self.send_request(route, leg).map_err(Trouble::Unsendable)?;
        relay.request_ended |= self.client.take_end();
        if relay.request_ended {
            // There is no body, or an earlier attempt has read the request: there is no more to wait for.
            leg.stream.finish().map_err(Trouble::Unsendable)?;
        }
        relay.origin_full = false;
        leg.stream.start_send().map_err(|error| Trouble::Broken(OriginError::Http1(error.into())))?;
        relay.progressed(self.visit.shared.core.time());
        Ok(())
    }

    /// Lets go of a connection whose relay has ended; gives it back where a tunnel follows.
    fn part(
        &mut self,
        route: &Route,
        mut leg: Leg,
        relay: &mut Relay,
        end: Result<(), Trouble>,
    ) -> Result<Option<Leg>, Trouble> {
        self.end_long_request(relay);
        relay.down = Long::default();
        if !relay.request_ended {
            // What waits to be sent is worth nothing without its end, which will not come.
            leg.stream.reset_on_drop();
        }
        if matches!(end, Err(Trouble::ResponseTimeout)) {
            leg.stream.distrust();
        }
        end?;
        if relay.tunnel {
            return Ok(Some(leg));
        }
        let shared = &self.visit.shared;
        let now = shared.core.time();
        shared.stats.responded(relay.status, now.duration_since(self.started));
        let Upstream::Http1(mut stream) = leg.stream else { return Ok(None) };
        // Bytes behind a body that was copied have come with it.
        let trailed = relay.moved && stream.stream().transport().inner().inner().sock().has_unread();
        if relay.request_ended && !trailed && !shared.is_draining() {
            route.pool.put_idle(leg.active.origin(), stream, leg.named, now);
        }
        Ok(None)
    }

    /// Passes bytes both ways until the tunnel ends.
    async fn tunnel(&mut self, mut leg: Leg, relay: &mut Relay) -> Result<Flow, Trouble> {
        let shared = self.visit.shared.clone();
        shared.stats.responded(relay.status, shared.core.time().duration_since(self.started));
        let open = OpenTunnel::new(&shared.stats);
        let (Some(client), Some(origin)) = (self.client.http1(), leg.stream.http1()) else {
            // Only HTTP/1.1 switches, and only a connection of its own.
            return Err(Trouble::Cut("no way to switch".to_owned()));
        };
        let mut tunnel = Tunnel::new(self.visit, client, origin);
        let end = poll_fn(|cx| tunnel.poll(cx)).await;
        relay.body_bytes = tunnel.body_bytes();
        drop(open);
        match end {
            TunnelEnd::Both => Ok(Flow::Close),
            TunnelEnd::Idle => Err(Trouble::TunnelIdle),
            TunnelEnd::ClientReset => {
                leg.stream.reset_on_drop();
                Err(Trouble::ClientGone)
            }
            TunnelEnd::OriginReset => Err(Trouble::Cut("the origin reset the tunnel".to_owned())),
        }
    }

    fn send_request(&mut self, route: &Route, leg: &mut Leg) -> Result<(), SendError> {
        let Visit { shared, peer, scheme, told, cert, .. } = &mut *self.visit;
        let cert = if route.client_cert { cert.as_deref() } else { None };
        let connect = *self.head.method() == Method::CONNECT;
        let host = match &**leg.active.origin() {
            // RFC 9110 9.3.6: the target of a CONNECT and its Host are the same.
            _ if connect => ForwardedHost::AsReceived,
            Origin { host: Some(host), .. } if !route.preserve_host => ForwardedHost::Named(host),
            _ if !self.head.has_authority() => ForwardedHost::Named(&shared.localhost),
            _ => ForwardedHost::AsReceived,
        };
        let len = if connect { BodyLen::None } else { self.len };
        let client = Client { policy: route.forwarded, peer, scheme, cert, told };
        leg.stream.forward_head_with(&self.head, host, len, |out| {
            put_request_fields(out, &self.head, self.len, client, &shared.via)
        })
    }

    /// Turns what went wrong into what the client gets.
    fn settle(&mut self, trouble: &Trouble, relay: &Relay) -> Flow {
        let stats = &self.visit.shared.stats;
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
            Trouble::Broken(_) | Trouble::Unpassable(_) => {
                stats.origin_bad_responses.inc();
                (StatusCode::BAD_GATEWAY, "the origin did not answer properly")
            }
            Trouble::Unsendable(_) => (StatusCode::BAD_GATEWAY, "the request cannot be passed on"),
            Trouble::ConnectTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "the origin could not be reached in time")
            }
            Trouble::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "the origin did not answer in time"),
            Trouble::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "the request was too slow"),
            Trouble::BadRequest(error) => (error.status(), error.reason()),
            Trouble::BadBody(status) => (*status, "the body is too long, or too slow"),
            Trouble::ClientGone | Trouble::ClientStalled | Trouble::ClientDeadline => {
                stats.requests_aborted.inc();
                let status = if relay.response_began { relay.status } else { 499 };
                self.log(status, relay.body_bytes, &trouble.cause());
                return Flow::Abort;
            }
            Trouble::TunnelIdle => {
                self.log(relay.status, relay.body_bytes, &trouble.cause());
                return Flow::Close;
            }
            Trouble::Cut(_) => {
                stats.requests_aborted.inc();
                stats.origin_bad_responses.inc();
                self.log(relay.status, relay.body_bytes, &trouble.cause());
                // A reset would take what is under way with it.
                return if self.client.end_shows_cut() { Flow::Close } else { Flow::Abort };
            }
        };
        if relay.response_began {
            stats.requests_aborted.inc();
            self.log(relay.status, relay.body_bytes, &trouble.cause());
            return Flow::Abort;
        }
        if matches!(trouble, Trouble::BadRequest(_) | Trouble::RequestTimeout) {
            self.client.close_after_response();
        }
        let flow = self.answer(status, text);
        self.log(status.as_u16(), 0, &trouble.cause());
        flow
    }

    fn answer(&mut self, status: StatusCode, text: &str) -> Flow {
        let took = self.visit.shared.core.time().duration_since(self.started);
        self.visit.answer(&mut self.client, (status, text), took)
    }

    #[inline]
    fn log(&self, status: u16, body_bytes: u64, cause: &str) {
        if self.visit.config.log.is_on() {
            self.write_log(status, body_bytes, cause);
        }
    }

    fn write_log(&self, status: u16, body_bytes: u64, cause: &str) {
        let record = log::Record {
            peer: &self.visit.peer,
            method: self.head.method().as_str(),
            host: self.head.authority().unwrap_or("-"),
            target: self.head.target(),
            status,
            body_bytes,
            took: self.visit.shared.core.time().duration_since(self.started),
            origin: &self.asked.names(),
            cause,
        };
        log::write(&self.visit.config.log, &self.visit.shared.stats, &record);
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let stats = &self.visit.shared.stats;
        stats.requests_active.dec();
        if !self.settled && self.client.is_gone() {
            stats.requests_aborted.inc();
            self.log(499, 0, &Trouble::ClientGone.cause());
        } else if !self.settled {
            stats.requests_cut.inc();
            self.log(0, 0, "cut (the process ended)");
            let seconds = self.visit.shared.core.time().duration_since(self.started).as_secs_f32();
            let (method, target) = (self.head.method().as_str(), self.head.target());
            tracing::warn!(
                method,
                target,
                peer = &*self.visit.peer,
                origin = self.asked.names(),
                seconds,
                "request cut"
            );
        }
    }
}

/// A tunnel in the statistics, however it ends.
struct OpenTunnel(Arc<ProxyStats>);

impl OpenTunnel {
    fn new(stats: &Arc<ProxyStats>) -> Self {
        stats.tunnels_active.inc();
        OpenTunnel(stats.clone())
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels_active.dec();
    }
}
