//! Every fault that `Faulty` forces, over every driver.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringport_platform::buf::PoolSpec;
use ringport_platform::driver::faulty::{Fault, Faulty, Step};
use ringport_platform::driver::{ConnectAddr, Wait};
use ringport_platform::errno;
use ringport_platform::op::{Burst, Errno, OpKind, Outcome};
use ringport_platform::socket::stream_for;

use super::each_wrapped;
use super::rig::{PLENTY, Rig, listener, pattern, tcp_pair};

fn each_faulty(plan: &[Step], case: impl Fn(&mut Rig)) {
    each_wrapped(PoolSpec::default(), |inner| Box::new(Faulty::new(inner, plan.to_vec())), case);
}

fn step(kind: OpKind, nth: u64, fault: Fault) -> Step {
    Step { kind, nth, fault }
}

#[test]
fn a_stream_survives_every_receive_fault() {
    let plan = [
        step(OpKind::Recv, 1, Fault::LoseMore),
        step(OpKind::Recv, 3, Fault::Starve),
        step(OpKind::Recv, 4, Fault::Late { turns: 3 }),
        step(OpKind::Recv, 6, Fault::Starve),
        step(OpKind::Recv, 7, Fault::LoseMore),
        step(OpKind::Recv, 9, Fault::LoseMore),
    ];
    for credit in [5_000, 70_000, PLENTY] {
        each_faulty(&plan, |rig| {
            let bytes = pattern(2 << 20);
            let (ours, mut peer) = tcp_pair();
            let sock = rig.add(ours);
            let writer = {
                let bytes = bytes.clone();
                std::thread::spawn(move || peer.write_all(&bytes))
            };
            assert!(rig.receive_to_end(sock, credit) == bytes);
            writer.join().unwrap().unwrap();
        });
    }
}

#[test]
fn bytes_kept_by_a_fault_obey_the_next_credit() {
    each_faulty(&[step(OpKind::Recv, 1, Fault::Starve)], |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        peer.write_all(&pattern(1000)).unwrap();
        rig.recv(sock, PLENTY);
        let completion = rig.next(OpKind::Recv, sock);
        assert!(matches!(completion.outcome, Outcome::Starved), "{completion:?}");
        rig.expect_quiet();
        let mut got = rig.receive(sock, 10, 10);
        rig.expect_quiet();
        got.extend(rig.receive(sock, 990, 300));
        assert_eq!(got, pattern(1000));
    });
}

#[test]
fn a_lost_more_ends_the_operation() {
    each_faulty(&[step(OpKind::Recv, 1, Fault::LoseMore)], |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.recv(sock, PLENTY);
        peer.write_all(b"one").unwrap();
        let completion = rig.next(OpKind::Recv, sock);
        assert!(!completion.more && matches!(completion.outcome, Outcome::Received(_)), "{completion:?}");
        peer.write_all(b"two").unwrap();
        rig.expect_quiet();
        assert_eq!(rig.receive(sock, 3, PLENTY), b"two");
    });
}

#[test]
fn a_forced_errno_ends_what_it_hits() {
    let plan = [
        step(OpKind::Recv, 1, Fault::Errno(errno::ETIMEDOUT)),
        step(OpKind::Send, 1, Fault::Errno(errno::ENOBUFS)),
        step(OpKind::Connect, 1, Fault::Errno(errno::EHOSTUNREACH)),
    ];
    each_faulty(&plan, |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        peer.write_all(b"hello").unwrap();
        rig.recv(sock, PLENTY);
        rig.tx(sock).push(&b"hello"[..]);
        rig.send(sock, ringport_platform::op::SendMode::Try);
        let (_listener, addr) = listener(1);
        let client = rig.add(stream_for(&ConnectAddr::Inet(addr)).unwrap());
        rig.connect(client, &ConnectAddr::Inet(addr));
        for (kind, index, expected) in [
            (OpKind::Recv, sock, errno::ETIMEDOUT),
            (OpKind::Send, sock, errno::ENOBUFS),
            (OpKind::Connect, client, errno::EHOSTUNREACH),
        ] {
            let completion = rig.next(kind, index);
            assert!(!completion.more);
            let Outcome::Failed(Errno(errno)) = completion.outcome else { panic!("{completion:?}") };
            assert_eq!(errno, expected);
        }
        rig.close(sock);
        rig.expect_quiet();
    });
}

#[test]
fn short_sends_deliver_everything() {
    let plan = [0, 1, 39, 41, 5_000].map(|len| len as usize);
    let plan: Vec<_> = plan
        .iter()
        .enumerate()
        .map(|(at, len)| step(OpKind::Send, at as u64 + 1, Fault::ShortSend(*len)))
        .collect();
    each_faulty(&plan, |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        let mut stalls = 0;
        for _ in 0..5 {
            for part in pattern(10_000).chunks(40) {
                rig.tx(sock).push(part.to_vec());
            }
            stalls += rig.send_all(sock);
            let mut got = vec![0; 10_000];
            peer.read_exact(&mut got).unwrap();
            assert!(got == pattern(10_000));
        }
        assert!(stalls > 0);
    });
}

#[test]
fn a_late_completion_comes_late_and_in_order() {
    each_faulty(&[step(OpKind::Recv, 1, Fault::Late { turns: 5 })], |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.recv(sock, 8);
        peer.write_all(b"late").unwrap();
        for _ in 0..3 {
            rig.turn(Wait::Poll);
        }
        assert!(rig.seen(OpKind::Recv, sock).is_none());
        peer.write_all(b"last").unwrap();
        let mut got = Vec::new();
        while got.len() < 8 {
            let Outcome::Received(buf) = rig.next(OpKind::Recv, sock).outcome else { panic!("bytes") };
            got.extend_from_slice(&buf);
        }
        assert_eq!(got, b"latelast");
        assert!(!rig.is_live(OpKind::Recv, sock));
    });
}

#[test]
fn a_cancel_can_be_overtaken_by_the_outcome() {
    let plan = [step(OpKind::Recv, 1, Fault::CancelRace), step(OpKind::Recv, 2, Fault::CancelRace)];
    each_faulty(&plan, |rig| {
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        // Before the receive: only then is it sure that one turn brings it.
        peer.write_all(b"real").unwrap();
        rig.recv(sock, 4);
        rig.cancel(OpKind::Recv, sock);
        let completion = rig.next(OpKind::Recv, sock);
        assert!(matches!(&completion.outcome, Outcome::Received(buf) if &**buf == b"real"), "{completion:?}");
        assert!(!completion.more);
        // With nothing to overtake it, the cancel arrives.
        rig.recv(sock, 4);
        rig.cancel(OpKind::Recv, sock);
        let completion = rig.next(OpKind::Recv, sock);
        assert!(matches!(completion.outcome, Outcome::Canceled), "{completion:?}");
    });
}

#[test]
fn a_refused_accept_of_one_keeps_the_connection() {
    let plan = [step(OpKind::Accept, 1, Fault::OutOfFds), step(OpKind::Accept, 3, Fault::Late { turns: 5 })];
    each_faulty(&plan, |rig| {
        let (fd, addr) = listener(16);
        let sock = rig.add(fd);
        let peers: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        rig.accept_in(sock, Burst::One);
        let completion = rig.next(OpKind::Accept, sock);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(errno::EMFILE))), "{completion:?}");
        for peer in &peers {
            rig.accept_in(sock, Burst::One);
            let completion = rig.next(OpKind::Accept, sock);
            assert!(!completion.more, "{completion:?}");
            let Outcome::Accepted(fd) = completion.outcome else { panic!("{completion:?}") };
            let accepted = TcpStream::from(fd);
            assert_eq!(accepted.peer_addr().unwrap(), peer.local_addr().unwrap(), "in order");
            rig.expect_quiet();
        }
    });
}

#[test]
fn a_lack_of_descriptors_keeps_the_connection() {
    let plan = [step(OpKind::Accept, 1, Fault::OutOfFds), step(OpKind::Accept, 3, Fault::LoseMore)];
    each_faulty(&plan, |rig| {
        let (fd, addr) = listener(16);
        let sock = rig.add(fd);
        let peers: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        rig.accept(sock);
        let completion = rig.next(OpKind::Accept, sock);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(errno::EMFILE))), "{completion:?}");
        assert!(!completion.more);
        rig.expect_quiet();
        for peer in &peers {
            if !rig.is_live(OpKind::Accept, sock) {
                rig.accept(sock);
            }
            let completion = rig.next(OpKind::Accept, sock);
            let Outcome::Accepted(fd) = completion.outcome else { panic!("{completion:?}") };
            let accepted = TcpStream::from(fd);
            assert_eq!(accepted.peer_addr().unwrap(), peer.local_addr().unwrap(), "in order");
        }
        rig.expect_quiet();
    });
}
