//! tokio's echo, and hyper's hello on tokio, on one thread (`current_thread`, the fastest for one core).

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringport_benches::cost::thread_time;
use ringport_benches::serve::{ECHO_BUF, HELLO, Work};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Serves on one thread until it is killed.
#[derive(Parser)]
struct Cli {
    /// What is served.
    #[arg(value_enum)]
    work: Work,
    /// Where.
    address: SocketAddr,
    /// What is behind a proxy or a relay.
    #[arg(long)]
    origin: Option<SocketAddr>,
    /// How many deadlines wait.
    #[arg(long, default_value_t = 1_000_000)]
    pending: usize,
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    ringport_platform::process::raise_fd_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(cli))
}

async fn serve(cli: Cli) -> io::Result<()> {
    if cli.work == Work::Timers {
        timers(cli.pending).await;
        return Ok(());
    }
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(cli.address)?;
    let listener = socket.listen(4096)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1024).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match cli.work {
            Work::Echo => tokio::spawn(echo(stream)),
            Work::Hello => tokio::spawn(hello(stream)),
            Work::Proxy => tokio::spawn(proxy(stream, client.clone(), cli.origin.ok_or_else(no_origin)?)),
            Work::Relay => tokio::spawn(relay(stream, cli.origin.ok_or_else(no_origin)?)),
            Work::Timers => return Err(io::Error::other("timers serve nobody")),
        };
    }
}

async fn relay(mut client: TcpStream, origin: SocketAddr) {
    let Ok(mut origin) = TcpStream::connect(origin).await else { return };
    if origin.set_nodelay(true).is_ok() {
        // A side that goes away in the middle is no fault of the relay's.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut origin).await;
    }
}

/// As ringport's: makes the deadlines, moves each in turn, drops them, and prints what that took.
async fn timers(pending: usize) {
    let idle = Duration::from_secs(75);
    let start = thread_time();
    let mut sleeps: Vec<_> = (0..pending)
        .map(|at| Box::pin(tokio::time::sleep(idle - Duration::from_micros(at as u64))))
        .collect();
    let waiting = poll_fn(|cx| {
        let waiting =
            sleeps.iter_mut().filter_map(|sleep| sleep.as_mut().poll(cx).is_pending().then_some(()));
        Poll::Ready(waiting.count())
    });
    assert_eq!(waiting.await, pending, "no deadline has passed yet");
    let made = thread_time();
    for sleep in &mut sleeps {
        sleep.as_mut().reset(tokio::time::Instant::now() + idle);
    }
    let moved = thread_time();
    drop(sleeps);
    let dropped = thread_time();
    for span in [moved - made, made - start, dropped - moved] {
        ringport_benches::tell(format_args!("{:.2}", span.as_nanos() as f64 / pending as f64));
    }
}

fn no_origin() -> io::Error {
    io::Error::other("a proxy or relay needs --origin")
}

/// A read that leaves room tells tokio that nothing is left, which spares it a read in vain; memory that is not set to
/// zero is not resident until it is written.
async fn echo(mut stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BUF + 1);
    loop {
        match stream.read_buf(&mut buf).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if stream.write_all(&buf).await.is_err() {
                    return;
                }
                buf.clear();
            }
        }
    }
}

async fn hello(stream: TcpStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(HELLO)));
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(response)
    });
    // A client that goes away in the middle is no fault of the server's.
    let _ = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
}

type Origins = Client<HttpConnector, Incoming>;

/// hyper-util's client with its pool, hop-by-hop fields removed, as its documentation builds a reverse proxy.
async fn proxy(stream: TcpStream, client: Origins, origin: SocketAddr) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let uri = http::Uri::builder().scheme("http").authority(origin.to_string()).path_and_query(path);
            *request.uri_mut() = uri.build().map_err(io::Error::other)?;
            remove_hop_by_hop(request.headers_mut());
            request.headers_mut().remove(http::header::HOST);
            let mut response = client.request(request).await.map_err(io::Error::other)?;
            remove_hop_by_hop(response.headers_mut());
            Ok::<_, io::Error>(response)
        }
    });
    // As above.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn remove_hop_by_hop(headers: &mut http::HeaderMap) {
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
}
