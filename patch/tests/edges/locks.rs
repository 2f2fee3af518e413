//! Threads, locks and semaphores at their edges.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{null, null_mut};
use std::thread;
use std::time::Duration;

use super::pause;

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut libc::c_void) -> !;
}

/// A thread that ends in the middle of a function.
pub(super) fn exits() -> i64 {
    type Start = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;

    extern "C-unwind" fn start(value: *mut libc::c_void) -> *mut libc::c_void {
        thread::sleep(Duration::from_millis(1));
        // SAFETY: nothing on this stack minds being unwound.
        unsafe { pthread_exit(value.wrapping_byte_add(1)) }
    }
    let (mut new, mut value) = (0, null_mut());
    // SAFETY: C knows one kind of functions; pointers to locals.
    unsafe {
        let start: Start = std::mem::transmute(start as *const ());
        assert_eq!(
            libc::pthread_create(&raw mut new, null(), start, null_mut()),
            0
        );
        assert_eq!(libc::pthread_join(new, &raw mut value), 0);
    }
    i64::try_from(value.addr()).unwrap()
}

pub(super) fn detaches_itself() -> i64 {
    extern "C" fn start(pipe: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the number of a pipe that its reader keeps open.
        unsafe {
            let detached = libc::pthread_detach(libc::pthread_self());
            let detached = [u8::try_from(detached).unwrap()];
            let pipe = RawFd::try_from(pipe.addr()).unwrap();
            libc::write(pipe, detached.as_ptr().cast(), 1);
        }
        // A thread that joins finds it alive.
        pause(100);
        null_mut()
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (mut new, mut detached) = (0, [0]);
    // SAFETY: pointers to locals, and a thread that lives for a while.
    unsafe {
        let pipe = std::ptr::without_provenance_mut(usize::try_from(writer.as_raw_fd()).unwrap());
        assert_eq!(libc::pthread_create(&raw mut new, null(), start, pipe), 0);
        std::io::Read::read_exact(&mut reader, &mut detached).unwrap();
        i64::from(libc::pthread_join(new, null_mut())) + 1000 * i64::from(detached[0])
    }
}

unsafe extern "C" {
    fn pthread_tryjoin_np(thread: libc::pthread_t, value: *mut *mut libc::c_void) -> libc::c_int;
    fn pthread_timedjoin_np(
        thread: libc::pthread_t,
        value: *mut *mut libc::c_void,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

/// The answers of both calls while the thread runs, and of `pthread_timedjoin_np` once it may end.
pub(super) fn joins_for_a_while() -> i64 {
    extern "C" fn start(pipe: *mut libc::c_void) -> *mut libc::c_void {
        let mut byte = 0_u8;
        let pipe = RawFd::try_from(pipe.addr()).unwrap();
        // SAFETY: the number of a pipe that is open until the thread was joined; a pointer to a local.
        unsafe { libc::read(pipe, (&raw mut byte).cast(), 1) };
        std::ptr::without_provenance_mut(7)
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (mut new, mut value) = (0, null_mut());
    let (past, far) = (deadline(1, 0), deadline(4_000_000_000, 0));
    // SAFETY: pointers to locals, and a thread that is joined once.
    unsafe {
        let pipe = std::ptr::without_provenance_mut(usize::try_from(reader.as_raw_fd()).unwrap());
        assert_eq!(libc::pthread_create(&raw mut new, null(), start, pipe), 0);
        let tried = pthread_tryjoin_np(new, &raw mut value);
        let waited = pthread_timedjoin_np(new, &raw mut value, &raw const past);
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        let joined = pthread_timedjoin_np(new, &raw mut value, &raw const far);
        let value = i64::try_from(value.addr()).unwrap();
        i64::from(tried)
            + 1000 * i64::from(waited)
            + 1_000_000 * i64::from(joined)
            + 10_000_000 * value
    }
}

pub(super) fn deadline(secs: i64, nanos: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    }
}

pub(super) fn relock(kind: libc::c_int) -> libc::c_int {
    // SAFETY: attributes and mutex are made and ended as POSIX says.
    unsafe {
        let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_settype(&raw mut attributes, kind);
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        libc::pthread_mutex_init(&raw mut mutex, &raw const attributes);
        libc::pthread_mutex_lock(&raw mut mutex);
        let past = deadline(1, 0);
        libc::pthread_mutex_timedlock(&raw mut mutex, &raw const past)
    }
}

pub(super) fn relock_for_writing() -> libc::c_int {
    // SAFETY: zeroed, as its static initialiser is.
    unsafe {
        let mut lock: libc::pthread_rwlock_t = std::mem::zeroed();
        libc::pthread_rwlock_wrlock(&raw mut lock);
        libc::pthread_rwlock_wrlock(&raw mut lock) * 100
            + libc::pthread_rwlock_rdlock(&raw mut lock)
    }
}

pub(super) fn condition_in_the_past() -> libc::c_int {
    let past = deadline(1, 0);
    // SAFETY: both are zeroed, as their static initialisers are.
    unsafe {
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        let mut condition: libc::pthread_cond_t = std::mem::zeroed();
        libc::pthread_mutex_lock(&raw mut mutex);
        let result =
            libc::pthread_cond_timedwait(&raw mut condition, &raw mut mutex, &raw const past);
        result * 100 + libc::pthread_mutex_unlock(&raw mut mutex)
    }
}

unsafe extern "C" {
    pub(super) fn semtimedop(
        set: libc::c_int,
        operations: *mut libc::sembuf,
        count: usize,
        limit: *const libc::timespec,
    ) -> libc::c_int;
    pub(super) fn sem_timedwait(
        semaphore: *mut libc::sem_t,
        limit: *const libc::timespec,
    ) -> libc::c_int;
    pub(super) fn pthread_rwlock_timedrdlock(
        lock: *mut libc::pthread_rwlock_t,
        limit: *const libc::timespec,
    ) -> libc::c_int;
}

pub(super) fn semaphore_in_the_past(nanos: i64) -> libc::c_int {
    let past = deadline(1, nanos);
    // SAFETY: a semaphore of this function's own.
    unsafe {
        let mut semaphore: libc::sem_t = std::mem::zeroed();
        libc::sem_init(&raw mut semaphore, 0, 0);
        sem_timedwait(&raw mut semaphore, &raw const past)
    }
}
