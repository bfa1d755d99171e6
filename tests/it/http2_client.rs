//! A connection of HTTP/2 that requests share: before our own server, nghttpd, and origins that write their frames by hand.

mod nghttpd;
mod raw;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use ringport::http::{
    CallError, CallEvent, Exchange, HandlerError, Http2Call, Http2Client, Server, ServerHandle,
};
use ringport::net::{self, Stream};
use ringport::proto::http1::BodyLen;
use ringport::proto::http2::{Code, SendError, Spec};
use ringport::runtime::native::Native;
use ringport::runtime::{LocalAddr, Transport};
use ringport::spec::{Format, HttpServerSpec};

use super::rig::{Pattern, each, join, now, turn};
use super::tls::{Folder, dialer};

const BIG: usize = 1 << 20;

/// What `/big` is.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| Pattern::new(7).take(BIG));

/// A response to its end.
#[derive(Debug, Default)]
struct Whole {
    informational: Vec<StatusCode>,
    status: StatusCode,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn read(call: &mut Http2Call) -> Result<Whole, CallError> {
    let mut whole = Whole::default();
    loop {
        match call.next_event().await? {
            CallEvent::Informational(head) => whole.informational.push(head.status()),
            CallEvent::Head(head, _) => {
                whole.status = head.status();
                whole.fields = head.into_parts().0.headers;
            }
            CallEvent::Data(data) => whole.body.extend_from_slice(&data),
            CallEvent::Trailers(trailers) => whole.trailers = trailers,
            CallEvent::End => return Ok(whole),
        }
    }
}

fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

/// Asks for a path, with no body.
async fn get(client: &Http2Client, path: &str) -> Result<Whole, CallError> {
    let mut call = open_when_there_is_room(client, request("GET", path), BodyLen::None).await;
    call.finish().expect("no body");
    read(&mut call).await
}

async fn open_when_there_is_room(client: &Http2Client, head: Request<()>, body: BodyLen) -> Http2Call {
    loop {
        poll_fn(|cx| client.poll_room(cx)).await;
        match client.open(head.clone(), body) {
            Ok(call) => return call,
            // Another was faster.
            Err(SendError::TooManyStreams) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends all of `body`, then ends, with trailers if there are any.
async fn send(call: &mut Http2Call, body: &[u8], trailers: HeaderMap) -> Result<(), CallError> {
    for piece in body.chunks(10_000) {
        poll_fn(|cx| call.poll_room(cx)).await?;
        call.send_data(Bytes::copy_from_slice(piece)).expect("there is room");
    }
    if trailers.is_empty() {
        call.finish().expect("a whole body");
    } else {
        call.send_trailers(trailers).expect("a body of no known length");
    }
    Ok(())
}

/// What waits for the driver's end.
type Ended = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn start(runtime: &Native, stream: Stream<impl Transport>, spec: Spec) -> (Http2Client, Ended) {
    let (client, driver) = Http2Client::start(runtime, stream, spec);
    let task = runtime.core().spawn(driver);
    (client, Box::pin(async move { task.await.expect("it never panics") }))
}

/// Answers by path.
async fn app(mut exchange: Exchange) -> Result<(), HandlerError> {
    match exchange.head().path() {
        "/echo" => {
            exchange.send_head(StatusCode::OK, [], BodyLen::Chunked)?;
            while let Some(data) = exchange.recv().await? {
                exchange.send(data).await?;
            }
            match exchange.trailers() {
                Some(trailers) => exchange.send_trailers(trailers)?,
                None => exchange.finish()?,
            }
        }
        "/big" => {
            exchange.send_head(StatusCode::OK, [], BodyLen::Length(BIG as u64))?;
            for piece in PATTERN.chunks(BIG / 16) {
                exchange.send(piece).await?;
            }
            exchange.finish()?;
        }
        "/sum" => {
            let mut sum = 0;
            while let Some(data) = exchange.recv().await? {
                sum += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            }
            exchange.respond(StatusCode::OK, [], sum.to_string())?;
        }
        "/hints" => {
            exchange.send_informational(StatusCode::EARLY_HINTS, [("link", &b"</a>"[..])])?;
            exchange.respond(StatusCode::OK, [], "after hints")?;
        }
        "/early" => exchange.respond(StatusCode::FORBIDDEN, [], "no")?,
        "/reset" => exchange.reset(),
        "/half" => {
            exchange.send_head(StatusCode::OK, [], BodyLen::Length(10))?;
            exchange.send("half").await?;
            return Err("it does not go on".into());
        }
        "/never" => std::future::pending::<()>().await,
        path => {
            let path = path.to_owned();
            exchange.respond(StatusCode::OK, [("x-path", path.as_bytes())], path.clone())?;
        }
    }
    Ok(())
}

/// Our server in a task.
struct Served {
    addr: std::net::SocketAddr,
    handle: ServerHandle,
    ended: Ended,
}

/// `listen` is written in its listener, `more` behind it.
fn serve_with(runtime: &Native, listen: &str, more: &str) -> Served {
    let yaml = format!("{{listenConfig: {{addr: '127.0.0.1:0'{listen}}}{more}}}");
    let spec =
        HttpServerSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    let server = Server::from_spec(&spec, runtime).unwrap_or_else(|error| panic!("{error}"));
    let LocalAddr::Inet(addr) = *server.local_addr() else { panic!("not an IP address") };
    let handle = server.handle();
    let task = runtime.core().spawn(async move { server.serve(app).await.expect("nobody else closes it") });
    Served { addr, handle, ended: Box::pin(async move { task.await.expect("it does not panic") }) }
}

fn serve(runtime: &Native) -> Served {
    serve_with(runtime, "", "")
}

impl Served {
    async fn connect(&self, runtime: &Native, spec: Spec) -> (Http2Client, Ended) {
        let stream = net::connect(runtime, &self.addr.into()).await.expect("it listens");
        start(runtime, stream, spec)
    }

    async fn end(self) {
        self.handle.drain();
        self.ended.await;
    }
}

/// Waits for what comes to pass by the turns of the core alone.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        turn().await;
    }
}

#[test]
fn many_requests_share_a_connection() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        assert!(client.is_open() && client.idle_since().is_some());
        let mut tasks = Vec::new();
        for number in 0..300 {
            let client = client.clone();
            tasks.push(runtime.core().spawn(async move {
                for round in 0..3 {
                    let path = format!("/{number}-{round}");
                    let whole = get(&client, &path).await.expect("answered");
                    assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, path.as_bytes()));
                    assert_eq!(whole.fields["x-path"], path);
                }
            }));
        }
        until(|| client.open_count() > 0).await;
        assert_eq!(client.idle_since(), None);
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(server.handle.connections(), 1);
        assert_eq!(client.open_count(), 0);
        assert!(client.idle_since().is_some());
        drop(client);
        ended.await;
        server.end().await;
    });
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    each(async |runtime| {
        let server = serve(&runtime);
        let spec = Spec { stream_window_bytes: 64 * 1024, ..Spec::default() };
        let (client, ended) = server.connect(&runtime, spec).await;
        let mut slow = client.open(request("GET", "/big"), BodyLen::None).expect("room");
        slow.finish().expect("no body");
        let Ok(CallEvent::Head(head, BodyLen::Length(len))) = slow.next_event().await else {
            panic!("a head")
        };
        assert_eq!((head.status(), len), (StatusCode::OK, BIG as u64));
        let others = async |path: &'static str| {
            for _ in 0..30 {
                get(&client, path).await.expect("answered");
            }
        };
        let upload = async {
            let body = &*PATTERN;
            let mut call = client.open(request("POST", "/echo"), BodyLen::Chunked).expect("room");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            let mut got = Vec::new();
            let mut said = None;
            let mut sent = 0;
            while said.is_none() || sent <= body.len() {
                while sent < body.len() && now(|cx| call.poll_room(cx)).await.is_ready() {
                    let next = (sent + 30_000).min(body.len());
                    call.send_data(Bytes::copy_from_slice(&body[sent..next])).expect("room");
                    sent = next;
                }
                if sent == body.len() {
                    call.send_trailers(trailers.clone()).expect("a body of no known length");
                    sent += 1;
                }
                let event = poll_fn(|cx| {
                    let event = call.poll_event(cx);
                    if event.is_pending() && sent <= body.len() && call.poll_room(cx).is_ready() {
                        return std::task::Poll::Ready(None);
                    }
                    event.map(Some)
                });
                match event.await.transpose().expect("it goes on") {
                    Some(CallEvent::Data(data)) => got.extend_from_slice(&data),
                    Some(CallEvent::Trailers(trailers)) => said = Some(trailers),
                    Some(CallEvent::Head(..)) | None => {}
                    Some(event) => panic!("{event:?}"),
                }
            }
            assert!(call.take_end() && !call.take_end());
            assert!(got == *body, "{} bytes came back", got.len());
            assert_eq!(said.expect("trailers")["x-sum"], "7");
        };
        join(join(others("/a"), others("/big")), upload).await;
        let whole = read(&mut slow).await.expect("to its end");
        assert!(whole.body == *PATTERN, "{} bytes", whole.body.len());
        drop((slow, client));
        ended.await;
        server.end().await;
    });
}

#[test]
fn over_tls_it_is_the_same() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let pair =
            format!("{{certFile: {}, keyFile: {}}}", folder.path("server.pem"), folder.path("server.key"));
        let server = serve_with(&runtime, &format!(", tlsConfig: {{certKeyPairs: [{pair}]}}"), "");
        let tls = "rootCAs: [$/ca.pem], rootCAsIgnoreSystemCerts: true, nextProtos: [h2]";
        let dialer = dialer(&runtime, &folder.dial(&format!("{{tlsConfig: {{{tls}}}}}")));
        let target = format!("tcp://localhost:{}", server.addr.port()).parse().expect("a target");
        let stream = dialer.dial(&target).await.expect("TLS");
        let (client, ended) = start(&runtime, stream, Spec::default());
        let mut call = client.open(request("POST", "/sum"), BodyLen::Length(BIG as u64)).expect("room");
        send(&mut call, &PATTERN, HeaderMap::new()).await.expect("it takes all");
        let sum = PATTERN.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        assert_eq!(read(&mut call).await.expect("answered").body, sum.to_string().as_bytes());
        drop(call);
        let whole = get(&client, "/big").await.expect("answered");
        assert!(whole.body == *PATTERN, "{} bytes", whole.body.len());
        drop(client);
        ended.await;
        server.end().await;
    });
}

#[test]
fn hints_come_before_the_head() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let whole = get(&client, "/hints").await.expect("answered");
        assert_eq!(whole.informational, [StatusCode::EARLY_HINTS]);
        assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &b"after hints"[..]));
        let head = client.open(request("HEAD", "/hints"), BodyLen::None);
        let mut head = head.expect("room");
        head.finish().expect("no body");
        let whole = read(&mut head).await.expect("answered");
        assert!(whole.body.is_empty() && whole.fields["content-length"] == "11");
        // The end is there, and comes once by itself.
        assert!(!head.take_end());
        assert!(matches!(head.next_event().await, Ok(CallEvent::End)));
        drop((head, client));
        ended.await;
        server.end().await;
    });
}

#[test]
fn an_origin_that_resets_is_told_apart() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let error = get(&client, "/reset").await.expect_err("it resets");
        assert!(matches!(error, CallError::Reset { code: Code::CANCEL, unprocessed: false }), "{error:?}");
        let mut half = client.open(request("GET", "/half"), BodyLen::None).expect("room");
        half.finish().expect("no body");
        let error = read(&mut half).await.expect_err("a half");
        assert!(matches!(error, CallError::Reset { code: Code::INTERNAL_ERROR, .. }), "{error:?}");
        assert!(half.next_event().await.is_err(), "the same again");
        assert_eq!(half.send_data("x".into()), Err(SendError::Gone));
        get(&client, "/a").await.expect("the connection goes on");
        drop((half, client));
        ended.await;
        server.end().await;
    });
}

/// Whatever a call has come to, dropping it leaves nothing of it, and the others go on.
#[test]
fn a_call_is_dropped_at_every_stage() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let open = |path| client.open(request("POST", path), BodyLen::Chunked).expect("room");
        for round in 0..15 {
            drop(open("/echo"));
            let call = open("/never");
            turn().await;
            drop(call);
            let mut call = open("/never");
            call.send_data("a piece".into()).expect("room");
            call.finish().expect("an end");
            turn().await;
            drop(call);
            // With its window full of what nobody took.
            let mut call = open("/big");
            assert!(matches!(call.next_event().await, Ok(CallEvent::Head(..))));
            drop(call);
            let mut call = open("/echo");
            call.send_data(vec![7; 100_000].into()).expect("room");
            while !matches!(call.next_event().await, Ok(CallEvent::Data(_))) {}
            drop(call);
            // Its response is whole, its request is not.
            let mut call = open("/early");
            while !matches!(call.next_event().await, Ok(CallEvent::End)) {}
            drop(call);
            // All has come, nothing is read.
            let mut call = open("/early");
            call.finish().expect("an end");
            turn().await;
            drop(call);
            open("/never").reset(Code::CANCEL);
            assert_eq!(client.open_count(), 0, "round {round}");
            let mut big = open("/big");
            big.finish().expect("an end");
            assert_eq!(read(&mut big).await.expect("answered").body.len(), BIG);
        }
        assert!(client.is_open() && client.idle_since().is_some());
        drop(client);
        ended.await;
        server.end().await;
    });
}

#[test]
fn there_are_no_more_streams_than_the_origin_allows() {
    each(async |runtime| {
        let server = serve_with(&runtime, "", ", limits: {maxStreams: 3}");
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        get(&client, "/a").await.expect("answered");
        assert_eq!(client.room(), 3);
        let open = || client.open(request("GET", "/never"), BodyLen::None);
        let (first, second, third) = (open().expect("room"), open().expect("room"), open().expect("room"));
        assert_eq!((client.room(), client.open_count()), (0, 3));
        assert_eq!(open().expect_err("no room"), SendError::TooManyStreams);
        let order = Rc::new(RefCell::new(Vec::new()));
        let wait = |name: u32| {
            let (client, order) = (client.clone(), order.clone());
            runtime.core().spawn(async move {
                let mut call = open_when_there_is_room(&client, request("GET", "/a"), BodyLen::None).await;
                order.borrow_mut().push(name);
                call.finish().expect("no body");
                read(&mut call).await.expect("answered");
            })
        };
        let tasks = [1, 2, 3].map(wait);
        turn().await;
        assert!(now(|cx| client.poll_room(cx)).await.is_pending());
        drop(first);
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(order.take(), [1, 2, 3]);
        drop((second, third, client));
        ended.await;
        server.end().await;
    });
}

#[test]
fn drained_it_ends_with_its_last_stream() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let mut call = client.open(request("POST", "/echo"), BodyLen::Chunked).expect("room");
        assert!(matches!(call.next_event().await, Ok(CallEvent::Head(..))));
        client.drain();
        assert!(!client.is_open() && client.room() == 0);
        assert_eq!(client.open(request("GET", "/"), BodyLen::None).expect_err("no more"), SendError::Closing);
        poll_fn(|cx| client.poll_room(cx)).await;
        send(&mut call, b"goes on", HeaderMap::new()).await.expect("it is open");
        assert_eq!(read(&mut call).await.expect("whole").body, b"goes on");
        ended.await;
        // It can be asked still.
        assert!(call.take_end() || matches!(call.next_event().await, Ok(CallEvent::End)));
        assert_eq!((client.open_count(), client.is_open()), (0, false));
        drop((call, client));
        server.end().await;
    });
}

#[test]
fn closed_it_ends_at_once() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let mut call = client.open(request("GET", "/never"), BodyLen::None).expect("room");
        turn().await;
        client.close(Code::NO_ERROR);
        let error = call.next_event().await.expect_err("closed");
        assert!(matches!(error, CallError::Connection { unprocessed: false, .. }), "{error:?}");
        assert!(poll_fn(|cx| call.poll_room(cx)).await.is_err());
        ended.await;
        server.end().await;
    });
}

#[test]
fn calls_keep_their_connection_when_all_handles_are_gone() {
    each(async |runtime| {
        let server = serve(&runtime);
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let mut call = client.open(request("GET", "/big"), BodyLen::None).expect("room");
        drop(client.clone());
        drop(client);
        call.finish().expect("no body");
        assert_eq!(read(&mut call).await.expect("answered").body.len(), BIG);
        drop(call);
        ended.await;
        server.end().await;
    });
}

/// As when the runtime ends: nobody waits for ever.
#[test]
fn a_driver_that_is_dropped_tells_its_calls() {
    each(async |runtime| {
        let server = serve(&runtime);
        let stream = net::connect(&runtime, &server.addr.into()).await.expect("it listens");
        let (client, driver) = Http2Client::start(&runtime, stream, Spec::default());
        let mut driver = Box::pin(driver);
        let mut sent = client.open(request("GET", "/never"), BodyLen::None).expect("room");
        assert!(now(|cx| driver.as_mut().poll(cx)).await.is_pending());
        let mut unsent = client.open(request("GET", "/never"), BodyLen::None).expect("room");
        drop(driver);
        let error = sent.next_event().await.expect_err("it is over");
        assert!(matches!(error, CallError::Connection { .. }) && !error.is_unprocessed(), "{error:?}");
        assert!(unsent.next_event().await.expect_err("it is over").is_unprocessed());
        assert!(!client.is_open());
        assert_eq!(client.open(request("GET", "/"), BodyLen::None).expect_err("over"), SendError::Closing);
        server.end().await;
    });
}
