//! Storage local to a green thread: `green_local!`.
//!
//! A thread keeps its values in a list of (key, value); there are few. On a plain OS thread the
//! same list hangs off the OS thread's header, so a `green_local!` behaves there as a
//! `thread_local!`.
//!
//! The values need not be `Send`, so they are dropped by their thread, as the last but one thing that it
//! does (`end.rs`; an OS thread in `os_header.rs`). Their destructors may make others, which are dropped in
//! turn. A destructor that uses the key of its own value makes a new one each time, so a key is made
//! again only so often (`locals.rs`).
#![allow(unsafe_code, reason = "the running thread's own values")]

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use crate::green::green_thread::Header;
use crate::wait::os_header;

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
    /// weald::green_local! { static HITS: Cell<u32> = Cell::new(0); }
    /// HITS.with(|hits| hits.set(hits.get() + 1));
    /// assert_eq!(HITS.with(Cell::get), 1);
    /// ```
    ///
    /// # Panics
    /// If the initializer does; or if the thread has dropped its values and would not drop this one: in the
    /// destructors of an OS thread's thread-locals, and in a destructor that makes the value anew each
    /// time that it is dropped.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let key = std::ptr::from_ref(self) as usize;
        let header = os_header::header();
        let value = find(header, key).unwrap_or_else(|| {
            // SAFETY: the running thread's own part, held for this statement.
            let admitted = unsafe { (*header).local() }.locals.admits(key);
            assert!(
                admitted,
                "cannot use a `green_local!` value after its thread has dropped it"
            );
            let value: Rc<dyn Any> = Rc::new((self.init)());
            // The initializer may have used this very key; the first value stays.
            find(header, key).unwrap_or_else(|| {
                // SAFETY: as above.
                unsafe { (*header).local() }
                    .locals
                    .put(key, Rc::clone(&value));
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
    let mut values = local.locals.values.iter();
    let found = values.find(|entry| entry.key == key)?;
    found.value.clone()
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// Declares values of which each green thread has its own, as `thread_local!` does for OS threads.
///
/// The value is made at the first use in a thread, and dropped by that thread before a `join` of it
/// returns. Its destructor may block, and no exception interrupts it, also in a thread that was killed. On
/// a plain OS thread the value belongs to that.
///
/// # Examples
/// ```
/// use std::cell::RefCell;
/// weald::green_local! {
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
