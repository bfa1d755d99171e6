//! Dial, listen and packet specs: what texts and builders become.

use std::path::PathBuf;
use std::time::Duration;

use ringport_platform::sockopt::{Family, Opt, OptSet, OptValue, Role, Setting, Target};

use crate::spec::{
    Address, Carries, ConnectionLimits, Deadlines, DialSpec, Format, IpProtocol, KeepAlive, LimitPolicy,
    ListenSockets, ListenSource, ListenSpec, Multicast, MulticastGroup, NetAddr, Network, OnUnsupported,
    OriginAddress, Owner, PacketSpec, PeerRules, ProxyProtocol, ProxyProtocolOut, ProxyProtocolVersion,
    Replacement, ResolverSpec, SockOptions, SpecErrors, UnixFile, raw,
};

fn dial(yaml: &str) -> DialSpec {
    DialSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
}

fn listen(yaml: &str) -> ListenSpec {
    ListenSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
}

fn packet(yaml: &str) -> PacketSpec {
    PacketSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
}

fn refused<T: std::fmt::Debug>(found: Result<T, SpecErrors>, parts: &[&str]) {
    let errors = found.expect_err("a fault").to_string();
    for part in parts {
        assert!(errors.contains(part), "{part:?} is not in\n{errors}");
    }
}

fn seconds(seconds: u64) -> Setting {
    Setting::Value(OptValue::Time(Duration::from_secs(seconds)))
}

fn on() -> Setting {
    Setting::Value(OptValue::Flag(true))
}

fn int(number: i64) -> Setting {
    Setting::Value(OptValue::Int(number))
}

fn host(network: Network, host: &str, port: u16) -> NetAddr<OriginAddress> {
    NetAddr::<OriginAddress>::new(network, OriginAddress::Host { host: host.into(), port })
        .expect("an address")
}

#[test]
fn networks_by_name_and_by_number() {
    for (name, carries) in [
        ("tcp", Carries::Stream),
        ("tcp4", Carries::Stream),
        ("tcp6", Carries::Stream),
        ("udp", Carries::Datagrams),
        ("udp4", Carries::Datagrams),
        ("udp6", Carries::Datagrams),
        ("ip:icmp", Carries::Packets),
        ("ip4:igmp", Carries::Packets),
        ("ip6:icmp6", Carries::Packets),
        ("ip:200", Carries::Packets),
        ("unix", Carries::Stream),
        ("unixgram", Carries::Datagrams),
        ("unixpacket", Carries::Sequence),
    ] {
        let network: Network = name.parse().expect(name);
        assert_eq!((network.to_string().as_str(), network.carries()), (name, carries));
        assert_eq!(network.is_tcp(), name.starts_with("tcp"));
        assert_eq!(network.is_unix(), name.starts_with("unix"));
        assert_eq!(network.has_ports(), name.starts_with("tcp") || name.starts_with("udp"));
    }
    assert_eq!("ip4:ICMP".parse(), Ok(Network::Ip4(IpProtocol(1))));
    for bad in ["", "tcp5", "ip", "ip4", "ip:", "ip:256", "ip:+1", "tcp:1", "TCP"] {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
    let by_number = |number: i32| {
        raw::NetworkType::try_from(number).map_err(|error| error.to_string()).and_then(Network::try_from)
    };
    let names =
        ["tcp", "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "", "", "", "unix", "unixgram", "unixpacket"];
    for (number, name) in (0..).zip(names) {
        let found = by_number(number).map(|network| network.to_string());
        if name.is_empty() {
            assert!(found.expect_err("no protocol").contains("needs a protocol"), "{number}");
        } else {
            assert_eq!(found.as_deref(), Ok(name), "{number}");
        }
    }
    assert!(by_number(13).is_err());
}

#[test]
fn addresses_with_their_networks() {
    for text in [
        "tcp://example.com:80",
        "tcp6://[2001:db8::1]:80",
        "udp4://192.0.2.1:53",
        "ip4:icmp://192.0.2.1",
        "ip6:icmp6://2001:db8::1",
        "ip:1://example.com",
        // A host that without its network would be a path.
        "udp4://unix:5",
        "unix:///run/my app.sock",
        "unixpacket://@name",
    ] {
        let address: NetAddr<OriginAddress> = text.parse().expect(text);
        let printed = address.to_string();
        assert_eq!(printed.parse().as_ref(), Ok(&address), "{text}");
        assert!(printed == text || text.starts_with("ip:1"), "{printed}");
    }
    for (text, part) in [
        ("example.com:80", "has no network"),
        ("tcp://example.com", "write host:port"),
        ("tcp4://[::1]:80", "no address of tcp4"),
        ("udp6://192.0.2.1:1", "no address of udp6"),
        ("tcp://unix:/run/a", "has no port"),
        ("ip4:icmp://2001:db8::1", "no address of ip4:icmp"),
        ("ip4:icmp://a b", "no host name"),
        ("unix://", "1 to 107 bytes"),
    ] {
        let error = text.parse::<NetAddr<OriginAddress>>().expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    for text in
        ["tcp4://192.0.2.1:80", "ip4:icmp://192.0.2.1", "unix:///run/a", "unixgram://@a", "udp://[::]:0"]
    {
        let address: NetAddr<Address> = text.parse().expect(text);
        assert_eq!(
            (address.to_string().as_str(), address.address().is_exclusive()),
            (text, text != "udp://[::]:0" && !text.starts_with("ip"))
        );
    }
    for (text, part) in [
        ("tcp://:80", "has no host"),
        ("tcp://unix:/a", "no address of tcp"),
        ("tcp6://192.0.2.1:80", "no address of tcp6"),
        ("ip4:icmp://", "is no IP address"),
        ("192.0.2.1:80", "has no network"),
    ] {
        let error = text.parse::<NetAddr<Address>>().expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    let inet = |text: &str| Address::Inet(text.parse().expect(text));
    assert!(NetAddr::<Address>::new(Network::Ip4(IpProtocol(1)), inet("192.0.2.1:1")).is_err());
    assert!(NetAddr::<Address>::new(Network::Tcp, Address::Unix("/a".into())).is_err());
    assert!(NetAddr::<Address>::new(Network::Unix, inet("192.0.2.1:1")).is_err());
    let origin = |port| OriginAddress::Host { host: "a".into(), port };
    for (network, address) in [
        (Network::Unix, origin(1)),
        (Network::Tcp, origin(0)),
        (Network::Ip(IpProtocol(1)), origin(1)),
        (Network::Tcp, OriginAddress::UnixAbstract(b"a".to_vec())),
    ] {
        assert!(NetAddr::<OriginAddress>::new(network, address.clone()).is_err(), "{network} {address}");
    }
}

#[test]
fn a_network_is_a_sort_of_socket() {
    let ip = |text: &str| Some(text.parse().expect("an address"));
    for (network, address, family) in [
        (Network::Tcp, None, Family::Dual),
        (Network::Tcp, ip("::"), Family::Dual),
        (Network::Tcp, ip("0.0.0.0"), Family::V4),
        (Network::Tcp, ip("::1"), Family::V6),
        (Network::Tcp6, ip("::"), Family::V6),
        (Network::Tcp4, None, Family::V4),
        (Network::Udp6, None, Family::V6),
        (Network::UnixGram, None, Family::Unix),
    ] {
        assert_eq!(network.target(Role::Dialled, address).family, family, "{network} {address:?}");
    }
}

#[test]
fn dialling_by_default() {
    let spec = dial("{}");
    assert_eq!(spec, DialSpec::default());
    assert_eq!(DialSpec::builder().build().as_ref(), Ok(&spec));
    assert_eq!((spec.timeout(), spec.fallback_delay()), (None, Some(Duration::from_millis(300))));
    assert_eq!((spec.local(), spec.proxy_protocol(), spec.replacements()), (None, None, &[][..]));
    assert_eq!((spec.resolver(), spec.keep_alive()), (&ResolverSpec::default(), KeepAlive::default()));
    let (options, skipped) = spec.socket_options(Target::tcp_dialled(Family::V4)).expect("they fit");
    let expected = [
        (Opt::SoKeepalive, on()),
        (Opt::TcpKeepcnt, int(9)),
        (Opt::TcpKeepidle, seconds(15)),
        (Opt::TcpKeepintvl, seconds(15)),
        (Opt::TcpNodelay, on()),
    ];
    assert!(options.iter().map(|(opt, setting)| (opt, setting.clone())).eq(expected), "{options:?}");
    assert_eq!(skipped, []);
    let unix = Network::Unix.target(Role::Dialled, None);
    assert!(spec.socket_options(unix).expect("they fit").0.is_empty());
}

#[test]
fn a_dial_config_in_full() {
    let yaml = r#"
localAddress: "192.0.2.1:0"
localNetwork: tcp4
replaceTargets: ["(tcp|App.internal:80) > (unix|/run/my app (1).sock)", "(udp4|a:1)>(udp|192.0.2.1:2)"]
timeout: 10s
fallbackDelay: -1
keepAliveConfig: { idle: 11, interval: -1, count: 5 }
sockOption: { soOption: { mark: 42, bindToDevice: eth0 }, tcpOption: { noDelay: false, userTimeout: "1.5s" } }
resolver: { timeout: 2s, attempts: 3, servers: [192.0.2.53, "[2001:db8::53]:5353"], search: [Example.COM.], ndots: 2, hostsFile: "", cacheEntries: 0, cacheMaxTtl: 1m }
proxyProtocol: v2
"#;
    let spec = dial(yaml);
    assert_eq!(spec.local().map(ToString::to_string).as_deref(), Some("tcp4://192.0.2.1:0"));
    let from = host(Network::Tcp, "app.internal", 80);
    let to = &spec.replacements()[0];
    assert_eq!((to.from(), to.to().to_string().as_str()), (&from, "unix:///run/my app (1).sock"));
    assert_eq!(spec.replaced(&from), to.to());
    assert_eq!((spec.timeout(), spec.fallback_delay()), (Some(Duration::from_secs(10)), None));
    let keep_alive = KeepAlive::On { idle: Some(Duration::from_secs(11)), interval: None, count: Some(5) };
    assert_eq!((spec.keep_alive(), spec.proxy_protocol()), (keep_alive, Some(ProxyProtocolOut::V2)));
    let resolver = ResolverSpec {
        timeout: Duration::from_secs(2),
        attempts: 3,
        servers: vec!["192.0.2.53:53".parse().expect("v4"), "[2001:db8::53]:5353".parse().expect("v6")],
        search: vec!["example.com".into()],
        ndots: Some(2),
        hosts_file: None,
        cache_entries: 0,
        cache_max_ttl: Duration::from_secs(60),
    };
    assert_eq!(spec.resolver(), &resolver);
    let (options, _) = spec.socket_options(Target::tcp_dialled(Family::V4)).expect("they fit");
    assert_eq!(options.find(Opt::TcpNodelay), Some(&Setting::Off));
    assert_eq!(options.find(Opt::TcpKeepidle), Some(&seconds(11)));
    assert_eq!(options.find(Opt::TcpKeepintvl), None);
    assert_eq!(spec.sock_options().set().find(Opt::SoMark), Some(&int(42)));
    // The builder makes the same.
    let set = spec.sock_options().set().clone();
    let built = DialSpec::builder()
        .local("tcp4://192.0.2.1:0".parse().expect("an address"))
        .replace(spec.replacements()[0].clone())
        .replace(spec.replacements()[1].clone())
        .timeout(Some(Duration::from_secs(10)))
        .fallback_delay(None)
        .keep_alive(keep_alive)
        .sock_options(SockOptions::new(set, OnUnsupported::Refuse))
        .resolver(resolver)
        .proxy_protocol(ProxyProtocolOut::V2)
        .build();
    assert_eq!(built, Ok(spec.clone()));
    assert_eq!(
        spec.clone()
            .into_builder()
            .proxy_protocol(ProxyProtocolOut::V1)
            .build()
            .expect("valid")
            .proxy_protocol(),
        Some(ProxyProtocolOut::V1)
    );
}

#[test]
fn what_a_dial_builder_refuses() {
    let builder = DialSpec::builder;
    refused(
        builder().timeout(Some(Duration::from_micros(1500))).build(),
        &["timeout: no text can hold this"],
    );
    refused(
        builder().timeout(Some(Duration::from_secs(26 * 24 * 3600))).build(),
        &["timeout: 2147483647 is out of range"],
    );
    let resolver = ResolverSpec { attempts: u32::MAX, ..ResolverSpec::default() };
    refused(builder().resolver(resolver).build(), &["resolver.attempts"]);
    let keep_alive = KeepAlive::On { idle: Some(Duration::from_millis(1500)), interval: None, count: None };
    refused(builder().keep_alive(keep_alive).build(), &["keep_alive_config: no text"]);
    let set = OptSet::new().with(Opt::SoRcvtimeo, Duration::from_micros(10)).expect("a timeout");
    refused(
        builder().sock_options(SockOptions::new(set, OnUnsupported::Warn)).build(),
        &["sock_option: no text"],
    );
    let path = NetAddr::of_stream(Address::Unix(PathBuf::from("@a")));
    refused(builder().local(path).build(), &["local_address: no text"]);
    let (a, b) = (host(Network::Tcp, "a", 1), host(Network::Udp, "a", 1));
    assert!(Replacement::new(a.clone(), a.clone()).is_err() && Replacement::new(a, b).is_err());
}

#[test]
fn listening_by_default() {
    for (yaml, address, family, v6_only) in [
        ("addr: ':80'", "tcp://[::]:80", Family::Dual, Some(Setting::Off)),
        ("addr: '[::]:80'", "tcp://[::]:80", Family::Dual, Some(Setting::Off)),
        ("addr: '127.0.0.1:80'", "tcp://127.0.0.1:80", Family::V4, None),
        ("{addr: ':0', network: tcp4}", "tcp4://0.0.0.0:0", Family::V4, None),
        ("addr: 'tcp6://:80'", "tcp6://[::]:80", Family::V6, Some(on())),
        ("addr: 'tcp://[::1]:80'", "tcp://[::1]:80", Family::V6, None),
        ("addr: 'unix:/run/a'", "unix:///run/a", Family::Unix, None),
        ("{addr: '@a', network: unixpacket}", "unixpacket://@a", Family::Unix, None),
    ] {
        let spec = listen(yaml);
        let ListenSource::Address(found) = spec.source() else { panic!("{yaml}: no address") };
        assert_eq!(found.to_string(), address, "{yaml}");
        let target = spec.target().expect("the address is known");
        assert_eq!(target.family, family, "{yaml}");
        let (options, _) = spec.socket_options(target).expect("they fit");
        assert_eq!(options.find(Opt::Ipv6V6only), v6_only.as_ref(), "{yaml}");
        let is_tcp = family != Family::Unix;
        assert_eq!(options.is_on(Opt::SoReuseaddr) && options.is_on(Opt::TcpNodelay), is_tcp, "{yaml}");
        assert_eq!(spec.keep_alive().is_some(), is_tcp, "{yaml}");
        assert_eq!(spec.sockets() == ListenSockets::PerCore, is_tcp, "{yaml}");
        assert_eq!(spec.unix_file().is_some(), yaml.contains("/run/a"), "{yaml}");
        assert_eq!(ListenSpec::builder(found.clone()).build().as_ref(), Ok(&spec), "{yaml}");
        assert_eq!((spec.backlog(), spec.limits()), (4_096, ConnectionLimits::default()));
        assert_eq!((spec.deadlines(), spec.proxy_protocol()), (Deadlines::default(), None));
    }
}

#[test]
fn a_listen_config_in_full() {
    let yaml = r#"
addr: ":8080"
connectionLimit: 100
connectionLimitPerAddress: 5
connectionLimitPolicy: reject
networks: [10.0.0.0/8, "[fc00::/7]:8080-9090"]
denyNetworks: [10.1.0.0/16]
readDeadline: 100
writeDeadline: -1
connectionDeadline: 1h
keepAliveConfig: { disable: true }
sockOption: { soOption: { reuseAddr: false, receiveTimeout: 100 }, tcpOption: { deferAccept: 5, fastOpen: 16 } }
backlog: 128
sockets: shared
proxyProtocol: { version: v1, timeout: 2s, trusted: [192.0.2.0/24], maxHeaderBytes: 512, maxPending: 64 }
"#;
    let spec = listen(yaml);
    let limits = ConnectionLimits { total: Some(100), per_address: Some(5), policy: LimitPolicy::Reject };
    let deadlines = Deadlines {
        read: Some(Duration::from_millis(100)),
        write: None,
        connection: Some(Duration::from_secs(3_600)),
    };
    let range = |text: &str| text.parse().expect("a range");
    let peers = PeerRules {
        allowed: vec![range("10.0.0.0/8"), range("[fc00::/7]:8080-9090")],
        denied: vec![range("10.1.0.0/16")],
    };
    let proxy_protocol = ProxyProtocol {
        version: ProxyProtocolVersion::V1,
        timeout: Duration::from_secs(2),
        trusted: vec![range("192.0.2.0/24")],
        max_header_bytes: 512,
        max_pending: 64,
    };
    assert_eq!((spec.limits(), spec.deadlines(), spec.peers()), (limits, deadlines, &peers));
    assert_eq!((spec.keep_alive(), spec.proxy_protocol()), (Some(KeepAlive::Off), Some(&proxy_protocol)));
    let (options, _) = spec.socket_options(spec.target().expect("an address")).expect("they fit");
    assert_eq!(options.find(Opt::SoKeepalive), Some(&Setting::Off));
    assert_eq!(options.find(Opt::SoReuseaddr), Some(&Setting::Off));
    assert_eq!((options.find(Opt::TcpFastopen), options.find(Opt::TcpKeepidle)), (Some(&int(16)), None));
    let ListenSource::Address(address) = spec.source() else { panic!("no address") };
    let built = ListenSpec::builder(address.clone())
        .limits(limits)
        .deadlines(deadlines)
        .peers(peers)
        .keep_alive(KeepAlive::Off)
        .sock_options(spec.sock_options().clone())
        .backlog(128)
        .sockets(ListenSockets::Shared)
        .proxy_protocol(proxy_protocol)
        .build();
    assert_eq!(built.as_ref(), Ok(&spec));
    assert_eq!(spec.clone().into_builder().build(), Ok(spec));
}

#[test]
fn listening_on_files_and_inherited_sockets() {
    let spec = listen(
        "{addr: 'unix:///run/a', unix: {mode: '0660', owner: '33', group: www-data, replaceStale: false, remove: false}}",
    );
    let file = UnixFile {
        mode: Some(0o660),
        owner: Some(Owner::Id(33)),
        group: Some(Owner::Name("www-data".into())),
        replace_stale: false,
        remove: false,
    };
    assert_eq!(spec.unix_file(), Some(&file));
    let ListenSource::Address(address) = spec.source() else { panic!("no address") };
    let builder = ListenSpec::builder(address.clone()).unix_file(file);
    assert_eq!(builder.clone().build(), Ok(spec));
    refused(builder.sockets(ListenSockets::PerCore).build(), &["sockets: a Unix address has one socket"]);
    refused(
        ListenSpec::builder(NetAddr::of_stream(Address::Unix("@a".into()))).build(),
        &["addr: no text can hold this"],
    );

    let spec = listen("inherited: web");
    assert_eq!(spec.source(), &ListenSource::Inherited("web".into()));
    assert_eq!((spec.target(), spec.keep_alive()), (None, None));
    assert_eq!(ListenSpec::inherited("web").build().as_ref(), Ok(&spec));
    // What it turns out to be decides on the defaults.
    let (options, _) = spec.socket_options(Target::tcp_listener(Family::V4)).expect("they fit");
    assert!(options.is_on(Opt::SoKeepalive) && options.is_on(Opt::TcpNodelay));
    let (options, _) = spec.socket_options(Network::Unix.target(Role::Listener, None)).expect("they fit");
    assert!(options.is_empty());
    refused(ListenSpec::inherited("a b").build(), &["inherited: \"a b\" is no name"]);
    // Filters see the client that the header names, so a Unix socket may have them then.
    let unix = listen(
        "{addr: 'unix://@a', networks: [10.0.0.0/8], connectionLimitPerAddress: 1, proxyProtocol: {}}",
    );
    assert_eq!(unix.proxy_protocol(), Some(&ProxyProtocol::new([])));
}

#[test]
fn keep_alive_and_options_agree() {
    let keep_alive = |yaml: &str| listen(&format!("{{addr: ':80', {yaml}}}")).keep_alive();
    let on = |idle: u64, count| {
        let span = |seconds| Some(Duration::from_secs(seconds));
        Some(KeepAlive::On { idle: span(idle), interval: span(15), count: Some(count) })
    };
    assert_eq!(keep_alive("sockOption: {tcpOption: {keepIdle: 7}}"), on(7, 9));
    assert_eq!(
        keep_alive("keepAliveConfig: {idle: 7}, sockOption: {tcpOption: {keepIdle: 7, keepCount: 3}}"),
        on(7, 3)
    );
    assert_eq!(keep_alive("sockOption: {soOption: {keepAlive: false}}"), Some(KeepAlive::Off));
    let fault = |yaml: &str, parts: &[&str]| {
        refused(ListenSpec::from_text(&format!("{{addr: ':80', {yaml}}}"), Format::Yaml, "f"), parts);
    };
    fault(
        "keepAliveConfig: {idle: 7}, sockOption: {tcpOption: {keepIdle: 8}}",
        &["keep_alive_config.idle: TCP_KEEPIDLE of sock_option says otherwise"],
    );
    fault(
        "keepAliveConfig: {disable: true}, sockOption: {tcpOption: {keepIdle: 8}}",
        &["keep_alive_config.disable: keep-alive is disabled, and TCP_KEEPIDLE is set"],
    );
    fault(
        "sockOption: {soOption: {keepAlive: false}, tcpOption: {keepIdle: 8}}",
        &["TCP_KEEPIDLE contradicts SO_KEEPALIVE"],
    );
    fault(
        "keepAliveConfig: {disable: false}, sockOption: {soOption: {keepAlive: false}}",
        &["says otherwise"],
    );
}

#[test]
fn an_option_that_is_not_supported_is_skipped_where_the_spec_says_so() {
    let yaml = "{addr: 'unix:///run/a', keepAliveConfig: {}, sockOption: {onUnsupported: warn, tcpOption: {noDelay: true}, soOption: {sendBuffer: 64KiB}}}";
    let spec = listen(yaml);
    let (options, skipped) =
        spec.socket_options(spec.target().expect("an address")).expect("they may be skipped");
    assert_eq!(options.find(Opt::SoSndbuf), Some(&int(65_536)));
    assert!(options.find(Opt::TcpNodelay).is_none() && options.find(Opt::SoKeepalive).is_none());
    let names: Vec<_> = skipped.iter().map(|fault| fault.opt().name()).collect();
    assert!(names.contains(&"TCP_NODELAY") && names.contains(&"SO_KEEPALIVE"), "{names:?}");
    refused(
        ListenSpec::from_text(&yaml.replace("warn", "refuse"), Format::Yaml, "f"),
        &["only TCP has keep-alive", "tcp_option.no_delay: TCP_NODELAY has no effect on a unix listener"],
    );
    // A role without the option is a mistake everywhere.
    refused(
        ListenSpec::from_text(
            "{addr: ':80', sockOption: {onUnsupported: warn, tcpOption: {fastOpenConnect: true}}}",
            Format::Yaml,
            "f",
        ),
        &["has no meaning"],
    );
    // A dialler of mixed targets is judged at each.
    let dialler = dial("sockOption: {tcpOption: {userTimeout: 5s}, udpOption: {gro: true}}");
    let faults = dialler.socket_options(Target::tcp_dialled(Family::V4)).expect_err("no UDP");
    assert_eq!(faults.len(), 1, "{faults:?}");
    let dialler =
        dial("sockOption: {onUnsupported: warn, tcpOption: {userTimeout: 5s}, udpOption: {gro: true}}");
    let (options, skipped) =
        dialler.socket_options(Target::tcp_dialled(Family::V4)).expect("it may be skipped");
    assert!(options.is_on(Opt::TcpUserTimeout) && skipped.len() == 1);
}

#[test]
fn packet_sockets() {
    let spec = packet("{}");
    assert_eq!(PacketSpec::builder(Network::Udp).build().as_ref(), Ok(&spec));
    assert_eq!(spec.local().map(ToString::to_string).as_deref(), Some("udp://[::]:0"));
    assert_eq!((spec.network(), spec.batch(), spec.receives_ecn()), (Network::Udp, 64, false));
    assert_eq!((spec.peer(), spec.multicast(), spec.unix_file()), (None, &Multicast::default(), None));
    assert_eq!(spec.target(), Target::udp(Family::Dual));
    for (yaml, local) in [
        ("address: 'udp6://:53'", "udp6://[::]:53"),
        ("network: 'ip4:icmp'", "ip4:icmp://0.0.0.0"),
        ("network: 'ip:1'", "ip:icmp://0.0.0.0"),
        ("network: 'ip6:58'", "ip6:icmp6://::"),
        ("{network: 'ip6:58', address: '[2001:db8::1]'}", "ip6:icmp6://2001:db8::1"),
    ] {
        assert_eq!(packet(yaml).local().map(ToString::to_string).as_deref(), Some(local), "{yaml}");
    }
    assert_eq!(packet("network: unixgram").local(), None);

    let yaml = r#"
network: udp4
address: ":5353"
peer: "Example.com:53"
batch: 8
receiveECN: true
multicastGroups: [{ group: 239.1.2.3, interface: eth0, source: 192.0.2.1 }, { group: 224.0.0.251 }]
multicastHops: 0
multicastLoop: false
sockOption: { udpOption: { segment: 1000, gro: true }, ipOption: { pktInfo: true } }
"#;
    let spec = packet(yaml);
    let groups = vec![
        MulticastGroup {
            group: "239.1.2.3".parse().expect("an address"),
            interface: Some("eth0".into()),
            source: Some("192.0.2.1".parse().expect("an address")),
        },
        MulticastGroup { group: "224.0.0.251".parse().expect("an address"), interface: None, source: None },
    ];
    let multicast = Multicast { groups, hops: 0, is_heard_here: false };
    assert_eq!(spec.multicast(), &multicast);
    assert_eq!(spec.target().role, Role::Dialled);
    assert_eq!(spec.socket_options().expect("they fit").0.find(Opt::UdpSegment), Some(&int(1_000)));
    let built = PacketSpec::builder(Network::Udp4)
        .local("udp4://0.0.0.0:5353".parse().expect("an address"))
        .peer(host(Network::Udp4, "example.com", 53))
        .batch(8)
        .receive_ecn(true)
        .multicast(multicast)
        .sock_options(spec.sock_options().clone())
        .build();
    assert_eq!(built.as_ref(), Ok(&spec));
    assert_eq!(spec.clone().into_builder().build(), Ok(spec));

    let unix = PacketSpec::builder(Network::UnixGram)
        .local("unixgram:///run/a".parse().expect("an address"))
        .unix_file(UnixFile { mode: Some(0o600), ..UnixFile::default() });
    assert_eq!(unix.build().expect("valid").unix_file().and_then(|file| file.mode), Some(0o600));
    let multicast = Multicast { hops: 3, ..Multicast::default() };
    refused(
        PacketSpec::builder(Network::UnixGram).multicast(multicast).receive_ecn(true).build(),
        &["no multicast", "no ECN"],
    );
    refused(PacketSpec::builder(Network::Unix).build(), &["network: unix has no packets"]);
}

/// Every field of the schema's option groups is an option of the table, and the other way round.
#[test]
fn fields_and_options_are_the_same() {
    let mut fields = std::collections::BTreeSet::new();
    for group in raw::descriptor::<raw::SockOption>().fields() {
        let prost_reflect::Kind::Message(options) = group.kind() else { continue };
        for field in options.fields() {
            let path = format!("{}.{}", group.json_name(), field.json_name());
            assert!(Opt::by_field(&path).is_some(), "{path} is no option");
            fields.insert(path);
        }
    }
    for path in Opt::ALL.iter().flat_map(|opt| opt.row().fields) {
        assert!(fields.contains(*path), "{path} is no field");
    }
}

/// Off, the least and the greatest of every option come back from the message as they were.
#[test]
fn every_option_survives_its_message() {
    use ringport_platform::sockopt::Form;
    for opt in Opt::ALL.iter().copied() {
        let row = opt.row();
        let unit = Duration::from_micros(match row.unit {
            ringport_platform::sockopt::Unit::Microseconds => 1,
            ringport_platform::sockopt::Unit::Milliseconds => 1_000,
            _ => 1_000_000,
        });
        // A field may count in larger units than its option.
        let fine = matches!(opt, Opt::SoRcvtimeo | Opt::SoSndtimeo);
        let time = |count: i64| {
            let count =
                u32::try_from(if fine { (count / 1_000).max(1) * 1_000 } else { count }).unwrap_or(u32::MAX);
            OptValue::Time(unit * count)
        };
        let values = match row.form {
            Form::Flag => vec![OptValue::Flag(true)],
            Form::Int { min, max } => vec![OptValue::Int(min), OptValue::Int(max)],
            Form::Time { min, max } => vec![time(min), time(max.min(i64::from(u32::MAX) / 1_000 * 1_000))],
            Form::Name { .. } => vec![OptValue::Name("a-name".into())],
            Form::Choice(names) => names.iter().map(|(name, _)| OptValue::Name((*name).into())).collect(),
            Form::Ports => {
                vec![OptValue::Ports { low: 1, high: 2 }, OptValue::Ports { low: 40_000, high: 0 }]
            }
            Form::Cpus { .. } => vec![OptValue::Cpus(vec![3, 1])],
        };
        let settings = values.into_iter().map(Setting::Value).chain([Setting::Off]);
        for setting in settings {
            let mut set = OptSet::new();
            if set.insert(opt, setting.clone()).is_err() {
                assert_eq!(
                    (setting, row.off),
                    (Setting::Off, ringport_platform::sockopt::Off::Never),
                    "{opt}"
                );
                continue;
            }
            if opt == Opt::SoAttachReuseportCbpf {
                set.insert(Opt::SoReuseport, true).expect("a flag");
            }
            let options = SockOptions::new(set, OnUnsupported::Warn);
            let raw = options.to_raw();
            let again =
                SockOptions::try_from(&raw).unwrap_or_else(|errors| panic!("{opt} {setting}: {errors}"));
            assert_eq!(again, options, "{opt} {setting}");
        }
    }
}
