//! What a peer can make us do: the work for a head or a body grows with its length, however it is split.

use std::collections::HashSet;

use http::StatusCode;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};
use ringport_platform::buf::{PoolBuf, RxQueue};

use super::super::{BodyLen, ClientConn, ClientEvent, Error, Limits, RequestLine, ServerConn, ServerEvent};
use super::tx_queue;

/// Feeds single bytes, each a view of its own as from a busy core, and counts the bytes that are copied.
fn copied_bytes(bytes: &[u8], mut poll: impl FnMut(&mut RxQueue)) -> usize {
    let mut rx = RxQueue::new();
    let (mut known, mut copied) = (HashSet::new(), 0);
    for byte in bytes {
        rx.push(PoolBuf::copied(&[*byte]));
        known.extend(rx.parts().last().map(<[u8]>::as_ptr));
        poll(&mut rx);
        copied += rx.parts().filter(|part| !known.contains(&part.as_ptr())).map(<[u8]>::len).sum::<usize>();
        known = rx.parts().map(<[u8]>::as_ptr).collect();
    }
    copied
}

fn long_head(start: &str) -> Vec<u8> {
    let fields: String = (0..60).map(|at| format!("x-{at:02}: {}\r\n", "v".repeat(1000))).collect();
    format!("{start}{fields}\r\n").into_bytes()
}

/// Heads that came byte by byte were once gathered every 16 bytes: 60 KiB cost 120 MiB of copying.
#[test]
fn a_head_that_comes_byte_by_byte_is_copied_a_few_times() {
    let limits = Limits { head_bytes: 65_535, trailer_bytes: 65_535, ..Limits::default() };
    let request = long_head("GET / HTTP/1.1\r\nHost: a\r\n");
    let mut server = ServerConn::new(limits);
    let mut heads = 0;
    let copied = copied_bytes(&request, |rx| {
        let event = server.poll_event(rx).expect("a good request");
        heads += usize::from(matches!(event, ServerEvent::Head(..)));
    });
    assert_eq!(heads, 1);
    assert!(copied < 20 * request.len(), "{copied} bytes copied for {}", request.len());

    let mut client = ClientConn::new(limits);
    let (line, mut tx) = (RequestLine { method: "GET", target: "/", host: "a" }, tx_queue());
    client.send_request_head(line, [], BodyLen::None, &mut tx).expect("a new connection");
    client.finish(&mut tx).expect("no body");
    let response = long_head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n");
    let copied = copied_bytes(&response, |rx| {
        client.poll_event(rx).expect("a good response");
    });
    assert!(copied < 20 * response.len(), "{copied} bytes copied for {}", response.len());

    let mut server = ServerConn::new(limits);
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let trailers = long_head(start);
    let copied = copied_bytes(&trailers, |rx| while !waits(&mut server, rx) {});
    assert!(copied < 20 * trailers.len(), "{copied} bytes copied for {}", trailers.len());
}

fn waits(server: &mut ServerConn, rx: &mut RxQueue) -> bool {
    let event = server.poll_event(rx).expect("a good request");
    matches!(event, ServerEvent::NeedInput | ServerEvent::Paused)
}

/// A head that is never ended holds its limit and no more, in few views.
#[test]
fn an_endless_head_is_refused_at_its_limit() {
    for (start, error) in [
        ("", Error::RequestLineTooLong),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: ", Error::HeadTooLarge),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ", Error::TrailersTooLarge),
    ] {
        let (mut server, mut rx) = (ServerConn::new(Limits::default()), RxQueue::new());
        let bytes = start.bytes().chain(std::iter::repeat(b'a'));
        let mut count = 0;
        let found = 'refused: {
            for byte in bytes.take(100_000) {
                rx.push(PoolBuf::copied(&[byte]));
                count += 1;
                loop {
                    match server.poll_event(&mut rx) {
                        Ok(ServerEvent::NeedInput) => break,
                        Ok(_) => {}
                        Err(error) => break 'refused Some(error),
                    }
                }
                assert!(rx.parts().count() <= 40, "many views wait");
            }
            None
        };
        assert_eq!(found, Some(error));
        assert!(count <= 33 * 1024, "{count} bytes were taken");
    }
}

/// Many tiny chunks are a lot of framing for little data, but each costs the same.
#[test]
fn a_flood_of_tiny_chunks_gives_every_byte() {
    let (mut server, mut rx) = (ServerConn::new(Limits::default()), RxQueue::new());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    rx.push(PoolBuf::copied(head));
    rx.push(PoolBuf::copied(&b"1\r\nx\r\n".repeat(10_000)));
    rx.push(PoolBuf::copied(b"0\r\n\r\n"));
    let mut len = 0;
    loop {
        match server.poll_event(&mut rx).expect("a good request") {
            ServerEvent::Data(data) => len += data.len(),
            ServerEvent::End => break,
            ServerEvent::Head(..) => {}
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(len, 10_000);
}

/// Tiny chunks once went out as three segments each, 64 of which are a system call's limit.
#[test]
fn tiny_chunks_are_sent_in_few_segments() {
    let (mut client, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    let line = RequestLine { method: "POST", target: "/", host: "a" };
    client.send_request_head(line, [], BodyLen::Chunked, &mut tx).expect("a new connection");
    for byte in 0..10_000u32 {
        client.send_data(vec![byte as u8], &mut tx).expect("chunked");
    }
    // A longer one is passed on from where it lies.
    let long = vec![0; 1000];
    let lies_at = long.as_ptr();
    client.send_data(long, &mut tx).expect("chunked");
    client.finish(&mut tx).expect("chunked");
    assert_eq!(tx.slices().count(), 3);
    assert_eq!(tx.slices().nth(1).map(<[u8]>::as_ptr), Some(lies_at));
    let mut data = Vec::new();
    let (mut server, mut rx) = (ServerConn::new(Limits::default()), RxQueue::new());
    rx.push(PoolBuf::copied(&tx.slices().flatten().copied().collect::<Vec<_>>()));
    while let Ok(event @ (ServerEvent::Head(..) | ServerEvent::Data(_))) = server.poll_event(&mut rx) {
        if let ServerEvent::Data(part) = event {
            data.extend_from_slice(&part);
        }
    }
    assert!(data[..10_000].iter().copied().eq((0..10_000u32).map(|byte| byte as u8)) && data.len() == 11_000);
}

/// Reads nothing ahead of the answer: the first request's response comes before the second request is looked at.
#[test]
fn a_flood_of_pipelined_requests_waits_in_the_queue() {
    let (mut server, mut rx, mut tx) = (ServerConn::new(Limits::default()), RxQueue::new(), tx_queue());
    let one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    rx.push(PoolBuf::copied(&one.repeat(1000)));
    for answered in 1..=1000 {
        assert!(matches!(server.poll_event(&mut rx), Ok(ServerEvent::Head(..))));
        assert!(matches!(server.poll_event(&mut rx), Ok(ServerEvent::End)));
        assert!(matches!(server.poll_event(&mut rx), Ok(ServerEvent::Paused)));
        assert_eq!(rx.len(), (1000 - answered) * one.len());
        server.send_head(StatusCode::NO_CONTENT, [], BodyLen::None, &mut tx).expect("a response is due");
        server.finish(&mut tx).expect("no body");
    }
}

/// Everything that a server says about `bytes`, fed in parts of these lengths in turn; data is joined.
fn server_log(bytes: &[u8], splits: &[usize]) -> (Vec<String>, Vec<u8>) {
    let (mut server, mut rx, mut tx) = (ServerConn::new(Limits::default()), RxQueue::new(), tx_queue());
    let (mut log, mut data) = (Vec::new(), Vec::new());
    for part in split(bytes, splits) {
        rx.push(PoolBuf::copied(part));
        loop {
            match server.poll_event(&mut rx) {
                Ok(ServerEvent::NeedInput | ServerEvent::Paused | ServerEvent::Closed) => break,
                Ok(ServerEvent::Head(head, body)) => {
                    let fields: Vec<_> =
                        head.iter().map(|(name, value)| format!("{name}{value:?}")).collect();
                    let said = (head.path(), head.query(), head.authority(), head.origin_target());
                    log.push(format!("{head:?} {body:?} {said:?} {fields:?} {:?}", head.upgrade()));
                    // May refuse, may not panic.
                    let _ = head.to_request();
                }
                Ok(ServerEvent::Trailers(fields)) => log.push(format!("{:?}", fields.to_map())),
                Ok(ServerEvent::Data(part) | ServerEvent::Tunnel(part)) => data.extend_from_slice(&part),
                Ok(ServerEvent::End) => {
                    log.push("end".into());
                    server.send_head(StatusCode::OK, [], BodyLen::None, &mut tx).expect("a response is due");
                    server.finish(&mut tx).expect("no body");
                }
                Err(error) => {
                    log.push(error.reason().into());
                    // The same again, for ever.
                    assert_eq!(server.poll_event(&mut rx).err(), Some(error));
                    return (log, data);
                }
            }
        }
    }
    (log, data)
}

/// The same for a client, up to the end of the first final response.
fn client_log(method: &str, bytes: &[u8], splits: &[usize]) -> (Vec<String>, Vec<u8>) {
    let (mut client, mut rx, mut tx) = (ClientConn::new(Limits::default()), RxQueue::new(), tx_queue());
    let target = if method == "CONNECT" { "a:1" } else { "/" };
    let body = if method == "CONNECT" { BodyLen::Tunnel } else { BodyLen::None };
    let upgrade = (method == "GET").then_some(("upgrade", &b"x"[..]));
    client
        .send_request_head(RequestLine { method, target, host: "a" }, upgrade, body, &mut tx)
        .expect("a new connection");
    client.finish(&mut tx).expect("no body");
    let (mut log, mut data) = (Vec::new(), Vec::new());
    for part in split(bytes, splits) {
        rx.push(PoolBuf::copied(part));
        loop {
            match client.poll_event(&mut rx) {
                Ok(ClientEvent::NeedInput | ClientEvent::Closed) => break,
                Ok(ClientEvent::Informational(head)) => log.push(format!("{head:?}")),
                Ok(ClientEvent::Head(head, body)) => {
                    let _ = head.to_response();
                    log.push(format!("{head:?} {body:?}"));
                }
                Ok(ClientEvent::Trailers(fields)) => log.push(format!("{:?}", fields.to_map())),
                Ok(ClientEvent::Data(part) | ClientEvent::Tunnel(part)) => data.extend_from_slice(&part),
                Ok(ClientEvent::End) => {
                    log.push("end".into());
                    return (log, data);
                }
                Err(error) => {
                    log.push(error.reason().into());
                    return (log, data);
                }
            }
        }
    }
    (log, data)
}

fn split<'a>(mut bytes: &'a [u8], splits: &[usize]) -> Vec<&'a [u8]> {
    let (mut parts, mut lens) = (Vec::new(), splits.iter().cycle());
    while !bytes.is_empty() {
        let len = lens.next().map_or(bytes.len(), |&len| len.clamp(1, bytes.len()));
        let (part, rest) = bytes.split_at(len);
        parts.push(part);
        bytes = rest;
    }
    parts
}

const REQUESTS: &[u8] = b"POST /a?b HTTP/1.1\r\nHost: a.example:80\r\nTransfer-Encoding: chunked\r\n\
    Connection: x, te\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nT: u\r\n\r\n\
    GET http://b/c HTTP/1.1\r\nHost: b\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\
    PUT / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc\
    CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nbytes";

const RESPONSES: [&[u8]; 4] = [
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
      3\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes",
    b"HTTP/1.0 200\r\nContent-Length: 12\r\n\r\nhello, world",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
];

/// Writes these bytes over `whole` at these places.
fn damage(whole: &[u8], hits: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (at, byte) in hits {
        let at = at.index(bytes.len());
        match byte {
            // One in eight takes a byte away or adds one, which moves all that follows.
            0..16 => drop(bytes.remove(at)),
            16..32 => bytes.insert(at, b'\n'),
            byte => bytes[at] = *byte,
        }
    }
    bytes
}

/// Only the first part was once looked at: what came byte by byte from another protocol was read up to its line end.
#[test]
fn another_protocol_is_refused_at_once_however_split() {
    for noise in [&b"HTT /1.1 200 OK\n\r\n"[..], b"HTTX", b"HELO"] {
        let expected = (vec![Error::StatusLine.reason().to_owned()], Vec::new());
        for splits in [&[][..], &[1], &[3]] {
            assert_eq!(client_log("GET", noise, splits), expected, "{noise:?} {splits:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_read_the_same_however_split(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        splits in prop::collection::vec(1..200usize, 1..8),
    ) {
        prop_assert_eq!(server_log(&bytes, &[]), server_log(&bytes, &splits));
        prop_assert_eq!(client_log("GET", &bytes, &[]), client_log("GET", &bytes, &splits));
    }

    #[test]
    fn damaged_messages_are_read_the_same_however_split(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        splits in prop::collection::vec(1..40usize, 1..8),
        which in 0..RESPONSES.len(),
    ) {
        let requests = damage(REQUESTS, &hits);
        prop_assert_eq!(server_log(&requests, &[]), server_log(&requests, &splits));
        let response = damage(RESPONSES[which], &hits);
        for method in ["GET", "HEAD", "CONNECT"] {
            prop_assert_eq!(client_log(method, &response, &[]), client_log(method, &response, &splits));
        }
    }
}
