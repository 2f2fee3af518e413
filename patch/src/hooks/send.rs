//! `send` and similar calls: send(2), sendmmsg(2).
//!
//! `MSG_DONTWAIT` makes one call not wait, whatever `O_NONBLOCK` says. So the flag of the open file, which every
//! duplicate sees, is never touched.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use crate::ask::{is_nonblocking, is_ready, is_stream};
use crate::hooks::run::{advance, cancelled, run};
use crate::hooks::socket::waits;
use crate::pauses::Ended;
use crate::raw::{self, error_of, sys};
use crate::slot::Direction;
use crate::wait::Wait;

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
        // A datagram goes whole. If the user wants no waiting, a part is an answer.
        if done >= len || sent == 0 || wait.is_nonblocking() {
            return done.cast_signed();
        }
    }
}

/// After a send with `MSG_FASTOPEN` that has begun to connect: waits for the connection, and tells if the send is to
/// be tried again.
fn connects(wait: &mut Wait, sent: isize, flags: &mut c_int) -> bool {
    let begun = *flags & libc::MSG_FASTOPEN != 0 && error_of(sent) == Some(libc::EINPROGRESS);
    if !begun || wait.is_nonblocking() {
        return false;
    }
    *flags &= !libc::MSG_FASTOPEN;
    while !is_ready(wait.fd(), libc::POLLOUT) {
        let deadline = wait.deadline();
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut | Ended::Failed(_) | Ended::Unpollable => break,
        }
    }
    // The send itself tells the result of the connection.
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
        // The control data have gone with the first part.
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
            // The call returns how many were sent; the error comes with the next call.
            Err(_) if index > 0 => return index.cast_signed(),
            Err(_) => return -1,
        }
    }
    count.cast_signed()
}
