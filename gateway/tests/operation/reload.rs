//! SIGHUP: another config while clients are served. All of it takes effect, or nothing of it; nobody loses a request.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::message::{Client, Wire, ok};
use crate::origin::Origin;
use crate::process::{have, run};
use crate::rig::{Proxy, Setup, cases, eventually};

cases![
    routes_and_origins_change,
    no_request_fails_under_load,
    a_config_with_faults_changes_nothing,
    listeners_come_and_go,
    connections_of_a_listener_that_goes_end_in_order,
    rules_of_a_listener_change_where_it_is,
    requests_in_flight_end_as_they_began,
    who_waits_in_the_accept_queue_is_not_lost,
    limits_and_timeouts_hold_from_the_next_request,
    the_access_log_moves_and_is_opened_anew,
    the_admin_listener_moves,
    what_needs_a_restart_is_refused,
];

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn named(name: &'static str) -> Origin {
    Origin::answering(move |_| ok(name).into_bytes())
}

fn one_origin(origin: SocketAddr) -> String {
    format!("routes: [{{ pool: o }}]\npools: [{{ name: o, origins: [{{ address: \"{origin}\" }}] }}]\n")
}

/// Writes the config anew, and says whether it took effect.
fn reloads(proxy: &Proxy, edit: impl Fn(&str) -> String) -> bool {
    let path = proxy.folder().join("config.yaml");
    let text = std::fs::read_to_string(&path).expect("the config");
    let edited = edit(&text).replace("FOLDER", &proxy.folder().display().to_string());
    std::fs::write(&path, edited).expect("a file");
    let counts = || (proxy.metric("config_reloads_total"), proxy.metric("config_reload_failures_total"));
    let before = counts();
    proxy.signal(Signal::HUP);
    eventually("the signal is heard", || counts() != before);
    let after = counts();
    assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
    after.0 > before.0
}

fn replaced(from: &str, to: &str) -> impl Fn(&str) -> String {
    move |text| {
        assert!(text.contains(from), "no {from:?} in {text}");
        text.replace(from, to)
    }
}

fn routes_and_origins_change(driver: &'static str) {
    let (one, other) = (named("one"), named("other"));
    let proxy = Setup::new(driver, &(one_origin(one.addr) + "runtime: { cores: 2 }\n")).start();
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).text(), "one"));
    assert!(proxy.metric("origin_idle") > 0);
    assert!(reloads(&proxy, replaced(&one.addr.to_string(), &other.addr.to_string())));
    proxy.await_log("config reloaded");
    assert_eq!(proxy.metric("origin_idle"), 0, "what was kept to an origin that is gone is closed");
    // The connections are the same ones.
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).text(), "other"));
    assert_eq!(proxy.metric("connections_total"), 8);
    // An origin that stays keeps its connections.
    let kept = proxy.metric("origin_idle");
    assert!(reloads(&proxy, |text| format!("{text}timeouts: {{ drain: 7s }}\n")));
    assert_eq!(
        (proxy.metric("origin_idle"), other.connections()),
        (kept, usize::try_from(kept).expect("few"))
    );
    assert!(reloads(&proxy, replaced("routes: [{ pool: o }]", "routes: [{ pool: o, pathPrefix: /a }]")));
    assert_eq!(clients[0].ask(GET).status(), 404);
    drop(clients);
    proxy.finish();
}

fn no_request_fails_under_load(driver: &'static str) {
    if !have("load by wrk", &["wrk"]) {
        return;
    }
    let (one, other) = (named("one"), named("other"));
    let config = "runtime: { cores: 2 }\naccessLog: { path: FOLDER/access.log }\n";
    let proxy = Setup::new(driver, &(one_origin(one.addr) + config)).start();
    let url = format!("http://{}/", proxy.addr());
    let load = thread::spawn(move || run(Command::new("wrk").args(["-t1", "-c32", "-d4s", &url])));
    proxy.await_metric("requests_total", |count| count > 100);
    let (first, second) = (one.addr.to_string(), other.addr.to_string());
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let before = proxy.metric("requests_total");
        assert!(reloads(&proxy, replaced(from, to)));
        // Some requests in between: each is answered by the origins of one of the two configs.
        if round < 10 {
            proxy.await_metric("requests_total", |count| count > before);
        }
        if round % 5 == 0 {
            assert!(!reloads(&proxy, |text| text.replace("pools:", "pols:")));
            let path = proxy.folder().join("config.yaml");
            let text = std::fs::read_to_string(&path).expect("the config");
            std::fs::write(&path, text.replace("pols:", "pools:")).expect("a file");
        }
    }
    let wrk = load.join().expect("no panic");
    assert!(wrk.out.contains(" requests in "), "{wrk:?}");
    assert!(!wrk.out.contains("Socket errors") && !wrk.out.contains("Non-2xx"), "{wrk:?}");
    let text = std::fs::read_to_string(proxy.folder().join("access.log")).expect("a log");
    // At its end wrk breaks off what is in flight.
    let failed: Vec<_> =
        text.lines().filter(|line| !line.contains("\" 200 ") && !line.contains("client-gone")).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(one.connections() > 0 && other.connections() > 0);
    proxy.finish();
}

fn a_config_with_faults_changes_nothing(driver: &'static str) {
    let origin = named("one");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address");
    let proxy = Setup::new(driver, &one_origin(origin.addr)).start();
    let path = proxy.folder().join("config.yaml");
    let good = std::fs::read_to_string(&path).expect("the config");
    let mut client = proxy.client();
    assert_eq!(client.ask(GET).text(), "one");
    let fds = proxy.open_fds();
    let with_listener = |listen: &str| {
        let first = format!(
            "listeners: [{{ name: early, listenConfig: {{ addr: \"unix://FOLDER/early.sock\" }} }}, {listen}, "
        );
        good.replacen("listeners: [", &first, 1)
    };
    let port_taken = with_listener(&format!("{{ name: late, address: \"{port}\" }}"));
    let no_certificate =
        with_listener("{ name: tls, listenConfig: { addr: \"127.0.0.1:0\", tlsConfig: {} } }");
    for (text, told) in [
        (good.replace("pools: [", "pools: [["), "config.yaml:"),
        (good.replace("pool: o ", "pool: p "), "there is no pool \"p\""),
        (port_taken, "listener late: cannot listen on"),
        (no_certificate, "tls_config"),
        (good.clone() + "accessLog: { path: /nowhere/to/be/found }\n", "cannot open the access log"),
        (String::new(), "config.yaml"),
    ] {
        assert!(!reloads(&proxy, |_| text.clone()), "{text}");
        proxy.await_log(told);
        assert_eq!(client.ask(GET).text(), "one", "{told}");
        assert_eq!(proxy.client().ask(GET).text(), "one", "{told}");
        assert!(!proxy.folder().join("early.sock").exists(), "{told}: a listener is left");
    }
    proxy.await_logs("the one before stays in effect", 6);
    std::fs::remove_file(&path).expect("it is there");
    proxy.signal(Signal::HUP);
    proxy.await_log("cannot read");
    assert_eq!(client.ask(GET).text(), "one");
    // Who opened a pipe would wait for its writer, and hear no signal any more.
    assert_eq!(run(Command::new("mkfifo").arg(&path)).code(), Some(0));
    proxy.signal(Signal::HUP);
    proxy.await_log("is no regular file");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, &good).expect("a file");
    assert!(reloads(&proxy, |text| text.to_owned()), "the good one is taken again");
    eventually("no descriptor is left", || proxy.open_fds() <= fds);
    drop(client);
    proxy.finish();
}

fn listeners_come_and_go(driver: &'static str) {
    let origin = named("one");
    let proxy = Setup::new(driver, &(one_origin(origin.addr) + "runtime: { cores: 2 }\n")).start();
    let second = "listeners: [{ name: file, address: \"unix:FOLDER/web.sock\" }, { name: web,";
    assert!(reloads(&proxy, replaced("listeners: [{ name: web,", second)));
    let path = proxy.folder().join("web.sock");
    let mut by_file = Wire::new(UnixStream::connect(&path).expect("it listens"));
    by_file.send(GET.as_bytes());
    assert_eq!(by_file.response("GET").text(), "one");
    let mut client = proxy.client();
    assert_eq!(client.ask(GET).text(), "one", "the other listens as before");
    let gone = "{ name: file, address: \"unix:FOLDER/web.sock\" }, ";
    let gone = gone.replace("FOLDER", &proxy.folder().display().to_string());
    assert!(reloads(&proxy, replaced(&gone, "")));
    assert!(UnixStream::connect(&path).is_err());
    assert!(by_file.rest().is_ok_and(|rest| rest.is_empty()), "idle connections of it end");
    eventually("its file goes", || !path.exists());
    assert_eq!(client.ask(GET).text(), "one");
    drop((by_file, client));
    proxy.finish();
}

/// Holds requests for `/held` until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn origin(&self) -> Origin {
        let gate = self.clone();
        Origin::answering(move |request| {
            if request.target() == "/held" {
                let mut open = gate.0.0.lock().expect("no panic");
                while !*open {
                    open = gate.0.1.wait(open).expect("no panic");
                }
            }
            ok(&format!("from {}", request.target())).into_bytes()
        })
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

/// An origin whose threads wait at the gate must not outlive a case that failed.
impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

const HELD: &str = "GET /held HTTP/1.1\r\nHost: h\r\n\r\n";

fn connections_of_a_listener_that_goes_end_in_order(driver: &'static str) {
    let gate = Gate::default();
    let origin = gate.origin();
    let listeners = "listeners:\n  - { name: web, address: \"127.0.0.1:0\" }\n  - { name: gone, address: \"127.0.0.1:0\" }\n";
    // No room for more than one, so that the second waits in the accept queue.
    let config = format!("{listeners}{}limits: {{ maxConnections: 1 }}\n", one_origin(origin.addr));
    let proxy = Setup::new(driver, &config).start();
    let mut held = Client::connect(proxy.named("gone"));
    held.send(HELD.as_bytes());
    proxy.await_metric("requests_active", |active| active == 1);
    let mut waiting = Client::connect(proxy.named("gone"));
    waiting.send(GET.as_bytes());
    assert!(reloads(&proxy, replaced("  - { name: gone, address: \"127.0.0.1:0\" }\n", "")));
    eventually("it is closed", || {
        TcpStream::connect(proxy.named("gone"))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    gate.open();
    for (client, target) in [(&mut held, "/held"), (&mut waiting, "/")] {
        let response = client.response("GET");
        assert_eq!((response.status(), response.text()), (200, format!("from {target}")));
        assert_eq!(response.field("connection").to_ascii_lowercase(), "close", "{response:?}");
        client.ends();
    }
    assert_eq!(proxy.client().ask(GET).status(), 200);
    drop((held, waiting));
    // One listener less than at the start, on one core.
    proxy.await_metric("core_open_sockets", |open| open > 0);
    proxy.end();
}

fn rules_of_a_listener_change_where_it_is(driver: &'static str) {
    let origin = named("one");
    let listen = "listenConfig: { addr: \"127.0.0.1:0\" }";
    let config = format!("listeners: [{{ name: web, {listen} }}]\n{}", one_origin(origin.addr));
    let proxy = Setup::new(driver, &config).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(GET).text(), "one");
    let denying = "listenConfig: { addr: \"127.0.0.1:0\", denyNetworks: [127.0.0.0/8] }";
    assert!(reloads(&proxy, replaced(listen, denying)));
    let mut denied = proxy.client();
    denied.send(GET.as_bytes());
    assert!(denied.try_response("GET").is_err());
    assert_eq!(client.ask(GET).text(), "one", "who was let in stays");
    let behind = "listenConfig: { addr: \"127.0.0.1:0\", proxyProtocol: { trusted: [127.0.0.1/32] }, connectionLimit: 1 }";
    assert!(reloads(&proxy, replaced(denying, behind)));
    drop(client);
    let mut named = proxy.client();
    named.send(format!("PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n{GET}").as_bytes());
    assert_eq!(named.response("GET").text(), "one");
    assert_eq!(proxy.metric("listener_denied_total"), 1);
    assert_eq!(proxy.metric("listener_accepted_total"), 2);
    drop(named);
    proxy.finish();
}

fn requests_in_flight_end_as_they_began(driver: &'static str) {
    let gate = Gate::default();
    let (one, other) = (gate.origin(), named("other"));
    let proxy = Setup::new(driver, &one_origin(one.addr)).start();
    let mut held = proxy.client();
    held.send(HELD.as_bytes());
    proxy.await_metric("requests_active", |active| active == 1);
    assert!(reloads(&proxy, replaced(&one.addr.to_string(), &other.addr.to_string())));
    assert_eq!(proxy.client().ask(GET).text(), "other");
    gate.open();
    assert_eq!(held.response("GET").text(), "from /held");
    assert_eq!(held.ask(GET).text(), "other", "the next one goes where the new config says");
    proxy.await_metric("origin_idle", |kept| kept == i64::try_from(other.connections()).expect("few"));
    drop(held);
    proxy.finish();
}

fn who_waits_in_the_accept_queue_is_not_lost(driver: &'static str) {
    let gate = Gate::default();
    let origin = gate.origin();
    let proxy = Setup::new(driver, &(one_origin(origin.addr) + "limits: { maxConnections: 1 }\n")).start();
    let mut held = proxy.client();
    held.send(HELD.as_bytes());
    proxy.await_metric("requests_active", |active| active == 1);
    proxy.await_metric("connections_paused_total", |count| count > 0);
    let mut waiting: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(GET.as_bytes()));
    assert!(reloads(&proxy, |text| format!("{text}timeouts: {{ drain: 7s }}\n")));
    assert_eq!(proxy.metric("requests_total"), 1, "there is no room yet");
    assert!(reloads(&proxy, replaced("maxConnections: 1", "maxConnections: 10")));
    // A higher limit lets them in, while the first is served still.
    waiting.iter_mut().for_each(|client| assert_eq!(client.response("GET").text(), "from /"));
    gate.open();
    assert_eq!(held.response("GET").text(), "from /held");
    drop((held, waiting));
    proxy.finish();
}

fn limits_and_timeouts_hold_from_the_next_request(driver: &'static str) {
    let origin = named("one");
    let config = one_origin(origin.addr) + "limits: { headerBytes: 4096 }\n";
    let proxy = Setup::new(driver, &config).start();
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(1_000));
    let (mut client, mut idle) = (proxy.client(), proxy.client());
    assert_eq!(client.ask(&long).status(), 200);
    assert_eq!(idle.ask(GET).status(), 200);
    assert!(reloads(&proxy, replaced("headerBytes: 4096", "headerBytes: 512")));
    assert_eq!(client.ask(&long).status(), 431, "on a connection that was there before");
    assert!(reloads(&proxy, |text| format!("{text}timeouts: {{ keepAliveIdle: 0.1s }}\n")));
    idle.ends();
    drop(client);
    proxy.finish();
}

fn the_access_log_moves_and_is_opened_anew(driver: &'static str) {
    let origin = named("one");
    let config = one_origin(origin.addr) + "accessLog: { path: FOLDER/access.log }\n";
    let proxy = Setup::new(driver, &config).start();
    let ask = |target: &str| {
        let response = proxy.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(response.status(), 200);
    };
    let logged = |name: &str, target: &str| {
        eventually("the line is written", || {
            let text = std::fs::read_to_string(proxy.folder().join(name)).unwrap_or_default();
            text.contains(&format!(" {target}\""))
        });
    };
    ask("/first");
    logged("access.log", "/first");
    for signal in [Signal::USR1, Signal::HUP] {
        std::fs::rename(proxy.folder().join("access.log"), proxy.folder().join("rotated")).expect("a file");
        proxy.signal(signal);
        eventually("it is opened anew", || proxy.folder().join("access.log").exists());
        ask("/rotated");
        logged("access.log", "/rotated");
    }
    proxy.await_metric("config_reloads_total", |count| count == 1);
    assert!(reloads(&proxy, |text| text.replace("access.log", "moved.log")));
    ask("/moved");
    logged("moved.log", "/moved");
    let before = std::fs::read_to_string(proxy.folder().join("access.log")).expect("a log");
    assert!(!before.contains("/moved"), "{before}");
    assert!(reloads(&proxy, |text| text
        .lines()
        .filter(|line| !line.contains("moved.log"))
        .collect::<Vec<_>>()
        .join("\n")));
    ask("/off");
    proxy.finish();
}

fn the_admin_listener_moves(driver: &'static str) {
    let origin = named("one");
    let proxy = Setup::new(driver, &one_origin(origin.addr)).start();
    let before = proxy.named("admin");
    // The connection to it stays until it ends by itself; nobody new is let in.
    let moved =
        replaced("admin: { address: \"127.0.0.1:0\" }", "admin: { address: \"unix:FOLDER/admin.sock\" }");
    assert!(reloads(&proxy, moved));
    let mut admin = Wire::new(UnixStream::connect(proxy.folder().join("admin.sock")).expect("it listens"));
    admin.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(admin.response("GET").text(), "ok\n");
    eventually("the old one is closed", || TcpStream::connect(before).is_err());
    drop(admin);
    proxy.end();
}

fn what_needs_a_restart_is_refused(driver: &'static str) {
    let origin = named("one");
    let listen = "listenConfig: { addr: \"127.0.0.1:0\" }";
    let config = format!("listeners: [{{ name: web, {listen} }}]\n{}", one_origin(origin.addr));
    let proxy = Setup::new(driver, &config).start();
    let backlog = "listenConfig: { addr: \"127.0.0.1:0\", backlog: 7 }";
    let other = |text: &str| text.replace(listen, backlog).replace("cores: 1", "cores: 2, affinity: true");
    assert!(!reloads(&proxy, other));
    for told in [
        "runtime.cores: only a restart can change it",
        "runtime.affinity: only a restart can change it",
        "listeners[0].listen_config.backlog: it cannot change while 127.0.0.1:",
    ] {
        proxy.await_log(told);
    }
    assert_eq!(proxy.client().ask(GET).text(), "one");
    proxy.finish();
}
