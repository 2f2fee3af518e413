//! A carrier: one OS thread's part in a runtime. `run/` has its loop.
//!
//! Invariant 1: `private`, the pen and the cells are touched only on the carrier's OS thread.
//! Invariant 2: the carrier touches a worker's core only as its owner
//! ([`Worker::core`](crate::engine::worker::Worker::core)): in the loop, which goes out of the door only to run a green
//! thread, or while that thread calls [`with_core`]. So if the thread does not come back, the monitor may take the seat.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

mod away;
mod budget;
mod inside;
mod mail;
mod schedule;
mod spend;
mod table;
mod unwinding;
mod wait_timer;

use std::cell::{Cell, RefCell};
use std::ptr;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::engine::private::Private;
use crate::engine::worker::Worker;
use crate::green::green_thread::{AnyRuntime, Header, Task};
use crate::parts::coroutine::Control;
use crate::parts::door::Door;
use crate::parts::ends::Ending;
#[cfg(not(loom))]
use crate::parts::recorder::book::Pen;
use crate::parts::slice::Slice;
use crate::parts::thread_locals::LentWords;
use crate::shim::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::here::Host;
use crate::shim::sync::Arc;

use self::budget::Budget;
use self::mail::Mail;

pub(crate) use self::away::{Away, away_in_place};
pub(crate) use self::budget::SLICE;
pub(crate) use self::inside::{
    carrier_of, current_runtime, here, here_and_thread, set_here, with_cells, with_core,
    with_runtime,
};
pub(crate) use self::schedule::{schedule, stamp};
pub(crate) use self::spend::{give_way_from, spend, spend_from, spend_time};
pub(crate) use self::table::Carriers;
pub(crate) use self::unwinding::{Unwinding, can_suspend};
pub(crate) use self::wait_timer::arm;

/// One OS thread's part in a runtime. Each lies on cache lines of its own, as workers do.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Carrier {
    /// What the lower floors know of the carrier. They use the address of this field, which is the carrier's.
    pub(crate) host: Host,
    pub(crate) index: usize,
    pub(crate) inner: Cell<*const AnyRuntime>,
    /// The floating-point control of its OS thread. Code on the OS thread's own stack never changes it.
    pub(crate) control: Cell<Control>,
    /// The system's id of its OS thread.
    pub(crate) os_thread: AtomicUsize,
    /// Its way to the worker whose seat it holds.
    pub(crate) door: Door<Worker>,
    /// The thread that runs here is in a blocking call, and must not leave this OS thread. Only the carrier writes it;
    /// others may look.
    pub(crate) away: AtomicBool,
    /// When it was given its seat.
    pub(crate) since: Cell<Option<Instant>>,
    /// The monitor has reported the thread that runs here, without a seat, as a hog.
    pub(crate) reported: AtomicBool,
    /// The thread that runs here while the carrier is outside; others look only while they hold the carrier out.
    pub(crate) running: AtomicPtr<Header>,
    pub(crate) private: UnsafeCell<Private>,
    pub(crate) private_len: Arc<CachePadded<AtomicUsize>>,
    pub(crate) mail: Mail<Task>,
    /// Started threads that must stay here and have not ended.
    pub(crate) settled: Cell<usize>,
    /// A hog that has given way here without a seat and goes on here (`without_seat.rs`).
    pub(crate) stays: RefCell<Option<Task>>,
    /// The words of `malloc` that the OS thread lends to the green threads that run on it.
    pub(crate) lent_words: LentWords,
    pub(crate) budget: Budget,
    /// The green thread that runs here is about to be DONE.
    pub(crate) ending: Ending,
    /// What its OS thread has asked the kernel for.
    pub(crate) slice: Cell<Slice>,
    /// What it notes for the flight recorder; its OS thread's.
    #[cfg(not(loom))]
    pub(crate) pen: UnsafeCell<Pen>,
    /// When a thread that runs here last gave a fork to others (`fork_join.rs`).
    pub(crate) shared: Cell<Option<Instant>>,
}

// SAFETY: cells and `private` belong to the carrier's OS thread (invariant 1), the rest is shared.
unsafe impl Sync for Carrier {}
// SAFETY: nothing in it belongs to an OS thread before one was started for it.
unsafe impl Send for Carrier {}

impl Carrier {
    pub(crate) fn new(index: usize) -> Self {
        let private = Private::default();
        Self {
            host: Host {
                pointer: Cell::new(0),
            },
            index,
            inner: Cell::new(ptr::null()),
            control: Cell::new(Control::current()),
            os_thread: AtomicUsize::new(0),
            door: Door::new(),
            away: AtomicBool::new(false),
            since: Cell::new(None),
            reported: AtomicBool::new(false),
            running: AtomicPtr::new(ptr::null_mut()),
            private_len: private.shown_len(),
            private: UnsafeCell::new(private),
            mail: Mail::new(),
            settled: Cell::new(0),
            stays: RefCell::new(None),
            lent_words: LentWords::default(),
            budget: Budget::new(),
            ending: Ending::new(),
            slice: Cell::new(Slice::Ordinary),
            #[cfg(not(loom))]
            pen: UnsafeCell::new(Pen::new()),
            shared: Cell::new(None),
        }
    }

    /// The worker whose seat this carrier holds. Called inside the door.
    #[inline(always)]
    pub(crate) fn seat(&self) -> Option<&Worker> {
        // SAFETY: workers live as long as the runtime, which the carrier's OS thread keeps.
        unsafe { self.door.seat().as_ref() }
    }

    /// A green thread has said that it blocks this OS thread. For other OS threads a hint.
    #[inline]
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// How many ready threads must run here. The number may be out of date.
    pub(crate) fn queued(&self) -> usize {
        self.private_len.load(Ordering::Relaxed) + self.mail.len()
    }

    /// Takes a seat, or lets go of it. Called inside the door.
    pub(crate) fn sit(&self, worker: Option<&Worker>) {
        self.door.sit(worker.map_or(ptr::null(), ptr::from_ref));
    }

    #[inline(always)]
    #[allow(
        clippy::mut_from_ref,
        reason = "the OS thread's own, held for a statement"
    )]
    pub(crate) fn private(&self) -> &mut Private {
        // SAFETY: only this OS thread gets here (invariant 1), and no reference is kept.
        self.private.with_mut(|private| unsafe { &mut *private })
    }
}
