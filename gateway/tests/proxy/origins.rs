//! Origins that misbehave: nothing of a broken response is passed on, and a cut one never looks whole.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::message::ok;
use crate::origin::{Conn, Origin};
use crate::rig::{Proxy, Setup, cases, eventually, is_windows};

cases![
    a_broken_head_is_502_and_nothing_of_it_passes,
    a_broken_body_is_cut,
    a_body_that_ends_too_early_is_cut,
    a_body_until_close_is_whole_at_its_end,
    origins_that_speak_http_1_0,
    informational_responses_have_an_end,
    a_kept_connection_that_has_ended_is_not_used,
    a_kept_connection_that_died_is_replaced,
    a_request_that_may_not_be_repeated_is_not,
    what_was_sent_once_is_sent_again_whole,
    an_early_answer_survives_the_reset_behind_it,
    bytes_behind_a_response_end_the_connection,
    a_response_that_nobody_asked_for_is_nobodys,
    a_body_where_none_belongs_is_dropped,
];

/// One origin, one attempt, never left out.
fn strict(driver: &'static str, origin: &Origin, more: &str) -> Proxy {
    let pool =
        format!("origins: [{{ address: \"{}\" }}], retries: 0, health: {{ max_fails: 0 }}", origin.addr);
    Setup::pool(driver, &pool, more).start()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// The number that a target ends with.
fn number(target: &str) -> usize {
    target.rsplit('/').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn a_broken_head_is_502_and_nothing_of_it_passes(driver: &'static str) {
    let mut heads: Vec<String> = HEADS.iter().map(|head| (*head).to_owned()).collect();
    for byte in (0..=0x1f_u8).chain([0x7f]).filter(|byte| *byte != b'\t') {
        heads.push(format!("HTTP/1.1 200 OK\r\nX: a{}b\r\n\r\n", char::from(byte)));
    }
    heads.push(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101)));
    heads.push(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(33_000)));
    let count = heads.len();
    let origin = Origin::script(move |mut conn| {
        let Some(request) = conn.request() else { return };
        let answer = heads[number(request.target())].as_bytes();
        let piece =
            if request.target().starts_with("/whole") || answer.len() > 1_000 { answer.len() } else { 1 };
        answer.chunks(piece.max(1)).for_each(|part| conn.wire.send(part));
        if answer.ends_with(b"END") {
            conn.wire.half_close();
        }
        conn.until_closed();
        conn.note("closed");
    });
    let proxy = strict(driver, &origin, "access_log: { path: FOLDER/access.log }\n");
    let mut client = proxy.client();
    let mut asked = 0;
    for at in 0..count {
        for split in ["whole", "split"] {
            let response = client.ask(&get(&format!("/{split}/{at}")));
            let what = HEADS.get(at).unwrap_or(&"control byte or limit");
            assert_eq!(response.status(), 502, "{split} {at} {what}: {response:?}");
            assert!(response.text().contains("did not answer properly"), "{response:?}");
            asked += 1;
            eventually("the origin's connection ends", || origin.notes().len() == asked);
        }
    }
    assert_eq!(origin.connections(), asked, "none was used again");
    assert_eq!(proxy.metric("origin_bad_responses_total"), asked as i64);
    let lines = proxy.access_log(asked);
    assert!(lines.iter().all(|line| line.contains("\" 502 0 ") && line.contains("\"broken (")), "{lines:?}");
    drop(client);
    proxy.finish();
}

/// Responses to GET; the origin ends its side behind those that say END.
const HEADS: &[&str] = &[
    "nonsense\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "\r\n\r\n",
    "200 OK\r\n\r\n",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 \r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1 +20 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "http/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 O\rK\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "END",
    "HTTP/1.1 200 OK\r\nEND",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: END",
];

fn a_broken_body_is_cut(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        let Some(request) = conn.request() else { return };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        conn.wire.send(format!("{head}{}", BODIES[number(request.target())]).as_bytes());
        conn.until_closed();
        conn.note("closed");
    });
    let proxy = strict(driver, &origin, "");
    let mut asked = 0;
    for (at, body) in BODIES.iter().enumerate() {
        for version in ["1.1", "1.0"] {
            let mut client = proxy.client();
            client.send(format!("GET /{at} HTTP/{version}\r\nHost: h\r\n\r\n").as_bytes());
            check_cut(&mut client, body, version, "hello");
            asked += 1;
            eventually("the origin's connection ends", || origin.notes().len() == asked);
        }
    }
    assert_eq!(proxy.metric("requests_aborted_total"), asked as i64);
    proxy.finish();
}

/// Behind a good chunk.
const BODIES: &[&str] = &[
    "zz\r\n",
    "0x5\r\nEVIL!\r\n",
    " 5\r\nEVIL!\r\n",
    "5\nEVIL!\r\n",
    "5\r\nEVIL!EVIL",
    "10000000000000005\r\nEVIL!\r\n",
    "0\n\n",
    "0\r\nContent-Length: 3\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nX: y\r\n z\r\n\r\n",
];

/// What came of the response is passed on, and its end shows that it is not whole: by its length or its chunks for HTTP/1.1,
/// which a reset would have taken with it; by a reset for HTTP/1.0, where nothing else tells of the end of chunks.
fn check_cut(client: &mut crate::message::Client, what: &str, version: &str, came: &str) {
    let mut seen = Vec::new();
    let end = std::io::Read::read_to_end(client.reader(), &mut seen);
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(!seen.ends_with("0\r\n\r\n"), "{what:?}: looks whole: {seen:?}");
    let shows = version == "1.1" || seen.contains("ontent-") || what.contains("Content-Length: 10");
    if shows {
        assert!(end.is_ok(), "{what:?}: {end:?} behind {seen:?}");
        let body = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(body.contains(came), "{what:?}: {came:?} is lost: {seen:?}");
    } else {
        let kind = end.expect_err(&format!("{what:?}: an orderly end behind {seen:?}")).kind();
        assert_eq!(kind, ErrorKind::ConnectionReset, "{what:?}");
    }
}

fn a_body_that_ends_too_early_is_cut(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        let Some(request) = conn.request() else { return };
        conn.wire.send(CUTS[number(request.target())].as_bytes());
        // The proxy has passed it on before the end comes.
        conn.note("sent");
        let _ = conn.wire.line();
        if request.target().starts_with("/reset") {
            conn.reset()
        }
    });
    let proxy = strict(driver, &origin, "timeouts: { body_idle: 0.1s }\n");
    for (at, response) in CUTS.iter().enumerate() {
        for version in ["1.1", "1.0"] {
            let mut client = proxy.client();
            client.send(format!("GET /stall/{at} HTTP/{version}\r\nHost: h\r\n\r\n").as_bytes());
            check_cut(&mut client, response, version, "123");
        }
    }
    proxy.finish();
    let gone = Origin::script(|mut conn| {
        let Some(request) = conn.request() else { return };
        conn.wire.send(CUTS[number(request.target())].as_bytes());
        if request.target().starts_with("/reset") {
            conn.reset()
        }
    });
    let proxy = strict(driver, &gone, "");
    for (at, response) in CUTS.iter().enumerate() {
        for (how, version) in [("reset", "1.1"), ("close", "1.1"), ("reset", "1.0"), ("close", "1.0")] {
            // Windows drops what it received when the reset comes, the head too.
            if how == "reset" && is_windows() {
                continue;
            }
            // What no length ends, a close ends.
            if how == "close" && !response.contains("Content-Length") && !response.contains("chunked") {
                continue;
            }
            let mut client = proxy.client();
            client.send(format!("GET /{how}/{at} HTTP/{version}\r\nHost: h\r\n\r\n").as_bytes());
            // With a reset of the origin what it had sent may be gone.
            let came = if how == "close" { "123" } else { "" };
            check_cut(&mut client, response, version, came);
        }
    }
    proxy.finish();
}

const CUTS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "HTTP/1.1 200 OK\r\n\r\n12345",
];

fn a_body_until_close_is_whole_at_its_end(driver: &'static str) {
    for first in ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK"] {
        let origin = Origin::script(move |mut conn| {
            if conn.request().is_some() {
                conn.wire.send(format!("{first}\r\nContent-Type: a/b\r\n\r\nall of it").as_bytes());
            }
        });
        let proxy = strict(driver, &origin, "");
        let mut client = proxy.client();
        for _ in 0..2 {
            let response = client.ask(&get("/"));
            assert_eq!((response.status(), response.text().as_str()), (200, "all of it"));
            assert_eq!(response.field("transfer-encoding"), "chunked");
        }
        let mut old = proxy.client();
        let response = old.ask("GET / HTTP/1.0\r\n\r\n");
        assert_eq!((response.text().as_str(), response.has("transfer-encoding")), ("all of it", false));
        assert_eq!(origin.connections(), 3);
        drop(client);
        drop(old);
        proxy.finish();
    }
}

fn origins_that_speak_http_1_0(driver: &'static str) {
    let origin = Origin::answering(|request| match request.target() {
        "/kept" => b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        _ => b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for (target, connections) in [("/kept", 1), ("/kept", 1), ("/", 1), ("/", 2), ("/kept", 3)] {
        let response = client.ask(&get(target));
        assert_eq!((response.first.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
        assert!(!response.has("keep-alive") && !response.has("connection"), "{response:?}");
        assert_eq!(origin.connections(), connections, "{target}");
    }
    assert!(origin.requests().iter().all(|seen| seen.first.ends_with("HTTP/1.1")));
    drop(client);
    proxy.finish();
}

fn informational_responses_have_an_end(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(number(request.target()));
        (interim + &ok("done")).into_bytes()
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    let response = client.ask(&get("/16"));
    assert_eq!((response.status(), response.interim.len()), (200, 16));
    for count in [17, 10_000] {
        let response = client.ask(&get(&format!("/{count}")));
        assert_eq!((response.status(), response.interim.len()), (502, 16), "{count}");
    }
    assert_eq!(client.ask(&get("/0")).text(), "done");
    drop(client);
    proxy.finish();
}

/// An end that came before the request is seen before it: even what may not be repeated is safe.
fn a_kept_connection_that_has_ended_is_not_used(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        if let Some(request) = conn.request() {
            conn.wire.send(ok(request.target()).as_bytes());
            let _ = conn.wire.stream().shutdown(std::net::Shutdown::Both);
            conn.note("ended");
        }
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for at in 0..20 {
        let response =
            client.ask(&format!("POST /{at} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"));
        assert_eq!((response.status(), response.text()), (200, format!("/{at}")));
        eventually("the origin has ended it", || origin.notes().len() == at + 1);
    }
    assert_eq!((origin.connections(), proxy.metric("retries_total")), (20, 0));
    drop(client);
    proxy.finish();
}

/// Each connection answers one request, and closes when the second has come: as an origin whose keep-alive ends just
/// then looks from the proxy.
fn one_each(mut conn: Conn) {
    let Some(first) = conn.request() else { return };
    conn.wire.send(ok(first.target()).as_bytes());
    let _ = conn.request();
}

fn a_kept_connection_that_died_is_replaced(driver: &'static str) {
    let origin = Origin::script(one_each);
    // Without further attempts, and one failure would leave the origin out.
    let pool =
        format!("origins: [{{ address: \"{}\" }}], retries: 0, health: {{ max_fails: 1 }}", origin.addr);
    let proxy = Setup::pool(driver, &pool, "").start();
    // Several connections that are all dead: the first one that fails makes a fresh one be used.
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n");
    }
    for client in &mut clients {
        client.send(b"\r\n");
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.response("GET").status(), 200));
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "GET"] {
        let response = clients[0].ask(&format!("{method} /next HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((response.status(), response.text().as_str()), (200, "/next"), "{method}");
    }
    assert_eq!(proxy.metric("retries_total"), 5);
    assert_eq!(proxy.metric("origin_ejections_total"), 0);
    drop(clients);
    proxy.finish();
}

fn a_request_that_may_not_be_repeated_is_not(driver: &'static str) {
    let origin = Origin::script(one_each);
    let pool =
        format!("origins: [{{ address: \"{}\" }}], retries: 3, health: {{ max_fails: 0 }}", origin.addr);
    let proxy = Setup::pool(driver, &pool, "").start();
    let mut client = proxy.client();
    for (at, request) in [
        "POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
        "POST /1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
        "PATCH /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "PUT /5 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(client.ask(&get("/first")).status(), 200);
        assert_eq!(client.ask(request).status(), 502, "{request}");
        let seen = origin.requests();
        assert_eq!(seen.iter().filter(|seen| seen.target() == format!("/{at}")).count(), 1, "{request}");
    }
    assert_eq!(proxy.metric("retries_total"), 0);
    drop(client);
    proxy.finish();
}

/// The second attempt said that chunks follow, and none did: the origin waited for them.
fn what_was_sent_once_is_sent_again_whole(driver: &'static str) {
    let origin = Origin::script(one_each);
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for body in ["Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: 0\r\n\r\n"] {
        assert_eq!(client.ask(&get("/first")).status(), 200);
        let response = client.ask(&format!("PUT /again HTTP/1.1\r\nHost: h\r\n{body}"));
        assert_eq!((response.status(), response.text().as_str()), (200, "/again"));
        // The connection of the second attempt is kept, as any other.
        proxy.await_metric("origin_idle", |kept| kept == 1);
        assert_eq!(client.ask(&get("/last")).status(), 200);
    }
    assert_eq!(origin.requests().iter().filter(|seen| seen.target() == "/again").count(), 4);
    drop(client);
    proxy.finish();
}

fn an_early_answer_survives_the_reset_behind_it(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        if conn.head().is_some() {
            conn.wire
                .send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
            // Unread bytes at the close reset the connection.
        }
    });
    let proxy = strict(driver, &origin, "");
    for _ in 0..5 {
        let mut client = proxy.client();
        let mut writer = crate::message::Wire::over(client.stream().try_clone().expect("a descriptor"));
        let sending = std::thread::spawn(move || {
            writer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 800000\r\n\r\n");
            writer.send(&vec![b'x'; 800_000]);
        });
        let response = client.response("POST");
        assert_eq!((response.status(), response.text().as_str()), (413, "big"));
        sending.join().expect("no panic");
    }
    proxy.finish();
}

fn bytes_behind_a_response_end_the_connection(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let mut answer = ok(request.target());
        answer += "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
        answer.into_bytes()
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for at in 0..5 {
        assert_eq!(client.ask(&get(&format!("/{at}"))).text(), format!("/{at}"));
    }
    assert_eq!(origin.connections(), 5);
    drop(client);
    proxy.finish();
}

fn a_response_that_nobody_asked_for_is_nobodys(driver: &'static str) {
    let told = Arc::new(AtomicUsize::new(0));
    let tell = told.clone();
    let origin = Origin::script(move |mut conn| {
        while let Some(request) = conn.request() {
            conn.wire.send(ok(request.target()).as_bytes());
            eventually("the test says so", || tell.load(Ordering::SeqCst) > conn.index);
            conn.wire.send(ok("EVIL").as_bytes());
            conn.note("sent");
        }
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for at in 0..3 {
        assert_eq!(client.ask(&get(&format!("/{at}"))).text(), format!("/{at}"));
        proxy.await_metric("origin_idle", |kept| kept == 1);
        told.fetch_add(1, Ordering::SeqCst);
        eventually("the origin has sent it", || origin.notes().len() == at + 1);
        // The look over the kept connections ends it, if no request comes first.
        proxy.await_metric("origin_idle", |kept| kept == 0);
    }
    assert_eq!(origin.connections(), 3);
    drop(client);
    proxy.finish();
}

fn a_body_where_none_belongs_is_dropped(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let (status, length) = match request.target() {
            "/204" => ("204 No Content", "Content-Length: 4\r\n"),
            "/204/chunked" => ("204 No Content", "Transfer-Encoding: chunked\r\n"),
            "/304" => ("304 Not Modified", "Content-Length: 4\r\n"),
            "/304/none" => ("304 Not Modified", ""),
            _ => ("200 OK", "Content-Length: 4\r\n"),
        };
        let body = if request.target() == "/ok" { "fine" } else { "EVIL" };
        format!("HTTP/1.1 {status}\r\n{length}\r\n{body}").into_bytes()
    });
    let proxy = strict(driver, &origin, "");
    let mut client = proxy.client();
    for (method, target, status, length) in [
        ("HEAD", "/head", 200, "4"),
        ("GET", "/204", 204, ""),
        ("GET", "/204/chunked", 204, ""),
        ("GET", "/304", 304, "4"),
        ("GET", "/304/none", 304, ""),
        ("HEAD", "/304", 304, "4"),
    ] {
        let response = client.ask(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((response.status(), response.field("content-length")), (status, length), "{target}");
        assert!(!response.has("transfer-encoding"), "{response:?}");
        assert_eq!(client.ask(&get("/ok")).text(), "fine", "behind {method} {target}");
    }
    drop(client);
    proxy.finish();
}
