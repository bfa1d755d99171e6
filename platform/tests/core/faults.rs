//! What kernels seldom do, forced on a core: never visible to its tasks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use ringport_platform::core::{Connecting, Core, ShutdownReport, StreamSock};
use ringport_platform::driver::ConnectAddr;
use ringport_platform::driver::faulty::{Fault, Faulty, Step};
use ringport_platform::errno;
use ringport_platform::op::OpKind;
use ringport_platform::stats::CoreStats;

use super::rig::{
    Setup, connect, each_wrapped, echo, flush, listen, pair, pattern, recv, send, turns, until,
};

fn each_faulty<F: Future>(
    plan: &[Step],
    case: impl Fn(Core) -> F + Sync,
    counted: impl Fn(&CoreStats) + Sync,
) {
    let wrap = |inner| Box::new(Faulty::new(inner, plan.to_vec())) as Box<_>;
    each_wrapped(Setup::default(), wrap, case, |report, stats| {
        assert_eq!(report, ShutdownReport::default());
        counted(stats);
    });
}

fn step(kind: OpKind, nth: u64, fault: Fault) -> Step {
    Step { kind, nth, fault }
}

/// Eight clients over one listener, each of which gets back what it sent.
async fn serve_eight(core: Core) {
    let (mut listener, addr) = listen(&core);
    let clients = thread::spawn(move || {
        (0..8_usize)
            .map(|n| {
                let (mut client, bytes) = (TcpStream::connect(addr).unwrap(), pattern(50_000 + n * 1_111));
                let mut writer = client.try_clone().unwrap();
                let expected = bytes.clone();
                thread::spawn(move || writer.write_all(&bytes).unwrap());
                let mut back = vec![0; expected.len()];
                client.read_exact(&mut back).unwrap();
                assert!(back == expected, "client {n}");
            })
            .count()
    });
    for _ in 0..8 {
        let accepted = listener.accept().await.unwrap();
        drop(core.spawn(echo(StreamSock::new(&core, accepted).unwrap())));
    }
    until(|| clients.is_finished() && core.task_count() == 0).await;
    clients.join().unwrap();
}

#[test]
fn receives_that_starve_end_or_come_late_lose_nothing() {
    let plan: Vec<Step> = (1..60)
        .map(|nth| {
            let fault = match nth % 4 {
                0 => Fault::Starve,
                1 => Fault::LoseMore,
                2 => Fault::Late { turns: 1 + nth as u32 % 5 },
                _ => Fault::LoseMore,
            };
            step(OpKind::Recv, nth, fault)
        })
        .collect();
    each_faulty(&plan, serve_eight, |_| {});
}

#[test]
fn short_and_late_sends_lose_nothing() {
    let mut plan: Vec<Step> = (1..40)
        .map(|nth| step(OpKind::Send, nth, Fault::ShortSend([0, 1, 999, 4_096][nth as usize % 4])))
        .collect();
    plan.extend((1..40).step_by(3).map(|nth| step(OpKind::Send, nth, Fault::Late { turns: 3 })));
    each_faulty(&plan, serve_eight, |stats| assert!(stats.sent_bytes.load() >= 8 * 50_000));
}

#[test]
fn accepts_that_fail_for_want_of_descriptors_go_on() {
    let plan = [
        step(OpKind::Accept, 1, Fault::OutOfFds),
        step(OpKind::Accept, 2, Fault::Errno(errno::ENFILE)),
        step(OpKind::Accept, 3, Fault::LoseMore),
        step(OpKind::Accept, 5, Fault::Errno(errno::ENOBUFS)),
        step(OpKind::Accept, 6, Fault::Late { turns: 4 }),
        step(OpKind::Accept, 7, Fault::LoseMore),
    ];
    each_faulty(&plan, serve_eight, |stats| {
        assert!(stats.accept_paused.load() >= 3, "each pause is counted");
        assert_eq!(stats.accepted.load(), 8);
    });
}

#[test]
fn cancels_that_lose_the_race_close_all_the_same() {
    let plan: Vec<Step> = (1..40)
        .flat_map(|nth| {
            [OpKind::Recv, OpKind::Send, OpKind::Accept, OpKind::Connect]
                .map(|kind| step(kind, nth, Fault::CancelRace))
        })
        .collect();
    each_faulty(
        &plan,
        |core| async move {
            let (mut listener, addr) = listen(&core);
            for round in 0..20 {
                let client = connect(&core, addr).await.unwrap();
                let served = StreamSock::new(&core, listener.accept().await.unwrap()).unwrap();
                let mut queue = ringport_platform::buf::RxQueue::new();
                let _ = super::rig::polled(recv(&served, &mut queue, 10), 1).await;
                send(&client, b"late".repeat(round));
                turns(round % 3).await;
                if round % 2 == 0 {
                    served.reset()
                } else {
                    drop(served)
                };
                drop(client);
                listener.pause();
            }
        },
        |_| {},
    );
}

/// A connection that stands when nobody waits for it any more is closed, and counted.
#[test]
fn a_connection_that_comes_too_late_is_released() {
    each_faulty(
        &[step(OpKind::Connect, 1, Fault::Late { turns: 5 })],
        |core| async move {
            let (_listener, addr) = listen(&core);
            let connecting = Connecting::start(&core, &ConnectAddr::Inet(addr)).unwrap();
            turns(2).await;
            drop(connecting);
            until(|| core.socket_count() == 1).await;
        },
        |stats| assert_eq!(stats.orphans_released.load(), 1),
    );
}

#[test]
fn an_error_of_one_socket_is_told_to_its_task() {
    let plan = [
        step(OpKind::Recv, 1, Fault::Errno(errno::ETIMEDOUT)),
        step(OpKind::Send, 1, Fault::Errno(errno::ECONNRESET)),
        step(OpKind::Connect, 1, Fault::Errno(errno::EHOSTUNREACH)),
    ];
    each_faulty(
        &plan,
        |core| async move {
            let (sock, mut peer) = pair(&core);
            peer.write_all(b"hello").unwrap();
            let mut queue = ringport_platform::buf::RxQueue::new();
            let error = recv(&sock, &mut queue, 10).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno::ETIMEDOUT));
            send(&sock, *b"hello");
            let error = flush(&sock).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno::ECONNRESET));
            assert!(sock.has_news());
            let (_listener, addr) = listen(&core);
            let error = connect(&core, addr).await.err().expect("forced");
            assert_eq!(error.raw_os_error(), Some(errno::EHOSTUNREACH));
        },
        |_| {},
    );
}
