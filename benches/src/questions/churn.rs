//! What does a connection cost that serves one request?

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::{Domain, SockRef, Socket, Type};

use crate::bench;
use crate::cost::{LoadTime, SyscallWatch, Watch};
use crate::cpu;
use crate::load::{Kind, REQUEST, answer_len};
use crate::pace::{Effort, Pace};
use crate::peers::{self, Peer, Server};
use crate::results::{Context, Report, Round, Row};
use crate::ring::Sample;
use crate::stop;

const OPEN: usize = 64;

/// Asks it.
///
/// # Errors
/// What hindered all of it.
pub(crate) fn ask(pace: Pace) -> io::Result<Report> {
    let (server_cpu, load_cpu) = cpu::pair()?;
    ringport_platform::process::raise_fd_limit()?;
    let context = Context::here(pace.quick, false);
    cpu::pin(load_cpu)?;
    let mut runners: Vec<Runner> =
        peers::of(Kind::Hello).iter().map(|peer| Runner::start(peer, server_cpu)).collect();
    runners.iter_mut().for_each(|runner| runner.attempt(|churner, row| churner.warm_up(pace.slice / 2, row)));
    for _ in 0..pace.rounds {
        runners.iter_mut().for_each(|runner| runner.attempt(|churner, row| churner.round(pace.slice, row)));
    }
    let rows: Vec<Row> = runners.into_iter().map(Runner::into_row).collect();
    crate::tell(format_args!("churn: {CONFIG}"));
    rows.iter().for_each(bench::print);
    let about = "Connect from 127.0.0.2 to 127.0.0.20, one GET, its answer, close by RST: of the hello servers. Latency is \
                 from before the connect to the end of the answer. The client makes plain blocking calls, and the kernel \
                 does its half of a connect on the client's core: a server's core is seldom full here.";
    Ok(Report { question: "churn".to_owned(), about: about.to_owned(), context, rows, notes: Vec::new() })
}

/// What that takes.
pub(crate) fn effort(_: Pace) -> Effort {
    let peers = peers::of(Kind::Hello).len();
    Effort { once: peers as f64, each_round: peers as f64, fixed: Duration::from_millis(100) * peers as u32 }
}

const CONFIG: &str = "64 connections at a time, one request on each";

struct Runner {
    row: Row,
    churner: Option<Churner>,
}

impl Runner {
    fn start(peer: &Peer, server_cpu: usize) -> Runner {
        let mut row = Row::new(CONFIG, &peer.name);
        let churner =
            Churner::start(peer, server_cpu).map_err(|error| row.failed = Some(error.to_string())).ok();
        Runner { row, churner }
    }

    fn into_row(self) -> Row {
        match self.row.rounds.is_empty() && self.row.failed.is_none() {
            true => Row::unreached(CONFIG, &self.row.peer),
            false => self.row,
        }
    }

    /// A peer that fails is left out from then on.
    fn attempt(&mut self, what: impl FnOnce(&mut Churner, &mut Row) -> io::Result<()>) {
        let Some(churner) = self.churner.as_mut().filter(|_| !stop::asked()) else { return };
        if let Err(error) = what(churner, &mut self.row) {
            self.row.failed = Some(error.to_string());
            self.churner = None;
        }
    }
}

/// Opens connections to a server, always so many at a time, and closes the oldest when it has been answered.
struct Churner {
    server: Server,
    watch: Watch,
    open: VecDeque<(TcpStream, Instant)>,
    made: usize,
    answer_len: usize,
}

impl Churner {
    fn start(peer: &Peer, server_cpu: usize) -> io::Result<Churner> {
        let server = peer.start_on(server_cpu, None)?;
        let watch = Watch::new(server.pid())?;
        let mut churner = Churner { server, watch, open: VecDeque::new(), made: 0, answer_len: 0 };
        churner.learn()?;
        Ok(churner)
    }

    fn learn(&mut self) -> io::Result<()> {
        let mut stream = self.connect()?;
        let mut answer = Vec::new();
        let mut buf = [0; 4096];
        while self.answer_len == 0 || answer.len() < self.answer_len {
            match stream.read(&mut buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => answer.extend_from_slice(&buf[..len]),
            }
            self.answer_len = answer_len(&answer)?.unwrap_or(0);
        }
        Ok(())
    }

    /// Many addresses, so that no port is used twice within a short time; a socket that lingers for no time resets.
    fn connect(&mut self) -> io::Result<TcpStream> {
        let from = Ipv4Addr::new(127, 0, 0, 2 + (self.made % 19) as u8);
        self.made += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&self.server.address.into())?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(REQUEST)?;
        Ok(stream)
    }

    fn run(&mut self, duration: Duration) -> io::Result<Sample> {
        let started = Instant::now();
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        let mut sample = Sample { requests: 0, elapsed: Duration::ZERO, latency };
        loop {
            let ending = started.elapsed() >= duration;
            while !ending && self.open.len() < OPEN {
                let since = Instant::now();
                let stream = self.connect()?;
                self.open.push_back((stream, since));
            }
            let Some((mut stream, since)) = self.open.pop_front() else { break };
            let mut missing = self.answer_len;
            let mut buf = [0; 4096];
            while missing > 0 {
                let len = stream.read(&mut buf)?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                missing = missing.saturating_sub(len);
            }
            sample.requests += 1;
            sample.latency.saturating_record(since.elapsed().as_nanos() as u64);
        }
        sample.elapsed = started.elapsed();
        Ok(sample)
    }

    fn warm_up(&mut self, slice: Duration, row: &mut Row) -> io::Result<()> {
        self.run(slice)?;
        let watch = SyscallWatch::new(self.server.pid());
        let sample = self.run(slice)?;
        row.syscalls = watch.map(|watch| watch.count() as f64 / sample.requests as f64);
        Ok(())
    }

    fn round(&mut self, slice: Duration, row: &mut Row) -> io::Result<()> {
        let (before, load) = (self.watch.look()?, LoadTime::so_far());
        let sample = self.run(slice)?;
        let load = LoadTime::since(load);
        row.rounds.push(Round::of(&sample, self.watch.look()?.since(before), load));
        Ok(())
    }
}
