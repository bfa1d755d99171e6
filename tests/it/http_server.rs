//! The server of HTTP from a spec, before curl, nghttp, h2load, openssl and raw clients, plain and over TLS.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Request, StatusCode};
use ringport::http::{Exchange, Handler, HandlerError, Http2Stream, Server, ServerHandle};
use ringport::net;
use ringport::proto::http1::BodyLen;
use ringport::proto::http2::{Code, Event, Spec};
use ringport::runtime::native::Native;
use ringport::runtime::{ListenOptions, Listener, LocalAddr, Runtime, Transport};
use ringport::spec::{Format, HttpServerSpec};
use ringport_platform::measure::allocated;

use super::pki::Authority;
use super::rig::{TcpStream, any_port, each, join, read_all, skipped, turn};

/// Certificates that go when the case does.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder::with_authority().0
    }

    pub(crate) fn with_authority() -> (Self, Authority) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringport-it-http-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of our own");
        let (folder, authority) = (Folder(path), Authority::new("ours"));
        let pair = authority.issue(&["localhost", "127.0.0.1"]);
        folder.write("ca.pem", &authority.cert);
        folder.write("cert.pem", &pair.cert);
        folder.write("key.pem", &pair.key);
        (folder, authority)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn tls(&self) -> String {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        format!(", tlsConfig: {{certKeyPairs: [{{certFile: {cert}, keyFile: {key}}}]}}")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

thread_local! {
    /// Handlers of `/never` that were dropped.
    static DROPPED: Cell<u32> = const { Cell::new(0) };
}

struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

/// Answers by path.
async fn app(mut exchange: Exchange) -> Result<(), HandlerError> {
    let text = [("content-type", &b"text/plain"[..])];
    match exchange.head().path() {
        "/echo" => {
            exchange.send_head(StatusCode::OK, text, BodyLen::Chunked)?;
            let mut count = 0;
            while let Some(data) = exchange.recv().await? {
                count += data.len();
                exchange.send(data).await?;
            }
            let mut trailers = exchange.trailers().unwrap_or_default();
            trailers.insert("x-count", count.into());
            exchange.send_trailers(trailers)?;
        }
        "/sum" => {
            let mut sum = 0u64;
            while let Some(data) = exchange.recv().await? {
                sum += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            }
            exchange.respond(StatusCode::OK, text, sum.to_string())?;
        }
        "/big" => {
            exchange.send_head(StatusCode::OK, text, BodyLen::Length(64 << 20))?;
            for _ in 0..1024 {
                exchange.send(vec![b'b'; 64 * 1024]).await?;
            }
            exchange.finish()?;
        }
        "/early" => exchange.respond(StatusCode::FORBIDDEN, text, "no")?,
        "/error" => return Err("it does not work".into()),
        "/half" => {
            exchange.send_head(StatusCode::OK, text, BodyLen::Length(10))?;
            exchange.send("half").await?;
            return Err("it does not go on".into());
        }
        "/panic" => panic!("as asked"),
        "/never" => {
            let _dropped = Dropped;
            std::future::pending::<()>().await;
        }
        "/head" => {
            let about = format!(
                "{} {:?} {:?} {}",
                exchange.head().method(),
                exchange.head().version(),
                exchange.head().query(),
                exchange.is_tls()
            );
            let asked: Vec<_> = exchange.head().iter().filter(|(name, _)| name.starts_with("x-")).collect();
            let about = format!("{about} {}", asked.len());
            exchange.respond(StatusCode::OK, text, about)?;
        }
        path => {
            let path = path.to_owned();
            exchange.respond(StatusCode::OK, text, path)?;
        }
    }
    Ok(())
}

/// A server in a task.
pub(crate) struct Served {
    pub(crate) addr: std::net::SocketAddr,
    pub(crate) handle: ServerHandle,
    ended: std::pin::Pin<Box<dyn Future<Output = ()>>>,
}

/// `more` is written behind the listener of the spec, `listen` in it.
pub(crate) fn serve(runtime: &Native, listen: &str, more: &str) -> Served {
    serve_with(runtime, listen, more, app)
}

pub(crate) fn serve_with(runtime: &Native, listen: &str, more: &str, handler: impl Handler) -> Served {
    let yaml = format!("{{listenConfig: {{addr: '127.0.0.1:0'{listen}}}{more}}}");
    let spec =
        HttpServerSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    let server = Server::from_spec(&spec, runtime).unwrap_or_else(|error| panic!("{error}"));
    let LocalAddr::Inet(addr) = *server.local_addr() else { panic!("not an IP address") };
    let handle = server.handle();
    let task =
        runtime.core().spawn(async move { server.serve(handler).await.expect("nobody else closes it") });
    Served { addr, handle, ended: Box::pin(async move { task.await.expect("it does not panic") }) }
}

impl Served {
    pub(crate) async fn end(self) {
        self.handle.drain();
        self.ended.await;
        assert_eq!(self.handle.connections(), 0);
    }

    pub(crate) async fn connect(&self, runtime: &Native) -> TcpStream {
        net::connect(runtime, &self.addr.into()).await.expect("it listens")
    }

    /// Sends bytes over a connection of its own, and reads to its end.
    pub(crate) async fn ask(&self, runtime: &Native, bytes: impl Into<Vec<u8>>) -> String {
        let mut client = self.connect(runtime).await;
        client.send(bytes.into()).await.expect("sent");
        String::from_utf8_lossy(&read_all(&mut client).await).into_owned()
    }
}

/// Runs a program while the core goes on.
pub(crate) async fn run(runtime: &Native, mut command: Command) -> Output {
    let mut done = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
    let LocalAddr::Inet(end) = done.local_addr().expect("it listens") else { panic!("not an IP address") };
    let thread = std::thread::spawn(move || {
        let output = command.output().expect("it can be run");
        #[expect(clippy::disallowed_methods, reason = "a program's end wakes the core")]
        drop(std::net::TcpStream::connect(end).expect("the case waits"));
        output
    });
    net::accept(runtime, &mut done).await.expect("the program ends");
    thread.join().expect("the program was run")
}

pub(crate) async fn curl(runtime: &Native, args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "50"]).args(args);
    let output = run(runtime, command).await;
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(format_args!("{program} is not installed"));
    }
    found
}

#[test]
fn curl_speaks_both_versions_plain_and_over_tls() {
    each(async |runtime| {
        if !has("curl") {
            return;
        }
        let folder = Folder::new();
        let (plain, safe) = (serve(&runtime, "", ""), serve(&runtime, &folder.tls(), ""));
        let ca = folder.path("ca.pem");
        let body = folder.path("body");
        std::fs::write(&body, vec![1; 300_000]).expect("written");
        let body = format!("@{body}");
        for (server, scheme, flag, version) in [
            (&plain, "http", "--http1.1", "HTTP/1.1"),
            (&plain, "http", "--http1.0", "HTTP/1.0"),
            (&plain, "http", "--http2-prior-knowledge", "HTTP/2.0"),
            (&safe, "https", "--http1.1", "HTTP/1.1"),
            (&safe, "https", "--http2", "HTTP/2.0"),
        ] {
            let url = |path: &str| format!("{scheme}://localhost:{}{path}", server.addr.port());
            let resolve = format!("localhost:{}:127.0.0.1", server.addr.port());
            let args = [flag, "--cacert", &ca, "--resolve", &resolve, "-w", " %{http_version}"];
            let ask = async |more: &[&str]| curl(&runtime, &[&args[..], more].concat()).await;
            let said = ask(&["-H", "x-a: 1", "-H", "x-b: 2", &url("/head?a=b")]).await;
            let is_safe = scheme == "https";
            let number = version.trim_start_matches("HTTP/").trim_end_matches(".0");
            let expected = format!("GET {version} Some(\"a=b\") {is_safe} 2 {number}");
            // What curl says of HTTP/1.0 is the version of the response.
            assert!(said.starts_with(expected.trim_end_matches(number)), "{flag}: {said}");
            let said = ask(&["--data-binary", &body, &url("/sum")]).await;
            assert!(said.starts_with("300000 "), "{said}");
            let said = ask(&["--data-binary", &body, &url("/echo")]).await;
            assert!(said.len() >= 300_000, "{}", said.len());
            let said = ask(&["-I", &url("/some")]).await;
            assert!(said.to_ascii_lowercase().contains("content-length: 5\r\n"), "{said}");
            let said = ask(&["-o", "/dev/null", "-w", "%{size_download}", &url("/big")]).await;
            assert_eq!(said, format!("{}", 64 << 20));
            let said = ask(&["--data-binary", &body, "-w", "%{http_code}", &url("/early")]).await;
            assert!(said.ends_with("403"), "{said}");
            for (path, status) in [("/error", "500"), ("/panic", "500"), ("/fine", "200")] {
                let said = ask(&["-w", "%{http_code}", &url(path)]).await;
                assert!(said.ends_with(status), "{path}: {said}");
            }
        }
        plain.end().await;
        safe.end().await;
    });
}

pub(crate) const GET: &str = "GET /some HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn twenty_thousand_requests_without_an_error() {
    each(async |runtime| {
        if !has("h2load") {
            return;
        }
        let folder = Folder::new();
        for (listen, scheme) in [(String::new(), "http"), (folder.tls(), "https")] {
            let server = serve(&runtime, &listen, "");
            let mut command = Command::new("h2load");
            command.args(["-n", "20000", "-c", "10", "-m", "10"]);
            command.arg(format!("{scheme}://{}/some", server.addr));
            let output = run(&runtime, command).await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
            server.end().await;
        }
    });
}

#[test]
fn what_is_too_slow_or_too_much_is_told_and_ends() {
    each(async |runtime| {
        let timeouts = ", timeouts: {header: 200ms, bodyIdle: 200ms, keepAliveIdle: 400ms, request: 300ms}";
        let limits = ", limits: {headerCount: 3, headerBytes: 300, requestLineBytes: 256, bodyBytes: 10}";
        let server = serve(&runtime, "", &format!("{timeouts}{limits}"));
        let long = "x".repeat(300);
        let post = |path: &str, length: usize, body: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        for (asked, status) in [
            ("GET / HTTP/1.1\r\nhost:".to_owned(), "408"),
            (post("/sum", 10, "12345"), "408"),
            (post("/sum", 11, "12345678901"), "413"),
            (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), "414"),
            (format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {long}\r\n\r\n"), "431"),
            ("GET / HTTP/1.1\r\nhost: a\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n".to_owned(), "431"),
            ("GET / HTTP/1.1\r\nhost: a\r\nbad field: 1\r\n\r\n".to_owned(), "400"),
            (GET.replace("/some", "/never"), "503"),
        ] {
            let said = server.ask(&runtime, asked.as_str()).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}: {said}");
            assert!(said.contains("connection: close"), "{said}");
        }
        // At the limit all is well, and what is idle ends in silence.
        let said = server.ask(&runtime, "GET / HTTP/1.1\r\nhost: a\r\na: 1\r\nb: 2\r\n\r\n").await;
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\n/"), "{said}");
        let said = server.ask(&runtime, post("/sum", 10, &"\u{1}".repeat(10))).await;
        assert!(said.ends_with("\r\n\r\n10"), "{said}");
        assert_eq!(server.ask(&runtime, "").await, "");
        server.end().await;
    });
}

#[test]
fn many_at_once_come_back_in_order() {
    each(async |runtime| {
        let server = serve(&runtime, "", ", limits: {requestsPerConnection: 100}");
        let all: String = (0..100).map(|at| GET.replace("some", &format!("n{at}."))).collect();
        let said = server.ask(&runtime, all).await;
        let paths: Vec<&str> =
            said.split("/n").skip(1).map(|part| part.split('.').next().expect("a part")).collect();
        let expected: Vec<String> = (0..100).map(|at| at.to_string()).collect();
        assert_eq!(paths, expected);
        assert_eq!(said.matches("connection: close").count(), 1, "the last one says so");
        server.end().await;
    });
}

#[test]
fn a_panic_ends_its_request_alone_and_half_a_response_is_no_whole_one() {
    each(async |runtime| {
        let server = serve(&runtime, "", "");
        let asked = ["panic", "error", "half"].map(|path| GET.replace("some", path));
        let mut client = server.connect(&runtime).await;
        client.send(asked.concat()).await.expect("sent");
        let (said, in_order) = to_the_end(&mut client).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!in_order, "a reset, not an end: {said}");
        assert_eq!(said.matches("HTTP/1.1 500").count(), 2, "{said}");
        server.end().await;
    });
}

#[test]
fn drained_under_load_no_request_is_lost() {
    each(async |runtime| {
        let server = serve(&runtime, "", "");
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = server.connect(&runtime).await;
            clients.push(runtime.core().spawn(async move {
                for served in 0_u32.. {
                    let mut said = String::new();
                    client.send(GET).await.expect("it listens still");
                    while !said.ends_with("/some") {
                        let bytes = client.recv().await.expect("in order").expect("a response");
                        said.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    if said.contains("connection: close") {
                        assert!(client.recv().await.expect("in order").is_none());
                        return served;
                    }
                }
                unreachable!("it is drained")
            }));
        }
        // One that waits in the accept queue, and one that never says anything.
        for _ in 0..50 {
            turn().await;
        }
        let waiting = server.connect(&runtime);
        let silent = server.connect(&runtime);
        server.handle.drain();
        let (mut waiting, mut silent) = join(waiting, silent).await;
        waiting.send(GET).await.expect("sent");
        assert!(String::from_utf8_lossy(&read_all(&mut waiting).await).ends_with("/some"));
        assert!(read_all(&mut silent).await.is_empty());
        for client in clients {
            assert!(client.await.expect("it does not panic") > 0);
        }
        server.end().await;
    });
}

#[test]
fn the_drain_has_an_end() {
    each(async |runtime| {
        let server = serve(&runtime, "", ", timeouts: {drain: 100ms}");
        let mut client = server.connect(&runtime).await;
        client.send(GET.replace("some", "never")).await.expect("sent");
        while server.handle.connections() == 0 {
            turn().await;
        }
        server.end().await;
        assert!(client.recv().await.is_err(), "cut");
    });
}

#[test]
fn a_client_that_takes_nothing_is_reset_and_others_are_not_held_up() {
    each(async |runtime| {
        let server = serve(&runtime, "", ", timeouts: {writeIdle: 300ms}");
        let mut greedy = server.connect(&runtime).await;
        greedy.transport().set_rx_limit(1);
        greedy.send(GET.replace("some", "big")).await.expect("sent");
        let said = server.ask(&runtime, GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        assert!(said.ends_with("/some"), "{said}");
        while server.handle.connections() > 0 {
            turn().await;
        }
        drop(greedy);
        server.end().await;
    });
}

/// What the peer of a half response, or of a fault, has until the end.
pub(crate) async fn to_the_end(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut said = Vec::new();
    loop {
        match client.recv().await {
            Ok(Some(bytes)) => said.extend_from_slice(&bytes),
            end => return (said, end.is_ok()),
        }
    }
}

#[test]
fn a_stream_that_its_client_resets_has_no_handler_any_more_and_others_go_on() {
    each(async |runtime| {
        DROPPED.set(0);
        let server = serve(&runtime, "", "");
        let stream = server.connect(&runtime).await;
        let mut client = Http2Stream::client(&runtime, stream, Spec::default());
        let request = |path: &str| {
            let uri = format!("http://a{path}");
            Request::builder().method("POST").uri(uri).body(()).expect("a request")
        };
        let never = client.conn().open(request("/never"), BodyLen::Chunked).expect("room");
        let echo = client.conn().open(request("/echo"), BodyLen::Chunked).expect("room");
        client.conn().send_data(never, "a piece".into()).expect("room");
        client.conn().send_data(echo, "one".into()).expect("room");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "7".parse().expect("a value"));
        let (mut said, mut told) = (Vec::new(), None);
        loop {
            match client.next_event().await.expect("the server keeps to the rules") {
                Event::Data { id, data } => {
                    assert_eq!(id, echo);
                    client.conn().release(id, data.len());
                    said.extend_from_slice(&data);
                    if said == b"one" {
                        client.conn().reset(never, Code::CANCEL);
                        client.conn().send_data(echo, "two".into()).expect("room");
                        client.conn().send_trailers(echo, trailers.clone()).expect("its end");
                    }
                }
                Event::Trailers { trailers, .. } => told = Some(trailers),
                Event::End { .. } => break,
                Event::Response { head, .. } => assert_eq!(head.status(), StatusCode::OK),
                _ => {}
            }
        }
        let told = told.expect("trailers");
        assert_eq!(
            (&said[..], &told["x-sum"], &told["x-count"]),
            (&b"onetwo"[..], &"7".parse().expect("a value"), &"6".parse().expect("a value"))
        );
        while DROPPED.get() == 0 {
            turn().await;
        }
        server.handle.drain();
        while !matches!(client.next_event().await.expect("in order"), Event::Closed) {}
        drop(client);
        server.end().await;
    });
}

#[test]
fn a_flood_ends_its_connection_alone() {
    each(async |runtime| {
        let server = serve(&runtime, "", "");
        let mut other = server.connect(&runtime).await;
        let mut flood = server.connect(&runtime).await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for _ in 0..10_000 {
            bytes.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0whatever");
        }
        // The server ends it before all is sent.
        let _ = flood.send(bytes).await;
        let (said, _) = to_the_end(&mut flood).await;
        // GOAWAY, whose code is ENHANCE_YOUR_CALM.
        let goaway = said.windows(4).position(|part| part == b"\x07\0\0\0").expect("GOAWAY");
        assert_eq!(said[goaway + 10..goaway + 14], [0, 0, 0, 11]);
        drop(flood);
        other.send(GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await.expect("sent");
        assert!(String::from_utf8_lossy(&read_all(&mut other).await).ends_with("/some"));
        server.end().await;
    });
}

#[test]
fn clients_that_go_in_the_middle_leave_nothing() {
    each(async |runtime| {
        DROPPED.set(0);
        let server = serve(&runtime, "", "");
        for asked in [
            "GET /ne",
            "POST /sum HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1",
            &GET.replace("some", "never"),
        ] {
            let mut client = server.connect(&runtime).await;
            client.send(asked.to_owned()).await.expect("sent");
            while server.handle.connections() == 0 {
                turn().await;
            }
            for _ in 0..10 {
                turn().await;
            }
            client.reset();
            while server.handle.connections() > 0 {
                turn().await;
            }
        }
        assert_eq!(DROPPED.get(), 1);
        server.end().await;
    });
}

/// Says how long the body was, and the trailers of the request again.
#[cfg(feature = "tower")]
#[derive(Clone)]
struct Counting;

#[cfg(feature = "tower")]
impl tower_service::Service<Request<ringport::http::RequestBody>> for Counting {
    type Response = http::Response<TextThenTrailers>;
    type Error = HandlerError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, HandlerError>>>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), HandlerError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ringport::http::RequestBody>) -> Self::Future {
        Box::pin(async move {
            let mut count = 0;
            let mut trailers = http::HeaderMap::new();
            let mut body = std::pin::pin!(request.into_body());
            while let Some(frame) =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await
            {
                match frame?.into_data() {
                    Ok(data) => count += data.len(),
                    Err(frame) => trailers = frame.into_trailers().expect("trailers"),
                }
            }
            let text = Some(bytes::Bytes::from(format!("{count} bytes")));
            Ok(http::Response::new(TextThenTrailers { text, trailers: Some(trailers) }))
        })
    }
}

#[cfg(feature = "tower")]
struct TextThenTrailers {
    text: Option<bytes::Bytes>,
    trailers: Option<http::HeaderMap>,
}

#[cfg(feature = "tower")]
impl http_body::Body for TextThenTrailers {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let text = self.text.take().map(|text| Ok(http_body::Frame::data(text)));
        std::task::Poll::Ready(
            text.or_else(|| self.trailers.take().map(|trailers| Ok(http_body::Frame::trailers(trailers)))),
        )
    }
}

#[cfg(feature = "tower")]
#[test]
fn a_service_of_tower_answers_with_bodies_and_trailers_both_ways() {
    each(async |runtime| {
        let spec = HttpServerSpec::from_text("{listenConfig: {addr: '127.0.0.1:0'}}", Format::Yaml, "f");
        let server = Server::from_spec(&spec.expect("in order"), &runtime).expect("a free port");
        let LocalAddr::Inet(addr) = *server.local_addr() else { panic!("not an IP address") };
        let handle = server.handle();
        let handler = ringport::http::ServiceHandler(Counting);
        let task = runtime.core().spawn(async move { server.serve(handler).await });
        let mut client = net::connect(&runtime, &addr.into()).await.expect("it listens");
        let asked = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                     5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
        client.send(asked).await.expect("sent");
        let said = String::from_utf8_lossy(&read_all(&mut client).await).into_owned();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\n7\r\n5 bytes\r\n0\r\nx-sum: 7\r\n\r\n"), "{said}");
        handle.drain();
        task.await.expect("it does not panic").expect("nobody else closes it");
    });
}

#[test]
fn responses_say_when_unless_the_spec_wants_none() {
    each(async |runtime| {
        let answer = async |mut exchange: Exchange| {
            let own = [("date", &b"Thu, 01 Jan 1970 00:00:00 GMT"[..])];
            let fields = if exchange.head().path() == "/own" { &own[..] } else { &[] };
            exchange.respond(StatusCode::OK, fields.iter().copied(), "")
        };
        let bad = "GET / HTTP/1.1\r\nhost: a\r\nbad field: 1\r\n\r\n";
        let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        for (more, count) in [("", 1), (", omitDate: true", 0)] {
            let server = serve_with(&runtime, "", more, answer);
            for asked in [asked("/"), bad.to_owned()] {
                let said = server.ask(&runtime, asked).await;
                let dates: Vec<&str> = said.lines().filter(|line| line.starts_with("date: ")).collect();
                assert_eq!(dates.len(), count, "{said}");
                assert!(dates.iter().all(|date| date.len() == 35 && date.ends_with(" GMT")), "{said}");
            }
            let said = server.ask(&runtime, asked("/own")).await;
            assert_eq!(said.matches("date: ").count(), 1, "a handler's own counts: {said}");
            assert!(said.contains("date: Thu, 01 Jan 1970"), "{said}");
            if has("curl") {
                let url = format!("http://{}/", server.addr);
                let said = curl(&runtime, &["--http2-prior-knowledge", "-i", &url]).await;
                assert_eq!(said.matches("date: ").count(), count, "{said}");
            }
            server.end().await;
        }
    });
}

/// Client and server together, for they share a core; the client's part is a static request and views of the pool.
#[test]
fn a_request_of_http1_allocates_next_to_nothing() {
    each(async |runtime| {
        let text = [("content-type", &b"text/plain"[..])];
        let answer = async move |mut exchange: Exchange| exchange.respond(StatusCode::OK, text, "hello");
        let server = serve_with(&runtime, "", "", answer);
        let mut client = server.connect(&runtime).await;
        let mut ask = async |count: u64| {
            let before = allocated().count;
            for _ in 0..count {
                client.send(GET).await.expect("it listens");
                let mut ends = false;
                while !ends {
                    ends = client.recv().await.expect("in order").expect("a response").ends_with(b"hello");
                }
            }
            (allocated().count - before) as f64 / count as f64
        };
        ask(10).await;
        let each = ask(1_000).await;
        println!("{each:.3} allocations for a request of HTTP/1.1");
        assert!(each <= 2.0, "{each}");
        drop(client);
        server.end().await;
    });
}
