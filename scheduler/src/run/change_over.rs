//! The way from one green thread to the next, if each has thread-locals of its own.
//!
//! A write of the thread pointer costs as much as half a switch (18 ns in some virtual machines). If the carrier goes
//! back to its own block between two green threads, there are two such writes. So if it has nothing else to do
//! between them, it goes directly from the block of one thread to the block of the next:
//!
//! | on the block of   | the carrier                                                          |
//! |-------------------|----------------------------------------------------------------------|
//! | the last thread   | chooses the next one ([`Core::next_at_hand`](crate::engine::worker::Core))   |
//! | the next thread   | publishes the last one, as parked or in the queue of those that gave way |
//! | the carrier       | does everything else                                                 |
//!
//! 1. A thread is published only when its block is left, because another carrier may run on the block at once. On the
//!    next thread's block no other carrier can run: this one has the running reference.
//! 2. Libraries keep data per thread. What the carrier does on a green thread's block makes such data for that green
//!    thread: caches of malloc, or an entry in crossbeam's list of threads that may look at a deque. If the thread has
//!    ended, the entry stays for ever. So the carrier takes locks, allocates, steals and makes system calls on its own
//!    block. On a thread's block it takes only a few plain steps. Seldom a deque grows there; that thread is alive
//!    then, and cleans up when it ends.
//! 3. The carrier never goes this way from a thread that has ended, because nothing would clean up after that thread.
//! 4. All of this is inside the door, where no hooked call suspends (`patch.rs`).
//! 5. The function that writes the register touches no thread-local, and neither does what is inlined into it.
#![allow(unsafe_code, reason = "the threads whose running references it has")]

use std::mem;

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::worker::Worker;
use crate::green::green_thread::{Header, Note, Task};
use crate::parts::coroutine::Resumed;
use crate::parts::thread_locals::{Block, Support};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

use super::publish::park_seated;

/// The block of a thread that has started.
///
/// # Safety
/// The caller has the running reference, and keeps it longer than the reference to the block.
#[inline(always)]
unsafe fn block_of(task: &Header) -> Option<&Block> {
    // SAFETY: by contract (green_thread 2).
    unsafe { (*task.block.get()).as_ref() }
}

impl Carrier {
    /// Runs a green thread that has started or is bound. Then runs the next ones, as long as nothing else is to be
    /// done between them. Puts the last of them into `task`, and returns how it left its stack and whether the
    /// seat is still there. `may_go_on`: it may run more than the first. `next`: a thread that was chosen and cannot be
    /// run this way.
    ///
    /// # Safety
    /// The caller has the running reference, and is on the carrier's own block inside the door.
    #[inline(always)]
    pub(super) unsafe fn run_own(
        &self,
        own: &Support,
        inner: &Arc<Inner>,
        worker: &Worker,
        task: &mut Task,
        may_go_on: bool,
        next: &mut Option<Task>,
    ) -> (Resumed<Note>, bool) {
        // SAFETY: the running reference is ours (green_thread 2), here and below; the block is that
        // of the thread that is resumed next.
        unsafe {
            own.arrive(
                block_of(task).expect("bound together"),
                std::ptr::from_ref(self).cast(),
                &self.lent_words,
            );
        }
        loop {
            // From here to `enter` the seat may be seized: `worker` is not ours any more.
            self.door.leave();
            // SAFETY: as above.
            let coroutine = unsafe { (*task.coroutine.get()).as_mut() };
            let resumed = coroutine
                .expect("bound together")
                .resume_from(self.control.get(), ());
            let seated = self.door.enter();
            if let Resumed::Suspended(note) = resumed
                && may_go_on
                && seated
                && std::ptr::eq(self.door.seat(), worker)
                && let Some(chosen) = self.choose(inner, worker, task, note)
            {
                // SAFETY: as above.
                match unsafe { block_of(&chosen) } {
                    Some(block) if !chosen.hog.get() => {
                        // SAFETY: as above.
                        unsafe {
                            own.arrive(block, std::ptr::from_ref(self).cast(), &self.lent_words);
                        }
                        let last = mem::replace(task, chosen);
                        if record::is_on() {
                            self.note_left(&last, note);
                            self.note(Kind::Run, task, 0);
                        }
                        if let Some(last) = publish_last(worker, last, note) {
                            // SAFETY: first the pointer is that of this OS thread's own block, then again that
                            // of the thread that is resumed next.
                            unsafe {
                                own.depart(self.host.pointer.get());
                                self.woken_early(inner, last);
                                own.arrive(
                                    block_of(task).expect("just seen"),
                                    std::ptr::from_ref(self).cast(),
                                    &self.lent_words,
                                );
                            }
                        }
                        self.note_turn(worker);
                        self.look_at_stamp(inner, worker, task);
                        let header: *const Header = &raw const **task;
                        self.running.store(header.cast_mut(), Ordering::Relaxed);
                        continue;
                    }
                    _ => *next = Some(chosen),
                }
            }
            // SAFETY: the pointer is that of this OS thread's own block.
            unsafe { own.depart(self.host.pointer.get()) };
            return (resumed, seated);
        }
    }

    /// The next thread to run. `None`: something else must be done first, or `task` cannot be published at once.
    /// `task` has left its stack with this note.
    #[inline(always)]
    fn choose(&self, inner: &Inner, worker: &Worker, task: &Task, note: Note) -> Option<Task> {
        let plain = match note {
            Note::Park { .. } => true,
            Note::Yield => task.home.load(Ordering::Relaxed) == 0,
            Note::Requeue => false,
        };
        if !plain
            || !task.registered.get()
            || inner.settings.hooks.is_some()
            || !self.private().is_empty()
            || inner.is_stopping()
        {
            return None;
        }
        // SAFETY: the seat is held; ends with the statement.
        unsafe { worker.core() }.next_at_hand(worker)
    }
}

/// Publishes a thread. The carrier has left the thread's stack and block. `Some`: something has ended its wait already.
#[inline(always)]
fn publish_last(worker: &Worker, task: Task, note: Note) -> Option<Task> {
    match note {
        Note::Park { epoch, kind } => park_seated(worker, task, epoch, kind).err(),
        Note::Yield | Note::Requeue => {
            // SAFETY: the seat is held; ends with the statement.
            unsafe { worker.core() }.push_yielded(task);
            None
        }
    }
}
