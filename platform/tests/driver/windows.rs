//! What only Windows has, and how the suite asks for what each system has of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use ringport_platform::driver::{ConnectAddr, Wait};
use ringport_platform::fd::{AsRawFd, FromRawFd, OwnedFd};
use ringport_platform::op::{Burst, OpKind, Outcome, SendMode};
use ringport_platform::socket::stream_for;

use super::connections::take_connections;
use super::each;
use super::rig::{PLENTY, Rig, listener, pattern, tcp_pair};

/// There is nothing else within the machine.
pub(crate) type LocalStream = TcpStream;

/// A connected pair: ours, non-blocking, and the peer, which gives up after 10 s.
pub(crate) fn local_pair() -> (OwnedFd, LocalStream) {
    tcp_pair()
}

/// None: TCP hears that its peer is gone by sending to it.
pub(crate) fn closed_local() -> Option<OwnedFd> {
    None
}

/// It does not block. That programs which are started do not get it, no call tells.
pub(crate) fn expect_our_own(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).expect_err("nothing was sent").kind(), ErrorKind::WouldBlock);
}

/// Rounds of each race; 20,000 with `RINGPORT_RACE_ROUNDS=20000`.
fn rounds() -> usize {
    std::env::var("RINGPORT_RACE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2_000)
}

/// CancelIoEx of a send against a peer that reads: what the report says went out is what the peer gets, and the call's
/// block is free exactly once (which the slab asserts).
#[test]
fn a_cancelled_send_races_with_its_reader() {
    each(|rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let (ask, asked) = mpsc::channel::<usize>();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            let mut part = vec![0; 1 << 16];
            while let Ok(len) = asked.recv() {
                let until = all.len() + len;
                while all.len() < until {
                    match peer.read(&mut part).expect("the peer reads") {
                        0 => break,
                        len => all.extend_from_slice(&part[..len]),
                    }
                }
            }
            peer.read_to_end(&mut all).map(|_| all)
        });
        let (mut expected, mut cancelled, mut in_part) = (Vec::new(), 0, 0);
        for round in 0..rounds() {
            // The first fill the socket, so that later ones pend.
            let len = if round < 8 { 1 << 20 } else { 1 + round * 37 % 60_000 };
            let bytes: Vec<u8> = pattern(len).iter().map(|byte| byte ^ round as u8).collect();
            rig.tx(sock).push(bytes.clone());
            rig.send(sock, SendMode::Wait);
            ask.send(1 + round * 61 % 50_000).expect("it reads");
            if round % 3 > 0 {
                rig.turn(Wait::Poll);
            }
            rig.cancel(OpKind::Send, sock);
            let count = match rig.next(OpKind::Send, sock).outcome {
                Outcome::Sent(count) => count,
                Outcome::Stalled(count) => {
                    in_part += 1;
                    count
                }
                Outcome::Canceled => {
                    cancelled += 1;
                    0
                }
                outcome => panic!("{outcome:?} in round {round}"),
            };
            expected.extend_from_slice(&bytes[..count]);
            rig.tx(sock).clear();
        }
        rig.expect_quiet();
        rig.close_now(sock);
        drop(ask);
        assert!(
            reader.join().expect("no panic").expect("read") == expected,
            "{cancelled} cancelled, {in_part} in part"
        );
        assert!(cancelled + in_part > 0, "none was cancelled");
    });
}

/// Closing a socket cancels the receive of no bytes that pends on it, against bytes and ends that come.
#[test]
fn a_close_races_with_what_its_idle_receive_waits_for() {
    each(|rig| {
        for round in 0..rounds() / 4 {
            let (ours, mut peer) = tcp_pair();
            let sock = rig.add(ours);
            rig.recv(sock, PLENTY);
            rig.turn(Wait::Poll);
            let writer = thread::spawn(move || {
                // Reset: our end may be closed already.
                let _ = peer.write_all(&[round as u8; 100]);
                peer
            });
            if round % 2 == 0 {
                rig.turn(Wait::Poll);
            }
            rig.cancel(OpKind::Recv, sock);
            while rig.is_live(OpKind::Recv, sock) {
                rig.next(OpKind::Recv, sock);
            }
            while rig.seen(OpKind::Recv, sock).is_some() {}
            rig.close(sock);
            drop(writer.join().expect("no panic"));
        }
        rig.expect_quiet();
    });
}

/// CancelIoEx of pending accepts against connections that come: each is reported once, or waits for the next accept.
#[test]
fn cancelled_accepts_race_with_connections() {
    each(|rig| {
        let (fd, addr) = listener(1024);
        let sock = rig.add(fd);
        let count = rounds() / 10;
        let dialler = thread::spawn(move || -> Vec<TcpStream> {
            (0..count).map(|_| TcpStream::connect(addr).expect("connect")).collect()
        });
        let mut ports = Vec::new();
        for round in 0..count {
            rig.accept_in(sock, if round % 3 == 0 { Burst::One } else { Burst::Many });
            if round % 2 == 0 {
                rig.turn(Wait::Poll);
            }
            rig.cancel(OpKind::Accept, sock);
            loop {
                let completion = rig.next(OpKind::Accept, sock);
                match completion.outcome {
                    Outcome::Accepted(fd) => {
                        ports.push(TcpStream::from(fd).peer_addr().expect("peer").port())
                    }
                    Outcome::Canceled => {}
                    outcome => panic!("{outcome:?}"),
                }
                if !completion.more {
                    break;
                }
            }
        }
        let peers = dialler.join().expect("no panic");
        let left = take_connections(rig, sock, peers.len() - ports.len());
        ports.extend(left.into_iter().map(|fd| TcpStream::from(fd).peer_addr().expect("peer").port()));
        let mut expected: Vec<u16> =
            peers.iter().map(|peer| peer.local_addr().expect("local").port()).collect();
        expected.sort_unstable();
        ports.sort_unstable();
        assert_eq!(ports, expected);
    });
}

/// A handle that is closed behind everybody's back may be another case's a moment later, so this one has a process of its own.
#[test]
fn a_handle_closed_under_pending_calls_ends_them() {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "os::handles_closed_under_pending_calls",
            "--ignored",
            "--test-threads=1",
            "--nocapture",
        ])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{output:?}");
}

/// Whoever closes a handle behind the driver's back gets an end, not a hang.
#[test]
#[ignore = "closes handles that others of the process could get; the test above runs it in a child"]
fn handles_closed_under_pending_calls() {
    each(|rig| {
        let (ours, _peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.recv(sock, PLENTY);
        let (fd, _) = listener(16);
        let server = rig.add(fd);
        rig.accept(server);
        rig.turn(Wait::Poll);
        for (kind, index) in [(OpKind::Recv, sock), (OpKind::Accept, server)] {
            // SAFETY: it is what the rig owns, which forgets it below.
            drop(unsafe { OwnedFd::from_raw_fd(rig.owned(index).as_raw_fd()) });
            let completion = rig.next(kind, index);
            assert!(matches!(completion.outcome, Outcome::Failed(_)), "{completion:?}");
            rig.forget(index);
        }
        rig.expect_quiet();
    });
}

/// A handle belongs to one port for ever; a second core is told at once, not when its packets do not come.
#[test]
fn a_socket_of_another_port_is_refused() {
    each(|rig| {
        let (ours, _peer) = tcp_pair();
        let duplicate = ours.try_clone().expect("dup");
        rig.add(ours);
        each(|other| assert!(other.driver().attach(duplicate.as_raw_fd(), 0).is_err()));
    });
}

#[test]
fn a_unix_socket_is_refused_clearly() {
    each(|_rig: &mut Rig| {
        let error = stream_for(&ConnectAddr::Unix(b"x".to_vec())).expect_err("there are none");
        assert!(error.to_string().contains("Unix"), "{error}");
    });
}
