//! Asks poll(2) about descriptors, without waiting.
#![allow(unsafe_code, reason = "poll(2)")]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::source::Direction;

/// The program was told of urgent data. A read of a stream ends at the place of such data. Once the program has taken
/// the data, nothing tells that there is more behind them. So from then on a short read does not show that a stream
/// is drained.
static URGENT: AtomicBool = AtomicBool::new(false);

/// Tells if the program was told of urgent data, on any descriptor.
#[inline]
pub(crate) fn has_told_of_urgent_data() -> bool {
    URGENT.load(Ordering::Relaxed)
}

/// Notes that the program is told of urgent data, if one of these descriptors has some.
pub(crate) fn note_urgent_data(fds: &[libc::pollfd]) {
    if fds.iter().any(|one| one.revents & libc::POLLPRI != 0) {
        URGENT.store(true, Ordering::Relaxed);
    }
}

/// Returns the events that poll(2) is asked for before a call in that direction.
pub(crate) fn events(direction: Direction) -> libc::c_short {
    match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    }
}

/// Tells if nothing more will come: the peer or shutdown(2) has ended the direction.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_at_end(fd: RawFd) -> bool {
    let mut one = [libc::pollfd {
        fd,
        events: libc::POLLRDHUP,
        revents: 0,
    }];
    poll_now(&mut one).is_ok() && one[0].revents & libc::POLLRDHUP != 0
}

/// On these systems a call that does not wait tells of the end by itself.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_at_end(_: RawFd) -> bool {
    false
}

/// Tells if one of the events has happened, or an error or a hang-up.
pub(crate) fn is_ready(fd: RawFd, events: libc::c_short) -> io::Result<bool> {
    let mut one = [libc::pollfd {
        fd,
        events,
        revents: 0,
    }];
    let ready = poll_now(&mut one)? > 0;
    if one[0].revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(ready)
}

/// Asks without waiting. Returns how many entries have something to tell.
pub(crate) fn poll_now(fds: &mut [libc::pollfd]) -> io::Result<usize> {
    loop {
        let count = fds.len() as libc::nfds_t;
        // SAFETY: as many entries as are there.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), count, 0) };
        if let Ok(ready) = usize::try_from(ready) {
            return Ok(ready);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // The kernel refuses more entries than the process may have descriptors, though one descriptor may be in
            // several entries.
            Some(libc::EINVAL) if fds.len() > 1 => {
                let (first, second) = fds.split_at_mut(fds.len() / 2);
                return Ok(poll_now(first)? + poll_now(second)?);
            }
            _ => return Err(error),
        }
    }
}

/// Returns one entry for each descriptor, with all events that are asked for.
pub(crate) fn merged(fds: &[libc::pollfd]) -> Vec<libc::pollfd> {
    let mut merged = fds.to_vec();
    merged.sort_unstable_by_key(|one| one.fd);
    merged.dedup_by(|next, first| {
        let same = next.fd == first.fd;
        if same {
            first.events |= next.events;
        }
        same
    });
    merged
}
