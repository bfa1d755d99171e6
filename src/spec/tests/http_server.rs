//! What a server of HTTP may be asked for.

use std::time::Duration;

use crate::spec::{
    Format, HttpLimits, HttpProtocol, HttpServerSpec, HttpTimeouts, Identity, ListenSpec, NetAddr,
    TlsServerSpec,
};

fn server(yaml: &str) -> Result<HttpServerSpec, String> {
    HttpServerSpec::from_text(yaml, Format::Yaml, "f").map_err(|errors| errors.to_string())
}

#[test]
fn all_that_can_be_said_is_kept() {
    let spec = server(
        "{listenConfig: {addr: ':443', tlsConfig: {certKeyPairs: [{certFile: a, keyFile: b}]}}, protocols: [http/1.1, h2],
          limits: {requestLineBytes: 1024, headerBytes: 2048, headerCount: 7, bodyBytes: 3145728, requestsPerConnection: 9,
            maxStreams: 5, streamWindowBytes: 65536, connectionWindowBytes: 131072, sendBufferBytes: 1048576},
          timeouts: {header: 1s, bodyIdle: 2s, writeIdle: 3s, keepAliveIdle: 4s, request: 5s, drain: 0s}, omitDate: true}",
    )
    .expect("in order");
    let limits = HttpLimits {
        request_line_bytes: 1 << 10,
        header_bytes: 2 << 10,
        header_count: 7,
        body_bytes: Some(3 << 20),
        requests_per_connection: Some(9),
        max_streams: 5,
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 128 << 10,
        send_buffer_bytes: 1 << 20,
    };
    let seconds = Duration::from_secs;
    let timeouts = HttpTimeouts {
        header: seconds(1),
        body_idle: seconds(2),
        write_idle: seconds(3),
        keep_alive_idle: seconds(4),
        request: Some(seconds(5)),
        drain: Duration::ZERO,
    };
    assert_eq!((spec.limits(), spec.timeouts(), spec.sends_date()), (&limits, &timeouts, false));
    assert_eq!(spec.protocols(), [HttpProtocol::Http1, HttpProtocol::Http2]);
    assert_eq!(spec.listen().tls().expect("TLS").common().alpn, ["http/1.1", "h2"], "as protocols says");
    assert_eq!(HttpServerSpec::try_from(&spec.to_raw()).as_ref(), Ok(&spec));

    let tls = TlsServerSpec::builder(Identity::files("a", "b")).build().expect("in order");
    let addr: NetAddr<_> = "tcp://[::]:443".parse().expect("an address");
    let listen = ListenSpec::builder(addr).tls(tls).build().expect("in order");
    let built = HttpServerSpec::builder(listen)
        .protocols([HttpProtocol::Http1, HttpProtocol::Http2])
        .limits(limits)
        .timeouts(timeouts)
        .omit_date()
        .build()
        .expect("in order");
    assert_eq!((built.limits(), built.sends_date()), (spec.limits(), false));
    assert_eq!(built.clone().into_builder().build(), Ok(built));
}

#[test]
fn defaults_are_written_out() {
    let spec = server("{listenConfig: {addr: ':80'}}").expect("in order");
    assert!(spec.speaks(HttpProtocol::Http2) && spec.speaks(HttpProtocol::Http1) && spec.sends_date());
    assert_eq!((*spec.limits(), *spec.timeouts()), (HttpLimits::default(), HttpTimeouts::default()));
    assert_eq!(HttpServerSpec::try_from(&spec.to_raw()), Ok(spec));
    let only = server("{listenConfig: {addr: ':80'}, protocols: [h2]}").expect("in order");
    assert!(!only.speaks(HttpProtocol::Http1));
}

#[test]
fn faults_are_told_with_their_places() {
    let pair = "certKeyPairs: [{certFile: a, keyFile: b}]";
    let rows = [
        ("{}".to_owned(), "listen_config: a server needs to know where it listens"),
        ("{listenConfig: {addr: 'unixpacket:///a'}}".to_owned(), "unixpacket has none"),
        (
            "{listenConfig: {addr: ':1'}, protocols: [h3]}".to_owned(),
            "protocols[0]: \"h3\" is not spoken here",
        ),
        (
            "{listenConfig: {addr: ':1'}, protocols: [h2, h2]}".to_owned(),
            "protocols[1]: \"h2\" is there already",
        ),
        (
            format!("{{listenConfig: {{addr: ':1', tlsConfig: {{{pair}, nextProtos: [h2]}}}}}}"),
            "listen_config.tls_config.next_protos: it has to be what protocols says: h2, http/1.1",
        ),
        (
            "{listenConfig: {addr: ':1'}, limits: {headerCount: 257}}".to_owned(),
            "limits.header_count: 257 is out",
        ),
        ("{listenConfig: {addr: ':1'}, limits: {maxStreams: 0}}".to_owned(), "limits.max_streams: 0 is out"),
        (
            "{listenConfig: {addr: ':1'}, limits: {connectionWindowBytes: 65534}}".to_owned(),
            "limits.connection_window_bytes: 65534 is out",
        ),
        ("{listenConfig: {addr: ':1'}, timeouts: {header: 0s}}".to_owned(), "timeouts.header: "),
    ];
    for (yaml, expected) in rows {
        let errors = server(&yaml).expect_err(&yaml);
        assert!(errors.contains(expected) && errors.lines().count() == 1, "{yaml}: {errors}");
    }
}
