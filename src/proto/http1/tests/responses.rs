//! Responses of origins, from plain to hostile.

use http::StatusCode;
use ringport_platform::buf::{PoolBuf, RxQueue};

use super::super::{BodyLen, ClientConn, ClientEvent, Error, Limits, RequestLine};
use super::tx_queue;

use Asked::{Connect, Get, Head, Upgrade};
use Expected::{Broken, Closes, Kept, Tunnels};

#[derive(Clone, Copy)]
enum Asked {
    Get,
    Head,
    Connect,
    Upgrade,
}

enum Expected {
    /// Status and body, and the connection can be used again.
    Kept(u16, &'static str),
    /// Status and body, and the connection cannot be used again.
    Closes(u16, &'static str),
    /// Status, and bytes of the tunnel.
    Tunnels(u16, &'static str),
    Broken(Error),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    informational: Vec<u16>,
    status: u16,
    body: String,
    trailers: usize,
    ended: bool,
    tunnel: bool,
    reusable: bool,
    error: Option<Error>,
}

/// Sends a request, feeds the response `step` bytes at a time, then the end of input if the response still runs.
fn receive(asked: Asked, bytes: &[u8], step: usize) -> Outcome {
    let mut conn = ClientConn::new(Limits::default());
    let (mut rx, mut tx) = (RxQueue::new(), tx_queue());
    let (method, target) = match asked {
        Get | Upgrade => ("GET", "/"),
        Head => ("HEAD", "/"),
        Connect => ("CONNECT", "a:443"),
    };
    let fields = matches!(asked, Upgrade).then_some(("upgrade", &b"websocket"[..]));
    let line = RequestLine { method, target, host: "a" };
    conn.send_request_head(line, fields, BodyLen::None, &mut tx).expect("a new connection takes a request");
    conn.finish(&mut tx).expect("no body is owed");
    let mut outcome = Outcome::default();
    for part in bytes.chunks(step) {
        rx.push(PoolBuf::copied(part));
        drain(&mut conn, &mut rx, &mut outcome);
        outcome.reusable = outcome.ended && conn.reusable(&rx);
    }
    if !outcome.ended && outcome.error.is_none() {
        conn.handle_eof();
        drain(&mut conn, &mut rx, &mut outcome);
    }
    outcome
}

fn drain(conn: &mut ClientConn, rx: &mut RxQueue, outcome: &mut Outcome) {
    loop {
        match conn.poll_event(rx) {
            Ok(ClientEvent::NeedInput | ClientEvent::Closed) => return,
            Ok(ClientEvent::Informational(head)) => outcome.informational.push(head.status().as_u16()),
            Ok(ClientEvent::Head(head, body)) => {
                outcome.status = head.status().as_u16();
                outcome.tunnel = body == BodyLen::Tunnel;
                assert_eq!(head.to_response().expect("http takes what we take").status(), head.status());
            }
            Ok(ClientEvent::Data(data) | ClientEvent::Tunnel(data)) => {
                outcome.body += std::str::from_utf8(&data).expect("bodies in tests are text");
            }
            Ok(ClientEvent::Trailers(trailers)) => outcome.trailers = trailers.iter().count(),
            Ok(ClientEvent::End) => outcome.ended = true,
            Err(error) => {
                outcome.error = Some(error);
                return;
            }
        }
    }
}

#[test]
fn responses_from_plain_to_hostile() {
    for (asked, bytes, expected) in CASES {
        let whole = receive(asked, bytes.as_bytes(), usize::MAX);
        let by_byte = receive(asked, bytes.as_bytes(), 1);
        // What follows a response is seen with it, or only after it was taken for whole.
        if whole.error != Some(Error::UnexpectedBytes) {
            assert_eq!(whole, by_byte, "{bytes:?}: whole or in single bytes");
        }
        let seen = (whole.error, whole.status, whole.body.as_str());
        match expected {
            Kept(status, body) => {
                assert_eq!(seen, (None, status, body), "{bytes:?}");
                assert!(whole.ended && whole.reusable && !whole.tunnel, "{bytes:?}: {whole:?}");
            }
            Closes(status, body) => {
                assert_eq!(seen, (None, status, body), "{bytes:?}");
                assert!(whole.ended && !whole.reusable && !whole.tunnel, "{bytes:?}: {whole:?}");
            }
            Tunnels(status, body) => {
                assert_eq!(seen, (None, status, body), "{bytes:?}");
                assert!(whole.tunnel && !whole.ended && !whole.reusable, "{bytes:?}: {whole:?}");
            }
            Broken(error) => assert_eq!(whole.error, Some(error), "{bytes:?}"),
        }
    }
}

const CASES: [(Asked, &str, Expected); 62] = [
    // Delimited in each way that there is.
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Kept(200, "hi")),
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Kept(200, "")),
    (Get, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Kept(200, "")),
    (Get, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Kept(200, "")),
    (Get, "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", Kept(999, "")),
    (Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Kept(200, "hi")),
    (
        Get,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n2;a=b\r\nhi\r\n0\r\nx: y\r\n\r\n",
        Kept(200, "hi"),
    ),
    (Get, "HTTP/1.1 200 OK\r\n\r\nall of it", Closes(200, "all of it")),
    (Get, "HTTP/1.1 200 OK\r\n\r\n", Closes(200, "")),
    (Get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", Closes(200, "hi")),
    (Get, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", Closes(200, "hi")),
    (Get, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", Kept(200, "hi")),
    (Get, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhi", Closes(200, "hi")),
    // Without body whatever the fields say.
    (Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Kept(200, "")),
    (Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Kept(200, "")),
    (Head, "HTTP/1.1 200 OK\r\n\r\n", Kept(200, "")),
    (Get, "HTTP/1.1 204 No Content\r\n\r\n", Kept(204, "")),
    (Get, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Kept(204, "")),
    (Get, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Closes(204, "")),
    (Get, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Closes(204, "")),
    (Get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Kept(304, "")),
    (Get, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Kept(304, "")),
    // Before the final one.
    (Get, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Kept(200, "")),
    (
        Get,
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Kept(200, ""),
    ),
    (Get, "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc", Broken(Error::BodyNotAllowed)),
    (Get, "HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\n\r\n", Broken(Error::BodyNotAllowed)),
    // Tunnels.
    (Connect, "HTTP/1.1 200 OK\r\n\r\nraw", Tunnels(200, "raw")),
    (Connect, "HTTP/1.1 204 OK\r\nContent-Length: 7\r\n\r\nraw", Tunnels(204, "raw")),
    (Connect, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", Closes(403, "no")),
    (Upgrade, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw", Tunnels(101, "raw")),
    (Upgrade, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Kept(200, "hi")),
    (Upgrade, "HTTP/1.1 101 Go\r\n\r\nraw", Broken(Error::UnexpectedUpgrade)),
    (Get, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Broken(Error::UnexpectedUpgrade)),
    // Framed in two ways, or in none.
    (
        Get,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        Broken(Error::LengthAndChunked),
    ),
    (
        Get,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        Broken(Error::LengthAndChunked),
    ),
    (
        Get,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        Broken(Error::ContentLength),
    ),
    (
        Get,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        Broken(Error::ContentLength),
    ),
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi", Broken(Error::ContentLength)),
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", Broken(Error::ContentLength)),
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi", Broken(Error::ContentLength)),
    (
        Get,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        Broken(Error::TransferCodingUnknown),
    ),
    (Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Broken(Error::TransferEncoding)),
    (Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Broken(Error::TransferCodingUnknown)),
    (
        Get,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        Broken(Error::TransferEncoding),
    ),
    (Get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Broken(Error::TransferEncoding)),
    // Broken lines.
    (Get, "\r\nHTTP/1.1 200 OK\r\n\r\n", Broken(Error::StatusLine)),
    (Get, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", Broken(Error::BareLineEnd)),
    (Get, "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", Broken(Error::BareLineEnd)),
    (Get, "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Broken(Error::Field)),
    (Get, "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", Broken(Error::Field)),
    (Get, "HTTP/1.1 20 OK\r\n\r\n", Broken(Error::StatusLine)),
    (Get, "HTTP/1.1 2000 OK\r\n\r\n", Broken(Error::StatusLine)),
    (Get, "HTTP/1.1 099 No\r\n\r\n", Broken(Error::StatusLine)),
    (Get, "HTTP/2.0 200 OK\r\n\r\n", Broken(Error::Version)),
    (Get, "SSH-2.0-OpenSSH\r\n\r\n", Broken(Error::StatusLine)),
    // Cut off, or too long.
    (Get, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", Broken(Error::Incomplete)),
    (Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", Broken(Error::Incomplete)),
    (Get, "HTTP/1.1 200 OK\r\nContent-", Broken(Error::Incomplete)),
    (Get, "", Broken(Error::Incomplete)),
    (Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhiX", Broken(Error::Chunk)),
    (
        Get,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
        Broken(Error::TrailerForbidden),
    ),
    (
        Get,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n",
        Broken(Error::UnexpectedBytes),
    ),
];

#[test]
fn informational_responses_are_counted() {
    let limit = usize::from(Limits::default().informational_count);
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let within = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(limit) + last;
    assert_eq!(receive(Get, within.as_bytes(), 1).informational, vec![103; limit]);
    let beyond = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(limit + 1) + last;
    assert_eq!(receive(Get, beyond.as_bytes(), 1).error, Some(Error::TooManyInformational));
}

#[test]
fn an_early_response_ends_reuse() {
    let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    let line = RequestLine { method: "POST", target: "/", host: "a" };
    conn.send_request_head(line, [], BodyLen::Length(10), &mut tx).expect("a new connection takes a request");
    conn.send_data(&b"12345"[..], &mut tx).expect("ten bytes are announced");
    let mut rx = super::rx_queue(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
    let event = conn.poll_event(&mut rx);
    let Ok(ClientEvent::Head(head, BodyLen::None)) = event else { panic!("{event:?}") };
    assert_eq!(head.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::End)));
    assert!(!conn.reusable(&rx) && conn.wants_close());
    conn.send_data(&b"67890"[..], &mut tx).expect("the rest may still be sent");
    conn.finish(&mut tx).expect("all is sent");
    assert!(!conn.reusable(&rx) && conn.wants_close());
}
