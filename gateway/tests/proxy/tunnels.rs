//! Upgrades and CONNECT: after the switch every byte passes, both ways, until both sides have ended.

use std::io::Read;

use crate::message::{Client, Message, Wire};
use crate::origin::{Conn, Origin};
use crate::rig::{Setup, cases, eventually};

cases![
    bytes_pass_both_ways,
    what_came_with_the_heads_is_not_lost,
    the_client_ends_its_side_first,
    the_origin_ends_its_side_first,
    a_refused_upgrade_leaves_the_connection,
    a_refused_connect_ends_the_connection,
    connect_needs_the_leave_of_its_route,
    a_silent_tunnel_ends_and_nobody_is_to_blame,
    a_reset_of_the_client_reaches_the_origin,
    a_reset_of_the_origin_reaches_the_client,
    a_tunnel_moves_more_than_all_buffers_hold,
];

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &str = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
const CONNECTED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

/// Both ways into a tunnel: request, what the origin answers, status.
const KINDS: [(&str, &str, u16); 2] = [(WEBSOCKET, SWITCHED, 101), (CONNECT, CONNECTED, 200)];

fn method(request: &str) -> &str {
    request.split(' ').next().unwrap_or_default()
}

/// Answers the head as its method asks.
fn switch(conn: &mut Conn) -> Message {
    let head = conn.head().expect("a head");
    let answer = if head.method() == "CONNECT" { CONNECTED } else { SWITCHED };
    conn.wire.send(answer.as_bytes());
    head
}

fn open(client: &mut Client, request: &str, status: u16) -> Message {
    client.send(request.as_bytes());
    let response = client.response(method(request));
    assert_eq!(response.status(), status);
    response
}

/// A tunnel passes by every route and limit, so CONNECT was a way round them for whoever knew an origin that says 200.
fn connect_needs_the_leave_of_its_route(driver: &'static str) {
    let origin = Origin::script(|mut conn| drop(conn.head()));
    let config = format!(
        "routes: [{{ pool: o }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    let mut client = proxy.client();
    open(&mut client, CONNECT, 403);
    client.ends();
    assert_eq!(origin.connections(), 0);
    proxy.finish();
}

fn bytes_pass_both_ways(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        let head = switch(&mut conn);
        if head.method() == "GET" {
            assert_eq!((head.field("upgrade"), head.field("connection")), ("websocket", "upgrade"));
            assert_eq!(head.field("sec-websocket-version"), "13");
        } else {
            // RFC 9110 9.3.6: both name where the tunnel leads.
            assert_eq!((head.target(), head.field("host")), ("a.example:443", "a.example:443"));
        }
        loop {
            let mut byte = [0];
            if conn.wire.reader().read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            conn.wire.send(&[byte[0].wrapping_add(1)]);
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (request, _, status) in KINDS {
        let mut client = proxy.client();
        let response = open(&mut client, request, status);
        assert!(!response.has("content-length") && !response.has("transfer-encoding"), "{response:?}");
        assert_eq!(response.has("upgrade"), status == 101);
        assert_eq!(proxy.metric("tunnels_active"), 1);
        for byte in 0..100 {
            client.send(&[byte]);
            assert_eq!(client.exactly(1), [byte + 1]);
        }
        client.half_close();
        client.ends();
        proxy.await_metric("tunnels_active", |open| open == 0);
    }
    proxy.finish();
}

/// What the client sent behind its request waited until somebody spoke again.
fn what_came_with_the_heads_is_not_lost(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        let head = conn.head().expect("a head");
        let answer = if head.method() == "CONNECT" { CONNECTED } else { SWITCHED };
        conn.wire.send(format!("{answer}first of the origin").as_bytes());
        assert_eq!(conn.wire.exactly(19), b"first of the client");
        conn.wire.send(b", second");
        assert_eq!(conn.wire.exactly(8), b", second");
        conn.wire.send(b"!");
        conn.until_closed();
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (request, _, status) in KINDS {
        let mut client = proxy.client();
        client.send(format!("{request}first of the client").as_bytes());
        assert_eq!(client.response(method(request)).status(), status);
        assert_eq!(client.exactly(27), b"first of the origin, second");
        client.send(b", second");
        assert_eq!(client.exactly(1), b"!");
    }
    proxy.finish();
}

fn the_client_ends_its_side_first(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        let said = conn.wire.rest().expect("an orderly end");
        // Long after the client's end, in pieces that are read one by one.
        for part in said.chunks(4) {
            conn.wire.send(part);
            conn.wire.send(b"-");
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (request, _, status) in KINDS {
        let mut client = proxy.client();
        open(&mut client, request, status);
        client.send(b"all that I have to say");
        client.half_close();
        let rest = String::from_utf8(client.rest().expect("an orderly end")).expect("text");
        assert_eq!(rest, "all -that- I h-ave -to s-ay-");
    }
    proxy.finish();
}

/// The rest of what the client said was thrown away.
fn the_origin_ends_its_side_first(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        conn.wire.send(b"that was it");
        conn.wire.half_close();
        let said = conn.wire.rest().expect("an orderly end");
        assert_eq!(said.len(), 100_000);
        conn.note(&String::from_utf8_lossy(&said[said.len() - 4..]));
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (at, (request, _, status)) in KINDS.into_iter().enumerate() {
        let mut client = proxy.client();
        open(&mut client, request, status);
        // The end of the origin's side comes through while ours is open.
        assert_eq!(client.rest().expect("an orderly end"), b"that was it");
        for _ in 0..10 {
            client.send(&[b'x'; 10_000]);
        }
        client.half_close();
        eventually("the origin has it all", || origin.notes().len() == at + 1);
    }
    assert_eq!(origin.notes(), ["xxxx", "xxxx"]);
    proxy.finish();
}

fn a_refused_upgrade_leaves_the_connection(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.ask(WEBSOCKET);
        assert_eq!((response.status(), response.text().as_str()), (200, "GET /chat "));
        assert!(!response.has("upgrade"));
        assert_eq!(client.ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").text(), "GET /next ");
    }
    assert_eq!(origin.connections(), 1);
    drop(client);
    proxy.finish();
}

fn a_refused_connect_ends_the_connection(driver: &'static str) {
    let origin = Origin::answering(|_| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec());
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    // What follows was meant for the tunnel: it is no request.
    client.send(format!("{CONNECT}GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    let response = client.response("GET");
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    assert_eq!(response.field("connection"), "close");
    client.ends();
    assert_eq!(origin.requests().len(), 1);
    drop(client);
    proxy.finish();
}

/// A quiet tunnel counted against its origin, which was left out after three of them.
fn a_silent_tunnel_ends_and_nobody_is_to_blame(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        conn.until_closed();
    });
    let pool = format!("origins: [{{ address: \"{}\" }}], health: {{ max_fails: 1 }}", origin.addr);
    let log = "timeouts: { tunnel_idle: 0.1s }\naccess_log: { path: FOLDER/access.log }\n";
    let proxy = Setup::pool(driver, &pool, log).start();
    for (request, _, status) in KINDS {
        let mut client = proxy.client();
        open(&mut client, request, status);
        client.ends();
    }
    let lines = proxy.access_log(2);
    assert!(lines.iter().all(|line| line.contains("\"tunnel-idle\"")), "{lines:?}");
    for name in ["origin_ejections_total", "origin_bad_responses_total", "requests_aborted_total"] {
        assert_eq!(proxy.metric(name), 0, "{name}");
    }
    proxy.finish();
}

fn a_reset_of_the_client_reaches_the_origin(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        conn.wire.send(b"go");
        let end = conn.wire.rest();
        conn.note(&end.map_or_else(|error| error.kind().to_string(), |_| "in order".to_owned()));
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (at, (request, _, status)) in KINDS.into_iter().enumerate() {
        let mut client = proxy.client();
        open(&mut client, request, status);
        assert_eq!(client.exactly(2), b"go");
        client.reset();
        eventually("the origin's end", || origin.notes().len() == at + 1);
    }
    assert_eq!(origin.notes(), ["connection reset", "connection reset"]);
    proxy.finish();
}

fn a_reset_of_the_origin_reaches_the_client(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        conn.wire.exactly(2);
        conn.reset();
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (request, _, status) in KINDS {
        let mut client = proxy.client();
        open(&mut client, request, status);
        client.send(b"go");
        assert_eq!(client.rest().expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    }
    proxy.finish();
}

fn a_tunnel_moves_more_than_all_buffers_hold(driver: &'static str) {
    const BYTES: usize = 24 << 20;
    let origin = Origin::script(|mut conn| {
        switch(&mut conn);
        let mut back = Wire::over(conn.wire.stream().try_clone().expect("a descriptor"));
        let mut buf = vec![0; 64 << 10];
        loop {
            match conn.wire.reader().read(&mut buf) {
                Ok(0) | Err(_) => return,
                Ok(count) => back.send(&buf[..count]),
            }
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    open(&mut client, WEBSOCKET, 101);
    let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
    let sent = std::thread::spawn(move || {
        let block: Vec<u8> = (0..=255).cycle().take(256 << 10).collect();
        (0..BYTES / block.len()).for_each(|_| writer.send(&block));
        writer.half_close();
    });
    let back = client.rest().expect("an orderly end");
    assert_eq!(back.len(), BYTES);
    assert!(back.iter().zip((0..=255).cycle()).all(|(found, wanted)| *found == wanted));
    sent.join().expect("no panic");
    drop(client);
    proxy.finish();
}
