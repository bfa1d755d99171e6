//! What a thread allocates, for tests (feature `measure`).
//!
//! A binary that wants to know makes [`CountingAlloc`] its global allocator and asks [`allocated`] before and after.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count for each thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAlloc;

/// What a thread has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Allocations, growing ones among them.
    pub count: u64,
    /// Bytes allocated less bytes given back, whoever allocated those.
    pub live_bytes: i64,
    /// The most that those ever were, or were since [`restart_peak`].
    pub peak_bytes: i64,
}

/// Of this thread.
pub fn allocated() -> Allocated {
    ALLOCATED.get()
}

/// Makes the peak of this thread what is live now.
pub fn restart_peak() {
    let now = ALLOCATED.get();
    ALLOCATED.set(Allocated { peak_bytes: now.live_bytes, ..now });
}

thread_local! {
    // No destructor and no lazy start: it can be used by an allocator.
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { count: 0, live_bytes: 0, peak_bytes: 0 }) };
}

fn note(count: u64, bytes: i64) {
    let before = ALLOCATED.get();
    let live_bytes = before.live_bytes + bytes;
    let peak_bytes = before.peak_bytes.max(live_bytes);
    ALLOCATED.set(Allocated { count: before.count + count, live_bytes, peak_bytes });
}

// SAFETY: every call goes to the system's allocator with the arguments that came, so that its contract holds; counting
// touches a cell of this thread and allocates nothing.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: the caller's block and layout, and every block is the system's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(1, new_size as i64 - layout.size() as i64);
        // SAFETY: the caller's block, layout and size, and every block is the system's.
        unsafe { System.realloc(at, layout, new_size) }
    }
}
