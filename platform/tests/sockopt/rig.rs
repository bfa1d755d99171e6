//! Sockets to try options on, and threads with a network, descriptors or privileges of their own.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;

use ringport_platform::driver::ConnectAddr;
use ringport_platform::socket::{
    DialOptions, Ends, ListenOptions, LocalAddr, OpenError, Opened, PacketEnds, local_addr, open_dialled,
    open_listener, open_packet,
};
use ringport_platform::sockopt::{Family, Kind, Opt, OptFault, OptSet, Role, Setting, Target};

pub(crate) const BACKLOG: ListenOptions = ListenOptions { backlog: 64, reuse_port: false };

/// A set of these settings, all of which are in range.
pub(crate) fn set_of(settings: &[(Opt, Setting)]) -> OptSet {
    let mut set = OptSet::new();
    for (opt, setting) in settings {
        set.insert(*opt, setting.clone()).unwrap_or_else(|fault| panic!("{fault}"));
    }
    set
}

/// A socket of some sort on loopback, at a port of the kernel's choice, with these options.
pub(crate) fn open(target: Target, set: &OptSet) -> Result<Opened, OpenError> {
    let addr = any_of(target.family, target.kind);
    match (target.kind, target.role) {
        (Kind::Stream | Kind::Seqpacket, Role::Listener) => open_listener(&addr, target.kind, BACKLOG, set),
        (Kind::Stream | Kind::Seqpacket, _) => {
            open_dialled(&addr, DialOptions { kind: target.kind, local: None, options: set, read_back: true })
        }
        (Kind::Datagram, _) => match addr {
            ConnectAddr::Inet(addr) => open_packet(&PacketEnds::Udp(Ends::Bound(addr)), set),
            ConnectAddr::Unix(path) => open_packet(&PacketEnds::Unixgram(Ends::Bound(path)), set),
        },
        (Kind::Raw, _) => match addr {
            ConnectAddr::Inet(addr) => {
                open_packet(&PacketEnds::Ip { protocol: 1, ends: Ends::Bound(addr.ip()) }, set)
            }
            ConnectAddr::Unix(_) => unreachable!("raw sockets are of IP"),
        },
    }
}

/// An address of this family; of Unix an abstract one that the kernel chooses.
fn any_of(family: Family, kind: Kind) -> ConnectAddr {
    let any: SocketAddr = match family {
        Family::V4 => "127.0.0.1:0".parse().unwrap(),
        Family::V6 => "[::1]:0".parse().unwrap(),
        Family::Dual => "[::]:0".parse().unwrap(),
        Family::Unix => return unnamed(&format!("{kind:?}")),
    };
    ConnectAddr::Inet(any)
}

/// An abstract name that no other test has.
pub(crate) fn unnamed(what: &str) -> ConnectAddr {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    ConnectAddr::Unix(format!("\0ringport-sockopt-{}-{what}-{next}", std::process::id()).into_bytes())
}

pub(crate) fn inet(fd: BorrowedFd<'_>) -> SocketAddr {
    match local_addr(fd).unwrap() {
        LocalAddr::Inet(addr) => addr,
        LocalAddr::Unix(path) => panic!("a Unix socket at {path:?}"),
    }
}

/// What the kernel holds, past the code under test.
pub(crate) fn raw_int(fd: BorrowedFd<'_>, level: i32, number: i32) -> i32 {
    let mut value = 0i32;
    let mut len = 4;
    // SAFETY: the kernel writes at most four bytes of `value`, during the call only.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, number, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(done, 0, "({level}, {number}): {}", io::Error::last_os_error());
    value
}

/// Whether a program that is executed does not get the descriptor.
pub(crate) fn closed_on_exec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: asks for a flag and touches no memory.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    flags & libc::FD_CLOEXEC != 0
}

/// Waits until a socket can be read, for 10 s.
pub(crate) fn readable(fd: BorrowedFd<'_>) {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one descriptor, read and written during the call only.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
    assert_eq!(ready, 1, "nothing came");
}

pub(crate) fn opts_of(faults: &[OptFault]) -> Vec<Opt> {
    faults.iter().map(OptFault::opt).collect()
}

pub(crate) fn sysctl(path: &str) -> i64 {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).unwrap();
    text.trim().parse().unwrap()
}

/// Runs `case` in a network namespace of its own, whose loopback is up. Namespaces belong to threads.
pub(crate) fn in_namespace(case: impl FnOnce() + Send + 'static) {
    on_thread(move || {
        // SAFETY: changes this thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return skipped(format!("no network namespace: {}", io::Error::last_os_error()));
        }
        ip(&["link", "set", "lo", "up"]);
        case();
    });
}

pub(crate) fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().unwrap();
    assert!(done.success(), "ip {arguments:?}");
}

/// Runs `case` on a thread with a table of descriptors of its own, and says how many more are open after it.
pub(crate) fn leaked_fds(case: impl FnOnce() + Send + 'static) -> usize {
    on_thread(move || {
        // SAFETY: changes this thread alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        let count = || fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let before = count();
        case();
        count().checked_sub(before).expect("a descriptor was closed that was not opened")
    })
}

/// Runs `case` on a thread that lacks `CAP_NET_ADMIN` and `CAP_NET_RAW`. capset(2) is of the thread.
pub(crate) fn without_privilege(case: impl FnOnce() + Send + 'static) {
    on_thread(move || {
        drop_network_capabilities();
        case();
    });
}

fn drop_network_capabilities() {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_NET_RAW: u32 = 13;
    // `_LINUX_CAPABILITY_VERSION_3`, this thread; then effective, permitted and inheritable, low and high.
    let header = [0x2008_0522u32, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: the kernel reads `header` and writes the 24 bytes of `sets`, during the call only.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0, "{}", io::Error::last_os_error());
    sets[0][0] &= !(1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW);
    // SAFETY: the kernel reads both during the call only.
    let put = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(put, 0, "{}", io::Error::last_os_error());
}

/// Whether options that need `CAP_NET_ADMIN` can be tried; says so where not.
pub(crate) fn privileged(what: &str) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let privileged = u64::from_str_radix(line.trim(), 16).unwrap() >> 12 & 1 == 1;
    if !privileged {
        skipped(format!("{what}: CAP_NET_ADMIN is missing"));
    }
    privileged
}

pub(crate) fn skipped(why: impl std::fmt::Display) {
    let case = std::thread::current();
    let _ = writeln!(io::stderr(), "skipped {}: {why}", case.name().unwrap_or("a case"));
}

/// A failure on the thread is the test's.
fn on_thread<T: Send + 'static>(case: impl FnOnce() -> T + Send + 'static) -> T {
    let name = std::thread::current().name().unwrap_or("a case").to_owned();
    match std::thread::Builder::new().name(name).spawn(case).unwrap().join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
