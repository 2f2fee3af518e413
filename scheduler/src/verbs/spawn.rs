//! Starting green threads.
#![allow(
    unsafe_code,
    reason = "one door for threads that borrow and threads that do not"
)]

use std::io;

use crate::engine::inner::Inner;
use crate::engine::settings::{NEEDS_OWN, checked_stack_size, unsupported};
use crate::green::request::Request;
use crate::verbs::default_runtime::{here, with_runtime_arc};
use crate::verbs::join::JoinHandle;
use crate::verbs::make::start;
use crate::verbs::scope::{Scope, ScopedJoinHandle};

/// Starts a green thread in the runtime of the caller, or in the default one.
///
/// Returns at once; the new thread runs when a worker gets to it. Dropping the handle detaches it.
/// If the runtime is being shut down, the handle is that of a thread whose body never runs.
///
/// A thread gets its stack when it first runs. If the system gives no more stacks, it waits until
/// another thread has ended. If no other thread has one that would do, it never runs: a line on standard error
/// names the bound and what raises it, and `join` gives that text as the payload.
///
/// # Examples
/// ```
/// let answer = weald_scheduler::spawn(|| 6 * 7);
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// # Panics
/// If the default runtime cannot be started.
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    with_runtime_arc(|inner| {
        // SAFETY: `f` and its result are `'static`.
        unsafe { start(inner, Request::default(), f) }
    })
}

/// Settings for one green thread: name, stack, whether it may migrate.
///
/// # Examples
/// ```
/// let handle = weald_scheduler::Builder::new()
///     .name("resolver".to_string())
///     .stack_size(64 << 10)
///     .spawn(|| weald_scheduler::current().name().map(String::from))?;
/// assert_eq!(handle.join().unwrap().as_deref(), Some("resolver"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    pinned: bool,
    patched: Option<bool>,
}

impl Builder {
    /// The runtime's settings, no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The thread's name, for messages.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// The thread's stack in bytes: 16 KiB to 1 GiB, rounded up to pages.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// `true`: once started the thread never leaves its OS thread, whatever the runtime's setting.
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Whether calls of libc that would block suspend the thread instead, where the program is
    /// linked with `weald-patch`. Without a word it is as the runtime says. It needs
    /// [`ThreadLocals::Own`](crate::ThreadLocals), without which `spawn` fails with `Unsupported`.
    ///
    /// # Examples
    /// ```
    /// let handle = weald_scheduler::Builder::new().patched(false).spawn(|| ())?;
    /// # handle.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn patched(mut self, patched: bool) -> Self {
        self.patched = Some(patched);
        self
    }

    fn request(self, inner: &Inner) -> io::Result<Request> {
        let stack_size = self.stack_size.map(checked_stack_size).transpose()?;
        if let Some(size) = stack_size {
            crate::parts::stack::check_limit(size, inner.settings.guard)?;
        }
        if self.patched == Some(true) && inner.settings.own.is_none() {
            let reason = crate::parts::thread_locals::support().err();
            return Err(unsupported(reason.unwrap_or(NEEDS_OWN)));
        }
        Ok(Request {
            name: self.name.map(Into::into),
            stack_size,
            pinned: self.pinned,
            patched: self.patched,
            ..Request::default()
        })
    }

    /// Starts the thread. As [`spawn`](crate::spawn()).
    ///
    /// # Errors
    /// `InvalidInput` for a stack size out of its range, with value and bound in the text;
    /// `OutOfMemory` for one that can never be had, as the process may not map so much
    /// (`RLIMIT_AS`). A stack that cannot be had at the moment is no error: the thread waits for it.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let inner = here();
        let request = self.request(&inner)?;
        // SAFETY: `f` and its result are `'static`.
        Ok(unsafe { start(&inner, request, f) })
    }

    /// Starts the thread in a scope. As [`Scope::spawn`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    /// ```
    /// let word = String::from("borrowed");
    /// weald_scheduler::scope(|scope| {
    ///     let builder = weald_scheduler::Builder::new().name("reader".to_string());
    ///     let length = builder.spawn_scoped(scope, || word.len()).unwrap();
    ///     assert_eq!(length.join().unwrap(), 8);
    /// });
    /// ```
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let inner = here();
        let request = self.request(&inner)?;
        Ok(scope.start(&inner, request, f))
    }
}
