//! Our client against our server.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::{Event, Side, carry, get, go_aways, respond, seen};
use crate::proto::http1::BodyLen;
use crate::proto::http2::{Code, Error, KeepAlive, SendError, Spec, StreamId};
use crate::proto::mapping::{Malformed, Protocol};

fn pair(client: Spec, server: Spec) -> (Side, Side) {
    let (mut client, mut server) = (Side::client(client), Side::server(server));
    let (up, down) = carry(&mut client, &mut server, usize::MAX);
    assert!(up.is_empty() && down.is_empty());
    assert!(!server.conn.is_handshaking());
    (client, server)
}

/// The stream of the only request among events.
fn request_of(events: &[Event]) -> StreamId {
    let mut ids = events.iter().filter_map(|event| match event {
        Event::Request { id, .. } => Some(*id),
        _ => None,
    });
    ids.next().expect("a request")
}

fn body_of(events: &[Event], of: StreamId) -> Vec<u8> {
    let parts = events.iter().filter_map(|event| match event {
        Event::Data { id, data } if *id == of => Some(data.to_vec()),
        _ => None,
    });
    parts.collect::<Vec<_>>().concat()
}

#[test]
fn a_request_and_its_response() {
    for chunk in [1, 7, usize::MAX] {
        let (mut client, mut server) = pair(Spec::default(), Spec::default());
        let id = client.conn.open(get("/a?b"), BodyLen::None).expect("a stream");
        client.conn.finish(id).expect("an end");
        assert_eq!(id.number(), 1);
        let (_, events) = carry(&mut client, &mut server, chunk);
        let [Event::Request { id: at, head, body: BodyLen::None }, Event::End { .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((head.method(), head.uri().to_string().as_str()), (&Method::GET, "https://a.example/a?b"));
        respond(&mut server.conn, *at, b"hello");
        let (events, _) = carry(&mut client, &mut server, chunk);
        let Event::Response { head, body: BodyLen::Length(5), .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!(
            (head.status(), &head.headers()["content-length"]),
            (StatusCode::OK, &HeaderValue::from(5))
        );
        assert_eq!(body_of(&events, id), b"hello");
        assert!(matches!(events.last(), Some(Event::End { .. })));
        client.conn.release(id, 5);
        assert_eq!((client.conn.open_count(), server.conn.open_count()), (0, 0));
        assert_eq!(client.conn.finish(id), Err(SendError::Gone));
        client.conn.release_idle();
        server.conn.release_idle();
    }
}

#[test]
fn bodies_stream_both_ways_with_trailers() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let mut request = get("/rpc");
    *request.method_mut() = Method::POST;
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let id = client.conn.open(request, BodyLen::Chunked).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, 100);
    let at = request_of(&events);
    server.conn.send_head(at, Response::new(()), BodyLen::Chunked).expect("a head");
    for round in 0..50u8 {
        client.conn.send_data(id, vec![round; 300].into()).expect("room");
        let (_, events) = carry(&mut client, &mut server, 100);
        let asked = body_of(&events, at);
        assert_eq!(asked, vec![round; 300]);
        server.conn.release(at, 300);
        server.conn.send_data(at, asked.into()).expect("room");
        let (events, _) = carry(&mut client, &mut server, 100);
        assert_eq!(body_of(&events, id), vec![round; 300]);
        client.conn.release(id, 300);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    client.conn.send_trailers(id, trailers.clone()).expect("trailers");
    server.conn.send_trailers(at, trailers.clone()).expect("trailers");
    let (down, up) = carry(&mut client, &mut server, 100);
    for (events, from) in [(down, id), (up, at)] {
        let [Event::Trailers { id, trailers: read }, Event::End { .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((*id, read), (from, &trailers));
    }
    assert_eq!((client.conn.open_count(), server.conn.open_count()), (0, 0));
}

#[test]
fn a_sender_waits_for_a_reader_and_siblings_do_not() {
    let spec = Spec { stream_window_bytes: 10_000, connection_window_bytes: 100_000, ..Spec::default() };
    let (mut client, mut server) = pair(spec, Spec::default());
    let id = client.conn.open(get("/long"), BodyLen::None).expect("a stream");
    client.conn.finish(id).expect("an end");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    let len = 1_000_000;
    server.conn.send_head(at, Response::new(()), BodyLen::Length(len)).expect("a head");
    server.conn.send_data(at, vec![1; 50_000].into()).expect("room");
    // Nothing is given back, so no more than the window comes, however often both are asked.
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(body_of(&events, id).len(), 10_000);
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(body_of(&events, id).len(), 0);
    let (mut sent, mut got, mut held) = (50_000, 10_000, 10_000);
    while got < len as usize {
        while server.conn.can_send(at) {
            server.conn.send_data(at, vec![1; 50_000].into()).expect("room");
            sent += 50_000;
        }
        let (events, told) = carry(&mut client, &mut server, usize::MAX);
        let came = body_of(&events, id).len();
        got += came;
        held += came;
        if sent < len && !told.iter().any(|event| matches!(event, Event::Writable { .. })) {
            assert_eq!(server.conn.send_data(at, Bytes::from_static(b"x")), Err(SendError::Full));
            assert!(held <= 10_000, "{held}");
            // A stream beside it is not held up.
            let other = client.conn.open(get("/short"), BodyLen::None).expect("a stream");
            client.conn.finish(other).expect("an end");
            let (_, events) = carry(&mut client, &mut server, usize::MAX);
            respond(&mut server.conn, request_of(&events), b"quick");
            let (events, _) = carry(&mut client, &mut server, usize::MAX);
            assert_eq!(body_of(&events, other), b"quick");
            client.conn.release(other, 5);
            client.conn.release(id, held);
            held = 0;
        } else if got < len as usize && came == 0 {
            client.conn.release(id, held);
            held = 0;
        }
    }
    assert_eq!(got as u64, len);
    server.conn.finish(at).expect("all of it");
    client.conn.release(id, held);
    assert_eq!((client.conn.open_count(), server.conn.open_count()), (0, 0));
}

#[test]
fn informational_responses_come_before_the_final_one() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let mut request = get("/");
    *request.method_mut() = Method::PUT;
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let id = client.conn.open(request, BodyLen::Length(3)).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    for status in [100, 103] {
        let head = Response::builder().status(status).header("link", "</a>").body(()).expect("a head");
        server.conn.send_informational(at, head).expect("an interim response");
    }
    let switching = Response::builder().status(101).body(()).expect("a head");
    assert_eq!(server.conn.send_informational(at, switching), Err(SendError::Malformed(Malformed::Status)));
    assert_eq!(server.conn.send_informational(at, Response::new(())), Err(SendError::Status));
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    let statuses: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Informational { head, .. } => head.status().as_u16(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(statuses, [100, 103]);
    client.conn.send_data(id, Bytes::from_static(b"abc")).expect("room");
    client.conn.finish(id).expect("an end");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(body_of(&events, at), b"abc");
    server.conn.release(at, 3);
    respond(&mut server.conn, at, b"");
    assert_eq!(server.conn.send_informational(at, Response::new(())), Err(SendError::Gone));
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(events[..], [Event::Response { body: BodyLen::Length(0), .. }, Event::End { .. }]));
}

#[test]
fn an_origin_may_not_go_on_with_informational_responses() {
    let (mut client, mut server) = pair(Spec { informational_count: 3, ..Spec::default() }, Spec::default());
    client.conn.open(get("/"), BodyLen::None).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    for _ in 0..4 {
        let head = Response::builder().status(102).body(()).expect("a head");
        server.conn.send_informational(at, head).expect("an interim response");
    }
    let (events, told) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(events.len(), 4);
    assert!(matches!(events[3], Event::Reset { code: Code::ENHANCE_YOUR_CALM, unprocessed: false, .. }));
    assert!(matches!(told[..], [Event::Reset { code: Code::ENHANCE_YOUR_CALM, .. }]));
}

#[test]
fn connect_becomes_a_tunnel() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let connect = || Request::builder().method("CONNECT").uri("db.example:5432").body(()).expect("a request");
    assert_eq!(client.conn.open(connect(), BodyLen::None), Err(SendError::BodyLen));
    assert_eq!(client.conn.open(get("/"), BodyLen::Tunnel), Err(SendError::BodyLen));
    let id = client.conn.open(connect(), BodyLen::Tunnel).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let [Event::Request { id: at, head, body: BodyLen::Tunnel }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(head.uri().authority().map(|authority| authority.as_str()), Some("db.example:5432"));
    let at = *at;
    let ok = || Response::new(());
    assert_eq!(server.conn.send_head(at, ok(), BodyLen::Length(0)), Err(SendError::BodyLen));
    server.conn.send_head(at, ok(), BodyLen::Tunnel).expect("a tunnel");
    server.conn.send_data(at, Bytes::from_static(b"down")).expect("room");
    client.conn.send_data(id, Bytes::from_static(b"up")).expect("room");
    let (down, up) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(down[0], Event::Response { body: BodyLen::Tunnel, .. }));
    assert_eq!((body_of(&down, id), body_of(&up, at)), (b"down".to_vec(), b"up".to_vec()));
    // One way ends, the other goes on.
    client.conn.finish(id).expect("an end");
    server.conn.send_data(at, Bytes::from_static(b"more")).expect("room");
    let (down, up) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(body_of(&down, id), b"more");
    assert!(matches!(up[..], [Event::End { .. }]));
    server.conn.reset(at, Code::CONNECT_ERROR);
    let (down, _) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(down[..], [Event::Reset { code: Code::CONNECT_ERROR, .. }]));
}

#[test]
fn the_extended_connect_is_off_unless_asked_for() {
    let websocket = || {
        let mut request = get("/chat");
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol("websocket".to_owned()));
        request
    };
    let (mut client, _) = pair(Spec::default(), Spec::default());
    assert_eq!(client.conn.open(websocket(), BodyLen::Tunnel), Err(SendError::ExtendedConnect));
    let (mut client, mut server) = pair(Spec::default(), Spec { extended_connect: true, ..Spec::default() });
    client.conn.open(websocket(), BodyLen::Tunnel).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let [Event::Request { id, head, body: BodyLen::Tunnel }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(head.extensions().get(), Some(&Protocol("websocket".to_owned())));
    assert_eq!(head.uri().path(), "/chat");
    server.conn.send_head(*id, Response::new(()), BodyLen::Tunnel).expect("a tunnel");
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(events[..], [Event::Response { body: BodyLen::Tunnel, .. }]));
}

#[test]
fn responses_without_body_tell_its_length() {
    for (method, status, len, told) in [
        ("HEAD", 200, BodyLen::Length(9), BodyLen::Length(9)),
        ("GET", 304, BodyLen::Length(9), BodyLen::Length(9)),
        ("HEAD", 200, BodyLen::Chunked, BodyLen::None),
        ("GET", 204, BodyLen::None, BodyLen::None),
        ("GET", 204, BodyLen::Length(0), BodyLen::None),
        ("GET", 200, BodyLen::None, BodyLen::None),
    ] {
        let (mut client, mut server) = pair(Spec::default(), Spec::default());
        let mut request = get("/");
        *request.method_mut() = method.parse().expect("a method");
        let id = client.conn.open(request, BodyLen::None).expect("a stream");
        client.conn.finish(id).expect("an end");
        let (_, events) = carry(&mut client, &mut server, usize::MAX);
        let at = request_of(&events);
        let head = Response::builder().status(status).body(()).expect("a head");
        server.conn.send_head(at, head, len).expect("a response");
        assert!(!server.conn.can_send(at));
        assert_eq!(server.conn.send_data(at, Bytes::from_static(b"x")), Err(SendError::State));
        server.conn.finish(at).expect("an end");
        let (events, _) = carry(&mut client, &mut server, usize::MAX);
        let [Event::Response { body, .. }, Event::End { .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(*body, told, "{method} {status}");
    }
}

#[test]
fn what_does_not_fit_is_refused_to_the_caller() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let id = client.conn.open(get("/"), BodyLen::Length(3)).expect("a stream");
    assert_eq!(
        client.conn.send_data(id, Bytes::from_static(b"abcd")),
        Err(SendError::BodyTooLong { allowed: 3 })
    );
    assert_eq!(client.conn.send_trailers(id, HeaderMap::new()), Err(SendError::TrailersNotAllowed));
    assert_eq!(client.conn.send_head(id, Response::new(()), BodyLen::None), Err(SendError::State));
    assert_eq!(client.conn.send_informational(id, Response::new(())), Err(SendError::State));
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    let status = |status: u16| Response::builder().status(status).body(()).expect("a head");
    assert_eq!(server.conn.open(get("/"), BodyLen::None), Err(SendError::State));
    assert_eq!(server.conn.finish(at), Err(SendError::State));
    assert_eq!(server.conn.send_data(at, Bytes::new()), Err(SendError::State));
    assert_eq!(server.conn.send_trailers(at, HeaderMap::new()), Err(SendError::State));
    assert_eq!(server.conn.send_head(at, status(103), BodyLen::None), Err(SendError::Status));
    assert_eq!(server.conn.send_head(at, status(204), BodyLen::Length(1)), Err(SendError::BodyLen));
    assert_eq!(server.conn.send_head(at, status(204), BodyLen::Chunked), Err(SendError::BodyLen));
    assert_eq!(server.conn.send_head(at, status(200), BodyLen::Tunnel), Err(SendError::BodyLen));
    let mut bad = status(200);
    bad.headers_mut().insert("connection", HeaderValue::from_static("close"));
    let refused = server.conn.send_head(at, bad, BodyLen::None);
    assert_eq!(refused, Err(SendError::Malformed(Malformed::ConnectionField)));
    server.conn.send_head(at, status(200), BodyLen::Chunked).expect("a head");
    assert_eq!(server.conn.send_head(at, status(200), BodyLen::Chunked), Err(SendError::State));
    let mut forbidden = HeaderMap::new();
    forbidden.insert("content-length", HeaderValue::from_static("1"));
    let refused = server.conn.send_trailers(at, forbidden);
    assert_eq!(refused, Err(SendError::Malformed(Malformed::TrailerForbidden)));
    // Too short: the peer must not take it for the whole.
    client.conn.send_data(id, Bytes::from_static(b"ab")).expect("room");
    assert_eq!(client.conn.finish(id), Err(SendError::BodyTooShort { missing: 1 }));
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(events.last(), Some(Event::Reset { code: Code::INTERNAL_ERROR, .. })), "{events:?}");
    assert_eq!(server.conn.send_data(at, Bytes::from_static(b"x")), Err(SendError::Gone));
    for (request, malformed) in [
        (Request::builder().uri("/").body(()), Malformed::NoAuthority),
        (Request::builder().uri("/").header("host", "a").body(()), Malformed::NoAuthority),
        (Request::builder().uri("ftp://a/").body(()), Malformed::Scheme),
        (Request::builder().uri("http://a/").header("upgrade", "x").body(()), Malformed::ConnectionField),
    ] {
        let refused = client.conn.open(request.expect("a request"), BodyLen::None);
        assert_eq!(refused, Err(SendError::Malformed(malformed)));
    }
    assert_eq!(client.conn.open(get("/"), BodyLen::UntilClose), Err(SendError::BodyLen));
}

#[test]
fn a_client_keeps_to_what_the_server_allows() {
    let (mut client, mut server) = pair(Spec::default(), Spec { max_streams: 2, ..Spec::default() });
    assert_eq!(client.conn.room(), 2);
    let ids: Vec<_> = (0..2).map(|_| client.conn.open(get("/"), BodyLen::None).expect("a stream")).collect();
    assert_eq!(
        (client.conn.room(), client.conn.open(get("/"), BodyLen::None)),
        (0, Err(SendError::TooManyStreams))
    );
    for id in &ids {
        client.conn.finish(*id).expect("an end");
    }
    server.events().iter().for_each(drop);
    server.give(&client.take());
    assert!(server.serve(b"x").is_empty());
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(events.len(), 6);
    // Both are read to their end, and one is not released: that holds no stream.
    client.conn.release(ids[0], 1);
    assert_eq!((client.conn.room(), server.conn.room()), (2, 0));
    client.conn.reset(ids[1], Code::CANCEL);
    client.conn.release(ids[1], 1);
}

#[test]
fn bytes_that_nobody_releases_hold_streams_back() {
    let (mut client, mut server) = pair(Spec::default(), Spec { max_streams: 2, ..Spec::default() });
    let mut refused = None;
    for round in 0..6 {
        let id = client.conn.open(get("/"), BodyLen::Length(1)).expect("a stream");
        client.conn.send_data(id, Bytes::from_static(b"x")).expect("room");
        client.conn.finish(id).expect("an end");
        let (down, up) = carry(&mut client, &mut server, usize::MAX);
        if let Some(Event::Reset { code: Code::REFUSED_STREAM, unprocessed: true, .. }) = down.first() {
            refused = Some(round);
            break;
        }
        let at = request_of(&up);
        respond(&mut server.conn, at, b"");
        carry(&mut client, &mut server, usize::MAX);
    }
    // Twice as many as may be open.
    assert_eq!(refused, Some(4));
}

#[test]
fn a_reset_is_told_to_the_other_side() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let id = client.conn.open(get("/"), BodyLen::None).expect("a stream");
    client.conn.finish(id).expect("an end");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    client.conn.reset(id, Code::CANCEL);
    // While nothing is answered, and the request is read.
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let [Event::Reset { id: reset, code: Code::CANCEL, unprocessed: false }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(reset, at);
    assert_eq!(server.conn.send_head(at, Response::new(()), BodyLen::None), Err(SendError::Gone));
    // While a body is sent.
    let id = client.conn.open(get("/"), BodyLen::None).expect("a stream");
    client.conn.finish(id).expect("an end");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    server.conn.send_head(at, Response::new(()), BodyLen::Chunked).expect("a head");
    while server.conn.can_send(at) {
        server.conn.send_data(at, vec![0; 50_000].into()).expect("room");
    }
    carry(&mut client, &mut server, usize::MAX);
    client.conn.reset(id, Code::CANCEL);
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(events[..], [Event::Reset { code: Code::CANCEL, .. }]), "{events:?}");
    // A server that refuses: the request may be tried elsewhere.
    let id = client.conn.open(get("/"), BodyLen::Chunked).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    server.conn.reset(request_of(&events), Code::REFUSED_STREAM);
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    let [Event::Reset { id: reset, code, unprocessed: true }] = events[..] else { panic!("{events:?}") };
    assert_eq!((reset, code), (id, Code::REFUSED_STREAM));
    assert_eq!((client.conn.open_count(), server.conn.open_count()), (0, 0));
}

#[test]
fn a_drain_says_goaway_twice_and_lets_streams_end() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let id = client.conn.open(get("/"), BodyLen::None).expect("a stream");
    client.conn.finish(id).expect("an end");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    server.conn.drain();
    server.conn.drain();
    let sent = server.take();
    assert_eq!(go_aways(&seen(&sent)), [(u32::MAX >> 1, 0, String::new())]);
    client.give(&sent);
    let events = client.events();
    assert!(matches!(events[..], [Event::GoAway]), "{events:?}");
    assert_eq!((client.conn.room(), client.conn.open(get("/"), BodyLen::None)), (0, Err(SendError::Closing)));
    server.give(&client.take());
    assert!(server.events().is_empty());
    let sent = server.take();
    assert_eq!(go_aways(&seen(&sent)), [(1, 0, String::new())]);
    client.give(&sent);
    assert!(!server.closed);
    respond(&mut server.conn, at, b"last");
    let (events, _) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(body_of(&events, id), b"last");
    client.conn.release(id, 4);
    carry(&mut client, &mut server, usize::MAX);
    assert!(server.closed && server.error.is_none() && server.conn.wants_close());
}

#[test]
fn a_drain_before_the_preface_and_in_the_clients_role() {
    let (mut client, mut server) = (Side::client(Spec::default()), Side::server(Spec::default()));
    server.conn.drain();
    carry(&mut client, &mut server, usize::MAX);
    assert!(server.closed && client.closed, "{:?} {:?}", server.error, client.error);
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let id = client.conn.open(get("/"), BodyLen::None).expect("a stream");
    client.conn.finish(id).expect("an end");
    client.conn.drain();
    assert_eq!(client.conn.open(get("/"), BodyLen::None), Err(SendError::Closing));
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    respond(&mut server.conn, request_of(&events), b"");
    let (events, told) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(events.len(), 2);
    assert!(client.closed && client.conn.wants_close());
    assert!(matches!(told[..], [Event::GoAway]), "{told:?}");
}

#[test]
fn a_close_ends_all_at_once() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    client.conn.open(get("/"), BodyLen::Chunked).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    server.conn.close(Code::INTERNAL_ERROR);
    server.conn.close(Code::NO_ERROR);
    server.conn.drain();
    let sent = server.take();
    assert_eq!(go_aways(&seen(&sent)), [(1, 2, String::new())]);
    assert!(server.events().is_empty() && server.conn.wants_close());
    assert_eq!(server.error, Some(Error::Closed(Code::INTERNAL_ERROR)));
    assert_eq!(server.conn.finish(at), Err(SendError::Gone));
    client.give(&sent);
    client.conn.handle_eof();
    let events = client.events();
    assert!(matches!(events.first(), Some(Event::GoAway) | Some(Event::Reset { .. })), "{events:?}");
    assert_eq!(client.error, Some(Error::GoAway(Code::INTERNAL_ERROR)));
    assert_eq!(client.conn.open(get("/"), BodyLen::None), Err(SendError::Closing));
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn a_silent_peer_is_asked_and_given_up() {
    let keep_alive = KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(3) };
    let spec = || Spec { keep_alive: Some(keep_alive), ..Spec::default() };
    let (mut client, mut server) = pair(spec(), spec());
    for _ in 0..3 {
        for side in [&mut client, &mut server] {
            let due = side.conn.poll_timeout().expect("a deadline");
            side.conn.handle_timeout(side.now);
            assert_eq!(side.conn.poll_timeout(), Some(due), "not due");
            side.now = due;
            side.conn.handle_timeout(side.now);
        }
        // Both ask, both answer.
        let (up, down) = carry(&mut client, &mut server, usize::MAX);
        assert!(up.is_empty() && down.is_empty());
        for side in [&client, &server] {
            assert_eq!(side.conn.poll_timeout(), Some(side.now + keep_alive.interval));
        }
    }
    server.now += keep_alive.interval;
    server.conn.handle_timeout(server.now);
    server.now += keep_alive.timeout;
    assert_eq!(server.conn.poll_timeout(), Some(server.now));
    server.conn.handle_timeout(server.now);
    let sent = server.take();
    assert_eq!(go_aways(&seen(&sent)), [(0, 0, "keep-alive timeout".to_owned())]);
    assert!(server.conn.has_event());
    server.events();
    assert_eq!((server.error, server.conn.poll_timeout()), (Some(Error::KeepAlive), None));
    // A client that says nothing at all.
    let mut server = Side::server(spec());
    server.now += keep_alive.interval;
    server.conn.handle_timeout(server.now);
    server.now += keep_alive.timeout;
    server.conn.handle_timeout(server.now);
    server.events();
    assert_eq!(server.error, Some(Error::KeepAlive));
}

#[test]
fn an_end_of_input_ends_streams_and_connection() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    client.conn.open(get("/"), BodyLen::Chunked).expect("a stream");
    let (_, events) = carry(&mut client, &mut server, usize::MAX);
    let at = request_of(&events);
    server.conn.handle_eof();
    let events = server.events();
    let [Event::Reset { id, unprocessed: false, .. }] = events[..] else { panic!("{events:?}") };
    assert!(id == at && server.closed);
    client.conn.handle_eof();
    let events = client.events();
    assert!(matches!(events[..], [Event::Reset { unprocessed: false, .. }]), "{events:?}");
    assert!(client.closed || client.error == Some(Error::Incomplete), "{:?}", client.error);
}
