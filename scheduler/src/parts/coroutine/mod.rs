//! A stack with a saved context. On x86-64, and AArch64 Linux, the switch is our own, elsewhere it is corosensei's.
//! corosensei also tells AddressSanitizer of each stack, so it is used there too (`--cfg 'weald_sanitizer="address"'`).
//!
//! | state     | on the stack lies | leaves by                                              |
//! |-----------|-------------------|--------------------------------------------------------|
//! | new       | the body          | `resume`, or `into_stack`, which drops the body        |
//! | running   | the body's frames | [`Suspender::suspend`], or the end of the body         |
//! | suspended | the body's frames | `resume`                                               |
//! | finished  | nothing           | `into_stack`                                           |
//!
//! 1. Nobody else unwinds a suspended coroutine. To remove its frames, resume it and let it unwind by
//!    itself. If it is dropped, its frames and its stack are leaked.
//! 2. No panic leaves a coroutine: the scheduler catches it in the body. If one gets past that, a guard aborts the
//!    process.
//! 3. Nothing here allocates: body and context lie at the top of the stack, and what is passed by
//!    `resume` and `suspend` goes through a register, or is copied from the other side's stack if
//!    it is larger than one.
//! 4. Floating-point control belongs to each side of a switch (`control.rs`).
//! 5. Nothing here knows OS threads. What a suspended body holds may be bound to one (a value out
//!    of a thread-local, a lock guard): see [`Coroutine::new`].
//!
//! A model check uses this file as it is: real coroutines inside loom. loom cannot see what lies on
//! their stacks. So each coroutine has a token that is held from `resume` to the suspension. If two OS threads run on
//! one stack, or if a suspension does not come before the next resumption, loom reports a race.
#![allow(unsafe_code, reason = "switches stacks and hands values across")]

use std::fmt;
use std::io::Write;
use std::mem::{self, ManuallyDrop};

use corosensei::CoroutineResult;

use crate::parts::stack::{self, Stack};
use crate::shim::token::Token;

mod control;
#[cfg(all(
    target_arch = "aarch64",
    target_os = "linux",
    not(weald_sanitizer = "address")
))]
#[path = "aarch64.rs"]
mod raw;
#[cfg(all(target_arch = "x86_64", unix, not(weald_sanitizer = "address")))]
#[path = "x86_64.rs"]
mod raw;
#[cfg(not(all(
    any(
        all(target_arch = "aarch64", target_os = "linux"),
        all(target_arch = "x86_64", unix)
    ),
    not(weald_sanitizer = "address")
)))]
#[path = "elsewhere.rs"]
mod raw;

pub(crate) use self::control::Control;

#[cfg(weald_sanitizer = "thread")]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "corosensei has no such calls")
)]
mod fibre;

/// A body with a stack of its own that can be left in the middle and entered again. `I` goes in
/// with each [`resume`](Self::resume), `Y` comes out with each [`suspend`](Suspender::suspend).
pub(crate) struct Coroutine<I, Y> {
    /// Its own `drop` never runs: corosensei would unwind a suspended coroutine (invariant 1).
    inner: ManuallyDrop<raw::Coroutine<I, Y>>,
    /// Stands for the stack.
    token: Token,
}

// SAFETY: a context and a stack are bound to no OS thread. The caller of `Coroutine::new` promises the rest.
unsafe impl<I, Y> Send for Coroutine<I, Y> {}

/// The result of [`Coroutine::resume`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resumed<Y> {
    /// The body called [`Suspender::suspend`] with this.
    Suspended(Y),
    /// The body returned. The coroutine has only its stack left to give.
    Finished,
}

impl<I, Y> Coroutine<I, Y> {
    /// Where it has the address of what is saved of a suspended body, for debuggers: in bytes from its beginning.
    /// `None`: only corosensei knows.
    pub(crate) const RESUME_AT: Option<usize> = match raw::Coroutine::<I, Y>::RESUME_AT {
        Some(offset) => Some(offset + mem::offset_of!(Self, inner)),
        None => None,
    };

    /// Puts a body on a stack. It starts to run at the first [`resume`](Self::resume), with this
    /// floating-point control.
    ///
    /// # Safety
    /// - What the body borrows lives until the body has finished or `into_stack` has dropped it;
    ///   for ever, if the coroutine is dropped while it is suspended.
    /// - If the coroutine is sent to another OS thread: the body, `I` and `Y` may be sent, and what
    ///   the body holds while it is suspended may be too, or its author has promised so.
    /// - The suspender is used only inside this coroutine.
    ///
    /// # Panics
    /// If the body's captures take more than half of the stack: the guard page could not detect an overflow then.
    #[inline]
    pub(crate) unsafe fn new<F>(stack: Stack, control: Control, body: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I),
    {
        // Bytes above the body that stay free for its alignment count as well.
        assert!(
            size_of::<F>() + align_of::<F>() <= stack.size() / 2,
            "a body with {} bytes of captures does not fit on a stack of {}",
            size_of::<F>(),
            stack.size()
        );
        let root = move |yielder: &raw::Yielder<I, Y>, input: I| {
            let guard = AbortOnUnwind;
            body(Suspender::of(yielder), input);
            mem::forget(guard);
        };
        // SAFETY: the caller's word, given above; the stack has a guard page (`stack/mod.rs`,
        // invariant 2) and, as it is owned, nobody else on it.
        let inner = unsafe { raw::Coroutine::with_stack_unchecked(stack, control, root) };
        Self {
            inner: ManuallyDrop::new(inner),
            token: Token::new(),
        }
    }

    /// Runs the body until it suspends or ends.
    ///
    /// # Panics
    /// If the body has ended already.
    #[inline]
    pub(crate) fn resume(&mut self, input: I) -> Resumed<Y> {
        self.resume_from(Control::current(), input)
    }

    /// As `resume`, for a caller that knows its own floating-point control, because it takes some instructions to read
    /// it. The caller has this control when the call returns.
    ///
    /// # Panics
    /// If the body has ended already.
    #[inline]
    pub(crate) fn resume_from(&mut self, own: Control, input: I) -> Resumed<Y> {
        let _held = self.token.hold();
        match self.inner.resume(input, own) {
            CoroutineResult::Yield(output) => Resumed::Suspended(output),
            CoroutineResult::Return(()) => Resumed::Finished,
        }
    }

    /// Takes the stack out. A body that never ran is dropped on the caller's stack.
    ///
    /// # Panics
    /// If the coroutine is suspended; then its stack is leaked.
    #[inline]
    pub(crate) fn into_stack(self) -> Stack {
        let mut this = ManuallyDrop::new(self);
        assert!(
            !this.is_suspended(),
            "the stack of a suspended coroutine is in use"
        );
        // SAFETY: `this` is not used again, and its own drop does not run.
        unsafe { this.take_stack() }
    }

    /// Has the processor fetch both ends of what is on the stack of a suspended coroutine.
    #[inline]
    pub(crate) fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", unix, not(weald_sanitizer = "address")))]
        self.inner.prefetch();
    }

    fn is_suspended(&self) -> bool {
        self.inner.started() && !self.inner.done()
    }

    /// # Safety
    /// The coroutine is not suspended, and neither used nor dropped after this.
    #[inline]
    unsafe fn take_stack(&mut self) -> Stack {
        let _held = self.token.hold();
        // SAFETY: the caller does not use it again.
        let mut inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        if !inner.done() {
            // The body never ran, so this unwinds nothing. It drops the body.
            inner.force_unwind();
        }
        inner.into_stack()
    }
}

/// A coroutine that is finished or never ran gives its stack to the depot. A suspended one leaks
/// it with all that is on it (invariant 1): the scheduler lets that happen only at the end of the
/// process.
impl<I, Y> Drop for Coroutine<I, Y> {
    fn drop(&mut self) {
        if !self.is_suspended() {
            // SAFETY: it is not suspended, and nobody uses a value after its drop.
            stack::release(unsafe { self.take_stack() });
        }
    }
}

impl<I, Y> fmt::Debug for Coroutine<I, Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.inner.started(), self.inner.done()) {
            (_, true) => "finished",
            (true, false) => "suspended",
            (false, false) => "new",
        };
        f.debug_struct("Coroutine")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

/// By this the body leaves its coroutine's stack. It lies on that stack and stays there.
#[repr(transparent)]
pub(crate) struct Suspender<I, Y>(raw::Yielder<I, Y>);

impl<I, Y> Suspender<I, Y> {
    #[inline]
    fn of(yielder: &raw::Yielder<I, Y>) -> &Self {
        // SAFETY: the type is a transparent wrapper, so the reference is as valid as the other.
        unsafe { &*std::ptr::from_ref(yielder).cast::<Self>() }
    }

    /// Leaves the coroutine: [`Coroutine::resume`] returns this value. Returns the value that the next
    /// `resume` is given, maybe on another OS thread.
    ///
    /// It is inlined, so that returns are predicted well after the switch. The compiler may keep
    /// the address of a thread-local across this call. So callers wrap it in a function that is not inlined.
    #[expect(
        clippy::inline_always,
        reason = "one call less between two switches is measurable"
    )]
    #[inline(always)]
    pub(crate) fn suspend(&self, output: Y) -> I {
        self.0.suspend(output)
    }
}

impl<I, Y> fmt::Debug for Suspender<I, Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspender").finish_non_exhaustive()
    }
}

/// Ends the process if a panic gets past the body (invariant 2).
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    #[cold]
    fn drop(&mut self) {
        // The panic's own message was written already. If this write fails, nobody can be told.
        let _ = std::io::stderr()
            .write_all(b"weald: a panic reached the root of a green thread's stack; aborting\n");
        std::process::abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::parts::stack::{Cache, DEFAULT_STACK, MIN_STACK};

    fn stack() -> Stack {
        Cache::new().get(DEFAULT_STACK).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn values_go_in_and_out_until_the_body_ends() {
        let body = |suspender: &Suspender<u32, [u64; 4]>, mut input: u32| {
            while input != 0 {
                input = suspender.suspend([u64::from(input); 4]);
            }
        };
        // SAFETY: the body borrows nothing and stays on this OS thread.
        let mut coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        assert_eq!(format!("{coroutine:?}"), "Coroutine { state: \"new\", .. }");
        assert_eq!(coroutine.resume(5), Resumed::Suspended([5; 4]));
        assert_eq!(coroutine.resume(6), Resumed::Suspended([6; 4]));
        assert_eq!(coroutine.resume(0), Resumed::Finished);
        assert_eq!(coroutine.into_stack().size(), DEFAULT_STACK);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_body_that_never_ran_is_dropped_and_the_stack_comes_back() {
        let held = Rc::new(());
        let in_body = Rc::clone(&held);
        let body = move |_: &Suspender<(), ()>, ()| drop(in_body);
        // SAFETY: the body borrows nothing and stays on this OS thread.
        let coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        assert_eq!(Rc::strong_count(&held), 2);
        let _leaked = coroutine.into_stack();
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn dropping_a_suspended_coroutine_runs_nothing_on_its_stack() {
        struct Bell<'a>(&'a Cell<bool>);
        impl Drop for Bell<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let rung = Cell::new(false);
        let body = |suspender: &Suspender<(), ()>, ()| {
            let _bell = Bell(&rung);
            suspender.suspend(());
        };
        // SAFETY: the bell is leaked with the stack, and nobody resumes it.
        let mut coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        assert_eq!(coroutine.resume(()), Resumed::Suspended(()));
        drop(coroutine);
        assert!(!rung.get());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    #[should_panic(expected = "in use")]
    fn a_suspended_coroutine_keeps_its_stack() {
        let body = |suspender: &Suspender<(), ()>, ()| suspender.suspend(());
        // SAFETY: the body borrows nothing and stays on this OS thread.
        let mut coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        coroutine.resume(());
        let _ = coroutine.into_stack();
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_coroutine_goes_on_where_another_os_thread_left_it() {
        let body = |suspender: &Suspender<u64, u64>, mut sum: u64| {
            for _ in 0..8 {
                sum += suspender.suspend(sum);
            }
        };
        // SAFETY: all that the body holds may be sent.
        let mut coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        for round in 0..8 {
            let resumed;
            (coroutine, resumed) = std::thread::spawn(move || {
                let resumed = coroutine.resume(round);
                (coroutine, resumed)
            })
            .join()
            .unwrap();
            assert_eq!(resumed, Resumed::Suspended((0..=round).sum()));
        }
        assert_eq!(coroutine.resume(0), Resumed::Finished);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    #[should_panic(expected = "does not fit on a stack")]
    fn a_body_that_does_not_fit_is_refused() {
        let large = [1_u8; MIN_STACK];
        let body = move |_: &Suspender<(), ()>, ()| {
            std::hint::black_box(large);
        };
        let stack = Cache::new().get(MIN_STACK).unwrap();
        // SAFETY: the body borrows nothing and stays on this OS thread.
        drop(unsafe { Coroutine::new(stack, Control::current(), body) });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    #[should_panic(expected = "does not fit on a stack")]
    fn a_body_whose_alignment_would_reach_the_guard_is_refused() {
        #[repr(align(8192))]
        struct Aligned(u8);
        const { assert!(size_of::<Aligned>() == MIN_STACK / 2) };
        let aligned = Aligned(1);
        let body = move |_: &Suspender<(), ()>, ()| {
            std::hint::black_box(&aligned.0);
            std::hint::black_box(&aligned);
        };
        let stack = Cache::new().get(MIN_STACK).unwrap();
        // SAFETY: the body borrows nothing and stays on this OS thread.
        drop(unsafe { Coroutine::new(stack, Control::current(), body) });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_body_may_catch_its_own_panics() {
        let body = |_: &Suspender<(), ()>, ()| {
            let result = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7)));
            assert_eq!(*result.unwrap_err().downcast::<i32>().unwrap(), 7);
        };
        // SAFETY: the body borrows nothing and stays on this OS thread.
        let mut coroutine = unsafe { Coroutine::new(stack(), Control::current(), body) };
        assert_eq!(coroutine.resume(()), Resumed::Finished);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn one_that_has_resumed_another_one_leaves_to_its_own_resumer() {
        let mut outer = {
            let body = |suspender: &Suspender<(), u32>, ()| {
                let inner = |suspender: &Suspender<(), u32>, ()| suspender.suspend(1);
                // SAFETY: the body borrows and holds nothing.
                let mut inner = unsafe { Coroutine::new(stack(), Control::current(), inner) };
                assert_eq!(inner.resume(()), Resumed::Suspended(1));
                suspender.suspend(2);
                assert_eq!(inner.resume(()), Resumed::Finished);
            };
            // SAFETY: as above.
            unsafe { Coroutine::new(stack(), Control::current(), body) }
        };
        assert_eq!(outer.resume(()), Resumed::Suspended(2));
        assert_eq!(outer.resume(()), Resumed::Finished);
        drop(outer);
    }
}
