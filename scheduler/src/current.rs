//! Who runs here: the only thread-locals of the runtime.
//!
//! The compiler may keep the address of a thread-local over a call that switches stacks, so each
//! access is in a function of its own that is never inlined and returns a copy. No borrow of one
//! is held across a switch.
#![allow(
    unsafe_code,
    reason = "the copies are raw pointers to what runs on this OS thread"
)]

use std::cell::Cell;
use std::ptr;

use crate::carrier::Carrier;
use crate::green_thread::{Header, Task};
use crate::handle::GreenThread;

/// What the runtime keeps of the thread that runs on an OS thread.
#[derive(Debug)]
pub(crate) struct Here {
    /// The carrier that this OS thread is; null on any other.
    carrier: Cell<*const Carrier>,
    /// The thread that runs here: a green one, else the OS thread itself once it has a header.
    running: Cell<*const Header>,
    /// In a block of a green thread: the number of the OS thread whose words of `malloc`'s it has
    /// (`thread_locals/heap.rs`).
    lender: Cell<usize>,
}

/// The header of an OS thread, until the thread ends.
struct OsThread(Task);

impl Drop for OsThread {
    fn drop(&mut self) {
        // False if the thread-locals are gone; only in a model.
        if !set_running(&raw const *self.0) {
            return;
        }
        // So that what is thrown from now on is dropped by whoever throws it.
        self.0.cold();
        let rest = crate::join::wind_up(&self.0, || (), || ());
        crate::join::end(&self.0, rest);
        set_running(ptr::null());
    }
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
    static OS_THREAD: Cell<Option<OsThread>> = const { Cell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static HERE: Here = Here {
        carrier: Cell::new(ptr::null()),
        running: Cell::new(ptr::null()),
        lender: Cell::new(0),
    };
    static OS_THREAD: Cell<Option<OsThread>> = Cell::new(None);
}

/// The carrier that this OS thread is, or null.
#[inline(never)]
pub(crate) fn carrier() -> *const Carrier {
    HERE.with(|here| here.carrier.get())
}

/// The thread pointer of the OS thread that is a carrier; zero if this is none.
#[cfg(not(loom))]
#[cfg_attr(
    not(target_env = "gnu"),
    allow(
        dead_code,
        reason = "only green threads with their own thread-locals need it"
    )
)]
#[inline(never)]
pub(crate) fn host_pointer() -> usize {
    let carrier = carrier();
    if carrier.is_null() {
        return 0;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    unsafe { (*carrier).host.get() }
}

#[inline(never)]
pub(crate) fn set_carrier(carrier: *const Carrier) {
    HERE.with(|here| here.carrier.set(carrier));
}

/// Where this is kept for the running thread.
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

/// In a block of thread-locals: which green thread has it.
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
#[inline]
pub(crate) unsafe fn arrive(here: *const Here, header: *const Header) {
    // SAFETY: by contract.
    unsafe { (*here).running.set(header) };
}

/// In a block of thread-locals: which carrier drives its green thread from here on, and the number of
/// its OS thread as a lender. False: the block has the words of another one.
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
#[inline(never)]
pub(crate) unsafe fn drive(here: *const Here, carrier: *const Carrier, lender: usize) -> bool {
    // SAFETY: by contract.
    unsafe {
        (*here).carrier.set(carrier);
        (*here).lender.replace(lender) == lender
    }
}

/// The green thread that runs here, or the OS thread's own header if it has one, or null.
#[inline(never)]
fn running() -> *const Header {
    HERE.with(|here| here.running.get())
}

/// The carrier that this OS thread is, and what runs here, in one look; either may be null.
#[inline(never)]
pub(crate) fn carrier_and_running() -> (*const Carrier, *const Header) {
    HERE.with(|here| (here.carrier.get(), here.running.get()))
}

/// As `running`; null also where the thread-locals are gone.
#[cfg(loom)]
pub(crate) fn running_if_any() -> *const Header {
    HERE.try_with(|here| here.running.get())
        .unwrap_or(ptr::null())
}

/// True: it could be set (the thread-locals are still there).
#[inline(never)]
pub(crate) fn set_running(header: *const Header) -> bool {
    HERE.try_with(|here| here.running.set(header)).is_ok()
}

/// The header of the running thread, green or not. It lives as long as the thread runs.
#[inline]
pub(crate) fn header() -> *const Header {
    let header = running();
    if header.is_null() {
        os_header()
    } else {
        header
    }
}

/// Has the OS thread itself be the running one, as `on_os_thread` does, and makes sure that it has a
/// header. Returns who runs here in truth, to be set again; null if nobody does.
#[cfg(not(loom))]
#[inline(never)]
pub(crate) fn become_os_thread() -> *const Header {
    let before = running();
    // SAFETY: what runs here is alive.
    if before.is_null() || unsafe { (*before).is_green() } {
        os_header();
    }
    before
}

/// The OS thread's header, if it has one already.
#[inline(never)]
fn os_header_if_any() -> *const Header {
    let known = OS_THREAD.try_with(|cell| {
        let owner = cell.take();
        let header: *const Header = owner.as_ref().map_or(ptr::null(), |it| &raw const *it.0);
        cell.set(owner);
        header
    });
    known.unwrap_or(ptr::null())
}

/// Gives this OS thread a header, or finds the one that it has.
#[cold]
#[inline(never)]
fn os_header() -> *const Header {
    let known = os_header_if_any();
    if !known.is_null() {
        set_running(known);
        return known;
    }
    #[cfg(not(loom))]
    let name = std::thread::current().name().map(Into::into);
    #[cfg(loom)]
    let name = None;
    let task = Task::new_os(name);
    let header: *const Header = &raw const *task;
    let mut owner = Some(OsThread(task));
    if OS_THREAD.try_with(|cell| cell.set(owner.take())).is_err() {
        // The thread is at its very end, in the destructors of its thread-locals, and they use weald:
        // it has a header once more, which never ends and which nobody frees. No values are made
        // there, as nobody would drop them.
        if let Some(OsThread(task)) = owner.as_ref() {
            // SAFETY: the thread speaks of itself.
            unsafe { task.local() }.locals.close();
        }
        std::mem::forget(owner);
    }
    set_running(header);
    header
}

/// The running green thread's header, or `None` on a plain OS thread.
#[inline]
pub(crate) fn green() -> Option<*const Header> {
    let header = running();
    // SAFETY: what runs here is alive.
    (!header.is_null() && unsafe { (*header).is_green() }).then_some(header)
}

/// A handle to the running thread; on a plain OS thread, to that.
///
/// # Examples
/// ```
/// let me = weald_scheduler::current();
/// me.unpark();
/// weald_scheduler::park(); // returns at once
/// ```
pub fn current() -> GreenThread {
    // SAFETY: the header of the running thread is alive.
    GreenThread(Task::from_header(unsafe { &*header() }))
}

/// True in a green thread, false on a plain OS thread.
///
/// # Examples
/// ```
/// assert!(!weald_scheduler::is_green());
/// let rt = weald_scheduler::Runtime::builder().workers(1).build()?;
/// assert!(rt.run(weald_scheduler::is_green));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn is_green() -> bool {
    green().is_some()
}
