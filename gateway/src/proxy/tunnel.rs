//! What follows a 101, or a 2xx to CONNECT: bytes both ways until both sides have ended.
//!
//! ```text
//! each way:  Open --its sender ended--> Ending --everything sent, end passed on--> Ended
//! both Ended: done        a reset of one side resets the other        silence: closed after `tunnel_idle`
//! ```

use std::task::{Context, Poll, ready};
use std::time::Instant;

use ringport::http::ClientStream;
use ringport::net::Stream;
use ringport::proto::http1::{ClientEvent, ServerEvent};
use ringport::runtime::native::NativeStream;
use ringport::runtime::{Transport, TxLevel};

use super::session::{HIGH_WATER, Session};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Ending,
    Ended,
}

pub(super) struct Tunnel<'a> {
    session: &'a mut Session,
    origin: &'a mut ClientStream<NativeStream>,
    to_origin: Way,
    to_client: Way,
    last_progress: Instant,
    /// Bytes that went to the client.
    pub body_bytes: u64,
}

impl<'a> Tunnel<'a> {
    /// Both sides have switched.
    pub(super) fn new(session: &'a mut Session, origin: &'a mut ClientStream<NativeStream>) -> Self {
        let last_progress = session.shared.core.now();
        Tunnel { session, origin, to_origin: Way::Open, to_client: Way::Open, last_progress, body_bytes: 0 }
    }

    /// Passes bytes until the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        let up = self.poll_to_origin(cx);
        let down = self.poll_to_client(cx);
        match (up, down) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(TunnelEnd::Both),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        let Some(limit) = self.session.shared.spec.timeouts().tunnel_idle else { return Poll::Pending };
        self.session.timer.reset(self.last_progress + limit);
        self.session.timer.poll_elapsed(cx).map(|()| TunnelEnd::Idle)
    }

    fn poll_to_origin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelEnd>> {
        while self.to_origin == Way::Open {
            let room = ready!(self.origin.poll_sent(cx, TxLevel::Below(HIGH_WATER)));
            room.map_err(|_| TunnelEnd::OriginReset)?;
            let event = ready!(self.session.client.poll_event(cx)).map_err(|_| TunnelEnd::ClientReset)?;
            self.last_progress = self.session.shared.core.now();
            match event {
                ServerEvent::Tunnel(data) => {
                    self.origin.send_data(data).map_err(|_| TunnelEnd::OriginReset)?;
                    self.origin.start_send().map_err(|_| TunnelEnd::OriginReset)?;
                }
                // The machine gives nothing else after a switch.
                _ => self.to_origin = Way::Ending,
            }
        }
        let end = poll_end(self.origin.stream(), &mut self.to_origin, cx);
        end.map_err(|_| TunnelEnd::OriginReset)
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelEnd>> {
        while self.to_client == Way::Open {
            let room = ready!(self.session.client.poll_sent(cx, TxLevel::Below(HIGH_WATER)));
            room.map_err(|_| TunnelEnd::ClientReset)?;
            let event = ready!(self.origin.poll_event(cx)).map_err(|_| TunnelEnd::OriginReset)?;
            self.last_progress = self.session.shared.core.now();
            match event {
                ClientEvent::Tunnel(data) => {
                    self.body_bytes += data.len() as u64;
                    self.session.client.send_data(data).map_err(|_| TunnelEnd::ClientReset)?;
                    self.session.client.start_send().map_err(|_| TunnelEnd::ClientReset)?;
                }
                // As above.
                _ => self.to_client = Way::Ending,
            }
        }
        let end = poll_end(self.session.client.stream(), &mut self.to_client, cx);
        end.map_err(|_| TunnelEnd::ClientReset)
    }
}

/// Sends what waits, then passes the end on.
fn poll_end(
    stream: &mut Stream<NativeStream>,
    way: &mut Way,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    if *way == Way::Ending {
        ready!(stream.transport().poll_shutdown(cx))?;
        *way = Way::Ended;
    }
    Poll::Ready(Ok(()))
}
