//! A tiny HTTP/1.1 client: `cargo run --example http_get 127.0.0.1:8080 /path` prints the response.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use ringport::http::ClientStream;
use ringport::net;
use ringport::proto::http1::{BodyLen, ClientEvent, Limits, RequestLine};
use ringport::runtime::native::{self, Native};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().ok_or("usage: http_get ADDRESS [PATH]")?.parse()?;
    let path = args.next().unwrap_or_else(|| "/".to_owned());
    native::block_on(|runtime| async move {
        let core = runtime.core().clone();
        core.timeout(Duration::from_secs(30), get(runtime, address, &path)).await?
    })?
}

async fn get(runtime: Native, address: SocketAddr, path: &str) -> Result<(), Box<dyn Error>> {
    let stream = net::connect(&runtime, &address.into()).await?;
    let mut origin = ClientStream::over(stream, Limits::default());
    let line = RequestLine { method: "GET", target: path, host: &address.to_string() };
    origin.send_head(line, [("accept", &b"*/*"[..])], BodyLen::None)?;
    origin.finish()?;
    origin.flush().await?;
    let mut out = std::io::stdout().lock();
    loop {
        match origin.next_event().await? {
            ClientEvent::Head(head, _) => {
                writeln!(out, "{}", head.status())?;
                for (name, value) in head.iter() {
                    writeln!(out, "{name}: {}", value.escape_ascii())?;
                }
                writeln!(out)?;
            }
            ClientEvent::Data(data) => out.write_all(&data)?,
            ClientEvent::Informational(_) | ClientEvent::Trailers(_) | ClientEvent::NeedInput => {}
            ClientEvent::End | ClientEvent::Closed | ClientEvent::Tunnel(_) => return Ok(()),
        }
    }
}
