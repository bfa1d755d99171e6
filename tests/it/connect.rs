//! Connects that fail, take too long, or are given up; connections that are reset.

use std::future::Future;
use std::io;
use std::time::Duration;

use ringport::net;
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, Runtime};

use super::rig::{any_port, each, families, now, pair, pair_at, turn};

#[test]
fn nobody_listens() {
    each(async |runtime| {
        for addr in families() {
            let mut listener = runtime.listen(&addr, ListenOptions::default()).expect("a free address");
            let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
            drop(std::mem::replace(
                &mut listener,
                runtime.listen(&any_port(), ListenOptions::default()).expect("free"),
            ));
            // The descriptor is closed with the next turn.
            turn().await;
            let error = net::connect(&runtime, &addr).await.err().expect("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{addr:?}: {error}");
        }
        let absent = ConnectAddr::Unix(b"/nowhere/at/all".to_vec());
        let error = net::connect(&runtime, &absent).await.err().expect("no such path");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let long = ConnectAddr::Unix(vec![b'x'; 200]);
        let error = net::connect(&runtime, &long).await.err().expect("longer than sun_path");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn an_address_is_taken_once() {
    each(async |runtime| {
        let listener = runtime.listen(&any_port(), ListenOptions::default()).expect("a free port");
        let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
        let error = runtime.listen(&addr, ListenOptions::default()).err().expect("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

/// With nobody to accept, the kernel drops the SYN of a connect once the backlog is full.
#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    each(async |runtime| {
        let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
        let listener = runtime.listen(&any_port(), options).expect("a free port");
        let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
        let (mut waiting, mut given_up) = (Vec::new(), 0);
        for _ in 0..4 {
            match runtime.core().timeout(Duration::from_millis(100), net::connect(&runtime, &addr)).await {
                Ok(stream) => waiting.push(stream.expect("the kernel queues it")),
                Err(_) => given_up += 1,
            }
        }
        assert!(given_up >= 2, "{} of 4 connected", waiting.len());
    });
}

#[test]
fn a_connect_may_be_dropped_at_any_point() {
    each(async |runtime| {
        for addr in families() {
            let mut listener = runtime.listen(&addr, ListenOptions::default()).expect("a free address");
            let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
            for turns in 0..4 {
                let mut connecting = Box::pin(net::connect(&runtime, &addr));
                for _ in 0..turns {
                    if now(|cx| connecting.as_mut().poll(cx)).await.is_ready() {
                        break;
                    }
                    turn().await;
                }
            }
            // Those that the kernel had queued end at once; the connection that was not given up works.
            let mut kept = net::connect(&runtime, &addr).await.expect("it listens");
            kept.send(&b"kept"[..]).await.expect("open");
            loop {
                let mut stream = net::accept(&runtime, &mut listener).await.expect("it listens");
                if let Ok(Some(bytes)) = stream.recv().await {
                    assert_eq!(&*bytes, b"kept");
                    break;
                }
            }
        }
    });
}

#[test]
fn a_reset_is_told_apart_from_an_end() {
    each(async |runtime| {
        let (near, mut far) = pair(&runtime).await;
        near.reset();
        let error = far.recv().await.expect_err("not an end in order");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = far.recv().await.expect_err("the same again");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        // What waits is dropped, so that the peer cannot take it for the whole.
        let (mut near, mut far) = pair(&runtime).await;
        near.tx().push(vec![1; 8 << 20]);
        near.start_send().expect("open");
        turn().await;
        near.reset();
        let error = loop {
            match far.recv().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the peer took a part for the whole"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_writer_learns_that_its_reader_has_gone() {
    each(async |runtime| {
        for addr in families() {
            let (mut near, far) = pair_at(&runtime, &addr).await;
            drop(far);
            let error = loop {
                let sent = async {
                    near.send(vec![0; 100_000]).await?;
                    near.flush().await
                };
                if let Err(error) = sent.await {
                    break error;
                }
            };
            let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(gone.contains(&error.kind()), "{addr:?}: {error}");
            near.flush().await.expect_err("the same again");
        }
    });
}
