//! Signals, in a process of their own and one test at a time: dispositions belong to the whole process.
#![cfg(target_os = "linux")]

use ringport_platform::signal::{Signal, Signals};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handler has run on this thread when it returns.
fn raise(number: libc::c_int) {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::raise(number) }, 0);
}

fn disposition(number: libc::c_int) -> libc::sighandler_t {
    // SAFETY: sigaction is plain data; the kernel fills it during the call.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(number, std::ptr::null(), &mut now), 0);
        now.sa_sigaction
    }
}

fn readable(signals: &Signals) -> bool {
    let mut poll = libc::pollfd { fd: signals.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes `poll` during the call only.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

#[test]
fn each_signal_is_reported_once() {
    let _alone = alone();
    let signals = Signals::install().unwrap();
    let all = [
        (libc::SIGHUP, Signal::Hangup),
        (libc::SIGINT, Signal::Interrupt),
        (libc::SIGTERM, Signal::Terminate),
        (libc::SIGUSR1, Signal::User1),
    ];
    for (number, signal) in all {
        assert!(!readable(&signals));
        raise(number);
        raise(number);
        assert!(readable(&signals));
        assert_eq!(signals.drain().iter().collect::<Vec<_>>(), [signal]);
        assert!(signals.drain().is_empty());
    }
    for (number, _) in all {
        raise(number);
    }
    assert_eq!(signals.drain().iter().collect::<Vec<_>>(), all.map(|(_, signal)| signal));
}

#[test]
fn wait_ends_with_a_signal_or_the_timeout() {
    let _alone = alone();
    let signals = Signals::install().unwrap();
    let timeout = Duration::from_millis(20);
    let start = Instant::now();
    assert!(signals.wait(Some(timeout)).unwrap().is_empty());
    assert!(start.elapsed() >= timeout);
    std::thread::scope(|scope| {
        scope.spawn(|| raise(libc::SIGUSR1));
        assert!(signals.wait(Some(SOON)).unwrap().contains(Signal::User1));
    });
}

#[test]
fn dispositions_are_restored_and_sigpipe_stays_ignored() {
    let _alone = alone();
    // SAFETY: no handler is installed; nothing in this binary writes to a pipe meanwhile.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let before = disposition(libc::SIGTERM);
    let signals = Signals::install().unwrap();
    assert_ne!(disposition(libc::SIGTERM), before);
    assert_eq!(Signals::install().err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
    assert_ne!(disposition(libc::SIGTERM), before, "the refused one restored nothing");
    drop(signals);
    assert_eq!(disposition(libc::SIGTERM), before);
    assert_eq!(disposition(libc::SIGPIPE), libc::SIG_IGN);
    drop(Signals::install().unwrap());
}
