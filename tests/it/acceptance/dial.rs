//! Cases of dialled connections, on both drivers.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use ringport::net::{
    Bounded, DeadlineError, DialError, DialErrorKind, Dialer, PacketError, Phase, ResolveError, Stream,
    accept,
};
use ringport::proto::proxy_protocol::{Header, Version};
use ringport::runtime::native::{Native, NativeListener};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, Runtime};
use ringport::spec::{DialSpec, Format, NetAddr, OriginAddress};
use ringport_platform::sockopt::{Opt, Setting};

use super::namespace::in_namespace;
use crate::packet::{inet, open};
use crate::rig::{any_port, each, join, now, open_fds, skipped, turn};

type Dialled = Stream<Bounded<Native>>;

fn dialer(runtime: &Native, yaml: &str) -> Dialer<Native> {
    let spec = DialSpec::from_text(yaml, Format::Yaml, "f").expect("a good spec");
    Dialer::from_spec(&spec, runtime)
}

fn target(text: &str) -> NetAddr<OriginAddress> {
    text.parse().expect("a target")
}

fn listen(runtime: &Native, addr: &ConnectAddr) -> (NativeListener, NetAddr<OriginAddress>) {
    let listener = runtime.listen(addr, ListenOptions::default()).expect("a free address");
    let target = match listener.local_addr().expect("it listens") {
        LocalAddr::Inet(addr) => target(&format!("tcp://{addr}")),
        LocalAddr::Unix(name) => {
            target(&format!("unix://{}", String::from_utf8_lossy(&name).replace('\0', "@")))
        }
    };
    (listener, target)
}

async fn dialled(dialer: &Dialer<Native>, to: &NetAddr<OriginAddress>) -> Result<Dialled, DialError> {
    dialer.dial(to).await
}

fn sock_opt(stream: &mut Dialled, opt: Opt) -> Setting {
    stream.transport().inner().sock().option(opt).expect("it has the option")
}

fn held(opt: Opt, setting: impl Into<Setting>) -> (Opt, Setting) {
    (opt, setting.into())
}

/// The address of a listener that answers nothing: its queue is full, so that the kernel drops every further SYN. The queue is
/// full as long as what is given lives.
async fn silent(runtime: &Native, addr: SocketAddr) -> (SocketAddr, impl Sized + use<>) {
    let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
    let listener = runtime.listen(&addr.into(), options).expect("a free address");
    let LocalAddr::Inet(addr) = listener.local_addr().expect("it listens") else { panic!("of IP") };
    let mut queued = Vec::new();
    loop {
        let connecting = runtime.connect(&addr.into());
        match runtime.core().timeout(Duration::from_millis(100), connecting).await {
            Ok(stream) => queued.push(stream.expect("the kernel queues it")),
            Err(_) => break,
        }
    }
    // The one that was given up is closed.
    for _ in 0..3 {
        turn().await;
    }
    (addr, (listener, queued))
}

#[test]
fn case_16_a_port_is_left_to_connect() {
    in_namespace("acceptance::dial::case_16_a_port_is_left_to_connect", &[], || {
        each(async |runtime| {
            let (_one, one) = listen(&runtime, &any_port());
            let (_two, two) = listen(&runtime, &any_port());
            let ranged = "{localAddress: '127.0.0.1:0', sockOption: {ipOption: {localPortRangeLower: 41000, \
                          localPortRangeUpper: 41000}}}";
            let dialer = dialer(&runtime, ranged);
            let first = dialled(&dialer, &one).await.expect("the port is free");
            let second = dialled(&dialer, &two).await.expect("the port is free for another peer");
            for stream in [first, second] {
                let LocalAddr::Inet(addr) = stream.local_addr().expect("connected") else { panic!("of IP") };
                assert_eq!(addr.port(), 41_000);
                stream.reset();
            }
        });
    });
}

#[test]
fn case_18_a_range_of_ports_is_used_up() {
    in_namespace("acceptance::dial::case_18_a_range_of_ports_is_used_up", &[], || {
        each(async |runtime| {
            // A port outside the range: one that the kernel chooses may lie in it.
            let (_listener, to) = listen(&runtime, &SocketAddr::from(([127, 0, 0, 1], 7018)).into());
            let dialer = dialer(
                &runtime,
                "{sockOption: {ipOption: {localPortRangeLower: 40000, localPortRangeUpper: 40003}}}",
            );
            let mut streams = Vec::new();
            for _ in 0..4 {
                streams.push(dialled(&dialer, &to).await.expect("a port is left"));
            }
            let port = |stream: &Dialled| match stream.local_addr() {
                Ok(LocalAddr::Inet(addr)) => addr.port(),
                other => panic!("{other:?}"),
            };
            let mut ports: Vec<_> = streams.iter().map(port).collect();
            ports.sort_unstable();
            assert_eq!(ports, [40_000, 40_001, 40_002, 40_003]);
            let error = dialled(&dialer, &to).await.err().expect("all are taken");
            assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
            streams.into_iter().for_each(Stream::reset);
        });
    });
}

/// A cork keeps small segments for 200 ms, unless it is released.
#[test]
fn case_23_a_cork_is_released() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let corked = dialer(&runtime, "sockOption: {tcpOption: {cork: true}}");
        let (near, far) = join(dialled(&corked, &to), accept(&runtime, &mut listener)).await;
        let (mut near, mut far) = (near.expect("it listens"), far.expect("it is dialled"));
        let begin = runtime.now();
        near.send(&b"ab"[..]).await.expect("open");
        assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"ab");
        assert!(runtime.now() - begin >= Duration::from_millis(150), "it was held back");
        // On a machine that stands still for as long, the kernel's time is over before ours.
        let mut tries = 0;
        loop {
            let begin = runtime.now();
            near.send(&b"cd"[..]).await.expect("open");
            near.flush().await.expect("open");
            turn().await;
            let is_held = now(|cx| far.poll_fill(cx, usize::MAX)).await.is_pending();
            near.release_cork().await.expect("open");
            assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"cd");
            turn().await;
            if is_held && runtime.now() - begin < Duration::from_millis(150) {
                break;
            }
            tries += 1;
            assert!(tries < 20, "it was not released");
        }
    });
}

#[test]
fn case_25_keep_alive_holds_on_a_dialled_socket() {
    each(async |runtime| {
        let (_listener, to) = listen(&runtime, &any_port());
        let dialer = dialer(&runtime, "{keepAliveConfig: {idle: 11, interval: 12, count: 5}}");
        let mut stream = dialled(&dialer, &to).await.expect("it listens");
        let seconds = Duration::from_secs;
        for (opt, setting) in [
            held(Opt::SoKeepalive, true),
            held(Opt::TcpKeepidle, seconds(11)),
            held(Opt::TcpKeepintvl, seconds(12)),
            held(Opt::TcpKeepcnt, 5_i64),
            held(Opt::TcpNodelay, true),
        ] {
            assert_eq!(sock_opt(&mut stream, opt), setting, "{opt}");
        }
    });
}

#[test]
fn case_29_no_delay_may_be_off() {
    each(async |runtime| {
        let (_listener, to) = listen(&runtime, &any_port());
        for (text, expected) in [("false", Setting::Off), ("true", Setting::from(true))] {
            let dialer = dialer(&runtime, &format!("{{sockOption: {{tcpOption: {{noDelay: {text}}}}}}}"));
            let mut stream = dialled(&dialer, &to).await.expect("it listens");
            assert_eq!(sock_opt(&mut stream, Opt::TcpNodelay), expected);
        }
    });
}

#[test]
fn case_44_the_local_address() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let from_two = dialer(&runtime, "{localAddress: '127.0.0.2:0'}");
        let (near, far) = join(dialled(&from_two, &to), accept(&runtime, &mut listener)).await;
        let (near, far) = (near.expect("it listens"), far.expect("it is dialled"));
        let LocalAddr::Inet(peer) = far.peer_addr().expect("connected") else { panic!("of IP") };
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 0, 2));
        drop(near);

        let from_v6 = dialer(&runtime, "{localAddress: 'tcp6://[::1]:0'}");
        let error = dialled(&from_v6, &to).await.err().expect("another family");
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
        let error = dialled(&from_two, &target("unix:///nowhere")).await.err().expect("another family");
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
        let by_name = target("tcp4://localhost:1");
        let error = dialled(&from_v6, &by_name).await.err().expect("another family");
        assert_eq!(*error.kind(), DialErrorKind::Resolve(ResolveError::NoSuitableAddress), "{error}");
        let foreign = dialer(&runtime, "{localAddress: '192.0.2.9:0'}");
        let error = dialled(&foreign, &to).await.err().expect("not an address of ours");
        assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
        assert!(error.to_string().contains("192.0.2.9:0"), "{error}");
    });
}

#[test]
fn case_45_replaced_targets() {
    each(async |runtime| {
        let path = format!("{}/a path with blanks.sock", env!("CARGO_TARGET_TMPDIR"));
        let _ = std::fs::remove_file(&path);
        let name = format!("ringport case 45 {}", std::process::id());
        for (addr, text) in [
            (ConnectAddr::Unix(path.clone().into_bytes()), path.clone()),
            (ConnectAddr::Unix(format!("\0{name}").into_bytes()), format!("@{name}")),
        ] {
            let mut listener = runtime.listen(&addr, ListenOptions::default()).expect("a free name");
            // A name that nobody could look up, and a rule that would go on where the first ends.
            let yaml = format!(
                "{{replaceTargets: ['(tcp|no.such.invalid:80) > (unix|{text})', '(unix|{text}) > (unix|/x)']}}"
            );
            let dialer = dialer(&runtime, &yaml);
            let to = target("tcp://no.such.invalid:80");
            let (near, far) = join(dialled(&dialer, &to), accept(&runtime, &mut listener)).await;
            near.expect("it listens").send(&b"hello"[..]).await.expect("open");
            assert_eq!(&*far.expect("dialled").recv().await.expect("open").expect("bytes"), b"hello");
        }
        std::fs::remove_file(&path).expect("the listener made it");
    });
}

#[test]
fn case_47_a_family_that_does_not_answer() {
    let hosts = ["::1 both.test", "127.0.0.1 both.test"];
    in_namespace("acceptance::dial::case_47_a_family_that_does_not_answer", &hosts, || {
        each(async |runtime| {
            let (dead, _full) = silent(&runtime, "[::1]:0".parse().expect("an address")).await;
            let live = SocketAddr::from((Ipv4Addr::LOCALHOST, dead.port()));
            let (_listener, _) = listen(&runtime, &live.into());
            let to = target(&format!("tcp://both.test:{}", dead.port()));
            let begin = runtime.now();
            let stream = dialled(&Dialer::new(&runtime), &to).await.expect("one family answers");
            let took = runtime.now() - begin;
            assert_eq!(stream.peer_addr().expect("connected"), LocalAddr::Inet(live));
            assert!(took >= Duration::from_millis(290), "the first family was given its time: {took:?}");
            // One after the other: half of the time, and then the other.
            let sequential = dialer(&runtime, "{fallbackDelay: -1, timeout: 5000}");
            let begin = runtime.now();
            dialled(&sequential, &to).await.expect("the second family answers");
            let took = runtime.now() - begin;
            assert!(took >= Duration::from_millis(2_450), "{took:?}");
            // Of one family alone there is nobody.
            let to = target(&format!("tcp6://both.test:{}", dead.port()));
            let hurried = dialer(&runtime, "{timeout: 200}");
            let error = dialled(&hurried, &to).await.err().expect("it is silent");
            assert_eq!(*error.kind(), DialErrorKind::TimedOut(Phase::Connect), "{error}");
        });
    });
}

#[test]
fn case_48_a_dial_ends_by_its_timeout() {
    each(async |runtime| {
        let (dead, _full) = silent(&runtime, "127.0.0.1:0".parse().expect("an address")).await;
        turn().await;
        let fds = open_fds();
        let dialer = dialer(&runtime, "{timeout: 200}");
        let begin = runtime.now();
        let error = dialled(&dialer, &target(&format!("tcp://{dead}"))).await.err().expect("it is silent");
        assert!(runtime.now() - begin >= Duration::from_millis(195));
        assert_eq!(*error.kind(), DialErrorKind::TimedOut(Phase::Connect), "{error}");
        assert_eq!(error.failures()[0].addr, LocalAddr::Inet(dead));
        turn().await;
        turn().await;
        assert_eq!(open_fds(), fds, "the socket is closed");
    });
}

#[test]
fn case_49_each_address_has_its_share() {
    let hosts = ["127.0.0.2 many.test", "127.0.0.3 many.test", "127.0.0.4 many.test", "127.0.0.5 many.test"];
    in_namespace("acceptance::dial::case_49_each_address_has_its_share", &hosts, || {
        each(async |runtime| {
            let (first, _full) = silent(&runtime, "127.0.0.2:0".parse().expect("an address")).await;
            let port = first.port();
            let at = |last: u8| SocketAddr::from(([127, 0, 0, last], port));
            let (_, _second) = silent(&runtime, at(3)).await;
            let (_, _third) = silent(&runtime, at(4)).await;
            let (_listener, _) = listen(&runtime, &at(5).into());
            let dialer = dialer(&runtime, "{fallbackDelay: -1, timeout: 8000}");
            let begin = runtime.now();
            let stream = dialled(&dialer, &target(&format!("tcp://many.test:{port}"))).await;
            let took = runtime.now() - begin;
            assert_eq!(stream.expect("the last answers").peer_addr().expect("open"), LocalAddr::Inet(at(5)));
            assert!(took >= Duration::from_millis(5_900) && took < Duration::from_secs(8), "{took:?}");
        });
    });
}

/// Dropped after each number of polls, in each phase: the name, the connect; nothing is left.
#[test]
fn case_50_a_dial_may_be_dropped_at_any_point() {
    each(async |runtime| {
        let (dead, _full) = silent(&runtime, "127.0.0.1:0".parse().expect("an address")).await;
        let (mut listener, live) = listen(&runtime, &any_port());
        turn().await;
        let fds = open_fds();
        let named = target(&format!("tcp4://localhost:{}", dead.port()));
        for to in [target(&format!("tcp://{dead}")), named, live.clone()] {
            for polls in 0..12 {
                // A dialer each time, so that the name is not known already.
                let dialer = dialer(&runtime, "{fallbackDelay: 10}");
                let mut dialling = pin!(dialer.dial(&to));
                for _ in 0..polls {
                    if now(|cx| dialling.as_mut().poll(cx)).await.is_ready() {
                        break;
                    }
                    turn().await;
                }
            }
        }
        for _ in 0..3 {
            turn().await;
        }
        // Those that connected before they were dropped wait in the listener's queue, in the kernel.
        let descriptors = open_fds().into_iter().filter(|fd| fd.starts_with("socket:")).count();
        assert_eq!(descriptors, fds.iter().filter(|fd| fd.starts_with("socket:")).count());
        let (near, _far) =
            join(dialled(&Dialer::new(&runtime), &live), accept(&runtime, &mut listener)).await;
        let near = near.expect("it listens");
        drop(near);
    });
}

#[test]
fn case_51_kinds_of_errors() {
    in_namespace("acceptance::dial::case_51_kinds_of_errors", &[], || {
        let mut ip = std::process::Command::new("ip");
        let prohibits = ip.args(["route", "add", "prohibit", "198.51.100.0/24"]).status();
        let prohibits = prohibits.is_ok_and(|status| status.success());
        if !prohibits {
            skipped("a forbidden target needs ip(8)");
        }
        each(async |runtime| {
            let plain = Dialer::new(&runtime);
            let kind = async |dialer: &Dialer<Native>, to: &str| {
                let error = dialled(dialer, &target(to)).await.err().expect("it fails");
                assert!(error.to_string().contains(to), "the target is told: {error}");
                error
            };
            let error = kind(&plain, "tcp://127.0.0.1:1").await;
            assert_eq!(*error.kind(), DialErrorKind::Refused, "{error}");
            assert_eq!(error.failures()[0].addr.to_string(), "127.0.0.1:1");
            let error = kind(&plain, "tcp://192.0.2.1:1").await;
            assert_eq!(*error.kind(), DialErrorKind::Unreachable, "{error}");
            let error = kind(&plain, "unix:///nowhere/at/all").await;
            assert_eq!(*error.kind(), DialErrorKind::Unreachable, "{error}");
            if prohibits {
                let error = kind(&plain, "tcp://198.51.100.1:1").await;
                assert_eq!(*error.kind(), DialErrorKind::Forbidden, "{error}");
            }
            // The hosts file is all that can be asked here: no server is reached.
            let error = kind(&dialer(&runtime, "{timeout: 100}"), "tcp://no.such.invalid:1").await;
            assert!(
                matches!(error.kind(), DialErrorKind::Resolve(_) | DialErrorKind::TimedOut(Phase::Resolve)),
                "{error}"
            );
            let error = kind(&plain, "tcp6://localhost:1").await;
            assert!(matches!(error.kind(), DialErrorKind::Resolve(_) | DialErrorKind::Refused), "{error}");
            let unbindable = dialer(&runtime, "{sockOption: {soOption: {bindToDevice: nosuchif0}}}");
            let error = kind(&unbindable, "tcp://127.0.0.1:1").await;
            assert_eq!(*error.kind(), DialErrorKind::Option, "{error}");
            assert!(error.to_string().contains("SO_BINDTODEVICE") && error.to_string().contains("ENODEV"));
        });
    });
}

#[test]
fn case_39_options_of_another_kind_of_socket() {
    each(async |runtime| {
        let path = ConnectAddr::Unix(format!("\0ringport-case-39-{}", std::process::id()).into_bytes());
        let (_unix, unix) = listen(&runtime, &path);
        let (_tcp, tcp) = listen(&runtime, &any_port());
        let options = "tcpOption: {userTimeout: 1500}";
        let refusing = dialer(&runtime, &format!("{{sockOption: {{{options}}}}}"));
        dialled(&refusing, &tcp).await.expect("TCP has it");
        let error = dialled(&refusing, &unix).await.err().expect("a Unix socket lacks it");
        assert_eq!(*error.kind(), DialErrorKind::Option, "{error}");
        assert!(error.to_string().contains("TCP_USER_TIMEOUT"), "{error}");
        let warning = dialer(&runtime, &format!("{{sockOption: {{{options}, onUnsupported: warn}}}}"));
        let mut stream = dialled(&warning, &tcp).await.expect("TCP has it");
        assert_eq!(sock_opt(&mut stream, Opt::TcpUserTimeout), Setting::from(Duration::from_millis(1_500)));
        dialled(&warning, &unix).await.expect("it is skipped");
    });
}

#[test]
fn case_52_networks_of_packets_are_no_streams() {
    each(async |runtime| {
        for to in ["udp://127.0.0.1:1", "unixgram:///x", "unixpacket:///x", "ip4:icmp://127.0.0.1"] {
            let error = dialled(&Dialer::new(&runtime), &target(to)).await.err().expect("no stream");
            assert_eq!(*error.kind(), DialErrorKind::NotAStream, "{error}");
        }
        let path = format!("{}/case-52-{}.sock", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let _ = std::fs::remove_file(&path);
        let udp = open(&runtime, "address: 'udp4://127.0.0.1:0'").await;
        let unixgram = open(&runtime, &format!("address: 'unixgram://{path}'")).await;
        let by_name = format!("udp4://localhost:{}", inet(&udp).port());
        // Without a name of its own a Unix socket gets no answer.
        let named = format!("localAddress: 'unixgram://@ringport-case-52-{}'", std::process::id());
        let unix_target = format!("unixgram://{path}");
        for (yaml, to, server) in [("{}", &by_name, &udp), (named.as_str(), &unix_target, &unixgram)] {
            let client = dialer(&runtime, yaml).dial_packets(&target(to)).await.expect("it is there");
            client.send(&b"ping"[..]).await.expect("sent");
            let (bytes, from) = server.recv_from().await.expect("a datagram");
            assert_eq!(&bytes[..], b"ping", "{to}");
            server.send_to(bytes, from).await.expect("sent");
            assert_eq!(&client.recv().await.expect("a datagram").bytes[..], b"ping", "{to}");
        }
        let replaced = format!(
            "{{localAddress: 'udp4://127.0.0.2:0', replaceTargets: ['(udp|a.invalid:1) > (udp|127.0.0.1:{})']}}",
            inet(&udp).port()
        );
        let client =
            dialer(&runtime, &replaced).dial_packets(&target("udp://a.invalid:1")).await.expect("replaced");
        assert_eq!(inet(&client).ip(), Ipv4Addr::new(127, 0, 0, 2));
        let error =
            Dialer::new(&runtime).dial_packets(&target("tcp://127.0.0.1:1")).await.err().expect("a stream");
        assert!(matches!(error, PacketError::Spec(_)), "{error}");
        let hurried = dialer(&runtime, "timeout: 10s").dial_packets(&target("udp://no.such.invalid:1")).await;
        assert!(matches!(hurried, Err(PacketError::Resolve(_))));
        assert!("ip4://127.0.0.1".parse::<NetAddr<OriginAddress>>().is_err(), "no protocol");
    });
}

#[test]
fn case_2_an_interface_that_does_not_exist() {
    each(async |runtime| {
        let (_listener, to) = listen(&runtime, &any_port());
        let fds = open_fds();
        let dialer = dialer(&runtime, "{sockOption: {soOption: {bindToDevice: nosuchif0}}}");
        let error = dialled(&dialer, &to).await.err().expect("no such interface");
        assert_eq!(*error.kind(), DialErrorKind::Option, "{error}");
        for part in ["SO_BINDTODEVICE", "ENODEV"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(open_fds(), fds);
    });
}

#[test]
fn case_11_a_receive_has_its_time() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let dialer = dialer(&runtime, "{sockOption: {soOption: {receiveTimeout: 200}}}");
        let (near, far) = join(dialled(&dialer, &to), accept(&runtime, &mut listener)).await;
        let (mut near, mut far) = (near.expect("it listens"), far.expect("dialled"));
        // A multiple of every kernel's tick, which it is rounded to.
        let limit = Duration::from_millis(200);
        assert_eq!(sock_opt(&mut near, Opt::SoRcvtimeo), limit.into());
        for _ in 0..2 {
            let begin = runtime.now();
            let error = near.recv().await.expect_err("nothing comes");
            assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Read(limit)));
            assert!(runtime.now() - begin >= Duration::from_millis(195));
        }
        far.send(&b"late"[..]).await.expect("open");
        assert_eq!(&*near.recv().await.expect("it came").expect("bytes"), b"late");
    });
}

#[test]
fn case_12_a_send_has_its_time() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let dialer = dialer(&runtime, "{sockOption: {soOption: {sendTimeout: 150}}}");
        let (near, _far) = join(dialled(&dialer, &to), accept(&runtime, &mut listener)).await;
        let mut near = near.expect("it listens");
        let limit = Duration::from_millis(150);
        let error = loop {
            if let Err(error) = near.send(vec![0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(DeadlineError::of(&error), Some(DeadlineError::Write(limit)));
        near.reset();
    });
}

#[test]
fn case_17_an_address_that_is_not_ours() {
    in_namespace("acceptance::dial::case_17_an_address_that_is_not_ours", &[], || {
        each(async |runtime| {
            // Reached through the loopback interface, whose own it is not.
            for (local, to) in [("192.0.2.123:0", any_port()), ("[2001:db8::123]:0", v6_port())] {
                let (_listener, to) = listen(&runtime, &to);
                let plain = dialer(&runtime, &format!("{{localAddress: '{local}'}}"));
                let error = dialled(&plain, &to).await.err().expect("not ours");
                assert_eq!(*error.kind(), DialErrorKind::LocalAddr, "{error}");
                let field = if local.starts_with('[') { "ipv6Option" } else { "ipOption" };
                let free = format!(
                    "{{localAddress: '{local}', timeout: 300, sockOption: {{{field}: {{freeBind: true}}}}}}"
                );
                // It binds; whether an answer finds back is the network's.
                match dialled(&dialer(&runtime, &free), &to).await {
                    Ok(stream) => stream.reset(),
                    Err(error) => assert_ne!(*error.kind(), DialErrorKind::LocalAddr, "{error}"),
                }
            }
        });
    });
}

#[test]
fn case_30_quick_acknowledgements() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let dialer = dialer(&runtime, "{sockOption: {tcpOption: {quickAck: true}}}");
        let (near, far) = join(dialled(&dialer, &to), accept(&runtime, &mut listener)).await;
        let (mut near, mut far) = (near.expect("it listens"), far.expect("dialled"));
        assert_eq!(sock_opt(&mut near, Opt::TcpQuickack), true.into());
        for _ in 0..40 {
            far.send(&b"x"[..]).await.expect("open");
            near.recv().await.expect("open").expect("bytes");
            assert_eq!(sock_opt(&mut near, Opt::TcpQuickack), true.into(), "again after each receive");
            near.send(&b"y"[..]).await.expect("open");
            far.recv().await.expect("open").expect("bytes");
        }
    });
}

#[test]
fn case_31_and_32_a_connect_that_the_kernel_gives_up() {
    each(async |runtime| {
        let (dead, _full) = silent(&runtime, "127.0.0.1:0".parse().expect("an address")).await;
        for (option, least) in [("synCount: 1", 2_900), ("userTimeout: 1500", 1_400)] {
            let dialer = dialer(&runtime, &format!("{{sockOption: {{tcpOption: {{{option}}}}}}}"));
            let begin = runtime.now();
            let error = dialled(&dialer, &target(&format!("tcp://{dead}"))).await.err().expect("silent");
            assert_eq!(*error.kind(), DialErrorKind::TimedOut(Phase::Connect), "{option}: {error}");
            let took = runtime.now() - begin;
            assert!(took >= Duration::from_millis(least), "{option}: {took:?}");
        }
    });
}

#[test]
fn case_42_several_paths_only_where_asked() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let mut plain = dialled(&Dialer::new(&runtime), &to).await.expect("it listens");
        assert_eq!(sock_opt(&mut plain, Opt::IpprotoMptcp), Setting::Off);
        drop(accept(&runtime, &mut listener).await);
        let contradiction = "{sockOption: {tcpOption: {mptcp: true, synCount: 3}}}";
        assert!(DialSpec::from_text(contradiction, Format::Yaml, "f").is_err(), "named before any dial");
        let multipath = dialer(&runtime, "{sockOption: {tcpOption: {mptcp: true}}}");
        match dialled(&multipath, &to).await {
            Ok(mut stream) => assert_eq!(sock_opt(&mut stream, Opt::IpprotoMptcp), true.into()),
            // A kernel without it refuses, and nothing falls back.
            Err(error) => assert_eq!(*error.kind(), DialErrorKind::Option, "{error}"),
        }
    });
}

#[test]
fn case_69_a_client_is_told_in_front_of_its_bytes() {
    each(async |runtime| {
        let (mut listener, to) = listen(&runtime, &any_port());
        let dialer = dialer(&runtime, "{proxyProtocol: V2}");
        let addr = |text: &str| text.parse().expect("an address");
        let client = Header::Inet { source: addr("192.0.2.1:7"), destination: addr("192.0.2.2:80") };
        let (near, far) = join(dialer.dial_for(&to, &client), accept(&runtime, &mut listener)).await;
        let (mut near, mut far) = (near.expect("it listens"), far.expect("dialled"));
        // It comes though the client has said nothing.
        let expected = client.encode(Version::V2);
        let mut header = vec![0; expected.len()];
        far.read_exact(&mut header).await.expect("it came");
        assert_eq!(header, expected);
        near.send(&b"hello"[..]).await.expect("open");
        assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"hello");
    });
}

fn v6_port() -> ConnectAddr {
    SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)).into()
}
