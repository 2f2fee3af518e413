//! What the workers of a runtime share, and how a thread is made ready: workers, carriers, seats, the door to a core.

pub(crate) mod blocking_calls;
pub(crate) mod carrier;
pub(crate) mod inner;
pub(crate) mod monitor;
pub(crate) mod permits;
pub(crate) mod private;
#[cfg_attr(loom, path = "record/none.rs")]
pub(crate) mod record;
mod resize;
pub(crate) mod seat;
pub(crate) mod settings;
pub(crate) mod share_forks;
pub(crate) mod starts;
pub(crate) mod worker;
