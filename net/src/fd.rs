//! Any descriptor made green: pipes, eventfds, terminals and all else that epoll takes; and ordinary files, which
//! epoll does not take.
//!
//! `O_NONBLOCK` belongs to the open file, which the shell may share, so it stays as it is. For some kinds, pipes and
//! sockets for instance, Linux can be asked for a read or write that does not wait (`RWF_NOWAIT` of preadv2(2)). For
//! the others poll(2) is asked first. Another process may be quicker, so the call is made inside `blocking`. Such a
//! write goes in pieces that fit, as far as poll(2) tells.
#![allow(unsafe_code, reason = "preadv2, read and write of raw descriptors")]

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ask::{events, is_at_end, is_ready};
use crate::pauses;
use crate::source::{Direction, Got, Source, Waits};

/// This much fits into a pipe or a terminal that poll(2) calls writable: `PIPE_BUF` of Linux.
const PIECE: usize = 4096;

/// Any descriptor with green `readable`, `writable`, [`Read`] and [`Write`].
///
/// Any number of green threads may wait on one `Fd`, and several `Fd`s may borrow one descriptor. The descriptor's
/// `O_NONBLOCK` is neither needed nor changed. An ordinary file is always ready; its calls are made inside
/// [`blocking`](weald_scheduler::blocking()). Terminals and other kinds that have no call without waiting are called
/// inside `blocking` too, after poll(2) has called them ready. No exception ends such a call, nor does a kill or a
/// limit. If another process takes the line from the terminal first, the call waits for the next line, and the
/// exception is raised after that. Writing to a pipe that nobody reads raises `SIGPIPE`, unless the program ignores
/// it, as Rust programs do.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
///
/// let (reader, writer) = std::io::pipe()?;
/// let (mut reader, mut writer) = (weald::net::Fd::new(reader), weald::net::Fd::new(writer));
/// let sender = weald::spawn(move || writer.write_all(b"through a pipe"));
/// reader.readable()?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "through a pipe");
/// # sender.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Fd<T: AsFd> {
    /// `None` only while the `Fd` is being taken apart.
    inner: Option<T>,
    source: Source,
    /// epoll does not take the descriptor, so the `Fd` never waits.
    always_ready: AtomicBool,
    /// A duplicate that is registered in place of the descriptor, because somebody else has registered its number
    /// already.
    twin: OnceLock<OwnedFd>,
}

/// How a call learns when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadyBy {
    ByEvents,
    /// The descriptor is always ready.
    AtOnce,
    /// It asks after pauses: there is no descriptor left for a twin.
    ByAsking,
}

impl<T: AsFd> Fd<T> {
    /// Makes the descriptor green. It is registered at its first call.
    pub fn new(inner: T) -> Self {
        Self {
            inner: Some(inner),
            source: Source::new(),
            always_ready: AtomicBool::new(false),
            twin: OnceLock::new(),
        }
    }

    /// Returns the value that this was made of.
    #[allow(clippy::missing_panics_doc, reason = "it never does")]
    pub fn get_ref(&self) -> &T {
        self.inner
            .as_ref()
            .expect("it is there until it is taken apart")
    }

    /// Gives back the value that this was made of.
    #[allow(clippy::missing_panics_doc, reason = "it never does")]
    pub fn into_inner(mut self) -> T {
        self.deregister();
        self.inner.take().expect("it is taken apart once")
    }

    /// Waits until a read would find something: data, the end or an error.
    ///
    /// # Errors
    /// The system's; an exception that ends the wait.
    pub fn readable(&self) -> io::Result<()> {
        self.ready(Direction::Read)
    }

    /// Waits until a write would find room, or an error.
    ///
    /// # Errors
    /// The system's; an exception that ends the wait.
    pub fn writable(&self) -> io::Result<()> {
        self.ready(Direction::Write)
    }

    fn ready(&self, direction: Direction) -> io::Result<()> {
        weald_scheduler::io::enter()?;
        let fd = self.as_raw_fd();
        let is_ready = || is_ready(fd, events(direction));
        match self.prepare()? {
            ReadyBy::AtOnce => true,
            ReadyBy::ByAsking => pauses::wait_until(None, is_ready)?,
            ReadyBy::ByEvents => {
                self.source
                    .wait_until(self.registered(), direction, None, is_ready)?
            }
        };
        weald_scheduler::io::spend();
        Ok(())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    fn registered(&self) -> RawFd {
        self.twin
            .get()
            .map_or_else(|| self.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// Makes sure that events come, if the descriptor is of a kind that has events.
    pub(crate) fn register(&self) -> io::Result<()> {
        if self.always_ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.source.ensure_registered(self.registered()) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                self.always_ready.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let twin = self.get_ref().as_fd().try_clone_to_owned()?;
                // If another thread was first, its duplicate serves as well.
                let _ = self.twin.set(twin);
                self.source.ensure_registered(self.registered())
            }
            done => done,
        }
    }

    fn prepare(&self) -> io::Result<ReadyBy> {
        match self.register() {
            Ok(()) if self.always_ready.load(Ordering::Relaxed) => Ok(ReadyBy::AtOnce),
            Ok(()) => Ok(ReadyBy::ByEvents),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                Ok(ReadyBy::ByAsking)
            }
            Err(error) => Err(error),
        }
    }

    fn deregister(&self) {
        self.source.deregister(self.registered());
    }

    /// Makes one call, and tries it until it need not wait.
    fn run(
        &self,
        direction: Direction,
        mut call: impl FnMut(RawFd, How) -> io::Result<usize>,
    ) -> io::Result<usize> {
        weald_scheduler::io::enter()?;
        let fd = self.as_raw_fd();
        let ready_by = self.prepare()?;
        if ready_by == ReadyBy::AtOnce {
            return loop {
                match weald_scheduler::io::blocking(false, || call(fd, How::Waiting)) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => break done,
                }
            };
        }
        let call = RefCell::new(call);
        let make = |how| (*call.borrow_mut())(fd, how);
        let try_once = || match make(How::AtOnce) {
            Err(error) if is_unsupported(&error) => {
                if !is_ready(fd, events(direction))? {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                weald_scheduler::io::blocking(false, || make(How::Waiting))
            }
            done => done,
        };
        if ready_by == ReadyBy::ByAsking {
            return self
                .source
                .run_untold(None, direction, Waits::Forever, try_once);
        }
        // At its end a socket need not tell that to a read that does not wait, but to a read that may wait.
        let ended = || {
            (direction == Direction::Read && is_at_end(fd)).then(|| {
                match weald_scheduler::io::blocking(false, || make(How::Waiting)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                    done => done,
                }
            })
        };
        self.source.run_or_end(
            self.registered(),
            direction,
            Waits::Forever,
            || None,
            || try_once().map(Got::more),
            ended,
        )
    }

    pub(crate) fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run(Direction::Read, |fd, how| read(fd, buffer, how))
    }

    pub(crate) fn write_some(&self, buffer: &[u8]) -> io::Result<usize> {
        let is_file = || self.always_ready.load(Ordering::Relaxed);
        self.run(Direction::Write, |fd, how| match how {
            How::Waiting if !is_file() => write(fd, &buffer[..buffer.len().min(PIECE)], how),
            How::Waiting | How::AtOnce => write(fd, buffer, how),
        })
    }

    /// Writes what there is room for, without waiting, and raises nothing. Declines if the kernel has no such call.
    #[cfg(feature = "tls")]
    pub(crate) fn write_at_once(&self, buffer: &[u8]) -> io::Result<usize> {
        let declined = |_| io::ErrorKind::WouldBlock.into();
        write(self.as_raw_fd(), buffer, How::AtOnce).map_err(declined)
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The call must not wait.
    AtOnce,
    /// The call may wait.
    Waiting,
}

/// Tells if this kernel has no call without waiting, or none for this kind of descriptor.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

fn length(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn read(fd: RawFd, buffer: &mut [u8], how: How) -> io::Result<usize> {
    match how {
        How::Waiting => {
            // SAFETY: the buffer is ours for the call.
            length(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
        }
        How::AtOnce => at_once::read(fd, buffer),
    }
}

fn write(fd: RawFd, buffer: &[u8], how: How) -> io::Result<usize> {
    match how {
        How::Waiting => {
            // SAFETY: the buffer is only read.
            length(unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) })
        }
        How::AtOnce => at_once::write(fd, buffer),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod at_once {
    use std::io;
    use std::os::fd::RawFd;

    fn call(number: libc::c_long, fd: RawFd, slice: libc::iovec) -> io::Result<usize> {
        // The offset, in two halves, that means the position of the file.
        let here: libc::c_long = -1;
        let slice = &raw const slice;
        // SAFETY: there is one slice, which the callers vouch for.
        let result = unsafe { libc::syscall(number, fd, slice, 1, here, here, libc::RWF_NOWAIT) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    pub(super) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        let slice = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        call(libc::SYS_preadv2, fd, slice)
    }

    pub(super) fn write(fd: RawFd, buffer: &[u8]) -> io::Result<usize> {
        let slice = libc::iovec {
            iov_base: buffer.as_ptr().cast_mut().cast(),
            iov_len: buffer.len(),
        };
        call(libc::SYS_pwritev2, fd, slice)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod at_once {
    use std::io;
    use std::os::fd::RawFd;

    pub(super) fn read(_: RawFd, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn write(_: RawFd, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl<T: AsFd> Read for &Fd<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<T: AsFd> Write for &Fd<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_some(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: AsFd> Read for Fd<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<T: AsFd> Write for Fd<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_some(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T: AsFd> AsRawFd for Fd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Fd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fd").field(self.get_ref()).finish()
    }
}

impl<T: AsFd> Drop for Fd<T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.deregister();
        }
    }
}
