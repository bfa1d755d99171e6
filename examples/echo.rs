//! An echo server: `cargo run --example echo [ADDRESS]`, then `nc 127.0.0.1 7007`.
//!
//! Nothing is copied: what the kernel received is sent from where it lies.

use std::io;
use std::net::SocketAddr;

use ringport::net;
use ringport::runtime::native::{self, Native};
use ringport::runtime::{ListenOptions, Listener, Runtime};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    native::block_on(|runtime| serve(runtime, address))?
}

async fn serve(runtime: Native, address: SocketAddr) -> io::Result<()> {
    let mut listener = runtime.listen(&address.into(), ListenOptions::default())?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let mut stream = net::accept(&runtime, &mut listener).await?;
        runtime.spawn(async move {
            while let Ok(Some(bytes)) = stream.recv().await {
                if stream.send(bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}
