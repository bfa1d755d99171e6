//! What the cases ask of Windows alone, the cases that only Windows has, and the list of those that it cannot have.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::windows::io::AsRawHandle;
use std::time::Duration;

use ringport_platform::buf::RxQueue;
use ringport_platform::core::{Accepted, Connecting, ListenSock, StreamSock};
use ringport_platform::driver::ConnectAddr;
use ringport_platform::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use ringport_platform::process::open_fd_count;
use ringport_platform::socket::{ListenOptions, listen as listen_fd};
use ringport_platform::sockopt::Opt;
use windows_sys::Win32::System::Threading::{GetCurrentThread, SetThreadAffinityMask};

use super::drivers::skipped;
use super::pressure::in_a_process_of_its_own;
use super::rig::{each, pair, polled, raw_pair, recv, recv_exact, turns, until};

/// A receive buffer as large as a flood: nobody is refused one.
pub(crate) const ROOM_FOR_A_FLOOD: Opt = Opt::SoRcvbuf;

/// How many handles are open: they have no names that could be told apart.
pub(crate) fn descriptors() -> usize {
    open_fd_count().expect("the system counts them")
}

/// The processors that the calling thread may run on.
pub(crate) fn processors() -> Vec<usize> {
    let ours = ringport_platform::process::available_cores().unwrap();
    let all = ours.iter().fold(0, |mask, core| mask | 1 << core);
    // SAFETY: a pseudo handle, which needs no closing; no memory is involved. A set tells which was before.
    let before = unsafe { SetThreadAffinityMask(GetCurrentThread(), all) };
    assert_ne!(before, 0);
    // SAFETY: as above.
    assert_ne!(unsafe { SetThreadAffinityMask(GetCurrentThread(), before) }, 0);
    ours.into_iter().filter(|core| before >> core & 1 == 1).collect()
}

/// Cases of Linux, and why they are not here.
const NOT_ON_WINDOWS: [&str; 18] = [
    "cores_share_a_port_and_each_serves: no option shares a port among listeners; one accepts, and hands over",
    "descriptors_that_a_peer_sends_are_not_taken: no handle travels with a datagram",
    "a_listener_recovers_from_a_lack_of_descriptors: no process can limit its handles; the fault is forced instead",
    "a_relay_passes_everything_and_both_ends: no splice(2)",
    "receives_and_splices_take_turns_and_lose_nothing: no splice(2)",
    "what_follows_a_limit_is_received_as_ever: no splice(2)",
    "an_end_before_the_limit_is_told_and_received_again: no splice(2)",
    "a_slow_sink_stops_its_source_without_spinning: no splice(2)",
    "a_fast_relay_leaves_the_others_their_turns: no splice(2)",
    "failures_name_their_side: no splice(2)",
    "a_splice_dropped_with_bytes_under_way_resets_the_sink: no splice(2)",
    "a_splice_dropped_while_it_waits_leaves_both_sockets_whole: no splice(2)",
    "sockets_closed_under_a_splice_are_gone: no splice(2)",
    "an_urgent_mark_is_left_to_receives: no splice(2)",
    "a_lack_of_descriptors_is_no_failure: no splice(2)",
    "a_process_that_a_signal_would_end_copies: no splice(2)",
    "a_core_that_ends_cuts_what_is_under_way: no splice(2)",
    "a_gibibyte_comes_through_whole: no splice(2)",
];

/// So that the count of cases is that of epoll but for what is printed.
#[test]
fn what_is_not_on_windows_is_told() {
    NOT_ON_WINDOWS.iter().for_each(skipped);
}

/// A descriptor that the driver refuses is closed, and its slot is free again: a handle of the port has one already.
#[test]
fn what_cannot_be_attached_is_closed() {
    each(|core| async move {
        let (ours, mut peer) = raw_pair();
        let again = ours.try_clone().unwrap();
        let sock = StreamSock::new(&core, Accepted::from_fd(ours)).unwrap();
        assert!(StreamSock::new(&core, Accepted::from_fd(again)).is_err());
        assert_eq!(core.socket_count(), 1);
        peer.write_all(b"fine").unwrap();
        assert_eq!(recv_exact(&sock, 4).await, b"fine");
    });
}

/// Refused where it is made, with a sentence, and nothing is left of it.
#[test]
fn a_unix_listener_is_refused() {
    each(|core| async move {
        let addr = ConnectAddr::Unix(b"\0ringport-core".to_vec());
        let told = [
            listen_fd(&addr, ListenOptions { backlog: 16, reuse_port: false }).err().unwrap(),
            Connecting::start(&core, &addr).err().unwrap(),
        ];
        for error in told {
            assert!(error.to_string().contains("Unix"), "{error}");
        }
        assert_eq!(core.socket_count(), 0);
    });
}

/// There is no splice(2): a relay is told at once, and copies.
#[test]
fn without_a_pipe_it_is_to_be_copied() {
    each(|core| async move {
        let ((from, _client), (to, _server)) = (pair(&core), pair(&core));
        assert!(from.splice_to(&to).is_none());
    });
}

/// A handle that is closed behind everybody's back may be another case's a moment later, so this one has a process of its own.
#[test]
fn a_failed_listener_does_not_spin() {
    in_a_process_of_its_own("os::listener_closed_under_its_accepts");
}

/// A listener whose handle is gone says so once for each accept, and is not armed in vain meanwhile.
#[test]
#[ignore = "closes a handle that others of the process could get; the test above runs it in a child"]
fn listener_closed_under_its_accepts() {
    each(|core| async move {
        let addr = ConnectAddr::Inet((Ipv4Addr::LOCALHOST, 0).into());
        let fd = listen_fd(&addr, ListenOptions { backlog: 16, reuse_port: false }).unwrap();
        let handle = fd.as_raw_fd();
        let mut listener = ListenSock::from_fd(&core, fd).unwrap();
        assert!(polled(listener.accept(), 1).await.is_none());
        turns(2).await;
        close_behind(handle);
        assert!(listener.accept().await.is_err());
        let syscalls = core.stats().syscalls.load();
        let turns = core.stats().turns.load();
        core.sleep(Duration::from_millis(50)).await;
        let (syscalls, turns) = (core.stats().syscalls.load() - syscalls, core.stats().turns.load() - turns);
        assert!(turns < 20 && syscalls < 60, "{turns} turns, {syscalls} system calls");
        assert!(listener.accept().await.is_err());
    });
}

/// A socket whose handle is closed under its receive fails, once, and its core goes on.
#[test]
fn a_socket_closed_under_its_receive_fails() {
    in_a_process_of_its_own("os::socket_closed_under_its_receive");
}

#[test]
#[ignore = "closes a handle that others of the process could get; the test above runs it in a child"]
fn socket_closed_under_its_receive() {
    each(|core| async move {
        let (ours, _peer) = raw_pair();
        let handle = ours.as_raw_fd();
        let sock = StreamSock::new(&core, Accepted::from_fd(ours)).unwrap();
        let mut queue = RxQueue::new();
        assert!(polled(recv(&sock, &mut queue, 100), 1).await.is_none());
        turns(2).await;
        close_behind(handle);
        assert!(recv(&sock, &mut queue, 100).await.is_err());
        drop(sock);
        until(|| core.socket_count() == 0).await;
        let (sock, mut peer) = pair(&core);
        peer.write_all(b"fine").unwrap();
        assert_eq!(recv_exact(&sock, 4).await, b"fine");
    });
}

/// Closes a handle that somebody else has. What opens files takes its number at once, so that no socket gets it, which its
/// owner would use and, in the end, close.
fn close_behind(handle: RawFd) {
    // SAFETY: whoever has it is about to be told that it is gone.
    drop(unsafe { OwnedFd::from_raw_fd(handle) });
    let mut others = Vec::new();
    for _ in 0..1_000 {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        if file.as_raw_handle() as usize == handle as usize {
            // Its owner closes it, in vain or in earnest.
            std::mem::forget(file);
            return;
        }
        others.push(file);
    }
    panic!("the number of a closed handle was not given again");
}
