//! HTTP/2 by prior knowledge: our server before nghttp, h2load and curl, and both ends ours.

use std::collections::{HashMap, VecDeque};
use std::process::{Command, Output};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use ringport::http::Http2Stream;
use ringport::net;
use ringport::proto::http1::BodyLen;
use ringport::proto::http2::{Code, Event, SendError, Spec, StreamId};
use ringport::runtime::native::{Native, NativeListener};
use ringport::runtime::{ListenOptions, Listener, LocalAddr, Runtime};

use super::rig::{TcpStream, any_port, each, join, pair, skipped};

/// A body that is echoed, and what of it the client does not take yet.
#[derive(Default)]
struct Echo {
    waiting: VecDeque<Bytes>,
    end: Option<HeaderMap>,
}

/// Answers by path, echoes bodies, and gives credit back once the echo is taken; returns how many it answered.
async fn serve(runtime: &Native, stream: TcpStream) -> usize {
    let mut client = Http2Stream::server(runtime, stream, Spec::default());
    let mut echoes: HashMap<StreamId, Echo> = HashMap::new();
    let mut answered = 0;
    loop {
        match client.next_event().await.expect("the client keeps to the rules") {
            Event::Request { id, head, .. } => {
                answered += 1;
                if head.uri().path() == "/echo" {
                    client.conn().send_head(id, Response::new(()), BodyLen::Chunked).expect("a head");
                    echoes.insert(id, Echo::default());
                } else {
                    answer(&mut client, id, head.uri().path());
                }
            }
            Event::Data { id, data } => match echoes.get_mut(&id) {
                Some(echo) => echo.waiting.push_back(data),
                None => client.conn().release(id, data.len()),
            },
            Event::Trailers { id, trailers } => {
                if let Some(echo) = echoes.get_mut(&id) {
                    echo.end = Some(trailers);
                }
            }
            Event::End { id } => {
                if let Some(echo) = echoes.get_mut(&id) {
                    echo.end.get_or_insert_default();
                }
            }
            Event::Reset { id, .. } => drop(echoes.remove(&id)),
            Event::Writable { .. } | Event::GoAway => {}
            Event::Closed => {
                client.flush().await.expect("open");
                return answered;
            }
            other => panic!("{other:?}"),
        }
        echoes.retain(|id, echo| !pass_on(&mut client, *id, echo));
    }
}

/// Sends what may be sent; whether that was all.
fn pass_on(client: &mut Http2Stream<Native>, id: StreamId, echo: &mut Echo) -> bool {
    while let Some(data) = echo.waiting.pop_front() {
        match client.conn().send_data(id, data.clone()) {
            Ok(()) => client.conn().release(id, data.len()),
            Err(SendError::Full) => {
                echo.waiting.push_front(data);
                return false;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let Some(trailers) = echo.end.take() else { return false };
    let ended = if trailers.is_empty() {
        client.conn().finish(id)
    } else {
        client.conn().send_trailers(id, trailers)
    };
    ended.expect("a body");
    true
}

fn answer(client: &mut Http2Stream<Native>, id: StreamId, path: &str) {
    let body = match path {
        "/big" => Bytes::from(vec![b'b'; 1 << 20]),
        path => Bytes::from(path.to_owned()),
    };
    let mut head = Response::new(());
    head.headers_mut().insert("x-path", HeaderValue::from_str(path).expect("a path"));
    client.conn().send_head(id, head, BodyLen::Length(body.len() as u64)).expect("a head");
    if client.conn().can_send(id) {
        client.conn().send_data(id, body).expect("room");
    }
    client.conn().finish(id).expect("all of it");
}

/// Serves connections while a program runs that is given the address of the server.
async fn served(runtime: &Native, program: impl FnOnce(&str) -> Command) -> Output {
    let mut listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
    let mut done = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
    let LocalAddr::Inet(addr) = listener.local_addr().expect("it listens") else {
        panic!("not an IP address")
    };
    let LocalAddr::Inet(end) = done.local_addr().expect("it listens") else { panic!("not an IP address") };
    let mut command = program(&addr.to_string());
    let thread = std::thread::spawn(move || {
        let output = command.output().expect("it can be run");
        #[expect(clippy::disallowed_methods, reason = "a program's end wakes the core")]
        drop(std::net::TcpStream::connect(end).expect("the case waits"));
        output
    });
    let tasks = runtime.clone();
    let accept = async {
        loop {
            let stream = net::accept(runtime, &mut listener).await.expect("a client comes");
            let runtime = tasks.clone();
            tasks.spawn(async move {
                serve(&runtime, stream).await;
            });
        }
    };
    until(accept, &mut done, runtime).await;
    thread.join().expect("the program was run")
}

/// Runs the endless until somebody connects to `done`.
async fn until(endless: impl Future<Output = ()>, done: &mut NativeListener, runtime: &Native) {
    let (mut endless, mut end) = (std::pin::pin!(endless), std::pin::pin!(net::accept(runtime, done)));
    std::future::poll_fn(|cx| {
        let _ = endless.as_mut().poll(cx);
        end.as_mut().poll(cx)
    })
    .await
    .expect("the program ends");
}

/// Asked while no other case runs: each counts the descriptors of this process.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(format_args!("{program} is not installed"));
    }
    found
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nghttp_is_answered() {
    each(async |runtime| {
        if !has("nghttp") {
            return;
        }
        let output = served(&runtime, |addr| {
            let mut command = Command::new("nghttp");
            command.args(["-v"]);
            command.args(["/a", "/b", "/c"].map(|path| format!("http://{addr}{path}")));
            command
        })
        .await;
        let text = text(&output);
        for path in ["/a", "/b", "/c"] {
            assert!(text.contains(&format!("x-path: {path}")), "{text}");
        }
        let output = served(&runtime, |addr| {
            let mut command = Command::new("nghttp");
            command.args(["-v", "-d", "Cargo.toml", "--trailer", "x-sum: 7"]);
            command.arg(format!("http://{addr}/echo")).current_dir(env!("CARGO_MANIFEST_DIR"));
            command
        })
        .await;
        let text = self::text(&output);
        // Once as sent, once as it came back.
        assert_eq!(text.matches("x-sum: 7").count(), 2, "{text}");
        assert!(text.contains("[workspace.dependencies]"), "{text}");
    });
}

#[test]
fn h2load_is_answered_without_an_error() {
    each(async |runtime| {
        if !has("h2load") {
            return;
        }
        for path in ["/hello", "/big"] {
            let count = if path == "/big" { "100" } else { "5000" };
            let output = served(&runtime, |addr| {
                let mut command = Command::new("h2load");
                command.args(["-n", count, "-c", "10", "-m", "10"]).arg(format!("http://{addr}{path}"));
                command
            })
            .await;
            let text = text(&output);
            let wanted = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            assert!(text.contains(&wanted), "{text}");
        }
    });
}

#[test]
fn curl_is_answered() {
    each(async |runtime| {
        if !has("curl") {
            return;
        }
        let body = "0123456789abcdef".repeat(100_000);
        let file = format!("{}/http2-upload-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::write(&file, &body).expect("a file");
        let output = served(&runtime, |addr| {
            let mut command = Command::new("curl");
            command.args(["-sS", "--fail", "--http2-prior-knowledge", "--data-binary", &format!("@{file}")]);
            command.arg(format!("http://{addr}/echo"));
            command
        })
        .await;
        std::fs::remove_file(&file).expect("it is there");
        assert!(text(&output) == body, "{} bytes came back", output.stdout.len());
    });
}

#[test]
fn our_ends_talk_to_each_other() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let client = async {
            let mut origin = Http2Stream::client(&runtime, near, Spec::default());
            let request = |path: &str| {
                Request::builder().uri(format!("http://a.example{path}")).body(()).expect("a request")
            };
            let id = origin.conn().open(request("/echo"), BodyLen::Chunked).expect("a stream");
            let (mut left, mut got) = (200, 0);
            loop {
                while left > 0 && origin.conn().can_send(id) {
                    origin.conn().send_data(id, vec![left; 10_000].into()).expect("room");
                    left -= 1;
                    if left == 0 {
                        let mut trailers = HeaderMap::new();
                        trailers.insert("x-sum", HeaderValue::from_static("1"));
                        origin.conn().send_trailers(id, trailers).expect("trailers");
                    }
                }
                match origin.next_event().await.expect("it goes on") {
                    Event::Data { id, data } => {
                        got += data.len();
                        origin.conn().release(id, data.len());
                    }
                    Event::Trailers { trailers, .. } => assert_eq!(trailers["x-sum"], "1"),
                    Event::End { .. } => break,
                    Event::Response { .. } | Event::Writable { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(got, 2_000_000);
            origin.conn().drain();
            assert!(matches!(origin.next_event().await, Ok(Event::Closed)));
            origin.flush().await.expect("open");
        };
        let (_, answered) = join(client, serve(&runtime, far)).await;
        assert_eq!(answered, 1);
    });
}

/// A flood ends its own connection; one beside it goes on.
#[test]
fn a_flood_ends_its_connection_alone() {
    each(async |runtime| {
        let (mut hostile, far) = pair(&runtime).await;
        let (near, served) = pair(&runtime).await;
        let flood = async move {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            let ping = b"\0\0\x08\x06\0\0\0\0\x0012345678";
            hostile.send([&preface[..], &ping.repeat(101)].concat()).await.expect("open");
            let mut all = Vec::new();
            while let Ok(Some(bytes)) = hostile.recv().await {
                all.extend_from_slice(&bytes);
            }
            assert!(all.ends_with(b"too many PING"), "{}", all.escape_ascii());
        };
        let victim = async {
            let mut server = Http2Stream::server(&runtime, far, Spec::default());
            let error = server.next_event().await.expect_err("a flood");
            assert_eq!(error.to_string(), "HTTP/2: the peer sent too many PING");
            server.flush().await.expect("open");
            server.stream().shutdown().await.expect("open");
            // To the end of what the client sent, so that the kernel does not reset the connection over the last words.
            while let Ok(true) = server.stream().fill().await {
                let len = server.stream().rx().len();
                server.stream().rx().consume(len);
            }
        };
        let client = async {
            let mut origin = Http2Stream::client(&runtime, near, Spec::default());
            for _ in 0..100 {
                let request = Request::builder().uri("http://a.example/x").body(()).expect("a request");
                let id = origin.conn().open(request, BodyLen::None).expect("a stream");
                origin.conn().finish(id).expect("an end");
                loop {
                    match origin.next_event().await.expect("it goes on") {
                        Event::End { .. } => break,
                        Event::Data { id, data } => origin.conn().release(id, data.len()),
                        Event::Response { head, .. } => assert!(head.status().is_success()),
                        other => panic!("{other:?}"),
                    }
                }
            }
            origin.conn().close(Code::NO_ERROR);
            assert!(origin.next_event().await.is_err());
            origin.flush().await.expect("open");
        };
        join(join(flood, victim), join(client, serve(&runtime, served))).await;
    });
}
