//! Who owns bytes while the kernel writes them.
//!
//! ```text
//! Free --publish--> Kernel --last byte written--> Draining --last view dropped--> Free
//! ```
//!
//! A [`Pool`] belongs to one core and hands out chunks of [`PoolSpec::chunk_bytes`]. A chunk given to a driver carries
//! one reference for the kernel; each received range becomes a [`PoolBuf`], a unique view with a reference of its own.
//! The kernel goes on writing behind the newest view, so nobody ever forms a slice over a whole chunk: views are
//! disjoint, and only a view turns its own range into a slice. When the last reference goes, the chunk returns to the
//! pool (or is freed, if the pool is gone). A run under AddressSanitizer holds us to this: there the bytes of a chunk that
//! are in no view are poisoned (`poison`).
//!
//! Bytes to send wait in a [`TxQueue`] as [`Seg`]ments; small writes are gathered in a chunk of the same pool. Bytes
//! received wait in an [`RxQueue`]. Neither makes a syscall.

mod fifo;
mod poison;
mod pool;
mod queue;
mod view;
mod write;

pub use pool::{Pool, PoolSpec, PoolUse};
pub use queue::{RxQueue, Seg, TxQueue};
pub use view::{PoolBuf, SharedBuf};
pub use write::TxWriter;

pub(crate) use pool::ChunkRef;

#[cfg(test)]
mod tests;
