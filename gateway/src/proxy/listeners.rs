//! Listening sockets, bound before any core starts, so that a fault is one sentence and nothing has begun.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ringport::runtime::{ConnectAddr, ListenOptions, LocalAddr};
use ringport::spec::{Address, ListenSource, ProxySpec};
use ringport_platform::fd::{AsFd, OwnedFd};
use ringport_platform::socket;

/// One core's share of a listener.
pub(super) struct CoreListener {
    pub fd: OwnedFd,
}

/// An address that is listened on. Dropping it removes the socket's file.
pub(super) struct Bound {
    name: String,
    address: Address,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Inet(addr) => write!(f, "{} http://{addr}", self.name),
            other => write!(f, "{} {other}", self.name),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "the socket's file could not be removed");
        }
    }
}

/// Binds every listener of a spec, with a socket for each core. The outer list of the second value is by core.
///
/// # Errors
/// One sentence that names the address; what was bound before is closed again.
pub(super) fn bind_all(
    spec: &ProxySpec,
    cores: usize,
) -> Result<(Vec<Bound>, Vec<Vec<CoreListener>>), String> {
    let mut bound = Vec::new();
    let mut per_core: Vec<Vec<CoreListener>> = (0..cores).map(|_| Vec::new()).collect();
    for listener in spec.listeners() {
        let ListenSource::Address(asked) = listener.listen.source() else {
            return Err(format!("{}: inherited sockets are not available yet", listener.name));
        };
        let (address, fds) = bind(asked.address(), cores)
            .map_err(|error| format!("cannot listen on {} ({}): {error}", asked.address(), listener.name))?;
        bound.push(Bound { name: listener.name.clone(), address });
        for (core, fd) in per_core.iter_mut().zip(fds) {
            core.push(CoreListener { fd });
        }
    }
    Ok((bound, per_core))
}

/// Binds the admin listener, if the spec has one.
///
/// # Errors
/// As [`bind_all`].
pub(super) fn bind_admin(spec: &ProxySpec) -> Result<Option<(Bound, CoreListener)>, String> {
    let Some(address) = spec.admin() else { return Ok(None) };
    let (address, mut fds) =
        bind(address, 1).map_err(|error| format!("cannot listen on {address} (admin): {error}"))?;
    let bound = Bound { name: "admin".to_owned(), address };
    Ok(fds.pop().map(|fd| (bound, CoreListener { fd })))
}

fn bind(address: &Address, cores: usize) -> io::Result<(Address, Vec<OwnedFd>)> {
    match address {
        Address::Inet(addr) => bind_tcp(*addr, cores),
        Address::Unix(path) => {
            remove_stale(path)?;
            let name = path.to_string_lossy().into_owned().into_bytes();
            Ok((address.clone(), shared(&ConnectAddr::Unix(name), cores)?))
        }
        Address::UnixAbstract(name) => {
            let name = [b"\0", name.as_slice()].concat();
            Ok((address.clone(), shared(&ConnectAddr::Unix(name), cores)?))
        }
    }
}

/// One socket for each core: the kernel spreads connections over them (`SO_REUSEPORT`).
fn bind_tcp(addr: SocketAddr, cores: usize) -> io::Result<(Address, Vec<OwnedFd>)> {
    // Alone first: another process that also shares the port would otherwise be joined without a word.
    let alone = socket::listen(&ConnectAddr::Inet(addr), ListenOptions::default())?;
    let LocalAddr::Inet(addr) = socket::local_addr(alone.as_fd())? else {
        return Err(io::Error::other("a TCP socket without an address"));
    };
    if cores == 1 {
        return Ok((Address::Inet(addr), vec![alone]));
    }
    drop(alone);
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let fds =
        (0..cores).map(|_| socket::listen(&ConnectAddr::Inet(addr), options)).collect::<io::Result<_>>()?;
    Ok((Address::Inet(addr), fds))
}

/// One socket that all cores take from.
fn shared(addr: &ConnectAddr, cores: usize) -> io::Result<Vec<OwnedFd>> {
    let first = socket::listen(addr, ListenOptions::default())?;
    let mut fds = (1..cores).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    fds.push(first);
    Ok(fds)
}

/// Removes the file of a socket that nobody listens on. A live socket, or a file of another kind, stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket is in the way",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(PathBuf::from(path))
        }
        Err(error) => Err(error),
    }
}
