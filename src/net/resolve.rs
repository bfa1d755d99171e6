//! Names to addresses, without holding up a core.
//!
//! ```text
//! known? --> from memory until its time is over
//! system's resolver   getaddrinfo(3), which blocks, on threads that all cores share
//! own                 hosts file, read on these threads --> name servers (`proto::dns`) over sockets of the core --> memory
//! ```
//!
//! Of several that want a name at a time one asks. What was found is kept by core.

mod exchange;
mod files;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ringport_platform::blocking::{BlockingJob, BlockingPool};
use ringport_platform::names::{LookupError, lookup};
use ringport_platform::timer::later;

use self::exchange::look_up;
use self::files::{Files, Paths};
use crate::proto::dns::{Lookup, LookupFault, LookupSpec, MAX_ADDRESSES};
use crate::runtime::Runtime;
use crate::spec::{Network, ResolverSpec};

/// Why a name gave no address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such name, or it has no address at all.
    NotFound,
    /// It has addresses, none of them of the network's family, or of that of the local address.
    NoSuitableAddress,
    /// The name is an alias of an alias, and so on, beyond what is followed. Whoever keeps the zone is at fault.
    Aliases,
    /// No name server could answer.
    NoServer,
    /// No answer came within the time of the resolver's spec.
    TimedOut,
    /// Too many look-ups wait already, of this core or of the threads that ask the system. Try again later.
    Busy,
    /// Something else, as the system says it.
    Other(String),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::NotFound => f.write_str("there is no such name, or it has no address"),
            ResolveError::NoSuitableAddress => f.write_str("no suitable address: none of the wanted family"),
            ResolveError::Aliases => f.write_str("an alias of an alias of an alias, without an end in sight"),
            ResolveError::NoServer => f.write_str("no name server could answer"),
            ResolveError::TimedOut => f.write_str("the look-up took too long"),
            ResolveError::Busy => f.write_str("too many look-ups wait already"),
            ResolveError::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ResolveError {}

impl From<LookupError> for ResolveError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotFound => ResolveError::NotFound,
            LookupError::TryAgain => ResolveError::NoServer,
            other => ResolveError::Other(other.to_string()),
        }
    }
}

impl From<LookupFault> for ResolveError {
    fn from(fault: LookupFault) -> Self {
        match fault {
            LookupFault::NotFound(_) => ResolveError::NotFound,
            LookupFault::NoServer => ResolveError::NoServer,
            LookupFault::TimedOut => ResolveError::TimedOut,
            LookupFault::Aliases => ResolveError::Aliases,
        }
    }
}

/// The addresses of a name, with port 0, in the order in which they are tried; at least one.
type Answer = Result<Rc<[SocketAddr]>, ResolveError>;

/// Looks names up and remembers them, on one core. Cheap to clone; clones share what they know.
///
/// ```
/// use ringport::net::Resolver;
/// use ringport::runtime::native;
/// use ringport::spec::ResolverSpec;
///
/// native::block_on(|runtime| async move {
///     let found = Resolver::new(&ResolverSpec::default(), &runtime).addresses("localhost", 80).await?;
///     assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
///     Ok::<(), ringport::net::ResolveError>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Resolver<R: Runtime> {
    runtime: R,
    names: Names,
}

impl<R: Runtime> Clone for Resolver<R> {
    fn clone(&self) -> Self {
        Resolver { runtime: self.runtime.clone(), names: self.names.clone() }
    }
}

impl<R: Runtime> Resolver<R> {
    /// As a spec says. Nothing is read and no socket is made.
    pub fn new(spec: &ResolverSpec, runtime: &R) -> Self {
        Resolver { runtime: runtime.clone(), names: Names::new(spec) }
    }

    /// The addresses of a host, in the order in which to try them: 1 to 64. A host that is an IP address is not looked up.
    ///
    /// Never blocks the core. Dropping the future does not stop the look-up: others may wait for it, and its answer is
    /// remembered.
    ///
    /// # Errors
    /// Why there is no address: see [`ResolveError`].
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = self.resolve(host).await?;
        Ok(found.iter().map(|addr| SocketAddr::new(addr.ip(), port)).collect())
    }

    pub(super) async fn resolve(&self, host: &str) -> Answer {
        self.names.resolve(&self.runtime, host).await
    }
}

/// The names that are known.
#[derive(Clone)]
struct Names(Rc<RefCell<Inner>>);

struct Inner {
    known: HashMap<String, Entry>,
    /// Names by the order in which they were learned, to forget the oldest. May hold some that are gone.
    learned: VecDeque<(u64, String)>,
    next_turn: u64,
    max_known: usize,
    max_age: Duration,
    /// Look-ups that have not ended.
    asked: usize,
    source: Source,
}

/// Who is asked.
#[derive(Clone)]
enum Source {
    /// The system's resolver; this long for a look-up as a whole.
    System(Duration),
    Own(Rc<Own>),
}

/// A resolver of our own.
struct Own {
    spec: ResolverSpec,
    paths: Paths,
    files: RefCell<Arc<Files>>,
    /// Who has answered last is asked first.
    first_server: Cell<usize>,
    running: Cell<usize>,
    /// Look-ups that wait for one of those that run to end.
    waiting: RefCell<VecDeque<Waker>>,
}

enum Entry {
    Asked(Rc<Question>),
    Known { answer: Answer, until: Instant, turn: u64 },
}

/// A look-up under way, and those who wait for it.
#[derive(Default)]
struct Question {
    answer: RefCell<Option<Answer>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Names {
    fn new(spec: &ResolverSpec) -> Self {
        Names(Rc::new(RefCell::new(Inner {
            known: HashMap::new(),
            learned: VecDeque::new(),
            next_turn: 0,
            max_known: usize::try_from(spec.cache_entries).unwrap_or(usize::MAX),
            max_age: spec.cache_max_ttl,
            asked: 0,
            source: Source::new(spec),
        })))
    }

    /// The addresses of a name: from memory, or asked for.
    async fn resolve<R: Runtime>(&self, runtime: &R, host: &str) -> Answer {
        let question = match self.known_or_asked(runtime.now(), host) {
            Ok(answer) => return answer,
            Err(Some(question)) => question,
            Err(None) => self.ask(runtime, host)?,
        };
        poll_fn(|cx| {
            if let Some(answer) = &*question.answer.borrow() {
                return Poll::Ready(answer.clone());
            }
            let mut waiting = question.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// What is known of a name; else the question about it that is under way.
    fn known_or_asked(&self, now: Instant, host: &str) -> Result<Answer, Option<Rc<Question>>> {
        match self.0.borrow().known.get(host) {
            Some(Entry::Known { answer, until, .. }) if now < *until => Ok(answer.clone()),
            Some(Entry::Asked(question)) => Err(Some(Rc::clone(question))),
            Some(Entry::Known { .. }) | None => Err(None),
        }
    }

    /// Asks in a task of its own: whoever began it may go.
    fn ask<R: Runtime>(&self, runtime: &R, host: &str) -> Result<Rc<Question>, ResolveError> {
        let mut inner = self.0.borrow_mut();
        if inner.asked == MAX_ASKED {
            return Err(ResolveError::Busy);
        }
        let (source, mut system) = (inner.source.clone(), None);
        if let Source::System(_) = source {
            let name = host.to_owned();
            let job = THREADS.submit(move || lookup(&name, MAX_ADDRESSES));
            system = Some(job.map_err(|_| ResolveError::Busy)?);
        }
        let question = Rc::new(Question::default());
        inner.known.insert(host.to_owned(), Entry::Asked(Rc::clone(&question)));
        inner.asked += 1;
        drop(inner);
        let (names, runtime_of_task, host) = (self.clone(), runtime.clone(), host.to_owned());
        let asked = Rc::clone(&question);
        runtime.spawn(async move {
            let (answer, age) = match (source, system) {
                (Source::System(timeout), Some(job)) => by_system(&runtime_of_task, job, timeout).await,
                (Source::Own(own), _) => own.look_up(&runtime_of_task, &host).await,
                (Source::System(_), None) => unreachable!("the system is asked by a job"),
            };
            let mut inner = names.0.borrow_mut();
            inner.asked -= 1;
            inner.learn(&host, &answer, age, runtime_of_task.now());
            drop(inner);
            *asked.answer.borrow_mut() = Some(answer);
            let waiting = asked.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        });
        Ok(question)
    }
}

/// An answer, and how long it may be kept.
type Aged = (Answer, Duration);

async fn by_system<R: Runtime>(
    runtime: &R,
    job: BlockingJob<Result<Vec<SocketAddr>, LookupError>>,
    timeout: Duration,
) -> Aged {
    let answer = match in_time(runtime, timeout, job).await {
        None => Err(ResolveError::TimedOut),
        Some(Ok(Ok(found))) if found.is_empty() => Err(ResolveError::NotFound),
        Some(Ok(Ok(found))) => Ok(found.into()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(panicked)) => Err(ResolveError::Other(panicked.to_string())),
    };
    let age = match answer {
        Ok(_) => SYSTEM_AGE,
        Err(ResolveError::NotFound) => BRIEF_AGE,
        Err(_) => Duration::ZERO,
    };
    (answer, age)
}

/// What the future gives; `None` when the time is over before.
async fn in_time<R: Runtime, T>(
    runtime: &R,
    timeout: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let (mut future, mut sleep) = (pin!(future), pin!(runtime.sleep(timeout)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

impl Source {
    /// The system's resolver does all that the spec asks for, unless that is another file, server, domain or count of dots.
    fn new(spec: &ResolverSpec) -> Self {
        let system = ResolverSpec::default();
        let told = spec.servers == system.servers
            && spec.search == system.search
            && spec.ndots == system.ndots
            && spec.hosts_file == system.hosts_file;
        if told {
            return Source::System(spec.timeout.saturating_mul(spec.attempts));
        }
        let is_whole = !spec.servers.is_empty() && !spec.search.is_empty() && spec.ndots.is_some();
        Source::Own(Rc::new(Own {
            spec: spec.clone(),
            paths: Paths {
                hosts: spec.hosts_file.clone(),
                resolv_conf: (!is_whole).then(|| "/etc/resolv.conf".into()),
            },
            files: RefCell::default(),
            first_server: Cell::new(0),
            running: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }
}

impl Own {
    async fn look_up<R: Runtime>(&self, runtime: &R, host: &str) -> Aged {
        let _running = self.run().await;
        let files = match self.read_files().await {
            Ok(files) => files,
            Err(why) => return (Err(ResolveError::Other(why)), Duration::ZERO),
        };
        let with_ports = |ips: &[IpAddr]| ips.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        if let Some(ips) = files.host(host) {
            return (Ok(with_ports(ips)), BRIEF_AGE);
        }
        if is_localhost(host) {
            return (Ok(with_ports(&[Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])), BRIEF_AGE);
        }
        let (spec, system) = (&self.spec, &files.resolv_conf);
        let servers = if spec.servers.is_empty() { &system.servers } else { &spec.servers };
        let search = if spec.search.is_empty() { &system.search } else { &spec.search };
        let lookup_spec = LookupSpec {
            server_count: servers.len(),
            first_server: self.first_server.get(),
            timeout: spec.timeout,
            attempts: spec.attempts,
            search: search.clone(),
            ndots: spec.ndots.or(system.ndots).unwrap_or(1) as usize,
        };
        match look_up(runtime, Lookup::new(host, lookup_spec), servers).await {
            Ok(found) => {
                self.first_server.set(found.server);
                // What is missing is asked for again soon.
                let age = if found.is_complete { found.ttl } else { found.ttl.min(BRIEF_AGE) };
                (Ok(with_ports(&found.addrs)), age)
            }
            Err(fault @ LookupFault::NotFound(ttl)) => (Err(fault.into()), ttl),
            Err(fault) => (Err(fault.into()), Duration::ZERO),
        }
    }

    async fn read_files(&self) -> Result<Arc<Files>, String> {
        let (paths, known) = (self.paths.clone(), self.files.borrow().clone());
        let job = READERS.submit(move || Files::read(&paths, known));
        let job = job.map_err(|_| ResolveError::Busy.to_string())?;
        let files = job.await.map_err(|panicked| panicked.to_string())??;
        self.files.replace(files.clone());
        Ok(files)
    }

    /// Waits until few enough run.
    async fn run(&self) -> Running<'_> {
        poll_fn(|cx| {
            if self.running.get() < MAX_RUNNING {
                self.running.set(self.running.get() + 1);
                return Poll::Ready(Running(self));
            }
            self.waiting.borrow_mut().push_back(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A look-up that runs.
struct Running<'a>(&'a Own);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        if let Some(next) = self.0.waiting.borrow_mut().pop_front() {
            next.wake();
        }
    }
}

/// RFC 6761 6.3: nobody else is asked for it.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

impl Inner {
    /// Keeps an answer for so long, or as long as anything is kept.
    fn learn(&mut self, host: &str, answer: &Answer, age: Duration, now: Instant) {
        let age = age.min(self.max_age);
        if age.is_zero() || self.max_known == 0 {
            self.known.remove(host);
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        let entry = Entry::Known { answer: answer.clone(), until: later(now, age), turn };
        self.known.insert(host.to_owned(), entry);
        self.learned.push_back((turn, host.to_owned()));
        while self.learned.len() > self.max_known {
            let Some((turn, host)) = self.learned.pop_front() else { break };
            let is_last_word =
                |entry: &Entry| matches!(entry, Entry::Known { turn: last, .. } if *last == turn);
            if self.known.get(&host).is_some_and(is_last_word) {
                self.known.remove(&host);
            }
        }
    }
}

/// Those of a network's family, and with a local address of that one's.
pub(super) fn suitable(
    found: &[SocketAddr],
    network: Network,
    local: Option<SocketAddr>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let fits = |addr: &&SocketAddr| {
        network.takes(addr.ip()) && local.is_none_or(|local| local.is_ipv4() == addr.is_ipv4())
    };
    let suitable: Vec<_> = found.iter().filter(fits).copied().collect();
    if suitable.is_empty() { Err(ResolveError::NoSuitableAddress) } else { Ok(suitable) }
}

/// A look-up takes its thread for as long as the system's resolver waits, 10 s mostly; the queue is what a start-up with many
/// origins needs.
static THREADS: LazyLock<BlockingPool> = LazyLock::new(|| BlockingPool::new(8, 4_096));
/// Files are read apart from them, so that no server that is silent delays who does not ask it.
pub(super) static READERS: LazyLock<BlockingPool> = LazyLock::new(|| BlockingPool::new(2, 4_096));

/// Look-ups that have not ended, of a resolver.
const MAX_ASKED: usize = 4_096;
/// Of these, such with sockets: two each.
const MAX_RUNNING: usize = 64;
/// The system's resolver tells no time to live, so this one stands in for it.
const SYSTEM_AGE: Duration = Duration::from_secs(30);
/// Of what may change at any time.
const BRIEF_AGE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use super::{Names, ResolveError};
    use crate::spec::ResolverSpec;

    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    const AGE: Duration = Duration::from_secs(30);

    fn names(cache_entries: u32) -> Names {
        Names::new(&ResolverSpec { cache_entries, ..ResolverSpec::default() })
    }

    fn is_known(names: &Names, now: Instant, host: &str) -> bool {
        names.known_or_asked(now, host).is_ok()
    }

    #[test]
    fn answers_are_kept_for_a_while() {
        let (t, names) = (start(), names(8));
        let found = Ok([SocketAddr::from(([192, 0, 2, 1], 0))].into());
        let seconds = Duration::from_secs;
        names.0.borrow_mut().learn("good", &found, seconds(30), t);
        names.0.borrow_mut().learn("absent", &Err(ResolveError::NotFound), seconds(1), t);
        names.0.borrow_mut().learn("late", &Err(ResolveError::TimedOut), Duration::ZERO, t);
        names.0.borrow_mut().learn("old", &found, seconds(1 << 31), t);
        let after = |millis| t + Duration::from_millis(millis);
        assert!(is_known(&names, after(29_999), "good") && !is_known(&names, after(30_000), "good"));
        assert!(is_known(&names, after(999), "absent") && !is_known(&names, after(1_000), "absent"));
        assert!(!is_known(&names, t, "late"), "it is asked again at once");
        let hour = 3_600_000;
        assert!(is_known(&names, after(hour - 1), "old") && !is_known(&names, after(hour), "old"));
    }

    #[test]
    fn the_oldest_is_forgotten_at_the_limit() {
        let (t, names) = (start(), names(2));
        let found = Ok([SocketAddr::from(([192, 0, 2, 1], 0))].into());
        for host in ["a", "b", "a", "c"] {
            names.0.borrow_mut().learn(host, &found, AGE, t);
        }
        assert!(!is_known(&names, t, "b"));
        assert!(is_known(&names, t, "a") && is_known(&names, t, "c"), "a was learned anew after b");
        for host in 0..100 {
            names.0.borrow_mut().learn(&host.to_string(), &found, AGE, t);
        }
        let inner = names.0.borrow();
        assert_eq!((inner.known.len(), inner.learned.len()), (2, 2));
    }

    #[test]
    fn a_cache_of_none_keeps_none() {
        let (t, names) = (start(), names(0));
        let found = Ok([SocketAddr::from(([192, 0, 2, 1], 0))].into());
        names.0.borrow_mut().learn("a", &found, AGE, t);
        assert!(!is_known(&names, t, "a") && names.0.borrow().known.is_empty());
    }
}
