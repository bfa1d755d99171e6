//! Without arguments: an origin of our own and the proxy before it.

mod certificate;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use ringport::http::{ServeError, ServerStream};
use ringport::proto::http1::{Limits, RequestHead, ServerEvent};
use ringport::runtime::native::{Native, NativeStream};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, Runtime, TxLevel};
use ringport::spec::{
    Address, ListenSpec, NetAddr, OriginAddress, OriginPoolSpec, ProxySpec, RouteSpec, TlsServerSpec,
};
use ringport_platform::core::{CoreSpec, ListenSock};
use ringport_platform::driver::open;
use ringport_platform::fd::AsFd;
use ringport_platform::launch::{CoreContext, LaunchSpec, Launched, launch};
use ringport_platform::socket;

use certificate::Certificate;

use crate::proxy::{self, DriverSettings};
use crate::say;

/// Where the demo listens.
const FRONT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);
const ADMIN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8081);
/// The same over TLS.
const SECURE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8443);
/// How long a connection to the demo origin may be silent.
const IDLE: Duration = Duration::from_secs(300);

/// Serves the demo until a signal; returns the exit code.
pub(crate) fn run(settings: DriverSettings) -> Result<u8, String> {
    let (origin, origin_addr) =
        start_origin(settings).map_err(|error| format!("cannot start the origin: {error}"))?;
    let host = OriginAddress::Host { host: origin_addr.ip().to_string(), port: origin_addr.port() };
    let certificate = Certificate::new().map_err(|error| format!("cannot make a certificate: {error}"))?;
    let secure = TlsServerSpec::builder(certificate.identity.clone())
        .build()
        .and_then(|tls| {
            ListenSpec::builder(NetAddr::of_stream(Address::Inet(SECURE.into()))).tls(tls).build()
        })
        .map_err(|errors| errors.to_string())?;
    let spec = ProxySpec::builder()
        .listener("web", Address::Inet(FRONT.into()))
        .listener_spec("secure", secure)
        .route(RouteSpec::new("demo"))
        .pool(OriginPoolSpec::new("demo", [host]))
        .admin(Address::Inet(ADMIN.into()))
        .build()
        .map_err(|errors| errors.to_string())?;
    let running = proxy::start(spec, settings)?;
    let mut lines = vec![
        format!("driver: {}", running.driver),
        format!("origin: http://{origin_addr} (a demo, in this process)"),
    ];
    lines.extend(running.addresses().iter().map(|address| format!("proxy:  {address}")));
    lines.push(format!("admin:  http://127.0.0.1:{}/metrics", ADMIN.1));
    lines.push(format!("try:    curl -i http://127.0.0.1:{}/", FRONT.1));
    let file = certificate.file().display();
    lines.push(format!("or:     curl -i --cacert {file} https://127.0.0.1:{}/", SECURE.1));
    // It serves, whether somebody reads this or not.
    let _ = say(&lines.join("\n"));
    let code = running.wait(None);
    origin.drain(Duration::from_secs(1));
    origin.join();
    Ok(code)
}

/// One core that answers every request with a short text.
fn start_origin(settings: DriverSettings) -> io::Result<(Launched, SocketAddr)> {
    let any = ConnectAddr::Inet((Ipv4Addr::LOCALHOST, 0).into());
    let fd = socket::listen(&any, ListenOptions::default())?;
    let LocalAddr::Inet(addr) = socket::local_addr(fd.as_fd())? else {
        return Err(io::Error::other("a TCP socket without an address"));
    };
    let open = move |pool: ringport_platform::buf::Pool, stats| {
        let opened = open(settings.choice, settings.disable, &pool, &stats);
        opened.map(|opened| opened.driver).map_err(|error| io::Error::other(error.to_string()))
    };
    let spec = LaunchSpec {
        cores: 1,
        pin: false,
        pool: ringport_platform::buf::PoolSpec::default(),
        core: CoreSpec::default(),
        open: Arc::new(open),
    };
    let fd = Mutex::new(Some(fd));
    let launched = launch(spec, move |context| {
        let fd = fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        serve(context, fd)
    })?;
    Ok((launched, addr))
}

async fn serve(context: CoreContext, fd: Option<ringport_platform::fd::OwnedFd>) -> io::Result<()> {
    let Some(fd) = fd else { return Ok(()) };
    let runtime = Native::new(context.core.clone());
    let mut listener = runtime.adopt_listener(ListenSock::from_fd(&context.core, fd)?);
    let mut drain = std::pin::pin!(context.drain.wait());
    loop {
        let accepted = poll_fn(|cx| match drain.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => listener.poll_accept(cx).map(Some),
        });
        match accepted.await {
            Some(Ok(stream)) => runtime.spawn(answer_all(runtime.clone(), stream)),
            Some(Err(error)) => tracing::warn!(%error, "the demo origin could not take a connection"),
            None => return Ok(()),
        }
    }
}

async fn answer_all(runtime: Native, stream: NativeStream) {
    let mut client = ServerStream::new(&runtime, stream, Limits::default());
    let mut timer = runtime.timer(runtime.now() + IDLE);
    loop {
        timer.reset(runtime.now() + IDLE);
        let event = poll_fn(|cx| match client.poll_event(cx) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => timer.poll_elapsed(cx).map(|()| None),
        });
        let answered = match event.await {
            Some(Ok(ServerEvent::Head(head, _))) => answer(&mut client, &head),
            Some(Ok(ServerEvent::Data(_) | ServerEvent::Trailers(_) | ServerEvent::End)) => Ok(()),
            Some(Err(ServeError::Protocol(error))) if client.conn().can_respond() => {
                // The connection ends here, whether this reaches the peer or not.
                let _ = client.respond(error.status(), [], error.reason().as_bytes().to_vec());
                let _ = client.start_send();
                return;
            }
            // The client has gone, broke off, or was silent for too long.
            _ => return,
        };
        let sent = poll_fn(|cx| client.poll_sent(cx, TxLevel::Below(1 << 18))).await;
        if answered.is_err() || sent.is_err() || client.conn().wants_close() {
            return;
        }
    }
}

fn answer(
    client: &mut ServerStream<NativeStream>,
    head: &RequestHead,
) -> Result<(), ringport::proto::http1::SendError> {
    let fields: [(&str, &[u8]); 1] = [("content-type", b"text/plain; charset=utf-8")];
    if head.path() == "/" {
        return client.respond(StatusCode::OK, fields, &b"Hello, world!"[..]);
    }
    let body = format!("{} {}\n", head.method(), head.target());
    client.respond(StatusCode::OK, fields, body.into_bytes())
}
