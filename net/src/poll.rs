//! poll(2): what the kernel says of descriptors, level-triggered, and waiting for it to say something.
//!
//! 1. The kernel is asked, without waiting: most of the time something is ready.
//! 2. A thread that must block its OS thread (a plain one, or inside `blocking`) does so in poll(2), with
//!    a pipe beside the descriptors for whoever ends its wait otherwise.
//! 3. A green thread puts the descriptors into an epoll instance of its own ([`crate::poll_set`]) and
//!    waits for that one as for any source. Woken, it asks the kernel again: what poll(2) says is the
//!    only truth here, events only say when to look.
//! 4. If there is no descriptor left for the pipe or the instance, if there are as many instances as there may be, or epoll refuses one of those that
//!    are waited for, poll(2) is asked again and again with pauses in between ([`crate::pauses`]).
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
            wait_in_set(fds, deadline)?
        };
    }
    note_urgent_data(fds);
    Ok(ready)
}

/// Waits as a green thread: in a set, or by pauses where there is none for it.
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

/// Where there is no epoll: an OS thread waits in poll(2), and exceptions wait until that has ended.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wait_in_set(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    weald_scheduler::blocking(|| wait_in_place(fds, deadline))
}

/// Asks again and again, with pauses: a wait that needs no descriptor, for when there are no more.
fn wait_by_pauses(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
    let mut ready = 0;
    pauses::wait_until(deadline, || {
        ready = poll_now(fds)?;
        Ok(ready > 0)
    })?;
    Ok(ready)
}

/// Blocks the OS thread.
fn wait_in_place(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<usize> {
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
