//! Other names of the same calls in glibc: those for C code that is compiled with `_FORTIFY_SOURCE`, which get the
//! size of the buffer, and the old ones with two underscores.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use libc::{
    c_char, c_int, c_ulong, c_void, fd_set, mode_t, nfds_t, off_t, pollfd, sigset_t, size_t,
    sockaddr, socklen_t, ssize_t, timespec, timeval,
};

use super::{close, connect, descriptor, lock, open, poll, receive, select, send, sleep};

/// Ends the process, as libc does, if a call may write beyond its buffer.
fn check(count: impl TryInto<size_t>, room: size_t) {
    unsafe extern "C" {
        safe fn __chk_fail() -> !;
    }
    if !count.try_into().is_ok_and(|count| count <= room) {
        __chk_fail()
    }
}

macro_rules! checked {
    ($($name:ident = $module:ident::$original:ident(
        $($arg:ident: $type:ty),* ; $count:ident <= $room:ident / $size:expr) -> $result:ty;)*) => {$(
        /// The function without `_chk`.
        ///
        /// # Safety
        /// Those of the function without `_chk`.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*, $room: size_t) -> $result {
            check($count, $room / $size);
            // SAFETY: by contract.
            unsafe { $module::$original($($arg),*) }
        }
    )*};
}

checked! {
    __ppoll_chk = poll::ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec,
        mask: *const sigset_t; count <= room / size_of::<pollfd>()) -> c_int;
    __poll_chk = poll::poll(fds: *mut pollfd, count: nfds_t, limit: c_int;
        count <= room / size_of::<pollfd>()) -> c_int;
    __read_chk = descriptor::read(fd: c_int, buf: *mut c_void, count: size_t;
        count <= room / 1) -> ssize_t;
    __pread_chk = descriptor::pread(fd: c_int, buf: *mut c_void, count: size_t, offset: off_t;
        count <= room / 1) -> ssize_t;
    __pread64_chk = descriptor::pread64(fd: c_int, buf: *mut c_void, count: size_t, offset: off_t;
        count <= room / 1) -> ssize_t;
}

/// `recv`; the room is not the last argument.
///
/// # Safety
/// Those of recv(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    check(count, room);
    // SAFETY: by contract.
    unsafe { receive::recv(fd, buf, count, flags) }
}

/// `recvfrom`; the room is not the last argument.
///
/// # Safety
/// Those of recvfrom(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    room: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    check(count, room);
    // SAFETY: by contract.
    unsafe { receive::recvfrom(fd, buf, count, flags, addr, addr_len) }
}

macro_rules! without_mode {
    ($($name:ident = $original:ident($($arg:ident: $type:ty),*);)*) => {$(
        /// The function without `_2`, for flags that create nothing.
        ///
        /// # Safety
        /// Those of the function without `_2`.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            // SAFETY: by contract.
            unsafe { open::$original($($arg),*, 0) }
        }
    )*};
}

without_mode! {
    __open_2 = open(path: *const c_char, flags: c_int);
    __open64_2 = open(path: *const c_char, flags: c_int);
    __openat_2 = openat(folder: c_int, path: *const c_char, flags: c_int);
    __openat64_2 = openat(folder: c_int, path: *const c_char, flags: c_int);
}

macro_rules! aliases {
    ($($name:ident = $module:ident::$original:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        /// The function without underscores.
        ///
        /// # Safety
        /// Those of the function without underscores.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            #[allow(unused_unsafe, reason = "some are safe")]
            // SAFETY: by contract.
            unsafe { $module::$original($($arg),*) }
        }
    )*};
}

aliases! {
    __read = descriptor::read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t;
    __write = descriptor::write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t;
    __pread64 = descriptor::pread64(fd: c_int, buf: *mut c_void, count: size_t, offset: off_t)
        -> ssize_t;
    __pwrite64 = descriptor::pwrite64(fd: c_int, buf: *const c_void, count: size_t, offset: off_t)
        -> ssize_t;
    open64 = open::open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    __open = open::open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    __open64 = open::open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat64 = open::openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t)
        -> c_int;
    __fcntl = lock::fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    __ioctl = lock::ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int;
    fcntl64 = lock::fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    lockf64 = lock::lockf(fd: c_int, command: c_int, length: off_t) -> c_int;
    __close = close::close(fd: c_int) -> c_int;
    __dup2 = close::dup2(old: c_int, new: c_int) -> c_int;
    __connect = connect::connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    __send = send::send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    __poll = poll::poll(fds: *mut pollfd, count: nfds_t, limit: c_int) -> c_int;
    __select = select::select(count: c_int, read: *mut fd_set, write: *mut fd_set,
        except: *mut fd_set, limit: *mut timeval) -> c_int;
    __nanosleep = sleep::nanosleep(wish: *const timespec, rest: *mut timespec) -> c_int;
}
