//! Random interleavings of bytes, completions, cancels, closes and faults. The rig holds every completion to the contract;
//! here each stream is compared byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use proptest::prelude::*;
use ringport_platform::buf::{PoolBuf, PoolSpec};
use ringport_platform::driver::Wait;
use ringport_platform::driver::faulty::{Fault, Faulty, Step as FaultStep};
use ringport_platform::op::{OpKind, Outcome, SendMode};

use super::each_wrapped;
use super::os::{LocalStream, local_pair};
use super::rig::{PATIENCE, Rig};

const SOCKETS: usize = 4;
const POOL: PoolSpec = PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 6 };

#[derive(Clone, Debug)]
enum Step {
    PeerWrites(usize, usize),
    PeerReads(usize),
    Receive(usize, u32),
    Send(usize, usize),
    Cancel(usize, OpKind),
    Replace(usize),
    LetGo,
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    let sock = || 0..SOCKETS;
    prop_oneof![
        4 => (sock(), 1..6_000usize).prop_map(|(at, len)| Step::PeerWrites(at, len)),
        3 => sock().prop_map(Step::PeerReads),
        4 => (sock(), prop_oneof![1..50u32, 1..20_000u32]).prop_map(|(at, credit)| Step::Receive(at, credit)),
        4 => (sock(), prop_oneof![1..50usize, 1..200_000usize]).prop_map(|(at, len)| Step::Send(at, len)),
        2 => (sock(), prop_oneof![Just(OpKind::Recv), Just(OpKind::Send)]).prop_map(|(at, kind)| Step::Cancel(at, kind)),
        1 => sock().prop_map(Step::Replace),
        2 => Just(Step::LetGo),
        6 => Just(Step::Turn),
    ]
}

fn fault() -> impl Strategy<Value = FaultStep> {
    let receive = prop_oneof![
        Just(Fault::Starve),
        Just(Fault::LoseMore),
        Just(Fault::CancelRace),
        (1..4u32).prop_map(|turns| Fault::Late { turns }),
    ];
    let send = prop_oneof![
        (0..100usize).prop_map(Fault::ShortSend),
        Just(Fault::CancelRace),
        (1..4u32).prop_map(|turns| Fault::Late { turns }),
    ];
    let step = |kind, nth, fault| FaultStep { kind, nth, fault };
    prop_oneof![
        (1..30u64, receive).prop_map(move |(nth, fault)| step(OpKind::Recv, nth, fault)),
        (1..30u64, send).prop_map(move |(nth, fault)| step(OpKind::Send, nth, fault)),
    ]
}

/// Bytes of a stream by their place.
fn bytes(seed: usize, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at ^ (at >> 8).wrapping_mul(31)).wrapping_mul(seed | 1) as u8).collect()
}

/// One connection, with how far each of its streams has come.
struct Stream {
    sock: u32,
    peer: LocalStream,
    seed: usize,
    written: usize,
    received: usize,
    queued: usize,
    read: usize,
    mode: SendMode,
}

impl Stream {
    fn new(rig: &mut Rig, seed: usize) -> Self {
        let (ours, peer) = local_pair();
        peer.set_nonblocking(true).expect("non-blocking");
        let sock = rig.add(ours);
        Stream { sock, peer, seed, written: 0, received: 0, queued: 0, read: 0, mode: SendMode::Try }
    }

    fn peer_writes(&mut self, len: usize) {
        // As much as surely fits.
        let len = len.min(30_000_usize.saturating_sub(self.written - self.received));
        self.peer.write_all(&bytes(self.seed, self.written, len)).expect("there is room");
        self.written += len;
    }

    /// Whether the peer may read more later.
    fn peer_reads(&mut self) -> bool {
        let mut into = [0; 20_000];
        match self.peer.read(&mut into) {
            Ok(len) => {
                assert!(into[..len] == bytes(self.seed + 7, self.read, len), "sent bytes from {}", self.read);
                self.read += len;
                len > 0
            }
            // Reset: a Unix socket says so when it is closed with unread bytes.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                true
            }
        }
    }

    fn peer_reads_while_open(&mut self) {
        let open = self.peer_reads();
        assert!(
            open,
            "socket {}: the peer's stream ended after {} of {} bytes",
            self.sock, self.read, self.queued
        );
    }

    fn push(&mut self, rig: &mut Rig, len: usize) {
        rig.tx(self.sock).push(bytes(self.seed + 7, self.queued, len));
        self.queued += len;
    }

    fn send(&mut self, rig: &mut Rig) {
        if !rig.tx(self.sock).is_empty() && !rig.is_live(OpKind::Send, self.sock) {
            rig.send(self.sock, self.mode);
        }
    }

    /// Takes in what has been reported; what was received is kept in `kept` for a while.
    fn take(&mut self, rig: &mut Rig, kept: &mut Vec<PoolBuf>) {
        while let Some(completion) = rig.seen(OpKind::Recv, self.sock) {
            match completion.outcome {
                Outcome::Received(buf) => {
                    assert!(
                        *buf == bytes(self.seed, self.received, buf.len()),
                        "received from {}",
                        self.received
                    );
                    self.received += buf.len();
                    kept.push(buf);
                }
                Outcome::Starved => kept.clear(),
                Outcome::Canceled => {}
                outcome => panic!("{outcome:?}"),
            }
        }
        while let Some(completion) = rig.seen(OpKind::Send, self.sock) {
            let (count, mode) = match completion.outcome {
                Outcome::Sent(count) => (count, SendMode::Try),
                Outcome::Stalled(count) => (count, SendMode::Wait),
                Outcome::Canceled => (0, self.mode),
                outcome => panic!("{outcome:?}"),
            };
            rig.tx(self.sock).advance(count);
            self.mode = mode;
        }
    }

    /// Ends what is in flight as a close must, closes, and checks that the peer got what was reported as sent.
    fn end(mut self, rig: &mut Rig, kept: &mut Vec<PoolBuf>) {
        for kind in [OpKind::Recv, OpKind::Send] {
            if rig.is_live(kind, self.sock) {
                rig.cancel(kind, self.sock);
            }
        }
        let began = Instant::now();
        while rig.is_live(OpKind::Recv, self.sock) || rig.is_live(OpKind::Send, self.sock) {
            self.is_in_time(rig, began);
            rig.turn(Wait::Poll);
            self.take(rig, kept);
        }
        self.take(rig, kept);
        let sent = self.queued - rig.tx(self.sock).len();
        while self.read < sent {
            self.is_in_time(rig, began);
            self.peer_reads_while_open();
        }
        rig.close(self.sock);
        self.peer_reads();
        assert_eq!(self.read, sent, "no more than was reported");
    }

    /// Whether both streams have run to their ends.
    fn is_over(&self) -> bool {
        self.received == self.written && self.read == self.queued
    }

    fn is_in_time(&self, rig: &Rig, began: Instant) {
        let Stream { sock, received, written, read, queued, .. } = self;
        let live = [OpKind::Recv, OpKind::Send].map(|kind| rig.is_live(kind, *sock));
        assert!(
            began.elapsed() < PATIENCE,
            "socket {sock} has received {received} of {written}, its peer {read} of {queued}; receive and send live: {live:?}"
        );
    }
}

/// Lets all streams run to their ends, side by side: what one is told and does not take keeps the pool from the others.
fn finish(mut streams: Vec<Stream>, rig: &mut Rig, kept: &mut Vec<PoolBuf>) {
    let began = Instant::now();
    while let Some(unfinished) = streams.iter().find(|stream| !stream.is_over()) {
        unfinished.is_in_time(rig, began);
        for stream in &mut streams {
            stream.take(rig, kept);
            if !rig.is_live(OpKind::Recv, stream.sock) {
                rig.recv(stream.sock, 50_000);
            }
            stream.send(rig);
        }
        rig.turn(Wait::Poll);
        kept.clear();
        streams.iter_mut().for_each(Stream::peer_reads_while_open);
    }
    streams.into_iter().for_each(|stream| stream.end(rig, kept));
}

fn run(rig: &mut Rig, steps: &[Step]) {
    let mut streams: Vec<_> = (0..SOCKETS).map(|seed| Stream::new(rig, seed)).collect();
    let mut kept = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::PeerWrites(at, len) => streams[at].peer_writes(len),
            Step::PeerReads(at) => streams[at].peer_reads_while_open(),
            Step::Receive(at, credit) if !rig.is_live(OpKind::Recv, streams[at].sock) => {
                rig.recv(streams[at].sock, credit);
            }
            Step::Send(at, len) => {
                streams[at].push(rig, len);
                streams[at].send(rig);
            }
            Step::Cancel(at, kind) if rig.is_live(kind, streams[at].sock) => {
                rig.cancel(kind, streams[at].sock)
            }
            Step::Receive(..) | Step::Cancel(..) => {}
            Step::Replace(at_stream) => {
                let old = streams.remove(at_stream);
                // The next socket uses the slot at once, while the close may still wait for its turn.
                old.end(rig, &mut kept);
                streams.insert(at_stream, Stream::new(rig, at));
            }
            Step::LetGo => kept.clear(),
            Step::Turn => rig.turn(Wait::Poll),
        }
        streams.iter_mut().for_each(|stream| stream.take(rig, &mut kept));
    }
    finish(streams, rig, &mut kept);
    kept.clear();
    rig.expect_quiet();
    assert_eq!(rig.driver().in_flight(), 0);
}

/// The streams of a run once ended one after the other. What the later ones were told of meanwhile nobody took: it kept
/// the pool, and the first starved for ever.
#[test]
fn a_stream_ends_while_others_hold_the_pool() {
    let fills = |at| [Step::Receive(at, 20_000), Step::PeerWrites(at, 6_000), Step::PeerWrites(at, 6_000)];
    let steps: Vec<_> = [3, 2, 1].into_iter().flat_map(fills).chain([Step::PeerWrites(0, 9_000)]).collect();
    each_wrapped(POOL, |inner| inner, |rig| run(rig, &steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_breaks_the_contract(
        steps in prop::collection::vec(step(), 1..120),
        faults in prop::collection::vec(fault(), 0..12),
    ) {
        each_wrapped(POOL, |inner| Box::new(Faulty::new(inner, faults.clone())), |rig| run(rig, &steps));
    }
}
