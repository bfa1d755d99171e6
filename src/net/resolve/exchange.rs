//! A look-up at name servers, driven over sockets: each question has a socket of its own, and with it a port that the kernel
//! chose at random (RFC 5452 9.2).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use ringport_platform::sockopt::OptSet;
use ringport_platform::timer::later;

use crate::net::Stream;
use crate::proto::dns::{Ask, Family, Found, Lookup, LookupFault};
use crate::runtime::{Datagram, Ends, PacketEnds, Received, Runtime, Timer, Transmit};

/// Asks until there is a result. Dropping the future closes every socket.
pub(super) async fn look_up<R: Runtime>(
    runtime: &R,
    mut lookup: Lookup,
    servers: &[SocketAddr],
) -> Result<Found, LookupFault> {
    let mut exchanges = [const { None::<Exchange<R>> }; 2];
    let mut timer = runtime.timer(later(runtime.now(), std::time::Duration::MAX));
    poll_fn(|cx| {
        let mut now = runtime.now();
        loop {
            while let Some(ask) = lookup.poll_ask(now, rand::random()) {
                let (at, family) = (ask.family as usize, ask.family);
                exchanges[at] = match Exchange::begin(runtime, ask, servers) {
                    Ok(exchange) => Some(exchange),
                    Err(error) => {
                        tracing::debug!(%error, "resolver: no socket");
                        lookup.handle_failed(now, family);
                        None
                    }
                };
            }
            if let Some(end) = lookup.poll_end() {
                return Poll::Ready(end);
            }
            let mut is_news = false;
            for family in [Family::V6, Family::V4] {
                let Some(exchange) = &mut exchanges[family as usize] else { continue };
                let Poll::Ready(came) = exchange.poll(cx) else { continue };
                is_news = true;
                match came {
                    Ok(message) => lookup.handle_message(now, family, &message),
                    Err(error) => {
                        tracing::debug!(%error, "resolver: a server cannot be asked");
                        exchanges[family as usize] = None;
                        lookup.handle_failed(now, family);
                    }
                }
            }
            if is_news {
                continue;
            }
            let Some(timeout) = lookup.poll_timeout() else { return Poll::Pending };
            timer.reset(timeout);
            std::task::ready!(timer.poll_elapsed(cx));
            // The timer has the last word: the runtime's clock may be a turn behind.
            now = now.max(timeout);
            lookup.handle_timeout(now);
        }
    })
    .await
}

/// A question under way.
enum Exchange<R: Runtime> {
    Udp { socket: R::Datagram, question: Vec<Transmit>, came: Vec<Received> },
    Tcp(Pin<Box<dyn Future<Output = io::Result<Vec<u8>>>>>),
}

impl<R: Runtime> Exchange<R> {
    fn begin(runtime: &R, ask: Ask, servers: &[SocketAddr]) -> io::Result<Self> {
        let server = servers[ask.server];
        if ask.is_tcp {
            return Ok(Exchange::Tcp(Box::pin(by_tcp(runtime.clone(), server, ask.message))));
        }
        let ends = PacketEnds::Udp(Ends::Connected { peer: server, local: None });
        let (socket, _) = runtime.open_datagram(&ends, &OptSet::new(), None, 1)?;
        socket.set_max_len(MAX_DATAGRAM);
        Ok(Exchange::Udp { socket, question: vec![Transmit::new(ask.message)], came: Vec::new() })
    }

    /// A message from the server; there may be another after it, unless it came by TCP.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        match self {
            Exchange::Tcp(future) => future.as_mut().poll(cx).map(|done| {
                *self = Exchange::Tcp(Box::pin(std::future::pending()));
                done
            }),
            Exchange::Udp { socket, question, came } => {
                if !question.is_empty() {
                    std::task::ready!(socket.poll_send_batch(cx, question))?;
                    question.clear();
                }
                std::task::ready!(socket.poll_recv_batch(cx, came))?;
                let received = came.pop().expect("a receive that is ready has brought one");
                Poll::Ready(Ok(received.bytes.to_vec()))
            }
        }
    }
}

/// RFC 7766 8: the length in front, with it in one segment.
async fn by_tcp<R: Runtime>(runtime: R, server: SocketAddr, question: Vec<u8>) -> io::Result<Vec<u8>> {
    let transport = runtime.connect(&server.into()).await?;
    let mut stream = Stream::new(&runtime, transport);
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.send([&len.to_be_bytes()[..], &question].concat()).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Without asking for more (RFC 6891), 512 bytes are the most that a server sends.
const MAX_DATAGRAM: usize = 4096;
