//! The limits of calls that wait, as libc's calls take them.

use std::time::{Duration, Instant};

use libc::{c_int, timespec};

/// When a limit that begins now has passed; `None`: never.
pub(crate) fn deadline_of(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

/// A limit in milliseconds as `poll` and `epoll_wait` take it.
pub(crate) fn milliseconds(limit: c_int) -> Option<Duration> {
    u64::try_from(limit).ok().map(Duration::from_millis)
}

/// `None`: it is none.
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
