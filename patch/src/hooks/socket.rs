//! `connect`, `accept`, `send`, `recv` and their kin.
//!
//! `MSG_DONTWAIT` makes one call not wait, whatever `O_NONBLOCK` says, so the flag of the open file,
//! which every duplicate sees, is never touched; but `connect` has no such argument and sets it for
//! the time of the call. send(2), recv(2), connect(2), accept(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libc::{
    c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::descriptor::{AGAIN, advance, failed, hand_over_for_long, is_nonblocking, run};
use crate::hooks::sleep::duration_of;
use crate::hooks::{on, poll};
use crate::raw::{self, error_of, sys};
use crate::slot::{SETTINGS, shut_down};
use crate::wait::{self, Direction, Ended, Pauses, Wait};

/// `SO_RCVTIMEO_NEW` and `SO_SNDTIMEO_NEW`: the same with a `timeval` of 64 bits.
const RCVTIMEO_NEW: c_int = 66;
const SNDTIMEO_NEW: c_int = 67;

/// Somebody in this process has set a low-water mark of reading, on whatever socket.
static HAS_LOW_WATER: AtomicBool = AtomicBool::new(false);

/// An `int` option of a socket.
pub(crate) fn option(fd: RawFd, name: c_int) -> Option<c_int> {
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
            // What has come before the error is returned, the error with the next call.
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::result(got),
        }
        if got == 0 || done >= least {
            return done.cast_signed();
        }
    }
}

/// How many bytes a call of a blocking stream waits for; 1 of all else.
fn least(fd: RawFd, len: size_t, flags: c_int) -> usize {
    let whole = flags & libc::MSG_WAITALL != 0;
    if !whole && !HAS_LOW_WATER.load(Ordering::Relaxed) {
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

/// Waits until so many bytes can be looked at at once. The kernel says "readable" from the first one, so
/// it is tried after pauses.
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
        let told = wait::told(fd, libc::POLLRDHUP);
        if told & (libc::POLLRDHUP | libc::POLLHUP) != 0 {
            // No more will come.
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
    // SAFETY: by contract; a header that is none is for the kernel to tell.
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
        // Not to be put together from parts with control data in between.
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
    let mut wait = Wait::new(fd, Direction::Write);
    let (mut done, mut flags) = (0, flags);
    loop {
        let sent = run(
            &mut wait,
            || call(done, flags | libc::MSG_DONTWAIT),
            || call(done, flags),
        );
        if connects(&mut wait, sent, &mut flags) {
            continue;
        }
        match usize::try_from(sent) {
            Ok(more) => done += more,
            Err(_) if done > 0 => return done.cast_signed(),
            Err(_) => return raw::result(sent),
        }
        // A datagram goes whole. Where the user wants no waiting a part is an answer.
        if done >= len || sent == 0 || wait.is_nonblocking() {
            return done.cast_signed();
        }
    }
}

/// After a send with `MSG_FASTOPEN` that has begun to connect: waits for the connection, and says that the
/// send is to be tried again.
fn connects(wait: &mut Wait, sent: isize, flags: &mut c_int) -> bool {
    let begun = *flags & libc::MSG_FASTOPEN != 0 && error_of(sent) == Some(libc::EINPROGRESS);
    if !begun || wait.is_nonblocking() {
        return false;
    }
    *flags &= !libc::MSG_FASTOPEN;
    while !poll::is_ready(wait.fd(), libc::POLLOUT) {
        let deadline = wait.deadline();
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut | Ended::Failed(_) | Ended::Unpollable => break,
        }
    }
    // The send says what has become of it.
    wait.progressed();
    true
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
    let mut wait = Wait::new(fd, Direction::Write);
    let mut flags = flags;
    let mut send = |msg: *const msghdr| {
        loop {
            let sent = run(
                &mut wait,
                || call(msg, flags | libc::MSG_DONTWAIT),
                || call(msg, flags),
            );
            if !connects(&mut wait, sent, &mut flags) {
                return sent;
            }
        }
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
    // The kernel looks at this limit after each message and at no other time: recvmmsg(2), "Bugs".
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
    let flags_are_bad = flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0;
    if !on(Kind::Sockets) || flags_are_bad {
        return raw::int(call());
    }
    let mut wait = Wait::new(fd, Direction::Read);
    if wait.is_nonblocking() {
        return raw::int(call());
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    let mut has_looked = false;
    loop {
        let looked = wait.attempt(|| isize::from(wait::told(fd, libc::POLLIN)));
        if looked < 0 {
            return raw::int(looked);
        }
        if looked != 0 {
            let Some(_turn) = wait::Turn::take(fd) else {
                patch::give_way();
                continue;
            };
            if poll::is_ready(fd, libc::POLLIN) {
                // If another process is quicker the call waits.
                let accepted = wait.unless_closed(call);
                patch::spend();
                return raw::int(accepted);
            }
        }
        if !std::mem::replace(&mut has_looked, true)
            && option(fd, libc::SO_ACCEPTCONN).is_none_or(|listens| listens == 0)
        {
            // An error, not a wait.
            return raw::int(call());
        }
        // It was asked before, and is asked again if what was known is doubted.
        if wait.is_nonblocking() {
            return raw::int(call());
        }
        let deadline = wait.deadline();
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut => return raw::int(AGAIN),
            Ended::Failed(errno) => return raw::int(failed(errno)),
            Ended::Unpollable => return raw::int(patch::blocking_until_others_act(call)),
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
    let start = || {
        set_nonblocking(fd, true);
        let started = call();
        set_nonblocking(fd, false);
        started
    };
    let mut wait = Wait::that_asks(fd, Direction::Write);
    let mut pauses = Pauses::default();
    loop {
        let started = start();
        match error_of(started) {
            // The limit may have ended an earlier call: connect(2), of SO_SNDTIMEO.
            Some(error @ (libc::EINPROGRESS | libc::EALREADY)) => {
                return raw::int(connected(&mut wait, error, call));
            }
            // A Unix socket's listener is full, and nothing tells when it has room.
            Some(libc::EAGAIN) => match pauses.wait(None, wait.deadline()) {
                Ended::TimedOut => return raw::int(started),
                Ended::Failed(errno) => return raw::int(failed(errno)),
                Ended::Woken | Ended::Plain | Ended::Unpollable => {}
            },
            _ => return raw::int(started),
        }
    }
}

/// Waits for a connection that is under way; `late` is the error when its limit passes. At its end `call`
/// connects once more: it says what has become of it, at once, and makes the socket know that it is
/// connected.
fn connected(wait: &mut Wait, late: c_int, call: impl FnOnce() -> isize) -> isize {
    let (fd, deadline) = (wait.fd(), wait.deadline());
    loop {
        let looked = wait.attempt(|| isize::from(wait::told(fd, libc::POLLOUT)));
        if looked < 0 {
            return looked;
        }
        if looked > 0 {
            break;
        }
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut => return failed(late),
            Ended::Failed(errno) => return failed(errno),
            Ended::Unpollable => break,
        }
    }
    call()
}

/// shutdown(2). The kernel wakes those who wait in it, and tells those who poll less: nothing of the writing side of
/// a Unix stream.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: no pointers.
    let result = raw::int(unsafe { sys!(SYS_shutdown, fd, how) });
    if result == 0 && patch::may_wake() {
        shut_down(fd);
    }
    result
}

/// setsockopt(2). This crate must know of the low-water mark, which a call that does not wait does not heed,
/// and of limits.
///
/// # Safety
/// As setsockopt(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: by contract.
    let result = raw::int(unsafe { sys!(SYS_setsockopt, fd, level, name, value, len) });
    if result == 0 && level == libc::SOL_SOCKET {
        match name {
            libc::SO_RCVLOWAT => HAS_LOW_WATER.store(true, Ordering::Relaxed),
            // What was there may have been no limit.
            libc::SO_RCVTIMEO | libc::SO_SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
                SETTINGS.changed();
            }
            _ => {}
        }
    }
    result
}
