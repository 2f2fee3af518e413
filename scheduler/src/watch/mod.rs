//! Reports about a runtime: dumps, deadlocks, counters.

pub(crate) mod changes;
mod circles;
#[cfg(feature = "serde")]
mod data;
#[cfg(not(any(loom, miri)))]
pub(crate) mod debugger;
pub(crate) mod dump;
pub(crate) mod groups;
pub(crate) mod metrics;
mod perfetto;
mod picture;
mod protobuf;
pub(crate) mod recording;
mod references;
#[cfg(not(loom))]
pub(crate) mod runtimes;
#[cfg(not(loom))]
pub(crate) mod sigquit;
pub(crate) mod silence;
mod snapshot;
#[cfg(not(loom))]
pub(crate) mod story;
mod text;
#[cfg(not(loom))]
pub(crate) mod trace_file;
mod tracks;
mod utc;
pub(crate) mod workers;
