//! A listener that others share a limit with, that gets other rules while it listens, and that ends without losing anybody.

use std::future::poll_fn;

use ringport::net::{self, AcceptError, Bounded, Listener, Peer, Stream};
use ringport::proto::proxy_protocol::{Header, Version};
use ringport::runtime::native::Native;
use ringport::runtime::{ConnectAddr, LocalAddr};
use ringport::spec::{Format, ListenSpec};

use crate::rig::{TcpStream, each, is_elsewhere, join, now, turn};

type Accepted = (Stream<Bounded<Native>>, Peer);

fn spec(more: &str) -> ListenSpec {
    let yaml = format!("{{addr: '127.0.0.1:0', {more}}}");
    ListenSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"))
}

fn listen(runtime: &Native, more: &str) -> Listener<Native> {
    Listener::from_spec(&spec(more), runtime).unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(runtime: &Native, listener: &Listener<Native>) -> TcpStream {
    let to = ConnectAddr::from(listener.local_addr().clone());
    net::connect(runtime, &to).await.expect("it listens")
}

async fn drained(listener: &mut Listener<Native>) -> Option<Accepted> {
    poll_fn(|cx| listener.poll_drain(cx)).await.expect("no error")
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.recv().await, Ok(Some(_)))
}

fn header() -> Vec<u8> {
    let source = "192.0.2.1:5000".parse().expect("an address");
    let destination = "192.0.2.2:80".parse().expect("an address");
    Header::Inet { source, destination }.encode(Version::V2)
}

const BEHIND: &str = "proxyProtocol: {trusted: [127.0.0.1], timeout: 60000}";

#[test]
fn the_end_gives_what_waits_in_the_kernel() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "");
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(connect(&runtime, &listener).await);
        }
        // Some that were taken already, some that the kernel has.
        let (_first, _) = listener.accept().await.expect("five wait");
        for _ in 0..4 {
            let (server, _) = drained(&mut listener).await.expect("one waits");
            drop(server);
        }
        assert!(drained(&mut listener).await.is_none());
        let accepted = now(|cx| listener.poll_accept(cx)).await;
        assert!(matches!(accepted, std::task::Poll::Ready(Err(AcceptError::Closed))));
    });
}

#[test]
fn the_end_waits_for_headers() {
    each(async |runtime| {
        let mut listener = listen(&runtime, BEHIND);
        let (mut late, mut gone) = (connect(&runtime, &listener).await, connect(&runtime, &listener).await);
        for _ in 0..10 {
            assert!(now(|cx| listener.poll_drain(cx)).await.is_pending(), "their headers are to come");
            turn().await;
        }
        assert_eq!(listener.queued(), 2);
        let sent = async { late.send(header()).await.expect("open") };
        let (accepted, ()) = join(drained(&mut listener), sent).await;
        let (_server, peer) = accepted.expect("its header came");
        assert_eq!(peer.client().to_string(), "192.0.2.1:5000");
        let ended = async { gone.shutdown().await.expect("open") };
        let (nothing, ()) = join(drained(&mut listener), ended).await;
        assert!(nothing.is_none(), "who says nothing is no connection");
        assert_eq!((listener.queued(), listener.handle().stats().bad_header), (0, 1));
    });
}

#[test]
fn the_end_keeps_the_limit() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "connectionLimit: 1");
        let (_one, _other) = (connect(&runtime, &listener).await, connect(&runtime, &listener).await);
        let (first, _) = drained(&mut listener).await.expect("two wait");
        assert!(now(|cx| listener.poll_drain(cx)).await.is_pending());
        let freed = async {
            turn().await;
            drop(first);
        };
        let (second, ()) = join(drained(&mut listener), freed).await;
        drop(second.expect("its turn"));
        assert!(drained(&mut listener).await.is_none());
    });
}

#[test]
fn a_room_that_is_shared_is_not_passed() {
    each(async |runtime| {
        for more in ["", BEHIND] {
            let mut listener = listen(&runtime, more);
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(connect(&runtime, &listener).await);
            }
            let before = runtime.core().stats().accepted.load();
            listener.set_room(0);
            for _ in 0..10 {
                assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
                turn().await;
            }
            assert_eq!((listener.queued(), runtime.core().stats().accepted.load()), (0, before));
            for client in &mut clients {
                if !more.is_empty() {
                    client.send(header()).await.expect("open");
                }
                let accepted = poll_fn(|cx| {
                    let queued = listener.queued();
                    assert!(queued <= 1, "{queued}");
                    listener.set_room(1 - queued);
                    listener.poll_accept(cx)
                });
                drop(accepted.await.expect("one waits"));
            }
        }
    });
}

/// Lists, limits, deadlines and the PROXY protocol change while it listens; who was let in stays.
#[test]
fn rules_change_while_it_listens() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "");
        let handle = listener.handle();
        let mut old_client = connect(&runtime, &listener).await;
        let (mut old, _) = listener.accept().await.expect("one waits");

        handle.update(&spec("denyNetworks: [127.0.0.0/8]"));
        let mut denied = connect(&runtime, &listener).await;
        assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
        let ((), closed) = join(
            async {
                while handle.stats().denied == 0 {
                    assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
                    turn().await;
                }
            },
            is_closed(&mut denied),
        )
        .await;
        assert!(closed);

        handle.update(&spec("connectionLimit: 1, connectionLimitPolicy: LIMIT_POLICY_REJECT"));
        let mut over = connect(&runtime, &listener).await;
        while handle.stats().over_limit == 0 {
            assert!(now(|cx| listener.poll_accept(cx)).await.is_pending());
            turn().await;
        }
        assert!(is_closed(&mut over).await);

        handle.update(&spec(&format!("{BEHIND}, readDeadline: 10ms")));
        let mut behind = connect(&runtime, &listener).await;
        behind.send(header()).await.expect("open");
        let (mut timed, peer) = listener.accept().await.expect("one waits");
        assert_eq!(peer.client(), &LocalAddr::Inet("192.0.2.1:5000".parse().expect("an address")));
        assert!(timed.recv().await.is_err(), "its deadline");

        // The first has lived through all of it.
        old_client.send(&b"still"[..]).await.expect("open");
        assert_eq!(&*old.recv().await.expect("open").expect("bytes"), b"still");
        drop((timed, old));
        assert_eq!(handle.open_connections(), 0);
    });
}

/// A waiting accept learns of a limit that has become higher.
#[test]
fn a_higher_limit_wakes_who_waits() {
    each(async |runtime| {
        let mut listener = listen(&runtime, "connectionLimit: 1");
        let (_one, _other) = (connect(&runtime, &listener).await, connect(&runtime, &listener).await);
        let first = listener.accept().await.expect("two wait");
        let handle = listener.handle();
        let raised = async {
            turn().await;
            handle.update(&spec("connectionLimit: 2"));
        };
        let (second, ()) = join(listener.accept(), raised).await;
        drop((first, second.expect("its turn")));
    });
}

#[test]
fn what_needs_a_new_socket_is_told() {
    if is_elsewhere() {
        return;
    }
    let plain = spec("");
    for (more, fields) in [
        ("networks: [10.0.0.0/8], connectionLimit: 7, readDeadline: 1s, connectionDeadline: 1s", &[][..]),
        (BEHIND, &[]),
        ("backlog: 7", &["backlog"]),
        ("sockets: LISTEN_SOCKETS_SHARED", &["sockets"]),
        ("keepAliveConfig: {idle: 7}", &["keep_alive_config"]),
        ("sockOption: {soOption: {mark: 7}}", &["sock_option"]),
    ] {
        assert_eq!(plain.socket_changes(&spec(more)), fields, "{more}");
    }
}
