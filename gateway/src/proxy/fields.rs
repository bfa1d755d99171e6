//! What a proxy adds to and takes from the fields that it passes on.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use http::{Method, StatusCode, Version};
use ringport::proto::http1::{BodyLen, FieldBlock, FieldWriter, RequestHead, ResponseHead, SendError};
use ringport::spec::Forwarded;

use super::Shared;

/// Our name in `Via`, behind the version in which the message came. RFC 9110 7.6.3.
pub(crate) struct Via {
    http2: FieldBlock,
    http11: FieldBlock,
    http10: FieldBlock,
}

impl Via {
    pub(crate) fn new() -> Self {
        let block = |value: &[u8]| {
            let mut block = FieldBlock::default();
            block.fill(|out| out.put("via", value)).expect("visible ASCII");
            block
        };
        Via { http2: block(b"2.0 ringport"), http11: block(b"1.1 ringport"), http10: block(b"1.0 ringport") }
    }

    pub(crate) fn of(&self, version: Version) -> &FieldBlock {
        match version {
            Version::HTTP_11 => &self.http11,
            Version::HTTP_2 => &self.http2,
            _ => &self.http10,
        }
    }
}

/// What a client, or a gateway before us, says about the client.
#[derive(Default)]
struct ForwardedFields {
    for_: Vec<u8>,
    proto: Vec<u8>,
    host: Vec<u8>,
    forwarded: Vec<u8>,
}

impl ForwardedFields {
    fn gather(&mut self, head: &RequestHead) {
        for (name, value) in head.iter() {
            if name.eq_ignore_ascii_case("x-forwarded-for") {
                list(&mut self.for_, value);
            } else if name.eq_ignore_ascii_case("forwarded") && has_whole_strings(value) {
                list(&mut self.forwarded, value);
            } else if name.eq_ignore_ascii_case("x-forwarded-proto") && self.proto.is_empty() {
                self.proto.extend_from_slice(value);
            } else if name.eq_ignore_ascii_case("x-forwarded-host") && self.host.is_empty() {
                self.host.extend_from_slice(value);
            }
        }
    }

    /// Puts what was gathered with our own knowledge behind it.
    fn put(
        &self,
        out: &mut FieldWriter<'_>,
        (peer, scheme): (&str, &str),
        host: &str,
    ) -> Result<(), SendError> {
        let (peer, host) = (peer.as_bytes(), host.as_bytes());
        let behind = |earlier: &[u8]| if earlier.is_empty() { &b""[..] } else { b", " };
        let known: &[u8] = if peer.is_empty() { b"unknown" } else { peer };
        out.put_parts("x-forwarded-for", &[&self.for_, behind(&self.for_), known])?;
        out.put("x-forwarded-proto", if self.proto.is_empty() { scheme.as_bytes() } else { &self.proto })?;
        let told_host = if self.host.is_empty() { host } else { &self.host };
        if !told_host.is_empty() {
            out.put("x-forwarded-host", told_host)?;
        }
        // RFC 7239 4 and 6: an IPv6 address is bracketed and quoted, an unknown peer is `unknown`.
        let (open, close): (&[u8], &[u8]) = if peer.contains(&b':') { (b"\"[", b"]\"") } else { (b"", b"") };
        let (host_open, host_close): (&[u8], &[u8]) =
            if host.is_empty() { (b"", b"") } else { (b";host=\"", b"\"") };
        let earlier = &self.forwarded;
        let element = [
            &earlier[..],
            behind(earlier),
            b"for=",
            open,
            known,
            close,
            host_open,
            host,
            host_close,
            b";proto=",
            scheme.as_bytes(),
        ];
        out.put_parts("forwarded", &element)
    }
}

fn list(into: &mut Vec<u8>, value: &[u8]) {
    if !into.is_empty() {
        into.extend_from_slice(b", ");
    }
    into.extend_from_slice(value);
}

/// Whether every quoted string ends: one that does not would swallow what is appended behind it.
fn has_whole_strings(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

/// How often an OPTIONS or TRACE may be passed on still; at 0 it is answered here. RFC 9110 7.6.2.
#[inline]
pub(super) fn max_forwards(head: &RequestHead) -> Option<u64> {
    if matches!(*head.method(), Method::OPTIONS | Method::TRACE) { forwards_left(head) } else { None }
}

fn forwards_left(head: &RequestHead) -> Option<u64> {
    let digits = std::str::from_utf8(head.get("max-forwards")?).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The protocols that a request asks to switch to, if that can be passed on: a body might be taken for bytes of the
/// other protocol, and HTTP/2 in the clear would pass by routes and limits (RFC 9113 3.1 has dropped it).
fn upgrade(head: &RequestHead, len: BodyLen) -> Option<&[u8]> {
    let is_h2c = |protocol: &[u8]| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c");
    let protocols = head.upgrade()?;
    (len == BodyLen::None && !protocols.split(|byte| *byte == b',').any(is_h2c)).then_some(protocols)
}

/// What one connection's requests say about their client, kept because the next request says the same.
#[derive(Default)]
pub(super) struct Told(Option<Box<Kept>>);

struct Kept {
    host: Box<str>,
    version: Version,
    block: FieldBlock,
}

impl Told {
    /// The fields for a request that says nothing about its client itself, with `Via`.
    fn block(
        &mut self,
        client: (&str, &str),
        head: &RequestHead,
        via: &Via,
    ) -> Result<&FieldBlock, SendError> {
        let version = head.version();
        let is_same = |kept: &Kept| kept.version == version && head.is_for(&kept.host);
        if !self.0.as_deref().is_some_and(is_same) {
            let host = head.authority().unwrap_or_default();
            let mut block = FieldBlock::default();
            block.fill(|out| {
                ForwardedFields::default().put(out, client, host)?;
                out.put_block(via.of(version));
                Ok(())
            })?;
            self.0 = Some(Box::new(Kept { host: host.into(), version, block }));
        }
        Ok(&self.0.as_ref().expect("it is there now").block)
    }
}

/// The value of `X-Forwarded-Client-Cert` for a certificate in DER: its PEM, percent-encoded.
pub(super) fn cert_field(der: &[u8]) -> Vec<u8> {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64);
    let mut value = b"Cert=\"-----BEGIN%20CERTIFICATE-----%0A".to_vec();
    for line in lines {
        for byte in line {
            match byte {
                b'+' => value.extend_from_slice(b"%2B"),
                b'/' => value.extend_from_slice(b"%2F"),
                b'=' => value.extend_from_slice(b"%3D"),
                byte => value.push(*byte),
            }
        }
        value.extend_from_slice(b"%0A");
    }
    value.extend_from_slice(b"-----END%20CERTIFICATE-----%0A\"");
    value
}

/// What an origin is told about the client of a request.
pub(super) struct Client<'a> {
    pub policy: Forwarded,
    /// Its address as text; empty where it has none.
    pub peer: &'a str,
    /// Of its connection to us.
    pub scheme: &'static str,
    /// The certificate by which it has proved itself, where the origin is told of it.
    pub cert: Option<&'a [u8]>,
    pub told: &'a mut Told,
}

/// Puts the fields of a request for an origin.
pub(super) fn put_request_fields(
    out: &mut FieldWriter<'_>,
    head: &RequestHead,
    len: BodyLen,
    client: Client<'_>,
    via: &Via,
) -> Result<(), SendError> {
    let Client { policy, peer, scheme, cert, told } = client;
    if let Some(cert) = cert {
        out.put("x-forwarded-client-cert", cert)?;
    }
    match (max_forwards(head), policy) {
        (Some(left), _) => {
            let told = policy == Forwarded::Off;
            let counted = |name: &str| name.eq_ignore_ascii_case("max-forwards");
            let fields =
                if told { head.forwardable_fields() } else { head.forwardable_fields().without_client() };
            fields.filter(|(name, _)| !counted(name)).try_for_each(|(name, value)| out.put(name, value))?;
            out.put("max-forwards", left.saturating_sub(1).to_string().as_bytes())?;
        }
        (None, Forwarded::Off) => out.forward_request_as_told(head),
        (None, Forwarded::Append | Forwarded::Replace) => out.forward_request(head),
    }
    if let Some(protocols) = upgrade(head, len) {
        out.put("upgrade", protocols)?;
    }
    match policy {
        Forwarded::Off => {}
        Forwarded::Append if head.tells_client() => {
            // What is said before us is said anew each time: rare, behind another gateway.
            let mut earlier = ForwardedFields::default();
            earlier.gather(head);
            earlier.put(out, (peer, scheme), head.authority().unwrap_or_default())?;
        }
        Forwarded::Append | Forwarded::Replace => {
            out.put_block(told.block((peer, scheme), head, via)?);
            return Ok(());
        }
    }
    out.put_block(via.of(head.version()));
    Ok(())
}

/// Puts the fields of a response for a client. One `Date`, which a gateway adds where an origin has no clock (RFC 9110
/// 6.6.1). `Upgrade` only where it switches or is demanded: what an origin offers besides, we do not offer.
pub(super) fn put_response_fields(
    out: &mut FieldWriter<'_>,
    head: &ResponseHead,
    shared: &Shared,
) -> Result<(), SendError> {
    let status = head.status();
    out.forward_response(head);
    if matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED)
        && let Some(protocols) = head.upgrade()
    {
        out.put("upgrade", protocols)?;
    }
    if status.is_informational() || head.is_dated() {
        out.put_block(shared.via.of(head.version()));
    } else {
        shared.put_date_and_via(out, head.version());
    }
    Ok(())
}
