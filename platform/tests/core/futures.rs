//! Every future dropped where it waits: no byte, descriptor or buffer is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use ringport_platform::blocking::BlockingPool;
use ringport_platform::buf::RxQueue;
use ringport_platform::core::{Connecting, Core, ShutdownReport, StreamSock};
use ringport_platform::driver::ConnectAddr;
use ringport_platform::errno;
use ringport_platform::exec::JoinError;
use ringport_platform::launch::DrainSignal;
use ringport_platform::socket::ListenOptions;
use ringport_platform::stats::CoreStats;

use super::rig::{
    Setup, aside, connect, drain, each, each_wrapped, echo, flush, listen, listen_with, pair, pattern,
    polled, read_aside, recv, recv_exact, send, turns, until,
};

#[test]
fn a_dropped_receive_loses_no_byte() {
    each(|core| async move {
        let (sock, mut peer) = pair(&core);
        let writer = thread::spawn(move || {
            pattern(300_000).chunks(777).try_for_each(|part| peer.write_all(part)).map(|()| drop(peer))
        });
        let (mut queue, mut got, mut round) = (RxQueue::new(), Vec::new(), 0);
        loop {
            round += 1;
            let end = polled(recv(&sock, &mut queue, 1 + round * 37 % 5_000), round % 3).await;
            drain(&mut queue, &mut got);
            if matches!(end, Some(Ok(false))) {
                break;
            }
            turns(round % 4).await;
        }
        writer.join().unwrap().unwrap();
        assert!(got == pattern(300_000));
    });
}

#[test]
fn a_dropped_accept_loses_no_connection() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        let clients = thread::spawn(move || {
            (0..40_u8)
                .map(|n| {
                    let mut client = TcpStream::connect(addr).unwrap();
                    client.write_all(&[n]).unwrap();
                    client
                })
                .collect::<Vec<_>>()
        });
        let (mut seen, mut round) = (Vec::new(), 0);
        while seen.len() < 40 {
            round += 1;
            if let Some(accepted) = polled(listener.accept(), round % 3).await {
                let sock = StreamSock::new(&core, accepted.unwrap()).unwrap();
                seen.extend(recv_exact(&sock, 1).await);
            }
            turns(round % 4).await;
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<u8>>());
        drop(clients.join().unwrap());
    });
}

/// Connections that were taken from the kernel and that nobody accepts are closed with their listener.
#[test]
fn a_dropped_listener_closes_what_it_took() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        assert!(polled(listener.accept(), 1).await.is_none());
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        until(|| core.stats().accepted.load() == 5).await;
        drop(listener);
        until(|| core.socket_count() == 0).await;
        for mut client in clients {
            assert!(!matches!(client.read(&mut [0]), Ok(1..)));
        }
        assert!(TcpStream::connect(addr).is_err());
    });
}

#[test]
fn a_dropped_connect_is_closed() {
    each(|core| async move {
        // The queue holds one connection; what comes behind waits for its handshake.
        let (_listener, addr) = listen_with(&core, ListenOptions { backlog: 0, reuse_port: false });
        let full = connect(&core, addr).await.unwrap();
        for round in 0..12 {
            let connecting = Connecting::start(&core, &ConnectAddr::Inet(addr)).unwrap();
            if round % 3 == 2 {
                turns(round % 4).await;
            }
            assert!(polled(connecting, round % 2).await.is_none_or(|sock| sock.is_ok()));
            turns(round % 4).await;
        }
        until(|| core.socket_count() == 2).await;
        drop(full);
    });
}

#[test]
fn a_connect_that_is_waited_for_carries_bytes() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        let serving = core.spawn({
            let core = core.clone();
            async move {
                let accepted = listener.accept().await.unwrap();
                echo(StreamSock::new(&core, accepted).unwrap()).await
            }
        });
        let mut sock = connect(&core, addr).await.unwrap();
        send(&sock, pattern(100_000));
        assert!(recv_exact(&sock, 100_000).await == pattern(100_000));
        std::future::poll_fn(|cx| sock.poll_shutdown(cx)).await.unwrap();
        assert_eq!(serving.await, Ok(100_000));
        let refused = {
            let (listener, addr) = listen(&core);
            drop(listener);
            until(|| core.socket_count() <= 2).await;
            connect(&core, addr).await
        };
        assert_eq!(refused.err().and_then(|error| error.raw_os_error()), Some(errno::ECONNREFUSED));
    });
}

/// Waiting for a send is only a view: dropped at any point, everything still goes out, and the end behind it.
#[test]
fn a_dropped_flush_sends_all_the_same() {
    each(|core| async move {
        for polls in 0..4 {
            let (sock, peer) = pair(&core);
            send(&sock, pattern(3 << 20));
            polled(flush(&sock), polls).await;
            turns(polls).await;
            let reader = read_aside(peer);
            drop(sock);
            until(|| reader.is_finished()).await;
            assert!(reader.join().unwrap().unwrap() == pattern(3 << 20));
        }
    });
}

#[test]
fn a_dropped_shutdown_can_be_asked_again() {
    each(|core| async move {
        for polls in 0..4 {
            let (mut sock, peer) = pair(&core);
            let mut back = peer.try_clone().unwrap();
            send(&sock, pattern(3 << 20));
            polled(std::future::poll_fn(|cx| sock.poll_shutdown(cx)), polls).await;
            turns(polls).await;
            let reader = read_aside(peer);
            std::future::poll_fn(|cx| sock.poll_shutdown(cx)).await.unwrap();
            until(|| reader.is_finished()).await;
            assert!(reader.join().unwrap().unwrap() == pattern(3 << 20));
            // The other direction stands.
            back.write_all(b"still here").unwrap();
            assert_eq!(recv_exact(&sock, 10).await, b"still here");
            let mut late = ringport_platform::buf::TxQueue::new(core.pool().clone());
            late.push(&b"late"[..]);
            assert_eq!(sock.send(&mut late).unwrap_err().raw_os_error(), Some(errno::EPIPE));
        }
    });
}

#[test]
fn dropped_timers_wake_nobody() {
    each(|core| async move {
        let held = Rc::new(());
        for polls in 0..3 {
            assert!(polled(core.sleep(Duration::from_secs(3600)), polls).await.is_none());
            let mut interval = core.interval(Duration::from_secs(3600));
            assert!(polled(interval.tick(), polls).await.is_none());
            let inner = held.clone();
            let waiting = core.timeout(Duration::from_secs(3600), async move {
                std::future::pending::<()>().await;
                drop(inner);
            });
            assert!(polled(waiting, polls).await.is_none());
        }
        assert_eq!(Rc::strong_count(&held), 1, "what was waited for is dropped too");
        let inner = held.clone();
        let late = core.timeout(Duration::from_millis(1), async move {
            std::future::pending::<()>().await;
            drop(inner);
        });
        late.await.expect_err("the time is over");
        assert_eq!(Rc::strong_count(&held), 1);
    });
}

#[test]
fn a_dropped_join_handle_lets_the_task_run() {
    each(|core| async move {
        for polls in 0..3 {
            let (sock, mut peer) = pair(&core);
            let task = core.spawn(echo(sock));
            assert!(polled(task, polls).await.is_none());
            peer.write_all(b"alive").unwrap();
            let (mut peer, got) = aside(move || {
                let mut got = [0; 5];
                peer.read_exact(&mut got).map(|()| (peer, got))
            })
            .await
            .unwrap();
            assert_eq!(&got, b"alive");
            peer.write_all(b"!").unwrap();
            drop(peer);
            until(|| core.task_count() == 0).await;
        }
    });
}

#[test]
fn an_aborted_task_closes_its_sockets() {
    each(|core| async move {
        for ready in [false, true] {
            let (sock, mut peer) = pair(&core);
            let task = core.spawn(echo(sock));
            if ready {
                turns(2).await;
            }
            task.abort();
            let end = aside(move || peer.read(&mut [0])).await;
            assert_eq!(end.unwrap(), 0);
            assert_eq!(core.task_count(), 0);
        }
        let task = core.spawn(async { 7 });
        assert_eq!(task.await, Ok(7));
        let sleeping = core.spawn(core.sleep(Duration::from_secs(3600)));
        assert!(!sleeping.is_finished());
        sleeping.abort();
        until(|| core.task_count() == 0).await;
    });
}

#[test]
fn a_dropped_blocking_job_leaves_nothing() {
    let pool = BlockingPool::new(1, 8);
    each(|core| {
        let pool = &pool;
        async move {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let (begin, begun) = std::sync::mpsc::channel::<()>();
            let running = pool
                .submit(move || {
                    begin.send(()).unwrap();
                    wait.recv()
                })
                .unwrap();
            // A job that is dropped before a thread has taken it is skipped.
            begun.recv().unwrap();
            let queued = pool.submit(|| panic!("was dropped before it began")).unwrap();
            assert!(polled(queued, 1).await.is_none());
            assert!(polled(running, 2).await.is_none());
            release.send(()).unwrap();
            assert_eq!(pool.submit(|| 5).unwrap().await, Ok(5));
            let failed = pool.submit(|| panic!("on purpose")).unwrap().await;
            assert_eq!(
                failed.map_err(|panic: ringport_platform::blocking::Panicked| panic.message().to_owned()),
                Err::<(), _>("on purpose".to_owned())
            );
            drop(core);
        }
    });
}

#[test]
fn a_join_of_a_task_that_the_core_ends_says_so() {
    let two_aborted = |report: ShutdownReport, stats: &CoreStats| {
        assert_eq!(report, ShutdownReport { tasks_aborted: 2, ..ShutdownReport::default() });
        assert_eq!(stats.task_panics.load(), 1);
    };
    let case = |core: Core| async move {
        let task = core.spawn(std::future::pending::<()>());
        let joined = core.spawn(task);
        assert!(polled(joined, 1).await.is_none());
        let task = core.spawn(async {});
        task.await.unwrap();
        let panics = core.spawn(async { panic!("on purpose") });
        assert_eq!(panics.await, Err::<(), _>(JoinError::Panicked("on purpose".to_owned())));
    };
    each_wrapped(Setup::default(), |driver| driver, case, two_aborted);
}

/// A connection's task that has waited for the drain signal and gone must leave no waker: the signal lives as long as
/// the core.
#[test]
fn a_dropped_wait_for_the_drain_leaves_no_waker() {
    each(|core| async move {
        let signal = DrainSignal::default();
        let held = Rc::new(());
        for _ in 0..10 {
            let (wait, held) = (signal.wait(), held.clone());
            let task = core.spawn(async move {
                let _held = held;
                polled(wait, 1).await;
            });
            task.await.unwrap();
        }
        assert_eq!(signal.waiting(), 0);
        let waits = core.spawn(signal.wait());
        turns(2).await;
        assert_eq!(signal.waiting(), 1);
        signal.raise();
        waits.await.unwrap();
        signal.wait().await;
        assert!(signal.is_draining());
    });
}
