//! Which version a client speaks on a port that takes HTTP/1.1 too.

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Something else; no HTTP/1.1 request begins as HTTP/2 does.
    Http1,
    /// Not enough has come.
    Incomplete,
}

/// Looks at the first bytes of a connection, of which none is to be taken. RFC 9113 3.3 and 3.4.
///
/// HTTP/1.1 is known at the first byte that differs, so a client is not held up: `PRI * HTTP/2.0` is no request that it
/// could make.
pub fn detect_preface(bytes: &[u8]) -> Preface {
    let len = bytes.len().min(PREFACE.len());
    if bytes[..len] != PREFACE[..len] {
        Preface::Http1
    } else if len == PREFACE.len() {
        Preface::Http2
    } else {
        Preface::Incomplete
    }
}

pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::{PREFACE, Preface, detect_preface};

    #[test]
    fn the_first_bytes_tell_the_version() {
        for len in 0..PREFACE.len() {
            assert_eq!(detect_preface(&PREFACE[..len]), Preface::Incomplete);
            let mut other = PREFACE[..=len].to_vec();
            other[len] ^= 0x20;
            assert_eq!(detect_preface(&other), Preface::Http1, "{}", other.escape_ascii());
        }
        assert_eq!(detect_preface(PREFACE), Preface::Http2);
        assert_eq!(detect_preface(&[&PREFACE[..], b"\0\0"].concat()), Preface::Http2);
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"PRI / HTTP/1.1\r\n", b"POST", b"\x16\x03\x01", b"\r\n"] {
            assert_eq!(detect_preface(other), Preface::Http1);
        }
    }
}
