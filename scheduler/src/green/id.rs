//! The numbers of threads.

use std::fmt;
use std::num::NonZeroU64;

/// A number that no other thread of the process has, green or not.
///
/// # Examples
/// ```
/// let id = weald::current().id();
/// assert_eq!(id, weald::current().id());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GreenThreadId(NonZeroU64);

impl GreenThreadId {
    pub(crate) fn next() -> Self {
        Self::block(1)
    }

    /// The first of `count` fresh numbers.
    pub(crate) fn block(count: u64) -> Self {
        // Not part of any protocol, so std's also in a model.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let first = NEXT.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Self(NonZeroU64::new(first).expect("2^64 threads are never made"))
    }

    /// The number that many after this one; within a block.
    pub(crate) fn offset(self, by: u64) -> Self {
        Self(self.0.checked_add(by).expect("2^64 threads are never made"))
    }

    /// That of a thread that has been made.
    #[cfg(not(loom))]
    pub(crate) fn of(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }

    /// Returns the number itself. Numbers begin at 1 and are never used twice in a process.
    ///
    /// # Examples
    /// ```
    /// let me = weald::current();
    /// assert_eq!(me.id().to_string(), format!("#{}", me.id().as_u64()));
    /// ```
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

/// As dumps write it: `#12`.
impl fmt::Display for GreenThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for GreenThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GreenThreadId({})", self.0)
    }
}
