//! HTTP/1.1 and HTTP/1.0 message framing, both roles. RFC 9112, RFC 9110.
//!
//! Strict in what is taken: whatever two implementations could frame differently is refused, so that nothing can be
//! smuggled past a gateway. Lines end in CRLF only; one Host; one `Content-Length` of digits or one
//! `Transfer-Encoding: chunked`, never both. Canonical in what is sent: the machine writes the framing fields
//! (`Content-Length`, `Transfer-Encoding`, `Connection`, and a request's `Host`) itself and skips those given to it.
//!
//! [`ServerConn`] answers requests, [`ClientConn`] makes them. Both share the head table ([`RequestHead`],
//! [`ResponseHead`], [`Trailers`]), the body decoder and the body encoder. After the first messages of a connection a
//! message without body costs no heap allocation: a head is one view of the received bytes and a record of offsets,
//! which the connection fills again for the next head once this one is dropped.
//!
//! While a head is incomplete its bytes stay in the receive queue. A queue of many small views is gathered into one by
//! the machine; a driver that sees a connection wait long calls [`RxQueue::compact`], so that it pins no chunk.
//!
//! [`RxQueue::compact`]: ringport_platform::buf::RxQueue::compact

mod body;
mod client;
mod error;
mod head;
mod parse;
mod plain;
mod scan;
mod server;
mod target;
mod write;

#[cfg(test)]
mod tests;

pub use client::{ClientConn, ClientEvent};
pub use error::{Error, Fault, SendError};
pub use head::{Fields, ForwardableFields, RequestHead, ResponseHead, Trailers};
pub(super) use parse::{is_forbidden_trailer, is_token_byte, written_request, written_response};
pub use server::{RemainingBody, ServerConn, ServerEvent};
pub(super) use target::{is_authority, is_target_byte};
pub use write::{Authority, FieldBlock, FieldWriter, ForwardedHost, RequestLine};

/// How the body of a message is delimited. RFC 9112 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLen {
    /// No body.
    #[default]
    None,
    /// That many bytes.
    ///
    /// In the response to HEAD, and in a 304, the length that the body would have: it is announced, and no body is
    /// sent.
    Length(u64),
    /// Chunks, and perhaps trailers. Towards HTTP/1.0 it is sent as [`BodyLen::UntilClose`].
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
    /// Not HTTP any more: what follows 101, or a 2xx to CONNECT, belongs to another protocol, both ways.
    Tunnel,
}

/// What a peer may send at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request line with its CRLF; beyond it 414. Default 8 KiB. RFC 9112 3 asks for 8,000 at least.
    pub request_line_bytes: usize,
    /// Bytes of a head with its empty line; beyond it 431. Default 32 KiB, at most 65,535.
    pub head_bytes: usize,
    /// Fields of a head; beyond it 431. Default 100, at most 256; of a trailer section at most 64.
    pub header_count: usize,
    /// Bytes of a line that starts a chunk, with its extensions and CRLF. Default 256.
    pub chunk_line_bytes: usize,
    /// Bytes of all chunk extensions of a message. Default 16 KiB.
    pub chunk_ext_bytes: usize,
    /// Bytes of a trailer section with its empty line; beyond it 431. Default 8 KiB, at most 65,535.
    pub trailer_bytes: usize,
    /// Bytes of a body without its framing; beyond it 413. Default none.
    pub body_bytes: Option<u64>,
    /// Informational responses before the final one. Default 16.
    pub informational_count: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line_bytes: 8 * 1024,
            head_bytes: 32 * 1024,
            header_count: 100,
            chunk_line_bytes: 256,
            chunk_ext_bytes: 16 * 1024,
            trailer_bytes: 8 * 1024,
            body_bytes: None,
            informational_count: 16,
        }
    }
}

impl Limits {
    /// The limits with those lowered that the head table cannot hold: offsets have 16 bits.
    fn clamped(self) -> Self {
        Limits {
            head_bytes: self.head_bytes.min(usize::from(u16::MAX)),
            header_count: self.header_count.min(parse::MAX_HEADERS),
            trailer_bytes: self.trailer_bytes.min(usize::from(u16::MAX)),
            ..self
        }
    }
}
