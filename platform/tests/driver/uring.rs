//! What only io_uring has: self-tests, ring sizes, silent sends, and the kernel's habits that the driver relies on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringport_platform::buf::{Pool, PoolBuf, PoolSpec};
use ringport_platform::driver::{Denial, Mechanism, Mechanisms, UringDriver, UringError, UringSpec, Wait};
use ringport_platform::op::{Completion, Errno, OpKind, Outcome, SendMode};
use ringport_platform::stats::CoreStats;

use super::drivers::linux::{open_uring, probe_uring};
use super::drivers::{drivers, skipped};
use super::os::local_pair;
use super::rig::{PLENTY, Rig, pattern, tcp_pair};

const SMALL_POOL: PoolSpec = PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 2 };

/// A rig on io_uring, or `None` after the reason was printed.
fn uring(spec: UringSpec, pool: PoolSpec) -> Option<Rig> {
    if let Err(reason) = probe_uring() {
        skipped(reason);
        return None;
    }
    let (pool, stats) = (Pool::new(pool), Arc::new(CoreStats::default()));
    Some(Rig::new(open_uring(spec)(pool.clone(), stats.clone()), pool, stats))
}

fn without(mechanisms: &[Mechanism]) -> UringSpec {
    let disable = mechanisms.iter().fold(Mechanisms::NONE, |set, mechanism| set.with(*mechanism));
    UringSpec { disable, ..UringSpec::default() }
}

#[test]
fn the_report_is_of_what_is_used() {
    match probe_uring() {
        Ok(report) => {
            println!("{report:#?}");
            assert!(report.features.iter().all(|feature| feature.available || !feature.enabled));
            assert!(report.entries >= 8 && report.cq_entries >= 2 * report.entries);
        }
        Err(reason) => skipped(reason),
    }
    // What is switched off is reported as there, and not in use.
    let spec = without(&Mechanism::ALL);
    let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
    if let Ok((_, report)) = UringDriver::open(&spec, pool, stats) {
        let off =
            ["credit", "inc", "silent-tcp", "silent-unix", "defer", "recv-multishot", "accept-multishot"];
        let used = report.features.iter().filter(|feature| feature.enabled);
        assert!(used.clone().all(|feature| !off.contains(&feature.name)), "{:?}", used.collect::<Vec<_>>());
    }
}

/// What a kernel that refuses answers, and what the caller is told.
#[test]
fn refusals_are_told_apart() {
    if let Err(reason) = probe_uring() {
        return skipped(reason);
    }
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
        let told = UringError::Denied { errno: Errno(errno), which: Denial::Seccomp };
        assert_eq!(error, told, "{error}");
    }
    assert!(matches!(open(libc::ENOMEM), UringError::Memlock { limit: 1.. }));
    assert!(matches!(open(libc::EINVAL), UringError::TooOld { .. }));
    assert!(matches!(open(libc::EMFILE), UringError::Other { errno: Errno(libc::EMFILE), .. }));
}

/// Makes io_uring_setup(2) answer `errno` in this thread, for ever.
fn refuse_io_uring(errno: i32) {
    install(&mut [
        op(LOAD, 0, 0, 0),
        op(EQUALS, 0, 1, libc::SYS_io_uring_setup as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// Makes each io_uring_enter(2) that waits for nothing answer EAGAIN in this thread, for ever.
fn refuse_enters_that_do_not_wait() {
    /// Where `seccomp_data` has the low half of the third argument.
    const MIN_COMPLETE: u32 = 32;
    install(&mut [
        op(LOAD, 0, 0, 0),
        op(EQUALS, 0, 3, libc::SYS_io_uring_enter as u32),
        op(LOAD, 0, 0, MIN_COMPLETE),
        op(EQUALS, 0, 1, 0),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// At 0 lies the number of the call.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn install(program: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The kernel had no memory for a silent send that somebody waits for: the next turn must not sleep on it, for the send
/// that then succeeds wakes nobody.
#[test]
fn a_silent_send_that_was_left_behind_keeps_the_next_turn_awake() {
    if cfg!(ringport_asan) {
        return skipped("this ring is leaked on purpose, which the leak check would report");
    }
    let case = || {
        let Some(mut rig) = uring(UringSpec::default(), PoolSpec::default()) else { return };
        let (ours, _peer) = local_pair();
        let sock = rig.add(ours);
        rig.turn(Wait::Poll);
        rig.driver().set_lazy_sends(true);
        refuse_enters_that_do_not_wait();
        rig.tx(sock).push(&b"hello"[..]);
        rig.send(sock, SendMode::Try);
        rig.turn(Wait::Poll);
        assert!(rig.is_live(OpKind::Send, sock));
        let start = Instant::now();
        rig.turn(Wait::AtMost(Duration::from_secs(3)));
        assert!(start.elapsed() < Duration::from_secs(3), "it slept");
    };
    std::thread::spawn(case).join().expect("no panic");
}

/// Three hundred operations over eight submissions and sixty-four completions: the submission queue is flushed when it
/// is full, and a failed silent send that the overflow hides is not taken for a success.
#[test]
fn tiny_queues_hide_no_failure() {
    let spec = UringSpec { sq_entries: 8, cq_entries: 16, disable: Mechanisms::NONE };
    let Some(mut rig) = uring(spec, PoolSpec::default()) else { return };
    let mut peers = Vec::new();
    for index in 0..300 {
        let (ours, peer) = local_pair();
        assert_eq!(rig.add(ours), index);
        rig.tx(index).push(&b"hello"[..]);
        peers.push(peer);
    }
    for (index, peer) in (0..).zip(&peers) {
        rig.recv(index, 100);
        if index % 3 == 0 {
            peer.shutdown(Shutdown::Both).expect("shutdown");
        }
        rig.send(index, SendMode::Try);
    }
    for index in 0..300 {
        let outcome = rig.next(OpKind::Send, index).outcome;
        let failed = matches!(outcome, Outcome::Failed(Errno(libc::EPIPE)));
        assert!(failed == (index % 3 == 0) && (failed || matches!(outcome, Outcome::Sent(5))), "{outcome:?}");
    }
    assert!(rig.stats.sq_full.load() > 0 && rig.stats.cq_overflow.load() > 0);
    for (_, mut peer) in (0..).zip(peers).filter(|(index, _)| index % 3 > 0) {
        let mut got = [0; 5];
        peer.read_exact(&mut got).expect("what was reported as sent was sent");
        assert_eq!(&got, b"hello");
    }
}

/// Completions that do not fit wait in the kernel; none is lost and the order of each stream holds.
#[test]
fn an_overflow_loses_no_byte() {
    let spec = UringSpec { sq_entries: 8, cq_entries: 16, disable: Mechanisms::NONE };
    let Some(mut rig) = uring(spec, PoolSpec::default()) else { return };
    let mut peers = Vec::new();
    for index in 0..200 {
        let (ours, mut peer) = local_pair();
        assert_eq!(rig.add(ours), index);
        rig.recv(index, PLENTY);
        peer.write_all(&[index as u8; 100]).expect("write");
        peers.push(peer);
    }
    for (index, mut peer) in (0..200_u8).zip(peers) {
        let got = rig.receive(index.into(), 100, PLENTY);
        assert!(got == [index; 100], "stream {index}");
        peer.write_all(&[index + 1; 100]).expect("write");
        assert!(rig.receive(index.into(), 100, PLENTY) == [index + 1; 100], "stream {index} goes on");
    }
    assert!(rig.stats.cq_overflow.load() > 0);
}

/// An empty ring is not armed, not even for a socket that has nothing to read: the kernel would end it at once.
#[test]
fn nothing_is_armed_on_an_empty_ring() {
    let Some(mut rig) = uring(UringSpec::default(), SMALL_POOL) else { return };
    let kept = fill_pool(&mut rig);
    let (ended, entered) = (rig.stats.multishot_ended.load(), rig.stats.syscalls.load());
    let (idle, _peer) = local_pair();
    let idle = rig.add(idle);
    rig.recv(idle, PLENTY);
    assert!(matches!(rig.next(OpKind::Recv, idle).outcome, Outcome::Starved));
    assert_eq!(rig.stats.multishot_ended.load(), ended, "the kernel was not asked");
    assert!(rig.stats.syscalls.load() - entered <= 1);
    drop(kept);
    rig.recv(idle, PLENTY);
    rig.expect_quiet();
    assert!(rig.is_live(OpKind::Recv, idle));
}

/// Fills every chunk of the pool with views that are kept.
fn fill_pool(rig: &mut Rig) -> Vec<PoolBuf> {
    let (ours, mut peer) = local_pair();
    let sock = rig.add(ours);
    peer.write_all(&pattern(20_000)).expect("write");
    rig.recv(sock, PLENTY);
    let mut kept = Vec::new();
    loop {
        match rig.next(OpKind::Recv, sock).outcome {
            Outcome::Received(buf) => kept.push(buf),
            Outcome::Starved => return kept,
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// A multishot that the kernel ended for want of buffers is armed again by the driver, and counted.
#[test]
fn an_ended_multishot_is_armed_again_and_counted() {
    let Some(mut rig) = uring(UringSpec::default(), SMALL_POOL) else { return };
    let (ours, mut peer) = local_pair();
    let sock = rig.add(ours);
    let bytes = pattern(100_000);
    peer.write_all(&bytes).expect("write");
    // Each view is dropped at once, so the pool always has a chunk for the next turn.
    assert!(rig.receive(sock, bytes.len(), PLENTY) == bytes);
    assert!(rig.stats.multishot_ended.load() > 0);
    assert_eq!(rig.stats.pool_starved.load(), 0);
}

/// The kernel appends to a chunk: a stream that comes alone lies in one piece.
#[test]
fn a_stream_alone_is_contiguous() {
    let Some(mut rig) = uring(UringSpec::default(), PoolSpec::default()) else { return };
    if !probe_uring().is_ok_and(|report| report.features.iter().any(|f| f.name == "inc" && f.enabled)) {
        return skipped("this kernel has no incremental buffer rings");
    }
    let (ours, mut peer) = local_pair();
    let sock = rig.add(ours);
    rig.recv(sock, PLENTY);
    let mut queue = ringport_platform::buf::RxQueue::new();
    for part in pattern(3_000).chunks(300) {
        peer.write_all(part).expect("write");
        let Outcome::Received(buf) = rig.next(OpKind::Recv, sock).outcome else { panic!("bytes") };
        queue.push(buf);
    }
    assert_eq!(queue.front(), pattern(3_000));
}

/// A cancel that hits makes one completion, the victim's.
#[test]
fn a_cancel_costs_one_completion() {
    let Some(mut rig) = uring(UringSpec::default(), PoolSpec::default()) else { return };
    let (ours, _peer) = tcp_pair();
    let sock = rig.add(ours);
    rig.recv(sock, PLENTY);
    rig.expect_quiet();
    let before = rig.stats.completions.load();
    rig.cancel(OpKind::Recv, sock);
    assert!(matches!(rig.next(OpKind::Recv, sock).outcome, Outcome::Canceled));
    rig.expect_quiet();
    assert_eq!(rig.stats.completions.load() - before, 1);
}

/// A silent send ends its turn at once, or lets it sleep when that was allowed; one system call either way.
#[test]
fn lazy_sends_let_a_turn_sleep() {
    for lazy in [false, true] {
        let Some(mut rig) = uring(UringSpec::default(), PoolSpec::default()) else { return };
        if !probe_uring().is_ok_and(|r| r.features.iter().any(|f| f.name == "silent-unix" && f.enabled)) {
            return skipped("no silent sends on this kernel");
        }
        let (ours, _peer) = local_pair();
        let sock = rig.add(ours);
        rig.turn(Wait::Poll);
        rig.driver().set_lazy_sends(lazy);
        rig.tx(sock).push(&b"hello"[..]);
        let (start, syscalls) = (Instant::now(), rig.stats.syscalls.load());
        rig.send(sock, SendMode::Try);
        let timeout = Duration::from_millis(30);
        rig.turn(Wait::AtMost(timeout));
        assert!(matches!(
            rig.seen(OpKind::Send, sock),
            Some(Completion { outcome: Outcome::Sent(5), more: false, .. })
        ));
        assert_eq!(start.elapsed() >= timeout, lazy, "{:?}", start.elapsed());
        assert_eq!(rig.stats.syscalls.load() - syscalls, 1);
    }
}

/// Each mechanism does what its switch says, as far as the counters show it.
#[test]
fn silent_sends_are_counted_where_they_are_used() {
    for candidate in drivers() {
        let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
        let mut rig = Rig::new((candidate.open)(pool.clone(), stats.clone()), pool, stats);
        let (ours, mut peer) = tcp_pair();
        let sock = rig.add(ours);
        rig.tx(sock).push(&b"hello"[..]);
        rig.send_all(sock);
        peer.read_exact(&mut [0; 5]).expect("read");
        if candidate.name == "epoll" || candidate.name.contains("silent") {
            assert_eq!(rig.stats.silent_sends.load(), 0, "{}", candidate.name);
        } else if probe_uring()
            .is_ok_and(|r| r.features.iter().any(|f| f.name == "silent-tcp" && f.available))
        {
            assert_eq!(rig.stats.silent_sends.load(), 1, "{}", candidate.name);
        }
    }
}
