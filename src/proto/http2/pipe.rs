//! The object that h2 takes for its connection: two queues in memory, and the meter between them and h2.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use ringport_platform::buf::{RxQueue, TxQueue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Flood, Meter};

/// What is between the driver's queues and h2. Nothing here wakes: whoever feeds or drains it polls h2 again.
pub(super) struct Pipe {
    pub(super) meter: Meter,
    pub(super) now: Instant,
    /// Metered bytes that h2 has not read.
    input: RxQueue,
    eof: bool,
    /// What h2 wrote, and the driver has not taken.
    output: BytesMut,
    /// Bytes of `output` at most.
    output_max: usize,
    /// h2 was turned away since `output` was taken last.
    blocked: bool,
    /// h2 may finish the frame that it is in, and nothing else.
    ending: bool,
    /// What the peer did, once.
    flood: Option<Flood>,
}

impl Pipe {
    pub(super) fn new(meter: Meter, now: Instant, output_max: usize) -> Self {
        Pipe {
            meter,
            now,
            input: RxQueue::new(),
            eof: false,
            output: BytesMut::new(),
            output_max,
            blocked: false,
            ending: false,
            flood: None,
        }
    }

    /// Takes what waits in `rx` if h2 has read all before; whether there is something new for it.
    pub(super) fn fill(&mut self, rx: &mut RxQueue) -> bool {
        if self.flood.is_some() || self.ending {
            rx.consume(rx.len());
            return false;
        }
        if !self.input.is_empty() || rx.is_empty() {
            return false;
        }
        while self.input.len() < INPUT_BYTES
            && let Some(view) = rx.pop(INPUT_BYTES)
        {
            if let Err(flood) = self.meter.read(self.now, &view) {
                self.flood = Some(flood);
                return true;
            }
            self.input.push(view);
        }
        true
    }

    /// Notes that nothing will follow what was given to [`Pipe::fill`].
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.eof, true)
    }

    pub(super) fn flood(&self) -> Option<Flood> {
        self.flood
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Moves to `tx` what h2 wrote; whether h2 had more.
    pub(super) fn drain(&mut self, tx: &mut TxQueue) -> bool {
        if self.output.len() <= COPIED_BYTES {
            tx.put_slice(&self.output);
            self.output.clear();
        } else {
            tx.push(self.output.split().freeze());
        }
        std::mem::take(&mut self.blocked)
    }

    /// Gives back the memory of an output that is empty.
    pub(super) fn release_idle(&mut self) {
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
    }

    /// Reads nothing more, and lets h2 end the frame that it has begun. Whether it has.
    pub(super) fn end_frame(&mut self) -> bool {
        self.ending = true;
        self.input.consume(self.input.len());
        !self.meter.sent_whole_frames()
    }

    /// Says GOAWAY behind all that h2 wrote. RFC 9113 6.8.
    pub(super) fn put_go_away(&mut self, last_stream: u32, code: u32, debug: &str) {
        let len = 8 + debug.len() as u32;
        self.output.extend_from_slice(&len.to_be_bytes()[1..]);
        self.output.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
        self.output.extend_from_slice(&last_stream.to_be_bytes());
        self.output.extend_from_slice(&code.to_be_bytes());
        self.output.extend_from_slice(debug.as_bytes());
    }

    fn read(&mut self, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return if self.eof && !self.ending { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        while into.remaining() > 0 && !self.input.is_empty() {
            let front = self.input.front();
            let count = front.len().min(into.remaining());
            into.put_slice(&front[..count]);
            self.input.consume(count);
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = if self.ending {
            self.meter.rest_of_frame(bytes)
        } else {
            bytes.len().min(self.output_max.saturating_sub(self.output.len()))
        };
        let taken = &bytes[..count];
        if let Err(flood) = self.meter.wrote(self.now, taken) {
            self.flood.get_or_insert(flood);
        }
        self.output.extend_from_slice(taken);
        count
    }
}

/// What h2 holds of the pipe.
pub(super) struct Io(pub(super) Rc<RefCell<Pipe>>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().read(into)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        let mut taken = 0;
        for slice in slices {
            let count = pipe.write(slice);
            taken += count;
            if count < slice.len() {
                pipe.blocked = true;
                break;
            }
        }
        if taken == 0 && pipe.blocked { Poll::Pending } else { Poll::Ready(Ok(taken)) }
    }

    /// DATA comes as a slice of its own then, and is not copied behind its header first.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Received bytes that are handed to h2 at once.
const INPUT_BYTES: usize = 64 * 1024;

/// Output up to so many bytes is copied behind what is written before it, and its memory used again.
const COPIED_BYTES: usize = 4 * 1024;

const GOAWAY: u8 = 7;
