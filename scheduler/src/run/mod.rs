//! The loop of a carrier, the OS thread that drives a worker. Run, search, sleep.
//!
//! ```text
//! loop {
//!     no seat?            wait for one (seat.rs)
//!     every 61 dispatches the injector; every few, by the clock: timers, poller
//!     own queues          the carrier's private ones, the worker's (engine/worker/)
//!     nothing there       mail, injector, timers, poller
//!     still nothing       search: steal from the others, drain the pollers of late ones
//!     still nothing       announce sleep, look everywhere once more (parts/idle.rs), sleep in the poller
//! }
//! ```
//!
//! A green thread leaves its stack with a [`Note`](crate::green::green_thread::Note). What the note asks for is done
//! here, on the carrier's own stack. So a thread is never published while its stack is in use.
//!
//! Threads that must not migrate, once started, are in their carrier's private queues. Others reach
//! those through its mail (`mail.rs`).

mod afterwards;
pub(crate) mod birth;
mod change_over;
mod dispatch;
pub(crate) mod fire;
mod hogs;
mod limits;
mod look;
#[cfg(not(loom))]
pub(crate) mod own_thread;
mod publish;
mod retired;
mod search;
mod seen;
mod silence;
mod start;
mod turns;
mod watch;
mod without_seat;

pub(crate) use self::turns::start;
pub(crate) use self::watch::watch;
