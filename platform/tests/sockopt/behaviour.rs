//! What the options do, where reading them back would not show it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ringport_platform::driver::ConnectAddr;
use ringport_platform::process::{available_cores, pin_to_core};
use ringport_platform::socket::{
    DialOptions, Ends, OpenError, Opened, PacketEnds, accept_now, open_dialled, open_listener, open_packet,
};
use ringport_platform::sockopt::{
    self, ApplyError, Family, Kind, Opt, OptSet, OptValue, Outcome, Reason, Role, Setting, Stage, Target,
};
use socket2::{SockRef, Socket};

use super::rig::{BACKLOG, in_namespace, inet, ip, open, privileged, raw_int, readable, set_of, skipped};

pub(super) fn listener(text: &str, set: &OptSet) -> Result<Opened, OpenError> {
    open_listener(&ConnectAddr::Inet(text.parse().unwrap()), Kind::Stream, BACKLOG, set)
}

pub(super) fn dialled(to: SocketAddr, local: Option<&str>, set: &OptSet) -> Result<Opened, OpenError> {
    let local = local.map(|text| ConnectAddr::Inet(text.parse().unwrap()));
    let options = DialOptions { kind: Kind::Stream, local: local.as_ref(), options: set, read_back: true };
    open_dialled(&ConnectAddr::Inet(to), options)
}

/// A connection of a listener and a dialled socket with these options each; the accepted one has what belongs there.
pub(super) fn pair(listening: &OptSet, dialling: &OptSet) -> (OwnedFd, Socket) {
    let opened = listener("127.0.0.1:0", listening).unwrap();
    let client = Socket::from(dialled(inet(opened.fd.as_fd()), None, dialling).unwrap().fd);
    client.set_nonblocking(false).unwrap();
    client.connect(&inet(opened.fd.as_fd()).into()).unwrap();
    dialling.apply(client.as_fd(), Stage::Connected, Target::tcp_dialled(Family::V4)).unwrap();
    readable(opened.fd.as_fd());
    let accepted = accept_now(opened.fd.as_fd()).unwrap().unwrap();
    listening.apply(accepted.as_fd(), Stage::Connected, opened.target.as_role(Role::Accepted)).unwrap();
    (accepted, client)
}

pub(super) fn connect(opened: Opened, to: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::from(opened.fd);
    socket.set_nonblocking(false)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

fn ports(low: u16, high: u16) -> Setting {
    Setting::Value(OptValue::Ports { low, high })
}

pub(super) fn seconds(count: u64) -> Setting {
    Setting::from(Duration::from_secs(count))
}

/// Keep-alive values hold on dialled and on accepted sockets; the Go original lost both. So do the others, and an
/// accepted socket costs no system call for them.
#[test]
fn both_ends_of_a_connection_hold_their_options() {
    let set = set_of(&[
        (Opt::SoKeepalive, true.into()),
        (Opt::TcpKeepidle, seconds(11)),
        (Opt::TcpKeepintvl, seconds(12)),
        (Opt::TcpKeepcnt, 5.into()),
        (Opt::SoLinger, seconds(7)),
        (Opt::TcpNodelay, Setting::Off),
        (Opt::TcpLinger2, seconds(5)),
        (Opt::TcpUserTimeout, seconds(3)),
        (Opt::TcpNotsentLowat, 16_384.into()),
        (Opt::TcpCongestion, "reno".into()),
        (Opt::SoRcvtimeo, Duration::from_millis(1_500).into()),
        (Opt::IpTtl, 42.into()),
    ]);
    assert!(!set.has_stage(Stage::Connected, Target::tcp_listener(Family::V4).as_role(Role::Accepted)));
    let (accepted, dialled) = pair(&set, &set);
    for fd in [accepted.as_fd(), dialled.as_fd()] {
        for (opt, setting) in set.iter() {
            assert_eq!(sockopt::get(fd, opt).unwrap(), *setting, "{opt}");
        }
    }
    // Decided by the listener before the handshake.
    let (accepted, _dialled) = pair(&set_of(&[(Opt::SoRcvbuf, 50_000.into())]), &OptSet::new());
    assert_eq!(raw_int(accepted.as_fd(), 1, 8), 100_000);
    let (_accepted, dialled) = pair(&OptSet::new(), &set_of(&[(Opt::TcpMaxseg, 1_200.into())]));
    assert!((1_150..=1_200).contains(&raw_int(dialled.as_fd(), 6, 2)), "less its own options");
}

/// tcp(7): the flag is not permanent. It is on after connect and accept, and on again after it was set anew.
#[test]
fn quick_acknowledgements_are_rearmed() {
    let set = set_of(&[(Opt::TcpQuickack, true.into())]);
    let (accepted, dialled) = pair(&set, &set);
    let accepted_target = Target::tcp_listener(Family::V4).as_role(Role::Accepted);
    for (fd, target) in
        [(accepted.as_fd(), accepted_target), (dialled.as_fd(), Target::tcp_dialled(Family::V4))]
    {
        assert_eq!(sockopt::get(fd, Opt::TcpQuickack).unwrap(), Setting::from(true), "{target}");
        // What the kernel does by itself at some time.
        sockopt::set(fd, Opt::TcpQuickack, &Setting::Off).unwrap();
        assert!(set.has_stage(Stage::Rearm, target));
        set.apply_unread(fd, Stage::Rearm, target).unwrap();
        assert_eq!(sockopt::get(fd, Opt::TcpQuickack).unwrap(), Setting::from(true), "{target}");
    }
}

/// Zero is a value of its own, not "unset".
#[test]
fn a_linger_of_zero_resets() {
    let (accepted, client) = pair(&OptSet::new(), &set_of(&[(Opt::SoLinger, seconds(0))]));
    drop(client);
    readable(accepted.as_fd());
    let mut stream = TcpStream::from(accepted);
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (accepted, client) = pair(&OptSet::new(), &set_of(&[(Opt::SoLinger, Setting::Off)]));
    drop(client);
    readable(accepted.as_fd());
    assert_eq!(TcpStream::from(accepted).read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_group_shares_an_address_and_keeps_others_out() {
    let set = set_of(&[(Opt::SoReuseport, true.into())]);
    let first = listener("127.0.0.1:0", &set).unwrap();
    let addr = inet(first.fd.as_fd());
    let second = listener(&addr.to_string(), &set).unwrap();
    let stranger = listener(&addr.to_string(), &OptSet::new()).unwrap_err();
    assert!(matches!(&stranger, OpenError::LocalAddr { error, .. } if error.kind() == ErrorKind::AddrInUse));
    let mut reached = [0, 0];
    for _ in 0..200 {
        let _client = TcpStream::connect(addr).unwrap();
        let count = [&first, &second].map(|one| usize::from(accept_now(one.fd.as_fd()).unwrap().is_some()));
        reached = [reached[0] + count[0], reached[1] + count[1]];
    }
    assert_eq!(reached[0] + reached[1], 200);
    assert!(reached[0] > 0 && reached[1] > 0, "{reached:?}");
    // The same for datagrams: the options came before bind.
    let udp = |addr| open_packet(&PacketEnds::Udp(Ends::Bound(addr)), &set).unwrap();
    let first = udp("127.0.0.1:0".parse().unwrap());
    let addr = inet(first.fd.as_fd());
    let _second = udp(addr);
    assert!(open_packet(&PacketEnds::Udp(Ends::Bound(addr)), &OptSet::new()).is_err());
}

/// On loopback the core that connects is the core that receives.
#[test]
fn connections_are_steered_to_the_socket_of_their_core() {
    let cores = available_cores().unwrap();
    if cores.len() < 2 {
        return skipped("steering between cores: there is one");
    }
    let cores = [cores[0], cores[1]];
    // Against the order of their numbers, so that the fall-back (modulo) would get it wrong.
    let cpus = [cores[1], cores[0]].map(|core| u32::try_from(core).unwrap());
    let set = set_of(&[
        (Opt::SoReuseport, true.into()),
        (Opt::SoAttachReuseportCbpf, Setting::Value(OptValue::Cpus(cpus.to_vec()))),
    ]);
    let first = listener("127.0.0.1:0", &set).unwrap();
    let addr = inet(first.fd.as_fd());
    let second = listener(&addr.to_string(), &set).unwrap();
    let connect_on = |core: usize| {
        std::thread::spawn(move || {
            pin_to_core(core).unwrap();
            for _ in 0..20 {
                drop(TcpStream::connect(addr).unwrap());
            }
        })
        .join()
        .unwrap();
        [&first, &second].map(|one| std::iter::from_fn(|| accept_now(one.fd.as_fd()).unwrap()).count())
    };
    assert_eq!(connect_on(cores[1]), [20, 0]);
    assert_eq!(connect_on(cores[0]), [0, 20]);

    // Of datagrams too; there the group is in the order of bind.
    let udp = |addr| open_packet(&PacketEnds::Udp(Ends::Bound(addr)), &set).unwrap();
    let first = udp("127.0.0.1:0".parse().unwrap());
    let addr = inet(first.fd.as_fd());
    let second = udp(addr);
    let send_on = |core: usize| {
        std::thread::spawn(move || {
            pin_to_core(core).unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            (0..20).for_each(|_| assert_eq!(socket.send_to(b"x", addr).unwrap(), 1));
        })
        .join()
        .unwrap();
        [&first, &second].map(|one| {
            let mut got = [std::mem::MaybeUninit::uninit(); 8];
            std::iter::from_fn(|| SockRef::from(&one.fd).recv(&mut got).ok()).count()
        })
    };
    assert_eq!(send_on(cores[1]), [20, 0]);
    assert_eq!(send_on(cores[0]), [0, 20]);
}

/// A core that is in no list goes by its number.
#[test]
fn a_core_out_of_the_list_is_steered_by_its_number() {
    let core = available_cores().unwrap()[0];
    let stranger = u32::try_from(core).unwrap() + 4_096;
    let cpus = Setting::Value(OptValue::Cpus(vec![stranger, stranger + 1]));
    let set = set_of(&[(Opt::SoReuseport, true.into()), (Opt::SoAttachReuseportCbpf, cpus)]);
    let first = listener("127.0.0.1:0", &set).unwrap();
    let addr = inet(first.fd.as_fd());
    let second = listener(&addr.to_string(), &set).unwrap();
    std::thread::spawn(move || {
        pin_to_core(core).unwrap();
        (0..20).for_each(|_| drop(TcpStream::connect(addr).unwrap()));
    })
    .join()
    .unwrap();
    let counts =
        [&first, &second].map(|one| std::iter::from_fn(|| accept_now(one.fd.as_fd()).unwrap()).count());
    assert_eq!(counts[core % 2], 20);
}

#[test]
fn addresses_of_nobody_are_bound_where_asked() {
    for (text, opts) in [
        ("192.0.2.123:0", vec![Opt::IpFreebind, Opt::IpTransparent]),
        (
            "[2001:db8::123]:0",
            vec![Opt::IpFreebind, Opt::Ipv6Freebind, Opt::IpTransparent, Opt::Ipv6Transparent],
        ),
    ] {
        let refused = listener(text, &OptSet::new()).unwrap_err();
        assert!(
            matches!(&refused, OpenError::LocalAddr { error, .. } if error.kind() == ErrorKind::AddrNotAvailable),
            "{refused}"
        );
        for opt in opts {
            if opt.row().privilege.capability.is_some() && !privileged(opt.name()) {
                continue;
            }
            let set = set_of(&[(opt, true.into())]);
            assert_eq!(
                inet(listener(text, &set).unwrap().fd.as_fd()).ip().to_string().len(),
                text.len() - if text.starts_with('[') { 4 } else { 2 }
            );
            let to = if text.starts_with('[') { "[::1]:9" } else { "127.0.0.1:9" };
            assert!(dialled(to.parse().unwrap(), Some(text), &set).is_ok(), "{opt}");
            let udp = open_packet(&PacketEnds::Udp(Ends::Bound(text.parse().unwrap())), &set);
            assert!(udp.is_ok(), "{opt}");
        }
    }
}

/// In the order of the machine's bytes: the Go original swapped them and asked for other ports.
#[test]
fn local_ports_come_out_of_their_range() {
    in_namespace(|| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, elsewhere) = (server.local_addr().unwrap(), other.local_addr().unwrap());
        let set = set_of(&[(Opt::IpLocalPortRange, ports(40_000, 40_003))]);
        let dial = |to| connect(dialled(to, Some("127.0.0.1:0"), &set).unwrap(), to);
        let mut streams: Vec<_> = (0..4).map(|_| dial(to).unwrap()).collect();
        let mut used: Vec<u16> = streams.iter().map(|stream| inet(stream.as_fd()).port()).collect();
        used.sort_unstable();
        assert_eq!(used, [40_000, 40_001, 40_002, 40_003]);
        assert_eq!(dial(to).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        // Left to connect, the same ports serve another peer.
        streams.push(dial(elsewhere).unwrap());
        // Taken before connect, they do not.
        let early = set_of(&[
            (Opt::IpLocalPortRange, ports(40_000, 40_003)),
            (Opt::IpBindAddressNoPort, Setting::Off),
        ]);
        let refused = dialled(elsewhere, Some("127.0.0.1:0"), &early).unwrap_err();
        assert!(
            matches!(&refused, OpenError::LocalAddr { error, .. } if error.kind() == ErrorKind::AddrInUse),
            "{refused}"
        );
    });
}

#[test]
fn an_interface_that_is_gone_is_named() {
    in_namespace(|| {
        ip(&["link", "add", "rp0", "type", "veth", "peer", "name", "rp1"]);
        let packets = Target::udp(Family::V4);
        let index = sysfs_index("rp0");
        let settings = [
            (Opt::SoBindtodevice, Setting::from("rp0")),
            (Opt::SoBindtoifindex, Setting::from(index)),
            (Opt::IpUnicastIf, Setting::from("rp0")),
        ];
        for setting in &settings {
            assert!(open(packets, &set_of(std::slice::from_ref(setting))).is_ok(), "{}", setting.0);
        }
        let held = open(packets, &set_of(&settings[2..])).unwrap();
        let by_index = open(packets, &set_of(&settings[1..2])).unwrap();
        ip(&["link", "del", "rp0"]);
        for (opt, setting) in &settings {
            let refused = open(packets, &set_of(&[(*opt, setting.clone())])).unwrap_err();
            let OpenError::Option(error) = refused else { panic!("{opt}: {refused}") };
            assert_eq!((error.opt, error.errno, error.reason), (*opt, libc::ENODEV, Reason::NoInterface));
            assert!(error.to_string().ends_with("; there is no such interface"), "{error}");
        }
        // A socket that had it keeps an index which names nothing now.
        let gone = sockopt::get(held.fd.as_fd(), Opt::IpUnicastIf).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(sockopt::get(by_index.fd.as_fd(), Opt::SoBindtoifindex).unwrap(), Setting::from(index));
        let error = ApplyErrorFor(Opt::SoBindtoifindex, Setting::from(9_999)).on(packets);
        assert_eq!(error.reason, Reason::NoInterface, "Linux itself takes any index");
    });
}

/// An option that is refused.
struct ApplyErrorFor(Opt, Setting);

impl ApplyErrorFor {
    fn on(self, target: Target) -> ApplyError {
        let opened = open(target, &OptSet::new()).unwrap();
        let set = set_of(&[(self.0, self.1)]);
        set.apply(opened.fd.as_fd(), self.0.stage_on(target).unwrap(), target).unwrap_err()
    }
}

fn sysfs_index(name: &str) -> i64 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: `name` ends with NUL and lives through the call.
    i64::from(unsafe { libc::if_nametoindex(name.as_ptr()) })
}

#[test]
fn a_socket_of_ipv6_alone_refuses_ipv4() {
    // Nobody else has the port.
    in_namespace(|| {
        for (only, kind) in [(true, Some(ErrorKind::ConnectionRefused)), (false, None)] {
            let set = set_of(&[(Opt::Ipv6V6only, only.into())]);
            let opened = listener("[::]:0", &set).unwrap();
            let port = inet(opened.fd.as_fd()).port();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).err().map(|error| error.kind()), kind);
            assert!(TcpStream::connect(("::1", port)).is_ok());
        }
    });
}

/// A Multipath TCP socket without a path yet takes any name of a congestion control and keeps its own: only reading back
/// tells.
#[test]
fn what_the_kernel_ignores_is_reported() {
    let set = set_of(&[(Opt::IpprotoMptcp, true.into()), (Opt::TcpCongestion, "nosuch".into())]);
    let opened = dialled("127.0.0.1:9".parse().unwrap(), None, &set).unwrap();
    let report = opened.applied.iter().find(|effective| effective.opt == Opt::TcpCongestion).unwrap();
    assert_eq!(report.outcome, Outcome::Ignored);
    assert!(report.is_surprising() && report.to_string().ends_with(" in effect (ignored)"), "{report}");
}

/// `net.ipv4.tcp_fastopen`: bit 1 for clients, bit 2 for listeners, who are not told by the kernel.
#[test]
fn fast_open_that_is_switched_off_is_reported() {
    in_namespace(|| {
        let switch = |value: &str| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", value).unwrap();
        let set = set_of(&[(Opt::TcpFastopen, 16.into())]);
        let report = || {
            let opened = listener("127.0.0.1:0", &set).unwrap();
            opened.applied.into_iter().find(|effective| effective.opt == Opt::TcpFastopen).unwrap()
        };
        switch("1");
        assert_eq!(report().outcome, Outcome::Ignored);
        let words =
            "TCP_FASTOPEN: 16 asked, 16 in effect (ignored; bit 2 of net.ipv4.tcp_fastopen is not set)";
        assert_eq!(report().to_string(), words);
        let dial = set_of(&[(Opt::TcpFastopenConnect, true.into())]);
        assert!(dialled("127.0.0.1:9".parse().unwrap(), None, &dial).is_ok());
        switch("2");
        assert_eq!(report().outcome, Outcome::AsAsked);
        assert_eq!(report().to_string(), "TCP_FASTOPEN: 16 asked, 16 in effect");
        let refused = dialled("127.0.0.1:9".parse().unwrap(), None, &dial).unwrap_err();
        let words = "TCP_FASTOPEN_CONNECT = on on a tcp4 dialled socket: EOPNOTSUPP: Operation not supported (os error \
                     95); bit 1 of net.ipv4.tcp_fastopen forbids it";
        assert_eq!(refused.to_string(), words);
        let somaxconn = super::rig::sysctl("net/core/somaxconn");
        let opened =
            listener("127.0.0.1:0", &set_of(&[(Opt::TcpFastopen, i64::from(i32::MAX).into())])).unwrap();
        let report = opened.applied.iter().find(|effective| effective.opt == Opt::TcpFastopen).unwrap();
        let words = format!(
            "TCP_FASTOPEN: 2147483647 asked, {somaxconn} in effect (lowered; net.core.somaxconn bounds it)"
        );
        assert_eq!((report.outcome, report.to_string()), (Outcome::Lowered, words));
    });
}

#[test]
fn reports_say_what_is_in_effect() {
    let check = |target: Target, opt: Opt, setting: Setting, words: &str| {
        let mut set = set_of(&[(opt, setting)]);
        if opt == Opt::SoAttachReuseportCbpf {
            set.insert(Opt::SoReuseport, true).unwrap();
        }
        let opened = open(target, &set).unwrap();
        let report = opened.applied.iter().find(|effective| effective.opt == opt).unwrap();
        assert_eq!(report.to_string(), words);
    };
    let tcp = Target::tcp_listener(Family::V4);
    let words =
        "SO_RCVBUF: 5000 bytes asked, 10000 bytes in effect (doubled: the kernel counts its own overhead)";
    check(tcp, Opt::SoRcvbuf, 5_000.into(), words);
    let words = format!(
        "SO_RCVBUF: 67108864 bytes asked, {} bytes in effect (lowered; net.core.rmem_max bounds it)",
        2 * super::rig::sysctl("net/core/rmem_max")
    );
    check(tcp, Opt::SoRcvbuf, (64 << 20).into(), &words);
    check(tcp, Opt::TcpLinger2, seconds(300), "TCP_LINGER2: 300s asked, 120s in effect (lowered)");
    check(tcp, Opt::TcpLinger2, Setting::Off, "TCP_LINGER2: off asked, off in effect");
    let words = "TCP_WINDOW_CLAMP: 100 bytes asked, 1152 bytes in effect (raised)";
    check(tcp, Opt::TcpWindowClamp, 100.into(), words);
    check(tcp, Opt::IpTtl, Setting::Off, "IP_TTL: off asked, 64 in effect");
    let cpus = Setting::Value(OptValue::Cpus(vec![1, 0]));
    let words = "SO_ATTACH_REUSEPORT_CBPF: 1,0 asked (cannot be read back)";
    check(tcp, Opt::SoAttachReuseportCbpf, cpus, words);
}

/// Datagrams that are cut when sent and joined when received.
#[test]
fn datagrams_are_cut_and_joined() {
    let server = open(Target::udp(Family::V4), &set_of(&[(Opt::UdpGro, true.into())])).unwrap();
    let plain = open(Target::udp(Family::V4), &OptSet::new()).unwrap();
    let set = set_of(&[(Opt::UdpSegment, 1_000.into())]);
    let client = |to: &Opened| {
        let ends = Ends::Connected { peer: inet(to.fd.as_fd()), local: None };
        open_packet(&PacketEnds::Udp(ends), &set).unwrap()
    };
    let receive = |from: BorrowedFd<'_>| {
        readable(from);
        let mut got = [std::mem::MaybeUninit::uninit(); 4_096];
        SockRef::from(&from).recv(&mut got).unwrap()
    };
    SockRef::from(&client(&plain).fd).send(&[7; 2_500]).unwrap();
    let lens: Vec<usize> = (0..3).map(|_| receive(plain.fd.as_fd())).collect();
    assert_eq!(lens, [1_000, 1_000, 500]);
    SockRef::from(&client(&server).fd).send(&[7; 2_500]).unwrap();
    assert_eq!(receive(server.fd.as_fd()), 2_500);
    let too_many = SockRef::from(&client(&plain).fd).send(&[7; 60_000 + 1_000]).map(drop);
    assert!(too_many.is_ok(), "sixty-one segments are allowed: {too_many:?}");
    let tiny = set_of(&[(Opt::UdpSegment, 1.into())]);
    let ends = Ends::Connected { peer: inet(plain.fd.as_fd()), local: None };
    let tiny = open_packet(&PacketEnds::Udp(ends), &tiny).unwrap();
    let refused = SockRef::from(&tiny.fd).send(&[7; 129]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}

/// What a cork holds goes out when it is released, and the next is held again.
#[test]
fn a_cork_is_released() {
    let server = open(Target::udp(Family::V4), &OptSet::new()).unwrap();
    let set = set_of(&[(Opt::UdpCork, true.into())]);
    let ends = Ends::Connected { peer: inet(server.fd.as_fd()), local: None };
    let client = open_packet(&PacketEnds::Udp(ends), &set).unwrap();
    let mut got = [std::mem::MaybeUninit::uninit(); 16];
    for _ in 0..2 {
        SockRef::from(&client.fd).send(b"aa").unwrap();
        SockRef::from(&client.fd).send(b"bb").unwrap();
        let held = SockRef::from(&server.fd).recv(&mut got).unwrap_err();
        assert_eq!(held.kind(), ErrorKind::WouldBlock);
        set.release_cork(client.fd.as_fd()).unwrap();
        readable(server.fd.as_fd());
        assert_eq!(SockRef::from(&server.fd).recv(&mut got).unwrap(), 4);
    }
    // A stream's cork opens by itself after 200 ms, so what was held is counted between two calls; once in fifty it must.
    let set = set_of(&[(Opt::TcpCork, true.into())]);
    let (accepted, mut client) = pair(&OptSet::new(), &set);
    let mut accepted = TcpStream::from(accepted);
    let held = (0..50).any(|_| {
        client.write_all(b"ab").unwrap();
        let held = unsent(client.as_fd());
        set.release_cork(client.as_fd()).unwrap();
        let left = unsent(client.as_fd());
        readable(accepted.as_fd());
        accepted.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(left, 0);
        held == 2
    });
    assert!(held, "nothing was ever held back");
    assert_eq!(sockopt::get(client.as_fd(), Opt::TcpCork).unwrap(), Setting::from(true));
    // Without one it is free.
    OptSet::new().release_cork(client.as_fd()).unwrap();
}

/// Bytes that were not sent for the first time, tcp(7) `SIOCOUTQNSD`.
fn unsent(fd: BorrowedFd<'_>) -> libc::c_int {
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let mut count = 0;
    // SAFETY: the kernel writes the `int` that it is given, during the call only.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCOUTQNSD, &raw mut count) }, 0);
    count
}

/// The functions for a single option refuse as the set does, and say what a socket of another protocol is.
#[test]
fn single_options_are_checked_too() {
    let opened = open(Target::tcp_listener(Family::V4), &OptSet::new()).unwrap();
    let fd = opened.fd.as_fd();
    let errno = |opt, setting: Setting| sockopt::set(fd, opt, &setting).unwrap_err().raw_os_error();
    assert_eq!(errno(Opt::IpTtl, 256.into()), Some(libc::EINVAL));
    assert_eq!(errno(Opt::SoRcvbuf, Setting::Off), Some(libc::EINVAL));
    assert_eq!(errno(Opt::UdpGro, true.into()), Some(libc::ENOPROTOOPT));
    assert_eq!(errno(Opt::IpprotoMptcp, true.into()), Some(libc::EPROTONOSUPPORT));
    assert_eq!(sockopt::get(fd, Opt::UdpGro).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    let set = set_of(&[(Opt::TcpNodelay, true.into())]);
    let packets = open(Target::udp(Family::V4), &OptSet::new()).unwrap();
    // On a socket that is not what it is said to be.
    let error =
        set.apply(packets.fd.as_fd(), Stage::PreConnect, Target::tcp_listener(Family::V4)).unwrap_err();
    let words = "TCP_NODELAY = on on a tcp4 listener: ENOPROTOOPT: Protocol not available (os error 92); this kernel \
                 does not know it";
    assert_eq!((error.reason, error.to_string().as_str()), (Reason::Unknown, words));
    assert!(error.is_unsupported());
    let error = set
        .apply_unread(packets.fd.as_fd(), Stage::PreConnect, Target::tcp_listener(Family::V4))
        .unwrap_err();
    assert_eq!(error.opt, Opt::TcpNodelay);
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let error = set.apply(file.as_fd(), Stage::PreConnect, Target::tcp_listener(Family::V4)).unwrap_err();
    let words = "TCP_NODELAY = on on a tcp4 listener: ENOTSOCK: Socket operation on non-socket (os error 88)";
    assert_eq!((error.reason, error.to_string().as_str()), (Reason::Other, words));
    assert!(!error.is_unsupported());
}
