//! A pipe, a console or a file: each is asked in its own way.

use std::io;
use std::os::windows::io::AsRawHandle;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_PIPE_NOT_CONNECTED, WAIT_TIMEOUT};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_CHAR, FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::WaitForSingleObject;

/// Whether a read of standard input would wait now; to be asked while none is under way, since operations on a handle without
/// overlapped ones come one after the other. Of a pipe `PeekNamedPipe`, of a console whether it is signalled: there
/// is then some event, perhaps one that brings no character. A file never waits.
pub fn input_would_wait() -> bool {
    let handle = io::stdin().as_raw_handle();
    // SAFETY: the handle is the process's, open for as long as it lives; no memory is involved.
    match unsafe { GetFileType(handle) } {
        FILE_TYPE_PIPE => {
            let mut available = 0;
            // SAFETY: with no buffer the call writes `available` only.
            let is_open = unsafe {
                PeekNamedPipe(
                    handle,
                    ptr::null_mut(),
                    0,
                    ptr::null_mut(),
                    &raw mut available,
                    ptr::null_mut(),
                )
            };
            // The end of the pipe is what a read tells. Wine cannot look into a pipe of Linux: nothing is known of it.
            if is_open == 0 { !is_reader_gone(&io::Error::last_os_error()) } else { available == 0 }
        }
        // SAFETY: as above.
        FILE_TYPE_CHAR => unsafe { WaitForSingleObject(handle, 0) == WAIT_TIMEOUT },
        _ => false,
    }
}

/// Whether a read of standard input that is under way, and found nothing, waits still. Yes: it returns with the first byte, and
/// until then nobody may ask.
pub fn input_still_waits() -> bool {
    true
}

/// Whether a write failed because nobody reads any more: the pipe is closed, or its other end was disconnected.
pub fn is_reader_gone(error: &io::Error) -> bool {
    const DISCONNECTED: i32 = ERROR_PIPE_NOT_CONNECTED.cast_signed();
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(DISCONNECTED)
}
