//! Standard input and output, and copying: the functions of `std::io` that wait, for green threads.
//!
//! `weald::io` has std's names. Functions that wait are weald's own; the rest is std's, re-exported. So a program
//! writes `use weald::io` in place of `use std::io`. Sockets, files and pipes of weald implement std's [`Read`] and
//! [`Write`].
//!
//! | file          | holds                                         |
//! |---------------|-----------------------------------------------|
//! | `mod.rs`      | `copy`                                        |
//! | `both_ways.rs`| `copy_bidirectional`, `Duplex`                |
//! | `input.rs`    | `stdin`                                       |
//! | `output.rs`   | `stdout`, `stderr`                            |
//! | `gate.rs`     | the lock of the three                         |
//!
//! # Examples
//! ```
//! use weald::io::{self, Write};
//!
//! let mut out = io::stdout().lock();
//! writeln!(out, "one line, in one piece")?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod both_ways;
mod gate;
mod input;
mod output;

use std::os::fd::{BorrowedFd, RawFd};

pub use std::io::{
    BufRead, BufReader, BufWriter, Bytes, Chain, Cursor, Empty, Error, ErrorKind, IntoInnerError,
    IoSlice, IoSliceMut, IsTerminal, LineWriter, Lines, Read, Repeat, Result, Seek, SeekFrom, Sink,
    Split, Take, Write, empty, repeat, sink,
};

pub use self::both_ways::{Duplex, copy_bidirectional};
pub use self::input::{Stdin, StdinLock, stdin};
pub use self::output::{Stderr, StderrLock, Stdout, StdoutLock, stderr, stdout};

/// How many bytes are moved at once. That is few system calls for a fast connection and little memory for ten
/// thousand slow ones.
const PIECE: usize = 16 << 10;

/// Reads to the end and writes what was read. Returns the number of bytes; see [`std::io::copy`].
///
/// The buffer of 16 KiB is on the heap, as a green thread's stack may be small. It is a blocking call if the reads or
/// writes are.
///
/// # Errors
/// The first error of a read or a write. All bytes that were read before are written, except those that the failed
/// write was to write.
///
/// # Examples
/// ```
/// let mut from = &b"some bytes"[..];
/// let mut to = Vec::new();
/// assert_eq!(weald::io::copy(&mut from, &mut to)?, 10);
/// assert_eq!(to, b"some bytes");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> Result<u64>
where
    R: ?Sized + Read,
    W: ?Sized + Write,
{
    let mut buffer = vec![0; PIECE];
    let mut moved = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(moved),
            Ok(read) => {
                writer.write_all(&buffer[..read])?;
                moved += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns a standard descriptor, with a number from 0 to 2.
#[allow(unsafe_code, reason = "as std's")]
fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: a program keeps its standard descriptors open; std's handles rely on that too.
    unsafe { BorrowedFd::borrow_raw(number) }
}
