//! A connection of HTTP/2 in the client's role, shared by the requests of a core: one task drives it, each request is a call.
//!
//! ```text
//!  Http2Call --open, send_*, finish--> Conn --output--> driver --> stream        a task of its own: Http2Client::start
//!  Http2Call <--poll_event-- Slot <--events-- Conn <--input-- driver <-- stream
//!
//!  connection:  Open --drain, GOAWAY of the origin, last handle and call gone--> Draining --no stream left--> Over
//!                `----end, fault or flood of the origin, no sign of life, close, driver dropped-------------> Over
//!
//!  call, in:    1xx* --> Head --> Data* --> Trailers? --> End      each but End may become an error, which then stays
//!  call, out:   Open --send_data*--> finish or send_trailers --> Done
//! ```
//!
//! A call writes into the machine at once and wakes the driver, so that what all calls write in a turn of the core goes out
//! together. The driver hands events to slots and wakes who waits there; no call runs inside it.
//!
//! Who owns which bytes: received bytes are the stream's until the machine takes them, then the slot's until
//! [`Http2Call::poll_event`] hands them out, which gives their credit back: a call that nobody polls holds its stream's window at
//! most ([`Spec::stream_window_bytes`]), and the others go on. A slot holds [`Spec::informational_count`] heads before
//! the final one. What is sent is the machine's from the call on: [`Spec::send_buffer_bytes`] a stream and one segment more.
//! Slots are used again, and there are as many as there were calls at once.
//!
//! Cancel and drop: every future here may be dropped, and loses nothing. A call that is dropped before both messages are whole
//! resets its stream with `CANCEL`; what waited for it is freed and its credit given back. A call outlives its connection, and
//! hands out what had come. When the last handle and the last call are gone the driver says GOAWAY and ends. A driver that
//! is dropped ends the connection; its calls are told. The end of the driver closes the stream without waiting: what was
//! said is sent within the runtime's linger.
//!
//! What bad input gets is said in [`http2`](crate::proto::http2): it ends a stream, or the connection. Each call learns whether its
//! request may be sent again ([`CallError::is_unprocessed`]): after `REFUSED_STREAM`, above the last stream of a GOAWAY, and
//! where nothing of it was written. There is no timeout here but that of [`Spec::keep_alive`].
//!
//! [`Spec::keep_alive`]: crate::proto::http2::Spec::keep_alive
//! [`Spec::stream_window_bytes`]: crate::proto::http2::Spec::stream_window_bytes
//! [`Spec::informational_count`]: crate::proto::http2::Spec::informational_count
//! [`Spec::send_buffer_bytes`]: crate::proto::http2::Spec::send_buffer_bytes

mod call;
mod driver;
mod shared;

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Request;

use self::driver::Driver;
use self::shared::Shared;
use crate::net::Stream;
use crate::proto::http1::BodyLen;
use crate::proto::http2::{Code, SendError, Spec};
use crate::runtime::{Runtime, Transport};

pub use self::call::{CallError, CallEvent, Http2Call};

/// A connection of HTTP/2 to an origin, shared by requests of its core. Cloning gives another handle.
#[derive(Clone)]
pub struct Http2Client(Rc<Handle>);

/// The last handle tells the driver.
struct Handle(Rc<Shared>);

impl Http2Client {
    /// The connection, and the future that drives it to its end, for a task of its own. Without that task nothing moves.
    ///
    /// The origin is known to speak HTTP/2. What was pulled from `stream` and not taken is read first.
    pub fn start<R: Runtime, T: Transport>(
        runtime: &R,
        stream: Stream<T>,
        spec: Spec,
    ) -> (Http2Client, impl Future<Output = ()> + use<R, T>) {
        let shared = Shared::new(runtime, spec);
        let mut driver = Driver::new(runtime, stream, shared.clone());
        (Http2Client(Rc::new(Handle(shared))), poll_fn(move |cx| driver.poll(cx)))
    }

    /// Streams that may be opened now.
    pub fn room(&self) -> usize {
        self.0.0.state().conn.room()
    }

    /// Whether streams may be opened, now or when others end: no GOAWAY, no end, no drain.
    pub fn is_open(&self) -> bool {
        self.0.0.state().conn.takes_streams()
    }

    /// Streams that are open.
    pub fn open_count(&self) -> usize {
        self.0.0.state().conn.open_count()
    }

    /// Since when there is no call; `None` while there is one.
    pub fn idle_since(&self) -> Option<Instant> {
        self.0.0.state().idle_since
    }

    /// Ready when a stream may be opened, or none ever again. Who waits is woken in the order in which it began to.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.state();
        if state.conn.room() > 0 || !state.conn.takes_streams() {
            return Poll::Ready(());
        }
        state.wait_for_room(cx.waker());
        Poll::Pending
    }

    /// Sends the head of a request. Its target has scheme and authority, for CONNECT the authority alone; the length of its
    /// body is said by the machine. [`Http2Call::finish`] is due also where there is no body.
    ///
    /// # Errors
    /// Nothing was sent: [`SendError::TooManyStreams`] where there is no room, [`SendError::Closing`] where the connection takes no
    /// more, or what is wrong with the head.
    pub fn open(&self, head: Request<()>, body: BodyLen) -> Result<Http2Call, SendError> {
        Http2Call::open(&self.0.0, head, body)
    }

    /// Opens no more streams, and ends once those that are open have.
    pub fn drain(&self) {
        let mut state = self.0.0.state();
        state.conn.drain();
        state.notify();
    }

    /// Ends now, with GOAWAY of that code; calls that are not done see the connection lost.
    pub fn close(&self, code: Code) {
        let mut state = self.0.0.state();
        state.conn.close(code);
        state.notify();
    }
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Client").field("open_count", &self.open_count()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.leave();
    }
}
