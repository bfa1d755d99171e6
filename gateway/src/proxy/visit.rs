//! A client while its requests are answered: what every request of its connection is answered with.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use ringport::net::Peer;
use ringport::proto::http_conn::SendError;
use ringport::proto::proxy_protocol::Header;
use ringport::runtime::LocalAddr;
use ringport_platform::core::Sleep;
use ringport_platform::launch::DrainSignal;

use super::config::Config;
use super::downstream::Downstream;
use super::fields::Told;
use super::{Shared, log};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// The connection may carry the next one.
    Continue,
    /// The response is complete, an error was answered, or what has come of the response shows that it was cut; the connection
    /// ends in an orderly way.
    Close,
    /// The response was cut and nothing but a reset shows it, or the client went away in the middle.
    Abort,
    /// Nothing is owed to the client: between two requests it went away, or was idle for too long.
    Over,
    /// It speaks HTTP/2, from the first byte on.
    Http2,
}

/// A client's visit, or one request's share of it in HTTP/2.
pub(super) struct Visit {
    pub shared: Rc<Shared>,
    /// That of the request in flight; between two it follows the core's.
    pub config: Rc<Config>,
    /// Raised when the listener that took it ends.
    pub door: DrainSignal,
    pub timer: Sleep,
    /// The client's IP address as text, as a trusted proxy says it or the connection has it; empty for Unix sockets.
    pub peer: Rc<str>,
    /// What the client speaks to us: `http`, or `https` over TLS.
    pub scheme: &'static str,
    pub told: Told,
    /// What an origin may be told of the certificate by which the client has proved itself.
    pub cert: Option<Rc<[u8]>>,
    /// What an origin that is told of clients by the PROXY protocol is told of this one; made when the first asks.
    pub header: Option<Rc<Header>>,
}

impl Visit {
    /// Of a connection that has just begun.
    pub(super) fn new(shared: Rc<Shared>, is_tls: bool, peer: &Peer, door: DrainSignal) -> Self {
        let text = match peer.client() {
            LocalAddr::Inet(addr) => addr.ip().to_canonical().to_string(),
            LocalAddr::Unix(_) => String::new(),
        };
        // What a trusted proxy has said is passed on; else the connection tells.
        let header = peer.header().filter(|header| **header != Header::Local).cloned().map(Rc::new);
        let config = shared.config();
        Visit {
            timer: shared.core.sleep(config.spec.timeouts().header),
            config,
            shared,
            door,
            peer: text.into(),
            scheme: if is_tls { "https" } else { "http" },
            told: Told::default(),
            cert: None,
            header,
        }
    }

    /// Whether this connection is to end: the process does, or its listener.
    pub(super) fn is_draining(&self) -> bool {
        self.door.is_draining()
    }

    /// What an origin is told of the client by the PROXY protocol.
    pub(super) fn header(&mut self, client: &mut Downstream<'_>) -> Rc<Header> {
        self.header.get_or_insert_with(|| Rc::new(client.header())).clone()
    }

    /// Answers what is no request, or not a whole one.
    pub(super) fn refuse(
        &mut self,
        client: &mut Downstream<'_>,
        (status, text): (StatusCode, &str),
        cause: &str,
    ) -> Flow {
        let flow = self.answer(client, (status, text), Duration::ZERO);
        log::write(
            &self.config.log,
            &self.shared.stats,
            &log::Record {
                peer: &self.peer,
                method: "-",
                host: "-",
                target: "-",
                status: status.as_u16(),
                body_bytes: 0,
                took: Duration::ZERO,
                origin: "",
                cause,
            },
        );
        flow
    }

    /// Answers a request that no origin answered.
    pub(super) fn answer(
        &mut self,
        client: &mut Downstream<'_>,
        (status, text): (StatusCode, &str),
        took: Duration,
    ) -> Flow {
        let body = format!("{} {}: {text}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let date = self.shared.date();
        let fields: [(&str, &[u8]); 3] =
            [("date", &date), ("content-type", b"text/plain; charset=utf-8"), ("server", b"ringport")];
        self.shared.stats.responded(status.as_u16(), took);
        match client.respond(status, fields, body.into_bytes()) {
            Ok(()) => match client.start_send() {
                Ok(()) => Flow::Continue,
                Err(_) => Flow::Abort,
            },
            Err(error) => broken(error),
        }
    }
}

/// A response that the machine refused to send is a fault of ours or of the origin; the connection cannot go on.
pub(super) fn broken(error: SendError) -> Flow {
    tracing::debug!(%error, "a response could not be sent");
    Flow::Abort
}
