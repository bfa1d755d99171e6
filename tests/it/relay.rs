//! Two streams joined, copied or past user space: what comes in bulk, in crumbs, and in turns of both.

use ringport::net::{self, RelayError, Relayed};
use ringport::runtime::native::{CoreSpec, Native};
use ringport::runtime::{ListenOptions, Listener, Runtime};

use super::rig::{Pattern, Rig, TcpStream, any_port, families, join, pair, pair_at, read_all};

/// With splice and without.
fn each(case: impl AsyncFn(Native)) {
    for max_pipes in [CoreSpec::default().max_pipes, 0] {
        println!("pipes: {max_pipes}");
        let core = CoreSpec { max_pipes, ..CoreSpec::default() };
        Rig { core, ..Rig::default() }.each(&case);
    }
}

fn spliced(runtime: &Native) -> u64 {
    runtime.core().stats().spliced_bytes.load()
}

/// Says `parts`, each so many bytes, waits for as many from the other side where it is told to, and ends.
async fn talk(stream: &mut TcpStream, seed: u64, parts: &[usize], answers: usize) {
    let mut pattern = Pattern::new(seed);
    for part in parts {
        stream.send(pattern.take(*part)).await.expect("open");
        let mut answer = vec![0; answers];
        stream.read_exact(&mut answer).await.expect("an answer");
    }
    stream.shutdown().await.expect("open");
}

#[test]
fn a_relay_passes_bulk_and_both_ends() {
    const PARTS: [usize; 64] = [1 << 18; 64];
    const BYTES: u64 = 64 << 18;
    each(async |runtime: Native| {
        for addr in families() {
            let before = spliced(&runtime);
            let ((mut client, mut near), (mut far, mut server)) =
                (pair_at(&runtime, &addr).await, pair(&runtime).await);
            let relaying = async { net::relay(&mut near, &mut far).await.expect("nobody fails") };
            let (relayed, ()) = join(relaying, async {
                let ((), asked) = join(talk(&mut client, 1, &PARTS, 0), read_all(&mut server)).await;
                assert!(asked == Pattern::new(1).take(BYTES as usize));
                // The client has ended; the server only begins.
                let ((), answer) = join(talk(&mut server, 2, &PARTS, 0), read_all(&mut client)).await;
                assert!(answer == Pattern::new(2).take(BYTES as usize));
            })
            .await;
            assert_eq!(relayed, Relayed { to_second: BYTES, to_first: BYTES });
            let spliced = spliced(&runtime) - before;
            let off = runtime.core().stats().pipes.load() == 0;
            assert_eq!(spliced == 0, off, "{spliced} bytes were spliced");
            assert!(off || spliced > BYTES, "{spliced} of {BYTES} twice");
        }
    });
}

/// Small messages are cheaper copied, so a relay that has spliced goes back.
#[test]
fn a_relay_follows_what_it_carries() {
    each(async |runtime: Native| {
        let ((mut client, mut near), (mut far, mut server)) = (pair(&runtime).await, pair(&runtime).await);
        let serving = async {
            let (mut pattern, mut total) = (Pattern::new(1), 0);
            for (round, len) in rounds() {
                let mut asked = vec![0; len];
                server.read_exact(&mut asked).await.expect("all of it");
                assert!(asked == pattern.take(len), "round {round}");
                server.send(vec![round as u8; 1]).await.expect("open");
                total += len as u64;
            }
            assert!(server.recv().await.expect("an end in order").is_none());
            server.shutdown().await.expect("open");
            total
        };
        let lens: Vec<usize> = rounds().map(|(_, len)| len).collect();
        let relaying = async { net::relay(&mut near, &mut far).await.expect("nobody fails") };
        let (relayed, (total, ())) = join(relaying, join(serving, talk(&mut client, 1, &lens, 1))).await;
        assert_eq!(relayed, Relayed { to_second: total, to_first: lens.len() as u64 });
        // Of a hundred crumbs in a row the first few went the way of the bulk before them.
        let bulk = rounds().filter(|(_, len)| *len > 1000).map(|(_, len)| len as u64).sum::<u64>();
        assert!(spliced(&runtime) < bulk + 2 * 20 * 100);
    });
}

/// io_uring cuts what comes where a chunk of the pool is full, so that a stream of bulk has a crumb now and then: each began
/// the count anew, and a single stream was copied for ever.
#[test]
fn a_crumb_between_does_not_keep_bulk_from_being_spliced() {
    Rig::default().each(async |runtime: Native| {
        let lens: Vec<usize> = [20 << 10, 20 << 10, 20 << 10, 804].repeat(20);
        let total: usize = lens.iter().sum();
        let ((mut client, mut near), (mut far, mut server)) = (pair(&runtime).await, pair(&runtime).await);
        let serving = async {
            for len in &lens {
                server.read_exact(&mut vec![0; *len]).await.expect("all of it");
                server.send([1].as_slice()).await.expect("open");
            }
            server.shutdown().await.expect("open");
        };
        let relaying = async { net::relay(&mut near, &mut far).await.expect("nobody fails") };
        let (_, ((), ())) = join(relaying, join(serving, talk(&mut client, 1, &lens, 1))).await;
        assert!(spliced(&runtime) > total as u64 / 2, "{} of {total}", spliced(&runtime));
    });
}

/// Bulk, crumbs, bulk, crumbs.
fn rounds() -> impl Iterator<Item = (usize, usize)> {
    (0..200).map(|round| (round, if round % 100 == 0 { 8 << 20 } else { 100 }))
}

#[test]
fn what_was_received_before_goes_first() {
    each(async |runtime: Native| {
        let ((mut client, mut near), (mut far, mut server)) = (pair(&runtime).await, pair(&runtime).await);
        client.send(&b"before"[..]).await.expect("open");
        assert!(near.fill().await.expect("open"));
        let relaying = async { net::relay(&mut near, &mut far).await.expect("nobody fails") };
        let (relayed, ()) = join(relaying, async {
            client.send(&b" and behind"[..]).await.expect("open");
            client.shutdown().await.expect("open");
            assert_eq!(read_all(&mut server).await, b"before and behind");
            server.shutdown().await.expect("open");
        })
        .await;
        assert_eq!(relayed, Relayed { to_second: 17, to_first: 0 });
    });
}

#[test]
fn a_failure_says_which_stream() {
    each(async |runtime: Native| {
        for first in [true, false] {
            for bulk in [1, 2 << 20] {
                let ((mut client, mut near), (mut far, mut server)) =
                    (pair(&runtime).await, pair(&runtime).await);
                let relaying = net::relay(&mut near, &mut far);
                let (end, ()) = join(relaying, async {
                    let mut read = vec![0; bulk];
                    let sent = client.send(vec![1; bulk]);
                    let (sent, read) = join(sent, server.read_exact(&mut read)).await;
                    sent.and(read).expect("open");
                    if first { client.reset() } else { server.reset() }
                })
                .await;
                match end {
                    Err(RelayError::First(_)) => assert!(first),
                    Err(RelayError::Second(_)) => assert!(!first),
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

/// One that does not read holds its own sender back, for as long as it likes, and nothing turns meanwhile.
#[test]
fn a_slow_reader_gets_everything() {
    const BYTES: usize = 24 << 20;
    each(async |runtime: Native| {
        let mut listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
        let addr = listener.local_addr().expect("it listens").into();
        let (client, near) = join(net::connect(&runtime, &addr), net::accept(&runtime, &mut listener)).await;
        let (mut client, mut near) = (client.expect("it listens"), near.expect("a client"));
        let (mut far, mut server) = pair(&runtime).await;
        let relaying = async { net::relay(&mut near, &mut far).await.expect("nobody fails") };
        let (_, ((), ())) = join(
            relaying,
            join(talk(&mut client, 3, &[BYTES / 4; 4], 0), async {
                let mut pattern = Pattern::new(3);
                let mut part = vec![0; BYTES / 64];
                for _ in 0..64 {
                    runtime.sleep(std::time::Duration::from_millis(2)).await;
                    server.read_exact(&mut part).await.expect("all of it");
                    assert!(part == pattern.take(BYTES / 64));
                }
                server.shutdown().await.expect("open");
            }),
        )
        .await;
    });
}
