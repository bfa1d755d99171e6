//! Timers of a core: sleeps, deadlines that move lazily, intervals.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Core, CoreTime};
use crate::sockets::SockId;
use crate::timer::{Tick, TimerKey, Wheel, later};

/// What a wheel entry stands for.
#[derive(Clone, Copy)]
enum Entry {
    Sleep(u32),
    Linger(SockId),
    AcceptRetry,
    Guard,
}

/// What came due.
pub(super) enum Due {
    Wake(Waker),
    Linger(SockId),
    AcceptRetry,
}

struct Place {
    key: Option<TimerKey>,
    /// The true deadline; the wheel's may be earlier, and is moved only when it fires. They are no ticks, which
    /// would have to be worked out each time.
    deadline: CoreTime,
    armed_at: CoreTime,
    fired: bool,
    waker: Option<Waker>,
}

/// The wheel with the sleeps that stand on it.
pub(super) struct Timers {
    wheel: Wheel<Entry>,
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Timers { wheel: Wheel::new(CoreTime::default().tick_floor()), places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.wheel.next()
    }

    pub(super) fn linger(&mut self, at: Tick, id: SockId) {
        self.wheel.insert(at, Entry::Linger(id));
    }

    pub(super) fn accept_retry(&mut self, at: Tick) {
        self.wheel.insert(at, Entry::AcceptRetry);
    }

    /// An entry that only bounds the wait of a turn.
    pub(super) fn guard(&mut self, at: Tick) -> TimerKey {
        self.wheel.insert(at, Entry::Guard)
    }

    pub(super) fn release(&mut self, guard: TimerKey) {
        self.wheel.cancel(guard);
    }

    /// What is due at `now`. Sleeps whose deadline has moved are put back, not reported.
    pub(super) fn advance(&mut self, now: Tick) -> Vec<Due> {
        let mut due = Vec::new();
        let mut early = Vec::new();
        let places = &mut self.places;
        self.wheel.advance(now, &mut |_, entry| match entry {
            Entry::Sleep(index) => {
                let place = &mut places[index as usize];
                place.key = None;
                if place.deadline.tick_ceil() > now {
                    early.push(index);
                } else {
                    place.fired = true;
                    due.extend(place.waker.take().map(Due::Wake));
                }
            }
            Entry::Linger(id) => due.push(Due::Linger(id)),
            Entry::AcceptRetry => due.push(Due::AcceptRetry),
            Entry::Guard => {}
        });
        for index in early {
            self.arm(index);
        }
        due
    }

    fn arm(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        place.armed_at = place.deadline;
        place.key = Some(self.wheel.insert(place.deadline.tick_ceil(), Entry::Sleep(index)));
    }

    fn add(&mut self, deadline: CoreTime) -> u32 {
        let place = Place { key: None, deadline, armed_at: deadline, fired: false, waker: None };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize] = place;
                index
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.arm(index);
        index
    }

    fn remove(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        place.waker = None;
        if let Some(key) = place.key.take() {
            self.wheel.cancel(key);
        }
        self.free.push(index);
    }

    #[inline]
    fn move_to(&mut self, index: u32, deadline: CoreTime, now: CoreTime) {
        let place = &mut self.places[index as usize];
        place.deadline = deadline;
        // Only an earlier deadline must touch the wheel; a later one is found when the old one fires.
        if place.key.is_some() && deadline >= place.armed_at {
            return;
        }
        self.place_anew(index, now);
    }

    #[cold]
    fn place_anew(&mut self, index: u32, now: CoreTime) {
        let place = &mut self.places[index as usize];
        if let Some(key) = place.key.take() {
            self.wheel.cancel(key);
        }
        // Who resets to the same deadline before each poll must see that it has passed: on the wheel it would wake the
        // task for ever, and be put back each time. What is over when its tick has begun is over.
        let deadline = place.deadline;
        let passed = deadline.tick_ceil() <= now.tick_floor();
        self.places[index as usize].fired = passed;
        if !passed {
            self.arm(index);
        }
    }

    #[inline]
    fn poll(&mut self, index: u32, cx: &Context<'_>) -> Poll<()> {
        let place = &mut self.places[index as usize];
        if place.fired {
            return Poll::Ready(());
        }
        if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Core {
    /// Waits until `deadline`; never early, at most about 0.1 ms late on an idle core.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.sleep_to(self.time_of(deadline))
    }

    fn sleep_to(&self, deadline: CoreTime) -> Sleep {
        let place = self.0.timers.borrow_mut().add(deadline);
        Sleep { core: self.clone(), place }
    }

    /// Waits so long from the start of this turn.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_to(self.time() + duration)
    }

    /// Gives up on `future` after `duration`; it is dropped then.
    ///
    /// # Errors
    /// [`Elapsed`] when the time was over first.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut sleep = self.sleep(duration);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            sleep.poll_elapsed(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// A tick every `period`, the first one `period` from now. Ticks that were missed come as one.
    ///
    /// # Panics
    /// If `period` is zero.
    pub fn interval(&self, period: Duration) -> Interval {
        assert!(!period.is_zero(), "an interval needs a period");
        Interval { next: later(self.now(), period), period, sleep: self.sleep(period) }
    }
}

/// The time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was over")
    }
}

impl std::error::Error for Elapsed {}

/// A wait that can be moved. Dropping it takes it off the wheel.
pub struct Sleep {
    core: Core,
    place: u32,
}

impl Sleep {
    /// Moves the deadline. To a later one it costs a store: the wheel is touched when the old one fires. One that has
    /// passed makes it ready at once.
    #[inline]
    pub fn reset(&mut self, deadline: Instant) {
        self.reset_to(self.core.time_of(deadline));
    }

    /// As [`Sleep::reset`], in the core's own time.
    #[inline]
    pub fn reset_to(&mut self, deadline: CoreTime) {
        self.core.0.timers.borrow_mut().move_to(self.place, deadline, self.core.time());
    }

    /// Ready once the deadline has passed, until [`Sleep::reset`] to a later one.
    #[inline]
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.core.0.timers.borrow_mut().poll(self.place, cx)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_elapsed(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.core.0.timers.borrow_mut().remove(self.place);
    }
}

/// Regular ticks.
pub struct Interval {
    next: Instant,
    period: Duration,
    sleep: Sleep,
}

impl Interval {
    /// Waits for the next tick. Dropping the future loses none.
    pub async fn tick(&mut self) {
        std::future::poll_fn(|cx| self.sleep.poll_elapsed(cx)).await;
        // The grid's first place after now, without a walk over what was missed.
        let late = self.sleep.core.now().saturating_duration_since(self.next);
        let into_period = (late.as_nanos() % self.period.as_nanos()) as u64;
        let missed = late - Duration::from_nanos(into_period);
        self.next = later(self.next + missed, self.period);
        self.sleep.reset(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::{CoreTime, Due, Timers};
    use crate::timer::Tick;
    use std::task::{Context, Waker};
    use std::time::Duration;

    /// A task that set its deadline anew before each poll was woken by it for ever and never saw it pass.
    #[test]
    fn a_deadline_that_is_set_again_has_passed_all_the_same() {
        let at = |step: u64| CoreTime::default() + Duration::from_nanos(step << 20);
        let tick = |step: u64| Tick::from_nanos_floor(step << 20);
        let mut timers = Timers::new();
        let cx = Context::from_waker(Waker::noop());
        let sleep = timers.add(at(30));
        timers.move_to(sleep, at(10), at(0));
        assert!(timers.poll(sleep, &cx).is_pending());
        assert!(timers.advance(tick(9)).is_empty(), "early");
        assert!(matches!(timers.advance(tick(10))[..], [Due::Wake(_)]));
        for _ in 0..2 {
            timers.move_to(sleep, at(10), at(10));
            assert!(timers.poll(sleep, &cx).is_ready());
            assert!(timers.next().is_none(), "nothing is left to wake for");
        }
        timers.move_to(sleep, at(20), at(11));
        assert!(timers.poll(sleep, &cx).is_pending());
        timers.move_to(sleep, at(5), at(11));
        assert!(timers.poll(sleep, &cx).is_ready() && timers.next().is_none());
    }

    /// Only when the wheel comes to the old place is the entry put to the new one; nobody is woken for that.
    #[test]
    fn a_deadline_that_moves_on_is_followed_when_its_old_place_comes() {
        let at = |step: u64| CoreTime::default() + Duration::from_nanos(step << 20);
        let tick = |step: u64| Tick::from_nanos_floor(step << 20);
        let mut timers = Timers::new();
        let cx = Context::from_waker(Waker::noop());
        let sleep = timers.add(at(10));
        assert!(timers.poll(sleep, &cx).is_pending());
        let old = timers.next();
        for step in 1..10 {
            timers.move_to(sleep, at(10 + step), at(step));
            assert_eq!(timers.next(), old, "the wheel was touched");
        }
        assert!(timers.advance(tick(10)).is_empty() && timers.poll(sleep, &cx).is_pending());
        assert!(timers.advance(tick(18)).is_empty() && timers.poll(sleep, &cx).is_pending());
        assert!(matches!(timers.advance(tick(19))[..], [Due::Wake(_)]));
        assert!(timers.poll(sleep, &cx).is_ready());
    }
}
