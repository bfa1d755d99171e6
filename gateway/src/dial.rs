//! `ringport dial`: a connection as a spec says, between standard input and standard output.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use ringport::net::tls::{HandshakeError, TlsDialError, TlsDialer};
use ringport::net::{DialErrorKind, PacketError, Phase};
use ringport::runtime::OpenError;
use ringport::runtime::native::NativeSpec;
use ringport::spec::{
    Address, DialSpec, Issuers, NetAddr, Network, OriginAddress, Pem, ProxyProtocolOut, Spec, SpecKind,
    TlsClientSpec,
};

use crate::bench::positive_duration;
use crate::proxy::DriverSettings;
use crate::stdio::{converse, converse_in_packets};
use crate::{Failure, check};

/// What is dialled, and how.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Dial {
    /// HOST:PORT, or with a network tcp://, tcp4:// or tcp6://HOST:PORT, unix:///PATH, unix://@NAME, or
    /// unixpacket:///PATH, where each read of standard input is a packet; tls://HOST:PORT is TCP with TLS.
    #[arg(value_name = "TARGET", value_parser = target)]
    target: Target,
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
    /// Trust only the issuers of this PEM file, instead of the spec's and the system's. For tls:// or a spec with TLS, as the two
    /// below are.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name, or address, that the server has to prove, instead of the target's host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Do not look at the server's certificate: anybody may answer.
    #[arg(long)]
    insecure: bool,
    /// Tell each phase with its time on standard error.
    #[arg(short, long)]
    pub verbose: bool,
}

const EXIT_CODES: &str = "\
Standard input is sent, and its end told to the peer; what comes is written to standard output, until the peer ends.

Exit codes: 0 the peer ended in order, 1 the connection broke, 2 a fault in the command, the spec or the environment;
the dial failed: 3 the name gave no address, 4 refused, 5 unreachable, 6 timed out, 7 a socket option was refused,
8 the local address is not to be had, 9 something else, 10 TLS failed,
11 this machine forbids it.";

/// What is dialled, and whether TLS is spoken there whatever the spec says.
#[derive(Clone, Debug)]
struct Target {
    addr: NetAddr<OriginAddress>,
    is_tls: bool,
}

/// What is logged besides for `--verbose`.
pub(crate) const TRACE: &str =
    "info,ringport::net::dial=debug,ringport::net::resolve=debug,ringport::net::tls=debug";

/// Dials and passes bytes on; returns the exit code.
pub(crate) fn run(dial: &Dial, settings: DriverSettings) -> Result<u8, Failure> {
    let spec = spec(dial)?;
    let native = NativeSpec { driver: settings.choice, disable: settings.disable, ..NativeSpec::default() };
    let ended = native.block_on(async |runtime| {
        let dialer = TlsDialer::from_spec(&spec, &runtime).map_err(|errors| errors.to_string())?;
        let target = &dial.target.addr;
        if spec.replaced(target).network() == Network::UnixPacket {
            return match dialer.dial_packets(target).await {
                Ok(socket) => Ok(converse_in_packets(socket).await),
                Err(error) => {
                    crate::complain(format_args!("ringport: cannot dial {target}: {error}"));
                    Ok(code_of_packets(&error))
                }
            };
        }
        let mut stream = match dialer.dial(target).await {
            Ok(stream) => stream,
            Err(error) => {
                crate::complain(format_args!("ringport: {error}"));
                return Ok(code_of(&error));
            }
        };
        if dial.verbose
            && let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr())
        {
            tracing::info!("dial: from {local} to {peer}");
        }
        if dial.verbose
            && let Some(info) = stream.transport().tls()
        {
            let alpn = String::from_utf8_lossy(info.alpn.unwrap_or_default()).into_owned();
            tracing::info!("dial: {:?}, {:?}, {:?}, ALPN {alpn:?}", info.version, info.suite, info.kind);
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
            other @ (Spec::Listen(_) | Spec::Packet(_) | Spec::Proxy(_) | Spec::HttpServer(_)) => {
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
    let spec = builder.build().map_err(|errors| Failure::Faults(errors.into_faults()))?;
    with_tls(spec, dial)
}

/// With TLS where the target or the spec asks for it, and what the command says of it.
fn with_tls(spec: DialSpec, dial: &Dial) -> Result<DialSpec, Failure> {
    let tls = match spec.tls() {
        Some(tls) => tls.clone(),
        None if dial.target.is_tls => TlsClientSpec::default(),
        None if dial.ca.is_some() || dial.server_name.is_some() || dial.insecure => {
            let sentence = "--ca, --server-name and --insecure are for tls:// or a spec with tlsConfig";
            return Err(Failure::Sentence(sentence.to_owned()));
        }
        None => return Ok(spec),
    };
    let mut builder = tls.into_builder();
    if let Some(ca) = &dial.ca {
        builder = builder.roots(Issuers { system: false, own: vec![Pem::File(ca.clone())] });
    }
    if let Some(name) = &dial.server_name {
        builder = builder.server_name(name);
    }
    if dial.insecure {
        builder = builder.dangerously_unverified();
    }
    let faults = |errors: ringport::spec::SpecErrors| Failure::Faults(errors.into_faults());
    let tls = builder.build().map_err(faults)?;
    spec.into_builder().tls(tls).build().map_err(faults)
}

fn code_of(error: &TlsDialError) -> u8 {
    let kind = match error {
        TlsDialError::Dial(error) => error.kind(),
        TlsDialError::Handshake { error: HandshakeError::TimedOut, .. } => {
            &DialErrorKind::TimedOut(Phase::Connect)
        }
        TlsDialError::NoServerName(_) => return 2,
        _ => return 10,
    };
    match kind {
        DialErrorKind::NotAStream => 2,
        DialErrorKind::Resolve(_) => 3,
        DialErrorKind::Refused => 4,
        DialErrorKind::Unreachable => 5,
        DialErrorKind::Forbidden => 11,
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

fn target(text: &str) -> Result<Target, String> {
    let (text, is_tls) = match text.strip_prefix("tls://") {
        Some(rest) => (format!("{}://{rest}", Network::Tcp), true),
        None => (with_network(text), false),
    };
    Ok(Target { addr: text.parse()?, is_tls })
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
