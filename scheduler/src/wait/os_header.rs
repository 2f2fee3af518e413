//! The header of an OS thread, which is made when it is first needed. With it all waits work alike, and everything of
//! weald works on OS threads too.
#![allow(
    unsafe_code,
    reason = "the copies are raw pointers to what runs on this OS thread"
)]

use std::cell::Cell;
use std::ptr;

use crate::green::current::{running, running_if_any, set_running};
use crate::green::green_thread::{Header, Task};
use crate::green::handle::GreenThread;
use crate::wait::end;
use crate::wait::scheduler::Scheduler;

/// The header of an OS thread, until the thread ends.
struct OsThread(Task);

impl Drop for OsThread {
    fn drop(&mut self) {
        // A green thread with an OS thread for itself may still use weald in later destructors.
        let before = running_if_any();
        // SAFETY: what runs here is alive.
        let is_green = !before.is_null() && unsafe { (*before).is_green() };
        // False if the thread-locals are gone; only in a model.
        if !set_running(&raw const *self.0) {
            return;
        }
        // From now on a thread that throws drops its error itself.
        self.0.cold();
        let rest = end::wind_up(&self.0, || (), || ());
        end::end(&self.0, rest);
        set_running(if is_green { before } else { ptr::null() });
    }
}

#[cfg(not(loom))]
thread_local! {
    static OS_THREAD: Cell<Option<OsThread>> = const { Cell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static OS_THREAD: Cell<Option<OsThread>> = Cell::new(None);
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

/// Makes the OS thread itself the running thread, for `on_os_thread`, and sees to it that it has a
/// header. Returns the thread that really runs here, which the caller must set again later; null: there is none.
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
    let task = Task::new_os::<Scheduler>(name);
    let header: *const Header = &raw const *task;
    let mut owner = Some(OsThread(task));
    if OS_THREAD.try_with(|cell| cell.set(owner.take())).is_err() {
        // The thread is at its very end: destructors of its thread-locals use weald. So it gets a header once more,
        // which never ends and which nobody frees. This header makes no values of `green_local!`, because nobody would
        // drop them.
        if let Some(OsThread(task)) = owner.as_ref() {
            // SAFETY: the thread speaks of itself.
            unsafe { task.local() }.locals.close();
        }
        std::mem::forget(owner);
    }
    set_running(header);
    header
}

/// A handle to the running thread; on a plain OS thread, to that.
///
/// # Examples
/// ```
/// let me = weald::current();
/// me.unpark();
/// weald::park(); // returns at once
/// ```
pub fn current() -> GreenThread {
    // SAFETY: the header of the running thread is alive.
    GreenThread(Task::from_header(unsafe { &*header() }))
}
