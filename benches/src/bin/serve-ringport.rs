//! ringport's echo and HTTP/1.1 hello on one core, through the library's public API.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use clap::Parser;
use http::StatusCode;
use ringport::http::ServerStream;
use ringport::net::Stream;
use ringport::proto::http1::{FieldBlock, Limits, ServerEvent};
use ringport::runtime::native::{Native, NativeStream};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, Runtime, Timer};
use ringport_benches::cost::thread_time;
use ringport_benches::serve::{HELLO, Work};
use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::core::{Core, CoreSpec, ListenSock};
use ringport_platform::driver::{DriverChoice, Mechanism, Mechanisms, open};
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
    /// What is behind a relay.
    #[arg(long)]
    origin: Option<SocketAddr>,
    /// How many deadlines wait.
    #[arg(long, default_value_t = 1_000_000)]
    pending: usize,
    /// auto, uring or epoll.
    #[arg(long, default_value = "auto")]
    driver: DriverChoice,
    /// Mechanisms to do without; `splice` makes a relay copy.
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
    let mut core = CoreSpec::default();
    if disable.contains(Mechanism::Splice) {
        core.max_pipes = 0;
    }
    let spec = LaunchSpec { cores: 1, pin: false, pool: PoolSpec::default(), core, open: Arc::new(open) };
    let launched = launch(spec, move |context| {
        let fd = fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        serve(context, fd, What { work: cli.work, origin: cli.origin, pending: cli.pending })
    })?;
    for end in launched.join() {
        end.result?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct What {
    work: Work,
    origin: Option<SocketAddr>,
    pending: usize,
}

async fn serve(context: CoreContext, fd: Option<std::os::fd::OwnedFd>, what: What) -> io::Result<()> {
    if what.work == Work::Timers {
        timers(&context.core, what.pending).await;
        return Ok(());
    }
    let Some(fd) = fd else { return Ok(()) };
    let runtime = Native::new(context.core.clone());
    let mut listener = runtime.adopt_listener(ListenSock::from_fd(&context.core, fd)?);
    loop {
        let stream = poll_fn(|cx| listener.poll_accept(cx)).await?;
        match what.work {
            Work::Echo => runtime.spawn(echo(Stream::new(&runtime, stream))),
            Work::Hello => runtime.spawn(hello(runtime.clone(), stream)),
            Work::Relay => {
                let origin = what.origin.ok_or_else(|| io::Error::other("a relay needs --origin"))?;
                runtime.spawn(relay(runtime.clone(), stream, origin));
            }
            Work::Timers | Work::Proxy => {
                return Err(io::Error::other("ringport's proxy is the ringport binary"));
            }
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

/// The library's relay. An end is passed on, and an error ends both.
async fn relay(runtime: Native, client: NativeStream, origin: SocketAddr) {
    let Ok(mut origin) = ringport::net::connect(&runtime, &ConnectAddr::Inet(origin)).await else { return };
    let mut client = Stream::new(&runtime, client);
    // Who failed is of no interest: both are closed.
    let _ = ringport::net::relay(&mut client, &mut origin).await;
}

/// Makes the deadlines, moves each in turn as a request on its connection would, drops them, and prints what that took.
async fn timers(core: &Core, pending: usize) {
    let start = thread_time();
    let mut sleeps: Vec<_> =
        (0..pending).map(|at| core.sleep(IDLE - Duration::from_micros(at as u64))).collect();
    let waiting = poll_fn(|cx| {
        let waiting = sleeps.iter_mut().filter_map(|sleep| sleep.poll_elapsed(cx).is_pending().then_some(()));
        Poll::Ready(waiting.count())
    });
    assert_eq!(waiting.await, pending, "no deadline has passed yet");
    let made = thread_time();
    for sleep in &mut sleeps {
        sleep.reset(core.now() + IDLE);
    }
    let moved = thread_time();
    drop(sleeps);
    let dropped = thread_time();
    for span in [moved - made, made - start, dropped - moved] {
        ringport_benches::tell(format_args!("{:.2}", span.as_nanos() as f64 / pending as f64));
    }
}

/// As a server would be written: an idle deadline that each wait for a request moves, answers in order, those to requests
/// that came together sent together, back-pressure.
async fn hello(runtime: Native, stream: NativeStream) {
    let mut client = ServerStream::new(&runtime, stream, Limits::default());
    let mut timer = runtime.timer(runtime.now() + IDLE);
    let mut fields = FieldBlock::default();
    fields.fill(|out| out.put("content-type", b"text/plain")).expect("visible ASCII");
    loop {
        let event = poll_fn(|cx| match client.poll_event(cx) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => {
                timer.reset(runtime.now() + IDLE);
                Timer::poll_elapsed(&mut timer, cx).map(|()| None)
            }
        });
        let answered = match event.await {
            Some(Ok(ServerEvent::Head(..))) => {
                client.conn().take_end();
                client.respond_with(StatusCode::OK, HELLO, |out| {
                    out.put_block(&fields);
                    Ok(())
                })
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => return,
        };
        if answered.is_err() || client.conn().wants_close() {
            // What an earlier send met is of no interest any more.
            let _ = client.start_send();
            return;
        }
        if poll_fn(|cx| client.poll_room(cx, MAX_UNSENT)).await.is_err() {
            return;
        }
    }
}

/// Unsent bytes above which no more requests are read.
const MAX_UNSENT: usize = 1 << 18;
const IDLE: Duration = Duration::from_secs(75);
