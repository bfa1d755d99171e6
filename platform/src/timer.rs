//! A hierarchical timer wheel: no clock, no allocation once it has grown.
//!
//! Eight levels of 64 slots over ticks of 2^16 ns (65.5 us): level 0 holds the next 64 ticks, each level above spans 64
//! times as much, the last one 2^48 ticks, some 580 years. An entry lies on the level where its tick first differs from now;
//! when the time reaches its slot it moves down, or fires. A bitmap a level says which slots hold something, so finding
//! the next expiry and skipping empty time costs no walk.

use std::ops::Add;
use std::time::{Duration, Instant};

/// A point on the wheel's time: whole ticks of 65,536 ns since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

const TICK_SHIFT: u32 = 16;
const LEVELS: usize = 8;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;
/// The furthest distance that the wheel holds; later deadlines wait there and are placed anew.
const MAX_AHEAD: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

impl Tick {
    /// The tick that has begun at so many nanoseconds.
    pub fn from_nanos_floor(nanos: u64) -> Self {
        Tick(nanos >> TICK_SHIFT)
    }

    /// The first tick not before so many nanoseconds: a timer there never fires early.
    pub fn from_nanos_ceil(nanos: u64) -> Self {
        Tick(nanos.div_ceil(1 << TICK_SHIFT))
    }

    /// Nanoseconds at the tick's begin.
    pub fn to_nanos(self) -> u64 {
        self.0.saturating_mul(1 << TICK_SHIFT)
    }
}

/// A point in the time of one core: nanoseconds since it began. One word, where an [`Instant`] is two, which takes a call
/// to subtract; 584 years are the end of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreTime(u64);

impl CoreTime {
    /// `at` for a core that began at `started`; what was before is the beginning.
    pub(crate) fn between(started: Instant, at: Instant) -> Self {
        CoreTime::default() + at.saturating_duration_since(started)
    }

    /// The first tick not before it.
    pub(crate) fn tick_ceil(self) -> Tick {
        Tick::from_nanos_ceil(self.0)
    }

    /// The tick that has begun at it.
    pub(crate) fn tick_floor(self) -> Tick {
        Tick::from_nanos_floor(self.0)
    }

    /// What has passed since `earlier`; nothing if that is later.
    #[inline]
    pub fn duration_since(self, earlier: CoreTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for CoreTime {
    type Output = CoreTime;

    #[inline]
    fn add(self, wait: Duration) -> CoreTime {
        let nanos =
            wait.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(wait.subsec_nanos()));
        CoreTime(self.0.saturating_add(nanos))
    }
}

/// `from` and so long after it, or a century after it where no clock can show that.
pub fn later(from: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    from.checked_add(wait).unwrap_or_else(|| from + CENTURY)
}

/// Names an entry until it fires or is cancelled; stale keys are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

struct Node<T> {
    value: Option<T>,
    at: Tick,
    generation: u32,
    place: u16,
    previous: u32,
    next: u32,
}

/// The wheel. `T` says what an entry stands for.
pub struct Wheel<T> {
    now: Tick,
    nodes: Vec<Node<T>>,
    free: u32,
    heads: Box<[u32; LEVELS * SLOTS]>,
    occupied: [u64; LEVELS],
    len: usize,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel whose time begins at `now`.
    pub fn new(now: Tick) -> Self {
        let heads = Box::new([NONE; LEVELS * SLOTS]);
        Wheel { now, nodes: Vec::new(), free: NONE, heads, occupied: [0; LEVELS], len: 0 }
    }

    /// Entries on the wheel.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry; one in the past fires at the next [`Wheel::advance`].
    pub fn insert(&mut self, at: Tick, value: T) -> TimerKey {
        let index = match self.free {
            NONE => {
                let node = Node { value: None, at, generation: 0, place: 0, previous: NONE, next: NONE };
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("memory runs out before 2^32 timers")
            }
            index => {
                self.free = self.nodes[index as usize].next;
                index
            }
        };
        let node = &mut self.nodes[index as usize];
        node.value = Some(value);
        node.at = at;
        let generation = node.generation;
        self.len += 1;
        self.link(index);
        TimerKey { index, generation }
    }

    /// Takes an entry off; `None` when it has fired or was cancelled before.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.live(key)?;
        self.unlink(key.index);
        self.retire(key.index)
    }

    /// Moves an entry; false when it has fired or was cancelled.
    pub fn reset(&mut self, key: TimerKey, at: Tick) -> bool {
        if self.live(key).is_none() {
            return false;
        }
        self.unlink(key.index);
        self.nodes[key.index as usize].at = at;
        self.link(key.index);
        true
    }

    /// Moves the time on and fires everything due, slot by slot; an entry inserted from `fire` cannot be (it borrows).
    pub fn advance(&mut self, now: Tick, fire: &mut impl FnMut(TimerKey, T)) {
        while let Some(step) = self.next().filter(|step| *step <= now) {
            self.now = self.now.max(step);
            self.expire_at_now(fire);
        }
        self.now = self.now.max(now);
    }

    /// When to look again: never later than the next expiry; earlier when entries must only move down a level.
    pub fn next(&self) -> Option<Tick> {
        for level in 0..LEVELS {
            let shift = SLOT_BITS * level as u32;
            let current = (self.now.0 >> shift) % SLOTS as u64;
            let ahead = self.occupied[level].rotate_right(current as u32);
            if ahead == 0 {
                continue;
            }
            let distance = u64::from(ahead.trailing_zeros());
            let slot_start = ((self.now.0 >> shift) + distance) << shift;
            return Some(Tick(slot_start.max(self.now.0)));
        }
        None
    }

    fn live(&self, key: TimerKey) -> Option<()> {
        let node = self.nodes.get(key.index as usize)?;
        (node.generation == key.generation && node.value.is_some()).then_some(())
    }

    /// Fires or moves down what lies in the slots that begin at, or contain, the current tick.
    fn expire_at_now(&mut self, fire: &mut impl FnMut(TimerKey, T)) {
        for level in (0..LEVELS).rev() {
            let slot = ((self.now.0 >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize;
            let place = level * SLOTS + slot;
            let mut index = std::mem::replace(&mut self.heads[place], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.nodes[index as usize].next;
                let (at, generation) = (self.nodes[index as usize].at, self.nodes[index as usize].generation);
                if at > self.now {
                    self.link(index);
                } else if let Some(value) = self.retire(index) {
                    fire(TimerKey { index, generation }, value);
                }
                index = next;
            }
        }
    }

    fn place_of(&self, at: Tick) -> usize {
        let at = at.0.clamp(self.now.0, self.now.0.saturating_add(MAX_AHEAD >> 1));
        let differing = at ^ self.now.0;
        let level = (63 - (differing | 1).leading_zeros()) / SLOT_BITS;
        let level = (level as usize).min(LEVELS - 1);
        let slot = ((at >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize;
        level * SLOTS + slot
    }

    fn link(&mut self, index: u32) {
        let place = self.place_of(self.nodes[index as usize].at);
        let head = self.heads[place];
        let node = &mut self.nodes[index as usize];
        node.place = place as u16;
        node.previous = NONE;
        node.next = head;
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
        self.heads[place] = index;
        self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        let Node { place, previous, next, .. } = self.nodes[index as usize];
        let place = usize::from(place);
        if previous == NONE {
            self.heads[place] = next;
            if next == NONE {
                self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            }
        } else {
            self.nodes[previous as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
    }

    fn retire(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        node.next = free;
        self.free = index;
        self.len -= 1;
        node.value.take()
    }
}

#[cfg(test)]
mod tests {
    use super::{Tick, TimerKey, Wheel};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Reset(usize, u64),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ahead = || prop_oneof![0..200u64, 0..100_000u64, 0..1u64 << 40];
        prop_oneof![
            4 => ahead().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Cancel),
            2 => (any::<usize>(), ahead()).prop_map(|(at, ahead)| Step::Reset(at, ahead)),
            4 => prop_oneof![0..70u64, 0..5_000u64, 0..1u64 << 30].prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Every entry fires once, never early, and not later than the advance that passes it; `next` is never late.
        #[test]
        fn agrees_with_a_sorted_map(start in 0..1u64 << 40, steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Wheel::new(Tick(start));
            let mut model: BTreeMap<u32, (TimerKey, u64)> = BTreeMap::new();
            let (mut now, mut serial) = (start, 0u32);
            for step in steps {
                match step {
                    Step::Insert(ahead) => {
                        let key = wheel.insert(Tick(now + ahead), serial);
                        model.insert(serial, (key, now + ahead));
                        serial += 1;
                    }
                    Step::Cancel(pick) if !model.is_empty() => {
                        let id = *model.keys().nth(pick % model.len()).expect("in range");
                        let (key, _) = model.remove(&id).expect("chosen from the model");
                        prop_assert_eq!(wheel.cancel(key), Some(id));
                        prop_assert_eq!(wheel.cancel(key), None);
                    }
                    Step::Reset(pick, ahead) if !model.is_empty() => {
                        let id = *model.keys().nth(pick % model.len()).expect("in range");
                        let entry = model.get_mut(&id).expect("chosen from the model");
                        entry.1 = now + ahead;
                        prop_assert!(wheel.reset(entry.0, Tick(now + ahead)));
                    }
                    Step::Cancel(_) | Step::Reset(..) => {}
                    Step::Advance(by) => {
                        now += by;
                        let mut fired = Vec::new();
                        wheel.advance(Tick(now), &mut |_, id| fired.push(id));
                        for id in fired {
                            let (_, at) = model.remove(&id).expect("fires once");
                            prop_assert!(at <= now, "fired early");
                        }
                        prop_assert!(model.values().all(|(_, at)| *at > now), "one was missed");
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.values().map(|(_, at)| *at).min();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.next(), first) {
                    prop_assert!(next.0 <= first.max(now), "sleeps past a timer");
                }
            }
        }
    }

    #[test]
    fn a_million_deadlines_move_and_fire_once() {
        let mut wheel = Wheel::new(Tick(0));
        let keys: Vec<TimerKey> = (0..1_000_000u64).map(|n| wheel.insert(Tick(1 + n % 5_000), n)).collect();
        for (n, key) in keys.iter().enumerate() {
            assert!(wheel.reset(*key, Tick(10_000 + n as u64 % 777)));
        }
        let mut fired = 0;
        wheel.advance(Tick(9_999), &mut |_, _| fired += 1);
        assert_eq!(fired, 0);
        wheel.advance(Tick(10_776), &mut |_, _| fired += 1);
        assert_eq!((fired, wheel.len()), (1_000_000, 0));
    }

    #[test]
    fn fires_in_the_order_of_deadlines_on_every_level() {
        let mut wheel = Wheel::new(Tick(61));
        let deadlines: Vec<u64> = (0..47).flat_map(|bit| [(1 << bit) + 63, (1 << bit) + 4_000]).collect();
        for at in &deadlines {
            wheel.insert(Tick(*at), *at);
        }
        let mut fired = Vec::new();
        wheel.advance(Tick(1 << 48), &mut |_, at| fired.push(at));
        assert_eq!(fired.len(), deadlines.len());
        assert!(fired.is_sorted(), "{fired:?}");
    }

    #[test]
    fn a_deadline_beyond_the_wheel_waits_on_its_last_level() {
        let far = 5 << 48;
        let mut wheel = Wheel::new(Tick(7));
        wheel.insert(Tick(far), ());
        let (mut looks, mut fired) = (0, 0);
        while let Some(next) = wheel.next().filter(|next| next.0 < far) {
            wheel.advance(next, &mut |_, ()| fired += 1);
            looks += 1;
            assert!(looks < 1_000, "no progress");
        }
        assert_eq!(fired, 0, "early");
        wheel.advance(Tick(far), &mut |_, ()| fired += 1);
        assert_eq!((fired, wheel.len()), (1, 0));
    }

    #[test]
    fn a_key_is_stale_when_its_place_is_used_again() {
        let mut wheel = Wheel::new(Tick(0));
        let old = wheel.insert(Tick(5), 'a');
        wheel.advance(Tick(5), &mut |key, _| assert_eq!(key, old));
        let new = wheel.insert(Tick(9), 'b');
        assert_eq!((wheel.cancel(old), wheel.reset(old, Tick(6))), (None, false));
        assert_eq!((wheel.next(), wheel.cancel(new)), (Some(Tick(9)), Some('b')));
    }

    #[test]
    fn nanoseconds_round_away_from_early() {
        for (nanos, tick) in [(0, 0), (1, 1), (65_535, 1), (65_536, 1), (65_537, 2)] {
            assert_eq!(Tick::from_nanos_ceil(nanos), Tick(tick));
            assert!(Tick(tick).to_nanos() >= nanos);
        }
    }
}
