//! Names to addresses, without holding up a core.
//!
//! The system's resolver blocks, so it is asked on threads that all cores share. What it said is kept here, by core; of
//! several that want a name at a time one asks.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ringport_platform::blocking::BlockingPool;
use ringport_platform::names::{LookupError, lookup};
use ringport_platform::timer::later;

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
    /// No name server could answer.
    NoServer,
    /// Nothing was known in time.
    TimedOut,
    /// Too many look-ups wait already.
    Busy,
    /// Something else, as the system says it.
    Other(String),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::NotFound => f.write_str("there is no such name, or it has no address"),
            ResolveError::NoSuitableAddress => f.write_str("no suitable address: none of the wanted family"),
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

/// The addresses of a name, with port 0, in the system's order; at least one.
type Answer = Result<Rc<[SocketAddr]>, ResolveError>;

/// The names that a dialer knows.
#[derive(Clone)]
pub(super) struct Names(Rc<RefCell<Inner>>);

struct Inner {
    known: HashMap<String, Entry>,
    /// Names by the order in which they were learned, to forget the oldest. May hold some that are gone.
    learned: VecDeque<(u64, String)>,
    next_turn: u64,
    max_known: usize,
    max_age: Duration,
    /// For a look-up as a whole.
    timeout: Duration,
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
    pub(super) fn new(spec: &ResolverSpec) -> Self {
        Names(Rc::new(RefCell::new(Inner {
            known: HashMap::new(),
            learned: VecDeque::new(),
            next_turn: 0,
            max_known: usize::try_from(spec.cache_entries).unwrap_or(usize::MAX),
            max_age: spec.cache_max_ttl.min(MAX_AGE),
            timeout: spec.timeout.saturating_mul(spec.attempts),
        })))
    }

    /// The addresses of a name: from memory, or from the system. Dropping the future loses nothing of what others wait for.
    pub(super) async fn resolve<R: Runtime>(&self, runtime: &R, host: &str) -> Answer {
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

    /// Asks the system, in a task of its own: whoever began it may go.
    fn ask<R: Runtime>(&self, runtime: &R, host: &str) -> Result<Rc<Question>, ResolveError> {
        let name = host.to_owned();
        let job = THREADS.submit(move || lookup(&name, MAX_ADDRESSES)).map_err(|_| ResolveError::Busy)?;
        let question = Rc::new(Question::default());
        let mut inner = self.0.borrow_mut();
        inner.known.insert(host.to_owned(), Entry::Asked(Rc::clone(&question)));
        let sleep = runtime.sleep(inner.timeout);
        drop(inner);
        let (names, runtime_of_task, host) = (self.clone(), runtime.clone(), host.to_owned());
        let asked = Rc::clone(&question);
        runtime.spawn(async move {
            let (mut job, mut sleep) = (pin!(job), pin!(sleep));
            let answer = poll_fn(|cx| {
                if let Poll::Ready(result) = job.as_mut().poll(cx) {
                    return Poll::Ready(match result {
                        Ok(Ok(found)) if found.is_empty() => Err(ResolveError::NotFound),
                        Ok(Ok(found)) => Ok(found.into()),
                        Ok(Err(error)) => Err(error.into()),
                        Err(panicked) => Err(ResolveError::Other(panicked.to_string())),
                    });
                }
                sleep.as_mut().poll(cx).map(|()| Err(ResolveError::TimedOut))
            })
            .await;
            names.0.borrow_mut().learn(&host, &answer, runtime_of_task.now());
            *asked.answer.borrow_mut() = Some(answer);
            let waiting = asked.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        });
        Ok(question)
    }
}

impl Inner {
    /// Keeps an answer; of the bad ones only that there is no such name, and that for a moment.
    fn learn(&mut self, host: &str, answer: &Answer, now: Instant) {
        let age = match answer {
            Ok(_) => self.max_age,
            Err(ResolveError::NotFound) => self.max_age.min(NOT_FOUND_AGE),
            Err(_) => Duration::ZERO,
        };
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

/// Addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 64;
/// The system's resolver tells no time to live, so this one stands in for it.
const MAX_AGE: Duration = Duration::from_secs(30);
const NOT_FOUND_AGE: Duration = Duration::from_secs(1);

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
        names.0.borrow_mut().learn("good", &found, t);
        names.0.borrow_mut().learn("absent", &Err(ResolveError::NotFound), t);
        names.0.borrow_mut().learn("late", &Err(ResolveError::TimedOut), t);
        let after = |millis| t + Duration::from_millis(millis);
        assert!(is_known(&names, after(29_999), "good") && !is_known(&names, after(30_000), "good"));
        assert!(is_known(&names, after(999), "absent") && !is_known(&names, after(1_000), "absent"));
        assert!(!is_known(&names, t, "late"), "it is asked again at once");
    }

    #[test]
    fn the_oldest_is_forgotten_at_the_limit() {
        let (t, names) = (start(), names(2));
        let found = Ok([SocketAddr::from(([192, 0, 2, 1], 0))].into());
        for host in ["a", "b", "a", "c"] {
            names.0.borrow_mut().learn(host, &found, t);
        }
        assert!(!is_known(&names, t, "b"));
        assert!(is_known(&names, t, "a") && is_known(&names, t, "c"), "a was learned anew after b");
        for host in 0..100 {
            names.0.borrow_mut().learn(&host.to_string(), &found, t);
        }
        let inner = names.0.borrow();
        assert_eq!((inner.known.len(), inner.learned.len()), (2, 2));
    }

    #[test]
    fn a_cache_of_none_keeps_none() {
        let (t, names) = (start(), names(0));
        let found = Ok([SocketAddr::from(([192, 0, 2, 1], 0))].into());
        names.0.borrow_mut().learn("a", &found, t);
        assert!(!is_known(&names, t, "a") && names.0.borrow().known.is_empty());
    }
}
