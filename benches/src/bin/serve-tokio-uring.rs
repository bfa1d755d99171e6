//! tokio-uring's echo, with the ring flags of a single-threaded loop.

use std::io;

use ringport_benches::serve::{ECHO_BUF, address};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(16 * 1024).setup_coop_taskrun().setup_single_issuer();
    tokio_uring::builder().entries(4096).uring_builder(&ring).start(async {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&address().into())?;
        socket.listen(4096)?;
        let listener = TcpListener::from_std(socket.into());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio_uring::spawn(echo(stream));
        }
    })
}

async fn echo(stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BUF);
    loop {
        let (read, filled) = stream.read(buf).await;
        let len = match read {
            Ok(len) if len > 0 => len,
            _ => return,
        };
        let (written, sent) = stream.write_all(filled.slice(..len)).await;
        if written.is_err() {
            return;
        }
        buf = sent.into_inner();
    }
}
