//! A core as other threads see it: an inbox and a way to wake it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_task::Runnable;

use crate::core::Core;
use crate::driver::Unpark;

/// What other threads send to a core.
pub(crate) enum Message {
    /// A task of that core was woken.
    Run(Runnable),
    /// Work for the core.
    Call(Box<dyn FnOnce(&Core) + Send>),
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The shared half of a core.
pub(crate) struct Remote {
    id: u64,
    /// Set while the core may sleep; a sender that clears it must wake the core.
    parked: AtomicBool,
    waiting: AtomicBool,
    inbox: Mutex<Inbox>,
    unpark: Unpark,
}

struct Inbox {
    messages: Vec<Message>,
    closed: bool,
}

impl Remote {
    pub(crate) fn new(unpark: Unpark) -> Arc<Self> {
        Arc::new(Remote {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            parked: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            inbox: Mutex::new(Inbox { messages: Vec::new(), closed: false }),
            unpark,
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Hands a message over; false when the core has ended.
    pub(crate) fn send(&self, message: Message) -> bool {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.closed {
                match message {
                    // Only the core's thread may drop a task, and it is gone.
                    Message::Run(runnable) => std::mem::forget(runnable),
                    Message::Call(call) => drop(call),
                }
                return false;
            }
            inbox.messages.push(message);
        }
        self.notify();
        true
    }

    /// Makes the core look at its inbox and its flags soon.
    pub(crate) fn notify(&self) {
        self.waiting.store(true, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            self.unpark.unpark();
        }
    }

    /// Announces sleep; false when something came in between, so the core must look again.
    pub(crate) fn prepare_park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) {
            self.parked.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(crate) fn end_park(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Takes what has come. Costs one load when nothing has.
    pub(crate) fn take(&self, into: &mut Vec<Message>) {
        if self.waiting.load(Ordering::Relaxed) {
            self.waiting.store(false, Ordering::SeqCst);
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            into.append(&mut inbox.messages);
        }
    }

    /// No message is taken any more; those that wait are dropped here, on the core's thread.
    pub(crate) fn close(&self) {
        let left = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.closed = true;
            std::mem::take(&mut inbox.messages)
        };
        drop(left);
    }
}
