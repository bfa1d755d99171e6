//! What a gateway adds to the fields of a message, and what it takes away.

use crate::message::{Message, Wire, ok};
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, cases, skipped};

cases![
    fields_of_this_hop_go_no_further,
    framing_with_an_underscore_goes_no_further,
    connection_takes_no_field_that_is_not_its_to_take,
    forwarding_fields_are_appended,
    forwarding_fields_are_replaced,
    forwarding_fields_are_left_alone,
    a_forged_element_hides_nothing,
    addresses_of_ipv6_are_quoted,
    a_client_on_a_unix_socket_is_unknown,
    host_is_the_origins_or_the_clients,
    via_names_the_version_of_the_message,
    each_side_of_the_connection_lives_by_itself,
    an_offer_to_upgrade_is_passed_on_only_with_426,
    every_response_has_one_date,
    max_forwards_counts_down,
    values_pass_unchanged,
];

/// Asks through the proxy; what the origin saw, and what the client got.
fn exchange(proxy: &Proxy, origin: &Origin, request: &str) -> (Message, Message) {
    let response = proxy.client().ask(request);
    (origin.requests().pop().unwrap_or_default(), response)
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

fn names(message: &Message) -> Vec<String> {
    message.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

fn fields_of_this_hop_go_no_further(driver: &'static str) {
    let hop = "Connection: close, X-Hop, x-other-hop\r\nConnection: TE\r\nX-HOP: 1\r\nX-Other-Hop: 2\r\nx-hop: 3\r\n\
               Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\
               Proxy-Authenticate: Basic\r\nUpgrade: websocket\r\nHTTP2-Settings: AA\r\nTE: gzip, trailers;q=0.5, trailers\r\n\
               X-Hop-2: stays\r\nTrailer: X-Sum\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{hop}Content-Length: 2\r\n\r\nok");
    let origin = Origin::answering(move |_| answer.clone().into_bytes());
    let proxy = Setup::to(driver, origin.addr, "").start();
    let (seen, response) = exchange(&proxy, &origin, &get(hop));
    for message in [&seen, &response] {
        for gone in [
            "x-hop",
            "x-other-hop",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "upgrade",
            "http2-settings",
        ] {
            assert!(!message.has(gone), "{gone}: {message:?}");
        }
        assert_eq!((message.field("x-hop-2"), message.field("trailer")), ("stays", "X-Sum"));
    }
    // RFC 9110 10.1.4: said anew, for the hop that we make.
    assert_eq!((seen.field("te"), seen.field("connection")), ("trailers", "te"));
    assert_eq!(response.field("connection"), "close", "what the client asked for");
    let (seen, _) = exchange(&proxy, &origin, &get("TE: gzip\r\nConnection: TE\r\n"));
    assert!(!seen.has("te") && !seen.has("connection"), "{seen:?}");
    proxy.finish();
}

/// Origins that fold `_` to `-`, as CGI does, would frame a request by a field that we take for any other.
fn framing_with_an_underscore_goes_no_further(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let request = get("Transfer_Encoding: chunked\r\nContent_Length: 5\r\nContent_Type: a/b\r\n");
    let (seen, response) = exchange(&proxy, &origin, &request);
    assert_eq!((response.status(), seen.field("content_type")), (200, "a/b"));
    assert!(!seen.has("transfer_encoding") && !seen.has("content_length"), "{seen:?}");
    proxy.finish();
}

/// A client that names what the gateway must say itself does not silence it.
fn connection_takes_no_field_that_is_not_its_to_take(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Real: 1\r\nX-Forwarded-For: 192.0.2.1\r\n\
                   Connection: host, content-length, transfer-encoding, via, x-forwarded-for, x-forwarded-host, forwarded, x\r\n\r\nhi";
    let (seen, response) = exchange(&proxy, &origin, request);
    assert_eq!((response.status(), seen.text().as_str()), (200, "hi"));
    assert_eq!((seen.field("content-length"), seen.field("via")), ("2", "1.1 ringport"));
    assert_eq!((seen.field("host"), seen.field("x-real")), (origin.addr.to_string().as_str(), "1"));
    assert!(seen.field("x-forwarded-for").ends_with("127.0.0.1"), "{seen:?}");
    assert!(seen.field("forwarded").contains("for=127.0.0.1"), "{seen:?}");
    assert_eq!(seen.field("x-forwarded-host"), "h");
    proxy.finish();
}

fn forwarding(driver: &'static str, origin: &Origin, policy: &str) -> Proxy {
    let config = format!(
        "routes: [{{ pool: o, forwarded: {policy} }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    Setup::new(driver, &config).start()
}

const SPOOFED: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3\r\nX-Forwarded-Proto: https\r\n\
                       X-Forwarded-Host: a.example\r\nForwarded: for=192.0.2.1;proto=https\r\nForwarded: for=\"[2001:db8::1]\"\r\n\
                       X_Forwarded_For: 192.0.2.9\r\n";

fn forwarding_fields_are_appended(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = forwarding(driver, &origin, "append");
    let (seen, _) = exchange(&proxy, &origin, &get(SPOOFED));
    assert_eq!(seen.field("x-forwarded-for"), "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1");
    assert_eq!((seen.field("x-forwarded-proto"), seen.field("x-forwarded-host")), ("https", "a.example"));
    let forwarded = "for=192.0.2.1;proto=https, for=\"[2001:db8::1]\", for=127.0.0.1;host=\"h\";proto=http";
    assert_eq!(seen.field("forwarded"), forwarded);
    assert!(!seen.has("x_forwarded_for"), "{seen:?}");
    let (seen, _) = exchange(&proxy, &origin, &get(""));
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert_eq!(seen.field("x-forwarded-host"), "h");
    proxy.finish();
}

fn forwarding_fields_are_replaced(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = forwarding(driver, &origin, "replace");
    let (seen, _) = exchange(&proxy, &origin, &get(SPOOFED));
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert_eq!(seen.field("x-forwarded-host"), "h");
    assert_eq!(seen.field("forwarded"), "for=127.0.0.1;host=\"h\";proto=http");
    assert!(!seen.has("x_forwarded_for"), "{seen:?}");
    proxy.finish();
}

fn forwarding_fields_are_left_alone(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = forwarding(driver, &origin, "off");
    let (seen, _) = exchange(&proxy, &origin, &get("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=_x\r\n"));
    assert_eq!((seen.field("x-forwarded-for"), seen.field("forwarded")), ("192.0.2.1", "for=_x"));
    assert!(!seen.has("x-forwarded-proto") && !seen.has("x-forwarded-host"), "{seen:?}");
    proxy.finish();
}

/// A quoted string without its end would have swallowed the element that the gateway appends.
fn a_forged_element_hides_nothing(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let ours = "for=127.0.0.1;host=\"h\";proto=http";
    for forged in ["for=\"", "for=\"a\\\"", "for=a;by=\"b\", for=\"c"] {
        let (seen, _) = exchange(&proxy, &origin, &get(&format!("Forwarded: {forged}\r\n")));
        assert_eq!(seen.field("forwarded"), ours, "{forged}");
    }
    let (seen, _) = exchange(&proxy, &origin, &get("Forwarded: for=\"_a\\\"b\"\r\n"));
    assert_eq!(seen.field("forwarded"), format!("for=\"_a\\\"b\", {ours}"));
    proxy.finish();
}

fn addresses_of_ipv6_are_quoted(driver: &'static str) {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        return skipped(driver, &format!("no IPv6 on the loopback: {error}"));
    }
    let origin = Origin::echo();
    let config = format!(
        "listeners: [{{ name: web, address: \"[::1]:0\" }}, {{ name: both, address: \"[::]:0\" }}]\n\
         routes: [{{ pool: o }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    let response = proxy.client().ask("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert_eq!(response.status(), 200);
    let seen = origin.requests().pop().expect("a request");
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-host")), ("::1", "[::1]:80"));
    assert_eq!(seen.field("forwarded"), "for=\"[::1]\";host=\"[::1]:80\";proto=http");
    // IPv4 over a socket of both families is IPv4.
    let port = proxy.named("both").port();
    crate::message::Client::connect(([127, 0, 0, 1], port).into()).ask(&get(""));
    let seen = origin.requests().pop().expect("a request");
    assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1");
    proxy.finish();
}

fn a_client_on_a_unix_socket_is_unknown(driver: &'static str) {
    let origin = Origin::echo();
    let config = format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}, {{ name: local, address: \"unix:FOLDER/s\" }}]\n\
         routes: [{{ pool: o }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    let stream = std::os::unix::net::UnixStream::connect(proxy.folder.path().join("s")).expect("a listener");
    let mut client = Wire::new(stream);
    client.send(get("").as_bytes());
    assert_eq!(client.response("GET").status(), 200);
    let seen = origin.requests().pop().expect("a request");
    assert_eq!(seen.field("x-forwarded-for"), "unknown");
    assert_eq!(seen.field("forwarded"), "for=unknown;host=\"h\";proto=http");
    drop(client);
    proxy.finish();
}

fn host_is_the_origins_or_the_clients(driver: &'static str) {
    let origin = Origin::echo();
    let config = format!(
        "routes: [{{ pool: o }}, {{ pool: o, pathPrefix: /keep, preserveHost: true }}]\n\
         pools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    let ours = origin.addr.to_string();
    for (request, host) in [
        ("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", ours.as_str()),
        ("GET /keep HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", "a.example:8080"),
        // RFC 9112 3.2.2: an absolute target overrules Host.
        ("GET http://b.example/keep HTTP/1.1\r\nHost: a.example\r\n\r\n", "b.example"),
        ("GET /keep HTTP/1.0\r\n\r\n", "localhost"),
        ("GET / HTTP/1.0\r\n\r\n", ours.as_str()),
    ] {
        let (seen, _) = exchange(&proxy, &origin, request);
        assert_eq!(seen.field("host"), host, "{request}");
    }
    proxy.finish();
}

fn via_names_the_version_of_the_message(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let version = if request.target() == "/old" { "1.0" } else { "1.1" };
        format!("HTTP/{version} 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (version, target, to_origin, to_client) in [
        ("1.1", "/", "1.1 ringport", "1.1 ringport"),
        ("1.0", "/", "1.0 ringport", "1.1 ringport"),
        ("1.1", "/old", "1.1 ringport", "1.0 ringport"),
    ] {
        let request = format!("GET {target} HTTP/{version}\r\nHost: h\r\nVia: 1.0 outer\r\n\r\n");
        let (seen, response) = exchange(&proxy, &origin, &request);
        for (message, before, ours) in [(seen, "1.0 outer", to_origin), (response, "1.1 inner", to_client)] {
            let via = message.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("via"));
            assert_eq!(via.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), [before, ours], "{request}");
        }
    }
    proxy.finish();
}

fn each_side_of_the_connection_lives_by_itself(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        while let Some(request) = conn.request() {
            let close = request.target() == "/close";
            let fields = if close { "Connection: close\r\nKeep-Alive: timeout=9\r\n" } else { "" };
            conn.wire.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").as_bytes());
            if close {
                return;
            }
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let mut client = proxy.client();
    for (target, connections) in [("/", 1), ("/close", 1), ("/", 2), ("/", 2)] {
        let response = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(!response.has("connection") && !response.has("keep-alive"), "{response:?}");
        assert_eq!(origin.connections(), connections, "{target}");
    }
    // The client's close is the client's alone.
    let response = client.ask(&get("Connection: close\r\n"));
    assert_eq!(response.field("connection"), "close");
    client.ends();
    assert!(!origin.requests().pop().expect("a request").has("connection"));
    let mut old = proxy.client();
    for _ in 0..2 {
        let response = old.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(response.field("connection"), "keep-alive");
    }
    assert_eq!(origin.connections(), 2);
    drop(old);
    drop(client);
    proxy.finish();
}

/// Some origins offer HTTP/2 with every response; a client that takes it up would find nobody.
fn an_offer_to_upgrade_is_passed_on_only_with_426(driver: &'static str) {
    let origin = Origin::answering(|request| {
        let status = if request.target() == "/" { "200 OK" } else { "426 Upgrade Required" };
        let fields = "Connection: Upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 0\r\n";
        format!("HTTP/1.1 {status}\r\n{fields}\r\n").into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let (_, response) = exchange(&proxy, &origin, &get(""));
    assert!(!response.has("upgrade") && !response.has("connection"), "{response:?}");
    let (_, response) = exchange(&proxy, &origin, "GET /tls HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((response.field("upgrade"), response.field("connection")), ("h2,h2c", "upgrade"));
    proxy.finish();
}

fn every_response_has_one_date(driver: &'static str) {
    const THEIRS: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::answering(|request| {
        let dates = match request.target() {
            "/none" => String::new(),
            "/one" => format!("Date: {THEIRS}\r\n"),
            _ => format!("Date: {THEIRS}\r\ndate: Mon, 07 Nov 1994 08:49:37 GMT\r\n"),
        };
        format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n{dates}Content-Length: 0\r\n\r\n")
            .into_bytes()
    });
    let config = format!(
        "routes: [{{ pool: o, hosts: [h] }}]\npools: [{{ name: o, origins: [{{ address: \"{}\" }}] }}]\n",
        origin.addr
    );
    let proxy = Setup::new(driver, &config).start();
    for target in ["/none", "/one", "/two"] {
        let (_, response) = exchange(&proxy, &origin, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let date = response.field("date");
        assert_eq!(date == THEIRS, target != "/none", "{date}");
        assert!(date.len() == THEIRS.len() && date.ends_with(" GMT"), "{date}");
        assert_eq!(names(&response).iter().filter(|name| *name == "date").count(), 1);
    }
    // What the gateway answers by itself has one too.
    for request in ["GET / HTTP/1.1\r\nHost: other\r\n\r\n", "bad\r\n\r\n"] {
        assert!(proxy.client().ask(request).field("date").ends_with(" GMT"), "{request}");
    }
    let mut admin = crate::message::Client::connect(proxy.named("admin"));
    assert!(admin.ask(&get("")).field("date").ends_with(" GMT"));
    drop(admin);
    proxy.finish();
}

fn max_forwards_counts_down(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    for (method, given, expected) in [
        ("OPTIONS", "5", "4"),
        ("TRACE", "1", "0"),
        ("GET", "5", "5"),
        ("OPTIONS", "x", "x"),
        ("OPTIONS", "1", "0"),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {given}\r\n\r\n");
        let (seen, _) = exchange(&proxy, &origin, &request);
        assert_eq!((seen.method(), seen.field("max-forwards")), (method, expected));
    }
    let before = origin.requests().len();
    for (method, status) in [("OPTIONS", 200), ("TRACE", 501)] {
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n");
        assert_eq!(exchange(&proxy, &origin, &request).1.status(), status);
    }
    assert_eq!(origin.requests().len(), before, "none was passed on");
    proxy.finish();
}

fn values_pass_unchanged(driver: &'static str) {
    let origin = Origin::answering(|_| {
        ok("")
            .replace("\r\n\r\n", "\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: \"\\,;:\t \u{e9}\r\n\r\n")
            .into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let fields = "Cookie: a=b; c=d\r\nAuthorization: Bearer x.y\r\nX-Empty:\r\nX-Odd: \"\\,;:\t \u{e9}\r\nx-twice: 1\r\nX-Twice: 2\r\n\
                  Accept: */*\r\nCache-Control: no-cache\r\nIf-None-Match: W/\"x\"\r\nRange: bytes=0-1\r\n";
    let (seen, response) = exchange(&proxy, &origin, &get(fields));
    for line in fields.split_terminator("\r\n") {
        let (name, value) = line.split_once(':').expect("a field");
        let wanted = (name.to_owned(), value.trim().to_owned());
        assert!(seen.fields.contains(&wanted), "{wanted:?} in {seen:?}");
    }
    let cookies = response.fields.iter().filter(|(name, _)| name == "Set-Cookie");
    assert_eq!(cookies.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(response.field("x-odd"), "\"\\,;:\t \u{e9}");
    proxy.finish();
}
