//! Requests of HTTP/2 that a reader of HTTP/1.1 could take for something else, over sockets: none reaches a handler.

use std::cell::Cell;

use http::StatusCode;
use ringport::http::{Exchange, ExchangeError};
use ringport::runtime::native::Native;

use crate::http_server::{Served, serve_with};
use crate::http_wire::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame,
};
use crate::rig::each;

const GOOD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const PROTOCOL_ERROR: u32 = 1;

type Fields = Vec<(&'static str, &'static str)>;

fn with(more: &[(&'static str, &'static str)]) -> Fields {
    [&GOOD[..], more].concat()
}

fn instead(name: &str, value: &'static str) -> Fields {
    GOOD.map(|field| if field.0 == name { (field.0, value) } else { field }).to_vec()
}

fn without(name: &str) -> Fields {
    GOOD.into_iter().filter(|field| field.0 != name).collect()
}

/// What no server may hand on.
fn refused() -> Vec<Fields> {
    let mut rows = Vec::new();
    for value in ["a\rb", "a\nb", "a\r\nx: y", "a\0b", "1\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n"] {
        rows.push(with(&[("x", value)]));
        rows.push(with(&[("cookie", value)]));
        rows.push(instead(":path", value));
        rows.push(instead(":authority", value));
        rows.push(instead(":method", value));
        rows.push(instead(":scheme", value));
    }
    for name in
        ["x\r", "x\n", "x\0", "x:", "x: y\r\nz", ":x", "x y", "X", "", "transfer-encoding\t", "host\r\n"]
    {
        rows.push(with(&[(name, "1")]));
    }
    for length in ["1", "+0", "-0", " 0", "0x0", "0, 0", "", "18446744073709551616"] {
        // The head is the last of it.
        rows.push(with(&[("content-length", length)]));
    }
    rows.push(with(&[("content-length", "0"), ("content-length", "1")]));
    for field in [
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
    ] {
        rows.push(with(&[field]));
    }
    rows.push(with(&[("host", "b")]));
    rows.push(with(&[("host", "a:81")]));
    rows.push(with(&[("host", "a"), ("host", "a")]));
    rows.push([without(":authority"), vec![("host", "a\r\nb")]].concat());
    for name in [":method", ":scheme", ":path", ":authority"] {
        rows.push(without(name));
        rows.push(instead(name, ""));
        rows.push(with(&[GOOD.into_iter().find(|field| field.0 == name).expect("there")]));
        rows.push([without(name), vec![("x", "1"), (name, "/")]].concat());
    }
    rows.push(with(&[(":status", "200")]));
    rows.push(instead(":path", "http://b/"));
    rows.push(instead(":path", "*"));
    rows.push(instead(":authority", "u@a"));
    rows
}

thread_local! {
    /// Requests that a handler was given, and bodies that it read to their end.
    static GIVEN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

async fn counting(mut exchange: Exchange) -> Result<(), ExchangeError> {
    let (given, read) = GIVEN.get();
    GIVEN.set((given + 1, read));
    while exchange.recv().await?.is_some() {}
    let (given, read) = GIVEN.get();
    GIVEN.set((given, read + 1));
    exchange.respond(StatusCode::OK, [], "")
}

/// The code that ends the stream or the connection; `None` where there is a response.
async fn send(runtime: &Native, server: &Served, request: &[u8]) -> Option<u32> {
    let mut client = server.connect(runtime).await;
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), request].concat();
    client.send(bytes).await.expect("open");
    let mut frames = Frames::default();
    loop {
        let frame = frames.next(&mut client).await.expect("it says something first");
        match frame.kind {
            RST_STREAM if frame.stream == 1 => return Some(frame.code()),
            GOAWAY => return Some(frame.code()),
            HEADERS => return None,
            _ => {}
        }
    }
}

#[test]
fn what_two_readers_could_take_for_two_requests_reaches_no_handler() {
    each(async |runtime| {
        let server = serve_with(&runtime, "", "", counting);
        GIVEN.set((0, 0));
        let rows = refused();
        for fields in &rows {
            let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
            let code = send(&runtime, &server, &request).await;
            assert_eq!(code, Some(PROTOCOL_ERROR), "{fields:?}");
        }
        assert_eq!(GIVEN.get(), (0, 0), "of {} requests", rows.len());
        println!("{} requests refused, none reached a handler", rows.len());
        // What is right passes.
        for fields in [GOOD.to_vec(), with(&[("host", "a"), ("te", "trailers")])] {
            let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
            assert_eq!(send(&runtime, &server, &request).await, None, "{fields:?}");
        }
        assert_eq!(GIVEN.get(), (2, 2));
        server.end().await;
    });
}

/// The head is given away before the body is known to differ; the handler never sees an end of it.
#[test]
fn a_body_of_another_length_than_said_has_no_end() {
    each(async |runtime| {
        let server = serve_with(&runtime, "", "", counting);
        let head = [instead(":method", "POST"), vec![("content-length", "3")]].concat();
        let head = frame(HEADERS, END_HEADERS, 1, &block(&head));
        GIVEN.set((0, 0));
        for parts in [&[("ab", END_STREAM)][..], &[("abcd", END_STREAM)], &[("ab", 0), ("cd", 0)]] {
            let data = parts.iter().flat_map(|&(part, flags)| frame(DATA, flags, 1, part.as_bytes()));
            let request = [head.clone(), data.collect()].concat();
            assert_eq!(send(&runtime, &server, &request).await, Some(PROTOCOL_ERROR), "{parts:?}");
        }
        let request = [head, frame(DATA, END_STREAM, 1, b"abc")].concat();
        assert_eq!(send(&runtime, &server, &request).await, None);
        server.end().await;
        let (given, read) = GIVEN.get();
        assert!(given <= 4 && read == 1, "{given} {read}");
    });
}
