//! `recv` and similar calls: recv(2), recvmmsg(2).
//!
//! `MSG_DONTWAIT` makes one call not wait, whatever `O_NONBLOCK` says. So the flag of the open file, which every
//! duplicate sees, is never touched.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::time::Instant;

use libc::{
    c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};

use crate::ask::{self, is_nonblocking, is_stream, option};
use crate::hooks::limit::duration_of;
use crate::hooks::run::{AGAIN, advance, cancelled, failed, hand_over_for_long, run};
use crate::hooks::socket::{has_low_water, waits_to_receive};
use crate::pauses::{Ended, Pauses};
use crate::raw::{self, sys};
use crate::slot::Direction;
use crate::wait::Wait;

/// recvfrom(2).
///
/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    let call = |done: usize, flags: c_int| {
        // SAFETY: by contract, for the part of the buffer behind `done`.
        unsafe {
            sys!(
                SYS_recvfrom,
                fd,
                buf.cast::<u8>().wrapping_add(done),
                len - done,
                flags,
                addr,
                addr_len
            )
        }
    };
    if !waits_to_receive(flags) {
        return raw::result(call(0, flags));
    }
    if let Some(error) = cancelled() {
        return raw::result(error);
    }
    let least = least(fd, len, flags);
    if flags & libc::MSG_PEEK != 0 && least > 1 {
        return raw::result(peek(fd, len, least, |flags| call(0, flags), flags));
    }
    let mut wait = Wait::new(fd, Direction::Read);
    let mut done = 0;
    loop {
        let got = run(
            &mut wait,
            || call(done, flags | libc::MSG_DONTWAIT),
            || call(done, flags),
        );
        match usize::try_from(got) {
            Ok(more) => done += more,
            // The call returns the bytes that came before the error; the next call returns the error.
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::result(got),
        }
        if got == 0 || done >= least {
            return done.cast_signed();
        }
    }
}

/// Returns how many bytes a call of a blocking stream waits for; 1 for all else.
fn least(fd: RawFd, len: size_t, flags: c_int) -> usize {
    let whole = flags & libc::MSG_WAITALL != 0;
    if !whole && !has_low_water() {
        return 1;
    }
    if !is_stream(fd) || is_nonblocking(fd) {
        return 1;
    }
    if whole {
        return len;
    }
    let mark = option(fd, libc::SO_RCVLOWAT).and_then(|mark| usize::try_from(mark).ok());
    mark.unwrap_or(1).clamp(1, len.max(1))
}

/// Waits until that many bytes can be looked at at once. The kernel tells "readable" from the first byte on, so the
/// call is tried after pauses.
fn peek(
    fd: RawFd,
    len: size_t,
    least: usize,
    call: impl Fn(c_int) -> isize,
    flags: c_int,
) -> isize {
    let mut wait = Wait::that_asks(fd, Direction::Read);
    let mut pauses = Pauses::default();
    loop {
        let got = call(flags | libc::MSG_DONTWAIT);
        let enough = usize::try_from(got).is_ok_and(|got| got == 0 || got >= least.min(len));
        if enough || (got < 0 && got != AGAIN) {
            return got;
        }
        let events = ask::events_now(fd, libc::POLLRDHUP);
        if events & (libc::POLLRDHUP | libc::POLLHUP) != 0 {
            // No more bytes will come.
            return call(flags & !libc::MSG_WAITALL | libc::MSG_DONTWAIT);
        }
        match pauses.wait(None, wait.deadline()) {
            Ended::Failed(errno) if got < 0 => return failed(errno),
            Ended::TimedOut | Ended::Failed(_) => return got,
            Ended::Woken | Ended::Plain | Ended::Unpollable => {}
        }
    }
}

/// recv(2).
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recv(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: by contract.
    unsafe {
        recvfrom(
            fd,
            buf,
            len,
            flags,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}

/// recvmsg(2).
///
/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: by contract.
    let call = |flags: c_int| unsafe { sys!(SYS_recvmsg, fd, msg, flags) };
    if !waits_to_receive(flags) {
        return raw::result(call(flags));
    }
    if let Some(error) = cancelled() {
        return raw::result(error);
    }
    // SAFETY: by contract. If the header is not valid, the kernel tells.
    let Some(header) = (unsafe { msg.as_ref() }).copied() else {
        return raw::result(call(flags));
    };
    let parts = if header.msg_iov.is_null() {
        &[]
    } else {
        // SAFETY: by contract.
        unsafe { std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen) }
    };
    let all: usize = parts.iter().map(|part| part.iov_len).sum();
    let least = least(fd, all, flags);
    if flags & libc::MSG_PEEK != 0 && least > 1 {
        return raw::result(peek(fd, all, least, call, flags));
    }
    if least > 1 && !header.msg_control.is_null() {
        // Parts with control data in between cannot be put together.
        return raw::result(hand_over_for_long(|| call(flags)));
    }
    let mut wait = Wait::new(fd, Direction::Read);
    // A call that fails with EAGAIN leaves the header alone.
    let first = run(
        &mut wait,
        || call(flags | libc::MSG_DONTWAIT),
        || call(flags),
    );
    let Ok(mut done) = usize::try_from(first) else {
        return raw::result(first);
    };
    while done > 0 && done < least {
        let mut rest = advance(parts, done);
        let mut header = header;
        header.msg_name = std::ptr::null_mut();
        header.msg_namelen = 0;
        header.msg_iov = rest.as_mut_ptr();
        header.msg_iovlen = rest.len();
        let header = &raw mut header;
        // SAFETY: a copy of the caller's header with less of its vector.
        let call = |flags: c_int| unsafe { sys!(SYS_recvmsg, fd, header, flags) };
        let next = run(
            &mut wait,
            || call(flags | libc::MSG_DONTWAIT),
            || call(flags),
        );
        match usize::try_from(next) {
            Ok(more) if more > 0 => done += more,
            _ => break,
        }
    }
    done.cast_signed()
}

/// recvmmsg(2).
///
/// # Safety
/// As recvmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    limit: *mut timespec,
) -> c_int {
    let call = |done: c_uint, flags: c_int, limit: *mut timespec| {
        // SAFETY: by contract, for the headers behind `done`.
        unsafe {
            sys!(
                SYS_recvmmsg,
                fd,
                messages.wrapping_add(done as usize),
                count - done,
                flags,
                limit
            )
        }
    };
    if !waits_to_receive(flags) {
        return raw::int(call(0, flags, limit));
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    // The kernel looks at this limit only after each message: recvmmsg(2), "Bugs".
    // SAFETY: by contract it is null or valid.
    let until = match unsafe { limit.as_ref() }.map(|limit| duration_of(*limit)) {
        Some(None) => return raw::int(call(0, flags, limit)),
        Some(Some(limit)) => Instant::now().checked_add(limit),
        None => None,
    };
    let none = std::ptr::null_mut();
    let mut wait = Wait::new(fd, Direction::Read);
    let mut done = 0;
    loop {
        let got = run(
            &mut wait,
            || call(done, flags | libc::MSG_DONTWAIT, none),
            || call(done, flags, none),
        );
        match c_uint::try_from(got) {
            Ok(more) => done += more,
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::int(got),
        }
        let over = until.is_some_and(|until| Instant::now() >= until);
        if got == 0 || done >= count || over || flags & libc::MSG_WAITFORONE != 0 {
            return done.cast_signed();
        }
    }
}
