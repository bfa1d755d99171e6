//! A task: a future in one allocation with what it takes to wake it, from its own thread and from others.
//!
//! ```text
//! asleep --wake, own thread--> queued (run queue) --------------------+--poll: pending--> asleep
//!   |                                                                 |
//!   +--wake, another thread--> posted (inbox) --taken--> queued ------+--poll: ready, panic; end--> done
//! ```
//!
//! Who owns what: the core's list of the living holds one reference until the task is done, and each waker and each
//! message in an inbox holds one. The run queue holds none of its own: a task that ends while it stands there leaves it
//! the reference of the living. The future is polled and dropped on its own thread only, before the reference of the
//! living goes; what is freed elsewhere is plain memory.
//!
//! Why not a crate for it: a wake on the own thread, the way of nearly all, needs no locked instruction here, where a
//! task that may move between threads takes four for each time that it runs.

use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::Local;
use crate::remote::{Message, Remote};

/// What every task begins with, whatever its future is.
pub(super) struct Header {
    vtable: &'static VTable,
    refs: AtomicUsize,
    /// It is in an inbox, or about to be.
    posted: AtomicBool,
    home: u64,
    remote: Arc<Remote>,
    /// Bits of [`state`]. Touched by the task's own thread only, as is the next.
    state: Cell<u8>,
    /// Its place in the list of the living.
    pub(super) place: Cell<usize>,
}

mod state {
    /// It stands in the run queue.
    pub(super) const QUEUED: u8 = 1;
    /// Its future is being polled.
    pub(super) const BUSY: u8 = 2;
    /// Its turn came while it was busy.
    pub(super) const AGAIN: u8 = 4;
    /// It is to end without another poll.
    pub(super) const ABORTED: u8 = 8;
    /// Its future is gone.
    pub(super) const DONE: u8 = 16;
}

impl Header {
    fn is(&self, bits: u8) -> bool {
        self.state.get() & bits != 0
    }

    fn set(&self, bits: u8) {
        self.state.set(self.state.get() | bits);
    }

    fn unset(&self, bits: u8) {
        self.state.set(self.state.get() & !bits);
    }
}

struct VTable {
    /// Polls the future.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future in place.
    drop_future: unsafe fn(NonNull<Header>),
    /// Frees the memory, without the future.
    free: unsafe fn(NonNull<Header>),
}

/// INVARIANT: `header` comes first, so that a pointer to it is one to the whole.
#[repr(C)]
struct Task<F> {
    header: Header,
    future: UnsafeCell<ManuallyDrop<F>>,
}

/// One reference to a task. Any thread may hold and drop it; only the own thread uses what is behind it.
pub(crate) struct TaskRef(NonNull<Header>);

// SAFETY: a reference that another thread holds is only dropped there, or posted: both touch atomics, `remote`, which is
// `Sync`, and in the end free memory whose future is gone (see the module).
unsafe impl Send for TaskRef {}

impl TaskRef {
    /// A task for the core behind `remote`, with the reference of the living. `future` must not panic.
    pub(super) fn new<F: Future<Output = ()> + 'static>(future: F, remote: Arc<Remote>) -> TaskRef {
        let header = Header {
            vtable: &VTable { poll: poll::<F>, drop_future: drop_future::<F>, free: free::<F> },
            refs: AtomicUsize::new(1),
            posted: AtomicBool::new(false),
            home: remote.id(),
            remote,
            state: Cell::new(0),
            place: Cell::new(usize::MAX),
        };
        let future = UnsafeCell::new(ManuallyDrop::new(future));
        let task = Box::new(Task { header, future });
        TaskRef(NonNull::from(Box::leak(task)).cast())
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: `self` holds a reference, so the memory is there; nothing forms a `&mut` to it.
        unsafe { self.0.as_ref() }
    }

    /// Makes the task run soon. Its own thread only.
    pub(super) fn schedule(&self, local: &Local) {
        schedule(self.0, local);
    }

    /// What an inbox has brought. Its own thread only.
    pub(super) fn arrive(self, local: &Local) {
        // Before it runs: a wake from now on posts it again. The swap takes in what those before have published.
        self.header().posted.swap(false, Ordering::AcqRel);
        self.schedule(local);
    }

    /// Ends the task when it runs next. Its own thread only.
    pub(super) fn abort(&self, local: &Local) {
        self.header().set(state::ABORTED);
        self.schedule(local);
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        retain(self.header());
        TaskRef(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        // SAFETY: `self` owned one reference.
        unsafe { release(self.0) };
    }
}

/// A task in the run queue: kept alive by the living, or by what they left it.
#[derive(Clone, Copy)]
pub(super) struct TaskPtr(NonNull<Header>);

/// What became of a task that had its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// It goes on.
    Waits,
    /// It is done: take it off the list of the living and call [`TaskPtr::bury`].
    Ended,
    /// It was done before.
    Gone,
}

impl TaskPtr {
    fn header(&self) -> &Header {
        // SAFETY: by the type's contract the task is alive.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn place(self) -> usize {
        self.header().place.get()
    }

    /// Polls the task, or ends it if that was asked for.
    ///
    /// # Safety
    /// It was taken off the run queue of the calling thread, which is the task's own, and is not used after [`Ran::Gone`].
    #[inline]
    pub(super) unsafe fn run(self, local: &Local) -> Ran {
        let header = self.header();
        debug_assert!(header.is(state::QUEUED));
        if header.state.get() != state::QUEUED {
            // SAFETY: the caller's promise.
            return unsafe { self.run_odd(local) };
        }
        header.state.set(state::BUSY);
        // SAFETY: the waker borrows the reference of the living, which stays for this call; it is not dropped.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(self.0)) });
        // SAFETY: the own thread, not done, and not being polled already.
        let poll = unsafe { (header.vtable.poll)(self.0, &mut Context::from_waker(&waker)) };
        header.unset(state::BUSY);
        if poll.is_ready() || header.is(state::ABORTED) {
            // SAFETY: as above, and it is not being polled any more.
            return unsafe { self.end() };
        }
        if header.is(state::AGAIN) {
            header.unset(state::AGAIN);
            schedule(self.0, local);
        }
        Ran::Waits
    }

    /// The turn of a task that is not simply to be polled.
    ///
    /// # Safety
    /// As [`TaskPtr::run`].
    #[cold]
    unsafe fn run_odd(self, local: &Local) -> Ran {
        let header = self.header();
        header.unset(state::QUEUED);
        if header.is(state::DONE) {
            // SAFETY: the living left their reference to the run queue, and this was its place there.
            unsafe { release(self.0) };
            return Ran::Gone;
        }
        if header.is(state::BUSY) {
            // A poll further up the stack turns the core; the turn comes when that has returned.
            header.set(state::AGAIN);
            return Ran::Waits;
        }
        if header.is(state::ABORTED) {
            // SAFETY: the own thread, not done, and not being polled.
            return unsafe { self.end() };
        }
        debug_assert!(false, "a state without a meaning");
        schedule(self.0, local);
        Ran::Waits
    }

    /// # Safety
    /// The own thread; not done before, and not being polled.
    #[cold]
    unsafe fn end(self) -> Ran {
        let header = self.header();
        header.set(state::DONE);
        // SAFETY: nobody polls it, now or later, and it is dropped once.
        unsafe { (header.vtable.drop_future)(self.0) };
        Ran::Ended
    }

    /// Gives up the reference of the living, or leaves it to the run queue if the task stands there.
    ///
    /// # Safety
    /// The task is done, the caller took it off the list of the living, and uses it no more.
    pub(super) unsafe fn bury(self) {
        if !self.header().is(state::QUEUED) {
            // SAFETY: the caller's reference.
            unsafe { release(self.0) };
        }
    }
}

#[inline]
fn schedule(task: NonNull<Header>, local: &Local) {
    // SAFETY: the caller has a reference.
    let header = unsafe { task.as_ref() };
    if !header.is(state::QUEUED | state::DONE) {
        header.set(state::QUEUED);
        local.push(TaskPtr(task));
    }
}

fn retain(header: &Header) {
    let before = header.refs.fetch_add(1, Ordering::Relaxed);
    assert!(before <= usize::MAX / 2, "wakers are leaked without end");
}

/// # Safety
/// The caller owned one reference, and uses it no more.
unsafe fn release(task: NonNull<Header>) {
    // SAFETY: the caller's reference keeps it alive up to here.
    let header = unsafe { task.as_ref() };
    if header.refs.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire);
        let free = header.vtable.free;
        // SAFETY: that was the last reference. The living give theirs up when the future is gone.
        unsafe { free(task) };
    }
}

/// # Safety
/// The task's own thread; its future is not gone and not being polled.
unsafe fn poll<F: Future<Output = ()>>(task: NonNull<Header>, cx: &mut Context<'_>) -> Poll<()> {
    // SAFETY: a task of `F` by the vtable it is called from. Nobody else looks at the future, which stays where it is
    // until it is dropped: it is pinned.
    unsafe {
        let future: &mut F = &mut *future_of(task);
        Pin::new_unchecked(future).poll(cx)
    }
}

/// # Safety
/// A task of `F` whose memory is there.
unsafe fn future_of<F>(task: NonNull<Header>) -> *mut ManuallyDrop<F> {
    // SAFETY: a field's place, without a reference to what lies there.
    UnsafeCell::raw_get(unsafe { &raw const (*task.cast::<Task<F>>().as_ptr()).future })
}

/// # Safety
/// As [`poll`], and the future is not used again.
unsafe fn drop_future<F>(task: NonNull<Header>) {
    // SAFETY: as in `poll`.
    unsafe { ManuallyDrop::drop(&mut *future_of::<F>(task)) };
}

/// # Safety
/// No reference to the task is left.
unsafe fn free<F>(task: NonNull<Header>) {
    // SAFETY: made by `Box::leak` in `new`; the future in it is not dropped with it.
    drop(unsafe { Box::from_raw(task.cast::<Task<F>>().as_ptr()) });
}

const WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

fn raw_waker(task: NonNull<Header>) -> RawWaker {
    RawWaker::new(task.as_ptr().cast_const().cast(), &WAKER)
}

/// # Safety
/// `data` comes from [`raw_waker`].
unsafe fn task_of(data: *const ()) -> NonNull<Header> {
    // SAFETY: it was made from a `NonNull`.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: the waker holds or borrows a reference.
    unsafe {
        let task = task_of(data);
        retain(task.as_ref());
        raw_waker(task)
    }
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker gives up its reference.
    unsafe {
        wake_by_ref(data);
        drop_waker(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker holds or borrows a reference.
    let task = unsafe { task_of(data) };
    // SAFETY: the same.
    let header = unsafe { task.as_ref() };
    Local::with(|local| match local {
        Some(local) if local.id == header.home => schedule(task, local),
        _ => post(task, header),
    });
}

/// A wake from another thread, or after the end of the core.
#[cold]
fn post(task: NonNull<Header>, header: &Header) {
    // The swap comes after what the waker has published, and before the core looks at it.
    if !header.posted.swap(true, Ordering::AcqRel) {
        retain(header);
        header.remote.send(Message::Run(TaskRef(task)));
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker gives up its reference.
    unsafe { release(task_of(data)) };
}
