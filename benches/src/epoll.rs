//! epoll(7), level-triggered, reading only: for loads, and for servers that show what the kernel alone
//! costs.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events that are taken at once.
const EVENTS: usize = 256;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new one, without descriptors.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so this is its only owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// From now on `wait` tells of the descriptor, by this token.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, fd: &impl AsFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: token as u64,
        };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: `event` is a live event that the kernel only reads.
        let status =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Replaces `tokens` by those that are ready; by none after `limit`.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, tokens: &mut Vec<usize>, limit: Duration) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let capacity = i32::try_from(EVENTS).unwrap_or(i32::MAX);
        tokens.clear();
        let count = loop {
            // SAFETY: `events` is a live array of `capacity` events that the kernel may fill.
            let count = unsafe {
                libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), capacity, limit_ms)
            };
            if let Ok(count) = usize::try_from(count) {
                break count;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        tokens.extend(
            events[..count]
                .iter()
                .filter_map(|event| usize::try_from(event.u64).ok()),
        );
        Ok(())
    }
}
