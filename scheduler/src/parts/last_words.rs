//! A sentence on stderr, in one piece, where the process is about to end or a panic's message follows.

//!
//! Not by std's handle: a green thread may hold its lock that is parked, or that waits for the very thread
//! whose panic this tells. And where nobody reads stderr any more the line is lost, as std's own message is:
//! `eprint` would panic, and in a panic's hook that ends the process.
#![allow(unsafe_code, reason = "a system call")]

use std::fmt;
use std::io;

/// Writes a line. In one piece: of formatted parts each would be a write of its own, between which other
/// threads' lines may come.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    write(format!("{text}\n").as_bytes());
}

/// Writes to standard error, or does not if that fails.
pub(crate) fn write(mut rest: &[u8]) {
    while !rest.is_empty() {
        // SAFETY: the bytes are valid for reading.
        let wrote = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(wrote) {
            Ok(wrote @ 1..) => rest = &rest[wrote..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
}

/// Ends the process, after a sentence that says why.
#[cold]
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    say(format_args!("weald: {why}; aborting"));
    std::process::abort()
}
