//! A value that is made when it is first asked for.
//!
//! | `Once`     | the data is                     |
//! |------------|---------------------------------|
//! | INCOMPLETE | the function                    |
//! | RUNNING    | the thread's that runs it       |
//! | POISONED   | nothing: the function was taken |
//! | COMPLETE   | the value                       |
#![allow(unsafe_code, reason = "the Once says what the data is")]

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::once::Once;

enum Data<T, F> {
    Function(F),
    Value(T),
    Taken,
}

/// A value that is made when it is first asked for. The interface is that of [`std::sync::LazyLock`].
///
/// # Examples
/// ```
/// use weald::sync::LazyLock;
/// static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| "oak ash elm".split(' ').collect());
/// assert_eq!(WORDS.len(), 3);
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    once: Once,
    data: UnsafeCell<Data<T, F>>,
}

// SAFETY: the function goes to the thread that runs it, the value to those that read it.
unsafe impl<T: Send, F: Send> Send for LazyLock<T, F> {}
// SAFETY: as above; the function is run by one thread and never shared.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}

#[cold]
fn poisoned() -> ! {
    panic!("LazyLock instance has previously been poisoned")
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    constructor! {
        /// Returns a value that the function will make.
        pub const fn new(f: F) -> Self {
            Self {
                once: Once::new(),
                data: UnsafeCell::new(Data::Function(f)),
            }
        }
    }

    /// Returns the value, and makes it if it was not made before. A blocking call if another thread is making it.
    ///
    /// # Panics
    /// If the function has unwound.
    pub fn force(this: &Self) -> &T {
        this.once.call_once(|| {
            // SAFETY: RUNNING, set by this thread, so nobody else uses the data.
            let data = unsafe { &mut *this.data.get() };
            if let Data::Function(f) = std::mem::replace(data, Data::Taken) {
                *data = Data::Value(f());
            }
        });
        Self::get(this).unwrap_or_else(|| poisoned())
    }

    /// Returns the value as [`force`](Self::force) does, to change it.
    ///
    /// # Panics
    /// If the function has unwound.
    pub fn force_mut(this: &mut Self) -> &mut T {
        Self::force(this);
        Self::get_mut(this).unwrap_or_else(|| poisoned())
    }
}

impl<T, F> LazyLock<T, F> {
    /// Returns the value, if it was made. Not a blocking call.
    pub fn get(this: &Self) -> Option<&T> {
        if !this.once.is_completed() {
            return None;
        }
        // SAFETY: COMPLETE: nobody writes the data any more.
        match unsafe { &*this.data.get() } {
            Data::Value(value) => Some(value),
            Data::Function(_) | Data::Taken => None,
        }
    }

    /// Returns the value, if it was made.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        match this.data.get_mut() {
            Data::Value(value) => Some(value),
            Data::Function(_) | Data::Taken => None,
        }
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    fn deref(&self) -> &T {
        Self::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    fn deref_mut(&mut self) -> &mut T {
        Self::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple("LazyLock");
        match Self::get(self) {
            Some(value) => shown.field(value),
            None => shown.field(&format_args!("<uninit>")),
        };
        shown.finish()
    }
}
