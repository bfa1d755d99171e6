//! Connections to where a spec and a target say.
//!
//! ```text
//! target --> replaced? --> name looked up --> addresses of the family, families in turns
//!        --> attempts (`proto::happy_eyeballs`): socket, options, bind, connect --> the first that connects
//! ```

mod attempt;
mod error;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringport_platform::timer::later;

use self::attempt::{OptionSets, begin};
pub use self::error::{AttemptError, AttemptFailure, DialError, DialErrorKind, Phase};
use super::resolve::{ResolveError, Resolver, suitable};
use super::{Bounded, PacketError, PacketSocket, Stream};
use crate::proto::happy_eyeballs::{Action, Attempts, AttemptsSpec, interleaved};
use crate::proto::proxy_protocol::{Header, Version};
use crate::runtime::{ConnectAddr, LocalAddr, Runtime, Timer};
use crate::spec::{Address, Carries, DialSpec, NetAddr, OriginAddress, PacketSpec, ProxyProtocolOut};

/// Makes connections as a [`DialSpec`] says, on one core.
///
/// Cheap to clone. Clones share the spec and the names that were looked up.
///
/// ```
/// use ringport::net::Dialer;
/// use ringport::runtime::{ListenOptions, Listener, Runtime, native};
/// use ringport::spec::NetAddr;
///
/// native::block_on(|runtime| async move {
///     let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
///     let listener = runtime.listen(&any, ListenOptions::default())?;
///     let target: NetAddr<_> = format!("tcp://{}", listener.local_addr()?).parse().expect("a target");
///     let stream = Dialer::new(&runtime).dial(&target).await?;
///     assert_eq!(stream.peer_addr()?, listener.local_addr()?);
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
pub struct Dialer<R: Runtime>(Rc<Inner<R>>);

struct Inner<R: Runtime> {
    runtime: R,
    spec: DialSpec,
    resolver: Resolver<R>,
    options: OptionSets,
}

impl<R: Runtime> Clone for Dialer<R> {
    fn clone(&self) -> Self {
        Dialer(Rc::clone(&self.0))
    }
}

impl<R: Runtime> Dialer<R> {
    /// With every default: see [`DialSpec::default`].
    pub fn new(runtime: &R) -> Self {
        Self::from_spec(&DialSpec::default(), runtime)
    }

    /// As a spec says. Cannot fail, since the spec was checked: nothing is looked up and no socket is made yet.
    pub fn from_spec(spec: &DialSpec, runtime: &R) -> Self {
        let resolver = Resolver::new(spec.resolver(), runtime);
        let (spec, options) = (spec.clone(), OptionSets::default());
        Dialer(Rc::new(Inner { runtime: runtime.clone(), spec, resolver, options }))
    }

    /// The resolver of this dialer, which remembers names for all of its clones.
    pub fn resolver(&self) -> &Resolver<R> {
        &self.0.resolver
    }

    /// The spec that it was made from.
    pub fn spec(&self) -> &DialSpec {
        &self.0.spec
    }

    /// Connects to a target, or to the one that the spec has in its place.
    ///
    /// The stream itself keeps the time limits of `SO_RCVTIMEO` and `SO_SNDTIMEO`: the kernel ignores them on sockets that
    /// do not block. Where the spec asks for the PROXY protocol, the header says that the connection is our own.
    ///
    /// Up to eight attempts run at a time, each with a descriptor. Dropping the future cancels the dial: every socket of an
    /// attempt is closed. A look-up that others also wait for goes on.
    ///
    /// # Errors
    /// [`DialError::kind`] says what sort of failure it is, [`DialError::failures`] what each address met.
    pub async fn dial(&self, target: &NetAddr<OriginAddress>) -> Result<Stream<Bounded<R>>, DialError> {
        self.dial_for(target, &Header::Local).await
    }

    /// As [`Dialer::dial`], on behalf of a client. Where the spec asks for the PROXY protocol, `client` is the header that
    /// the connection begins with; otherwise it is not used.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub async fn dial_for(
        &self,
        target: &NetAddr<OriginAddress>,
        client: &Header,
    ) -> Result<Stream<Bounded<R>>, DialError> {
        let Inner { runtime, spec, .. } = &*self.0;
        let begin = runtime.now();
        let deadline = spec.timeout().map(|timeout| later(begin, timeout));
        let addrs = self.look_up(target, deadline).await?;
        self.race(target, &addrs, client, (begin, deadline)).await
    }

    /// As [`Dialer::dial_for`], to addresses that [`Dialer::resolve`] gave, tried in this order. Nothing is looked up.
    ///
    /// # Errors
    /// As [`Dialer::dial`]. Without an address the dial fails with [`DialErrorKind::Other`].
    pub async fn dial_known(
        &self,
        target: &NetAddr<OriginAddress>,
        addrs: &[ConnectAddr],
        client: &Header,
    ) -> Result<Stream<Bounded<R>>, DialError> {
        let Inner { runtime, spec, .. } = &*self.0;
        let begin = runtime.now();
        let deadline = spec.timeout().map(|timeout| later(begin, timeout));
        self.race(target, addrs, client, (begin, deadline)).await
    }

    /// The addresses that a dial to this target would try, in that order; at least one.
    ///
    /// A replacement in the spec is followed first. A host that is an IP address, or a Unix socket, is not looked up.
    ///
    /// # Errors
    /// [`DialErrorKind::NotAStream`], [`DialErrorKind::Resolve`], or [`DialErrorKind::TimedOut`] with [`Phase::Resolve`].
    pub async fn resolve(&self, target: &NetAddr<OriginAddress>) -> Result<Vec<ConnectAddr>, DialError> {
        let Inner { runtime, spec, .. } = &*self.0;
        let deadline = spec.timeout().map(|timeout| later(runtime.now(), timeout));
        self.look_up(target, deadline).await
    }

    async fn look_up(
        &self,
        target: &NetAddr<OriginAddress>,
        deadline: Option<Instant>,
    ) -> Result<Vec<ConnectAddr>, DialError> {
        let Inner { runtime, spec, .. } = &*self.0;
        let failed = |kind| DialError { target: target.clone(), kind, failures: Vec::new(), untried: 0 };
        let begin = runtime.now();
        let to = spec.replaced(target);
        match to.network().carries() {
            Carries::Stream => {}
            // A stream receives as much as it has room for, which would cut packets: see `dial_packets`.
            Carries::Sequence | Carries::Datagrams | Carries::Packets => {
                return Err(failed(DialErrorKind::NotAStream));
            }
        }
        if to != target {
            tracing::debug!(%target, replaced = %to, "dial: another target instead");
        }
        let addrs = self.addresses(to, deadline).await.map_err(failed)?;
        let elapsed_ms = runtime.now().saturating_duration_since(begin).as_millis();
        tracing::debug!(target = %to, count = addrs.len(), elapsed_ms, "dial: addresses");
        Ok(addrs)
    }

    /// The first of the addresses that connects, with what it begins with.
    async fn race(
        &self,
        target: &NetAddr<OriginAddress>,
        addrs: &[ConnectAddr],
        client: &Header,
        (begin, deadline): (Instant, Option<Instant>),
    ) -> Result<Stream<Bounded<R>>, DialError> {
        let Inner { runtime, spec, .. } = &*self.0;
        if spec.tls().is_some() {
            // Nobody may take a plain connection for a safe one.
            let (target, kind) = (target.clone(), DialErrorKind::NeedsTls);
            return Err(DialError { target, kind, failures: Vec::new(), untried: 0 });
        }
        let to = spec.replaced(target);
        let elapsed = || runtime.now().saturating_duration_since(begin).as_millis();
        let race = Race { dialer: self, to, addrs, begin, deadline };
        let transport = race.run().await.map_err(|end| end.into_error(target.clone()))?;
        tracing::debug!(target = %to, elapsed_ms = elapsed(), "dial: connected");
        let mut stream = Stream::over(transport, runtime.tx_queue());
        if let Some(version) = spec.proxy_protocol() {
            let version = match version {
                ProxyProtocolOut::V1 => Version::V1,
                ProxyProtocolOut::V2 => Version::V2,
            };
            stream.tx().push(client.encode(version));
            // At once: the peer may speak first, but not before it has read this.
            stream.start_send().map_err(|error| {
                let addr = addrs.first().map_or(LocalAddr::Unix(Vec::new()), local);
                let error = AttemptError::Connect(error);
                let after = runtime.now().saturating_duration_since(begin);
                DialError::of_attempts(target.clone(), vec![AttemptFailure { addr, after, error }])
            })?;
        }
        Ok(stream)
    }

    /// A socket of datagrams or packets that is connected to a target: it sends to that peer and hears no other.
    ///
    /// Of the addresses of a name the first that fits is taken; none is tried after it. The spec's time limit, local address
    /// and options hold. Its keep-alive and PROXY protocol are not used: they are for streams. Dropping the future closes the
    /// socket.
    ///
    /// # Errors
    /// [`PacketError::Spec`] where the network carries streams, the local address is of another network, or the spec asks for
    /// TLS; else as [`PacketSocket::open_with`].
    pub async fn dial_packets(
        &self,
        target: &NetAddr<OriginAddress>,
    ) -> Result<PacketSocket<R::Datagram>, PacketError> {
        let Inner { runtime, spec, resolver, .. } = &*self.0;
        spec.without_stream().map_err(PacketError::Spec)?;
        let to = spec.replaced(target);
        let builder = PacketSpec::builder(to.network()).peer(to.clone());
        let builder = builder.sock_options(spec.sock_options().clone());
        let packet_spec = match spec.local() {
            // Of the network of both families it may be one of one; what does not fit is told by the check.
            Some(local) if local.network().carries() == to.network().carries() => {
                let fitting = NetAddr::<Address>::new(to.network(), local.address().clone());
                builder.local(fitting.unwrap_or_else(|_| local.clone()))
            }
            Some(local) => builder.local(local.clone()),
            None => builder,
        };
        let packet_spec = packet_spec.build().map_err(PacketError::Spec)?;
        let opening = PacketSocket::open_with(runtime, &packet_spec, resolver);
        match spec.timeout() {
            None => opening.await,
            Some(timeout) => {
                let opened = until(runtime, later(runtime.now(), timeout), opening).await;
                opened.unwrap_or(Err(PacketError::Resolve(ResolveError::TimedOut)))
            }
        }
    }

    /// Where a target is, in the order of attempts; at least one.
    async fn addresses(
        &self,
        to: &NetAddr<OriginAddress>,
        deadline: Option<Instant>,
    ) -> Result<Vec<ConnectAddr>, DialErrorKind> {
        let Inner { runtime, spec, resolver, .. } = &*self.0;
        let local = spec.local().map(NetAddr::address);
        if let Some(known) = to.address().connect_addr() {
            return Ok(vec![known]);
        }
        let OriginAddress::Host { host, port } = to.address() else {
            unreachable!("only names need a look-up");
        };
        let resolving = resolver.resolve(host);
        let found = match deadline {
            None => resolving.await,
            Some(deadline) => {
                let found = until(runtime, deadline, resolving).await;
                found.ok_or(DialErrorKind::TimedOut(Phase::Resolve))?
            }
        };
        let local = match local {
            Some(Address::Inet(local)) => Some(*local),
            Some(Address::Unix(_) | Address::UnixAbstract(_)) | None => None,
        };
        let found = found.and_then(|found| suitable(&found, to.network(), local));
        let found = interleaved(found.map_err(DialErrorKind::Resolve)?);
        let with_port = |addr: SocketAddr| {
            let mut addr = addr;
            addr.set_port(*port);
            addr.into()
        };
        Ok(found.into_iter().map(with_port).collect())
    }
}

/// The attempts of one dial.
struct Race<'a, R: Runtime> {
    dialer: &'a Dialer<R>,
    to: &'a NetAddr<OriginAddress>,
    addrs: &'a [ConnectAddr],
    begin: Instant,
    deadline: Option<Instant>,
}

/// An attempt under way; dropping it closes its socket.
type Attempt<S> = Pin<Box<dyn Future<Output = Result<S, AttemptError>>>>;

/// The end of a race that nobody won.
struct End {
    failures: Vec<AttemptFailure>,
    untried: usize,
    timed_out: bool,
}

impl End {
    fn into_error(self, target: NetAddr<OriginAddress>) -> DialError {
        let mut error = DialError::of_attempts(target, self.failures);
        error.untried = self.untried;
        if self.timed_out {
            error.kind = DialErrorKind::TimedOut(Phase::Connect);
        }
        error
    }
}

impl<R: Runtime> Race<'_, R> {
    async fn run(self) -> Result<Bounded<R>, End> {
        let Inner { runtime, spec, .. } = &*self.dialer.0;
        let attempts = Attempts::new(
            self.addrs.len(),
            AttemptsSpec {
                fallback_delay: spec.fallback_delay(),
                deadline: self.deadline,
                max_under_way: MAX_UNDER_WAY,
            },
        );
        let mut state = State { attempts, under_way: Vec::new(), failures: Vec::new() };
        let mut timer = runtime.timer(later(runtime.now(), Duration::MAX));
        poll_fn(|cx| state.poll(cx, &self, &mut timer)).await
    }

    fn failure(&self, attempt: usize, now: Instant, error: AttemptError) -> AttemptFailure {
        let after = now.saturating_duration_since(self.begin);
        let failure = AttemptFailure { addr: local(&self.addrs[attempt]), after, error };
        tracing::debug!(target = %self.to, "dial: {failure}");
        failure
    }
}

struct State<R: Runtime> {
    attempts: Attempts,
    under_way: Vec<(usize, Attempt<Bounded<R>>)>,
    failures: Vec<AttemptFailure>,
}

impl<R: Runtime> State<R> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        race: &Race<'_, R>,
        timer: &mut R::Timer,
    ) -> Poll<Result<Bounded<R>, End>> {
        let mut now = race.dialer.0.runtime.now();
        loop {
            if let Some(stream) = self.poll_under_way(cx, race, now) {
                return Poll::Ready(Ok(stream));
            }
            match self.attempts.poll(now) {
                Action::Start { attempt } => {
                    let addr = &race.addrs[attempt];
                    tracing::debug!(target = %race.to, addr = %local(addr), "dial: attempt");
                    match begin(&race.dialer.0, race.to, addr) {
                        Ok(future) => self.under_way.push((attempt, future)),
                        Err(error) => self.fail(attempt, now, error, race),
                    }
                }
                Action::Abandon { attempt } => {
                    self.under_way.retain(|(other, _)| *other != attempt);
                    self.failures.push(race.failure(attempt, now, AttemptError::TimedOut));
                }
                Action::Wait => {
                    let timeout = self.attempts.poll_timeout();
                    let Some(timeout) = timeout else { return Poll::Pending };
                    timer.reset(timeout);
                    std::task::ready!(timer.poll_elapsed(cx));
                    // The timer has the last word: the runtime's clock may be a turn behind.
                    now = now.max(timeout);
                }
                Action::Exhausted => return Poll::Ready(Err(self.end(race, false))),
                Action::TimedOut => {
                    for (attempt, _) in std::mem::take(&mut self.under_way) {
                        self.failures.push(race.failure(attempt, now, AttemptError::TimedOut));
                    }
                    return Poll::Ready(Err(self.end(race, true)));
                }
            }
        }
    }

    /// The first that has connected, if any; those that have failed are noted.
    fn poll_under_way(
        &mut self,
        cx: &mut Context<'_>,
        race: &Race<'_, R>,
        now: Instant,
    ) -> Option<Bounded<R>> {
        let mut at = 0;
        while let Some((attempt, future)) = self.under_way.get_mut(at) {
            let attempt = *attempt;
            match future.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(Ok(stream)) => return Some(stream),
                Poll::Ready(Err(error)) => {
                    drop(self.under_way.remove(at));
                    self.fail(attempt, now, error, race);
                }
            }
        }
        None
    }

    fn fail(&mut self, attempt: usize, now: Instant, error: AttemptError, race: &Race<'_, R>) {
        self.failures.push(race.failure(attempt, now, error));
        self.attempts.handle_failed(attempt, now);
    }

    fn end(&mut self, race: &Race<'_, R>, timed_out: bool) -> End {
        let untried = race.addrs.len() - self.attempts.started();
        End { failures: std::mem::take(&mut self.failures), untried, timed_out }
    }
}

/// What the future gives, or `None` at the deadline.
async fn until<R: Runtime, T>(runtime: &R, deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), runtime.timer(deadline));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => timer.poll_elapsed(cx).map(|()| None),
    })
    .await
}

fn local(addr: &ConnectAddr) -> LocalAddr {
    match addr {
        ConnectAddr::Inet(addr) => LocalAddr::Inet(*addr),
        ConnectAddr::Unix(path) => LocalAddr::Unix(path.clone()),
    }
}

/// Attempts at a time: descriptors that one dial may hold.
const MAX_UNDER_WAY: usize = 8;
