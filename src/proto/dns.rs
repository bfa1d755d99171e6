//! The addresses of a name, asked of name servers (RFC 1034, RFC 1035; as a stub resolver, RFC 1123 6.1.3.1).
//!
//! ```text
//! for each candidate (the name itself, and in search domains), for each family of addresses:
//!
//!   Due --Ask--> Asked --answer----------------------------------> Known (addresses, or that there are none)
//!    ^             |---alias whose addresses it lacks --> Due       |
//!    |             |---truncated --> Due, the same server by TCP    |
//!    |             `---no answer in time, or none of use ----+      |
//!    `---------- the next server, round after round ---------'-- none left --> Failed
//!
//! both families known or failed: addresses --> end; none --> the next candidate; failed --> end
//! one has addresses, and the other is late --> end without the other
//! ```
//!
//! The machine has no socket, no clock and no dice. In a loop: do what [`Lookup::poll_ask`] says, until it says nothing;
//! look at [`Lookup::poll_end`]; wait until [`Lookup::poll_timeout`], or until a message comes and [`Lookup::handle_message`] is
//! told, or a socket fails and [`Lookup::handle_failed`] is.

mod message;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;
pub use message::Family;

use self::message::{Response, Said, question, read};

/// Whom to ask, how long and how often, and where else to look for short names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSpec {
    /// Name servers, which the machine knows by their places only.
    pub server_count: usize,
    /// Which of them is asked first.
    pub first_server: usize,
    /// For one question to one server.
    pub timeout: Duration,
    /// Rounds over the servers.
    pub attempts: u32,
    /// Domains in which a short name is looked for; what is no domain is left out.
    pub search: Vec<String>,
    /// A name with fewer dots is looked for in the search domains first.
    pub ndots: usize,
}

/// A question to be sent. It takes the place of what was under way for its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// For the addresses of which family.
    pub family: Family,
    /// The place of the server.
    pub server: usize,
    /// Whether by TCP, where its length goes in front (RFC 1035 4.2.2).
    pub is_tcp: bool,
    /// The message.
    pub message: Vec<u8>,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// IPv6 first, in the order of the servers; at least one, at most [`MAX_ADDRESSES`], each once.
    pub addrs: Vec<IpAddr>,
    /// How long they may be kept.
    pub ttl: Duration,
    /// Whether both families were heard of.
    pub is_complete: bool,
    /// Who said so.
    pub server: usize,
}

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFault {
    /// There is no such name, or it has no address; that may be kept for so long.
    NotFound(Duration),
    /// Servers were heard, or could not be asked, and none could say.
    NoServer,
    /// No server answered in time.
    TimedOut,
    /// The name is another's alias, and that one another's, without an end in sight.
    Aliases,
}

/// One name that is looked up.
#[derive(Debug)]
pub struct Lookup {
    spec: LookupSpec,
    candidates: VecDeque<Name>,
    /// IPv6 and IPv4 addresses of the candidate.
    families: [Track; 2],
    /// Of the candidates before.
    negative_ttl: Option<Duration>,
    /// When the end comes though one family is still out.
    late: Option<Instant>,
    end: Option<Result<Found, LookupFault>>,
}

/// What is known of one family.
#[derive(Debug)]
struct Track {
    family: Family,
    /// The candidate, or what it is an alias of.
    name: Name,
    aliases: usize,
    /// Of the aliases so far.
    ttl: Duration,
    /// Questions to servers that came to nothing.
    tries: usize,
    /// Whether all of them came to nothing because time was up.
    is_silent: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Due { is_tcp: bool },
    Asked { id: u16, is_tcp: bool, deadline: Instant, strays: usize },
    Known { addrs: Vec<IpAddr>, ttl: Duration },
    Failed(LookupFault),
}

impl Lookup {
    /// For a name as a user writes it: with a dot at its end it is looked for as it is alone.
    pub fn new(name: &str, spec: LookupSpec) -> Self {
        let mut candidates = candidates(name, &spec.search, spec.ndots);
        let families = match candidates.pop_front() {
            Some(first) => [Track::new(Family::V6, first.clone()), Track::new(Family::V4, first)],
            None => [Family::V6, Family::V4].map(|family| Track {
                state: State::Failed(LookupFault::NotFound(Duration::ZERO)),
                ..Track::new(family, Name::root())
            }),
        };
        let mut lookup = Lookup { spec, candidates, families, negative_ttl: None, late: None, end: None };
        if lookup.families.iter().all(|track| matches!(track.state, State::Failed(_))) {
            lookup.end = Some(Err(LookupFault::NotFound(Duration::ZERO)));
        } else if lookup.spec.server_count == 0 || lookup.spec.attempts == 0 {
            lookup.end = Some(Err(LookupFault::NoServer));
        }
        lookup
    }

    /// The next question, if one is due; `id` becomes its number and is to be one that nobody can guess.
    pub fn poll_ask(&mut self, now: Instant, id: u16) -> Option<Ask> {
        if self.end.is_some() {
            return None;
        }
        let (spec, deadline) = (&self.spec, now + self.spec.timeout);
        self.families.iter_mut().find_map(|track| {
            let State::Due { is_tcp } = track.state else { return None };
            let message = question(id, &track.name, track.family)?;
            track.state = State::Asked { id, is_tcp, deadline, strays: 0 };
            let server = track.server(spec);
            Some(Ask { family: track.family, server, is_tcp, message })
        })
    }

    /// A message came from the server that was asked about this family. What is not its answer is counted and left.
    pub fn handle_message(&mut self, now: Instant, family: Family, bytes: &[u8]) {
        let track = &mut self.families[family as usize];
        let State::Asked { id, is_tcp, strays, .. } = &mut track.state else { return };
        let Some(response) = read(bytes, *id, &track.name, family, MAX_ALIASES - track.aliases) else {
            // By TCP there is one message. By UDP others may be let in between; no flood of them is read.
            *strays += 1;
            if *is_tcp || *strays == MAX_STRAYS {
                track.next_server(&self.spec, false);
            }
            return self.settle(now);
        };
        let Response { said, ttl, aliases } = response;
        let (was_tcp, ttl) = (*is_tcp, ttl.min(track.ttl));
        track.aliases += aliases;
        match said {
            Said::Truncated if was_tcp => track.next_server(&self.spec, false),
            Said::Truncated => track.state = State::Due { is_tcp: true },
            Said::Failed => track.next_server(&self.spec, false),
            Said::TooManyAliases => track.state = State::Failed(LookupFault::Aliases),
            Said::Alias(name) => {
                track.name = name;
                track.ttl = ttl;
                track.state = State::Due { is_tcp: false };
            }
            Said::Addresses(addrs) => track.state = State::Known { addrs, ttl },
        }
        self.settle(now);
    }

    /// The socket over which this family was asked about has failed.
    pub fn handle_failed(&mut self, now: Instant, family: Family) {
        let track = &mut self.families[family as usize];
        if let State::Asked { .. } = track.state {
            track.next_server(&self.spec, false);
            self.settle(now);
        }
    }

    /// When [`Lookup::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let asked = self.families.iter().filter_map(|track| match track.state {
            State::Asked { deadline, .. } => Some(deadline),
            State::Due { .. } | State::Known { .. } | State::Failed(_) => None,
        });
        asked.chain(self.late).min()
    }

    /// The time of [`Lookup::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for track in &mut self.families {
            if let State::Asked { deadline, .. } = track.state
                && deadline <= now
            {
                track.next_server(&self.spec, true);
            }
        }
        self.settle(now);
    }

    /// The result, once there is one.
    pub fn poll_end(&mut self) -> Option<Result<Found, LookupFault>> {
        self.end.clone()
    }

    /// Sees what both families together come to.
    fn settle(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        let (mut open, mut found, mut fault) = (0, 0, None);
        for track in &self.families {
            match &track.state {
                State::Due { .. } | State::Asked { .. } => open += 1,
                State::Known { addrs, .. } => found += addrs.len(),
                State::Failed(why) => fault = Some(fault.unwrap_or(*why)),
            }
        }
        if open > 0 {
            if found > 0 {
                let late = *self.late.get_or_insert(now + RESOLUTION_DELAY);
                if late <= now {
                    self.end = Some(Ok(self.found()));
                }
            }
            return;
        }
        self.end = match fault {
            _ if found > 0 => Some(Ok(self.found())),
            // Another candidate may be somebody else's: only who is known not to be there is passed over.
            Some(fault) => Some(Err(fault)),
            None => self.next_candidate(),
        };
    }

    fn found(&self) -> Found {
        let mut lists = [Vec::new(), Vec::new()];
        let (mut ttl, mut is_complete, mut server) = (Duration::MAX, true, 0);
        for (list, track) in lists.iter_mut().zip(&self.families) {
            match &track.state {
                State::Known { addrs, ttl: own } => {
                    list.clone_from(addrs);
                    // How long it holds that the other family has none says nothing of these.
                    if !addrs.is_empty() {
                        (ttl, server) = (ttl.min(*own), track.server(&self.spec));
                    }
                }
                State::Due { .. } | State::Asked { .. } | State::Failed(_) => is_complete = false,
            }
        }
        let [mut addrs, v4] = lists;
        // Neither family crowds the other out.
        addrs.truncate(MAX_ADDRESSES - v4.len().min(MAX_ADDRESSES / 2));
        addrs.extend(v4);
        addrs.truncate(MAX_ADDRESSES);
        Found { addrs, ttl, is_complete, server }
    }

    /// Goes on with the next candidate; with none left there is no such name.
    fn next_candidate(&mut self) -> Option<Result<Found, LookupFault>> {
        let ttls = self.families.iter().map(|track| match track.state {
            State::Known { ttl, .. } => ttl,
            State::Due { .. } | State::Asked { .. } | State::Failed(_) => Duration::ZERO,
        });
        let ttl = ttls.chain(self.negative_ttl).min().unwrap_or_default();
        let Some(next) = self.candidates.pop_front() else { return Some(Err(LookupFault::NotFound(ttl))) };
        self.negative_ttl = Some(ttl);
        self.families = [Track::new(Family::V6, next.clone()), Track::new(Family::V4, next)];
        self.late = None;
        None
    }
}

impl Track {
    fn new(family: Family, name: Name) -> Self {
        let state = State::Due { is_tcp: false };
        Track { family, name, aliases: 0, ttl: Duration::MAX, tries: 0, is_silent: true, state }
    }

    fn server(&self, spec: &LookupSpec) -> usize {
        (spec.first_server + self.tries) % spec.server_count.max(1)
    }

    fn next_server(&mut self, spec: &LookupSpec, was_silent: bool) {
        self.tries += 1;
        self.is_silent &= was_silent;
        self.state = if self.tries < spec.server_count.saturating_mul(spec.attempts as usize) {
            State::Due { is_tcp: false }
        } else if self.is_silent {
            State::Failed(LookupFault::TimedOut)
        } else {
            State::Failed(LookupFault::NoServer)
        };
    }
}

/// The names that are asked for, one after the other, in their order (resolv.conf(5), `search` and `ndots`).
fn candidates(name: &str, search: &[String], ndots: usize) -> VecDeque<Name> {
    let absolute = |text: &str| {
        let mut name = Name::from_ascii(text).ok()?;
        name.set_fqdn(true);
        // RFC 1035 3.1: 255 octets at most. The root has no address.
        (!name.is_root() && name.len() <= MAX_NAME_LEN).then_some(name)
    };
    if let Some(whole) = name.strip_suffix('.') {
        return absolute(whole).into_iter().collect();
    }
    let mut names: VecDeque<_> =
        search.iter().filter_map(|domain| absolute(&format!("{name}.{domain}"))).collect();
    let as_it_is = absolute(name);
    if name.matches('.').count() < ndots {
        names.extend(as_it_is);
    } else if let Some(as_it_is) = as_it_is {
        names.push_front(as_it_is);
    }
    names
}

/// Addresses of a name that are looked at.
pub const MAX_ADDRESSES: usize = 64;
/// Aliases from a name to its addresses.
const MAX_ALIASES: usize = 8;
/// Messages that are no answer to a question, before its server is given up.
const MAX_STRAYS: usize = 16;
const MAX_NAME_LEN: usize = 255;
/// How long one family's addresses wait for the other's (RFC 8305 3). Longer than is advised there: an answer to both is
/// kept, while this one is asked for again soon.
const RESOLUTION_DELAY: Duration = Duration::from_millis(250);
