//! The origin's side of one exchange: a connection of HTTP/1.1 of its own, or a stream of one of HTTP/2 that others share.
//!
//! ```text
//! Opened --ask--> Asking --events--> done      dropped before: HTTP/1.1 as its owner says, HTTP/2 resets the stream
//! ```
//! What an origin sends waits in its connection until it is asked for, and is asked for only while the client takes it: in HTTP/2
//! its window is what holds it back.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use http::{Method, uri};
use ringport::http::{CallError, CallEvent, ClientError, ClientStream, Http2Call, Http2Client};
use ringport::net::DeadlineError;
use ringport::proto::http_conn::{Data, SendError};
use ringport::proto::http1::{
    self, BodyLen, ClientEvent, FieldBlock, FieldWriter, ForwardedHost, RequestHead, ResponseHead,
};
use ringport::proto::{http2, mapping};
use ringport::runtime::{Transport, TxLevel};

use super::downstream::TrailerFields;
use super::pool::{OriginConn, OriginStream};

/// The origin's side of an exchange.
pub(super) enum Upstream {
    /// The connection.
    Http1(OriginStream),
    /// The stream.
    Http2(Box<Http2Leg>),
}

/// A stream to be, and then one.
pub(super) struct Http2Leg {
    client: Http2Client,
    scheme: uri::Scheme,
    call: Option<Http2Call>,
    method: Method,
}

impl Http2Leg {
    pub(super) fn new(client: Http2Client, scheme: uri::Scheme) -> Self {
        Http2Leg { client, scheme, call: None, method: Method::GET }
    }
}

/// What an origin sends of a response.
pub(super) enum ResponseEvent {
    Informational(ResponseHead),
    Head(ResponseHead, BodyLen),
    Data(Data),
    Trailers(TrailerFields),
    End,
    /// It ended where nothing may end.
    Gone,
}

/// Why no response, or no more of it, can be read.
#[derive(Debug)]
pub(super) enum OriginError {
    Http1(ClientError),
    Http2(CallError),
    /// What it says breaks the rules.
    Malformed(mapping::Malformed),
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginError::Http1(error) => error.fmt(f),
            OriginError::Http2(error) => error.fmt(f),
            OriginError::Malformed(malformed) => write!(f, "bad response: {malformed}"),
        }
    }
}

impl OriginError {
    /// Whether the origin is late by its listener's deadline.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, OriginError::Http1(ClientError::Io(error)) if DeadlineError::of(error).is_some())
    }

    /// Whether the connection ended before it said anything: on a kept one the origin's own idle timeout looks so.
    pub(super) fn is_silent_end(&self) -> bool {
        match self {
            OriginError::Http1(error) => {
                matches!(error, ClientError::Io(_) | ClientError::Protocol(http1::Error::Incomplete))
            }
            OriginError::Http2(error) => matches!(error, CallError::Connection { .. }),
            OriginError::Malformed(_) => false,
        }
    }

    /// Whether the origin has surely not acted on the request. RFC 9113 8.7.
    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, OriginError::Http2(error) if error.is_unprocessed())
    }

    /// It ended inside a response.
    pub(super) fn incomplete() -> Self {
        OriginError::Http1(ClientError::Protocol(http1::Error::Incomplete))
    }
}

impl Upstream {
    /// The connection of HTTP/1.1.
    #[inline]
    pub(super) fn http1(&mut self) -> Option<&mut ClientStream<OriginConn>> {
        match self {
            Upstream::Http1(stream) => Some(stream),
            Upstream::Http2(_) => None,
        }
    }

    /// Writes the head of a request that is passed on, with the fields that `write` puts.
    ///
    /// # Errors
    /// Nothing was written.
    #[inline]
    pub(super) fn forward_head_with(
        &mut self,
        head: &RequestHead,
        host: ForwardedHost<'_>,
        len: BodyLen,
        write: impl FnOnce(&mut FieldWriter<'_>) -> Result<(), http1::SendError>,
    ) -> Result<(), SendError> {
        match self {
            Upstream::Http1(stream) => Ok(stream.forward_head_with(head, host, len, write)?),
            Upstream::Http2(leg) => {
                let mut block = FieldBlock::default();
                block.fill(write)?;
                let host = match host {
                    ForwardedHost::AsReceived => head.authority().unwrap_or_default(),
                    ForwardedHost::Named(host) => host.as_str(),
                };
                let request = mapping::forwarded_request(head, (leg.scheme.clone(), host), &block);
                let request = request.map_err(http2::SendError::from)?;
                leg.method = head.method().clone();
                leg.call = Some(leg.client.open(request, len)?);
                Ok(())
            }
        }
    }

    /// The next of the response.
    ///
    /// # Errors
    /// What the origin or its connection did.
    #[inline]
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseEvent, OriginError>> {
        match self {
            Upstream::Http1(stream) => stream.poll_event(cx).map(|event| match event {
                Ok(ClientEvent::Data(data)) => Ok(ResponseEvent::Data(Data::Pool(data))),
                Ok(ClientEvent::Head(head, len)) => Ok(ResponseEvent::Head(head, len)),
                Ok(ClientEvent::End) => Ok(ResponseEvent::End),
                Ok(ClientEvent::Informational(head)) => Ok(ResponseEvent::Informational(head)),
                Ok(ClientEvent::Trailers(fields)) => {
                    Ok(ResponseEvent::Trailers(TrailerFields::Http1(fields)))
                }
                // A tunnel's bytes come behind its head only, and are not read here.
                Ok(ClientEvent::Closed | ClientEvent::NeedInput | ClientEvent::Tunnel(_)) => {
                    Ok(ResponseEvent::Gone)
                }
                Err(error) => Err(OriginError::Http1(error)),
            }),
            Upstream::Http2(leg) => leg.poll_event(cx),
        }
    }

    /// Whether the response has ended, if that is known without asking for the next event.
    #[inline]
    pub(super) fn take_end(&mut self) -> bool {
        match self {
            Upstream::Http1(stream) => stream.conn().take_end(),
            Upstream::Http2(leg) => leg.call.as_mut().is_some_and(Http2Call::take_end),
        }
    }

    /// The whole body of a small response that has come with its head.
    #[inline]
    pub(super) fn take_body(&mut self) -> Option<ringport::buf::PoolBuf> {
        self.http1().and_then(ClientStream::take_body)
    }

    /// Ready when more of the request may be written.
    ///
    /// # Errors
    /// It takes nothing any more; what it has answered is worth more than the error.
    #[inline]
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>, level: TxLevel) -> Poll<Result<(), ()>> {
        match self {
            Upstream::Http1(stream) => stream.poll_sent(cx, level).map_err(drop),
            Upstream::Http2(leg) => match &mut leg.call {
                Some(call) => call.poll_room(cx).map_err(drop),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// Writes a part of the request's body; to be asked before whether there is room.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn send_data(&mut self, data: Data) -> Result<(), SendError> {
        match self {
            Upstream::Http1(stream) => Ok(stream.send_data(data)?),
            Upstream::Http2(leg) => Ok(leg.call()?.send_data(data.into_bytes())?),
        }
    }

    /// Ends the request with trailers.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn send_trailers(&mut self, fields: TrailerFields) -> Result<(), SendError> {
        match self {
            Upstream::Http1(stream) => Ok(stream.send_trailers(fields.iter())?),
            Upstream::Http2(leg) => Ok(leg.call()?.send_trailers(fields.into_map()?)?),
        }
    }

    /// Ends the request.
    ///
    /// # Errors
    /// It was shorter than announced.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), SendError> {
        match self {
            Upstream::Http1(stream) => Ok(stream.finish()?),
            Upstream::Http2(leg) => Ok(leg.call()?.finish()?),
        }
    }

    /// Hands what was written to the transport; never waits.
    ///
    /// # Errors
    /// What an earlier send met.
    #[inline]
    pub(super) fn start_send(&mut self) -> io::Result<()> {
        match self {
            Upstream::Http1(stream) => stream.start_send(),
            // The connection's own task does.
            Upstream::Http2(_) => Ok(()),
        }
    }

    /// Bytes that the origin has not taken. Of HTTP/2 nobody knows whose they are.
    pub(super) fn unsent(&mut self) -> usize {
        self.http1().map_or(0, |stream| {
            let sock = stream.stream().transport().inner().inner().sock();
            sock.unsent() + sock.unacknowledged()
        })
    }

    /// Moves what is kept of received bytes out of the pool.
    pub(super) fn compact(&mut self) {
        if let Upstream::Http1(stream) = self {
            stream.stream().rx().compact();
        }
    }

    /// Makes the end that follows a reset: what waits to be sent is worth nothing without its own end. A stream of HTTP/2 is reset
    /// as it is dropped.
    pub(super) fn reset_on_drop(&mut self) {
        if let Upstream::Http1(stream) = self {
            stream.stream().transport().reset_on_drop();
        }
    }
}

impl Upstream {
    /// It has answered with silence: no other request goes that way.
    pub(super) fn distrust(&mut self) {
        if let Upstream::Http2(leg) = self {
            leg.client.drain();
        }
    }
}

impl Http2Leg {
    fn call(&mut self) -> Result<&mut Http2Call, http2::SendError> {
        self.call.as_mut().ok_or(http2::SendError::State)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseEvent, OriginError>> {
        let Some(call) = &mut self.call else { return Poll::Ready(Ok(ResponseEvent::Gone)) };
        let head = |response: &http::Response<()>, ended| {
            mapping::response_head(response, ended, &self.method).map_err(OriginError::Malformed)
        };
        call.poll_event(cx).map(|event| match event.map_err(OriginError::Http2)? {
            CallEvent::Informational(response) => Ok(ResponseEvent::Informational(head(&response, false)?)),
            CallEvent::Head(response, len) => {
                Ok(ResponseEvent::Head(head(&response, len == BodyLen::None)?, len))
            }
            CallEvent::Data(data) => Ok(ResponseEvent::Data(Data::Bytes(data))),
            CallEvent::Trailers(fields) => Ok(ResponseEvent::Trailers(TrailerFields::Http2(fields))),
            CallEvent::End => Ok(ResponseEvent::End),
        })
    }
}
