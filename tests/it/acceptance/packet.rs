//! Cases of packet sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::task::Poll;

use ringport::net::{PacketError, PacketSocket};
use ringport::runtime::{LocalAddr, OpenError, Transmit};
use ringport::spec::MulticastGroup;
use ringport_platform::sockopt::{Opt, Setting};

use super::namespace::in_namespace;
use crate::packet::{inet, open, path, try_open};
use crate::rig::{each, now, open_fds, skipped, turn};

const ANY: &str = "udp4://127.0.0.1:0";

#[test]
fn case_36_one_send_in_segments() {
    each(async |runtime| {
        let receiver = open(&runtime, &format!("address: '{ANY}'")).await;
        let sender = format!(
            "{{network: udp4, peer: '{}', sockOption: {{udpOption: {{segment: 1000}}}}}}",
            inet(&receiver)
        );
        let sender = open(&runtime, &sender).await;
        sender.send(vec![7; 2500]).await.expect("sent");
        for len in [1000, 1000, 500] {
            assert_eq!(receiver.recv().await.expect("a segment").bytes.len(), len);
        }
        // More segments than any kernel cuts, the path's length not being the reason.
        let many = Transmit { segment_size: Some(1), ..Transmit::new(vec![7; 1000]) };
        let refused = sender.send_batch(&mut vec![many]).await;
        let Err(PacketError::Send(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn case_37_what_the_kernel_joined_has_a_stride() {
    each(async |runtime| {
        let receiver =
            open(&runtime, &format!("{{address: '{ANY}', sockOption: {{udpOption: {{gro: true}}}}}}")).await;
        let sender = PacketSocket::connect(&runtime, inet(&receiver)).expect("a peer");
        let one = Transmit { segment_size: Some(1000), ..Transmit::new(vec![7; 2500]) };
        sender.send_batch(&mut vec![one]).await.expect("sent");
        let mut came = Vec::new();
        assert_eq!(receiver.recv_batch(&mut came).await.expect("joined"), 1);
        assert_eq!((came[0].bytes.len(), came[0].meta.stride), (2500, 1000));
        let lens: Vec<usize> = came[0].segments().map(<[u8]>::len).collect();
        assert_eq!(lens, [1000, 1000, 500]);
    });
}

#[test]
fn case_38_a_cork_joins_until_it_is_released() {
    each(async |runtime| {
        let receiver = open(&runtime, &format!("address: '{ANY}'")).await;
        let sender = format!(
            "{{network: udp4, peer: '{}', sockOption: {{udpOption: {{cork: true}}}}}}",
            inet(&receiver)
        );
        let sender = open(&runtime, &sender).await;
        for expected in ["aabb", "ccdd"] {
            sender.send(&expected.as_bytes()[..2]).await.expect("held back");
            sender.send(&expected.as_bytes()[2..]).await.expect("held back");
            assert!(now(|cx| receiver.poll_recv(cx)).await.is_pending(), "it was not held back");
            sender.release_cork().expect("sent");
            assert_eq!(&receiver.recv().await.expect("one").bytes[..], expected.as_bytes());
        }
    });
}

/// An ICMP echo of the machine to itself. RFC 792, RFC 4443 4.
#[test]
fn case_52_71_a_raw_socket_with_options_pings() {
    each(async |runtime| {
        let v4 =
            "{network: 'ip4:icmp', address: 127.0.0.1, peer: 127.0.0.1, sockOption: {ipOption: {ttl: 42}}}";
        let v6 = "{network: 'ip6:58', address: '::1', peer: '::1'}";
        // Of IPv6 the kernel fills the checksum in, whatever stands there. RFC 3542 3.1.
        for (yaml, header_len, request, reply) in [(v4, 20, 8u8, 0u8), (v6, 0, 128, 129)] {
            let socket = match try_open(&runtime, yaml).await {
                Ok(socket) => socket,
                Err(PacketError::Open(OpenError::Socket { error, .. }))
                    if error.kind() == io::ErrorKind::PermissionDenied =>
                {
                    skipped("CAP_NET_RAW is missing");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let mut echo = vec![request, 0, 0, 0, 0x52, 0x50, 0, 1];
            let sum =
                echo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
            echo[2..4].copy_from_slice(&(!(((sum >> 16) + sum) as u16)).to_be_bytes());
            socket.send(echo).await.expect("sent");
            // Our own request comes first: it is a packet to this address, too. The hop limit is byte 8, RFC 791 3.1.
            let mut hops = None;
            loop {
                let received = socket.recv().await.expect("a packet");
                let message = &received.bytes[header_len..];
                if message[4..8] != [0x52, 0x50, 0, 1] {
                    continue;
                }
                if message[0] == reply {
                    break;
                }
                if header_len > 0 && message[0] == request {
                    hops = Some(received.bytes[8]);
                }
            }
            assert_eq!(hops, (header_len > 0).then_some(42), "the option of the spec");
        }
    });
}

/// D15: options were set after bind, where this one does nothing, and a socket that failed was left open.
#[test]
fn case_70_d15_options_come_before_bind() {
    each(async |runtime| {
        let shared = "sockOption: {soOption: {reusePort: true}}";
        let first = open(&runtime, &format!("{{address: '{ANY}', {shared}}}")).await;
        let again = format!("{{address: 'udp4://{}', {shared}}}", inet(&first));
        let second = open(&runtime, &again).await;
        assert_eq!(inet(&first), inet(&second));
        let held = second.effective().iter().find(|option| option.opt == Opt::SoReuseport);
        assert_eq!(held.and_then(|option| option.held.clone()), Some(Setting::from(true)));
        let fds = open_fds();
        let third = try_open(&runtime, &format!("address: 'udp4://{}'", inet(&first))).await;
        assert!(matches!(third, Err(PacketError::Open(OpenError::LocalAddr { .. }))));
        turn().await;
        assert_eq!(open_fds(), fds);
        let _ = second;
    });
}

#[test]
fn case_71_a_unix_file_goes_with_its_socket() {
    each(async |runtime| {
        let path = path();
        let socket = open(&runtime, &format!("{{network: unixgram, address: '{}'}}", path.display())).await;
        assert!(path.exists());
        drop(socket);
        turn().await;
        assert!(!path.exists());
    });
}

/// ip(7): a packet that was not redirected was going where it went.
#[test]
fn the_original_destination_is_told() {
    each(async |runtime| {
        for (addr, family) in [(ANY, "ipOption"), ("udp6://[::1]:0", "ipv6Option")] {
            let receiver =
                format!("{{address: '{addr}', sockOption: {{{family}: {{recvOrigDstAddr: true}}}}}}");
            let receiver = open(&runtime, &receiver).await;
            let sender = PacketSocket::connect(&runtime, inet(&receiver)).expect("a peer");
            sender.send("there").await.expect("sent");
            let meta = receiver.recv().await.expect("a datagram").meta;
            assert_eq!(meta.original_destination, Some(inet(&receiver)));
        }
    });
}

/// An interface with an address of each family, on which what is sent to groups is heard by this machine alone.
fn interface() {
    for arguments in [
        "link add here type veth peer name there",
        "link set here up",
        "link set there up",
        "addr add 10.9.9.1/24 dev here",
        "-6 addr add fd00::1/64 dev here nodad",
    ] {
        let done = Command::new("ip").args(arguments.split(' ')).status().expect("ip(8) is there");
        assert!(done.success(), "ip {arguments}");
    }
}

#[test]
fn groups_are_joined_by_interface_and_source_and_left() {
    in_namespace("acceptance::packet::groups_are_joined_by_interface_and_source_and_left", &[], || {
        interface();
        each(async |runtime| {
            for (any, group, from, other) in [
                ("udp4://0.0.0.0:0", "239.1.2.3", "10.9.9.1", "10.9.9.2"),
                ("udp6://[::]:0", "ff05::1:3", "fd00::1", "fd00::2"),
            ] {
                let group_of =
                    |source: &str| format!("{{group: '{group}', interface: here, source: '{source}'}}");
                let spec = format!("{{address: '{any}', multicastGroups: [{}]}}", group_of(from));
                let receiver = open(&runtime, &spec).await;
                let device = "sockOption: {soOption: {bindToDevice: here}}";
                let sender = open(&runtime, &format!("{{address: '{any}', {device}}}")).await;
                let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
                let dest = SocketAddr::new(ip(group), inet(&receiver).port());
                let say = async |what: &'static str| {
                    let sent = sender.send_to(what, dest).await;
                    sent.unwrap_or_else(|error| panic!("{group}: {error}"));
                };
                // What is heard is heard before the send returns, so that silence can be told.
                say("joined").await;
                let Poll::Ready(heard) = now(|cx| receiver.poll_recv(cx)).await else {
                    panic!("{group}: not heard")
                };
                let heard = heard.expect("a datagram");
                assert_eq!(&heard.bytes[..], b"joined");
                assert_eq!(heard.meta.peer, LocalAddr::Inet(SocketAddr::new(ip(from), inet(&sender).port())));

                let joined = MulticastGroup {
                    group: ip(group),
                    interface: Some("here".to_owned()),
                    source: Some(ip(from)),
                };
                receiver.leave(&joined).expect("joined");
                say("left").await;
                assert!(now(|cx| receiver.poll_recv(cx)).await.is_pending(), "{group}: it was left");
                assert!(matches!(receiver.leave(&joined), Err(PacketError::Group { .. })));

                let elsewhere = MulticastGroup { source: Some(ip(other)), ..joined.clone() };
                receiver.join(&elsewhere).expect("a group");
                say("not from there").await;
                assert!(now(|cx| receiver.poll_recv(cx)).await.is_pending(), "{group}: another source");
                receiver.join(&joined).expect("another source of the group");
                say("again").await;
                assert_eq!(&receiver.recv().await.expect("a datagram").bytes[..], b"again");

                // Of any source, twice: not to be had.
                let any_source = MulticastGroup { source: None, ..joined };
                receiver
                    .leave(&elsewhere)
                    .and_then(|()| {
                        receiver.leave(&MulticastGroup { source: Some(ip(from)), ..any_source.clone() })
                    })
                    .expect("joined");
                receiver.join(&any_source).expect("a group");
                assert!(matches!(receiver.join(&any_source), Err(PacketError::Group { .. })));
                say("from anybody").await;
                assert_eq!(&receiver.recv().await.expect("a datagram").bytes[..], b"from anybody");
            }
        });
    });
}

#[test]
fn a_sender_says_whether_it_is_heard_here() {
    in_namespace("acceptance::packet::a_sender_says_whether_it_is_heard_here", &[], || {
        interface();
        each(async |runtime| {
            for (any, group) in [("udp4://0.0.0.0:0", "239.1.2.3"), ("udp6://[::]:0", "ff05::1:3")] {
                let spec =
                    format!("{{address: '{any}', multicastGroups: [{{group: '{group}', interface: here}}]}}");
                let receiver = open(&runtime, &spec).await;
                let ip = group.parse::<IpAddr>().expect("an address");
                let dest = SocketAddr::new(ip, inet(&receiver).port());
                for heard in [true, false] {
                    let spec = format!(
                        "{{address: '{any}', multicastLoop: {heard}, \
                         sockOption: {{soOption: {{bindToDevice: here}}}}}}"
                    );
                    let sender = open(&runtime, &spec).await;
                    sender.send_to("here", dest).await.expect("sent");
                    let came = now(|cx| receiver.poll_recv(cx)).await.is_ready();
                    assert_eq!(came, heard, "{group}");
                }
            }
        });
    });
}
