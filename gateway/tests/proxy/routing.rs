//! Which origin a request goes to, and what becomes of it where there is none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use crate::message::ok;
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, breathe, cases, eventually};

cases![
    the_most_specific_route_wins,
    round_robin_takes_each_in_turn,
    least_connections_takes_the_idle_one,
    an_origin_that_refuses_is_left_out_and_comes_back,
    failures_are_counted_within_their_window,
    an_only_origin_is_never_left_out,
    refused_no_origin_and_broken_are_told_apart,
    requests_in_flight_do_not_leave_an_origin_out_twice,
    a_request_moves_to_the_next_origin_where_that_is_safe,
    names_resolve_to_every_address,
    a_name_that_does_not_resolve_is_no_origin,
    an_origin_on_a_unix_socket,
];

/// Answers its name to everything.
fn named(name: &'static str) -> Origin {
    Origin::answering(move |_| ok(name).into_bytes())
}

fn get(proxy: &Proxy, host: &str, target: &str) -> (u16, String) {
    let response = proxy.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    (response.status(), response.text())
}

fn the_most_specific_route_wins(driver: &'static str) {
    let origins = ["exact", "exact-api", "suffix", "long-suffix", "any-api", "any-api-v1"].map(named);
    let pools = ["exact", "exact-api", "suffix", "long-suffix", "any-api", "any-api-v1"].iter().zip(&origins);
    let pools: String = pools
        .map(|(name, origin)| {
            format!("  - {{ name: {name}, origins: [{{ address: \"{}\" }}] }}\n", origin.addr)
        })
        .collect();
    let routes = "routes:\n\
        \x20 - { pool: any-api, pathPrefix: /api }\n\
        \x20 - { pool: suffix, hosts: [\"*.example.org\"] }\n\
        \x20 - { pool: exact, hosts: [a.example.org, \"[::1]\"] }\n\
        \x20 - { pool: any-api-v1, pathPrefix: /api/v1/ }\n\
        \x20 - { pool: exact-api, hosts: [a.example.org], pathPrefix: /api }\n\
        \x20 - { pool: long-suffix, hosts: [\"*.b.example.org\"] }\n";
    let proxy = Setup::new(driver, &format!("{routes}pools:\n{pools}")).start();
    for (host, target, expected) in [
        ("a.example.org", "/", "exact"),
        ("A.Example.ORG:8080", "/x?y", "exact"),
        ("a.example.org.", "/apix", "exact"),
        ("a.example.org", "/api", "exact-api"),
        ("a.example.org", "/api?x", "exact-api"),
        ("a.example.org", "/api/v1/x", "exact-api"),
        ("c.example.org", "/", "suffix"),
        ("b.example.org", "/", "suffix"),
        ("a.b.example.org", "/", "long-suffix"),
        ("x.a.b.example.org", "/", "long-suffix"),
        ("[::1]:80", "/", "exact"),
        ("other", "/api", "any-api"),
        ("other", "/api/v1", "any-api-v1"),
        ("other", "/api/v1/x", "any-api-v1"),
        ("other", "/api/v10", "any-api"),
        ("ignored", "http://a.example.org/api", "exact-api"),
    ] {
        assert_eq!(get(&proxy, host, target), (200, expected.to_owned()), "{host} {target}");
    }
    for (host, target) in
        [("other", "/"), ("other", "/apix"), ("example.org", "/"), ("aexample.org", "/"), ("other", "/API")]
    {
        assert_eq!(get(&proxy, host, target).0, 404, "{host} {target}");
    }
    // The connection lives on behind a 404, with the body of its request read.
    let mut client = proxy.client();
    let lost = client.ask("POST /lost HTTP/1.1\r\nHost: other\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(lost.status(), 404);
    assert_eq!(client.ask("GET /api HTTP/1.1\r\nHost: other\r\n\r\n").text(), "any-api");
    drop(client);
    proxy.finish();
}

fn two(driver: &'static str, first: &str, second: &str, more: &str, rest: &str) -> Proxy {
    let pool = format!("origins: [{{ address: \"{first}\" }}, {{ address: \"{second}\" }}], {more}");
    Setup::pool(driver, &pool, rest).start()
}

fn round_robin_takes_each_in_turn(driver: &'static str) {
    let (a, b) = (named("a"), named("b"));
    let proxy = two(driver, &a.addr.to_string(), &b.addr.to_string(), "", "");
    let mut client = proxy.client();
    let seen: String = (0..6).map(|_| client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").text()).collect();
    assert!(seen == "ababab" || seen == "bababa", "{seen}");
    drop(client);
    proxy.finish();
}

fn least_connections_takes_the_idle_one(driver: &'static str) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let slow = Origin::answering(move |request| {
        if request.target() == "/wait" {
            eventually("the test lets go", || gate.load(Ordering::SeqCst));
        }
        ok("slow").into_bytes()
    });
    let quick = named("quick");
    let balance = "balance: least_connections";
    let proxy = two(driver, &slow.addr.to_string(), &quick.addr.to_string(), balance, "");
    let mut waiting = proxy.client();
    waiting.send(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the slow one has it", || slow.requests().len() + quick.requests().len() == 1);
    // All go to the one that is free, whichever was taken first.
    let busy = if slow.requests().is_empty() { "quick" } else { "slow" };
    if busy == "slow" {
        for _ in 0..6 {
            assert_eq!(get(&proxy, "h", "/").1, "quick");
        }
    }
    open.store(true, Ordering::SeqCst);
    assert_eq!(waiting.response("GET").status(), 200);
    let mut seen = BTreeMap::<String, u32>::new();
    (0..6).for_each(|_| *seen.entry(get(&proxy, "h", "/").1).or_default() += 1);
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [3, 3], "idle ones share");
    assert_eq!(busy, "slow", "the first of equals is the first");
    drop(waiting);
    proxy.finish();
}

fn an_origin_that_refuses_is_left_out_and_comes_back(driver: &'static str) {
    let good = named("good");
    let bad = Origin::refusing();
    let health = "retries: 1, health: { maxFails: 2, failWindow: 3600s, ejection: 0.5s }";
    let proxy = two(driver, &good.addr.to_string(), &bad.to_string(), health, "");
    let mut client = proxy.client();
    let mut ask = || client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").text();
    eventually("the bad origin is left out", || {
        assert_eq!(ask(), "good");
        proxy.metric("origin_ejections_total") > 0
    });
    let refused = proxy.metric("origin_refused_total");
    assert!(refused >= 2, "{refused}");
    proxy.await_log("origin left out");
    // It comes back by itself, and is asked again.
    let listener = std::net::TcpListener::bind(bad).expect("the port is free");
    let back = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut wire = crate::message::Client::over(stream);
        while let Ok(Some(_)) = wire.request() {
            wire.send(ok("back").as_bytes());
        }
    });
    eventually("the origin is asked again", || ask() == "back");
    drop(client);
    proxy.finish();
    back.join().expect("no panic");
}

/// Failures that lie too far apart do not add up.
fn failures_are_counted_within_their_window(driver: &'static str) {
    let bad = [Origin::refusing(), Origin::refusing()];
    let pool = |window: &str| {
        let health = format!("health: {{ maxFails: 2, failWindow: {window}, ejection: 3600s }}");
        let [one, two] = bad.map(|addr| format!("{{ address: \"{addr}\" }}"));
        let pool = format!("origins: [{one}, {two}], retries: 0, {health}");
        Setup::pool(driver, &pool, "").start()
    };
    let (short, long) = (pool("0.001s"), pool("3600s"));
    let ask = |proxy: &Proxy| proxy.client().ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status();
    for seen in [502, 502, 502, 502, 503] {
        assert_eq!(ask(&long), seen);
    }
    for _ in 0..8 {
        assert_eq!(ask(&short), 502);
        // Longer than the window.
        breathe();
    }
    short.finish();
    long.finish();
}

/// A pool of one was closed for half a minute by three failures, when nothing is gained by leaving its origin out.
fn an_only_origin_is_never_left_out(driver: &'static str) {
    let refusing = Origin::refusing();
    let pool =
        format!("origins: [{{ address: \"{refusing}\" }}], health: {{ maxFails: 1, ejection: 3600s }}");
    let proxy = Setup::pool(driver, &pool, "").start();
    for _ in 0..3 {
        assert_eq!(get(&proxy, "h", "/").0, 502);
    }
    assert_eq!((proxy.metric("no_origin_total"), proxy.metric("origin_ejections_total")), (0, 0));
    proxy.finish();
}

fn refused_no_origin_and_broken_are_told_apart(driver: &'static str) {
    let broken = Origin::script(|mut conn| drop(conn.request()));
    let own =
        Origin::answering(|_| b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nown".to_vec());
    let also_broken = Origin::script(|mut conn| drop(conn.request()));
    let (refusing, also_refusing) = (Origin::refusing(), Origin::refusing());
    let pools = [
        ("refuse", vec![refusing, also_refusing]),
        ("broken", vec![broken.addr, also_broken.addr]),
        ("own", vec![own.addr]),
    ];
    let pools: String = pools
        .iter()
        .map(|(name, addrs)| {
            let origins: Vec<_> = addrs.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
            let health = "health: { maxFails: 1, ejection: 3600s }";
            format!("  - {{ name: {name}, origins: [{}], retries: 0, {health} }}\n", origins.join(", "))
        })
        .collect();
    let config = format!(
        "routes: [{{ pool: refuse, pathPrefix: /refuse }}, {{ pool: broken, pathPrefix: /broken }}, {{ pool: own }}]\n\
         pools:\n{pools}accessLog: {{ path: FOLDER/access.log }}\n"
    );
    let proxy = Setup::new(driver, &config).start();
    for (target, status) in [
        ("/refuse", 502),
        ("/refuse", 502),
        ("/refuse", 503),
        ("/broken", 502),
        ("/broken", 502),
        ("/broken", 503),
        ("/", 503),
    ] {
        assert_eq!(get(&proxy, "h", target).0, status, "{target}");
    }
    let lines = proxy.access_log(7);
    for (line, expected) in lines.iter().zip([
        format!(" 502 0 T {refusing} \"refused ("),
        format!(" 502 0 T {also_refusing} \"refused ("),
        " 503 0 T - \"no-origin\"".to_owned(),
        format!(" 502 0 T {} \"broken (", broken.addr),
        format!(" 502 0 T {} \"broken (", also_broken.addr),
        " 503 0 T - \"no-origin\"".to_owned(),
        // The origin's own answer is not ours.
        format!(" 503 3 T {} \"ok\"", own.addr),
    ]) {
        let (before, after) = expected.split_once('T').expect("a place for the time");
        assert!(line.contains(before) && line.contains(after), "{line:?} is not {expected:?}");
    }
    assert_eq!((proxy.metric("origin_refused_total"), proxy.metric("origin_bad_responses_total")), (2, 2));
    assert_eq!((proxy.metric("no_origin_total"), proxy.metric("origin_ejections_total")), (2, 4));
    proxy.finish();
}

/// An origin that dies takes all its requests with it: that is one event, for the log, the counter and the time that
/// it is left out.
fn requests_in_flight_do_not_leave_an_origin_out_twice(driver: &'static str) {
    const REQUESTS: usize = 14;
    let together = Arc::new(Barrier::new(REQUESTS));
    let dying = || {
        let together = together.clone();
        Origin::script(move |mut conn| {
            if conn.request().is_some() {
                together.wait();
            }
        })
    };
    let (one, two) = (dying(), dying());
    let health = "retries: 0, health: { maxFails: 2, failWindow: 3600s, ejection: 3600s }";
    let origins = format!("origins: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]", one.addr, two.addr);
    let proxy = Setup::pool(driver, &format!("{origins}, {health}"), "").start();
    let mut clients: Vec<_> = (0..REQUESTS).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 502);
    }
    assert_eq!(proxy.metric("origin_ejections_total"), 2);
    proxy.await_logs("origin left out", 2);
    assert_eq!(proxy.log().matches("origin left out").count(), 2);
    drop(clients);
    proxy.finish();
}

fn a_request_moves_to_the_next_origin_where_that_is_safe(driver: &'static str) {
    let dying = Origin::script(|mut conn| drop(conn.request()));
    let good = named("good");
    let never = "health: { maxFails: 0 }";
    let log = "accessLog: { path: FOLDER/access.log }\n";
    let proxy = two(driver, &dying.addr.to_string(), &good.addr.to_string(), never, log);
    let request = |method: &str, body: &str| {
        format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    // Each twice, so that the dying one is asked first once.
    for (method, body, safe) in
        [("GET", "", true), ("DELETE", "", true), ("PUT", "", true), ("POST", "", false), ("PUT", "x", false)]
    {
        let statuses = [(); 2].map(|()| proxy.client().ask(&request(method, body)).status());
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!(failed, usize::from(!safe), "{method} {body:?}: {statuses:?}");
        if safe {
            continue;
        }
    }
    // The log names all that were asked.
    let both = format!("{},{} \"ok\"", dying.addr, good.addr);
    assert!(proxy.access_log(10).iter().any(|line| line.contains(&both)), "{:?}", proxy.access_log(10));
    proxy.finish();
    // Nothing was sent to one that refuses: any request may move on.
    let proxy = two(driver, &Origin::refusing().to_string(), &good.addr.to_string(), never, "");
    for _ in 0..4 {
        assert_eq!(proxy.client().ask(&request("POST", "body")).text(), "good");
    }
    proxy.finish();
}

fn names_resolve_to_every_address(driver: &'static str) {
    // On one family only, whatever the other says: localhost often has both.
    let origin = named("found");
    let pool = format!(
        "origins: [{{ address: \"localhost:{}\" }}], retries: 0, health: {{ maxFails: 1, ejection: 3600s }}",
        origin.addr.port()
    );
    let proxy = Setup::pool(driver, &pool, "").start();
    eventually("the name has resolved", || get(&proxy, "h", "/").0 == 200);
    for _ in 0..4 {
        assert_eq!(get(&proxy, "h", "/").1, "found");
    }
    assert_eq!(proxy.metric("origin_ejections_total"), 0);
    proxy.finish();
}

fn a_name_that_does_not_resolve_is_no_origin(driver: &'static str) {
    let good = named("good");
    // RFC 6761 6.4: no such name exists.
    let alone = "origins: [{ address: \"nowhere.invalid:80\" }], resolveInterval: 0.05s";
    let proxy = Setup::pool(driver, alone, "accessLog: { path: FOLDER/access.log }\n").start();
    proxy.await_log("could not be looked up");
    assert_eq!(get(&proxy, "h", "/").0, 503);
    assert!(proxy.access_log(1)[0].contains("\"no-origin\""));
    proxy.finish();
    // Another origin of the pool gets all of it.
    let proxy = two(driver, "nowhere.invalid:80", &good.addr.to_string(), "retries: 0", "");
    for _ in 0..4 {
        assert_eq!(get(&proxy, "h", "/").1, "good");
    }
    proxy.finish();
}

fn an_origin_on_a_unix_socket(driver: &'static str) {
    let folder = crate::rig::Folder::new();
    let path = folder.path().join("origin");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut wire = crate::message::Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            wire.send(ok(request.field("host")).as_bytes());
        }
    });
    let pool = format!("origins: [{{ address: \"unix:{}\" }}]", path.display());
    let proxy = Setup::pool(driver, &pool, "").start();
    for _ in 0..3 {
        // A path is no host: the client's is passed on.
        assert_eq!(get(&proxy, "a.example", "/"), (200, "a.example".to_owned()));
    }
    proxy.finish();
    serving.join().expect("no panic");
}
