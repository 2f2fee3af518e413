//! The real calls, whatever is patched. They block the OS thread.
//!
//! Their errors are in `errno`, as with libc.
#![allow(unsafe_code, reason = "system calls")]

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
use std::{
    marker::PhantomData,
    sync::atomic::{AtomicPtr, Ordering},
};

use libc::{c_int, c_void, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timespec};

use crate::raw::{self, sys};

/// Finds libc's own definition of a function that this crate defines too.
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

/// A function of libc that this crate defines too. It is looked for before `main`, or else at its first call. A
/// signal handler may make that call, and must not look. Made by [`original!`].
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub(crate) struct Original<F> {
    name: &'static std::ffi::CStr,
    /// The version, if libc has several functions of that name.
    version: Option<&'static std::ffi::CStr>,
    found: AtomicPtr<c_void>,
    kind: PhantomData<F>,
}

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
impl<F: Copy> Original<F> {
    /// # Safety
    /// `F` is a function pointer of the type that the name has in libc.
    pub(crate) const unsafe fn new(
        name: &'static std::ffi::CStr,
        version: Option<&'static std::ffi::CStr>,
    ) -> Self {
        Self {
            name,
            version,
            found: AtomicPtr::new(std::ptr::null_mut()),
            kind: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> F {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            found = self.find();
        }
        // SAFETY: the address of a function of that type, by contract of `new`.
        unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) }
    }

    #[cfg(test)]
    pub(crate) fn is_found(&self) -> bool {
        !self.found.load(Ordering::Relaxed).is_null()
    }

    /// Ends the program: it calls a function that its libc does not have. Such a program would normally not link.
    #[cold]
    fn find(&self) -> *mut c_void {
        self.look();
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: no conditions.
            unsafe { libc::abort() };
        }
        found
    }

    /// Looks for the function. An old libc may not have it.
    pub(crate) fn look(&self) {
        let mut found = std::ptr::null_mut();
        if let Some(version) = self.version {
            // SAFETY: names that end by zero.
            found = unsafe { libc::dlvsym(libc::RTLD_NEXT, self.name.as_ptr(), version.as_ptr()) };
        }
        if found.is_null() {
            // SAFETY: a name that ends by zero.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        }
        self.found.store(found, Ordering::Relaxed);
    }
}

/// Makes statics for libc's own functions: `NAME: type = c"name";`, followed by `, c"VERSION"` if a name has several
/// versions.
macro_rules! original {
    ($($name:ident: $kind:ty = $as_c:literal $(, $version:expr)?;)*) => {$(
        // SAFETY: the type is that of libc's header.
        static $name: $crate::original::Original<$kind> = unsafe {
            $crate::original::Original::new($as_c, $crate::original::original!(@ $($version)?))
        };
        const _: () = {
            extern "C" fn look() {
                $name.look();
            }
            // SAFETY: libc calls this function once, before `main`.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static LOOK: extern "C" fn() = look;
        };
    )*};
    (@) => { None };
    (@ $version:expr) => { Some($version) };
}
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub(crate) use original;

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

/// ppoll(2) without a signal mask. The kernel writes what is left of the limit.
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
