//! compio's echo on io_uring, with the ring flags switched on that it leaves off by default.

use std::io;

use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use ringport_benches::serve::{ECHO_BUF, address};

fn main() -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.capacity(4096).coop_taskrun(true).taskrun_flag(true).driver_type(DriverType::IoUring);
    let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
    runtime.block_on(async {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&address().into())?;
        socket.listen(4096)?;
        let listener = TcpListener::from_std(socket.into())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            compio::runtime::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BUF);
    loop {
        let compio::BufResult(read, filled) = stream.read(buf).await;
        if !read.is_ok_and(|len| len > 0) {
            return;
        }
        let compio::BufResult(written, sent) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buf = sent;
        buf.clear();
    }
}
