//! A panic's message says which green thread it was: std's names only the OS thread. And the thread
//! is known to unwind from here on, also where others wait on its OS thread while they unwind.

use std::sync::Once;

use crate::current;

/// Puts a line with the green thread's name before the message of the hook that is there, and
/// leaves panics elsewhere to that hook alone. Once per process; a hook that is set later replaces
/// both, as hooks do.
#[allow(unsafe_code, reason = "what runs here is alive")]
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(header) = current::green() {
                // SAFETY: what runs here is alive.
                let header = unsafe { &*header };
                crate::exception::note_unwinding(header);
                let (name, id) = (header.name().unwrap_or("<unnamed>"), header.id.get());
                eprintln!("in green thread '{name}' (id {id}):");
            }
            before(info);
        }));
    });
}
