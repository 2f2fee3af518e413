//! Scoped green threads: they may borrow, because none outlives the scope.
//!
//! The scope counts its running children. A child's result lies in the thread's cell, as for every thread, inside a
//! [`Leaving`], which is dropped after the result: by the joiner, by a handle that is dropped after the end, by the
//! child itself, or by the thread that drops orphans. The drop counts the child out. It is the last use of anything of
//! `'scope` for the child.
#![allow(
    unsafe_code,
    reason = "threads that borrow, waited for before the borrow ends"
)]

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use crate::engine::inner::Inner;
use crate::green::awaited::{Awaited, On};
use crate::green::handle::GreenThread;
use crate::green::request::Request;
use crate::green::wait_list::WaitQueue;
use crate::parts::last_words;
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::shim::sync::Arc;
use crate::verbs::default_runtime::with_runtime_arc;
use crate::verbs::join::JoinHandle;
use crate::verbs::make;
use crate::wait::exception;
use crate::wait::wait_queue::{Interrupt, Woken};
use crate::wait::waiter;

/// The part that children and scope share. It may outlive the scope until the last child has left its last function.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// How many children have not been counted out. Only the scope's closure and children make it more.
    running: AtomicUsize,
    /// Children that have unwound and that nobody joined.
    unwound: AtomicUsize,
    /// Children that were killed before they began and that nobody joined.
    unbegun: AtomicUsize,
    /// A group kills its children. Children that end by this do not count as failed.
    kills: AtomicBool,
    end: WaitQueue,
}

impl Shared {
    /// From now on a child that ends because it was killed does not make the scope panic.
    pub(crate) fn expect_kills(&self) {
        self.kills.store(true, Ordering::Relaxed);
    }

    fn kills(&self) -> bool {
        self.kills.load(Ordering::Relaxed)
    }

    /// Counts a child out.
    ///
    /// # Safety
    /// `this` points into the `Arc` of a scope in which the child has not been counted out.
    unsafe fn count_out(this: *const Self) {
        let order = relaxed_if!("scope_relaxed_leave", Ordering::AcqRel);
        {
            // SAFETY: the scope waits for the child.
            let shared = unsafe { &*this };
            let mut running = shared.running.load(Ordering::Relaxed);
            while running > 1 {
                let less = running - 1;
                match (shared.running).compare_exchange_weak(
                    running,
                    less,
                    order,
                    Ordering::Relaxed,
                ) {
                    // Other children run, so nobody must be woken. The scope may be gone from here on.
                    Ok(_) => return,
                    Err(now) => running = now,
                }
            }
        }
        // This may be the last child. The scope waits for it, and may be gone as soon as it is counted out.
        // SAFETY: as above, so the count is above zero.
        let shared = unsafe {
            Arc::increment_strong_count(this);
            Arc::from_raw(this)
        };
        if shared.running.fetch_sub(1, order) == 1 {
            shared.end.wake_all();
        }
    }
}

/// A scope for green threads that borrow; see [`scope`].
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    shared: Arc<Shared>,
    _borrows: PhantomData<&'scope mut &'scope ()>,
    _env: PhantomData<&'env mut &'env ()>,
}

/// The right to the result of a scoped green thread.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<Leaving<T>>,
    shared: &'scope Shared,
}

/// The result of a child, and the right to count it out, when it is dropped.
struct Leaving<T> {
    result: Option<std::thread::Result<T>>,
    /// The child's closure was run, not only dropped.
    began: bool,
    shared: *const Shared,
}

// SAFETY: it owns a `T` and points to what is shared.
unsafe impl<T: Send> Send for Leaving<T> {}

impl<T> Drop for Leaving<T> {
    fn drop(&mut self) {
        // As in std: a result that nobody took is dropped, and a panic that nobody saw is the scope's.
        let result = self.result.take();
        // SAFETY: the scope waits until the child has been counted out, which is done below.
        let kills = unsafe { (*self.shared).kills() };
        let unwound = match &result {
            Some(Err(payload)) => !(kills && exception::is_kill(&**payload)),
            _ => false,
        };
        // The payload of a body that was only dropped is in the thread's cell.
        // An exception in the destructor would be a panic that goes nowhere.
        let is_users =
            matches!(result, Some(Err(_))) || (result.is_some() && std::mem::needs_drop::<T>());
        let _hold = is_users.then(exception::Hold::new);
        if catch_unwind(AssertUnwindSafe(|| drop(result))).is_err() {
            last_words::abort(format_args!(
                "the result of a scoped green thread panicked when dropped"
            ));
        }
        // SAFETY: the scope waits until the child has been counted out, which is done here, once.
        unsafe {
            if unwound {
                (*self.shared).unwound.fetch_add(1, Ordering::Relaxed);
            }
            if !self.began {
                (*self.shared).unbegun.fetch_add(1, Ordering::Relaxed);
            }
            Shared::count_out(self.shared);
        }
    }
}

/// Runs `f`, which may start green threads that borrow from the caller, and waits for all of them.
///
/// As `std::thread::scope`. The implicit wait at the end cannot be interrupted: an exception for
/// the caller is held until all children have ended. Killing the caller does not kill the
/// children, and a [`timeout`](crate::timeout()) around a scope waits for them. A [`group`](crate::group()) kills
/// them.
///
/// # Examples
/// ```
/// let mut numbers = vec![1, 2, 3];
/// let mut sum = 0;
/// weald::scope(|s| {
///     s.spawn(|| sum = numbers.iter().sum());
/// });
/// numbers.push(sum);
/// assert_eq!(numbers, [1, 2, 3, 6]);
/// ```
///
/// # Panics
/// With the panic of `f`, or if a child that was not joined has unwound.
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    exception::check_may_wait();
    let scope = Scope::new();
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    scope.wait();
    match result {
        Err(payload) => exception::go_on(payload),
        Ok(_) if scope.has_unwound() => panic!("a scoped green thread panicked"),
        Ok(value) => value,
    }
}

impl<'scope> Scope<'scope, '_> {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared::default()),
            _borrows: PhantomData,
            _env: PhantomData,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until all children have ended.
    pub(crate) fn wait(&self) {
        if self.wait_for_end(false).is_err() {
            unreachable!("the wait admits no exception");
        }
    }

    /// Waits until all children have ended, or until an exception comes for the caller.
    pub(crate) fn wait_unless_interrupted(&self) -> Result<(), Interrupt> {
        self.wait_for_end(true)
    }

    fn wait_for_end(&self, interruptible: bool) -> Result<(), Interrupt> {
        let none = || self.shared.running.load(Ordering::Acquire) == 0;
        while !none() {
            let on = On::object(Awaited::Children, &raw const self.shared.end);
            match self.shared.end.wait_on(on, none, None, interruptible) {
                Woken::Ready | Woken::Notified | Woken::Again => {}
                Woken::TimedOut => unreachable!("the wait has no limit"),
                Woken::Interrupted(interrupt) => return Err(interrupt),
            }
        }
        Ok(())
    }

    /// Whether a child has ended by a panic or an exception that nobody has seen. Called when all have ended.
    pub(crate) fn has_unwound(&self) -> bool {
        let unbegun = self.shared.unbegun.load(Ordering::Relaxed) > 0;
        self.shared.unwound.load(Ordering::Relaxed) > 0 || (unbegun && !self.shared.kills())
    }

    /// Starts a green thread that may borrow what outlives the scope.
    ///
    /// # Examples
    /// ```
    /// let text = String::from("shared");
    /// weald::scope(|s| {
    ///     let first = s.spawn(|| text.len());
    ///     let second = s.spawn(|| text.to_uppercase());
    ///     assert_eq!(first.join().unwrap(), 6);
    ///     assert_eq!(second.join().unwrap(), "SHARED");
    /// });
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let site = Location::caller();
        let child = with_runtime_arc(|inner| self.start(inner, Request::default(), f));
        make::note_site(child.thread(), site);
        child
    }

    pub(crate) fn start<F, T>(
        &'scope self,
        inner: &Arc<Inner>,
        request: Request,
        f: F,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let child = Child {
            body: f,
            leaving: Leaving {
                result: None,
                began: false,
                shared: Arc::as_ptr(&self.shared),
            },
        };
        // SAFETY: the scope does not end before the child's `Leaving` is dropped, which is after its
        // closure and its result.
        let handle = unsafe { make::start(inner, request, move || child.run()) };
        ScopedJoinHandle {
            handle,
            shared: &self.shared,
        }
    }
}

/// What a child runs. If the child was killed before it started, the fields are dropped in this order: the borrows end
/// before the scope counts the child out.
struct Child<F, T> {
    body: F,
    leaving: Leaving<T>,
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(mut self) -> Leaving<T> {
        self.leaving.began = true;
        let result = catch_unwind(AssertUnwindSafe(self.body));
        // SAFETY: the running thread's header is alive.
        let result = crate::wait::exception::or_reported(
            unsafe { &*crate::wait::os_header::header() },
            result,
        );
        self.leaving.result = Some(result);
        self.leaving
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits until the thread has ended; as [`JoinHandle::join`].
    ///
    /// # Errors
    /// The payload of the panic or exception that ended the thread.
    pub fn join(self) -> std::thread::Result<T> {
        waiter::enter();
        if self.handle.is_finished() {
            waiter::spend();
        } else if let Err(interrupt) = self.handle.wait_only() {
            interrupt.unwind();
        }
        match self.handle.wait_to_end() {
            Ok(mut leaving) => {
                let result = leaving.result.take();
                result.unwrap_or_else(|| unreachable!("a child that has ended leaves a result"))
            }
            Err(payload) => {
                // The child's body was only dropped, and that was counted as unseen. Now it was seen.
                self.shared.unbegun.fetch_sub(1, Ordering::Relaxed);
                Err(payload)
            }
        }
    }

    /// True once the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The thread, to unpark it or to raise something in it.
    pub fn thread(&self) -> &GreenThread {
        self.handle.thread()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle")
            .field("thread", self.thread())
            .finish_non_exhaustive()
    }
}
