//! Chunks, views and queues against plain vectors. Miri runs these too.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::{ChunkRef, Pool, PoolBuf, PoolSpec, RxQueue, Seg, TxQueue, TxWriter};

const SMALL: PoolSpec = PoolSpec { chunk_bytes: 4096, min_chunks: 1, max_chunks: 4 };

/// Steps of a case. Miri takes some hundred times as long.
const STEPS: usize = if cfg!(miri) { 12 } else { 60 };

/// A driver in miniature: writes into chunks and hands out views.
struct Source {
    pool: Pool,
    chunk: Option<ChunkRef>,
    next: u8,
}

impl Source {
    fn new(pool: &Pool) -> Self {
        Source { pool: pool.clone(), chunk: None, next: 0 }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                self.next = self.next.wrapping_mul(5).wrapping_add(113);
                self.next
            })
            .collect()
    }

    /// A view of new bytes, in a chunk where the pool has one, else in memory of its own.
    fn view(&mut self, bytes: &[u8]) -> PoolBuf {
        if self.chunk.as_ref().is_none_or(|chunk| chunk.room() < bytes.len()) {
            self.chunk = None;
            self.chunk = self.pool.take();
        }
        let Some(chunk) = self.chunk.as_ref() else { return PoolBuf::copied(bytes) };
        // SAFETY: the range is in no view, `chunk` is the only writer, and `receive` has checked the length.
        chunk.receive(bytes.len(), |at| unsafe {
            at.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        });
        // SAFETY: just written.
        unsafe { chunk.view(bytes.len() as u32) }
    }
}

fn all_is_back(pool: &Pool) -> bool {
    pool.release_idle();
    pool.usage().live_chunks == pool.usage().free_chunks
}

/// All that waits in a queue, and in how many pieces.
fn waiting(tx: &TxQueue) -> (Vec<u8>, usize) {
    (tx.slices().collect::<Vec<_>>().concat(), tx.slices().count())
}

fn write_one(tx: &mut TxQueue, bytes: &[u8]) {
    let put = tx.put_with(|out| {
        out.put(bytes);
        Ok::<_, ()>(())
    });
    assert_eq!(put, Ok(()));
}

#[test]
fn what_is_written_in_place_joins_what_was_written_before() {
    let pool = Pool::new(SMALL);
    let mut tx = TxQueue::new(pool.clone());
    tx.put_slice(b"a");
    let written = tx.put_with(|out| {
        assert!(out.is_empty());
        out.put(b"bc");
        out.put(b"");
        out.put(b"d");
        Ok::<_, ()>((out.len(), out.written(1).to_vec()))
    });
    assert_eq!(written, Ok((3, b"cd".to_vec())));
    let failed = tx.put_with(|out| {
        out.put(b"never");
        Err::<(), _>("fault")
    });
    assert_eq!(failed, Err("fault"));
    assert_eq!(tx.put_with(|_| Ok::<_, ()>(())), Ok(()));
    tx.put_slice(b"e");
    assert_eq!((waiting(&tx), tx.len()), ((b"abcde".to_vec(), 1), 5));

    // A queue that is written to meanwhile has a chunk of its own.
    let mut other = TxQueue::new(pool.clone());
    let both = tx.put_with(|out| {
        out.put(b"f");
        other.put_slice(b"x");
        other.put_with(|inner| {
            inner.put(b"y");
            Ok::<_, ()>(())
        })?;
        out.put(b"g");
        Ok::<_, ()>(())
    });
    assert_eq!(both, Ok(()));
    assert_eq!((waiting(&tx).0, waiting(&other).0), (b"abcdefg".to_vec(), b"xy".to_vec()));
    drop((tx, other));
    assert!(all_is_back(&pool));
}

/// Queues of one core write into one chunk in turn: what another wrote in between is no part of the last view.
#[test]
fn queues_that_share_a_chunk_keep_apart() {
    let pool = Pool::new(SMALL);
    let (mut tx, mut other) = (TxQueue::new(pool.clone()), TxQueue::new(pool.clone()));
    for _ in 0..3 {
        for (queue, text) in [(&mut tx, b"ab"), (&mut other, b"xy")] {
            for byte in text {
                write_one(queue, &[*byte]);
            }
        }
    }
    assert_eq!((waiting(&tx), waiting(&other)), ((b"ababab".to_vec(), 3), (b"xyxyxy".to_vec(), 3)));
    drop((tx, other));
    assert!(all_is_back(&pool));
}

#[test]
fn what_does_not_fit_a_chunk_is_written_all_the_same() {
    let pool = Pool::new(SMALL);
    let mut tx = TxQueue::new(pool.clone());
    let mut expected = Vec::new();
    // Past the end of a chunk again and again, and once longer than any.
    for len in (0..200).map(|at| at * 7).chain([10_000, 3]) {
        let part = vec![len as u8; len];
        let put = tx.put_with(|out| {
            part.chunks(100).for_each(|piece| out.put(piece));
            Ok::<_, ()>(out.len())
        });
        assert_eq!(put, Ok(len));
        expected.extend_from_slice(&part);
        if len % 3 == 0 {
            let count = tx.len() / 2;
            tx.advance(count);
            expected.drain(..count);
        }
        assert_eq!((waiting(&tx).0, tx.len()), (expected.clone(), expected.len()));
    }
    // At the cap of the pool, too.
    let chunks: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    let mut late = TxQueue::new(pool.clone());
    for _ in 0..2 * SMALL.chunk_bytes {
        late.put_with(|out| {
            out.put(b"z");
            Ok::<_, ()>(())
        })
        .expect("no fault");
    }
    assert!(waiting(&late).0.iter().all(|byte| *byte == b'z') && late.len() == 8192);
    drop((tx, late, chunks));
    assert!(all_is_back(&pool));
}

#[test]
fn a_writer_of_its_own_gives_a_vector() {
    let mut out = TxWriter::new();
    (0..1000u32).for_each(|at| out.put(&at.to_le_bytes()));
    assert_eq!(out.len(), 4000);
    assert_eq!(out.written(3996), 999u32.to_le_bytes());
    assert_eq!(out.into_vec(), (0..1000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
}

/// A writer into a chunk may be taken away, put in the place of another, and let go of: it is still the only one that
/// fills its chunk, and what it wrote is given out once or not at all.
#[test]
fn a_writer_that_is_carried_off_does_no_harm() {
    let (pool, other) = (Pool::new(SMALL), Pool::new(SMALL));
    let mut tx = TxQueue::new(pool.clone());
    tx.put_slice(b"a");
    let mut stolen = tx
        .put_with(|out| {
            out.put(b"stolen");
            let stolen = std::mem::take(out);
            out.put(b"b");
            Ok::<_, ()>(stolen)
        })
        .expect("no fault");
    tx.put_slice(b"c");
    assert_eq!(waiting(&tx).0, b"abc");
    stolen.put(b" and more");
    assert_eq!(stolen.written(0), b"stolen and more");

    // Both ways between two queues of two pools: each gives out what the writer it ends with has written.
    let mut far = TxQueue::new(other.clone());
    far.put_slice(b"x");
    let swapped = tx.put_with(|out| {
        out.put(b"d");
        far.put_with(|inner| {
            inner.put(b"y");
            std::mem::swap(out, inner);
            inner.put(b"e");
            Ok::<_, ()>(())
        })
    });
    assert_eq!(swapped, Ok(()));
    tx.put_slice(b"f");
    far.put_slice(b"z");
    assert_eq!((waiting(&tx).0, waiting(&far).0), (b"abcyf".to_vec(), b"xdez".to_vec()));
    // The one that was carried off writes on where it belongs, in another's place, too.
    let back = tx.put_with(|out| {
        std::mem::swap(out, &mut stolen);
        out.put(b"!");
        Ok::<_, ()>(())
    });
    assert_eq!(back, Ok(()));
    assert_eq!(waiting(&tx).0, b"abcyfstolen and more!");
    assert_eq!(stolen.into_vec(), b"");
    tx.put_slice(b"g");
    assert!(waiting(&tx).0.ends_with(b"!g"));
    drop((tx, far));
    pool.release_idle();
    other.release_idle();
    assert!(all_is_back(&pool) && all_is_back(&other));
}

#[test]
fn a_panic_while_writing_leaves_nothing_behind() {
    let pool = Pool::new(SMALL);
    let mut tx = TxQueue::new(pool.clone());
    tx.put_slice(b"a");
    // In the chunk, and when it has gone on in a vector.
    for len in [10, 10_000] {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tx.put_with(|out| -> Result<(), ()> {
                out.put(&vec![b'x'; len]);
                std::panic::resume_unwind(Box::new(len))
            })
        }));
        assert!(caught.is_err());
        assert_eq!((waiting(&tx).0, tx.len()), (b"a".to_vec(), 1));
    }
    tx.put_slice(b"b");
    write_one(&mut tx, b"c");
    assert_eq!(waiting(&tx).0, b"abc");
    drop(tx);
    assert!(all_is_back(&pool));
}

/// To the last byte of a chunk, one further, and from an end where nothing fits; a fault in each case.
#[test]
fn a_writer_meets_the_end_of_a_chunk() {
    let chunk = SMALL.chunk_bytes as usize;
    for before in [0, 1, chunk - 2, chunk - 1, chunk] {
        for len in [0, 1, 2, chunk - 1, chunk, chunk + 1] {
            for (pieces, fails) in [(1, false), (3, false), (1, true), (3, true)] {
                let pool = Pool::new(SMALL);
                let mut tx = TxQueue::new(pool.clone());
                tx.put_slice(&vec![b'a'; before]);
                let part = vec![b'p'; len];
                let result = tx.put_with(|out| {
                    part.chunks((len / pieces).max(1)).for_each(|piece| out.put(piece));
                    assert_eq!((out.len(), out.written(0)), (len, &part[..]));
                    if fails { Err(()) } else { Ok(()) }
                });
                assert_eq!(result.is_err(), fails);
                tx.put_slice(b"z");
                let kept = if fails { &[][..] } else { &part };
                let expected = [&vec![b'a'; before], kept, b"z"].concat();
                assert_eq!((waiting(&tx).0, tx.len()), (expected.clone(), expected.len()));
                // What has been sent in part is joined behind its end only.
                tx.advance(before);
                write_one(&mut tx, b"y");
                assert_eq!(waiting(&tx).0, [&expected[before..], b"y"].concat());
                drop(tx);
                assert!(all_is_back(&pool));
            }
        }
    }
}

#[test]
fn a_pool_keeps_to_its_cap_and_recovers() {
    let pool = Pool::new(SMALL);
    let mut chunks: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((chunks.len(), pool.has_room(), pool.under_pressure()), (4, false, true));
    let mut ids: Vec<_> = chunks.iter().map(ChunkRef::id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3]);
    let before = pool.returned_count();
    // SAFETY: nobody reads the view's bytes.
    let view = unsafe { chunks[0].view(10) };
    let id = chunks.remove(0).id();
    assert!(!pool.has_room(), "the view keeps its chunk");
    drop(view);
    assert_eq!(pool.returned_count(), before + 1);
    assert_eq!(pool.take().map(|chunk| (chunk.id(), chunk.room())), Some((id, 4096)), "whole again");
    drop(chunks);
    assert!(all_is_back(&pool));
    assert_eq!(pool.usage().live_chunks, 1, "the floor is kept");
}

#[test]
fn views_outlive_their_pool() {
    let pool = Pool::new(SMALL);
    let mut source = Source::new(&pool);
    let view = source.view(b"still here");
    let shared = source.view(b"and shared").freeze();
    let part = shared.slice(4..10);
    drop((source, pool, shared));
    assert_eq!((&*view, &*part), (&b"still here"[..], &b"shared"[..]));
}

#[test]
fn views_are_cut_and_joined_in_place() {
    let pool = Pool::new(SMALL);
    let mut source = Source::new(&pool);
    let mut view = source.view(b"headbody");
    let next = source.view(b"tail");
    let mut head = view.split_to(4);
    head.copy_from_slice(b"HEAD");
    assert_eq!((&*head, &*view), (&b"HEAD"[..], &b"body"[..]));
    head.try_unsplit(view).expect("neighbours");
    head.try_unsplit(next).expect("neighbours");
    assert_eq!(&*head, b"HEADbodytail");
    let stranger = PoolBuf::copied(b"x");
    assert!(head.try_unsplit(stranger).is_err());
    head.advance(4);
    head.truncate(4);
    assert_eq!(&*head.compact(), b"body");
    drop(source);
    assert!(all_is_back(&pool));
}

#[test]
fn small_writes_share_a_chunk_and_outgrow_the_pool() {
    let pool = Pool::new(SMALL);
    let mut tx = TxQueue::new(pool.clone());
    for _ in 0..100 {
        tx.put_slice(b"0123456789");
    }
    assert_eq!(tx.slices().count(), 1, "joined");
    let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    tx.put_slice(&[1; 4000]);
    tx.put_slice(&[2; 5000]);
    assert_eq!(tx.len(), 10_000);
    drop((taken, tx));
    assert!(all_is_back(&pool));
}

/// A peer that sends byte by byte while the pool is under pressure: neither many pieces nor many copies.
#[test]
fn compaction_again_and_again_stays_cheap() {
    let pool = Pool::new(SMALL);
    let mut source = Source::new(&pool);
    let mut queue = RxQueue::new();
    let (mut expected, mut moved) = (Vec::new(), 0);
    let count = if cfg!(miri) { 40 } else { 300 };
    for _ in 0..count {
        let bytes = source.bytes(1);
        queue.push(source.view(&bytes));
        expected.extend(bytes);
        let first = queue.front().as_ptr();
        queue.compact();
        moved += if queue.front().as_ptr() == first { 1 } else { queue.len() };
        assert!(queue.parts().count() <= 18, "{} pieces", queue.parts().count());
    }
    assert!(moved < count * count / 5, "{moved} bytes copied");
    assert_eq!(queue.take(count).to_vec(), expected);
    drop(source);
    assert!(all_is_back(&pool), "nothing of the queue is in the pool");
}

#[derive(Clone, Debug)]
enum RxStep {
    Push(usize),
    Copied(usize),
    PushFront(usize),
    Pop(usize),
    Consume(usize),
    Gather(usize),
    Take(usize),
    Compact,
}

fn rx_step() -> impl Strategy<Value = RxStep> {
    prop_oneof![
        6 => (0..900usize).prop_map(RxStep::Push),
        1 => (0..50usize).prop_map(RxStep::Copied),
        1 => (0..50usize).prop_map(RxStep::PushFront),
        3 => (1..700usize).prop_map(RxStep::Pop),
        2 => any::<usize>().prop_map(RxStep::Consume),
        2 => any::<usize>().prop_map(RxStep::Gather),
        2 => any::<usize>().prop_map(RxStep::Take),
        1 => Just(RxStep::Compact),
    ]
}

#[derive(Clone, Debug)]
enum TxStep {
    Push(usize, u8),
    Small(usize),
    /// With a fault where the flag is set.
    Written(usize, bool),
    Append(usize),
    Advance(usize),
    Compact,
    Clear,
}

fn tx_step() -> impl Strategy<Value = TxStep> {
    prop_oneof![
        6 => (0..900usize, 0..5u8).prop_map(|(len, kind)| TxStep::Push(len, kind)),
        4 => (0..80usize).prop_map(TxStep::Small),
        4 => (0..300usize, any::<bool>()).prop_map(|(len, fails)| TxStep::Written(len, fails)),
        2 => (0..300usize).prop_map(TxStep::Append),
        6 => any::<usize>().prop_map(TxStep::Advance),
        1 => Just(TxStep::Compact),
        1 => Just(TxStep::Clear),
    ]
}

fn drain_front(model: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    model.drain(..count).collect()
}

proptest! {
    #[test]
    fn a_receive_queue_is_a_queue_of_bytes(steps in prop::collection::vec(rx_step(), 1..STEPS)) {
        let pool = Pool::new(SMALL);
        let mut source = Source::new(&pool);
        let (mut queue, mut model) = (RxQueue::new(), VecDeque::new());
        for step in steps {
            let within = |pick: usize| pick % (model.len() + 1);
            match step {
                RxStep::Push(len) => {
                    let bytes = source.bytes(len);
                    queue.push(source.view(&bytes));
                    model.extend(bytes);
                }
                RxStep::Copied(len) => {
                    let bytes = source.bytes(len);
                    queue.push(PoolBuf::copied(&bytes));
                    model.extend(bytes);
                }
                RxStep::PushFront(len) => {
                    let bytes = source.bytes(len);
                    queue.push_front(source.view(&bytes));
                    bytes.into_iter().rev().for_each(|byte| model.push_front(byte));
                }
                RxStep::Pop(max) => {
                    let popped = queue.pop(max).map_or(Vec::new(), |buf| buf.to_vec());
                    prop_assert!(popped.len() <= max && (!popped.is_empty() || model.is_empty()));
                    prop_assert_eq!(&popped, &drain_front(&mut model, popped.len()));
                }
                RxStep::Consume(pick) => {
                    let count = within(pick);
                    queue.consume(count);
                    drain_front(&mut model, count);
                }
                RxStep::Gather(pick) => {
                    let count = within(pick);
                    let front: Vec<u8> = model.iter().take(count).copied().collect();
                    prop_assert_eq!(queue.gather(count), front);
                }
                RxStep::Take(pick) => {
                    let count = within(pick);
                    prop_assert_eq!(queue.take(count).to_vec(), drain_front(&mut model, count));
                }
                RxStep::Compact => queue.compact(),
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.parts().flatten().copied().collect::<VecDeque<u8>>(), model.clone());
        }
        drop((queue, source));
        prop_assert!(all_is_back(&pool));
    }

    #[test]
    fn a_send_queue_is_a_queue_of_bytes(steps in prop::collection::vec(tx_step(), 1..STEPS)) {
        let pool = Pool::new(SMALL);
        let mut source = Source::new(&pool);
        let (mut queue, mut model) = (TxQueue::new(pool.clone()), VecDeque::new());
        for step in steps {
            match step {
                TxStep::Push(len, kind) => {
                    let bytes = source.bytes(len);
                    let seg = match kind {
                        0 => Seg::Pool(source.view(&bytes)),
                        1 => Seg::Shared(source.view(&bytes).freeze()),
                        2 => Seg::Bytes(Bytes::from(bytes.clone())),
                        3 => Seg::Vec(bytes.clone()),
                        _ => Seg::Static(b"static"),
                    };
                    model.extend(seg.iter().copied());
                    queue.push(seg);
                }
                TxStep::Small(len) => {
                    let bytes = source.bytes(len);
                    queue.put_slice(&bytes);
                    model.extend(bytes);
                }
                TxStep::Written(len, fails) => {
                    let bytes = source.bytes(len);
                    let result = queue.put_with(|out| {
                        bytes.chunks(50).for_each(|piece| out.put(piece));
                        if fails { Err(()) } else { Ok(()) }
                    });
                    prop_assert_eq!(result.is_err(), fails);
                    model.extend(bytes.into_iter().filter(|_| !fails));
                }
                TxStep::Append(len) => {
                    let mut other = TxQueue::new(pool.clone());
                    let bytes = source.bytes(len);
                    other.push(source.view(&bytes));
                    other.push(bytes.clone());
                    other.advance(len / 2);
                    model.extend(bytes[len / 2..].iter().chain(&bytes));
                    queue.append(&mut other);
                    prop_assert!(other.is_empty());
                }
                TxStep::Advance(pick) => {
                    let count = pick % (model.len() + 1);
                    queue.advance(count);
                    drain_front(&mut model, count);
                }
                TxStep::Compact => queue.compact(),
                TxStep::Clear => {
                    queue.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.slices().flatten().copied().collect::<VecDeque<u8>>(), model.clone());
        }
        drop((queue, source));
        prop_assert!(all_is_back(&pool));
    }
}
