//! Submission entries: every operation's flags in one place.

use std::os::fd::RawFd;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};

use super::bufring::GROUP;

/// `user_data` below every token (their kind is never 0): entries that belong to the driver itself.
pub(super) const WAKE: u64 = 1;
/// A cancel's own entry, which only appears when there was nothing to cancel.
pub(super) const CANCEL: u64 = 2;
/// A close that failed: the descriptor is gone all the same (close(2)).
pub(super) const CLOSE: u64 = 3;

const ACCEPT_FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// How a send treats a full socket and its own success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendStyle {
    /// Never waits; success makes no completion entry.
    Silent,
    /// Never waits.
    Try,
    /// Waits for room.
    Wait,
}

impl SendStyle {
    fn message_flags(self) -> i32 {
        // Without WAITALL a short send counts as a success, makes no entry, and would be taken for a complete one.
        let always = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        match self {
            SendStyle::Silent | SendStyle::Try => always | libc::MSG_DONTWAIT,
            SendStyle::Wait => always,
        }
    }

    fn entry_flags(self) -> squeue::Flags {
        match self {
            SendStyle::Silent => squeue::Flags::SKIP_SUCCESS,
            SendStyle::Try | SendStyle::Wait => squeue::Flags::empty(),
        }
    }
}

pub(super) fn accept(fd: RawFd, multishot: bool) -> squeue::Entry {
    if multishot {
        opcode::AcceptMulti::new(Fd(fd)).flags(ACCEPT_FLAGS).build()
    } else {
        let null = std::ptr::null_mut();
        opcode::Accept::new(Fd(fd), null, null.cast()).flags(ACCEPT_FLAGS).build()
    }
}

/// Receives at most `len` at a time from the buffer ring, once.
pub(super) fn recv_once(fd: RawFd, len: u32) -> squeue::Entry {
    opcode::Recv::new(Fd(fd), std::ptr::null_mut(), len)
        .buf_group(GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// Receives at most `len` at a time, until `credit` bytes have come when the kernel counts them.
pub(super) fn recv_multishot(fd: RawFd, len: u32, credit: Option<u32>) -> squeue::Entry {
    let mut entry = opcode::RecvMulti::new(Fd(fd), GROUP).len(len).build();
    if let Some(credit) = credit {
        set_optlen(&mut entry, credit);
    }
    entry
}

pub(super) fn send(fd: RawFd, base: *const u8, len: u32, style: SendStyle) -> squeue::Entry {
    opcode::Send::new(Fd(fd), base, len).flags(style.message_flags()).build().flags(style.entry_flags())
}

pub(super) fn send_msg(fd: RawFd, message: *const libc::msghdr, style: SendStyle) -> squeue::Entry {
    let flags = style.message_flags() as u32;
    opcode::SendMsg::new(Fd(fd), message).flags(flags).build().flags(style.entry_flags())
}

pub(super) fn connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> squeue::Entry {
    opcode::Connect::new(Fd(fd), addr, len).build()
}

/// Once; an end or an error of the socket counts as ready, too.
pub(super) fn poll(fd: RawFd, events: i16) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd), events as u32).build()
}

/// Only failures make an entry: nothing to cancel (ENOENT), or too late (EALREADY).
pub(super) fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data))
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(CANCEL)
}

pub(super) fn cancel_everything() -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any().all())
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(CANCEL)
}

pub(super) fn close(fd: RawFd) -> squeue::Entry {
    opcode::Close::new(Fd(fd)).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(CLOSE)
}

/// Edge-triggered, so that the eventfd never needs to be read.
pub(super) fn wake(fd: RawFd) -> squeue::Entry {
    let events = libc::POLLIN as u32 | libc::EPOLLET as u32;
    opcode::PollAdd::new(Fd(fd), events).multi(true).build().user_data(WAKE)
}

/// `optlen` shares its place with `file_index` in `struct io_uring_sqe` (include/uapi/linux/io_uring.h, 6.16).
const OPTLEN_OFFSET: usize = 44;

/// The total after which a multishot receive ends. The crate has no setter for it.
fn set_optlen(entry: &mut squeue::Entry, optlen: u32) {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is the kernel's plain 64-byte struct (`repr(C)`, asserted above; the offset is tested below);
    // the four bytes are inside it and aligned, and every value is valid there.
    unsafe { std::ptr::from_mut(entry).cast::<u8>().add(OPTLEN_OFFSET).cast::<u32>().write(optlen) };
}

#[cfg(test)]
mod tests {
    use super::{OPTLEN_OFFSET, accept, recv_multishot};
    use io_uring::{opcode, squeue, types::Fd};

    fn bytes(entry: &squeue::Entry) -> [u8; 64] {
        // SAFETY: the crate builds entries from a zeroed 64-byte struct without padding.
        unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() }
    }

    #[test]
    fn optlen_lies_where_file_index_lies() {
        let plain = bytes(&accept(3, true));
        let indexed = bytes(&opcode::AcceptMulti::new(Fd(3)).allocate_file_index(true).build());
        let differs: Vec<usize> =
            (0..64).filter(|&at| plain[at] != indexed[at] && !(28..32).contains(&at)).collect();
        assert_eq!(differs, (OPTLEN_OFFSET..OPTLEN_OFFSET + 4).collect::<Vec<_>>());
    }

    #[test]
    fn credit_changes_nothing_but_optlen() {
        let without = bytes(&recv_multishot(3, 100, None));
        let with = bytes(&recv_multishot(3, 100, Some(0x0403_0201)));
        assert_eq!(with[OPTLEN_OFFSET..OPTLEN_OFFSET + 4], 0x0403_0201_u32.to_ne_bytes());
        assert_eq!(without[..OPTLEN_OFFSET], with[..OPTLEN_OFFSET]);
        assert_eq!(without[OPTLEN_OFFSET + 4..], with[OPTLEN_OFFSET + 4..]);
    }
}
