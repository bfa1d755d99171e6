//! recvmmsg(2) and sendmmsg(2): many datagrams with a system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use socket2::{SockAddr, SockAddrStorage};

use super::Transmit;
use crate::cmsg::{self, MAX_RECEIVE, MAX_SEND, ToSend};
use crate::driver::ConnectAddr;
use crate::op::Errno;
use crate::socket::{self, LocalAddr};

/// Messages of one system call at most.
pub(super) const MAX_MESSAGES: usize = 64;
/// Where datagrams are received to, of all messages together. Only what the kernel writes to becomes resident.
const SCRATCH_BYTES: usize = MAX_MESSAGES * MAX_DATAGRAM;
/// As long as UDP's get, and as UDP_GRO makes them.
pub(super) const MAX_DATAGRAM: usize = 1 << 16;
/// As long as they can be received at all: [`SCRATCH_BYTES`] in so few messages.
pub(super) const LONGEST_DATAGRAM: usize = SCRATCH_BYTES / 4;

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

/// A datagram that lies in the scratch memory.
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) peer: LocalAddr,
    pub(super) control: &'a [u8],
    pub(super) is_truncated: bool,
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

impl Transmit {
    fn ask(&self, default_is_ipv4: bool) -> ToSend {
        let is_ipv4 = match &self.dest {
            Some(LocalAddr::Inet(addr)) => addr.ip().to_canonical().is_ipv4(),
            Some(LocalAddr::Unix(_)) | None => default_is_ipv4,
        };
        let source = self.source.map(|(addr, interface)| {
            // An IPv4 packet's source is asked for as IPv4, and no packet has one of the other family's.
            let addr = if is_ipv4 { addr.to_canonical() } else { addr };
            (addr, interface)
        });
        ToSend { is_ipv4, ecn: self.ecn, source, segment_size: self.segment_size }
    }
}

/// An IPv4 address goes to an IPv6 socket as one inside IPv6.
fn kernel_addr(addr: &LocalAddr, as_ipv6: bool) -> io::Result<SockAddr> {
    match addr {
        LocalAddr::Inet(SocketAddr::V4(addr)) if as_ipv6 => {
            let mapped = IpAddr::V6(addr.ip().to_ipv6_mapped());
            Ok(SockAddr::from(SocketAddr::new(mapped, addr.port())))
        }
        LocalAddr::Inet(addr) => Ok(SockAddr::from(*addr)),
        LocalAddr::Unix(path) => socket::sock_addr(&ConnectAddr::Unix(path.clone())),
    }
}

/// IPv4 where it is IPv4 inside IPv6.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn nowhere() -> SockAddr {
    SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0)))
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and raw pointers, of which all zeroes are values.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_goes_to_an_ipv6_socket_inside_ipv6() {
        let addr = LocalAddr::Inet("192.0.2.1:80".parse().expect("an address"));
        let mapped = kernel_addr(&addr, true).expect("an address").as_socket().expect("of IP");
        assert_eq!(mapped, "[::ffff:192.0.2.1]:80".parse().expect("an address"));
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().expect("an address"));
    }
}
