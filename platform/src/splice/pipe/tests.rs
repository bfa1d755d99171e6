use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use super::{Budget, MAX_IDLE, Pipe, Pipes, SIZES, Stop, advance};
use crate::op::Errno;

const PLENTY: Budget = Budget { bytes: 1 << 30, fills: u32::MAX };

/// A non-blocking end, and its blocking peer.
fn tcp() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let peer = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (ours, _) = listener.accept().expect("accept");
    ours.set_nonblocking(true).expect("non-blocking");
    (ours.into(), peer)
}

fn unix() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("non-blocking");
    (ours.into(), peer)
}

/// Waits until `fd` is ready for `events`, with poll(2).
fn poll(fd: RawFd, events: i16) {
    assert!(is_ready(fd, events, 10_000), "never ready for {events}");
}

fn is_ready(fd: RawFd, events: i16, millis: i32) -> bool {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry, written during the call only.
    unsafe { libc::poll(&mut entry, 1, millis) == 1 }
}

/// Relays until something but a wait ends it; returns what was moved.
fn relay(pipes: &mut Pipes, from: &OwnedFd, to: &OwnedFd, most: u64) -> (u64, Stop) {
    let (mut pipe, mut moved) = (None, 0);
    loop {
        let fds = (from.as_raw_fd(), to.as_raw_fd());
        let (count, stop) = advance(pipes, &mut pipe, fds, most - moved, &mut { Budget::TURN });
        moved += count;
        assert_eq!(pipe.is_some(), stop == Stop::Sink, "a pipe is held while bytes are in it: {stop:?}");
        match stop {
            Stop::Source => poll(from.as_raw_fd(), libc::POLLIN | libc::POLLRDHUP),
            Stop::Sink => poll(to.as_raw_fd(), libc::POLLOUT),
            Stop::Budget => {}
            stop => return (moved, stop),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(7)) as u8).collect()
}

/// Passes `len` bytes and the end from one kind of socket to another, written and read in odd pieces.
fn check_whole(source: (OwnedFd, impl Write + Send), sink: (OwnedFd, impl Read + Send), len: usize) {
    let ((from, mut writer), (to, mut reader)) = (source, sink);
    let sent = pattern(len);
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            let mut rest = &sent[..];
            for piece in [1, 7, 4096, 100_000, 3, 65_537].into_iter().cycle() {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                writer.write_all(now).expect("written");
                rest = later;
                if rest.is_empty() {
                    drop(writer);
                    return;
                }
            }
        });
        let read = scope.spawn(|| {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).expect("read");
            all
        });
        let mut pipes = Pipes::new(1);
        assert_eq!(relay(&mut pipes, &from, &to, u64::MAX), (len as u64, Stop::End));
        drop(to);
        written.join().expect("no panic");
        assert!(read.join().expect("no panic") == sent, "the bytes differ");
        assert_eq!((pipes.open_count(), pipes.idle.len()), (1, 1));
    });
}

#[test]
fn bytes_and_the_end_go_from_socket_to_socket() {
    check_whole(tcp(), tcp(), 5 << 20);
    check_whole(unix(), tcp(), 3 << 20);
    check_whole(tcp(), unix(), 3 << 20);
    check_whole(unix(), unix(), 3 << 20);
    check_whole(tcp(), tcp(), 0);
}

#[test]
fn the_limit_is_met_to_the_byte_and_what_is_behind_stays() {
    for limit in [1, 2, 1447, 4096, 65_536, 1 << 20] {
        let ((from, mut writer), (to, mut reader)) = (tcp(), tcp());
        let sent = pattern(limit + 1000);
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent).expect("written"));
            let read = scope.spawn(|| {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).expect("read");
                all
            });
            let mut pipes = Pipes::new(1);
            assert_eq!(relay(&mut pipes, &from, &to, limit as u64), (limit as u64, Stop::Limit));
            drop(to);
            assert!(read.join().expect("no panic") == sent[..limit]);
        });
        let mut behind = vec![0; 1000];
        let mut from = TcpStream::from(from);
        from.set_nonblocking(false).expect("blocking");
        from.read_exact(&mut behind).expect("read");
        assert!(behind == sent[limit..]);
    }
}

#[test]
fn a_sink_that_does_not_read_stops_its_source() {
    let ((from, mut writer), (to, reader)) = (tcp(), tcp());
    let (mut pipes, mut pipe) = (Pipes::new(1), None);
    let fds = (from.as_raw_fd(), to.as_raw_fd());
    thread::scope(|scope| {
        let written = scope.spawn(move || writer.write_all(&vec![0; 64 << 20]));
        let mut step = || match advance(&mut pipes, &mut pipe, fds, u64::MAX, &mut { PLENTY }) {
            (_, Stop::Source) => poll(fds.0, libc::POLLIN),
            (_, stop) => assert_eq!(stop, Stop::Sink),
        };
        // The receiver's window grows a few times before it is full for good.
        let full = || !is_ready(fds.1, libc::POLLOUT, 100);
        while !full() {
            step();
        }
        (0..100).for_each(|_| step());
        assert!(full() && pipe.as_ref().is_some_and(|pipe| pipe.held() > 0));
        // Nobody holds the other end of the source either: its writer ends with an error.
        drop((from, reader));
        written.join().expect("no panic").expect_err("reset");
    });
}

#[test]
fn failures_name_their_side() {
    let reset = |peer: TcpStream| {
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
    };
    let ((from, writer), (to, _reader)) = (tcp(), tcp());
    reset(writer);
    let mut pipes = Pipes::new(1);
    let (_, stop) = relay(&mut pipes, &from, &to, u64::MAX);
    assert_eq!(stop, Stop::SourceFailed(Errno(libc::ECONNRESET)));
    assert_eq!(pipes.open_count(), 1);

    let ((from, mut writer), (to, reader)) = (tcp(), tcp());
    reset(reader);
    poll(to.as_raw_fd(), libc::POLLRDHUP);
    writer.write_all(b"too late").expect("written");
    poll(from.as_raw_fd(), libc::POLLIN);
    let mut pipe = None;
    let fds = (from.as_raw_fd(), to.as_raw_fd());
    let (moved, stop) = advance(&mut pipes, &mut pipe, fds, u64::MAX, &mut { PLENTY });
    assert!(
        matches!((moved, stop), (0, Stop::SinkFailed(Errno(libc::EPIPE | libc::ECONNRESET)))),
        "{stop:?}"
    );
    // What was under way is lost with its pipe.
    let pipe = pipe.expect("bytes are under way");
    pipes.put_back(pipe);
    assert_eq!((pipes.open_count(), pipes.idle.len()), (0, 0));

    // A pipe is no socket that splice(2) gives bytes to from a pipe and back: the kernel says EINVAL.
    let file = std::fs::File::open("/").expect("a folder");
    let fds = (file.as_raw_fd(), to.as_raw_fd());
    assert_eq!(advance(&mut pipes, &mut None, fds, 1, &mut { PLENTY }), (0, Stop::Copy));
    assert_eq!((pipes.open_count(), pipes.idle.len()), (1, 1));
}

#[test]
fn a_budget_ends_a_step() {
    let ((from, mut writer), (to, _reader)) = (tcp(), tcp());
    writer.write_all(&[0; 10_000]).expect("written");
    let fds = (from.as_raw_fd(), to.as_raw_fd());
    let (mut pipes, mut pipe) = (Pipes::new(1), None);
    let mut check = |bytes, fills, expected: (u64, Stop)| {
        poll(fds.0, libc::POLLIN);
        assert_eq!(advance(&mut pipes, &mut pipe, fds, u64::MAX, &mut Budget { bytes, fills }), expected);
    };
    check(1000, 16, (1000, Stop::Budget));
    check(8000, 1, (8000, Stop::Budget));
    check(1000, 16, (1000, Stop::Budget));
    writer.write_all(b"x").expect("written");
    check(1000, 16, (1, Stop::Source));
}

#[test]
fn there_are_only_so_many_pipes() {
    let mut pipes = Pipes::new(MAX_IDLE + 2);
    let taken: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
    assert_eq!((taken.len(), pipes.open_count()), (MAX_IDLE + 2, MAX_IDLE + 2));
    let ((from, _writer), (to, _reader)) = (tcp(), tcp());
    let fds = (from.as_raw_fd(), to.as_raw_fd());
    assert_eq!(advance(&mut pipes, &mut None, fds, 1, &mut { PLENTY }), (0, Stop::Copy));
    taken.into_iter().for_each(|pipe| pipes.put_back(pipe));
    assert_eq!((pipes.open_count(), pipes.idle.len()), (MAX_IDLE, MAX_IDLE));
    pipes.close_idle();
    assert_eq!((pipes.open_count(), pipes.idle.len()), (0, 0));
    assert!(pipes.take().is_some());
    assert!(Pipes::new(0).is_off());
}

/// A user beyond the limit on pipe pages gets two of them, and a smaller size is refused.
#[test]
fn a_size_that_the_kernel_refuses_falls_to_the_next() {
    let capacity = |pipe: &Pipe| {
        let fd = pipe.read.as_fd().as_raw_fd();
        // SAFETY: takes no memory.
        unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) as usize }
    };
    let huge = i32::MAX as usize;
    let pipe = Pipe::open(&[usize::MAX, huge, SIZES[2]]).expect("a pipe of 64 KiB");
    assert_eq!(capacity(&pipe), SIZES[2]);
    let error = Pipe::open(&[huge]).err().expect("no kernel has that much");
    assert!(crate::process::is_shortage(&error), "{error}");
}
