//! Groups: scoped green threads that are ended together.
//!
//! A group is a [`Scope`] that knows its members, so that it can kill them.
//!
//! 1. Which children are killed is decided under the lock of `members`: a child is in the list before `spawn` returns.
//!    A child that comes after the group was cancelled never runs its body: a kill would be too late, because another
//!    worker may begin the child at once. If the group is cancelled while `spawn` runs, `spawn` kills the child.
//! 2. The group ends only when all its children have ended, also if it unwinds. This is the scope's rule, and it lets
//!    the children borrow.
//! 3. Only the first wait at the end can be interrupted. The exception is kept, the children are killed, and the
//!    exception goes on when they have ended.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;

use crate::green::handle::GreenThread;
use crate::green::request::Request;
use crate::parts::quietly::drop_quietly;
use crate::shim::sync::{Arc, Mutex};
use crate::verbs::default_runtime::with_runtime_arc;
use crate::verbs::make;
use crate::verbs::outcome::Body;
use crate::verbs::scope::{self, Scope, ScopedJoinHandle};
use crate::wait::exception;
use crate::wait::os_header;
use crate::wait::waiter;

/// A group of green threads that borrow and end together; see [`group`].
pub struct Group<'scope, 'env: 'scope> {
    scope: Scope<'scope, 'env>,
    members: Arc<Members>,
}

/// The part that the children and the group share.
struct Members {
    scope: Arc<scope::Shared>,
    /// A limit around the group may end its children.
    is_under_limit: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    threads: Vec<GreenThread>,
    /// When the list is this long, children that have ended are taken out of it.
    full: usize,
    cancelled: bool,
    cancel_on_error: bool,
    /// A child has failed.
    failed: bool,
}

/// In a list that is shorter than this, children that have ended stay.
const LEAST: usize = 16;

impl Members {
    fn is_cancelled(&self) -> bool {
        self.state.lock().cancelled
    }

    /// Adds a child. False: the group was cancelled, and the caller must kill the child.
    fn add(&self, thread: &GreenThread) -> bool {
        let mut state = self.state.lock();
        if state.cancelled {
            return false;
        }
        if state.threads.len() >= state.full {
            // Dropped outside the lock, because it may be the last reference.
            let ended: Vec<_> = state.threads.extract_if(.., |it| it.has_ended()).collect();
            state.full = LEAST.max(2 * state.threads.len());
            state.threads.push(thread.clone());
            drop(state);
            drop(ended);
        } else {
            state.threads.push(thread.clone());
        }
        true
    }

    /// The calling thread is not killed, because it has failed and ends by itself.
    fn cancel_others(&self) {
        let caller = os_header::header();
        for thread in self.close() {
            if !ptr::eq(&raw const *thread.0, caller) {
                thread.kill();
            }
        }
    }

    fn cancel(&self) {
        for thread in self.close() {
            thread.kill();
        }
    }

    /// Takes all children out, and refuses all that come later.
    fn close(&self) -> Vec<GreenThread> {
        self.scope.expect_kills();
        let mut state = self.state.lock();
        state.cancelled = true;
        std::mem::take(&mut state.threads)
    }

    fn cancel_on_error(&self) {
        let mut state = self.state.lock();
        state.cancel_on_error = true;
        let failed = state.failed;
        drop(state);
        if failed {
            self.cancel();
        }
    }

    fn child_failed(&self) {
        let mut state = self.state.lock();
        state.failed = true;
        let cancels = state.cancel_on_error && !state.cancelled;
        drop(state);
        if cancels {
            self.cancel_others();
        }
    }
}

/// If this is dropped before it was told that the child has not failed, the child unwinds, and has failed.
struct Unless<'a>(Option<&'a Members>);

impl Drop for Unless<'_> {
    fn drop(&mut self) {
        if let Some(members) = self.0 {
            members.child_failed();
        }
    }
}

/// Runs `f`, which may start green threads that borrow from the caller. Returns when all these children have ended.
/// Children that still run are [killed](GreenThread::kill) if `f` unwinds, if [`Group::cancel`] was called, or if an
/// exception comes for the caller, such as that of a [`timeout`](crate::timeout()) whose limit has passed.
///
/// In these cases a [`scope`](crate::scope()) would wait for its children. A blocking call. A killed child ends in
/// its next blocking call. If it computes and makes none, the group waits for it.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// // Two sources; the first answer is good enough.
/// let answer = weald::group(|g| {
///     let (send, receive) = std::sync::mpsc::channel();
///     for delay in [1, 10_000] {
///         let send = send.clone();
///         g.spawn(move || {
///             weald::sleep(Duration::from_millis(delay));
///             send.send(delay).is_ok()
///         });
///     }
///     let first = weald::blocking(|| receive.recv());
///     g.cancel();
///     first
/// });
/// assert_eq!(answer, Ok(1));
///
/// // A limit holds for all.
/// let late = weald::timeout(Duration::from_millis(5), || {
///     weald::group(|g| {
///         g.spawn(|| weald::sleep(Duration::MAX));
///     })
/// });
/// assert!(late.is_err());
/// ```
///
/// # Panics
/// With the panic of `f`, or if a child that was not joined has panicked. A child that the group has killed is not counted.
pub fn group<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Group<'scope, 'env>) -> T,
{
    exception::check_may_wait();
    let scope = Scope::new();
    let members = Arc::new(Members {
        scope: Arc::clone(scope.shared()),
        is_under_limit: waiter::has_limit(),
        state: Mutex::new(State::default()),
    });
    let group = Group { scope, members };
    let result = catch_unwind(AssertUnwindSafe(|| f(&group)));
    let interrupted = if result.is_err() {
        // If an exception comes now, it stays pending, and the next blocking call raises it.
        group.cancel();
        group.scope.wait();
        Ok(())
    } else {
        group.scope.wait_unless_interrupted()
    };
    if interrupted.is_err() {
        group.cancel();
        group.scope.wait();
    }
    match (result, interrupted) {
        (Err(payload), _) => exception::go_on(payload),
        (Ok(value), Err(interrupt)) => {
            // Dropped before the stack unwinds: then a panic of its destructor would end the process.
            drop_quietly(value);
            interrupt.unwind()
        }
        (Ok(_), Ok(())) if group.scope.has_unwound() => {
            panic!("a green thread of a group panicked")
        }
        (Ok(value), Ok(())) => value,
    }
}

impl<'scope> Group<'scope, '_> {
    /// Starts a green thread that may borrow what outlives the group. In a group that was cancelled it never runs its
    /// body, and `join` gives the exception [`Killed`](crate::Killed).
    ///
    /// # Examples
    /// ```
    /// let words = ["a", "bc"];
    /// let lengths: Vec<usize> = weald::group(|g| {
    ///     let children = words.map(|word| g.spawn(move || word.len()));
    ///     children.map(|child| child.join().unwrap()).into()
    /// });
    /// assert_eq!(lengths, [1, 2]);
    /// ```
    ///
    /// A body may also never return, as `|| panic!()`.
    #[track_caller]
    pub fn spawn<F, Ends>(&'scope self, f: F) -> ScopedJoinHandle<'scope, F::Value>
    where
        F: Body<Ends> + Send + 'scope,
        F::Value: Send + 'scope,
    {
        let members = Arc::clone(&self.members);
        let body = move || {
            let mut unless = Unless(Some(&members));
            let (value, has_failed) = f.run();
            if !has_failed {
                unless.0 = None;
            }
            value
        };
        let request = Request {
            is_doomed: self.members.is_cancelled(),
            is_under_limit: self.members.is_under_limit,
            ..Request::default()
        };
        let site = Location::caller();
        let child = with_runtime_arc(|inner| self.scope.start(inner, request, body));
        make::note_site(child.thread(), site);
        if !self.members.add(child.thread()) {
            child.thread().kill();
        }
        child
    }

    /// Kills the children that still run, and each one that comes later. Returns at once.
    ///
    /// # Examples
    /// ```
    /// weald::group(|g| {
    ///     let child = g.spawn(|| weald::park());
    ///     g.cancel();
    ///     assert!(child.join().is_err());
    /// });
    /// ```
    pub fn cancel(&self) {
        self.members.cancel();
    }

    /// From now on the group is cancelled when a child panics, is killed or returns an error (see
    /// [`Outcome`](crate::Outcome)). If a child has done so already, the group is cancelled at once.
    ///
    /// # Examples
    /// ```
    /// let results = weald::group(|g| {
    ///     g.cancel_on_error();
    ///     let waits = g.spawn(|| weald::park());
    ///     let fails = g.spawn(|| Err::<(), _>("no"));
    ///     (waits.join().is_err(), fails.join().unwrap())
    /// });
    /// assert_eq!(results, (true, Err("no")));
    /// ```
    pub fn cancel_on_error(&self) {
        self.members.cancel_on_error();
    }
}

impl fmt::Debug for Group<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::{LEAST, group};

    #[test]
    fn children_that_have_ended_are_not_kept() {
        group(|g| {
            for _ in 0..1000 {
                g.spawn(|| ()).join().expect("it does not panic");
            }
            assert!(g.members.state.lock().threads.len() <= 2 * LEAST);
        });
    }
}
