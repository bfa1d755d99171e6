//! WSARecvMsg and WSASendMsg, a call for each datagram: Windows has no batches.

use std::io;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};
use windows_sys::Win32::Networking::WinSock::{
    self, MSG_TRUNC, SOCKADDR_STORAGE, WSABUF, WSAMSG, WSASendMsg,
};

use super::Transmit;
use super::message::{LONGEST_DATAGRAM, MAX_MESSAGES, Message, SCRATCH_BYTES, canonical, kernel_addr};
use crate::cmsg::{self, MAX_RECEIVE, MAX_SEND};
use crate::errno;
use crate::fd::RawFd;
use crate::op::Errno;
use crate::socket::{self, LocalAddr, extension};

/// What the calls of one core need besides the socket. Made at the first call.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    told: Vec<Told>,
    max_len: usize,
}

/// What was told with one datagram.
#[derive(Clone, Copy)]
struct Told {
    name: SOCKADDR_STORAGE,
    name_len: i32,
    control: [u8; MAX_RECEIVE],
    control_len: usize,
    len: usize,
    is_truncated: bool,
}

impl Scratch {
    /// Receives at most `count` datagrams of at most `max_len` bytes; `EAGAIN` when there is none.
    pub(super) fn receive(
        &mut self,
        fd: RawFd,
        count: usize,
        max_len: usize,
        with_control: bool,
    ) -> Result<usize, Errno> {
        let max_len = max_len.clamp(1, LONGEST_DATAGRAM);
        let count = count.clamp(1, MAX_MESSAGES).min(SCRATCH_BYTES / max_len);
        self.make_room();
        self.max_len = max_len;
        for index in 0..count {
            match self.receive_one(fd, index, with_control) {
                Ok(()) => {}
                // What came before is told first; this is told by the next call, or has gone with it as on Linux.
                Err(_) if index > 0 => return Ok(index),
                Err(errno) => return Err(errno),
            }
        }
        Ok(count)
    }

    fn receive_one(&mut self, fd: RawFd, index: usize, with_control: bool) -> Result<(), Errno> {
        let call = extension::recv_msg(fd)?;
        let told = &mut self.told[index];
        let part = &mut self.bytes[index * self.max_len..][..self.max_len];
        let mut bytes = WSABUF { len: part.len() as u32, buf: part.as_mut_ptr() };
        let control_len = if with_control { MAX_RECEIVE as u32 } else { 0 };
        let mut message = WSAMSG {
            name: (&raw mut told.name).cast(),
            namelen: size_of::<SOCKADDR_STORAGE>() as i32,
            lpBuffers: &raw mut bytes,
            dwBufferCount: 1,
            Control: WSABUF { len: control_len, buf: told.control.as_mut_ptr() },
            dwFlags: 0,
        };
        let mut count = 0;
        // SAFETY: the socket does not block, and without an OVERLAPPED the call has ended when it returns; it writes to
        // memory of `self`, each with its length, and to `message` and `count`.
        let failed =
            unsafe { call(fd as usize, &raw mut message, &raw mut count, ptr::null_mut(), None) } != 0;
        let error = Errno::last();
        // A datagram that is longer than asked for: its front is there, and the call says so as an error.
        let is_truncated = failed && error == Errno(errno::EMSGSIZE) || message.dwFlags & MSG_TRUNC != 0;
        if failed && !is_truncated {
            return Err(error);
        }
        told.len = if failed { self.max_len } else { count as usize };
        told.name_len = message.namelen;
        told.control_len = if with_control { message.Control.len as usize } else { 0 };
        told.is_truncated = is_truncated;
        Ok(())
    }

    /// One of those that the last [`Scratch::receive`] gave.
    pub(super) fn message(&self, index: usize) -> Message<'_> {
        let told = &self.told[index];
        Message {
            bytes: &self.bytes[index * self.max_len..][..told.len.min(self.max_len)],
            peer: peer(told),
            control: &told.control[..told.control_len.min(MAX_RECEIVE)],
            is_truncated: told.is_truncated,
        }
    }

    /// Sends the front of `batch`; returns how many datagrams Windows took.
    pub(super) fn send(
        &mut self,
        fd: RawFd,
        batch: &[Transmit],
        as_ipv6: bool,
        default_is_ipv4: bool,
    ) -> io::Result<usize> {
        let batch = &batch[..batch.len().min(MAX_MESSAGES)];
        for (index, transmit) in batch.iter().enumerate() {
            match send_one(fd, transmit, as_ipv6, default_is_ipv4) {
                Ok(()) => {}
                // It is told when it is the first.
                Err(_) if index > 0 => return Ok(index),
                Err(error) => return Err(error),
            }
        }
        Ok(batch.len())
    }

    fn make_room(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; SCRATCH_BYTES];
            let told = Told {
                // SAFETY: integers, of which all zeroes are values.
                name: unsafe { std::mem::zeroed() },
                name_len: 0,
                control: [0; MAX_RECEIVE],
                control_len: 0,
                len: 0,
                is_truncated: false,
            };
            self.told.resize(MAX_MESSAGES, told);
        }
    }
}

fn peer(told: &Told) -> LocalAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: it is as large as a `SOCKADDR_STORAGE`, of which any bytes are a value; Windows wrote an address of
    // `name_len` bytes to the one that is copied.
    let addr = unsafe {
        *storage.view_as::<SOCKADDR_STORAGE>() = told.name;
        SockAddr::new(storage, told.name_len)
    };
    match socket::readable(&addr) {
        LocalAddr::Inet(addr) => LocalAddr::Inet(canonical(addr)),
        unix @ LocalAddr::Unix(_) => unix,
    }
}

fn send_one(fd: RawFd, transmit: &Transmit, as_ipv6: bool, default_is_ipv4: bool) -> io::Result<()> {
    let dest = transmit.dest.as_ref().map(|dest| kernel_addr(dest, as_ipv6)).transpose()?;
    let contents: &[u8] = &transmit.contents;
    let len = u32::try_from(contents.len()).map_err(|_| io::Error::from_raw_os_error(errno::EMSGSIZE))?;
    let mut bytes = WSABUF { len, buf: contents.as_ptr().cast_mut() };
    let mut control = [0; MAX_SEND];
    let control_len = cmsg::encode(&transmit.ask(default_is_ipv4), &mut control);
    let (name, name_len) = match &dest {
        Some(dest) => (dest.as_ptr().cast_mut().cast(), dest.len()),
        None => (ptr::null_mut(), 0),
    };
    let message = WSAMSG {
        name,
        namelen: name_len,
        lpBuffers: &raw mut bytes,
        dwBufferCount: 1,
        Control: WSABUF { len: control_len as u32, buf: control.as_mut_ptr() },
        dwFlags: 0,
    };
    let mut count = 0;
    // SAFETY: as in `receive_one`; the call reads the address, the bytes and the control data, which outlive it.
    let result =
        unsafe { WSASendMsg(fd as usize, &raw const message, 0, &raw mut count, ptr::null_mut(), None) };
    if result == WinSock::SOCKET_ERROR { Err(Errno::last().into()) } else { Ok(()) }
}
