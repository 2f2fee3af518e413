//! The size of a page.
#![allow(unsafe_code, reason = "asks the system")]

use std::sync::atomic::{AtomicUsize, Ordering};

static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Bytes in a page of memory.
pub(crate) fn page_size() -> usize {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => ask_page_size(),
        bytes => bytes,
    }
}

#[cold]
fn ask_page_size() -> usize {
    // SAFETY: the call has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let bytes = usize::try_from(bytes).expect("every Unix tells the size of its pages");
    assert!(bytes.is_power_of_two(), "a page of {bytes} bytes");
    PAGE_SIZE.store(bytes, Ordering::Relaxed);
    bytes
}
