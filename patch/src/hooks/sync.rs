//! `syscall`, for the futexes of std and parking_lot and for calls that change a descriptor. All else is passed on.
//! futex(2), syscall(2).
//!
//! A green thread that waits for a futex is in a table of weald's (`futex.rs`). An OS thread waits in the kernel, as
//! ever. A thread that wakes takes from the table first, and leaves the rest to the kernel. Only private futexes are
//! in the table: another process would not look there.
//!
//! The variadic `syscall` is defined here with seven fixed arguments. That is sound on x86-64 and AArch64 under
//! Linux: integer variadic arguments are passed as named ones are, and glibc's own function reads all of them too.
//!
//! An exception does not end such a wait: `Mutex::lock` could not report it.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use libc::{c_int, c_long, c_uint, c_ulong, socklen_t, timespec};
use weald_scheduler::patch::{self, Bypass};

use crate::Kind;
use crate::futex::{Bucket, Waited};
use crate::hooks::limit::duration_of;
use crate::hooks::on;
use crate::hooks::{close, lock, socket};
use crate::raw;

/// The number of lists. It is a guess: more than cores, and few enough to stay in the cache.
pub(crate) const BUCKETS: usize = 256;

static TABLE: [Bucket; BUCKETS] = [const { Bucket::new() }; BUCKETS];

fn list_of(word: *const AtomicU32) -> &'static Bucket {
    list_in(&TABLE, word)
}

/// Returns the list of an address in such a table.
#[inline]
pub(crate) fn list_in(
    table: &'static [Bucket; BUCKETS],
    word: *const AtomicU32,
) -> &'static Bucket {
    &table[index_of(word)]
}

/// Returns the list's index.
#[inline]
pub(crate) fn index_of(word: *const AtomicU32) -> usize {
    // This is Fibonacci hashing: the low bits of addresses differ too little.
    let hash = (word.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    usize::try_from(hash).unwrap_or(0) % BUCKETS
}

/// Tells if this is a valid moment. libc's calls check that first, whether they have to wait or not.
///
/// # Safety
/// The pointer is null or valid.
pub(crate) unsafe fn is_moment(limit: *const timespec) -> bool {
    // SAFETY: by contract.
    unsafe { limit.as_ref() }.is_some_and(|limit| (0..1_000_000_000).contains(&limit.tv_nsec))
}

/// Returns when a futex's limit has passed. `Err`: it is not valid, or its clock is one that only the kernel can
/// watch.
pub(crate) fn deadline(
    limit: Option<timespec>,
    is_absolute: bool,
    is_realtime: bool,
) -> Result<Option<Instant>, ()> {
    let Some(limit) = limit else {
        return Ok(None);
    };
    let limit = duration_of(limit).ok_or(())?;
    if !is_absolute {
        return Ok(Instant::now().checked_add(limit));
    }
    let clock = if is_realtime {
        libc::CLOCK_REALTIME
    } else {
        libc::CLOCK_MONOTONIC
    };
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a pointer to a local.
    if unsafe { libc::clock_gettime(clock, &raw mut now) } != 0 {
        return Err(());
    }
    let left = limit.saturating_sub(duration_of(now).ok_or(())?);
    Ok(Instant::now().checked_add(left))
}

/// Makes a futex call for a patched green thread. `None`: the kernel must make it.
///
/// # Safety
/// As futex(2).
unsafe fn green_wait(
    word: *const AtomicU32,
    op: c_int,
    expected: u32,
    limit: *const timespec,
    bits: u32,
) -> Option<isize> {
    if word.is_null() || !word.is_aligned() {
        return None;
    }
    // SAFETY: by contract it is null or valid.
    let limit = unsafe { limit.as_ref() }.copied();
    let is_bitset = op & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT_BITSET;
    let bits = if is_bitset { bits } else { u32::MAX };
    let is_realtime = op & libc::FUTEX_CLOCK_REALTIME != 0;
    let until = deadline(limit, is_bitset, is_realtime).ok()?;
    if bits == 0 {
        return None;
    }
    // SAFETY: by contract.
    let waited = unsafe { list_of(word).wait(word, expected, bits, until) };
    Some(match waited {
        Waited::Woken => 0,
        Waited::NotAsExpected => -(libc::EAGAIN as isize),
        Waited::TimedOut => -(libc::ETIMEDOUT as isize),
    })
}

/// Makes calls about descriptors through their hooks, however they are made. `None`: the call is not about
/// descriptors.
///
/// # Safety
/// Those of the system call.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::many_single_char_names,
    reason = "the system call's own arguments, 32 bits wide"
)]
unsafe fn on_descriptor(number: c_long, args: [usize; 5]) -> Option<c_long> {
    let [a, b, c, d, e] = args;
    let fd = a as c_int;
    let result = match number {
        libc::SYS_close => close::close(fd),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 => close::dup2(fd, b as c_int),
        libc::SYS_dup3 => close::dup3(fd, b as c_int, c as c_int),
        libc::SYS_close_range => close::close_range(a as c_uint, b as c_uint, c as c_int),
        // SAFETY: by contract.
        libc::SYS_fcntl if b as c_int == libc::F_SETFL => unsafe {
            lock::fcntl(fd, libc::F_SETFL, c as c_ulong)
        },
        // SAFETY: by contract.
        libc::SYS_ioctl => unsafe { lock::ioctl(fd, b as c_ulong, c as c_ulong) },
        // SAFETY: by contract.
        libc::SYS_setsockopt => unsafe {
            let value = ptr::with_exposed_provenance(d);
            socket::setsockopt(fd, b as c_int, c as c_int, value, e as socklen_t)
        },
        _ => return None,
    };
    Some(result.into())
}

/// syscall(2).
///
/// # Safety
/// Those of the system call.
#[allow(
    clippy::many_single_char_names,
    reason = "the system call's own arguments"
)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: by contract.
    let plain = || unsafe { raw::syscall(number, [a, b, c, d, e, f]) };
    if number != libc::SYS_futex {
        // SAFETY: by contract.
        let done = unsafe { on_descriptor(number, [a, b, c, d, e]) };
        return done.unwrap_or_else(|| raw::result(plain()) as c_long);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the arguments are 32 bits wide"
    )]
    let (op, value, bits) = (b as c_int, c as u32, f as u32);
    let word: *const AtomicU32 = ptr::with_exposed_provenance(a);
    // Other processes do not know the table, so the kernel handles what they share.
    let is_private = op & libc::FUTEX_PRIVATE_FLAG != 0;
    let wake = |limit, bits| {
        // The child of a fork has a copy of the waiters, but no thread that could run them.
        if !is_private || patch::is_forked() {
            return 0;
        }
        let _bypass = Bypass::enter();
        list_of(word).wake(word, limit, bits)
    };
    let result = match op & libc::FUTEX_CMD_MASK {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET if on(Kind::Sync) => {
            let limit = ptr::with_exposed_provenance(d);
            // SAFETY: by contract.
            match unsafe { is_private.then(|| green_wait(word, op, value, limit, bits)) }.flatten()
            {
                Some(result) => {
                    patch::spend();
                    result
                }
                None => patch::blocking_until_others_act(plain),
            }
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            let is_bitset = op & libc::FUTEX_CMD_MASK == libc::FUTEX_WAKE_BITSET;
            let limit = value as usize;
            let woken = wake(limit, if is_bitset { bits } else { u32::MAX });
            if woken >= limit && limit > 0 {
                woken.cast_signed()
            } else {
                // SAFETY: by contract, with what is left of the number.
                let rest = unsafe { raw::syscall(number, [a, b, limit - woken, d, e, f]) };
                match raw::error_of(rest) {
                    Some(_) if woken > 0 => woken.cast_signed(),
                    Some(_) => rest,
                    None => rest + woken.cast_signed(),
                }
            }
        }
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP => {
            // The kernel wakes or moves its own waiters. All waiters of the table are woken: a wait may end without a
            // reason, and a waiter that was not meant waits again.
            let result = plain();
            if raw::error_of(result).is_none() {
                wake(usize::MAX, u32::MAX);
                let second: *const AtomicU32 = ptr::with_exposed_provenance(e);
                if is_private && op & libc::FUTEX_CMD_MASK == libc::FUTEX_WAKE_OP {
                    let _bypass = Bypass::enter();
                    list_of(second).wake(second, usize::MAX, u32::MAX);
                }
            }
            result
        }
        _ => plain(),
    };
    raw::result(result) as c_long
}
