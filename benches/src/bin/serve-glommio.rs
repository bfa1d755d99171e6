//! glommio's echo.

use std::io;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use ringport_benches::serve::{ECHO_BUF, address};

fn main() -> io::Result<()> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(4096).make();
    let executor = executor.map_err(|error| io::Error::other(error.to_string()))?;
    executor.run(async {
        let listener = TcpListener::bind(address()).map_err(|error| io::Error::other(error.to_string()))?;
        loop {
            let stream = listener.accept().await.map_err(|error| io::Error::other(error.to_string()))?;
            stream.set_nodelay(true).map_err(|error| io::Error::other(error.to_string()))?;
            glommio::spawn_local(echo(stream)).detach();
        }
    })
}

/// A read that leaves room spares a second one in vain.
async fn echo(mut stream: TcpStream) {
    let mut buf = vec![0; ECHO_BUF + 1];
    while let Ok(len) = stream.read(&mut buf).await {
        if len == 0 || stream.write_all(&buf[..len]).await.is_err() {
            return;
        }
    }
}
