//! What does an idle connection hold, and what does it cost the active ones?

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::cost::{LoadTime, Watch};
use crate::cpu;
use crate::load::{Kind, REQUEST};
use crate::meter::descendants;
use crate::pace::{Effort, Pace};
use crate::peers::{self, Peer, Server};
use crate::results::{Context, Report, Round, Row};
use crate::ring::{Generator, LoadSpec};
use crate::stop;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let (server_cpu, load_cpu) = cpu::pair()?;
    ringport_platform::process::raise_fd_limit()?;
    let context = Context::here(pace.quick, false);
    let (few, many) = counts(pace);
    cpu::pin(load_cpu)?;
    let mut rows = Vec::new();
    for peer in KINDS.into_iter().flat_map(peers::of) {
        let config = format!("{} with up to {many} idle connections", peer.kind);
        let mut row = Row::new(&config, &peer.name);
        match measure(&peer, server_cpu, few, many, pace) {
            Ok(extra) => row.extra = extra,
            Err(error) => row.failed = Some(error.to_string()),
        }
        crate::tell(format_args!(
            "idle: {} {:<16} {} {:?}",
            peer.kind,
            row.peer,
            row.extra_text(),
            row.failed
        ));
        rows.push(row);
    }
    let about = "Resident memory of the server for each connection that has been served once and is silent: the slope \
                 between few and many; what it reserves for all of them when it starts is not in that, but in all that is resident. Then what a \
                 request on one of 64 active connections costs beside the silent ones, and with none, in turn: what it is \
                 more comes from the rounds' ratios. Busy is the server's core, of both the less busy one.";
    Ok(Report { question: "idle".to_owned(), about: about.to_owned(), context, rows, notes: Vec::new() })
}

/// What that takes.
pub(crate) fn effort(pace: Pace) -> Effort {
    let peers: usize = KINDS.into_iter().map(|kind| peers::of(kind).len()).sum();
    let fixed = Duration::from_millis(100) + OPEN * counts(pace).1 as u32;
    Effort { once: peers as f64, each_round: 2.0 * peers as f64, fixed: fixed * peers as u32 }
}

const KINDS: [Kind; 2] = [Kind::Echo, Kind::Hello];
/// To open one connection, have it served, and close it.
const OPEN: Duration = Duration::from_micros(150);

/// Few and many.
fn counts(pace: Pace) -> (usize, usize) {
    if pace.first_only { (1_000, 4_000) } else { (2_000, 18_000) }
}

fn measure(
    peer: &Peer,
    server_cpu: usize,
    few: usize,
    many: usize,
    pace: Pace,
) -> io::Result<Vec<(String, Vec<f64>)>> {
    let mut alone = Active::start(peer, server_cpu, pace)?;
    let mut beside = Active::start(peer, server_cpu, pace)?;
    let mut idle = Vec::with_capacity(many);
    open(&mut idle, &beside, few)?;
    let with_few = resident_bytes(beside.server.pid())?;
    open(&mut idle, &beside, many)?;
    let with_many = resident_bytes(beside.server.pid())?;
    let (mut none, mut some, mut more, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pace.rounds {
        stop::check()?;
        let (without, with) = (alone.round(pace)?, beside.round(pace)?);
        none.push(without.cpu_ns);
        some.push(with.cpu_ns);
        more.push(100.0 * (with.cpu_ns / without.cpu_ns - 1.0));
        busy.push(100.0 * without.busy.min(with.busy));
    }
    Ok(vec![
        ("bytes per idle connection".to_owned(), vec![(with_many - with_few) / (many - few) as f64]),
        (format!("resident with {many}, MiB"), vec![with_many / (1 << 20) as f64]),
        ("ns per request, none idle".to_owned(), none),
        (format!("ns per request, {many} idle"), some),
        ("of it more, %".to_owned(), more),
        ("busy, %".to_owned(), busy),
    ])
}

/// A server that 64 connections ask without a pause. There are two of each peer, so that one with and one without idle
/// connections are asked in turn.
struct Active {
    /// Dropped before the server, which would otherwise be seen to close.
    generator: Generator,
    watch: Watch,
    server: Server,
    request: Vec<u8>,
}

impl Active {
    fn start(peer: &Peer, server_cpu: usize, pace: Pace) -> io::Result<Active> {
        let server = peer.start_on(server_cpu, None)?;
        let (request, answer_len) = match peer.kind {
            Kind::Echo => (vec![b'e'; 64], Some(64)),
            Kind::Hello | Kind::Proxy | Kind::Relay => (REQUEST.to_vec(), None),
        };
        let spec = LoadSpec {
            to: server.address,
            connections: 64,
            request: request.clone(),
            pipeline: 1,
            answer_len,
        };
        let mut generator = Generator::connect(spec, None)?;
        let watch = Watch::new(server.pid())?;
        generator.closed_loop(pace.slice / 2)?;
        Ok(Active { generator, watch, server, request })
    }

    fn round(&mut self, pace: Pace) -> io::Result<Round> {
        let (before, load) = (self.watch.look()?, LoadTime::so_far());
        let sample = self.generator.closed_loop(pace.slice)?;
        Ok(Round::of(&sample, self.watch.look()?.since(before), LoadTime::since(load)))
    }
}

/// Opens connections until there are `count`, spread over addresses so that ports last, and has each served once.
fn open(idle: &mut Vec<TcpStream>, server: &Active, count: usize) -> io::Result<()> {
    let mut answer = [0; 4096];
    while idle.len() < count {
        stop::check()?;
        let from = Ipv4Addr::new(127, 0, 0, 2 + (idle.len() % 16) as u8);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&server.server.address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&server.request)?;
        if stream.read(&mut answer)? == 0 {
            return Err(io::Error::other(format!("the server closes connection {}", idle.len())));
        }
        idle.push(stream);
    }
    Ok(())
}

fn resident_bytes(pid: u32) -> io::Result<f64> {
    let mut kib = 0.0;
    for pid in descendants(pid as libc::pid_t)? {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        kib += rss.unwrap_or(0.0);
    }
    Ok(kib * 1024.0)
}
