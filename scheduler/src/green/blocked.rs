//! `WEALD_PATCH_REPORT`: reports at the end of the process which calls have blocked an OS thread without weald's
//! knowledge.
//!
//! The monitor finds green threads that do not come back. If one has kept its OS thread for long, the system says
//! whether the OS thread computes, or in which call and where on its stack it waits
//! (`/proc/self/task/TID/syscall`, proc(5)). The stack is then copied and unwound. The copy counts only if the system
//! says the same afterwards.
#![allow(unsafe_code, reason = "registers a function for the process's end")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use crate::green::trace::Trace;
use crate::parts::last_words;
use crate::shim::plain::{Mutex, MutexGuard};

/// What is known of the calls at one place.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    count: u64,
    total: Duration,
    longest: Duration,
}

/// Only the monitors and the process's end use it.
fn table() -> MutexGuard<'static, HashMap<Trace, Calls>> {
    static TABLE: OnceLock<Mutex<HashMap<Trace, Calls>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Mutex::new(HashMap::new()));
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variable is set, and not to 0.
pub(crate) fn is_wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let wanted = std::env::var_os("WEALD_PATCH_REPORT").is_some_and(|value| value != "0");
        // SAFETY: the function takes nothing and unwinds nowhere.
        if wanted && unsafe { libc::atexit(tell) } != 0 {
            log::warn!("weald: WEALD_PATCH_REPORT: there is no room for a function at exit");
        }
        wanted
    })
}

/// A call was seen.
pub(crate) fn seen(place: &Trace) {
    table().entry(place.clone()).or_default().count += 1;
}

/// A call that was seen is over.
pub(crate) fn over(place: Trace, lasted: Duration) {
    let mut table = table();
    let calls = table.entry(place).or_default();
    calls.total += lasted;
    calls.longest = calls.longest.max(lasted);
}

/// How many have been seen.
#[cfg(not(loom))]
pub(crate) fn count() -> u64 {
    table().values().map(|calls| calls.count).sum()
}

extern "C" fn tell() {
    let mut places: Vec<_> = std::mem::take(&mut *table()).into_iter().collect();
    places.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.total));
    let mut text = String::new();
    if places.is_empty() {
        text.push_str("weald: no call has blocked an OS thread without weald's knowing\n");
    }
    for (place, calls) in places {
        let Calls {
            count,
            total,
            longest,
        } = calls;
        let _ = write!(
            text,
            "weald: a call has blocked its OS thread without weald's knowing: {count} times, \
             {total:.0?} in all, {longest:.0?} at most (those that are over)\n{place}"
        );
    }
    last_words::write(text.as_bytes());
}
