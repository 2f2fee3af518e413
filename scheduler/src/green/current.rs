//! The thread that runs here: `shim/here.rs` has its address.
//!
//! A [`Front`](crate::shim::here::Front) is the first field of a [`Header`]; nothing else is ever put there.
#![allow(
    unsafe_code,
    reason = "the copies are raw pointers to what runs on this OS thread"
)]

use crate::green::green_thread::Header;
use crate::shim::here;

/// The green thread that runs here, or the OS thread's own header if it has one, or null.
#[inline(always)]
pub(crate) fn running() -> *const Header {
    here::running().cast()
}

/// As `running`; null also where the thread-locals are gone, which only a model sees.
pub(crate) fn running_if_any() -> *const Header {
    here::running_if_any().cast()
}

/// True: it could be set (the thread-locals are still there).
#[inline(always)]
pub(crate) fn set_running(header: *const Header) -> bool {
    here::set_running(header.cast())
}

/// The running green thread's header, or `None` on a plain OS thread.
#[inline]
pub(crate) fn green() -> Option<*const Header> {
    let header = running();
    // SAFETY: what runs here is alive.
    (!header.is_null() && unsafe { (*header).is_green() }).then_some(header)
}

/// True in a green thread, false on a plain OS thread.
///
/// # Examples
/// ```
/// assert!(!weald::is_green());
/// let rt = weald::Runtime::builder().workers(1).build()?;
/// assert!(rt.run(weald::is_green));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn is_green() -> bool {
    green().is_some()
}
