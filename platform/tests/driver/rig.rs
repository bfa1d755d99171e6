//! A driver under test with the sockets that it serves.

use ringport_platform::fd::{AsRawFd, OwnedFd, RawFd};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringport_platform::buf::{Pool, TxQueue};
use ringport_platform::driver::{ConnectAddr, Driver, Wait};
use ringport_platform::op::{Burst, Completion, OpKind, Outcome, SendMode, Token};
use ringport_platform::stats::CoreStats;

/// How long a case may wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const PLENTY: u32 = 1 << 30;

struct Sock {
    fd: Option<OwnedFd>,
    generation: u32,
    tx: TxQueue,
    credit: usize,
}

pub(crate) struct Rig {
    /// Dropped first: it may use the queues of `socks`.
    driver: Box<dyn Driver>,
    socks: Vec<Sock>,
    free: Vec<u32>,
    /// Operations in flight, sends with the bytes that were taken.
    live: HashMap<Token, usize>,
    seen: VecDeque<Completion>,
    /// Since when turns have brought nothing but refusals of memory.
    idle_since: Option<Instant>,
    /// Whether no byte may come above the credit.
    pub(crate) exact_credit: bool,
    pub(crate) pool: Pool,
    pub(crate) stats: Arc<CoreStats>,
}

impl Rig {
    pub(crate) fn new(driver: Box<dyn Driver>, pool: Pool, stats: Arc<CoreStats>) -> Self {
        let (socks, free, live, seen) = (Vec::new(), Vec::new(), HashMap::new(), VecDeque::new());
        Rig { driver, socks, free, live, seen, idle_since: None, exact_credit: true, pool, stats }
    }

    pub(crate) fn driver(&mut self) -> &mut dyn Driver {
        &mut *self.driver
    }

    /// Attaches a descriptor under the index that became free last.
    pub(crate) fn add(&mut self, fd: impl Into<OwnedFd>) -> u32 {
        let fd = fd.into();
        let index = self.free.pop().unwrap_or_else(|| {
            let tx = TxQueue::new(self.pool.clone());
            self.socks.push(Sock { fd: None, generation: 0, tx, credit: 0 });
            self.socks.len() as u32 - 1
        });
        self.driver.attach(fd.as_raw_fd(), index).expect("attach");
        let sock = &mut self.socks[index as usize];
        sock.generation += 1;
        sock.fd = Some(fd);
        index
    }

    pub(crate) fn fd(&self, index: u32) -> RawFd {
        self.socks[index as usize].fd.as_ref().expect("open").as_raw_fd()
    }

    pub(crate) fn owned(&self, index: u32) -> &OwnedFd {
        self.socks[index as usize].fd.as_ref().expect("open")
    }

    pub(crate) fn token(&self, kind: OpKind, index: u32) -> Token {
        Token::new(kind, index, self.socks[index as usize].generation)
    }

    fn start(&mut self, kind: OpKind, index: u32) -> (RawFd, Token) {
        let token = self.token(kind, index);
        assert!(self.live.insert(token, 0).is_none(), "the case starts {token:?} twice");
        (self.fd(index), token)
    }

    pub(crate) fn recv(&mut self, index: u32, credit: u32) {
        let (fd, token) = self.start(OpKind::Recv, index);
        self.socks[index as usize].credit = credit as usize;
        self.driver.recv(fd, token, credit);
    }

    /// Takes connections until cancelled or failed.
    pub(crate) fn accept(&mut self, index: u32) {
        self.accept_in(index, Burst::Many);
    }

    pub(crate) fn accept_in(&mut self, index: u32, burst: Burst) {
        let (fd, token) = self.start(OpKind::Accept, index);
        self.driver.accept(fd, token, burst);
    }

    pub(crate) fn connect(&mut self, index: u32, addr: &ConnectAddr) {
        let (fd, token) = self.start(OpKind::Connect, index);
        self.driver.connect(fd, token, addr);
    }

    pub(crate) fn tx(&mut self, index: u32) -> &mut TxQueue {
        &mut self.socks[index as usize].tx
    }

    /// Sends the front of the socket's queue.
    pub(crate) fn send(&mut self, index: u32, mode: SendMode) -> usize {
        let (fd, token) = self.start(OpKind::Send, index);
        // SAFETY: the queue is touched again when the terminal completion has been seen, and outlives the driver.
        let taken = unsafe { self.driver.send(fd, token, &self.socks[index as usize].tx, mode) };
        self.live.insert(token, taken);
        taken
    }

    /// Waits for the readiness that `kind` names.
    pub(crate) fn watch(&mut self, kind: OpKind, index: u32) {
        let (fd, token) = self.start(kind, index);
        self.driver.watch(fd, token);
    }

    pub(crate) fn cancel(&mut self, kind: OpKind, index: u32) {
        let (fd, token) = (self.fd(index), self.token(kind, index));
        self.driver.cancel(fd, token);
    }

    pub(crate) fn close(&mut self, index: u32) {
        let sock = &mut self.socks[index as usize];
        sock.tx.clear();
        let fd = sock.fd.take().expect("open");
        self.driver.close(fd, index);
        self.free.push(index);
    }

    /// Gives up a socket that somebody else has closed.
    #[cfg(windows)]
    pub(crate) fn forget(&mut self, index: u32) {
        std::mem::forget(self.socks[index as usize].fd.take().expect("open"));
    }

    /// Closes, and hands the close to the kernel: from then on the peer sees it.
    pub(crate) fn close_now(&mut self, index: u32) {
        self.close(index);
        self.turn(Wait::Poll);
    }

    /// One turn; checks what every completion must obey.
    pub(crate) fn turn(&mut self, wait: Wait) {
        let mut out = Vec::new();
        self.driver.turn(wait, &mut out).expect("turn");
        self.expect_progress(&out);
        for completion in out {
            let Completion { token, outcome, more } = &completion;
            let taken = *self.live.get(token).unwrap_or_else(|| panic!("{completion:?} is nobody's"));
            let sock = &mut self.socks[token.index() as usize];
            match outcome {
                Outcome::Received(buf) => {
                    assert!(!buf.is_empty(), "a report of nothing");
                    if self.exact_credit {
                        assert!(buf.len() <= sock.credit, "more than the credit");
                        assert!(!more || sock.credit > buf.len(), "armed without credit");
                    }
                    sock.credit = sock.credit.saturating_sub(buf.len());
                }
                Outcome::Accepted(_) => {}
                _ => assert!(!more, "{completion:?} must be the last"),
            }
            match outcome {
                Outcome::Sent(count) => assert_eq!(*count, taken),
                Outcome::Stalled(count) => assert!(*count < taken),
                _ => {}
            }
            if !more {
                self.live.remove(token);
            }
            self.seen.push_back(completion);
        }
        assert_eq!(self.driver.in_flight(), self.live.len(), "in_flight is exact");
    }

    /// Ends a case that turns for ever, for whatever it waits.
    fn expect_progress(&mut self, out: &[Completion]) {
        if out.iter().any(|completion| !matches!(completion.outcome, Outcome::Starved)) {
            self.idle_since = None;
            return;
        }
        let idle = self.idle_since.get_or_insert_with(Instant::now).elapsed();
        assert!(
            idle < 2 * PATIENCE,
            "nothing has come for {idle:?}; in flight: {:?}, reported and not taken: {:?}, pool: {:?}",
            self.live,
            self.seen,
            self.pool.usage()
        );
    }

    /// Turns until an operation reports, and takes that report.
    pub(crate) fn next(&mut self, kind: OpKind, index: u32) -> Completion {
        let token = self.token(kind, index);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.seen(kind, index) {
                return completion;
            }
            assert!(self.live.contains_key(&token), "{token:?} has ended already");
            let left = end.checked_duration_since(Instant::now()).expect("a report within 10 s");
            self.turn(Wait::AtMost(left));
        }
    }

    /// What has been reported and not yet taken.
    pub(crate) fn seen(&mut self, kind: OpKind, index: u32) -> Option<Completion> {
        let token = self.token(kind, index);
        let at = self.seen.iter().position(|completion| completion.token == token)?;
        self.seen.remove(at)
    }

    /// Turns without waiting, then nothing may have been reported.
    pub(crate) fn expect_quiet(&mut self) {
        for _ in 0..20 {
            self.turn(Wait::Poll);
        }
        assert!(self.seen.is_empty(), "unexpected: {:?}", self.seen);
    }

    pub(crate) fn is_live(&self, kind: OpKind, index: u32) -> bool {
        self.live.contains_key(&self.token(kind, index))
    }

    /// Receives exactly `total` bytes, armed for at most `credit` at a time.
    pub(crate) fn receive(&mut self, index: u32, total: usize, credit: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < total {
            if !self.is_live(OpKind::Recv, index) && !self.seen.iter().any(|c| c.token.index() == index) {
                self.recv(index, credit.min((total - bytes.len()) as u32));
            }
            match self.next(OpKind::Recv, index).outcome {
                Outcome::Received(buf) => bytes.extend_from_slice(&buf),
                Outcome::Starved => {}
                outcome => panic!("{outcome:?} after {} of {total} bytes", bytes.len()),
            }
        }
        bytes
    }

    /// Receives until the end.
    pub(crate) fn receive_to_end(&mut self, index: u32, credit: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            if !self.is_live(OpKind::Recv, index) && !self.seen.iter().any(|c| c.token.index() == index) {
                self.recv(index, credit);
            }
            match self.next(OpKind::Recv, index).outcome {
                Outcome::Received(buf) => bytes.extend_from_slice(&buf),
                Outcome::Starved | Outcome::Canceled => {}
                Outcome::Eof => return bytes,
                outcome => panic!("{outcome:?} after {} bytes", bytes.len()),
            }
        }
    }

    /// Sends the whole queue: tries, then waits where it stalls. Returns how often it stalled.
    pub(crate) fn send_all(&mut self, index: u32) -> usize {
        let (mut mode, mut stalls) = (SendMode::Try, 0);
        while !self.tx(index).is_empty() {
            self.send(index, mode);
            let (count, next) = match self.next(OpKind::Send, index).outcome {
                Outcome::Sent(count) => (count, SendMode::Try),
                Outcome::Stalled(count) => {
                    assert_eq!(mode, SendMode::Try, "a send that waits does not stall");
                    stalls += 1;
                    (count, SendMode::Wait)
                }
                outcome => panic!("{outcome:?}"),
            };
            self.tx(index).advance(count);
            mode = next;
        }
        stalls
    }
}

/// Bytes in which each place differs from its neighbours near and far.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(7)) as u8).collect()
}

/// A connected pair: ours, non-blocking, and the peer, which gives up after 10 s.
pub(crate) fn tcp_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let peer = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (ours, _) = listener.accept().expect("accept");
    ours.set_nonblocking(true).expect("non-blocking");
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    peer.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (ours.into(), peer)
}

/// A non-blocking listener on a free port.
pub(crate) fn listener(backlog: i32) -> (OwnedFd, SocketAddr) {
    use ringport_platform::socket::{ListenOptions, listen};
    let any = ConnectAddr::Inet((Ipv4Addr::LOCALHOST, 0).into());
    let fd = listen(&any, ListenOptions { backlog, reuse_port: false }).expect("listen");
    let addr = TcpListener::from(fd.try_clone().expect("dup")).local_addr().expect("addr");
    (fd, addr)
}
