//! What the calls of sockets share: whether a call may wait, and what the program tells the kernel of a socket. shutdown(2),
//! setsockopt(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, socklen_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::on;
use crate::raw::{self, sys};
use crate::slot::{SETTINGS, shut_down};

/// `SO_RCVTIMEO_NEW` and `SO_SNDTIMEO_NEW`: the same with a `timeval` of 64 bits.
const RCVTIMEO_NEW: c_int = 66;
const SNDTIMEO_NEW: c_int = 67;

/// Somebody in this process has set a low-water mark of reading, on whatever socket.
static HAS_LOW_WATER: AtomicBool = AtomicBool::new(false);

/// Somebody has.
pub(crate) fn has_low_water() -> bool {
    HAS_LOW_WATER.load(Ordering::Relaxed)
}

/// The call is one that may wait, by a caller who is patched.
pub(crate) fn waits(flags: c_int) -> bool {
    on(Kind::Sockets) && flags & libc::MSG_DONTWAIT == 0
}

/// As `waits`, for one that receives: urgent data and the queue of errors are never waited for.
pub(crate) fn waits_to_receive(flags: c_int) -> bool {
    waits(flags) && flags & (libc::MSG_ERRQUEUE | libc::MSG_OOB) == 0
}

/// shutdown(2). The kernel wakes those who wait in it, and tells those who poll less: nothing of the writing side of
/// a Unix stream.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: no pointers.
    let result = raw::int(unsafe { sys!(SYS_shutdown, fd, how) });
    if result == 0 && patch::may_wake() {
        shut_down(fd);
    }
    result
}

/// setsockopt(2). This crate must know of the low-water mark, which a call that does not wait does not heed,
/// and of limits.
///
/// # Safety
/// As setsockopt(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: by contract.
    let result = raw::int(unsafe { sys!(SYS_setsockopt, fd, level, name, value, len) });
    if result == 0 && level == libc::SOL_SOCKET {
        match name {
            libc::SO_RCVLOWAT => HAS_LOW_WATER.store(true, Ordering::Relaxed),
            // What was there may have been no limit.
            libc::SO_RCVTIMEO | libc::SO_SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
                SETTINGS.changed();
            }
            _ => {}
        }
    }
    result
}
