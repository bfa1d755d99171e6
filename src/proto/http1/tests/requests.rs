//! Requests on the wire, from plain to hostile: 87 cases that broke one server or another.

use http::StatusCode;
use ringport_platform::buf::{PoolBuf, RxQueue};

use super::super::{BodyLen, Error, Limits, ServerConn, ServerEvent};
use super::{sent, tx_queue};

use Expected::{Accepted, Refused, ThenClosed};

/// Method, target, body.
type Exchange = (&'static str, &'static str, &'static str);

enum Expected {
    /// These requests, and the connection is ready for more.
    Accepted(&'static [Exchange]),
    /// These requests, and nothing behind them is read.
    ThenClosed(&'static [Exchange]),
    /// No request gets through.
    Refused(Error),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Method, target, body; the last one may be cut off.
    pub(super) requests: Vec<(String, String, String)>,
    /// Requests that were read to their end.
    pub(super) whole_count: usize,
    error: Option<Error>,
    closed: bool,
    sent: Vec<u8>,
}

/// Feeds a server `step` bytes at a time; it answers each request once that is read.
pub(super) fn serve(bytes: &[u8], step: usize) -> Outcome {
    let mut conn = ServerConn::new(Limits::default());
    let (mut rx, mut tx) = (RxQueue::new(), tx_queue());
    let mut outcome = Outcome::default();
    for part in bytes.chunks(step) {
        rx.push(PoolBuf::copied(part));
        loop {
            match conn.poll_event(&mut rx) {
                Ok(ServerEvent::NeedInput) => break,
                Ok(ServerEvent::Closed) => {
                    outcome.closed = true;
                    break;
                }
                Ok(ServerEvent::Head(head, body)) => {
                    outcome.requests.push((head.method().to_string(), head.target().into(), String::new()));
                    assert_eq!(head.to_request().expect("http takes what we take").method(), head.method());
                    conn.send_continue(&mut tx).expect("the response has not begun");
                    if body == BodyLen::Tunnel {
                        conn.send_head(StatusCode::OK, [], BodyLen::Tunnel, &mut tx)
                            .expect("CONNECT was asked");
                    }
                }
                Ok(ServerEvent::Data(data)) => {
                    outcome.requests.last_mut().expect("a head came first").2 +=
                        &String::from_utf8_lossy(&data);
                }
                Ok(ServerEvent::Trailers(_)) => {}
                Ok(ServerEvent::End) => {
                    outcome.whole_count += 1;
                    conn.send_head(StatusCode::OK, [], BodyLen::None, &mut tx)
                        .expect("one response a request");
                    conn.finish(&mut tx).expect("the response has begun");
                }
                Ok(event @ (ServerEvent::Paused | ServerEvent::Tunnel(_))) => panic!("{event:?}"),
                Err(error) => {
                    outcome.error = Some(error);
                    outcome.sent = sent(&tx);
                    return outcome;
                }
            }
        }
    }
    outcome.sent = sent(&tx);
    outcome
}

#[test]
fn requests_from_plain_to_hostile() {
    for (name, bytes, expected) in cases() {
        let bytes = &bytes[..];
        let whole = serve(bytes, usize::MAX);
        let by_byte = serve(bytes, 1);
        assert_eq!(whole, by_byte, "{name}: whole or in single bytes");
        let (requests, error, closed) = match expected {
            Accepted(requests) => (requests, None, false),
            ThenClosed(requests) => (requests, None, true),
            Refused(error) => (&[][..], Some(error), false),
        };
        assert_eq!((whole.error, whole.closed), (error, closed), "{name}");
        let same =
            |(a, b): (&Exchange, &(String, String, String))| *a == (b.0.as_str(), b.1.as_str(), b.2.as_str());
        if error.is_some() {
            // A body may have begun before the fault behind it was seen; nobody took the request for whole.
            assert!(whole.sent.is_empty(), "{name}");
            continue;
        }
        let all_same = requests.iter().zip(&whole.requests).all(same);
        assert!(requests.len() == whole.requests.len() && all_same, "{name}: {whole:?}");
    }
}

fn chunked(body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

fn cases() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let heads = HEADS.into_iter().map(|(name, bytes, expected)| (name, bytes.to_vec(), expected));
    let bodies = CHUNKED.into_iter().map(|(name, body, expected)| (name, chunked(body), expected));
    let cases: Vec<_> = heads.chain(bodies).chain(large_cases()).collect();
    assert_eq!(cases.len(), 87);
    cases
}

fn large_cases() -> [(&'static str, Vec<u8>, Expected); 5] {
    let big_h: String = (0..150).map(|at| format!("x-h{at}: v\r\n")).collect();
    let big_h = format!("GET / HTTP/1.1\r\nHost: a\r\n{big_h}\r\n").into_bytes();
    let huge_v = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "v".repeat(1 << 20)).into_bytes();
    let ext = chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(200_000)));
    let manyext = chunked(&(format!("1;{}\r\nx\r\n", "e".repeat(100)).repeat(2000) + "0\r\n\r\n"));
    let trl: String = (0..5000).map(|at| format!("x-t{at}: {}\r\n", "v".repeat(100))).collect();
    let trl = chunked(&format!("0\r\n{trl}\r\n"));
    [
        ("chunk ext 200 KB", ext, Refused(Error::ChunkExtTooLarge)),
        ("chunk ext 100 B x 2000", manyext, Refused(Error::ChunkExtTooLarge)),
        ("trailers 500 KB", trl, Refused(Error::TrailersTooLarge)),
        ("150 headers", big_h, Refused(Error::TooManyFields)),
        ("1 MB header", huge_v, Refused(Error::HeadTooLarge)),
    ]
}

const HEADS: [(&str, &[u8], Expected); 65] = [
    (
        "simple pipelined x3",
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
          GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        Accepted(&[("GET", "/1", ""), ("GET", "/2", ""), ("GET", "/3", "")]),
    ),
    (
        "CL.TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\
          \r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(Error::LengthAndChunked),
    ),
    (
        "TE.CL order",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\
          \r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(Error::LengthAndChunked),
    ),
    (
        "TE xchunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\
          \r\nabc",
        Refused(Error::TransferCodingUnknown),
    ),
    (
        "TE 'chunked, identity'",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\
          \r\n",
        Refused(Error::TransferEncoding),
    ),
    (
        "TE 'identity, chunked'",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\
          \r\n",
        Refused(Error::TransferCodingUnknown),
    ),
    (
        "TE gzip only",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        Refused(Error::TransferCodingUnknown),
    ),
    (
        "TE two headers chunked+identity",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(Error::TransferEncoding),
    ),
    (
        "TE two headers chunked+chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(Error::TransferEncoding),
    ),
    (
        "TE space before colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(Error::Field),
    ),
    (
        "TE value VT",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(Error::Field),
    ),
    (
        "TE quoted",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(Error::TransferEncoding),
    ),
    (
        "dup CL differ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Refused(Error::ContentLength),
    ),
    (
        "dup CL same",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Refused(Error::ContentLength),
    ),
    (
        "CL '3, 3'",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        Refused(Error::ContentLength),
    ),
    ("CL +3", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused(Error::ContentLength)),
    ("CL -1", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabc", Refused(Error::ContentLength)),
    (
        "CL 0x3",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        Refused(Error::ContentLength),
    ),
    ("CL empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", Refused(Error::ContentLength)),
    (
        "CL overflow",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
        Refused(Error::ContentLength),
    ),
    (
        "CL '3 0'",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 0\r\n\r\nabc",
        Refused(Error::ContentLength),
    ),
    ("obs-fold header", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Refused(Error::Field)),
    (
        "obs-fold TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(Error::Field),
    ),
    ("bare LF header ends", b"GET / HTTP/1.1\nHost: a\n\n", Refused(Error::BareLineEnd)),
    ("bare LF one header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Refused(Error::BareLineEnd)),
    ("bare CR in value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Refused(Error::BareLineEnd)),
    ("NUL in value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Refused(Error::Field)),
    ("NUL in name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Refused(Error::Field)),
    ("empty header name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused(Error::Field)),
    ("no colon header", b"GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n", Refused(Error::Field)),
    ("space-first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(Error::Field)),
    (
        "HTTP/1.0 + TE",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(Error::TransferEncoding),
    ),
    (
        "HTTP/1.0 keepalive + TE + CL",
        b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\
          Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabcGET /s HTTP/1.1\r\n\
          Host: a\r\n\r\n",
        Refused(Error::LengthAndChunked),
    ),
    (
        "GET with CL body",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\
          Host: a\r\n\r\n",
        Accepted(&[("GET", "/a", "abc"), ("GET", "/b", "")]),
    ),
    (
        "HEAD with CL body",
        b"HEAD /a HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET /s HTTP/1.1\r\n\
          Host: evil\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        Accepted(&[("HEAD", "/a", "GET /s HTTP/1.1\r\nHost: evil\r\n\r\n"), ("GET", "/b", "")]),
    ),
    (
        "DELETE with chunked body",
        b"DELETE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\
          \r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        Accepted(&[("DELETE", "/a", "x"), ("GET", "/b", "")]),
    ),
    (
        "POST no CL/TE then GET",
        b"POST /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        Accepted(&[("POST", "/a", ""), ("GET", "/b", "")]),
    ),
    ("no Host 1.1", b"GET / HTTP/1.1\r\n\r\n", Refused(Error::Host)),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(Error::Host)),
    ("Host 'a, b'", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(Error::Host)),
    ("Host with path", b"GET / HTTP/1.1\r\nHost: a/evil\r\n\r\n", Refused(Error::Host)),
    ("bad method char", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    ("double space req line", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    ("tab in req line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    ("space in target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    ("fragment in target", b"GET /a#frag HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::Target)),
    ("relative target", b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::Target)),
    ("absolute-form", b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[("GET", "http://a/x", "")])),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[("OPTIONS", "*", "")])),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Accepted(&[("CONNECT", "a:443", "")])),
    (
        "CONNECT with CL",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\nabc",
        Refused(Error::BodyNotAllowed),
    ),
    ("version 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(Error::Version)),
    ("HTTP/2.0 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(Error::Version)),
    ("HTTP/0.9", b"GET /\r\n", Accepted(&[])),
    ("leading CRLF", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[("GET", "/", "")])),
    ("leading space", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    (
        "Connection: close",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\
          Host: a\r\n\r\n",
        ThenClosed(&[("GET", "/a", "")]),
    ),
    (
        "Connection: 'x, CLOSE'",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\nGET /b HTTP/1.1\r\n\
          Host: a\r\n\r\n",
        ThenClosed(&[("GET", "/a", "")]),
    ),
    (
        "HTTP/1.0 default close",
        b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        ThenClosed(&[("GET", "/a", "")]),
    ),
    (
        "HTTP/1.0 keep-alive",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        ThenClosed(&[("GET", "/a", ""), ("GET", "/b", "")]),
    ),
    (
        "Expect 100 + body",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
        Accepted(&[("POST", "/", "hi")]),
    ),
    (
        "Expect unknown",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: foo\r\n\r\nhi",
        Refused(Error::ExpectationUnknown),
    ),
    ("0x80 in value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\x80\r\n\r\n", Accepted(&[("GET", "/", "")])),
    ("0x80 in target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::RequestLine)),
    (
        "Upgrade: h2c kept as GET",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        Accepted(&[("GET", "/", "")]),
    ),
];

/// What follows the head of a chunked request.
const CHUNKED: [(&str, &str, Expected); 17] = [
    ("chunk 0x5", "0x5\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk +5", "+5\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk leading space", " 5\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk trailing space", "5 \r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk ext ok", "5;a=b\r\nhello\r\n0\r\n\r\n", Accepted(&[("POST", "/", "hello")])),
    ("chunk ext bare LF (TERM.EXT)", "5;a\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk ext with LF inside", "5;a\nxx\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk ext bare CR", "5;a\rX\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk size bare LF", "5\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk data bare LF end", "5\r\nhello\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk data overlong (SPILL)", "5\r\nhelloXX0\r\n\r\n", Refused(Error::Chunk)),
    ("last chunk bare LF", "0\n\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(Error::Chunk)),
    ("chunk size overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk size empty", "\r\nhello\r\n0\r\n\r\n", Refused(Error::Chunk)),
    ("chunk size leading zeros", "0005\r\nhello\r\n000\r\n\r\n", Accepted(&[("POST", "/", "hello")])),
    (
        "trailers ok",
        "0\r\nx-a: b\r\n\r\nGET /n HTTP/1.1\r\nHost: a\r\n\r\n",
        Accepted(&[("POST", "/", ""), ("GET", "/n", "")]),
    ),
    ("trailer content-length", "0\r\nContent-Length: 5\r\n\r\n", Refused(Error::TrailerForbidden)),
];
