//! `poll`, `select`, `epoll_wait`: several descriptors, or an epoll instance of the program's.
//!
//! The call is tried without waiting. To wait, the descriptors go into an epoll instance of this
//! wait's own, level-triggered, and that is waited for like any descriptor: an epoll instance is
//! readable when something in it is ready. Who closes one of the descriptors meanwhile says so (`members.rs`): `poll` then
//! tells `POLLNVAL` of it, and `select` fails with `EBADF`. poll(2), select(2), epoll_wait(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use weald_scheduler::patch::{self, Waited};

use crate::Kind;
use crate::epoll::Set;
use crate::firm;
use crate::hooks::descriptor::failed;
use crate::hooks::on;
use crate::hooks::sleep::{duration_of, timespec_of};
use crate::members::Members;
use crate::raw::{self, error_of, sys};
use crate::wait::{self, Direction, Ended, Wait};

const ZERO: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// `ppoll` without waiting.
///
/// # Safety
/// As poll(2).
unsafe fn look(fds: *mut pollfd, count: nfds_t) -> isize {
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
}

/// One descriptor is ready now, has failed, or is none.
pub(crate) fn is_ready(fd: RawFd, events: libc::c_short) -> bool {
    wait::told(fd, events) != 0
}

/// What a wait to read, and one to write, is told of; and what each wait is.
const READS: libc::c_short = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP;
const WRITES: libc::c_short = libc::POLLOUT | libc::POLLWRNORM;
const FAILURES: libc::c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

/// What a call waits in: one descriptor for one thing, or an epoll instance with all of them.
struct WaitForAny {
    // In the order in which they end: the set goes to the next wait when nobody tells this one of its members any more.
    wait: Wait,
    members: Option<Members>,
    _set: Option<Set>,
}

impl WaitForAny {
    /// `None`: there is no descriptor for an epoll instance, or one of them cannot be in it: then it is
    /// always ready, or bad, and was not a moment ago.
    fn new(fds: &[pollfd]) -> Option<Self> {
        if let [one] = fds {
            // What no wait in one direction is told of goes into a set.
            let only = |of: libc::c_short| one.events & !(of | FAILURES) == 0;
            let direction = if one.events & libc::POLLIN != 0 && only(READS) {
                Some(Direction::Read)
            } else if one.events & libc::POLLOUT != 0 && only(WRITES) {
                Some(Direction::Write)
            } else {
                None
            };
            if let Some(direction) = direction {
                return Some(Self {
                    wait: Wait::new(one.fd, direction),
                    members: None,
                    _set: None,
                });
            }
        }
        let mut set = Set::new()?;
        // One entry for each descriptor, with all that is asked of it.
        let mut asked: Vec<(RawFd, u32)> = fds
            .iter()
            .filter(|one| one.fd >= 0)
            .map(|one| (one.fd, u32::from(one.events.cast_unsigned())))
            .collect();
        asked.sort_unstable_by_key(|&(fd, _)| fd);
        asked.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 |= next.1;
            }
            same
        });
        // From here on a number that is closed is told of: what is added below is the file that it has now.
        let wait = Wait::on_set(&set);
        let members = Members::new(set.fd(), asked.iter().map(|(fd, _)| *fd));
        let all = asked.into_iter().all(|(fd, events)| set.add(fd, events));
        all.then_some(Self {
            wait,
            members: Some(members),
            _set: Some(set),
        })
    }

    /// The number was closed while this wait lasted.
    fn is_closed(&self, fd: RawFd) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|members| members.is_closed(fd))
    }

    /// One of several numbers was.
    fn is_any_closed(&self) -> bool {
        self.members.as_ref().is_some_and(Members::is_any_closed)
    }
}

/// Tells of those that were closed, as poll(2) does, and of the others what they are.
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

/// Nothing is waited for but the output of children.
fn is_firm(fds: &[pollfd]) -> bool {
    let mut fds = fds.iter().filter(|one| one.fd >= 0).peekable();
    fds.peek().is_some()
        && fds.all(|one| one.events & libc::POLLOUT == 0 && firm::is_firm(one.fd, Direction::Read))
}

/// What `poll` does for a patched caller.
///
/// # Safety
/// As poll(2).
unsafe fn green_poll(fds: *mut pollfd, count: nfds_t, deadline: Option<Instant>) -> isize {
    // The kernel says what is wrong with an array or a count.
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
            return failed(wait::errno_of(pending));
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
                Waited::Pending(pending) => Ended::Failed(wait::errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            if any.is_none() {
                any = WaitForAny::new(fds);
            }
            match &mut any {
                Some(any) => {
                    if firm {
                        any.wait.make_firm();
                    }
                    any.wait.wait(deadline)
                }
                None => Ended::Unpollable,
            }
        };
        match ended {
            Ended::Failed(libc::EBADF) => {
                let ready = tell_closed(fds, any.as_ref());
                if ready != 0 {
                    return ready;
                }
                // It was closed when this wait began, and another file has the number by now.
                any = None;
                continue;
            }
            Ended::Failed(_) if !firm && !nobody && is_firm(fds) => firm = true,
            Ended::Failed(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut | Ended::Plain => {}
            Ended::Unpollable => {
                return patch::blocking_until_others_act(|| {
                    // SAFETY: by contract.
                    unsafe { plain_poll(fds.as_mut_ptr(), count, left_until(deadline)) }
                });
            }
        }
        // SAFETY: by contract.
        let mut look = || unsafe { look(fds.as_mut_ptr(), count) };
        let ready = match &any {
            Some(any) => any.wait.attempt(look),
            None => look(),
        };
        // What was looked at may be the next file with the number.
        if ready == failed(libc::EBADF) || any.as_ref().is_some_and(WaitForAny::is_any_closed) {
            return tell_closed(fds, any.as_ref());
        }
        if ready != 0 {
            patch::spend();
            return ready;
        }
    }
}

/// # Safety
/// As poll(2).
unsafe fn plain_poll(fds: *mut pollfd, count: nfds_t, limit: Option<Duration>) -> isize {
    let limit = limit.map(timespec_of);
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: by contract; the limit is a local.
    unsafe { sys!(SYS_ppoll, fds, count, limit, ptr::null::<sigset_t>(), 8) }
}

/// When a limit that begins now has passed; `None`: never.
fn deadline_of(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

/// What is left of a limit.
fn left_until(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// A limit in milliseconds as `poll` and `epoll_wait` take it.
fn milliseconds(limit: c_int) -> Option<Duration> {
    u64::try_from(limit).ok().map(Duration::from_millis)
}

/// poll(2).
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if !on(Kind::Select) || timeout == 0 {
        // SAFETY: by contract. What libc calls: `ppoll` is some 50 ns slower.
        #[cfg(target_arch = "x86_64")]
        return raw::int(unsafe { sys!(SYS_poll, fds, count, timeout) });
        // SAFETY: by contract.
        #[cfg(not(target_arch = "x86_64"))]
        return raw::int(unsafe { plain_poll(fds, count, milliseconds(timeout)) });
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
    // The kernel's call writes the rest of the limit, libc's does not.
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

/// The three sets of `select`.
struct Sets {
    count: c_int,
    sets: [*mut fd_set; 3],
}

impl Sets {
    /// `select` looks at whole words, as many as hold `count` bits.
    fn words(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0).div_ceil(64)
    }

    /// # Safety
    /// The pointers are null or to sets of that many bits.
    unsafe fn copy(&self) -> [Option<Vec<u64>>; 3] {
        let words = self.words();
        self.sets.map(|set| {
            // SAFETY: by contract. A set may be aligned to 8 bytes, as its words are `long`s.
            (!set.is_null())
                .then(|| unsafe { std::slice::from_raw_parts(set.cast::<u64>(), words) }.to_vec())
        })
    }

    /// # Safety
    /// As for `copy`.
    unsafe fn write(&self, from: &[Option<Vec<u64>>; 3]) {
        for (set, words) in self.sets.iter().zip(from) {
            if let Some(words) = words {
                // SAFETY: by contract there is room for as many words as were read.
                unsafe { ptr::copy_nonoverlapping(words.as_ptr(), set.cast::<u64>(), words.len()) };
            }
        }
    }
}

/// The descriptors of the sets, with what `poll` calls their interest.
fn members(sets: &[Option<Vec<u64>>; 3], count: c_int) -> Vec<pollfd> {
    let interests = [libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT, libc::POLLPRI];
    let mut members = Vec::new();
    for fd in 0..count {
        let at = usize::try_from(fd).unwrap_or(0);
        let mut events = 0;
        for (set, interest) in sets.iter().zip(interests) {
            if let Some(words) = set
                && words[at / 64] & (1 << (at % 64)) != 0
            {
                events |= interest;
            }
        }
        if events != 0 {
            members.push(pollfd {
                fd,
                events,
                revents: 0,
            });
        }
    }
    members
}

/// `pselect6` on copies of the sets, for at most so long.
fn look_at(sets: &mut [Option<Vec<u64>>; 3], count: c_int, limit: Option<Duration>) -> isize {
    let mut limit = limit.map(timespec_of);
    let limit = limit.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let [read, write, except] = sets.each_mut().map(|set| match set {
        Some(words) => words.as_mut_ptr(),
        None => ptr::null_mut(),
    });
    // SAFETY: each pointer is null or to as many words as `count` bits take.
    unsafe {
        sys!(
            SYS_pselect6,
            count,
            read,
            write,
            except,
            limit,
            ptr::null::<u8>()
        )
    }
}

/// What `select` does for a patched caller.
///
/// # Safety
/// As select(2).
unsafe fn green_select(asked: &Sets, deadline: Option<Instant>) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(wait::errno_of(pending));
    }
    if asked.count < 0 {
        return failed(libc::EINVAL);
    }
    // SAFETY: by contract.
    let sets = unsafe { asked.copy() };
    let mut any: Option<WaitForAny> = None;
    loop {
        let mut found = sets.clone();
        let ready = look_at(&mut found, asked.count, Some(Duration::ZERO));
        // What was looked at may be the next file with the number.
        if any.as_ref().is_some_and(WaitForAny::is_any_closed) {
            return failed(libc::EBADF);
        }
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if ready != 0 || over {
            if error_of(ready).is_none() {
                // SAFETY: by contract.
                unsafe { asked.write(&found) };
            }
            patch::spend();
            return ready;
        }
        let members = members(&sets, asked.count);
        let ended = if members.is_empty() {
            match patch::sleep_until(deadline) {
                Waited::Pending(pending) => Ended::Failed(wait::errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            if any.is_none() {
                any = WaitForAny::new(&members);
            }
            any.as_mut()
                .map_or(Ended::Unpollable, |any| any.wait.wait(deadline))
        };
        match ended {
            Ended::Failed(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut | Ended::Plain => {}
            // It was closed under the call, or there is no descriptor for an epoll instance.
            Ended::Unpollable => {
                let mut found = sets.clone();
                let ready = patch::blocking_until_others_act(|| {
                    look_at(&mut found, asked.count, left_until(deadline))
                });
                if error_of(ready).is_none() {
                    // SAFETY: by contract.
                    unsafe { asked.write(&found) };
                }
                return ready;
            }
        }
    }
}

/// select(2); writes what is left of the limit, as Linux does.
///
/// # Safety
/// As select(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: by contract it is null or valid.
    let limit = match unsafe { timeout.as_ref() } {
        None => None,
        Some(limit) => {
            let (Ok(secs), Ok(micros)) =
                (u64::try_from(limit.tv_sec), u64::try_from(limit.tv_usec))
            else {
                return raw::int(failed(libc::EINVAL));
            };
            Some(Duration::from_secs(secs) + Duration::from_micros(micros))
        }
    };
    let deadline = deadline_of(limit);
    let sets = Sets {
        count,
        sets: [read, write, except],
    };
    let result = if on(Kind::Select) {
        // SAFETY: by contract.
        unsafe { green_select(&sets, deadline) }
    } else {
        let mut limit = limit.map(timespec_of);
        let limit = limit.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: by contract; the limit is a local.
        unsafe {
            sys!(
                SYS_pselect6,
                count,
                read,
                write,
                except,
                limit,
                ptr::null::<u8>()
            )
        }
    };
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: there is a limit, so the pointer is valid; it may be written, as Linux does.
        unsafe {
            (*timeout).tv_sec = libc::time_t::try_from(left.as_secs()).unwrap_or(0);
            (*timeout).tv_usec = left.subsec_micros().into();
        }
    }
    raw::int(result)
}

/// pselect(2). With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As pselect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: by contract it is null or valid.
    let given = unsafe { timeout.as_ref() }.copied();
    let plain = || {
        let mut limit = given;
        let limit = limit.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // The kernel takes mask and size behind one pointer.
        let masked: (*const sigset_t, usize) = (mask, 8);
        // SAFETY: by contract; the others are locals.
        unsafe {
            sys!(
                SYS_pselect6,
                count,
                read,
                write,
                except,
                limit,
                &raw const masked
            )
        }
    };
    if !on(Kind::Select) {
        return raw::int(plain());
    }
    let limit = match given.map(duration_of) {
        None => None,
        Some(Some(limit)) => Some(limit),
        Some(None) => return raw::int(failed(libc::EINVAL)),
    };
    if !mask.is_null() {
        return raw::int(patch::blocking_until_others_act(plain));
    }
    let sets = Sets {
        count,
        sets: [read, write, except],
    };
    // SAFETY: by contract.
    raw::int(unsafe { green_select(&sets, deadline_of(limit)) })
}

/// What `epoll_wait` does for a patched caller. `call` waits for at most so long.
fn green_epoll(
    epoll: c_int,
    deadline: Option<Instant>,
    call: impl Fn(Option<Duration>) -> isize,
) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(wait::errno_of(pending));
    }
    let mut wait = Wait::new(epoll, Direction::Read);
    loop {
        let ready = wait.attempt(|| call(Some(Duration::ZERO)));
        if ready != 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            patch::spend();
            return ready;
        }
        match wait.wait(deadline) {
            Ended::Woken | Ended::TimedOut | Ended::Plain => {}
            Ended::Failed(errno) => return failed(errno),
            Ended::Unpollable => {
                return patch::blocking_until_others_act(|| call(left_until(deadline)));
            }
        }
    }
}

/// epoll_pwait(2) with a limit as a duration.
///
/// # Safety
/// As epoll_wait(2).
unsafe fn plain_epoll(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    limit: Option<Duration>,
) -> isize {
    // Rounded up, as a limit of 0 would not wait.
    let limit = limit.map_or(-1, |left| {
        c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    let none = ptr::null::<sigset_t>();
    // SAFETY: by contract.
    unsafe { sys!(SYS_epoll_pwait, epoll, events, max, limit, none, 8) }
}

/// epoll_wait(2).
///
/// # Safety
/// As epoll_wait(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    let limit = milliseconds(timeout);
    // SAFETY: by contract.
    let call = |limit| unsafe { plain_epoll(epoll, events, max, limit) };
    if !on(Kind::Select) || timeout == 0 {
        return raw::int(call(limit));
    }
    raw::int(green_epoll(epoll, deadline_of(limit), call))
}

/// epoll_pwait(2). With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As epoll_pwait(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    if mask.is_null() {
        // SAFETY: by contract.
        return unsafe { epoll_wait(epoll, events, max, timeout) };
    }
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_epoll_pwait, epoll, events, max, timeout, mask, 8) };
    if on(Kind::Select) {
        raw::int(patch::blocking_until_others_act(call))
    } else {
        raw::int(call())
    }
}

/// epoll_pwait2(2): its limit is a `timespec`. With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As epoll_pwait2(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: by contract.
    let plain = || unsafe { sys!(SYS_epoll_pwait2, epoll, events, max, timeout, mask, 8) };
    // SAFETY: by contract it is null or valid.
    let limit = unsafe { timeout.as_ref() }.map(|limit| duration_of(*limit));
    if !on(Kind::Select) || limit == Some(None) || limit == Some(Some(Duration::ZERO)) {
        return raw::int(plain());
    }
    if !mask.is_null() {
        return raw::int(patch::blocking_until_others_act(plain));
    }
    // SAFETY: by contract.
    let call = |limit| unsafe { plain_epoll(epoll, events, max, limit) };
    raw::int(green_epoll(epoll, deadline_of(limit.flatten()), call))
}
