//! The file of a Unix socket: replaced where it is stale, given its mode and owner, removed where it is still ours.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

use super::{InTheWay, unix_addr};

/// The file that a bind made. Dropping it removes the file, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    remove: bool,
}

impl SocketFile {
    /// The file at `path`, which was just bound.
    ///
    /// # Errors
    /// The kernel's: somebody removed it meanwhile.
    pub fn just_bound(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()), remove: true })
    }

    /// Sets permissions, then owner and group; what is `None` stays.
    ///
    /// # Errors
    /// The kernel's: who does not have `CAP_CHOWN` can only choose a group of their own.
    pub fn assign(&self, mode: Option<u32>, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
        if owner.is_some() || group.is_some() {
            chown(&self.path, owner, group)?;
        }
        // After the owner: a change of owner takes bits away.
        mode.map_or(Ok(()), |mode| fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)))
    }

    /// Leaves the file where it is.
    pub fn keep(&mut self) {
        self.remove = false;
    }

    /// Removes the file now, as the drop would. Doing it twice is no fault.
    pub fn remove(&self) {
        let ours = || {
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        };
        if self.remove
            && ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes room for a socket at `path`: a socket's file that nobody has is removed if `replace` says so. A live socket, or a
/// file of another kind, never is.
///
/// # Errors
/// What is in the way.
pub fn make_room(path: &Path, replace: bool) -> Result<(), InTheWay> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(InTheWay::Unknown(error)),
    };
    if !found.file_type().is_socket() {
        return Err(InTheWay::OtherFile);
    }
    // Non-blocking: a live socket with a full backlog answers EAGAIN; one of another type EPROTOTYPE. unix(7).
    let asked = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None);
    let asked = asked.and_then(|socket| socket.connect(&unix_addr(path.as_os_str().as_encoded_bytes())?));
    match asked {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(InTheWay::Unknown(error));
        }
        Ok(()) | Err(_) => return Err(InTheWay::LiveSocket),
    }
    if !replace {
        return Err(InTheWay::StaleSocket);
    }
    // Another process may have replaced it since: what is removed is what was asked.
    let same = |now: fs::Metadata| (now.dev(), now.ino()) == (found.dev(), found.ino());
    if !fs::symlink_metadata(path).is_ok_and(same) {
        return Err(InTheWay::LiveSocket);
    }
    fs::remove_file(path).map_err(InTheWay::Unknown)
}

/// The number of a user; `None` where there is no such name. May read files and ask services: getpwnam_r(3).
///
/// # Errors
/// The system's.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buf| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: name ends in NUL; the call writes `entry`, at most `buf.len()` bytes of `buf`, and `found`, during the
        // call only; all four outlive it.
        let errno = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buf.as_mut_ptr(), buf.len(), &raw mut found)
        };
        // SAFETY: where `found` is not null it is `entry`, which the call has filled.
        (errno, (!found.is_null()).then(|| unsafe { (*found).pw_uid }))
    })
}

/// The number of a group; `None` where there is no such name. getgrnam_r(3).
///
/// # Errors
/// The system's.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buf| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: as in `user_id`.
        let errno = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buf.as_mut_ptr(), buf.len(), &raw mut found)
        };
        // SAFETY: as in `user_id`.
        (errno, (!found.is_null()).then(|| unsafe { (*found).gr_gid }))
    })
}

/// Calls with a buffer that grows until the entry fits, at most to 1 MiB.
fn look_up(
    name: &str,
    call: impl Fn(&CString, &mut [libc::c_char]) -> (libc::c_int, Option<u32>),
) -> io::Result<Option<u32>> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut buf = vec![0; 1024];
    loop {
        match call(&name, &mut buf) {
            (libc::ERANGE, _) if buf.len() < 1 << 20 => buf.resize(buf.len() * 4, 0),
            (libc::EINTR, _) => {}
            (_, Some(id)) => return Ok(Some(id)),
            // POSIX: 0 without an entry; these are what systems answer instead. getpwnam(3)
            (0 | libc::ENOENT | libc::ESRCH, None) => return Ok(None),
            (errno, None) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
