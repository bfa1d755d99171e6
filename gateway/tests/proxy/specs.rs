//! What a listener's and an origin's whole spec ask for holds in the proxy: who is let in, how many, for how long, who they
//! are behind another proxy; and how origins are dialled.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::message::{Client, Wire, ok};
use crate::origin::Origin;
use crate::rig::{Folder, Proxy, Setup, cases, is_windows};

cases![
    lists_of_clients_are_kept_by_address,
    a_trusted_proxy_names_the_client,
    beyond_a_limit_connections_are_closed_or_wait,
    a_limit_for_each_address,
    half_a_request_has_as_long_as_a_receive,
    a_slow_origin_is_no_fault_of_the_client,
    a_connection_ends_at_its_deadline,
    the_file_of_a_listener_has_its_mode,
    an_inherited_socket_is_served,
    an_origin_sees_the_address_that_is_asked_for,
    a_replaced_origin_is_reached_by_its_path,
    an_origin_is_told_of_each_client,
    our_own_address_is_no_fault_of_the_origin,
];

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// One listener with this config beside its address, before one origin.
fn behind(driver: &'static str, listen: &str, origin: SocketAddr, more: &str) -> Proxy {
    let config = format!(
        "listeners: [{{ name: web, listenConfig: {{ addr: \"127.0.0.1:0\", {listen} }} }}]\n\
         accessLog: {{ path: FOLDER/access.log }}\n{more}"
    );
    Setup::to(driver, origin, &config).start()
}

/// A connection from an address of this machine.
fn from(source: [u8; 4], to: SocketAddr) -> Client {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&fd, &SocketAddr::from((source, 0))).expect("loopback has all of 127.0.0.0/8");
    connect(&fd, &to).expect("the proxy accepts");
    Client::over(TcpStream::from(fd))
}

fn is_closed(mut client: Client) -> bool {
    client.send(GET.as_bytes());
    client.try_response("GET").is_err()
}

/// Answers with whom the request was forwarded for.
fn telling() -> Origin {
    Origin::answering(|request| ok(request.field("x-forwarded-for")).into_bytes())
}

fn lists_of_clients_are_kept_by_address(driver: &'static str) {
    let origin = telling();
    let lists = "networks: [127.0.0.0/8], denyNetworks: [127.0.0.2/32]";
    let proxy = behind(driver, lists, origin.addr, "");
    assert!(is_closed(from([127, 0, 0, 2], proxy.addr())));
    for _ in 0..2 {
        assert_eq!(from([127, 0, 0, 3], proxy.addr()).ask(GET).text(), "127.0.0.3");
    }
    assert_eq!(proxy.metric("connections_total"), 2);
    proxy.finish();
}

fn a_trusted_proxy_names_the_client(driver: &'static str) {
    let origin = telling();
    let listen = "proxyProtocol: { trusted: [127.0.0.1/32], timeout: 1h }, denyNetworks: [198.51.100.0/24]";
    let proxy = behind(driver, listen, origin.addr, "");
    let said = |from: &str, header: &str| {
        let source = from.parse::<std::net::Ipv4Addr>().expect("an address").octets();
        let mut client = self::from(source, proxy.addr());
        client.send(format!("{header}{GET}").as_bytes());
        client.try_response("GET").map(|response| response.text()).ok()
    };
    let named = |source: &str| format!("PROXY TCP4 {source} 192.0.2.1 5000 80\r\n");
    // One that says nothing yet holds up nobody.
    let silent = Client::connect(proxy.addr());
    assert_eq!(said("127.0.0.1", &named("203.0.113.7")).as_deref(), Some("203.0.113.7"));
    assert_eq!(said("127.0.0.1", &named("198.51.100.7")), None, "the client is kept out");
    assert_eq!(said("127.0.0.2", &named("203.0.113.7")), None, "nobody trusts this one");
    assert_eq!(said("127.0.0.1", ""), None, "there is no header");
    assert_eq!(said("127.0.0.1", "PROXY UNKNOWN\r\n").as_deref(), Some("127.0.0.1"));
    let lines = proxy.access_log(2);
    assert!(lines[0].contains(" 203.0.113.7 \"GET h /\" 200 "), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    drop(silent);
    proxy.finish();
}

fn beyond_a_limit_connections_are_closed_or_wait(driver: &'static str) {
    let origin = Origin::echo();
    let proxy =
        behind(driver, "connectionLimit: 2, connectionLimitPolicy: LIMIT_POLICY_REJECT", origin.addr, "");
    let mut open: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    open.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status(), 200));
    assert!(is_closed(proxy.client()));
    drop(open);
    proxy.await_metric("connections_active", |active| active == 0);
    assert_eq!(proxy.client().ask(GET).status(), 200);
    proxy.finish();
    let proxy = behind(driver, "connectionLimit: 2", origin.addr, "");
    let mut open: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    open.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status(), 200));
    let mut waiting = proxy.client();
    waiting.send(GET.as_bytes());
    assert_eq!(open[1].ask(GET).status(), 200);
    assert_eq!(proxy.metric("connections_total"), 2);
    open.pop();
    assert_eq!(waiting.response("GET").status(), 200);
    drop((open, waiting));
    proxy.finish();
}

fn a_limit_for_each_address(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = behind(driver, "connectionLimitPerAddress: 1", origin.addr, "");
    let mut first = from([127, 0, 0, 2], proxy.addr());
    assert_eq!(first.ask(GET).status(), 200);
    assert!(is_closed(from([127, 0, 0, 2], proxy.addr())));
    assert_eq!(from([127, 0, 0, 3], proxy.addr()).ask(GET).status(), 200);
    drop(first);
    proxy.finish();
}

fn half_a_request_has_as_long_as_a_receive(driver: &'static str) {
    let origin = Origin::echo();
    let proxy =
        behind(driver, "readDeadline: 100ms", origin.addr, "timeouts: { header: 3600s, bodyIdle: 3600s }\n");
    let mut head = proxy.client();
    head.send(&GET.as_bytes()[..10]);
    assert_eq!(head.response("GET").status(), 408);
    let mut body = proxy.client();
    body.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(body.response("POST").status(), 408);
    // Between two requests it is a receive, too; nothing is owed then.
    let mut idle = proxy.client();
    assert_eq!(idle.ask(GET).status(), 200);
    idle.ends();
    let lines = proxy.access_log(3);
    assert!(lines[0].contains("\"header-timeout\"") && lines[1].contains("\"request-timeout\""), "{lines:?}");
    proxy.finish();
}

fn a_slow_origin_is_no_fault_of_the_client(driver: &'static str) {
    let origin = Origin::answering(|_| {
        thread::sleep(Duration::from_millis(400)); // tidy: an origin that is slow
        ok("late").into_bytes()
    });
    let proxy = behind(driver, "readDeadline: 100ms, writeDeadline: 100ms", origin.addr, "");
    assert_eq!(proxy.client().ask(GET).text(), "late");
    proxy.finish();
}

fn a_connection_ends_at_its_deadline(driver: &'static str) {
    let origin = Origin::script(|mut conn| conn.until_closed());
    let proxy = behind(driver, "connectionDeadline: 200ms", origin.addr, "");
    let begin = Instant::now();
    let mut client = proxy.client();
    client.send(GET.as_bytes());
    assert!(client.try_response("GET").is_err());
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert!(proxy.access_log(1)[0].contains(" 499 0 "), "{:?}", proxy.access_log(1));
    assert!(proxy.access_log(1)[0].contains("\"client-deadline\""), "{:?}", proxy.access_log(1));
    proxy.finish();
}

fn the_file_of_a_listener_has_its_mode(driver: &'static str) {
    let origin = Origin::echo();
    let config = "listeners: [{ name: web, listenConfig: { addr: \"unix://FOLDER/web.sock\", \
                  unix: { mode: \"0600\" } } }]\n";
    let proxy = Setup::to(driver, origin.addr, config).start();
    let path = proxy.folder().join("web.sock");
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Wire::new(UnixStream::connect(&path).expect("it listens"));
    client.send(GET.as_bytes());
    assert_eq!(client.response("GET").status(), 200);
    drop(client);
    proxy.finish();
}

/// A program that opens a socket and hands it over as descriptor 3: sd_listen_fds(3).
const HANDS_OVER: &str = "import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='front', LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[1], sys.argv[1:])";

fn an_inherited_socket_is_served(driver: &'static str) {
    let origin = Origin::echo();
    let config = "listeners: [{ name: web, listenConfig: { inherited: front } }]\nruntime: { cores: 2 }\n";
    let proxy = Setup::to(driver, origin.addr, config).under(&["python3", "-c", HANDS_OVER]).start();
    for _ in 0..4 {
        assert_eq!(proxy.client().ask(GET).status(), 200);
    }
    proxy.finish();
}

/// An origin that answers with the address and port of who asks.
fn who_asks() -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        let (stream, peer) = listener.accept().expect("a connection");
        let mut wire = Client::over(stream);
        while let Ok(Some(_)) = wire.request() {
            wire.send(ok(&peer.ip().to_string()).as_bytes());
        }
    });
    (addr, serving)
}

fn an_origin_sees_the_address_that_is_asked_for(driver: &'static str) {
    let (addr, serving) = who_asks();
    // Windows has TCP_MAXRTMS for it, which Wine lacks.
    let user_timeout = if is_windows() { "" } else { "userTimeout: 5s" };
    let dial = format!(
        "localAddress: \"tcp://127.0.0.9:0\", keepAliveConfig: {{ idle: 7s }}, \
         sockOption: {{ tcpOption: {{ {user_timeout} }} }}"
    );
    let pool = format!("origins: [{{ address: \"{addr}\", dialConfig: {{ {dial} }} }}]");
    let proxy = Setup::pool(driver, &pool, "").start();
    for _ in 0..2 {
        assert_eq!(proxy.client().ask(GET).text(), "127.0.0.9");
    }
    proxy.finish();
    serving.join().expect("no panic");
}

fn a_replaced_origin_is_reached_by_its_path(driver: &'static str) {
    let folder = Folder::new();
    let path = folder.path().join("an origin");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request() {
            wire.send(ok(request.field("host")).as_bytes());
        }
    });
    // A name that nobody knows is never looked up.
    let pool = format!(
        "origins: [{{ address: \"app.invalid:80\", dialConfig: {{ replaceTargets: \
         [\"(tcp|app.invalid:80) > (unix|{})\"] }} }}]",
        path.display()
    );
    let proxy = Setup::pool(driver, &pool, "").start();
    for _ in 0..2 {
        assert_eq!(proxy.client().ask(GET).text(), "app.invalid:80");
    }
    assert!(!proxy.log().contains("could not be looked up"));
    proxy.finish();
    serving.join().expect("no panic");
}

/// A connection that began by naming a client carries requests of no other.
fn an_origin_is_told_of_each_client(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        let Ok(Some(header)) = conn.wire.line() else { return };
        conn.note(&header);
        while let Some(request) = conn.request() {
            conn.wire.send(ok(&format!("{} {header}", request.target())).as_bytes());
        }
    });
    let pool = format!(
        "origins: [{{ address: \"{}\", dialConfig: {{ proxyProtocol: PROXY_PROTOCOL_OUT_V1 }} }}]",
        origin.addr
    );
    let more = "listeners:\n  - { name: web, address: \"127.0.0.1:0\" }\n  \
                - { name: behind, listenConfig: { addr: \"127.0.0.1:0\", \
                proxyProtocol: { trusted: [127.0.0.0/8] } } }\n";
    let proxy = Setup::pool(driver, &pool, more).start();
    let header = |client: &Client| {
        let from = client.stream().local_addr().expect("an address");
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", from.port(), proxy.addr().port())
    };
    let (mut one, mut other) = (proxy.client(), proxy.client());
    for _ in 0..3 {
        assert_eq!(one.ask(GET).text(), format!("/ {}", header(&one)));
        assert_eq!(other.ask(GET).text(), format!("/ {}", header(&other)));
    }
    assert_eq!(origin.connections(), 2, "each is kept for its client: {:?}", origin.notes());
    let mut third = Client::connect(proxy.named("behind"));
    let said = "PROXY TCP4 203.0.113.7 192.0.2.1 5000 80";
    third.send(format!("{said}\r\n").as_bytes());
    assert_eq!(third.ask(GET).text(), format!("/ {said}"), "what was said to us is said on");
    drop((one, other, third));
    proxy.finish();
}

fn our_own_address_is_no_fault_of_the_origin(driver: &'static str) {
    let origin = Origin::echo();
    // RFC 5737: no address of this machine.
    let dial = "dialConfig: { localAddress: \"tcp://192.0.2.1:0\" }";
    let pool = format!(
        "origins: [{{ address: \"{0}\", {dial} }}, {{ address: \"127.0.0.2:{1}\", {dial} }}], retries: 0, \
         health: {{ maxFails: 1 }}",
        origin.addr,
        origin.addr.port()
    );
    let proxy = Setup::pool(driver, &pool, "accessLog: { path: FOLDER/access.log }\n").start();
    for _ in 0..3 {
        assert_eq!(proxy.client().ask(GET).status(), 502);
    }
    assert!(proxy.access_log(3)[0].contains("\"refused (127.0.0.1:"), "{:?}", proxy.access_log(3));
    assert_eq!(proxy.metric("origin_ejections_total"), 0);
    proxy.finish();
}
