//! Every option set and read back: by our getter, by the report, and past both by the numbers of Linux's headers.

use std::os::fd::AsFd;
use std::time::Duration;

use ringport_platform::sockopt::{
    self, Family, Form, Kind, Opt, OptSet, OptValue, Outcome, Role, Setting, Target, Unit,
};

use super::rig::{open, privileged, raw_int, set_of, sysctl};

const L4: Target = Target::tcp_listener(Family::V4);
const L6: Target = Target::tcp_listener(Family::V6);
const DUAL: Target = Target::tcp_listener(Family::Dual);
const D4: Target = Target::tcp_dialled(Family::V4);
const D6: Target = Target::tcp_dialled(Family::V6);
const U4: Target = Target::udp(Family::V4);
const U6: Target = Target::udp(Family::V6);
const UDUAL: Target = Target::udp(Family::Dual);
const UNIX: Target = Target { family: Family::Unix, kind: Kind::Stream, role: Role::Listener };
const UNIXGRAM: Target = Target { family: Family::Unix, kind: Kind::Datagram, role: Role::Packet };
const UNIXPACKET: Target = Target { family: Family::Unix, kind: Kind::Seqpacket, role: Role::Dialled };

/// Sockets, option, setting; level, number and what getsockopt(2) then gives; how the report calls that.
type Case = (&'static [Target], Opt, Setting, (i32, i32), i64, Outcome);

fn int(number: i64) -> Setting {
    Setting::from(number)
}

fn seconds(count: u64) -> Setting {
    Setting::from(Duration::from_secs(count))
}

fn millis(count: u64) -> Setting {
    Setting::from(Duration::from_millis(count))
}

fn on() -> Setting {
    Setting::from(true)
}

fn ports(low: u16, high: u16) -> Setting {
    Setting::Value(OptValue::Ports { low, high })
}

fn check(cases: Vec<Case>) {
    for (targets, opt, setting, (level, number), held, outcome) in cases {
        for target in targets {
            let what = format!("{opt} = {setting} on a {target}");
            let set = set_of(&[(opt, setting.clone())]);
            let opened = open(*target, &set).unwrap_or_else(|error| panic!("{what}: {error}"));
            let fd = opened.fd.as_fd();
            let report = opened.applied.iter().find(|effective| effective.opt == opt).expect(&what);
            assert_eq!(i64::from(raw_int(fd, level, number)), held, "{what}: {report}");
            assert_eq!(report.outcome, outcome, "{what}: {report}");
            assert_eq!(Some(&report.asked), set.find(opt), "{what}");
            assert_eq!(report.held, Some(sockopt::get(fd, opt).expect(&what)), "{what}");
            if outcome == Outcome::AsAsked && !matches!(opt.row().off, sockopt::Off::System(_)) {
                assert_eq!(report.held.as_ref(), set.find(opt), "{what}");
            }
            assert_eq!(
                report.is_surprising(),
                !matches!(outcome, Outcome::AsAsked | Outcome::Doubled),
                "{what}"
            );
        }
    }
}

#[test]
fn socket_level_options_are_held() {
    use Outcome::{AsAsked, Doubled, Lowered, Raised};
    let rmem_max = sysctl("net/core/rmem_max");
    let wmem_max = sysctl("net/core/wmem_max");
    let big = 64 << 20;
    assert!(rmem_max < big && wmem_max < big, "the kernel's limits are too wide for this test");
    let lo = 1;
    let mut cases: Vec<Case> = vec![
        (&[L4, D6, U4], Opt::SoBindtoifindex, int(lo), (1, 62), lo, AsAsked),
        (&[L4], Opt::SoBindtoifindex, Setting::Off, (1, 62), 0, AsAsked),
        (&[L4, DUAL, U4], Opt::SoIncomingCpu, int(1), (1, 49), 1, AsAsked),
        (&[L4], Opt::SoIncomingCpu, int(0), (1, 49), 0, AsAsked),
        (&[L4], Opt::SoIncomingCpu, Setting::Off, (1, 49), -1, AsAsked),
        (&[L4, L6, D4, U4, U6], Opt::SoReuseaddr, on(), (1, 2), 1, AsAsked),
        (&[L4], Opt::SoReuseaddr, Setting::Off, (1, 2), 0, AsAsked),
        (&[L4, D6, U4, U6], Opt::SoReuseport, on(), (1, 15), 1, AsAsked),
        (&[L4, D4, U4, UNIX, UNIXPACKET], Opt::SoRcvbuf, int(5_000), (1, 8), 10_000, Doubled),
        (&[L4, UNIXGRAM], Opt::SoRcvbuf, int(1), (1, 8), 2_304, Raised),
        (&[L4, D4], Opt::SoRcvbuf, int(big), (1, 8), 2 * rmem_max, Lowered),
        (&[L4, D4, UNIX], Opt::SoSndbuf, int(20_000), (1, 7), 40_000, Doubled),
        (&[L4], Opt::SoSndbuf, int(1), (1, 7), 4_608, Raised),
        (&[L4], Opt::SoSndbuf, int(big), (1, 7), 2 * wmem_max, Lowered),
        (&[L4, D4, U6], Opt::SoPriority, int(6), (1, 12), 6, AsAsked),
        (&[L4], Opt::SoPriority, Setting::Off, (1, 12), 0, AsAsked),
        (&[L4], Opt::SoPriority, int(0), (1, 12), 0, AsAsked),
        (&[L4, D6], Opt::SoTxrehash, on(), (1, 74), 1, AsAsked),
        (&[L4], Opt::SoTxrehash, Setting::Off, (1, 74), 0, AsAsked),
        (&[L4, D4], Opt::SoKeepalive, on(), (1, 9), 1, AsAsked),
        (&[L4], Opt::SoKeepalive, Setting::Off, (1, 9), 0, AsAsked),
    ];
    if privileged("options of CAP_NET_ADMIN") {
        cases.extend([
            (&[L4, U4, UNIX][..], Opt::SoDebug, on(), (1, 1), 1, AsAsked),
            (&[L4], Opt::SoDebug, Setting::Off, (1, 1), 0, AsAsked),
            (&[L4, D6, U4], Opt::SoMark, int(42), (1, 36), 42, AsAsked),
            (&[L4], Opt::SoMark, int(i64::from(u32::MAX)), (1, 36), -1, AsAsked),
            (&[L4], Opt::SoMark, Setting::Off, (1, 36), 0, AsAsked),
            (&[L4], Opt::SoMark, int(0), (1, 36), 0, AsAsked),
            (&[L4, D4, UNIX], Opt::SoRcvbufforce, int(big), (1, 8), 2 * big, Doubled),
            (&[L4], Opt::SoRcvbufforce, int((1 << 30) - 1), (1, 8), (1 << 31) - 2, Doubled),
            (&[L4, D4, UNIX], Opt::SoSndbufforce, int(big), (1, 7), 2 * big, Doubled),
            (&[L4], Opt::SoPriority, int(7), (1, 12), 7, AsAsked),
            (&[L4, U4], Opt::SoBusyPoll, Setting::from(Duration::from_micros(50)), (1, 46), 50, AsAsked),
            (&[L4], Opt::SoBusyPoll, Setting::Off, (1, 46), 0, AsAsked),
            (&[L4, U4], Opt::SoPreferBusyPoll, on(), (1, 69), 1, AsAsked),
        ]);
    }
    check(cases);
}

#[test]
fn ip_options_are_held_by_their_families() {
    use Outcome::{AsAsked, Lowered};
    let hops = sysctl("net/ipv4/ip_default_ttl");
    let range = |low: u32, high: u32| i64::from((high << 16 | low).cast_signed());
    let lo = i64::from(1u32.to_be().cast_signed());
    let mut cases: Vec<Case> = vec![
        (&[L4, D4, D6, U4, UDUAL], Opt::IpBindAddressNoPort, on(), (0, 24), 1, AsAsked),
        (&[L4, L6, DUAL, D4, U6], Opt::IpFreebind, on(), (0, 15), 1, AsAsked),
        (&[L4], Opt::IpFreebind, Setting::Off, (0, 15), 0, AsAsked),
        (
            &[L4, L6, D6, U4],
            Opt::IpLocalPortRange,
            ports(40_000, 50_000),
            (0, 51),
            range(40_000, 50_000),
            AsAsked,
        ),
        (&[D4], Opt::IpLocalPortRange, ports(40_000, 0), (0, 51), range(40_000, 0), AsAsked),
        (&[D4], Opt::IpLocalPortRange, ports(0, 60_999), (0, 51), range(0, 60_999), AsAsked),
        (&[D4], Opt::IpLocalPortRange, ports(1, 1), (0, 51), range(1, 1), AsAsked),
        (&[D4], Opt::IpLocalPortRange, ports(65_535, 65_535), (0, 51), range(65_535, 65_535), AsAsked),
        (&[D4], Opt::IpLocalPortRange, Setting::Off, (0, 51), 0, AsAsked),
        (&[L4, DUAL, D4, U4, UDUAL], Opt::IpTtl, int(42), (0, 2), 42, AsAsked),
        (&[L4], Opt::IpTtl, int(1), (0, 2), 1, AsAsked),
        (&[L4], Opt::IpTtl, int(255), (0, 2), 255, AsAsked),
        (&[L4], Opt::IpTtl, Setting::Off, (0, 2), hops, AsAsked),
        (&[L4, DUAL, D4, U4], Opt::IpTos, int(0xb8), (0, 1), 0xb8, AsAsked),
        (&[D4], Opt::IpTos, int(255), (0, 1), 252, Lowered),
        (&[U4], Opt::IpTos, int(255), (0, 1), 255, AsAsked),
        (&[L4], Opt::IpTos, Setting::Off, (0, 1), 0, AsAsked),
        (&[L4, U4], Opt::IpTos, int(0), (0, 1), 0, AsAsked),
        (&[U4, UDUAL], Opt::IpUnicastIf, "lo".into(), (0, 50), lo, AsAsked),
        (&[U4], Opt::IpUnicastIf, Setting::Off, (0, 50), 0, AsAsked),
        (&[U4, UDUAL], Opt::IpPktinfo, on(), (0, 8), 1, AsAsked),
        (&[U4, UDUAL], Opt::IpRecvorigdstaddr, on(), (0, 20), 1, AsAsked),
        (&[U4, UDUAL], Opt::IpRecvtos, on(), (0, 13), 1, AsAsked),
        (&[L6, DUAL, D6, U6], Opt::Ipv6V6only, on(), (41, 26), 1, AsAsked),
        (&[DUAL, UDUAL], Opt::Ipv6V6only, Setting::Off, (41, 26), 0, AsAsked),
        (&[L6, DUAL, D6, U6], Opt::Ipv6UnicastHops, int(42), (41, 16), 42, AsAsked),
        (&[L6], Opt::Ipv6UnicastHops, int(1), (41, 16), 1, AsAsked),
        (&[L6], Opt::Ipv6UnicastHops, int(255), (41, 16), 255, AsAsked),
        (
            &[L6],
            Opt::Ipv6UnicastHops,
            Setting::Off,
            (41, 16),
            sysctl("net/ipv6/conf/default/hop_limit"),
            AsAsked,
        ),
        (&[L6, DUAL, D6, U6], Opt::Ipv6Freebind, on(), (41, 78), 1, AsAsked),
        (&[L6, D6, UDUAL], Opt::Ipv6Tclass, int(0xb8), (41, 67), 0xb8, AsAsked),
        (&[D6], Opt::Ipv6Tclass, int(255), (41, 67), 252, Lowered),
        (&[U6], Opt::Ipv6Tclass, int(255), (41, 67), 255, AsAsked),
        (&[U6, UDUAL], Opt::Ipv6UnicastIf, "lo".into(), (41, 76), lo, AsAsked),
        (&[U6, UDUAL], Opt::Ipv6Recvpktinfo, on(), (41, 49), 1, AsAsked),
        (&[U6, UDUAL], Opt::Ipv6Recvorigdstaddr, on(), (41, 74), 1, AsAsked),
        (&[U6, UDUAL], Opt::Ipv6Recvtclass, on(), (41, 66), 1, AsAsked),
    ];
    for (name, number) in [("dont", 0), ("want", 1), ("do", 2), ("probe", 3), ("interface", 4), ("omit", 5)] {
        cases.push((&[L4, DUAL, D4, U4], Opt::IpMtuDiscover, name.into(), (0, 10), number, AsAsked));
        cases.push((&[L6, DUAL, D6, U6], Opt::Ipv6MtuDiscover, name.into(), (41, 23), number, AsAsked));
    }
    if privileged("transparent sockets") {
        cases.push((&[L4, L6, DUAL, D4, U4, U6], Opt::IpTransparent, on(), (0, 19), 1, AsAsked));
        cases.push((&[L6, DUAL, D6, U6], Opt::Ipv6Transparent, on(), (41, 75), 1, AsAsked));
    }
    check(cases);
}

#[test]
fn tcp_and_udp_options_are_held() {
    use Outcome::{AsAsked, Lowered, Raised};
    let max = i64::from(i32::MAX);
    let longest = Setting::from(Duration::from_millis(i32::MAX.unsigned_abs().into()));
    check(vec![
        (&[L4, L6, D4], Opt::TcpCork, on(), (6, 3), 1, AsAsked),
        (&[L4, D4], Opt::TcpCork, Setting::Off, (6, 3), 0, AsAsked),
        (&[L4], Opt::TcpDeferAccept, seconds(1), (6, 9), 1, AsAsked),
        (&[L4, L6, D4], Opt::TcpDeferAccept, seconds(5), (6, 9), 7, Raised),
        (&[L4], Opt::TcpDeferAccept, seconds(10), (6, 9), 15, Raised),
        (&[L4], Opt::TcpDeferAccept, seconds(20), (6, 9), 31, Raised),
        (&[L4], Opt::TcpDeferAccept, seconds(31), (6, 9), 31, AsAsked),
        (&[L4], Opt::TcpDeferAccept, seconds(60), (6, 9), 63, Raised),
        (&[L4], Opt::TcpDeferAccept, seconds(1 << 30), (6, 9), 29_887, Lowered),
        (&[L4], Opt::TcpDeferAccept, Setting::Off, (6, 9), 0, AsAsked),
        (&[L4, D4, D6], Opt::TcpKeepcnt, int(5), (6, 6), 5, AsAsked),
        (&[L4], Opt::TcpKeepcnt, int(127), (6, 6), 127, AsAsked),
        (&[L4, D4, D6], Opt::TcpKeepidle, seconds(11), (6, 4), 11, AsAsked),
        (&[L4], Opt::TcpKeepidle, seconds(32_767), (6, 4), 32_767, AsAsked),
        (&[L4, D4, D6], Opt::TcpKeepintvl, seconds(12), (6, 5), 12, AsAsked),
        (&[L4], Opt::TcpKeepintvl, seconds(32_767), (6, 5), 32_767, AsAsked),
        // The Go original wrote a `struct linger` here, so every value became one second.
        (&[L4, D4], Opt::TcpLinger2, seconds(5), (6, 8), 5, AsAsked),
        (&[L4], Opt::TcpLinger2, seconds(120), (6, 8), 120, AsAsked),
        (&[L4], Opt::TcpLinger2, seconds(300), (6, 8), 120, Lowered),
        (&[L4], Opt::TcpLinger2, Setting::Off, (6, 8), -1, AsAsked),
        (&[L4, D4], Opt::TcpMaxseg, int(1_200), (6, 2), 1_200, AsAsked),
        (&[L4], Opt::TcpMaxseg, int(88), (6, 2), 88, AsAsked),
        (&[L4], Opt::TcpMaxseg, int(32_767), (6, 2), 32_767, AsAsked),
        (&[D4], Opt::TcpMaxseg, Setting::Off, (6, 2), 536, AsAsked),
        (&[L4, L6, D4, D6], Opt::TcpNodelay, on(), (6, 1), 1, AsAsked),
        (&[L4, D4], Opt::TcpNodelay, Setting::Off, (6, 1), 0, AsAsked),
        (&[L4, D4], Opt::TcpSyncnt, int(3), (6, 7), 3, AsAsked),
        (&[L4], Opt::TcpSyncnt, int(127), (6, 7), 127, AsAsked),
        (&[L4, D4, D6], Opt::TcpUserTimeout, millis(3_000), (6, 18), 3_000, AsAsked),
        (&[L4], Opt::TcpUserTimeout, millis(1), (6, 18), 1, AsAsked),
        (&[L4], Opt::TcpUserTimeout, longest, (6, 18), max, AsAsked),
        (&[L4], Opt::TcpUserTimeout, Setting::Off, (6, 18), 0, AsAsked),
        (&[L4, D4], Opt::TcpWindowClamp, int(8_192), (6, 10), 8_192, AsAsked),
        (&[L4, D4], Opt::TcpWindowClamp, int(100), (6, 10), 1_152, Raised),
        (&[D4], Opt::TcpWindowClamp, Setting::Off, (6, 10), 0, AsAsked),
        (&[L4, D4, D6], Opt::TcpNotsentLowat, int(16_384), (6, 25), 16_384, AsAsked),
        (&[L4], Opt::TcpNotsentLowat, int(max), (6, 25), max, AsAsked),
        (&[L4], Opt::TcpNotsentLowat, Setting::Off, (6, 25), 0, AsAsked),
        (&[L4], Opt::TcpFastopen, Setting::Off, (6, 23), 0, AsAsked),
        (&[D4], Opt::TcpFastopenConnect, Setting::Off, (6, 30), 0, AsAsked),
        (&[U4, U6, UDUAL], Opt::UdpCork, on(), (17, 1), 1, AsAsked),
        (&[U4, U6, UDUAL], Opt::UdpSegment, int(1_200), (17, 103), 1_200, AsAsked),
        (&[U4], Opt::UdpSegment, int(65_535), (17, 103), 65_535, AsAsked),
        (&[U4], Opt::UdpSegment, Setting::Off, (17, 103), 0, AsAsked),
        (&[U4, U6, UDUAL], Opt::UdpGro, on(), (17, 104), 1, AsAsked),
        (&[L4, L6, DUAL, D4], Opt::IpprotoMptcp, on(), (1, 38), 262, AsAsked),
        (&[L4, D6], Opt::IpprotoMptcp, Setting::Off, (1, 38), 6, AsAsked),
    ]);
}

/// What is no `int`: names, lingering, timeouts.
#[test]
fn structures_and_names_are_held() {
    let held = |target, opt, setting: Setting| {
        let opened = open(target, &set_of(&[(opt, setting)])).unwrap();
        let report = opened.applied.iter().find(|effective| effective.opt == opt).cloned().unwrap();
        assert_eq!(report.held, Some(sockopt::get(opened.fd.as_fd(), opt).unwrap()));
        (opened, report)
    };
    for target in [L4, L6, D4, U4, U6] {
        let (opened, report) = held(target, Opt::SoBindtodevice, "lo".into());
        assert_eq!((report.outcome, report.held), (Outcome::AsAsked, Some("lo".into())));
        assert_eq!(socket2::SockRef::from(&opened.fd).device().unwrap(), Some(b"lo".to_vec()));
        let (opened, report) = held(target, Opt::SoBindtodevice, Setting::Off);
        assert_eq!((report.outcome, report.held), (Outcome::AsAsked, Some(Setting::Off)));
        assert_eq!(socket2::SockRef::from(&opened.fd).device().unwrap(), None);
    }
    for (asked, expected) in [(seconds(7), Some(7)), (seconds(0), Some(0)), (Setting::Off, None)] {
        let (opened, report) = held(D4, Opt::SoLinger, asked.clone());
        assert_eq!((report.outcome, report.held), (Outcome::AsAsked, Some(asked)));
        let linger = socket2::SockRef::from(&opened.fd).linger().unwrap();
        assert_eq!(linger, expected.map(Duration::from_secs));
    }
    for opt in [Opt::SoRcvtimeo, Opt::SoSndtimeo] {
        let read = |opened: &ringport_platform::socket::Opened| {
            let socket = socket2::SockRef::from(&opened.fd);
            if opt == Opt::SoRcvtimeo { socket.read_timeout() } else { socket.write_timeout() }.unwrap()
        };
        for target in [L4, D6, U4, UNIX, UNIXGRAM, UNIXPACKET] {
            let (opened, report) = held(target, opt, millis(1_500));
            assert_eq!(report.outcome, Outcome::AsAsked, "{report}");
            assert_eq!(read(&opened), Some(Duration::from_millis(1_500)));
        }
        let (opened, report) = held(D4, opt, Setting::Off);
        assert_eq!((report.outcome, read(&opened)), (Outcome::AsAsked, None));
        // The kernel counts in ticks.
        let (_opened, report) = held(D4, opt, Setting::from(Duration::from_micros(1)));
        assert_eq!(report.outcome, Outcome::Raised, "{report}");
    }
    for target in [L4, L6, D4] {
        let (opened, report) = held(target, Opt::TcpCongestion, "reno".into());
        assert_eq!((report.outcome, report.held), (Outcome::AsAsked, Some("reno".into())));
        let name = socket2::SockRef::from(&opened.fd).tcp_congestion().unwrap();
        assert!(name.starts_with(b"reno"), "{name:?}");
    }
    let opened = open(
        L4,
        &set_of(&[
            (Opt::SoReuseport, on()),
            (Opt::SoAttachReuseportCbpf, Setting::Value(OptValue::Cpus(vec![0, 1]))),
        ]),
    )
    .unwrap();
    let report = opened.applied.iter().find(|effective| effective.opt == Opt::SoAttachReuseportCbpf).unwrap();
    assert_eq!((report.outcome, &report.held), (Outcome::Unread, &None));
    let unread = sockopt::get(opened.fd.as_fd(), Opt::SoAttachReuseportCbpf).unwrap_err();
    assert_eq!(unread.raw_os_error(), Some(libc::ENOPROTOOPT));
}

/// One beyond each end is refused before any system call, and the ends themselves are the kernel's too.
#[test]
fn the_ends_of_every_range_are_right() {
    let may_all = privileged("the ends of ranges that need it");
    for opt in Opt::ALL {
        let row = opt.row();
        let (min, max) = match row.form {
            Form::Int { min, max } | Form::Time { min, max } => (min, max),
            Form::Flag | Form::Name { .. } | Form::Choice(_) | Form::Ports | Form::Cpus { .. } => continue,
        };
        let value = |count: i64| match row.form {
            Form::Time { .. } => {
                let unit = match row.unit {
                    Unit::Milliseconds => Duration::from_millis(1),
                    Unit::Microseconds => Duration::from_micros(1),
                    Unit::None | Unit::Bytes | Unit::Count | Unit::Index | Unit::Seconds => {
                        Duration::from_secs(1)
                    }
                };
                let nanos = unit.as_nanos() * u128::try_from(count).unwrap();
                Setting::from(Duration::from_nanos_u128(nanos))
            }
            _ => Setting::from(count),
        };
        let insert = |setting: Setting| OptSet::new().with(*opt, setting);
        if min > 0 || matches!(row.form, Form::Int { .. }) {
            assert!(insert(value(min - 1)).is_err(), "{opt} {}", min - 1);
        }
        assert!(insert(value(max + 1)).is_err(), "{opt} {}", max + 1);
        let targets = [L4, D4, U4, L6, U6];
        let target = targets.into_iter().find(|target| opt.stage_on(*target).is_some()).unwrap();
        for count in [min, max] {
            let set = insert(value(count)).unwrap();
            // No interface has the last index.
            if (may_all || row.privilege.capability.is_none()) && (*opt, count) != (Opt::SoBindtoifindex, max)
            {
                // A segment longer than the path is refused when it is sent, not here.
                open(target, &set).unwrap_or_else(|error| panic!("{opt} {count}: {error}"));
            }
        }
    }
}
