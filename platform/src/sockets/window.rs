//! How much may wait in a socket for its reader: what a receive is armed for at once.
//!
//! ```text
//! Narrow --credit used up, and the reader has taken everything--> Wide --the reader has not--> Narrow
//! any --set by the owner--> Fixed
//! ```
//!
//! A receive that is armed anew costs a submission and a try that finds nothing; a wide window makes it a rare event. What
//! all wide windows could hold beyond narrow ones is at most half of the pool.

use crate::buf::Pool;

/// Bytes that may wait in a socket for their reader, unless set otherwise: four times as many for a reader that keeps up.
pub const DEFAULT_RX_LIMIT: u32 = 64 * 1024;

const WIDE: u32 = 4 * DEFAULT_RX_LIMIT;

/// The window of one socket.
#[derive(Debug, Default)]
pub(super) struct Window {
    size: Size,
    /// A receive has ended because its credit was used up.
    used_up: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Size {
    #[default]
    Narrow,
    Wide,
    Fixed(u32),
}

impl Window {
    /// Notes that the credit did not suffice.
    pub(super) fn used_up(&mut self) {
        self.used_up = true;
    }
}

/// How many windows of a core are wide.
pub(super) struct Windows {
    wide: u32,
    max_wide: u32,
}

impl Windows {
    pub(super) fn of(pool: &Pool) -> Self {
        let beyond = u64::from(WIDE - DEFAULT_RX_LIMIT);
        let max_wide = pool.usage().max_bytes / 2 / beyond;
        Windows { wide: 0, max_wide: u32::try_from(max_wide).unwrap_or(u32::MAX) }
    }

    /// Bytes that may wait, of which `queued` do.
    pub(super) fn limit(&mut self, window: &mut Window, queued: usize, pool: &Pool) -> u32 {
        if std::mem::take(&mut window.used_up) {
            let keeps_up = queued == 0 && !pool.under_pressure();
            match window.size {
                Size::Narrow if keeps_up && self.wide < self.max_wide => self.resize(window, Size::Wide),
                Size::Wide if !keeps_up => self.resize(window, Size::Narrow),
                Size::Narrow | Size::Wide | Size::Fixed(_) => {}
            }
        }
        match window.size {
            Size::Narrow => DEFAULT_RX_LIMIT,
            Size::Wide => WIDE,
            Size::Fixed(limit) => limit,
        }
    }

    /// The owner says how much may wait.
    pub(super) fn fix(&mut self, window: &mut Window, limit: u32) {
        self.resize(window, Size::Fixed(limit.max(1)));
    }

    /// The socket has gone.
    pub(super) fn close(&mut self, window: &mut Window) {
        self.resize(window, Size::Narrow);
    }

    fn resize(&mut self, window: &mut Window, size: Size) {
        self.wide -= u32::from(window.size == Size::Wide);
        self.wide += u32::from(size == Size::Wide);
        window.size = size;
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_RX_LIMIT, WIDE, Window, Windows};
    use crate::buf::{Pool, PoolSpec};

    fn pool(max_chunks: u16) -> Pool {
        Pool::new(PoolSpec { chunk_bytes: 128 * 1024, min_chunks: 0, max_chunks })
    }

    #[test]
    fn a_window_is_wide_while_its_reader_keeps_up() {
        let pool = pool(256);
        let (mut windows, mut window) = (Windows::of(&pool), Window::default());
        for (used_up, queued, expected) in [
            (false, 0, DEFAULT_RX_LIMIT),
            (true, 1, DEFAULT_RX_LIMIT),
            (true, 0, WIDE),
            (false, 100, WIDE),
            (true, 0, WIDE),
            (true, 100, DEFAULT_RX_LIMIT),
            (true, 0, WIDE),
        ] {
            if used_up {
                window.used_up();
            }
            assert_eq!(windows.limit(&mut window, queued, &pool), expected);
        }
        windows.fix(&mut window, 0);
        window.used_up();
        assert_eq!((windows.limit(&mut window, 0, &pool), windows.wide), (1, 0));
    }

    #[test]
    fn wide_windows_leave_half_of_the_pool() {
        let pool = pool(12);
        let mut windows = Windows::of(&pool);
        let mut all: Vec<Window> = (0..6).map(|_| Window::default()).collect();
        let mut widen = |window: &mut Window| {
            window.used_up();
            windows.limit(window, 0, &pool) == WIDE
        };
        let wide = all.iter_mut().filter_map(|window| widen(window).then_some(())).count();
        assert_eq!(wide, 4, "4 * 192 KiB are half of 12 * 128");
        windows.close(&mut all[0]);
        let mut widen = |window: &mut Window| {
            window.used_up();
            windows.limit(window, 0, &pool) == WIDE
        };
        assert!(widen(&mut all[5]) && !widen(&mut all[4]));
        // Of a pool that runs short nobody gets more.
        let taken: Vec<_> = (0..7).filter_map(|_| pool.take()).collect();
        assert!(!widen(&mut all[1]) && taken.len() == 7);
    }
}
