//! Accepts: as many AcceptEx as the listener may take connections at a time, posted again as they end.

use windows_sys::Win32::Networking::WinSock;

use super::IocpDriver;
use super::block::Owner;
use super::slot::{Accept, Posted};
use super::sys::{self, Started};
use crate::driver::Reports;
use crate::errno;
use crate::fd::{AsRawFd, RawFd};
use crate::op::{Burst, Completion, Errno, OpKind, Outcome, Token};
use crate::socket::protocol_info;

/// Calls that pend for one listener. Connections beyond them wait in its backlog.
const MAX_POSTED: usize = 16;
/// Calls made for one listener before the others get their turn.
const MAX_ACCEPTS: usize = 64;

impl IocpDriver {
    /// Nothing is posted yet: the next turn does that.
    pub(super) fn start_accept(&mut self, token: Token, burst: Burst) {
        let slot = &mut self.slots[token.index() as usize];
        debug_assert!(slot.accept.is_none());
        let info = protocol_info(slot.fd);
        let end = info.as_ref().err().map(|error| Outcome::Failed(errno_of(error)));
        let info = info.ok();
        let (posted, taken) = (Vec::with_capacity(MAX_POSTED), Vec::new());
        slot.accept = Some(Box::new(Accept { token, burst, info, posted, taken, end }));
    }

    /// Tells of what came, posts what is missing, and ends when nothing pends any more.
    pub(super) fn run_accept(&mut self, index: u32, out: &mut Reports<'_>) {
        let Some(mut accept) = self.slots[index as usize].accept.take() else { return };
        for _ in 0..MAX_ACCEPTS {
            self.tell_taken(&mut accept, out);
            let wanted = if accept.burst == Burst::One { 1 } else { MAX_POSTED };
            if accept.end.is_some() || accept.posted.len() >= wanted {
                break;
            }
            self.post(index, &mut accept);
        }
        self.tell_taken(&mut accept, out);
        let goes_on = accept.end.is_none();
        if !goes_on && accept.posted.is_empty() {
            return self.end(accept.token, accept.end.take().unwrap_or(Outcome::Canceled), out);
        }
        let lacks = accept.posted.is_empty();
        self.slots[index as usize].accept = Some(accept);
        if goes_on && lacks {
            self.push_ready(index);
        }
    }

    /// The connections that came. The one that a listener with little room asked for is its end.
    fn tell_taken(&mut self, accept: &mut Accept, out: &mut Reports<'_>) {
        for socket in accept.taken.drain(..) {
            if accept.burst == Burst::One {
                accept.end = Some(Outcome::Accepted(socket));
            } else {
                out.push(Completion::more(accept.token, Outcome::Accepted(socket)));
            }
        }
    }

    /// One more AcceptEx, which may end at once.
    fn post(&mut self, index: u32, accept: &mut Accept) {
        let (listener, skips) = (self.slots[index as usize].fd, self.slots[index as usize].skips);
        self.stats.syscalls.add(2);
        let made = accept.info.as_ref().ok_or(Errno(errno::EINVAL)).and_then(sys::socket_like);
        let socket = match made {
            Ok(socket) => socket,
            Err(errno) => return self.fail_accept(listener, accept, errno),
        };
        let block = self.blocks.take(Owner::Slot(index, OpKind::Accept));
        let raw = socket.as_raw_fd();
        accept.posted.push(Posted { block, socket });
        // SAFETY: the block lives until the packet or for ever, and so does the scratch, which nobody reads.
        let started =
            unsafe { sys::accept(listener, raw, self.scratch.cast(), self.blocks.overlapped(block)) };
        match started {
            Ok(Started::Done(_)) if skips => {
                self.accept_done(listener, accept, block);
                self.blocks.put_back(block);
            }
            Ok(Started::Pending | Started::Done(_)) => {}
            Err(errno) => {
                accept.posted.pop();
                self.blocks.put_back(block);
                self.fail_accept(listener, accept, errno);
            }
        }
    }

    /// After the packet.
    pub(super) fn accept_ended(&mut self, index: u32, block: u32) {
        let slot = &mut self.slots[index as usize];
        let listener = slot.fd;
        let Some(mut accept) = slot.accept.take() else { return };
        self.accept_done(listener, &mut accept, block);
        self.slots[index as usize].accept = Some(accept);
    }

    fn accept_done(&mut self, listener: RawFd, accept: &mut Accept, block: u32) {
        let Some(at) = accept.posted.iter().position(|posted| posted.block == block) else { return };
        let Posted { socket, .. } = accept.posted.swap_remove(at);
        // SAFETY: the call has ended.
        let (_, result) = unsafe { sys::result(listener, self.blocks.overlapped(block)) };
        self.stats.syscalls.inc();
        match result.and_then(|()| sys::update_accepted(socket.as_raw_fd(), listener)) {
            Ok(()) => accept.taken.push(socket),
            // Its end is known already.
            Err(_) if accept.end.is_some() => {}
            Err(errno) => self.fail_accept(listener, accept, errno),
        }
    }

    /// Ends the whole, unless the failure was one connection's own.
    fn fail_accept(&mut self, listener: RawFd, accept: &mut Accept, errno: Errno) {
        if concerns_one_connection(errno) {
            return;
        }
        if matches!(errno, Errno(errno::EMFILE | errno::ENFILE)) {
            self.stats.accept_out_of_fds.inc();
        }
        accept.end.get_or_insert(Outcome::Failed(errno));
        for posted in &accept.posted {
            sys::cancel(listener, self.blocks.overlapped(posted.block));
        }
    }
}

/// A connection that died while it waited, or before its socket knew of it; the next may be fine.
fn concerns_one_connection(errno: Errno) -> bool {
    matches!(
        errno.0,
        WinSock::WSAECONNABORTED
            | WinSock::WSAECONNRESET
            | WinSock::WSAENETRESET
            | WinSock::WSAEHOSTUNREACH
            | WinSock::WSAENETUNREACH
            | WinSock::WSAETIMEDOUT
            | WinSock::WSAENOTCONN
    )
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(errno::EINVAL))
}
