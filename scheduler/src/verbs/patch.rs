//! What `weald-patch` needs of the scheduler. Not for users.
//!
//! A hooked call of libc asks [`caller`] whether its caller is a patched green thread. If it is not (an OS thread, a
//! carrier between two green threads, weald's own code), the call does what libc does. Else it waits by the functions
//! here. They differ from weald's own blocking calls in one thing: an exception ends the wait and stays pending,
//! because nothing may unwind through C.
//!
//! Invariant: weald never lets a hook suspend the green thread while the scheduler is in the middle
//! of something. The few system calls that the scheduler makes on a green thread's stack (waiting
//! for a lock, waking a poller, starting an OS thread) are made inside a [`Bypass`]. Calls that a carrier makes inside
//! its door are never hooked, also if a green thread's thread-locals are the running ones.
#![allow(
    missing_docs,
    reason = "hidden from users; the names say what they are"
)]
#![allow(unsafe_code, reason = "the running thread's own header")]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::engine::blocking_calls::Lasts;
use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::green::awaited::{Awaited, On};
use crate::green::current;
use crate::green::green_thread::{Header, Hint, Task};
use crate::green::wait_list::WaitQueue;
use crate::parts::patching::FRESH;
use crate::parts::poller::{EventSlot, Poller};
use crate::parts::state::Why;
use crate::parts::thread_locals;
use crate::verbs::blocking;
use crate::wait::exception::{self, Hold};
use crate::wait::os_header;
use crate::wait::waiter::{self, Admit, Ended, Waiting};

pub use crate::parts::patching::{ALL, is_forked, is_on, switch_on};
pub use crate::shim::bypass::Bypass;
pub use crate::wait::exception::Pending;

/// Whether a runtime of this process can have patched green threads.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), &'static str> {
    thread_locals::support().map(|_| ())
}

/// The kinds of calls that are patched for the caller; 0: none.
#[inline]
pub fn caller() -> u32 {
    let (carrier, running) = carrier::here_and_thread();
    // SAFETY: what runs here is alive, and a carrier outlives it.
    let (Some(carrier), Some(header)) = (unsafe { (carrier.as_ref(), running.as_ref()) }) else {
        return 0;
    };
    if !header.is_green() || header.front.bypass.get() > 0 || carrier.door.is_inside() {
        return 0;
    }
    header.patched.kinds()
}

/// Whether the caller may wake a green thread. It must not in the middle of the scheduler's own work, nor in the child
/// of a fork: the child has copies of the waiting threads and nothing that runs them.
#[inline]
pub fn may_wake() -> bool {
    if is_forked() {
        return false;
    }
    let (carrier, running) = carrier::here_and_thread();
    // SAFETY: a carrier outlives what runs on its OS thread.
    let Some(carrier) = (unsafe { carrier.as_ref() }) else {
        return true;
    };
    !running.is_null() && !carrier.door.is_inside()
}

/// Whether an exception is pending in the caller. The caller does not fail because of it.
pub fn is_pending() -> bool {
    // SAFETY: the running thread's header is alive.
    exception::is_due(unsafe { &*os_header::header() })
}

/// The exception that is pending in the caller. The caller is going to fail because of it.
pub fn pending() -> Option<Pending> {
    // SAFETY: the running thread's header is alive.
    exception::peek(unsafe { &*os_header::header() })
}

/// The end of a call that did not wait.
#[inline]
pub fn spend() {
    waiter::spend();
}

/// Lets the others run. Raises nothing.
pub fn give_way() {
    // SAFETY: the running thread's header is alive.
    carrier::give_way_from(unsafe { &*os_header::header() });
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody ended it, or there was nothing to wait for: look again.
    Woken,
    TimedOut,
    /// An exception is to be raised; it stays.
    Pending(Pending),
}

/// Waits in the queue for something that happens to a descriptor, as `WaitQueue::wait`. Exceptions end the wait only if
/// it is `interruptible`. If it is not, [`overslept`] is called at its end.
pub fn wait(
    queue: &WaitQueue,
    ready: impl FnOnce() -> bool,
    deadline: Option<Instant>,
    interruptible: bool,
) -> Waited {
    let admit = if interruptible {
        Admit::Reported
    } else {
        Admit::NoExceptions
    };
    let ended = queue.wait_for(On::just(Awaited::Descriptor), ready, deadline, admit);
    if !interruptible {
        overslept();
    }
    match ended {
        Ok(_) | Err(Ended::Woken(_) | Ended::Again) => Waited::Woken,
        Err(Ended::TimedOut) => Waited::TimedOut,
        Err(Ended::Pending) => pending().map_or(Waited::Woken, Waited::Pending),
        Err(Ended::Raised(_)) => unreachable!("the wait raises nothing"),
    }
}

/// The end of a wait that no exception can end. If the limit of a `timeout` has passed meanwhile, it
/// counts as reported.
pub fn overslept() {
    // SAFETY: the running thread's header is alive.
    exception::overslept(unsafe { &*os_header::header() });
}

/// The right to end one wait of a thread. It keeps the thread's record alive, and does nothing once
/// the wait is over.
#[derive(Debug)]
pub struct Wakeup {
    thread: Task,
    epoch: u32,
}

impl Wakeup {
    pub fn wake(self) {
        // SAFETY: the reference keeps the header alive.
        unsafe {
            Header::wake(
                &raw const *self.thread,
                self.epoch,
                Why::NOTIFIED,
                Hint::Peer,
            )
        };
    }
}

/// Waits for what `on` says. `publish` gets a wake-up, whose use ends the wait; so does the deadline. Exceptions
/// stay for later. If `publish` returns false there is nothing to wait for.
pub fn wait_for_wakeup(
    on: On,
    deadline: Option<Instant>,
    publish: impl FnOnce(Wakeup) -> bool,
) -> Waited {
    let waiting = Waiting::begin(on);
    let wakeup = Wakeup {
        // SAFETY: the running thread's header is alive.
        thread: Task::from_header(unsafe { &*waiting.header() }),
        epoch: waiting.epoch(),
    };
    if !publish(wakeup) {
        waiting.abandon();
        return Waited::Woken;
    }
    let ended = waiting.park(deadline, false, Admit::NoExceptions);
    overslept();
    match ended {
        Ended::TimedOut => Waited::TimedOut,
        Ended::Woken(_) | Ended::Again | Ended::Raised(_) | Ended::Pending => Waited::Woken,
    }
}

/// std's `sleep(Duration::MAX)` is three sleeps, as the kernel's seconds are signed.
const SLEEPS_AFTER_ONE_FOR_EVER: u8 = 2;

/// Sleeps until the deadline (`None`: for ever), or until an exception is pending.
///
/// A pending exception ends one sleep, not the next ones: otherwise a loop that ignores errors and pauses
/// after each would be busy from then on. A sleep for ever (`None`) may be a part of a longer one, so
/// the sleeps after it end too.
pub fn sleep_until(deadline: Option<Instant>) -> Waited {
    // SAFETY: the running thread's header is alive, and the field is its own.
    let left = unsafe { &(*os_header::header()).sleeps_to_end };
    let mut admit = Admit::Reported;
    let end = |pending| {
        left.set(match left.get() {
            FRESH if deadline.is_none() => SLEEPS_AFTER_ONE_FOR_EVER,
            FRESH => 0,
            left => left.saturating_sub(1),
        });
        Waited::Pending(pending)
    };
    if let Some(pending) = pending() {
        if left.get() > 0 {
            return end(pending);
        }
        admit = Admit::NoExceptions;
    } else {
        left.set(FRESH);
    }
    loop {
        match Waiting::begin(On::just(Awaited::Time)).park(deadline, false, admit) {
            Ended::TimedOut => return Waited::TimedOut,
            Ended::Raised(_) => unreachable!("the wait raises nothing"),
            Ended::Woken(_) | Ended::Again | Ended::Pending => {}
        }
        if admit == Admit::Reported
            && let Some(pending) = pending()
        {
            return end(pending);
        }
    }
}

/// Sleeps for so long. Raises nothing, and no exception ends the sleep.
pub fn pause_until(deadline: Instant) {
    while !matches!(
        Waiting::begin(On::just(Awaited::Time)).park(Some(deadline), false, Admit::NoExceptions),
        Ended::TimedOut
    ) {}
}

/// Waits for the end of a thread; no exception ends the wait. For a patched caller [`overslept`] is called at its end.
///
/// # Errors
/// The payload of the panic or exception that has ended the thread.
pub fn join<T>(thread: crate::verbs::join::JoinHandle<T>) -> std::thread::Result<T> {
    let result = thread.wait_to_end();
    if caller() != 0 {
        overslept();
    }
    result
}

/// As `blocking`, but raises nothing. For a call that ends soon and by itself: a read of a file, a
/// look at descriptors.
pub fn blocking_quietly<T>(f: impl FnOnce() -> T) -> T {
    call_quietly(Lasts::Briefly, f)
}

/// As [`blocking_quietly`], for a call that may last until another green thread has done something: it waits for a
/// lock, a semaphore, a child or a message. Such calls never delay the calls of `blocking_quietly`. At the end
/// [`overslept`] is called.
pub fn blocking_until_others_act<T>(f: impl FnOnce() -> T) -> T {
    let value = call_quietly(Lasts::UntilOthersAct, f);
    overslept();
    value
}

/// As [`blocking_until_others_act`], if `f` can begin at once and one more such call could.
///
/// # Errors
/// `f`: it cannot begin, and was not called.
pub fn blocking_if_spare<T, F: FnOnce() -> T>(f: F) -> Result<T, F> {
    let value = blocking::call_if_spare(f)?;
    overslept();
    Ok(value)
}

fn call_quietly<T>(lasts: Lasts, f: impl FnOnce() -> T) -> T {
    let hold = Hold::new();
    let value = blocking::call(lasts, f);
    drop(hold);
    value
}

/// The poller that gives a green thread the events of a descriptor. The caller keeps it during one call only. Meanwhile
/// the running green thread keeps its runtime, and the runtime keeps its pollers.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    poller: *const Poller,
    worker: u32,
    at: &'a AtomicU32,
    /// That of the worker that had the descriptor until it retired.
    left: Option<*const Poller>,
}

impl<'a> Home<'a> {
    /// A poller of the caller's runtime. `at` remembers the worker whose poller has the descriptor, so that a thread that
    /// migrates does not register it with each. If that worker has retired, it is another one from the next
    /// [`arm`](Self::arm) on. `None` on a plain OS thread.
    pub fn of(at: &'a AtomicU32) -> Option<Self> {
        // SAFETY: what runs here is alive.
        let header = unsafe { &*current::green()? };
        // SAFETY: a green thread that runs keeps its runtime.
        let inner = unsafe { Inner::of(header) };
        let own = || {
            let own = carrier::with_core(header.runtime, |worker, _| worker.index);
            u32::try_from(own.unwrap_or(0)).unwrap_or(0)
        };
        let poller = |worker| {
            let worker = worker as usize % inner.idle.all_workers();
            let poller: *const Poller = &raw const inner.workers[worker].poller;
            (poller, inner.idle.is_retired(worker))
        };
        let known = at.load(Ordering::Relaxed).checked_sub(1);
        let worker = known.unwrap_or_else(own);
        let home = |poller, worker, left| Self {
            poller,
            worker,
            at,
            left,
        };
        let (before, is_retired) = poller(worker);
        if known.is_some() && is_retired {
            // Never a retired one: the caller's own may be. The first one never retires.
            let worker = [own(), 0].into_iter().find(|worker| !poller(*worker).1)?;
            return Some(home(poller(worker).0, worker, Some(before)));
        }
        if known.is_none() {
            at.store(worker + 1, Ordering::Relaxed);
        }
        Some(home(before, worker, None))
    }

    /// A number that no other poller of this process ever has. Never 0.
    pub fn id(self) -> u32 {
        // SAFETY: see the type.
        unsafe { (*self.poller).id() }
    }

    /// Arms a descriptor anew, and registers it if it is not registered. From now on the slot is told whether the
    /// descriptor is ready for what `interest` names ([`Readiness::READABLE`](crate::parts::poller::Readiness::READABLE),
    /// `WRITABLE`), and of each change. `lost` is called if a socket of weald's own takes the descriptor; after that the
    /// slot is told nothing.
    ///
    /// `interest` is called under the poller's lock, and so is `armed`, when the descriptor is armed.
    ///
    /// # Errors
    /// The system's: `EPERM` for a descriptor that is always ready, `EBADF`. `AlreadyExists` if a socket of weald's own
    /// has the descriptor.
    pub fn arm(
        self,
        fd: RawFd,
        slot: &'static EventSlot,
        interest: impl FnOnce() -> u8,
        armed: impl FnOnce(u8),
        lost: fn(RawFd),
    ) -> io::Result<()> {
        // SAFETY: see the type.
        unsafe { (*self.poller).arm(fd, slot, interest, armed, lost) }?;
        if let Some(left) = self.left {
            self.at.store(self.worker + 1, Ordering::Relaxed);
            // All who wait for the descriptor hear of it by the new poller, as `interest` asks for all of them.
            // SAFETY: see the type.
            unsafe { (*left).disarm(fd) };
        }
        Ok(())
    }
}

/// A descriptor that [`Home::arm`] has armed is about to be closed. Makes the poller with this [`Home::id`] forget it;
/// with `None` each poller of the process. It never waits.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn forget(fd: RawFd, poller: Option<u32>) {
    crate::parts::poller::forget(fd, poller);
}

/// The calls that were seen to block an OS thread, if `WEALD_PATCH_REPORT` asks for them.
pub fn blocked_calls() -> u64 {
    crate::green::blocked::count()
}
