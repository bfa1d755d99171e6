//! Any bytes as what a client sends behind the preface: the machine neither panics nor keeps more than its limits, a meter is told
//! the same by any pieces, and once it has ended nothing changes it.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use ringport::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use ringport::proto::http2::{Conn, Event, FrameBudgets, Meter, Spec};

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let (piece, now) = (usize::from(piece).max(1), Instant::now());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut whole = Meter::server(FrameBudgets::default(), now);
    let mut split = whole.clone();
    let in_pieces =
        preface.chunks(piece).chain(bytes.chunks(piece)).try_for_each(|part| split.read(now, part));
    assert_eq!(whole.read(now, preface).and_then(|()| whole.read(now, bytes)), in_pieces);

    let mut conn = Conn::server(Spec::default(), now);
    let (mut rx, mut tx) = (RxQueue::new(), TxQueue::new(Pool::new(PoolSpec::default())));
    for part in preface.chunks(piece).chain(bytes.chunks(piece)) {
        rx.push(PoolBuf::copied(part));
        let ended = drive(&mut conn, now, &mut rx, &mut tx);
        if ended {
            assert!(conn.wants_close() && drive(&mut conn, now, &mut rx, &mut tx));
            return;
        }
        assert!(rx.is_empty() && conn.open_count() <= 100);
    }
    conn.handle_eof();
    assert!(drive(&mut conn, now, &mut rx, &mut tx));
});

/// Takes all that is there, and answers every request; whether the connection is over.
fn drive(conn: &mut Conn, now: Instant, rx: &mut RxQueue, tx: &mut TxQueue) -> bool {
    let mut ended = false;
    loop {
        loop {
            match conn.poll_event(now, rx) {
                Ok(Event::NeedInput) => break,
                Ok(Event::Closed) | Err(_) => {
                    ended = true;
                    break;
                }
                Ok(Event::End { id }) => {
                    let body = ringport::proto::http1::BodyLen::Length(2);
                    if conn.send_head(id, http::Response::new(()), body).is_ok() && conn.can_send(id) {
                        let _ = conn.send_data(id, bytes::Bytes::from_static(b"ok"));
                    }
                    let _ = conn.finish(id);
                }
                Ok(Event::Data { id, data }) => conn.release(id, data.len()),
                Ok(_) => {}
            }
        }
        conn.poll_output(now, tx);
        let sent = !tx.is_empty();
        tx.clear();
        if !sent && !conn.has_event() {
            return ended;
        }
    }
}
