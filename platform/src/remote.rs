//! A core as other threads see it: an inbox and a way to wake it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::Core;
use crate::driver::Unpark;
use crate::exec::TaskRef;
use crate::park::{Inbox, Parker, Unparker};

/// What other threads send to a core.
pub(crate) enum Message {
    /// A task of that core was woken.
    Run(TaskRef),
    /// Work for the core.
    Call(Box<dyn FnOnce(&Core) + Send>),
}

/// How a sleeping core is woken.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The shared half of a core.
pub(crate) struct Remote {
    id: u64,
    inbox: Inbox<Message>,
    unparker: Unparker<Wake>,
}

impl Remote {
    /// The shared half, and the sleeping side for the core's thread.
    pub(crate) fn new(unpark: Unpark) -> (Arc<Self>, Parker<Wake>) {
        let wake: Wake = Box::new(move || unpark.unpark());
        let parker = Parker::new(wake);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // A task is in the inbox at most once, so what waits is bounded by the tasks alive and the calls in flight.
        let remote = Remote { id, inbox: Inbox::new(usize::MAX), unparker: parker.unparker() };
        (Arc::new(remote), parker)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Hands a message over; false when the core has ended.
    pub(crate) fn send(&self, message: Message) -> bool {
        let sent = self.inbox.send(message).is_ok();
        if sent {
            self.unparker.unpark();
        }
        sent
    }

    /// Makes the core look at its flags soon.
    pub(crate) fn notify(&self) {
        self.unparker.unpark();
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.inbox.has_messages()
    }

    /// Takes what has come. Costs one load when nothing has.
    pub(crate) fn take(&self, into: &mut Vec<Message>) {
        self.inbox.take(into);
    }

    /// No message is taken any more; those that wait are dropped here, on the core's thread.
    pub(crate) fn close(&self) {
        drop(self.inbox.close());
    }
}
