//! A `tower_service::Service` as a handler, with bodies of the `http-body` crate both ways.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

use super::exchange::{Exchange, ExchangeError};
use super::shared::Shared;
use super::{Handler, HandlerError};
use crate::proto::http_conn::Data;
use crate::proto::http1::BodyLen;
use crate::proto::http2::StreamId;

/// Answers requests by a service, which is cloned for each and asked for readiness first.
///
/// Neither the service nor its futures need be `Send`, and the request's body is not: everything stays on its core. Heads are in
/// the types of the `http` crate, which costs the allocations that those make.
#[derive(Clone, Debug)]
pub struct ServiceHandler<S>(pub S);

impl<S, B> Handler for ServiceHandler<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<HandlerError>,
    B: Body,
    B::Error: Into<HandlerError>,
{
    async fn handle(&self, mut exchange: Exchange) -> Result<(), HandlerError> {
        let mut service = self.0.clone();
        let is_head = *exchange.head().method() == Method::HEAD;
        let len = exchange.body_len();
        let (head, shared, id) = exchange.take_request()?;
        let body = RequestBody { shared, id, len, state: BodyState::Data };
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
        let response = service.call(head.map(|()| body)).await.map_err(Into::into)?;
        answer(&mut exchange, response, is_head).await
    }
}

async fn answer<B>(exchange: &mut Exchange, response: Response<B>, is_head: bool) -> Result<(), HandlerError>
where
    B: Body,
    B::Error: Into<HandlerError>,
{
    let (head, body) = response.into_parts();
    let len = match body.size_hint().exact() {
        Some(0) if head.status == StatusCode::NO_CONTENT => BodyLen::None,
        Some(len) => BodyLen::Length(len),
        None => BodyLen::Chunked,
    };
    let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    exchange.send_head(head.status, fields, len)?;
    let mut body = pin!(body);
    let has_body = !is_head && head.status != StatusCode::NOT_MODIFIED;
    while has_body && let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(Into::into)?.into_data() {
            Ok(mut data) => exchange.send(data.copy_to_bytes(data.remaining())).await?,
            // A length that was announced leaves no place for trailers.
            Err(frame) if len == BodyLen::Chunked => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(exchange.send_trailers(trailers)?);
                }
            }
            Err(_) => {}
        }
    }
    Ok(exchange.finish()?)
}

/// The body of a request. It ends with its exchange: kept longer, it says that the client is gone.
pub struct RequestBody {
    shared: Rc<Shared>,
    id: StreamId,
    len: BodyLen,
    state: BodyState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyState {
    Data,
    Ended,
}

impl Body for RequestBody {
    type Data = Data;
    type Error = ExchangeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, ExchangeError>>> {
        if self.state == BodyState::Ended {
            return Poll::Ready(None);
        }
        let received = std::task::ready!(self.shared.poll_recv(self.id, cx));
        if !matches!(received, Ok(Some(_))) {
            self.state = BodyState::Ended;
        }
        Poll::Ready(match received {
            Ok(Some(data)) => Some(Ok(Frame::data(data))),
            Ok(None) => {
                let trailers = self.shared.state().slot(self.id).and_then(|slot| slot.trailers.take());
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.state == BodyState::Ended || matches!(self.len, BodyLen::None | BodyLen::Length(0))
    }

    fn size_hint(&self) -> SizeHint {
        match self.len {
            BodyLen::None => SizeHint::with_exact(0),
            // Of what is left nothing is known but that it is no more.
            BodyLen::Length(len) if self.state == BodyState::Data => {
                let mut hint = SizeHint::new();
                hint.set_upper(len);
                hint
            }
            BodyLen::Length(_) => SizeHint::with_exact(0),
            BodyLen::Chunked | BodyLen::UntilClose | BodyLen::Tunnel => SizeHint::new(),
        }
    }
}
