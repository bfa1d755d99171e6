//! recvmmsg(2) and sendmmsg(2): many datagrams with a system call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use socket2::{SockAddr, SockAddrStorage};

use super::Transmit;
use super::message::{LONGEST_DATAGRAM, MAX_MESSAGES, Message, SCRATCH_BYTES, canonical, kernel_addr};
use crate::cmsg::{self, MAX_RECEIVE, MAX_SEND};
use crate::op::Errno;
use crate::socket::{self, LocalAddr};

/// The memory of both calls, of a core; nothing in it outlives a call but what was just received.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    /// Where received datagrams come from.
    names: Vec<libc::sockaddr_storage>,
    /// Where those to send go to.
    dests: Vec<SockAddr>,
    controls: Vec<[u8; MAX_RECEIVE]>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// Of the last receive.
    max_len: usize,
}

impl Scratch {
    /// Receives what waits, at most `count` datagrams of `max_len` bytes each; never waits.
    ///
    /// Without `with_control` the kernel has nowhere to put ancillary data, and drops descriptors that a Unix peer sends.
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
        self.slices.clear();
        self.headers.clear();
        for (bytes, _) in self.bytes.chunks_exact_mut(max_len).zip(0..count) {
            self.slices.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: max_len });
        }
        for index in 0..count {
            let mut header = empty_header();
            header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut self.slices[index];
            header.msg_hdr.msg_iovlen = 1;
            if with_control {
                header.msg_hdr.msg_control = self.controls[index].as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = MAX_RECEIVE;
            }
            self.headers.push(header);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: `count` headers, each of which names memory of `self` with its length: a part of `bytes` of its own, a
        // name, a control buffer. The kernel writes to them during the call only, and `self` is borrowed meanwhile.
        let received = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), count as u32, flags as _, std::ptr::null_mut())
        };
        usize::try_from(received).map_err(|_| Errno::last())
    }

    /// One of those that the last receive has brought.
    pub(super) fn message(&self, index: usize) -> Message<'_> {
        let header = &self.headers[index];
        let start = index * self.max_len;
        let len = (header.msg_len as usize).min(self.max_len);
        let control = header.msg_hdr.msg_controllen.min(MAX_RECEIVE);
        let control = if header.msg_hdr.msg_control.is_null() { 0 } else { control };
        Message {
            bytes: &self.bytes[start..start + len],
            peer: self.peer(index, header.msg_hdr.msg_namelen),
            control: &self.controls[index][..control],
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    fn peer(&self, index: usize, len: libc::socklen_t) -> LocalAddr {
        // Of a Unix socket without a name.
        if len < size_of::<libc::sa_family_t>() as libc::socklen_t {
            return LocalAddr::Unix(Vec::new());
        }
        let mut storage = SockAddrStorage::zeroed();
        let len = len.min(storage.size_of());
        // SAFETY: it is as large as a `sockaddr_storage`, which may hold any bytes; the kernel wrote an address of `len`
        // bytes to the one that is copied.
        let addr = unsafe {
            *storage.view_as::<libc::sockaddr_storage>() = self.names[index];
            SockAddr::new(storage, len)
        };
        match socket::readable(&addr) {
            LocalAddr::Inet(addr) => LocalAddr::Inet(canonical(addr)),
            unix @ LocalAddr::Unix(_) => unix,
        }
    }

    /// Hands the front of `batch` to the kernel; never waits. `as_ipv6` is an IPv6 socket's, `default_is_ipv4` says how a
    /// transmit without a destination leaves.
    pub(super) fn send(
        &mut self,
        fd: RawFd,
        batch: &[Transmit],
        as_ipv6: bool,
        default_is_ipv4: bool,
    ) -> io::Result<usize> {
        let batch = &batch[..batch.len().min(MAX_MESSAGES)];
        self.make_room();
        self.dests.clear();
        self.slices.clear();
        self.headers.clear();
        for (index, transmit) in batch.iter().enumerate() {
            match transmit.dest.as_ref().map(|dest| kernel_addr(dest, as_ipv6)) {
                None => self.dests.push(nowhere()),
                Some(Ok(dest)) => self.dests.push(dest),
                Some(Err(error)) if index == 0 => return Err(error),
                // It is told when it is the first.
                Some(Err(_)) => break,
            }
            let bytes: &[u8] = &transmit.contents;
            // The kernel only reads them.
            self.slices
                .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            let control = self.controls[index].first_chunk_mut::<MAX_SEND>();
            let control = control.expect("a control buffer has room for both ways");
            let control_len = cmsg::encode(&transmit.ask(default_is_ipv4), control);
            let mut header = empty_header();
            if control_len > 0 {
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = control_len;
            }
            self.headers.push(header);
        }
        // The lists do not grow any more, so what points into them stays true.
        for (index, header) in self.headers.iter_mut().enumerate() {
            if batch[index].dest.is_some() {
                header.msg_hdr.msg_name = self.dests[index].as_ptr().cast_mut().cast();
                header.msg_hdr.msg_namelen = self.dests[index].len();
            }
            header.msg_hdr.msg_iov = &raw mut self.slices[index];
            header.msg_hdr.msg_iovlen = 1;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let count = self.headers.len() as u32;
        // SAFETY: `count` headers, whose addresses and control data are memory of `self` and whose bytes are those of
        // `batch`; both are borrowed during the call, in which alone the kernel reads them.
        let sent = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), count, flags as _) };
        usize::try_from(sent).map_err(|_| Errno::last().into())
    }

    fn make_room(&mut self) {
        if self.bytes.is_empty() {
            // Zeroed by the kernel when it is first touched.
            self.bytes = vec![0; SCRATCH_BYTES];
            self.controls.resize(MAX_MESSAGES, [0; MAX_RECEIVE]);
            // SAFETY: integers, of which all zeroes are values.
            self.names.resize(MAX_MESSAGES, unsafe { std::mem::zeroed() });
        }
    }
}

fn nowhere() -> SockAddr {
    SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0)))
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and raw pointers, of which all zeroes are values.
    unsafe { std::mem::zeroed() }
}
