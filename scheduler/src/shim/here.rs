//! Which thread and which carrier run here: the only thread-locals of the runtime.
//!
//! The compiler may keep the address of a thread-local over a call that switches stacks, so each
//! access is in a function of its own that is never inlined and returns a copy. No borrow of one
//! is held across a switch.
//!
//! This floor knows neither carriers nor green threads. It has their addresses, and knows of each no more than
//! its first field: [`Host`] and [`Front`]. `current.rs` says what the addresses really lead to.

use std::cell::Cell;
use std::ptr;

/// The first field of a carrier.
#[derive(Debug)]
pub(crate) struct Host {
    /// The thread pointer of the carrier's OS thread (`thread_locals`).
    pub(crate) pointer: Cell<usize>,
}

/// The first field of a thread's header.
#[derive(Debug)]
pub(crate) struct Front {
    /// Above zero while hooked calls of libc must not suspend the thread. Only the thread itself touches it.
    pub(crate) bypass: Cell<u32>,
}

impl Front {
    pub(crate) const fn new() -> Self {
        Self {
            bypass: Cell::new(0),
        }
    }
}

/// What the runtime keeps of the thread that runs on an OS thread.
#[derive(Debug)]
pub(crate) struct Here {
    /// The carrier that this OS thread is; null if it is none.
    carrier: Cell<*const Host>,
    /// The thread that runs here: a green one, else the OS thread itself once it has a header.
    running: Cell<*const Front>,
    /// In a block of a green thread: the number of the OS thread that has lent it its words of `malloc`
    /// (`thread_locals/heap.rs`).
    lender: Cell<usize>,
}

#[cfg(not(loom))]
thread_local! {
    static HERE: Here = const {
        Here {
            carrier: Cell::new(ptr::null()),
            running: Cell::new(ptr::null()),
            lender: Cell::new(0),
        }
    };
}

#[cfg(loom)]
loom::thread_local! {
    static HERE: Here = Here {
        carrier: Cell::new(ptr::null()),
        running: Cell::new(ptr::null()),
        lender: Cell::new(0),
    };
}

/// The carrier that this OS thread is, or null.
#[inline(never)]
pub(crate) fn carrier() -> *const Host {
    HERE.with(|here| here.carrier.get())
}

/// The thread pointer of this OS thread, if it is a carrier. Zero: it is none.
#[cfg(not(loom))]
#[cfg_attr(
    not(target_env = "gnu"),
    allow(
        dead_code,
        reason = "only green threads with their own thread-locals need it"
    )
)]
#[allow(unsafe_code, reason = "a carrier outlives what runs on its OS thread")]
#[inline(never)]
pub(crate) fn host_pointer() -> usize {
    let carrier = carrier();
    if carrier.is_null() {
        return 0;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    unsafe { (*carrier).pointer.get() }
}

#[inline(never)]
pub(crate) fn set_carrier(carrier: *const Host) {
    HERE.with(|here| here.carrier.set(carrier));
}

/// The address of this `Here` for the running thread.
#[cfg_attr(
    not(target_env = "gnu"),
    allow(
        dead_code,
        reason = "only green threads with their own thread-locals need it"
    )
)]
#[inline(never)]
pub(crate) fn here() -> *const Here {
    HERE.with(ptr::from_ref)
}

/// Writes into a block of thread-locals which green thread has it.
///
/// # Safety
/// The block is complete and nobody runs on it.
#[cfg_attr(
    not(target_env = "gnu"),
    allow(
        dead_code,
        reason = "only green threads with their own thread-locals need it"
    )
)]
#[allow(unsafe_code, reason = "a block of thread-locals that nobody runs on")]
#[inline]
pub(crate) unsafe fn arrive(here: *const Here, header: *const Front) {
    // SAFETY: by contract.
    unsafe { (*here).running.set(header) };
}

/// Writes into a block of thread-locals which carrier drives its green thread from here on, and the number of
/// the carrier's OS thread as a lender. False: the block has the words of another OS thread.
///
/// # Safety
/// As `arrive`.
#[cfg_attr(
    not(target_env = "gnu"),
    allow(
        dead_code,
        reason = "only green threads with their own thread-locals need it"
    )
)]
#[allow(unsafe_code, reason = "a block of thread-locals that nobody runs on")]
#[inline(never)]
pub(crate) unsafe fn drive(here: *const Here, carrier: *const Host, lender: usize) -> bool {
    // SAFETY: by contract.
    unsafe {
        (*here).carrier.set(carrier);
        (*here).lender.replace(lender) == lender
    }
}

/// The green thread that runs here, or the OS thread's own header if it has one, or null.
#[inline(never)]
pub(crate) fn running() -> *const Front {
    HERE.with(|here| here.running.get())
}

/// The carrier that this OS thread is, and the thread that runs here, by one look. Each may be null.
#[inline(never)]
pub(crate) fn carrier_and_running() -> (*const Host, *const Front) {
    HERE.with(|here| (here.carrier.get(), here.running.get()))
}

/// As `running`; null also where the thread-locals are gone, which only a model sees.
#[inline(never)]
pub(crate) fn running_if_any() -> *const Front {
    HERE.try_with(|here| here.running.get())
        .unwrap_or(ptr::null())
}

/// True: it could be set (the thread-locals are still there).
#[inline(never)]
pub(crate) fn set_running(header: *const Front) -> bool {
    HERE.try_with(|here| here.running.set(header)).is_ok()
}
