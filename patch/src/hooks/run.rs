//! How a hook of a blocking call goes on: it tries without waiting, waits, and tries again.

use libc::iovec;
use weald_scheduler::patch;

use crate::Kind;
use crate::ask;
use crate::hooks::on;
use crate::pauses::{Ended, errno_of};
use crate::slot::Direction;
use crate::wait::Wait;

pub(crate) const AGAIN: isize = -(libc::EAGAIN as isize);

pub(crate) const UNSUPPORTED: isize = -(libc::EOPNOTSUPP as isize);

pub(crate) const INVALID: isize = -(libc::EINVAL as isize);

/// An `errno` as a system call returns it.
pub(crate) fn failed(errno: i32) -> isize {
    -(errno as isize)
}

/// The error of a call that an exception ends before it began.
pub(crate) fn cancelled() -> Option<isize> {
    patch::pending().map(|pending| failed(errno_of(pending)))
}

/// A call that blocks: `attempt` does not wait and says `EAGAIN`; `plain` waits on the OS thread,
/// for what cannot be waited for otherwise. It may be one of several that make up a call of the user's, with one
/// `wait`; zero then also says that there is no more to come.
pub(crate) fn run(
    wait: &mut Wait,
    mut attempt: impl FnMut() -> isize,
    plain: impl FnOnce() -> isize,
) -> isize {
    loop {
        let result = wait.attempt(&mut attempt);
        if result != AGAIN {
            wait.progressed();
            if result > 0 {
                wait.has_part();
            }
            patch::spend();
            return result;
        }
        if wait.is_nonblocking() {
            return result;
        }
        let deadline = wait.deadline();
        match wait.wait(deadline) {
            Ended::Woken if wait.is_over() => return 0,
            Ended::Woken => {}
            Ended::TimedOut => return AGAIN,
            Ended::Failed(errno) => return failed(errno),
            Ended::Plain => return hand_over(|| wait.unless_closed(plain)),
            Ended::Unpollable => return hand_over_for_long(|| wait.unless_closed(plain)),
        }
    }
}

/// Makes a call that blocks the OS thread; the worker goes on elsewhere if files are patched.
pub(crate) fn hand_over(plain: impl FnOnce() -> isize) -> isize {
    if on(Kind::Files) {
        patch::blocking_quietly(plain)
    } else {
        plain()
    }
}

/// As [`hand_over`], for a call that may last until another green thread has done something.
pub(crate) fn hand_over_for_long(plain: impl FnOnce() -> isize) -> isize {
    if on(Kind::Files) {
        patch::blocking_until_others_act(plain)
    } else {
        plain()
    }
}

/// As [`hand_over`], for a call that is ready, but that may last until others act all the same, as there is less room than it needs or
/// another thread is quicker. It holds the permits of those that last, and never waits for one: what is ready may be what others
/// wait for.
pub(crate) fn hand_over_what_is_ready(plain: impl FnOnce() -> isize) -> isize {
    if !on(Kind::Files) {
        return plain();
    }
    patch::blocking_if_spare(plain).unwrap_or_else(patch::blocking_quietly)
}

/// Waits for a descriptor whose calls cannot be told not to wait, then makes the call.
pub(crate) fn run_plain(wait: &mut Wait, plain: impl FnOnce() -> isize) -> isize {
    let events = match wait.direction() {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    let fd = wait.fd();
    while !wait.is_nonblocking() {
        let looked = wait.attempt(|| isize::from(ask::events_now(fd, events)));
        if looked != 0 {
            if looked < 0 {
                return looked;
            }
            break;
        }
        match wait.wait(None) {
            Ended::Woken | Ended::TimedOut => {}
            Ended::Failed(errno) => return failed(errno),
            Ended::Plain | Ended::Unpollable => break,
        }
    }
    hand_over_what_is_ready(|| wait.unless_closed(plain))
}

/// What is left of a vector when so many bytes of it are done.
pub(crate) fn advance(parts: &[iovec], mut done: usize) -> Vec<iovec> {
    let mut rest = Vec::with_capacity(parts.len());
    for part in parts {
        let skip = done.min(part.iov_len);
        done -= skip;
        if skip < part.iov_len {
            rest.push(iovec {
                iov_base: part.iov_base.cast::<u8>().wrapping_add(skip).cast(),
                iov_len: part.iov_len - skip,
            });
        }
    }
    rest
}
