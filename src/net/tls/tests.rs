//! Files on one side, handshakes in memory on the other.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use super::watch::{Files, Watched};
use super::{ClientTls, LoadFaultKind, LoadWarning, ServerTls};
use crate::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use crate::pki::{Authority, Identity as Pair, Validity};
use crate::proto::tls::{CertificateFault, RustlsCodec, TlsCodec, TlsError, TlsLimits, TlsPhase};
use crate::spec::{Format, Identity, Pem, TlsClientSpec, TlsServerSpec};

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringport-tls-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of our own");
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    /// As who deploys does it: whole at once, in place of what was there.
    fn put(&self, name: &str, text: &str) {
        self.write("new", text);
        std::fs::rename(self.0.join("new"), self.0.join(name)).expect("renamed");
    }

    fn pair(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}.pem"), &pair.cert);
        self.write(&format!("{name}.key"), &pair.key);
    }

    /// `$` in a text stands for the folder.
    fn server(&self, yaml: &str) -> TlsServerSpec {
        let yaml = yaml.replace('$', &self.0.display().to_string());
        TlsServerSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
    }

    fn client(&self, yaml: &str) -> ClientTls {
        let yaml = yaml.replace('$', &self.0.display().to_string());
        let spec = TlsClientSpec::from_text(&yaml, Format::Yaml, "f").expect("in order");
        ClientTls::load(&spec).unwrap_or_else(|errors| panic!("{yaml}\n{errors}")).0
    }

    fn load(&self, yaml: &str) -> ServerTls {
        ServerTls::load(&self.server(yaml)).unwrap_or_else(|errors| panic!("{yaml}\n{errors}")).0
    }

    /// A folder with an authority and a server's pair.
    fn usual() -> (Self, Authority) {
        let (folder, authority) = (Folder::new(), Authority::new("ours"));
        folder.write("ca.pem", &authority.cert);
        folder.pair("server", &authority.issue(&["server.test"]));
        (folder, authority)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SERVER: &str = "{certKeyPairs: [{certFile: $/server.pem, keyFile: $/server.key}]}";
const CLIENT: &str = "{rootCAs: [$/ca.pem], rootCAsIgnoreSystemCerts: true}";

struct Shaken {
    client: RustlsCodec,
    server: RustlsCodec,
    errors: (Option<TlsError>, Option<TlsError>),
}

/// A handshake in memory.
fn shake(client: &ClientTls, server: &ServerTls, name: &str) -> Shaken {
    let name = name.to_owned().try_into().expect("a name");
    let mut client = RustlsCodec::client(client.current(), name, TlsLimits::default()).expect("in order");
    let mut server = RustlsCodec::server(server.current(), TlsLimits::default()).expect("in order");
    let mut errors = (None, None);
    let (mut up, mut down) = (RxQueue::new(), RxQueue::new());
    for _ in 0..6 {
        let mut out = TxQueue::new(Pool::new(PoolSpec { min_chunks: 0, ..PoolSpec::default() }));
        let read = client.read(&mut down, &mut RxQueue::new(), usize::MAX, &mut out);
        errors.0 = errors.0.or(read.err());
        out.slices().for_each(|bytes| up.push(PoolBuf::copied(bytes)));
        out.clear();
        let read = server.read(&mut up, &mut RxQueue::new(), usize::MAX, &mut out);
        errors.1 = errors.1.or(read.err());
        out.slices().for_each(|bytes| down.push(PoolBuf::copied(bytes)));
    }
    Shaken { client, server, errors }
}

impl Shaken {
    #[track_caller]
    fn open(self) -> Self {
        assert_eq!(self.errors, (None, None));
        assert_eq!((self.client.phase(), self.server.phase()), (TlsPhase::Open, TlsPhase::Open));
        self
    }

    fn kind(&self) -> HandshakeKind {
        self.client.info().expect("open").kind
    }

    /// The names of the certificate that the server showed.
    fn shown(&self) -> Vec<String> {
        let info = self.client.info().expect("open");
        let cert = &info.peer_certificates.expect("one")[0];
        let cert = webpki::EndEntityCert::try_from(cert).expect("a certificate");
        cert.valid_dns_names().map(str::to_owned).collect()
    }
}

fn faults(spec: &TlsServerSpec, folder: &Folder) -> String {
    let errors = ServerTls::load(spec).expect_err("a fault");
    errors.to_string().replace(&folder.0.display().to_string(), "$")
}

#[test]
fn every_fault_of_every_file() {
    let (folder, authority) = Folder::usual();
    folder.pair("other", &authority.issue(&["other.test"]));
    folder.write("empty", " \n");
    folder.write("text", "no PEM at all\n");
    folder.write("cut", &std::fs::read_to_string(folder.0.join("server.pem")).expect("there")[..100]);
    folder.write("base64", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    folder.write("der", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("start", "-----BEGIN X\n");
    folder.write("bad-key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    folder.write("encrypted", encrypted);
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    folder.write("legacy", legacy);
    let rows = [
        (
            "missing",
            "server.key",
            "cert_file: $/missing: cannot be read: No such file or directory (os error 2)",
        ),
        ("empty", "server.key", "cert_file: $/empty: is empty"),
        ("text", "server.key", "cert_file: $/text: holds no certificate (-----BEGIN CERTIFICATE-----)"),
        (
            "server.key",
            "server.key",
            "cert_file: $/server.key: holds no certificate (-----BEGIN CERTIFICATE-----)",
        ),
        ("cut", "server.key", "cert_file: $/cut: is malformed: a block of PEM does not end"),
        ("base64", "server.key", "cert_file: $/base64: is malformed: a block of PEM is not base64"),
        ("start", "server.key", "cert_file: $/start: is malformed: a block of PEM begins in no known way"),
        ("der", "server.key", "cert_file: $/der: is malformed: BadEncoding"),
        (
            "server.pem",
            "missing",
            "key_file: $/missing: cannot be read: No such file or directory (os error 2)",
        ),
        ("server.pem", "text", "key_file: $/text: holds no private key (-----BEGIN PRIVATE KEY-----)"),
        (
            "server.pem",
            "server.pem",
            "key_file: $/server.pem: holds no private key (-----BEGIN PRIVATE KEY-----)",
        ),
        ("server.pem", "other.key", "key_file: $/other.key: holds the key of another certificate"),
        (
            "server.pem",
            "encrypted",
            "key_file: $/encrypted: holds an encrypted key; decrypt it with `openssl pkey` first",
        ),
        (
            "server.pem",
            "legacy",
            "key_file: $/legacy: holds an encrypted key; decrypt it with `openssl pkey` first",
        ),
    ];
    let mut pairs = Vec::new();
    let mut expected = Vec::new();
    for (index, (cert, key, fault)) in rows.iter().enumerate() {
        let pair = format!("{{certFile: $/{cert}, keyFile: $/{key}}}");
        let alone = folder.server(&format!("{{certKeyPairs: [{pair}]}}"));
        assert_eq!(faults(&alone, &folder), format!("cert_key_pairs[0].{fault}"));
        pairs.push(pair);
        expected.push(format!("cert_key_pairs[{index}].{fault}"));
    }
    // All at once, and those of the issuers behind them.
    let all = folder.server(&format!(
        "{{certKeyPairs: [{}], clientAuth: 4, clientCAs: [$/ca.pem, $/empty], clientCAPems: ['-----BEGIN \n']}}",
        pairs.join(", ")
    ));
    expected.push("client_cas[1]: $/empty: is empty".into());
    assert_eq!(faults(&all, &folder), expected.join("\n"));
    // In a text of the spec there is no file to name.
    let inline = "{certKeyPairs: [{certPem: '-----BEGIN X', keyFile: $/bad-key}]}";
    let inline = faults(&folder.server(inline), &folder);
    assert!(inline.starts_with("cert_key_pairs[0].cert_pem: is malformed: "), "{inline}");
    let bad_key = "{certKeyPairs: [{certFile: $/server.pem, keyFile: $/bad-key}]}";
    let errors = ServerTls::load(&folder.server(bad_key)).expect_err("no key");
    assert!(matches!(errors.faults()[0].kind, LoadFaultKind::Malformed(_)), "{errors}");
    assert_eq!(errors.faults()[0].file.as_deref(), Some(folder.0.join("bad-key").as_path()));
}

#[test]
fn faults_of_issuers() {
    let folder = Folder::new();
    folder.write("der", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (yaml, expected) in [
        ("{rootCAs: [$/der], rootCAsIgnoreSystemCerts: true}", "root_cas[0]: $/der: is malformed"),
        ("{rootCAs: [$/none]}", "root_cas[0]: $/none: cannot be read"),
        (
            "{rootCAPems: ['-----BEGIN CERTIFICATE-----\n\nAAAA']}",
            "root_ca_pems[0]: is malformed: a block of PEM does not end",
        ),
    ] {
        let yaml = yaml.replace('$', &folder.0.display().to_string());
        let spec = TlsClientSpec::from_text(&yaml, Format::Yaml, "f").expect("in order");
        let errors = ClientTls::load(&spec).expect_err("a fault").to_string();
        let errors = errors.replace(&folder.0.display().to_string(), "$");
        assert!(errors.starts_with(expected), "{errors}");
    }
}

#[test]
fn certificates_out_of_their_time_are_warned_of() {
    let (folder, authority) = Folder::usual();
    for (validity, is_past) in [(Validity::Past, true), (Validity::Future, false)] {
        folder.pair("server", &authority.issue_valid(&["server.test"], validity));
        let (_, warnings) = ServerTls::load(&folder.server(SERVER)).expect("it works all the same");
        let place = format!("cert_key_pairs[0].cert_file: {}", folder.0.join("server.pem").display());
        let expected = if is_past { LoadWarning::Expired(place) } else { LoadWarning::NotYetValid(place) };
        assert!(warnings[0].to_string().contains("server.pem: the certificate"), "{}", warnings[0]);
        assert_eq!(warnings, [expected]);
    }
    let inline = format!(
        "{{certKeyPairs: [{{certPem: {:?}, keyFile: $/server.key}}], keyLog: true}}",
        std::fs::read_to_string(folder.0.join("server.pem")).expect("there")
    );
    let (_, warnings) = ServerTls::load(&folder.server(&inline)).expect("it works");
    assert_eq!(warnings[0].to_string(), "cert_key_pairs[0].cert_pem: the certificate is not valid yet");
    assert!(warnings[1].to_string().contains("SSLKEYLOGFILE"));
}

#[test]
fn the_certificate_for_the_name() {
    let (folder, authority) = Folder::usual();
    for (name, names) in
        [("a", &["a.test", "*.wild.test"][..]), ("b", &["b.test", "A.test"]), ("ip", &["127.0.0.1"])]
    {
        folder.pair(name, &authority.issue(names));
    }
    let server = folder.load(
        "{certKeyPairs: [{certFile: $/server.pem, keyFile: $/server.key}, {certFile: $/a.pem, keyFile: $/a.key},
          {certFile: $/b.pem, keyFile: $/b.key}, {certFile: $/ip.pem, keyFile: $/ip.key}]}",
    );
    let client = folder.client("{insecureSkipVerify: true}");
    for (asked, expected) in [
        ("server.test", "server.test"),
        ("a.test", "a.test"),
        ("A.TEST", "a.test"),
        ("b.test", "b.test"),
        ("x.wild.test", "a.test"),
        // A wildcard stands for one label.
        ("x.y.wild.test", "server.test"),
        ("wild.test", "server.test"),
        ("unknown.test", "server.test"),
        ("127.0.0.1", "server.test"),
    ] {
        let shaken = shake(&client, &server, asked).open();
        assert_eq!(shaken.shown()[0], expected, "{asked}");
    }
}

#[test]
fn who_is_let_in() {
    let (folder, authority) = Folder::usual();
    folder.pair("known", &authority.issue(&["client.test"]));
    folder.pair("stranger", &Authority::new("a stranger").issue(&["client.test"]));
    let refused = TlsError::Certificate(CertificateFault::UnknownIssuer);
    let missing = TlsError::Certificate(CertificateFault::Missing);
    let rows = [
        ("NONE", None, None, None),
        ("REQUEST", None, None, None),
        ("REQUIRE_ANY", Some(&missing), None, None),
        ("VERIFY_IF_GIVEN, clientCAs: [$/ca.pem]", None, None, Some(&refused)),
        ("REQUIRE_AND_VERIFY, clientCAs: [$/ca.pem]", Some(&missing), None, Some(&refused)),
    ];
    for version in [771, 772] {
        for (auth, without, with_known, with_stranger) in rows {
            let server = folder.load(&SERVER.replace("]}", &format!("], clientAuth: {auth}}}")));
            for (pair, expected) in [("", without), ("known", with_known), ("stranger", with_stranger)] {
                let shows = match pair {
                    "" => String::new(),
                    pair => format!(", certKeyPairs: [{{certFile: $/{pair}.pem, keyFile: $/{pair}.key}}]"),
                };
                let fields = format!("{shows}, minVersion: {version}, maxVersion: {version}}}");
                let client = folder.client(&CLIENT.replace('}', &fields));
                let shaken = shake(&client, &server, "server.test");
                assert_eq!(shaken.errors.1.as_ref(), expected, "{auth} {pair} {version}");
                if expected.is_none() {
                    let seen = shaken.open().server.info().expect("open").peer_certificates.is_some();
                    assert_eq!(seen, auth != "NONE" && !pair.is_empty(), "{auth} {pair}");
                }
            }
        }
    }
}

#[test]
fn versions_suites_and_groups_by_name() {
    let (folder, _) = Folder::usual();
    let rows = [
        ("{}", ProtocolVersion::TLSv1_3, None, None),
        ("{maxVersion: 771}", ProtocolVersion::TLSv1_2, None, None),
        (
            "{tlsCipher: [TLS_CHACHA20_POLY1305_SHA256]}",
            ProtocolVersion::TLSv1_3,
            Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
            None,
        ),
        (
            "{maxVersion: 771, tlsCipher: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]}",
            ProtocolVersion::TLSv1_2,
            Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
            None,
        ),
        // Suites of the one version do not limit the other.
        ("{tlsCipher: [21]}", ProtocolVersion::TLSv1_3, None, None),
        ("{curvePreferences: [P384]}", ProtocolVersion::TLSv1_3, None, Some(NamedGroup::secp384r1)),
        ("{curvePreferences: [P256]}", ProtocolVersion::TLSv1_3, None, Some(NamedGroup::secp256r1)),
        #[cfg(feature = "aws-lc-rs")]
        (
            "{curvePreferences: [CURVE_P256MLKEM768]}",
            ProtocolVersion::TLSv1_3,
            None,
            Some(NamedGroup::secp256r1MLKEM768),
        ),
        #[cfg(feature = "aws-lc-rs")]
        (
            "{curvePreferences: [X25519MLKEM768]}",
            ProtocolVersion::TLSv1_3,
            None,
            Some(NamedGroup::X25519MLKEM768),
        ),
    ];
    for (fields, version, suite, group) in rows {
        let fields = fields.trim_start_matches('{').trim_end_matches('}');
        let (server, client) = (
            folder.load(&SERVER.replace("]}", &format!("], {fields}}}"))),
            folder.client(&CLIENT.replace('}', &format!(", {fields}}}"))),
        );
        // Both, and each side alone; what is in nobody's defaults needs both.
        let others = (folder.client(CLIENT), folder.load(SERVER));
        let pairs = [(&client, &server), (&client, &others.1), (&others.0, &server)];
        let is_rare = group == Some(NamedGroup::secp256r1MLKEM768);
        for (client, server) in pairs.into_iter().take(if is_rare { 1 } else { 3 }) {
            let shaken = shake(client, server, "server.test");
            assert_eq!(shaken.errors, (None, None), "{fields}");
            let info = shaken.server.info().expect("open");
            assert_eq!(info.version, version, "{fields}");
            assert!(suite.is_none_or(|suite| info.suite == suite), "{fields}: {:?}", info.suite);
            assert!(group.is_none_or(|group| info.group == Some(group)), "{fields}: {:?}", info.group);
        }
    }
}

#[test]
fn a_server_that_is_not_verified_or_not_trusted() {
    let (folder, _) = Folder::usual();
    folder.write("other-ca.pem", &Authority::new("another").cert);
    let server = folder.load(SERVER);
    shake(&folder.client(CLIENT), &server, "server.test").open();
    let named = shake(&folder.client(CLIENT), &server, "elsewhere.test").errors.0;
    assert!(matches!(named, Some(TlsError::Certificate(CertificateFault::WrongName(_)))), "{named:?}");
    let other = folder.client("{rootCAs: [$/other-ca.pem], rootCAsIgnoreSystemCerts: true}");
    let unknown = shake(&other, &server, "server.test").errors.0;
    assert_eq!(unknown, Some(TlsError::Certificate(CertificateFault::UnknownIssuer)));
    let spec = TlsClientSpec::builder().dangerously_unverified().build().expect("in order");
    let (client, warnings) = ClientTls::load(&spec).expect("nothing to load");
    assert_eq!(warnings, [LoadWarning::Unverified]);
    assert!(warnings[0].to_string().contains("insecure_skip_verify"));
    shake(&client, &server, "elsewhere.test").open();
}

#[test]
fn alpn_is_agreed_on() {
    let (folder, _) = Folder::usual();
    let server = folder.load(&SERVER.replace("]}", "], nextProtos: [h2, http/1.1]}"));
    let client = folder.client(&CLIENT.replace('}', ", nextProtos: [http/1.1]}"));
    let shaken = shake(&client, &server, "server.test").open();
    assert_eq!(shaken.server.info().expect("open").alpn, Some(&b"http/1.1"[..]));
    let other = folder.client(&CLIENT.replace('}', ", nextProtos: [ftp]}"));
    assert_eq!(
        shake(&other, &server, "server.test").errors,
        (Some(TlsError::NoAlpn), Some(TlsError::NoAlpn))
    );
}

#[test]
fn sessions_go_on_or_not() {
    let (folder, _) = Folder::usual();
    let rows = [
        ("", "", HandshakeKind::Resumed),
        ("sessionCacheEntries: 10", "", HandshakeKind::Resumed),
        ("sessionTicketsDisabled: true", "", HandshakeKind::Full),
        ("", "sessionTicketsDisabled: true", HandshakeKind::Full),
    ];
    for version in [771, 772] {
        for (of_server, of_client, expected) in rows {
            let server = folder.load(&SERVER.replace("]}", &format!("], {of_server}}}")));
            let fields = format!(", maxVersion: {version}, {of_client}}}");
            let client = folder.client(&CLIENT.replace('}', &fields));
            assert_eq!(shake(&client, &server, "server.test").open().kind(), HandshakeKind::Full);
            // A clone is what another core has.
            let again = shake(&client, &server.clone(), "server.test").open();
            assert_eq!(again.kind(), expected, "{of_server} {of_client} {version}");
        }
    }
}

fn replace(folder: &Folder, authority: &Authority, name: &str) {
    folder.pair("server", &authority.issue(&["server.test", name]));
}

#[test]
fn certificates_are_swapped_between_handshakes() {
    let (folder, authority) = Folder::usual();
    let server = folder.load(SERVER);
    let client = folder.client(&CLIENT.replace('}', ", sessionTicketsDisabled: true}"));
    assert_eq!(shake(&client, &server, "server.test").open().shown(), ["server.test"]);
    let other_core = server.clone();
    replace(&folder, &authority, "second");
    assert_eq!(shake(&client, &other_core, "server.test").open().shown().len(), 1, "not before it is told");
    assert_eq!(server.reload(), Ok(Vec::new()));
    assert_eq!((server.version(), other_core.version()), (2, 2));
    assert_eq!(shake(&client, &other_core, "server.test").open().shown(), ["server.test", "second"]);

    // A broken file keeps everything, and says so.
    folder.write("server.key", "");
    let errors = server.reload().expect_err("an empty file");
    assert_eq!(errors.faults()[0].kind, LoadFaultKind::Empty);
    assert_eq!(server.version(), 2);
    assert_eq!(shake(&client, &server, "server.test").open().shown(), ["server.test", "second"]);

    // What a client trusts is swapped as well.
    let second = Authority::new("second");
    folder.write("ca.pem", &second.cert);
    assert_eq!(client.reload(), Ok(Vec::new()));
    assert_eq!(client.version(), 2);
    let refused = shake(&client, &server, "server.test").errors.0;
    assert_eq!(refused, Some(TlsError::Certificate(CertificateFault::UnknownIssuer)));
    folder.write("ca.pem", "");
    assert!(client.reload().is_err());
    assert_eq!(client.version(), 2);
}

#[expect(clippy::disallowed_methods, reason = "an instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// Looks at times of its own.
struct Looks<'a>(&'a ServerTls, Instant);

impl Looks<'_> {
    #[track_caller]
    fn next(&mut self, version: u64) {
        self.1 += self.0.interval().expect("files");
        self.0.look(self.1);
        assert_eq!(self.0.version(), version);
    }
}

#[test]
fn changed_files_are_taken_as_a_whole() {
    let (folder, authority) = Folder::usual();
    let server = folder.load(SERVER);
    let client = folder.client(&CLIENT.replace('}', ", sessionTicketsDisabled: true}"));
    let mut looks = Looks(&server, start());
    looks.next(1);
    let second = authority.issue(&["server.test", "second"]);
    folder.put("server.pem", &second.cert);
    looks.next(1);
    assert_eq!(
        shake(&client, &server, "server.test").open().shown(),
        ["server.test"],
        "its key has not come"
    );
    folder.put("server.key", &second.key);
    looks.next(2);
    assert_eq!(shake(&client, &server, "server.test").open().shown(), ["server.test", "second"]);

    for broken in ["", "-----BEGIN CERTIFICATE-----", "no PEM"] {
        folder.put("server.pem", broken);
        (0..3).for_each(|_| looks.next(2));
        assert_eq!(shake(&client, &server, "server.test").open().shown(), ["server.test", "second"]);
    }
    std::fs::remove_file(folder.0.join("server.pem")).expect("it was there");
    looks.next(2);
    folder.put("server.pem", &second.cert);
    looks.next(3);
    // What is reloaded by hand is no news.
    folder.pair("server", &authority.issue(&["server.test"]));
    server.reload().expect("in order");
    looks.next(4);
}

/// What cannot be used is tried twice, since it may have been half written, told once, and then left alone.
#[test]
fn broken_files_are_tried_twice() {
    let (folder, _) = Folder::usual();
    let mut files = Files::of(&[Pem::File(folder.0.join("server.pem"))]);
    let (mut now, interval) = (start(), Duration::from_secs(1));
    let mut news = |files: &mut Files| {
        now += interval;
        files.news(now, interval)
    };
    assert_eq!(news(&mut files), None);
    for text in ["", "x"] {
        folder.put("server.pem", text);
        for told in [false, true] {
            let stamps = news(&mut files).expect("news");
            assert_eq!(files.refuse(stamps), told);
        }
        assert_eq!(news(&mut files), None);
    }
    folder.put("server.pem", "y");
    let stamps = news(&mut files).expect("news");
    files.take(stamps);
    assert_eq!(news(&mut files), None);

    // Moved away and back and away: what was told is told again.
    for _ in 0..2 {
        let (path, aside) = (folder.0.join("server.pem"), folder.0.join("aside"));
        std::fs::rename(&path, &aside).expect("renamed");
        for told in [false, true] {
            let stamps = news(&mut files).expect("news");
            assert_eq!(files.refuse(stamps), told);
        }
        assert_eq!(news(&mut files), None);
        std::fs::rename(&aside, &path).expect("renamed");
        assert_eq!(news(&mut files), None);
    }
}

/// Of several cores that share a configuration.
#[test]
fn who_comes_first_looks_for_all() {
    let (folder, _) = Folder::usual();
    let mut files = Files::of(&[Pem::File(folder.0.join("server.pem"))]);
    let (now, interval) = (start(), Duration::from_secs(1));
    folder.put("server.pem", "");
    assert!(files.news(now, interval).is_some());
    assert_eq!(files.news(now + interval / 2 - Duration::from_nanos(1), interval), None);
    assert!(files.news(now + interval / 2, interval).is_some());
}

/// A pipe would stop who reads it for ever, and a device may never end.
#[test]
fn files_are_files() {
    let (folder, _) = Folder::usual();
    for (path, cause) in
        [("/dev/zero", "no regular file"), ("$", "no regular file"), ("$/none", "cannot be read")]
    {
        let spec = folder.server(&SERVER.replace("$/server.pem", path));
        let errors = ServerTls::load(&spec).expect_err(path).to_string();
        assert!(errors.contains("cert_file") && errors.contains(cause), "{errors}");
    }
    folder.write("server.pem", &"x".repeat((16 << 20) + 1));
    let errors = ServerTls::load(&folder.server(SERVER)).expect_err("it is long").to_string();
    assert!(errors.contains("longer than 16777216 bytes"), "{errors}");
}

#[test]
fn nothing_to_look_at() {
    let (folder, authority) = Folder::usual();
    assert_eq!(folder.load(&SERVER.replace("]}", "], reloadInterval: 0}")).interval(), None);
    assert_eq!(folder.load(SERVER).interval(), Some(Duration::from_secs(1)));
    let pair = authority.issue(&["server.test"]);
    let inline = Identity { cert: Pem::Inline(pair.cert), key: Pem::Inline(pair.key) };
    let spec = TlsServerSpec::builder(inline).build().expect("in order");
    assert_eq!(ServerTls::load(&spec).expect("in order").0.interval(), None);
}

/// Who came with a certificate must show it again when other issuers may be trusted.
#[test]
fn sessions_past_a_reload() {
    let (folder, authority) = Folder::usual();
    folder.pair("known", &authority.issue(&["client.test"]));
    let shows = CLIENT.replace('}', ", certKeyPairs: [{certFile: $/known.pem, keyFile: $/known.key}]}");
    let verifies = SERVER.replace("]}", "], clientAuth: 4, clientCAs: [$/ca.pem]}");
    for (spec, expected) in [(SERVER, HandshakeKind::Resumed), (&verifies, HandshakeKind::Full)] {
        let (client, server) = (folder.client(&shows), folder.load(spec));
        shake(&client, &server, "server.test").open();
        assert_eq!(shake(&client, &server, "server.test").open().kind(), HandshakeKind::Resumed);
        server.reload().expect("the same files");
        assert_eq!(shake(&client, &server, "server.test").open().kind(), expected);
    }
}

#[test]
fn what_a_spec_says_is_at_hand() {
    let (folder, _) = Folder::usual();
    let server =
        folder.load(&SERVER.replace("]}", "], handshakeTimeout: 1s, dynamicRecordSizingDisabled: false}"));
    assert_eq!(server.handshake_timeout(), Some(Duration::from_secs(1)));
    assert_eq!(server.sizing(), crate::proto::tls::RecordSizing::Dynamic);
    assert_eq!(server.spec().identities().len(), 1);
    let client = folder.client(CLIENT);
    assert_eq!(client.handshake_timeout(), Some(Duration::from_secs(10)));
    assert_eq!(client.sizing(), crate::proto::tls::RecordSizing::Full);
    assert_eq!(client.spec().roots().own.len(), 1);
    assert!(Path::new(&folder.0).exists());
}
