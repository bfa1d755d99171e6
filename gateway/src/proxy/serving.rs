//! One core at work: its listeners, its config, and the end of both.
//!
//! ```text
//! listener: Accepting --the process or the listener ends--> Draining what waits --nothing is left--> closed
//! core:     Serving --SIGTERM--> every listener drains --the last connection has ended--> done
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use ringport::net::tls::TlsAcceptor;
use ringport::net::{AcceptError, Listener};
use ringport::runtime::Runtime;
use ringport::runtime::native::Native;
use ringport_platform::launch::{CoreContext, DrainSignal};
use ringport_platform::process;

use super::config::{Config, Snapshot};
use super::listeners::{CoreListener, ListenerId};
use super::pool::{Origin, REAP_INTERVAL};
use super::room::{Candidate, Counted, Gate};
use super::session::{Seat, Session};
use super::visit::Visit;
use super::{Everywhere, Plan, Shared, admin, fields, http2};

/// How soon an ending listener without room looks again. The end of the process has a deadline.
const DRAIN_RETRY: Duration = Duration::from_millis(20);

/// Sockets that must have closed before the heap is asked for what they held, some KiB each.
const WORTH_A_RELEASE: usize = 256;

thread_local! {
    /// This core's proxy, for calls from other threads.
    static SHARED: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

/// The listeners of a core that take connections.
#[derive(Default)]
pub(super) struct Doors {
    open: RefCell<Vec<(ListenerId, DrainSignal)>>,
    /// Tasks of listeners, those that drain included.
    tasks: Cell<usize>,
    waits: RefCell<Option<Waker>>,
}

impl Doors {
    async fn all_closed(&self) {
        poll_fn(|cx| {
            if self.tasks.get() == 0 {
                return Poll::Ready(());
            }
            self.waits.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// What the connections of a listener have in common.
struct Entrance {
    /// Raised when it ends.
    door: DrainSignal,
    /// Of its TLS.
    acceptor: Option<Rc<TlsAcceptor<Native>>>,
}

/// A listener's task, however it ends.
struct DoorTask(Rc<Shared>);

impl Drop for DoorTask {
    fn drop(&mut self) {
        let doors = &self.0.doors;
        doors.tasks.set(doors.tasks.get() - 1);
        if let Some(waker) = doors.waits.take() {
            waker.wake();
        }
    }
}

/// What a core is told when another config takes the place of its own.
pub(super) struct Update {
    pub snapshot: Arc<Snapshot>,
    pub opened: Vec<CoreListener>,
    pub closed: Vec<ListenerId>,
    /// A new admin listener; for one core.
    pub admin: Option<CoreListener>,
}

/// Runs a core to its end.
pub(super) fn core_main(context: CoreContext, plan: &Plan) -> impl Future<Output = io::Result<()>> + use<> {
    let shared = Rc::new(Shared::new(&context, plan));
    SHARED.set(Rc::downgrade(&shared));
    let first = plan.first[context.index].lock().unwrap_or_else(PoisonError::into_inner).take();
    async move {
        let core = context.core.clone();
        if let Some(first) = first {
            open_doors(&shared, first.opened)?;
            if let Some(admin) = first.admin {
                open_admin(&shared, admin)?;
            }
        }
        core.spawn(reap(shared.clone()));
        keep_names(&shared);
        context.drain.wait().await;
        shared.doors.open.take().into_iter().for_each(|(_, door)| door.raise());
        shared.sessions.borrow().wake_all();
        shared.doors.all_closed().await;
        shared.sessions.borrow().wake_all();
        poll_fn(|cx| shared.sessions.borrow_mut().poll_empty(cx)).await;
        let config = shared.config();
        config.replaced.raise();
        config.pools.iter().for_each(|pool| pool.close_idle());
        Ok(())
    }
}

/// Puts an update into effect on this core, between two of its turns.
///
/// # Errors
/// In words: what could not be watched. The config is in effect all the same.
pub(super) fn apply(update: Update) -> Result<(), String> {
    let Some(shared) = SHARED.with_borrow(Weak::upgrade) else { return Ok(()) };
    let before = shared.config();
    let config = Config::new(&update.snapshot, &before.pools, &shared.runtime, &shared.stats);
    let config = Rc::new(config);
    shared.core.set_linger(config.spec.timeouts().write_idle);
    shared.generation.set(config.generation);
    shared.config.replace(config.clone());
    before.retire(&config);
    shared.doors.open.borrow_mut().retain(|(id, door)| {
        let stays = !update.closed.contains(id);
        if !stays {
            door.raise();
        }
        stays
    });
    let opened = open_doors(&shared, update.opened);
    let admin = update.admin.map_or(Ok(()), |admin| open_admin(&shared, admin));
    keep_names(&shared);
    // Idle connections take the config, and those of a listener that has gone end.
    shared.sessions.borrow().wake_all();
    opened.and(admin).map_err(|error| error.to_string())
}

fn open_doors(shared: &Rc<Shared>, listeners: Vec<CoreListener>) -> io::Result<()> {
    for CoreListener { id, part, burst_len } in listeners {
        let (listener, acceptor) = part.open_on(&shared.runtime).map_err(io::Error::other)?;
        let door = DrainSignal::default();
        shared.doors.open.borrow_mut().push((id, door.clone()));
        shared.doors.tasks.set(shared.doors.tasks.get() + 1);
        let task = DoorTask(shared.clone());
        let entrance = Entrance { door, acceptor: acceptor.map(Rc::new) };
        shared.core.spawn_detached(accept_all(task, listener, entrance, burst_len));
    }
    Ok(())
}

fn open_admin(shared: &Rc<Shared>, admin: CoreListener) -> io::Result<()> {
    let (listener, _) = admin.part.open_on(&shared.runtime).map_err(io::Error::other)?;
    drop(shared.core.spawn(admin::serve(shared.clone(), listener, shared.everywhere.clone())));
    Ok(())
}

/// Takes connections until the listener ends, then what the kernel still holds, so that nothing waiting is reset.
async fn accept_all(task: DoorTask, mut listener: Listener<Native>, entrance: Entrance, burst_len: usize) {
    let shared = &task.0;
    let mut gate = Gate::new(shared.connections.clone(), shared.stats.clone(), burst_len);
    let mut drain = Box::pin(entrance.door.wait());
    loop {
        let accepted = poll_fn(|cx| {
            if drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            gate.poll_next(&mut listener, cx).map(Some)
        });
        match accepted.await {
            Some(Ok((candidate, counted))) => begin(shared, candidate, &entrance, counted),
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be taken");
                race(shared.core.sleep(Duration::from_millis(20)), drain.as_mut()).await;
            }
            None => break,
        }
    }
    if let Some(held) = gate.into_held() {
        begin(shared, held, &entrance, shared.connections.begin_last());
    }
    drain_listener(shared, &mut listener, &entrance).await;
}

/// Takes what the kernel still holds for a listener, as descriptors become free.
async fn drain_listener(shared: &Rc<Shared>, listener: &mut Listener<Native>, entrance: &Entrance) {
    loop {
        if !shared.connections.has_room_at_end() {
            shared.core.sleep(DRAIN_RETRY).await;
            continue;
        }
        match poll_fn(|cx| listener.poll_drain(cx)).await {
            Ok(Some(candidate)) => begin(shared, candidate, entrance, shared.connections.begin_last()),
            Ok(None) => return,
            Err(AcceptError::Io(error)) if process::is_shortage(&error) => {
                shared.core.sleep(DRAIN_RETRY).await;
            }
            // Of one connection.
            Err(error @ AcceptError::Option(_)) => tracing::warn!(%error, "a connection could not be taken"),
            Err(error) => return tracing::warn!(%error, "the accept queue could not be drained"),
        }
    }
}

fn begin(shared: &Rc<Shared>, (stream, peer): Candidate, entrance: &Entrance, counted: Counted) {
    let (shared, door, seat) = (shared.clone(), entrance.door.clone(), Seat::take(shared));
    let core = shared.core.clone();
    let Some(acceptor) = entrance.acceptor.clone() else {
        let visit = Visit::new(shared.clone(), false, &peer, door);
        let stream = stream.over_link(&shared.runtime);
        drop(core.spawn(Session::serve(visit, stream, Some(Box::new(peer)), (counted, seat))));
        return;
    };
    drop(core.spawn(async move {
        let shaken = acceptor.accept(stream, &peer).await;
        shared.stats.tls_handshakes.inc();
        let Ok(mut stream) = shaken else { return shared.stats.tls_failures.inc() };
        let is_http2 = stream.transport().tls().is_some_and(|tls| tls.alpn == Some(b"h2"));
        let mut visit = Visit::new(shared, true, &peer, door);
        if visit.config.routes.tell_certs() && acceptor.tls().spec().client_auth().verifies() {
            let tls = stream.transport().tls();
            let chain = tls.and_then(|tls| tls.peer_certificates);
            visit.cert = chain.and_then(|chain| chain.first()).map(|cert| fields::cert_field(cert).into());
        }
        if is_http2 {
            http2::serve(visit, stream, peer).await;
            drop((counted, seat));
        } else {
            Session::serve(visit, stream, None, (counted, seat)).await;
        }
    }));
}

/// Ready with the first of the two.
async fn race(first: impl Future<Output = ()>, mut end: Pin<&mut impl Future<Output = ()>>) {
    let mut first = std::pin::pin!(first);
    poll_fn(|cx| match end.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => first.as_mut().poll(cx),
    })
    .await;
}

/// Looks over the kept connections, and gives idle memory back.
async fn reap(shared: Rc<Shared>) {
    let mut ticks = shared.core.interval(REAP_INTERVAL);
    // Sockets at most since the heap was released.
    let mut most = 0;
    loop {
        ticks.tick().await;
        let now = shared.core.time();
        let instant = shared.runtime.now();
        shared.config().pools.iter().for_each(|pool| pool.reap(now, instant));
        shared.core.pool().release_idle();
        // Clients and kept connections to origins alike.
        let open = shared.core.socket_count();
        most = most.max(open);
        if most - open >= WORTH_A_RELEASE && most / 2 >= open {
            process::release_heap();
            most = open;
        }
        shared.core.stats().pool_live_bytes.set(shared.core.pool().usage().live_bytes);
    }
}

/// Where an origin is in a config.
#[derive(Clone, Copy)]
struct Place {
    generation: u64,
    pool: usize,
    origin: usize,
}

/// From core 0: looks every origin's name up, at once and then as often as its pool says, and tells all cores.
fn keep_names(shared: &Rc<Shared>) {
    if shared.index != 0 {
        return;
    }
    let config = shared.config();
    for (pool_at, pool) in config.pools.iter().enumerate() {
        for (origin_at, origin) in pool.origins().iter().enumerate() {
            if origin.has_name() {
                let place = Place { generation: config.generation, pool: pool_at, origin: origin_at };
                let every = pool.spec().resolve_interval;
                let keep = keep_name(shared.clone(), origin.clone(), place, every, config.replaced.clone());
                shared.core.spawn_detached(keep);
            }
        }
    }
}

async fn keep_name(
    shared: Rc<Shared>,
    origin: Rc<Origin>,
    place: Place,
    every: Option<Duration>,
    replaced: DrainSignal,
) {
    let mut replaced = std::pin::pin!(replaced.wait());
    while shared.generation.get() == place.generation {
        match origin.resolve().await {
            Ok(addrs) => tell_cores(&shared.everywhere, place, move |origin| origin.set_addrs(addrs.clone())),
            Err(error) => {
                tracing::warn!(origin = origin.name, "the name could not be looked up: {error}");
                tell_cores(&shared.everywhere, place, Origin::has_no_addr);
            }
        }
        match every {
            Some(every) => race(shared.core.sleep(every), replaced.as_mut()).await,
            None => return,
        }
    }
}

fn tell_cores(everywhere: &Everywhere, place: Place, tell: impl Fn(&Origin) + Clone + Send + 'static) {
    tell_core(place, &tell);
    let Some(everywhere) = everywhere.get() else { return };
    for remote in &everywhere.remotes {
        let tell = tell.clone();
        remote.call(move |_| tell_core(place, &tell));
    }
}

/// A core that has another config by now looks names up anew.
fn tell_core(place: Place, tell: &impl Fn(&Origin)) {
    let Some(shared) = SHARED.with_borrow(Weak::upgrade) else { return };
    let config = shared.config();
    if config.generation == place.generation {
        tell(&config.pools[place.pool].origins()[place.origin]);
    }
}
