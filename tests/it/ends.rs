//! How tasks and cores end: in order, by a panic, with unsent bytes, at a deadline.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ringport::net;
use ringport::runtime::native::{CoreSpec, DriverChoice, NativeSpec};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, Runtime};
use ringport_platform::exec::JoinError;
use ringport_platform::launch::DrainSignal;

use super::rig::{
    DRIVERS, PATIENCE, Pattern, Rig, alone, any_port, each, open_fds, pair, read_all, skipped, turn,
};

#[test]
fn a_panic_ends_its_task_alone() {
    let rig = Rig { panics: 2, ..Rig::default() };
    rig.each(async |runtime| {
        let (mut near, mut far) = pair(&runtime).await;
        let (mut other, mut other_far) = pair(&runtime).await;
        let task = runtime.core().spawn(async move {
            far.send(&b"last words"[..]).await.expect("open");
            far.recv().await.expect("open");
            panic!("on purpose");
        });
        runtime.spawn(async { panic!("on purpose, and nobody waits") });
        let mut words = [0; 10];
        near.read_exact(&mut words).await.expect("sent before the panic");
        near.send(&b"now"[..]).await.expect("open");
        assert_eq!(task.await, Err(JoinError::Panicked("on purpose".to_owned())));
        assert!(near.recv().await.expect("its socket closed in order").is_none());

        other.send(&b"alive"[..]).await.expect("open");
        assert_eq!(&*other_far.recv().await.expect("open").expect("bytes"), b"alive");
    });
}

/// A core of its own that reads everything of one connection, and says how much came and how it ended.
struct Reader {
    addr: ConnectAddr,
    told: mpsc::Receiver<io::Result<usize>>,
    core: ringport::runtime::native::Launched,
}

impl Reader {
    fn start(driver: DriverChoice, seed: u64, reads: bool) -> Self {
        let (tell_addr, addr) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let spec = NativeSpec { driver, ..NativeSpec::default() };
        let core = spec.launch(1, move |runtime, context| {
            let (tell_addr, tell) = (tell_addr.clone(), tell.clone());
            async move {
                let mut listener = runtime.listen(&any_port(), ListenOptions::default())?;
                tell_addr.send(listener.local_addr()?).expect("somebody waits");
                let mut stream = net::accept(&runtime, &mut listener).await?;
                if !reads {
                    context.drain.wait().await;
                    return Ok(());
                }
                let (mut pattern, mut count) = (Pattern::new(seed), 0);
                let end = loop {
                    match stream.recv().await {
                        Ok(Some(bytes)) => {
                            pattern.check(&bytes);
                            count += bytes.len();
                        }
                        Ok(None) => break Ok(count),
                        Err(error) => break Err(error),
                    }
                };
                tell.send(end).expect("somebody waits");
                Ok(())
            }
        });
        let core = core.expect("the case runs on this driver");
        let addr: LocalAddr = addr.recv_timeout(PATIENCE).expect("the reader listens");
        Reader { addr: addr.into(), told, core }
    }

    fn join(self) {
        self.core.drain(Duration::ZERO);
        for end in self.core.join() {
            end.result.expect("it ends in order");
        }
    }
}

/// Every driver that the machine has.
fn drivers() -> Vec<DriverChoice> {
    let all = DRIVERS.iter().copied().map(DriverChoice::Only);
    let mut drivers = Vec::new();
    for driver in all {
        match (NativeSpec { driver, ..NativeSpec::default() }).block_on(|_| async {}) {
            Ok(()) => drivers.push(driver),
            Err(error) => skipped(format!("{driver:?}: {error}")),
        }
    }
    assert!(!drivers.is_empty(), "each system has one that always works");
    drivers
}

#[test]
fn what_was_handed_over_is_sent_before_a_core_ends() {
    let _alone = alone();
    for driver in drivers() {
        let reader = Reader::start(driver, 6, true);
        let spec = NativeSpec { driver, ..NativeSpec::default() };
        spec.block_on(|runtime| async move {
            let mut stream = net::connect(&runtime, &reader.addr).await.expect("it listens");
            // Handed over and not waited for; the stream is dropped at once, and the core ends.
            stream.tx().push(Pattern::new(6).take(8 << 20));
            stream.start_send().expect("open");
            reader
        })
        .map(|reader| {
            let count = reader.told.recv_timeout(PATIENCE).expect("it tells").expect("an end in order");
            assert_eq!(count, 8 << 20);
            reader.join();
        })
        .expect("the driver works");
    }
}

#[test]
fn a_peer_that_does_not_read_holds_no_core_longer_than_its_linger() {
    let _alone = alone();
    for driver in drivers() {
        let reader = Reader::start(driver, 7, false);
        let core = CoreSpec { linger: Duration::from_millis(50), ..CoreSpec::default() };
        let addr = reader.addr.clone();
        let spec = NativeSpec { driver, core, ..NativeSpec::default() };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let end = spec.block_on(|runtime| async move {
                let mut stream = net::connect(&runtime, &addr).await.expect("it listens");
                stream.tx().push(vec![0; 64 << 20]);
                stream.start_send().expect("open");
            });
            tell.send(end).expect("somebody waits");
        });
        told.recv_timeout(PATIENCE).expect("it lingers for ever").expect("the driver works");
        reader.join();
    }
}

#[test]
fn tasks_that_still_run_are_dropped_with_their_core() {
    let rig = Rig { cut: true, ..Rig::default() };
    for kind in DRIVERS.iter().copied() {
        let report = rig.on(kind, async |runtime| {
            let (mut near, far) = pair(&runtime).await;
            runtime.spawn(async move {
                // Holds its stream for ever.
                let _far = far;
                std::future::pending::<()>().await;
            });
            runtime.spawn(async move { while let Ok(Some(_)) = near.recv().await {} });
        });
        let Some(report) = report else { continue };
        assert_eq!((report.tasks_aborted, report.sockets_reset), (2, 0));
    }
}

/// A panic of the main future once left its core behind, held by tasks that it holds, with every descriptor.
#[test]
fn a_panic_of_the_main_future_ends_its_core() {
    let _alone = alone();
    for driver in drivers() {
        let fds = open_fds();
        let spec = NativeSpec { driver, ..NativeSpec::default() };
        let panicked = std::panic::catch_unwind(|| {
            spec.block_on(|runtime| async move {
                let (near, mut far) = pair(&runtime).await;
                runtime.spawn(async move {
                    let _held = near;
                    std::future::pending::<()>().await;
                });
                runtime.spawn(async move {
                    let _ = far.recv().await;
                });
                turn().await;
                panic!("on purpose");
            })
        });
        assert!(panicked.is_err());
        assert_eq!(open_fds(), fds, "descriptors are left");
        spec.block_on(|_| async {}).expect("the thread is free for another core");
    }
}

#[test]
fn cores_end_when_they_are_told() {
    let _alone = alone();
    for driver in drivers() {
        let (tell, told) = mpsc::channel();
        let spec = NativeSpec { driver, ..NativeSpec::default() };
        let cores = spec.launch(2, move |runtime, context| {
            let tell = tell.clone();
            async move {
                assert_eq!(context.count, 2);
                let sleeping = runtime.core().spawn(std::future::pending::<()>());
                tell.send(context.index).expect("somebody waits");
                context.drain.wait().await;
                assert!(context.drain.is_draining() && !sleeping.is_finished());
                Ok(())
            }
        });
        let cores = cores.expect("the driver is there");
        let mut started = [(); 2].map(|()| told.recv_timeout(PATIENCE).expect("both start"));
        started.sort_unstable();
        assert_eq!(started, [0, 1]);
        cores.drain(PATIENCE);
        let ends: Vec<_> = cores.join().into_iter().map(|end| end.result.expect("in order")).collect();
        assert!(ends.iter().all(|report| report.tasks_aborted == 1 && report.sockets_reset == 0), "{ends:?}");
    }
}

#[test]
fn a_stream_that_is_dropped_sends_what_waits() {
    each(async |runtime| {
        let (mut near, mut far) = pair(&runtime).await;
        near.tx().push(Pattern::new(8).take(4 << 20));
        near.start_send().expect("open");
        drop(near);
        let read = read_all(&mut far).await;
        assert_eq!(read.len(), 4 << 20);
        Pattern::new(8).check(&read);
    });
}

/// Waits for the drain once stayed registered for ever: a task that watched it, one a connection, was never freed.
#[test]
fn a_wait_for_the_drain_is_forgotten_when_it_is_dropped() {
    let signal = DrainSignal::default();
    let woken = Arc::new(Woken::default());
    for _ in 0..100 {
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(signal.wait()).poll(&mut cx).is_pending());
    }
    assert_eq!(Arc::strong_count(&woken), 1, "no waker is left");

    let waker = Waker::from(woken.clone());
    let (mut first, mut second) = (pin!(signal.wait()), pin!(signal.wait()));
    let mut cx = Context::from_waker(&waker);
    assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
    signal.raise();
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    assert!(first.as_mut().poll(&mut cx).is_ready() && second.as_mut().poll(&mut cx).is_ready());
    assert!(pin!(signal.wait()).poll(&mut cx).is_ready());
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
