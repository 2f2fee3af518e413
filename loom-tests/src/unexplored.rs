//! Leaves out of the search the parts of a scenario that are not its subject.

/// Runs `f` in one order only, also if other threads run meanwhile. It is for what must be there before the
/// scenario proper begins, or must go when it is over. A search explores all orders of the rest.
///
/// Without `--cfg loom` it just runs it.
///
/// # Panics
///
/// If it is called inside of itself.
pub fn unexplored<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(loom)]
    loom::stop_exploring();
    let result = f();
    #[cfg(loom)]
    loom::explore();
    result
}

/// Inside of [`unexplored`], and on any thread: explores all orders while `f` runs.
///
/// # Panics
///
/// If it is called elsewhere.
pub fn explored<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(loom)]
    loom::explore();
    let result = f();
    #[cfg(loom)]
    loom::stop_exploring();
    result
}
