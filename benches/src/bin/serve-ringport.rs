//! ringport's echo and HTTP/1.1 hello on one core, through the library's public API.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use http::StatusCode;
use ringport::http::ServerStream;
use ringport::net::Stream;
use ringport::proto::http1::{Limits, ServerEvent};
use ringport::runtime::native::{Native, NativeStream};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, Runtime, TxLevel};
use ringport_benches::serve::{HELLO, Work};
use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::core::{CoreSpec, ListenSock};
use ringport_platform::driver::{DriverChoice, Mechanisms, open};
use ringport_platform::launch::{CoreContext, LaunchSpec, launch};
use ringport_platform::process;
use ringport_platform::socket;

/// Serves on one core until it is killed.
#[derive(Parser)]
struct Cli {
    /// What is served.
    #[arg(value_enum)]
    work: Work,
    /// Where.
    address: SocketAddr,
    /// auto, uring or epoll.
    #[arg(long, default_value = "auto")]
    driver: DriverChoice,
    /// Mechanisms of io_uring to do without.
    #[arg(long, default_value = "")]
    disable: String,
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    process::raise_fd_limit()?;
    let disable = match cli.disable.as_str() {
        "" => Mechanisms::NONE,
        list => list.parse().map_err(io::Error::other)?,
    };
    let options = ListenOptions { backlog: 4096, ..ListenOptions::default() };
    let fd = Mutex::new(Some(socket::listen(&ConnectAddr::Inet(cli.address), options)?));
    let open = move |pool: Pool, stats| {
        let opened = open(cli.driver, disable, &pool, &stats);
        opened.map(|opened| opened.driver).map_err(|error| io::Error::other(error.to_string()))
    };
    let spec = LaunchSpec {
        cores: 1,
        pin: false,
        pool: PoolSpec::default(),
        core: CoreSpec::default(),
        open: Arc::new(open),
    };
    let launched = launch(spec, move |context| {
        let fd = fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        serve(context, fd, cli.work)
    })?;
    for end in launched.join() {
        end.result?;
    }
    Ok(())
}

async fn serve(context: CoreContext, fd: Option<std::os::fd::OwnedFd>, work: Work) -> io::Result<()> {
    let Some(fd) = fd else { return Ok(()) };
    let runtime = Native::new(context.core.clone());
    let mut listener = runtime.adopt_listener(ListenSock::from_fd(&context.core, fd)?);
    loop {
        let stream = poll_fn(|cx| listener.poll_accept(cx)).await?;
        match work {
            Work::Echo => runtime.spawn(echo(Stream::new(&runtime, stream))),
            Work::Hello => runtime.spawn(hello(runtime.clone(), stream)),
            Work::Proxy => return Err(io::Error::other("ringport's proxy is the ringport binary")),
        }
    }
}

async fn echo(mut stream: Stream<NativeStream>) {
    while let Ok(Some(buf)) = stream.recv().await {
        if stream.send(buf).await.is_err() {
            return;
        }
    }
}

/// As a server would be written: an idle deadline that every request moves, answers in order, back-pressure.
async fn hello(runtime: Native, stream: NativeStream) {
    let mut client = ServerStream::new(&runtime, stream, Limits::default());
    let mut timer = runtime.timer(runtime.now() + IDLE);
    loop {
        timer.reset(runtime.now() + IDLE);
        let event = poll_fn(|cx| match client.poll_event(cx) {
            std::task::Poll::Ready(event) => std::task::Poll::Ready(Some(event)),
            std::task::Poll::Pending => ringport::runtime::Timer::poll_elapsed(&mut timer, cx).map(|()| None),
        });
        let answered = match event.await {
            Some(Ok(ServerEvent::Head(..))) => {
                client.respond(StatusCode::OK, [("content-type", b"text/plain".as_slice())], HELLO)
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => return,
        };
        let sent = poll_fn(|cx| client.poll_sent(cx, TxLevel::Below(1 << 18))).await;
        if answered.is_err() || sent.is_err() || client.conn().wants_close() {
            return;
        }
    }
}

const IDLE: Duration = Duration::from_secs(75);
