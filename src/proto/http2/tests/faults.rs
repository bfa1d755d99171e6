//! Messages that another reader could take for something else, frames that break the rules: what is said to them.

use super::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Event, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    Seen, Side, Spec, WINDOW_UPDATE, block, frame, get, go_aways, resets, respond, simple_get, simple_post,
};
use crate::proto::http1::{BodyLen, Fault};
use crate::proto::http2::{Code, Error, SendError};

const GOOD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];

/// What happens to a request with these fields.
fn ask(fields: &[(&str, &str)]) -> (Side, Vec<Event>, Vec<Seen>) {
    let mut side = Side::server_behind_preface(Spec::default());
    let (events, frames) = side.answer(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
    (side, events, frames)
}

/// Refused before anything is told: the stream is reset, or the connection ends.
#[track_caller]
fn refused(fields: &[(&str, &str)]) {
    let (side, events, frames) = ask(fields);
    assert!(events.is_empty(), "{fields:?} {events:?}");
    match side.error {
        None => assert_eq!(resets(&frames), [(1, 1)], "{fields:?}"),
        Some(error) => {
            assert_eq!((error, error.fault()), (Error::Protocol(Code::PROTOCOL_ERROR), Fault::Broken));
            assert_eq!(go_aways(&frames)[0].1, 1, "{fields:?}");
        }
    }
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&GOOD[..], more].concat()
}

fn instead<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    GOOD.map(|field| if field.0 == name { (field.0, value) } else { field }).to_vec()
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    GOOD.into_iter().filter(|field| field.0 != name).collect()
}

#[test]
fn a_good_request_is_told() {
    for fields in [
        GOOD.to_vec(),
        with(&[("host", "a"), ("x", ""), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")]),
        with(&[("host", "A:443")]),
        [&without(":authority")[..], &[("host", "a")]].concat(),
        with(&[("x", "caf\u{e9}")]),
    ] {
        let (side, events, _) = ask(&fields);
        assert!(
            matches!(events[..], [Event::Request { .. }, Event::End { .. }]),
            "{fields:?} {:?}",
            side.error
        );
    }
}

#[test]
fn bytes_that_end_a_line_or_a_name_are_refused() {
    for value in ["a\rb", "a\nb", "a\r\nx: y", "a\0b", "\x01", "a\x7f", " a", "a ", "\ta"] {
        refused(&with(&[("x", value)]));
    }
    for name in
        ["x\r", "x\n", "x\0", "x:", ":x", "x y", "X", "hOst", "", "x\"", "x\u{e9}", "transfer-encoding\t"]
    {
        refused(&with(&[(name, "1")]));
    }
}

#[test]
fn fields_of_a_connection_are_refused() {
    for field in [
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        ("te", ""),
    ] {
        refused(&with(&[field]));
    }
}

#[test]
fn pseudo_fields_that_are_absent_doubled_or_misplaced_are_refused() {
    for name in [":method", ":scheme", ":path", ":authority"] {
        refused(&without(name));
        refused(&instead(name, ""));
        refused(&with(&[(name, GOOD.iter().find(|field| field.0 == name).expect("there").1)]));
        let misplaced = [&without(name)[..], &[("x", "1"), (name, "/")]].concat();
        refused(&misplaced);
    }
    refused(&with(&[(":status", "200")]));
    refused(&with(&[(":protocol", "websocket")]));
    refused(&with(&[(":unknown", "1")]));
    let connect = |more: &[(&'static str, &'static str)]| [&[(":method", "CONNECT")][..], more].concat();
    refused(&connect(&[]));
    refused(&connect(&[(":authority", "a")]));
    refused(&connect(&[(":authority", "a:")]));
    refused(&connect(&[(":authority", "a:1"), (":path", "/")]));
    refused(&connect(&[(":authority", "a:1"), (":scheme", "https")]));
    refused(&connect(&[(":authority", "a:1"), ("content-length", "0")]));
    // The extended CONNECT is off.
    refused(&[&[(":protocol", "websocket"), (":method", "CONNECT")][..], &GOOD[1..]].concat());
}

#[test]
fn targets_and_hosts_with_two_readings_are_refused() {
    for path in ["x", "/a b", "/a\tb", "/a\r\nHost: b", "//a\nb", "*", "http://b/", "/\u{e9}", "/a\0"] {
        refused(&instead(":path", path));
    }
    for authority in ["u@a", "u:p@a", "a,b", "a b", "a/b", "a?b", "a#b", "a:x", "a:99999", "[::1", "a\r\nb"] {
        refused(&instead(":authority", authority));
        refused(&[&without(":authority")[..], &[("host", authority)]].concat());
    }
    for scheme in ["ftp", "http ", "1http", "http://b/?", "javascript"] {
        refused(&instead(":scheme", scheme));
    }
    refused(&with(&[("host", "b")]));
    refused(&with(&[("host", "a:80")]));
    refused(&with(&[("host", "")]));
    refused(&with(&[("host", "a"), ("host", "a")]));
}

#[test]
fn lengths_that_disagree_are_refused() {
    for length in ["1", "00000000000000000001", "+0", "-0", " 0", "0x0", "0, 0", "", "18446744073709551616"] {
        refused(&with(&[("content-length", length)]));
    }
    refused(&with(&[("content-length", "0"), ("content-length", "1")]));
    let post = |length: &str, parts: &[(&[u8], u8)]| {
        let mut side = Side::server_behind_preface(Spec::default());
        let head = block(&[&instead(":method", "POST")[..], &[("content-length", length)]].concat());
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &head);
        for (part, flags) in parts {
            bytes.extend(frame(DATA, *flags, 1, part));
        }
        let (events, frames) = side.answer(&bytes);
        (events, resets(&frames))
    };
    let (events, codes) = post("3", &[(b"ab", 0), (b"c", END_STREAM)]);
    assert!(matches!(events[0], Event::Request { body: BodyLen::Length(3), .. }));
    assert!(matches!(events.last(), Some(Event::End { .. })) && codes.is_empty());
    for parts in [&[(&b"ab"[..], END_STREAM)][..], &[(b"abcd", END_STREAM)], &[(b"ab", 0), (b"cd", 0)]] {
        let (events, codes) = post("3", parts);
        assert!(matches!(events.last(), Some(Event::Reset { code: Code::PROTOCOL_ERROR, .. })), "{events:?}");
        assert_eq!(codes, [(1, 1)]);
    }
}

#[test]
fn trailers_that_change_the_message_are_refused() {
    for (fields, good) in [
        (&[("x-checksum", "1")][..], true),
        (&[("content-length", "1")], false),
        (&[("host", "b")], false),
        (&[("transfer-encoding", "chunked")], false),
        (&[("x", " 1")], false),
        (&[("x", "1"), (":path", "/")], false),
    ] {
        let mut side = Side::server_behind_preface(Spec::default());
        side.answer(&[simple_post(1), frame(DATA, 0, 1, b"x")].concat());
        let (events, frames) = side.answer(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
        if good {
            assert!(matches!(events[..], [Event::Trailers { .. }, Event::End { .. }]), "{events:?}");
        } else {
            assert!(matches!(events[..], [Event::Reset { code: Code::PROTOCOL_ERROR, .. }]), "{events:?}");
            assert_eq!(resets(&frames), [(1, 1)]);
        }
    }
}

#[test]
fn what_is_too_large_is_answered_with_431() {
    let mut side = Side::server_behind_preface(Spec { header_list_bytes: 1000, ..Spec::default() });
    let large = "x".repeat(2000);
    let (events, frames) =
        side.answer(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&with(&[("x", &large)]))));
    assert!(events.is_empty() && side.error.is_none());
    assert!(frames.iter().any(|frame| frame.kind == HEADERS && frame.stream == 1));
    // Another stream goes on.
    let (events, _) = side.answer(&simple_get(3, END_HEADERS | END_STREAM));
    assert_eq!(events.len(), 2);
}

#[test]
fn framing_that_breaks_the_rules_ends_the_connection() {
    let too_long = frame(DATA, 0, 1, &[0; 20_000]);
    for (bytes, code) in [
        (frame(DATA, 0, 0, b"x"), 1),
        (frame(DATA, 0, 1, b"x"), 1),
        (frame(HEADERS, END_HEADERS, 2, &[0x82]), 1),
        (frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1),
        (frame(CONTINUATION, END_HEADERS, 1, &[0x82]), 1),
        ([frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(), 1),
        (frame(PING, 0, 0, &[0; 7]), 1),
        (frame(SETTINGS, 0, 0, &[0; 5]), 1),
        (frame(SETTINGS, 0, 1, &[]), 1),
        ([frame(SETTINGS, ACK, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat(), 1),
        (frame(WINDOW_UPDATE, 0, 0, &0u32.to_be_bytes()), 1),
        (frame(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 1).to_be_bytes()), 3),
        (frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()), 1),
        (too_long, 6),
    ] {
        let mut side = Side::server_behind_preface(Spec::default());
        let (events, frames) = side.answer(&bytes);
        assert!(events.is_empty());
        let [(0, told, _)] = &go_aways(&frames)[..] else { panic!("{} {frames:?}", bytes.escape_ascii()) };
        assert_eq!(*told, code, "{}", bytes[..20.min(bytes.len())].escape_ascii());
        assert_eq!(side.error, Some(Error::Protocol(Code(code))));
        assert!(side.conn.wants_close());
    }
}

#[test]
fn what_is_no_preface_ends_the_connection() {
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[0; 100]] {
        let mut side = Side::server(Spec::default());
        assert!(side.conn.is_handshaking());
        let (events, _) = side.answer(bytes);
        assert!(events.is_empty());
        assert_eq!(side.error, Some(Error::Protocol(Code::PROTOCOL_ERROR)));
    }
    let mut side = Side::server(Spec::default());
    side.give(&PREFACE[..10]);
    side.conn.handle_eof();
    side.events();
    assert_eq!((side.error, side.conn.wants_close()), (Some(Error::Incomplete), false));
    side.take();
    assert!(side.conn.wants_close());
}

/// What an origin may do wrong, to our client.
#[test]
fn responses_with_faults_are_reset() {
    let ok = (":status", "200");
    for fields in [
        &[("x", "1")][..],
        &[(":status", "101")],
        &[(":status", "99")],
        &[ok, ("connection", "close")],
        &[ok, ("transfer-encoding", "chunked")],
        &[ok, ("x", "1 ")],
        &[ok, ("content-length", "x")],
        &[ok, ("content-length", "1"), ("content-length", "2")],
        &[ok, ("content-length", "7")],
        &[(":status", "204"), ("content-length", "5")],
    ] {
        let mut side = Side::client(Spec::default());
        let id = side.conn.open(get("/"), BodyLen::None).expect("a stream");
        side.conn.finish(id).expect("an end");
        side.turn();
        side.give(&frame(SETTINGS, 0, 0, &[]));
        let (events, frames) = side.answer(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
        if let Some(error) = side.error {
            assert_eq!(
                (error, go_aways(&frames)[0].1),
                (Error::Protocol(Code::PROTOCOL_ERROR), 1),
                "{fields:?}"
            );
            continue;
        }
        let [Event::Reset { code: Code::PROTOCOL_ERROR, unprocessed: false, .. }] = events[..] else {
            panic!("{fields:?} {events:?}")
        };
        assert_eq!(side.conn.finish(id), Err(SendError::Gone));
    }
}

#[test]
fn a_client_has_no_pushed_streams() {
    let mut side = Side::client(Spec::default());
    side.conn.open(get("/"), BodyLen::None).expect("a stream");
    side.turn();
    side.give(&frame(SETTINGS, 0, 0, &[]));
    let promise = [&2u32.to_be_bytes()[..], &block(&GOOD)].concat();
    let (_, frames) = side.answer(&frame(5, END_HEADERS, 1, &promise));
    assert_eq!(go_aways(&frames)[0].1, 1);
    assert_eq!(side.error, Some(Error::Protocol(Code::PROTOCOL_ERROR)));
}

/// A server that needs no more of a body has answered, and says so.
#[test]
fn a_response_may_come_before_the_body_is_read() {
    let mut side = Side::server_behind_preface(Spec::default());
    let (events, _) = side.answer(&[simple_post(1), frame(DATA, 0, 1, b"some")].concat());
    let Event::Request { id, body: BodyLen::Chunked, .. } = &events[0] else { panic!("{events:?}") };
    respond(&mut side.conn, *id, b"enough");
    side.conn.reset(*id, Code::NO_ERROR);
    let (events, frames) = side.answer(&[]);
    assert!(events.is_empty());
    assert!(resets(&frames).iter().all(|reset| *reset == (1, 0)), "{frames:?}");
    assert_eq!(side.conn.open_count(), 0);
}

#[test]
fn faults_have_words() {
    for error in [
        Error::Protocol(Code(77)),
        Error::Flood(crate::proto::http2::Flood::Ping),
        Error::GoAway(Code::HTTP_1_1_REQUIRED),
        Error::KeepAlive,
        Error::Incomplete,
        Error::Closed(Code::NO_ERROR),
    ] {
        assert!(!error.to_string().is_empty());
        assert_eq!(error.fault() == Fault::Gone, !matches!(error, Error::Protocol(_) | Error::Flood(_)));
    }
    assert_eq!(format!("{:?} {:?}", Code::CANCEL, Code(99)), "CANCEL code 99");
    for error in [
        SendError::Gone,
        SendError::State,
        SendError::Closing,
        SendError::TooManyStreams,
        SendError::Full,
        SendError::Status,
        SendError::BodyLen,
        SendError::Malformed(crate::proto::mapping::Malformed::Te),
        SendError::ExtendedConnect,
        SendError::BodyTooLong { allowed: 1 },
        SendError::BodyTooShort { missing: 1 },
        SendError::TrailersNotAllowed,
    ] {
        assert!(!error.to_string().is_empty());
    }
}
