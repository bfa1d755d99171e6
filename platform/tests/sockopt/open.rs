//! Sockets made with options: what they are, what they take by default, and that a failure leaves nothing behind.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use ringport_platform::driver::ConnectAddr;
use ringport_platform::socket::{
    DialOptions, Ends, ListenOptions, LocalAddr, OpenError, Opened, PacketEnds, accept_now, listen,
    local_addr, open_dialled, open_listener, open_packet, open_packet_with, peer_addr, stream_for,
};
use ringport_platform::sockopt::{self, Family, Kind, Opt, OptSet, Reason, Role, Setting, Target};
use socket2::{SockAddr, SockRef, Socket};

use super::rig::{
    BACKLOG, closed_on_exec, in_namespace, inet, leaked_fds, open, opts_of, privileged, readable, set_of,
    unnamed, without_privilege,
};

fn addr(text: &str) -> ConnectAddr {
    ConnectAddr::Inet(text.parse().unwrap())
}

fn dial(to: &ConnectAddr, local: Option<&ConnectAddr>, set: &OptSet) -> Result<Opened, OpenError> {
    open_dialled(to, DialOptions { kind: Kind::Stream, local, options: set, read_back: true })
}

/// Connects as a driver would, but waits.
fn connected(opened: Opened, to: &SockAddr) -> Socket {
    let socket = Socket::from(opened.fd);
    socket.set_nonblocking(false).unwrap();
    socket.connect(to).unwrap();
    socket
}

#[test]
fn a_listener_has_defaults_that_options_overrule() {
    let flag = |fd: &OwnedFd, opt| sockopt::get(fd.as_fd(), opt).unwrap() == Setting::from(true);
    for text in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let opened = open_listener(&addr(text), Kind::Stream, BACKLOG, &OptSet::new()).unwrap();
        let fd = opened.fd;
        let there = [Opt::SoReuseaddr, Opt::TcpNodelay, Opt::SoReuseport].map(|opt| flag(&fd, opt));
        assert_eq!(there, [true, true, false], "{text}");
        assert!(text != "[::]:0" || !flag(&fd, Opt::Ipv6V6only), "{text}");
        let shared = ListenOptions { reuse_port: true, ..BACKLOG };
        let opened = open_listener(&addr(text), Kind::Stream, shared, &OptSet::new()).unwrap();
        assert!(flag(&opened.fd, Opt::SoReuseport), "{text}");
        let settings = [Opt::SoReuseaddr, Opt::TcpNodelay, Opt::SoReuseport].map(|opt| (opt, Setting::Off));
        let opened = open_listener(&addr(text), Kind::Stream, shared, &set_of(&settings)).unwrap();
        let there = [Opt::SoReuseaddr, Opt::TcpNodelay, Opt::SoReuseport].map(|opt| flag(&opened.fd, opt));
        assert_eq!(there, [false; 3], "{text}");
    }
    // The older forms are the same without options.
    let fd = listen(&addr("[::]:0"), ListenOptions { backlog: 1, reuse_port: true }).unwrap();
    assert!(flag(&fd, Opt::SoReuseaddr) && flag(&fd, Opt::SoReuseport) && !flag(&fd, Opt::Ipv6V6only));
    let unix = listen(&unnamed("older"), ListenOptions { backlog: 1, reuse_port: true }).unwrap();
    assert!(matches!(local_addr(unix.as_fd()).unwrap(), LocalAddr::Unix(name) if name[0] == 0));
    let fd = stream_for(&addr("127.0.0.1:1")).unwrap();
    assert!(flag(&fd, Opt::TcpNodelay) && SockRef::from(&fd).nonblocking().unwrap());
    assert!(closed_on_exec(fd.as_fd()));
    let off = dial(&addr("127.0.0.1:1"), None, &set_of(&[(Opt::TcpNodelay, Setting::Off)])).unwrap();
    assert!(!flag(&off.fd, Opt::TcpNodelay));
    assert!(stream_for(&unnamed("none")).is_ok());
}

#[test]
fn a_dialled_socket_comes_from_its_local_address() {
    let listener = listen(&addr("127.0.0.1:0"), BACKLOG).unwrap();
    let to = SockAddr::from(inet(listener.as_fd()));
    let target = ConnectAddr::Inet(inet(listener.as_fd()));
    let local = addr("127.0.0.2:0");
    let opened = dial(&target, Some(&local), &OptSet::new()).unwrap();
    // The port is left to connect.
    assert_eq!(inet(opened.fd.as_fd()).to_string(), "127.0.0.2:0");
    let _stream = connected(opened, &to);
    readable(listener.as_fd());
    let accepted = accept_now(listener.as_fd()).unwrap().unwrap();
    assert!(matches!(peer_addr(accepted.as_fd()).unwrap(), LocalAddr::Inet(addr)
        if addr.ip().to_string() == "127.0.0.2" && addr.port() != 0));
    // Unless the options say otherwise, or a port is asked for.
    // A port that was free a moment ago may be another test's now.
    let opened = (0..20).find_map(|_| {
        let set = set_of(&[(Opt::IpBindAddressNoPort, Setting::Off)]);
        let early = dial(&target, Some(&local), &set).unwrap();
        let port = inet(early.fd.as_fd()).port();
        assert_ne!(port, 0);
        drop(early);
        let opened = dial(&target, Some(&addr(&format!("127.0.0.2:{port}"))), &OptSet::new()).ok()?;
        assert_eq!(inet(opened.fd.as_fd()).port(), port);
        Some(opened)
    });
    let opened = opened.unwrap();
    assert_eq!(sockopt::get(opened.fd.as_fd(), Opt::IpBindAddressNoPort).unwrap(), Setting::Off);
}

#[test]
fn unix_sockets_of_every_kind_connect() {
    for kind in [Kind::Stream, Kind::Seqpacket] {
        let at = unnamed("kinds");
        let set = set_of(&[(Opt::SoSndbuf, 20_000.into())]);
        let opened = open_listener(&at, kind, BACKLOG, &set).unwrap();
        let ConnectAddr::Unix(name) = &at else { unreachable!() };
        let to = SockAddr::unix(std::str::from_utf8(name).unwrap()).unwrap();
        let local = unnamed("client");
        let options = DialOptions { kind, local: Some(&local), options: &set, read_back: false };
        let dialled = open_dialled(&at, options).unwrap();
        assert!(dialled.applied.is_empty());
        let mut stream = connected(dialled, &to);
        readable(opened.fd.as_fd());
        let accepted = accept_now(opened.fd.as_fd()).unwrap().unwrap();
        assert_eq!(peer_addr(accepted.as_fd()).unwrap(), local_addr(stream.as_fd()).unwrap());
        // A Unix connection has nothing of its listener's: its options are set on it.
        let target = opened.target.as_role(Role::Accepted);
        assert_ne!(sockopt::get(accepted.as_fd(), Opt::SoSndbuf).unwrap(), Setting::from(40_000));
        set.apply_unread(accepted.as_fd(), sockopt::Stage::Connected, target).unwrap();
        assert_eq!(sockopt::get(accepted.as_fd(), Opt::SoSndbuf).unwrap(), Setting::from(40_000));
        stream.write_all(b"hello").unwrap();
        readable(accepted.as_fd());
        let mut got = [0; 8];
        assert_eq!(Socket::from(accepted).read(&mut got).unwrap(), 5);
    }
}

#[test]
fn packet_sockets_are_bound_or_connected() {
    let bound =
        |text: &str| open_packet(&PacketEnds::Udp(Ends::Bound(text.parse().unwrap())), &OptSet::new());
    // At `[::]` it takes both families.
    let dual = bound("[::]:0").unwrap();
    assert_eq!(dual.target, Target::udp(Family::Dual));
    let port = inet(dual.fd.as_fd()).port();
    let peer = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
    let local = Some("127.0.0.3:0".parse().unwrap());
    let client = open_packet(&PacketEnds::Udp(Ends::Connected { peer, local }), &OptSet::new()).unwrap();
    assert_eq!(client.target, Target { role: Role::Dialled, ..Target::udp(Family::V4) });
    SockRef::from(&client.fd).send(b"ping").unwrap();
    readable(dual.fd.as_fd());
    let mut got = [std::mem::MaybeUninit::uninit(); 16];
    let (len, from) = SockRef::from(&dual.fd).recv_from(&mut got).unwrap();
    assert_eq!((len, from.as_socket().unwrap().ip().to_string()), (4, "::ffff:127.0.0.3".to_owned()));
    // Where that is refused, it does not. In a network of its own: nobody else has the port.
    in_namespace(|| {
        let set = set_of(&[(Opt::Ipv6V6only, true.into())]);
        let only = open_packet(&PacketEnds::Udp(Ends::Bound("[::]:0".parse().unwrap())), &set).unwrap();
        let peer = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), inet(only.fd.as_fd()).port());
        let client =
            open_packet(&PacketEnds::Udp(Ends::Connected { peer, local: None }), &OptSet::new()).unwrap();
        SockRef::from(&client.fd).send(b"ping").unwrap();
        // The refusal comes back with the next call.
        let refused = SockRef::from(&client.fd).send(b"ping").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });

    let (ConnectAddr::Unix(here), ConnectAddr::Unix(there)) = (unnamed("here"), unnamed("there")) else {
        unreachable!()
    };
    let server = open_packet(&PacketEnds::Unixgram(Ends::Bound(there.clone())), &OptSet::new()).unwrap();
    let ends = Ends::Connected { peer: there, local: Some(here.clone()) };
    let client = open_packet(&PacketEnds::Unixgram(ends), &OptSet::new()).unwrap();
    SockRef::from(&client.fd).send(b"ping").unwrap();
    readable(server.fd.as_fd());
    let (len, from) = SockRef::from(&server.fd).recv_from(&mut got).unwrap();
    assert_eq!((len, from.as_abstract_namespace()), (4, Some(&here[1..])));
}

/// An ICMP echo to loopback, answered by the kernel.
#[test]
fn a_raw_socket_gets_packets_of_its_protocol() {
    if !privileged("raw sockets") {
        return;
    }
    for (text, protocol, request, reply) in [("127.0.0.1", 1u8, 8u8, 0u8), ("::1", 58, 128, 129)] {
        let ip: IpAddr = text.parse().unwrap();
        let set = set_of(&[(if ip.is_ipv4() { Opt::IpTtl } else { Opt::Ipv6UnicastHops }, 9.into())]);
        let ends = Ends::Connected { peer: ip, local: Some(ip) };
        let opened = open_packet(&PacketEnds::Ip { protocol, ends }, &set).unwrap();
        let id = std::process::id().to_be_bytes();
        let mut echo = [request, 0, 0, 0, id[2], id[3], 0, 1];
        let sum = echo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        let socket = Socket::from(opened.fd);
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send(&echo).unwrap();
        let mut socket = socket;
        loop {
            let mut got = [0; 128];
            let len = socket.read(&mut got).unwrap();
            // Of IPv4 the header comes before it.
            let icmp = if ip.is_ipv4() { &got[20..len] } else { &got[..len] };
            if icmp[0] == reply && icmp[4..6] == id[2..] {
                break;
            }
        }
    }
    let any = PacketEnds::Ip { protocol: 58, ends: Ends::Bound("::".parse().unwrap()) };
    assert_eq!(open_packet(&any, &OptSet::new()).unwrap().target.family, Family::V6);
}

#[test]
fn a_socket_made_elsewhere_is_recognised() {
    let check = |fd: &OwnedFd, family, kind, role| {
        assert_eq!(Target::of(fd.as_fd()).unwrap(), Target { family, kind, role });
    };
    let listener = listen(&addr("127.0.0.1:0"), BACKLOG).unwrap();
    check(&listener, Family::V4, Kind::Stream, Role::Listener);
    check(&listen(&addr("[::]:0"), BACKLOG).unwrap(), Family::Dual, Kind::Stream, Role::Listener);
    let only = set_of(&[(Opt::Ipv6V6only, true.into())]);
    let only = open_listener(&addr("[::]:0"), Kind::Stream, BACKLOG, &only).unwrap();
    check(&only.fd, Family::V6, Kind::Stream, Role::Listener);
    check(&stream_for(&addr("127.0.0.1:1")).unwrap(), Family::V4, Kind::Stream, Role::Dialled);
    let stream = std::net::TcpStream::connect(inet(listener.as_fd())).unwrap();
    check(&OwnedFd::from(stream), Family::V4, Kind::Stream, Role::Accepted);
    let packets = Target { family: Family::Unix, kind: Kind::Datagram, role: Role::Packet };
    check(&open(packets, &OptSet::new()).unwrap().fd, Family::Unix, Kind::Datagram, Role::Packet);
    let sequenced = Target { family: Family::Unix, kind: Kind::Seqpacket, role: Role::Listener };
    check(&open(sequenced, &OptSet::new()).unwrap().fd, Family::Unix, Kind::Seqpacket, Role::Listener);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect("127.0.0.1:9").unwrap();
    check(&OwnedFd::from(udp), Family::V4, Kind::Datagram, Role::Dialled);
    if privileged("raw sockets") {
        let raw = Target { family: Family::V4, kind: Kind::Raw, role: Role::Packet };
        check(&open(raw, &OptSet::new()).unwrap().fd, Family::V4, Kind::Raw, Role::Packet);
    }
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    assert_eq!(Target::of(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    for (domain, kind) in [(libc::AF_NETLINK, libc::SOCK_DGRAM), (libc::AF_NETLINK, libc::SOCK_RAW)] {
        let other = Socket::new(domain.into(), kind.into(), None).unwrap();
        assert_eq!(Target::of(other.as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    // `SOCK_PACKET` of packet(7): a type that is none of ours.
    let other = Socket::new(socket2::Domain::PACKET, 10.into(), None);
    if let Ok(other) = other {
        assert_eq!(Target::of(other.as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// Whatever fails, and wherever: the error says what and where, and no descriptor is left.
#[test]
fn a_failure_leaves_no_descriptor() {
    let none = OptSet::new;
    type Attempt = Box<dyn FnOnce() -> Result<Opened, OpenError> + Send>;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_addr = taken.local_addr().unwrap();
    let folder = std::env::temp_dir().join(format!("ringport-sockopt-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("live.sock");
    let _live = UnixListener::bind(&path).unwrap();
    let live = ConnectAddr::Unix(path.as_os_str().as_encoded_bytes().to_vec());
    let absent = folder.join("absent.sock").as_os_str().as_encoded_bytes().to_vec();
    let long = vec![b'x'; 109];
    let long_there = long.clone();
    let attempts: Vec<(&str, ErrorKind, Attempt)> = vec![
        (
            "options of a tcp4 listener: TCP_FASTOPEN_CONNECT has no meaning for a tcp4 listener; UDP_GRO has no effect on \
             a tcp4 listener",
            ErrorKind::InvalidInput,
            Box::new(move || {
                let set = set_of(&[(Opt::UdpGro, true.into()), (Opt::TcpFastopenConnect, true.into())]);
                let error = open_listener(&addr("127.0.0.1:0"), Kind::Stream, BACKLOG, &set).unwrap_err();
                // The faults are there to be read, in the table's order.
                let OpenError::Faults { faults, .. } = &error else { panic!("{error}") };
                assert_eq!(opts_of(faults).len(), 2);
                Err(error)
            }),
        ),
        (
            "there is no udp4 listener",
            ErrorKind::InvalidInput,
            Box::new(move || open_listener(&addr("127.0.0.1:0"), Kind::Datagram, BACKLOG, &none())),
        ),
        (
            "there is no unixpacket dialled socket",
            ErrorKind::InvalidInput,
            Box::new(move || {
                let set = none();
                let options =
                    DialOptions { kind: Kind::Seqpacket, local: None, options: &set, read_back: true };
                open_dialled(&addr("127.0.0.1:1"), options)
            }),
        ),
        (
            "local address [::1]:0 is of another family than 127.0.0.1:1",
            ErrorKind::InvalidInput,
            Box::new(move || dial(&addr("127.0.0.1:1"), Some(&addr("[::1]:0")), &none())),
        ),
        (
            "local address unix:@x is of another family than 127.0.0.1:1",
            ErrorKind::InvalidInput,
            Box::new(move || dial(&addr("127.0.0.1:1"), Some(&ConnectAddr::Unix(b"\0x".to_vec())), &none())),
        ),
        (
            "SO_BINDTODEVICE = nosuchif0 on a tcp4 listener: ENODEV: No such device (os error 19); there is no such \
             interface",
            ErrorKind::Other,
            Box::new(move || {
                let set = set_of(&[(Opt::SoBindtodevice, "nosuchif0".into())]);
                open_listener(&addr("127.0.0.1:0"), Kind::Stream, BACKLOG, &set)
            }),
        ),
        (
            "SO_BINDTODEVICE = nosuchif0 on a udp4 packet socket: ENODEV: No such device (os error 19); there is no \
             such interface",
            ErrorKind::Other,
            Box::new(move || {
                let set = set_of(&[(Opt::SoBindtodevice, "nosuchif0".into())]);
                open(Target::udp(Family::V4), &set)
            }),
        ),
        (
            "TCP_CONGESTION = nosuch on a tcp4 dialled socket: ENOENT: No such file or directory (os error 2); this \
             kernel does not know it",
            ErrorKind::NotFound,
            Box::new(move || {
                let set = set_of(&[(Opt::TcpCongestion, "nosuch".into())]);
                dial(&addr("127.0.0.1:1"), None, &set)
            }),
        ),
        (
            "local address 192.0.2.123:0: Cannot assign requested address (os error 99)",
            ErrorKind::AddrNotAvailable,
            Box::new(move || dial(&addr("127.0.0.1:1"), Some(&addr("192.0.2.123:0")), &none())),
        ),
        (
            "local address TAKEN: Address already in use (os error 98)",
            ErrorKind::AddrInUse,
            Box::new(move || open_listener(&ConnectAddr::Inet(taken_addr), Kind::Stream, BACKLOG, &none())),
        ),
        (
            "local address unix:LIVE: Address already in use (os error 98)",
            ErrorKind::AddrInUse,
            Box::new(move || open_listener(&live, Kind::Stream, BACKLOG, &none())),
        ),
        (
            "local address unix:LONG: path must be shorter than SUN_LEN",
            ErrorKind::InvalidInput,
            Box::new(move || open_listener(&ConnectAddr::Unix(long), Kind::Stream, BACKLOG, &none())),
        ),
        (
            "peer unix:LONG: path must be shorter than SUN_LEN",
            ErrorKind::InvalidInput,
            Box::new(move || {
                let ends = Ends::Connected { peer: long_there, local: None };
                open_packet(&PacketEnds::Unixgram(ends), &none())
            }),
        ),
        (
            "peer unix:ABSENT: No such file or directory (os error 2)",
            ErrorKind::NotFound,
            Box::new(move || {
                open_packet(&PacketEnds::Unixgram(Ends::Connected { peer: absent, local: None }), &none())
            }),
        ),
    ];
    for (words, kind, attempt) in attempts {
        let words = words
            .replace("TAKEN", &taken_addr.to_string())
            .replace("LIVE", path.to_str().unwrap())
            .replace("LONG", &"x".repeat(109))
            .replace("ABSENT", folder.join("absent.sock").to_str().unwrap());
        let leaked = leaked_fds(move || {
            let error = attempt().unwrap_err();
            assert_eq!(error.to_string(), words);
            let error = io::Error::from(error);
            if kind != ErrorKind::Other {
                assert_eq!(error.kind(), kind, "{words}");
            }
        });
        assert_eq!(leaked, 0);
    }
    // Something live is never removed.
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A listener without a port takes one when it begins to listen, and there may be none.
#[test]
fn a_port_range_that_is_full_is_told_by_listen() {
    in_namespace(|| {
        let set = set_of(&[
            (Opt::IpBindAddressNoPort, true.into()),
            (Opt::IpLocalPortRange, Setting::Value(sockopt::OptValue::Ports { low: 41_000, high: 41_000 })),
        ]);
        let first = open_listener(&addr("127.0.0.1:0"), Kind::Stream, BACKLOG, &set).unwrap();
        assert_eq!(inet(first.fd.as_fd()).port(), 41_000);
        let error = open_listener(&addr("127.0.0.1:0"), Kind::Stream, BACKLOG, &set).unwrap_err();
        assert_eq!(error.to_string(), "listen at 127.0.0.1:0: Address already in use (os error 98)");
        assert_eq!(io::Error::from(error).kind(), ErrorKind::AddrInUse);
    });
}

/// Without several paths there is no plain connection instead.
#[test]
fn multipath_where_it_is_switched_off_is_refused() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/mptcp/enabled", "0").unwrap();
        let set = set_of(&[(Opt::IpprotoMptcp, true.into())]);
        let error = open_listener(&addr("127.0.0.1:0"), Kind::Stream, BACKLOG, &set).unwrap_err();
        let OpenError::Option(error) = error else { panic!("{error}") };
        assert_eq!((error.opt, error.reason), (Opt::IpprotoMptcp, Reason::SwitchedOff("net.mptcp.enabled")));
        assert!(error.to_string().ends_with("; net.mptcp.enabled forbids it"), "{error}");
    });
}

#[test]
fn a_raw_socket_without_privilege_is_refused() {
    without_privilege(|| {
        let raw = Target { family: Family::V4, kind: Kind::Raw, role: Role::Packet };
        let error = open(raw, &OptSet::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no socket for a ip4 packet socket: Operation not permitted (os error 1)"
        );
        assert_eq!(io::Error::from(error).kind(), ErrorKind::PermissionDenied);
    });
}

/// A socket of datagrams takes them from the moment that it is bound.
#[test]
fn a_file_is_never_open_to_more_than_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("ringport-mode-{}", std::process::id()));
    let ends = PacketEnds::Unixgram(Ends::Bound(path.as_os_str().as_encoded_bytes().to_vec()));
    let opened = open_packet_with(&ends, &OptSet::new(), Some(0o600)).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    std::fs::remove_file(&path).unwrap();
    drop(opened);
    assert_eq!(mode & 0o777, 0o600);
}
