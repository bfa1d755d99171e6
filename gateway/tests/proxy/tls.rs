//! TLS on both sides of the proxy, with clients and origins that speak it by rustls's buffered API, and curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::message::{Client, PATIENCE, Wire, ok};
use crate::origin::Origin;
use crate::pki::{Authority, Identity};
use crate::rig::{Folder, Proxy, Setup, cases, eventually, is_windows, skipped};

cases![
    requests_over_every_version,
    a_certificate_for_each_name,
    bodies_pass_whole_both_ways,
    curl_is_served,
    an_upgrade_passes_inside,
    who_speaks_no_tls_is_told,
    half_a_handshake_ends_at_its_timeout,
    the_oldest_handshake_makes_room,
    a_client_that_is_cut_off_is_no_end_of_a_body,
    clients_show_certificates,
    an_origin_is_told_of_a_certificate,
    a_drain_ends_connections_in_order,
    origins_are_verified,
    an_origin_asks_for_a_certificate,
    a_new_certificate_is_taken_while_clients_come,
    broken_files_are_refused,
];

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Certificates in a folder.
struct Pki {
    folder: Folder,
    authority: Authority,
}

impl Pki {
    /// `server` for localhost, `other` for other.test, `client`, and whose they are.
    fn new() -> Pki {
        Pki::of("ours")
    }

    fn of(authority: &str) -> Pki {
        let pki = Pki { folder: Folder::new(), authority: Authority::new(authority) };
        pki.folder.file("ca.pem", &pki.authority.cert);
        pki.put("server", &pki.authority.issue(&["localhost", "127.0.0.1"]));
        pki.put("other", &pki.authority.issue(&["other.test"]));
        pki.put("client", &pki.authority.issue(&["client.test"]));
        pki
    }

    /// Whole at once, in place of what was there.
    fn put(&self, name: &str, pair: &Identity) {
        for (end, text) in [("pem", &pair.cert), ("key", &pair.key)] {
            let new = self.folder.file("new", text);
            std::fs::rename(new, self.folder.path().join(format!("{name}.{end}"))).expect("renamed");
        }
    }

    fn pair(&self, name: &str) -> String {
        let path = self.folder.path().join(name).display().to_string();
        format!("{{ certFile: {path}.pem, keyFile: {path}.key }}")
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_slice(self.authority.cert.as_bytes()).expect("a certificate");
        roots.add(cert).expect("an authority");
        roots
    }

    fn shown(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let path = self.folder.path().join(name);
        let cert = CertificateDer::from_pem_file(path.with_extension("pem")).expect("a certificate");
        (vec![cert], PrivateKeyDer::from_pem_file(path.with_extension("key")).expect("a key"))
    }

    /// What a client has; `shows` names its certificate.
    fn client(
        &self,
        shows: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots());
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.shown(name);
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// What an origin has.
    fn server(&self, name: &str, asks: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions");
        let builder = if asks {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), crypto()).build();
            builder.with_client_cert_verifier(verifier.expect("roots"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = self.shown(name);
        Arc::new(builder.with_single_cert(chain, key).expect("a pair"))
    }

    /// A proxy with one listener over TLS before one origin.
    fn proxy(&self, driver: &'static str, tls: &str, origin: SocketAddr, more: &str) -> Proxy {
        Setup::to(driver, origin, &(self.listener(tls) + more)).start()
    }

    fn listener(&self, tls: &str) -> String {
        format!(
            "listeners: [{{ name: web, listenConfig: {{ addr: \"127.0.0.1:0\", tlsConfig: {{ certKeyPairs: [{}], {tls} }} }} }}]\n",
            self.pair("server")
        )
    }
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Secured = Wire<StreamOwned<ClientConnection, TcpStream>>;

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the proxy accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// The handshake happens at the first byte.
fn secured(config: &Arc<ClientConfig>, name: &str, addr: SocketAddr) -> Secured {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a client");
    Wire::new(StreamOwned::new(connection, tcp(addr)))
}

fn tls_of(wire: &mut Secured) -> &mut StreamOwned<ClientConnection, TcpStream> {
    wire.reader().get_mut()
}

fn ask(wire: &mut Secured, request: &str) -> crate::message::Message {
    wire.send(request.as_bytes());
    wire.response(request.split(' ').next().unwrap_or_default())
}

/// An origin that answers every request over TLS with `NAME of the server | body`, and tells what became of handshakes.
struct TlsOrigin {
    addr: SocketAddr,
    ends: Mutex<Receiver<Result<(), String>>>,
}

impl TlsOrigin {
    fn start(config: Arc<ServerConfig>) -> TlsOrigin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (tell, ends) = channel();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, tell) = (config.clone(), tell.clone());
                thread::spawn(move || serve(stream, config, &tell));
            }
        });
        TlsOrigin { addr, ends: Mutex::new(ends) }
    }

    fn next_end(&self) -> Result<(), String> {
        self.ends.lock().expect("no panic").recv_timeout(PATIENCE).expect("a handshake")
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, tell: &Sender<Result<(), String>>) {
    let _ = stream.set_nodelay(true);
    let mut stream = StreamOwned::new(ServerConnection::new(config).expect("a server"), stream);
    while stream.conn.is_handshaking() {
        if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
            let _ = tell.send(Err(error.to_string()));
            return;
        }
    }
    let _ = tell.send(Ok(()));
    let name = stream.conn.server_name().unwrap_or("none").to_owned();
    let mut wire = Wire::new(stream);
    while let Ok(Some(request)) = wire.request() {
        wire.send(ok(&format!("{name}|{}", request.text())).as_bytes());
    }
}

fn requests_over_every_version(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::answering(|request| {
        ok(&format!("{} {}", request.field("x-forwarded-proto"), request.field("forwarded"))).into_bytes()
    });
    let proxy = pki.proxy(driver, "", origin.addr, "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = secured(&pki.client(None, &[version]), "localhost", proxy.addr());
        for _ in 0..3 {
            let answer = ask(&mut client, GET).text();
            assert_eq!(answer, "https for=127.0.0.1;host=\"h\";proto=https");
        }
        assert_eq!(tls_of(&mut client).conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    assert_eq!(proxy.metric("tls_handshakes_total"), 2);
    assert_eq!(proxy.metric("tls_failures_total"), 0);
    proxy.finish();
}

fn a_certificate_for_each_name(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let listener = pki.listener("").replace("], ", &format!(", {}], ", pki.pair("other")));
    let proxy = Setup::to(driver, origin.addr, &listener).start();
    let config = pki.client(None, rustls::ALL_VERSIONS);
    for name in ["localhost", "other.test", "localhost"] {
        let mut client = secured(&config, name, proxy.addr());
        assert_eq!(ask(&mut client, GET).status(), 200, "{name} is verified");
    }
    proxy.finish();
}

fn bodies_pass_whole_both_ways(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::answering(|request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
        [head.as_bytes(), &request.body].concat()
    });
    let proxy = pki.proxy(driver, "", origin.addr, "");
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut client = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        client.send(&body);
        assert!(client.response("POST").body == body);
    }
    drop(client);
    proxy.finish();
}

fn curl_is_served(driver: &'static str) {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped(driver, "there is no curl");
    }
    let pki = Pki::new();
    let origin = Origin::echo();
    let proxy = pki.proxy(driver, "", origin.addr, "");
    let url = format!("https://localhost:{}/a?b", proxy.addr().port());
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20"]).args(arguments).arg(&url);
        command.output().expect("curl runs")
    };
    let ca = pki.ca();
    let trusting = ["--cacert", &ca, "--resolve", "localhost:0:127.0.0.1", "-w", "%{http_version}"];
    for (version, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let answer = curl(&[&trusting[..], &[version]].concat());
        assert_eq!(String::from_utf8_lossy(&answer.stdout), format!("GET /a?b {spoken}"), "{answer:?}");
    }
    let refused = curl(&[]);
    assert_eq!(refused.status.code(), Some(60), "nobody vouches for it: {refused:?}");
    eventually("the failure is counted", || proxy.metric("tls_failures_total") == 1);
    proxy.finish();
}

fn an_upgrade_passes_inside(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::script(|mut conn| {
        drop(conn.head());
        conn.wire
            .send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let bytes = conn.wire.exactly(200_000);
        conn.wire.send(&bytes);
        conn.until_closed();
    });
    let proxy = pki.proxy(driver, "", origin.addr, "");
    let mut client = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    let upgrade = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(upgrade.as_bytes());
    assert_eq!(client.response("GET").status(), 101);
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 253) as u8).collect();
    client.send(&bytes);
    assert!(client.exactly(bytes.len()) == bytes);
    tls_of(&mut client).conn.send_close_notify();
    let _ = tls_of(&mut client).flush();
    client.ends();
    drop(client);
    proxy.finish();
}

/// An alert, not silence; and nobody else is disturbed.
fn who_speaks_no_tls_is_told(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let proxy = pki.proxy(driver, "", origin.addr, "");
    let mut other = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    assert_eq!(ask(&mut other, GET).status(), 200);
    for junk in [GET.as_bytes(), &[0; 3_000], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 9]] {
        let mut client = Client::over(tcp(proxy.addr()));
        client.send(junk);
        let answer = client.rest().unwrap_or_default();
        assert!(answer.is_empty() || answer[0] == 21, "an alert: {answer:?}");
    }
    // A port scan: nothing is said.
    drop(tcp(proxy.addr()));
    assert_eq!(ask(&mut other, GET).status(), 200);
    drop(other);
    eventually("all are counted", || proxy.metric("tls_failures_total") == 4);
    proxy.finish();
}

fn half_a_handshake_ends_at_its_timeout(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let proxy = pki.proxy(driver, "handshakeTimeout: 200ms", origin.addr, "");
    let mut silent = tcp(proxy.addr());
    let mut half = tcp(proxy.addr());
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).expect("sent");
    for client in [&mut silent, &mut half] {
        // Closed, in whatever way.
        let _ = client.read(&mut [0; 16]);
    }
    eventually("both are counted", || proxy.metric("tls_failures_total") == 2);
    proxy.finish();
}

fn the_oldest_handshake_makes_room(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let proxy = pki.proxy(driver, "handshakeTimeout: 0, maxPendingHandshakes: 3", origin.addr, "");
    let mut idle: Vec<_> = (0..20).map(|_| tcp(proxy.addr())).collect();
    eventually("all but three are given up", || proxy.metric("tls_failures_total") == 17);
    let mut client = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    assert_eq!(ask(&mut client, GET).status(), 200);
    assert_eq!(idle[0].read(&mut [0; 16]).unwrap_or(0), 0);
    drop((idle, client));
    proxy.finish();
}

/// Without a close_notify anybody on the way may have cut it (RFC 8446 6.1).
fn a_client_that_is_cut_off_is_no_end_of_a_body(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::script(|mut conn| {
        drop(conn.head());
        conn.until_closed();
    });
    let proxy = pki.proxy(driver, "", origin.addr, "");
    let mut client = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf");
    eventually("it is at the origin", || origin.requests().len() == 1);
    let _ = tls_of(&mut client).sock.shutdown(std::net::Shutdown::Write);
    eventually("it is given up", || proxy.metric("requests_aborted_total") == 1);
    drop(client);
    proxy.finish();
}

fn clients_show_certificates(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let tls = format!("clientAuth: REQUIRE_AND_VERIFY, clientCAs: [{}]", pki.ca());
    let proxy = pki.proxy(driver, &tls, origin.addr, "");
    let mut client = secured(&pki.client(Some("client"), rustls::ALL_VERSIONS), "localhost", proxy.addr());
    assert_eq!(ask(&mut client, GET).status(), 200);
    let mut nobody = secured(&pki.client(None, rustls::ALL_VERSIONS), "localhost", proxy.addr());
    nobody.send(GET.as_bytes());
    assert!(nobody.try_response("GET").is_err());
    drop((client, nobody));
    assert!(origin.requests().len() == 1);
    proxy.finish();
}

fn an_origin_is_told_of_a_certificate(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::answering(|request| ok(request.field("x-forwarded-client-cert")).into_bytes());
    let pem = std::fs::read_to_string(pki.folder.path().join("client.pem")).expect("a file");
    let first = pem.split_inclusive("-----END CERTIFICATE-----").next().expect("one");
    let wanted: String = first.chars().filter(|byte| !byte.is_whitespace() && *byte != '-').collect();
    for (mode, told) in [("VERIFY_IF_GIVEN", true), ("REQUEST", false)] {
        let tls = format!("clientAuth: {mode}, clientCAs: [{}]", pki.ca());
        let tls = if told { tls } else { format!("clientAuth: {mode}") };
        let config = format!(
            "{}routes: [{{ pool: o, clientCert: true }}, {{ pool: o, pathPrefix: /untold }}]
pools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]
",
            pki.listener(&tls),
            origin.addr
        );
        let proxy = Setup::new(driver, &config).start();
        let ask_as = |shows: Option<&str>, target: &str| {
            let mut client = secured(&pki.client(shows, rustls::ALL_VERSIONS), "localhost", proxy.addr());
            let said = "X-Forwarded-Client-Cert: Cert=mine\r\nx_forwarded_client_cert: mine";
            ask(&mut client, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n{said}\r\n\r\n")).text()
        };
        let got = ask_as(Some("client"), "/");
        if told {
            let text = got.strip_prefix("Cert=\"").and_then(|text| text.strip_suffix('"')).expect("a value");
            let plain = ["%20", "%0A", "-"].iter().fold(text.to_owned(), |text, code| text.replace(code, ""));
            let plain = plain.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
            assert_eq!(plain, wanted);
        } else {
            assert_eq!(got, "", "nobody vouches for it");
        }
        assert_eq!(ask_as(None, "/"), "", "{mode}");
        assert_eq!(ask_as(Some("client"), "/untold"), "", "{mode}");
        proxy.finish();
    }
    assert!(origin.requests().iter().all(|request| !request.has("x_forwarded_client_cert")));
}

fn a_drain_ends_connections_in_order(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let mut proxy = pki.proxy(driver, "", origin.addr, "timeouts: { drain: 20s }\n");
    let config = pki.client(None, rustls::ALL_VERSIONS);
    let mut idle = secured(&config, "localhost", proxy.addr());
    assert_eq!(ask(&mut idle, GET).status(), 200);
    let late = tcp(proxy.addr());
    eventually("it is taken", || proxy.metric("connections_active") == 2);
    proxy.terminate();
    // Its end is said, not cut: rustls tells a missing close_notify by an error.
    assert!(idle.rest().expect("an end in order").is_empty());
    // Who has connected is still served.
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a client");
    let mut late: Secured = Wire::new(StreamOwned::new(connection, late));
    assert_eq!(ask(&mut late, GET).status(), 200);
    drop((idle, late));
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// A pool with an origin over TLS, of which nothing but our authority is trusted.
fn origin_pool(pki: &Pki, address: &str, tls: &str) -> String {
    let ca = pki.ca();
    format!(
        "origins: [{{ address: \"{address}\", dialConfig: {{ tlsConfig: {{ rootCAs: [{ca}], rootCAsIgnoreSystemCerts: true{tls} }} }} }}], retries: 0"
    )
}

fn origins_are_verified(driver: &'static str) {
    let pki = Pki::new();
    let stranger = Pki::of("a stranger");
    let good = TlsOrigin::start(pki.server("server", false));
    let port = good.addr.port();
    let proxy = Setup::pool(driver, &origin_pool(&pki, &format!("localhost:{port}"), ""), "").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        let body = "x".repeat(100_000);
        let answer =
            client.ask(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{body}"));
        assert!(answer.text() == format!("localhost|{body}"));
    }
    assert_eq!(good.next_end(), Ok(()));
    assert_eq!(proxy.metric("origin_connects_total"), 1, "it is kept");
    drop(client);
    proxy.finish();

    // Of a stranger, and for another name.
    let bad = TlsOrigin::start(stranger.server("server", false));
    let cases = [
        (&bad, "", "nobody who is trusted"),
        (&good, ", serverName: wrong.test", "name"),
        (&bad, ", insecureSkipVerify: true", ""),
    ];
    for (origin, tls, cause) in cases {
        let config = origin_pool(&pki, &origin.addr.to_string(), tls);
        let proxy = Setup::pool(driver, &config, "accessLog: { path: FOLDER/access.log }\n").start();
        let mut client = proxy.client();
        let answer = client.ask(GET);
        let line = proxy.access_log(1).pop().expect("a line");
        if cause.is_empty() {
            assert_eq!(answer.status(), 200, "{line}");
        } else {
            assert_eq!(answer.status(), 502, "{line}");
            assert!(line.contains("TLS: ") && line.contains(cause), "{line}");
            assert!(origin.next_end().is_err(), "it is told by an alert");
        }
        drop(client);
        proxy.finish();
    }
}

fn an_origin_asks_for_a_certificate(driver: &'static str) {
    let pki = Pki::new();
    let origin = TlsOrigin::start(pki.server("server", true));
    let address = origin.addr.to_string();
    let pair = format!(", certKeyPairs: [{}]", pki.pair("client"));
    for (tls, status) in [(pair.as_str(), 200), ("", 502)] {
        let proxy = Setup::pool(driver, &origin_pool(&pki, &address, tls), "").start();
        let mut client = proxy.client();
        assert_eq!(client.ask(GET).status(), status);
        assert_eq!(origin.next_end().is_ok(), status == 200);
        drop(client);
        proxy.finish();
    }
}

/// Nobody is refused meanwhile, and soon everybody sees the new one: on its own, and told by a signal.
fn a_new_certificate_is_taken_while_clients_come(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let config = pki.client(None, &[&rustls::version::TLS13]);
    for (reload, by_signal) in [("20ms", false), ("0", true)] {
        // Nothing stands for SIGHUP on Windows.
        if by_signal && is_windows() {
            continue;
        }
        let proxy = pki.proxy(
            driver,
            &format!("reloadInterval: {reload}, sessionTicketsDisabled: true"),
            origin.addr,
            "",
        );
        let shown = || {
            let mut client = secured(&config, "localhost", proxy.addr());
            assert_eq!(ask(&mut client, GET).status(), 200, "nobody is refused");
            tls_of(&mut client).conn.peer_certificates().expect("one")[0].to_vec()
        };
        let old = shown();
        pki.put("server", &pki.authority.issue(&["localhost"]));
        if by_signal {
            assert_eq!(shown(), old);
            // A fault elsewhere keeps all of what was, this too.
            let config = proxy.folder().join("config.yaml");
            let text = std::fs::read_to_string(&config).expect("the config");
            std::fs::write(&config, format!("{text}accessLog: {{ path: /no/such/folder/log }}\n"))
                .expect("a file");
            proxy.signal(rustix::process::Signal::HUP);
            eventually("it is refused", || proxy.metric("config_reload_failures_total") == 1);
            assert_eq!(shown(), old);
            std::fs::write(&config, text).expect("a file");
            proxy.signal(rustix::process::Signal::HUP);
        }
        eventually("the new one is shown", || shown() != old);
        proxy.finish();
    }
}

fn broken_files_are_refused(driver: &'static str) {
    let pki = Pki::new();
    let origin = Origin::echo();
    let proxy = pki.proxy(driver, "reloadInterval: 0", origin.addr, "");
    let config = pki.client(None, rustls::ALL_VERSIONS);
    let mut client = secured(&config, "localhost", proxy.addr());
    assert_eq!(ask(&mut client, GET).status(), 200);
    pki.folder.file("server.pem", "no certificate");
    proxy.signal(rustix::process::Signal::HUP);
    eventually("it is refused", || proxy.metric("config_reload_failures_total") == 1);
    let told = proxy.await_log("listener web: cert_key_pairs[0].cert_file: ");
    assert!(told.contains("server.pem") && told.contains("holds no certificate"), "{told}");
    let mut second = secured(&config, "localhost", proxy.addr());
    assert_eq!(ask(&mut second, GET).status(), 200, "the old one stays");
    drop((client, second));
    proxy.finish();

    let text = pki.listener("")
        + "routes: [{ pool: o }]\npools: [{ name: o, origins: [{ address: \"127.0.0.1:1\" }] }]\n";
    let path = pki.folder.file("config.yaml", &text);
    let mut command = crate::rig::program();
    let output = command.args(["proxy", "--config"]).arg(path).env("RINGPORT_DRIVER", driver).output();
    let output = output.expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("listener web: cert_key_pairs[0].cert_file: "), "{told}");
}
