//! HTTP/2 with clients, with origins, with both: by the h2 crate on tokio, and by programs that share no code with it.

use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::message::{PATIENCE, ok};
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, cases, skipped};

cases![
    a_request_becomes_one_of_http1,
    bodies_and_trailers_pass_both_ways,
    many_requests_share_a_connection,
    a_reset_reaches_the_origin,
    a_response_that_is_cut_is_reset,
    trailers_behind_a_length_are_dropped,
    what_could_be_smuggled_goes_nowhere,
    a_client_that_reads_nothing_stops_its_own_stream,
    http1_clients_reach_origins_of_http2,
    both_sides_speak_http2,
    a_refused_stream_is_tried_again,
    an_origin_that_says_goaway_is_left,
    origins_that_fail_are_answered_for,
    one_dial_serves_all_that_wait,
    a_drain_lets_streams_end,
    curl_and_h2load_are_served,
    grpc_calls_pass_in_all_four_ways,
];

/// Runs a client's side of a case, in time.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

/// A connection of HTTP/2 in the clear, as is known beforehand.
async fn connect(addr: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(addr).await.expect("connected");
    // A stream that is not read must not use up what all share.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 << 20).initial_window_size(100_000);
    let (client, connection) = builder.handshake(stream).await.expect("a handshake");
    tokio::spawn(async move {
        // The case sees the same error.
        let _ = connection.await;
    });
    client.ready().await.expect("ready")
}

fn request(method: Method, path: &str) -> Request<()> {
    let uri = format!("http://front.test{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

/// The whole response: head, body, trailers.
async fn read(
    response: h2::client::ResponseFuture,
) -> Result<(Response<()>, Vec<u8>, Option<HeaderMap>), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let bytes = read_body(&mut body).await?;
    let trailers = body.trailers().await?;
    Ok((Response::from_parts(head, ()), bytes, trailers))
}

async fn read_body(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        bytes.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(bytes)
}

async fn get(client: &mut SendRequest<Bytes>, path: &str) -> (Response<()>, String) {
    let (response, _) = client.send_request(request(Method::GET, path), true).expect("sent");
    let (head, body, _) = read(response).await.expect("a response");
    (head, String::from_utf8(body).expect("UTF-8"))
}

/// Sends all of `body`, as the windows allow.
async fn send(stream: &mut h2::SendStream<Bytes>, mut body: Bytes, end: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("room");
        let part = body.split_to(room.min(body.len()));
        let last = end && body.is_empty();
        stream.send_data(part, last).expect("sent");
    }
}

/// An origin of HTTP/2 in the clear, in a thread of its own; each stream is given to `answer`.
struct Http2Origin {
    addr: SocketAddr,
    _end: oneshot::Sender<()>,
    connections: Receiver<()>,
}

impl Http2Origin {
    fn new<F>(answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Clone + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::limited(100, answer)
    }

    fn limited<F>(
        streams: u32,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Clone + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (told, addr) = channel();
        let (counted, connections) = channel();
        let (end, ended) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                told.send(listener.local_addr().expect("an address")).expect("heard");
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.expect("accepted");
                        let _ = counted.send(());
                        tokio::spawn(serve(stream, streams, answer.clone()));
                    }
                };
                tokio::select! { () = accept => {}, _ = ended => {} }
            });
        });
        let addr = addr.recv_timeout(PATIENCE).expect("it listens");
        Http2Origin { addr, _end: end, connections }
    }

    /// Answers `METHOD path HOST VERSION BODY`, with the body's trailers behind.
    fn echo() -> Self {
        Http2Origin::new(|request, respond| async move {
            echo(request, respond).await;
        })
    }

    fn setup(&self, driver: &'static str, more: &str) -> Setup {
        let origins = format!("origins: [{{ address: \"{}\", h2c: true }}]", self.addr);
        Setup::pool(driver, &format!("{origins}, retries: 2"), more)
    }

    fn connection_count(&self) -> usize {
        self.connections.try_iter().count()
    }
}

async fn serve<F>(
    stream: TcpStream,
    streams: u32,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request, respond));
    }
}

async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let authority = head.uri.authority().map_or(String::new(), ToString::to_string);
    let line = format!("{} {} {authority} {:?} ", head.method, head.uri.path(), head.version);
    let mut response = Response::new(());
    for name in ["via", "x-forwarded-proto", "te"] {
        if let Some(value) = head.headers.get(name) {
            let told = format!("saw-{name}").parse::<http::HeaderName>().expect("a name");
            response.headers_mut().insert(told, value.clone());
        }
    }
    let Ok(bytes) = read_body(&mut body).await else { return };
    let trailers = body.trailers().await.unwrap_or_default();
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    send(&mut stream, Bytes::from(line), false).await;
    send(&mut stream, Bytes::from(bytes), false).await;
    let _ = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
}

fn a_request_becomes_one_of_http1(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (head, body) = get(&mut client, "/a?b").await;
        assert_eq!((head.status(), head.version(), &*body), (StatusCode::OK, Version::HTTP_2, "GET /a?b "));
        assert_eq!(head.headers()["via"], "1.1 ringport");
        let mut post = request(Method::POST, "/p");
        post.headers_mut().append("cookie", "a=1".parse().expect("a value"));
        post.headers_mut().append("cookie", "b=2".parse().expect("a value"));
        post.headers_mut().insert("te", "trailers".parse().expect("a value"));
        let (response, mut stream) = client.send_request(post, false).expect("sent");
        send(&mut stream, Bytes::from_static(b"said"), true).await;
        assert_eq!(read(response).await.expect("a response").1, b"POST /p said");
        let (response, _) = client.send_request(request(Method::HEAD, "/h"), true).expect("sent");
        let (head, body, _) = read(response).await.expect("a response");
        assert!(body.is_empty() && head.headers().contains_key("content-length"));
    });
    let requests = origin.requests();
    assert_eq!(requests[0].field("via"), "2.0 ringport");
    assert_eq!(requests[0].field("host"), origin.addr.to_string());
    assert_eq!(requests[0].field("x-forwarded-host"), "front.test");
    assert_eq!(requests[1].field("cookie"), "a=1; b=2");
    assert_eq!(requests[1].field("te"), "trailers");
    assert_eq!(requests[1].field("transfer-encoding"), "chunked");
    proxy.assert_idle();
}

fn bodies_and_trailers_pass_both_ways(driver: &'static str) {
    let origin = Http2Origin::echo();
    let proxy = origin.setup(driver, "").start();
    let body: Bytes = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    run(async {
        let client = connect(proxy.addr()).await;
        let both = (0..3).map(|at| {
            let (mut client, body) = (client.clone(), body.clone());
            async move {
                let post = request(Method::POST, &format!("/{at}"));
                let (response, mut stream) = client.send_request(post, false).expect("sent");
                let sending = async {
                    send(&mut stream, body.clone(), false).await;
                    let trailers = [("x-sum", "7")].map(|(name, value)| {
                        (name.parse::<http::HeaderName>().expect("a name"), value.parse().expect("a value"))
                    });
                    stream.send_trailers(HeaderMap::from_iter(trailers)).expect("sent");
                };
                let (read, ()) = tokio::join!(read(response), sending);
                let (head, got, trailers) = read.expect("a response");
                assert_eq!(head.status(), StatusCode::OK);
                assert!(got.ends_with(&body), "{} bytes", got.len());
                assert_eq!(trailers.expect("trailers")["x-sum"], "7");
            }
        });
        let tasks: Vec<_> = both.map(tokio::spawn).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    proxy.assert_idle();
}

fn many_requests_share_a_connection(driver: &'static str) {
    let origin = Origin::answering(|request| ok(request.target()).into_bytes());
    let proxy = Setup::to(driver, origin.addr, "limits: { max_streams: 20 }\n").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        // Before it knows the limit a client may go beyond it.
        assert_eq!(get(&mut client, "/first").await.1, "/first");
        let tasks: Vec<_> = (0..200)
            .map(|at| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut client = client.ready().await.expect("room");
                    let path = format!("/{at}");
                    assert_eq!(get(&mut client, &path).await.1, path);
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    assert_eq!(proxy.metric("connections_total"), 1);
    assert_eq!(proxy.metric("requests_total"), 201);
    proxy.assert_idle();
}

fn a_reset_reaches_the_origin(driver: &'static str) {
    let (told, heard) = channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::script(move |mut conn| {
        conn.head();
        told.lock().expect("no panic").send("asked").expect("heard");
        conn.until_closed();
        told.lock().expect("no panic").send("closed").expect("heard");
    });
    let more = "access_log: { path: FOLDER/access.log }\n";
    let proxy = Setup::to(driver, origin.addr, more).start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (_response, mut stream) = client.send_request(request(Method::GET, "/slow"), true).expect("sent");
        let asked = tokio::task::spawn_blocking(move || (heard.recv_timeout(PATIENCE), heard));
        let (asked, heard) = asked.await.expect("no panic");
        assert_eq!(asked, Ok("asked"));
        stream.send_reset(Reason::CANCEL);
        let closed = tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await;
        assert_eq!(closed.expect("no panic"), Ok("closed"));
    });
    assert!(proxy.access_log(1)[0].contains(" 499 "), "{:?}", proxy.access_log(1));
    assert_eq!(proxy.metric("requests_cut_total"), 0);
    proxy.assert_idle();
}

fn a_response_that_is_cut_is_reset(driver: &'static str) {
    let origin = Origin::script(|mut conn| {
        conn.request();
        conn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (response, _) = client.send_request(request(Method::GET, "/"), true).expect("sent");
        let error = read(response).await.expect_err("no whole response");
        assert!(error.is_reset(), "{error}");
        // The connection lives.
        let (response, _) = client.send_request(request(Method::GET, "/"), true).expect("sent");
        assert!(read(response).await.is_err());
    });
    proxy.assert_idle();
}

fn trailers_behind_a_length_are_dropped(driver: &'static str) {
    let origin = Http2Origin::new(|request, mut respond: SendResponse<Bytes>| async move {
        let (head, mut body) = request.into_parts();
        let got = read_body(&mut body).await.expect("a body");
        assert!(body.trailers().await.expect("an end").is_none(), "{head:?}");
        let head = Response::builder().header("content-length", got.len()).body(()).expect("a head");
        let mut stream = respond.send_response(head, false).expect("sent");
        send(&mut stream, got.into(), false).await;
        let sum = HeaderMap::from_iter([(http::header::ETAG, "1".parse().expect("a value"))]);
        stream.send_trailers(sum).expect("sent");
    });
    let proxy = origin.setup(driver, "").start();
    for len in [3, 300_000] {
        let body = "x".repeat(len);
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n{body}").as_bytes());
        assert_eq!(client.response("POST").text(), body);
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n{body}").as_bytes());
        assert_eq!(client.response("POST").text(), body, "the connection lives");
        drop(client);
        run(async {
            let mut client = connect(proxy.addr()).await;
            let mut post = request(Method::POST, "/");
            post.headers_mut().insert("content-length", len.to_string().parse().expect("a value"));
            let (response, mut stream) = client.send_request(post, false).expect("sent");
            send(&mut stream, body.clone().into(), false).await;
            stream
                .send_trailers(HeaderMap::from_iter([(http::header::ETAG, "1".parse().expect("a value"))]))
                .expect("sent");
            let (head, got, _) = read(response).await.expect("a response");
            assert_eq!(head.headers()["content-length"], len.to_string());
            assert_eq!(got.len(), len);
        });
    }
    proxy.assert_idle();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of fields that are neither indexed nor compressed. RFC 7541 6.2.2.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

fn what_could_be_smuggled_goes_nowhere(driver: &'static str) {
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let whole = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| [&whole, more].concat();
    let but = |name: &str| whole.iter().copied().filter(|(other, _)| *other != name).collect::<Vec<_>>();
    let bad: Vec<Vec<(&str, &str)>> = vec![
        with(&[("x", "a\r\nsmuggled: b")]),
        with(&[("x", "a\nb")]),
        with(&[("x", "a\0b")]),
        with(&[("x\r\n", "a")]),
        with(&[("x:y", "a")]),
        with(&[("x y", "a")]),
        with(&[("X", "a")]),
        with(&[("", "a")]),
        with(&[("x", " a")]),
        with(&[("connection", "x")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "x")]),
        with(&[("keep-alive", "x")]),
        with(&[("proxy-connection", "x")]),
        with(&[("te", "gzip")]),
        with(&[("host", "b")]),
        with(&[("host", "a"), ("host", "a")]),
        with(&[("content-length", "1")]),
        with(&[("content-length", "4"), ("content-length", "5")]),
        with(&[("content-length", "+4")]),
        with(&[("content-length", "4, 4")]),
        with(&[(":path", "/b")]),
        with(&[(":extra", "x")]),
        with(&[("x", "y"), (":late", "x")]),
        but(":method"),
        but(":scheme"),
        but(":path"),
        but(":authority"),
        [&but(":path")[..], &[(":path", "")]].concat(),
        [&but(":path")[..], &[(":path", "a")]].concat(),
        [&but(":path")[..], &[(":path", "/ HTTP/1.1\r\nx: y")]].concat(),
        [&but(":path")[..], &[(":path", "/a b")]].concat(),
        [&but(":method")[..], &[(":method", "GET / HTTP/1.1\r\n\r\nGET")]].concat(),
        [&but(":authority")[..], &[(":authority", "a@b")]].concat(),
        [&but(":authority")[..], &[(":authority", "a b")]].concat(),
        [&but(":scheme")[..], &[(":scheme", "ftp")]].concat(),
    ];
    for bad in &bad {
        let mut client = proxy.client();
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(&frame(4, 0, 0, &[]));
        client.send(&frame(1, 4, 1, &fields(bad)));
        client.send(&frame(0, 1, 1, b"body"));
        assert!(is_refused(&mut client), "{bad:?}");
    }
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
    // The same way, nothing wrong.
    let mut client = proxy.client();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(&frame(4, 0, 0, &[]));
    client.send(&frame(1, 4, 1, &fields(&with(&[("content-length", "4"), ("host", "a")]))));
    client.send(&frame(0, 1, 1, b"body"));
    assert!(!is_refused(&mut client));
    assert_eq!(origin.requests().len(), 1);
    drop(client);
    proxy.assert_idle();
}

/// Whether stream 1 is reset, the connection ends, or the answer is 400; else it is answered.
fn is_refused(client: &mut crate::message::Client) -> bool {
    loop {
        let mut head = [0; 9];
        if client.reader().read_exact(&mut head).is_err() {
            return true;
        }
        let len = usize::from(head[1]) << 8 | usize::from(head[2]) | usize::from(head[0]) << 16;
        let mut payload = vec![0; len];
        if client.reader().read_exact(&mut payload).is_err() {
            return true;
        }
        match head[3] {
            // RST_STREAM, GOAWAY.
            3 | 7 => return true,
            // The status is the first field: 200 and 400 have numbers of their own. RFC 7541, appendix A.
            1 => return payload[0] == 0x80 | 12,
            _ => {}
        }
    }
}

fn a_client_that_reads_nothing_stops_its_own_stream(driver: &'static str) {
    let origin = Origin::answering(|request| match request.target() {
        "/large" => {
            let body = "x".repeat(4 << 20);
            ok(&body).into_bytes()
        }
        _ => ok("small").into_bytes(),
    });
    let proxy = Setup::to(driver, origin.addr, "runtime: { cores: 1, pool_max_bytes: 2097152 }\n").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (response, _) = client.send_request(request(Method::GET, "/large"), true).expect("sent");
        let (_, mut unread) = response.await.expect("a head").into_parts();
        for _ in 0..50 {
            assert_eq!(get(&mut client, "/").await.1, "small");
        }
        assert_eq!(read_body(&mut unread).await.expect("whole").len(), 4 << 20);
    });
    proxy.assert_idle();
}

fn http1_clients_reach_origins_of_http2(driver: &'static str) {
    let origin = Http2Origin::echo();
    let proxy = origin.setup(driver, "").start();
    let mut client = proxy.client();
    client.send(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!(answer.text(), format!("GET /a {} HTTP/2.0 ", origin.addr));
    assert_eq!(answer.field("saw-via"), "1.1 ringport");
    assert_eq!(answer.field("via"), "2.0 ringport");
    client.send(
        b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsaid\r\n0\r\nX-T: 1\r\n\r\n",
    );
    let answer = client.response("POST");
    assert_eq!(answer.text(), format!("POST /b {} HTTP/2.0 said", origin.addr));
    let body = "y".repeat(1_000_000);
    client.send(format!("PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{body}").as_bytes());
    assert!(client.response("PUT").text().ends_with(&body));
    client.send(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    assert_eq!(client.response("CONNECT").status(), 502);
    assert_eq!(origin.connection_count(), 1);
    drop(client);
    proxy.assert_idle();
}

fn both_sides_speak_http2(driver: &'static str) {
    let origin = Http2Origin::echo();
    let proxy = origin.setup(driver, "").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (head, body) = get(&mut client, "/x").await;
        assert_eq!(body, format!("GET /x {} HTTP/2.0 ", origin.addr));
        assert_eq!(head.headers()["saw-via"], "2.0 ringport");
        assert_eq!(head.headers()["saw-x-forwarded-proto"], "http");
    });
    proxy.assert_idle();
}

fn a_refused_stream_is_tried_again(driver: &'static str) {
    let origin = Http2Origin::new({
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        move |request, mut respond: SendResponse<Bytes>| {
            let count = count.clone();
            async move {
                if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    echo(request, respond).await;
                }
            }
        }
    });
    let proxy = origin.setup(driver, "").start();
    let mut client = proxy.client();
    // No body was taken, so even this may be said again: the origin has done nothing.
    client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response("POST").text(), format!("POST /a {} HTTP/2.0 ", origin.addr));
    assert_eq!(proxy.metric("retries_total"), 1);
    drop(client);
    proxy.assert_idle();
}

fn an_origin_that_says_goaway_is_left(driver: &'static str) {
    let origin = Http2Origin::echo();
    let proxy = origin.setup(driver, "").start();
    let mut client = proxy.client();
    for path in ["/a", "/goaway", "/b", "/c"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!(client.response("GET").status(), 200, "{path}");
    }
    assert_eq!(origin.connection_count(), 2);
    drop(client);
    proxy.assert_idle();
}

fn origins_that_fail_are_answered_for(driver: &'static str) {
    let origin = Http2Origin::new(|request, mut respond: SendResponse<Bytes>| async move {
        match request.uri().path() {
            "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
            "/long" => {
                let head = Response::builder().header("content-length", "3").body(()).expect("a head");
                let mut stream = respond.send_response(head, false).expect("sent");
                stream.send_data(Bytes::from_static(b"longer"), true).expect("sent");
                std::future::pending::<()>().await;
            }
            "/short" => {
                let head = Response::builder().header("content-length", "9").body(()).expect("a head");
                let mut stream = respond.send_response(head, false).expect("sent");
                stream.send_data(Bytes::from_static(b"short"), true).expect("sent");
                std::future::pending::<()>().await;
            }
            "/silent" => std::future::pending::<()>().await,
            _ => echo(request, respond).await,
        }
    });
    let pool = format!("origins: [{{ address: \"{}\", h2c: true }}], response_timeout: 300ms", origin.addr);
    let proxy = Setup::pool(driver, &pool, "").start();
    let ask = |path: &str| {
        let mut client = proxy.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").as_bytes());
        client.try_response("POST").map(|answer| answer.status())
    };
    assert_eq!(ask("/reset").ok(), Some(502));
    assert_eq!(ask("/silent").ok(), Some(504));
    // What has begun cannot be answered any more.
    assert!(ask("/long").map_or(true, |status| status == 502));
    assert!(ask("/short").map_or(true, |status| status == 502));
    assert_eq!(ask("/").ok(), Some(200));
    proxy.assert_idle();
}

fn one_dial_serves_all_that_wait(driver: &'static str) {
    let origin = Http2Origin::echo();
    let proxy = origin.setup(driver, "").start();
    let mut clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
    assert_eq!(origin.connection_count(), 1);
    drop(clients);
    proxy.assert_idle();
}

fn a_drain_lets_streams_end(driver: &'static str) {
    let (go, wait) = channel::<()>();
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::answering(move |_| {
        asked.send(()).expect("heard");
        wait.lock().expect("no panic").recv_timeout(PATIENCE).expect("told");
        ok("late").into_bytes()
    });
    let mut proxy = Setup::to(driver, origin.addr, "").start();
    run(async {
        let mut client = connect(proxy.addr()).await;
        let (response, _) = client.send_request(request(Method::GET, "/"), true).expect("sent");
        let waiting = tokio::spawn(read(response));
        is_asked.recv().await.expect("the request is there");
        proxy.terminate();
        // GOAWAY comes: no new stream.
        while client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        go.send(()).expect("heard");
        let (head, body, _) = waiting.await.expect("no panic").expect("a response");
        assert_eq!((head.status(), &*body), (StatusCode::OK, &b"late"[..]));
    });
    assert_eq!(proxy.exit().0.code(), Some(0));
}

fn curl_and_h2load_are_served(driver: &'static str) {
    let origin = Origin::answering(|request| ok(&format!("got {}", request.text().len())).into_bytes());
    let proxy: Proxy = Setup::to(driver, origin.addr, "").start();
    let url = format!("http://{}/", proxy.addr());
    let Some(text) =
        output("curl", &["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", "-d", "abc", &url])
    else {
        return skipped(driver, "curl is not installed");
    };
    assert_eq!(text, "got 3 2");
    let Some(text) = output("h2load", &["-n", "2000", "-c", "5", "-m", "10", &url]) else {
        return skipped(driver, "h2load is not installed");
    };
    assert!(text.contains("2000 succeeded, 0 failed, 0 errored"), "{text}");
    proxy.assert_idle();
}

fn grpc_calls_pass_in_all_four_ways(driver: &'static str) {
    // That of Debian, which the package is for.
    const PYTHON: &str = "/usr/bin/python3";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/grpc_peers.py");
    let has_grpc = Command::new(PYTHON).args(["-c", "import grpc"]).output();
    if !has_grpc.is_ok_and(|output| output.status.success()) {
        return skipped(driver, "python3-grpcio is not installed");
    }
    let mut server = Command::new(PYTHON)
        .args([script, "server"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut port).expect("it listens");
    let pool = format!("origins: [{{ address: \"127.0.0.1:{}\", h2c: true }}]", port.trim());
    let proxy = Setup::pool(driver, &pool, "").start();
    let client = Command::new(PYTHON).args([script, "client", &proxy.addr().to_string()]).output();
    let client = client.expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&client.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&client.stderr)
    );
    // Its input ends, and so does it.
    drop(server.stdin.take());
    server.wait().expect("a child");
    proxy.assert_idle();
}

/// What a program prints; `None` where it is not there.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
