//! Cases of listeners: who is let in, how many, for how long, and what is left behind.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use ringport::net::{
    self, AcceptError, Bounded, DeadlineError, Dialer, FileFault, ListenError, ListenPart, Listener,
    PacketError, PacketListener, Peer, Stream,
};
use ringport::proto::proxy_protocol::{Header, Version};
use ringport::runtime::native::{CoreSpec, Native};
use ringport::runtime::{ConnectAddr, LocalAddr, Runtime};
use ringport::spec::{Format, ListenSpec};
use ringport_platform::core::{Connecting, StreamSock};
use ringport_platform::socket::{DialOptions, open_dialled};
use ringport_platform::sockopt::{self, Kind, Opt, OptSet, OptValue, Reason, Setting};

use super::namespace::in_namespace;
use crate::rig::{FileFacts, Rig, TcpStream, each, join, now, open_fds, skipped, turn};

type Accepted = (Stream<Bounded<Native>>, Peer);

fn spec(yaml: &str) -> ListenSpec {
    ListenSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"))
}

fn listen(runtime: &Native, yaml: &str) -> Listener<Native> {
    Listener::from_spec(&spec(yaml), runtime).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(runtime: &Native, yaml: &str) -> ListenError {
    let before = open_fds();
    let Err(error) = Listener::from_spec(&spec(yaml), runtime) else { panic!("{yaml} listens") };
    assert_eq!(open_fds(), before, "descriptors are left");
    error
}

async fn connect(runtime: &Native, to: &LocalAddr) -> TcpStream {
    net::connect(runtime, &ConnectAddr::from(to.clone())).await.expect("somebody listens")
}

async fn accept(listener: &mut Listener<Native>) -> Accepted {
    listener.accept().await.expect("a client comes")
}

/// A connection, both ends.
async fn pair(runtime: &Native, listener: &mut Listener<Native>) -> (TcpStream, Accepted) {
    let to = listener.local_addr().clone();
    join(connect(runtime, &to), accept(listener)).await
}

async fn connect_from(runtime: &Native, from: &str, to: &LocalAddr) -> StreamSock {
    let local = ConnectAddr::Inet(from.parse().expect("an address"));
    let to = ConnectAddr::from(to.clone());
    let none = OptSet::new();
    let options = DialOptions { kind: Kind::Stream, local: Some(&local), options: &none, read_back: false };
    let fd = open_dialled(&to, options).expect("the address is local").fd;
    Connecting::start_with(runtime.core(), fd, &to).expect("watched").await.expect("somebody listens")
}

/// The peer has closed, in order or by a reset.
async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.recv().await, Ok(Some(_)))
}

fn port(addr: &LocalAddr) -> u16 {
    match addr {
        LocalAddr::Inet(addr) => addr.port(),
        LocalAddr::Unix(_) => panic!("no port"),
    }
}

fn at(host: &str, port: u16) -> LocalAddr {
    LocalAddr::Inet(SocketAddr::new(host.parse().expect("an address"), port))
}

fn has_ipv6() -> bool {
    let has = Path::new("/proc/net/if_inet6").exists();
    if !has {
        skipped("IPv6: the kernel has none");
    }
    has
}

fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(format!("{}/{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

async fn echoes(client: &mut TcpStream, server: &mut Stream<Bounded<Native>>) {
    client.send(&b"ping"[..]).await.expect("open");
    let bytes = server.recv().await.expect("open").expect("bytes");
    server.send(bytes).await.expect("open");
    assert_eq!(&*client.recv().await.expect("open").expect("bytes"), b"ping");
}

fn int(number: i64) -> Setting {
    Setting::Value(OptValue::Int(number))
}

fn seconds(seconds: u64) -> Setting {
    Setting::Value(OptValue::Time(Duration::from_secs(seconds)))
}

#[test]
fn case_02_a_vanished_interface_is_named() {
    each(async |runtime| {
        let error =
            refused(&runtime, "{addr: '127.0.0.1:0', sockOption: {soOption: {bindToDevice: nosuchif0}}}");
        let ListenError::Option(refused) = &error else { panic!("{error}") };
        assert_eq!((refused.opt, refused.reason), (Opt::SoBindtodevice, Reason::NoInterface), "{error}");
    });
}

#[test]
fn case_04_05_25_29_43_d1_d8_options_hold_on_what_is_accepted() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            "{addr: '127.0.0.1:0', keepAliveConfig: {idle: 11, interval: 12, count: 5}, sockOption: {
                soOption: {linger: 7, receiveBuffer: 50000}, tcpOption: {noDelay: false, linger2: 5, quickAck: true}}}",
        );
        let (_client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let sock = server.transport().inner().sock();
        for (opt, expected) in [
            (Opt::SoKeepalive, Setting::Value(OptValue::Flag(true))),
            (Opt::TcpKeepidle, seconds(11)),
            (Opt::TcpKeepintvl, seconds(12)),
            (Opt::TcpKeepcnt, int(5)),
            (Opt::SoLinger, seconds(7)),
            (Opt::SoRcvbuf, int(100_000)),
            (Opt::TcpNodelay, Setting::Off),
            (Opt::TcpLinger2, seconds(5)),
            (Opt::TcpQuickack, Setting::Value(OptValue::Flag(true))),
        ] {
            assert_eq!(sock.option(opt).expect("readable"), expected, "{opt}");
        }
    });
}

#[test]
fn case_30_quick_acknowledgements_are_asked_for_after_each_receive() {
    each(async |runtime| {
        let quick = async |yaml: &str| {
            let mut listener = listen(&runtime, yaml);
            let (mut client, (mut server, _)) = pair(&runtime, &mut listener).await;
            // An exchange in turns is what makes the kernel hold acknowledgements back.
            for _ in 0..20 {
                echoes(&mut client, &mut server).await;
            }
            client.send(&b"ping"[..]).await.expect("open");
            server.recv().await.expect("open").expect("bytes");
            server.transport().inner().sock().option(Opt::TcpQuickack).expect("readable")
        };
        let on = Setting::Value(OptValue::Flag(true));
        assert_eq!(quick("{addr: '127.0.0.1:0', sockOption: {tcpOption: {quickAck: true}}}").await, on);
        assert_eq!(quick("addr: '127.0.0.1:0'").await, Setting::Off, "this kernel holds none back");
    });
}

#[test]
fn case_43_what_connections_do_not_have_from_their_listener_is_set_on_them() {
    each(async |runtime| {
        let address = format!("unix://@ringport-case-43-{}", std::process::id());
        let yaml = format!("{{addr: '{address}', sockOption: {{soOption: {{sendBuffer: 50000}}}}}}");
        let mut listener = listen(&runtime, &yaml);
        let (_client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let held = server.transport().inner().sock().option(Opt::SoSndbuf).expect("readable");
        assert_eq!(held, int(100_000));
    });
}

#[test]
fn case_13_a_restart_does_not_wait_for_old_connections() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "addr: '127.0.0.1:0'");
        let (mut client, (server, _)) = pair(&runtime, &mut listener).await;
        let port = port(listener.local_addr());
        // Who ends first is the one that keeps TIME_WAIT.
        drop(server);
        assert!(is_closed(&mut client).await);
        drop(client);
        drop(listener);
        // The kernel has let go of the socket when nobody answers any more.
        let old = ConnectAddr::from(at("127.0.0.1", port));
        while net::connect(&runtime, &old).await.is_ok() {
            turn().await;
        }
        let mut listener = listen(&runtime, &format!("addr: '127.0.0.1:{port}'"));
        pair(&runtime, &mut listener).await;
    });
}

#[test]
fn case_14_a_socket_for_each_core_shares_the_port() {
    each(async |runtime| {
        let parts = ListenPart::open(&spec("addr: '127.0.0.1:0'"), 2).expect("free");
        let addr = parts[0].local_addr().clone();
        let mut parts = parts.into_iter().map(|part| Listener::new(part, &runtime).expect("watched"));
        let (mut one, mut other) = (parts.next().expect("two"), parts.next().expect("two"));
        let error = refused(&runtime, &format!("addr: '{addr}'"));
        let ListenError::Address { addr: named, error } = error else { panic!("{error}") };
        assert_eq!((named, error.kind()), (addr.clone(), std::io::ErrorKind::AddrInUse));

        // 2 in 2^64 that all come to one.
        let (mut counts, mut open) = ([0, 0], Vec::new());
        for _ in 0..64 {
            let either = poll_fn(|cx| match one.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready((0, accepted)),
                Poll::Pending => other.poll_accept(cx).map(|accepted| (1, accepted)),
            });
            let (client, (part, accepted)) = join(connect(&runtime, &addr), either).await;
            counts[part] += 1;
            open.push((client, accepted.expect("a client")));
        }
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
}

#[test]
fn case_14_one_socket_that_all_cores_take_from() {
    each(async |runtime| {
        let parts = ListenPart::open(&spec("{addr: '127.0.0.1:0', sockets: shared}"), 2).expect("free");
        let addr = parts[0].local_addr().clone();
        let mut parts = parts.into_iter().map(|part| Listener::new(part, &runtime).expect("watched"));
        let (mut one, mut other) = (parts.next().expect("two"), parts.next().expect("two"));
        join(connect(&runtime, &addr), accept(&mut one)).await;
        drop(one);
        join(connect(&runtime, &addr), accept(&mut other)).await;
    });
}

#[test]
fn case_11_12_d14_timeouts_of_sockets_are_kept() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            "{addr: '127.0.0.1:0', sockOption: {soOption: {receiveTimeout: 200, sendTimeout: 300, sendBuffer: 4096}}}",
        );
        let (_client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let began = runtime.now();
        let error = server.recv().await.expect_err("nothing comes");
        assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Read(Duration::from_millis(200))));
        assert!(runtime.now() - began >= Duration::from_millis(200));
        // The next has as long again.
        let began = runtime.now();
        server.recv().await.expect_err("nothing comes");
        assert!(runtime.now() - began >= Duration::from_millis(190));

        let error = loop {
            if let Err(error) = server.send(vec![0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Write(Duration::from_millis(300))));
        server.reset();
    });
}

#[test]
fn case_17_20_an_address_that_is_not_here_yet() {
    each(async |runtime| {
        // RFC 5737: nobody has it.
        let mut listener =
            listen(&runtime, "{addr: '192.0.2.123:0', sockOption: {ipOption: {freeBind: true}}}");
        assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
        let yaml = "{addr: '192.0.2.123:0', sockOption: {ipOption: {transparent: true}}}";
        match Listener::from_spec(&spec(yaml), &runtime) {
            Ok(_) => {}
            Err(ListenError::Option(refused)) => {
                assert!(matches!(refused.reason, Reason::Privilege(_)), "{refused}");
                skipped("a transparent socket: it needs CAP_NET_ADMIN");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn case_24_a_silent_client_is_not_accepted() {
    each(async |runtime| {
        let mut listener =
            listen(&runtime, "{addr: '127.0.0.1:0', sockOption: {tcpOption: {deferAccept: 5}}}");
        let to = listener.local_addr().clone();
        let mut client = connect(&runtime, &to).await;
        let silent = runtime.core().timeout(Duration::from_millis(300), accept(&mut listener)).await;
        assert!(silent.is_err(), "it has said nothing");
        client.send(&b"hello"[..]).await.expect("open");
        let (mut server, _) = accept(&mut listener).await;
        assert_eq!(&*server.recv().await.expect("open").expect("bytes"), b"hello");
    });
}

fn ip(arguments: &[&str]) {
    let done = std::process::Command::new("ip").args(arguments).output().expect("ip(8) starts");
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn case_58_59_d3_ranges_hold_for_whom_they_name() {
    let test = "acceptance::listen::case_58_59_d3_ranges_hold_for_whom_they_name";
    in_namespace(test, &[], || {
        let clients = ["192.168.1.1", "10.0.0.1", "10.1.0.1", "10.1.2.3", "fd00::1"];
        for client in clients {
            let len = if client.contains(':') { 128 } else { 32 };
            let mut arguments =
                vec!["addr".to_owned(), "add".into(), format!("{client}/{len}"), "dev".into()];
            arguments.push("lo".into());
            if len == 128 {
                arguments.push("nodad".into());
            }
            ip(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
        each(async |runtime| {
            for (lists, let_in) in [
                ("networks: ['0.0.0.0/0']", &clients[..4]),
                ("networks: ['::/0']", &clients[4..]),
                (
                    "networks: [10.0.0.0/8, 10.1.2.0/24], denyNetworks: [10.1.0.0/16]",
                    &["10.0.0.1", "10.1.2.3"][..],
                ),
            ] {
                // Both families on one socket: IPv4 clients come as ::ffff:a.b.c.d.
                let mut listener = listen(&runtime, &format!("{{addr: ':0', {lists}}}"));
                let port = port(listener.local_addr());
                for client in clients {
                    let is_v4 = !client.contains(':');
                    let from = if is_v4 { format!("{client}:0") } else { format!("[{client}]:0") };
                    let to = at(client, port);
                    let near = connect_from(&runtime, &from, &to).await;
                    if let_in.contains(&client) {
                        accept(&mut listener).await;
                        continue;
                    }
                    let closed = poll_fn(|cx| {
                        assert!(listener.poll_accept(cx).is_pending(), "{client} of {lists}");
                        near.poll_recv_buf(cx)
                    });
                    assert!(closed.await.expect("in order").is_none());
                }
            }
        });
    });
}

#[test]
fn case_26_a_dead_peer_is_noticed() {
    in_namespace("acceptance::listen::case_26_a_dead_peer_is_noticed", &[], || {
        let filters = std::process::Command::new("iptables").arg("-S").output();
        if !filters.is_ok_and(|output| output.status.success()) {
            return skipped("it needs iptables(8)");
        }
        let iptables = |verb: &str| {
            let rule = ["INPUT", "-i", "lo", "-p", "tcp", "-j", "DROP"];
            let done = std::process::Command::new("iptables").arg(verb).args(rule).status();
            assert!(done.expect("it starts").success());
        };
        each(async |runtime| {
            let mut listener =
                listen(&runtime, "{addr: '127.0.0.1:0', keepAliveConfig: {idle: 1, interval: 1, count: 2}}");
            let (client, (mut server, _)) = pair(&runtime, &mut listener).await;
            iptables("-A");
            let error = server.recv().await.expect_err("the peer is dead");
            iptables("-D");
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            assert_eq!(DeadlineError::of(&error), None, "the kernel's, not ours");
            client.reset();
        });
    });
}

#[test]
fn case_53_any_port_is_known_and_both_families_come() {
    each(async |runtime| {
        if !has_ipv6() {
            return;
        }
        let mut listener = listen(&runtime, "addr: ':0'");
        let port = port(listener.local_addr());
        assert_ne!(port, 0);
        for (host, client_is) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let to = at(host, port);
            let (mut client, (mut server, peer)) = join(connect(&runtime, &to), accept(&mut listener)).await;
            let LocalAddr::Inet(addr) = peer.client() else { panic!("{peer:?}") };
            assert_eq!(addr.ip().to_canonical().to_string(), client_is);
            echoes(&mut client, &mut server).await;
        }
    });
}

#[test]
fn case_22_ipv6_alone_where_asked() {
    each(async |runtime| {
        if !has_ipv6() {
            return;
        }
        for yaml in ["addr: 'tcp6://:0'", "{addr: '[::]:0', sockOption: {ipv6Option: {v6Only: true}}}"] {
            let mut listener = listen(&runtime, yaml);
            let port = port(listener.local_addr());
            let v4 = ConnectAddr::from(at("127.0.0.1", port));
            // Somebody else may have this port on IPv4. What counts is whether this listener hears the client.
            let over_v4 = net::connect(&runtime, &v4).await;
            if let Err(error) = &over_v4 {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            }
            let v6 = at("::1", port);
            let (_client, (_server, peer)) = join(connect(&runtime, &v6), accept(&mut listener)).await;
            let LocalAddr::Inet(addr) = peer.client() else { panic!("{peer:?}") };
            assert!(addr.ip().to_canonical().is_ipv6(), "a client over IPv4: {addr}");
        }
    });
}

#[test]
fn case_54_every_network_of_streams() {
    each(async |runtime| {
        let file = path("case-54");
        let abstract_name = format!("unix://@ringport-case-54-{}", std::process::id());
        let mut addresses =
            vec!["tcp4://127.0.0.1:0".into(), format!("unix://{}", file.display()), abstract_name];
        if has_ipv6() {
            addresses.push("tcp6://[::1]:0".into());
        }
        for address in addresses {
            let mut listener = listen(&runtime, &format!("addr: '{address}'"));
            let (mut client, (mut server, _)) = pair(&runtime, &mut listener).await;
            echoes(&mut client, &mut server).await;
        }
        assert!(!file.exists());
    });
}

#[test]
fn case_54_a_sequence_of_packets() {
    each(async |runtime| {
        let file = path("case-54-packet");
        let address = format!("unixpacket://{}", file.display());
        let error = refused(&runtime, &format!("addr: '{address}'"));
        assert!(matches!(&error, ListenError::Kind(_)), "a stream would cut packets: {error}");
        assert!(!file.exists());
        let yaml = format!("{{addr: '{address}', sockOption: {{soOption: {{sendBuffer: 100000}}}}}}");
        let mut listener = PacketListener::from_spec(&spec(&yaml), &runtime).expect("it listens");
        let target = address.parse().expect("a target");
        let dialer = Dialer::new(&runtime);
        let (client, server) = join(dialer.dial_packets(&target), listener.accept()).await;
        let (client, server) = (client.expect("somebody listens"), server.expect("a client comes"));
        let held = server.datagram().sock().with_fd(|fd| sockopt::get(fd, Opt::SoSndbuf));
        assert_eq!(held.expect("readable"), int(200_000), "no connection has it from its listener");
        // Sent at a time, each is received as it was sent.
        let lens = [3, 1, 70_000, 5];
        for len in lens {
            client.send(vec![len as u8; len]).await.expect("open");
        }
        server.set_max_len(1 << 17);
        for len in lens {
            let came = server.recv().await.expect("a packet");
            assert_eq!((came.bytes.len(), came.meta.is_truncated), (len, false));
            assert!(came.bytes.iter().all(|byte| *byte == len as u8));
        }
        server.send(&b"answer"[..]).await.expect("open");
        // The end, for good; what is under way comes before it, and the other way goes on.
        client.send(&b"last"[..]).await.expect("open");
        client.shutdown().expect("open");
        assert_eq!(&server.recv().await.expect("a packet").bytes[..], b"last");
        for _ in 0..2 {
            assert!(matches!(server.recv().await, Err(PacketError::Ended)));
            assert!(matches!(server.recv_batch(&mut Vec::new()).await, Err(PacketError::Ended)));
        }
        assert_eq!(&client.recv().await.expect("a packet").bytes[..], b"answer");
        drop(server);
        assert!(matches!(client.recv().await, Err(PacketError::Ended)));
        assert!(matches!(client.send(&b"x"[..]).await, Err(PacketError::Send(_))), "nobody is there");
        drop(listener);
        assert!(!file.exists());
        let gone = dialer.dial_packets(&target).await.err().expect("nobody listens");
        assert!(matches!(gone, PacketError::Open(_)), "{gone}");
    });
}

#[test]
fn case_54_63_packets_have_the_limits_of_streams() {
    each(async |runtime| {
        let name = format!("unixpacket://@ringport-case-54-{}", std::process::id());
        let target = name.parse().expect("a target");
        for (policy, over) in [("wait", 0), ("reject", 1)] {
            let yaml = format!("{{addr: '{name}', connectionLimit: 1, connectionLimitPolicy: {policy}}}");
            let mut listener = PacketListener::from_spec(&spec(&yaml), &runtime).expect("it listens");
            assert_eq!(listener.local_addr().to_string(), name.replace("packet://", ":"));
            let dialer = Dialer::new(&runtime);
            let (_first, place) = join(dialer.dial_packets(&target), listener.accept()).await;
            let second = dialer.dial_packets(&target).await.expect("the kernel's queue");
            for _ in 0..10 {
                assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
                turn().await;
            }
            let handle = listener.handle();
            assert_eq!((handle.stats().over_limit, handle.open_connections()), (over, 1), "{policy}");
            if over == 1 {
                assert!(matches!(second.recv().await, Err(PacketError::Ended)), "it was closed");
            }
            drop(place);
            // The one that waited, or one more.
            let _third = dialer.dial_packets(&target).await.expect("the kernel's queue");
            let accepted = listener.accept().await.expect("there is room");
            assert_eq!(handle.stats().accepted, 2);
            let waits = runtime.core().spawn(async move { (listener.accept().await.map(drop), listener) });
            turn().await;
            handle.close();
            let (end, mut listener) = waits.await.expect("it does not panic");
            assert!(matches!(end, Err(AcceptError::Closed)));
            listener.close();
            drop(accepted);
        }
        let error = PacketListener::from_spec(&spec("addr: '127.0.0.1:0'"), &runtime).err().expect("streams");
        assert!(matches!(error, ListenError::Kind(_)), "{error}");
    });
}

/// Two cores take a connection each while there is one place: the second is held, not closed.
#[test]
fn case_54_63_packets_wait_for_a_place_that_another_core_has() {
    each(async |runtime| {
        let name = format!("unixpacket://@ringport-case-54-two-{}", std::process::id());
        let parts =
            ListenPart::open(&spec(&format!("{{addr: '{name}', connectionLimit: 1}}")), 2).expect("free");
        let mut parts = parts.into_iter().map(|part| PacketListener::new(part, &runtime).expect("watched"));
        let (mut one, mut other) = (parts.next().expect("two"), parts.next().expect("two"));
        for listener in [&mut one, &mut other] {
            assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
        }
        turn().await;
        let (dialer, target) = (Dialer::new(&runtime), name.parse().expect("a target"));
        let first = dialer.dial_packets(&target).await.expect("it listens");
        let second = dialer.dial_packets(&target).await.expect("it listens");
        first.send(&b"first"[..]).await.expect("open");
        second.send(&b"second"[..]).await.expect("open");
        let either = poll_fn(|cx| match one.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready((accepted, false)),
            Poll::Pending => other.poll_accept(cx).map(|accepted| (accepted, true)),
        });
        let (accepted, by_other) = either.await;
        let accepted = accepted.expect("a client");
        let mut rest = if by_other { [one, other] } else { [other, one] };
        for _ in 0..10 {
            for listener in &mut rest {
                assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
            }
            turn().await;
        }
        let came = accepted.recv().await.expect("a packet");
        let waits: &[u8] = if &came.bytes[..] == b"first" { b"second" } else { b"first" };
        drop(accepted);
        let held = poll_fn(|cx| match rest[0].poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(accepted),
            Poll::Pending => rest[1].poll_accept(cx),
        });
        assert_eq!(&held.await.expect("its turn").recv().await.expect("a packet").bytes[..], waits);
    });
}

#[test]
fn case_55_the_file_has_its_mode_and_goes_with_the_listener() {
    each(async |runtime| {
        let file = path("case-55");
        let yaml = format!("{{addr: 'unix://{}', unix: {{mode: '0660'}}}}", file.display());
        let listener = listen(&runtime, &yaml);
        let found = FileFacts::of(&file);
        assert_eq!((found.kind.as_str(), found.mode), ("socket", 0o660));

        // Live: refused, and still there.
        let error = refused(&runtime, &yaml);
        assert!(matches!(error, ListenError::File { fault: FileFault::LiveSocket, .. }), "{error}");
        assert_eq!(FileFacts::of(&file).inode, found.inode);
        drop(listener);
        assert!(!file.exists());

        // Stale: what a listener leaves that does not remove it.
        let keeps = format!("{{addr: 'unix://{}', unix: {{remove: false, mode: '0600'}}}}", file.display());
        drop(listen(&runtime, &keeps));
        turn().await;
        assert!(file.exists());
        let never = format!("{{addr: 'unix://{}', unix: {{replaceStale: false}}}}", file.display());
        let error = refused(&runtime, &never);
        assert!(matches!(error, ListenError::File { fault: FileFault::StaleSocket, .. }), "{error}");
        let mut listener = listen(&runtime, &yaml);
        pair(&runtime, &mut listener).await;

        // What has taken its place is not ours.
        std::fs::remove_file(&file).expect("it is there");
        std::fs::write(&file, "a note").expect("writable");
        drop(listener);
        assert_eq!(std::fs::read_to_string(&file).expect("it stays"), "a note");
        let error = refused(&runtime, &yaml);
        assert!(matches!(error, ListenError::File { fault: FileFault::OtherFile, .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&file).expect("it stays"), "a note");
        std::fs::remove_file(&file).expect("it is there");
    });
}

#[test]
fn case_55_the_file_has_its_owner() {
    each(async |runtime| {
        let file = path("case-55-owner");
        let yaml = |unix: &str| format!("{{addr: 'unix://{}', unix: {{{unix}}}}}", file.display());
        let error = refused(&runtime, &yaml("owner: nobody-of-that-name"));
        assert!(matches!(&error, ListenError::File { fault: FileFault::NoSuchOwner(_), .. }), "{error}");
        assert!(!file.exists());
        let is_root = FileFacts::of(Path::new("/proc/self/")).uid == 0;
        if !is_root {
            let error = refused(&runtime, &yaml("owner: '0'"));
            assert!(matches!(&error, ListenError::File { fault: FileFault::Assign(_), .. }), "{error}");
            assert!(!file.exists(), "nothing is left behind");
            skipped("another owner: it needs CAP_CHOWN");
            return;
        }
        let _listener = listen(&runtime, &yaml("owner: '65534', group: root, mode: '0620'"));
        let found = FileFacts::of(&file);
        assert_eq!((found.uid, found.gid, found.mode), (65_534, 0, 0o620));
    });
}

#[test]
fn case_56_an_abstract_name_is_visible_and_leaves_nothing() {
    each(async |runtime| {
        let name = format!("@ringport-case-56-{}", std::process::id());
        let listed = || std::fs::read_to_string("/proc/net/unix").expect("procfs").contains(&name);
        let listener = listen(&runtime, &format!("addr: 'unix://{name}'"));
        assert!(listed());
        drop(listener);
        while listed() {
            turn().await;
        }
    });
}

#[test]
fn case_57_d16_a_bind_that_fails_is_an_error() {
    each(async |runtime| {
        let error = refused(&runtime, "addr: 'unix:///no/such/folder/socket'");
        let ListenError::Address { addr, error } = &error else { panic!("{error}") };
        assert_eq!(addr.to_string(), "unix:/no/such/folder/socket");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let error = refused(&runtime, "addr: '192.0.2.1:0'");
        let ListenError::Address { error, .. } = &error else { panic!("{error}") };
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn case_60_d17_who_is_kept_out_never_comes_to_accept() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            "{addr: '127.0.0.1:0', connectionLimit: 1, denyNetworks: [127.0.0.2, 127.0.0.3]}",
        );
        let to = listener.local_addr().clone();
        let denied = connect_from(&runtime, "127.0.0.2:0", &to).await;
        denied.send_seg(b"hello".as_slice().into()).expect("open");
        let also = connect_from(&runtime, "127.0.0.3:0", &to).await;
        let (_client, (mut server, peer)) = pair(&runtime, &mut listener).await;
        let LocalAddr::Inet(addr) = peer.client() else { panic!("{peer:?}") };
        assert_eq!(addr.ip().to_string(), "127.0.0.1");
        // Not a byte was read: the kernel resets for what nobody took, and ends in order where there was none.
        poll_fn(|cx| denied.poll_recv_buf(cx)).await.map(|_| ()).expect_err("a reset");
        assert!(poll_fn(|cx| also.poll_recv_buf(cx)).await.expect("in order").is_none());
        let stats = listener.handle().stats();
        assert_eq!((stats.accepted, stats.denied, stats.over_limit), (1, 2, 0));
        assert_eq!(listener.handle().open_connections(), 1);
        server.shutdown().await.expect("open");
    });
}

#[test]
fn case_63_beyond_the_limit_one_waits_for_another_to_end() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', connectionLimit: 5}");
        let to = listener.local_addr().clone();
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(pair(&runtime, &mut listener).await);
        }
        let mut sixth = connect(&runtime, &to).await;
        sixth.send(&b"hello"[..]).await.expect("the kernel keeps it");
        for _ in 0..10 {
            assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
            turn().await;
        }
        let stats = runtime.core().stats();
        assert_eq!(stats.accepted.load(), 5, "the sixth waits in the kernel");
        let (_, (ended, _)) = open.pop().expect("five");
        let accepted = join(accept(&mut listener), async {
            turn().await;
            drop(ended);
        });
        let ((mut server, _), ()) = accepted.await;
        assert_eq!(&*server.recv().await.expect("open").expect("bytes"), b"hello");
        assert_eq!(listener.handle().open_connections(), 5);
    });
}

#[test]
fn case_63_beyond_the_limit_one_is_closed_where_asked() {
    each(async |runtime| {
        let mut listener =
            listen(&runtime, "{addr: '127.0.0.1:0', connectionLimit: 2, connectionLimitPolicy: reject}");
        let to = listener.local_addr().clone();
        let first = pair(&runtime, &mut listener).await;
        let _second = pair(&runtime, &mut listener).await;
        let mut third = connect(&runtime, &to).await;
        let closed = async {
            assert!(is_closed(&mut third).await);
            drop(first);
            connect(&runtime, &to).await
        };
        let (_fourth, _) = join(closed, accept(&mut listener)).await;
        assert_eq!(listener.handle().stats().over_limit, 1);
    });
}

#[test]
fn case_63_d19_closing_wakes_a_full_and_a_waiting_accept() {
    each(async |runtime| {
        for limit in [1, 2] {
            let mut listener =
                listen(&runtime, &format!("{{addr: '127.0.0.1:0', connectionLimit: {limit}}}"));
            let (mut client, (mut server, _)) = pair(&runtime, &mut listener).await;
            let handle = listener.handle();
            let waits = runtime.core().spawn(async move {
                let end = listener.accept().await.map(drop);
                (end, listener)
            });
            turn().await;
            handle.close();
            let (end, listener) = waits.await.expect("it does not panic");
            assert!(matches!(end, Err(AcceptError::Closed)), "limit {limit}");
            let to = ConnectAddr::from(listener.local_addr().clone());
            turn().await;
            assert!(net::connect(&runtime, &to).await.is_err(), "nobody listens any more");
            echoes(&mut client, &mut server).await;
        }
    });
}

#[test]
fn case_64_a_limit_for_each_address() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', connectionLimitPerAddress: 2}");
        let to = listener.local_addr().clone();
        let first = pair(&runtime, &mut listener).await;
        let _second = pair(&runtime, &mut listener).await;
        let mut third = connect(&runtime, &to).await;
        let (_other, (_, peer)) =
            join(connect_from(&runtime, "127.0.0.2:0", &to), accept(&mut listener)).await;
        let LocalAddr::Inet(addr) = peer.client() else { panic!("{peer:?}") };
        assert_eq!(addr.ip().to_string(), "127.0.0.2");
        assert!(is_closed(&mut third).await);
        assert_eq!(listener.handle().stats().over_limit_per_address, 1);
        drop(first);
        pair(&runtime, &mut listener).await;
    });
}

#[test]
fn case_66_d22_a_read_deadline_is_of_one_read() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', readDeadline: 1500}");
        let (mut client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let other = runtime.clone();
        let writer = async move {
            for _ in 0..6 {
                other.sleep(Duration::from_millis(300)).await;
                client.send(&b"x"[..]).await.expect("it is not cut");
            }
            client
        };
        let began = runtime.now();
        let reader = async {
            for _ in 0..6 {
                server.recv().await.expect("steady").expect("bytes");
            }
            assert!(runtime.now() - began > Duration::from_millis(1500));
            server.recv().await.expect_err("silence")
        };
        let (_client, error) = join(writer, reader).await;
        assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Read(Duration::from_millis(1500))));
    });
}

/// It lingered for the bytes that its peer did not take, and had already given its place to another.
#[test]
fn case_66_who_takes_nothing_gets_no_time_to_linger() {
    let core = CoreSpec { linger: Duration::from_secs(3600), ..CoreSpec::default() };
    Rig { core, ..Rig::default() }.each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', writeDeadline: 200}");
        let (client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let error = loop {
            if let Err(error) = server.send(vec![0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Write(Duration::from_millis(200))));
        drop(server);
        // The listener and the client are left.
        while runtime.core().socket_count() > 2 {
            turn().await;
        }
        drop(client);
    });
}

#[test]
fn case_66_a_connection_has_an_end_whatever_happens() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "{addr: '127.0.0.1:0', connectionDeadline: 300}");
        let (mut client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let began = runtime.now();
        let error = loop {
            if let Err(error) = client.send(&b"x"[..]).await {
                panic!("{error}");
            }
            match server.recv().await {
                Ok(_) => turn().await,
                Err(error) => break error,
            }
        };
        let expected = Some(DeadlineError::Connection(Duration::from_millis(300)));
        assert_eq!(DeadlineError::of(&error), expected);
        assert!(runtime.now() - began >= Duration::from_millis(290));
        let error = server.send(&b"x"[..]).await.expect_err("too old");
        assert_eq!(DeadlineError::of(&error), expected);

        // Also one that waits.
        let (_client, (mut server, _)) = pair(&runtime, &mut listener).await;
        let error = server.recv().await.expect_err("nothing comes");
        assert_eq!(DeadlineError::of(&error), expected);
    });
}

const BEHIND: &str = "proxyProtocol: {trusted: [127.0.0.1], timeout: 400}";

fn from(source: &str) -> Header {
    Header::Inet {
        source: source.parse().expect("an address"),
        destination: "198.51.100.7:443".parse().expect("an address"),
    }
}

#[test]
fn case_69_a_trusted_proxy_says_who_the_client_is() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            &format!(
                "{{addr: '127.0.0.1:0', {BEHIND}, denyNetworks: [203.0.113.0/24], connectionLimitPerAddress: 2}}"
            ),
        );
        let to = listener.local_addr().clone();
        for version in [Version::V1, Version::V2] {
            let header = from("192.0.2.1:5000");
            let mut client = connect(&runtime, &to).await;
            // In two pieces, and with the first bytes behind it.
            let mut bytes = header.encode(version);
            let rest = bytes.split_off(9);
            client.send(bytes).await.expect("open");
            turn().await;
            client.send([&rest, b"hello".as_slice()].concat()).await.expect("open");
            let (mut server, peer) = accept(&mut listener).await;
            assert_eq!(peer.client().to_string(), "192.0.2.1:5000");
            assert_eq!((peer.header(), port(peer.connection()) != 5000), (Some(&header), true));
            let mut hello = [0; 5];
            server.read_exact(&mut hello).await.expect("it comes");
            assert_eq!(&hello, b"hello");

            // The lists look at the client, not at the proxy; so do the limits.
            let mut denied = connect(&runtime, &to).await;
            denied.send(from("203.0.113.9:1").encode(version)).await.expect("open");
            let mut malformed = connect(&runtime, &to).await;
            malformed.send(&b"GET / HTTP/1.1\r\n\r\n"[..]).await.expect("open");
            let mut local = connect(&runtime, &to).await;
            local.send(Header::Local.encode(version)).await.expect("open");
            let (_, peer) = accept(&mut listener).await;
            assert_eq!(peer.client(), peer.connection());
            assert!(is_closed(&mut denied).await);
            assert!(is_closed(&mut malformed).await);
        }
        let untrusted = connect_from(&runtime, "127.0.0.2:0", &to).await;
        let pending = now(|cx| listener.poll_accept(cx)).await.is_pending();
        assert!(pending);
        let end = join(
            async { poll_fn(|cx| untrusted.poll_recv_buf(cx)).await.ok().flatten().is_none() },
            poll_fn(|cx| {
                assert!(listener.poll_accept(cx).is_pending());
                if listener.handle().stats().denied == 3 { Poll::Ready(()) } else { Poll::Pending }
            }),
        );
        assert!(end.await.0);
        let stats = listener.handle().stats();
        assert_eq!((stats.accepted, stats.denied, stats.bad_header), (4, 3, 2));
    });
}

#[test]
fn case_69_a_slow_header_keeps_nobody_waiting() {
    each(async |runtime| {
        let mut listener =
            listen(&runtime, &format!("{{addr: '127.0.0.1:0', connectionLimit: 1, {BEHIND}}}"));
        let to = listener.local_addr().clone();
        let mut slow = connect(&runtime, &to).await;
        slow.send(&b"PROXY TCP4 "[..]).await.expect("open");
        let mut quick = connect(&runtime, &to).await;
        quick.send(from("192.0.2.1:5000").encode(Version::V1)).await.expect("open");
        let (_server, peer) = accept(&mut listener).await;
        assert_eq!(peer.client().to_string(), "192.0.2.1:5000");
        assert!(is_closed(&mut slow).await, "after its time");
        assert_eq!(listener.handle().stats().late_header, 1);
    });
}

/// What does not fit into the limits of the spec, which are other than by default.
#[test]
fn case_69_limits_of_headers_are_those_of_the_spec() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            "{addr: '127.0.0.1:0', proxyProtocol: {trusted: [127.0.0.1], maxHeaderBytes: 232, maxPending: 2}}",
        );
        let to = listener.local_addr().clone();
        let with_extra = |len: u16| {
            let mut bytes = from("192.0.2.1:5000").encode(Version::V2);
            let body = 12 + 3 + len;
            bytes[14..16].copy_from_slice(&body.to_be_bytes());
            bytes.extend([&[4], &len.to_be_bytes()[..], &vec![0; len.into()]].concat());
            bytes
        };
        let mut longest = connect(&runtime, &to).await;
        longest.send(with_extra(201)).await.expect("open");
        accept(&mut listener).await;
        let mut longer = connect(&runtime, &to).await;
        longer.send(with_extra(202)).await.expect("open");
        let mut slow = Vec::new();
        for _ in 0..3 {
            slow.push(connect(&runtime, &to).await);
            for _ in 0..10 {
                assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
                turn().await;
            }
        }
        assert!(is_closed(&mut longer).await);
        assert!(is_closed(&mut slow[0]).await, "the oldest");
        let stats = listener.handle().stats();
        assert_eq!((stats.bad_header, stats.crowded_out), (1, 1));
    });
}

#[test]
fn case_69_headers_that_are_waited_for_have_a_limit() {
    each(async |runtime| {
        let mut listener = listen(
            &runtime,
            "{addr: '127.0.0.1:0', backlog: 4096, proxyProtocol: {trusted: [127.0.0.1], timeout: 60000}}",
        );
        let to = listener.local_addr().clone();
        let mut slow = Vec::new();
        for at in 0..1025 {
            slow.push(connect(&runtime, &to).await);
            if at % 64 == 0 {
                assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
            }
        }
        let mut quick = connect(&runtime, &to).await;
        quick.send(from("192.0.2.1:5000").encode(Version::V2)).await.expect("open");
        accept(&mut listener).await;
        assert_eq!(listener.handle().stats().crowded_out, 2, "of 1,026 that waited at a time");
        assert!(is_closed(&mut slow[0]).await, "the oldest");
        listener.close();
        assert!(is_closed(&mut slow[1024]).await, "with the listener");
    });
}
