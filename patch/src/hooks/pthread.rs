//! libc's read-write locks and condition variables, which C++ uses too. pthread_rwlock_rdlock(3),
//! pthread_cond_wait(3).
//!
//! libc keeps its own data as ever, so OS threads and green threads can share a lock. A green thread tries; while
//! another thread has the lock, it waits in a table of weald's (`futex.rs`), by the lock's address. A thread that
//! unlocks, green or not, unlocks by libc's function and then wakes a waiter from the table.
//!
//! | kind of lock                                   | a patched green thread that must wait     |
//! |------------------------------------------------|-------------------------------------------|
//! | read-write lock                                | is suspended, unless it is always beaten  |
//! |                                                | (`patience.rs`)                           |
//! | the same, shared by processes                  | keeps its OS thread; the worker goes on   |
//! | condition variable                             | is suspended                              |
//! | the same, shared by processes, or with a mutex | keeps its OS thread; the worker goes on   |
//! | that checks errors, is robust, has priorities  |                                           |
//! | or is shared by processes                      |                                           |
//! | mutex                                          | is libc's: nothing is defined here        |
//!
//! Mutexes are left to libc, because allocators use them (jemalloc's arenas). The scheduler allocates under locks of
//! its own. If a hook woke a green thread there, or suspended one that holds an arena's lock, it would wait for
//! itself. So a mutex that another thread has blocks the OS thread, and the monitor gives the worker to another OS
//! thread.
//!
//! Condition variables: a waiter enters the table, then unlocks the mutex. `signal` and `broadcast` wake waiters from
//! the table and those of libc. So `signal` may wake one of each, which POSIX allows. A waiter that was woken takes
//! the mutex back by libc's function.
//!
//! A thread that unlocks a read-write lock in the middle of the scheduler wakes nobody. So a green thread that waits
//! for such a lock also looks again after pauses ([`Net`]).
//!
//! An exception does not end such a wait: no caller expects an error of `pthread_rwlock_rdlock`.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use libc::{c_int, clockid_t, pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, timespec};
use weald_scheduler::patch::{self, Bypass};

use crate::Kind;
use crate::futex::{Bucket, Waited};
use crate::hooks::on;
use crate::hooks::patience::{self, Patience};
use crate::hooks::records::{clock_of, word_at, words_of};
use crate::hooks::sync::{BUCKETS, deadline, is_moment, list_in};
use crate::original::original;

/// Lists, as many as for futexes.
static LOCKS: [Bucket; BUCKETS] = [const { Bucket::new() }; BUCKETS];
static CONDITIONS: [Bucket; BUCKETS] = [const { Bucket::new() }; BUCKETS];

fn list_of<T>(lock: *const T) -> &'static Bucket {
    list_in(&LOCKS, lock.cast())
}

fn waiters_of(condition: *const pthread_cond_t) -> &'static Bucket {
    list_in(&CONDITIONS, condition.cast())
}

#[inline]
fn wake(list: &'static Bucket, word: *const AtomicU32, limit: usize) {
    // In the middle of the scheduler nobody is woken. `Net` covers that.
    if list.has_waiters() && patch::may_wake() {
        let _bypass = Bypass::enter();
        list.wake(word, limit, u32::MAX);
    }
}

/// How long a green thread waits before it looks at a lock again, if nobody has told it of the lock.
struct Net(Duration);

impl Net {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(64);

    fn until(&mut self, deadline: Option<Instant>) -> Instant {
        let pause = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(Self::LONGEST);
        deadline.map_or(pause, |deadline| deadline.min(pause))
    }
}

/// Tries until it has the lock (0), until it fails for another reason than that the lock is held, or until the
/// deadline has passed. If it always loses the lock to others, it waits by `plain`, libc's whole call.
fn wait_for<T>(
    lock: *const T,
    until: Option<Instant>,
    attempt: impl Fn() -> c_int,
    mut plain: impl FnOnce() -> c_int,
) -> c_int {
    let mut net = Net(Net::FIRST);
    let mut patience = Patience::new();
    loop {
        let mut result = libc::EBUSY;
        let waited = list_of(lock).wait_unless(lock.cast(), Some(net.until(until)), || {
            result = attempt();
            result != libc::EBUSY
        });
        if result != libc::EBUSY {
            return result;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            // The thread that woke this one meant it to try.
            result = attempt();
            return if result == libc::EBUSY {
                libc::ETIMEDOUT
            } else {
                result
            };
        }
        if patience.is_over(waited) {
            match patience::queue(lock, plain) {
                Ok(result) => {
                    // This thread may have got a reader's lock, which others can have too.
                    wake(list_of(lock), lock.cast(), usize::MAX);
                    return result;
                }
                Err(not_called) => plain = not_called,
            }
        }
    }
}

/// Returns an absolute limit of POSIX. `Err`: it is not valid, or its clock is one that only libc can watch.
///
/// # Safety
/// The pointer is null or valid.
unsafe fn limit_of(limit: *const timespec, clock: clockid_t) -> Result<Option<Instant>, ()> {
    // SAFETY: by contract.
    let limit = unsafe { limit.as_ref() }.copied();
    match clock {
        libc::CLOCK_REALTIME => deadline(limit, true, true),
        libc::CLOCK_MONOTONIC => deadline(limit, true, false),
        _ => Err(()),
    }
}

/// Where the mutex's kind is, counted in words. The static initialisers of C programs put it there.
#[cfg(target_pointer_width = "64")]
const KIND_AT: usize = 4;

/// Tells if a green thread may give the mutex up for a wait in weald's table.
///
/// # Safety
/// The pointer is to a mutex.
unsafe fn is_plain(mutex: *const pthread_mutex_t) -> bool {
    // SAFETY: inside of the mutex.
    let kind = unsafe { word_at(mutex, KIND_AT) };
    // The higher bits tell if locks may be elided.
    let kind = kind & 0xff;
    kind == libc::PTHREAD_MUTEX_NORMAL.cast_unsigned()
        || kind == libc::PTHREAD_MUTEX_RECURSIVE.cast_unsigned()
        || kind == PTHREAD_MUTEX_ADAPTIVE_NP
}

const PTHREAD_MUTEX_ADAPTIVE_NP: u32 = 3;

type Mutex = *mut pthread_mutex_t;
type RwLock = *mut pthread_rwlock_t;
type Condition = *mut pthread_cond_t;
type OfRwLock = unsafe extern "C" fn(RwLock) -> c_int;
type TimedOfRwLock = unsafe extern "C" fn(RwLock, *const timespec) -> c_int;
type OfCondition = unsafe extern "C" fn(Condition) -> c_int;

original! {
    RWLOCK_TIMEDRDLOCK: TimedOfRwLock = c"pthread_rwlock_timedrdlock";
    RWLOCK_TIMEDWRLOCK: TimedOfRwLock = c"pthread_rwlock_timedwrlock";
    RWLOCK_UNLOCK: OfRwLock = c"pthread_rwlock_unlock";
    COND_WAIT: unsafe extern "C" fn(Condition, Mutex) -> c_int
        = c"pthread_cond_wait", COND_VERSION;
    COND_TIMEDWAIT: unsafe extern "C" fn(Condition, Mutex, *const timespec) -> c_int
        = c"pthread_cond_timedwait", COND_VERSION;
    COND_CLOCKWAIT: unsafe extern "C" fn(Condition, Mutex, clockid_t, *const timespec) -> c_int
        = c"pthread_cond_clockwait";
    COND_SIGNAL: OfCondition = c"pthread_cond_signal", COND_VERSION;
    COND_BROADCAST: OfCondition = c"pthread_cond_broadcast", COND_VERSION;
}

/// The version since which glibc's condition variables are as they are. Older ones have the same names.
#[cfg(target_arch = "x86_64")]
const COND_VERSION: &std::ffi::CStr = c"GLIBC_2.3.2";
#[cfg(target_arch = "aarch64")]
const COND_VERSION: &std::ffi::CStr = c"GLIBC_2.17";

/// How often a lock is tried in a row: a holder that runs has unlocked by then, without a suspension.
const SPINS: usize = 64;

/// Locks a mutex: tries some times, then waits on the OS thread.
///
/// # Safety
/// The pointer is to a mutex.
unsafe fn lock(mutex: Mutex) -> c_int {
    for _ in 0..SPINS {
        // SAFETY: by contract.
        let result = unsafe { libc::pthread_mutex_trylock(mutex) };
        if result != libc::EBUSY {
            return result;
        }
        std::hint::spin_loop();
    }
    // SAFETY: by contract.
    unsafe { libc::pthread_mutex_lock(mutex) }
}

/// Locks a read-write lock for any caller. `attempt` tries, `plain` waits on the OS thread.
///
/// # Safety
/// The pointer is to a lock.
unsafe fn rwlock_by(
    lock: RwLock,
    until: impl FnOnce() -> Result<Option<Instant>, ()>,
    attempt: OfRwLock,
    timed: TimedOfRwLock,
    plain: impl FnOnce() -> c_int,
) -> c_int {
    if !on(Kind::Sync) {
        return plain();
    }
    // SAFETY: by contract.
    let attempt = || unsafe { attempt(lock) };
    let first = attempt();
    if first != libc::EBUSY {
        return first;
    }
    // Only a call that would wait returns `EDEADLK`. This call has a limit that has passed, so it does not wait.
    let past = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: by contract, and a pointer to a local.
    let second = unsafe { timed(lock, &raw const past) };
    if second != libc::ETIMEDOUT {
        return second;
    }
    // SAFETY: by contract.
    match (unsafe { is_private(lock) }, until()) {
        (true, Ok(until)) => wait_for(lock, until, attempt, plain),
        _ => patch::blocking_until_others_act(plain),
    }
}

/// Tells if the lock is not shared by processes.
///
/// # Safety
/// The pointer is to a lock.
unsafe fn is_private(lock: *const pthread_rwlock_t) -> bool {
    /// Where a shared lock differs from a private one. No header tells.
    static AT: OnceLock<Option<usize>> = OnceLock::new();
    let at = *AT.get_or_init(|| {
        // SAFETY: locks of our own, made and destroyed as POSIX says.
        unsafe {
            let mut attributes: MaybeUninit<libc::pthread_rwlockattr_t> = MaybeUninit::uninit();
            libc::pthread_rwlockattr_init(attributes.as_mut_ptr());
            let private = words_of(|lock: *mut pthread_rwlock_t| {
                libc::pthread_rwlock_init(lock, attributes.as_ptr());
            });
            libc::pthread_rwlockattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            );
            let shared = words_of(|lock: *mut pthread_rwlock_t| {
                libc::pthread_rwlock_init(lock, attributes.as_ptr());
            });
            libc::pthread_rwlockattr_destroy(attributes.as_mut_ptr());
            private.iter().zip(&shared).position(|(a, b)| a != b)
        }
    });
    // SAFETY: by contract; the place is inside of the lock.
    at.is_some_and(|at| unsafe { word_at(lock, at) } == 0)
}

macro_rules! rwlock {
    ($($name:ident $as_c:literal, $timed:ident, $clock:ident $clock_c:literal
        by $attempt:ident, $timed_of:ident;)*) => {$(
        /// pthread_rwlock_rdlock(3) and similar calls.
        ///
        /// # Safety
        /// Those of the manual's page.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(lock: RwLock) -> c_int {
            original! { PLAIN: OfRwLock = $as_c; }
            // SAFETY: by contract.
            let plain = || unsafe { PLAIN.get()(lock) };
            // SAFETY: by contract.
            unsafe { rwlock_by(lock, || Ok(None), libc::$attempt, $timed_of.get(), plain) }
        }

        /// pthread_rwlock_timedrdlock(3) and similar calls.
        ///
        /// # Safety
        /// Those of the manual's page.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $timed(lock: RwLock, limit: *const timespec) -> c_int {
            // SAFETY: by contract.
            let plain = || unsafe { $timed_of.get()(lock, limit) };
            // SAFETY: by contract.
            if !unsafe { is_moment(limit) } {
                return plain();
            }
            // SAFETY: by contract.
            let until = || unsafe { limit_of(limit, libc::CLOCK_REALTIME) };
            // SAFETY: by contract.
            unsafe { rwlock_by(lock, until, libc::$attempt, $timed_of.get(), plain) }
        }

        /// pthread_rwlock_clockrdlock(3) and similar calls.
        ///
        /// # Safety
        /// Those of the manual's page.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $clock(
            lock: RwLock,
            clock: clockid_t,
            limit: *const timespec,
        ) -> c_int {
            type Function = unsafe extern "C" fn(RwLock, clockid_t, *const timespec) -> c_int;
            original! { PLAIN: Function = $clock_c; }
            // SAFETY: by contract.
            let plain = || unsafe { PLAIN.get()(lock, clock, limit) };
            // SAFETY: by contract.
            if !unsafe { is_moment(limit) } {
                return plain();
            }
            // SAFETY: by contract.
            let until = || unsafe { limit_of(limit, clock) };
            // SAFETY: by contract.
            unsafe { rwlock_by(lock, until, libc::$attempt, $timed_of.get(), plain) }
        }
    )*};
}

rwlock! {
    pthread_rwlock_rdlock c"pthread_rwlock_rdlock",
        pthread_rwlock_timedrdlock,
        pthread_rwlock_clockrdlock c"pthread_rwlock_clockrdlock"
        by pthread_rwlock_tryrdlock, RWLOCK_TIMEDRDLOCK;
    pthread_rwlock_wrlock c"pthread_rwlock_wrlock",
        pthread_rwlock_timedwrlock,
        pthread_rwlock_clockwrlock c"pthread_rwlock_clockwrlock"
        by pthread_rwlock_trywrlock, RWLOCK_TIMEDWRLOCK;
}

/// pthread_rwlock_unlock(3).
///
/// # Safety
/// Those of pthread_rwlock_unlock(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_rwlock_unlock(lock: RwLock) -> c_int {
    // SAFETY: by contract.
    let result = unsafe { RWLOCK_UNLOCK.get()(lock) };
    // All readers may go on, and the writer that tries first.
    wake(list_of(lock), lock.cast(), usize::MAX);
    result
}

/// Waits for a condition variable for any caller. `plain` waits on the OS thread.
///
/// # Safety
/// The pointers are to a condition variable and a mutex, and the caller has the mutex.
unsafe fn wait_by(
    condition: Condition,
    mutex: Mutex,
    limit: Option<(*const timespec, Option<clockid_t>)>,
    plain: impl FnOnce() -> c_int,
) -> c_int {
    if !on(Kind::Sync) {
        return plain();
    }
    // SAFETY: by contract.
    let (own, is_plain) = unsafe { (clock_of(condition), is_plain(mutex)) };
    let until = match limit {
        None => Ok(None),
        Some((limit, clock)) => match clock.or(own) {
            // SAFETY: by contract.
            Some(clock) => unsafe { limit_of(limit, clock) },
            None => Err(()),
        },
    };
    let (true, Some(_), Ok(until)) = (is_plain, own, until) else {
        return patch::blocking_until_others_act(plain);
    };
    let mut result = 0;
    let waited = waiters_of(condition).wait_unless(condition.cast(), until, || {
        // SAFETY: by contract.
        result = unsafe { libc::pthread_mutex_unlock(mutex) };
        result != 0
    });
    if result != 0 {
        return result;
    }
    // SAFETY: by contract.
    let locked = unsafe { lock(mutex) };
    match (locked, waited) {
        (0, Waited::TimedOut) => libc::ETIMEDOUT,
        (result, _) => result,
    }
}

/// pthread_cond_wait(3).
///
/// # Safety
/// Those of pthread_cond_wait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_wait(condition: Condition, mutex: Mutex) -> c_int {
    // SAFETY: by contract.
    unsafe { wait_by(condition, mutex, None, || COND_WAIT.get()(condition, mutex)) }
}

/// pthread_cond_timedwait(3).
///
/// # Safety
/// Those of pthread_cond_timedwait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_timedwait(
    condition: Condition,
    mutex: Mutex,
    limit: *const timespec,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        wait_by(condition, mutex, Some((limit, None)), || {
            COND_TIMEDWAIT.get()(condition, mutex, limit)
        })
    }
}

/// pthread_cond_clockwait(3).
///
/// # Safety
/// Those of pthread_cond_clockwait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_clockwait(
    condition: Condition,
    mutex: Mutex,
    clock: clockid_t,
    limit: *const timespec,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        wait_by(condition, mutex, Some((limit, Some(clock))), || {
            COND_CLOCKWAIT.get()(condition, mutex, clock, limit)
        })
    }
}

/// pthread_cond_signal(3).
///
/// # Safety
/// Those of pthread_cond_signal(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_signal(condition: Condition) -> c_int {
    // SAFETY: by contract.
    let result = unsafe { COND_SIGNAL.get()(condition) };
    wake(waiters_of(condition), condition.cast(), 1);
    result
}

/// pthread_cond_broadcast(3).
///
/// # Safety
/// Those of pthread_cond_broadcast(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_cond_broadcast(condition: Condition) -> c_int {
    // SAFETY: by contract.
    let result = unsafe { COND_BROADCAST.get()(condition) };
    wake(waiters_of(condition), condition.cast(), usize::MAX);
    result
}
