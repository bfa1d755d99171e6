//! From the bytes of a complete head to its table, refusing what could be framed in two ways.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::rc::Rc;

use http::{Method, StatusCode, Version};
use ringport_platform::buf::{PoolBuf, RxQueue, SharedBuf};

use super::error::Error;
use super::head::{Facts, FieldPos, Kind, Record, RequestHead, ResponseHead, Span, Spare, Table, Trailers};
use super::plain::{self, FieldLine};
use super::target::{is_authority, parse_target};
use super::{BodyLen, Limits};

/// Fields that any head may have, whatever the limits say: the parser's scratch lies on the stack.
pub(super) const MAX_HEADERS: usize = 256;
const MAX_TRAILERS: usize = 64;
/// Names in `Connection`, each of which is compared with each field.
const MAX_CONNECTION_TOKENS: u8 = 32;
/// Bytes of a host that a connection remembers: a name of the DNS with its port is not longer.
const MAX_KNOWN_HOST: usize = 260;
/// More digits could pass `u64`.
const MAX_LENGTH_DIGITS: usize = 19;

/// Takes the request head at the front of `rx` out if it is, byte by byte, the one before, as where a client asks for the same
/// again, and that one is gone; says how its body is delimited. `None` for any other, which [`parse_request`] reads.
#[inline(always)]
pub(super) fn repeated_request(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &mut Spare,
) -> Option<(RequestHead, BodyLen)> {
    let record = spare.last()?;
    let len = record.recall(front(rx, window), limits.request_line_bytes, limits.header_count)?;
    let body = record.body;
    Some((RequestHead { table: spare.table(take(rx, len)) }, body))
}

/// As [`repeated_request`], for a response.
#[inline(always)]
pub(super) fn repeated_response(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &mut Spare,
) -> Option<ResponseHead> {
    let len = spare.last()?.recall(front(rx, window), usize::MAX, limits.header_count)?;
    Some(ResponseHead { table: spare.table(take(rx, len)) })
}

/// Parses the request head at the front of `rx` and takes it out; says how its body is delimited.
///
/// The head lies in the first view, and nothing behind its first `window` bytes is looked at. An error leaves `rx` as it
/// is; a head that is not whole is one, too.
pub(super) fn parse_request(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &mut Spare,
) -> Result<(RequestHead, BodyLen), Error> {
    let buf = front(rx, window);
    let record = spare.unused();
    let (len, body) = match read_plain_request(buf, limits, record) {
        Some(read) => read,
        None => read_request(buf, limits, record)?,
    };
    let table = spare.table(take(rx, len));
    Ok((RequestHead { table }, body))
}

/// The head of a request that came in another version and was written in the form of this one: `text`, as strictly read as
/// any.
pub(in crate::proto) fn written_request(text: &[u8], version: Version) -> Result<RequestHead, Error> {
    let (mut rx, mut spare) = written(text)?;
    let (head, _) = parse_request(&mut rx, text.len(), &WRITTEN, &mut spare)?;
    drop(spare);
    Ok(RequestHead { table: head.table.said_in(version) })
}

/// As [`written_request`], of a response.
pub(in crate::proto) fn written_response(text: &[u8], version: Version) -> Result<ResponseHead, Error> {
    let (mut rx, mut spare) = written(text)?;
    let head = parse_response(&mut rx, text.len(), &WRITTEN, &mut spare)?;
    drop(spare);
    Ok(ResponseHead { table: head.table.said_in(version) })
}

fn written(text: &[u8]) -> Result<(RxQueue, Spare), Error> {
    if text.len() > WRITTEN.head_bytes {
        return Err(Error::HeadTooLarge);
    }
    let (mut rx, mut spare) = (RxQueue::new(), Spare::default());
    rx.push(PoolBuf::copied(text));
    spare.unused().known.never();
    Ok((rx, spare))
}

/// Of what a machine of another version let through, which has limits of its own.
const WRITTEN: Limits = Limits {
    request_line_bytes: u16::MAX as usize,
    head_bytes: u16::MAX as usize,
    header_count: MAX_HEADERS,
    chunk_line_bytes: 0,
    chunk_ext_bytes: 0,
    trailer_bytes: 0,
    body_bytes: None,
    informational_count: 0,
};

/// Reads a request head that is written as nearly all are; its length and how its body is delimited. `None` for any
/// other, for one that is not whole and for one with a fault: [`read_request`] looks at it then.
fn read_plain_request(buf: &[u8], limits: &Limits, record: &mut Record) -> Option<(usize, BodyLen)> {
    let start = plain::request_start(buf)?;
    if start.len > limits.request_line_bytes {
        return None;
    }
    record.method = start.method;
    record.target = start.target;
    let Span { at, len } = start.target;
    let path_len = start.query_at.unwrap_or(len);
    record.path = Span { at, len: path_len };
    record.query = start.query_at.map(|_| Span { at: at + path_len + 1, len: len - path_len - 1 });
    if let Some(len) = record.recall_fields(buf, start.len, limits.header_count) {
        record.body = request_body(&record.method, &record.facts).ok()?;
        return Some((len, record.body));
    }
    let mut collect = Collect::new(record, Version::HTTP_11, Role::Request);
    let len = collect.add_plain(buf, start.len, limits)?;
    let body = collect.finish_request(buf, None).ok()?;
    record.remember(&buf[..len], start.len);
    Some((len, body))
}

/// Reads any request head. Apart from what reads nearly all, for its memory on the stack.
#[cold]
#[inline(never)]
fn read_request(buf: &[u8], limits: &Limits, record: &mut Record) -> Result<(usize, BodyLen), Error> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(buf, &mut headers[..limits.header_count]) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(Error::RequestLine),
        Err(error) => return Err(syntax_error(error, buf)),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Error::RequestLine) };
    let version = version(request.version)?;
    let parts = parse_target(method.as_bytes(), target.as_bytes()).ok_or(Error::Target)?;
    let target = Span::of(buf, target.as_bytes());
    let span = |range: Range<usize>| Span { at: target.at + range.start as u16, len: range.len() as u16 };
    record.method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::RequestLine)?;
    record.target = target;
    record.path = span(parts.path);
    record.query = parts.query.map(span);
    let mut collect = Collect::new(record, version, Role::Request);
    for header in request.headers.iter() {
        collect.add(buf, header)?;
    }
    if collect.ends_strictly(buf, len)? > limits.request_line_bytes {
        return Err(Error::RequestLineTooLong);
    }
    let body = collect.finish_request(buf, parts.authority.map(span))?;
    Ok((len, body))
}

/// Parses the response head at the front of `rx` and takes it out. How its body is delimited depends on the request
/// too. As [`parse_request`] otherwise.
pub(super) fn parse_response(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &mut Spare,
) -> Result<ResponseHead, Error> {
    let buf = front(rx, window);
    let record = spare.unused();
    let len = match read_plain_response(buf, limits, record) {
        Some(len) => len,
        None => read_response(buf, limits, record)?,
    };
    Ok(ResponseHead { table: spare.table(take(rx, len)) })
}

/// As [`read_plain_request`], for a response; its length.
#[inline]
fn read_plain_response(buf: &[u8], limits: &Limits, record: &mut Record) -> Option<usize> {
    record.recall(buf, usize::MAX, limits.header_count).or_else(|| read_new_response(buf, limits, record))
}

/// As [`read_new_request`], for a response.
fn read_new_response(buf: &[u8], limits: &Limits, record: &mut Record) -> Option<usize> {
    let start = plain::response_start(buf)?;
    record.status = start.status;
    record.reason = start.reason;
    if let Some(len) = record.recall_fields(buf, start.len, limits.header_count) {
        return Some(len);
    }
    let mut collect = Collect::new(record, Version::HTTP_11, Role::Response);
    let len = collect.add_plain(buf, start.len, limits)?;
    collect.finish(buf).ok()?;
    record.remember(&buf[..len], start.len);
    Some(len)
}

/// Reads any response head; as [`read_request`].
#[cold]
#[inline(never)]
fn read_response(buf: &[u8], limits: &Limits, record: &mut Record) -> Result<usize, Error> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut headers[..limits.header_count],
    );
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(Error::StatusLine),
        Err(error) => {
            return Err(match syntax_error(error, buf) {
                Error::RequestLine => Error::StatusLine,
                other => other,
            });
        }
    };
    let version = version(response.version)?;
    record.status =
        response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::StatusLine)?;
    record.reason = Span::of(buf, response.reason.unwrap_or_default().as_bytes());
    let mut collect = Collect::new(record, version, Role::Response);
    for header in response.headers.iter() {
        collect.add(buf, header)?;
    }
    collect.ends_strictly(buf, len)?;
    collect.finish(buf)?;
    Ok(len)
}

/// Takes the head that was read at the front.
#[inline]
fn take(rx: &mut RxQueue, len: usize) -> SharedBuf {
    rx.pop(len).unwrap_or_else(|| PoolBuf::copied(&[])).freeze()
}

/// At most `window` bytes of the first view, and no more than offsets can name.
#[inline]
fn front(rx: &RxQueue, window: usize) -> &[u8] {
    let front = rx.front();
    &front[..front.len().min(window).min(usize::from(u16::MAX))]
}

/// Parses a trailer section that ends with its empty line.
pub(super) fn parse_trailers(buf: SharedBuf, limits: &Limits) -> Result<Trailers, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let count = limits.header_count.min(MAX_TRAILERS);
    let parsed = match httparse::parse_headers(&buf, &mut headers[..count]) {
        Ok(httparse::Status::Complete((len, parsed))) if len == buf.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyFields),
        Ok(_) | Err(_) => return Err(Error::Trailer),
    };
    let mut record = Record::default();
    for header in parsed {
        if is_forbidden_trailer(header.name) {
            return Err(Error::TrailerForbidden);
        }
        let (name, value) = (Span::of(&buf, header.name.as_bytes()), Span::of(&buf, trim(header.value)));
        record.fields.push(FieldPos { name, value, kind: Kind::EndToEnd });
    }
    Ok(Trailers { table: Table { buf, record: Rc::new(record) } })
}

/// Whether a trailer of that name would change framing, routing, authentication or the meaning of the content.
/// RFC 9110 6.5.1.
pub(in crate::proto) fn is_forbidden_trailer(name: &str) -> bool {
    FORBIDDEN_TRAILERS.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name))
}

const FORBIDDEN_TRAILERS: [&str; 22] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// RFC 9112 6.3, for requests: what is not delimited has no body.
fn request_body(method: &Method, facts: &Facts) -> Result<BodyLen, Error> {
    if method == Method::CONNECT {
        let bodyless = !facts.chunked && matches!(facts.content_length, None | Some(0));
        return if bodyless { Ok(BodyLen::Tunnel) } else { Err(Error::BodyNotAllowed) };
    }
    Ok(match facts.content_length {
        _ if facts.chunked => BodyLen::Chunked,
        None | Some(0) => BodyLen::None,
        Some(len) => BodyLen::Length(len),
    })
}

fn version(minor: Option<u8>) -> Result<Version, Error> {
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        Some(0) => Ok(Version::HTTP_10),
        _ => Err(Error::Version),
    }
}

fn syntax_error(error: httparse::Error, head: &[u8]) -> Error {
    match error {
        httparse::Error::TooManyHeaders => Error::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Error::Field,
        httparse::Error::Status => Error::StatusLine,
        httparse::Error::Version if names_other_version(head) => Error::Version,
        httparse::Error::Version | httparse::Error::Token | httparse::Error::NewLine => Error::RequestLine,
    }
}

/// Whether the first line has a well-formed version where one belongs; else the line is broken elsewhere.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let is_version = |word: &[u8]| matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
    let mut words = line.split(|&byte| byte == b' ');
    let status_line = words.next().is_some_and(is_version);
    status_line || (words.nth(1).is_some_and(is_version) && words.next().is_none())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Request,
    Response,
}

/// Gathers the table and the facts of a head, field by field.
struct Collect<'a> {
    role: Role,
    record: &'a mut Record,
    has_transfer_encoding: bool,
    has_upgrade: bool,
    says_upgrade: bool,
    host: Option<Span>,
    host_count: u8,
    token_count: u8,
    /// Whether `Connection` names fields beyond those that never leave this hop.
    names_fields: bool,
}

impl<'a> Collect<'a> {
    fn new(record: &'a mut Record, version: Version, role: Role) -> Self {
        record.known.forget();
        record.fields.clear();
        record.plain = false;
        record.facts = Facts { version, ..Facts::default() };
        Collect {
            role,
            record,
            has_transfer_encoding: false,
            has_upgrade: false,
            says_upgrade: false,
            host: None,
            host_count: 0,
            token_count: 0,
            names_fields: false,
        }
    }

    /// Adds the fields from `at` to the empty line, if all are written plainly and without fault; the length of the head.
    fn add_plain(&mut self, buf: &[u8], at: usize, limits: &Limits) -> Option<usize> {
        let mut lines = buf.get(at..)?;
        loop {
            if let [b'\r', b'\n', rest @ ..] = lines {
                self.record.plain = true;
                return Some(buf.len() - rest.len());
            }
            if self.record.fields.len() >= limits.header_count {
                return None;
            }
            let at = (buf.len() - lines.len()) as u16;
            let FieldLine { name, value, rest } = plain::field_line(lines)?;
            let name_pos = Span { at, len: name.len() as u16 };
            let value_pos = Span { at: at + name_pos.len + 2, len: value.len() as u16 };
            let kind = self.note(name, value, value_pos).ok()?;
            self.record.fields.push(FieldPos { name: name_pos, value: value_pos, kind });
            lines = rest;
        }
    }

    fn add(&mut self, buf: &[u8], header: &httparse::Header<'_>) -> Result<(), Error> {
        let value = trim(header.value);
        let name = Span::of(buf, header.name.as_bytes());
        // The parser takes a bare LF for the end of a line; we do not.
        if !buf[..usize::from(name.at)].ends_with(b"\r\n") {
            return Err(Error::BareLineEnd);
        }
        let value_pos = Span::of(buf, value);
        let kind = self.note(header.name.as_bytes(), value, value_pos)?;
        self.record.fields.push(FieldPos { name, value: value_pos, kind });
        Ok(())
    }

    /// Checks the line ends that no field has looked at; the length of the first line with its CRLF.
    fn ends_strictly(&self, buf: &[u8], len: usize) -> Result<usize, Error> {
        if !buf[..len].ends_with(b"\r\n\r\n") || buf.starts_with(b"\r") || buf.starts_with(b"\n") {
            return Err(Error::BareLineEnd);
        }
        Ok(self.record.fields.first().map_or(len - 2, |field| usize::from(field.name.at)))
    }

    /// Takes what a field says about framing and this hop. Most names end at their length and first letter.
    #[inline(always)]
    fn note(&mut self, name: &[u8], value: &[u8], pos: Span) -> Result<Kind, Error> {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        let request = self.role == Role::Request;
        match (name.len(), first) {
            (2, b't') if request && is(name, b"te") => {
                self.record.facts.te_trailers |=
                    list(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
                return Ok(Kind::Te);
            }
            // RFC 9110 10.1.4: of requests only.
            (2, b't') if is(name, b"te") => {}
            (4, b'h') if request && is(name, b"host") => {
                self.note_host(value)?;
                self.host = (!value.is_empty()).then_some(pos);
            }
            (6, b'e') if request && is(name, b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::ExpectationUnknown);
                }
                self.record.facts.expect_continue = true;
                return Ok(Kind::EndToEnd);
            }
            (7, b'u') if is(name, b"upgrade") => self.has_upgrade = true,
            (4, b'd') if !request && is(name, b"date") => {
                // RFC 9110 6.6.1: an origin sends one; of more the first counts.
                let first = !std::mem::replace(&mut self.record.facts.dated, true);
                return Ok(if first { Kind::EndToEnd } else { Kind::ThisHop });
            }
            (9, b'f') | (15..=17, b'x') if request && tells_client(name) => {
                self.record.facts.client_fields = true;
                return Ok(Kind::Client);
            }
            (10, b'c') if is(name, b"connection") => self.note_connection(value)?,
            (10, b'k') if is(name, b"keep-alive") => {}
            (14, b'c') if is(name, b"content-length") => self.note_content_length(value)?,
            (14, b'h') if is(name, b"http2-settings") => {}
            (16, b'p') if is(name, b"proxy-connection") => {}
            (17, b't') if is(name, b"transfer-encoding") => self.note_transfer_encoding(value)?,
            // Some origins take `_` for `-`, and would frame by what we do not.
            (14, b'c') if folded(name, b"content-length") => {}
            (17, b't') if folded(name, b"transfer-encoding") => {}
            (18, b'p') if is(name, b"proxy-authenticate") => {}
            // Believed where it stands, so it may stand there by a gateway's own word only.
            (23, b'x') if request && folded(name, b"x-forwarded-client-cert") => {}
            (19, b'p') if is(name, b"proxy-authorization") => {}
            _ => return Ok(Kind::EndToEnd),
        }
        Ok(Kind::ThisHop)
    }

    fn note_host(&mut self, value: &[u8]) -> Result<(), Error> {
        self.host_count = self.host_count.saturating_add(1);
        // A connection asks for one host, mostly: what was valid before is valid.
        if !value.is_empty() && value == self.record.known_host {
            return Ok(());
        }
        self.note_other_host(value)
    }

    fn note_other_host(&mut self, value: &[u8]) -> Result<(), Error> {
        // HTTP/1.0 clients of old send an empty one.
        let empty_allowed = value.is_empty() && self.record.facts.version == Version::HTTP_10;
        if !empty_allowed && !is_authority(value) {
            return Err(Error::Host);
        }
        if value.len() <= MAX_KNOWN_HOST {
            self.record.known_host.clear();
            self.record.known_host.extend_from_slice(value);
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Error> {
        for token in list(value) {
            self.token_count += 1;
            if self.token_count > MAX_CONNECTION_TOKENS || !token.iter().all(|&byte| is_token_byte(byte)) {
                return Err(Error::Connection);
            }
            match token.len() {
                5 if token.eq_ignore_ascii_case(b"close") => self.record.facts.close = true,
                10 if token.eq_ignore_ascii_case(b"keep-alive") => self.record.facts.keep_alive = true,
                7 if token.eq_ignore_ascii_case(b"upgrade") => self.says_upgrade = true,
                2 if token.eq_ignore_ascii_case(b"te") => {}
                _ => self.names_fields = true,
            }
        }
        Ok(())
    }

    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let digits = (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if self.record.facts.content_length.is_some() || !digits {
            return Err(Error::ContentLength);
        }
        let len = value.iter().fold(0u64, |len, digit| len * 10 + u64::from(digit - b'0'));
        self.record.facts.content_length = Some(len);
        Ok(())
    }

    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_transfer_encoding, true) {
            return Err(Error::TransferEncoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.record.facts.chunked = true;
            return Ok(());
        }
        let (mut known, mut broken) = (false, value.is_empty());
        for coding in value.split(|&byte| byte == b',').map(trim) {
            broken |= known || coding.is_empty() || !coding.iter().all(|&byte| is_token_byte(byte));
            known = coding.eq_ignore_ascii_case(b"chunked");
        }
        // RFC 9112 6.1: an unknown coding is 501; chunked before another, or garbage, is a broken message.
        Err(if broken { Error::TransferEncoding } else { Error::TransferCodingUnknown })
    }

    /// Checks what a request must have; how its body is delimited. `authority` is that of an absolute target.
    fn finish_request(&mut self, buf: &[u8], authority: Option<Span>) -> Result<BodyLen, Error> {
        let http11 = self.record.facts.version == Version::HTTP_11;
        if self.host_count > 1 || (http11 && self.host_count != 1) {
            return Err(Error::Host);
        }
        self.finish(buf)?;
        let body = request_body(&self.record.method, &self.record.facts)?;
        self.record.body = body;
        self.record.facts.expect_continue &= http11 && !matches!(body, BodyLen::None | BodyLen::Tunnel);
        self.record.authority = authority.or(self.host);
        Ok(body)
    }

    fn finish(&mut self, buf: &[u8]) -> Result<(), Error> {
        let facts = &mut self.record.facts;
        if self.has_transfer_encoding && facts.content_length.is_some() {
            return Err(Error::LengthAndChunked);
        }
        // RFC 9112 6.1: in HTTP/1.0 it means faulty framing somewhere on the way.
        if self.has_transfer_encoding && facts.version == Version::HTTP_10 {
            return Err(Error::TransferEncoding);
        }
        facts.upgrade = self.has_upgrade && self.says_upgrade && facts.version == Version::HTTP_11;
        if self.names_fields {
            self.mark_named(buf);
        }
        Ok(())
    }

    /// Marks the fields that `Connection` names as belonging to this hop.
    fn mark_named(&mut self, buf: &[u8]) {
        let bytes = |span: Span| &buf[usize::from(span.at)..][..usize::from(span.len)];
        let fields = &mut self.record.fields;
        for at in 0..fields.len() {
            let connection = fields[at];
            if !bytes(connection.name).eq_ignore_ascii_case(b"connection") {
                continue;
            }
            for token in list(bytes(connection.value)) {
                for field in &mut *fields {
                    if matches!(field.kind, Kind::EndToEnd | Kind::Client)
                        && bytes(field.name).eq_ignore_ascii_case(token)
                    {
                        field.kind = Kind::ThisHop;
                    }
                }
            }
        }
    }
}

/// Whether a field tells of the client. Also with `_` for `-`: some origins take both for the same name.
fn tells_client(name: &[u8]) -> bool {
    [&b"x-forwarded-for"[..], b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"]
        .iter()
        .any(|ours| folded(name, ours))
}

/// Whether `name` is `ours`, which is in lower case, in any case.
fn is<const LEN: usize>(name: &[u8], ours: &[u8; LEN]) -> bool {
    let Ok(name) = <&[u8; LEN]>::try_from(name) else { return false };
    // Without an early end, so that many bytes are compared in one step.
    let case = |byte: u8| if byte.is_ascii_lowercase() { 0x20 } else { 0 };
    name.iter().zip(ours).fold(0, |differs, (byte, ours)| differs | ((byte | case(*ours)) ^ ours)) == 0
}

/// Whether `name` is `ours` in any case, with `_` for `-` or without.
fn folded(name: &[u8], ours: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    ours.len() == name.len() && name.iter().map(plain).eq(ours.iter().copied())
}

/// The elements of a comma-separated list, without the empty ones. RFC 9110 5.6.1.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `tchar`. RFC 9110 5.6.2.
pub(in crate::proto) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::super::head::{Spare, Table};
    use super::{
        Limits, Record, parse_request, parse_response, read_plain_request, read_plain_response, read_request,
        read_response, repeated_request, repeated_response,
    };
    use ringport_platform::buf::{PoolBuf, RxQueue};

    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest,
    };

    /// Both ways of reading one head say the same where the first one says anything.
    fn check_request(buf: &[u8], limits: &Limits) -> bool {
        let (mut plain, mut any) = (Record::default(), Record::default());
        let Some(read) = read_plain_request(buf, limits, &mut plain) else { return false };
        assert_eq!(read_request(buf, limits, &mut any), Ok(read), "{}", buf.escape_ascii());
        any.plain = plain.plain;
        let known = std::mem::take(&mut plain.known);
        assert_eq!(plain, any, "{}", buf.escape_ascii());
        // Behind another first line, and then as before, they are recalled.
        plain.known = known;
        let line_len = buf.windows(2).position(|end| end == b"\r\n").expect("it was read") + 2;
        let longer = [&b"GET /a?b HTTP/1.1\r\n"[..], &buf[line_len..]].concat();
        let moved = read_plain_request(&longer, limits, &mut plain).expect("only the line is another");
        let known = std::mem::take(&mut plain.known);
        assert_eq!(read_request(&longer, limits, &mut any), Ok(moved), "{}", buf.escape_ascii());
        any.plain = plain.plain;
        assert_eq!(plain, any, "{}", buf.escape_ascii());
        plain.known = known;
        assert_eq!(read_plain_request(buf, limits, &mut plain), Some(read), "{}", buf.escape_ascii());
        true
    }

    fn check_response(buf: &[u8], limits: &Limits) -> bool {
        let (mut plain, mut any) = (Record::default(), Record::default());
        let Some(read) = read_plain_response(buf, limits, &mut plain) else { return false };
        assert_eq!(read_response(buf, limits, &mut any), Ok(read), "{}", buf.escape_ascii());
        any.plain = plain.plain;
        let known = std::mem::take(&mut plain.known);
        assert_eq!(plain, any, "{}", buf.escape_ascii());
        plain.known = known;
        let longer = [
            &b"HTTP/1.1 500 Out Of Order\r\n"[..],
            &buf[usize::from(plain.reason.at + plain.reason.len) + 2..],
        ];
        let longer = longer.concat();
        let moved = read_plain_response(&longer, limits, &mut plain).expect("only the line is another");
        let known = std::mem::take(&mut plain.known);
        assert_eq!(read_response(&longer, limits, &mut any), Ok(moved), "{}", buf.escape_ascii());
        any.plain = plain.plain;
        assert_eq!(plain, any, "{}", buf.escape_ascii());
        plain.known = known;
        true
    }

    /// What browsers, tools and origins send is read without httparse.
    #[test]
    fn common_heads_are_read_plainly() {
        let limits = Limits::default();
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/b?c=d&e=?f HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: x/1.0 (y; z)\r\nAccept: */*\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 12\r\nX-Forwarded-For: 1\r\n\r\nhello, world",
            "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nConnection: keep-alive, X\r\nX: y\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\nsec_ch-9: \u{e9}\r\n\r\n",
            "DELETE /%20 HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n",
            "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        ] {
            assert!(check_request(request.as_bytes(), &limits), "{request:?}");
        }
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nDate: x\r\nDate: y\r\nServer: z\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 999 a\r\n\r\n",
        ] {
            assert!(check_response(response.as_bytes(), &limits), "{response:?}");
        }
        for odd in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(!check_request(odd.as_bytes(), &limits), "{odd:?}");
        }
    }

    #[test]
    fn limits_hold_for_plain_heads() {
        let request = b"GET /12345678 HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
        for (header_count, request_line_bytes, taken) in [(2, 24, true), (1, 24, false), (2, 23, false)] {
            let limits = Limits { header_count, request_line_bytes, ..Limits::default() };
            assert_eq!(check_request(request, &limits), taken);
        }
        let response = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
        for (header_count, taken) in [(2, true), (1, false)] {
            let limits = Limits { header_count, ..Limits::default() };
            assert_eq!(check_response(response, &limits), taken);
        }
    }

    /// What was taken once is not taken again under a lower limit.
    #[test]
    fn limits_hold_for_heads_that_come_again() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
        let mut record = Record::default();
        for (header_count, taken) in [(2, true), (1, false), (2, true), (2, true)] {
            let limits = Limits { header_count, ..Limits::default() };
            assert_eq!(read_plain_request(request, &limits, &mut record).is_some(), taken);
        }
        let (mut spare, whole) = (Spare::default(), request.len());
        for (header_count, request_line_bytes, window, repeated) in
            [(2, 16, whole, true), (1, 16, whole, false), (2, 15, whole, false), (2, 16, whole - 1, false)]
        {
            let mut rx = RxQueue::default();
            rx.push(PoolBuf::copied(&request.repeat(2)));
            drop(parse_request(&mut rx, whole, &Limits::default(), &mut spare).expect("it is good"));
            let limits = Limits { header_count, request_line_bytes, ..Limits::default() };
            assert_eq!(repeated_request(&mut rx, window, &limits, &mut spare).is_some(), repeated);
            assert_eq!(rx.is_empty(), repeated);
        }
        let response = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
        for (header_count, taken) in [(2, true), (1, false)] {
            let limits = Limits { header_count, ..Limits::default() };
            assert_eq!(read_plain_response(response, &limits, &mut record).is_some(), taken);
        }
    }

    /// A head's bytes, its fields, and what else is found in it.
    type Found = (Vec<u8>, Vec<(String, Vec<u8>)>, String);

    fn found(table: &Table) -> Found {
        let record = &*table.record;
        let fields = record.fields.iter().map(|field| {
            (format!("{} {:?}", table.text(field.name), field.kind), table.bytes(field.value).to_vec())
        });
        let spans = [Some(record.target), Some(record.path), record.query, record.authority];
        let first = spans.map(|span| span.map(|span| table.text(span).to_owned()));
        let Record { facts, plain, method, status, reason, .. } = record;
        let reason = table.bytes(*reason);
        let facts = format!("{first:?} {facts:?} {plain} {method} {status} {}", reason.escape_ascii());
        (table.buf.to_vec(), fields.collect(), facts)
    }

    /// One connection reads the heads in turn, and with each another that has read none. A head in `held` lives on while
    /// those behind it are read; for one in `tight` a lower limit holds. What was found, or what is wrong, has to be the
    /// same, and still be so at the end.
    fn check_series(heads: &[Vec<u8>], (held, tight): (u32, u32), is_request: bool) {
        let read = |at: usize, bytes: &[u8], spare: &mut Spare| {
            let (header_count, request_line_bytes) = if tight & (1 << at) != 0 { (1, 20) } else { (8, 60) };
            let limits = Limits { header_count, request_line_bytes, ..Limits::default() };
            let mut rx = RxQueue::default();
            rx.push(PoolBuf::copied(bytes));
            // As the machines do it: the shorter way first.
            let read = if is_request {
                repeated_request(&mut rx, 400, &limits, spare)
                    .map_or_else(|| parse_request(&mut rx, 400, &limits, spare), Ok)
                    .map(|(head, body)| (head.table, Some(body)))
            } else {
                repeated_response(&mut rx, 400, &limits, spare)
                    .map_or_else(|| parse_response(&mut rx, 400, &limits, spare), Ok)
                    .map(|head| (head.table, None))
            };
            (read, rx.len())
        };
        let (mut spare, mut living) = (Spare::default(), Vec::new());
        for (at, bytes) in heads.iter().enumerate() {
            let ((again, left), (anew, expected_left)) =
                (read(at, bytes, &mut spare), read(at, bytes, &mut Spare::default()));
            assert_eq!(left, expected_left, "{} after {heads:?}", bytes.escape_ascii());
            match (again, anew) {
                (Ok((again, body)), Ok((anew, expected_body))) => {
                    assert_eq!(found(&again), found(&anew), "after {heads:?}");
                    assert_eq!(body, expected_body, "{}", bytes.escape_ascii());
                    if held & (1 << at) != 0 {
                        living.push((found(&anew), again));
                    }
                }
                (again, anew) => {
                    let (again, anew) = (again.map(|_| ()), anew.map(|_| ()));
                    assert_eq!(again, anew, "{} after {heads:?}", bytes.escape_ascii());
                }
            }
        }
        living.iter().for_each(|(expected, table)| assert_eq!(found(table), *expected));
    }

    /// What differs from the head before by as little as can be, and means something else: by a letter's case, a digit, a
    /// line more or less in front, between and behind, an end that is not there, and by what only the first line says.
    #[test]
    fn nothing_of_a_head_counts_for_another() {
        let line = |line: &str| line.as_bytes().to_vec();
        let fields = [
            "Host: a\r\n\r\n",
            "host: a\r\n\r\n",
            "Host: ab\r\n\r\n",
            "Host: a\r\nX: y\r\n\r\n",
            "Host: a\r\nX: \r\n\r\n",
            "Host: a\r\nX: y\r\n z\r\n\r\n",
            "X: y\r\nHost: a\r\n\r\n",
            "Host: a\r\nContent-Length: 1\r\n\r\n",
            "Host: a\r\nContent-Length: 11\r\n\r\n1\r\n\r\n",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Host: a\r\nExpect: 100-continue\r\n\r\n",
            "Host: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
            "Host: a\r\nConnection: x, close\r\nX: y\r\n\r\n",
            "Host: a\nContent-Length: 1\r\n\r\n",
            "Host: a\r\n",
            "Host: a\r\nHost: a\r\n\r\n",
            "\r\n",
        ];
        let starts = [
            &[
                "GET / HTTP/1.1\r\n",
                "GET / HTTP/1.0\r\n",
                "GET http://b/ HTTP/1.1\r\n",
                "GET /a?longer HTTP/1.1\r\n",
            ],
            &[
                "POST / HTTP/1.1\r\n",
                "CONNECT a:1 HTTP/1.1\r\n",
                "OPTIONS * HTTP/1.1\r\n",
                "get / HTTP/1.1\r\n",
            ],
            &["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 100 Continue\r\n", "HTTP/1.1 304 \r\n"],
        ];
        for (starts, is_request) in starts.into_iter().zip([true, true, false]) {
            let heads = || {
                starts
                    .iter()
                    .flat_map(|start| fields.iter().map(move |fields| line(&[*start, fields].concat())))
            };
            for (first, second) in
                heads().flat_map(|first| heads().map(move |second| (first.clone(), second)))
            {
                for held in [(0, 0), (0b11, 0), (0, 0b110)] {
                    check_series(&[first.clone(), second.clone(), first.clone()], held, is_request);
                }
            }
        }
    }

    /// A head with its fields as long as may be, behind each length of first line, so that places move both ways.
    #[test]
    fn places_move_with_the_first_line() {
        for lens in [[1, 30, 2], [30, 1, 29], [7, 40, 41]] {
            let heads = lens.map(|len| {
                let target = "/".repeat(len);
                let fields = format!("Host: a.example\r\nX: {}\r\nA: b\r\n\r\n", "y".repeat(300));
                format!("GET {target} HTTP/1.1\r\n{fields}body").into_bytes()
            });
            check_series(&heads, (0, 0), true);
        }
    }

    /// Lines of a head, most of them good ones.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            4 => Just(&b"Host: a.example:1\r\n"[..]),
            2 => Just(&b"Content-Length: 10\r\n"[..]),
            1 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
            1 => Just(&b"Connection: close, x-1, upgrade\r\n"[..]),
            1 => Just(&b"x-1: \t~\x80\xff\r\n"[..]),
            1 => Just(&b"Upgrade: a\r\n"[..]),
            1 => Just(&b"X_Forwarded-For: a\r\n"[..]),
            1 => Just(&b"Forwarded: for=a\r\n"[..]),
            1 => Just(&b"te: trailers\r\n"[..]),
            1 => Just(&b"Date: a\r\n"[..]),
            1 => Just(&b"Expect: 100-continue\r\n"[..]),
            1 => Just(&b"content_length: 1\r\n"[..]),
            1 => Just(&b"a!#$%&'*+.^`|~9: b\r\n"[..]),
            1 => Just(&b"\r\n"[..]),
        ];
        prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
    }

    const SERIES: [&str; 10] = [
        "Host: a\r\n",
        "Content-Length: 1\r\n",
        "Content-Length: 10\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: x, upgrade\r\n",
        "Upgrade: a\r\n",
        "X: y\r\n",
        "x: y\r\n",
        "Date: a\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Heads of few lines, so that they come again in whole and in part, damaged now and then.
        #[test]
        fn a_head_is_read_as_if_none_was_before(
            heads in prop::collection::vec(
                (0..4usize, prop::collection::vec(0..SERIES.len(), 0..4), prop_oneof![
                    6 => Just(None),
                    1 => any::<(prop::sample::Index, u8)>().prop_map(Some),
                ]),
                1..12,
            ),
            held in any::<(u32, u32)>(),
            is_request in any::<bool>(),
        ) {
            let starts = if is_request {
                ["GET / HTTP/1.1\r\nHost: a\r\n", "POST /b?c HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n"]
            } else {
                ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 200 OK\r\nDate: a\r\n", "HTTP/1.0 200 OK\r\n"]
            };
            let heads: Vec<_> = heads.into_iter().map(|(start, lines, hit)| {
                let lines: String = lines.into_iter().map(|line| SERIES[line]).collect();
                let mut bytes = [starts[start], &lines, "\r\nbody"].concat().into_bytes();
                if let Some((at, byte)) = hit {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            }).collect();
            check_series(&heads, held, is_request);
        }

        /// Whole, damaged and cut heads: never do the two readers disagree.
        #[test]
        fn plain_reading_agrees_with_httparse(
            start in prop_oneof![
                Just(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..]),
                Just(&b"POST /a?b?c/12345678 HTTP/1.1\r\n"[..]),
                Just(&b"HTTP/1.1 200 OK\r\n"[..]),
                Just(&b"HTTP/1.1 404 Not Found, though\r\n"[..]),
            ],
            lines in lines(),
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            behind in 0..12usize,
            cut in prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
        ) {
            let mut bytes = [start, &lines, b"\r\n", &b"body of it\r\n"[..behind]].concat();
            for (at, byte) in hits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let limits = Limits::default();
            let both = check_request(&bytes, &limits) && check_response(&bytes, &limits);
            prop_assert_eq!(both, false);
        }
    }
}
