//! What tasks hold: a listening socket, a connecting one, a connected one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Core;
use super::share::Held;
use crate::buf::{PoolBuf, RxQueue, Seg, TxQueue};
use crate::driver::ConnectAddr;
use crate::errno;
use crate::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use crate::op::Errno;
use crate::socket::{self, ListenOptions, LocalAddr};
use crate::sockets::{CloseMode, Role, SockId, TxLevel};
use crate::sockopt::{ApplyError, Opt, OptSet, Setting, Stage, Target};
use crate::splice::Splice;

/// A slot with its owner; dropping it closes the socket.
pub(crate) struct Owned {
    core: Core,
    id: SockId,
    on_drop: CloseMode,
}

impl Owned {
    pub(crate) fn new(core: &Core, fd: OwnedFd, role: Role) -> io::Result<Self> {
        let raw = fd.as_raw_fd();
        let id = core.0.sockets.borrow_mut().insert(fd, role);
        if let Err(error) = core.0.driver.borrow_mut().attach(raw, id.index) {
            core.0.sockets.borrow_mut().remove_unused(id);
            return Err(error);
        }
        Ok(Owned { core: core.clone(), id, on_drop: CloseMode::Graceful })
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn id(&self) -> SockId {
        self.id
    }

    /// Open as long as this owner lives.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.core.0.sockets.borrow_mut().raw_fd(self.id)
    }

    pub(crate) fn with_fd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        // SAFETY: the slot keeps the descriptor open as long as this owner lives.
        call(unsafe { BorrowedFd::borrow_raw(self.raw_fd()) })
    }

    fn close(&self, mode: CloseMode) {
        self.core.close_socket(self.id, mode);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.close(self.on_drop);
    }
}

/// A descriptor that a listener took and no core has yet: it may cross threads.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    /// Where it was dealt out, to be counted as long as it is open.
    held: Option<Held>,
}

impl Accepted {
    /// A connected stream socket from elsewhere (inherited, or made by a test).
    pub fn from_fd(fd: OwnedFd) -> Self {
        Accepted { fd, held: None }
    }

    /// The plain descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(super) fn dealt((fd, held): (OwnedFd, Held)) -> Self {
        Accepted { fd, held: Some(held) }
    }
}

/// A listening socket of this core. Dropping it stops listening; connections taken but not accepted are closed.
pub struct ListenSock(Owned);

impl ListenSock {
    /// Starts to listen.
    ///
    /// # Errors
    /// The kernel's: address in use, permission.
    pub fn bind(core: &Core, addr: &ConnectAddr, options: ListenOptions) -> io::Result<Self> {
        let fd = socket::listen(addr, options)?;
        let role = Role::Listener { burst_len: socket::burst_len(options.backlog) };
        Ok(ListenSock(Owned::new(core, fd, role)?))
    }

    /// Takes over a non-blocking listening socket, with the default backlog.
    ///
    /// # Errors
    /// When the driver cannot watch it.
    pub fn from_fd(core: &Core, fd: OwnedFd) -> io::Result<Self> {
        ListenSock::with_backlog(core, fd, ListenOptions::default().backlog)
    }

    /// Takes over a non-blocking listening socket that has such a backlog.
    ///
    /// # Errors
    /// When the driver cannot watch it.
    pub fn with_backlog(core: &Core, fd: OwnedFd, backlog: i32) -> io::Result<Self> {
        let role = Role::Listener { burst_len: socket::burst_len(backlog) };
        Ok(ListenSock(Owned::new(core, fd, role)?))
    }

    /// The next connection. Dropping the future loses none.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let mut sockets = self.0.core.0.sockets.borrow_mut();
        sockets
            .poll_accept(self.0.id, cx)
            .map(|result| result.map(Accepted::from_fd).map_err(io::Error::from))
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What the kernel says of the listening socket. Running out of descriptors is not an error: it pauses and goes on.
    pub async fn accept(&mut self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Takes no more from the kernel until the next accept; what was taken waits.
    pub fn pause(&mut self) {
        self.0.core.0.sockets.borrow_mut().pause_accept(self.0.id);
    }

    /// How many more connections this listener may take from the kernel, beside those that wait in its queue: each is a
    /// descriptor. Each that it takes uses one up, so tell it again as connections end. No limit at first; 0 pauses.
    ///
    /// With more room than one turn can take (see [`socket::burst_len`]) all that wait are taken at once, with less one
    /// in a turn. A turn that has begun when room is taken back may go beyond it: listeners that share a room, on several
    /// cores, get a share each.
    pub fn set_room(&mut self, room: usize) {
        self.0.core.0.sockets.borrow_mut().set_accept_room(self.0.id, room);
    }

    /// Connections that were taken from the kernel and wait for [`ListenSock::poll_accept`].
    pub fn queued(&self) -> usize {
        self.0.core.0.sockets.borrow_mut().accept_queued(self.0.id)
    }

    /// What the kernel has taken for this listener so far; `Ok(None)` once nothing waits and nothing is armed.
    ///
    /// For the end of a listener: call until `None`, then drop it at once; a connection that arrives in between is
    /// reset.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Accepted>>> {
        let queued = self.0.core.0.sockets.borrow_mut().poll_drained(self.0.id, cx);
        match std::task::ready!(queued) {
            Some(fd) => Poll::Ready(Ok(Some(Accepted::from_fd(fd)))),
            None => Poll::Ready(self.0.with_fd(socket::accept_now).map(|fd| fd.map(Accepted::from_fd))),
        }
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.0.with_fd(socket::local_addr)
    }

    /// A second descriptor of the same listening socket.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.with_fd(|fd| fd.try_clone_to_owned())
    }
}

/// A connect under way. Dropping it cancels: the descriptor is closed when the kernel has let go.
pub struct Connecting(Option<Owned>);

impl Connecting {
    /// Starts to connect.
    ///
    /// # Errors
    /// Out of descriptors, or an address that no socket can have.
    pub fn start(core: &Core, addr: &ConnectAddr) -> io::Result<Self> {
        Self::start_with(core, socket::stream_for(addr)?, addr)
    }

    /// Connects a socket that the caller made and bound. It must be non-blocking.
    ///
    /// # Errors
    /// An address that no socket can have, or the driver cannot watch it; the socket is closed then.
    pub fn start_with(core: &Core, fd: OwnedFd, addr: &ConnectAddr) -> io::Result<Self> {
        socket::sock_addr(addr)?;
        let owned = Owned::new(core, fd, Role::Stream)?;
        core.0.sockets.borrow_mut().start_connect(owned.id, addr.clone());
        Ok(Connecting(Some(owned)))
    }
}

impl Future for Connecting {
    type Output = io::Result<StreamSock>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(owned) = self.0.as_ref() else { return Poll::Ready(Err(Errno(errno::EBADF).into())) };
        let result = {
            let mut sockets = owned.core.0.sockets.borrow_mut();
            std::task::ready!(sockets.poll_connect(owned.id, cx))
        };
        let owned = self.0.take();
        match (result, owned) {
            (Ok(()), Some(owned)) => Poll::Ready(Ok(StreamSock { owned, shut: false, _held: None })),
            (Err(errno), _) => Poll::Ready(Err(errno.into())),
            (Ok(()), None) => Poll::Ready(Err(Errno(errno::EBADF).into())),
        }
    }
}

/// A connected stream socket of this core. Dropping it sends what waits (bounded by the core's linger), then closes.
pub struct StreamSock {
    owned: Owned,
    shut: bool,
    _held: Option<Held>,
}

impl StreamSock {
    /// Takes over a connection.
    ///
    /// # Errors
    /// When the driver cannot watch it; the connection is closed then.
    pub fn new(core: &Core, accepted: Accepted) -> io::Result<Self> {
        let Accepted { fd, held } = accepted;
        Ok(StreamSock { owned: Owned::new(core, fd, Role::Stream)?, shut: false, _held: held })
    }

    /// The core this socket lives on.
    pub fn core(&self) -> &Core {
        &self.owned.core
    }

    /// Sets what of `options` belongs to a stage on such a socket. A system call for each option, none where there is none.
    ///
    /// # Errors
    /// The option that the kernel refused, and why.
    pub fn set_options(&self, options: &OptSet, stage: Stage, target: Target) -> Result<(), ApplyError> {
        self.owned.with_fd(|fd| options.apply_unread(fd, stage, target))
    }

    /// Sends what `TCP_CORK` holds back, and holds back again; nothing where it is off. One system call, three where it is on.
    ///
    /// # Errors
    /// The kernel's, as of a send.
    pub fn release_cork(&self) -> io::Result<()> {
        let on = Setting::from(true);
        self.owned.with_fd(|fd| match crate::sockopt::get(fd, Opt::TcpCork) {
            Ok(held) if held == on => {
                crate::sockopt::set(fd, Opt::TcpCork, &Setting::Off)?;
                crate::sockopt::set(fd, Opt::TcpCork, &on)
            }
            // Other families do not have it.
            Ok(_) | Err(_) => Ok(()),
        })
    }

    /// What the kernel holds for an option. One system call.
    ///
    /// # Errors
    /// The kernel's: no such option on such a socket.
    pub fn option(&self, opt: Opt) -> io::Result<Setting> {
        self.owned.with_fd(|fd| crate::sockopt::get(fd, opt))
    }

    /// Bytes that may wait here for their reader before the peer is held back, from now on always so many. Unless set:
    /// 64 KiB, or 256 KiB while the reader has taken everything whenever that was used up and the pool has room.
    pub fn set_rx_limit(&self, bytes: u32) {
        self.owned.core.0.sockets.borrow_mut().set_rx_limit(self.owned.id, bytes);
    }

    /// Moves at most `max` received bytes to `into`. `Ok(true)`: some came; `Ok(false)`: the peer's end, for good.
    ///
    /// Taking bytes gives the credit for as many back to the peer.
    #[inline(always)]
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut RxQueue, max: usize) -> Poll<io::Result<bool>> {
        let mut sockets = self.owned.core.0.sockets.borrow_mut();
        sockets.poll_recv(self.owned.id, cx, into, max).map_err(io::Error::from)
    }

    /// The next contiguous received bytes; `Ok(None)`: the peer's end, for good. Taking them gives credit back.
    #[inline(always)]
    pub fn poll_recv_buf(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<PoolBuf>>> {
        let mut sockets = self.owned.core.0.sockets.borrow_mut();
        sockets.poll_recv_buf(self.owned.id, cx).map_err(io::Error::from)
    }

    /// Hands over what `from` holds; it goes out with this turn. Never waits: see [`StreamSock::poll_sent`]. Returns how
    /// many bytes wait here now.
    ///
    /// # Errors
    /// What an earlier send met: `EPIPE`, `ECONNRESET`. `from` is emptied all the same.
    #[inline(always)]
    pub fn send(&self, from: &mut TxQueue) -> io::Result<usize> {
        // Nothing to send is no fault: a flush or a second shutdown behind the first comes here too.
        if self.shut && !from.is_empty() {
            from.clear();
            return Err(Errno(errno::EPIPE).into());
        }
        Ok(self.owned.core.0.sockets.borrow_mut().send(self.owned.id, from)?)
    }

    /// As [`StreamSock::send`], for one segment.
    ///
    /// # Errors
    /// What an earlier send met. The segment is dropped all the same.
    #[inline(always)]
    pub fn send_seg(&self, seg: Seg) -> io::Result<usize> {
        if self.shut && !seg.is_empty() {
            return Err(Errno(errno::EPIPE).into());
        }
        Ok(self.owned.core.0.sockets.borrow_mut().send_seg(self.owned.id, seg)?)
    }

    /// Waits until little enough waits here to be sent.
    pub fn poll_sent(&self, cx: &mut Context<'_>, level: TxLevel) -> Poll<io::Result<()>> {
        let mut sockets = self.owned.core.0.sockets.borrow_mut();
        sockets.poll_sent(self.owned.id, cx, level).map_err(io::Error::from)
    }

    /// Bytes that wait here to be sent: whether a slow peer takes any shows in this.
    pub fn unsent(&self) -> usize {
        self.owned.core.0.sockets.borrow_mut().unsent(self.owned.id)
    }

    /// Bytes that the kernel has, and that the peer has not acknowledged: whether it takes any shows in this. One system
    /// call; 0 where the kernel does not tell. tcp(7), `SIOCOUTQ`.
    pub fn unacknowledged(&self) -> usize {
        self.owned.with_fd(socket::unacknowledged)
    }

    /// Whether the peer has said something, or ended, that no receive has brought: exact where [`StreamSock::has_news`]
    /// is not, as just after a splice. One system call.
    pub fn has_unread(&self) -> bool {
        self.owned.with_fd(socket::is_readable)
    }

    /// Sends what waits, then tells the peer that no more comes. Idempotent.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(self.poll_sent(cx, TxLevel::Empty))?;
        self.shut = true;
        Poll::Ready(self.owned.with_fd(socket::shutdown_write))
    }

    /// Begins to pass what comes here to `sink` past user space. `None` where that is switched off, the two are of different
    /// cores, or it has been begun already.
    pub fn splice_to(&self, sink: &StreamSock) -> Option<Splice> {
        let core = &self.owned.core;
        let together = std::rc::Rc::ptr_eq(&core.0, &sink.owned.core.0);
        if !together || sink.shut {
            return None;
        }
        Splice::new(core.clone(), self.owned.id, sink.owned.id)
    }

    /// Whether bytes wait, or the peer has ended or reset: an idle connection with news must not be reused.
    ///
    /// Exact as of the last turn, once a receive has been polled.
    pub fn has_news(&self) -> bool {
        self.owned.core.0.sockets.borrow_mut().has_news(self.owned.id)
    }

    /// Drops what waits and resets the connection.
    pub fn reset(mut self) {
        self.reset_on_drop();
    }

    /// From now on dropping the socket resets the connection, so that the peer cannot take what it got for the whole.
    pub fn reset_on_drop(&mut self) {
        self.owned.on_drop = CloseMode::Reset;
    }

    /// The peer's address. One system call.
    ///
    /// # Errors
    /// `ENOTCONN` when the peer is gone.
    pub fn peer_addr(&self) -> io::Result<LocalAddr> {
        self.owned.with_fd(socket::peer_addr)
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.owned.with_fd(socket::local_addr)
    }
}
