//! What is refused before any system call, and in which words.

use std::time::Duration;

use ringport_platform::sockopt::{
    Family, Form, Kind, Opt, OptFault, OptSet, OptValue, Os, ReadBack, Role, Setting, Stage, Target, Unit,
    ValueError,
};

use super::rig::{opts_of, set_of};

#[test]
fn a_value_of_another_form_or_range_is_refused() {
    use ValueError::{BadName, CannotBeOff, NotWhole, OutOfRange, WrongForm};
    let check = |opt: Opt, setting: Setting, expected: ValueError, words: &str| {
        let mut set = OptSet::new();
        let fault = set.insert(opt, setting.clone()).unwrap_err();
        assert_eq!(fault, OptFault::Value { opt, given: setting, error: expected });
        assert_eq!(fault.to_string(), words);
        assert!(set.is_empty() && !fault.is_unsupported() && fault.opt() == opt);
    };
    let seconds = |count| Setting::from(Duration::from_secs(count));
    let ports = |low, high| Setting::Value(OptValue::Ports { low, high });
    let cpus = |cpus: &[u32]| Setting::Value(OptValue::Cpus(cpus.to_vec()));
    check(Opt::IpTtl, 256.into(), OutOfRange, "IP_TTL takes 1 to 255, not 256");
    check(Opt::IpTtl, 0.into(), OutOfRange, "IP_TTL takes 1 to 255, not 0");
    check(Opt::IpTtl, true.into(), WrongForm, "IP_TTL takes 1 to 255, not on");
    check(Opt::TcpKeepcnt, 128.into(), OutOfRange, "TCP_KEEPCNT takes 1 to 127, not 128");
    check(Opt::TcpMaxseg, 50.into(), OutOfRange, "TCP_MAXSEG takes 88 to 32767 bytes, not 50 bytes");
    check(Opt::SoMark, (-1).into(), OutOfRange, "SO_MARK takes 0 to 4294967295, not -1");
    let words = "TCP_KEEPIDLE takes 1 to 32767 s, whole s, not 32768s";
    check(Opt::TcpKeepidle, seconds(32_768), OutOfRange, words);
    let half = Setting::from(Duration::from_millis(1_500));
    check(Opt::TcpKeepidle, half, NotWhole, "TCP_KEEPIDLE takes 1 to 32767 s, whole s, not 1.5s");
    let words = "TCP_KEEPIDLE takes 1 to 32767 s, whole s, not 5";
    check(Opt::TcpKeepidle, 5.into(), WrongForm, &format!("{words} s"));
    let words = format!("SO_LINGER takes 0 to 2147483647 s, whole s, not {:?}", Duration::MAX);
    check(Opt::SoLinger, Setting::from(Duration::MAX), NotWhole, &words);
    check(
        Opt::SoLinger,
        seconds(u64::MAX),
        OutOfRange,
        &words.replace(".999999999", ".0").replace(".0s", "s"),
    );
    let words = "TCP_NODELAY takes on or off, not 1";
    check(Opt::TcpNodelay, 1.into(), WrongForm, words);
    for name in ["", "sixteen-bytes-xx", "a b", "a/b", "a\0b"] {
        let words = format!("SO_BINDTODEVICE takes a name of 1 to 15 bytes, not {name}");
        check(Opt::SoBindtodevice, name.into(), BadName, &words);
    }
    let words = "IP_MTU_DISCOVER takes one of dont, want, do, probe, interface, omit, not maybe";
    check(Opt::IpMtuDiscover, "maybe".into(), BadName, words);
    for (low, high) in [(40_003, 40_000), (0, 0), (2, 1)] {
        let words =
            format!("IP_LOCAL_PORT_RANGE takes ports low-high, 0 for the system's end, not {low}-{high}");
        check(Opt::IpLocalPortRange, ports(low, high), OutOfRange, &words);
    }
    let words = "SO_ATTACH_REUSEPORT_CBPF takes 1 to 1024 different cores, not ";
    check(Opt::SoAttachReuseportCbpf, cpus(&[]), OutOfRange, words);
    check(Opt::SoAttachReuseportCbpf, cpus(&[3, 1, 3]), OutOfRange, &format!("{words}3,1,3"));
    let many: Vec<u32> = (0..1_025).collect();
    assert!(OptSet::new().with(Opt::SoAttachReuseportCbpf, cpus(&many)).is_err());
    assert!(OptSet::new().with(Opt::SoAttachReuseportCbpf, cpus(&many[1..])).is_ok());
    let words = "SO_RCVBUF cannot be switched off; leave it out for the system's choice";
    check(Opt::SoRcvbuf, Setting::Off, CannotBeOff, words);
}

/// A form takes its own values alone.
#[test]
fn forms_describe_what_they_take() {
    let values = [
        OptValue::from(true),
        OptValue::from(1),
        OptValue::from(Duration::from_secs(1)),
        OptValue::from("want"),
        OptValue::Ports { low: 1, high: 2 },
        OptValue::Cpus(vec![0]),
    ];
    let forms = [
        (Form::Flag, Unit::None, 0, "on or off"),
        (Form::Int { min: 1, max: 2 }, Unit::Bytes, 1, "1 to 2 bytes"),
        (Form::Time { min: 1, max: 2 }, Unit::Milliseconds, 2, "1 to 2 ms, whole ms"),
        (Form::Time { min: 1, max: 2_000_000 }, Unit::Microseconds, 2, "1 to 2000000 us, whole us"),
        (Form::Name { max_len: 4 }, Unit::None, 3, "a name of 1 to 4 bytes"),
        (Form::Choice(&[("want", 1), ("do", 2)]), Unit::None, 3, "one of want, do"),
        (Form::Ports, Unit::None, 4, "ports low-high, 0 for the system's end"),
        (Form::Cpus { max_count: 1 }, Unit::Index, 5, "1 to 1 different cores"),
    ];
    for (form, unit, taken, words) in forms {
        assert_eq!(form.describe(unit), words);
        for (at, value) in values.iter().enumerate() {
            let expected = if at != taken {
                Err(ValueError::WrongForm)
            } else if unit == Unit::Milliseconds {
                Err(ValueError::OutOfRange)
            } else {
                Ok(())
            };
            assert_eq!(form.check(unit, value), expected, "{form:?} {value}");
        }
    }
    let words: Vec<String> = values.iter().map(OptValue::to_string).collect();
    assert_eq!(words, ["on", "1", "1s", "want", "1-2", "0"]);
    assert_eq!((OptValue::Flag(false).to_string(), Setting::Off.to_string()), ("off".into(), "off".into()));
}

#[test]
fn the_order_of_a_set_is_the_tables() {
    let mut set = set_of(&[
        (Opt::UdpGro, true.into()),
        (Opt::SoReuseport, true.into()),
        (Opt::IpTtl, 9.into()),
        (Opt::SoReuseport, false.into()),
    ]);
    let opts: Vec<_> = set.iter().map(|(opt, _)| opt).collect();
    assert_eq!(opts, [Opt::SoReuseport, Opt::IpTtl, Opt::UdpGro]);
    assert_eq!(set.find(Opt::SoReuseport), Some(&Setting::Off));
    // However "off" is said.
    let raw = set_of(&[(Opt::TcpCork, Setting::Value(OptValue::Flag(false)))]);
    assert_eq!(raw.find(Opt::TcpCork), Some(&Setting::Off));
    for (opt, setting) in [
        (Opt::SoMark, Setting::from(0)),
        (Opt::IpTos, 0.into()),
        (Opt::Ipv6MtuDiscover, "dont".into()),
        (Opt::TcpNodelay, OptValue::Flag(false).into()),
    ] {
        assert_eq!(set_of(&[(opt, setting)]).find(opt), Some(&Setting::Off), "{opt}");
    }
    // Not where zero is a value of its own.
    let linger = set_of(&[(Opt::SoLinger, Duration::ZERO.into())]);
    assert!(linger.is_on(Opt::SoLinger));
    assert!(!set.is_on(Opt::SoReuseport) && set.is_on(Opt::IpTtl) && !set.is_on(Opt::TcpCork));
    assert_eq!(set.remove(Opt::IpTtl), Some(Setting::from(9)));
    assert_eq!((set.remove(Opt::IpTtl), set.find(Opt::IpTtl)), (None, None));
    assert!(!set.is_empty());
    let timed =
        set_of(&[(Opt::SoRcvtimeo, Duration::from_millis(1_500).into()), (Opt::SoSndtimeo, Setting::Off)]);
    assert_eq!((timed.receive_timeout(), timed.send_timeout()), (Some(Duration::from_millis(1_500)), None));
    assert_eq!(set.receive_timeout(), None);
}

/// Each option on every sort of socket: refused, in the right words, where it would have no effect.
#[test]
fn options_of_another_family_kind_or_role_are_refused() {
    let unix = Target { family: Family::Unix, kind: Kind::Stream, role: Role::Listener };
    let raw6 = Target { family: Family::V6, kind: Kind::Raw, role: Role::Packet };
    let tcp4 = Target::tcp_listener(Family::V4);
    let tcp6 = Target::tcp_listener(Family::V6);
    let dialled4 = Target::tcp_dialled(Family::V4);
    let check = |opt: Opt, target: Target, words: Option<&str>| {
        let setting = sample(opt);
        let mut set = set_of(&[(opt, setting)]);
        if opt == Opt::SoAttachReuseportCbpf && target.family != Family::Unix {
            set.insert(Opt::SoReuseport, true).unwrap();
        }
        let faults = set.check(target);
        let said: Vec<String> = faults.iter().map(OptFault::to_string).collect();
        assert_eq!(said, words.into_iter().collect::<Vec<_>>(), "{opt} on {target}");
        let (fitting, left_out) = set.fitting(target);
        let unsupported: Vec<_> = faults.iter().filter(|fault| fault.is_unsupported()).cloned().collect();
        assert_eq!(left_out, unsupported, "{opt} on {target}");
        assert_eq!(fitting.find(opt).is_none(), !unsupported.is_empty(), "{opt} on {target}");
    };
    check(Opt::TcpNodelay, tcp4, None);
    check(
        Opt::TcpNodelay,
        Target::udp(Family::V4),
        Some("TCP_NODELAY has no effect on a udp4 packet socket"),
    );
    check(Opt::TcpNodelay, unix, Some("TCP_NODELAY has no effect on a unix listener"));
    check(Opt::UdpSegment, dialled4, Some("UDP_SEGMENT has no effect on a tcp4 dialled socket"));
    check(Opt::SoReuseport, unix, Some("SO_REUSEPORT has no effect on a unix listener"));
    check(Opt::IpTtl, tcp6, Some("IP_TTL has no effect on a tcp6 listener"));
    check(Opt::IpTtl, Target::tcp_listener(Family::Dual), None);
    check(Opt::Ipv6UnicastHops, tcp4, Some("IPV6_UNICAST_HOPS has no effect on a tcp4 listener"));
    check(Opt::Ipv6UnicastHops, raw6, None);
    check(Opt::Ipv6V6only, tcp4, Some("IPV6_V6ONLY has no effect on a tcp4 listener"));
    check(Opt::TcpFastopen, dialled4, Some("TCP_FASTOPEN has no meaning for a tcp4 dialled socket"));
    let words = "TCP_FASTOPEN_CONNECT has no meaning for a tcp4 listener";
    check(Opt::TcpFastopenConnect, tcp4, Some(words));
    let words = "TCP_FASTOPEN_CONNECT has no meaning for a tcp4 accepted socket";
    check(Opt::TcpFastopenConnect, tcp4.as_role(Role::Accepted), Some(words));
    let words = "SO_ATTACH_REUSEPORT_CBPF has no meaning for a tcp4 dialled socket";
    check(Opt::SoAttachReuseportCbpf, dialled4, Some(words));
    // No table of its own here: whatever has a stage is not refused, and the other way round.
    for target in every_target() {
        for opt in Opt::ALL.iter().filter(|opt| **opt != Opt::SoAttachReuseportCbpf) {
            let faults = set_of(&[(*opt, sample(*opt))]).check(target);
            let refused = faults.iter().any(|fault| !matches!(fault, OptFault::Conflict { .. }));
            if target.role != Role::Accepted
                && opt.row().accepted != ringport_platform::sockopt::Accepted::Again
            {
                assert_eq!(opt.stage_on(target).is_none(), refused, "{opt} on {target}");
            }
        }
    }
}

fn every_target() -> Vec<Target> {
    let mut targets = Vec::new();
    for family in [Family::V4, Family::V6, Family::Dual, Family::Unix] {
        for kind in [Kind::Stream, Kind::Datagram, Kind::Seqpacket, Kind::Raw] {
            for role in [Role::Listener, Role::Dialled, Role::Accepted, Role::Packet] {
                targets.push(Target { family, kind, role });
            }
        }
    }
    targets
}

/// A value that the option takes.
pub(super) fn sample(opt: Opt) -> Setting {
    match opt.row().form {
        Form::Flag => Setting::from(true),
        Form::Int { min, .. } => Setting::from(min.max(1)),
        Form::Time { .. } => Setting::from(Duration::from_secs(1)),
        Form::Name { .. } => Setting::from("lo"),
        Form::Choice(_) => Setting::from("do"),
        Form::Ports => Setting::Value(OptValue::Ports { low: 1, high: 2 }),
        Form::Cpus { .. } => Setting::Value(OptValue::Cpus(vec![0])),
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let tcp4 = Target::tcp_listener(Family::V4);
    let check = |settings: &[(Opt, Setting)], words: &[&str]| {
        let faults = set_of(settings).check(tcp4);
        let said: Vec<String> = faults.iter().map(OptFault::to_string).collect();
        assert_eq!(said, words);
        let mut conflicts = faults.iter().filter(|fault| matches!(fault, OptFault::Conflict { .. }));
        assert!(conflicts.all(|fault| !fault.is_unsupported()), "{words:?}");
    };
    let on = || Setting::from(true);
    let multipath =
        |name: &str| format!("{name} contradicts IPPROTO_MPTCP: a Multipath TCP socket does not take it");
    check(
        &[
            (Opt::IpprotoMptcp, on()),
            (Opt::IpTtl, 9.into()),
            (Opt::TcpSyncnt, 1.into()),
            (Opt::TcpNodelay, on()),
            // Of the connections alone, not of what listens.
            (Opt::TcpQuickack, on()),
        ],
        &[&multipath("IP_TTL"), &multipath("TCP_QUICKACK"), &multipath("TCP_SYNCNT")],
    );
    check(&[(Opt::IpprotoMptcp, Setting::Off), (Opt::IpTtl, 9.into())], &[]);
    let cpus = Setting::Value(OptValue::Cpus(vec![0]));
    let words =
        "SO_ATTACH_REUSEPORT_CBPF contradicts SO_REUSEPORT: it steers within a group, which that one makes";
    check(&[(Opt::SoAttachReuseportCbpf, cpus.clone())], &[words]);
    check(&[(Opt::SoAttachReuseportCbpf, cpus.clone()), (Opt::SoReuseport, Setting::Off)], &[words]);
    check(&[(Opt::SoAttachReuseportCbpf, cpus), (Opt::SoReuseport, on())], &[]);
    let second = || Setting::from(Duration::from_secs(1));
    check(
        &[(Opt::SoKeepalive, Setting::Off), (Opt::TcpKeepidle, second()), (Opt::TcpKeepcnt, 3.into())],
        &[
            "TCP_KEEPCNT contradicts SO_KEEPALIVE: that one is off, so no probe is sent",
            "TCP_KEEPIDLE contradicts SO_KEEPALIVE: that one is off, so no probe is sent",
        ],
    );
    check(&[(Opt::SoKeepalive, on()), (Opt::TcpKeepidle, second())], &[]);
    // All of them in one report.
    check(
        &[(Opt::IpprotoMptcp, on()), (Opt::IpTtl, 9.into()), (Opt::UdpGro, on())],
        &["UDP_GRO has no effect on a tcp4 listener", &multipath("IP_TTL")],
    );
}

/// With `IPV6_V6ONLY` a socket at `[::]` is IPv6's alone, so what is IPv4's has no effect on it.
#[test]
fn a_socket_of_ipv6_alone_has_no_ipv4_options() {
    let dual = Target::tcp_listener(Family::Dual);
    let mut set = set_of(&[(Opt::IpTtl, 9.into()), (Opt::Ipv6UnicastHops, 9.into())]);
    assert_eq!(opts_of(&set.check(dual)), []);
    set.insert(Opt::Ipv6V6only, true).unwrap();
    assert_eq!(opts_of(&set.check(dual)), [Opt::IpTtl]);
    let (fitting, left_out) = set.fitting(dual);
    assert_eq!((opts_of(&left_out), fitting.find(Opt::IpTtl)), (vec![Opt::IpTtl], None));
    assert!(fitting.check(dual).is_empty());
}

#[test]
fn windows_has_some_of_them() {
    let mut set = OptSet::new();
    for opt in Opt::ALL {
        set.insert(*opt, sample(*opt)).unwrap();
    }
    let missing: Vec<Opt> = set
        .check_on(Target::tcp_dialled(Family::V4), Os::Windows)
        .into_iter()
        .filter(|fault| matches!(fault, OptFault::WrongOs { .. }))
        .map(|fault| fault.opt())
        .collect();
    let there: Vec<&str> =
        Opt::ALL.iter().filter(|opt| !missing.contains(opt)).map(|opt| opt.name()).collect();
    let expected = [
        "SO_DEBUG",
        "SO_REUSEADDR",
        "SO_RCVBUF",
        "SO_SNDBUF",
        "SO_RCVTIMEO",
        "SO_SNDTIMEO",
        "SO_KEEPALIVE",
        "SO_LINGER",
        "IP_TTL",
        "IP_PKTINFO",
        "IP_RECVTOS",
        "IPV6_V6ONLY",
        "IPV6_UNICAST_HOPS",
        "IPV6_RECVPKTINFO",
        "IPV6_RECVTCLASS",
        "TCP_KEEPCNT",
        "TCP_KEEPIDLE",
        "TCP_KEEPINTVL",
        "TCP_NODELAY",
        "TCP_USER_TIMEOUT",
        "TCP_FASTOPEN",
        "UDP_SEGMENT",
        "UDP_GRO",
    ];
    assert_eq!(there, expected);
    let fault = OptFault::WrongOs { opt: Opt::SoMark, os: Os::Windows };
    assert_eq!(fault.to_string(), "SO_MARK does not exist on Windows");
    assert!(fault.is_unsupported() && fault.opt() == Opt::SoMark);
    assert_eq!((Os::HERE, Os::HERE.name()), (Os::Linux, "Linux"));
}

/// Windows has no number that says so.
#[test]
fn the_choice_of_windows_is_not_to_be_had_back() {
    let target = Target::tcp_dialled(Family::V4);
    let set = set_of(&[
        (Opt::IpTtl, Setting::Off),
        (Opt::TcpUserTimeout, Setting::Off),
        (Opt::SoLinger, Setting::Off),
    ]);
    let faults = set.check_on(target, Os::Windows);
    assert_eq!(opts_of(&faults), [Opt::IpTtl, Opt::TcpUserTimeout]);
    assert_eq!(faults[0].to_string(), "IP_TTL cannot be switched off; leave it out for the system's choice");
    assert!(set.check_on(target, Os::Linux).is_empty());
}

#[test]
fn stages_and_sorts_of_sockets_have_names() {
    let stages = [Stage::Socket, Stage::PreBind, Stage::PreConnect, Stage::Connected, Stage::Rearm];
    assert_eq!(stages.map(Stage::code), ["S0", "S1", "S2", "S3", "S4"]);
    assert!(stages.is_sorted());
    let read_back = [
        ReadBack::Equal,
        ReadBack::Doubled,
        ReadBack::Capped,
        ReadBack::Raised,
        ReadBack::Rounded,
        ReadBack::Transient,
        ReadBack::WriteOnly,
    ];
    let words = ["equal", "doubled", "capped", "raised", "rounded", "transient", "write-only"];
    assert_eq!(read_back.map(ReadBack::name), words);
    let names = [Kind::Stream, Kind::Datagram, Kind::Seqpacket, Kind::Raw].map(|kind| {
        [Family::V4, Family::V6, Family::Dual, Family::Unix]
            .map(|family| Target { family, kind, role: Role::Packet }.network())
    });
    assert_eq!(
        names,
        [
            ["tcp4", "tcp6", "tcp", "unix"],
            ["udp4", "udp6", "udp", "unixgram"],
            ["unixpacket"; 4],
            ["ip4", "ip6", "ip", "ip"],
        ]
    );
    let target = Target::tcp_listener(Family::V4);
    let said = [Role::Listener, Role::Dialled, Role::Accepted, Role::Packet]
        .map(|role| target.as_role(role).to_string());
    assert_eq!(said, ["tcp4 listener", "tcp4 dialled socket", "tcp4 accepted socket", "tcp4 packet socket"]);
}

#[test]
fn the_networks_of_an_option_are_named() {
    let check = |opt: Opt, networks: &[&str]| assert_eq!(opt.row().networks(), networks, "{opt}");
    check(Opt::TcpNodelay, &["tcp"]);
    check(Opt::UdpGro, &["udp"]);
    check(Opt::IpTtl, &["tcp4", "udp4", "ip4"]);
    check(Opt::Ipv6Recvtclass, &["udp6", "ip6"]);
    check(Opt::SoRcvbuf, &["tcp", "unix", "udp", "unixgram", "unixpacket", "ip"]);
}

/// The forms of setting that TCP carries over cost nothing on a connection; the rest is set there.
#[test]
fn the_stage_depends_on_the_socket() {
    let listener = Target::tcp_listener(Family::V4);
    let accepted = listener.as_role(Role::Accepted);
    let dialled = Target::tcp_dialled(Family::V4);
    let unix = Target { family: Family::Unix, ..listener };
    let check = |opt: Opt, target: Target, expected: Option<Stage>| {
        assert_eq!(opt.stage_on(target), expected, "{opt} on a {target}");
    };
    check(Opt::IpprotoMptcp, listener, Some(Stage::Socket));
    check(Opt::SoReuseport, listener, Some(Stage::PreBind));
    check(Opt::TcpDeferAccept, listener, Some(Stage::PreConnect));
    check(Opt::TcpDeferAccept, accepted, None);
    check(Opt::TcpNodelay, listener, Some(Stage::PreConnect));
    check(Opt::TcpNodelay, accepted, None);
    check(Opt::TcpNodelay, dialled, Some(Stage::PreConnect));
    check(Opt::TcpQuickack, listener, None);
    check(Opt::TcpQuickack, accepted, Some(Stage::Connected));
    check(Opt::TcpQuickack, dialled, Some(Stage::Connected));
    check(Opt::SoSndbuf, unix, Some(Stage::PreBind));
    check(Opt::SoSndbuf, unix.as_role(Role::Accepted), Some(Stage::Connected));
    check(Opt::SoRcvtimeo, Target::udp(Family::V6), Some(Stage::PreConnect));
    check(Opt::UdpGro, dialled, None);
    let set = set_of(&[(Opt::TcpQuickack, true.into()), (Opt::TcpNodelay, true.into())]);
    assert!(!set.has_stage(Stage::Rearm, listener) && !set.has_stage(Stage::Connected, listener));
    assert!(set.has_stage(Stage::Connected, accepted) && set.has_stage(Stage::Rearm, accepted));
    assert!(set.has_stage(Stage::Rearm, dialled));
    let off = set_of(&[(Opt::TcpQuickack, Setting::Off)]);
    assert!(off.has_stage(Stage::Connected, dialled) && !off.has_stage(Stage::Rearm, dialled));
}
