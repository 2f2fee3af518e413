//! Storage local to a green thread: `green_local!`.
//!
//! A thread keeps its values in a list of (key, value); there are few. On a plain OS thread the
//! same list hangs off the OS thread's header, so a `green_local!` behaves there as a
//! `thread_local!`.
#![allow(unsafe_code, reason = "the running thread's own values")]

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use crate::current;
use crate::green_thread::Header;

/// A thread's values, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Locals(Vec<(usize, Rc<dyn Any>)>);

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locals({})", self.0.len())
    }
}

/// A value for each green thread; made by [`green_local!`](crate::green_local).
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> LocalKey<T> {
    /// For the macro.
    #[doc(hidden)]
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `f` with this thread's value, made now if it is the first use in this thread.
    ///
    /// `f` may block. On a plain OS thread the value is that thread's.
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    /// weald_scheduler::green_local! { static HITS: Cell<u32> = Cell::new(0); }
    /// HITS.with(|hits| hits.set(hits.get() + 1));
    /// assert_eq!(HITS.with(Cell::get), 1);
    /// ```
    ///
    /// # Panics
    /// If the initializer does.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let key = std::ptr::from_ref(self) as usize;
        let header = current::header();
        let value = find(header, key).unwrap_or_else(|| {
            let value: Rc<dyn Any> = Rc::new((self.init)());
            // The initializer may have used this very key; the first value stays.
            find(header, key).unwrap_or_else(|| {
                // SAFETY: the running thread's own part, held for this statement.
                unsafe { (*header).local() }
                    .locals
                    .0
                    .push((key, Rc::clone(&value)));
                value
            })
        });
        f(value.downcast_ref::<T>().expect("a key has one type"))
    }
}

/// The running thread's value for the key.
fn find(header: *const Header, key: usize) -> Option<Rc<dyn Any>> {
    // SAFETY: the running thread's own part, held for this function.
    let local = unsafe { (*header).local_if_any() }?;
    let found = local.locals.0.iter().find(|(k, _)| *k == key);
    found.map(|(_, value)| Rc::clone(value))
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// Drops the thread's values, the last made first; destructors may make new ones.
///
/// # Safety
/// The caller runs on the thread.
pub(crate) unsafe fn clear(header: &Header) {
    loop {
        // SAFETY: by contract; not held over the destructor.
        let value = match unsafe { header.local_if_any() } {
            None => return,
            Some(local) => local.locals.0.pop(),
        };
        let Some(value) = value else { return };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value)));
    }
}

/// Declares values of which each green thread has its own, as `thread_local!` does for OS threads.
///
/// The value is made at the first use in a thread and dropped when that thread ends. On a plain OS
/// thread it belongs to that.
///
/// # Examples
/// ```
/// use std::cell::RefCell;
/// weald_scheduler::green_local! {
///     /// The request that this green thread serves.
///     pub static REQUEST: RefCell<String> = RefCell::new(String::new());
///     static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0);
/// }
/// REQUEST.with(|request| request.borrow_mut().push_str("GET /"));
/// DEPTH.with(|depth| depth.set(1));
/// ```
#[macro_export]
macro_rules! green_local {
    () => {};
    ($(#[$attr:meta])* $vis:vis static $name:ident : $ty:ty = const $init:block $(; $($rest:tt)*)?) => {
        $crate::green_local!($(#[$attr])* $vis static $name: $ty = $init; $($($rest)*)?);
    };
    ($(#[$attr:meta])* $vis:vis static $name:ident : $ty:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis static $name: $crate::LocalKey<$ty> = {
            fn init() -> $ty {
                $init
            }
            $crate::LocalKey::new(init)
        };
        $crate::green_local!($($($rest)*)?);
    };
}
