//! Bytes that are written where they are sent from.

use std::ptr::NonNull;

use super::poison;
use super::pool::ChunkRef;

/// Takes bytes behind one another, without a memory of its own where it can: what [`TxQueue::put_with`] gives writes
/// into the chunk that is sent, and only where that is full into a vector, as a writer of its own does.
///
/// [`TxQueue::put_with`]: super::TxQueue::put_with
pub struct TxWriter {
    /// INVARIANT: `len` bytes from here on are initialised, `room` of them belong to this writer alone: they are what
    /// `home` has not given out. Neither a chunk nor the memory of a vector moves, and neither changes but in `grow`.
    start: NonNull<u8>,
    len: usize,
    room: usize,
    home: Home,
}

enum Home {
    Chunk(ChunkRef),
    /// Its length stays 0 until the end.
    Vec(Vec<u8>),
}

impl TxWriter {
    /// A writer into memory of its own.
    pub fn new() -> Self {
        TxWriter { start: NonNull::dangling(), len: 0, room: 0, home: Home::Vec(Vec::new()) }
    }

    /// A writer into what is left of a chunk, of which the caller holds the only reference that fills it.
    pub(super) fn into_chunk(chunk: ChunkRef) -> Self {
        TxWriter { start: chunk.write_ptr(), len: 0, room: chunk.room(), home: Home::Chunk(chunk) }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was written from the byte `at` on.
    ///
    /// # Panics
    /// If fewer bytes were written.
    pub fn written(&self, at: usize) -> &[u8] {
        // SAFETY: so many bytes are initialised, and nobody writes to them while `self` is borrowed.
        let written = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) };
        &written[at..]
    }

    /// Writes `bytes` behind what is written.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.room - self.len {
            self.grow(bytes.len());
        }
        // SAFETY: `len + bytes.len() <= room`, all of which belongs to this writer alone.
        unsafe {
            let end = self.start.add(self.len);
            poison::show(end, bytes.len());
            end.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.len += bytes.len();
    }

    /// Goes on in a vector, with room for `more` bytes.
    #[cold]
    fn grow(&mut self, more: usize) {
        // A sum that is too large is refused by the vector: what `put` relies on never wraps.
        let wanted = self.len.saturating_add(more).saturating_mul(2);
        let mut vec = Vec::with_capacity(wanted.max(SMALLEST));
        vec.extend_from_slice(self.written(0));
        // They stay initialised behind its length, which is set at the end.
        vec.clear();
        self.hide();
        self.start = NonNull::new(vec.as_mut_ptr()).expect("a vector's memory has an address");
        self.room = vec.capacity();
        self.home = Home::Vec(vec);
    }

    /// Nothing that was written into a chunk is seen any more.
    fn hide(&self) {
        if matches!(self.home, Home::Chunk(_)) {
            poison::hide(self.start, self.len);
        }
    }

    /// The bytes that were written. No copy, unless they lie in a queue's chunk.
    pub fn into_vec(self) -> Vec<u8> {
        match self.home {
            Home::Chunk(_) => self.written(0).to_vec(),
            Home::Vec(_) => match self.end(true) {
                Written::Vec(vec) => vec,
                Written::Chunk(..) => Vec::new(),
            },
        }
    }

    /// What was written, and where. Where it is not kept, what is in the chunk will be written over.
    pub(super) fn end(self, kept: bool) -> Written {
        if !kept {
            self.hide();
        }
        match self.home {
            Home::Chunk(chunk) => Written::Chunk(chunk, self.len as u32),
            Home::Vec(mut vec) => {
                // SAFETY: so many bytes of its memory are initialised.
                unsafe { vec.set_len(self.len) };
                Written::Vec(vec)
            }
        }
    }
}

impl Default for TxWriter {
    fn default() -> Self {
        TxWriter::new()
    }
}

/// What a writer leaves.
pub(super) enum Written {
    /// So many bytes of the chunk, behind what it has given out.
    Chunk(ChunkRef, u32),
    Vec(Vec<u8>),
}

/// What a vector takes at first.
const SMALLEST: usize = 256;
