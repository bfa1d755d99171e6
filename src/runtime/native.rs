//! The runtime on our own drivers.
//!
//! [`block_on`] runs one core on this thread; [`NativeSpec`] says otherwise: which driver, how much memory, how many
//! cores.

mod start;

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

pub use ringport_platform::buf::PoolSpec;
use ringport_platform::buf::{PoolBuf, RxQueue, Seg, TxQueue};
use ringport_platform::core::{Accepted, Connecting, ListenSock, ListenSocket, ShareSock, StreamSock};
pub use ringport_platform::core::{Core, CoreSpec, Sleep};
use ringport_platform::datagram::DatagramSock;
pub use ringport_platform::driver::{DriverChoice, DriverKind, Mechanisms};
pub use ringport_platform::launch::{CoreContext, Launched};
use ringport_platform::socket::{multicast, open_packet_with, shutdown_write};
use ringport_platform::sockopt::{ApplyError, Effective, Family, Kind, OptSet, Role, Stage, Target};

pub use self::start::{NativeSpec, block_on};
use super::{
    ConnectAddr, Datagram, Group, ListenOptions, Listener, LocalAddr, OpenError, Opened, PacketEnds,
    Received, Runtime, Splice, Timer, Transmit, Transport, TxLevel,
};

/// This thread's core as a [`Runtime`].
#[derive(Clone)]
pub struct Native {
    core: Core,
}

impl Native {
    /// On this core.
    pub fn new(core: Core) -> Self {
        Native { core }
    }

    /// The core itself, for what the trait does not have.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// A stream from a connection that was accepted elsewhere, with the options that it has.
    ///
    /// # Errors
    /// When the driver cannot watch it.
    pub fn adopt(&self, accepted: Accepted) -> io::Result<NativeStream> {
        NativeStream::over(&self.core, accepted)
    }

    /// A listener from a listening socket that was made elsewhere. It must be non-blocking. Its streams have its options,
    /// `TCP_NODELAY` among them.
    ///
    /// # Errors
    /// When the driver cannot watch it.
    pub fn adopt_listener(&self, sock: ListenSock) -> NativeListener {
        NativeListener { core: self.core.clone(), sock: Sock::Own(sock) }
    }
}

impl Runtime for Native {
    type Stream = NativeStream;
    type Listener = NativeListener;
    type Datagram = NativeDatagram;
    type Timer = Sleep;

    fn now(&self) -> Instant {
        self.core.now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the runtime that it comes from")]
    fn time_of_day(&self) -> SystemTime {
        SystemTime::now()
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.core.spawn_detached(future);
    }

    fn connect(&self, addr: &ConnectAddr) -> impl Future<Output = io::Result<NativeStream>> + 'static {
        let connecting = Connecting::start(&self.core, addr);
        async move { Ok(NativeStream(connecting?.await?)) }
    }

    fn connect_opened(
        &self,
        opened: Opened,
        addr: &ConnectAddr,
    ) -> impl Future<Output = io::Result<NativeStream>> + 'static {
        let connecting = Connecting::start_with(&self.core, opened.fd, addr);
        async move { Ok(NativeStream(connecting?.await?)) }
    }

    fn listen(&self, addr: &ConnectAddr, options: ListenOptions) -> io::Result<NativeListener> {
        Ok(self.adopt_listener(ListenSock::bind(&self.core, addr, options)?))
    }

    fn listen_on(&self, socket: ListenSocket, backlog: i32) -> io::Result<NativeListener> {
        match socket {
            ListenSocket::Own(fd) => {
                Ok(self.adopt_listener(ListenSock::with_backlog(&self.core, fd, backlog)?))
            }
            ListenSocket::Share(share) => {
                let sock = Sock::Share(ShareSock::new(&self.core, share, backlog)?);
                Ok(NativeListener { core: self.core.clone(), sock })
            }
        }
    }

    fn open_datagram(
        &self,
        ends: &PacketEnds,
        options: &OptSet,
        mode: Option<u32>,
        batch: usize,
    ) -> Result<(NativeDatagram, Vec<Effective>), OpenError> {
        let Opened { fd, target, applied } = open_packet_with(ends, options, mode)?;
        let sock = DatagramSock::new(&self.core, fd, target, batch);
        let sock = sock.map_err(|error| OpenError::Socket { target, error })?;
        Ok((NativeDatagram(sock), applied))
    }

    fn timer(&self, deadline: Instant) -> Sleep {
        self.core.sleep_until(deadline)
    }

    fn tx_queue(&self) -> TxQueue {
        TxQueue::new(self.core.pool().clone())
    }
}

impl Timer for Sleep {
    fn reset(&mut self, deadline: Instant) {
        Sleep::reset(self, deadline);
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Sleep::poll_elapsed(self, cx)
    }
}

/// A TCP or Unix stream on a core.
pub struct NativeStream(StreamSock);

impl NativeStream {
    fn over(core: &Core, accepted: Accepted) -> io::Result<Self> {
        // Its options are its listener's: TCP carries them over, so they cost no system call here.
        StreamSock::new(core, accepted).map(NativeStream)
    }

    /// The socket itself.
    pub fn sock(&self) -> &StreamSock {
        &self.0
    }
}

impl Transport for NativeStream {
    #[inline(always)]
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>> {
        self.0.poll_recv(cx, into, max)
    }

    #[inline(always)]
    fn poll_recv_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        self.0.poll_recv_buf(cx)
    }

    #[inline(always)]
    fn send(&mut self, from: &mut TxQueue) -> io::Result<usize> {
        self.0.send(from)
    }

    #[inline(always)]
    fn send_seg(&mut self, seg: Seg) -> io::Result<usize> {
        self.0.send_seg(seg)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        self.0.poll_sent(cx, level)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }

    fn has_news(&self) -> bool {
        self.0.has_news()
    }

    fn splice_to(&self, to: &Self) -> Option<Splice> {
        self.0.splice_to(&to.0)
    }

    fn set_rx_limit(&mut self, bytes: u32) {
        self.0.set_rx_limit(bytes);
    }

    fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.0.peer_addr()
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        self.0.local_addr()
    }

    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.0.set_options(options, stage, target)
    }

    fn release_cork(&self) -> io::Result<()> {
        self.0.release_cork()
    }

    fn reset_on_drop(&mut self) {
        self.0.reset_on_drop();
    }
}

/// A listening socket on a core. Its streams have its options; one that was made by `listen` sends small segments at once
/// (`TCP_NODELAY`).
pub struct NativeListener {
    core: Core,
    sock: Sock,
}

enum Sock {
    Own(ListenSock),
    Share(ShareSock),
}

impl Sock {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Sock::Own(sock) => sock.poll_accept(cx),
            Sock::Share(sock) => sock.poll_accept(cx),
        }
    }
}

impl NativeListener {
    /// The next connection as a plain descriptor, to be handed to another core.
    pub fn poll_accept_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        self.sock.poll_accept(cx)
    }
}

impl Listener for NativeListener {
    type Stream = NativeStream;
    type Packets = NativeDatagram;

    fn poll_accept_packets(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<NativeDatagram>> {
        let accepted = std::task::ready!(self.sock.poll_accept(cx))?;
        let target = Target { family: Family::Unix, kind: Kind::Seqpacket, role: Role::Accepted };
        let sock = DatagramSock::new(&self.core, accepted.into_fd(), target, PACKETS_BATCH)?;
        Poll::Ready(Ok(NativeDatagram(sock)))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<NativeStream>> {
        let accepted = std::task::ready!(self.sock.poll_accept(cx))?;
        Poll::Ready(NativeStream::over(&self.core, accepted))
    }

    fn pause(&mut self) {
        match &mut self.sock {
            Sock::Own(sock) => sock.pause(),
            Sock::Share(sock) => sock.pause(),
        }
    }

    /// See [`ListenSock::set_room`].
    fn set_room(&mut self, room: usize) {
        match &mut self.sock {
            Sock::Own(sock) => sock.set_room(room),
            Sock::Share(sock) => sock.set_room(room),
        }
    }

    fn queued(&self) -> usize {
        match &self.sock {
            Sock::Own(sock) => sock.queued(),
            Sock::Share(sock) => sock.queued(),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<NativeStream>>> {
        let drained = match &mut self.sock {
            Sock::Own(sock) => sock.poll_drain(cx),
            Sock::Share(sock) => sock.poll_drain(cx),
        };
        let Some(accepted) = std::task::ready!(drained)? else { return Poll::Ready(Ok(None)) };
        Poll::Ready(NativeStream::over(&self.core, accepted).map(Some))
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        match &self.sock {
            Sock::Own(sock) => sock.local_addr(),
            Sock::Share(sock) => sock.local_addr(),
        }
    }
}

/// A socket of datagrams or packets on a core.
pub struct NativeDatagram(DatagramSock);

impl NativeDatagram {
    /// Over a socket that was made elsewhere.
    pub fn new(sock: DatagramSock) -> Self {
        NativeDatagram(sock)
    }

    /// The socket itself.
    pub fn sock(&self) -> &DatagramSock {
        &self.0
    }
}

impl Datagram for NativeDatagram {
    fn poll_recv_batch(&self, cx: &mut Context<'_>, into: &mut Vec<Received>) -> Poll<io::Result<usize>> {
        self.0.poll_recv_batch(cx, into)
    }

    fn poll_send_batch(&self, cx: &mut Context<'_>, batch: &[Transmit]) -> Poll<io::Result<usize>> {
        self.0.poll_send_batch(cx, batch)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.0.with_fd(shutdown_write)
    }

    fn batch(&self) -> usize {
        self.0.batch()
    }

    fn set_max_len(&self, bytes: usize) {
        self.0.set_max_len(bytes);
    }

    fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.0.with_fd(|fd| options.apply_unread(fd, stage, target))
    }

    fn join(&self, group: &Group) -> io::Result<()> {
        self.0.with_fd(|fd| multicast::join(fd, group))
    }

    fn leave(&self, group: &Group) -> io::Result<()> {
        self.0.with_fd(|fd| multicast::leave(fd, group))
    }

    fn set_multicast(&self, hops: u8, is_heard_here: bool) -> io::Result<()> {
        let is_ipv6 = self.0.target().family != Family::V4;
        self.0.with_fd(|fd| multicast::set_multicast(fd, is_ipv6, hops, is_heard_here))
    }

    fn release_cork(&self, options: &OptSet) -> io::Result<()> {
        self.0.with_fd(|fd| options.release_cork(fd))
    }

    fn local_addr(&self) -> io::Result<LocalAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.0.peer_addr()
    }
}

/// Packets of one receive or send on a connection.
const PACKETS_BATCH: usize = 64;
