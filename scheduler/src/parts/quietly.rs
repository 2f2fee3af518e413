//! Drops values of the user's where a panic could not be reported.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many payloads in a row may panic when they are dropped; a guess. The next one is leaked.
const PAYLOADS: usize = 8;

/// Drops a value. A panic of its destructor is caught and ignored, and so is a panic of the payload's destructor.
pub(crate) fn drop_quietly<T>(value: T) {
    let mut panicked = catch_unwind(AssertUnwindSafe(|| drop(value)));
    for _ in 0..PAYLOADS {
        match panicked {
            Ok(()) => return,
            Err(payload) => panicked = catch_unwind(AssertUnwindSafe(|| drop(payload))),
        }
    }
    std::mem::forget(panicked);
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    /// Panics when it is dropped, with one like itself.
    struct Panics(usize);

    impl Drop for Panics {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            if self.0 > 0 {
                panic_any(Panics(self.0 - 1));
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it leaks a payload on purpose")]
    fn payloads_that_panic_when_dropped_are_dropped_in_turn_and_the_last_one_is_leaked() {
        drop_quietly(Panics(3));
        assert_eq!(DROPPED.swap(0, Ordering::Relaxed), 4);
        drop_quietly(Panics(1000));
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1 + PAYLOADS);
    }
}
