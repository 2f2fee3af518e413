//! Runs something once.
//!
//! | state      | meaning                             | leaves by                                   |
//! |------------|-------------------------------------|---------------------------------------------|
//! | INCOMPLETE | no caller has begun                 | a caller's exchange -> RUNNING              |
//! | RUNNING    | one caller runs it, the others wait | its end -> COMPLETE, its unwinding -> POISONED |
//! | POISONED   | the caller that ran it has unwound  | `call_once_force` -> RUNNING                |
//! | COMPLETE   | done                                | never                                       |
//!
//! Invariant: the caller that made the step into RUNNING also makes the step out of it, also when it unwinds. That
//! step wakes all waiters.
//! Orderings: the step to COMPLETE releases the results, and a load that sees COMPLETE acquires them.
//! Checked by `loom-tests/tests/once.rs`.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use weald_scheduler::io::{self, Awaited, On, Owner, WaitQueue, Woken};

use crate::shim::atomic::{AtomicU32, Ordering};

const INCOMPLETE: u32 = 0;
const RUNNING: u32 = 1;
const POISONED: u32 = 2;
const COMPLETE: u32 = 3;

/// Returns the ordering of the step out of RUNNING.
#[inline]
fn done() -> Ordering {
    relaxed_if!("once_relaxed_end", Ordering::Release)
}

/// Returns the ordering of a look at the state.
#[inline]
fn seen() -> Ordering {
    relaxed_if!("once_relaxed_look", Ordering::Acquire)
}

/// Runs a function once, whichever thread asks first. The interface is that of [`std::sync::Once`].
///
/// If another thread is running the function, asking is a blocking call.
///
/// # Examples
/// ```
/// static START: weald::sync::Once = weald::sync::Once::new();
/// START.call_once(|| println!("once"));
/// START.call_once(|| unreachable!());
/// assert!(START.is_completed());
/// ```
#[repr(C)]
pub struct Once {
    // `dump` reads the first two.
    state: AtomicU32,
    /// The thread that runs the function.
    owner: Owner,
    waiters: WaitQueue,
}

impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

/// The state that the function of [`Once::call_once_force`] gets.
///
/// # Examples
/// See [`Once::call_once_force`].
pub struct OnceState {
    was_poisoned: bool,
}

impl OnceState {
    /// Tells if an earlier call has unwound.
    pub fn is_poisoned(&self) -> bool {
        self.was_poisoned
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState")
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}

/// Makes the step out of RUNNING.
struct Ends<'a> {
    once: &'a Once,
    state: u32,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.once.owner.clear();
        self.once.state.store(self.state, done());
        if self.state != POISONED || !fault!("once_unwinds_quietly") {
            self.once.waiters.wake_all();
        }
    }
}

impl Once {
    constructor! {
        /// Returns a `Once` whose function was not run.
        pub const fn new() -> Self {
            Self {
                state: AtomicU32::new(INCOMPLETE),
                owner: Owner::new(),
                waiters: WaitQueue::of("a `Once`"),
            }
        }
    }

    /// Runs the function if no thread has, otherwise waits until it was run.
    ///
    /// # Panics
    /// If an earlier call has unwound.
    #[inline]
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if !self.is_completed() {
            let mut f = Some(f);
            self.call(false, &mut |_| {
                if let Some(f) = f.take() {
                    f();
                }
            });
        }
    }

    /// Runs the function as [`call_once`](Self::call_once) does, also if an earlier call has unwound.
    ///
    /// # Examples
    /// ```
    /// static START: weald::sync::Once = weald::sync::Once::new();
    /// let first = std::panic::catch_unwind(|| START.call_once(|| panic!("on purpose")));
    /// assert!(first.is_err());
    /// START.call_once_force(|state| assert!(state.is_poisoned()));
    /// assert!(START.is_completed());
    /// ```
    #[inline]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        if !self.is_completed() {
            let mut f = Some(f);
            self.call(true, &mut |state| {
                if let Some(f) = f.take() {
                    f(state);
                }
            });
        }
    }

    #[cold]
    #[track_caller]
    fn call(&self, force: bool, f: &mut dyn FnMut(&OnceState)) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            match state {
                COMPLETE => return,
                RUNNING => self.wait_while_running(),
                POISONED if !force => panic!("Once instance has previously been poisoned"),
                _ => {
                    let begun = if fault!("once_begins_by_store") {
                        self.state.store(RUNNING, Ordering::Relaxed);
                        Ok(state)
                    } else {
                        self.state.compare_exchange(
                            state,
                            RUNNING,
                            Ordering::Acquire,
                            Ordering::Relaxed,
                        )
                    };
                    if begun.is_err() {
                        continue;
                    }
                    self.owner.set(io::mark());
                    let mut ends = Ends {
                        once: self,
                        state: POISONED,
                    };
                    let seen = OnceState {
                        was_poisoned: state == POISONED,
                    };
                    f(&seen);
                    ends.state = COMPLETE;
                    return;
                }
            }
        }
    }

    fn wait_while_running(&self) {
        io::enter_unwinding();
        let over = || {
            !fault!("once_waits_without_a_second_look")
                && self.state.load(Ordering::Acquire) != RUNNING
        };
        let on = On::object(Awaited::Once, self);
        if let Woken::Interrupted(interrupt) = self.waiters.wait_on(on, over, None, true) {
            interrupt.unwind();
        }
    }

    /// Resets the state. The caller has the value alone.
    pub(crate) fn reset(&mut self) {
        self.state.store(INCOMPLETE, Ordering::Relaxed);
    }

    /// Tells if the function was run to its end.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state.load(seen()) == COMPLETE
    }

    /// Waits until some thread has run the function. A blocking call.
    ///
    /// # Panics
    /// If a call has unwound.
    #[track_caller]
    pub fn wait(&self) {
        assert!(
            self.wait_for(false),
            "Once instance has previously been poisoned"
        );
    }

    /// Waits as [`wait`](Self::wait) does, and goes on waiting if a call has unwound.
    pub fn wait_force(&self) {
        self.wait_for(true);
    }

    /// Waits. Returns false if it is poisoned.
    fn wait_for(&self, force: bool) -> bool {
        io::enter_unwinding();
        loop {
            let is_over = || match self.state.load(Ordering::Acquire) {
                COMPLETE => true,
                POISONED => !force,
                _ => false,
            };
            if is_over() {
                return self.is_completed();
            }
            let on = On::object(Awaited::Once, self);
            if let Woken::Interrupted(interrupt) = self.waiters.wait_on(on, is_over, None, true) {
                interrupt.unwind();
            }
        }
    }
}

impl Default for Once {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}
