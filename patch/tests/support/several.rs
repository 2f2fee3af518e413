//! Green threads that wait by `poll` and `select` for several numbers.
#![allow(
    clippy::cast_possible_truncation,
    reason = "small numbers, in the types that libc has for them"
)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use weald::JoinHandle;

/// Starts a green thread that is to wait.
pub(crate) fn waiter<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let builder = weald::Builder::new().name(String::from("waiter"));
    builder.spawn(body).unwrap()
}

/// Lets the others run until this many wait.
pub(crate) fn settle(many: usize) {
    let waits = |thread: &weald::DumpedThread| {
        thread.name.as_deref() == Some("waiter") && thread.doing == weald::Doing::Waits
    };
    while weald::dump()
        .threads
        .iter()
        .filter(|thread| waits(thread))
        .count()
        < many
    {
        weald::sleep(Duration::from_millis(1));
    }
}

/// Returns what `poll` says, and what it tells of each number.
pub(crate) fn poll(fds: &[RawFd]) -> (i32, Vec<i16>) {
    let mut all: Vec<_> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the list and its length.
    let result = unsafe { libc::poll(all.as_mut_ptr(), all.len() as _, -1) };
    (result, all.iter().map(|one| one.revents).collect())
}

/// Returns the error of `select`.
pub(crate) fn select(fds: &[RawFd]) -> Option<i32> {
    // SAFETY: all zeros is an empty set, and the numbers are small.
    unsafe {
        let mut set: libc::fd_set = std::mem::zeroed();
        for &fd in fds {
            libc::FD_SET(fd, &raw mut set);
        }
        let count = fds.iter().max().unwrap() + 1;
        let none = ptr::null_mut();
        let result = libc::select(count, &raw mut set, none, none, ptr::null_mut());
        (result < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }
}
