//! Accept and connect.

use std::net::TcpStream;
use std::process::Command;

use ringport_platform::driver::{ConnectAddr, Wait};
use ringport_platform::op::{Burst, Errno, OpKind, Outcome};
use ringport_platform::socket::{ListenOptions, listen, stream_for};

use super::each;
use super::rig::{PLENTY, Rig, listener};

fn take_connections(rig: &mut Rig, sock: u32, count: usize) -> Vec<std::os::fd::OwnedFd> {
    let mut taken = Vec::new();
    while taken.len() < count {
        if !rig.is_live(OpKind::Accept, sock) {
            rig.accept(sock);
        }
        match rig.next(OpKind::Accept, sock).outcome {
            Outcome::Accepted(fd) => taken.push(fd),
            Outcome::Failed(Errno(libc::EMFILE)) | Outcome::Canceled => {}
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
            // SAFETY: the descriptor is open; no memory is passed.
            let (status, flags) = unsafe {
                use std::os::fd::AsRawFd;
                (
                    libc::fcntl(stream.as_raw_fd(), libc::F_GETFL),
                    libc::fcntl(stream.as_raw_fd(), libc::F_GETFD),
                )
            };
            assert!(status & libc::O_NONBLOCK != 0 && flags & libc::FD_CLOEXEC != 0);
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

/// The limit is the process's, so this case runs in a process of its own.
#[test]
fn accept_recovers_from_a_lack_of_descriptors() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "connections::lack_of_descriptors", "--ignored", "--test-threads=1", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{output:?}");
}

#[test]
#[ignore = "lowers the limit of the whole process; the test above runs it in a child"]
fn lack_of_descriptors() {
    each(|rig| {
        let (fd, addr) = listener(16);
        let sock = rig.add(fd);
        let peers: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads and writes `limit` during the calls only; the duplicate is closed at once.
        let next = unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            let next = libc::dup(0);
            assert!(next > 0);
            libc::close(next);
            next
        };
        let low = libc::rlimit { rlim_cur: next as libc::rlim_t, ..limit };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &low) }, 0);
        let refused = [Burst::Many, Burst::One].map(|burst| {
            rig.accept_in(sock, burst);
            rig.next(OpKind::Accept, sock)
        });
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        for completion in refused {
            assert!(matches!(completion.outcome, Outcome::Failed(Errno(libc::EMFILE))), "{completion:?}");
            assert!(!completion.more);
        }
        assert_eq!(rig.stats.accept_out_of_fds.load(), 2);
        take_connections(rig, sock, peers.len());
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
fn unix_connects_answer_at_once() {
    each(|rig| {
        let name = format!("\0ringport-driver-{}-{:p}", std::process::id(), rig).into_bytes();
        let addr = ConnectAddr::Unix(name);
        let refused = rig.add(stream_for(&addr).unwrap());
        rig.connect(refused, &addr);
        let completion = rig.next(OpKind::Connect, refused);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(libc::ECONNREFUSED))), "{completion:?}");
        let _listener = listen(&addr, ListenOptions { backlog: 1, reuse_port: false }).unwrap();
        let client = rig.add(stream_for(&addr).unwrap());
        rig.connect(client, &addr);
        let completion = rig.next(OpKind::Connect, client);
        assert!(matches!(completion.outcome, Outcome::Connected), "{completion:?}");
    });
}

#[test]
fn a_path_that_is_too_long_is_an_invalid_address() {
    each(|rig| {
        let addr = ConnectAddr::Unix(vec![b'x'; 109]);
        let client = rig.add(stream_for(&addr).unwrap());
        rig.connect(client, &addr);
        let completion = rig.next(OpKind::Connect, client);
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(libc::EINVAL))), "{completion:?}");
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
        assert!(matches!(completion.outcome, Outcome::Failed(Errno(libc::ECONNREFUSED))), "{completion:?}");
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
