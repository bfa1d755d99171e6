//! Each rule of RFC 9113 8.2 and 8.3 with a message that breaks it, and what messages become.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, uri};
use ringport_platform::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};

use super::{
    Malformed, Protocol, check_request, check_response, check_trailers, forwarded_request,
    is_connection_field, request_body, request_head, request_to_http1, request_to_http2, response_body,
    response_head, response_to_http1, response_to_http2, trailers_to_http1, trailers_to_http2,
};
use crate::proto::http1::{
    BodyLen, ClientConn, ClientEvent, Error, FieldBlock, Limits, RequestHead, RequestLine, ResponseHead,
    ServerConn, ServerEvent,
};

fn request(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).body(()).expect("a request");
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        request.headers_mut().append(HeaderName::from_lowercase(name.as_bytes()).expect("a name"), value);
    }
    request
}

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::builder().status(status).body(()).expect("a response");
    for (name, value) in fields {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

/// A request that our HTTP/1.1 server reads.
fn http1_request(text: &str) -> RequestHead {
    let mut rx = RxQueue::new();
    rx.push(PoolBuf::copied(text.as_bytes()));
    match ServerConn::new(Limits::default()).poll_event(&mut rx) {
        Ok(ServerEvent::Head(head, _)) => head,
        other => panic!("{text}: {other:?}"),
    }
}

fn http1_response(text: &str) -> ResponseHead {
    let mut conn = ClientConn::new(Limits::default());
    let mut tx = TxQueue::new(Pool::new(PoolSpec::default()));
    let line = RequestLine { method: "GET", target: "/", host: "a" };
    conn.send_request_head(line, [], BodyLen::None, &mut tx).expect("a request");
    conn.finish(&mut tx).expect("an end");
    let mut rx = RxQueue::new();
    rx.push(PoolBuf::copied(text.as_bytes()));
    match conn.poll_event(&mut rx) {
        Ok(ClientEvent::Head(head, _) | ClientEvent::Informational(head)) => head,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn check(method: &str, uri: &str, fields: &[(&'static str, &str)], expected: Result<(), Malformed>) {
    assert_eq!(check_request(&request(method, uri, fields)), expected, "{method} {uri} {fields:?}");
}

#[track_caller]
fn bad(method: &str, uri: &str, fields: &[(&'static str, &str)], malformed: Malformed) {
    check(method, uri, fields, Err(malformed));
}

#[test]
fn requests_are_refused_for_what_two_readers_take_differently() {
    check("GET", "https://a/", &[("host", "a")], Ok(()));
    check("GET", "https://a:443/", &[("host", "A")], Ok(()));
    check("GET", "http://a:80/", &[("host", "a:")], Ok(()));
    check("GET", "/", &[("host", "a")], Ok(()));
    check("OPTIONS", "*", &[("host", "a")], Ok(()));
    check("CONNECT", "a:1", &[], Ok(()));
    check("GET", "https://a/", &[("content-length", "3"), ("content-length", "3")], Ok(()));
    bad("GET", "/", &[], Malformed::NoAuthority);
    bad("GET", "https://a/", &[("host", "b")], Malformed::HostDiffers);
    bad("GET", "http://a/", &[("host", "a:443")], Malformed::HostDiffers);
    bad("GET", "https://a/", &[("host", "a"), ("host", "a")], Malformed::HostRepeated);
    bad("GET", "https://a/", &[("host", "a,b")], Malformed::Authority);
    bad("GET", "https://u@a/", &[], Malformed::Authority);
    bad("GET", "ws://a/", &[], Malformed::Scheme);
    bad("GET", "*", &[("host", "a")], Malformed::Target);
    bad("GET", "https://a/\u{e9}", &[], Malformed::Target);
    bad("GET", "a:443", &[], Malformed::Target);
    bad("CONNECT", "a", &[], Malformed::Authority);
    bad("CONNECT", "/", &[("host", "a:1")], Malformed::NoAuthority);
    bad("CONNECT", "https://a:1/x", &[], Malformed::Target);
    bad("CONNECT", "a:1", &[("content-length", "0")], Malformed::ContentLength);
    bad("GET", "https://a/", &[("te", "gzip")], Malformed::Te);
    bad("GET", "https://a/", &[("x\"", "1")], Malformed::FieldName);
    bad("GET", "https://a/", &[("x", "1 ")], Malformed::FieldValue);
    bad("GET", "https://a/", &[("x", "\t1")], Malformed::FieldValue);
    for length in ["", "-1", "+1", "1,1", "1x", "12345678901234567890"] {
        bad("POST", "https://a/", &[("content-length", length)], Malformed::ContentLength);
    }
    bad("POST", "https://a/", &[("content-length", "1"), ("content-length", "2")], Malformed::ContentLength);
    for name in
        ["connection", "http2-settings", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
    {
        bad("GET", "https://a/", &[(name, "x")], Malformed::ConnectionField);
        assert!(is_connection_field(&HeaderName::from_static(name)));
    }
}

#[test]
fn responses_and_trailers_are_refused_by_the_same_rules() {
    assert_eq!(check_response(&response(200, &[("content-length", "3")])), Ok(()));
    assert_eq!(check_response(&response(204, &[("content-length", "0")])), Ok(()));
    assert_eq!(check_response(&response(101, &[])), Err(Malformed::Status));
    for status in [100, 204] {
        let refused = check_response(&response(status, &[("content-length", "3")]));
        assert_eq!(refused, Err(Malformed::ContentLength));
    }
    assert_eq!(check_response(&response(200, &[("connection", "x")])), Err(Malformed::ConnectionField));
    let mut trailers = HeaderMap::new();
    trailers.insert("x", HeaderValue::from_static("1"));
    assert_eq!(check_trailers(&trailers), Ok(()));
    assert_eq!(trailers_to_http1(&trailers), Ok(vec![("x", &b"1"[..])]));
    for name in ["content-length", "host", "transfer-encoding", "te", "authorization", "trailer"] {
        let mut trailers = trailers.clone();
        trailers.insert(name, HeaderValue::from_static("1"));
        assert_eq!(check_trailers(&trailers), Err(Malformed::TrailerForbidden), "{name}");
    }
}

#[test]
fn bodies_are_framed_by_what_is_known() {
    let get = request("GET", "https://a/", &[]);
    let long = request("POST", "https://a/", &[("content-length", "7"), ("content-length", "7")]);
    assert_eq!(request_body(&get, true), Ok(BodyLen::None));
    assert_eq!(request_body(&get, false), Ok(BodyLen::Chunked));
    assert_eq!(request_body(&long, false), Ok(BodyLen::Length(7)));
    assert_eq!(request_body(&long, true), Err(Malformed::ContentLength));
    assert_eq!(request_body(&request("CONNECT", "a:1", &[]), false), Ok(BodyLen::Tunnel));
    let seven = &[("content-length", "7")];
    for (status, fields, ended, method, expected) in [
        (200, &seven[..], false, Method::GET, Ok(BodyLen::Length(7))),
        (200, seven, true, Method::GET, Err(Malformed::ContentLength)),
        (200, seven, true, Method::HEAD, Ok(BodyLen::Length(7))),
        (304, seven, true, Method::GET, Ok(BodyLen::Length(7))),
        (304, &[], true, Method::GET, Ok(BodyLen::None)),
        (204, &[], false, Method::GET, Ok(BodyLen::None)),
        (200, &[], false, Method::GET, Ok(BodyLen::Chunked)),
        (200, &[], true, Method::GET, Ok(BodyLen::None)),
        (200, &[], false, Method::CONNECT, Ok(BodyLen::Tunnel)),
        (403, seven, false, Method::CONNECT, Ok(BodyLen::Length(7))),
    ] {
        let response = response(status, fields);
        assert_eq!(response_body(&response, ended, &method), expected, "{status} {ended} {method}");
    }
}

/// What an origin reads of a request that came by HTTP/2.
fn written(request: &Request<()>, ended: bool) -> String {
    let mapped = request_to_http1(request, ended).expect("a good request");
    let mut conn = ClientConn::new(Limits::default());
    let mut tx = TxQueue::new(Pool::new(PoolSpec::default()));
    let fields = mapped.fields.iter().map(|(name, value)| (*name, value.as_ref()));
    conn.send_request_head(mapped.line(), fields, mapped.body, &mut tx).expect("a request");
    let bytes: Vec<u8> = tx.slices().flat_map(<[u8]>::to_vec).collect();
    String::from_utf8(bytes).expect("ASCII")
}

#[test]
fn a_request_is_written_in_one_way() {
    let fields = &[
        ("host", "A.example"),
        ("cookie", "a=1"),
        ("x", "1"),
        ("cookie", "b=2"),
        ("cookie", "c=3"),
        ("content-length", "4"),
        ("content-length", "4"),
    ];
    assert_eq!(
        written(&request("POST", "https://a.example/p?q", fields), false),
        "POST /p?q HTTP/1.1\r\nhost: a.example\r\ncookie: a=1; b=2; c=3\r\nx: 1\r\ncontent-length: 4\r\n\r\n"
    );
    assert_eq!(
        written(&request("GET", "/", &[("host", "a"), ("te", "trailers")]), true),
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
    assert_eq!(
        written(&request("PUT", "http://a/", &[]), false),
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        written(&request("CONNECT", "a:443", &[]), false),
        "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"
    );
    let options = written(&request("OPTIONS", "*", &[("host", "a")]), true);
    assert!(options.starts_with("OPTIONS * HTTP/1.1\r\nhost: a\r\n"), "{options}");
    let mut websocket = request("CONNECT", "https://a/chat", &[]);
    websocket.extensions_mut().insert(Protocol("websocket".to_owned()));
    assert_eq!(check_request(&websocket), Ok(()));
    assert_eq!(request_to_http1(&websocket, false), Err(Malformed::Protocol));
    assert_eq!(request_to_http1(&request("GET", "/", &[]), true), Err(Malformed::NoAuthority));
}

#[test]
fn a_request_of_http1_loses_what_belongs_to_its_hop() {
    let head = http1_request(
        "POST http://b.example/p?q HTTP/1.1\r\nHost: b.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: 5\r\nX-End: 2\r\nTE: gzip, trailers\r\nContent-Length: 3\r\nCookie: a=1; b=2\r\n\
         HTTP2-Settings: AAAA\r\n\r\n",
    );
    let mapped = request_to_http2(&head, uri::Scheme::HTTPS).expect("a good request");
    assert_eq!(
        (mapped.method(), mapped.uri().to_string().as_str()),
        (&Method::POST, "https://b.example/p?q")
    );
    let mut fields: Vec<_> =
        mapped.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    fields.sort_unstable();
    assert_eq!(fields, [("cookie", "a=1; b=2"), ("te", "trailers"), ("x-end", "2")]);
    let head = http1_request("CONNECT c.example:443 HTTP/1.1\r\nHost: c.example:443\r\n\r\n");
    let mapped = request_to_http2(&head, uri::Scheme::HTTPS).expect("a good request");
    assert_eq!(mapped.uri().to_string(), "c.example:443");
    let head = http1_request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        request_to_http2(&head, uri::Scheme::HTTP).map(|mapped| mapped.uri().path().to_owned()),
        Ok("*".to_owned())
    );
    let head = http1_request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(request_to_http2(&head, uri::Scheme::HTTP).map(drop), Err(Malformed::NoAuthority));
}

#[test]
fn responses_go_both_ways() {
    let came =
        response(200, &[("content-length", "2"), ("x", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
    let mapped = response_to_http1(&came, false, &Method::GET).expect("a good response");
    assert_eq!((mapped.status.as_u16(), mapped.body), (200, BodyLen::Length(2)));
    let fields: Vec<_> = mapped.fields.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    assert_eq!(fields, [("x", &b"1"[..]), ("set-cookie", b"a=1"), ("set-cookie", b"b=2")]);
    let early = response(103, &[("link", "</a>")]);
    assert_eq!(response_to_http1(&early, false, &Method::GET).map(|mapped| mapped.body), Ok(BodyLen::None));
    assert_eq!(response_to_http1(&response(101, &[]), false, &Method::GET), Err(Malformed::Status));

    let head = http1_response(
        "HTTP/1.1 404 Gone Fishing\r\nConnection: x\r\nX: 1\r\nY: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let mapped = response_to_http2(&head).expect("a good response");
    assert_eq!(mapped.status().as_u16(), 404);
    assert_eq!(mapped.headers().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["y"]);
    let early = http1_response("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(response_to_http2(&early).map(|mapped| mapped.status().as_u16()), Ok(103));
}

#[test]
fn messages_of_http2_read_as_heads_of_http1() {
    let fields = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-forwarded-for", "1"),
        ("content-length", "4"),
    ];
    let head = request_head(&request("POST", "https://a:8443/p?q", &fields), false).expect("a head");
    assert_eq!((head.method().as_str(), head.path(), head.query()), ("POST", "/p", Some("q")));
    assert_eq!((head.authority(), head.version()), (Some("a:8443"), http::Version::HTTP_2));
    assert_eq!((head.content_length(), head.is_chunked()), (Some(4), false));
    assert!(head.tells_client() && head.accepts_trailers());
    assert_eq!(head.get("cookie"), Some(&b"a=1; b=2"[..]));
    let options = request_head(&request("OPTIONS", "http://a/", &[]), true).expect("a head");
    assert_eq!((options.target(), options.authority()), ("/", Some("a")));
    assert_eq!(request_head(&request("GET", "http://a/", &[("te", "x")]), true).err(), Some(Malformed::Te));
    let long = "x".repeat(65_000);
    let large = request_head(&request("GET", "http://a/", &[("x", &long), ("y", &long)]), true);
    assert_eq!(large.err(), Some(Malformed::Http1(Error::HeadTooLarge)));

    let came = response(200, &[("content-length", "2"), ("date", "now"), ("x", "1")]);
    let head = response_head(&came, false, &Method::GET).expect("a head");
    assert_eq!((head.status().as_u16(), head.version()), (200, http::Version::HTTP_2));
    assert_eq!((head.content_length(), head.is_dated(), head.get("x")), (Some(2), true, Some(&b"1"[..])));
    let none = response_head(&response(204, &[]), true, &Method::GET).expect("a head");
    assert_eq!(none.content_length(), None);
    assert!(response_head(&response(101, &[]), true, &Method::GET).is_err());
}

#[test]
fn a_request_is_passed_on_in_http2() {
    let head = http1_request(
        "GET http://other?q HTTP/1.1\r\nHost: a\r\nX: 1\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n",
    );
    let mut block = FieldBlock::default();
    block
        .fill(|out| {
            out.forward_request(&head);
            out.put("upgrade", b"y")?;
            out.put_parts("Via", &[b"1.1 ", b"g"])
        })
        .expect("fields");
    let passed = forwarded_request(&head, (uri::Scheme::HTTPS, "b:1"), &block).expect("a request");
    assert_eq!(passed.uri(), "https://b:1/?q");
    let fields: Vec<_> =
        passed.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(fields, [("x", &b"1"[..]), ("via", b"1.1 g")]);
    assert_eq!(forwarded_request(&head, (uri::Scheme::HTTP, ""), &block).err(), Some(Malformed::Authority));
    let connect = http1_request("CONNECT c:2 HTTP/1.1\r\nHost: c:2\r\n\r\n");
    let passed =
        forwarded_request(&connect, (uri::Scheme::HTTP, "c:2"), &FieldBlock::default()).expect("a request");
    assert_eq!((passed.uri().scheme(), passed.uri().to_string().as_str()), (None, "c:2"));
}

#[test]
fn trailers_of_http1_become_a_map() {
    let mut rx = RxQueue::new();
    rx.push(PoolBuf::copied(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n",
    ));
    let mut conn = ServerConn::new(Limits::default());
    loop {
        match conn.poll_event(&mut rx) {
            Ok(ServerEvent::Trailers(trailers)) => {
                let map = trailers_to_http2(&trailers).expect("good trailers");
                assert_eq!(map.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
                return;
            }
            Ok(ServerEvent::NeedInput) | Err(_) => panic!("no trailers"),
            Ok(_) => {}
        }
    }
}

#[test]
fn reasons_are_told() {
    for malformed in [
        Malformed::Target,
        Malformed::Scheme,
        Malformed::Authority,
        Malformed::NoAuthority,
        Malformed::HostDiffers,
        Malformed::HostRepeated,
        Malformed::ConnectionField,
        Malformed::Te,
        Malformed::FieldName,
        Malformed::FieldValue,
        Malformed::ContentLength,
        Malformed::Status,
        Malformed::TrailerForbidden,
        Malformed::Protocol,
        Malformed::Http1(Error::HeadTooLarge),
    ] {
        assert_eq!(malformed.to_string(), malformed.reason());
    }
}
