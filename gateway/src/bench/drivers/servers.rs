//! The servers that are measured: an echo and an HTTP hello, on one core.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use http::StatusCode;
use ringport::http::ServerStream;
use ringport::net::{self, Stream};
use ringport::proto::http1::{Limits, ServerEvent};
use ringport::runtime::native::{CoreSpec, Launched, Native, NativeSpec, NativeStream};
use ringport::runtime::{ListenOptions, Listener, LocalAddr, Runtime, TxLevel};
use ringport_platform::process;
use ringport_platform::stats::CoreStats;

use crate::proxy::DriverSettings;

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Sends back what comes.
    Echo,
    /// Answers every HTTP request with a short text.
    Hello,
}

impl Served {
    pub(super) const ALL: [Served; 2] = [Served::Echo, Served::Hello];

    pub(super) fn name(self) -> &'static str {
        match self {
            Served::Echo => "echo",
            Served::Hello => "hello",
        }
    }
}

/// A server that runs; dropped, it ends.
pub(super) struct Server {
    pub addr: SocketAddr,
    pub work: Served,
    launched: Option<Launched>,
    stats: Arc<CoreStats>,
}

/// What the server's core had used at an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pub at: Instant,
    pub cpu: Duration,
    pub syscalls: u64,
}

impl Server {
    /// Starts it, bound to a processor where one is given.
    pub(super) fn start(
        work: Served,
        settings: DriverSettings,
        pin: Option<usize>,
    ) -> Result<Server, String> {
        let spec = NativeSpec {
            driver: settings.choice,
            disable: settings.disable,
            core: CoreSpec { linger: Duration::from_millis(100), ..CoreSpec::default() },
            ..NativeSpec::default()
        };
        let (tell, told) = mpsc::channel();
        // The channel ends with the only core, so that a core that fails is noticed.
        let tell = Mutex::new(Some(tell));
        let launched = spec.launch(1, move |runtime, _| {
            let tell = tell.lock().unwrap_or_else(PoisonError::into_inner).take();
            serve(runtime, work, pin, tell)
        });
        let launched = launched.map_err(|error| error.to_string())?;
        let stats = launched.stats().into_iter().next().ok_or("a launch has a core")?;
        let mut server =
            Server { addr: (Ipv4Addr::LOCALHOST, 0).into(), work, launched: Some(launched), stats };
        match told.recv() {
            Ok(addr) => server.addr = addr,
            Err(_) => {
                return Err(server.stop().err().unwrap_or_else(|| "the server did not start".to_owned()));
            }
        }
        Ok(server)
    }

    pub(super) fn meter(&self) -> Result<Meter, String> {
        let (tell, told) = mpsc::channel();
        let stats = self.stats.clone();
        for remote in self.launched.iter().flat_map(Launched::remotes) {
            let (tell, stats) = (tell.clone(), stats.clone());
            remote.call(move |_| {
                let cpu = process::thread_cpu_time();
                let at = Instant::now();
                // The asker waits for it.
                let _ = tell.send(cpu.map(|cpu| Meter { at, cpu, syscalls: stats.syscalls.load() }));
            });
        }
        drop(tell);
        let answer = told.recv().map_err(|_| "the server has ended".to_owned())?;
        answer.map_err(|error| format!("cannot read the thread's time: {error}"))
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(launched) = self.launched.take() else { return Ok(()) };
        launched.drain(Duration::ZERO);
        for end in launched.join() {
            end.result.map_err(|error| format!("the server failed: {error}"))?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever drops it without a stop has an error of their own to tell.
        let _ = self.end();
    }
}

async fn serve(
    runtime: Native,
    work: Served,
    pin: Option<usize>,
    tell: Option<mpsc::Sender<SocketAddr>>,
) -> io::Result<()> {
    if let Some(core) = pin {
        process::pin_to_core(core)?;
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
    let mut listener = runtime.listen(&any, ListenOptions::default())?;
    if let (LocalAddr::Inet(addr), Some(tell)) = (listener.local_addr()?, tell) {
        // The starter waits for it.
        let _ = tell.send(addr);
    }
    loop {
        let stream = net::accept(&runtime, &mut listener).await?;
        match work {
            Served::Echo => runtime.spawn(echo(stream)),
            Served::Hello => runtime.spawn(hello(stream)),
        }
    }
}

async fn echo(mut stream: Stream<NativeStream>) {
    while let Ok(Some(bytes)) = stream.recv().await {
        if stream.send(bytes).await.is_err() {
            return;
        }
    }
}

async fn hello(stream: Stream<NativeStream>) {
    let mut client = ServerStream::over(stream, Limits::default());
    let fields: [(&str, &[u8]); 1] = [("content-type", b"text/plain")];
    while let Ok(event) = client.next_event().await {
        let answered = match event {
            ServerEvent::Head(_, _) => client.respond(StatusCode::OK, fields, &b"Hello, world!"[..]),
            ServerEvent::Data(_) | ServerEvent::Trailers(_) | ServerEvent::End => Ok(()),
            // The client has gone; the load asks for nothing else.
            _ => return,
        };
        let sent = std::future::poll_fn(|cx| client.poll_sent(cx, TxLevel::Below(1 << 18))).await;
        if answered.is_err() || sent.is_err() || client.conn().wants_close() {
            return;
        }
    }
}
