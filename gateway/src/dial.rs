//! `ringport dial`: a connection as a spec says, between standard input and standard output.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use ringport::net::{DialError, DialErrorKind, Dialer, PacketError};
use ringport::runtime::OpenError;
use ringport::runtime::native::NativeSpec;
use ringport::spec::{Address, DialSpec, NetAddr, Network, OriginAddress, ProxyProtocolOut, Spec, SpecKind};

use crate::bench::positive_duration;
use crate::proxy::DriverSettings;
use crate::stdio::{converse, converse_in_packets};
use crate::{Failure, check};

/// What is dialled, and how.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Dial {
    /// HOST:PORT, or with a network tcp://, tcp4:// or tcp6://HOST:PORT, unix:///PATH, unix://@NAME, or
    /// unixpacket:///PATH, where each read of standard input is a packet.
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
pub(crate) const TRACE: &str = "info,ringport::net::dial=debug,ringport::net::resolve=debug";

/// Dials and passes bytes on; returns the exit code.
pub(crate) fn run(dial: &Dial, settings: DriverSettings) -> Result<u8, Failure> {
    let spec = spec(dial)?;
    let native = NativeSpec { driver: settings.choice, disable: settings.disable, ..NativeSpec::default() };
    let ended = native.block_on(async |runtime| {
        let dialer = Dialer::from_spec(&spec, &runtime);
        if spec.replaced(&dial.target).network() == Network::UnixPacket {
            return match dialer.dial_packets(&dial.target).await {
                Ok(socket) => Ok(converse_in_packets(socket).await),
                Err(error) => {
                    eprintln!("ringport: cannot dial {}: {error}", dial.target);
                    Ok(code_of_packets(&error))
                }
            };
        }
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
        Ok::<u8, String>(converse(stream).await)
    });
    Ok(ended.map_err(|error| error.to_string())??)
}

/// The spec of the file, or the default, with what the command says beside it.
fn spec(dial: &Dial) -> Result<DialSpec, Failure> {
    let mut builder = match &dial.spec {
        None => DialSpec::builder(),
        Some(path) => match check::read_as(path, SpecKind::Dial)? {
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

fn code_of_packets(error: &PacketError) -> u8 {
    match error {
        PacketError::Spec(_) | PacketError::Untimed { .. } => 2,
        PacketError::Options(_) | PacketError::Open(OpenError::Option(_) | OpenError::Faults { .. }) => 7,
        PacketError::Open(OpenError::LocalAddr { .. } | OpenError::FamilyMismatch { .. }) => 8,
        PacketError::Open(OpenError::Peer { error, .. }) => match error.kind() {
            // EAGAIN: its listener's queue is full.
            ErrorKind::ConnectionRefused | ErrorKind::WouldBlock => 4,
            ErrorKind::NotFound => 5,
            _ => 9,
        },
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
