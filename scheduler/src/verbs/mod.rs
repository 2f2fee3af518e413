//! What programs call.

pub(crate) mod blocking;
pub(crate) mod builder;
pub(crate) mod call_after;
pub(crate) mod default_runtime;
pub(crate) mod error;
pub(crate) mod exc_after;
pub(crate) mod fork_join;
pub(crate) mod group;
pub mod io;
pub(crate) mod join;
#[cfg(not(loom))]
pub(crate) mod leftovers;
pub(crate) mod make;
#[cfg(not(loom))]
pub(crate) mod on_os_thread;
pub(crate) mod outcome;
#[cfg(not(loom))]
pub(crate) mod panic_hook;
#[cfg(not(loom))]
pub mod patch;
pub(crate) mod runtime;
#[cfg(not(loom))]
pub(crate) mod runtime_handle;
pub(crate) mod scope;
pub(crate) mod selection;
pub(crate) mod sleep;
pub(crate) mod spawn;
pub(crate) mod timeout;
pub(crate) mod timer;
pub(crate) mod trace;
mod variables;
