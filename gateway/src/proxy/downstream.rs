//! The client's side of one exchange: a connection of HTTP/1.1, or a stream of HTTP/2.
//!
//! Both read as events and are written to by the same calls. What differs: a client of HTTP/1.1 that resets its connection is found
//! out by [`Downstream::poll_gone`], while the stream of one of HTTP/2 drops the exchange as a whole; bytes from socket to socket, and
//! tunnels, are of HTTP/1.1 alone, which [`Downstream::http1`] gives.

use std::io;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};
use ringport::buf::Seg;
use ringport::http::{ExchangeError, ServerStream};
use ringport::proto::http_conn::{Data, SendError};
use ringport::proto::http1::{self, BodyLen, FieldBlock, FieldWriter, RemainingBody, ServerEvent, Trailers};
use ringport::proto::http2;
use ringport::proto::proxy_protocol::Header;
use ringport::runtime::{LocalAddr, Transport, TxLevel};

use super::ClientConn;
use super::exchange::Trouble;

/// The client's side of an exchange.
pub(super) enum Downstream<'a> {
    /// The connection.
    Http1(&'a mut ServerStream<ClientConn>),
    /// The stream.
    Http2(&'a mut Http2Side),
}

/// A request of HTTP/2.
pub(super) struct Http2Side {
    pub exchange: ringport::http::Exchange,
    /// The fields of the response, as they are written.
    block: FieldBlock,
}

impl Http2Side {
    pub(super) fn new(exchange: ringport::http::Exchange) -> Self {
        Http2Side { exchange, block: FieldBlock::default() }
    }
}

/// What a client sends of a request.
pub(super) enum RequestEvent {
    Data(Data),
    Trailers(TrailerFields),
    End,
    /// Nothing that belongs to the request: after a switch the tunnel takes over.
    Nothing,
}

/// Fields behind a body, of either version.
pub(super) enum TrailerFields {
    Http1(Trailers),
    Http2(HeaderMap),
}

impl TrailerFields {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (first, second) = match self {
            TrailerFields::Http1(trailers) => (Some(trailers.iter()), None),
            TrailerFields::Http2(trailers) => (None, Some(trailers.iter())),
        };
        let second = second.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_bytes()));
        first.into_iter().flatten().chain(second)
    }

    /// In the form of HTTP/2.
    ///
    /// # Errors
    /// If they can not be said in it.
    pub(super) fn into_map(self) -> Result<HeaderMap, http2::SendError> {
        match self {
            TrailerFields::Http1(trailers) => Ok(ringport::proto::mapping::trailers_to_http2(&trailers)?),
            TrailerFields::Http2(trailers) => Ok(trailers),
        }
    }
}

impl Downstream<'_> {
    /// The connection of HTTP/1.1.
    #[inline]
    pub(super) fn http1(&mut self) -> Option<&mut ServerStream<ClientConn>> {
        match self {
            Downstream::Http1(client) => Some(client),
            Downstream::Http2(_) => None,
        }
    }

    /// The next of the request.
    ///
    /// # Errors
    /// What the client or its connection did.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestEvent, Trouble>> {
        match self {
            Downstream::Http1(client) => client.poll_event(cx).map(|event| match event {
                Ok(ServerEvent::Data(data)) => Ok(RequestEvent::Data(Data::Pool(data))),
                Ok(ServerEvent::Trailers(fields)) => Ok(RequestEvent::Trailers(TrailerFields::Http1(fields))),
                Ok(ServerEvent::End | ServerEvent::Paused) => Ok(RequestEvent::End),
                Ok(_) => Ok(RequestEvent::Nothing),
                Err(error) => Err(Trouble::of_request(error)),
            }),
            Downstream::Http2(side) => side.exchange.poll_recv(cx).map(|event| match event {
                Ok(Some(data)) => Ok(RequestEvent::Data(data)),
                Ok(None) => Ok(match side.exchange.trailers() {
                    Some(fields) => RequestEvent::Trailers(TrailerFields::Http2(fields)),
                    None => RequestEvent::End,
                }),
                Err(error) => Err(Trouble::of_exchange(error)),
            }),
        }
    }

    /// Whether the request has ended, if that is known without asking for the next event.
    #[inline]
    pub(super) fn take_end(&mut self) -> bool {
        match self {
            Downstream::Http1(client) => client.conn().take_end(),
            Downstream::Http2(side) => side.exchange.is_ended(),
        }
    }

    /// What of the request stands in the way of the connection's next one.
    pub(super) fn remaining_body(&mut self) -> RemainingBody {
        match self {
            Downstream::Http1(client) => client.conn().remaining_body(),
            Downstream::Http2(_) => RemainingBody::None,
        }
    }

    /// Makes the response the last one of the connection; a stream of HTTP/2 has no other.
    pub(super) fn close_after_response(&mut self) {
        if let Downstream::Http1(client) = self {
            client.conn().close_after_response();
        }
    }

    /// Whether an orderly end shows that the response was cut; else it takes a reset.
    pub(super) fn end_shows_cut(&mut self) -> bool {
        match self {
            Downstream::Http1(client) => client.conn().end_shows_cut(),
            Downstream::Http2(_) => false,
        }
    }

    /// Bytes of a response that may be written before it is asked whether the client reads.
    #[inline]
    pub(super) fn unchecked_bytes(&self) -> usize {
        match self {
            Downstream::Http1(_) => CHECK_BYTES,
            // The machine takes one segment beyond its mark.
            Downstream::Http2(_) => 1,
        }
    }

    /// Ready when more may be written.
    ///
    /// # Errors
    /// What the client did.
    #[inline]
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<Result<(), Trouble>> {
        match self {
            Downstream::Http1(client) => {
                client.poll_sent(cx, level).map_err(|error| Trouble::of_client(&error))
            }
            Downstream::Http2(side) => side.exchange.poll_room(cx).map_err(|error| match error {
                ExchangeError::TimedOut => Trouble::ClientStalled,
                error => Trouble::of_exchange(error),
            }),
        }
    }

    /// Ready when the client is found to be gone, or late.
    #[inline]
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Downstream::Http1(client) => client.poll_gone(cx),
            Downstream::Http2(_) => Poll::Pending,
        }
    }

    /// Whether the client has ended the exchange, which is then dropped.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Downstream::Http2(side) if side.exchange.is_over())
    }

    /// Bytes that the client has not taken. Of HTTP/2 nobody knows whose they are.
    pub(super) fn unsent(&mut self) -> usize {
        self.http1().map_or(0, |client| {
            let sock = client.stream().transport().inner().inner().sock();
            sock.unsent() + sock.unacknowledged()
        })
    }

    /// Moves what is kept of received bytes out of the pool.
    pub(super) fn compact(&mut self) {
        if let Downstream::Http1(client) = self {
            client.compact();
        }
    }

    /// What the connection tells of its client.
    pub(super) fn header(&mut self) -> Header {
        let ends = match self {
            Downstream::Http1(client) => {
                let transport = client.stream().transport();
                transport.peer_addr().ok().zip(transport.local_addr().ok())
            }
            Downstream::Http2(_) => None,
        };
        match ends {
            Some((LocalAddr::Inet(source), LocalAddr::Inet(destination))) => {
                Header::Inet { source, destination }
            }
            // A Unix socket has no address to tell, and a client that has gone none any more.
            _ => Header::Local,
        }
    }

    /// Writes a whole small response.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn respond<'a>(
        &mut self,
        status: StatusCode,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: impl Into<Seg>,
    ) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.respond(status, fields, body)?),
            Downstream::Http2(side) => side.exchange.respond(status, fields, body).map_err(of_exchange),
        }
    }

    /// Writes a whole response, whose body has come with its head.
    ///
    /// # Errors
    /// Nothing was written.
    #[inline]
    pub(super) fn respond_with(
        &mut self,
        status: StatusCode,
        body: impl Into<Seg>,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), http1::SendError>,
    ) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.respond_with(status, body, write)?),
            Downstream::Http2(Http2Side { exchange, block }) => {
                block.fill(write)?;
                exchange.respond(status, block.iter(), body).map_err(of_exchange)
            }
        }
    }

    /// Writes the head of the final response.
    ///
    /// # Errors
    /// Nothing was written.
    #[inline]
    pub(super) fn send_head_with(
        &mut self,
        status: StatusCode,
        len: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), http1::SendError>,
    ) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.send_head_with(status, len, write)?),
            Downstream::Http2(Http2Side { exchange, block }) => {
                block.fill(write)?;
                exchange.send_head(status, block.iter(), len).map_err(of_exchange)
            }
        }
    }

    /// Writes an informational response.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn send_informational_with(
        &mut self,
        status: StatusCode,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), http1::SendError>,
    ) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.send_informational_with(status, write)?),
            Downstream::Http2(Http2Side { exchange, block }) => {
                block.fill(write)?;
                exchange.send_informational(status, block.iter()).map_err(of_exchange)
            }
        }
    }

    /// Writes a part of the body; to be asked before whether there is room.
    ///
    /// # Errors
    /// Nothing was written.
    #[inline]
    pub(super) fn send_data(&mut self, data: Data) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.send_data(data)?),
            Downstream::Http2(side) => side.exchange.try_send(data).map_err(of_exchange),
        }
    }

    /// Ends the response with trailers.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn send_trailers(&mut self, fields: TrailerFields) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.send_trailers(fields.iter())?),
            Downstream::Http2(side) => side.exchange.send_trailers(fields.into_map()?).map_err(of_exchange),
        }
    }

    /// Ends the response.
    ///
    /// # Errors
    /// It was shorter than announced.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), SendError> {
        match self {
            Downstream::Http1(client) => Ok(client.finish()?),
            Downstream::Http2(side) => side.exchange.finish().map_err(of_exchange),
        }
    }

    /// Hands what was written to the transport; never waits.
    ///
    /// # Errors
    /// What an earlier send met.
    #[inline]
    pub(super) fn start_send(&mut self) -> io::Result<()> {
        match self {
            Downstream::Http1(client) => {
                if client.has_output() {
                    client.start_send()
                } else {
                    Ok(())
                }
            }
            // The connection's own task does.
            Downstream::Http2(_) => Ok(()),
        }
    }
}

fn of_exchange(error: ExchangeError) -> SendError {
    match error {
        ExchangeError::Send(error) => error,
        _ => SendError::Http2(http2::SendError::Gone),
    }
}

/// Bytes of a response that may be passed on before the client is asked again whether it reads.
const CHECK_BYTES: usize = 64 * 1024;
