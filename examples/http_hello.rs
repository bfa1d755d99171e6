//! An HTTP/1.1 server on all cores: `cargo run --example http_hello [ADDRESS]`, then `curl -i http://127.0.0.1:8080/`.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use ringport::http::{ServeError, ServerStream};
use ringport::net;
use ringport::proto::http1::{Limits, ServerEvent};
use ringport::runtime::native::{Native, NativeSpec, NativeStream};
use ringport::runtime::{ListenOptions, Listener, Runtime};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let cores = std::thread::available_parallelism()?.get();
    let running = NativeSpec::from_env()?.launch(cores, move |runtime, _| serve(runtime, address))?;
    running.join().into_iter().try_for_each(|core| core.result.map(drop))
}

/// Each core has a listener of its own; the kernel spreads the connections over them.
async fn serve(runtime: Native, address: SocketAddr) -> io::Result<()> {
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let mut listener = runtime.listen(&address.into(), options)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let stream = net::accept(&runtime, &mut listener).await?;
        runtime.spawn(async move {
            if let Err(error) = answer_all(ServerStream::over(stream, Limits::default())).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn answer_all(mut client: ServerStream<NativeStream>) -> Result<(), Box<dyn Error>> {
    loop {
        match client.next_event().await {
            Ok(ServerEvent::Head(head, _)) => {
                let body = format!("Hello, {}!\n", head.path().trim_start_matches('/'));
                client.respond(StatusCode::OK, [("content-type", &b"text/plain"[..])], body)?;
            }
            // A body is read and dropped; the connection then goes on to the next request.
            Ok(ServerEvent::Data(_) | ServerEvent::Trailers(_) | ServerEvent::End) => {}
            Ok(_) => return Ok(()),
            Err(ServeError::Protocol(error)) if client.conn().can_respond() => {
                client.respond(error.status(), [], error.reason())?;
            }
            Err(error) => return Err(error.into()),
        }
        client.flush().await?;
    }
}
