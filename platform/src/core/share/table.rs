//! What the shares of one listening socket have in common: who accepts, and who is given what.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::errno;
use crate::op::Errno;
use crate::sockets::ACCEPT_QUEUE_LIMIT;

/// `T` is the socket, and what it gives.
pub(super) struct Table<T>(Mutex<State<T>>);

struct State<T> {
    /// The listening socket itself, from which an acceptor has a handle; `None` once nobody takes from it any more.
    socket: Option<T>,
    shares: Vec<Share<T>>,
    /// Who is asked first, so that equals take turns.
    next: usize,
    acceptor: Option<Acceptor>,
    /// Whether there was an acceptor before.
    had_acceptor: bool,
    /// Told to one share, which has to ask again before the acceptor goes on.
    failed: Option<Errno>,
}

struct Acceptor {
    /// Of which share.
    at: usize,
    waker: Option<Waker>,
    /// Connections that it has taken and nobody had room for.
    undealt: usize,
}

struct Share<T> {
    stage: Stage,
    /// Whether it asked for connections since it was last paused.
    wanted: bool,
    /// Connections that it may still be given.
    room: usize,
    queue: VecDeque<(T, Held)>,
    waker: Option<Waker>,
    /// Connections that it was given and that have not ended.
    held: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No core has it yet.
    Unused,
    Open,
    Draining,
    Gone,
}

/// A connection among those that a share was given. Dropping it says that the connection has ended.
#[derive(Debug)]
pub(in crate::core) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the acceptor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nobody wants anything now; it is woken.
    Wait,
    /// Takes at most so many from the kernel, and deals one out if somebody has a place in the queue for it.
    Accept { room: usize, deals: bool },
    /// Takes what the kernel still has.
    Drain,
    /// Nobody is left.
    End,
}

/// Whose an acceptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The first.
    First,
    /// One before it ended with its core.
    Successor,
}

impl<T> Table<T> {
    pub(super) fn new(socket: T, count: usize) -> Self {
        let share = || Share {
            stage: Stage::Unused,
            wanted: false,
            room: usize::MAX,
            queue: VecDeque::new(),
            waker: None,
            held: Arc::default(),
        };
        Table(Mutex::new(State {
            socket: Some(socket),
            shares: std::iter::repeat_with(share).take(count).collect(),
            next: 0,
            acceptor: None,
            had_acceptor: false,
            failed: None,
        }))
    }

    /// The socket; `None` once nobody takes from it any more.
    pub(super) fn with_socket<R>(&self, call: impl FnOnce(&T) -> R) -> Option<R> {
        self.lock().socket.as_ref().map(call)
    }

    /// A core has this share now.
    pub(super) fn open(&self, at: usize) {
        self.lock().shares[at].stage = Stage::Open;
    }

    /// Makes this share's core the acceptor, where there is none: [`Table::vacate`] undoes it.
    pub(super) fn take_role(&self, at: usize) -> Option<Role> {
        let mut state = self.lock();
        if state.acceptor.is_some() || state.socket.is_none() {
            return None;
        }
        state.acceptor = Some(Acceptor { at, waker: None, undealt: 0 });
        let had = std::mem::replace(&mut state.had_acceptor, true);
        Some(if had { Role::Successor } else { Role::First })
    }

    /// The acceptor is gone; the share that is polled first takes its place. Whether all are woken to do so.
    pub(super) fn vacate(&self, wakes: bool) {
        let mut state = self.lock();
        let gone = state.acceptor.take();
        if wakes {
            state.wake_shares();
        }
        drop(state);
        drop(gone);
    }

    /// The next connection for a share, which wants more from now on.
    pub(super) fn poll_accept(&self, at: usize, cx: &Context<'_>) -> Poll<Result<(T, Held), Errno>> {
        let mut state = self.lock();
        let share = &mut state.shares[at];
        let mut changed = !std::mem::replace(&mut share.wanted, true);
        let was_full = share.queue.len() >= ACCEPT_QUEUE_LIMIT;
        let taken = share.queue.pop_front();
        changed |= was_full;
        let failed = if taken.is_none() { state.failed.take() } else { None };
        if changed || failed.is_some() {
            state.wake_acceptor();
        }
        match (taken, failed) {
            (Some(taken), _) => Poll::Ready(Ok(taken)),
            (None, Some(errno)) => Poll::Ready(Err(errno)),
            (None, None) if state.socket.is_none() => Poll::Ready(Err(Errno(errno::EINVAL))),
            (None, None) => {
                let before = state.register(at, cx);
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }

    /// What waits for a share that takes no more. While others take, that is what it was given; the last ones are given what
    /// the kernel still has. `None`: nothing is left.
    pub(super) fn poll_drain(&self, at: usize, cx: &Context<'_>) -> Poll<Result<Option<(T, Held)>, Errno>> {
        let mut state = self.lock();
        let was_full = state.shares[at].queue.len() >= ACCEPT_QUEUE_LIMIT;
        let changed = std::mem::replace(&mut state.shares[at].stage, Stage::Draining) != Stage::Draining;
        if changed || was_full {
            state.wake_acceptor();
        }
        if let Some(taken) = state.shares[at].queue.pop_front() {
            return Poll::Ready(Ok(Some(taken)));
        }
        if let Some(errno) = state.failed.take() {
            state.wake_acceptor();
            return Poll::Ready(Err(errno));
        }
        if state.socket.is_none() || !state.all_drain() {
            return Poll::Ready(Ok(None));
        }
        let before = state.register(at, cx);
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// A share wants nothing until it asks again.
    pub(super) fn pause(&self, at: usize) {
        let mut state = self.lock();
        state.shares[at].wanted = false;
        state.wake_acceptor();
    }

    /// How many connections a share may still be given.
    pub(super) fn set_room(&self, at: usize, room: usize) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.shares[at].room, room);
        // More room is found when the acceptor is woken for another reason, unless there was none.
        if room < before || (before == 0 && room > 0) {
            state.wake_acceptor();
        }
    }

    /// Connections that were taken from the kernel and wait for a share; of the acceptor's those too that nobody has yet.
    pub(super) fn queued(&self, at: usize) -> usize {
        let state = self.lock();
        let undealt = state.acceptor.as_ref().filter(|acceptor| acceptor.at == at);
        state.shares[at].queue.len() + undealt.map_or(0, |acceptor| acceptor.undealt)
    }

    /// A share is gone. What waits for it goes to the others, as far as they have room; the rest is closed. True when it was
    /// the last.
    pub(super) fn leave(&self, at: usize) -> bool {
        let mut state = self.lock();
        let share = &mut state.shares[at];
        share.stage = Stage::Gone;
        let waker = share.waker.take();
        let mut left = Vec::new();
        for (connection, held) in std::mem::take(&mut share.queue) {
            drop(held);
            if let Err(connection) = state.deal(connection) {
                left.push(connection);
            }
        }
        let is_last = state.shares.iter().all(|share| share.stage == Stage::Gone);
        let socket = if is_last { state.socket.take() } else { None };
        state.wake_acceptor();
        drop(state);
        drop((waker, left, socket));
        is_last
    }

    /// What the acceptor does next; it is woken when that changes.
    pub(super) fn plan(&self, undealt: usize, cx: &Context<'_>) -> Plan {
        let mut state = self.lock();
        let Some(acceptor) = state.acceptor.as_mut() else { return Plan::End };
        acceptor.undealt = undealt;
        let known = acceptor.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let before = if known { None } else { acceptor.waker.replace(cx.waker().clone()) };
        let plan = state.plan();
        drop(state);
        drop(before);
        plan
    }

    /// Gives a connection to the share that holds the fewest.
    ///
    /// # Errors
    /// Gives it back when nobody has room for it.
    pub(super) fn deal(&self, connection: T) -> Result<(), T> {
        self.lock().deal(connection)
    }

    /// The kernel has no more, and nobody takes from the socket from now on.
    pub(super) fn drained(&self) {
        let mut state = self.lock();
        let socket = state.socket.take();
        state.wake_shares();
        drop(state);
        drop(socket);
    }

    /// The socket has failed: whoever asks next is told.
    pub(super) fn fail(&self, errno: Errno) {
        let mut state = self.lock();
        state.failed = Some(errno);
        state.wake_shares();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn plan(&self) -> Plan {
        if self.socket.is_none() {
            return Plan::End;
        }
        if self.failed.is_some() {
            return Plan::Wait;
        }
        if self.all_drain() {
            let deals = self.shares.iter().any(Share::may_be_given);
            return if deals { Plan::Drain } else { Plan::Wait };
        }
        let wanting = self.shares.iter().filter(|share| share.stage == Stage::Open && share.wanted);
        let room = wanting.fold(0usize, |sum, share| sum.saturating_add(share.room));
        let deals = self.shares.iter().any(|share| share.stage == Stage::Open && share.may_be_given());
        Plan::Accept { room, deals }
    }

    /// Whether none of those that are left takes new connections.
    fn all_drain(&self) -> bool {
        self.shares.iter().all(|share| matches!(share.stage, Stage::Draining | Stage::Gone))
    }

    fn deal(&mut self, connection: T) -> Result<(), T> {
        let drains = self.all_drain();
        let count = self.shares.len();
        let takes = |share: &Share<T>| share.may_be_given() && (drains || share.stage != Stage::Draining);
        let from_next = (0..count).map(|offset| (self.next + offset) % count);
        // Of equals the first.
        let chosen = from_next
            .filter(|at| takes(&self.shares[*at]))
            .min_by_key(|at| self.shares[*at].held.load(Ordering::Relaxed));
        let Some(chosen) = chosen else { return Err(connection) };
        self.next = (chosen + 1) % count;
        let share = &mut self.shares[chosen];
        share.held.fetch_add(1, Ordering::Relaxed);
        share.queue.push_back((connection, Held(share.held.clone())));
        if share.room != usize::MAX {
            share.room = share.room.saturating_sub(1);
        }
        if let Some(waker) = &share.waker {
            waker.wake_by_ref();
        }
        Ok(())
    }

    /// The waker that is no longer needed: a waker's drop may end a task, which may come back here.
    fn register(&mut self, at: usize, cx: &Context<'_>) -> Option<Waker> {
        let waker = &mut self.shares[at].waker;
        let known = waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if known { None } else { waker.replace(cx.waker().clone()) }
    }

    fn wake_acceptor(&self) {
        if let Some(waker) = self.acceptor.as_ref().and_then(|acceptor| acceptor.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    fn wake_shares(&self) {
        self.shares.iter().filter_map(|share| share.waker.as_ref()).for_each(Waker::wake_by_ref);
    }
}

impl<T> Share<T> {
    fn may_be_given(&self) -> bool {
        let has_place = self.queue.len() < ACCEPT_QUEUE_LIMIT;
        match self.stage {
            Stage::Open => self.wanted && self.room > 0 && has_place,
            Stage::Draining => has_place,
            Stage::Unused | Stage::Gone => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{Held, Plan, Role, Table};
    use crate::sockets::ACCEPT_QUEUE_LIMIT;

    const CX: Context<'static> = Context::from_waker(Waker::noop());

    fn open(count: usize) -> Table<usize> {
        let table = Table::new(0, count);
        assert_eq!(table.take_role(0), Some(Role::First));
        for at in 0..count {
            table.open(at);
            assert!(table.poll_accept(at, &CX).is_pending());
        }
        table
    }

    fn take(table: &Table<usize>, at: usize) -> (usize, Held) {
        match table.poll_accept(at, &CX) {
            Poll::Ready(Ok(taken)) => taken,
            other => panic!("nothing for {at}: {other:?}"),
        }
    }

    #[test]
    fn equals_take_turns_and_the_one_with_fewest_is_preferred() {
        let table = open(3);
        (0..6).for_each(|connection| table.deal(connection).unwrap());
        let mut kept: Vec<Vec<_>> = (0..3).map(|at| vec![take(&table, at), take(&table, at)]).collect();
        assert_eq!(kept[1].iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 4]);
        // Two of one end: the next two are that share's.
        kept[2].clear();
        (6..8).for_each(|connection| table.deal(connection).unwrap());
        assert_eq!([table.queued(0), table.queued(1), table.queued(2)], [0, 0, 2]);
    }

    #[test]
    fn nobody_is_given_more_than_there_is_room_for() {
        let table = open(2);
        table.set_room(0, 1);
        table.pause(1);
        assert_eq!(table.plan(0, &CX), Plan::Accept { room: 1, deals: true });
        table.deal(1).unwrap();
        assert_eq!(table.plan(0, &CX), Plan::Accept { room: 0, deals: false });
        assert_eq!(table.deal(2), Err(2));
        table.set_room(0, usize::MAX);
        (0..ACCEPT_QUEUE_LIMIT - 1).for_each(|connection| table.deal(connection).unwrap());
        assert_eq!(table.deal(3), Err(3), "its queue is full");
        assert_eq!(table.plan(4, &CX), Plan::Accept { room: usize::MAX, deals: false });
        assert_eq!((table.queued(0), table.queued(1)), (ACCEPT_QUEUE_LIMIT + 4, 0));
        drop(take(&table, 0));
        table.deal(4).unwrap();
    }

    #[test]
    fn what_waits_for_one_that_goes_is_the_others() {
        let table = open(2);
        (0..4).for_each(|connection| table.deal(connection).unwrap());
        assert!(!table.leave(0));
        assert_eq!((table.queued(0), table.queued(1)), (0, 4));
        table.vacate(true);
        assert_eq!(table.plan(0, &CX), Plan::End, "it is no acceptor any more");
        assert_eq!(table.take_role(1), Some(Role::Successor));
        assert_eq!(table.take_role(1), None);
        assert!(table.leave(1));
        assert_eq!(table.with_socket(|_| ()), None, "it was closed");
        assert_eq!(table.plan(0, &CX), Plan::End);
    }

    #[test]
    fn the_last_that_drain_are_given_what_the_kernel_has() {
        let table = open(2);
        table.deal(1).unwrap();
        table.deal(2).unwrap();
        assert!(matches!(table.poll_drain(0, &CX), Poll::Ready(Ok(Some((1, _))))));
        assert!(matches!(table.poll_drain(0, &CX), Poll::Ready(Ok(None))), "the other takes");
        assert!(matches!(table.plan(0, &CX), Plan::Accept { .. }));
        assert!(!table.leave(0));
        assert!(matches!(table.poll_drain(1, &CX), Poll::Ready(Ok(Some((2, _))))));
        assert!(table.poll_drain(1, &CX).is_pending());
        assert_eq!(table.plan(0, &CX), Plan::Drain);
        table.deal(3).unwrap();
        table.drained();
        assert!(matches!(table.poll_drain(1, &CX), Poll::Ready(Ok(Some((3, _))))));
        assert!(matches!(table.poll_drain(1, &CX), Poll::Ready(Ok(None))));
    }

    /// One that no core has yet takes later: the kernel keeps what it has for it.
    #[test]
    fn one_that_is_not_used_yet_keeps_the_socket() {
        let table = Arc::new(Table::new(0, 2));
        table.open(0);
        assert!(matches!(table.poll_drain(0, &CX), Poll::Ready(Ok(None))));
        assert!(!table.leave(0));
        assert!(table.with_socket(|_| ()).is_some());
        assert!(table.leave(1));
    }
}
