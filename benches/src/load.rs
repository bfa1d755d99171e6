//! The load of the meter: rounds of one request (or `pipeline` many) on every connection, and an origin for proxies.
//!
//! Nothing here waits: the caller decides when the server runs.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Deserialize;

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bytes that must come back.
    Echo,
    /// HTTP/1.1 requests with keep-alive, answered by the server itself.
    Hello,
    /// HTTP/1.1 requests with keep-alive, answered by the origin behind the server.
    Proxy,
    /// The same through a server that passes on bytes.
    Relay,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Echo => "echo",
            Kind::Hello => "hello",
            Kind::Proxy => "proxy",
            Kind::Relay => "relay",
        })
    }
}

/// A request of the HTTP loads, as short as a browser's never is.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// The same with a field that differs each time, as it does with many clients: no head is the one before.
pub const CHANGING_REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: bench.example\r\nX-Request-Id: 00000000\r\n\r\n";

/// The head of the origin's answer up to the length.
const ANSWER_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ";
const CHANGING_ANSWER_HEAD: &str =
    "HTTP/1.1 200 OK\r\nX-Request-Id: 00000000\r\nContent-Type: text/plain\r\nContent-Length: ";

/// Writes the next number into a message that has a place for one.
fn renumber(message: &mut [u8], number: &mut u32) {
    let name = b"X-Request-Id: ";
    let found = message.windows(name.len()).position(|window| window == name);
    if let Some(digits) = found.and_then(|at| message.get_mut(at + name.len()..)?.first_chunk_mut::<8>()) {
        *number = number.wrapping_add(1);
        digits.copy_from_slice(format!("{number:08x}").as_bytes());
    }
}

/// Connections that ask in rounds.
pub struct Clients {
    conns: Vec<Client>,
    /// Those of a round on one connection, as long as each other.
    request: Vec<u8>,
    pipeline: usize,
    number: u32,
    /// How many bytes answer a round on one connection.
    answer_len: usize,
    buf: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    missing: usize,
}

impl Clients {
    /// Connects. Answers are taken to be as long as requests until [`Clients::learn`].
    ///
    /// # Errors
    /// When the server does not take a connection.
    pub fn connect(to: SocketAddr, count: usize, request: &[u8], pipeline: usize) -> io::Result<Self> {
        let mut conns = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            conns.push(Client { stream, missing: 0 });
        }
        Ok(Clients {
            conns,
            request: request.repeat(pipeline),
            pipeline,
            number: 0,
            answer_len: request.len() * pipeline,
            buf: vec![0; 256 * 1024],
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.conns.len()
    }

    /// Sends a round.
    ///
    /// # Errors
    /// When the kernel does not take it at once.
    pub fn send(&mut self) -> io::Result<()> {
        let request_len = (self.request.len() / self.pipeline).max(1);
        for client in &mut self.conns {
            self.request.chunks_mut(request_len).for_each(|request| renumber(request, &mut self.number));
            let len = client.stream.write(&self.request)?;
            if len != self.request.len() {
                return Err(io::Error::other("the request does not fit the socket"));
            }
            client.missing = self.answer_len;
        }
        Ok(())
    }

    /// Reads what has come; `true` when the round is complete.
    ///
    /// # Errors
    /// When the server closes, or answers too much.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut complete = true;
        for client in self.conns.iter_mut().filter(|client| client.missing > 0) {
            while client.missing > 0 {
                match client.stream.read(&mut self.buf) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(len) => {
                        client.missing = client.missing.checked_sub(len).ok_or_else(too_much)?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        complete = false;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(complete)
    }

    /// One round while the server runs freely; `aside` is called while answers are waited for.
    ///
    /// # Errors
    /// As [`Clients::send`] and [`Clients::read`]; `TimedOut` after 5 s.
    pub fn round(&mut self, aside: &mut dyn FnMut() -> io::Result<bool>) -> io::Result<()> {
        self.send()?;
        let until = Instant::now() + Duration::from_secs(5);
        while !self.read()? {
            if !aside()? {
                std::thread::sleep(Duration::from_micros(50));
            }
            if Instant::now() > until {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Sends one HTTP request and takes the length of the answer from the first one's head.
    ///
    /// # Errors
    /// As [`Clients::round`]; when the answer is not 200 with a length.
    pub fn learn(&mut self, aside: &mut dyn FnMut() -> io::Result<bool>) -> io::Result<()> {
        let Some(first) = self.conns.first_mut() else { return Ok(()) };
        first.stream.write_all(&self.request[..self.request.len() / self.pipeline])?;
        let until = Instant::now() + Duration::from_secs(5);
        let mut answer = Vec::new();
        loop {
            if let Some(len) = answer_len(&answer)? {
                if answer.len() > len {
                    return Err(too_much());
                }
                if answer.len() == len {
                    self.answer_len = len * self.pipeline;
                    return Ok(());
                }
            }
            match first.stream.read(&mut self.buf) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => answer.extend_from_slice(&self.buf[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !aside()? {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
                Err(error) => return Err(error),
            }
            if Instant::now() > until {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

fn too_much() -> io::Error {
    io::Error::other("the server sent more than was asked for")
}

/// The whole length of an answer whose head has come.
///
/// # Errors
/// When it is not 200, or says no length.
pub fn answer_len(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(head_len) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..head_len]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(io::Error::other(format!("the server answers: {head}")));
    }
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
        .ok_or_else(|| io::Error::other(format!("the answer says no length: {head}")))?;
    Ok(Some(head_len + 4 + len))
}

/// The origin behind a proxy. It answers only in [`Origin::serve`].
pub struct Origin {
    listener: TcpListener,
    conns: Vec<OriginConn>,
    answer: Vec<u8>,
    number: u32,
}

struct OriginConn {
    stream: TcpStream,
    /// How many bytes of the mark that ends a head have come.
    matched: usize,
    out: Vec<u8>,
}

impl Origin {
    /// Answers every request with `body_len` bytes, and where heads are `changing` with a field that differs each time.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(body_len: usize, changing: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let head = if changing { CHANGING_ANSWER_HEAD } else { ANSWER_HEAD };
        let mut answer = format!("{head}{body_len}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + body_len, b'x');
        Ok(Origin { listener, conns: Vec::new(), answer, number: 0 })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers what has come; `true` when there was something to do.
    ///
    /// # Errors
    /// The kernel's.
    pub fn serve(&mut self) -> io::Result<bool> {
        let mut busy = false;
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.conns.push(OriginConn { stream, matched: 0, out: Vec::new() });
            busy = true;
        }
        let mut at = 0;
        while let Some(conn) = self.conns.get_mut(at) {
            match conn.serve(&mut self.answer, &mut self.number) {
                Ok(worked) => {
                    busy |= worked;
                    at += 1;
                }
                Err(_) => {
                    self.conns.swap_remove(at);
                }
            }
        }
        Ok(busy)
    }
}

impl OriginConn {
    fn serve(&mut self, answer: &mut [u8], number: &mut u32) -> io::Result<bool> {
        let mut buf = [0; 16 * 1024];
        let mut busy = false;
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    busy = true;
                    for byte in &buf[..len] {
                        self.matched = match (self.matched, byte) {
                            (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
                            (_, b'\r') => 1,
                            _ => 0,
                        };
                        if self.matched == 4 {
                            self.matched = 0;
                            renumber(answer, number);
                            self.out.extend_from_slice(answer);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(len) => {
                    busy = true;
                    self.out.drain(..len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(busy)
    }
}
