//! Runs a case on each driver, and looks at what it leaves behind.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ringport::buf::{Pool, PoolSpec};
use ringport::net::{self, Stream};
use ringport::runtime::native::{Core, CoreSpec, DriverChoice, DriverKind, Mechanisms, Native, NativeStream};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, Runtime};
use ringport_platform::core::ShutdownReport;
use ringport_platform::driver::open;
use ringport_platform::stats::CoreStats;

pub(crate) type TcpStream = Stream<NativeStream>;

/// How long a case may take: far more than any needs, so that only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a case is expected to leave.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rig {
    pub(crate) pool: PoolSpec,
    pub(crate) core: CoreSpec,
    /// Tasks that panic.
    pub(crate) panics: u64,
    /// How long the case may take; [`PATIENCE`] unless it says otherwise.
    pub(crate) patience: Option<Duration>,
    /// Whether the end of the core may cut tasks and reset sockets: the case looks at the report itself.
    pub(crate) cut: bool,
}

/// Descriptors are counted for the whole process, so one case runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Says on standard error itself that a case, or a part of it, does not run here: the harness would keep it to itself.
pub(crate) fn skipped(why: impl std::fmt::Display) {
    let case = std::thread::current();
    let _ = writeln!(io::stderr(), "skipped {}: {why}", case.name().unwrap_or("a case"));
}

/// Whether the case on this thread is none of this system's: then it is told.
pub(crate) fn is_elsewhere() -> bool {
    let why = if WINDOWS { super::windows::why_not() } else { None };
    why.inspect(|why| skipped(why)).is_some()
}

/// Whether this is Windows: Wine, more often than not.
pub(crate) const WINDOWS: bool = matches!(std::env::consts::OS.as_bytes(), b"windows");

/// The drivers of this system.
pub(crate) const DRIVERS: &[DriverKind] =
    if WINDOWS { &[DriverKind::Iocp] } else { &[DriverKind::Epoll, DriverKind::Uring] };

/// Keeps cases away that count descriptors, for one that starts cores by itself.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `case` once on each driver.
pub(crate) fn each(case: impl AsyncFn(Native)) {
    Rig::default().each(case);
}

impl Rig {
    pub(crate) fn each(self, case: impl AsyncFn(Native)) {
        if is_elsewhere() {
            return;
        }
        for kind in DRIVERS {
            self.on(*kind, &case);
        }
    }

    /// Runs `case` on this driver; `None` where the machine lacks it.
    pub(crate) fn on(self, kind: DriverKind, case: impl AsyncFn(Native)) -> Option<ShutdownReport> {
        let _alone = alone();
        let (fds, handles) = (open_fds(), handles());
        let (pool, stats) = (Pool::new(self.pool), Arc::new(CoreStats::default()));
        let driver = match open(DriverChoice::Only(kind), Mechanisms::NONE, &pool, &stats) {
            Ok(opened) => opened.driver,
            Err(error) if kind == DriverKind::Uring => {
                skipped(error);
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        println!("driver: {}", kind.name());
        let core = Core::new(driver, pool.clone(), stats.clone(), self.core);
        let runtime = Native::new(core.clone());
        let end = core
            .block_on(core.timeout(self.patience.unwrap_or(PATIENCE), case(runtime)))
            .expect("the driver works");
        end.unwrap_or_else(|_| panic!("the case hangs; {}", state(&stats)));
        let report = core.shutdown(PATIENCE).expect("the driver works");
        drop(core);

        assert_eq!(stats.task_panics.load(), self.panics, "tasks panicked");
        assert_eq!((report.operations_leaked, stats.leaked.load()), (0, 0), "the kernel kept something");
        if !self.cut {
            assert_eq!(report.sockets_reset, 0, "sockets were cut");
        }
        pool.release_idle();
        let usage = pool.usage();
        assert_eq!(usage.live_chunks, usage.free_chunks, "chunks are held");
        // A thread that looked a name up may be about to let go of this core's waker.
        for _ in 0..10_000 {
            if open_fds() == fds && self::handles() <= handles {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(open_fds(), fds, "descriptors are left");
        assert!(self::handles() <= handles, "{} handles were open, {} are left", handles, self::handles());
        Some(report)
    }
}

fn state(stats: &CoreStats) -> String {
    let entries = stats.entries().into_iter().filter(|(_, _, value)| *value > 0);
    entries.map(|(name, _, value)| format!("{name}={value} ")).collect()
}

/// What every descriptor of this process leads to, but for files: tests of specs read some at the same time.
/// None of Windows' handles, which lead nowhere that has a name.
pub(crate) fn open_fds() -> Vec<String> {
    if WINDOWS {
        return Vec::new();
    }
    let folder = std::fs::read_dir("/proc/self/fd").expect("procfs is mounted");
    // The folder itself is open while it is read; by now its entry leads nowhere.
    let links = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let links = links.map(|link| link.display().to_string());
    let mut links: Vec<String> = links.filter(|link| !link.starts_with('/')).collect();
    links.sort();
    links
}

/// How many handles are open on Windows, those of threads among them, so more than this by a thread is no leak.
fn handles() -> usize {
    if WINDOWS { ringport_platform::process::open_fd_count().expect("the system counts them") } else { 0 }
}

pub(crate) fn any_port() -> ConnectAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()
}

/// Where to listen to try every kind of stream.
pub(crate) fn families() -> Vec<ConnectAddr> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = format!("{}/{name}.sock", env!("CARGO_TARGET_TMPDIR"));
    if WINDOWS {
        skipped("not on Windows: Unix sockets");
        return vec![any_port(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()];
    }
    let mut families = vec![
        any_port(),
        ConnectAddr::Unix(format!("\0ringport-{name}").into_bytes()),
        ConnectAddr::Unix(path.into_bytes()),
    ];
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        families.push(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into());
    } else {
        skipped("IPv6: the kernel has none");
    }
    families
}

/// What stat(1) tells of a file itself, not of what it links to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// "socket", "regular file", ..
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) inode: u64,
}

impl FileFacts {
    /// Of a file that is there.
    pub(crate) fn of(path: &std::path::Path) -> Self {
        let output = std::process::Command::new("stat").args(["-c", "%a %u %g %i %F"]).arg(path).output();
        let text = String::from_utf8(output.expect("stat(1) is there").stdout).expect("text");
        let words: Vec<&str> = text.trim_end().splitn(5, ' ').collect();
        let [mode, uid, gid, inode, kind] = words[..] else { panic!("{path:?}: {text:?}") };
        let number = |word: &str| word.parse::<u64>().expect("a number");
        FileFacts {
            kind: kind.to_owned(),
            mode: u32::from_str_radix(mode, 8).expect("octal"),
            uid: number(uid) as u32,
            gid: number(gid) as u32,
            inode: number(inode),
        }
    }
}

/// Two connected ends, the one that connected first.
pub(crate) async fn pair_at(runtime: &Native, addr: &ConnectAddr) -> (TcpStream, TcpStream) {
    let mut listener = runtime.listen(addr, ListenOptions::default()).expect("a free address");
    let addr = ConnectAddr::from(listener.local_addr().expect("it listens"));
    both(net::connect(runtime, &addr), net::accept(runtime, &mut listener)).await
}

/// Two connected ends of a TCP connection.
pub(crate) async fn pair(runtime: &Native) -> (TcpStream, TcpStream) {
    pair_at(runtime, &any_port()).await
}

/// Waits for two results at the same time.
pub(crate) async fn both<A, B>(
    a: impl Future<Output = io::Result<A>>,
    b: impl Future<Output = io::Result<B>>,
) -> (A, B) {
    let (a, b) = join(a, b).await;
    (a.expect("the first works"), b.expect("the second works"))
}

/// Polls two futures in this task until both are done.
pub(crate) async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// What a poll says now.
pub(crate) async fn now<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(poll(cx))).await
}

/// Gives the core a turn, and with it every other task.
pub(crate) async fn turn() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Reads to the end.
pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.recv().await.expect("the peer ends in order") {
        all.extend_from_slice(&bytes);
    }
    all
}

/// An endless stream of bytes in which no stretch comes again soon: what is lost, doubled or moved shows.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    at: usize,
}

/// A prime, so that no buffer size hides a shift.
const PERIOD: usize = 1_000_003;

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        Pattern { bytes: (0..PERIOD).map(|_| random.next() as u8).collect(), at: 0 }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let step = (count - taken.len()).min(PERIOD - self.at);
            taken.extend_from_slice(&self.bytes[self.at..self.at + step]);
            self.at = (self.at + step) % PERIOD;
        }
        taken
    }

    /// Checks that `bytes` come next.
    pub(crate) fn check(&mut self, bytes: &[u8]) {
        let from = self.at;
        assert!(self.take(bytes.len()) == bytes, "other bytes than were sent, from {from} of the pattern on");
    }
}

/// Numbers that a printed seed gives again (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From the variable `SEED`, else another one each time; printed.
    pub(crate) fn printed() -> Self {
        let fresh = RandomState::new().build_hasher().finish() | 1;
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fresh);
        println!("SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 1 to `max`.
    pub(crate) fn up_to(&mut self, max: usize) -> usize {
        (self.next() % max as u64) as usize + 1
    }
}
