//! Ends sleeps that are shorter than mio can tell; timerfd_create(2).
#![allow(unsafe_code, reason = "a descriptor of its own")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// Ends sleeps that are shorter than mio can tell; timerfd_create(2).
#[derive(Debug)]
pub(super) struct TimerFd(OwnedFd);

impl TimerFd {
    /// `None` if the system gives none, for whatever reason.
    pub(super) fn new(registry: &Registry, token: Token) -> Option<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();
        let registered = registry.register(&mut SourceFd(&raw), token, Interest::READABLE);
        registered.is_ok().then_some(Self(fd))
    }

    /// Makes the timer readable after the duration, which is below a second and not zero.
    pub(super) fn arm(&self, after: Duration) -> bool {
        let value = libc::timespec {
            tv_sec: 0,
            tv_nsec: after.subsec_nanos().into(),
        };
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = libc::itimerspec {
            it_interval: zero,
            it_value: value,
        };
        // SAFETY: the descriptor is a timer of ours, the pointer is to a local.
        let result = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        };
        result == 0
    }
}
