//! Messages from one version of HTTP to another, as pure functions. RFC 9113 8.2 and 8.3, RFC 9110 7.6.
//!
//! ```text
//! http::Request<()>  (HTTP/2)  --request_to_http1-->   Http1Request   -- http1::ClientConn --> origin
//! http1::RequestHead           --request_to_http2-->   http::Request<()> -- http2::Conn ------> origin
//! http::Response<()> (HTTP/2)  --response_to_http1-->  Http1Response  -- http1::ServerConn --> client
//! http1::ResponseHead          --response_to_http2-->  http::Response<()> -- http2::Conn -----> client
//! ```
//!
//! Whatever two readers could take for two different messages is refused, so that nothing is smuggled past a gateway:
//! [`check_request`], [`check_response`] and [`check_trailers`] say what is wrong, and every function that maps asks them
//! first. [`http2::Conn`] asks them, too, before it hands a message up. What remains is written in one way: one host, one
//! length or none, cookies in one line, no field of a hop.
//!
//! What the types of the `http` crate cannot hold is not looked for here: a name with an uppercase letter, a colon or a
//! control byte, a value with CR, LF or NUL, a pseudo-field that is repeated or stands behind a field. The HTTP/2 machine
//! resets the stream, or ends the connection, before such a message exists.
//!
//! [`http2::Conn`]: super::http2::Conn

use std::borrow::Cow;
use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version, uri};

use super::http1::{
    BodyLen, Error, FieldBlock, RequestHead, RequestLine, ResponseHead, Trailers, is_authority,
    is_forbidden_trailer, is_target_byte, is_token_byte, written_request, written_response,
};

/// Why a message cannot be passed on: the peer broke the rules of its version. A server resets the stream, or answers 400; a
/// gateway that reads it from an origin answers 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// `:path` is absent, or not a path: it starts with something else than `/`, or has a byte that no target may have.
    Target,
    /// `:scheme` is neither http nor https.
    Scheme,
    /// The authority is no `host [":" port]`, or lacks the port in CONNECT, or has user information.
    Authority,
    /// Neither `:authority` nor Host says what the request is for.
    NoAuthority,
    /// Host says something else than `:authority`.
    HostDiffers,
    /// More than one Host.
    HostRepeated,
    /// A field of the connection, which HTTP/2 knows none of. RFC 9113 8.2.2.
    ConnectionField,
    /// TE says something else than `trailers`.
    Te,
    /// A name is no token: the `http` crate takes a quotation mark, other readers do not. RFC 9110 5.1.
    FieldName,
    /// A value begins or ends with a space or a tab. RFC 9113 8.2.1.
    FieldValue,
    /// `Content-Length` is not one number of digits, or the message can have none.
    ContentLength,
    /// 101, which HTTP/2 does not have. RFC 9113 8.6.
    Status,
    /// A trailer that would change framing, routing or authentication. RFC 9110 6.5.1.
    TrailerForbidden,
    /// Extended CONNECT, which has no form in HTTP/1.1 that is written here.
    Protocol,
    /// In the form of HTTP/1.1 it breaks a rule of that, or a limit of its reader.
    Http1(Error),
}

impl Malformed {
    /// A few words for a log or a response body.
    pub fn reason(self) -> &'static str {
        match self {
            Malformed::Target => "bad path",
            Malformed::Scheme => "scheme is neither http nor https",
            Malformed::Authority => "bad authority",
            Malformed::NoAuthority => "no authority",
            Malformed::HostDiffers => "host differs from the authority",
            Malformed::HostRepeated => "repeated host",
            Malformed::ConnectionField => "field of a connection",
            Malformed::Te => "te is not trailers",
            Malformed::FieldName => "bad field name",
            Malformed::FieldValue => "space around a value",
            Malformed::ContentLength => "bad content-length",
            Malformed::Status => "status that HTTP/2 does not have",
            Malformed::TrailerForbidden => "forbidden trailer",
            Malformed::Protocol => "extended CONNECT has no form in HTTP/1.1",
            Malformed::Http1(error) => error.reason(),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Malformed {}

/// The protocol of an extended CONNECT (RFC 8441), among the extensions of a request: `websocket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(pub String);

/// Whether a request that came by HTTP/2 can be passed on.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_request(request: &Request<()>) -> Result<(), Malformed> {
    check_fields(request.headers())?;
    let uri = request.uri();
    let connect = request.method() == Method::CONNECT;
    let tunnel = connect && request.extensions().get::<Protocol>().is_none();
    if uri.scheme().is_some_and(|scheme| *scheme != uri::Scheme::HTTP && *scheme != uri::Scheme::HTTPS) {
        return Err(Malformed::Scheme);
    }
    check_host(uri, request.headers())?;
    if tunnel {
        // RFC 9113 8.5: the authority alone, and there is no default port.
        let authority = uri.authority().ok_or(Malformed::NoAuthority)?;
        if authority.port().is_none_or(|port| port.as_str().is_empty()) {
            return Err(Malformed::Authority);
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(Malformed::Target);
        }
        // RFC 9110 9.3.6: a CONNECT has no content.
        return match content_length(request.headers())? {
            None => Ok(()),
            Some(_) => Err(Malformed::ContentLength),
        };
    }
    content_length(request.headers())?;
    let target = uri.path_and_query().ok_or(Malformed::Target)?.as_str();
    let form = target.starts_with('/') || (target == "*" && request.method() == Method::OPTIONS);
    if form && target.bytes().all(is_target_byte) { Ok(()) } else { Err(Malformed::Target) }
}

/// Whether a response that came by HTTP/2, an informational one too, can be passed on.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_response(response: &Response<()>) -> Result<(), Malformed> {
    check_fields(response.headers())?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::Status);
    }
    // RFC 9110 8.6: none in an informational response or a 204.
    let bodyless = response.status().is_informational() || response.status() == StatusCode::NO_CONTENT;
    match content_length(response.headers())? {
        // What says that nothing follows is harmless, and left out.
        Some(len) if bodyless && len > 0 => Err(Malformed::ContentLength),
        Some(_) | None => Ok(()),
    }
}

/// Whether trailers that came by HTTP/2 can be passed on.
///
/// # Errors
/// The first rule that they break.
pub fn check_trailers(trailers: &HeaderMap) -> Result<(), Malformed> {
    if trailers.keys().any(|name| is_forbidden_trailer(name.as_str())) {
        return Err(Malformed::TrailerForbidden);
    }
    check_fields(trailers)
}

/// What is wrong with fields of any section. RFC 9113 8.2.1 and 8.2.2.
fn check_fields(fields: &HeaderMap) -> Result<(), Malformed> {
    for (name, value) in fields {
        if !name.as_str().bytes().all(is_token_byte) {
            return Err(Malformed::FieldName);
        }
        if is_connection_field(name) {
            return Err(Malformed::ConnectionField);
        }
        if name == header::TE && value != "trailers" {
            return Err(Malformed::Te);
        }
        let space = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if space(value.as_bytes().first()) || space(value.as_bytes().last()) {
            return Err(Malformed::FieldValue);
        }
    }
    Ok(())
}

/// Whether a field belongs to a connection of HTTP/1.1, so that HTTP/2 has none of it. RFC 9113 8.2.2.
pub fn is_connection_field(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "http2-settings" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

/// RFC 9113 8.3.1: Host may not say anything else than `:authority`, and one of them is there.
fn check_host(uri: &Uri, fields: &HeaderMap) -> Result<(), Malformed> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Malformed::HostRepeated);
    }
    if host.is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(Malformed::Authority);
    }
    match (uri.authority(), host) {
        (None, None) => Err(Malformed::NoAuthority),
        (None, Some(_)) => Ok(()),
        (Some(authority), _) if !is_authority(authority.as_str().as_bytes()) => Err(Malformed::Authority),
        (Some(_), None) => Ok(()),
        (Some(authority), Some(host)) => {
            let same = without_default_port(authority.as_str().as_bytes(), uri)
                .eq_ignore_ascii_case(without_default_port(host.as_bytes(), uri));
            if same { Ok(()) } else { Err(Malformed::HostDiffers) }
        }
    }
}

/// `a:443` and `a` are one host of https. RFC 9110 4.2.3.
fn without_default_port<'a>(authority: &'a [u8], uri: &Uri) -> &'a [u8] {
    let port: &[u8] = match uri.scheme_str() {
        Some("http") => b":80",
        Some("https") => b":443",
        _ => return authority,
    };
    authority.strip_suffix(port).or_else(|| authority.strip_suffix(b":")).unwrap_or(authority)
}

/// The one length that a message says, if it says any. RFC 9110 8.6: the same one repeated is taken for one.
fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in fields.get_all(header::CONTENT_LENGTH) {
        let digits = value.as_bytes();
        if digits.is_empty() || digits.len() > MAX_LENGTH_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::ContentLength);
        }
        let value = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if length.is_some_and(|length| length != value) {
            return Err(Malformed::ContentLength);
        }
        length = Some(value);
    }
    Ok(length)
}

/// More digits could pass `u64`.
const MAX_LENGTH_DIGITS: usize = 19;

/// How the content of a request that came by HTTP/2 is delimited; `ended` if its head was the last of it.
///
/// # Errors
/// [`Malformed::ContentLength`].
pub fn request_body(request: &Request<()>, ended: bool) -> Result<BodyLen, Malformed> {
    let length = content_length(request.headers())?;
    Ok(match length {
        _ if request.method() == Method::CONNECT => BodyLen::Tunnel,
        Some(length) if ended && length > 0 => return Err(Malformed::ContentLength),
        Some(length) => BodyLen::Length(length),
        None if ended => BodyLen::None,
        None => BodyLen::Chunked,
    })
}

/// How the content of a response that came by HTTP/2 is delimited; `ended` if its head was the last of it, `method` what
/// was asked. To HEAD, and in a 304, it is [`BodyLen::Length`] with what the content would have had, if it says so.
///
/// # Errors
/// [`Malformed::ContentLength`].
pub fn response_body(response: &Response<()>, ended: bool, method: &Method) -> Result<BodyLen, Malformed> {
    let length = content_length(response.headers())?;
    let status = response.status();
    let bodyless = method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    Ok(match length {
        _ if method == Method::CONNECT && status.is_success() => BodyLen::Tunnel,
        _ if status == StatusCode::NO_CONTENT => BodyLen::None,
        Some(length) if bodyless || !ended || length == 0 => BodyLen::Length(length),
        Some(_) => return Err(Malformed::ContentLength),
        None if ended || bodyless => BodyLen::None,
        None => BodyLen::Chunked,
    })
}

/// A request for an origin that speaks HTTP/1.1: what [`ClientConn::send_request_head`] takes.
///
/// [`ClientConn::send_request_head`]: super::http1::ClientConn::send_request_head
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, `*`, or for CONNECT `host:port`.
    pub target: &'a str,
    /// What Host says.
    pub host: &'a str,
    /// How the content is framed.
    pub body: BodyLen,
    /// The fields in order, without those that the machine writes.
    pub fields: Vec<(&'a str, Cow<'a, [u8]>)>,
}

impl Http1Request<'_> {
    /// The first line.
    pub fn line(&self) -> RequestLine<'_> {
        RequestLine { method: self.method, target: self.target, host: self.host }
    }
}

/// A response for a client that speaks HTTP/1.1: what [`ServerConn::send_head`] takes.
///
/// [`ServerConn::send_head`]: super::http1::ServerConn::send_head
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Response<'a> {
    /// The status.
    pub status: StatusCode,
    /// How the content is framed.
    pub body: BodyLen,
    /// The fields in order, without those that the machine writes.
    pub fields: Vec<(&'a str, Cow<'a, [u8]>)>,
}

/// The HTTP/1.1 form of a request that came by HTTP/2; `ended` if its head was the last of it.
///
/// Host says what `:authority` did, or what Host did where there was none. Content of unknown length is chunked. Cookies
/// that came in crumbs are one field (RFC 9113 8.2.3).
///
/// # Errors
/// The first rule that the request breaks.
pub fn request_to_http1(request: &Request<()>, ended: bool) -> Result<Http1Request<'_>, Malformed> {
    check_request(request)?;
    if request.extensions().get::<Protocol>().is_some() {
        return Err(Malformed::Protocol);
    }
    let uri = request.uri();
    let host = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
            host.ok_or(Malformed::NoAuthority)?
        }
    };
    let connect = request.method() == Method::CONNECT;
    let path = uri.path_and_query().map_or("/", uri::PathAndQuery::as_str);
    Ok(Http1Request {
        method: request.method().as_str(),
        target: if connect { host } else { path },
        host,
        body: request_body(request, ended)?,
        fields: fields_to_http1(request.headers()),
    })
}

/// The HTTP/1.1 form of a response that came by HTTP/2; as in [`response_body`] otherwise. An informational response goes
/// to [`ServerConn::send_informational`], and has no body.
///
/// A response of known length that has trailers loses them, for HTTP/1.1 has no place for them.
///
/// # Errors
/// The first rule that the response breaks.
///
/// [`ServerConn::send_informational`]: super::http1::ServerConn::send_informational
pub fn response_to_http1<'a>(
    response: &'a Response<()>,
    ended: bool,
    method: &Method,
) -> Result<Http1Response<'a>, Malformed> {
    check_response(response)?;
    let status = response.status();
    let body =
        if status.is_informational() { BodyLen::None } else { response_body(response, ended, method)? };
    Ok(Http1Response { status, body, fields: fields_to_http1(response.headers()) })
}

/// A request that came by HTTP/2, for code that reads heads of HTTP/1.1: the same text as [`request_to_http1`] gives, read as
/// strictly as one that was received. Its version is HTTP/2; how its body is framed it does not say. Costs three allocations.
///
/// # Errors
/// The first rule that the request breaks, of either version.
pub fn request_head(request: &Request<()>, ended: bool) -> Result<RequestHead, Malformed> {
    let mapped = request_to_http1(request, ended)?;
    let mut text = Vec::with_capacity(512);
    for part in [mapped.method, " ", mapped.target, " HTTP/1.1\r\nhost: ", mapped.host, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    write_fields(&mut text, &mapped.fields, mapped.body);
    written_request(&text, Version::HTTP_2).map_err(Malformed::Http1)
}

/// As [`request_head`], for a response to `method`.
///
/// # Errors
/// The first rule that the response breaks, of either version.
pub fn response_head(
    response: &Response<()>,
    ended: bool,
    method: &Method,
) -> Result<ResponseHead, Malformed> {
    let mapped = response_to_http1(response, ended, method)?;
    let mut text = Vec::with_capacity(512);
    for part in ["HTTP/1.1 ", mapped.status.as_str(), " \r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    write_fields(&mut text, &mapped.fields, mapped.body);
    written_response(&text, Version::HTTP_2).map_err(Malformed::Http1)
}

/// Behind a first line: field lines, the length where it is known, and the empty line.
fn write_fields(text: &mut Vec<u8>, fields: &[(&str, Cow<'_, [u8]>)], body: BodyLen) {
    for (name, value) in fields {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    if let BodyLen::Length(len) = body {
        text.extend_from_slice(b"content-length: ");
        text.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
}

/// A request for an origin that speaks HTTP/2, from what a gateway passes on of `head` (`fields`) and the host that it names.
///
/// # Errors
/// What the `http` crate does not take, and the first rule that the request breaks.
pub fn forwarded_request(
    head: &RequestHead,
    (scheme, host): (uri::Scheme, &str),
    fields: &FieldBlock,
) -> Result<Request<()>, Malformed> {
    let mut parts = uri::Parts::default();
    parts.authority = Some(host.parse().map_err(|_| Malformed::Authority)?);
    if *head.method() != Method::CONNECT {
        parts.scheme = Some(scheme);
        parts.path_and_query = Some(head.origin_target().parse().map_err(|_| Malformed::Target)?);
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method().clone();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed::Target)?;
    *request.version_mut() = Version::HTTP_2;
    // Of a hop is what asks to switch, and this hop cannot.
    let fields = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("upgrade"));
    *request.headers_mut() = fields_to_http2(fields)?;
    Ok(request)
}

/// Trailers that came by HTTP/2, in order.
///
/// # Errors
/// The first rule that they break.
pub fn trailers_to_http1(trailers: &HeaderMap) -> Result<Vec<(&str, &[u8])>, Malformed> {
    check_trailers(trailers)?;
    Ok(trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect())
}

/// Fields without those that an HTTP/1.1 machine writes, cookies joined.
fn fields_to_http1(fields: &HeaderMap) -> Vec<(&str, Cow<'_, [u8]>)> {
    let mut mapped: Vec<(&str, Cow<'_, [u8]>)> = Vec::with_capacity(fields.len());
    let mut cookies = None;
    for (name, value) in fields {
        if name == header::HOST || name == header::CONTENT_LENGTH {
            continue;
        }
        match cookies {
            Some(at) if name == header::COOKIE => {
                let (_, joined): &mut (&str, Cow<'_, [u8]>) = &mut mapped[at];
                joined.to_mut().extend_from_slice(b"; ");
                joined.to_mut().extend_from_slice(value.as_bytes());
                continue;
            }
            None if name == header::COOKIE => cookies = Some(mapped.len()),
            Some(_) | None => {}
        }
        mapped.push((name.as_str(), Cow::Borrowed(value.as_bytes())));
    }
    mapped
}

/// The HTTP/2 form of a request that came by HTTP/1.1. Its body is what the head says ([`BodyLen`]); no length is among
/// the fields, for the machine writes it.
///
/// An upgrade is not passed on, as a gateway may choose (RFC 9110 7.8).
///
/// # Errors
/// [`Malformed::NoAuthority`] for an HTTP/1.0 request without Host; what the `http` crate does not take of a target.
pub fn request_to_http2(head: &RequestHead, scheme: uri::Scheme) -> Result<Request<()>, Malformed> {
    let authority = head.authority().ok_or(Malformed::NoAuthority)?;
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority.parse().map_err(|_| Malformed::Authority)?);
    if *head.method() != Method::CONNECT {
        parts.scheme = Some(scheme);
        parts.path_and_query = Some(head.origin_target().parse().map_err(|_| Malformed::Target)?);
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method().clone();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed::Target)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields_to_http2(head.forwardable_fields())?;
    check_request(&request)?;
    Ok(request)
}

/// The HTTP/2 form of a response, also an informational one, that came by HTTP/1.1. No length is among the fields, for the
/// machine writes it.
///
/// # Errors
/// [`Malformed::Status`] for 101.
pub fn response_to_http2(head: &ResponseHead) -> Result<Response<()>, Malformed> {
    let mut response = Response::new(());
    *response.status_mut() = head.status();
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields_to_http2(head.forwardable_fields())?;
    check_response(&response)?;
    Ok(response)
}

/// The HTTP/2 form of trailers that came by HTTP/1.1.
///
/// # Errors
/// What the `http` crate does not take of a field.
pub fn trailers_to_http2(trailers: &Trailers) -> Result<HeaderMap, Malformed> {
    let map = fields_to_http2(trailers.iter())?;
    check_trailers(&map)?;
    Ok(map)
}

/// The map of fields that were read strictly, so that their names become lowercase and nothing else changes.
fn fields_to_http2<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed::FieldValue)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Malformed::FieldValue)?;
        map.try_append(name, value).map_err(|_| Malformed::FieldValue)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
