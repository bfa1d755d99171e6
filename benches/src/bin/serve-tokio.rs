//! tokio's echo, and hyper's hello on tokio, on one thread (`current_thread`, the fastest for one core).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ringport_benches::serve::{HELLO, Work};
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
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    ringport_platform::process::raise_fd_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(cli))
}

async fn serve(cli: Cli) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(cli.address)?;
    let listener = socket.listen(4096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match cli.work {
            Work::Echo => tokio::spawn(echo(stream)),
            Work::Hello => tokio::spawn(hello(stream)),
        };
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buf = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buf).await {
            Ok(0) | Err(_) => return,
            Ok(len) => {
                if stream.write_all(&buf[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn hello(stream: TcpStream) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(HELLO)));
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(response)
    });
    // A client that goes away in the middle is no fault of the server's.
    let _ = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
}
