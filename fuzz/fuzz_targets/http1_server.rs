//! Any bytes as what a client of HTTP/1.1 sends: the machine does not panic, tells the same whether they come whole or in pieces,
//! gives no more of a body than came, and once it has ended nothing changes it. Each request is answered at its end.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use ringport::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use ringport::proto::http_conn::{Event, HttpConn};
use ringport::proto::http1::{BodyLen, Limits};

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(piece).max(1);
    let (whole, taken) = told(bytes, bytes.len().max(1));
    assert_eq!(told(bytes, piece), (whole, taken), "in pieces of {piece}");
    assert!(taken <= bytes.len());
});

/// What the machine tells, data in a row as one, and how much data that is.
fn told(bytes: &[u8], piece: usize) -> (Vec<String>, usize) {
    let limits = Limits { head_bytes: 600, request_line_bytes: 300, header_count: 10, ..Limits::default() };
    let mut conn = HttpConn::http1(limits);
    let (mut rx, mut tx) = (RxQueue::new(), TxQueue::new(Pool::new(PoolSpec::default())));
    let (mut told, mut data_len) = (Vec::new(), 0);
    for part in bytes.chunks(piece) {
        rx.push(PoolBuf::copied(part));
        if drive(&mut conn, &mut rx, &mut tx, &mut told, &mut data_len) {
            return (told, data_len);
        }
    }
    conn.handle_eof();
    drive(&mut conn, &mut rx, &mut tx, &mut told, &mut data_len);
    let len = told.len();
    assert!(drive(&mut conn, &mut rx, &mut tx, &mut told, &mut data_len), "the end is the end");
    // The last word comes again and nothing else does.
    told.truncate(len);
    (told, data_len)
}

/// Takes all that is there, and answers every request; whether the connection is over.
fn drive(
    conn: &mut HttpConn,
    rx: &mut RxQueue,
    tx: &mut TxQueue,
    told: &mut Vec<String>,
    data_len: &mut usize,
) -> bool {
    let now = Instant::now();
    loop {
        let event = match conn.poll_event(now, rx) {
            Ok(event) => event,
            Err(error) => {
                told.push(format!("{error}"));
                assert!(matches!(conn.poll_event(now, rx), Err(again) if again == error), "it says the same again");
                if conn.can_refuse() {
                    conn.refuse(http::StatusCode::BAD_REQUEST, [], "no", tx);
                    assert!(conn.wants_close());
                }
                return true;
            }
        };
        match event {
            Event::NeedInput => return false,
            Event::Closed => {
                told.push("closed".to_owned());
                return true;
            }
            Event::Request { id, head, body } => {
                let fields: Vec<_> = head.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let about = (head.method(), head.path(), head.query(), head.authority(), head.version());
                told.push(format!("{about:?} {body:?} {fields:?}"));
                // A tunnel has no end of a request.
                if body == BodyLen::Tunnel {
                    let _ = conn.respond(id, http::StatusCode::FORBIDDEN, [], "no".into(), tx);
                }
            }
            Event::Data { data, .. } => {
                *data_len += data.len();
                if told.last().is_none_or(|last| last != "data") {
                    told.push("data".to_owned());
                }
            }
            Event::Trailers { trailers, .. } => told.push(format!("{trailers:?}")),
            Event::End { id } => {
                told.push("end".to_owned());
                let _ = conn.respond(id, http::StatusCode::OK, [("x-a", &b"1"[..])], "ok".into(), tx);
                tx.clear();
            }
            Event::Writable { .. } | Event::Reset { .. } => {}
        }
    }
}
