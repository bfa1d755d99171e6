//! Operations in flight, and the memory that the kernel reads for them.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use crate::buf::{PoolBuf, TxQueue};
use crate::driver::{ConnectAddr, MAX_SEND_BYTES, MAX_SEND_SEGMENTS};
use crate::op::{Burst, Token};

/// Who asked for the end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// The driver, because the credit was used up and the kernel does not count it.
    ByDriver,
    ByCaller,
}

pub(super) struct AcceptOp {
    pub(super) fd: RawFd,
    pub(super) burst: Burst,
    pub(super) cancel: Cancel,
}

pub(super) struct RecvOp {
    pub(super) fd: RawFd,
    pub(super) cancel: Cancel,
    /// Bytes that may still come.
    pub(super) left: u32,
    /// The kernel was asked to stop when `left` has come down to this; `u32::MAX` for a receive of one step.
    pub(super) ends_at: u32,
    /// Whether the kernel has it; otherwise it is staged until there is a buffer.
    pub(super) armed: bool,
    /// With [`Cancel::ByDriver`]: what is reported as the end when the cancel took effect.
    pub(super) held: Option<PoolBuf>,
}

pub(super) struct SendOp {
    pub(super) fd: RawFd,
    pub(super) cancel: Cancel,
    pub(super) style: super::sqe::SendStyle,
    /// A first segment of 1 GiB is the most, [`MAX_SEGMENT_BYTES`].
    pub(super) taken: u32,
    pub(super) what: Gathered,
}

pub(super) struct ConnectOp {
    pub(super) cancel: Cancel,
    /// In the slab of addresses.
    pub(super) addr: u32,
}

pub(super) struct WatchOp {
    pub(super) cancel: Cancel,
}

/// The operations of one kind, by slot index. Slots are dense, so it is a vector.
pub(super) struct Table<T> {
    slots: Vec<Option<(Token, T)>>,
    len: usize,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Table { slots: Vec::new(), len: 0 }
    }

    pub(super) fn insert(&mut self, token: Token, op: T) {
        let at = token.index() as usize;
        if at >= self.slots.len() {
            self.grow(at + 1);
        }
        assert!(self.slots[at].is_none(), "two operations of a kind for one slot: {token:?}");
        self.slots[at] = Some((token, op));
        self.len += 1;
    }

    /// Makes room for `count` slots.
    #[cold]
    pub(super) fn grow(&mut self, count: usize) {
        if count > self.slots.len() {
            self.slots.resize_with(count, || None);
        }
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        match self.slots.get_mut(token.index() as usize) {
            Some(Some((owner, op))) if *owner == token => Some(op),
            Some(_) | None => None,
        }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(token.index() as usize)?;
        let (_, op) = slot.take_if(|(owner, _)| *owner == token)?;
        self.len -= 1;
        Some(op)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut T)> {
        self.slots.iter_mut().flatten().map(|(token, op)| (*token, op))
    }
}

/// What a send hands to the kernel.
#[derive(Clone, Copy)]
pub(super) enum Gathered {
    /// One segment, in the caller's queue.
    One(*const u8, u32),
    /// Several, named by a message in the slab.
    Message(u32),
}

/// Bytes of a segment that one send takes at most, so that the kernel's answer fits its type.
pub(super) const MAX_SEGMENT_BYTES: usize = 1 << 30;

/// Gathers the front of `queue`; returns the bytes taken.
pub(super) fn gather(queue: &TxQueue, messages: &mut Slab<Message>) -> (Gathered, usize) {
    if let Some(only) = queue.only_slice()
        && only.len() <= MAX_SEGMENT_BYTES
    {
        return (Gathered::One(only.as_ptr(), only.len() as u32), only.len());
    }
    let mut slices = queue.slices();
    let first = slices.next().unwrap_or(&[]);
    let first = &first[..first.len().min(MAX_SEGMENT_BYTES)];
    let mut total = first.len();
    let one = Gathered::One(first.as_ptr(), first.len() as u32);
    let mut rest =
        slices.take(MAX_SEND_SEGMENTS - 1).take_while(|_| first.len() < MAX_SEGMENT_BYTES).peekable();
    if rest.peek().is_none_or(|next| total + next.len() > MAX_SEND_BYTES) {
        return (one, total);
    }
    let at = messages.take();
    let message = messages.at(at);
    // SAFETY: `at` was just taken, so no operation uses the message; the pointers are into its own page, which does
    // not move, and into the caller's segments.
    unsafe {
        let iov = (&raw mut (*message).iov).cast::<libc::iovec>();
        let mut count = 0;
        let mut put = |bytes: &[u8]| {
            iov.add(count)
                .write(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            count += 1;
        };
        put(first);
        for next in rest {
            if total + next.len() > MAX_SEND_BYTES {
                break;
            }
            put(next);
            total += next.len();
        }
        (*message).header = std::mem::zeroed();
        (*message).header.msg_iov = iov;
        (*message).header.msg_iovlen = count as _;
    }
    (Gathered::Message(at), total)
}

/// A message header with room for its segments. The kernel reads it until the send has ended.
#[repr(C)]
pub(super) struct Message {
    pub(super) header: libc::msghdr,
    iov: [MaybeUninit<libc::iovec>; MAX_SEND_SEGMENTS],
}

/// Room for a socket address. The kernel reads it until the connect has ended.
pub(super) struct Address {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

impl Address {
    /// `addr` in the kernel's form; `None` if a Unix path does not fit.
    pub(super) fn new(addr: &ConnectAddr) -> Option<Self> {
        // SAFETY: all zeroes is a `sockaddr_storage` of no family.
        let mut address = Address { storage: unsafe { std::mem::zeroed() }, len: 0 };
        match addr {
            ConnectAddr::Inet(SocketAddr::V4(addr)) => address.put(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                sin_zero: [0; 8],
            }),
            ConnectAddr::Inet(SocketAddr::V6(addr)) => address.put(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            }),
            ConnectAddr::Unix(path) => {
                let mut unix =
                    libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
                // A path is closed by a NUL; an abstract name is as long as the address says (unix(7)).
                let closing = usize::from(path.first() != Some(&0));
                if path.is_empty() || path.len() + closing > unix.sun_path.len() {
                    return None;
                }
                for (to, from) in unix.sun_path.iter_mut().zip(path) {
                    *to = *from as libc::c_char;
                }
                address.put(unix);
                let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + path.len() + closing;
                address.len = len as libc::socklen_t;
            }
        }
        Some(address)
    }

    fn put<A>(&mut self, addr: A) {
        const { assert!(size_of::<A>() <= size_of::<libc::sockaddr_storage>()) };
        // SAFETY: the storage is large and aligned enough for every socket address.
        unsafe { (&raw mut self.storage).cast::<A>().write(addr) };
        self.len = size_of::<A>() as libc::socklen_t;
    }
}

/// Elements whose addresses never change, in pages made on demand and kept.
pub(super) struct Slab<T> {
    /// INVARIANT: each is a box that was given up in `take` and is freed by `drop`. No reference to a page is formed
    /// meanwhile: it would end the right of the pointers that the kernel and `at` have.
    pages: Vec<NonNull<[MaybeUninit<T>; PAGE]>>,
    free: Vec<u32>,
}

const PAGE: usize = 16;

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Slab { pages: Vec::new(), free: Vec::new() }
    }

    /// An element that nobody uses; all zeroes at first, later what was left in it.
    pub(super) fn take(&mut self) -> u32 {
        if let Some(at) = self.free.pop() {
            return at;
        }
        let first = (self.pages.len() * PAGE) as u32;
        let page = Box::new([const { MaybeUninit::zeroed() }; PAGE]);
        self.pages.push(NonNull::from(Box::leak(page)));
        self.free.extend((first + 1..first + PAGE as u32).rev());
        first
    }

    pub(super) fn put_back(&mut self, at: u32) {
        self.free.push(at);
    }

    pub(super) fn at(&mut self, at: u32) -> *mut T {
        self.pages[at as usize / PAGE].as_ptr().cast::<T>().wrapping_add(at as usize % PAGE)
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        const { assert!(!std::mem::needs_drop::<T>()) };
        for page in self.pages.drain(..) {
            // SAFETY: leaked from a box in `take`. Whoever drops a slab knows that the kernel has no pointer left.
            drop(unsafe { Box::from_raw(page.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Gathered, Message, Slab, Table, gather};
    use crate::buf::{Pool, PoolSpec, TxQueue};
    use crate::driver::{ConnectAddr, MAX_SEND_BYTES, MAX_SEND_SEGMENTS};
    use crate::op::{OpKind, Token};

    fn queue(lens: &[usize]) -> TxQueue {
        let mut queue = TxQueue::new(Pool::new(PoolSpec::default()));
        lens.iter().for_each(|len| queue.push(vec![*len as u8; *len]));
        queue
    }

    /// What the kernel would read.
    fn named(what: Gathered, messages: &mut Slab<Message>) -> Vec<u8> {
        // SAFETY: `gather` has written the message, and the queue that its segments lie in is alive.
        unsafe {
            match what {
                Gathered::One(base, len) => std::slice::from_raw_parts(base, len as usize).to_vec(),
                Gathered::Message(at) => {
                    let header = &(*messages.at(at)).header;
                    let iov = std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen as _);
                    iov.iter()
                        .flat_map(|part| std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len))
                        .copied()
                        .collect()
                }
            }
        }
    }

    #[test]
    fn gathered_segments_of_a_slab_name_the_front_of_the_queue() {
        let mut messages = Slab::new();
        let check = |lens: &[usize], expected: usize, messages: &mut Slab<Message>| {
            let queue = queue(lens);
            let (what, taken) = gather(&queue, messages);
            let front: Vec<u8> = queue.slices().flatten().copied().take(expected).collect();
            assert_eq!(taken, expected);
            assert!(named(what, messages) == front);
            if let Gathered::Message(at) = what {
                messages.put_back(at);
            }
        };
        check(&[5], 5, &mut messages);
        check(&[5, 6, 7], 18, &mut messages);
        check(&[1; 100], MAX_SEND_SEGMENTS, &mut messages);
        check(&[], 0, &mut messages);
        // Miri would take minutes.
        if !cfg!(miri) {
            check(&[9, MAX_SEND_BYTES], 9, &mut messages);
            check(&[9, 9, MAX_SEND_BYTES], 18, &mut messages);
            check(&[MAX_SEND_BYTES + 5, 1], MAX_SEND_BYTES + 5, &mut messages);
        }
    }

    #[test]
    fn a_slab_never_moves_what_it_holds() {
        let mut slab = Slab::<u64>::new();
        let mut taken = Vec::new();
        for value in 0..100_u64 {
            let at = slab.take();
            let place = slab.at(at);
            // SAFETY: just taken, so nobody else uses it.
            unsafe { place.write(value) };
            taken.push((at, place, value));
        }
        for (at, place, value) in &taken {
            assert_eq!(slab.at(*at), *place);
            // SAFETY: written above, and still taken.
            assert_eq!(unsafe { place.read() }, *value);
        }
        let (at, ..) = taken[50];
        slab.put_back(at);
        assert_eq!(slab.take(), at, "used again");
    }

    #[test]
    fn a_table_knows_its_owner() {
        let mut table = Table::new();
        let (old, new) = (Token::new(OpKind::Recv, 3, 1), Token::new(OpKind::Recv, 3, 2));
        table.insert(old, 'a');
        assert!(table.get_mut(new).is_none() && table.remove(new).is_none());
        assert_eq!((table.remove(old), table.is_empty()), (Some('a'), true));
        table.insert(new, 'b');
        assert_eq!(table.get_mut(old), None);
        assert_eq!(table.get_mut(new), Some(&mut 'b'));
        assert_eq!(table.iter_mut().count(), 1);
    }

    #[test]
    fn addresses_of_a_slab_have_the_kernels_form() {
        let len = |addr: &ConnectAddr| Address::new(addr).map(|address| address.len as usize);
        assert_eq!(len(&ConnectAddr::Inet(([127, 0, 0, 1], 80).into())), Some(16));
        assert_eq!(len(&ConnectAddr::Inet(([0_u16; 8], 80).into())), Some(28));
        assert_eq!(len(&ConnectAddr::Unix(b"/a".to_vec())), Some(2 + 2 + 1));
        assert_eq!(len(&ConnectAddr::Unix(b"\0a".to_vec())), Some(2 + 2));
        assert_eq!(len(&ConnectAddr::Unix(vec![b'a'; 107])), Some(110));
        assert_eq!(len(&ConnectAddr::Unix(vec![b'a'; 108])), None);
        assert_eq!(len(&ConnectAddr::Unix(Vec::new())), None);
    }
}
