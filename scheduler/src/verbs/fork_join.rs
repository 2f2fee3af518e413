//! `join`: runs two closures, perhaps at the same time, depth first.
//!
//! 1. `b` stays where it is, on the caller's stack, as a fork (`forks.rs`), and `a` is run.
//! 2. If nobody has taken the fork, `b` runs next, in place. In this case a `join` costs some nanoseconds.
//! 3. Else `b` has become the body of a green thread, and the caller waits for that thread.
//!
//! A fork becomes a green thread:
//!
//! | when                                          | which                    | done by           |
//! |-----------------------------------------------|--------------------------|-------------------|
//! | another worker sleeps, at the next `join`;    | the oldest, the largest  | the thread itself |
//! | each 20 us at most                            |                          |                   |
//! | the thread is about to wait, or to give way   | all                      | the thread itself |
//! | the thread gives way in a `join`; each 10 ms  | the oldest               | the thread itself |
//! | at most                                       |                          |                   |
//! | the thread does not come back, another worker | the oldest               | the monitor       |
//! | sleeps                                        |                          |                   |
//! | the thread does not come back for long        | one at each look         | the monitor       |
//! | the thread has lost its seat for 10 ms        | all                      | the monitor       |
//!
//! So either half may wait for something that the other half does.
//!
//! `b` borrows from the caller's stack, so the caller never leaves before `b` has ended. If an exception
//! ends the caller's wait, `b`'s thread is killed, and the exception is raised when that thread has ended.
#![allow(
    unsafe_code,
    reason = "closures on the stack of a thread that waits until they have ended"
)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::engine::share_forks::{Head, feed, is_taken, share_oldest};
use crate::green::green_thread::Header;
use crate::green::request::Request;
use crate::parts::forks::Fork;
use crate::parts::quietly::drop_quietly;
use crate::shim::sync::Arc;
use crate::verbs::default_runtime;
use crate::verbs::join::JoinHandle;
use crate::verbs::make;
use crate::wait::exception::{self, Exception};
use crate::wait::waiter;

/// A second half on the stack of its thread.
#[repr(C)]
struct Half<B, RB> {
    head: Head,
    /// `Some` until it is run in place or started.
    body: UnsafeCell<ManuallyDrop<B>>,
    /// `Some` once it was started.
    handle: UnsafeCell<MaybeUninit<JoinHandle<RB>>>,
}

impl<B: FnOnce() -> RB, RB> Half<B, RB> {
    #[inline(always)]
    fn new(body: B) -> Self {
        Self {
            head: Head {
                fork: Fork::new(),
                start: Self::start,
            },
            body: UnsafeCell::new(ManuallyDrop::new(body)),
            handle: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// # Safety
    /// `head` is the head of a `Half<B, RB>`. The caller has taken its fork, once. The half stays until the
    /// thread has ended.
    unsafe fn start(head: *const Head, inner: &Arc<Inner>, request: Request) {
        // SAFETY: by contract; `repr(C)` puts the head first.
        let half = unsafe { &*head.cast::<Self>() };
        // SAFETY: who has taken the fork has what is in it.
        let body = unsafe { ManuallyDrop::take(&mut *half.body.get()) };
        // SAFETY: the half's thread waits in `join` until this one has ended, and takes the result there.
        let handle = unsafe { make::start(inner, request, body) };
        // SAFETY: as above.
        unsafe { (*half.handle.get()).write(handle) };
    }
}

/// Runs `a` and `b`, perhaps at the same time, and returns both values.
///
/// It is meant for computations that split again and again, in which a `spawn` for each part would cost more than the
/// part. As long as all workers are busy, a call of `join` costs a few nanoseconds: `a` runs first and `b`
/// after it, both in the caller. If another worker has nothing to do, it takes over `b`, in a green
/// thread of its own, with the caller's stack size.
///
/// Either half may block, even until the other half has done something: when `a` waits, `b` begins at once.
/// There are two cases in which `b` begins only when `a` has ended: in a destructor that runs while the thread unwinds,
/// and while exceptions are held (inside [`blocking`](crate::blocking())).
///
/// A blocking call: it raises exceptions when it begins, and it gives way if the caller's turn is over. If an exception
/// comes while the caller waits for `b`, the thread of `b` is killed, and the exception is raised when that thread has
/// ended. So a [`timeout`](crate::timeout()) around `join` limits both halves.
///
/// On a plain OS thread `a` runs there and `b` in a green thread of the default runtime. In a green thread that has
/// an OS thread for itself ([`Builder::own_thread`](crate::Builder::own_thread)) `b` is a green thread from the beginning, too.
///
/// # Panics
/// As with `rayon::join`: if one half panics, the other half still runs to its end, and the panic goes on
/// in the caller. If both panic, the panic of `a` goes on. If `a` ends by an exception
/// ([`kill`](crate::GreenThread::kill), [`timeout`](crate::timeout()) ..), `b` is dropped if it has not begun, and else
/// it is killed.
/// If the default runtime is needed and cannot be started.
///
/// # Examples
/// ```
/// fn sum(numbers: &[u64]) -> u64 {
///     if numbers.len() <= 1000 {
///         return numbers.iter().sum();
///     }
///     let (left, right) = numbers.split_at(numbers.len() / 2);
///     let (left, right) = weald::join(|| sum(left), || sum(right));
///     left + right
/// }
/// let numbers: Vec<u64> = (0..10_000).collect();
/// assert_eq!(sum(&numbers), 49_995_000);
/// ```
#[inline]
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    let (carrier, header) = carrier::here_and_thread();
    // SAFETY: what runs here is alive, and a carrier outlives what runs on its OS thread.
    let (carrier, header) = unsafe { (carrier.as_ref(), header.as_ref()) };
    let (Some(carrier), Some(header)) = (carrier, header) else {
        return beside(a, b);
    };
    let is_quick =
        exception::is_quiet(header) && !exception::is_unwinding() && carrier::spend_from(carrier);
    // The carrier may be another one from here on.
    if !is_quick && !enter(header) {
        return in_turn(a, b);
    }
    // SAFETY: a green thread that runs keeps its runtime.
    let Some(inner) = (unsafe { Inner::of_any(header) }) else {
        return in_turn(a, b);
    };
    let half = Half::<B, RB>::new(b);
    // Made from a reference to the whole half, because the thread that takes the fork uses all of it.
    let fork: *const Fork = (&raw const half).cast();
    // SAFETY: this is the thread; the half stays until `pop` and `is_taken` are through.
    let number = unsafe { header.forks.push(fork) };
    if inner.idle.wants_work() {
        feed(header);
    }
    let first = catch_unwind(AssertUnwindSafe(a));
    // SAFETY: `a` has popped all that it has pushed, so this fork is the youngest.
    let is_mine = unsafe { header.forks.pop(fork, number) };
    if !is_mine && is_taken(header, fork, number) {
        // SAFETY: it was started, and the handle is the one that was left here.
        return both(first, unsafe { (*half.handle.get()).assume_init_read() });
    }
    // SAFETY: nobody has taken the fork, and nobody can any more.
    let b = unsafe { ManuallyDrop::take(&mut *half.body.get()) };
    match first {
        Ok(first) => (first, b()),
        Err(payload) => first_failed(payload, b),
    }
}

/// The slow beginning of `join`: raises exceptions, gives way. False: the second half must not leave this thread.
#[cold]
#[inline(never)]
fn enter(header: &Header) -> bool {
    waiter::enter();
    carrier::spend_time(share_oldest);
    !exception::is_unwinding() && !exception::holds(header)
}

/// One after the other.
#[cold]
fn in_turn<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB,
{
    match catch_unwind(AssertUnwindSafe(a)) {
        Ok(first) => (first, b()),
        Err(payload) => first_failed(payload, b),
    }
}

/// Ends a `join` whose first half has unwound and whose second half has not begun.
#[cold]
fn first_failed<B: FnOnce() -> RB, RB>(payload: Box<dyn Any + Send>, b: B) -> ! {
    if payload.is::<Exception>() {
        drop_quietly(b);
    } else {
        drop_quietly(catch_unwind(AssertUnwindSafe(b)));
    }
    exception::go_on(payload)
}

/// `join` on an OS thread. The second half is a green thread from the beginning.
#[cold]
fn beside<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB,
{
    let header = waiter::enter();
    // SAFETY: the running thread's header is alive.
    if exception::is_unwinding() || exception::holds(unsafe { &*header }) {
        return in_turn(a, b);
    }
    let request = Request {
        is_half: true,
        is_under_limit: waiter::has_limit(),
        ..Request::default()
    };
    // SAFETY: `both` waits until the thread has ended, and takes its result.
    let second = unsafe { make::start(&default_runtime::here(), request, b) };
    both(catch_unwind(AssertUnwindSafe(a)), second)
}

/// Ends a `join` whose first half has ended and whose second half is a green thread.
#[cold]
fn both<RA, RB>(first: thread::Result<RA>, second: JoinHandle<RB>) -> (RA, RB) {
    let first = match first {
        Ok(first) => first,
        Err(payload) => {
            if payload.is::<Exception>() {
                second.thread().kill();
            }
            drop_quietly(second.wait_to_end());
            exception::go_on(payload)
        }
    };
    if let Err(interrupt) = second.wait_only() {
        second.thread().kill();
        drop_quietly(second.wait_to_end());
        interrupt.unwind()
    }
    match second.wait_to_end() {
        Ok(second) => (first, second),
        Err(payload) => exception::go_on(payload),
    }
}
