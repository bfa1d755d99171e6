//! getaddrinfo(3), called as it is: its list is walked only as far as is asked for.

use std::ffi::{CStr, CString};
use std::io;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};

use socket2::SockAddr;

use super::LookupError;

/// The addresses of a name with port 0, in the system's order (RFC 6724), each once, `max` of them at most. Blocks, for as
/// long as the system's resolver takes: a job for [`crate::blocking::BlockingPool`].
///
/// # Errors
/// The name has none, or it could not be found out.
pub fn lookup(host: &str, max: usize) -> Result<Vec<SocketAddr>, LookupError> {
    let Ok(name) = CString::new(host) else { return Err(LookupError::NotFound) };
    let hints = libc::addrinfo {
        ai_flags: 0,
        ai_family: libc::AF_UNSPEC,
        // One of the three entries that every address has else.
        ai_socktype: libc::SOCK_STREAM,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let mut first = ptr::null_mut();
    // SAFETY: the name ends in NUL, and it and the hints outlive the call, which alone reads them; `first` is written
    // when 0 is returned.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut first) };
    match code {
        0 => {}
        libc::EAI_NONAME | EAI_NODATA | EAI_ADDRFAMILY => return Err(LookupError::NotFound),
        libc::EAI_AGAIN => return Err(LookupError::TryAgain),
        libc::EAI_SYSTEM => return Err(LookupError::Other(io::Error::last_os_error().to_string())),
        code => return Err(LookupError::Other(reason(code))),
    }
    let list = List(first);
    let mut found = Vec::new();
    for addr in list.iter() {
        if found.len() == max {
            break;
        }
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    Ok(found)
}

/// What getaddrinfo(3) gave; freed on drop.
struct List(*mut libc::addrinfo);

impl List {
    fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        let mut next = NonNull::new(self.0);
        std::iter::from_fn(move || {
            loop {
                // SAFETY: an entry of the list, which lives as long as `self`.
                let entry = unsafe { next?.as_ref() };
                next = NonNull::new(entry.ai_next);
                if let Some(addr) = inet(entry) {
                    return Some(addr);
                }
            }
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: what getaddrinfo(3) gave, freed once.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

fn inet(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let len = usize::try_from(entry.ai_addrlen).ok()?;
    let (storage_len, source) = (size_of::<libc::sockaddr_storage>(), entry.ai_addr.cast::<u8>());
    if source.is_null() || len > storage_len {
        return None;
    }
    // SAFETY: `init` writes the address and its length only.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            // SAFETY: the entry has `ai_addrlen` bytes of address, which fit into the storage, as was checked.
            ptr::copy_nonoverlapping(source, storage.cast::<u8>(), len);
            *length = entry.ai_addrlen;
            Ok(())
        })
    };
    made.ok()?.1.as_socket()
}

fn reason(code: libc::c_int) -> String {
    // SAFETY: gai_strerror(3) gives a text that is never freed, for every code.
    unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
}

/// Of glibc; the `libc` crate has neither for every system.
const EAI_NODATA: libc::c_int = -5;
const EAI_ADDRFAMILY: libc::c_int = -9;
