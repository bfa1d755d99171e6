//! Floods of HTTP/2 frames over sockets, and what a client beside them has of it.
//!
//! Server, flood and victim share one core. A flood is sent again and again, over a connection each, while the victim makes its
//! requests one after the other; in turns with it a benign peer does as many ordinary requests a connection as the flood has
//! frames that pass. Both are measured in the same run, and in the time that the core itself worked between request and response,
//! so that the machine cancels out, and what else runs on it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringport::runtime::native::Native;
use ringport_platform::measure::{allocated, restart_peak};
use rustix::time::{ClockId, clock_gettime};

use crate::http_server::{GET, Served, serve};
use crate::http_wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get,
};
use crate::rig::{Rig, TcpStream, each, turn};

struct Flood {
    name: &'static str,
    bytes: Bytes,
    /// How many may pass before the connection ends, as `FrameBudgets` has it.
    budget: usize,
}

const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const ZERO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// `frames` of them are what the budget has at once, what comes back to it in some time, and more: the connection ends in their
/// midst on the slowest of machines.
fn flood(
    name: &'static str,
    opening: &[Vec<u8>],
    budget: usize,
    frames: u32,
    next: impl Fn(u32) -> Vec<u8>,
) -> Flood {
    let mut bytes = PREFACE.to_vec();
    opening.iter().for_each(|frame| bytes.extend_from_slice(frame));
    (0..frames).for_each(|at| bytes.extend(next(at)));
    assert!(bytes.len() < 1 << 20, "what is unread at the end would reset the connection");
    Flood { name, bytes: bytes.into(), budget }
}

fn floods() -> Vec<Flood> {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let no_window = frame(SETTINGS, 0, 0, &ZERO_WINDOW);
    let plain = std::slice::from_ref(&settings);
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/sum"), (":authority", "a")];
    let post = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let unfinished = frame(HEADERS, 0, 1, &block(&fields));
    // A field of 4,000 bytes in the table, then named thousands of times by one byte each.
    let bomb = [
        &[0x82, 0x86, 0x84, 0x41, 1, b'a', 0x40, 1, b'a', 0x7f, 0x81, 0x1e][..],
        &[b'z'; 3968],
        &[0xbe; 8000],
    ]
    .concat();
    vec![
        flood("rapid reset", plain, 400, 3_500, |at| {
            let id = at * 2 + 1;
            [get(id, "/never"), frame(RST_STREAM, 0, id, &8u32.to_be_bytes())].concat()
        }),
        flood("made you reset", plain, 200, 300, |at| {
            let id = at * 2 + 1;
            let overflow = ((1u32 << 31) - 1).to_be_bytes();
            [get(id, "/never"), frame(WINDOW_UPDATE, 0, id, &overflow)].concat()
        }),
        flood("CONTINUATION", &[settings.clone(), unfinished], 17, 100, |_| frame(CONTINUATION, 0, 1, &[])),
        flood("HPACK bomb", plain, 1, 1, |_| frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)),
        flood("PING", plain, 100, 800, |_| frame(PING, 0, 0, &[1; 8])),
        flood("SETTINGS", &[], 50, 150, |_| settings.clone()),
        flood("PRIORITY", plain, 200, 1_500, |at| frame(PRIORITY, 0, at * 2 + 1, &[0, 0, 0, 0, 16])),
        flood("empty DATA", &[settings.clone(), post], 100, 800, |_| frame(DATA, 0, 1, &[])),
        // 100 that wait for a window, and 100 more that are refused.
        flood("zero window", std::slice::from_ref(&no_window), 200, 400, |at| get(at * 2 + 1, "/big")),
        flood("1-byte WINDOW_UPDATE", &[no_window.clone(), get(1, "/big")], 1_000, 7_500, |_| {
            frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())
        }),
    ]
}

/// One connection of a flood; the code of the GOAWAY that ends it.
async fn attack(runtime: &Native, server: &Served, flood: &Flood) -> u32 {
    let mut client = server.connect(runtime).await;
    // The server ends it before all is sent.
    let _ = client.send(flood.bytes.clone()).await;
    let (mut frames, mut code) = (Frames::default(), None);
    while let Some(frame) = frames.next(&mut client).await {
        if frame.kind == GOAWAY {
            code = Some(frame.code());
        }
    }
    code.unwrap_or_else(|| panic!("{}: it ends without GOAWAY", flood.name))
}

/// One connection with so many requests, a hundred at a time.
async fn ask(runtime: &Native, server: &Served, count: usize) {
    let mut client = server.connect(runtime).await;
    client.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("open");
    let mut frames = Frames::default();
    for begin in (0..count).step_by(100) {
        let requests = begin..count.min(begin + 100);
        let mut left = requests.len();
        client
            .send(requests.flat_map(|at| get(at as u32 * 2 + 1, "/some")).collect::<Vec<u8>>())
            .await
            .expect("open");
        while left > 0 {
            let frame = frames.next(&mut client).await.expect("nobody ends it");
            let is_last = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            left -= usize::from(is_last);
        }
    }
}

/// What the victim saw of a peer.
#[derive(Default)]
struct Seen {
    /// By the clock, and in the time that the core worked: that of other programs on the machine is not in it.
    latencies: Vec<(Duration, Duration)>,
    connections: u32,
    /// The most beyond what there was before, at any moment.
    grown_bytes: i64,
}

impl Seen {
    /// Those of the clock and of work.
    fn medians(&mut self) -> (Duration, Duration) {
        let median = |of: fn(&(Duration, Duration)) -> Duration| {
            let mut all: Vec<_> = self.latencies.iter().map(of).collect();
            all.sort();
            all[all.len() / 2]
        };
        (median(|latency| latency.0), median(|latency| latency.1))
    }
}

fn pool_bytes(runtime: &Native) -> i64 {
    runtime.core().pool().usage().live_bytes as i64
}

fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[expect(clippy::disallowed_methods, reason = "a latency is of the real clock")]
async fn request(victim: &mut TcpStream) -> (Duration, Duration) {
    let begin = (Instant::now(), worked());
    victim.send(GET).await.expect("nobody ends it");
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n/some") {
        said.extend_from_slice(&victim.recv().await.expect("in order").expect("a response"));
    }
    assert!(said.starts_with(b"HTTP/1.1 200 "));
    (begin.0.elapsed(), worked() - begin.1)
}

/// The victim makes requests while `peer` does what it does, connection after connection.
async fn beside(
    (runtime, server): (&Native, &Served),
    victim: &mut TcpStream,
    seen: &mut Seen,
    mut peer: impl AsyncFnMut() + 'static,
) {
    // Of the peer before nothing is left, so that what there is now is the victim's.
    while server.handle.connections() > 1 {
        turn().await;
    }
    let stop = Rc::new(Cell::new(false));
    let stopped = stop.clone();
    restart_peak();
    let before = (allocated().live_bytes, pool_bytes(runtime));
    let task = runtime.core().spawn(async move {
        let mut connections = 0;
        while !stopped.get() {
            peer().await;
            connections += 1;
        }
        connections
    });
    let mut pool = before.1;
    for _ in 0..REQUESTS {
        let latency = request(victim).await;
        seen.latencies.push(latency);
        pool = pool.max(pool_bytes(runtime));
    }
    stop.set(true);
    seen.connections += task.await.expect("it does not panic");
    seen.grown_bytes = seen.grown_bytes.max(allocated().peak_bytes - before.0 + pool - before.1);
}

const ROUNDS: usize = 3;
const REQUESTS: usize = 15;
const MAX_GROWN_BYTES: i64 = 8 << 20;

#[test]
fn a_flood_ends_its_connection_alone_and_others_hardly_notice() {
    Rig { patience: Some(Duration::from_secs(300)), ..Rig::default() }.each(async |runtime| {
        let server = Rc::new(serve(&runtime, "", ""));
        let mut victim = server.connect(&runtime).await;
        for _ in 0..REQUESTS {
            request(&mut victim).await;
        }
        for flood in floods() {
            let flood = Rc::new(flood);
            let (mut calm, mut flooded) = (Seen::default(), Seen::default());
            for _ in 0..ROUNDS {
                let (core, of) = (runtime.clone(), server.clone());
                let count = flood.budget;
                let peer = async move || ask(&core, &of, count).await;
                beside((&runtime, &server), &mut victim, &mut calm, peer).await;
                let (core, of, sent) = (runtime.clone(), server.clone(), flood.clone());
                let peer = async move || {
                    let code = attack(&core, &of, &sent).await;
                    assert_eq!(code, ENHANCE_YOUR_CALM, "{}", sent.name);
                };
                beside((&runtime, &server), &mut victim, &mut flooded, peer).await;
            }
            let (beside_calm, beside_flood) = (calm.medians(), flooded.medians());
            let ratio = beside_flood.1.as_secs_f64() / beside_calm.1.as_secs_f64();
            println!(
                "{:20} {:4} frames: {} of {} requests answered, in {:.1?} ({:.1?} of work) beside {} floods, in {:.1?} ({:.1?}) \
                 beside {} peers: {ratio:.2}; memory grew by {} KiB at most",
                flood.name,
                flood.budget,
                flooded.latencies.len(),
                ROUNDS * REQUESTS,
                beside_flood.0,
                beside_flood.1,
                flooded.connections,
                beside_calm.0,
                beside_calm.1,
                calm.connections,
                flooded.grown_bytes / 1024,
            );
            assert!(ratio <= 2.0, "{}: {ratio}", flood.name);
            assert!(flooded.grown_bytes < MAX_GROWN_BYTES, "{}: {}", flood.name, flooded.grown_bytes);
            assert!(flooded.connections > 0);
        }
        drop(victim);
        let Ok(server) = Rc::try_unwrap(server) else { panic!("all peers have ended") };
        server.end().await;
    });
}

/// Who opens no window, and sends nothing more, costs the time that the spec gives: its streams are reset, then it is told.
#[test]
fn a_window_that_never_opens_ends_in_time() {
    each(async |runtime| {
        let server = serve(&runtime, "", ", timeouts: {writeIdle: 200ms, keepAliveIdle: 200ms}");
        let mut client = server.connect(&runtime).await;
        let requests: Vec<u8> = (0..50).flat_map(|at| get(at * 2 + 1, "/big")).collect();
        let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &ZERO_WINDOW), &requests].concat();
        client.send(bytes).await.expect("open");
        let (mut frames, mut resets, mut codes) = (Frames::default(), 0, Vec::new());
        while let Some(frame) = frames.next(&mut client).await {
            match frame.kind {
                RST_STREAM => resets += 1,
                GOAWAY => codes.push(frame.code()),
                DATA => assert!(frame.payload.is_empty(), "there is no room"),
                _ => {}
            }
        }
        assert_eq!((resets, &codes[..]), (50, &[NO_ERROR][..]));
        drop(client);
        server.end().await;
    });
}
