//! Witnesses: they count what a model has really seen.
//!
//! loom runs all threads of a model on one OS thread, so a thread-local counts for exactly one
//! model, also where several models share a process. A referee run has OS threads and counts
//! nothing: there a rare event may well be absent.

#[cfg(loom)]
use std::cell::RefCell;

#[cfg(loom)]
thread_local! {
    static SEEN: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Counts one sighting, in a permutation of a model, of what the name says.
///
/// With a condition it counts only where that holds: `witness!("stole", thief_got.is_some())`.
#[macro_export]
macro_rules! witness {
    ($name:literal) => {
        $crate::saw($name)
    };
    ($name:literal, $condition:expr) => {
        if $condition {
            $crate::saw($name);
        }
    };
}

#[doc(hidden)]
#[cfg(loom)]
pub fn saw(name: &'static str) {
    SEEN.with_borrow_mut(
        |seen| match seen.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => seen.push((name, 1)),
        },
    );
}

#[doc(hidden)]
#[cfg(not(loom))]
pub fn saw(_name: &'static str) {}

/// Forgets all sightings: a model begins.
#[cfg(loom)]
pub(crate) fn forget() {
    SEEN.with_borrow_mut(Vec::clear);
}

/// How often the model that runs on this OS thread saw what the name says.
#[cfg(loom)]
pub(crate) fn sightings(name: &str) -> u64 {
    SEEN.with_borrow(|seen| {
        seen.iter()
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, count)| *count)
    })
}
