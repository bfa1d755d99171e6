//! HTTP/1.1 against hyper, which knows nothing of us: its client before our server, our client before its server.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1 as hyper_client;
use hyper::server::conn::http1 as hyper_server;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use ringport::http::{ClientStream, ServerStream};
use ringport::proto::http1::{BodyLen, ClientEvent, Limits, RequestLine, ServerEvent};
use ringport::runtime::native::{Native, NativeStream};

use super::hyper_io::{Io, Parts, collect};
use super::rig::{Pattern, TcpStream, each, pair};

/// Answers like hyper's example server: by path.
async fn serve(stream: TcpStream) -> usize {
    let mut client = ServerStream::over(stream, Limits::default());
    let mut requests = 0;
    let mut echo = false;
    loop {
        match client.next_event().await.expect("hyper keeps to the rules") {
            ServerEvent::Head(head, body) => {
                requests += 1;
                echo = head.path() == "/echo";
                if echo {
                    client.send_informational(StatusCode::CONTINUE, []).expect("nothing was said");
                    client.send_head(StatusCode::OK, [], body).expect("a response is due");
                } else {
                    answer(&mut client, head.path()).await;
                }
            }
            ServerEvent::Data(data) if echo => client.send_data(data).expect("announced"),
            ServerEvent::Trailers(fields) if echo => {
                client.send_trailers(fields.iter()).expect("chunked");
                echo = false;
            }
            ServerEvent::End if echo => client.finish().expect("all is sent"),
            ServerEvent::Tunnel(data) => client.send_data(data).expect("a tunnel"),
            ServerEvent::Closed if client.conn().is_tunnel() => client.finish().expect("a tunnel"),
            ServerEvent::Closed => return requests,
            ServerEvent::Data(_) | ServerEvent::Trailers(_) | ServerEvent::End => {}
            ServerEvent::NeedInput | ServerEvent::Paused => unreachable!("not while a response is finished"),
        }
        client.flush().await.expect("open");
        if client.conn().wants_close() {
            return requests;
        }
    }
}

async fn answer(client: &mut ServerStream<NativeStream>, path: &str) {
    let fields = [("x-path", path.as_bytes())];
    match path {
        "/204" => client.send_head(StatusCode::NO_CONTENT, fields, BodyLen::None).expect("fits"),
        "/304" => client.send_head(StatusCode::NOT_MODIFIED, fields, BodyLen::Length(9)).expect("fits"),
        "/103" => {
            let link = [("link", &b"</x>"[..])];
            client.send_informational(StatusCode::EARLY_HINTS, link).expect("fits");
            return client.respond(StatusCode::OK, fields, &b"after"[..]).expect("fits");
        }
        "/close" => {
            client.send_head(StatusCode::OK, fields, BodyLen::UntilClose).expect("fits");
            client.send_data(&b"until the end"[..]).expect("fits");
        }
        "/upgrade" => {
            // A tunnel begins when the request has been read to its end.
            while !matches!(client.next_event().await, Ok(ServerEvent::End)) {}
            let upgrade = [("upgrade", &b"echo"[..])];
            return client
                .send_head(StatusCode::SWITCHING_PROTOCOLS, upgrade, BodyLen::Tunnel)
                .expect("asked");
        }
        _ => return client.respond(StatusCode::OK, fields, path.as_bytes().to_vec()).expect("fits"),
    }
    client.finish().expect("all is sent");
}

type Sender = hyper_client::SendRequest<Parts>;

/// hyper's client before our server, which tells how many requests it answered.
async fn hyper_asks(runtime: &Native, ask: impl AsyncFnOnce(Sender)) -> usize {
    let (near, far) = pair(runtime).await;
    let server = runtime.core().spawn(serve(far));
    let (sender, connection) = hyper_client::handshake(Io::new(near)).await.expect("no bytes yet");
    let connection = runtime.core().spawn(connection);
    ask(sender).await;
    connection.await.expect("no panic").expect("our server keeps to the rules");
    server.await.expect("no panic")
}

fn request(method: Method, path: &str, body: Parts) -> Request<Parts> {
    Request::builder().method(method).uri(path).header("host", "a.example").body(body).expect("valid")
}

async fn ask(sender: &mut Sender, request: Request<Parts>) -> Response<Incoming> {
    sender.ready().await.expect("kept alive");
    sender.send_request(request).await.expect("answered")
}

#[test]
fn hypers_client_is_served_on_one_connection() {
    each(async |runtime| {
        let requests = hyper_asks(&runtime, async |mut sender| {
            for round in 0..20 {
                let path = format!("/{round}");
                let response = ask(&mut sender, request(Method::GET, &path, Parts::default())).await;
                assert_eq!(response.headers()["x-path"], path.as_str());
                assert_eq!(collect(response.into_body()).await.expect("whole").0, path.as_bytes());
            }
            let response = ask(&mut sender, request(Method::HEAD, "/head", Parts::default())).await;
            assert_eq!(response.headers()["content-length"], "5");
            assert!(collect(response.into_body()).await.expect("empty").0.is_empty());
            for (path, status) in [("/204", 204), ("/304", 304), ("/103", 200)] {
                let response = ask(&mut sender, request(Method::GET, path, Parts::default())).await;
                assert_eq!(response.status(), status);
                let body = collect(response.into_body()).await.expect("whole").0;
                assert_eq!(body, if path == "/103" { &b"after"[..] } else { b"" });
            }
            let response = ask(&mut sender, request(Method::GET, "/close", Parts::default())).await;
            assert_eq!(collect(response.into_body()).await.expect("whole").0, b"until the end");
        });
        assert_eq!(requests.await, 25);
    });
}

#[test]
fn bodies_of_hypers_client_come_back() {
    each(async |runtime| {
        let requests = hyper_asks(&runtime, async |mut sender| {
            let whole = Bytes::from(Pattern::new(15).take(3 << 20));
            let response =
                ask(&mut sender, request(Method::POST, "/echo", Parts::whole(whole.clone()))).await;
            assert_eq!(response.headers()["content-length"], (3 << 20).to_string().as_str());
            assert!(collect(response.into_body()).await.expect("whole").0 == whole);

            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().expect("a value"));
            let mut pattern = Pattern::new(19);
            let parts: Vec<Bytes> = (1..400).map(|len| pattern.take(len * 7).into()).collect();
            let mut chunked =
                request(Method::POST, "/echo", Parts::chunked(parts.clone(), Some(trailers.clone())));
            chunked.headers_mut().insert("trailer", "x-sum".parse().expect("a value"));
            chunked.headers_mut().insert("te", "trailers".parse().expect("a value"));
            chunked.headers_mut().insert("expect", "100-continue".parse().expect("a value"));
            let response = ask(&mut sender, chunked).await;
            assert_eq!(response.headers()["transfer-encoding"], "chunked");
            let (data, came) = collect(response.into_body()).await.expect("whole");
            assert!(data == parts.concat());
            assert_eq!(came, Some(trailers));
        });
        assert_eq!(requests.await, 2);
    });
}

#[test]
fn hypers_client_gets_a_tunnel() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let server = runtime.core().spawn(serve(far));
        let (mut sender, connection) = hyper_client::handshake(Io::new(near)).await.expect("no bytes yet");
        // hyper's own upgrade wants streams that cross threads; ours is taken back from its connection.
        let connection = runtime.core().spawn(connection.without_shutdown());
        let mut upgrade = request(Method::GET, "/upgrade", Parts::default());
        upgrade.headers_mut().insert("connection", "upgrade".parse().expect("a value"));
        upgrade.headers_mut().insert("upgrade", "echo".parse().expect("a value"));
        let response = ask(&mut sender, upgrade).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let parts = connection.await.expect("no panic").expect("101 was said");
        assert!(parts.read_buf.is_empty());

        let mut stream = parts.io.into_stream();
        stream.send(&b"anything"[..]).await.expect("open");
        let mut eight = [0; 8];
        stream.read_exact(&mut eight).await.expect("the echo");
        assert_eq!(&eight, b"anything");
        stream.shutdown().await.expect("open");
        assert!(stream.recv().await.expect("in order").is_none());
        assert_eq!(server.await.expect("no panic"), 1);
    });
}

/// What hyper's server is to say.
async fn hyper_answers(request: Request<Incoming>) -> Result<Response<Parts>, Infallible> {
    let path = request.uri().path().to_owned();
    let builder = Response::builder().header("x-path", &path);
    let response = match path.as_str() {
        "/204" => builder.status(204).body(Parts::default()),
        "/304" => builder.status(304).body(Parts::default()),
        "/refuse" => builder.status(413).body(Parts::whole("too large")),
        "/echo" => {
            let (data, trailers) = collect(request.into_body()).await.expect("our client keeps to the rules");
            let parts = data.chunks(1009).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            builder.header("trailer", "x-sum").body(Parts::chunked(parts, trailers))
        }
        _ => builder.body(Parts::whole(path.clone())),
    };
    Ok(response.expect("valid"))
}

type Origin = ClientStream<NativeStream>;

/// Our client before hyper's server.
async fn we_ask(runtime: &Native, ask: impl AsyncFnOnce(Origin)) {
    let (near, far) = pair(runtime).await;
    let served = hyper_server::Builder::new().serve_connection(Io::new(far), service_fn(hyper_answers));
    let server = runtime.core().spawn(served);
    ask(ClientStream::over(near, Limits::default())).await;
    // A client that leaves in the middle of its request is hyper's error, not a fault here.
    let _ = server.await.expect("no panic");
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: u16,
    informational: Vec<u16>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
}

async fn read_answer(origin: &mut Origin) -> Answer {
    let mut answer = Answer::default();
    loop {
        match origin.next_event().await.expect("hyper keeps to the rules") {
            ClientEvent::Informational(head) => answer.informational.push(head.status().as_u16()),
            ClientEvent::Head(head, _) => answer.status = head.status().as_u16(),
            ClientEvent::Data(data) => answer.data.extend_from_slice(&data),
            ClientEvent::Trailers(fields) => answer.trailers = Some(fields.to_map().expect("valid")),
            ClientEvent::End => return answer,
            event => panic!("{event:?}"),
        }
    }
}

fn line<'a>(method: &'a str, target: &'a str) -> RequestLine<'a> {
    RequestLine { method, target, host: "a.example" }
}

#[test]
fn hypers_server_is_asked_on_one_connection() {
    each(async |runtime| {
        we_ask(&runtime, async |mut origin| {
            for (method, path, status, body) in [
                ("GET", "/a", 200, &b"/a"[..]),
                ("HEAD", "/b", 200, b""),
                ("GET", "/204", 204, b""),
                ("GET", "/304", 304, b""),
                ("DELETE", "/c", 200, b"/c"),
            ] {
                origin.send_head(line(method, path), [], BodyLen::None).expect("reusable");
                origin.finish().expect("no body");
                origin.flush().await.expect("open");
                let answer = read_answer(&mut origin).await;
                assert_eq!((answer.status, &answer.data[..]), (status, body), "{method} {path}");
                assert!(origin.is_reusable(), "{method} {path}");
            }
        })
        .await;
    });
}

#[test]
fn bodies_and_trailers_come_back_from_hypers_server() {
    each(async |runtime| {
        we_ask(&runtime, async |mut origin| {
            // hyper says 100 once it is asked for the body, and only then the body is sent.
            let expect = [("expect", &b"100-continue"[..]), ("te", b"trailers"), ("trailer", b"x-sum")];
            origin.send_head(line("POST", "/echo"), expect, BodyLen::Chunked).expect("reusable");
            origin.flush().await.expect("open");
            match origin.next_event().await.expect("in order") {
                ClientEvent::Informational(head) => assert_eq!(head.status(), StatusCode::CONTINUE),
                event => panic!("{event:?}"),
            }
            let mut pattern = Pattern::new(16);
            for len in 1..400 {
                origin.send_data(pattern.take(len * 11)).expect("chunked");
                origin.flush().await.expect("open");
            }
            origin.send_trailers([("x-sum", &b"43"[..])]).expect("chunked");
            origin.flush().await.expect("open");
            let answer = read_answer(&mut origin).await;
            assert_eq!(answer.data.len(), (1..400).sum::<usize>() * 11);
            Pattern::new(16).check(&answer.data);
            assert_eq!(answer.trailers.expect("hyper sends them back")["x-sum"], "43");
            assert!(origin.is_reusable());
        })
        .await;
    });
}

#[test]
fn an_early_answer_of_hypers_server_ends_reuse() {
    each(async |runtime| {
        we_ask(&runtime, async |mut origin| {
            origin.send_head(line("POST", "/refuse"), [], BodyLen::Length(1 << 30)).expect("reusable");
            origin.send_data(vec![0; 1000]).expect("announced");
            origin.flush().await.expect("open");
            let answer = read_answer(&mut origin).await;
            assert_eq!((answer.status, &answer.data[..]), (413, &b"too large"[..]));
            assert!(!origin.is_reusable(), "the body was never sent to its end");
        })
        .await;
    });
}

/// Bodies flow one part after the other: hyper's server sees the first part before the second is sent.
#[test]
fn a_body_is_streamed_to_hypers_server() {
    each(async |runtime| {
        let (near, far) = pair(&runtime).await;
        let seen = Rc::new(Cell::new(0));
        let parts = Rc::new(RefCell::new(Vec::new()));
        let service = {
            let (seen, parts) = (seen.clone(), parts.clone());
            service_fn(move |request: Request<Incoming>| {
                let (seen, parts) = (seen.clone(), parts.clone());
                async move {
                    let mut body = request.into_body();
                    while let Some(frame) = std::future::poll_fn(|cx| {
                        hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
                    })
                    .await
                    {
                        let data = frame.expect("in order").into_data().expect("no trailers");
                        seen.set(seen.get() + data.len());
                        parts.borrow_mut().push(data.len());
                    }
                    Ok::<_, Infallible>(Response::new(Parts::whole("done")))
                }
            })
        };
        let server =
            runtime.core().spawn(hyper_server::Builder::new().serve_connection(Io::new(far), service));
        let mut origin = ClientStream::over(near, Limits::default());
        origin.send_head(line("PUT", "/"), [], BodyLen::Length(50)).expect("new");
        for part in 1..=5 {
            origin.send_data(vec![part; 10]).expect("announced");
            origin.flush().await.expect("open");
            while seen.get() < usize::from(part) * 10 {
                super::rig::turn().await;
            }
        }
        origin.finish().expect("all is sent");
        assert_eq!(read_answer(&mut origin).await.data, b"done");
        assert_eq!(*parts.borrow(), [10; 5]);
        drop(origin);
        server.await.expect("no panic").expect("in order");
    });
}
