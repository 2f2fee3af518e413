//! The only way to atomics, cells, locks of the OS and the clock. In a build these are std's; under
//! `--cfg loom` they are loom's. The models of single files have their own in this place.

#[macro_use]
mod for_models;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod std;

#[cfg(loom)]
pub(crate) use self::loom::*;
#[cfg(not(loom))]
pub(crate) use self::std::*;
