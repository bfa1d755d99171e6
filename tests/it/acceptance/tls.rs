//! Cases of TLS, on both drivers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use ringport::net::tls::{HandshakeError, TlsDialError, TlsListenError, TlsListener};
use ringport::net::{DialErrorKind, Dialer, Listener};
use ringport::proto::tls::{CertificateFault, TlsError};
use ringport::runtime::Runtime;
use ringport::runtime::native::Native;
use ringport::spec::{DialSpec, Format, ListenSpec, NetAddr, OriginAddress};

use crate::pki::{Authority, Validity};
use crate::rig::{alone, each, join, turn};
use crate::tls::{DIAL, Folder, LISTEN, Program, beside, dialer, joined, listener, spawn, target};

/// Until no handshake is under way: what ended one is told to nobody but the counters.
async fn settled(listener: &TlsListener<Native>) {
    while listener.pending_handshakes() > 0 {
        turn().await;
    }
}

fn spawn_detached(runtime: &Native, work: impl Future<Output = ()> + 'static) {
    runtime.spawn(work);
}

fn plain_target(listener: &Listener<Native>) -> NetAddr<OriginAddress> {
    let port = listener.local_addr().to_string().rsplit(':').next().expect("a port").to_owned();
    format!("tcp://localhost:{port}").parse().expect("a target")
}

/// A dial whose server says nothing is dropped in its handshake; the server sees the end at once, and the rig that nothing is
/// left.
#[test]
fn case_50_a_handshake_may_be_dropped_while_it_waits() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let mute = Listener::bind("tcp://127.0.0.1:0".parse().expect("an address"), &runtime);
        let mut mute = mute.expect("a listener");
        let target = plain_target(&mute);
        let dialer = dialer(&runtime, &folder.dial(DIAL));
        for _ in 0..3 {
            let mut dialling = Box::pin(dialer.dial(&target));
            let mut hello = Box::pin(async {
                let (mut accepted, _) = mute.accept().await.expect("a client");
                let hello = accepted.recv().await.expect("open").expect("a hello");
                assert_eq!(hello[0], 22);
                accepted
            });
            let mut accepted = poll_fn(|cx| {
                assert!(dialling.as_mut().poll(cx).is_pending(), "nobody has answered");
                hello.as_mut().poll(cx)
            })
            .await;
            drop(dialling);
            while accepted.recv().await.expect("it ends in order").is_some() {}
        }
    });
}

/// Not a byte of it is read, so that it costs no handshake.
#[test]
fn case_60_d17_who_is_kept_out_has_no_handshake() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec = LISTEN.replace("{addr", "{connectionLimit: 1, denyNetworks: [127.0.0.2], addr");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "127.0.0.1");
        let from = DIAL.replace("{tlsConfig", "{localAddress: '127.0.0.2:0', tlsConfig");
        let denied = dialer(&runtime, &folder.dial(&from));
        let error = beside(&mut listener, denied.dial(&target)).await.err().expect("kept out");
        let TlsDialError::Handshake { error, .. } = &error else { panic!("{error}") };
        assert!(
            matches!(error, HandshakeError::Io(_) | HandshakeError::Tls(TlsError::EndedInHandshake)),
            "{error}"
        );
        assert_eq!(listener.pending_handshakes(), 0);
        let stats = listener.tls_stats();
        assert_eq!((stats.done, stats.failed, stats.late, stats.crowded_out), (0, 0, 0, 0));
        let handle = listener.listener().handle();
        assert_eq!((handle.stats().denied, handle.stats().accepted, handle.open_connections()), (1, 0, 0));
    });
}

type IsIt = fn(&TlsError) -> bool;

#[test]
fn case_51_failures_are_told_apart() {
    each(async |runtime| {
        let (folder, authority) = Folder::usual();
        folder.write("other-ca.pem", &Authority::new("another").cert);
        folder.pair("past", &authority.issue_valid(&["localhost"], Validity::Past));
        folder.pair("future", &authority.issue_valid(&["localhost"], Validity::Future));
        folder.pair("elsewhere", &authority.issue(&["elsewhere.test"]));
        let alpn = |name: &str, spec: &str| {
            spec.replace("tlsConfig: {", &format!("tlsConfig: {{nextProtos: [{name}], "))
        };
        let rows: [(String, String, IsIt); 6] = [
            (LISTEN.replace("server.", "future."), DIAL.into(), |error| {
                matches!(error, TlsError::Certificate(CertificateFault::NotYetValid(_)))
            }),
            (LISTEN.replace("server.", "past."), DIAL.into(), |error| {
                matches!(error, TlsError::Certificate(CertificateFault::Expired(_)))
            }),
            (LISTEN.replace("server.", "elsewhere."), DIAL.into(), |error| {
                matches!(error, TlsError::Certificate(CertificateFault::WrongName(_)))
            }),
            (LISTEN.into(), DIAL.replace("ca.pem", "other-ca.pem"), |error| {
                matches!(error, TlsError::Certificate(CertificateFault::UnknownIssuer))
            }),
            (alpn("h2", LISTEN), alpn("ftp", DIAL), |error| matches!(error, TlsError::NoAlpn)),
            (
                LISTEN.replace("tlsConfig: {", "tlsConfig: {minVersion: 772, "),
                DIAL.replace("tlsConfig: {", "tlsConfig: {maxVersion: 771, "),
                |error| matches!(error, TlsError::Alert(_)),
            ),
        ];
        for (listen, dial, is_it) in rows {
            let mut listener = listener(&runtime, &folder.listen(&listen));
            let target = target(&listener, "localhost");
            let dialer = dialer(&runtime, &folder.dial(&dial));
            let error = beside(&mut listener, dialer.dial(&target)).await.err().expect("no TLS");
            let TlsDialError::Handshake { error: HandshakeError::Tls(error), .. } = &error else {
                panic!("{error}")
            };
            assert!(is_it(error), "{error:?}");
            settled(&listener).await;
            let stats = listener.tls_stats();
            assert_eq!((stats.failed, stats.done, stats.late), (1, 0, 0));
        }
        // What is no TLS at all, and what is no listener at all.
        let plain = Listener::bind("tcp://127.0.0.1:0".parse().expect("an address"), &runtime);
        let mut plain = plain.expect("a listener");
        let target =
            format!("tcp://localhost:{}", plain.local_addr().to_string().rsplit(':').next().expect("a port"));
        let target = target.parse().expect("a target");
        let answering = spawn(&runtime, async move {
            let (mut stream, _) = plain.accept().await.expect("a client");
            stream.send("HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
            while let Ok(Some(_)) = stream.recv().await {}
        });
        let error = dialer(&runtime, &folder.dial(DIAL)).dial(&target).await.err().expect("no TLS");
        let TlsDialError::Handshake { error: HandshakeError::Tls(TlsError::Protocol(_)), .. } = error else {
            panic!("{error}")
        };
        answering.await;
        let error = dialer(&runtime, &folder.dial(DIAL)).dial(&target).await.err().expect("nobody");
        assert!(
            matches!(&error, TlsDialError::Dial(error) if *error.kind() == DialErrorKind::Refused),
            "{error}"
        );
    });
}

/// A listener over TLS that cannot bind is an error and nothing else, and so are its files.
#[test]
fn case_57_d16_a_listener_that_cannot_be() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec = LISTEN.replace("127.0.0.1:0", "unix://$/no/such/folder/sock");
        let failed = TlsListener::from_spec(&folder.listen(&spec), &runtime);
        assert!(matches!(failed, Err(TlsListenError::Listen(_))));
        folder.write("server.key", "");
        let failed = TlsListener::from_spec(&folder.listen(LISTEN), &runtime);
        let Err(TlsListenError::Load(errors)) = failed else { panic!("an empty key") };
        assert!(errors.to_string().contains("server.key: is empty"), "{errors}");
    });
}

/// A silent peer ends at the limit of the handshake, on both sides, and the dial's own limit holds as well.
#[test]
fn case_65_silent_handshakes_end_in_time() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec = LISTEN.replace("tlsConfig: {", "tlsConfig: {handshakeTimeout: 50ms, ");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "127.0.0.1");
        let mut silent = Dialer::new(&runtime).dial(&target).await.expect("a connection");
        let end = beside(&mut listener, silent.recv()).await;
        assert!(!matches!(end, Ok(Some(_))), "{end:?}");
        assert_eq!(listener.tls_stats().late, 1);

        let mute =
            Listener::bind("tcp://127.0.0.1:0".parse().expect("an address"), &runtime).expect("a listener");
        let target =
            format!("tcp://localhost:{}", mute.local_addr().to_string().rsplit(':').next().expect("a port"));
        let target = target.parse().expect("a target");
        for limit in ["{tlsConfig: {handshakeTimeout: 50ms, ", "{timeout: 1s, tlsConfig: {"] {
            let spec = folder.dial(&DIAL.replace("{tlsConfig: {", limit));
            let error = dialer(&runtime, &spec).dial(&target).await.err().expect("no TLS");
            assert!(
                matches!(error, TlsDialError::Handshake { error: HandshakeError::TimedOut, .. }),
                "{error}"
            );
        }
    });
}

/// Many who say nothing keep nobody out: at the limit the oldest makes room.
#[test]
fn case_65_half_open_handshakes_stay_within_the_cap() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec =
            LISTEN.replace("tlsConfig: {", "tlsConfig: {maxPendingHandshakes: 20, handshakeTimeout: 0, ");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let any = target(&listener, "127.0.0.1");
        let plain = Dialer::new(&runtime);
        let mut silent = Vec::new();
        let mut most = 0;
        for _ in 0..300 {
            let dialled = beside(&mut listener, plain.dial(&any)).await;
            silent.push(dialled.expect("a connection"));
            most = most.max(listener.pending_handshakes());
        }
        assert!(most <= 20, "{most}");
        let good = target(&listener, "localhost");
        let dialer = dialer(&runtime, &folder.dial(DIAL));
        let mut dialling = Box::pin(dialer.dial(&good));
        let mut dialled = None;
        let (mut accepted, _) = poll_fn(|cx| {
            if dialled.is_none()
                && let Poll::Ready(done) = dialling.as_mut().poll(cx)
            {
                dialled = Some(done);
            }
            listener.poll_accept(cx)
        })
        .await
        .expect("let in");
        let mut stream = match dialled {
            Some(done) => done.expect("TLS"),
            None => dialling.await.expect("TLS"),
        };
        stream.send("x").await.expect("sent");
        assert_eq!(&*accepted.recv().await.expect("in order").expect("bytes"), b"x");
        let stats = listener.tls_stats();
        assert_eq!(stats.done, 1);
        assert!((280..=281).contains(&stats.crowded_out), "{stats:?}");
        drop(silent);
    });
}

/// What is held for handshakes that never come to an end does not grow with those who begin them.
#[test]
fn case_65_thousands_of_half_open_handshakes_take_no_more_memory() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec =
            LISTEN.replace("tlsConfig: {", "tlsConfig: {maxPendingHandshakes: 200, handshakeTimeout: 0, ");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let any = target(&listener, "127.0.0.1");
        let plain = Dialer::new(&runtime);
        // A record of 16,000 bytes, and as much as says nothing wrong of a hello of 15,996.
        let half = [&[22, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c][..], &[0; 8_000]].concat();
        let mut held = VecDeque::new();
        let (begin, mut full, mut most) = (resident(), 0, 0);
        for count in 1..=5_000 {
            let mut dialled = beside(&mut listener, plain.dial(&any)).await.expect("a connection");
            beside(&mut listener, dialled.send(half.clone())).await.expect("sent");
            held.push_back(dialled);
            if held.len() > 300 {
                held.pop_front();
            }
            most = most.max(listener.pending_handshakes());
            if count == 1_000 {
                full = resident();
            }
        }
        let end = resident();
        println!(
            "resident: {begin} KiB before, {full} KiB after 1,000 half handshakes, {end} KiB after 5,000"
        );
        assert_eq!(most, 200);
        assert!(end < full + 8 * 1024, "{full} KiB grew to {end} KiB");
    });
}

/// This process's memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whom the system trusts as an issuer of servers is not trusted with clients, unless the spec asks for it. What the system
/// trusts is said in the environment, so that the case runs in this program anew.
#[test]
fn case_74_an_issuer_of_the_system_issues_no_clients() {
    const INSIDE: &str = "RINGPORT_TEST_SYSTEM_ROOTS";
    if std::env::var_os(INSIDE).is_none() {
        let _alone = alone();
        let system = Authority::new("the system's");
        let folder = Folder::new();
        folder.write("system.pem", &system.cert);
        folder.pair("stranger", &system.issue(&["client.test"]));
        let test = "acceptance::tls::case_74_an_issuer_of_the_system_issues_no_clients";
        let output = Command::new(std::env::current_exe().expect("it runs"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("SSL_CERT_FILE", folder.path("system.pem"))
            .env_remove("SSL_CERT_DIR")
            .env(INSIDE, folder.path(""))
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
        return;
    }
    let system = std::env::var(INSIDE).expect("set above");
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let auth = "tlsConfig: {clientAuth: REQUIRE_AND_VERIFY, clientCAs: [$/ca.pem], ";
        let shown = format!(
            "tlsConfig: {{certKeyPairs: [{{certFile: {system}stranger.pem, keyFile: {system}stranger.key}}], "
        );
        for (also_system, is_let_in) in [("", false), ("clientCAsIgnoreSystemCerts: false, ", true)] {
            let spec = LISTEN.replace("tlsConfig: {", &format!("{auth}{also_system}"));
            let mut listener = listener(&runtime, &folder.listen(&spec));
            let target = target(&listener, "localhost");
            let dialer = dialer(&runtime, &folder.dial(&DIAL.replace("tlsConfig: {", &shown)));
            if is_let_in {
                let (near, far) = join(dialer.dial(&target), listener.accept()).await;
                let (mut near, (mut far, _)) = (near.expect("TLS"), far.expect("let in"));
                far.send("x").await.expect("open");
                near.read_exact(&mut [0]).await.expect("in order");
            } else {
                // In TLS 1.3 the client is done before its certificate is looked at: the alert comes to a read.
                let refused = beside(&mut listener, async {
                    dialer.dial(&target).await.expect("done on this side").recv().await.map(|_| ())
                });
                refused.await.expect_err("an alert");
                settled(&listener).await;
                assert_eq!((listener.tls_stats().failed, listener.tls_stats().done), (1, 0));
            }
        }
    });
}

#[test]
fn case_75_versions_and_ciphers() {
    let (folder, _) = Folder::usual();
    let refused = |fields: &str| {
        let yaml = LISTEN
            .replace('$', &folder.path(""))
            .replace("tlsConfig: {", &format!("tlsConfig: {{{fields}, "));
        ListenSpec::from_text(&yaml, Format::Yaml, "f").expect_err(fields).to_string()
    };
    for (fields, expected) in [
        ("minVersion: 768", "tls_config.min_version: TLS_VERSION_SSL3 is not safe"),
        ("minVersion: 772, maxVersion: 771", "tls_config.min_version: it is above max_version"),
        ("tlsCipher: [TLS_NO_SUCH]", "tls_config.tls_ciphers[0]: unknown value"),
    ] {
        let errors = refused(fields);
        assert!(errors.contains(expected), "{fields}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{fields}: {errors}");
    }
    each(async |runtime| {
        let spec = LISTEN.replace("tlsConfig: {", "tlsConfig: {minVersion: 771, maxVersion: 772, ");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "localhost");
        for (version, agreed) in
            [(771, rustls::ProtocolVersion::TLSv1_2), (772, rustls::ProtocolVersion::TLSv1_3)]
        {
            let only = format!("tlsConfig: {{minVersion: {version}, maxVersion: {version}, ");
            let dialer = dialer(&runtime, &folder.dial(&DIAL.replace("tlsConfig: {", &only)));
            let (near, far) = join(dialer.dial(&target), listener.accept()).await;
            let (mut near, (mut far, _)) = (near.expect("TLS"), far.expect("a client"));
            assert_eq!(near.transport().tls().expect("TLS").version, agreed);
            assert_eq!(far.transport().tls().expect("TLS").version, agreed);
            far.shutdown().await.expect("open");
            assert!(near.recv().await.expect("in order").is_none());
        }
    });
}

#[test]
fn case_76_protocols_names_and_three_faults_of_files() {
    each(async |runtime| {
        let (folder, authority) = Folder::usual();
        folder.pair("other", &authority.issue(&["other.test"]));
        let spec = LISTEN
            .replace("}]", "}, {certFile: $/other.pem, keyFile: $/other.key}]")
            .replace("tlsConfig: {", "tlsConfig: {nextProtos: [h2, http/1.1], ");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "127.0.0.1");
        let asking = |fields: &str| {
            dialer(&runtime, &folder.dial(&DIAL.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}, "))))
        };
        // The dialer verifies the name, so that another certificate would be refused.
        for (name, protocol) in [("localhost", "h2"), ("other.test", "http/1.1")] {
            let dialer = asking(&format!("serverName: {name}, nextProtos: [{protocol}]"));
            let (near, far) = join(dialer.dial(&target), listener.accept()).await;
            let (mut near, (mut far, _)) = (near.expect("TLS"), far.expect("a client"));
            assert_eq!(near.transport().tls().expect("TLS").alpn, Some(protocol.as_bytes()));
            assert_eq!(far.transport().tls().expect("TLS").alpn, Some(protocol.as_bytes()));
            far.shutdown().await.expect("open");
            assert!(near.recv().await.expect("in order").is_none());
        }
        let dialer = asking("serverName: localhost, nextProtos: [ftp]");
        let error = beside(&mut listener, dialer.dial(&target)).await.err().expect("nothing in common");
        assert!(
            matches!(&error, TlsDialError::Handshake { error: HandshakeError::Tls(TlsError::NoAlpn), .. }),
            "{error}"
        );

        folder.write("text.pem", "no PEM at all");
        let client_ca = ("tlsConfig: {", "tlsConfig: {clientAuth: 4, clientCAs: [$/text.pem], ");
        for ((from, to), fault) in [
            (("server.pem", "missing.pem"), "missing.pem: cannot be read"),
            (("server.key", "other.key"), "other.key: holds the key of another certificate"),
            (client_ca, "text.pem: holds no certificate"),
        ] {
            let failed = TlsListener::from_spec(&folder.listen(&LISTEN.replace(from, to)), &runtime);
            let Err(TlsListenError::Load(errors)) = failed else { panic!("{fault}") };
            assert_eq!(errors.faults().len(), 1, "{errors}");
            assert!(errors.to_string().contains(fault), "{errors}");
        }
    });
}

#[test]
fn case_87_faults_within_tls_have_their_path() {
    for (yaml, expected) in [
        (
            "{tlsConfig: {minVersoin: 771}}",
            "tls_config: unknown key \"minVersoin\"; did you mean `minVersion`?",
        ),
        ("{tlsConfig: {minVersion: 771, minVersion: 772}}", "tls_config.min_version: written twice"),
        ("{tlsConfig: {nextProtos: [h2, h2]}}", "tls_config.next_protos[1]: written twice"),
    ] {
        let errors = DialSpec::from_text(yaml, Format::Yaml, "f").expect_err(yaml).to_string();
        assert!(errors.starts_with("f:1:") && errors.contains(expected), "{yaml}: {errors}");
    }
}

/// Certificates are renewed while clients come and go: each of them is served, and the new one is seen without a word to the
/// listener. The same for what a dialer trusts.
#[test]
fn case_77_certificates_are_renewed_under_load() {
    each(async |runtime| {
        let (folder, authority) = Folder::usual();
        let spec = LISTEN.replace("}]}", "}], reloadInterval: 20ms}");
        let mut listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "localhost");
        let server = listener.tls().expect("it speaks TLS").clone();
        let fields = ", reloadInterval: 20ms, sessionTicketsDisabled: true}}";
        let dialer = dialer(&runtime, &folder.dial(&DIAL.replace("}}", fields)));
        let rename = |name: &str, text: &str| {
            folder.write("new", text);
            std::fs::rename(folder.0.join("new"), folder.0.join(name)).expect("renamed");
        };
        let shown = async |listener: &mut TlsListener<Native>| {
            let (near, far) = join(dialer.dial(&target), listener.accept()).await;
            drop(far.expect("a client"));
            let mut near = near.expect("whichever of them is shown");
            let info = near.transport().tls().expect("TLS");
            info.peer_certificates.expect("one")[0].to_vec()
        };
        let first = shown(&mut listener).await;
        let pair = authority.issue(&["localhost"]);
        rename("server.pem", &pair.cert);
        rename("server.key", &pair.key);
        let second = renewed(async || shown(&mut listener).await, &first).await;
        assert_eq!(server.version(), 2);

        // A broken one is not taken, and the next good one is.
        rename("server.pem", "broken");
        let looked = runtime.now() + Duration::from_millis(100);
        while runtime.now() < looked {
            assert!(shown(&mut listener).await == second);
        }
        let pair = authority.issue(&["localhost"]);
        rename("server.key", &pair.key);
        rename("server.pem", &pair.cert);
        let third = renewed(async || shown(&mut listener).await, &second).await;

        // Another authority, which the dialer comes to trust beside the first.
        let other = Authority::new("other");
        rename("ca.pem", &format!("{}{}", authority.cert, other.cert));
        until(&runtime, || dialer.tls().expect("TLS").version() == 2).await;
        let pair = other.issue(&["localhost"]);
        rename("server.pem", &pair.cert);
        rename("server.key", &pair.key);
        renewed(async || shown(&mut listener).await, &third).await;

        // Nobody looks when the listener has gone.
        let version = server.version();
        listener.close();
        rename("server.pem", &pair.cert);
        runtime.sleep(Duration::from_millis(60)).await;
        assert_eq!(server.version(), version);
    });
}

/// Dials until another certificate is shown than this.
async fn renewed(mut shown: impl AsyncFnMut() -> Vec<u8>, old: &[u8]) -> Vec<u8> {
    for _ in 0..20_000 {
        let now = shown().await;
        if now != old {
            return now;
        }
    }
    panic!("it was never renewed");
}

/// Waits for what another thread does.
async fn until(runtime: &Native, mut is_so: impl FnMut() -> bool) {
    let end = runtime.now() + Duration::from_secs(20);
    while !is_so() {
        assert!(runtime.now() < end, "it never was");
        runtime.sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn case_78_openssl_resumes_or_not() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        for (fields, version, expected) in [
            ("", "-tls1_2", "Reused, TLSv1.2"),
            ("sessionCacheEntries: 10, ", "-tls1_2", "Reused, TLSv1.2"),
            ("sessionTicketsDisabled: true, ", "-tls1_2", "New, TLSv1.2"),
        ] {
            let spec = LISTEN.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let mut listener = listener(&runtime, &folder.listen(&spec));
            let port = listener.listener().local_addr().to_string();
            // It connects five times more, each with the session of the first.
            let command = format!("s_client -connect {port} -servername localhost -reconnect {version}");
            let Some(openssl) = Program::start("openssl", &command) else { return };
            let talking = openssl.talk(b"", "");
            for _ in 0..6 {
                let (mut accepted, _) = listener.accept().await.expect("a client");
                spawn_detached(&runtime, async move { while let Ok(Some(_)) = accepted.recv().await {} });
            }
            listener.close();
            drop(listener);
            let printed = joined(talking).await;
            let resumed = printed.matches("Reused, ").count();
            assert_eq!(resumed, if expected.starts_with("Reused") { 5 } else { 0 }, "{fields}: {printed}");
        }
    });
}
