//! Origins that write their frames by hand, and do what ours would not.

use std::time::Duration;

use http::StatusCode;
use ringport::http::{CallError, CallEvent, Http2Call, Http2Client, Http2Error};
use ringport::proto::http1::BodyLen;
use ringport::proto::http2::{Code, Error, Flood, KeepAlive, SendError, Spec};
use ringport::runtime::native::Native;

use super::super::rig::{TcpStream, each, join, now, pair, turn};
use super::{Ended, Whole, get, read, request, start, until};

/// The other end, which sees what comes and says what the case wants.
struct Raw(TcpStream);

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.0.send(bytes).await.expect("open");
    }

    async fn preface(&mut self) {
        let mut preface = [0; 24];
        self.0.read_exact(&mut preface).await.expect("a preface");
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }

    async fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.expect("a frame");
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        self.0.read_exact(&mut payload).await.expect("a whole frame");
        Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload }
    }

    /// The next frame of that kind; what comes before is passed over.
    async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The head of a response with that status: 200.
    async fn head(&mut self, stream: u32, flags: u8) {
        self.send(HEADERS, END_HEADERS | flags, stream, &[0x88]).await;
    }

    async fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    /// Reads to the end.
    async fn end(mut self) {
        while let Ok(Some(_)) = self.0.recv().await {}
    }
}

/// A client, and an origin by hand that allows so many streams, which the client knows.
async fn meet(runtime: &Native, spec: Spec, max_streams: u32) -> (Http2Client, Ended, Raw) {
    let (near, far) = pair(runtime).await;
    let (client, ended) = start(runtime, near, spec);
    let mut origin = Raw(far);
    origin.preface().await;
    let max = max_streams.to_be_bytes();
    origin.send(SETTINGS, 0, 0, &[&[0, 3], &max[..]].concat()).await;
    origin.send(SETTINGS, ACK, 0, &[]).await;
    until(|| client.room() == max_streams.min(100) as usize).await;
    (client, ended, origin)
}

fn ask(client: &Http2Client) -> Http2Call {
    let mut call = client.open(request("GET", "/"), BodyLen::None).expect("room");
    call.finish().expect("no body");
    call
}

/// What a call is told in the end.
async fn fault(call: &mut Http2Call) -> CallError {
    read(call).await.expect_err("it does not end well")
}

#[test]
fn what_an_origin_refuses_may_be_sent_again() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        for (code, unprocessed) in [(7, true), (2, false), (8, false), (0, false)] {
            let mut call = ask(&client);
            let stream = origin.next(HEADERS).await.stream;
            origin.send(RST_STREAM, 0, stream, &u32::to_be_bytes(code)).await;
            let error = fault(&mut call).await;
            assert!(matches!(error, CallError::Reset { code: said, .. } if said == Code(code)), "{error:?}");
            assert_eq!(error.is_unprocessed(), unprocessed, "{error}");
        }
        // What came before is handed out, and the reset is said again.
        let mut call = ask(&client);
        let stream = origin.next(HEADERS).await.stream;
        origin.head(stream, 0).await;
        origin.send(DATA, 0, stream, b"half").await;
        origin.send(RST_STREAM, 0, stream, &[0, 0, 0, 2]).await;
        until(|| client.open_count() == 0).await;
        assert!(matches!(call.next_event().await, Ok(CallEvent::Head(..))));
        assert!(matches!(call.next_event().await, Ok(CallEvent::Data(data)) if &data[..] == b"half"));
        assert!(call.next_event().await.is_err() && call.next_event().await.is_err());
        assert!(client.is_open());
        drop((call, client));
        join(ended, origin.end()).await;
    });
}

#[test]
fn streams_above_the_last_of_a_goaway_may_be_sent_again_and_those_below_go_on() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 3).await;
        let (mut first, mut second, mut third) = (ask(&client), ask(&client), ask(&client));
        assert_eq!(client.room(), 0);
        for stream in [1, 3, 5] {
            assert_eq!(origin.next(HEADERS).await.stream, stream);
        }
        let waiting = std::future::poll_fn(|cx| client.poll_room(cx));
        // As a server that drains says it first: all go on, and nobody may come.
        let said = async {
            turn().await;
            origin.go_away(u32::MAX >> 1, 0).await;
        };
        join(waiting, said).await;
        assert!(!client.is_open());
        assert_eq!(client.open(request("GET", "/"), BodyLen::None).expect_err("no more"), SendError::Closing);
        origin.go_away(3, 0).await;
        let error = fault(&mut third).await;
        assert!(error.is_unprocessed(), "{error:?}");
        assert!(now(|cx| first.poll_event(cx)).await.is_pending());
        for stream in [1, 3] {
            origin.head(stream, 0).await;
            origin.send(DATA, END_STREAM, stream, b"body").await;
        }
        for call in [&mut first, &mut second] {
            let Whole { status, body, .. } = read(call).await.expect("it goes on");
            assert_eq!((status, &body[..]), (StatusCode::OK, &b"body"[..]));
        }
        // Behind the last one it ends by itself, whatever is held of it.
        drop((first, second, third));
        join(ended, origin.end()).await;
        assert!(!client.is_open());
    });
}

#[test]
fn a_connection_that_is_cut_tells_every_call() {
    each(async |runtime| {
        for by_reset in [false, true] {
            let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
            let (mut whole, mut half, mut none) = (ask(&client), ask(&client), ask(&client));
            for _ in 0..3 {
                origin.next(HEADERS).await;
            }
            origin.head(1, 0).await;
            origin.send(DATA, END_STREAM, 1, b"whole").await;
            origin.head(3, 0).await;
            origin.send(DATA, 0, 3, b"half").await;
            // So that all of it has come.
            assert!(matches!(half.next_event().await, Ok(CallEvent::Head(..))));
            assert!(matches!(half.next_event().await, Ok(CallEvent::Data(data)) if &data[..] == b"half"));
            if by_reset {
                origin.0.reset();
            } else {
                drop(origin);
            }
            for call in [&mut half, &mut none] {
                let error = fault(call).await;
                let CallError::Connection { error: Http2Error::Io(_), unprocessed: false } = error else {
                    panic!("{error:?}")
                };
            }
            ended.await;
            assert!(!client.is_open());
            // What had come is there after the connection's end.
            assert_eq!(read(&mut whole).await.expect("it was whole").body, b"whole");
        }
    });
}

/// A GOAWAY with an error, then the end: a call that the origin has seen may have been acted on.
#[test]
fn an_origin_that_fails_says_which_calls_it_has_seen() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        let (mut seen, mut unseen) = (ask(&client), ask(&client));
        origin.next(HEADERS).await;
        origin.next(HEADERS).await;
        origin.go_away(1, 2).await;
        drop(origin);
        assert!(!fault(&mut seen).await.is_unprocessed());
        assert!(fault(&mut unseen).await.is_unprocessed());
        ended.await;
        drop(client);
    });
}

#[test]
fn a_flood_of_the_origin_ends_the_connection() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        let mut call = ask(&client);
        origin.next(HEADERS).await;
        let ping = b"\0\0\x08\x06\0\0\0\0\x0012345678";
        origin.0.send(ping.repeat(1000)).await.expect("open");
        let error = fault(&mut call).await;
        let CallError::Connection { error: Http2Error::Protocol(Error::Flood(Flood::Ping)), .. } = &error
        else {
            panic!("{error:?}")
        };
        ended.await;
        assert!(!client.is_open());
        origin.end().await;
    });
}

#[test]
fn a_fault_of_framing_ends_the_connection() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        let mut call = ask(&client);
        origin.next(HEADERS).await;
        // DATA on a stream that nobody opened.
        origin.send(DATA, 0, 9, b"x").await;
        let error = fault(&mut call).await;
        assert!(!error.is_unprocessed(), "{error:?}");
        ended.await;
        origin.end().await;
        drop(client);
    });
}

#[test]
fn a_silent_origin_is_found_out() {
    each(async |runtime| {
        let time = Duration::from_millis(20);
        let keep_alive = Some(KeepAlive { interval: time, timeout: time });
        let (near, far) = pair(&runtime).await;
        let (client, ended) = start(&runtime, near, Spec { keep_alive, ..Spec::default() });
        let (mut call, mut origin) = (ask(&client), Raw(far));
        origin.preface().await;
        assert_eq!(origin.next(PING).await.flags, 0);
        let error = fault(&mut call).await;
        assert!(
            matches!(error, CallError::Connection { error: Http2Error::Protocol(Error::KeepAlive), .. }),
            "{error:?}"
        );
        ended.await;
        drop(client);
        origin.end().await;
    });
}

#[test]
fn what_a_dropped_call_leaves_is_a_reset() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        let cancel = |stream| Frame { kind: RST_STREAM, flags: 0, stream, payload: vec![0, 0, 0, 8] };
        // Before its response.
        let call = ask(&client);
        origin.next(HEADERS).await;
        drop(call);
        assert_eq!(origin.next(RST_STREAM).await, cancel(1));
        // In the middle of its response.
        let mut call = ask(&client);
        origin.next(HEADERS).await;
        origin.head(3, 0).await;
        assert!(matches!(call.next_event().await, Ok(CallEvent::Head(..))));
        drop(call);
        assert_eq!(origin.next(RST_STREAM).await, cancel(3));
        // Behind its response, its request unfinished.
        let mut call = client.open(request("POST", "/"), BodyLen::Chunked).expect("room");
        origin.next(HEADERS).await;
        origin.head(5, END_STREAM).await;
        read(&mut call).await.expect("a whole response");
        drop(call);
        assert_eq!(origin.next(RST_STREAM).await, cancel(5));
        // Nothing where both are whole.
        let mut call = ask(&client);
        origin.next(HEADERS).await;
        origin.head(7, END_STREAM).await;
        read(&mut call).await.expect("a whole response");
        drop(call);
        // With a code.
        let call = ask(&client);
        origin.next(HEADERS).await;
        call.reset(Code::NO_ERROR);
        let Frame { stream, payload, .. } = origin.next(RST_STREAM).await;
        assert_eq!((stream, &payload[..]), (9, &[0; 4][..]));
        drop(client);
        join(ended, origin.end()).await;
    });
}

/// An origin that has answered and needs no more of the request. RFC 9113 8.1.
#[test]
fn a_whole_response_stands_when_the_rest_of_the_request_is_not_wanted() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        let mut call = client.open(request("POST", "/"), BodyLen::Chunked).expect("room");
        // More than the window, so that the rest waits.
        call.send_data(vec![7; 200_000].into()).expect("room");
        assert!(now(|cx| call.poll_room(cx)).await.is_pending());
        origin.next(DATA).await;
        origin.head(1, END_STREAM).await;
        origin.send(RST_STREAM, 0, 1, &[0; 4]).await;
        let error = std::future::poll_fn(|cx| call.poll_room(cx)).await.expect_err("it takes no more");
        assert!(matches!(error, CallError::Reset { code: Code::NO_ERROR, unprocessed: false }), "{error:?}");
        assert_eq!(read(&mut call).await.expect("a whole response").status, StatusCode::OK);
        drop((call, client));
        join(ended, origin.end()).await;
    });
}

/// What is read is given back, and what nobody reads is not: bytes above the window end the stream.
#[test]
fn a_call_that_nobody_reads_holds_its_window_at_most() {
    each(async |runtime| {
        let spec = Spec { stream_window_bytes: 100_000, ..Spec::default() };
        let (client, ended, mut origin) = meet(&runtime, spec, 100).await;
        let (mut unread, mut read) = (ask(&client), ask(&client));
        origin.next(HEADERS).await;
        origin.next(HEADERS).await;
        origin.head(1, 0).await;
        origin.head(3, 0).await;
        for _ in 0..10 {
            origin.send(DATA, 0, 1, &[1; 10_000]).await;
            origin.send(DATA, 0, 3, &[3; 10_000]).await;
        }
        let mut got = 0;
        while got < 100_000 {
            if let CallEvent::Data(data) = read.next_event().await.expect("it goes on") {
                got += data.len();
            }
        }
        let window = loop {
            let frame = origin.next(WINDOW_UPDATE).await;
            if frame.stream != 0 {
                break frame.stream;
            }
        };
        assert_eq!(window, 3, "of the one that was read");
        origin.send(DATA, 0, 1, b"one more").await;
        assert_eq!(origin.next(RST_STREAM).await.payload, [0, 0, 0, 3], "FLOW_CONTROL_ERROR");
        // All that was in order is handed out before.
        let mut got = 0;
        let error = loop {
            match unread.next_event().await {
                Ok(CallEvent::Data(data)) => got += data.len(),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(got, 100_000, "{error}");
        drop((unread, read, client));
        join(ended, origin.end()).await;
    });
}

#[test]
fn more_hints_than_the_limit_end_their_call() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 100).await;
        for (count, is_fine) in [(16, true), (17, false)] {
            let mut call = ask(&client);
            let stream = origin.next(HEADERS).await.stream;
            for _ in 0..count {
                // :status 103, spelled out.
                origin.send(HEADERS, END_HEADERS, stream, b"\x08\x03103").await;
            }
            if is_fine {
                origin.head(stream, END_STREAM).await;
                assert_eq!(read(&mut call).await.expect("answered").informational.len(), 16);
            } else {
                let error = fault(&mut call).await;
                assert!(matches!(error, CallError::Reset { code: Code::ENHANCE_YOUR_CALM, .. }), "{error:?}");
            }
        }
        drop(client);
        join(ended, origin.end()).await;
    });
}

/// A request whose task is gone before its place comes up does not keep it from the next.
#[test]
fn who_waits_no_more_does_not_hold_up_the_next() {
    each(async |runtime| {
        let (client, ended, mut origin) = meet(&runtime, Spec::default(), 1).await;
        let call = ask(&client);
        origin.next(HEADERS).await;
        // This task waits, and then does not want it any more.
        assert!(now(|cx| client.poll_room(cx)).await.is_pending());
        let asking = client.clone();
        let second = runtime.core().spawn(async move { get(&asking, "/").await });
        turn().await;
        drop(call);
        assert_eq!(origin.next(HEADERS).await.stream, 3);
        origin.head(3, END_STREAM).await;
        second.await.expect("no panic").expect("answered");
        drop(client);
        join(ended, origin.end()).await;
    });
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
