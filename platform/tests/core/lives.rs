//! How tasks, sockets and cores end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringport_platform::buf::{Pool, PoolSpec, RxQueue, TxQueue};
use ringport_platform::core::{Accepted, Core, CoreSpec, ShutdownReport, StreamSock};
use ringport_platform::driver::{ConnectAddr, Driver, DriverKind, Sink, Unpark, Wait};
use ringport_platform::errno;
use ringport_platform::exec::JoinError;
use ringport_platform::fd::{OwnedFd, RawFd};
use ringport_platform::op::{Burst, SendMode, Token};
use ringport_platform::stats::CoreStats;

use super::drivers::skipped;
use super::rig::{
    Setup, alone, aside, each, each_with, each_wrapped, echo, flush, listen, pair, pattern, polled, raw_pair,
    read_aside, recv, recv_exact, recv_to_end, send, send_32_mib, turns, until,
};

#[test]
fn a_panic_closes_the_tasks_sockets_and_nothing_else() {
    each(|core| async move {
        let (other, mut other_peer) = pair(&core);
        let echoing = core.spawn(echo(other));
        let (sock, mut peer) = pair(&core);
        let task = core.spawn(async move {
            recv_exact(&sock, 1).await;
            panic!("on purpose: {}", 1);
        });
        peer.write_all(b"x").unwrap();
        assert_eq!(task.await, Err::<(), _>(JoinError::Panicked("on purpose: 1".to_owned())));
        assert_eq!(core.stats().task_panics.load(), 1);
        assert_eq!(aside(move || peer.read(&mut [0])).await.unwrap(), 0);
        other_peer.write_all(b"alive").unwrap();
        other_peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_peer(other_peer).await, b"alive");
        assert_eq!(echoing.await, Ok(5));
    });
}

async fn read_peer(peer: TcpStream) -> Vec<u8> {
    let reader = read_aside(peer);
    until(|| reader.is_finished()).await;
    reader.join().unwrap().unwrap()
}

/// What a task holds may panic when it is dropped: at its end, at its abort, or with its core.
#[test]
fn a_panic_in_a_drop_ends_the_task_alone() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, in a drop");
        }
    }
    let case = |core: Core| async move {
        let ends = core.spawn(async {
            let _bomb = Bomb;
        });
        assert!(matches!(ends.await, Err(JoinError::Panicked(_))));
        let aborted = core.spawn(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        });
        turns(2).await;
        aborted.abort();
        until(|| core.task_count() == 0).await;
        assert_eq!(core.spawn(async { 1 }).await, Ok(1), "the core lives");
        drop(core.spawn(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }));
        turns(2).await;
    };
    each_wrapped(
        Setup::default(),
        |driver| driver,
        case,
        |report, stats| {
            assert_eq!(report, ShutdownReport { tasks_aborted: 1, ..ShutdownReport::default() });
            assert_eq!(stats.task_panics.load(), 3);
        },
    );
}

/// A call from another thread that panics takes neither the core nor the calls behind it along.
#[test]
fn a_panic_in_a_call_ends_the_call_alone() {
    each(|core| async move {
        let (remote, done) = (core.remote(), Arc::new(AtomicUsize::new(0)));
        let (first, second) = (done.clone(), done.clone());
        let (task, mut peer) = pair(&core);
        let echoing = core.spawn(echo(task));
        aside(move || {
            remote.call(move |_| {
                first.fetch_add(1, Ordering::Relaxed);
                panic!("on purpose");
            });
            remote.call(move |_| {
                second.fetch_add(1, Ordering::Relaxed);
            });
        })
        .await;
        until(|| done.load(Ordering::Relaxed) == 2).await;
        assert_eq!(core.stats().task_panics.load(), 1);
        peer.write_all(b"alive").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!((read_peer(peer).await, echoing.await), (b"alive".to_vec(), Ok(5)));
    });
}

/// A task is dropped with its core, but what its socket had to send goes out before the deadline.
#[test]
fn a_core_ends_when_its_sockets_have_sent() {
    let peers = std::sync::Mutex::new(Vec::new());
    let case = |core: Core| {
        let peers = &peers;
        async move {
            let (sock, peer) = pair(&core);
            drop(core.spawn(async move {
                send(&sock, pattern(4 << 20));
                std::future::pending::<()>().await;
                drop(sock);
            }));
            turns(3).await;
            peers.lock().unwrap().push(read_aside(peer));
        }
    };
    each_wrapped(
        Setup::default(),
        |driver| driver,
        case,
        |report, _| {
            assert_eq!(report, ShutdownReport { tasks_aborted: 1, ..ShutdownReport::default() });
        },
    );
    for peer in peers.into_inner().unwrap() {
        assert!(peer.join().unwrap().unwrap() == pattern(4 << 20));
    }
}

/// Past the deadline what still sends is reset, and the report says how many.
#[test]
fn a_core_past_its_deadline_resets_and_says_so() {
    let peers = std::sync::Mutex::new(Vec::new());
    let case = |core: Core| {
        let peers = &peers;
        async move {
            for _ in 0..3 {
                let (sock, peer) = pair(&core);
                send_32_mib(&sock);
                peers.lock().unwrap().push(peer);
            }
            turns(3).await;
        }
    };
    let setup = Setup { deadline: Duration::from_millis(50), ..Setup::default() };
    each_wrapped(
        setup,
        |driver| driver,
        case,
        |report, _| {
            assert_eq!(report, ShutdownReport { sockets_reset: 3, ..ShutdownReport::default() });
            for mut peer in peers.lock().unwrap().drain(..) {
                let mut all = Vec::new();
                let end = peer.read_to_end(&mut all);
                assert!(end.is_err_and(|error| error.raw_os_error() == Some(errno::ECONNRESET)));
                assert!(all.len() < 32 << 20);
            }
        },
    );
}

/// A dropped socket may go on sending for the core's linger time and no longer.
/// A kernel that never ends a send, whose driver must therefore leak what it gave it.
struct Stuck {
    sends: usize,
    stats: Arc<CoreStats>,
}

impl Driver for Stuck {
    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }

    fn attach(&mut self, _fd: RawFd, _index: u32) -> io::Result<()> {
        Ok(())
    }

    fn accept(&mut self, _fd: RawFd, _token: Token, _burst: Burst) {}

    fn recv(&mut self, _fd: RawFd, _token: Token, _credit: u32) {}

    unsafe fn send(&mut self, _fd: RawFd, _token: Token, queue: &TxQueue, _mode: SendMode) -> usize {
        self.sends += 1;
        queue.len()
    }

    fn connect(&mut self, _fd: RawFd, _token: Token, _addr: &ConnectAddr) {}

    fn watch(&mut self, _fd: RawFd, _token: Token) {}

    fn cancel(&mut self, _fd: RawFd, _token: Token) {}

    fn close(&mut self, _fd: OwnedFd, _index: u32) {}

    fn turn(&mut self, _wait: Wait, _out: &mut dyn Sink) -> io::Result<()> {
        Ok(())
    }

    fn unpark(&self) -> Unpark {
        Unpark::new(|| {})
    }

    fn in_flight(&self) -> usize {
        self.sends
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.stats.leaked.add(self.sends as u64);
    }
}

/// The segments of a send belong to the socket, which goes behind the driver: they were freed although the kernel had
/// not let go of them.
#[test]
fn what_the_kernel_may_still_read_outlives_the_core() {
    if cfg!(ringport_asan) {
        return skipped("these bytes are leaked on purpose, which the leak check would report");
    }
    let _alone = alone();
    let bytes: Arc<[u8]> = Arc::from(*b"hello");
    let sent = bytes.clone();
    let case = move || {
        let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
        let driver = Box::new(Stuck { sends: 0, stats: stats.clone() });
        let core = Core::new(driver, pool.clone(), stats.clone(), CoreSpec::default());
        let (ours, _peer) = raw_pair();
        let sock = StreamSock::new(&core, Accepted::from_fd(ours)).unwrap();
        let mut queue = TxQueue::new(pool);
        queue.push(Bytes::from_owner(sent));
        sock.send(&mut queue).unwrap();
        core.block_on(turns(2)).unwrap();
        drop((sock, core));
        assert_eq!(stats.leaked.load(), 1);
    };
    thread::spawn(case).join().unwrap();
    assert_eq!(Arc::strong_count(&bytes), 2, "freed under the kernel");
}

#[test]
fn a_peer_that_never_reads_does_not_keep_a_dropped_socket() {
    let core = CoreSpec { linger: Duration::from_millis(30), ..CoreSpec::default() };
    each_with(Setup { core, ..Setup::default() }, |core| async move {
        let (sock, peer) = pair(&core);
        send_32_mib(&sock);
        let start = core.now();
        drop(sock);
        // Not by turns alone: an idle core must wake for it.
        while core.socket_count() > 0 {
            core.sleep(Duration::from_millis(1)).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
        drop(peer);
    });
}

#[test]
fn a_reset_drops_what_waits() {
    each(|core| async move {
        let (sock, mut peer) = pair(&core);
        send_32_mib(&sock);
        turns(3).await;
        sock.reset();
        until(|| core.socket_count() == 0).await;
        let end = aside(move || peer.read_to_end(&mut Vec::new())).await;
        assert_eq!(end.unwrap_err().raw_os_error(), Some(errno::ECONNRESET));
    });
}

/// A receive that is armed when its socket is closed must not take what comes afterwards: the descriptor's duplicate
/// is somebody else's by then.
#[test]
fn a_closed_socket_steals_no_byte() {
    each(|core| async move {
        let (ours, mut peer) = raw_pair();
        let other = TcpStream::from(ours.try_clone().unwrap());
        let sock = StreamSock::new(&core, Accepted::from_fd(ours)).unwrap();
        let mut queue = RxQueue::new();
        assert!(polled(recv(&sock, &mut queue, 100), 1).await.is_none());
        turns(3).await;
        drop(sock);
        until(|| core.socket_count() == 0).await;
        peer.write_all(b"for the other").unwrap();
        drop(peer);
        other.set_nonblocking(false).unwrap();
        assert_eq!(read_peer(other).await, b"for the other");
    });
}

/// Slots and descriptor numbers are used again at once: no socket hears of another's past.
#[test]
fn reused_slots_hear_nothing_of_the_past() {
    each(|core| async move {
        for round in 0..200_u32 {
            let (sock, mut peer) = pair(&core);
            let word = round.to_ne_bytes();
            peer.write_all(&word).unwrap();
            if round % 3 > 0 {
                assert_eq!(recv_exact(&sock, 4).await, word);
                send(&sock, word);
            }
            if round % 2 == 0 {
                sock.reset();
            } else {
                drop(sock);
            }
            turns(round as usize % 3).await;
        }
        until(|| core.socket_count() == 0).await;
        assert_eq!(core.stats().stale_completions.load(), 0);
    });
}

#[test]
fn a_half_closed_socket_still_sends() {
    each(|core| async move {
        let (sock, mut peer) = pair(&core);
        peer.write_all(&pattern(200_000)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(recv_to_end(&sock).await == pattern(200_000));
        assert!(sock.has_news());
        send(&sock, pattern(200_000));
        let reader = read_aside(peer);
        flush(&sock).await.unwrap();
        drop(sock);
        until(|| reader.is_finished()).await;
        assert!(reader.join().unwrap().unwrap() == pattern(200_000));
    });
}

/// Nobody accepts: the listener stops taking connections from the kernel, and none is lost when somebody does.
#[test]
fn a_listener_without_an_acceptor_pauses() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        assert!(polled(listener.accept(), 1).await.is_none());
        let dial = move |count| {
            aside(move || (0..count).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>())
        };
        // The kernel may give all that waits at once, so these may all be taken.
        let clients = dial(300).await;
        until(|| core.stats().accept_paused.load() == 1 && core.stats().ops_in_flight.load() == 0).await;
        let late = dial(300).await;
        turns(10).await;
        let taken = core.stats().accepted.load();
        assert!((256..=300).contains(&taken), "{taken} were taken");
        for _ in 0..600 {
            listener.accept().await.unwrap();
        }
        assert_eq!(core.stats().accepted.load(), 600);
        assert!(polled(listener.accept(), 1).await.is_none());
        drop((clients, late));
    });
}

/// Each connection that is taken is a descriptor: a crowd gets no more of them than the owner has to give.
#[test]
fn a_listener_takes_no_more_than_its_room() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        listener.set_room(5);
        assert!(polled(listener.accept(), 1).await.is_none());
        let clients =
            aside(move || (0..60).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>()).await;
        let accepted = || core.stats().accepted.load();
        for (more, total) in [(None, 5), (Some(0), 5), (Some(3), 8), (Some(1), 9)] {
            more.into_iter().for_each(|room| listener.set_room(room));
            until(|| accepted() == total).await;
            turns(10).await;
            assert_eq!((accepted(), listener.queued()), (total, total as usize), "with room for {more:?}");
        }
        assert_eq!(core.stats().accept_paused.load(), 1);
        // What was taken goes out, and does not make room by itself.
        for _ in 0..9 {
            listener.accept().await.unwrap();
        }
        assert!(polled(listener.accept(), 10).await.is_none());
        assert_eq!((accepted(), core.stats().ops_in_flight.load()), (9, 0));
        listener.set_room(usize::MAX);
        for _ in 9..60 {
            listener.accept().await.unwrap();
        }
        drop(clients);
    });
}

/// The accept that takes all that come is ended when that may be more than there is room for.
#[test]
fn a_burst_ends_when_the_room_falls() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        listener.set_room(100_000);
        assert!(polled(listener.accept(), 1).await.is_none());
        until(|| core.stats().ops_in_flight.load() == 1).await;
        listener.set_room(5);
        until(|| core.stats().cancels.load() == 1).await;
        turns(2).await;
        let clients =
            aside(move || (0..60).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>()).await;
        until(|| core.stats().accepted.load() == 5).await;
        turns(10).await;
        assert_eq!((core.stats().accepted.load(), core.stats().ops_in_flight.load()), (5, 0));
        drop((listener, clients));
    });
}

#[test]
fn a_drained_listener_leaves_nothing_in_the_kernel() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        assert!(polled(listener.accept(), 1).await.is_none());
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
        turns(1).await;
        listener.pause();
        let late: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut taken = Vec::new();
        while let Some(accepted) = std::future::poll_fn(|cx| listener.poll_drain(cx)).await.unwrap() {
            taken.push(accepted);
        }
        drop(listener);
        assert_eq!(taken.len(), clients.len() + late.len());
        for accepted in taken {
            let sock = StreamSock::new(&core, accepted).unwrap();
            send(&sock, *b"answer");
        }
        for client in clients.into_iter().chain(late) {
            assert_eq!(read_peer(client).await, b"answer");
        }
    });
}

/// The counters tell what happened, once, whatever the driver.
#[test]
fn counters_count_once() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        let mut client = TcpStream::connect(addr).unwrap();
        let sock = StreamSock::new(&core, listener.accept().await.unwrap()).unwrap();
        client.write_all(&[1; 1000]).unwrap();
        recv_exact(&sock, 1000).await;
        send(&sock, [2; 500]);
        flush(&sock).await.unwrap();
        let stats = core.stats();
        assert_eq!(
            (
                stats.accepted.load(),
                stats.received_bytes.load(),
                stats.sent_bytes.load(),
                stats.cancels.load()
            ),
            (1, 1000, 500, 0)
        );
        drop((sock, listener));
        until(|| core.socket_count() == 0).await;
        // The armed accept, and the receive that was armed for more.
        assert!(stats.cancels.load() <= 2, "{}", stats.cancels.load());
    });
}
