//! The server of HTTP over TLS before other implementations: who is let in, what is told to whom is not, and what testssl.sh
//! finds.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringport::runtime::native::{DriverKind, Native};

use crate::http_server::{Folder, Served, curl, has, run, serve, to_the_end};
use crate::pki::Authority;
use crate::rig::{Rig, each, skipped, turn};

/// With a client's certificate that is trusted, and one that is not.
fn folder() -> Folder {
    let (folder, authority) = Folder::with_authority();
    for (name, pair) in [
        ("client", authority.issue(&["client.test"])),
        ("stranger", Authority::new("another").issue(&["x.test"])),
    ] {
        folder.write(&format!("{name}.pem"), &pair.cert);
        folder.write(&format!("{name}.key"), &pair.key);
    }
    folder
}

/// Until the last connection has ended, so that what one row leaves is not the next one's.
async fn settled(server: &Served) {
    while server.handle.connections() > 0 {
        turn().await;
    }
}

#[test]
fn curl_is_let_in_as_each_mode_of_client_auth_says() {
    each(async |runtime| {
        if !has("curl") {
            return;
        }
        let folder = folder();
        for (mode, nobody, trusted, stranger) in [
            ("NONE", true, true, true),
            ("REQUEST", true, true, true),
            ("REQUIRE_ANY", false, true, true),
            ("VERIFY_IF_GIVEN", true, true, false),
            ("REQUIRE_AND_VERIFY", false, true, false),
        ] {
            let cas = if matches!(mode, "VERIFY_IF_GIVEN" | "REQUIRE_AND_VERIFY") {
                format!("clientCAs: [{}], ", folder.path("ca.pem"))
            } else {
                String::new()
            };
            let auth = format!("tlsConfig: {{clientAuth: {mode}, {cas}");
            let server = serve(&runtime, &folder.tls().replace("tlsConfig: {", &auth), "");
            let url = format!("https://127.0.0.1:{}/some", server.addr.port());
            for version in ["1.2", "1.3"] {
                for (name, is_let_in) in [("", nobody), ("client", trusted), ("stranger", stranger)] {
                    let mut command = Command::new("curl");
                    command.args(["-sS", "--max-time", "50", "--cacert", &folder.path("ca.pem")]);
                    command.args(["--tls-max", version, &url]);
                    if !name.is_empty() {
                        command.args(["--cert", &folder.path(&format!("{name}.pem"))]);
                        command.args(["--key", &folder.path(&format!("{name}.key"))]);
                    }
                    let output = run(&runtime, command).await;
                    assert_eq!(output.status.success(), is_let_in, "{mode} {version} {name:?}: {output:?}");
                    assert_eq!(output.stdout == b"/some", is_let_in, "{mode} {version} {name:?}: {output:?}");
                    settled(&server).await;
                }
            }
            server.end().await;
        }
    });
}

#[test]
fn each_name_has_its_certificate() {
    each(async |runtime| {
        if !has("curl") {
            return;
        }
        let (folder, authority) = Folder::with_authority();
        let mut pairs = String::new();
        for name in ["a.test", "b.test"] {
            let pair = authority.issue(&[name]);
            folder.write(&format!("{name}.pem"), &pair.cert);
            folder.write(&format!("{name}.key"), &pair.key);
            let (cert, key) = (folder.path(&format!("{name}.pem")), folder.path(&format!("{name}.key")));
            pairs.push_str(&format!("{{certFile: {cert}, keyFile: {key}}}, "));
        }
        let server = serve(&runtime, &format!(", tlsConfig: {{certKeyPairs: [{pairs}]}}"), "");
        let port = server.addr.port();
        for name in ["a.test", "b.test"] {
            let (to, url) = (format!("{name}:{port}:127.0.0.1"), format!("https://{name}:{port}/some"));
            let args = ["--cacert", &folder.path("ca.pem"), "--resolve", &to, &url];
            assert_eq!(curl(&runtime, &args).await, "/some");
        }
        server.end().await;
    });
}

/// Each ends with the alert that RFC 8446 6.2 has for it, and leaves nothing, which the rig sees to.
#[test]
fn what_cannot_be_ends_with_its_alert() {
    each(async |runtime| {
        if Command::new("openssl").arg("version").output().is_err() {
            return skipped("openssl is not installed");
        }
        let folder = folder();
        let verify = format!("clientAuth: REQUIRE_AND_VERIFY, clientCAs: [{}], ", folder.path("ca.pem"));
        let stranger = format!("-cert {} -key {}", folder.path("stranger.pem"), folder.path("stranger.key"));
        for (fields, arguments, alert) in [
            // rustls misses the signature algorithms, which came with TLS 1.2, before it looks at the version.
            ("", "-tls1_1 -cipher DEFAULT@SECLEVEL=0", HANDSHAKE_FAILURE),
            ("minVersion: 772, ", "-tls1_2", PROTOCOL_VERSION),
            ("maxVersion: 771, ", "-tls1_3", PROTOCOL_VERSION),
            ("", "-alpn ftp", NO_APPLICATION_PROTOCOL),
            ("", "-tls1_2 -cipher AES128-SHA", HANDSHAKE_FAILURE),
            ("", "-tls1_3 -groups ffdhe2048", HANDSHAKE_FAILURE),
            (&verify, "-tls1_3", CERTIFICATE_REQUIRED),
            (&verify, &format!("-tls1_3 {stranger}"), UNKNOWN_CA),
            (&verify, &format!("-tls1_2 {stranger}"), UNKNOWN_CA),
        ] {
            let server =
                serve(&runtime, &folder.tls().replace("tlsConfig: {", &format!("tlsConfig: {{{fields}")), "");
            let mut command = Command::new("openssl");
            command.args(["s_client", "-ign_eof", "-servername", "localhost", "-connect"]);
            command.arg(server.addr.to_string()).args(arguments.split_whitespace()).stdin(Stdio::null());
            let output = run(&runtime, command).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(&format!("SSL alert number {alert}\n")), "{arguments}: {said}");
            settled(&server).await;
            server.end().await;
        }
    });
}

/// What is no TLS, or none that may be: an alert in the clear, then the end.
#[test]
fn bytes_that_are_no_hello_end_with_an_alert() {
    each(async |runtime| {
        let folder = folder();
        let server = serve(&runtime, &folder.tls(), "");
        for (bytes, alerts) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], [DECODE_ERROR, UNEXPECTED_MESSAGE]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [DECODE_ERROR, UNEXPECTED_MESSAGE]),
            // A record longer than any, application data before a hello, a hello that is none.
            (&[22, 3, 1, 0xff, 0xff, 1, 0, 0, 0], [DECODE_ERROR, RECORD_OVERFLOW]),
            (&[23, 3, 3, 0, 1, 0], [DECODE_ERROR, UNEXPECTED_MESSAGE]),
            (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], [DECODE_ERROR, DECODE_ERROR]),
        ] {
            let mut client = server.connect(&runtime).await;
            client.send(bytes).await.expect("open");
            let (said, _) = to_the_end(&mut client).await;
            let [21, 3, _, 0, 2, 2, alert] = said[..] else { panic!("{bytes:?}: {said:?}") };
            assert!(alerts.contains(&alert), "{bytes:?}: alert {alert}");
            settled(&server).await;
        }
        server.end().await;
    });
}

const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const HANDSHAKE_FAILURE: u8 = 40;
const UNKNOWN_CA: u8 = 48;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A session of TLS 1.3 that begins with a request: what is safe is answered, what is not is told to come again.
#[test]
fn early_data_is_for_safe_methods() {
    each(async |runtime| {
        if Command::new("openssl").arg("version").output().is_err() {
            return skipped("openssl is not installed");
        }
        let folder = folder();
        for (fields, method, early, status) in [
            ("sessionCacheEntries: 10, maxEarlyData: 16KiB, ", "GET", "accepted", "200 OK"),
            ("sessionCacheEntries: 10, maxEarlyData: 16KiB, ", "POST", "accepted", "425 Too Early"),
            // Off unless the spec says otherwise.
            ("sessionCacheEntries: 10, ", "GET", "not sent", ""),
        ] {
            let listen = folder.tls().replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let server = serve(&runtime, &listen, "");
            let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
            folder.write(
                "early",
                &format!("{method} /sum HTTP/1.1\r\nhost: a\r\n{length}connection: close\r\n\r\n"),
            );
            // A ticket comes behind the handshake, and is there when the first response is.
            let first = b"GET /some HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let session = folder.path("session");
            for (more, expected) in [
                (format!("-sess_out {session}"), "200 OK"),
                (format!("-sess_in {session} -early_data {}", folder.path("early")), status),
            ] {
                let mut command = Command::new("openssl");
                command.args(["s_client", "-ign_eof", "-tls1_3", "-servername", "localhost", "-connect"]);
                command.arg(server.addr.to_string()).args(more.split_whitespace());
                // What was not sent early is not asked at all: the connection is then idle, and the input's end ends it.
                if more.contains("early") {
                    if status.is_empty() {
                        command.args(["-no_ign_eof"]);
                    }
                    command.stdin(Stdio::null());
                } else {
                    folder.write("first", std::str::from_utf8(first).expect("a request"));
                    command.stdin(std::fs::File::open(folder.path("first")).expect("written"));
                }
                let output = run(&runtime, command).await;
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(said.contains(expected), "{fields} {method}: {said}");
                if more.contains("early") {
                    assert!(said.contains(&format!("Early data was {early}")), "{fields} {method}: {said}");
                }
                settled(&server).await;
            }
            server.end().await;
        }
        // A gateway that took early data says so.
        let server = serve(&runtime, "", "");
        for (method, status) in [("GET", "200"), ("DELETE", "425")] {
            let asked =
                format!("{method} / HTTP/1.1\r\nhost: a\r\nearly-data: 1\r\nconnection: close\r\n\r\n");
            let said = server.ask(&runtime, asked).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        }
        server.end().await;
    });
}

/// nginx verifies us and shows a certificate, over either version, with sessions that go on.
#[test]
fn nginx_asks_over_tls() {
    each(async |runtime| {
        if !has("curl") || Command::new("nginx").arg("-v").output().is_err() {
            return skipped("nginx or curl is not installed");
        }
        let folder = folder();
        let auth =
            format!("tlsConfig: {{clientAuth: REQUIRE_AND_VERIFY, clientCAs: [{}], ", folder.path("ca.pem"));
        let server = serve(&runtime, &folder.tls().replace("tlsConfig: {", &auth), "");
        for version in ["TLSv1.2", "TLSv1.3"] {
            let text = NGINX.replace("PORT", &server.addr.port().to_string()).replace("VERSION", version);
            let dir = folder.path("");
            folder.write("nginx.conf", &text.replace("$/", &dir));
            let mut nginx = Command::new("nginx");
            nginx.args(["-c", &folder.path("nginx.conf"), "-e", "stderr"]).stderr(Stdio::null());
            let nginx = crate::tls::Program(nginx.spawn().expect("it was there"));
            let socket = folder.path("sock");
            while std::os::unix::net::UnixStream::connect(&socket).is_err() {
                turn().await;
            }
            for _ in 0..3 {
                let said = curl(&runtime, &["--unix-socket", &socket, "http://localhost/head?x=y"]).await;
                assert_eq!(said, "GET HTTP/1.1 Some(\"x=y\") true 0", "{version}");
            }
            drop(nginx);
            std::fs::remove_file(socket).expect("it listened");
        }
        server.end().await;
    });
}

const NGINX: &str = "daemon off; master_process off; pid $/pid; error_log stderr warn;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $/t1; proxy_temp_path $/t2; fastcgi_temp_path $/t3; uwsgi_temp_path $/t4;
scgi_temp_path $/t5;
server { listen unix:$/sock; location / { proxy_pass https://127.0.0.1:PORT; proxy_http_version 1.1;
proxy_ssl_verify on; proxy_ssl_trusted_certificate $/ca.pem; proxy_ssl_name localhost; proxy_ssl_server_name on;
proxy_ssl_certificate $/client.pem; proxy_ssl_certificate_key $/client.key; proxy_ssl_protocols VERSION; } } }
";

/// Nothing of MEDIUM or above with the default configuration, but that nobody else trusts the issuer: versions, ciphers, forward
/// secrecy, the certificate and what is known of attacks.
#[test]
fn testssl_finds_nothing() {
    if Command::new("testssl").arg("--help").output().is_err() {
        return skipped("testssl.sh is not installed");
    }
    let rig = Rig { patience: Some(Duration::from_secs(1200)), ..Rig::default() };
    rig.on(DriverKind::Epoll, async |runtime: Native| {
        let folder = folder();
        let server = serve(&runtime, &folder.tls(), "");
        let json = folder.path("found.json");
        let mut command = Command::new("testssl");
        command.args([
            "--quiet",
            "--warnings",
            "off",
            "--color",
            "0",
            "--nodns",
            "none",
            "--ip",
            "127.0.0.1",
        ]);
        command.args([
            "--jsonfile",
            &json,
            "--fast",
            "-p",
            "-s",
            "-f",
            "-S",
            "-H",
            "-I",
            "-R",
            "-C",
            "-B",
            "-O",
            "-F",
            "-D",
        ]);
        command.arg(format!("localhost:{}", server.addr.port())).stdin(Stdio::null());
        let output = run(&runtime, command).await;
        let found = std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let findings = findings(&found);
        assert!(findings.len() > 40, "{findings:?} {output:?}");
        for offered in ["TLS1_2", "TLS1_3"] {
            assert!(
                findings.iter().any(|one| one["id"] == offered && one["finding"].starts_with("offered")),
                "{findings:?}"
            );
        }
        let bad: Vec<_> = findings
            .iter()
            .filter(|one| matches!(one["severity"].as_str(), "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL"))
            .filter(|one| !EXPECTED.contains(&one["id"].as_str()))
            .collect();
        println!("{} findings of testssl.sh, {} of MEDIUM or above", findings.len(), bad.len());
        assert!(bad.is_empty(), "{bad:?}");
        server.end().await;
    });
}

/// Of the case's certificate, whose issuer nobody knows, and which holds for centuries and names nobody who could revoke it.
const EXPECTED: [&str; 3] = ["cert_chain_of_trust", "cert_revocation", "cert_validityPeriod"];

/// The objects of a flat list, whose values are texts without quotation marks of their own.
fn findings(json: &str) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    for object in json.split('{').skip(1) {
        let pairs = object.lines().filter_map(|line| {
            let (name, value) = line.trim().split_once(':')?;
            let text = |text: &str| text.trim().trim_end_matches(',').trim_matches('"').to_owned();
            Some((text(name), text(value)))
        });
        found.push(pairs.collect());
    }
    found
}
