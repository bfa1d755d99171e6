//! Where clients and operators connect, and where origins are: TCP of both families, Unix sockets by path and by name.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::message::{Client, PATIENCE, Wire, ok};
use crate::origin::Origin;
use crate::process::{Process, have, ringport, run, skipped};
use crate::rig::{Folder, Setup, cases};

cases![
    unix_sockets_serve_clients_and_reach_origins,
    a_stale_socket_file_is_replaced_and_removed_at_the_end,
    ipv6_serves_clients_and_reaches_origins,
    several_listeners_serve_at_once,
    the_admin_listener_may_be_a_unix_socket,
];

fn over_unix(stream: UnixStream) -> Wire<UnixStream> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Wire::new(stream)
}

fn get<S: std::io::Read + std::io::Write>(wire: &mut Wire<S>, target: &str) -> String {
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    let response = wire.response("GET");
    assert_eq!(response.status(), 200, "{response:?}");
    response.text()
}

/// Answers with the request's target and its `Forwarded` field, until the process ends.
fn unix_origin(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut wire = over_unix(stream);
                while let Ok(Some(request)) = wire.request() {
                    wire.send(ok(&format!("{} {}", request.target(), request.field("host"))).as_bytes());
                }
            });
        }
    });
}

fn unix_sockets_serve_clients_and_reach_origins(driver: &'static str) {
    let folder = Folder::new();
    let path = folder.path().join("origin.sock");
    unix_origin(&path);
    let abstract_name = format!("ringport-test-{}-{driver}", std::process::id());
    let config = format!(
        "listeners:\n  - {{ name: file, address: \"unix:FOLDER/web.sock\" }}\n  \
         - {{ name: name, address: \"unix:@{abstract_name}\" }}\n"
    );
    let pool = format!("origins: [{{ address: \"unix:{}\" }}]", path.display());
    let proxy = Setup::pool(driver, &pool, &(config + "runtime: { cores: 2 }\n")).start();
    let file = proxy.folder.path().join("web.sock");
    let mut by_file = over_unix(UnixStream::connect(&file).expect("it listens"));
    let name = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
    let mut by_name = over_unix(UnixStream::connect_addr(&name).expect("it listens"));
    for _ in 0..3 {
        assert_eq!(get(&mut by_file, "/file"), "/file h");
        assert_eq!(get(&mut by_name, "/name"), "/name h");
    }
    // A body that is larger than any socket buffer.
    let body = "x".repeat(3_000_000);
    by_file.send(
        format!("POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
    );
    assert_eq!(by_file.response("POST").text(), "/big h");
    drop((by_file, by_name));
    proxy.finish();
}

fn a_stale_socket_file_is_replaced_and_removed_at_the_end(driver: &'static str) {
    let folder = Folder::new();
    let path = folder.path().join("web.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "a socket leaves its file behind");
    let origin = Origin::echo();
    let config = format!("listeners: [{{ name: web, address: \"unix:{}\" }}]\n", path.display());
    let mut proxy = Setup::to(driver, origin.addr, &config).start();
    let mut client = over_unix(UnixStream::connect(&path).expect("it listens"));
    assert_eq!(get(&mut client, "/"), "GET / ");
    // A second proxy does not take the place of one that lives.
    let second = folder.file("second.yaml", &(config + SECOND));
    let second = second.to_str().expect("a plain path");
    run(&mut ringport(&["proxy", "--config", second]))
        .assert_refused(&["web.sock", "another process listens"]);
    assert_eq!(get(&mut client, "/"), "GET / ");
    drop(client);
    proxy.assert_idle();
    proxy.terminate();
    assert_eq!(proxy.exit().0.code(), Some(0));
    assert!(!path.exists(), "the file goes with the listener");
}

const SECOND: &str = "routes: [{ pool: o }]\npools: [{ name: o, origins: [{ address: \"127.0.0.1:9\" }] }]\n";

fn ipv6_serves_clients_and_reaches_origins(driver: &'static str) {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return skipped("IPv6", "this machine has no ::1");
    };
    let origin = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut wire = Client::over(stream);
            while let Ok(Some(request)) = wire.request() {
                let fields =
                    ["host", "forwarded", "x-forwarded-for"].map(|name| request.field(name).to_owned());
                wire.send(ok(&fields.join("|")).as_bytes());
            }
        }
    });
    let config = "listeners: [{ name: web, address: \"[::1]:0\" }]\n";
    let proxy = Setup::to(driver, origin, config).start();
    assert!(proxy.addr().is_ipv6());
    let mut client = proxy.client();
    let seen = client.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").text();
    // RFC 7239 6: an IPv6 address is quoted and in brackets.
    let [host, forwarded, x_forwarded_for] = seen.split('|').collect::<Vec<_>>()[..] else {
        panic!("{seen}")
    };
    assert_eq!((host, x_forwarded_for), (origin.to_string().as_str(), "::1"));
    assert!(forwarded.contains("for=\"[::1]\""), "{forwarded}");
    drop(client);
    proxy.finish();
}

fn several_listeners_serve_at_once(driver: &'static str) {
    let origin = Origin::echo();
    let listeners: Vec<_> =
        (0..8).map(|at| format!("  - {{ name: l{at}, address: \"127.0.0.1:0\" }}\n")).collect();
    let config = format!("listeners:\n{}runtime: {{ cores: 2 }}\n", listeners.concat());
    let proxy = Setup::to(driver, origin.addr, &config).start();
    let mut clients: Vec<_> =
        (0..32).map(|at| Client::connect(proxy.named(&format!("l{}", at % 8)))).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(
            client.ask(&format!("GET /{at} HTTP/1.1\r\nHost: h\r\n\r\n")).text(),
            format!("GET /{at} ")
        );
    }
    assert_eq!(proxy.metric("connections_active"), 32);
    drop(clients);
    proxy.finish();
}

fn the_admin_listener_may_be_a_unix_socket(driver: &'static str) {
    let folder = Folder::new();
    let origin = Origin::echo();
    let path = folder.path().join("admin.sock");
    let text = format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"unix:{}\" }}\n\
         routes: [{{ pool: o }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        path.display(),
        origin.addr
    );
    let config = folder.file("c.yaml", &text);
    let arguments = ["proxy", "--config", config.to_str().expect("a plain path")];
    let mut proxy = Process::start(ringport(&arguments).env("RINGPORT_DRIVER", driver));
    assert_eq!(get(&mut Client::connect(proxy.listening("web")), "/"), "GET / ");
    let mut admin = over_unix(UnixStream::connect(&path).expect("it listens"));
    assert_eq!(get(&mut admin, "/healthz"), "ok\n");
    assert!(get(&mut admin, "/metrics").contains("ringport_requests_total 1\n"));
    if have("curl over a Unix socket", &["curl"]) {
        let path = path.to_str().expect("a plain path");
        let curl = run(Command::new("curl").args(["-sS", "--unix-socket", path, "http://admin/healthz"]));
        assert_eq!((curl.code(), curl.out.as_str()), (Some(0), "ok\n"), "{curl:?}");
    }
    drop(admin);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    assert!(!path.exists());
}
