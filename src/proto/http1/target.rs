//! The forms of a request target, and what may stand in a host. RFC 9112 3.2, RFC 3986 3.2.2.

use std::ops::Range;

use super::plain;

/// A request target taken apart, as offsets into the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetParts {
    pub(super) authority: Option<Range<usize>>,
    pub(super) path: Range<usize>,
    pub(super) query: Option<Range<usize>>,
}

/// Takes a target apart; `None` if its form does not fit the method.
pub(super) fn parse_target(method: &[u8], target: &[u8]) -> Option<TargetParts> {
    if !target.iter().all(|&byte| is_target_byte(byte)) {
        return None;
    }
    if method == b"CONNECT" {
        // RFC 9110 9.3.6: there is no default port.
        let valid = is_authority(target) && port(target).is_some_and(|port| !port.is_empty());
        return valid.then_some(TargetParts { authority: Some(0..target.len()), path: 0..0, query: None });
    }
    if target == b"*" {
        return (method == b"OPTIONS").then_some(TargetParts { authority: None, path: 0..1, query: None });
    }
    if target.first() == Some(&b'/') {
        return Some(split_query(target, 0, None));
    }
    let scheme_len = memchr::memmem::find(target, b"://")?;
    let scheme = &target[..scheme_len];
    // RFC 9110 4.2: what another scheme names is nothing that a message of HTTP could be about (7.4).
    let scheme_valid = [b"http".as_slice(), b"https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let start = scheme_len + 3;
    let authority_len =
        target[start..].iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(target.len() - start);
    let authority = start..start + authority_len;
    if !scheme_valid || !is_authority(&target[authority.clone()]) {
        return None;
    }
    Some(split_query(target, authority.end, Some(authority)))
}

/// Whether the bytes are `host [":" port]` with a host that is not empty, and without user information.
pub(in crate::proto) fn is_authority(bytes: &[u8]) -> bool {
    // Most are nothing but a name of letters, digits, dots and hyphens.
    if !bytes.is_empty() && plain::is_free_of(bytes, plain::not_of_host) {
        return true;
    }
    let host_len = match bytes {
        [b'[', inner @ ..] => match inner.iter().position(|&byte| byte == b']') {
            Some(len) if is_ip_literal(&inner[..len]) => len + 2,
            _ => return false,
        },
        _ => bytes.iter().position(|&byte| !is_reg_name_byte(byte)).unwrap_or(bytes.len()),
    };
    match &bytes[host_len..] {
        [] => host_len > 0,
        [b':', port @ ..] => host_len > 0 && is_port(port),
        _ => false,
    }
}

fn is_ip_literal(inner: &[u8]) -> bool {
    inner.contains(&b':') && inner.iter().all(|&byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
}

/// Digits that name a port, or none.
fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0u32, |value, &digit| value * 10 + u32::from(digit - b'0'))
            <= u32::from(u16::MAX)
}

/// Whether a byte may stand in a target: visible ASCII, and no fragment.
pub(in crate::proto) fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

fn port(authority: &[u8]) -> Option<&[u8]> {
    // A port is short: from the end it is found at once.
    let colon = authority.iter().rposition(|&byte| byte == b':')?;
    // The colons of an IPv6 address stand before its bracket.
    let after = &authority[colon + 1..];
    (!after.contains(&b']')).then_some(after)
}

/// `reg-name` but for the comma, which would let two hosts pass as one.
fn is_reg_name_byte(byte: u8) -> bool {
    REG_NAME[usize::from(byte)]
}

static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~%!$&'()*+;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn split_query(target: &[u8], path_start: usize, authority: Option<Range<usize>>) -> TargetParts {
    match memchr::memchr(b'?', &target[path_start..]) {
        Some(at) => TargetParts {
            authority,
            path: path_start..path_start + at,
            query: Some(path_start + at + 1..target.len()),
        },
        None => TargetParts { authority, path: path_start..target.len(), query: None },
    }
}

#[cfg(test)]
mod tests {
    use super::{is_authority, parse_target};

    #[test]
    fn authorities() {
        for valid in ["a", "a:80", "a:", "a.b-c_d", "127.0.0.1:1", "[::1]", "[::1]:65535", "a%20b", "xn--a"] {
            assert!(is_authority(valid.as_bytes()), "{valid}");
        }
        let refused = [
            "", ":80", "a:65536", "a:0x1", "a:+1", "a:-1", "a:123456", "u@a", "u:p@a", "a,b", "a b", "a/b",
            "a?b", "a#b", "a\\b", "[::1", "::1", "[a]", "[::1]x", "[]", "[::1]:x", "a:1:2", "a\tb", "a\"b",
            "<a>", "a\u{e9}",
        ];
        for refused in refused {
            assert!(!is_authority(refused.as_bytes()), "{refused}");
        }
    }

    /// Authority, path, query.
    type Parts<'a> = (Option<&'a str>, &'a str, Option<&'a str>);

    fn check(method: &str, target: &str, expected: Option<Parts<'_>>) {
        let parts = parse_target(method.as_bytes(), target.as_bytes());
        let text = parts.as_ref().map(|parts| {
            let authority = parts.authority.clone().map(|range| &target[range]);
            (authority, &target[parts.path.clone()], parts.query.clone().map(|range| &target[range]))
        });
        assert_eq!(text, expected, "{method} {target}");
    }

    #[test]
    fn target_forms() {
        check("GET", "/", Some((None, "/", None)));
        check("GET", "/a?b?c", Some((None, "/a", Some("b?c"))));
        check("GET", "/?", Some((None, "/", Some(""))));
        check("GET", "//a/b", Some((None, "//a/b", None)));
        check("GET", "/http://a", Some((None, "/http://a", None)));
        check("GET", "http://a", Some((Some("a"), "", None)));
        check("GET", "http://a:80/b?c", Some((Some("a:80"), "/b", Some("c"))));
        check("GET", "http://a?c", Some((Some("a"), "", Some("c"))));
        check("GET", "HTTPS://a/", Some((Some("a"), "/", None)));
        check("OPTIONS", "*", Some((None, "*", None)));
        check("CONNECT", "a:443", Some((Some("a:443"), "", None)));
        check("CONNECT", "[::1]:443", Some((Some("[::1]:443"), "", None)));
        for (method, target) in [
            ("GET", ""),
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "a:443"),
            ("GET", "?a"),
            ("GET", "/a#b"),
            ("GET", "/\u{e9}"),
            ("GET", "://a"),
            ("GET", "1http://a"),
            ("GET", "ftp://a/"),
            ("GET", "httpx://a/"),
            ("GET", "ws://a/"),
            ("GET", "http:///a"),
            ("GET", "http://u@a/"),
            ("GET", "http:/a"),
            ("OPTIONS", "**"),
            ("CONNECT", "a"),
            ("CONNECT", "a:"),
            ("CONNECT", "/"),
            ("CONNECT", "http://a:443"),
        ] {
            check(method, target, None);
        }
    }
}
