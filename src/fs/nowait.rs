//! Reads of what the kernel has in memory.
#![allow(unsafe_code, reason = "preadv2")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The offset that means the position of the file.
const HERE: i64 = -1;

/// Reads what is in memory. Returns `None` if nothing is, at the end of the file and for errors. Kernels 5.9 and 5.10
/// return 0 in the middle of a file (see tokio's `fs/file`), so 0 tells nothing.
pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: Option<u64>) -> Option<usize> {
    let at = match offset {
        None => HERE,
        // No file is that long. The ordinary read gives the error.
        Some(offset) => i64::try_from(offset).ok()?,
    };
    let slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // The offset is given as two halves, each a `long`. With 64 bits the first one holds all of it.
    let (low, high) = (at, at >> 32);
    let (slice, flags) = (&raw const slice, libc::RWF_NOWAIT);
    // The system call is made directly, as musl has no function for it.
    // SAFETY: there is one slice, which is the caller's buffer for the call.
    let read = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            fd.as_raw_fd(),
            slice,
            1,
            low as libc::c_long,
            high as libc::c_long,
            flags,
        )
    };
    usize::try_from(read).ok().filter(|&read| read > 0)
}
