//! Dialers, listeners and packet sockets off the ways that the design's cases take.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringport::net::{
    self, DeadlineError, DialErrorKind, Dialer, ListenError, Listener, PacketSocket, Stream, accept, relay,
};
use ringport::proto::proxy_protocol::{Header, UnixName, Version};
use ringport::runtime::native::Native;
use ringport::runtime::{ConnectAddr, ListenOptions, Listener as _, LocalAddr, Runtime, Transport};
use ringport::spec::{DialSpec, Format, ListenSpec, NetAddr, OriginAddress, PacketSpec};
use ringport_platform::sockopt::{Opt, Outcome};

use super::rig::{any_port, each, join, pair, read_all, turn};

fn dialer(runtime: &Native, yaml: &str) -> Dialer<Native> {
    let spec = DialSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    Dialer::from_spec(&spec, runtime)
}

fn listen(runtime: &Native, yaml: &str) -> Listener<Native> {
    let spec = ListenSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    Listener::from_spec(&spec, runtime).unwrap_or_else(|error| panic!("{error}"))
}

fn target(text: &str) -> NetAddr<OriginAddress> {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(format!("{}/{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_dial_from_a_unix_name_leaves_no_file() {
    each(async |runtime| {
        let own = path("ways-own.sock");
        let name = format!("\0ringport-ways-{}", std::process::id());
        let server = ConnectAddr::Unix(name.clone().into_bytes());
        let mut listener = runtime.listen(&server, ListenOptions::default()).expect("a free name");
        let to = target(&format!("unix://{}", name.replace('\0', "@")));
        let from_path = dialer(&runtime, &format!("localAddress: 'unix://{}'", own.display()));
        let (near, far) = join(from_path.dial(&to), accept(&runtime, &mut listener)).await;
        let (_near, far) = (near.expect("it listens"), far.expect("it is dialled"));
        let seen = LocalAddr::Unix(own.as_os_str().as_encoded_bytes().to_vec());
        assert_eq!(far.peer_addr().expect("connected"), seen);
        assert!(!own.exists(), "a connected socket needs its file no longer");

        // What is there already is somebody else's, and stays.
        std::fs::write(&own, "a note").expect("a file");
        let error = from_path.dial(&to).await.err().expect("the name is taken");
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
        assert_eq!(std::fs::read_to_string(&own).expect("it stays"), "a note");
        std::fs::remove_file(&own).expect("a file");
        // One that was made for a dial that failed does not stay.
        let error = from_path.dial(&target("unix:///no/such/socket")).await.err().expect("nobody is there");
        assert_eq!(*error.kind(), DialErrorKind::Unreachable, "{error}");
        assert!(!own.exists());

        let from_name = dialer(&runtime, "localAddress: 'unix://@ringport-ways-own'");
        let (near, far) = join(from_name.dial(&to), accept(&runtime, &mut listener)).await;
        let (_near, far) = (near.expect("it listens"), far.expect("it is dialled"));
        assert_eq!(far.peer_addr().expect("connected"), LocalAddr::Unix(b"\0ringport-ways-own".to_vec()));
    });
}

#[test]
fn a_local_address_of_packets_is_none_for_a_stream() {
    each(async |runtime| {
        let from_udp = dialer(&runtime, "localAddress: 'udp://127.0.0.1:0'");
        let error = from_udp.dial(&target("tcp://127.0.0.1:1")).await.err().expect("another network");
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
        let from_tcp = dialer(&runtime, "localAddress: 'tcp://127.0.0.1:0'");
        from_tcp.dial_packets(&target("udp://127.0.0.1:1")).await.err().expect("another network");
    });
}

#[test]
fn addresses_may_be_looked_up_first() {
    each(async |runtime| {
        let mut listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
        let LocalAddr::Inet(addr) = listener.local_addr().expect("it listens") else { panic!("of IP") };
        let dialer = dialer(&runtime, "{timeout: 20s, proxyProtocol: v1}");
        assert_eq!(dialer.spec().timeout(), Some(Duration::from_secs(20)));
        let to = target(&format!("tcp4://localhost:{}", addr.port()));
        let addrs = dialer.resolve(&to).await.expect("every system knows it");
        assert_eq!(addrs, [ConnectAddr::Inet(addr)]);
        let found = dialer.resolver().addresses("localhost", addr.port()).await.expect("known");
        assert!(found.contains(&addr), "{found:?}");
        let client = Header::Inet { source: addr, destination: addr };
        let (near, far) =
            join(dialer.dial_known(&to, &addrs, &client), accept(&runtime, &mut listener)).await;
        let (near, mut far) = (near.expect("it listens"), far.expect("it is dialled"));
        drop(near);
        assert_eq!(read_all(&mut far).await, client.encode(Version::V1));
    });
}

/// What is skipped or comes out otherwise is told, and stands in nobody's way.
#[test]
fn options_that_are_not_as_asked_are_told() {
    each(async |runtime| {
        let odd = "sockOption: {onUnsupported: warn, soOption: {receiveBuffer: 1}, udpOption: {cork: true}}";
        let mut listener = listen(&runtime, &format!("{{addr: '127.0.0.1:0', {odd}}}"));
        let skipped: Vec<_> = listener.skipped().iter().map(|fault| fault.opt()).collect();
        assert_eq!((skipped, listener.refused().len()), (vec![Opt::UdpCork], 0));
        let held = listener.applied().iter().find(|effective| effective.opt == Opt::SoRcvbuf).expect("set");
        assert_eq!(held.outcome, Outcome::Raised);
        let to = target(&format!("tcp://{}", listener.local_addr()));
        let dialer = dialer(&runtime, odd);
        let (near, far) = join(dialer.dial(&to), listener.accept()).await;
        let (mut near, (mut far, _)) = (near.expect("it listens"), far.expect("a client"));
        near.send(&b"hello"[..]).await.expect("open");
        assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"hello");

        let odd = "{network: udp4, sockOption: {onUnsupported: warn, soOption: {receiveBuffer: 1}, tcpOption: {cork: true}}}";
        let spec = PacketSpec::from_text(odd, Format::Yaml, "f").expect("a good spec");
        let socket = PacketSocket::open(&runtime, &spec).await.expect("a socket");
        let held = socket.effective().iter().find(|effective| effective.opt == Opt::SoRcvbuf).expect("set");
        assert_eq!(held.outcome, Outcome::Raised);
    });
}

#[test]
fn a_listener_by_its_address_alone() {
    each(async |runtime| {
        let file = path("ways-listener.sock");
        let address = format!("unix://{}", file.display());
        let mut listener =
            Listener::bind(address.parse().expect("an address"), &runtime).expect("it listens");
        let (near, far) = join(Dialer::new(&runtime).dial(&target(&address)), listener.accept()).await;
        near.expect("it listens");
        far.expect("a client");
        assert!(file.exists());
        listener.handle().remove_file();
        listener.handle().remove_file();
        assert!(!file.exists(), "twice is no fault");
        let error =
            Listener::bind("192.0.2.9:0".parse::<SocketAddr>().map(of).expect("an address"), &runtime);
        assert!(matches!(error.err(), Some(ListenError::Address { .. })), "not ours");
        let error = Listener::bind("udp://127.0.0.1:0".parse().expect("an address"), &runtime);
        assert!(matches!(error.err(), Some(ListenError::Spec(_))), "datagrams have no connections");
    });
}

fn of(addr: SocketAddr) -> NetAddr<ringport::spec::Address> {
    format!("tcp://{addr}").parse().expect("an address")
}

#[test]
fn a_client_of_a_unix_socket_behind_a_proxy() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', proxyProtocol: {trusted: [127.0.0.1]}}");
        let to = ConnectAddr::from(listener.local_addr().clone());
        let mut client = net::connect(&runtime, &to).await.expect("it listens");
        let name = |text: &str| UnixName::new(text.as_bytes()).expect("short");
        let header = Header::Unix { source: name("/run/client"), destination: name("/run/server") };
        client.send(header.encode(Version::V2)).await.expect("open");
        let (_stream, peer) = listener.accept().await.expect("a client");
        assert_eq!(peer.client(), &LocalAddr::Unix(b"/run/client".to_vec()));
    });
}

#[test]
fn deadlines_hold_on_every_way_to_send() {
    each(async |runtime| {
        let mut listener =
            listen(&runtime, "{addr: '127.0.0.1:0', connectionDeadline: 200, writeDeadline: 10000}");
        let to = ConnectAddr::from(listener.local_addr().clone());
        let (near, far) = join(net::connect(&runtime, &to), listener.accept()).await;
        let (_near, (mut far, _)) = (near.expect("it listens"), far.expect("a client"));
        assert!(far.is_quiet());
        far.transport().set_rx_limit(1 << 20);
        far.send(&b"hello"[..]).await.expect("young enough");
        far.flush().await.expect("young enough");
        runtime.sleep(Duration::from_millis(250)).await;
        let passed = Some(DeadlineError::Connection(Duration::from_millis(200)));
        far.tx().push(b"x".to_vec());
        let error = far.start_send().expect_err("too old");
        assert_eq!(DeadlineError::of(&error), passed);
        assert!(far.tx().is_empty(), "it is not kept for ever");
        let error = poll_fn(|cx| far.transport().poll_shutdown(cx)).await.expect_err("too old");
        assert_eq!(DeadlineError::of(&error), passed);
    });
}

/// From socket to socket below the deadlines' type, where there are none; with them it is copied.
#[test]
fn accepted_and_dialled_streams_are_joined() {
    each(async |runtime| {
        for bounds in ["", ", readDeadline: 20000"] {
            let mut front = listen(&runtime, &format!("{{addr: '127.0.0.1:0'{bounds}}}"));
            let mut back = listen(&runtime, "addr: '127.0.0.1:0'");
            let to_front = ConnectAddr::from(front.local_addr().clone());
            let (client, accepted) = join(net::connect(&runtime, &to_front), front.accept()).await;
            let (mut client, (accepted, _)) = (client.expect("it listens"), accepted.expect("a client"));
            let to_back = target(&format!("tcp://{}", back.local_addr()));
            let (dialled, server) = join(Dialer::new(&runtime).dial(&to_back), back.accept()).await;
            let (dialled, (mut server, _)) = (dialled.expect("it listens"), server.expect("a client"));
            let (mut accepted, mut dialled) = (accepted, dialled);
            let joined = runtime.core().spawn(async move { relay(&mut accepted, &mut dialled).await });
            let sent = vec![7; 4 << 20];
            let expected = sent.len();
            let sending = async {
                client.send(sent).await.expect("open");
                client.shutdown().await.expect("open");
                assert_eq!(read_all(&mut client).await, b"all of it");
            };
            let receiving = async {
                let mut got = 0;
                while let Some(bytes) = server.recv().await.expect("in order") {
                    got += bytes.len();
                }
                assert_eq!(got, expected);
                server.send(&b"all of it"[..]).await.expect("open");
                server.shutdown().await.expect("open");
            };
            join(sending, receiving).await;
            let passed = joined.await.expect("it does not panic").expect("in order");
            assert_eq!((passed.to_second, passed.to_first), (expected as u64, 9));
        }
    });
}

/// One by one and in batches, in turns.
#[test]
fn a_batch_begins_with_what_waits() {
    each(async |runtime| {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let server = PacketSocket::bind(&runtime, any).expect("a free port");
        let LocalAddr::Inet(addr) = server.local_addr().expect("bound") else { panic!("of IP") };
        let client = PacketSocket::connect(&runtime, addr).expect("a peer");
        for byte in 0..3_u8 {
            client.send(vec![byte]).await.expect("sent");
        }
        turn().await;
        assert_eq!(&server.recv().await.expect("the first").bytes[..], [0]);
        let mut rest = Vec::new();
        while rest.len() < 2 {
            server.recv_batch(&mut rest).await.expect("the others");
        }
        let rest: Vec<_> = rest.iter().map(|received| received.bytes[0]).collect();
        assert_eq!(rest, [1, 2]);
    });
}

#[test]
fn a_reset_stream_says_so_to_whoever_joins_it() {
    each(async |runtime| {
        let ((client, mut front), (mut back, _server)) = (pair(&runtime).await, pair(&runtime).await);
        client.reset();
        let error = relay(&mut front, &mut back).await.expect_err("it was reset");
        assert!(matches!(error, net::RelayError::First(_)), "{error}");
        let ((_client, mut front), (mut back, server)) = (pair(&runtime).await, pair(&runtime).await);
        Stream::reset(server);
        let error = relay(&mut front, &mut back).await.expect_err("it was reset");
        assert!(matches!(error, net::RelayError::Second(_)), "{error}");
    });
}

/// Each end of a relay breaks while it is sent to: one that has said all that it had to say, and one that takes in bulk.
#[test]
fn a_relay_tells_which_side_takes_nothing_more() {
    each(async |runtime| {
        let ((mut client, mut front), (mut back, mut server)) = (pair(&runtime).await, pair(&runtime).await);
        client.shutdown().await.expect("open");
        let joined = runtime.core().spawn(async move { relay(&mut front, &mut back).await });
        assert!(server.recv().await.expect("in order").is_none());
        client.reset();
        while server.send(vec![7; 1 << 16]).await.is_ok() {
            turn().await;
            if joined.is_finished() {
                break;
            }
        }
        let error = joined.await.expect("it does not panic").expect_err("it was reset");
        assert!(matches!(error, net::RelayError::First(_)), "{error}");

        let ((mut client, mut front), (mut back, mut server)) = (pair(&runtime).await, pair(&runtime).await);
        let joined = runtime.core().spawn(async move { relay(&mut front, &mut back).await });
        let sending = async {
            while client.send(vec![7; 1 << 18]).await.is_ok() && !joined.is_finished() {
                turn().await;
            }
        };
        let receiving = async {
            let mut got = 0;
            while got < 8 << 20 {
                got += server.recv().await.expect("open").expect("bytes").len();
            }
            server.reset();
        };
        join(sending, receiving).await;
        let error = joined.await.expect("it does not panic").expect_err("it was reset");
        assert!(matches!(error, net::RelayError::Second(_)), "{error}");
    });
}
