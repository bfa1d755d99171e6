//! When a client may open streams, and what is known of those that it opened.

use bytes::Bytes;

use super::{Event, Side, carry, get, respond};
use crate::proto::http1::BodyLen;
use crate::proto::http2::{SendError, Spec};

fn pair(spec: Spec, server: Spec) -> (Side, Side) {
    let (mut client, mut server) = (Side::client(spec), Side::server(server));
    carry(&mut client, &mut server, usize::MAX);
    (client, server)
}

/// Its response is whole and its request handed over, but not sent: the origin counts it still, so the next one waits in h2, and
/// no other is opened before.
#[test]
fn a_stream_that_waits_in_h2_leaves_no_room() {
    let only_one = Spec { max_streams: 1, stream_window_bytes: 65_535, ..Spec::default() };
    let (mut client, mut server) = pair(Spec::default(), only_one);
    let len = 200_000;
    let first = client.conn.open(get("/"), BodyLen::Length(len)).expect("room");
    client.conn.send_data(first, Bytes::from(vec![7; len as usize])).expect("room");
    client.conn.finish(first).expect("all of it");
    let (_, asked) = carry(&mut client, &mut server, usize::MAX);
    let Event::Request { id, .. } = asked[0] else { panic!("{asked:?}") };
    respond(&mut server.conn, id, b"");
    let (answered, _) = carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(answered.last(), Some(Event::End { .. })), "{answered:?}");
    assert_eq!((client.conn.open_count(), client.conn.room()), (0, 1));

    let second = client.conn.open(get("/"), BodyLen::Chunked).expect("room");
    // More than waits for the window, so that it is to be told of room.
    while client.conn.can_send(second) {
        client.conn.send_data(second, Bytes::from(vec![7; 50_000])).expect("room");
    }
    assert_eq!((client.conn.room(), client.conn.takes_streams()), (0, true));
    assert_eq!(client.conn.open(get("/"), BodyLen::None), Err(SendError::TooManyStreams));
    carry(&mut client, &mut server, usize::MAX);
    assert!(client.conn.was_sent(first) && !client.conn.was_sent(second));
    assert_eq!(client.conn.room(), 0);

    // Once the origin takes what waits, the first is done and the next is on its way.
    let (mut told, mut asked) = (Vec::new(), asked);
    for _ in 0..20 {
        for event in asked.drain(..) {
            if let Event::Data { id, data } = event {
                server.conn.release(id, data.len());
            }
        }
        let (events, more) = carry(&mut client, &mut server, usize::MAX);
        told.extend(events);
        asked = more;
    }
    assert!(client.conn.was_sent(second));
    let writable = told.iter().filter(|event| matches!(event, Event::Writable { id } if *id == second));
    assert_eq!(writable.count(), 1, "{told:?}");
    assert_eq!((client.conn.open_count(), client.conn.room()), (1, 0));
}

/// What nothing was written of is surely not acted on.
#[test]
fn a_stream_that_was_not_sent_is_unprocessed_when_the_connection_ends() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    let sent = client.conn.open(get("/"), BodyLen::Chunked).expect("room");
    carry(&mut client, &mut server, usize::MAX);
    client.conn.handle_eof();
    assert_eq!((client.conn.room(), client.conn.takes_streams()), (0, false));
    assert_eq!(client.conn.open(get("/"), BodyLen::None), Err(SendError::Closing));
    let events = client.events();
    assert!(matches!(events[..], [Event::Reset { id, unprocessed: false, .. }] if id == sent), "{events:?}");

    let (mut client, _) = pair(Spec::default(), Spec::default());
    let unsent = client.conn.open(get("/"), BodyLen::Chunked).expect("room");
    assert!(!client.conn.was_sent(unsent));
    client.conn.handle_eof();
    let events = client.events();
    assert!(matches!(events[..], [Event::Reset { unprocessed: true, .. }]), "{events:?}");
}

/// There is no number above the last: the connection ends with what is open.
#[test]
fn the_numbers_of_streams_come_to_an_end() {
    let (mut client, mut server) = pair(Spec::default(), Spec::default());
    client.conn.last_stream = 3;
    for last in [false, true] {
        assert!(client.conn.takes_streams());
        let id = client.conn.open(get("/"), BodyLen::None).expect("room");
        client.conn.finish(id).expect("an end");
        assert_eq!((id.number(), client.conn.takes_streams()), (1 + 2 * u32::from(last), !last));
    }
    assert_eq!(client.conn.room(), 0);
    assert_eq!(client.conn.open(get("/"), BodyLen::None), Err(SendError::Closing));
    let (_, asked) = carry(&mut client, &mut server, usize::MAX);
    for event in asked {
        if let Event::Request { id, .. } = event {
            respond(&mut server.conn, id, b"");
        }
    }
    let (answered, _) = carry(&mut client, &mut server, usize::MAX);
    assert_eq!(answered.iter().filter(|event| matches!(event, Event::End { .. })).count(), 2);
    assert!(client.closed);
}
