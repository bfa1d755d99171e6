//! Sleeps, deadlines and intervals of a core.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::rig::{Setup, each_with, is_plain, polled, turns};

/// Timers are the core's own; two drivers show that both sleep as long as they should.
fn each<F: Future>(case: impl Fn(ringport_platform::core::Core) -> F + Sync) {
    each_with(Setup { only: is_plain, ..Setup::default() }, case);
}

#[test]
fn sleeps_end_in_order_and_never_early() {
    each(|core| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = core.now();
        let tasks: Vec<_> = [30_u64, 5, 17, 1, 9]
            .into_iter()
            .map(|millis| {
                let (core, order) = (core.clone(), order.clone());
                let clock = core.clone();
                core.spawn(async move {
                    clock.sleep_until(start + Duration::from_millis(millis)).await;
                    assert!(Instant::now() >= start + Duration::from_millis(millis), "early");
                    order.borrow_mut().push(millis);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [1, 5, 9, 17, 30]);
    });
}

/// Nobody waits for ever because of a deadline that no clock can show.
#[test]
fn far_deadlines_are_only_far() {
    each(|core| async move {
        assert!(polled(core.sleep(Duration::MAX), 3).await.is_none());
        assert_eq!(core.timeout(Duration::MAX, async { 1 }).await, Ok(1));
        let mut interval = core.interval(Duration::MAX);
        assert!(polled(interval.tick(), 3).await.is_none());
        let mut sleep = core.sleep(Duration::from_secs(3600 * 24 * 365 * 50));
        sleep.reset(core.now() + Duration::from_millis(1));
        sleep.await;
        // A near one wakes the core although far ones wait.
        let far = core.sleep(Duration::from_secs(1 << 40));
        core.sleep(Duration::from_millis(2)).await;
        drop(far);
    });
}

#[test]
fn a_million_sleeps_wait_while_one_moves() {
    each(|core| async move {
        let sleeps: Vec<_> =
            (0..1_000_000_u64).map(|n| core.sleep(Duration::from_secs(3_600 + n % 977))).collect();
        let mut moved = core.sleep(Duration::from_secs(60));
        // One deadline moved a request: later, later, earlier.
        for request in 0..10_000_u64 {
            moved.reset(core.now() + Duration::from_secs(30 + request % 45));
            if request % 100 == 0 {
                turns(1).await;
            }
        }
        let start = Instant::now();
        moved.reset(core.now() + Duration::from_millis(5));
        moved.await;
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "the wheel walks its entries: {:?}",
            start.elapsed()
        );
        drop(sleeps);
    });
}

#[test]
fn a_deadline_that_moves_fires_at_the_last_place() {
    each(|core| async move {
        let mut sleep = core.sleep(Duration::from_millis(2));
        let start = Instant::now();
        sleep.reset(core.now() + Duration::from_millis(25));
        (&mut sleep).await;
        assert!(start.elapsed() >= Duration::from_millis(24), "{:?}", start.elapsed());
        // Elapsed until it is moved again.
        assert_eq!(polled(&mut sleep, 1).await, Some(()));
        sleep.reset(core.now() + Duration::from_secs(3600));
        assert_eq!(polled(&mut sleep, 2).await, None);
        sleep.reset(core.now() + Duration::from_millis(1));
        sleep.await;
    });
}

#[test]
fn missed_ticks_come_as_one_at_once() {
    each(|core| async move {
        // So short a period against the time that passes: catching up must not be a walk.
        let mut interval = core.interval(Duration::from_nanos(1));
        core.sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        interval.tick().await;
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        let mut interval = core.interval(Duration::from_millis(10));
        let begin = core.now();
        core.sleep(Duration::from_millis(35)).await;
        interval.tick().await;
        interval.tick().await;
        assert!(core.now() >= begin + Duration::from_millis(40), "ticks keep to their grid");
    });
}
