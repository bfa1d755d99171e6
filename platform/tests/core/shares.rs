//! One listening socket for several cores: who is given what, and what the end of a core leaves to the others.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ringport_platform::core::{Accepted, Core, ListenShare, ShareSock, StreamSock};
use ringport_platform::driver::ConnectAddr;
use ringport_platform::fd::AsFd;
use ringport_platform::launch::{CoreContext, Launched, launch};
use ringport_platform::socket::{ListenOptions, LocalAddr, listen, local_addr};
use ringport_platform::sockets::ACCEPT_QUEUE_LIMIT;

use super::launching::{each as each_launch, join};
use super::rig::{each, echo, polled, send, turns, until};

const BACKLOG: i32 = 1024;

fn shares(count: usize) -> (Vec<ListenShare>, SocketAddr) {
    let any = ConnectAddr::Inet((Ipv4Addr::LOCALHOST, 0).into());
    let fd = listen(&any, ListenOptions { backlog: BACKLOG, reuse_port: false }).unwrap();
    let LocalAddr::Inet(addr) = local_addr(fd.as_fd()).unwrap() else { panic!("not inet") };
    (ListenShare::group(fd, count), addr)
}

/// Two shares on one core, both of which want connections.
async fn two(core: &Core) -> (ShareSock, ShareSock, SocketAddr) {
    let (mut group, addr) = shares(2);
    let mut open = || ShareSock::new(core, group.remove(0), BACKLOG).unwrap();
    let (mut first, mut second) = (open(), open());
    assert_eq!(first.local_addr().unwrap(), LocalAddr::Inet(addr));
    assert!(polled(first.accept(), 1).await.is_none() && polled(second.accept(), 1).await.is_none());
    (first, second, addr)
}

fn clients(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = || {
        let client = TcpStream::connect(addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    };
    std::iter::repeat_with(connect).take(count).collect()
}

/// What was given out, and where it goes back: nobody else can have it.
async fn next(sock: &mut ShareSock) -> Accepted {
    sock.accept().await.expect("a connection")
}

#[test]
fn those_with_room_are_dealt_to_in_turn_and_no_more_is_taken() {
    each(|core| async move {
        let (mut first, mut second, addr) = two(&core).await;
        first.set_room(3);
        second.set_room(2);
        let _clients = clients(addr, 9);
        until(|| (first.queued(), second.queued()) == (3, 2)).await;
        // Looked at again and again: what is beyond the room stays where it is. Of that a burst may have taken a part.
        turns(50).await;
        assert_eq!(second.queued(), 2);
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(next(&mut first).await);
        }
        second.set_room(4);
        until(|| second.queued() == 6).await;
        for _ in 0..6 {
            kept.push(next(&mut second).await);
        }
        assert_eq!((first.queued(), second.queued()), (0, 0));
        drop((first, second));
        until(|| core.task_count() == 0).await;
    });
}

#[test]
fn connections_that_are_open_are_spread_evenly() {
    each(|core| async move {
        let (mut first, mut second, addr) = two(&core).await;
        let mut all = clients(addr, 8);
        let mut of_first = Vec::new();
        let mut of_second = Vec::new();
        for _ in 0..4 {
            of_first.push(StreamSock::new(&core, next(&mut first).await).unwrap());
            of_second.push(StreamSock::new(&core, next(&mut second).await).unwrap());
        }
        // Three of the second end: it has three more before the two take turns again.
        of_second.truncate(1);
        for count in 1..=3 {
            all.extend(clients(addr, 1));
            until(|| second.queued() == count).await;
        }
        assert_eq!(first.queued(), 0);
        all.extend(clients(addr, 2));
        until(|| (first.queued(), second.queued()) == (1, 4)).await;
        drop((first, second, of_first, of_second));
        until(|| core.task_count() == 0).await;
    });
}

/// The acceptor's own share is dropped: it goes on for the other, which has what waited.
#[test]
fn what_waits_for_a_share_that_is_dropped_goes_to_the_other() {
    each(|core| async move {
        let (first, mut second, addr) = two(&core).await;
        let mut all = clients(addr, 10);
        until(|| first.queued() + second.queued() == 10).await;
        drop(first);
        assert_eq!(second.queued(), 10);
        all.extend(clients(addr, 10));
        for client in 0..20 {
            let sock = StreamSock::new(&core, next(&mut second).await).unwrap();
            send(&sock, [client]);
        }
        assert!(polled(second.accept(), 3).await.is_none());
        drop(second);
        let mut seen: Vec<_> = all.iter_mut().map(read_byte).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<u8>>());
        until(|| core.task_count() == 0).await;
    });
}

fn read_byte(client: &mut TcpStream) -> u8 {
    let mut byte = [0];
    client.read_exact(&mut byte).expect("it was served");
    byte[0]
}

/// A share's queue is bounded. What is beyond it waits in the kernel, or with the acceptor, whose bursts are a listener's.
#[test]
fn what_is_beyond_a_full_queue_is_not_lost() {
    each(|core| async move {
        let (mut first, mut second, addr) = two(&core).await;
        second.pause();
        let mut all = clients(addr, 2 * ACCEPT_QUEUE_LIMIT);
        until(|| first.queued() >= ACCEPT_QUEUE_LIMIT).await;
        all.extend(clients(addr, 300));
        turns(50).await;
        assert!(first.queued() <= all.len() && second.queued() == 0);
        for _ in 0..all.len() {
            drop(next(&mut first).await);
        }
        assert!(polled(first.accept(), 3).await.is_none());
        drop((first, second));
        until(|| core.task_count() == 0).await;
    });
}

#[test]
fn a_drain_gives_all_that_has_come() {
    each(|core| async move {
        let (mut first, mut second, addr) = two(&core).await;
        let mut all = clients(addr, 7);
        until(|| first.queued() + second.queued() == 7).await;
        first.pause();
        second.pause();
        turns(5).await;
        // These wait in the kernel, or with the acceptor.
        all.extend(clients(addr, 6));
        let mut taken = Vec::new();
        while let Some(accepted) = poll_fn(|cx| first.poll_drain(cx)).await.unwrap() {
            taken.push(accepted);
        }
        assert!(taken.len() <= 7, "the other may still take");
        drop(first);
        while let Some(accepted) = poll_fn(|cx| second.poll_drain(cx)).await.unwrap() {
            taken.push(accepted);
        }
        assert_eq!(taken.len(), 13);
        drop(second);
        until(|| core.task_count() == 0).await;
        TcpStream::connect(addr).expect_err("nobody listens");
    });
}

/// What several cores did, seen from outside.
struct Served {
    launched: Launched,
    addr: SocketAddr,
    /// Connections that each core has been given.
    given: Arc<Vec<AtomicUsize>>,
    end_of_first: Arc<AtomicBool>,
}

/// Cores that echo. Core 0 is the acceptor; once it is told to, `first_ends` is how it ends.
fn serve(spec: ringport_platform::launch::LaunchSpec, first_ends: fn() -> io::Result<()>) -> Served {
    let cores = spec.cores;
    let (group, addr) = shares(cores);
    let group: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(group.into_iter().map(Some).collect()));
    let given: Arc<Vec<AtomicUsize>> = Arc::new((0..cores).map(|_| AtomicUsize::new(0)).collect());
    let (end_of_first, wanting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let launched = launch(spec, {
        let (given, end_of_first, wanting) = (given.clone(), end_of_first.clone(), wanting.clone());
        move |context: CoreContext| {
            let (given, end_of_first, wanting) = (given.clone(), end_of_first.clone(), wanting.clone());
            let share = group.lock().unwrap()[context.index].take().unwrap();
            async move {
                until(|| wanting.load(Ordering::SeqCst) >= context.index).await;
                let mut sock = ShareSock::new(&context.core, share, BACKLOG)?;
                assert!(polled(sock.accept(), 1).await.is_none());
                wanting.fetch_add(1, Ordering::SeqCst);
                let mut drain = std::pin::pin!(context.drain.wait());
                loop {
                    let taken = poll_fn(|cx| {
                        let ends = context.index == 0 && end_of_first.load(Ordering::SeqCst);
                        if ends || drain.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(None);
                        }
                        sock.poll_accept(cx).map(Some)
                    });
                    let Some(accepted) = taken.await else { break };
                    given[context.index].fetch_add(1, Ordering::SeqCst);
                    drop(context.core.spawn(echo(StreamSock::new(&context.core, accepted?)?)));
                }
                if context.index == 0 { first_ends() } else { Ok(()) }
            }
        }
    })
    .unwrap();
    while wanting.load(Ordering::SeqCst) < cores {
        std::thread::yield_now();
    }
    Served { launched, addr, given, end_of_first }
}

fn ask(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).expect("it is served");
    assert_eq!(back, bytes);
}

#[test]
fn each_of_three_cores_has_a_third() {
    each_launch(3, |spec| {
        let served = serve(spec, || Ok(()));
        let mut all = Vec::new();
        for round in 0..60_u8 {
            all.extend(clients(served.addr, 1));
            ask(all.last_mut().unwrap(), &[round; 64]);
        }
        let given: Vec<_> = served.given.iter().map(|given| given.load(Ordering::SeqCst)).collect();
        assert_eq!(given, [20; 3]);
        // Attached where they are served, and nowhere else.
        for stats in served.launched.stats() {
            assert_eq!(stats.received_bytes.load(), 20 * 64);
        }
        drop(all);
        served.launched.drain(Duration::from_secs(5));
        join(served.launched);
    });
}

/// Whatever becomes of the core that accepts, the others are given connections.
fn the_first_core_goes(spec: ringport_platform::launch::LaunchSpec, how: fn() -> io::Result<()>) {
    let served = serve(spec, how);
    let mut all = clients(served.addr, 6);
    all.iter_mut().for_each(|client| ask(client, b"before"));
    served.end_of_first.store(true, Ordering::SeqCst);
    served.launched.remotes()[0].call(|_| ());
    // It looks at that when it is woken; a connection may be what wakes it, and is then cut with the core.
    let gone = served.launched.remotes()[0].clone();
    let mut woken = Vec::new();
    while gone.call(|_| ()) {
        woken.extend(TcpStream::connect(served.addr));
        std::thread::yield_now();
    }
    let before = served.given[1].load(Ordering::SeqCst);
    let mut later = clients(served.addr, 50);
    later.iter_mut().for_each(|client| ask(client, b"after"));
    assert!(served.given[1].load(Ordering::SeqCst) >= before + 50);
    let stays = all.iter_mut().filter_map(|client| {
        let mut back = [0; 4];
        let asked = client.write_all(b"more").and_then(|()| client.read_exact(&mut back));
        asked.ok().map(|()| assert_eq!(&back, b"more"))
    });
    assert_eq!(stays.count(), 3, "those of the other core live on");
    drop((all, later, woken));
    served.launched.drain(Duration::from_secs(5));
    served.launched.join();
}

#[test]
fn a_core_that_ends_leaves_the_socket_to_the_others() {
    each_launch(2, |spec| the_first_core_goes(spec, || Ok(())));
}

#[test]
fn a_core_that_panics_leaves_the_socket_to_the_others() {
    each_launch(2, |spec| the_first_core_goes(spec, || panic!("on purpose")));
}
