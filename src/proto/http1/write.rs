//! Puts heads and bodies into a send queue.
//!
//! A head is written where it is sent from, and checked meanwhile; one with a fault leaves nothing in the queue.

use http::StatusCode;
use ringport_platform::buf::{Seg, TxQueue, TxWriter};

use super::BodyLen;
use super::error::SendError;
use super::head::{Kind, RequestHead, ResponseHead, Table};
use super::parse::{is_forbidden_trailer, is_token_byte};
use super::plain;
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

/// A host with or without a port that was checked once and is put into many heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority(Box<str>);

impl Authority {
    /// `host` or `host:port`.
    ///
    /// # Errors
    /// [`SendError::Name`] if it is neither.
    pub fn new(text: &str) -> Result<Self, SendError> {
        if is_authority(text.as_bytes()) { Ok(Authority(text.into())) } else { Err(SendError::Name) }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What Host says in a request that is passed on.
#[derive(Clone, Copy, Debug)]
pub enum ForwardedHost<'a> {
    /// What the request was for.
    AsReceived,
    /// Another one.
    Named(&'a Authority),
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

pub(super) fn put_status_line(out: &mut TxWriter, status: StatusCode) {
    if status == StatusCode::OK {
        return out.put(b"HTTP/1.1 200 OK\r\n");
    }
    out.put(b"HTTP/1.1 ");
    out.put(status.as_str().as_bytes());
    out.put(b" ");
    out.put(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put(b"\r\n");
}

pub(super) fn put_request_line(out: &mut TxWriter, line: RequestLine<'_>) -> Result<(), SendError> {
    let method_valid = !line.method.is_empty() && line.method.bytes().all(is_token_byte);
    let target_valid = !line.target.is_empty() && line.target.bytes().all(is_target_byte);
    if !method_valid || !target_valid || !is_authority(line.host.as_bytes()) {
        return Err(SendError::Name);
    }
    put_checked_line(out, line.method.as_bytes(), line.target.as_bytes(), line.host.as_bytes());
    Ok(())
}

/// Puts the first line and Host for a head that was checked when it was read. RFC 9112 3.2: the target is that for an
/// origin.
pub(super) fn put_forwarded_line(
    out: &mut TxWriter,
    head: &RequestHead,
    host: ForwardedHost<'_>,
) -> Result<(), SendError> {
    let record = head.record();
    let host = match (host, record.authority) {
        (ForwardedHost::Named(authority), _) => authority.0.as_bytes(),
        (ForwardedHost::AsReceived, Some(span)) => head.table.bytes(span),
        (ForwardedHost::AsReceived, None) => return Err(SendError::Name),
    };
    let method = record.method.as_str().as_bytes();
    if record.path.at == record.target.at {
        put_checked_line(out, method, head.table.bytes(record.target), host);
    } else {
        put_checked_line(out, method, head.origin_target().as_bytes(), host);
    }
    Ok(())
}

fn put_checked_line(out: &mut TxWriter, method: &[u8], target: &[u8], host: &[u8]) {
    out.put(method);
    out.put(b" ");
    out.put(target);
    out.put(b" HTTP/1.1\r\nhost: ");
    out.put(host);
    out.put(b"\r\n");
}

/// Writes the fields of a head, behind its first line.
pub struct FieldWriter<'a> {
    out: &'a mut TxWriter,
    options: HopOptions,
}

impl FieldWriter<'_> {
    /// Writes a field. Those of framing, routing and this hop are skipped: the machine writes them.
    ///
    /// # Errors
    /// If the name is no token or the value has control bytes; the head is not sent then.
    pub fn put(&mut self, name: &str, value: &[u8]) -> Result<(), SendError> {
        self.put_parts(name, &[value])
    }

    /// Writes a field whose value is the parts joined. As [`FieldWriter::put`] otherwise.
    ///
    /// # Errors
    /// As [`FieldWriter::put`].
    pub fn put_parts(&mut self, name: &str, value: &[&[u8]]) -> Result<(), SendError> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => return Ok(()),
            10 if name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive") => {
                return Ok(());
            }
            14 if name.eq_ignore_ascii_case("content-length") => return Ok(()),
            16 if name.eq_ignore_ascii_case("proxy-connection") => return Ok(()),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return Ok(()),
            2 if name.eq_ignore_ascii_case("te") => self.options.te = true,
            7 if name.eq_ignore_ascii_case("upgrade") => self.options.upgrade = true,
            _ => {}
        }
        put_field(self.out, name, value)
    }

    /// Writes the fields of a block. Costs one copy.
    pub fn put_block(&mut self, block: &FieldBlock) {
        self.out.put(&block.bytes);
        self.options.te |= block.options.te;
        self.options.upgrade |= block.options.upgrade;
    }

    /// Writes the fields of a received head that a gateway passes on: those of [`RequestHead::forwardable_fields`], here
    /// without those that tell the origin about the client (`Forwarded`, `X-Forwarded-For`, `-Host` and `-Proto`), which
    /// the gateway writes anew.
    ///
    /// They were checked when they were read, so whole lines are copied as they came.
    pub fn forward_request(&mut self, head: &RequestHead) {
        self.forward(&head.table, head.record().facts.te_trailers, |kind| kind == Kind::EndToEnd);
    }

    /// As [`FieldWriter::forward_request`], with what the client, or a gateway before, says about the client.
    pub fn forward_request_as_told(&mut self, head: &RequestHead) {
        self.forward(&head.table, head.record().facts.te_trailers, |kind| {
            matches!(kind, Kind::EndToEnd | Kind::Client)
        });
    }

    /// Writes the fields of [`ResponseHead::forwardable_fields`], as [`FieldWriter::forward_request`] does.
    pub fn forward_response(&mut self, head: &ResponseHead) {
        self.forward(&head.table, false, |kind| kind == Kind::EndToEnd);
    }

    fn forward(&mut self, table: &Table, te_trailers: bool, passes: impl Fn(Kind) -> bool) {
        let mut run = 0..0;
        for (field, line_end) in table.lines() {
            if !passes(field.kind) {
                continue;
            }
            let line = usize::from(field.name.at)..line_end;
            if !table.is_plain(field, line_end) {
                self.out.put(&table.buf[std::mem::take(&mut run)]);
                self.put_checked(table.bytes(field.name), table.bytes(field.value));
            } else if line.start == run.end {
                run.end = line.end;
            } else if run.is_empty() {
                run = line;
            } else {
                self.out.put(&table.buf[std::mem::replace(&mut run, line)]);
            }
        }
        if !run.is_empty() {
            self.out.put(&table.buf[run]);
        }
        if te_trailers {
            self.options.te = true;
            self.put_checked(b"te", b"trailers");
        }
    }

    fn put_checked(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.out.put(part);
        }
    }
}

/// Fields that are checked once and put into many heads.
#[derive(Clone, Debug, Default)]
pub struct FieldBlock {
    bytes: Vec<u8>,
    options: HopOptions,
}

impl FieldBlock {
    /// The fields that `write` puts, in place of those that the block has.
    ///
    /// # Errors
    /// What `write` says; the block is empty then.
    pub fn fill(
        &mut self,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        *self = FieldBlock::default();
        let mut bytes = TxWriter::new();
        self.options = put_fields(&mut bytes, write)?;
        self.bytes = bytes.into_vec();
        Ok(())
    }
}

impl FieldBlock {
    /// The fields in order, names as they were put.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Checked as they were put: no line has a line break, no name a colon, and behind that is one space.
        let lines = self.bytes.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        lines.filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..at]).ok()?, line.get(at + 2..)?))
        })
    }
}

/// Lets `write` put fields behind what is in `out`; what they ask of `Connection`.
pub(super) fn put_fields(
    out: &mut TxWriter,
    write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError>,
) -> Result<HopOptions, SendError> {
    let mut writer = FieldWriter { out, options: HopOptions::default() };
    write(&mut writer)?;
    Ok(writer.options)
}

/// Puts the fields that an iterator gives.
pub(super) fn each<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> impl FnOnce(&mut FieldWriter<'_>) -> Result<(), SendError> {
    move |writer| fields.into_iter().try_for_each(|(name, value)| writer.put(name, value))
}

/// Fields that only count if `Connection` names them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HopOptions {
    pub(super) te: bool,
    pub(super) upgrade: bool,
}

fn put_field(out: &mut TxWriter, name: &str, value: &[&[u8]]) -> Result<(), SendError> {
    let plain_name = plain::is_free_of(name.as_bytes(), plain::not_of_name);
    if name.is_empty() || !(plain_name || name.bytes().all(is_token_byte)) {
        return Err(SendError::Name);
    }
    out.put(name.as_bytes());
    out.put(b": ");
    let start = out.len();
    value.iter().for_each(|part| out.put(part));
    if !plain::is_free_of(out.written(start), plain::not_of_value) {
        return Err(SendError::Value);
    }
    out.put(b"\r\n");
    Ok(())
}

/// Writes the framing fields, `Connection` and the empty line.
pub(super) fn put_head_end(out: &mut TxWriter, end: HeadEnd, options: HopOptions) {
    match end.framing {
        Framing::Unsaid => {}
        Framing::Length(len) => {
            out.put(b"content-length: ");
            out.put(itoa::Buffer::new().format(len).as_bytes());
            out.put(b"\r\n");
        }
        Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n"),
    }
    if !(end.close || end.keep_alive || options.upgrade || options.te) {
        return out.put(b"\r\n");
    }
    put_connection(out, end, options);
    out.put(b"\r\n");
}

#[cold]
fn put_connection(out: &mut TxWriter, end: HeadEnd, options: HopOptions) {
    let said = [
        (end.close, "close"),
        (end.keep_alive && !end.close, "keep-alive"),
        (options.upgrade, "upgrade"),
        (options.te, "te"),
    ];
    let mut separator: &[u8] = b"connection: ";
    for (_, token) in said.iter().filter(|(wanted, _)| *wanted) {
        out.put(separator);
        out.put(token.as_bytes());
        separator = b", ";
    }
    out.put(b"\r\n");
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

    /// The payload is not copied, unless it is small.
    pub(super) fn send_data(&mut self, seg: Seg, tx: &mut TxQueue) -> Result<(), SendError> {
        let len = seg.len() as u64;
        match self {
            Encoder::Done => return Err(SendError::State),
            Encoder::Length(left) => match left.checked_sub(len) {
                Some(rest) => {
                    *left = rest;
                    put(seg, tx);
                }
                None => return Err(SendError::BodyTooLong { allowed: *left }),
            },
            // An empty chunk would end the body.
            Encoder::Chunked if len == 0 => {}
            Encoder::Chunked => {
                let (line, used) = chunk_line(len);
                tx.put_slice(&line[..used]);
                put(seg, tx);
                tx.put_slice(b"\r\n");
            }
            Encoder::Bare => put(seg, tx),
        }
        Ok(())
    }

    /// Counts `count` bytes that went out and did not come here.
    pub(super) fn send_past(&mut self, count: u64) -> Result<(), SendError> {
        let Encoder::Length(left) = self else { return Err(SendError::State) };
        *left = left.checked_sub(count).ok_or(SendError::BodyTooLong { allowed: *left })?;
        Ok(())
    }

    pub(super) fn send_trailers<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        tx: &mut TxQueue,
    ) -> Result<(), SendError> {
        match self {
            Encoder::Done => return Err(SendError::State),
            Encoder::Length(_) => return Err(SendError::TrailersNotAllowed),
            // RFC 9110 6.5.1: where they cannot be sent they may be dropped.
            Encoder::Bare => {}
            Encoder::Chunked => tx.put_with(|out| {
                out.put(b"0\r\n");
                for (name, value) in fields {
                    if is_forbidden_trailer(name) {
                        return Err(SendError::Name);
                    }
                    put_field(out, name, &[value])?;
                }
                out.put(b"\r\n");
                Ok(())
            })?,
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

fn put(seg: Seg, tx: &mut TxQueue) {
    if is_small(&seg) {
        tx.put_slice(&seg);
    } else {
        tx.push(seg);
    }
}

/// Whether a payload is copied behind what goes before it.
pub(super) fn is_small(payload: &[u8]) -> bool {
    payload.len() <= COPIED_BYTES
}

/// Payload that is copied, which makes one segment of several. A segment of its own costs more
/// than such a copy; and a flood of tiny chunks would wait in many times the memory of its bytes, and go out a few dozen
/// bytes a system call.
const COPIED_BYTES: usize = 256;

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
