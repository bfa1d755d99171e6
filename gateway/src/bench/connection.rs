//! One connection after the other, each with up to so many requests in flight, answered in order.
//!
//! Every request in flight has an HTTP machine of its own: in turn they write to the stream's send queue and read from
//! its receive queue, which is pipelining without a machine that knows of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringport::net::Stream;
use ringport::proto::http1::{BodyLen, ClientConn, ClientEvent, Error, Limits};
use ringport::runtime::Runtime;
use ringport::runtime::native::{NativeStream, Sleep};
use ringport_platform::timer::later;

use super::load::{Task, Turn, Work, Worker};
use super::tally::Failure;

/// Sends until nothing is left to be sent.
pub(super) async fn run(task: Task) {
    let worker = &task.0;
    let mut held = None;
    while let Some(mut turn) = held.take().or_else(|| worker.take()) {
        if !turn.started && turn.ticket.due > Instant::now() {
            turn.awaited = true;
            let mut timer = worker.runtime.timer(turn.ticket.due);
            poll_fn(|cx| timer.poll_elapsed(cx)).await;
        }
        worker.start(&mut turn);
        match connect(worker).await {
            Ok(stream) => held = Pipe::new(worker.clone(), stream).run(turn).await,
            Err(failure) => {
                worker.fail(turn, failure);
                // A peer that refuses does so at once: without a pause this would be a busy loop.
                worker.runtime.sleep(PAUSE).await;
            }
        }
    }
}

async fn connect(worker: &Worker) -> Result<Stream<NativeStream>, Failure> {
    let connecting = worker.runtime.connect(&worker.job().addr);
    let connected = worker.runtime.core().timeout(worker.job().timeout, connecting).await;
    let stream = connected.map_err(|_| Failure::Timeout)??;
    worker.connected();
    Ok(Stream::new(&worker.runtime, stream))
}

/// A connection with what is in flight on it.
struct Pipe {
    worker: Rc<Worker>,
    stream: Stream<NativeStream>,
    slots: VecDeque<Slot>,
    /// Machines without a request.
    spare: Vec<ClientConn>,
    /// The next request while it is not due, or found no room.
    held: Option<Turn>,
    pace: Sleep,
    patience: Sleep,
    /// No further request may be sent.
    closing: bool,
}

/// A request in flight.
struct Slot {
    turn: Turn,
    sent: Instant,
    status: Option<u16>,
    body_bytes: u64,
    /// None for an echo.
    conn: Option<ClientConn>,
}

impl Pipe {
    fn new(worker: Rc<Worker>, stream: Stream<NativeStream>) -> Self {
        let now = worker.runtime.now();
        Pipe {
            stream,
            slots: VecDeque::new(),
            spare: Vec::new(),
            held: None,
            pace: worker.runtime.timer(now),
            patience: worker.runtime.timer(later(now, worker.job().timeout)),
            closing: false,
            worker,
        }
    }

    /// Runs until the connection or the work ends; gives back a request that waits for the next connection.
    async fn run(mut self, first: Turn) -> Option<Turn> {
        self.send(first);
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        if let Err(failure) = outcome {
            self.slots.drain(..).for_each(|slot| self.worker.fail(slot.turn, failure));
        }
        // The peer has announced the end: what it will not answer is sent again.
        self.slots.drain(..).for_each(|slot| self.worker.give_back(slot.turn));
        if outcome.is_err() || self.worker.job().fresh {
            // Nothing is lost, and the port is free again at once.
            self.stream.reset();
        }
        self.held
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            self.fill(cx);
            self.stream.start_send()?;
            let Some(front) = self.slots.front() else {
                return if self.held.is_none() || self.closing { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            let sent = front.sent;
            match self.poll_front(cx)? {
                Poll::Ready(()) => self.complete_front(),
                Poll::Pending => {
                    self.patience.reset(later(sent, self.worker.job().timeout));
                    return self.patience.poll_elapsed(cx).map(|()| Err(Failure::Timeout));
                }
            }
            if self.closing {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends as much as is due and has room.
    fn fill(&mut self, cx: &mut Context<'_>) {
        while !self.closing && self.slots.len() < self.worker.job().depth {
            let Some(mut turn) = self.held.take().or_else(|| self.worker.take()) else { return };
            if !turn.started && turn.ticket.due > Instant::now() {
                turn.awaited = true;
                self.pace.reset(turn.ticket.due);
                if self.pace.poll_elapsed(cx).is_pending() {
                    self.held = Some(turn);
                    return;
                }
            }
            if self.slots.is_empty() && !self.stream.is_quiet() {
                // The peer has closed an idle connection, or said what nobody asked for: take a new one.
                self.held = Some(turn);
                self.closing = true;
                return;
            }
            self.send(turn);
        }
    }

    fn send(&mut self, mut turn: Turn) {
        self.worker.start(&mut turn);
        let conn = match &self.worker.job().work {
            Work::Http(request) => {
                let mut conn = self.spare.pop().unwrap_or_else(|| ClientConn::new(Limits::default()));
                let written = request.write(&mut conn, self.stream.tx());
                written.expect("the request was tried before the run, and the machine is idle");
                Some(conn)
            }
            Work::Echo(payload) => {
                self.stream.tx().push(payload.clone());
                None
            }
        };
        self.slots.push_back(Slot { turn, sent: Instant::now(), status: None, body_bytes: 0, conn });
    }

    fn complete_front(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        self.closing |= self.worker.job().fresh;
        if let Some(conn) = slot.conn {
            if conn.wants_close() {
                self.closing = true;
            } else {
                self.spare.push(conn);
            }
        }
        self.worker.complete(slot.turn, slot.status, slot.body_bytes);
    }

    fn poll_front(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        let Pipe { worker, stream, slots, .. } = self;
        let Some(slot) = slots.front_mut() else { return Ok(Poll::Pending) };
        let polled = match &worker.job().work {
            Work::Http(_) => slot.poll_response(stream, cx),
            Work::Echo(payload) => slot.poll_echo(stream, payload, cx),
        };
        match polled {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

impl Slot {
    fn poll_response(
        &mut self,
        stream: &mut Stream<NativeStream>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let conn = self.conn.as_mut().expect("an HTTP request has its machine");
        loop {
            match conn.poll_event(stream.rx()) {
                Ok(ClientEvent::NeedInput) => {
                    if !ready!(stream.poll_fill(cx, PULL_BYTES))? {
                        conn.handle_eof();
                    }
                }
                Ok(ClientEvent::Head(_, BodyLen::Tunnel)) => return Poll::Ready(Err(Failure::BadResponse)),
                Ok(ClientEvent::Head(head, _)) => self.status = Some(head.status().as_u16()),
                Ok(ClientEvent::Data(data)) => self.body_bytes += data.len() as u64,
                Ok(ClientEvent::Informational(_) | ClientEvent::Trailers(_)) => {}
                Ok(ClientEvent::End) => return Poll::Ready(Ok(())),
                Ok(ClientEvent::Tunnel(_) | ClientEvent::Closed) => return Poll::Ready(Err(Failure::Closed)),
                Err(Error::Incomplete) => return Poll::Ready(Err(Failure::Closed)),
                Err(_) => return Poll::Ready(Err(Failure::BadResponse)),
            }
        }
    }

    fn poll_echo(
        &mut self,
        stream: &mut Stream<NativeStream>,
        payload: &Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let expected = &payload[usize::try_from(self.body_bytes).unwrap_or(usize::MAX)..];
            if expected.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let front = stream.rx().front();
            let count = front.len().min(expected.len());
            if front[..count] != expected[..count] {
                return Poll::Ready(Err(Failure::BadResponse));
            }
            if count == 0 {
                if !ready!(stream.poll_fill(cx, PULL_BYTES))? {
                    return Poll::Ready(Err(Failure::Closed));
                }
                continue;
            }
            stream.rx().consume(count);
            self.body_bytes += count as u64;
        }
    }
}

/// Bytes pulled at once.
const PULL_BYTES: usize = 256 * 1024;
/// Between a connection that failed and the next.
const PAUSE: Duration = Duration::from_millis(1);
