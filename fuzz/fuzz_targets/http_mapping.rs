//! Any request as HTTP/2 could bring it: what passes is written as one request of HTTP/1.1, which our own strict reader takes for
//! the same one, and which is the same again when it goes back to HTTP/2.
#![no_main]

use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use libfuzzer_sys::fuzz_target;
use ringport::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use ringport::proto::http1::{BodyLen, ClientConn, Limits, ServerConn, ServerEvent};
use ringport::proto::mapping::{request_to_http1, request_to_http2};

fuzz_target!(|input: &[u8]| {
    // Lines: the method, the target, then a field each, `name=value`.
    let mut lines = input.split(|&byte| byte == 0);
    let (Some(method), Some(target)) = (lines.next(), lines.next()) else { return };
    let mut builder = http::Request::builder().method(method).uri(target);
    for line in lines.take(50) {
        let Some(at) = line.iter().position(|&byte| byte == b'=') else { return };
        let (Ok(name), Ok(value)) =
            (HeaderName::from_lowercase(&line[..at]), HeaderValue::from_bytes(&line[at + 1..]))
        else {
            return;
        };
        builder = builder.header(name, value);
    }
    let Ok(request) = builder.body(()) else { return };
    let Ok(mapped) = request_to_http1(&request, false) else { return };

    let mut tx = TxQueue::new(Pool::new(PoolSpec::default()));
    let fields = mapped.fields.iter().map(|(name, value)| (*name, value.as_ref()));
    ClientConn::new(Limits::default())
        .send_request_head(mapped.line(), fields, mapped.body, &mut tx)
        .expect("what passes can be written");
    let mut rx = RxQueue::new();
    let bytes: Vec<u8> = tx.slices().flat_map(<[u8]>::to_vec).collect();
    rx.push(PoolBuf::copied(&bytes));
    let limits =
        Limits { request_line_bytes: 60_000, head_bytes: 65_535, header_count: 256, ..Limits::default() };
    let mut server = ServerConn::new(limits);
    let event = match server.poll_event(&mut rx) {
        Ok(ServerEvent::Head(head, body)) => (head, body),
        // Of an expectation and of the number of names in Connection our reader is the stricter one.
        Err(error) if error.fault() == ringport::proto::http1::Fault::Refused => return,
        other => panic!("{other:?}"),
    };
    let (head, body) = event;
    assert_eq!((head.method(), head.authority()), (request.method(), Some(mapped.host)));
    assert!(rx.is_empty(), "it is one request");
    if request.method() != http::Method::CONNECT {
        let written = if mapped.body == BodyLen::Length(0) { BodyLen::None } else { mapped.body };
        assert_eq!(body, written);
        assert_eq!(head.target(), mapped.target);
    }
    if let Ok(again) = request_to_http2(&head, Scheme::HTTPS) {
        let twice = request_to_http1(&again, false).expect("it passed once");
        assert_eq!((twice.method, twice.target, twice.host), (mapped.method, mapped.target, mapped.host));
    }
});
