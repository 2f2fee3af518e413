//! poll(2): what the kernel says of descriptors, level-triggered, and waiting for it to say something.
//!
//! 1. The kernel is asked, without waiting: most of the time something is ready.
//! 2. A thread that must block its OS thread (a plain one, or inside `blocking`) does so in poll(2), with
//!    a pipe beside the descriptors for whoever ends its wait otherwise.
//! 3. A green thread puts the descriptors into an epoll instance of its own ([`crate::poll_set`]) and
//!    waits for that one as for any source. Woken, it asks the kernel again: what poll(2) says is the
//!    only truth here, events only say when to look.
//! 4. If there is no descriptor left for the pipe or the instance, or epoll refuses one of those that
//!    are waited for, poll(2) is asked again and again with pauses in between ([`crate::pauses`]).
#![allow(unsafe_code, reason = "poll(2); a slice of PollFd is one of pollfd")]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weald_scheduler::io::Woken;

use crate::pauses;
use crate::source::Direction;

/// Urgent data has been told of. A read of a stream ends at its place, and once the program has taken
/// it, nothing tells that there is more behind it: from then on no short read says that a stream is
/// drained.
static URGENT: AtomicBool = AtomicBool::new(false);

/// The program has been told of urgent data, on whatever descriptor.
#[inline]
pub(crate) fn has_told_of_urgent_data() -> bool {
    URGENT.load(Ordering::Relaxed)
}

/// What poll(2) is asked for before a call in that direction.
pub(crate) fn events(direction: Direction) -> libc::c_short {
    match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    }
}

/// Nothing will come any more: the peer has ended its direction, or shutdown(2) has.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_at_end(fd: RawFd) -> bool {
    let mut one = [libc::pollfd {
        fd,
        events: libc::POLLRDHUP,
        revents: 0,
    }];
    poll_now(&mut one).is_ok() && one[0].revents & libc::POLLRDHUP != 0
}

/// Elsewhere a call that does not wait tells of the end itself.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_at_end(_: RawFd) -> bool {
    false
}

/// One of the events has happened, or an error or hang-up has.
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

/// Asks without waiting. Returns of how many there is something to say.
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
            // The kernel refuses more entries than the process may have descriptors, though one may be
            // in several.
            Some(libc::EINVAL) if fds.len() > 1 => {
                let (first, second) = fds.split_at_mut(fds.len() / 2);
                return Ok(poll_now(first)? + poll_now(second)?);
            }
            _ => return Err(error),
        }
    }
}

/// One entry for each descriptor, with all that is asked of it.
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

/// Waits until there is something to say of one of them. Returns of how many; 0: the time is over. A
/// blocking call.
pub(crate) fn wait(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    weald_scheduler::io::enter()?;
    let mut ready = poll_now(fds)?;
    if ready > 0 || timeout == Some(Duration::ZERO) {
        weald_scheduler::io::spend();
    } else {
        let deadline = timeout.and_then(weald_scheduler::io::deadline);
        ready = if weald_scheduler::io::waits_in_place() {
            wait_in_place(fds, deadline)?
        } else {
            crate::poll_set::wait(fds, deadline)?
        };
    }
    if fds.iter().any(|one| one.revents & libc::POLLPRI != 0) {
        URGENT.store(true, Ordering::Relaxed);
    }
    Ok(ready)
}

/// Asks again and again, with pauses: a wait that needs no descriptor, for when there are no more.
pub(crate) fn wait_by_pauses(
    fds: &mut [libc::pollfd],
    deadline: Option<Instant>,
) -> io::Result<usize> {
    let mut ready = 0;
    pauses::wait_until(deadline, || {
        ready = poll_now(fds)?;
        Ok(ready > 0)
    })?;
    Ok(ready)
}

/// Blocks the OS thread.
pub(crate) fn wait_in_place(
    fds: &mut [libc::pollfd],
    deadline: Option<Instant>,
) -> io::Result<usize> {
    let mut watched = merged(fds);
    loop {
        let Ok(woken) = weald_scheduler::io::poll_in_place(&mut watched, deadline) else {
            return wait_by_pauses(fds, deadline);
        };
        if let Woken::Interrupted(interrupt) = woken {
            // It was taken to be raised, whatever else has happened.
            return Err(interrupt.into_io());
        }
        let ready = poll_now(fds)?;
        if ready > 0 || matches!(woken, Woken::TimedOut) {
            return Ok(ready);
        }
    }
}

/// A descriptor, what is asked of it and what the kernel said; for [`poll`]. libc's `pollfd`, whose
/// constants are here under shorter names.
///
/// # Examples
/// See [`poll`].
#[derive(Clone)]
#[repr(transparent)]
pub struct PollFd<'fd> {
    fd: libc::pollfd,
    /// It is open at least as long.
    lent: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> PollFd<'fd> {
    /// Reading would not wait: `POLLIN`.
    pub const IN: i16 = libc::POLLIN;
    /// Writing would not wait: `POLLOUT`.
    pub const OUT: i16 = libc::POLLOUT;
    /// Out-of-band data is there: `POLLPRI`.
    pub const PRI: i16 = libc::POLLPRI;
    /// An error; told without being asked: `POLLERR`.
    pub const ERR: i16 = libc::POLLERR;
    /// The other end is gone; told without being asked: `POLLHUP`.
    pub const HUP: i16 = libc::POLLHUP;
    /// The descriptor is not open; told without being asked: `POLLNVAL`.
    pub const NVAL: i16 = libc::POLLNVAL;
    /// The peer will send no more: `POLLRDHUP`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub const RDHUP: i16 = libc::POLLRDHUP;

    /// Asks for the events, a sum of the constants here.
    pub fn new<F: AsFd + ?Sized>(fd: &'fd F, events: i16) -> Self {
        Self {
            fd: libc::pollfd {
                fd: fd.as_fd().as_raw_fd(),
                events,
                revents: 0,
            },
            lent: PhantomData,
        }
    }

    /// What is asked.
    pub fn events(&self) -> i16 {
        self.fd.events
    }

    /// Asks for something else from now on.
    pub fn set_events(&mut self, events: i16) {
        self.fd.events = events;
    }

    /// What the last [`poll`] said.
    pub fn revents(&self) -> i16 {
        self.fd.revents
    }
}

impl AsFd for PollFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was borrowed for longer.
        unsafe { BorrowedFd::borrow_raw(self.fd.fd) }
    }
}

impl fmt::Debug for PollFd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollFd")
            .field("fd", &self.fd.fd)
            .field("events", &self.fd.events)
            .field("revents", &self.fd.revents)
            .finish()
    }
}

/// Waits until something that was asked has happened to a descriptor, an error or a hang-up has, or the
/// time is over; `None`: without end. The shape of poll(2).
///
/// Returns of how many descriptors there is something to say; their `revents` say what. It is
/// level-triggered: what was not attended to is said again. A zero timeout asks without waiting. A
/// descriptor that is not open is said to be [`NVAL`](PollFd::NVAL). A blocking call.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald_net::{PollFd, poll};
///
/// let (reader, writer) = std::io::pipe()?;
/// let mut fds = [PollFd::new(&reader, PollFd::IN), PollFd::new(&writer, PollFd::OUT)];
/// assert_eq!(poll(&mut fds, Some(Duration::from_secs(1)))?, 1);
/// assert_eq!((fds[0].revents(), fds[1].revents()), (0, PollFd::OUT));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system's; an exception that ends the wait.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut asked: Vec<libc::pollfd> = fds.iter().map(|one| one.fd).collect();
    let ready = wait(&mut asked, timeout)?;
    for (one, answer) in fds.iter_mut().zip(asked) {
        one.fd.revents = answer.revents;
    }
    Ok(ready)
}
