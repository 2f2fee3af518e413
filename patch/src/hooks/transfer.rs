//! Calls that move data inside the kernel: sendfile(2), splice(2), tee(2), vmsplice(2), copy_file_range(2).
//!
//! `splice`, `tee` and `vmsplice` can be told not to wait for a pipe, but not for the other end. So the hook waits
//! for both ends, and a socket is given no more than it has room for. If another thread is quicker, the OS thread
//! waits, and the worker continues on another one. `sendfile` and `copy_file_range` also read a file, so they wait
//! for its disk.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;

use libc::{c_int, c_uint, iovec, off_t, size_t, ssize_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::ask::{self, is_nonblocking, option};
use crate::hooks::on;
use crate::hooks::run::{AGAIN, failed, hand_over, hand_over_what_is_ready};
use crate::pauses::{Ended, Pauses, errno_of};
use crate::raw::{self, sys};
use crate::slot::Direction;
use crate::wait::Wait;

/// The ends of a call: where the data comes from and where it goes to.
struct Ends {
    from: Option<Wait>,
    to: Option<Wait>,
    /// The descriptors that the call reads and writes, also if it does not wait for them.
    reads: RawFd,
    writes: RawFd,
    /// The call must read a file or write to a pipe; otherwise it is an error.
    reads_file: bool,
    /// The call was checked and is not an error.
    is_checked: bool,
}

/// Why the waiting has ended.
enum Over {
    /// The error of the call. A call that does not block has the same error.
    Failed(isize),
    /// The plain call fails at once.
    IsError,
}

impl Ends {
    fn new(from: Option<RawFd>, to: Option<RawFd>, reads: RawFd, writes: RawFd) -> Self {
        Self {
            from: from.map(|fd| Wait::new(fd, Direction::Read)),
            to: to.map(|fd| Wait::new(fd, Direction::Write)),
            reads,
            writes,
            reads_file: false,
            is_checked: false,
        }
    }

    /// Waits until both ends are ready.
    fn wait(&mut self) -> Result<(), Over> {
        let failed = |errno| Over::Failed(failed(errno));
        if let Some(pending) = patch::pending() {
            return Err(failed(errno_of(pending)));
        }
        let (source, target, must_be_file) = (self.reads, self.writes, self.reads_file);
        let is_error = || {
            is_error(source, target) || (must_be_file && !is_pipe(target) && !has_places(source))
        };
        loop {
            let mut waited = false;
            for at in [Direction::Read, Direction::Write] {
                let (end, other) = match at {
                    Direction::Read => (&mut self.from, &mut self.to),
                    Direction::Write => (&mut self.to, &mut self.from),
                };
                let Some(end) = end else { continue };
                let events = match end.direction() {
                    Direction::Read => libc::POLLIN,
                    Direction::Write => libc::POLLOUT,
                };
                let fd = end.fd();
                let mut woken = false;
                loop {
                    let ready = end.attempt(|| isize::from(ask::events_now(fd, events)));
                    if ready < 0 {
                        return Err(Over::Failed(ready));
                    }
                    if ready != 0 || end.is_nonblocking() {
                        break;
                    }
                    // The call fails at once, though poll(2) never tells.
                    if woken && at == Direction::Write && is_shut_down(fd) {
                        return Ok(());
                    }
                    if !std::mem::replace(&mut self.is_checked, true) && is_error() {
                        return Err(Over::IsError);
                    }
                    waited = true;
                    if let Some(other) = other {
                        other.pass_on();
                    }
                    let deadline = end.deadline();
                    match end.wait(deadline) {
                        Ended::Woken => woken = true,
                        Ended::Plain | Ended::Unpollable => break,
                        Ended::TimedOut => return Err(Over::Failed(AGAIN)),
                        Ended::Failed(errno) => return Err(failed(errno)),
                    }
                }
            }
            // The first end may have changed while the second one was waited for.
            if !waited {
                return Ok(());
            }
        }
    }
}

impl Ends {
    /// Makes the call as [`Wait::unless_closed`] does, for both ends.
    fn unless_closed(&self, call: impl FnOnce() -> isize) -> isize {
        let to_the_other = || match &self.to {
            Some(end) => end.unless_closed(call),
            None => call(),
        };
        match &self.from {
            Some(end) => end.unless_closed(to_the_other),
            None => to_the_other(),
        }
    }
}

/// Makes a call when both ends are ready. If it would wait for a pipe, it says `EAGAIN`.
fn both(mut ends: Ends, mut call: impl FnMut() -> isize) -> isize {
    let mut pauses = Pauses::default();
    loop {
        match ends.wait() {
            Ok(()) => {}
            Err(Over::Failed(error)) => return error,
            Err(Over::IsError) => return call(),
        }
        let result = hand_over_what_is_ready(|| ends.unless_closed(&mut call));
        let mut all = [&mut ends.from, &mut ends.to];
        let mut all = all.iter_mut().filter_map(|end| end.as_mut());
        if result != AGAIN || all.any(Wait::is_nonblocking) {
            patch::spend();
            return result;
        }
        // Both ends are ready and the call would still wait: the free room of the pipe is in pieces.
        if let Ended::Failed(errno) = pauses.wait(None, None) {
            return failed(errno);
        }
    }
}

/// Tells if the kernel refuses the call before it would wait: reading what is for writing, writing what is for
/// reading, and moving data from a pipe into itself.
fn is_error(reads: RawFd, writes: RawFd) -> bool {
    let is_only = |fd: RawFd, access: c_int| {
        // SAFETY: no pointers.
        let flags = unsafe { sys!(SYS_fcntl, fd, libc::F_GETFL) };
        flags >= 0 && flags & libc::O_ACCMODE as isize == access as isize
    };
    is_only(reads, libc::O_WRONLY)
        || is_only(writes, libc::O_RDONLY)
        || (reads != writes && is_pipe(reads) && is_pipe(writes) && is_same(reads, writes))
}

/// Tells if both numbers are ends of one pipe, or the same file.
fn is_same(one: RawFd, other: RawFd) -> bool {
    let place = |fd: RawFd| {
        let status = status(fd)?;
        Some((status.st_dev, status.st_ino))
    };
    place(one).is_some_and(|place_of_one| place(other) == Some(place_of_one))
}

/// Tells if the descriptor can be read at an offset: a file or /dev/zero can, a socket or a pipe cannot.
fn has_places(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    unsafe { sys!(SYS_lseek, fd, 0, libc::SEEK_CUR) >= 0 }
}

fn status(fd: RawFd) -> Option<libc::stat> {
    // SAFETY: all zeros is a valid record.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a local.
    let answer = unsafe { sys!(SYS_fstat, fd, &raw mut status) };
    (answer == 0).then_some(status)
}

/// The flags of the splice(2) family that the kernel knows.
const FLAGS: c_uint =
    libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MORE | libc::SPLICE_F_GIFT;

/// Tells if a call with these flags may wait.
fn may_wait(flags: c_uint) -> bool {
    on(Kind::Sockets) && flags & libc::SPLICE_F_NONBLOCK == 0 && flags & !FLAGS == 0
}

fn is_pipe(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    unsafe { sys!(SYS_fcntl, fd, libc::F_GETPIPE_SZ) >= 0 }
}

/// Returns how much a socket that poll(2) calls writable takes without waiting: it has room for a third of its
/// buffer, and the kernel uses a part of that. `None`: it is not a socket.
fn room(fd: RawFd) -> Option<usize> {
    let buffer = option(fd, libc::SO_SNDBUF)?;
    Some(usize::try_from(buffer / 8).unwrap_or(0).max(4096))
}

/// Tells if this is a Unix stream whose own writing side was shut down. If the stream is full, poll(2) does not tell.
fn is_shut_down(fd: RawFd) -> bool {
    let is = |name, value| option(fd, name) == Some(value);
    if !is(libc::SO_DOMAIN, libc::AF_UNIX) || !is(libc::SO_TYPE, libc::SOCK_STREAM) {
        return false;
    }
    let (nothing, flags) = ([0_u8; 0], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: no bytes are read. A stream takes nothing, and has no address.
    let sent = unsafe {
        sys!(
            SYS_sendto,
            fd,
            nothing.as_ptr(),
            0_usize,
            flags,
            0_usize,
            0_usize
        )
    };
    sent == -(libc::EPIPE as isize)
}

/// splice(2).
///
/// # Safety
/// As splice(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn splice(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    let call = |count: size_t, flags: c_uint| {
        // SAFETY: by contract, or for fewer bytes.
        unsafe { sys!(SYS_splice, from, from_at, to, to_at, count, flags) }
    };
    let waits = may_wait(flags) && count > 0;
    // Without a pipe the call is an error and does not wait.
    if !waits || !(is_pipe(from) || is_pipe(to)) {
        return raw::result(call(count, flags));
    }
    // A descriptor with an offset is a file.
    let ends = Ends::new(
        from_at.is_null().then_some(from),
        to_at.is_null().then_some(to),
        from,
        to,
    );
    let count = count.min(room(to).unwrap_or(count));
    raw::result(both(ends, || call(count, flags | libc::SPLICE_F_NONBLOCK)))
}

/// tee(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn tee(from: c_int, to: c_int, count: size_t, flags: c_uint) -> ssize_t {
    // SAFETY: no pointers.
    let call = |flags: c_uint| unsafe { sys!(SYS_tee, from, to, count, flags) };
    let waits = may_wait(flags) && count > 0;
    if !(waits && is_pipe(from) && is_pipe(to)) {
        return raw::result(call(flags));
    }
    let ends = Ends::new(Some(from), Some(to), from, to);
    raw::result(both(ends, || call(flags | libc::SPLICE_F_NONBLOCK)))
}

/// vmsplice(2).
///
/// # Safety
/// As vmsplice(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vmsplice(
    fd: c_int,
    iov: *const iovec,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: by contract.
    let call = |flags: c_uint| unsafe { sys!(SYS_vmsplice, fd, iov, count, flags) };
    let waits = may_wait(flags) && count > 0;
    if !waits || !is_pipe(fd) {
        return raw::result(call(flags));
    }
    // SAFETY: no pointers.
    let access = unsafe { sys!(SYS_fcntl, fd, libc::F_GETFL) } & libc::O_ACCMODE as isize;
    let mut ends = if access == libc::O_RDONLY as isize {
        Ends::new(Some(fd), None, fd, fd)
    } else {
        Ends::new(None, Some(fd), fd, fd)
    };
    // The direction is the one that the end is open for.
    ends.is_checked = true;
    raw::result(both(ends, || call(flags | libc::SPLICE_F_NONBLOCK)))
}

/// sendfile(2). It has no flag against waiting, so to a socket it sends parts that fit.
///
/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: by contract.
    let call = |count: size_t| unsafe { sys!(SYS_sendfile, to, from, offset, count) };
    if !on(Kind::Sockets) || count == 0 || is_nonblocking(to) {
        return raw::result(call(count));
    }
    let mut ends = Ends::new(None, Some(to), from, to);
    ends.reads_file = true;
    let Some(room) = room(to) else {
        // A pipe takes what it has room for; a file takes all.
        return raw::result(match ends.wait() {
            Ok(()) => hand_over_what_is_ready(|| ends.unless_closed(|| call(count))),
            Err(Over::Failed(error)) => error,
            Err(Over::IsError) => call(count),
        });
    };
    let mut done = 0;
    while done < count {
        match ends.wait() {
            Ok(()) => {}
            Err(Over::IsError) => return raw::result(call(count)),
            Err(Over::Failed(_)) if done > 0 => return done.cast_signed(),
            Err(Over::Failed(error)) => return raw::result(error),
        }
        let part = (count - done).min(room);
        let sent = hand_over_what_is_ready(|| ends.unless_closed(|| call(part)));
        if let Some(end) = &mut ends.to {
            end.progressed();
        }
        match usize::try_from(sent) {
            Ok(0) => break,
            Ok(sent) => done += sent,
            Err(_) if done > 0 => break,
            Err(_) => return raw::result(sent),
        }
        ends.is_checked = true;
        patch::spend();
    }
    done.cast_signed()
}

/// sendfile(2).
///
/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile64(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: by contract.
    unsafe { sendfile(to, from, offset, count) }
}

/// copy_file_range(2). It copies between files, so it only waits for disks.
///
/// # Safety
/// As copy_file_range(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_copy_file_range, from, from_at, to, to_at, count, flags) };
    raw::result(hand_over(call))
}
