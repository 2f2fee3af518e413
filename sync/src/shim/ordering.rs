//! The orderings of lock-free steps, each of which a model can take away.

use std::sync::atomic::Ordering;

/// The ordering that a step needs; none where a fault is seeded, which the model must find.
#[inline]
pub(crate) fn relaxed_if(fault: bool, needed: Ordering) -> Ordering {
    if fault { Ordering::Relaxed } else { needed }
}
