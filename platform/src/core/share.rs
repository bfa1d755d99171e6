//! One listening socket for several cores: one of them accepts, and deals the connections out.
//!
//! For systems where a socket belongs to the driver of one core for ever, and where no port is shared by several sockets.
//!
//! ```text
//! share:    unused --a core takes it--> open --poll_drain--> draining --dropped--> gone
//! acceptor: none --a share is opened--> accepting --every share drains--> draining --the kernel has none--> ended
//!                                                 --every share is gone--> ended
//!                                                 --its core ends--> none --another share is polled--> accepting
//! ```
//!
//! The acceptor is a task of the core that opened its share first, and stays there as long as the core lives: whether that
//! core's own share is polled, paused, full or gone. A connection goes to the share that holds the fewest, of equals to each
//! in turn, of those that want one and have room: it is attached to a driver there, and never before. It waits in the
//! share's queue, which is bounded; when all are full nothing more is taken from the kernel. A share that is dropped leaves
//! what waits for it to the others.
//!
//! When the acceptor's core ends before the others, another's takes its place over a handle of the same socket. Where the
//! system has tied that to the driver that is gone, the new acceptor looks every [`GLANCE`] whether a connection waits.

mod table;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Accepted, Core, ListenSock, Sleep};
use crate::errno;
use crate::exec::JoinHandle;
use crate::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::op::Errno;
use crate::process;
use crate::socket::{self, LocalAddr};

pub(super) use table::Held;
use table::{Plan, Role, Table};

/// How long an acceptor waits before the next look, where no driver tells it of connections.
const GLANCE: Duration = Duration::from_millis(10);

/// Connections that such an acceptor takes before the other tasks of its core get their turn.
const MAX_TAKEN: usize = 64;

/// A listening socket that no core has yet. It may cross threads.
#[derive(Debug)]
pub enum ListenSocket {
    /// One that a core watches by itself.
    Own(OwnedFd),
    /// A share of one from which a single core accepts for all.
    Share(ListenShare),
}

impl ListenSocket {
    /// A socket for each of so many cores, all of which take from this one. Several handles of it, each watched by its core,
    /// where the system has that; else shares.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn for_cores(fd: OwnedFd, cores: usize) -> io::Result<Vec<ListenSocket>> {
        if cores > 1 && socket::LISTENS_ON_ONE_CORE {
            return Ok(ListenShare::group(fd, cores).into_iter().map(ListenSocket::Share).collect());
        }
        let others = (1..cores).map(|_| fd.try_clone().map(ListenSocket::Own));
        let mut all = others.collect::<io::Result<Vec<_>>>()?;
        all.push(ListenSocket::Own(fd));
        Ok(all)
    }

    /// The listening socket, for a call on it.
    ///
    /// # Errors
    /// It is closed.
    pub fn with_fd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> io::Result<T> {
        match self {
            ListenSocket::Own(fd) => Ok(call(fd.as_fd())),
            ListenSocket::Share(share) => share.with_fd(call),
        }
    }
}

/// One core's share of a listening socket. It may cross threads.
///
/// Dropping the last one closes the socket.
pub struct ListenShare {
    table: Arc<Table<OwnedFd>>,
    at: usize,
}

impl std::fmt::Debug for ListenShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListenShare({})", self.at)
    }
}

impl ListenShare {
    /// So many shares of a non-blocking listening socket.
    pub fn group(fd: OwnedFd, count: usize) -> Vec<ListenShare> {
        let table = Arc::new(Table::new(fd, count));
        (0..count).map(|at| ListenShare { table: table.clone(), at }).collect()
    }

    /// The listening socket, for a call on it.
    ///
    /// # Errors
    /// It is closed.
    pub fn with_fd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> io::Result<T> {
        self.table.with_socket(|fd| call(fd.as_fd())).ok_or_else(|| Errno(errno::EBADF).into())
    }
}

impl Drop for ListenShare {
    fn drop(&mut self) {
        self.table.leave(self.at);
    }
}

/// A share of a listening socket on its core. Dropping it stops listening here; connections that wait for it go to the other
/// shares, or are closed where there is none.
pub struct ShareSock {
    core: Core,
    share: ListenShare,
    backlog: i32,
    /// The acceptor, where it is this share's.
    acceptor: Option<JoinHandle<()>>,
}

impl ShareSock {
    /// Takes connections of a share on this core. The first becomes the acceptor, and costs a task, a mutex and a second
    /// handle of the socket; nothing is taken from the kernel before somebody accepts.
    ///
    /// # Errors
    /// When the driver cannot watch the socket, or out of descriptors.
    pub fn new(core: &Core, share: ListenShare, backlog: i32) -> io::Result<Self> {
        share.table.open(share.at);
        let mut sock = ShareSock { core: core.clone(), share, backlog, acceptor: None };
        sock.take_role()?;
        Ok(sock)
    }

    /// Becomes the acceptor where there is none.
    fn take_role(&mut self) -> io::Result<()> {
        let ListenShare { table, at } = &self.share;
        let Some(role) = table.take_role(*at) else { return Ok(()) };
        // From here on its drop gives the role back.
        let (core, table) = (self.core.clone(), table.clone());
        let mut acceptor = AcceptTask { core, table, source: Source::None, held: None };
        acceptor.source = self.source(role)?;
        self.acceptor = Some(self.core.spawn(acceptor));
        Ok(())
    }

    fn source(&self, role: Role) -> io::Result<Source> {
        let duplicate = || self.share.with_fd(|fd| fd.try_clone_to_owned())?;
        match ListenSock::with_backlog(&self.core, duplicate()?, self.backlog) {
            Ok(sock) => Ok(Source::Driver(sock)),
            Err(_) if role == Role::Successor => {
                Ok(Source::Glances(duplicate()?, self.core.sleep(Duration::ZERO)))
            }
            Err(error) => Err(error),
        }
    }

    /// The next connection. Dropping the future loses none.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        self.take_role()?;
        let taken = std::task::ready!(self.share.table.poll_accept(self.share.at, cx))?;
        Poll::Ready(Ok(Accepted::dealt(taken)))
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What the kernel says of the listening socket; one share is told. Running out of descriptors is not an error.
    pub async fn accept(&mut self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Wants nothing until the next accept; what was given to it waits.
    pub fn pause(&mut self) {
        self.share.table.pause(self.share.at);
    }

    /// How many more connections it may be given, as [`ListenSock::set_room`]. The acceptor takes no more from the kernel than
    /// all that want some have room for; a burst that has begun may, and waits with it.
    pub fn set_room(&mut self, room: usize) {
        self.share.table.set_room(self.share.at, room);
    }

    /// Connections that were taken from the kernel and wait for this share's accept.
    pub fn queued(&self) -> usize {
        self.share.table.queued(self.share.at)
    }

    /// What waits for this share, and when no other takes connections any more, for the socket; `Ok(None)` once nothing
    /// does. For its end: call until `None`, then drop it at once.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Accepted>>> {
        self.take_role()?;
        let taken = std::task::ready!(self.share.table.poll_drain(self.share.at, cx))?;
        Poll::Ready(Ok(taken.map(Accepted::dealt)))
    }

    /// Our address. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        self.share.with_fd(socket::local_addr)?
    }
}

impl Drop for ShareSock {
    fn drop(&mut self) {
        // Otherwise it goes on for the others.
        if self.share.table.leave(self.share.at)
            && let Some(acceptor) = self.acceptor.take()
        {
            acceptor.abort();
        }
    }
}

/// Where an acceptor has connections from.
enum Source {
    None,
    Driver(ListenSock),
    Glances(OwnedFd, Sleep),
}

/// Takes connections from the kernel, and deals them out, as long as there are shares.
struct AcceptTask {
    core: Core,
    table: Arc<Table<OwnedFd>>,
    source: Source,
    /// What was taken when the share that wanted it had just gone.
    held: Option<OwnedFd>,
}

impl AcceptTask {
    /// Ready when it has ended.
    fn poll_driver(
        table: &Table<OwnedFd>,
        held: &mut Option<OwnedFd>,
        sock: &mut ListenSock,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let taken = match table.plan(sock.queued() + usize::from(held.is_some()), cx) {
                Plan::End => return Poll::Ready(()),
                Plan::Wait => return Poll::Pending,
                Plan::Drain | Plan::Accept { deals: true, .. } if held.is_some() => {
                    *held = held.take().and_then(|taken| table.deal(taken).err());
                    continue;
                }
                Plan::Drain => match std::task::ready!(sock.poll_drain(cx)) {
                    Ok(None) => {
                        table.drained();
                        return Poll::Ready(());
                    }
                    Ok(Some(taken)) => Ok(taken),
                    Err(error) => Err(error),
                },
                Plan::Accept { room, deals } => {
                    sock.set_room(room);
                    if !deals {
                        return Poll::Pending;
                    }
                    std::task::ready!(sock.poll_accept(cx))
                }
            };
            match taken {
                Ok(taken) => *held = table.deal(taken.into_fd()).err(),
                Err(error) => table.fail(errno_of(&error)),
            }
        }
    }

    /// Looks whether a connection waits, and at which time again. Those that wait are taken as [`AcceptTask::poll_driver`] does.
    fn poll_glances(
        core: &Core,
        table: &Table<OwnedFd>,
        held: &mut Option<OwnedFd>,
        (fd, sleep): (&OwnedFd, &mut Sleep),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        for _ in 0..MAX_TAKEN {
            let plan = table.plan(usize::from(held.is_some()), cx);
            match plan {
                Plan::End => return Poll::Ready(()),
                Plan::Wait | Plan::Accept { deals: false, .. } => return Poll::Pending,
                Plan::Drain | Plan::Accept { .. } if held.is_some() => {
                    *held = held.take().and_then(|taken| table.deal(taken).err());
                    continue;
                }
                Plan::Drain => {}
                Plan::Accept { .. } => std::task::ready!(sleep.poll_elapsed(cx)),
            }
            match socket::accept_now(fd.as_fd()) {
                Ok(Some(taken)) => *held = table.deal(taken).err(),
                Ok(None) if plan == Plan::Drain => {
                    table.drained();
                    return Poll::Ready(());
                }
                Err(error) if plan == Plan::Drain || !process::is_shortage(&error) => {
                    table.fail(errno_of(&error));
                }
                Ok(None) | Err(_) => sleep.reset(core.now() + GLANCE),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for AcceptTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let AcceptTask { core, table, source, held } = &mut *self;
        match source {
            Source::None => Poll::Ready(()),
            Source::Driver(sock) => Self::poll_driver(table, held, sock, cx),
            Source::Glances(fd, sleep) => Self::poll_glances(core, table, held, (fd, sleep), cx),
        }
    }
}

impl Drop for AcceptTask {
    fn drop(&mut self) {
        // The last who wants it may have come back.
        if let Some(taken) = self.held.take() {
            drop(self.table.deal(taken));
        }
        let had_none = matches!(self.source, Source::None);
        // Its handle first: whoever takes its place may attach the socket again.
        self.source = Source::None;
        // Where it could not begin, who asked is told; the others would fail alike.
        self.table.vacate(!had_none);
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(errno::EINVAL))
}
