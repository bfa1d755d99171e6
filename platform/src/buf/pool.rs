//! The chunks of one core: made on demand, kept between a floor and a cap.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use super::poison;
use super::view::PoolBuf;
use super::write::TxWriter;

/// How much memory one core's pool may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Bytes of a chunk: a power of two from 4 KiB to 1 MiB. Larger chunks keep long streams contiguous; a view of
    /// one byte keeps its whole chunk.
    pub chunk_bytes: u32,
    /// Chunks kept when idle.
    pub min_chunks: u16,
    /// Chunks at most; beyond it sockets wait for a chunk to return. At most 32,768.
    pub max_chunks: u16,
}

impl Default for PoolSpec {
    /// 128 KiB chunks, 8 kept (1 MiB), 256 at most (32 MiB a core).
    fn default() -> Self {
        PoolSpec { chunk_bytes: 128 * 1024, min_chunks: 8, max_chunks: 256 }
    }
}

/// What a pool holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Chunks that exist, in use or free.
    pub live_chunks: u32,
    /// Of those, chunks that wait to be used.
    pub free_chunks: u32,
    /// Bytes of all chunks that exist.
    pub live_bytes: u64,
    /// Bytes at most.
    pub max_bytes: u64,
}

/// The receive and small-write memory of one core. Clones share it; it never leaves its thread.
#[derive(Clone)]
pub struct Pool(Rc<PoolInner>);

impl Pool {
    /// An empty pool; chunks are made when first needed.
    ///
    /// # Panics
    /// If the spec breaks the ranges stated at its fields.
    pub fn new(spec: PoolSpec) -> Self {
        assert!(spec.chunk_bytes.is_power_of_two() && (4096..=1 << 20).contains(&spec.chunk_bytes));
        assert!(spec.max_chunks >= 2 && spec.max_chunks <= 1 << 15 && spec.min_chunks <= spec.max_chunks);
        Pool(Rc::new(PoolInner {
            spec,
            free: RefCell::new(Vec::new()),
            unused_ids: RefCell::new((0..spec.max_chunks).rev().collect()),
            live: Cell::new(0),
            returned: Cell::new(0),
            arena: Cell::new(None),
        }))
    }

    /// The limits that this pool was made with.
    pub fn spec(&self) -> PoolSpec {
        self.0.spec
    }

    /// What the pool holds now.
    pub fn usage(&self) -> PoolUse {
        let chunk_bytes = u64::from(self.0.spec.chunk_bytes);
        PoolUse {
            live_chunks: self.0.live.get(),
            free_chunks: self.0.free.borrow().len() as u32,
            live_bytes: u64::from(self.0.live.get()) * chunk_bytes,
            max_bytes: u64::from(self.0.spec.max_chunks) * chunk_bytes,
        }
    }

    /// Whether so few chunks are left that queued views should be copied out of their chunks.
    pub fn under_pressure(&self) -> bool {
        let used = self.0.live.get() - self.0.free.borrow().len() as u32;
        used * 2 > u32::from(self.0.spec.max_chunks)
    }

    /// Whether a chunk could be taken now.
    pub(crate) fn has_room(&self) -> bool {
        !self.0.free.borrow().is_empty() || self.0.live.get() < u32::from(self.0.spec.max_chunks)
    }

    /// Chunks that returned since the pool was made; a driver with parked sockets watches it change.
    pub fn returned_count(&self) -> u64 {
        self.0.returned.get()
    }

    /// A chunk nobody else holds, or `None` at the cap.
    pub(crate) fn take(&self) -> Option<ChunkRef> {
        let recycled = self.0.free.borrow_mut().pop();
        let chunk = match recycled {
            Some(chunk) => chunk,
            None => {
                let id = self.0.unused_ids.borrow_mut().pop()?;
                self.0.live.set(self.0.live.get() + 1);
                let chunk = Chunk::allocate(self.0.spec.chunk_bytes, id, Rc::downgrade(&self.0));
                // SAFETY: the chunk is new.
                unsafe { chunk.as_ref() }.hide();
                chunk
            }
        };
        // SAFETY: a chunk on the free list, or new, has no other reference.
        let header = unsafe { chunk.as_ref() };
        debug_assert_eq!(header.refs.get(), 0);
        header.refs.set(1);
        header.filled.set(0);
        Some(ChunkRef(chunk))
    }

    /// Copies `bytes` behind the small writes so far. At the pool's cap the copy gets an allocation of its own.
    pub(crate) fn write_small(&self, bytes: &[u8]) -> PoolBuf {
        let mut arena = self.0.arena.take();
        if arena.as_ref().is_none_or(|chunk| chunk.room() < bytes.len()) {
            arena = None;
            if bytes.len() <= self.0.spec.chunk_bytes as usize {
                arena = self.take();
            }
        }
        let buf = match arena.as_ref() {
            Some(chunk) => chunk.append(bytes),
            None => PoolBuf::copied(bytes),
        };
        self.0.arena.set(arena);
        buf
    }

    /// A writer behind the small writes so far; at the pool's cap one into memory of its own.
    #[inline]
    pub(super) fn writer(&self) -> TxWriter {
        match self.0.arena.take().or_else(|| self.take()) {
            Some(chunk) => TxWriter::into_chunk(chunk),
            None => TxWriter::new(),
        }
    }

    /// Takes back the chunk of a writer, for the small writes to come.
    #[inline]
    pub(super) fn keep(&self, chunk: ChunkRef) {
        self.0.arena.set(Some(chunk));
    }

    /// Lets go of the chunk that gathers small writes, so that an idle core keeps none of it.
    pub fn release_idle(&self) {
        self.0.arena.set(None);
        self.0.trim(usize::from(self.0.spec.min_chunks));
    }
}

struct PoolInner {
    spec: PoolSpec,
    free: RefCell<Vec<NonNull<Chunk>>>,
    unused_ids: RefCell<Vec<u16>>,
    live: Cell<u32>,
    returned: Cell<u64>,
    /// The chunk that gathers small writes. None while one is being written.
    arena: Cell<Option<ChunkRef>>,
}

impl PoolInner {
    fn put_back(&self, chunk: NonNull<Chunk>) {
        // SAFETY: the last reference just went; the pool is the chunk's only owner.
        unsafe { chunk.as_ref() }.hide();
        self.returned.set(self.returned.get() + 1);
        self.free.borrow_mut().push(chunk);
        // Half of what is live may wait, never less than the floor: a burst is kept warm, an old peak is given back.
        let keep = usize::from(self.spec.min_chunks).max(self.live.get() as usize / 2);
        self.trim(keep);
    }

    fn trim(&self, keep: usize) {
        let mut free = self.free.borrow_mut();
        while free.len() > keep {
            let Some(chunk) = free.pop() else { break };
            // SAFETY: chunks on the free list have no reference left; the pool is their only owner.
            unsafe {
                self.unused_ids.borrow_mut().push(chunk.as_ref().id);
                Chunk::free(chunk);
            }
            self.live.set(self.live.get() - 1);
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        for chunk in self.free.get_mut().drain(..) {
            // SAFETY: as in `trim`. Chunks with views free themselves when the last view goes.
            unsafe { Chunk::free(chunk) };
        }
    }
}

/// A run of bytes with a count of who may still look at it.
pub(crate) struct Chunk {
    base: NonNull<u8>,
    len: u32,
    /// Views, plus one while a driver or the small-write arena holds the chunk.
    refs: Cell<u32>,
    /// Bytes from the start that have been given out as views. INVARIANT: `filled <= len`.
    filled: Cell<u32>,
    id: u16,
    pool: Weak<PoolInner>,
}

const CHUNK_ALIGN: usize = 64;
/// The number of every chunk outside a pool; `PoolSpec::max_chunks` keeps the others below it.
const STANDALONE: u16 = u16::MAX;

impl Chunk {
    fn allocate(len: u32, id: u16, pool: Weak<PoolInner>) -> NonNull<Chunk> {
        let layout = Self::layout(len);
        // SAFETY: the layout has a non-zero size (`layout` rounds zero up).
        let Some(base) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let chunk = Box::new(Chunk { base, len, refs: Cell::new(0), filled: Cell::new(0), id, pool });
        NonNull::from(Box::leak(chunk))
    }

    /// A chunk outside every pool, filled with `bytes`, with one reference.
    pub(super) fn standalone(bytes: &[u8]) -> NonNull<Chunk> {
        let len = u32::try_from(bytes.len()).expect("callers split copies at 4 GiB");
        let chunk = Self::allocate(len, STANDALONE, Weak::new());
        // SAFETY: the chunk is new and `len` bytes long; nobody else can see it.
        unsafe {
            let header = chunk.as_ref();
            header.base.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            header.refs.set(1);
            header.filled.set(len);
        }
        chunk
    }

    fn layout(len: u32) -> Layout {
        Layout::from_size_align((len as usize).max(1), CHUNK_ALIGN).expect("a chunk is at most 4 GiB")
    }

    /// # Safety
    /// No reference to the chunk may be left, and it is not used again.
    unsafe fn free(chunk: NonNull<Chunk>) {
        // SAFETY: made by `Box::leak` in `allocate`; the caller gives up the last pointer.
        let chunk = unsafe { Box::from_raw(chunk.as_ptr()) };
        poison::show(chunk.base, chunk.len as usize);
        // SAFETY: `base` came from `alloc` with this layout.
        unsafe { dealloc(chunk.base.as_ptr(), Self::layout(chunk.len)) };
    }

    fn hide(&self) {
        poison::hide(self.base, self.len as usize);
    }

    pub(super) fn is_standalone(&self) -> bool {
        self.id == STANDALONE
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn retain(&self) {
        self.refs.set(self.refs.get() + 1);
    }

    /// # Safety
    /// The caller gives up one reference that it owned.
    #[inline]
    pub(super) unsafe fn release(chunk: NonNull<Chunk>) {
        // SAFETY: the caller's reference keeps the chunk alive up to here.
        let header = unsafe { chunk.as_ref() };
        let left = header.refs.get() - 1;
        header.refs.set(left);
        if left == 0 {
            // SAFETY: that was the last reference.
            unsafe { Self::give_back(chunk) };
        }
    }

    /// # Safety
    /// No reference to the chunk is left.
    #[cold]
    unsafe fn give_back(chunk: NonNull<Chunk>) {
        // SAFETY: only the pool, or this function, frees the chunk, and neither has.
        let pool = unsafe { chunk.as_ref() }.pool.upgrade();
        match pool {
            Some(pool) => pool.put_back(chunk),
            // SAFETY: no pool knows the chunk, and the caller says that nobody else does.
            None => unsafe { Chunk::free(chunk) },
        }
    }
}

/// The reference of a driver, or of the small-write arena, to a chunk that is being filled.
pub(crate) struct ChunkRef(NonNull<Chunk>);

impl ChunkRef {
    fn header(&self) -> &Chunk {
        // SAFETY: `self` owns a reference, so the header lives.
        unsafe { self.0.as_ref() }
    }

    /// The number of the chunk in its pool, below `max_chunks`.
    #[cfg_attr(all(windows, not(test)), expect(dead_code, reason = "for io_uring"))]
    pub(crate) fn id(&self) -> u16 {
        self.header().id
    }

    /// Bytes that have not been given out as views.
    pub(crate) fn room(&self) -> usize {
        (self.header().len - self.header().filled.get()) as usize
    }

    /// Where the next byte goes. Only the holder of this reference, or the kernel on its behalf, writes there.
    pub(crate) fn write_ptr(&self) -> NonNull<u8> {
        let filled = self.header().filled.get() as usize;
        // SAFETY: `filled <= len`, so the offset stays inside the allocation.
        unsafe { self.header().base.add(filled) }
    }

    /// Lets `write` put up to `len` bytes at [`ChunkRef::write_ptr`]; nobody may touch them before or after it without a
    /// view.
    ///
    /// # Panics
    /// If there is less room.
    pub(crate) fn receive<R>(&self, len: usize, write: impl FnOnce(NonNull<u8>) -> R) -> R {
        assert!(len <= self.room());
        poison::show(self.write_ptr(), len);
        let result = write(self.write_ptr());
        poison::hide(self.write_ptr(), len);
        result
    }

    /// Turns the next `len` bytes, which have been written, into a view.
    ///
    /// # Safety
    /// The bytes from [`ChunkRef::write_ptr`] on must be initialised, and nobody writes to them any more.
    pub(crate) unsafe fn view(&self, len: u32) -> PoolBuf {
        let off = self.header().filled.get();
        assert!(len as usize <= self.room(), "the kernel wrote past the end of a chunk");
        poison::show(self.write_ptr(), len as usize);
        self.header().filled.set(off + len);
        self.header().retain();
        // SAFETY: the reference for the view was just taken; the range is inside the chunk and in no other view.
        unsafe { PoolBuf::from_parts(self.0, off, len) }
    }

    /// As [`ChunkRef::view`], for bytes that `last` may end in front of: it is made longer then. False where it does not.
    ///
    /// # Safety
    /// As [`ChunkRef::view`].
    #[inline]
    pub(super) unsafe fn extend(&self, last: &mut PoolBuf, len: u32) -> bool {
        let filled = self.header().filled.get();
        // SAFETY: the caller's promise; the bytes are in no other view.
        let extended = len as usize <= self.room() && unsafe { last.extend_in(self.0, filled, len) };
        if extended {
            poison::show(self.write_ptr(), len as usize);
            self.header().filled.set(filled + len);
        }
        extended
    }

    fn append(&self, bytes: &[u8]) -> PoolBuf {
        assert!(bytes.len() <= self.room());
        // SAFETY: the range behind `filled` is inside the chunk, in no view, and this arena is its only writer.
        unsafe {
            self.receive(bytes.len(), |at| {
                at.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            });
            self.view(bytes.len() as u32)
        }
    }
}

impl Drop for ChunkRef {
    fn drop(&mut self) {
        // SAFETY: `self` owned one reference.
        unsafe { Chunk::release(self.0) };
    }
}
