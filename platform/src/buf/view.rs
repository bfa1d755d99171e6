//! Views of received bytes: unique and writable, or shared and read-only.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use super::poison;
use super::pool::Chunk;

/// A unique view of received bytes, writable in place (TLS decrypts here). 16 bytes; never leaves its thread.
///
/// It keeps its chunk from being reused: whoever keeps a few bytes for long calls [`PoolBuf::compact`].
pub struct PoolBuf {
    chunk: NonNull<Chunk>,
    /// INVARIANT: `off .. off + len` lies inside the chunk and in no other unique view.
    off: u32,
    len: u32,
}

impl PoolBuf {
    /// # Safety
    /// The caller owned one reference to `chunk`, which moves into the view, and the range obeys the invariant.
    pub(super) unsafe fn from_parts(chunk: NonNull<Chunk>, off: u32, len: u32) -> Self {
        PoolBuf { chunk, off, len }
    }

    /// Takes in the `len` bytes from `off` on if it ends in front of them.
    ///
    /// # Safety
    /// They are initialised, inside the chunk, and in no other view.
    #[inline]
    pub(super) unsafe fn extend_in(&mut self, chunk: NonNull<Chunk>, off: u32, len: u32) -> bool {
        let follows = self.chunk == chunk && self.off + self.len == off;
        if follows {
            self.len += len;
        }
        follows
    }

    /// A copy with memory of its own, outside every pool.
    ///
    /// # Panics
    /// If `bytes` is 4 GiB or longer.
    pub fn copied(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("a view is shorter than 4 GiB");
        PoolBuf { chunk: Chunk::standalone(bytes), off: 0, len }
    }

    /// Takes the first `at` bytes off; `self` keeps the rest. No copy.
    ///
    /// # Panics
    /// If `at` is past the end.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> PoolBuf {
        assert!(at <= self.len as usize, "split_to past the end");
        let at = at as u32;
        // SAFETY: `self` holds a reference, so the header lives.
        unsafe { self.chunk.as_ref() }.retain();
        let head = PoolBuf { chunk: self.chunk, off: self.off, len: at };
        self.off += at;
        self.len -= at;
        head
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// If `count` is past the end.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len as usize, "advance past the end");
        self.off += count as u32;
        self.len -= count as u32;
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Joins `next` to the end where it follows in memory; gives it back otherwise.
    pub fn try_unsplit(&mut self, next: PoolBuf) -> Result<(), PoolBuf> {
        if self.chunk == next.chunk && self.off + self.len == next.off {
            self.len += next.len;
            Ok(())
        } else {
            Err(next)
        }
    }

    /// Whether the bytes lie in memory of their own, so that they keep no chunk of a pool.
    pub fn is_compact(&self) -> bool {
        // SAFETY: `self` holds a reference, so the header lives.
        unsafe { self.chunk.as_ref() }.is_standalone()
    }

    /// The same bytes in memory of their own, so that the chunk can be reused. Costs one allocation and one copy.
    #[must_use]
    pub fn compact(self) -> PoolBuf {
        PoolBuf::copied(&self)
    }

    /// Nobody may touch the bytes until [`PoolBuf::show`]: the kernel fills them.
    #[cfg_attr(windows, expect(dead_code, reason = "for io_uring"))]
    pub(crate) fn hide(&self) {
        poison::hide(self.start(), self.len as usize);
    }

    /// Ends [`PoolBuf::hide`].
    #[cfg_attr(windows, expect(dead_code, reason = "for io_uring"))]
    pub(crate) fn show(&self) {
        poison::show(self.start(), self.len as usize);
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `self` holds a reference, so the header lives, and the offset is inside the chunk.
        unsafe { self.chunk.as_ref().base().add(self.off as usize) }
    }

    /// Gives up writing for cheap clones.
    pub fn freeze(self) -> SharedBuf {
        SharedBuf(self)
    }
}

impl Deref for PoolBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised and inside the chunk, which `self` keeps alive; the kernel and other
        // views never write to it.
        unsafe {
            std::slice::from_raw_parts(
                self.chunk.as_ref().base().add(self.off as usize).as_ptr(),
                self.len as usize,
            )
        }
    }
}

impl DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; unique views are disjoint, and `SharedBuf` never hands out `&mut`.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.chunk.as_ref().base().add(self.off as usize).as_ptr(),
                self.len as usize,
            )
        }
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        // SAFETY: the view owned one reference.
        unsafe { Chunk::release(self.chunk) };
    }
}

impl fmt::Debug for PoolBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuf({} bytes)", self.len)
    }
}

/// A shared, read-only view: clones and slices cost a count, no copy.
pub struct SharedBuf(PoolBuf);

impl SharedBuf {
    /// A part of the view.
    ///
    /// # Panics
    /// If the range is not inside the view.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> SharedBuf {
        assert!(range.start <= range.end && range.end <= self.0.len as usize, "slice out of range");
        // SAFETY: `self` holds a reference, so the header lives.
        unsafe { self.0.chunk.as_ref() }.retain();
        SharedBuf(PoolBuf {
            chunk: self.0.chunk,
            off: self.0.off + range.start as u32,
            len: (range.end - range.start) as u32,
        })
    }
}

impl SharedBuf {
    /// As [`PoolBuf::is_compact`].
    pub fn is_compact(&self) -> bool {
        self.0.is_compact()
    }
}

impl Clone for SharedBuf {
    fn clone(&self) -> Self {
        self.slice(0..self.0.len as usize)
    }
}

impl Deref for SharedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuf({} bytes)", self.0.len)
    }
}
