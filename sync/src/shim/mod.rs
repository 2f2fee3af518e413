//! The only door to atomics, cells, locks of the OS and the clock. In a build these are std's; under
//! `--cfg loom` they are loom's. The models of single files have their own in this place.

#[cfg(loom)]
mod loom;
mod ordering;
#[cfg(not(loom))]
mod std;

#[cfg(loom)]
pub(crate) use self::loom::*;
pub(crate) use self::ordering::relaxed_if;
#[cfg(not(loom))]
pub(crate) use self::std::*;
