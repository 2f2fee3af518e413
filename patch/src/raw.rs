//! System calls without libc, whose names this crate takes.
//!
//! If a hook called libc's `syscall`, it would call itself. The numbers are `libc::SYS_*`. A result from -4095 to -1
//! is a negated `errno` (syscalls(2), syscall(2) for the registers).
#![allow(unsafe_code, reason = "system calls")]

use std::arch::asm;

/// # Safety
/// The arguments are those that the system call asks for.
#[cfg(target_arch = "x86_64")]
#[allow(
    clippy::many_single_char_names,
    clippy::cast_possible_truncation,
    reason = "the registers' order; all are 64 bits wide"
)]
pub(crate) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: libc::c_long;
    // SAFETY: by contract for the call itself; the kernel clobbers rcx and r11 and nothing else.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result as isize
}

/// # Safety
/// The arguments are those that the system call asks for.
#[cfg(target_arch = "aarch64")]
#[allow(clippy::many_single_char_names, reason = "the registers' order")]
pub(crate) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: by contract for the call itself; the kernel clobbers nothing but x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    result
}

/// Makes a system call with up to six arguments of any integer or pointer type.
macro_rules! sys {
    ($number:ident $(, $arg:expr)* $(,)?) => {{
        #[allow(unused_mut, reason = "a call without arguments")]
        let mut args = [0_usize; 6];
        #[allow(unused_mut, unused_variables, reason = "as above")]
        let mut index = 0;
        $(
            args[index] = $crate::raw::Word::word($arg);
            #[allow(unused_assignments, reason = "after the last one")]
            { index += 1; }
        )*
        $crate::raw::syscall(libc::$number, args)
    }};
}
pub(crate) use sys;

/// A type that a system call takes. Integers are sign-extended, as in the ABI.
pub(crate) trait Word {
    fn word(self) -> usize;
}

macro_rules! words {
    ($($integer:ty),*) => {$(
        impl Word for $integer {
            #[allow(
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "a register holds the bits of any of them"
            )]
            fn word(self) -> usize {
                self as isize as usize
            }
        }
    )*};
}
words!(i32, u32, i64, u64, usize, isize);

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

/// Returns the `errno` of a failed system call.
pub(crate) fn error_of(result: isize) -> Option<i32> {
    if (-4095..0).contains(&result) {
        i32::try_from(-result).ok()
    } else {
        None
    }
}

/// Makes a call that does not wait, again if a signal breaks it off. poll(2) and select(2) can fail with `EINTR` also if
/// they are not to wait.
pub(crate) fn undisturbed(mut call: impl FnMut() -> isize) -> isize {
    loop {
        let result = call();
        if error_of(result) != Some(libc::EINTR) {
            return result;
        }
    }
}

/// Turns the result of a system call into what libc returns: -1 and `errno`, or the value.
pub(crate) fn result(result: isize) -> isize {
    match error_of(result) {
        Some(error) => {
            set_errno(error);
            -1
        }
        None => result,
    }
}

/// Does the same as `result`, for calls that return an `int`.
pub(crate) fn int(value: isize) -> libc::c_int {
    libc::c_int::try_from(result(value)).unwrap_or(-1)
}

/// Returns the calling thread's errno.
pub(crate) fn errno() -> i32 {
    // SAFETY: libc's place for the calling thread's errno.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(error: i32) {
    // SAFETY: libc's place for the calling thread's errno.
    unsafe { *libc::__errno_location() = error };
}
