//! Programs that call `futex` themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::support::{in_green, in_green_with_spares};

fn futex(word: &AtomicU32, op: i32, value: u32, other: &AtomicU32) -> i64 {
    // SAFETY: both words live; a wait has no limit, the others take numbers in its place.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op,
            value,
            usize::from(op & libc::FUTEX_CMD_MASK != libc::FUTEX_WAIT),
            other.as_ptr(),
            0,
        )
    }
}

#[test]
fn those_who_are_requeued_are_not_forgotten() {
    in_green(|| {
        static WORDS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        let [first, second] = &WORDS;
        let waits = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                weald::spawn(move || {
                    while first.load(Ordering::Acquire) == 0 {
                        futex(first, waits, 0, second);
                    }
                })
            })
            .collect();
        weald::yield_now();
        first.store(1, Ordering::Release);
        // The call wakes one waiter and moves one more; the third is not moved.
        let requeue = libc::FUTEX_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
        assert!(futex(first, requeue, 1, second) >= 0);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_futex_that_processes_share_is_the_kernels() {
    type Syscall = unsafe extern "C" fn(libc::c_long, ...) -> libc::c_long;
    // SAFETY: a name that ends by zero; libc's own function, which another process would call.
    let of_libc = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
    assert!(!of_libc.is_null());
    // SAFETY: syscall(2) is of this type.
    let of_libc = unsafe { std::mem::transmute::<*mut libc::c_void, Syscall>(of_libc) };
    let word = Arc::new(AtomicU32::new(0));
    let shared = Arc::clone(&word);
    let waiter = thread::spawn(move || {
        in_green_with_spares(|| {
            while shared.load(Ordering::Acquire) == 0 {
                futex(&shared, libc::FUTEX_WAIT, 0, &shared);
            }
        });
    });
    // SAFETY: the word lives. The kernel counts the waiters that it wakes.
    let wakes = || unsafe { of_libc(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
    while wakes() == 0 {
        thread::yield_now();
    }
    word.store(1, Ordering::Release);
    while !waiter.is_finished() {
        wakes();
        thread::yield_now();
    }
    waiter.join().unwrap();
}
