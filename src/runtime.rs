//! The seam between the protocols and whatever runs them.
//!
//! A [`Runtime`] gives streams, listeners, timers, tasks and the time. Everything above is generic over it and never sees
//! a driver. The native one sits on `ringport_platform`; adapters for other runtimes implement the same traits.
//!
//! All methods are poll-based and cancel-safe by contract: a future that is dropped between two polls has lost no byte,
//! because received bytes stay with the stream until taken and sent bytes belong to the stream once handed over.

pub mod native;

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue};
pub use ringport_platform::core::ListenSocket;
pub use ringport_platform::datagram::{Ecn, Received, RecvMeta, Transmit};
pub use ringport_platform::driver::ConnectAddr;
pub use ringport_platform::socket::multicast::Group;
pub use ringport_platform::socket::{
    DialOptions, Ends, ListenOptions, LocalAddr, OpenError, Opened, PacketEnds, open_dialled,
};
pub use ringport_platform::sockets::TxLevel;
use ringport_platform::sockopt::{ApplyError, Effective, OptSet, Stage, Target};
pub use ringport_platform::splice::{Moved, Splice, SpliceError};
use ringport_platform::timer::later;

/// A connected byte stream. Dropping it sends what was handed over, within the runtime's linger, then closes.
pub trait Transport: 'static {
    /// Moves at most `max` received bytes to `into`. `Ok(true)`: some came; `Ok(false)`: the peer has ended, for good.
    ///
    /// Taking bytes gives the peer credit for as many; bytes not taken hold the peer back.
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>>;

    /// The next contiguous received bytes, as they lie in the driver's buffer; `None` at the end, for good.
    fn poll_recv_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>>;

    /// Hands everything in `from` over for sending. Never waits and takes all: writers wait by [`Transport::poll_sent`],
    /// when they find the answer too high: the bytes that are unsent now.
    ///
    /// # Errors
    /// What an earlier send met; `from` is emptied all the same.
    fn send(&mut self, from: &mut TxQueue) -> io::Result<usize>;

    /// As [`Transport::send`], for one segment.
    ///
    /// # Errors
    /// What an earlier send met; the segment is dropped.
    fn send_seg(&mut self, seg: Seg) -> io::Result<usize>;

    /// Waits until at most as much as `level` allows is handed over and unsent.
    fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>>;

    /// Sends what waits, then tells the peer that nothing more comes. Idempotent. What is sent after it fails (`EPIPE`).
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether bytes wait, or the peer has ended or reset, as far as is known without asking the kernel.
    fn has_news(&self) -> bool;

    /// Begins to pass what comes here on to `to` past user space; see [`Splice`] for the order of calls. `None` where this
    /// runtime cannot, or not with these two: copy then.
    fn splice_to(&self, _to: &Self) -> Option<Splice>
    where
        Self: Sized,
    {
        None
    }

    /// How many received bytes may wait before the peer is held back, at least 1. Unless set: 64 KiB, or more (natively 256)
    /// for a reader that keeps up.
    ///
    /// It bounds what the runtime holds, not what the kernel does (`SO_RCVBUF`). The receive in flight keeps the limit
    /// that it was started with.
    fn set_rx_limit(&mut self, bytes: u32);

    /// The peer's address.
    ///
    /// # Errors
    /// When the peer is gone.
    fn peer_addr(&self) -> io::Result<LocalAddr>;

    /// Our address.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self) -> io::Result<LocalAddr>;

    /// Sets what of `options` belongs to a stage on such a socket.
    ///
    /// # Errors
    /// The option that the system refused, and why.
    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError>;

    /// Sends what `TCP_CORK` holds back in the system, and holds back again. Nothing where nothing is held back.
    ///
    /// # Errors
    /// The system's, as of a send.
    fn release_cork(&self) -> io::Result<()>;

    /// From now on dropping the stream discards what waits and resets the connection, so that the peer cannot take what
    /// it got for the whole. Unix sockets know no reset: their peer reads an end.
    fn reset_on_drop(&mut self);
}

/// Takes connections.
pub trait Listener: 'static {
    /// What it gives.
    type Stream: Transport;
    /// What it gives where connections are sequences of packets.
    type Packets: Datagram;

    /// The next connection. A future over it that is dropped loses none.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;

    /// The next connection of a socket of a sequence of packets, which as a stream would not keep them whole.
    fn poll_accept_packets(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Packets>>;

    /// Takes no more from the kernel until the next [`Listener::poll_accept`].
    fn pause(&mut self);

    /// How many more connections it may take from the kernel beside those that wait here; no limit at first.
    fn set_room(&mut self, room: usize);

    /// Connections that were taken from the kernel and wait here.
    fn queued(&self) -> usize;

    /// What the kernel still holds, for the end of a listener; `None` when nothing waits: drop it then. What comes in
    /// between is reset.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Self::Stream>>>;

    /// Our address.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self) -> io::Result<LocalAddr>;
}

/// A socket of datagrams or packets. Nothing is lost between two polls: what is not asked for waits in the system, whose
/// queue alone drops.
///
/// One task receives and one sends, or one does both: each side wakes who asked last.
pub trait Datagram: 'static {
    /// Receives what waits, at most a batch, to the end of `into`; ready when some came. Returns how many: of a sequence of
    /// packets 0 when the peer has ended, for good.
    ///
    /// An error says what became of datagrams sent before, once (`ECONNREFUSED` of a connected socket), and ends nothing.
    fn poll_recv_batch(&self, cx: &mut Context<'_>, into: &mut Vec<Received>) -> Poll<io::Result<usize>>;

    /// Hands over the front of `batch`, at most a batch; ready when some were taken. Returns how many, which the caller
    /// removes. An error is about the first, and nothing was taken.
    fn poll_send_batch(&self, cx: &mut Context<'_>, batch: &[Transmit]) -> Poll<io::Result<usize>>;

    /// Tells the peer of a sequence of packets that nothing more comes; receiving goes on.
    ///
    /// # Errors
    /// `ENOTCONN` when the peer is gone.
    fn shutdown(&self) -> io::Result<()>;

    /// Datagrams of one receive or send at most.
    fn batch(&self) -> usize;

    /// What is received of a datagram at most. Default 64 KiB, which is above every IP packet.
    fn set_max_len(&self, bytes: usize);

    /// Sets what of `options` belongs to a stage on such a socket.
    ///
    /// # Errors
    /// The option that the system refused, and why.
    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError>;

    /// Hears a group from now on.
    ///
    /// # Errors
    /// The system's: no such interface, joined already, too many.
    fn join(&self, group: &Group) -> io::Result<()>;

    /// Hears a group no more.
    ///
    /// # Errors
    /// Not joined.
    fn leave(&self, group: &Group) -> io::Result<()>;

    /// How far goes, and whether is heard on this machine, what is sent to groups.
    ///
    /// # Errors
    /// The system's.
    fn set_multicast(&self, hops: u8, is_heard_here: bool) -> io::Result<()>;

    /// Sends what `UDP_CORK` of these options holds back, and holds back again.
    ///
    /// # Errors
    /// As of a send.
    fn release_cork(&self, options: &OptSet) -> io::Result<()>;

    /// Our address.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self) -> io::Result<LocalAddr>;

    /// The only peer's address.
    ///
    /// # Errors
    /// `ENOTCONN` where there is no such.
    fn peer_addr(&self) -> io::Result<LocalAddr>;
}

/// A deadline that can be moved; dropping it forgets it.
pub trait Timer: 'static {
    /// Moves the deadline. Moving it later is cheap enough to do for every request.
    fn reset(&mut self, deadline: Instant);

    /// Ready once the deadline has passed.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Everything a protocol needs from where it runs. Cheap to clone; stays on its thread.
pub trait Runtime: Clone + 'static {
    /// Connected streams.
    type Stream: Transport;
    /// Listening sockets.
    type Listener: Listener<Stream = Self::Stream, Packets = Self::Datagram>;
    /// Sockets of datagrams or packets.
    type Datagram: Datagram;
    /// Movable deadlines.
    type Timer: Timer;

    /// The time, at most one turn of the loop old.
    fn now(&self) -> Instant;

    /// The time of day, as the system says it now.
    fn time_of_day(&self) -> SystemTime;

    /// Starts a task on this thread. A panic in it ends that task alone. It is dropped with the runtime if it has not
    /// ended.
    fn spawn(&self, future: impl Future<Output = ()> + 'static);

    /// Connects; starts when called. Dropping the future cancels and closes. No timeout but the system's, which for TCP is
    /// minutes: race it with [`Runtime::sleep`].
    ///
    /// # Errors
    /// In the future: `ECONNREFUSED`, `ETIMEDOUT`, `ENETUNREACH`; `ENOENT` for a Unix path without socket;
    /// `InvalidInput` for one that is too long.
    fn connect(&self, addr: &ConnectAddr) -> impl Future<Output = io::Result<Self::Stream>> + 'static;

    /// As [`Runtime::connect`], with a socket that [`open_dialled`] made for this address.
    fn connect_opened(
        &self,
        opened: Opened,
        addr: &ConnectAddr,
    ) -> impl Future<Output = io::Result<Self::Stream>> + 'static;

    /// Listens; nothing is taken from the kernel before the first accept. A Unix socket's path is made, and is not removed
    /// when the listener goes.
    ///
    /// # Errors
    /// Address in use, not available, not permitted.
    fn listen(&self, addr: &ConnectAddr, options: ListenOptions) -> io::Result<Self::Listener>;

    /// Over a listening socket that was made elsewhere, which has such a backlog and does not block.
    ///
    /// # Errors
    /// When it cannot be watched; it is closed then.
    fn listen_on(&self, socket: ListenSocket, backlog: i32) -> io::Result<Self::Listener>;

    /// Makes a socket of datagrams or packets with these options, each set before the call that it influences. Also
    /// returns the options as they are in effect. A Unix socket's file never has more permissions than `mode` says.
    ///
    /// # Errors
    /// Every fault of the options, or the first call that failed; nothing is left of it.
    fn open_datagram(
        &self,
        ends: &PacketEnds,
        options: &OptSet,
        mode: Option<u32>,
        batch: usize,
    ) -> Result<(Self::Datagram, Vec<Effective>), OpenError>;

    /// A timer that ends at `deadline`.
    fn timer(&self, deadline: Instant) -> Self::Timer;

    /// An empty queue whose small writes are gathered in the runtime's memory.
    fn tx_queue(&self) -> TxQueue;

    /// Waits so long; `Duration::MAX` for ever.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let mut timer = self.timer(later(self.now(), duration));
        std::future::poll_fn(move |cx| timer.poll_elapsed(cx))
    }
}
