//! Every future of the API, dropped at every point where it waits: no byte is lost or comes twice, nothing is left.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use ringport::http::{ClientStream, ServerStream};
use ringport::net;
use ringport::proto::http1::{BodyLen, ClientEvent, Limits, RequestLine, ServerEvent};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, Runtime};

use super::rig::{Pattern, Random, any_port, each, families, join, pair, pair_at, turn};

/// Polls a future once and drops it; a new one is made each time that this task is woken, until one is done.
///
/// It hangs where a dropped future takes the wake with it.
async fn impatient<T>(mut start: impl AsyncFnMut() -> T) -> T {
    loop {
        let mut rested = false;
        let done = poll_fn(|cx| {
            if let Poll::Ready(value) = pin!(start()).poll(cx) {
                return Poll::Ready(Some(value));
            }
            match std::mem::replace(&mut rested, true) {
                false => Poll::Pending,
                true => Poll::Ready(None),
            }
        });
        if let Some(value) = done.await {
            return value;
        }
    }
}

/// Polls a future once, and drops it whatever it says.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn receives_lose_nothing() {
    each(async |runtime| {
        for addr in families() {
            let (mut near, mut far) = pair_at(&runtime, &addr).await;
            let seed = Random::printed().next() | 1;
            let writer = async {
                let (mut pattern, mut random) = (Pattern::new(3), Random(seed));
                for _ in 0..300 {
                    near.send(pattern.take(random.up_to(3000))).await.expect("open");
                    turn().await;
                }
                near.shutdown().await.expect("open");
            };
            let reader = async {
                let (mut pattern, mut exact) = (Pattern::new(3), [0; 999]);
                loop {
                    if let Err(error) = impatient(async || far.read_exact(&mut exact).await).await {
                        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                        break;
                    }
                    pattern.check(&exact);
                    let Some(bytes) = impatient(async || far.recv().await).await.expect("in order") else {
                        break;
                    };
                    pattern.check(&bytes);
                    if far.rx().is_empty() && !impatient(async || far.fill().await).await.expect("in order") {
                        break;
                    }
                }
                while let Some(bytes) = far.recv().await.expect("in order") {
                    pattern.check(&bytes);
                }
                pattern
            };
            let (_, mut pattern) = join(writer, reader).await;
            // Both patterns stand at the same place: nothing is missing at the end.
            let (mut sent, mut random) = (Pattern::new(3), Random(seed));
            (0..300).for_each(|_| drop(sent.take(random.up_to(3000))));
            assert_eq!(sent.take(100), pattern.take(100));
        }
    });
}

#[test]
fn sends_belong_to_the_stream_at_once() {
    each(async |runtime| {
        for addr in families() {
            let (mut near, far) = pair_at(&runtime, &addr).await;
            let reader = runtime.core().spawn(async move {
                let (mut far, mut pattern, mut count) = (far, Pattern::new(4), 0);
                while let Some(bytes) = far.recv().await.expect("in order") {
                    pattern.check(&bytes);
                    count += bytes.len();
                }
                count
            });
            let mut pattern = Pattern::new(4);
            for _ in 0..40 {
                // Polled once, as a select would.
                once(near.send(pattern.take(100_000))).await;
                once(near.send_all([pattern.take(10).into(), pattern.take(10).into()])).await;
                once(near.flush()).await;
            }
            impatient(async || near.flush().await).await.expect("open");
            impatient(async || near.shutdown().await).await.expect("open");
            assert_eq!(reader.await.expect("it ends"), 40 * 100_020);
        }
    });
}

#[test]
fn futures_of_halves_lose_nothing() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let (_, mut write) = near.split();
        let (mut read, _far_write) = far.split();
        let writer = async {
            let mut pattern = Pattern::new(5);
            for _ in 0..100 {
                once(write.send(pattern.take(50_000))).await;
                impatient(async || write.flush().await).await.expect("open");
            }
            impatient(async || write.shutdown().await).await.expect("open");
        };
        let reader = async {
            let (mut pattern, mut count) = (Pattern::new(5), 0);
            while let Some(bytes) = impatient(async || read.recv().await).await.expect("in order") {
                pattern.check(&bytes);
                count += bytes.len();
            }
            assert_eq!(count, 100 * 50_000);
        };
        join(writer, reader).await;
    });
}

#[test]
fn accepts_lose_no_connection() {
    each(async |runtime| {
        for addr in families() {
            let mut listener = runtime.listen(&addr, ListenOptions::default()).expect("a free address");
            let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
            let client = async {
                for number in 0..50u8 {
                    let mut client = net::connect(&runtime, &addr).await.expect("it listens");
                    client.send(vec![number]).await.expect("open");
                    turn().await;
                }
            };
            let server = async {
                for number in 0..50u8 {
                    let accepted = impatient(async || net::accept(&runtime, &mut listener).await).await;
                    let bytes = accepted.expect("it listens").recv().await.expect("open").expect("bytes");
                    assert_eq!(&*bytes, [number]);
                }
            };
            join(client, server).await;
        }
    });
}

#[test]
fn waits_and_tasks_may_be_given_up() {
    each(async |runtime| {
        let core = runtime.core().clone();
        for _ in 0..100 {
            assert!(once(runtime.sleep(Duration::from_secs(3600))).await.is_none());
            assert!(
                once(core.timeout(Duration::from_secs(3600), std::future::pending::<()>())).await.is_none()
            );
            // The task runs on when nobody waits for it.
            once(core.spawn(turn())).await;
        }
        // Longer than the clock can tell: for ever.
        assert!(once(runtime.sleep(Duration::MAX)).await.is_none());
        assert!(once(core.timeout(Duration::MAX, std::future::pending::<()>())).await.is_none());
        let mut interval = core.interval(Duration::from_millis(1));
        impatient(async || interval.tick().await).await;
        impatient(async || interval.tick().await).await;
        let aborted = core.spawn(std::future::pending::<()>());
        turn().await;
        aborted.abort();
        while core.task_count() > 0 {
            turn().await;
        }
    });
}

#[test]
fn http_events_are_not_lost() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let server = runtime.core().spawn(async move {
            let mut client = ServerStream::over(far, Limits::default());
            let mut exchanges = 0;
            loop {
                match impatient(async || client.next_event().await).await.expect("in order") {
                    ServerEvent::Head(_, body) => {
                        client.send_head(StatusCode::OK, [], body).expect("a response is due");
                    }
                    ServerEvent::Data(data) => client.send_data(data).expect("announced"),
                    ServerEvent::End => {
                        client.finish().expect("all is sent");
                        exchanges += 1;
                    }
                    ServerEvent::Closed => return exchanges,
                    event => panic!("{event:?}"),
                }
                impatient(async || client.flush().await).await.expect("open");
            }
        });
        let mut origin = ClientStream::over(near, Limits::default());
        for round in 0..5 {
            let line = RequestLine { method: "POST", target: "/", host: "a" };
            origin.send_head(line, [], BodyLen::Length(300_000)).expect("reusable");
            let (mut sent, mut read) = (Pattern::new(round), Pattern::new(round));
            for _ in 0..300 {
                origin.send_data(sent.take(1000)).expect("announced");
                once(origin.flush()).await;
            }
            origin.finish().expect("all is sent");
            let mut count = 0;
            loop {
                match impatient(async || origin.next_event().await).await.expect("in order") {
                    ClientEvent::Head(_, body) => assert_eq!(body, BodyLen::Length(300_000)),
                    ClientEvent::Data(data) => {
                        read.check(&data);
                        count += data.len();
                    }
                    ClientEvent::End => break,
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(count, 300_000);
        }
        drop(origin);
        assert_eq!(server.await.expect("it ends"), 5);
    });
}

/// A connection of a client that gave up does not keep the next one from being served.
#[test]
fn a_connect_that_is_given_up_leaves_nothing() {
    each(async |runtime| {
        let mut listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
        let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
        for _ in 0..50 {
            once(net::connect(&runtime, &addr)).await;
        }
        let kept = net::connect(&runtime, &addr).await.expect("it listens");
        let at = kept.local_addr().expect("bound");
        while net::accept(&runtime, &mut listener).await.expect("it listens").peer_addr().ok().as_ref()
            != Some(&at)
        {}
    });
}
