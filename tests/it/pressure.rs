//! Slow readers, greedy readers, and a pool that is too small for them.

use std::future::poll_fn;
use std::pin::pin;

use ringport::buf::PoolSpec;
use ringport::net::{Dialer, Listener};
use ringport::runtime::{Transport, TxLevel};
use ringport::spec::{Format, ListenSpec};

use super::rig::{Pattern, Rig, each, join, now, pair, turn};

#[test]
fn a_slow_reader_holds_back_its_own_peer_only() {
    each(async |runtime| {
        let (mut near, mut slow) = pair(&runtime).await;
        let (mut other, mut other_far) = pair(&runtime).await;
        slow.transport().set_rx_limit(10_000);
        // The first poll asks for bytes; after that nobody takes any.
        near.send(&b"x"[..]).await.expect("open");
        assert_eq!(&*slow.recv().await.expect("open").expect("bytes"), b"x");
        near.tx().push(Pattern::new(9).take(32 << 20));
        near.start_send().expect("open");

        let stats = runtime.core().stats().clone();
        let before = stats.received_bytes.load();
        for round in 0..500u32 {
            other.send(round.to_le_bytes().to_vec()).await.expect("open");
            let mut echo = [0; 4];
            other_far.read_exact(&mut echo).await.expect("not held back");
            assert_eq!(u32::from_le_bytes(echo), round);
        }
        let taken = stats.received_bytes.load() - before - 500 * 4;
        assert!(taken <= 10_000, "{taken} bytes were taken for a reader that does not read");
        let sent = now(|cx| near.poll_flush(cx, TxLevel::Below(1 << 20))).await;
        assert!(sent.is_pending(), "the writer waits");

        let (mut pattern, mut count) = (Pattern::new(9), 0);
        while count < 32 << 20 {
            let bytes = slow.recv().await.expect("open").expect("bytes");
            pattern.check(&bytes);
            count += bytes.len();
        }
        near.flush().await.expect("all is read");
    });
}

const SMALL: PoolSpec = PoolSpec { chunk_bytes: 16 * 1024, min_chunks: 2, max_chunks: 16 };

/// A read longer than the pool once held every chunk, and then waited for one.
#[test]
fn a_long_read_leaves_the_pool_to_others() {
    let rig = Rig { pool: SMALL, ..Rig::default() };
    rig.each(async |runtime| {
        let (mut near, mut far) = pair(&runtime).await;
        let (mut other, mut other_far) = pair(&runtime).await;
        let len = 4 << 20;
        let long = async {
            let mut read = vec![0; len];
            far.read_exact(&mut read).await.expect("all of it comes");
            Pattern::new(10).check(&read);
        };
        let feed = async {
            let mut pattern = Pattern::new(10);
            for _ in 0..64 {
                near.send(pattern.take(len / 64)).await.expect("open");
                other.send(&b"meanwhile"[..]).await.expect("open");
                let mut nine = [0; 9];
                other_far.read_exact(&mut nine).await.expect("others are served");
            }
        };
        join(long, feed).await;
    });
}

/// Many streams that nobody reads share a pool that is far too small for them.
#[test]
fn a_crowd_of_slow_readers_does_not_starve_the_rest() {
    let rig = Rig { pool: SMALL, ..Rig::default() };
    rig.each(async |runtime| {
        let mut crowd = Vec::new();
        for _ in 0..40 {
            let (mut near, mut far) = pair(&runtime).await;
            near.send(&b"x"[..]).await.expect("open");
            far.recv().await.expect("open");
            near.tx().push(vec![1; 200_000]);
            near.start_send().expect("open");
            crowd.push((near, far));
        }
        let (mut other, mut other_far) = pair(&runtime).await;
        for _ in 0..200 {
            other.send(&b"meanwhile"[..]).await.expect("open");
            let mut nine = [0; 9];
            other_far.read_exact(&mut nine).await.expect("others are served");
            turn().await;
        }
        for (_, far) in &mut crowd {
            let mut read = vec![0; 200_000];
            far.read_exact(&mut read).await.expect("all of it comes");
            assert!(read.iter().all(|&byte| byte == 1));
        }
    });
}

/// Headers that never become whole lie in no chunk that others need.
#[test]
fn half_proxy_headers_leave_the_pool_to_others() {
    let rig = Rig { pool: SMALL, ..Rig::default() };
    rig.each(async |runtime| {
        let spec = "{addr: '127.0.0.1:0', proxyProtocol: {trusted: [127.0.0.1], timeout: 60s}}";
        let spec = ListenSpec::from_text(spec, Format::Yaml, "f").expect("a spec");
        let mut listener = Listener::from_spec(&spec, &runtime).expect("a listener");
        let to = format!("tcp://{}", listener.local_addr()).parse().expect("a target");
        let dialer = Dialer::new(&runtime);
        // Version 2, PROXY, TCP over IPv4, 4,000 bytes of which half come.
        let half = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xa0"[..], &[0; 2_000]].concat();
        let mut halves = Vec::new();
        for _ in 0..160 {
            let mut dialling = pin!(async {
                let mut stream = dialer.dial(&to).await.expect("a connection");
                stream.send(half.clone()).await.expect("open");
                stream
            });
            let stream = poll_fn(|cx| {
                assert!(listener.poll_accept(cx).is_pending(), "no header is whole");
                dialling.as_mut().poll(cx)
            });
            halves.push(stream.await);
        }
        let (mut other, mut other_far) = pair(&runtime).await;
        let data = vec![7; 200_000];
        let feed = other.send(data.clone());
        let mut read = vec![0; data.len()];
        let take = other_far.read_exact(&mut read);
        let (sent, taken) = runtime
            .core()
            .timeout(std::time::Duration::from_secs(20), join(feed, take))
            .await
            .expect("a pool");
        sent.expect("open");
        taken.expect("open");
        assert!(read == data);
        drop(halves);
    });
}
