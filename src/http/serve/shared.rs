//! What a connection's driver and the handlers of its requests share.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::Core;
use super::exchange::ExchangeError;
use crate::buf::TxQueue;
use crate::net::Peer;
use crate::proto::http_conn::{Data, HttpConn};
use crate::proto::http2::{Code, StreamId};

pub(super) struct Shared {
    pub(super) state: RefCell<State>,
    pub(super) core: Rc<Core>,
    pub(super) peer: Peer,
    pub(super) is_tls: bool,
}

impl Shared {
    /// The next piece of a body; `None` at its end.
    pub(super) fn poll_recv(
        &self,
        id: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Data>, ExchangeError>> {
        let now = self.core.now();
        let mut state = self.state();
        let state = &mut *state;
        let Some(slot) = state.slot(id) else { return Poll::Ready(Err(ExchangeError::Gone)) };
        if let Some(data) = slot.queue.pop_front() {
            slot.receiving_since = None;
            state.conn.release(id, data.len());
            state.notify();
            return Poll::Ready(Ok(Some(data)));
        }
        if slot.ended {
            return Poll::Ready(Ok(None));
        }
        if let Some(over) = slot.over {
            return Poll::Ready(Err(over.into()));
        }
        slot.receiving_since.get_or_insert(now);
        slot.receiver = Some(cx.waker().clone());
        let head_sent = slot.head_sent;
        let before = state.tx.len();
        if !head_sent {
            // It is said once, by a machine that knows whether the client waits.
            let _ = state.conn.send_continue(id, &mut state.tx);
        }
        // Waiting alone is no news: the driver goes round for news only.
        if state.tx.len() > before {
            state.notify();
        }
        Poll::Pending
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

pub(super) struct State {
    pub(super) conn: HttpConn,
    /// Written and not yet handed to the transport.
    pub(super) tx: TxQueue,
    /// By place; one whose `id` is none is free.
    pub(super) slots: Vec<Slot>,
    /// More is unsent than handlers may add to, in HTTP/1.1.
    pub(super) is_full: bool,
    pub(super) send_buffer_bytes: usize,
    pub(super) driver: Option<Waker>,
    /// The driver runs, and looks at `again` before it sleeps.
    pub(super) in_driver: bool,
    pub(super) again: bool,
    pub(super) draining: bool,
    /// Nothing more is read: what is said is sent, and the connection ends.
    pub(super) ends: bool,
    /// Everything ends now.
    pub(super) cut: bool,
}

/// A request, from its head until its exchange is dropped.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) id: Option<StreamId>,
    pub(super) queue: VecDeque<Data>,
    pub(super) trailers: Option<HeaderMap>,
    /// The request is read to its end.
    pub(super) ended: bool,
    pub(super) head_sent: bool,
    pub(super) finished: bool,
    /// The exchange is gone, and what comes is thrown away.
    pub(super) discards: bool,
    /// Bytes of the body.
    pub(super) received: u64,
    pub(super) discarded: usize,
    pub(super) over: Option<Over>,
    /// Who waits for a piece of the body.
    pub(super) receiver: Option<Waker>,
    /// Who waits for room.
    pub(super) sender: Option<Waker>,
    /// The handler's task, where it has one.
    pub(super) task: Option<Waker>,
    pub(super) begun: Option<Instant>,
    pub(super) receiving_since: Option<Instant>,
    pub(super) sending_since: Option<Instant>,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The client reset it, or is gone, or the server ends.
    Gone,
    /// The client broke the rules, or a limit: what it is told.
    Refused(StatusCode),
    /// The next piece of the body did not come in time.
    BodyTimeout,
    /// The client takes nothing.
    Stalled,
    /// It takes too long as a whole.
    Deadline,
}

impl Over {
    /// Whether the handler has no more use, whatever it waits for.
    pub(super) fn cancels(self) -> bool {
        matches!(self, Over::Gone | Over::Stalled | Over::Deadline)
    }
}

impl Slot {
    pub(super) fn wake(&mut self) {
        let waiters = [self.receiver.take(), self.sender.take()];
        waiters.into_iter().flatten().for_each(Waker::wake);
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    pub(super) fn end(&mut self, over: Over) {
        if self.over.is_none() {
            self.over = Some(over);
            self.wake();
        }
    }

    /// Bytes that wait here.
    pub(super) fn clear(&mut self) -> usize {
        self.queue.drain(..).map(|data| data.len()).sum()
    }
}

impl State {
    /// The slot of a request that has not been replaced by another.
    pub(super) fn slot(&mut self, id: StreamId) -> Option<&mut Slot> {
        self.slots.get_mut(id.place()).filter(|slot| slot.id == Some(id))
    }

    /// A fresh slot, which keeps the memory of the one before.
    pub(super) fn take_slot(&mut self, id: StreamId, now: Instant) {
        if self.slots.len() <= id.place() {
            self.slots.resize_with(id.place() + 1, Slot::default);
        }
        let slot = &mut self.slots[id.place()];
        let mut queue = std::mem::take(&mut slot.queue);
        queue.clear();
        *slot = Slot { id: Some(id), queue, begun: Some(now), ..Slot::default() };
    }

    /// Makes the driver look.
    pub(super) fn notify(&mut self) {
        if self.in_driver {
            self.again = true;
        } else if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Every request ends so.
    pub(super) fn end_all(&mut self, over: Over) {
        self.slots.iter_mut().filter(|slot| slot.id.is_some()).for_each(|slot| slot.end(over));
    }

    pub(super) fn open_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.id.is_some()).count()
    }

    /// Throws away what the client still sends of a request, up to a bound.
    pub(super) fn discard(&mut self, id: StreamId, len: usize, now: Instant) {
        self.conn.release(id, len);
        let Some(slot) = self.slot(id) else { return };
        slot.discarded += len;
        slot.receiving_since = Some(now);
        if slot.discarded > DISCARD_BYTES {
            self.stop_discarding(id);
        }
    }

    /// Ends a request that has its response, and whose rest is not worth waiting for.
    pub(super) fn stop_discarding(&mut self, id: StreamId) {
        if let Some(slot) = self.slot(id) {
            slot.id = None;
        }
        if self.conn.is_http2() {
            self.conn.reset(id, Code::NO_ERROR);
        } else {
            self.ends = true;
        }
    }
}

/// Of a body that nobody wants, before the stream or the connection is ended.
const DISCARD_BYTES: usize = 256 * 1024;
