//! Whoever is silent for too long is told so, or cut off; whoever is only slow is not.
//!
//! Where a timeout must end something it is short, and nothing else depends on how fast the machine is. Where it must
//! not, it is hours.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::message::{Client, Wire, ok};
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, breathe, cases, eventually};

cases![
    half_a_head_is_408,
    a_head_in_drops_is_408_all_the_same,
    a_connection_that_says_nothing_ends,
    a_kept_connection_that_says_nothing_ends,
    half_a_body_is_408,
    an_origin_that_accepts_and_says_nothing_is_504,
    an_origin_that_stops_in_its_head_is_504,
    an_origin_that_only_hints_is_504,
    an_origin_that_never_asks_for_the_body_is_504,
    an_origin_that_cannot_be_reached_is_504,
    an_origin_that_reads_nothing_is_504,
    a_client_that_reads_nothing_is_cut_and_no_origin_is_blamed,
    drops_within_the_timeouts_pass_both_ways,
    a_kept_connection_to_an_origin_grows_old,
];

const LOG: &str = "accessLog: { path: FOLDER/access.log }\n";

/// One origin, one attempt.
fn with(driver: &'static str, addr: SocketAddr, pool: &str, timeouts: &str) -> Proxy {
    of(driver, &[addr], pool, timeouts)
}

/// The origin is asked first, then one that refuses, each once; a single failure leaves it out.
fn with_another(driver: &'static str, addr: SocketAddr, pool: &str, timeouts: &str) -> Proxy {
    of(driver, &[addr, Origin::refusing()], pool, timeouts)
}

fn of(driver: &'static str, addrs: &[SocketAddr], pool: &str, timeouts: &str) -> Proxy {
    let origins: Vec<_> = addrs.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
    let origins = origins.join(", ");
    let pool = format!("origins: [{origins}], retries: 0, health: {{ maxFails: 1 }}, {pool}");
    Setup::pool(driver, &pool, &format!("timeouts: {{ {timeouts} }}\n{LOG}")).start()
}

fn refused(client: &mut Client, status: u16) {
    let response = client.response("GET");
    assert_eq!((response.status(), response.field("connection")), (status, "close"));
    client.ends();
}

fn half_a_head_is_408(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = with(driver, origin.addr, "", "header: 0.1s");
    for half in
        ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r"]
    {
        let mut client = proxy.client();
        client.send(half.as_bytes());
        refused(&mut client, 408);
    }
    // Behind a good request, and behind one whose response had no body.
    for method in ["GET", "HEAD"] {
        let mut client = proxy.client();
        client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\nGET / HT").as_bytes());
        assert_eq!(client.response(method).status(), 200);
        refused(&mut client, 408);
    }
    let lines = proxy.access_log(8);
    assert_eq!(lines.iter().filter(|line| line.contains("\" 408 0 0.000 - \"header-timeout\"")).count(), 6);
    proxy.finish();
}

/// The limit is for the whole head, not for the time between two bytes.
fn a_head_in_drops_is_408_all_the_same(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = with(driver, origin.addr, "", "header: 0.2s");
    let mut client = proxy.client();
    let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
    let dripping = std::thread::spawn(move || {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(20_000));
        for byte in head.bytes() {
            if writer.try_send(&[byte]).is_err() {
                return;
            }
            breathe();
        }
    });
    assert_eq!(client.response("GET").status(), 408);
    drop(client);
    dripping.join().expect("no panic");
    assert_eq!(origin.connections(), 0);
    proxy.finish();
}

fn a_connection_that_says_nothing_ends(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = with(driver, origin.addr, "", "header: 0.1s, keepAliveIdle: 3600s");
    for said in ["", "\r\n"] {
        let mut client = proxy.client();
        client.send(said.as_bytes());
        client.ends();
    }
    proxy.finish();
}

fn a_kept_connection_that_says_nothing_ends(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = with(driver, origin.addr, "", "header: 3600s, keepAliveIdle: 0.1s");
    let mut client = proxy.client();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status(), 200);
    client.ends();
    drop(client);
    proxy.finish();
}

fn half_a_body_is_408(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        assert!(conn.request().is_none(), "the request is not whole");
        conn.note("ended");
    });
    let proxy = with(driver, origin.addr, "responseTimeout: 3600s", "bodyIdle: 0.1s");
    for (at, half) in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
        .iter()
        .enumerate()
    {
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{half}").as_bytes());
        refused(&mut client, 408);
        eventually("the origin's connection ends", || origin.notes().len() == at + 1);
    }
    let lines = proxy.access_log(2);
    assert!(lines.iter().all(|line| line.contains("\"request-timeout\"")), "{lines:?}");
    assert_eq!(proxy.metric("origin_ejections_total"), 0);
    proxy.finish();
}

/// Asks once; what the log calls the end of it.
fn check_504(proxy: &Proxy, request: &str, cause: &str) {
    let response = proxy.client().ask(request);
    assert_eq!(response.status(), 504, "{response:?}");
    let lines = proxy.access_log(1);
    assert!(lines[0].contains("\" 504 0 ") && lines[0].contains(&format!("\"{cause}\"")), "{lines:?}");
    assert_eq!((proxy.metric("origin_timeouts_total"), proxy.metric("origin_ejections_total")), (1, 1));
    // Left out: the other refuses, and then there is no origin.
    for status in [502, 503] {
        assert_eq!(proxy.client().ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status(), status);
    }
    assert!(proxy.access_log(3)[2].contains("\"no-origin\""));
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn an_origin_that_accepts_and_says_nothing_is_504(driver: &'static str) {
    let origin = Origin::script(|mut conn| conn.until_closed());
    let proxy = with_another(driver, origin.addr, "responseTimeout: 0.1s", "bodyIdle: 3600s");
    check_504(&proxy, GET, "response-timeout");
    proxy.finish();
}

fn an_origin_that_stops_in_its_head_is_504(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        if conn.request().is_some() {
            conn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Le");
            conn.until_closed();
        }
    });
    let proxy = with_another(driver, origin.addr, "responseTimeout: 0.1s", "bodyIdle: 3600s");
    check_504(&proxy, GET, "response-timeout");
    proxy.finish();
}

/// The timeout runs to the final head: informational ones do not put it off.
fn an_origin_that_only_hints_is_504(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        while conn.wire.try_send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {
            // A tenth of the timeout, so that it would be over before the limit of informational heads.
            std::thread::sleep(Duration::from_millis(50)); // tidy: the origin's pace is what is tested
        }
    });
    let proxy = with(driver, origin.addr, "responseTimeout: 0.5s", "bodyIdle: 3600s");
    let mut client = proxy.client();
    client.send(GET.as_bytes());
    let mut response = client.response("GET");
    while response.status() == 103 {
        response = client.response("GET");
    }
    assert_eq!(response.status(), 504, "{response:?}");
    assert!(proxy.access_log(1)[0].contains("\"response-timeout\""));
    drop(client);
    proxy.finish();
}

/// The client does as it said and waits: the delay is not its own.
fn an_origin_that_never_asks_for_the_body_is_504(driver: &'static str) {
    let origin = Origin::script(|mut conn| conn.until_closed());
    let proxy = with_another(driver, origin.addr, "responseTimeout: 0.1s", "bodyIdle: 3600s");
    let request = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    check_504(&proxy, request, "response-timeout");
    proxy.finish();
}

/// A listener whose queue is full drops what comes: a connect to it hangs.
fn an_origin_that_cannot_be_reached_is_504(driver: &'static str) {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, getsockname, listen, socket};
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&full, &SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listen(&full, 0).expect("a listener");
    let addr = SocketAddr::try_from(getsockname(&full).expect("an address")).expect("of IP");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue never fills");
    }
    let proxy = with_another(driver, addr, "connectTimeout: 0.1s, responseTimeout: 3600s", "bodyIdle: 3600s");
    check_504(&proxy, GET, "connect-timeout");
    proxy.finish();
}

fn an_origin_that_reads_nothing_is_504(driver: &'static str) {
    let (origin, release) = unreading();
    let proxy = with(driver, origin.addr, "responseTimeout: 3600s", "writeIdle: 0.3s, bodyIdle: 3600s");
    let mut client = proxy.client();
    let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
    let sending = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        writer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
        while writer.try_send(&block).is_ok() {}
    });
    let response = client.response("POST");
    assert_eq!(response.status(), 504);
    assert!(proxy.access_log(1)[0].contains("\"response-timeout\""));
    drop(client);
    sending.join().expect("no panic");
    drop(release);
    proxy.finish();
}

/// An origin that accepts and reads nothing until the second value is dropped.
fn unreading() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script(move |_conn| {
        // An error is the release.
        let _ = wait.lock().expect("no panic").recv();
    });
    (origin, release)
}

fn a_client_that_reads_nothing_is_cut_and_no_origin_is_blamed(driver: &'static str) {
    let origin = endless();
    let proxy = with(driver, origin.addr, "", "writeIdle: 0.3s, bodyIdle: 3600s");
    for _ in 0..2 {
        let mut client = proxy.client();
        client.send(GET.as_bytes());
        proxy.await_metric("requests_active", |active| active == 1);
        proxy.await_metric("requests_active", |active| active == 0);
        let mut seen = Vec::new();
        let end = std::io::Read::read_to_end(client.reader(), &mut seen);
        assert!(end.is_err(), "an orderly end behind {} bytes", seen.len());
    }
    let lines = proxy.access_log(2);
    assert!(lines.iter().all(|line| line.contains("\"client-stalled\"")), "{lines:?}");
    for name in ["origin_ejections_total", "origin_bad_responses_total", "origin_timeouts_total"] {
        assert_eq!(proxy.metric(name), 0, "{name}");
    }
    assert_eq!(proxy.metric("requests_aborted_total"), 2);
    proxy.finish();
}

/// An origin whose response has no end.
fn endless() -> Origin {
    Origin::script(|mut conn| {
        if conn.request().is_some() {
            conn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
            let block = vec![b'x'; 1 << 20];
            while conn.wire.try_send(&block).is_ok() {}
        }
    })
}

fn drops_within_the_timeouts_pass_both_ways(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        while let Some(request) = conn.request() {
            for byte in ok(&request.text()).bytes() {
                conn.wire.send(&[byte]);
                breathe();
            }
        }
    });
    let all = "header: 3600s, bodyIdle: 3600s, writeIdle: 3600s, keepAliveIdle: 3600s";
    let proxy = with(driver, origin.addr, "", all);
    let mut client = proxy.client();
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nin  _  drops",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nin  _\r\n7\r\n  drops\r\n0\r\n\r\n",
    ] {
        for byte in request.bytes() {
            client.send(&[byte]);
            breathe();
        }
        assert_eq!(client.response("POST").text(), "in  _  drops");
    }
    assert_eq!(origin.connections(), 1);
    drop(client);
    proxy.finish();
}

fn a_kept_connection_to_an_origin_grows_old(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = with(driver, origin.addr, "idleTimeout: 0.1s", "");
    let mut client = proxy.client();
    for connections in 1..=2 {
        assert_eq!(client.ask(GET).status(), 200);
        assert_eq!(origin.connections(), connections);
        proxy.await_metric("origin_idle", |kept| kept == 0);
    }
    drop(client);
    proxy.finish();
}
