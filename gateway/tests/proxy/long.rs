//! Bodies that go from socket to socket: whole, to the byte, and in all that goes wrong as those that are copied.

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use crate::message::{Client, Wire};
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, breathe, cases, eventually, is_windows};

cases![
    responses_are_whole_and_connections_live,
    uploads_are_whole_and_so_is_the_request_behind,
    a_body_goes_both_ways_at_once,
    a_response_that_ends_too_early_is_cut,
    a_client_that_goes_ends_its_response,
    an_upload_that_ends_too_early_is_no_request,
    an_early_answer_leaves_what_is_not_uploaded,
    an_origin_that_resets_an_upload_is_at_fault,
    bytes_behind_a_response_end_its_connection,
    a_stalled_client_is_cut_and_a_slow_one_is_not,
    a_drain_waits_for_what_moves,
];

/// Splices from 64 KiB on, and never.
const HOW: [(&str, bool); 2] = [("65536", true), ("1000000000000", false)];

fn start(driver: &'static str, origin: &Origin, min: &str, more: &str) -> Proxy {
    let pool =
        format!("origins: [{{ address: \"{}\" }}], retries: 0, health: {{ max_fails: 0 }}", origin.addr);
    let more = format!(
        "runtime: {{ cores: 1, splice_min_bytes: {min} }}\naccess_log: {{ path: FOLDER/access.log }}\n{more}"
    );
    Setup::pool(driver, &pool, &more).start()
}

/// Runs `case` with splice and without: the outcomes are the same.
fn each(driver: &'static str, origin: impl Fn() -> Origin, more: &str, case: impl Fn(&Origin, &Proxy)) {
    for (min, splices) in HOW {
        // Where nothing can be spliced all is copied.
        let splices = splices && !is_windows();
        let origin = origin();
        let proxy = start(driver, &origin, min, more);
        case(&origin, &proxy);
        let spliced = proxy.metric("core_spliced_bytes");
        assert_eq!(spliced > 0, splices, "{spliced} bytes were spliced from {min} on");
        proxy.finish();
    }
}

/// Bytes in which each place differs from its neighbours near and far.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(7)) as u8).collect()
}

/// The length that a target ends with.
fn len(target: &str) -> usize {
    target.rsplit('/').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn get(len: usize) -> String {
    format!("GET /{len} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn post(len: usize) -> Vec<u8> {
    format!("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n").into_bytes()
}

fn head(len: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes()
}

/// Answers with as many bytes as the target says.
fn serving() -> Origin {
    Origin::script(|mut conn| {
        while let Some(request) = conn.request() {
            let len = len(request.target());
            // Made before the head is sent: it takes a debug build a while.
            let body = pattern(len);
            conn.wire.send(&head(len));
            conn.wire.send(&body);
        }
    })
}

fn responses_are_whole_and_connections_live(driver: &'static str) {
    let lens = [3 << 20, 65_536, 70_000, 1, 1_000_003, 0, 200_000, 131_072];
    each(driver, serving, "", |origin, proxy| {
        let mut client = proxy.client();
        for len in lens {
            let response = client.ask(&get(len));
            assert!(response.status() == 200 && response.body == pattern(len), "{len}");
        }
        // Pipelined, the requests are there while a response moves.
        client.send(lens.map(get).concat().as_bytes());
        for len in lens {
            assert!(client.response("GET").body == pattern(len), "{len}");
        }
        assert_eq!(origin.connections(), 1, "it is kept from one to the next");
        let lines = proxy.access_log(2 * lens.len());
        for (line, len) in lines.iter().zip(lens.iter().chain(&lens)) {
            assert!(line.contains(&format!("\" 200 {len} ")), "{len}: {line}");
        }
    });
}

fn uploads_are_whole_and_so_is_the_request_behind(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            while let Ok(Some(request)) = conn.wire.request() {
                let whole = request.body == pattern(request.body.len());
                let text = format!("{} {} {whole}", request.method(), request.body.len());
                conn.wire.send(crate::message::ok(&text).as_bytes());
            }
        })
    };
    each(driver, origin, "", |origin, proxy| {
        let mut client = proxy.client();
        let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
        let lens: Vec<usize> = (0..60).map(|round| 1 + (round * 77_777) % 1_500_000).collect();
        let sent = lens.clone();
        // Each request right behind the one before, in pieces that end anywhere.
        let writing = thread::spawn(move || {
            let mut all = Vec::new();
            for len in sent {
                all.extend(post(len));
                all.extend(pattern(len));
                all.extend(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
            }
            all.chunks(99_991).for_each(|piece| writer.send(piece));
        });
        for len in lens {
            assert_eq!(client.response("POST").text(), format!("POST {len} true"));
            assert_eq!(client.response("GET").text(), "GET 0 true");
        }
        writing.join().expect("no panic");
        assert_eq!(origin.connections(), 1);
    });
}

fn a_body_goes_both_ways_at_once(driver: &'static str) {
    const BYTES: usize = 8 << 20;
    let origin = || {
        Origin::script(|mut conn| {
            let Some(request) = conn.head() else { return };
            let len: usize = request.field("content-length").parse().expect("a length");
            let mut back = Wire::over(conn.wire.stream().try_clone().expect("a descriptor"));
            back.send(&head(len));
            let (mut buf, mut left) = (vec![0; 100_000], len);
            while left > 0 {
                let count = conn.wire.reader().read(&mut buf).unwrap_or(0);
                if count == 0 {
                    return;
                }
                back.send(&buf[..count]);
                left -= count;
            }
            conn.until_closed();
        })
    };
    each(driver, origin, "", |_, proxy| {
        let mut client = proxy.client();
        let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
        let writing = thread::spawn(move || {
            writer.send(&post(BYTES));
            writer.send(&pattern(BYTES));
        });
        assert!(client.response("POST").body == pattern(BYTES));
        writing.join().expect("no panic");
    });
}

fn a_response_that_ends_too_early_is_cut(driver: &'static str) {
    for reset in [false, true] {
        // Windows drops what it received when the reset comes, the head too.
        if reset && is_windows() {
            continue;
        }
        let origin = move || {
            Origin::script(move |mut conn| {
                conn.request();
                conn.wire.send(&head(1 << 20));
                conn.wire.send(&pattern((1 << 20) - 1));
                if reset {
                    conn.reset();
                }
            })
        };
        each(driver, origin, "", |_, proxy| {
            let mut client = proxy.client();
            client.send(get(1 << 20).as_bytes());
            let response = client.head().expect("a head").expect("a head");
            assert_eq!(response.status(), 200);
            // Its length tells that it is not whole, and nothing of what came is lost with a reset.
            let rest = client.rest().expect("an orderly end");
            if reset {
                assert!(rest.len() < 1 << 20);
            } else {
                assert!(rest == pattern((1 << 20) - 1), "{} bytes came", rest.len());
            }
            assert!(proxy.access_log(1)[0].contains("\"cut"), "{:?}", proxy.access_log(1));
        });
    }
}

fn a_client_that_goes_ends_its_response(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            conn.request();
            conn.wire.send(&head(1 << 30));
            let block = pattern(1 << 20);
            while conn.wire.try_send(&block).is_ok() {}
            conn.note("ended");
        })
    };
    each(driver, origin, "", |origin, proxy| {
        let mut client = proxy.client();
        client.send(get(1 << 30).as_bytes());
        assert_eq!(client.head().expect("a head").expect("a head").status(), 200);
        client.exactly(4 << 20);
        client.reset();
        eventually("the origin is told", || origin.notes().len() == 1);
        let line = &proxy.access_log(1)[0];
        assert!(line.contains("\"client-gone"), "{line}");
        let bytes: usize = line
            .split("\" 200 ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .expect("a count");
        assert!(bytes >= 4 << 20, "{line}");
    });
}

fn an_upload_that_ends_too_early_is_no_request(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            let whole = conn.wire.request();
            conn.note(if whole.is_err() { "cut" } else { "whole" });
        })
    };
    each(driver, origin, "", |origin, proxy| {
        let mut client = proxy.client();
        client.send(&post(1 << 20));
        client.send(&pattern((1 << 20) - 1));
        client.half_close();
        assert_eq!(client.response("POST").status(), 400);
        eventually("the origin sees the cut", || origin.notes() == ["cut"]);
    });
}

fn an_early_answer_leaves_what_is_not_uploaded(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            if conn.head().is_none() {
                return;
            }
            // Enough that the rest has begun to move.
            conn.wire.exactly(1 << 20);
            conn.wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
            conn.until_closed();
        })
    };
    each(driver, origin, "", |_, proxy| {
        let mut client = proxy.client();
        client.send(&post(64 << 20));
        client.send(&pattern(2 << 20));
        let response = client.response("POST");
        assert_eq!((response.status(), response.text().as_str()), (413, "no"));
        assert_eq!(response.field("connection"), "close");
        // What comes behind is no request, wherever the upload was cut.
        client.send(&vec![b'G'; 100_000]);
        client.half_close();
        let rest = client.rest().unwrap_or_default();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    });
}

fn an_origin_that_resets_an_upload_is_at_fault(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            if conn.head().is_some() {
                conn.wire.exactly(1 << 20);
                conn.reset();
            }
        })
    };
    each(driver, origin, "", |_, proxy| {
        let mut client = proxy.client();
        let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
        let writing = thread::spawn(move || {
            writer.send(&post(16 << 20));
            writer.send(&vec![0; 16 << 20]);
        });
        // The answer may be overtaken by the reset of a connection whose client still sends.
        match client.try_response("POST") {
            Ok(response) => assert_eq!(response.status(), 502),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        writing.join().expect("no panic");
        assert!(proxy.access_log(1)[0].contains("\"broken ("), "{:?}", proxy.access_log(1));
    });
}

/// They would be taken for the head of the next client's response.
fn bytes_behind_a_response_end_its_connection(driver: &'static str) {
    let origin = || {
        Origin::script(|mut conn| {
            while let Some(request) = conn.request() {
                let len = len(request.target());
                let mut all = head(len);
                all.extend(pattern(len));
                if conn.index == 0 {
                    all.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled");
                }
                conn.wire.send(&all);
            }
        })
    };
    each(driver, origin, "", |origin, proxy| {
        let mut client = proxy.client();
        // Both at once: the second takes the connection of the first as soon as it may.
        client.send([get(300_000), get(5)].concat().as_bytes());
        assert!(client.response("GET").body == pattern(300_000));
        let second = client.response("GET");
        // What has not come by then nobody can know of; then the connection fails, and the request is not repeated.
        if second.status() == 200 {
            assert!(second.body == pattern(5), "{:?}", second.text());
        }
        assert!(client.ask(&get(7)).body == pattern(7));
        assert_eq!(origin.connections(), 2);
    });
}

/// The time between two crumbs of a slow client.
const CRUMB: Duration = Duration::from_millis(150);

/// One that takes some now and then is not stalled, though the kernel says for long that there is no room.
fn a_stalled_client_is_cut_and_a_slow_one_is_not(driver: &'static str) {
    each(driver, serving, "timeouts: { write_idle: 2s, body_idle: 2s }\n", |_, proxy| {
        let all = pattern(24 << 20);
        let mut stalled = proxy.client();
        stalled.send(get(64 << 20).as_bytes());
        let mut slow = proxy.client();
        // The kernel opens a window again when a sixteenth of the buffer is free: one of its own choice may be so large that
        // nothing moves for longer than the timeout.
        rustix::net::sockopt::set_socket_recv_buffer_size(slow.stream(), 128 << 10).expect("a size");
        slow.send(get(24 << 20).as_bytes());
        assert_eq!(slow.head().expect("a head").expect("a head").status(), 200);
        // For longer than the timeout, and less in it than makes the kernel call the socket writable again.
        let (crumbs, rest) = all.split_at(36 * (64 << 10));
        let begin = Instant::now();
        for (crumb, due) in crumbs.chunks(64 << 10).zip(1..) {
            // By the clock: on a machine that is busy the pauses alone would add up to a client that is too slow.
            while begin.elapsed() < due * CRUMB {
                breathe();
            }
            assert!(slow.exactly(crumb.len()) == crumb);
        }
        assert!(slow.exactly(rest.len()) == rest);
        let lines = proxy.access_log(2);
        assert!(lines.iter().any(|line| line.contains("\"client-stalled")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("\" 200 25165824 ")), "{lines:?}");
        assert_eq!(stalled.rest().expect_err("cut").kind(), ErrorKind::ConnectionReset);
    });
}

fn a_drain_waits_for_what_moves(driver: &'static str) {
    for (min, splices) in HOW {
        let splices = splices && !is_windows();
        let origin = serving();
        let mut proxy = start(driver, &origin, min, "");
        let mut client: Client = proxy.client();
        client.send(get(32 << 20).as_bytes());
        assert_eq!(client.head().expect("a head").expect("a head").status(), 200);
        let mut body = client.exactly(1 << 20);
        assert_eq!(proxy.metric("core_spliced_bytes") > 0, splices);
        proxy.terminate();
        body.extend(client.rest().expect("whole, and an orderly end"));
        assert!(body == pattern(32 << 20));
        let (status, log) = proxy.exit();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}
