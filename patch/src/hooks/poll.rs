//! `poll` of several descriptors in a list. poll(2).
//!
//! The call is tried without waiting. A thread that closes one of the descriptors meanwhile tells the wait, and
//! `poll` returns `POLLNVAL` for the descriptor.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::ptr;
use std::time::Instant;

use libc::{c_int, nfds_t, pollfd, sigset_t, timespec};
use weald_scheduler::patch::{self, Waited};

use crate::Kind;
use crate::firm;
use crate::hooks::limit::{deadline_of, duration_of, milliseconds};
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, errno_of};
use crate::raw::{self, sys};
use crate::several::WaitForAny;
use crate::slot::Direction;

const ZERO: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Makes `ppoll` without waiting.
///
/// # Safety
/// As poll(2).
unsafe fn look(fds: *mut pollfd, count: nfds_t) -> isize {
    // The kernel writes to the limit.
    raw::undisturbed(|| {
        let zero = ZERO;
        // SAFETY: by contract, and a pointer to a local.
        unsafe {
            sys!(
                SYS_ppoll,
                fds,
                count,
                &raw const zero,
                ptr::null::<sigset_t>(),
                8
            )
        }
    })
}

/// Fills in the closed descriptors as poll(2) does, and the others with what they are.
fn tell_closed(fds: &mut [pollfd], any: Option<&WaitForAny>) -> isize {
    let is_closed = |fd: RawFd| fd >= 0 && any.is_none_or(|any| any.is_closed(fd));
    let mut others: Vec<pollfd> = fds
        .iter()
        .map(|one| pollfd {
            fd: if is_closed(one.fd) { -1 } else { one.fd },
            ..*one
        })
        .collect();
    let count = others.len() as nfds_t;
    // SAFETY: the list and its length.
    let mut ready = unsafe { look(others.as_mut_ptr(), count) }.max(0);
    for (one, other) in fds.iter_mut().zip(others) {
        one.revents = other.revents;
        if one.fd >= 0 && other.fd < 0 {
            one.revents = libc::POLLNVAL;
            ready += 1;
        }
    }
    ready
}

/// Tells if the call waits only for the output of children.
fn is_firm(fds: &[pollfd]) -> bool {
    let mut fds = fds.iter().filter(|one| one.fd >= 0).peekable();
    fds.peek().is_some()
        && fds.all(|one| one.events & libc::POLLOUT == 0 && firm::is_firm(one.fd, Direction::Read))
}

/// Makes `poll` for a patched caller.
///
/// # Safety
/// As poll(2).
unsafe fn green_poll(fds: *mut pollfd, count: nfds_t, deadline: Option<Instant>) -> isize {
    // The kernel finds faults of the array and the count.
    // SAFETY: by contract.
    let first = unsafe { look(fds, count) };
    if first < 0 {
        return first;
    }
    let fds: &mut [pollfd] = if count == 0 {
        &mut []
    } else {
        // SAFETY: the kernel has accepted the array, which is the caller's for the call.
        unsafe { std::slice::from_raw_parts_mut(fds, usize::try_from(count).unwrap_or(0)) }
    };
    let mut firm = false;
    if patch::is_pending() {
        firm = is_firm(fds);
        if let Some(pending) = patch::pending()
            && !firm
        {
            return failed(errno_of(pending));
        }
    }
    if first != 0 {
        patch::spend();
        return first;
    }
    let nobody = fds.iter().all(|one| one.fd < 0);
    let mut any: Option<WaitForAny> = None;
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            patch::spend();
            return 0;
        }
        let ended = if nobody {
            match patch::sleep_until(deadline) {
                Waited::Pending(pending) => Ended::Failed(errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            let any = any.get_or_insert_with(|| WaitForAny::new(fds));
            if firm {
                any.make_firm();
            }
            any.wait(deadline)
        };
        match ended {
            Ended::Failed(libc::EBADF) => {
                let ready = tell_closed(fds, any.as_ref());
                if ready != 0 {
                    return ready;
                }
                // A number was closed when this wait began, and another file has the number by now.
                any = None;
                continue;
            }
            Ended::Failed(_) if !firm && !nobody && is_firm(fds) => firm = true,
            Ended::Failed(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut | Ended::Plain | Ended::Unpollable => {}
        }
        // SAFETY: by contract.
        let mut look = || unsafe { look(fds.as_mut_ptr(), count) };
        let ready = match &any {
            Some(any) => any.attempt(look),
            None => look(),
        };
        // The look may have seen the next file with the number.
        if ready == failed(libc::EBADF) || any.as_ref().is_some_and(WaitForAny::is_any_closed) {
            let ready = tell_closed(fds, any.as_ref());
            if ready != 0 {
                return ready;
            }
            // As above: none of these files was closed.
            any = None;
            continue;
        }
        if ready != 0 {
            patch::spend();
            return ready;
        }
    }
}

/// # Safety
/// As poll(2).
#[cfg(not(target_arch = "x86_64"))]
unsafe fn plain_poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> isize {
    let limit = milliseconds(timeout).map(crate::hooks::limit::timespec_of);
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: by contract; the limit is a local.
    unsafe { sys!(SYS_ppoll, fds, count, limit, ptr::null::<sigset_t>(), 8) }
}

/// poll(2).
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if !on(Kind::Select) || timeout == 0 {
        // SAFETY: by contract. libc makes this system call too: `ppoll` is some 50 ns slower.
        #[cfg(target_arch = "x86_64")]
        return raw::int(unsafe { sys!(SYS_poll, fds, count, timeout) });
        // SAFETY: by contract.
        #[cfg(not(target_arch = "x86_64"))]
        return raw::int(unsafe { plain_poll(fds, count, timeout) });
    }
    let limit = milliseconds(timeout);
    // SAFETY: by contract.
    raw::int(unsafe { green_poll(fds, count, deadline_of(limit)) })
}

/// ppoll(2). With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As ppoll(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // The kernel's call writes the rest of the limit; libc's does not.
    // SAFETY: by contract it is null or valid.
    let limit = unsafe { timeout.as_ref() }.copied();
    let plain = || {
        let mut limit = limit;
        let limit = limit.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: by contract; the kernel's signal sets have 8 bytes.
        unsafe { sys!(SYS_ppoll, fds, count, limit, mask, 8) }
    };
    if !on(Kind::Select) {
        return raw::int(plain());
    }
    let limit = match limit.map(duration_of) {
        None => None,
        Some(Some(limit)) => Some(limit),
        Some(None) => return raw::int(failed(libc::EINVAL)),
    };
    if !mask.is_null() {
        return raw::int(patch::blocking_until_others_act(plain));
    }
    // SAFETY: by contract.
    raw::int(unsafe { green_poll(fds, count, deadline_of(limit)) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::io::Write as _;
    use std::os::fd::{AsRawFd as _, RawFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use libc::fd_set;

    use super::*;
    use crate::closing::Closing;
    use crate::hooks::select::select;
    use crate::slot::slot;

    /// `poll` and `select` both wait until one of two numbers is readable, and tell which one.
    fn polled(numbers: [RawFd; 2]) -> [bool; 2] {
        let mut fds = numbers.map(|fd| pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array and its length.
        assert_eq!(unsafe { poll(fds.as_mut_ptr(), 2, -1) }, 1);
        fds.map(|one| one.revents == libc::POLLIN)
    }

    fn selected(numbers: [RawFd; 2]) -> [bool; 2] {
        let most = numbers.into_iter().max().unwrap();
        // SAFETY: all zeros is the empty set; the numbers are small; the pointers are to locals or null.
        unsafe {
            let mut set: fd_set = std::mem::zeroed();
            for fd in numbers {
                libc::FD_SET(fd, &raw mut set);
            }
            let none = ptr::null_mut();
            let ready = select(most + 1, &raw mut set, none, none, ptr::null_mut());
            assert_eq!(ready, 1, "errno {}", raw::errno());
            numbers.map(|fd| libc::FD_ISSET(fd, &raw const set))
        }
    }

    #[test]
    fn the_end_of_a_close_that_began_before_a_wait_does_not_end_it() {
        crate::all().unwrap();
        let rt = weald::Runtime::builder().workers(1).build().unwrap();
        for wait in [polled, selected] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let (other, _end) = UnixStream::pair().unwrap();
            let numbers = [near.as_raw_fd(), other.as_raw_fd()];
            let watched = &slot(numbers[0]).unwrap().watched;
            // The file that had the number before is being closed.
            let closing = Closing::begin(numbers[0], numbers[0]);
            let waits = rt.spawn(move || wait(numbers));
            while watched.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            drop(closing);
            far.write_all(b"x").unwrap();
            assert_eq!(waits.join().unwrap(), [true, false]);
            // Nothing is left behind.
            assert_eq!(watched.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn the_end_of_such_a_close_does_not_end_a_wait_beside_one_of_weald_net() {
        crate::all().unwrap();
        let rt = weald::Runtime::builder().workers(1).build().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let number = near.as_raw_fd();
        let watched = &slot(number).unwrap().watched;
        // The file that had the number before is being closed.
        let closing = Closing::begin(number, number);
        let near = Arc::new(weald::net::Fd::new(near));
        let own = rt.spawn({
            let near = near.clone();
            move || near.readable().map(drop)
        });
        let waits = rt.spawn(move || {
            let mut one = pollfd {
                fd: number,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry.
            (unsafe { poll(&raw mut one, 1, -1) }, one.revents)
        });
        // The wait has an epoll instance of its own, because weald's own socket has the registration.
        while watched.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        drop(closing);
        far.write_all(b"x").unwrap();
        assert_eq!(waits.join().unwrap(), (1, libc::POLLIN));
        own.join().unwrap().unwrap();
    }
}
