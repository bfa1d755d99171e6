//! Frames that cost a peer nothing: how many pass, and what is said to the next one.

use std::time::Duration;

use super::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PRIORITY_UPDATE,
    RST_STREAM, SETTINGS, Side, WINDOW_UPDATE, block, frame, go_aways, seen, simple_get, simple_post, start,
};
use crate::proto::http2::{Budget, Code, Error, Event, Flood, FrameBudgets, Meter, Spec};

const CALM: u32 = 11;

/// Sends `opening` and then frames until the connection ends; how many passed before. Each is answered at once, as by a
/// server that is quick; nothing but the last answer may end it.
fn frames_until_calm(opening: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) -> (u32, Error, String) {
    let mut side = Side::server_behind_preface(Spec::default());
    side.answer(opening);
    for count in 0..5000 {
        let (_, frames) = side.answer(&next(count));
        if let Some(error) = side.error {
            let ends = go_aways(&frames);
            assert_eq!(ends.len(), 1, "{frames:?}");
            assert_eq!(ends[0].1, CALM);
            assert!(side.conn.wants_close() && side.conn.open_count() == 0);
            return (count, error, ends[0].2.clone());
        }
        assert!(go_aways(&frames).is_empty());
    }
    panic!("no limit");
}

#[track_caller]
fn check(flood: Flood, passed: u32, opening: &[u8], next: impl FnMut(u32) -> Vec<u8>) {
    let (count, error, text) = frames_until_calm(opening, next);
    assert_eq!((count, error, text.as_str()), (passed, Error::Flood(flood), flood.reason()));
}

#[test]
fn a_frame_more_than_its_budget_ends_the_connection() {
    let budgets = FrameBudgets::default();
    check(Flood::Ping, 100, &[], |_| frame(PING, 0, 0, &[1; 8]));
    // One is used by the client's own.
    check(Flood::Settings, 49, &[], |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]));
    check(Flood::Priority, budgets.priority.burst, &[], |n| frame(PRIORITY, 0, n * 2 + 1, &[0, 0, 0, 0, 16]));
    check(Flood::Priority, budgets.priority.burst, &[], |_| frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=3"));
    check(Flood::WindowUpdate, 1000, &[], |_| frame(WINDOW_UPDATE, 0, 0, &256u32.to_be_bytes()));
    check(Flood::SmallWindowUpdate, 1000, &[], |_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()));
    check(Flood::SmallWindowUpdate, 1000, &[], |_| {
        frame(WINDOW_UPDATE, 0, 0, &(1u32 << 31 | 1).to_be_bytes())
    });
    check(Flood::Unknown, 100, &[], |_| frame(0x99, 0, 0, &[0; 100]));
    // Only while a stream is open: without one the first ends the connection.
    check(Flood::Unknown, 100, &simple_post(1), |_| frame(GOAWAY, 0, 0, &[0; 8]));
    // 16 KiB each.
    check(Flood::Unknown, 100 / 17, &[], |_| frame(0x99, 0, 0, &[0; 16 * 1024]));
}

#[test]
fn empty_data_and_streams_that_are_reset_are_counted() {
    check(Flood::EmptyData, 100, &simple_post(1), |_| frame(DATA, 0, 1, &[]));
    // The budget is that of the resets: what is opened and reset in one write was not answered.
    check(Flood::Reset, 200, &[], |n| {
        let id = n * 2 + 1;
        [simple_get(id, END_HEADERS | END_STREAM), frame(RST_STREAM, 0, id, &8u32.to_be_bytes())].concat()
    });
}

/// "Made you reset": the client never sends a reset, it makes the server send them.
#[test]
fn streams_with_faults_are_counted() {
    // By a message that is refused, and by an overflow of the window.
    check(Flood::ProvokedReset, 100, &[], |n| {
        let path = block(&[(":method", "GET"), (":scheme", "https"), (":path", "x"), (":authority", "a")]);
        frame(HEADERS, END_HEADERS | END_STREAM, n * 2 + 1, &path)
    });
    check(Flood::ProvokedReset, 100, &[], |n| {
        let id = n * 2 + 1;
        let max = (1u32 << 31) - 1;
        [simple_get(id, END_HEADERS), frame(WINDOW_UPDATE, 0, id, &max.to_be_bytes())].concat()
    });
    // More streams than are allowed: each is refused.
    check(Flood::ProvokedReset, 200, &[], |n| simple_get(n * 2 + 1, END_HEADERS));
}

#[test]
fn header_blocks_in_many_frames_are_counted() {
    let opening = frame(HEADERS, 0, 1, &[0x82, 0x87, 0x84, 0x41, 1, b'a']);
    for part in [&[][..], &[0x40, 1, b'x', 1, b'y']] {
        // Where h2 counts the same it may be the stricter one.
        let (count, error, _) = frames_until_calm(&opening, |_| frame(CONTINUATION, 0, 1, part));
        assert!(count <= 16, "{count} of {}", part.len());
        let by_h2 = Error::Protocol(Code::ENHANCE_YOUR_CALM);
        assert!(error == Error::Flood(Flood::Continuation) || error == by_h2, "{error}");
    }
    let now = start();
    let mut meter = Meter::server(FrameBudgets::default(), now);
    meter.read(now, super::PREFACE).expect("a preface");
    meter.read(now, &opening).expect("a block");
    for _ in 0..16 {
        meter.read(now, &frame(CONTINUATION, 0, 1, b"")).expect("a part");
    }
    assert_eq!(meter.read(now, &frame(CONTINUATION, 0, 1, b"")), Err(Flood::Continuation));
    meter.read(now, &opening).expect("another block counts anew");
    for _ in 0..2 {
        meter.read(now, &frame(CONTINUATION, 0, 1, &[0; 16 * 1024])).expect("a part");
    }
    assert_eq!(meter.read(now, &frame(CONTINUATION, 0, 1, &[0; 16 * 1024])), Err(Flood::HeaderBlock));
}

/// A field of 4,000 bytes in the table, then named thousands of times by one byte each.
#[test]
fn a_compression_bomb_ends_the_connection() {
    let mut side = Side::server_behind_preface(Spec::default());
    let mut bomb = vec![0x82, 0x87, 0x84, 0x41, 1, b'a', 0x40, 1, b'a', 0x7f, 0x81, 0x1e];
    bomb.extend(vec![b'z'; 3968]);
    bomb.extend(vec![0xbe; 8000]);
    let (events, frames) = side.answer(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
    assert!(events.is_empty());
    assert_eq!(go_aways(&frames)[0].1, CALM);
    assert_eq!(side.error, Some(Error::Protocol(Code::ENHANCE_YOUR_CALM)));
}

/// Tiny DATA that nobody takes is bounded by its overhead; what is taken at once is no flood.
#[test]
fn tiny_data_is_bounded_while_nobody_takes_it() {
    let mut side = Side::server_behind_preface(Spec::default());
    side.give(&simple_post(1));
    side.events();
    for _ in 0..20_000 {
        side.give(&frame(DATA, 0, 1, b"x"));
        let taken = side.serve(b"");
        assert!(taken.is_empty() && side.error.is_none());
        side.take();
    }
    let mut meter = Meter::server(FrameBudgets::default(), side.now);
    meter.read(side.now, super::PREFACE).expect("a preface");
    assert_eq!(meter.read(side.now, &frame(DATA, 0, 1, b"x").repeat(20_000)), Ok(()));
}

#[test]
fn budgets_refill_with_time() {
    let mut side = Side::server_behind_preface(Spec::default());
    let ping = frame(PING, 0, 0, &[7; 8]);
    for _ in 0..10 {
        side.answer(&ping.repeat(100));
        assert_eq!(side.error, None);
        // Ten a second.
        side.after(Duration::from_secs(10));
    }
    side.answer(&ping.repeat(100));
    side.after(Duration::from_millis(99));
    side.answer(&ping);
    assert_eq!(side.error, Some(Error::Flood(Flood::Ping)));
}

#[test]
fn parts_of_a_frame_are_not_lost_between_two_refills() {
    let mut now = start();
    let budgets = FrameBudgets { ping: Budget { burst: 1, per_second: 3 }, ..FrameBudgets::default() };
    let mut meter = Meter::client(budgets, now);
    let ping = frame(PING, 0, 0, &[7; 8]);
    meter.read(now, &ping).expect("the burst");
    // Three seconds in steps that are no multiple of a third.
    let mut passed = 0;
    for _ in 0..300 {
        now += Duration::from_millis(10);
        let mut one_more = meter.clone();
        if one_more.read(now, &ping).is_ok() {
            passed += 1;
            meter = one_more;
        }
    }
    assert!((8..=9).contains(&passed), "{passed}");
}

/// Who works for it may send more: a client that reads a long body, one that makes many requests.
#[test]
fn work_gives_frames_back() {
    let mut side = Side::server_behind_preface(Spec::default());
    let mut updates = 0;
    for n in 0..2000 {
        let id = n * 2 + 1;
        let request = [simple_get(id, END_HEADERS | END_STREAM), frame(PING, 0, 0, &[1; 8])].concat();
        side.give(&request);
        assert!(side.serve(b"hello").is_empty());
        let sent = seen(&side.take());
        assert!(sent.iter().any(|frame| frame.kind == DATA && frame.stream == id));
        side.give(&frame(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes()));
        side.give(&frame(PRIORITY, 0, id, &[0, 0, 0, 0, 16]));
        // For a stream that has been answered, this is a cancel that came late.
        side.give(&frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        assert!(side.serve(b"").is_empty());
        updates += 1;
        assert_eq!(side.error, None, "after {updates}");
    }
}

/// A peer that does not read is held back, and makes nothing grow.
#[test]
fn pings_of_a_peer_that_does_not_read_wait() {
    let spec = Spec {
        budgets: FrameBudgets { ping: Budget { burst: u32::MAX, per_second: 0 }, ..FrameBudgets::default() },
        ..Spec::default()
    };
    let mut side = Side::server_behind_preface(spec);
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(1000);
    for _ in 0..100 {
        side.give(&pings);
        assert!(side.events().is_empty());
        side.conn.poll_output(side.now, &mut side.tx);
    }
    assert!(side.tx.len() <= 2 * 64 * 1024, "{}", side.tx.len());
    assert!(side.rx.len() > 1_000_000, "what is not answered is not taken");
    // Once it reads, all are answered.
    let mut answered = side.tx.len();
    side.tx.clear();
    while !side.rx.is_empty() {
        assert!(side.events().is_empty());
        answered += side.take().len();
    }
    assert_eq!(answered, 100 * pings.len());
}

/// A flood ends its connection in the midst of an answer: the frame that was begun is sent whole.
#[test]
fn go_away_stands_behind_a_whole_frame() {
    let mut side = Side::server_behind_preface(Spec::default());
    side.give(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0x10, 0, 0, 0, 5, 0, 0xff, 0xff, 0xff]));
    side.give(&frame(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes()));
    side.give(&simple_get(1, END_HEADERS | END_STREAM));
    let events = side.events();
    let Some(Event::Request { id, .. }) = events.first() else { panic!("{events:?}") };
    let (id, len) = (*id, 200 * 1024);
    let body = crate::proto::http1::BodyLen::Length(len as u64);
    side.conn.send_head(id, http::Response::new(()), body).expect("a head");
    side.conn.send_data(id, vec![7; len].into()).expect("room");
    // One piece of output, then no more room: h2 is in the midst of a frame.
    side.conn.poll_output(side.now, &mut side.tx);
    let begun: Vec<u8> = side.tx.slices().flat_map(<[u8]>::to_vec).collect();
    side.tx.clear();
    side.give(&frame(PING, 0, 0, &[1; 8]).repeat(200));
    side.events();
    assert_eq!(side.error, Some(Error::Flood(Flood::Ping)));
    let rest = side.take();
    let frames = seen(&[begun, rest].concat());
    assert_eq!(go_aways(&frames), [(1, CALM, Flood::Ping.reason().to_owned())]);
    assert_eq!(frames.last().map(|frame| frame.kind), Some(GOAWAY));
    assert!(frames.iter().map(|frame| frame.payload.len()).sum::<usize>() < len);
}
