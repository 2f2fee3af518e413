//! Standard input.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Lines, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use weald_net::Fd;

use super::gate::{Gate, Pass};

/// The process's standard input; from [`stdin`]. Its lock and its buffer are shared by all handles.
///
/// # Examples
/// See [`stdin`].
#[derive(Debug)]
pub struct Stdin(());

/// The right to read from standard input; from [`Stdin::lock`].
///
/// # Examples
/// ```no_run
/// use weald::io::{self, BufRead};
///
/// for line in io::stdin().lock().lines() {
///     println!("{}", line?.to_uppercase());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct StdinLock<'a>(Pass<'a, BufReader<Raw>>);

/// Where the buffer gets its bytes.
struct Raw(Fd<io::Stdin>);

static INPUT: OnceLock<Gate<BufReader<Raw>>> = OnceLock::new();

/// Returns a handle to standard input. Its reads suspend the green thread.
///
/// It has a buffer of its own, apart from that of [`std::io::stdin`], so a program uses only one of the two. On a
/// pipe, a socket and an ordinary file an exception (a limit, a `kill`) ends a read. On a terminal it does so as long
/// as no line is there. A closed standard input reads as an empty one.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
///
/// let mut line = String::new();
/// let answer = weald::timeout(Duration::from_secs(10), || weald::io::stdin().read_line(&mut line));
/// match answer {
///     Ok(read) => println!("{} bytes: {line}", read?),
///     Err(_) => println!("nobody is there"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stdin() -> Stdin {
    Stdin(())
}

fn input() -> &'static Gate<BufReader<Raw>> {
    INPUT.get_or_init(|| Gate::new(BufReader::new(Raw(Fd::new(io::stdin())))))
}

fn lock_io() -> io::Result<StdinLock<'static>> {
    input().lock_io().map(StdinLock)
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(0),
            done => done,
        }
    }
}

impl Stdin {
    /// Tells if it is a terminal. Other crates cannot implement std's `IsTerminal`.
    pub fn is_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    /// Waits until no other thread reads. A blocking call; an exception unwinds.
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock(input().lock())
    }

    /// Reads a line and appends it to `buffer` with its line feed. Returns the number of bytes; 0 at the end of the
    /// input.
    ///
    /// # Errors
    /// The system's; `InvalidData` for text that is not UTF-8; an exception. After an error `buffer` holds the part
    /// of the line that was read, and the next call appends the rest. That part is lost if the line was cut inside a
    /// character, or if the exception unwinds.
    pub fn read_line(&self, buffer: &mut String) -> io::Result<usize> {
        lock_io()?.read_line(buffer)
    }

    /// Returns the lines that follow, without their line feeds. The iterator holds the lock. An exception in the
    /// middle of a line loses the line's beginning.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }
}

impl Read for &Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        lock_io()?.read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        lock_io()?.read_to_end(buffer)
    }

    fn read_to_string(&mut self, buffer: &mut String) -> io::Result<usize> {
        lock_io()?.read_to_string(buffer)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        lock_io()?.read_exact(buffer)
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buffer)
    }

    fn read_to_string(&mut self, buffer: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buffer)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        (&*self).read_exact(buffer)
    }
}

impl Read for StdinLock<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl fmt::Debug for StdinLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinLock").finish_non_exhaustive()
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        super::standard(libc::STDIN_FILENO)
    }
}

impl AsRawFd for Stdin {
    fn as_raw_fd(&self) -> RawFd {
        libc::STDIN_FILENO
    }
}
