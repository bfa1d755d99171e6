//! An echo of datagrams: `cargo run --example udp_echo [ADDRESS]`, then `nc -u 127.0.0.1 7007`.
//!
//! Datagrams come and go in batches, one system call each way for up to 64.

use std::io;
use std::net::SocketAddr;

use ringport::net::{PacketError, PacketSocket};
use ringport::runtime::native::{self, Native};
use ringport::runtime::{Received, Transmit};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    native::block_on(|runtime| serve(runtime, address))?.map_err(io::Error::other)
}

async fn serve(runtime: Native, address: SocketAddr) -> Result<(), PacketError> {
    let socket = PacketSocket::bind(&runtime, address)?;
    println!("listening on {}", socket.local_addr().map_err(PacketError::Receive)?);
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    loop {
        socket.recv_batch(&mut received).await?;
        let answer = |Received { bytes, meta }| Transmit::to(meta.peer, bytes);
        answers.extend(received.drain(..).map(answer));
        while let Err(error) = socket.send_batch(&mut answers).await {
            // The one in front cannot be sent, which is its own fault: the others can.
            eprintln!("an answer of {} bytes: {error}", answers[0].contents.len());
            answers.remove(0);
        }
    }
}
