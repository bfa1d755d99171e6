//! Makes the sockets of a listener, before any core has them: a fault leaves nothing behind.

use std::path::Path;
use std::sync::Arc;

use ringport_platform::core::ListenSocket;
use ringport_platform::fd::{AsFd, BorrowedFd, OwnedFd};
use ringport_platform::process::{TakeError, take_inherited};
use ringport_platform::socket::{
    self, InTheWay, OpenError, Opened, SocketFile, group_id, make_room, open_listener_with, user_id,
};
use ringport_platform::sockopt::{
    ApplyError, Effective, Family, Kind, Opt, OptFault, OptSet, Role, Stage, Target,
};

use super::bounded::Bounds;
use super::error::{FileFault, InheritFault, ListenError};
use super::header::HeaderRules;
use super::limits::Shared;
use super::{ListenHandle, Plan, Rules};
use crate::net::PeerFilter;
use crate::runtime::{ConnectAddr, ListenOptions, LocalAddr};
use crate::spec::{Address, ListenSockets, ListenSource, ListenSpec, OnUnsupported, Owner, UnixFile};

/// One core's share of a listener, bound and listening. It may cross threads; [`Listener::new`](super::Listener::new) takes
/// it.
///
/// Dropping the last part closes the sockets. It also removes the socket's file, where the spec says so and the file is
/// still ours.
#[derive(Debug)]
pub struct ListenPart {
    pub(super) socket: ListenSocket,
    pub(super) index: usize,
    pub(super) local: LocalAddr,
    pub(super) backlog: i32,
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) file: Option<Arc<SocketFile>>,
}

impl ListenPart {
    /// Makes the sockets of a listener, a part for each core; 0 cores count as one.
    ///
    /// As the spec says, each core has a socket of its own, over which the kernel spreads connections, or all take from one.
    /// It is one also for Unix sockets, for inherited ones, where the spec has `SO_REUSEPORT` off, and on Windows, where one
    /// core accepts and deals out to all: see [`ListenSocket`]. Port 0 becomes the same port for all of them.
    ///
    /// Blocks while the names of a file's user and group are looked up.
    ///
    /// # Errors
    /// Which step failed, and why. No descriptor and no file of the listener is left.
    pub fn open(spec: &ListenSpec, cores: usize) -> Result<Vec<ListenPart>, ListenError> {
        if spec.tls().is_some() {
            // Nobody may take plain connections for safe ones.
            return Err(ListenError::NeedsTls);
        }
        let cores = cores.max(1);
        let made = match spec.source() {
            ListenSource::Address(address) => at_address(spec, address.address(), cores)?,
            ListenSource::Inherited(name) => inherited(spec, name, cores)?,
        };
        let fault = |error| ListenError::Socket { target: made.target, error };
        let local = made.sockets[0].with_fd(socket::local_addr).map_err(fault)?.map_err(fault)?;
        let file = made.file.map(|mut file| {
            if !spec.unix_file().is_none_or(|file| file.remove) {
                file.keep();
            }
            Arc::new(file)
        });
        let plan = Arc::new(Plan::new(made.target, made.set, made.applied, made.skipped, made.refused));
        plan.warn(&local);
        let shared = Shared::new(spec.limits(), Rules::new(spec, &plan), made.sockets.len());
        let backlog = i32::try_from(spec.backlog()).unwrap_or(i32::MAX);
        let part = |(index, socket)| ListenPart {
            socket,
            index,
            local: local.clone(),
            backlog,
            plan: plan.clone(),
            shared: shared.clone(),
            file: file.clone(),
        };
        Ok(made.sockets.into_iter().enumerate().map(part).collect())
    }

    /// Where it listens, with the port that the kernel chose. No system call.
    pub fn local_addr(&self) -> &LocalAddr {
        &self.local
    }

    /// A handle that closes the whole listener, changes its rules and reads its counters, from any thread.
    pub fn handle(&self) -> ListenHandle {
        ListenHandle::new(&self.shared, &self.plan, self.file.as_ref())
    }
}

impl Plan {
    fn new(
        target: Target,
        set: OptSet,
        applied: Vec<Effective>,
        skipped: Vec<OptFault>,
        refused: Vec<ApplyError>,
    ) -> Self {
        let timeouts = (set.receive_timeout(), set.send_timeout());
        let (set, target) = (Arc::new(set), target.as_role(Role::Accepted));
        let at = |stage| set.has_stage(stage, target).then(|| (set.clone(), target));
        Plan {
            timeouts,
            rearmed: at(Stage::Rearm),
            connected: at(Stage::Connected),
            applied,
            skipped,
            refused,
        }
    }

    /// Tells the log what is not as it was asked for.
    fn warn(&self, local: &LocalAddr) {
        for effective in self.applied.iter().filter(|effective| effective.is_surprising()) {
            tracing::warn!("{local}: {effective}");
        }
        for skipped in &self.skipped {
            tracing::warn!("{local}: skipped: {skipped}");
        }
        for refused in &self.refused {
            tracing::warn!("{local}: skipped: {refused}");
        }
    }
}

impl Rules {
    pub(super) fn new(spec: &ListenSpec, plan: &Plan) -> Self {
        let mut deadlines = spec.deadlines();
        // The kernel does not enforce these on sockets that do not block.
        deadlines.read = deadlines.read.or(plan.timeouts.0);
        deadlines.write = deadlines.write.or(plan.timeouts.1);
        Rules {
            clients: Arc::new(PeerFilter::new(&spec.peers().allowed, &spec.peers().denied)),
            header: spec.proxy_protocol().map(|header| Arc::new(HeaderRules::new(header))),
            bounds: Bounds { deadlines, rearmed: plan.rearmed.clone() },
        }
    }
}

/// Sockets that listen, and what came of their options.
struct Made {
    sockets: Vec<ListenSocket>,
    target: Target,
    set: OptSet,
    applied: Vec<Effective>,
    skipped: Vec<OptFault>,
    refused: Vec<ApplyError>,
    file: Option<SocketFile>,
}

fn options(spec: &ListenSpec, target: Target) -> Result<(OptSet, Vec<OptFault>), ListenError> {
    spec.socket_options(target).map_err(|faults| ListenError::Options { target, faults })
}

fn at_address(spec: &ListenSpec, address: &Address, cores: usize) -> Result<Made, ListenError> {
    let target = spec.target().expect("an address has a sort of socket");
    let (set, skipped) = options(spec, target)?;
    let addr = ConnectAddr::from(address);
    let skips = spec.sock_options().on_unsupported() == OnUnsupported::Warn;
    let mut maker =
        Maker { addr, kind: target.kind, backlog: spec.backlog(), set, skips, refused: Vec::new() };
    let per_core = cores > 1
        && socket::SHARES_PORTS
        && spec.sockets() == ListenSockets::PerCore
        && target.family != Family::Unix;
    let (first, file, others) = match (address, spec.unix_file()) {
        (Address::Unix(path), Some(file)) => {
            let (opened, file) = maker.at_file(path, file)?;
            (opened, Some(file), Vec::new())
        }
        _ if per_core
            && maker.set.find(Opt::SoReuseport).is_none_or(|_| maker.set.is_on(Opt::SoReuseport)) =>
        {
            let (first, others) = maker.group(cores)?;
            (first, None, others)
        }
        _ => (maker.socket(false, &mut || Ok(()))?, None, Vec::new()),
    };
    let Opened { fd, applied, .. } = first;
    let sockets = if others.is_empty() {
        shared(fd, cores, target)?
    } else {
        std::iter::once(fd).chain(others).map(ListenSocket::Own).collect()
    };
    Ok(Made { sockets, target, set: maker.set, applied, skipped, refused: maker.refused, file })
}

/// Makes sockets at one address with one set of options.
struct Maker {
    addr: ConnectAddr,
    kind: Kind,
    backlog: u32,
    set: OptSet,
    /// Whether what this kernel does not know is left out.
    skips: bool,
    refused: Vec<ApplyError>,
}

impl Maker {
    fn socket(
        &mut self,
        reuse_port: bool,
        when_bound: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> Result<Opened, ListenError> {
        let backlog = i32::try_from(self.backlog).unwrap_or(i32::MAX);
        let options = ListenOptions { backlog, reuse_port };
        loop {
            match open_listener_with(&self.addr, self.kind, options, &self.set, &mut *when_bound) {
                Ok(opened) => return Ok(opened),
                // One option less each time.
                Err(OpenError::Option(error))
                    if self.skips && error.is_unsupported() && self.set.remove(error.opt).is_some() =>
                {
                    self.refused.push(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A socket for each core at one port.
    fn group(&mut self, cores: usize) -> Result<(Opened, Vec<OwnedFd>), ListenError> {
        let nothing = &mut || Ok(());
        if !self.set.is_on(Opt::SoReuseport) {
            // Alone first: another process that also shares the port would otherwise be joined without a word.
            let alone = self.socket(false, nothing)?;
            self.stay_at(&alone)?;
        }
        let first = self.socket(true, nothing)?;
        self.stay_at(&first)?;
        let mut other = |_| self.socket(true, &mut || Ok(())).map(|opened| opened.fd);
        let others = (1..cores).map(&mut other).collect::<Result<_, ListenError>>()?;
        Ok((first, others))
    }

    /// From now on at the port that the kernel chose for the first.
    fn stay_at(&mut self, first: &Opened) -> Result<(), ListenError> {
        let local = socket::local_addr(first.fd.as_fd())
            .map_err(|error| ListenError::Socket { target: first.target, error })?;
        self.addr = local.into();
        Ok(())
    }

    /// A socket with a file, which has its mode and owner before anybody can connect.
    fn at_file(&mut self, path: &Path, file: &UnixFile) -> Result<(Opened, SocketFile), ListenError> {
        let fault = |fault| ListenError::File { path: path.to_owned(), fault };
        let owner = number(file.owner.as_ref(), user_id).map_err(fault)?;
        let group = number(file.group.as_ref(), group_id).map_err(fault)?;
        make_room(path, file.replace_stale).map_err(|found| fault(found.into()))?;
        let (mut made, mut unassigned) = (None, None);
        let opened = self.socket(false, &mut || {
            let found = SocketFile::just_bound(path)?;
            let assigned = found.assign(file.mode, owner, group);
            // Whatever fails from here on, its drop removes the file.
            made = Some(found);
            assigned.inspect_err(|error| unassigned = error.raw_os_error())
        });
        match (opened, made, unassigned) {
            (Ok(opened), Some(made), _) => Ok((opened, made)),
            (Err(_), _, Some(errno)) => {
                Err(fault(FileFault::Assign(std::io::Error::from_raw_os_error(errno))))
            }
            (Err(error), ..) => Err(error),
            (Ok(_), None, _) => unreachable!("what listens was bound"),
        }
    }
}

fn number(
    owner: Option<&Owner>,
    look_up: fn(&str) -> std::io::Result<Option<u32>>,
) -> Result<Option<u32>, FileFault> {
    match owner {
        None => Ok(None),
        Some(Owner::Id(id)) => Ok(Some(*id)),
        Some(Owner::Name(name)) => match look_up(name) {
            Ok(Some(id)) => Ok(Some(id)),
            Ok(None) => Err(FileFault::NoSuchOwner(name.clone())),
            Err(error) => Err(FileFault::Unknown(error)),
        },
    }
}

impl From<InTheWay> for FileFault {
    fn from(found: InTheWay) -> Self {
        match found {
            InTheWay::OtherFile => FileFault::OtherFile,
            InTheWay::LiveSocket => FileFault::LiveSocket,
            InTheWay::StaleSocket => FileFault::StaleSocket,
            InTheWay::Unknown(error) => FileFault::Unknown(error),
            other => FileFault::Unknown(std::io::Error::other(format!("{other:?}"))),
        }
    }
}

/// One socket that all cores take from.
fn shared(fd: OwnedFd, cores: usize, target: Target) -> Result<Vec<ListenSocket>, ListenError> {
    ListenSocket::for_cores(fd, cores).map_err(|error| ListenError::Socket { target, error })
}

fn inherited(spec: &ListenSpec, name: &str, cores: usize) -> Result<Made, ListenError> {
    let fault = |fault| ListenError::Inherited { name: name.to_owned(), fault };
    let mut prepared = None;
    let taken = take_inherited(name, |fd| {
        prepared = Some(prepare_inherited(spec, fd).map_err(|error| match error {
            Unfit::Fault(found) => fault(found),
            Unfit::Listen(error) => error,
        })?);
        Ok(())
    });
    let fd = taken.map_err(|error| match error {
        TakeError::Variables(error) => fault(InheritFault::Variables(error)),
        TakeError::Unknown { others } => fault(InheritFault::Unknown { others }),
        TakeError::Taken => fault(InheritFault::Taken),
        TakeError::Unfit(error) => error,
        TakeError::System(error) => fault(InheritFault::System(error)),
        other => fault(InheritFault::System(std::io::Error::other(format!("{other:?}")))),
    })?;
    let (target, set, skipped, applied) = prepared.expect("it was prepared before it was taken");
    let sockets = shared(fd, cores, target)?;
    Ok(Made { sockets, target, set, applied, skipped, refused: Vec::new(), file: None })
}

enum Unfit {
    Fault(InheritFault),
    Listen(ListenError),
}

type Prepared = (Target, OptSet, Vec<OptFault>, Vec<Effective>);

/// Checks a socket that somebody else made, and sets the options that can still be set.
fn prepare_inherited(spec: &ListenSpec, fd: BorrowedFd<'_>) -> Result<Prepared, Unfit> {
    let target = Target::of(fd).map_err(|error| Unfit::Fault(InheritFault::System(error)))?;
    if target.role != Role::Listener {
        return Err(Unfit::Fault(InheritFault::NotListening(target)));
    }
    let (set, skipped) = options(spec, target).map_err(Unfit::Listen)?;
    let mut applied = Vec::new();
    for stage in [Stage::PreBind, Stage::PreConnect, Stage::Connected] {
        let refused = |error| Unfit::Listen(ListenError::Option(error));
        applied.extend(set.apply(fd, stage, target).map_err(refused)?);
    }
    Ok((target, set, skipped, applied))
}
