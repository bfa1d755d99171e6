//! Puts heads and bodies into a send queue.
//!
//! A head is written into scratch memory that the connection keeps, checked while it is written, and handed over in one
//! piece; a head with a fault leaves nothing in the queue.

use http::StatusCode;
use ringport_platform::buf::{Seg, TxQueue};

use super::BodyLen;
use super::error::SendError;
use super::parse::{is_forbidden_trailer, is_token_byte};
use super::target::{is_authority, is_target_byte};

/// The first line of a request to an origin, and its Host.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// The target: the path with its query, `*`, or for CONNECT `host:port`.
    pub target: &'a str,
    /// What Host says: `host` or `host:port`.
    pub host: &'a str,
}

/// What follows the fields: the body's framing and the life of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadEnd {
    pub(super) framing: Framing,
    pub(super) close: bool,
    /// Said to HTTP/1.0, where it is not the default.
    pub(super) keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Unsaid,
    Length(u64),
    Chunked,
}

pub(super) fn put_status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.clear();
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn put_request_line(out: &mut Vec<u8>, line: RequestLine<'_>) -> Result<(), SendError> {
    let method_valid = !line.method.is_empty() && line.method.bytes().all(is_token_byte);
    let target_valid = !line.target.is_empty() && line.target.bytes().all(is_target_byte);
    if !method_valid || !target_valid || !is_authority(line.host.as_bytes()) {
        return Err(SendError::Name);
    }
    out.clear();
    out.extend_from_slice(line.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(line.host.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes fields, those of framing, routing and this hop aside, and what they ask of `Connection`.
pub(super) fn put_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<HopOptions, SendError> {
    let mut options = HopOptions::default();
    for (name, value) in fields {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => continue,
            10 if name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive") => {
                continue;
            }
            14 if name.eq_ignore_ascii_case("content-length") => continue,
            16 if name.eq_ignore_ascii_case("proxy-connection") => continue,
            17 if name.eq_ignore_ascii_case("transfer-encoding") => continue,
            2 if name.eq_ignore_ascii_case("te") => options.te = true,
            7 if name.eq_ignore_ascii_case("upgrade") => options.upgrade = true,
            _ => {}
        }
        put_field(out, name, value)?;
    }
    Ok(options)
}

/// Fields that only count if `Connection` names them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HopOptions {
    pub(super) te: bool,
    pub(super) upgrade: bool,
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), SendError> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(SendError::Name);
    }
    if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(SendError::Value);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes the framing fields, `Connection` and the empty line.
pub(super) fn put_head_end(out: &mut Vec<u8>, end: HeadEnd, options: HopOptions) {
    match end.framing {
        Framing::Unsaid => {}
        Framing::Length(len) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    let said = [
        (end.close, "close"),
        (end.keep_alive && !end.close, "keep-alive"),
        (options.upgrade, "upgrade"),
        (options.te, "te"),
    ];
    let mut separator: &[u8] = b"connection: ";
    for (_, token) in said.iter().filter(|(wanted, _)| *wanted) {
        out.extend_from_slice(separator);
        out.extend_from_slice(token.as_bytes());
        separator = b", ";
    }
    if separator == b", " {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Frames the body of one message on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    /// That many bytes are still owed.
    Length(u64),
    Chunked,
    /// Bare bytes: a body that ends with the connection, or a tunnel.
    Bare,
    Done,
}

impl Encoder {
    /// Whether nothing more has to be sent but for the caller saying so.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Encoder::Length(0) | Encoder::Done)
    }

    pub(super) fn send_data(&mut self, seg: Seg, tx: &mut TxQueue) -> Result<(), SendError> {
        let len = seg.len() as u64;
        match self {
            Encoder::Done => return Err(SendError::State),
            Encoder::Length(left) => match left.checked_sub(len) {
                Some(rest) => {
                    *left = rest;
                    tx.push(seg);
                }
                None => return Err(SendError::BodyTooLong { allowed: *left }),
            },
            // An empty chunk would end the body.
            Encoder::Chunked if len == 0 => {}
            Encoder::Chunked => {
                let (line, used) = chunk_line(len);
                tx.put_slice(&line[..used]);
                // A chunk of a byte must not cost three entries of a queue that is bounded in bytes.
                if seg.len() <= COPY_BYTES {
                    tx.put_slice(&seg);
                } else {
                    tx.push(seg);
                }
                tx.put_slice(b"\r\n");
            }
            Encoder::Bare => tx.push(seg),
        }
        Ok(())
    }

    pub(super) fn send_trailers<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        scratch: &mut Vec<u8>,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        match self {
            Encoder::Done => return Err(SendError::State),
            Encoder::Length(_) => return Err(SendError::TrailersNotAllowed),
            // RFC 9110 6.5.1: where they cannot be sent they may be dropped.
            Encoder::Bare => {}
            Encoder::Chunked => {
                scratch.clear();
                scratch.extend_from_slice(b"0\r\n");
                for (name, value) in fields {
                    if is_forbidden_trailer(name) {
                        return Err(SendError::Name);
                    }
                    put_field(scratch, name, value)?;
                }
                scratch.extend_from_slice(b"\r\n");
                tx.put_slice(scratch);
            }
        }
        *self = Encoder::Done;
        Ok(())
    }

    pub(super) fn finish(&mut self, tx: &mut TxQueue) -> Result<(), SendError> {
        match *self {
            Encoder::Done => return Err(SendError::State),
            Encoder::Length(missing) if missing > 0 => return Err(SendError::BodyTooShort { missing }),
            Encoder::Length(_) | Encoder::Bare => {}
            Encoder::Chunked => tx.put_slice(b"0\r\n\r\n"),
        }
        *self = Encoder::Done;
        Ok(())
    }
}

/// A chunk up to this size is copied between the lines around it.
const COPY_BYTES: usize = 256;

/// The size of a chunk in hexadecimal, with CRLF.
fn chunk_line(mut size: u64) -> ([u8; 18], usize) {
    let mut line = [0; 18];
    let digits = (64 - size.leading_zeros()).div_ceil(4).max(1) as usize;
    for slot in line[..digits].iter_mut().rev() {
        *slot = b"0123456789abcdef"[(size & 0xf) as usize];
        size >>= 4;
    }
    line[digits..digits + 2].copy_from_slice(b"\r\n");
    (line, digits + 2)
}

/// The framing that announces a body, and the encoder that sends it.
pub(super) fn announce(body: BodyLen) -> (Framing, Encoder) {
    match body {
        BodyLen::None => (Framing::Unsaid, Encoder::Length(0)),
        BodyLen::Length(len) => (Framing::Length(len), Encoder::Length(len)),
        BodyLen::Chunked => (Framing::Chunked, Encoder::Chunked),
        BodyLen::UntilClose | BodyLen::Tunnel => (Framing::Unsaid, Encoder::Bare),
    }
}
