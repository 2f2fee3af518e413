//! A handle by which other threads cancel timers of a wheel.
//!
//! `slab.rs` says what it does step by step, and what may race with each step.

use std::fmt;

use crate::Key;
use crate::shim::sync::Arc;
use crate::slab::Slab;

/// Cancels timers of a [`Wheel`](crate::Wheel) from other threads.
///
/// Cloning it is cheap. It never blocks the wheel's owner, takes no lock and makes no system call.
/// It may outlive its wheel; every timer is gone then, so each cancellation returns `None`.
///
/// # Examples
/// ```
/// use weald_timer::{Tick, Wheel};
///
/// let mut wheel = Wheel::new(Tick::ZERO);
/// let key = wheel.insert(Tick::from_nanos_ceil(60_000_000_000), String::from("too late"));
/// let remote = wheel.remote();
///
/// let value = std::thread::spawn(move || remote.cancel(key)).join().expect("no panic");
/// assert_eq!(value.as_deref(), Some("too late"));
/// assert!(wheel.is_empty());
/// ```
pub struct Remote<T> {
    slab: Arc<Slab<T>>,
}

impl<T> Remote<T> {
    pub(crate) fn new(slab: &Arc<Slab<T>>) -> Self {
        Self {
            slab: Arc::clone(slab),
        }
    }

    /// Cancels a timer and returns its value at once. `None`: the timer has fired or was cancelled before,
    /// or another thread does one of these at this moment.
    ///
    /// When this returns, [`Wheel::len`](crate::Wheel::len) does not count the timer any more. The memory of the
    /// timer is used again after the owner's next insert, advance or drain.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let remote = wheel.remote();
    /// let key = wheel.insert(Tick::MAX, 7);
    /// assert_eq!(remote.cancel(key), Some(7));
    /// assert_eq!(remote.cancel(key), None);
    /// assert_eq!(wheel.cancel(key), None);
    /// ```
    #[inline]
    pub fn cancel(&self, key: Key) -> Option<T> {
        self.slab.cancel_remotely(key)
    }

    /// How many timers of the wheel were cancelled by such handles so far. A snapshot, as
    /// [`Remote::len`] is; the number wraps around at the end of its range. The wheel takes their entries back at its
    /// next insert, advance or drain.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let remote = wheel.remote();
    /// let key = wheel.insert(Tick::MAX, ());
    /// remote.cancel(key);
    /// assert_eq!(remote.cancelled(), 1);
    /// ```
    pub fn cancelled(&self) -> usize {
        self.slab.cancelled()
    }

    /// The number of living timers of the wheel. A snapshot for statistics, which may be old
    /// when the caller reads it.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let remote = wheel.remote();
    /// wheel.insert(Tick::MAX, ());
    /// assert_eq!(remote.len(), 1);
    /// drop(wheel);
    /// assert_eq!(remote.len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no timer of the wheel lives. A snapshot, as [`Remote::len`] is.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let wheel = Wheel::<()>::new(Tick::ZERO);
    /// assert!(wheel.remote().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Remote<T> {
    fn clone(&self) -> Self {
        Self::new(&self.slab)
    }
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
