//! What goes wrong with a request, and whose doing it is.

use ringport::http::ClientError;
use ringport::proto::http1::SendError;

/// What went wrong with an attempt, and what the log calls it.
#[derive(Debug)]
pub(super) enum Trouble {
    NoOrigin,
    Refused(std::io::Error),
    ConnectTimeout,
    /// This process has no descriptor or memory for a connection: no fault of the origin.
    Shortage(std::io::Error),
    /// The connection broke or spoke nonsense before the head of a final response.
    Broken(ClientError),
    /// The origin's response cannot be said to a client.
    Unpassable(SendError),
    ResponseTimeout,
    /// The client was too slow with its body.
    RequestTimeout,
    /// The client's body broke the rules.
    BadRequest(ringport::proto::http1::Error),
    /// The client went away.
    ClientGone,
    /// The client reads nothing of its response.
    ClientStalled,
    /// The head of a final response was passed on; the origin does not give the rest.
    Cut(String),
    /// Nothing moved in a tunnel for too long: nobody's fault.
    TunnelIdle,
    /// The request cannot be said to an origin.
    Unsendable(SendError),
}

impl Trouble {
    pub(super) fn cause(&self) -> String {
        match self {
            Trouble::NoOrigin => "no-origin".to_owned(),
            Trouble::Refused(error) => format!("refused ({error})"),
            Trouble::ConnectTimeout => "connect-timeout".to_owned(),
            Trouble::Shortage(error) => format!("shortage ({error})"),
            Trouble::Broken(error) => format!("broken ({error})"),
            Trouble::Unpassable(error) => format!("broken ({error})"),
            Trouble::ResponseTimeout => "response-timeout".to_owned(),
            Trouble::RequestTimeout => "request-timeout".to_owned(),
            Trouble::BadRequest(error) => format!("bad-request ({error})"),
            Trouble::ClientGone => "client-gone".to_owned(),
            Trouble::ClientStalled => "client-stalled".to_owned(),
            Trouble::Cut(why) => format!("cut ({why})"),
            Trouble::TunnelIdle => "tunnel-idle".to_owned(),
            Trouble::Unsendable(error) => format!("unsendable ({error})"),
        }
    }

    /// Whether the origin never saw the request.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Trouble::Refused(_) | Trouble::ConnectTimeout)
    }

    /// Whether it counts against the origin's health. What a client does never counts.
    pub(super) fn blames_origin(&self) -> bool {
        matches!(
            self,
            Trouble::Refused(_)
                | Trouble::ConnectTimeout
                | Trouble::Broken(_)
                | Trouble::Unpassable(_)
                | Trouble::ResponseTimeout
                | Trouble::Cut(_)
        )
    }

    /// Whether the connection ended before it said anything: on a kept one the origin's own idle timeout looks so.
    pub(super) fn is_silent_end(&self) -> bool {
        use ringport::proto::http1::Error;
        matches!(self, Trouble::Broken(ClientError::Io(_) | ClientError::Protocol(Error::Incomplete)))
    }
}
