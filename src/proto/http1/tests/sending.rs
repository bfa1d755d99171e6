//! What the machines write, what they refuse to write, and how one exchange follows another.

use http::StatusCode;
use ringport_platform::buf::{PoolBuf, RxQueue, TxQueue};

use super::super::{
    Authority, BodyLen, ClientConn, ClientEvent, Error, FieldWriter, ForwardedHost, Limits, RemainingBody,
    RequestHead, RequestLine, SendError, ServerConn, ServerEvent,
};
use super::{rx_queue, sent_text, tx_queue};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";

/// A server that has read the head in `bytes`.
fn asked(bytes: &str) -> (ServerConn, RxQueue, TxQueue, RequestHead) {
    let (mut conn, mut rx) = (ServerConn::new(Limits::default()), rx_queue(bytes.as_bytes()));
    match conn.poll_event(&mut rx) {
        Ok(ServerEvent::Head(head, _)) => (conn, rx, tx_queue(), head),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_head(request: &str, status: u16, body: BodyLen, expected: Result<&str, SendError>) {
    let (mut conn, _, mut tx, _) = asked(request);
    let status = StatusCode::from_u16(status).expect("a status");
    let result = conn.send_head(status, [], body, &mut tx).map(|()| sent_text(&tx));
    assert_eq!(result.as_deref().map_err(|&error| error), expected, "{request:?} {status} {body:?}");
    assert!(result.is_ok() || tx.is_empty());
}

#[test]
fn response_heads() {
    use BodyLen::{Chunked, Length, None, Tunnel, UntilClose};
    let head = GET.replace("GET", "HEAD");
    let old = "GET / HTTP/1.0\r\n\r\n";
    let old_kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\n";
    let with = |fields: &str| format!("{ok}{fields}\r\n");
    let zero = with("content-length: 0\r\n");
    let five = with("content-length: 5\r\n");
    let chunked = with("transfer-encoding: chunked\r\n");
    let close = with("connection: close\r\n");
    let five_close = with("content-length: 5\r\nconnection: close\r\n");
    let five_kept = with("content-length: 5\r\nconnection: keep-alive\r\n");
    let bare = with("");
    let rows: [(&str, u16, BodyLen, Result<&str, SendError>); 24] = [
        (GET, 200, None, Ok(&zero)),
        (GET, 200, Length(5), Ok(&five)),
        (GET, 200, Chunked, Ok(&chunked)),
        (GET, 200, UntilClose, Ok(&close)),
        (GET, 200, Tunnel, Err(SendError::NotUpgradable)),
        (GET, 100, None, Err(SendError::Status)),
        (GET, 101, Tunnel, Err(SendError::NotUpgradable)),
        (GET, 204, None, Ok("HTTP/1.1 204 No Content\r\n\r\n")),
        (GET, 204, Length(5), Err(SendError::BodyLen)),
        (GET, 204, Chunked, Err(SendError::BodyLen)),
        (GET, 304, Length(5), Ok("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n")),
        (GET, 304, None, Ok("HTTP/1.1 304 Not Modified\r\n\r\n")),
        (&head, 200, Length(5), Ok(&five)),
        (&head, 200, Chunked, Ok(&chunked)),
        (&head, 200, None, Ok(&bare)),
        (old, 200, Length(5), Ok(&five_close)),
        (old, 200, Chunked, Ok(&close)),
        (old_kept, 200, Length(5), Ok(&five_kept)),
        (old_kept, 200, Chunked, Ok(&close)),
        (connect, 200, Tunnel, Ok(&bare)),
        (connect, 200, None, Err(SendError::BodyLen)),
        (connect, 403, None, Ok("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")),
        (connect, 403, Tunnel, Err(SendError::NotUpgradable)),
        (upgrade, 101, Tunnel, Ok("HTTP/1.1 101 Switching Protocols\r\n\r\n")),
    ];
    for (request, status, body, expected) in rows {
        check_head(request, status, body, expected);
    }
}

#[test]
fn fields_cannot_break_the_head() {
    for (name, value, error) in [
        ("x", &b"a\r\nb: c"[..], SendError::Value),
        ("x", b"a\nb", SendError::Value),
        ("x", b"a\0b", SendError::Value),
        ("x:", b"a", SendError::Name),
        ("", b"a", SendError::Name),
        ("x y", b"a", SendError::Name),
    ] {
        let (mut conn, _, mut tx, _) = asked(GET);
        assert_eq!(conn.send_head(StatusCode::OK, [(name, value)], BodyLen::None, &mut tx), Err(error));
        assert!(tx.is_empty() && conn.can_respond());
    }
    let (method, target, host) = ("GET", "/", "a");
    for line in [
        RequestLine { method: "G T", target, host },
        RequestLine { method: "", target, host },
        RequestLine { method, target: "/ HTTP/1.1\r\nx: y", host },
        RequestLine { method, target: "", host },
        RequestLine { method, target, host: "a\r\nx: y" },
        RequestLine { method, target, host: "" },
    ] {
        let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
        assert_eq!(conn.send_request_head(line, [], BodyLen::None, &mut tx), Err(SendError::Name));
        assert!(tx.is_empty());
    }
}

#[test]
fn framing_fields_are_ours() {
    let given: [(&str, &[u8]); 6] = [
        ("Content-Length", b"9"),
        ("TRANSFER-ENCODING", b"gzip"),
        ("connection", b"x"),
        ("Host", b"evil"),
        ("Upgrade", b"websocket"),
        ("x", b"y"),
    ];
    let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    let line = RequestLine { method: "GET", target: "/p?q", host: "a:80" };
    conn.send_request_head(line, given, BodyLen::None, &mut tx).expect("valid");
    let expected =
        "GET /p?q HTTP/1.1\r\nhost: a:80\r\nUpgrade: websocket\r\nx: y\r\nconnection: upgrade\r\n\r\n";
    assert_eq!(sent_text(&tx), expected);
    let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    assert_eq!(conn.send_request_head(line, given, BodyLen::Length(3), &mut tx), Err(SendError::BodyLen));
}

#[test]
fn a_body_keeps_its_promise() {
    let (mut conn, _, mut tx, _) = asked(GET);
    assert_eq!(conn.send_data(&b"x"[..], &mut tx), Err(SendError::State));
    assert_eq!(conn.finish(&mut tx), Err(SendError::State));
    conn.send_head(StatusCode::OK, [], BodyLen::Length(3), &mut tx).expect("a request waits");
    assert_eq!(conn.send_data(&b"1234"[..], &mut tx), Err(SendError::BodyTooLong { allowed: 3 }));
    conn.send_data(&b"12"[..], &mut tx).expect("fits");
    assert_eq!(conn.send_trailers([], &mut tx), Err(SendError::TrailersNotAllowed));
    assert_eq!(conn.finish(&mut tx), Err(SendError::BodyTooShort { missing: 1 }));
    conn.send_data(&b"3"[..], &mut tx).expect("fits");
    conn.finish(&mut tx).expect("complete");
    assert!(conn.wants_close(), "a body that fell short once was reported as lost");
    assert_eq!(conn.send_data(&b""[..], &mut tx), Err(SendError::State));
}

#[test]
fn chunks_and_trailers() {
    let (mut conn, mut rx, mut tx, _) = asked(GET);
    conn.send_head(StatusCode::OK, [], BodyLen::Chunked, &mut tx).expect("a request waits");
    let head_len = tx.len();
    conn.send_data(&b""[..], &mut tx).expect("nothing, and not the last chunk");
    conn.send_data(vec![b'x'; 26], &mut tx).expect("any length");
    assert_eq!(conn.send_trailers([("content-length", &b"1"[..])], &mut tx), Err(SendError::Name));
    conn.send_trailers([("grpc-status", &b"0"[..])], &mut tx).expect("valid");
    let expected = format!("1a\r\n{}\r\n0\r\ngrpc-status: 0\r\n\r\n", "x".repeat(26));
    assert_eq!(sent_text(&tx)[head_len..], expected);
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End)));
    assert!(conn.can_read_next() && !conn.wants_close());
}

/// A response at once is the same bytes as one in pieces.
#[test]
fn a_response_at_hand_is_sent_at_once() {
    let long = vec![b'x'; 1000];
    let head = GET.replace("GET", "HEAD");
    for (request, status, body) in [
        (GET, 200, &b"hello"[..]),
        (GET, 200, b""),
        (GET, 200, &long),
        (GET, 204, b""),
        (GET, 304, b"hello"),
        (&head, 200, b"hello"),
        ("GET / HTTP/1.0\r\n\r\n", 404, b"hello"),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let fields = |out: &mut FieldWriter<'_>| out.put("x", b"y");
        let (mut conn, mut rx, mut tx, _) = asked(request);
        conn.send_response_with(status, body.to_vec(), &mut tx, fields).expect("a request waits");
        assert_eq!(tx.slices().count(), if body.len() > 256 { 2 } else { 1 });
        assert_eq!(
            conn.send_response_with(status, body.to_vec(), &mut tx, fields),
            Err(SendError::State),
            "{request}"
        );
        let (mut other, _, mut expected, _) = asked(request);
        other
            .send_head_with(status, BodyLen::Length(body.len() as u64), &mut expected, fields)
            .expect("a request waits");
        if request != head && status != StatusCode::NOT_MODIFIED {
            other.send_data(body.to_vec(), &mut expected).expect("announced");
        }
        other.finish(&mut expected).expect("complete");
        assert_eq!(sent_text(&tx), sent_text(&expected));
        assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End)));
        assert_eq!(conn.can_read_next(), !request.contains("HTTP/1.0"));
    }
    let (mut conn, _, mut tx, _) = asked(GET);
    let refused = conn.send_response_with(StatusCode::NO_CONTENT, &b"hello"[..], &mut tx, |_| Ok(()));
    assert_eq!((refused, tx.len()), (Err(SendError::BodyLen), 0));
}

#[test]
fn a_body_that_came_with_its_head_is_taken_whole() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (parts, whole) in [
        (&[head, "abc"].concat()[..], true),
        (&[head, "ab"].concat(), false),
        (chunked, false),
        ("HTTP/1.1 200 OK\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
        let line = RequestLine { method: "GET", target: "/", host: "a" };
        conn.send_request_head(line, [], BodyLen::None, &mut tx).expect("a new connection");
        conn.finish(&mut tx).expect("no body");
        let mut rx = rx_queue(parts.as_bytes());
        assert!(conn.take_body(&mut rx).is_none(), "nothing has been read");
        assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Head(..))));
        let body = conn.take_body(&mut rx);
        assert_eq!(body.as_deref(), whole.then_some(&b"abc"[..]), "{parts}");
        assert!(!whole || (conn.reusable(&rx) && conn.take_body(&mut rx).is_none()));
    }
    // What is left of a body is no whole one.
    let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    let line = RequestLine { method: "GET", target: "/", host: "a" };
    conn.send_request_head(line, [], BodyLen::None, &mut tx).expect("a new connection");
    let mut rx = rx_queue([head, "ab"].concat().as_bytes());
    assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Head(..))));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Data(_))));
    rx.push(PoolBuf::copied(b"c"));
    assert!(conn.take_body(&mut rx).is_none());
    assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Data(_))));
}

/// Who asks behind each event is told the end as soon as it is known, and then not again.
#[test]
fn an_end_that_is_known_is_taken_with_what_comes_before() {
    for (request, at_head, at_data) in [
        (GET, true, false),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", false, true),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabc", false, false),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, false),
    ] {
        let (mut conn, mut rx, ..) = asked(request);
        assert_eq!(conn.take_end(), at_head, "{request}");
        if !at_head {
            assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Data(_))));
            assert_eq!(conn.take_end(), at_data, "{request}");
        }
        let event = conn.poll_event(&mut rx).expect("a good request");
        let ended = at_head || at_data;
        assert_eq!(matches!(event, ServerEvent::Paused), ended, "{request}: {event:?}");
        assert!(!conn.take_end());
    }
    for (response, at_head, at_data) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", true, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, true),
        ("HTTP/1.1 200 OK\r\n\r\nabc", false, false),
    ] {
        let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
        let line = RequestLine { method: "GET", target: "/", host: "a" };
        conn.send_request_head(line, [], BodyLen::None, &mut tx).expect("a new connection");
        conn.finish(&mut tx).expect("no body");
        let mut rx = rx_queue(response.as_bytes());
        assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Head(..))));
        assert_eq!(conn.take_end(), at_head, "{response}");
        if !at_head {
            assert!(matches!(conn.poll_event(&mut rx), Ok(ClientEvent::Data(_))));
            assert_eq!(conn.take_end(), at_data, "{response}");
        }
        assert_eq!(conn.reusable(&rx), at_head || at_data, "{response}");
    }
}

#[test]
fn informational_responses_come_first() {
    let (mut conn, mut rx, mut tx, _) =
        asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    conn.send_informational(StatusCode::EARLY_HINTS, [("link", &b"</a>"[..])], &mut tx).expect("1xx");
    let switching = conn.send_informational(StatusCode::SWITCHING_PROTOCOLS, [], &mut tx);
    assert_eq!(switching, Err(SendError::Status));
    conn.send_continue(&mut tx).expect("before the head");
    conn.send_continue(&mut tx).expect("said once");
    let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(sent_text(&tx), expected);
    conn.send_head(StatusCode::OK, [], BodyLen::None, &mut tx).expect("a request waits");
    assert_eq!(conn.send_continue(&mut tx), Err(SendError::State));
    conn.finish(&mut tx).expect("no body");
    assert!(!conn.wants_close(), "the client was told to send, so its body will come");
    rx.push(PoolBuf::copied(b"body"));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Data(_))));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End)));
    assert!(conn.can_read_next());
}

#[test]
fn a_final_response_instead_of_100_closes() {
    let (mut conn, _, mut tx, head) =
        asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert!(head.expects_continue());
    conn.send_head(StatusCode::FORBIDDEN, [], BodyLen::None, &mut tx).expect("a request waits");
    conn.finish(&mut tx).expect("no body");
    assert!(sent_text(&tx).contains("connection: close") && conn.wants_close());
    assert_eq!(conn.remaining_body(), RemainingBody::Known(4));
}

#[test]
fn an_early_response_leaves_the_body_to_drain() {
    let (mut conn, mut rx, mut tx, _) = asked(&(POST.to_owned() + "ab"));
    conn.send_head(StatusCode::OK, [], BodyLen::None, &mut tx).expect("a request waits");
    conn.finish(&mut tx).expect("no body");
    assert_eq!(conn.remaining_body(), RemainingBody::Known(4));
    assert!(!conn.wants_close() && !conn.can_read_next());
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Data(data)) if &*data == b"ab"));
    assert_eq!(conn.remaining_body(), RemainingBody::Known(2));
    rx.push(PoolBuf::copied(format!("cd{GET}").as_bytes()));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Data(data)) if &*data == b"cd"));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End)));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Head(..))));
}

#[test]
fn pipelined_requests_wait() {
    let (mut conn, mut rx, mut tx, _) = asked(&GET.repeat(2));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End)));
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Paused)));
    assert_eq!(rx.len(), GET.len());
    conn.handle_eof();
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Paused)));
    for _ in 0..2 {
        conn.send_head(StatusCode::OK, [], BodyLen::None, &mut tx).expect("a request waits");
        conn.finish(&mut tx).expect("no body");
        while !matches!(conn.poll_event(&mut rx), Ok(ServerEvent::End | ServerEvent::Closed)) {}
    }
    assert!(conn.wants_close());
}

#[test]
fn faults_are_answered_once() {
    let (mut conn, mut rx) = (ServerConn::new(Limits::default()), rx_queue(b"GET foo HTTP/1.1\r\n\r\n"));
    let mut tx = tx_queue();
    assert!(!conn.can_respond());
    for _ in 0..2 {
        assert!(matches!(conn.poll_event(&mut rx), Err(Error::Target)));
    }
    assert!(conn.can_respond() && !conn.wants_close());
    conn.send_head(Error::Target.status(), [], BodyLen::None, &mut tx).expect("a fault is answered");
    conn.finish(&mut tx).expect("no body");
    assert!(conn.wants_close() && !conn.can_respond());
    let expected = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(sent_text(&tx), expected);
}

#[test]
fn the_end_of_input_is_clean_between_requests_only() {
    let rows: [(&str, Result<(), Error>); 4] =
        [("", Ok(())), (GET, Ok(())), ("GET /", Err(Error::Incomplete)), (POST, Err(Error::Incomplete))];
    for (bytes, expected) in rows {
        let (mut conn, mut rx, mut tx) =
            (ServerConn::new(Limits::default()), rx_queue(bytes.as_bytes()), tx_queue());
        conn.handle_eof();
        let ended = loop {
            match conn.poll_event(&mut rx) {
                Ok(ServerEvent::Closed) => break Ok(()),
                Ok(ServerEvent::Paused) => {
                    conn.send_head(StatusCode::OK, [], BodyLen::None, &mut tx).expect("a request waits");
                    conn.finish(&mut tx).expect("no body");
                }
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        assert_eq!(ended, expected, "{bytes:?}");
    }
}

#[test]
fn forwardable_fields_leave_this_hop_out() {
    let (_, _, _, head) = asked(
        "GET http://b/p?q HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, close\r\nx-hop: 1\r\nKeep-Alive: 5\r\n\
         TE: gzip, Trailers\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nAccept: */*\r\n\
         Trailer: t\r\nTransfer-Encoding: chunked\r\nEmpty:\r\n\r\n",
    );
    let fields: Vec<_> = head.forwardable_fields().collect();
    let expected: [(&str, &[u8]); 4] =
        [("te", b"trailers"), ("Accept", b"*/*"), ("Trailer", b"t"), ("Empty", b"")];
    assert_eq!(fields, expected);
    assert_eq!((head.authority(), head.path(), head.query()), (Some("b"), "/p", Some("q")));
    assert!(head.says_close() && head.is_chunked() && head.upgrade().is_none() && head.accepts_trailers());
    assert_eq!(head.get("ACCEPT"), Some(&b"*/*"[..]));
}

#[test]
fn limits_at_their_edge() {
    let check = |limits: Limits, bytes: &str, expected: Option<Error>| {
        let (mut conn, mut rx) = (ServerConn::new(limits), rx_queue(bytes.as_bytes()));
        let error = loop {
            match conn.poll_event(&mut rx) {
                Ok(ServerEvent::NeedInput | ServerEvent::Paused) => break None,
                Ok(_) => {}
                Err(error) => break Some(error),
            }
        };
        assert_eq!(error, expected, "{bytes:?} {limits:?}");
    };
    let default = Limits::default();
    let line_len = "GET / HTTP/1.1\r\n".len();
    check(Limits { request_line_bytes: line_len, ..default }, GET, None);
    check(Limits { request_line_bytes: line_len - 1, ..default }, GET, Some(Error::RequestLineTooLong));
    check(Limits { head_bytes: GET.len(), ..default }, GET, None);
    check(Limits { head_bytes: GET.len() - 1, ..default }, GET, Some(Error::HeadTooLarge));
    check(Limits { header_count: 1, ..default }, GET, None);
    check(Limits { header_count: 0, ..default }, GET, Some(Error::TooManyFields));
    check(Limits { body_bytes: Some(4), ..default }, POST, None);
    check(Limits { body_bytes: Some(3), ..default }, POST, Some(Error::BodyTooLarge));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2;x\r\nab\r\n2;x\r\ncd\r\n0\r\nt: u\r\n\r\n";
    check(Limits { body_bytes: Some(4), ..default }, chunked, None);
    check(Limits { body_bytes: Some(3), ..default }, chunked, Some(Error::BodyTooLarge));
    check(Limits { chunk_line_bytes: 5, chunk_ext_bytes: 4, trailer_bytes: 8, ..default }, chunked, None);
    check(Limits { chunk_line_bytes: 4, ..default }, chunked, Some(Error::ChunkExtTooLarge));
    check(Limits { chunk_ext_bytes: 3, ..default }, chunked, Some(Error::ChunkExtTooLarge));
    check(Limits { trailer_bytes: 7, ..default }, chunked, Some(Error::TrailersTooLarge));
}

#[test]
fn targets_for_origins() {
    for (method, target, expected) in [
        ("GET", "/a?b", "/a?b"),
        ("GET", "http://a", "/"),
        ("GET", "http://a/b?c", "/b?c"),
        ("GET", "http://a?c", "/?c"),
        ("OPTIONS", "*", "*"),
        ("OPTIONS", "http://a", "*"),
        ("CONNECT", "a:1", "a:1"),
    ] {
        let (_, _, _, head) = asked(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.origin_target(), expected, "{method} {target}");
        for (host, named) in [("a:1", None), ("o:80", Some(Authority::new("o:80").expect("a host")))] {
            let host_field = named.as_ref().map_or(ForwardedHost::AsReceived, ForwardedHost::Named);
            let host = if named.is_none() && method != "CONNECT" { "a" } else { host };
            let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
            let fields = |out: &mut FieldWriter<'_>| out.put("x", b"y");
            conn.forward_request_head_with(&head, host_field, BodyLen::None, &mut tx, fields)
                .expect("a new connection");
            let (mut same, mut expected_tx) = (ClientConn::new(Limits::default()), tx_queue());
            let line = RequestLine { method, target: expected, host };
            same.send_request_head_with(line, BodyLen::None, &mut expected_tx, fields).expect("as new");
            assert_eq!(sent_text(&tx), sent_text(&expected_tx));
        }
    }
}

/// What was valid once is not looked at again; another host is.
#[test]
fn each_request_may_name_another_host() {
    let (mut conn, mut rx, mut tx) = (ServerConn::new(Limits::default()), RxQueue::new(), tx_queue());
    let long = "a".repeat(300);
    for (host, valid) in
        [("a", true), ("a", true), ("b:1", true), (&long, true), ("b:1", true), ("b:1,a", false)]
    {
        rx.push(PoolBuf::copied(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()));
        match conn.poll_event(&mut rx) {
            Ok(ServerEvent::Head(head, _)) => assert_eq!((head.authority(), valid), (Some(host), true)),
            Err(error) => assert_eq!((error, valid), (Error::Host, false)),
            Ok(event) => panic!("{event:?}"),
        }
        if valid {
            assert!(conn.take_end());
            conn.send_response_with(StatusCode::OK, &b""[..], &mut tx, |_| Ok(())).expect("asked");
        }
    }
}

#[test]
fn nothing_is_passed_on_without_a_host() {
    let (_, _, _, head) = asked("GET / HTTP/1.0\r\n\r\n");
    assert!(!head.has_authority() && head.is_for("") && !head.is_for("a"));
    let (mut conn, mut tx) = (ClientConn::new(Limits::default()), tx_queue());
    let host = ForwardedHost::AsReceived;
    let sent = conn.forward_request_head_with(&head, host, BodyLen::None, &mut tx, |_| Ok(()));
    assert_eq!((sent, tx.len()), (Err(SendError::Name), 0));
    assert_eq!(Authority::new("a b").err(), Some(SendError::Name));
}

#[test]
fn a_head_that_takes_too_long_is_answered() {
    let (mut conn, mut rx, mut tx) = (ServerConn::new(Limits::default()), rx_queue(b"GET / HT"), tx_queue());
    assert!(!conn.is_reading_head());
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::NeedInput)));
    assert!(conn.is_reading_head() && !conn.can_respond());
    conn.stop_reading();
    conn.send_head(StatusCode::REQUEST_TIMEOUT, [], BodyLen::None, &mut tx).expect("nothing was said yet");
    conn.finish(&mut tx).expect("no body");
    assert!(sent_text(&tx).contains("connection: close") && conn.wants_close());
    assert!(matches!(conn.poll_event(&mut rx), Ok(ServerEvent::Closed)));
}

/// A gateway's long body goes past both machines, and what follows it is read as ever.
#[test]
fn bodies_that_pass_the_machines_by_are_counted() {
    let (mut server, mut rx, mut tx, _) = asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    let (mut client, mut to_origin) = (ClientConn::new(Limits::default()), tx_queue());
    let line = RequestLine { method: "POST", target: "/", host: "a" };
    client.send_request_head(line, [], BodyLen::Length(10), &mut to_origin).expect("a request");
    let Ok(ServerEvent::Data(data)) = server.poll_event(&mut rx) else { panic!("two bytes have come") };
    client.send_data(data, &mut to_origin).expect("of ten");
    assert_eq!(server.remaining_body(), RemainingBody::Known(8));
    server.body_taken_past(5);
    client.body_sent_past(5).expect("of eight");
    assert_eq!(client.finish(&mut to_origin), Err(SendError::BodyTooShort { missing: 3 }));
    assert_eq!(client.body_sent_past(4), Err(SendError::BodyTooLong { allowed: 3 }));
    server.body_taken_past(3);
    client.body_sent_past(3).expect("the rest");
    assert!(server.take_end());
    client.finish(&mut to_origin).expect("all was sent");
    assert_eq!(client.body_sent_past(1), Err(SendError::State));

    let mut from_origin = rx_queue(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
    assert!(matches!(client.poll_event(&mut from_origin), Ok(ClientEvent::Head(_, BodyLen::Length(6)))));
    assert_eq!(server.body_sent_past(6), Err(SendError::State), "no head was sent");
    server.send_head(StatusCode::OK, [], BodyLen::Length(6), &mut tx).expect("a response");
    assert_eq!(client.remaining_body(), RemainingBody::Known(6));
    client.body_taken_past(6);
    server.body_sent_past(6).expect("all of it");
    assert!(client.take_end());
    server.finish(&mut tx).expect("all was sent");
    rx.push(PoolBuf::copied(GET.as_bytes()));
    assert!(matches!(server.poll_event(&mut rx), Ok(ServerEvent::Head(..))));
}

#[test]
#[should_panic(expected = "no more is taken than the body has")]
fn no_more_passes_a_machine_by_than_the_body_has() {
    let (mut server, ..) = asked(POST);
    server.body_taken_past(5);
}
