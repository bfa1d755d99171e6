//! The one task that moves a connection's bytes.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::shared::Shared;
use crate::http::http2::{Http2Error, Pump};
use crate::net::Stream;
use crate::proto::http2::{Code, Error, Event};
use crate::runtime::{Runtime, Transport};

pub(super) struct Driver<R: Runtime, T: Transport> {
    shared: Rc<Shared>,
    /// None once the connection is over.
    pump: Option<Pump<R, T>>,
}

impl<R: Runtime, T: Transport> Driver<R, T> {
    pub(super) fn new(runtime: &R, stream: Stream<T>, shared: Rc<Shared>) -> Self {
        Driver { shared, pump: Some(Pump::new(runtime, stream)) }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pump) = &mut self.pump else { return Poll::Ready(()) };
        let mut state = self.shared.state();
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        for _ in 0..EVENTS_AT_ONCE {
            let error = match pump.poll_event(cx, &mut state.conn) {
                Poll::Ready(Ok(Event::Closed)) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                Poll::Ready(Ok(event)) => {
                    state.take(event);
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    if state.wake_waiting() {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            };
            tracing::debug!("HTTP/2 origin: {error}");
            state.end(&error);
            drop(state);
            self.close(cx);
            return Poll::Ready(());
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What was said goes out as the stream closes, and over TLS that it ends: nobody waits for it.
    fn close(&mut self, cx: &mut Context<'_>) {
        if let Some(mut pump) = self.pump.take() {
            let _ = pump.stream.transport().poll_shutdown(cx);
        }
    }
}

impl<R: Runtime, T: Transport> Drop for Driver<R, T> {
    fn drop(&mut self) {
        if self.pump.is_some() {
            self.shared.state().end(&Http2Error::from(Error::Closed(Code::NO_ERROR)));
        }
    }
}

/// Before the driver lets others run.
const EVENTS_AT_ONCE: usize = 1024;
