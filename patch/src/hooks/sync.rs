//! `syscall`, for the futexes of std and parking_lot; everything else passes. futex(2), syscall(2).
//!
//! A green thread that waits for a futex is in a table of ours, of lists by the hash of the word's
//! address; an OS thread is in the kernel, as ever. Who wakes takes first from the table, and leaves
//! the rest to the kernel.
//!
//! | step | a green thread that waits                  | who wakes                                 |
//! |------|--------------------------------------------|-------------------------------------------|
//! | 1    | counts itself in the list                  | has changed the word                      |
//! | 2    | `fence(SeqCst)`, looks at the word again   | `fence(SeqCst)`, looks at the count       |
//! | 3    | the word is as expected: enters the list   | not zero: takes waiters out of the list   |
//!
//! Steps 2 and 3 of the waiter are under the list's lock, and so is 3 of who wakes.
//!
//! Invariant 1: either the waiter sees the changed word, or who wakes sees its count and then, by the
//! lock, the waiter itself.
//! Invariant 2: a node lies on its waiter's stack and is touched only under the lock; the waiter takes
//! it out, or finds it taken out, before it goes.
//! Invariant 3: a wake-up that took a node out is this waiter's; it does not report a time-out.
//!
//! Defining the variadic `syscall` with seven fixed arguments is sound on x86-64 and AArch64 under
//! Linux: integer variadic arguments travel as named ones do, and glibc's own reads all of them too.
//!
//! An exception does not end such a wait: `Mutex::lock` could not report it.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::time::Instant;

use libc::{c_int, c_long, timespec};
use weald_scheduler::patch::{self, Bypass, Waited, Wakeup};

use crate::Kind;
use crate::hooks::on;
use crate::hooks::sleep::duration_of;
use crate::raw::{self, sys};

/// Lists; a guess: more than cores, few enough to stay in the cache.
const LISTS: usize = 256;

/// So many are woken for one taking of a list's lock.
const BATCH: usize = 16;

struct Node {
    next: *mut Node,
    prev: *mut Node,
    word: *const AtomicU32,
    bits: u32,
    /// Still in the list.
    listed: bool,
    wakeup: Option<Wakeup>,
}

struct List {
    locked: AtomicBool,
    /// Waiters in the list or about to enter it.
    count: AtomicUsize,
    first: std::cell::UnsafeCell<*mut Node>,
    last: std::cell::UnsafeCell<*mut Node>,
}

// SAFETY: the pointers are touched only by who has set `locked` (invariant 2).
unsafe impl Sync for List {}

static TABLE: [List; LISTS] = [const {
    List {
        locked: AtomicBool::new(false),
        count: AtomicUsize::new(0),
        first: std::cell::UnsafeCell::new(ptr::null_mut()),
        last: std::cell::UnsafeCell::new(ptr::null_mut()),
    }
}; LISTS];

/// The lock of one list. It spins: a lock that waits would be a futex. What is done under it is a
/// few steps; it yields its OS thread where the holder has been taken off its core.
struct Locked<'a>(&'a List);

impl<'a> Locked<'a> {
    fn of(list: &'a List) -> Self {
        let mut spins = 0_u32;
        while list
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            spins += 1;
            if spins.is_multiple_of(64) {
                // SAFETY: no arguments.
                unsafe { sys!(SYS_sched_yield) };
            }
            std::hint::spin_loop();
        }
        Self(list)
    }

    fn push(&self, node: *mut Node) {
        // SAFETY: the lock is held, and the node is its waiter's, which is here.
        unsafe {
            let last = *self.0.last.get();
            (*node).prev = last;
            (*node).next = ptr::null_mut();
            (*node).listed = true;
            if last.is_null() {
                *self.0.first.get() = node;
            } else {
                (*last).next = node;
            }
            *self.0.last.get() = node;
        }
    }

    /// # Safety
    /// The node is in this list.
    unsafe fn remove(&self, node: *mut Node) {
        // SAFETY: the lock is held, so the neighbours are live (invariant 2).
        unsafe {
            let (prev, next) = ((*node).prev, (*node).next);
            if prev.is_null() {
                *self.0.first.get() = next;
            } else {
                (*prev).next = next;
            }
            if next.is_null() {
                *self.0.last.get() = prev;
            } else {
                (*next).prev = prev;
            }
            (*node).listed = false;
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}

fn list_of(word: *const AtomicU32) -> &'static List {
    // Fibonacci hashing: the low bits of addresses say little.
    let hash = (word.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    &TABLE[usize::try_from(hash).unwrap_or(0) % LISTS]
}

/// Waits while the word is as expected. Returns what the system call would.
///
/// # Safety
/// `word` can be read for the time of the call.
unsafe fn wait(word: *const AtomicU32, expected: u32, bits: u32, until: Option<Instant>) -> isize {
    let list = list_of(word);
    let mut node = Node {
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
        word,
        bits,
        listed: false,
        wakeup: None,
    };
    let node: *mut Node = &raw mut node;
    list.count.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut is_as_expected = true;
        let waited = patch::wait_for_wakeup(until, |wakeup| {
            let locked = Locked::of(list);
            fence(Ordering::SeqCst);
            // SAFETY: by contract.
            is_as_expected = unsafe { (*word).load(Ordering::Relaxed) } == expected;
            if is_as_expected {
                // SAFETY: the node is ours, and in no list.
                unsafe { (*node).wakeup = Some(wakeup) };
                locked.push(node);
            }
            is_as_expected
        });
        if !is_as_expected {
            list.count.fetch_sub(1, Ordering::Relaxed);
            return -(libc::EAGAIN as isize);
        }
        let locked = Locked::of(list);
        // SAFETY: under the lock; the node is in the list until somebody takes it out.
        unsafe {
            if !(*node).listed {
                // Whoever did has counted it out.
                return 0;
            }
            locked.remove(node);
        }
        if waited == Waited::TimedOut {
            list.count.fetch_sub(1, Ordering::Relaxed);
            return -(libc::ETIMEDOUT as isize);
        }
    }
}

/// Wakes at most `limit` green threads that wait for the word with one of the bits.
///
/// They are taken out under the lock and woken after it: the scheduler has locks too, and this may
/// be called under one of them.
fn wake(word: *const AtomicU32, limit: usize, bits: u32) -> usize {
    fence(Ordering::SeqCst);
    let list = list_of(word);
    let mut woken = 0;
    while list.count.load(Ordering::Relaxed) != 0 && woken < limit {
        let mut taken = [const { None }; BATCH];
        let mut count = 0;
        {
            let locked = Locked::of(list);
            // SAFETY: the lock is held, so the nodes are live (invariant 2).
            unsafe {
                let mut node = *list.first.get();
                while !node.is_null() && count < BATCH && woken + count < limit {
                    let next = (*node).next;
                    if ptr::eq((*node).word, word) && (*node).bits & bits != 0 {
                        locked.remove(node);
                        list.count.fetch_sub(1, Ordering::Relaxed);
                        taken[count] = (*node).wakeup.take();
                        count += 1;
                    }
                    node = next;
                }
            }
        }
        if count == 0 {
            break;
        }
        woken += count;
        taken.into_iter().flatten().for_each(Wakeup::wake);
    }
    woken
}

/// When a futex's limit has passed. `Err`: it is none, or by a clock that the kernel had better watch.
fn deadline(
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

/// A futex call of a patched green thread. `None`: the kernel's business.
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
    Some(unsafe { wait(word, expected, bits, until) })
}

/// syscall(2).
///
/// # Safety
/// As the system call asks.
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
        return raw::result(plain()) as c_long;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the arguments are 32 bits wide"
    )]
    let (op, value, bits) = (b as c_int, c as u32, f as u32);
    let word: *const AtomicU32 = ptr::with_exposed_provenance(a);
    let result = match op & libc::FUTEX_CMD_MASK {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET if on(Kind::Sync) => {
            // SAFETY: by contract.
            match unsafe { green_wait(word, op, value, ptr::with_exposed_provenance(d), bits) } {
                Some(result) => {
                    patch::spend();
                    result
                }
                None => plain(),
            }
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            let is_bitset = op & libc::FUTEX_CMD_MASK == libc::FUTEX_WAKE_BITSET;
            let limit = value as usize;
            let bits = if is_bitset { bits } else { u32::MAX };
            let woken = {
                let _bypass = Bypass::enter();
                wake(word, limit, bits)
            };
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
        _ => plain(),
    };
    raw::result(result) as c_long
}
