use super::{BlockingPool, PoolFull, resolve};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A job that holds a thread until the sender is dropped; it has begun when this returns.
fn occupy(pool: &BlockingPool) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (begin, began) = mpsc::channel();
    let job = pool.submit(move || {
        begin.send(()).unwrap();
        released.recv().unwrap_err();
    });
    began.recv().unwrap();
    drop(job);
    release
}

#[test]
fn results_and_panics_arrive() {
    let pool = BlockingPool::new(2, 8);
    let caller = thread::current().id();
    let elsewhere = pool.submit(move || thread::current().id() != caller).unwrap();
    assert_eq!(block_on(elsewhere), Ok(true));
    let panicking = pool.submit(|| panic!("number {}", 7)).unwrap();
    let panicked: super::Panicked = block_on(panicking).map(|(): ()| ()).unwrap_err();
    assert_eq!(panicked.message(), "number 7");
    assert_eq!(block_on(pool.submit(|| 8).unwrap()), Ok(8), "the pool survives it");
    assert!(pool.shutdown(soon()));
}

#[test]
fn threads_and_queue_are_bounded() {
    let pool = BlockingPool::new(2, 1);
    let held = [occupy(&pool), occupy(&pool)];
    let queued = pool.submit(|| 1).unwrap();
    assert_eq!(pool.submit(|| 2).err(), Some(PoolFull));
    assert_eq!(pool.shared.lock().threads, 2);
    drop(held);
    assert_eq!(block_on(queued), Ok(1));
}

#[test]
fn a_queued_job_without_its_future_is_skipped_and_gives_up_its_place() {
    let pool = BlockingPool::new(1, 1);
    let held = occupy(&pool);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    drop(pool.submit(move || counted.fetch_add(1, Ordering::SeqCst)));
    let counted = Arc::clone(&runs);
    let next = pool.submit(move || counted.fetch_add(10, Ordering::SeqCst)).unwrap();
    drop(held);
    assert_eq!(block_on(next), Ok(0));
    let held = occupy(&pool);
    let counted = Arc::clone(&runs);
    drop(pool.submit(move || counted.fetch_add(100, Ordering::SeqCst)));
    drop(held);
    assert!(pool.shutdown(soon()));
    assert_eq!((runs.load(Ordering::SeqCst), Arc::strong_count(&runs)), (10, 1));
}

#[test]
fn a_running_job_without_its_future_ends_and_its_result_is_dropped() {
    let pool = BlockingPool::new(1, 0);
    let result = Arc::new(());
    let returned = Arc::clone(&result);
    let (release, released) = mpsc::channel::<()>();
    let (begin, began) = mpsc::channel();
    let job = pool.submit(move || {
        begin.send(()).unwrap();
        released.recv().unwrap();
        returned
    });
    began.recv().unwrap();
    drop(job);
    release.send(()).unwrap();
    assert!(pool.shutdown(soon()));
    assert_eq!(Arc::strong_count(&result), 1);
}

#[test]
fn idle_threads_end_and_new_ones_start() {
    let pool = BlockingPool::with_idle(2, 8, Duration::ZERO);
    for round in 0..3 {
        assert_eq!(block_on(pool.submit(move || round).unwrap()), Ok(round));
        let mut state = pool.shared.lock();
        while state.threads > 0 {
            let (after, waited) = pool.shared.ended.wait_timeout(state, Duration::from_secs(10)).unwrap();
            assert!(!waited.timed_out());
            state = after;
        }
    }
}

#[test]
fn an_idle_thread_is_used_again() {
    let pool = BlockingPool::new(4, 8);
    for round in 0..100 {
        drop(block_on(pool.submit(move || round).unwrap()));
        // The job is done before its thread is idle.
        while pool.shared.lock().idle == 0 {
            thread::yield_now();
        }
    }
    assert_eq!(pool.shared.lock().threads, 1);
}

#[test]
fn shutdown_finishes_the_queue_or_drops_it_at_the_deadline() {
    let pool = BlockingPool::new(1, 4);
    let held = occupy(&pool);
    let late = pool.submit(|| 1).unwrap();
    assert!(!pool.shutdown(Instant::now()));
    assert!(block_on(late).is_err(), "completed, not left pending");
    assert_eq!(pool.submit(|| 2).err(), Some(PoolFull));
    drop(held);
    assert!(pool.shutdown(soon()));

    let pool = BlockingPool::new(1, 4);
    let jobs: Vec<_> = (0..4).map(|n| pool.submit(move || n).unwrap()).collect();
    assert!(pool.shutdown(soon()));
    assert!(jobs.into_iter().map(block_on).eq((0..4).map(Ok)));
}

#[test]
fn dropping_the_pool_completes_what_was_queued() {
    let pool = BlockingPool::new(1, 1);
    let held = occupy(&pool);
    let queued = pool.submit(|| 1).unwrap();
    drop(pool);
    assert!(block_on(queued).is_err());
    drop(held);
}

#[test]
fn addresses_resolve_to_themselves() {
    let pool = BlockingPool::new(1, 1);
    let found = block_on(resolve(&pool, "127.0.0.1", 80).unwrap()).unwrap().unwrap();
    assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
    let found = block_on(resolve(&pool, "::1", 443).unwrap()).unwrap().unwrap();
    assert_eq!(found, ["[::1]:443".parse().unwrap()]);
    assert!(block_on(resolve(&pool, "", 80).unwrap()).unwrap().is_err());
}
