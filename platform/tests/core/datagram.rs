//! Datagram sockets below the library: their share of a turn, the pool's cap, and what Unix peers may not do.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use ringport_platform::buf::PoolSpec;
use ringport_platform::core::Core;
use ringport_platform::datagram::{DatagramSock, Received, Transmit};
use ringport_platform::socket::{Ends, LocalAddr, OpenError, PacketEnds, open_packet};
use ringport_platform::sockopt::OptSet;

use super::os::ROOM_FOR_A_FLOOD;
use super::rig::{Setup, each, each_with};

fn socket(core: &Core, ends: &PacketEnds, batch: usize) -> DatagramSock {
    let opened = open_packet(ends, &OptSet::new()).expect("a socket");
    DatagramSock::new(core, opened.fd, opened.target, batch).expect("watched")
}

fn local(core: &Core, batch: usize) -> (DatagramSock, SocketAddr) {
    let socket = socket(core, &PacketEnds::Udp(Ends::Bound("127.0.0.1:0".parse().unwrap())), batch);
    let LocalAddr::Inet(addr) = socket.local_addr().expect("bound") else { panic!("a Unix socket") };
    (socket, addr)
}

pub(crate) async fn receive(socket: &DatagramSock, into: &mut Vec<Received>) -> io::Result<usize> {
    poll_fn(|cx| socket.poll_recv_batch(cx, into)).await
}

/// Without a system call between: what a poll says in this turn.
fn now(socket: &DatagramSock, into: &mut Vec<Received>) -> Poll<io::Result<usize>> {
    socket.poll_recv_batch(&mut Context::from_waker(Waker::noop()), into)
}

fn send_all(socket: &DatagramSock, batch: &mut Vec<Transmit>) {
    let mut cx = Context::from_waker(Waker::noop());
    while !batch.is_empty() {
        match socket.poll_send_batch(&mut cx, batch) {
            Poll::Ready(sent) => drop(batch.drain(..sent.expect("sent"))),
            Poll::Pending => panic!("{} are left", batch.len()),
        }
    }
}

/// A flood is taken in shares, so that other tasks and sockets have their turn; none of it is lost by that.
#[test]
fn a_flood_is_taken_in_shares() {
    const COUNT: usize = 2_500;
    each(|core| async move {
        let mut room = OptSet::new();
        room.insert(ROOM_FOR_A_FLOOD, 8 << 20).unwrap();
        let at = PacketEnds::Udp(Ends::Bound("127.0.0.1:0".parse().unwrap()));
        let opened = match open_packet(&at, &room) {
            Ok(opened) => opened,
            Err(OpenError::Option(error)) => {
                let _ = writeln!(io::stderr(), "skipped a_flood_is_taken_in_shares: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let receiver = DatagramSock::new(&core, opened.fd, opened.target, 1_024).expect("watched");
        let LocalAddr::Inet(addr) = receiver.local_addr().expect("bound") else { panic!("a Unix socket") };
        for _ in 0..COUNT / 500 {
            // Each from a socket of its own: a sender has shares as well.
            let sender = socket(&core, &PacketEnds::Udp(Ends::Connected { peer: addr, local: None }), 64);
            send_all(&sender, &mut (0..500).map(|_| Transmit::new("flood")).collect());
        }
        let mut came = Vec::new();
        while let Poll::Ready(count) = now(&receiver, &mut came) {
            assert!((1..=64).contains(&count.expect("datagrams")));
        }
        assert_eq!(came.len(), 1_024, "the share of a turn");
        while came.len() < COUNT {
            receive(&receiver, &mut came).await.expect("the rest");
        }
        assert_eq!(came.len(), COUNT);
    });
}

#[test]
fn a_batch_is_no_more_than_was_asked_for() {
    each(|core| async move {
        let (socket, addr) = local(&core, 3);
        let mut batch: Vec<_> = (0..7).map(|_| Transmit::to(addr, "x")).collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(socket.poll_send_batch(&mut cx, &batch), Poll::Ready(Ok(3))));
        batch.drain(..3);
        send_all(&socket, &mut batch);
        let mut came = Vec::new();
        for expected in [3, 3, 1] {
            assert_eq!(receive(&socket, &mut came).await.expect("datagrams"), expected);
        }
        assert!(matches!(socket.poll_send_batch(&mut cx, &[]), Poll::Ready(Ok(0))));
    });
}

/// At the pool's cap datagrams get memory of their own: what was taken from the kernel is never dropped.
#[test]
fn a_pool_without_room_loses_no_datagram() {
    let pool = PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 2 };
    each_with(Setup { pool, ..Setup::default() }, |core| async move {
        let (socket, addr) = local(&core, 64);
        let mut came = Vec::new();
        for round in 0..40u8 {
            let long = vec![round; 1000 + usize::from(round) * 100];
            send_all(&socket, &mut vec![Transmit::to(addr, long)]);
            receive(&socket, &mut came).await.expect("a datagram");
        }
        for (round, received) in came.iter().enumerate() {
            assert_eq!(received.bytes.len(), 1000 + round * 100);
            assert!(received.bytes.iter().all(|byte| usize::from(*byte) == round));
        }
    });
}
