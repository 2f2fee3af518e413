//! `getaddrinfo`: libc's resolver, on a thread of the pool. getaddrinfo(3).
//!
//! Nobody can see what it does inside libc, so it is called as it is, on another thread. Numbers, `localhost` and the
//! names of the hosts file have threads of their own, so they never wait behind name servers. Callers that ask the
//! same at the same time wait for one look-up ([`Flights`]), and each gets a list of its own. An exception ends the
//! wait with `EAI_SYSTEM`. A look-up that nobody waits for any more goes on, makes room for others, and its result is
//! freed. With too many look-ups, and after [`LIMIT`], the result is `EAI_AGAIN`.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;
use std::time::Duration;

use libc::{addrinfo, c_char, c_int};
use weald_scheduler::io::{Flights, Lane, deadline, lane_of};
use weald_scheduler::patch::{self, Waited};

use crate::Kind;
use crate::hooks::on;
use crate::original::next;
use crate::pauses::errno_of;
use crate::raw::set_errno;

/// weald's own look-ups have the same limit.
const LIMIT: Duration = Duration::from_secs(30);

type Function = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const addrinfo,
    *mut *mut addrinfo,
) -> c_int;

static FLIGHTS: Flights<Question, Answer> = Flights::new();

/// A question for the resolver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    node: Option<CString>,
    service: Option<CString>,
    /// Flags, family, type and protocol. Only these numbers of the hints are used, as in C.
    hints: Option<[c_int; 4]>,
}

impl Question {
    /// # Safety
    /// The arguments are those of `getaddrinfo`.
    unsafe fn new(node: *const c_char, service: *const c_char, hints: *const addrinfo) -> Self {
        let copy = |text: *const c_char| {
            // SAFETY: by contract it is null or a string.
            (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
        };
        // SAFETY: by contract it is null or valid.
        let hints = unsafe { hints.as_ref() };
        Self {
            node: copy(node),
            service: copy(service),
            hints: hints.map(|hints| {
                [
                    hints.ai_flags,
                    hints.ai_family,
                    hints.ai_socktype,
                    hints.ai_protocol,
                ]
            }),
        }
    }

    fn lane(&self) -> Lane {
        let is_number = self
            .hints
            .is_some_and(|[flags, ..]| flags & libc::AI_NUMERICHOST != 0);
        match &self.node {
            Some(node) if !is_number => {
                let node = node.to_string_lossy();
                // A scope may follow: fe80::1%eth0.
                let address = node.split('%').next().unwrap_or_default();
                if address.parse::<IpAddr>().is_ok() {
                    Lane::Local
                } else {
                    lane_of(&node)
                }
            }
            // No name server is asked.
            _ => Lane::Local,
        }
    }

    /// Asks libc. Blocks the OS thread.
    fn ask(&self, original: Function) -> Answer {
        let hints = self.hints.map(|[flags, family, socktype, protocol]| {
            // SAFETY: all zeros is a valid `addrinfo`.
            let mut hints: addrinfo = unsafe { std::mem::zeroed() };
            hints.ai_flags = flags;
            hints.ai_family = family;
            hints.ai_socktype = socktype;
            hints.ai_protocol = protocol;
            hints
        });
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut list = ptr::null_mut();
        // SAFETY: the strings and the hints live over the call.
        let code = unsafe {
            original(
                pointer(&self.node),
                pointer(&self.service),
                hints.as_ref().map_or(ptr::null(), ptr::from_ref),
                &raw mut list,
            )
        };
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let list = Answers(if code == 0 { list } else { ptr::null_mut() });
        Answer { code, errno, list }
    }
}

/// A list that `getaddrinfo` has made. Nobody changes it.
#[derive(Debug)]
struct Answers(*mut addrinfo);

// SAFETY: the list is plain memory of the process that nobody else has.
unsafe impl Send for Answers {}
// SAFETY: it is only read until it is dropped.
unsafe impl Sync for Answers {}

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from `getaddrinfo` or is a copy of such a list, and nobody else has it.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

impl Answers {
    /// Returns an equal list for one caller. It is made of the pieces that glibc's `freeaddrinfo` frees: each entry
    /// with its address behind it, and its name. `None`: there is no memory.
    fn copy(&self) -> Option<Self> {
        let mut copy = Self(ptr::null_mut());
        let mut end: *mut *mut addrinfo = &raw mut copy.0;
        let mut next = self.0;
        // SAFETY: a list of `getaddrinfo` ends with null.
        while let Some(entry) = unsafe { next.as_ref() } {
            let length = entry.ai_addrlen as usize;
            // SAFETY: the new entry has room for the record and for that many bytes behind it; `end` points to the
            // place that ends the copy. The copy is whole after each statement that may fail, so dropping it frees
            // all of it.
            unsafe {
                let new: *mut addrinfo = libc::malloc(size_of::<addrinfo>() + length).cast();
                if new.is_null() {
                    return None;
                }
                new.write(addrinfo {
                    ai_next: ptr::null_mut(),
                    ai_canonname: ptr::null_mut(),
                    ..*entry
                });
                if !entry.ai_addr.is_null() {
                    let address = new.add(1).cast::<u8>();
                    ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), address, length);
                    (*new).ai_addr = address.cast();
                }
                *end = new;
                end = &raw mut (*new).ai_next;
                if !entry.ai_canonname.is_null() {
                    (*new).ai_canonname = libc::strdup(entry.ai_canonname);
                    if (*new).ai_canonname.is_null() {
                        return None;
                    }
                }
            }
            next = entry.ai_next;
        }
        Some(copy)
    }

    /// Returns the list for the caller, who frees it.
    fn into_raw(self) -> *mut addrinfo {
        let list = self.0;
        std::mem::forget(self);
        list
    }
}

/// The result of a look-up: the function's result, `errno`, and the list.
#[derive(Debug)]
struct Answer {
    code: c_int,
    errno: c_int,
    list: Answers,
}

/// Fails with an `errno`.
fn fails_with(errno: c_int) -> c_int {
    set_errno(errno);
    libc::EAI_SYSTEM
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
        return fails_with(errno_of(pending));
    }
    // SAFETY: by contract.
    let question = unsafe { Question::new(node, service, hints) };
    let (lane, until) = (question.lane(), deadline(LIMIT));
    // The passenger is dropped at the end. A caller that leaves early gives the look-up up.
    let passenger = match FLIGHTS.board(question, lane, move |question| question.ask(original)) {
        Ok(passenger) => passenger,
        Err(error) => return error.raw_os_error().map_or(libc::EAI_AGAIN, fails_with),
    };
    loop {
        if let Some(answer) = passenger.landed() {
            if answer.code != 0 {
                set_errno(answer.errno);
                return answer.code;
            }
            let Some(list) = answer.list.copy() else {
                return libc::EAI_MEMORY;
            };
            // SAFETY: by contract there is room for a pointer; the list is the caller's now.
            unsafe { *result = list.into_raw() };
            return 0;
        }
        let has_landed = || passenger.landed().is_some();
        match patch::wait(passenger.waiters(), has_landed, until, true) {
            Waited::Pending(pending) => return fails_with(errno_of(pending)),
            Waited::TimedOut if !has_landed() => return libc::EAI_AGAIN,
            Waited::TimedOut | Waited::Woken => {}
        }
    }
}
