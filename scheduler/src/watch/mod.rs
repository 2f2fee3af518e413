//! Reports about a runtime: dumps, deadlocks, counters.

pub(crate) mod changes;
mod circles;
pub(crate) mod dump;
pub(crate) mod metrics;
mod references;
#[cfg(not(loom))]
pub(crate) mod sigquit;
pub(crate) mod silence;
mod snapshot;
mod text;
mod utc;
