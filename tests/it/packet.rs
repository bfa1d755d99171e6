//! Packet sockets: UDP, Unix datagrams and IP, in batches and one by one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use ringport::net::{PacketError, PacketSocket, ResolveError, Resolver};
use ringport::runtime::native::{Native, NativeDatagram};
use ringport::runtime::{Ecn, LocalAddr, OpenError, Transmit};
use ringport::spec::{Format, PacketSpec, ResolverSpec};
use ringport_platform::socket::InTheWay;

use super::rig::{FileFacts, Pattern, each, join, now, open_fds, turn};

pub(crate) type Socket = PacketSocket<NativeDatagram>;

pub(crate) async fn try_open(runtime: &Native, yaml: &str) -> Result<Socket, PacketError> {
    let spec = PacketSpec::from_text(yaml, Format::Yaml, "f").expect("a good spec");
    PacketSocket::open(runtime, &spec).await
}

pub(crate) async fn open(runtime: &Native, yaml: &str) -> Socket {
    try_open(runtime, yaml).await.unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

pub(crate) fn inet(socket: &Socket) -> SocketAddr {
    match socket.local_addr().expect("an address") {
        LocalAddr::Inet(addr) => addr,
        unix @ LocalAddr::Unix(_) => panic!("{unix}"),
    }
}

/// A socket at a free port of loopback.
async fn local(runtime: &Native) -> (Socket, SocketAddr) {
    let socket = open(runtime, "address: 'udp4://127.0.0.1:0'").await;
    let addr = inet(&socket);
    (socket, addr)
}

/// A path that no other test has.
pub(crate) fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("packet-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn ten_thousand_datagrams_come_back_in_order() {
    const COUNT: u32 = 10_000;
    const CREDIT: u32 = 64;
    each(async |runtime| {
        let (server, addr) = local(&runtime).await;
        let client = open(&runtime, &format!("{{network: udp4, peer: '{addr}'}}")).await;
        let serve = async {
            let mut back = 0;
            let (mut came, mut batch) = (Vec::new(), Vec::new());
            while back < COUNT {
                server.recv_batch(&mut came).await.expect("a datagram");
                back += came.len() as u32;
                let answer =
                    |received: ringport::runtime::Received| Transmit::to(received.meta.peer, received.bytes);
                batch.extend(came.drain(..).map(answer));
                server.send_batch(&mut batch).await.expect("sent");
            }
        };
        let ask = async {
            let (mut sent, mut back) = (0u32, 0u32);
            while back < COUNT {
                while sent < COUNT && sent - back < CREDIT {
                    client.send(sent.to_be_bytes().to_vec()).await.expect("sent");
                    sent += 1;
                }
                let received = client.recv().await.expect("an echo");
                assert_eq!(received.bytes[..], back.to_be_bytes());
                assert_eq!(received.meta.peer, LocalAddr::Inet(addr));
                back += 1;
            }
        };
        join(serve, ask).await;
    });
}

/// `UDP_SEGMENT` of one send, and `UDP_GRO` at the other end: the bytes and the boundaries are the same.
#[test]
fn what_is_sent_in_segments_comes_joined_and_is_told_apart() {
    each(async |runtime| {
        let receiver =
            open(&runtime, "{address: 'udp4://127.0.0.1:0', sockOption: {udpOption: {gro: true}}}").await;
        let sender = PacketSocket::connect(&runtime, inet(&receiver)).expect("a peer");
        let bytes = Pattern::new(1).take(40_500);
        let mut batch = vec![Transmit { segment_size: Some(1000), ..Transmit::new(bytes.clone()) }];
        sender.send_batch(&mut batch).await.expect("sent");
        assert!(batch.is_empty());

        let (mut came, mut joined) = (Vec::new(), Vec::new());
        while joined.len() < bytes.len() {
            receiver.recv_batch(&mut came).await.expect("datagrams");
            for received in came.drain(..) {
                assert_eq!(received.meta.stride, 1000.min(received.bytes.len()));
                assert!(received.bytes.len() > 1000, "the kernel joined none");
                joined.extend_from_slice(&received.bytes);
            }
        }
        assert!(joined == bytes, "other bytes");

        // One by one they are as they were on the way.
        batch.push(Transmit { segment_size: Some(1000), ..Transmit::new(bytes[..2500].to_vec()) });
        sender.send_batch(&mut batch).await.expect("sent");
        for range in [0..1000, 1000..2000, 2000..2500] {
            let received = receiver.recv().await.expect("a datagram");
            assert_eq!(received.bytes[..], bytes[range]);
            assert_eq!(received.meta.stride, received.bytes.len());
        }
    });
}

#[test]
fn congestion_marks_and_places_are_told() {
    each(async |runtime| {
        let v4 = "{address: 'udp4://127.0.0.1:0', receiveECN: true, sockOption: {ipOption: {pktInfo: true}}}";
        let v6 =
            "{address: 'udp6://[::1]:0', receiveECN: true, sockOption: {ipv6Option: {recvPktInfo: true}}}";
        let both = "{address: 'udp://[::]:0', receiveECN: true, \
                    sockOption: {ipOption: {pktInfo: true}, ipv6Option: {recvPktInfo: true}}}";
        let (four, six) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        for (yaml, to) in [(v4, four), (v6, six), (both, four), (both, six)] {
            let receiver = open(&runtime, yaml).await;
            let dest = SocketAddr::new(to, inet(&receiver).port());
            let sender = PacketSocket::bind(&runtime, SocketAddr::new(to, 0)).expect("a port");
            for ecn in [Ecn::Ect0, Ecn::Ce, Ecn::NotEct] {
                let mut batch = vec![Transmit { ecn: Some(ecn), ..Transmit::to(dest, "marked") }];
                sender.send_batch(&mut batch).await.expect("sent");
                let meta = receiver.recv().await.expect("a datagram").meta;
                assert_eq!((meta.ecn(), meta.local), (Some(ecn), Some(to)), "{yaml}");
                assert_eq!(meta.peer, LocalAddr::Inet(inet(&sender)));
                assert!(meta.interface.is_some_and(|index| index > 0));
            }
            // The mark also goes from a socket of both families, each in its way.
            let mut batch = vec![Transmit { ecn: Some(Ecn::Ect1), ..Transmit::to(inet(&sender), "back") }];
            receiver.send_batch(&mut batch).await.expect("sent");
            assert_eq!(&sender.recv().await.expect("an answer").bytes[..], b"back");
        }
        let plain = local(&runtime).await;
        plain.0.send_to("x", plain.1).await.expect("sent");
        let meta = plain.0.recv().await.expect("itself").meta;
        assert_eq!((meta.ecn(), meta.local, meta.interface), (None, None, None));
    });
}

/// The whole of 127/8 is this machine's.
#[test]
fn a_datagram_leaves_from_the_address_that_is_asked_for() {
    each(async |runtime| {
        let sender = open(&runtime, "address: 'udp4://0.0.0.0:0'").await;
        let (receiver, dest) = local(&runtime).await;
        let from = Ipv4Addr::new(127, 0, 0, 77);
        let mut batch = vec![Transmit { source: Some((from.into(), 0)), ..Transmit::to(dest, "from there") }];
        sender.send_batch(&mut batch).await.expect("sent");
        let (_, peer) = receiver.recv_from().await.expect("a datagram");
        assert_eq!(peer, LocalAddr::Inet((from, inet(&sender).port()).into()));
    });
}

/// Of `udp`, the peer's address decides the family; a port of every address is the peer's family's then.
#[test]
fn a_peer_decides_the_family() {
    each(async |runtime| {
        for peer_at in ["udp4://127.0.0.1:0", "udp6://[::1]:0"] {
            let peer = open(&runtime, &format!("address: '{peer_at}'")).await;
            let free = inet(&open(&runtime, "address: 'udp://[::]:0'").await).port();
            turn().await;
            for address in [String::new(), format!("address: ':{free}', ")] {
                let spec = format!("{{network: udp, {address}peer: '{}'}}", inet(&peer));
                let socket = open(&runtime, &spec).await;
                assert_eq!(socket.peer_addr().expect("a peer"), LocalAddr::Inet(inet(&peer)));
                // Of itself the kernel may choose the same.
                assert!(address.is_empty() || inet(&socket).port() == free);
                socket.send("hello").await.expect("sent");
                let (_, from) = peer.recv_from().await.expect("a datagram");
                assert_eq!(from, LocalAddr::Inet(inet(&socket)));
            }
        }
    });
}

#[test]
fn an_empty_datagram_is_one() {
    each(async |runtime| {
        let (socket, addr) = local(&runtime).await;
        socket.send_to("", addr).await.expect("sent");
        socket.send_to("after", addr).await.expect("sent");
        let empty = socket.recv().await.expect("the empty one");
        assert_eq!((empty.bytes.len(), empty.segments().count()), (0, 1));
        assert_eq!(&socket.recv().await.expect("the next").bytes[..], b"after");
    });
}

#[test]
fn what_is_cut_off_is_said_to_be() {
    each(async |runtime| {
        let (socket, addr) = local(&runtime).await;
        socket.set_max_len(10);
        for (sent, kept, is_truncated) in [("0123456789", 10, false), ("0123456789a", 10, true)] {
            socket.send_to(sent, addr).await.expect("sent");
            let received = socket.recv().await.expect("a datagram");
            assert_eq!((received.bytes.len(), received.meta.is_truncated), (kept, is_truncated));
        }
        // As long as one can be, and whole.
        socket.set_max_len(1 << 16);
        let longest = Pattern::new(2).take(65_507);
        socket.send_to(longest.clone(), addr).await.expect("sent");
        let received = socket.recv().await.expect("a datagram");
        assert!(received.bytes[..] == longest[..] && !received.meta.is_truncated);
    });
}

#[test]
fn a_send_that_cannot_be_says_why_and_the_socket_goes_on() {
    each(async |runtime| {
        let (socket, addr) = local(&runtime).await;
        let long = socket.send_to(vec![0; 65_508], addr).await;
        assert!(matches!(long, Err(PacketError::TooLong { len: 65_508 })), "{long:?}");
        assert!(matches!(socket.send("to nobody").await, Err(PacketError::NoPeer)));
        // Those before it are sent, it stands in front.
        let mut batch = vec![
            Transmit::to(addr, "first"),
            Transmit::to(addr, vec![0; 70_000]),
            Transmit::to(addr, "last"),
        ];
        assert!(matches!(socket.send_batch(&mut batch).await, Err(PacketError::TooLong { len: 70_000 })));
        assert_eq!(batch.len(), 2);
        batch.remove(0);
        socket.send_batch(&mut batch).await.expect("sent");
        for expected in ["first", "last"] {
            assert_eq!(&socket.recv().await.expect("a datagram").bytes[..], expected.as_bytes());
        }
    });
}

/// The answer to a datagram that nobody wanted is an error of the receiver, once, also when a send meets it first.
#[test]
fn refused_is_told_once_to_who_receives() {
    each(async |runtime| {
        let (gone, addr) = local(&runtime).await;
        drop(gone);
        turn().await;
        let socket = PacketSocket::connect(&runtime, addr).expect("a peer");
        socket.send("to nobody").await.expect("sent");
        assert!(matches!(socket.recv().await, Err(PacketError::Refused)));
        assert!(now(|cx| socket.poll_recv(cx)).await.is_pending(), "told twice");

        // The second send finds the answer to the first. Whoever receives has waited all the while.
        let wait = socket.recv();
        let send = async {
            socket.send("one").await.expect("sent");
            socket.send("two").await.expect("sent, though the first was refused");
        };
        let (refused, ()) = join(wait, send).await;
        assert!(matches!(refused, Err(PacketError::Refused)), "{refused:?}");
        // Of two datagrams, two answers: the second may be told, and then no more is.
        while let Poll::Ready(told) = now(|cx| socket.poll_recv(cx)).await {
            assert!(matches!(told, Err(PacketError::Refused)), "{told:?}");
        }

        // Somebody comes to listen there, and the socket is as good as ever.
        let back = PacketSocket::bind(&runtime, addr).expect("the port is free");
        socket.send("hello").await.expect("sent");
        let (bytes, peer) = back.recv_from().await.expect("a datagram");
        assert_eq!(&bytes[..], b"hello");
        back.send_to("you", peer).await.expect("sent");
        assert_eq!(&socket.recv().await.expect("an answer").bytes[..], b"you");
    });
}

#[test]
fn a_future_that_is_dropped_loses_nothing() {
    each(async |runtime| {
        let (socket, addr) = local(&runtime).await;
        let mut waiting = Box::pin(socket.recv());
        assert!(now(|cx| waiting.as_mut().poll(cx)).await.is_pending());
        socket.send_to("kept", addr).await.expect("sent");
        drop(waiting);
        assert_eq!(&socket.recv().await.expect("a datagram").bytes[..], b"kept");
    });
}

/// A socket whose buffer is full waits, and is woken.
#[test]
fn a_full_socket_waits_for_room() {
    each(async |runtime| {
        let name = path();
        let at = name.display();
        let receiver = open(&runtime, &format!("{{network: unixgram, address: '{at}'}}")).await;
        let peer = LocalAddr::Unix(name.as_os_str().as_encoded_bytes().to_vec());
        let connected = open(&runtime, &format!("{{network: unixgram, peer: '{at}'}}")).await;
        let unconnected = open(&runtime, "network: unixgram").await;
        const COUNT: u32 = 2_000;
        let send = async {
            for number in 0..COUNT {
                connected.send(number.to_be_bytes().to_vec()).await.expect("sent");
                unconnected.send_to(number.to_be_bytes().to_vec(), peer.clone()).await.expect("sent");
            }
        };
        let receive = async {
            for number in 0..COUNT {
                for _ in 0..2 {
                    assert_eq!(receiver.recv().await.expect("a datagram").bytes[..], number.to_be_bytes());
                }
            }
        };
        join(send, receive).await;
    });
}

#[test]
fn unix_datagrams_by_path_and_by_name() {
    each(async |runtime| {
        let path = path();
        let name = format!("@ringport-{}", path.file_name().expect("a name").display());
        for (server_at, client_at) in [(path.display().to_string(), name.clone()), (name, String::new())] {
            let server = open(&runtime, &format!("{{network: unixgram, address: '{server_at}'}}")).await;
            let client = open(
                &runtime,
                &format!("{{network: unixgram, address: '{client_at}', peer: '{server_at}'}}"),
            )
            .await;
            client.send("hello").await.expect("sent");
            let (bytes, peer) = server.recv_from().await.expect("a datagram");
            assert_eq!(&bytes[..], b"hello");
            if client_at.is_empty() {
                assert_eq!(peer, LocalAddr::Unix(Vec::new()), "a socket without a name");
                continue;
            }
            server.send_to("you", peer).await.expect("sent");
            assert_eq!(&client.recv().await.expect("an answer").bytes[..], b"you");
            drop((server, client));
            turn().await;
        }
        assert!(!path.exists(), "the file is left");
    });
}

#[test]
fn the_file_of_a_socket_is_its_own() {
    each(async |runtime| {
        let path = path();
        let spec = format!("{{network: unixgram, address: '{}', unix: {{mode: '0600'}}}}", path.display());
        let socket = open(&runtime, &spec).await;
        assert_eq!(FileFacts::of(&path).mode, 0o600);

        // A live socket is never replaced.
        let second = try_open(&runtime, &spec).await;
        let Err(PacketError::InTheWay { found: InTheWay::LiveSocket, .. }) = second else {
            panic!("{:?}", second.map(|_| ()))
        };
        // A file that has taken its place is not removed.
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "mine").expect("a file");
        drop(socket);
        turn().await;
        assert_eq!(fs::read_to_string(&path).expect("it is left"), "mine");
        let third = try_open(&runtime, &spec).await;
        assert!(matches!(third, Err(PacketError::InTheWay { found: InTheWay::OtherFile, .. })));
        fs::remove_file(&path).expect("it is left");

        // A stale one is, unless the spec says otherwise; and it stays where the spec says so.
        drop(open(&runtime, &spec.replace("mode: '0600'", "remove: false")).await);
        turn().await;
        let keep = spec.replace("mode: '0600'", "replaceStale: false");
        let kept = try_open(&runtime, &keep).await;
        assert!(matches!(kept, Err(PacketError::InTheWay { found: InTheWay::StaleSocket, .. })));
        drop(open(&runtime, &spec.replace("mode: '0600'", "remove: false")).await);
        turn().await;
        assert!(path.exists(), "it was to stay");
        drop(open(&runtime, &spec).await);
        turn().await;
        assert!(!path.exists(), "the file is left");
    });
}

/// Whatever step fails, nothing is left of the socket.
#[test]
fn a_socket_that_could_not_be_made_leaves_nothing() {
    each(async |runtime| {
        let (_taken, addr) = local(&runtime).await;
        let path = path();
        let at = path.display();
        type Expected = fn(&PacketError) -> bool;
        let cases: Vec<(String, Expected)> = vec![
            (format!("address: 'udp4://{addr}'"), |error| {
                matches!(error, PacketError::Open(OpenError::LocalAddr { .. }))
            }),
            ("address: 'udp4://192.0.2.1:0'".into(), |error| {
                matches!(error, PacketError::Open(OpenError::LocalAddr { .. }))
            }),
            ("{address: ':0', sockOption: {soOption: {bindToDevice: nosuch0}}}".into(), |error| {
                matches!(error, PacketError::Open(OpenError::Option(_)))
            }),
            ("{network: udp4, multicastGroups: [{group: 239.1.2.3, interface: nosuch0}]}".into(), |error| {
                matches!(error, PacketError::Group { .. })
            }),
            ("{network: udp, sockOption: {soOption: {receiveTimeout: 1s}}}".into(), |error| {
                matches!(error, PacketError::Untimed { field: "receive_timeout" })
            }),
            ("{network: udp, peer: 'no.such.invalid:53'}".into(), |error| {
                matches!(error, PacketError::Resolve(_))
            }),
            ("{network: udp6, address: '[::1]:0', peer: 'localhost4.invalid:53'}".into(), |error| {
                matches!(error, PacketError::Resolve(_))
            }),
            (format!("{{network: unixpacket, address: '{at}', peer: '/nonexistent/socket'}}"), |error| {
                matches!(error, PacketError::Open(OpenError::Peer { .. }))
            }),
            ("{network: unixgram, peer: '/nonexistent/socket'}".into(), |error| {
                matches!(error, PacketError::Open(OpenError::Peer { .. }))
            }),
            (format!("{{network: unixgram, address: '{at}', peer: '/nonexistent/socket'}}"), |error| {
                matches!(error, PacketError::Open(OpenError::Peer { .. }))
            }),
            (format!("{{network: unixgram, address: '{at}', unix: {{owner: no-such-user}}}}"), |error| {
                matches!(error, PacketError::Owner { .. })
            }),
        ];
        for (yaml, expected) in cases {
            let fds = open_fds();
            let Err(error) = try_open(&runtime, &yaml).await else { panic!("{yaml}: it was made") };
            assert!(expected(&error), "{yaml}: {error:?}");
            turn().await;
            assert_eq!(open_fds(), fds, "{yaml}");
            assert!(!path.exists(), "{yaml}: the file is left");
        }
    });
}

#[test]
fn peers_may_be_names() {
    each(async |runtime| {
        let (server, addr) = local(&runtime).await;
        let client = open(&runtime, &format!("{{network: udp4, peer: 'localhost:{}'}}", addr.port())).await;
        client.send(&b"by name"[..]).await.expect("sent");
        assert_eq!(&server.recv().await.expect("a datagram").bytes[..], b"by name");
        assert_eq!(client.peer_addr().expect("connected"), LocalAddr::Inet(addr));

        // To a name, from a socket of one family and from one of both.
        let hosts = PathBuf::from(format!("{}.hosts", path().display()));
        fs::write(&hosts, "::1 both\n127.0.0.1 both\n::1 six\n").expect("a file");
        let resolver = ResolverSpec { hosts_file: Some(hosts.clone()), ..ResolverSpec::default() };
        let resolver = Resolver::new(&resolver, &runtime);
        for any in ["udp4://127.0.0.1:0", "udp4://0.0.0.0:0"] {
            let sender = open(&runtime, &format!("address: '{any}'")).await;
            sender.send_to_host(&b"to both"[..], "both", addr.port(), &resolver).await.expect("sent");
            assert_eq!(&server.recv().await.expect("a datagram").bytes[..], b"to both");
            let error = sender.send_to_host(&b"x"[..], "six", addr.port(), &resolver).await;
            assert!(matches!(error, Err(PacketError::Resolve(ResolveError::NoSuitableAddress))), "{error:?}");
        }
        let six = open(&runtime, "address: 'udp6://[::1]:0'").await;
        let dual = open(&runtime, "address: 'udp://[::]:0'").await;
        dual.send_to_host(&b"to six"[..], "six", inet(&six).port(), &resolver).await.expect("sent");
        assert_eq!(&six.recv().await.expect("a datagram").bytes[..], b"to six");
        dual.send_to_host(&b"to four"[..], "127.0.0.1", addr.port(), &resolver).await.expect("sent");
        assert_eq!(&server.recv().await.expect("a datagram").bytes[..], b"to four");
        let unix = open(&runtime, &format!("{{network: unixgram, address: '{}'}}", path().display())).await;
        let error = unix.send_to_host(&b"x"[..], "six", 1, &resolver).await;
        assert!(matches!(error, Err(PacketError::Resolve(ResolveError::NoSuitableAddress))), "{error:?}");
        fs::remove_file(hosts).expect("a file");
    });
}
