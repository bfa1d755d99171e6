//! TLS against other implementations: GnuTLS, OpenSSL where its tool needs more than one run, and HAProxy and nginx, which
//! speak plainly to the case on their other side. Sockets in the file system need no port that might be taken.

use ringport::net::tls::{TlsDialError, TlsDialer};
use ringport::runtime::native::Native;
use ringport::spec::{NetAddr, OriginAddress};
use rustls::HandshakeKind;

use crate::rig::{each, turn};
use crate::tls::{DIAL, Folder, LISTEN, Program, Secured, dialer, echo, joined, listener, spawn};

/// Echoes to so many connections, one after the other, each to its end in order. Gives the kind of each handshake, and how
/// much early data it had.
async fn serve(
    mut listener: ringport::net::tls::TlsListener<Native>,
    count: usize,
) -> Vec<(HandshakeKind, u64)> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        let (mut accepted, _) = listener.accept().await.expect("a client");
        let info = accepted.transport().tls().expect("TLS");
        kinds.push((info.kind, info.early_bytes));
        while let Some(bytes) = accepted.recv().await.expect("it ends with close_notify") {
            accepted.send(bytes).await.expect("open");
        }
        // A program that has ended may have closed its socket with something unread, which resets the connection.
        let _ = accepted.shutdown().await;
    }
    kinds
}

const CLIENT_AUTH: &str = "clientAuth: REQUIRE_AND_VERIFY, clientCAs: [$/ca.pem], ";

#[test]
fn gnutls_as_client() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let tls12 = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2";
        let tls13 = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3";
        let rows = [
            ("", format!("{tls12} --resume"), 2, "(TLS1.2", true),
            ("sessionCacheEntries: 10, ", format!("{tls12} --resume"), 2, "(TLS1.2", true),
            ("sessionTicketsDisabled: true, ", format!("{tls12} --resume"), 2, "(TLS1.2", false),
            ("", format!("{tls13} --resume"), 2, "(TLS1.3", true),
            ("sessionCacheEntries: 10, ", format!("{tls13} --resume"), 2, "(TLS1.3", true),
            ("sessionTicketsDisabled: true, ", format!("{tls13} --resume"), 2, "(TLS1.3", false),
            ("", format!("{tls13} --inline-commands"), 1, "Rekey was completed", false),
            ("nextProtos: [h2, http/1.1], ", "--alpn=http/1.1".into(), 1, "protocol: http/1.1", false),
            (
                CLIENT_AUTH,
                "--x509certfile=$/client.pem --x509keyfile=$/client.key".into(),
                1,
                "certificate is trusted",
                false,
            ),
        ];
        for (fields, arguments, connections, expected, resumes) in rows {
            let spec = LISTEN.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let listener = listener(&runtime, &folder.listen(&spec));
            let local = listener.listener().local_addr().to_string();
            let port = local.rsplit(':').next().expect("a port");
            let command = format!(
                "{arguments} -p {port} --x509cafile=$/ca.pem --sni-hostname=localhost --verify-hostname=localhost 127.0.0.1"
            );
            let command = command.replace('$', folder.path("").trim_end_matches('/'));
            let Some(gnutls) = Program::start("gnutls-cli", &command) else { return };
            let served = spawn(&runtime, serve(listener, connections));
            let line: &[u8] =
                if expected.contains("Rekey") { b"^rekey^\nover gnutls\n" } else { b"over gnutls\n" };
            let talking = gnutls.talk(line, "over gnutls");
            let kinds = served.await;
            let printed = joined(talking).await;
            assert!(printed.contains("over gnutls") && printed.contains(expected), "{command}: {printed}");
            let resumed = kinds.last().expect("one").0 == HandshakeKind::Resumed;
            assert_eq!(resumed, resumes, "{fields} {command}: {printed}");
        }
    });
}

/// A session of TLS 1.3 from one run to the next, with early data: off unless the spec asks for it, taken once, and never a
/// second time with the same session.
#[test]
fn openssl_resumes_with_early_data() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        folder.write("early", "early\n");
        for (fields, expected, early) in [
            ("", ["Early data was not sent", "Early data was not sent"], [0, 0]),
            ("sessionCacheEntries: 10, ", ["Early data was not sent", "Early data was not sent"], [0, 0]),
            (
                "sessionCacheEntries: 10, maxEarlyData: 16KiB, ",
                ["Early data was accepted", "Early data was rejected"],
                [6, 0],
            ),
        ] {
            let spec = LISTEN.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let listener = listener(&runtime, &folder.listen(&spec));
            let port = listener.listener().local_addr().to_string();
            let served = spawn(&runtime, serve(listener, 3));
            let common = format!("s_client -connect {port} -servername localhost -tls1_3");
            let session = folder.path("session");
            let commands = [
                format!("{common} -sess_out {session}"),
                format!("{common} -sess_in {session} -early_data {}", folder.path("early")),
                format!("{common} -sess_in {session} -early_data {}", folder.path("early")),
            ];
            for (at, command) in commands.iter().enumerate() {
                let Some(openssl) = Program::start("openssl", command) else { return };
                let printed = joined(openssl.talk(b"over openssl\n", "over openssl")).await;
                assert!(printed.contains("over openssl"), "{printed}");
                if at > 0 {
                    assert!(printed.contains(expected[at - 1]), "{fields} {at}: {printed}");
                }
            }
            let kinds = served.await;
            assert_eq!(kinds[1].0, HandshakeKind::Resumed, "{fields}");
            assert_eq!([kinds[1].1, kinds[2].1], early, "{fields}");
        }
    });
}

/// Dials until the program listens.
async fn dialled(dialer: &TlsDialer<Native>, target: &NetAddr<OriginAddress>) -> Secured {
    loop {
        match dialer.dial(target).await {
            Ok(stream) => return stream,
            Err(TlsDialError::Dial(_)) => turn().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn echoes_and_ends(stream: &mut Secured) {
    stream.send("through it").await.expect("open");
    let mut back = [0; 10];
    stream.read_exact(&mut back).await.expect("in order");
    assert_eq!(&back, b"through it");
    stream.shutdown().await.expect("open");
    assert!(stream.recv().await.expect("it ends with close_notify").is_none());
}

/// Each of its threads has sessions of its own.
const HAPROXY: &str = "global
  nbthread 1
defaults
  mode tcp
  timeout connect 60s
  timeout client 60s
  timeout server 60s
listen it
";

#[test]
fn haproxy_as_server() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let read = |name: &str| std::fs::read_to_string(folder.path(name)).expect("there");
        folder.write("both.pem", &format!("{}{}", read("server.pem"), read("server.key")));
        for (bind, fields, resumes) in [
            ("ssl-max-ver TLSv1.2", "", true),
            ("ssl-min-ver TLSv1.3", "", true),
            ("alpn http/1.1", "nextProtos: [h2, http/1.1], ", true),
            (
                "verify required ca-file $/ca.pem",
                "certKeyPairs: [{certFile: $/client.pem, keyFile: $/client.key}], ",
                true,
            ),
            ("", "sessionTicketsDisabled: true, ", false),
        ] {
            let listener = listener(&runtime, &folder.listen("{addr: '127.0.0.1:0'}"));
            let port = listener.listener().local_addr().to_string().replace("tcp://", "");
            let served = spawn(&runtime, async move {
                let mut listener = listener;
                for _ in 0..2 {
                    let (mut accepted, _) = listener.accept().await.expect("a client");
                    echo(&mut accepted).await.expect("in order");
                }
            });
            let text =
                format!("{HAPROXY}  bind unix@$/ha.sock ssl crt $/both.pem {bind}\n  server s {port}\n");
            folder.write("ha.cfg", &text.replace("$/", &folder.path("")));
            let Some(haproxy) = Program::start("haproxy", &format!("-db -f {}", folder.path("ha.cfg")))
            else {
                return;
            };
            let fields = format!("tlsConfig: {{serverName: localhost, {fields}");
            let dialer = dialer(&runtime, &folder.dial(&DIAL.replace("tlsConfig: {", &fields)));
            let target = format!("unix://{}", folder.path("ha.sock")).parse().expect("a target");
            for kind in
                [HandshakeKind::Full, if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full }]
            {
                let mut stream = dialled(&dialer, &target).await;
                let info = stream.transport().tls().expect("TLS");
                assert_eq!(info.kind, kind, "{bind} {fields}");
                assert_eq!(info.alpn.is_some(), bind.contains("alpn"));
                echoes_and_ends(&mut stream).await;
            }
            served.await;
            drop(haproxy);
            std::fs::remove_file(folder.path("ha.sock")).expect("it listened");
        }
    });
}

#[test]
fn haproxy_as_client() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let read = |name: &str| std::fs::read_to_string(folder.path(name)).expect("there");
        folder.write("both.pem", &format!("{}{}", read("client.pem"), read("client.key")));
        for (server, fields) in [
            ("ssl-max-ver TLSv1.2", ""),
            ("ssl-min-ver TLSv1.3", ""),
            ("alpn http/1.1", "nextProtos: [h2, http/1.1], "),
            ("crt $/both.pem", CLIENT_AUTH),
        ] {
            let spec = LISTEN.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let listener = listener(&runtime, &folder.listen(&spec));
            let port = listener.listener().local_addr().to_string().replace("tcp://", "");
            let served = spawn(&runtime, serve(listener, 2));
            let text = format!(
                "{HAPROXY}  bind unix@$/ha.sock\n  server s {port} ssl verify required ca-file $/ca.pem sni str(localhost) {server}\n"
            );
            folder.write("ha.cfg", &text.replace("$/", &folder.path("")));
            let Some(haproxy) = Program::start("haproxy", &format!("-db -f {}", folder.path("ha.cfg")))
            else {
                return;
            };
            let dialer = dialer(&runtime, &folder.dial("{}"));
            let target = format!("unix://{}", folder.path("ha.sock")).parse().expect("a target");
            for _ in 0..2 {
                echoes_and_ends(&mut dialled(&dialer, &target).await).await;
            }
            let kinds = served.await;
            assert_eq!(kinds[1].0, HandshakeKind::Resumed, "{server}");
            drop(haproxy);
            std::fs::remove_file(folder.path("ha.sock")).expect("it listened");
        }
    });
}

/// Answers one request a connection, plainly, over either version, with sessions that go on.
const NGINX: &str = "daemon off; master_process off; pid $/pid; error_log stderr crit;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $/t1; proxy_temp_path $/t2; fastcgi_temp_path $/t3; uwsgi_temp_path $/t4;
scgi_temp_path $/t5; ssl_certificate $/server.pem; ssl_certificate_key $/server.key; ssl_session_cache shared:s:1m;
server { listen unix:$/nginx.sock ssl; SERVER location / { return 200 through; } } }
";

#[test]
fn nginx_as_server() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        for (server, fields) in [
            ("ssl_protocols TLSv1.2;", ""),
            ("ssl_protocols TLSv1.3;", ""),
            (
                "ssl_protocols TLSv1.3; ssl_verify_client on; ssl_client_certificate $/ca.pem;",
                "certKeyPairs: [{certFile: $/client.pem, keyFile: $/client.key}], ",
            ),
        ] {
            let text = NGINX.replace("SERVER", server).replace("$/", &folder.path(""));
            folder.write("nginx.conf", &text);
            let command = format!("-c {} -e stderr", folder.path("nginx.conf"));
            let Some(nginx) = Program::start("nginx", &command) else { return };
            let fields = format!("tlsConfig: {{serverName: localhost, {fields}");
            let dialer = dialer(&runtime, &folder.dial(&DIAL.replace("tlsConfig: {", &fields)));
            let target = format!("unix://{}", folder.path("nginx.sock")).parse().expect("a target");
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut stream = dialled(&dialer, &target).await;
                assert_eq!(stream.transport().tls().expect("TLS").kind, kind, "{server}");
                stream.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("open");
                let mut said = Vec::new();
                while let Some(bytes) = stream.recv().await.expect("it ends with close_notify") {
                    said.extend_from_slice(&bytes);
                }
                assert!(said.starts_with(b"HTTP/1.1 200 ") && said.ends_with(b"through"), "{server}");
            }
            drop(nginx);
            std::fs::remove_file(folder.path("nginx.sock")).expect("it listened");
        }
    });
}

/// The port that the kernel gave a program which was told to take any.
fn port_of(process: u32) -> Option<u16> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let links = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets: Vec<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
            Some(inode)
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A is LISTEN.
        let is_ours = fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]);
        let port = fields[1].rsplit(':').next().filter(|_| is_ours)?;
        u16::from_str_radix(port, 16).ok()
    })
}

#[test]
fn gnutls_as_server() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        for (arguments, fields, alpn) in [
            ("--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2", "", None),
            ("--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3", "", None),
            ("--alpn=http/1.1", "nextProtos: [h2, http/1.1], ", Some(&b"http/1.1"[..])),
            (
                "--require-client-cert --verify-client-cert --x509cafile=$/ca.pem",
                "certKeyPairs: [{certFile: $/client.pem, keyFile: $/client.key}], ",
                None,
            ),
        ] {
            let arguments = format!(
                "--echo --quiet -p 0 --x509certfile=$/server.pem --x509keyfile=$/server.key {arguments}"
            );
            let arguments = arguments.replace("$/", &folder.path(""));
            let Some(gnutls) = Program::start("gnutls-serv", &arguments) else { return };
            let port = loop {
                match port_of(gnutls.0.id()) {
                    Some(port) => break port,
                    None => turn().await,
                }
            };
            let spec = DIAL.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let dialer = dialer(&runtime, &folder.dial(&spec));
            let target = format!("tcp://localhost:{port}").parse().expect("a target");
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut stream = dialled(&dialer, &target).await;
                let info = stream.transport().tls().expect("TLS");
                assert_eq!((info.kind, info.alpn), (kind, alpn), "{arguments}");
                if info.version == rustls::ProtocolVersion::TLSv1_3 {
                    let ringport::net::tls::Link::Tls(tls) = stream.transport() else { panic!("TLS") };
                    tls.refresh_keys().expect("TLS 1.3 has it");
                }
                stream.send("through it\n").await.expect("open");
                let mut back = [0; 11];
                stream.read_exact(&mut back).await.expect("in order");
                assert_eq!(&back, b"through it\n", "{arguments}");
                stream.shutdown().await.expect("open");
                // What it says at its end depends on its version.
                let _ = stream.recv().await;
            }
        }
    });
}
