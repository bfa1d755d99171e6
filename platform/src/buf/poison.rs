//! Tells AddressSanitizer which bytes of the pool nobody may touch: those in no view, among them what the kernel fills.
//!
//! Compiled in by `RUSTFLAGS="-Zsanitizer=address --cfg ringport_asan"` only; otherwise these functions are empty. The
//! sanitizer sees this program's accesses, not the kernel's.

use std::ptr::NonNull;

#[cfg(ringport_asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(at: *const u8, len: usize);
    fn __asan_unpoison_memory_region(at: *const u8, len: usize);
    #[cfg(test)]
    fn __asan_address_is_poisoned(at: *const u8) -> std::ffi::c_int;
}

/// From now on an access to these bytes ends the program.
///
/// The sanitizer works on groups of eight: a group that also holds bytes in use in front of these is hidden in part.
pub(super) fn hide(at: NonNull<u8>, len: usize) {
    #[cfg(ringport_asan)]
    // SAFETY: the runtime only changes what it knows of the address; no byte is touched.
    unsafe {
        __asan_poison_memory_region(at.as_ptr(), len);
    }
    #[cfg(not(ringport_asan))]
    let _ = (at, len);
}

/// These bytes are somebody's again.
pub(super) fn show(at: NonNull<u8>, len: usize) {
    #[cfg(ringport_asan)]
    // SAFETY: as above.
    unsafe {
        __asan_unpoison_memory_region(at.as_ptr(), len);
    }
    #[cfg(not(ringport_asan))]
    let _ = (at, len);
}

#[cfg(all(test, ringport_asan))]
mod tests {
    use super::super::{Pool, PoolSpec};
    use super::__asan_address_is_poisoned;

    fn hidden(base: std::ptr::NonNull<u8>, at: usize) -> bool {
        // SAFETY: the runtime looks at what it knows of the address only.
        unsafe { __asan_address_is_poisoned(base.as_ptr().wrapping_add(at)) != 0 }
    }

    #[test]
    fn only_views_can_be_read() {
        let pool = Pool::new(PoolSpec { chunk_bytes: 4096, min_chunks: 1, max_chunks: 2 });
        let chunk = pool.take().expect("room");
        let base = chunk.write_ptr();
        assert!(hidden(base, 0) && hidden(base, 4095));
        chunk.receive(16, |at| {
            assert!(!hidden(at, 0) && !hidden(at, 15) && hidden(at, 16));
        });
        assert!(hidden(base, 0));
        // SAFETY: nobody reads the view's bytes.
        let view = unsafe { chunk.view(10) };
        assert!(!hidden(base, 0) && !hidden(base, 9) && hidden(base, 10) && hidden(base, 4095));
        view.hide();
        assert!(hidden(base, 0));
        view.show();
        assert!(!hidden(base, 9));
        drop((view, chunk));
        assert!(hidden(base, 0), "back in the pool");
        let small = pool.write_small(b"hello");
        assert_eq!(&*small, b"hello");
    }
}
