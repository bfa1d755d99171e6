//! What the access log, `/metrics` and `/healthz` say of what was done.

use crate::message::{Client, ok};
use crate::origin::Origin;
use crate::rig::{Setup, cases, eventually};

cases![
    a_line_tells_what_was_asked_and_answered,
    a_line_cannot_be_forged,
    a_line_per_request_in_order,
    a_log_that_cannot_be_written_is_told_once,
    a_renamed_log_is_opened_anew_on_hangup,
    counters_say_what_was_done,
    metrics_are_prometheus_text,
    the_admin_listener_says_how_it_is,
];

const LOG: &str = "accessLog: { path: FOLDER/access.log }\n";

fn a_line_tells_what_was_asked_and_answered(driver: &'static str) {
    let origin = Origin::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ => ok("12345").into_bytes(),
    });
    let proxy = Setup::to(driver, origin.addr, LOG).start();
    let mut client = proxy.client();
    client.ask("GET /a?b=c HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
    client.ask("DELETE /204 HTTP/1.1\r\nHost: h\r\n\r\n");
    client.ask("GET http://b.example/x HTTP/1.1\r\nHost: h\r\n\r\n");
    client.ask("GET / HTTP/1.0\r\n\r\n");
    let lines = proxy.access_log(4);
    for (line, (asked, answered)) in lines.iter().zip([
        ("\"GET a.example:80 /a?b=c\"", " 200 5 "),
        ("\"DELETE h /204\"", " 204 0 "),
        ("\"GET b.example http://b.example/x\"", " 200 5 "),
        ("\"GET - /\"", " 200 5 "),
    ]) {
        let mut words = line.split(' ');
        let time = words.next().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        assert_eq!(words.next(), Some("127.0.0.1"));
        assert!(line.contains(&format!("{asked}{answered}")), "{line}");
        assert!(line.ends_with(&format!(" {} \"ok\"", origin.addr)), "{line}");
        let millis: f64 = line.rsplit(' ').nth(2).and_then(|word| word.parse().ok()).expect("milliseconds");
        assert!((0.0..20_000.0).contains(&millis), "{line}");
    }
    drop(client);
    proxy.finish();
}

fn a_line_cannot_be_forged(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, LOG).start();
    let target = "/\"%0A200\\\u{27}";
    proxy.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    proxy.client().ask("GET / HTTP/1.1\r\nHost: h\r\n\u{1b}[2J: x\r\n\r\n");
    let lines = proxy.access_log(2);
    assert!(lines[0].contains("\"GET h /\\\"%0A200\\\\\\'\" 200 "), "{}", lines[0]);
    assert!(lines[1].contains("\"- - -\" 400 0 0.000 - \"bad-request (malformed field)\""), "{}", lines[1]);
    assert!(lines.iter().all(|line| line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')));
    proxy.finish();
}

fn a_line_per_request_in_order(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, LOG).start();
    let mut client = proxy.client();
    let all: String = (0..500).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(all.as_bytes());
    (0..500).for_each(|_| assert_eq!(client.response("GET").status(), 200));
    let lines = proxy.access_log(500);
    for (at, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!("\"GET h /{at}\"")), "{line}");
    }
    assert_eq!((lines.len(), proxy.metric("log_dropped_total")), (500, 0));
    drop(client);
    proxy.finish();
}

/// A full disk must not fill standard error as well, a line per request.
fn a_log_that_cannot_be_written_is_told_once(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "accessLog: { path: /dev/full }\n").start();
    let mut client = proxy.client();
    let target = "x".repeat(1_000);
    for _ in 0..50 {
        let response = client.ask(&format!("GET /{target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(response.status(), 200);
    }
    proxy.await_metric("log_dropped_total", |dropped| dropped >= 40);
    drop(client);
    proxy.await_log("cannot write the access log");
    assert_eq!(proxy.log().matches("cannot write the access log").count(), 1);
    proxy.finish();
}

/// As logrotate does: rename, then SIGHUP. No line is lost, and none follows the old file.
fn a_renamed_log_is_opened_anew_on_hangup(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, LOG).start();
    let folder = proxy.folder().to_owned();
    let get = |target: &str| {
        let response = proxy.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(response.status(), 200);
    };
    get("/before");
    proxy.access_log(1);
    std::fs::rename(folder.join("access.log"), folder.join("access.log.1")).expect("it is there");
    proxy.signal(rustix::process::Signal::HUP);
    eventually("a new file", || folder.join("access.log").exists());
    get("/after");
    assert!(proxy.access_log(1)[0].contains("/after"));
    let old = std::fs::read_to_string(folder.join("access.log.1")).expect("it is there");
    assert!(old.lines().count() == 1 && old.contains("/before"), "{old}");
    proxy.finish();
}

fn counters_say_what_was_done(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let status = request.target().trim_start_matches('/');
        format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let config = format!(
        "routes: [{{ pool: o, hosts: [h] }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    let mut client = proxy.client();
    for status in [200, 201, 301, 404, 500] {
        assert_eq!(client.ask(&format!("GET /{status} HTTP/1.1\r\nHost: h\r\n\r\n")).status(), status);
    }
    assert_eq!(client.ask("GET /200 HTTP/1.1\r\nHost: other\r\n\r\n").status(), 404);
    assert_eq!(client.ask("bad\r\n\r\n").status(), 400);
    client.ends();
    let text = proxy.metrics_text();
    for line in [
        "ringport_connections_total 1",
        // What is not a whole head is no request, but is answered.
        "ringport_requests_total 6",
        "ringport_responses_total{class=\"1xx\"} 0",
        "ringport_responses_total{class=\"2xx\"} 2",
        "ringport_responses_total{class=\"3xx\"} 1",
        "ringport_responses_total{class=\"4xx\"} 3",
        "ringport_responses_total{class=\"5xx\"} 1",
        "ringport_request_seconds_count 7",
        "ringport_request_seconds_bucket{le=\"+Inf\"} 7",
        "ringport_origin_connects_total 1",
        "ringport_origin_reused_total 4",
        "ringport_origin_idle 1",
        "ringport_requests_aborted_total 0",
        "ringport_retries_total 0",
        "ringport_no_origin_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    drop(client);
    // One that goes away while its origin is silent.
    proxy.finish();
    let silent = Origin::script(|mut conn| conn.until_closed());
    let proxy = Setup::to(driver, silent.addr, LOG).start();
    let mut client = proxy.client();
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    proxy.await_metric("requests_active", |active| active == 1);
    client.reset();
    proxy.await_metric("requests_aborted_total", |aborted| aborted == 1);
    assert!(proxy.access_log(1)[0].contains(" 499 0 ") && proxy.access_log(1)[0].contains("\"client-gone\""));
    proxy.finish();
}

fn metrics_are_prometheus_text(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let text = proxy.metrics_text();
    let mut described = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            described.push(name.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap_or_default();
            assert!(
                described.iter().any(|known| name.starts_with(known.as_str())),
                "{line} is not described"
            );
        }
    }
    let mut unique = described.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), described.len(), "described twice");
    proxy.finish();
}

fn the_admin_listener_says_how_it_is(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut admin = Client::connect(proxy.named("admin"));
    for (request, status, body) in [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, Some("ok\n")),
        ("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, Some("")),
        ("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 405, None),
        ("DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405, None),
        ("GET /other HTTP/1.1\r\nHost: a\r\n\r\n", 404, None),
        ("GET /healthz?x HTTP/1.1\r\nHost: a\r\n\r\n", 200, Some("ok\n")),
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200, None),
    ] {
        let response = admin.ask(request);
        assert_eq!(response.status(), status, "{request}");
        assert!(response.field("content-type").starts_with("text/plain"), "{response:?}");
        assert!(body.is_none_or(|body| response.text() == body), "{request}: {}", response.text());
    }
    assert_eq!(admin.ask("GET / HTTP/1.1\r\n\r\n").status(), 400);
    admin.ends();
    // Nothing of it is on the listener for clients.
    assert_eq!(proxy.client().ask("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").text(), "GET /metrics ");
    drop(admin);
    proxy.finish();
}
