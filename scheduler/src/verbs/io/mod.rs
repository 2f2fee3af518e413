//! What `net` and `sync` need of the scheduler: registering descriptors, waiting. Not for users.

mod calls;
#[cfg(not(loom))]
mod system;

pub use self::calls::*;
#[cfg(not(loom))]
pub use self::system::*;
