//! `select` of several descriptors in sets of bits. select(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, fd_set, pollfd, sigset_t, timespec, timeval};
use weald_scheduler::patch::{self, Waited};

use crate::Kind;
use crate::hooks::limit::{deadline_of, duration_of, timespec_of};
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, errno_of};
use crate::raw::{self, error_of, sys};
use crate::several::WaitForAny;

/// The three sets of `select`.
struct Sets {
    count: c_int,
    sets: [*mut fd_set; 3],
}

impl Sets {
    /// Returns how many words `select` looks at: as many as hold `count` bits.
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
    /// Those of `copy`.
    unsafe fn write(&self, from: &[Option<Vec<u64>>; 3]) {
        for (set, words) in self.sets.iter().zip(from) {
            if let Some(words) = words {
                // SAFETY: by contract there is room for as many words as were read.
                unsafe { ptr::copy_nonoverlapping(words.as_ptr(), set.cast::<u64>(), words.len()) };
            }
        }
    }
}

/// Returns the descriptors of the sets, with their interest in `poll`'s form.
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

/// Makes `pselect6` on copies of the sets, without waiting. If it fails, the sets are as before.
fn look_at(sets: &mut [Option<Vec<u64>>; 3], count: c_int) -> isize {
    let mut limit = timespec_of(Duration::ZERO);
    let limit = &raw mut limit;
    let [read, write, except] = sets.each_mut().map(|set| match set {
        Some(words) => words.as_mut_ptr(),
        None => ptr::null_mut(),
    });
    // SAFETY: each pointer is null or to as many words as `count` bits take.
    raw::undisturbed(|| unsafe {
        sys!(
            SYS_pselect6,
            count,
            read,
            write,
            except,
            limit,
            ptr::null::<u8>()
        )
    })
}

/// Makes `select` for a patched caller.
///
/// # Safety
/// As select(2).
unsafe fn green_select(asked: &Sets, deadline: Option<Instant>) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(errno_of(pending));
    }
    if asked.count < 0 {
        return failed(libc::EINVAL);
    }
    // SAFETY: by contract.
    let sets = unsafe { asked.copy() };
    let mut any: Option<WaitForAny> = None;
    loop {
        let mut found = sets.clone();
        let ready = look_at(&mut found, asked.count);
        // The look may have seen the next file with the number.
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
                Waited::Pending(pending) => Ended::Failed(errno_of(pending)),
                Waited::Woken | Waited::TimedOut => Ended::TimedOut,
            }
        } else {
            let any = any.get_or_insert_with(|| WaitForAny::new(&members));
            any.wait(deadline)
        };
        match ended {
            Ended::Failed(libc::EBADF) if any.as_ref().is_some_and(WaitForAny::are_all_open) => {
                // The next wait is for the files that have the numbers by now.
                any = None;
            }
            Ended::Failed(errno) => return failed(errno),
            Ended::Woken | Ended::TimedOut | Ended::Plain | Ended::Unpollable => {}
        }
    }
}

/// select(2). It writes what is left of the limit, as Linux does.
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
        // The kernel takes mask and size through one pointer.
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
