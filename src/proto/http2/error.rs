//! What a peer, or the caller, did wrong.

use std::fmt;

use super::Flood;
use crate::proto::http1::Fault;
use crate::proto::mapping::Malformed;

/// An error code of HTTP/2. RFC 9113 7.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// A graceful end, or a body that nobody needs.
    pub const NO_ERROR: Code = Code(0);
    /// The peer broke the rules.
    pub const PROTOCOL_ERROR: Code = Code(1);
    /// We failed.
    pub const INTERNAL_ERROR: Code = Code(2);
    /// More DATA than the window had.
    pub const FLOW_CONTROL_ERROR: Code = Code(3);
    /// A frame on a stream that is over.
    pub const STREAM_CLOSED: Code = Code(5);
    /// A frame of a wrong length.
    pub const FRAME_SIZE_ERROR: Code = Code(6);
    /// Nothing was done for this stream: it may be tried again.
    pub const REFUSED_STREAM: Code = Code(7);
    /// Not needed any more.
    pub const CANCEL: Code = Code(8);
    /// A header block that cannot be decompressed.
    pub const COMPRESSION_ERROR: Code = Code(9);
    /// What CONNECT leads to failed.
    pub const CONNECT_ERROR: Code = Code(10);
    /// A budget is used up.
    pub const ENHANCE_YOUR_CALM: Code = Code(11);
    /// This is to be asked by HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Code = Code(13);

    fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a connection is over. What [`Conn::poll_output`](super::Conn::poll_output) has is sent still: it says GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the rules, or exceeded a limit of the parser (`ENHANCE_YOUR_CALM`).
    Protocol(Code),
    /// The peer used a budget up.
    Flood(Flood),
    /// The peer ended the connection with an error.
    GoAway(Code),
    /// No sign of life within [`KeepAlive::timeout`](super::KeepAlive::timeout).
    KeepAlive,
    /// The connection ended inside a frame or before its preface.
    Incomplete,
    /// [`Conn::close`](super::Conn::close) was called.
    Closed(Code),
}

impl Error {
    /// Whose doing it is.
    pub fn fault(self) -> Fault {
        match self {
            Error::Protocol(Code::ENHANCE_YOUR_CALM) | Error::Flood(_) => Fault::Refused,
            Error::Protocol(_) => Fault::Broken,
            Error::GoAway(_) | Error::KeepAlive | Error::Incomplete | Error::Closed(_) => Fault::Gone,
        }
    }

    pub(super) fn of_connection(error: &h2::Error) -> Error {
        match error.reason() {
            Some(reason) if error.is_remote() => Error::GoAway(Code(reason.into())),
            Some(reason) => Error::Protocol(Code(reason.into())),
            None => Error::Incomplete,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Protocol(code) => write!(f, "the peer broke the protocol: {code}"),
            Error::Flood(flood) => write!(f, "the peer sent {flood}"),
            Error::GoAway(code) => write!(f, "the peer ended the connection: {code}"),
            Error::KeepAlive => f.write_str("no sign of life from the peer"),
            Error::Incomplete => f.write_str("connection ended inside a frame"),
            Error::Closed(code) => write!(f, "connection closed: {code}"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a call that sends did not. Nothing was sent by that call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The stream was reset, or is done.
    Gone,
    /// The call does not fit the state or the role: the head is sent already, or not yet.
    State,
    /// The connection takes no new stream: it ends, or the peer has said GOAWAY.
    Closing,
    /// As many streams are open as the peer, or [`Spec::max_streams`](super::Spec::max_streams), allows.
    TooManyStreams,
    /// As much waits as may; [`Event::Writable`](super::Event::Writable) follows.
    Full,
    /// The status is not what this call sends.
    Status,
    /// The body length does not fit the message.
    BodyLen,
    /// The message breaks a rule of HTTP/2.
    Malformed(Malformed),
    /// The peer has not enabled the extended CONNECT.
    ExtendedConnect,
    /// More body than announced.
    BodyTooLong {
        /// Bytes that were still allowed.
        allowed: u64,
    },
    /// Finished with less body than announced: the stream was reset.
    BodyTooShort {
        /// Bytes that are missing.
        missing: u64,
    },
    /// Trailers although the length was announced.
    TrailersNotAllowed,
}

impl From<Malformed> for SendError {
    fn from(malformed: Malformed) -> Self {
        SendError::Malformed(malformed)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Gone => f.write_str("the stream is no more"),
            SendError::State => f.write_str("not expected in this state"),
            SendError::Closing => f.write_str("the connection takes no new stream"),
            SendError::TooManyStreams => f.write_str("as many streams as the peer allows"),
            SendError::Full => f.write_str("no room before the peer takes what waits"),
            SendError::Status => f.write_str("status not sent by this call"),
            SendError::BodyLen => f.write_str("body length does not fit the message"),
            SendError::Malformed(malformed) => write!(f, "malformed message: {malformed}"),
            SendError::ExtendedConnect => f.write_str("the peer has no extended CONNECT"),
            SendError::BodyTooLong { allowed } => write!(f, "body too long, {allowed} bytes were left"),
            SendError::BodyTooShort { missing } => write!(f, "body too short by {missing} bytes"),
            SendError::TrailersNotAllowed => f.write_str("trailers need a body of unknown length"),
        }
    }
}

impl std::error::Error for SendError {}
