//! What a thief learns.

/// What came of an attempt to take from another's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steal<T> {
    /// Nothing is there.
    Empty,
    /// This was taken.
    Success(T),
    /// Somebody else was faster; there may be more.
    Retry,
}
