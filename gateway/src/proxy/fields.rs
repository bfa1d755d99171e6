//! What a proxy adds to and takes from the fields that it passes on.

use ringport::proto::http1::{RequestHead, ResponseHead};
use ringport::spec::Forwarded;

/// Our name in `Via`. RFC 9110 7.6.3.
const VIA: &[u8] = b"1.1 ringport";

/// The fields that tell an origin about the client, in memory that is reused.
#[derive(Default)]
pub(crate) struct ForwardedFields {
    for_: Vec<u8>,
    proto: Vec<u8>,
    host: Vec<u8>,
    forwarded: Vec<u8>,
}

impl ForwardedFields {
    /// Works the fields out for a request.
    pub(crate) fn prepare(&mut self, head: &RequestHead, policy: Forwarded, peer: &str) {
        for buf in [&mut self.for_, &mut self.proto, &mut self.host, &mut self.forwarded] {
            buf.clear();
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
                } else if name.eq_ignore_ascii_case("forwarded") {
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

/// The fields of a request for an origin.
pub(super) fn request_fields<'a>(
    head: &'a RequestHead,
    policy: Forwarded,
    forwarded: &'a ForwardedFields,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let pass =
        head.forwardable_fields().filter(move |(name, _)| policy == Forwarded::Off || !tells_client(name));
    let upgrade = head.upgrade().map(|protocol| ("upgrade", protocol));
    pass.chain(upgrade).chain(forwarded.lines()).chain([("via", VIA)])
}

/// The fields of a response for a client.
pub(super) fn response_fields(head: &ResponseHead) -> impl Iterator<Item = (&str, &[u8])> {
    let upgrade = head.upgrade().map(|protocol| ("upgrade", protocol));
    head.forwardable_fields().chain(upgrade).chain([("via", VIA)])
}

fn tells_client(name: &str) -> bool {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
        .iter()
        .any(|ours| ours.eq_ignore_ascii_case(name))
}
