//! What HTTP/1.1 promises, through the proxy.

use crate::message::{Message, ok};
use crate::origin::Origin;
use crate::rig::{Setup, cases};

cases![
    methods_and_bodies_pass,
    chunked_passes_both_ways_with_trailers,
    bodyless_statuses_keep_the_connection,
    http_1_0_gets_a_body_until_close,
    continue_comes_from_the_origin,
    an_early_response_ends_the_request,
    informational_responses_pass,
    pipelined_requests_are_answered_in_order,
    connections_to_the_origin_are_reused,
    a_client_that_has_said_all_is_answered,
    what_the_gateway_answers_to_head_has_no_body,
];

fn methods_and_bodies_pass(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for (request, expected) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b=c "),
        ("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "POST /p hello"),
        ("PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "PUT /p "),
        ("DELETE /p HTTP/1.1\r\nHost: h\r\n\r\n", "DELETE /p "),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * "),
    ] {
        let response = client.ask(request);
        assert_eq!((response.status(), response.text().as_str()), (200, expected), "{request}");
    }
    let head = client.ask("HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((head.status(), head.field("content-length")), (200, "8"));
    let after = client.ask("GET /after HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(after.text(), "GET /after ");
    drop(client);
    proxy.finish();
}

fn chunked_passes_both_ways_with_trailers(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let trailers: Vec<_> =
            request.trailers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let body = format!("{}|{}", request.text(), trailers.join(","));
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 7\r\n\r\n",
            body.len()
        )
        .into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Check: 1\r\n\r\n";
        let response = client.ask(request);
        assert_eq!(response.text().to_lowercase(), "abcdefg|x-check=1", "{response:?}");
        let (name, value) = &response.trailers[0];
        assert_eq!((name.to_lowercase().as_str(), value.as_str()), ("x-sum", "7"));
    }
    // The end of a body with trailers is the end of an exchange like any other.
    assert_eq!(origin.connections(), 1);
    drop(client);
    proxy.finish();
}

fn bodyless_statuses_keep_the_connection(driver: &'static str) {
    let origin = Origin::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"e\"\r\n\r\n".to_vec(),
        _ => ok("yes").into_bytes(),
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for (target, status, body) in [("/204", 204, ""), ("/304", 304, ""), ("/", 200, "yes"), ("/204", 204, "")]
    {
        let response = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((response.status(), response.text().as_str()), (status, body), "{target}");
    }
    assert_eq!(origin.connections(), 1);
    drop(client);
    proxy.finish();
}

fn http_1_0_gets_a_body_until_close(driver: &'static str) {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    let response = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert!(!response.has("transfer-encoding"), "{response:?}");
    assert_eq!((response.status(), response.text().as_str()), (200, "hi"));
    drop(client);
    proxy.finish();
}

fn continue_comes_from_the_origin(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        while let Some(head) = conn.head() {
            if head.target() == "/no" {
                conn.wire.send(
                    b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
                return;
            }
            conn.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            let body = conn.wire.exactly(4);
            conn.wire.send(ok(&String::from_utf8_lossy(&body)).as_bytes());
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    let head = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    };
    client.send(head("/").as_bytes());
    // Nothing of the body is sent before the 100.
    let interim = client.head().expect("a head").expect("a head");
    assert_eq!(interim.status(), 100);
    client.send(b"body");
    assert_eq!(client.response("POST").text(), "body");
    client.send(head("/no").as_bytes());
    assert_eq!(client.response("POST").status(), 417);
    drop(client);
    proxy.finish();
}

fn an_early_response_ends_the_request(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        if conn.head().is_some() {
            conn.wire
                .send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nstart");
    let response = client.response("POST");
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
    drop(client);
    proxy.finish();
}

fn informational_responses_pass(driver: &'static str) {
    let origin = Origin::answering(|_| {
        format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n{}",
            ok("x")
        )
        .into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((response.interim.len(), response.text().as_str()), (2, "x"), "{response:?}");
        assert!(response.interim[0].contains("103"));
    }
    // RFC 9110 15.2: a client of HTTP/1.0 gets none.
    let response = proxy.client().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((response.interim.len(), response.text().as_str()), (0, "x"));
    drop(client);
    proxy.finish();
}

fn pipelined_requests_are_answered_in_order(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    let request = |at: usize| match at % 3 {
        0 => format!("GET /{at} HTTP/1.1\r\nHost: h\r\n\r\n"),
        1 => format!("POST /{at} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
        _ => format!(
            "POST /{at} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n"
        ),
    };
    let all: String = (0..60).map(request).collect();
    client.send(all.as_bytes());
    for at in 0..60 {
        let response: Message = client.response("GET");
        let body = ["GET /# ", "POST /# abc", "POST /# xy"][at % 3].replace('#', &at.to_string());
        assert_eq!(response.text(), body);
    }
    drop(client);
    proxy.finish();
}

fn connections_to_the_origin_are_reused(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    for _ in 0..5 {
        let response = proxy.client().ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(response.field("connection").to_ascii_lowercase(), "close");
        proxy.await_metric("origin_idle", |kept| kept == 1);
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(proxy.metric("origin_reused_total"), 4);
    proxy.finish();
}

/// The end of the client's side is not the end of its interest.
fn a_client_that_has_said_all_is_answered(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    client
        .send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    client.half_close();
    assert_eq!(client.response("GET").text(), "GET /a ");
    assert_eq!(client.response("POST").text(), "POST /b x");
    client.ends();
    // One that ends inside a request has gone.
    let mut client = proxy.client();
    client.send(b"GET /c HTTP/1.1\r\nHost: h\r\n");
    client.half_close();
    client.ends();
    proxy.finish();
}

fn what_the_gateway_answers_to_head_has_no_body(driver: &'static str) {
    let proxy = Setup::to(driver, Origin::refusing(), "").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(response.status() / 100 == 5 && response.field("content-length") != "0", "{response:?}");
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status() / 100, 5);
    }
    drop(client);
    proxy.finish();
}
