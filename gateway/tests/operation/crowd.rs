//! More connections than there is room for: accepting waits, what is open goes on, and it recovers.

use crate::message::Client;
use crate::origin::Origin;
use crate::process::have;
use crate::rig::{Proxy, Setup, cases};

cases![
    accepting_waits_while_descriptors_are_short,
    an_origin_is_not_blamed_for_our_descriptors,
    connections_beyond_the_limit_wait,
    the_derived_limit_leaves_descriptors_for_origins,
];

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

/// Nothing is configured: the limit follows from the descriptors, less what is kept for origins and the process.
fn the_derived_limit_leaves_descriptors_for_origins(driver: &'static str) {
    if !have("few descriptors", &["prlimit"]) {
        return;
    }
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").under(&["prlimit", "--nofile=1000:1000"]).start();
    let mut clients = crowd(&proxy, 600);
    proxy.await_metric("connections_active", |active| active == 488);
    proxy.await_metric("connections_paused_total", |count| count > 0);
    all_served(&mut clients[..488]);
    assert_eq!(proxy.metric("connections_active"), 488);
    drop(clients.drain(..500));
    all_served(&mut clients);
    drop(clients);
    proxy.finish();
}
