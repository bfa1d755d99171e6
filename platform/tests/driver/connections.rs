//! Accept and connect.

use std::net::TcpStream;

use ringport_platform::driver::{ConnectAddr, Wait};
use ringport_platform::errno;
use ringport_platform::op::{Burst, Errno, OpKind, Outcome};
use ringport_platform::socket::stream_for;

use super::each;
use super::os::expect_our_own;
use super::rig::{PLENTY, Rig, listener};

pub(super) fn take_connections(
    rig: &mut Rig,
    sock: u32,
    count: usize,
) -> Vec<ringport_platform::fd::OwnedFd> {
    let mut taken = Vec::new();
    while taken.len() < count {
        if !rig.is_live(OpKind::Accept, sock) {
            rig.accept(sock);
        }
        match rig.next(OpKind::Accept, sock).outcome {
            Outcome::Accepted(fd) => taken.push(fd),
            Outcome::Failed(Errno(errno::EMFILE)) | Outcome::Canceled => {}
            outcome => panic!("{outcome:?}"),
        }
    }
    taken
}

#[test]
fn many_connections_are_accepted() {
    each(|rig| {
        let (fd, addr) = listener(1024);
        let sock = rig.add(fd);
        rig.accept(sock);
        let peers: Vec<_> = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut ports: Vec<_> = Vec::new();
        for fd in take_connections(rig, sock, 200) {
            let stream = TcpStream::from(fd);
            ports.push(stream.peer_addr().unwrap().port());
            expect_our_own(&stream);
        }
        let expected: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap().port()).collect();
        ports.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(ports, expected);
        rig.expect_quiet();
    });
}

#[test]
fn a_cancelled_listener_loses_no_connection() {
    each(|rig| {
        let (fd, addr) = listener(1024);
        let sock = rig.add(fd);
        let mut peers = Vec::new();
        let mut accepted = 0;
        for _ in 0..50 {
            rig.accept(sock);
            peers.push(TcpStream::connect(addr).unwrap());
            if peers.len() % 2 == 0 {
                rig.turn(Wait::Poll);
            }
            rig.cancel(OpKind::Accept, sock);
            loop {
                let completion = rig.next(OpKind::Accept, sock);
                match completion.outcome {
                    Outcome::Accepted(_) => accepted += 1,
                    Outcome::Canceled => {}
                    outcome => panic!("{outcome:?}"),
                }
                if !completion.more {
                    break;
                }
            }
        }
        take_connections(rig, sock, 50 - accepted);
        rig.expect_quiet();
    });
}

/// A burst once took every descriptor of the process before its owner could say that there was no room.
#[test]
fn one_connection_is_taken_at_a_time() {
    each(|rig| {
        let (fd, addr) = listener(1024);
        let sock = rig.add(fd);
        let peers: Vec<_> = (0..50).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for peer in &peers {
            rig.accept_in(sock, Burst::One);
            let completion = rig.next(OpKind::Accept, sock);
            assert!(!completion.more, "{completion:?}");
            let Outcome::Accepted(fd) = completion.outcome else { panic!("{completion:?}") };
            assert_eq!(TcpStream::from(fd).peer_addr().unwrap(), peer.local_addr().unwrap(), "in order");
            rig.expect_quiet();
        }
        // One that waits takes the next that comes, and no more.
        rig.accept_in(sock, Burst::One);
        rig.expect_quiet();
        let _late: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let completion = rig.next(OpKind::Accept, sock);
        assert!(matches!(completion.outcome, Outcome::Accepted(_)) && !completion.more, "{completion:?}");
        rig.expect_quiet();
        take_connections(rig, sock, 4);
    });
}

#[test]
fn a_cancelled_accept_of_one_loses_no_connection() {
    each(|rig| {
        let (fd, addr) = listener(1024);
        let sock = rig.add(fd);
        let (mut peers, mut accepted) = (Vec::new(), 0);
        for round in 0..50 {
            rig.accept_in(sock, Burst::One);
            if round % 2 == 0 {
                rig.turn(Wait::Poll);
                peers.push(TcpStream::connect(addr).unwrap());
            }
            rig.cancel(OpKind::Accept, sock);
            let completion = rig.next(OpKind::Accept, sock);
            assert!(!completion.more, "{completion:?}");
            match completion.outcome {
                Outcome::Accepted(_) => accepted += 1,
                Outcome::Canceled => {}
                outcome => panic!("{outcome:?}"),
            }
        }
        take_connections(rig, sock, peers.len() - accepted);
        rig.expect_quiet();
    });
}

#[test]
fn connects_succeed_and_carry_bytes() {
    each(|rig| {
        let (fd, addr) = listener(16);
        let server = rig.add(fd);
        let client = rig.add(stream_for(&ConnectAddr::Inet(addr)).unwrap());
        // An attached socket without a connection looks hung up; that must not be taken for an answer.
        rig.expect_quiet();
        rig.connect(client, &ConnectAddr::Inet(addr));
        let completion = rig.next(OpKind::Connect, client);
        assert!(matches!(completion.outcome, Outcome::Connected), "{completion:?}");
        let accepted = take_connections(rig, server, 1).remove(0);
        let accepted = rig.add(accepted);
        rig.tx(accepted).push(&b"hello"[..]);
        rig.send_all(accepted);
        assert_eq!(rig.receive(client, 5, PLENTY), b"hello");
    });
}

#[test]
fn a_refused_connect_fails() {
    each(|rig| {
        let (fd, addr) = listener(1);
        drop(fd);
        let client = rig.add(stream_for(&ConnectAddr::Inet(addr)).unwrap());
        rig.connect(client, &ConnectAddr::Inet(addr));
        let completion = rig.next(OpKind::Connect, client);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(errno::ECONNREFUSED))), "{completion:?}");
    });
}

#[test]
fn a_cancelled_connect_ends() {
    each(|rig| {
        // The queue holds one connection; what comes behind waits for its handshake.
        let (_listener, addr) = listener(0);
        let addr = ConnectAddr::Inet(addr);
        let clients: Vec<_> = (0..5).map(|_| rig.add(stream_for(&addr).unwrap())).collect();
        for client in &clients {
            rig.connect(*client, &addr);
        }
        for client in &clients {
            rig.cancel(OpKind::Connect, *client);
        }
        let mut canceled = 0;
        for client in clients {
            match rig.next(OpKind::Connect, client).outcome {
                Outcome::Canceled => canceled += 1,
                Outcome::Connected => {}
                outcome => panic!("{outcome:?}"),
            }
            rig.close(client);
        }
        assert!(canceled > 0);
        rig.expect_quiet();
    });
}
