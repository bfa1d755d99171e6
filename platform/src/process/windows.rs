//! What Windows knows of a process.

use std::io;
use std::time::Duration;

use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
use windows_sys::Win32::Foundation::{FILETIME, HANDLE};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::OSVERSIONINFOW;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetProcessAffinityMask, GetProcessHandleCount, GetThreadTimes,
    SetThreadAffinityMask,
};

use super::{FdLimit, TakeError};
use crate::errno;
use crate::fd::{BorrowedFd, OwnedFd};

/// `Windows 10.0.19045`: version and build. `RtlGetVersion`, which tells every program the truth.
pub fn system_release() -> String {
    // SAFETY: integers, of which all zeroes are values.
    let mut version: OSVERSIONINFOW = unsafe { std::mem::zeroed() };
    version.dwOSVersionInfoSize = size_of::<OSVERSIONINFOW>() as u32;
    // SAFETY: the call writes a structure of the size that it says.
    unsafe { RtlGetVersion(&raw mut version) };
    format!("Windows {}.{}.{}", version.dwMajorVersion, version.dwMinorVersion, version.dwBuildNumber)
}

/// The limits as they are: Windows has none to raise.
///
/// # Errors
/// None.
pub fn raise_fd_limit() -> io::Result<FdLimit> {
    fd_limit()
}

/// How many handles a process may have: 16,777,216, whatever they name. Microsoft Learn, "Kernel Objects".
///
/// # Errors
/// None.
pub fn fd_limit() -> io::Result<FdLimit> {
    Ok(FdLimit { soft: 1 << 24, hard: 1 << 24 })
}

/// No effect: the heap of Windows gives back by itself what is free.
pub fn release_heap() {}

/// The numbers of the cores that this process may run on, ascending; of the first group of 64 where there are more.
///
/// # Errors
/// As `GetProcessAffinityMask` gave it.
pub fn available_cores() -> io::Result<Vec<usize>> {
    let (mut ours, mut all) = (0usize, 0usize);
    // SAFETY: the pseudo handle needs no closing; the call writes both masks.
    check(unsafe { GetProcessAffinityMask(GetCurrentProcess(), &raw mut ours, &raw mut all) })?;
    Ok((0..usize::BITS as usize).filter(|core| ours >> core & 1 == 1).collect())
}

/// Binds the calling thread to one core, a number out of [`available_cores`].
///
/// # Errors
/// `EINVAL` when there is no such core, or it is not this process's. `SetThreadAffinityMask`.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let mask = u32::try_from(core).ok().and_then(|core| 1usize.checked_shl(core));
    let mask = mask.ok_or_else(|| io::Error::from_raw_os_error(errno::EINVAL))?;
    // SAFETY: the pseudo handle needs no closing; no memory is involved.
    check(i32::from(unsafe { SetThreadAffinityMask(GetCurrentThread(), mask) } != 0))
}

/// How long the calling thread has run on a processor, in user space and in the kernel. `GetThreadTimes`.
///
/// # Errors
/// As the system gave it.
pub fn thread_cpu_time() -> io::Result<Duration> {
    let [mut created, mut ended, mut kernel, mut user] =
        [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
    let thread = current_thread();
    // SAFETY: the call writes the four times.
    check(unsafe {
        GetThreadTimes(thread, &raw mut created, &raw mut ended, &raw mut kernel, &raw mut user)
    })?;
    let ticks = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    // In units of 100 ns.
    Ok(Duration::from_nanos((ticks(kernel) + ticks(user)) * 100))
}

fn current_thread() -> HANDLE {
    // SAFETY: a pseudo handle, the same for every thread.
    unsafe { GetCurrentThread() }
}

/// Bytes of memory resident now: the working set.
///
/// # Errors
/// As `GetProcessMemoryInfo` gave it.
pub fn current_rss_bytes() -> io::Result<u64> {
    // SAFETY: integers, of which all zeroes are values.
    let mut counters: PROCESS_MEMORY_COUNTERS = unsafe { std::mem::zeroed() };
    let len = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    // SAFETY: the call writes `len` bytes, the size of `counters`.
    check(unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &raw mut counters, len) })?;
    Ok(counters.WorkingSetSize as u64)
}

/// How many handles are open, sockets among them.
///
/// # Errors
/// As `GetProcessHandleCount` gave it.
pub fn open_fd_count() -> io::Result<usize> {
    let mut count = 0;
    // SAFETY: the call writes `count`.
    check(unsafe { GetProcessHandleCount(GetCurrentProcess(), &raw mut count) })?;
    Ok(count as usize)
}

/// A socket that the service manager opened: there is no such protocol on Windows.
///
/// # Errors
/// [`TakeError::System`], always.
pub fn take_inherited<E>(
    _name: &str,
    _fits: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
) -> Result<OwnedFd, TakeError<E>> {
    let why = "sockets cannot be inherited on Windows: there is no socket activation";
    Err(TakeError::System(io::Error::new(io::ErrorKind::Unsupported, why)))
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
