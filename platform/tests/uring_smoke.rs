//! The io_uring driver over real sockets, with every mechanism on and each off in turn.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringport_platform::buf::{Pool, PoolSpec, TxQueue};
use ringport_platform::driver::{
    ConnectAddr, Denial, Driver, Mechanism, Mechanisms, UringDriver, UringError, UringSpec, Wait,
};
use ringport_platform::op::{Completion, OpKind, Outcome, SendMode, Token};
use ringport_platform::stats::CoreStats;

struct Bench {
    driver: UringDriver,
    pool: Pool,
    stats: Arc<CoreStats>,
    /// Reported and not yet looked at.
    seen: Vec<Completion>,
}

impl Bench {
    fn new(disable: Mechanisms, pool: PoolSpec) -> Self {
        Bench::open(&UringSpec { disable, ..UringSpec::default() }, pool)
    }

    fn open(spec: &UringSpec, pool: PoolSpec) -> Self {
        let (pool, stats) = (Pool::new(pool), Arc::new(CoreStats::default()));
        let (driver, _) =
            UringDriver::open(spec, pool.clone(), Arc::clone(&stats)).expect("io_uring is needed");
        Bench { driver, pool, stats, seen: Vec::new() }
    }

    /// Turns until `token` reports.
    fn next(&mut self, token: Token) -> Completion {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.iter().position(|completion| completion.token == token) {
                return self.seen.remove(at);
            }
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{token:?} does not report; seen {:?}",
                self.seen
            );
            self.driver.turn(Wait::AtMost(Duration::from_millis(100)), &mut self.seen).expect("a turn");
        }
    }

    /// Turns for a while; true if `token` reported.
    fn reports(&mut self, token: Token) -> bool {
        for _ in 0..5 {
            self.driver.turn(Wait::AtMost(Duration::from_millis(4)), &mut self.seen).expect("a turn");
        }
        self.seen.iter().any(|completion| completion.token == token)
    }

    /// Receives until the operation ends; the bytes and, unless it was bytes, the end.
    fn receive(&mut self, token: Token) -> (Vec<u8>, Option<Outcome>) {
        let mut bytes = Vec::new();
        loop {
            let Completion { outcome, more, .. } = self.next(token);
            match outcome {
                Outcome::Received(buf) => bytes.extend_from_slice(&buf),
                end => {
                    assert!(!more);
                    return (bytes, Some(end));
                }
            }
            if !more {
                return (bytes, None);
            }
        }
    }

    fn send(&mut self, fd: RawFd, token: Token, queue: &mut TxQueue, mode: SendMode) -> (usize, Outcome) {
        // SAFETY: `queue` is borrowed until the terminal completion.
        let taken = unsafe { self.driver.send(fd, token, queue, mode) };
        let Completion { outcome, more, .. } = self.next(token);
        assert!(!more);
        if let Outcome::Sent(count) | Outcome::Stalled(count) = outcome {
            queue.advance(count);
        }
        (taken, outcome)
    }

    fn attach(&mut self, fd: &impl AsRawFd, index: u32) -> RawFd {
        self.driver.attach(fd.as_raw_fd(), index).expect("attached");
        fd.as_raw_fd()
    }
}

fn every_mode(case: impl Fn(Mechanisms)) {
    case(Mechanisms::NONE);
    for mechanism in Mechanism::ALL {
        case(Mechanisms::NONE.with(mechanism));
    }
    case("inc,multishot,silent,credit,defer".parse().expect("known words"));
}

fn small_pool(max_chunks: u16) -> PoolSpec {
    PoolSpec { chunk_bytes: 16 * 1024, min_chunks: 0, max_chunks }
}

fn recv(index: u32) -> Token {
    Token::new(OpKind::Recv, index, 1)
}

fn send(index: u32) -> Token {
    Token::new(OpKind::Send, index, 1)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    server.set_nonblocking(true).expect("nonblocking");
    (client, server)
}

fn unix_pair() -> (UnixStream, UnixStream) {
    let (peer, ours) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("nonblocking");
    (peer, ours)
}

/// Accepts over loopback, receives, and sends back: small, large and in many segments.
#[test]
fn echo() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let accept = Token::new(OpKind::Accept, 0, 7);
        let listener_fd = bench.attach(&listener, 0);
        bench.driver.accept(listener_fd, accept);
        for index in 1..4 {
            let mut client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
            let accepted = bench.next(accept);
            assert!(accepted.more);
            let Outcome::Accepted(socket) = accepted.outcome else { panic!("{accepted:?}") };
            // SAFETY: no memory is involved.
            assert!(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) } & libc::O_NONBLOCK != 0);
            let fd = bench.attach(&socket, index);
            let mut queue = TxQueue::new(bench.pool.clone());
            for len in [1, 64, 20_000] {
                let sent = pattern(len);
                client.write_all(&sent).expect("write");
                bench.driver.recv(fd, recv(index), len as u32);
                let (bytes, end) = bench.receive(recv(index));
                assert!(end.is_none() && bytes == sent, "{disable}: {} bytes, {end:?}", bytes.len());
                bytes.chunks(1 + len / 5).for_each(|part| queue.push(part.to_vec()));
                let (taken, outcome) = bench.send(fd, send(index), &mut queue, SendMode::Try);
                assert!(
                    matches!(outcome, Outcome::Sent(count) if count == len && taken == len),
                    "{outcome:?}"
                );
                let mut back = vec![0; len];
                client.read_exact(&mut back).expect("read");
                assert_eq!(back, sent);
            }
            drop(client);
            bench.driver.recv(fd, recv(index), 10);
            assert!(matches!(bench.next(recv(index)).outcome, Outcome::Eof));
            bench.driver.close(socket, index);
        }
        bench.driver.cancel(listener_fd, accept);
        assert!(matches!(bench.next(accept), Completion { outcome: Outcome::Canceled, more: false, .. }));
        assert_eq!(bench.driver.in_flight(), 0);
        assert_eq!(bench.stats.silent_sends.load() > 0, !disable.contains(Mechanism::Silent));
    });
}

/// The credit is exact where the kernel counts, or where each receive is submitted alone.
#[test]
fn credit_is_a_cap() {
    every_mode(|disable| {
        let counted = !disable.contains(Mechanism::Credit) || disable.contains(Mechanism::Multishot);
        let mut bench = Bench::new(disable, PoolSpec::default());
        let (mut peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 3);
        let sent = pattern(100_000);
        peer.write_all(&sent).expect("write");
        let mut all = Vec::new();
        for credit in [1, 10, 4096, 20_000, 40_000] {
            if all.len() + credit > sent.len() {
                break;
            }
            bench.driver.recv(fd, recv(3), credit as u32);
            let (bytes, end) = bench.receive(recv(3));
            assert!(end.is_none(), "{disable}: {end:?}");
            assert!(
                bytes.len() >= credit && (!counted || bytes.len() == credit),
                "{disable}: {}",
                bytes.len()
            );
            assert!(!bench.reports(recv(3)), "nothing after the end");
            all.extend(bytes);
        }
        assert!(all == sent[..all.len()], "{disable}");
        // In dribs, so that no step of the kernel is full.
        let (mut peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 4);
        bench.driver.recv(fd, recv(4), 9_000);
        for part in sent[..12_000].chunks(700) {
            peer.write_all(part).expect("write");
            bench.driver.turn(Wait::Poll, &mut bench.seen).expect("a turn");
        }
        let (bytes, _) = bench.receive(recv(4));
        assert!(bytes == sent[..bytes.len()] && bytes.len() >= 9_000, "{disable}: {}", bytes.len());
        assert!(!counted || bytes.len() == 9_000, "{disable}: {}", bytes.len());
    });
}

/// With two chunks, views that are kept starve a receive; dropping them lets it go on, and no byte is lost.
#[test]
fn starvation_and_recovery() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, small_pool(2));
        let (mut peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 0);
        let sent = pattern(100_000);
        peer.write_all(&sent).expect("write");
        drop(peer);
        let (mut kept, mut all, mut starved) = (Vec::new(), Vec::new(), 0);
        bench.driver.recv(fd, recv(0), u32::MAX);
        loop {
            let Completion { outcome, more, .. } = bench.next(recv(0));
            match outcome {
                Outcome::Received(buf) => {
                    assert!(more);
                    all.extend_from_slice(&buf);
                    kept.push(buf);
                }
                Outcome::Starved => {
                    starved += 1;
                    // Still nothing: it says so again.
                    bench.driver.recv(fd, recv(0), u32::MAX);
                    assert!(matches!(bench.next(recv(0)).outcome, Outcome::Starved));
                    kept.clear();
                    bench.driver.recv(fd, recv(0), u32::MAX);
                }
                Outcome::Eof => break,
                other => panic!("{disable}: {other:?}"),
            }
        }
        assert!(starved > 0 && bench.stats.pool_starved.load() == starved * 2, "{disable}: {starved}");
        assert!(all == sent, "{disable}: {} of {}", all.len(), sent.len());
    });
}

/// A full socket stalls a try; the rest goes in wait mode while the peer reads.
#[test]
fn stalled_then_wait() {
    every_mode(|disable| {
        for tcp in [true, false] {
            let mut bench = Bench::new(disable, PoolSpec::default());
            let (peer, ours): (OwnedFd, OwnedFd) = if tcp {
                let (peer, ours) = tcp_pair();
                (peer.into(), ours.into())
            } else {
                let (peer, ours) = unix_pair();
                (peer.into(), ours.into())
            };
            let fd = bench.attach(&ours, 5);
            let sent = pattern(251).repeat(100_000);
            let mut queue = TxQueue::new(bench.pool.clone());
            sent.chunks(300_000).for_each(|part| queue.push(part.to_vec()));
            let mut stalled = false;
            while !stalled {
                let (taken, outcome) = bench.send(fd, send(5), &mut queue, SendMode::Try);
                match outcome {
                    Outcome::Sent(count) => assert_eq!(count, taken),
                    Outcome::Stalled(count) => stalled = count < taken,
                    other => panic!("{disable}: {other:?}"),
                }
            }
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                std::fs::File::from(peer).read_to_end(&mut all).map(|_| all)
            });
            while !queue.is_empty() {
                let (taken, outcome) = bench.send(fd, send(5), &mut queue, SendMode::Wait);
                assert!(matches!(outcome, Outcome::Sent(count) if count == taken), "{outcome:?}");
            }
            bench.driver.close(ours, 5);
            bench.driver.turn(Wait::Poll, &mut bench.seen).expect("a turn");
            assert!(reader.join().expect("reader").expect("read") == sent);
        }
    });
}

/// Cancels end a receive and a waiting send; a late cancel harms nobody.
#[test]
fn cancels() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let (mut peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 0);
        bench.driver.recv(fd, recv(0), 1000);
        bench.driver.cancel(fd, recv(0));
        assert!(matches!(bench.next(recv(0)).outcome, Outcome::Canceled), "{disable}: before the first turn");
        bench.driver.recv(fd, recv(0), 1000);
        assert!(!bench.reports(recv(0)));
        peer.write_all(b"last").expect("write");
        bench.driver.cancel(fd, recv(0));
        let (bytes, end) = bench.receive(recv(0));
        // The bytes are reported first, or they are still in the socket.
        assert!(matches!(end, Some(Outcome::Canceled)) && (bytes == b"last" || bytes.is_empty()), "{end:?}");
        bench.driver.cancel(fd, recv(0));
        bench.driver.recv(fd, recv(0), 4);
        if bytes.is_empty() {
            assert_eq!(bench.receive(recv(0)).0, b"last");
        } else {
            assert!(!bench.reports(recv(0)), "{disable}: a late cancel hit the next receive");
        }
        let mut queue = TxQueue::new(bench.pool.clone());
        (0..40).for_each(|_| queue.push(vec![1; 1 << 19]));
        // SAFETY: `queue` lives to the end.
        unsafe { bench.driver.send(fd, send(0), &queue, SendMode::Wait) };
        assert!(!bench.reports(send(0)));
        bench.driver.cancel(fd, send(0));
        assert!(matches!(bench.next(send(0)).outcome, Outcome::Stalled(_) | Outcome::Canceled));
        assert_eq!(bench.driver.in_flight(), usize::from(!bytes.is_empty()));
    });
}

/// Connects to what listens, what does not, and over a Unix name.
#[test]
fn connects() {
    let mut bench = Bench::new(Mechanisms::NONE, PoolSpec::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("addr");
    let mut dial = |domain, addr: &ConnectAddr, index| {
        // SAFETY: no memory is involved.
        let fd =
            unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
        let token = Token::new(OpKind::Connect, index, 1);
        bench.driver.connect(fd, token, addr);
        let outcome = bench.next(token).outcome;
        // SAFETY: opened above, and no operation is left.
        unsafe { libc::close(fd) };
        outcome
    };
    assert!(matches!(dial(libc::AF_INET, &ConnectAddr::Inet(addr), 0), Outcome::Connected));
    drop(listener);
    let refused = dial(libc::AF_INET, &ConnectAddr::Inet(addr), 1);
    assert!(matches!(refused, Outcome::Failed(errno) if errno.0 == libc::ECONNREFUSED), "{refused:?}");
    let name = format!("\0ringport-smoke-{}", std::process::id()).into_bytes();
    let unknown = dial(libc::AF_UNIX, &ConnectAddr::Unix(name), 2);
    assert!(matches!(unknown, Outcome::Failed(errno) if errno.0 == libc::ECONNREFUSED), "{unknown:?}");
    let long = dial(libc::AF_UNIX, &ConnectAddr::Unix(vec![b'x'; 108]), 3);
    assert!(matches!(long, Outcome::Failed(errno) if errno.0 == libc::ENAMETOOLONG), "{long:?}");
}

/// A failed send says why, silent or not.
#[test]
fn a_closed_peer_fails_the_send() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let (peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 0);
        drop(peer);
        let mut queue = TxQueue::new(bench.pool.clone());
        queue.push(&b"x"[..]);
        let (_, outcome) = bench.send(fd, send(0), &mut queue, SendMode::Try);
        assert!(
            matches!(outcome, Outcome::Failed(errno) if errno.0 == libc::EPIPE),
            "{disable}: {outcome:?}"
        );
    });
}

/// A silent send ends its turn at once, or lets it sleep when that was allowed; one system call either way.
#[test]
fn lazy_sends_let_a_turn_sleep() {
    for lazy in [false, true] {
        let mut bench = Bench::new(Mechanisms::NONE, PoolSpec::default());
        let (_peer, ours) = unix_pair();
        let fd = bench.attach(&ours, 0);
        bench.driver.turn(Wait::Poll, &mut bench.seen).expect("a turn");
        bench.driver.set_lazy_sends(lazy);
        let mut queue = TxQueue::new(bench.pool.clone());
        queue.push(&b"hello"[..]);
        let (start, syscalls) = (Instant::now(), bench.stats.syscalls.load());
        // SAFETY: `queue` lives to the end.
        unsafe { bench.driver.send(fd, send(0), &queue, SendMode::Try) };
        bench.driver.turn(Wait::AtMost(Duration::from_millis(30)), &mut bench.seen).expect("a turn");
        assert!(matches!(bench.seen[..], [Completion { outcome: Outcome::Sent(5), more: false, .. }]));
        assert_eq!(start.elapsed() >= Duration::from_millis(25), lazy);
        assert_eq!(bench.stats.syscalls.load() - syscalls, 1);
    }
}

/// Prints what this kernel has; everything on the reference kernel.
#[test]
fn report() {
    let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
    let (_, report) = UringDriver::open(&UringSpec::default(), pool, stats).expect("io_uring is needed");
    println!("{report:#?}");
    assert!(report.features.iter().all(|feature| feature.enabled || !feature.available));
    assert!(report.self_test < Duration::from_millis(500));
}

/// B14: with a completion queue that overflows, a failed silent send is not taken for a success.
#[test]
fn overflow_hides_no_failure() {
    let spec = UringSpec { sq_entries: 8, cq_entries: 16, disable: Mechanisms::NONE };
    let mut bench = Bench::open(&spec, PoolSpec::default());
    let pairs: Vec<_> = (0..300).map(|_| unix_pair()).collect();
    let mut queue = TxQueue::new(bench.pool.clone());
    queue.push(&b"hello"[..]);
    for (index, (peer, ours)) in (0_u32..).zip(&pairs) {
        let fd = bench.attach(ours, index);
        bench.driver.recv(fd, recv(index), 100);
        if index % 3 == 0 {
            peer.shutdown(std::net::Shutdown::Both).expect("shutdown");
        }
        // SAFETY: `queue` lives to the end and is not changed.
        unsafe { bench.driver.send(fd, send(index), &queue, SendMode::Try) };
    }
    for index in 0..300 {
        let outcome = bench.next(send(index)).outcome;
        let failed = matches!(outcome, Outcome::Failed(errno) if errno.0 == libc::EPIPE);
        assert!(failed == (index % 3 == 0) && (failed || matches!(outcome, Outcome::Sent(5))), "{outcome:?}");
    }
    assert!(bench.stats.sq_full.load() > 0 && bench.stats.cq_overflow.load() > 0);
}

/// A wake from another thread ends a turn that would wait for ever, again and again.
#[test]
fn unpark_wakes() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let unpark = bench.driver.unpark();
        for _ in 0..3 {
            let unpark = unpark.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10)); // tidy: lets the turn fall asleep first, so that both orders are met
                unpark.unpark();
            });
            bench.driver.turn(Wait::Forever, &mut bench.seen).expect("a turn");
            thread.join().expect("joined");
        }
        assert!(bench.seen.is_empty());
        let start = Instant::now();
        bench.driver.turn(Wait::AtMost(Duration::from_millis(20)), &mut bench.seen).expect("a turn");
        assert!(start.elapsed() >= Duration::from_millis(15), "an old wake is not seen twice");
        drop(bench);
        unpark.unpark();
    });
}

/// Dropped in the middle of everything: nothing leaks, chunks come back, staged closes happen.
#[test]
fn drop_with_operations_in_flight() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, small_pool(4));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let fd = bench.attach(&listener, 0);
        bench.driver.accept(fd, Token::new(OpKind::Accept, 0, 1));
        let (mut peer, ours) = unix_pair();
        let (idle_peer, idle) = tcp_pair();
        let fd = bench.attach(&ours, 1);
        let idle_fd = bench.attach(&idle, 2);
        bench.driver.recv(fd, recv(1), 100_000);
        bench.driver.recv(idle_fd, recv(2), 100_000);
        let mut queue = TxQueue::new(bench.pool.clone());
        (0..40).for_each(|_| queue.push(vec![1; 1 << 19]));
        // SAFETY: `queue` outlives the driver.
        unsafe { bench.driver.send(fd, send(1), &queue, SendMode::Wait) };
        assert!(!bench.reports(recv(2)));
        peer.write_all(&pattern(50_000)).expect("write");
        let (mut closed_peer, closed) = unix_pair();
        bench.driver.close(closed.into(), 9);
        let (stats, pool) = (Arc::clone(&bench.stats), bench.pool.clone());
        drop(bench);
        assert_eq!(stats.leaked.load(), 0, "{disable}");
        let left = pool.usage();
        assert_eq!(left.live_chunks, left.free_chunks, "{disable}: every chunk came back");
        assert_eq!(closed_peer.read(&mut [0]).expect("the close was submitted"), 0);
        drop((idle_peer, queue));
    });
}

/// What a kernel that refuses answers, and what the caller is told.
#[test]
fn refusals_are_told_apart() {
    let open = |answer: i32| {
        let thread = std::thread::spawn(move || {
            refuse_io_uring(answer);
            let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
            UringDriver::open(&UringSpec::default(), pool, stats).map(|_| ()).expect_err("refused")
        });
        thread.join().expect("joined")
    };
    for errno in [libc::EPERM, libc::ENOSYS] {
        let error = open(errno);
        assert!(
            matches!(error, UringError::Denied { errno: e, which: Denial::Seccomp } if e.0 == errno),
            "{error}"
        );
    }
    assert!(matches!(open(libc::ENOMEM), UringError::Memlock { limit: 1.. }));
    assert!(matches!(open(libc::EINVAL), UringError::TooOld { .. }));
    assert!(matches!(open(libc::EMFILE), UringError::Other { errno, .. } if errno.0 == libc::EMFILE));
}

/// Makes io_uring_setup(2) answer `errno` in this thread, for ever.
fn refuse_io_uring(errno: i32) {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The first word of `seccomp_data` is the number of the call.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Many streams share few chunks: each keeps its own bytes in order, through starvation, ends of credit and re-arms.
#[test]
fn streams_do_not_mix() {
    every_mode(|disable| {
        const STREAMS: u32 = 24;
        const BYTES: usize = 60_000;
        let mut bench = Bench::new(disable, PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 6 });
        let mut pairs: Vec<_> = (0..STREAMS).map(|_| unix_pair()).collect();
        let byte = |index: u32, at: usize| (at * 7 + index as usize * 13) as u8;
        let (mut written, mut read) = (vec![0; STREAMS as usize], vec![0; STREAMS as usize]);
        let mut seed = 12345_u32;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        for (index, (_, ours)) in (0..).zip(&pairs) {
            let fd = bench.attach(ours, index);
            bench.driver.recv(fd, recv(index), 5000);
        }
        let mut kept = Vec::new();
        let start = Instant::now();
        while read.iter().any(|count| *count < BYTES) {
            assert!(start.elapsed() < Duration::from_secs(20), "{disable}: {read:?}");
            for index in 0..STREAMS {
                let at = &mut written[index as usize];
                // Unread bytes are bounded, so that the write does not block.
                let len =
                    random(900).min(BYTES - *at).min((read[index as usize] + 20_000).saturating_sub(*at));
                let part: Vec<u8> = (*at..*at + len).map(|at| byte(index, at)).collect();
                pairs[index as usize].0.write_all(&part).expect("write");
                *at += len;
            }
            bench.driver.turn(Wait::AtMost(Duration::from_millis(1)), &mut bench.seen).expect("a turn");
            for completion in std::mem::take(&mut bench.seen) {
                let index = completion.token.index();
                match completion.outcome {
                    Outcome::Received(buf) => {
                        let at = &mut read[index as usize];
                        let whole = buf.iter().enumerate().all(|(off, got)| *got == byte(index, *at + off));
                        assert!(whole, "{disable}: stream {index} is broken near {at}");
                        *at += buf.len();
                        kept.push(buf);
                    }
                    Outcome::Starved => kept.clear(),
                    other => panic!("{disable}: {other:?}"),
                }
                if !completion.more {
                    let fd = pairs[index as usize].1.as_raw_fd();
                    bench.driver.recv(fd, recv(index), 1 + random(12_000) as u32);
                }
            }
            if random(4) == 0 {
                kept.clear();
            }
        }
        assert_eq!(bench.driver.in_flight(), STREAMS as usize);
    });
}

/// An accept can be cancelled before it started, and armed again with the same token.
#[test]
fn accept_again() {
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let accept = Token::new(OpKind::Accept, 0, 1);
        let fd = bench.attach(&listener, 0);
        bench.driver.accept(fd, accept);
        bench.driver.cancel(fd, accept);
        assert!(matches!(bench.next(accept).outcome, Outcome::Canceled), "{disable}");
        bench.driver.accept(fd, accept);
        let clients: Vec<_> = (0..5)
            .map(|_| TcpStream::connect(listener.local_addr().expect("addr")).expect("connect"))
            .collect();
        for _ in &clients {
            let Completion { outcome, more, .. } = bench.next(accept);
            assert!(matches!(outcome, Outcome::Accepted(_)) && more, "{disable}: {outcome:?}");
        }
    });
}

/// Out of descriptors: the listener ends with the reason, and can be armed again when there are some.
#[test]
fn accept_without_descriptors() {
    const CHILD: &str = "RINGPORT_SMOKE_CHILD";
    if std::env::var_os(CHILD).is_none() {
        // The limit is the process's, so a process of its own lowers it.
        let program = std::env::current_exe().expect("the test's path");
        let arguments = ["--exact", "accept_without_descriptors"];
        let status = std::process::Command::new(program).args(arguments).env(CHILD, "1").status();
        assert!(status.expect("a child").success());
        return;
    }
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: the kernel reads one `rlimit`.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    every_mode(|disable| {
        let mut bench = Bench::new(disable, PoolSpec::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        let fd = bench.attach(&listener, 0);
        let accept = Token::new(OpKind::Accept, 0, 1);
        let fill: Vec<_> = std::iter::from_fn(|| listener.try_clone().ok()).collect();
        bench.driver.accept(fd, accept);
        let failed = bench.next(accept);
        assert!(!failed.more && matches!(failed.outcome, Outcome::Failed(errno) if errno.0 == libc::EMFILE));
        assert_eq!(bench.stats.accept_out_of_fds.load(), 1);
        drop(fill);
        bench.driver.accept(fd, accept);
        assert!(matches!(bench.next(accept).outcome, Outcome::Accepted(_)), "{disable}");
        drop(client);
    });
}
