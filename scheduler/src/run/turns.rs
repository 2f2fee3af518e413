//! A carrier's OS thread from its start to its end: turn after turn, each with the next thread to run.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use std::io;
use std::ptr;

use crate::engine::carrier::{self, Carrier};
use crate::engine::inner::Inner;
use crate::engine::seat::Waited;
use crate::engine::worker::Worker;
use crate::engine::worker::queues::CLASS_INTERVAL;
use crate::green::green_thread::Task;
use crate::parts::coroutine::Control;
use crate::parts::last_words;
use crate::parts::slice::Slice;
use crate::parts::stack;
use crate::parts::thread_locals;
use crate::parts::threads::Which;
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;

/// If threads must stay on their carrier, every fourth dispatch is for the other threads. Fewer dispatches would harm
/// programs with many such threads, more would harm programs with few of them. A guess.
const OTHERS_INTERVAL: u32 = 4;

/// Which dispatch of an interval begins with the carrier's own threads that gave way. It is no multiple of
/// `OTHERS_INTERVAL`, whose dispatches begin with the other threads.
const OWN_YIELDED: u32 = 2;

/// Starts the OS thread of a carrier that was given a seat.
pub(crate) fn start(inner: &Arc<Inner>, index: usize) -> io::Result<()> {
    let shared = Arc::clone(inner);
    let name = format!("{}-{index}", inner.settings.thread_name);
    inner.threads.start(which(inner, index), name, move || {
        let this = &shared.carriers[index];
        this.inner.set(Inner::address(&shared));
        this.host.pointer.set(thread_locals::host_pointer());
        this.control.set(Control::current());
        this.os_thread.store(os_thread(), Ordering::Relaxed);
        this.slice.set(Slice::Ordinary);
        carrier::set_here(this);
        let alt_stack = stack::overflow::AltStack::for_this_thread();
        let guard = AbortOnPanic;
        if let Some(own) = shared.settings.own {
            own.note_lent_words(&this.lent_words);
            this.run::<true>(&shared);
        } else {
            this.run::<false>(&shared);
        }
        std::mem::forget(guard);
        drop(alt_stack);
        carrier::set_here(ptr::null());
    })
}

fn which(inner: &Inner, index: usize) -> Which {
    if index < inner.settings.workers {
        Which::Carrier(index)
    } else {
        Which::Spare(index)
    }
}

/// The system's id of the running OS thread. 0 on systems on which nobody asks for it.
fn os_thread() -> usize {
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    // SAFETY: the call has no conditions.
    return usize::try_from(unsafe { libc::gettid() }).unwrap_or(0);
    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    0
}

/// Ends the process if the scheduler itself panics: a seat would be lost, and all threads that wait for it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    #[cold]
    fn drop(&mut self) {
        last_words::abort(format_args!("a panic in the scheduler"));
    }
}

impl Carrier {
    /// The loop. `OWN`: green threads have thread-locals of their own. The compiler makes a loop for each of the two
    /// cases, so that neither costs the other anything.
    fn run<const OWN: bool>(&self, inner: &Arc<Inner>) {
        self.door.enter();
        loop {
            let Some(worker) = self.seat() else {
                if let Some(task) = self.stays.take() {
                    self.go_on_without_seat(inner, task);
                    continue;
                }
                // Looks at the mail by its lock. If this misses a sender, that sender sees that there is no seat.
                let needs = || !self.private().is_empty() || self.mail.len() > 0;
                let keep = self.settled.get() > 0;
                match inner.seats.wait(inner, self.index, needs, keep) {
                    Waited::Seated(index) => {
                        self.since.set(Some(clock::now()));
                        self.take_over(inner);
                        self.sit(Some(&inner.workers[index]));
                        // Threads that must run here may have waited for this seat in the mail. If a hog of this
                        // carrier ran before them, it would give the seat away, and they would wait as long again.
                        self.take_mail();
                    }
                    Waited::Stopping => break,
                    Waited::Retired
                        if fault!("carrier_is_counted_out_twice") && inner.is_stopping() =>
                    {
                        break;
                    }
                    Waited::Retired => {
                        self.retire(inner);
                        return;
                    }
                }
                continue;
            };
            if inner.is_stopping() {
                self.sit(None);
                break;
            }
            let next = self.next(inner, worker);
            match next.or_else(|| self.next_reserved(inner)) {
                Some(task) => {
                    let mut next = Some(task);
                    while let Some(task) = next {
                        next = self.dispatch::<OWN>(inner, worker, task);
                    }
                }
                None if self.seat().is_none() => {}
                None => self.idle(inner, worker),
            }
        }
        inner.seats.ended();
    }

    /// This carrier was not needed for long. Its OS thread ends.
    #[cold]
    fn retire(&self, inner: &Inner) {
        let before = inner.threads.retire(which(inner, self.index));
        // From here on another OS thread may be this carrier.
        inner.seats.retired(self.index);
        before.join();
    }

    /// The next thread to run, if there is one here.
    #[inline(always)]
    fn next(&self, inner: &Arc<Inner>, worker: &Worker) -> Option<Task> {
        // SAFETY: the seat is held; the reference ends before anything is run.
        let core = unsafe { worker.core() };
        if core.tick() {
            let task = self.look_at_arrivals(inner, worker);
            if task.is_some() {
                return task;
            }
        }
        // SAFETY: as above, taken anew.
        let core = unsafe { worker.core() };
        if core.clock_is_due() && !self.look_at_clock(inner, worker) {
            return None;
        }
        if !self.private().is_empty() {
            return self.next_of_all(inner, worker);
        }
        // SAFETY: as above, taken anew.
        unsafe { worker.core() }.next(worker)
    }

    /// As `next`, if threads that must stay on this carrier are ready.
    #[inline(never)]
    fn next_of_all(&self, inner: &Inner, worker: &Worker) -> Option<Task> {
        let private = self.private();
        // SAFETY: the seat is held; the reference ends before anything is run.
        let core = unsafe { worker.core() };
        let ticks = core.ticks();
        if private.is_hogs_turn() && inner.seats.has_taker() {
            // The hog gives the seat away before it runs. So the other threads run at once, and those that have not started
            // do so on another carrier: here they would have to wait for the hog ever after.
            return private.pop_yielded();
        }
        // Three of four dispatches begin with the carrier's own threads, and one in 16 of these with those that gave
        // way. Each fourth dispatch begins with the worker's queues. Among these dispatches are all at which
        // `Core::next` begins with `yielded` or with the oldest thread of `fresh`.
        let others_first = ticks.is_multiple_of(OTHERS_INTERVAL);
        if others_first && let Some(task) = core.next(worker) {
            return Some(task);
        }
        if ticks % CLASS_INTERVAL == OWN_YIELDED
            && let Some(task) = private.pop_yielded()
        {
            return Some(task);
        }
        if let Some(task) = private.pop_woken() {
            return Some(task);
        }
        if !others_first && let Some(task) = core.next(worker) {
            return Some(task);
        }
        private.pop_yielded()
    }
}
