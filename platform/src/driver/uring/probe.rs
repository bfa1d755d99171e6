//! Functional self-tests: a mechanism is used when it has been seen working here, never by kernel version.
//!
//! They run on a small ring of their own with the same flags, so that nothing of them is left in the driver's.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{IoUring, cqueue, squeue};

use super::Mode;
use super::bufring::{FLAG_INC, GROUP, RingMemory};
use super::queue::Queue;
use super::setup::{Rung, UringError};
use super::sqe::{self, SendStyle};
use crate::driver::{Feature, Mechanism, Mechanisms, Wait};
use crate::stats::CoreStats;

/// What the kernel gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringReport {
    /// The mechanisms, in a fixed order.
    pub features: Vec<Feature>,
    /// Submissions that fit.
    pub entries: u32,
    /// Completions that fit.
    pub cq_entries: u32,
    /// The ring's set-up flags.
    pub flags: Vec<&'static str>,
    /// How long the self-tests took.
    pub self_test: Duration,
}

/// Tests every mechanism; `ring` is the driver's, made with the flags of `rung`.
pub(super) fn self_test(
    ring: &IoUring,
    rung: Rung,
    disable: Mechanisms,
) -> Result<(Mode, UringReport), UringError> {
    let start = Instant::now();
    let lab_ring = rung.build(16, 64).map_err(UringError::other("io_uring_setup for the self-test"))?;
    let mut lab = Lab::new(lab_ring);
    let on = |mechanism| !disable.contains(mechanism);
    let mut features = Vec::new();
    let mut test = |name, enabled: bool, case: &dyn Fn(&mut Lab) -> Result<String, String>| {
        let result = lab.run(case);
        let available = result.is_ok();
        let note = result.unwrap_or_else(|note| note);
        if !available {
            tracing::info!(name, note, "io_uring: a mechanism does not work here");
        }
        features.push(Feature { name, available, enabled: available && enabled, note });
        available && enabled
    };
    let multishot = on(Mechanism::Multishot);
    let has_rings = test("buffer-ring", true, &buffer_ring);
    let has_cancel = test("cancel", true, &cancel);
    let has_recv = test("recv-multishot", multishot, &recv_multishot);
    let has_accept = test("accept-multishot", multishot, &accept_multishot);
    let mode = Mode {
        credit: test("credit", on(Mechanism::Credit) && multishot, &credit),
        inc: test("inc", on(Mechanism::Inc), &incremental),
        multishot: has_recv && has_accept,
        silent_tcp: test("silent-tcp", on(Mechanism::Silent), &|lab| silent(lab, tcp_pair())),
        silent_unix: test("silent-unix", on(Mechanism::Silent), &|lab| silent(lab, unix_pair())),
    };
    let defer = rung == Rung::Defer;
    features.push(Feature { name: "defer", available: defer, enabled: defer, note: String::new() });
    lab.finish();
    let needed = [
        ("buffer-ring", has_rings),
        ("cancel", has_cancel),
        ("recv-multishot", has_recv || !multishot),
        ("accept-multishot", has_accept || !multishot),
    ];
    if let Some((feature, _)) = needed.into_iter().find(|(_, works)| !works) {
        return Err(UringError::TooOld { feature });
    }
    let (entries, cq_entries) = (ring.params().sq_entries(), ring.params().cq_entries());
    let flags = rung.flags().to_vec();
    Ok((mode, UringReport { features, entries, cq_entries, flags, self_test: start.elapsed() }))
}

const BUFFERS: u16 = 8;
const BUFFER_BYTES: usize = 4096;

/// The first operation of a case; apart from the driver's own numbers.
const FIRST: u64 = 100;

/// How long a case waits for what must come.
const PATIENCE: Duration = Duration::from_millis(100);

/// A ring with a few buffers to test on.
struct Lab {
    queue: Queue,
    memory: RingMemory,
    /// INVARIANT: leaked unless every operation has ended (`finish`).
    buffers: NonNull<[u8; BUFFERS as usize * BUFFER_BYTES]>,
    stats: CoreStats,
    /// Operations that have not ended.
    open: usize,
}

impl Lab {
    fn new(ring: IoUring) -> Self {
        let buffers = NonNull::from(Box::leak(Box::new([0; BUFFERS as usize * BUFFER_BYTES])));
        let memory = RingMemory::new(BUFFERS);
        Lab { queue: Queue::new(ring), memory, buffers, stats: CoreStats::default(), open: 0 }
    }

    /// Runs a case and ends what it left behind.
    fn run(&mut self, case: &dyn Fn(&mut Lab) -> Result<String, String>) -> Result<String, String> {
        let result = case(self);
        self.quiesce();
        let _ = self.queue.ring.submitter().unregister_buf_ring(GROUP);
        if self.open > 0 {
            return Err("operations did not end when cancelled".to_owned());
        }
        result
    }

    fn quiesce(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.open > 0 && Instant::now() < deadline {
            let everything = CancelBuilder::any().all();
            let _ = self.queue.ring.submitter().register_sync_cancel(Some(Timespec::new()), everything);
            self.push(sqe::cancel_everything());
            self.open -= 1;
            self.collect(self.open);
        }
    }

    fn finish(self) {
        if self.open > 0 {
            tracing::warn!(open = self.open, "io_uring: leaked the ring of the self-test");
            std::mem::forget(self);
            return;
        }
        drop(self.queue);
        // SAFETY: leaked from a box in `new`; no operation is left that could write there.
        drop(unsafe { Box::from_raw(self.buffers.as_ptr()) });
    }

    /// Registers a buffer ring with `count` buffers of `len` bytes.
    fn register(&mut self, flags: u16, count: u16, len: usize) -> Result<(), String> {
        self.memory = RingMemory::new(BUFFERS);
        // SAFETY: `run` unregisters it before the next case replaces it; if that fails the ring is unused from then.
        unsafe { self.memory.register(&self.queue.ring.submitter(), flags) }.map_err(said("registering"))?;
        for bid in 0..count {
            let addr = self.buffer(bid);
            // SAFETY: the buffers live until every operation has ended; at most as many as entries.
            unsafe { self.memory.push(addr, len as u32, bid) };
        }
        self.memory.show();
        Ok(())
    }

    fn buffer(&self, bid: u16) -> NonNull<u8> {
        assert!(bid < BUFFERS);
        // SAFETY: inside the allocation.
        unsafe { self.buffers.cast::<u8>().add(usize::from(bid) * BUFFER_BYTES) }
    }

    fn byte(&self, offset: usize) -> u8 {
        assert!(offset < BUFFERS as usize * BUFFER_BYTES);
        // SAFETY: inside the allocation, which was initialised; the kernel writes only inside an enter.
        unsafe { self.buffers.cast::<u8>().add(offset).read_volatile() }
    }

    /// Stages an entry whose memory lives as long as the lab or the case.
    fn push(&mut self, entry: squeue::Entry) {
        self.open += 1;
        // SAFETY: receives use the lab's buffers, accepts and cancels no memory; silent sends have ended when `collect`
        // returns (they never wait), and their bytes are the case's.
        unsafe { self.queue.push(entry, &self.stats) };
    }

    /// Submits, and waits for `count` completions; gives up after [`PATIENCE`].
    fn collect(&mut self, count: usize) -> Vec<cqueue::Entry> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if seen.len() < count { Wait::AtMost(left) } else { Wait::Poll };
            let failed = self.queue.submit(wait, &self.stats).is_err();
            let before = seen.len();
            seen.extend_from_slice(self.queue.take(&mut [const { MaybeUninit::uninit() }; _]));
            let ended = seen[before..]
                .iter()
                .filter(|entry| entry.user_data() != sqe::CANCEL && !cqueue::more(entry.flags()));
            self.open -= ended.count();
            if failed || seen.len() >= count || left.is_zero() {
                return seen;
            }
        }
    }
}

fn buffer_ring(lab: &mut Lab) -> Result<String, String> {
    lab.register(0, 2, BUFFER_BYTES)?;
    let (mut peer, ours) = unix_pair().map_err(said("socketpair"))?;
    peer.write_all(b"hello").map_err(said("write"))?;
    lab.push(sqe::recv_once(ours.as_raw_fd(), 100).user_data(FIRST));
    let seen = lab.collect(1);
    let bid = seen.first().and_then(|entry| cqueue::buffer_select(entry.flags()));
    expect(bid == Some(0) && seen[0].result() == 5 && lab.byte(4) == b'o', &seen)
}

fn cancel(lab: &mut Lab) -> Result<String, String> {
    lab.register(0, 2, BUFFER_BYTES)?;
    let (_peer, ours) = unix_pair().map_err(said("socketpair"))?;
    lab.push(sqe::recv_once(ours.as_raw_fd(), 100).user_data(FIRST));
    lab.push(sqe::cancel(FIRST));
    lab.open -= 1;
    let seen = lab.collect(1);
    expect(seen.len() == 1 && seen[0].user_data() == FIRST && seen[0].result() == -libc::ECANCELED, &seen)
}

fn recv_multishot(lab: &mut Lab) -> Result<String, String> {
    lab.register(0, 4, BUFFER_BYTES)?;
    let (mut peer, ours) = unix_pair().map_err(said("socketpair"))?;
    lab.push(sqe::recv_multishot(ours.as_raw_fd(), 100, None).user_data(FIRST));
    for _ in 0..2 {
        peer.write_all(b"hello").map_err(said("write"))?;
        let seen = lab.collect(1);
        let works = seen.len() == 1 && seen[0].result() == 5 && cqueue::more(seen[0].flags());
        expect(works, &seen)?;
    }
    Ok(String::new())
}

fn accept_multishot(lab: &mut Lab) -> Result<String, String> {
    let name = format!("ringport-self-test-{}-{}", std::process::id(), lab.queue.ring.as_raw_fd());
    let addr = SocketAddr::from_abstract_name(name).map_err(said("naming a socket"))?;
    let listener = UnixListener::bind_addr(&addr).map_err(said("bind"))?;
    lab.push(sqe::accept(listener.as_raw_fd(), true).user_data(FIRST));
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(UnixStream::connect_addr(&addr).map_err(said("connect"))?);
        let seen = lab.collect(1);
        let accepted: Vec<OwnedFd> = seen
            .iter()
            .filter(|entry| entry.user_data() == FIRST && entry.result() >= 0)
            // SAFETY: a successful accept gives a descriptor that nobody else owns.
            .map(|entry| unsafe { OwnedFd::from_raw_fd(entry.result()) })
            .collect();
        expect(accepted.len() == 1 && cqueue::more(seen[0].flags()), &seen)?;
    }
    Ok(String::new())
}

/// The total must end the receive. The kernel may overshoot it by less than one step: it checks after each.
fn credit(lab: &mut Lab) -> Result<String, String> {
    const STEP: u32 = 1000;
    const TOTAL: u32 = 2001;
    lab.register(0, BUFFERS, BUFFER_BYTES)?;
    let (mut peer, ours) = unix_pair().map_err(said("socketpair"))?;
    peer.write_all(&[1; 8000]).map_err(said("write"))?;
    lab.push(sqe::recv_multishot(ours.as_raw_fd(), STEP, Some(TOTAL)).user_data(FIRST));
    let seen = lab.collect(3);
    let bytes: i32 = seen.iter().map(cqueue::Entry::result).filter(|result| *result > 0).sum();
    let ended = seen.last().is_some_and(|entry| !cqueue::more(entry.flags()));
    let works = ended && (TOTAL..TOTAL + STEP).contains(&(bytes as u32));
    expect(works, &seen).map(|_| format!("{bytes} bytes came for a total of {TOTAL} in steps of {STEP}"))
}

/// Appends, says whether it keeps the buffer, and reports in the order in which it wrote.
fn incremental(lab: &mut Lab) -> Result<String, String> {
    lab.register(FLAG_INC, 1, 12)?;
    let pairs = [unix_pair().map_err(said("socketpair"))?, unix_pair().map_err(said("socketpair"))?];
    for (user_data, (mut peer, ours)) in (FIRST..).zip(pairs.iter().map(|(peer, ours)| (peer, ours))) {
        peer.write_all(&[user_data as u8; 3]).map_err(said("write"))?;
        // The first ends at once and the second goes on: two ways through the kernel that must not overtake.
        let entry = match user_data {
            FIRST => sqe::recv_once(ours.as_raw_fd(), 100),
            _ => sqe::recv_multishot(ours.as_raw_fd(), 100, None),
        };
        lab.push(entry.user_data(user_data));
    }
    let mut seen = lab.collect(2);
    (&pairs[1].0).write_all(&[FIRST as u8 + 1; 6]).map_err(said("write"))?;
    seen.extend(lab.collect(1));
    expect(seen.len() == 3, &seen)?;
    let mut offset = 0;
    for entry in &seen {
        let len = usize::try_from(entry.result()).map_err(|_| "a receive failed".to_owned())?;
        let written = (offset..offset + len).all(|at| u64::from(lab.byte(at)) == entry.user_data());
        offset += len;
        let keeps = cqueue::buffer_more(entry.flags());
        expect(written && len > 0 && keeps == (offset < 12), &seen)?;
    }
    expect(offset == 12, &seen)
}

/// Success makes no completion, everything else does.
fn silent(lab: &mut Lab, pair: io::Result<(impl Read + AsRawFd, OwnedFd)>) -> Result<String, String> {
    let bytes = vec![7; 4 << 20];
    let result = silent_sends(lab, pair, &bytes);
    if result.is_err() {
        // A kernel that does not answer as expected may still be reading.
        std::mem::forget(bytes);
    }
    result
}

fn silent_sends(
    lab: &mut Lab,
    pair: io::Result<(impl Read + AsRawFd, OwnedFd)>,
    bytes: &[u8],
) -> Result<String, String> {
    let (mut peer, ours) = pair.map_err(said("a pair of sockets"))?;
    let fd = ours.as_raw_fd();
    let mut send = |len: usize| {
        lab.push(sqe::send(fd, bytes.as_ptr(), len as u32, SendStyle::Silent).user_data(FIRST));
        let seen = lab.collect(0);
        // A send that never waits has ended, whether it says so or not.
        lab.open = 0;
        seen
    };
    let seen = send(64);
    expect(seen.is_empty(), &seen)?;
    let mut got = [0; 64];
    peer.read_exact(&mut got).map_err(said("read"))?;
    let short = send(bytes.len());
    expect(got == [7; 64] && short.len() == 1 && (1..4 << 20).contains(&short[0].result()), &short)?;
    let full = send(bytes.len());
    expect(full.len() == 1 && full[0].result() < 4 << 20, &full)
}

fn unix_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (peer, ours) = UnixStream::pair()?;
    peer.set_read_timeout(Some(PATIENCE))?;
    Ok((peer, ours.into()))
}

fn tcp_pair() -> io::Result<(TcpStream, OwnedFd)> {
    let listener = TcpListener::bind("127.0.0.1:0").or_else(|_| TcpListener::bind("[::1]:0"))?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    // Small buffers fill at once.
    shrink(peer.as_raw_fd(), libc::SO_RCVBUF);
    shrink(ours.as_raw_fd(), libc::SO_SNDBUF);
    peer.set_read_timeout(Some(PATIENCE))?;
    Ok((peer, ours.into()))
}

fn shrink(fd: RawFd, option: libc::c_int) {
    let bytes: libc::c_int = 16 * 1024;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `bytes`.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const bytes).cast(), len) };
}

fn expect(works: bool, seen: &[cqueue::Entry]) -> Result<String, String> {
    if works { Ok(String::new()) } else { Err(format!("the kernel answered {seen:?}")) }
}

fn said(step: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{step}: {error}")
}
