//! Bytes in and out: order, credit, starvation, ends.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use ringport_platform::buf::{PoolBuf, PoolSpec};
use ringport_platform::driver::Wait;
use ringport_platform::errno;
use ringport_platform::op::{Errno, OpKind, Outcome, SendMode};
use socket2::SockRef;

use super::os::{closed_local, local_pair};
use super::rig::{PLENTY, Rig, pattern, tcp_pair};
use super::{each, each_with};

#[test]
fn a_small_echo_comes_back() {
    each(|rig| {
        let (tcp, tcp_peer) = tcp_pair();
        echo_small(rig, tcp, tcp_peer);
        let (unix, unix_peer) = local_pair();
        echo_small(rig, unix, unix_peer);
    });
}

fn echo_small(rig: &mut Rig, ours: ringport_platform::fd::OwnedFd, mut peer: impl Read + Write) {
    let sock = rig.add(ours);
    rig.recv(sock, PLENTY);
    for round in 0..50u8 {
        peer.write_all(&[round; 64]).expect("the peer writes");
        let mut got = 0;
        while got < 64 {
            let completion = rig.next(OpKind::Recv, sock);
            assert!(completion.more, "credit is left");
            let Outcome::Received(buf) = completion.outcome else { panic!("{completion:?}") };
            assert!(buf.iter().all(|byte| *byte == round));
            got += buf.len();
            rig.tx(sock).push(buf);
        }
        assert_eq!(rig.send_all(sock), 0);
        let mut back = [0; 64];
        peer.read_exact(&mut back).expect("the peer reads");
        assert_eq!(back, [round; 64]);
    }
}

#[test]
fn a_large_stream_arrives_in_order() {
    each(|rig| {
        let bytes = pattern(8 << 20);
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let writer = {
            let bytes = bytes.clone();
            thread::spawn(move || peer.write_all(&bytes))
        };
        assert!(rig.receive_to_end(sock, PLENTY) == bytes);
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn many_segments_are_sent_in_order() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let bytes = pattern(300 * 40);
        for part in bytes.chunks(40) {
            rig.tx(sock).push(part.to_vec());
        }
        assert_eq!(rig.send(sock, SendMode::Try), 64 * 40, "64 segments at a time");
        let Outcome::Sent(count) = rig.next(OpKind::Send, sock).outcome else { panic!("small") };
        rig.tx(sock).advance(count);
        rig.send_all(sock);
        let mut got = vec![0; bytes.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == bytes);
    });
}

#[test]
fn a_send_takes_at_most_a_mebibyte_but_a_whole_segment() {
    each(|rig| {
        let (ours, mut peer) = local_pair();
        let sock = rig.add(ours);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        });
        let bytes = pattern((3 << 20) + 20);
        rig.tx(sock).push(bytes[..3 << 20].to_vec());
        rig.tx(sock).push(bytes[3 << 20..].to_vec());
        assert_eq!(rig.send(sock, SendMode::Wait), 3 << 20);
        let completion = rig.next(OpKind::Send, sock);
        assert!(matches!(completion.outcome, Outcome::Sent(3_145_728)), "{completion:?}");
        rig.tx(sock).advance(3 << 20);
        rig.send_all(sock);
        rig.close_now(sock);
        assert!(reader.join().unwrap().unwrap() == bytes);
    });
}

#[test]
fn credit_is_exact_and_a_slow_reader_gets_no_more() {
    each(|rig| {
        for (ours, write) in [
            {
                let (ours, mut peer) = tcp_pair();
                (ours, Box::new(move |b: &[u8]| peer.write_all(b).map(|()| drop(peer))) as Writer)
            },
            {
                let (ours, mut peer) = local_pair();
                (ours, Box::new(move |b: &[u8]| peer.write_all(b).map(|()| drop(peer))) as Writer)
            },
        ] {
            let sock = rig.add(ours);
            let bytes = pattern(100_000);
            write(&bytes).unwrap();
            let mut got = rig.receive(sock, 1000, 1000);
            if rig.exact_credit {
                assert!(!rig.is_live(OpKind::Recv, sock), "the credit is used up");
                rig.expect_quiet();
                got.extend(rig.receive(sock, 777, 777));
                rig.expect_quiet();
                assert_eq!(got, bytes[..1777]);
            }
            // Armed again and again, at sizes that split reads at odd places.
            got.extend(rig.receive_to_end(sock, 4099));
            assert!(got == bytes);
        }
    });
}

type Writer = Box<dyn FnOnce(&[u8]) -> std::io::Result<()>>;

#[test]
fn an_empty_pool_starves_and_recovers_without_loss() {
    each_with(PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 2 }, |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let bytes = pattern(64 * 1024);
        peer.write_all(&bytes).unwrap();
        drop(peer);
        let (mut got, mut held, mut starved) = (Vec::new(), Vec::<PoolBuf>::new(), 0);
        rig.recv(sock, PLENTY);
        loop {
            let completion = rig.next(OpKind::Recv, sock);
            match completion.outcome {
                Outcome::Received(buf) => held.push(buf),
                Outcome::Starved => {
                    starved += 1;
                    assert!(starved < 1000, "no progress");
                    held.drain(..).for_each(|buf| got.extend_from_slice(&buf));
                    rig.recv(sock, PLENTY);
                    continue;
                }
                Outcome::Eof => break,
                outcome => panic!("{outcome:?}"),
            }
            if !completion.more {
                rig.recv(sock, PLENTY);
            }
        }
        held.drain(..).for_each(|buf| got.extend_from_slice(&buf));
        assert!(got == bytes);
        assert!(starved > 0 && rig.stats.pool_starved.load() == starved);
    });
}

#[test]
fn a_stalled_send_waits_and_delivers_in_order() {
    each(|rig| {
        let (ours, peer) = tcp_pair();
        stalled(rig, ours, peer);
        let (ours, peer) = local_pair();
        stalled(rig, ours, peer);
    });
}

fn stalled(rig: &mut Rig, ours: ringport_platform::fd::OwnedFd, mut peer: impl Read + Send + 'static) {
    SockRef::from(&ours).set_send_buffer_size(8 * 1024).expect("SO_SNDBUF");
    let sock = rig.add(ours);
    // Nobody reads yet: tries must run into a full socket, which on some systems takes more than its buffer.
    let mut bytes = Vec::new();
    loop {
        let more: Vec<u8> = pattern(1 << 20).iter().map(|byte| byte ^ (bytes.len() >> 20) as u8).collect();
        if rig.tx(sock).is_empty() {
            assert!(bytes.len() < 64 << 20, "it takes everything");
            more.chunks(100_000).for_each(|part| rig.tx(sock).push(part.to_vec()));
            bytes.extend(more);
        }
        rig.send(sock, SendMode::Try);
        match rig.next(OpKind::Send, sock).outcome {
            Outcome::Sent(count) => rig.tx(sock).advance(count),
            Outcome::Stalled(count) => break rig.tx(sock).advance(count),
            outcome => panic!("{outcome:?}"),
        }
    }
    rig.send(sock, SendMode::Wait);
    rig.expect_quiet();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    let Outcome::Sent(count) = rig.next(OpKind::Send, sock).outcome else { panic!("it waits for all") };
    rig.tx(sock).advance(count);
    rig.send_all(sock);
    rig.close_now(sock);
    assert!(reader.join().expect("no panic").expect("the peer reads") == bytes);
}

#[test]
fn the_end_comes_after_all_bytes() {
    each(|rig| {
        let bytes = pattern(200_000);
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        peer.write_all(&bytes).unwrap();
        drop(peer);
        assert!(rig.receive_to_end(sock, 50_000) == bytes);
        assert_eq!(rig.receive_to_end(sock, 1), b"", "the end stays");
    });
}

#[test]
fn a_reset_fails_the_receive() {
    each(|rig| {
        let (ours, peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.recv(sock, PLENTY);
        rig.expect_quiet();
        SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let completion = rig.next(OpKind::Recv, sock);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(errno::ECONNRESET))), "{completion:?}");
    });
}

#[test]
fn a_send_to_a_closed_peer_fails() {
    each(|rig| {
        for mode in [SendMode::Try, SendMode::Wait] {
            let (tcp, peer) = tcp_pair();
            SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(peer);
            for ours in [Some(tcp), closed_local()].into_iter().flatten() {
                let sock = rig.add(ours);
                rig.tx(sock).push(vec![1; 10]);
                rig.send(sock, mode);
                let completion = rig.next(OpKind::Send, sock);
                let Outcome::Failed(Errno(errno)) = completion.outcome else { panic!("{completion:?}") };
                assert!(matches!(errno, errno::EPIPE | errno::ECONNRESET), "{errno}");
                rig.close(sock);
            }
        }
    });
}

#[test]
fn a_half_closed_socket_still_sends() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.receive_to_end(sock, PLENTY), b"last words");
        rig.tx(sock).push(pattern(100_000));
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all)
        });
        rig.send_all(sock);
        rig.close_now(sock);
        assert!(reader.join().unwrap().unwrap() == pattern(100_000));
    });
}

/// An urgent mark ends a read early although more has arrived: a driver that trusts short reads would stop there.
#[test]
fn an_urgent_mark_does_not_stop_a_stream() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        peer.write_all(b"before").unwrap();
        assert_eq!(SockRef::from(&peer).send_out_of_band(b"!").unwrap(), 1);
        peer.write_all(b"after").unwrap();
        assert_eq!(rig.receive(sock, 11, PLENTY), b"beforeafter");
    });
}

/// Many streams share few chunks: each keeps its own bytes in order, through starvation, ends of credit and re-arms.
#[test]
fn streams_that_share_chunks_do_not_mix() {
    const STREAMS: u32 = 24;
    const BYTES: usize = 60_000;
    let byte = |index: u32, at: usize| (at * 7 + index as usize * 13) as u8;
    each_with(PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 6 }, |rig| {
        let mut seed = 12_345_u32;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        let mut peers = Vec::new();
        for index in 0..STREAMS {
            let (ours, peer) = local_pair();
            assert_eq!(rig.add(ours), index);
            rig.recv(index, 5_000);
            peers.push(peer);
        }
        let (mut written, mut read) = ([0; STREAMS as usize], [0; STREAMS as usize]);
        let mut kept = Vec::new();
        while read.iter().any(|count| *count < BYTES) {
            for (index, peer) in (0..).zip(&mut peers) {
                let at = &mut written[index as usize];
                // Unread bytes are bounded, so that the write does not block.
                let room = (read[index as usize] + 20_000).saturating_sub(*at);
                let len = random(900).min(BYTES - *at).min(room);
                let part: Vec<u8> = (*at..*at + len).map(|at| byte(index, at)).collect();
                peer.write_all(&part).expect("write");
                *at += len;
            }
            rig.turn(Wait::AtMost(std::time::Duration::from_millis(1)));
            for index in 0..STREAMS {
                while let Some(completion) = rig.seen(OpKind::Recv, index) {
                    match completion.outcome {
                        Outcome::Received(buf) => {
                            let at = &mut read[index as usize];
                            let whole =
                                buf.iter().enumerate().all(|(off, got)| *got == byte(index, *at + off));
                            assert!(whole, "stream {index} is broken near {at}");
                            *at += buf.len();
                            kept.push(buf);
                        }
                        Outcome::Starved => kept.clear(),
                        outcome => panic!("{outcome:?}"),
                    }
                    if !completion.more {
                        rig.recv(index, 1 + random(12_000) as u32);
                    }
                }
            }
            if random(4) == 0 {
                kept.clear();
            }
        }
    });
}
