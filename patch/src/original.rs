//! The real calls, whatever is patched: they block the OS thread.
//!
//! Their errors are in `errno`, as libc's.
#![allow(unsafe_code, reason = "system calls")]

use libc::{c_int, c_void, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timespec};

use crate::raw::{self, sys};

/// libc's own definition of a function that this crate defines too.
///
/// # Safety
/// `F` is a function pointer of the type that the name has in libc.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub(crate) unsafe fn next<F: Copy>(name: &std::ffi::CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a name that ends by zero; the call has no other conditions.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // SAFETY: the address of a function of that type, by contract.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

/// read(2).
///
/// # Safety
/// As read(2).
pub unsafe fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    // SAFETY: by contract.
    raw::result(unsafe { sys!(SYS_read, fd, buf, count) })
}

/// write(2).
///
/// # Safety
/// As write(2).
pub unsafe fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: by contract.
    raw::result(unsafe { sys!(SYS_write, fd, buf, count) })
}

/// connect(2).
///
/// # Safety
/// As connect(2).
pub unsafe fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: by contract.
    raw::int(unsafe { sys!(SYS_connect, fd, addr, len) })
}

/// accept4(2).
///
/// # Safety
/// As accept4(2).
pub unsafe fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: by contract.
    raw::int(unsafe { sys!(SYS_accept4, fd, addr, len, flags) })
}

/// recv(2).
///
/// # Safety
/// As recv(2).
pub unsafe fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: by contract.
    raw::result(unsafe { sys!(SYS_recvfrom, fd, buf, len, flags, 0, 0) })
}

/// send(2).
///
/// # Safety
/// As send(2).
pub unsafe fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: by contract.
    raw::result(unsafe { sys!(SYS_sendto, fd, buf, len, flags, 0, 0) })
}

/// ppoll(2) without a signal mask; the kernel writes what is left of the limit.
///
/// # Safety
/// As ppoll(2).
pub unsafe fn poll(fds: *mut pollfd, count: nfds_t, limit: *mut timespec) -> c_int {
    // SAFETY: by contract.
    raw::int(unsafe { sys!(SYS_ppoll, fds, count, limit, 0, 8) })
}

/// nanosleep(2).
///
/// # Safety
/// As nanosleep(2).
pub unsafe fn nanosleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: by contract.
    raw::int(unsafe { sys!(SYS_nanosleep, wish, rest) })
}
