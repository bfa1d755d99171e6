//! HTTP/1.1 between our own client and server, and a plain stream that writes what a bad client would.

use std::future::poll_fn;
use std::io;

use http::StatusCode;
use ringport::http::{ClientError, ClientStream, ServeError, ServerStream};
use ringport::proto::http1::{BodyLen, ClientEvent, Error, Limits, RemainingBody, RequestLine, ServerEvent};
use ringport::runtime::native::{Native, NativeStream};
use ringport::runtime::{Transport, TxLevel};

use super::rig::{Pattern, TcpStream, each, join, now, pair, read_all, turn};

type Server = ServerStream<NativeStream>;
type Client = ClientStream<NativeStream>;

async fn client_and_server(runtime: &Native) -> (Client, Server) {
    let (near, far) = pair(runtime).await;
    (ClientStream::over(near, Limits::default()), ServerStream::over(far, Limits::default()))
}

async fn raw_and_server(runtime: &Native) -> (TcpStream, Server) {
    let (near, far) = pair(runtime).await;
    (near, ServerStream::over(far, Limits::default()))
}

fn line<'a>(method: &'a str, target: &'a str) -> RequestLine<'a> {
    RequestLine { method, target, host: "a.example" }
}

/// Answers every request with its target, faults with their reason, until the connection ends.
async fn answer_all(mut server: Server) -> Result<(), ServeError> {
    loop {
        match server.next_event().await {
            Ok(ServerEvent::Head(head, _)) => {
                let target = head.target().as_bytes().to_vec();
                server.respond(StatusCode::OK, [], target).expect("a response is due");
            }
            Ok(ServerEvent::Closed) => return Ok(()),
            Ok(_) => {}
            Err(ServeError::Protocol(error)) if server.conn().can_respond() => {
                server.respond(error.status(), [], error.reason().as_bytes()).expect("none was begun");
            }
            Err(error) => return Err(error),
        }
        server.flush().await?;
        if server.conn().wants_close() {
            return Ok(());
        }
    }
}

/// Everything that a server says to `bytes`, whose sender then ends its side.
async fn said_to(runtime: &Native, bytes: &'static [u8]) -> String {
    let (mut raw, server) = raw_and_server(runtime).await;
    let server = runtime.core().spawn(answer_all(server));
    raw.send(bytes).await.expect("open");
    raw.shutdown().await.expect("open");
    let said = read_all(&mut raw).await;
    // Whether it was an error is told by what was said.
    let _ = server.await.expect("no panic");
    String::from_utf8(said).expect("text")
}

/// Who never sends by itself answers all the same: with the wait for more, with the end, and with a fault behind it.
#[test]
fn answers_go_out_once_input_is_used_up() {
    each(async |runtime| {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        for (behind, said_last) in [("", "/3"), ("GET\r\n\r\n", "/3"), ("GET /4 HTTP/1.1\r\nHo", "/3")] {
            let (mut raw, mut server) = raw_and_server(&runtime).await;
            let server = runtime.core().spawn(async move {
                loop {
                    let Ok(ServerEvent::Head(head, _)) = server.next_event().await else { return };
                    assert!(server.conn().take_end());
                    let target = head.target().as_bytes().to_vec();
                    server.respond(StatusCode::OK, [], target).expect("a response is due");
                    poll_fn(|cx| server.poll_room(cx, 1 << 16)).await.expect("open");
                }
            });
            raw.send(get("/1")).await.expect("open");
            let first = raw.recv().await.expect("open").expect("an answer to the wait for more");
            assert!(first.ends_with(b"/1"), "{}", first.escape_ascii());
            raw.send([get("/2"), get("/3"), behind.to_owned()].concat()).await.expect("open");
            raw.shutdown().await.expect("open");
            let said = String::from_utf8(read_all(&mut raw).await).expect("text");
            assert!(said.contains("/2HTTP") && said.ends_with(said_last), "{said:?}");
            server.await.expect("no panic");
        }
    });
}

/// Room is what is unsent and in hand together: a client that does not read is answered no further.
#[test]
fn answers_in_hand_count_as_unsent() {
    each(async |runtime| {
        let (mut raw, mut server) = raw_and_server(&runtime).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        let Ok(ServerEvent::Head(..)) = server.next_event().await else { panic!("a request was sent") };
        server.send_head(StatusCode::OK, [], BodyLen::Length(100)).expect("a response is due");
        server.send_data(vec![b'x'; 100]).expect("as announced");
        let unsent = server.stream().tx().len();
        poll_fn(|cx| server.poll_room(cx, unsent)).await.expect("open");
        assert_eq!(server.stream().tx().len(), unsent, "what fits stays in hand");
        poll_fn(|cx| server.poll_room(cx, unsent - 1)).await.expect("open");
        assert_eq!(server.stream().tx().len(), 0, "what does not is sent");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    each(async |runtime| {
        let said = said_to(
            &runtime,
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
              GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
        let expected = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/1\
                        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/2\
                        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\
                        HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n/4";
        assert_eq!(said, expected);
    });
}

/// The body of the answer to a fault was once left out because the request before it had been HEAD.
#[test]
fn a_fault_behind_head_is_answered_whole() {
    each(async |runtime| {
        let said = said_to(&runtime, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n").await;
        let (_, answer) = said.split_once("\r\n\r\n").expect("the answer to HEAD");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the answer to nonsense");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, Error::RequestLine.reason());
    });
}

#[test]
fn http10_is_answered_in_its_own_way() {
    each(async |runtime| {
        let said = said_to(
            &runtime,
            b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /never HTTP/1.0\r\n\r\n",
        )
        .await;
        let expected = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n/1\
                        HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n/2";
        assert_eq!(said, expected);
    });
}

#[test]
fn small_responses_without_a_body_tell_its_length() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        let cases = [
            ("HEAD", StatusCode::OK, Some(4)),
            ("GET", StatusCode::NOT_MODIFIED, Some(4)),
            ("GET", StatusCode::OK, Some(4)),
        ];
        for (method, status, len) in cases {
            client.send_head(line(method, "/"), [], BodyLen::None).expect("reusable");
            client.finish().expect("no body");
            client.flush().await.expect("open");
            assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
            server.respond(status, [], &b"body"[..]).expect("a response is due");
            server.flush().await.expect("open");
            assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
            let Ok(ClientEvent::Head(head, _)) = client.next_event().await else { panic!("a head is due") };
            assert_eq!((head.status(), head.content_length()), (status, len));
            if (method, status) == ("GET", StatusCode::OK) {
                let Ok(ClientEvent::Data(data)) = client.next_event().await else { panic!("a body is due") };
                assert_eq!(&*data, b"body");
            }
            assert!(matches!(client.next_event().await, Ok(ClientEvent::End)));
            assert!(client.is_reusable());
        }
    });
}

#[test]
fn informational_responses_come_first_and_are_counted() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        for (count, refused) in [(16, false), (17, true)] {
            client.send_head(line("GET", "/"), [], BodyLen::None).expect("reusable");
            client.finish().expect("no body");
            client.flush().await.expect("open");
            assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
            for _ in 0..count {
                let link = [("link", &b"</a>"[..])];
                server.send_informational(StatusCode::EARLY_HINTS, link).expect("before the head");
            }
            server.respond(StatusCode::OK, [], Vec::new()).expect("a response is due");
            server.flush().await.expect("open");
            assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
            let mut seen = 0;
            let end = loop {
                match client.next_event().await {
                    Ok(ClientEvent::Informational(head)) => {
                        assert_eq!(head.get("Link"), Some(&b"</a>"[..]));
                        seen += 1;
                    }
                    Ok(ClientEvent::Head(..)) => {}
                    end => break end,
                }
            };
            assert_eq!(seen, 16);
            match end {
                Ok(ClientEvent::End) => assert!(!refused && client.is_reusable()),
                Err(ClientError::Protocol(error)) => assert!(refused && error == Error::TooManyInformational),
                end => panic!("{end:?}"),
            }
        }
    });
}

#[test]
fn a_client_that_expects_100_waits_for_it() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        let expect = [("expect", &b"100-continue"[..])];
        client.send_head(line("PUT", "/"), expect, BodyLen::Length(4)).expect("new");
        client.flush().await.expect("open");
        let Ok(ServerEvent::Head(head, _)) = server.next_event().await else { panic!("a head is due") };
        assert!(head.expects_continue());
        // Twice is once: the client waits for one.
        server.send_informational(StatusCode::CONTINUE, []).expect("nothing was said");
        server.send_informational(StatusCode::CONTINUE, []).expect("nothing was said");
        server.flush().await.expect("open");
        let Ok(ClientEvent::Informational(head)) = client.next_event().await else { panic!("100 is due") };
        assert_eq!(head.status(), StatusCode::CONTINUE);
        client.send_data(&b"body"[..]).expect("announced");
        client.finish().expect("all is sent");
        client.flush().await.expect("open");
        let Ok(ServerEvent::Data(data)) = server.next_event().await else { panic!("a body is due") };
        assert_eq!(&*data, b"body");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
        server.respond(StatusCode::CREATED, [], Vec::new()).expect("a response is due");
        server.flush().await.expect("open");
        let Ok(ClientEvent::Head(head, _)) = client.next_event().await else { panic!("a head is due") };
        assert_eq!(head.status(), StatusCode::CREATED);
        assert!(matches!(client.next_event().await, Ok(ClientEvent::End)));
        assert!(client.is_reusable());
    });
}

/// Who answers before it has read, and closes at once, makes its kernel send a reset that may overtake the answer; who
/// shuts down and drains does not.
#[test]
fn an_early_response_reaches_a_client_that_still_sends() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        client.send_head(line("PUT", "/"), [], BodyLen::Length(4 << 20)).expect("new");
        let sends = async {
            for _ in 0..64 {
                client.send_data(vec![1; 64 * 1024]).expect("announced");
                client.flush().await.expect("somebody reads or drains");
            }
            client.finish().expect("all is sent");
            let Ok(ClientEvent::Head(head, _)) = client.next_event().await else { panic!("a head is due") };
            assert_eq!(head.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert!(head.says_close());
            assert!(matches!(client.next_event().await, Ok(ClientEvent::End)));
            assert!(!client.is_reusable());
            drop(client);
        };
        let refuses = async {
            assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
            server.conn().close_after_response();
            server.respond(StatusCode::PAYLOAD_TOO_LARGE, [], Vec::new()).expect("a response is due");
            assert_eq!(server.conn().remaining_body(), RemainingBody::Known(4 << 20));
            server.flush().await.expect("open");
            let mut stream = server.into_stream();
            stream.shutdown().await.expect("open");
            assert_eq!(read_all(&mut stream).await.len(), 4 << 20);
        };
        join(sends, refuses).await;
    });
}

#[test]
fn a_body_that_nobody_reads_is_held_back() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        client.send_head(line("POST", "/"), [], BodyLen::Chunked).expect("new");
        client.flush().await.expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
        let received = || runtime.core().stats().received_bytes.load();
        let before = received();
        let len = 32 << 20;
        for part in Pattern::new(17).take(len).chunks(1 << 20) {
            client.send_data(part.to_vec()).expect("chunked");
        }
        client.finish().expect("chunked");
        client.start_send().expect("open");
        for _ in 0..1000 {
            turn().await;
        }
        // 64 KiB wait in the socket, and nothing in the machine that has not asked.
        assert!(received() - before <= 64 * 1024, "{} bytes were taken", received() - before);
        let sent = now(|cx| client.poll_sent(cx, TxLevel::Below(len / 2))).await;
        assert!(sent.is_pending(), "the writer waits");

        let (mut pattern, mut count) = (Pattern::new(17), 0);
        loop {
            match server.next_event().await.expect("in order") {
                ServerEvent::Data(data) => {
                    pattern.check(&data);
                    count += data.len();
                }
                ServerEvent::End => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(count, len);
        client.flush().await.expect("all is read");

        // The same the other way.
        server.send_head(StatusCode::OK, [], BodyLen::Length(len as u64)).expect("a response is due");
        server.send_data(Pattern::new(18).take(len)).expect("announced");
        server.finish().expect("all is sent");
        server.start_send().expect("open");
        let before = received();
        for _ in 0..1000 {
            turn().await;
        }
        assert!(received() - before <= 64 * 1024, "{} bytes were taken", received() - before);
        let (mut pattern, mut count) = (Pattern::new(18), 0);
        loop {
            match client.next_event().await.expect("in order") {
                ClientEvent::Head(..) => {}
                ClientEvent::Data(data) => {
                    pattern.check(&data);
                    count += data.len();
                }
                ClientEvent::End => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(count, len);
    });
}

/// While a response is due the server watches for a reset; a client that pipelines without end is held back meanwhile.
#[test]
fn a_flood_of_pipelined_requests_is_held_back() {
    each(async |runtime| {
        let (mut raw, mut server) = raw_and_server(&runtime).await;
        let one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        raw.tx().push(one.repeat(300_000));
        raw.start_send().expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
        assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
        for _ in 0..1000 {
            assert!(now(|cx| server.poll_gone(cx)).await.is_pending());
            turn().await;
        }
        let taken = runtime.core().stats().received_bytes.load();
        // What the server pulled for the first request and beside it, and what waits in a socket whose reader kept up until
        // then.
        assert!(taken <= (64 + 64 + 256) * 1024, "{taken} bytes were taken while a response is due");
        // The rest of them is of no interest.
        raw.reset();
        server.into_stream().reset();
    });
}

#[test]
fn a_client_that_resets_is_noticed_while_a_response_is_due() {
    each(async |runtime| {
        let (mut raw, mut server) = raw_and_server(&runtime).await;
        raw.send(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]).await.expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
        assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
        raw.reset();
        let error = poll_fn(|cx| server.poll_gone(cx)).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

/// A client that has ended its side only still gets its answer.
#[test]
fn a_half_closed_client_is_answered() {
    each(async |runtime| {
        let (mut raw, mut server) = raw_and_server(&runtime).await;
        raw.send(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]).await.expect("open");
        raw.shutdown().await.expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Head(..))));
        assert!(matches!(server.next_event().await, Ok(ServerEvent::End)));
        for _ in 0..10 {
            assert!(now(|cx| server.poll_gone(cx)).await.is_pending());
            turn().await;
        }
        server.respond(StatusCode::OK, [], &b"late"[..]).expect("a response is due");
        server.flush().await.expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Closed)));
        drop(server);
        assert!(read_all(&mut raw).await.ends_with(b"\r\n\r\nlate"));
    });
}

#[test]
fn connect_gives_a_tunnel_both_ways() {
    each(async |runtime| {
        let (mut client, mut server) = client_and_server(&runtime).await;
        client.send_head(line("CONNECT", "b.example:443"), [], BodyLen::Tunnel).expect("new");
        client.finish().expect("no body");
        client.flush().await.expect("open");
        let Ok(ServerEvent::Head(head, body)) = server.next_event().await else { panic!("a head is due") };
        assert_eq!((head.target(), body), ("b.example:443", BodyLen::Tunnel));
        server.send_head(StatusCode::OK, [], BodyLen::Tunnel).expect("a response is due");
        server.send_data(&b"greeting"[..]).expect("a tunnel");
        server.flush().await.expect("open");
        assert!(matches!(client.next_event().await, Ok(ClientEvent::Head(_, BodyLen::Tunnel))));
        let Ok(ClientEvent::Tunnel(data)) = client.next_event().await else { panic!("bytes are due") };
        assert_eq!(&*data, b"greeting");
        client.send_data(&b"answer"[..]).expect("a tunnel");
        client.flush().await.expect("open");
        let Ok(ServerEvent::Tunnel(data)) = server.next_event().await else { panic!("bytes are due") };
        assert_eq!(&*data, b"answer");
        // Each side ends by itself.
        client.finish().expect("our side of the tunnel");
        client.stream().shutdown().await.expect("open");
        assert!(matches!(server.next_event().await, Ok(ServerEvent::Closed)));
        server.send_data(&b"last"[..]).expect("the other way is open");
        server.finish().expect("our side of the tunnel");
        server.stream().shutdown().await.expect("open");
        let Ok(ClientEvent::Tunnel(data)) = client.next_event().await else { panic!("bytes are due") };
        assert_eq!(&*data, b"last");
        assert!(matches!(client.next_event().await, Ok(ClientEvent::Closed)));
        assert!(client.conn().wants_close() && server.conn().wants_close());
    });
}

#[test]
fn an_origin_that_dies_in_a_body_is_told_apart_from_its_end() {
    each(async |runtime| {
        for (said, error) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"[..], Some(Error::Incomplete)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Some(Error::Incomplete)),
            (b"HTTP/1.1 200 OK\r\n", Some(Error::Incomplete)),
            (b"", Some(Error::Incomplete)),
            (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", None),
        ] {
            let (near, mut origin) = pair(&runtime).await;
            let mut client = ClientStream::over(near, Limits::default());
            client.send_head(line("GET", "/"), [], BodyLen::None).expect("new");
            client.finish().expect("no body");
            client.flush().await.expect("open");
            origin.recv().await.expect("open").expect("a request");
            origin.send(said).await.expect("open");
            drop(origin);
            let end = loop {
                match client.next_event().await {
                    Ok(ClientEvent::Head(..) | ClientEvent::Data(_)) => {}
                    Ok(ClientEvent::End) => break None,
                    Ok(event) => panic!("{event:?}"),
                    Err(ClientError::Protocol(error)) => break Some(error),
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!(end, error, "{}", said.escape_ascii());
            assert!(!client.is_reusable());
        }
    });
}

/// A kept connection that its origin closes, or on which it says something unasked, is not used again.
#[test]
fn a_kept_connection_is_checked_before_its_reuse() {
    each(async |runtime| {
        for unasked in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (near, mut origin) = pair(&runtime).await;
            let mut client = ClientStream::over(near, Limits::default());
            client.send_head(line("GET", "/"), [], BodyLen::None).expect("new");
            client.finish().expect("no body");
            client.flush().await.expect("open");
            origin.recv().await.expect("open").expect("a request");
            origin.send(&b"HTTP/1.1 204 No Content\r\n\r\n"[..]).await.expect("open");
            while !matches!(client.next_event().await.expect("in order"), ClientEvent::End) {}
            assert!(client.is_reusable());
            // An idle connection is watched by a receive that waits.
            assert!(now(|cx| client.poll_event(cx)).await.is_pending());
            origin.send(unasked).await.expect("open");
            drop(origin);
            while !client.stream().transport().has_news() {
                turn().await;
            }
            assert!(!client.is_reusable());
        }
    });
}
