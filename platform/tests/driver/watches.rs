//! Readiness, for whoever makes the system calls himself.

use ringport_platform::fd::OwnedFd;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringport_platform::op::{OpKind, Outcome};

use super::each;
use super::os::local_pair;
use super::rig::{PLENTY, Rig, pattern, tcp_pair};

/// Our end as the standard library sees it, for calls of one's own.
fn own(rig: &Rig, index: u32) -> TcpStream {
    TcpStream::from(rig.owned(index).try_clone().expect("dup"))
}

/// Reads until there is nothing, and then waits for more.
fn drain(rig: &mut Rig, index: u32) -> usize {
    let (mut buf, mut total) = ([0; 4096], 0);
    loop {
        match own(rig, index).read(&mut buf) {
            Ok(count @ 1..) => total += count,
            end => {
                assert_eq!(end.expect_err("no end").kind(), ErrorKind::WouldBlock);
                rig.watch(OpKind::Readable, index);
                return total;
            }
        }
    }
}

fn fill(rig: &mut Rig, index: u32) -> usize {
    let mut total = 0;
    loop {
        match own(rig, index).write(&[0; 65_536]) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                rig.watch(OpKind::Writable, index);
                return total;
            }
        }
    }
}

fn expect_ready(rig: &mut Rig, kind: OpKind, index: u32) {
    let completion = rig.next(kind, index);
    assert!(matches!(completion.outcome, Outcome::Ready), "{completion:?}");
}

/// Again and again: an edge that belongs to what was read before must not be taken for the next.
#[test]
fn bytes_make_a_socket_readable() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        assert_eq!(drain(rig, sock), 0);
        for round in 1..50 {
            rig.expect_quiet();
            peer.write_all(&pattern(round * 997)).expect("written");
            let mut total = 0;
            while total < round * 997 {
                expect_ready(rig, OpKind::Readable, sock);
                total += drain(rig, sock);
            }
        }
        rig.cancel(OpKind::Readable, sock);
        assert!(matches!(rig.next(OpKind::Readable, sock).outcome, Outcome::Canceled));
        rig.close_now(sock);
    });
}

#[test]
fn room_makes_a_socket_writable() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let (mut written, mut read) = (fill(rig, sock), 0);
        let mut buf = vec![0; 1 << 20];
        for _ in 0..5 {
            // The peer reads all that there is, so there must be room.
            while rig.seen(OpKind::Writable, sock).is_none() {
                if read < written {
                    read += peer.read(&mut buf).expect("read");
                }
                rig.turn(ringport_platform::driver::Wait::AtMost(Duration::from_millis(1)));
            }
            written += fill(rig, sock);
        }
        rig.cancel(OpKind::Writable, sock);
        rig.next(OpKind::Writable, sock);
        rig.close_now(sock);
    });
}

#[test]
fn an_end_and_a_reset_make_a_socket_ready() {
    each(|rig| {
        let (ours, peer) = tcp_pair();
        let sock = rig.add(ours);
        drain(rig, sock);
        drop(peer);
        expect_ready(rig, OpKind::Readable, sock);
        assert_eq!(own(rig, sock).read(&mut [0]).expect("an end"), 0);
        rig.close_now(sock);

        let (ours, peer) = tcp_pair();
        let sock = rig.add(ours);
        drain(rig, sock);
        fill(rig, sock);
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(peer);
        expect_ready(rig, OpKind::Readable, sock);
        expect_ready(rig, OpKind::Writable, sock);
        assert_eq!(own(rig, sock).read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        rig.close_now(sock);
    });
}

/// What a watch has seen a receive that follows must know, too, and the other way round.
#[test]
fn watches_and_receives_take_turns() {
    let check = |rig: &mut Rig, ours: OwnedFd, peer: &mut dyn Write| {
        let sock = rig.add(ours);
        for round in 0..20 {
            drain(rig, sock);
            peer.write_all(&pattern(3000)).expect("written");
            expect_ready(rig, OpKind::Readable, sock);
            assert!(rig.receive(sock, 3000, PLENTY) == pattern(3000));
            if rig.is_live(OpKind::Recv, sock) {
                rig.cancel(OpKind::Recv, sock);
                rig.next(OpKind::Recv, sock);
            }
            if round % 2 == 0 {
                drain(rig, sock);
                rig.cancel(OpKind::Readable, sock);
                rig.next(OpKind::Readable, sock);
                peer.write_all(b"x").expect("written");
                assert_eq!(rig.receive(sock, 1, PLENTY), b"x");
                if rig.is_live(OpKind::Recv, sock) {
                    rig.cancel(OpKind::Recv, sock);
                    rig.next(OpKind::Recv, sock);
                }
            }
        }
        rig.close_now(sock);
    };
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        check(rig, ours, &mut peer);
        let (ours, mut peer) = local_pair();
        check(rig, ours, &mut peer);
    });
}
