//! From the bytes of a complete head to its table, refusing what could be framed in two ways.

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{Method, StatusCode, Version};
use ringport_platform::buf::{RxQueue, SharedBuf};

use super::error::Error;
use super::head::{Facts, FieldPos, Kind, RequestHead, ResponseHead, Span, Spare, Table, Trailers};
use super::target::{is_authority, parse_target};
use super::{BodyLen, Limits};

/// Fields that any head may have, whatever the limits say: the parser's scratch lies on the stack.
pub(super) const MAX_HEADERS: usize = 256;
const MAX_TRAILERS: usize = 64;
/// Names in `Connection`, each of which is compared with each field.
const MAX_CONNECTION_TOKENS: u8 = 32;
/// More digits could pass `u64`.
const MAX_LENGTH_DIGITS: usize = 19;

/// Parses the request head at the front of `rx` and takes it out; says how its body is delimited.
///
/// The head lies in the first view, and nothing behind its first `window` bytes is looked at. An error leaves `rx` as it
/// is; a head that is not whole is one, too.
pub(super) fn parse_request(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &Spare,
) -> Result<(RequestHead, BodyLen), Error> {
    let buf = front(rx, window);
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
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::RequestLine)?;

    let mut collect = Collect::new(spare.take(), version, Role::Request);
    for header in request.headers.iter() {
        collect.add(buf, header)?;
    }
    if collect.ends_strictly(buf, len)? > limits.request_line_bytes {
        return Err(Error::RequestLineTooLong);
    }
    let host = collect.host;
    if collect.host_count > 1 || (version == Version::HTTP_11 && collect.host_count != 1) {
        return Err(Error::Host);
    }
    let (fields, mut facts) = collect.finish(buf)?;
    let body = request_body(&method, &facts)?;
    facts.expect_continue &= version == Version::HTTP_11 && !matches!(body, BodyLen::None | BodyLen::Tunnel);
    let span = |range: Range<usize>| Span { at: target.at + range.start as u16, len: range.len() as u16 };
    let head = RequestHead {
        method,
        target,
        path: span(parts.path),
        query: parts.query.map(span),
        authority: parts.authority.map(span).or(host),
        facts,
        table: Table { buf: rx.take(len).freeze(), fields, spare: spare.clone() },
    };
    Ok((head, body))
}

/// Parses the response head at the front of `rx` and takes it out. How its body is delimited depends on the request
/// too. As [`parse_request`] otherwise.
pub(super) fn parse_response(
    rx: &mut RxQueue,
    window: usize,
    limits: &Limits,
    spare: &Spare,
) -> Result<ResponseHead, Error> {
    let buf = front(rx, window);
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
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::StatusLine)?;
    let reason = Span::of(buf, response.reason.unwrap_or_default().as_bytes());

    let mut collect = Collect::new(spare.take(), version, Role::Response);
    for header in response.headers.iter() {
        collect.add(buf, header)?;
    }
    collect.ends_strictly(buf, len)?;
    let (fields, facts) = collect.finish(buf)?;
    let buf = rx.take(len).freeze();
    Ok(ResponseHead { status, reason, facts, table: Table { buf, fields, spare: spare.clone() } })
}

/// At most `window` bytes of the first view, and no more than offsets can name.
fn front(rx: &RxQueue, window: usize) -> &[u8] {
    let front = rx.front();
    &front[..front.len().min(window).min(usize::from(u16::MAX))]
}

/// Parses a trailer section that ends with its empty line.
pub(super) fn parse_trailers(buf: SharedBuf, limits: &Limits, spare: &Spare) -> Result<Trailers, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let count = limits.header_count.min(MAX_TRAILERS);
    let parsed = match httparse::parse_headers(&buf, &mut headers[..count]) {
        Ok(httparse::Status::Complete((len, parsed))) if len == buf.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyFields),
        Ok(_) | Err(_) => return Err(Error::Trailer),
    };
    let mut fields = spare.take();
    for header in parsed {
        if is_forbidden_trailer(header.name) {
            return Err(Error::TrailerForbidden);
        }
        let (name, value) = (Span::of(&buf, header.name.as_bytes()), Span::of(&buf, trim(header.value)));
        fields.push(FieldPos { name, value, kind: Kind::EndToEnd });
    }
    Ok(Trailers { table: Table { buf, fields, spare: spare.clone() } })
}

/// Whether a trailer of that name would change framing, routing, authentication or the meaning of the content.
/// RFC 9110 6.5.1.
pub(super) fn is_forbidden_trailer(name: &str) -> bool {
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
struct Collect {
    role: Role,
    fields: Vec<FieldPos>,
    facts: Facts,
    has_transfer_encoding: bool,
    has_upgrade: bool,
    says_upgrade: bool,
    host: Option<Span>,
    host_count: u8,
    token_count: u8,
    /// Whether `Connection` names fields beyond those that never leave this hop.
    names_fields: bool,
}

impl Collect {
    fn new(fields: Vec<FieldPos>, version: Version, role: Role) -> Self {
        debug_assert!(fields.is_empty());
        Collect {
            role,
            fields,
            facts: Facts {
                version,
                content_length: None,
                chunked: false,
                close: false,
                keep_alive: false,
                upgrade: false,
                expect_continue: false,
                te_trailers: false,
                client_fields: false,
                dated: false,
            },
            has_transfer_encoding: false,
            has_upgrade: false,
            says_upgrade: false,
            host: None,
            host_count: 0,
            token_count: 0,
            names_fields: false,
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
        let kind = self.note(header.name, value, value_pos)?;
        self.fields.push(FieldPos { name, value: value_pos, kind });
        Ok(())
    }

    /// Checks the line ends that no field has looked at; the length of the first line with its CRLF.
    fn ends_strictly(&self, buf: &[u8], len: usize) -> Result<usize, Error> {
        if !buf[..len].ends_with(b"\r\n\r\n") || buf.starts_with(b"\r") || buf.starts_with(b"\n") {
            return Err(Error::BareLineEnd);
        }
        Ok(self.fields.first().map_or(len - 2, |field| usize::from(field.name.at)))
    }

    /// Takes what a field says about framing and this hop. Most names end at their length and first letter.
    fn note(&mut self, name: &str, value: &[u8], pos: Span) -> Result<Kind, Error> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let first = name.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
        let request = self.role == Role::Request;
        match (name.len(), first) {
            (2, b't') if request && is("te") => {
                self.facts.te_trailers |= list(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
                return Ok(Kind::Te);
            }
            // RFC 9110 10.1.4: of requests only.
            (2, b't') if is("te") => {}
            (4, b'h') if request && is("host") => {
                self.note_host(value)?;
                self.host = (!value.is_empty()).then_some(pos);
            }
            (6, b'e') if request && is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::ExpectationUnknown);
                }
                self.facts.expect_continue = true;
                return Ok(Kind::EndToEnd);
            }
            (7, b'u') if is("upgrade") => self.has_upgrade = true,
            (4, b'd') if !request && is("date") => {
                // RFC 9110 6.6.1: an origin sends one; of more the first counts.
                let first = !std::mem::replace(&mut self.facts.dated, true);
                return Ok(if first { Kind::EndToEnd } else { Kind::ThisHop });
            }
            (9, b'f') | (15..=17, b'x') if request && tells_client(name) => {
                self.facts.client_fields = true;
                return Ok(Kind::Client);
            }
            (10, b'c') if is("connection") => self.note_connection(value)?,
            (10, b'k') if is("keep-alive") => {}
            (14, b'c') if is("content-length") => self.note_content_length(value)?,
            (14, b'h') if is("http2-settings") => {}
            (16, b'p') if is("proxy-connection") => {}
            (17, b't') if is("transfer-encoding") => self.note_transfer_encoding(value)?,
            // Some origins take `_` for `-`, and would frame by what we do not.
            (14, b'c') if folded(name, "content-length") => {}
            (17, b't') if folded(name, "transfer-encoding") => {}
            (18, b'p') if is("proxy-authenticate") => {}
            (19, b'p') if is("proxy-authorization") => {}
            _ => return Ok(Kind::EndToEnd),
        }
        Ok(Kind::ThisHop)
    }

    fn note_host(&mut self, value: &[u8]) -> Result<(), Error> {
        self.host_count = self.host_count.saturating_add(1);
        // HTTP/1.0 clients of old send an empty one.
        let empty_allowed = value.is_empty() && self.facts.version == Version::HTTP_10;
        if empty_allowed || is_authority(value) { Ok(()) } else { Err(Error::Host) }
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Error> {
        for token in list(value) {
            self.token_count += 1;
            if self.token_count > MAX_CONNECTION_TOKENS || !token.iter().all(|&byte| is_token_byte(byte)) {
                return Err(Error::Connection);
            }
            match token.len() {
                5 if token.eq_ignore_ascii_case(b"close") => self.facts.close = true,
                10 if token.eq_ignore_ascii_case(b"keep-alive") => self.facts.keep_alive = true,
                7 if token.eq_ignore_ascii_case(b"upgrade") => self.says_upgrade = true,
                2 if token.eq_ignore_ascii_case(b"te") => {}
                _ => self.names_fields = true,
            }
        }
        Ok(())
    }

    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let digits = (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if self.facts.content_length.is_some() || !digits {
            return Err(Error::ContentLength);
        }
        let len = value.iter().fold(0u64, |len, digit| len * 10 + u64::from(digit - b'0'));
        self.facts.content_length = Some(len);
        Ok(())
    }

    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_transfer_encoding, true) {
            return Err(Error::TransferEncoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.facts.chunked = true;
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

    fn finish(mut self, buf: &[u8]) -> Result<(Vec<FieldPos>, Facts), Error> {
        if self.has_transfer_encoding && self.facts.content_length.is_some() {
            return Err(Error::LengthAndChunked);
        }
        // RFC 9112 6.1: in HTTP/1.0 it means faulty framing somewhere on the way.
        if self.has_transfer_encoding && self.facts.version == Version::HTTP_10 {
            return Err(Error::TransferEncoding);
        }
        self.facts.upgrade = self.has_upgrade && self.says_upgrade && self.facts.version == Version::HTTP_11;
        if self.names_fields {
            self.mark_named(buf);
        }
        Ok((self.fields, self.facts))
    }

    /// Marks the fields that `Connection` names as belonging to this hop.
    fn mark_named(&mut self, buf: &[u8]) {
        let bytes = |span: Span| &buf[usize::from(span.at)..][..usize::from(span.len)];
        for at in 0..self.fields.len() {
            let connection = self.fields[at];
            if !bytes(connection.name).eq_ignore_ascii_case(b"connection") {
                continue;
            }
            for token in list(bytes(connection.value)) {
                for field in &mut self.fields {
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
fn tells_client(name: &str) -> bool {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
        .iter()
        .any(|ours| folded(name, ours))
}

/// Whether `name` is `ours` in any case, with `_` for `-` or without.
fn folded(name: &str, ours: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    ours.len() == name.len() && name.bytes().map(plain).eq(ours.bytes())
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
pub(super) fn is_token_byte(byte: u8) -> bool {
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
