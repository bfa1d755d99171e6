//! Interleavings of senders and a core that goes to sleep: all with one sender, bounded with two. A lost wake is a deadlock, which loom reports.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ringport-platform --test loom_park --release`
#![cfg(loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringport_platform::park::{Inbox, Parker};

/// An eventfd: a wake that comes before the sleep is not forgotten.
#[derive(Default)]
struct Event {
    written: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn write(&self) {
        *self.written.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut written = self.written.lock().unwrap();
        while !*written {
            written = self.changed.wait(written).unwrap();
        }
        *written = false;
    }
}

/// `preemptions`: how many switches that nobody asked for one interleaving may have; `None` is all of them.
fn all_messages_arrive(senders: u32, preemptions: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let event = Arc::new(Event::default());
        let wake = Arc::clone(&event);
        let parker = Parker::new(move || wake.write());
        let inbox = Arc::new(Inbox::new(usize::MAX));
        for sender in 0..senders {
            let (inbox, unparker) = (Arc::clone(&inbox), parker.unparker());
            thread::spawn(move || {
                inbox.send(sender).unwrap();
                unparker.unpark();
            });
        }
        let mut taken = Vec::new();
        loop {
            inbox.take(&mut taken);
            if taken.len() == senders as usize {
                break;
            }
            if parker.prepare_park(|| inbox.has_messages()) {
                event.wait();
                parker.finish_park();
            }
        }
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..senders));
    });
}

#[test]
fn one_sender_wakes_the_core() {
    all_messages_arrive(1, None);
}

/// Three threads without a bound did not end in a minute.
#[test]
fn two_senders_wake_the_core() {
    all_messages_arrive(2, Some(3));
}

/// A wake without a message: what it announces is a plain store, published by `unpark` alone.
#[test]
fn a_bare_unpark_publishes_what_came_before() {
    loom::model(|| {
        let event = Arc::new(Event::default());
        let wake = Arc::clone(&event);
        let parker = Parker::new(move || wake.write());
        let flag = Arc::new(AtomicU32::new(0));
        let (seen, unparker) = (Arc::clone(&flag), parker.unparker());
        thread::spawn(move || {
            seen.store(1, Ordering::Relaxed);
            unparker.unpark();
        });
        while flag.load(Ordering::Relaxed) == 0 {
            if parker.prepare_park(|| false) {
                event.wait();
                parker.finish_park();
            }
        }
    });
}

/// The models can fail: a core that checks before it announces its sleep, and not after, is left asleep with a message.
#[test]
#[should_panic(expected = "lost wake")]
fn a_check_before_the_announcement_loses_a_wake() {
    loom::model(|| {
        let (parked, woken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let shared = (Arc::clone(&parked), Arc::clone(&woken), Arc::clone(&inbox));
        let sending = thread::spawn(move || {
            let (parked, woken, inbox) = shared;
            inbox.send(1).unwrap();
            if parked.swap(0, Ordering::SeqCst) == 1 {
                woken.store(1, Ordering::SeqCst);
            }
        });
        let would_sleep = !inbox.has_messages();
        if would_sleep {
            parked.swap(1, Ordering::SeqCst);
        }
        sending.join().unwrap();
        // Told by a flag and not by sleeping: a panic of loom's deadlock check aborts when it drops the threads.
        assert!(!would_sleep || woken.load(Ordering::SeqCst) == 1, "lost wake");
    });
}
