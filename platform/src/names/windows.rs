//! getaddrinfo of Windows, as the standard library calls it.

use std::net::{SocketAddr, ToSocketAddrs};

use windows_sys::Win32::Networking::WinSock::{WSAHOST_NOT_FOUND, WSANO_DATA, WSATRY_AGAIN};

use super::LookupError;

/// The addresses of a name with port 0, in the system's order (RFC 6724), each once, `max` of them at most. Blocks, for as
/// long as the system's resolver takes: a job for [`crate::blocking::BlockingPool`].
///
/// # Errors
/// The name has none, or it could not be found out.
pub fn lookup(host: &str, max: usize) -> Result<Vec<SocketAddr>, LookupError> {
    if host.is_empty() {
        // Windows takes it for a name of this machine.
        return Err(LookupError::NotFound);
    }
    let list = (host, 0).to_socket_addrs().map_err(|error| match error.raw_os_error() {
        Some(WSAHOST_NOT_FOUND | WSANO_DATA) => LookupError::NotFound,
        Some(WSATRY_AGAIN) => LookupError::TryAgain,
        // The standard library refuses a name with a NUL byte itself.
        None if error.kind() == std::io::ErrorKind::InvalidInput => LookupError::NotFound,
        _ => LookupError::Other(error.to_string()),
    })?;
    let mut found = Vec::new();
    for addr in list {
        if found.len() == max {
            break;
        }
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    Ok(found)
}
