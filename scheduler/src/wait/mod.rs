//! The rules of waiting and waking, of exceptions and of the end of a thread. `green` holds the data.

pub(crate) mod end;
pub(crate) mod exception;
#[cfg(not(loom))]
pub(crate) mod flights;
pub(crate) mod green_local;
pub(crate) mod os_header;
pub(crate) mod permits_wait;
pub(crate) mod scheduler;
pub(crate) mod wait_queue;
pub(crate) mod waiter;
pub(crate) mod wake;
