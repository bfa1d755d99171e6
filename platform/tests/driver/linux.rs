//! What only Linux has, and how the suite asks for what each system has of its own.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use ringport_platform::driver::ConnectAddr;
use ringport_platform::op::{Burst, Errno, OpKind, Outcome};
use ringport_platform::socket::{ListenOptions, listen, stream_for};

use super::connections::take_connections;
use super::each;
use super::rig::{PATIENCE, PLENTY, listener};

/// A stream within the machine that is not TCP.
pub(crate) type LocalStream = UnixStream;

/// A connected pair: ours, non-blocking, and the peer, which gives up after 10 s.
pub(crate) fn local_pair() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("non-blocking");
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    peer.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (ours.into(), peer)
}

/// One whose peer is gone, where that makes a send fail at once.
pub(crate) fn closed_local() -> Option<OwnedFd> {
    Some(local_pair().0)
}

/// It does not block, and programs that are started do not get it.
pub(crate) fn expect_our_own(stream: &TcpStream) {
    // SAFETY: the descriptor is open; no memory is passed.
    let (status, flags) = unsafe {
        (libc::fcntl(stream.as_raw_fd(), libc::F_GETFL), libc::fcntl(stream.as_raw_fd(), libc::F_GETFD))
    };
    assert!(status & libc::O_NONBLOCK != 0 && flags & libc::FD_CLOEXEC != 0);
}

/// A read of a Unix socket ends at a passed descriptor although more has arrived. The descriptor itself is refused.
#[test]
fn a_passed_descriptor_does_not_stop_a_stream() {
    each(|rig| {
        let (ours, mut peer) = local_pair();
        let sock = rig.add(ours);
        peer.write_all(b"before").unwrap();
        pass_descriptor(&peer, b"with");
        peer.write_all(b"after").unwrap();
        assert_eq!(rig.receive(sock, 15, PLENTY), b"beforewithafter");
    });
}

fn pass_descriptor(peer: &UnixStream, bytes: &[u8]) {
    let mut iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0u64; 8];
    // SAFETY: `message` names `iovec`, `bytes` and `control`, which live through the call; `control` is aligned for a
    // header and longer than one descriptor needs.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iovec;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(peer.as_raw_fd());
        libc::sendmsg(peer.as_raw_fd(), &message, 0)
    };
    assert_eq!(sent, bytes.len() as isize);
}

/// The limit is the process's, so this case runs in a process of its own.
#[test]
fn accept_recovers_from_a_lack_of_descriptors() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "os::lack_of_descriptors", "--ignored", "--test-threads=1", "--nocapture"])
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
