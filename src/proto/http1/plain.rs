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
pub(super) struct FieldLine {
    pub(super) name: Span,
    pub(super) value: Span,
    /// Where the next line begins.
    pub(super) next: usize,
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
    if buf.get(at) != Some(&b'/') {
        return None;
    }
    let (mut end, mut query_at) = (at, None);
    loop {
        let word = word(buf, end)?;
        let (stops, queries) = (not_of_target(word), equal(word, b'?') & HIGH);
        // Of those in front of the end the first one counts.
        let queries = queries & stops.wrapping_sub(1) & !stops;
        if queries != 0 && query_at.is_none() {
            query_at = Some((end - at + first(queries)) as u16);
        }
        if stops != 0 {
            end += first(stops);
            break;
        }
        end += 8;
    }
    if buf.get(end..end + VERSION_END.len())? != VERSION_END {
        return None;
    }
    Some(RequestStart { method, target: span(at, end), query_at, len: end + VERSION_END.len() })
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
    let len = value_len(rest, 0)?;
    // Beyond ASCII a reason is no text.
    if rest[..len].first().is_none_or(|byte| *byte == b' ') || !rest[..len].is_ascii() {
        return None;
    }
    let end = start.len() + len;
    Some(ResponseStart { status, reason: span(start.len(), end), len: end + 2 })
}

/// The field whose line begins at `at`; `buf` is shorter than 64 KiB.
#[inline]
pub(super) fn field_line(buf: &[u8], at: usize) -> Option<FieldLine> {
    let mut colon = at;
    loop {
        let stops = not_of_name(word(buf, colon)?);
        if stops == 0 {
            colon += 8;
            continue;
        }
        colon += first(stops);
        if !super::parse::is_token_byte(*buf.get(colon)?) {
            break;
        }
        // A digit, or a mark that is rare in names.
        colon += 1;
    }
    let value = colon + 2;
    if colon == at || buf.get(colon..value)? != b": " {
        return None;
    }
    let end = value + value_len(buf, value)?;
    let surrounded = *buf.get(value)? == b' ' || buf[end - 1] == b' ';
    if end == value || surrounded {
        return None;
    }
    Some(FieldLine { name: span(at, colon), value: span(value, end), next: end + 2 })
}

/// How many bytes there are from `at` to a CRLF; `None` if another control character comes first.
#[inline]
fn value_len(buf: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let stops = control(word(buf, end)?);
        if stops != 0 {
            end += first(stops);
            break;
        }
        end += 8;
    }
    (buf.get(end..end + 2)? == b"\r\n").then_some(end - at)
}

fn span(start: usize, end: usize) -> Span {
    Span { at: start as u16, len: (end - start) as u16 }
}

/// Eight bytes from `at` on, the first one lowest; behind the end of `buf` there are zeros, and at the end nothing.
#[inline]
fn word(buf: &[u8], at: usize) -> Option<u64> {
    if let Some(bytes) = buf.get(at..).and_then(<[u8]>::first_chunk) {
        return Some(u64::from_le_bytes(*bytes));
    }
    last_word(buf, at)
}

#[cold]
fn last_word(buf: &[u8], at: usize) -> Option<u64> {
    let rest = buf.get(at..).filter(|rest| !rest.is_empty())?;
    Some(rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
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

/// Which bytes are control characters.
fn control(word: u64) -> u64 {
    let low = word & !HIGH;
    let from_space = low + every(0x80 - b' ');
    let delete = low + every(1);
    (!from_space | delete) & !word & HIGH
}

/// Which bytes cannot stand in a target: all but visible ASCII, and `#`.
fn not_of_target(word: u64) -> u64 {
    let low = word & !HIGH;
    let visible = low + every(0x80 - b'!');
    let delete = low + every(1);
    (!visible | delete | equal(word, b'#') | word) & HIGH
}

/// Which bytes are neither letters nor `-`.
fn not_of_name(word: u64) -> u64 {
    let lower = (word & !HIGH) | every(0x20);
    let letter = (lower + every(0x80 - b'a')) & !(lower + every(0x80 - (b'z' + 1)));
    (!(letter | equal(word, b'-')) | word) & HIGH
}

const VERSION_END: &[u8] = b" HTTP/1.1\r\n";

#[cfg(test)]
mod tests {
    use super::{HIGH, control, equal, every, first, last_word, not_of_name, not_of_target, word};

    /// Each byte in each place, between neighbours that could carry into it.
    #[test]
    fn every_byte_is_classed_as_its_rule_says() {
        type Class = (fn(u64) -> u64, fn(u8) -> bool);
        let classes: [Class; 4] = [
            (control, |byte| byte < b' ' || byte == 0x7f),
            (not_of_target, |byte| !byte.is_ascii_graphic() || byte == b'#'),
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
    fn behind_the_end_there_are_zeros() {
        let buf = b"0123456789";
        assert_eq!(word(buf, 2), Some(u64::from_le_bytes(*b"23456789")));
        assert_eq!(word(buf, 3), Some(u64::from_le_bytes(*b"3456789\0")));
        assert_eq!(word(buf, 9), Some(u64::from(b'9')));
        assert_eq!((word(buf, 10), word(buf, 11), last_word(b"", 0)), (None, None, None));
    }
}
