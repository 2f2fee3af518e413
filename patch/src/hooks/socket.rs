//! What the calls of sockets share: whether a call may wait, and what the program tells the kernel about a socket.
//! shutdown(2), setsockopt(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, socklen_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::on;
use crate::raw::{self, sys};
use crate::slot::{SETTINGS, shut_down};

/// `SO_RCVTIMEO_NEW` and `SO_SNDTIMEO_NEW`: the same options with a `timeval` of 64 bits.
const RCVTIMEO_NEW: c_int = 66;
const SNDTIMEO_NEW: c_int = 67;

/// Whether this process has set a low-water mark for reading on any socket.
static HAS_LOW_WATER: AtomicBool = AtomicBool::new(false);

/// Tells if it has.
pub(crate) fn has_low_water() -> bool {
    HAS_LOW_WATER.load(Ordering::Relaxed)
}

/// Tells if the call may wait and its caller is patched.
pub(crate) fn waits(flags: c_int) -> bool {
    on(Kind::Sockets) && flags & libc::MSG_DONTWAIT == 0
}

/// Tells the same as `waits` of a call that receives. Such calls never wait for urgent data and the queue of errors.
pub(crate) fn waits_to_receive(flags: c_int) -> bool {
    waits(flags) && flags & (libc::MSG_ERRQUEUE | libc::MSG_OOB) == 0
}

/// shutdown(2). The kernel wakes threads that wait inside it. It tells less to those that poll: nothing about the
/// writing side of a Unix stream.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: no pointers.
    let result = raw::int(unsafe { sys!(SYS_shutdown, fd, how) });
    if result == 0 && patch::may_wake() {
        shut_down(fd);
    }
    result
}

/// setsockopt(2). This crate must know of limits, and of the low-water mark, which calls without waiting ignore.
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
            // There may have been no limit before.
            libc::SO_RCVTIMEO | libc::SO_SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
                SETTINGS.changed();
            }
            _ => {}
        }
    }
    result
}
