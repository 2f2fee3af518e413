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

/// Returns an `errno` in the form of a system call's result.
pub(crate) fn failed(errno: i32) -> isize {
    -(errno as isize)
}

/// Returns the error of a call that an exception ends before it began.
pub(crate) fn cancelled() -> Option<isize> {
    patch::pending().map(|pending| failed(errno_of(pending)))
}

/// Makes a call that blocks. `attempt` does not wait and says `EAGAIN`. `plain` waits on the OS thread, for what
/// cannot be waited for otherwise. The call may be one of several that make up a call of the user's, with one `wait`.
/// Then zero also means that no more will come.
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

/// Makes a call that blocks the OS thread. If files are patched, the worker continues on another OS thread.
pub(crate) fn hand_over(plain: impl FnOnce() -> isize) -> isize {
    if on(Kind::Files) {
        patch::blocking_quietly(plain)
    } else {
        plain()
    }
}

/// Makes a call as [`hand_over`] does, which may last until another green thread has done something.
pub(crate) fn hand_over_for_long(plain: impl FnOnce() -> isize) -> isize {
    if on(Kind::Files) {
        patch::blocking_until_others_act(plain)
    } else {
        plain()
    }
}

/// Makes a call as [`hand_over`] does, which is ready. It may still last until others act: there may be less room
/// than it needs, or another thread may be quicker. It holds a permit of such calls, but never waits for one, because
/// others may be waiting for this call.
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

/// Returns what is left of a vector when that many of its bytes are done.
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
