//! Standard output and standard error.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use weald_net::Fd;

use super::gate::{Gate, Pass};

/// Returns a handle to standard output. Its writes suspend the green thread while the reader is slow.
///
/// Unlike std's handle it has no buffer. Each write is a system call, nothing is left behind when the process ends,
/// and the text of a [`writeln!`] or [`write!`] is written in one piece. A program that writes much can put a
/// [`BufWriter`](io::BufWriter) or a [`LineWriter`](io::LineWriter) around the lock. `println!` uses std's handle and
/// its buffer. Neither handle cuts a line of at most 4096 bytes of the other one. An exception in the middle of a
/// longer line leaves its beginning written. Text that `print!` has begun without a line feed comes out later. A
/// closed standard output takes everything and drops it, as std's does.
///
/// # Examples
/// ```
/// use weald::io::{self, Write};
///
/// writeln!(io::stdout(), "in one piece: {}", 6 * 7)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stdout() -> Stdout {
    Stdout(())
}

/// Returns a handle to standard error. Its writes suspend the green thread while the reader is slow; see [`stdout`].
///
/// # Examples
/// ```
/// use weald::io::{self, Write};
///
/// writeln!(io::stderr(), "a warning")?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stderr() -> Stderr {
    Stderr(())
}

/// Where the bytes go.
struct Raw<T: AsFd>(Fd<T>);

impl<T: AsFd> Write for Raw<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.0.write(buffer) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(buffer.len()),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes the text in one piece: lines of other threads come before it or after it.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        match text.as_str() {
            Some(text) => self.write_all(text.as_bytes()),
            None => self.write_all(text.to_string().as_bytes()),
        }
    }
}

macro_rules! output {
    ($handle:ident, $lock:ident, $gate:ident, $std:path, $number:path, $what:literal) => {
        static $gate: OnceLock<Gate<Raw<io::$handle>>> = OnceLock::new();

        #[doc = concat!("The process's standard ", $what, ". All handles share one lock.")]
        ///
        /// # Examples
        /// See [`stdout`] and [`stderr`].
        #[derive(Debug)]
        pub struct $handle(());

        #[doc = concat!("The right to write to standard ", $what, ".")]
        ///
        /// # Examples
        /// See [`stdout`] and [`stderr`].
        pub struct $lock<'a>(Pass<'a, Raw<io::$handle>>);

        impl $handle {
            fn gate() -> &'static Gate<Raw<io::$handle>> {
                $gate.get_or_init(|| Gate::new(Raw(Fd::new($std()))))
            }

            /// Tells if it is a terminal. Other crates cannot implement std's `IsTerminal`.
            pub fn is_terminal(&self) -> bool {
                $std().is_terminal()
            }

            /// Waits until no other thread writes. A blocking call; an exception unwinds. Unlike std's lock it cannot
            /// be taken twice: a thread that holds the lock and writes by another handle waits for itself for ever.
            pub fn lock(&self) -> $lock<'static> {
                $lock(Self::gate().lock())
            }
        }

        impl Write for &$handle {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                $handle::gate().lock_io()?.write(buffer)
            }

            fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
                $handle::gate().lock_io()?.write_all(buffer)
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                // The text is formatted before the lock is taken, as the formatting may write to the same stream.
                if let Some(text) = text.as_str() {
                    return self.write_all(text.as_bytes());
                }
                let mut whole = String::new();
                fmt::write(&mut whole, text).map_err(io::Error::other)?;
                self.write_all(whole.as_bytes())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Write for $handle {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                (&*self).write(buffer)
            }

            fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
                (&*self).write_all(buffer)
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                (&*self).write_fmt(text)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Write for $lock<'_> {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.0.write(buffer)
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                self.0.write_fmt(text)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl fmt::Debug for $lock<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($lock)).finish_non_exhaustive()
            }
        }

        impl AsFd for $handle {
            fn as_fd(&self) -> BorrowedFd<'_> {
                super::standard($number)
            }
        }

        impl AsRawFd for $handle {
            fn as_raw_fd(&self) -> RawFd {
                $number
            }
        }
    };
}

output!(
    Stdout,
    StdoutLock,
    OUTPUT,
    io::stdout,
    libc::STDOUT_FILENO,
    "output"
);
output!(
    Stderr,
    StderrLock,
    ERRORS,
    io::stderr,
    libc::STDERR_FILENO,
    "error"
);
