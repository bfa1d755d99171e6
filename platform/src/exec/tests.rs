use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::{Exec, JoinError};
use crate::driver::Unpark;
use crate::remote::{Message, Remote};

/// An executor without a core: its inbox is taken by hand.
struct Rig {
    exec: Exec,
    remote: Arc<Remote>,
    unparks: Arc<AtomicUsize>,
}

impl Rig {
    fn new() -> Self {
        let unparks = Arc::new(AtomicUsize::new(0));
        let counted = unparks.clone();
        let (remote, parker) = Remote::new(Unpark::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        // Announced for ever, so that each message is seen to wake.
        assert!(parker.prepare_park(|| false));
        Rig { exec: Exec::new(remote.clone(), Arc::default()), remote, unparks }
    }

    /// Runs what is ready, the inbox included, until nothing is.
    fn run(&self) {
        loop {
            let mut messages = Vec::new();
            self.remote.take(&mut messages);
            for message in messages {
                match message {
                    Message::Run(task) => self.exec.arrive(task),
                    Message::Call(_) => panic!("nobody calls"),
                }
            }
            if !self.exec.has_ready() {
                return;
            }
            self.exec.run_ready(usize::MAX);
        }
    }
}

/// Adds one to a count when it is dropped.
struct Counts(Rc<Cell<u32>>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn finish<T>(handle: impl Future<Output = T>) -> Option<T> {
    let mut handle = Box::pin(handle);
    match handle.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_woken() {
    let rig = Rig::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    for at in 0..5 {
        let order = order.clone();
        rig.exec.spawn_detached(async move {
            order.borrow_mut().push(at);
            let mut woken = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut woken, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            order.borrow_mut().push(at + 10);
        });
    }
    rig.exec.run_ready(3);
    assert_eq!(*order.borrow(), [0, 1, 2]);
    rig.run();
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    assert_eq!(rig.exec.task_count(), 0);
}

#[test]
fn an_output_comes_to_who_waits() {
    let rig = Rig::new();
    let handle = rig.exec.spawn(async { 7 });
    let got = Rc::new(Cell::new(0));
    let told = got.clone();
    rig.exec.spawn_detached(async move { told.set(handle.await.expect("it ended")) });
    rig.run();
    assert_eq!(got.get(), 7);
    let late = rig.exec.spawn(async { 8 });
    rig.run();
    assert!(late.is_finished());
    assert_eq!(finish(late), Some(Ok(8)));
}

#[test]
fn a_panic_ends_one_task_and_drops_what_it_held() {
    let rig = Rig::new();
    let dropped = Rc::new(Cell::new(0));
    let held = Counts(dropped.clone());
    let handle = rig.exec.spawn(async move {
        let _held = held;
        panic!("on purpose");
    });
    let other = rig.exec.spawn(async { 1 });
    rig.run();
    assert_eq!(dropped.get(), 1);
    assert_eq!(finish(handle), Some(Err::<(), _>(JoinError::Panicked("on purpose".to_owned()))));
    assert_eq!(finish(other), Some(Ok(1)));
}

#[test]
fn an_aborted_task_is_dropped_where_it_waits() {
    let rig = Rig::new();
    let dropped = Rc::new(Cell::new(0));
    let held = Counts(dropped.clone());
    let handle = rig.exec.spawn(async move {
        let _held = held;
        pending::<()>().await;
    });
    rig.run();
    handle.abort();
    assert_eq!(dropped.get(), 0, "soon, not at once");
    rig.run();
    assert_eq!((dropped.get(), rig.exec.task_count()), (1, 0));
}

/// It would drop the future that is being polled.
#[test]
fn a_task_may_abort_itself() {
    let rig = Rig::new();
    let dropped = Rc::new(Cell::new(0));
    let held = Counts(dropped.clone());
    let handle = Rc::new(RefCell::new(None));
    let own = handle.clone();
    let spawned = rig.exec.spawn(async move {
        let _held = held;
        let own: Option<super::JoinHandle<()>> = own.borrow_mut().take();
        own.expect("it was put there").abort();
        pending::<()>().await;
    });
    *handle.borrow_mut() = Some(spawned);
    rig.run();
    assert_eq!((dropped.get(), rig.exec.task_count()), (1, 0));
}

#[test]
fn wakers_of_other_threads_go_through_the_inbox_once() {
    let rig = Rig::new();
    let shared: Arc<Mutex<(Option<Waker>, bool)>> = Arc::default();
    let seen = shared.clone();
    let handle = rig.exec.spawn(poll_fn(move |cx| {
        let mut state = seen.lock().expect("no panic");
        if state.1 {
            return Poll::Ready(());
        }
        state.0 = Some(cx.waker().clone());
        Poll::Pending
    }));
    rig.run();
    let waker = shared.lock().expect("no panic").0.take().expect("it was polled");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (waker, shared) = (waker.clone(), shared.clone());
            thread::spawn(move || {
                shared.lock().expect("no panic").1 = true;
                waker.wake_by_ref();
                drop(waker.clone());
                waker.wake();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(rig.unparks.load(Ordering::SeqCst), 1, "one message, one wake");
    rig.run();
    assert_eq!(finish(handle), Some(Ok(())));
    // The task is gone, its waker is not.
    thread::spawn(move || waker.wake()).join().expect("no panic");
    rig.run();
}

/// The task stands in the run queue when it ends, and in the inbox.
#[test]
fn a_task_that_ends_may_have_been_woken_before() {
    let rig = Rig::new();
    rig.exec.spawn_detached(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        let waker = cx.waker().clone();
        thread::spawn(move || waker.wake()).join().expect("no panic");
        Poll::Ready(())
    }));
    rig.run();
    assert_eq!(rig.exec.task_count(), 0);
}

#[test]
fn a_wake_while_it_is_polled_is_not_lost_in_a_turn_within() {
    let rig = Rc::new(Rig::new());
    let (within, polls) = (rig.clone(), Rc::new(Cell::new(0)));
    let counted = polls.clone();
    rig.exec.spawn_detached(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        if counted.get() > 1 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        within.exec.run_ready(10);
        Poll::Pending
    }));
    rig.run();
    assert_eq!((polls.get(), rig.exec.task_count()), (2, 0));
}

#[test]
fn the_end_drops_every_task_and_takes_no_more() {
    let rig = Rig::new();
    let dropped = Rc::new(Cell::new(0));
    let mut handles = Vec::new();
    let kept: Rc<RefCell<Vec<Waker>>> = Rc::default();
    for _ in 0..3 {
        let (held, kept) = (Counts(dropped.clone()), kept.clone());
        handles.push(rig.exec.spawn(poll_fn(move |cx| {
            let _held = &held;
            kept.borrow_mut().push(cx.waker().clone());
            Poll::<()>::Pending
        })));
    }
    rig.run();
    rig.exec.close();
    assert_eq!((dropped.get(), rig.exec.task_count()), (3, 0));
    for handle in handles {
        assert_eq!(finish(handle), Some(Err(JoinError::Aborted)));
    }
    assert_eq!(finish(rig.exec.spawn(async { 1 })), Some(Err(JoinError::Aborted)));
    drop(rig);
    let wakers: Vec<Waker> = kept.take();
    wakers[0].wake_by_ref();
    thread::spawn(move || wakers.into_iter().for_each(Waker::wake)).join().expect("no panic");
    // The thread is free for another core.
    drop(Rig::new());
}
