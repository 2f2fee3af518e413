//! The timers of a worker, for waits and for calls in the future. Other threads send some of them. Also their memory.
#![allow(unsafe_code, reason = "gives pages of the wheel's back")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weald_timer::{Key, Tick};

use crate::engine::worker::{Core, RemoteTimer, TimerEvent, Worker};
use crate::green::call::Call;
use crate::green::green_thread::{Header, Task};
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::sync::Arc;

/// One look fires timers only until so many threads are ready. More threads would only wait in the queue, and threads
/// that IO wakes would wait behind them.
const DUE_ROOM: usize = 256;

/// Timers that are fired between two looks at the clock.
pub(crate) const DUE_BATCH: usize = 64;

/// When a look has taken so much time, the timers that are still due wait for the next look at the clock.
/// There are up to 16 such looks between two turns of a thread that yields. A guess.
pub(crate) const DUE_SLICE: Duration = Duration::from_micros(50);

/// Timers from other threads that a worker takes in at one look.
const REMOTE_BATCH: usize = 256;

/// Other threads cancel timers of the worker. Before it sleeps, it takes back the memory of at most so many of them.
/// If there are more, it comes back later.
const DRAIN_BATCH: usize = 1024;

/// The memory of timers that have ended goes back after it was not needed for so long, as that of stacks.
const SPARE_TIMERS_WINDOW: Duration = Duration::from_millis(500);

/// The pause between two steps of giving memory back, for a worker that has nothing else to do.
const TRIM_PAUSE: Duration = Duration::from_millis(4);

impl Worker {
    /// The owner has put a timer into the wheel.
    #[inline]
    fn timer_at(&self, tick: Tick) {
        if tick.as_nanos() < self.next_timer.load(Ordering::Relaxed) {
            self.next_timer.store(tick.as_nanos(), Ordering::Relaxed);
        }
    }

    /// A timer is due, or waits to get into the wheel. Any thread may ask.
    pub(crate) fn has_due_timers(&self, start: Instant, now: Instant) -> bool {
        self.next_timer.load(Ordering::Relaxed) <= nanos(start, now)
            || self.has_remote_timers.load(Ordering::Relaxed)
    }

    pub(crate) fn post_timer(&self, timer: RemoteTimer) {
        let mut timers = self.remote_timers.lock();
        timers.push_back(timer);
        self.has_remote_timers.store(true, Ordering::Release);
        drop(timers);
        self.poller.unpark();
    }
}

impl Core {
    /// Arms a timer for a wait of the running thread.
    #[inline]
    pub(crate) fn arm(
        &mut self,
        worker: &Worker,
        start: Instant,
        header: &Header,
        epoch: u32,
        at: Instant,
    ) -> Key {
        let tick = tick_of(start, at);
        worker.timer_at(tick);
        self.wheel
            .insert(tick, TimerEvent::Wake(Task::from_header(header), epoch))
    }

    pub(crate) fn arm_call(
        &mut self,
        worker: &Worker,
        start: Instant,
        at: Instant,
        call: Arc<Call>,
    ) -> Key {
        let tick = tick_of(start, at);
        worker.timer_at(tick);
        self.wheel.insert(tick, TimerEvent::Call(call))
    }

    #[inline]
    pub(crate) fn disarm(&mut self, key: Key) -> Option<TimerEvent> {
        self.wheel.cancel(key)
    }

    /// Takes in timers from other threads; if there are many, not all of them. True: there are more. `alarms` has
    /// counted these timers until now.
    pub(crate) fn take_remote_timers(
        &mut self,
        worker: &Worker,
        start: Instant,
        alarms: &AtomicUsize,
    ) -> bool {
        if !worker.has_remote_timers.load(Ordering::Acquire) {
            return false;
        }
        let (timers, more) = {
            let mut timers = worker.remote_timers.lock();
            let some = timers.len().min(REMOTE_BATCH);
            let taken: Vec<_> = timers.drain(..some).collect();
            let more = !timers.is_empty();
            if !more {
                *timers = VecDeque::new();
            }
            worker.has_remote_timers.store(more, Ordering::Relaxed);
            (taken, more)
        };
        for timer in timers {
            let key = self.arm_call(worker, start, timer.deadline, Arc::clone(&timer.call));
            if timer.call.armed(worker.index, key) {
                // Now the wheel counts it.
                alarms.fetch_sub(1, Ordering::Relaxed);
            } else {
                drop(self.wheel.cancel(key));
            }
        }
        more
    }

    /// How many timers this look may fire. `private`: how many woken threads are in the carrier's own queues. The
    /// number is at least half of the threads that have run since the last look, however many are ready. So no crowd of
    /// ready threads keeps timers from being fired.
    #[inline]
    pub(crate) fn room_for_due(&self, private: usize) -> usize {
        let ready = self.ready.len() + private;
        let least = (self.clock_interval as usize / 2).max(1);
        DUE_ROOM.saturating_sub(ready).max(least)
    }

    /// Takes timers that are due out of the wheel, at most `limit`. True: there are more. Those can still
    /// be cancelled.
    #[inline]
    pub(crate) fn take_due(
        &mut self,
        worker: &Worker,
        start: Instant,
        now: Instant,
        limit: usize,
    ) -> (Vec<TimerEvent>, bool) {
        let mut due = std::mem::take(&mut self.due);
        let mut more = false;
        let now = Tick::from_nanos_floor(nanos(start, now));
        let mut next = self.wheel.next_deadline();
        if next.is_some_and(|next| next <= now) {
            let fire = |event| due.push(event);
            more = !self.wheel.advance_limited(now, limit, fire).is_done;
            next = self.wheel.next_deadline();
        }
        worker
            .next_timer
            .store(next.map_or(u64::MAX, Tick::as_nanos), Ordering::Relaxed);
        (due, more)
    }

    /// Gives back the buffer of `take_due`, for the next call.
    pub(crate) fn give_back(&mut self, due: Vec<TimerEvent>) {
        debug_assert!(due.is_empty(), "all were handled");
        self.due = due;
    }

    /// There is memory of timers that nobody uses. It is being given back, or will be if it is not needed.
    pub(crate) fn has_spare_timers(&self) -> bool {
        self.spare_timers.is_some()
    }

    /// Gives back the memory of timers that have ended, if it was not needed for a while. Ends when `stop` returns
    /// true. Returns after how long to call it again; `None`: nothing is left to give back.
    pub(crate) fn trim_timers(
        &mut self,
        now: Instant,
        stop: impl Fn() -> bool,
    ) -> Option<Duration> {
        if !cfg!(target_os = "linux") || !self.wheel.can_trim() {
            self.spare_timers = None;
            return None;
        }
        let since = *self.spare_timers.get_or_insert(now);
        let left = (since + SPARE_TIMERS_WINDOW).saturating_duration_since(now);
        if !left.is_zero() {
            return Some(left);
        }
        // SAFETY: pages that are given back read as zero, or stay as they are.
        if unsafe { self.wheel.trim(stop, give_pages_back) } {
            self.spare_timers = None;
            return None;
        }
        Some(TRIM_PAUSE)
    }

    /// How long the worker may sleep.
    pub(crate) fn sleep_limit(&mut self, start: Instant, now: Instant) -> Option<Duration> {
        if !self.wheel.drain_limited(DRAIN_BATCH) {
            return Some(Duration::ZERO);
        }
        let next = self.wheel.next_deadline()?;
        Some(Duration::from_nanos(
            next.as_nanos().saturating_sub(nanos(start, now)),
        ))
    }
}

/// Nanoseconds since the runtime's start. The greatest number stands for all that is later, which is centuries.
fn nanos(start: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

fn tick_of(start: Instant, at: Instant) -> Tick {
    Tick::from_nanos_ceil(nanos(start, at))
}

/// Gives back the pages that lie wholly in this memory. From then on they read as zero.
fn give_pages_back(first: *mut u8, bytes: usize) {
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    {
        let page = crate::parts::stack::page_size();
        let start = first.addr().next_multiple_of(page);
        let end = (first.addr() + bytes) & !(page - 1);
        if start < end {
            // SAFETY: the pages are the wheel's, in which no timer lives, and anonymous memory of the allocator's.
            // If the system refuses, the pages stay as they are.
            unsafe {
                libc::madvise(
                    first.with_addr(start).cast(),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    let _ = (first, bytes);
}
