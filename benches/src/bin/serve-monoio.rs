//! monoio's echo on io_uring, and monoio-http's hello.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use futures_lite::future::poll_once;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use monoio::io::sink::Sink;
use monoio::io::stream::Stream;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio_http::common::error::HttpError;
use monoio_http::common::response::Response;
use monoio_http::h1::codec::decoder::RequestDecoder;
use monoio_http::h1::codec::encoder::GenericEncoder;
use monoio_http::h1::payload::{FixedPayload, Payload};
use ringport_benches::serve::{ECHO_BUF, HELLO, address};

fn main() -> io::Result<()> {
    ringport_platform::process::raise_fd_limit()?;
    let address = address();
    let hello = std::env::args().nth(1).is_some_and(|work| work == "hello");
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind_with_config(address, &ListenerOpts::new().backlog(4096))?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if hello {
                monoio::spawn(serve_hello(stream));
            } else {
                monoio::spawn(echo(stream));
            }
        }
    })
}

async fn echo(mut stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BUF);
    loop {
        let (read, filled) = stream.read(buf).await;
        if !read.is_ok_and(|len| len > 0) {
            return;
        }
        let (written, sent) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buf = sent;
        buf.clear();
    }
}

/// Answers in order; they are flushed when no further request has come, as hyper does with `pipeline_flush`.
async fn serve_hello(stream: TcpStream) {
    let (read, write) = stream.into_split();
    let mut requests = RequestDecoder::new(read);
    let mut answers = GenericEncoder::new(write);
    loop {
        let request = {
            let mut next = pin!(requests.next());
            match poll_once(&mut next).await {
                Some(request) => request,
                None if Sink::<Answer>::flush(&mut answers).await.is_err() => return,
                None => next.await,
            }
        };
        if !matches!(request, Some(Ok(_))) {
            return;
        }
        let mut response: Answer =
            Response::new(Payload::Fixed(FixedPayload::new(Bytes::from_static(HELLO))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if answers.send(response).await.is_err() {
            return;
        }
    }
}

type Answer = Response<Payload<Bytes, HttpError>>;
