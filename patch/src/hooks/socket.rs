//! `connect`, `accept`, `send`, `recv` and their kin.
//!
//! `MSG_DONTWAIT` makes one call not wait, whatever `O_NONBLOCK` says, so the flag of the open file,
//! which every duplicate sees, is never touched; but `connect` has no such argument and sets it for
//! the time of the call. send(2), recv(2), connect(2), accept(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::time::Instant;

use libc::{
    c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::descriptor::{Limit, advance, failed, is_nonblocking, run, socket_deadline};
use crate::hooks::{on, poll};
use crate::raw::{self, error_of, sys};
use crate::wait::{self, Direction, Ended};

/// An `int` option of a socket.
fn option(fd: RawFd, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>();
    // SAFETY: the pointers are to locals of the sizes that they say.
    let result = unsafe {
        sys!(
            SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            name,
            &raw mut value,
            &raw mut length
        )
    };
    (result == 0).then_some(value)
}

pub(crate) fn is_socket(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE).is_some()
}

/// A stream's calls may take or give a part.
fn is_stream(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// The error of a call that an exception ends before it began.
fn cancelled() -> Option<isize> {
    patch::pending().map(|pending| failed(wait::errno_of(pending)))
}

/// The call is one that may wait, by a caller who is patched.
fn waits(flags: c_int) -> bool {
    on(Kind::Sockets) && flags & libc::MSG_DONTWAIT == 0
}

/// As `waits`, for one that receives: urgent data and the queue of errors are never waited for.
fn waits_to_receive(flags: c_int) -> bool {
    waits(flags) && flags & (libc::MSG_ERRQUEUE | libc::MSG_OOB) == 0
}

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
    let whole = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 && is_stream(fd);
    let limit = Limit::default();
    let mut done = 0;
    loop {
        let got = run(
            fd,
            Direction::Read,
            &limit,
            || call(done, flags | libc::MSG_DONTWAIT),
            || call(done, flags),
        );
        match usize::try_from(got) {
            Ok(more) => done += more,
            // What has come before the error is returned, the error with the next call.
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::result(got),
        }
        if !whole || got == 0 || done == len {
            return done.cast_signed();
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
    if flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 && is_stream(fd) {
        // Rare, and not to be put together from parts with control data in between.
        return raw::result(patch::blocking_quietly(|| call(flags)));
    }
    // A call that fails with EAGAIN leaves the header alone.
    raw::result(run(
        fd,
        Direction::Read,
        &Limit::default(),
        || call(flags | libc::MSG_DONTWAIT),
        || call(flags),
    ))
}

/// sendto(2): blocks until a stream has taken all.
///
/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    let call = |done: usize, flags: c_int| {
        // SAFETY: by contract, for the part of the buffer behind `done`.
        unsafe {
            sys!(
                SYS_sendto,
                fd,
                buf.cast::<u8>().wrapping_add(done),
                len - done,
                flags,
                addr,
                addr_len
            )
        }
    };
    if !waits(flags) {
        return raw::result(call(0, flags));
    }
    if let Some(error) = cancelled() {
        return raw::result(error);
    }
    let limit = Limit::default();
    let mut done = 0;
    loop {
        let sent = run(
            fd,
            Direction::Write,
            &limit,
            || call(done, flags | libc::MSG_DONTWAIT),
            || call(done, flags),
        );
        match usize::try_from(sent) {
            Ok(more) => done += more,
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::result(sent),
        }
        // A datagram goes whole. Where the user wants no waiting a part is an answer.
        if done >= len || sent == 0 || is_nonblocking(fd) {
            return done.cast_signed();
        }
    }
}

/// send(2).
///
/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn send(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: by contract.
    unsafe { sendto(fd, buf, len, flags, std::ptr::null(), 0) }
}

/// sendmsg(2): blocks until a stream has taken all.
///
/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    let call = |msg: *const msghdr, flags: c_int| {
        // SAFETY: by contract, or a copy of the caller's header with less of its vector.
        unsafe { sys!(SYS_sendmsg, fd, msg, flags) }
    };
    if !waits(flags) {
        return raw::result(call(msg, flags));
    }
    if let Some(error) = cancelled() {
        return raw::result(error);
    }
    let limit = Limit::default();
    let send = |msg: *const msghdr| {
        run(
            fd,
            Direction::Write,
            &limit,
            || call(msg, flags | libc::MSG_DONTWAIT),
            || call(msg, flags),
        )
    };
    let first = send(msg);
    let Ok(mut done) = usize::try_from(first) else {
        return raw::result(first);
    };
    // SAFETY: the kernel has accepted the header and its vector.
    let (header, parts) = unsafe {
        let parts = if (*msg).msg_iov.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts((*msg).msg_iov, (*msg).msg_iovlen)
        };
        (*msg, parts)
    };
    let all: usize = parts.iter().map(|part| part.iov_len).sum();
    while done < all && is_stream(fd) && !is_nonblocking(fd) {
        let mut rest = advance(parts, done);
        let mut header = header;
        header.msg_iov = rest.as_mut_ptr();
        header.msg_iovlen = rest.len();
        // It has gone with the first part.
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        let next = send(&raw const header);
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
    if !limit.is_null() {
        return raw::int(patch::blocking_quietly(|| call(0, flags, limit)));
    }
    let none = std::ptr::null_mut();
    let limit = Limit::default();
    let mut done = 0;
    loop {
        let got = run(
            fd,
            Direction::Read,
            &limit,
            || call(done, flags | libc::MSG_DONTWAIT, none),
            || call(done, flags, none),
        );
        match c_uint::try_from(got) {
            Ok(more) => done += more,
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::int(got),
        }
        if got == 0 || done >= count || flags & libc::MSG_WAITFORONE != 0 {
            return done.cast_signed();
        }
    }
}

/// sendmmsg(2).
///
/// # Safety
/// As sendmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if !waits(flags) {
        // SAFETY: by contract.
        return raw::int(unsafe { sys!(SYS_sendmmsg, fd, messages, count, flags) });
    }
    for index in 0..count {
        let message = messages.wrapping_add(index as usize);
        // SAFETY: by contract: there are `count` of them.
        let sent = unsafe { sendmsg(fd, &raw const (*message).msg_hdr, flags) };
        match c_uint::try_from(sent) {
            // SAFETY: as above.
            Ok(length) => unsafe { (*message).msg_len = length },
            // What was sent is told; the error comes back with the next call.
            Err(_) if index > 0 => return index.cast_signed(),
            Err(_) => return -1,
        }
    }
    count.cast_signed()
}

/// accept4(2).
///
/// Of green threads one at a time looks and calls. Another thread or process may still be quicker
/// between the two; then this one's OS thread waits, and its worker goes on elsewhere.
///
/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_accept4, fd, addr, addr_len, flags) };
    if !on(Kind::Sockets) || is_nonblocking(fd) {
        return raw::int(call());
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    let limit = Limit::default();
    loop {
        if let Some(_turn) = wait::Turn::take(fd) {
            if poll::is_ready(fd, libc::POLLIN) {
                let accepted = call();
                patch::spend();
                return raw::int(accepted);
            }
        } else if poll::is_ready(fd, libc::POLLIN) {
            patch::give_way();
            continue;
        }
        match wait::wait(fd, Direction::Read, limit.of(fd, Direction::Read)) {
            Ended::Woken => {}
            Ended::TimedOut => return raw::int(failed(libc::EAGAIN)),
            Ended::Cancelled(errno) => return raw::int(failed(errno)),
            Ended::Unpollable => return raw::int(patch::blocking_quietly(call)),
        }
    }
}

/// accept(2).
///
/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept(
    fd: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> c_int {
    // SAFETY: by contract.
    unsafe { accept4(fd, addr, addr_len, 0) }
}

/// Sets or clears `O_NONBLOCK`. A socket that is being connected is its caller's alone.
fn set_nonblocking(fd: RawFd, on: bool) {
    // SAFETY: no pointers.
    unsafe {
        let flags = sys!(SYS_fcntl, fd, libc::F_GETFL);
        if error_of(flags).is_none() {
            let bit = libc::O_NONBLOCK as isize;
            let flags = if on { flags | bit } else { flags & !bit };
            sys!(SYS_fcntl, fd, libc::F_SETFL, flags);
        }
    }
}

/// connect(2).
///
/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_connect, fd, addr, len) };
    if !on(Kind::Sockets) || is_nonblocking(fd) {
        return raw::int(call());
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    set_nonblocking(fd, true);
    let started = call();
    set_nonblocking(fd, false);
    match error_of(started) {
        Some(libc::EINPROGRESS) => {
            let deadline = socket_deadline(fd, Direction::Write);
            raw::int(connected(fd, deadline))
        }
        // A Unix socket's listener is full: there is nothing to wait for.
        Some(libc::EAGAIN) => raw::int(patch::blocking_quietly(call)),
        _ => raw::int(started),
    }
}

/// Waits for a connection that is under way.
fn connected(fd: RawFd, deadline: Option<Instant>) -> isize {
    while !poll::is_ready(fd, libc::POLLOUT) {
        match wait::wait(fd, Direction::Write, deadline) {
            Ended::Woken => {}
            // As connect(2) says of SO_SNDTIMEO.
            Ended::TimedOut => return failed(libc::EINPROGRESS),
            Ended::Cancelled(errno) => return failed(errno),
            Ended::Unpollable => break,
        }
    }
    match option(fd, libc::SO_ERROR) {
        Some(error) => failed(error),
        None => failed(libc::ENOTSOCK),
    }
}
