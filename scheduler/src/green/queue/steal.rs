//! The result of an attempt to steal.

/// The result of an attempt to take something from another worker's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steal<T> {
    /// Nothing is there.
    Empty,
    /// This was taken.
    Success(T),
    /// Somebody else was faster. There may be more.
    Retry,
}
