//! The only way to atomics, cells and reference counts.
//!
//! In a build these are std's; under `--cfg loom` they are loom's, so that a model sees every
//! access. The code above needs no `cfg`: sizes that a model must keep small come from [`bounds`].

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
