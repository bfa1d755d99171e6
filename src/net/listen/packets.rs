//! Listeners whose connections are sequences of packets.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use ringport_platform::socket::SocketFile;
use ringport_platform::sockopt::{Family, Kind, Role, Stage, Target};

use super::limits::{Shared, count};
use super::{AcceptError, ListenError, ListenHandle, ListenPart, Plan};
use crate::net::PacketSocket;
use crate::runtime::{Datagram as _, Listener as _, LocalAddr, Runtime};
use crate::spec::ListenSpec;

/// Takes connections of a `unixpacket` listener, on one core. Each is a [`PacketSocket`], which keeps every packet whole.
///
/// Clients of Unix sockets have no address, so there are no lists of clients, no PROXY protocol and no limit for each
/// address. The check refuses a spec that asks for these, or for deadlines. Dropping it stops listening on this core. Linux.
pub struct PacketListener<R: Runtime> {
    /// `None` once it is closed.
    inner: Option<R::Listener>,
    index: usize,
    local: LocalAddr,
    handle: ListenHandle,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    file: Option<Arc<SocketFile>>,
    /// What was taken when another core had used the last place up.
    held: Option<R::Datagram>,
    registered: Option<Waker>,
}

impl<R: Runtime> PacketListener<R> {
    /// Listens as the spec says, on this core alone.
    ///
    /// # Errors
    /// As [`ListenPart::open`] and [`PacketListener::new`]. No descriptor and no file is left.
    pub fn from_spec(spec: &ListenSpec, runtime: &R) -> Result<Self, ListenError> {
        let mut parts = ListenPart::open(spec, 1)?;
        PacketListener::new(parts.pop().expect("a part for each core"), runtime)
    }

    /// Takes connections of this part on this core. Nothing is taken from the kernel before the first accept.
    ///
    /// # Errors
    /// [`ListenError::Kind`] for a part of streams, [`ListenError::Driver`] where the driver cannot watch it. The part is
    /// closed.
    pub fn new(part: ListenPart, runtime: &R) -> Result<Self, ListenError> {
        is_of(&part, Kind::Seqpacket)?;
        let handle = part.handle();
        let ListenPart { socket, index, local, backlog, plan, shared, file, .. } = part;
        let inner = runtime.listen_on(socket, backlog).map_err(ListenError::Driver)?;
        Ok(PacketListener {
            inner: Some(inner),
            index,
            local,
            handle,
            plan,
            shared,
            file,
            held: None,
            registered: None,
        })
    }

    /// Where it listens. No system call.
    pub fn local_addr(&self) -> &LocalAddr {
        &self.local
    }

    /// A handle that closes the whole listener, changes its rules and reads its counters, from any thread.
    pub fn handle(&self) -> ListenHandle {
        self.handle.clone()
    }

    /// Closes the whole listener, on every core. Whoever waits in accept gets [`AcceptError::Closed`]. Connections that were
    /// accepted live on.
    pub fn close(&mut self) {
        self.shared.close();
        self.stop();
    }

    fn stop(&mut self) {
        self.held = None;
        // Before the socket: a new one at the same path then never finds the old one's file gone from under it.
        self.file = None;
        self.inner = None;
    }

    /// The next connection that the limit has a place for. Dropping the future loses no connection.
    ///
    /// # Errors
    /// After [`AcceptError::Closed`] nothing more comes. After any other error the next accept may work.
    pub async fn accept(&mut self) -> Result<PacketSocket<R::Datagram>, AcceptError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`PacketListener::accept`].
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<PacketSocket<R::Datagram>, AcceptError>> {
        if !self.registered.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            self.shared.register(self.index, cx);
        }
        loop {
            if self.shared.is_closed() {
                self.stop();
            }
            let Some(inner) = self.inner.as_mut() else { return Poll::Ready(Err(AcceptError::Closed)) };
            let waits = self.shared.waits();
            if waits {
                inner.set_room(self.shared.left().saturating_sub(inner.queued()));
                if self.shared.left() == 0 {
                    return Poll::Pending;
                }
            }
            let datagram = match self.held.take() {
                Some(held) => held,
                None => {
                    let datagram = ready!(inner.poll_accept_packets(cx)).map_err(AcceptError::Io)?;
                    if let Some((options, target)) = &self.plan.connected {
                        let set = datagram.set_options(options, Stage::Connected, *target);
                        set.map_err(AcceptError::Option)?;
                    }
                    datagram
                }
            };
            match self.shared.take(None) {
                Ok(place) => {
                    count(&self.shared.counts.accepted);
                    return Poll::Ready(Ok(PacketSocket::accepted(datagram, place)));
                }
                Err(_) if waits => self.held = Some(datagram),
                Err(_) => count(&self.shared.counts.over_limit),
            }
        }
    }
}

impl<R: Runtime> Drop for PacketListener<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Streams do not keep packets whole, so each sort of listener has its own type.
pub(super) fn is_of(part: &ListenPart, kind: Kind) -> Result<(), ListenError> {
    let fault = |error| {
        let target = Target { family: Family::Unix, kind, role: Role::Listener };
        ListenError::Socket { target, error }
    };
    let target = part.socket.with_fd(Target::of).map_err(fault)?.map_err(fault)?;
    if target.kind == kind { Ok(()) } else { Err(ListenError::Kind(target)) }
}
