//! A sentence on stderr, in one piece, where the process is about to end or a panic's message follows.

use std::fmt;

/// Writes a line. In one piece: of formatted parts each would be a write of its own, between which other
/// threads' lines may come.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    eprint!("{line}");
}

/// Ends the process, after a sentence that says why.
#[cold]
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    say(format_args!("weald: {why}; aborting"));
    std::process::abort()
}
