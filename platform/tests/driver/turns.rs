//! Waiting, waking, cancelling, ending.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use ringport_platform::driver::{ConnectAddr, Wait};
use ringport_platform::op::{OpKind, Outcome, SendMode, Token};
use ringport_platform::socket::stream_for;

use super::drivers::{Candidate, drivers};
use super::each;
use super::os::local_pair;
use super::rig::{PLENTY, Rig, listener, pattern, tcp_pair};

#[test]
fn an_unpark_wakes_a_turn_that_waits_forever() {
    each(|rig| {
        for _ in 0..100 {
            let unpark = rig.driver().unpark();
            let waker = thread::spawn(move || unpark.unpark());
            rig.turn(Wait::Forever);
            waker.join().unwrap();
        }
    });
}

#[test]
fn an_unpark_before_the_turn_counts() {
    each(|rig| {
        rig.driver().unpark().unpark();
        rig.turn(Wait::Forever);
    });
}

#[test]
fn an_unpark_outlives_its_driver() {
    let mut unparks = Vec::new();
    each(|rig| rig.driver().unpark().unpark());
    for candidate in drivers() {
        let pool = ringport_platform::buf::Pool::new(Default::default());
        unparks.push((candidate.open)(pool, Default::default()).unpark());
    }
    unparks.iter().for_each(ringport_platform::driver::Unpark::unpark);
}

#[test]
fn a_bounded_turn_is_not_early() {
    each(|rig| {
        for micros in [1, 300, 1_000, 1_500, 20_000] {
            let (timeout, start) = (Duration::from_micros(micros), Instant::now());
            let mut turns = 0;
            // A signal ends a turn early: the end of the ring of the case before sends one to this thread.
            while let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
                rig.turn(Wait::AtMost(left));
                turns += 1;
            }
            assert!(turns <= 5, "{turns} turns for {timeout:?}");
        }
        rig.turn(Wait::AtMost(Duration::ZERO));
    });
}

#[test]
fn a_driver_dropped_with_operations_in_flight_lets_go() {
    for Candidate { name, open, .. } in drivers() {
        println!("driver: {name}");
        let pool = ringport_platform::buf::Pool::new(Default::default());
        let stats = std::sync::Arc::new(ringport_platform::stats::CoreStats::default());
        let mut rig = Rig::new(open(pool.clone(), stats.clone()), pool.clone(), stats.clone());
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let (fd, _) = listener(1);
        let server = rig.add(fd);
        rig.accept(server);
        rig.recv(sock, PLENTY);
        rig.tx(sock).push(much());
        rig.send(sock, SendMode::Wait);
        rig.turn(Wait::Poll);
        let (closed, mut closed_peer) = tcp_pair();
        let closed = rig.add(closed);
        rig.close(closed);
        drop(rig);
        assert_eq!(stats.leaked.load(), 0);
        assert_eq!(closed_peer.read(&mut [0]).unwrap(), 0, "a close that was asked for happens");
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert!(got.len() < 32 << 20 && got == much()[..got.len()]);
        assert_eq!(pool.usage().live_chunks, pool.usage().free_chunks, "every chunk is back");
    }
}

#[test]
fn cancels_that_race_with_bytes_lose_none() {
    each(|rig| {
        let (ours, mut peer) = local_pair();
        let sock = rig.add(ours);
        let bytes = pattern(400_000);
        let expected = bytes.clone();
        let writer = thread::spawn(move || bytes.chunks(97).try_for_each(|part| peer.write_all(part)));
        let (mut got, mut ended) = (Vec::new(), false);
        for round in 0..2_000u32 {
            if ended {
                break;
            }
            rig.recv(sock, 1 + round % 300);
            if round % 3 > 0 {
                rig.turn(Wait::Poll);
            }
            rig.cancel(OpKind::Recv, sock);
            loop {
                let completion = rig.next(OpKind::Recv, sock);
                match completion.outcome {
                    Outcome::Received(buf) => got.extend_from_slice(&buf),
                    Outcome::Canceled => {}
                    // Early only where the credit is no exact cap.
                    Outcome::Eof if !rig.exact_credit => ended = true,
                    outcome => panic!("{outcome:?}"),
                }
                if !completion.more {
                    break;
                }
            }
        }
        rig.expect_quiet();
        got.extend(rig.receive_to_end(sock, PLENTY));
        writer.join().unwrap().unwrap();
        assert!(got == expected);
    });
}

#[test]
fn a_cancelled_send_tells_what_went_out() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.tx(sock).push(much());
        rig.send(sock, SendMode::Wait);
        rig.expect_quiet();
        rig.cancel(OpKind::Send, sock);
        let sent = match rig.next(OpKind::Send, sock).outcome {
            Outcome::Stalled(count) => count,
            Outcome::Canceled => 0,
            outcome => panic!("{outcome:?}"),
        };
        rig.close_now(sock);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), sent);
    });
}

#[test]
fn a_cancel_of_what_has_ended_does_nothing() {
    each(|rig| {
        let (ours, _peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.cancel(OpKind::Recv, sock);
        let fd = rig.fd(sock);
        rig.driver().cancel(fd, Token::new(OpKind::Send, 99, 1));
        rig.recv(sock, 1);
        rig.driver().cancel(fd, Token::new(OpKind::Recv, sock, 77));
        rig.expect_quiet();
        assert!(rig.is_live(OpKind::Recv, sock));
    });
}

#[test]
fn a_reused_index_sees_no_stale_events() {
    each(|rig| {
        for _ in 0..50 {
            let (first, mut first_peer) = tcp_pair();
            let sock = rig.add(first);
            // A duplicate keeps the closed descriptor's registration alive in the kernel.
            let duplicate = rig.owned(sock).try_clone().unwrap();
            first_peer.write_all(b"for nobody").unwrap();
            rig.turn(Wait::Poll);
            rig.close(sock);
            let (second, mut second_peer) = tcp_pair();
            assert_eq!(rig.add(second), sock);
            rig.recv(sock, PLENTY);
            first_peer.write_all(b"for nobody either").unwrap();
            drop(first_peer);
            rig.expect_quiet();
            second_peer.write_all(b"mine").unwrap();
            drop(second_peer);
            assert_eq!(rig.receive_to_end(sock, PLENTY), b"mine");
            rig.close(sock);
            drop(duplicate);
        }
    });
}

/// An edge of the old descriptor must not be taken for the end of the new one's connect.
#[test]
fn a_connect_on_a_reused_index_sees_no_stale_events() {
    each(|rig| {
        // The listener's queue takes one connection; the next waits for its handshake.
        let (_listener, addr) = listener(0);
        let addr = ConnectAddr::Inet(addr);
        let filler = rig.add(stream_for(&addr).unwrap());
        rig.connect(filler, &addr);
        assert!(matches!(rig.next(OpKind::Connect, filler).outcome, Outcome::Connected));
        let (first, mut first_peer) = tcp_pair();
        let sock = rig.add(first);
        let _duplicate = rig.owned(sock).try_clone().unwrap();
        rig.turn(Wait::Poll);
        let client = stream_for(&addr).unwrap();
        rig.close(sock);
        assert_eq!(rig.add(client), sock);
        rig.connect(sock, &addr);
        first_peer.write_all(b"for nobody").unwrap();
        rig.expect_quiet();
        assert!(rig.is_live(OpKind::Connect, sock));
    });
}

#[test]
fn a_busy_sender_starves_no_receiver() {
    each(|rig| {
        let ((busy, mut sink), (quiet, mut source)) = (tcp_pair(), tcp_pair());
        let (busy, quiet) = (rig.add(busy), rig.add(quiet));
        rig.expect_quiet();
        rig.recv(quiet, PLENTY);
        source.write_all(b"heard").unwrap();
        let mut heard = false;
        for _ in 0..10 {
            rig.tx(busy).push(vec![1; 10]);
            rig.send(busy, SendMode::Try);
            rig.turn(Wait::Poll);
            let Outcome::Sent(count) = rig.next(OpKind::Send, busy).outcome else { panic!("ten bytes fit") };
            rig.tx(busy).advance(count);
            sink.read_exact(&mut [0; 10]).unwrap();
            heard |= rig.seen(OpKind::Recv, quiet).is_some();
        }
        assert!(heard);
    });
}

/// More than the buffers of a connection hold.
fn much() -> Vec<u8> {
    pattern(1 << 16).repeat(512)
}
