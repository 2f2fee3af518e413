//! poll(2): what the kernel tells of descriptors, level-triggered, and waiting until it tells something.
//!
//! 1. The kernel is asked without waiting. Most of the time a descriptor is ready.
//! 2. A thread that must block its OS thread (a plain one, or inside `blocking`) waits in poll(2). A pipe beside the
//!    descriptors lets other threads end the wait.
//! 3. A green thread puts the descriptors into an epoll instance of its own ([`crate::poll_set`]) and waits for the
//!    instance as for any source. When it is woken it asks the kernel again. Only what poll(2) says counts here;
//!    events only say when to look.
//! 4. poll(2) is asked again and again, with pauses in between ([`crate::pauses`]), in three cases: there is no
//!    descriptor left for the pipe or the instance, the largest number of instances is reached, or epoll refuses one
//!    of the descriptors.
#![allow(unsafe_code, reason = "a borrowed descriptor is made of its number")]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use weald_scheduler::io::Woken;

use crate::ask::{merged, note_urgent_data, poll_now};
use crate::pauses;
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::poll_set::LentSet;

/// Waits until there is something to tell of one of the descriptors. Returns how many of them have something; 0 means
/// that the time is over. A blocking call.
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
            wait_in_set(fds, deadline)?
        };
    }
    note_urgent_data(fds);
    Ok(ready)
}

/// Waits as a green thread: in a set, or by pauses if it can have no set.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wait_in_set(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    let Ok(mut set) = LentSet::of(fds) else {
        return wait_by_pauses(fds, deadline);
    };
    let mut ready = 0;
    set.wait_until(deadline, || {
        ready = poll_now(fds)?;
        Ok(ready > 0)
    })?;
    Ok(ready)
}

/// On systems without epoll an OS thread waits in poll(2), and exceptions wait until that has ended.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wait_in_set(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    weald_scheduler::blocking(|| wait_in_place(fds, deadline))
}

/// Asks again and again, with pauses. This needs no descriptor, so it works when there are no more.
fn wait_by_pauses(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    let mut ready = 0;
    pauses::wait_until(deadline, || {
        ready = poll_now(fds)?;
        Ok(ready > 0)
    })?;
    Ok(ready)
}

/// Waits and blocks the OS thread.
fn wait_in_place(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    let mut watched = merged(fds);
    loop {
        let Ok(woken) = weald_scheduler::io::poll_in_place(&mut watched, deadline) else {
            return wait_by_pauses(fds, deadline);
        };
        if let Woken::Interrupted(interrupt) = woken {
            // The exception was taken out to be raised, so it is returned whatever else has happened.
            return Err(interrupt.into_io());
        }
        let ready = poll_now(fds)?;
        if ready > 0 || matches!(woken, Woken::TimedOut) {
            return Ok(ready);
        }
    }
}

/// A descriptor, the events that are asked for and those that the kernel told; for [`poll`]. It is libc's `pollfd`,
/// whose constants are here under shorter names.
///
/// # Examples
/// See [`poll`].
#[derive(Clone)]
#[repr(transparent)]
pub struct PollFd<'fd> {
    fd: libc::pollfd,
    /// The descriptor is open at least as long as this lives.
    lent: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> PollFd<'fd> {
    /// A read would not wait: `POLLIN`.
    pub const IN: i16 = libc::POLLIN;
    /// A write would not wait: `POLLOUT`.
    pub const OUT: i16 = libc::POLLOUT;
    /// Out-of-band data is there: `POLLPRI`.
    pub const PRI: i16 = libc::POLLPRI;
    /// There is an error: `POLLERR`. It is told without being asked for.
    pub const ERR: i16 = libc::POLLERR;
    /// The other end is gone: `POLLHUP`. It is told without being asked for.
    pub const HUP: i16 = libc::POLLHUP;
    /// The descriptor is not open: `POLLNVAL`. It is told without being asked for.
    pub const NVAL: i16 = libc::POLLNVAL;
    /// The peer will send no more: `POLLRDHUP`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub const RDHUP: i16 = libc::POLLRDHUP;

    /// Returns an entry that asks for `events`, a sum of the constants here.
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

    /// Returns the events that are asked for.
    pub fn events(&self) -> i16 {
        self.fd.events
    }

    /// Sets the events that are asked for.
    pub fn set_events(&mut self, events: i16) {
        self.fd.events = events;
    }

    /// Returns what the last [`poll`] has told.
    pub fn revents(&self) -> i16 {
        self.fd.revents
    }
}

impl AsFd for PollFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was borrowed for longer than this.
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

/// Waits until one of the events has happened to its descriptor, or an error or a hang-up, or until the time is over;
/// `None` waits without end. It has the form of poll(2).
///
/// Returns how many descriptors have something to tell; their `revents` say what. It is level-triggered: what the
/// program does not act on is told again. A zero timeout asks without waiting. A descriptor that is not open is told
/// as [`NVAL`](PollFd::NVAL). A blocking call.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::net::{PollFd, poll};
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
