//! Streams and listeners of every family: bytes, ends, halves, segments.

use std::future::poll_fn;

use bytes::Bytes;
use ringport::buf::Seg;
use ringport::net;
use ringport::runtime::native::Native;
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, Runtime, Transport};
use ringport_platform::core::{Accepted, ListenSock};
use ringport_platform::socket::open_listener;
use ringport_platform::sockopt::{Kind, Opt, OptSet};

use super::rig::{
    Pattern, Random, TcpStream, any_port, each, families, join, now, pair, pair_at, read_all, turn,
};

/// A connection taken as a descriptor, as one is that changes its core, waited for the peer's acknowledgements.
#[test]
fn an_adopted_connection_sends_at_once() {
    each(async |runtime| {
        let mut listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
        let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
        let mut client = net::connect(&runtime, &addr).await.expect("it listens");
        let fd = poll_fn(|cx| listener.poll_accept_raw(cx)).await.expect("a client").into_fd();
        let look = std::net::TcpStream::from(fd.try_clone().expect("a descriptor"));
        let adopted = runtime.adopt(Accepted::from_fd(fd)).expect("the driver watches it");
        assert!(look.nodelay().expect("an open socket"));
        drop(look);
        let mut served = net::Stream::new(&runtime, adopted);
        client.send(&b"hello"[..]).await.expect("open");
        let mut read = [0; 5];
        served.read_exact(&mut read).await.expect("all of it comes");
        assert_eq!(&read, b"hello");
    });
}

/// A listener's options are its connections', "off" included: nothing of ours is set on top.
#[test]
fn a_connection_has_its_listeners_options() {
    each(async |runtime| {
        let set = OptSet::new().with(Opt::TcpNodelay, false).expect("a flag");
        let opened =
            open_listener(&any_port(), Kind::Stream, ListenOptions::default(), &set).expect("a free port");
        let sock = ListenSock::from_fd(runtime.core(), opened.fd).expect("the driver watches it");
        let mut listener = runtime.adopt_listener(sock);
        let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
        let _client = net::connect(&runtime, &addr).await.expect("it listens");
        let fd = poll_fn(|cx| listener.poll_accept_raw(cx)).await.expect("a client").into_fd();
        let look = std::net::TcpStream::from(fd.try_clone().expect("a descriptor"));
        let _adopted = runtime.adopt(Accepted::from_fd(fd)).expect("the driver watches it");
        assert!(!look.nodelay().expect("an open socket"));
    });
}

#[test]
fn streams_of_every_family_carry_bytes_both_ways() {
    each(async |runtime| {
        for addr in families() {
            let (mut near, mut far) = pair_at(&runtime, &addr).await;
            near.send(&b"static"[..]).await.expect("open");
            near.send_all([Seg::Vec(b" and".to_vec()), Seg::Bytes(Bytes::from_static(b" more"))])
                .await
                .expect("open");
            near.flush().await.expect("open");
            let mut read = [0; 15];
            far.read_exact(&mut read).await.expect("all of it comes");
            assert_eq!(&read, b"static and more");

            far.send(b"answer".to_vec()).await.expect("open");
            assert_eq!(&*near.recv().await.expect("open").expect("not the end"), b"answer");

            far.shutdown().await.expect("open");
            assert!(near.recv().await.expect("an end in order").is_none());
            assert!(near.recv().await.expect("the end stays").is_none());
            // Nothing is consumed by a read that comes too late.
            near.send(&b"short"[..]).await.expect("the other way is open");
            near.shutdown().await.expect("open");
            let error = far.read_exact(&mut read).await.expect_err("ten bytes are missing");
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
            assert_eq!(read_all(&mut far).await, b"short");
        }
    });
}

#[test]
fn both_ends_know_where_they_are() {
    each(async |runtime| {
        for addr in families() {
            let mut listener = runtime.listen(&addr, ListenOptions::default()).expect("a free address");
            let at = listener.local_addr().expect("it listens");
            if let ConnectAddr::Unix(path) = &addr {
                assert_eq!(at, LocalAddr::Unix(path.clone()));
            }
            let (near, far) = join(
                net::connect(&runtime, &ConnectAddr::from(at.clone())),
                net::accept(&runtime, &mut listener),
            )
            .await;
            let (near, far) = (near.expect("it listens"), far.expect("a client came"));
            assert_eq!(near.peer_addr().expect("connected"), at);
            assert_eq!(far.local_addr().expect("connected"), at);
            assert_eq!(near.local_addr().expect("bound"), far.peer_addr().expect("connected"));
        }
    });
}

/// A second shutdown, and a flush behind one, once answered `EPIPE`, which an adapter passed on as a failed close.
#[test]
fn shutdown_and_flush_may_come_again() {
    each(async |runtime| {
        let (mut near, mut far) = pair(&runtime).await;
        near.send(&b"bye"[..]).await.expect("open");
        for _ in 0..3 {
            near.shutdown().await.expect("the first, and again");
            near.flush().await.expect("nothing waits");
        }
        let error = near.send(&b"more"[..]).await.expect_err("shut");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(read_all(&mut far).await, b"bye");
    });
}

#[test]
fn a_half_closed_stream_goes_on_the_other_way() {
    each(async |runtime| {
        for addr in families() {
            // The one that ends its side first has connected, or has accepted.
            let connected = pair_at(&runtime, &addr).await;
            let (near, far) = pair_at(&runtime, &any_port()).await;
            for (mut first, mut second) in [connected, (far, near)] {
                first.send(&b"question"[..]).await.expect("open");
                first.shutdown().await.expect("open");
                assert_eq!(read_all(&mut second).await, b"question");
                let (mut sent, mut expected) = (Pattern::new(1), Pattern::new(1));
                let answer = async {
                    for _ in 0..64 {
                        let part = sent.take(64 * 1024);
                        second.send(part).await.expect("open this way");
                    }
                    drop(second);
                };
                let (_, read) = join(answer, read_all(&mut first)).await;
                assert_eq!(read.len(), 64 * 64 * 1024);
                expected.check(&read);
            }
        }
    });
}

#[test]
fn halves_live_in_two_tasks() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let (mut far_read, mut far_write) = far.split();
        let echo = runtime.core().spawn(async move {
            while let Some(bytes) = far_read.recv().await.expect("in order") {
                far_write.send(bytes).await.expect("open");
            }
            far_write.shutdown().await.expect("open");
        });
        let (mut read, mut write) = near.split();
        let writer = runtime.core().spawn(async move {
            let mut sent = Pattern::new(2);
            for _ in 0..200 {
                let part = sent.take(20_000);
                write.send(part).await.expect("open");
            }
            write.flush().await.expect("open");
            write.shutdown().await.expect("open");
        });
        let (mut expected, mut count) = (Pattern::new(2), 0);
        while let Some(bytes) = read.recv().await.expect("in order") {
            expected.check(&bytes);
            count += bytes.len();
        }
        assert_eq!(count, 200 * 20_000);
        assert!(read.recv().await.expect("the end stays").is_none());
        writer.await.expect("it ends");
        echo.await.expect("it ends");
    });
}

#[test]
fn one_half_outlives_the_other() {
    each(async |runtime| {
        let (near, mut far) = pair(&runtime).await;
        let (read, mut write) = near.split();
        drop(read);
        write.send(&b"still"[..]).await.expect("open");
        write.flush().await.expect("open");
        let mut five = [0; 5];
        far.read_exact(&mut five).await.expect("it comes");
        drop(write);
        assert!(far.recv().await.expect("both halves are gone").is_none());

        let (near, mut far) = pair(&runtime).await;
        let (mut read, write) = near.split();
        drop(write);
        far.send(&b"hear"[..]).await.expect("open");
        assert_eq!(&*read.recv().await.expect("open").expect("bytes"), b"hear");
        // The write half said nothing when it went: a question asked now is answered by silence, not by an end.
        turn().await;
        assert!(far.is_quiet());
        drop(read);
        assert!(far.recv().await.expect("an end in order").is_none());
    });
}

#[test]
fn owned_segments_are_sent_from_where_they_lie() {
    each(async |runtime| {
        static IMAGE: [u8; 300] = [7; 300];
        let (mut near, mut far) = pair(&runtime).await;
        let (vec, bytes) = (vec![8; 300], Bytes::from(vec![9; 300]));
        let lies_at = [IMAGE.as_ptr(), vec.as_ptr(), bytes.as_ptr()];
        near.tx().push(&IMAGE[..]);
        near.tx().push(vec);
        near.tx().push(bytes.clone());
        assert_eq!(near.tx().slices().map(<[u8]>::as_ptr).collect::<Vec<_>>(), lies_at);
        assert!(!bytes.is_unique(), "the queue holds it");
        near.flush().await.expect("open");
        assert!(bytes.is_unique(), "the kernel is done with it");
        let mut read = [0; 900];
        far.read_exact(&mut read).await.expect("all of it comes");
        assert!([7, 8, 9].iter().zip(read.chunks(300)).all(|(byte, part)| part.iter().all(|b| b == byte)));
    });
}

#[test]
fn received_views_are_passed_on_without_a_copy() {
    each(async |runtime| {
        let (mut client, mut front) = pair(&runtime).await;
        let (mut back, mut origin) = pair(&runtime).await;
        client.send(&b"through and through"[..]).await.expect("open");
        let view = front.recv().await.expect("open").expect("bytes");
        assert!(!view.is_compact(), "it lies where the kernel wrote it");
        let lies_at = view.as_ptr();
        back.tx().push(view);
        assert_eq!(back.tx().slices().map(<[u8]>::as_ptr).collect::<Vec<_>>(), [lies_at]);
        back.flush().await.expect("open");

        // The same view for two readers, and a part of it for a third.
        let mut view = origin.recv().await.expect("open").expect("bytes");
        let head = view.split_to(7).freeze();
        let (lies_at, same) = (head.as_ptr(), head.clone());
        for stream in [&mut back, &mut front] {
            stream.tx().push(head.clone());
            assert_eq!(stream.tx().slices().next().map(<[u8]>::as_ptr), Some(lies_at));
        }
        assert_eq!((&*same, &*view), (&b"through"[..], &b" and through"[..]));
        front.flush().await.expect("open");
        let mut seven = [0; 7];
        client.read_exact(&mut seven).await.expect("it comes");
        assert_eq!(&seven, b"through");
    });
}

/// 64 MiB each way at the same time, in parts of random length.
#[test]
fn large_transfers_arrive_whole() {
    each(async |runtime| {
        let mut random = Random::printed();
        let (near, far) = pair(&runtime).await;
        let (a, b) = (random.next() | 1, random.next() | 1);
        let far = runtime.core().spawn(exchange(far, a, b));
        exchange(near, b, a).await;
        far.await.expect("it ends");
    });
}

const LARGE: usize = 64 << 20;

async fn exchange(stream: TcpStream, send_seed: u64, recv_seed: u64) {
    let (mut read, mut write) = stream.split();
    let send = async {
        let (mut random, mut pattern, mut left) = (Random(send_seed), Pattern::new(send_seed), LARGE);
        while left > 0 {
            let part = pattern.take(random.up_to(200_000).min(left));
            left -= part.len();
            write.send(part).await.expect("open");
        }
        write.shutdown().await.expect("open");
    };
    let receive = async {
        let (mut pattern, mut count) = (Pattern::new(recv_seed), 0);
        while let Some(bytes) = read.recv().await.expect("in order") {
            pattern.check(&bytes);
            count += bytes.len();
        }
        assert_eq!(count, LARGE);
    };
    join(send, receive).await;
}

#[test]
fn news_are_seen_without_a_read() {
    each(async |runtime: Native| {
        let (mut near, mut far) = pair(&runtime).await;
        near.send(&b"x"[..]).await.expect("open");
        let _ = far.recv().await.expect("open");
        assert!(far.is_quiet() && !far.transport().has_news());
        // An idle connection is watched by a receive that waits, and may be dropped.
        assert!(now(|cx| far.poll_fill(cx, usize::MAX)).await.is_pending());
        drop(near);
        while far.is_quiet() {
            turn().await;
        }
        assert!(far.transport().has_news() && far.rx().is_empty(), "the end is not read yet");
        assert!(!far.fill().await.expect("in order"));
        assert!(!far.is_quiet(), "nor is it forgotten");
    });
}

/// Some drivers once counted what the sockets had counted already, and metrics showed twice the traffic.
#[test]
fn a_core_counts_everything_once() {
    each(async |runtime| {
        let (mut near, mut far) = pair(&runtime).await;
        near.send(vec![0; 300_000]).await.expect("open");
        let mut read = vec![0; 300_000];
        far.read_exact(&mut read).await.expect("all of it comes");
        near.flush().await.expect("open");
        let stats = runtime.core().stats();
        let counted =
            [&stats.accepted, &stats.received_bytes, &stats.sent_bytes].map(|counter| counter.load());
        assert_eq!(counted, [1, 300_000, 300_000]);
    });
}
