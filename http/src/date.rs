//! The `Date` of answers.
//!
//! hyper would take the date from a thread-local of its own, and the compiler may keep the address of the
//! thread-local while hyper is polled. A connection's thread may wait inside such a poll (`io.rs`). If green threads
//! share the OS thread's thread-locals (`share_thread_locals`), the thread may continue on another OS thread. It
//! would then use the thread-local of the first OS thread, at the same time as others. So hyper is told to write no
//! date. hyper still uses the thread-local once at the very beginning of a poll, before anything can wait. Each poll
//! is a call that is not inlined, so it takes the address anew.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The last date that was made, and the second it is for.
static LAST: Mutex<Option<(u64, HeaderValue)>> = Mutex::new(None);

/// Returns the time now, as HTTP writes it.
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
