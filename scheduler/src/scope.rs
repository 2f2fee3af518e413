//! Scoped green threads: they may borrow, because none outlives the scope.
//!
//! The count of running children is the scope's. A child that ends gives its result to its cell
//! first, so what the result borrows is dropped by the handle or by the child, never after the
//! scope: `ScopedData::leave` is the last thing that a child does with anything of `'scope`.
#![allow(
    unsafe_code,
    reason = "threads that borrow, waited for before the borrow ends"
)]

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::exception::{self, Exception};
use crate::handle::GreenThread;
use crate::join::JoinHandle;
use crate::last_words;
use crate::quietly::drop_quietly;
use crate::runtime::{self, Inner};
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::shim::sync::Arc;
use crate::spawn::{self, Request};
use crate::wait_queue::{WaitQueue, Woken};
use crate::waiter;

/// What children and scope share; it may outlive the scope by the tail of a child.
#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    /// A child that nobody joined has unwound.
    unwound: AtomicBool,
    end: WaitQueue,
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
    /// The child runs inside a closure of ours that puts the result here, so that it is dropped
    /// or taken before the scope ends.
    handle: JoinHandle<()>,
    result: Arc<Slot<T>>,
    _scope: PhantomData<&'scope ()>,
}

/// Where a child leaves its result.
struct Slot<T> {
    value: crate::shim::sync::Mutex<Option<std::thread::Result<T>>>,
    shared: Arc<Shared>,
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // As std: a result that nobody took is dropped, and a panic that nobody saw is the scope's.
        let result = self.value.lock().take();
        let unwound = matches!(result, Some(Err(_)));
        // An exception in the destructor would be a panic that goes nowhere.
        let is_users = unwound || (result.is_some() && std::mem::needs_drop::<T>());
        let _hold = is_users.then(exception::Hold::new);
        if catch_unwind(AssertUnwindSafe(|| drop(result))).is_err() {
            last_words::abort(format_args!(
                "the result of a scoped green thread panicked when dropped"
            ));
        }
        if unwound {
            self.shared.unwound.store(true, Ordering::Relaxed);
        }
        // The last thing that is done for this child.
        let order = if cfg!(weald_fault = "scope_relaxed_leave") {
            Ordering::Relaxed
        } else {
            Ordering::AcqRel
        };
        if self.shared.running.fetch_sub(1, order) == 1 {
            self.shared.end.wake_all();
        }
    }
}

/// Runs `f`, which may start green threads that borrow from the caller, and waits for all of them.
///
/// As `std::thread::scope`. The implicit wait at the end cannot be interrupted: an exception for
/// the caller is held until all children have ended. Killing the caller does not kill the
/// children.
///
/// # Examples
/// ```
/// let mut numbers = vec![1, 2, 3];
/// let mut sum = 0;
/// weald_scheduler::scope(|s| {
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
    let scope = Scope {
        shared: Arc::new(Shared::default()),
        _borrows: PhantomData,
        _env: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let shared = &scope.shared;
    let none = || shared.running.load(Ordering::Acquire) == 0;
    while !none() {
        match shared.end.wait(none, None, false) {
            Woken::Ready | Woken::Notified | Woken::Again => {}
            Woken::TimedOut | Woken::Interrupted(_) => unreachable!("the wait admits neither"),
        }
    }
    match result {
        Err(payload) => exception::go_on(payload),
        Ok(_) if shared.unwound.load(Ordering::Relaxed) => {
            panic!("a scoped green thread panicked")
        }
        Ok(value) => value,
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a green thread that may borrow what outlives the scope.
    ///
    /// # Examples
    /// ```
    /// let text = String::from("shared");
    /// weald_scheduler::scope(|s| {
    ///     let first = s.spawn(|| text.len());
    ///     let second = s.spawn(|| text.to_uppercase());
    ///     assert_eq!(first.join().unwrap(), 6);
    ///     assert_eq!(second.join().unwrap(), "SHARED");
    /// });
    /// ```
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let inner = runtime::here();
        self.start(&inner, Request::default(), f)
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
        let slot = Arc::new(Slot {
            value: crate::shim::sync::Mutex::new(None),
            shared: Arc::clone(&self.shared),
        });
        let child = Child {
            slot: Arc::clone(&slot),
            body: Some(f),
        };
        // SAFETY: the scope does not end before the child's `Slot` is dropped, which is after its
        // closure and its result; the thread's own result is `()`.
        let handle = unsafe { spawn::start(inner, request, move || child.run()) };
        ScopedJoinHandle {
            handle,
            result: slot,
            _scope: PhantomData,
        }
    }
}

/// What a child runs. If it never starts, its drop reports the cancellation.
struct Child<F, T> {
    slot: Arc<Slot<T>>,
    body: Option<F>,
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(mut self) {
        let body = self.body.take().expect("a child runs once");
        let result = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: the running thread's header is alive.
        let result = crate::exception::or_told(unsafe { &*crate::current::header() }, result);
        *self.slot.value.lock() = Some(result);
    }
}

impl<F, T> Drop for Child<F, T> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            // Killed before it started: what it borrowed is let go before the scope hears of it.
            drop_quietly(body);
            let killed = Exception::killed();
            *self.slot.value.lock() = Some(Err(Box::new(killed)));
        }
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
        let result = self.result.value.lock().take();
        result.unwrap_or_else(|| unreachable!("a child that has ended leaves a result"))
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
