//! `ringport listen`: a listener as a spec says, before standard input and output, or before an echo.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringport::net::tls::{Link, TlsListenPart, TlsListener};
use ringport::net::{AcceptError, Bounded, ListenHandle, PacketListener, Stream};
use ringport::runtime::Runtime;
use ringport::runtime::native::{CoreSpec, Native, NativeSpec};
use ringport::spec::{
    Identity, LimitPolicy, ListenSpec, PeerRange, ProxyProtocol, Spec, SpecErrors, SpecKind, TlsServerSpec,
    raw,
};
use ringport_platform::process;
use ringport_platform::signal::Signals;
use ringport_platform::sockopt::Kind;

use crate::bench::positive_duration;
use crate::proxy::DriverSettings;
use crate::stdio::{MAX_PACKET, converse, converse_in_packets};
use crate::{Failure, check};

/// What is listened on, and for whom.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Listen {
    /// HOST:PORT or :PORT, where port 0 is any; or with a network tcp://, tcp4://, tcp6://, unix:///PATH, unix://@NAME,
    /// unixpacket:///PATH; tls://HOST:PORT is TCP with TLS, and needs --cert and --key.
    #[arg(value_name = "ADDRESS", required_unless_present = "spec", conflicts_with = "spec")]
    address: Option<String>,
    /// How to listen, and where: a listen spec in YAML, JSON, TOML or protobuf by its ending. See `ringport check --as listen`.
    /// The options below win over it.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Take one connection after the other, and answer each by itself: send back what comes, or throw it away.
    #[arg(long, value_name = "MODE")]
    keep_open: Option<Answer>,
    /// Let in only these clients: CIDR, CIDR:PORT or CIDR:FROM-TO. May be repeated.
    #[arg(long, value_name = "RANGE")]
    allow: Vec<PeerRange>,
    /// Keep these clients out. May be repeated; the longest prefix decides.
    #[arg(long, value_name = "RANGE")]
    deny: Vec<PeerRange>,
    /// As many connections at a time.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=MAX_CONNECTIONS))]
    limit: Option<u32>,
    /// As many connections at a time from one address; more are closed at once.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=MAX_CONNECTIONS))]
    limit_per_address: Option<u32>,
    /// Close connections beyond --limit, or the spec's, at once; without it they wait.
    #[arg(long)]
    reject: bool,
    /// How long one receive may wait: 500ms, 10s.
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    read_deadline: Option<Duration>,
    /// How long one send may wait.
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    write_deadline: Option<Duration>,
    /// How long a connection may live.
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    connection_deadline: Option<Duration>,
    /// For tls://: a PEM file with the certificate and what leads from it to a root.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// For tls://: a PEM file with its key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Connections from these proxies begin with a PROXY header; others are refused. May be repeated.
    #[arg(long, value_name = "RANGE")]
    proxy_protocol: Vec<PeerRange>,
}

/// What a connection of `--keep-open` is answered with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Answer {
    Echo,
    Discard,
}

const EXIT_CODES: &str = "\
The address is told on standard error, with the port that was chosen. The first connection is joined to standard input and
output, and nobody else is taken then. SIGTERM and SIGINT end it; the file of a Unix socket is removed.

Exit codes: 0 the peer ended in order, or a signal came; 1 the connection broke, or a signal came meanwhile; 2 a fault in
the command, the spec or the environment, or nothing can listen there.";

/// Listens and serves; returns the exit code.
pub(crate) fn run(listen: &Listen, settings: DriverSettings) -> Result<u8, Failure> {
    let spec = spec(listen)?;
    if let Err(error) = process::raise_fd_limit() {
        tracing::warn!(%error, "the limit on descriptors stays as it is");
    }
    let signals = Signals::install().map_err(|error| format!("signals: {error}"))?;
    let mut parts = TlsListenPart::open(&spec, 1).map_err(|error| error.to_string())?;
    let part = parts.pop().expect("a part for each core");
    let joined = Arc::new(AtomicBool::new(false));
    close_on_signal(signals, part.handle(), joined.clone());
    crate::complain(format_args!("listening: {}", part.local_addr()));
    // After a signal nobody waits long for a client that takes nothing.
    let core = CoreSpec { linger: LINGER, ..CoreSpec::default() };
    let native =
        NativeSpec { driver: settings.choice, disable: settings.disable, core, ..NativeSpec::default() };
    let is_of_packets = spec.target().is_some_and(|target| target.kind == Kind::Seqpacket);
    let ended = native.block_on(async |runtime| {
        if is_of_packets {
            let listener =
                PacketListener::new(part.into_plain(), &runtime).map_err(|error| error.to_string())?;
            return Ok(match listen.keep_open {
                None => first_in_packets(listener, &joined).await,
                Some(answer) => serve_packets(&runtime, listener, answer).await,
            });
        }
        let listener = TlsListener::new(part, &runtime).map_err(|error| error.to_string())?;
        match listen.keep_open {
            None => Ok(first(listener, &joined).await),
            Some(answer) => {
                serve(&runtime, listener, answer).await;
                Ok::<u8, String>(0)
            }
        }
    });
    Ok(ended.map_err(|error| error.to_string())??)
}

/// The spec of the file, or of the address, with what the command says beside it.
fn spec(listen: &Listen) -> Result<ListenSpec, Failure> {
    let faults = |errors: SpecErrors| Failure::Faults(errors.into_faults());
    let spec = match &listen.spec {
        None => {
            let text = listen.address.as_deref().unwrap_or_default();
            let (addr, is_tls) = match text.strip_prefix("tls://") {
                Some(rest) => (format!("tcp://{rest}"), true),
                None => (text.to_owned(), false),
            };
            let raw = raw::ListenConfig { addr: Some(addr), ..raw::ListenConfig::default() };
            let spec = ListenSpec::try_from(&raw).map_err(faults)?;
            with_tls(spec, listen, is_tls)?
        }
        Some(_) if listen.cert.is_some() => {
            return Err(Failure::Sentence("--cert and --key are for tls://, not for a spec".to_owned()));
        }
        Some(path) => match check::read_as(path, SpecKind::Listen)? {
            Spec::Listen(spec) => *spec,
            other @ (Spec::Dial(_) | Spec::Packet(_) | Spec::Proxy(_) | Spec::HttpServer(_)) => {
                let sentence =
                    format!("{} holds a {} spec, none of a listener", path.display(), other.kind());
                return Err(Failure::Sentence(sentence));
            }
        },
    };
    let (mut peers, mut limits, mut deadlines) = (spec.peers().clone(), spec.limits(), spec.deadlines());
    peers.allowed.extend(listen.allow.iter().cloned());
    peers.denied.extend(listen.deny.iter().cloned());
    limits.total = listen.limit.or(limits.total);
    limits.per_address = listen.limit_per_address.or(limits.per_address);
    if listen.reject {
        if limits.total.is_none() {
            return Err(Failure::Sentence("--reject has no limit to hold: add --limit COUNT".to_owned()));
        }
        limits.policy = LimitPolicy::Reject;
    }
    deadlines.read = listen.read_deadline.or(deadlines.read);
    deadlines.write = listen.write_deadline.or(deadlines.write);
    deadlines.connection = listen.connection_deadline.or(deadlines.connection);
    let mut builder = spec.into_builder().peers(peers).limits(limits).deadlines(deadlines);
    if !listen.proxy_protocol.is_empty() {
        builder = builder.proxy_protocol(ProxyProtocol::new(listen.proxy_protocol.iter().cloned()));
    }
    builder.build().map_err(faults)
}

/// With TLS, where the address asks for it.
fn with_tls(spec: ListenSpec, listen: &Listen, is_tls: bool) -> Result<ListenSpec, Failure> {
    let pair = listen.cert.as_ref().zip(listen.key.as_ref());
    let (cert, key) = match (is_tls, pair) {
        (false, None) => return Ok(spec),
        (true, Some(pair)) => pair,
        (true, None) => return Err(Failure::Sentence("tls:// needs --cert and --key".to_owned())),
        (false, Some(_)) => return Err(Failure::Sentence("--cert and --key are for tls://".to_owned())),
    };
    let faults = |errors: SpecErrors| Failure::Faults(errors.into_faults());
    let tls = TlsServerSpec::builder(Identity::files(cert, key)).build().map_err(faults)?;
    spec.into_builder().tls(tls).build().map_err(faults)
}

/// Closes the listener when a signal comes. A second one, or one while a connection is joined to standard input and output,
/// ends the process.
fn close_on_signal(signals: Signals, handle: ListenHandle, joined: Arc<AtomicBool>) {
    thread::spawn(move || {
        if signals.wait(None).is_ok() {
            if joined.load(Ordering::SeqCst) {
                std::process::exit(1);
            }
            // From here on signals do what they did before.
            drop(signals);
            handle.close();
        }
    });
}

/// Joins the first connection to standard input and output; returns the exit code.
async fn first(mut listener: TlsListener<Native>, joined: &AtomicBool) -> u8 {
    let stream = loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tracing::info!("connection of {}", peer.client());
                break stream;
            }
            Err(AcceptError::Closed) => return 0,
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    };
    joined.store(true, Ordering::SeqCst);
    drop(listener);
    converse(stream).await
}

/// As [`first`], of a listener of packets.
async fn first_in_packets(mut listener: PacketListener<Native>, joined: &AtomicBool) -> u8 {
    let socket = loop {
        match listener.accept().await {
            Ok(socket) => break socket,
            Err(AcceptError::Closed) => return 0,
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    };
    joined.store(true, Ordering::SeqCst);
    drop(listener);
    converse_in_packets(socket).await
}

/// As [`serve`], of a listener of packets; returns the exit code.
async fn serve_packets(runtime: &Native, mut listener: PacketListener<Native>, answer: Answer) -> u8 {
    loop {
        match listener.accept().await {
            Ok(socket) => runtime.spawn(async move {
                socket.set_max_len(MAX_PACKET);
                while let Ok(packet) = socket.recv().await {
                    if packet.meta.is_truncated {
                        tracing::warn!("a packet was longer than {MAX_PACKET} bytes: its end is lost");
                    }
                    if let Answer::Echo = answer
                        && let Err(error) = socket.send(packet.bytes).await
                    {
                        return tracing::debug!(%error, "a connection broke");
                    }
                }
            }),
            Err(AcceptError::Closed) => return 0,
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    }
}

/// Answers connections until the listener is closed.
async fn serve(runtime: &Native, mut listener: TlsListener<Native>, answer: Answer) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tracing::debug!("connection of {}", peer.client());
                runtime.spawn(reply(stream, answer));
            }
            Err(AcceptError::Closed) => return,
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    }
}

async fn reply(mut stream: Stream<Link<Bounded<Native>>>, answer: Answer) {
    let ended = async {
        while let Some(bytes) = stream.recv().await? {
            if let Answer::Echo = answer {
                stream.send(bytes).await?;
            }
        }
        stream.shutdown().await
    };
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// What clients have to take of what waits for them, once a signal has come.
const LINGER: Duration = Duration::from_millis(300);
/// As many as a spec may say.
const MAX_CONNECTIONS: i64 = 1 << 24;
