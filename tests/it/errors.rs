//! What errors say: the words, what lies behind them, and what they come to as an `io::Error`.

use std::error::Error;
use std::io;
use std::time::Duration;

use ringport::net::tls::{HandshakeError, TlsDialError, TlsListenError};
use ringport::net::{
    self, AcceptError, AttemptError, AttemptFailure, DeadlineError, DialErrorKind, Dialer, FileFault,
    InheritFault, ListenError, PacketError, PacketSocket, Phase, RelayError, ResolveError, Resolver,
};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, OpenError, Runtime};
use ringport::spec::{DialSpec, Format, Network, PacketSpec, ResolverSpec};
use ringport_platform::socket::InTheWay;
use ringport_platform::sockopt::{Family, Kind, Opt, OptFault, Role, Target};

use super::rig::{any_port, each, turn};

const TCP: Target = Target::tcp_listener(Family::V4);
const PACKETS: Target = Target { family: Family::Unix, kind: Kind::Seqpacket, role: Role::Listener };

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "it said no")
}

fn addr() -> LocalAddr {
    LocalAddr::Inet("192.0.2.1:80".parse().expect("an address"))
}

fn faults() -> Vec<OptFault> {
    vec![
        OptFault::WrongSocket { opt: Opt::UdpCork, target: TCP },
        OptFault::WrongRole { opt: Opt::TcpSyncnt, target: TCP },
    ]
}

const FAULTS: &str = "options of a tcp4 listener: UDP_CORK has no effect on a tcp4 listener; TCP_SYNCNT has no meaning for a tcp4 \
                      listener";

#[track_caller]
fn check(error: impl Error, words: &str, has_source: bool) {
    assert_eq!((error.to_string().as_str(), error.source().is_some()), (words, has_source));
}

#[test]
fn of_listeners() {
    check(
        ListenError::Address { addr: addr(), error: refused() },
        "cannot listen on 192.0.2.1:80: it said no",
        true,
    );
    check(ListenError::Options { target: TCP, faults: faults() }, FAULTS, false);
    check(
        ListenError::Socket { target: TCP, error: refused() },
        "no socket for a tcp4 listener: it said no",
        true,
    );
    check(ListenError::Driver(refused()), "the driver cannot watch the listener: it said no", true);
    let words = "a unixpacket listener has packets, which a stream would not keep whole";
    check(ListenError::Kind(PACKETS), words, false);
    check(ListenError::Kind(TCP), "a tcp4 listener has no packets", false);
    for (fault, words) in [
        (FileFault::Assign(refused()), "mode or owner of its file: it said no"),
        (FileFault::OtherFile, "a file that is not a socket is in the way"),
        (FileFault::LiveSocket, "another process listens there"),
        (FileFault::StaleSocket, "a socket's file is in the way, and may not be replaced"),
        (FileFault::Unknown(refused()), "it said no"),
        (FileFault::NoSuchOwner("web".into()), "there is no user or group \"web\""),
    ] {
        let error = ListenError::File { path: "/run/a".into(), fault };
        check(error, &format!("cannot listen on unix:/run/a: {words}"), true);
    }
    for (fault, words) in [
        (InheritFault::Unknown { others: vec![] }, "none was inherited"),
        (InheritFault::Unknown { others: vec!["a".into(), "b".into()] }, "there are a, b only"),
        (InheritFault::Taken, "it is in use already"),
        (InheritFault::NotListening(TCP), "it is a tcp4 listener, and does not listen"),
        (InheritFault::System(refused()), "it said no"),
    ] {
        check(
            ListenError::Inherited { name: "web".into(), fault },
            &format!("inherited socket web: {words}"),
            true,
        );
    }
    check(AcceptError::Closed, "the listener is closed", false);
    check(AcceptError::Io(refused()), "it said no", true);
    let second = Duration::from_secs(1);
    check(DeadlineError::Read(second), "read deadline: nothing came for 1s", false);
    check(DeadlineError::Write(second), "write deadline: the peer took nothing for 1s", false);
    check(DeadlineError::Connection(second), "connection deadline: it has been open for 1s", false);
    check(RelayError::First(refused()), "the first stream: it said no", true);
    check(RelayError::Second(refused()), "the second stream: it said no", true);
}

/// Code that knows the standard library's errors alone finds what the kernel said.
#[test]
fn the_error_of_the_kernel_is_at_the_end_of_the_sources() {
    for error in [
        &ListenError::File { path: "/run/a".into(), fault: FileFault::Assign(refused()) } as &dyn Error,
        &ListenError::Inherited { name: "web".into(), fault: InheritFault::System(refused()) },
        &OpenError::Peer { addr: addr(), error: refused() },
        &PacketError::Open(OpenError::LocalAddr { addr: addr(), error: refused() }),
        &AttemptError::Open(OpenError::LocalAddr { addr: addr(), error: refused() }),
        &AttemptError::Connect(refused()),
        &TlsListenError::Listen(ListenError::Driver(refused())),
        &TlsDialError::Handshake {
            target: "tcp://a.test:1".parse().expect("a target"),
            error: HandshakeError::Io(refused()),
        },
    ] {
        let mut last = error;
        while let Some(source) = last.source() {
            last = source;
        }
        let kernel = last.downcast_ref::<io::Error>();
        assert_eq!(kernel.map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused), "{error:?}");
    }
}

#[test]
fn of_sockets_that_a_listener_could_not_make() {
    for (error, words) in [
        (OpenError::Faults { target: TCP, faults: faults() }, FAULTS),
        (OpenError::Listen { addr: addr(), error: refused() }, "cannot listen on 192.0.2.1:80: it said no"),
        (OpenError::Socket { target: TCP, error: refused() }, "no socket for a tcp4 listener: it said no"),
        (OpenError::Unsupported(TCP), "the driver cannot watch the listener: there is no tcp4 listener"),
    ] {
        assert_eq!(ListenError::from(error).to_string(), words);
    }
}

#[test]
fn of_packet_sockets() {
    check(PacketError::Network(Network::UnixPacket), "unixpacket has no packets without a peer", false);
    let spec = PacketSpec::builder(Network::Tcp).build().expect_err("a stream");
    check(
        PacketError::Spec(spec),
        "network: tcp has no packets; write udp, unixgram, unixpacket or ip:PROTOCOL",
        true,
    );
    let not_found = "the peer's name: there is no such name, or it has no address";
    check(PacketError::Resolve(ResolveError::NotFound), not_found, true);
    let words = FAULTS.replace("a tcp4 listener: UDP", "a packet socket: UDP");
    check(PacketError::Options(faults()), &words, false);
    let words = "sock_option.so_option.send_timeout: not available for packet sockets yet";
    check(PacketError::Untimed { field: "send_timeout" }, words, false);
    check(PacketError::Open(OpenError::Unsupported(PACKETS)), "there is no unixpacket listener", true);
    check(PacketError::Owner { name: "web".into() }, "there is no user or group web", false);
    for (found, words) in [
        (InTheWay::OtherFile, "a file that is no socket is in the way"),
        (InTheWay::LiveSocket, "another socket has it"),
        (InTheWay::StaleSocket, "a stale socket is in the way, and unix.replace_stale is off"),
        (InTheWay::Unknown(refused()), "it said no"),
    ] {
        let path = std::path::Path::new("/run/a").into();
        let is_of_kernel = matches!(found, InTheWay::Unknown(_));
        check(PacketError::InTheWay { path, found }, &format!("/run/a: {words}"), is_of_kernel);
    }
    let path = std::path::Path::new("/run/a").into();
    check(PacketError::File { path, error: refused() }, "/run/a: it said no", true);
    check(PacketError::Multicast(refused()), "multicast: it said no", true);
    let group = "239.1.2.3".parse().expect("an address");
    check(PacketError::Group { group, error: refused() }, "group 239.1.2.3: it said no", true);
    check(PacketError::Refused, "nobody listens at the peer", false);
    check(PacketError::Ended, "the peer has ended", false);
    check(PacketError::Receive(refused()), "receive: it said no", true);
    check(PacketError::TooLong { len: 9 }, "a datagram of 9 bytes is too long", false);
    check(PacketError::NoBuffers, "no room to send: the interface's queue is full", false);
    check(PacketError::NoPeer, "the socket has no peer: say where it is to go", false);
    check(PacketError::Send(refused()), "send: it said no", true);
}

#[test]
fn of_names() {
    for (error, words) in [
        (ResolveError::NotFound, "there is no such name, or it has no address"),
        (ResolveError::NoSuitableAddress, "no suitable address: none of the wanted family"),
        (ResolveError::Aliases, "an alias of an alias of an alias, without an end in sight"),
        (ResolveError::NoServer, "no name server could answer"),
        (ResolveError::TimedOut, "the look-up took too long"),
        (ResolveError::Busy, "too many look-ups wait already"),
        (ResolveError::Other("it said no".into()), "it said no"),
    ] {
        check(error, words, false);
    }
}

#[test]
fn of_attempts() {
    let after = Duration::from_millis(3);
    for (error, words) in [
        (AttemptError::Options { target: TCP, faults: faults() }, FAULTS),
        (
            AttemptError::LocalNetwork { local: Network::Unix, network: Network::Tcp },
            "a local address of unix is none for tcp",
        ),
        (AttemptError::Open(OpenError::Unsupported(TCP)), "there is no tcp4 listener"),
        (AttemptError::Connect(refused()), "it said no"),
        (AttemptError::TimedOut, "no answer in its share of the time"),
    ] {
        let is_of_kernel = matches!(error, AttemptError::Open(_) | AttemptError::Connect(_));
        assert_eq!(error.source().is_some(), is_of_kernel, "{error}");
        let failure = AttemptFailure { addr: addr(), after, error };
        assert_eq!(failure.to_string(), format!("192.0.2.1:80 after 3 ms: {words}"));
    }
    for (kind, words) in [
        (DialErrorKind::NotAStream, "the network carries packets, and a dial gives a stream"),
        (DialErrorKind::Resolve(ResolveError::Busy), "too many look-ups wait already"),
        (DialErrorKind::Option, "a socket option was refused"),
        (DialErrorKind::LocalAddr, "the local address is not to be had"),
        (DialErrorKind::Refused, "refused"),
        (DialErrorKind::TimedOut(Phase::Resolve), "timed out while the name was looked up"),
        (DialErrorKind::TimedOut(Phase::Connect), "timed out"),
        (DialErrorKind::Unreachable, "unreachable"),
        (DialErrorKind::Other, "failed"),
    ] {
        assert_eq!(kind.to_string(), words);
    }
}

/// Each kind of failure of a dial, as what code that knows `io::Error` alone sees.
#[test]
fn of_dials_as_errors_of_io() {
    each(async |runtime| {
        let closed = {
            let listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
            listener.local_addr().expect("it listens")
        };
        // The kernel has let go of the socket when nobody answers any more.
        while net::connect(&runtime, &ConnectAddr::from(closed.clone())).await.is_ok() {
            turn().await;
        }
        let rows = [
            ("{}", format!("tcp://{closed}"), io::ErrorKind::ConnectionRefused),
            ("{}", "udp://127.0.0.1:1".into(), io::ErrorKind::InvalidInput),
            ("{}", "unix:///no/such/socket".into(), io::ErrorKind::HostUnreachable),
            ("{resolver: {hostsFile: /no/such/file}}", "tcp://a.test:1".into(), io::ErrorKind::NotFound),
            ("localAddress: '192.0.2.9:0'", format!("tcp://{closed}"), io::ErrorKind::AddrNotAvailable),
            (
                "{sockOption: {soOption: {bindToDevice: nosuch0}}}",
                format!("tcp://{closed}"),
                io::ErrorKind::InvalidInput,
            ),
        ];
        for (yaml, target, kind) in rows {
            let spec = DialSpec::from_text(yaml, Format::Yaml, "f").expect("a good spec");
            let dialer = Dialer::from_spec(&spec, &runtime).clone();
            let target = target.parse().expect("a target");
            let error = dialer.dial(&target).await.err().expect("nobody is there");
            assert_eq!(error.target(), &target);
            assert!(error.to_string().starts_with(&format!("cannot dial {target}: ")), "{error}");
            assert_eq!((error.is_shortage(), error.untried()), (false, 0));
            let is_resolved = !matches!(error.kind(), DialErrorKind::NotAStream | DialErrorKind::Resolve(_));
            let source = error.source();
            assert_eq!(source.is_some_and(|source| source.is::<AttemptError>()), is_resolved, "{error}");
            assert_eq!(io::Error::from(error).kind(), kind, "{target} as {yaml}");
        }
        let resolver = Resolver::new(&ResolverSpec::default(), &runtime);
        assert_eq!(resolver.addresses("no.such.invalid", 1).await, Err(ResolveError::NotFound));

        // A server that is silent: its own time is over, or that of the dial.
        let silent = PacketSocket::bind(&runtime, "127.0.0.1:0".parse().expect("an address")).expect("free");
        let server = silent.local_addr().expect("bound");
        for (timeouts, phase) in [("timeout: 20", None), ("timeout: 10s", Some(Phase::Resolve))] {
            let whole = if phase.is_some() { "timeout: 50, " } else { "" };
            let yaml = format!(
                "{{{whole}resolver: {{servers: ['{server}'], hostsFile: '', attempts: 1, {timeouts}}}}}"
            );
            let spec = DialSpec::from_text(&yaml, Format::Yaml, "f").expect("a good spec");
            let target = "tcp://a.test:1".parse().expect("a target");
            let error = Dialer::from_spec(&spec, &runtime).dial(&target).await.err().expect("nobody answers");
            let expected = match phase {
                None => DialErrorKind::Resolve(ResolveError::TimedOut),
                Some(phase) => DialErrorKind::TimedOut(phase),
            };
            assert_eq!(*error.kind(), expected, "{error}");
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
        }
        // EPROTOTYPE, which is of no kind that tells anything.
        let name = format!("{}/errors-{}.sock", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let _ = std::fs::remove_file(&name);
        let spec = PacketSpec::from_text(&format!("address: 'unixgram://{name}'"), Format::Yaml, "f");
        let _datagrams =
            PacketSocket::open(&runtime, &spec.expect("a good spec")).await.expect("a free name");
        let target = format!("unix://{name}").parse().expect("a target");
        let error = Dialer::new(&runtime).dial(&target).await.err().expect("it takes no streams");
        assert_eq!(*error.kind(), DialErrorKind::Other, "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Other);
    });
}

/// What the kernel said to an option is said wherever an option can be refused.
#[test]
fn of_options_that_were_refused() {
    each(async |runtime| {
        let yaml = "{sockOption: {soOption: {bindToDevice: nosuch0}}}";
        let spec = DialSpec::from_text(yaml, Format::Yaml, "f").expect("a good spec");
        let target = "tcp://127.0.0.1:1".parse().expect("a target");
        let error = Dialer::from_spec(&spec, &runtime).dial(&target).await.err().expect("no such interface");
        let AttemptError::Open(OpenError::Option(option)) = &error.failures()[0].error else {
            panic!("{error}")
        };
        let words = option.to_string();
        assert!(words.starts_with("SO_BINDTODEVICE = nosuch0 on a tcp4 dialled socket: ENODEV"), "{words}");
        check(ListenError::Option(option.clone()), &words, true);
        check(AcceptError::Option(option.clone()), &words, true);
        check(ListenError::from(OpenError::Option(option.clone())), &words, true);
        check(AttemptError::Connected(option.clone()), &words, true);
    });
}
