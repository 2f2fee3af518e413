//! The end of a green thread, off its stack: its stack and block go back, and its joiners go on.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::worker::{Worker, count};
use crate::green::green_thread::{Header, Task};
use crate::parts::stack;
use crate::parts::thread_locals::{self, Block};
use crate::run::birth::{self, Birth};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;
use crate::wait::end::{self, Orphan, Rest};

impl Carrier {
    #[inline(always)]
    pub(super) fn finished(&self, inner: &Arc<Inner>, task: &Task) {
        if record::is_on() {
            self.note_end(task);
        }
        // SAFETY: the running reference is ours.
        let coroutine = unsafe { (*task.coroutine.get()).take() };
        let stack = coroutine.expect("it has just run").into_stack();
        // SAFETY: as above.
        let block = unsafe { (*task.block.get()).take() };
        match self.seat() {
            Some(worker) => {
                // SAFETY: the seat is held; ends with the block.
                let core = unsafe { worker.core() };
                core.stacks.put(stack);
                if let Some(block) = block {
                    core.blocks.put(block);
                }
            }
            None => Self::release(inner, stack, block),
        }
        if task.home.load(Ordering::Relaxed) != 0 {
            self.settled.set(self.settled.get() - 1);
        }
        if task.registered.get() {
            inner.registry.remove(task);
        }
        self.see_to_rest(inner, task);
    }

    /// Gives the stack and the block of a thread that has ended without a seat to all workers.
    #[cold]
    #[inline(never)]
    fn release(inner: &Inner, stack: stack::Stack, block: Option<Block>) {
        stack::release(stack);
        block.into_iter().for_each(thread_locals::release);
        // If all workers sleep, nobody would give the memory back to the system. No model has such memory.
        if !cfg!(loom) {
            inner.notify();
        }
    }

    /// Wakes the joiners of a thread that is DONE, and has another thread drop the result that nobody will take.
    #[inline(always)]
    pub(super) fn see_to_rest(&self, inner: &Arc<Inner>, task: &Task) {
        let remains = task.state.remains();
        if remains.joiners {
            self.wake_joiners(inner, task);
        }
        if remains.result || remains.errors {
            Self::adopt(inner, task);
        }
        inner.one_ended();
    }

    /// Starts the thread that drops what the ended thread leaves. That thread has been counted already.
    #[cold]
    #[inline(never)]
    fn adopt(inner: &Arc<Inner>, task: &Task) {
        if let Some(orphan) = Orphan::of(task) {
            birth::start_detached(inner, Birth::Counted, move || drop(orphan));
        }
    }

    #[inline(never)]
    fn wake_joiners(&self, inner: &Arc<Inner>, task: &Task) {
        end::wake_joiners(task);
        if inner.idle.several() && self.seat().is_some_and(Worker::has_stealable) {
            inner.notify();
        }
    }

    /// Counts a thread that has wound up as ended, and makes it DONE. Runs on that thread, which waits no more. This
    /// must not allocate and must not wake anybody: that might use the thread's thread-locals again, and nobody would
    /// clean them up.
    pub(super) fn end(&self, inner: &Inner, task: &Header, rest: Rest) {
        self.ending.begin();
        {
            let _inside = self.door.section();
            match self.seat() {
                Some(worker) => {
                    count(&worker.counters.ended);
                }
                None => {
                    inner.ended_without_seat.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        if end::finish(task, rest) {
            // This counts the thread that drops what this one leaves.
            inner.spawned_without_seat.fetch_add(1, Ordering::AcqRel);
        }
        self.ending.end();
    }
}
