//! The load generator and the plain origin: one bare io_uring loop for both, so that a core of it can saturate a server.
//!
//! A connection is in one of three states: idle, with a round in flight, or (open loop) waited for by a round whose time
//! has come. Closed loop: a round that ends starts the next one. Open loop: rounds start at a fixed rate, and latency
//! counts from when a round should have started, which corrects for coordinated omission.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::bufs::BufRing;
use crate::load::answer_len;

/// What a generator asks for.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// The server.
    pub to: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// One round on one connection.
    pub request: Vec<u8>,
    /// How many requests a round is.
    pub pipeline: usize,
    /// The answer to a round; `None`: an HTTP answer, whose length the first one tells.
    pub answer_len: Option<usize>,
}

/// What a run did.
pub struct Sample {
    /// Requests answered.
    pub requests: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Nanoseconds from when a round started, or should have, to the end of its answer.
    pub latency: Histogram<u64>,
}

/// Connections to a server, and the origin behind it.
pub struct Generator {
    ring: IoUring,
    client_bufs: BufRing,
    origin_bufs: BufRing,
    spec: LoadSpec,
    clients: Vec<Client>,
    origin: Option<Origin>,
    idle: Vec<usize>,
    in_flight: usize,
    /// Requests that have been sent.
    asked: usize,
    answer_len: usize,
    learning: Option<Vec<u8>>,
    receive_flags: i32,
}

struct Client {
    stream: TcpStream,
    /// Of the request, once it is known that the kernel did not take it whole.
    taken: usize,
    /// Of the answer.
    missing: usize,
    since: Instant,
}

/// A plain origin: a listener whose connections answer every request with the same bytes.
pub struct Origin {
    listener: TcpListener,
    conns: Vec<Option<OriginConn>>,
    answer: Vec<u8>,
    /// Requests that have come.
    asked: usize,
}

/// One answer at a time is sent, so that what the kernel took only in part can be continued.
struct OriginConn {
    fd: OwnedFd,
    /// How many bytes of the mark that ends a head have come.
    matched: u8,
    /// Answers that have been asked for and have not been sent whole.
    owed: usize,
    /// How much of the first of them the kernel has taken.
    taken: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    ClientRecv,
    ClientSent,
    OriginAccept,
    OriginRecv,
    OriginSent,
}

const TAGS: [Tag; 5] =
    [Tag::ClientRecv, Tag::ClientSent, Tag::OriginAccept, Tag::OriginRecv, Tag::OriginSent];
const CLIENT_GROUP: u16 = 0;
const ORIGIN_GROUP: u16 = 1;
/// Bytes of the client's receive memory.
const CLIENT_BYTES: usize = 8 << 20;
/// From here on an answer is long: its client counts its bytes without copying them, so that the load's core, which
/// sends and receives them, is not the limit before the server's is; and its origin waits until the kernel has taken it.
const LONG: usize = 64 << 10;
/// What a client of long answers takes at once; the memory behind is never touched.
const LONG_BUF: usize = 256 << 10;
const LONG_BUFS: u16 = 256;
const STALL: Duration = Duration::from_secs(10);

impl Origin {
    /// Listens; answers come once a [`Generator`] has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(body_len: usize) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_len}\r\n\r\n")
                .into_bytes();
        answer.resize(answer.len() + body_len, b'x');
        Ok(Origin { listener, conns: Vec::new(), answer, asked: 0 })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Generator {
    /// Connects, and learns the length of an answer.
    ///
    /// # Errors
    /// When the server does not answer as it should.
    pub fn connect(spec: LoadSpec, origin: Option<Origin>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(16 * 1024)
            .build(2048)?;
        let long = origin.as_ref().is_some_and(|origin| origin.answer.len() >= LONG);
        let per_answer = spec.answer_len.unwrap_or(1 << 15).next_power_of_two().clamp(256, 1 << 15);
        let (count, buf_len) = match long {
            true => (LONG_BUFS, LONG_BUF),
            false => ((CLIENT_BYTES / per_answer).min(4096) as u16, per_answer),
        };
        let client_bufs = BufRing::register(&ring, CLIENT_GROUP, count, buf_len)?;
        let origin_bufs = BufRing::register(&ring, ORIGIN_GROUP, 1024, 2048)?;
        let mut clients = Vec::with_capacity(spec.connections);
        for _ in 0..spec.connections {
            clients.push(Client::connect(spec.to)?);
        }
        let mut generator = Generator {
            ring,
            client_bufs,
            origin_bufs,
            answer_len: spec.answer_len.unwrap_or(0),
            idle: (0..clients.len()).collect(),
            spec,
            clients,
            origin,
            in_flight: 0,
            asked: 0,
            learning: None,
            receive_flags: 0,
        };
        if generator.origin.is_some() {
            generator.arm_accept()?;
        }
        if generator.spec.answer_len.is_none() {
            generator.learn()?;
        }
        if long {
            // tcp(7): the bytes are discarded instead of copied.
            generator.receive_flags = libc::MSG_TRUNC;
        }
        for index in 0..generator.spec.connections {
            generator.arm_client(index)?;
        }
        Ok(generator)
    }

    /// Every connection always has a round in flight, for `duration`; then what is in flight is waited for.
    ///
    /// # Errors
    /// When the server closes, errs or stalls.
    pub fn closed_loop(&mut self, duration: Duration) -> io::Result<Sample> {
        let started = Instant::now();
        let mut sample = Sample::new();
        while let Some(index) = self.idle.pop() {
            self.start_round(index, started)?;
        }
        let until = started + duration;
        while self.in_flight > 0 {
            let ended = self.turn(STALL)?;
            let now = Instant::now();
            for index in ended {
                self.account(index, now, &mut sample);
                if now < until {
                    self.start_round(index, now)?;
                } else {
                    self.idle.push(index);
                }
            }
        }
        sample.elapsed = started.elapsed();
        Ok(sample)
    }

    /// Rounds start `per_second` times a second, whether earlier ones have been answered or not. The core never sleeps
    /// meanwhile: how long it takes to wake would be counted as the server's.
    ///
    /// # Errors
    /// When the server closes, errs or stalls.
    pub fn open_loop(&mut self, duration: Duration, per_second: f64) -> io::Result<Sample> {
        let started = Instant::now();
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let mut sample = Sample::new();
        let mut next = started;
        let mut late: VecDeque<Instant> = VecDeque::new();
        loop {
            let now = Instant::now();
            while next <= now && next < started + duration {
                late.push_back(next);
                next += interval;
            }
            while let Some(since) = late.front().copied() {
                let Some(index) = self.idle.pop() else { break };
                late.pop_front();
                self.start_round(index, since)?;
            }
            if self.in_flight == 0 && late.is_empty() && next >= started + duration {
                break;
            }
            let ended = self.turn(Duration::ZERO)?;
            let now = Instant::now();
            for index in ended {
                self.account(index, now, &mut sample);
                self.idle.push(index);
            }
            if now > started + duration + STALL {
                return Err(self.stalled());
            }
        }
        sample.elapsed = started.elapsed();
        Ok(sample)
    }

    /// One request on a connection of its own, whose answer's head tells the length of all.
    fn learn(&mut self) -> io::Result<()> {
        let index = self.clients.len();
        self.clients.push(Client::connect(self.spec.to)?);
        self.arm_client(index)?;
        self.learning = Some(Vec::new());
        let single = self.spec.request.len() / self.spec.pipeline;
        self.push_send(Tag::ClientSent, index, self.spec.request.as_ptr(), single, true)?;
        let until = Instant::now() + STALL;
        loop {
            self.turn(Duration::from_millis(100))?;
            let answer = self.learning.as_deref().unwrap_or_default();
            if let Some(len) = answer_len(answer)?
                && answer.len() >= len
            {
                self.answer_len = len * self.spec.pipeline;
                self.learning = None;
                if let Some(origin) = &mut self.origin {
                    origin.asked = 0;
                }
                return self.clients[index].stream.shutdown(Shutdown::Both);
            }
            if Instant::now() > until {
                return Err(io::Error::new(ErrorKind::TimedOut, "the server does not answer"));
            }
        }
    }

    /// Who has what: whether a request, or its answer, has not come through a server.
    fn stalled(&self) -> io::Error {
        let waiting = self.clients.iter().filter(|client| client.missing > 0).count();
        let missing: usize = self.clients.iter().map(|client| client.missing).sum();
        let mut text = format!("it has stalled: {waiting} connections wait for {missing} bytes");
        if let Some(origin) = &self.origin {
            let owed: usize = origin.conns.iter().flatten().map(|conn| conn.owed).sum();
            let unseen = self.asked - origin.asked;
            text +=
                &format!(", of whose requests the origin has not seen {unseen} and owes an answer to {owed}");
        }
        io::Error::new(ErrorKind::TimedOut, text)
    }

    fn start_round(&mut self, index: usize, since: Instant) -> io::Result<()> {
        let client = &mut self.clients[index];
        client.taken = 0;
        client.missing = self.answer_len;
        client.since = since;
        self.in_flight += 1;
        self.asked += self.spec.pipeline;
        self.push_send(Tag::ClientSent, index, self.spec.request.as_ptr(), self.spec.request.len(), true)
    }

    fn account(&self, index: usize, now: Instant, sample: &mut Sample) {
        sample.requests += self.spec.pipeline as u64;
        let nanos = now.saturating_duration_since(self.clients[index].since).as_nanos() as u64;
        sample.latency.saturating_record(nanos.max(1));
    }

    /// Submits, waits for at least one event or the timeout, and returns whose rounds have ended.
    fn turn(&mut self, timeout: Duration) -> io::Result<Vec<usize>> {
        let timespec = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timespec);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) && timeout >= STALL => {
                return Err(self.stalled());
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        let events: Vec<cqueue::Entry> = self.ring.completion().collect();
        let mut ended = Vec::new();
        for event in events {
            let index = (event.user_data() & 0xffff_ffff) as usize;
            match TAGS[(event.user_data() >> 32) as usize] {
                Tag::ClientRecv => self.client_received(index, &event, &mut ended)?,
                Tag::ClientSent => self.client_sent(index, event.result())?,
                Tag::OriginAccept => self.origin_accepted(&event)?,
                Tag::OriginRecv => self.origin_received(index, &event)?,
                Tag::OriginSent => self.origin_sent(index, event.result())?,
            }
        }
        self.client_bufs.publish();
        self.origin_bufs.publish();
        Ok(ended)
    }

    fn client_received(
        &mut self,
        index: usize,
        event: &cqueue::Entry,
        ended: &mut Vec<usize>,
    ) -> io::Result<()> {
        if index >= self.spec.connections && self.learning.is_none() {
            return Ok(());
        }
        match event.result() {
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
            error if error < 0 && -error != libc::ENOBUFS => {
                return Err(io::Error::from_raw_os_error(-error));
            }
            len => {
                let len = len.max(0) as usize;
                if let Some(id) = cqueue::buffer_select(event.flags()) {
                    if let Some(answer) = &mut self.learning {
                        answer.extend_from_slice(self.client_bufs.bytes(id, len));
                    }
                    self.client_bufs.recycle(id);
                }
                let client = &mut self.clients[index];
                if self.learning.is_none() && len > 0 {
                    client.missing = client
                        .missing
                        .checked_sub(len)
                        .ok_or_else(|| io::Error::other("the server sent more than was asked for"))?;
                    if client.missing == 0 {
                        self.in_flight -= 1;
                        ended.push(index);
                    }
                }
            }
        }
        if cqueue::more(event.flags()) { Ok(()) } else { self.arm_client(index) }
    }

    fn origin_accepted(&mut self, event: &cqueue::Entry) -> io::Result<()> {
        let fd = event.result();
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        socket2::SockRef::from(&fd).set_tcp_nodelay(true)?;
        let origin = self.origin.as_mut().expect("only an origin accepts");
        origin.conns.push(Some(OriginConn { fd, matched: 0, owed: 0, taken: 0 }));
        let index = origin.conns.len() - 1;
        self.arm_origin(index)?;
        if cqueue::more(event.flags()) { Ok(()) } else { self.arm_accept() }
    }

    fn origin_received(&mut self, index: usize, event: &cqueue::Entry) -> io::Result<()> {
        let result = event.result();
        let origin = self.origin.as_mut().expect("only an origin's connections are tagged so");
        if result == 0 || (result < 0 && -result != libc::ENOBUFS) {
            // The proxy may close what it does not need.
            origin.conns[index] = None;
            return Ok(());
        }
        let mut requests = 0;
        let mut begin = false;
        if let (Some(id), Some(conn)) = (cqueue::buffer_select(event.flags()), &mut origin.conns[index]) {
            for byte in self.origin_bufs.bytes(id, result.max(0) as usize) {
                conn.matched = match (conn.matched, byte) {
                    (0 | 2, b'\r') | (1 | 3, b'\n') => conn.matched + 1,
                    (_, b'\r') => 1,
                    _ => 0,
                };
                if conn.matched == 4 {
                    conn.matched = 0;
                    requests += 1;
                }
            }
            origin.asked += requests;
            begin = conn.owed == 0;
            conn.owed += requests;
            self.origin_bufs.recycle(id);
        }
        if begin && requests > 0 {
            self.answer(index)?;
        }
        if cqueue::more(event.flags()) { Ok(()) } else { self.arm_origin(index) }
    }

    /// Sends what is owed: a short answer without waiting for word that it was taken, unless another is owed behind it.
    fn answer(&mut self, index: usize) -> io::Result<()> {
        let origin = self.origin.as_mut().expect("only an origin answers");
        let Some(conn) = &mut origin.conns[index] else { return Ok(()) };
        let len = origin.answer.len() - conn.taken;
        // SAFETY: less than the whole was taken.
        let rest = unsafe { origin.answer.as_ptr().add(conn.taken) };
        let silent = conn.owed == 1 && origin.answer.len() < LONG;
        if silent {
            (conn.owed, conn.taken) = (0, 0);
        }
        self.push_send(Tag::OriginSent, index, rest, len, silent)
    }

    /// A silent send that failed, or one that is not silent. The kernel ends a send early when its worker thread is
    /// interrupted, and says how much it took.
    fn origin_sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let origin = self.origin.as_mut().expect("only an origin answers");
        let Some(conn) = &mut origin.conns[index] else { return Ok(()) };
        match taken(result) {
            Some(len) => {
                // Silent: it was taken for done.
                conn.owed = conn.owed.max(1);
                conn.taken += len;
                if conn.taken >= origin.answer.len() {
                    (conn.owed, conn.taken) = (conn.owed - 1, 0);
                }
                if conn.owed > 0 { self.answer(index) } else { Ok(()) }
            }
            // Whoever is behind it sees the end.
            None => {
                origin.conns[index] = None;
                Ok(())
            }
        }
    }

    /// A request was not taken whole, or not at all.
    fn client_sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let Some(len) = taken(result) else { return Err(io::Error::from_raw_os_error(-result)) };
        let client = &mut self.clients[index];
        client.taken += len;
        let Some(rest) = self.spec.request.get(client.taken..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        let (rest, len) = (rest.as_ptr(), rest.len());
        self.push_send(Tag::ClientSent, index, rest, len, true)
    }

    fn arm_client(&mut self, index: usize) -> io::Result<()> {
        let fd = types::Fd(self.clients[index].stream.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, CLIENT_GROUP).flags(self.receive_flags).build();
        self.push(entry.user_data(tagged(Tag::ClientRecv, index)))
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let origin = self.origin.as_ref().expect("only an origin accepts");
        let entry = opcode::AcceptMulti::new(types::Fd(origin.listener.as_raw_fd())).build();
        self.push(entry.user_data(tagged(Tag::OriginAccept, 0)))
    }

    fn arm_origin(&mut self, index: usize) -> io::Result<()> {
        let origin = self.origin.as_ref().expect("only an origin's connections are armed");
        let Some(conn) = &origin.conns[index] else { return Ok(()) };
        let entry = opcode::RecvMulti::new(types::Fd(conn.fd.as_raw_fd()), ORIGIN_GROUP).build();
        self.push(entry.user_data(tagged(Tag::OriginRecv, index)))
    }

    fn push_send(
        &mut self,
        tag: Tag,
        index: usize,
        bytes: *const u8,
        len: usize,
        silent: bool,
    ) -> io::Result<()> {
        let fd = match (tag, &self.origin) {
            (Tag::OriginSent, Some(origin)) => origin.conns[index].as_ref().map(|conn| conn.fd.as_raw_fd()),
            _ => Some(self.clients[index].stream.as_raw_fd()),
        };
        let entry = opcode::Send::new(types::Fd(fd.unwrap_or(-1)), bytes, len as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(if silent { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() });
        self.push(entry.user_data(tagged(tag, index)))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: receives go to the registered buffers and sends come from the request or the answer; all of them
            // belong to this generator, whose drop waits for what is in flight, and never move while it lives.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Closing the ring does not wait: the buffers must outlive what the kernel still does.
        for client in &self.clients {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        let _ = self.ring.submitter().register_sync_cancel(
            Some(types::Timespec::from(Duration::from_secs(1))),
            types::CancelBuilder::any(),
        );
    }
}

impl Sample {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order");
        Sample { requests: 0, elapsed: Duration::ZERO, latency }
    }

    /// Microseconds: median, 99 %, 99.9 %.
    pub fn latency_us(&self) -> [f64; 3] {
        [0.5, 0.99, 0.999].map(|part| self.latency.value_at_quantile(part) as f64 / 1000.0)
    }

    /// Requests answered per second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

impl Client {
    fn connect(to: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, taken: 0, missing: 0, since: Instant::now() })
    }
}

/// How much of a send the kernel took; `None` when the connection is at its end.
fn taken(result: i32) -> Option<usize> {
    match result {
        0.. => Some(result as usize),
        _ if [libc::EAGAIN, libc::EINTR, libc::ECANCELED].contains(&-result) => Some(0),
        _ => None,
    }
}

fn tagged(tag: Tag, index: usize) -> u64 {
    (tag as u64) << 32 | index as u64
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;

    /// Answers used to be sent all at once, and a rest that the kernel had not taken was forgotten: the run then stalled.
    #[test]
    fn long_answers_come_whole_one_behind_the_other() {
        let origin = Origin::bind(3 << 20).expect("a port");
        let to = origin.address().expect("its address");
        let request = crate::load::REQUEST.repeat(3);
        let spec = LoadSpec { to, connections: 2, request, pipeline: 3, answer_len: None };
        match Generator::connect(spec, Some(origin)) {
            Ok(mut generator) => {
                let sample = generator.closed_loop(Duration::from_millis(50)).expect("it is answered");
                assert_eq!(sample.requests % 3, 0);
                let origin = generator.origin.as_ref().expect("it is here");
                assert_eq!(origin.asked as u64, sample.requests);
                assert!(origin.conns.iter().flatten().all(|conn| (conn.owed, conn.taken) == (0, 0)));
            }
            // Past the harness, which would keep it to itself.
            Err(error) => drop(writeln!(io::stderr(), "skipped: no io_uring here: {error}")),
        }
    }

    /// A turn in which no request was due used to take an idle connection and forget it, until one was left to carry the
    /// whole rate.
    #[test]
    fn a_fixed_rate_loses_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("its address");
        const CONNECTIONS: usize = 8;
        let echo = thread::spawn(move || {
            let serve = |(mut stream, _): (TcpStream, SocketAddr)| {
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                })
            };
            let served: Vec<_> =
                (0..CONNECTIONS).map(|_| serve(listener.accept().expect("a client"))).collect();
            served.into_iter().for_each(|thread| thread.join().expect("the echo ends"));
        });
        let spec =
            LoadSpec { to, connections: CONNECTIONS, request: vec![b'e'], pipeline: 1, answer_len: Some(1) };
        match Generator::connect(spec, None) {
            Ok(mut generator) => {
                let sample = generator.open_loop(Duration::from_millis(100), 500.0).expect("it is answered");
                assert_eq!(sample.requests, 50);
                assert_eq!(generator.idle.len(), CONNECTIONS);
                drop(generator);
                echo.join().expect("the echo ends");
            }
            // Past the harness, which would keep it to itself.
            Err(error) => drop(writeln!(io::stderr(), "skipped: no io_uring here: {error}")),
        }
    }
}
