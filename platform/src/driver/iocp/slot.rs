//! What the driver knows of one socket, and the operations on it.

use windows_sys::Win32::Networking::WinSock::WSAPROTOCOL_INFOW;

use crate::fd::{NO_FD, OwnedFd, RawFd};
use crate::op::{Burst, Errno, OpKind, Outcome, Token};

/// One index of the upper layer.
pub(super) struct Slot {
    /// The socket, or [`NO_FD`] when the slot is free.
    pub(super) fd: RawFd,
    pub(super) queued: bool,
    /// Whether a call that ends at once makes no packet.
    pub(super) skips: bool,
    pub(super) is_datagram: bool,
    /// Whether reading is worth a try.
    pub(super) readable: bool,
    /// The block of the receive that waits for something to read, whoever asked for it. It names no memory of theirs, so it
    /// outlives them: the next one finds it waiting.
    pub(super) waiting: Option<u32>,
    pub(super) recv: Option<Recv>,
    pub(super) send: Option<Send>,
    pub(super) accept: Option<Box<Accept>>,
    pub(super) connect: Option<Connect>,
    pub(super) watch_read: Option<Watch>,
    pub(super) watch_write: Option<Watch>,
}

#[derive(Clone, Copy)]
pub(super) struct Recv {
    pub(super) token: Token,
    /// Bytes that may still be received. INVARIANT: not 0.
    pub(super) credit: u32,
    pub(super) canceled: bool,
}

pub(super) struct Send {
    pub(super) token: Token,
    /// Bytes that the driver took.
    pub(super) taken: usize,
    pub(super) canceled: bool,
    pub(super) state: Call,
}

pub(super) struct Connect {
    pub(super) token: Token,
    pub(super) canceled: bool,
    pub(super) state: Call,
}

/// How far a call is.
pub(super) enum Call {
    /// The kernel has this block.
    Pending(u32),
    /// Over; the next turn says so.
    Ended(Outcome),
}

/// Accepts of a listener: several calls, each with a socket for the connection that comes.
pub(super) struct Accept {
    pub(super) token: Token,
    pub(super) burst: Burst,
    /// The sort of socket that connections are; none where the listener did not tell, which is then the end.
    pub(super) info: Option<WSAPROTOCOL_INFOW>,
    /// INVARIANT: exactly the calls that pend. Their sockets are the driver's until the packet.
    pub(super) posted: Vec<Posted>,
    /// Connections that nobody was told of yet.
    pub(super) taken: Vec<OwnedFd>,
    /// Why no more is taken; told when the last call has ended.
    pub(super) end: Option<Outcome>,
}

pub(super) struct Posted {
    pub(super) block: u32,
    pub(super) socket: OwnedFd,
}

/// Somebody else reads from the socket, or writes to it, and waits.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) canceled: bool,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            fd: NO_FD,
            queued: false,
            skips: false,
            is_datagram: false,
            readable: false,
            waiting: None,
            recv: None,
            send: None,
            accept: None,
            connect: None,
            watch_read: None,
            watch_write: None,
        }
    }
}

impl Slot {
    pub(super) fn busy(&self) -> bool {
        let watched = self.watch_read.is_some() || self.watch_write.is_some();
        self.recv.is_some()
            || self.send.is_some()
            || self.accept.is_some()
            || self.connect.is_some()
            || watched
    }

    /// Marks an operation that has not ended, and gives the blocks of its calls to `each`, for the kernel to cancel. False
    /// when there is no operation of this name, or it has its outcome already, which is the truth.
    pub(super) fn cancel(&mut self, token: Token, mut each: impl FnMut(u32)) -> bool {
        let mark = |pending: Token, canceled: &mut bool| {
            let is_it = pending == token;
            *canceled |= is_it;
            is_it
        };
        let mut cancel = |pending: Token, canceled: &mut bool, state: &Call| match state {
            Call::Pending(block) if pending == token => {
                *canceled = true;
                each(*block);
                true
            }
            Call::Pending(_) | Call::Ended(_) => false,
        };
        match token.kind() {
            Some(OpKind::Recv) => self.recv.as_mut().is_some_and(|op| mark(op.token, &mut op.canceled)),
            Some(OpKind::Readable) => {
                self.watch_read.as_mut().is_some_and(|op| mark(op.token, &mut op.canceled))
            }
            Some(OpKind::Writable) => {
                self.watch_write.as_mut().is_some_and(|op| mark(op.token, &mut op.canceled))
            }
            Some(OpKind::Send) => {
                self.send.as_mut().is_some_and(|op| cancel(op.token, &mut op.canceled, &op.state))
            }
            Some(OpKind::Connect) => {
                self.connect.as_mut().is_some_and(|op| cancel(op.token, &mut op.canceled, &op.state))
            }
            Some(OpKind::Accept) => match self.accept.as_mut().filter(|op| op.token == token) {
                Some(op) => {
                    op.end.get_or_insert(Outcome::Canceled);
                    op.posted.iter().for_each(|posted| each(posted.block));
                    true
                }
                None => false,
            },
            None => false,
        }
    }
}

/// What an ended send tells: bytes that went out in any case.
pub(super) fn sent(count: usize, taken: usize, canceled: bool, result: Result<(), Errno>) -> Outcome {
    match result {
        _ if count >= taken => Outcome::Sent(taken),
        Ok(()) => Outcome::Stalled(count),
        Err(_) if canceled && count > 0 => Outcome::Stalled(count),
        Err(_) if canceled => Outcome::Canceled,
        Err(errno) => Outcome::Failed(errno),
    }
}
