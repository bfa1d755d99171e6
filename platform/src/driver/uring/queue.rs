//! The two queues of a ring: staging in order, entering the kernel, reaping.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use crate::driver::Wait;
use crate::stats::CoreStats;

/// A ring, and the submissions that did not fit it yet.
pub(super) struct Queue {
    pub(super) ring: IoUring,
    /// Staged behind a submission queue that the kernel would not empty. Usually empty.
    backlog: VecDeque<squeue::Entry>,
    /// Submissions staged so far.
    pushed: u64,
    wait_flags: EnterFlags,
}

/// Room for the completions that are taken at once.
pub(super) type Taken = [MaybeUninit<cqueue::Entry>; 64];

/// How an enter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    Done,
    /// The kernel asks to reap, or to come again.
    Later,
}

impl Queue {
    pub(super) fn new(ring: IoUring) -> Self {
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Queue { ring, backlog: VecDeque::new(), pushed: 0, wait_flags }
    }

    /// Stages `entry` behind all others; returns its place among them. A full queue is flushed.
    ///
    /// # Safety
    /// What the entry names stays valid until its completion (a silent send: until it is settled).
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, stats: &CoreStats) -> u64 {
        self.pushed += 1;
        // SAFETY: the caller's promise.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            // SAFETY: the same.
            unsafe { self.push_full(&entry, stats) };
        }
        self.pushed
    }

    /// The place that the next submission gets.
    pub(super) fn next_place(&self) -> u64 {
        self.pushed + 1
    }

    /// As [`Queue::push`] where there is room; false where there is none.
    ///
    /// # Safety
    /// As [`Queue::push`].
    #[inline(always)]
    pub(super) unsafe fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(entry) }.is_err() {
            return false;
        }
        self.pushed += 1;
        true
    }

    /// # Safety
    /// As [`Queue::push`].
    #[cold]
    unsafe fn push_full(&mut self, entry: &squeue::Entry, stats: &CoreStats) {
        if self.backlog.is_empty() {
            stats.sq_full.inc();
            // Counted as staged already, but in no queue: the backlog holds it while the others go.
            self.backlog.push_back(entry.clone());
            // An error shows again at the next turn, which can report it; until then the entry waits in the backlog.
            let _ = self.enter(Wait::Poll, stats);
            self.refill();
        } else {
            self.backlog.push_back(entry.clone());
        }
    }

    /// The place of the last submission that the kernel has taken.
    pub(super) fn consumed(&mut self) -> u64 {
        self.pushed - (self.backlog.len() + self.ring.submission().len()) as u64
    }

    /// Submits everything staged, and waits as told if that succeeded.
    ///
    /// # Errors
    /// Only what leaves the ring unusable.
    pub(super) fn submit(&mut self, wait: Wait, stats: &CoreStats) -> io::Result<()> {
        while !self.backlog.is_empty() {
            self.refill();
            if !self.backlog.is_empty() {
                let before = self.consumed();
                if self.enter(Wait::Poll, stats)? == Entered::Later || self.consumed() == before {
                    return Ok(());
                }
            }
        }
        if self.must_enter(wait) {
            self.enter(wait, stats)?;
        }
        Ok(())
    }

    /// Moves what the kernel held back for want of room into the completion queue, as far as it fits.
    pub(super) fn fetch_overflow(&mut self, stats: &CoreStats) -> io::Result<()> {
        stats.syscalls.inc();
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and nothing is submitted.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, flags, None) } {
            Ok(_) => Ok(()),
            Err(error) => judge(error).map(|_| ()),
        }
    }

    pub(super) fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Takes completions that are visible now, as many as `into` holds at most.
    pub(super) fn take<'a>(&mut self, into: &'a mut Taken) -> &'a [cqueue::Entry] {
        self.ring.completion().fill(into)
    }

    fn refill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the promise was made at `push`.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn must_enter(&mut self, wait: Wait) -> bool {
        let queue = self.ring.submission();
        if !queue.is_empty() || queue.taskrun() || queue.cq_overflow() {
            return true;
        }
        drop(queue);
        wait != Wait::Poll && self.ring.completion().is_empty()
    }

    fn enter(&mut self, wait: Wait, stats: &CoreStats) -> io::Result<Entered> {
        stats.syscalls.inc();
        let staged = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let entered = match wait {
            // SAFETY: the entries' memory is promised at `push`; no argument is passed.
            Wait::Poll => unsafe {
                submitter.enter::<libc::sigset_t>(staged, 0, EnterFlags::GETEVENTS.bits(), None)
            },
            Wait::AtMost(timeout) => {
                let timeout = Timespec::from(timeout.min(Duration::from_secs(1 << 30)));
                let args = SubmitArgs::new().timespec(&timeout);
                // SAFETY: as above; `args` and the time it points to live until the call returns.
                unsafe { submitter.enter(staged, 1, self.wait_flags.bits(), Some(&args)) }
            }
            Wait::Forever => {
                let args = SubmitArgs::new();
                // SAFETY: as above.
                unsafe { submitter.enter(staged, 1, self.wait_flags.bits(), Some(&args)) }
            }
        };
        match entered {
            Ok(taken) if taken < staged as usize => Ok(Entered::Later),
            Ok(_) => Ok(Entered::Done),
            Err(error) => judge(error),
        }
    }
}

/// Which errors of io_uring_enter(2) leave the ring usable.
fn judge(error: io::Error) -> io::Result<Entered> {
    match error.raw_os_error() {
        // The time is over, or a signal came: nothing completed, the caller looks at its clock and its flags.
        Some(libc::ETIME | libc::EINTR) => Ok(Entered::Done),
        // EBUSY: completions overflowed and must be reaped first. EAGAIN: no memory for requests at the moment.
        // Either way the entries stay staged for the next turn.
        Some(libc::EBUSY | libc::EAGAIN) => Ok(Entered::Later),
        // Among the rest EBADR: a completion was dropped for lack of memory, so some operation will never end.
        _ => Err(error),
    }
}
