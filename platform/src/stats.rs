//! What one core counts, readable by other threads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, its core, and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the owning core calls this: it is a load and a store, not a locked instruction.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`. Only the owning core calls this.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes one off a gauge. Only the owning core calls this.
    pub fn dec(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning core calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, perhaps a moment old.
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! core_stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters and gauges of one core, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct CoreStats {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl CoreStats {
            /// Every counter with its name and its first line of documentation.
            pub fn entries(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim(), self.$name.load()),)+]
            }
        }
    };
}

core_stats! {
    /// Turns of the loop.
    turns,
    /// System calls that the driver made for the data path.
    syscalls,
    /// Completions taken from the kernel.
    completions,
    /// Submission queue found full and flushed early.
    sq_full,
    /// Completion queue overflows that were drained.
    cq_overflow,
    /// Receives that ended because the pool was empty.
    pool_starved,
    /// Multishot operations that the kernel ended early.
    multishot_ended,
    /// Sends that completed without a completion entry.
    silent_sends,
    /// Sends that the socket took only in part.
    stalled_sends,
    /// Connections accepted.
    accepted,
    /// Accepts refused for lack of descriptors (EMFILE, ENFILE).
    accept_out_of_fds,
    /// Times a listener paused.
    accept_paused,
    /// Bytes received.
    received_bytes,
    /// Bytes sent.
    sent_bytes,
    /// Bytes that went from socket to socket by splice(2); they are among those received and those sent, too.
    spliced_bytes,
    /// Completions for a slot that had moved on.
    stale_completions,
    /// Cancels asked for.
    cancels,
    /// Results released because nobody waited for them any more.
    orphans_released,
    /// Things leaked on purpose because the kernel did not let go in time.
    leaked,
    /// Sockets open now (gauge).
    open_sockets,
    /// Tasks alive now (gauge).
    tasks,
    /// Tasks that panicked.
    task_panics,
    /// Operations in flight now (gauge).
    ops_in_flight,
    /// Pool bytes that exist now (gauge).
    pool_live_bytes,
    /// Sockets that wait for a pool chunk now (gauge).
    pool_parked,
    /// Pipes for splice(2) that exist now (gauge).
    pipes,
}
