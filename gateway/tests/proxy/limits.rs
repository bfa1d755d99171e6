//! What is at a limit passes; one more is refused.

use crate::message::{Client, Message};
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, cases};

cases![
    the_request_line,
    the_head,
    the_count_of_fields,
    a_body_of_known_length,
    a_chunked_body,
    requests_of_a_connection,
    an_early_end_of_a_long_upload,
];

fn limited(driver: &'static str, origin: &Origin, limits: &str) -> Proxy {
    Setup::to(driver, origin.addr, &format!("limits: {{ {limits} }}\n")).start()
}

/// A request of its own connection.
fn answer(proxy: &Proxy, request: &str) -> (Message, Client) {
    let mut client = proxy.client();
    let response = client.ask(request);
    (response, client)
}

/// Passes, and the same with one byte more is refused and the connection ended.
fn check(proxy: &Proxy, at_limit: &str, beyond: &str, status: u16) {
    let (response, mut client) = answer(proxy, at_limit);
    assert_eq!(response.status(), 200, "{at_limit}");
    assert_eq!(client.ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").status(), 200);
    let (response, mut client) = answer(proxy, beyond);
    assert_eq!((response.status(), response.field("connection")), (status, "close"), "{beyond}");
    client.ends();
}

fn the_request_line(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = limited(driver, &origin, "requestLineBytes: 300");
    let request = |len: usize| {
        let rest = "GET / HTTP/1.1\r\n".len();
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(len - rest))
    };
    check(&proxy, &request(300), &request(301), 414);
    // Without an end, too: it is refused as soon as it is too long.
    let mut client = proxy.client();
    client.send(format!("GET /{}", "a".repeat(400)).as_bytes());
    assert_eq!(client.response("GET").status(), 414);
    client.ends();
    assert!(origin.requests().iter().all(|seen| seen.target().len() < 300));
    drop(client);
    proxy.finish();
}

fn the_head(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = limited(driver, &origin, "headerBytes: 1000");
    let request = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(len - rest))
    };
    check(&proxy, &request(1000), &request(1001), 431);
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "a".repeat(2000)).as_bytes());
    assert_eq!(client.response("GET").status(), 431);
    client.ends();
    drop(client);
    proxy.finish();
    // The largest head that can be set.
    let proxy = limited(driver, &origin, "headerBytes: 65535");
    check(&proxy, &request(65_535), &request(65_536), 431);
    proxy.finish();
}

fn the_count_of_fields(driver: &'static str) {
    let origin = Origin::echo();
    for (limits, most) in [("headerCount: 5", 5), ("headerCount: 256", 256), ("", 100)] {
        let proxy = limited(driver, &origin, limits);
        let request =
            |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        check(&proxy, &request(most), &request(most + 1), 431);
        proxy.finish();
    }
}

fn a_body_of_known_length(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = limited(driver, &origin, "bodyBytes: 1000");
    let request = |len: usize| {
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n{}", "a".repeat(len))
    };
    check(&proxy, &request(1000), &request(1001), 413);
    // Refused by its length alone, before any of it has come.
    let mut client = proxy.client();
    client.send(b"POST /never HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    let response = client.response("POST");
    assert_eq!((response.status(), response.interim.len()), (413, 0));
    client.ends();
    assert!(origin.requests().iter().all(|seen| seen.body.len() <= 1000 && seen.target() != "/never"));
    drop(client);
    proxy.finish();
}

fn a_chunked_body(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = limited(driver, &origin, "bodyBytes: 1000");
    let request = |len: usize, chunk: usize| {
        let body = "a".repeat(len);
        let chunks = body
            .as_bytes()
            .chunks(chunk)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), "a".repeat(chunk.len())));
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
    };
    for chunk in [1, 7, 1000, 2000] {
        check(&proxy, &request(1000, chunk), &request(1001, chunk), 413);
    }
    let whole = origin.requests();
    assert!(whole.iter().all(|seen| matches!(seen.body.len(), 0 | 1000)), "a body was cut short");
    proxy.finish();
}

fn requests_of_a_connection(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = limited(driver, &origin, "requestsPerConnection: 3");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5).as_bytes());
    for close in ["", "", "close"] {
        assert_eq!(client.response("GET").field("connection"), close);
    }
    client.ends();
    assert_eq!(origin.requests().len(), 3);
    drop(client);
    proxy.finish();
}

/// A client that is answered early and has more to send than would be read is told that the connection ends.
fn an_early_end_of_a_long_upload(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        while conn.head().is_some() {
            conn.wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let proxy = limited(driver, &origin, "");
    let (response, mut client) =
        answer(&proxy, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n");
    assert_eq!((response.status(), response.field("connection")), (403, "close"));
    client.ends();
    // A short rest is read, and the connection lives.
    let (response, mut client) = answer(&proxy, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n");
    assert_eq!((response.status(), response.has("connection")), (403, false));
    client.send(&[b'x'; 9000]);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status(), 403);
    drop(client);
    proxy.finish();
}
