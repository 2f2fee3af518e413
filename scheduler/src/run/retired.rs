//! A worker that was taken away by `Runtime::set_workers`.
//!
//! A worker has retired if its number is not below the number of workers. It keeps its seat and a carrier, for the sake
//! of what cannot go elsewhere: waits have timers in its wheel, patched calls have armed descriptors in its poller, and
//! in `Pinned` threads belong to the carrier. The carrier runs those threads and no others. It hands all other threads
//! that are ready here on to the injector, so that other workers run them. If it has nothing to do, it rests: that is a
//! sleep from which no pusher wakes it (`idle.rs`). It ends by its own timers and events, by mail, or by
//! `Poller::unpark`.
//!
//! | in the worker            | becomes                                                              |
//! |--------------------------|----------------------------------------------------------------------|
//! | queues                   | are emptied into the injector when the carrier comes by, at each look |
//! | `reserved`               | the same; a thread that has its stack goes to another worker's        |
//! | sockets of weald's       | register again, on the worker on which their threads are then        |
//! | timers, patched sockets  | stay; new ones go to other workers. The threads that they wake are handed on |
//! | threads of the carrier   | stay until they end (`Pinned`, `Builder::pinned`)                    |
//!
//! If the number of workers grows again, it is a worker like any other from its next look on.
//!
//! Invariant 1: a worker that has retired takes nothing from the injector and steals nothing, except in the turn of its
//! loop in which it retires.
//! Invariant 2: when it notices that it has retired, it counts itself out of the searchers and wakes another worker
//! (`idle.rs`, invariant 4).
#![allow(unsafe_code, reason = "the worker whose seat is held")]

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::worker::{Worker, nanos_since};
use crate::shim::clock;
use crate::shim::sync::Arc;

impl Carrier {
    /// A worker that has retired has nothing in its queues. Looks at what only this worker can see, and rests.
    #[cold]
    #[inline(never)]
    pub(super) fn serve_retired(&self, inner: &Arc<Inner>, worker: &Worker) {
        let now = clock::now();
        // SAFETY: the seat is held; ends before timers and events are handled.
        let core = unsafe { worker.core() };
        core.saw(now);
        Self::notice_retirement(inner, worker);
        let found = self.look(inner, worker, now, true);
        if Self::hand_on(inner, worker) || found > 0 || !self.private().is_empty() {
            return;
        }
        inner.idle.rest(worker.index);
        let in_sight = self.mail.is_there()
            || inner.is_stopping()
            || inner.seats.somebody_waits()
            || !worker.reserved.is_empty()
            || !inner.idle.is_retired(worker.index);
        if !in_sight {
            self.sleep(inner, worker);
        }
        inner.idle.end_rest(worker.index);
        inner.monitor.poke();
        if !in_sight {
            let now = clock::now();
            // SAFETY: the seat is held; ends before timers are handled.
            let core = unsafe { worker.core() };
            core.woke_up();
            core.saw(now);
            core.polled(now);
            worker.counters.wake_up(nanos_since(inner.start, now));
            self.look(inner, worker, now, false);
            Self::hand_on(inner, worker);
        }
    }

    /// This worker has retired. At its first look since then it wakes another worker in its place (invariant 2). That is so for
    /// each retirement, also if the worker came back in between and did not look then.
    #[cold]
    pub(super) fn notice_retirement(inner: &Inner, worker: &Worker) {
        let Some(retirement) = inner.idle.retirement(worker.index) else {
            return;
        };
        // SAFETY: the seat is held; ends with the statement.
        let noticed = &mut unsafe { worker.core() }.retirement;
        if std::mem::replace(noticed, retirement) == retirement {
            return;
        }
        worker.poller.move_out();
        if let Some(other) = inner.idle.retire() {
            inner.workers[other].poller.unpark();
        }
    }

    /// This worker has retired. Hands its ready threads on to the other workers. True: there were some.
    #[cold]
    #[inline(never)]
    pub(super) fn hand_on(inner: &Inner, worker: &Worker) -> bool {
        // SAFETY: the seat is held; ends with the statement.
        let tasks = unsafe { worker.core() }.take_queued(worker);
        let mut some = !tasks.is_empty();
        for task in tasks {
            inner.inject(task);
        }
        while let Some(task) = worker.reserved.pop() {
            some = true;
            // SAFETY: it came out of a queue, so the running reference is ours.
            if unsafe { (*task.coroutine.get()).is_none() } {
                inner.inject(task);
            } else if let Err(task) = inner.reserve(inner.any_worker().index, task) {
                // The runtime has stopped, as in `Inner::inject`.
                std::mem::forget(task);
            }
        }
        some
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Arc, Carrier, Inner};
    use crate::RuntimeBuilder;
    use crate::parts::poller::{EventSlot, Readiness};

    static TOLD: AtomicUsize = AtomicUsize::new(0);

    fn on_event(_: &'static EventSlot, _: u16, readiness: Readiness) {
        assert_ne!(readiness.0 & Readiness::CLOSED, 0);
        TOLD.fetch_add(1, Ordering::Relaxed);
    }

    static SLOT: EventSlot = EventSlot { on_event };

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no poller")]
    fn sockets_move_out_at_each_retirement_however_seldom_the_worker_looks() {
        let builder = RuntimeBuilder::new().workers(3).spare_threads(1);
        // No carrier runs, so the test has the seats.
        let nobody = |_: &_, _| Ok(());
        let inner = Arc::new(Inner::new(builder.settings().unwrap(), nobody).unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let last = &inner.workers[2];
        let register = || {
            let fd = socket.as_raw_fd();
            last.poller.register(fd, &SLOT, 0).unwrap();
        };
        let told = || {
            Carrier::notice_retirement(&inner, last);
            TOLD.load(Ordering::Relaxed)
        };
        register();
        assert_eq!(told(), 0, "it has not retired");
        Inner::set_workers(&inner, 1).unwrap();
        assert_eq!((told(), told()), (1, 1));
        // It comes back and goes without a look.
        Inner::set_workers(&inner, 3).unwrap();
        register();
        Inner::set_workers(&inner, 1).unwrap();
        assert_eq!((told(), told()), (2, 2));
        // Others come and go.
        Inner::set_workers(&inner, 2).unwrap();
        register();
        Inner::set_workers(&inner, 1).unwrap();
        assert_eq!(told(), 3);
    }
}
