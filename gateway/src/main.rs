//! The `ringport` binary: a reverse proxy, a load generator, a netcat for specs, and a look at what this machine supports.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod demo;
mod dial;
mod listen;
mod probe;
mod proxy;
mod stdio;

use std::env::VarError;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringport::spec::{self, Fault, ProxySpec};
use ringport_platform::driver::{DriverChoice, DriverKind, Mechanisms};
use ringport_platform::stdio::is_reader_gone;
use tracing_subscriber::EnvFilter;

/// A completion-based reverse proxy on io_uring and epoll.
///
/// Without a command it serves a demo: an origin of its own and the proxy before it on 127.0.0.1:8080 and, with TLS, 8443.
#[derive(Parser)]
#[command(name = "ringport", version, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Put a server under load and measure its answers, or compare this machine's drivers.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check configs and start nothing: print every fault, or the configs with all defaults filled in.
    Check(check::Check),
    /// Connect as a spec says, and pass standard input and output on: a netcat to try a spec with.
    Dial(dial::Dial),
    /// Listen as a spec says, and join the first connection to standard input and output, or answer all: a netcat to try a
    /// spec with.
    Listen(listen::Listen),
    /// Serve as a reverse proxy.
    Proxy {
        /// The config: YAML, JSON, TOML or protobuf by its ending. See `ringport check`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print what this kernel and machine support, and which driver would be taken.
    Probe {
        /// Every socket option instead: what it takes and where, and whether it works here.
        #[arg(long)]
        sockopts: bool,
        /// As JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

const ENVIRONMENT: &str = "\
Environment:
  RINGPORT_DRIVER=auto|uring|epoll|iocp
                                     which driver; wins over the config, never falls back when forced: Linux has uring
                                     and epoll, Windows iocp
  RINGPORT_DISABLE=LIST              mechanisms to do without: credit,defer,inc,multishot,silent of io_uring, and splice
  RUST_LOG=info|debug|..             what is logged to standard error

Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP loads the config anew, whole or not at all, and opens the
access log anew; SIGUSR1 does the latter alone. On Windows Ctrl-C and Ctrl-Break drain, a second one ends at once; nothing
there stands for SIGHUP and SIGUSR1: a changed config is taken by a restart.

Exit codes: 0 ended in order, 1 requests were cut or failed, or a core failed, 2 a fault in the command, the config or the
environment; of `dial` and `listen` see their help.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbose = matches!(&cli.command, Some(Command::Dial(dial)) if dial.verbose);
    let filter = if verbose { dial::TRACE } else { "info" };
    match start_log(filter).map_err(Failure::from).and_then(|()| run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.tell();
            ExitCode::from(2)
        }
    }
}

/// Why the command did not do what it was asked to.
enum Failure {
    /// In one sentence.
    Sentence(String),
    /// All that is wrong with a config.
    Faults(Vec<Fault>),
}

impl Failure {
    /// On standard error.
    fn tell(&self) {
        match self {
            Failure::Sentence(sentence) => complain(format_args!("ringport: {sentence}")),
            // Each begins with its file and line, for editors to find.
            Failure::Faults(faults) => faults.iter().for_each(|fault| complain(format_args!("{fault}"))),
        }
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Failure::Sentence(sentence)
    }
}

/// Logs what `RUST_LOG` says, or the default.
fn start_log(default: &str) -> Result<(), String> {
    let wanted = variable("RUST_LOG")?.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| format!("RUST_LOG: {wanted:?}: {error}"))?;
    let color = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color).with_writer(std::io::stderr).init();
    Ok(())
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let (asked, disable) = driver_settings()?;
    let settings = proxy::DriverSettings { choice: asked.unwrap_or_default(), disable };
    match cli.command {
        None => Ok(demo::run(settings)?),
        Some(Command::Bench(bench)) => Ok(bench::run(bench, settings)?),
        Some(Command::Check(check)) => Ok(check::run(&check)?),
        Some(Command::Dial(dial)) => dial::run(&dial, settings),
        Some(Command::Listen(listen)) => listen::run(&listen, settings),
        Some(Command::Probe { json, sockopts: false }) => Ok(probe::run(json, settings)?),
        Some(Command::Probe { json, sockopts: true }) => {
            probe::sockopts(json)?;
            Ok(0)
        }
        Some(Command::Proxy { config }) => {
            let spec = check::read_proxy(&config)?;
            let choice = asked.unwrap_or_else(|| choice_of(&spec));
            let settings = proxy::DriverSettings { choice, disable };
            let running = proxy::start(spec, settings)?;
            for address in running.addresses() {
                tracing::info!("listening: {address}");
            }
            Ok(running.wait(Some(&config)))
        }
    }
}

/// Prints a line; a reader that has gone is no fault.
///
/// # Errors
/// What kept it from being written, such as a full disk: whoever asked for a report would take an empty file for one.
fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if !is_reader_gone(&error) => Err(format!("cannot write to the standard output: {error}")),
        _ => Ok(()),
    }
}

/// Prints a line on the standard error; nobody need be there to read it.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What the environment says of the driver, if anything, and of mechanisms to do without.
fn driver_settings() -> Result<(Option<DriverChoice>, Mechanisms), String> {
    let parsed = |text: String| text.parse().map_err(|error| format!("RINGPORT_DRIVER: {error}"));
    let choice = variable("RINGPORT_DRIVER")?.map(parsed).transpose()?;
    let parsed = |text: String| text.parse().map_err(|error| format!("RINGPORT_DISABLE: {error}"));
    let disable = variable("RINGPORT_DISABLE")?.map_or(Ok(Mechanisms::NONE), parsed)?;
    Ok((choice, disable))
}

fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(bytes)) => Err(format!("{name}: {} is not UTF-8", bytes.display())),
    }
}

/// What the config asks for; it is heard only where the environment is silent.
fn choice_of(spec: &ProxySpec) -> DriverChoice {
    match spec.runtime().driver {
        spec::DriverChoice::Auto => DriverChoice::Auto,
        spec::DriverChoice::Uring => DriverChoice::Only(DriverKind::Uring),
        spec::DriverChoice::Epoll => DriverChoice::Only(DriverKind::Epoll),
        spec::DriverChoice::Iocp => DriverChoice::Only(DriverKind::Iocp),
    }
}
