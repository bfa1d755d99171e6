//! The buffer ring: pool chunks lent to the kernel for receiving.
//!
//! ```text
//! pool --take--> published --completion, BUF_MORE--> published --completion, last--> views only --> pool
//! ```
//!
//! Incremental rings publish whole chunks (buffer id = chunk id) and the kernel appends; plain rings publish slices of
//! chunks and each receive uses one up.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;

use crate::buf::{ChunkRef, Pool, PoolBuf};

/// The only buffer group of a driver.
pub(super) const GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC`, since 6.12.
pub(super) const FLAG_INC: u16 = 2;

const MAX_TARGET: u32 = 8;
const MIN_TARGET: u32 = 2;
/// Turns that use up one chunk at most, in a row, before one chunk less is kept published.
const CALM_TURNS: u32 = 1024;
const SLICE_BYTES: u32 = 16 * 1024;

/// `struct io_uring_buf`; in the first entry the last field is the ring's tail.
#[repr(C)]
struct RingEntry {
    addr: u64,
    len: u32,
    bid: u16,
    tail: u16,
}

/// The memory of a ring that a kernel shares, without what is published in it.
pub(super) struct RingMemory {
    base: NonNull<RingEntry>,
    layout: Layout,
    mask: u16,
    /// Where the next entry goes; the kernel sees it at [`RingMemory::show`].
    tail: u16,
    shown: u16,
}

impl RingMemory {
    /// `entries` is a power of two, at most 32,768.
    pub(super) fn new(entries: u16) -> Self {
        assert!(entries.is_power_of_two());
        // SAFETY: no memory is involved.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let layout = Layout::from_size_align(usize::from(entries) * size_of::<RingEntry>(), page)
            .expect("at most 512 KiB, aligned to a power of two");
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base.cast()) else { handle_alloc_error(layout) };
        RingMemory { base, layout, mask: entries - 1, tail: 0, shown: 0 }
    }

    /// Tells the kernel about the ring, as group [`GROUP`].
    ///
    /// # Safety
    /// `self` outlives the registration, which ends with [`Submitter::unregister_buf_ring`] or with the ring.
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>, flags: u16) -> std::io::Result<()> {
        let (addr, entries) = (self.base.as_ptr() as u64, self.mask + 1);
        // SAFETY: the memory holds that many entries and lives as long as the caller promised.
        unsafe { submitter.register_buf_ring_with_flags(addr, entries, GROUP, flags) }
    }

    /// # Safety
    /// The kernel may write to `len` bytes at `addr` until the completion that uses them up. Fewer entries are
    /// published than the ring has.
    pub(super) unsafe fn push(&mut self, addr: NonNull<u8>, len: u32, bid: u16) {
        // SAFETY: the masked index is inside the ring. The kernel is done with the entry (fewer are published than
        // there are), and no reference is formed: in entry 0 the tail is left alone.
        unsafe {
            let entry = self.base.as_ptr().add(usize::from(self.tail & self.mask));
            (&raw mut (*entry).addr).write(addr.as_ptr() as u64);
            (&raw mut (*entry).len).write(len);
            (&raw mut (*entry).bid).write(bid);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows everything pushed to the kernel, with one store.
    pub(super) fn show(&mut self) {
        if self.shown != self.tail {
            self.shown = self.tail;
            // SAFETY: the first entry's last field is the tail, aligned to 2, and only accessed atomically.
            let tail = unsafe { AtomicU16::from_ptr(&raw mut (*self.base.as_ptr()).tail) };
            tail.store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the registration ended before (`register`).
        unsafe { dealloc(self.base.as_ptr().cast(), self.layout) };
    }
}

enum Lent {
    /// Whole chunks by chunk id. The `ChunkRef` is the kernel's reference.
    Chunks(Vec<Option<ChunkRef>>),
    /// Slices by buffer id. INVARIANT: nobody looks into a slice before its completion cut it to what was written.
    Slices { by_id: Vec<Option<PoolBuf>>, free_ids: Vec<u16>, slice_bytes: u32, per_chunk: u32 },
}

/// The ring with what is published in it.
pub(super) struct BufRing {
    memory: RingMemory,
    lent: Lent,
    pool: Pool,
    /// Buffers (chunks or slices) that the kernel has.
    published: u32,
    /// Chunks to keep published.
    target: u32,
    max_target: u32,
    /// Buffers used up since the last [`BufRing::adapt`].
    used_up: u32,
    /// Turns in a row that used up one chunk at most.
    calm_turns: u32,
}

impl BufRing {
    pub(super) fn new(pool: Pool, incremental: bool) -> Self {
        let spec = pool.spec();
        // Half of a small pool is left for what has been received and waits.
        let max_target = (u32::from(spec.max_chunks) / 2).clamp(1, MAX_TARGET);
        let (entries, lent) = if incremental {
            let count = spec.max_chunks.next_power_of_two();
            (count, Lent::Chunks((0..spec.max_chunks).map(|_| None).collect()))
        } else {
            let slice_bytes = spec.chunk_bytes.min(SLICE_BYTES);
            let per_chunk = spec.chunk_bytes / slice_bytes;
            let count = ((max_target * per_chunk) as u16).next_power_of_two();
            let by_id = (0..count).map(|_| None).collect();
            (count, Lent::Slices { by_id, free_ids: (0..count).rev().collect(), slice_bytes, per_chunk })
        };
        let memory = RingMemory::new(entries);
        let target = MIN_TARGET.min(max_target);
        BufRing { memory, lent, pool, published: 0, target, max_target, used_up: 0, calm_turns: 0 }
    }

    /// # Safety
    /// As [`RingMemory::register`].
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>) -> std::io::Result<()> {
        let flags = if matches!(self.lent, Lent::Chunks(_)) { FLAG_INC } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { self.memory.register(submitter, flags) }
    }

    /// Whether a receive may be armed: on an empty ring it would end at once, with ENOBUFS.
    pub(super) fn has_buffers(&self) -> bool {
        self.published > 0
    }

    /// The most that one receive can be given at once.
    pub(super) fn buffer_bytes(&self) -> u32 {
        match &self.lent {
            Lent::Chunks(_) => self.pool.spec().chunk_bytes,
            Lent::Slices { slice_bytes, .. } => *slice_bytes,
        }
    }

    /// Publishes up to the target, as far as the pool gives; the kernel sees it at [`BufRing::show`].
    pub(super) fn top_up(&mut self) {
        while self.published_chunks() < self.target {
            let Some(chunk) = self.pool.take() else { return };
            self.publish(chunk);
        }
    }

    pub(super) fn show(&mut self) {
        self.memory.show();
    }

    /// The kernel ran out: keep more published.
    pub(super) fn grow(&mut self) {
        self.target = (self.target * 2).min(self.max_target);
    }

    /// Follows the rate of use: a turn that used up half of what was published asks for one chunk more, and many turns
    /// in a row that used little for one less. The kernel keeps what is published beyond the target until it is used up.
    pub(super) fn adapt(&mut self) {
        let used_chunks = std::mem::take(&mut self.used_up).div_ceil(self.per_chunk());
        if used_chunks * 2 > self.target {
            self.target = (self.target + 1).min(self.max_target);
            self.calm_turns = 0;
        } else if used_chunks > 1 {
            self.calm_turns = 0;
        } else {
            self.calm_turns += 1;
            if self.calm_turns == CALM_TURNS {
                self.calm_turns = 0;
                self.target = self.target.saturating_sub(1).max(MIN_TARGET.min(self.max_target));
            }
        }
    }

    /// Takes what the kernel wrote: `len` bytes (perhaps none) of buffer `bid`, of which it keeps the rest if `more`.
    ///
    /// Completions are taken in the order the kernel made them, which is the order in the chunk (self-test `inc`).
    #[inline(always)]
    pub(super) fn take(&mut self, bid: u16, len: u32, more: bool) -> PoolBuf {
        let view = match &mut self.lent {
            Lent::Chunks(by_id) => {
                let lent = &mut by_id[usize::from(bid)];
                let chunk = lent.as_ref().expect("the kernel used a chunk that was not published");
                // SAFETY: the kernel reported the next `len` bytes of the chunk as written, and goes on behind them.
                let view = unsafe { chunk.view(len) };
                if !more {
                    *lent = None;
                }
                view
            }
            Lent::Slices { by_id, free_ids, .. } => {
                debug_assert!(!more, "plain buffers are used once");
                let slice = by_id[usize::from(bid)].take();
                let mut slice = slice.expect("the kernel used a slice that was not published");
                free_ids.push(bid);
                slice.truncate(len as usize);
                slice.show();
                slice
            }
        };
        if !more {
            self.published -= 1;
            self.used_up += 1;
        }
        view
    }

    fn per_chunk(&self) -> u32 {
        match &self.lent {
            Lent::Chunks(_) => 1,
            Lent::Slices { per_chunk, .. } => *per_chunk,
        }
    }

    fn published_chunks(&self) -> u32 {
        self.published.div_ceil(self.per_chunk())
    }

    fn publish(&mut self, chunk: ChunkRef) {
        match &mut self.lent {
            Lent::Chunks(by_id) => {
                let (addr, len, bid) = (chunk.write_ptr(), chunk.room() as u32, chunk.id());
                let lent = &mut by_id[usize::from(bid)];
                assert!(lent.is_none(), "a chunk is published once");
                *lent = Some(chunk);
                // SAFETY: the `ChunkRef` just stored keeps the memory until the last completion for `bid`; chunks do
                // not move; a cancel only ends the receive, and drop leaks the ref unless every receive has ended.
                // Ids are below `max_chunks`, so at most as many are published as the ring has entries.
                unsafe { self.memory.push(addr, len, bid) };
                self.published += 1;
            }
            Lent::Slices { by_id, free_ids, slice_bytes, per_chunk } => {
                for _ in 0..*per_chunk {
                    let bid = free_ids.pop().expect("ids for as many chunks as are ever published");
                    let addr = chunk.write_ptr();
                    // SAFETY: nobody reads the view before `take` has cut it to the bytes that the kernel wrote, and
                    // none are written after that completion.
                    let slice = unsafe { chunk.view(*slice_bytes) };
                    slice.hide();
                    by_id[usize::from(bid)] = Some(slice);
                    // SAFETY: as for chunks, with the stored view as the reference; there are as many ids as entries.
                    unsafe { self.memory.push(addr, *slice_bytes, bid) };
                    self.published += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BufRing, CALM_TURNS, MAX_TARGET, MIN_TARGET, RingEntry};
    use crate::buf::{Pool, PoolSpec};

    #[test]
    fn the_target_follows_the_rate_of_use_both_ways() {
        let mut ring = BufRing::new(Pool::new(PoolSpec::default()), true);
        for _ in 0..MAX_TARGET {
            ring.used_up = MAX_TARGET;
            ring.adapt();
        }
        assert_eq!(ring.target, MAX_TARGET);
        (1..CALM_TURNS).for_each(|_| ring.adapt());
        assert_eq!(ring.target, MAX_TARGET, "a pause changes nothing");
        ring.used_up = 2;
        ring.adapt();
        (1..CALM_TURNS).for_each(|_| ring.adapt());
        assert_eq!(ring.target, MAX_TARGET, "the count began anew");
        (0..CALM_TURNS * MAX_TARGET).for_each(|_| ring.adapt());
        assert_eq!(ring.target, MIN_TARGET);
    }

    #[test]
    fn entries_are_laid_out_as_the_kernel_reads_them() {
        assert_eq!(size_of::<RingEntry>(), size_of::<io_uring::types::BufRingEntry>());
        assert_eq!(std::mem::offset_of!(RingEntry, len), 8);
        assert_eq!(std::mem::offset_of!(RingEntry, bid), 12);
        assert_eq!(std::mem::offset_of!(RingEntry, tail), 14);
    }
}
