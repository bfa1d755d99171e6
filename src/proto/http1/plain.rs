//! Takes apart first lines and fields that are written as nearly all are, eight bytes at a time.
//!
//! Whatever is written otherwise, be it broken or only unusual, is `None` here: [`super::parse`] has it read by httparse,
//! and says what is wrong with it. What is taken here is what that takes, and is taken alike; tests compare the two.

use http::{Method, StatusCode};

use super::head::Span;

/// `method SP path SP HTTP/1.1 CRLF` with one of the common methods and a path that begins with `/`.
pub(super) struct RequestStart {
    pub(super) method: Method,
    /// The path with its query.
    pub(super) target: Span,
    /// Where in `target` its `?` is.
    pub(super) query_at: Option<u16>,
    /// Bytes of the line with its CRLF.
    pub(super) len: usize,
}

/// `HTTP/1.1 SP status SP reason CRLF` with a reason of visible ASCII.
pub(super) struct ResponseStart {
    pub(super) status: StatusCode,
    pub(super) reason: Span,
    /// Bytes of the line with its CRLF.
    pub(super) len: usize,
}

/// `name: value CRLF` with a name of letters, digits and marks, and a value without surrounding space.
pub(super) struct FieldLine<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// What is behind the line.
    pub(super) rest: &'a [u8],
}

/// The request line at the start of `buf`, which is shorter than 64 KiB.
#[inline]
pub(super) fn request_start(buf: &[u8]) -> Option<RequestStart> {
    let (method, at) = match buf.first_chunk::<4>()? {
        b"GET " => (Method::GET, 4),
        b"HEAD" if buf.get(4) == Some(&b' ') => (Method::HEAD, 5),
        b"POST" if buf.get(4) == Some(&b' ') => (Method::POST, 5),
        b"PUT " => (Method::PUT, 4),
        b"DELE" if buf.get(4..7)? == b"TE " => (Method::DELETE, 7),
        b"PATC" if buf.get(4..6)? == b"H " => (Method::PATCH, 6),
        _ => return None,
    };
    let [b'/', ..] = buf.get(at..)? else { return None };
    let target = buf.get(at..)?;
    let behind = skip(target, not_of_target);
    let (target, _) = target.split_at_checked(target.len() - behind.len())?;
    let rest = behind.strip_prefix(VERSION_END)?;
    let query_at = position(target, b'?').map(|at| at as u16);
    Some(RequestStart { method, target: span(at, at + target.len()), query_at, len: buf.len() - rest.len() })
}

/// Where `byte`, one of ASCII, is first in `bytes`, which are of ASCII too.
#[inline]
fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    if let [only] = bytes {
        // The most frequent target is one byte long.
        return (*only == byte).then_some(0);
    }
    let behind = skip(bytes, |word| (equal(word, byte) | equal(word, 0)) & HIGH);
    (behind.first() == Some(&byte)).then_some(bytes.len() - behind.len())
}

/// The status line at the start of `buf`, which is shorter than 64 KiB.
#[inline]
pub(super) fn response_start(buf: &[u8]) -> Option<ResponseStart> {
    let (start, rest) = buf.split_first_chunk::<13>()?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', hundreds, tens, ones, b' '] = start else {
        return None;
    };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let status = StatusCode::from_u16(digit(*hundreds)? * 100 + digit(*tens)? * 10 + digit(*ones)?).ok()?;
    let behind = skip(rest, not_of_reason);
    let (reason, _) = rest.split_at_checked(rest.len() - behind.len())?;
    let [b'\r', b'\n', ..] = behind else { return None };
    if reason.is_empty() || reason.starts_with(b" ") {
        return None;
    }
    let end = start.len() + reason.len();
    Some(ResponseStart { status, reason: span(start.len(), end), len: end + 2 })
}

/// The field at the start of `lines`.
#[inline]
pub(super) fn field_line(lines: &[u8]) -> Option<FieldLine<'_>> {
    let mut behind = lines;
    let value = loop {
        behind = skip(behind, not_of_name);
        match behind {
            [b':', b' ', value @ ..] => break value,
            // A digit, or a mark that is rare in names.
            [byte, more @ ..] if super::parse::is_token_byte(*byte) => behind = more,
            _ => return None,
        }
    };
    let (name, _) = lines.split_at_checked(lines.len() - behind.len())?;
    let (value, rest) = value_line(value)?;
    let surrounded = matches!(value, [b' ', ..] | [.., b' ']);
    if name.is_empty() || value.is_empty() || surrounded {
        return None;
    }
    Some(FieldLine { name, value, rest })
}

/// What is in front of the next CRLF, and what behind it; `None` if another control character comes first.
#[inline]
fn value_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let behind = skip(line, control);
    let [b'\r', b'\n', rest @ ..] = behind else { return None };
    Some((line.split_at_checked(line.len() - behind.len())?.0, rest))
}

/// From the first byte on that `stops` names, which a zero is always; empty if there is none.
#[inline]
fn skip(mut bytes: &[u8], stops: impl Fn(u64) -> u64) -> &[u8] {
    loop {
        let Some(word) = bytes.first_chunk() else { return skip_rest(bytes, stops) };
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return bytes.get(first(stops)..).unwrap_or_default();
        }
        bytes = &bytes[size_of::<u64>()..];
    }
}

/// Of fewer than eight bytes: zeros behind them stop everything.
#[cold]
fn skip_rest(bytes: &[u8], stops: impl Fn(u64) -> u64) -> &[u8] {
    let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.get(first(stops(word))..).unwrap_or_default()
}

fn span(start: usize, end: usize) -> Span {
    Span { at: start as u16, len: (end - start) as u16 }
}

/// Whether none of the bytes is one that `stops` names; none at all are no such bytes either.
///
/// Looks at all of them without an early end, some twice where their count is no multiple of eight.
#[inline]
pub(super) fn is_free_of(bytes: &[u8], stops: impl Fn(u64) -> u64) -> bool {
    let Some(last) = bytes.last_chunk() else { return stops(short_word(bytes)) == 0 };
    let mut found = stops(u64::from_le_bytes(*last));
    let mut rest = bytes;
    while let Some((word, more)) = rest.split_first_chunk() {
        found |= stops(u64::from_le_bytes(*word));
        rest = more;
    }
    found == 0
}

/// Fewer than eight bytes, some of them repeated.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    // Nothing stops at an `a`.
    bytes.iter().fold(every(b'a'), |word, byte| word << 8 | u64::from(*byte))
}

// Of eight bytes at once: the highest bit of each byte is the answer for it. With that bit taken out of what is asked
// about no sum passes a byte's end.

const HIGH: u64 = every(0x80);

const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The place of the lowest byte that has its bit.
fn first(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}

/// Which bytes are `byte`, one of ASCII. The other bits say nothing.
fn equal(word: u64, byte: u8) -> u64 {
    (HIGH - ((word & !HIGH) ^ every(byte))) & !word
}

/// Which bytes cannot stand in a value: control characters but for the tab.
pub(super) fn not_of_value(word: u64) -> u64 {
    control(word) & !equal(word, b'\t')
}

/// Which bytes are neither letters nor digits, `-` or `.`.
pub(super) fn not_of_host(word: u64) -> u64 {
    let low = word & !HIGH;
    // From `-` to `9` there is one other byte, `/`.
    let mark = (low + every(0x80 - b'-')) & !(low + every(0x80 - (b'9' + 1))) & !equal(word, b'/');
    (!(letter(low) | mark) | word) & HIGH
}

/// Which bytes of ASCII are letters. The other bits say nothing.
fn letter(low: u64) -> u64 {
    let lower = low | every(0x20);
    (lower + every(0x80 - b'a')) & !(lower + every(0x80 - (b'z' + 1)))
}

/// Which bytes are control characters.
fn control(word: u64) -> u64 {
    let low = word & !HIGH;
    let from_space = low + every(0x80 - b' ');
    let delete = low + every(1);
    (!from_space | delete) & !word & HIGH
}

/// Which bytes are control characters or beyond ASCII, where a reason would be no text.
fn not_of_reason(word: u64) -> u64 {
    control(word) | (word & HIGH)
}

/// Which bytes cannot stand in a target: all but visible ASCII, and `#`.
fn not_of_target(word: u64) -> u64 {
    let low = word & !HIGH;
    let visible = low + every(0x80 - b'!');
    let delete = low + every(1);
    (!visible | delete | equal(word, b'#') | word) & HIGH
}

/// Which bytes are neither letters nor `-`.
pub(super) fn not_of_name(word: u64) -> u64 {
    (!(letter(word & !HIGH) | equal(word, b'-')) | word) & HIGH
}

const VERSION_END: &[u8] = b" HTTP/1.1\r\n";

#[cfg(test)]
mod tests {
    use super::{
        HIGH, control, equal, every, first, is_free_of, not_of_host, not_of_name, not_of_reason,
        not_of_target, not_of_value, position, skip,
    };

    /// Each byte in each place, between neighbours that could carry into it.
    #[test]
    fn every_byte_is_classed_as_its_rule_says() {
        type Class = (fn(u64) -> u64, fn(u8) -> bool);
        let classes: [Class; 7] = [
            (control, |byte| byte < b' ' || byte == 0x7f),
            (not_of_reason, |byte| byte != b' ' && !byte.is_ascii_graphic()),
            (not_of_target, |byte| !byte.is_ascii_graphic() || byte == b'#'),
            (not_of_value, |byte| (byte < b' ' && byte != b'\t') || byte == 0x7f),
            (not_of_host, |byte| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'.'),
            (not_of_name, |byte| !byte.is_ascii_alphabetic() && byte != b'-'),
            (|word| equal(word, b'?') & HIGH, |byte| byte == b'?'),
        ];
        for (mask, rule) in classes {
            for byte in 0..=u8::MAX {
                for (place, other) in (0..8).flat_map(|place| [0, b'?', b'a', 0x7f, 0xff].map(|b| (place, b)))
                {
                    let mut bytes = [other; 8];
                    bytes[place] = byte;
                    let expected =
                        bytes.iter().rev().fold(0, |mask, byte| mask << 8 | u64::from(rule(*byte)) << 7);
                    assert_eq!(mask(u64::from_le_bytes(bytes)), expected, "{bytes:x?}");
                }
            }
        }
        assert_eq!((first(1 << 15), first(HIGH), every(0x21)), (1, 0, 0x2121_2121_2121_2121));
    }

    #[test]
    fn a_skip_ends_where_it_must() {
        for len in 0..40 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(skip(&bytes, not_of_name), b"");
            for at in 0..len {
                bytes[at] = b':';
                assert_eq!(skip(&bytes, not_of_name).len(), len - at);
                assert_eq!(position(&bytes, b':'), Some(at));
                bytes[at] = b'a';
                assert_eq!(position(&bytes, b':'), None);
            }
        }
    }

    #[test]
    fn every_place_is_looked_at() {
        for len in 0..40 {
            let mut bytes = vec![b'a'; len];
            assert!(is_free_of(&bytes, not_of_name) && is_free_of(&bytes, not_of_value));
            for at in 0..len {
                bytes[at] = b'\n';
                assert!(
                    !is_free_of(&bytes, not_of_name) && !is_free_of(&bytes, not_of_value),
                    "{at} of {len}"
                );
                bytes[at] = b'a';
            }
        }
    }
}
