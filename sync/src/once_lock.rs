//! A cell that is written once.
//!
//! Invariant: the caller that runs the `Once` writes the value before COMPLETE, and the value is only read
//! afterwards.
//! Checked by `loom-tests/tests/once.rs`.
#![allow(unsafe_code, reason = "the Once says when the value is there")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::once::Once;

/// A cell that is written once, by the thread that comes first. The interface is that of [`std::sync::OnceLock`].
///
/// # Examples
/// ```
/// static NAME: weald::sync::OnceLock<String> = weald::sync::OnceLock::new();
/// assert_eq!(NAME.get(), None);
/// assert_eq!(NAME.get_or_init(|| "oak".to_string()), "oak");
/// assert_eq!(NAME.set("elm".to_string()), Err("elm".to_string()));
/// ```
pub struct OnceLock<T> {
    once: Once,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: one thread may write the value and another one drop it.
unsafe impl<T: Send> Send for OnceLock<T> {}
// SAFETY: readers share the value, and any thread may write it.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    constructor! {
        /// Returns an empty cell.
        pub const fn new() -> Self {
            Self {
                once: Once::new(),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            }
        }
    }

    /// Returns the value, if it is there. Not a blocking call.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.once
            .is_completed()
            // SAFETY: COMPLETE: the value is there, and nobody writes it any more.
            .then(|| unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Returns the value, if it is there.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.once
            .is_completed()
            // SAFETY: as in `get`, and the cell is borrowed uniquely.
            .then(|| unsafe { (*self.value.get()).assume_init_mut() })
    }

    /// Waits until the value is there and returns it. A blocking call.
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.get().unwrap_or_else(|| unreachable!("COMPLETE"))
    }

    /// Writes the value, if none is there. A blocking call if another thread is about to write it.
    ///
    /// # Errors
    /// If there is a value. The error is the value that was not written.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        if self.get().is_none() {
            self.once.call_once_force(|_| {
                if let Some(value) = value.take() {
                    // SAFETY: RUNNING, set by this thread, so nobody else uses the value.
                    unsafe { (*self.value.get()).write(value) };
                }
            });
        }
        value.map_or(Ok(()), Err)
    }

    /// Returns the value. If there is none, the function makes it. A blocking call if another thread is making it. A
    /// function that unwinds leaves the cell empty.
    ///
    /// A function that asks for the value that it makes waits for itself, for ever.
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        self.once.call_once_force(|_| {
            let value = f();
            // SAFETY: RUNNING, set by this thread, so nobody else uses the value.
            unsafe { (*self.value.get()).write(value) };
        });
        self.get().unwrap_or_else(|| unreachable!("COMPLETE"))
    }

    /// Returns the value.
    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }

    /// Takes the value out and leaves the cell empty.
    pub fn take(&mut self) -> Option<T> {
        if !self.once.is_completed() {
            return None;
        }
        self.once.reset();
        // SAFETY: it was COMPLETE. The cell is borrowed uniquely and is empty now, so nobody takes the value again.
        Some(unsafe { (*self.value.get()).assume_init_read() })
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let cell = Self::new();
        // The cell is new, so no other thread was first.
        let _ = cell.set(value);
        cell
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        match self.get() {
            Some(value) => Self::from(value.clone()),
            None => Self::new(),
        }
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => shown.field(value),
            None => shown.field(&format_args!("<uninit>")),
        };
        shown.finish()
    }
}
