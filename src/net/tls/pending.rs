//! Handshakes under way on one core, the oldest first: a list whose links are numbers, so that each step costs the same however
//! many there are.
//!
//! ```text
//! Free --join--> Waiting --leave--> Free
//!                   `--stop_oldest, stop_all--> Stopped, its task is woken --leave--> Free
//! ```

use std::task::Waker;

/// At most as many entries as there have been handshakes at a time.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: Vec<Entry>,
    free: Vec<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    older: Option<usize>,
    newer: Option<usize>,
    stopped: bool,
    waker: Option<Waker>,
}

impl Pending {
    /// How many wait that have not been stopped.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Adds the newest; its number is its own until [`Pending::leave`].
    pub(super) fn join(&mut self) -> usize {
        let entry = Entry { older: self.newest, newer: None, stopped: false, waker: None };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        match self.newest {
            Some(newest) => self.entries[newest].newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
        self.waiting += 1;
        at
    }

    /// Removes one, stopped or not.
    pub(super) fn leave(&mut self, at: usize) {
        if !self.entries[at].stopped {
            self.unlink(at);
        }
        self.entries[at].waker = None;
        self.free.push(at);
    }

    /// Notes who is to be woken; `false` when it was stopped.
    pub(super) fn wait(&mut self, at: usize, waker: &Waker) -> bool {
        let entry = &mut self.entries[at];
        if entry.stopped {
            return false;
        }
        match &mut entry.waker {
            Some(known) => known.clone_from(waker),
            None => entry.waker = Some(waker.clone()),
        }
        true
    }

    /// Stops the oldest; whom the caller wakes.
    pub(super) fn stop_oldest(&mut self) -> Option<Waker> {
        let at = self.oldest?;
        self.unlink(at);
        self.entries[at].stopped = true;
        self.entries[at].waker.take()
    }

    /// Stops all; whom the caller wakes.
    pub(super) fn stop_all(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::with_capacity(self.waiting);
        while self.waiting > 0 {
            wakers.extend(self.stop_oldest());
        }
        wakers
    }

    fn unlink(&mut self, at: usize) {
        let (older, newer) = (self.entries[at].older, self.entries[at].newer);
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
        self.waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::Pending;

    #[test]
    fn the_oldest_that_is_left_is_stopped_first() {
        let mut pending = Pending::default();
        let all: Vec<usize> = (0..4).map(|_| pending.join()).collect();
        all.iter().for_each(|&at| assert!(pending.wait(at, Waker::noop())));
        // In the middle, and the oldest.
        pending.leave(all[1]);
        pending.leave(all[0]);
        assert_eq!(pending.len(), 2);
        assert!(pending.stop_oldest().is_some());
        let stopped: Vec<bool> = [2, 3].map(|at| !pending.wait(all[at], Waker::noop())).to_vec();
        assert_eq!((stopped, pending.len()), (vec![true, false], 1));
        // A stopped one keeps its number until it leaves, and is not stopped again.
        let fresh = [pending.join(), pending.join(), pending.join()];
        assert!(!fresh.contains(&all[2]));
        pending.leave(all[2]);
        assert_eq!(pending.join(), all[2]);
        assert_eq!((pending.len(), pending.entries.len()), (5, 5));
        assert_eq!(pending.stop_all().len(), 1, "only one has said whom to wake");
        assert_eq!((pending.len(), pending.stop_oldest().is_none()), (0, true));
    }

    #[test]
    fn the_list_stays_whole_however_they_leave() {
        let mut pending = Pending::default();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let all = [pending.join(), pending.join(), pending.join()];
            order.iter().for_each(|&at| pending.leave(all[at]));
            assert_eq!((pending.len(), pending.oldest, pending.newest), (0, None, None), "{order:?}");
        }
        assert_eq!(pending.entries.len(), 3);
    }
}
