//! How a call of std's is made: inside `blocking`.

use std::io;

/// Makes a call about names and their properties: it ends by itself.
pub(super) fn brief<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    weald_scheduler::io::blocking(true, f)
}

/// Makes a call that opens a file or moves its bytes. The name may be that of a pipe: then the call may wait for
/// another green thread.
pub(super) fn long<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    weald_scheduler::io::blocking(false, f)
}
