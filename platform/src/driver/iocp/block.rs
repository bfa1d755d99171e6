//! Blocks: what the kernel writes to while an overlapped call pends.
//!
//! ```text
//! Free --take--> Kernel --its packet, or the end at once without one: put_back--> Free
//! ```
//!
//! A block never moves and is freed with the slab, or never. Which operation one is for, is kept beside it, so that nothing
//! but the kernel touches a block between `take` and its end.

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::op::OpKind;

/// Whose an overlapped call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// An operation of this kind of a slot.
    Slot(u32, OpKind),
    /// Nobody's: its socket was closed while it pended.
    Nobody,
}

/// The OVERLAPPED stands first, so that a packet's pointer is one to its block.
#[repr(C)]
struct Block {
    overlapped: UnsafeCell<OVERLAPPED>,
    id: u32,
}

#[derive(Default)]
pub(super) struct Blocks {
    /// INVARIANT: from `Box::leak`, freed in `drop` unless something pends.
    all: Vec<NonNull<Block>>,
    owners: Vec<Owner>,
    free: Vec<u32>,
}

impl Blocks {
    /// A block for a call that is about to be made. No allocation once as many have pended at a time before.
    pub(super) fn take(&mut self, owner: Owner) -> u32 {
        // SAFETY: integers, of which all zeroes are values.
        let overlapped: OVERLAPPED = unsafe { std::mem::zeroed() };
        if let Some(id) = self.free.pop() {
            // SAFETY: a free block is ours alone.
            unsafe { *self.overlapped(id) = overlapped };
            self.owners[id as usize] = owner;
            return id;
        }
        let id = self.all.len() as u32;
        self.all.push(NonNull::from(Box::leak(Box::new(Block { overlapped: overlapped.into(), id }))));
        self.owners.push(owner);
        id
    }

    /// What the kernel takes for the name of the call.
    pub(super) fn overlapped(&self, id: u32) -> *mut OVERLAPPED {
        // SAFETY: blocks live as long as the slab. Only the cell's address is taken.
        unsafe { self.all[id as usize].as_ref() }.overlapped.get()
    }

    /// The block that a packet names.
    ///
    /// # Safety
    /// The packet is of a call that was given [`Blocks::overlapped`] of this slab.
    pub(super) unsafe fn named(&self, overlapped: NonNull<OVERLAPPED>) -> u32 {
        // SAFETY: it points to the first field of a live block, whose number never changes.
        let id = unsafe { (*overlapped.as_ptr().cast::<Block>()).id };
        debug_assert_eq!(self.overlapped(id), overlapped.as_ptr());
        id
    }

    pub(super) fn owner(&self, id: u32) -> Owner {
        self.owners[id as usize]
    }

    /// The call goes on, but nobody waits for it.
    pub(super) fn disown(&mut self, id: u32) {
        self.owners[id as usize] = Owner::Nobody;
    }

    /// After the packet, or where there will be none.
    pub(super) fn put_back(&mut self, id: u32) {
        debug_assert!(!self.free.contains(&id), "a block was given back twice");
        self.free.push(id);
    }

    /// Calls that pend.
    pub(super) fn pending(&self) -> usize {
        self.all.len() - self.free.len()
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if self.pending() > 0 {
            // The kernel may still write: all of them stay for ever.
            return;
        }
        for block in self.all.drain(..) {
            // SAFETY: from `Box::leak`; no call pends, and the slab ends.
            drop(unsafe { Box::from_raw(block.as_ptr()) });
        }
    }
}
