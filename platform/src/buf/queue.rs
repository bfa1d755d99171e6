//! Bytes that wait: received and not yet read, written and not yet sent.

use std::ops::Deref;

use bytes::Bytes;

use super::fifo::Fifo;
use super::pool::{ChunkRef, Pool};
use super::view::{PoolBuf, SharedBuf};
use super::write::{TxWriter, Written};

/// Received bytes in order. Neighbours in memory are joined, so a stream that arrives alone stays contiguous.
#[derive(Debug, Default)]
pub struct RxQueue {
    bufs: Fifo<PoolBuf>,
    len: usize,
}

impl RxQueue {
    /// An empty queue, which holds no memory.
    pub fn new() -> Self {
        RxQueue::default()
    }

    /// Bytes in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends received bytes; empty views are dropped.
    #[inline]
    pub fn push(&mut self, buf: PoolBuf) {
        if self.bufs.is_empty() && !buf.is_empty() {
            self.len = buf.len();
            self.bufs.push_back(buf);
        } else {
            self.push_behind(buf);
        }
    }

    fn push_behind(&mut self, buf: PoolBuf) {
        if buf.is_empty() {
            return;
        }
        self.len += buf.len();
        let rest = match self.bufs.back_mut() {
            Some(last) => last.try_unsplit(buf),
            None => Err(buf),
        };
        if let Err(buf) = rest {
            self.bufs.push_back(buf);
        }
    }

    /// Moves at most `max` bytes from the front of `other` to the end; whether any were there. No copy.
    #[inline]
    pub fn take_from(&mut self, other: &mut RxQueue, max: usize) -> bool {
        if self.is_empty() && other.len <= max {
            // The usual case, without a look at any view.
            self.len = std::mem::take(&mut other.len);
            self.bufs.append(&mut other.bufs);
            return self.len > 0;
        }
        self.take_some(other, max)
    }

    #[cold]
    fn take_some(&mut self, other: &mut RxQueue, max: usize) -> bool {
        let mut left = max;
        while left > 0
            && let Some(buf) = other.pop(left)
        {
            left -= buf.len();
            self.push(buf);
        }
        left < max
    }

    /// Puts bytes back to the front.
    pub fn push_front(&mut self, buf: PoolBuf) {
        if !buf.is_empty() {
            self.len += buf.len();
            self.bufs.push_front(buf);
        }
    }

    /// The first contiguous bytes; empty when the queue is.
    pub fn front(&self) -> &[u8] {
        self.bufs.front().map_or(&[], |buf| buf)
    }

    /// The first contiguous bytes, writable in place.
    pub fn front_mut(&mut self) -> &mut [u8] {
        self.bufs.front_mut().map_or(&mut [], |buf| buf)
    }

    /// Takes the first contiguous bytes, at most `max`.
    #[inline]
    pub fn pop(&mut self, max: usize) -> Option<PoolBuf> {
        let front = self.bufs.front_mut()?;
        let buf = if front.len() <= max { self.bufs.pop_front()? } else { front.split_to(max) };
        self.len -= buf.len();
        Some(buf)
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// If fewer wait.
    pub fn consume(&mut self, mut count: usize) {
        assert!(count <= self.len, "consume past the end");
        self.len -= count;
        while count > 0 {
            let Some(front) = self.bufs.front_mut() else { break };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.bufs.pop_front();
        }
    }

    /// Makes the first `count` bytes one view. Copies only when they lie in several.
    ///
    /// # Panics
    /// If fewer wait.
    pub fn gather(&mut self, count: usize) -> &[u8] {
        assert!(count <= self.len, "gather past the end");
        if self.front().len() < count {
            let mut joined = Vec::with_capacity(count);
            while joined.len() < count {
                let Some(front) = self.bufs.front_mut() else { break };
                let take = front.len().min(count - joined.len());
                joined.extend_from_slice(&front[..take]);
                front.advance(take);
                if front.is_empty() {
                    self.bufs.pop_front();
                }
            }
            self.bufs.push_front(PoolBuf::copied(&joined));
        }
        &self.front()[..count]
    }

    /// Takes exactly `count` bytes as one view. Copies only when they lie in several.
    ///
    /// # Panics
    /// If fewer wait.
    pub fn take(&mut self, count: usize) -> PoolBuf {
        self.gather(count);
        match self.pop(count) {
            Some(buf) => buf,
            None => PoolBuf::copied(&[]),
        }
    }

    /// Moves what lies in chunks of a pool into memory of its own, so that what waits long pins no chunk.
    ///
    /// Small neighbours are joined. What has been moved once is copied again only when many pieces have gathered.
    pub fn compact(&mut self) {
        if self.bufs.iter().all(PoolBuf::is_compact) {
            return;
        }
        let mut run: Vec<PoolBuf> = Vec::new();
        let mut run_len = 0;
        for buf in std::mem::take(&mut self.bufs).into_iter() {
            if buf.is_compact() || run_len + buf.len() > JOINED_BYTES {
                self.bufs.extend(joined(&mut run));
                run_len = 0;
            }
            if buf.is_compact() {
                self.bufs.push_back(buf);
            } else {
                run_len += buf.len();
                run.push(buf);
            }
        }
        self.bufs.extend(joined(&mut run));
        if self.bufs.len() > MAX_PIECES {
            self.join_tail();
        }
    }

    /// Joins views at the end until each is more than twice as long as the next.
    ///
    /// For bytes that wait to be more: n of them that come one by one lie in about log n views, and each is copied
    /// about log n times.
    pub fn join_tail(&mut self) {
        let (mut count, mut len) = (0, 0);
        for buf in self.bufs.iter().rev() {
            if count > 0 && buf.len() > 2 * len {
                break;
            }
            count += 1;
            len += buf.len();
        }
        if count > 1 {
            let mut tail = self.bufs.split_tail(count);
            self.bufs.extend(joined(&mut tail));
        }
    }

    /// The contiguous parts in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.bufs.iter().map(|buf| &**buf)
    }
}

/// Neighbours that are longer together stay apart when they are moved.
const JOINED_BYTES: usize = 64 * 1024;
/// Pieces above which [`RxQueue::compact`] joins those at the end.
const MAX_PIECES: usize = 16;

/// The bytes of a run, which is left empty, in memory of their own; `None` if there are none.
fn joined<T: Deref<Target = [u8]>>(run: &mut Vec<T>) -> Option<PoolBuf> {
    let buf = match run.as_slice() {
        [] => return None,
        [only] => PoolBuf::copied(only),
        several => PoolBuf::copied(&several.iter().map(|part| &**part).collect::<Vec<_>>().concat()),
    };
    run.clear();
    Some(buf)
}

/// A run of bytes to send, kept until the kernel is done with it.
#[derive(Debug)]
pub enum Seg {
    /// Received bytes passed on, or small writes gathered in the pool.
    Pool(PoolBuf),
    /// A shared view.
    Shared(SharedBuf),
    /// Reference-counted bytes of the `bytes` crate.
    Bytes(Bytes),
    /// Bytes in the program's image.
    Static(&'static [u8]),
    /// An owned vector.
    Vec(Vec<u8>),
}

impl Seg {
    fn pins_chunk(&self) -> bool {
        match self {
            Seg::Pool(buf) => !buf.is_compact(),
            Seg::Shared(buf) => !buf.is_compact(),
            Seg::Bytes(_) | Seg::Static(_) | Seg::Vec(_) => false,
        }
    }
}

impl Deref for Seg {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Seg::Pool(buf) => buf,
            Seg::Shared(buf) => buf,
            Seg::Bytes(bytes) => bytes,
            Seg::Static(bytes) => bytes,
            Seg::Vec(bytes) => bytes,
        }
    }
}

impl From<PoolBuf> for Seg {
    fn from(buf: PoolBuf) -> Self {
        Seg::Pool(buf)
    }
}

impl From<SharedBuf> for Seg {
    fn from(buf: SharedBuf) -> Self {
        Seg::Shared(buf)
    }
}

impl From<Bytes> for Seg {
    fn from(bytes: Bytes) -> Self {
        Seg::Bytes(bytes)
    }
}

impl From<&'static [u8]> for Seg {
    fn from(bytes: &'static [u8]) -> Self {
        Seg::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Seg {
    fn from(bytes: &'static [u8; N]) -> Self {
        Seg::Static(bytes)
    }
}

impl From<&'static str> for Seg {
    fn from(text: &'static str) -> Self {
        Seg::Static(text.as_bytes())
    }
}

impl From<String> for Seg {
    fn from(text: String) -> Self {
        Seg::Vec(text.into_bytes())
    }
}

impl From<Vec<u8>> for Seg {
    fn from(bytes: Vec<u8>) -> Self {
        Seg::Vec(bytes)
    }
}

/// What waits to be sent, in order. Unbounded by itself: writers wait while [`TxQueue::len`] is above their mark.
pub struct TxQueue {
    segs: Fifo<Seg>,
    /// Bytes of the first segment that have been sent. INVARIANT: below its length, or 0 when there is none.
    head_sent: usize,
    len: usize,
    pool: Pool,
}

impl TxQueue {
    /// An empty queue whose small writes are gathered in `pool`.
    pub fn new(pool: Pool) -> Self {
        TxQueue { segs: Fifo::default(), head_sent: 0, len: 0, pool }
    }

    /// Whether the pool that it writes into runs short: see [`Pool::under_pressure`].
    pub fn is_pool_short(&self) -> bool {
        self.pool.under_pressure()
    }

    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a segment without copying it; empty ones are dropped.
    #[inline]
    pub fn push(&mut self, seg: impl Into<Seg>) {
        let seg = seg.into();
        let len = seg.len();
        if self.segs.is_empty() && len > 0 {
            self.len = len;
            self.segs.push_back(seg);
        } else {
            self.push_behind(seg);
        }
    }

    fn push_behind(&mut self, mut seg: Seg) {
        if seg.is_empty() {
            return;
        }
        self.len += seg.len();
        if let Seg::Pool(next) = seg {
            if let Some(Seg::Pool(last)) = self.segs.back_mut() {
                match last.try_unsplit(next) {
                    Ok(()) => return,
                    Err(next) => seg = Seg::Pool(next),
                }
            } else {
                seg = Seg::Pool(next);
            }
        }
        self.segs.push_back(seg);
    }

    /// Appends a copy of `bytes` (heads, chunk sizes, small bodies), joined to the last small write where possible.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.push(self.pool.write_small(bytes));
        }
    }

    /// Appends what `write` writes, joined to the last small write where possible: it is written where it is sent from.
    ///
    /// # Errors
    /// What `write` says; nothing is appended then.
    #[inline]
    pub fn put_with<R, E>(&mut self, write: impl FnOnce(&mut TxWriter) -> Result<R, E>) -> Result<R, E> {
        let mut writer = self.pool.writer();
        let result = write(&mut writer);
        match writer.end(result.is_ok()) {
            Written::Chunk(chunk, len) => {
                if result.is_ok() && len > 0 {
                    self.push_written(&chunk, len);
                }
                self.pool.keep(chunk);
            }
            Written::Vec(bytes) if result.is_ok() => self.put_slice(&bytes),
            Written::Vec(_) => {}
        }
        result
    }

    /// Appends the next `len` bytes of the chunk, which a writer has just written.
    #[inline]
    fn push_written(&mut self, chunk: &ChunkRef, len: u32) {
        if let Some(Seg::Pool(last)) = self.segs.back_mut() {
            // SAFETY: the writer has initialised them and is gone, and nobody else fills this chunk.
            if unsafe { chunk.extend(last, len) } {
                self.len += len as usize;
                return;
            }
        }
        // SAFETY: the same.
        let buf = unsafe { chunk.view(len) };
        self.len += buf.len();
        self.segs.push_back(Seg::Pool(buf));
    }

    /// Removes the first `count` bytes, which have been sent.
    ///
    /// # Panics
    /// If fewer wait.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        if count == self.len {
            self.clear();
        } else {
            self.advance_in_part(count);
        }
    }

    fn advance_in_part(&mut self, mut count: usize) {
        assert!(count <= self.len, "advance past the end");
        self.len -= count;
        while count > 0 {
            let Some(front) = self.segs.front() else { break };
            let left = front.len() - self.head_sent;
            if count < left {
                self.head_sent += count;
                return;
            }
            count -= left;
            self.head_sent = 0;
            self.segs.pop_front();
        }
    }

    /// The unsent bytes in order, as the slices to hand to the kernel.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.segs.iter().enumerate().map(|(at, seg)| if at == 0 { &seg[self.head_sent..] } else { &seg[..] })
    }

    /// The unsent bytes, where they lie in one segment.
    #[inline]
    #[cfg_attr(windows, expect(dead_code, reason = "for io_uring"))]
    pub(crate) fn only_slice(&self) -> Option<&[u8]> {
        self.segs.only().map(|seg| &seg[self.head_sent..])
    }

    /// Moves everything of `other` to the end of this queue.
    #[inline]
    pub fn append(&mut self, other: &mut TxQueue) {
        if other.head_sent != 0 {
            other.settle_head();
        }
        self.len += std::mem::take(&mut other.len);
        // Without a look at any segment: the bytes themselves stay where they are.
        self.segs.append(&mut other.segs);
    }

    /// Copies segments that pin pool chunks into memory of their own, for a peer that takes long to read. Small
    /// neighbours are joined, so that what a sender of tiny pieces makes wait is not many times as long as its bytes.
    ///
    /// Only while no send is in flight: the kernel may be reading the segments.
    pub fn compact(&mut self) {
        self.settle_head();
        if !self.segs.iter().any(Seg::pins_chunk) {
            return;
        }
        let mut run: Vec<Seg> = Vec::new();
        let mut run_len = 0;
        for seg in std::mem::take(&mut self.segs).into_iter() {
            let pins = seg.pins_chunk();
            if !pins || run_len + seg.len() > JOINED_BYTES {
                self.segs.extend(joined(&mut run).map(Seg::Pool));
                run_len = 0;
            }
            if pins {
                run_len += seg.len();
                run.push(seg);
            } else {
                self.segs.push_back(seg);
            }
        }
        self.segs.extend(joined(&mut run).map(Seg::Pool));
    }

    /// Drops everything unsent.
    // Once a message that was echoed or passed on: as a call it costs twice what it does.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.head_sent = 0;
        self.len = 0;
        match self.segs.take_first() {
            // What was received and is passed on, or small, is seen most often.
            Some(Seg::Pool(buf)) => drop(buf),
            Some(other) => drop_seg(other),
            None => {}
        }
        self.segs.clear_rest();
    }

    #[cold]
    fn settle_head(&mut self) {
        if self.head_sent == 0 {
            return;
        }
        if let Some(front) = self.segs.front_mut() {
            match front {
                Seg::Pool(buf) => buf.advance(self.head_sent),
                Seg::Shared(buf) => *buf = buf.slice(self.head_sent..buf.len()),
                Seg::Bytes(bytes) => drop(bytes.split_to(self.head_sent)),
                Seg::Static(bytes) => *bytes = &bytes[self.head_sent..],
                Seg::Vec(bytes) => drop(bytes.drain(..self.head_sent)),
            }
        }
        self.head_sent = 0;
    }
}

#[inline(never)]
fn drop_seg(seg: Seg) {
    drop(seg);
}

impl std::fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TxQueue({} bytes in {} segments)", self.len, self.segs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{JOINED_BYTES, RxQueue, Seg, TxQueue};
    use crate::buf::{Pool, PoolBuf, PoolSpec};

    /// A view into a chunk of `pool` that no other view follows in memory.
    fn pooled(pool: &Pool, bytes: &[u8]) -> PoolBuf {
        let mut buf = pool.write_small(&[bytes, b"-"].concat());
        buf.truncate(bytes.len());
        buf
    }

    fn pool() -> Pool {
        Pool::new(PoolSpec { min_chunks: 0, ..PoolSpec::default() })
    }

    fn held_chunks(pool: &Pool) -> u32 {
        pool.release_idle();
        pool.usage().live_chunks - pool.usage().free_chunks
    }

    #[test]
    fn what_waits_long_pins_no_chunk_and_is_moved_once() {
        let pool = pool();
        let mut rx = RxQueue::new();
        (0..100u8).for_each(|byte| rx.push(pooled(&pool, &[byte])));
        rx.push(pooled(&pool, &vec![100; JOINED_BYTES]));
        assert_eq!((rx.parts().count(), held_chunks(&pool)), (101, 1));
        rx.compact();
        assert_eq!((rx.parts().count(), held_chunks(&pool)), (2, 0));
        let places: Vec<_> = rx.parts().map(<[u8]>::as_ptr).collect();

        rx.push(pooled(&pool, b"more"));
        rx.compact();
        assert_eq!(held_chunks(&pool), 0);
        assert_eq!(rx.parts().map(<[u8]>::as_ptr).take(2).collect::<Vec<_>>(), places);
        let bytes: Vec<u8> = rx.parts().flatten().copied().collect();
        assert_eq!(bytes[..100], (0..100u8).collect::<Vec<_>>());
        assert!(bytes[100..].iter().take(JOINED_BYTES).all(|&byte| byte == 100) && bytes.ends_with(b"more"));
        assert_eq!(rx.len(), bytes.len());
    }

    #[test]
    fn unsent_bytes_pin_no_chunk_once_compact() {
        let pool = pool();
        let mut tx = TxQueue::new(pool.clone());
        tx.push(pooled(&pool, b"sent"));
        for _ in 0..50 {
            tx.push(pooled(&pool, b"pooled"));
            tx.push(pooled(&pool, b"shared").freeze());
        }
        tx.push(&b"static"[..]);
        tx.push(pooled(&pool, b"last"));
        tx.advance(3);
        let before: Vec<u8> = tx.slices().flatten().copied().collect();
        tx.compact();
        assert_eq!((tx.slices().count(), held_chunks(&pool)), (3, 0));
        assert_eq!(tx.slices().flatten().copied().collect::<Vec<u8>>(), before);
        assert!(matches!(tx.segs.iter().nth(1), Some(Seg::Static(b"static"))));
        assert_eq!(tx.len(), before.len());
    }

    /// n views of one byte become about log n, and no byte is copied more often than that.
    #[test]
    fn a_tail_that_grows_by_bytes_stays_in_few_views() {
        let (mut rx, mut most) = (RxQueue::new(), 0);
        for byte in 0..10_000u32 {
            rx.push(PoolBuf::copied(&[byte as u8]));
            if rx.parts().nth(16).is_some() {
                rx.join_tail();
            }
            most = most.max(rx.parts().count());
        }
        assert!(most <= 32, "{most} views");
        assert!(rx.parts().flatten().copied().eq((0..10_000u32).map(|byte| byte as u8)));
    }
}
