//! What a peer, or the caller, did wrong.

use std::fmt;

use http::StatusCode;

/// Why received bytes are not, or not any more, HTTP/1 that we take. The connection cannot be read further.
///
/// A server answers with [`Error::status`] if no response has begun, and closes. A gateway that reads this from an
/// origin answers 502 and drops the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A CR without LF, or an LF without CR, where a line ends.
    BareLineEnd,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// The request line is longer than [`Limits::request_line_bytes`](super::Limits::request_line_bytes).
    RequestLineTooLong,
    /// The target's form does not fit its method, or a byte in it is not allowed.
    Target,
    /// The status line is not `version SP 3DIGIT SP reason`.
    StatusLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A field line breaks the syntax: folding, space before the colon, a byte that no name or value may hold.
    Field,
    /// More fields than [`Limits::header_count`](super::Limits::header_count).
    TooManyFields,
    /// The head is longer than [`Limits::head_bytes`](super::Limits::head_bytes).
    HeadTooLarge,
    /// No Host, several, or one that is not a host.
    Host,
    /// `Content-Length` is not one number of digits.
    ContentLength,
    /// `Transfer-Encoding` is malformed, given twice, or used in HTTP/1.0.
    TransferEncoding,
    /// `Transfer-Encoding` names a coding other than chunked.
    TransferCodingUnknown,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndChunked,
    /// Framing fields where no body may be: CONNECT, or an informational response.
    BodyNotAllowed,
    /// `Connection` is not a list of tokens, or names too many.
    Connection,
    /// An expectation other than 100-continue.
    ExpectationUnknown,
    /// The body is longer than [`Limits::body_bytes`](super::Limits::body_bytes).
    BodyTooLarge,
    /// A chunk's size line, or the end of its data, breaks the syntax.
    Chunk,
    /// Chunk extensions exceed a limit.
    ChunkExtTooLarge,
    /// The trailer section breaks the syntax.
    Trailer,
    /// A trailer that would change framing, routing or authentication. RFC 9110 6.5.1.
    TrailerForbidden,
    /// The trailer section is longer than [`Limits::trailer_bytes`](super::Limits::trailer_bytes).
    TrailersTooLarge,
    /// More informational responses than [`Limits::informational_count`](super::Limits::informational_count).
    TooManyInformational,
    /// 101 although no upgrade was asked for, or before the request was sent.
    UnexpectedUpgrade,
    /// Bytes from an origin that nobody asked for.
    UnexpectedBytes,
    /// The connection ended inside a message.
    Incomplete,
}

/// Whose doing an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer broke the rules.
    Broken,
    /// The peer may be right; it exceeds a limit, or wants what we do not have.
    Refused,
    /// The connection went away.
    Gone,
}

impl Error {
    /// The status that a server answers with.
    pub fn status(self) -> StatusCode {
        match self {
            Error::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Error::RequestLineTooLong => StatusCode::URI_TOO_LONG,
            Error::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Error::TooManyFields | Error::HeadTooLarge | Error::TrailersTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Error::TransferCodingUnknown => StatusCode::NOT_IMPLEMENTED,
            Error::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Error::BareLineEnd
            | Error::RequestLine
            | Error::Target
            | Error::StatusLine
            | Error::Field
            | Error::Host
            | Error::ContentLength
            | Error::TransferEncoding
            | Error::LengthAndChunked
            | Error::BodyNotAllowed
            | Error::Connection
            | Error::Chunk
            | Error::ChunkExtTooLarge
            | Error::Trailer
            | Error::TrailerForbidden
            | Error::TooManyInformational
            | Error::UnexpectedUpgrade
            | Error::UnexpectedBytes
            | Error::Incomplete => StatusCode::BAD_REQUEST,
        }
    }

    /// Whose doing it is.
    pub fn fault(self) -> Fault {
        match self {
            Error::Incomplete => Fault::Gone,
            Error::BodyTooLarge
            | Error::ChunkExtTooLarge
            | Error::ExpectationUnknown
            | Error::HeadTooLarge
            | Error::RequestLineTooLong
            | Error::TooManyFields
            | Error::TooManyInformational
            | Error::TrailersTooLarge
            | Error::TransferCodingUnknown
            | Error::Version => Fault::Refused,
            Error::BareLineEnd
            | Error::RequestLine
            | Error::Target
            | Error::StatusLine
            | Error::Field
            | Error::Host
            | Error::ContentLength
            | Error::TransferEncoding
            | Error::LengthAndChunked
            | Error::BodyNotAllowed
            | Error::Connection
            | Error::Chunk
            | Error::Trailer
            | Error::TrailerForbidden
            | Error::UnexpectedUpgrade
            | Error::UnexpectedBytes => Fault::Broken,
        }
    }

    /// A few words for a log or a response body.
    pub fn reason(self) -> &'static str {
        match self {
            Error::BareLineEnd => "line does not end in CRLF",
            Error::RequestLine => "malformed request line",
            Error::RequestLineTooLong => "request line too long",
            Error::Target => "bad request target",
            Error::StatusLine => "malformed status line",
            Error::Version => "HTTP version not supported",
            Error::Field => "malformed field",
            Error::TooManyFields => "too many fields",
            Error::HeadTooLarge => "head too large",
            Error::Host => "missing, repeated or bad host",
            Error::ContentLength => "bad content-length",
            Error::TransferEncoding => "bad transfer-encoding",
            Error::TransferCodingUnknown => "unknown transfer coding",
            Error::LengthAndChunked => "both content-length and transfer-encoding",
            Error::BodyNotAllowed => "body where none is allowed",
            Error::Connection => "bad connection field",
            Error::ExpectationUnknown => "unknown expectation",
            Error::BodyTooLarge => "body too large",
            Error::Chunk => "malformed chunk",
            Error::ChunkExtTooLarge => "chunk extensions too large",
            Error::Trailer => "malformed trailers",
            Error::TrailerForbidden => "forbidden trailer",
            Error::TrailersTooLarge => "trailers too large",
            Error::TooManyInformational => "too many informational responses",
            Error::UnexpectedUpgrade => "upgrade that was not asked for",
            Error::UnexpectedBytes => "bytes that were not asked for",
            Error::Incomplete => "connection ended inside a message",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Error {}

/// Why a call that sends did not. Nothing was written by that call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The call does not fit the state: no request to answer, the head already sent, the body already finished.
    State,
    /// The status is not what this call sends: `send_informational` takes 1xx but 101, `send_head` the others.
    Status,
    /// The body length does not fit the message: `Tunnel` without upgrade, a body with 204, `UntilClose` in a request.
    BodyLen,
    /// A tunnel although the peer did not ask, or before its request was read to the end.
    NotUpgradable,
    /// A method, target, host or field name with bytes that would break the line.
    Name,
    /// A field value with CR, LF, NUL or another control byte.
    Value,
    /// More body than announced.
    BodyTooLong {
        /// Bytes that were still allowed.
        allowed: u64,
    },
    /// Finished with less body than announced; the connection cannot be used any more.
    BodyTooShort {
        /// Bytes that are missing.
        missing: u64,
    },
    /// Trailers although the body is not chunked.
    TrailersNotAllowed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::State => f.write_str("not expected in this state"),
            SendError::Status => f.write_str("status not sent by this call"),
            SendError::BodyLen => f.write_str("body length does not fit the message"),
            SendError::NotUpgradable => f.write_str("no tunnel was asked for"),
            SendError::Name => f.write_str("byte not allowed in a name or target"),
            SendError::Value => f.write_str("byte not allowed in a field value"),
            SendError::BodyTooLong { allowed } => write!(f, "body too long, {allowed} bytes were left"),
            SendError::BodyTooShort { missing } => write!(f, "body too short by {missing} bytes"),
            SendError::TrailersNotAllowed => f.write_str("trailers need a chunked body"),
        }
    }
}

impl std::error::Error for SendError {}
