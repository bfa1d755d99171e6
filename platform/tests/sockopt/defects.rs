//! What went wrong in the gateway library whose spec this is, each by its number in the list of its defects: our options
//! must not.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ringport_platform::socket::{Ends, OpenError, PacketEnds, accept_now, open_packet};
use ringport_platform::sockopt::{
    Family, Kind, Opt, OptFault, OptSet, OptValue, Os, Reason, Role, Setting, Target,
};
use socket2::Socket;

use super::behaviour::{connect, dialled, listener, pair, seconds};
use super::rig::{in_namespace, inet, open, opts_of, privileged, raw_int, readable, set_of};

const TCP4: Target = Target::tcp_listener(Family::V4);

/// `TCP_LINGER2` was written as a `struct linger`, of which the kernel reads the first word: always one second.
#[test]
fn d01_linger2_is_a_number_of_seconds() {
    let opened = listener("127.0.0.1:0", &set_of(&[(Opt::TcpLinger2, seconds(5))])).unwrap();
    assert_eq!(raw_int(opened.fd.as_fd(), 6, 8), 5);
}

/// The two ports of a range were swapped byte by byte: 50000 to 60000 became 20675 to 24810.
#[test]
fn d02_a_port_range_is_in_the_machines_order() {
    let range = Setting::Value(OptValue::Ports { low: 50_000, high: 60_000 });
    let opened = dialled("127.0.0.1:9".parse().unwrap(), None, &set_of(&[(Opt::IpLocalPortRange, range)]));
    let raw = raw_int(opened.unwrap().fd.as_fd(), 0, 51).cast_unsigned();
    assert_eq!((raw & 0xffff, raw >> 16), (50_000, 60_000));
}

/// Keep-alive values of a dialled socket never took effect, those of a listener only with its own keep-alive off, and
/// `TCP_NODELAY` could not be off.
#[test]
fn d08_keep_alive_and_nodelay_hold_on_both_ends() {
    let set = set_of(&[
        (Opt::SoKeepalive, true.into()),
        (Opt::TcpKeepidle, seconds(11)),
        (Opt::TcpKeepintvl, seconds(12)),
        (Opt::TcpKeepcnt, 5.into()),
        (Opt::TcpNodelay, Setting::Off),
    ]);
    let (accepted, dialled) = pair(&set, &set);
    let held = |fd: BorrowedFd<'_>| {
        [(1, 9), (6, 4), (6, 5), (6, 6), (6, 1)].map(|(level, number)| raw_int(fd, level, number))
    };
    assert_eq!(held(accepted.as_fd()), [1, 11, 12, 5, 0]);
    assert_eq!(held(dialled.as_fd()), [1, 11, 12, 5, 0]);
}

/// Zero and false meant "not touched", so nothing could be switched off.
#[test]
fn d09_off_and_zero_are_settings() {
    let off = set_of(&[
        (Opt::TcpNodelay, false.into()),
        (Opt::SoKeepalive, false.into()),
        (Opt::SoReuseaddr, false.into()),
        (Opt::TcpLinger2, Setting::Off),
    ]);
    let opened = listener("127.0.0.1:0", &off).unwrap();
    let held =
        [(6, 1), (1, 9), (1, 2), (6, 8)].map(|(level, number)| raw_int(opened.fd.as_fd(), level, number));
    assert_eq!(held, [0, 0, 0, -1]);
    if privileged("a mark of zero") {
        let opened = listener("127.0.0.1:0", &set_of(&[(Opt::SoMark, 0.into())])).unwrap();
        assert!(opened.applied.iter().any(|effective| effective.opt == Opt::SoMark));
    }
    let (accepted, client) = pair(&OptSet::new(), &set_of(&[(Opt::SoLinger, seconds(0))]));
    drop(client);
    readable(accepted.as_fd());
    assert_eq!(TcpStream::from(accepted).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A TTL on the usual listener, which takes both families, changed IPv4 alone, and there was no field for IPv6.
#[test]
fn d10_each_family_has_its_hops() {
    in_namespace(|| {
        let set = set_of(&[(Opt::IpTtl, 42.into()), (Opt::Ipv6UnicastHops, 43.into())]);
        let opened = listener("[::]:0", &set).unwrap();
        let port = inet(opened.fd.as_fd()).port();
        let hops = |ip: &str, number: (i32, i32)| {
            let _client = TcpStream::connect((ip, port)).unwrap();
            readable(opened.fd.as_fd());
            raw_int(accept_now(opened.fd.as_fd()).unwrap().unwrap().as_fd(), number.0, number.1)
        };
        assert_eq!((hops("127.0.0.1", (0, 2)), hops("::1", (41, 16))), (42, 43));
        // The IPv4 one alone leaves IPv6 as it was, and a socket of IPv6 alone is told so.
        let v4 = set_of(&[(Opt::IpTtl, 42.into())]);
        let opened = listener("[::]:0", &v4).unwrap();
        assert_eq!(raw_int(opened.fd.as_fd(), 41, 16), 64);
        let error = listener("[::1]:0", &v4).unwrap_err();
        assert_eq!(error.to_string(), "options of a tcp6 listener: IP_TTL has no effect on a tcp6 listener");
    });
}

/// All groups were set on every dialled socket, so that one config with options of TCP and UDP could never dial.
#[test]
fn d11_one_set_serves_mixed_targets() {
    let mut set = OptSet::new();
    for (opt, setting) in [
        (Opt::TcpNodelay, Setting::from(true)),
        (Opt::UdpSegment, 1_200.into()),
        (Opt::IpTtl, 42.into()),
        (Opt::Ipv6UnicastHops, 42.into()),
        (Opt::SoSndbuf, 20_000.into()),
    ] {
        set.insert(opt, setting).unwrap();
    }
    let unix = Target { family: Family::Unix, kind: Kind::Stream, role: Role::Dialled };
    for (target, left_out) in [
        (Target::tcp_dialled(Family::V4), vec![Opt::Ipv6UnicastHops, Opt::UdpSegment]),
        (Target::tcp_dialled(Family::V6), vec![Opt::IpTtl, Opt::UdpSegment]),
        (Target::udp(Family::V4), vec![Opt::Ipv6UnicastHops, Opt::TcpNodelay]),
        (unix, vec![Opt::IpTtl, Opt::Ipv6UnicastHops, Opt::TcpNodelay, Opt::UdpSegment]),
    ] {
        // Refused where nobody asked for leniency, and every fault is in the one report.
        assert!(
            matches!(open(target, &set), Err(OpenError::Faults { faults, .. }) if opts_of(&faults) == left_out)
        );
        let (fitting, faults) = set.fitting(target);
        assert_eq!(opts_of(&faults), left_out, "{target}");
        let opened = open(target, &fitting).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(raw_int(opened.fd.as_fd(), 1, 7), 40_000);
    }
}

/// The core was a flag, and core 1 was written whatever was meant.
#[test]
fn d12_the_incoming_core_is_a_number() {
    for core in [0, 2] {
        let opened = listener("127.0.0.1:0", &set_of(&[(Opt::SoIncomingCpu, core.into())])).unwrap();
        assert_eq!(i64::from(raw_int(opened.fd.as_fd(), 1, 49)), core);
    }
    assert!(OptSet::new().with(Opt::SoIncomingCpu, true).is_err());
}

/// The queue of fast open was a flag, and its length one.
#[test]
fn d13_the_fast_open_queue_has_a_length() {
    let opened = listener("127.0.0.1:0", &set_of(&[(Opt::TcpFastopen, 16.into())])).unwrap();
    assert_eq!(raw_int(opened.fd.as_fd(), 6, 23), 16);
    assert!(OptSet::new().with(Opt::TcpFastopen, true).is_err());
}

/// Timeouts were given to the kernel alone, which does not apply them to sockets that never block.
#[test]
fn d14_timeouts_are_there_for_timers() {
    let set = set_of(&[(Opt::SoRcvtimeo, Duration::from_millis(1_500).into())]);
    assert_eq!(set.receive_timeout(), Some(Duration::from_millis(1_500)));
    let (accepted, _client) = pair(&set, &OptSet::new());
    let socket = Socket::from(accepted);
    socket.set_nonblocking(true).unwrap();
    assert_eq!((&socket).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Options of packet sockets were set after bind, which they could no longer influence, and a failure leaked the socket
/// (for that see `a_failure_leaves_no_descriptor`).
#[test]
fn d15_packet_sockets_have_their_options_before_bind() {
    let bound =
        |text: &str, set: &OptSet| open_packet(&PacketEnds::Udp(Ends::Bound(text.parse().unwrap())), set);
    assert!(bound("192.0.2.123:0", &OptSet::new()).is_err());
    assert!(bound("192.0.2.123:0", &set_of(&[(Opt::IpFreebind, true.into())])).is_ok());
    let shared = set_of(&[(Opt::SoReuseport, true.into())]);
    let first = bound("127.0.0.1:0", &shared).unwrap();
    assert!(bound(&inet(first.fd.as_fd()).to_string(), &shared).is_ok());
    in_namespace(|| {
        let range = Setting::Value(OptValue::Ports { low: 40_000, high: 40_000 });
        let opened = open(Target::udp(Family::V4), &set_of(&[(Opt::IpLocalPortRange, range)])).unwrap();
        assert_eq!(inet(opened.fd.as_fd()).port(), 40_000);
    });
}

/// Listeners were Multipath TCP by default, which takes fewer options, and became plain TCP without a word where one was
/// refused.
#[test]
fn d28_multipath_is_asked_for_and_kept() {
    let protocol = |fd: BorrowedFd<'_>| raw_int(fd, 1, 38);
    assert_eq!(protocol(listener("127.0.0.1:0", &OptSet::new()).unwrap().fd.as_fd()), 6);
    let multipath = set_of(&[(Opt::IpprotoMptcp, true.into())]);
    let opened = listener("127.0.0.1:0", &multipath).unwrap();
    assert_eq!(protocol(opened.fd.as_fd()), 262);
    let addr = inet(opened.fd.as_fd());
    let client = connect(dialled(addr, None, &multipath).unwrap(), addr).unwrap();
    assert_eq!(protocol(client.as_fd()), 262);
    for (opt, setting) in [
        (Opt::IpTtl, Setting::from(42)),
        (Opt::TcpLinger2, seconds(5)),
        (Opt::TcpSyncnt, 3.into()),
        (Opt::TcpUserTimeout, seconds(3)),
        (Opt::TcpWindowClamp, 8_192.into()),
    ] {
        let mut set = multipath.clone();
        set.insert(opt, setting).unwrap();
        let error = listener("127.0.0.1:0", &set).unwrap_err();
        let words = format!(
            "options of a tcp4 listener: {opt} contradicts IPPROTO_MPTCP: a Multipath TCP socket does not take it"
        );
        assert_eq!(error.to_string(), words);
    }
    // Every other option of TCP is taken.
    for opt in Opt::ALL.iter().filter(|opt| opt.row().mptcp && opt.name().starts_with("TCP_")) {
        let target = if *opt == Opt::TcpFastopenConnect { Target::tcp_dialled(Family::V4) } else { TCP4 };
        let mut set = multipath.clone();
        let sample = if *opt == Opt::TcpCongestion { "reno".into() } else { super::faults::sample(*opt) };
        set.insert(*opt, sample).unwrap();
        if let Err(error) = open(target, &set) {
            assert!(
                matches!(&error, OpenError::Option(error) if error.reason != Reason::Unknown && error.reason != Reason::Other),
                "{error}"
            );
        }
    }
}

/// What a system lacks was dropped without a word.
#[test]
fn d30_options_that_a_system_lacks_are_told() {
    let set = set_of(&[(Opt::SoReuseport, true.into()), (Opt::SoReuseaddr, true.into())]);
    let faults = set.check_on(TCP4, Os::Windows);
    assert_eq!(faults, [OptFault::WrongOs { opt: Opt::SoReuseport, os: Os::Windows }]);
    assert!(Os::HERE == Os::Linux && set.check(TCP4).is_empty());
}
