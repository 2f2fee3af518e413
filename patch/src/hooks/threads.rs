//! `pthread_create` makes a green thread when a green thread calls it. pthread_create(3), pthread_join(3).
//!
//! `std::thread::spawn` calls it, so it does the same. The identity that the creator gets is weald's. Any thread can
//! join or detach it, once; it serves for nothing else. `pthread_self` in the new thread returns another identity, by
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

use libc::{c_char, c_int, c_void, pthread_attr_t, pthread_t};
use weald_scheduler::patch::{self, Bypass};
use weald_scheduler::{Builder, JoinHandle};

use crate::Kind;
use crate::hooks::on;
use crate::original::next;

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
    let call = || unsafe { original(thread, value) };
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
    if on(Kind::Threads) {
        return 0;
    }
    // SAFETY: the next definition of the name is libc's, of this type.
    match unsafe { next::<Function>(c"pthread_setname_np") } {
        // SAFETY: by contract.
        Some(original) => unsafe { original(thread, name) },
        None => 0,
    }
}
