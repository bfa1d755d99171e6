//! More connections than there is room for: accepting waits, what is open goes on, and it recovers.

use std::sync::{Arc, Barrier};

use rustix::process::Signal;

use crate::message::{Client, ok};
use crate::origin::Origin;
use crate::process::have;
use crate::rig::{Proxy, Setup, cases};

cases![
    a_burst_takes_no_more_than_there_is_room_for,
    a_core_that_sleeps_hears_that_the_room_is_used_up,
    a_crowd_that_waits_at_the_end_is_answered,
    accepting_waits_while_descriptors_are_short,
    an_origin_is_not_blamed_for_our_descriptors,
    connections_beyond_the_limit_wait,
    kept_connections_are_given_up_for_new_ones,
    the_derived_limit_leaves_descriptors_for_origins,
];

const LAST: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// With so few descriptors.
fn short_of_descriptors(driver: &'static str, origin: &Origin, pool: &str) -> Proxy {
    let pool = format!("origins: [{{ address: \"{}\" }}], {pool}", origin.addr);
    let limits = "limits: { maxConnections: 10000 }\n";
    Setup::pool(driver, &pool, limits).under(&["prlimit", "--nofile=200:200"]).start()
}

fn crowd(proxy: &Proxy, count: usize) -> Vec<Client> {
    (0..count).map(|_| proxy.client()).collect()
}

/// Every one of them is served.
fn all_served(clients: &mut [Client]) {
    for client in clients {
        let response = client.ask(GET);
        assert_eq!((response.status(), response.text().as_str()), (200, "GET / "));
    }
}

/// A proxy that has not run for a while finds a crowd in its accept queue, which io_uring once took in one turn: every
/// descriptor of the process, and none was left for the origins of connections that were open.
fn a_burst_takes_no_more_than_there_is_room_for(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let pool = format!("origins: [{{ address: \"{}\" }}], maxIdlePerCore: 0", origin.addr);
    let setup = Setup::pool(driver, &pool, "runtime: { cores: 2 }\n");
    let proxy = setup.under(&["prlimit", "--nofile=400:400"]).start();
    // (400 - 100) / 2
    let limit = 150;
    let mut early = crowd(&proxy, 30);
    all_served(&mut early);
    proxy.signal(Signal::STOP);
    let mut late = crowd(&proxy, 600);
    early.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    proxy.signal(Signal::CONT);
    for client in &mut early {
        assert_eq!(client.response("GET").status(), 200);
    }
    proxy.await_metric("connections_active", |active| active == limit);
    for _ in 0..10 {
        early.iter_mut().for_each(|client| client.send(GET.as_bytes()));
        let open = proxy.open_fds();
        assert!(open < 300, "{open} descriptors are open");
        for client in &mut early {
            assert_eq!(client.response("GET").status(), 200);
        }
    }
    assert_eq!(proxy.metric("connections_active"), limit);
    assert!(proxy.metric("connections_paused_total") > 0 && proxy.metric("core_accept_paused") > 0);
    // Those outside are taken as the others leave.
    late.iter_mut().for_each(|client| client.send(LAST.as_bytes()));
    for mut client in late {
        assert_eq!(client.response("GET").status(), 200);
        client.ends();
    }
    all_served(&mut early);
    assert_eq!((proxy.metric("shortages_total"), proxy.metric("core_accept_out_of_fds")), (0, 0));
    drop(early);
    proxy.finish();
}

/// Each core may take a burst as long as there is room for one on every core. The last connection before there is not
/// comes to one of them; the other must not keep what it may take, though it sleeps.
fn a_core_that_sleeps_hears_that_the_room_is_used_up(driver: &'static str) {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux");
    // The backlog, one more, and what may wait for an acceptor.
    let burst = somaxconn.trim().parse::<usize>().expect("a number").min(4096) + 257;
    let max = 2 * (burst + 1) + 100;
    let config = format!("runtime: {{ cores: 2 }}\nlimits: {{ maxConnections: {max} }}\n");
    let proxy = Setup::to(driver, Origin::refusing(), &config).start();
    let mut clients = crowd(&proxy, 100);
    proxy.await_metric("connections_active", |active| active == 100);
    assert_eq!(proxy.metric("core_cancels"), 0);
    clients.extend(crowd(&proxy, 1));
    proxy.await_metric("core_cancels", |count| count == 2);
    drop(clients);
    proxy.finish();
}

/// What waits is answered though it be beyond the limit; of few descriptors it once took all, and the rest was reset.
fn a_crowd_that_waits_at_the_end_is_answered(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let mut proxy = Setup::to(driver, origin.addr, "").under(&["prlimit", "--nofile=200:200"]).start();
    let mut inside = crowd(&proxy, 75);
    all_served(&mut inside);
    let mut outside = crowd(&proxy, 300);
    outside.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    assert_eq!(proxy.metric("connections_active"), 75);
    proxy.terminate();
    for mut client in outside {
        assert_eq!(client.response("GET").status(), 200);
        client.ends();
    }
    drop(inside);
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(0), "{log}");
}

fn accepting_waits_while_descriptors_are_short(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let proxy = short_of_descriptors(driver, &origin, "maxIdlePerCore: 8");
    let mut early = proxy.client();
    all_served(std::slice::from_mut(&mut early));
    let paused = proxy.metric("core_accept_paused");
    let mut clients = crowd(&proxy, 400);
    proxy.await_metric("core_accept_paused", |count| count > paused);
    let open = proxy.metric("connections_active");
    assert!((50..200).contains(&open), "{open}");
    // What is open goes on, over a connection to the origin that was kept.
    for _ in 0..20 {
        all_served(std::slice::from_mut(&mut early));
    }
    // Those that waited are taken when the others leave.
    drop(clients.drain(..300));
    all_served(&mut clients);
    drop((early, clients));
    proxy.finish();
}

/// The want of descriptors was once counted as failures of the origins, which were then left out on every connection.
fn an_origin_is_not_blamed_for_our_descriptors(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let pool = "maxIdlePerCore: 0, health: { maxFails: 1, ejection: 3600s }";
    let proxy = short_of_descriptors(driver, &origin, pool);
    let mut early = proxy.client();
    all_served(std::slice::from_mut(&mut early));
    let paused = proxy.metric("core_accept_paused");
    let clients = crowd(&proxy, 400);
    proxy.await_metric("core_accept_paused", |count| count > paused);
    let response = early.ask(GET);
    assert_eq!(response.status(), 503, "{response:?}");
    assert!(response.text().contains("descriptors"), "{response:?}");
    assert_eq!(proxy.metric("origin_ejections_total"), 0);
    drop(clients);
    // All of them, also those that waited, have come and gone.
    proxy.await_metric("connections_total", |count| count == 401);
    proxy.await_metric("connections_active", |active| active == 1);
    all_served(std::slice::from_mut(&mut early));
    drop(early);
    proxy.finish();
}

fn connections_beyond_the_limit_wait(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "limits: { maxConnections: 5 }\n").start();
    let mut inside = crowd(&proxy, 5);
    all_served(&mut inside);
    let mut outside = crowd(&proxy, 3);
    outside.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    proxy.await_metric("connections_paused_total", |count| count > 0);
    all_served(&mut inside);
    assert_eq!(proxy.metric("connections_active"), 5);
    assert_eq!(proxy.metric("requests_total"), 10);
    drop(inside);
    for client in &mut outside {
        assert_eq!(client.response("GET").status(), 200);
    }
    drop(outside);
    proxy.finish();
}

/// What was kept for one pool took the descriptors that another needed.
fn kept_connections_are_given_up_for_new_ones(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let together = Arc::new(Barrier::new(60));
    let busy = Origin::answering(move |_| {
        together.wait();
        ok("busy").into_bytes()
    });
    let other = Origin::echo();
    let config = format!(
        "routes: [{{ pathPrefix: /other, pool: other }}, {{ pool: busy }}]\n\
         pools:\n- {{ name: busy, origins: [{{ address: \"{}\" }}], maxIdlePerCore: 60 }}\n\
         - {{ name: other, origins: [{{ address: \"{}\" }}] }}\nlimits: {{ maxConnections: 10000 }}\n",
        busy.addr, other.addr
    );
    let proxy = Setup::new(driver, &config).under(&["prlimit", "--nofile=200:200"]).start();
    let mut clients = crowd(&proxy, 60);
    clients.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
    proxy.await_metric("origin_idle", |kept| kept == 60);
    while proxy.metric("core_accept_out_of_fds") == 0 {
        assert!(clients.len() < 200, "there are descriptors still");
        clients.push(proxy.client());
    }
    let response = clients[0].ask("GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((response.status(), response.text().as_str()), (200, "GET /other "), "{response:?}");
    assert_eq!((proxy.metric("origin_idle"), proxy.metric("shortages_total")), (1, 0));
    drop(clients);
    proxy.finish();
}

/// Nothing is configured: the limit follows from the descriptors. A quarter is kept, and each client may need an origin.
fn the_derived_limit_leaves_descriptors_for_origins(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").under(&["prlimit", "--nofile=1000:1000"]).start();
    let mut clients = crowd(&proxy, 600);
    proxy.await_metric("connections_active", |active| active == 375);
    proxy.await_metric("connections_paused_total", |count| count > 0);
    all_served(&mut clients[..375]);
    assert_eq!(proxy.metric("connections_active"), 375);
    drop(clients.drain(..500));
    all_served(&mut clients);
    drop(clients);
    proxy.finish();
}
