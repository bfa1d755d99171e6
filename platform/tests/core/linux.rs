//! What the cases ask of Linux alone, and the cases that only Linux has.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringport_platform::core::{Accepted, ListenSock, StreamSock};
use ringport_platform::datagram::DatagramSock;
use ringport_platform::driver::ConnectAddr;
use ringport_platform::launch::{CoreContext, launch};
use ringport_platform::socket::{ListenOptions, listen as listen_fd};
use ringport_platform::sockopt::{Family, Kind, Opt, Role, Target};

use super::datagram::receive;
use super::launching::{each as each_launched, join};
use super::pressure::in_a_process_of_its_own;
use super::rig::{
    Setup, each, each_with, echo, listen, pair, pattern, polled, recv_exact, send, turns, until,
};

/// A receive buffer as large as a flood, whatever the system allows others.
pub(crate) const ROOM_FOR_A_FLOOD: Opt = Opt::SoRcvbufforce;

/// The numbers of all open descriptors.
pub(crate) fn descriptors() -> Vec<String> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("procfs");
    let mut names: Vec<String> = listed
        .map(|entry| entry.expect("entry").path())
        .filter_map(|path| Some(format!("{} {:?}", path.display(), std::fs::read_link(&path).ok()?)))
        // The list's own descriptor.
        .filter(|name| !name.contains("/fd\""))
        .collect();
    names.sort_unstable();
    names
}

/// The processors that the calling thread may run on.
pub(crate) fn processors() -> Vec<usize> {
    // SAFETY: a set of plain bits, which the kernel fills during the call, with the size that is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// Echoes on a listener of each core until the drain.
async fn serve(context: CoreContext, addr: SocketAddr, served: Arc<AtomicUsize>) -> io::Result<()> {
    let options = ListenOptions { backlog: 128, reuse_port: true };
    let mut listener = ListenSock::bind(&context.core, &ConnectAddr::Inet(addr), options)?;
    let mut drain = std::pin::pin!(context.drain.wait());
    loop {
        let next = std::future::poll_fn(|cx| match drain.as_mut().poll(cx) {
            std::task::Poll::Ready(()) => std::task::Poll::Ready(None),
            std::task::Poll::Pending => listener.poll_accept(cx).map(Some),
        });
        let Some(accepted) = next.await else { return Ok(()) };
        served.fetch_add(1, Ordering::Relaxed);
        drop(context.core.spawn(echo(StreamSock::new(&context.core, accepted?)?)));
    }
}

/// A port that several listeners may share from now on.
fn shared_port() -> (socket2::Socket, SocketAddr) {
    let holder = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    holder.set_reuse_port(true).unwrap();
    holder.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let addr = holder.local_addr().unwrap().as_socket().unwrap();
    (holder, addr)
}

#[test]
fn cores_share_a_port_and_each_serves() {
    each_launched(2, |spec| {
        let (_holder, addr) = shared_port();
        let counts: Arc<[Arc<AtomicUsize>; 2]> = Arc::default();
        let launched = launch(spec, {
            let counts = counts.clone();
            move |context| {
                let served = counts[context.index].clone();
                serve(context, addr, served)
            }
        })
        .unwrap();
        // The kernel spreads by a hash of the client's port: with enough clients each core gets some.
        let mut clients = Vec::new();
        while counts.iter().any(|count| count.load(Ordering::Relaxed) == 0) && clients.len() < 1_000 {
            let Ok(mut client) = TcpStream::connect(addr) else { continue };
            client.write_all(b"hello").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
            clients.push(client);
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0));
        let aborted = clients.len();
        launched.drain(Duration::from_secs(5));
        let reports = join(launched);
        assert_eq!(reports.iter().map(|report| report.tasks_aborted).sum::<usize>(), aborted);
        assert!(reports.iter().all(|report| report.sockets_reset == 0 && report.operations_leaked == 0));
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed, not reset");
        }
    });
}

/// A listener that fails says so once for each accept, and is not armed in vain meanwhile.
#[test]
fn a_failed_listener_does_not_spin() {
    each(|core| async move {
        let (mut listener, _) = listen(&core);
        assert!(polled(listener.accept(), 1).await.is_none());
        turns(2).await;
        let duplicate = listener.duplicate().unwrap();
        // SAFETY: the descriptor is open; no memory is passed.
        unsafe { libc::shutdown(duplicate.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
        assert!(listener.accept().await.is_err());
        let syscalls = core.stats().syscalls.load();
        let turns = core.stats().turns.load();
        core.sleep(Duration::from_millis(50)).await;
        let (syscalls, turns) = (core.stats().syscalls.load() - syscalls, core.stats().turns.load() - turns);
        assert!(turns < 20 && syscalls < 60, "{turns} turns, {syscalls} system calls");
        assert!(listener.accept().await.is_err());
    });
}

/// A descriptor that the driver refuses is closed, and its slot is free again.
#[test]
fn what_cannot_be_attached_is_closed() {
    each_with(Setup { only: |name| name == "epoll", ..Setup::default() }, |core| async move {
        // epoll refuses plain files (epoll_ctl(2), EPERM).
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(StreamSock::new(&core, Accepted::from_fd(file.into())).is_err());
        assert_eq!(core.socket_count(), 0);
        let (sock, mut peer) = pair(&core);
        peer.write_all(b"fine").unwrap();
        assert_eq!(recv_exact(&sock, 4).await, b"fine");
    });
}

#[test]
fn a_unix_listener_serves() {
    each(|core| async move {
        let name =
            format!("\0ringport-core-{}-{:p}", std::process::id(), Rc::as_ptr(&Rc::new(1_u64))).into_bytes();
        let addr = ConnectAddr::Unix(name);
        let fd = listen_fd(&addr, ListenOptions { backlog: 16, reuse_port: false }).unwrap();
        let mut listener = ListenSock::from_fd(&core, fd).unwrap();
        let client = ringport_platform::core::Connecting::start(&core, &addr).unwrap().await.unwrap();
        let served = StreamSock::new(&core, listener.accept().await.unwrap()).unwrap();
        let echoing = core.spawn(echo(served));
        send(&client, pattern(500_000));
        assert!(recv_exact(&client, 500_000).await == pattern(500_000));
        drop(client);
        assert_eq!(echoing.await, Ok(500_000));
    });
}

/// The limit is the process's, so this case runs in a process of its own.
#[test]
fn a_listener_recovers_from_a_lack_of_descriptors() {
    in_a_process_of_its_own("os::lack_of_descriptors");
}

#[test]
#[ignore = "lowers the limit of the whole process; the test above runs it in a child"]
fn lack_of_descriptors() {
    each(|core| async move {
        let (mut listener, addr) = listen(&core);
        let clients: Vec<_> = (0..30).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let limit = set_descriptor_limit(10);
        let mut served = Vec::new();
        while core.stats().accept_out_of_fds.load() == 0 {
            if let Some(accepted) = polled(listener.accept(), 1).await {
                served.push(StreamSock::new(&core, accepted.unwrap()).unwrap());
            }
            turns(1).await;
        }
        assert!(core.stats().accept_paused.load() > 0 && served.len() < clients.len());
        // It waits: an accept that fails again and again would turn and turn.
        let syscalls = core.stats().syscalls.load();
        core.sleep(Duration::from_millis(250)).await;
        assert!(core.stats().syscalls.load() - syscalls < 60, "it spins");
        // Each that goes makes room for one that waits.
        let mut count = 0;
        while count < clients.len() {
            drop(served.pop());
            while let Some(accepted) = polled(listener.accept(), 1).await {
                served.push(StreamSock::new(&core, accepted.unwrap()).unwrap());
            }
            count = core.stats().accepted.load() as usize;
            turns(1).await;
        }
        drop(served);
        until(|| core.socket_count() == 1).await;
        restore_descriptor_limit(limit);
    });
}

/// Leaves room for so many descriptors more; returns the limit before.
pub(crate) fn set_descriptor_limit(more: u64) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads and writes `limit` during the calls only; the duplicate is closed at once.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        let next = libc::dup(0);
        assert!(next > 0);
        libc::close(next);
        let low = libc::rlimit { rlim_cur: next as u64 + more, ..limit };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &low), 0);
    }
    limit
}

pub(crate) fn restore_descriptor_limit(limit: libc::rlimit) {
    // SAFETY: the kernel reads `limit` during the call only.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// unix(7) `SCM_RIGHTS`: who may send to a socket could fill the process's table of descriptors.
#[test]
fn descriptors_that_a_peer_sends_are_not_taken() {
    each(|core| async move {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a flag");
        let target = Target { family: Family::Unix, kind: Kind::Datagram, role: Role::Dialled };
        let socket = DatagramSock::new(&core, OwnedFd::from(ours), target, 8).expect("watched");
        let before = descriptors();
        send_descriptor(&theirs);
        let mut came = Vec::new();
        receive(&socket, &mut came).await.expect("a datagram");
        assert_eq!(&came[0].bytes[..], b"take this");
        assert_eq!(descriptors(), before);
    });
}

/// Sends a datagram with standard error's descriptor.
fn send_descriptor(socket: &UnixDatagram) {
    let mut control = [0u64; 4];
    let mut slice = libc::iovec { iov_base: b"take this".as_ptr().cast_mut().cast(), iov_len: 9 };
    // SAFETY: integers and raw pointers, of which all zeroes are values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: counts bytes, touches no memory.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as _;
    // SAFETY: the buffer has room for a header and a descriptor, and is aligned as they are.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(2);
    }
    // SAFETY: everything that the message names lives through the call, which only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    assert_eq!(sent, 9, "{}", io::Error::last_os_error());
}
