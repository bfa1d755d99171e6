//! What a connection's driver and its calls share.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::call::{CallError, CallEvent};
use crate::http::http2::Http2Error;
use crate::proto::http1::BodyLen;
use crate::proto::http2::{Code, Conn, Event, Spec, StreamId};
use crate::runtime::Runtime;

pub(super) struct Shared {
    state: RefCell<State>,
    clock: Box<dyn Fn() -> Instant>,
}

pub(super) struct State {
    pub(super) conn: Conn,
    slots: Vec<Slot>,
    /// INVARIANT: a slot that is here belongs to no call.
    free: Vec<usize>,
    /// Which call a stream is, by its place, which is used again before the call of the stream before is dropped.
    of_place: Vec<Option<(StreamId, usize)>>,
    /// Since when there is no call.
    pub(super) idle_since: Option<Instant>,
    waiting: Waiting,
    pub(super) driver: Option<Waker>,
}

/// What has come of a response and is not handed out, and who waits for more.
#[derive(Default)]
pub(super) struct Slot {
    id: Option<StreamId>,
    informational: VecDeque<Response<()>>,
    head: Option<(Response<()>, BodyLen)>,
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// The response is whole.
    pub(super) is_whole: bool,
    /// [`CallEvent::End`] is handed out.
    pub(super) is_read: bool,
    /// The request is whole.
    pub(super) is_finished: bool,
    pub(super) over: Option<CallError>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

/// Who waits for a stream.
struct Waiting {
    queue: VecDeque<Waker>,
    /// Beyond so many some are likely gone: all are woken, and those that are not come again.
    max: usize,
}

impl Shared {
    pub(super) fn new<R: Runtime>(runtime: &R, spec: Spec) -> Rc<Self> {
        let now = runtime.now();
        let clock = runtime.clone();
        let state = State {
            conn: Conn::client(spec, now),
            slots: Vec::new(),
            free: Vec::new(),
            of_place: Vec::new(),
            idle_since: Some(now),
            waiting: Waiting::default(),
            driver: None,
        };
        Rc::new(Shared { state: state.into(), clock: Box::new(move || clock.now()) })
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Called by each that goes, before it is gone: behind the last one the connection ends.
    pub(super) fn leave(self: &Rc<Self>) {
        // The driver, and who goes.
        if Rc::strong_count(self) <= 2 {
            let mut state = self.state();
            state.conn.drain();
            state.notify();
        }
    }
}

impl State {
    /// A slot for a fresh stream.
    pub(super) fn take_slot(&mut self, id: StreamId) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[at].id = Some(id);
        if self.of_place.len() <= id.place() {
            self.of_place.resize(id.place() + 1, None);
        }
        self.of_place[id.place()] = Some((id, at));
        self.idle_since = None;
        at
    }

    /// The slot of a call.
    pub(super) fn slot(&mut self, at: usize) -> &mut Slot {
        debug_assert!(self.slots[at].id.is_some(), "it belongs to a call");
        &mut self.slots[at]
    }

    /// Takes a slot back from its call.
    pub(super) fn free_slot(&mut self, at: usize, now: Instant) {
        self.slots[at].clear();
        self.free.push(at);
        if self.free.len() == self.slots.len() {
            self.idle_since = Some(now);
        }
    }

    /// Makes the driver look.
    pub(super) fn notify(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Makes the driver look if there is anything for it.
    pub(super) fn notify_of_work(&self) {
        if self.conn.has_work() || !self.waiting.queue.is_empty() {
            self.notify();
        }
    }

    pub(super) fn wait_for_room(&mut self, waker: &Waker) {
        if self.waiting.push(waker) {
            self.notify();
        }
    }

    /// Wakes as many as there is room for, all when there will be none; whether it is to be called again once they have run.
    pub(super) fn wake_waiting(&mut self) -> bool {
        let room = if self.waiting.queue.is_empty() {
            0
        } else if self.conn.takes_streams() {
            self.conn.room()
        } else {
            usize::MAX
        };
        self.waiting.wake(room)
    }

    /// Gives an event to the call that it is for.
    pub(super) fn take(&mut self, event: Event) {
        let (Event::Informational { id, .. }
        | Event::Response { id, .. }
        | Event::Data { id, .. }
        | Event::Trailers { id, .. }
        | Event::End { id }
        | Event::Writable { id }
        | Event::Reset { id, .. }) = event
        else {
            return;
        };
        let at = self.of_place.get(id.place()).copied().flatten().filter(|(of, _)| *of == id);
        let slot = at.and_then(|(_, at)| self.slots.get_mut(at)).filter(|slot| slot.id == Some(id));
        let Some(slot) = slot else {
            if let Event::Data { data, .. } = event {
                self.conn.release(id, data.len());
            }
            return;
        };
        match event {
            Event::Informational { head, .. } => slot.informational.push_back(head),
            Event::Response { head, body, .. } => slot.head = Some((head, body)),
            Event::Data { data, .. } => slot.data.push_back(data),
            Event::Trailers { trailers, .. } => slot.trailers = Some(trailers),
            Event::End { .. } => slot.is_whole = true,
            Event::Writable { .. } => return slot.wake_sender(),
            Event::Reset { code, unprocessed, .. } => {
                slot.over = Some(reset(&self.conn, code, unprocessed));
                slot.wake_sender();
            }
            Event::NeedInput | Event::Request { .. } | Event::GoAway | Event::Closed => {}
        }
        slot.wake_receiver();
    }

    /// Nothing more comes: who waits is told.
    pub(super) fn end(&mut self, error: &Http2Error) {
        self.conn.close(Code::NO_ERROR);
        self.driver = None;
        for slot in &mut self.slots {
            let Some(id) = slot.id else { continue };
            let unprocessed = !self.conn.was_sent(id);
            slot.over.get_or_insert_with(|| CallError::Connection { error: error.clone(), unprocessed });
            slot.wake_receiver();
            slot.wake_sender();
        }
        self.waiting.wake(usize::MAX);
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting { queue: VecDeque::new(), max: WAITING_MIN }
    }
}

impl Waiting {
    /// Adds one; whether all before it were woken.
    fn push(&mut self, waker: &Waker) -> bool {
        if self.queue.iter().any(|other| other.will_wake(waker)) {
            return false;
        }
        let is_long = self.queue.len() >= self.max;
        if is_long {
            self.max *= 2;
            self.queue.drain(..).for_each(Waker::wake);
        }
        self.queue.push_back(waker.clone());
        is_long
    }

    /// Wakes the first `room`; whether it is to be called again, for who was woken may not want it any more.
    fn wake(&mut self, room: usize) -> bool {
        self.max = (self.queue.len() * 2).max(WAITING_MIN);
        self.queue.drain(..room.min(self.queue.len())).for_each(Waker::wake);
        room > 0 && !self.queue.is_empty()
    }
}

/// What a call is told of a stream that is no more, which may be because the connection is.
fn reset(conn: &Conn, code: Code, unprocessed: bool) -> CallError {
    let error = match conn.failure() {
        Some(error) => Some(error.into()),
        None => conn.is_over().then(|| io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    };
    match error {
        // h2 knows no code for it.
        Some(error) if code == Code::INTERNAL_ERROR => CallError::Connection { error, unprocessed },
        Some(_) | None => CallError::Reset { code, unprocessed },
    }
}

impl Slot {
    /// What is handed out next.
    pub(super) fn next(&mut self) -> Option<CallEvent> {
        if let Some(head) = self.informational.pop_front() {
            return Some(CallEvent::Informational(head));
        }
        if let Some((head, body)) = self.head.take() {
            return Some(CallEvent::Head(head, body));
        }
        if let Some(data) = self.data.pop_front() {
            return Some(CallEvent::Data(data));
        }
        if let Some(trailers) = self.trailers.take() {
            return Some(CallEvent::Trailers(trailers));
        }
        self.is_read = self.is_whole;
        self.is_whole.then_some(CallEvent::End)
    }

    /// Whether nothing is before the end, which is there.
    pub(super) fn is_at_end(&self) -> bool {
        let is_empty = self.informational.is_empty() && self.head.is_none() && self.data.is_empty();
        self.is_whole && is_empty && self.trailers.is_none()
    }

    pub(super) fn wait_to_receive(&mut self, cx: &Context<'_>) {
        wait(&mut self.receiver, cx);
    }

    pub(super) fn wait_to_send(&mut self, cx: &Context<'_>) {
        wait(&mut self.sender, cx);
    }

    fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    /// Bytes of the body that wait here.
    pub(super) fn waiting_len(&self) -> usize {
        self.data.iter().map(Bytes::len).sum()
    }

    /// As new, with the memory of the one before unless that had much to hold.
    fn clear(&mut self) {
        let Slot { informational, data, .. } = std::mem::take(self);
        if data.capacity() <= KEPT_COUNT {
            (self.data, self.informational) = (data, informational);
            self.data.clear();
            self.informational.clear();
        }
    }
}

fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// Waiting tasks that are never thought to be gone.
const WAITING_MIN: usize = 64;
/// Pieces of a body whose list is kept for the next call.
const KEPT_COUNT: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::{WAITING_MIN, Waiting};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (count.clone(), Waker::from(count))
    }

    #[test]
    fn who_waits_is_woken_in_order_and_once() {
        let mut waiting = Waiting::default();
        let tasks = [task(), task(), task()];
        let woken = || [0, 1, 2].map(|at: usize| tasks[at].0.0.load(Ordering::Relaxed));
        for (_, waker) in tasks.iter().chain(&tasks) {
            assert!(!waiting.push(waker));
        }
        assert!(!waiting.wake(0));
        assert!(waiting.wake(2));
        assert_eq!(woken(), [1, 1, 0]);
        assert!(!waiting.wake(2));
        assert_eq!(woken(), [1, 1, 1]);
    }

    /// While an origin answers nobody, tasks come, wait and go, and each left its waker.
    #[test]
    fn tasks_that_are_gone_do_not_pile_up() {
        let mut waiting = Waiting::default();
        let (count, alive) = task();
        for _ in 0..10_000 {
            let seen = count.0.load(Ordering::Relaxed);
            waiting.push(&alive);
            if waiting.push(&task().1) {
                assert_eq!(count.0.load(Ordering::Relaxed), seen + 1, "who waits still is woken");
                waiting.push(&alive);
                waiting.wake(0);
            }
            assert!(waiting.queue.len() <= WAITING_MIN * 2);
        }
        assert!(count.0.load(Ordering::Relaxed) > 100);
    }

    #[test]
    fn many_that_wait_are_not_woken_for_nothing() {
        let mut waiting = Waiting::default();
        let tasks: Vec<_> = (0..1000).map(|_| task()).collect();
        let mut passes = 0;
        while tasks.iter().filter(|(_, waker)| waiting.push(waker)).count() > 0 {
            waiting.wake(0);
            passes += 1;
            assert!(passes < 10);
        }
    }
}
