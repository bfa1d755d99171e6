//! Bytes that go from socket to socket past user space: none is lost, doubled or taken too many, whatever the receive
//! that was armed before was doing.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use ringport_platform::buf::{RxQueue, TxQueue};
use ringport_platform::core::{CoreSpec, StreamSock};
use ringport_platform::splice::{Moved, Splice, SpliceError};
use ringport_platform::stats::CoreStats;

use super::os::{restore_descriptor_limit, set_descriptor_limit};
use super::pressure::in_a_process_of_its_own;
use super::rig::{
    Setup, aside, each, each_with, each_wrapped, echo, flush, is_plain, pair, pattern, polled, read_aside,
    recv, recv_exact, recv_to_end, send, turns, until,
};

/// Bytes passed by hand before the splice, and past it; how it ended.
#[derive(Debug)]
struct Passed {
    copied: u64,
    spliced: u64,
    end: Result<Moved, SpliceError>,
}

/// Passes exactly `limit` bytes, or all until the end: first what has been received, then by splice.
async fn pass(from: &StreamSock, to: &StreamSock, limit: u64) -> Passed {
    let mut splice = from.splice_to(to).expect("not switched off");
    let copied = stop(&splice, from, to, limit).await;
    let mut passed = Passed { copied, spliced: 0, end: Ok(Moved::Bytes(0)) };
    while passed.copied + passed.spliced < limit {
        let left = limit - passed.copied - passed.spliced;
        match poll_fn(|cx| splice.poll_move(cx, left)).await {
            Ok(Moved::Bytes(count)) => passed.spliced += count,
            end => {
                passed.end = end;
                break;
            }
        }
    }
    passed
}

/// Waits until nothing is received any more, and passes on what was, at most `limit` bytes.
async fn stop(splice: &Splice, from: &StreamSock, to: &StreamSock, limit: u64) -> u64 {
    poll_fn(|cx| splice.poll_stopped(cx)).await;
    let (mut rx, mut tx, mut copied) = (RxQueue::new(), TxQueue::new(to.core().pool().clone()), 0);
    while copied < limit {
        match poll_fn(|cx| Poll::Ready(from.poll_recv(cx, &mut rx, (limit - copied) as usize))).await {
            Poll::Ready(Ok(true)) => {}
            // An end that came in time is not told again by the kernel.
            _ => break,
        }
        while let Some(buf) = rx.pop(usize::MAX) {
            copied += buf.len() as u64;
            tx.push(buf);
        }
    }
    to.send(&mut tx).expect("sent");
    flush(to).await.expect("sent");
    copied
}

/// Both ways between two sockets until both have ended, each end passed on as it comes. Returns the bytes of each way.
async fn relay(mut a: StreamSock, mut b: StreamSock) -> [u64; 2] {
    let (up, down) = (pass_on(&a, &b), pass_on(&b, &a));
    let (mut up, mut down) = (Some(up.await), Some(down.await));
    let (mut upward, mut downward) = (0, 0);
    poll_fn(|cx| {
        for (way, sink, moved) in [(&mut up, &mut b, &mut upward), (&mut down, &mut a, &mut downward)] {
            while let Some(splice) = way {
                match splice.poll_move(cx, u64::MAX) {
                    Poll::Ready(Ok(Moved::Bytes(count))) => *moved += count,
                    Poll::Ready(end) => {
                        assert!(matches!(end, Ok(Moved::End)), "{end:?}");
                        assert!(sink.poll_shutdown(cx).is_ready(), "nothing waits to be sent");
                        *way = None;
                    }
                    Poll::Pending => break,
                }
            }
        }
        if up.is_none() && down.is_none() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    [upward, downward]
}

async fn pass_on(from: &StreamSock, to: &StreamSock) -> Splice {
    let splice = from.splice_to(to).expect("not switched off");
    assert_eq!(stop(&splice, from, to, u64::MAX).await, 0, "nothing was received before");
    splice
}

#[test]
fn a_relay_passes_everything_and_both_ends() {
    const UP: usize = 5 << 20;
    const DOWN: usize = 3 << 20;
    each(|core| async move {
        let ((a, mut client), (b, mut server)) = (pair(&core), pair(&core));
        // The client has said everything, and ended, before the server begins to answer.
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).unwrap();
            pattern(DOWN).chunks(70_001).try_for_each(|part| server.write_all(part)).unwrap();
            asked
        });
        let client = thread::spawn(move || {
            pattern(UP).chunks(70_001).try_for_each(|part| client.write_all(part)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        assert_eq!(relay(a, b).await, [UP as u64, DOWN as u64]);
        assert_eq!(core.stats().spliced_bytes.load(), (UP + DOWN) as u64);
        let (asked, answer) = aside(move || (server.join().unwrap(), client.join().unwrap())).await;
        assert!(asked == pattern(UP) && answer == pattern(DOWN));
        assert!(core.stats().pipes.load() <= 2, "one way after the other needs one");
    });
}

/// A receive is armed, cancelled, and armed again while bytes stream in; each hands over to the next at any byte.
#[test]
fn receives_and_splices_take_turns_and_lose_nothing() {
    const ROUNDS: usize = 1500;
    each(|core| async move {
        let ((source, feeder), (sink, reader)) = (pair(&core), pair(&core));
        // Little is received at once, so that much is left to be spliced.
        source.set_rx_limit(2000);
        let reader = read_aside(reader);
        let mut random = Random(0x1234_5678_9abc_def1);
        println!("seed: {:x}", random.0);
        let plan: Vec<(usize, usize)> =
            (0..ROUNDS).map(|_| (random.below(3_000), 1 + random.below(9_000))).collect();
        let total: usize = plan.iter().map(|(received, spliced)| received + spliced).sum();
        let feeder = thread::spawn(move || {
            let mut feeder = feeder;
            let all = pattern(total);
            let mut rest = &all[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + random.below(20_000)).min(rest.len()));
                feeder.write_all(now).unwrap();
                rest = later;
                if random.below(4) == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut spliced = 0;
        for (round, (by_hand, rest)) in plan.into_iter().enumerate() {
            send(&sink, recv_exact(&source, by_hand).await);
            turns(round % 3).await;
            let passed = pass(&source, &sink, rest as u64).await;
            assert!(passed.end.is_ok() && passed.copied + passed.spliced == rest as u64, "{passed:?}");
            spliced += passed.spliced;
        }
        aside(move || feeder.join().unwrap()).await;
        assert!(
            polled(recv(&source, &mut RxQueue::new(), 1), 1).await.is_none_or(|end| matches!(end, Ok(false)))
        );
        drop(shutdown(sink).await);
        let got = aside(move || reader.join().unwrap()).await.unwrap();
        assert!(got == pattern(total), "the bytes differ");
        assert!(spliced > 0, "it was all received by hand");
    });
}

#[test]
fn what_follows_a_limit_is_received_as_ever() {
    each(|core| async move {
        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        let reader = read_aside(reader);
        feeder.write_all(&pattern(300_000)).unwrap();
        let passed = pass(&source, &sink, 299_990).await;
        assert_eq!(passed.copied + passed.spliced, 299_990);
        assert!(recv_exact(&source, 10).await == pattern(300_000)[299_990..]);
        drop(feeder);
        assert!(recv_to_end(&source).await.is_empty());
        drop(shutdown(sink).await);
        assert!(aside(move || reader.join().unwrap()).await.unwrap() == pattern(300_000)[..299_990]);
    });
}

#[test]
fn an_end_before_the_limit_is_told_and_received_again() {
    each(|core| async move {
        let ((source, mut feeder), (sink, _reader)) = (pair(&core), pair(&core));
        feeder.write_all(&pattern(1000)).unwrap();
        drop(feeder);
        let passed = pass(&source, &sink, 1001).await;
        assert_eq!(passed.copied + passed.spliced, 1000);
        assert!(matches!(passed.end, Ok(Moved::End)), "{passed:?}");
        assert!(recv_to_end(&source).await.is_empty(), "who receives again is told, too");
    });
}

/// Nothing turns while the sink is full: neither is the splice tried again and again, nor does more come.
#[test]
fn a_slow_sink_stops_its_source_without_spinning() {
    const BYTES: usize = 48 << 20;
    static SENT: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(BYTES));
    let sent: &'static [u8] = &SENT;
    each_with(usual(), move |core| async move {
        let ((source, mut feeder), (sink, mut reader)) = (pair(&core), pair(&core));
        let feeder = thread::spawn(move || feeder.write_all(sent).map(|()| feeder));
        let mut splice = source.splice_to(&sink).unwrap();
        stop(&splice, &source, &sink, u64::MAX).await;
        let moved = Rc::new(Cell::new(0_u64));
        let moving = core.spawn({
            let moved = moved.clone();
            async move {
                loop {
                    match poll_fn(|cx| splice.poll_move(cx, u64::MAX)).await {
                        Ok(Moved::Bytes(count)) => moved.set(moved.get() + count),
                        end => return end,
                    }
                }
            }
        });
        // Until a quarter of a second brings nothing more.
        let mut before = u64::MAX;
        while moved.get() != before || moved.get() == 0 {
            before = moved.get();
            core.sleep(Duration::from_millis(250)).await;
        }
        let stats = core.stats().clone();
        let busy = |stats: &CoreStats| stats.turns.load() + stats.completions.load();
        let quiet = busy(&stats);
        core.sleep(Duration::from_millis(250)).await;
        assert!(busy(&stats) - quiet < 20, "it spins");
        assert_eq!((moved.get(), stats.pipes.load()), (before, 1));
        assert!(!feeder.is_finished() && before < 40 << 20, "{before} bytes went to nobody");
        let reader = thread::spawn(move || {
            let mut all = vec![0; BYTES];
            reader.read_exact(&mut all).map(|()| all)
        });
        let got = aside(move || reader.join().unwrap()).await.unwrap();
        assert!(got == sent);
        drop(aside(move || feeder.join().unwrap()).await.unwrap());
        assert!(matches!(moving.await.unwrap(), Ok(Moved::End)));
    });
}

#[test]
fn a_fast_relay_leaves_the_others_their_turns() {
    each(|core| async move {
        let ((source, mut feeder), (sink, mut reader)) = (pair(&core), pair(&core));
        let sunk = thread::spawn(move || {
            let (mut buf, mut total) = (vec![0; 1 << 20], 0);
            while let Ok(count @ 1..) = reader.read(&mut buf) {
                total += count;
            }
            total
        });
        let feeder = thread::spawn(move || {
            let block = vec![7; 1 << 20];
            let mut written = 0;
            while feeder.write_all(&block).is_ok() {
                written += 1;
            }
            written
        });
        let mut splice = source.splice_to(&sink).unwrap();
        stop(&splice, &source, &sink, u64::MAX).await;
        let stats = core.stats().clone();
        let relaying = core.spawn(async move {
            let mut most_in_a_turn = 0;
            let (mut turn, mut in_turn) = (0, 0);
            loop {
                let moved = poll_fn(|cx| splice.poll_move(cx, u64::MAX)).await;
                let Ok(Moved::Bytes(count)) = moved else { return most_in_a_turn };
                if std::mem::replace(&mut turn, stats.turns.load()) != turn {
                    in_turn = 0;
                }
                in_turn += count;
                most_in_a_turn = in_turn.max(most_in_a_turn);
                if stats.spliced_bytes.load() > 64 << 20 {
                    return most_in_a_turn;
                }
            }
        });
        let (echoed, mut peer) = pair(&core);
        let echoing = core.spawn(echo(echoed));
        let rounds = aside(move || {
            for round in 0..100_u8 {
                peer.write_all(&[round; 100]).unwrap();
                let mut back = [0; 100];
                peer.read_exact(&mut back).unwrap();
                assert_eq!(back, [round; 100]);
            }
        });
        rounds.await;
        echoing.await.unwrap();
        let most = relaying.await.unwrap();
        // What was under way from the turn before may come on top.
        assert!(most <= 2 << 20, "{most} bytes in one turn");
        drop((source, sink));
        let _ = aside(move || (feeder.join().unwrap(), sunk.join().unwrap())).await;
    });
}

#[test]
fn failures_name_their_side() {
    each(|core| async move {
        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        feeder.write_all(&pattern(5000)).unwrap();
        let reading = read_aside(reader);
        let passing = core.spawn(async move { (pass(&source, &sink, u64::MAX).await, source, sink) });
        until(|| core.stats().received_bytes.load() >= 5000).await;
        reset(feeder);
        let (passed, source, sink) = passing.await.unwrap();
        match passed.end {
            Err(SpliceError::Source(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            end => panic!("{end:?}"),
        }
        // The sink is whole: what it was given it sends, and the caller says how it ends.
        drop((source, sink));
        assert!(aside(move || reading.join().unwrap()).await.unwrap() == pattern(5000));

        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        let passing = core.spawn(async move { (pass(&source, &sink, u64::MAX).await, source, sink) });
        reset(reader);
        // The first that is written meets the reset at the latest.
        while !passing.is_finished() {
            let _ = feeder.write_all(&[1; 1000]);
            turns(3).await;
        }
        let (passed, ..) = passing.await.unwrap();
        assert!(matches!(passed.end, Err(SpliceError::Sink(_))), "{passed:?}");
    });
}

/// Bytes that were taken from the source and that the sink never got would be missing in the middle of its stream.
#[test]
fn a_splice_dropped_with_bytes_under_way_resets_the_sink() {
    each(|core| async move {
        let ((source, mut feeder), (sink, mut reader)) = (pair(&core), pair(&core));
        let feeder = thread::spawn(move || feeder.write_all(&vec![0; 48 << 20]));
        let mut splice = source.splice_to(&sink).unwrap();
        stop(&splice, &source, &sink, u64::MAX).await;
        while splice.under_way() == 0 {
            polled(poll_fn(|cx| splice.poll_move(cx, u64::MAX)), 1).await.map(|moved| moved.unwrap());
            turns(1).await;
        }
        assert!(splice.is_sink_full());
        drop(splice);
        assert_eq!(core.stats().pipes.load(), 0, "what it held is gone with it");
        let mut tx = TxQueue::new(core.pool().clone());
        tx.push(vec![1, 2, 3]);
        assert_eq!(sink.send(&mut tx).unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(sink);
        let end = aside(move || std::io::copy(&mut reader, &mut std::io::sink())).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(source);
        aside(move || feeder.join().unwrap()).await.unwrap_err();
    });
}

#[test]
fn a_splice_dropped_while_it_waits_leaves_both_sockets_whole() {
    each(|core| async move {
        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        let reading = read_aside(reader);
        for round in 0..20 {
            let mut splice = source.splice_to(&sink).unwrap();
            assert!(source.splice_to(&sink).is_none(), "one at a time");
            if round % 2 == 0 {
                stop(&splice, &source, &sink, u64::MAX).await;
                assert!(polled(poll_fn(|cx| splice.poll_move(cx, u64::MAX)), round % 4 + 1).await.is_none());
            }
            drop(splice);
            feeder.write_all(&[round as u8; 10]).unwrap();
            send(&sink, recv_exact(&source, 10).await);
        }
        drop(shutdown(sink).await);
        let got = aside(move || reading.join().unwrap()).await.unwrap();
        assert!(got == (0..20).flat_map(|round| [round; 10]).collect::<Vec<u8>>());
    });
}

#[test]
fn sockets_closed_under_a_splice_are_gone() {
    each(|core| async move {
        let ((source, _feeder), (sink, _reader)) = (pair(&core), pair(&core));
        let mut splice = source.splice_to(&sink).unwrap();
        stop(&splice, &source, &sink, u64::MAX).await;
        assert!(polled(poll_fn(|cx| splice.poll_move(cx, 1)), 3).await.is_none());
        drop((source, sink));
        until(|| core.socket_count() == 0).await;
        let end = poll_fn(|cx| splice.poll_move(cx, 1)).await;
        assert!(matches!(end, Err(SpliceError::Source(_))), "{end:?}");
    });
}

/// splice(2) stops at an urgent mark for good; a receive drops the byte and goes on (tcp(7)).
#[test]
fn an_urgent_mark_is_left_to_receives() {
    each(|core| async move {
        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        let reading = read_aside(reader);
        feeder.write_all(b"before").unwrap();
        let mut splice = source.splice_to(&sink).unwrap();
        let mut passed = stop(&splice, &source, &sink, 6).await;
        while passed < 6 {
            let Ok(Moved::Bytes(count)) = poll_fn(|cx| splice.poll_move(cx, 100)).await else { panic!() };
            passed += count;
        }
        socket2::SockRef::from(&feeder).send_out_of_band(b"!").unwrap();
        feeder.write_all(b"behind").unwrap();
        assert_eq!(poll_fn(|cx| splice.poll_move(cx, 100)).await.unwrap(), Moved::Copy);
        drop(splice);
        send(&sink, recv_exact(&source, 6).await);
        drop(shutdown(sink).await);
        assert_eq!(aside(move || reading.join().unwrap()).await.unwrap(), b"beforebehind");
    });
}

/// A relay has a pipe only while its sink is full: two of those, and the third copies.
#[test]
fn without_a_pipe_it_is_to_be_copied() {
    let few = |max_pipes| Setup { core: CoreSpec { max_pipes, ..CoreSpec::default() }, ..Setup::default() };
    each_with(few(0), |core| async move {
        let ((source, _feeder), (sink, _reader)) = (pair(&core), pair(&core));
        assert!(source.splice_to(&sink).is_none());
    });
    each_with(few(2), |core| async move {
        let mut stuck = Vec::new();
        for _ in 0..2 {
            let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
            let feeder = thread::spawn(move || feeder.write_all(&vec![0; 48 << 20]));
            let mut splice = source.splice_to(&sink).unwrap();
            stop(&splice, &source, &sink, u64::MAX).await;
            while !splice.is_sink_full() {
                polled(poll_fn(|cx| splice.poll_move(cx, u64::MAX)), 1).await.map(|moved| moved.unwrap());
                turns(1).await;
            }
            stuck.push((splice, source, sink, reader, feeder));
        }
        let ((source, mut feeder), (sink, reader)) = (pair(&core), pair(&core));
        let passing = core.spawn(async move { (pass(&source, &sink, 3).await, source, sink, reader) });
        turns(5).await;
        feeder.write_all(b"abc").unwrap();
        let (passed, source, ..) = passing.await.unwrap();
        assert!(matches!(passed.end, Ok(Moved::Copy)), "{passed:?}");
        assert_eq!(recv_exact(&source, 3).await, b"abc", "no byte was under way");
        let feeders: Vec<_> = stuck.into_iter().map(|(_, _, _, _, feeder)| feeder).collect();
        aside(move || feeders.into_iter().for_each(|feeder| drop(feeder.join().unwrap()))).await;
    });
}

#[test]
fn a_lack_of_descriptors_is_no_failure() {
    in_a_process_of_its_own("splice::lack_of_descriptors");
}

#[test]
#[ignore = "lowers the limit of the whole process; the test above runs it in a child"]
fn lack_of_descriptors() {
    each(|core| async move {
        let ((source, mut feeder), (sink, _reader)) = (pair(&core), pair(&core));
        feeder.write_all(b"abc").unwrap();
        let limit = set_descriptor_limit(1);
        let passed = pass(&source, &sink, u64::MAX).await;
        restore_descriptor_limit(limit);
        assert!(matches!(passed.end, Ok(Moved::Copy)) && passed.spliced == 0, "{passed:?}");
        assert_eq!(core.stats().pipes.load(), 0);
        // With descriptors there are pipes again.
        feeder.write_all(b"def").unwrap();
        drop(feeder);
        let again = pass(&source, &sink, u64::MAX).await;
        assert_eq!(passed.copied + again.copied + again.spliced, 6);
    });
}

/// send(2) has a flag against the signal, splice(2) has none: a process that it would end copies.
#[test]
fn a_process_that_a_signal_would_end_copies() {
    in_a_process_of_its_own("splice::deadly_signal");
}

#[test]
#[ignore = "changes what a signal does to the whole process; the test above runs it in a child"]
fn deadly_signal() {
    let to = |action| {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGPIPE, action) }
    };
    let before = to(libc::SIG_DFL);
    each(|core| async move {
        let ((source, _feeder), (sink, _reader)) = (pair(&core), pair(&core));
        assert!(source.splice_to(&sink).is_none());
    });
    to(before);
    each(|core| async move {
        let ((source, _feeder), (sink, _reader)) = (pair(&core), pair(&core));
        assert!(source.splice_to(&sink).is_some());
    });
}

#[test]
fn a_core_that_ends_cuts_what_is_under_way() {
    let ended = |report: ringport_platform::core::ShutdownReport, _: &CoreStats| {
        assert_eq!((report.tasks_aborted, report.operations_leaked), (1, 0));
    };
    each_wrapped(
        Setup::default(),
        |driver| driver,
        |core| async move {
            let ((source, mut feeder), (sink, _reader)) = (pair(&core), pair(&core));
            feeder.write_all(b"abc").unwrap();
            core.spawn(async move { (pass(&source, &sink, u64::MAX).await, feeder, _reader) });
            until(|| core.stats().received_bytes.load() == 3).await;
        },
        ended,
    );
}

#[test]
fn a_gibibyte_comes_through_whole() {
    const BLOCK: usize = 1 << 20;
    let stamp = |at: u32, block: &mut [u8]| block[..4].copy_from_slice(&at.to_ne_bytes());
    each_with(usual(), |core| async move {
        let ((source, mut feeder), (sink, mut reader)) = (pair(&core), pair(&core));
        let feeder = thread::spawn(move || {
            let mut block = pattern(BLOCK);
            (0..1024).for_each(|at| {
                stamp(at, &mut block);
                feeder.write_all(&block).unwrap();
            });
        });
        let reader = thread::spawn(move || {
            let (mut block, mut found) = (pattern(BLOCK), vec![0; BLOCK]);
            (0..1024).for_each(|at| {
                stamp(at, &mut block);
                reader.read_exact(&mut found).unwrap();
                assert!(found == block, "block {at}");
            });
            assert_eq!(reader.read(&mut found).unwrap(), 0);
        });
        let passed = pass(&source, &sink, u64::MAX).await;
        assert!(
            matches!(passed.end, Ok(Moved::End)) && passed.copied + passed.spliced == 1 << 30,
            "{passed:?}"
        );
        drop(shutdown(sink).await);
        aside(move || (feeder.join().unwrap(), reader.join().unwrap())).await;
    });
}

/// The drivers as they are: for cases that take long.
fn usual() -> Setup {
    Setup { only: is_plain, ..Setup::default() }
}

fn reset(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn shutdown(mut sock: StreamSock) -> StreamSock {
    poll_fn(|cx| sock.poll_shutdown(cx)).await.expect("shut down");
    sock
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
