//! What goes wrong with a request, and whose doing it is.

use std::io;
use std::rc::Rc;

use http::StatusCode;
use ringport::http::{ExchangeError, ServeError};
use ringport::net::tls::{HandshakeError, TlsDialError};
use ringport::net::{DeadlineError, DialError, DialErrorKind};
use ringport::proto::http_conn::SendError;

use crate::proxy::upstream::OriginError;

/// What went wrong with an attempt, and what the log calls it.
#[derive(Debug)]
pub(in crate::proxy) enum Trouble {
    NoOrigin,
    /// Whatever keeps a connection from being made.
    Refused(Rc<TlsDialError>),
    ConnectTimeout,
    /// This process has no descriptor or memory for a connection: no fault of the origin.
    Shortage(Rc<TlsDialError>),
    /// The connection broke or spoke nonsense before the head of a final response.
    Broken(OriginError),
    /// The origin's response cannot be said to a client.
    Unpassable(SendError),
    ResponseTimeout,
    /// The client was too slow with its body.
    RequestTimeout,
    /// The client's body broke the rules.
    BadRequest(ringport::proto::http1::Error),
    /// That of a client of HTTP/2 broke a limit, or was too slow: how it is answered.
    BadBody(StatusCode),
    /// The client went away.
    ClientGone,
    /// The client reads nothing of its response.
    ClientStalled,
    /// The client's connection is as old as its listener lets it become.
    ClientDeadline,
    /// The head of a final response was passed on; the origin does not give the rest.
    Cut(String),
    /// Nothing moved in a tunnel for too long: nobody's fault.
    TunnelIdle,
    /// The request cannot be said to an origin.
    Unsendable(SendError),
}

impl Trouble {
    /// What an error of the client's connection comes to.
    pub(in crate::proxy) fn of_client(error: &io::Error) -> Self {
        match DeadlineError::of(error) {
            Some(DeadlineError::Read(_)) => Trouble::RequestTimeout,
            Some(DeadlineError::Write(_)) => Trouble::ClientStalled,
            Some(DeadlineError::Connection(_)) => Trouble::ClientDeadline,
            None => Trouble::ClientGone,
        }
    }

    /// What a request that cannot be read to its end comes to.
    pub(in crate::proxy) fn of_request(error: ServeError) -> Self {
        match error {
            ServeError::Protocol(error) => Trouble::BadRequest(error),
            ServeError::Io(error) => Trouble::of_client(&error),
            _ => Trouble::ClientGone,
        }
    }

    /// What a stream of a client comes to that goes no further.
    pub(in crate::proxy) fn of_exchange(error: ExchangeError) -> Self {
        match error {
            ExchangeError::BadBody(status) => Trouble::BadBody(status),
            ExchangeError::TimedOut => Trouble::RequestTimeout,
            _ => Trouble::ClientGone,
        }
    }

    /// What a dial that failed comes to.
    pub(super) fn of_dial(error: Rc<TlsDialError>) -> Self {
        match &*error {
            _ if error.is_shortage() => Trouble::Shortage(error),
            TlsDialError::Handshake { error: HandshakeError::TimedOut, .. } => Trouble::ConnectTimeout,
            TlsDialError::Dial(dial) => match dial.kind() {
                DialErrorKind::TimedOut(_) => Trouble::ConnectTimeout,
                DialErrorKind::Resolve(_) => Trouble::NoOrigin,
                _ => Trouble::Refused(error),
            },
            _ => Trouble::Refused(error),
        }
    }

    pub(super) fn cause(&self) -> String {
        match self {
            Trouble::NoOrigin => "no-origin".to_owned(),
            Trouble::Refused(error) => format!("refused ({})", attempts(error)),
            Trouble::ConnectTimeout => "connect-timeout".to_owned(),
            Trouble::Shortage(error) => format!("shortage ({})", attempts(error)),
            Trouble::Broken(error) => format!("broken ({error})"),
            Trouble::Unpassable(error) => format!("broken ({error})"),
            Trouble::ResponseTimeout => "response-timeout".to_owned(),
            Trouble::RequestTimeout => "request-timeout".to_owned(),
            Trouble::BadRequest(error) => format!("bad-request ({error})"),
            Trouble::BadBody(status) => format!("bad-request ({status})"),
            Trouble::ClientGone => "client-gone".to_owned(),
            Trouble::ClientStalled => "client-stalled".to_owned(),
            Trouble::ClientDeadline => "client-deadline".to_owned(),
            Trouble::Cut(why) => format!("cut ({why})"),
            Trouble::TunnelIdle => "tunnel-idle".to_owned(),
            Trouble::Unsendable(error) => format!("unsendable ({error})"),
        }
    }

    /// Whether the origin never saw the request.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Trouble::Refused(_) | Trouble::ConnectTimeout)
    }

    /// Whether the origin has said that it did nothing about the request, or takes no more of them on this connection.
    pub(super) fn is_unprocessed(&self) -> bool {
        use ringport::proto::http2::SendError as Unsent;
        match self {
            Trouble::Broken(error) => error.is_unprocessed(),
            Trouble::Unsendable(SendError::Http2(error)) => {
                matches!(error, Unsent::Closing | Unsent::TooManyStreams | Unsent::Gone)
            }
            _ => false,
        }
    }

    /// Whether it counts against the origin's health. What a client does never counts.
    pub(super) fn blames_origin(&self) -> bool {
        // Our own address or options are our own fault.
        let is_ours = |error: &TlsDialError| match error {
            TlsDialError::Dial(error) => {
                matches!(error.kind(), DialErrorKind::LocalAddr | DialErrorKind::Option)
            }
            _ => false,
        };
        match self {
            Trouble::Refused(error) => !is_ours(error),
            Trouble::ConnectTimeout
            | Trouble::Broken(_)
            | Trouble::Unpassable(_)
            | Trouble::ResponseTimeout
            | Trouble::Cut(_) => true,
            _ => false,
        }
    }

    /// Whether the connection ended before it said anything: on a kept one the origin's own idle timeout looks so.
    pub(super) fn is_silent_end(&self) -> bool {
        matches!(self, Trouble::Broken(error) if error.is_silent_end())
    }
}

/// What each address that was tried said, or the handshake with one of them.
fn attempts(error: &TlsDialError) -> String {
    match error {
        TlsDialError::Dial(error) => attempts_to_connect(error),
        TlsDialError::Handshake { error, .. } => format!("TLS: {error}"),
        TlsDialError::NoServerName(_) => "TLS: no name to verify".to_owned(),
        _ => error.to_string(),
    }
}

fn attempts_to_connect(error: &DialError) -> String {
    if error.failures().is_empty() {
        return error.kind().to_string();
    }
    let told = error.failures().iter().map(|failure| format!("{}: {}", failure.addr, failure.error));
    told.collect::<Vec<_>>().join("; ")
}
