//! Puts `errno` back where the program must not see a change of it: in a signal handler, and after an optional
//! system call that was refused.
#![allow(unsafe_code, reason = "C libraries have it at an address")]

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
use libc::___errno as place;
#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as place;
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "android",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "illumos",
    target_os = "solaris"
)))]
use libc::__errno_location as place;
#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
))]
use libc::__error as place;
use libc::c_int;

/// Gives `errno` its value back when this is dropped.
#[derive(Debug)]
pub(crate) struct KeepErrno(c_int);

impl KeepErrno {
    #[inline]
    pub(crate) fn new() -> Self {
        // SAFETY: the running thread's own.
        Self(unsafe { *place() })
    }
}

impl Drop for KeepErrno {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *place() = self.0 };
    }
}
