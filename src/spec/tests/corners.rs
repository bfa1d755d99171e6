//! Limits at their edges, and values that specs rarely have.

use std::path::PathBuf;

use prost::Message;

use super::{TOML, YAML};
use crate::spec::{
    AccessLog, Address, DriverChoice, Fault, Format, Forwarded, Limits, ListenSpec, NetAddr, OriginAddress,
    OriginPoolSpec, ProxyProtocol, ProxyProtocolVersion, ProxySpec, RouteSpec, RuntimeSpec, SockOptions,
    Spec, SpecKind, Timeouts, raw, read_protobuf,
};

fn faults(text: &str, format: Format, kind: SpecKind) -> String {
    Spec::from_text(text, format, "f", Some(kind)).expect_err(text).to_string()
}

/// So many items are taken, and one more is a fault.
#[track_caller]
fn limit(kind: SpecKind, count: usize, text: impl Fn(usize) -> String, fault: &str) {
    let full = Spec::from_text(&text(count), Format::Json, "f", Some(kind));
    assert!(full.is_ok(), "{count}: {}", full.expect_err("checked").faults()[0]);
    let errors = faults(&text(count + 1), Format::Json, kind);
    assert!(errors.contains(fault), "{fault}: {errors}");
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

#[test]
fn lists_have_limits() {
    let range = |at: usize| format!("\"10.{}.{}.0/24\"", at / 256, at % 256);
    for field in ["networks", "deny_networks"] {
        let text = |count| format!("{{\"addr\": \":80\", \"{field}\": [{}]}}", list(count, range));
        limit(SpecKind::Listen, 10_000, text, &format!("{field}: 10001 are too many: at most 10000"));
    }
    let trusted = |count| {
        format!("{{\"addr\": \":80\", \"proxy_protocol\": {{\"trusted\": [{}]}}}}", list(count, range))
    };
    limit(SpecKind::Listen, 1_000, trusted, "proxy_protocol.trusted: 1001 are too many");
    let target = |at: usize| format!("\"(tcp|a{at}:80) > (tcp|b:80)\"");
    let targets = |count| format!("{{\"replace_targets\": [{}]}}", list(count, target));
    limit(SpecKind::Dial, 1_000, targets, "replace_targets: 1001 are too many: at most 1000");
    for field in ["servers", "search"] {
        let item =
            |at: usize| if field == "servers" { format!("\"192.0.2.{at}\"") } else { format!("\"a{at}\"") };
        let text = |count| format!("{{\"resolver\": {{\"{field}\": [{}]}}}}", list(count, item));
        limit(SpecKind::Dial, 8, text, "9 are too many: at most 8");
    }
    let group = |at: usize| format!("{{\"group\": \"239.0.0.{at}\"}}");
    let groups = |count| format!("{{\"network\": \"udp4\", \"multicast_groups\": [{}]}}", list(count, group));
    limit(SpecKind::Packet, 64, groups, "multicast_groups: 65 are too many: at most 64");
    let cpus = |count| {
        let options =
            format!("{{\"reuse_port\": true, \"reuse_port_cpus\": [{}]}}", list(count, |at| at.to_string()));
        format!("{{\"addr\": \":80\", \"sock_option\": {{\"so_option\": {options}}}}}")
    };
    limit(
        SpecKind::Listen,
        1_024,
        cpus,
        "SO_ATTACH_REUSEPORT_CBPF takes 1 to 1024 different cores, not these 1025",
    );
    let proxy = |routes: &str, hosts: &str, prefix: &str| {
        format!(
            "{{\"listeners\": [{{\"name\": \"a\", \"address\": \"127.0.0.1:80\"}}], \"routes\": [{routes}{{\"pool\": \"p\", \
             \"hosts\": [{hosts}], \"path_prefix\": \"/{prefix}\"}}], \"pools\": [{{\"name\": \"p\", \"origins\": [{{\"address\": \
             \"a:80\"}}]}}]}}"
        )
    };
    let route = |at: usize| format!("{{\"pool\": \"p\", \"path_prefix\": \"/{at}\"}},");
    let routes = |count: usize| proxy(&list(count - 1, route).replace(",,", ","), "", "");
    limit(SpecKind::Proxy, 10_000, routes, "routes: 10001 are too many: at most 10000");
    let hosts = |count| proxy("", &list(count, |at| format!("\"a{at}\"")), "");
    limit(SpecKind::Proxy, 1_000, hosts, "routes[0].hosts: 1001 are too many: at most 1000");
    let prefix = |count: usize| proxy("", "", &"a".repeat(count - 1));
    limit(SpecKind::Proxy, 4_096, prefix, "routes[0].path_prefix: longer than 4096 bytes");
}

#[test]
fn texts_and_messages_have_limits() {
    let long = format!("timeout: 1 # {}", "a".repeat(16 << 20));
    assert!(faults(&long, Format::Yaml, SpecKind::Dial).contains("longer than 16777216 bytes"));
    // A message within messages, deeper than any spec: nothing else can be so deep.
    let descriptor = "google.protobuf.Struct";
    assert!(
        raw::descriptors().get_message_by_name(descriptor).is_none(),
        "{descriptor} nests without an end"
    );
    // Many names that are not there: the first ones are compared with those that are.
    let routes: Vec<String> = (0..30).map(|at| format!("  - {{ pool: ap, pathPrefix: /{at} }}\n")).collect();
    let text = YAML.replacen("  - pool: app\npools", &format!("{}pools", routes.concat()), 1);
    let errors = faults(&text, Format::Yaml, SpecKind::Proxy);
    assert_eq!(errors.matches("did you mean `app`?").count(), 20, "{errors}");
}

#[test]
fn values_of_the_proxy_that_are_rare() {
    let text = YAML
        .replace("FORWARDED_REPLACE", "off")
        .replace("driver: epoll", "driver: uring")
        .replace("path: stdout", "path: ./off")
        .replace("unix:/run/app", "unix:@app");
    let spec = ProxySpec::from_text(&text, Format::Yaml, "f").expect("valid");
    assert_eq!((spec.routes()[0].forwarded, spec.runtime().driver), (Forwarded::Off, DriverChoice::Uring));
    assert_eq!((spec.access_log(), spec.admin()), (&AccessLog::File("./off".into()), None));
    assert_eq!(spec.pools()[0].origins[2].address, OriginAddress::UnixAbstract(b"app".to_vec()));
    assert_eq!(ProxySpec::from_text(&spec.effective(), Format::Yaml, "f"), Ok(spec));
    let errors = faults(&YAML.replace("path: stdout", "path: /var/log/"), Format::Yaml, SpecKind::Proxy);
    assert!(errors.contains("access_log.path: \"/var/log/\" is no path of a file"), "{errors}");
    for (from, to, part) in [
        ("app.internal:80", "[::x]:80", "\"[::x]\" is no IPv6 address"),
        ("app.internal:80", "::1:80", "write IPv6 in brackets"),
        // It was printed as a path once.
        ("app.internal:80", "Unix:80", "a host that is read as unix:/path"),
        ("app.internal:80", "ä.example:80", "is not ASCII"),
        ("\"*.example.org\"", "\"[::x]\"", "is no IPv6 address"),
    ] {
        let errors = faults(&YAML.replacen(from, to, 1), Format::Yaml, SpecKind::Proxy);
        assert!(errors.contains(part), "{part}: {errors}");
    }
    // Two listeners at an address, one of them in short.
    let text = TOML.replace(
        "[[routes]]",
        "[[listeners]]\nname = \"b\"\nlistenConfig = { addr = \"127.0.0.1:8080\" }\n[[routes]]",
    );
    assert!(faults(&text, Format::Toml, SpecKind::Proxy).contains("already that of listeners[0].address"));
    let cached = TOML.replace(
        "address = \"app.internal:80\"",
        "address = \"app.internal:80\", dialConfig = { resolver = { cacheEntries = 7 } }",
    );
    assert_ne!(cached, TOML, "there is such an origin");
    assert!(
        faults(&cached, Format::Toml, SpecKind::Proxy)
            .contains("dial_config.resolver.cache_entries: a proxy keeps the names")
    );
}

#[test]
fn every_part_of_a_proxy_can_be_set_in_code() {
    let origin = OriginAddress::Host { host: "localhost".into(), port: 80 };
    let runtime = RuntimeSpec { cores: Some(2), ..RuntimeSpec::default() };
    let limits = Limits { header_count: 7, ..Limits::default() };
    let timeouts = Timeouts { tunnel_idle: None, ..Timeouts::default() };
    let log = AccessLog::File(PathBuf::from("stdout"));
    let builder = ProxySpec::builder()
        .listener("web", Address::Inet(([127, 0, 0, 1], 0).into()))
        .route(RouteSpec::new("app"))
        .pool(OriginPoolSpec::new("app", [origin]))
        .access_log(log.clone())
        .runtime(runtime.clone())
        .limits(limits.clone())
        .timeouts(timeouts.clone());
    let spec = builder.clone().build().expect("valid");
    assert_eq!((spec.runtime(), spec.limits(), spec.timeouts()), (&runtime, &limits, &timeouts));
    assert_eq!((spec.access_log(), spec.pools().len()), (&AccessLog::File("./stdout".into()), 1));
    // A path that reads as an abstract name.
    let errors =
        builder.listener("odd", Address::Unix("@a".into())).build().expect_err("a fault").to_string();
    assert!(errors.contains("listeners[1].address: no text can hold this name"), "{errors}");
}

#[test]
fn values_of_listeners_that_are_rare() {
    let text =
        |version: &str| format!("{{addr: ':80', proxyProtocol: {{version: {version}, trusted: ['::/0']}}}}");
    for (version, expected) in [
        ("any", ProxyProtocolVersion::Any),
        ("v1", ProxyProtocolVersion::V1),
        ("v2", ProxyProtocolVersion::V2),
    ] {
        let spec = ListenSpec::from_text(&text(version), Format::Yaml, "f").expect("valid");
        assert_eq!(spec.proxy_protocol().map(|spec| spec.version), Some(expected));
        assert_eq!(spec.clone().into_builder().build(), Ok(spec));
    }
    let errors = faults("{addr: 'tcp4://:80', network: tcp}", Format::Yaml, SpecKind::Listen);
    assert_eq!(errors, "f:1:31: network: addr has a network already; leave out tcp");
    let errors =
        faults("{localAddress: 'tcp4://192.0.2.1:0', localNetwork: tcp}", Format::Yaml, SpecKind::Dial);
    assert_eq!(errors, "f:1:52: local_network: local_address has a network already; leave out tcp");
    let address = NetAddr::of_stream(Address::Inet(([127, 0, 0, 1], 0).into()));
    let trusting = ListenSpec::builder(address).proxy_protocol(ProxyProtocol::new([]));
    assert!(trusting.build().expect_err("nobody").to_string().contains("at least one is needed"));
    let local_port = "{localAddress: '192.0.2.1:0', sockOption: {ipOption: {bindAddressNoPort: true}}}";
    assert!(Spec::from_text(local_port, Format::Yaml, "f", Some(SpecKind::Dial)).is_ok());
}

#[test]
fn messages_made_in_code_are_checked() {
    let option = |set: &dyn Fn(&mut raw::SockOption)| {
        let mut raw = raw::SockOption::default();
        set(&mut raw);
        SockOptions::try_from(&raw).expect_err("a fault").to_string()
    };
    let ip = |mtu_discover| raw::SockIpOption { mtu_discover, ..raw::SockIpOption::default() };
    let errors = option(&|raw| raw.ip_option = Some(ip(Some(9))));
    assert_eq!(errors, "ip_option.mtu_discover: unknown value 9");
    let so = raw::SockSoOption { busy_poll: Some(-1), ..raw::SockSoOption::default() };
    let errors = option(&|raw| raw.so_option = Some(so.clone()));
    assert_eq!(
        errors,
        "so_option.busy_poll: SO_BUSY_POLL takes 1 to 2147483647 us, whole us, or 0 for off, not -1 us"
    );
    let twice = raw::SockSoOption { reuse_port_cpus: vec![1, 1], ..raw::SockSoOption::default() };
    assert!(option(&|raw| raw.so_option = Some(twice.clone())).contains("not these 2"));
    assert_eq!(option(&|raw| raw.on_unsupported = Some(7)), "on_unsupported: unknown value 7");
    let listener =
        raw::ListenConfig { addr: Some(":80".into()), sockets: Some(9), ..raw::ListenConfig::default() };
    assert_eq!(ListenSpec::try_from(&listener).expect_err("a fault").to_string(), "sockets: unknown value 9");
    let bytes = [0x50, 5].repeat(2);
    assert_eq!(
        read_protobuf::<raw::Pool>(&bytes, "f").expect_err("a fault").to_string().lines().count(),
        2,
        "health is a message"
    );
    let empty = raw::Timeouts::default().encode_to_vec();
    assert_eq!(read_protobuf::<raw::Timeouts>(&empty, "f"), Ok(raw::Timeouts::default()));
}

#[test]
fn odd_values_of_each_format() {
    let dial = |text: &str, format| faults(text, format, SpecKind::Dial);
    let huge = "9".repeat(60);
    for (text, format, part) in [
        ("timeout: 99999999999999999999999999999999999999999", Format::Yaml, "timeout: expected an integer"),
        ("timeout: 9999999999999999999999", Format::Yaml, "timeout: "),
        ("timeout: .inf", Format::Yaml, "f:1:10: non-finite float"),
        ("timeout: [~]", Format::Yaml, "timeout: expected an integer, found a list"),
        ("replaceTargets: [~]", Format::Yaml, "replace_targets[0]: expected a string, found nothing"),
        ("resolver: 7", Format::Yaml, "resolver: expected a table, found an integer"),
        ("timeout = 0x7fffffffffff", Format::Toml, "timeout: 140737488355327 does not fit"),
        ("timeout = 1.5", Format::Toml, "timeout: 1.5 is not whole"),
        ("localAddress = 1979-05-27", Format::Toml, "local_address: \"1979-05-27\" is no address"),
        ("resolver = [1]", Format::Toml, "resolver: expected a table, found a list"),
        ("{\"timeout\": 1e30}", Format::Json, "timeout: expected an integer"),
    ] {
        let errors = dial(text, format);
        assert!(errors.contains(part), "{text}: {part:?} is not in\n{errors}");
    }
    assert!(dial(&format!("timeout = {huge}"), Format::Toml).contains("f:1:11: "));
    let merged = format!("a: &a {{}}\nb: {{{}}}", "<<: *a, ".repeat(3));
    assert!(!dial(&merged, Format::Yaml).is_empty());
    let anchors: String = (0..60_000).map(|at| format!("- &a{at} 1\n")).collect();
    assert!(!dial(&anchors, Format::Yaml).is_empty());
    // A column is counted in characters, in long lines in bytes.
    let padded = format!("{{\"local_address\": \"{}\", \"x\": 1}}", "ä".repeat(3_000));
    assert!(
        dial(&padded, Format::Json).contains("f:1:6023: unknown key \"x\""),
        "{}",
        dial(&padded, Format::Json)
    );
}

#[test]
fn faults_are_values() {
    let errors = Spec::from_text("a: 1", Format::Yaml, "", Some(SpecKind::Dial)).expect_err("a fault");
    assert_eq!(errors.to_string(), "1:1: unknown key \"a\"");
    let expected = Fault {
        file: String::new(),
        line: Some(1),
        column: Some(1),
        path: String::new(),
        message: "unknown key \"a\"".into(),
    };
    assert_eq!(errors.into_faults(), [expected]);
}
