//! A client's and a server's machine, back to back: bodies arrive as they were sent, however the bytes are split.

use http::StatusCode;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use ringport_platform::buf::{PoolBuf, RxQueue, TxQueue};

use super::super::{BodyLen, ClientConn, ClientEvent, Limits, RequestLine, ServerConn, ServerEvent};
use super::{sent, tx_queue};

/// Moves what is sent into what is received, in parts of these lengths in turn.
fn carry(tx: &mut TxQueue, rx: &mut RxQueue, splits: &[usize], mut after_part: impl FnMut(&mut RxQueue)) {
    let bytes = sent(tx);
    tx.clear();
    let (mut at, mut lens) = (0, splits.iter().cycle());
    while at < bytes.len() {
        let len = lens.next().map_or(bytes.len(), |&len| len).min(bytes.len() - at);
        rx.push(PoolBuf::copied(&bytes[at..at + len]));
        after_part(rx);
        at += len;
    }
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![Just(1), 1..8usize, 1..4000usize], 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_survive(
        segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
        splits in lengths(),
        chunked in any::<bool>(),
        trailer in any::<bool>(),
    ) {
        let whole = segments.concat();
        let body = if chunked { BodyLen::Chunked } else { BodyLen::Length(whole.len() as u64) };
        let (mut client, mut server) = (ClientConn::new(Limits::default()), ServerConn::new(Limits::default()));
        let (mut tx, mut to_server, mut to_client) = (tx_queue(), RxQueue::new(), RxQueue::new());
        let trailers = [("x-sum", &b"1"[..])];

        // Twice, so that a second exchange meets what the first left behind.
        for _ in 0..2 {
            let line = RequestLine { method: "POST", target: "/a?b", host: "a" };
            client.send_request_head(line, [("x", &b"y"[..])], body, &mut tx).expect("reusable");
            for segment in &segments {
                client.send_data(segment.clone(), &mut tx).expect("announced");
            }
            match chunked && trailer {
                true => client.send_trailers(trailers, &mut tx).expect("chunked"),
                false => client.finish(&mut tx).expect("complete"),
            }
            let (mut read, mut ended, mut trailers_seen) = (Vec::new(), false, false);
            carry(&mut tx, &mut to_server, &splits, |rx| loop {
                match server.poll_event(rx).expect("our own client is understood") {
                    ServerEvent::NeedInput | ServerEvent::Paused => break,
                    ServerEvent::Data(data) => read.extend_from_slice(&data),
                    ServerEvent::Trailers(fields) => trailers_seen = fields.get("X-SUM") == Some(b"1"),
                    ServerEvent::End => ended = true,
                    ServerEvent::Head(..) => {}
                    event => panic!("{event:?}"),
                }
            });
            prop_assert_eq!((&read, ended, trailers_seen), (&whole, true, chunked && trailer));

            server.send_head(StatusCode::OK, [("x", &b"y"[..])], body, &mut tx).expect("asked");
            for segment in &segments {
                server.send_data(segment.clone(), &mut tx).expect("announced");
            }
            server.finish(&mut tx).expect("complete");
            let (mut read, mut ended) = (Vec::new(), false);
            carry(&mut tx, &mut to_client, &splits, |rx| loop {
                match client.poll_event(rx).expect("our own server is understood") {
                    ClientEvent::NeedInput => break,
                    ClientEvent::Data(data) => read.extend_from_slice(&data),
                    ClientEvent::End => ended = true,
                    ClientEvent::Head(..) => {}
                    event => panic!("{event:?}"),
                }
            });
            prop_assert_eq!((&read, ended), (&whole, true));
            assert!(client.reusable(&to_client) && server.can_read_next());
        }
    }

    /// Nothing a peer sends makes a machine panic, and no event is lost to how the bytes are split.
    #[test]
    fn noise_is_refused_the_same_way(noise in noise(), splits in lengths()) {
        let read = |splits: &[usize]| {
            let (mut conn, mut rx, mut tx) = (ServerConn::new(Limits::default()), RxQueue::new(), tx_queue());
            let mut log = Vec::new();
            tx.put_slice(&noise);
            carry(&mut tx, &mut rx, splits, |rx| loop {
                match conn.poll_event(rx) {
                    Ok(ServerEvent::Head(head, body)) => log.push(format!("{head:?} {body:?}")),
                    Ok(ServerEvent::Trailers(fields)) => log.push(format!("{fields:?}")),
                    Ok(ServerEvent::End) => log.push("end".into()),
                    Ok(ServerEvent::Data(_) | ServerEvent::Tunnel(_)) => {}
                    Ok(ServerEvent::NeedInput | ServerEvent::Paused | ServerEvent::Closed) => break,
                    Err(error) => {
                        if log.last().is_none_or(|last| *last != error.reason()) {
                            log.push(error.reason().into());
                        }
                        break;
                    }
                }
            });
            log
        };
        prop_assert_eq!(read(&[usize::MAX]), read(&splits));
    }

    /// The same for what an origin sends, up to the end of its response.
    #[test]
    fn noise_from_an_origin_is_refused_the_same_way(noise in response_noise(), splits in lengths()) {
        let read = |splits: &[usize]| {
            let (mut conn, mut rx, mut tx) = (ClientConn::new(Limits::default()), RxQueue::new(), tx_queue());
            let line = RequestLine { method: "GET", target: "/", host: "a" };
            conn.send_request_head(line, [], BodyLen::None, &mut tx).expect("a new connection");
            conn.finish(&mut tx).expect("no body");
            tx.clear();
            tx.put_slice(&noise);
            let (mut log, mut data_len, mut over) = (Vec::new(), 0, false);
            let mut read_on = |rx: &mut RxQueue, eof: bool| {
                if eof {
                    conn.handle_eof();
                }
                while !over {
                    match conn.poll_event(rx) {
                        Ok(ClientEvent::NeedInput | ClientEvent::Closed) => break,
                        Ok(ClientEvent::Data(data)) => data_len += data.len(),
                        Ok(ClientEvent::End) => over = true,
                        Ok(event) => log.push(format!("{event:?}")),
                        Err(error) => {
                            log.push(error.reason().into());
                            over = true;
                        }
                    }
                }
            };
            carry(&mut tx, &mut rx, splits, |rx| read_on(rx, false));
            read_on(&mut rx, true);
            // Data in front of a fault comes in as many bytes as had arrived.
            (log, data_len)
        };
        prop_assert_eq!(read(&[usize::MAX]), read(&splits));
    }
}

/// Requests put together from pieces that fit and pieces that do not.
pub(super) fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..]),
        Just(&b"POST /x HTTP/1.1\r\nHost: a\r\n"[..]),
        Just(&b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n"[..]),
        Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        Just(&b"Content-Length: 3\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        Just(&b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n"[..]),
        Just(&b"PUT /y?z HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"[..]),
        Just(&b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..]),
        Just(&b"5;a=b\r\nhello\r\n0\r\n\r\n"[..]),
        Just(&b"0\r\nx: y\r\n\r\n"[..]),
        Just(&b"3\r\nabc\r\n"[..]),
        Just(&b"0\r\n"[..]),
        Just(&b"abc"[..]),
        Just(&b"x: y\r\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\n"[..]),
        Just(&b" "[..]),
        Just(&b"\0"[..]),
        Just(&b"\xff"[..]),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

fn response_noise() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        Just(&b"HTTP/1.0 200 OK\r\n"[..]),
        Just(&b"HTTP/1.1 204 No Content\r\n"[..]),
        Just(&b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"[..]),
        Just(&b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n"[..]),
    ];
    (first, noise()).prop_map(|(first, rest)| [first, &rest].concat())
}
