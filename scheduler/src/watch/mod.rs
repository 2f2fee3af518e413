//! Looking at a runtime from outside: dumps, counters.

pub(crate) mod dump;
pub(crate) mod metrics;
#[cfg(not(loom))]
pub(crate) mod sigquit;
