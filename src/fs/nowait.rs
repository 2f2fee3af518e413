//! Reads of what the kernel has in memory.
#![allow(unsafe_code, reason = "preadv2")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Where a read begins: where the file stands.
const HERE: i64 = -1;

/// Reads what is in memory. `None`: nothing is, or it cannot be told, the file's end and errors included. Kernels
/// 5.9 and 5.10 return 0 in the middle of a file (see tokio's `fs/file`), so that 0 says nothing.
pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: Option<u64>) -> Option<usize> {
    let at = match offset {
        None => HERE,
        // Beyond that there is no file; what this read would say is for the ordinary one to say.
        Some(offset) => i64::try_from(offset).ok()?,
    };
    let slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // The offset goes in two halves of a `long`; with 64 bits the first one has all of it.
    let (low, high) = (at, at >> 32);
    let (slice, flags) = (&raw const slice, libc::RWF_NOWAIT);
    // Not the C library's function: musl has none.
    // SAFETY: one slice, which is the caller's buffer for the call.
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
