//! The admin listener: `/metrics` and `/healthz`.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use ringport::http::ServerStream;
use ringport::net::{AcceptError, Bounded, Listener, Stream};
use ringport::proto::http1::{RequestHead, ServerEvent};
use ringport::runtime::TxLevel;
use ringport::runtime::native::Native;

use super::{Everywhere, Shared};

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(30);

/// Serves until the core ends.
pub(super) async fn serve(shared: Rc<Shared>, mut listener: Listener<Native>, sources: Everywhere) {
    let seats = Rc::new(());
    loop {
        // One is ours.
        let taken = Rc::strong_count(&seats) - 1;
        listener.set_room(MAX_CONNECTIONS.saturating_sub(taken + listener.queued()));
        if taken >= MAX_CONNECTIONS {
            shared.core.sleep(Duration::from_millis(50)).await;
            continue;
        }
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, _)) => {
                let (seat, sources, shared2) = (seats.clone(), sources.clone(), shared.clone());
                drop(shared.core.spawn(async move {
                    connection(&shared2, stream, &sources).await;
                    drop(seat);
                }));
            }
            Err(AcceptError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be taken");
                shared.core.sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(shared: &Rc<Shared>, stream: Stream<Bounded<Native>>, sources: &Everywhere) {
    let mut client = ServerStream::over(stream, shared.config().limits);
    let mut timer = shared.core.sleep(IDLE);
    loop {
        timer.reset_to(shared.core.time() + IDLE);
        let event = poll_fn(|cx| match client.poll_event(cx) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => timer.poll_elapsed(cx).map(|()| None),
        });
        match event.await {
            Some(Ok(ServerEvent::Head(head, _))) => {
                if respond(shared, &mut client, &head, sources).is_none() {
                    return;
                }
            }
            Some(Ok(ServerEvent::Data(_) | ServerEvent::Trailers(_) | ServerEvent::End)) => {}
            Some(Err(ringport::http::ServeError::Protocol(error))) if client.conn().can_respond() => {
                // The connection ends here, whether this reaches the peer or not.
                let _ = client.respond(error.status(), [], error.reason().as_bytes().to_vec());
                let _ = client.start_send();
                return;
            }
            // The client has gone, broke off, or was silent for too long.
            _ => return,
        }
        let sent = poll_fn(|cx| match client.poll_sent(cx, TxLevel::Below(1 << 20)) {
            Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
            Poll::Pending => timer.poll_elapsed(cx).map(|()| false),
        });
        if !sent.await || client.conn().wants_close() {
            return;
        }
    }
}

/// Answers one request; `None` when the connection is broken.
fn respond(
    shared: &Shared,
    client: &mut ServerStream<Bounded<Native>>,
    head: &RequestHead,
    sources: &Everywhere,
) -> Option<()> {
    let (status, kind, body) = match (head.method(), head.path()) {
        (&Method::GET | &Method::HEAD, "/healthz") if shared.is_draining() => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/metrics") => match sources.get() {
            Some(cores) => (StatusCode::OK, "text/plain; version=0.0.4", cores.sources.render()),
            None => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "starting\n".to_owned()),
        },
        (_, "/healthz" | "/metrics") => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics and /healthz\n".to_owned()),
    };
    let date = shared.date();
    let fields: [(&str, &[u8]); 2] = [("date", &date), ("content-type", kind.as_bytes())];
    client.respond(status, fields, body.into_bytes()).ok()?;
    client.start_send().ok()
}
