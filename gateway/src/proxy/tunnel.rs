//! What follows a 101, or a 2xx to CONNECT: bytes both ways until both sides have ended. A reset of one side resets the
//! other; silence closes both after `tunnel_idle`.

use std::task::{Context, Poll};

use ringport::http::{ClientStream, ServerStream};
use ringport::net::{Relay, RelayError, Relayed};
use ringport_platform::core::CoreTime;

use super::ClientConn;
use super::pool::OriginConn;
use super::visit::Visit;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunnelEnd {
    /// Both sides said all that they had to say.
    Both,
    /// Nothing moved for too long.
    Idle,
    ClientReset,
    OriginReset,
}

pub(super) struct Tunnel<'a> {
    visit: &'a mut Visit,
    client: &'a mut ServerStream<ClientConn>,
    origin: &'a mut ClientStream<OriginConn>,
    relay: Relay,
    /// What had been passed on when something was, last.
    relayed: Relayed,
    last_progress: CoreTime,
}

impl<'a> Tunnel<'a> {
    /// Both sides have switched.
    pub(super) fn new(
        visit: &'a mut Visit,
        client: &'a mut ServerStream<ClientConn>,
        origin: &'a mut ClientStream<OriginConn>,
    ) -> Self {
        let last_progress = visit.shared.core.time();
        Tunnel { visit, client, origin, relay: Relay::new(), relayed: Relayed::default(), last_progress }
    }

    /// Passes bytes until the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        // The machines take no part any more, and hold no bytes: those lie in the streams.
        match self.relay.poll(cx, self.client.stream(), self.origin.stream()) {
            Poll::Ready(Ok(())) => return Poll::Ready(TunnelEnd::Both),
            Poll::Ready(Err(RelayError::First(_))) => return Poll::Ready(TunnelEnd::ClientReset),
            Poll::Ready(Err(_)) => return Poll::Ready(TunnelEnd::OriginReset),
            Poll::Pending => {}
        }
        let relayed = self.relay.relayed();
        if relayed != self.relayed {
            (self.relayed, self.last_progress) = (relayed, self.visit.shared.core.time());
        }
        let Some(limit) = self.visit.config.spec.timeouts().tunnel_idle else { return Poll::Pending };
        self.visit.timer.reset_to(self.last_progress + limit);
        self.visit.timer.poll_elapsed(cx).map(|()| TunnelEnd::Idle)
    }

    /// Bytes that went to the client.
    pub(super) fn body_bytes(&self) -> u64 {
        self.relay.relayed().to_first
    }
}
