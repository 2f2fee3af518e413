//! `getaddrinfo`: the resolver of libc, on a thread of the pool. getaddrinfo(3).
//!
//! What it does inside libc cannot be seen, so it is called as it is, elsewhere: `localhost` and the names of
//! the hosts file on threads of their own, which never wait behind name servers. An exception ends
//! the wait with `EAI_SYSTEM`; a look-up that runs goes on for nobody and makes room for others, and its
//! result is freed. With too many look-ups, and after [`LIMIT`], it is `EAI_AGAIN`.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libc::{addrinfo, c_char, c_int};
use weald_scheduler::io::{Lane, WaitQueue, deadline, lane_of};
use weald_scheduler::patch::{self, Bypass, Waited};

use crate::Kind;
use crate::hooks::on;
use crate::original::next;
use crate::raw::set_errno;
use crate::wait::errno_of;

/// As long as weald's own look-ups may take.
const LIMIT: Duration = Duration::from_secs(30);

type Function = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const addrinfo,
    *mut *mut addrinfo,
) -> c_int;

/// A list that `getaddrinfo` has made.
struct List(*mut addrinfo);

// SAFETY: the list is plain memory of the process that nobody else has.
unsafe impl Send for List {}

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from `getaddrinfo` and nobody else has it.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

/// What a look-up brought: the function's result, `errno`, the list.
struct Found {
    code: c_int,
    errno: c_int,
    list: List,
}

#[derive(Default)]
struct LookUp {
    found: Mutex<Option<Found>>,
    done: WaitQueue,
}

fn copy(text: *const c_char) -> Option<CString> {
    // SAFETY: the caller of `getaddrinfo` gave null or a string.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// getaddrinfo(3).
///
/// # Safety
/// As getaddrinfo(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the next definition of the name is libc's, of this type.
    let Some(original) = (unsafe { next::<Function>(c"getaddrinfo") }) else {
        return libc::EAI_SYSTEM;
    };
    if !on(Kind::Names) {
        // SAFETY: by contract.
        return unsafe { original(node, service, hints, result) };
    }
    if let Some(pending) = patch::pending() {
        set_errno(errno_of(pending));
        return libc::EAI_SYSTEM;
    }
    let (node, service) = (copy(node), copy(service));
    // SAFETY: by contract it is null or valid; only its numbers are used, as in C.
    let hints = unsafe { hints.as_ref() }.map(|hints| {
        (
            hints.ai_flags,
            hints.ai_family,
            hints.ai_socktype,
            hints.ai_protocol,
        )
    });
    // Without a host nobody is asked.
    let lane = node
        .as_ref()
        .map_or(Lane::Local, |node| lane_of(&node.to_string_lossy()));
    let look_up = Arc::new(LookUp::default());
    let task = Arc::clone(&look_up);
    let job = move || {
        let hints = hints.map(|(flags, family, socktype, protocol)| {
            // SAFETY: all zeros is a valid `addrinfo`.
            let mut hints: addrinfo = unsafe { std::mem::zeroed() };
            hints.ai_flags = flags;
            hints.ai_family = family;
            hints.ai_socktype = socktype;
            hints.ai_protocol = protocol;
            hints
        });
        let mut list = ptr::null_mut();
        // SAFETY: the strings and the hints live over the call.
        let code = unsafe {
            original(
                pointer(node.as_ref()),
                pointer(service.as_ref()),
                hints.as_ref().map_or(ptr::null(), ptr::from_ref),
                &raw mut list,
            )
        };
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let list = List(if code == 0 { list } else { ptr::null_mut() });
        if let Ok(mut found) = task.found.lock() {
            *found = Some(Found { code, errno, list });
        }
        task.done.wake_all();
    };
    let until = deadline(LIMIT);
    // Dropped at the end: who leaves early gives it up.
    let _job = match weald_scheduler::io::offload(lane, job) {
        Ok(job) => job,
        Err(error) => match error.raw_os_error() {
            None => return libc::EAI_AGAIN,
            Some(number) => {
                set_errno(number);
                return libc::EAI_SYSTEM;
            }
        },
    };
    loop {
        let take = || {
            let _bypass = Bypass::enter();
            look_up.found.lock().ok().and_then(|mut found| found.take())
        };
        if let Some(found) = take() {
            if found.code == 0 {
                // SAFETY: by contract there is room for a pointer; the list is the caller's now.
                unsafe { *result = found.list.0 };
                std::mem::forget(found.list);
            } else {
                set_errno(found.errno);
            }
            return found.code;
        }
        let is_there = || {
            let _bypass = Bypass::enter();
            look_up.found.lock().is_ok_and(|found| found.is_some())
        };
        match patch::wait(&look_up.done, is_there, until, true) {
            Waited::Pending(pending) => {
                set_errno(errno_of(pending));
                return libc::EAI_SYSTEM;
            }
            Waited::TimedOut if !is_there() => return libc::EAI_AGAIN,
            Waited::TimedOut | Waited::Woken => {}
        }
    }
}
