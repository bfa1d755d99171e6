//! Bounded channels from each core to each core. Waking the target is the caller's, once per turn and target.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Makes the ends; see [`Mesh::new`].
pub struct Mesh<T> {
    targets: Vec<Target<T>>,
    capacity: usize,
}

/// One core's end: sends to every core (itself too), receives from every core.
///
/// Dropping it drops what waits for this core; sends to it are refused from then on.
pub struct MeshEnd<T> {
    mesh: Arc<Mesh<T>>,
    core: usize,
    /// Whose messages the next drain takes first, so that no core starves another.
    first: usize,
}

struct Target<T> {
    /// Set under the lock of the queue that was filled; cleared by the owner before it looks at the queues.
    waiting: AtomicBool,
    /// By sender.
    queues: Vec<Mutex<Queue<T>>>,
}

struct Queue<T> {
    messages: VecDeque<T>,
    closed: bool,
}

impl<T> Mesh<T> {
    /// One end per core, in the order of cores; each pair holds at most `capacity` messages in each direction.
    ///
    /// Memory: `cores * cores` queues, which grow to `capacity` as they are used.
    #[expect(clippy::new_ret_no_self, reason = "a mesh exists as its ends only")]
    pub fn new(cores: usize, capacity: usize) -> Vec<MeshEnd<T>> {
        let queue = || Mutex::new(Queue { messages: VecDeque::new(), closed: false });
        let target = || Target {
            waiting: AtomicBool::new(false),
            queues: std::iter::repeat_with(queue).take(cores).collect(),
        };
        let mesh = Arc::new(Mesh { targets: std::iter::repeat_with(target).take(cores).collect(), capacity });
        (0..cores).map(|core| MeshEnd { mesh: Arc::clone(&mesh), core, first: 0 }).collect()
    }
}

impl<T> MeshEnd<T> {
    /// Which core this end belongs to.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Queues a message for `core`; one short lock, never waits for room.
    ///
    /// # Errors
    /// Gives the message back when the pair is full, or the target's end was dropped.
    ///
    /// # Panics
    /// When the mesh has no such core.
    pub fn try_send(&self, core: usize, message: T) -> Result<(), T> {
        let target = &self.mesh.targets[core];
        let mut queue = lock(&target.queues[self.core]);
        if queue.closed || queue.messages.len() >= self.mesh.capacity {
            return Err(message);
        }
        queue.messages.push_back(message);
        target.waiting.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether messages may wait for this core; one load. False is certain, for a check before sleep.
    pub fn has_messages(&self) -> bool {
        self.mesh.targets[self.core].waiting.load(Ordering::SeqCst)
    }

    /// Gives up to `limit` messages to `receive`, as (sending core, message); returns how many.
    ///
    /// Order holds per sender. Costs one load when nothing waits. What exceeds `limit`, and what is left when `receive`
    /// panics, waits on, and [`MeshEnd::has_messages`] says so.
    pub fn drain(&mut self, limit: usize, mut receive: impl FnMut(usize, T)) -> usize {
        if !self.has_messages() {
            return 0;
        }
        let Target { waiting, queues } = &self.mesh.targets[self.core];
        waiting.store(false, Ordering::SeqCst);
        let mut rearm = Rearm { waiting, needed: true };
        let mut count = 0;
        for offset in 0..queues.len() {
            let from = (self.first + offset) % queues.len();
            while count < limit {
                let Some(message) = pop(&queues[from]) else { break };
                count += 1;
                receive(from, message);
            }
        }
        rearm.needed = count >= limit;
        self.first = (self.first + 1) % queues.len();
        count
    }
}

impl<T> Drop for MeshEnd<T> {
    fn drop(&mut self) {
        for queue in &self.mesh.targets[self.core].queues {
            let left = {
                let mut queue = lock(queue);
                queue.closed = true;
                std::mem::take(&mut queue.messages)
            };
            // Outside of the lock: a message's drop may send.
            drop(left);
        }
    }
}

/// Says that messages wait, unless all queues were seen empty.
struct Rearm<'a> {
    waiting: &'a AtomicBool,
    needed: bool,
}

impl Drop for Rearm<'_> {
    fn drop(&mut self) {
        if self.needed {
            self.waiting.store(true, Ordering::SeqCst);
        }
    }
}

fn pop<T>(queue: &Mutex<Queue<T>>) -> Option<T> {
    lock(queue).messages.pop_front()
}

fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    // Nothing that can panic half-way runs under the lock, so a poisoned queue is whole.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Mesh;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_full_pair_refuses_and_others_do_not() {
        let mut ends = Mesh::new(3, 2);
        assert_eq!(ends[0].try_send(1, 'a'), Ok(()));
        assert_eq!(ends[0].try_send(1, 'b'), Ok(()));
        assert_eq!(ends[0].try_send(1, 'c'), Err('c'));
        assert_eq!(ends[2].try_send(1, 'd'), Ok(()));
        assert!(ends[1].has_messages() && !ends[0].has_messages());
        let mut got = Vec::new();
        assert_eq!(ends[1].drain(2, |from, message| got.push((from, message))), 2);
        assert!(ends[1].has_messages(), "the limit left one");
        assert_eq!(ends[1].drain(9, |from, message| got.push((from, message))), 1);
        assert_eq!(got, [(0, 'a'), (0, 'b'), (2, 'd')]);
        assert!(!ends[1].has_messages());
    }

    #[test]
    fn a_busy_sender_does_not_starve_another() {
        let mut ends = Mesh::new(2, 8);
        for _ in 0..8 {
            ends[0].try_send(0, ()).unwrap();
            ends[1].try_send(0, ()).unwrap();
        }
        let mut from = [0; 2];
        for _ in 0..4 {
            ends[0].drain(2, |core, ()| from[core] += 1);
        }
        assert_eq!(from, [4, 4]);
    }

    #[test]
    fn a_panic_in_the_receiver_hides_no_message() {
        let mut ends = Mesh::new(1, 4);
        ends[0].try_send(0, 1).unwrap();
        ends[0].try_send(0, 2).unwrap();
        let end = &mut ends[0];
        catch_unwind(AssertUnwindSafe(|| end.drain(9, |_, _| panic!("on purpose")))).unwrap_err();
        assert!(ends[0].has_messages());
        let mut got = Vec::new();
        ends[0].drain(9, |_, message| got.push(message));
        assert_eq!(got, [2]);
    }

    #[test]
    fn a_dropped_end_frees_its_messages_and_refuses_more() {
        let mut ends = Mesh::new(2, 4);
        let message = Arc::new(());
        ends[0].try_send(1, Arc::clone(&message)).unwrap();
        drop(ends.pop());
        assert_eq!(Arc::strong_count(&message), 1);
        assert!(ends[0].try_send(1, message).is_err());
    }

    #[test]
    fn threads_receive_all_in_order() {
        const COUNT: u32 = 20_000;
        let mut ends = Mesh::new(2, 16);
        let sender = ends.pop().unwrap();
        let mut receiver = ends.pop().unwrap();
        let sending = thread::spawn(move || {
            for message in 0..COUNT {
                while sender.try_send(0, message).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            let count = receiver.drain(64, |from, message| {
                assert_eq!((from, message), (1, expected));
                expected += 1;
            });
            if count == 0 {
                thread::yield_now();
            }
        }
        sending.join().unwrap();
    }
}
