//! Adds the name of the green thread to a panic's message. std's message names only the OS thread.
//!
//! With `WEALD_TRACE` it also has a trace written. Nothing else depends on this: a program that sets a hook of its own
//! loses only these two.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::green::current;
use crate::parts::last_words;

/// Puts a line with the green thread's name before the message of the hook that is there, and
/// leaves panics elsewhere to that hook alone. Once per process; a hook that is set later replaces
/// both, as hooks do.
#[allow(unsafe_code, reason = "what runs here is alive")]
pub(crate) fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // A thread that unwinds may not change the hook: std panics. The next runtime does it.
    if std::thread::panicking() || INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(header) = current::green() {
            // SAFETY: what runs here is alive.
            let header = unsafe { &*header };
            let (name, id) = (header.name().unwrap_or("<unnamed>"), header.id.get());
            last_words::say(format_args!("in green thread '{name}' (id {id}):"));
        }
        before(info);
        crate::watch::trace_file::panicked();
    }));
}
