//! Keeps the stacks that are not in use: a few with each worker, the rest in one depot.
//!
//! | where             | whose           | a slot there is   | leaves by                          |
//! |-------------------|-----------------|-------------------|------------------------------------|
//! | hot list          | one worker's    | guarded, resident | `get`, or in a batch to the depot  |
//! | depot, `resident` | the process's   | guarded, resident | in a batch to a hot list or `trim` |
//! | depot, `clean`    | the process's   | guarded, no pages | in a batch to a hot list           |
//! | depot, `bare`     | the process's   | without a guard   | in a batch, guarded on the way     |
//! | depot, `fresh`    | the process's   | never handed out  | in a batch, guarded on the way     |
//!
//! 1. Hot lists are last in, first out: the next green thread runs on the stack whose pages are
//!    likeliest to be in the processor's cache.
//! 2. A hot list has room for two batches and never grows. When it is full, the colder batch goes to
//!    the depot. When it is empty, one batch comes from the depot. So workers that only free or only take stacks
//!    need the depot's lock once for each batch, and no worker keeps too many stacks. A worker that sleeps for long
//!    gives all its stacks to the depot.
//! 3. No lock of a class is held while a system call guards slots or gives pages back. It is held during
//!    `mmap`, so that one worker makes the class larger and the others use what it got.
//!
//! `excess.rs` says how the depot gives memory back.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::depot::{NoStack, batch, deposit, withdraw};
use super::excess::give_back_all;
use super::slot::{CLASSES, DEFAULT_GUARD, Guard, MAX_STACK, Stack, class_of, round_up_to_class};
use crate::parts::errno::KeepErrno;

/// How many caches exist.
static CACHES: AtomicUsize = AtomicUsize::new(0);

/// A worker's own stacks. Only its owner touches it, so it needs no lock.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Per class, the hottest last. Without room until the class is first used.
    hot: [Vec<Stack>; CLASSES],
    /// The guard of all its stacks.
    guard: Guard,
}

impl Cache {
    /// A cache without stacks; its stacks will have the ordinary guard. Allocates nothing.
    pub(crate) fn new() -> Self {
        Self::with_guard(Guard::of(DEFAULT_GUARD))
    }

    /// A cache without stacks; its stacks will have this guard.
    pub(crate) fn with_guard(guard: Guard) -> Self {
        CACHES.fetch_add(1, Ordering::Relaxed);
        Self {
            hot: [const { Vec::new() }; CLASSES],
            guard,
        }
    }

    /// Takes a stack of at least this many usable bytes. It has exactly this many, if the number is one that
    /// [`round_up_to_class`] returns.
    ///
    /// # Errors
    /// `InvalidInput` above [`MAX_STACK`]; `OutOfMemory` if the system refuses memory or, where
    /// guards are counted, another one. The message names the limit.
    #[inline]
    pub(crate) fn get(&mut self, size: usize) -> Result<Stack, NoStack> {
        // A size that is too large has no class.
        if let Some(stack) = self.hot.get_mut(class_of(size)).and_then(Vec::pop) {
            return Ok(stack);
        }
        self.refill_and_get(size)
    }

    #[cold]
    fn refill_and_get(&mut self, size: usize) -> Result<Stack, NoStack> {
        let size = round_up_to_class(size);
        if size > MAX_STACK {
            let text = format!("a stack of {size} bytes is above the bound of {MAX_STACK}");
            return Err(NoStack {
                error: io::Error::new(io::ErrorKind::InvalidInput, text),
                may_come: false,
            });
        }
        let class = class_of(size);
        let hot = &mut self.hot[class];
        if hot.is_empty() {
            let _errno = KeepErrno::new();
            hot.reserve_exact(2 * batch(class));
            withdraw(class, self.guard, hot)?;
        }
        Ok(hot.pop().expect("a withdrawal gives at least one stack"))
    }

    /// Takes back a stack that nobody runs on any more.
    #[inline]
    pub(crate) fn put(&mut self, stack: Stack) {
        debug_assert_eq!(stack.guard(), self.guard, "it is another runtime's");
        let class = stack.class();
        let hot = &mut self.hot[class];
        if hot.len() == hot.capacity() {
            Self::make_room(class, hot);
        }
        hot.push(stack);
    }

    #[cold]
    fn make_room(class: usize, hot: &mut Vec<Stack>) {
        if hot.is_empty() {
            hot.reserve_exact(2 * batch(class));
        } else {
            deposit(class, hot.drain(..batch(class)));
        }
    }

    /// Gives all stacks to the depot. For a worker that will sleep for long, or if other workers wait for stacks.
    pub(crate) fn flush(&mut self) {
        for (class, hot) in self.hot.iter_mut().enumerate() {
            if !hot.is_empty() {
                deposit(class, hot.drain(..));
            }
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
        if CACHES.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The last worker is gone, so no other one could give the stacks back later.
            give_back_all();
        }
    }
}

/// Gives a stack back, for a caller that has no cache.
pub(crate) fn release(stack: Stack) {
    deposit(stack.class(), std::iter::once(stack));
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
