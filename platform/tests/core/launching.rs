//! Several cores: started, woken, given connections, drained.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::core::{Accepted, Core, CoreRemote, CoreSpec, ListenSock, ShutdownReport, StreamSock};
use ringport_platform::errno;
use ringport_platform::launch::{CoreContext, LaunchSpec, Launched, launch};
use ringport_platform::mesh::{Mesh, MeshEnd};
use ringport_platform::stats::CoreStats;

use super::drivers::{drivers, skipped};
use super::os::{descriptors, processors};
use super::rig::{alone, echo, is_plain, pair, recv_exact, send, turns};

/// Runs `case` with a launch spec for each of the two drivers; no descriptor may be left.
pub(crate) fn each(cores: usize, case: impl Fn(LaunchSpec)) {
    let _alone = alone();
    for candidate in drivers().into_iter().filter(|it| is_plain(&it.name)) {
        println!("driver: {}", candidate.name);
        let before = descriptors();
        let open = candidate.open;
        case(LaunchSpec {
            cores,
            pin: false,
            pool: PoolSpec::default(),
            core: CoreSpec::default(),
            open: Arc::new(move |pool: Pool, stats: Arc<CoreStats>| Ok(open(pool, stats))),
        });
        let end = Instant::now() + Duration::from_secs(10);
        while descriptors() != before && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(descriptors(), before, "a descriptor is left");
    }
}

pub(crate) fn join(launched: Launched) -> Vec<ShutdownReport> {
    launched.join().into_iter().map(|end| end.result.expect("the core ends well")).collect()
}

#[test]
fn threads_are_bound_where_that_is_asked_for() {
    let allowed = processors();
    if allowed.len() < 2 {
        return skipped("one processor only");
    }
    each(2, |mut spec| {
        spec.pin = true;
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let launched = launch(spec, {
            let seen = seen.clone();
            move |_| {
                let seen = seen.clone();
                async move {
                    let mine = processors();
                    assert_eq!(mine.len(), 1);
                    seen.lock().unwrap().extend(mine);
                    Ok(())
                }
            }
        })
        .unwrap();
        join(launched);
        assert_eq!(seen.lock().unwrap().len(), 2, "a processor each");
    });
}

/// A main future that does not end is dropped at the deadline.
#[test]
fn the_drain_has_a_deadline() {
    each(2, |spec| {
        let launched = launch(spec, |context: CoreContext| async move {
            drop(context.core.spawn(std::future::pending::<()>()));
            std::future::pending::<io::Result<()>>().await
        })
        .unwrap();
        assert!(!launched.is_finished());
        launched.drain(Duration::from_millis(20));
        // Only the first call counts.
        launched.drain(Duration::from_secs(3600));
        let reports = join(launched);
        assert!(reports.iter().all(|report| report.tasks_aborted == 1), "{reports:?}");
    });
}

#[test]
fn a_drain_without_end_is_allowed() {
    each(1, |spec| {
        let launched = launch(spec, |context: CoreContext| async move {
            context.drain.wait().await;
            Ok(())
        })
        .unwrap();
        launched.drain(Duration::MAX);
        join(launched);
    });
}

/// The main future is nobody's task, but its panic must not leave connections that nobody serves.
#[test]
fn a_panic_of_the_main_future_ends_its_core_whole() {
    each(1, |spec| {
        let kept = Arc::new(Mutex::new(None));
        let launched = launch(spec, {
            let kept = kept.clone();
            move |context: CoreContext| {
                let kept = kept.clone();
                async move {
                    let (sock, peer) = pair(&context.core);
                    drop(context.core.spawn(echo(sock)));
                    *kept.lock().unwrap() = Some(peer);
                    turns(3).await;
                    panic!("on purpose");
                }
            }
        })
        .unwrap();
        let ends = launched.join();
        let error = ends[0].result.as_ref().expect_err("a panic is told");
        assert!(error.to_string().contains("on purpose"), "{error}");
        let mut peer = kept.lock().unwrap().take().unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "its task's connection was closed");
    });
}

#[test]
fn a_core_that_cannot_open_ends_the_others() {
    each(3, |mut spec| {
        let (open, count) = (spec.open, AtomicUsize::new(0));
        spec.open = Arc::new(move |pool, stats| match count.fetch_add(1, Ordering::Relaxed) {
            2 => Err(io::Error::from_raw_os_error(errno::EMFILE)),
            _ => open(pool, stats),
        });
        let error = launch(spec, |_| std::future::pending()).err().expect("the third cannot");
        assert_eq!(error.raw_os_error(), Some(errno::EMFILE));
    });
}

/// Two sleeping cores wake each other a thousand times; nobody else wakes them.
#[test]
fn cores_wake_each_other_from_sleep() {
    fn bounce(remotes: Arc<Vec<CoreRemote>>, to: usize, left: usize, done: std::sync::mpsc::Sender<()>) {
        let target = remotes[to].clone();
        let sent = target.call(move |_| match left {
            0 => done.send(()).unwrap(),
            _ => bounce(remotes, 1 - to, left - 1, done),
        });
        assert!(sent);
    }
    each(2, |spec| {
        let launched = launch(spec, |context: CoreContext| async move {
            context.drain.wait().await;
            Ok(())
        })
        .unwrap();
        let (done, wait) = std::sync::mpsc::channel();
        bounce(Arc::new(launched.remotes()), 0, 1_000, done);
        wait.recv_timeout(Duration::from_secs(20)).expect("no wake is lost");
        let remotes = launched.remotes();
        launched.drain(Duration::ZERO);
        join(launched);
        assert!(remotes.iter().all(|remote| !remote.call(|_| unreachable!("the core has ended"))));
    });
}

/// A task on one core waits for another's answer: its wake crosses threads.
#[test]
fn a_task_is_woken_from_another_core() {
    each(2, |spec| {
        let total = Arc::new(AtomicUsize::new(0));
        let remotes: Arc<Mutex<Vec<CoreRemote>>> = Arc::default();
        let launched = launch(spec, {
            let (total, remotes) = (total.clone(), remotes.clone());
            move |context: CoreContext| {
                let (total, remotes) = (total.clone(), remotes.clone());
                async move {
                    remotes.lock().unwrap().push(context.core.remote());
                    if context.index == 0 {
                        return context
                            .core
                            .spawn(ask_a_hundred_times(remotes, total))
                            .await
                            .map_err(io::Error::other);
                    }
                    context.drain.wait().await;
                    Ok(())
                }
            }
        })
        .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while total.load(Ordering::Relaxed) < 100 && Instant::now() < end {
            std::thread::yield_now();
        }
        launched.drain(Duration::from_secs(1));
        join(launched);
        assert_eq!(total.load(Ordering::Relaxed), 100);
    });
}

async fn ask_a_hundred_times(remotes: Arc<Mutex<Vec<CoreRemote>>>, total: Arc<AtomicUsize>) {
    while remotes.lock().unwrap().len() < 2 {
        turns(1).await;
    }
    let other = remotes.lock().unwrap()[1].clone();
    for _ in 0..100 {
        let answer: Arc<Mutex<(bool, Option<std::task::Waker>)>> = Arc::default();
        let tell = answer.clone();
        assert!(other.call(move |_| {
            let mut answer = tell.lock().unwrap();
            answer.0 = true;
            answer.1.take().into_iter().for_each(std::task::Waker::wake);
        }));
        std::future::poll_fn(|cx| {
            let mut answer = answer.lock().unwrap();
            answer.1 = Some(cx.waker().clone());
            if answer.0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        total.fetch_add(1, Ordering::Relaxed);
    }
}

/// One core accepts, the other serves: connections cross through the mesh, whole.
#[test]
fn a_connection_is_handed_to_another_core() {
    each(2, |spec| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = Mutex::new(Some(listener));
        let ends =
            Mutex::new(Mesh::new(2, 4).into_iter().map(Some).collect::<Vec<Option<MeshEnd<Accepted>>>>());
        let others: Arc<Mutex<Option<CoreRemote>>> = Arc::default();
        let launched = launch(spec, move |context: CoreContext| {
            let end = ends.lock().unwrap()[context.index].take().unwrap();
            let listener = (context.index == 0).then(|| listener.lock().unwrap().take().unwrap());
            let others = others.clone();
            async move {
                match listener {
                    Some(listener) => hand_over(&context, listener, end, &others).await,
                    None => {
                        *others.lock().unwrap() = Some(context.core.remote());
                        take_over(&context, end).await
                    }
                }
            }
        })
        .unwrap();
        let stats = launched.stats();
        for round in 0..50_u8 {
            let mut client = TcpStream::connect(addr).unwrap();
            // What was sent before the handover is received after it.
            client.write_all(&[round; 100]).unwrap();
            let mut back = [0; 100];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, [round; 100]);
        }
        assert_eq!((stats[0].accepted.load(), stats[1].received_bytes.load()), (50, 5_000));
        launched.drain(Duration::from_secs(5));
        join(launched);
    });
}

async fn hand_over(
    context: &CoreContext,
    listener: TcpListener,
    end: MeshEnd<Accepted>,
    other: &Mutex<Option<CoreRemote>>,
) -> io::Result<()> {
    let mut listener = ListenSock::from_fd(&context.core, listener.into())?;
    for _ in 0..50 {
        let mut accepted = listener.accept().await?;
        // A full pair gives it back.
        while let Err(back) = end.try_send(1, accepted) {
            accepted = back;
            turns(1).await;
        }
        if let Some(remote) = &*other.lock().unwrap() {
            remote.call(|_| ());
        }
    }
    context.drain.wait().await;
    Ok(())
}

async fn take_over(context: &CoreContext, mut end: MeshEnd<Accepted>) -> io::Result<()> {
    let mut taken = Vec::new();
    while !context.drain.is_draining() {
        end.drain(8, |_, accepted| taken.push(accepted));
        for accepted in taken.drain(..) {
            let sock = StreamSock::new(&context.core, accepted)?;
            drop(context.core.spawn(async move {
                let got = recv_exact(&sock, 100).await;
                send(&sock, got);
            }));
        }
        turns(1).await;
    }
    Ok(())
}

/// A core is its thread's; a second one is refused, and a new one is welcome when the first has gone.
#[test]
fn one_core_a_thread() {
    let _alone = alone();
    std::thread::spawn(|| {
        for _ in 0..2 {
            let candidate = drivers().remove(0);
            let make = || {
                let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
                Core::new((candidate.open)(pool.clone(), stats.clone()), pool, stats, CoreSpec::default())
            };
            let core = make();
            let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
            assert!(second.is_err());
            assert_eq!(core.block_on(async { 5 }).unwrap(), 5);
            core.shutdown(Duration::ZERO).unwrap();
        }
    })
    .join()
    .unwrap();
}
