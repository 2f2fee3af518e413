//! The `Date` of answers.
//!
//! hyper would write it from a thread-local of its own, whose address the compiler may keep while hyper is polled. A
//! connection's thread waits inside of such a poll (`io.rs`). Where green threads share the OS thread's thread-locals
//! (`share_thread_locals`) it may go on on another OS thread, and would then use that of the one before, at the same time as others.
//! So hyper is told to write none. What is left is one use at the very begin of a poll, before anything can wait; each poll is
//! a call that is not inlined, so that it takes the address anew.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The last one that was made, and its second.
static LAST: Mutex<Option<(u64, HeaderValue)>> = Mutex::new(None);

/// The time now, as HTTP writes it.
pub(crate) fn now() -> HeaderValue {
    let time = SystemTime::now();
    let second = time.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, value)) = &*last
        && *at == second
    {
        return value.clone();
    }
    let text = httpdate::fmt_http_date(time.max(UNIX_EPOCH));
    let value = HeaderValue::try_from(text).expect("a date is plain text");
    *last = Some((second, value.clone()));
    value
}
