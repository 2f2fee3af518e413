//! What the memory and the result of a thread need of the scheduler.
#![allow(unsafe_code, reason = "the memory of threads that are over")]

use std::alloc::Layout;
#[cfg(loom)]
use std::any::Any;
use std::ptr::NonNull;
use std::thread;

use crate::green::cells;
use crate::green::green_thread::{AnyRuntime, Engine, Header};
use crate::wait::exception;

/// The engine of all threads, green and OS.
pub(crate) struct Scheduler;

impl Engine for Scheduler {
    #[inline]
    fn outcome<T>(header: &Header, result: thread::Result<T>) -> thread::Result<T> {
        exception::or_reported(header, result)
    }

    #[cfg(loom)]
    fn unseen(header: &Header, payload: &(dyn Any + Send)) {
        crate::thin::dropped(header, payload);
    }

    /// The memory stays with the caller's worker, if that belongs to the runtime. Else it is freed.
    #[inline]
    unsafe fn give_back(memory: NonNull<u8>, layout: Layout, runtime: *const AnyRuntime) {
        let keep = |class, piece| {
            let mut piece = Some(piece);
            crate::engine::carrier::with_cells(runtime, |cells| {
                piece = piece.take().and_then(|piece| cells.put(class, piece).err());
            });
            piece
        };
        // SAFETY: by contract.
        unsafe { cells::give_back(memory, layout, keep) };
    }
}
