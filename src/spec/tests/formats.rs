//! One spec in every format, and back.

use std::path::Path;

use proptest::prelude::*;
use prost::Message;

use crate::spec::{DialSpec, Format, ProxySpec, Spec, SpecKind, raw, read_protobuf};

const DIAL: &str = "dial_config: { timeout: 1500, replace_targets: ['(tcp|a:80) > (unix|/run/a b)'], sock_option: { tcp_option: { no_delay: false } } }";
const LISTEN: &str = "listen_config: { addr: ':80', networks: [10.0.0.0/8], connection_limit: 5, sock_option: { so_option: { reuse_port: true, reuse_port_cpus: [1, 0] } } }";
const PACKET: &str = "packet_conn_config: { network: 'ip4:icmp', multicast_groups: [{ group: 239.1.2.3 }] }";
const PROXY: &str = "proxy_config: { listeners: [{ name: a, address: 'unix:@a' }], routes: [{ pool: p }], pools: [{ name: p, origins: [{ address: 'a:80' }] }] }";

fn spec(text: &str) -> Spec {
    Spec::from_text(text, Format::Yaml, "f", None).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

const HTTP_SERVER: &str = "{httpServerConfig: {listenConfig: {addr: ':80'}, protocols: [http/1.1], \
     limits: {maxStreams: 7, bodyBytes: 9}, timeouts: {header: 2s, request: 5s, drain: 0s}}}";

#[test]
fn every_spec_comes_back_from_every_format() {
    for (text, kind) in [
        (DIAL, SpecKind::Dial),
        (LISTEN, SpecKind::Listen),
        (PACKET, SpecKind::Packet),
        (PROXY, SpecKind::Proxy),
        (HTTP_SERVER, SpecKind::HttpServer),
    ] {
        let spec = spec(text);
        assert_eq!((spec.kind(), kind.to_string().parse()), (kind, Ok(kind)));
        let yaml = Spec::from_text(&spec.effective(), Format::Yaml, "f", Some(kind)).expect("YAML");
        assert_eq!(yaml.effective(), spec.effective());
        let value: serde_json::Value = serde_saphyr::from_str(&spec.effective_file()).expect("a tree");
        let json = Spec::from_text(&value.to_string(), Format::Json, "f", None).expect("JSON");
        let toml = toml::to_string(&value).expect("the tree is a table");
        let toml = Spec::from_text(&toml, Format::Toml, "f", None).expect("TOML");
        let bytes = Spec::from_protobuf(&spec.to_protobuf(), "f", kind).expect("protobuf");
        for found in [yaml, json, toml, bytes] {
            assert_eq!(found, spec);
        }
        let file = Spec::from_file(&spec.to_protobuf(), Path::new("a.binpb"), Some(kind));
        assert_eq!(file, Ok(spec.clone()));
        assert_eq!(Spec::from_file(spec.effective_file().as_bytes(), Path::new("a.yml"), None), Ok(spec));
    }
    assert_eq!(
        "relay".parse::<SpecKind>().expect_err("none"),
        "write dial, listen, packet, proxy or http-server"
    );
}

/// Seconds, milliseconds and bytes with their units are the integers that they stand for.
#[test]
fn integers_with_units() {
    let row = |field: &str, text: &str| {
        let yaml = format!("{{{field}: {text}}}");
        let options = DialSpec::from_text(&format!("sockOption: {yaml}"), Format::Yaml, "f");
        options.map(|spec| Spec::Dial(Box::new(spec)).effective()).map_err(|errors| errors.to_string())
    };
    for (field, text, expected) in [
        ("soOption: {linger", "2m}", "linger: '120s'"),
        ("soOption: {linger", "'75s'}", "linger: '75s'"),
        ("soOption: {linger", "'7'}", "linger: '7s'"),
        ("soOption: {receiveTimeout", "1.5s}", "receiveTimeout: '1500ms'"),
        ("soOption: {receiveTimeout", "2e3}", "receiveTimeout: '2s'"),
        ("soOption: {busyPoll", "1ms}", "busyPoll: '1ms'"),
        ("soOption: {receiveBuffer", "64KiB}", "receiveBuffer: 65536"),
        ("soOption: {receiveBuffer", "0.5MiB}", "receiveBuffer: 524288"),
        ("soOption: {receiveBuffer", "100B}", "receiveBuffer: 100"),
        ("tcpOption: {userTimeout", "1h}", "userTimeout: '3600s'"),
    ] {
        let found = row(field, text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert!(found.contains(expected), "{text}: {found}");
    }
    for (field, text, expected) in [
        ("soOption: {linger", "1500ms}", "\"1500ms\" is not whole; write a number of seconds"),
        ("soOption: {linger", "s}", "\"s\" is no time"),
        ("soOption: {linger", "1.s}", "\"1.s\" is no time"),
        ("soOption: {linger", "-1s}", "\"-1s\" is no time"),
        ("soOption: {receiveBuffer", "1s}", "\"1s\" is no size; write a number of bytes"),
        ("soOption: {receiveBuffer", "1.5}", "1.5 is not whole"),
        ("soOption: {receiveBuffer", "123456789012345678901B}", "is no size"),
        ("soOption: {busyPoll", "0.1us}", "is not whole; write a number of microseconds"),
    ] {
        let errors = row(field, text).expect_err(text);
        assert!(errors.contains(expected), "{text}: {errors}");
    }
}

#[test]
fn faults_of_bytes_are_told_by_path() {
    let read = |bytes: &[u8], kind| Spec::from_protobuf(bytes, "f", kind).expect_err("broken").to_string();
    // Field 5 of DialConfig, fallback_delay, as varint; then twice.
    let rows: &[(&[u8], SpecKind, &str)] = &[
        (
            &[0x28, 5],
            SpecKind::Dial,
            "f: fallback_delay: 5 is out of range: 10 ms to 24 days, or -1 for one after the other",
        ),
        (&[0x28, 20, 0x28, 20], SpecKind::Dial, "f: fallback_delay: written twice"),
        (&[0x2d, 0, 0, 0, 0], SpecKind::Dial, "f: fallback_delay: of another type"),
        (&[0x29, 0, 0, 0, 0, 0, 0, 0, 0], SpecKind::Dial, "f: fallback_delay: of another type"),
        (&[0x2a, 1, 0], SpecKind::Dial, "f: fallback_delay: of another type"),
        (
            &[0x28, 0xff, 0xff, 0xff, 0xff, 0x7f],
            SpecKind::Dial,
            "f: fallback_delay: a number too wide for its field",
        ),
        (&[0x28], SpecKind::Dial, "f: byte 0 of 1: a field that is cut off"),
        (&[0x28, 20, 0x0a, 9], SpecKind::Dial, "f: byte 2 of 4: a field that is cut off"),
        (&[0x2b], SpecKind::Dial, "f: byte 0 of 1: a field that is cut off"),
        (&[0x00, 1], SpecKind::Dial, "f: byte 0 of 2: no key of a field"),
        (&[0xa2, 0x06, 0], SpecKind::Dial, "f: unknown field number 100 of DialConfig"),
        (&[0x12, 1, 0xff], SpecKind::Dial, "f: local_address: not UTF-8"),
        (&[0x1a, 1, b'x', 0x1a, 1, 0xff], SpecKind::Dial, "f: replace_targets[1]: not UTF-8"),
        (&[0x0a, 2, 0x28, 1], SpecKind::Dial, "f: tls_config.client_auth: only a listener has it"),
        (
            &[0x32, 4, 0x12, 2, 0x28, 2],
            SpecKind::Dial,
            "f: sock_option.ip_option.transparent: a number too wide for its field",
        ),
        // client_auth of a message within, cut off.
        (&[0x0a, 2, 0x28, 0x80], SpecKind::Dial, "f: tls_config: byte 2 of 4: a field that is cut off"),
        (&[], SpecKind::Listen, "f: addr: an address is needed: write 127.0.0.1:8080, :8080 or unix:///path"),
    ];
    for (bytes, kind, expected) in rows {
        assert_eq!(read(bytes, *kind), *expected, "{bytes:02x?}");
    }
    let both = raw::SpecFile { spec: Some(raw::spec_file::Spec::DialConfig(raw::DialConfig::default())) };
    let mut bytes = both.encode_to_vec();
    bytes.extend([0x12, 0]);
    let errors = read_protobuf::<raw::SpecFile>(&bytes, "f").expect_err("two of one").to_string();
    assert_eq!(errors, "f: listen_config: only one field of `spec` may be written");
    // Numbers of a list may come in one piece or one by one.
    let cpus = |bytes: &[u8]| read_protobuf::<raw::SockSoOption>(bytes, "f").map(|raw| raw.reuse_port_cpus);
    assert_eq!(cpus(&[0xaa, 0x02, 2, 1, 2]), Ok(vec![1, 2]));
    assert_eq!(cpus(&[0xa8, 0x02, 1, 0xa8, 0x02, 2]), Ok(vec![1, 2]));
    let packed = cpus(&[0xaa, 0x02, 5, 0xff, 0xff, 0xff, 0xff, 0x7f]).expect_err("too wide").to_string();
    assert_eq!(packed, "f: reuse_port_cpus[0]: a number too wide for its field");
    assert!(cpus(&[0xaa, 0x02, 1, 0xff]).expect_err("cut off").to_string().contains("cut off"));
    let long = vec![0; (16 << 20) + 1];
    assert!(read(&long, SpecKind::Dial).contains("longer than"));
}

/// Fields of other kinds than the specs have.
#[test]
fn bytes_of_other_kinds() {
    let duration = raw::Timeouts {
        header: Some(prost_types::Duration { seconds: -1, nanos: -5 }),
        ..raw::Timeouts::default()
    };
    let again: raw::Timeouts = read_protobuf(&duration.encode_to_vec(), "f").expect("a message");
    assert_eq!(again, duration);
    let foreign =
        read_protobuf::<prost_types::Timestamp>(&[], "f").expect_err("not of the schema").to_string();
    assert!(foreign.contains("the schema has no message"), "{foreign}");
}

#[test]
fn files_by_their_names() {
    let read = |bytes: &[u8], name: &str| Spec::from_file(bytes, Path::new(name), None);
    assert_eq!(read(b"", "a.pb").expect_err("no listener").faults().len(), 3);
    assert_eq!(read(b"", "a").expect_err("no ending").faults().len(), 1);
    assert_eq!(
        read(b"a: 1\n b\xff", "a.yaml").expect_err("not UTF-8").to_string(),
        "a.yaml:2:3: cannot read it: the text is not UTF-8"
    );
    assert_eq!(
        read(b"dialConfig: {}\n", "a.yaml").expect("valid").effective(),
        Spec::Dial(Box::default()).effective()
    );
    let proxy =
        Spec::from_text(PROXY, Format::Yaml, "f", Some(SpecKind::Proxy)).expect_err("not under a key");
    assert!(proxy.to_string().contains("unknown key \"proxy_config\""), "{proxy}");
}

/// A proxy made in code cannot say what it would not do, and comes back from its text as it was.
#[test]
fn a_proxy_in_code_says_how_to_listen_and_dial() {
    use crate::spec::{
        Address, ListenSpec, NetAddr, OriginAddress, OriginPoolSpec, OriginSpec, ResolverSpec, RouteSpec,
    };
    let address = NetAddr::of_stream(Address::Inet(([127, 0, 0, 1], 0).into()));
    let origin = OriginAddress::Host { host: "a".into(), port: 80 };
    let builder = |listen: ListenSpec, dial: DialSpec| {
        let origins = vec![OriginSpec { address: origin.clone(), dial, h2c: false }];
        let pool = OriginPoolSpec { origins, ..OriginPoolSpec::new("p", []) };
        ProxySpec::builder().listener_spec("a", listen).route(RouteSpec::new("p")).pool(pool).build()
    };
    let plain = || ListenSpec::builder(address.clone());
    let at = |text: &str| ListenSpec::builder(text.parse().expect("an address")).build().expect("valid");
    let timeout = DialSpec::builder().timeout(Some(std::time::Duration::from_secs(1)));
    let timeout = timeout.build().expect("valid");
    for listen in [
        plain().build().expect("valid"),
        plain().backlog(7).build().expect("valid"),
        ListenSpec::inherited("web").build().expect("valid"),
        at("tcp4://127.0.0.1:0"),
        at("tcp6://[::1]:0"),
    ] {
        let spec = builder(listen, timeout.clone()).expect("a proxy");
        assert_eq!(ProxySpec::from_text(&spec.effective(), Format::Yaml, "f"), Ok(spec));
    }
    let errors = builder(at("unixpacket://@a"), DialSpec::default()).expect_err("packets").to_string();
    assert!(errors.contains("listeners[0].listen_config.addr: unixpacket carries packets"), "{errors}");
    let resolver = ResolverSpec { cache_entries: 7, ..ResolverSpec::default() };
    let cached = DialSpec::builder().resolver(resolver).build().expect("valid");
    let errors = builder(plain().build().expect("valid"), cached).expect_err("not kept").to_string();
    let expected =
        "pools[0].origins[0].dial_config.resolver: a proxy keeps names as resolve_interval of the pool says";
    assert_eq!(errors, expected);
}

/// A field that is added to the schema is executed, or in a list that refuses it.
#[test]
fn no_field_is_read_and_ignored_by_a_proxy() {
    use crate::spec::unavailable::NOT_IN_PROXY;
    let executed = ["timeout", "attempts", "servers", "search", "hosts_file", "ndots"];
    for field in raw::descriptor::<raw::ResolverConfig>().fields() {
        let place = ("ResolverConfig", field.name());
        let listed = NOT_IN_PROXY.iter().filter(|(message, field, _)| (*message, *field) == place).count();
        assert_eq!(listed + usize::from(executed.contains(&field.name())), 1, "{place:?}");
    }
    for (message, field, _) in NOT_IN_PROXY {
        let name = format!("ringport.v1.{message}");
        let descriptor = raw::descriptors().get_message_by_name(&name).expect("a message");
        assert!(descriptor.get_field_by_name(field).is_some(), "{message} has no {field}");
    }
}

/// A number that counts milliseconds here and seconds there is told, with what it counts.
#[test]
fn times_without_a_unit_are_told() {
    let told = |text: &str, name: &str, kind| -> Vec<String> {
        let path = Path::new(name);
        assert!(Spec::from_file(text.as_bytes(), path, kind).is_ok(), "{text}");
        Spec::notices(text.as_bytes(), path, kind).iter().map(ToString::to_string).collect()
    };
    let listen = "listenConfig:\n  addr: ':0'\n  readDeadline: 30\n  writeDeadline: 30s\n  keepAliveConfig: { idle: 20 }\n  \
                  sockOption: { soOption: { receiveBuffer: 65536, busyPoll: 50 } }\n";
    assert_eq!(
        told(listen, "f.yaml", None),
        [
            "f.yaml:3:17: listen_config.read_deadline: 30 without a unit counts milliseconds: write \"30ms\" where that is meant",
            "f.yaml:5:28: listen_config.keep_alive_config.idle: 20 without a unit counts seconds: write \"20s\" where that is meant",
            "f.yaml:6:61: listen_config.sock_option.so_option.busy_poll: 50 without a unit counts microseconds: write \"50us\" where \
             that is meant",
        ]
    );
    // No limit has no unit, and what is written out says all of them.
    let none = "{addr: ':0', readDeadline: 0, writeDeadline: -1}";
    assert!(told(none, "f.yaml", Some(SpecKind::Listen)).is_empty());
    for text in [DIAL, LISTEN, PACKET, PROXY] {
        let spec = spec(text);
        assert_eq!(told(&spec.effective_file(), "f.yaml", None), Vec::<String>::new());
    }
}

/// Every unit, and what is finer than the message can say.
#[test]
fn durations_with_units() {
    let header = |text: &str| {
        let yaml = format!(
            "listeners: [{{name: a, address: '127.0.0.1:1'}}]\nroutes: [{{pool: p}}]\npools: [{{name: p, origins: [{{address: 'a:1'}}]}}]\n\
             timeouts: {{header: {text}}}\n"
        );
        let spec = ProxySpec::from_text(&yaml, Format::Yaml, "f");
        spec.map(|spec| spec.timeouts().header.as_micros()).map_err(|errors| errors.to_string())
    };
    for (text, micros) in [
        ("75s", 75_000_000),
        ("250ms", 250_000),
        ("5m", 300_000_000),
        ("1h", 3_600_000_000),
        ("0.25s", 250_000),
        ("1500us", 1_500),
    ] {
        assert_eq!(header(text), Ok(micros), "{text}");
    }
    for text in ["75", "'75'", "s", "5 m", "1d", ".5s", "1e3s", "0.0000000001s", "-5s", "1500.0000001us"] {
        assert!(header(text).is_err(), "{text}");
    }
}

/// What a text or bytes may be made of, a little broken.
fn pieces() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..3)), 0..6)
        .prop_map(|cuts| cuts.into_iter().map(|(at, bytes)| (at.index(1_000), bytes)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes are refused, or are a spec that comes back as it was.
    #[test]
    fn no_bytes_panic(which in 0usize..4, cuts in pieces()) {
        let spec = spec([DIAL, LISTEN, PACKET, PROXY][which]);
        let mut bytes = spec.to_protobuf();
        for (at, replaced) in cuts {
            let at = at % (bytes.len() + 1);
            let end = (at + replaced.len()).min(bytes.len());
            bytes.splice(at..end, replaced);
        }
        match Spec::from_protobuf(&bytes, "f", spec.kind()) {
            Ok(spec) => {
                let again = Spec::from_protobuf(&spec.to_protobuf(), "f", spec.kind());
                prop_assert_eq!(again.as_ref(), Ok(&spec));
                let text = spec.effective();
                prop_assert_eq!(Spec::from_text(&text, Format::Yaml, "f", Some(spec.kind())), Ok(spec));
            }
            Err(errors) => prop_assert!(!errors.faults().is_empty()),
        }
    }

    /// Any string that is a path survives being written and read.
    #[test]
    fn strings_survive_yaml(name in "[^\\x00/@]\\PC{0,30}|\\PC{1,30}") {
        let path = format!("/{name}");
        let value = serde_json::json!({ "dialConfig": { "resolver": { "hostsFile": path } } });
        match Spec::from_text(&value.to_string(), Format::Json, "f", None) {
            Ok(spec) => {
                let again = Spec::from_text(&spec.effective_file(), Format::Yaml, "f", None);
                prop_assert_eq!(again, Ok(spec));
            }
            Err(errors) => prop_assert!(errors.to_string().contains("is no path of a file"), "{}", errors),
        }
    }
}
