//! `pthread_create` makes a green thread when a green thread calls it. pthread_create(3), pthread_join(3).
//!
//! `std::thread::spawn` calls it, so it does the same. The identity that the creator gets is weald's. Any thread can
//! join or detach it, once; it serves for nothing else, and other functions refuse it. `pthread_self` in the new thread returns another identity, by
//! which the thread can detach itself.
//!
//! pthread_exit(3) in a green thread unwinds as a panic does, without a message. libc's own function looks for what
//! libc puts on the stack of each of its threads, and ends the process if that is not there.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{
    c_char, c_int, c_void, clockid_t, cpu_set_t, pthread_attr_t, pthread_t, sched_param, sigval,
    size_t, timespec,
};
use weald_scheduler::patch::{self, Bypass};
use weald_scheduler::{Builder, JoinHandle};

use crate::Kind;
use crate::hooks::on;
use crate::hooks::sync::deadline;
use crate::original::{next, original};
use crate::pauses::{Ended, Pauses};

original! {
    TRYJOIN: unsafe extern "C" fn(pthread_t, *mut *mut c_void) -> c_int = c"pthread_tryjoin_np";
    TIMEDJOIN: unsafe extern "C" fn(pthread_t, *mut *mut c_void, *const timespec) -> c_int
        = c"pthread_timedjoin_np";
    CLOCKJOIN: unsafe extern "C" fn(pthread_t, *mut *mut c_void, clockid_t, *const timespec) -> c_int
        = c"pthread_clockjoin_np";
}

type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// The payload with which `pthread_exit` unwinds.
struct Exit(Word);

/// A pointer that goes from thread to thread. The C program is responsible for it.
struct Word(*mut c_void);

// SAFETY: pthread_create(3) hands the pointer to another thread. The caller is responsible for what it points to.
unsafe impl Send for Word {}

impl Word {
    fn get(self) -> *mut c_void {
        self.0
    }
}

/// The threads that were neither joined nor detached.
static THREADS: Mutex<Option<HashMap<pthread_t, JoinHandle<Word>>>> = Mutex::new(None);

/// Identities are odd, so that none of them is the address of a thread of libc's.
static NEXT: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    /// The identity that the creator of this green thread got; zero for none.
    static IDENTITY: Cell<pthread_t> = const { Cell::new(0) };
}

fn is_ours(thread: pthread_t) -> bool {
    !thread.is_multiple_of(2)
}

fn threads() -> MutexGuard<'static, Option<HashMap<pthread_t, JoinHandle<Word>>>> {
    let _bypass = Bypass::enter();
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes out a thread that was created here.
fn take(thread: pthread_t) -> Option<JoinHandle<Word>> {
    if !is_ours(thread) {
        return None;
    }
    let mut threads = threads();
    let handle = threads.as_mut().and_then(|all| all.remove(&thread));
    drop(threads);
    handle
}

/// Returns the size of the stack that the attributes ask for, and whether they ask for a detached thread.
///
/// # Safety
/// `attr` is null or valid.
unsafe fn wishes(attr: *const pthread_attr_t) -> (Option<usize>, bool) {
    if attr.is_null() {
        return (None, false);
    }
    let (mut size, mut state) = (0, 0);
    // SAFETY: by contract, and pointers to locals.
    let (size_told, state_told) = unsafe {
        (
            libc::pthread_attr_getstacksize(attr, &raw mut size),
            pthread_attr_getdetachstate(attr, &raw mut state),
        )
    };
    let is_detached = state_told == 0 && state == libc::PTHREAD_CREATE_DETACHED;
    ((size_told == 0).then_some(size), is_detached)
}

unsafe extern "C" {
    fn pthread_attr_getdetachstate(attr: *const pthread_attr_t, state: *mut c_int) -> c_int;
}

/// pthread_create(3).
///
/// # Safety
/// As pthread_create(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attr: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    type Function =
        unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, Start, *mut c_void) -> c_int;
    if !on(Kind::Threads) {
        // SAFETY: the next definition of the name is libc's, of this type; the rest by contract.
        return match unsafe { next::<Function>(c"pthread_create") } {
            // SAFETY: by contract.
            Some(original) => unsafe { original(thread, attr, start, argument) },
            None => libc::EAGAIN,
        };
    }
    // SAFETY: by contract.
    let (stack_size, is_detached) = unsafe { wishes(attr) };
    let mut builder = Builder::new();
    if let Some(size) = stack_size {
        builder = builder.stack_size(size);
    }
    let argument = Word(argument);
    let identity = if is_detached {
        0
    } else {
        NEXT.fetch_add(2, Ordering::Relaxed) as pthread_t
    };
    let body = move || {
        IDENTITY.set(identity);
        let ended = catch_unwind(AssertUnwindSafe(|| Word(start(argument.get()))));
        ended.unwrap_or_else(|payload| match payload.downcast::<Exit>() {
            Ok(exit) => exit.0,
            Err(payload) => resume_unwind(payload),
        })
    };
    // The table is locked here, as another thread may join the new one as soon as it runs.
    let mut all = threads();
    match builder.spawn(body) {
        Ok(handle) => {
            if !is_detached {
                // SAFETY: by contract there is room for it.
                unsafe { *thread = identity };
                all.get_or_insert_with(HashMap::new)
                    .insert(identity, handle);
            }
            0
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => libc::EINVAL,
        Err(_) => libc::EAGAIN,
    }
}

/// pthread_exit(3).
///
/// # Safety
/// As pthread_exit(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    type Function = unsafe extern "C-unwind" fn(*mut c_void) -> !;
    if weald_scheduler::is_green() {
        if cfg!(panic = "abort") {
            eprintln!("weald: pthread_exit cannot unwind a green thread of this program; aborting");
            std::process::abort();
        }
        resume_unwind(Box::new(Exit(Word(value))));
    }
    // SAFETY: the next definition of the name is libc's, of this type; the rest by contract.
    unsafe {
        match next::<Function>(c"pthread_exit") {
            Some(original) => original(value),
            // Without libc's function nothing can end a single thread.
            None => libc::abort(),
        }
    }
}

/// pthread_join(3). No exception ends the wait: its callers take any error for a bug.
///
/// # Safety
/// As pthread_join(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    type Function = unsafe extern "C" fn(pthread_t, *mut *mut c_void) -> c_int;
    if let Some(handle) = take(thread) {
        // A body in C does not unwind, and std catches what does.
        let result = patch::join(handle).map_or(std::ptr::null_mut(), Word::get);
        if !value.is_null() {
            // SAFETY: by contract there is room for it.
            unsafe { *value = result };
        }
        return 0;
    }
    if is_ours(thread) {
        // The thread was detached or joined before.
        return libc::EINVAL;
    }
    // SAFETY: the next definition of the name is libc's, of this type.
    let Some(original) = (unsafe { next::<Function>(c"pthread_join") }) else {
        return libc::EINVAL;
    };
    // SAFETY: by contract.
    kept(|| unsafe { original(thread, value) })
}

/// Tells if a thread that was created here has ended. `None`: it was joined or detached.
fn has_ended(thread: pthread_t) -> Option<bool> {
    threads()
        .as_ref()?
        .get(&thread)
        .map(JoinHandle::is_finished)
}

/// pthread_tryjoin_np(3).
///
/// # Safety
/// As pthread_tryjoin_np(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_tryjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
) -> c_int {
    if !is_ours(thread) {
        // SAFETY: by contract.
        return unsafe { (TRYJOIN.get())(thread, value) };
    }
    match has_ended(thread) {
        None => libc::EINVAL,
        Some(false) => libc::EBUSY,
        // SAFETY: by contract.
        Some(true) => unsafe { pthread_join(thread, value) },
    }
}

/// Joins a thread that was created here, and looks again after pauses whether it has ended. As in `pthread_join`, no
/// exception ends the wait.
///
/// # Safety
/// As pthread_timedjoin_np(3).
unsafe fn join_until(
    thread: pthread_t,
    value: *mut *mut c_void,
    until: *const timespec,
    clock: clockid_t,
) -> c_int {
    // SAFETY: by contract it is null or valid.
    let until = unsafe { until.as_ref() }.copied();
    let Ok(deadline) = deadline(until, true, clock == libc::CLOCK_REALTIME) else {
        return libc::EINVAL;
    };
    let mut pauses = Pauses::default();
    pauses.make_firm();
    loop {
        match has_ended(thread) {
            None => return libc::EINVAL,
            // SAFETY: by contract.
            Some(true) => return unsafe { pthread_join(thread, value) },
            Some(false) => {}
        }
        if pauses.wait(None, deadline) == Ended::TimedOut {
            return libc::ETIMEDOUT;
        }
    }
}

/// pthread_timedjoin_np(3).
///
/// # Safety
/// As pthread_timedjoin_np(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_timedjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    until: *const timespec,
) -> c_int {
    if is_ours(thread) {
        // SAFETY: by contract.
        return unsafe { join_until(thread, value, until, libc::CLOCK_REALTIME) };
    }
    // SAFETY: by contract.
    kept(|| unsafe { (TIMEDJOIN.get())(thread, value, until) })
}

/// The same with a clock of the caller's choice.
///
/// # Safety
/// As pthread_timedjoin_np(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_clockjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if is_ours(thread) {
        if clock != libc::CLOCK_REALTIME && clock != libc::CLOCK_MONOTONIC {
            return libc::EINVAL;
        }
        // SAFETY: by contract.
        return unsafe { join_until(thread, value, until, clock) };
    }
    // SAFETY: by contract.
    kept(|| unsafe { (CLOCKJOIN.get())(thread, value, clock, until) })
}

/// Waits for an OS thread: a patched caller keeps its own OS thread meanwhile.
fn kept(call: impl FnOnce() -> c_int) -> c_int {
    if on(Kind::Threads) {
        patch::blocking_until_others_act(call)
    } else {
        call()
    }
}

/// pthread_detach(3).
///
/// # Safety
/// As pthread_detach(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_detach(thread: pthread_t) -> c_int {
    type Function = unsafe extern "C" fn(pthread_t) -> c_int;
    let own = IDENTITY.get();
    // SAFETY: no conditions.
    let is_own = own != 0 && thread == unsafe { libc::pthread_self() };
    let thread = if is_own { own } else { thread };
    if let Some(handle) = take(thread) {
        drop(handle);
        return 0;
    }
    if is_ours(thread) {
        // The thread was detached or joined before.
        return libc::EINVAL;
    }
    // SAFETY: the next definition of the name is libc's, of this type.
    match unsafe { next::<Function>(c"pthread_detach") } {
        // SAFETY: by contract.
        Some(original) => unsafe { original(thread) },
        None => libc::EINVAL,
    }
}

/// pthread_setname_np(3). A green thread would give its name to the OS thread that it runs on.
///
/// # Safety
/// As pthread_setname_np(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_setname_np(
    thread: pthread_t,
    name: *const c_char,
) -> c_int {
    type Function = unsafe extern "C" fn(pthread_t, *const c_char) -> c_int;
    if on(Kind::Threads) || is_ours(thread) {
        return 0;
    }
    // SAFETY: the next definition of the name is libc's, of this type.
    match unsafe { next::<Function>(c"pthread_setname_np") } {
        // SAFETY: by contract.
        Some(original) => unsafe { original(thread, name) },
        None => 0,
    }
}

/// Functions of libc that take the identity of a thread and know nothing of green threads. They would take weald's
/// identity for an address.
macro_rules! refused {
    ($($name:ident, $original:ident, $as_c:literal ($($arg:ident: $type:ty),*);)*) => {
        original! {$(
            $original: unsafe extern "C" fn(pthread_t $(, $type)*) -> c_int = $as_c;
        )*}
        $(
            /// Fails for a green thread that was created here as if there were no such thread.
            ///
            /// # Safety
            /// As of libc's function.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(thread: pthread_t $(, $arg: $type)*) -> c_int {
                if is_ours(thread) {
                    return libc::ESRCH;
                }
                // SAFETY: by contract.
                unsafe { ($original.get())(thread $(, $arg)*) }
            }
        )*
    };
}

refused! {
    pthread_kill, KILL, c"pthread_kill" (signal: c_int);
    pthread_cancel, CANCEL, c"pthread_cancel" ();
    pthread_getname_np, GETNAME, c"pthread_getname_np" (name: *mut c_char, room: size_t);
    pthread_getattr_np, GETATTR, c"pthread_getattr_np" (attr: *mut pthread_attr_t);
    pthread_getcpuclockid, GETCPUCLOCKID, c"pthread_getcpuclockid" (clock: *mut clockid_t);
    pthread_getschedparam, GETSCHEDPARAM, c"pthread_getschedparam"
        (policy: *mut c_int, param: *mut sched_param);
    pthread_setschedparam, SETSCHEDPARAM, c"pthread_setschedparam"
        (policy: c_int, param: *const sched_param);
    pthread_setschedprio, SETSCHEDPRIO, c"pthread_setschedprio" (priority: c_int);
    pthread_getaffinity_np, GETAFFINITY, c"pthread_getaffinity_np"
        (size: size_t, set: *mut cpu_set_t);
    pthread_setaffinity_np, SETAFFINITY, c"pthread_setaffinity_np"
        (size: size_t, set: *const cpu_set_t);
    pthread_sigqueue, SIGQUEUE, c"pthread_sigqueue" (signal: c_int, value: sigval);
}
