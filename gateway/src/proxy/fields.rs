//! What a proxy adds to and takes from the fields that it passes on.

use http::{Method, StatusCode, Version};
use ringport::proto::http1::{BodyLen, RequestHead, ResponseHead};
use ringport::spec::Forwarded;

/// Our name in `Via`, behind the version in which the message came. RFC 9110 7.6.3.
fn via(version: Version) -> &'static [u8] {
    if version == Version::HTTP_10 { b"1.0 ringport" } else { b"1.1 ringport" }
}

/// The fields that tell an origin about the client, in memory that is reused.
#[derive(Default)]
pub(crate) struct ForwardedFields {
    for_: Vec<u8>,
    proto: Vec<u8>,
    host: Vec<u8>,
    forwarded: Vec<u8>,
    max_forwards: Vec<u8>,
}

impl ForwardedFields {
    /// Works the fields out for a request.
    pub(crate) fn prepare(&mut self, head: &RequestHead, policy: Forwarded, peer: &str) {
        let bufs = [&mut self.for_, &mut self.proto, &mut self.host, &mut self.forwarded];
        bufs.into_iter().chain([&mut self.max_forwards]).for_each(Vec::clear);
        if let Some(left) = max_forwards(head) {
            self.max_forwards.extend_from_slice(left.saturating_sub(1).to_string().as_bytes());
        }
        let keep = match policy {
            Forwarded::Off => return,
            Forwarded::Append => true,
            Forwarded::Replace => false,
        };
        if keep {
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
        let host = head.authority().unwrap_or_default();
        list(&mut self.for_, if peer.is_empty() { b"unknown" } else { peer.as_bytes() });
        if self.proto.is_empty() {
            self.proto.extend_from_slice(b"http");
        }
        if self.host.is_empty() {
            self.host.extend_from_slice(host.as_bytes());
        }
        self.element(peer, host);
    }

    /// RFC 7239 4: an IPv6 address is bracketed and quoted, an unknown peer is `unknown`.
    fn element(&mut self, peer: &str, host: &str) {
        let node = match peer {
            "" => "unknown".to_owned(),
            peer if peer.contains(':') => format!("\"[{peer}]\""),
            peer => peer.to_owned(),
        };
        let host = if host.is_empty() { String::new() } else { format!(";host=\"{host}\"") };
        list(&mut self.forwarded, format!("for={node}{host};proto=http").as_bytes());
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &[u8])> {
        [
            ("x-forwarded-for", &self.for_),
            ("x-forwarded-proto", &self.proto),
            ("x-forwarded-host", &self.host),
            ("forwarded", &self.forwarded),
            ("max-forwards", &self.max_forwards),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name, value.as_slice()))
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
pub(super) fn max_forwards(head: &RequestHead) -> Option<u64> {
    if !matches!(*head.method(), Method::OPTIONS | Method::TRACE) {
        return None;
    }
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

/// The fields of a request for an origin.
pub(super) fn request_fields<'a>(
    head: &'a RequestHead,
    len: BodyLen,
    policy: Forwarded,
    forwarded: &'a ForwardedFields,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let counts = !forwarded.max_forwards.is_empty();
    let pass = head.forwardable_fields().filter(move |(name, _)| {
        (policy == Forwarded::Off || !tells_client(name))
            && !(counts && name.eq_ignore_ascii_case("max-forwards"))
    });
    let upgrade = upgrade(head, len).map(|protocols| ("upgrade", protocols));
    pass.chain(upgrade).chain(forwarded.lines()).chain([("via", via(head.version()))])
}

/// The fields of a response for a client. One `Date`, which a gateway adds where an origin has no clock (RFC 9110
/// 6.6.1). `Upgrade` only where it switches or is demanded: what an origin offers besides, we do not offer.
pub(super) fn response_fields<'a>(
    head: &'a ResponseHead,
    date: &'a [u8],
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let status = head.status();
    let upgrades = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let upgrade = head.upgrade().filter(|_| upgrades).map(|protocols| ("upgrade", protocols));
    let undated = !status.is_informational() && head.get("date").is_none();
    let mut dates = 0;
    let pass = head.forwardable_fields().filter(move |(name, _)| {
        let is_date = name.eq_ignore_ascii_case("date");
        dates += u32::from(is_date);
        !is_date || dates == 1
    });
    let date = undated.then_some(("date", date));
    pass.chain(date).chain(upgrade).chain([("via", via(head.version()))])
}

/// Whether a field tells of the client. Also with `_` for `-`: some origins take both for the same name.
fn tells_client(name: &str) -> bool {
    let same = |ours: &&str| {
        ours.len() == name.len()
            && name
                .bytes()
                .zip(ours.bytes())
                .all(|(byte, ours)| byte.to_ascii_lowercase() == ours || (byte == b'_' && ours == b'-'))
    };
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"].iter().any(same)
}
