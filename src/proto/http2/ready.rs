//! Who is to be polled again: one flag for the connection, one for each stream, set by the wakers that h2 is given.
//!
//! A waker has to be `Send`, so the flags are atomics; all of them are used on one thread, without a lock or a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

pub(super) struct Ready {
    conn: AtomicBool,
    /// A bit for each place of a stream.
    places: Box<[AtomicU64]>,
}

impl Ready {
    /// For so many streams at most.
    pub(super) fn new(max_places: usize) -> Arc<Self> {
        let words = max_places.div_ceil(BITS);
        Arc::new(Ready {
            conn: AtomicBool::new(true),
            places: (0..words).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    pub(super) fn set_conn(&self) {
        self.conn.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_conn(&self) -> bool {
        self.conn.load(Ordering::Relaxed)
    }

    /// Whether the connection is to be polled; not any more then.
    pub(super) fn take_conn(&self) -> bool {
        self.conn.swap(false, Ordering::Relaxed)
    }

    pub(super) fn set(&self, place: usize) {
        self.places[place / BITS].fetch_or(1 << (place % BITS), Ordering::Relaxed);
    }

    pub(super) fn has_any(&self) -> bool {
        self.places.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// The first place behind `last`, going round, that is to be polled; not any more then.
    pub(super) fn take_behind(&self, last: usize) -> Option<usize> {
        let words = self.places.len();
        let (first, bit) = ((last + 1) / BITS % words, (last + 1) % BITS);
        for step in 0..=words {
            let at = (first + step) % words;
            let mut set = self.places[at].load(Ordering::Relaxed);
            if step == 0 {
                set &= u64::MAX << bit;
            }
            if set != 0 {
                let bit = set.trailing_zeros() as usize;
                self.places[at].fetch_and(!(1 << bit), Ordering::Relaxed);
                return Some(at * BITS + bit);
            }
        }
        None
    }
}

const BITS: usize = 64;

struct ConnWaker(Arc<Ready>);

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.0.set_conn();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.set_conn();
    }
}

struct PlaceWaker {
    ready: Arc<Ready>,
    place: usize,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.ready.set(self.place);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.set(self.place);
    }
}

pub(super) fn conn_waker(ready: &Arc<Ready>) -> Waker {
    Waker::from(Arc::new(ConnWaker(ready.clone())))
}

pub(super) fn place_waker(ready: &Arc<Ready>, place: usize) -> Waker {
    Waker::from(Arc::new(PlaceWaker { ready: ready.clone(), place }))
}

#[cfg(test)]
mod tests {
    use super::{Ready, conn_waker, place_waker};

    #[test]
    fn places_take_turns() {
        let ready = Ready::new(130);
        for place in [3, 64, 129] {
            place_waker(&ready, place).wake_by_ref();
        }
        place_waker(&ready, 3).wake();
        assert!(ready.has_any());
        assert_eq!(ready.take_behind(3), Some(64));
        ready.set(64);
        assert_eq!(ready.take_behind(64), Some(129));
        assert_eq!(ready.take_behind(129), Some(3));
        assert_eq!(ready.take_behind(3), Some(64));
        assert_eq!(ready.take_behind(191), None);
        assert!(!ready.has_any());
    }

    #[test]
    fn the_connection_has_a_flag() {
        let ready = Ready::new(1);
        assert!(ready.take_conn() && !ready.take_conn());
        conn_waker(&ready).wake_by_ref();
        assert!(ready.has_conn() && ready.take_conn());
        conn_waker(&ready).wake();
        assert!(ready.take_conn());
    }
}
