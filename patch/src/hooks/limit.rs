//! The limits of calls that wait, in the forms of libc.

use std::time::{Duration, Instant};

use libc::{c_int, timespec};

/// Returns when a limit that begins now has passed; `None` if it never does.
pub(crate) fn deadline_of(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

/// Returns a limit of milliseconds, in the form that `poll` and `epoll_wait` use.
pub(crate) fn milliseconds(limit: c_int) -> Option<Duration> {
    u64::try_from(limit).ok().map(Duration::from_millis)
}

/// Returns a duration, or `None` if the value is not valid.
pub(crate) fn duration_of(spec: timespec) -> Option<Duration> {
    let secs = u64::try_from(spec.tv_sec).ok()?;
    let nanos = u32::try_from(spec.tv_nsec).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(secs, nanos))
}

pub(crate) fn timespec_of(duration: Duration) -> timespec {
    timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
