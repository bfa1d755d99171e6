//! Requests that two implementations could read differently are refused, and an origin sees nothing of them.

use std::io::Read;
use std::sync::{Arc, Mutex};

use crate::message::Client;
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, cases, eventually};

cases![
    faults_in_a_head_reach_no_origin,
    faults_in_a_body_never_complete_a_request,
    another_protocol_is_refused_at_once,
    a_fault_behind_a_good_request_ends_the_connection_only,
    what_looks_odd_but_is_right_passes,
    a_refusal_after_head_has_its_body,
    an_upgrade_to_h2c_is_no_upgrade,
];

/// Sent whole, and byte by byte.
const PIECES: [usize; 2] = [usize::MAX, 1];

/// What would be a request of its own if the one before it were framed differently.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn deliver(client: &mut Client, bytes: &[u8], piece: usize) {
    for part in bytes.chunks(piece.min(bytes.len().max(1))) {
        // A refusal may come, and the connection end, before everything is sent.
        if client.try_send(part).is_err() {
            return;
        }
    }
}

/// Refused with `status`, and the connection ended in order.
fn check_refused(proxy: &Proxy, request: &[u8], status: u16, what: &str) {
    for piece in PIECES {
        let mut client = proxy.client();
        deliver(&mut client, request, piece);
        let response = client.try_response("GET");
        let response = response.unwrap_or_else(|error| panic!("{what}, by {piece}: {error}"));
        assert_eq!(response.status(), status, "{what}, by {piece}: {}", response.text());
        assert_eq!(response.field("connection"), "close", "{what}, by {piece}");
        client.ends();
    }
}

fn faults_in_a_head_reach_no_origin(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "limits: { body_bytes: 1000000 }\n").start();
    for (what, head, status) in HEADS {
        check_refused(&proxy, format!("{head}{SMUGGLED}").as_bytes(), *status, what);
    }
    for (what, fields, status) in FIELDS {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n{SMUGGLED}");
        check_refused(&proxy, request.as_bytes(), *status, what);
    }
    for byte in (0..=0x1f_u8).chain([0x7f]).filter(|byte| *byte != b'\t') {
        for (before, after) in [("X-A: b", "c"), ("X-A", "b: c"), ("X-A: ", "")] {
            let request = [b"GET / HTTP/1.1\r\nHost: h\r\n", before.as_bytes(), &[byte], after.as_bytes()];
            let request = [&request.concat()[..], b"\r\n\r\n", SMUGGLED.as_bytes()].concat();
            check_refused(&proxy, &request, 400, &format!("byte {byte:#x} behind {before:?}"));
        }
    }
    assert_eq!(origin.connections(), 0, "{:?}", origin.requests());
    proxy.finish();
}

/// Whole heads.
const HEADS: &[(&str, &str, u16)] = &[
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    ("two different Hosts", "GET / HTTP/1.1\r\nHost: h\r\nhost: i\r\n\r\n", 400),
    ("two Hosts of an absolute target", "GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400),
    ("an absolute target without Host", "GET http://h/ HTTP/1.1\r\n\r\n", 400),
    ("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("Host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("Host with a port over 65535", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("Host with a bare IPv6", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
    ("folded first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: h\n\n", 400),
    ("bare LF behind the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
    ("bare CR behind the request line", "GET / HTTP/1.1\rHost: h\r\n\r\n", 400),
    ("bare LF behind a field", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    ("bare LF as the empty line", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    ("bare CR as the empty line", "GET / HTTP/1.1\r\nHost: h\r\n\rX", 400),
    ("CR CR LF", "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
    ("two empty lines in front", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("bare LF in front", "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("blank in front", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("bad method byte", "GE[T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("no method", "/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two blanks before the target", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two blanks before the version", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("blank behind the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    ("tab in the request line", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("blank in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("DEL in the target", "GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("byte above ASCII in the target", "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("fragment in the target", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("relative target", "GET foo HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("star without OPTIONS", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("authority without CONNECT", "GET a:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("another scheme", "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("user in an absolute target", "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("path with CONNECT", "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("CONNECT without port", "CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("CONNECT with a length", "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 400),
    (
        "chunked CONNECT",
        "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("version 1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
    ("version 2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ("what is almost the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", 505),
    ("version in small letters", "GET / http/1.1\r\nHost: h\r\n\r\n", 400),
    ("version without number", "GET / HTTP/\r\nHost: h\r\n\r\n", 400),
    ("HTTP/0.9", "GET /\r\n\r\n", 400),
    ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "both lengths in HTTP/1.0",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", 400),
];

/// Fields of a POST.
const FIELDS: &[(&str, &str, u16)] = &[
    ("CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    ("CL.TE with length 0", "Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
    ("TE xchunked", "Transfer-Encoding: xchunked", 501),
    ("TE chunked, identity", "Transfer-Encoding: chunked, identity", 400),
    ("TE identity, chunked", "Transfer-Encoding: identity, chunked", 501),
    ("TE gzip", "Transfer-Encoding: gzip", 501),
    ("TE gzip, chunked", "Transfer-Encoding: gzip, chunked", 501),
    ("TE identity", "Transfer-Encoding: identity", 501),
    ("TE chunked twice in a list", "Transfer-Encoding: chunked, chunked", 400),
    ("TE chunked and identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
    ("TE chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    ("TE empty", "Transfer-Encoding:", 400),
    ("TE with a comma", "Transfer-Encoding: chunked,", 400),
    ("TE with a parameter", "Transfer-Encoding: chunked;q=1", 400),
    ("TE quoted", "Transfer-Encoding: \"chunked\"", 400),
    ("TE behind a vertical tab", "Transfer-Encoding: \x0bchunked", 400),
    ("TE before a form feed", "Transfer-Encoding: chunked\x0c", 400),
    ("TE with a blank before the colon", "Transfer-Encoding : chunked", 400),
    ("TE with a tab before the colon", "Transfer-Encoding\t: chunked", 400),
    ("TE folded", "Transfer-Encoding:\r\n chunked", 400),
    ("TE folded with a tab", "X: y\r\n\tTransfer-Encoding: chunked", 400),
    ("TE behind a blank", "X: y\r\n Transfer-Encoding: chunked", 400),
    ("TE behind a bare LF", "X: y\nTransfer-Encoding: chunked", 400),
    ("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked", 400),
    ("CL with a blank before the colon", "Content-Length : 5", 400),
    ("CL differing", "Content-Length: 5\r\nContent-Length: 6", 400),
    ("CL twice the same", "Content-Length: 5\r\nContent-Length: 5", 400),
    ("CL list", "Content-Length: 5, 5", 400),
    ("CL list that differs", "Content-Length: 5,6", 400),
    ("CL +5", "Content-Length: +5", 400),
    ("CL -5", "Content-Length: -5", 400),
    ("CL -0", "Content-Length: -0", 400),
    ("CL 0x5", "Content-Length: 0x5", 400),
    ("CL 5.0", "Content-Length: 5.0", 400),
    ("CL 5e0", "Content-Length: 5e0", 400),
    ("CL empty", "Content-Length:", 400),
    ("CL quoted", "Content-Length: \"5\"", 400),
    ("CL with a blank inside", "Content-Length: 5 0", 400),
    ("CL of 20 digits", "Content-Length: 18446744073709551621", 400),
    ("CL of 30 digits", "Content-Length: 000000000000000000000000000005", 400),
    ("CL in other digits", "Content-Length: \u{665}", 400),
    ("name empty", ": y", 400),
    ("name without colon", "X-Y", 400),
    ("name with a blank", "X Y: z", 400),
    ("name with a bracket", "X(Y: z", 400),
    ("name above ASCII", "X\u{e9}: z", 400),
    ("value folded", "X: y\r\n z", 400),
    ("value folded into nothing", "X: y\r\n \r\nZ: z", 400),
    ("Connection with a blank inside", "Connection: a b", 400),
    ("expectation that nobody knows", "Expect: 200-ok", 417),
];

/// An origin that keeps what comes and says nothing.
fn recording() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let origin = Origin::script(move |mut conn| {
        let mut bytes = Vec::new();
        // Ended by a reset: what comes without its end is cut off.
        let _ = conn.wire.reader().read_to_end(&mut bytes);
        sink.lock().expect("no panic").push(String::from_utf8_lossy(&bytes).into_owned());
    });
    (origin, seen)
}

fn faults_in_a_body_never_complete_a_request(driver: &'static str) {
    let (origin, seen) = recording();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    let many_extensions = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100) + "0\r\n\r\n";
    let long_trailers = format!("0\r\nX: {}\r\n\r\n", "y".repeat(9_000));
    let bodies = BODIES.iter().copied().chain([
        ("extension over 256 bytes", long_extension.as_str(), 400),
        ("extensions over 16 KiB", many_extensions.as_str(), 400),
        ("trailers over 8 KiB", long_trailers.as_str(), 431),
    ]);
    let mut count = 0;
    for (what, body, status) in bodies {
        let request =
            format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}");
        check_refused(&proxy, request.as_bytes(), status, what);
        count += PIECES.len();
        eventually("the origin's connection ends", || seen.lock().expect("no panic").len() == count);
    }
    for seen in seen.lock().expect("no panic").iter() {
        let whole = seen.ends_with("\r\n0\r\n\r\n") || seen.contains("\r\n0\r\nX");
        assert!(!whole && !seen.contains("smuggled") && !seen.contains("content-length"), "{seen}");
    }
    proxy.finish();
}

/// Chunked bodies.
const BODIES: &[(&str, &str, u16)] = &[
    ("size 0x5", "0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("size +5", "+5\r\nhello\r\n0\r\n\r\n", 400),
    ("size -5", "-5\r\nhello\r\n0\r\n\r\n", 400),
    ("size behind a blank", " 5\r\nhello\r\n0\r\n\r\n", 400),
    ("size before a blank", "5 \r\nhello\r\n0\r\n\r\n", 400),
    ("size empty", "\r\nhello\r\n0\r\n\r\n", 400),
    ("size g", "g\r\nhello\r\n0\r\n\r\n", 400),
    ("size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n", 400),
    ("size over 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    ("size of 20 digits", "00000000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    ("size ends with a bare LF", "5\nhello\r\n0\r\n\r\n", 400),
    ("size ends with a bare CR", "5\rhello\r\n0\r\n\r\n", 400),
    ("extension ends with a bare LF", "5;a\nhello\r\n0\r\n\r\n", 400),
    ("extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
    ("extension with LF inside", "5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    ("extension with NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n", 400),
    ("data ends with a bare LF", "5\r\nhello\n0\r\n\r\n", 400),
    ("data ends with a bare CR", "5\r\nhello\r0\r\n\r\n", 400),
    ("data over its size", "5\r\nhelloo\r\n0\r\n\r\n", 400),
    ("data under its size", "6\r\nhello\r\n0\r\n\r\n", 400),
    ("last chunk ends with a bare LF", "5\r\nhello\r\n0\n\r\n", 400),
    ("empty line is a bare LF", "5\r\nhello\r\n0\r\n\n", 400),
    ("trailer sets a length", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", 400),
    ("trailer sets a coding", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("trailer sets a host", "5\r\nhello\r\n0\r\nHost: i\r\n\r\n", 400),
    ("trailer sets credentials", "5\r\nhello\r\n0\r\nAuthorization: x\r\n\r\n", 400),
    ("trailer folded", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", 400),
    ("trailer without colon", "5\r\nhello\r\n0\r\nX\r\n\r\n", 400),
    ("trailer with a blank before the colon", "5\r\nhello\r\n0\r\nX : y\r\n\r\n", 400),
];

/// What may never send the end of a line is refused at its first byte, not at a deadline.
fn another_protocol_is_refused_at_once(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "timeouts: { header: 3600s }\n").start();
    for first in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0", b"\xff", b"{", b" "] {
        let mut client = proxy.client();
        client.send(first);
        assert_eq!(client.response("GET").status(), 400, "{first:?}");
        client.ends();
    }
    assert_eq!(origin.connections(), 0);
    proxy.finish();
}

fn a_fault_behind_a_good_request_ends_the_connection_only(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    for piece in PIECES {
        let mut client = proxy.client();
        let good = "POST /good HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
        deliver(&mut client, format!("{good}{good}GET /bad\r\n\r\n{SMUGGLED}").as_bytes(), piece);
        assert_eq!(client.response("POST").text(), "POST /good abc");
        assert_eq!(client.response("POST").text(), "POST /good abc");
        assert_eq!(client.response("GET").status(), 400);
        client.ends();
    }
    let targets: Vec<String> = origin.requests().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/good"; 4]);
    proxy.finish();
}

fn what_looks_odd_but_is_right_passes(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (request, expected) in [
        ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / "),
        ("GET http://a:80/x?y HTTP/1.1\r\nHost: b\r\n\r\n", "GET /x?y "),
        ("GET http://a?y HTTP/1.1\r\nHost: b\r\n\r\n", "GET /?y "),
        ("OPTIONS http://a HTTP/1.1\r\nHost: b\r\n\r\n", "OPTIONS * "),
        ("GET /%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%0d%0aX:%20y "),
        ("GET / HTTP/1.1\r\nhOST:h\r\nX:\t y \t\r\n\r\n", "GET / "),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX: \u{e9}\r\n\r\n", "GET / "),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "GET / abc"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0000000005\r\n\r\nhello", "POST / hello"),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / "),
        (
            "DELETE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n0005;a=\"b\"\r\nhello\r\n0\r\n\r\n",
            "DELETE / hello",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 ;a\r\nhello\r\n00\r\n\r\n",
            "POST / hello",
        ),
    ] {
        for piece in PIECES {
            let mut client = proxy.client();
            deliver(&mut client, format!("{request}GET /next HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(), piece);
            let response = client.response("GET");
            assert_eq!((response.status(), response.text().as_str()), (200, expected), "{request}");
            assert_eq!(client.response("GET").text(), "GET /next ", "{request}");
        }
    }
    proxy.finish();
}

/// A refusal was sent without its body where the request before it had been HEAD.
fn a_refusal_after_head_has_its_body(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nbad\r\n\r\n");
    assert_eq!(client.response("HEAD").status(), 200);
    let response = client.response("GET");
    assert_eq!((response.status(), response.body.is_empty()), (400, false));
    client.ends();
    drop(client);
    proxy.finish();
}

/// HTTP/2 in the clear behind an upgrade would pass every route and every limit by. RFC 9113 has dropped it; clients
/// that still offer it take an answer in HTTP/1.1.
fn an_upgrade_to_h2c_is_no_upgrade(driver: &'static str) {
    let origin = Origin::answering(|request| {
        assert!(!request.has("upgrade") && !request.has("http2-settings"), "{request:?}");
        crate::message::ok(&request.text()).into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for (method, upgrade, body) in [
        ("GET", "h2c", ""),
        ("POST", "h2c", "body"),
        ("GET", "websocket, H2C", ""),
        ("POST", "websocket", "x"),
    ] {
        let response = client.ask(&format!(
            "{method} / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!((response.status(), response.text().as_str()), (200, body), "{method} {upgrade}");
    }
    drop(client);
    proxy.finish();
}
