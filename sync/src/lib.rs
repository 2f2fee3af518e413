//! Synchronisation for green threads and OS threads, in any mix, in the form of `std::sync` and of crossbeam's
//! channels.
//!
//! This crate is a part of `weald`, which re-exports its public items as `weald::sync`. A wait blocks the green
//! thread and not the worker. All waits are blocking calls in the sense of `weald`: an exception (`kill`, `timeout`,
//! `exc_after`) ends them by unwinding. Then no lock is held, no permit is taken, and no wake-up of another thread is
//! lost.

#[macro_use]
mod shim;

mod barrier;
mod block_on;
pub mod channel;
mod condvar;
mod event;
mod lazy_lock;
mod mutex;
mod once;
mod once_lock;
pub mod oneshot;
mod poison;
mod promise;
mod raw_mutex;
mod raw_rwlock;
mod rwlock;
mod select_macro;
mod selecting;
mod semaphore;
mod wait_group;

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

pub use crate::barrier::{Barrier, BarrierWaitResult};
pub use crate::block_on::block_on;
pub use crate::condvar::{Condvar, WaitTimeoutResult};
pub use crate::event::Event;
pub use crate::lazy_lock::LazyLock;
pub use crate::mutex::{Mutex, MutexGuard};
pub use crate::once::{Once, OnceState};
pub use crate::once_lock::OnceLock;
pub use crate::promise::{Promise, PromiseError};
pub use crate::raw_mutex::RawMutex;
pub use crate::raw_rwlock::RawRwLock;
pub use crate::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use crate::semaphore::{OwnedPermit, Permit, Semaphore};
pub use crate::wait_group::WaitGroup;

/// What `select!` expands to. Not for users.
#[doc(hidden)]
pub mod select_parts {
    pub use crate::channel::arm::{RecvArm, SendArm, Ticket};
    pub use crate::selecting::{Arm, JoinArm, Limit, PollArm, run};
}
