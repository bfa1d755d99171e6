//! Clients of HTTP/2. Their connections are driven by the library's server; each request is an exchange in a task of its own, which
//! is dropped when its client resets the stream.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use http::StatusCode;
use ringport::http::{ConnectionSpec, Handler, HandlerError};
use ringport::net::{Peer, Stream};
use ringport::proto::http_conn::Head;
use ringport::proto::http1::BodyLen;
use ringport::proto::mapping;
use ringport::proto::proxy_protocol::Header;
use ringport::runtime::{LocalAddr, Transport};
use ringport::spec::{HttpLimits, HttpProtocol, HttpTimeouts, ProxySpec};
use ringport_platform::launch::DrainSignal;

use super::downstream::{Downstream, Http2Side};
use super::exchange::Exchange;
use super::fields::Told;
use super::visit::Visit;
use super::{ClientConn, Shared};

/// What a client of HTTP/2 may hold, and how long it is waited for.
pub(super) fn connection_spec(spec: &ProxySpec) -> ConnectionSpec {
    let (limits, timeouts) = (spec.limits(), spec.timeouts());
    ConnectionSpec {
        protocols: vec![HttpProtocol::Http2],
        limits: HttpLimits {
            request_line_bytes: limits.request_line_bytes,
            header_bytes: limits.header_bytes,
            header_count: limits.header_count,
            body_bytes: limits.body_bytes,
            requests_per_connection: limits.requests_per_connection,
            max_streams: limits.max_streams,
            stream_window_bytes: limits.stream_window_bytes,
            connection_window_bytes: limits.connection_window_bytes,
            ..HttpLimits::default()
        },
        timeouts: HttpTimeouts {
            header: timeouts.header,
            body_idle: timeouts.body_idle,
            write_idle: timeouts.write_idle,
            keep_alive_idle: timeouts.keep_alive_idle,
            request: None,
            drain: timeouts.drain,
        },
        sends_date: true,
    }
}

/// Serves a connection whose client speaks HTTP/2, to its end.
pub(super) async fn serve(visit: Visit, mut stream: Stream<ClientConn>, peer: Peer) {
    let Visit { shared, config, door, peer: text, scheme, cert, header, .. } = visit;
    let header = header.unwrap_or_else(|| Rc::new(header_of(stream.transport())));
    let requests = Requests { shared, door: door.clone(), peer: text, scheme, cert, header };
    let (handle, served) = config.http2.serve(stream, peer, requests);
    drop(config);
    let (mut served, mut door, mut told) = (pin!(served), pin!(door.wait()), false);
    poll_fn(|cx| {
        if !told && door.as_mut().poll(cx).is_ready() {
            told = true;
            handle.drain();
        }
        served.as_mut().poll(cx)
    })
    .await;
}

/// What an origin that is told of clients is told of this one.
fn header_of(transport: &mut ClientConn) -> Header {
    match (transport.peer_addr(), transport.local_addr()) {
        (Ok(LocalAddr::Inet(source)), Ok(LocalAddr::Inet(destination))) => {
            Header::Inet { source, destination }
        }
        _ => Header::Local,
    }
}

/// What the requests of a connection have in common.
struct Requests {
    shared: Rc<Shared>,
    door: DrainSignal,
    peer: Rc<str>,
    scheme: &'static str,
    cert: Option<Rc<[u8]>>,
    header: Rc<Header>,
}

impl Requests {
    fn visit(&self) -> Visit {
        let config = self.shared.config();
        Visit {
            timer: self.shared.core.sleep(config.spec.timeouts().header),
            config,
            shared: self.shared.clone(),
            door: self.door.clone(),
            peer: self.peer.clone(),
            scheme: self.scheme,
            told: Told::default(),
            cert: self.cert.clone(),
            header: Some(self.header.clone()),
        }
    }
}

impl Handler for Requests {
    async fn handle(&self, exchange: ringport::http::Exchange) -> Result<(), HandlerError> {
        let len = exchange.body_len();
        let head = match exchange.head() {
            Head::Http2(request) => mapping::request_head(request, len == BodyLen::None),
            // The spec says that nothing else is spoken.
            Head::Http1(_) => Err(mapping::Malformed::Target),
        };
        let mut visit = self.visit();
        let mut side = Http2Side::new(exchange);
        let head = match head {
            Ok(head) => head,
            Err(malformed) => {
                visit.refuse(
                    &mut Downstream::Http2(&mut side),
                    (StatusCode::BAD_REQUEST, malformed.reason()),
                    &format!("bad-request ({malformed})"),
                );
                return Ok(());
            }
        };
        // What is not whole then is reset as it is dropped.
        Exchange::new(&mut visit, Downstream::Http2(&mut side), head, len).run().await;
        Ok(())
    }
}
