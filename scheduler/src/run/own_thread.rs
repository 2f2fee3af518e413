//! Green threads that have an OS thread for themselves (`Builder::own_thread`).
//!
//! Such a thread has no stack of weald's, no carrier and no block of thread-locals. For the C library, the system
//! and `thread_local!` it is its OS thread. In all else it is a green thread: it has a header, an inbox, values of
//! `green_local!` and a handle; it is counted, killed and dumped. Each of its waits blocks the OS thread
//! (`park_in_place` in `wait/waiter.rs`), as the waits of plain OS threads do. So workers, spare carriers and the
//! monitor need not know of it, however long it computes or blocks.
//!
//! 1. The spawner starts the OS thread first (`start`). If the system refuses it, that is an error, and no green thread
//!    was made. Then the green thread is made, counted, and handed over (`begin`).
//! 2. The OS thread enters the green thread in the registry, where `dump` and a shutdown find it. It runs the body and
//!    winds up.
//! 3. The OS thread destroys its thread-locals. Their destructors may use weald, still as this green thread.
//! 4. [`Last`] is the first thread-local that the OS thread makes, hence the last that it destroys. It drops what the others'
//!    destructors have made, counts the thread as ended, steps to DONE and wakes the joiners. So thread-locals are gone
//!    when a `join` returns, as with threads of std. A result or an error that nobody will take is dropped by another
//!    green thread, as its destructor may wait (`wait/end.rs`).
//!
//! Invariant: the OS thread keeps the runtime until it ends. A shutdown joins it, if all green threads have ended
//! (`threads.rs`).
#![allow(
    unsafe_code,
    reason = "this OS thread is the thread whose header it has"
)]

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::birth::{self, Birth};
use super::start::{doom_if_killed, end_hook};
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::green::current;
use crate::green::green_thread::{Header, Task};
use crate::parts::threads::Which;
use crate::shim::atomic::Ordering;
use crate::shim::bypass::Bypass;
use crate::shim::os_threads;
use crate::shim::sync::Arc;
use crate::wait::end::{self, Orphan, Rest};
use crate::wait::exception;

/// Starts an OS thread that waits for its green thread. It ends if none comes.
///
/// # Errors
/// The system's.
pub(crate) fn start(
    inner: &Arc<Inner>,
    name: Option<&str>,
    stack_size: Option<usize>,
) -> io::Result<Sender<Task>> {
    let number = (inner.own_threads_started).fetch_add(1, Ordering::Relaxed);
    // std takes no name with a zero in it.
    let name = match name {
        Some(name) => name.replace('\0', " "),
        None => format!("{}-own-{number}", inner.settings.thread_name),
    };
    let (sender, receiver) = channel();
    let shared = Arc::clone(inner);
    inner.threads.start_by(Which::Own(number), || {
        os_threads::spawn_with_stack(name, stack_size, move || live(&shared, number, &receiver))
    })?;
    Ok(sender)
}

/// Hands a thread over to the OS thread that waits for it.
#[cold]
pub(crate) fn begin(thread: &Sender<Task>, task: Task) {
    let _bypass = Bypass::enter();
    // The OS thread waits until a thread comes, or until no sender is left.
    if let Err(refused) = thread.send(task) {
        std::mem::forget(refused);
    }
}

/// The OS thread's body.
fn live(inner: &Arc<Inner>, number: usize, receiver: &Receiver<Task>) {
    let mut last = Last {
        inner: Arc::clone(inner),
        number,
        task: None,
    };
    // It is made before all other thread-locals of the OS thread, so it is destroyed after them.
    LAST.set(None);
    let task = receiver.recv().ok();
    let header: Option<*const Header> = task.as_ref().map(|task| &raw const **task);
    last.task = task;
    LAST.set(Some(last));
    if let Some(header) = header {
        // SAFETY: `LAST` keeps it until the OS thread ends.
        run(inner, unsafe { &*header });
    }
}

/// The life of the green thread.
fn run(inner: &Inner, header: &Header) {
    inner.own_threads.fetch_add(1, Ordering::Relaxed);
    current::set_running(header);
    enter_registry(inner, header);
    header.control.restore();
    // The stack beyond this frame belongs to the OS thread.
    let end = 0_u8;
    header.left_at.begin(ptr::from_ref(&end).addr());
    if let Some(hooks) = &inner.settings.hooks {
        hooks.resumed(&Task::from_header(header));
    }
    if record::is_on() {
        record::in_place(Kind::Run, header);
    }
    doom_if_killed(inner, header);
    // SAFETY: this is the thread itself, for the first time.
    unsafe { Task::run_body(header) };
    end::wind_up(header, || end_hook(inner, header), || ());
}

/// From now on a shutdown finds the thread. The lock of the registry decides which of the two kills the thread, as in
/// `Carrier::register`.
fn enter_registry(inner: &Inner, header: &Header) {
    inner.registry.insert(&Task::from_header(header), 0);
    if inner.is_killing() && !cfg!(panic = "abort") {
        exception::kill(header);
    }
}

/// Counts the thread as ended, and makes it DONE. True: the thread leaves something of the user's, and another thread,
/// which has been counted, must drop it. As in `Carrier::end`, a shutdown that sees the first count waits for the second.
fn count_out(inner: &Inner, task: &Header, rest: Rest) -> bool {
    let _only = inner.own_ends.lock();
    inner.own_ending.begin();
    inner.ended_without_seat.fetch_add(1, Ordering::AcqRel);
    let leaves = end::finish(task, rest);
    if leaves {
        inner.spawned_without_seat.fetch_add(1, Ordering::AcqRel);
    }
    inner.own_ending.end();
    leaves
}

thread_local! {
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

/// The end of the OS thread, and of its green thread if there was one.
struct Last {
    inner: Arc<Inner>,
    number: usize,
    task: Option<Task>,
}

impl Drop for Last {
    fn drop(&mut self) {
        let inner = &self.inner;
        if let Some(task) = self.task.take() {
            // Once more, for what the destructors of thread-locals have made.
            let rest = end::wind_up(&task, || (), || ());
            inner.registry.remove(&task);
            inner.own_threads.fetch_sub(1, Ordering::Relaxed);
            if record::is_on() {
                record::in_place(Kind::End, &task);
            }
            let leaves = count_out(inner, &task, rest);
            current::set_running(ptr::null());
            if task.state.remains().joiners {
                end::wake_joiners(&task);
            }
            // The destructors may wait, and a thread that is DONE does not.
            if leaves && let Some(orphan) = Orphan::of(&task) {
                birth::start_detached(inner, Birth::Counted, move || drop(orphan));
            }
            inner.one_ended();
        }
        inner.threads.retire(Which::Own(self.number)).join();
    }
}
