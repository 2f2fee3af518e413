//! What libc's records of locks and condition variables hold. glibc promises no layout, so it is found by trying.
#![allow(unsafe_code, reason = "records of libc")]

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{clockid_t, pthread_cond_t, pthread_condattr_t};
use weald_scheduler::patch::Bypass;

type Condition = *mut pthread_cond_t;

/// Returns the words of a value of libc's that `make` makes.
///
/// # Safety
/// `make` initialises the value, and the value needs no end.
pub(super) unsafe fn words_of<T>(make: impl FnOnce(*mut T)) -> Vec<u32> {
    let mut value: MaybeUninit<T> = MaybeUninit::zeroed();
    make(value.as_mut_ptr());
    (0..size_of::<T>() / 4)
        // SAFETY: all of the value has been zeroed or written.
        .map(|at| unsafe { word_at(value.as_ptr(), at) })
        .collect()
}

/// # Safety
/// The value has that many words. libc may change any of them meanwhile.
pub(super) unsafe fn word_at<T>(value: *const T, at: usize) -> u32 {
    // SAFETY: by contract; values of libc are aligned to words.
    unsafe { (*value.cast::<AtomicU32>().add(at)).load(Ordering::Relaxed) }
}

/// Where a condition variable's record has its flags, and what they mean. glibc has moved them before, so they are
/// found by trying.
struct Flags {
    at: usize,
    monotonic: u32,
    shared: u32,
}

impl Flags {
    /// Returns `None` for another libc.
    fn get() -> Option<&'static Self> {
        static FLAGS: OnceLock<Option<Flags>> = OnceLock::new();
        let find = || {
            // SAFETY: condition variables of our own, made as POSIX says; nobody waits for them.
            let made = |change: &dyn Fn(*mut pthread_condattr_t)| unsafe {
                let mut attributes: MaybeUninit<pthread_condattr_t> = MaybeUninit::uninit();
                libc::pthread_condattr_init(attributes.as_mut_ptr());
                change(attributes.as_mut_ptr());
                let words = words_of(|condition: Condition| {
                    libc::pthread_cond_init(condition, attributes.as_ptr());
                });
                libc::pthread_condattr_destroy(attributes.as_mut_ptr());
                words
            };
            let plain = made(&|_| {});
            // SAFETY: the attributes are initialised.
            let monotonic = made(&|attributes| unsafe {
                libc::pthread_condattr_setclock(attributes, libc::CLOCK_MONOTONIC);
            });
            // SAFETY: as above.
            let shared = made(&|attributes| unsafe {
                libc::pthread_condattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED);
            });
            let at = plain.iter().zip(&monotonic).position(|(a, b)| a != b)?;
            let also_at = plain.iter().zip(&shared).position(|(a, b)| a != b)?;
            (at == also_at).then(|| Self {
                at,
                monotonic: plain[at] ^ monotonic[at],
                shared: plain[at] ^ shared[at],
            })
        };
        FLAGS
            .get_or_init(|| {
                let _bypass = Bypass::enter();
                find()
            })
            .as_ref()
    }
}

/// Returns the clock of a condition variable's limits. `None`: processes share it, or nothing is known of it.
///
/// # Safety
/// The pointer is to a condition variable.
pub(super) unsafe fn clock_of(condition: *const pthread_cond_t) -> Option<clockid_t> {
    let flags = Flags::get()?;
    // SAFETY: the place was found in a value of the same type.
    let word = unsafe { word_at(condition, flags.at) };
    if word & flags.shared != 0 {
        return None;
    }
    Some(if word & flags.monotonic != 0 {
        libc::CLOCK_MONOTONIC
    } else {
        libc::CLOCK_REALTIME
    })
}
