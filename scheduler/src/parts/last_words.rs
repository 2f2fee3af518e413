//! Writes a sentence to stderr in one piece, before the process ends or a panic's message follows.

//!
//! It does not use std's handle: a parked green thread may hold that handle's lock, and it may even wait for the
//! thread that panics. If nobody reads stderr any more, the line is lost, as std's own message is. `eprint` would
//! panic then, and a panic in a panic's hook ends the process.
#![allow(unsafe_code, reason = "a system call")]

use std::fmt;
use std::io;

/// Writes a line by one write. A formatted line would be several writes, with lines of other threads in between.
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
