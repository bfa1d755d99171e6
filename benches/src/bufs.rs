//! A ring of provided buffers: the kernel takes one for each receive, and we give it back.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// A group of equal buffers. It must outlive its io_uring's receives.
pub struct BufRing {
    entries: *mut BufRingEntry,
    count: u16,
    /// Never resized, so that its address stays.
    memory: Vec<u8>,
    buf_len: usize,
    tail: u16,
}

impl BufRing {
    /// `count` buffers (a power of two) of `buf_len` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register(ring: &IoUring, group: u16, count: u16, buf_len: usize) -> io::Result<Self> {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, page-aligned as the kernel wants it.
        let entries = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if entries == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is as long as `count` entries and lives until this value is dropped, after its io_uring.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, group, 0)? };
        let mut bufs = BufRing {
            entries: entries.cast(),
            count,
            memory: vec![0; usize::from(count) * buf_len],
            buf_len,
            tail: 0,
        };
        for id in 0..count {
            bufs.recycle(id);
        }
        bufs.publish();
        Ok(bufs)
    }

    /// What was received into a buffer.
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        let start = usize::from(id) * self.buf_len;
        &self.memory[start..start + len]
    }

    /// Gives a buffer back with the next [`BufRing::publish`].
    pub fn recycle(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: masked, the index is below `count`; the kernel reads the entry only after the tail has passed it.
        let entry = unsafe { &mut *self.entries.add(at) };
        entry.set_addr(self.memory.as_mut_ptr() as u64 + u64::from(id) * self.buf_len as u64);
        entry.set_len(self.buf_len as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Tells the kernel what was given back.
    pub fn publish(&self) {
        // SAFETY: the tail lies in the first entry's reserved field, which nothing else writes; the kernel reads it
        // atomically.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // SAFETY: the mapping of `register`; the io_uring is gone.
        unsafe { libc::munmap(self.entries.cast(), usize::from(self.count) * size_of::<BufRingEntry>()) };
    }
}
