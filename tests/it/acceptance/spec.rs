//! Cases that a spec alone decides, before any socket is made.

use std::time::Duration;

use ringport::net::PeerFilter;
use ringport::spec::{
    DialSpec, Format, KeepAlive, ListenSource, ListenSpec, NetAddr, OriginAddress, PacketSpec, Spec,
    SpecErrors, SpecKind,
};
use ringport_platform::sockopt::{Family, Opt, OptValue, Role, Setting, Target};

use crate::rig::is_elsewhere;

fn dial(yaml: &str) -> Result<DialSpec, SpecErrors> {
    DialSpec::from_text(yaml, Format::Yaml, "f")
}

fn listen(yaml: &str) -> Result<ListenSpec, SpecErrors> {
    ListenSpec::from_text(yaml, Format::Yaml, "f")
}

fn packet(yaml: &str) -> Result<PacketSpec, SpecErrors> {
    PacketSpec::from_text(yaml, Format::Yaml, "f")
}

/// A listener at every address with these options.
fn listen_with(options: &str) -> Result<ListenSpec, SpecErrors> {
    listen(&format!("{{addr: ':0', sockOption: {{{options}}}}}"))
}

/// The faults, one a line, are these.
#[track_caller]
fn refused<T: std::fmt::Debug>(found: Result<T, SpecErrors>, expected: &[&str]) {
    let errors = found.expect_err("a fault").to_string();
    let found: Vec<&str> = errors.lines().collect();
    assert_eq!(found.len(), expected.len(), "{errors}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{expected:?} is not in {found:?}");
    }
}

#[track_caller]
fn option(spec: &ListenSpec, opt: Opt) -> Option<Setting> {
    let target = spec.target().expect("an address");
    spec.socket_options(target).expect("they fit").0.find(opt).cloned()
}

fn int(number: i64) -> Option<Setting> {
    Some(Setting::Value(OptValue::Int(number)))
}

fn on() -> Option<Setting> {
    Some(Setting::Value(OptValue::Flag(true)))
}

fn seconds(seconds: u64) -> Option<Setting> {
    Some(Setting::Value(OptValue::Time(Duration::from_secs(seconds))))
}

fn allows(spec: &ListenSpec, peer: &str) -> bool {
    let peers = spec.peers();
    PeerFilter::new(&peers.allowed, &peers.denied).allows(peer.parse().expect("an address"))
}

#[test]
fn case_06_no_linger_is_not_the_same_as_a_linger_of_zero() {
    let linger = |text: &str| option(&listen_with(text).expect("valid"), Opt::SoLinger);
    assert_eq!(linger("soOption: {linger: 7}"), seconds(7));
    assert_eq!(linger("soOption: {linger: 0}"), seconds(0));
    assert_eq!(linger("soOption: {linger: -1}"), Some(Setting::Off));
    assert_eq!(linger(""), None);
}

#[test]
fn case_09_sizes_have_units() {
    if is_elsewhere() {
        return;
    }
    let spec = listen_with("soOption: {receiveBufferForce: 64MiB}").expect("valid");
    assert_eq!(option(&spec, Opt::SoRcvbufforce), int(64 << 20));
}

#[test]
fn case_15_a_cpu_is_a_number() {
    if is_elsewhere() {
        return;
    }
    let cpu = |text: &str| option(&listen_with(text).expect("valid"), Opt::SoIncomingCpu);
    assert_eq!(cpu("soOption: {incomingCPU: 2}"), int(2));
    assert_eq!(cpu("soOption: {incomingCPU: -1}"), Some(Setting::Off));
    assert_eq!(cpu(""), None);
    refused(listen_with("soOption: {incomingCPU: true}"), &["expected an integer, found a boolean"]);
}

#[test]
fn case_19_a_port_range_may_lack_an_end_and_is_not_reversed() {
    if is_elsewhere() {
        return;
    }
    let spec = listen_with("ipOption: {localPortRangeLower: 40000}").expect("valid");
    let expected = Some(Setting::Value(OptValue::Ports { low: 40_000, high: 0 }));
    assert_eq!(option(&spec, Opt::IpLocalPortRange), expected);
    refused(
        listen_with("ipOption: {localPortRangeLower: 40003, localPortRangeUpper: 40000}"),
        &[
            "f:1:87: sock_option.ip_option.local_port_range_upper: local_port_range_lower, 40003, is more than",
        ],
    );
    refused(listen_with("ipOption: {localPortRangeUpper: 65536}"), &["65536 is out of range: 0 to 65535"]);
}

#[test]
fn case_21_each_family_has_its_hop_limit() {
    let spec = listen_with("ipOption: {ttl: 42}, ipv6Option: {unicastHops: 43}").expect("valid");
    assert_eq!((option(&spec, Opt::IpTtl), option(&spec, Opt::Ipv6UnicastHops)), (int(42), int(43)));
    refused(
        listen_with("ipOption: {ttl: 256}"),
        &["ip_option.ttl: IP_TTL takes 1 to 255, or -1 for off, not 256"],
    );
    refused(listen_with("ipOption: {ttl: 0}"), &["not 0"]);
}

#[test]
fn case_22_a_listener_says_whether_it_takes_both_families() {
    let v6_only = |yaml: &str| option(&listen(yaml).expect("valid"), Opt::Ipv6V6only);
    assert_eq!(v6_only("addr: '[::]:0'"), Some(Setting::Off));
    assert_eq!(v6_only("{addr: '[::]:0', sockOption: {ipv6Option: {v6Only: true}}}"), on());
    assert_eq!(v6_only("addr: 'tcp6://:0'"), on());
}

#[test]
fn case_25_keep_alive_has_ranges() {
    let spec = listen("{addr: ':0', keepAliveConfig: {idle: 11, interval: 12, count: 5}}").expect("valid");
    let options =
        [option(&spec, Opt::TcpKeepidle), option(&spec, Opt::TcpKeepintvl), option(&spec, Opt::TcpKeepcnt)];
    assert_eq!(options, [seconds(11), seconds(12), int(5)]);
    refused(
        listen("{addr: ':0', keepAliveConfig: {idle: 32768, count: 128}}"),
        &[
            "keep_alive_config.idle: TCP_KEEPIDLE takes 1 to 32767 s",
            "keep_alive_config.count: TCP_KEEPCNT takes 1 to 127",
        ],
    );
    refused(listen_with("tcpOption: {keepIdle: 32768, keepCount: 128}"), &["keep_idle", "keep_count"]);
}

#[test]
fn case_28_31_33_36_values_out_of_range_never_reach_the_kernel() {
    refused(
        listen_with("tcpOption: {maxSegment: 50}"),
        &["TCP_MAXSEG takes 88 to 32767 bytes, or 0 for off, not 50"],
    );
    refused(listen_with("tcpOption: {synCount: 128}"), &["TCP_SYNCNT takes 1 to 127, not 128"]);
    refused(listen_with("tcpOption: {windowClamp: -1}"), &["TCP_WINDOW_CLAMP takes"]);
    refused(
        packet("sockOption: {udpOption: {segment: 65536}}"),
        &["UDP_SEGMENT takes 1 to 65535 bytes, or 0 for off"],
    );
}

#[test]
fn case_29_nagle_is_off_unless_the_spec_says_otherwise() {
    let no_delay = |text: &str| option(&listen_with(text).expect("valid"), Opt::TcpNodelay);
    assert_eq!(no_delay("tcpOption: {noDelay: false}"), Some(Setting::Off));
    assert_eq!(no_delay(""), on());
    assert_eq!(no_delay("tcpOption: {noDelay: true}"), on());
}

#[test]
fn case_34_fast_open_has_a_queue() {
    assert_eq!(option(&listen_with("tcpOption: {fastOpen: 16}").expect("valid"), Opt::TcpFastopen), int(16));
}

#[test]
fn case_35_fast_open_of_dialers_is_not_for_listeners() {
    if is_elsewhere() {
        return;
    }
    refused(
        listen_with("tcpOption: {fastOpenConnect: true}"),
        &["tcp_option.fast_open_connect: TCP_FASTOPEN_CONNECT has no meaning for a tcp listener"],
    );
    assert!(dial("sockOption: {tcpOption: {fastOpenConnect: true}}").is_ok());
}

#[test]
fn case_39_options_of_another_network_are_refused_or_skipped() {
    refused(
        listen("{addr: 'unix:///run/a', sockOption: {tcpOption: {keepIdle: 5}}}"),
        &["f:1:60: sock_option.tcp_option.keep_idle: TCP_KEEPIDLE has no effect on a unix listener"],
    );
    refused(packet("sockOption: {tcpOption: {keepIdle: 5}}"), &["no effect on a udp packet socket"]);
    let mixed = "sockOption: {onUnsupported: warn, tcpOption: {userTimeout: 5s}, udpOption: {gro: true}}";
    let mixed = dial(mixed).expect("valid for some target");
    for (network, expected) in
        [("tcp", Some(Opt::TcpUserTimeout)), ("udp", Some(Opt::UdpGro)), ("unix", None)]
    {
        let network: ringport::spec::Network = network.parse().expect("a network");
        let (options, skipped) = mixed.socket_options(network.target(Role::Dialled, None)).expect("skipped");
        assert!(expected.is_none_or(|opt| options.is_on(opt)), "{network}");
        assert_eq!(skipped.len(), 2 - usize::from(expected.is_some()), "{network}: {skipped:?}");
    }
}

#[test]
fn case_41_every_fault_is_in_one_report() {
    refused(
        listen_with("tcpOption: {synCount: 0, keepCount: 0}, soOption: {receiveBuffer: 0}"),
        &["TCP_SYNCNT", "TCP_KEEPCNT", "SO_RCVBUF"],
    );
}

#[test]
fn case_42_multipath_tcp_is_asked_for_by_name() {
    if is_elsewhere() {
        return;
    }
    assert_eq!(option(&listen("addr: ':0'").expect("valid"), Opt::IpprotoMptcp), None);
    refused(
        listen_with("tcpOption: {mptcp: true, synCount: 2, quickAck: true}"),
        &["TCP_SYNCNT contradicts IPPROTO_MPTCP", "TCP_QUICKACK contradicts IPPROTO_MPTCP"],
    );
}

#[test]
fn case_44_a_local_address_is_never_ignored() {
    let local = |yaml: &str| {
        let spec = dial(yaml).unwrap_or_else(|errors| panic!("{yaml}: {errors}"));
        spec.local().expect("an address").to_string()
    };
    assert_eq!(local("localAddress: '127.0.0.2:0'"), "tcp://127.0.0.2:0");
    assert_eq!(local("localAddress: 'udp://127.0.0.2:0'"), "udp://127.0.0.2:0");
    assert_eq!(local("localAddress: 'ip4:icmp://127.0.0.2'"), "ip4:icmp://127.0.0.2");
    assert_eq!(local("{localAddress: '127.0.0.2:0', localNetwork: udp4}"), "udp4://127.0.0.2:0");
    refused(dial("localAddress: 127.0.0.2"), &["local_address: \"127.0.0.2\" is no address"]);
    refused(dial("localAddress: 'foo://127.0.0.2:0'"), &["local_address: \"foo\" is no network"]);
    refused(dial("localNetwork: tcp"), &["local_network: there is no local_address"]);
}

fn target(text: &str) -> NetAddr<OriginAddress> {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn case_45_targets_are_replaced_once_and_as_written() {
    let yaml = r#"replaceTargets:
  - "(tcp|localhost:80) > (unix|/run/my app.sock)"
  - "(tcp|abstract.socket.com:80) > (unix|@hello)"
  - "(tcp|a.nowhere.invalid:1) > (tcp|b.nowhere.invalid:1)"
  - "(tcp|b.nowhere.invalid:1) > (tcp|c.nowhere.invalid:1)"
"#;
    let spec = dial(yaml).expect("no name is looked up");
    for (from, to) in [
        ("tcp://LocalHost:80", "unix:///run/my app.sock"),
        ("tcp://abstract.socket.com:80", "unix://@hello"),
        // Not replaced again.
        ("tcp://a.nowhere.invalid:1", "tcp://b.nowhere.invalid:1"),
        ("tcp4://localhost:80", "tcp4://localhost:80"),
        ("tcp://localhost:81", "tcp://localhost:81"),
    ] {
        assert_eq!(spec.replaced(&target(from)).to_string(), to, "{from}");
    }
    refused(
        dial("replaceTargets: ['(tcp|a:1) > (tcp|b:1)', '(tcp|A:1) > (tcp|c:1)']"),
        &["replace_targets[1]: tcp://a:1 is replaced twice, first by replace_targets[0]"],
    );
    // Sources that are alike only when written without a mark between network and address.
    assert!(dial("replaceTargets: ['(tcp|6a:1) > (tcp|b:1)', '(tcp6|a:1) > (tcp|c:1)']").is_ok());
}

#[test]
fn case_46_a_replacement_that_is_none_is_refused() {
    for (text, part) in [
        ("tcp#x", "is no replacement"),
        ("(tcp|a:1) > tcp|b:1", "is no replacement"),
        ("(tcp|a:1)(tcp|b:1)", "is no replacement"),
        ("(tcp a:1) > (tcp|b:1)", "is no replacement"),
        ("(tcp|a) > (tcp|b:1)", "write host:port"),
        ("(tcp|a:1) > (tcp|b)", "write host:port"),
    ] {
        refused(dial(&format!("replaceTargets: ['{text}']")), &[part]);
    }
}

#[test]
fn case_47_the_fallback_delay_may_be_none() {
    let delay = |yaml: &str| dial(yaml).expect("valid").fallback_delay();
    assert_eq!(delay("{}"), Some(Duration::from_millis(300)));
    assert_eq!(delay("fallbackDelay: -1"), None);
    assert_eq!(delay("fallbackDelay: 50"), Some(Duration::from_millis(50)));
    refused(dial("fallbackDelay: 0"), &["-1 for one after the other"]);
}

#[test]
fn case_52_ip_needs_a_protocol() {
    assert_eq!(target("ip4:icmp://127.0.0.1").to_string(), "ip4:icmp://127.0.0.1");
    let error = "ip4://127.0.0.1".parse::<NetAddr<OriginAddress>>().expect_err("no protocol");
    assert_eq!(error, "ip4 needs a protocol, such as ip4:icmp or ip4:1");
}

#[test]
fn case_54_networks_of_listeners() {
    for (addr, expected) in [
        ("127.0.0.1:0", "tcp://127.0.0.1:0"),
        ("unix:///p", "unix:///p"),
        ("unix://@n", "unix://@n"),
        ("unixpacket:///p", "unixpacket:///p"),
        ("tcp4://:0", "tcp4://0.0.0.0:0"),
        ("tcp6://:0", "tcp6://[::]:0"),
        (":0", "tcp://[::]:0"),
    ] {
        let spec = listen(&format!("addr: '{addr}'")).unwrap_or_else(|errors| panic!("{addr}: {errors}"));
        let ListenSource::Address(found) = spec.source() else { panic!("{addr}: no address") };
        assert_eq!(found.to_string(), expected, "{addr}");
    }
    refused(listen("addr: 'http://:0'"), &["addr: \"http\" is no network; known are tcp"]);
    refused(listen("addr: 'udp://:0'"), &["addr: udp has no connections"]);
    refused(listen("addr: 'unixgram:///p'"), &["addr: unixgram has no connections"]);
    refused(listen("{addr: ':0', network: ip}"), &["network: ip needs a protocol"]);
    refused(listen("addr: '127.0.0.1'"), &["addr: \"127.0.0.1\" is no address"]);
}

/// With a network in front or without; two slashes once became part of the path, and hid that a name is abstract.
#[test]
fn case_54_a_unix_address_has_several_spellings() {
    for text in ["unix:/run/a.sock", "unix:///run/a.sock"] {
        let target: NetAddr<OriginAddress> = text.parse().expect("an address");
        assert_eq!(target.to_string(), "unix:///run/a.sock");
        let yaml = format!("addr: '{text}'");
        let spec = ListenSpec::from_text(&yaml, Format::Yaml, "f").expect("an address");
        let ListenSource::Address(address) = spec.source() else { panic!("an address") };
        assert_eq!(address.to_string(), "unix:///run/a.sock");
    }
    let proxy = |address: &str| {
        let config = format!(
            "listeners: [{{name: w, address: '{address}'}}]\nroutes: [{{pool: o}}]\n\
             pools: [{{name: o, origins: [{{address: '{address}'}}]}}]\n"
        );
        Spec::from_text(&config, Format::Yaml, "f", None).expect("a proxy")
    };
    for name in ["/run/a.sock", "@a"] {
        assert_eq!(proxy(&format!("unix://{name}")), proxy(&format!("unix:{name}")));
        assert_ne!(proxy(&format!("unix:{name}")), proxy(&format!("unix:{name}b")));
    }
}

#[test]
fn case_55_paths_of_unix_sockets_have_a_length() {
    let with = |len: usize| listen(&format!("addr: 'unix:///{}'", "a".repeat(len - 1)));
    assert!(with(107).is_ok());
    refused(with(108), &["the name of a Unix socket has 1 to 107 bytes"]);
    refused(
        listen("{addr: 'unix:///p', unix: {mode: rw-rw----}}"),
        &["unix.mode: \"rw-rw----\" is no mode; write three or four octal digits, such as \"0660\""],
    );
}

#[test]
fn case_58_d3_everything_is_everything() {
    let all = listen("{addr: ':0', networks: [0.0.0.0/0]}").expect("valid");
    assert!(allows(&all, "192.168.1.1:1") && allows(&all, "127.0.0.1:1") && !allows(&all, "[::1]:1"));
    let all = listen("{addr: ':0', networks: ['::/0']}").expect("valid");
    assert!(allows(&all, "[fd00::1]:1") && allows(&all, "[::1]:1") && !allows(&all, "127.0.0.1:1"));
}

#[test]
fn case_59_the_longest_prefix_wins() {
    let spec = listen("{addr: ':0', networks: [10.0.0.0/8], denyNetworks: [10.1.0.0/16]}").expect("valid");
    for (peer, expected) in [
        ("10.0.0.1:1", true),
        ("10.1.0.1:1", false),
        ("[::ffff:10.0.0.1]:1", true),
        ("[::ffff:10.1.0.1]:1", false),
        ("192.0.2.1:1", false),
    ] {
        assert_eq!(allows(&spec, peer), expected, "{peer}");
    }
    refused(
        listen("{addr: ':0', networks: [10.0.0.0/8], denyNetworks: [10.0.0.0/8]}"),
        &["networks[0]: never let in: deny_networks[0] keeps out the same"],
    );
}

#[test]
fn case_61_ranges_have_ports_and_may_be_denied() {
    let spec = listen("{addr: ':0', networks: ['127.0.0.1/32:1234', '[fc00::/7]:8080-9090', 192.0.2.1]}")
        .expect("valid");
    for (peer, expected) in [
        ("127.0.0.1:1234", true),
        ("127.0.0.1:1235", false),
        ("[fc00::1]:8080", true),
        ("[fc00::1]:9091", false),
        ("192.0.2.1:5", true),
        ("192.0.2.2:5", false),
    ] {
        assert_eq!(allows(&spec, peer), expected, "{peer}");
    }
    let denied = listen("{addr: ':0', networks: [10.0.0.0/8], blacklist: true}").expect("valid");
    assert!(!allows(&denied, "10.0.0.1:1") && allows(&denied, "192.0.2.1:1"));
    refused(listen("{addr: ':0', networks: ['10.0.0.0/8:90-80']}"), &["ports 90 to 80 are reversed"]);
    refused(listen("{addr: ':0', networks: ['10.0.0.0/8:http']}"), &["is no port"]);
    refused(listen("{addr: ':0', networks: [':80']}"), &["has no address"]);
}

#[test]
fn case_62_d18_a_unix_listener_has_no_filter() {
    refused(
        listen("{addr: 'unix:///p', networks: [10.0.0.0/8]}"),
        &["networks: clients of a Unix socket have no address"],
    );
}

#[test]
fn case_63_64_d20_limits_are_as_written() {
    let limits = |yaml: &str| listen(yaml).expect("valid").limits();
    assert_eq!(limits("addr: ':0'").total, None);
    assert_eq!(limits("{addr: ':0', connectionLimit: 0}").total, None);
    assert_eq!(limits("{addr: ':0', connectionLimit: 5}").total, Some(5));
    assert_eq!(limits("{addr: ':0', connectionLimitPerAddress: 2}").per_address, Some(2));
    refused(listen("{addr: ':0', connectionLimit: -1}"), &["connection_limit: -1 is out of range"]);
}

#[test]
fn case_71_packet_sockets_have_networks_of_their_own() {
    assert!(packet("network: unixgram").is_ok() && packet("network: 'ip4:1'").is_ok());
    refused(packet("network: tcp"), &["network: tcp has no packets"]);
    refused(packet("network: ip4"), &["network: ip4 needs a protocol"]);
    refused(packet("network: sctp"), &["network: \"sctp\" is no network"]);
}

#[test]
fn case_87_what_a_config_may_not_say_is_told_with_its_path() {
    refused(
        listen("{addr: ':0', netwroks: []}"),
        &["f:1:14: unknown key \"netwroks\"; did you mean `networks`?"],
    );
    refused(
        listen("{addr: ':0', networks: [10.0.0.0/8], networks: []}"),
        &["f:1:38: networks: written twice, first in line 1"],
    );
    refused(
        listen("{addr: ':0', networks: [10.0.0.0/8, 10.0.0.0/8]}"),
        &["f:1:37: networks[1]: written twice, first as networks[0]"],
    );
}

#[test]
fn d9_every_option_can_be_off() {
    if is_elsewhere() {
        return;
    }
    let spec = listen_with(
        "soOption: {keepAlive: false, mark: 0, debug: false}, tcpOption: {noDelay: false, quickAck: false}",
    );
    let spec = spec.expect("valid");
    for opt in [Opt::SoKeepalive, Opt::SoDebug, Opt::TcpNodelay, Opt::TcpQuickack] {
        assert_eq!(option(&spec, opt), Some(Setting::Off), "{opt}");
    }
    assert_eq!(option(&spec, Opt::SoMark), Some(Setting::Off));
    assert_eq!(spec.keep_alive(), Some(KeepAlive::Off));
}

#[test]
fn d11_options_go_to_sockets_that_have_them() {
    let spec = dial("sockOption: {onUnsupported: warn, tcpOption: {noDelay: true}, udpOption: {gro: true}}");
    let spec = spec.expect("valid");
    let (options, _) = spec.socket_options(Target::tcp_dialled(Family::V6)).expect("skipped");
    assert!(options.is_on(Opt::TcpNodelay) && !options.is_on(Opt::UdpGro));
}

#[test]
fn d12_d13_numbers_are_not_booleans() {
    refused(
        listen_with("soOption: {incomingCPU: true}, tcpOption: {fastOpen: true}"),
        &["incoming_cpu: expected an integer", "fast_open: expected an integer"],
    );
}

#[test]
fn d23_d24_nothing_in_an_address_is_lost() {
    // A blank in a path stays.
    let spec = dial("replaceTargets: ['(tcp|a:1)  >  (unix|/run/a  b)']").expect("valid");
    assert_eq!(spec.replaced(&target("tcp://a:1")).to_string(), "unix:///run/a  b");
}

#[test]
fn tls_is_never_ignored() {
    let proxy = |text: &str| Spec::from_text(text, Format::Yaml, "f", Some(SpecKind::Proxy));
    let listener = "{listeners: [{name: a, listenConfig: {addr: ':1', tlsConfig: {certKeyPairs: [{certFile: a, keyFile: b}], nextProtos: [spdy/3]}}}],
        routes: [{pool: p}], pools: [{name: p, origins: [{address: 'a:1'}]}]}";
    refused(proxy(listener), &["next_protos[0]: a proxy does not speak \"spdy/3\", only h2, http/1.1"]);
    let shown = proxy(&listener.replace(", nextProtos: [spdy/3]", "")).expect("in order").effective();
    assert!(shown.contains("h2") && shown.contains("http/1.1"), "{shown}");
    // D26: enums by number, and what no peer could use.
    refused(dial("tlsConfig: {minVersion: 768}"), &["tls_config.min_version: TLS_VERSION_SSL3 is not safe"]);
    refused(
        listen(
            "{addr: ':0', tlsConfig: {certKeyPairs: [{certFile: a, keyFile: b}], clientAuth: -1, tlsCipher: [1]}}",
        ),
        &["tls_config.client_auth: unknown value -1", "tls_config.tls_ciphers[0]: TLS_RSA_WITH_3DES"],
    );
    refused(
        listen("{addr: 'unixpacket:///a', tlsConfig: {certKeyPairs: [{certFile: a, keyFile: b}]}}"),
        &["tls_config: unixpacket carries packets"],
    );
}

/// Configs of the design, as their users write them.
mod examples {
    use super::{Format, ListenSource, Opt, Spec, allows, int, on, option, target};

    fn spec(yaml: &str) -> Spec {
        Spec::from_text(yaml, Format::Yaml, "f", None).unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
    }

    #[test]
    fn a_unix_listener_and_a_replaced_target() {
        let Spec::Listen(listener) = spec(
            "listenConfig:\n  network: \"unix\"\n  addr: \"@gateway\"\n  # addr: \"/var/run/gateway.sock\"\n",
        ) else {
            panic!("no listener")
        };
        let ListenSource::Address(address) = listener.source() else { panic!("no address") };
        assert_eq!(address.to_string(), "unix://@gateway");
        let Spec::Dial(dialer) = spec(
            "dialConfig:\n  replaceTargets:\n    - \"(tcp|abstract.socket.com:80) > (unix|@hello)\"\n    - \"(tcp|pathname.socket.com:80) > (unix|/var/run/hello.sock)\"\n",
        ) else {
            panic!("no dialer")
        };
        assert_eq!(dialer.replaced(&target("tcp://abstract.socket.com:80")), &target("unix://@hello"));
        assert_eq!(
            dialer.replaced(&target("tcp://pathname.socket.com:80")),
            &target("unix:///var/run/hello.sock")
        );
    }

    #[test]
    fn deadlines_with_keep_alive_and_reuse() {
        let yaml = "listenConfig:\n  addr: \":8080\"\n  readDeadline: 100\n  writeDeadline: 100\n  sockOption:\n    soOption:\n      keepAlive: true\n      reuseAddr: true\n    ipOption:\n      # ttl: 50\n    tcpOption:\n      # noDelay: true\n";
        let Spec::Listen(listener) = spec(yaml) else { panic!("no listener") };
        let limit = Some(std::time::Duration::from_millis(100));
        assert_eq!((listener.deadlines().read, listener.deadlines().write), (limit, limit));
        assert_eq!((option(&listener, Opt::SoKeepalive), option(&listener, Opt::SoReuseaddr)), (on(), on()));
        assert_eq!(option(&listener, Opt::TcpKeepcnt), int(9));
    }

    #[test]
    fn an_allow_list() {
        let yaml = "listenConfig:\n  addr: \"tcp://:8080\"\n  connectionLimit: 10\n  networks:\n    - \"127.0.0.1/32:0-60900\"\n    - \"::1/128\"\n";
        let Spec::Listen(listener) = spec(yaml) else { panic!("no listener") };
        assert_eq!(listener.limits().total, Some(10));
        assert!(allows(&listener, "127.0.0.1:60900") && allows(&listener, "[::1]:60901"));
        assert!(!allows(&listener, "127.0.0.1:60901") && !allows(&listener, "192.0.2.1:1"));
    }
}
