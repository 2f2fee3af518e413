//! `poll`, `select`, `epoll_wait`: several descriptors, or an epoll instance of the program's.
//!
//! The call is tried without waiting. To wait, the descriptors go into an epoll instance of this
//! wait's own, level-triggered, and that is waited for like any descriptor: an epoll instance is
//! readable when something in it is ready. poll(2), select(2), epoll_wait(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use weald_scheduler::patch::{self, Bypass, Waited};

use crate::Kind;
use crate::hooks::descriptor::failed;
use crate::hooks::on;
use crate::hooks::sleep::{duration_of, timespec_of};
use crate::raw::{self, error_of, sys};
use crate::wait::{self, Direction, Ended};

/// Empty epoll instances for the next waits.
static SPARE: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
/// So many are kept.
const SPARES: usize = 64;

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
    let mut one = pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one descriptor.
    unsafe { look(&raw mut one, 1) != 0 }
}

/// An epoll instance that is empty at both ends of its use.
struct Set {
    epoll: RawFd,
    members: Vec<RawFd>,
}

impl Set {
    fn new() -> Option<Self> {
        let spare = {
            let _bypass = Bypass::enter();
            SPARE.lock().ok().and_then(|mut spare| spare.pop())
        };
        let epoll = if let Some(epoll) = spare {
            epoll
        } else {
            // SAFETY: no pointers.
            let made = unsafe { sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC) };
            if error_of(made).is_some() {
                return None;
            }
            RawFd::try_from(made).ok()?
        };
        Some(Self {
            epoll,
            members: Vec::new(),
        })
    }

    /// False: it cannot be in an epoll instance.
    fn add(&mut self, fd: RawFd, events: u32) -> bool {
        let mut event = epoll_event { events, u64: 0 };
        // SAFETY: a pointer to a local.
        let added = unsafe {
            sys!(
                SYS_epoll_ctl,
                self.epoll,
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event
            )
        };
        if added == 0 {
            self.members.push(fd);
        }
        added == 0
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let mut clean = true;
        for &fd in &self.members {
            // SAFETY: no memory is touched.
            let removed = unsafe {
                sys!(
                    SYS_epoll_ctl,
                    self.epoll,
                    libc::EPOLL_CTL_DEL,
                    fd,
                    ptr::null_mut::<epoll_event>()
                )
            };
            // Closed meanwhile: a duplicate may be left in it.
            clean &= removed == 0;
        }
        let _bypass = Bypass::enter();
        if clean
            && let Ok(mut spare) = SPARE.lock()
            && spare.len() < SPARES
        {
            spare.push(self.epoll);
            return;
        }
        // SAFETY: the descriptor is ours.
        unsafe { sys!(SYS_close, self.epoll) };
    }
}

/// Waits until one of the descriptors may be ready.
fn wait_for_any(fds: &[pollfd], deadline: Option<Instant>) -> Ended {
    if let [one] = fds {
        let direction = match one.events & (libc::POLLIN | libc::POLLOUT | libc::POLLPRI) {
            libc::POLLIN => Some(Direction::Read),
            libc::POLLOUT => Some(Direction::Write),
            _ => None,
        };
        if let Some(direction) = direction {
            return wait::wait(one.fd, direction, deadline);
        }
    }
    let Some(mut set) = Set::new() else {
        return Ended::Unpollable;
    };
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
    for (fd, events) in asked {
        if !set.add(fd, events) {
            // It is always ready, or bad: `poll` would have said so. It was changed meanwhile.
            return Ended::Unpollable;
        }
    }
    wait::wait(set.epoll, Direction::Read, deadline)
}

/// What `poll` does for a patched caller.
///
/// # Safety
/// As poll(2).
unsafe fn green_poll(fds: *mut pollfd, count: nfds_t, deadline: Option<Instant>) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(wait::errno_of(pending));
    }
    loop {
        // SAFETY: by contract.
        let ready = unsafe { look(fds, count) };
        if ready != 0 {
            patch::spend();
            return ready;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            patch::spend();
            return 0;
        }
        let fds = if count == 0 {
            &[]
        } else {
            // SAFETY: the kernel has accepted the array.
            unsafe { std::slice::from_raw_parts(fds, usize::try_from(count).unwrap_or(0)) }
        };
        let ended = if fds.iter().all(|one| one.fd < 0) {
            match patch::sleep_until(deadline) {
                Waited::Pending(pending) => Ended::Cancelled(wait::errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            wait_for_any(fds, deadline)
        };
        match ended {
            Ended::Cancelled(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut => {}
            Ended::Unpollable => {
                return patch::blocking_quietly(|| {
                    // SAFETY: by contract.
                    unsafe { plain_poll(fds.as_ptr().cast_mut(), count, left_until(deadline)) }
                });
            }
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
        return raw::int(patch::blocking_quietly(plain));
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
    loop {
        let mut found = sets.clone();
        let ready = look_at(&mut found, asked.count, Some(Duration::ZERO));
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
                Waited::Pending(pending) => Ended::Cancelled(wait::errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            wait_for_any(&members, deadline)
        };
        match ended {
            Ended::Cancelled(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut => {}
            // It was closed under the call, or there is no descriptor for an epoll instance.
            Ended::Unpollable => {
                let mut found = sets.clone();
                let ready = patch::blocking_quietly(|| {
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
        return raw::int(patch::blocking_quietly(plain));
    }
    let sets = Sets {
        count,
        sets: [read, write, except],
    };
    // SAFETY: by contract.
    raw::int(unsafe { green_select(&sets, deadline_of(limit)) })
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
    let call = |timeout: c_int| {
        // SAFETY: by contract.
        unsafe {
            sys!(
                SYS_epoll_pwait,
                epoll,
                events,
                max,
                timeout,
                ptr::null::<sigset_t>(),
                8
            )
        }
    };
    if !on(Kind::Select) || timeout == 0 {
        return raw::int(call(timeout));
    }
    if let Some(pending) = patch::pending() {
        return raw::int(failed(wait::errno_of(pending)));
    }
    let deadline = deadline_of(milliseconds(timeout));
    loop {
        let ready = call(0);
        if ready != 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            patch::spend();
            return raw::int(ready);
        }
        match wait::wait(epoll, Direction::Read, deadline) {
            Ended::Woken | Ended::TimedOut => {}
            Ended::Cancelled(errno) => return raw::int(failed(errno)),
            Ended::Unpollable => {
                // Rounded up, as a limit of 0 would not wait.
                let left = left_until(deadline).map_or(-1, |left| {
                    c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
                });
                return raw::int(patch::blocking_quietly(|| call(left)));
            }
        }
    }
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
        raw::int(patch::blocking_quietly(call))
    } else {
        raw::int(call())
    }
}
