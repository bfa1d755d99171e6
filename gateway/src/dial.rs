//! `ringport dial`: a connection as a spec says, between standard input and standard output.

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ringport::net::{DialError, DialErrorKind, Dialer, ReadHalf, WriteHalf};
use ringport::runtime::Transport;
use ringport::runtime::native::NativeSpec;
use ringport::spec::{Address, DialSpec, NetAddr, Network, OriginAddress, ProxyProtocolOut, Spec, SpecKind};
use ringport_platform::blocking::{BlockingJob, BlockingPool, PoolFull};

use crate::bench::positive_duration;
use crate::proxy::DriverSettings;
use crate::{Failure, check};

/// What is dialled, and how.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Dial {
    /// HOST:PORT, or with a network tcp://, tcp4:// or tcp6://HOST:PORT, unix:///PATH, unix://@NAME.
    #[arg(value_name = "TARGET", value_parser = target)]
    target: NetAddr<OriginAddress>,
    /// How to dial: a dial spec in YAML, JSON, TOML or protobuf by its ending. See `ringport check --as dial`.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Where to connect from: IP:PORT, where port 0 is any. Wins over the spec, as the options below do.
    #[arg(long, value_name = "ADDRESS", value_parser = local)]
    local: Option<NetAddr<Address>>,
    /// For the whole dial, with the look-up of the name: 500ms, 10s.
    #[arg(long, value_parser = positive_duration)]
    timeout: Option<Duration>,
    /// One address after the other, instead of the next after 300 ms.
    #[arg(long)]
    sequential: bool,
    /// Begin with a PROXY header of our own connection.
    #[arg(long, value_name = "v1|v2", value_parser = proxy_protocol)]
    proxy_protocol: Option<ProxyProtocolOut>,
    /// Tell each phase with its time on standard error.
    #[arg(short, long)]
    pub verbose: bool,
}

const EXIT_CODES: &str = "\
Standard input is sent, and its end told to the peer; what comes is written to standard output, until the peer ends.

Exit codes: 0 the peer ended in order, 1 the connection broke, 2 a fault in the command, the spec or the environment;
the dial failed: 3 the name gave no address, 4 refused, 5 unreachable, 6 timed out, 7 a socket option was refused,
8 the local address is not to be had, 9 something else.";

/// What is logged besides for `--verbose`.
pub(crate) const TRACE: &str = "info,ringport::net::dial=debug";

/// Dials and passes bytes on; returns the exit code.
pub(crate) fn run(dial: &Dial, settings: DriverSettings) -> Result<u8, Failure> {
    let spec = spec(dial)?;
    let native = NativeSpec { driver: settings.choice, disable: settings.disable, ..NativeSpec::default() };
    let ended = native.block_on(async |runtime| {
        // Before the dial: a spec that cannot be executed is a fault of the spec.
        let dialer = Dialer::from_spec(&spec, &runtime).map_err(|error| error.to_string())?;
        let stream = match dialer.dial(&dial.target).await {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("ringport: {error}");
                return Ok(code_of(&error));
            }
        };
        if dial.verbose
            && let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr())
        {
            tracing::info!("dial: from {local} to {peer}");
        }
        let (from_peer, to_peer) = stream.split();
        let (mut sending, mut receiving) =
            (Some(Box::pin(send_input(to_peer))), pin!(write_output(from_peer)));
        let code = poll_fn(|cx| {
            if let Some(Poll::Ready(sent)) = sending.as_mut().map(|sending| sending.as_mut().poll(cx)) {
                sending = None;
                if let Err(why) = sent {
                    eprintln!("ringport: standard input: {why}");
                    return Poll::Ready(1);
                }
            }
            receiving.as_mut().poll(cx)
        });
        Ok::<u8, String>(code.await)
    });
    Ok(ended.map_err(|error| error.to_string())??)
}

/// The spec of the file, or the default, with what the command says beside it.
fn spec(dial: &Dial) -> Result<DialSpec, Failure> {
    let mut builder = match &dial.spec {
        None => DialSpec::builder(),
        Some(path) => match check::read(path, kind_of(path))? {
            Spec::Dial(spec) => spec.into_builder(),
            other @ (Spec::Listen(_) | Spec::Packet(_) | Spec::Proxy(_)) => {
                let sentence = format!("{} holds a {} spec, none of a dialer", path.display(), other.kind());
                return Err(Failure::Sentence(sentence));
            }
        },
    };
    if let Some(local) = &dial.local {
        builder = builder.local(local.clone());
    }
    if dial.timeout.is_some() {
        builder = builder.timeout(dial.timeout);
    }
    if dial.sequential {
        builder = builder.fallback_delay(None);
    }
    if let Some(version) = dial.proxy_protocol {
        builder = builder.proxy_protocol(version);
    }
    builder.build().map_err(|errors| Failure::Faults(errors.into_faults()))
}

/// A file that names what it holds is read by that; any other is a dialer's.
fn kind_of(path: &std::path::Path) -> Option<SpecKind> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names_itself = ["dialConfig", "dial_config"].iter().any(|key| text.contains(key));
    if names_itself { None } else { Some(SpecKind::Dial) }
}

/// Sends standard input, then tells the peer its end. Reading blocks, so a thread does it; there is no more in memory than
/// one read and what the stream takes.
///
/// # Errors
/// It could not be read.
async fn send_input<T: Transport>(mut to_peer: WriteHalf<T>) -> Result<(), String> {
    let reader = BlockingPool::new(1, 1);
    loop {
        let read = reader.submit(|| {
            let mut buf = vec![0; BUF_LEN];
            let count = std::io::stdin().lock().read(&mut buf)?;
            buf.truncate(count);
            std::io::Result::Ok(buf)
        });
        let buf = done(read).await?;
        let is_end = buf.is_empty();
        let sent = if is_end { to_peer.shutdown().await } else { to_peer.send(buf).await };
        // The other direction tells what a peer that has gone met.
        if is_end || sent.is_err() {
            return Ok(());
        }
    }
}

/// Writes what comes to standard output until the peer ends; returns the exit code.
async fn write_output<T: Transport>(mut from_peer: ReadHalf<T>) -> u8 {
    let writer = BlockingPool::new(1, 1);
    loop {
        let bytes = match from_peer.recv().await {
            Ok(Some(buf)) => buf.to_vec(),
            Ok(None) => return 0,
            Err(error) => {
                eprintln!("ringport: the connection broke: {error}");
                return 1;
            }
        };
        let written = writer.submit(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()
        });
        if let Err(why) = done(written).await {
            eprintln!("ringport: standard output: {why}");
            return 1;
        }
    }
}

/// What a job on another thread gave, or why not, in words.
async fn done<T>(job: Result<BlockingJob<std::io::Result<T>>, PoolFull>) -> Result<T, String> {
    let result = job.map_err(|error| error.to_string())?.await;
    result.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn code_of(error: &DialError) -> u8 {
    match error.kind() {
        DialErrorKind::NotAStream => 2,
        DialErrorKind::Resolve(_) => 3,
        DialErrorKind::Refused => 4,
        DialErrorKind::Unreachable => 5,
        DialErrorKind::TimedOut(_) => 6,
        DialErrorKind::Option => 7,
        DialErrorKind::LocalAddr => 8,
        _ => 9,
    }
}

fn target(text: &str) -> Result<NetAddr<OriginAddress>, String> {
    with_network(text).parse()
}

fn local(text: &str) -> Result<NetAddr<Address>, String> {
    with_network(text).parse()
}

fn with_network(text: &str) -> String {
    if text.contains("://") || text.starts_with("unix:") {
        return text.to_owned();
    }
    format!("{}://{text}", Network::Tcp)
}

fn proxy_protocol(text: &str) -> Result<ProxyProtocolOut, String> {
    match text {
        "v1" => Ok(ProxyProtocolOut::V1),
        "v2" => Ok(ProxyProtocolOut::V2),
        _ => Err("it is v1 or v2".to_owned()),
    }
}

/// For one read of standard input.
const BUF_LEN: usize = 64 * 1024;
