//! Starts green threads: `spawn` and `Builder`.
#![allow(
    unsafe_code,
    reason = "one door for threads that borrow and threads that do not"
)]

use std::io;
use std::panic::Location;

use crate::engine::inner::Inner;
use crate::engine::settings::{NEEDS_OWN, checked_stack_size, out_of_range, unsupported};
use crate::green::request::{Request, Start};
use crate::shim::sync::Arc;
use crate::verbs::default_runtime::{here, with_runtime_arc};
use crate::verbs::join::JoinHandle;
use crate::verbs::make::{note_site, start};
use crate::verbs::scope::{Scope, ScopedJoinHandle};

/// Starts a green thread in the runtime of the caller, or in the default one.
///
/// Returns at once. The new thread runs when a worker comes to it. Dropping the handle detaches the thread.
/// If the runtime is being shut down, the body of the thread never runs.
///
/// A thread gets its stack when it first runs. If the system gives no more stacks, it waits until
/// another thread has ended. If no other thread has a stack of its size, it never runs: a line on standard error
/// names the bound and how to raise it, and `join` returns that text as the payload.
///
/// # Examples
/// ```
/// let answer = weald::spawn(|| 6 * 7);
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// # Panics
/// If the default runtime cannot be started.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let handle = with_runtime_arc(|inner| {
        // SAFETY: `f` and its result are `'static`.
        unsafe { start(inner, Request::default(), f) }
    });
    note_site(handle.thread(), Location::caller());
    handle
}

/// Settings for one green thread: name, stack, where it starts, whether it may migrate.
///
/// # Examples
/// ```
/// let handle = weald::Builder::new()
///     .name("resolver".to_string())
///     .stack_size(64 << 10)
///     .spawn(|| weald::current().name().map(String::from))?;
/// assert_eq!(handle.join().unwrap().as_deref(), Some("resolver"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    pinned: bool,
    worker: Option<usize>,
    own_thread: bool,
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

    /// The worker that the thread starts on: 0, 1, .. up to one less than the runtime has
    /// ([`Metrics::workers`](crate::Metrics::workers)).
    ///
    /// No other worker takes it before it has begun, however long this one is busy. Among the threads that are ready
    /// there it has no precedence. Once it has begun it may migrate like any other thread, unless it is
    /// [`pinned`](Self::pinned) or the runtime pins. So this is for threads that share data or sockets: the events of
    /// a socket go to the worker on which it was first used.
    ///
    /// # Examples
    /// ```
    /// use weald::{Builder, Runtime};
    /// let rt = Runtime::builder().workers(2).build()?;
    /// rt.run(|| {
    ///     let one_on_each = (0..2).map(|n| Builder::new().worker(n).spawn(move || n));
    ///     let handles: Vec<_> = one_on_each.collect::<Result<_, _>>().unwrap();
    ///     let sum: usize = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
    ///     assert_eq!(sum, 1);
    ///     assert!(Builder::new().worker(2).spawn(|| ()).is_err());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn worker(mut self, worker: usize) -> Self {
        self.worker = Some(worker);
        self
    }

    /// `true`: the thread has an OS thread for itself, from its start to its end, on which no other green thread
    /// ever runs. This is for libraries that must be called by one OS thread, as libraries for windows and graphics often
    /// must, and for code that blocks its OS thread again and again.
    ///
    /// It is a green thread: it uses channels, locks, [`join`](crate::JoinHandle::join) and `select!` with all others, it
    /// sleeps, has limits, can be killed, and ends when its runtime ends. When it waits, its OS thread blocks. It may also
    /// block the OS thread by itself, and compute, for any time: no worker waits for it, and it takes none of the
    /// [`spare_threads`](crate::RuntimeBuilder::spare_threads). Its start and each of its wake-ups cost some
    /// microseconds, more than those of other green threads.
    ///
    /// In each mode of the runtime `thread_local!` is the OS thread's; the values are gone when a `join` returns.
    /// [`stack_size`](Self::stack_size) is the OS thread's, with std's default, and std reports its overflow. The OS thread
    /// has the green thread's name. Calls of libc are never [`patched`](Self::patched). Hooks for leaving a stack are not
    /// called, because the thread never leaves its stack.
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    /// thread_local! { static CONTEXT: Cell<u32> = const { Cell::new(0) } }
    ///
    /// let draws = || {
    ///     CONTEXT.set(7);
    ///     weald::sleep(std::time::Duration::from_millis(1));
    ///     // It is the OS thread that set it.
    ///     CONTEXT.get()
    /// };
    /// let painter = weald::Builder::new().own_thread(true).spawn(draws)?;
    /// assert_eq!(painter.join().unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn own_thread(mut self, own_thread: bool) -> Self {
        self.own_thread = own_thread;
        self
    }

    /// Whether calls of libc that would block suspend the thread instead, where the program is
    /// linked with `weald-patch`. The default is the runtime's setting. It needs
    /// [`ThreadLocals::Own`](crate::ThreadLocals), without which `spawn` fails with `Unsupported`.
    ///
    /// # Examples
    /// ```
    /// let handle = weald::Builder::new().patched(false).spawn(|| ())?;
    /// # handle.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn patched(mut self, patched: bool) -> Self {
        self.patched = Some(patched);
        self
    }

    fn request(self, inner: &Arc<Inner>) -> io::Result<Request> {
        let stack_size = self.stack_size.map(checked_stack_size).transpose()?;
        if let Some(size) = stack_size {
            crate::parts::stack::check_limit(size, inner.settings.guard)?;
        }
        if self.own_thread && self.patched == Some(true) {
            return Err(both("patched"));
        }
        if self.patched == Some(true) && inner.settings.own.is_none() {
            let reason = crate::parts::thread_locals::support().err();
            return Err(unsupported(reason.unwrap_or(NEEDS_OWN)));
        }
        let start = match self.worker {
            Some(_) if self.own_thread => return Err(both("worker")),
            Some(worker) => Start::Worker(checked_worker(worker, inner)?),
            None if self.own_thread => own_thread(inner, self.name.as_deref(), stack_size)?,
            None => Start::Anywhere,
        };
        let patched = if self.own_thread {
            Some(false)
        } else {
            self.patched
        };
        Ok(Request {
            name: self.name.map(Into::into),
            stack_size,
            pinned: self.pinned,
            patched,
            start,
            ..Request::default()
        })
    }

    /// Starts the thread. As [`spawn`](crate::spawn()).
    ///
    /// # Errors
    /// - `InvalidInput` for a stack size or a worker out of its range (the text has the value and the bound), and for
    ///   settings that exclude each other.
    /// - `OutOfMemory` if the process may never map so large a stack (`RLIMIT_AS`). If there is only no stack at the
    ///   moment, this is no error: the thread waits for one.
    /// - The system's error if it gives no OS thread for [`own_thread`](Self::own_thread).
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let inner = here();
        let request = self.request(&inner)?;
        // SAFETY: `f` and its result are `'static`.
        let handle = unsafe { start(&inner, request, f) };
        note_site(handle.thread(), Location::caller());
        Ok(handle)
    }

    /// Starts the thread in a scope. As [`Scope::spawn`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    /// ```
    /// let word = String::from("borrowed");
    /// weald::scope(|scope| {
    ///     let builder = weald::Builder::new().name("reader".to_string());
    ///     let length = builder.spawn_scoped(scope, || word.len()).unwrap();
    ///     assert_eq!(length.join().unwrap(), 8);
    /// });
    /// ```
    #[track_caller]
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
        let child = scope.start(&inner, request, f);
        note_site(child.thread(), Location::caller());
        Ok(child)
    }
}

/// Starts the OS thread of a thread that must have one for itself.
#[cfg(not(loom))]
fn own_thread(inner: &Arc<Inner>, name: Option<&str>, stack: Option<usize>) -> io::Result<Start> {
    crate::run::own_thread::start(inner, name, stack).map(Start::OwnThread)
}

/// In a model each thread is one of loom's threads anyway.
#[cfg(loom)]
#[allow(clippy::unnecessary_wraps, reason = "as above")]
fn own_thread(_: &Arc<Inner>, _: Option<&str>, _: Option<usize>) -> io::Result<Start> {
    Ok(Start::Anywhere)
}

fn both(other: &str) -> io::Error {
    let text = format!("a green thread with an OS thread for itself cannot have `{other}` as well");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Checks that there is such a worker.
fn checked_worker(worker: usize, inner: &Inner) -> io::Result<u16> {
    let range = 0..=inner.idle.workers().saturating_sub(1);
    let found = u16::try_from(worker).ok();
    let found = found.filter(|_| range.contains(&worker));
    found.ok_or_else(|| out_of_range("worker", worker, range))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::Builder;
    use crate::engine::carrier;
    use crate::green::current;
    use crate::{Runtime, RuntimeBuilder, ThreadLocals};

    fn each_mode(workers: usize, check: impl Fn(&Runtime)) {
        let pinned: fn(RuntimeBuilder) -> RuntimeBuilder =
            |builder| builder.thread_locals(ThreadLocals::Pinned);
        // SAFETY: the threads of these tests use no thread-locals.
        let shared: fn(RuntimeBuilder) -> RuntimeBuilder =
            |builder| unsafe { builder.share_thread_locals() };
        for mode in [|builder| builder, pinned, shared] {
            check(&mode(Runtime::builder().workers(workers)).build().unwrap());
        }
    }

    /// The worker of the running green thread; `None` if the monitor has just given it to others.
    fn worker() -> Option<usize> {
        // SAFETY: the running thread's header is alive.
        let runtime = unsafe { (*current::green()?).runtime };
        carrier::with_core(runtime, |worker, _| worker.index)
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_thread_begins_on_the_worker_that_was_asked_for() {
        each_mode(3, |rt| {
            let right = AtomicUsize::new(0);
            let check = |asked| match worker() {
                Some(index) if index == asked => drop(right.fetch_add(1, Ordering::Relaxed)),
                None => {}
                Some(other) => panic!("on {other} instead of {asked}"),
            };
            let check = &check;
            rt.run(|| {
                crate::scope(|scope| {
                    for asked in (0..300).map(|n| n % 3) {
                        let builder = Builder::new().worker(asked);
                        builder.spawn_scoped(scope, move || check(asked)).unwrap();
                    }
                });
            });
            assert!(right.into_inner() > 0);
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn where_others_are_always_ready_a_thread_begins_on_its_worker_all_the_same() {
        each_mode(2, |rt| {
            let stop = AtomicBool::new(false);
            let is_ready_again_and_again = || {
                while !stop.load(Ordering::Relaxed) {
                    crate::yield_now();
                }
            };
            rt.run(|| {
                crate::scope(|scope| {
                    for _ in 0..6 {
                        scope.spawn(is_ready_again_and_again);
                    }
                    for asked in [0, 1, 0, 1] {
                        let is_right = move || worker().is_none_or(|index| index == asked);
                        let thread = Builder::new().worker(asked).spawn_scoped(scope, is_right);
                        assert!(thread.unwrap().join().unwrap());
                    }
                    stop.store(true, Ordering::Relaxed);
                });
            });
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn soon_nothing_runs_on_workers_that_have_retired() {
        each_mode(3, |rt| {
            rt.set_workers(1).unwrap();
            let elsewhere = AtomicUsize::new(0);
            let note = || {
                for _ in 0..5 {
                    if worker().is_some_and(|index| index > 0) {
                        elsewhere.fetch_add(1, Ordering::Relaxed);
                    }
                    crate::yield_now();
                }
            };
            let until = Instant::now() + Duration::from_secs(30);
            let mut still = None;
            while still != Some(0) && Instant::now() < until {
                elsewhere.store(0, Ordering::Relaxed);
                rt.run(|| {
                    crate::scope(|scope| {
                        for _ in 0..100 {
                            scope.spawn(note);
                        }
                    });
                });
                still = Some(elsewhere.load(Ordering::Relaxed));
            }
            assert_eq!(still, Some(0));
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_thread_that_must_stay_where_it_begins_begins_on_no_worker_that_has_retired() {
        each_mode(2, |rt| {
            for _ in 0..20 {
                rt.set_workers(2).unwrap();
                let before = rt.metrics().handovers;
                let has_retired = AtomicBool::new(false);
                let begins_there = || {
                    has_retired.load(Ordering::Relaxed) && worker().is_some_and(|index| index == 1)
                };
                let (has_retired, begins_there) = (&has_retired, &begins_there);
                let there = rt.run(|| {
                    crate::scope(|scope| {
                        let parent = move || {
                            let pinned = |_| {
                                Builder::new()
                                    .pinned(true)
                                    .spawn_scoped(scope, begins_there)
                            };
                            let children: Vec<_> = (0..20).map(pinned).collect();
                            rt.set_workers(1).unwrap();
                            has_retired.store(true, Ordering::Relaxed);
                            let children = children.into_iter();
                            children
                                .map(|child| child.unwrap().join().unwrap())
                                .filter(|there| *there)
                                .count()
                        };
                        let on = Builder::new().worker(1).pinned(true);
                        on.spawn_scoped(scope, parent).unwrap().join().unwrap()
                    })
                });
                // Where the monitor has given the worker to another OS thread meanwhile, a child may have begun before.
                if rt.metrics().handovers == before {
                    assert_eq!(there, 0);
                }
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_new_worker_takes_what_the_only_one_has_queued_that_computes() {
        let is_taken = |rt: &Runtime| {
            let computes = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&computes);
            let thread = rt.spawn(move || {
                let ends = Arc::new(AtomicBool::new(false));
                let ended = Arc::clone(&ends);
                let child = crate::spawn(move || {
                    // Else the monitor has given the worker to another OS thread, as that of any that computes.
                    let is_taken = crate::metrics().handovers == 0;
                    ends.store(true, Ordering::Relaxed);
                    is_taken
                });
                told.store(true, Ordering::Relaxed);
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                child.join().unwrap()
            });
            while !computes.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            rt.set_workers(2).unwrap();
            thread.join().unwrap()
        };
        // On a loaded machine the monitor may be late.
        let again = || {
            let taken = AtomicBool::new(true);
            each_mode(1, |rt| {
                taken.fetch_and(is_taken(rt), Ordering::Relaxed);
            });
            taken.into_inner()
        };
        assert!((0..100).any(|_| again()));
    }
}
