//! A parsed head: one view of the received bytes and a table of offsets into it.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use ringport_platform::buf::{PoolBuf, SharedBuf};

use super::BodyLen;

/// The head of a request. Moving it costs three words.
pub struct RequestHead {
    pub(super) table: Table,
}

impl RequestHead {
    /// Copies the head out of the pool's chunk that it was received into, for one that is kept long. Nothing else changes.
    pub fn compact(&mut self) {
        self.table.compact();
    }

    /// The method. The methods of RFC 9110, and extensions up to 15 bytes, cost no allocation.
    pub fn method(&self) -> &Method {
        &self.record().method
    }

    /// The target as received: origin-form, absolute-form, authority-form (CONNECT) or `*` (OPTIONS).
    pub fn target(&self) -> &str {
        self.table.text(self.record().target)
    }

    /// The path without query, as received; `*` for `OPTIONS *`, empty for CONNECT and for `http://host`.
    pub fn path(&self) -> &str {
        self.table.text(self.record().path)
    }

    /// What follows `?`, without it.
    pub fn query(&self) -> Option<&str> {
        self.record().query.map(|span| self.table.text(span))
    }

    /// The target to send to an origin: path and query of an absolute target, any other as received. RFC 9112 3.2.
    ///
    /// Allocates only for `http://host?query`, which lacks the slash.
    pub fn origin_target(&self) -> Cow<'_, str> {
        let Record { path, target, method, .. } = self.record();
        if path.at == target.at || *method == Method::CONNECT {
            return Cow::Borrowed(self.target());
        }
        let start = usize::from(path.at - target.at);
        match &self.target()[start..] {
            // RFC 9112 3.2.4
            "" if *method == Method::OPTIONS => Cow::Borrowed("*"),
            "" => Cow::Borrowed("/"),
            query if query.starts_with('?') => Cow::Owned(format!("/{query}")),
            path => Cow::Borrowed(path),
        }
    }

    /// Host and port that the request is for: from an absolute target if there is one (RFC 9112 3.2.2), else from Host.
    ///
    /// `None` only in HTTP/1.0.
    pub fn authority(&self) -> Option<&str> {
        self.record().authority.map(|span| self.table.text(span))
    }

    /// Whether there is an authority.
    pub fn has_authority(&self) -> bool {
        self.record().authority.is_some()
    }

    /// Whether the authority is this text; no authority is the empty text.
    pub fn is_for(&self, authority: &str) -> bool {
        self.table.bytes(self.record().authority.unwrap_or_default()) == authority.as_bytes()
    }

    /// Whether the client waits for 100 before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.record().facts.expect_continue
    }

    /// Whether fields are there that tell an origin about the client: `Forwarded`, `X-Forwarded-For`, `-Host`, `-Proto`.
    pub fn tells_client(&self) -> bool {
        self.record().facts.client_fields
    }

    /// Whether the client says that it takes trailers (`TE: trailers`).
    pub fn accepts_trailers(&self) -> bool {
        self.record().facts.te_trailers
    }

    /// The same as the type of the `http` crate; allocates.
    ///
    /// # Errors
    /// If that crate's rules are narrower than ours for this head.
    pub fn to_request(&self) -> http::Result<http::Request<()>> {
        let builder = http::Request::builder().method(self.method().clone()).uri(self.target());
        let mut request = builder.version(self.version()).body(())?;
        self.table.copy_into(request.headers_mut())?;
        Ok(request)
    }
}

/// The head of a response. Moving it costs three words.
pub struct ResponseHead {
    pub(super) table: Table,
}

impl ResponseHead {
    /// The status, from 100 to 999. Those above 599 are server errors (RFC 9110 15).
    pub fn status(&self) -> StatusCode {
        self.record().status
    }

    /// Whether there is a `Date`. Where there are several, the first counts and the others are not passed on.
    pub fn is_dated(&self) -> bool {
        self.record().facts.dated
    }

    /// The reason phrase; often empty.
    pub fn reason(&self) -> &str {
        self.table.text(self.record().reason)
    }

    /// The same as the type of the `http` crate; allocates.
    ///
    /// # Errors
    /// If that crate's rules are narrower than ours for this head.
    pub fn to_response(&self) -> http::Result<http::Response<()>> {
        let mut response = http::Response::builder().status(self.status()).version(self.version()).body(())?;
        self.table.copy_into(response.headers_mut())?;
        Ok(response)
    }
}

/// The fields after a chunked body.
pub struct Trailers {
    pub(super) table: Table,
}

impl Trailers {
    /// The same as the type of the `http` crate; allocates.
    ///
    /// # Errors
    /// If that crate's rules are narrower than ours for these fields.
    pub fn to_map(&self) -> http::Result<HeaderMap> {
        let mut map = HeaderMap::new();
        self.table.copy_into(&mut map)?;
        Ok(map)
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.table.get(name)
    }

    /// All fields in order, as received.
    pub fn iter(&self) -> Fields<'_> {
        self.table.iter()
    }
}

/// What requests and responses have in common.
macro_rules! common_head {
    ($head:ty) => {
        impl $head {
            pub(super) fn record(&self) -> &Record {
                &self.table.record
            }

            /// HTTP/1.1 or HTTP/1.0.
            pub fn version(&self) -> Version {
                self.record().facts.version
            }

            /// The value of the first field of that name, in any case.
            pub fn get(&self, name: &str) -> Option<&[u8]> {
                self.table.get(name)
            }

            /// All fields in order, names in the case received, values without surrounding space.
            pub fn iter(&self) -> Fields<'_> {
                self.table.iter()
            }

            /// The fields that a gateway passes on: without `Connection`, the fields that it names, and what else
            /// belongs to this hop, to framing or to routing.
            ///
            /// Left out: Connection, Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, Upgrade,
            /// HTTP2-Settings, Transfer-Encoding, Content-Length, and a request's Host. TE is passed on as `trailers`
            /// if it says so. Host, the body's length and an upgrade are said again when the head is sent. RFC 9110
            /// 7.6.1.
            pub fn forwardable_fields(&self) -> ForwardableFields<'_> {
                ForwardableFields {
                    fields: self.iter(),
                    te_trailers: self.record().facts.te_trailers,
                    client: true,
                }
            }

            /// `Content-Length`, if given. In a response to HEAD, and in a 304, it is not the length of what follows.
            pub fn content_length(&self) -> Option<u64> {
                self.record().facts.content_length
            }

            /// Whether the message came with `Transfer-Encoding: chunked`.
            pub fn is_chunked(&self) -> bool {
                self.record().facts.chunked
            }

            /// Whether `Connection` says close.
            pub fn says_close(&self) -> bool {
                self.record().facts.close
            }

            /// The protocols of `Upgrade`, if `Connection` names it and the version is HTTP/1.1. RFC 9110 7.8.
            pub fn upgrade(&self) -> Option<&[u8]> {
                if self.record().facts.upgrade { self.get("upgrade") } else { None }
            }
        }

        impl fmt::Debug for $head {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let bytes: &[u8] = &self.table.buf;
                let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or(bytes);
                write!(f, "{} (+{} fields)", line.escape_ascii(), self.table.record.fields.len())
            }
        }
    };
}

common_head!(RequestHead);
common_head!(ResponseHead);

impl fmt::Debug for Trailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trailers({} fields)", self.table.record.fields.len())
    }
}

/// Fields of a head, in order.
#[derive(Clone)]
pub struct Fields<'a> {
    table: &'a Table,
    at: usize,
}

impl<'a> Fields<'a> {
    fn next_pos(&mut self) -> Option<FieldPos> {
        let pos = *self.table.record.fields.get(self.at)?;
        self.at += 1;
        Some(pos)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let pos = self.next_pos()?;
        Some((self.table.text(pos.name), self.table.bytes(pos.value)))
    }
}

/// Fields that a gateway passes on, in order.
#[derive(Clone)]
pub struct ForwardableFields<'a> {
    fields: Fields<'a>,
    te_trailers: bool,
    client: bool,
}

impl ForwardableFields<'_> {
    /// Without the fields that tell an origin about the client, which a gateway writes anew.
    #[must_use]
    pub fn without_client(self) -> Self {
        ForwardableFields { client: false, ..self }
    }
}

impl<'a> Iterator for ForwardableFields<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(pos) = self.fields.next_pos() {
            match pos.kind {
                Kind::Client if !self.client => {}
                Kind::EndToEnd | Kind::Client => {
                    return Some((self.fields.table.text(pos.name), self.fields.table.bytes(pos.value)));
                }
                Kind::Te if std::mem::take(&mut self.te_trailers) => return Some(("te", b"trailers")),
                Kind::Te | Kind::ThisHop => {}
            }
        }
        None
    }
}

/// What framing and gateways ask of a head, found while it is parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) version: Version,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) expect_continue: bool,
    pub(super) te_trailers: bool,
    /// Whether fields of [`Kind::Client`] are there.
    pub(super) client_fields: bool,
    /// Whether a response has a `Date`.
    pub(super) dated: bool,
}

impl Facts {
    /// Whether the sender lets the connection live after this message. RFC 9112 9.3.
    pub(super) fn persists(&self) -> bool {
        !self.close && (self.version == Version::HTTP_11 || self.keep_alive)
    }
}

/// A range of a head. Heads are shorter than 64 KiB ([`super::Limits::head_bytes`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u16,
    pub(super) len: u16,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies. An empty part may come from anywhere.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let at = part.as_ptr().addr() - whole.as_ptr().addr();
        debug_assert!(at + part.len() <= whole.len() && whole.len() <= usize::from(u16::MAX));
        Span { at: at as u16, len: part.len() as u16 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldPos {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EndToEnd,
    /// Tells an origin about the client: a gateway may write it anew.
    Client,
    Te,
    ThisHop,
}

/// What was found in a head, but for its bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fields: Vec<FieldPos>,
    pub(super) facts: Facts,
    /// Whether each line is `name: value` with just that one space.
    pub(super) plain: bool,
    pub(super) method: Method,
    pub(super) target: Span,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Option<Span>,
    pub(super) status: StatusCode,
    pub(super) reason: Span,
    /// How the body of a request is delimited.
    pub(super) body: BodyLen,
    /// A host that was found valid, kept from one head to the next.
    pub(super) known_host: Vec<u8>,
    /// The head that all this was read from last, if it is as it was found.
    pub(super) known: KnownHead,
}

impl Record {
    /// Whether the head is, byte by byte, the one before, as where a client asks for the same again: then all that was found
    /// in that counts again. Its length.
    ///
    /// The limits may be lower than they were then.
    #[inline]
    pub(super) fn recall(&mut self, buf: &[u8], max_line: usize, max_fields: usize) -> Option<usize> {
        let known = &mut self.known;
        let is_same = known.is_whole
            && buf.starts_with(&known.head)
            && usize::from(known.line_len) <= max_line
            && self.fields.len() <= max_fields;
        if !is_same {
            return None;
        }
        (known.changes, known.line_changes) = (0, 0);
        Some(known.head.len())
    }

    /// Whether the fields from `at` on are, byte by byte, those of the head before, which most clients send again and
    /// again: then what was found in those counts again. The length of the head.
    ///
    /// `max_fields` may be less than it was then.
    #[inline]
    pub(super) fn recall_fields(&mut self, buf: &[u8], at: usize, max_fields: usize) -> Option<usize> {
        let known = &mut self.known;
        let lines = &known.head[usize::from(known.line_len)..];
        if lines.is_empty() || !buf.get(at..)?.starts_with(lines) || self.fields.len() > max_fields {
            return None;
        }
        let len = at + lines.len();
        known.changes = 0;
        known.is_whole = false;
        if known.line_changes <= MAX_CHANGES && len <= MAX_KNOWN_HEAD {
            known.line_changes += 1;
            known.keep(&buf[..len], at);
        }
        if usize::from(self.known.at) != at {
            self.move_to(at as u16);
        }
        Some(len)
    }

    #[inline(never)]
    fn move_to(&mut self, at: u16) {
        let by = at.wrapping_sub(std::mem::replace(&mut self.known.at, at));
        let spans = self.fields.iter_mut().flat_map(|field| [&mut field.name, &mut field.value]);
        spans.chain(&mut self.authority).for_each(|span| span.at = span.at.wrapping_add(by));
    }

    /// Notes a head, which was just read into this record, for the next one. Its fields are behind the first `at` bytes.
    pub(super) fn remember(&mut self, head: &[u8], at: usize) {
        let known = &mut self.known;
        if known.changes > MAX_CHANGES || head.len() > MAX_KNOWN_HEAD {
            return;
        }
        known.changes += 1;
        known.at = at as u16;
        known.keep(head, at);
    }
}

/// A head as it came, with the empty line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KnownHead {
    /// Empty where nothing is known.
    head: Vec<u8>,
    /// Bytes of its first line.
    line_len: u16,
    /// Where the record has the fields: elsewhere than in `head` once another first line came with them.
    at: u16,
    /// Whether the record is that of `head` as a whole, and not of its fields alone.
    is_whole: bool,
    /// How many heads in a row had other fields than the one before.
    changes: u8,
    /// How many heads in a row had the fields of the one before behind another first line.
    line_changes: u8,
}

impl KnownHead {
    /// The head is of no connection: no next one comes.
    pub(super) fn never(&mut self) {
        self.changes = MAX_CHANGES + 1;
    }

    /// What is found next is something else.
    pub(super) fn forget(&mut self) {
        self.head.clear();
        (self.line_len, self.is_whole) = (0, false);
    }

    fn keep(&mut self, head: &[u8], line_len: usize) {
        self.head.clear();
        self.head.reserve_exact(head.len());
        self.head.extend_from_slice(head);
        (self.line_len, self.is_whole) = (line_len as u16, true);
    }
}

/// Longer ones are read each time: they are kept with each connection.
const MAX_KNOWN_HEAD: usize = 1280;
/// After so many heads that differ from the one before, the next is not expected to be the same.
const MAX_CHANGES: u8 = 8;

/// The record of a connection's last head, which the next one uses again when that is gone.
#[derive(Default)]
pub(super) struct Spare(Option<Rc<Record>>);

impl Spare {
    /// A record that no head uses.
    pub(super) fn unused(&mut self) -> &mut Record {
        if self.0.as_mut().and_then(Rc::get_mut).is_none() {
            self.0 = Some(Rc::default());
        }
        self.0.as_mut().and_then(Rc::get_mut).expect("nobody else has it")
    }

    /// The record of the last head, unless that is still in use.
    #[inline]
    pub(super) fn last(&mut self) -> Option<&mut Record> {
        self.0.as_mut().and_then(Rc::get_mut)
    }

    /// The table of the head whose record was filled last.
    #[inline]
    pub(super) fn table(&self, buf: SharedBuf) -> Table {
        Table { buf, record: self.0.clone().unwrap_or_default() }
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

pub(super) struct Table {
    pub(super) buf: SharedBuf,
    pub(super) record: Rc<Record>,
}

impl Table {
    /// The same, of a message that came in that version.
    pub(super) fn said_in(mut self, version: Version) -> Self {
        if let Some(record) = Rc::get_mut(&mut self.record) {
            record.facts.version = version;
        }
        self
    }

    fn compact(&mut self) {
        if !self.buf.is_compact() {
            self.buf = PoolBuf::copied(&self.buf).freeze();
        }
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        let at = usize::from(span.at);
        &self.buf[at..at + usize::from(span.len)]
    }

    /// For what the parser found to be ASCII or UTF-8.
    pub(super) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        let same_len = |pos: &&FieldPos| usize::from(pos.name.len) == name.len();
        let found = self.record.fields.iter().filter(same_len);
        found
            .map(|pos| (self.bytes(pos.name), pos))
            .find_map(|(bytes, pos)| bytes.eq_ignore_ascii_case(name).then(|| self.bytes(pos.value)))
    }

    /// The fields in order, each with the place behind its line. There are no folded lines, and the empty line is last.
    pub(super) fn lines(&self) -> impl Iterator<Item = (FieldPos, usize)> {
        let (fields, end) = (&self.record.fields[..], self.buf.len() - b"\r\n".len());
        let line_end = move |at: usize| fields.get(at + 1).map_or(end, |next| usize::from(next.name.at));
        fields.iter().enumerate().map(move |(at, field)| (*field, line_end(at)))
    }

    /// Whether the line of a field is `name: value`, with just that one space.
    pub(super) fn is_plain(&self, field: FieldPos, line_end: usize) -> bool {
        if self.record.plain {
            return true;
        }
        let name_end = usize::from(field.name.at + field.name.len);
        let value = usize::from(field.value.at);
        value == name_end + 2
            && value + usize::from(field.value.len) + 2 == line_end
            && self.buf[name_end + 1] == b' '
    }

    fn iter(&self) -> Fields<'_> {
        Fields { table: self, at: 0 }
    }

    fn copy_into(&self, map: &mut HeaderMap) -> http::Result<()> {
        for (name, value) in self.iter() {
            map.try_append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_CHANGES, MAX_KNOWN_HEAD, Record};

    const NO_LIMIT: usize = usize::MAX;

    #[test]
    fn a_head_is_remembered_up_to_a_length() {
        for (len, remembered) in [(MAX_KNOWN_HEAD, true), (MAX_KNOWN_HEAD + 1, false)] {
            let (mut record, head) = (Record::default(), vec![b'x'; len]);
            record.remember(&head, 10);
            assert_eq!(record.recall(&head, NO_LIMIT, 0), remembered.then_some(len));
            assert_eq!(record.recall(&head[..len - 1], NO_LIMIT, 0), None, "not whole");
            assert_eq!(record.recall_fields(&head, 10, 0), remembered.then_some(len));
            assert_eq!(record.recall_fields(&head[..len - 1], 10, 0), None, "not whole");
            assert_eq!(record.recall(&head, 9, 0), None, "a lower limit");
        }
    }

    /// Fields behind a first line that makes the head too long are known still, and the head as a whole is not.
    #[test]
    fn a_long_first_line_is_not_remembered() {
        let (mut record, long) = (Record::default(), vec![b'x'; MAX_KNOWN_HEAD + 1]);
        record.remember(b"xyz", 1);
        let long = [&long, &b"yz"[..]].concat();
        for _ in 0..2 {
            assert_eq!(record.recall_fields(&long, long.len() - 2, 0), Some(long.len()));
            assert_eq!((record.recall(&long, NO_LIMIT, 0), record.recall(b"xyz", NO_LIMIT, 0)), (None, None));
        }
        assert_eq!(record.recall_fields(b"zyz", 1, 0), Some(3));
        assert_eq!(record.recall(b"zyz", NO_LIMIT, 0), Some(3));
    }

    /// A client whose fields always change costs no copies for ever; one that repeats itself at last is remembered.
    #[test]
    fn fields_that_always_change_are_remembered_no_more() {
        for (changes, remembered) in [(MAX_CHANGES, true), (MAX_CHANGES + 1, false)] {
            let mut record = Record::default();
            for at in 0..=changes {
                assert_eq!(record.recall_fields(&[at], 0, 0), None);
                record.known.forget();
                record.remember(&[at], 0);
            }
            assert_eq!(record.recall_fields(&[changes], 0, 0).is_some(), remembered);
        }
        let mut record = Record::default();
        for at in 0..100 {
            record.known.forget();
            record.remember(&[at], 0);
            assert_eq!(record.recall_fields(&[at], 0, 0), Some(1), "counted anew at each repeat");
        }
    }

    /// The same for first lines before fields that stay.
    #[test]
    fn first_lines_that_always_change_are_remembered_no_more() {
        for (changes, remembered) in [(MAX_CHANGES, true), (MAX_CHANGES + 1, false)] {
            let mut record = Record::default();
            record.remember(&[u8::MAX, 1], 1);
            for line in 0..=changes {
                assert_eq!(record.recall(&[line, 1], NO_LIMIT, 0), None);
                assert_eq!(record.recall_fields(&[line, 1], 1, 0), Some(2));
            }
            assert_eq!(record.recall(&[changes, 1], NO_LIMIT, 0).is_some(), remembered);
        }
        let mut record = Record::default();
        record.remember(&[u8::MAX, 1], 1);
        for line in 0..100 {
            assert_eq!(record.recall_fields(&[line, 1], 1, 0), Some(2));
            assert_eq!(record.recall(&[line, 1], NO_LIMIT, 0), Some(2), "counted anew at each repeat");
        }
    }
}
