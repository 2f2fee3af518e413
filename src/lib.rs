//! Green threads for all cores.
pub use weald_scheduler::*;
