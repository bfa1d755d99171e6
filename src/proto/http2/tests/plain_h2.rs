//! Against h2 in plain use: its tasks over a pipe of tokio's, ours between two queues.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::{Event, Side, Spec, get};
use crate::proto::http1::BodyLen;

/// Our side, and the end of the pipe that it has.
struct Linked {
    side: Side,
    pipe: DuplexStream,
}

impl Linked {
    /// Carries what can be carried, without waiting.
    fn turn(&mut self) -> Vec<Event> {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut read = [0; 777];
        let mut read = ReadBuf::new(&mut read);
        if let Poll::Ready(Ok(())) = Pin::new(&mut self.pipe).poll_read(cx, &mut read) {
            self.side.give(read.filled());
        }
        let events = self.side.events();
        self.side.conn.poll_output(self.side.now, &mut self.side.tx);
        let waiting: Vec<u8> = self.side.tx.slices().flat_map(<[u8]>::to_vec).collect();
        if !waiting.is_empty()
            && let Poll::Ready(Ok(count)) = Pin::new(&mut self.pipe).poll_write(cx, &waiting)
        {
            self.side.tx.advance(count);
        }
        events
    }
}

/// Drives a task of plain h2 and our side by turns, until the task is done.
fn run<T>(task: impl Future<Output = T>, mut turn: impl FnMut()) -> T {
    let mut task = std::pin::pin!(task);
    for _ in 0..100_000 {
        if let Poll::Ready(done) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        turn();
    }
    panic!("it hangs");
}

/// Runs a connection beside what uses it.
fn beside<T>(conn: impl Future, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let (mut conn, mut work) = (Box::pin(conn), Box::pin(work));
    std::future::poll_fn(move |cx| {
        let _ = conn.as_mut().poll(cx);
        work.as_mut().poll(cx)
    })
}

#[test]
fn our_server_answers_a_plain_client() {
    let (theirs, ours) = tokio::io::duplex(1000);
    let mut linked = Linked { side: Side::server(Spec::default()), pipe: ours };
    let client = async {
        let (requests, conn) = h2::client::handshake(theirs).await.expect("a connection");
        beside(conn, async {
            for round in 0..20u8 {
                let mut requests = requests.clone().ready().await.expect("room");
                let mut request = get("/echo");
                *request.method_mut() = Method::POST;
                let (response, mut send) = requests.send_request(request, false).expect("a stream");
                send.send_data(vec![round; 5000].into(), false).expect("a body");
                let mut trailers = HeaderMap::new();
                trailers.insert("x-round", HeaderValue::from(u16::from(round)));
                send.send_trailers(trailers).expect("trailers");
                let mut body = response.await.expect("a response").into_body();
                let mut got = Vec::new();
                while let Some(data) = body.data().await {
                    let data = data.expect("data");
                    body.flow_control().release_capacity(data.len()).expect("credit");
                    got.extend_from_slice(&data);
                }
                assert_eq!(got, vec![round; 5000]);
                let trailers = body.trailers().await.expect("an end").expect("trailers");
                assert_eq!(trailers["x-round"], HeaderValue::from(u16::from(round)));
            }
        })
        .await;
    };
    run(client, || {
        for event in linked.turn() {
            match event {
                Event::Request { id, .. } => {
                    linked.side.conn.send_head(id, Response::new(()), BodyLen::Chunked).expect("a head");
                }
                Event::Data { id, data } => {
                    linked.side.conn.release(id, data.len());
                    linked.side.conn.send_data(id, data).expect("room");
                }
                Event::Trailers { id, trailers } => {
                    linked.side.conn.send_trailers(id, trailers).expect("trailers");
                }
                Event::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn our_client_asks_a_plain_server() {
    let (theirs, ours) = tokio::io::duplex(1000);
    let mut linked = Linked { side: Side::client(Spec::default()), pipe: ours };
    let served = std::cell::Cell::new(0);
    let server = async {
        let mut conn = h2::server::handshake(theirs).await.expect("a connection");
        while served.get() < 20 {
            let (request, mut respond) = conn.accept().await.expect("a request").expect("a request");
            let interim = Response::builder().status(103).body(()).expect("a head");
            respond.send_informational(interim).expect("an interim response");
            let path = request.uri().path().to_owned();
            let mut send = respond.send_response(Response::new(()), false).expect("a stream");
            send.send_data(Bytes::from(path.into_bytes()), true).expect("a body");
            served.set(served.get() + 1);
        }
        conn.graceful_shutdown();
        std::future::poll_fn(|cx| conn.poll_closed(cx)).await.expect("a clean end");
    };
    let (mut asked, mut read, mut interim) = (0, 0, 0);
    run(server, || {
        if asked == read && asked < 20 {
            let request: Request<()> = get(&format!("/{asked}"));
            let id = linked.side.conn.open(request, BodyLen::None).expect("a stream");
            linked.side.conn.finish(id).expect("an end");
            asked += 1;
        }
        for event in linked.turn() {
            match event {
                Event::Informational { .. } => interim += 1,
                Event::Response { head, .. } => assert!(head.status().is_success()),
                Event::Data { id, data } => {
                    assert_eq!(data, format!("/{read}"));
                    linked.side.conn.release(id, data.len());
                }
                Event::End { .. } => read += 1,
                Event::GoAway => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!((read, interim), (20, 20));
}
