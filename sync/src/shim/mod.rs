//! Atomics, cells, locks of the OS and the clock come from here and from nowhere else. In a build they are std's;
//! under `--cfg loom` they are loom's. The models of single files have doubles of this module.

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
