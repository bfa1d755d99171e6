//! Slow readers, small pools, few descriptors: a peer stops its own socket and no other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use ringport_platform::buf::{PoolSpec, RxQueue, TxQueue};
use ringport_platform::core::{Accepted, Core, StreamSock};

use super::rig::{
    Setup, alone, aside, each, each_with, echo, flush, pair, pattern, polled, raw_pair, read_aside, recv,
    recv_exact, recv_to_end, send, turns, until,
};

const TINY: PoolSpec = PoolSpec { chunk_bytes: 4096, min_chunks: 0, max_chunks: 8 };

fn tiny() -> Setup {
    Setup { pool: TINY, ..Setup::default() }
}

/// What a peer can write to nobody is bounded by its socket's limit and the kernel's buffers.
#[test]
fn a_slow_reader_stops_its_own_peer() {
    each(|core| async move {
        let (sock, mut peer) = narrow_pair(&core);
        sock.set_rx_limit(16 * 1024);
        let mut queue = RxQueue::new();
        assert!(polled(recv(&sock, &mut queue, 1), 1).await.is_none());
        let writer = thread::spawn(move || peer.write_all(&pattern(1 << 19)));
        until(|| core.stats().received_bytes.load() >= 8 * 1024).await;
        turns(200).await;
        // Above the limit only where io_uring does not count, and then by what one turn brings.
        let received = core.stats().received_bytes.load();
        assert!(received < 1 << 18, "{received} bytes wait for nobody");
        assert!(!writer.is_finished());
        assert!(recv_to_end(&sock).await == pattern(1 << 19));
        writer.join().unwrap().unwrap();
    });
}

/// Eight chunks, and twenty sockets that are full of what nobody reads: another is served all the same.
#[test]
fn slow_readers_do_not_starve_the_pool() {
    each_with(tiny(), |core| async move {
        let mut slow = Vec::new();
        for n in 0..20_u8 {
            let (sock, mut peer) = pair(&core);
            let mut queue = RxQueue::new();
            assert!(polled(recv(&sock, &mut queue, 1), 1).await.is_none());
            peer.write_all(&vec![n; 100_000]).unwrap();
            slow.push((sock, peer));
            turns(2).await;
        }
        serve_one(&core, 100).await;
        for (n, (sock, peer)) in (0..).zip(slow) {
            drop(peer);
            assert!(recv_to_end(&sock).await == vec![n; 100_000], "socket {n}");
        }
    });
}

/// The same with peers that do not read what is passed on to them: their queues hold views of the pool.
#[test]
fn peers_that_do_not_read_do_not_starve_the_pool() {
    each_with(tiny(), |core| async move {
        let mut stuck = Vec::new();
        for n in 0..20_u8 {
            let (source, mut feeder) = pair(&core);
            let (sink, reader) = narrow_pair(&core);
            send(&sink, vec![n; 1 << 20]);
            turns(4).await;
            // The sink is full: what is passed on now waits behind it.
            feeder.write_all(&vec![n; 30_000]).unwrap();
            let (mut rx, mut tx, mut moved) = (RxQueue::new(), TxQueue::new(core.pool().clone()), 0);
            while moved < 30_000 {
                assert!(recv(&source, &mut rx, usize::MAX).await.unwrap());
                while let Some(buf) = rx.pop(usize::MAX) {
                    moved += buf.len();
                    tx.push(buf);
                }
                sink.send(&mut tx).unwrap();
            }
            stuck.push((n, sink, reader));
        }
        serve_one(&core, 100).await;
        for (n, sink, reader) in stuck {
            let reading = read_aside(reader);
            flush(&sink).await.unwrap();
            drop(sink);
            until(|| reading.is_finished()).await;
            let got = reading.join().unwrap().unwrap();
            assert!(got.len() == (1 << 20) + 30_000 && got.iter().all(|byte| *byte == n), "peer {n}");
        }
    });
}

/// A pair whose kernel buffers fill at once.
fn narrow_pair(core: &Core) -> (StreamSock, TcpStream) {
    let (ours, peer) = raw_pair();
    socket2::SockRef::from(&ours).set_send_buffer_size(16 * 1024).unwrap();
    socket2::SockRef::from(&peer).set_send_buffer_size(16 * 1024).unwrap();
    (StreamSock::new(core, Accepted::from_fd(ours)).unwrap(), peer)
}

/// Echoes `rounds` times over a socket of its own.
async fn serve_one(core: &Core, rounds: u8) {
    let (sock, mut peer) = pair(core);
    let echoing = core.spawn(echo(sock));
    aside(move || {
        for round in 0..rounds {
            peer.write_all(&[round; 3_000]).unwrap();
            let mut back = [0; 3_000];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(back, [round; 3_000]);
        }
    })
    .await;
    assert_eq!(echoing.await, Ok(3_000 * usize::from(rounds)));
}

/// A socket whose reader keeps every chunk of the pool.
async fn hoard(core: &Core) -> (StreamSock, RxQueue, TcpStream) {
    let (hog, mut peer) = pair(core);
    // A chunk at a time, so that none waits in the socket, from where it could be copied.
    hog.set_rx_limit(TINY.chunk_bytes);
    peer.write_all(&pattern(100_000)).unwrap();
    let mut hoard = RxQueue::new();
    while core.stats().pool_parked.load() == 0 || hoard.len() < 6 * 4_096 {
        polled(recv(&hog, &mut hoard, usize::MAX), 2).await;
    }
    turns(10).await;
    assert_eq!(core.stats().pool_parked.load(), 1);
    (hog, hoard, peer)
}

/// A reader holds every chunk of the pool; three hundred sockets wait for one, and all get theirs when it lets go.
#[test]
fn a_pool_at_its_cap_recovers() {
    each_with(tiny(), |core| async move {
        let (_hog, hoard, _hog_peer) = hoard(&core).await;
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for n in 0..300_u32 {
            let (sock, mut peer) = pair(&core);
            peer.write_all(&n.to_ne_bytes()).unwrap();
            tasks.push(core.spawn(async move { (recv_exact(&sock, 4).await, sock) }));
            peers.push(peer);
        }
        turns(10).await;
        assert!(tasks.iter().all(|task| !task.is_finished()));
        assert!(core.stats().pool_parked.load() >= 300, "{}", core.stats().pool_parked.load());
        let starved = core.stats().pool_starved.load();
        drop(hoard);
        for (n, task) in (0..300_u32).zip(tasks) {
            let (got, _sock) = task.await.unwrap();
            assert_eq!(got, n.to_ne_bytes());
        }
        // Each that waited was asked a few times, not once for each of the others.
        let asked = core.stats().pool_starved.load() - starved;
        assert!(asked < 3_000, "{asked} receives starved again");
        assert_eq!(core.stats().pool_parked.load(), 0);
    });
}

/// Sockets that go while they wait for the pool leave nothing in its line.
#[test]
fn parked_sockets_can_be_dropped() {
    each_with(tiny(), |core| async move {
        let (_hog, hoard, _hog_peer) = hoard(&core).await;
        for _ in 0..20 {
            let socks: Vec<_> = (0..20)
                .map(|_| {
                    let (sock, mut peer) = pair(&core);
                    peer.write_all(b"never read").unwrap();
                    (sock, peer)
                })
                .collect();
            let mut queue = RxQueue::new();
            for (sock, _) in &socks {
                assert!(polled(recv(sock, &mut queue, 1), 1).await.is_none());
            }
            turns(3).await;
            drop(socks);
        }
        until(|| core.socket_count() == 1).await;
        assert!(core.stats().pool_parked.load() <= 1);
        drop(hoard);
        serve_one(&core, 3).await;
    });
}

/// A stream that floods takes turns with one that says little.
#[test]
fn a_flood_does_not_silence_a_quiet_socket() {
    each(|core| async move {
        let (flooded, mut flood) = pair(&core);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flooding = thread::spawn({
            let stop = stop.clone();
            move || {
                let bytes = vec![1; 64 * 1024];
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && flood.write_all(&bytes).is_ok() {}
            }
        });
        let sink = core.spawn(async move { recv_to_end(&flooded).await.len() });
        until(|| core.stats().received_bytes.load() > 1 << 20).await;
        serve_one(&core, 50).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(sink.await.unwrap() > 1 << 20);
        flooding.join().unwrap();
    });
}

/// Runs a case that is ignored here.
pub(crate) fn in_a_process_of_its_own(case: &str) {
    let _alone = alone();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--ignored", "--test-threads=1", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{output:?}");
}
