//! What the machine says to frames, and to another one like it, all in memory.

mod exchange;
mod faults;
mod floods;
mod opening;
mod plain_h2;
mod splits;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use ringport_platform::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};

use super::preface::PREFACE;
use super::{Conn, Error, Event, Spec, StreamId};

/// From where time is counted.
#[expect(clippy::disallowed_methods, reason = "a machine has no clock, and its tests begin at some time")]
fn start() -> Instant {
    Instant::now()
}

/// A connection with its queues.
struct Side {
    conn: Conn,
    rx: RxQueue,
    tx: TxQueue,
    now: Instant,
    error: Option<Error>,
    closed: bool,
}

impl Side {
    fn server(spec: Spec) -> Self {
        let now = start();
        Side::over(Conn::server(spec, now), now)
    }

    fn client(spec: Spec) -> Self {
        let now = start();
        Side::over(Conn::client(spec, now), now)
    }

    fn over(conn: Conn, now: Instant) -> Self {
        let tx = TxQueue::new(Pool::new(PoolSpec::default()));
        Side { conn, rx: RxQueue::new(), tx, now, error: None, closed: false }
    }

    /// A server that has had the preface and SETTINGS of a client that writes its frames by hand.
    fn server_behind_preface(spec: Spec) -> Self {
        let mut side = Side::server(spec);
        side.give(PREFACE);
        side.give(&frame(SETTINGS, 0, 0, &[]));
        assert!(side.events().is_empty());
        side.take();
        side
    }

    fn give(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.rx.push(PoolBuf::copied(bytes));
        }
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
    }

    /// What happens now, and nothing of it is sent.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.conn.poll_event(self.now, &mut self.rx) {
                Ok(Event::NeedInput) => return events,
                Ok(Event::Closed) => {
                    self.closed = true;
                    return events;
                }
                Ok(event) => events.push(event),
                Err(error) => {
                    self.error = Some(error);
                    return events;
                }
            }
        }
    }

    /// What is sent now.
    fn take(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            self.conn.poll_output(self.now, &mut self.tx);
            if self.tx.is_empty() {
                return sent;
            }
            sent.extend(self.tx.slices().flat_map(<[u8]>::to_vec));
            self.tx.clear();
        }
    }

    /// Takes everything in; what happened, and what was sent.
    fn turn(&mut self) -> (Vec<Event>, Vec<u8>) {
        let mut events = self.events();
        let mut sent = self.take();
        while self.conn.has_event() || (!self.rx.is_empty() && self.error.is_none()) {
            events.extend(self.events());
            let more = self.take();
            if more.is_empty() && !self.conn.has_event() {
                break;
            }
            sent.extend(more);
        }
        (events, sent)
    }

    /// What a peer that writes its frames by hand is answered.
    fn answer(&mut self, bytes: &[u8]) -> (Vec<Event>, Vec<Seen>) {
        self.give(bytes);
        let (events, sent) = self.turn();
        (events, seen(&sent))
    }

    /// Answers every request with 200 and these bytes, and gives back what comes of bodies; what else happened.
    fn serve(&mut self, body: &'static [u8]) -> Vec<Event> {
        let mut others = Vec::new();
        for event in self.events() {
            match event {
                Event::Request { id, .. } => respond(&mut self.conn, id, body),
                Event::Data { id, data } => self.conn.release(id, data.len()),
                Event::End { .. } | Event::Trailers { .. } => {}
                other => others.push(other),
            }
        }
        others
    }
}

fn respond(conn: &mut Conn, id: StreamId, body: &'static [u8]) {
    let len = crate::proto::http1::BodyLen::Length(body.len() as u64);
    conn.send_head(id, Response::new(()), len).expect("a response");
    if conn.can_send(id) {
        conn.send_data(id, Bytes::from_static(body)).expect("room");
    }
    conn.finish(id).expect("the whole body");
}

/// Carries bytes both ways, `chunk` at a time, until neither side has anything to say; what happened on each.
fn carry(client: &mut Side, server: &mut Side, chunk: usize) -> (Vec<Event>, Vec<Event>) {
    let mut happened = (Vec::new(), Vec::new());
    loop {
        happened.0.extend(client.events());
        let up = client.take();
        for part in up.chunks(chunk) {
            server.give(part);
            happened.1.extend(server.events());
        }
        happened.1.extend(server.events());
        let down = server.take();
        for part in down.chunks(chunk) {
            client.give(part);
            happened.0.extend(client.events());
        }
        if up.is_empty() && down.is_empty() && !client.conn.has_event() && !server.conn.has_event() {
            return happened;
        }
    }
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("https://a.example{path}")).body(()).expect("a request")
}

/// A frame as it is on the wire.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let len = text.len();
            if len < 127 {
                block.push(len as u8);
            } else {
                block.push(127);
                let mut rest = len - 127;
                while rest >= 128 {
                    block.push(rest as u8 | 128);
                    rest >>= 7;
                }
                block.push(rest as u8);
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// GET https://a/, on a stream.
fn simple_get(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &[0x82, 0x87, 0x84, 0x41, 1, b'a'])
}

/// POST https://a/, whose body follows.
fn simple_post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[0x83, 0x87, 0x84, 0x41, 1, b'a'])
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn seen(mut bytes: &[u8]) -> Vec<Seen> {
    let mut frames = Vec::new();
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = bytes {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let stream = u32::from_be_bytes([*s, *t, *u, *v]);
        frames.push(Seen { kind: *kind, flags: *flags, stream, payload: rest[..len].to_vec() });
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty(), "whole frames are sent");
    frames
}

/// Last stream, code and text of each GOAWAY.
fn go_aways(frames: &[Seen]) -> Vec<(u32, u32, String)> {
    let word =
        |payload: &[u8], at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
    let all = frames.iter().filter(|frame| frame.kind == GOAWAY);
    all.map(|frame| {
        let payload = &frame.payload;
        (word(payload, 0), word(payload, 4), String::from_utf8_lossy(&payload[8..]).into_owned())
    })
    .collect()
}

/// Stream and code of each RST_STREAM.
fn resets(frames: &[Seen]) -> Vec<(u32, u32)> {
    let all = frames.iter().filter(|frame| frame.kind == RST_STREAM);
    all.map(|frame| (frame.stream, u32::from_be_bytes(frame.payload[..].try_into().expect("a code"))))
        .collect()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PRIORITY_UPDATE: u8 = 0x10;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
