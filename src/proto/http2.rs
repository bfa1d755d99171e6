//! HTTP/2, both roles: the h2 crate driven over queues in memory, with a meter in front of it. RFC 9113.
//!
//! ```text
//!  rx --> Meter --> [input] --> h2 --> streams --poll_event--> whoever drives it
//!  tx <-- poll_output <-- [output] <-- Meter <-- h2 <-- send_*, release, reset
//!
//!  connection:  Handshake --preface--> Open --drain--> GOAWAY(2^31-1), PING --pong--> GOAWAY(last) --idle--> Closed
//!                                       | `---fault, flood, no sign of life, close---> GOAWAY(code) --> Err
//!                                       `------end of input--------------------------> Closed
//!
//!  stream, in:  Head --1xx-'--> Body --> Trailers --> End      each may become Reset
//!  stream, out: Head --1xx-'--> Body --> Ended --finish--> Done
//! ```
//!
//! A turn, with the time as an argument:
//!
//! ```text
//! receive into rx -> poll_event until NeedInput, acting on each event -> poll_output -> again while has_event
//!   -> send what is in tx -> sleep until bytes, room in tx, or poll_timeout; then handle_timeout
//! ```
//!
//! Who owns which bytes: what is in `rx` is back-pressure, 64 KiB at most wait between the meter and h2, and what h2 has read
//! of bodies is bounded by the windows that it gave (one for each stream, one for all: [`Spec`]). Data handed up belongs to
//! whoever has it, and its credit stays taken until [`Conn::release`] says that the far side has taken the bytes: a slow
//! reader stops its own stream's sender, and never makes memory grow. What is sent waits in h2, one segment more than
//! [`Spec::send_buffer_bytes`] a stream, then in `output` (64 KiB), then in `tx`, where the driver's mark bounds it.
//!
//! [`Conn::drain`] says GOAWAY twice and lets streams end; [`Conn::close`] ends at once; [`Conn::reset`] ends one stream, and
//! gives back all that it held; a stream whose two sides are done and whose bytes are released is forgotten by itself.
//! Dropping a [`Conn`] frees everything and says nothing to the peer. No call waits, and events that nobody polls for stay.
//!
//! What bad input gets: a fault in a stream's message (8.1.1) resets the stream with `PROTOCOL_ERROR` and, if its head was
//! handed up, is told as [`Event::Reset`]; a fault in framing or compression ends the connection with GOAWAY of its code; a
//! field section above [`Spec::header_list_bytes`] is answered with 431 and reset. Frames that are cheap to send and not to
//! receive draw on [`FrameBudgets`], which say how many there may be; one more, and GOAWAY `ENHANCE_YOUR_CALM` ends this
//! connection alone. What is malformed beyond what h2 looks at is refused by [`mapping`], before it is handed up.
//!
//! h2 reads the clock in one place, to forget streams that it reset ([`Spec::max_reset_streams`]); nothing here depends on it.
//!
//! [`mapping`]: super::mapping

mod conn;
mod error;
mod meter;
mod pipe;
mod preface;
mod ready;
mod spec;
mod stream;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::http1::BodyLen;

pub use conn::Conn;
pub use error::{Code, Error, SendError};
pub use meter::{Budget, Flood, FrameBudgets, Meter};
pub use preface::{Preface, detect_preface};
pub use spec::{KeepAlive, Spec};

/// A stream of a connection. Never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    place: u32,
    number: u32,
}

impl StreamId {
    /// A name for what takes the part of a stream where there are none: a request of HTTP/1.1.
    pub(super) fn new(place: u32, number: u32) -> Self {
        StreamId { place, number }
    }

    /// Which of the streams that are open at once it is: small, and used again.
    pub(crate) fn place(self) -> usize {
        self.place as usize
    }

    /// The number that the stream has on the wire.
    pub fn number(self) -> u32 {
        self.number
    }
}

/// What a peer sent, or what became possible.
#[derive(Debug)]
pub enum Event {
    /// Nothing to say before more bytes arrive, or `tx` has room again.
    NeedInput,
    /// The head of a request. With [`BodyLen::Tunnel`] it is a CONNECT, whose data belongs to another protocol once a 2xx
    /// is sent; [`BodyLen::Chunked`] stands for a length that is not known.
    ///
    /// An extended CONNECT has a [`Protocol`](super::mapping::Protocol) among its extensions.
    Request {
        /// Its stream.
        id: StreamId,
        /// As received, cookies in crumbs.
        head: Request<()>,
        /// How much follows.
        body: BodyLen,
    },
    /// A response before the final one; never 101.
    Informational {
        /// Its stream.
        id: StreamId,
        /// As received.
        head: Response<()>,
    },
    /// The final response.
    Response {
        /// Its stream.
        id: StreamId,
        /// As received.
        head: Response<()>,
        /// How much follows: nothing to HEAD and in a 304, whatever length is told.
        body: BodyLen,
    },
    /// A part of a body, never empty. Its bytes are to be given back by [`Conn::release`].
    Data {
        /// Its stream.
        id: StreamId,
        /// The bytes.
        data: Bytes,
    },
    /// The fields behind a body; [`Event::End`] follows.
    Trailers {
        /// Their stream.
        id: StreamId,
        /// As received.
        trailers: HeaderMap,
    },
    /// The message is read to its end.
    End {
        /// Its stream.
        id: StreamId,
    },
    /// [`Conn::send_data`] takes more after it was [`SendError::Full`], or [`Conn::can_send`] said no.
    Writable {
        /// Its stream.
        id: StreamId,
    },
    /// The stream is no more, and all calls for it say [`SendError::Gone`].
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: Code,
        /// Whether the peer has surely not acted on it, so that the request may be sent again elsewhere. RFC 9113 8.7.
        unprocessed: bool,
    },
    /// The peer said GOAWAY: a client opens no more streams here, and those that are open go on.
    GoAway,
    /// Nothing more comes. Send what [`Conn::poll_output`] has, and close.
    Closed,
}
