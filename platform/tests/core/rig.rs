//! A core on a thread, its peers, and the check that nothing is left.

use std::future::{Future, poll_fn};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use ringport_platform::buf::{Pool, PoolSpec, RxQueue, TxQueue};
use ringport_platform::core::{Accepted, Connecting, Core, CoreSpec, ListenSock, ShutdownReport, StreamSock};
use ringport_platform::driver::{ConnectAddr, Driver};
use ringport_platform::fd::OwnedFd;
use ringport_platform::socket::{ListenOptions, LocalAddr};
use ringport_platform::sockets::TxLevel;
use ringport_platform::stats::CoreStats;

use super::drivers::{Candidate, drivers};
use super::os::descriptors;

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a case's core is made.
pub(crate) struct Setup {
    pub(crate) pool: PoolSpec,
    pub(crate) core: CoreSpec,
    /// Drivers whose name this accepts.
    pub(crate) only: fn(&str) -> bool,
    /// How long sockets may go on sending when the case is over.
    pub(crate) deadline: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            pool: PoolSpec::default(),
            core: CoreSpec::default(),
            only: |_| true,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Whether a driver is one of its kind as it is, with no mechanism switched off: for what does not depend on them.
pub(crate) fn is_plain(name: &str) -> bool {
    matches!(name, "epoll" | "uring" | "iocp")
}

/// Runs `case` over every driver; in the end nothing may be left and nothing may have been cut.
pub(crate) fn each<F: Future>(case: impl Fn(Core) -> F + Sync) {
    each_with(Setup::default(), case);
}

/// As [`each`], with another core.
pub(crate) fn each_with<F: Future>(setup: Setup, case: impl Fn(Core) -> F + Sync) {
    each_wrapped(setup, |driver| driver, case, |report, _| assert_eq!(report, ShutdownReport::default()));
}

/// As [`each`], with a driver inside another and with a look at how the core ended.
pub(crate) fn each_wrapped<F: Future>(
    setup: Setup,
    wrap: impl Fn(Box<dyn Driver>) -> Box<dyn Driver> + Sync,
    case: impl Fn(Core) -> F + Sync,
    ended: impl Fn(ShutdownReport, &CoreStats) + Sync,
) {
    let _alone = alone();
    for candidate in drivers().into_iter().filter(|candidate| (setup.only)(&candidate.name)) {
        println!("driver: {} (exact credit: {})", candidate.name, candidate.exact_credit);
        let before = descriptors();
        thread::scope(|scope| {
            scope.spawn(|| run(&setup, &candidate, &wrap, &case, &ended)).join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
        });
        // Another thread may hold a waker, and with it the eventfd, a moment longer.
        let end = Instant::now() + PATIENCE;
        while descriptors() != before && Instant::now() < end {
            thread::yield_now();
        }
        assert_eq!(descriptors(), before, "a descriptor is left");
    }
}

fn run<F: Future>(
    setup: &Setup,
    candidate: &Candidate,
    wrap: impl Fn(Box<dyn Driver>) -> Box<dyn Driver>,
    case: impl Fn(Core) -> F,
    ended: impl Fn(ShutdownReport, &CoreStats),
) {
    let (pool, stats) = (Pool::new(setup.pool), Arc::new(CoreStats::default()));
    let driver = wrap((candidate.open)(pool.clone(), stats.clone()));
    let core = Core::new(driver, pool.clone(), stats.clone(), setup.core);
    let end = core.block_on(core.timeout(PATIENCE, case(core.clone()))).expect("the driver works");
    assert!(end.is_ok(), "the case takes longer than {PATIENCE:?}: {:?}", stats.entries());
    let report = core.shutdown(setup.deadline).expect("the driver works");
    ended(report, &stats);
    assert_eq!((core.task_count(), core.socket_count()), (0, 0));
    drop(core);
    for (name, _, value) in stats.entries() {
        let gauge = matches!(name, "open_sockets" | "tasks" | "ops_in_flight" | "pool_parked" | "leaked");
        assert!(!gauge || value == 0, "{name} is {value}");
    }
    pool.release_idle();
    let left = pool.usage();
    assert_eq!(left.live_chunks, left.free_chunks, "a chunk is left");
}

/// The turn of one case: descriptors and limits are the process's.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls `future` at most `count` times, a turn apart whether it was woken or not, then drops it where it waits.
pub(crate) async fn polled<F: Future>(future: F, count: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = count;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Lets the core turn so many times.
pub(crate) async fn turns(count: usize) {
    for _ in 0..count {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Turns until `done`.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        turns(1).await;
    }
}

pub(crate) async fn recv(sock: &StreamSock, into: &mut RxQueue, max: usize) -> std::io::Result<bool> {
    poll_fn(|cx| sock.poll_recv(cx, into, max)).await
}

/// Receives exactly `len` bytes.
pub(crate) async fn recv_exact(sock: &StreamSock, len: usize) -> Vec<u8> {
    let (mut queue, mut got) = (RxQueue::new(), Vec::new());
    while got.len() < len {
        assert!(recv(sock, &mut queue, len - got.len()).await.expect("received"), "ended at {}", got.len());
        drain(&mut queue, &mut got);
    }
    got
}

/// Receives to the end.
pub(crate) async fn recv_to_end(sock: &StreamSock) -> Vec<u8> {
    let (mut queue, mut got) = (RxQueue::new(), Vec::new());
    while recv(sock, &mut queue, usize::MAX).await.expect("received") {
        drain(&mut queue, &mut got);
    }
    got
}

pub(crate) fn drain(queue: &mut RxQueue, into: &mut Vec<u8>) {
    while let Some(buf) = queue.pop(usize::MAX) {
        into.extend_from_slice(&buf);
    }
}

/// Hands `bytes` over, and does not wait.
pub(crate) fn send(sock: &StreamSock, bytes: impl Into<Vec<u8>>) {
    let mut queue = TxQueue::new(sock.core().pool().clone());
    queue.push(bytes.into());
    sock.send(&mut queue).expect("sent");
}

/// Hands over more than any system takes while nobody reads. Windows takes one send whole, however long, and then no other.
pub(crate) fn send_32_mib(sock: &StreamSock) {
    send(sock, vec![1; 16 << 20]);
    send(sock, vec![1; 16 << 20]);
}

pub(crate) async fn flush(sock: &StreamSock) -> std::io::Result<()> {
    poll_fn(|cx| sock.poll_sent(cx, TxLevel::Empty)).await
}

/// Sends back what comes, until the end; nothing is copied.
pub(crate) async fn echo(sock: StreamSock) -> usize {
    let (mut rx, mut tx, mut total) = (RxQueue::new(), TxQueue::new(sock.core().pool().clone()), 0);
    while matches!(recv(&sock, &mut rx, usize::MAX).await, Ok(true)) {
        while let Some(buf) = rx.pop(usize::MAX) {
            total += buf.len();
            tx.push(buf);
        }
        if sock.send(&mut tx).is_err() || flush(&sock).await.is_err() {
            break;
        }
    }
    total
}

/// A listener on a free port of loopback.
pub(crate) fn listen(core: &Core) -> (ListenSock, SocketAddr) {
    listen_with(core, ListenOptions { backlog: 1024, reuse_port: false })
}

pub(crate) fn listen_with(core: &Core, options: ListenOptions) -> (ListenSock, SocketAddr) {
    let any = ConnectAddr::Inet((Ipv4Addr::LOCALHOST, 0).into());
    let listener = ListenSock::bind(core, &any, options).expect("listens");
    let LocalAddr::Inet(addr) = listener.local_addr().expect("an address") else { panic!("not inet") };
    (listener, addr)
}

pub(crate) async fn connect(core: &Core, addr: SocketAddr) -> std::io::Result<StreamSock> {
    Connecting::start(core, &ConnectAddr::Inet(addr))?.await
}

/// A connected pair: ours on the core, and the peer, a blocking socket that gives up after 10 s.
pub(crate) fn pair(core: &Core) -> (StreamSock, TcpStream) {
    let (ours, peer) = raw_pair();
    (StreamSock::new(core, Accepted::from_fd(ours)).expect("attached"), peer)
}

pub(crate) fn raw_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let peer = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (ours, _) = listener.accept().expect("accept");
    ours.set_nonblocking(true).expect("non-blocking");
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    peer.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (ours.into(), peer)
}

/// Does blocking work on a thread, and waits for it without blocking the core.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(work);
    until(|| thread.is_finished()).await;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads a peer to its end on a thread.
pub(crate) fn read_aside(mut peer: TcpStream) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    })
}

/// Bytes in which each place differs from its neighbours near and far.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(7)) as u8).collect()
}
