//! TLS specs: what texts and builders become, and what is refused.

use std::time::Duration;

use crate::spec::{
    ClientAuth, Curve, Format, Identity, Issuers, Pem, Resumption, TlsCipher, TlsClientSpec, TlsCommon,
    TlsServerSpec, TlsVersion,
};

fn client(yaml: &str) -> Result<TlsClientSpec, String> {
    TlsClientSpec::from_text(yaml, Format::Yaml, "f").map_err(|errors| errors.to_string())
}

fn server(yaml: &str) -> Result<TlsServerSpec, String> {
    TlsServerSpec::from_text(yaml, Format::Yaml, "f").map_err(|errors| errors.to_string())
}

/// A listener with this beside its certificate.
fn listener(fields: &str) -> Result<TlsServerSpec, String> {
    server(&format!("{{certKeyPairs: [{{certFile: a, keyFile: b}}], {fields}}}"))
}

#[test]
fn defaults() {
    let spec = client("{}").expect("in order");
    assert_eq!(spec, TlsClientSpec::default());
    assert_eq!(spec.roots(), &Issuers { system: true, own: Vec::new() });
    assert_eq!((spec.sessions(), spec.is_unverified(), spec.server_name()), (256, false, None));
    assert_eq!(spec.common(), &TlsCommon::default());
    assert_eq!(spec.common().versions, (TlsVersion::Tls12, TlsVersion::Tls13));
    assert_eq!(spec.common().handshake_timeout, Some(Duration::from_secs(10)));
    let spec = listener("").expect("in order");
    assert_eq!(spec.identities(), [Identity::files("a", "b")]);
    assert_eq!((spec.client_auth(), spec.resumption()), (ClientAuth::None, Resumption::Tickets));
    assert_eq!((spec.max_early_data(), spec.max_pending()), (0, 1_024));
    assert!(!spec.client_roots().system, "the system's issuers are no clients' issuers");
}

#[test]
fn everything_once_and_back() {
    let spec = client(
        "{rootCAs: [ca.pem], rootCAPems: ['-----BEGIN CERTIFICATE-----'], rootCAsIgnoreSystemCerts: true,
          serverName: App.Example., certKeyPairs: [{certPem: '-----BEGIN X', keyPem: '-----BEGIN Y'}],
          nextProtos: [h2, http/1.1], tlsCipher: [TLS_AES_128_GCM_SHA256, 26, 18], curvePreferences: [X25519, CURVE_P256],
          minVersion: TLS_VERSION_12, maxVersion: 772, dynamicRecordSizingDisabled: false, renegotiation: 0,
          handshakeTimeout: 1.5s, sessionCacheEntries: 10, keyLog: true, reloadInterval: 1m,
          insecureSkipVerify: false}",
    )
    .expect("in order");
    let own = vec![Pem::File("ca.pem".into()), Pem::Inline("-----BEGIN CERTIFICATE-----".into())];
    assert_eq!(spec.roots(), &Issuers { system: false, own: own.clone() });
    assert_eq!(spec.server_name(), Some("app.example"));
    let common = TlsCommon {
        versions: (TlsVersion::Tls12, TlsVersion::Tls13),
        alpn: vec!["h2".into(), "http/1.1".into()],
        suites: vec![
            TlsCipher::TlsAes128GcmSha256,
            TlsCipher::TlsEcdheRsaWithChacha20Poly1305Sha256,
            TlsCipher::TlsEcdheRsaWithAes256GcmSha384,
        ],
        groups: vec![Curve::X25519, Curve::P256],
        dynamic_records: true,
        handshake_timeout: Some(Duration::from_millis(1_500)),
        key_log: true,
        reload_interval: Some(Duration::from_secs(60)),
    };
    assert_eq!(spec.common(), &common);
    assert_eq!(spec.sessions(), 10);
    assert_eq!(TlsClientSpec::try_from(&spec.to_raw()).as_ref(), Ok(&spec));
    let identity =
        Identity { cert: Pem::Inline("-----BEGIN X".into()), key: Pem::Inline("-----BEGIN Y".into()) };
    assert_eq!(spec.identity(), Some(&identity));
    let built = TlsClientSpec::builder()
        .common(common.clone())
        .identity(identity)
        .roots(Issuers { system: false, own: own.clone() })
        .server_name("app.example")
        .sessions(10)
        .build();
    assert_eq!(built.as_ref(), Ok(&spec));
    // A key is not printed.
    assert!(!format!("{spec:?}").contains("BEGIN"), "{spec:?}");

    let spec = listener(
        "clientAuth: REQUIRE_AND_VERIFY, clientCAs: [ca.pem], clientCAPems: ['-----BEGIN CERTIFICATE-----'],
         clientCAsIgnoreSystemCerts: false, maxPendingHandshakes: 7, sessionCacheEntries: 100, maxEarlyData: 16KiB,
         handshakeTimeout: 0, reloadInterval: 0, minVersion: TLS_VERSION_DEFAULT",
    )
    .expect("in order");
    assert_eq!(spec.client_roots(), &Issuers { system: true, own: own.clone() });
    assert_eq!((spec.max_pending(), spec.max_early_data()), (7, 16 * 1024));
    assert_eq!(spec.resumption(), Resumption::Cache(100));
    assert_eq!((spec.common().handshake_timeout, spec.common().reload_interval), (None, None));
    assert_eq!(TlsServerSpec::try_from(&spec.to_raw()).as_ref(), Ok(&spec));
    let built = TlsServerSpec::builder(Identity::files("a", "b"))
        .client_auth(ClientAuth::RequireAndVerify, Issuers { system: true, own })
        .common(TlsCommon { handshake_timeout: None, reload_interval: None, ..TlsCommon::default() })
        .resumption(Resumption::Cache(100))
        .max_early_data(16 * 1024)
        .max_pending(7)
        .build();
    assert_eq!(built, Ok(spec));
    for (auth, name) in [
        (ClientAuth::None, "NONE"),
        (ClientAuth::Request, "REQUEST"),
        (ClientAuth::RequireAny, "2"),
        (ClientAuth::VerifyIfGiven, "3, clientCAs: [x]"),
    ] {
        let spec = listener(&format!("clientAuth: {name}")).expect("in order");
        assert_eq!(spec.client_auth(), auth);
        assert_eq!(TlsServerSpec::try_from(&spec.to_raw()), Ok(spec));
    }
    let off = listener("sessionTicketsDisabled: true").expect("in order");
    assert_eq!(off.resumption(), Resumption::Off);
    assert_eq!(TlsServerSpec::try_from(&off.to_raw()), Ok(off));
    let off = client("{sessionTicketsDisabled: true, insecureSkipVerify: true, serverName: '[::1]'}");
    let off = off.expect("in order");
    assert_eq!((off.sessions(), off.is_unverified(), off.server_name()), (0, true, Some("::1")));
    let built = TlsClientSpec::builder().sessions(0).dangerously_unverified().server_name("::1").build();
    assert_eq!(built, Ok(off));
}

#[test]
fn two_certificates_in_code() {
    let spec = TlsServerSpec::builder(Identity::files("a", "b")).identity(Identity::files("c", "d")).build();
    assert_eq!(spec.expect("in order").identities().len(), 2);
    let no_text = TlsServerSpec::builder(Identity::files("a/", "b")).build();
    assert!(no_text.expect_err("no path").to_string().contains("is no path of a file"));
}

#[test]
fn faults_of_both() {
    let rows: &[(&str, &str)] = &[
        ("minVersion: 768", "min_version: TLS_VERSION_SSL3 is not safe"),
        ("minVersion: TLS_VERSION_11", "min_version: TLS_VERSION_11 is not safe"),
        ("maxVersion: 769", "max_version: TLS_VERSION_10 is not safe"),
        ("maxVersion: 65540", "max_version: unknown value 65540"),
        ("minVersion: 772, maxVersion: 771", "min_version: it is above max_version"),
        ("tlsCipher: [TLS_NULL]", "tls_ciphers[0]: unknown value"),
        ("tlsCipher: [28]", "tls_ciphers[0]: unknown value 28"),
        ("tlsCipher: [0, 22]", "tls_ciphers[0]: TLS_RSA_WITH_RC4_128_SHA has no forward secrecy"),
        ("tlsCipher: [22, 15]", "tls_ciphers[1]: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 has no forward"),
        ("tlsCipher: [25]", "tls_ciphers[0]: TLS_FALLBACK_SCSV is a signal"),
        ("tlsCipher: [20, 26]", "tls_ciphers[1]: written twice"),
        ("tlsCipher: [20], minVersion: 772", "tls_ciphers[0]: no effect"),
        ("tlsCipher: [22], maxVersion: 771", "tls_ciphers[0]: no effect"),
        ("curvePreferences: [P521]", "curve_preferences[0]: CURVE_P521 is not there"),
        ("curvePreferences: [4]", "curve_preferences[0]: unknown value 4"),
        ("curvePreferences: [X25519, 3]", "curve_preferences[1]: written twice"),
        ("nextProtos: [h2, h2]", "next_protos[1]: written twice"),
        ("nextProtos: ['']", "next_protos[0]: a protocol has 1 to 255 bytes"),
        (
            "nextProtos: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]",
            "next_protos: 17 are too many: at most 16",
        ),
        ("renegotiation: 1", "renegotiation: it has been the way into"),
        ("renegotiation: 3", "renegotiation: unknown value 3"),
        ("handshakeTimeout: -1", "handshake_timeout: -1 is out of range"),
        ("reloadInterval: -1", "or 0 for never"),
        ("sessionCacheEntries: 0", "session_cache_entries: 0 is out of range: 1 to 1000000"),
        ("sessionTicketsDisabled: true, sessionCacheEntries: 5", "session_cache_entries: no effect"),
    ];
    for (fields, expected) in rows {
        for errors in
            [client(&format!("{{{fields}}}")).expect_err(fields), listener(fields).expect_err(fields)]
        {
            assert!(errors.contains(expected), "{fields}: {errors}");
            assert_eq!(errors.lines().count(), 1, "{fields}: {errors}");
        }
    }
}

#[test]
fn faults_of_a_dialer() {
    let rows: &[(&str, &str)] = &[
        ("clientAuth: NONE", "client_auth: only a listener has it"),
        ("clientCAs: [a]", "client_cas: only a listener has it"),
        ("clientCAPems: [a]", "client_ca_pems: only a listener has it"),
        ("clientCAsIgnoreSystemCerts: true", "client_cas_ignore_system_certs: only a listener has it"),
        ("maxPendingHandshakes: 5", "max_pending_handshakes: only a listener has it"),
        ("maxEarlyData: 5", "max_early_data: only a listener has it"),
        ("rootCAsIgnoreSystemCerts: true", "root_cas_ignore_system_certs: nobody is trusted"),
        ("rootCAs: [a, a]", "root_cas[1]: written twice"),
        ("rootCAs: [a/]", "root_cas[0]: \"a/\" is no path"),
        ("rootCAPems: [a]", "root_ca_pems[0]: no PEM text"),
        ("serverName: 'a b'", "server_name: \"a b\" is no host"),
        ("certKeyPairs: [{certFile: a}]", "cert_key_pairs[0].key_file: a path is needed, or key_pem"),
        ("certKeyPairs: [{keyFile: a}]", "cert_key_pairs[0].cert_file: a path is needed, or cert_pem"),
        (
            "certKeyPairs: [{certFile: a, certPem: '-----BEGIN ', keyFile: b}]",
            "cert_key_pairs[0].cert_pem: cert_file is written too",
        ),
        (
            "certKeyPairs: [{certFile: a, keyFile: b}, {certFile: c, keyFile: d}]",
            "cert_key_pairs: a dialer shows one certificate at most",
        ),
    ];
    for (fields, expected) in rows {
        let errors = client(&format!("{{{fields}}}")).expect_err(fields);
        assert!(errors.contains(expected), "{fields}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{fields}: {errors}");
    }
    let many: Vec<_> = (0..101).map(|at| format!("a{at}")).collect();
    let errors = client(&format!("{{rootCAs: [{}]}}", many.join(", "))).expect_err("many");
    assert!(errors.contains("root_cas: 101 are too many: at most 100"), "{errors}");
}

#[test]
fn faults_of_a_listener() {
    assert!(server("{}").expect_err("none").contains("cert_key_pairs: a listener needs at least one"));
    let many = "{certFile: a, keyFile: b}, ".repeat(101);
    let errors = server(&format!("{{certKeyPairs: [{many}]}}")).expect_err("many");
    assert!(errors.contains("cert_key_pairs: 101 are too many"), "{errors}");
    let rows: &[(&str, &str)] = &[
        ("rootCAs: [a]", "root_cas: only a dialer has it"),
        ("rootCAPems: [a]", "root_ca_pems: only a dialer has it"),
        ("rootCAsIgnoreSystemCerts: false", "root_cas_ignore_system_certs: only a dialer has it"),
        ("serverName: a", "server_name: only a dialer has it"),
        ("insecureSkipVerify: true", "insecure_skip_verify: only a dialer has it"),
        ("clientAuth: -1", "client_auth: unknown value -1"),
        ("clientAuth: 5", "client_auth: unknown value 5"),
        ("clientAuth: 4", "client_cas: nobody is trusted as an issuer of clients"),
        ("clientCAs: [a]", "client_cas: no effect: client_auth verifies no certificate"),
        ("clientAuth: 2, clientCAsIgnoreSystemCerts: false", "client_cas_ignore_system_certs: no effect"),
        ("maxEarlyData: 5", "max_early_data: only a session cache keeps early data from being replayed"),
        ("maxEarlyData: 2MiB, sessionCacheEntries: 5", "max_early_data: 2097152 is out of range"),
        ("maxPendingHandshakes: 0", "max_pending_handshakes: 0 is out of range: 1 to 1000000"),
    ];
    for (fields, expected) in rows {
        let errors = listener(fields).expect_err(fields);
        assert!(errors.contains(expected), "{fields}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{fields}: {errors}");
    }
}
